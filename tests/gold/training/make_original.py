"""Writes the gold numbers of LLaVA-1.5's training by running the original on the inputs of ``inputs.py``.

    python tests/gold/training/make_original.py CHECKOUT WORK [TOPIC ...]

CHECKOUT is a folder with the original's package ``llava``, WORK an empty folder for its inputs and outputs (its path
must not contain "mpt", by which the original chooses another model class). Each topic is made twice and must come out
the same. ``tokenizer`` as the only topic trains ``tokenizer.model`` anew.

Source: haotian-liu/LLaVA, release 1.2.2.post1 as PyPI has it (llava-torch), three months before c121f04. Beside files
of the repository: llava_trainer.py is the same, llava_arch.py has one ``.to(device)`` less; train.py was not compared.
Run under Python 3.11 with the versions that each gold file names, on a CPU in float32 with one thread.

Patched, so that it runs here: ``deepspeed`` is an empty module (the original imports it to save); PEFT does not ask
the hub for the base's config.json when it saves. Changed, so that runs can be repeated: LoRA's A comes from
``inputs.lora_values``; in runs named "float32 tower" ``CLIPVisionTower.to`` does nothing. Everything else only records:
the dataset's indices, the losses that ``training_step`` returns, the norms that ``clip_grad_norm_`` returns, the
parameters, rates and steps of the optimizer, and the log.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import peft
import safetensors.torch
import tokenizers
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.gold.training import command_lines, inputs, mask_samples
from tests.gold.training.original_runner import Recorder, conversation_lib, llava_trainer, original, run

HEAD = {
    "source": "haotian-liu/LLaVA 1.2.2.post1 (PyPI: llava-torch), run by tests/gold/training/make_original.py",
    "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate, peft, tokenizers)},
}
MASKS_MAX_LENGTH = {"llama_2": 256}  # its system prompt alone is longer than the others' limit


def short(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.9g}")


# runs and files


def make_runs(work: Path) -> dict[str, Any]:
    """The numbers of each run, and beside them (``files``) what it left on disk."""
    runs: dict[str, Any] = {}
    listings = Listings()
    for name, flags in command_lines.RUNS.items():
        variants = {name: {}} | (
            {f"{name}, float32 tower": {"float32_tower": True}} if name in command_lines.FLOAT32_TOWER else {}
        )
        for title, options in variants.items():
            seen, model, error, output = run(flags, work, **options)
            runs[title] = numbers(flags, seen, model, error)
            print(title, error or [round(update["loss"], 4) for update in seen.updates], file=sys.stderr, flush=True)
            if not options:
                listings.add(name, output, work)
    return {
        "runs_15": HEAD | {"shared_flags": command_lines.SHARED, "runs": runs},
        "files_15": HEAD | listings.content(),
    }


def numbers(flags: command_lines.Flags, seen: Recorder, model: Any, error: str | None) -> dict[str, Any]:
    result: dict[str, Any] = {"flags": inputs.differences(flags, command_lines.SHARED)}
    if error:
        return result | {"error": error}
    assert all(update["stepped"] for update in seen.updates)
    result |= {
        "loss": [short(update["loss"]) for update in seen.updates],
        "grad_norm": [short(update["grad_norm"]) for update in seen.updates],
        "lr": [[short(rate) for rate in update["lr"]] for update in seen.updates],
        "logged_loss": [line["loss"] for line in seen.log[:-1]],
        "logged_lr": [short(line["learning_rate"]) for line in seen.log[:-1]],
        "batches": [update["batches"] for update in seen.updates],
    }
    if any(len(update["micro_losses"]) > 1 for update in seen.updates):
        result["micro_losses"] = [[short(loss) for loss in update["micro_losses"]] for update in seen.updates]
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    norms = {name: short(parameter.detach().double().norm().item()) for name, parameter in trained.items()}
    return result | {"norms_after": norms}


class Listings:
    """The files of runs. A table of tensors or of a config's values is written once, or as its differences."""

    def __init__(self) -> None:
        self.tables: list[dict[str, Any]] = []
        self.runs: dict[str, Any] = {}

    def content(self) -> dict[str, Any]:
        written: list[dict[str, Any]] = []
        for table in self.tables:
            changes = [inputs.differences(table, other) for other in self.tables[: len(written)]]
            nearest = min(range(len(changes)), key=lambda at, found=changes: len(found[at]), default=None)
            if nearest is not None and len(changes[nearest]) < len(table) // 3:
                written.append({"like": nearest, "differences": changes[nearest]})
            else:
                written.append(table)
        return {"tables": written, "runs": self.runs}

    def _table(self, content: dict[str, Any]) -> int:
        if content not in self.tables:
            self.tables.append(content)
        return self.tables.index(content)

    def add(self, name: str, output: Path, work: Path) -> None:
        files: dict[str, Any] = {}
        for file in sorted(output.rglob("*")):
            if file.is_file():
                content = describe(file, work)
                files[str(file.relative_to(output))] = None if content is None else self._table(content)
        self.runs[name] = files


