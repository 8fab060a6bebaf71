"""Returns memory that training has freed to the system."""

from __future__ import annotations

import ctypes
import sys


def return_free_memory() -> None:
    """Returns the free memory in the C library's heap to the system.

    Batches of varying lengths fragment the heap; without this, training on a CPU grows by 1 GB in 100 steps.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl does not
        if trim is not None:
            trim(0)
