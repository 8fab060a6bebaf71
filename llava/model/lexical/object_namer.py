"""Names what is in a box: its kind, its colour, or that it is no drawn object.

A small net that sees only the box and a little around it, at 32x32 px. It learns from thousands of boxes a second, so
it knows kinds and colours far better than the net that finds the boxes, which sees what is around them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Box = tuple[float, float, float, float]
SIDE_PX = 32
# The crop's side over the box's longer side.
_AROUND = 1.35
_LEAST_PX = 9.0


class ObjectNamer(nn.Module):
    """Logits of kinds, of "no object", and of colours.

    Args:
        num_kinds, num_colors: without "no object".
    """

    def __init__(self, num_kinds: int, num_colors: int, widths: tuple[int, int, int, int] = (24, 48, 64, 96)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width_in = 3
        for i, width in enumerate(widths):
            conv = nn.Conv2d(width_in, width, 3, 1 if i == 0 else 2, 1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
            width_in = width
        self.layers = nn.Sequential(*layers)
        cells = (SIDE_PX // 8) ** 2
        self.hidden = nn.Linear(width_in * cells, 128, bias=False)
        self.norm = nn.BatchNorm1d(128)
        self.head = nn.Linear(128, num_kinds + 1 + num_colors)

    def forward(self, crops_B3SS: Tensor) -> Tensor:
        """[B, kinds + 1 + colours], from crops as ``cut_crops`` makes them."""
        logits: Tensor = self.head(F.relu(self.norm(self.hidden(self.layers(crops_B3SS).flatten(1)))))
        return logits


def cut_crops(pixels_CHW: Tensor, boxes: Sequence[Box]) -> Tensor:
    """The boxes with a little around them, [B, 3, 32, 32], undistorted; the image's edge is continued outwards.

    ``pixels_CHW``: float, at the size at which the finder's net sees the image.
    """
    height, width = pixels_CHW.shape[-2:]
    crops = []
    for x0, y0, x1, y1 in boxes:
        side = max(_LEAST_PX, _AROUND * max(x1 - x0, y1 - y0))
        left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
        right, bottom = left + round(side), top + round(side)
        inner_left, inner_right = (min(max(x, 0), width) for x in (left, right))
        inner_top, inner_bottom = (min(max(y, 0), height) for y in (top, bottom))
        if inner_left >= inner_right or inner_top >= inner_bottom:
            crops.append(torch.zeros(3, SIDE_PX, SIDE_PX, dtype=pixels_CHW.dtype, device=pixels_CHW.device))
            continue
        part = pixels_CHW[None, :, inner_top:inner_bottom, inner_left:inner_right]
        edges = (inner_left - left, right - inner_right, inner_top - top, bottom - inner_bottom)
        if any(edges):
            part = F.pad(part, edges, mode="replicate")
        crops.append(F.interpolate(part, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True, align_corners=False)[0])
    return torch.stack(crops)
