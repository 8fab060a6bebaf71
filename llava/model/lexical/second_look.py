"""A second look at the margins of a chart: enlarged for short labels, turned for an axis' name, at words that were cut.

The reader takes figures and names of three letters for specks now and then; twice as large, it misses other ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from llava.model.lexical.chart_reading import ReadLine
from llava.model.lexical.flat_fills import Bools, Fills, Pixels
from llava.model.lexical.ink import find_ground, tell_apart
from llava.model.lexical.object_finder import Box
from llava.model.lexical.turned_words import Read, SeenText, TurnedWord, find_ink, read_words, share_smaller

_SCALE = 2
# A strip is not read if it has more pixels than this: nothing then is too small to be read.
_MAX_PIXELS = 1_200_000
# Where more words seem to be cut, it is a texture that they stand on.
_MOST_CUT = 24
# The colour of the page on which cut words are read.
_PAPER = np.full(3, 255.0)
# How much of what was read before is read again. At a cut, a part of a letter may be taken for another one.
_LEAST_SHARED = 0.75
# From above capitals to below descenders, letters leave this share of a column to the ground.
_LEAST_BLANK = 0.25
# A name that is lower than this is read enlarged.
_SMALL_PX = 20


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
        on = [i for i, other in enumerate(joined) if share_smaller(line.box, other.box) > 0.25]
        if not on:
            joined.append(line)
        elif len(on) == 1 and len(joined[on[0]].text) < len(line.text) < 16 and " " not in line.text:
            other = joined[on[0]].text.strip()
            if other.lower() in line.text.lower() or not any(map(str.isalnum, other)):
                joined[on[0]] = line
    return sorted(joined, key=lambda line: (line.box[1] + line.box[3], line.box[0]))


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
        filled = np.flatnonzero(find_ink(fills, 0, height, 0, int(middle)).any(0))
        gaps = np.flatnonzero(np.diff(filled, append=int(middle)) > max(3.0, 0.18 * size))
        end = max(end, int(filled[gaps[-1]]) + 3) if len(gaps) else end
    if end < 8:
        return None
    away = find_ink(fills, 0, height, 0, end)
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


def complete_words(
    canvas: Tensor, lines: Sequence[Any], used: Sequence[int], plot: Box, read: Read
) -> list[Any] | None:
    """The lines, with those of which a first or last character was missed read again; None if there are none.

    ``used``: the indices of the lines that are looked at: those of a chart, or all of a page, whose ``plot`` is empty.
    See ``read_margins`` for the others.
    """
    planes = np.ascontiguousarray(canvas.cpu().numpy())
    cut: dict[int, TurnedWord] = {}
    for i in used:
        if any(map(str.isalpha if any(plot) else str.isalnum, lines[i].text)) and not covers_middle(plot, lines[i].box):
            word = _extend(planes, lines[i].box, plot, [line.box for j, line in enumerate(lines) if j != i])
            if word is not None:
                cut[i] = word
    if not 0 < len(cut) <= _MOST_CUT:
        return None
    size = float(np.median([lines[i].box[3] - lines[i].box[1] for i in cut]))
    texts = read_words(canvas, _PAPER, list(cut.values()), size, read)
    whole = {
        i: lines[i]._replace(text=text, box=word.find_box())
        for (i, word), text in zip(cut.items(), texts, strict=True)
        if _holds(text, lines[i].text)
    }
    if not whole:
        return None
    boxes = [line.box for line in whole.values()]
    return [
        whole.get(i, line)
        for i, line in enumerate(lines)
        if i in whole or (i in used and any(plot)) or all(share_smaller(line.box, box) < 0.5 for box in boxes)
    ]


def _holds(whole: str, part: str) -> bool:
    """Whether a text says more than another one before or after it, but for letters that were misread at a cut."""
    whole, part = (text.strip().lower() for text in (whole, part))
    blocks = SequenceMatcher(None, part, whole, autojunk=False).get_matching_blocks()[:-1]
    if len(whole) <= len(part) or sum(block.size for block in blocks) < _LEAST_SHARED * len(part):
        return False
    first, last = blocks[0], blocks[-1]
    return first.b > first.a or len(whole) - last.b > len(part) - last.a


def covers_middle(outer: Box, box: Box) -> bool:
    """Whether the middle of a box lies within another one."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return outer[0] < x < outer[2] and outer[1] < y < outer[3]


def _extend(planes: Pixels, box: Box, plot: Box, others: Sequence[Box]) -> TurnedWord | None:
    """The word in a line's box with the letters before and after it, up to ``others``; None if there are none."""
    height, width = planes.shape[1:]
    size = box[3] - box[1]
    top, bottom = max(0, int(box[1])), min(height, int(box[3]) + 1)
    inner = planes[:, top:bottom, int(box[0]) : int(box[2]) + 1]
    if inner.size == 0:
        return None
    # Beside the plot are its ticks.
    limit = int(plot[0]) if box[2] <= plot[0] + 3 else width
    # On a page, what stands nearer than a cell's margin belongs to the line; below a plot, labels are close together.
    gap, most = (0.22, 1.5) if any(plot) else (0.45, 3.0)
    reach = (most + 0.5) * size
    left, right = max(0, int(box[0] - reach)), min(limit, int(box[2] + reach))
    for other in others:
        if other[1] < (box[1] + box[3]) / 2 < other[3]:
            left = max(left, int(other[2])) if other[2] <= box[0] else left
            right = min(right, int(other[0])) if other[0] >= box[2] else right
    high, low = max(0, top - int(0.5 * size)), min(height, bottom + int(0.3 * size))
    ink, blank = tell_apart(planes[:, high:low, left:right], inner)
    # Where there is hardly any of the ground, a sign ends.
    is_edge = blank.mean(0) < _LEAST_BLANK
    # A word that lost its capital was taken for a lower one: the bar of a T is above it.
    first = max(0, top - high - int(0.3 * size))
    columns = np.flatnonzero(ink[first : bottom - high].any(0) & ~is_edge) + left
    inside = (columns >= box[0] + 0.2 * size) & (columns <= box[2] - 0.2 * size)
    if not inside.any():
        return None
    num_edges = np.cumsum(is_edge)[columns - left]
    is_apart = (np.diff(columns) > max(2.0, gap * size)) | (np.diff(num_edges) > 0)
    parts = np.cumsum(np.append(False, is_apart))
    own = columns[(parts >= parts[inside][0]) & (parts <= parts[inside][-1])]
    missed = max(box[0] - own[0], own[-1] - box[2])
    if not 0.2 * size < missed < most * size:
        return None
    ink = ink[:, own[0] - left : own[-1] + 1 - left]
    used: Bools = np.asarray(ink.any(1))
    while top > high and used[top - high - 1]:
        top -= 1
    while bottom < low and used[bottom - high]:
        bottom += 1
    rows, x = np.nonzero(ink[top - high : bottom - high])
    if not len(rows):
        return None
    return TurnedWord(np.stack((x + own[0], rows + top), 1).astype(np.float64), 0.0, 1.0, find_ground(inner))


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
