"""What a training leaves behind has the names, tensors and config.json keys of both originals' own results.

The gold was made by running them: tests/gold/training/make_original.py and make_next.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llava.model.checkpoint import load_model
from llava.model.weights import read_bin
from llava.train.original.flag_translation import translate
from llava.train.original.parsed_flags import read_flags
from llava.train.run import choose_parameters
from llava.train.snapshots import save_result
from llava.train.starting_model import build_start
from tests.gold.training import command_lines, inputs, next_command_lines, next_inputs

GOLD_15, GOLD_NEXT = inputs.saved_files(inputs.gold("files_15")), inputs.gold("files_next")

# Keys with another value on purpose: ours is the class that can load the file, the dtype that its weights have, and a
# cache that is on, also in a checkpoint-N. Transformers drops a sliding_window that is not used.
CHANGED = {"architectures", "model_type", "transformers_version", "torch_dtype", "use_cache", "sliding_window"}
# Options of LLaVA-NeXT for videos and resamplers that no image needs.
LEFT_OUT = {"mm_spatial_pool_mode", "pos_skipping_range", "use_pos_skipping", "vision_tower_pretrained"}
LEFT_OUT |= {"freeze_mm_vision_resampler", "tune_mm_vision_resampler", "attn_implementation"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The inputs of the gold runs; not to be changed."""
    folder = tmp_path_factory.mktemp("gold")
    inputs.write_everything(folder)
    next_inputs.write_everything(folder)
    return folder


def leave_behind(flags: dict[str, str], work: Path, folder: Path) -> None:
    """Writes the result of a run with these flags, without a step."""
    words = command_lines.arguments(flags, work, folder)
    start = flags["model_name_or_path"].replace("{work}", str(work))
    stage = translate(read_flags(words), starts_from_llava="llava" in Path(start).name).recipe.stages[0]
    loaded = build_start(start, stage)
    choose_parameters(loaded.model, stage)
    tower = loaded.model.get_vision_tower()
    if "vision_tower" not in stage.train:
        tower.to(torch.float16)  # as both originals do where bfloat16 is not used
    save_result(loaded.model, loaded.tokenizer, folder)


def describe(path: Path) -> dict[str, list[Any]]:
    tensors = load_file(path) if path.suffix == ".safetensors" else read_bin(path)
    return {name: [list(tensor.shape), str(tensor.dtype)[6:]] for name, tensor in tensors.items()}


def compare(folder: Path, names: list[str], find: Callable[[str], Any], work: Path) -> None:
    for name in names:
        if name.endswith((".safetensors", "projector.bin", "trainables.bin")):
            assert {key: describe(folder / name).get(key) for key in find(name)} == find(name), name
            assert describe(folder / name).keys() - find(name).keys() <= {"model.image_newline"}, name
    wanted = json.loads(json.dumps(find("config.json")).replace("{work}", str(work)))
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert {key: found.get(key, "missing") for key in wanted.keys() - CHANGED - LEFT_OUT} == {
        key: value for key, value in wanted.items() if key not in CHANGED | LEFT_OUT
    }
    if "adapter_config.json" in names:
        compare_adapters(folder, find, work)
    assert (folder / "tokenizer_config.json").is_file()
    # The originals read Llama's tokenizer from these alone.
    for name in {"tokenizer.model", "added_tokens.json"} & {*names} if "tokenizer.model" in names else ():
        assert (folder / name).is_file(), name
    load_model(folder, device="cpu", dtype="float32")


def compare_adapters(folder: Path, find: Callable[[str], Any], work: Path) -> None:
    wanted = json.loads(json.dumps(find("adapter_config.json")).replace("{work}", str(work)))
    found = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    # The layers are named by their paths here, and PEFT has more and fewer settings from version to version.
    same = (
        *("base_model_name_or_path", "bias", "inference_mode", "lora_alpha", "lora_dropout", "peft_type", "r"),
        *("rank_pattern", "task_type", "use_rslora", "fan_in_fan_out", "modules_to_save"),
    )
    assert {key: found[key] for key in same} == {key: wanted[key] for key in same}
    assert {name.rpartition(".")[2] for name in found["target_modules"]} == {*wanted["target_modules"]}


RUNS_15 = (
    *("stage 1", "stage 1, linear", "stage 1, last layer with class token", "stage 2", "stage 2, projector rate"),
    *("stage 2, frozen projector", "stage 2, start and end tokens", "stage 2, start and end tokens given", "task"),
    *("lora", "lora, task"),
)


@pytest.mark.parametrize("run", RUNS_15)
def test_the_files_are_those_of_llava_1_5(run: str, work: Path, tmp_path: Path) -> None:
    files = GOLD_15[run]
    leave_behind(command_lines.RUNS[run], work, tmp_path)
    compare(tmp_path, [name for name in files if "/" not in name], files.__getitem__, work)


RUNS_NEXT = ("stage 1", "anyres", "anyres, frozen tower", "checkpoint", "qwen", "qwen, stage 1", "anyres_max_2", "lora")


@pytest.mark.parametrize("run", RUNS_NEXT)
def test_the_files_are_those_of_llava_next(run: str, work: Path, tmp_path: Path) -> None:
    leave_behind(next_command_lines.RUNS[run], work, tmp_path)
    names = [name for name in GOLD_NEXT["runs"][run] if "/" not in name]
    compare(tmp_path, names, lambda name: next_inputs.file_content(GOLD_NEXT, run, name), work)
