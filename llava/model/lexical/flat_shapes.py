"""Shapes of one flat fill on a flat ground, named by their outlines: exact at any size, turned or not.

The finder's network names what it has seen the like of; a circle that fills half of an image it takes for something
else. A flat fill's pixels are known, so its convex hull, its holes and the distance of its outline from its middle tell
what it is. What they do not tell is left to the network.

Shapes: H and W pixels, N points (x, y), A angles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llava.model.lexical.components import find_components
from llava.model.lexical.flat_fills import Fills, Labels
from llava.model.lexical.hues import name_color
from llava.model.lexical.object_finder import Box, Drawn, measure_overlap, share_area, share_within

Floats = npt.NDArray[np.float64]

# A shape has at least so many pixels on a side, and covers this share of the image; more of them are a texture.
_LEAST_PX, _LEAST_SHARE, _MOST_SHAPES = 12, 4e-4, 24
# They are first looked for on an image that is about so high or broad.
_SEARCHED_PX = 320
# With more lines of text it is a page, and so is what has more than a few lines on it. Where they are lower than this
# share of the image, their pixels are no shape's.
_MOST_TEXTS, _MOST_WITHIN, _LARGE_TEXT, _TEXT = 15, 3, 0.3, -2
# This share of what lies around a shape of its own is of one fill, and this share of all that is drawn is shapes that
# have a name, blurred edges aside. Clip art has neither.
_LEAST_ALONE, _LEAST_NAMED = 0.93, 0.5
# A word covers this share of the boxes of its letters; what lies within a shape to such a share is a part of it.
_MOST_TEXT, _LEAST_WITHIN = 0.35, 0.7
# How far from its outline that is looked at, px.
_AROUND_PX = 4
# A convex fill covers this share of its hull, and a hull with so many corners this share of the polygon around it that
# has as many; a circle covers .60 (three), .79, .86 and .91 (six).
_STAIRS = 0.35  # px, by which the hull of a slanted edge's pixels lies outside of it
_CONVEX, _CORNERS = 0.94, {3: 0.87, 4: 0.925, 5: 0.945, 6: 0.95}
# A circle, and a pentagon or hexagon, is at most so many times as broad along one direction as along another.
_ROUND, _REGULAR = 1.12, 1.25
# Sides and axes that differ by less are equal; right angles are off by less than so many degrees.
_EQUAL, _RIGHT_DEGREES = 1.15, 8.0
# A ring's hole covers this share of it; with a larger one it is the outline of what its outer edge is.
_LEAST_HOLE, _MOST_HOLE = 0.06, 0.72
# What fills an outline is so many times as large as it, and its box such a share of the outline's.
_FILLS_OUTLINE, _OUTLINE_OVERLAP = 2.5, 0.6
# A band across an image touches three of its sides, a panel in a corner two; shapes without straight sides may as well.
_NOT_STRAIGHT = ("circle", "oval", "ring", "star", "heart", "diamond")
_ANGLES = 180


class FlatShape(NamedTuple):
    """A shape: its kind, "" where its outline does not tell, its colour's name, its box in px, and its area in px²."""

    kind: str
    colour: str
    box: Box
    area: int


def find_flat_shapes(fills: Fills, texts: Sequence[Box]) -> list[FlatShape]:
    """The fills that lie on a ground, or on another shape, by themselves; none where there is much else on the image.

    ``texts``: the boxes of lines of text, which shapes do not hold.
    """
    if len(texts) > _MOST_TEXTS:
        return []
    labels_HW, page = fills.labels.copy(), fills.grounds[0]
    for text in texts:
        left, top, right, bottom = (max(0, int(edge)) for edge in text)
        if bottom - top < _LARGE_TEXT * labels_HW.shape[0]:
            labels_HW[top : bottom + 1, left : right + 1] = _TEXT
    found: list[FlatShape] = []
    is_page_HW = labels_HW == page
    for fill, points_N2 in _part(labels_HW, page):
        low, high = points_N2.min(0), points_N2.max(0) + 1
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        within = [text for text in texts if share_area(text, box) > 0]
        if min(high - low) < _LEAST_PX or any(share_within(box, text) > _MOST_TEXT for text in within):
            continue
        kind = name_outline(points_N2, is_page_HW)
        # A rectangle with words on it is a sign, a button or a field, and what has many lines on it is a page.
        if len(within) > _MOST_WITHIN or (within and kind in ("", "rectangle", "square")):
            continue
        if kind not in _NOT_STRAIGHT and count_sides(box, labels_HW.shape) > (1 if kind else 0):
            continue
        # One that lies on another has an outline of its own.
        if kind not in ("", "rectangle") or _lies_alone(labels_HW, points_N2):
            found.append(FlatShape(kind, name_color(fills.colours[fill])[0], box, len(points_N2)))
    found = _drop_borders(found)
    drawn = int((~is_page_HW & (labels_HW >= 0)).sum())
    named = sum(shape.area for shape in found if shape.kind)
    return found if len(found) <= _MOST_SHAPES and named > _LEAST_NAMED * drawn else []


