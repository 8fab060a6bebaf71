"""A second look at the margins of a chart: enlarged for short labels that were missed, turned for an axis' name.

The reader takes figures and names of three letters for specks now and then; twice as large, it misses other ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llava.model.lexical.chart_reading import ReadLine
from llava.model.lexical.components import find_components
from llava.model.lexical.flat_fills import Bools, Fills
from llava.model.lexical.object_finder import Box, share_area

Read = Callable[[Tensor], Sequence[Any]]
_SCALE = 2
# A strip is not read if it has more pixels than this: nothing then is too small to be read.
_MAX_PIXELS = 1_200_000
# Slanted labels are enlarged until the lines of the chart would be so high, or by _SCALE.
_READ_PX = 32.0
# A word is long, and its angle known, if it is so many times longer than high; it slants from so many degrees on.
_LONG, _LEAST_ANGLE = 1.7, 20.0
_MOST_LABELS = 40
# Text below a plot has at most so many runs of pixels; a texture has more.
_MOST_RUNS = 15_000
# A name that is lower than this is read enlarged.
_SMALL_PX = 20


class SeenText(NamedTuple):
    """A line that was read in a strip, with its box on the whole canvas."""

    text: str
    box: Box
    ink: str
    ground: str
    score: float


def read_margins(canvas: Tensor, lines: Sequence[Any], plot: Box, read: Read, *, below: bool = True) -> list[Any]:
    """The lines, with what an enlarged view of the margins left of and below a plot holds beside them.

    Args:
        canvas: uint8 [3, H, W].
        plot: the box of what is drawn, in pixels.
        read: the reader of lines.
        below: whether the margin below is looked at.
    """
    height, width = canvas.shape[1:]
    left, bottom = (
        int(min(max(plot[0], 0.04 * width), 0.4 * width)),
        int(max(min(plot[3], 0.96 * height), 0.6 * height)),
    )
    found: list[Any] = []
    strips = [(0, 0, left, min(height, bottom + (height - bottom) // 2)), (0, bottom, width, height)]
    for x0, y0, x1, y1 in strips if below else strips[:1]:
        strip = canvas[:, y0:y1, x0:x1]
        if strip.numel() == 0 or strip.shape[1] * strip.shape[2] * _SCALE**2 > 3 * _MAX_PIXELS:
            continue
        for line in read(_enlarge(strip, _SCALE)):
            box = tuple(value / _SCALE + shift for value, shift in zip(line.box, (x0, y0, x0, y0), strict=True))
            found.append(SeenText(line.text, box, line.ink, line.ground, line.score))
    return _join(lines, found)


def _enlarge(strip: Tensor, scale: float) -> Tensor:
    large = F.interpolate(strip[None].float(), scale_factor=float(scale), mode="bicubic", align_corners=False)
    return large[0].round().clamp(0, 255).to(torch.uint8)


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


def read_turned_name(
    canvas: Tensor, fills: Fills, lines: Sequence[ReadLine], used: Sequence[int], plot: Box, read: Read
) -> tuple[str, Box] | None:
    """What stands turned by 90 degrees left of the lines beside a plot, read upwards, and where; None if nothing does.

    ``used``: the indices of the lines that are a part of the chart. Others may be letters of that very name.
    """
    height = fills.labels.shape[0]
    ends = {
        i: line.box[0]
        for i, line in enumerate(lines)
        if line.box[2] <= plot[0] + 3 and plot[1] - 9 < line.box[3] < plot[3] + 20
    }
    known = [i for i in ends if i in used]
    end = int(min([plot[0], *(ends[i] for i in known), *(() if len(known) > 1 else ends.values())])) - 1
    if len(known) > 1:
        # A figure's box may reach over the name, but blank columns lie between them.
        size = float(np.median([lines[i].box[3] - lines[i].box[1] for i in known]))
        middle = min((lines[i].box[0] + lines[i].box[2]) / 2 for i in known)
        filled = np.flatnonzero(_find_ink(fills, 0, height, 0, int(middle)).any(0))
        gaps = np.flatnonzero(np.diff(filled, append=int(middle)) > max(3.0, 0.18 * size))
        end = max(end, int(filled[gaps[-1]]) + 3) if len(gaps) else end
    if end < 8:
        return None
    away = _find_ink(fills, 0, height, 0, end)
    columns, rows = np.flatnonzero(away.any(0)), np.flatnonzero(away.any(1))
    if len(columns) < 4 or len(rows) < 12 or columns[-1] - columns[0] > 0.12 * height:
        return None
    margin = 6
    top, bottom = max(0, int(rows[0]) - 3 * margin), min(height, int(rows[-1]) + 3 * margin)
    left, right = max(0, int(columns[0]) - margin), min(end, int(columns[-1]) + 1 + margin)
    strip = canvas[:, top:bottom, left:right]
    turned = torch.rot90(F.pad(strip.float(), (margin,) * 4, mode="replicate").to(torch.uint8), -1, (1, 2))
    if columns[-1] - columns[0] < _SMALL_PX:
        turned = _enlarge(turned, _SCALE)
    words = [line.text.strip() for line in read(turned.contiguous()) if sum(map(str.isalpha, line.text)) > 1]
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return (" ".join(words), box) if words else None


def _find_ink(fills: Fills, top: int, bottom: int, left: int, right: int) -> Bools:
    """Which pixels of a part of the image differ from the page."""
    part = fills.planes[:, top:bottom, left:right]
    away = np.zeros(part.shape[1:], dtype=bool)
    for plane, value in zip(part, fills.colours[fills.grounds[0]], strict=True):
        away |= np.abs(plane.astype(np.int16) - round(value)) > 60
    return away


class _Slanted(NamedTuple):
    """A word that does not stand level: its pixels (x, y) [P, 2] on the canvas, its angle in degrees, counted upwards,
    and how many times it is longer than it is high.
    """

    pixels: npt.NDArray[np.float64]
    angle: float
    ratio: float

    def find_box(self) -> Box:
        """The box around its pixels."""
        (x0, y0), (x1, y1) = self.pixels.min(0).tolist(), self.pixels.max(0).tolist()
        return x0, y0, x1 + 1, y1 + 1


def read_slanted_labels(canvas: Tensor, fills: Fills, lines: Sequence[Any], plot: Box, read: Read) -> list[Any] | None:
    """The lines, with slanted or upright labels below a plot turned level and read; None if there are none.

    The labels take the places of all lines that were read in them, and stand in one row, each below the place that it
    belongs to: its middle or its upper end, whichever is more even.

    Args:
        canvas: uint8 [3, H, W].
        fills: of the canvas.
        lines: of the whole canvas; what was read in slanted labels is seldom more than specks.
        plot: the box of what is drawn, in pixels.
        read: the reader of lines.
    """
    heights = sorted(line.box[3] - line.box[1] for line in lines)
    size = heights[len(heights) // 2] if heights else 0.0
    if size < 5:
        return None
    words, level = _find_slanted(fills, lines, plot, size)
    if not 2 <= len(words) <= _MOST_LABELS:
        return None
    angle = float(np.median([word.angle for word in words if word.ratio > _LONG]))
    round_angle = 15.0 * round(angle / 15)
    angle = round_angle if abs(angle - round_angle) < 6 else angle
    turned = [word._replace(angle=angle) for word in words] + [word._replace(angle=0.0) for word in level]
    texts = _read_turned(canvas, fills, turned, size, read)
    anchors = _place(words, plot)
    top = min(word.pixels[:, 1].min() for word in words)
    half = size / 2
    labels = [
        SeenText(text, (x - half, top, x + half, top + size), "black", "white", 1.0)
        for text, x in zip(texts, anchors, strict=False)
        if text
    ]
    if len(labels) < 2:
        return None
    boxes = [word.find_box() for word in turned]
    rest = [
        line for line in lines if all(_overlap(line.box, box) <= (0.25 if len(line.text) > 2 else 0) for box in boxes)
    ]
    names = [
        SeenText(text, word.find_box(), "black", "white", 1.0)
        for text, word in zip(texts[len(words) :], level, strict=True)
        if text
    ]
    return sorted([*rest, *labels, *names], key=lambda line: (line.box[1] + line.box[3], line.box[0]))


def _find_slanted(fills: Fills, lines: Sequence[Any], plot: Box, size: float) -> tuple[list[_Slanted], list[_Slanted]]:
    """The slanted words below a plot from left to right, if there are at least two long ones, and the level ones below
    them that were not read.
    """
    height, width = fills.labels.shape
    first = min(height, int(plot[3]) + 1)
    ink = _find_ink(fills, first, height, 0, width)
    for line in lines:
        x0, y0, x1, y1 = line.box
        # What was read as a level word is none of the labels; a row of slanted ones is read as signs.
        letters = sum(map(str.isalnum, line.text))
        is_word = letters > max(2, 0.7 * len(line.text.replace(" ", ""))) and y1 - y0 < 1.6 * size
        if is_word and x1 - x0 > 1.5 * (y1 - y0):
            ink[max(0, int(y0) - first) : max(0, int(y1) + 1 - first), int(x0) : int(x1) + 1] = False
    num_runs = int((ink[:, 1:] & ~ink[:, :-1]).sum())
    if min(ink.shape) < size or not ink.any() or num_runs > _MOST_RUNS:
        return [], []
    # The axis and its ticks reach the plot.
    parts = find_components(ink)
    above = np.isin(parts.labels, parts.labels[parts.rows < 2])
    ink[parts.rows[above], parts.columns[above]] = False
    reach = max(1, round(0.18 * size))
    joined = F.max_pool2d(torch.from_numpy(ink)[None].float(), 2 * reach + 1, 1, reach)[0].numpy() > 0
    parts = find_components(joined)
    keep = ink[parts.rows, parts.columns]
    order = np.argsort(parts.labels[keep], kind="stable")
    places = np.stack((parts.columns[keep], parts.rows[keep] + first), 1)[order].astype(np.float64)
    bounds = np.flatnonzero(np.diff(parts.labels[keep][order])) + 1
    words = []
    for pixels in np.split(places, bounds):
        extent = pixels.max(0) - pixels.min(0)
        if extent.max() >= 0.35 * size and pixels[:, 0].max() > plot[0] and pixels[:, 0].min() < plot[2]:
            (xx, xy), (_, yy) = np.cov(pixels.T)
            spread = math.hypot(xx - yy, 2 * xy)
            ratio = math.sqrt((xx + yy + spread) / max(1e-6, xx + yy - spread))
            angle = -math.degrees(math.atan2(2 * xy, xx - yy)) / 2
            words.append(_Slanted(pixels, angle if angle > -75 else angle + 180, ratio))
    long = [word.angle for word in words if word.ratio > _LONG and abs(word.angle) >= _LEAST_ANGLE]
    level = [word for word in words if word.ratio > _LONG and abs(word.angle) < _LEAST_ANGLE / 2]
    if len(long) < max(2, len(level) + 1):
        return [], []
    usual = float(np.median(long))
    words = [word for word in words if word.ratio <= _LONG or abs(word.angle - usual) <= _LEAST_ANGLE]
    # Below the labels stands the name of the axis.
    end = max((word.pixels[:, 1].max() for word in words if word.ratio > _LONG), default=0.0)
    words = [word for word in words if word.pixels[:, 1].mean() < end]
    level = [word for word in level if word.pixels[:, 1].mean() >= end]
    return sorted(words, key=lambda word: float(word.pixels[:, 0].mean())), level


def _read_turned(canvas: Tensor, fills: Fills, words: Sequence[_Slanted], size: float, read: Read) -> list[str]:
    """What each word says: all are turned level and read as the lines of one page."""
    scale = float(np.clip(_READ_PX / size, 1.0, _SCALE))
    page_colour = torch.from_numpy(fills.colours[fills.grounds[0]]).float()
    margin = 0.4 * size
    strips = []
    for word in words:
        turn = math.radians(word.angle)
        along, down = np.array((math.cos(turn), -math.sin(turn))), np.array((math.sin(turn), math.cos(turn)))
        u, v = word.pixels @ along, word.pixels @ down
        u0, u1, v0, v1 = u.min() - margin, u.max() + margin, v.min() - margin, v.max() + margin
        x0, y0 = (np.floor(word.pixels.min(0) - 2)).astype(int).clip(0)
        x1, y1 = (word.pixels.max(0) + 3).astype(int)
        crop = canvas[:, y0:y1, x0:x1].float()
        own = torch.zeros(1, 1, *crop.shape[1:])
        own[0, 0, word.pixels[:, 1].astype(int) - y0, word.pixels[:, 0].astype(int) - x0] = 1
        # Parts of its neighbours are no part of a word, and blurred edges are.
        crop = torch.where(F.max_pool2d(own, 5, 1, 2)[0] > 0, crop - page_colour[:, None, None], torch.zeros(()))
        rows, columns = (np.arange(0, b - a, 1 / scale) + a for a, b in ((v0, v1), (u0, u1)))
        places = columns[None, :, None] * along + rows[:, None, None] * down - (x0, y0)
        grid = torch.from_numpy((2 * places + 1) / (crop.shape[2], crop.shape[1]) - 1).float()
        strips.append(F.grid_sample(crop[None], grid[None], mode="bicubic", align_corners=False)[0])
    height, width = max(s.shape[1] for s in strips), max(s.shape[2] for s in strips)
    strips = [F.pad(s, (0, width - s.shape[2], 0, height - s.shape[1])) for s in strips]
    page = torch.cat(strips, 1) + page_colour[:, None, None]
    found: list[list[Any]] = [[] for _ in words]
    for line in read(page.round().clamp(0, 255).to(torch.uint8)):
        at = int((line.box[1] + line.box[3]) / 2 / height)
        if at < len(found) and any(map(str.isalnum, line.text)):
            found[at].append(line)
    return [" ".join(line.text.strip() for line in sorted(row, key=lambda line: line.box[0])) for row in found]


def complete_words(
    canvas: Tensor, fills: Fills, lines: Sequence[Any], used: Sequence[int], plot: Box, read: Read
) -> list[Any] | None:
    """The lines, with those of a chart of which a first or last letter was missed read again; None if there are none.

    ``used``: the indices of the lines that are a part of the chart. See ``read_margins`` for the others.
    """
    cut: dict[int, _Slanted] = {}
    for i in used:
        if sum(map(str.isalpha, lines[i].text)) > 0 and not _covers(plot, lines[i].box):
            word = _extend(fills, lines[i].box, plot)
            if word is not None:
                cut[i] = word
    if not cut:
        return None
    size = float(np.median([lines[i].box[3] - lines[i].box[1] for i in cut]))
    texts = _read_turned(canvas, fills, list(cut.values()), size, read)
    whole = {
        i: lines[i]._replace(text=text, box=word.find_box())
        for (i, word), text in zip(cut.items(), texts, strict=True)
        if len(text) > len(lines[i].text) and lines[i].text.strip() in text
    }
    if not whole:
        return None
    boxes = [line.box for line in whole.values()]
    return [
        whole.get(i, line)
        for i, line in enumerate(lines)
        if i in whole or i in used or all(_overlap(line.box, box) < 0.5 for box in boxes)
    ]


def _covers(plot: Box, box: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return plot[0] < x < plot[2] and plot[1] < y < plot[3]


def _extend(fills: Fills, box: Box, plot: Box) -> _Slanted | None:
    """The word in a line's box with the letters before and after it; None if there are none."""
    height, width = fills.labels.shape
    size = box[3] - box[1]
    top, bottom = max(0, int(box[1])), min(height, int(box[3]) + 1)
    # Beside the plot are its ticks.
    limit = int(plot[0]) if box[2] <= plot[0] + 3 else width
    left, right = max(0, int(box[0] - 2 * size)), min(limit, int(box[2] + 2 * size))
    ink = _find_ink(fills, top, bottom, left, right)
    columns = np.flatnonzero(ink.any(0)) + left
    inside = (columns >= box[0] + 0.2 * size) & (columns <= box[2] - 0.2 * size)
    if not inside.any():
        return None
    parts = np.cumsum(np.diff(columns, prepend=columns[:1]) > max(2.0, 0.22 * size))
    first, last = parts[inside][0], parts[inside][-1]
    own = columns[(parts >= first) & (parts <= last)]
    missed = max(box[0] - own[0], own[-1] - box[2])
    if not 0.2 * size < missed < 1.5 * size:
        return None
    rows, x = np.nonzero(ink[:, own[0] - left : own[-1] + 1 - left])
    return _Slanted(np.stack((x + own[0], rows + top), 1).astype(np.float64), 0.0, 1.0)


def _place(words: Sequence[_Slanted], plot: Box) -> list[float]:
    """Where on the axis the words stand, px: at their middles or at their upper ends, as they are set more evenly."""
    middles = [float(word.pixels[:, 0].min() + word.pixels[:, 0].max()) / 2 for word in words]
    tops = [float(word.pixels[word.pixels[:, 1] <= word.pixels[:, 1].min() + 2, 0].mean()) for word in words]

    def miss(places: Sequence[float]) -> float:
        line = np.linspace(places[0], places[-1], len(places))
        return float(np.abs(line - places).mean() + abs(np.mean(places) - (plot[0] + plot[2]) / 2))

    return min(middles, tops, key=miss)


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
