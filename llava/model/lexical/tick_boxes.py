"""Boxes and circles to tick before a line of text, and whether they are: "[x] Sauna", "[ ] Towels".

The reader takes them for letters or for nothing. A mark is an outline about as high as a line, apart from the text
after it, or a check mark in a filled one. A box is ticked by a check mark or a cross, and a circle by a check mark or a
dot; what has a letter, a sign or a drawing in it is a button or an icon. Either is also ticked by being filled, if one
of its size above, below or beside it is empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from llava.model.lexical.components import find_components
from llava.model.lexical.flat_fills import Bools, Pixels
from llava.model.lexical.object_finder import Box, share_within

# A page with more lines is no form.
_MOST_LINES = 60
# Where a mark may begin left of a line and how far it may reach into it, and its sides, in heights of the line; with a
# tick that reaches out of it, so many times as long.
_BEFORE, _WITHIN = 2.8, 1.8
_LEAST_SIDE, _MOST_SIDE, _LEAST_SIDE_PX = 0.5, 1.8, 8
_WITH_TICK = 1.6
# Ink differs from the ground by this; or, so that blurred edges are none, by half of what the most of it does; or, as
# light gray outlines do, by this.
_LEAST_CONTRAST, _FAINT = 60.0, 24.0
# The shorter of its sides, as a part of the longer one.
_SQUARE = 0.84
# Blank columns between a mark and its text, in heights of the line: less is between letters, more between columns.
_LEAST_GAP, _MOST_GAP = 0.16, 1.6
# The letter O has the height of the letters after it, but for this part, and is nearer to them than this.
_LIKE_LETTER, _LETTER_GAP = 0.1, 0.6
# An outline's width is at most this part of its side. Within it, this share of ink is none, and more than that share is
# no tick.
_MOST_STROKE, _EMPTY, _FILLED = 0.2, 0.03, 0.9
# A straight edge of an outline has this share of its side.
_EDGE = 0.6
# A dot in a circle covers this share of its own box, which is as wide as high; letters, as in ©, do not.
_DOT_FILL, _DOT_SQUARE = 0.68, 0.7
# A tick's sides, as a part of what is within its outline, and as a part of each other; a check mark's share of its box.
_TICK_SIDE, _TICK_SQUARE, _CHECK_FILL = 0.35, 0.5, 0.6
# Of a cross, so much is this near to its diagonals, as a part of its sides.
_NEAR_DIAGONALS, _ON_DIAGONALS = 0.2, 0.88
# Filled marks of one page have one color, and a filled mark and an empty one this much of each other's sides.
_SAME_COLOUR, _SAME_SIDE = 40.0, 0.85
# What a mark is read as, before the text, and what a part of it is read as.
_READ_MARK = re.compile(r"^\S{1,2}\s+|^[^\w\s\"'(\[$€£]+\s*")
_READ_PART = re.compile(r"^[^\w\s\"'(\[$€£]+\s*")

State = Literal["ticked", "empty", "filled"]


class Mark(NamedTuple):
    """A box or a circle before a line.

    Attributes:
        box: where it is on the canvas.
        state: a "filled" one has no tick in it.
        is_read: the line's box holds it.
        colour: of its ink, 0 to 255.
    """

    box: Box
    state: State
    is_round: bool
    is_read: bool
    colour: tuple[float, ...]


class _Form(NamedTuple):
    """What a mark is by its pixels alone, in its box on a part of the canvas."""

    box: tuple[int, int, int, int]
    state: State
    is_round: bool


def find_marks(canvas: Tensor, lines: Sequence[Any]) -> dict[int, Mark]:
    """The marks by the indices of the lines that they stand before. ``canvas``: uint8 [3, H, W]."""
    if not 0 < len(lines) <= _MOST_LINES:
        return {}
    planes = np.ascontiguousarray(canvas.cpu().numpy())
    found = {i: mark for i, line in enumerate(lines) if (mark := _find_mark(planes, line)) is not None}
    filled = [mark for mark in found.values() if mark.state == "filled"]
    is_of_one_colour = bool(filled) and float(np.ptp([mark.colour for mark in filled], axis=0).max()) <= _SAME_COLOUR
    for i, mark in [*found.items()]:
        if mark.state == "filled":
            if is_of_one_colour and any(_are_choices(mark, other) for other in found.values()):
                found[i] = mark._replace(state="ticked")
            else:
                del found[i]
    if len(found) < 2 and all(mark.state == "empty" for mark in found.values()):
        return {}  # a lone ring or square is a bullet or an icon
    return found


def mark_ticks(lines: Sequence[Any], marks: Mapping[int, Mark]) -> list[Any]:
    """The lines, those with a mark before them beginning with "[x]" or "[ ]"."""
    marked = []
    for i, line in enumerate(lines):
        if i in marks:
            text = (_READ_MARK if marks[i].is_read else _READ_PART).sub("", line.text, count=1)
            if any(map(str.isalpha, text)):
                line = line._replace(text=f"[{'x' if marks[i].state == 'ticked' else ' '}] {text}")
        elif len(line.text.strip()) <= 2 and any(share_within(line.box, mark.box) > 0.5 for mark in marks.values()):
            continue  # the mark itself
        marked.append(line)
    return marked


def _are_choices(mark: Mark, other: Mark) -> bool:
    """Whether the other mark is an empty one of that form and size, above, below or beside it."""
    side, length = mark.box[2] - mark.box[0], other.box[2] - other.box[0]
    is_alike = (
        other.state == "empty"
        and other.is_round == mark.is_round
        and min(side, length) > _SAME_SIDE * max(side, length)
    )
    return is_alike and any(abs(mark.box[axis] - other.box[axis]) < 0.4 * side for axis in (0, 1))


def _find_mark(planes: Pixels, line: Any) -> Mark | None:
    """The mark before a line; None if there is none."""
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
    for contrast in (_LEAST_CONTRAST, 0.5 * float(np.percentile(away, 99)), _FAINT):
        form = _find_on(away > contrast, part, size, left - x0)
        if form is not None:
            (a, b, c, d), state, is_round = form
            colour = tuple(np.median(part[:, b:d, a:c][:, away[b:d, a:c] > contrast], axis=1).tolist())
            place = (float(a + x0), float(b + y0), float(c + x0), float(d + y0))
            return Mark(place, state, is_round, left < place[2] - 0.3 * (c - a), colour)
    return None


def _find_on(ink: Bools, part: npt.NDArray[np.float64], size: float, left: float) -> _Form | None:
    """The first mark on a part of the canvas [3, H, W]. ``left``: where the line begins."""
    parts = find_components(ink)
    for label in range(parts.num_parts):
        own = parts.labels == label
        rows, columns = parts.rows[own], parts.columns[own]
        whole = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        if whole[0] == 0 or max(whole[2] - whole[0], whole[3] - whole[1]) > _WITH_TICK * _MOST_SIDE * size:
            continue
        is_own = np.zeros_like(ink)
        is_own[rows, columns] = True
        for box in dict.fromkeys((whole, _find_outline(is_own, whole))):
            sides = box[2] - box[0], box[3] - box[1]
            if min(sides) < max(_LEAST_SIDE_PX, _LEAST_SIDE * size) or max(sides) > _MOST_SIDE * size:
                continue
            if min(sides) < _SQUARE * max(sides) or box[2] > left + _WITHIN * size:
                continue
            within = slice(box[1], box[3]), slice(box[0], box[2])
            found = _judge(is_own[within], ink[within], part[:, within[0], within[1]])
            if found is not None and _stands_apart(ink, whole, size):
                state, is_round = found
                if not is_round or (box == whole and not (state == "empty" and _is_letter(ink, box, size))):
                    return _Form(box, state, is_round)
    return None


def _find_outline(is_own: Bools, whole: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The box between the first and the last straight edges of a part, out of which a tick may reach."""
    x0, y0, x1, y1 = whole
    own = is_own[y0:y1, x0:x1]
    edges = []
    for axis in (1, 0):
        counts = own.sum(axis)
        edges.append(np.flatnonzero(counts > _EDGE * counts.max()))
    rows, columns = edges
    return x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1


