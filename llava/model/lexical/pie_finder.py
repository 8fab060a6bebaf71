"""The wedges of a pie chart, by the fills on circles around its middle: exact shares, without a network."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from llava.model.lexical.flat_fills import Fills
from llava.model.lexical.hues import name_color

# Circles on which fills are looked up, in radii: near the edge, where rings have their fill and texts are rare.
_CIRCLES = (0.80, 0.86, 0.91, 0.95)
_DIRECTIONS = 1440
_LEAST_SHARE = 0.008
_LEAST_RADIUS_PX = 20
# The share of directions in which the innermost and the outermost circle have the same fill.
_LEAST_ALIKE = 0.85


class Wedge(NamedTuple):
    """A wedge: its colour's name, its share, and its middle direction, clockwise from the right, in radians."""

    fill: int
    colour: str
    share: float
    direction: float


class Pie(NamedTuple):
    """A pie: its middle and radius in px, and its wedges clockwise from the top."""

    x: float
    y: float
    radius: float
    wedges: tuple[Wedge, ...]


def find_pie(fills: Fills) -> Pie | None:
    """The pie of an image; None if there is no disc of at least two fills."""
    labels = fills.labels
    height, width = labels.shape
    inside = labels >= 0
    for ground in fills.grounds[:1]:
        inside &= labels != ground
    disc = _find_disc(inside)
    if disc is None:
        return None
    x, y, radius = disc
    angles = (np.arange(_DIRECTIONS) + 0.5) * (2 * np.pi / _DIRECTIONS)
    rings = []
    for share in _CIRCLES:
        columns = np.clip((x + share * radius * np.cos(angles)).astype(int), 0, width - 1)
        rows = np.clip((y + share * radius * np.sin(angles)).astype(int), 0, height - 1)
        rings.append(labels[rows, columns])
    ring = _vote(np.stack(rings), set(fills.grounds[:1]))
    # Borders of wedges are straight towards the middle.
    if (ring < 0).mean() > 0.1 or (rings[0] == rings[-1]).mean() < _LEAST_ALIKE:
        return None
    runs = _list_runs(_close(ring))
    runs = [run for run in runs if run[2] - run[1] >= _LEAST_SHARE * _DIRECTIONS]
    if len(runs) < 2 or len({run[0] for run in runs}) < 2:
        return None
    total = sum(last - first for _, first, last in runs)
    wedges = []
    for fill, first, last in runs:
        direction = (first + last) / 2 * (2 * np.pi / _DIRECTIONS)
        wedges.append(Wedge(fill, name_color(fills.colours[fill])[0], (last - first) / total, direction))
    wedges.sort(key=lambda wedge: (wedge.direction + np.pi / 2) % (2 * np.pi))
    return Pie(x, y, radius, tuple(wedges))


def _find_disc(inside: np.ndarray) -> tuple[float, float, float] | None:
    """Middle and radius of the largest disc of pixels that are no ground; None if they make none."""
    rows, columns = inside.sum(1), inside.sum(0)
    y = _find_extent(rows)
    x = _find_extent(columns)
    if y is None or x is None:
        return None
    # A legend beside the disc widens the extent, so that it is measured again within the other one.
    y = _find_extent(inside[:, x[0] : x[1]].sum(1)) or y
    x = _find_extent(inside[y[0] : y[1]].sum(0)) or x
    wide, high = x[1] - x[0], y[1] - y[0]
    radius = (wide + high) / 4
    if radius < _LEAST_RADIUS_PX or not 0.8 < wide / high < 1.25:
        return None
    middle_x, middle_y = (x[0] + x[1]) / 2, (y[0] + y[1]) / 2
    angles = np.arange(720) * (np.pi / 360)

    def cover(share: float) -> float:
        columns = np.clip((middle_x + share * wide / 2 * np.cos(angles)).astype(int), 0, inside.shape[1] - 1)
        rows = np.clip((middle_y + share * high / 2 * np.sin(angles)).astype(int), 0, inside.shape[0] - 1)
        return float(inside[rows, columns].mean())

    if max(cover(0.86), cover(0.92)) < 0.85 or cover(1.12) > 0.3:
        return None
    return middle_x, middle_y, radius


def _find_extent(counts: np.ndarray) -> tuple[int, int] | None:
    """The longest stretch where there is much, but for short gaps."""
    much = counts > max(6.0, 0.12 * counts.max())
    edges = np.flatnonzero(np.diff(np.concatenate(([0], much.astype(np.int8), [0]))))
    stretches = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    if not stretches:
        return None
    joined = [stretches[0]]
    for first, last in stretches[1:]:
        if first - joined[-1][1] <= 4:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    first, last = max(joined, key=lambda stretch: stretch[1] - stretch[0])
    # A disc's ends are thin: up to where there is anything.
    while first > 0 and counts[first - 1] > 2:
        first -= 1
    while last < len(counts) and counts[last] > 2:
        last += 1
    return first, last


def _vote(rings: np.ndarray, grounds: set[int]) -> np.ndarray:
    """The commonest fill of each direction, -1 where there is none."""
    best = np.full(rings.shape[1], -1)
    votes = np.zeros(rings.shape[1])
    for fill in np.unique(rings).tolist():
        if fill < 0 or fill in grounds:
            continue
        count = (rings == fill).sum(0)
        better = count > votes
        best[better], votes[better] = fill, count[better]
    return best


def _close(ring: np.ndarray) -> np.ndarray:
    """The ring with what belongs to no wedge, such as edges, given to the nearest wedge; specks are removed."""
    count = len(ring)
    least = max(3, int(0.4 * _LEAST_SHARE * count))
    for fill, first, last in _list_runs(ring):
        if last - first < least or fill < 0:
            ring[np.arange(first, last) % count] = -1
    known = np.flatnonzero(ring >= 0)
    if not len(known):
        return ring
    at = np.arange(count)
    around = np.concatenate((known - count, known, known + count))
    right = np.searchsorted(around, at)
    nearest = np.where(np.abs(around[right] - at) < np.abs(at - around[right - 1]), around[right], around[right - 1])
    return ring[nearest % count]


def _list_runs(ring: np.ndarray) -> list[tuple[int, int, int]]:
    """(fill, first, end) of the runs around a ring; the one across its beginning ends beyond its length."""
    changes = np.flatnonzero(ring != np.roll(ring, 1))
    if not len(changes):
        return [(int(ring[0]), 0, len(ring))]
    ends: Iterable[int] = [*changes.tolist(), int(changes[0]) + len(ring)]
    return [(int(ring[first]), first, last) for first, last in pairwise(ends)]
