"""The table of a line chart: the lines between its axes, traced, with the values that the axis gives their points.

Numbers in a column are the value axis, and text in a row below is what the points are called.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llava.model.lexical.chart_reading import ReadLine, find_title
from llava.model.lexical.description import Bar, ChartLine, ChartTable
from llava.model.lexical.flat_fills import Bools, Fills, Pixels, find_area
from llava.model.lexical.label_rows import complete_labels, split_words
from llava.model.lexical.line_points import find_points, measure_heights
from llava.model.lexical.line_traces import Area, Ink, Trace, find_inks, trace_ink
from llava.model.lexical.object_finder import Box, Drawn
from llava.model.lexical.value_axis import Axis, Tick, fit_axis, read_number

# A table has at most this many points a line, so that its description stays short.
_MAX_POINTS = 14
_MAX_LINES = 6
# A pixel whose colour is this near to a line's, of 0 to 255, belongs to its key.
_LIKE_KEY = 48
_GRID_COLOURS = ("gray", "black", "white")
# What a reader takes a key of a legend for.
_KEY_SIGNS = "-–—_=*·•.~+→ "
_MARK = re.compile(r"^[0Oo•] (?=\S)")
_KEY = re.compile(r"^[0Oo]?[-–—_=→]+[0Oo]?\s+")


class LineChart(NamedTuple):
    """A line chart, the indices of the lines of text that went into it, and the box of the area within its axes."""

    table: ChartTable
    used: frozenset[int]
    plot: Box


class _Axes(NamedTuple):
    axis: Axis
    ticks: frozenset[int]
    row: tuple[int, ...]  # the lines of text below the plot
    area: Area


def read_line_chart(fills: Fills, lines: Sequence[ReadLine]) -> LineChart | None:
    """The line chart that an image is; None if it is none.

    ``lines``: of text, with their boxes in pixels of the image.
    """
    lines = [_drop_key(line) for line in lines]
    axes = _find_axes(fills, lines)
    if axes is None:
        return None
    left, top, right, bottom = axes.area
    if right - left < 60 or bottom - top < 40:
        return None
    scribbles = {i for i, line in enumerate(lines) if i not in axes.row and is_scribble(line.text)}
    inside = _list_inside(lines, axes, scribbles)
    texts = [_grow(lines[i].box, 2) for i in inside]
    inks = find_inks(fills, axes.area, texts)
    legend = {
        i: key
        for i in inside
        if (key := _find_key(inks, lines[i].box, axes.area)) is not None
        and not _goes_on(inks[key[0]], lines[i].box, axes.area)
    }
    beside = set(range(len(lines))) - set(inside) - axes.ticks - set(axes.row) - scribbles
    outside = {i: key for i in beside if (key := _find_outside_key(fills.planes, inks, lines[i].box)) is not None}
    for i, (_, start) in legend.items():
        _hide(inks, (start, *lines[i].box[1:]), axes.area)
    traced = [(at, trace) for at, ink in enumerate(inks) if (trace := trace_ink(ink)) is not None][:_MAX_LINES]
    traced = _keep_alike(traced, 0.05 * (bottom - top))
    if not traced:
        return None
    labels = _list_labels(lines, axes.row)
    are_names = 2 * sum(read_number(text) is None for text, _ in labels) > len(labels)
    points = find_points([trace for _, trace in traced], [x - left for _, x in labels], are_names)
    if points is not None and len(points) > _MAX_POINTS:
        points = np.array(sorted(x - left for _, x in labels if points[0] - 4 <= x - left <= points[-1] + 4))
    if points is None or len(points) < 2:
        return None
    names = _name_points(points + left, labels)
    legend |= outside
    at_ends = _find_end_labels([trace for at, trace in traced], lines, beside | set(inside) - set(legend), axes.area)
    found: list[ChartLine] = []
    for number, (at, trace) in enumerate(traced):
        # A marker that was read as one letter has the colour of its line, too.
        name = max((lines[i].text.strip() for i, (ink, _) in legend.items() if ink == at), key=len, default="")
        if not name and number in at_ends:
            name = _MARK.sub("", lines[at_ends[number]].text.strip())
        found.append(_measure(trace, name, names, points, axes))
    found = [line for line in found if len(line.points) >= 2]
    if not found:
        return None
    taken = set(axes.ticks) | set(axes.row) | {i for i, (at, _) in legend.items() if any(at == t for t, _ in traced)}
    taken |= set(at_ends.values())
    frame = [Drawn("bar", "", (float(left), float(top) + 6, float(right), float(bottom)), 1.0)]
    title, title_lines = find_title(frame, lines, set(axes.ticks), set(legend))
    table = ChartTable(title, lines=tuple(_name_lines(found)))
    plot = (float(left), float(top), float(right), float(bottom))
    return LineChart(table, frozenset(taken | title_lines), plot)


def _list_inside(lines: Sequence[ReadLine], axes: _Axes, scribbles: Collection[int]) -> list[int]:
    """The lines of text within the axes."""
    left, top, right, bottom = axes.area
    return [
        i
        for i, line in enumerate(lines)
        if i not in axes.ticks
        and left < line.box[0] < right
        and line.box[1] > top
        and line.box[3] < bottom + 4
        and i not in scribbles
    ]


def _measure(trace: Trace, name: str, names: Sequence[str], points: np.ndarray, axes: _Axes) -> ChartLine:
    rows = measure_heights(trace, points)
    told = []
    for label, row in zip(names, rows, strict=True):
        if row is not None:
            value = axes.axis.snap(axes.axis.read(-(axes.area[1] + row)))
            told.append(Bar(label, trace.colour, axes.axis.write(value), value))
    return ChartLine(name, trace.colour, tuple(told))


def _name_lines(found: list[ChartLine]) -> list[ChartLine]:
    """The lines; of several without a legend, each is called by its colour."""
    if len(found) < 2:
        return found
    return [line if line.name else replace(line, name=f"{line.colour} line") for line in found]


def _keep_alike(traced: list[tuple[int, Trace]], least_range_px: float) -> list[tuple[int, Trace]]:
    """The traces that reach over nearly as much of the plot as the longest, but for lines of a grid."""
    curved = [
        (at, trace)
        for at, trace in traced
        if trace.colour not in _GRID_COLOURS or np.nanmax(trace.middle) - np.nanmin(trace.middle) > least_range_px
    ]
    traced = curved or traced
    most = max((len(trace.middle) for _, trace in traced), default=0)
    return [(at, trace) for at, trace in traced if len(trace.middle) >= 0.6 * most]


# --- the axes ---


def place_tick(line: ReadLine) -> float:
    """The row on which a line's figures are centred: its box reaches from their top to below the baseline."""
    return line.box[1] + 0.41 * (line.box[3] - line.box[1])


