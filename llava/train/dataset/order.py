"""The order in which samples are trained: grouped by length and modality, so that batches hold little padding.

The functions and ``LengthGroupedSampler`` are both originals', with their signatures and, for every seed, their orders;
``world_size`` is there the number of processes times the steps of gradient accumulation. ``GroupedSampler`` is our own
choice: it keeps every sample, depends on its seed and epoch alone, and resumes anywhere.

A megabatch is what all processes take for one update, ``world_size * batch_size`` samples.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/llava_trainer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices as group_as_transformers

from llava.data.records import Record
from llava.data.rows import RowSizes
from llava.errors import UsageError

# What both originals count for the images of a sample, however many there are.
IMAGE_WORDS = 128

Indices = list[int]


def count_words(record: Record) -> int:
    """The original's ``lengths`` of a sample: its words, and IMAGE_WORDS if it has images."""
    return record.num_words + (IMAGE_WORDS if record.images else 0)


def count_words_by_modality(record: Record) -> int:
    """The original's ``modality_lengths`` of a sample: its words, negative if it has no image."""
    return record.num_words if record.images else -record.num_words


def count_all_words(sizes: RowSizes) -> list[int]:
    """``count_words`` of each record whose words and images these are."""
    counts: list[int] = (sizes.num_words + IMAGE_WORDS * (sizes.num_images > 0)).tolist()
    return counts


def count_all_words_by_modality(sizes: RowSizes) -> list[int]:
    """``count_words_by_modality`` of each record whose words and images these are."""
    counts: list[int] = np.where(sizes.num_images > 0, sizes.num_words, -sizes.num_words).tolist()
    return counts


def split_to_even_chunks(indices: Sequence[int], lengths: Sequence[int], num_chunks: int) -> list[Indices]:
    """The indices as ``num_chunks`` lists of about equal total length, and of equal number if that is possible.

    Each index goes to the shortest chunk so far that is not full. If the number is not divisible, they are dealt out in
    turn instead.
    """
    if len(indices) % num_chunks:
        return [list(indices[i::num_chunks]) for i in range(num_chunks)]
    num_each = len(indices) // num_chunks
    chunks: list[Indices] = [[] for _ in range(num_chunks)]
    totals = [0.0] * num_chunks
    for index in indices:
        shortest = totals.index(min(totals))
        chunks[shortest].append(index)
        totals[shortest] = totals[shortest] + lengths[index] if len(chunks[shortest]) < num_each else float("inf")
    return chunks


def get_length_grouped_indices(
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    generator: torch.Generator | None = None,
    merge: bool = True,
) -> Indices:
    """A random order in which the samples of a megabatch are spread evenly by length; ``merge`` changes nothing."""
    shuffled = torch.randperm(len(lengths), generator=generator).tolist()
    return _join(_even_megabatches(shuffled, lengths, batch_size, world_size))


