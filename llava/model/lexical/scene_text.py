"""Puts together what was read and what was found on a canvas: a chart's bars with their names, the rest as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llava.model.lexical.chart_reading import Chart, read_chart
from llava.model.lexical.description import Bar, ChartTable, describe
from llava.model.lexical.pie_reading import read_pie

# What is not told as an object: the parts of charts, and what carries text.
_UNTOLD = ("bar", "key", "wedge", "sign")


def describe_scene(size: tuple[int, int], lines: Sequence[Any], objects: Sequence[Any]) -> str:
    """The description of a canvas of ``size`` (width, height) px; "" if nothing was seen.

    Args:
        lines: ``Line`` of the reader, in reading order. What textures are read as, signs without a letter or a digit
            or one character alone, is left out.
        objects: ``Drawn`` of the finder.
    """
    lines = [line for line in lines if any(map(str.isalnum, line.text))]
    if sum(len(line.text) for line in lines) == 1:
        lines = []
    chart = read_chart(objects, lines) or read_pie(objects, lines)
    shown = [each for each in objects if each.kind not in _UNTOLD]
    if chart is None:
        return describe(size, lines, shown)
    rest = [line for i, line in enumerate(lines) if i not in chart.used]
    return describe(size, rest, shown, _tabulate(chart))


def _tabulate(chart: Chart) -> ChartTable:
    bars = []
    for each in chart.bars:
        left, top, right, bottom = each.box
        length = right - left if chart.is_horizontal else bottom - top
        label = " ".join(filter(None, (each.label, each.series)))
        bars.append(Bar(label, each.colour, each.text, length if each.value is None else each.value))
    return ChartTable(chart.title, tuple(bars), chart.is_horizontal, chart.arrangement == "pie")
