"""Boxes and circles to tick before a line of text, and whether they are: "[x] Sauna", "[ ] Towels".

The reader takes them for letters or for nothing. A mark is an outline about as high as a line, apart from the text
after it. It is ticked if there is a dot in the circle, or ink in the box; a box that is filled, if there is a check
mark in it of the ground's color.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from llava.model.lexical.components import find_components
from llava.model.lexical.flat_fills import Bools, Pixels
from llava.model.lexical.object_finder import Box, share_within

# A page with more lines is no form.
_MOST_LINES = 60
# Where a mark may begin left of a line and how far it may reach into it, and its sides, in heights of the line.
_BEFORE, _WITHIN = 2.8, 1.8
_LEAST_SIDE, _MOST_SIDE, _LEAST_SIDE_PX = 0.5, 1.8, 8
# Ink differs from the ground by this; or, so that blurred edges are none, by half of what the most of it does.
_LEAST_CONTRAST = 60.0
# The shorter of its sides, as a part of the longer one.
_SQUARE = 0.84
# Blank columns between a mark and its text, in heights of the line: less is between letters, more between columns.
_LEAST_GAP, _MOST_GAP = 0.16, 1.6
# An outline's width is at most this part of its side. Within it, this share of ink is a tick, and less than that none.
_MOST_STROKE, _TICKED, _EMPTY = 0.2, 0.1, 0.03
# A dot in a circle covers this share of its own box, which is as wide as high; letters, as in ©, do not.
_DOT_FILL, _DOT_SQUARE = 0.68, 0.7
# A filled box covers this share of its area, and of its corners; a check mark in it, this much.
_FILLED, _CHECK = 0.6, (0.06, 0.4)
# What a mark is read as, before the text, and what a part of it is read as.
_READ_MARK = re.compile(r"^\S{1,2}\s+|^[^\w\s\"'(\[$€£]+\s*")
_READ_PART = re.compile(r"^[^\w\s\"'(\[$€£]+\s*")


def mark_ticks(canvas: Tensor, lines: Sequence[Any]) -> list[Any]:
    """The lines, those with a mark before them beginning with "[x]" or "[ ]". ``canvas``: uint8 [3, H, W]."""
    if not 0 < len(lines) <= _MOST_LINES:
        return list(lines)
    planes = np.ascontiguousarray(canvas.cpu().numpy())
    marks = {i: found for i, line in enumerate(lines) if (found := _find_mark(planes, line)) is not None}
    if len(marks) < 2 and not any(is_ticked for _, is_ticked, _ in marks.values()):
        return list(lines)  # a lone ring or square is a bullet or an icon
    marked = []
    for i, line in enumerate(lines):
        if i in marks:
            _, is_ticked, is_read = marks[i]
            text = (_READ_MARK if is_read else _READ_PART).sub("", line.text, count=1)
            if any(map(str.isalpha, text)):
                line = line._replace(text=f"[{'x' if is_ticked else ' '}] {text}")
        elif len(line.text.strip()) <= 2 and any(share_within(line.box, box) > 0.5 for box, _, _ in marks.values()):
            continue  # the mark itself
        marked.append(line)
    return marked


def _find_mark(planes: Pixels, line: Any) -> tuple[Box, bool, bool] | None:
    """The mark's box, whether it is ticked, and whether the line's box holds it; None if there is none."""
    height, width = planes.shape[1:]
    left, top, right, bottom = line.box
    size = bottom - top
    x0, x1 = max(0, int(left - _BEFORE * size)), min(width, int(min(right, left + (_WITHIN + _MOST_GAP) * size)))
    y0, y1 = max(0, int(top - 0.4 * size)), min(height, int(bottom + 0.4 * size) + 1)
    if x1 - x0 < _LEAST_SIDE_PX or y1 - y0 < _LEAST_SIDE_PX:
        return None
    part = planes[:, y0:y1, x0:x1].astype(np.float64)
    ground = np.median(planes[:, y0:y1, int(left) : int(right) + 1].reshape(3, -1), axis=1)
    away = np.abs(part - ground[:, None, None]).max(0)
    for contrast in (_LEAST_CONTRAST, 0.5 * float(np.percentile(away, 99))):
        found = _find_on(away > contrast, size, left - x0)
        if found is not None:
            box, is_ticked = found
            place = (float(box[0] + x0), float(box[1] + y0), float(box[2] + x0), float(box[3] + y0))
            return place, is_ticked, left < place[2] - 0.3 * (box[2] - box[0])
    return None


def _find_on(ink: Bools, size: float, left: float) -> tuple[tuple[int, int, int, int], bool] | None:
    """The box of the first mark on a part of the canvas, and whether it is ticked. ``left``: where the line begins."""
    parts = find_components(ink)
    for label in range(parts.num_parts):
        own = parts.labels == label
        rows, columns = parts.rows[own], parts.columns[own]
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        sides = box[2] - box[0], box[3] - box[1]
        if min(sides) < max(_LEAST_SIDE_PX, _LEAST_SIDE * size) or max(sides) > _MOST_SIDE * size:
            continue
        if min(sides) < _SQUARE * max(sides) or box[0] == 0 or box[2] > left + _WITHIN * size:
            continue
        is_mark = np.zeros_like(ink)
        is_mark[rows, columns] = True
        state = _judge(is_mark[box[1] : box[3], box[0] : box[2]], ink[box[1] : box[3], box[0] : box[2]])
        if state is not None and _stands_apart(ink, box, size):
            return box, state
    return None


def _judge(is_own: Bools, ink: Bools) -> bool | None:
    """Whether a mark is ticked; None for anything else.

    ``is_own``: the outline in its box. ``ink``: that and what is within it.
    """
    height, width = is_own.shape
    fill = float(is_own.mean())
    corner = max(1, round(0.12 * min(height, width)))
    ends = slice(None, corner), slice(-corner, None)
    corners = [float(is_own[rows, columns].mean()) for rows in ends for columns in ends]
    is_box = sum(each > 0.4 for each in corners) >= 3
    edge = max(2, int(_MOST_STROKE * min(height, width)))
    if not is_box and any(each > 0.6 for each in corners):
        return None
    # Each ray from an end of the box meets the outline within its stroke.
    sides = (is_own[:edge], 0), (is_own[-edge:], 0), (is_own[:, :edge], 1), (is_own[:, -edge:], 1)
    rays = [np.asarray(side.any(axis)) for side, axis in sides]
    middle = slice(round(0.3 * len(rays[0])), round(0.7 * len(rays[0])))
    if not all(ray[middle].mean() > 0.95 for ray in rays):
        return None
    if fill > _FILLED:
        return _has_check(is_own) if is_box else None
    inner = ink[edge + 1 : height - edge - 1, edge + 1 : width - edge - 1]
    if inner.size < 9:
        return None
    share = float(inner.mean())
    if share <= _EMPTY:
        return False
    if is_box:
        return True if share >= _TICKED else None
    y, x = np.nonzero(inner)
    high, wide = int(np.ptp(y)) + 1, int(np.ptp(x)) + 1
    is_dot = len(y) >= _DOT_FILL * high * wide and min(high, wide) >= _DOT_SQUARE * max(high, wide)
    return True if is_dot and share >= _TICKED else None


def _has_check(is_own: Bools) -> bool | None:
    """Whether there is a check mark in a filled box: lowest left of its middle, and high at its right end."""
    inner = ~is_own[1:-1, 1:-1]
    y, x = np.nonzero(inner)
    if not _CHECK[0] < inner.mean() < _CHECK[1]:
        return None
    place = (x[y >= y.max() - 1].mean() - x.min()) / max(1, np.ptp(x))
    end = (y[x >= x.max() - 1].mean() - y.min()) / max(1, np.ptp(y))
    return True if 0.15 < place < 0.65 and end < 0.4 else None


def _stands_apart(ink: Bools, box: tuple[int, int, int, int], size: float) -> bool:
    """Whether there is ground left of a mark, and a gap between it and the text right of it."""
    rows = slice(box[1], box[3])
    before = ink[rows, max(0, box[0] - int(0.5 * size)) : box[0]]
    after = np.flatnonzero(ink[rows, box[2] :].any(0))
    return not before.any() and len(after) > 0 and _LEAST_GAP * size < after[0] <= _MOST_GAP * size
