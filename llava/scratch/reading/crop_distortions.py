"""Crops of lines made into lines of other faces: slanted, stretched, bent, bolder or lighter, blurred or sharpened.

All crops of a batch at once, each by its own amounts, so that a drawn line is another one each time it is trained on.

Shapes: N crops of height H and width W in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# How many of the crops keep their form, and how many become bolder or lighter, blurred or sharpened, and noisy.
_UNBENT, _WEIGHED, _BLURRED, _NOISY = 0.25, 0.35, 0.25, 0.15
# The baseline of most crops, about which they are slanted and stretched.
_BASELINE_PX = 17.0
# Standard deviations: pixels to the right per pixel up, of the height, of the place along the line and up and down, and
# of every point of a net with meshes of so many pixels.
_SLANT, _TALLER, _ALONG_PX, _UP_PX, _BEND_PX = 0.13, 0.05, 1.2, 0.35, 0.45
_MESH_ALONG_PX, _MESH_PX = 20, 6


def distort(crops_N3HW: Tensor) -> Tensor:
    """Crops of 0 to 255, whose padding repeats their right edge, each distorted in its own way."""
    crops_N3HW = _bend(crops_N3HW)
    _weigh(crops_N3HW)
    chosen = torch.rand(len(crops_N3HW)) < _BLURRED
    blurred = F.avg_pool2d(crops_N3HW[chosen], 3, 1, 1, count_include_pad=False)
    crops_N3HW[chosen] = torch.lerp(crops_N3HW[chosen], blurred, _uniform(blurred, -0.5, 0.8))
    chosen = torch.rand(len(crops_N3HW)) < _NOISY
    grey = crops_N3HW[chosen][:, :1]
    crops_N3HW[chosen] += torch.randn_like(grey) * _uniform(grey, 0, 9)
    return crops_N3HW.clamp(0, 255)


def _bend(crops_N3HW: Tensor) -> Tensor:
    """Crops whose pixels come from places beside their own."""
    num, _, height, width = crops_N3HW.shape
    y_H = torch.arange(height) - _BASELINE_PX
    is_bent_N11 = (torch.rand(num, 1, 1) >= _UNBENT).float()
    along_NW, up_NW = _net(num, 2, 1, width, _MESH_ALONG_PX)[:, :, 0].unbind(1)
    bend_N2HW = _uniform(crops_N3HW, 0, 2 * _BEND_PX) * _net(num, 2, height, width, _MESH_PX)
    slant_N11, taller_N11 = torch.randn(2, num, 1, 1).unbind()
    dx_NHW = _ALONG_PX * along_NW[:, None] + _SLANT * slant_N11 * y_H[:, None] + bend_N2HW[:, 0]
    dy_NHW = _UP_PX * up_NW[:, None] + _TALLER * taller_N11 * y_H[:, None] + bend_N2HW[:, 1]
    x_NHW = torch.arange(width) + is_bent_N11 * dx_NHW
    y_NHW = torch.arange(height)[:, None] + is_bent_N11 * dy_NHW
    grid = torch.stack((x_NHW * (2 / (width - 1)) - 1, y_NHW * (2 / (height - 1)) - 1), dim=-1)
    return F.grid_sample(crops_N3HW, grid, padding_mode="border", align_corners=True)


def _weigh(crops_N3HW: Tensor) -> None:
    """Makes the light or the dark strokes of some crops, whichever, wider by up to half a pixel."""
    for sign in (1, -1):
        chosen = torch.rand(len(crops_N3HW)) < _WEIGHED / 2
        wider = sign * F.max_pool2d(sign * crops_N3HW[chosen], 3, 1, 1)
        crops_N3HW[chosen] = torch.lerp(crops_N3HW[chosen], wider, _uniform(wider, 0, 0.6))


def _net(num: int, channels: int, height: int, width: int, mesh_px: int) -> Tensor:
    """Random smooth surfaces with a standard deviation of about 1 at the knots."""
    knots = torch.randn(num, channels, height // mesh_px + 1, width // mesh_px + 2)
    return F.interpolate(knots, (height, width), mode="bilinear", align_corners=True)


def _uniform(like_N3HW: Tensor, low: float, high: float) -> Tensor:
    return torch.empty(len(like_N3HW), 1, 1, 1).uniform_(low, high)
