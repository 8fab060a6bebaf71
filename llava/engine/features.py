"""Which pictures are encoded, by fingerprint: bookkeeping for the runner's features. No torch.

An entry is *begun* when its first tiles are encoded and *ready* when all are. Pinned entries stay; of the others the
least recently used go when the store holds more than ``limit_positions``.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from llava.engine.request import PictureSpan


@dataclass
class Entry:
    """One picture. ``payload`` is the runner's: features of single tiles while it is begun, of positions when ready."""

    num_tiles: int
    num_positions: int
    tiles_done: int = 0
    pins: int = 0
    payload: Any = None

    @property
    def is_ready(self) -> bool:
        return self.tiles_done == self.num_tiles


class FeatureStore:
    """The features of recent pictures. ``limit_positions`` counts those that nobody pins."""

    def __init__(self, limit_positions: int) -> None:
        self.limit_positions = limit_positions
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def pin(self, picture: PictureSpan) -> Entry:
        """The picture's entry, made if it is new, and kept until ``unpin``."""
        entry = self._entries.setdefault(picture.fingerprint, Entry(picture.num_tiles, picture.num_positions))
        self._entries.move_to_end(picture.fingerprint)
        entry.pins += 1
        return entry

    def unpin(self, picture: PictureSpan) -> None:
        entry = self._entries[picture.fingerprint]
        assert entry.pins > 0, "a picture is unpinned more often than it was pinned"
        entry.pins -= 1
        if not entry.pins and not entry.is_ready:
            del self._entries[picture.fingerprint]  # half a picture is of no use to others
        self._shrink()

    def entry(self, picture: PictureSpan) -> Entry:
        """The entry of a pinned picture."""
        return self._entries[picture.fingerprint]

    def forget_all(self) -> None:
        """Drops what nobody pins."""
        for name in [name for name, entry in self._entries.items() if not entry.pins]:
            del self._entries[name]

    def audit(self, pinned: list[PictureSpan]) -> None:
        """Checks the pins against the pictures that are pinned, one item for each pin. For tests."""
        expected: dict[bytes, int] = {}
        for picture in pinned:
            expected[picture.fingerprint] = expected.get(picture.fingerprint, 0) + 1
        assert expected == {name: entry.pins for name, entry in self._entries.items() if entry.pins}
        assert all(entry.pins or entry.is_ready for entry in self._entries.values())
        assert self._num_unpinned() <= self.limit_positions

    def _num_unpinned(self) -> int:
        return sum(entry.num_positions for entry in self._entries.values() if not entry.pins)

    def _shrink(self) -> None:
        excess = self._num_unpinned() - self.limit_positions
        for name, entry in list(self._entries.items()):
            if excess <= 0:
                break
            if not entry.pins:
                del self._entries[name]
                excess -= entry.num_positions