def merge_shapes(drawn: Sequence[Any], shapes: Sequence[FlatShape]) -> list[Any]:
    """The objects that a network found, those that are flat shapes named and placed as these are, and those it missed.

    What it found within a flat shape is a part of it.
    """
    left = list(drawn)
    merged: list[Any] = []
    for shape in shapes:
        best = max(left, key=lambda each: measure_overlap(each.box, shape.box), default=None)
        is_same = best is not None and measure_overlap(best.box, shape.box) > 0.35
        kind = shape.kind or (best.kind if best is not None and is_same else "")
        left = [
            each
            for each in left
            if not (each is best and is_same) and share_within(each.box, shape.box) <= _LEAST_WITHIN
        ]
        if kind:
            merged.append(Drawn(kind, shape.colour, shape.box, 1.0))
    return merged + left


def _part(labels_HW: Labels, page: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The number of a fill and the pixels [N, 2] of each part of it that is large enough.

    They are looked for on every few pixels alone, and then taken whole.
    """
    step = max(1, min(labels_HW.shape) // _SEARCHED_PX)
    some_HW = labels_HW[::step, ::step]
    least = max(_LEAST_PX**2 / 3, _LEAST_SHARE * labels_HW.size)
    for fill in np.unique(some_HW[some_HW >= 0]).tolist():
        if fill == page:
            continue
        parts = find_components(some_HW == fill)
        counts = np.bincount(parts.labels, minlength=parts.num_parts)
        for part in np.flatnonzero(counts >= max(2.0, 0.5 * least / step**2))[: 2 * _MOST_SHAPES]:
            is_part = parts.labels == part
            rows, columns = parts.rows[is_part] * step, parts.columns[is_part] * step
            top, left = max(0, rows.min() - step), max(0, columns.min() - step)
            bottom, right = rows.max() + step + 1, columns.max() + step + 1
            whole = find_components(labels_HW[top:bottom, left:right] == fill)
            largest = whole.labels == np.bincount(whole.labels).argmax()
            points_N2 = np.stack((whole.columns[largest] + left, whole.rows[largest] + top), 1)
            if len(points_N2) >= least:
                yield fill, points_N2


def count_sides(box: Box, shape: tuple[int, ...]) -> int:
    """How many sides of an image [H, W] a box touches."""
    return (box[0] <= 0) + (box[1] <= 0) + (box[2] >= shape[1]) + (box[3] >= shape[0])


def _drop_borders(found: Sequence[FlatShape]) -> list[FlatShape]:
    """The shapes without those that are the drawn outline of another, which fills them."""
    return [
        outer
        for outer in found
        if not any(
            inner is not outer
            and inner.area > _FILLS_OUTLINE * outer.area
            and share_within(inner.box, outer.box) > _LEAST_WITHIN
            and measure_overlap(inner.box, outer.box) > _OUTLINE_OVERLAP
            for inner in found
        )
    ]


def _lies_alone(labels_HW: Labels, points_N2: npt.NDArray[np.int64]) -> bool:
    """Whether what is around a fill's outline, a few pixels from it, is of one fill."""
    low, high = points_N2.min(0) - _AROUND_PX, points_N2.max(0) + 1 + _AROUND_PX
    mask_HW = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=bool)
    mask_HW[points_N2[:, 1] - low[1], points_N2[:, 0] - low[0]] = True
    outside_HW = find_outside(mask_HW)
    y, x = np.nonzero(mask_HW)
    is_near_HW = np.zeros_like(mask_HW)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        is_near_HW[y + _AROUND_PX * dy, x + _AROUND_PX * dx] = True
    rows, columns = np.nonzero(is_near_HW & outside_HW)
    rows, columns = rows + low[1], columns + low[0]
    is_seen = (rows >= 0) & (rows < labels_HW.shape[0]) & (columns >= 0) & (columns < labels_HW.shape[1])
    around = labels_HW[rows[is_seen], columns[is_seen]]
    around = around[around >= 0]  # edges are blurred
    return len(around) > 0 and float(np.bincount(around).max()) >= _LEAST_ALONE * len(around)