def describe(file: Path, work: Path) -> Any:
    """What a file holds: tensors with shape and dtype, or a config's values; None for files that are only named."""
    if file.name in (
        "config.json",
        "adapter_config.json",
        "generation_config.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ):
        content = json.loads(file.read_text().replace(str(work), "{work}"))
        if "target_modules" in content:
            content["target_modules"] = sorted(content["target_modules"])  # a set's order
        return content
    if file.suffix == ".safetensors":
        return shapes(safetensors.torch.load_file(file))
    if file.name in ("mm_projector.bin", "non_lora_trainables.bin"):
        return shapes(torch.load(file, map_location="cpu", weights_only=True))
    return None


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()}


# groups and orders


def make_groups(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    lists: list[list[str]] = []
    for name, flags in command_lines.GROUPS.items():
        seen, _, error, _ = run(flags, work, groups_only=True)
        groups = copy.deepcopy(seen.groups)
        for group in groups:  # equal lists of names are written once
            if group["parameters"] not in lists:
                lists.append(group["parameters"])
            group["parameters"] = lists.index(group["parameters"])
        found[name] = {"flags": inputs.differences(flags, command_lines.SHARED), "groups": groups} | (
            {"error": error} if error else {}
        )
    return {"groups_15": HEAD | {"shared_flags": command_lines.SHARED, "parameters": lists, "command_lines": found}}


def make_orders(work: Path) -> dict[str, Any]:
    runs: dict[str, Any] = {}
    for name, flags in command_lines.ORDERS.items():
        seen, _, error, _ = run(flags, work)
        assert error is None, error
        assert seen.batches == [batch for update in seen.updates for batch in update["batches"]]
        assert all(update["stepped"] for update in seen.updates)
        different = inputs.differences(flags, command_lines.STAGE_1)
        runs[name] = {"flags": different, "updates": [update["batches"] for update in seen.updates]}
    functions = {
        "get_length_grouped_indices": [],
        "get_modality_length_grouped_indices": [],
        "LengthGroupedSampler": [],
    }
    for case in inputs.sampler_cases():
        functions[case["function"]].append({**case, "result": sampled(case)})
    chunks = [
        {**case, "result": llava_trainer.split_to_even_chunks(case["indices"], case["lengths"], case["num_chunks"])}
        for case in inputs.chunk_cases()
    ]
    return {
        "orders_15": HEAD
        | {"shared_flags": command_lines.STAGE_1, "runs": runs, "split_to_even_chunks": chunks}
        | functions
    }


def sampled(case: dict[str, Any]) -> Any:
    """The indices that a sampler function gives, or its exception."""
    torch.manual_seed(case["seed"])
    generator = torch.Generator().manual_seed(case["seed"] + 1) if case["generator"] else None
    lengths = inputs.lengths(case["kind"], case["count"])
    try:
        if case["function"] == "LengthGroupedSampler":
            sampler = llava_trainer.LengthGroupedSampler(
                case["batch_size"], case["world_size"], lengths, generator, group_by_modality=case["kind"] != "images"
            )
            return [list(sampler), list(sampler)]
        function = getattr(llava_trainer, case["function"])
        return function(lengths, case["batch_size"], case["world_size"], generator=generator)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"


# masks and batches


def make_masks(work: Path) -> dict[str, Any]:
    branches: list[dict[str, Any]] = []
    known: dict[str, Any] = {}
    for tokenizer_name, kind in inputs.TOKENIZERS.items():
        folder = work / f"tokenizer-{tokenizer_name}"
        inputs.write_tokenizer(folder, **kind)
        for version in inputs.MASK_VERSIONS[tokenizer_name]:
            branches.append(branch(version, tokenizer_name, folder, work, known))
    multimodal = [
        {"version": version, "mm_use_im_start_end": wrapped, "values": multimodal_values(version, wrapped)}
        for version in ("v1", "v0_mmtag", "v1_mmtag")
        for wrapped in (False, True)
    ]
    return {"masks_15": HEAD | {"branches": branches, "preprocess_multimodal": multimodal}}


def use(version: str) -> None:
    """Chooses the template as train() does."""
    conversation_lib.default_conversation = conversation_lib.conv_vicuna_v1
    if version not in ("v0", "v0.5"):
        templates = conversation_lib.conv_templates
        conversation_lib.default_conversation = templates.get(version, templates["vicuna_v1"])


def branch(version: str, tokenizer_name: str, folder: Path, work: Path, known: dict[str, Any]) -> dict[str, Any]:
    """Ids and trained spans of every sample under one template and one tokenizer."""
    use(version)
    limit = MASKS_MAX_LENGTH.get(version, 128)
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        folder, model_max_length=limit, padding_side="right", use_fast=False
    )
    if version == "v0":
        tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    else:
        tokenizer.pad_token = tokenizer.unk_token
    data = work / "masks.json"
    data.write_text(json.dumps(list(mask_samples.SAMPLES.values())))
    data_args = original.DataArguments(data_path=str(data), is_multimodal=True, image_folder=str(work / "images"))
    data_args.image_processor = transformers.CLIPImageProcessor.from_pretrained(work / "tower")
    data_args.mm_use_im_start_end = False
    dataset = original.LazySupervisedDataset(str(data), tokenizer, data_args)
    rows = {name: row(dataset, i) for i, name in enumerate(mask_samples.SAMPLES)}
    start = common_start([rows[name]["ids"] for name in mask_samples.CLEAN if "ids" in rows[name]])
    result: dict[str, Any] = {
        "version": version,
        "tokenizer": tokenizer_name,
        "model_max_length": limit,
        "start": start,
    }
    rows = {name: relative(found, start) for name, found in rows.items()}
    different = {other: {name: found for name, found in rows.items() if known[other][name] != found} for other in known}
    nearest = min(different, key=lambda other: len(different[other]), default=None)
    if nearest and len(different[nearest]) < len(rows) * 3 // 4:  # written as what differs from an earlier branch
        result |= {"as": nearest.split(", "), "rows": different[nearest]}
    else:
        result["rows"] = rows
    known[f"{version}, {tokenizer_name}"] = rows
    return result


