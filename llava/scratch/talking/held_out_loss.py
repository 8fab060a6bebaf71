"""The loss on samples of each kind that no step is given: where a training still learns, and where it does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from llava.scratch.talking.adapter_batches import Batch, collate
from llava.scratch.talking.adapter_samples import KINDS, SampleSource

CURVE = "curve.png"
_MEAN_STEPS = 20  # over which the loss of steps is averaged in the plot

Measure = Callable[[Batch], tuple[float, int]]


class HeldOut:
    """Samples of every kind, drawn once.

    Things that "unseen things" show are in no sample of the training; the others are drawn anew of the same kinds.
    """

    def __init__(self, source: SampleSource, per_kind: int, batch_size: int) -> None:
        self.batches: dict[str, list[Batch]] = {}
        for kind in KINDS:
            drawn = source.draw_kind(random.Random(f"held out {kind}"), kind)
            samples = [] if drawn is None else sorted(islice(drawn, per_kind), key=lambda sample: len(sample.ids))
            parts = [samples[i : i + batch_size] for i in range(0, len(samples), batch_size)]
            if parts:
                self.batches[kind] = [collate(part) for part in parts]

    def measure(self, measure: Measure) -> dict[str, float]:
        """The cross entropy of a target by kind. ``measure``: a batch's mean, and how many targets it has."""
        losses = {}
        for kind, batches in self.batches.items():
            measured = [measure(batch) for batch in batches]
            losses[kind] = round(sum(loss * count for loss, count in measured) / sum(n for _, n in measured), 4)
        return losses


def draw_curve(steps: Mapping[int, float], held_out: Mapping[int, Mapping[str, float]], file: Path) -> None:
    """Draws the loss of the steps, and by kind that of held-out samples, by the number of the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.add_subplot()
    numbers = sorted(steps)
    axes.plot(numbers, list(_average([steps[n] for n in numbers])), color="black", linewidth=2, label="training, mean")
    kinds = sorted({kind for losses in held_out.values() for kind in losses})
    for i, kind in enumerate(kinds):
        points = [(step, losses[kind]) for step, losses in sorted(held_out.items()) if kind in losses]
        style: dict[str, Any] = {"color": f"C{i % 10}", "linestyle": "-" if i < 10 else "--"}
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=kind, **style)
    axes.set_xlabel("step")
    axes.set_ylabel("cross entropy of a target")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(file, dpi=120)


def _average(values: list[float]) -> Iterator[float]:
    for i in range(len(values)):
        last = values[max(i + 1 - _MEAN_STEPS, 0) : i + 1]
        yield sum(last) / len(last)
