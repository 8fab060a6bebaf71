"""Cells of a table that the finder of lines missed, such as a figure alone: what stands where a row and a column meet.

The finder takes single figures for specks now and then, and a table shows where to look for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llava.model.lexical.ink import tell_apart
from llava.model.lexical.object_finder import Box

# A table has so many rows of at least so many cells that were found, and rows of fewer between them; a page with more
# lines is none.
_LEAST_ROWS, _LEAST_CELLS, _MOST_LINES = 3, 2, 120
# A cell is so high, as a part of a line's box, and at most so wide.
_LEAST_HEIGHT, _MOST_HEIGHT, _MOST_WIDTH = 0.3, 1.05, 8.0
# It stands below another cell, or this much beside it.
_BESIDE = 0.6
_LEAST_INK_PX = 6
# A row or column of pixels with more ink than this is the edge of a cell.
_RULE_SHARE = 0.9


def find_missed_cells(planes: npt.NDArray[Any], boxes: Sequence[Box]) -> list[Box]:
    """The boxes of the ink of cells that are missing among the boxes of lines, on an image [3, H, W] of 0 to 255."""
    grouped = _group(boxes)
    full = [i for i, row in enumerate(grouped) if len(row) >= _LEAST_CELLS]
    if len(full) < _LEAST_ROWS or len(boxes) > _MOST_LINES:
        return []
    rows = grouped[full[0] : full[-1] + 1]
    height, width = planes.shape[1:]
    found: list[Box] = []
    for row in rows:
        size = float(np.median([box[3] - box[1] for box in row]))
        top = max(0, int(min(box[1] for box in row) - 0.1 * size))
        bottom = min(height, int(max(box[3] for box in row) + 0.1 * size))
        places = {
            (max(0, int(box[0] - _BESIDE * size)), min(width, int(box[2] + _BESIDE * size) + 1))
            for i in full
            for box in grouped[i]
        }
        taken = [(box[0], box[2]) for box in row]
        for left, right in sorted(places):
            if any(x0 < right and x1 > left for x0, x1 in taken):
                continue
            box = _find_cell(planes[:, top:bottom, left:right], size)
            if box is not None:
                found.append((box[0] + left, box[1] + top, box[2] + left, box[3] + top))
                taken.append((found[-1][0], found[-1][2]))
    return found


def _group(boxes: Sequence[Box]) -> list[list[Box]]:
    """The boxes by rows."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box[1] + box[3]):
        if rows and rows[-1][0][1] < (box[1] + box[3]) / 2 < rows[-1][0][3]:
            rows[-1].append(box)
        else:
            rows.append([box])
    return rows


def _find_cell(part: npt.NDArray[Any], size: float) -> Box | None:
    """The box of the ink on a part of an image, if it may be a cell's, with ground on its left and right."""
    if part.size == 0:
        return None
    ink, _ = tell_apart(part, part)
    ink[:, ink.mean(0) > _RULE_SHARE] = False
    ink[ink.mean(1) > _RULE_SHARE] = False
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if int(ink.sum()) < _LEAST_INK_PX:
        return None
    box = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    is_high = _LEAST_HEIGHT * size < box[3] - box[1] < _MOST_HEIGHT * size
    is_apart = columns[0] > 1 and columns[-1] < part.shape[2] - 2
    return box if is_high and is_apart and box[2] - box[0] <= _MOST_WIDTH * size else None
