"""A recipe's levers, packing, cached features and checkpointing, change how fast it trains and not what it learns."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.errors import UsageError
from llava.model import packed_attention
from llava.train.recipe import TuningStage
from llava.train.recipe_file import read_recipe
from llava.train.run import run
from llava.train.speed import levers
from llava.train.speed.levers import check_levers
from tests.train.test_run import data, write

__all__ = ["data"]  # the fixture

LEVERS: dict[str, Any] = {
    "packing": True,
    "batch_size": 1,
    "cache_features": True,
    "gradient_checkpointing": ["language_model"],
}


def read_losses(folder: Path) -> list[float]:
    return [row["loss"] for row in json.loads((folder / "history.json").read_text()) if "loss" in row]


def test_a_stage_with_all_levers_has_the_losses_of_one_without(
    tmp_path: Path, next_folder: Path, data: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    stage = {"name": "tune", "steps": 3, "batch_size": 4}
    losses = []
    for name, chosen in (("plain", {}), ("fast", LEVERS)):
        folder = tmp_path / name
        folder.mkdir()
        run(read_recipe(write(folder, next_folder, data, {**stage, **chosen})), folder, workers=0)
        losses.append(read_losses(folder / "tune"))
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert len(set(losses[0])) == 3
    assert list((tmp_path / "fast/features").glob("*/*/*.safetensors"))
    assert f"in {tmp_path / 'fast/features'}, which has room for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cache_features": True, "train": ("projector", "vision_tower")}, "features of a frozen tower"),
        ({"packing": True, "group_by": "modality"}, "group_by: modality has nothing to group"),
        ({"gradient_checkpointing": ("vision_towr",)}, "Did you mean 'vision_tower'"),
    ],
)
def test_levers_that_contradict_each_other_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"Stage 'tune': .*{message}"):
        check_levers(TuningStage(name="tune", batch_size=1, lr=1e-3, **change))


@pytest.mark.parametrize(
    ("device", "precision", "installed", "packs", "chosen"),
    [
        ("cuda", "bf16", True, False, "flash_attention_2"),
        ("cuda", "fp16", True, True, "flash_attention_2"),
        ("cuda", "no", True, False, "sdpa"),
        ("cuda", "bf16", False, True, packed_attention.NAME),
        ("cuda", "bf16", False, False, "sdpa"),
        ("cpu", "bf16", True, True, packed_attention.NAME),
    ],
)
def test_the_decoder_gets_the_fastest_attention_that_is_installed(
    device: str, precision: str, installed: bool, packs: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levers, "is_flash_attn_2_available", lambda: installed)
    for before, after in (("sdpa", chosen), ("eager", "eager")):
        model = types.SimpleNamespace(config=types.SimpleNamespace(_attn_implementation=before))
        levers.choose_attention(model, torch.device(device), precision, packs)
        assert model.config._attn_implementation == after


def test_the_lengths_of_a_packed_row_are_read_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = torch.tensor([0, 3, 7], dtype=torch.int32)
    assert packed_attention._read_lengths(starts) == [3, 4]
    monkeypatch.setattr(torch.Tensor, "tolist", lambda _: pytest.fail("a GPU would wait again"))
    assert packed_attention._read_lengths(starts) == [3, 4]
