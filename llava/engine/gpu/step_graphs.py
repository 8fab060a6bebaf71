"""CUDA graphs of decoding steps: one for each of a few numbers of requests, all recorded at the start.

The step itself is a function of the number of rows that reads and writes tensors at fixed addresses. Where it was not
recorded (another device, no time, an error) it is called instead: the same arithmetic, launched kernel by kernel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch

_log = logging.getLogger(__name__)


def choose_sizes(max_rows: int) -> list[int]:
    """The numbers of requests that steps are padded to, ascending, of which the last is ``max_rows``."""
    sizes = [1, 2, 4, 8, 16, 24, 32, 48, *range(64, max_rows, 32)]
    return [*(size for size in sizes if size < max_rows), max_rows]


def can_record(device: torch.device) -> bool:
    """Whether there are CUDA graphs on this device."""
    return device.type == "cuda"


class StepGraphs:
    """Runs ``compute(num_rows)``, from a graph where there is one.

    ``sizes``: ascending. ``compute`` must not wait for the device, and its inputs must be harmless padding while it is
    recorded.
    """

    def __init__(self, compute: Callable[[int], None], sizes: list[int], device: torch.device) -> None:
        self._compute, self._sizes, self._device = compute, sizes, device
        self._graphs: dict[int, Any] = {}
        self._pool: Any = None
        # Why steps are launched kernel by kernel, as a sentence; None if they are not, or do not have to be.
        self.failure: str | None = None

    def clear(self) -> None:
        """Drops all graphs, which read the weights at the addresses that they had when they were recorded."""
        self._graphs.clear()
        self._pool = None

    def record(self, budget_s: float) -> None:
        """Records the largest sizes first, until ``budget_s`` is used up: a smaller step then takes a larger graph."""
        self.clear()
        self.failure = None
        if not can_record(self._device):
            return
        end = time.perf_counter() + budget_s
        for size in reversed(self._sizes):
            if time.perf_counter() >= end:
                break
            try:
                self._graphs[size] = record_graph(self._compute, size, self._pool)
                self._pool = self._pool or self._graphs[size].pool()
            except Exception as error:  # of the driver, of Triton's compiler, of memory: none of them must end serving
                self.clear()
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.failure = f"recording a CUDA graph of {size} requests failed: {reason}"
                _log.warning("Decoding runs without CUDA graphs, which is slower: %s.", self.failure, exc_info=error)
                return
        if not self._graphs:
            self.failure = f"none was recorded within {budget_s} s"

    def run(self, num_rows: int) -> None:
        """Runs a step of ``num_rows`` requests, padded to the next size that was recorded."""
        size = next(size for size in self._sizes if size >= num_rows)
        recorded = min((other for other in self._graphs if other >= size), default=None)
        if recorded is None:
            self._compute(size)
        else:
            self._graphs[recorded].replay()


def record_graph(compute: Callable[[int], None], size: int, pool: Any) -> Any:
    """A CUDA graph of ``compute(size)`` in the memory pool of other graphs that never run at the same time."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # Before the recording, in which that is not allowed, libraries allocate workspaces and Triton compiles.
    with torch.cuda.stream(stream):
        compute(size)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # "thread_local": what other threads do with the GPU meanwhile cannot make the recording fail.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        compute(size)
    return graph
