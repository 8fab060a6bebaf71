"""What a tower saw in the last images, so that no image is looked at twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch


class SeenImages:
    """The features of the ``num_kept`` images that were asked for last. Thread-safe.

    One image is looked at at a time: a thread that asks for one that another thread looks at waits for its result.
    """

    def __init__(self, num_kept: int = 16) -> None:
        self.num_kept = num_kept
        self._features: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, see: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The features of the image of that key, from ``see`` if they are not kept."""
        with self._lock:
            found = self._features.get(key)
            if found is None:
                found = self._features[key] = see()
            self._features.move_to_end(key)
            while len(self._features) > self.num_kept:
                self._features.popitem(last=False)
            return found

    def clear(self) -> None:
        """Forgets all images."""
        with self._lock:
            self._features.clear()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.num_kept,)  # a copy, or what was pickled, has seen nothing yet
