"""The original's training command and the names in its modules: run as it is run, and replaced as it is replaced."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from llava import conversation as templates
from llava.constants import IGNORE_INDEX
from llava.conversation import conv_templates
from llava.data.records import parse_turns
from llava.errors import BadSample, Notice, UsageError
from llava.model.checkpoint import load_model
from llava.prompt import render_sample
from llava.train import llava_trainer as trainer_door
from llava.train import train as door
from llava.train.dataset.image_slots import write_sample
from llava.train.original.argument_classes import DataArguments, ModelArguments, TrainingArguments
from llava.train.original.parsed_flags import read_flags
from tests.gold.training import command_lines, inputs, mask_samples, next_command_lines, next_inputs

ROOT = Path(__file__).parents[2]
ONE_STEP = {"max_steps": "1", "save_steps": "1", "dataloader_num_workers": "0"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of the gold command lines."""
    folder = tmp_path_factory.mktemp("work")
    inputs.write_everything(folder)
    return folder


@pytest.fixture(autouse=True)
def _default_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "default_conversation", templates.default_conversation)


def list_words(flags: dict[str, str], work: Path, output: Path) -> list[str]:
    values = {**flags, "output_dir": str(output)}
    return [word.replace("{work}", str(work)) for name, value in values.items() for word in (f"--{name}", value)]


def run(monkeypatch: pytest.MonkeyPatch, flags: dict[str, str], work: Path, output: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *list_words(flags, work, output)])
    return door.main()


def read_log(output: Path) -> list[dict[str, Any]]:
    history = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [row for row in history if "loss" in row]


# ---- Runs


