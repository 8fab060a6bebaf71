"""Puts together what was read and what was found on a canvas: a chart's parts with their names, the rest as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

from torch import Tensor

from llava.model.lexical.bar_values import read_bar_values
from llava.model.lexical.chart_reading import MAX_BARS, Chart, has_values, is_sure, read_chart
from llava.model.lexical.description import Bar, ChartTable, describe
from llava.model.lexical.fill_boxes import find_bars, find_keys
from llava.model.lexical.flat_fills import Fills, find_fills
from llava.model.lexical.flat_shapes import FlatShape, find_flat_shapes, merge_shapes
from llava.model.lexical.legend_keys import free_of_keys, part_from_keys
from llava.model.lexical.line_chart_reading import find_value_ticks, is_scribble, read_line_chart
from llava.model.lexical.object_finder import Box, Drawn, share_area, share_within
from llava.model.lexical.pie_finder import Pie, find_pie
from llava.model.lexical.pie_reading import read_pie
from llava.model.lexical.prose_columns import read_columns
from llava.model.lexical.second_look import (
    complete_words,
    covers_middle,
    find_name_below,
    read_margins,
    read_turned_name,
)
from llava.model.lexical.subplots import part_plots
from llava.model.lexical.thin_outlines import find_outlines
from llava.model.lexical.tick_boxes import find_marks, mark_ticks
from llava.model.lexical.turned_words import Read, read_slanted_labels

# What is not told as an object: the parts of charts, and what carries text.
_UNTOLD = ("bar", "key", "wedge", "sign")
# A chart has some text, but no more lines.
_MOST_LINES = 80
# Bars cover this share of an image at least; the markers of a scatter plot do not.
_LEAST_BARS = 0.01
# What the cross that closes a window is read as.
_CROSSES = ("X", "x", "×", "+")
# What the discs of a window's corner are read as.
_DISCS = re.compile(r"[0Oo@eE]{3}")
# Leading dots are so many times lower than what stands at both of their ends, and are read as these.
_LEADER, _LEADER_SIGNS = 1.8, frozenset(" .•4:·-_,;'")
# A figure is split off from its cell, with so many characters at most; it is so far apart, as a part of its height.
_MOST_SPLIT, _WORD_GAP = 2, 0.25
# Dots after a name, of which the others were not read.
_LEADING_ON = re.compile(r"[ ._·•…]{3,}$")
# Above an axis: its numbers are multiples of this power of ten.
_POWER = re.compile(r"[1lI][eE]([0-9]{1,2})")
# A line of text belongs to a plot that holds more of it.
_LEAST_IN_PLOT = 0.9
# What shapes are read as.
_LIKE_SHAPES = frozenset("OoQD0CcGUu@©AaVvXxYKkHhI1lT+*")
# Of shapes, so many characters may be read, in a line that holds this share of each.
_MOST_SPELT, _LEAST_SPELT = 5, 0.2
# What a row of rings or pegs is read as, and of teeth or waves, from so many on.
_RINGS, _TEETH, _LEAST_PATTERN = frozenset("OCQDoc0ITtl1i|"), frozenset("AVWUMNYvwu"), 9
# The inks of most texts.
_INKS = ("black", "gray", "white", "")
_NO_PLOT: Box = (0.0, 0.0, 0.0, 0.0)


class Scene(NamedTuple):
    """What a canvas shows: lines that are no part of a chart, objects, and the chart, if there is one."""

    lines: list[Any]
    objects: list[Any]
    chart: ChartTable | None


class _Found(NamedTuple):
    """A chart's table, the lines that went into it, and the box of what is drawn."""

    table: ChartTable
    used: frozenset[int]
    plot: Box


