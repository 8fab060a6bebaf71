"""Charts as SVG inside a page: lines over steps, and a histogram. They need no library, no script and no other file.

A chart scales with its page and takes its font from there. Points say their values where the pointer rests on them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llava.html_page import PALETTE

# Size of a chart in its own units, and the margins inside which its data are drawn: left, right, top, bottom.
_WIDTH, _HEIGHT = 600, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 590, 10, 240
# Points of a line that say their values; of longer lines some do.
_MOST_POINTS = 150
# From so many points on, a line is smoothed.
_MANY_POINTS = 100
# Above this share of the greatest value, the least one is where the axis begins, in place of 0.
_CLOSE = 0.5


@dataclass(frozen=True)
class Line:
    """A line of a chart: (step, value), with a step above each one before.

    Attributes:
        color: of CSS; by default the next of a palette.
        is_marked: whether its points are marked and what is between them is dashed, for a line with few points.
        is_bold: whether it is the line that the chart is about.
    """

    label: str
    points: Sequence[tuple[float, float]]
    color: str = ""
    is_marked: bool = False
    is_bold: bool = False


def draw_lines(lines: Sequence[Line]) -> str:
    """An SVG image of the lines over steps, with a legend if there are several.

    It begins at 0, unless all values lie so close together that they would look constant.

    NaN and infinite values are left out; without any other, the image is "". Bold lines of many points are smoothed,
    with the points themselves pale behind them.
    """
    palette = iter(PALETTE * (1 + len(lines) // len(PALETTE)))
    colored = [(line, line.color or next(palette)) for line in lines]
    kept = [[point for point in line.points if math.isfinite(point[1])] for line in lines]
    steps, values = ([point[axis] for points in kept for point in points] for axis in (0, 1))
    if not steps:
        return ""
    low, high = min(values), max(values)
    bottom = low - 0.05 * (high - low) if high > low > _CLOSE * high else min(0.0, low)
    frame = _Frame(min(steps), max(steps), bottom, high)
    body = list(frame.draw_axes("step"))
    for (line, color), points in zip(colored, kept, strict=True):
        is_smoothed = line.is_bold and len(points) >= _MANY_POINTS
        if is_smoothed:
            body.append(f'<path d="{frame.trace(points)}" stroke="{color}" opacity=".22" fill="none"/>')
        drawn = smooth(points) if is_smoothed else points
        width = 2.2 if line.is_bold else 1.4
        dashes = ' stroke-dasharray="5 4"' if line.is_marked else ""
        body.append(f'<path d="{frame.trace(drawn)}" stroke="{color}" stroke-width="{width}"{dashes} fill="none"/>')
        every = -(-len(points) // _MOST_POINTS) if points else 1
        for step, value in drawn[::every]:
            x, y = frame.place(step, value)
            text = html.escape(f"{line.label}, step {step:,g}: {value:.4g}")
            seen = f'r="3" fill="{color}"' if line.is_marked or len(points) == 1 else 'r="6" fill="transparent"'
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" {seen}><title>{text}</title></circle>')
    legend = ""
    if len(lines) > 1:
        entries = (
            f'<span><i style="background:{color}"></i>{html.escape(line.label)}</span>' for line, color in colored
        )
        legend = f"<div class=legend>{''.join(entries)}</div>"
    return _wrap(body) + legend


def draw_histogram(values: Sequence[int], unit: str) -> str:
    """An SVG image of how many values are in each of up to 40 equal ranges."""
    low, high = min(values), max(values)
    size = max(1, -(-(high - low + 1) // 40))
    counts: dict[int, int] = {}
    for value in values:
        counts[(value - low) // size] = counts.get((value - low) // size, 0) + 1
    frame = _Frame(low, low + size * (max(counts) + 1), 0, max(counts.values()))
    body = list(frame.draw_axes(unit, counts=True))
    for number, count in sorted(counts.items()):
        begin = low + number * size
        (x, y), (end, bottom) = frame.place(begin, count), frame.place(begin + size, 0)
        text = (
            f"{count:,} of {begin:,} to {begin + size - 1:,} {unit}" if size > 1 else f"{count:,} of {begin:,} {unit}"
        )
        shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(1.0, end - x - 0.8):.1f}" height="{bottom - y:.1f}"'
        body.append(f'<rect {shape} fill="{PALETTE[0]}" opacity=".8"><title>{text}</title></rect>')
    return _wrap(body)


def smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points with an exponential average over about a fiftieth of them in place of each value."""
    share, total, weight = 1 / max(1.0, len(points) / 50), 0.0, 0.0
    smoothed = []
    for step, value in points:
        total, weight = total * (1 - share) + value * share, weight * (1 - share) + share
        smoothed.append((step, total / weight))
    return smoothed


class _Frame:
    """The axes of a chart: where a point of the data is in the image."""

    def __init__(self, left: float, right: float, bottom: float, top: float) -> None:
        self.left, self.right = left, right if right > left else left + 1
        self.bottom = bottom
        self.top = bottom + (top - bottom) * 1.05 if top > bottom else bottom + 1

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The place of a point, from the upper left corner."""
        return (
            _LEFT + (x - self.left) / (self.right - self.left) * (_RIGHT - _LEFT),
            _BOTTOM - (y - self.bottom) / (self.top - self.bottom) * (_BOTTOM - _TOP),
        )

    def trace(self, points: Sequence[tuple[float, float]]) -> str:
        """The line through the points as a path of SVG."""
        return "M" + "L".join("{:.1f},{:.1f}".format(*self.place(*point)) for point in points)

    def draw_axes(self, unit: str, *, counts: bool = False) -> Iterator[str]:
        """Lines and numbers; ``unit`` names the numbers below, and those on the left may be whole ``counts``."""
        yield f'<text x="{_RIGHT}" y="{_BOTTOM + 36}" text-anchor="end">{html.escape(unit)}</text>'
        for value in _choose_ticks(self.bottom, self.top, whole=counts):
            _, y = self.place(self.left, value)
            yield f'<path class="grid" d="M{_LEFT},{y:.1f}H{_RIGHT}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_say(value)}</text>'
        for value in _choose_ticks(self.left, self.right, whole=True):
            x, _ = self.place(value, self.bottom)
            yield f'<text x="{x:.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{_say(value)}</text>'


def _choose_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Four to nine round values in this range."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6.5)
    if whole:
        step = max(1.0, step)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _say(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:,.6g}"
    return f"{value:.3g}"


def _wrap(body: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(body)}</svg>'
