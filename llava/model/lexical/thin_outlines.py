"""Shapes that are drawn as thin lines around the page's own colour, named by what the line runs around.

A line of a pixel or two has no flat fill, as its pixels are all blurred; what it runs around has. A line counts as a
shape's outline only if nothing of it is within: grids, letters, frames of plots and drawings are made of lines as well.

Shapes: H and W pixels, N points (x, y).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llava.model.lexical.components import find_components
from llava.model.lexical.flat_fills import Bools, Fills
from llava.model.lexical.flat_shapes import (
    FlatShape,
    count_sides,
    find_hull,
    find_outside,
    measure_area,
    name_outline,
)
from llava.model.lexical.hues import name_color
from llava.model.lexical.object_finder import Box, measure_overlap
from llava.model.lexical.second_look import covers_middle

# With more lines of text it is a page, and with more parts that are drawn a drawing.
_MOST_TEXTS, _MOST_SHAPES = 15, 24
# The sides of a shape are at least so long, and such shares of the image's; a rectangle that is larger is a frame.
_LEAST_PX, _LEAST_SHARE, _FRAME_SHARE = 20, 0.04, 0.8
# Lines cover at most this share of an image, and one of what it runs around, and is so broad.
_MOST_DRAWN, _MOST_COVERED, _MOST_STROKE_PX = 0.25, 0.45, 6.0
# So much of a line is at the outline, and of what is within belongs to the page or to other shapes.
_LEAST_AT_EDGE, _LEAST_PAGE = 0.95, 0.9
# A rectangle covers such a share of its hull; with the ticks of an axis it does not.
_STRAIGHT = 0.985
# This share of all that is drawn is shapes that have a name.
_LEAST_NAMED = 0.7
# Of a line's pixels, these are its colour: they differ the most from the page.
_FULL_COLOUR = 0.85


def find_outlines(fills: Fills, texts: Sequence[Box], shapes: Sequence[FlatShape]) -> list[FlatShape]:
    """The shapes that lines on the page run around; none where there is much else on the image.

    Args:
        texts: the boxes of lines of text, which shapes do not hold.
        shapes: what ``find_flat_shapes`` found.
    """
    if len(texts) > _MOST_TEXTS:
        return []
    shapes = [shape for shape in shapes if shape.kind]
    is_drawn_HW = fills.labels != fills.grounds[0]
    for left, top, right, bottom in (map(int, text) for text in texts):
        is_drawn_HW[max(0, top) : bottom + 1, max(0, left) : right + 1] = False
    for shape in shapes:
        left, top, right, bottom = map(int, shape.box)
        is_drawn_HW[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
    num_drawn = int(is_drawn_HW.sum())
    if not num_drawn or num_drawn > _MOST_DRAWN * is_drawn_HW.size:
        return []
    found: list[FlatShape] = []
    for points_N2 in _part(is_drawn_HW):
        low, high = points_N2.min(0), points_N2.max(0) + 1
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        if count_sides(box, is_drawn_HW.shape) or any(measure_overlap(box, shape.box) > 0.5 for shape in shapes):
            continue
        kind = _name(points_N2, is_drawn_HW)
        is_boxed = kind in ("square", "rectangle")
        if not kind or (
            is_boxed and (any(covers_middle(box, text) for text in texts) or _is_frame(box, is_drawn_HW.shape))
        ):
            continue
        found.append(FlatShape(kind, _find_colour(fills, points_N2), box, len(points_N2)))
    is_much = sum(shape.area for shape in found) >= _LEAST_NAMED * num_drawn
    return found if is_much and len(found) + len(shapes) <= _MOST_SHAPES else []


def _part(is_drawn_HW: Bools) -> Iterator[npt.NDArray[np.int64]]:
    """The pixels [N, 2] of each connected part that is large enough; none where there are many."""
    height, width = is_drawn_HW.shape
    parts = find_components(is_drawn_HW)
    least = max(_LEAST_PX, _LEAST_SHARE * min(height, width))
    counts = np.bincount(parts.labels, minlength=parts.num_parts)
    for part in np.flatnonzero(counts >= 2 * least)[: 2 * _MOST_SHAPES]:
        is_part = parts.labels == part
        points_N2 = np.stack((parts.columns[is_part], parts.rows[is_part]), 1)
        if min(np.ptp(points_N2, axis=0)) >= least:
            yield points_N2


def _name(points_N2: npt.NDArray[np.int64], is_drawn_HW: Bools) -> str:
    """The kind of shape that a line runs around; "" if it is none, or if there is more within."""
    low, high = points_N2.min(0), points_N2.max(0)
    line_HW = np.zeros((high[1] - low[1] + 3, high[0] - low[0] + 3), dtype=bool)
    line_HW[points_N2[:, 1] - low[1] + 1, points_N2[:, 0] - low[0] + 1] = True
    whole_HW = ~find_outside(_close_corners(line_HW))
    num_line, num_whole = int(line_HW.sum()), int(whole_HW.sum())
    length = float((whole_HW & ~_erode(whole_HW)).sum())
    stroke = num_line / max(length, 1.0)
    if num_line > _MOST_COVERED * num_whole or stroke > _MOST_STROKE_PX:
        return ""
    inner_HW = whole_HW
    for _ in range(int(np.ceil(1.5 * stroke)) + 1):
        inner_HW = _erode(inner_HW)
    within_HW = np.pad(is_drawn_HW[low[1] : high[1] + 1, low[0] : high[0] + 1], 1) & whole_HW & ~line_HW
    if (line_HW & inner_HW).sum() > (1 - _LEAST_AT_EDGE) * num_line or within_HW.sum() > (1 - _LEAST_PAGE) * num_line:
        return ""
    y, x = np.nonzero(whole_HW)
    kind = name_outline(np.stack((x, y), 1), np.zeros_like(whole_HW))
    is_straight = num_whole >= _STRAIGHT * measure_area(find_hull(whole_HW))
    return kind if is_straight or kind not in ("square", "rectangle") else ""


def _close_corners(line_HW: Bools) -> Bools:
    """A line with a pixel more wherever it goes on across a corner, so that nothing passes between."""
    closed_HW = line_HW.copy()
    closed_HW[1:, :-1] |= line_HW[:-1, :-1] & line_HW[1:, 1:]
    closed_HW[1:, 1:] |= line_HW[:-1, 1:] & line_HW[1:, :-1]
    return closed_HW


def _erode(mask_HW: Bools) -> Bools:
    """The pixels of a mask whose neighbours are all of it."""
    padded = np.pad(mask_HW, 1)
    left = padded[:, :-2] & padded[:, 1:-1] & padded[:, 2:]
    eroded: Bools = left[:-2] & left[1:-1] & left[2:]
    return eroded


def _is_frame(box: Box, shape: tuple[int, ...]) -> bool:
    return box[2] - box[0] > _FRAME_SHARE * shape[1] and box[3] - box[1] > _FRAME_SHARE * shape[0]


def _find_colour(fills: Fills, points_N2: npt.NDArray[np.int64]) -> str:
    """The name of a line's colour, without the pixels at which it is blurred into the page."""
    colours_N3 = fills.planes[:, points_N2[:, 1], points_N2[:, 0]].T.astype(np.float64)
    apart_N = np.linalg.norm(colours_N3 - fills.colours[fills.grounds[0]], axis=1)
    return name_color(colours_N3[apart_N >= _FULL_COLOUR * np.quantile(apart_N, 0.95)].mean(0))[0]
