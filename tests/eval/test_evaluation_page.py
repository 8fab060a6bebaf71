"""docs/evaluation.md is true: its walk through one benchmark runs as written, and prints what it shows."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from llava.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
WALK = PAGE.split("\n## One benchmark")[1].split("\n## ")[0]


def read_commands(text: str) -> list[tuple[list[str], str]]:
    """The words of each command in the consoles of the text, and the output that is shown after it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for command in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = command.partition("\n")
            found.append((shlex.split(line), output))
    return found


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The exit code, output and errors of a command, in this process, which has loaded torch already."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        if words[0] == "python":
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(str(ROOT / words[1]), run_name="__main__")
            code = 0
        else:
            assert words[0] == "llava"
            code = main(words[1:])
    return code, out.getvalue(), errors.getvalue()


def check_output(printed: str, shown: str) -> None:
    """Whether the lines are those that are shown, but for their numbers, which depend on the processor.

    "..." stands for any lines.
    """
    parts = [re.escape(re.sub(r"\d+(\.\d+)?", "0", part)) for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE)]
    assert re.fullmatch("(.*\n)*".join(parts), re.sub(r"\d+(\.\d+)?", "0", printed)), printed


def test_the_readme_shows_commands_of_the_walk() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Evaluate")[1].split("\n## ")[0]
    shown = [
        words for words, _ in read_commands(readme) if words[1] not in ("synth", "eval") or "seed" in " ".join(words)
    ]
    walked = [words for words, _ in read_commands(WALK)]
    assert len(shown) == 3
    assert [words for words in shown if words not in walked] == []


def test_the_walk_through_a_benchmark_runs_and_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = read_commands(WALK)
    assert len(commands) == 6
    for words, shown in commands:
        code, out, errors = run(words, monkeypatch)
        is_refused = shown.startswith("llava: error:")
        assert (code != 0) == is_refused, errors
        check_output(errors if is_refused else out, shown)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "seed_image-categories.png"]
    assert "token map: " in (tmp_path / "report/report.html").read_text(encoding="utf-8")


def test_output_that_is_not_shown_is_noticed() -> None:
    check_output("a 1.5\nb\nc\n", "a 2\n...\nc\n")
    with pytest.raises(AssertionError):
        check_output("a 1.5\nb\n", "a 2\n")
    with pytest.raises(AssertionError):
        check_output("a 1.5\nb\nd\n", "a 2\n...\nc\n")


def test_every_script_that_the_page_names_exists() -> None:
    named = set(re.findall(r"(?:python|bash) ((?:scripts|examples|playground)/\S+\.(?:py|sh))", PAGE))
    assert len(named) >= 6
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_the_pages_images_are_small_enough_to_load() -> None:
    for name in re.findall(r"\]\((evaluation-\w+\.png)\)", PAGE):
        assert (ROOT / "docs" / name).stat().st_size < 300_000
        with Image.open(ROOT / "docs" / name) as image:
            image.load()


def test_every_reading_that_the_page_names_is_one_that_a_scorer_prints() -> None:
    table = PAGE.split("\n## What counts as right")[1].split("\n\n")[2]
    cells = [cell for row in table.splitlines()[2:] for cell in row.split(" | ")[1:3]]
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    files = [path for folder in ("tasks", "scoring") for path in (ROOT / "llava/eval" / folder).glob("*.py")]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    assert len(named) > 20
    assert sorted(name for name in named if f'"{name}"' not in source and f'"{name},' not in source) == []
