"""The image-feature cache: which images are encoded, by fingerprint. Bookkeeping for the runner; no torch.

An entry is *partial* while some of its tiles are encoded and *ready* when all are. Pinned entries stay; unpinned ones
are evicted, least recently used first, when together they exceed ``limit_positions``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from llava.engine.request import ImageSpan


@dataclass
class ImageFeatures:
    """One image. ``payload`` is the runner's: features of single tiles while partial, of all positions when ready."""

    num_tiles: int
    num_positions: int
    tiles_done: int = 0
    num_pins: int = 0
    payload: Any = None

    @property
    def is_ready(self) -> bool:
        """Whether every tile is encoded."""
        return self.tiles_done == self.num_tiles


class ImageFeatureCache:
    """An LRU cache of image features. ``limit_positions`` bounds the positions of unpinned entries."""

    def __init__(self, limit_positions: int) -> None:
        self.limit_positions = limit_positions
        self._entries: OrderedDict[bytes, ImageFeatures] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, image: ImageSpan) -> bool:
        return image.fingerprint in self._entries

    def pin(self, image: ImageSpan) -> ImageFeatures:
        """The image's entry, created if missing, which stays until the matching ``unpin``."""
        entry = self._entries.setdefault(image.fingerprint, ImageFeatures(image.num_tiles, image.num_positions))
        self._entries.move_to_end(image.fingerprint)
        entry.num_pins += 1
        return entry

    def unpin(self, image: ImageSpan) -> None:
        """Drops one pin. An entry that is still partial is discarded with its last pin."""
        entry = self._entries[image.fingerprint]
        assert entry.num_pins > 0, "an image is unpinned more often than it was pinned"
        entry.num_pins -= 1
        if not entry.num_pins and not entry.is_ready:
            del self._entries[image.fingerprint]
        self._shrink()

    def entry(self, image: ImageSpan) -> ImageFeatures:
        """The entry of a pinned image."""
        return self._entries[image.fingerprint]

    def evict_all(self) -> None:
        """Evicts every unpinned entry, because its features are no longer valid."""
        for name in [name for name, entry in self._entries.items() if not entry.num_pins]:
            del self._entries[name]

    def audit(self, pinned: list[ImageSpan]) -> None:
        """Asserts the invariants, given the pinned images, one item per pin. For tests."""
        expected: dict[bytes, int] = {}
        for image in pinned:
            expected[image.fingerprint] = expected.get(image.fingerprint, 0) + 1
        assert expected == {name: entry.num_pins for name, entry in self._entries.items() if entry.num_pins}
        assert all(entry.num_pins or entry.is_ready for entry in self._entries.values())
        assert self._num_unpinned() <= self.limit_positions

    def _num_unpinned(self) -> int:
        return sum(entry.num_positions for entry in self._entries.values() if not entry.num_pins)

    def _shrink(self) -> None:
        excess = self._num_unpinned() - self.limit_positions
        for name, entry in list(self._entries.items()):
            if excess <= 0:
                break
            if not entry.num_pins:
                del self._entries[name]
                excess -= entry.num_positions