def name_outline(points_N2: npt.NDArray[np.int64], is_page_HW: npt.NDArray[np.bool_]) -> str:
    """The kind of shape that a fill's pixels are; "" where their outline does not tell.

    ``is_page_HW``: which pixels of the image are the page, where they are within the outline, a hole.
    """
    low, high = points_N2.min(0), points_N2.max(0)
    mask_HW = np.zeros((high[1] - low[1] + 3, high[0] - low[0] + 3), dtype=bool)
    mask_HW[points_N2[:, 1] - low[1] + 1, points_N2[:, 0] - low[0] + 1] = True
    whole_HW = ~find_outside(mask_HW)
    is_page_HW = np.pad(is_page_HW[low[1] : high[1] + 1, low[0] : high[0] + 1], 1)
    area, hole = float(whole_HW.sum()), float((whole_HW & is_page_HW).sum())
    hull_N2 = find_hull(whole_HW)
    # An outline runs across its pixels, of which the hull has all.
    solid = area / max(measure_area(hull_N2) - _STAIRS * _measure_length(hull_N2), 1.0)
    kind = _name_convex(hull_N2) if solid >= _CONVEX else _name_pointed(whole_HW)
    if solid < 0.985 and _is_heart(whole_HW, hull_N2):
        kind = "heart"
    if hole < _LEAST_HOLE * area:
        return kind
    if hole <= _MOST_HOLE * area:
        return "ring" if kind == "circle" else ""
    return kind


