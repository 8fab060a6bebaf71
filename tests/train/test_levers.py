"""A recipe's levers, packing, cached features and checkpointing, change how fast it trains and not what it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.errors import UsageError
from llava.train.recipe import TuningStage
from llava.train.recipe_file import read_recipe
from llava.train.run import run
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
    for name, levers in (("plain", {}), ("fast", LEVERS)):
        folder = tmp_path / name
        folder.mkdir()
        run(read_recipe(write(folder, next_folder, data, {**stage, **levers})), folder, workers=0)
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
