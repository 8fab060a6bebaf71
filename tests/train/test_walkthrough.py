"""The first fine-tuning of README.md and docs/training.md, as it is written there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def read_commands(page: str) -> list[tuple[list[str], str]]:
    """The words of each command of the page's first fine-tuning, and the output that is shown after it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = command.partition("\n")
            if "flags" in line and "--dry-run" not in line and "llava data" not in line:
                found.append((shlex.split(line), output))
    return found


def run(words: list[str], folder: Path) -> str:
    program = {"python": [sys.executable], "llava": [sys.executable, "-m", "llava"]}[words[0]]
    arguments = [str(ROOT / word) if word.startswith("examples/") else word for word in words[1:]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*program, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_pages_show_the_same_training() -> None:
    readme, page = (read_commands(name) for name in ("README.md", "docs/training.md"))
    assert [words for words, _ in readme] == [words for words, _ in page if words[1] != "ask" or "--model" in words]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """The folder in which the commands of docs/training.md ran, and the output of each beside the one that is shown."""
    folder = tmp_path_factory.mktemp("flags")
    return folder, [(run(words, folder), shown) for words, shown in read_commands("docs/training.md")]


def test_a_folder_of_images_and_a_json_file_become_a_model_that_answers(
    outputs: tuple[Path, list[tuple[str, str]]],
) -> None:
    folder, found = outputs
    drawn, before, trained, after = found
    assert drawn[0] == drawn[1]
    assert before[0] != after[0]
    assert trained[0].splitlines()[-1] == "runs/flags/tune/model"
    assert after[0] == after[1]
    assert (folder / "runs/flags/tune/report.html").stat().st_size > 10_000
