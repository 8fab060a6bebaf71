"""The types of tensors that are read without the ``gguf`` package: plain ones, and two of blocks of 32 values.

    Q4_1   a float16 scale, a float16 minimum, then 16 bytes: the low halves are values 0-15, the high ones 16-31
    Q8_0   a float16 scale, then 32 signed bytes

The talking model is put together from a file of these types, so that it needs no further package. The results are bit
for bit those of ``gguf.quants.dequantize``.

Source: ggml-org/ggml src/ggml-common.h, block_q4_1 and block_q8_0; src/ggml-quants.c, dequantize_row_*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BlockFormat:
    """A type of tensors: its name in llama.cpp, and how many values a block of so many bytes holds.

    ``dequantize`` takes rows of bytes, a block each, and returns rows of float32; None for a plain type.
    """

    name: str
    num_values: int
    num_bytes: int
    dequantize: Callable[[np.ndarray], np.ndarray] | None = None


def _read_q4_1(blocks: np.ndarray) -> np.ndarray:
    scales, minima = (blocks[:, at : at + 2].view(np.float16).astype(np.float32) for at in (0, 2))
    halves = blocks[:, 4:]
    values = np.concatenate([halves & 15, halves >> 4], axis=1).astype(np.float32)
    values *= scales
    values += minima
    return values


def _read_q8_0(blocks: np.ndarray) -> np.ndarray:
    values = blocks[:, 2:].view(np.int8).astype(np.float32)
    values *= blocks[:, :2].view(np.float16).astype(np.float32)
    return values


BLOCK_FORMATS = {
    0: BlockFormat("F32", 1, 4),
    1: BlockFormat("F16", 1, 2),
    3: BlockFormat("Q4_1", 32, 20, _read_q4_1),
    8: BlockFormat("Q8_0", 32, 34, _read_q8_0),
    28: BlockFormat("F64", 1, 8),
    30: BlockFormat("BF16", 1, 2),
}
"""By the types' numbers in a file."""
