"""Freed memory is kept for the next tensor where training asks for that."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

COUNT = """
import resource, sys, numpy
from llava.train.speed.heap import keep_freed_memory, return_free_memory
if sys.argv[1] == "keep":
    keep_freed_memory()

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(5_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

count_faults()
again = count_faults()
return_free_memory()
print(again, count_faults())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
@pytest.mark.parametrize("way", ["keep", "return"])
def test_pages_of_a_freed_block_are_used_again_where_it_is_kept(way: str) -> None:
    run = subprocess.run([sys.executable, "-c", COUNT, way], capture_output=True, text=True, check=True)
    again, after_returning = map(int, run.stdout.split())
    # 40 MB are 9,766 pages of 4 KiB, or 20 huge ones.
    assert again <= 10 if way == "keep" else again >= 19
    assert after_returning >= 19