def common_start(lists: list[list[int]]) -> list[int]:
    same = 0
    while same < min(map(len, lists)) and len({ids[same] for ids in lists}) == 1:
        same += 1
    return lists[0][:same]


def relative(found: dict[str, Any], start: list[int]) -> dict[str, Any]:
    """The row without the ids that all rows start with, and its positions counted from there."""
    if "error" in found:
        return found
    skip = len(start) if found["ids"][: len(start)] == start else 0
    shifted = {"ids": found["ids"][skip:], "trained": [[at - skip for at in span] for span in found["trained"]]}
    if "mismatch" in found:
        shifted["mismatch"] = [count - skip for count in found["mismatch"]]
    return shifted if skip else shifted | {"start": False}


def row(dataset: Any, i: int) -> dict[str, Any]:
    """One sample as the dataset returns it: ids, and the spans [from, to) where the labels are the ids, not -100."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            item = dataset[i]
    except Exception as problem:
        return {"error": f"{type(problem).__name__}: {problem}"}
    ids, labels = item["input_ids"].tolist(), item["labels"].tolist()
    assert len(ids) == len(labels)
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    spans: list[list[int]] = []
    for at, label in enumerate(labels):
        if label == -100:
            continue
        if spans and spans[-1][1] == at:
            spans[-1][1] = at + 1
        else:
            spans.append([at, at + 1])
    result: dict[str, Any] = {"ids": ids, "trained": spans}
    if said.getvalue():
        warning = re.fullmatch(r"WARNING: tokenization mismatch: (\d+) vs. (\d+). \(ignored\)", said.getvalue().strip())
        assert warning, said.getvalue()
        result["mismatch"] = [int(count) for count in warning.groups()]
    return result


def multimodal_values(version: str, wrapped: bool) -> dict[str, Any]:
    """The turns that preprocess_multimodal changes, by sample: {turn: new value}."""
    use(version)
    data_args = original.DataArguments(is_multimodal=True)
    data_args.mm_use_im_start_end = wrapped
    changed: dict[str, Any] = {}
    for name, sample in mask_samples.SAMPLES.items():
        turns = copy.deepcopy(sample["conversations"])
        try:
            original.preprocess_multimodal([turns], data_args)
        except Exception as problem:
            changed[name] = f"{type(problem).__name__}: {problem}"
            continue
        differs = {
            str(at): turn["value"]
            for at, turn in enumerate(turns)
            if turn["value"] != sample["conversations"][at]["value"]
        }
        if differs:
            changed[name] = differs
    return changed


def make_batches(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, case in inputs.batch_cases().items():
        tokenizer = types.SimpleNamespace(pad_token_id=case["pad_token_id"], model_max_length=case["model_max_length"])
        try:
            batch = original.DataCollatorForSupervisedDataset(tokenizer)(case["instances"])
        except Exception as problem:
            found[name] = {"error": f"{type(problem).__name__}: {problem}"}
            continue
        images = batch.get("images")
        found[name] = {
            "keys": list(batch),
            **{key: batch[key].int().tolist() for key in ("input_ids", "labels", "attention_mask")},
            "dtypes": {key: str(batch[key].dtype) for key in ("input_ids", "labels", "attention_mask")},
            "images": None
            if images is None
            else [None if image is None else list(image.shape) for image in images]
            if isinstance(images, list)
            else {"stacked": list(images.shape), "sum": short(images.double().sum().item())},
        }
    return {"batches_15": HEAD | {"batches": found}}


# writing

TOPICS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "masks": make_masks,
    "batches": make_batches,
    "orders": make_orders,
    "groups": make_groups,
    "runs": make_runs,
}


def write_gold(file: Path, content: dict[str, Any]) -> None:
    """JSON with one line for each entry of the second and third level."""

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def lines(value: Any, depth: int) -> str:
        if (
            depth == 0
            or not isinstance(value, dict | list)
            or not value
            or not any(isinstance(item, dict | list) for item in (value.values() if isinstance(value, dict) else value))
        ):
            return compact(value)
        if isinstance(value, dict):
            inside = [f"{compact(key)}:{lines(item, depth - 1)}" for key, item in value.items()]
            return "{\n" + ",\n".join(inside) + "\n}"
        return "[\n" + ",\n".join(lines(item, depth - 1) for item in value) + "\n]"

    file.write_text(lines(content, 4) + "\n")
    assert json.loads(file.read_text()) == json.loads(json.dumps(content))


def train_tokenizer() -> None:
    """A sentencepiece BPE with Llama's settings, from the templates' and the samples' own words."""
    import sentencepiece

    texts = [conversation.system for conversation in conversation_lib.conv_templates.values()] * 3
    texts += [str(turn["value"]) for s in mask_samples.SAMPLES.values() for turn in s["conversations"]]
    texts += [turn["value"] for sample in inputs.mix(200) for turn in sample["conversations"]]
    texts += ["ASSISTANT: Human: Assistant: ### [INST] [/INST] <<SYS>> <</SYS>> 0123456789"] * 3
    texts += ["<|im_start|>user", "<|im_start|>assistant", "A cat.<|im_end|>"] * 20
    texts = [text.replace("USER", "you") for text in texts]
    texts += ["The US and the US, not US. >USER"] * 60  # as in Llama's: USER is one piece, but with its blank two
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.splitlines()),
        model_writer=model,
        vocab_size=inputs.VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.995,  # rare characters are written in bytes
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (inputs.HERE / "tokenizer.model").write_bytes(model.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the gold numbers of LLaVA-1.5's training.")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("topics", nargs="*", help=f"of {', '.join(TOPICS)}; all by default")
    arguments = parser.parse_args()
    if arguments.topics == ["tokenizer"]:
        train_tokenizer()
        return
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    work = arguments.work.resolve()
    inputs.write_everything(work)
    for topic in arguments.topics or TOPICS:
        print(topic, file=sys.stderr, flush=True)
        gold = TOPICS[topic](work)
        again = TOPICS[topic](work)
        assert gold == again, f"{topic}: a second run gave something else"
        for name, content in gold.items():
            write_gold(inputs.HERE / f"{name}.json", content)


if __name__ == "__main__":
    main()
