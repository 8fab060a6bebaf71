"""The flat fills of a drawn image: its few colours that cover areas, and which pixel has which of them.

A photograph has hardly any. Shapes: H and W pixels, K fills.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]
# Neighbours of a flat area differ by no more than this in any channel; colours that are this near are one fill.
_FLAT, _RADIUS, _NOISY_RADIUS = 10, 14, 30
# An image is noisy if fewer than this share of its flat pixels differ by no more than that.
_CLEAN, _CLEAN_SHARE = 2, 0.75
_MAX_FILLS = 24
# A colour this near to a fill that covers less than this share of it belongs to it.
_SPECK_RADIUS, _SPECK_SHARE = 24, 0.05
# Of a drawn image so many pixels are exactly like their neighbours, even in a JPEG file; or three colours, noise aside,
# cover so much of it. Photographs have neither.
_EXACT_SHARE, _COMMON_SHARE, _NUM_COMMON = 0.35, 0.7, 3
# A fill covers at least this share of an image, and so many pixels.
_LEAST_SHARE, _LEAST_PIXELS = 2e-4, 48
# What has less of an image than this share is a frame along its edges, of at most so many pixels, and no page.
_LEAST_PAGE, _FRAME_PX = 0.06, 4
# Between an area and a legend are at least so many rows of the page; a white line of a grid is thinner.
_BLANK_ROWS = 3
# Bins of the histogram are 8 values wide.
_BITS = 5


class Fills(NamedTuple):
    """The fills of an image, the commonest first.

    Attributes:
        planes: the image [3, H, W].
        colours: [K, 3], 0 to 255.
        labels: [H, W]: the fill of each pixel, -1 for none.
        grounds: the fills of the page and of the area within the axes, where that has its own.
        is_noisy: whether fills are not quite flat, as in a JPEG file.
    """

    planes: Pixels
    colours: npt.NDArray[np.float64]
    labels: Labels
    grounds: tuple[int, ...]
    is_noisy: bool


def find_fills(image: Tensor) -> Fills | None:
    """The fills of an image, uint8 [3, H, W]; None if most of it is not flat, or if it is a photograph."""
    planes = np.ascontiguousarray(image.cpu().numpy())
    if min(planes.shape[1:]) < 48:
        return None
    some = planes[:, ::2, ::2].astype(np.int16)
    down = np.abs(some[:, 1:, 1:] - some[:, :-1, 1:]).max(0)
    right = np.abs(some[:, 1:, 1:] - some[:, 1:, :-1]).max(0)
    is_exact = ((down == 0) & (right == 0)).mean() >= _EXACT_SHARE
    if not is_exact and not _has_few_colours(planes):
        return None
    is_flat = (down <= _FLAT) & (right <= _FLAT)
    radius = _RADIUS
    if ((down <= _CLEAN) & (right <= _CLEAN)).mean() < _CLEAN_SHARE * is_flat.mean():
        # Noise and JPEG's blocks would make two fills of one.
        planes, radius = _smooth(planes), _NOISY_RADIUS
        some = planes[:, ::2, ::2].astype(np.int16)
        is_flat = (np.abs(some[:, 1:, 1:] - some[:, :-1, 1:]).max(0) <= _FLAT) & (
            np.abs(some[:, 1:, 1:] - some[:, 1:, :-1]).max(0) <= _FLAT
        )
    if is_flat.mean() < 0.5:
        return None
    codes = _code(planes)
    flat_codes = codes[2::2, 2::2][: is_flat.shape[0], : is_flat.shape[1]][is_flat]
    counts = np.bincount(flat_codes, minlength=1 << (3 * _BITS)).astype(np.int64)
    least = max(_LEAST_PIXELS, _LEAST_SHARE * codes.size) / 4
    table, colours = _choose_colours(counts, least, radius)
    if not len(colours) or counts[table >= 0].sum() < 0.75 * counts.sum():
        return None  # a gradient
    labels = table.take(codes)
    return Fills(planes, colours, labels, _find_grounds(labels, len(colours)), radius != _RADIUS)


def _has_few_colours(planes: Pixels) -> bool:
    """Whether a few colours cover most of an image, by the means of 4x4 pixels, in which noise is weak."""
    small = F.avg_pool2d(torch.from_numpy(planes)[None].float(), 4)[0].round().to(torch.uint8).numpy()
    counts = np.bincount(_code(small).ravel(), minlength=1 << (3 * _BITS)).astype(np.int64)
    table, colours = _choose_colours(counts, _LEAST_SHARE * counts.sum(), _NOISY_RADIUS)
    covered = np.bincount(table[table >= 0], counts[table >= 0], minlength=len(colours))
    return bool(np.sort(covered)[-_NUM_COMMON:].sum() >= _COMMON_SHARE * counts.sum())


def _code(planes: Pixels) -> npt.NDArray[np.uint16]:
    red, green, blue = (planes >> (8 - _BITS)).astype(np.uint16)
    return (red << (2 * _BITS)) | (green << _BITS) | blue


def _smooth(planes: Pixels) -> Pixels:
    """The means of 3x3 pixels."""
    smooth = F.avg_pool2d(torch.from_numpy(planes)[None].float(), 3, stride=1, padding=1, count_include_pad=False)
    result: Pixels = smooth[0].round().to(torch.uint8).numpy()
    return result


def _choose_colours(counts: npt.NDArray[np.int64], least: float, radius: int) -> tuple[Labels, npt.NDArray[np.float64]]:
    """The fill of each bin of colours, -1 for none, and the fills' colours: peaks of the histogram."""
    used = np.flatnonzero(counts)
    width = 1 << (8 - _BITS)
    centres = np.stack([used >> (2 * _BITS), (used >> _BITS) & 31, used & 31], -1) * width + (width - 1) / 2
    left = counts[used].copy()
    colours: list[npt.NDArray[np.float64]] = []
    totals: list[int] = []
    twins: list[tuple[npt.NDArray[np.float64], int]] = []
    while len(colours) < _MAX_FILLS and len(twins) < _MAX_FILLS:
        best = int(left.argmax())
        near = (np.abs(centres - centres[best]).max(-1) <= radius) & (left > 0)
        total = int(left[near].sum())
        if left[best] <= 0 or total < least:
            break
        colour = (centres[near] * left[near, None]).sum(0) / total
        left[near] = 0
        # Specks in a fill, such as JPEG makes, are no fill of their own.
        owner = next((i for i, other in enumerate(colours) if np.abs(other - colour).max() <= _SPECK_RADIUS
                      and total < _SPECK_SHARE * totals[i]), None)  # fmt: skip
        if owner is None:
            colours.append(colour)
            totals.append(total)
        else:
            twins.append((colour, owner))
    table = np.full(len(counts), -1, dtype=np.int16)
    if not colours:
        return table, np.zeros((0, 3))
    stacked = np.stack(colours)
    every = np.arange(len(counts))
    grid = np.stack([every >> (2 * _BITS), (every >> _BITS) & 31, every & 31], -1) * width + (width - 1) / 2
    best_distance = np.full(len(counts), np.inf)
    for colour, i in [*((colour, i) for i, colour in enumerate(stacked)), *twins]:
        distance = np.abs(grid - colour).max(-1)
        is_nearer = (distance <= radius + 4) & (distance < best_distance)
        table[is_nearer], best_distance = i, np.where(is_nearer, distance, best_distance)
    return table, stacked