def get_length_grouped_indices_auto_single(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> Indices:
    """Transformers' grouping by length, spread evenly, with the megabatches in random order (LLaVA-NeXT)."""
    grouped = group_as_transformers(lengths, batch_size * world_size, generator=generator)
    megabatches = _even_megabatches(grouped, lengths, batch_size, world_size)
    return _join(megabatches[i] for i in torch.randperm(len(megabatches), generator=generator).tolist())


def get_variable_length_grouped_indices(
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    megabatch_mult: int = 8,
    generator: torch.Generator | None = None,
) -> Indices:
    """Samples of similar length, ``megabatch_mult`` megabatches at a time, shuffled within and between (LLaVA-NeXT)."""
    rank = torch.randperm(len(lengths), generator=generator).tolist()
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    similar = _cut(by_length, world_size * batch_size * megabatch_mult)
    shuffled = _join(sorted(group, key=lambda i: rank[i], reverse=True) for group in similar)
    megabatches = _cut(shuffled, world_size * batch_size)
    return _join(megabatches[i] for i in torch.randperm(len(megabatches), generator=generator).tolist())


def get_modality_length_grouped_indices(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> Indices:
    """An order in which each megabatch is of one modality and spread evenly by length.

    The last, incomplete megabatches of both modalities are joined to one at the end. The order within a modality is
    always drawn from torch's global state, even with a generator, as in the original.

    Args:
        lengths: positive for samples with images, negative for the others, see ``count_words_by_modality``.

    Raises:
        UsageError: a length is 0, so its modality is unknown.
    """
    return _group_by_modality(get_length_grouped_indices, lengths, batch_size, world_size, generator)


def get_modality_length_grouped_indices_auto(
    lengths: Sequence[int], batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> Indices:
    """The same with ``get_length_grouped_indices_auto_single`` within each modality, but without the last megabatches.

    LLaVA-NeXT drops what is left over of both modalities, so that no batch is mixed: fewer indices than lengths come
    out. ``GroupedSampler`` keeps them. Raises UsageError.
    """
    order = _group_by_modality(get_length_grouped_indices_auto_single, lengths, batch_size, world_size, generator)
    num_rests = [sum((length > 0) is sign for length in lengths) for sign in (True, False)]
    if not all(num_rests):
        return order
    size = world_size * batch_size
    return order[: len(lengths) - sum((num - 1) % size + 1 for num in num_rests)]


class LengthGroupedSampler(Sampler[int]):
    """The original's sampler: each iteration draws a new order from ``generator`` or torch's global state.

    Args:
        lengths: of the samples; signed by modality for ``group_by_modality`` and ``group_by_modality_auto``.
        variable_length, group_by_modality_auto: LLaVA-NeXT's.
        plain: the function that groups where no switch is on. haotian-liu/LLaVA's is
            ``get_length_grouped_indices``; LLaVA-NeXT's is ``get_length_grouped_indices_auto_single``.

    Raises:
        ValueError: there are no lengths.
    """

    def __init__(
        self,
        batch_size: int,
        world_size: int,
        lengths: Sequence[int] | None = None,
        generator: torch.Generator | None = None,
        variable_length: bool = False,
        group_by_modality: bool = False,
        group_by_modality_auto: bool = False,
        *,
        plain: Callable[..., Indices] = get_length_grouped_indices,
    ) -> None:
        if lengths is None:
            raise ValueError("Lengths must be provided.")
        self.batch_size, self.world_size, self.lengths, self.generator = batch_size, world_size, lengths, generator
        self.variable_length, self.group_by_modality = variable_length, group_by_modality
        self.group_by_modality_auto, self.plain = group_by_modality_auto, plain

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        group = self.plain
        if self.variable_length:
            assert not self.group_by_modality, "Variable length grouping is not supported with modality grouping."
            group = get_variable_length_grouped_indices
        elif self.group_by_modality:
            group = get_modality_length_grouped_indices
        elif self.group_by_modality_auto:
            group = get_modality_length_grouped_indices_auto
        return iter(group(self.lengths, self.batch_size, self.world_size, generator=self.generator))


class GroupedSampler(Sampler[int]):
    """Every sample once per epoch, in megabatches of similar length and one modality, in an order of its own.

    The order follows from seed and epoch alone: torch's global state is neither read nor changed. The first megabatch
    is the longest, so that a run that does not fit into memory fails at once. What is left over of both modalities is
    mixed in one or two megabatches at the end.

    Args:
        batch_size: samples of one process for one forward pass.
        world_size: processes times steps of gradient accumulation.
        lengths: of the samples, above 0; tokens where they are known, or ``count_words``.
        modalities: whether each sample has images; None groups by length alone.
        seed: at least 0.

    Raises:
        UsageError: a size is below 1, or lengths and modalities differ in number.
    """

    # Megabatches among which samples are sorted by length; as Transformers' grouping.
    _NUM_SORTED = 50

    def __init__(
        self,
        batch_size: int,
        world_size: int,
        lengths: Sequence[int],
        modalities: Sequence[bool] | None = None,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or world_size < 1:
            raise UsageError(f"batch_size is {batch_size} and world_size {world_size}; both must be 1 or more.")
        if modalities is not None and len(modalities) != len(lengths):
            raise UsageError(f"There are {len(lengths)} lengths, but {len(modalities)} modalities.")
        self.batch_size, self.world_size, self.lengths, self.seed = batch_size, world_size, lengths, seed
        self.modalities = [True] * len(lengths) if modalities is None else list(modalities)
        self.epoch = self.num_seen = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of that epoch, counted from 0. Torch's and accelerate's data loaders call it."""
        self.num_seen = self.num_seen if epoch == self.epoch else 0
        self.epoch = epoch

    def state_dict(self, num_seen: int = 0) -> dict[str, int]:
        """What ``load_state_dict`` takes to go on after the first ``num_seen`` samples of the current epoch."""
        return {"epoch": self.epoch, "num_seen": num_seen}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next iteration begin where ``state`` says; those after it are complete."""
        self.epoch, self.num_seen = state["epoch"], state["num_seen"]

    def __iter__(self) -> Iterator[int]:
        first, self.num_seen = self.num_seen, 0
        return iter(self.order()[first:])

    def order(self) -> Indices:
        """The indices of all samples in the order of the current epoch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        size = self.batch_size * self.world_size
        whole: list[Indices] = []
        rest: Indices = []
        for is_seen in (True, False):
            members = [i for i, has_image in enumerate(self.modalities) if has_image is is_seen]
            shuffled = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
            # What is left over is left out before sorting, so it is of any length.
            num_whole = len(shuffled) // size * size
            rest += shuffled[num_whole:]
            for group in _cut(shuffled[:num_whole], size * self._NUM_SORTED):
                whole += _cut(sorted(group, key=lambda i: self.lengths[i], reverse=True), size)
        whole = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
        longest = max(range(len(whole)), key=lambda i: max(self.lengths[j] for j in whole[i]), default=None)
        if longest is not None:
            whole.insert(0, whole.pop(longest))
        rest.sort(key=lambda i: self.lengths[i], reverse=True)
        spread = (split_to_even_chunks(batch, self.lengths, self.world_size) for batch in [*whole, *_cut(rest, size)])
        return _join(_join(chunks) for chunks in spread)


def _cut(indices: Sequence[int], size: int) -> list[Indices]:
    """Consecutive parts of that size; the last may be smaller."""
    return [list(indices[i : i + size]) for i in range(0, len(indices), size)]


def _join(parts: Iterable[Iterable[Any]]) -> list[Any]:
    return [item for part in parts for item in part]


def _even_megabatches(order: Sequence[int], lengths: Sequence[int], batch_size: int, world_size: int) -> list[Indices]:
    """Each megabatch of the order sorted by length, longest first, and then spread evenly over the processes."""
    megabatches = _cut(order, world_size * batch_size)
    ranked = [sorted(batch, key=lambda i: lengths[i], reverse=True) for batch in megabatches]
    return [_join(split_to_even_chunks(batch, lengths, world_size)) for batch in ranked]


def _group_by_modality(
    group: Callable[..., Indices],
    lengths: Sequence[int],
    batch_size: int,
    world_size: int,
    generator: torch.Generator | None,
) -> Indices:
    if not all(lengths):
        raise UsageError(
            f"Sample {list(lengths).index(0)} has the length 0, so its modality is unknown: it has no words. Remove it."
        )
    seen, unseen = ([i for i, length in enumerate(lengths) if (length > 0) is sign] for sign in (True, False))
    if not seen or not unseen:
        return group(lengths, batch_size, world_size, generator=generator)
    size = world_size * batch_size
    megabatches: list[Indices] = []
    last: Indices = []
    for members in (seen, unseen):
        order = group([abs(lengths[i]) for i in members], batch_size, world_size, generator=None)
        parts = _cut([members[i] for i in order], size)
        megabatches += parts[:-1]
        last += parts[-1]
    shuffled = [megabatches[i] for i in torch.randperm(len(megabatches), generator=generator).tolist()]
    return _join([*shuffled, sorted(last)])
