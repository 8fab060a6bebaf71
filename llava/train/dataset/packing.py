"""Packing: samples are distributed over rows of about the same number of positions, so that none are padding.

``pack`` decides which samples share a row, ``PackedData`` gives each row as one item, and ``PackedCollator`` joins its
samples. A row is a batch of its own: samplers, resuming, and the division among processes are the Trainer's own, with
a batch size of 1. The same samples share a row in every epoch; the order of the rows is the sampler's.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from llava.constants import IGNORE_INDEX
from llava.errors import UsageError

# Samples that are packed together. In a smaller window rows have more gaps; in one window over all samples, short ones
# would share rows with short ones only.
_WINDOW = 4096


def pack(lengths: Sequence[int], limit_positions: int, seed: int = 0) -> list[list[int]]:
    """Rows of sample numbers, each of at most ``limit_positions``; every sample is in one row, in random order.

    Best-fit decreasing in windows of a random order: each sample goes to the row that it fills best. It depends on
    nothing but the arguments.

    Args:
        lengths: the positions of each sample, images included.

    Raises:
        UsageError: a sample is longer than a row.
    """
    longest = max(range(len(lengths)), key=lengths.__getitem__, default=0)
    if lengths and lengths[longest] > limit_positions:
        raise UsageError(
            f"Sample {longest} has {lengths[longest]} positions, but a packed row has {limit_positions}. Raise the "
            "positions of a row, or lower max_length."
        )
    generator = random.Random(seed)
    order = list(range(len(lengths)))
    generator.shuffle(order)
    rows: list[list[int]] = []
    for start in range(0, len(order), _WINDOW):
        rows += _best_fit(order[start : start + _WINDOW], lengths, limit_positions)
    generator.shuffle(rows)
    for row in rows:
        generator.shuffle(row)
    return rows


def _best_fit(samples: Sequence[int], lengths: Sequence[int], limit_positions: int) -> list[list[int]]:
    rows: list[list[int]] = []
    row: list[int]
    gaps: list[int] = []  # the lengths of the rows' gaps, ascending, each once
    rows_with_gap: dict[int, list[list[int]]] = defaultdict(list)
    for sample in sorted(samples, key=lengths.__getitem__, reverse=True):
        found = bisect_left(gaps, lengths[sample])
        if found == len(gaps):
            gap, row = limit_positions, []
            rows.append(row)
        else:
            gap = gaps[found]
            row = rows_with_gap[gap].pop()
            if not rows_with_gap[gap]:
                del gaps[found]
        row.append(sample)
        rest = gap - lengths[sample]
        if not rows_with_gap[rest]:
            insort(gaps, rest)
        rows_with_gap[rest].append(row)
    return rows


class PackedData(Dataset[list[Any]]):
    """A dataset whose items are the samples of one packed row, as a list.

    ``lengths`` has the positions of each row, for samplers and for the longest row.
    """

    def __init__(self, samples: Dataset[Any], lengths: Sequence[int], limit_positions: int, seed: int = 0) -> None:
        self.samples = samples
        self.rows = pack(lengths, limit_positions, seed)
        self.lengths = [sum(lengths[sample] for sample in row) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[Any]:
        return [self.samples[sample] for sample in self.rows[index]]


class PackedCollator:
    """Makes one row of all samples that it is given, with position ids that restart at each; see ``packed_row``.

    The first token of a sample is no target, because the token before it belongs to another sample.

    Args:
        blank_px: the side, px, of a blank image that a row without images gets, so that every rank of a sharded run
            calls the vision tower; 0 gives none.
    """

    def __init__(self, blank_px: int = 0) -> None:
        self.blank_px = blank_px

    def __call__(self, items: Sequence[dict[str, Any] | Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """``items`` are samples, or the lists of samples that ``PackedData`` gives."""
        samples = [sample for item in items for sample in ([item] if isinstance(item, dict) else item)]
        labels = [sample["labels"].clone() for sample in samples]
        for each in labels:
            each[0] = IGNORE_INDEX
        batch: dict[str, Any] = {
            "input_ids": torch.cat([sample["input_ids"] for sample in samples])[None],
            "labels": torch.cat(labels)[None],
            "position_ids": torch.cat([torch.arange(len(each)) for each in labels])[None],
        }
        images = [image for sample in samples for image in sample["images"]]
        sizes = [size for sample in samples for size in sample["image_sizes"]]
        if not images and self.blank_px:
            images = [torch.zeros(1, 3, self.blank_px, self.blank_px)]
            sizes = [(self.blank_px, self.blank_px)]
        if images:
            batch.update(images=images, image_sizes=sizes)
        return batch
