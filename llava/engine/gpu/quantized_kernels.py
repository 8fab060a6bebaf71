"""Products with matrices of 8 or 4 bits: weights are unpacked in registers, as they are read.

The matrices stay in the layout that CPUs read (``native/quantized.h``), so one file and one quantization serve both and
nothing is repacked at load. It suits a GPU as it is: a word of 32 bits holds 4 or 8 neighbours of one row, 16 rows lie
side by side, so a tile [words, rows] is one contiguous piece that threads load 16 bytes at a time, and unpacking is
shifts and masks within a thread.

    one row         each program multiplies a strip of 16 rows in float32, by exact weights
    up to 64 rows   tensor cores, by weights rounded to the rows' dtype; the inputs are cut into splits where the strips
                    alone would not fill the GPU, and summed in a fixed order
    more, float32   the matrix is written once in the rows' dtype and torch multiplies: reading it is then a small part

An integer becomes a float by its bits: in float32, 2**23 + n has n as its lowest bits; conversion instructions run at
a quarter of the rate and would take longer than the memory does. Not run on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llava.engine.gpu.workspace import NUM_MULTIPROCESSORS
from llava.native.quantization import QuantizedMatrix

# Rows for which weights are unpacked on the way; for more, once into memory.
MOST_ROWS = 64
LANES = tl.constexpr(16)


def quantized_matmul(x_NC: torch.Tensor, matrix: QuantizedMatrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """See ``reference``."""
    x_NC = x_NC.contiguous()
    num = len(x_NC)
    if num == 1:
        return _multiply_row(x_NC, matrix, bias)
    if num > MOST_ROWS or x_NC.dtype == torch.float32:
        weight = dequantize_transposed(matrix, x_NC.dtype)
        return torch.mm(x_NC, weight) if bias is None else torch.addmm(bias, x_NC, weight)
    return _multiply_few(x_NC, matrix, bias)


def dequantize_transposed(matrix: QuantizedMatrix, dtype: torch.dtype) -> torch.Tensor:
    """The matrix [columns, rows] that ``matrix`` represents, transposed and rounded to ``dtype``."""
    out = torch.empty(matrix.columns, matrix.rows, dtype=dtype, device=matrix.data.device)
    words, num_words = _words(matrix)
    _dequantize[(triton.cdiv(matrix.rows, 64), triton.cdiv(num_words, 16))](
        words, matrix.scales, out, matrix.rows, matrix.columns, num_words, BITS=matrix.bits, WORDS=16, ROWS=64,
        num_warps=4,
    )  # fmt: skip
    return out


def _multiply_row(x_NC: torch.Tensor, matrix: QuantizedMatrix, bias: torch.Tensor | None) -> torch.Tensor:
    out = torch.empty(1, matrix.rows, dtype=x_NC.dtype, device=x_NC.device)
    words, num_words = _words(matrix)
    _matvec[(len(matrix.data),)](
        x_NC, words, matrix.scales, out if bias is None else bias, out, matrix.rows, matrix.columns, num_words,
        BITS=matrix.bits, WORDS=128, HAS_BIAS=bias is not None, num_warps=8,
    )  # fmt: skip
    return out


def _multiply_few(x_NC: torch.Tensor, matrix: QuantizedMatrix, bias: torch.Tensor | None) -> torch.Tensor:
    num, num_tiles = len(x_NC), triton.cdiv(matrix.rows, 64)
    num_splits = 1
    while num_splits < 8 and num_splits * num_tiles < 2 * NUM_MULTIPROCESSORS:
        num_splits *= 2
    dtype = x_NC.dtype if num_splits == 1 else torch.float32
    out = torch.empty(num_splits, num, matrix.rows, dtype=dtype, device=x_NC.device)
    words, num_words = _words(matrix)
    _matmul[(num_tiles, num_splits)](
        x_NC, words, matrix.scales, out, num, matrix.rows, matrix.columns, num_words,
        BITS=matrix.bits, INPUTS=max(16, triton.next_power_of_2(num)), WORDS=128 // (32 // matrix.bits), ROWS=64,
        num_warps=4, num_stages=3,
    )  # fmt: skip
    if num_splits == 1 and bias is None:
        return out[0]
    total = torch.empty(num, matrix.rows, dtype=x_NC.dtype, device=x_NC.device)
    _sum_splits[(num, triton.cdiv(matrix.rows, 512))](
        out, total if bias is None else bias, total, matrix.rows, num_splits, HAS_BIAS=bias is not None, ROWS=512
    )
    return total


def _words(matrix: QuantizedMatrix) -> tuple[torch.Tensor, int]:
    """The matrix's data in words of 32 bits, and how many words a row has."""
    words = matrix.data.view(torch.int32)
    return words, words.shape[1] // 16