def find_area(counts: npt.NDArray[np.int64], is_drawn: Bools) -> npt.NDArray[np.int64]:
    """The rows, or columns, of an area by how many pixels of its fill they have, without a legend of that fill outside.

    ``is_drawn``: which have anything but the page, of which several lie between the two.
    """
    found = np.flatnonzero(counts > 0.3 * counts.max())
    if not len(found):
        return found
    blank = np.concatenate(([0], np.cumsum(~is_drawn)))
    parts = np.split(found, np.flatnonzero(blank[found[1:]] - blank[found[:-1]] >= _BLANK_ROWS) + 1)
    return max(parts, key=lambda part: int(part[-1] - part[0]))


def _find_page(labels: Labels, count: int) -> int:
    """The fill of the page: what an image's edges have, but for a thin frame along them."""
    page = 0
    for depth in (0, _FRAME_PX, 2 * _FRAME_PX):
        inner = labels[depth : labels.shape[0] - depth, depth : labels.shape[1] - depth]
        border = np.concatenate((inner[:3].ravel(), inner[-3:].ravel(), inner[:, :3].ravel(), inner[:, -3:].ravel()))
        border = border[border >= 0]
        if len(border):
            page = int(np.bincount(border, minlength=count).argmax())
            if (labels[::2, ::2] == page).mean() >= _LEAST_PAGE:
                break
    return page


def _find_grounds(labels: Labels, count: int) -> tuple[int, ...]:
    page = _find_page(labels, count)
    grounds = [page]
    some = labels[::2, ::2]
    height, width = some.shape
    for fill in range(min(count, 6)):
        if fill == page:
            continue
        mask = some == fill
        rows, columns = mask.sum(1), mask.sum(0)
        y, x = find_area(rows, (some != page).any(1)), find_area(columns, (some != page).any(0))
        if not len(y) or not len(x) or y[-1] - y[0] < 0.4 * height or x[-1] - x[0] < 0.45 * width:
            continue
        area = mask[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        edges = (area[:9].mean(1).max(), area[:, :9].mean(0).max(), area[:, -9:].mean(0).max())
        # Bars that lie leave rows without their fill; a ground is everywhere between what stands on it.
        is_whole = min((area.mean(i) > 0.02).mean() for i in (0, 1)) > 0.9
        if is_whole and min(edges) >= 0.55:
            grounds.append(fill)
    return tuple(grounds)