def read_scene(canvas: Tensor | None, lines: Sequence[Any], objects: Sequence[Any], read: Read | None = None) -> Scene:
    """What was read and found, with a chart's parts put together.

    Args:
        canvas: uint8 [3, H, W], on which charts are measured; without it, there are charts of found bars alone.
        lines: ``Line`` of the reader, in reading order. What textures are read as, signs without a letter or a digit
            or one character alone, is left out.
        objects: ``Drawn`` of the finder.
        read: the reader, for a second look at a chart's margins.
    """
    return _read_filled(canvas, None if canvas is None else find_fills(canvas), lines, objects, read)


def _read_filled(
    canvas: Tensor | None, fills: Fills | None, lines: Sequence[Any], objects: Sequence[Any], read: Read | None
) -> Scene:
    """``read_scene`` of a canvas whose fills are known; ``fills``: None where it has none."""
    lines = [line for line in lines if _is_text(line.text) or _leads_on(line, lines)]
    if sum(len(line.text) for line in lines) == 1:
        lines = []
    if fills is not None and canvas is not None:
        seen = _read_drawn_chart(canvas, fills, lines, objects, read)
        if seen is not None:
            return seen
    if canvas is not None and read is not None and len(lines) <= _MOST_LINES:
        lines = complete_words(canvas, lines, range(len(lines)), _NO_PLOT, read) or lines
    shown = [each for each in objects if each.kind not in _UNTOLD]
    shown = [each for each in shown if not any(_is_letter_in(each.box, line) for line in lines)]
    if fills is not None:
        flat = find_flat_shapes(fills, [line.box for line in lines if not _may_be_shapes(line.text)])
        lines = [line for line in lines if not (_may_be_shapes(line.text) and _covers_shapes(line.box, flat))]
        outlines = _find_outlines(fills, lines, flat)
        lines = [line for line in lines if not _spells_shapes(line, outlines)]
        shown = merge_shapes(shown, [*outlines, *flat])
    lines = [line for line in lines if not _is_letter_of(shown, line)]
    chart = read_chart(objects, lines) if fills is None or fills.is_noisy else None
    if chart is None or not has_values(chart):
        chart = read_pie(objects, lines)
    if chart is None:
        buttons = _find_window_buttons(lines)
        shown = [each for each in shown if not any(share_within(each.box, line.box) > 0.5 for line in buttons)]
        lines = [line for line in lines if not any(line is each for each in buttons)]
        marks = {} if canvas is None else find_marks(canvas, lines)
        shown = [each for each in shown if not any(share_within(each.box, mark.box) > 0.5 for mark in marks.values())]
        lines = mark_ticks(lines, marks)
        return Scene(read_columns(_join_neighbours(_drop_marks([_level(line) for line in lines]))), shown, None)
    return Scene([line for i, line in enumerate(lines) if i not in chart.used], shown, _tabulate(chart))


def describe_scene(
    size: tuple[int, int],
    lines: Sequence[Any],
    objects: Sequence[Any],
    canvas: Tensor | None = None,
    read: Read | None = None,
) -> str:
    """The description of a canvas of ``size`` (width, height) px; "" if nothing was seen. See ``read_scene``."""
    fills = None if canvas is None else find_fills(canvas)
    told = "" if canvas is None or fills is None else _describe_plots(size, lines, objects, canvas, fills, read)
    if told:
        return told
    scene = _read_filled(canvas, fills, lines, objects, read)
    return describe(size, scene.lines, scene.objects, scene.chart)


def _describe_plots(
    size: tuple[int, int],
    lines: Sequence[Any],
    objects: Sequence[Any],
    canvas: Tensor,
    fills: Fills,
    read: Read | None,
) -> str:
    """The descriptions of several plots, below what stands across them; "" unless each is a chart with names."""
    plots = part_plots(canvas, lines, objects, fills)
    scenes = [read_scene(plot.canvas, plot.lines, plot.objects, read) for plot in plots]
    if len(scenes) < 2 or not all(scene.chart is not None and _is_named(scene.chart) for scene in scenes):
        return ""
    across = [line for line in lines if all(share_within(line.box, plot.box) <= _LEAST_IN_PLOT for plot in plots)]
    texts = [describe(size, [*across], [], None)]
    texts += [describe(size, scene.lines, scene.objects, scene.chart) for scene in scenes]
    return "\n".join(filter(None, texts))