def find_value_ticks(lines: Sequence[ReadLine]) -> tuple[Axis, frozenset[int]] | None:
    """The scale of numbers that stand in a column, with -y for places, and these lines' indices."""
    numbers = [(i, line, number) for i, line in enumerate(lines) if (number := read_number(line.text)) is not None]
    best: tuple[float, Axis, frozenset[int]] | None = None
    for _, anchor, _ in numbers:
        height = anchor.box[3] - anchor.box[1]
        column = [each for each in numbers if abs(each[1].box[2] - anchor.box[2]) <= 0.7 * height]
        axis = fit_axis([Tick(-place_tick(line), number) for _, line, number in column], None)
        if axis is None:
            continue
        slack = max(4.0, 0.4 * height)
        agree = frozenset(i for i, line, number in column if axis.miss(number.value, -place_tick(line)) <= slack)
        score = len(agree) - 1e-4 * anchor.box[2]
        if len(agree) >= 2 and (best is None or score > best[0]):
            best = (score, axis, agree)
    return None if best is None else best[1:]


def _find_axes(fills: Fills, lines: Sequence[ReadLine]) -> _Axes | None:
    found = find_value_ticks(lines)
    if found is None:
        return None
    axis, ticks = found
    height, width = fills.labels.shape
    boxes = [lines[i].box for i in ticks]
    size = float(np.median([box[3] - box[1] for box in boxes]))
    left = int(max(box[2] for box in boxes) + 0.15 * size) + 1
    high, low = min(place_tick(lines[i]) for i in ticks), max(place_tick(lines[i]) for i in ticks)
    step = (low - high) / max(1, len(ticks) - 1)
    frame = _find_frame(fills, left, int(high), int(low), size)
    right = width - 2
    top, bottom = int(max(0, high - 1.05 * step)), int(min(height, low + 1.05 * step))
    if frame is not None:
        left, top, right, bottom = frame
    row = _find_row(lines, ticks, left, low if frame is None else bottom - 0.5 * size)
    if row:
        # Labels stand below the axis; above the plot stands its title.
        bottom = min(bottom, int(min(lines[i].box[1] for i in row)) - 1)
    for i, line in enumerate(lines):
        is_above = i not in ticks and top < line.box[3] < high + 0.2 * size and frame is None
        if is_above and line.box[2] - line.box[0] > 2 * size and line.box[0] < 0.6 * width < line.box[2]:
            top = int(line.box[3]) + 1
    return _Axes(axis, ticks, tuple(row), (max(0, left), max(0, top), min(width, right), min(height, bottom)))


