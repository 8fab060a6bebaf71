"""What a training run measures of itself between two rows of the log: speed, share of the peak, loss by source.

Positions are counted where the decoder gets them, so padding is left out and images are what they take, whatever made
the batch. Nothing here waits for a GPU before a row is due, draws a random number or changes a loss.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from llava.errors import LlavaError
from llava.train.dataset.named_batches import SampleNote
from llava.train.method_keywords import takes
from llava.train.report.plot import SOURCE_PREFIX
from llava.train.report.throughput import Costs, find_peak, measure_costs
from llava.train.speed.chunked_loss import TargetLoss

# The peak is measured, where that is needed, in runs that last at least so long.
_PEAK_AFTER_S = 5.0
# Steps over which the time of one is averaged, for the time that is left.
_RECENT_STEPS = 50
# Records that are looked at for their sources.
_MOST_RECORDS = 2000


@dataclass
class _Sums:
    """What was counted since the last row of the log. Positions and squared lengths are on the model's device."""

    seconds: float = 0.0
    samples: int = 0
    targets: int = 0
    tiles: int = 0
    positions: torch.Tensor | float = 0.0
    squares: torch.Tensor | float = 0.0
    losses: dict[str, tuple[torch.Tensor, int]] = field(default_factory=dict)


class Meter:
    """Measures the training of one model, on one of its processes.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._mark = clock, clock()
        self._sums = _Sums()
        self._step_times: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._total_s = 0.0
        self._notes: Sequence[SampleNote] = ()
        self._costs: Costs | None = None
        self._peak: float | None = None
        self._sources: dict[str, str] = {}  # their names in the log; empty unless there are several

    @property
    def step_s(self) -> float | None:
        """Seconds of a recent step, data included, saving and evaluation not; None before the first one."""
        return sum(self._step_times) / len(self._step_times) if self._step_times else None

    @contextmanager
    def watching(self, llava: Any, samples: Any = None) -> Iterator[None]:
        """While it lasts, counts what passes through a LLaVA model in training; other models have no positions.

        Args:
            samples: what is trained on. The losses of sources are measured if their records are of several.
        """
        self._sources = name_sources(_list_sources(samples))
        if not hasattr(llava, "get_model") or not hasattr(llava, "lm_head"):
            yield
            return
        self._costs = measure_costs(llava)
        hook = llava.get_model().register_forward_pre_hook(self._count_positions, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def begin_batch(self, inputs: Mapping[str, Any], notes: Sequence[SampleNote]) -> None:
        """Counts a batch that is about to be trained on."""
        self._notes = notes
        labels, images = inputs.get("labels"), inputs.get("images")
        self._sums.samples += len(notes) or (len(labels) if labels is not None else 0)
        self._sums.targets += sum(note.num_targets for note in notes)
        if images is not None:
            self._sums.tiles += sum(len(image) if image.ndim == 4 else 1 for image in images)

    def _count_positions(self, decoder: nn.Module, _args: Any, inputs: Mapping[str, Any]) -> None:
        if not decoder.training:
            return
        embeds, mask, position_ids = (inputs.get(key) for key in ("inputs_embeds", "attention_mask", "position_ids"))
        rows = inputs.get("input_ids") if embeds is None else embeds
        if rows is None:
            return
        if isinstance(mask, torch.Tensor) and mask.ndim == 2:
            lengths = mask.sum(1, dtype=torch.int64)  # Apple's GPUs have no float64
            self._sums.positions += lengths.sum()
            self._sums.squares += (lengths**2).sum()
            return
        num_rows, length = rows.shape[:2]
        self._sums.positions += num_rows * length
        if position_ids is None:
            self._sums.squares += num_rows * length**2
        else:  # they restart with each sample of a packed row, and L^2 is the sum of 2 p + 1 over p < L
            self._sums.squares += (2 * position_ids.long() + 1).sum()

    def watch(self, target_loss: TargetLoss) -> TargetLoss:
        """The same ``target_loss`` of a model's head, which also adds each target's loss to that of its source.

        With one source, and for a loss that does not tell those of single targets, there is nothing to add.
        """
        counts = [note.num_targets for note in self._notes]
        if len(self._sources) < 2 or not takes(target_loss, "on_losses"):
            return target_loss

        def add(losses_N: torch.Tensor) -> None:
            if sum(counts) == len(losses_N):  # otherwise the model has cut rows, and no target's sample is known
                self._add_losses(losses_N.split(counts))

        return partial(target_loss, on_losses=add)

    def _add_losses(self, losses: Sequence[torch.Tensor]) -> None:
        """Adds the losses of each sample's targets."""
        for note, each in zip(self._notes, losses, strict=True):
            if note.source:
                total, count = self._sums.losses.get(note.source, (each.new_zeros(()), 0))
                self._sums.losses[note.source] = (total + each.sum(), count + len(each))

    def end_step(self) -> None:
        """Takes the time of an update."""
        now = self._clock()
        self._step_times.append(now - self._mark)
        self._sums.seconds += now - self._mark
        self._total_s += now - self._mark
        self._mark = now

    def leave_out_pause(self) -> None:
        """Leaves out the time since the last update: something was saved, evaluated or written."""
        self._mark = self._clock()

    def take_row(self, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
        """What was measured since the last call, over all processes, each of which has to call it.

        ``samples_per_second``, ``tokens_per_second``, ``peak_share``, and, if there are several sources,
        ``loss/<source>``: the mean over its targets, never weighted by answers.
        """
        sums, self._sums = self._sums, _Sums()
        positions, squares = float(sums.positions), float(sums.squares)
        own = {
            "samples": sums.samples,
            "positions": positions,
            "losses": {source: (float(total), count) for source, (total, count) in sums.losses.items()},
        }
        everywhere = gather_object([own])
        row: dict[str, float] = {}
        if sums.seconds > 0:
            row["samples_per_second"] = round(sum(each["samples"] for each in everywhere) / sums.seconds, 3)
            if positions:
                row["tokens_per_second"] = round(sum(each["positions"] for each in everywhere) / sums.seconds, 1)
        if self._costs is not None and positions and sums.seconds > 0 and self._total_s >= _PEAK_AFTER_S:
            if self._peak is None:
                self._peak = find_peak(device, dtype)
                self.leave_out_pause()
            operations = self._costs.count(positions, squares, sums.targets, sums.tiles)
            row["peak_share"] = round(operations / sums.seconds / self._peak, 4)
        row |= self._average([each["losses"] for each in everywhere])
        return row

    def _average(self, parts: Sequence[Mapping[str, tuple[float, int]]]) -> dict[str, float]:
        row = {}
        for source in sorted({source for part in parts for source in part}):
            total = sum(part[source][0] for part in parts if source in part)
            count = sum(part[source][1] for part in parts if source in part)
            if count:
                row[SOURCE_PREFIX + self._sources.get(source, source)] = total / count
        return row


def _list_sources(samples: Any) -> set[str]:
    """The sources of a dataset's records, or of many of them; none if it has no records or a single source."""
    data = getattr(samples, "samples", samples)  # a packed row is made of samples of another dataset
    read = getattr(getattr(data, "source", None), "record", None)
    if read is None:
        return set()
    chosen = random.Random(0).sample(range(len(data)), min(len(data), _MOST_RECORDS))
    sources = set()
    for index in chosen:
        with suppress(LlavaError):  # research code may have rows of other kinds
            sources.add(read(index).source)
    return sources if len(sources) > 1 else set()


def name_sources(sources: set[str]) -> dict[str, str]:
    """Short names of sources: of files, what follows the last slash, without .json, where that is unambiguous."""
    short = {source: source.rsplit("/", 1)[-1].removesuffix(".json").removesuffix(".jsonl") for source in sources}
    taken = list(short.values())
    return {source: name if taken.count(name) == 1 and name else source for source, name in short.items()}