def _is_named(chart: ChartTable) -> bool:
    """Whether at least half of a chart's parts have a name, and all have a value."""
    parts = [*chart.bars, *(point for line in chart.lines for point in line.points)]
    return 2 * sum(bool(part.label) for part in parts) >= len(parts) and all(part.value for part in parts)


def _read_drawn_chart(
    canvas: Tensor, fills: Fills, lines: Sequence[Any], objects: Sequence[Any], read: Read | None
) -> Scene | None:
    """The chart that flat fills and lines on a canvas are; None if they are none."""
    lines = _drop_huge(lines)
    pie = find_pie(fills)
    bars = [] if pie is not None else find_bars(fills, [line.box for line in lines])
    # Where fills are hatched or noisy, the network may see more.
    if _count(bars) * (1.0 if fills.is_noisy else 1.4) + (not fills.is_noisy) < _count(objects):
        bars = [each for each in objects if each.kind in ("bar", "key")]
        bars = bars if _measure_area(bars) > _LEAST_BARS * fills.labels.size else []
    if _are_rows(bars, lines):
        return None
    if read is not None and (bars or pie is not None or find_value_ticks(lines) is not None):
        lines = part_from_keys(canvas, lines, [each for each in bars if each.kind == "key"], read)
    found = _find_chart(fills, lines, pie, bars)

    def look_again(seen: Sequence[Any] | None) -> tuple[Sequence[Any], _Found | None]:
        again = None if seen is None else _find_chart(fills, seen, pie, bars)
        return (lines, found) if seen is None or again is None else (seen, again)

    if read is not None and pie is None and _is_incomplete(found, bars, lines):
        margin = found.plot if found is not None else _surround(bars) if bars else _guess_plot(canvas)
        turned = read_slanted_labels(canvas, fills, lines, margin, read) if bars else None
        lines, found = look_again(read_margins(canvas, turned or lines, margin, read, below=turned is None))
    if read is not None and pie is None and bars and (found is None or not any(b.value for b in found.table.bars)):
        lines, found = look_again(read_bar_values(canvas, fills, bars, lines, read))
    if read is not None and pie is None and found is not None:
        lines, found = look_again(complete_words(canvas, lines, sorted(found.used), found.plot, read))
    if found is None:
        return None
    table, used = _multiply(found.table, lines, set(found.used), found.plot)
    if not table.is_pie:
        below = find_name_below(lines, sorted(used), found.plot)
        used |= set() if below is None else {below}
        name = None if read is None else read_turned_name(canvas, fills, lines, sorted(used), found.plot, read)
        table = replace(
            table, x_name="" if below is None else lines[below].text.strip(), y_name=name[0] if name else ""
        )
        if name is not None:
            # Letters that were read in it, one by one, are no text beside it.
            used |= {i for i, line in enumerate(lines) if share_area(line.box, name[1]) > 0}
    rest = [line for i, line in enumerate(lines) if i not in used]
    return Scene([line for line in rest if not (table.lines and _is_marker(line, found.plot))], [], table)


def _is_marker(line: Any, plot: Box) -> bool:
    """Whether a line of text within a plot is a marker, or a part of a curve, that was read as letters."""
    is_short = len(line.text.strip()) == 1 or is_scribble(line.text)
    return covers_middle(plot, line.box) and is_short and line.ink not in _INKS


