"""Where a checkpoint's vision tower comes from: named anew, another machine's path, or rebuilt from its weights."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from llava.cli import build_parser, main
from llava.errors import CheckpointError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from llava.model.inner_tower import describe_tower
from tests.model.test_sources import make_snapshot
from tests.tiny_checkpoints import Tensors, random_tensors, write_llava_1_5, write_llava_1_6, write_tower
from tests.tiny_configs import TOWER, write_json

ELSEWHERE = "/home/somebody/models/my-clip"
WIDE = {**TOWER, "hidden_size": 128, "intermediate_size": 32, "num_attention_heads": 2}


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        pixels = torch.linspace(-1, 1, 3 * 28 * 28).view(1, 3, 28, 28)
        return model(input_ids=torch.tensor([[1, 5, -200, 7, 9]]), images=pixels).logits


def widen(tensors: Tensors, width: int) -> Tensors:
    """The tensors of a tower of 16, with ``width`` in its place."""
    shapes = {
        name: tuple(width if side == 16 else side for side in tensor.shape) if "tower" in name else tuple(tensor.shape)
        for name, tensor in tensors.items()
    }
    shapes["model.mm_projector.0.weight"] = (32, width)
    return random_tensors(shapes, seed=2)


def write_wide(folder: Path, **changes: Any) -> None:
    """A checkpoint whose tower is 128 wide, which is two heads of 64, and is described nowhere."""
    tensors = write_llava_1_6(folder, mm_hidden_size=128, mm_vision_config=None, **changes)
    save_file(widen(tensors, 128), folder / "model.safetensors", {"format": "pt"})


def test_a_tower_of_another_machine_is_refused_with_the_flag_that_helps(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip", tower_name=ELSEWHERE)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "llava", device="cpu")
    for words in (ELSEWHERE, "a path on another machine", "--vision-tower", "vision_tower=", "mm_vision_tower"):
        assert words in str(caught.value)


def test_a_tower_can_be_named_by_keyword_in_every_door(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "llava", tmp_path / "clip", tower_name=ELSEWHERE)
    clip = tmp_path / "clip"
    for model in (
        load_model(tmp_path / "llava", device="cpu", vision_tower=clip).model,
        load_pretrained_model(tmp_path / "llava", device="cpu", vision_tower=str(clip))[1],
    ):
        assert model.state_dict().keys() == tensors.keys()
        assert model.config.mm_vision_tower == str(clip)
    convert(tmp_path / "llava", tmp_path / "whole", "original", vision_tower=clip)
    assert load_model(tmp_path / "whole", device="cpu").model.state_dict().keys() == tensors.keys()


def test_a_tower_can_be_named_in_every_command_that_loads(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip", tower_name=ELSEWHERE)
    folder, tower = str(tmp_path / "llava"), ["--vision-tower", str(tmp_path / "clip")]
    assert main(["ask", "--model", folder, *tower, "--max-new-tokens", "2", str(photo), "What?"]) == 0
    assert main(["info", folder, *tower]) == 0
    assert main(["info", folder, *tower, "--image", str(photo)]) == 0
    assert main(["convert", folder, str(tmp_path / "hf"), "--to", "hf", *tower]) == 0
    assert main(["info", folder]) == 1
    assert "--vision-tower" in capsys.readouterr().err
    for words in (["chat"], ["serve"], ["eval", "synth"]):
        assert build_parser().parse_args([*words, *tower]).vision_tower == tower[1]


def test_the_name_of_a_well_known_tower_is_enough_and_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = make_snapshot(tmp_path / "cache", "openai/clip-vit-large-patch14-336")
    for name in ("/data/models/clip-vit-large-patch14-336", "D:\\models\\clip-vit-large-patch14-336",
                 "checkpoints/clip-vit-large-patch14-336/", "./openai--clip-vit-large-patch14-336"):  # fmt: skip
        tensors = write_llava_1_5(tmp_path / "llava", snapshot, tower_name=name)
        caplog.clear()
        loaded = load_model(tmp_path / "llava", device="cpu")
        assert loaded.model.state_dict().keys() == tensors.keys()
        assert f"The vision tower '{name}' is not there; openai/clip-vit-large-patch14-336" in caplog.text


@pytest.mark.parametrize("name", ["", ELSEWHERE, "org/own-clip"])
def test_a_tower_inside_is_rebuilt_from_its_weights_and_that_is_said(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wide(tmp_path / "bare", mm_vision_tower=name)
    write_wide(tmp_path / "said")
    values = json.loads((tmp_path / "said/config.json").read_text())
    write_json(tmp_path / "said/config.json", {**values, "mm_vision_config": WIDE})
    bare, said = (load_model(tmp_path / one, device="cpu") for one in ("bare", "said"))
    assert torch.equal(answer(bare.model), answer(said.model))
    assert bare.spec.tiling.tile_px == 28
    assert "the shapes of its weights do: 28 px in patches of 14, width 128, 3 blocks of 2 heads" in caplog.text
    assert "--vision-tower" in caplog.text
    assert main(["info", str(tmp_path / "bare")]) == 0
    convert(tmp_path / "bare", tmp_path / "hf", "hf")
    assert torch.equal(answer(load_model(tmp_path / "hf", device="cpu").model), answer(said.model))


def test_a_named_tower_describes_the_weights_inside_and_does_not_replace_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tower(tmp_path / "clip")
    tensors = write_llava_1_6(tmp_path / "llava", mm_vision_config=None, mm_vision_tower=ELSEWHERE)
    model = load_model(tmp_path / "llava", device="cpu", dtype="float16", vision_tower=tmp_path / "clip").model
    name = "model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight"
    assert torch.equal(model.state_dict()[name], tensors[name])
    assert model.get_vision_tower().config.num_attention_heads == TOWER["num_attention_heads"]
    assert "has its vision tower's weights inside: they are used" in caplog.text


def test_shapes_tell_what_a_tower_is() -> None:
    def shapes(width: int, inner: int, blocks: int, patch: int, positions: int, **more: Any) -> dict[str, Any]:
        return {
            "embeddings.class_embedding": (width,),
            "embeddings.patch_embedding.weight": (width, 3, patch, patch),
            "embeddings.position_embedding.weight": (positions, width),
            "post_layernorm.weight": (width,),
            **{f"encoder.layers.{i}.mlp.fc1.weight": (inner, width) for i in range(blocks)},
        } | more

    from llava.config import KNOWN_TOWERS

    def describe(shapes: dict[str, Any], name: str = "") -> dict[str, Any]:
        described = describe_tower(shapes, name, KNOWN_TOWERS)
        assert described is not None
        return described

    large = shapes(1024, 4096, 24, 14, 577)
    assert describe(large) == KNOWN_TOWERS["openai/clip-vit-large-patch14-336"]
    assert describe(shapes(1024, 4096, 24, 14, 257)) == KNOWN_TOWERS["openai/clip-vit-large-patch14"]
    base = describe(shapes(768, 3072, 12, 32, 50))
    assert base["image_size"], base["num_attention_heads"] == (224, 12)
    assert describe(shapes(1280, 5120, 32, 14, 257), "laion/CLIP-ViT-H-14")["num_attention_heads"] == 16
    assert describe(shapes(1280, 5120, 32, 14, 257), "laion/CLIP-ViT-H-14")["hidden_act"] == "gelu"
    # Without its end a tower of unknown depth cannot be told, and other models are not called CLIP.
    cut = {name: shape for name, shape in large.items() if ".23." not in name and "post" not in name}
    assert describe(cut)["num_hidden_layers"] == 24
    for other in (
        {name: shape for name, shape in shapes(768, 3072, 11, 32, 50).items() if "post" not in name},
        shapes(1000, 4000, 12, 14, 257),
        shapes(768, 3072, 12, 32, 52),
        {name: shape for name, shape in large.items() if "class" not in name},
        {},
    ):
        assert describe_tower(other, "", KNOWN_TOWERS) is None


def test_a_tower_that_nothing_describes_is_refused(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path, mm_vision_config=None, mm_vision_tower=ELSEWHERE)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "post_layernorm" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="--vision-tower"):
        load_model(tmp_path, device="cpu")


def test_every_command_that_loads_a_checkpoint_takes_a_tower() -> None:
    def flags(parser: argparse.ArgumentParser) -> dict[str, set[str]]:
        found = {parser.prog: {flag for action in parser._actions for flag in action.option_strings}}
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    found |= flags(below)
        return found

    taking = {name for name, own in flags(build_parser()).items() if "--vision-tower" in own}
    assert {name for name, own in flags(build_parser()).items() if "--model-base" in own} <= taking
    assert {f"llava {name}" for name in ("ask", "chat", "info", "convert", "serve", "eval synth")} <= taking
