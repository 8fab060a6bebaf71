"""Damaged and absurd files in a checkpoint: whatever they hold, it loads, or it is refused and explained."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError, LlavaError
from llava.inspection import describe_checkpoint
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from tests.model.test_adapters import write_original
from tests.tiny_checkpoints import write_companions, write_llava_1_5, write_llava_1_6
from tests.tiny_configs import CONFIG, TOWER, write_json

NUM_ATTACKS = 12  # on each layout in the suite; thousands were made by hand
ABSURD: list[Any] = [
    None, True, False, 0, -1, 1, 3, 7, 10**9, 10**30, -(10**30), 1.5, float("nan"), float("inf"), "", "x", "../..",
    "a\0b", "a\ud800", "/dev/null", "\x1b[31m", "9" * 5000, [], [None], [[1, 2]], [-1], {}, {"a": {}}, {"x": None},
    "relu", "llama", "linear", "cuda", "auto", "float16", "(1x1),...,(9x9)",
]  # fmt: skip


def write_hf(folder: Path) -> None:
    write_llava_1_6(folder.with_name("source"))
    convert(folder.with_name("source"), folder, "hf")


def write_projector(folder: Path) -> None:
    config = {
        **CONFIG,
        "mm_vision_tower": str(folder.with_name("clip")),
        "_name_or_path": str(folder.with_name("base")),
    }
    tensors = write_llava_1_5(folder.with_name("whole"), folder.with_name("clip"))
    plain = {name: tensor for name, tensor in tensors.items() if "mm_projector" not in name and "tower" not in name}
    write_companions(folder.with_name("base"), {**config, "model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    save_file(plain, folder.with_name("base") / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", config)
    projector = {name: tensor for name, tensor in tensors.items() if "mm_projector" in name}
    torch.save(projector, folder / "mm_projector.bin")


LAYOUTS: dict[str, Callable[[Path], Any]] = {
    "1.5": lambda folder: write_llava_1_5(folder, folder.with_name("clip")),
    "1.6": write_llava_1_6,
    "lora": lambda folder: write_original(folder.parent),
    "projector": write_projector,
    "hf": write_hf,
}


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each layout, with the checkpoint in ``lora`` or ``llava`` and what it needs beside it."""
    root = tmp_path_factory.mktemp("sound")
    for layout, write in LAYOUTS.items():
        place = root / layout
        place.mkdir()
        write(place / ("lora" if layout == "lora" else "llava"))
    return {layout: root / layout for layout in LAYOUTS}


def set_somewhere(values: Any, draw: random.Random) -> Any:
    """The same values with one of them replaced, at any depth, removed or added."""
    values = copy.deepcopy(values)
    place = values
    while isinstance(place, dict) and place:
        key = draw.choice(sorted(place))
        if isinstance(place[key], dict) and place[key] and draw.random() < 0.6:
            place = place[key]
            continue
        if draw.random() < 0.15:
            del place[key]
        else:
            place[key] = draw.choice(ABSURD)
        return values
    return draw.choice(ABSURD)