def _multiply(table: ChartTable, lines: Sequence[Any], used: set[int], plot: Box) -> tuple[ChartTable, set[int]]:
    """The table times the power of ten that stands above an axis, as "1e6" of matplotlib, and the lines of both."""
    for i, line in enumerate(lines):
        power = _POWER.fullmatch(line.text.strip())
        if power is not None and i not in used and line.box[3] < plot[1] + 0.25 * (plot[3] - plot[1]):
            scale = 10.0 ** int(power[1])
            bars = tuple(_scale(bar, scale) for bar in table.bars)
            chart_lines = tuple(replace(one, points=tuple(_scale(p, scale) for p in one.points)) for one in table.lines)
            return replace(table, bars=bars, lines=chart_lines), used | {i}
    return table, used


def _scale(bar: Bar, scale: float) -> Bar:
    """The bar with a value that many times as large, as it would be written; as it is where that is no number."""
    try:
        value = float(bar.value) * scale
    except ValueError:
        return bar
    return replace(bar, value=f"{value:.10g}" if abs(value) < 1e10 else f"{value:.0f}", size=bar.size * scale)


def _are_rows(bars: Sequence[Drawn], lines: Sequence[Any]) -> bool:
    """Whether what was taken for bars are the coloured rows of a table: some hold lines side by side, and they are all
    of one length, or others hold none.
    """
    boxes = [each.box for each in bars if each.kind == "bar"]
    held = [_count_across([line.box for line in lines if covers_middle(box, line.box)]) for box in boxes]
    widths = [box[2] - box[0] for box in boxes]
    are_alike = bool(widths) and min(widths) > 0.97 * max(widths)
    return any(count > 1 for count in held) and (are_alike or not all(count > 1 for count in held))


def _count_across(boxes: Sequence[Box]) -> int:
    """How many boxes lie on the first one's height, it among them."""
    return sum(box[1] < (boxes[0][1] + boxes[0][3]) / 2 < box[3] for box in boxes)


def _drop_marks(lines: Sequence[Any]) -> list[Any]:
    """The lines without marks that are no text: the cross that closes a window, and dots that lead to a price."""
    kept, width = [], max((line.box[2] for line in lines), default=0.0)
    for i, line in enumerate(lines):
        left, top, right, bottom = line.box
        level = [each for each in lines if each is not line and each.box[1] < (top + bottom) / 2 < each.box[3]]
        closes = i < 2 and line.text.strip() in _CROSSES and left > 0.8 * width and len(level) == 1
        higher = [each for each in level if each.box[3] - each.box[1] > _LEADER * (bottom - top)]
        leads = any(each.box[2] < left for each in higher) and any(each.box[0] > right for each in higher)
        if closes or (leads and len({*line.text} & _LEADER_SIGNS) >= len({*line.text}) - 1):
            continue
        if any(each.box[0] > right for each in level) and (text := _LEADING_ON.sub("", line.text)):
            line = line._replace(text=text) if text != line.text else line
        kept.append(line)
    return kept


def _join_neighbours(lines: Sequence[Any]) -> list[Any]:
    """The lines, in reading order, with a figure or two joined to the word beside them: "5" and "June" of one cell."""
    joined: list[Any] = []
    for line in lines:
        left, top, right, bottom = line.box
        before = joined[-1].box if joined else None
        height = bottom - top
        if (
            before is not None
            and -0.1 * height <= left - before[2] <= _WORD_GAP * height
            and before[1] < (top + bottom) / 2 < before[3]
            and min(len(joined[-1].text), len(line.text)) <= _MOST_SPLIT
            and (line.ink, line.ground) == (joined[-1].ink, joined[-1].ground)
        ):
            box = (before[0], min(before[1], top), right, max(before[3], bottom))
            joined[-1] = joined[-1]._replace(text=f"{joined[-1].text} {line.text}", box=box)
        else:
            joined.append(line)
    return joined


def _find_window_buttons(lines: Sequence[Any]) -> list[Any]:
    """The line that the three discs in the upper left corner of a window are read as: "000" above all other text."""
    width = max((line.box[2] for line in lines), default=0.0)
    return [
        line
        for line in lines[:2]
        if _DISCS.fullmatch(line.text.strip()) and line.box[2] < 0.25 * width and _is_above(line, lines)
    ]


