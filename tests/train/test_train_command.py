"""``llava train RECIPE key=value --data FILE``: what the words mean, and which mistakes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.train import run as tuning
from llava.train.recipe import parse_recipe
from llava.train.recipe_file import RecipeFile


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RecipeFile, tuple[Any, ...]]]:
    """The recipes that the command runs, none of which is trained."""
    called: list[tuple[RecipeFile, tuple[Any, ...]]] = []

    def run(recipe: RecipeFile, *arguments: Any) -> Path:
        called.append((recipe, arguments))
        return Path("done")

    monkeypatch.setattr(tuning, "run", run)
    return called


def test_settings_before_and_after_the_data_reach_the_recipe(
    runs: list[tuple[RecipeFile, tuple[Any, ...]]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = "train v1.5-7b-lora lr=1e-4 --data a.json b.json lora.rank=8 --images photos --start base --output out"
    assert main([*words.split(), "--workers", "3", "--stage", "v1.5-7b-lora", "epochs=2"]) == 0
    assert capsys.readouterr().out == "done\n"
    ((recipe, arguments),) = runs
    parsed = parse_recipe(recipe)
    (stage,) = parsed.stages
    assert stage.data is not None
    assert (stage.data.files, stage.data.images) == (("a.json", "b.json"), "photos")
    assert stage.lora is not None
    assert (stage.lr, stage.lora.rank, stage.lora.alpha, stage.epochs) == (1e-4, 8, 256, 2)
    assert parsed.start == "base"
    assert arguments == ("out", "v1.5-7b-lora", 3, True)


def test_no_resume_is_passed_on(runs: list[tuple[RecipeFile, tuple[Any, ...]]]) -> None:
    assert main(["train", "v1.5-7b-task", "--no-resume", "--output", "out"]) == 0
    assert runs[0][1] == ("out", None, 1, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train v1.5-7b-taks --output out", "Did you mean 'v1.5-7b-task'?"),
        ("train v1.5-7b-task lr --output out", "'lr' is not a setting of the recipe"),
        ("train v1.5-7b-task --data lr=1 --output out", "--data names no file"),
        ("train default --data a.json --output out", "--data cannot be used with 'default'"),
        ("train default --no-resume --output out", "from scratch always resumes"),
        ("train v1.5-7b-task --outptu out", "--output"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(words.split())
    except SystemExit as error:  # argparse's own
        code = int(str(error.code))
    assert code == 2
    assert message in capsys.readouterr().err


def test_an_unknown_key_is_refused_with_the_nearest_one_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "v1.5-7b-task", "epoch=2", "--start", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "unknown key 'epoch'. Did you mean 'epochs'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
