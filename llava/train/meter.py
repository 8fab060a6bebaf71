"""What a training run measures of itself between two rows of the log: speed, share of the peak, loss by source.

Positions are counted where the decoder gets them, so padding is left out and images are what they take, whatever made
the batch. Nothing here waits for a GPU before a row is due, draws a random number or changes a loss.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn

from llava.constants import IGNORE_INDEX
from llava.train.named_batches import SampleNote
from llava.train.plot import SOURCE_PREFIX
from llava.train.throughput import Costs, find_peak, measure_costs

# The peak is measured, where that is needed, in runs that last at least so long.
_PEAK_AFTER_S = 5.0
# Steps over which the time of one is averaged, for the time that is left.
_RECENT_STEPS = 50
# Targets whose logits are in float32 at once.
_CHUNK_TARGETS = 256


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
        self._sources: set[str] = set()

    @property
    def step_s(self) -> float | None:
        """Seconds of a recent step, data included, saving and evaluation not; None before the first one."""
        return sum(self._step_times) / len(self._step_times) if self._step_times else None

    @contextmanager
    def watching(self, llava: Any) -> Iterator[None]:
        """While it lasts, counts what passes through a LLaVA model in training; other models have no positions."""
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
            lengths = mask.sum(1, dtype=torch.float64)
            self._sums.positions += lengths.sum()
            self._sums.squares += (lengths**2).sum()
            return
        num_rows, length = rows.shape[:2]
        self._sums.positions += num_rows * length
        if position_ids is None:
            self._sums.squares += num_rows * length**2
        else:  # they restart with each sample of a packed row, and L^2 is the sum of 2 p + 1 over p < L
            self._sums.squares += (2 * position_ids.double() + 1).sum()

    def note_logits(self, logits_NV: torch.Tensor, labels_BL: torch.Tensor) -> None:
        """Adds the loss of each of the N targets to that of its sample's source."""
        targets = labels_BL[:, 1:][labels_BL[:, 1:] != IGNORE_INDEX]
        counts = [note.num_targets for note in self._notes]
        if len(logits_NV) != len(targets) or sum(counts) != len(targets):
            return  # rows that the model cuts, or logits of other positions
        with torch.no_grad():
            losses = torch.cat(
                [
                    nn.functional.cross_entropy(logits.float(), wanted.to(logits.device), reduction="none")
                    for logits, wanted in zip(
                        logits_NV.split(_CHUNK_TARGETS), targets.split(_CHUNK_TARGETS), strict=True
                    )
                ]
            ).detach()
        for note, each in zip(self._notes, losses.split(counts), strict=True):
            if note.source:
                total, count = self._sums.losses.get(note.source, (losses.new_zeros(()), 0))
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

        ``samples_per_second``, ``tokens_per_second``, ``peak_share``, and, as soon as there are several sources,
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
        self._sources.update(source for part in parts for source in part)
        if len(self._sources) < 2:
            return {}
        names = name_sources(self._sources)
        row = {}
        for source in sorted(self._sources):
            total = sum(part[source][0] for part in parts if source in part)
            count = sum(part[source][1] for part in parts if source in part)
            if count:
                row[SOURCE_PREFIX + names[source]] = total / count
        return row


def name_sources(sources: set[str]) -> dict[str, str]:
    """Short names of sources: of files, what follows the last slash, without .json, where that is unambiguous."""
    short = {source: source.rsplit("/", 1)[-1].removesuffix(".json").removesuffix(".jsonl") for source in sources}
    taken = list(short.values())
    return {source: name if taken.count(name) == 1 and name else source for source, name in short.items()}