def _is_above(line: Any, lines: Sequence[Any]) -> bool:
    """Whether there are at least two other lines, and nothing stands higher or farther left."""
    left, top, _, bottom = line.box
    others = [each for each in lines if each is not line]
    return len(others) > 1 and all(
        each.box[3] > top and (each.box[1] > bottom or each.box[0] > left) for each in others
    )


def _level(line: Any) -> Any:
    """A line where it would be on a level page, by which it joins its row."""
    left, top, right, bottom = line.box
    return line if not line.drop else line._replace(box=(left, top - line.drop, right, bottom - line.drop))


def _is_text(text: str) -> bool:
    """Whether it is more than signs, as what textures are read as is, such as "k.>>", and no row of rings or teeth."""
    if len(text) >= _LEAST_PATTERN and (_RINGS.issuperset(text) or _TEETH.issuperset(text)):
        return False
    return any(map(str.isalnum, text)) and 2 * sum(map(str.isalnum, text)) >= len("".join(text.split()))


def _leads_on(line: Any, lines: Sequence[Any]) -> bool:
    """Whether a line is a name with dots after it, on the height of what stands right of them."""
    _, top, right, bottom = line.box
    is_beside = any(each.box[0] > right and each.box[1] < (top + bottom) / 2 < each.box[3] for each in lines)
    return is_beside and _is_text(_LEADING_ON.sub("", line.text))


def _may_be_shapes(text: str) -> bool:
    """Whether shapes in a row may have been read: stars as "k k", a circle, a square and a triangle as "ODA"."""
    letters = [*text.replace(" ", "")]
    return len(set(letters)) == 1 or (len(letters) <= 6 and _LIKE_SHAPES.issuperset(letters))


