"""Bar charts in the manner of DVQA: single, grouped and stacked bars with legends, patterns and other scales.

Bars stand or lie, are filled with a colour or a pattern, and are measured on a linear, a percentage or a logarithmic
axis whose ticks are labelled. Every value can be read off the axis. The questions are those of ``bar_questions``.

Source: DVQA (arXiv:1801.08163, section 3: what varies between its charts).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import Image, ImageDraw

from llava.synth import words
from llava.synth.bar_questions import DOMAINS, BarData, ask_about_bars
from llava.synth.drawing import Drawing, Object, vary_color
from llava.synth.scene import Kind, Scene, Type, draw_light, draw_type

_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray")
_PATTERNS = ("diagonal", "lines", "dots", "crossed", "solid")
_LINE_COLOR, _GRID_COLOR, _PATTERN_COLOR = (120, 120, 120), (215, 215, 215), (35, 35, 35)


class _Tick(NamedTuple):
    value: int
    label: str


@dataclass(frozen=True)
class _Axis:
    """The value axis: its ticks, and whether it is logarithmic. It begins at its first tick and ends at its last."""

    ticks: tuple[_Tick, ...]
    is_logarithmic: bool

    def place(self, value: int) -> float:
        """Where a value lies between the first tick, 0, and the last, 1."""
        top = self.ticks[-1].value
        return math.log10(value) / math.log10(top) if self.is_logarithmic else value / top


@dataclass(frozen=True)
class _Look:
    """How the bars are filled, by series or, for single bars, by bar.

    ``shades``: the colours as RGB from 0 to 255. They are drawn once, so that a bar has the shade of its legend.
    """

    colors: tuple[str, ...]
    shades: tuple[tuple[int, int, int], ...]
    patterns: tuple[str, ...]
    thickness: float
    has_grid: bool


@dataclass
class _Plot:
    """The plot area in pixels. A place is a pair (along the names, along the values), both from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float
    is_horizontal: bool
    slots: list[tuple[float, float]] = field(default_factory=list)

    def point(self, along: float, value: float) -> tuple[float, float]:
        """A place in pixels."""
        across, up = (value, 1 - along) if self.is_horizontal else (along, value)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def _bind(arrangement: str) -> Kind:
    def draw(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
        return draw_bars(rng, width, height, held_out, arrangement)

    return draw


def draw_bars(rng: random.Random, width: int, height: int, held_out: bool, arrangement: str) -> Scene:
    """A chart of "single", "grouped" or "stacked" bars, and its questions."""
    drawing = Drawing(rng, width, height, draw_light(rng))
    kind = draw_type(rng, rng.randint(10, 12) if min(width, height) < 200 else rng.randint(11, max(14, height // 24)))
    data = _choose_data(rng, kind, width, height, held_out, arrangement)
    axis = _choose_axis(data, kind, width if data.is_horizontal else height)
    num_fills = len(data.groups) if arrangement == "single" else len(data.series)
    look = _choose_look(rng, num_fills, arrangement)
    top = _write_title(rng, drawing, kind, data)
    plot = _place_plot(drawing, kind, data, axis, look, top, rng)
    _draw_axes(drawing, kind, data, axis, plot, look)
    for series in range(len(data.series)):
        for group in range(len(data.groups)):
            _draw_bar(drawing, data, axis, look, plot, series, group)
    x, y = plot.point(0.0, 0.0)
    drawing.pen.line((x, y, *plot.point(1.0, 0.0)), fill=_LINE_COLOR)
    scene = Scene(f"{arrangement}-bars", drawing, data.describe())
    ask_about_bars(rng, scene, data, look.colors, all(pattern == "solid" for pattern in look.patterns))
    return scene


BAR_KINDS: dict[str, Kind] = {f"{name}-bars": _bind(name) for name in ("single", "grouped", "stacked")}


def _choose_data(rng: random.Random, kind: Type, width: int, height: int, held_out: bool, arrangement: str) -> BarData:
    is_horizontal = rng.random() < 0.3
    domain = rng.choice(DOMAINS)
    side = height if is_horizontal else width
    is_single = arrangement == "single"
    num_series = 1 if is_single else rng.randint(2, 3 if side >= 150 else 2)
    bars_per_slot = num_series if arrangement == "grouped" else 1
    most = int((side - 45) / max(17 if is_horizontal else 22, 9 * bars_per_slot))
    num_groups = rng.randint(2, max(2, min(6 if is_single else 4, most)))
    room_px = width * 0.3 if is_horizontal else (width - 40) / num_groups - 2
    groups = _choose_names(rng, kind, num_groups, held_out, room_px, ())
    series = () if is_single else _choose_names(rng, kind, num_series, held_out, width * 0.32, groups)
    scales = ("linear", "linear", "percentage", *(() if arrangement == "stacked" else ("logarithmic",)))
    scale = rng.choice(scales)
    # The labels of a lying logarithmic axis stand side by side.
    most_zeros = max(2, min(4, width // 70)) if is_horizontal else 4
    draw: dict[str, Callable[[], int]] = {
        "linear": lambda: rng.randint(1, 9),
        "percentage": lambda: 10 * rng.randint(1, 9),
        "logarithmic": lambda: 10 ** rng.randint(1, most_zeros),
    }
    values = tuple(tuple(draw[scale]() for _ in groups) for _ in range(num_series))
    return BarData(domain, arrangement, is_horizontal, scale, series or ("",), groups, values)


def _choose_names(
    rng: random.Random, kind: Type, count: int, held_out: bool, room_px: float, taken: tuple[str, ...]
) -> tuple[str, ...]:
    """Different words narrower than ``room_px``, or capital letters where no word is."""
    names: list[str] = []
    letters = rng.sample("ABCDEFGHJKLMNPRSTUVWXYZ", count)
    for letter in letters:
        name = letter
        for _ in range(20):
            word = words.draw_word(rng, held_out, 6).lower()
            if kind.font.getlength(word) <= room_px and word not in names and word not in taken:
                name = word
                break
        names.append(name)
    return tuple(names)


def _choose_axis(data: BarData, kind: Type, side_px: int) -> _Axis:
    if data.scale == "logarithmic":
        powers = range(math.ceil(math.log10(max(map(max, data.values)))) + 1)
        return _Axis(tuple(_Tick(10**power, str(10**power)) for power in powers), True)
    unit, sign = (10, "%") if data.scale == "percentage" else (1, "")
    highest = max(data.totals) if data.arrangement == "stacked" else max(map(max, data.values))
    # Lying bars have their tick labels side by side, and these are wider than they are high.
    label_px = kind.font.getlength("000" + sign) + 4 if data.is_horizontal else 1.25 * kind.line_px
    most_ticks = max(2, int((side_px - 50) / label_px))
    step = next(step for step in (1, 2, 5, 10, 20, 50) if highest / (step * unit) <= most_ticks) * unit
    return _Axis(tuple(_Tick(i * step, f"{i * step}{sign}") for i in range(math.ceil(highest / step) + 1)), False)


def _choose_look(rng: random.Random, count: int, arrangement: str) -> _Look:
    colors = tuple(rng.sample(_COLORS, count))
    if arrangement == "single" and rng.random() < 0.5:
        colors = colors[:1] * count
    patterns = ("solid",) * count
    if rng.random() < 0.35:
        patterns = tuple(rng.choice(_PATTERNS[:-1]) if i == 0 else rng.choice(_PATTERNS) for i in range(count))
        if arrangement == "single":
            patterns = patterns[:1] * count
    shades = {color: vary_color(rng, color) for color in colors}
    return _Look(
        colors, tuple(shades[color] for color in colors), patterns, rng.uniform(0.55, 0.85), rng.random() < 0.5
    )


def _write_title(rng: random.Random, drawing: Drawing, kind: Type, data: BarData) -> float:
    """Writes the title in some of the charts; returns where the space below it begins."""
    title = data.domain.title
    if drawing.height < 100 or rng.random() < 0.6 or kind.font.getlength(title) > drawing.width - 8:
        return 4.0
    drawing.write((drawing.width - kind.font.getlength(title)) / 2, 1, title, kind.font, "black")
    return kind.line_px + 4.0


def _place_plot(
    drawing: Drawing, kind: Type, data: BarData, axis: _Axis, look: _Look, top: float, rng: random.Random
) -> _Plot:
    """Draws the legend, above the plot or beside it, and returns the area that is left of the image."""
    right = drawing.width - 5.0
    if data.arrangement != "single":
        widest = max(kind.font.getlength(name) for name in data.series) + 14
        # Beside the plot the legend must leave room for the names below it.
        names_px = 0.0 if data.is_horizontal else max(map(kind.font.getlength, data.groups)) * len(data.groups) + 50
        if drawing.width - widest - 4 > max(names_px, 0.6 * drawing.width) and rng.random() < 0.5:
            right -= widest + 4
            for i, name in enumerate(data.series):
                _write_legend(drawing, kind, look, i, name, right + 6, top + i * (kind.line_px + 1))
        else:
            x = 4.0
            for i, name in enumerate(data.series):
                entry_px = kind.font.getlength(name) + 20
                if x + entry_px > drawing.width and x > 4:
                    x, top = 4.0, top + kind.line_px
                _write_legend(drawing, kind, look, i, name, x, top)
                x += entry_px
            top += kind.line_px + 2
    names = data.groups if data.is_horizontal else [tick.label for tick in axis.ticks]
    left = max(kind.font.getlength(name) for name in names) + 7
    if data.is_horizontal:
        right -= kind.font.getlength(axis.ticks[-1].label) / 2
    return _Plot(left, top + kind.line_px / 2, right, drawing.height - kind.line_px - 4, data.is_horizontal)


def _write_legend(drawing: Drawing, kind: Type, look: _Look, i: int, name: str, x: float, y: float) -> None:
    side = max(6, round(kind.font.size * 0.75))
    middle = y + kind.line_px / 2
    area = (x, middle - side / 2, x + side, middle + side / 2)
    _fill(drawing, look.shades[i], look.patterns[i], area)
    drawing.keys.append(Object("key", look.colors[i], *area, x + side / 2, middle))
    drawing.write(x + side + 3, y, name, kind.font, "black")


def _draw_axes(drawing: Drawing, kind: Type, data: BarData, axis: _Axis, plot: _Plot, look: _Look) -> None:
    """Draws both axes, the grid if there is one, and their labels."""
    font, line_px = kind
    for tick in axis.ticks:
        x, y = plot.point(0.0, axis.place(tick.value))
        if look.has_grid:
            drawing.pen.line((x, y, *plot.point(1.0, axis.place(tick.value))), fill=_GRID_COLOR)
        if data.is_horizontal:
            drawing.pen.line((x, plot.bottom, x, plot.bottom + 3), fill=_LINE_COLOR)
            drawing.write(x - font.getlength(tick.label) / 2, plot.bottom + 3, tick.label, font, "black")
        else:
            drawing.pen.line((x - 3, y, x, y), fill=_LINE_COLOR)
            drawing.write(x - 5 - font.getlength(tick.label), y - line_px / 2, tick.label, font, "black")
    end = (plot.right, plot.bottom) if data.is_horizontal else (plot.left, plot.top)
    drawing.pen.line((plot.left, plot.bottom, *end), fill=_LINE_COLOR)
    for i, name in enumerate(data.groups):
        x, y = plot.point((i + 0.5) / len(data.groups), 0.0)
        if data.is_horizontal:
            drawing.write(x - 4 - font.getlength(name), y - line_px / 2, name, font, "black")
        else:
            drawing.write(x - font.getlength(name) / 2, y + 2, name, font, "black")


def _draw_bar(drawing: Drawing, data: BarData, axis: _Axis, look: _Look, plot: _Plot, series: int, group: int) -> None:
    """Draws one bar, or one part of a stack, and marks it with the end of its value as its anchor."""
    slot = 1 / len(data.groups)
    begin = (group + 0.5 - look.thickness / 2) * slot
    breadth = look.thickness * slot
    low, high = 0, data.values[series][group]
    if data.arrangement == "grouped":
        breadth /= len(data.series)
        begin += series * breadth
    elif data.arrangement == "stacked":
        low = sum(data.values[i][group] for i in range(series))
        high += low
    base = axis.place(low) if low else 0.0
    x1, y1 = plot.point(begin, base)
    x2, y2 = plot.point(begin + breadth, axis.place(high))
    box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    fill = group if data.arrangement == "single" else series
    _fill(drawing, look.shades[fill], look.patterns[fill], box)
    anchor = (x2, (y1 + y2) / 2) if data.is_horizontal else ((x1 + x2) / 2, y2)
    drawing.objects.append(Object("bar", look.colors[fill], *box, *anchor))


def _fill(drawing: Drawing, shade: tuple[int, int, int], pattern: str, box: tuple[float, float, float, float]) -> None:
    """Fills a box with a colour and a pattern of dark lines or dots on it."""
    left, top, right, bottom = (round(edge) for edge in box)
    drawing.pen.rectangle((left, top, right, bottom), fill=shade, outline=_LINE_COLOR)
    width, height = right - left - 1, bottom - top - 1
    if pattern == "solid" or width < 1 or height < 1:
        return
    mask = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(mask)
    for i in range(-height, width + height, 5):
        if pattern in ("diagonal", "crossed"):
            pen.line((i, height, i + height, 0), fill=255)
        if pattern == "crossed":
            pen.line((i, 0, i + height, height), fill=255)
    for y in range(2, height, 4):
        if pattern == "lines":
            pen.line((0, y, width, y), fill=255)
        if pattern == "dots":
            pen.point([(x, y) for x in range(2, width, 4)], fill=255)
    drawing.image.paste(_PATTERN_COLOR, (left + 1, top + 1), mask)
