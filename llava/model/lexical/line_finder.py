"""Finds lines of text on an image of any size: where each stands, how high its capitals are, how steep it is.

A small convolutional network looks at the image and at its halves, quarters and so on, because it only knows type with
capitals of about 5 to 20 px. At every fourth pixel it says how far the baseline is below and how high capitals are; at
every second, whether a line's core (its middle, so that lines do not touch) is there. Cores become lines, and lines
found at two sizes are merged.

Shapes: N images, H and W in pixels, C channels, M maps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llava.model.lexical.components import find_components

Columns = npt.NDArray[np.float64]

STRIDE = 4
# A core reaches from this share of the capitals' height above the baseline to that one, and ends this share before the
# line does.
CORE_LOW, CORE_HIGH, CORE_INSET = 0.15, 0.75, 0.15
# Heights of capitals in px of a level that its lines are taken from.
SMALLEST_CAPITAL, LARGEST_CAPITAL = 4.5, 21.0
# The maps: four of the core, for the four pixels of stride 2 in one of stride 4, the baseline and the capitals' height.
NUM_MAPS = 6
_BASELINE_UNIT_PX, _CAPITAL_UNIT_PX = 8.0, 10.0
_DIVISOR = 16
_MAX_LEVELS = 7


class TextLine(NamedTuple):
    """A line on the image, in pixels: its ends, its baseline at the left end, its slope, its capitals' height.

    ``slope``: how far the baseline falls per pixel to the right. ``score``: 0 to 1.
    """

    left: float
    right: float
    baseline: float
    slope: float
    capital: float
    score: float


class _Step(nn.Module):
    def __init__(
        self, channels_in: int, channels: int, stride: int = 1, is_residual: bool = False, dilation: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, dilation, dilation, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.is_residual = is_residual

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = F.relu(self.norm(self.conv(x_NCHW)))
        return x_NCHW + y_NCHW if self.is_residual else y_NCHW


class LineFinder(nn.Module):
    """An image -> its lines of text, or maps of one size of it for training."""

    def __init__(self, threshold: float = 0.3, least_score: float = 0.4) -> None:
        super().__init__()
        self.threshold, self.least_score = threshold, least_score
        self.stem = _Step(3, 16, 2)
        self.quarter = nn.Sequential(_Step(16, 32, 2), _Step(32, 32, is_residual=True))
        self.eighth = nn.Sequential(_Step(32, 64, 2), _Step(64, 64, is_residual=True))
        self.sixteenth = nn.Sequential(
            _Step(64, 96, 2), _Step(96, 96, is_residual=True), _Step(96, 96, is_residual=True, dilation=2)
        )
        self.down_16 = nn.Conv2d(96, 64, 1)
        self.join_8 = _Step(64, 64, is_residual=True)
        self.down_8 = nn.Conv2d(64, 32, 1)
        self.join_4 = _Step(32, 32, is_residual=True)
        self.maps = nn.Conv2d(32, NUM_MAPS, 1)
        nn.init.constant_(self.maps.bias[:4], -2.0)  # type: ignore[index]

    def forward(self, pixels_N3HW: Tensor) -> Tensor:
        """Maps [N, 6, H/4, W/4] of pixels from ``scale_pixels``; H and W are multiples of 16."""
        quarter = self.quarter(self.stem(pixels_N3HW))
        eighth = self.eighth(quarter)
        up = F.interpolate(self.down_16(self.sixteenth(eighth)), scale_factor=2.0, mode="nearest")
        up = F.interpolate(self.down_8(self.join_8(eighth + up)), scale_factor=2.0, mode="nearest")
        maps: Tensor = self.maps(self.join_4(quarter + up))
        return maps

    @torch.inference_mode()
    def find(self, levels: list[Tensor]) -> list[TextLine]:
        """The lines of an image given as ``make_levels`` makes it, in no order."""
        found = []
        for depth, level_3HW in enumerate(levels):
            lines = _read_maps(*self._run(level_3HW), self.threshold)
            found += [
                _enlarge(line, 2**depth)
                for line in lines
                if line.score >= self.least_score
                and line.capital >= SMALLEST_CAPITAL
                and (line.capital <= LARGEST_CAPITAL or depth == len(levels) - 1)
            ]
        return merge_levels(found)

    def _run(self, level_3HW: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Probabilities of the core [H/2, W/2], and baseline and capital in px of the level [2, H/4, W/4]."""
        height, width = level_3HW.shape[1:]
        pad = (0, -width % _DIVISOR, 0, -height % _DIVISOR)
        pixels = F.pad(scale_pixels(level_3HW)[None], pad, mode="replicate").contiguous(
            memory_format=torch.channels_last
        )
        maps = self(pixels)
        core = torch.sigmoid(F.pixel_shuffle(maps[:, :4], 2))[0, 0, : -(-height // 2), : -(-width // 2)]
        baseline = maps[0, 4] * _BASELINE_UNIT_PX
        capital = maps[0, 5].clamp(-3, 3).exp() * _CAPITAL_UNIT_PX
        return core.float().numpy(), torch.stack((baseline, capital)).float().numpy()


def scale_pixels(pixels: Tensor) -> Tensor:
    """Pixels of 0 to 255 as the network takes them."""
    return (pixels.float() - 128.0) / 64.0


def measure_targets(baseline_px: Tensor, capital_px: Tensor) -> Tensor:
    """What the last two maps are for, [2, ...], from a baseline's distance below a pixel and a capital's height."""
    return torch.stack((baseline_px / _BASELINE_UNIT_PX, (capital_px / _CAPITAL_UNIT_PX).log()))


def make_levels(image_3HW: Tensor) -> list[Tensor]:
    """An image as float of 0 to 255 and its halves, quarters and so on, until it is only a line high."""
    levels = [image_3HW.float()]
    while len(levels) < _MAX_LEVELS and min(levels[-1].shape[1:]) >= 40:
        levels.append(F.avg_pool2d(levels[-1][None], 2)[0])
    return levels


def _read_maps(
    core_HW: npt.NDArray[np.float32], sizes_2HW: npt.NDArray[np.float32], threshold: float
) -> list[TextLine]:
    """The lines of one level: a component of the core each, with a straight baseline fitted to its pixels."""
    parts = find_components(core_HW > threshold)
    if not parts.num_parts:
        return []
    x = parts.columns * 2 + 1.0
    below, capitals = sizes_2HW[:, parts.rows // 2, parts.columns // 2]
    # The map's distance is from the middle of its pixel of stride 4.
    baselines = parts.rows // 2 * STRIDE + STRIDE / 2 + below
    weights = core_HW[parts.rows, parts.columns].astype(np.float64)

    def total(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.bincount(parts.labels, values, parts.num_parts).astype(np.float64)

    mass, pixels = total(weights), total(np.ones_like(weights))
    middle_x, middle_b = total(weights * x) / mass, total(weights * baselines) / mass
    capital = np.exp(total(weights * np.log(capitals)) / mass)
    away = x - middle_x[parts.labels]
    slope = total(weights * away * baselines) / (total(weights * away * away) + mass * (2 * capital) ** 2)
    left, right = np.full(parts.num_parts, np.inf), np.full(parts.num_parts, -np.inf)
    np.minimum.at(left, parts.labels, x - 1)
    np.maximum.at(right, parts.labels, x + 1)
    # A core is about .6 capitals thick: a speck or a rag is no line.
    solid = pixels * 4 / np.maximum((right - left) * capital * (CORE_HIGH - CORE_LOW), 1)
    score = np.clip(mass / pixels, 0, 1) * np.clip(solid * 1.6, 0, 1)
    baseline = middle_b - slope * (middle_x - left)
    return [
        TextLine(*map(float, row))
        for row in zip(left, right, baseline, slope, capital, score, strict=True)
        if row[1] - row[0] > 0.3 * row[4]
    ]


def _enlarge(line: TextLine, scale: int) -> TextLine:
    return TextLine(
        line.left * scale, line.right * scale, line.baseline * scale, line.slope, line.capital * scale, line.score
    )


def merge_levels(lines: list[TextLine]) -> list[TextLine]:
    """The lines without those that lie on a better one: a surer one, or a longer one that is about as sure."""
    if not lines:
        return []
    left, right, _, _, capital, score = np.array(lines).T
    order = np.argsort(-score * ((right - left) / capital) ** 0.15, kind="stable").tolist()
    kept: list[TextLine] = []
    columns = np.empty((len(TextLine._fields), len(lines)))  # of those kept
    for i in order:
        if not (_shares_covered(lines[i], columns[:, : len(kept)]) > 0.4).any():
            columns[:, len(kept)] = lines[i]
            kept.append(lines[i])
    return kept


def _shares_covered(line: TextLine, others: Columns) -> Columns:
    """The share of the smaller one of two lines' boxes, from baseline to capitals' top, that both cover, for each of
    ``others`` [6, N]."""
    left, right, baseline, slope, capital, _ = others
    x0, x1 = np.maximum(left, line.left), np.minimum(right, line.right)
    x = (x0 + x1) / 2
    own, y = line.baseline + line.slope * (x - line.left), baseline + slope * (x - left)
    high = np.minimum(own, y) - np.maximum(own - line.capital, y - capital)
    smaller = np.minimum((line.right - line.left) * line.capital, (right - left) * capital)
    shares: Columns = np.clip(high, 0, None) * np.clip(x1 - x0, 0, None) / smaller
    return shares
