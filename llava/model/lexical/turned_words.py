"""Words that do not stand level, such as labels below bars at 45 degrees: turned by their own angles and read.

The reader of lines reads level ones alone.
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

from llava.model.lexical.components import find_components
from llava.model.lexical.flat_fills import Bools, Fills
from llava.model.lexical.object_finder import Box, share_area

Read = Callable[[Tensor], Sequence[Any]]
# Words are enlarged until the lines of the chart would be so high, and by no more than this.
_READ_PX, _MOST_SCALE = 32.0, 2.0
# A word is long, and its angle known, if it is so many times longer than high; it slants from so many degrees on.
_LONG, _LEAST_ANGLE = 1.7, 20.0
_MOST_LABELS = 40
# Text below a plot has at most so many runs of pixels; a texture has more.
_MOST_RUNS = 15_000
# Words are not read together on a page of more pixels than this, as one of half an image beside many small ones makes:
# it takes gigabytes, and the reader would look at a quarter of its pixels.
_MAX_PAGE_PIXELS = 12_000_000


class SeenText(NamedTuple):
    """A line that was read in a strip, with its box on the whole canvas."""

    text: str
    box: Box
    ink: str
    ground: str
    score: float


class TurnedWord(NamedTuple):
    """A word that is read again: its pixels (x, y) [P, 2] on the canvas, its angle in degrees, counted upwards, and how
    many times it is longer than it is high. ``ground``: the colour [3] behind it, 0 to 255, where it is not the page's.
    """

    pixels: npt.NDArray[np.float64]
    angle: float
    ratio: float
    ground: npt.NDArray[np.float64] | None = None

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
    texts = read_words(canvas, fills.colours[fills.grounds[0]], turned, size, read)
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
        line
        for line in lines
        if all(share_smaller(line.box, box) <= (0.25 if len(line.text) > 2 else 0) for box in boxes)
    ]
    names = [
        SeenText(text, word.find_box(), "black", "white", 1.0)
        for text, word in zip(texts[len(words) :], level, strict=True)
        if text
    ]
    return sorted([*rest, *labels, *names], key=lambda line: (line.box[1] + line.box[3], line.box[0]))


def _find_slanted(
    fills: Fills, lines: Sequence[Any], plot: Box, size: float
) -> tuple[list[TurnedWord], list[TurnedWord]]:
    """The slanted words below a plot from left to right, if there are at least two long ones, and the level ones below
    them that were not read.
    """
    height, width = fills.labels.shape
    first = min(height, int(plot[3]) + 1)
    ink = find_ink(fills, first, height, 0, width)
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
    if not ink.any():
        return [], []
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
            words.append(TurnedWord(pixels, angle if angle > -75 else angle + 180, ratio))
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


def read_words(
    canvas: Tensor, page: npt.NDArray[np.float64], words: Sequence[TurnedWord], size: float, read: Read
) -> list[str]:
    """What each word says: all are turned level and read as the lines of one page of a colour [3], 0 to 255.

    Nothing, if the page would be too large.
    """
    scale = float(np.clip(_READ_PX / size, 1.0, _MOST_SCALE))
    page_colour = torch.from_numpy(page).float()
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
        ground = page_colour if word.ground is None else torch.from_numpy(word.ground).float()
        crop = torch.where(F.max_pool2d(own, 5, 1, 2)[0] > 0, crop - ground[:, None, None], torch.zeros(()))
        # White letters become black ones on a white page.
        crop = -crop if (crop.mean() > 0) == (page_colour.mean() > 128) else crop
        rows, columns = (np.arange(0, b - a, 1 / scale) + a for a, b in ((v0, v1), (u0, u1)))
        places = columns[None, :, None] * along + rows[:, None, None] * down - (x0, y0)
        grid = torch.from_numpy((2 * places + 1) / (crop.shape[2], crop.shape[1]) - 1).float()
        strips.append(F.grid_sample(crop[None], grid[None], mode="bicubic", align_corners=False)[0])
    height, width = max(s.shape[1] for s in strips), max(s.shape[2] for s in strips)
    if len(words) * height * width > _MAX_PAGE_PIXELS:
        return [""] * len(words)
    strips = [F.pad(s, (0, width - s.shape[2], 0, height - s.shape[1])) for s in strips]
    sheet = torch.cat(strips, 1) + page_colour[:, None, None]
    found: list[list[Any]] = [[] for _ in words]
    for line in read(sheet.round().clamp(0, 255).to(torch.uint8)):
        at = int((line.box[1] + line.box[3]) / 2 / height)
        if at < len(found) and any(map(str.isalnum, line.text)):
            found[at].append(line)
    return [" ".join(line.text.strip() for line in sorted(row, key=lambda line: line.box[0])) for row in found]


def _place(words: Sequence[TurnedWord], plot: Box) -> list[float]:
    """Where on the axis the words stand, px: at their middles or at their upper ends, as they are set more evenly."""
    middles = [float(word.pixels[:, 0].min() + word.pixels[:, 0].max()) / 2 for word in words]
    tops = [float(word.pixels[word.pixels[:, 1] <= word.pixels[:, 1].min() + 2, 0].mean()) for word in words]

    def miss(places: Sequence[float]) -> float:
        line = np.linspace(places[0], places[-1], len(places))
        return float(np.abs(line - places).mean() + abs(np.mean(places) - (plot[0] + plot[2]) / 2))

    return min(middles, tops, key=miss)


def find_ink(fills: Fills, top: int, bottom: int, left: int, right: int) -> Bools:
    """Which pixels of a part of the image differ from the page."""
    part = fills.planes[:, top:bottom, left:right]
    away = np.zeros(part.shape[1:], dtype=bool)
    for plane, value in zip(part, fills.colours[fills.grounds[0]], strict=True):
        away |= np.abs(plane.astype(np.int16) - round(value)) > 60
    return away


def share_smaller(a: Box, b: Box) -> float:
    """The share of the smaller one of two boxes that both cover."""
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return share_area(a, b) / max(smaller, 1e-6)
