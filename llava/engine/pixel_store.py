"""Pixels of images that are to be encoded, made by the threads that submit them, so that no answer waits for it."""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch

# About 150 images of LLaVA-1.6. An image whose pixels were dropped is cut again, by the engine's thread.
MAX_BYTES = 2**30


class PixelStore:
    """Pixels by fingerprint, at most ``max_bytes`` of them; the oldest are dropped first. Safe from any thread."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._pixels: OrderedDict[bytes, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, fingerprint: bytes) -> bool:
        return fingerprint in self._pixels

    def put(self, fingerprint: bytes, pixels: torch.Tensor) -> None:
        """Keeps an image's pixels until ``take``."""
        with self._lock:
            self._remove(fingerprint)
            self._pixels[fingerprint] = pixels
            self._num_bytes += pixels.nbytes
            while self._num_bytes > self._max_bytes:
                self._remove(next(iter(self._pixels)))

    def take(self, fingerprint: bytes) -> torch.Tensor | None:
        """The image's pixels, which are then no longer kept; None if they never were, or were dropped."""
        with self._lock:
            return self._remove(fingerprint)

    def _remove(self, fingerprint: bytes) -> torch.Tensor | None:
        pixels = self._pixels.pop(fingerprint, None)
        if pixels is not None:
            self._num_bytes -= pixels.nbytes
        return pixels
