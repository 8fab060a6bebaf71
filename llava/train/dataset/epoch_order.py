"""The order of an epoch's samples, so that an interrupted epoch goes on where it stopped.

Our own orders follow from seed and epoch. Those of both originals are drawn from torch's global state, which a resumed
run cannot know: ``EpochOrder`` remembers the state that an epoch began with, and a checkpoint keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from accelerate import skip_first_batches
from torch.utils.data import Sampler


class ShuffledSampler(Sampler[int]):
    """Every sample once per epoch, in an order that follows from seed and epoch alone."""

    def __init__(self, num_samples: int, seed: int = 0) -> None:
        self.num_samples, self.seed, self.epoch = num_samples, seed, 0

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of that epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        return iter(torch.randperm(self.num_samples, generator=generator).tolist())


class EpochOrder(Sampler[int]):
    """Another sampler, whose order of the current epoch can be drawn again in another process.

    Attributes:
        began_from: torch's global state that the current epoch's order was drawn from, as hexadecimal text; None before
            the first epoch.
        again_from: such a state; the next order is drawn from it. The global state is then what the sampler leaves.

    Args:
        share: gives every process the first one's state, which dropout may have moved on differently in each.
    """

    def __init__(self, inner: Any, share: Callable[[str], str] = str) -> None:
        self.inner, self.share = inner, share
        self.began_from: str | None = None
        self.again_from: str | None = None

    def __len__(self) -> int:
        return len(self.inner)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of that epoch, counted from 0, of a sampler that follows from the epoch."""
        if hasattr(self.inner, "set_epoch"):
            self.inner.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        own = torch.get_rng_state().numpy().tobytes().hex()
        self.began_from = self.share(own if self.again_from is None else self.again_from)
        self.again_from = None
        if self.began_from != own:
            torch.set_rng_state(torch.frombuffer(bytearray.fromhex(self.began_from), dtype=torch.uint8))
        return iter(list(self.inner))  # all at once, so that the state is that of one moment


class BatchStream:
    """The batches of one pass over the data after another, without a break where an update spans two of them.

    In both originals' Transformers the batches that an epoch leaves over, too few for an update, are the first of the
    next epoch's first update. A pass is begun when its first batch is needed.

    Args:
        loader: accelerate's data loader over a sampler in ``EpochOrder``.
        num_seen: the batches of the current pass that a resumed run has trained on.
        restore: sets torch's global state to the one that a resumed run had; called when its pass has begun again.
    """

    def __init__(self, loader: Any, num_seen: int, restore: Callable[[], None]) -> None:
        self._batches = self._draw(loader, num_seen, restore)

    @staticmethod
    def _draw(loader: Any, num_seen: int, restore: Callable[[], None]) -> Iterator[Any]:
        if num_seen:
            rest = iter(skip_first_batches(loader, num_seen))
            first = next(rest)  # it draws the order of this pass
            restore()
            yield first
            yield from rest
        else:
            restore()
        while True:
            yield from loader

    def take(self, num_batches: int) -> Iterator[Any]:
        """The next batches."""
        return islice(self._batches, num_batches)