def _judge(is_own: Bools, ink: Bools, part: npt.NDArray[np.float64]) -> tuple[State, bool] | None:
    """Whether a mark is ticked and whether it is round; None for anything else.

    ``is_own``: the outline in its box. ``ink``: that and what is within it. ``part``: its pixels [3, H, W].
    """
    height, width = is_own.shape
    corner = max(1, round(0.12 * min(height, width)))
    ends = slice(None, corner), slice(-corner, None)
    corners = [float(is_own[rows, columns].mean()) for rows in ends for columns in ends]
    is_round = sum(each > 0.25 for each in corners) < 3
    edge = max(2, int(_MOST_STROKE * min(height, width)))
    if is_round and any(each > 0.6 for each in corners):
        return None
    # Each ray from an end of the box meets the outline within its stroke.
    sides = (is_own[:edge], 0), (is_own[-edge:], 0), (is_own[:, :edge], 1), (is_own[:, -edge:], 1)
    rays = [np.asarray(side.any(axis)) for side, axis in sides]
    middle = slice(round(0.3 * len(rays[0])), round(0.7 * len(rays[0])))
    if not all(ray[middle].mean() > 0.95 for ray in rays):
        return None
    within = slice(edge + 1, height - edge - 1), slice(edge + 1, width - edge - 1)
    inner = ink[within]
    if inner.size < 9:
        return None
    if inner.mean() <= _EMPTY:
        return "empty", is_round
    if inner.mean() <= _FILLED and (_is_check(inner) or (_is_dot(inner) if is_round else _is_cross(inner))):
        return "ticked", is_round
    return _judge_filled(is_own, part, is_round) if is_own[within].mean() > 0.5 else None