def find_outside(mask_HW: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The pixels that are not of the shape and from which the image's edge is reached."""
    parts = find_components(~mask_HW)
    first = parts.labels[(parts.rows == 0) & (parts.columns == 0)][0]
    outside_HW = np.zeros_like(mask_HW)
    is_outside = parts.labels == first
    outside_HW[parts.rows[is_outside], parts.columns[is_outside]] = True
    return outside_HW


def find_hull(mask_HW: npt.NDArray[np.bool_]) -> Floats:
    """The corners of the convex hull of a mask's pixels, each a unit square, counterclockwise (Andrew's chain)."""
    corners: list[tuple[float, float]] = []
    for y in np.flatnonzero(mask_HW.any(1)):
        columns = np.flatnonzero(mask_HW[y])
        corners += [(x, y + dy) for x in (float(columns[0]), float(columns[-1] + 1)) for dy in (0.0, 1.0)]
    ordered = sorted(set(corners))

    def chain(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for x, y in points:
            while len(kept) > 1:
                (ax, ay), (bx, by) = kept[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                kept.pop()
            kept.append((x, y))
        return kept[:-1]

    return np.array(chain(ordered) + chain(ordered[::-1]))


def measure_area(hull_N2: Floats) -> float:
    """The area of a polygon, in px²."""
    x, y = hull_N2.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _measure_length(hull_N2: Floats) -> float:
    return float(np.linalg.norm(np.roll(hull_N2, -1, 0) - hull_N2, axis=1).sum())


def _circumscribe(hull_N2: Floats, count: int) -> Floats:
    """The hull with so many sides: those that matter least were left out, and their neighbours run on until they meet.

    Corners may thus be rounded or cut.
    """
    kept = hull_N2
    while len(kept) > count:
        starts, ends = kept, np.roll(kept, -1, 0)  # of each side
        before, after = np.roll(kept, 1, 0), np.roll(kept, -2, 0)
        u, v = starts - before, ends - after  # both neighbours, onwards to where they meet
        turn = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
        gap = ends - starts
        with np.errstate(divide="ignore", invalid="ignore"):
            along = (gap[:, 0] * v[:, 1] - gap[:, 1] * v[:, 0]) / turn
            back = (gap[:, 0] * u[:, 1] - gap[:, 1] * u[:, 0]) / turn
        meets = np.isfinite(along) & (along > 0) & (back > 0)
        added = np.where(meets, np.abs(along * (u[:, 0] * gap[:, 1] - u[:, 1] * gap[:, 0])), np.inf)
        side = int(added.argmin())
        if not np.isfinite(added[side]):
            break
        corner = starts[side] + along[side] * u[side]
        kept = np.insert(
            np.delete(kept, [side, (side + 1) % len(kept)], 0), side if side + 1 < len(kept) else 0, corner, 0
        )
    return kept


def _name_convex(hull_N2: Floats) -> str:
    if len(hull_N2) < 3:
        return ""
    # How far the hull reaches from its middle in each direction, and how broad it is along each.
    turns = np.pi * np.arange(72) / 36
    reach = ((hull_N2 - _find_middle(hull_N2)) @ np.stack((np.cos(turns), np.sin(turns)))).max(0)
    spans = reach[:36] + reach[36:]
    area, is_even = measure_area(hull_N2), spans.max() < _REGULAR * spans.min()
    for count, least in _CORNERS.items():
        polygon = _circumscribe(hull_N2, count)
        if len(polygon) == count and area >= least * measure_area(polygon):
            if count == 4:
                return _name_quadrilateral(polygon)
            return {3: "triangle", 5: "pentagon" if is_even else "", 6: "hexagon" if is_even else ""}[count]
    # A half circle's halves differ.
    if np.abs(reach[:36] - reach[36:]).max() > 0.12 * spans.max():
        return ""
    if spans.max() < _ROUND * spans.min():
        return "circle"
    is_oval = abs(area - np.pi / 4 * spans.max() * spans.min()) < 0.08 * area
    return "oval" if is_oval else ""


def _find_middle(hull_N2: Floats) -> Floats:
    """The centre of a polygon's area."""
    x, y = (hull_N2 - hull_N2[0]).T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    middle = np.array([((x + np.roll(x, -1)) * cross).sum(), ((y + np.roll(y, -1)) * cross).sum()])
    return np.asarray(hull_N2[0] + middle / (3 * cross.sum()))


def _name_quadrilateral(corners_42: Floats) -> str:
    """A square, a diamond or a rectangle; "" for any other quadrilateral."""
    sides_42 = np.roll(corners_42, -1, 0) - corners_42
    lengths = np.linalg.norm(sides_42, axis=1)
    cosines = [float(a @ b / (len_a * len_b)) for a, b, len_a, len_b in
               zip(sides_42, np.roll(sides_42, -1, 0), lengths, np.roll(lengths, -1), strict=True)]  # fmt: skip
    is_right = max(map(abs, cosines)) < np.sin(np.radians(_RIGHT_DEGREES))
    is_even = lengths.max() < _EQUAL * lengths.min()
    turn = np.degrees(np.arctan2(sides_42[0, 1], sides_42[0, 0])) % 90
    if is_even:
        return "square" if is_right and abs(turn - 45) > 22.5 else "diamond"
    return "rectangle" if is_right else ""


def _measure_reach(mask_HW: npt.NDArray[np.bool_]) -> Floats:
    """How far the outline is from the middle in each direction [A], as a share of the farthest."""
    y, x = np.nonzero(mask_HW)
    across, down = x - x.mean(), y - y.mean()
    turns = ((np.arctan2(down, across) / (2 * np.pi) + 1) * _ANGLES).astype(int) % _ANGLES
    reach = np.zeros(_ANGLES)
    np.maximum.at(reach, turns, np.hypot(across, down))
    # Few pixels of a small shape lie in some of the directions.
    return np.asarray(np.maximum(np.roll(reach, 1), np.maximum(reach, np.roll(reach, -1))) / reach.max())


def _name_pointed(mask_HW: npt.NDArray[np.bool_]) -> str:
    """A star of five or more points or a cross, by the peaks of the outline's distance from the middle."""
    reach = _measure_reach(mask_HW)
    start = int(reach.argmin())
    turned = np.roll(reach, -start)
    border = (turned.min() + turned.max()) / 2
    is_far = turned > border
    starts = np.flatnonzero(is_far & ~np.roll(is_far, 1))
    ends = np.flatnonzero(is_far & ~np.roll(is_far, -1))
    if not 4 <= len(starts) <= 8 or len(starts) != len(ends) or turned.min() > 0.8:
        return ""
    peaks = [float(turned[a : b + 1].max()) for a, b in zip(starts, ends, strict=True)]
    if min(peaks) < 0.75:
        return ""
    if len(starts) > 4:
        return "star"
    # The arms of a cross are as broad at their ends as halfway; the points of a star taper.
    y, x = np.nonzero(mask_HW)
    away = np.hypot(x - x.mean(), y - y.mean())
    away /= away.max()
    ends, halfway = (((away > low) & (away < low + 0.12)).sum() for low in (0.76, 0.5))
    return "cross" if ends > 0.65 * halfway else "star"


def _is_heart(mask_HW: npt.NDArray[np.bool_], hull_N2: Floats) -> bool:
    """Whether a shape is alike on its left and right, with a notch in the middle of its top and a point below."""
    height, width = mask_HW.shape
    mirrored = mask_HW[:, ::-1]
    if (mask_HW & mirrored).sum() < 0.84 * (mask_HW | mirrored).sum():
        return False
    tops = np.where(mask_HW.any(0), mask_HW.argmax(0), height)
    inner = tops[width // 2]
    sides = [tops[int(low * width) : int((low + 0.25) * width) + 1].min() for low in (0.15, 0.6)]
    is_notched = inner - max(sides) > 0.04 * height
    low = mask_HW[int(0.9 * height) :].any(0).sum()
    is_pointed = low < 0.35 * width
    # The sides of an arrow or a crescent are not as full.
    fullness = mask_HW.sum() / measure_area(hull_N2)
    return bool(is_notched and is_pointed and fullness > 0.8)
