"""The lines of a line chart, traced: where each colour runs between the axes, column by column.

A pixel of a line lies between the ground's colour and the line's, however thin and blurred the line is, so pixels are
gathered by the direction of their colour from the ground's. Frames and grids are rows and columns that are full.

Shapes: H and W pixels of the area within the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from llava.model.lexical.flat_fills import Fills
from llava.model.lexical.hues import name_color

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Area = tuple[int, int, int, int]  # left, top, right, bottom in px
_NOT_GROUND = 24
_MAX_COLOURS = 8
# A row or a column that is covered this much is one of a frame or a grid.
_FULL = 0.8
_MAX_PARTS = 40
# The ground covers at least this share of the area within the axes.
_GROUND_SHARE = 0.5
# A line's longest part is at least this share of the area's width. The dashes of one that is broken are so many times
# longer than broad, which markers are not; there are so many of them, and they are this share of all of its pixels.
_LONG_SHARE, _DASH_RATIO, _LEAST_DASHES, _DASHED_SHARE = 0.04, 1.8, 6, 0.4
# Where it is hidden, a line rises by so many px per column at most. More is a jump, of at least so many px, and it has
# no more jumps than this.
_STEEPEST, _LEAST_JUMP_PX, _MOST_JUMPS = 3.0, 12.0, 4
# To the next dash it is at most so many times as far as a dash is long, nearly everywhere; nearly all of it is a line.
_LONGEST_STEP, _NEAR_SHARE = 1.5, 0.75


class _Runs(NamedTuple):
    """Runs of a line's pixels down the columns of an area, sorted by these: the first row of each, the row below it."""

    x: npt.NDArray[np.int64]
    tops: npt.NDArray[np.int64]
    bottoms: npt.NDArray[np.int64]


class Ink(NamedTuple):
    """A colour of lines: RGB from 0 to 255, and how much of it each pixel of the area has, 0 to 1, [H, W]."""

    colour: Floats
    share: npt.NDArray[np.float32]


class Trace(NamedTuple):
    """A line from column ``start`` on: its middle and its thickness in px, per column, NaN where it is hidden."""

    colour: str
    start: int
    middle: Floats
    thickness: Floats

    @property
    def end(self) -> int:
        """The column after its last."""
        return self.start + len(self.middle)


def find_inks(fills: Fills, area: Area, texts: Sequence[Area]) -> list[Ink]:
    """The colours in an area of an image that may be lines', without the grid, the frame and the texts."""
    left, top, right, bottom = area
    pixels = fills.planes[:, top:bottom, left:right].astype(np.int16)
    within = fills.labels[top:bottom, left:right]
    shares = [(within == fill).mean() for fill in fills.grounds]
    if max(shares) < _GROUND_SHARE:
        return []
    flat = within == fills.grounds[int(np.argmax(shares))]
    ground = np.array([np.median(plane[flat]) for plane in pixels])
    away = np.abs(pixels - ground[:, None, None].astype(np.int16)).max(0) > _NOT_GROUND
    for row in np.flatnonzero(away.mean(1) > _FULL):
        away[row] &= _differs(pixels[:, row])
    for column in np.flatnonzero(away.mean(0) > _FULL):
        away[:, column] &= _differs(pixels[:, :, column])
    for x0, y0, x1, y1 in texts:
        away[max(0, y0 - top) : max(0, y1 - top), max(0, x0 - left) : max(0, x1 - left)] = False
    rows, columns = np.nonzero(away)
    offsets = pixels[:, rows, columns].T - ground
    inks: list[Ink] = []
    for _ in range(_MAX_COLOURS):
        if len(rows) < 0.4 * (right - left):
            break
        colour = _choose_colour(offsets)
        along = offsets @ colour / (colour @ colour)
        beside = np.linalg.norm(offsets - along[:, None] * colour, axis=1)
        chosen = (beside <= np.maximum(16, 0.13 * np.linalg.norm(offsets, axis=1))) & (along > 0.12) & (along < 1.35)
        if chosen.sum() < 0.3 * (right - left):
            rows, columns, offsets = rows[~chosen], columns[~chosen], offsets[~chosen]
            if not chosen.any():
                break
            continue
        share = np.zeros(away.shape, dtype=np.float32)
        share[rows[chosen], columns[chosen]] = np.clip(along[chosen], 0, 1)
        inks.append(Ink(ground + colour, share))
        rows, columns, offsets = rows[~chosen], columns[~chosen], offsets[~chosen]
    return inks


def _differs(pixels: npt.NDArray[np.int16]) -> Bools:
    """Which pixels [3, N] have another colour than most."""
    usual = np.median(pixels, axis=1).astype(np.int16)
    differs: Bools = np.abs(pixels - usual[:, None]).max(0) > 2 * _NOT_GROUND
    return differs