def damage_bytes(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    kind = draw.randrange(6)
    if kind == 0:
        data = data[: draw.randrange(len(data) + 1)]
    elif kind == 1:
        data = bytearray()
    elif kind == 2:
        data = bytearray(draw.randbytes(draw.randrange(1, 200)))
    elif kind == 3:
        for _ in range(draw.randrange(1, 20)):
            data[draw.randrange(min(len(data), draw.choice((64, 4096, 10**9))))] = draw.randrange(256)
    elif kind == 4:
        data = bytearray(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    else:
        data += draw.randbytes(draw.randrange(1, 100))
    path.write_bytes(data)


def damage_json(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.2:
        damage_bytes(path, draw)
        return
    values = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(draw.randrange(1, 3)):
        values = set_somewhere(values, draw)
    path.write_text(json.dumps(values), encoding="utf-8", errors="surrogatepass")


def damage_tensors(path: Path, draw: random.Random) -> None:
    if draw.random() < 0.25:
        damage_bytes(path, draw)
        return
    is_bin = path.suffix == ".bin"
    tensors: dict[Any, Any] = torch.load(path, weights_only=True) if is_bin else load_file(path)
    for _ in range(draw.randrange(1, 3)):
        name = draw.choice(sorted(map(str, tensors)))
        tensor = tensors.get(name)
        if not isinstance(tensor, torch.Tensor):
            continue
        kind = draw.randrange(12)
        changes: dict[int, Callable[[torch.Tensor], Any]] = {
            0: lambda one: one.new_empty(0),
            1: lambda one: one.new_empty((0, *one.shape)),
            2: lambda one: one.flatten()[: draw.randrange(1, one.numel() + 1)],
            3: lambda one: one[None],
            4: lambda one: one.to(draw.choice((torch.int8, torch.int64, torch.bool, torch.float64, torch.bfloat16))),
            5: lambda one: torch.full_like(one, draw.choice((float("nan"), float("inf"), 6e4))),
            6: lambda one: one.t() if one.ndim == 2 else one[None, None],
            7: lambda one: one.to(torch.float8_e4m3fn),
            8: lambda one: torch.tensor(1.0),
            9: lambda one: torch.empty(one.shape, device="meta") if is_bin else one[:1],
            10: lambda one: torch.ones(1).expand(10**9) if is_bin else one[:1],
            11: lambda one: draw.choice((None, "text", [1], {"a": one})) if is_bin else one[:1],
        }
        if kind in changes and draw.random() < 0.8:
            tensors[name] = changes[kind](tensor)
        else:
            value = tensors.pop(name)
            if draw.random() < 0.6:
                tensors[draw.choice((name + "x", "x", f"model.{name}", name[1:], "", 7 if is_bin else "7"))] = value
    if is_bin:
        torch.save(tensors, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def damage(folder: Path, draw: random.Random) -> str:
    """Change one file of the folders, and say which and how."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "source" not in path.parts)
    path = draw.choice([path for path in paths if path.suffix in (".json", ".safetensors", ".bin", ".model")])
    if draw.random() < 0.05:
        path.unlink()
        if draw.random() < 0.5:
            path.symlink_to(path.name)
        else:
            path.mkdir()
    elif path.suffix == ".json":
        damage_json(path, draw)
    elif path.suffix in (".safetensors", ".bin"):
        damage_tensors(path, draw)
    else:
        damage_bytes(path, draw)
    return str(path.relative_to(folder))


def attack(sound_place: Path, place: Path, seed: int) -> tuple[str, list[str]]:
    """Damage a copy of the layout's folder, and load, describe and convert it; what was changed and what was said."""
    draw = random.Random(seed)
    shutil.copytree(sound_place, place, symlinks=True)
    for path in place.rglob("*.json"):  # they name each other by their full paths
        path.write_text(path.read_text(encoding="utf-8").replace(str(sound_place), str(place)), encoding="utf-8")
    torch.manual_seed(seed)
    changed = damage(place, draw)
    folder = next(place / name for name in ("lora", "llava") if (place / name).exists())
    said = []
    deeds: tuple[Callable[[], Any], ...] = (
        lambda: load_model(folder, device="cpu"),
        lambda: describe_checkpoint(str(folder)),
        lambda: convert(folder, place / "converted", draw.choice(("hf", "original"))),
    )
    for deed in deeds:
        try:
            deed()
            said.append("")
        except LlavaError as error:
            said.append(str(error))
    return changed, said


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"mm_projector_type": "mlp99999999x_gelu"},
        {"mm_projector_type": f"mlp{'9' * 5000}x_gelu"},
        {"mm_projector_type": "mlp2x_res99999999x_gelu"},
        {"mm_vision_config": {**TOWER, "num_hidden_layers": 10**9}},
        {"text_config": {"architectures": [7]}},
        {"eos_token_id": [{}]},
        {"hidden_size": 10**30},
        {"rope_scaling": {"rope_type": "yarn", "factor": "x"}},
    ],
    ids=range(9),
)
def test_a_config_that_would_take_hours_or_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_llava_1_6(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    write_json(tmp_path / "config.json", {**values, **changes})
    with pytest.raises(CheckpointError):
        load_model(tmp_path, device="cpu")


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_damaged_checkpoint_works_or_is_refused_and_nothing_else(
    sound: dict[str, Path], tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(NUM_ATTACKS):
        place = tmp_path / str(seed)
        _, said = attack(sound[layout], place, seed)
        assert all(len(text) < 5000 for text in said)
        shutil.rmtree(place)
    capsys.readouterr()
