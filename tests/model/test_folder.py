"""A checkpoint's descriptive files are each read once, by whatever looks at it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.errors import CheckpointError
from llava.inspection import describe_checkpoint, describe_image
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from llava.model.folder import Folder
from tests.model.test_adapters import write_original
from tests.tiny_checkpoints import write_llava_1_5, write_llava_1_6
from tests.tiny_configs import write_json

READ_ONCE = (
    "config.json",
    "adapter_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
_counters: list[Counter[str]] = []


def _count_open(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _counters and isinstance(args[0], (str, os.PathLike)) and "w" not in str(args[1]):
        path = os.path.realpath(os.fspath(args[0]))
        if os.path.basename(path) in READ_ONCE:
            _counters[-1][path] += 1


@pytest.fixture(scope="module", autouse=True)
def _hook() -> None:
    sys.addaudithook(_count_open)  # it cannot be removed, but counts nothing outside of ``counting``


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """How often each descriptive file is opened to be read within the block."""
    _counters.append(Counter())
    try:
        yield _counters[-1]
    finally:
        _counters.pop()


def write_1_6(folder: Path) -> Path:
    write_llava_1_6(folder / "llava")
    return folder / "llava"


def write_1_5_with_its_tower(folder: Path) -> Path:
    write_llava_1_5(folder / "llava", folder / "clip")  # .bin shards with an index
    return folder / "llava"


def write_hf(folder: Path) -> Path:
    convert(write_1_6(folder), folder / "hf", "hf", max_shard_bytes=20_000)
    return folder / "hf"


def write_fine_tune(folder: Path) -> Path:
    write_original(folder)
    return folder / "lora"


def write_adapter_alone(folder: Path) -> Path:
    """An adapter without a config.json, so that its base's describes it."""
    write_original(folder)
    (folder / "lora/config.json").unlink()
    (folder / "lora/non_lora_trainables.bin").unlink()
    config = dict(Folder(folder / "whole").config)
    write_json(folder / "whole/config.json", config | {"mm_vision_tower": str(folder / "clip")})
    settings = dict(Folder(folder / "lora").read_json("adapter_config.json"))
    write_json(folder / "lora/adapter_config.json", settings | {"base_model_name_or_path": str(folder / "whole")})
    return folder / "lora"


def write_projector(folder: Path) -> Path:
    write_original(folder)
    projector = torch.load(folder / "lora/non_lora_trainables.bin", weights_only=True)
    torch.save({name.removeprefix("base_model.model."): value for name, value in projector.items()},
               folder / "lora/mm_projector.bin")  # fmt: skip
    for name in ("adapter_config.json", "adapter_model.bin", "non_lora_trainables.bin"):
        (folder / "lora" / name).unlink()
    config = dict(Folder(folder / "lora").config)
    write_json(folder / "lora/config.json", config | {"_name_or_path": str(folder / "base")})
    return folder / "lora"


KINDS = (write_1_6, write_1_5_with_its_tower, write_hf, write_fine_tune, write_adapter_alone, write_projector)


@pytest.mark.parametrize("write", KINDS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("action", ["load", "info", "info --image", "convert"])
def test_every_descriptive_file_is_read_once(
    tmp_path: Path, write: Callable[[Path], Path], action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path)
    with counting() as opened:
        if action == "load":
            load_model(folder, device="cpu", dtype="float32")
        elif action == "info":
            describe_checkpoint(str(folder))
        elif action == "info --image":
            describe_image(str(folder), "examples/demo.png")
        else:
            convert(folder, tmp_path / "converted", "original")
    described = "whole" if write is write_adapter_alone else folder.name
    assert opened[str(tmp_path.resolve() / described / "config.json")] == 1
    assert {path: times for path, times in opened.items() if times > 1} == {}


def test_a_damaged_config_is_read_once_and_refused_each_time(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    folder = Folder(tmp_path)
    with counting() as opened:
        for _ in range(2):
            with pytest.raises(CheckpointError, match="not valid JSON"):
                _ = folder.config
        assert folder.raw_config == {}
    assert list(opened.values()) == [1]


def test_a_config_of_quantized_weights_is_refused_but_can_be_looked_at(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"quantization_config": {"quant_method": "awq"}, "auto_map": {}})
    folder = Folder(tmp_path)
    with pytest.raises(CheckpointError, match=r"describes quantized weights \(awq\)"):
        _ = folder.config
    assert set(folder.raw_config) == {"quantization_config", "auto_map"}


def test_the_message_of_a_refusal_names_the_next_step_that_recognition_found(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    with counting() as opened, pytest.raises(CheckpointError, match="is a language model alone"):
        load_model(tmp_path, device="cpu")
    assert list(opened.values()) == [1]