def _choose_colour(offsets: Floats) -> Floats:
    """The commonest strong colour, as its difference from the ground."""
    bins = ((offsets + 256) / 16).astype(np.int64) @ np.array([4096, 64, 1])
    _, inverse, counts = np.unique(bins, return_inverse=True, return_counts=True)
    strength = np.bincount(inverse.ravel(), np.linalg.norm(offsets, axis=1)) / counts
    best = int((counts * strength).argmax())
    seed = offsets[inverse.ravel() == best].mean(0)
    along = offsets @ seed / (seed @ seed)
    near = np.linalg.norm(offsets - along[:, None] * seed, axis=1) <= 16
    # Thin lines are nowhere quite of their colour: the strongest tenth is nearest to it.
    level = float(np.quantile(along[near & (along > 0.5)], 0.9))
    strongest = near & (along >= 0.92 * level)
    return offsets[strongest].mean(0)


def trace_ink(ink: Ink) -> Trace | None:
    """The line of an ink; None if its pixels are no line from left to right."""
    height, width = ink.share.shape
    columns = np.ascontiguousarray(ink.share.T)
    padded = np.zeros((width, height + 2), dtype=np.int8)
    padded[:, 1:-1] = columns > 0.4
    change = np.diff(padded, axis=1)
    x, tops = np.nonzero(change == 1)
    bottoms = np.nonzero(change == -1)[1]
    if not len(x) or len(x) > 12 * width:
        return None
    parts = _join_columns(x.tolist(), tops.tolist(), bottoms.tolist())
    chosen = _choose_parts(parts, _Runs(x, tops, bottoms), width)
    if chosen is None:
        return None
    x, tops, bottoms = x[chosen], tops[chosen], bottoms[chosen]
    start, end = int(x.min()), int(x.max()) + 1
    counts = np.bincount(x - start, minlength=end - start)
    low, high = np.full(end - start, np.inf), np.full(end - start, -np.inf)
    np.minimum.at(low, x - start, tops)
    np.maximum.at(high, x - start, bottoms)
    is_clean = (counts > 0).mean() >= 0.55 and (counts > 1).mean() <= 0.25
    thickness = np.where(counts > 0, high - low, np.nan)
    if not is_clean or end - start < 0.3 * width or float(np.nanmedian(thickness)) > max(14.0, 0.1 * height):
        return None
    middle = np.full(end - start, np.nan)
    places = np.arange(height) + 0.5
    for at in np.flatnonzero(counts):
        top, bottom = max(0, int(low[at]) - 1), int(high[at]) + 1
        shares = columns[start + at, top:bottom]
        middle[at] = float(shares @ places[top:bottom] / shares.sum())
    if _count_jumps(middle, thickness) > _MOST_JUMPS:
        return None
    return Trace(name_color(ink.colour.clip(0, 255))[0], start, middle, thickness)


def _count_jumps(middle: Floats, thickness: Floats) -> int:
    """How often a line goes on where it cannot have come from, as it does from one marker of a scatter to another."""
    seen = np.flatnonzero(np.isfinite(middle))
    across, down = np.diff(seen), np.abs(np.diff(middle[seen]))
    reach = _LEAST_JUMP_PX + np.maximum(thickness[seen][1:], thickness[seen][:-1])
    return int((down > reach + _STEEPEST * across).sum())