def _judge_filled(is_own: Bools, part: npt.NDArray[np.float64], is_round: bool) -> tuple[State, bool] | None:
    """``_judge`` of a mark that is filled, in which a tick differs from the fill, whatever the ground is."""
    away = np.abs(part - np.median(part[:, is_own], axis=1)[:, None, None]).max(0)
    edge = max(1, round(0.1 * min(is_own.shape)))
    away = away[edge:-edge, edge:-edge]
    if is_round:  # without the ground beside it
        y, x = (np.linspace(-1, 1, count) for count in away.shape)
        away = np.where(np.hypot(y[:, None], x) < 0.9, away, 0)
    if away.max() < _LEAST_CONTRAST:
        return "filled", is_round
    inner = away > 0.5 * away.max()
    if _is_check(inner):
        return "ticked", is_round
    return ("filled", True) if is_round and _is_dot(inner) else None


def _is_dot(inner: Bools) -> bool:
    """Whether what is within a circle is a disc in its middle."""
    y, x = np.nonzero(inner)
    high, wide = int(np.ptp(y)) + 1, int(np.ptp(x)) + 1
    is_disc = len(y) >= _DOT_FILL * high * wide and min(high, wide) >= _DOT_SQUARE * max(high, wide)
    is_disc = is_disc and bool(inner[inner.shape[0] // 2, inner.shape[1] // 2])
    return is_disc and all(
        abs(each.min() + each.max() + 1 - length) < 0.3 * length
        for each, length in zip((y, x), inner.shape, strict=True)
    )


def _frame_tick(inner: Bools) -> tuple[Bools, npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """What is within an outline, cut to its own box, and the places in that from 0 to 1; None if it is too small."""
    y, x = np.nonzero(inner)
    high, wide = int(np.ptp(y)) + 1, int(np.ptp(x)) + 1
    if min(high, wide) < max(3.0, _TICK_SIDE * min(inner.shape), _TICK_SQUARE * max(high, wide)):
        return None
    cut = inner[y.min() : y.min() + high, x.min() : x.min() + wide]
    return cut, (y - y.min() + 0.5) / high, (x - x.min() + 0.5) / wide


def _is_cross(inner: Bools) -> bool:
    """Whether there is a cross from corner to corner."""
    framed = _frame_tick(inner)
    if framed is None:
        return False
    _, y, x = framed
    near = np.minimum(np.abs(x - y), np.abs(x + y - 1)) < _NEAR_DIAGONALS
    ends = [(abs(x - a) < 0.3) & (abs(y - b) < 0.3) for a in (0, 1) for b in (0, 1)]
    middles = [(abs(x - a) < 0.1) & (abs(y - b) < 0.1) for a, b in ((0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5))]
    return bool(near.mean() > _ON_DIAGONALS) and all(map(np.any, ends)) and not any(map(np.any, middles))


def _is_check(inner: Bools) -> bool:
    """Whether there is a check mark: lowest left of its middle, from where it rises to its right end, less to the left.

    On the flap of an envelope both arms are as high.
    """
    framed = _frame_tick(inner)
    if framed is None:
        return False
    cut, y, x = framed
    lowest = x[y >= y.max() - 0.1].mean()
    first, last = y[x <= x.min() + 0.08].mean(), y[x >= x.max() - 0.08].mean()
    runs = np.diff(cut.astype(np.int8), axis=0, prepend=0).clip(0).sum(0)
    return bool(
        0.15 < lowest < 0.65
        and last < min(0.4, first - 0.2)
        and first < 0.9
        and cut.mean() < _CHECK_FILL
        and (runs == 1).mean() > 0.8
    )


def _stands_apart(ink: Bools, box: tuple[int, int, int, int], size: float) -> bool:
    """Whether there is ground left of a mark, and a gap between it and the text right of it."""
    rows = slice(box[1], box[3])
    before = ink[rows, max(0, box[0] - int(0.5 * size)) : box[0]]
    after = np.flatnonzero(ink[rows, box[2] :].any(0))
    return not before.any() and len(after) > 0 and _LEAST_GAP * size < after[0] <= _MOST_GAP * size


def _is_letter(ink: Bools, box: tuple[int, int, int, int], size: float) -> bool:
    """Whether a ring is the letter O: as high as the first letter after it, on its line, and near to it."""
    used = np.asarray(ink[:, box[2] :].any(0))
    first = int(np.argmax(used))
    end = first + int(np.argmin(np.append(used[first:], False)))
    rows = np.flatnonzero(ink[:, box[2] + first : box[2] + end].any(1))
    off = max(abs(int(rows[0]) - box[1]), abs(int(rows[-1]) + 1 - box[3]))
    return first < _LETTER_GAP * size and off <= max(1.0, _LIKE_LETTER * (box[3] - box[1]))
