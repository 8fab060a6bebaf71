"""Charts in matplotlib's default look: bars, lines and pies, and questions about what they show."""

from __future__ import annotations

import importlib.util
import io
import random
from dataclasses import dataclass
from typing import Any

from PIL import Image

from llava.synth import words
from llava.synth.full_size.full_size_item import FullSizeItem
from llava.synth.truth import Truth

# matplotlib's colour cycle "tab10" with the names that people give it.
_CYCLE = (
    ("tab:blue", ("blue",)),
    ("tab:orange", ("orange",)),
    ("tab:green", ("green",)),
    ("tab:red", ("red",)),
    ("tab:purple", ("purple", "violet")),
    ("tab:brown", ("brown",)),
    ("tab:pink", ("pink", "magenta")),
    ("tab:gray", ("gray", "grey")),
)
_COLOR_NAMES = tuple(name for _, names in _CYCLE for name in names) + ("yellow", "black", "white", "cyan")
_TITLES = (
    "Sales",
    "Visitors",
    "Rainfall",
    "Output",
    "Members",
    "Energy use",
    "Exports",
    "Tickets",
    "Downloads",
    "Yield",
)
_AXES = ("Amount", "Count", "Units", "Thousands", "Tons", "Hours", "Points", "Price", "Litres", "Share")
_PLACES = ("Region", "Product", "Team", "Branch", "Group", "Model", "Country", "Class")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def has_matplotlib() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


@dataclass(frozen=True)
class _Plot:
    """What a chart shows: names and values in their order, title and labels ("" for none), and the bars' colours."""

    names: list[str]
    values: list[int]
    title: str
    x_label: str
    y_label: str
    colors: list[int]
    top: int


def _draw_plot(rng: random.Random, count: int, *, months: bool = False) -> _Plot:
    names: list[str] = []
    if months:
        start = rng.randrange(12)
        names = [_MONTHS[(start + i) % 12] for i in range(count)]
    while len(names) < count:
        word = words.draw_word(rng, True, 7).title()
        if word not in names:
            names.append(word)
    top = rng.choice((50, 80, 100, 120, 200, 500, 1000))
    # No two values are nearer than a twelfth of the greatest, so that a person sees which is larger.
    values = [round(top * (share + rng.uniform(-0.2, 0.2)) / 13) for share in rng.sample(range(2, 14), count)]
    title = f"{rng.choice(_TITLES)} {rng.randrange(2001, 2030)}"
    colors = (
        rng.sample(range(len(_CYCLE)), count) if count <= len(_CYCLE) and rng.random() < 0.5 else [rng.randrange(3)]
    )
    return _Plot(names, values, title, rng.choice(_PLACES), rng.choice(_AXES), colors, max(values))


def _make_figure(rng: random.Random) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    size = rng.choice(((6.4, 4.8), (6.4, 4.8), (8.0, 5.0), (5.0, 5.0), (7.0, 4.0)))
    figure = Figure(figsize=size, dpi=rng.choice((100, 100, 120, 150, 180)))
    return figure, figure.subplots()


def _to_image(figure: Any) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")


def _label(axes: Any, plot: _Plot) -> None:
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)


def _others(values: list[str], right: str) -> tuple[str, ...]:
    return tuple(value for value in values if value != right)


def _ask_of_names(rng: random.Random, plot: _Plot, noun: str) -> tuple[str, Truth]:
    """Which is the largest, the smallest, or what the title or a label says."""
    order = sorted(range(len(plot.names)), key=lambda i: plot.values[i])
    kind = rng.choice(("largest", "smallest", "title", "x", "y"))
    if kind == "title":
        return "What is the title of the chart?", Truth((plot.title,), "text", (plot.x_label, plot.y_label))
    if kind == "x":
        return "What is the label of the x axis?", Truth((plot.x_label,), "text", (plot.title, plot.y_label))
    if kind == "y":
        return "What is the label of the y axis?", Truth((plot.y_label,), "text", (plot.title, plot.x_label))
    right = plot.names[order[-1] if kind == "largest" else order[0]]
    ways = {
        "largest": (f"Which {noun} is the largest?", f"Which {noun} is the highest?", "What has the largest value?"),
        "smallest": (f"Which {noun} is the smallest?", f"Which {noun} is the lowest?", "What has the smallest value?"),
    }
    return rng.choice(ways[kind]), Truth((right,), "text", _others(plot.names, right))


def _ask_value(rng: random.Random, plot: _Plot, *, is_printed: bool) -> tuple[str, Truth]:
    """The value of a name: exact where it is printed, else within 5 % of the greatest."""
    i = rng.randrange(len(plot.names))
    question = rng.choice((f"What is the value of {plot.names[i]}?", f"How high is {plot.names[i]}?"))
    return question, Truth((str(plot.values[i]),), "number", tolerance=0.0 if is_printed else 0.05 * plot.top)


def _count(rng: random.Random, plot: _Plot, noun: str) -> tuple[str, Truth]:
    question = rng.choice((f"How many {noun}s are there?", f"How many {noun}s does the chart have?"))
    return question, Truth((str(len(plot.names)),), "number")


