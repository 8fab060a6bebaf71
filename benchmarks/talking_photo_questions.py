"""The questions about photographs, in talking_photo_questions.txt and the file beside it: how they are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.talking_editions import read_question

FILES = ("talking_photo_questions.txt", "talking_photo_questions_bcd.txt")  # of edition i; of editions b, c and d
GROUPS = frozenset(("color", "background", "place", "count", "light", "detail", "what", "cannot tell"))
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey")
PLACES = {  # how a place may be called; only the first words of each are wrong where another place is right
    "left": ("left",),
    "right": ("right",),
    "top": ("top", "upper", "above", "high"),
    "bottom": ("bottom", "lower", "below", "beneath", "under", "underneath", "foreground", "low"),
    "center": ("center", "middle", "centre", "central", "centered", "centred"),
}


def read_questions(files: Iterable[str] = FILES) -> dict[str, list[dict[str, Any]]]:
    """The questions of each image of some files, by its path in talking_truths.txt."""
    asked: dict[str, list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    texts = [Path(__file__).with_name(file).read_text(encoding="utf-8") for file in files]
    for line in "".join(texts).splitlines():
        if line.startswith("= "):
            rows = asked.setdefault(line[2:], [])
        elif line and not line.startswith("#"):
            rows.append(_read_line(line))
    return asked


def _read_line(line: str) -> dict[str, Any]:
    group, _, told = line.partition(" ")
    group = "cannot tell" if group == "unknown" else group
    if not told.startswith(("?c ", "?w ")):
        return {**read_question(told), "group": group}
    question, _, answer = told[3:].partition(" = ")
    right, _, harmless = answer.partition("~")
    answers, beside = ([each.strip() for each in part.split(";") if each.strip()] for part in (right, harmless))
    if told.startswith("?c "):
        said = {word for each in (*answers, *beside) for word in each.replace("-", " ").split()}
        others = [color for color in COLORS if color not in said]
    else:
        others = [word for place, words in PLACES.items() if place not in (*answers, *beside) for word in words[:2]]
        answers = [word for each in answers for word in PLACES.get(each, (each,))]
    return {"question": question, "answers": answers, "others": others, "form": "name", "group": group}
