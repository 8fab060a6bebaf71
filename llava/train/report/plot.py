"""Learning curves as an image, and the names of what a history has of its data sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The Trainer's log has a source's loss under this prefix and the source's name.
SOURCE_PREFIX = "loss/"


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
