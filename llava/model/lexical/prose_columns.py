"""Columns of running text, read one after the other: what stands side by side in a newspaper belongs to no row.

A column is told from a table's by its words: its lines have several, and most go on with a small letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

# A column has so many lines at least, with so many words each in the mean, and this share of them begins small.
_LEAST_LINES, _LEAST_WORDS, _LEAST_SMALL = 4, 3.5, 0.5
# Lines of a column begin this near to each other, as a part of their height; columns share this much of their heights.
_ALIGNED, _LEAST_SHARED = 1.5, 0.5


def read_columns(lines: Sequence[Any]) -> list[Any]:
    """The lines, in reading order, those of columns of running text column by column.

    Each line has ``text`` and ``box``: left, top, right and bottom.
    """
    columns = sorted(_find_columns(lines), key=lambda column: column[0].box[0])
    if len(columns) < 2:
        return list(lines)
    spans = [_find_span(column) for column in columns]
    tops, bottoms = ([span[i] for span in spans] for i in (1, 3))
    shared, longest = min(bottoms) - max(tops), max(span[3] - span[1] for span in spans)
    are_apart = all(one[2] <= other[0] for one, other in pairwise(spans))
    if shared < _LEAST_SHARED * longest or not are_apart:
        return list(lines)
    top, bottom = min(tops), max(bottoms)
    above: list[Any] = []
    below: list[Any] = []
    within: list[list[Any]] = [[] for _ in spans]
    for line in lines:
        middle = (line.box[1] + line.box[3]) / 2
        if not top < middle < bottom:
            (above if middle <= top else below).append(line)
            continue
        held = [i for i, span in enumerate(spans) if span[0] <= (line.box[0] + line.box[2]) / 2 <= span[2]]
        # What stands across columns or beside them makes it another page.
        if len(held) != 1 or line.box[2] > spans[held[0]][2] + (line.box[3] - line.box[1]):
            return list(lines)
        within[held[0]].append(line)
    return [*above, *(line for column in within for line in column), *below]


def _find_columns(lines: Sequence[Any]) -> list[list[Any]]:
    """The lines that begin below each other and are running text, by columns."""
    grouped: list[list[Any]] = []
    for line in lines:
        reach = _ALIGNED * (line.box[3] - line.box[1])
        near = [group for group in grouped if abs(group[0].box[0] - line.box[0]) <= reach]
        if near:
            min(near, key=lambda group: abs(group[0].box[0] - line.box[0])).append(line)
        else:
            grouped.append([line])
    return [group for group in grouped if _is_running(group)]


def _is_running(lines: Sequence[Any]) -> bool:
    """Whether lines below each other are one text, which goes on from one to the next."""
    texts = [line.text.strip() for line in lines]
    words = sum(len(text.split()) for text in texts)
    small = sum(text[:1].islower() for text in texts)
    return len(texts) >= _LEAST_LINES and words >= _LEAST_WORDS * len(texts) and small >= _LEAST_SMALL * len(texts)


def _find_span(lines: Sequence[Any]) -> tuple[float, float, float, float]:
    low, high = (
        [min(line.box[i] for line in lines) for i in (0, 1)],
        [max(line.box[i] for line in lines) for i in (2, 3)],
    )
    return low[0], low[1], high[0], high[1]
