"""Decides whether two images show the same, by aligning them and comparing pixels everywhere.

The one is mapped onto the other by a crop and a scale for each axis, refined from coarse to fine (Lucas-Kanade, with a
gain and an offset of brightness; the gradient is that of the mean of both images, as in ESM). Then every block of 8x8
px has to agree, not only most of them: two pages of the same layout differ in a few words, two charts in one bar.

Source: S. Baker and I. Matthews, Lucas-Kanade 20 Years On, IJCV 2004; S. Benhimane and E. Malis, Real-time image-based
tracking of planes using efficient second-order minimization, IROS 2004 (ESM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

# The longer side of the aligned images, from coarse to fine.
_LEVELS_PX = (24, 48, 96, 192, 384)
_STEPS = (8, 8, 8, 6, 3)
_BLOCK_PX = 8
_LEAST_OVERLAP = 0.5
# The finest level is at most this share of the smaller image's own resolution: above it, resampling filters differ.
_SHARE_OF_RESOLUTION = 0.8
# At each level the residual may be this share of the contrast: most candidates end at the coarsest.
_MOST_RESIDUAL = 0.35
# Tolerated in a block: noise (variance, grey levels) as of strong compression, this share of its contrast,
# and this change of its mean, or where it is nearly black or white, and so may be clipped, that one. Measured on copies
# and on pages of one layout: copies stay below 0.9 in all blocks but one, others are above 1.1 in several.
_NOISE, _MOST_BLOCK_RESIDUAL = 60.0, 0.72
_MOST_MEAN_CHANGE, _MOST_CLIPPED = 24.0, 55.0
_BLACK, _WHITE = 10.0, 245.0
# The share of blocks that may differ, or else one at the border, where a crop falls between pixels.
_MOST_DIFFERENT = 0.001
# A step that moves no pixel by more is the last one.
_CLOSE_PX = 0.05
_GRADIENT = 1.2
LEAST_PX = 384


@dataclass(frozen=True)
class Comparison:
    """Two images, aligned.

    Attributes:
        is_same: whether they agree everywhere.
        similarity: correlation of their aligned pixels, at most 1.
        share_different: share of the blocks that differ.
        first_box, second_box: (left, top, right, bottom), 0 to 1: what of each image the other one shows too.
    """

    is_same: bool
    similarity: float
    share_different: float
    first_box: Box
    second_box: Box


def compare(first: Image.Image, second: Image.Image, box: Box) -> Comparison:
    """Aligns two grey images and compares them.

    Args:
        box: the part of ``second`` that ``first`` shows, about: within 5 % at each side.
    """
    left, top, right, bottom = box
    # x of second = scale_x * x of first + shift_x, both 0 to 1.
    warp = np.array([right - left, left, bottom - top, top])
    finest = _choose_finest(first, second, warp)
    num = next(i + 1 for i, level in enumerate(_LEVELS_PX) if level >= finest)
    levels = [*_LEVELS_PX[: num - 1], finest]
    for px, steps, one, two in zip(levels, _STEPS, _shrink(first, levels), _shrink(second, levels), strict=False):
        warp, residual = _refine(one, two, warp, px, steps)
        if residual > _MOST_RESIDUAL:
            return _differs(box)
    return _judge(*_cut(one, two, warp, finest))


def _shrink(image: Image.Image, levels: Sequence[int]) -> list[Image.Image]:
    """The image for each level, with no more than three times its pixels per side, so that resampling it is cheap."""
    found = []
    for px in reversed(levels):
        if max(image.size) > 3 * px:
            scale = 2 * px / max(image.size)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            image = image.resize(size, Image.Resampling.BOX)
        found.append(image)
    return found[::-1]


def _refine(first: Image.Image, second: Image.Image, warp: Floats, px: int, steps: int) -> tuple[Floats, float]:
    """The best of the warps that up to ``steps`` steps lead to, and its residual."""
    best, best_residual = warp, np.inf
    for step in range(steps + 1):
        if not _is_plausible(warp):
            break
        one, two, here, there = _cut(first, second, warp, px)
        if px < _LEVELS_PX[-1]:
            one, two = _blur(one), _blur(two)
        change, residual = _solve(one, two)
        # The residual is of the fit, so that of the warp that the step leads to, as far as it is linear.
        if step and residual > 1.5 * best_residual:
            break
        if residual < best_residual:
            best, best_residual = warp, residual
        if change is None or step == steps:
            break
        warp = _update(warp, change, here, there)
        if np.abs(change).max() * px < _CLOSE_PX:
            best = warp
            break
    return best, float(best_residual)


def _blur(image: Floats) -> Floats:
    """Without the frequencies near the sampling limit, where lines of text alias and gradients mislead."""
    for axis in (0, 1):
        padded = np.pad(image, [(1, 1) if side == axis else (0, 0) for side in (0, 1)], "edge")
        low, mid, high = (np.take(padded, range(i, i + image.shape[axis]), axis) for i in range(3))
        image = (low + 2 * mid + high) / 4
    return image


def _differs(box: Box) -> Comparison:
    return Comparison(False, 0.0, 1.0, (0.0, 0.0, 1.0, 1.0), box)


def _choose_finest(first: Image.Image, second: Image.Image, warp: Floats) -> int:
    longer = max(min(first.width, second.width * warp[0]), min(first.height, second.height * warp[2]))
    return max(_LEVELS_PX[0], min(_LEVELS_PX[-1], int(longer * _SHARE_OF_RESOLUTION)))


def _is_plausible(warp: Floats) -> bool:
    scale_x, shift_x, scale_y, shift_y = warp
    is_sane = 0.6 < scale_x < 1.6 and 0.6 < scale_y < 1.6
    return bool(is_sane and max(abs(shift_x), abs(shift_y)) < 0.5 and _overlap(warp) >= _LEAST_OVERLAP)


def _part(scale: float, shift: float) -> tuple[float, float]:
    """What of an axis of the first image lies in the second."""
    return max(0.0, -float(shift / scale)), min(1.0, float((1 - shift) / scale))


def _overlap(warp: Floats) -> float:
    (left, right), (top, bottom) = _part(*warp[:2]), _part(*warp[2:])
    return max(0.0, right - left) * max(0.0, bottom - top)


def _cut(first: Image.Image, second: Image.Image, warp: Floats, px: int) -> tuple[Floats, Floats, Box, Box]:
    """What both images show, at the same size, and where it is in each."""
    (left, right), (top, bottom) = _part(*warp[:2]), _part(*warp[2:])
    scale_x, shift_x, scale_y, shift_y = (float(value) for value in warp)
    there = [scale_x * left + shift_x, scale_y * top + shift_y, scale_x * right + shift_x, scale_y * bottom + shift_y]
    boxes = (left, top, right, bottom), tuple(min(max(value, 0.0), 1.0) for value in there)
    width, height = first.width * (right - left), first.height * (bottom - top)
    scale = px / max(width, height)
    size = max(8, round(width * scale)), max(8, round(height * scale))
    cut = [_resize(image, size, box) for image, box in zip((first, second), boxes, strict=True)]
    return cut[0], cut[1], boxes[0], boxes[1]  # type: ignore[return-value]


def _resize(image: Image.Image, size: tuple[int, int], box: Any) -> Floats:
    left, top, right, bottom = box
    width, height = image.size
    area = (left * width, top * height, min(right * width, width), min(bottom * height, height))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS, box=area), np.float64)


def _solve(first: Floats, second: Floats) -> tuple[Floats | None, float]:
    """The change of scale and shift of each axis, as shares of the part; the residual as a share of the contrast."""
    height, width = first.shape
    # The mean's gradient is right to second order; central differences are a little too small, hence the factor.
    down, across = (_GRADIENT * part for part in np.gradient((first + second) / 2))
    y, x = ((np.arange(side) + 0.5) / side - 0.5 for side in (height, width))
    columns = [second, across * (x * width), across * width, down * (y * height)[:, None], down * height]
    matrix = np.stack([(column - column.mean()).ravel() for column in columns])
    target = (first - first.mean()).ravel()
    gram = matrix @ matrix.T
    gram[np.diag_indices_from(gram)] *= 1 + 1e-6
    gram[np.diag_indices_from(gram)] += 1e-6
    found = np.linalg.solve(gram, matrix @ target)
    residual = float(np.var(target - found @ matrix) / (np.var(target) + 1.0))
    gain = found[0]
    if gain < 0.1:
        return None, 1.0
    return np.clip(found[1:] / gain, -0.1, 0.1), residual


def _update(warp: Floats, change: Floats, here: Box, there: Box) -> Floats:
    """The warp after a change that is given over the part that both show."""
    result = []
    for axis in range(2):
        low, high, start, end = here[axis], here[axis + 2], there[axis], there[axis + 2]
        center, length = (start + end) / 2, end - start
        center, length = center + length * change[2 * axis + 1], length * (1 + change[2 * axis])
        scale = length / (high - low)
        result += [scale, center - scale * (low + high) / 2]
    return np.array(result)


def _judge(first: Floats, second: Floats, first_box: Box, second_box: Box) -> Comparison:
    one, two = first - first.mean(), second - second.mean()
    gain = float((one * two).sum() / max((two**2).sum(), 1e-9))
    similarity = float((one * two).sum() / max(np.sqrt((one**2).sum() * (two**2).sum()), 1e-9))
    two *= gain
    is_clipped = (np.minimum(first, second) < _BLACK) | (np.maximum(first, second) > _WHITE)
    scores = block_scores(one, two, is_clipped)
    num, num_inside = int(np.sum(scores > 1)), int(np.sum(scores[1:-1, 1:-1] > 1))
    is_like = num <= max(1, _MOST_DIFFERENT * scores.size) and num_inside <= _MOST_DIFFERENT * scores.size
    is_same = is_like and 0.3 < gain < 3 and similarity > 0.8
    return Comparison(is_same, similarity, num / scores.size, first_box, second_box)


def block_scores(one: Floats, two: Floats, is_clipped: npt.NDArray[np.bool_]) -> Floats:
    """How much each block of 8x8 px differs; above 1 it shows something else."""
    rows, columns = (max(1, side // _BLOCK_PX) for side in one.shape)
    ys, xs = (np.linspace(0, side, num + 1).astype(int) for side, num in zip(one.shape, (rows, columns), strict=True))

    def blocks(values: Floats) -> Floats:
        sums = np.add.reduceat(np.add.reduceat(values, ys[:-1], axis=0), xs[:-1], axis=1)
        return np.asarray(sums / (np.diff(ys)[:, None] * np.diff(xs)[None, :]))

    means = [blocks(values) for values in (one, two, one - two)]
    variance = [blocks(values**2) - mean**2 for values, mean in zip((one, two, one - two), means, strict=True)]
    by_detail = variance[2] / (np.maximum(variance[0], variance[1]) + _NOISE) / _MOST_BLOCK_RESIDUAL
    most = np.where(blocks(is_clipped.astype(float)) > 0.5, _MOST_CLIPPED, _MOST_MEAN_CHANGE)
    return np.maximum(by_detail, np.abs(means[2]) / most)
