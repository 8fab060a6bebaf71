"""Rows of dots that lead from a name to its value, taken out of the lines of text that they were found in.

A line of dots is lower than its letters, so a name with its dots is found too low and read as something else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llava.model.lexical.line_finder import TextLine

# A leader has so many dots; each is at most so high and broad, as a part of what a line's capitals are taken for.
_LEAST_DOTS, _DOT = 6, 0.75
# From most dots to the next it is equally far, and most are equally broad, but for so much of that or so many px.
_MOSTLY, _UNEVEN, _UNEVEN_PX = 0.7, 0.25, 2.1
# Ink differs so much from its ground, and dots on one height are so level.
_INK, _LEVEL_PX = 40.0, 1.5
# How far above the baseline letters are looked for, and how far below, as parts of the height that was found.
_ABOVE, _BELOW = 2.6, 0.9
# What is left of a line is so broad at least, as a part of its height.
_LEAST_BREADTH = 0.3
# Two lines are one if they share so much of the narrower one.
_SAME = 0.5


def part_at_leaders(planes_3HW: npt.NDArray[np.float32], lines: Sequence[TextLine]) -> list[TextLine]:
    """The lines, those with a leader as the texts at its ends, as high as these are; none of them twice."""
    parted = [(line, list(_part(planes_3HW, line))) for line in lines]
    if all(parts == [line] for line, parts in parted):
        return list(lines)
    cut = [part for line, parts in parted if parts != [line] for part in parts]
    whole = [line for line, parts in parted if parts == [line] and not any(_are_same(line, part) for part in cut)]
    kept: list[TextLine] = []
    for part in cut:
        if not any(_are_same(part, other) for other in kept):
            kept.append(part)
    return sorted([*whole, *kept], key=lambda line: (line.baseline, line.left))


def _part(planes_3HW: npt.NDArray[np.float32], line: TextLine) -> Iterator[TextLine]:
    left, right = int(max(line.left, 0)), int(min(line.right, planes_3HW.shape[2]))
    top, bottom = int(line.baseline - _ABOVE * line.capital), int(line.baseline + _BELOW * line.capital) + 1
    top, bottom = max(top, 0), min(bottom, planes_3HW.shape[1])
    strip = planes_3HW[:, top:bottom, left:right]
    if abs(line.slope) > 0.02 or strip.shape[2] < 4 * line.capital or strip.shape[1] < 4:
        yield line
        return
    grey = strip[1]
    ground = float(np.median(grey))
    is_ink = np.abs(grey - ground) > _INK
    found = _find_leader(is_ink, line.capital)
    if found is None:
        yield line
        return
    (first, last), base = found
    height = line.baseline - top
    for start, end in ((0, first), (last, is_ink.shape[1])):
        part = is_ink[:, start:end]
        columns = np.flatnonzero(part[max(0, int(base - height)) : base].any(0))
        if not len(columns):
            continue
        rows = np.flatnonzero(part[:base].any(1))
        # Rows of ink that reach down to the baseline: what stands higher is the line above.
        gaps = np.flatnonzero(np.diff(rows) > max(2.0, 0.35 * line.capital))
        upper = rows[gaps[-1] + 1] if len(gaps) else rows[0]
        capital = float(base - upper)
        if columns[-1] + 1 - columns[0] >= _LEAST_BREADTH * line.capital and capital > 0.4 * line.capital:
            yield line._replace(
                left=float(left + start + columns[0]),
                right=float(left + start + columns[-1] + 1),
                baseline=float(top + base),
                slope=0.0,
                capital=capital,
            )


def _find_leader(is_ink: npt.NDArray[np.bool_], capital: float) -> tuple[tuple[int, int], int] | None:
    """From where to where the longest even row of dots reaches, columns, and the row below it; None without one."""
    columns = is_ink.any(0)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], columns, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    if len(starts) < _LEAST_DOTS:
        return None
    best: list[tuple[int, int, int, int]] = []
    dots: list[tuple[int, int, int, int]] = []  # left, right, top, bottom
    height = len(is_ink)
    tops = np.minimum.reduceat(np.where(columns, is_ink.argmax(0), height), starts)
    bottoms = height - np.minimum.reduceat(np.where(columns, is_ink[::-1].argmax(0), height), starts)
    for dot in zip(starts.tolist(), ends.tolist(), tops.tolist(), bottoms.tolist(), strict=True):
        if dot[3] - dot[2] > max(3.0, _DOT * capital) or (dots and not _is_level(dots[-1], dot)):
            dots = []
        if dot[3] - dot[2] <= max(3.0, _DOT * capital):
            dots.append(dot)
        if len(dots) > len(best):
            best = list(dots)
    if len(best) < _LEAST_DOTS or not _are_even(best):
        return None
    return (best[0][0], best[-1][1]), int(np.median([dot[3] for dot in best]))


def _is_level(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return abs(one[2] + one[3] - other[2] - other[3]) <= 2 * _LEVEL_PX


def _are_even(dots: Sequence[tuple[int, int, int, int]]) -> bool:
    """Whether most dots are as far from the next one as the others are, and of one breadth."""
    steps = np.diff([dot[0] for dot in dots])
    pitch, breadth = float(np.median(steps)), float(np.median([dot[1] - dot[0] for dot in dots]))
    are_near = np.abs(steps - pitch) <= max(_UNEVEN_PX, _UNEVEN * pitch)
    are_alike = [abs(dot[1] - dot[0] - breadth) <= max(_UNEVEN_PX, _UNEVEN * breadth) for dot in dots]
    return float(are_near.mean()) >= _MOSTLY and float(np.mean(are_alike)) >= _MOSTLY


def _are_same(one: TextLine, other: TextLine) -> bool:
    """Whether two lines are of one text: side by side on one height they are not."""
    shared = min(one.right, other.right) - max(one.left, other.left)
    is_level = abs(one.baseline - one.capital / 2 - other.baseline + other.capital / 2) < 0.6 * max(
        one.capital, other.capital
    )
    return is_level and shared > _SAME * min(one.right - one.left, other.right - other.left)
