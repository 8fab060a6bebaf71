"""Writes the gold numbers of LLaVA-NeXT's training by running the original on the inputs of ``next_inputs.py``.

    python tests/gold/training/make_next.py CHECKOUT WORK [TOPIC ...]

CHECKOUT is a folder with the original's package ``llava``, WORK an empty folder for its inputs and outputs (its path
must not contain "mistral", "llama", "yi" and so on, by which the original chooses the model class). Each topic is made
twice and must come out the same.

Source: LLaVA-VL/LLaVA-NeXT. train.py is that of 45f2d92; llava_trainer.py is the one before it (of 45f2d92 itself stops
with a NameError), without its DPO trainer; the other files are as of late 2024, rebuilt from the PyPI package
llavaction 0.0.1, a fork, by undoing its edits. The fix of LoRA beside mm_tunable_parts (pull request 511 of 2026) is
later and not in it. Run under Python 3.11 with the versions that each gold file names, on a CPU in float32.

Patched, so that it runs here: ``deepspeed`` is an empty module, ``torch.cuda.synchronize`` does nothing (the original
calls it to save), PEFT does not ask the hub for the base's config.json when it saves. Changed, so that runs can be
repeated: a new projector and a new image_newline come from ``inputs.values``, LoRA's A from ``inputs.lora_values``,
Python's ``random`` is seeded with 0 for the yaml's sampling; in runs with ``"tower": "float32"``
``CLIPVisionTower.to`` does nothing. Everything else only records: the dataset's indices, the losses that
``training_step`` returns, the norms that ``clip_grad_norm_`` returns, the optimizer's parameters and the rates at each
of its steps, and the log. Masks are those of ``LazySupervisedDataset._get_item``, without the retries around it.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.machinery
import io
import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_DISABLED": "true"}
ROOT = Path(__file__).resolve().parents[3]
sys.path[:1] = [str(Path(sys.argv[1]).resolve()), str(ROOT)]  # the original's llava before ours


def _stub_deepspeed() -> None:
    for name in (
        "deepspeed",
        "deepspeed.runtime",
        "deepspeed.runtime.zero",
        "deepspeed.runtime.zero.partition_parameters",
    ):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
    sys.modules["deepspeed"].zero = sys.modules["deepspeed.runtime.zero"]  # type: ignore[attr-defined]
    sys.modules["deepspeed.runtime.zero.partition_parameters"].ZeroParamStatus = object  # type: ignore[attr-defined]


_stub_deepspeed()

import accelerate  # noqa: E402
import peft  # noqa: E402
import PIL  # noqa: E402
import tokenizers  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from llava import conversation as conversation_lib  # noqa: E402
from llava.train import llava_trainer  # noqa: E402
from llava.train import train as original  # noqa: E402
from tests.gold.training import inputs, mask_samples, next_command_lines, next_inputs  # noqa: E402
from tests.gold.training.next_recorder import Recorder, run, visited  # noqa: E402

HEAD = {
    "source": "LLaVA-VL/LLaVA-NeXT, train.py of 45f2d92, llava_trainer.py before it, run by make_next.py",
    "versions": {
        module.__name__: module.__version__ for module in (torch, transformers, accelerate, peft, tokenizers, PIL)
    },
}
Flags = next_command_lines.Flags
PARTS = ("lora_", "vision_tower", "mm_projector", "image_newline")  # by what a parameter's name holds


def short(number: float | None) -> Any:
    """Nine digits; NaN and infinities as strings, which JSON lacks."""
    if number is None or number != number or abs(number) == float("inf"):
        return None if number is None else str(number)
    return float(f"{number:.9g}")


# runs and files


def variants(name: str) -> dict[str, dict[str, Any]]:
    """The runs to make of a command line: their names, and the options of ``recording``."""
    if name in next_command_lines.FLOAT32_ONLY:
        more = {f"{name}, float16 tower": {}} if name in next_command_lines.FLOAT16_TOO else {}
        return {name: {"float32_tower": True}} | more
    more = {f"{name}, float32 tower": {"float32_tower": True}} if name in next_command_lines.FLOAT32_TOO else {}
    return {name: {}} | more


def make_runs(work: Path) -> dict[str, Any]:
    """The numbers of each run, and beside them (``files``) what it left on disk."""
    runs: dict[str, Any] = {}
    listings = Listings()
    for name, flags in next_command_lines.RUNS.items():
        for title, options in variants(name).items():
            seen, error, output = run(flags, work, **options)
            tower = "float32" if options else "float16"
            runs[title] = (
                {"flags": changes(flags), "tower": tower} | ({"error": error} if error else {}) | numbers(seen)
            )
            print(title, error or [update["loss"] for update in seen.updates], file=sys.stderr, flush=True)
            if title == name and name in next_command_lines.LISTED:
                listings.add(name, output, work)
    fails = {}
    for name, flags in next_command_lines.FAILS.items():
        _, error, _ = run(flags, work)
        print(name, error, file=sys.stderr, flush=True)
        fails[name] = {"flags": changes(flags), "error": error}
    return {
        "runs_next": HEAD | {"base": next_command_lines.ANYRES, "runs": runs, "fails": fails},
        "files_next": HEAD | listings.content(),
    }


def changes(flags: Flags) -> dict[str, str | None]:
    """What differs from the flags under "base"; None: a flag that is not passed."""
    base = next_command_lines.ANYRES
    return {name: flags.get(name) for name in {**base, **flags} if flags.get(name) != base.get(name)}


def numbers(seen: Recorder) -> dict[str, Any]:
    micro = [[short(loss) for loss in update["micro_losses"]] for update in seen.updates]
    ids = [sample.get("id") for sample in seen.dataset.list_data_dict] if seen.dataset else []
    return {
        "loss": [short(update["loss"]) for update in seen.updates],
        "grad_norm": [short(update["grad_norm"]) for update in seen.updates],
        "lr": [update["lr"] and [short(rate) for rate in update["lr"]] for update in seen.updates],
        "logged_lr": [short(line["learning_rate"]) for line in seen.log if "learning_rate" in line],
        "micro_losses": micro if any(len(losses) > 1 for losses in micro) else None,  # None: they are the losses
        "batches": [update["batches"] for update in seen.updates],
        "samples": None if ids == [f"s{i}" for i in range(len(ids))] else ids,
        "norms_after": norms(seen.model),
    }


def norms(model: Any) -> dict[str, Any]:
    """The norm of each part's trainable parameters after the run."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters() if model else ():
        if parameter.requires_grad:
            part = next((part for part in PARTS if part in name), "language_model")
            squares[part] = squares.get(part, 0.0) + parameter.detach().double().square().sum().item()
    return {part: short(square**0.5) for part, square in squares.items()}


