"""Where a bar's fill ends, in the image's own pixels: the net sees a smaller image and is a pixel or two off."""

from __future__ import annotations

import torch
from torch import Tensor

Box = tuple[float, float, float, float]
# A pixel is of the fill if no channel is further than this from the fill's median.
_TOLERANCE = 36
# Lines of a grid and printed digits that cross a bar do not end it.
_MAX_GAP_PX = 3


def refine_bar(image: Tensor, box: Box, slack_px: float) -> Box:
    """The box with each edge moved to the end of the fill, where that lies near; an edge without one stays.

    Args:
        image: uint8 [3, H, W].
        slack_px: how far the box may be off, beside 6 % of its length.
    """
    height, width = image.shape[-2:]
    left, top, right, bottom = box
    margin_x, margin_y = slack_px + 0.06 * (right - left), slack_px + 0.06 * (bottom - top)
    x0, x1 = max(0, int(left - margin_x)), min(width, int(right + margin_x) + 1)
    y0, y1 = max(0, int(top - margin_y)), min(height, int(bottom + margin_y) + 1)
    crop = image[:, y0:y1, x0:x1].to(torch.int16)
    core = _cut(crop, left - x0, top - y0, right - x0, bottom - y0)
    fill = core.flatten(1).median(1).values
    if ((core - fill[:, None, None]).abs().amax(0) <= _TOLERANCE).float().mean() < 0.6:
        return box  # a pattern or a mistake
    is_fill = ((crop - fill[:, None, None]).abs().amax(0) <= _TOLERANCE).float()
    rows = is_fill[:, _span(left - x0, right - x0, is_fill.shape[1])].mean(1) >= 0.5
    columns = is_fill[_span(top - y0, bottom - y0, is_fill.shape[0])].mean(0) >= 0.5
    new_top, new_bottom = _find_ends(rows.tolist(), top - y0, bottom - y0, margin_y)
    new_left, new_right = _find_ends(columns.tolist(), left - x0, right - x0, margin_x)
    return new_left + x0, new_top + y0, new_right + x0, new_bottom + y0


def _span(low: float, high: float, size: int) -> slice:
    """The middle half of an interval, at least one pixel."""
    quarter = (high - low) / 4
    first = min(max(0, int(low + quarter)), size - 1)
    return slice(first, max(first + 1, min(size, int(high - quarter + 0.5))))


def _cut(crop: Tensor, left: float, top: float, right: float, bottom: float) -> Tensor:
    height, width = crop.shape[-2:]
    return crop[:, _span(top, bottom, height), _span(left, right, width)]


def _find_ends(is_fill: list[bool], low: float, high: float, margin: float) -> tuple[float, float]:
    """The ends of the run of fill that reaches from ``low`` to ``high``; an end further off than the margin stays."""
    start = min(max(0, int((low + high) / 2)), len(is_fill) - 1)
    return _walk(is_fill, start, -1, low, margin), _walk(is_fill, start, 1, high, margin)


def _walk(is_fill: list[bool], start: int, step: int, expected: float, margin: float) -> float:
    # From just inside of where the end is expected, so that text inside the bar does not matter.
    at = int(expected - step * margin)
    at = max(at, start) if step > 0 else min(at, start)
    at = min(max(at, 0), len(is_fill) - 1)
    last, gap = None, 0
    while 0 <= at < len(is_fill) and gap <= _MAX_GAP_PX:
        if is_fill[at]:
            last, gap = at, 0
        else:
            gap += 1
        at += step
    if last is None or (gap == 0 and not 0 <= at < len(is_fill)):
        return expected  # no fill, or no end of it within sight
    end = float(last + 1) if step > 0 else float(last)
    return end if abs(end - expected) <= margin + 1 else expected
