"""The figures of an evaluation's report, as PNG: a radar chart over benchmarks, as papers print it, and bars."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import LlavaError, UsageError
from llava.html_page import PALETTE
from llava.text import fit_line

LEAST_AXES = 3  # of a radar chart
_LEAST_SPAN = 0.2  # of an axis of the radar chart, as a share of its greatest value
MOST_BARS = 100  # names of a bar chart: an image has no room for thousands
_MOST_NAMED = 36  # characters of a name in a figure
_INK, _FAINT, _GRID = "#1f2328", "#59636e", "#e4e8ec"
_ON_LINES = {"color": _FAINT, "zorder": 5, "bbox": {"facecolor": "white", "alpha": 0.75, "pad": 0.8, "linewidth": 0}}


@dataclass(frozen=True)
class Series:
    """The scores of one model by benchmark or category.

    Attributes:
        is_published: the scores are not of a run here; they are drawn dashed.
        partner: the run's model whose color published scores have.
    """

    name: str
    values: Mapping[str, float]
    is_published: bool = False
    partner: str = ""

    @property
    def label(self) -> str:
        """Its name in a legend."""
        return _name(self.name) + (" (published)" if self.is_published else "")


@dataclass(frozen=True)
class Span:
    """What an axis of the radar chart shows, from its center to its rim."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where a value is, 0 at the center and 1 at the rim."""
        return (value - self.low) / (self.high - self.low)


def choose_span(values: Sequence[float]) -> Span:
    """A span for these values: round ends, the least value well away from the center, at least a fifth of the axis."""
    top, bottom = max(values), min(values)
    width = max(2 * (top - bottom), _LEAST_SPAN * abs(top), 1e-9)
    step = 10 ** math.floor(math.log10(width / 2))
    step = next(step * factor for factor in (1, 2, 5, 10) if width / (step * factor) <= 5)
    high = math.ceil(top / step + 1e-9) * step
    return Span(max(0.0, math.floor((high - width) / step) * step), high)


def check_matplotlib() -> None:
    """Raises UsageError if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UsageError("The figures need the package's eval extra: run pip install 'llava[eval]'.") from error


def draw_radar(axes: Sequence[str], series: Sequence[Series], path: Path) -> None:
    """Writes a radar chart with an axis for each benchmark. Axes differ in their spans, which are written on them."""
    figure = _make_figure((8.4, 8.0))
    plot: Any = figure.add_subplot(projection="polar")
    plot.set_theta_offset(math.pi / 2)
    plot.set_theta_direction(-1)
    angles = [2 * math.pi * number / len(axes) for number in range(len(axes))]
    spans = {name: choose_span([one.values[name] for one in series if name in one.values]) for name in axes}
    for (color, dashes), one in zip(_choose_styles(series), series, strict=True):
        radii = [spans[name].place(one.values[name]) if name in one.values else math.nan for name in axes]
        plot.plot([*angles, angles[0]], [*radii, radii[0]], color=color, linestyle=dashes, linewidth=2, label=one.label)
        # A published score between two benchmarks without one has no line, so that only its mark shows it.
        plot.plot(angles, radii, "o", color=color, markersize=4, markerfacecolor="white" if one.is_published else color)
        if not one.is_published and not any(map(math.isnan, radii)):
            plot.fill(angles, radii, color=color, alpha=0.08)
    plot.set_ylim(0, 1.0)
    plot.set_yticks([0.25, 0.5, 0.75, 1.0], labels=[])
    plot.set_xticks(angles, labels=[])
    plot.grid(color=_GRID)
    plot.spines["polar"].set_color(_GRID)
    for angle, name in zip(angles, axes, strict=True):
        span = spans[name]
        for share in (0.5, 1.0):  # beside the axis, so that no line hides it
            text = _say(span.low + share * (span.high - span.low))
            plot.text(angle + 0.045 / share, share - 0.03, text, fontsize=8, ha="center", va="center", **_ON_LINES)
        own = [_say(one.values[name]) if name in one.values else "-" for one in series if not one.is_published]
        said = textwrap.fill(_name(name), 16) + "\n" + textwrap.fill(" | ".join(own), 24)
        side = math.sin(angle)
        align = "center" if abs(side) < 0.2 else "left" if side > 0 else "right"
        plot.text(angle, 1.08, said, color=_INK, fontsize=11, ha=align, va="center")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    _save(figure, path)


def draw_bars(names: Sequence[str], series: Sequence[Series], path: Path, counts: Mapping[str, int]) -> None:
    """Writes horizontal bars: for each name one of each model, with its score, and the number of questions."""
    num = len(series)
    figure = _make_figure((8.4, 0.9 + len(names) * (0.16 + 0.2 * num)))
    axes: Any = figure.subplots()
    for row, ((color, dashes), one) in enumerate(zip(_choose_styles(series), series, strict=True)):
        places = [number + (row - (num - 1) / 2) * 0.8 / num for number in range(len(names))]
        known = [(place, one.values[name]) for place, name in zip(places, names, strict=True) if name in one.values]
        look = {"color": "none", "edgecolor": color, "hatch": "////"} if dashes != "-" else {"color": color}
        places_of, values = [place for place, _ in known], [value for _, value in known]
        bars = axes.barh(places_of, values, 0.74 / num, label=one.label, **look)
        axes.bar_label(bars, [_say(value) for _, value in known], padding=3, fontsize=9, color=_INK)
    labels = [f"{_name(name)} ({counts[name]:,})" if name in counts else _name(name) for name in names]
    axes.set_yticks(range(len(names)), labels=labels, color=_INK)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.margins(x=0.12)
    axes.set_xlim(left=min([0.0, *(value for one in series for value in one.values.values())]))
    axes.grid(axis="x", color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    if num > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    _save(figure, path)


def _make_figure(size: tuple[float, float]) -> Any:
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _choose_styles(series: Sequence[Series]) -> list[tuple[str, Any]]:
    """A color and a line style for each: solid for runs; published scores are dashed, in their partner's color."""
    free = iter(PALETTE * (1 + len(series) // len(PALETTE)))
    colors = {one.name: next(free) for one in series if not one.is_published}
    return [
        (colors.get(one.partner) or next(free), (0, (4, 3))) if one.is_published else (colors[one.name], "-")
        for one in series
    ]


def _save(figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")  # names may be in any script
            figure.savefig(path, dpi=144)
    except OSError as error:
        raise LlavaError(f"'{path}' cannot be written: {error.strerror or error}.") from error


def cut_middle(text: str, most: int) -> str:
    """The text on one line, cut in its middle if it is too long: names of checkpoints differ at their ends."""
    line = fit_line(text, len(text) * 10)
    end = (most - 3) // 2
    return line if len(line) <= most else f"{line[: most - 3 - end]}...{line[-end:]}"


def _name(text: str) -> str:
    """A name from outside, in which a dollar would begin a formula."""
    return cut_middle(text, _MOST_NAMED).replace("$", r"\$")


def _say(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"