def draw_bar_item(rng: random.Random) -> FullSizeItem:
    """Upright or level bars, in one colour or several, in one of three charts with their values printed."""
    plot = _draw_plot(rng, rng.randint(3, 8))
    figure, axes = _make_figure(rng)
    level = rng.random() < 0.25
    colors = [_CYCLE[plot.colors[i % len(plot.colors)]][0] for i in range(len(plot.names))]
    bars = (axes.barh if level else axes.bar)(plot.names, plot.values, color=colors)
    is_printed = rng.random() < 0.33
    if is_printed:
        axes.bar_label(bars)
    if level:
        axes.set_title(plot.title)
        axes.set_ylabel(plot.x_label)
        axes.set_xlabel(plot.y_label)
        plot = _Plot(plot.names, plot.values, plot.title, plot.y_label, plot.x_label, plot.colors, plot.top)
        figure.subplots_adjust(left=0.22)
    else:
        _label(axes, plot)
        if len(plot.names) > 5:
            axes.tick_params("x", rotation=45)
            figure.subplots_adjust(bottom=0.22)
    kind = rng.choice(("count", "names", "names", "value", "color" if len(plot.colors) > 1 else "value"))
    if kind == "count":
        question, truth = _count(rng, plot, "bar")
    elif kind == "names":
        question, truth = _ask_of_names(rng, plot, "bar")
    elif kind == "value":
        question, truth = _ask_value(rng, plot, is_printed=is_printed)
    else:
        i = rng.randrange(len(plot.names))
        names = _CYCLE[plot.colors[i]][1]
        question = f"What color is the bar {plot.names[i]}?"
        truth = Truth(names, others=tuple(name for name in _COLOR_NAMES if name not in names))
    return FullSizeItem(_to_image(figure), question, truth)


def draw_line_item(rng: random.Random) -> FullSizeItem:
    """A line over months, or two or three lines with a legend."""
    plot = _draw_plot(rng, rng.randint(5, 8), months=True)
    figure, axes = _make_figure(rng)
    several = rng.random() < 0.35
    names = [words.draw_word(rng, True, 7).title() for _ in range(rng.randint(2, 3))] if several else [""]
    axes.plot(plot.names, plot.values, marker=rng.choice(("", "o")), label=names[0])
    for name in names[1:]:
        other = [max(0, round(value * rng.uniform(0.3, 0.9))) for value in plot.values]
        axes.plot(plot.names, other, label=name)
    _label(axes, plot)
    if several:
        axes.legend()
        question = rng.choice(("How many lines are there?", "How many lines does the chart have?"))
        return FullSizeItem(_to_image(figure), question, Truth((str(len(names)),), "number"))
    if rng.random() < 0.3:
        return FullSizeItem(_to_image(figure), *_ask_value(rng, plot, is_printed=False))
    if rng.random() < 0.5:
        question, truth = _ask_of_names(rng, plot, "month")
        return FullSizeItem(_to_image(figure), question, truth)
    order = sorted(range(len(plot.names)), key=lambda i: plot.values[i])
    way, place = rng.choice((("highest", order[-1]), ("lowest", order[0])))
    right = plot.names[place]
    truth = Truth((right,), "text", _others(plot.names, right))
    return FullSizeItem(_to_image(figure), f"In which month is the line at its {way}?", truth)


def draw_pie_item(rng: random.Random) -> FullSizeItem:
    """A pie of three to six slices with names, in half of the images with percentages."""
    plot = _draw_plot(rng, rng.randint(3, 6))
    figure, axes = _make_figure(rng)
    shares = [100 * value / sum(plot.values) for value in plot.values]
    is_printed = rng.random() < 0.5
    axes.pie(plot.values, labels=plot.names, autopct="%1.0f%%" if is_printed else None)
    axes.set_title(plot.title)
    order = sorted(range(len(plot.names)), key=lambda i: plot.values[i])
    kind = rng.choice(("count", "largest", "smallest", "title", "color", "share" if is_printed else "largest"))
    if kind == "count":
        question, truth = _count(rng, plot, "slice")
    elif kind == "title":
        question, truth = "What is the title of the chart?", Truth((plot.title,), "text", tuple(plot.names))
    elif kind == "color":
        i = rng.randrange(len(plot.names))
        names = _CYCLE[i][1]
        question = f"What color is the slice {plot.names[i]}?"
        truth = Truth(names, others=tuple(name for name in _COLOR_NAMES if name not in names))
    elif kind == "share":
        i = rng.randrange(len(plot.names))
        question, truth = f"What is the share of {plot.names[i]}?", Truth((f"{shares[i]:.0f}",), "number")
    else:
        right = plot.names[order[-1] if kind == "largest" else order[0]]
        question, truth = f"Which slice is the {kind}?", Truth((right,), "text", _others(plot.names, right))
    return FullSizeItem(_to_image(figure), question, truth)
