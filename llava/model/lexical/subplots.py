"""Parts an image of several plots at the blank between them, so that each is read by its own axis.

A blank within one chart, as between two bars without a frame, parts nothing: each part has to have a scale of its own
or be a pie, and its chart has to have names and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from llava.model.lexical.flat_fills import Fills, find_fills
from llava.model.lexical.line_chart_reading import find_value_ticks
from llava.model.lexical.object_finder import Box, share_within
from llava.model.lexical.pie_finder import find_pie

# A blank is at least so broad, as a share of the image and in px, and its middle lies within this share of the middle.
_LEAST_GAP, _LEAST_GAP_PX, _OFF_MIDDLE = 0.008, 4, 0.25
_LEAST_SIDE_PX, _MOST_DEPTH = 96, 2


class Plot(NamedTuple):
    """A part of an image that holds a plot: where it is, its pixels, and the lines and objects in it, placed there."""

    box: Box
    canvas: Tensor
    lines: list[Any]
    objects: list[Any]


def part_plots(
    canvas: Tensor, lines: Sequence[Any], objects: Sequence[Any], fills: Fills | None = None, depth: int = 0
) -> list[Plot]:
    """The plots of a canvas, uint8 [3, H, W], in reading order; [] unless there are at least two.

    ``fills``: of the canvas, if they are known.
    """
    height, width = canvas.shape[1:]
    if depth == _MOST_DEPTH or not lines or min(height, width) < _LEAST_SIDE_PX:
        return []
    fills = fills or find_fills(canvas)
    if fills is None:
        return []
    for axis in (1, 0):
        gap = _find_gap(fills, [line.box for line in lines], axis)
        if gap is None:
            continue
        boxes: list[Box] = [(0, 0, gap, height), (gap, 0, width, height)]
        if axis == 0:
            boxes = [(0, 0, width, gap), (0, gap, width, height)]
        halves = [_cut(canvas, box, lines, objects) for box in boxes]
        if all(min(half.canvas.shape[1:]) >= _LEAST_SIDE_PX and _may_be_plot(half) for half in halves):
            return [plot for half in halves for plot in _part_again(half, depth + 1)]
    return []


def _part_again(half: Plot, depth: int) -> list[Plot]:
    left, top = half.box[:2]
    parts = part_plots(half.canvas, half.lines, half.objects, depth=depth)
    return [part._replace(box=_move(part.box, -left, -top)) for part in parts] or [half]


def _find_gap(fills: Fills, texts: Sequence[Box], axis: int) -> int | None:
    """The middle of the broadest blank across an image, near its middle; lines of text that cross it aside.

    ``axis``: 1 for a blank between columns, 0 between rows.
    """
    is_drawn_HW = fills.labels != fills.grounds[0]
    if axis == 1:  # a title may stand over several plots
        middle = is_drawn_HW.shape[1] / 2
        for left, top, right, bottom in texts:
            if left < middle < right:
                is_drawn_HW[max(0, int(top) - 2) : int(bottom) + 3, max(0, int(left) - 2) : int(right) + 3] = False
    is_blank: npt.NDArray[np.bool_] = ~is_drawn_HW.any(1 - axis)
    length = len(is_blank)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_blank, [False])).astype(np.int8)))
    gaps = [(int(end - start), int(start + end) // 2) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    least = max(_LEAST_GAP_PX, _LEAST_GAP * length)
    near = [gap for gap in gaps if gap[0] >= least and abs(gap[1] - length / 2) <= _OFF_MIDDLE * length]
    return max(near)[1] if near else None


def _cut(canvas: Tensor, box: Box, lines: Sequence[Any], objects: Sequence[Any]) -> Plot:
    left, top, right, bottom = map(int, box)
    held = [[each for each in seen if share_within(each.box, box) > 0.9] for seen in (lines, objects)]
    moved = [[each._replace(box=_move(each.box, left, top)) for each in seen] for seen in held]
    return Plot(box, canvas[:, top:bottom, left:right].contiguous(), moved[0], moved[1])


def _move(box: Box, left: float, top: float) -> Box:
    return box[0] - left, box[1] - top, box[2] - left, box[3] - top


def _may_be_plot(half: Plot) -> bool:
    """Whether a part has a scale of its own at its left, or is a pie."""
    found = find_value_ticks(half.lines)
    if found is not None and len(found[1]) > 2:
        return min(half.lines[i].box[0] for i in found[1]) < 0.3 * half.canvas.shape[2]
    fills = find_fills(half.canvas)
    return fills is not None and find_pie(fills) is not None
