"""The first fine-tuning of README.md and docs/training.md, as it is written there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llava.cli import main

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


def run(words: list[str]) -> str:
    """What the command prints. The training has a process of its own, the others share this one, which has torch."""
    if words[0] == "python":
        with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", words[1:])
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        return out.getvalue()
    assert words[0] == "llava"
    if words[1] == "train":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(words[1:]) == 0
    return out.getvalue()


def test_both_pages_show_the_same_training() -> None:
    readme, page = (read_commands(name) for name in ("README.md", "docs/training.md"))
    assert [words for words, _ in readme] == [words for words, _ in page if words[1] != "ask" or "--model" in words]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """The folder in which the commands of docs/training.md ran, and the output of each beside the one that is shown."""
    folder = tmp_path_factory.mktemp("flags")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, [(run(words), shown) for words, shown in read_commands("docs/training.md")]


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