def _join_columns(x: list[int], tops: list[int], bottoms: list[int]) -> npt.NDArray[np.int64]:
    """The part that each run of a column belongs to: runs of neighbouring columns that touch are one part."""
    parents = list(range(len(x)))

    def find(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    first = 0  # of the column before
    for i in range(len(x)):
        while x[first] < x[i] - 1:
            first += 1
        at = first
        while x[at] == x[i] - 1:
            if tops[at] <= bottoms[i] and bottoms[at] >= tops[i]:
                parents[find(i)] = find(at)
            at += 1
    return np.array([find(i) for i in range(len(x))])


def _choose_parts(parts: npt.NDArray[np.int64], runs: _Runs, width: int) -> Bools | None:
    """Which runs are the line: the longest part, and those that continue it where something hides it."""
    x = runs.x
    numbers, first, inverse = np.unique(parts, return_index=True, return_inverse=True)
    ends = np.zeros(len(numbers), dtype=np.int64)
    np.maximum.at(ends, inverse, x)
    # Runs are sorted by columns, so that a part's first one begins it.
    extents = dict(zip(numbers.tolist(), zip(x[first].tolist(), ends.tolist(), strict=True), strict=True))
    ordered = sorted(extents, key=lambda p: extents[p][0] - extents[p][1])
    if extents[ordered[0]][1] - extents[ordered[0]][0] < _LONG_SHARE * width:
        return _chain_dashes(inverse, runs, width)
    covered = np.zeros(width, dtype=bool)
    chosen: list[int] = []
    left = [part for part in ordered if extents[part][1] - extents[part][0] >= 2][:_MAX_PARTS]
    while left:
        for part in left:
            first, last = extents[part]
            if covered[first : last + 1].mean() > 0.2:
                continue
            if not chosen or _continues(part, chosen, parts, runs, width):
                break
        else:
            break
        left.remove(part)
        chosen.append(part)
        covered[first : last + 1] = True
    return np.isin(parts, chosen)


def _chain_dashes(parts: npt.NDArray[np.int64], runs: _Runs, width: int) -> Bools | None:
    """Which runs are a line of dashes, or of dashes and dots, from left to right; None if there is no such line.

    ``parts``: of each run, counted from 0.
    """
    x, tops, bottoms = runs
    areas, ratios = _measure_parts(parts, runs)
    is_dash = ratios >= _DASH_RATIO
    if is_dash.sum() < _LEAST_DASHES or areas[is_dash].sum() < _DASHED_SHARE * areas.sum():
        return None
    order = np.argsort(parts, kind="stable")
    dashes = np.split(order, np.flatnonzero(np.diff(parts[order])) + 1)
    covered = np.zeros(width, dtype=bool)
    chosen: list[int] = []
    steps: list[float] = []
    for part in sorted(range(len(dashes)), key=lambda part: int(x[dashes[part][0]])):
        first, last = dashes[part][0], dashes[part][-1]
        if covered[x[first] : x[last] + 1].mean() > 0.2:
            continue
        if chosen:
            end = dashes[chosen[-1]][-1]
            across, down = x[first] - x[end], abs(tops[first] + bottoms[first] - tops[end] - bottoms[end]) / 2
            if across > 0.2 * width or down > 40 + 6 * across:
                continue
            steps.append(float(np.hypot(across, down)))
        chosen.append(part)
        covered[x[first] : x[last] + 1] = True
    # From one dash to the next it is about as far as a dash is long; from marker to marker it is not.
    near = _LONGEST_STEP * float(np.median(np.sqrt(areas[is_dash] * ratios[is_dash])))
    are_near = len(steps) > 0 and np.mean(np.array(steps) <= near) >= _NEAR_SHARE
    is_line = are_near and areas[chosen].sum() >= _NEAR_SHARE * areas.sum()
    return np.isin(parts, chosen) if is_line else None


def _measure_parts(parts: npt.NDArray[np.int64], runs: _Runs) -> tuple[Floats, Floats]:
    """The pixels of each part, and how many times longer than broad it is, whichever way it runs."""
    x, tops, bottoms = runs
    heights, middles = (bottoms - tops).astype(np.float64), (tops + bottoms - 1) / 2
    area: Floats = np.bincount(parts, heights).astype(np.float64)
    mean_x, mean_y = (np.bincount(parts, heights * at) / area for at in (x, middles))
    away_x, away_y = x - mean_x[parts], middles - mean_y[parts]
    # A pixel is a square, and not a point.
    xx = np.bincount(parts, heights * away_x**2) / area + 1 / 12
    yy = np.bincount(parts, heights * (away_y**2 + heights**2 / 12)) / area
    xy = np.bincount(parts, heights * away_x * away_y) / area
    spread = np.hypot(xx - yy, 2 * xy)
    ratio: Floats = np.sqrt((xx + yy + spread) / np.maximum(xx + yy - spread, 1e-6))
    return area, ratio


def _continues(part: int, chosen: list[int], parts: npt.NDArray[np.int64], runs: _Runs, width: int) -> bool:
    """Whether the way from the line so far to a part is short, or not much steeper than what is seen."""
    own, others = parts == part, np.isin(parts, chosen)
    x, middles = runs.x, (runs.tops + runs.bottoms) / 2
    first, last = int(x[own].min()), int(x[own].max())
    gaps = []
    for end, side in ((first, others & (x < first)), (last, others & (x > last))):
        if side.any():
            near = np.flatnonzero(side)[np.abs(x[side] - end).argmin()]
            mine = np.flatnonzero(own)[np.abs(x[own] - end).argmin()]
            gaps.append((abs(int(x[near]) - end), abs(float(middles[near] - middles[mine]))))
    across, down = min(gaps, default=(width, 1e9))
    return across <= 0.2 * width and down <= 40 + 6 * across
