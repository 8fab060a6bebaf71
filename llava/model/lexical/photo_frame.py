"""The frame around a photograph, a border of one color or bars at two sides, which is no part of what it shows."""

from __future__ import annotations

import torch

# Pixels of one color differ by no more than this. The edge of what is inside the frame differs by more in at least this
# share of its length: what is cut out before a white ground has no straight edges.
_SAME, _EDGE_SHARE = 12, 0.7
# At most this share of a side is frame.
_MOST_FRAME = 0.45

Frame = tuple[float, float, float, float]


def find_frame(canvas_3HW: torch.Tensor) -> Frame:
    """Where the photograph within a frame is, as parts of the canvas, uint8: left, top, right and bottom.

    A frame is at two opposite sides or at all four; (0, 0, 1, 1) where there is none.
    """
    ends = [0.0, 1.0, 0.0, 1.0]
    lines_3NM = canvas_3HW
    for axis in (0, 1):  # rows, columns
        first, last = _count_even(lines_3NM), _count_even(lines_3NM.flip(1))
        length = lines_3NM.shape[1]
        if first and last and first + last < 2 * _MOST_FRAME * length:
            lines_3NM = lines_3NM[:, first : length - last]
            ends[2 * axis : 2 * axis + 2] = first / length, 1 - last / length
        lines_3NM = lines_3NM.transpose(1, 2)
    return ends[2], ends[0], ends[3], ends[1]


def cut(image_CHW: torch.Tensor, frame: Frame) -> torch.Tensor:
    """What is within a frame."""
    height, width = image_CHW.shape[-2:]
    left, top, right, bottom = frame
    return image_CHW[..., round(top * height) : round(bottom * height), round(left * width) : round(right * width)]


def _count_even(lines_3NM: torch.Tensor) -> int:
    """How many of the first rows have the first pixel's color, if the next have it hardly anywhere; else none."""
    colour_311 = lines_3NM[:, :1, :1].int()
    low_311, high_311 = ((colour_311 + by).clamp(0, 255).byte() for by in (-_SAME, _SAME))
    if _differ(lines_3NM[:, :1], low_311, high_311).any():  # as in most photographs
        return 0
    away_NM = _differ(lines_3NM, low_311, high_311)
    count = int(away_NM.any(1).int().argmax())
    # The first row after it may be blurred.
    shares = away_NM[count : count + 4].sum(1) / away_NM.any(0).sum().clamp(min=1)
    return count if count and float(shares.max()) >= _EDGE_SHARE else 0


def _differ(lines_3NM: torch.Tensor, low_311: torch.Tensor, high_311: torch.Tensor) -> torch.Tensor:
    """Which pixels have a value out of the bounds."""
    return ((lines_3NM < low_311) | (lines_3NM > high_311)).any(0)