def test_the_originals_command_line_has_its_losses_and_leaves_a_model(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = command_lines.RUNS["stage 2, projector rate"]
    assert run(monkeypatch, flags, work, tmp_path) == 0
    gold = inputs.gold("runs_15")["runs"]["stage 2, projector rate"]
    assert [row["loss"] for row in read_log(tmp_path)] == pytest.approx(gold["loss"], rel=1e-4)
    shown = capsys.readouterr()
    assert "--lazy_preprocess has no effect" in shown.err
    assert re.search(r"projector +mm_projector .* 0.0002 ", shown.out)
    loaded = load_model(tmp_path, device="cpu", dtype="float32")
    assert loaded.template == "v1"
    assert loaded.spec.tiling.aspect == "pad"


def test_a_second_run_into_the_same_folder_continues_from_its_checkpoint(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    flags = command_lines.STAGE_1 | ONE_STEP | {"lr_scheduler_type": "constant", "save_total_limit": "2"}
    assert run(monkeypatch, flags, work, tmp_path) == 0
    first = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert run(monkeypatch, flags | {"max_steps": "2"}, work, tmp_path) == 0
    assert [row["step"] for row in read_log(tmp_path)] == [1, 2]
    second = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    assert first.keys() == second.keys()
    assert all(name.startswith("model.mm_projector.") for name in first)
    assert not torch.equal(first["model.mm_projector.0.weight"], second["model.mm_projector.0.weight"])
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_anyres_with_lora_trains_adapters_and_what_lies_beside_them(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    flags = next_command_lines.ANYRES | ONE_STEP | {"lora_enable": "True", "lora_r": "4", "model_max_length": "512"}
    flags |= {"mm_tunable_parts": "mm_mlp_adapter,mm_language_model"}
    del flags["mm_vision_tower_lr"]
    assert run(monkeypatch, flags, work, tmp_path) == 0
    beside = torch.load(tmp_path / "non_lora_trainables.bin", weights_only=True)
    assert {"base_model.model.model.image_newline", "base_model.model.model.mm_projector.0.weight"} <= beside.keys()
    assert not any("vision_tower" in name or "lora_" in name for name in beside)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert (config["image_aspect_ratio"], config["mm_patch_merge_type"]) == ("anyres", "spatial_unpad")
    assert load_model(tmp_path, base=str(work / "llama"), device="cpu").model.config.image_aspect_ratio == "anyres"


# ---- Replaced names


def test_a_replaced_preprocess_v1_and_trainer_are_used(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []
    original = door.preprocess_v1

    def preprocess_v1(sources: Any, tokenizer: Any, has_image: bool = False) -> dict[str, Any]:
        encoded = original(sources, tokenizer, has_image)
        last = int((encoded["labels"][0] != IGNORE_INDEX).nonzero()[-1])
        encoded["labels"][0, :last] = IGNORE_INDEX
        return encoded

    class Trainer(door.LLaVATrainer):
        def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False) -> Any:
            seen.append(inputs)
            return super().compute_loss(model, inputs, return_outputs) * 2

    monkeypatch.setattr(door, "preprocess_v1", preprocess_v1)
    monkeypatch.setattr(door, "LLaVATrainer", Trainer)
    assert run(monkeypatch, command_lines.STAGE_2 | ONE_STEP, work, tmp_path) == 0
    assert len(seen) == 2  # two passes for the one update
    assert all(int((batch["labels"] != IGNORE_INDEX).sum()) == len(batch["labels"]) for batch in seen)
    plain = tmp_path / "plain"
    monkeypatch.setattr(door, "LLaVATrainer", trainer_door.LLaVATrainer)
    assert run(monkeypatch, command_lines.STAGE_2 | ONE_STEP, work, plain) == 0
    assert read_log(tmp_path)[0]["loss"] == pytest.approx(2 * read_log(plain)[0]["loss"], rel=1e-5)


def test_a_replaced_dataset_arguments_and_data_module_are_used(
    monkeypatch: pytest.MonkeyPatch, work: Path, tmp_path: Path
) -> None:
    from dataclasses import dataclass

    @dataclass
    class Arguments(door.TrainingArguments):
        my_setting: int = 1

    made: list[Any] = []

    class Dataset(door.LazySupervisedDataset):
        def __init__(self, data_path: str, tokenizer: Any, data_args: Any) -> None:
            super().__init__(data_path, tokenizer, data_args)
            self.list_data_dict = [row for row in self.list_data_dict if "image" in row][:3]
            made.append(self)

    make = door.make_supervised_data_module

    def make_supervised_data_module(tokenizer: Any, data_args: Any) -> dict[str, Any]:
        module = make(tokenizer, data_args)
        return module | {"data_collator": lambda items: made.append(items) or module["data_collator"](items)}

    monkeypatch.setattr(door, "TrainingArguments", Arguments)
    monkeypatch.setattr(door, "LazySupervisedDataset", Dataset)
    monkeypatch.setattr(door, "make_supervised_data_module", make_supervised_data_module)
    flags = command_lines.SHARED | ONE_STEP | {"my_setting": "7", "pretrain_mm_mlp_adapter": "{work}/projector.bin"}
    assert run(monkeypatch, flags, work, tmp_path) == 0
    dataset, items = made
    assert len(dataset) == len(dataset.lengths) == 3
    assert {item["id"] for item in items} == {row["id"] for row in dataset.list_data_dict}


# ---- Mistakes and missing programs


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ({"learnin_rate": "1"}, 2, "There is no flag --learnin_rate. Did you mean --learning_rate?"),
        ({"num_train_epochs": "many"}, 2, "--num_train_epochs: invalid float value: 'many'."),
        ({"add_time_instruction": "True"}, 2, "--add_time_instruction True is refused: it asks for video"),
        ({"data_path": "{work}/none.json"}, 2, "none.json"),
        ({"mm_tunable_parts": "mm_adapter"}, 2, "Did you mean 'mm_mlp_adapter'?"),
        ({"bits": "5"}, 2, "--bits is 5 and must be 4, 8 or 16."),
        ({"lora_weight_path": "x"}, 2, "needs --lora_enable True"),
        ({"dataloader_num_workers": "-1"}, 2, "number of workers is -1"),
        ({"freeze_backbone": "True", "freeze_mm_mlp_adapter": "True", "tune_mm_mlp_adapter": "True"}, 2, "every part"),
        ({"image_grid_pinpoints": "[(1, 2"}, 2, "it must be canvases such as [(336, 672), (672, 336)]"),
        ({"evaluation_strategy": "epoch"}, 2, "--eval_data_path"),
        ({"gradient_checkpointing": "maybe"}, 2, "error: --gradient_checkpointing: Truthy value expected: got maybe"),
        ({"report_to": "wandbb"}, 2, "report_to cannot be 'wandbb'. Did you mean 'wandb'?"),
        ({"model_max_length": "0"}, 2, "--model_max_length is 0 and must be at least 1."),
        ({"image_aspect_ratio": "padd"}, 2, "says vision.image_aspect_ratio: 'padd'; supported are square, pad"),
        ({"mm_vision_select_layer": "-9"}, 2, "says vision.mm_vision_select_layer: -9, but the vision tower has 3"),
        ({"optim": "adamw_bnb_8bit"}, 2, "The optimizer adamw_bnb_8bit cannot be used: "),
        ({"neftune_noise_alpha": "5"}, 2, "neftune_noise_alpha cannot be used"),
        ({"resume_from_checkpoint": "none-1"}, 2, "none-1 is no checkpoint to resume from"),
        ({"deepspeed": '{"zero_optimization": {"stage": 7}}'}, 2, "zero_optimization.stage: 7, which can be 0, 1, 2"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_exit_code(
    flags: dict[str, str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, command_lines.STAGE_2 | ONE_STEP | flags, work, tmp_path) == code
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_what_is_not_installed_is_left_out_with_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava.train.original.prepared_run import _make_arguments
    from tests.train.test_flags import translate_words

    monkeypatch.setattr("llava.train.trainer_arguments.get_available_reporting_integrations", list)
    words = "--model_name_or_path m --vision_tower t --data_path d --tf32 True --report_to wandb"
    words = [
        *words.split(),
        "--deepspeed",
        str(ROOT / "scripts/zero3.json"),
        "--output_dir",
        str(tmp_path),
        "--use_cpu",
        "True",
        "--logging_dir",
        "logs",
    ]
    translated = translate_words(words)
    assert translated.log_folder == "logs"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(Notice) as said:
        arguments = _make_arguments(translated, translated.recipe.stages[0], read_flags(words), TrainingArguments)
    messages = [str(each.message) for each in said]
    assert [message.split(" ")[0] for message in messages] == ["DeepSpeed", "report_to", "tf32"]
    assert (arguments.deepspeed, arguments.report_to, arguments.tf32) == (None, [], None)


# ---- The ways to start it


def test_torchrun_trains_by_the_scripts_path_from_any_folder(work: Path, tmp_path: Path) -> None:
    flags = command_lines.TASK | ONE_STEP | {"save_strategy": "no", "gradient_accumulation_steps": "1"}
    words = ["-m", "torch.distributed.run", "--nproc_per_node=1", str(ROOT / "llava/train/train_mem.py")]
    words += ["--local_rank=0", *list_words(flags, work, tmp_path / "out")]  # which the deepspeed launcher adds
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/model.safetensors").is_file()


@pytest.mark.parametrize("form", ["-m llava.train.train_mem", "llava/train/train.py", "llava/train/train_xformers.py"])
def test_each_module_runs_as_a_command(form: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = command_lines.STAGE_1 | ONE_STEP | {"save_strategy": "no", "data_path": "{work}/captions.json"}
    monkeypatch.setattr(sys, "argv", ["script", *list_words(flags, work, tmp_path)])
    monkeypatch.setattr(sys, "path", ["folder of the script", *sys.path])
    start: Callable[[], Any] = functools.partial(runpy.run_path, str(ROOT / form), run_name="__main__")
    if form.startswith("-m"):
        start = functools.partial(runpy.run_module, form.removeprefix("-m "), run_name="__main__", alter_sys=True)
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 0
    assert (tmp_path / "mm_projector.bin").is_file()
    assert sys.path[0] == ("folder of the script" if form.startswith("-m") else str(ROOT))


# ---- The names of the modules

NAMES = {
    "ModelArguments": None,
    "DataArguments": None,
    "TrainingArguments": None,
    "LLaVATrainer": None,
    "rank0_print": ["args"],
    "local_rank": None,
    "maybe_zero_3": ["param", "ignore_status", "name"],
    "get_peft_state_maybe_zero_3": ["named_params", "bias"],
    "get_peft_state_non_lora_maybe_zero_3": ["named_params", "require_grad_only"],
    "get_mm_adapter_state_maybe_zero_3": ["named_params", "keys_to_match"],
    "find_all_linear_names": ["model"],
    "safe_save_model_for_hf_trainer": ["trainer", "output_dir"],
    "smart_tokenizer_and_embedding_resize": ["special_tokens_dict", "tokenizer", "model"],
    "_tokenize_fn": ["strings", "tokenizer"],
    "_mask_targets": ["target", "tokenized_lens", "speakers"],
    "_add_speaker_and_signal": ["header", "source", "get_conversation"],
    "preprocess_multimodal": ["sources", "data_args"],
    "preprocess_llama_2": ["sources", "tokenizer", "has_image"],
    "preprocess_v1": ["sources", "tokenizer", "has_image"],
    "preprocess_mpt": ["sources", "tokenizer", "has_image"],
    "preprocess_gemma": ["sources", "tokenizer", "has_image"],
    "preprocess_qwen": ["sources", "tokenizer", "has_image", "max_len", "system_message"],
    "preprocess_llama3": ["sources", "tokenizer", "has_image", "max_len", "system_message"],
    "preprocess_plain": ["sources", "tokenizer"],
    "preprocess": ["sources", "tokenizer", "has_image"],
    "LazySupervisedDataset": ["data_path", "tokenizer", "data_args"],
    "DataCollatorForSupervisedDataset": ["tokenizer"],
    "make_supervised_data_module": ["tokenizer", "data_args"],
    "train": ["attn_implementation"],
}
TRAINER_NAMES = {
    "maybe_zero_3": ["param", "ignore_status", "name"],
    "get_mm_adapter_state_maybe_zero_3": ["named_params", "keys_to_match"],
    "split_to_even_chunks": ["indices", "lengths", "num_chunks"],
    "get_variable_length_grouped_indices": ["lengths", "batch_size", "world_size", "megabatch_mult", "generator"],
    "get_modality_length_grouped_indices": ["lengths", "batch_size", "world_size", "generator"],
    "get_length_grouped_indices": ["lengths", "batch_size", "world_size", "generator", "merge"],
    "get_length_grouped_indices_auto_single": ["lengths", "batch_size", "world_size", "generator"],
    "get_modality_length_grouped_indices_auto": ["lengths", "batch_size", "world_size", "generator"],
    "LLaVATrainer": None,
    "LengthGroupedSampler": "batch_size world_size lengths generator variable_length group_by_modality".split()
    + ["group_by_modality_auto"],
}


@pytest.mark.parametrize(("module", "names"), [(door, NAMES), (trainer_door, TRAINER_NAMES)], ids=["train", "trainer"])
def test_the_modules_have_the_originals_names_with_its_parameters(
    module: ModuleType, names: dict[str, list[str] | None]
) -> None:
    for name, parameters in names.items():
        assert hasattr(module, name), name
        if parameters is not None:
            assert list(inspect.signature(getattr(module, name)).parameters)[: len(parameters)] == parameters, name


def test_the_dataclasses_have_the_originals_defaults() -> None:
    model, data = ModelArguments(), DataArguments()
    assert (model.model_name_or_path, model.version, model.mm_vision_select_layer) == ("facebook/opt-125m", "v0", -1)
    assert (model.mm_projector_type, model.mm_use_im_patch_token, model.delay_load) == ("linear", True, True)
    assert (data.image_aspect_ratio, data.lazy_preprocess, data.video_fps) == ("square", False, 1)
    arguments = TrainingArguments(output_dir="x", evaluation_strategy="no", warmup_ratio=0.5, report_to="none")
    assert (arguments.model_max_length, arguments.optim, arguments.gradient_checkpointing) == (
        512,
        "adamw_torch",
        False,
    )
    assert (arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout, arguments.bits) == (64, 16, 0.05, 16)
    assert (arguments.eval_strategy, arguments.warmup_steps, arguments.report_to) == ("no", 0.5, [])
    with pytest.warns(Notice, match="--past_index has no effect"):
        assert TrainingArguments(output_dir="x", past_index=2, no_cuda=True).use_cpu


# ---- What the functions return


@functools.cache
def load_tokenizer(folder: Path, name: str) -> Any:
    if name in inputs.TOKENIZERS:
        inputs.write_tokenizer(folder / name, **inputs.TOKENIZERS[name])
    else:
        next_inputs.write_byte_tokenizer(folder / name, name)
    tokenizer = AutoTokenizer.from_pretrained(folder / name, model_max_length=4096)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


WRITTEN = [name for name in conv_templates if name != "qwen_2_5"]  # the original always writes Qwen 1.5's system text


@pytest.mark.parametrize("version", WRITTEN)
def test_preprocess_gives_the_ids_and_labels_of_our_own_samples(
    version: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.getbasetemp()
    names = {
        name: branch["tokenizer"] for branch in inputs.gold("masks_next")["branches"] for name in [branch["version"]]
    }
    tokenizer = load_tokenizer(folder, names.get(version, "marks" if version in ("mpt", "chatml_direct") else "new"))
    template = conv_templates[version]
    monkeypatch.setattr(templates, "default_conversation", template)
    compared = 0
    for rule, repository in (("1.5", "llava-1.5"), ("next", "llava-next")):
        data_args = SimpleNamespace(is_multimodal=True, compatible_with=repository, mm_use_im_start_end=False)
        for name, sample in mask_samples.SAMPLES.items():
            if name == "leading gpt holds the image" and "mmtag" in template.version:
                continue  # a dropped answer's image keeps no tag: preprocess_multimodal has tagged the answer
            num_images = int("image" in sample)
            try:
                turns = parse_turns(sample["conversations"], "Sample")
                ours = render_sample(
                    write_sample(turns, num_images, template, rule), tokenizer, [1] * num_images, limit_tokens=None
                )
            except UsageError:
                continue
            sources = json.loads(json.dumps([sample["conversations"]]))
            if num_images:
                sources = door.preprocess_multimodal(sources, data_args)
            theirs = door.preprocess(sources, tokenizer, has_image=bool(num_images))
            assert theirs["input_ids"][0].tolist() == list(ours.input_ids)
            assert theirs["labels"][0].tolist() == list(ours.labels or ())
            compared += 1
    assert compared > 20


def test_preprocess_refuses_a_template_of_another_style_and_pads_rows_of_unequal_length(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tmp_path, "new")
    one = [{"from": "human", "value": "a b c"}, {"from": "gpt", "value": "d"}]
    two = [*one, *one]
    encoded = door.preprocess_v1([one, two], tokenizer)
    assert encoded["input_ids"].shape == encoded["labels"].shape
    assert (encoded["labels"][0, -5:] == IGNORE_INDEX).all()
    with pytest.raises(UsageError, match="the default template is of the style TWO"):
        door.preprocess_llama_2([one], tokenizer)


def test_the_helpers_of_the_marker_template_return_what_the_originals_do(tmp_path: Path) -> None:
    source = [{"from": "human", "value": "a"}, {"from": "GPT", "value": "b"}, {"from": "system", "value": "c"}]
    assert door._add_speaker_and_signal("H\n\n", source) == "H\n\n### USER: a\n### ASSISTANT: b\n### unknown: c\n### "
    assert [turn["value"] for turn in source] == ["### USER: a\n", "### ASSISTANT: b\n", "### unknown: c\n"]
    target = torch.arange(10)
    door._mask_targets(target, [2, 4, 4], ["human", "gpt"])
    assert target.tolist() == [-100, -100, 2, 3, -100, -100, 6, 7, 8, 9]
    tokenizer = load_tokenizer(tmp_path, "new")
    encoded = door._tokenize_fn(["a", "a b"], tokenizer)
    assert encoded["input_ids_lens"] == encoded["labels_lens"] == [len(row) for row in encoded["input_ids"]]
    assert encoded["input_ids"][1].tolist() == tokenizer("a b").input_ids


def make_layers() -> nn.ModuleDict:
    layers = nn.ModuleDict({"q_proj": nn.Linear(2, 2), "lm_head": nn.Linear(2, 2), "mm_projector": nn.Linear(2, 2)})
    return nn.ModuleDict({"model": layers, "vision_tower": nn.ModuleDict({"k_proj": nn.Linear(2, 2)})})


def test_tensors_are_chosen_by_their_names() -> None:
    assert door.find_all_linear_names(make_layers()) == ["q_proj"]
    trained, frozen = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    named = {
        "a.q.lora_A.w": trained,
        "a.q.base_layer.bias": frozen,
        "a.norm.bias": frozen,
        "mm_projector.w": trained,
        "embed.w": frozen,
    }
    states: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
        "a.q.lora_A.w": lambda: door.get_peft_state_maybe_zero_3(named.items(), "none"),
        "a.q.lora_A.w a.q.base_layer.bias": lambda: door.get_peft_state_maybe_zero_3(named.items(), "lora_only"),
        "a.q.lora_A.w a.q.base_layer.bias a.norm.bias": lambda: door.get_peft_state_maybe_zero_3(named.items(), "all"),
        "mm_projector.w": lambda: door.get_peft_state_non_lora_maybe_zero_3(named.items()),
        "mm_projector.w embed.w": lambda: door.get_mm_adapter_state_maybe_zero_3(named.items(), ["mm_proj", "embed"]),
    }
    for names, get in states.items():
        state = get()
        assert list(state) == names.split()
        assert not any(tensor.requires_grad for tensor in state.values())
    with pytest.raises(UsageError, match="lora_bias is 'some'"):
        door.get_peft_state_maybe_zero_3(named.items(), "some")


# ---- Dataset and batches


def make_data_args(work: Path, aspect: str = "pad", repository: str = "llava-1.5") -> DataArguments:
    loaded = load_model(work / "llava", device="cpu")
    args: Any = DataArguments(image_folder=str(work / "images"), image_aspect_ratio=aspect, is_multimodal=True)
    args.image_processor, args.tiling = loaded.image_processor, loaded.spec.tiling
    args.image_grid_pinpoints, args.compatible_with = next_inputs.PINPOINTS, repository
    return args


def make_dataset(work: Path, rows: list[Any], args: DataArguments, max_length: int = 4096) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(work / "llama", model_max_length=max_length)
    tokenizer.pad_token = tokenizer.unk_token
    dataset = door.LazySupervisedDataset(str(work / "mix.json"), tokenizer, args)
    dataset.list_data_dict = rows
    return dataset


def read_rows(work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A row with an image, and one without."""
    rows = json.loads((work / "mix.json").read_text(encoding="utf-8"))
    return next(row for row in rows if "image" in row), next(row for row in rows if "image" not in row)


def test_items_and_batches_have_the_layout_of_either_repository(work: Path) -> None:
    rows = list(read_rows(work))
    dataset = make_dataset(work, rows, make_data_args(work))
    side = dataset.tiling.tile_px
    assert [tuple(dataset[i]["image"].shape) for i in (0, 1)] == [(3, side, side)] * 2
    assert not dataset[1]["image"].any()
    batch = door.DataCollatorForSupervisedDataset(tokenizer=dataset.tokenizer)([dataset[0], dataset[1]])
    assert batch["images"].shape == (2, 3, side, side)
    assert batch.keys() == {"input_ids", "labels", "attention_mask", "images"}

    several = {**rows[0], "image": [rows[0]["image"]] * 2}
    several["conversations"] = [{"from": "human", "value": "<image> <image> x"}, {"from": "gpt", "value": "y"}]
    dataset = make_dataset(work, [*rows, several], make_data_args(work, "anyres", "llava-next"))
    (tiles, size, kind), (blank, _, text) = dataset[0]["image"][0], dataset[1]["image"][0]
    assert (tiles.ndim, kind, tuple(blank.shape), text) == (4, "image", (1, 3, side, side), "text")
    assert [tuple(pixels.shape) for pixels, _, _ in dataset[2]["image"]] == [(3, side, side)] * 2
    batch = door.DataCollatorForSupervisedDataset(tokenizer=dataset.tokenizer)([dataset[0], dataset[1]])
    assert batch["modalities"] == ["image", "text"]
    assert batch["image_sizes"][0] == size


def test_a_row_that_cannot_be_trained_on_stops_1_5_and_is_left_out_and_named_by_next(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, text = read_rows(work)
    bad = {**good, "id": "bad", "image": "none.png"}
    dataset = make_dataset(work, [bad, text], make_data_args(work))
    with pytest.raises(BadSample, match=r"Sample bad .* cannot be trained on: There is no image"):
        dataset[0]
    dataset = make_dataset(work, [bad, text], make_data_args(work, "pad", "llava-next"))
    assert dataset[0]["id"] == text["id"]
    assert "Sample bad (row 0 of 'list_data_dict') is left out" in capsys.readouterr().err


def test_a_row_whose_answers_are_all_cut_off_is_left_out_and_named(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, text = read_rows(work)
    long = {**good, "id": "long"}
    long["conversations"] = [{"from": "human", "value": "<image>\n" + "what " * 300}, {"from": "gpt", "value": "a"}]
    dataset = make_dataset(work, [long, text], make_data_args(work), max_length=128)
    assert dataset[0]["id"] == text["id"]
    assert "Sample long (row 0 of 'list_data_dict') is left out: all its answers" in capsys.readouterr().err


def test_lengths_are_those_of_the_rows_and_early_mix_text_makes_them_one_modality(work: Path) -> None:
    rows = list(read_rows(work))
    args = make_data_args(work)
    dataset = make_dataset(work, rows, args)
    words = [sum(len(turn["value"].split()) for turn in row["conversations"]) for row in rows]
    assert dataset.lengths == [words[0] + 128, words[1]]
    assert dataset.modality_lengths == [words[0], -words[1]]
    args.early_mix_text = True
    assert dataset.modality_lengths == words


# ---- The files of the original's paths


def test_the_scripts_have_the_flags_of_the_published_ones() -> None:
    gold = json.loads((ROOT / "tests/gold/training/script_flags.json").read_text(encoding="utf-8"))["scripts"]
    scripts = sorted((ROOT / "scripts/v1_5").glob("*.sh"))
    assert len(scripts) == 5
    for script in scripts:
        text = script.read_text(encoding="utf-8").replace("\\\n", " ")
        program, _, flags = text.splitlines()[-1].partition(" --")
        published = gold[f"LLaVA/scripts/v1_5/{script.name}"]
        assert program.split() == [*published["launcher"], published["program"]]
        assert dict(re.findall(r"(--\w+) (\S+)", f"--{flags}")) == published["flags"]


@pytest.mark.parametrize("name", ["zero2", "zero3", "zero3_offload"])
def test_the_deepspeed_files_leave_rates_and_sizes_to_the_trainer(name: str) -> None:
    config = json.loads((ROOT / f"scripts/{name}.json").read_text(encoding="utf-8"))
    assert config["zero_optimization"]["stage"] == int(name[4])
    assert ("offload_param" in config["zero_optimization"]) == name.endswith("offload")
    assert not {"optimizer", "scheduler"} & config.keys()
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    assert [config[key] for key in sizes] == ["auto"] * 4
