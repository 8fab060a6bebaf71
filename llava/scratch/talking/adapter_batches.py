"""Batches for the adapter's training, which follow from a seed and the number of a step alone.

So they may be drawn by other processes, ahead of time, without any number becoming another one.

Shape letters: B samples, L positions from the first image on, X looks (ten for each image), D values of a look.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from llava.scratch.talking.adapter_samples import COMMON, Encoded

# A batch is one of so many that are drawn together and sorted by length, so that it holds little padding.
_BATCHES_SORTED = 4
# Batches that each worker keeps ready.
_PREFETCHED = 4

Draw = Callable[[random.Random], Iterator[Encoded]]


class Batch(NamedTuple):
    """Samples as tensors, padded on the right; ``num_tokens`` counts no padding."""

    ids_BL: torch.Tensor
    is_target_BL: torch.Tensor
    branch_BL: torch.Tensor
    looks_XD: torch.Tensor
    num_tokens: int

    def to(self, device: torch.device) -> Batch:
        """The batch on that device."""
        ids, is_target, branch, looks = (tensor.to(device, non_blocking=True) for tensor in self[:4])
        return Batch(ids, is_target, branch, looks, self.num_tokens)


def pad(batch: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids [B, L], which of them are targets [B, L], and their branches [B, L], padded on the right."""
    length = max(len(sample.ids) for sample in batch)
    ids_BL = torch.zeros(len(batch), length, dtype=torch.long)
    is_target_BL = torch.zeros(len(batch), length, dtype=torch.bool)
    branch_BL = torch.full((len(batch), length), COMMON)
    for row, sample in enumerate(batch):
        ids_BL[row, : len(sample.ids)] = torch.tensor(sample.ids)
        is_target_BL[row, : len(sample.ids)] = torch.tensor(sample.is_target)
        branch_BL[row, : len(sample.ids)] = torch.tensor(sample.branch)
    return ids_BL, is_target_BL, branch_BL


def collate(batch: Sequence[Encoded]) -> Batch:
    """The samples as one batch."""
    num_tokens = sum(len(sample.ids) for sample in batch)
    return Batch(*pad(batch), torch.cat([sample.looks for sample in batch]), num_tokens)


@dataclass(frozen=True)
class StepBatches(Dataset[Batch]):
    """The batch of each step, by its number, or the part of it that one of several processes computes.

    Attributes:
        draw: samples without end that follow from a random generator.
        rank: the process's number among ``num_processes``, whose parts are about equally long.
    """

    draw: Draw
    seed: int
    batch_size: int
    rank: int = 0
    num_processes: int = 1

    def __getitem__(self, step: int) -> Batch:
        rng, size = random.Random(f"{self.seed} {step}"), self.batch_size
        samples = self.draw(rng)
        pool = sorted((next(samples) for _ in range(_BATCHES_SORTED * size)), key=lambda sample: len(sample.ids))
        start = size * rng.randrange(_BATCHES_SORTED)
        return collate(pool[start : start + size][self.rank :: self.num_processes])

    def read(self, steps: range, workers: int, *, pinned: bool = False) -> Iterator[Batch]:
        """The steps' batches in order, drawn by so many processes ahead of time, or by this one when they are wanted.

        ``pinned``: in memory from which a GPU copies them while it computes.
        """
        if workers == 0:
            return map(self.__getitem__, steps)
        is_forked = "fork" in multiprocessing.get_all_start_methods()  # which shares what is mapped from files
        return iter(
            DataLoader(
                self,
                batch_size=None,
                sampler=steps,
                num_workers=workers,
                prefetch_factor=_PREFETCHED,
                pin_memory=pinned,
                worker_init_fn=_leave_interrupts,
                multiprocessing_context="fork" if is_forked else "spawn",
            )
        )


def _leave_interrupts(_: int) -> None:
    """Lets the training itself end by Ctrl-C or SIGTERM, which every process of a group may get: without its workers it
    could not finish its step. They end when it says so, or when it is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
