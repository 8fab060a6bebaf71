"""Colours of an image and of the cells of a 3x3 grid laid over it, as three numbers each.

Letters in shapes: T images, H height, W width, C channels.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

GROUND_WEIGHT = 1e-3
"""Weight of a pixel that has the ground's colour, beside the squared difference of one that differs."""


def average_colours(pixels_TCHW: torch.Tensor) -> torch.Tensor:
    """Mean RGB [T, 10, 3] of the whole image and of its cells, row by row, for pixels in 0..1."""
    cells = F.adaptive_avg_pool2d(pixels_TCHW, 3).flatten(2).transpose(1, 2)
    return torch.cat([cells.mean(1, keepdim=True), cells], 1)


def contrast_colours(pixels_TCHW: torch.Tensor) -> torch.Tensor:
    """Mean RGB [T, 10, 3] of what differs from the image's ground, of the whole image and of its cells.

    The ground's colour is the median of the image's border. A cell that is nothing but ground has the ground's colour.
    """
    border_TCN = torch.cat([pixels_TCHW[..., :6, :].flatten(2), pixels_TCHW[..., -6:, :].flatten(2),
                            pixels_TCHW[..., :6].flatten(2), pixels_TCHW[..., -6:].flatten(2)], 2)  # fmt: skip
    ground_TC11 = border_TCN.median(2).values[..., None, None]
    weight_T1HW = (pixels_TCHW - ground_TC11).abs().mean(1, keepdim=True).square() + GROUND_WEIGHT
    sums = F.adaptive_avg_pool2d(torch.cat([pixels_TCHW * weight_T1HW, weight_T1HW], 1), 3).flatten(2).transpose(1, 2)
    sums = torch.cat([sums.mean(1, keepdim=True), sums], 1)
    return sums[..., :3] / sums[..., 3:]
