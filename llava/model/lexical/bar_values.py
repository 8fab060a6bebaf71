"""Figures that stand at the ends of bars, read where they are: the finder of lines takes lone ones for specks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from llava.model.lexical.flat_fills import Bools, Fills
from llava.model.lexical.object_finder import Box, Drawn
from llava.model.lexical.turned_words import Read, SeenText, TurnedWord, find_ink, read_words, share_smaller

# So many bars, of which a reading may miss the figures.
_LEAST_BARS, _MOST_BARS = 2, 24
# A figure begins within so many heights of a line from its bar's end, and reaches over this many beside it.
_NEAR, _BESIDE = 0.9, 0.6
# Its height, and at most its length, in those.
_LEAST_HEIGHT, _MOST_HEIGHT, _MOST_LENGTH = 0.4, 1.4, 4.0
# An edge is blurred over so many pixels.
_EDGE_PX = 3
# Of the bars, this share has a figure, or none is read.
_LEAST_SHARE = 0.6


def read_bar_values(
    canvas: Tensor, fills: Fills, bars: Sequence[Drawn], lines: Sequence[Any], read: Read
) -> list[Any] | None:
    """The lines, with the figures above upright bars or right of level ones in place of what was read there.

    None unless most bars have one. ``bars``: with or without keys, which have none.
    """
    boxes = [each.box for each in bars if each.kind == "bar"]
    heights = sorted(line.box[3] - line.box[1] for line in lines)
    if not _LEAST_BARS <= len(boxes) <= _MOST_BARS or not heights:
        return None
    size = heights[len(heights) // 2]
    is_upright = np.ptp([box[3] for box in boxes]) <= np.ptp([box[0] for box in boxes])
    find = _find_above if is_upright else _find_beside
    words = [word for box in boxes if (word := find(fills, box, boxes, size)) is not None]
    if len(words) < max(_LEAST_BARS, _LEAST_SHARE * len(boxes)):
        return None
    texts = read_words(canvas, fills.colours[fills.grounds[0]], words, size, read)
    found = [
        SeenText(text, word.find_box(), "black", "white", 1.0)
        for word, text in zip(words, texts, strict=True)
        if any(map(str.isdigit, text))
    ]
    if len(found) < max(_LEAST_BARS, _LEAST_SHARE * len(boxes)):
        return None
    rest = [line for line in lines if all(share_smaller(line.box, word.box) < 0.5 for word in found)]
    return sorted([*rest, *found], key=lambda line: (line.box[1] + line.box[3], line.box[0]))


def _find_above(fills: Fills, box: Box, others: Sequence[Box], size: float) -> TurnedWord | None:
    height, width = fills.labels.shape
    left, right = max(0, int(box[0] - _BESIDE * size)), min(width, int(box[2] + _BESIDE * size) + 1)
    bottom = min(height, int(box[1]) - _EDGE_PX)
    top = max(0, int(bottom - (_NEAR + _MOST_HEIGHT) * size) - 1)
    for other in others:  # a bar beside it that is higher
        if other[1] < bottom:
            left = max(left, int(other[2]) + 2) if other[2] <= box[0] + 2 else left
            right = min(right, int(other[0]) - 1) if other[0] >= box[2] - 2 else right
    ink = find_ink(fills, top, bottom, left, right)
    rows = _take_last(np.asarray(ink.any(1)), size)
    return None if rows is None else _make_word(ink, rows, slice(None), (left, top), size)


def _find_beside(fills: Fills, box: Box, others: Sequence[Box], size: float) -> TurnedWord | None:
    height, width = fills.labels.shape
    middle, reach = (box[1] + box[3]) / 2, max(0.8 * size, (box[3] - box[1]) / 2)
    top, bottom = max(0, int(middle - reach)), min(height, int(middle + reach) + 1)
    for other in others:  # a bar above or below it that is longer
        if other[2] > box[2]:
            top = max(top, int(other[3]) + 2) if other[3] <= box[1] + 2 else top
            bottom = min(bottom, int(other[1]) - 1) if other[1] >= box[3] - 2 else bottom
    left = min(width, int(box[2]) + _EDGE_PX)
    right = min(width, int(left + (_NEAR + _MOST_LENGTH) * size) + 1)
    ink = find_ink(fills, top, bottom, left, right)
    first = _take_last(np.asarray(ink.any(0))[::-1], size, gap=0.5)
    if first is None:
        return None
    count = ink.shape[1]
    return _make_word(ink, slice(None), slice(count - first.stop, count - first.start), (left, top), size)


def _take_last(has_ink: Bools, size: float, gap: float = 0.0) -> slice | None:
    """The last run of rows with ink, if it ends near the end but not at it. ``gap``: blank ones within, in heights."""
    filled = np.flatnonzero(has_ink)
    if not len(filled) or filled[-1] == len(has_ink) - 1 or len(has_ink) - filled[-1] > _NEAR * size + 1:
        return None
    breaks = np.flatnonzero(np.diff(filled) > max(1.0, gap * size))
    start = int(filled[breaks[-1] + 1] if len(breaks) else filled[0])
    return slice(start, int(filled[-1]) + 1) if start > 0 else None


def _make_word(ink: Bools, rows: slice, columns: slice, corner: tuple[int, int], size: float) -> TurnedWord | None:
    """The ink of a part as a word, if it is as high and as long as a figure."""
    own = np.zeros_like(ink)
    own[rows, columns] = ink[rows, columns]
    y, x = np.nonzero(own)
    if not len(x):
        return None
    high, wide = int(np.ptp(y)) + 1, int(np.ptp(x)) + 1
    touches_sides = columns == slice(None) and (x.min() == 0 or x.max() == ink.shape[1] - 1)
    if touches_sides or not _LEAST_HEIGHT * size <= high <= _MOST_HEIGHT * size or wide > _MOST_LENGTH * size:
        return None
    return TurnedWord(np.stack((x + corner[0], y + corner[1]), 1).astype(np.float64), 0.0, 1.0)