def _find_frame(fills: Fills, left: int, high: int, low: int, size: float) -> Area | None:
    """The area within the axes, by its own ground, or by lines along its sides; None if it has neither."""
    height, width = fills.labels.shape
    if len(fills.grounds) > 1:
        mask = fills.labels == fills.grounds[1]
        rows, columns = mask.sum(1), mask.sum(0)
        is_drawn = fills.labels != fills.grounds[0]
        y, x = find_area(rows, is_drawn.any(1)), find_area(columns, is_drawn.any(0))
        if x[0] >= left - size and y[0] <= high + size and y[-1] >= low - size:
            return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1
    page = fills.colours[fills.grounds[0]]
    away: Bools = np.zeros((height, width), dtype=np.bool_)
    for plane, value in zip(fills.planes, page, strict=True):
        away |= np.abs(plane.astype(np.int16) - round(value)) > 40
    span = away[high : low + 1]
    if len(span) < 8:
        return None
    full = np.flatnonzero(span.mean(0) >= 0.93)
    full = full[full >= left - 2]
    if not len(full) or full[0] > left + 4 * size:
        return None
    first, last = int(full[0]), int(full[-1])
    spine = away[:, first] | away[:, min(first + 1, width - 1)]
    top, bottom = high, low
    while top > 0 and spine[top - 1]:
        top -= 1
    while bottom < height - 1 and spine[bottom + 1]:
        bottom += 1
    # The lower side reaches as far as the area does; a line further to the right is its right side.
    lower = np.flatnonzero(~away[max(0, bottom - 2) : bottom + 1, first:].any(axis=0))
    end = first + int(lower[0]) - 1 if len(lower) else width - 1
    is_side = last > first + 0.3 * (width - first) and last >= end - 3
    right = last if is_side else end if end > first + 0.3 * (width - first) else width - 2
    inset = 1
    while inset < 5 and first + inset < width and away[high : low + 1, first + inset].mean() >= 0.93:
        inset += 1
    return first + inset, top + 1, right - (1 if is_side else 0), bottom + 1


def _find_row(lines: Sequence[ReadLine], ticks: frozenset[int], left: int, bottom: float) -> list[int]:
    """The nearest row of text below a height, where several stand side by side or one does."""
    below = [
        i
        for i, line in enumerate(lines)
        if i not in ticks
        and line.box[2] > left - 0.1 * abs(left)
        and line.box[1] >= bottom - 0.35 * (line.box[3] - line.box[1])
    ]
    if not below:
        return []
    first = min(below, key=lambda i: lines[i].box[1])
    limit = (lines[first].box[1] + lines[first].box[3]) / 2
    return [i for i in below if lines[i].box[1] <= limit <= lines[i].box[3]]


