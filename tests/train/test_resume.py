"""A run that was killed goes on with the same losses to the last bit, and a checkpoint that is no good is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.errors import CheckpointError, Notice, UsageError
from llava.train.recipe_file import read_recipe
from llava.train.run import run
from tests.train.tiny_stage import read_losses, write_recipe

ROOT = Path(__file__).parents[2]
LORA = {"lora": {"rank": 2, "alpha": 4, "dropout": 0.3}}
ORIGINAL = {"compatible_with": "llava-1.5", "group_by": "modality", "accumulation": 2}
MIXTURE = {"taken": {"take": "random:5", "weight": 1.5}, "last": {"take": "end:20%"}}  # 7 and 2 samples
# name: (changes of the recipe, workers, where it is killed): a step, or N.5 in the midst of writing checkpoint-N.
CASES: dict[str, tuple[dict[str, Any], int, float]] = {
    "an accumulation in the second epoch": ({"accumulation": 2, "group_by": "modality"}, 0, 5),
    "before the first checkpoint": ({}, 0, 2),
    "while a checkpoint is written": ({"optimizer": "muon", "log_steps": 3}, 2, 4.5),
    "the projector alone, by epochs of a mixture": (
        {"train": ["projector"], "steps": 0, "epochs": 1.2, "sources": MIXTURE},
        2,
        4,
    ),
    "LoRA with dropout, in an order from torch's state": ({**ORIGINAL, **LORA}, 0, 4.5),
    "an epoch that begins in the middle of an update": ({**ORIGINAL, "steps": 8}, 2, 7),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a folder for each case: its recipe, and ``run``, which was killed."""
    folder = tmp_path_factory.mktemp("killed")
    words = []
    for number, (changes, workers, step) in enumerate(CASES.values()):
        recipe = write_recipe(folder / str(number), **changes)
        words += [str(recipe), str(folder / str(number) / "run"), str(workers), str(step)]
    command = [sys.executable, "-m", "tests.train.tiny_stage", *words]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    codes = [line for line in done.stdout.splitlines() if line.lstrip("-").isdigit()]
    assert codes == ["-9"] * len(CASES), done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_continues_with_the_same_losses(killed: Path, case: str, tmp_path: Path) -> None:
    folder, workers = killed / str([*CASES].index(case)), CASES[case][1]
    recipe = read_recipe(folder / "recipe.yaml")
    found = sorted(path.name for path in (folder / "run/tiny").glob("checkpoint-*"))
    run(recipe, folder / "run", workers=workers)
    run(recipe, tmp_path, workers=workers)
    assert len(found) == (CASES[case][2] > 2)
    assert read_losses(folder / "run") == read_losses(tmp_path)
    for file in sorted((tmp_path / "tiny/model").iterdir()):
        assert file.read_bytes() == (folder / "run/tiny/model" / file.name).read_bytes(), file.name
    assert not (folder / "run/tiny/unfinished").exists()


@pytest.fixture
def interrupted(tmp_path: Path) -> tuple[Path, Path]:
    """A recipe, and the checkpoint of its last step; its result is gone."""
    recipe = write_recipe(tmp_path, steps=2)
    run(read_recipe(recipe), tmp_path / "run", workers=0)
    shutil.rmtree(tmp_path / "run/tiny/model")
    return recipe, tmp_path / "run/tiny/checkpoint-2"


def test_an_incomplete_checkpoint_is_refused_and_its_fault_named(interrupted: tuple[Path, Path]) -> None:
    recipe, checkpoint = interrupted
    for name in ("optimizer.pt", "rng_state.pth", "trainer_state.json"):
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).unlink()
        with pytest.raises(CheckpointError, match=rf"checkpoint-2 is incomplete: it has no {name}\. Delete .*"):
            run(read_recipe(recipe), checkpoint.parents[1], workers=0)
        (checkpoint / name).write_bytes(content)
    (checkpoint / "run_state.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"run_state\.json is damaged"):
        run(read_recipe(recipe), checkpoint.parents[1], workers=0)


def test_settings_that_changed_since_the_checkpoint_are_told(interrupted: tuple[Path, Path], tmp_path: Path) -> None:
    _, checkpoint = interrupted
    changed = write_recipe(tmp_path, steps=3, lr=0.02, batch_size=3)
    with pytest.warns(Notice) as caught:
        run(read_recipe(changed), checkpoint.parents[1], workers=0)
    told = [str(each.message) for each in caught]
    assert any("lr was 0.01 in" in text and "the learning rates go on as in the checkpoint" in text for text in told)
    assert any("batch_size was 2 in" in text and "is 3 now" in text for text in told)
    rates = [line["learning_rate"] for line in json.loads((tmp_path / "run/tiny/history.json").read_text())[:-1]]
    assert max(rates) <= 0.01


def test_a_folder_with_checkpoints_is_not_trained_in_anew(interrupted: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, _ = interrupted
    with pytest.raises(UsageError, match=r"Stage 'tiny' was interrupted: .*checkpoint-2 exists\. Resume it, or delete"):
        run(read_recipe(recipe), tmp_path / "run", workers=0, resume=False)