@triton.jit
def _unpack(packed, J: tl.constexpr, BITS: tl.constexpr):
    """Number J of each word, as the float32 that it stands for before it is scaled."""
    if BITS == 8:
        bits = (packed >> (8 * J)) & 255
    else:
        bits = (packed >> (8 * (J % 4) + 4 * (J // 4))) & 15
    # 2**23 + n, minus 2**23 and what makes n unsigned.
    return (bits | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + (1 << (BITS - 1)))


@triton.jit
def _load_words(words, scales, rows, places, num_words, num_rows, BITS: tl.constexpr):
    """Words [places, rows], zero outside the matrix, and the scales of their groups in 4 bits."""
    strips, lanes = (rows // LANES).to(tl.int64), rows % LANES
    is_inside = (places < num_words)[:, None] & (rows < tl.cdiv(num_rows, LANES) * LANES)[None]
    begins = (strips * num_words * LANES + lanes)[None]
    packed = tl.load(words + begins + places[:, None] * LANES, mask=is_inside, other=0)
    scale = 1.0
    if BITS == 4:  # 4 words share the scale of a group
        begins = (strips * (num_words // 4) * LANES + lanes)[None]
        scale = tl.load(scales + begins + (places // 4)[:, None] * LANES, mask=is_inside, other=0.0).to(tl.float32)
    return packed, scale


@triton.jit
def _unpack_tile(packed, scale, dtype: tl.constexpr, BITS: tl.constexpr):
    """The numbers of words [words, rows], scaled, in ``dtype``: [numbers, rows]."""
    tile = tl.join(
        tl.join((_unpack(packed, 0, BITS) * scale).to(dtype), (_unpack(packed, 1, BITS) * scale).to(dtype)),
        tl.join((_unpack(packed, 2, BITS) * scale).to(dtype), (_unpack(packed, 3, BITS) * scale).to(dtype)),
    )  # [words, rows, lowest bit of a number's place in its word, second bit]
    if BITS == 8:
        return tile.permute(0, 3, 2, 1).reshape(4 * packed.shape[0], packed.shape[1])
    else:  # the compiler wants both returns in one statement, whose branches it chooses from
        rest = tl.join(
            tl.join((_unpack(packed, 4, BITS) * scale).to(dtype), (_unpack(packed, 5, BITS) * scale).to(dtype)),
            tl.join((_unpack(packed, 6, BITS) * scale).to(dtype), (_unpack(packed, 7, BITS) * scale).to(dtype)),
        )
        return tl.join(tile, rest).permute(0, 4, 3, 2, 1).reshape(8 * packed.shape[0], packed.shape[1])


@triton.jit
def _matvec(
    x,
    words,
    scales,
    bias,
    out,
    num_rows,
    num_columns,
    num_words,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    rows = tl.program_id(0) * LANES + tl.arange(0, LANES)
    numbers: tl.constexpr = 32 // BITS
    acc = tl.zeros([WORDS, LANES], tl.float32)
    for first in tl.range(0, num_words, WORDS, num_stages=4):
        places = first + tl.arange(0, WORDS)
        packed, scale = _load_words(words, scales, rows, places, num_words, num_rows, BITS)
        sums = tl.zeros([WORDS, LANES], tl.float32)
        for j in tl.static_range(numbers):
            columns = places * numbers + j
            inputs = tl.load(x + columns, mask=columns < num_columns, other=0.0).to(tl.float32)
            sums += _unpack(packed, j, BITS) * inputs[:, None]
        acc += sums * scale if BITS == 4 else sums
    result = tl.sum(acc, 0)
    is_row = rows < num_rows
    if BITS == 8:
        result *= tl.load(scales + rows, mask=is_row, other=0.0)
    if HAS_BIAS:
        result += tl.load(bias + rows, mask=is_row, other=0.0).to(tl.float32)
    tl.store(out + rows, result.to(out.dtype.element_ty), mask=is_row)


@triton.jit(do_not_specialize=["num_inputs"])
def _matmul(
    x,
    words,
    scales,
    out,
    num_inputs,
    num_rows,
    num_columns,
    num_words,
    BITS: tl.constexpr,
    INPUTS: tl.constexpr,
    WORDS: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows, inputs = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, INPUTS)
    split, num_splits = tl.program_id(1), tl.num_programs(1)
    numbers: tl.constexpr = 32 // BITS
    span = tl.cdiv(tl.cdiv(num_words, num_splits), WORDS) * WORDS
    acc = tl.zeros([INPUTS, ROWS], tl.float32)
    for first in range(split * span, tl.minimum((split + 1) * span, num_words), WORDS):
        columns = first * numbers + tl.arange(0, WORDS * numbers)
        is_inside = (inputs < num_inputs)[:, None] & (columns < num_columns)[None]
        part = tl.load(x + inputs[:, None] * num_columns + columns[None], mask=is_inside, other=0.0)
        places = first + tl.arange(0, WORDS)
        packed, scale = _load_words(words, scales, rows, places, num_words, num_rows, BITS)
        acc = tl.dot(part, _unpack_tile(packed, scale, x.dtype.element_ty, BITS), acc)
    if BITS == 8:
        acc *= tl.load(scales + rows, mask=rows < num_rows, other=0.0)[None]
    offsets = (split * num_inputs + inputs)[:, None] * num_rows + rows[None]
    is_inside = (inputs < num_inputs)[:, None] & (rows < num_rows)[None]
    tl.store(out + offsets, acc.to(out.dtype.element_ty), mask=is_inside)


@triton.jit(do_not_specialize=["num_splits"])
def _sum_splits(parts, bias, out, num_rows, num_splits, HAS_BIAS: tl.constexpr, ROWS: tl.constexpr):
    row, columns = tl.program_id(0), tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    is_inside = columns < num_rows
    total = tl.zeros([ROWS], tl.float32)
    for split in range(num_splits):
        part = parts + (split * tl.num_programs(0) + row) * num_rows + columns
        total += tl.load(part, mask=is_inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + columns, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(out + row * num_rows + columns, total.to(out.dtype.element_ty), mask=is_inside)


@triton.jit
def _dequantize(
    words,
    scales,
    out,
    num_rows,
    num_columns,
    num_words,
    BITS: tl.constexpr,
    WORDS: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows, places = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1) * WORDS + tl.arange(0, WORDS)
    numbers: tl.constexpr = 32 // BITS
    packed, scale = _load_words(words, scales, rows, places, num_words, num_rows, BITS)
    if BITS == 8:
        scale = tl.load(scales + rows, mask=rows < num_rows, other=0.0)[None]
    weights = _unpack_tile(packed, scale, out.dtype.element_ty, BITS)
    columns = tl.program_id(1) * (WORDS * numbers) + tl.arange(0, WORDS * numbers)
    is_inside = (columns < num_columns)[:, None] & (rows < num_rows)[None]
    tl.store(out + columns[:, None].to(tl.int64) * num_rows + rows[None], weights, mask=is_inside)
