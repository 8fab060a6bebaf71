"""Columns of running text are read one after the other, and tables row by row."""

from __future__ import annotations

import random

import pytest

from llava.model.lexical.description import describe
from llava.model.lexical.prose_columns import read_columns
from tests.model.seen_lines import Line

WORDS = "the river ran past an old mill and people came from town to see how water turned its wheel".split()


def write(rng: random.Random, count: int) -> list[str]:
    """Lines of running text, of five or six words each, of which each sixth or so begins a sentence."""
    words = [rng.choice(WORDS) for _ in range(6 * count)]
    words = [word.capitalize() if i % 7 == 0 else word for i, word in enumerate(words)]
    lines, at = [], 0
    for _ in range(count):
        length = rng.choice((5, 6))
        lines.append(" ".join(words[at : at + length]))
        at += length
    return lines


def set_lines(texts: list[list[str]], shift: float = 0.0) -> list[Line]:
    """The texts of columns, in reading order: row by row, each column ``shift`` px lower than the one before."""
    lines = [
        Line(text, (20 + 300 * x, 60 + 24 * y + shift * x, 20 + 300 * x + 7 * len(text), 78 + 24 * y + shift * x))
        for x, column in enumerate(texts)
        for y, text in enumerate(column)
    ]
    return sorted(lines, key=lambda line: (line.box[1], line.box[0]))


@pytest.mark.parametrize("seed", range(6))
def test_columns_are_read_one_after_the_other(seed: int) -> None:
    rng = random.Random(seed)
    columns = [write(rng, rng.choice((6, 8))) for _ in range(rng.choice((2, 3)))]
    title, end = Line("The mill", (20, 10, 120, 40)), Line("Page 3", (200, 400, 250, 420))
    lines = [title, *set_lines(columns, rng.choice((0.0, 9.0))), end]
    read = read_columns(lines)
    assert [line.text for line in read] == ["The mill", *(text for column in columns for text in column), "Page 3"]
    assert " | " not in describe((900, 440), read, [])


def test_tables_and_forms_stay_rows() -> None:
    cells = [["Name", "Ann", "Bob", "Cleo", "Dan"], ["Job", "Nurse on call", "Cook", "Pilot", "Clerk"]]
    words = [["what we sell to all", *["one two three four five"] * 4], ["Price", "4.20", "3.10", "5.00", "2.80"]]
    for texts in (cells, words):
        lines = set_lines(texts)
        assert read_columns(lines) == lines


def test_what_stands_across_columns_keeps_the_rows() -> None:
    rng = random.Random(7)
    lines = set_lines([write(rng, 8), write(rng, 8)])
    across = Line("A line that reaches over both of the columns", (20, 150, 560, 168))
    assert read_columns([*lines[:8], across, *lines[8:]]) == [*lines[:8], across, *lines[8:]]