class Listings:
    """The files of runs; equal listings of tensors and equal configs are written once."""

    def __init__(self) -> None:
        self.tables: list[Any] = []
        self.runs: dict[str, Any] = {}

    def content(self) -> dict[str, Any]:
        """Configs but for the first are written as what differs from it."""
        first = next(at for at, table in enumerate(self.tables) if "mm_vision_tower" in table)
        base = self.tables[first]
        tables = [
            {
                "as": first,
                "but": {key: value for key, value in table.items() if key not in base or base[key] != value},
                "lacks": [key for key in base if key not in table],
            }
            if "mm_vision_tower" in table and at != first
            else table
            for at, table in enumerate(self.tables)
        ]
        return {"tables": tables, "runs": self.runs}

    def _table(self, content: Any) -> int:
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
    if file.name in ("config.json", "adapter_config.json", "generation_config.json", "special_tokens_map.json"):
        content = json.loads(file.read_text().replace(str(work), "{work}"))
        if "target_modules" in content:
            content["target_modules"] = sorted(content["target_modules"])  # a set's order
        return content
    if file.suffix == ".safetensors":
        return shapes(load_file(file))
    if file.name in ("mm_projector.bin", "non_lora_trainables.bin"):
        return shapes(torch.load(file, map_location="cpu", weights_only=True))
    return None


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: [list(tensor.shape), str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()}


# groups


def make_groups(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    models: list[list[str]] = []
    for title, flags in next_command_lines.GROUPS.items():
        seen, error, _ = run(flags, work, groups_only=True)
        assert error is None, error
        names = [name for name, _ in seen.model.named_parameters()]
        if names not in models:
            models.append(names)
        groups = [group | {"parameters": spans(names, group["parameters"])} for group in seen.groups]
        found[title] = {"flags": changes(flags), "model": models.index(names), "groups": groups}
    return {"groups_next": HEAD | {"base": next_command_lines.ANYRES, "models": models, "command_lines": found}}


def spans(names: list[str], chosen: list[str]) -> list[list[int]]:
    """``chosen``, in the order of ``names``, as spans [from, to) of it."""
    places = [names.index(name) for name in chosen]
    assert places == sorted(places)
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1][1] += 1
        else:
            found.append([place, place + 1])
    return found