def _list_labels(lines: Sequence[ReadLine], row: Sequence[int]) -> list[tuple[str, float]]:
    """The words of a row below the plot with the columns of their middles."""
    labels: list[tuple[str, float]] = []
    count = sum(len(lines[i].text.split()) for i in row)
    for i in row:
        text, box = lines[i].text.strip(), lines[i].box
        words = text.split()
        # The reader joins neighbours into one line where they stand close together: all but a name of two words.
        if len(words) < 2 or (len(words) == 2 and len(row) > 2 and count > 1.5 * len(row)):
            labels.append((text, (box[0] + box[2]) / 2))
            continue
        parts = split_words(text, box[0], box[2], box[3] - box[1])
        labels += [(word, (low + high) / 2) for word, low, high in parts]
    return sorted(labels, key=lambda label: label[1])


def _name_points(columns: np.ndarray, labels: Sequence[tuple[str, float]]) -> list[str]:
    """Each point's label; numbers at an even scale name points between them."""
    spacing = float(np.diff(columns).min())
    names = []
    for x in columns.tolist():
        near = [(abs(at - x), text) for text, at in labels if abs(at - x) <= 0.4 * spacing]
        names.append(min(near)[1] if near else "")
    completed = complete_labels(names)
    if all(completed):
        return completed
    numbers = [(number.value, at) for text, at in labels if (number := read_number(text)) is not None]
    if len(numbers) >= 2 and len(numbers) >= 0.6 * len(labels):
        slopes = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(numbers) if b[1] - a[1] > 1]
        slope = float(np.median(slopes)) if slopes else 0.0
        offset = float(np.median([value - slope * at for value, at in numbers]))
        agree = [abs(value - slope * at - offset) <= 0.15 * abs(slope) * spacing for value, at in numbers]
        if slope and np.mean(agree) >= 0.6:
            return [_write_number(slope * x + offset, slope * spacing) for x in columns.tolist()]
    return completed


def _write_number(value: float, step: float) -> str:
    """A number no finer than the distance between points needs."""
    for digits in range(4):
        grain = 10.0**-digits
        if abs(step / grain - round(step / grain)) * grain <= 0.06 * abs(step) and abs(step) >= 0.9 * grain:
            return f"{value:.{digits}f}"
    return f"{value:.3g}"


# --- the legend ---


def _find_key(inks: Sequence[Ink], box: Box, area: Area) -> tuple[int, float] | None:
    """The ink of the short level line to the left of a text within the axes, and where it begins; None without one."""
    left, top, _, _ = area
    rows, columns = _find_strip(box)
    if rows.start < top or columns.stop - left <= 1:
        return None
    start = max(left, columns.start)
    strips = [ink.share[rows.start - top : rows.stop - top, start - left : columns.stop - left] for ink in inks]
    return _choose_key(strips, start, box[3] - box[1])


def _find_outside_key(planes: Pixels, inks: Sequence[Ink], box: Box) -> tuple[int, float] | None:
    """The same beside the plot, or above or below it, where the ground may be another."""
    rows, columns = _find_strip(box)
    start = max(0, columns.start)
    if rows.start < 0 or columns.stop <= start:
        return None
    pixels = planes[:, rows, start : columns.stop].astype(np.float64)
    ground = np.median(pixels.reshape(3, -1), axis=1)
    strips = [_find_share(pixels - ground[:, None, None], ink.colour - ground) for ink in inks]
    return _choose_key(strips, start, box[3] - box[1])


