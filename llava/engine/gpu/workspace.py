"""Scratch memory of decode attention: the partial results of splits, which a second kernel joins."""

from __future__ import annotations

import torch

# Programs that decode attention launches at least, per multiprocessor, if its splits allow it. Not run on a GPU.
PROGRAMS_PER_MULTIPROCESSOR = 4
MOST_SPLITS = 64
# What a device that torch cannot ask is taken for: an H100 or H200 has 132.
NUM_MULTIPROCESSORS = 132


class DecodeWorkspace:
    """Partial results of up to ``most_requests`` requests, allocated once: its addresses never change.

    The layers of a step share one, since they run one after the other.
    """

    def __init__(
        self,
        most_requests: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        device: torch.device,
        num_splits: int | None = None,
    ) -> None:
        self._num_heads, self._num_kv_heads, self._head_dim = num_heads, num_kv_heads, head_dim
        self._num_splits = num_splits
        self._wanted = PROGRAMS_PER_MULTIPROCESSOR * _count_multiprocessors(device)
        most = max(count * self.choose_splits(count) for count in range(1, most_requests + 1)) * num_heads
        self._sums = torch.empty(most * head_dim, dtype=torch.float32, device=device)
        self._logs = torch.empty(most, dtype=torch.float32, device=device)

    def choose_splits(self, num_requests: int) -> int:
        """Into how many splits the positions of each request are cut: a power of two, by the number of requests."""
        if self._num_splits is not None:
            return self._num_splits
        splits = 1
        while splits < MOST_SPLITS and splits * num_requests * self._num_kv_heads < self._wanted:
            splits *= 2
        return splits

    def view(self, num_requests: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted sums of values [R, H, splits, D], and log2 of the sums of weights [R, H, splits]; float32."""
        shape = (num_requests, self._num_heads, self.choose_splits(num_requests))
        num = shape[0] * shape[1] * shape[2]
        return self._sums[: num * self._head_dim].view(*shape, self._head_dim), self._logs[:num].view(shape)


def _count_multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return NUM_MULTIPROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