# orders


def make_orders(work: Path) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        runs = [case | visited(case, work) for case in next_inputs.order_cases()]
    calls = [case | {"result": sampled(case)} for case in next_inputs.sampler_cases()]
    return {"orders_next": HEAD | {"runs": runs, "calls": calls}}


def sampled(case: dict[str, Any]) -> Any:
    """The indices that a sampler function gives, or its exception."""
    torch.manual_seed(case["seed"])
    generator = torch.Generator().manual_seed(case["seed"] + 1) if case["generator"] else None
    lengths = inputs.lengths(case["kind"], case["count"])
    try:
        if case["function"] == "LengthGroupedSampler":
            sampler = llava_trainer.LengthGroupedSampler(
                case["batch_size"], case["world_size"], lengths, generator, **case["options"]
            )
            return [list(sampler), list(sampler), len(sampler)]
        function = getattr(llava_trainer, case["function"])
        return function(lengths, case["batch_size"], case["world_size"], generator=generator)
    except Exception as problem:
        return f"{type(problem).__name__}: {problem}"


# masks and batches


def make_masks(work: Path) -> dict[str, Any]:
    branches = [branch(**case, work=work) for case in next_inputs.MASKS]
    multimodal = [
        {"version": version, "mm_use_im_start_end": wrapped, "values": multimodal_values(version, wrapped)}
        for version in ("v1", "llava_v0_mmtag", "llava_v1_mmtag")
        for wrapped in (False, True)
    ]
    return {"masks_next": HEAD | {"branches": branches, "preprocess_multimodal": multimodal}}


def use(version: str) -> None:
    """Chooses the template as train() does."""
    conversation_lib.default_conversation = conversation_lib.conv_vicuna_v0
    if version not in ("v0", "v0.5"):
        templates = conversation_lib.conv_templates
        conversation_lib.default_conversation = templates.get(version, templates["vicuna_v1"])


def load_tokenizer(name: str, work: Path, limit: int) -> Any:
    """A tokenizer as train() loads it for the family."""
    folder = work / f"tokenizer-{name}"
    if name in inputs.TOKENIZERS:
        inputs.write_tokenizer(folder, **inputs.TOKENIZERS[name])
    slow = {} if name in ("qwen", "gemma") else {"use_fast": False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=limit, padding_side="right", **slow)
    if tokenizer.unk_token is not None:
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def branch(version: str, tokenizer: str, work: Path, samples: str, limit: int) -> dict[str, Any]:
    """Ids and trained spans of the samples under one template and one tokenizer."""
    use(version)
    chosen = next_inputs.mask_set(samples)
    data = work / "masks.json"
    data.write_text(json.dumps(list(chosen.values())))
    data_args = original.DataArguments(data_path=str(data), is_multimodal=True, image_folder=str(work / "images"))
    data_args.image_processor = transformers.CLIPImageProcessor.from_pretrained(work / "tower")
    data_args.mm_use_im_start_end = False
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = original.LazySupervisedDataset(str(data), load_tokenizer(tokenizer, work, limit), data_args)
    rows = {name: row(dataset, i) for i, name in enumerate(chosen)}
    start = common_start([found["ids"] for found in rows.values() if len(found.get("ids", [])) > 1])
    for found in rows.values():
        if found.get("ids", [])[: len(start)] == start:
            found["ids"] = found["ids"][len(start) :]
        elif "ids" in found:
            found["start"] = False
    return {"version": version, "tokenizer": tokenizer, "model_max_length": limit, "start": start, "rows": rows}


def common_start(lists: list[list[int]]) -> list[int]:
    """The ids with which all of ``lists`` start."""
    columns = list(zip(*lists, strict=False))
    same = next((at for at, column in enumerate(columns) if len(set(column)) > 1), len(columns))
    return lists[0][:same]