def _covers_shapes(box: Box, shapes: Sequence[FlatShape]) -> bool:
    """Whether most of a line of text is shapes that have a name."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(share_area(box, shape.box) for shape in shapes if shape.kind) > 0.4 * area


def _find_outlines(fills: Fills, lines: Sequence[Any], flat: Sequence[FlatShape]) -> list[FlatShape]:
    """The outlines that are no text, of which a few words may be read: a circle, a square and a triangle as "QUA"."""
    found = find_outlines(fills, [line.box for line in lines if len(line.text) > _MOST_SPELT], flat)
    texts = [line.box for line in lines if not _spells_shapes(line, found)]
    is_clear = not found or not any(share_area(shape.box, text) > 0 for shape in found for text in texts)
    return found if is_clear else find_outlines(fills, texts, flat)


def _spells_shapes(line: Any, shapes: Sequence[FlatShape]) -> bool:
    """Whether a short line of text has one shape of its height for each of its characters."""
    letters, height = len(line.text.replace(" ", "")), line.box[3] - line.box[1]
    within = [shape for shape in shapes if share_within(shape.box, line.box) > _LEAST_SPELT]
    is_high = all(shape.box[3] - shape.box[1] > 0.5 * height for shape in within)
    return 1 < letters <= len(within) and len(line.text) <= _MOST_SPELT and is_high


def _is_letter_in(box: Box, line: Any) -> bool:
    """Whether an object is a letter of a longer text, as the O of "NO" is a ring."""
    if len(line.text.strip()) < 2 or _may_be_shapes(line.text) or box[2] - box[0] > 0.7 * (line.box[2] - line.box[0]):
        return False
    return share_within(box, line.box) > 0.7


def _is_letter_of(shapes: Sequence[Any], line: Any) -> bool:
    """Whether a shape was also read: a triangle as "A", a ring as "O", in its own colour and in its place."""
    if len(line.text.strip()) > 2:
        return False
    left, top, right, bottom = line.box
    both = sum(share_area(line.box, shape.box) for shape in shapes if shape.colour == line.ink)
    return both > 0.6 * (right - left) * (bottom - top)


def _drop_huge(lines: Sequence[Any]) -> list[Any]:
    """The lines but those that bars were taken for: several times as high as the others."""
    heights = sorted(line.box[3] - line.box[1] for line in lines)
    usual = heights[len(heights) // 2] if heights else 0.0
    return [line for line in lines if line.box[3] - line.box[1] <= 4 * usual]


def _find_chart(fills: Fills, lines: Sequence[Any], pie: Pie | None, bars: Sequence[Drawn]) -> _Found | None:
    if pie is not None:
        keys = find_keys(fills, {wedge.fill for wedge in pie.wedges}, [line.box for line in lines])
        chart = read_pie(keys, free_of_keys(lines, keys), pie)
        if chart is not None:
            return _Found(_tabulate(chart), chart.used, chart.bars[0].box)
    if bars:
        chart = read_chart(bars, free_of_keys(lines, [each for each in bars if each.kind == "key"]))
        if chart is not None and is_sure(chart):
            return _Found(_tabulate(chart), chart.used, _surround(bars))
    traced = read_line_chart(fills, lines)
    return None if traced is None else _Found(traced.table, traced.used, traced.plot)


def _is_incomplete(found: _Found | None, bars: Sequence[Drawn], lines: Sequence[Any]) -> bool:
    """Whether a name or a value is missing that may stand beside a plot; without a chart, whether there may be one."""
    if found is None:
        may_be = 0 < len(lines) <= _MOST_LINES and _count(bars) <= MAX_BARS
        return may_be and (bool(bars) or find_value_ticks(lines) is not None)
    parts = [*found.table.bars, *(point for line in found.table.lines for point in line.points)]
    return not all(part.label and part.value for part in parts)


def _measure_area(objects: Sequence[Any]) -> float:
    """How many pixels all bars cover."""
    boxes = [each.box for each in objects if each.kind == "bar"]
    return sum((box[2] - box[0]) * (box[3] - box[1]) for box in boxes)


def _count(objects: Sequence[Any]) -> int:
    return sum(each.kind == "bar" for each in objects)


def _surround(bars: Sequence[Drawn]) -> Box:
    boxes = [each.box for each in bars if each.kind == "bar"]
    left, top = (min(box[i] for box in boxes) for i in (0, 1))
    right, bottom = (max(box[i] for box in boxes) for i in (2, 3))
    return left, top, right, bottom


def _guess_plot(canvas: Tensor) -> Box:
    """Where matplotlib has its axes by default."""
    height, width = canvas.shape[1:]
    return 0.125 * width, 0.12 * height, 0.9 * width, 0.88 * height


def _measure_lengths(chart: Chart) -> list[float]:
    """The bars' lengths, px, below 0 where bars with values below 0 begin at the place that these go down from."""
    low, high = (0, 2) if chart.is_horizontal else (3, 1)
    rising = [each.box[low] for each in chart.bars if each.value is not None and each.value > 0]
    falling = [each.box[high] for each in chart.bars if each.value is not None and each.value < 0]
    lengths = []
    for each in chart.bars:
        length = max(1e-6, abs(each.box[high] - each.box[low]))
        base = median(rising or falling) if falling else each.box[low]
        lengths.append(-length if abs(each.box[high] - base) < abs(each.box[low] - base) else length)
    return lengths


def _tabulate(chart: Chart) -> ChartTable:
    lengths = _measure_lengths(chart)
    known = [(each.value, length) for each, length in zip(chart.bars, lengths, strict=True) if each.value]
    # Beside values, a length in px would be the largest of them all.
    unit = median(abs(value / length) for value, length in known) if known else 1.0
    bars = []
    for each, length in zip(chart.bars, lengths, strict=True):
        label = " ".join(filter(None, (each.label, each.series)))
        bars.append(Bar(label, each.colour, each.text, unit * length if each.value is None else each.value))
    return ChartTable(chart.title, tuple(bars), chart.is_horizontal, chart.arrangement == "pie")
