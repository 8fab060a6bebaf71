"""A second look at the margins of a chart: enlarged for short labels that were missed, turned for an axis' name.

The reader takes figures and names of three letters for specks now and then; twice as large, it misses other ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from llava.model.lexical.chart_reading import ReadLine
from llava.model.lexical.flat_fills import Fills
from llava.model.lexical.object_finder import Box, share_area

Read = Callable[[Tensor], Sequence[Any]]
_SCALE = 2
# A strip is not read if it has more pixels than this: nothing then is too small to be read.
_MAX_PIXELS = 1_200_000


class SeenText(NamedTuple):
    """A line that was read in a strip, with its box on the whole canvas."""

    text: str
    box: Box
    ink: str
    ground: str
    score: float


def read_margins(canvas: Tensor, lines: Sequence[Any], plot: Box, read: Read) -> list[Any]:
    """The lines, with what an enlarged view of the margins left of and below a plot holds beside them.

    Args:
        canvas: uint8 [3, H, W].
        plot: the box of what is drawn, in pixels.
        read: the reader of lines.
    """
    height, width = canvas.shape[1:]
    left, bottom = (
        int(min(max(plot[0], 0.04 * width), 0.4 * width)),
        int(max(min(plot[3], 0.96 * height), 0.6 * height)),
    )
    found: list[Any] = []
    for x0, y0, x1, y1 in ((0, 0, left, min(height, bottom + (height - bottom) // 2)), (0, bottom, width, height)):
        strip = canvas[:, y0:y1, x0:x1]
        if strip.numel() == 0 or strip.shape[1] * strip.shape[2] * _SCALE**2 > 3 * _MAX_PIXELS:
            continue
        large = F.interpolate(strip[None].float(), scale_factor=float(_SCALE), mode="bicubic", align_corners=False)
        for line in read(large[0].round().clamp(0, 255).to(torch.uint8)):
            box = tuple(value / _SCALE + shift for value, shift in zip(line.box, (x0, y0, x0, y0), strict=True))
            found.append(SeenText(line.text, box, line.ink, line.ground, line.score))
    return _join(lines, found)


def _join(lines: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    """The lines and those found that lie on none of them; one found that says more than a part of it replaces it."""
    joined = list(lines)
    for line in found:
        if not any(map(str.isalnum, line.text)):
            continue
        on = [i for i, other in enumerate(joined) if _overlap(line.box, other.box) > 0.25]
        if not on:
            joined.append(line)
        elif len(on) == 1 and len(joined[on[0]].text) < len(line.text) < 16 and " " not in line.text:
            other = joined[on[0]].text.strip()
            if other.lower() in line.text.lower() or not any(map(str.isalnum, other)):
                joined[on[0]] = line
    return sorted(joined, key=lambda line: (line.box[1] + line.box[3], line.box[0]))


def _overlap(a: Box, b: Box) -> float:
    """The share of the smaller one of two boxes that both cover."""
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return share_area(a, b) / max(smaller, 1e-6)


def read_turned_name(canvas: Tensor, fills: Fills, lines: Sequence[ReadLine], plot: Box, read: Read) -> str:
    """What stands turned by 90 degrees left of the lines beside a plot, read upwards; "" if nothing does."""
    height = fills.labels.shape[0]
    beside = [line.box[0] for line in lines if line.box[2] <= plot[0] + 3 and plot[1] - 9 < line.box[3] < plot[3] + 20]
    end = int(min([plot[0], *beside])) - 1
    if end < 8:
        return ""
    page = fills.colours[fills.grounds[0]]
    away = np.zeros((height, end), dtype=bool)
    for plane, value in zip(fills.planes[:, :, :end], page, strict=True):
        away |= np.abs(plane.astype(np.int16) - round(value)) > 60
    columns, rows = np.flatnonzero(away.any(0)), np.flatnonzero(away.any(1))
    if len(columns) < 4 or len(rows) < 12 or columns[-1] - columns[0] > 0.12 * height:
        return ""
    margin = 6
    top, bottom = max(0, int(rows[0]) - 3 * margin), min(height, int(rows[-1]) + 3 * margin)
    left, right = max(0, int(columns[0]) - margin), min(end, int(columns[-1]) + 1 + margin)
    strip = canvas[:, top:bottom, left:right]
    turned = torch.rot90(F.pad(strip.float(), (margin,) * 4, mode="replicate").to(torch.uint8), -1, (1, 2))
    words = [line.text.strip() for line in read(turned.contiguous()) if sum(map(str.isalpha, line.text)) > 1]
    return " ".join(words)


def find_name_below(lines: Sequence[ReadLine], used: Sequence[int], plot: Box) -> int | None:
    """The index of the line that names the axis below a plot: the next under its labels, near the middle."""
    lowest = max([lines[i].box[3] for i in used if lines[i].box[1] > plot[3] - 12], default=plot[3])
    middle, reach = (plot[0] + plot[2]) / 2, 0.2 * (plot[2] - plot[0])
    below = [
        i
        for i, line in enumerate(lines)
        if i not in used
        and line.box[1] >= lowest - 0.3 * (line.box[3] - line.box[1])
        and abs((line.box[0] + line.box[2]) / 2 - middle) <= reach
        and sum(map(str.isalpha, line.text)) > 1
    ]
    return min(below, key=lambda i: lines[i].box[1]) if below else None
