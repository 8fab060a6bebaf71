"""Learning curves, as images and as figures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The Trainer's log has a source's loss under this prefix and the source's name.
SOURCE_PREFIX = "loss/"
# From so many points on, a line of losses is smoothed.
_MANY_POINTS = 100


def plot_history(history: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Writes an image of the loss, and of every measure ``*_right`` (a share), over the steps of a Trainer's history.

    Writes nothing if the history has no loss.
    """
    from matplotlib.figure import Figure

    rows = [row for row in history if "loss" in row]
    if not rows:
        return
    measures = sorted({name for row in rows for name in row if name.endswith("_right")})
    figure = Figure(figsize=(10, 4) if measures else (6, 4), layout="constrained")
    axes = figure.subplots(1, 2 if measures else 1, squeeze=False)[0]
    axes[0].plot([row["step"] for row in rows], [row["loss"] for row in rows], color="tab:blue")
    axes[0].set(title=title, xlabel="step", ylabel="loss", yscale="log")
    axes[0].grid(alpha=0.3, which="both")
    if measures:
        for name in measures:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes[1].plot(*zip(*points, strict=True), label=name.removesuffix("_right"))
        axes[1].set(title="right under each patch", xlabel="step", ylabel="share", ylim=(0, 1))
        axes[1].grid(alpha=0.3)
        axes[1].legend()
    figure.savefig(path, dpi=120)


def list_sources(history: Sequence[dict[str, Any]]) -> list[str]:
    """The data sources whose losses are in the history, in alphabetical order."""
    return sorted({key.removeprefix(SOURCE_PREFIX) for row in history for key in row if key.startswith(SOURCE_PREFIX)})


def plot_losses(history: Sequence[dict[str, Any]]) -> Any:
    """A figure of the loss over the steps: of all samples, of each source, and of the samples held out.

    Lines of many points are smoothed, with the points themselves pale behind them.
    """
    figure, axes = _make_axes("loss", "step")
    lines = [("loss", "all samples" if list_sources(history) else "training", 2.0)]
    lines += [(SOURCE_PREFIX + source, source, 1.1) for source in list_sources(history)]
    lines += [("eval_loss", "held out", 2.0)]
    for key, label, width in lines:
        points = _read_points(history, key)
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        marker = "o" if key == "eval_loss" or len(points) == 1 else None
        color = {"loss": "black", "eval_loss": "tab:red"}.get(key)
        (line,) = axes.plot(
            steps, _smooth(values), label=label, linewidth=width, marker=marker, markersize=4, color=color
        )
        if len(points) >= _MANY_POINTS and key == "loss":
            axes.plot(steps, values, linewidth=0.7, alpha=0.25, color=line.get_color(), zorder=0)
    if len([line for line in axes.lines if not line.get_label().startswith("_")]) > 1:
        axes.legend(frameon=False)
    axes.set_ylim(bottom=0)
    return figure


def _smooth(values: Sequence[float]) -> Sequence[float]:
    """An exponential average over about a fiftieth of many values; few values as they are."""
    if len(values) < _MANY_POINTS:
        return values
    share, sums, weight = 1 / max(1, len(values) / 50), 0.0, 0.0
    smoothed = []
    for value in values:
        sums, weight = sums * (1 - share) + value * share, weight * (1 - share) + share
        smoothed.append(sums / weight)
    return smoothed


def plot_curve(history: Sequence[dict[str, Any]], key: str, label: str) -> Any:
    """A figure of one value of the log over the steps."""
    figure, axes = _make_axes(label, "step")
    axes.set_ylim(bottom=0, auto=True)
    axes.plot(*zip(*_read_points(history, key), strict=True), linewidth=1.5)
    return figure


def plot_lengths(lengths: Sequence[int]) -> Any:
    """A histogram of the samples' lengths in positions, with the median and the longest."""
    figure, axes = _make_axes("samples", "positions")
    axes.hist(lengths, bins=min(40, max(10, len(set(lengths)))), color="tab:blue", alpha=0.8)
    median = sorted(lengths)[len(lengths) // 2]
    for value, name, height, side in ((median, "median", 0.93, "left"), (max(lengths), "longest", 0.85, "right")):
        axes.axvline(value, color="black", linewidth=0.8, linestyle=":")
        place = {"xy": (value, height), "xycoords": ("data", "axes fraction")}
        axes.annotate(f" {name} {value:,} ", **place, horizontalalignment=side)
    return figure


def _read_points(history: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(row["step"], row[key]) for row in history if key in row]


def _make_axes(ylabel: str, xlabel: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.3), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