def row(dataset: Any, i: int) -> dict[str, Any]:
    """One sample as the dataset returns it: ids, spans [from, to) where labels are ids, and labels that are neither."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            item = dataset._get_item(i)
    except Exception as problem:
        return {"error": f"{type(problem).__name__}: {problem}"}
    ids, labels = item["input_ids"].tolist(), item["labels"].tolist()
    trained = [label == token for label, token in zip(labels, ids, strict=True)]
    spans: list[list[int]] = []
    for at, on in enumerate(trained):
        if on and (at == 0 or not trained[at - 1]):
            spans.append([at, at])
        if on:
            spans[-1][1] = at + 1
    result: dict[str, Any] = {"ids": ids, "trained": spans}
    odd = {str(at): label for at, label in enumerate(labels) if not trained[at] and label != -100}
    if odd:
        result["labels"] = odd
    if said.getvalue():
        result["said"] = said.getvalue().strip()
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
        before = [turn["value"] for turn in sample["conversations"]]
        differs = {str(at): turn["value"] for at, turn in enumerate(turns) if turn["value"] != before[at]}
        if differs:
            changed[name] = differs
    return changed


def make_batches(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, case in next_inputs.batch_cases().items():
        tokenizer = types.SimpleNamespace(**{key: case[key] for key in case if key != "instances"})
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
            "images": None if images is None else [list(image.shape) for image in images],
            "image_sizes": batch.get("image_sizes"),
            "modalities": batch.get("modalities"),
            "pad_token_id_after": tokenizer.pad_token_id,
        }
    return {"batches_next": HEAD | {"batches": found, "images": make_images(work)}}


def make_images(work: Path) -> dict[str, Any]:
    """What the dataset returns as ``image`` for a sample: shape, size, modality and a sum of each entry."""
    found: dict[str, Any] = {}
    for name, case in next_inputs.image_cases().items():
        use("v1")
        tower = work / case["tower"]
        data = work / "image.json"
        data.write_text(json.dumps([case["sample"]]))
        data_args = original.DataArguments(data_path=str(data), is_multimodal=True, image_folder=str(work / "images"))
        data_args.image_processor = transformers.CLIPImageProcessor.from_pretrained(tower)
        data_args.mm_use_im_start_end = False
        data_args.image_aspect_ratio, data_args.image_grid_pinpoints = case["aspect"], case["pinpoints"]
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = original.LazySupervisedDataset(str(data), load_tokenizer("new", work, 256), data_args)
            try:
                entries = dataset._get_item(0)["image"]
            except Exception as problem:
                found[name] = {"error": f"{type(problem).__name__}: {problem}"}
                continue
        found[name] = [
            {
                "shape": list(image.shape),
                "size": list(size),
                "modality": modality,
                "sums": [short(tile.double().sum().item()) for tile in image.reshape(-1, *image.shape[-3:])],
            }
            for image, size, modality in entries
        ]
    return found


# writing

TOPICS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "masks": make_masks,
    "batches": make_batches,
    "orders": make_orders,
    "groups": make_groups,
    "runs": make_runs,
}


def write_gold(file: Path, content: dict[str, Any]) -> None:
    """JSON with one line for each entry of the third level."""

    def compact(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def lines(value: Any, depth: int) -> str:
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if depth == 0 or not any(isinstance(item, dict | list) for item in items):
            return compact(value)
        if isinstance(value, dict):
            inside = [f"{compact(key)}:{lines(item, depth - 1)}" for key, item in value.items()]
            return "{\n" + ",\n".join(inside) + "\n}"
        return "[\n" + ",\n".join(lines(item, depth - 1) for item in value) + "\n]"

    file.write_text(lines(content, 4) + "\n")
    assert json.loads(file.read_text()) == json.loads(json.dumps(content))


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the gold numbers of LLaVA-NeXT's training.")
    parser.add_argument("checkout", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("topics", nargs="*", help=f"of {', '.join(TOPICS)}; all by default")
    parser.add_argument("--once", action="store_true", help="do not make each topic a second time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    work = arguments.work.resolve()
    next_inputs.write_everything(work)
    for topic in arguments.topics or TOPICS:
        gold = TOPICS[topic](work)
        if not arguments.once:
            assert json.dumps(gold) == json.dumps(TOPICS[topic](work)), f"{topic}: a second run gave something else"
        for name, content in gold.items():
            write_gold(inputs.HERE / f"{name}.json", content)


if __name__ == "__main__":
    main()
