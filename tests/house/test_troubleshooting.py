"""Every message that docs/troubleshooting.md explains is one that the package emits."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stand for values in the page's messages.
VALUES = re.compile(r"(?<= )'[^']*'|\b[NX]\b|…|\(AWQ\)|\(GPTQ\)|(?<![\w-])\d[\d,.e]*|FOLDER|URL|`[^`]*`|torch\.float16")


def messages() -> list[str]:
    """What stands between backquotes in the first column."""
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    found = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    return [message for message in found if " " in message]


def literals() -> str:
    """All texts in the package and its tests' set-up, with a mark wherever a value is put in."""
    texts = []
    for path in [*(ROOT / "llava").rglob("*.py"), ROOT / "tests/install_browser.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\1".join(texts)


@pytest.fixture(scope="module")
def said() -> str:
    return literals()


@pytest.mark.parametrize("message", messages())
def test_a_message_that_is_explained_is_one_that_is_said(message: str, said: str) -> None:
    fragments = [part.strip(" .,:") for part in VALUES.split(message)]
    fragments = [part for part in fragments if len(part) > 4]
    assert fragments, "nothing of this message is the package's own"
    assert [part for part in fragments if part.lower() not in said.lower()] == []


def test_the_page_explains_twenty_messages_or_more() -> None:
    assert len(messages()) >= 20
