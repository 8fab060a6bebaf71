"""Bar charts, with printed values or with an axis.

A chart's numbers are drawn in a fixed order: names, values, axis, colours, bars, questions. To change the order changes
every image, and with them what the embedded default model was trained on and is measured on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageFont

from llava.synth import words
from llava.synth.drawing import Drawing
from llava.synth.scene import SCENE_COLORS, Scene, Turn, Type, choose, draw_light, draw_type

_BAR_COLORS = [color for color in SCENE_COLORS if color != "black"]
_LINE_COLOR = (150, 150, 150)
_GRID_COLOR = (215, 215, 215)


@dataclass(frozen=True)
class _Chart:
    """Bars from left to right: their names, their values, and these values as text.

    ``is_printed``: whether each value is printed over its bar; else an axis with ``num_ticks`` ticks every ``step``.
    """

    type: Type
    is_printed: bool
    step: int
    num_ticks: int
    names: list[str]
    values: list[float]

    @property
    def shown(self) -> list[str]:
        return [str(int(value)) if value == int(value) else f"{value:.1f}" for value in self.values]

    @property
    def top_value(self) -> float:
        return max(self.values) if self.is_printed else self.step * self.num_ticks


@dataclass(frozen=True)
class _Area:
    """The plot area in pixels; ``px_per_unit``: the height of a bar of value 1."""

    left: float
    bottom: float
    right: float
    px_per_unit: float


def draw_chart(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """A bar chart of two to six upright bars with printed values or an axis, and its questions."""
    drawing = Drawing(rng, width, height, draw_light(rng))
    chart = _choose_bars(rng, width, held_out)
    area = _draw_axes(drawing, chart)
    colors = _draw_bars(rng, drawing, chart, area)
    listing = ", ".join(f"{name} {text}" for name, text in zip(chart.names, chart.shown, strict=True))
    scene = Scene("chart", drawing, f"A bar chart with {len(chart.names)} bars: {listing}.")
    _ask(rng, scene, chart, colors, more=random.Random(listing))
    return scene


def _choose_bars(rng: random.Random, width: int, held_out: bool) -> _Chart:
    kind = draw_type(rng, rng.randint(12, 15))
    is_printed = rng.random() < 0.55
    count = rng.randint(2, max(2, min(6, width // 34)))
    step = rng.choice((1, 2, 5, 10, 20))
    num_ticks = rng.randint(3, 5)
    names = _choose_names(rng, kind.font, count, held_out, room_px=(width - 34) / count - 3)
    values = _choose_values(rng, count, step, num_ticks, is_printed)
    return _Chart(kind, is_printed, step, num_ticks, names, values)


def _choose_names(
    rng: random.Random, font: ImageFont.FreeTypeFont, count: int, held_out: bool, room_px: float
) -> list[str]:
    """Different names: letters, or in half of the charts words where these are narrower than ``room_px``."""
    letters = rng.sample("ABCDEFGHJKLMNPRSTUVWXYZ", count)
    has_words = rng.random() < 0.5
    names: list[str] = []
    for letter in letters:
        name = letter
        if has_words:
            word = words.draw_word(rng, held_out, 4).title()
            if font.getlength(word) < room_px and word not in names:
                name = word
        names.append(name)
    return names


def _choose_values(rng: random.Random, count: int, step: int, num_ticks: int, is_printed: bool) -> list[float]:
    """Different values: whole numbers up to 99 if they are printed, else multiples of half a tick."""
    top_value = step * num_ticks
    grain = step if is_printed else step / 2
    values: list[float] = []
    while len(values) < count:
        value = rng.randint(1, max(2, int(top_value / grain))) * grain
        if is_printed:
            value = rng.randint(1, 99)
        if value not in values and value <= (99 if is_printed else top_value):
            values.append(value)
    return values


def _draw_axes(drawing: Drawing, chart: _Chart) -> _Area:
    """Draws the base line and, unless values are printed, the vertical axis with its ticks and grid."""
    font, line_px = chart.type
    left = 4.0 if chart.is_printed else 6 + font.getlength(str(chart.top_value))
    bottom = drawing.height - line_px - 2
    top = line_px + 3 if chart.is_printed else 6.0
    area = _Area(left, bottom, drawing.width - 2, (bottom - top) / chart.top_value)
    if not chart.is_printed:
        for i in range(chart.num_ticks + 1):
            y = bottom - i * chart.step * area.px_per_unit
            drawing.pen.line((left - 3, y, area.right, y), fill=_GRID_COLOR)
            label = str(i * chart.step)
            drawing.write(left - 4 - font.getlength(label), y - line_px / 2, label, font, "black")
        drawing.pen.line((left, top, left, bottom), fill=_LINE_COLOR)
    drawing.pen.line((left, bottom, area.right, bottom), fill=_LINE_COLOR)
    return area


def _draw_bars(rng: random.Random, drawing: Drawing, chart: _Chart, area: _Area) -> list[str]:
    """Draws every bar with its name, and its value where values are printed; returns the bars' colours."""
    font, line_px = chart.type
    count = len(chart.names)
    colors = [rng.choice(_BAR_COLORS)] * count if rng.random() < 0.5 else rng.sample(_BAR_COLORS, count)
    slot = (area.right - area.left) / count
    bar = slot * rng.uniform(0.45, 0.75)
    for i, (name, value, text) in enumerate(zip(chart.names, chart.values, chart.shown, strict=True)):
        middle = area.left + (i + 0.5) * slot
        y = area.bottom - value * area.px_per_unit
        drawing.box("bar", colors[i], middle - bar / 2, y, middle + bar / 2, area.bottom)
        drawing.write(middle - font.getlength(name) / 2, area.bottom + 1, name, font, "black")
        if chart.is_printed:
            drawing.write(middle - font.getlength(text) / 2, y - line_px, text, font, "black")
    return colors


def _ask(rng: random.Random, scene: Scene, chart: _Chart, colors: Sequence[str], more: random.Random) -> None:
    """Appends the questions; those that the suite does not ask draw from ``more``, so that the suite's never change."""
    names, values, shown = chart.names, chart.values, chart.shown
    count = len(names)

    def ask(task: str, answer: str, *phrasings: str) -> None:
        scene.turns.append(Turn(choose(rng, *phrasings) if len(phrasings) > 1 else phrasings[0], answer, task))

    def compare(rng: random.Random, task: str) -> None:
        a, b = rng.sample(range(count), 2)
        ask(task, "yes" if values[a] > values[b] else "no", f"Is {names[a]} larger than {names[b]}?")

    order = [names[i] for i in sorted(range(count), key=lambda i: values[i])]
    ask("chart count", str(count), "How many bars are there?")
    ask("chart largest", order[-1],
        "Which bar is the largest?", "Which bar is the tallest?", "What has the largest value?")  # fmt: skip
    ask("chart smallest", order[0],
        "Which bar is the smallest?", "Which bar is the shortest?", "What has the smallest value?")  # fmt: skip
    compare(rng, "chart compare")
    # The part after "|" is the tolerance of the suite: one tick.
    value_task = "printed value" if chart.is_printed else f"axis value|{chart.step}"
    for i in rng.sample(range(count), min(2, count)):
        ask(value_task, shown[i], f"What is the value of {names[i]}?", f"What value does {names[i]} have?")
    compare(more, "chart compare again")
    compare(more, "chart compare once more")
    # Not in the suite: every word of the answer teaches how bars compare.
    ask("chart order", ", ".join(order), "List the bars from the smallest to the largest.")
    if len(set(colors)) > 1:
        i = rng.randrange(count)
        ask("bar color", colors[i], f"What color is the bar {names[i]}?")
