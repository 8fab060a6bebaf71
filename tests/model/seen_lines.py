"""A line of text as the reader gives it, for tests that draw their own pages."""

from __future__ import annotations

from typing import NamedTuple


class Line(NamedTuple):
    text: str
    box: tuple[float, float, float, float]
    ink: str = "black"
    ground: str = "white"
    score: float = 1.0
    drop: float = 0.0
