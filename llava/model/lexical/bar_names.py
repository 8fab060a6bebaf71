"""The names of bars: which words of the row below their base each bar, group or stack is called by.

Boxes are in the chart's frame, in which ``along`` runs along the names and ``up`` along the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from llava.model.lexical.label_rows import complete_labels, split_words
from llava.model.lexical.object_finder import Drawn

# A name is at most this far from the bars: a part of their length, or so many of its heights.
_NAME_REACH, _NAME_HEIGHTS = 0.5, 6


class Span(NamedTuple):
    """From where to where something reaches along one axis of the frame, in px."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Its middle."""
        return (self.low + self.high) / 2

    @property
    def size(self) -> float:
        """Its length."""
        return self.high - self.low


@dataclass(frozen=True)
class PlacedBar:
    """A bar in the chart's frame: ``up.low`` is where it begins."""

    drawn: Drawn
    along: Span
    up: Span


@dataclass(frozen=True)
class Word:
    """A line, or a part of one, in the chart's frame; ``line``: its index; ``height``: of the line in pixels."""

    text: str
    along: Span
    up: Span
    line: int
    height: float


@dataclass(frozen=True)
class Unit:
    """What one name at the axis stands for: a bar, a group of bars or a stack."""

    bars: tuple[PlacedBar, ...]

    @property
    def middle(self) -> float:
        """Its middle along the names."""
        return (min(b.along.low for b in self.bars) + max(b.along.high for b in self.bars)) / 2


def split_line(word: Word) -> list[Word]:
    """The words of a line that runs along the names, or along the values, each with its share of the line's width."""
    is_along = word.along.size >= word.up.size
    parts = []
    span = word.along if is_along else word.up
    for text, low, high in split_words(word.text, span.low, span.high, word.height):
        part = Span(low, high)
        along, up = (part, word.up) if is_along else (word.along, part)
        parts.append(replace(word, text=text, along=along, up=up))
    return parts


def read_names(units: list[Unit], words: list[Word], base: float) -> list[tuple[str, set[int]]]:
    """Each unit's name, and the lines that it comes from: the row before the base that names most of the units."""
    middles = [unit.middle for unit in units]
    low, high = min(middles), max(middles)
    slot = (high - low) / (len(units) - 1) if len(units) > 1 else math.inf
    ends = [end for unit in units for bar in unit.bars for end in (bar.up.low, bar.up.high)]
    reach = _NAME_REACH * (max(ends) - min(ends))
    below = [
        w
        for w in words
        if w.up.middle < base
        and low - 0.6 * slot <= w.along.middle <= high + 0.6 * slot
        and w.up.high > min(ends) - max(reach, _NAME_HEIGHTS * w.height)
    ]
    if not below:
        return [("", set()) for _ in units]
    # The lowest figure of the value axis may stand a little nearer than the names do.
    best = max((_name_units(row, middles, slot) for row in _part_rows(below)), key=lambda names: sum(map(bool, names)))
    texts = [" ".join(w.text for w in sorted(found, key=lambda w: w.along.low)) for found in best]
    return list(zip(complete_labels(texts), [{w.line for w in found} for found in best], strict=True))


def _part_rows(words: list[Word]) -> list[list[Word]]:
    """Words below the base in rows, the nearest to it first."""
    rows: list[list[Word]] = []
    for word in sorted(words, key=lambda w: -w.up.high):
        if rows and word.up.high >= rows[-1][0].up.high - 0.8 * word.height:
            rows[-1].append(word)
        else:
            rows.append([word])
    return rows


def _name_units(row: list[Word], middles: list[float], slot: float) -> list[list[Word]]:
    """The words of a row that each unit is called by: those whose middles are nearest to its own."""
    names: list[list[Word]] = [[] for _ in middles]
    for word in row:
        covered = [m for m in middles if word.along.low < m < word.along.high]
        parts = split_line(word) if len(covered) > 1 and len(word.text.split()) >= len(covered) else [word]
        for part in parts:
            at = min(range(len(middles)), key=lambda i: abs(middles[i] - part.along.middle))
            if abs(middles[at] - part.along.middle) <= 0.6 * slot:
                names[at].append(part)
    return names
