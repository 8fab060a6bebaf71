"""docs/python.md is correct: its examples run in order, in one namespace, and print the output below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")


def blocks() -> list[tuple[int, str, str]]:
    """Line, code and expected output of each example."""
    found = re.finditer(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", PAGE, re.DOTALL)
    return [(PAGE[: one.start()].count("\n") + 2, one[1], one[2] or "") for one in found]


def test_every_example_of_the_page_prints_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    namespace: dict[str, Any] = {"__name__": "page"}
    for line, code, expected in blocks():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * (line - 1) + code, "docs/python.md", "exec"), namespace)
        # A line of the page has no blanks at its end.
        assert [each.rstrip() for each in printed.getvalue().splitlines()] == expected.splitlines(), f"line {line}"


def test_every_block_of_the_page_is_an_example_or_its_output() -> None:
    assert len(blocks()) >= 14
    assert PAGE.count("```") == 2 * sum(1 + bool(output) for _, _, output in blocks())


def test_every_public_name_is_on_the_page() -> None:
    import llava

    names = [name for name in llava.__all__ if not name.startswith("__") and not name.endswith("ForCausalLM")]
    assert [name for name in names if name != "Answer" and name not in PAGE] == []