def _find_share(offsets: npt.NDArray[np.float64], colour: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How much of a colour each pixel has, 0 to 1, by their differences [3, H, W] and [3] from the ground."""
    along = np.tensordot(colour, offsets, 1) / max(float(colour @ colour), 1.0)
    beside = np.linalg.norm(offsets - along * colour[:, None, None], axis=0)
    return np.where(beside < _LIKE_KEY * np.clip(along, 0, 1), along.clip(0, 1), 0.0)


def is_scribble(text: str) -> bool:
    """Whether a curve or its dashes may have been read as a line of single letters: "w s w s", and no numbers."""
    words = text.split()
    short = 2 * len(words) > sum(map(len, words))
    return len(words) > 2 and short and any(map(str.isalpha, text))


def _find_strip(box: Box) -> tuple[slice, slice]:
    """The rows and columns of an image where the key of a text is: up to 4.6 of its heights to its left."""
    height = box[3] - box[1]
    rows = slice(int(box[1] + 0.1 * height), int(box[3] - 0.1 * height) + 1)
    return rows, slice(int(box[0] - 4.6 * height), int(box[0] - 0.05 * height))


def _choose_key(strips: Sequence[npt.NDArray[Any]], start: int, height: float) -> tuple[int, float] | None:
    """The ink of the longest level line in the strips, which hold how much of each ink a pixel has, and its left end.

    ``start``: the column of the image where the strips begin.
    """
    best: tuple[int, int, float] | None = None
    for at, strip in enumerate(strips):
        if not strip.size:
            continue
        covered = strip.max(0) > 0.5
        count = int(covered.sum())
        if count < 0.9 * height:
            continue
        rows = np.flatnonzero((strip > 0.5).mean(1) > 0.5 * count / strip.shape[1])
        first, last = np.flatnonzero(covered)[[0, -1]]
        if (
            len(rows)
            and last - first >= 0.9 * height
            and count >= 0.55 * (last - first)
            and (best is None or count > best[1])
        ):
            best = (at, count, start + float(first))
    return None if best is None else (best[0], best[2])


def _hide(inks: Sequence[Ink], box: Box, area: Area) -> None:
    """Takes what stands in a box, an entry of a legend with its key, out of the inks of an area."""
    left, top, _, _ = area
    x0, y0, x1, y1 = (max(0, edge) for edge in np.subtract(_grow(box, 3), (left, top, left + 1, top + 1)))
    for ink in inks:
        ink.share[y0:y1, x0:x1] = 0


def _find_end_labels(
    traces: Sequence[Trace], lines: Sequence[ReadLine], free: Collection[int], area: Area
) -> dict[int, int]:
    """By the number of a trace, which of the ``free`` lines of text stands right of its end, and of no other's."""
    left, top, _, _ = area
    labels: dict[int, int] = {}
    for i in free:
        start, upper, _, lower = lines[i].box
        height = lower - upper
        at_end = [
            number
            for number, trace in enumerate(traces)
            if -0.3 * height <= start - (left + trace.end) <= 2 * height
            and upper <= top + trace.middle[np.flatnonzero(np.isfinite(trace.middle))[-1]] <= lower
        ]
        if len(at_end) == 1 and read_number(lines[i].text) is None and at_end[0] not in labels:
            labels[at_end[0]] = i
    return labels


def _goes_on(ink: Ink, box: tuple[float, ...], area: Area) -> bool:
    """Whether an ink is also to the right of a text: the curve itself was read as letters there."""
    left, top, _, _ = area
    end = int(box[2] - left) + 3  # the text's own surroundings were taken out
    beside = ink.share[max(0, int(box[1] - top)) : max(0, int(box[3] - top) + 1), end : end + 4]
    return bool(beside.size) and bool((beside.max(0) > 0.5).all())


class _Text(NamedTuple):
    text: str
    box: tuple[float, float, float, float]


def _drop_key(line: ReadLine) -> ReadLine:
    """The line without the key of a legend that was read as signs at its beginning."""
    text = _KEY.sub("", line.text).lstrip(_KEY_SIGNS)
    if not text or text == line.text or read_number(line.text) is not None:
        return line
    left, top, right, bottom = line.box
    return _Text(text, (right - (right - left) * len(text) / len(line.text), top, right, bottom))


def _grow(box: tuple[float, ...], by: int) -> Area:
    return int(box[0]) - by, int(box[1]) - by, int(box[2]) + by + 1, int(box[3]) + by + 1
