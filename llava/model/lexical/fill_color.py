"""The colour of what fills a box and how far that fill reaches, measured on the image's own pixels.

For flat fills this is surer than any net; for others it says nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from llava.model.lexical.hues import as_oklab, name_color

Box = tuple[float, float, float, float]
# Places along a side at which the fill is looked for, and its extent; the latter up to so much of the box beyond it.
_SIDE, _FINE_SIDE, _BEYOND = 14, 72, 0.5
# OKLab distances: what is not the ground, and what is the same fill.
_FROM_GROUND, _SAME = 0.09, 0.05


class Fill(NamedTuple):
    """A fill: its colour in OKLab, the colour's name, and whether that name is beyond dispute."""

    oklab: np.ndarray
    name: str
    is_sure: bool


def measure_fill(image: Tensor, box: Box) -> Fill | None:
    """The colour that most of the object in a box has.

    None where nothing in the box stands out from what is around it, or where it has no main colour.

    Args:
        image: uint8 [3, H, W].
    """
    inside = _sample(image, box, _grid(_SIDE, 0.03))
    around = _sample(image, box, _frame())
    ground = np.median(around, axis=0)
    stands_out = np.linalg.norm(inside - ground, axis=1) > _FROM_GROUND
    if stands_out.mean() < 0.06:
        return None
    shown = inside[stands_out]
    same = np.linalg.norm(shown[:, None] - shown[None], axis=2) < _SAME
    members = same[int(same.sum(1).argmax())]
    if members.mean() < 0.35:
        return None
    oklab = shown[members].mean(0)
    return Fill(oklab, *name_color(oklab, is_oklab=True))


def measure_unevenness(image: Tensor, box: Box) -> float:
    """By how many values of 0 to 255 the colours in the middle of a box differ, but for its outermost fifths.

    Drawn shapes have up to about 20 there, noise included; things in photographs have more than 50.
    """
    width, height = box[2] - box[0], box[3] - box[1]
    rows = slice(int(box[1] + 0.3 * height), int(box[3] - 0.3 * height) + 1)
    columns = slice(int(box[0] + 0.3 * width), int(box[2] - 0.3 * width) + 1)
    middle = image[:, rows, columns].float()
    if min(middle.shape[1:]) < 4:
        return 0.0
    # Means of a few pixels, as noise is no unevenness.
    middle = F.avg_pool2d(middle[None], min(3, min(middle.shape[1:]) // 4))[0].flatten(1)
    low, high = np.quantile(middle.cpu().numpy(), (0.1, 0.9), axis=1)
    return float((high - low).max())


def measure_extent(image: Tensor, box: Box, fill: Fill) -> Box | None:
    """The box of the fill that lies around a box's middle, which may be off by half its size.

    None where the fill reaches out of sight, or is somewhere else.
    """
    colors = _sample(image, box, _grid(_FINE_SIDE, -_BEYOND))
    is_fill = np.linalg.norm(colors - fill.oklab, axis=1).reshape(_FINE_SIDE, _FINE_SIDE) < 1.3 * _SAME
    low = int(_FINE_SIDE * _BEYOND / (1 + 2 * _BEYOND))
    rows, columns = (low, _FINE_SIDE - low), (low, _FINE_SIDE - low)
    for _ in range(4):
        rows = _find_run(is_fill[:, slice(*columns)].mean(1), rows)
        columns = _find_run(is_fill[slice(*rows)].mean(0), columns)
    if min(*rows, *columns) == 0 or max(*rows, *columns) == _FINE_SIDE:
        return None
    step_x, step_y = ((box[i + 2] - box[i]) * (1 + 2 * _BEYOND) / _FINE_SIDE for i in (0, 1))
    left, top = box[0] - _BEYOND * (box[2] - box[0]), box[1] - _BEYOND * (box[3] - box[1])
    found = (left + columns[0] * step_x, top + rows[0] * step_y, left + columns[1] * step_x, top + rows[1] * step_y)
    across, down = (found[i + 2] - found[i] for i in (0, 1))
    is_near = 0.3 < across / (box[2] - box[0]) < 2 and 0.3 < down / (box[3] - box[1]) < 2
    return found if is_near else None


def measure_roundness(image: Tensor, box: Box, fill: Fill) -> float:
    """The share of its circumscribed circle that a fill covers: 1 of a circle, .83 of a hexagon, .64 of a square.

    ``box``: as ``measure_extent`` gives it.
    """
    places = _grid(_FINE_SIDE, -0.02)
    size = np.array([box[2] - box[0], box[3] - box[1]])
    is_fill = np.linalg.norm(_sample(image, box, places) - fill.oklab, axis=1) < 1.3 * _SAME
    if is_fill.sum() < 50:
        return 0.0
    inside = places[is_fill] * size
    middle = (inside.min(0) + inside.max(0)) / 2 if is_fill.mean() < 0.5 else inside.mean(0)
    radius = np.quantile(np.linalg.norm(inside - middle, axis=1), 0.995)
    cell = float(np.prod(size * 1.04)) / _FINE_SIDE**2
    return float(is_fill.sum()) * cell / (np.pi * radius**2)


def _find_run(shares: np.ndarray, near: tuple[int, int]) -> tuple[int, int]:
    """The run of places with fill that holds most of the fill within ``near``; ends that are one past it."""
    has_fill = shares > 0.02
    middle = near[0] + int(shares[near[0] : near[1]].argmax())
    low = high = middle
    while low > 0 and has_fill[low - 1]:
        low -= 1
    while high < len(shares) and has_fill[high]:
        high += 1
    return low, max(high, low + 1)


def _grid(side: int, inset: float) -> np.ndarray:
    """Places [side x side, 2] (x, y), row by row, in a box from 0 to 1 less ``inset`` on each side."""
    at = (np.arange(side) + 0.5) / side * (1 - 2 * inset) + inset
    return np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)


def _frame() -> np.ndarray:
    """Places around a box."""
    at = np.linspace(-0.12, 1.12, 12)
    low, high = np.full_like(at, at[0]), np.full_like(at, at[-1])
    return np.concatenate([np.stack(pair, -1) for pair in ((at, low), (at, high), (low, at), (high, at))])


def _sample(image: Tensor, box: Box, places: np.ndarray) -> np.ndarray:
    """OKLab colours [n, 3] of the nearest pixels, so that no colours are mixed."""
    height, width = image.shape[-2:]
    x = (box[0] + places[:, 0] * (box[2] - box[0])).clip(0, width - 1).astype(np.int64)
    y = (box[1] + places[:, 1] * (box[3] - box[1])).clip(0, height - 1).astype(np.int64)
    return as_oklab(image[:, y, x].T.cpu().numpy())
