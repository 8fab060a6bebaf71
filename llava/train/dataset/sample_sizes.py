"""How long samples are, in positions, before a pixel is decoded: from the headers of images and the tokens of texts."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import ContextTooLong, LlavaError
from llava.train.dataset.order import count_all_words
from llava.train.dataset.samples import InstructionData, count_fitting
from llava.train.devices.memory_estimate import LongestBatch


@dataclass(frozen=True)
class SampleSize:
    """Positions of a sample, images included; targets; tiles.

    ``num_whole`` is the positions that it had before it was cut at ``max_length``; targets are those that remain.
    """

    num_positions: int
    num_targets: int
    num_tiles: int
    num_whole: int

    @property
    def is_cut(self) -> bool:
        """Whether the sample is longer than ``max_length``."""
        return self.num_whole > self.num_positions


@dataclass(frozen=True)
class MeasuredSizes:
    """The sizes of ``num_measured`` of ``num_samples`` samples; some of those may be unusable and have none.

    Attributes:
        typical: of samples drawn at random, or of all.
        longest: the same and those with the most words beside them, so that outliers are among them.
    """

    num_samples: int
    num_measured: int
    typical: list[SampleSize]
    longest: list[SampleSize]

    @property
    def is_complete(self) -> bool:
        """Whether every sample was measured."""
        return self.num_measured == self.num_samples

    @property
    def mean_positions(self) -> float:
        """Positions of a typical sample."""
        return sum(size.num_positions for size in self.typical) / len(self.typical) if self.typical else 0.0

    @property
    def target_share(self) -> float:
        """The share of all positions that are targets."""
        positions = sum(size.num_positions for size in self.typical)
        return sum(size.num_targets for size in self.typical) / positions if positions else 0.0

    def find_longest_batch(self, batch_size: int) -> LongestBatch:
        """The batch of the longest samples, padded to the longest; 0 of everything if no sample could be measured."""
        rows = sorted(self.longest, key=lambda size: size.num_positions, reverse=True)[:batch_size]
        if not rows:
            return LongestBatch(0, 0, 0)

        def sum_largest(values: Iterable[int]) -> int:
            return sum(sorted(values, reverse=True)[:batch_size])

        return LongestBatch(
            len(rows) * rows[0].num_positions,
            sum_largest(size.num_targets for size in self.longest),
            sum_largest(size.num_tiles for size in self.longest),
        )


def measure_sizes(data: InstructionData, most: int, seed: int = 0, *, finds_longest: bool = False) -> MeasuredSizes:
    """The sizes of all samples, or of random ones where there are more than ``most``.

    Args:
        finds_longest: a fifth of them are those with the most words, by the index of the data files.
    """
    source: Any = data.source
    total = len(data)
    draw = random.Random(seed)
    wordy: Sequence[int] = ()
    if total <= most:
        drawn: Sequence[int] = range(total)
    else:
        num_wordy = most // 5 if finds_longest else 0
        drawn = draw.sample(range(total), most - num_wordy)
        if num_wordy:
            words = count_all_words(source.sizes())
            by_words = sorted(range(total), key=words.__getitem__, reverse=True)
            known = set(drawn)
            wordy = [index for index in by_words[:num_wordy] if index not in known]
    typical = _measure_all(data, drawn)
    return MeasuredSizes(total, len(drawn) + len(wordy), typical, [*typical, *_measure_all(data, wordy)])


def _measure_all(data: InstructionData, indices: Sequence[int]) -> list[SampleSize]:
    sizes = []
    for index in indices:
        try:
            sizes.append(measure_size(data, index))
        except LlavaError:  # whatever uses the sample says why it is unusable
            continue
    return sizes


def measure_size(data: InstructionData, index: int) -> SampleSize:
    """The size of a sample. Raises as ``InstructionData.encode`` does, and BadImage."""
    source: Any = data.source
    plans = data.plan(source.measure(index))
    positions = [plan.num_positions for plan in plans]
    uncut = copy.copy(data)
    uncut.max_length = uncut.limit_tokens = None
    ids, labels = uncut.encode_text(source.record(index).turns, positions, data.choose_template(index))
    whole = _count(ids, positions)
    if data.max_length is None and data.limit_tokens is not None and whole > data.limit_tokens:
        raise ContextTooLong(whole, data.limit_tokens)
    if data.max_length is not None:
        end = count_fitting(ids.tolist(), positions, data.max_length)
        ids, labels = ids[:end], labels[:end]
    num_shown = int((ids == IMAGE_TOKEN_INDEX).sum())
    return SampleSize(
        _count(ids, positions),
        int((labels[1:] != IGNORE_INDEX).sum()),
        sum(plan.num_tiles for plan in plans[:num_shown]),
        whole,
    )


def _count(ids: torch.Tensor, positions: Sequence[int]) -> int:
    num_slots = int((ids == IMAGE_TOKEN_INDEX).sum())
    return len(ids) - num_slots + sum(positions[:num_slots])
