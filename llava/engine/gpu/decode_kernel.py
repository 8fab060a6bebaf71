"""Decode attention: one query of each request over its blocks, read in place, cut into splits (flash-decoding).

A program takes one request, one kv head with all heads that share it, and one split of the request's positions. The
splits are equal parts of the request's real length, so their number depends on the number of requests alone and an
empty split costs next to nothing. Blocks are read once, whatever the group; scores are in base 2.

Sizes, for an H100 or H200 (132 multiprocessors, 228 KB of shared memory each; not run on a GPU): a tile of 64 positions
of 128 dimensions in 16 bits is 16 KB of keys and 16 of values, copied while the one before it is multiplied. Four
programs fit on a multiprocessor and have some 64 KB in flight, where 18 to 36 KB keep the memory busy; ``workspace``
launches as many if it can.

The heads of a group are rows of one matrix, padded to the 16 that a tensor core takes.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from llava.engine.gpu.workspace import DecodeWorkspace

LOG2_E = math.log2(math.e)
# Splits are whole multiples of this many positions, so that programs get nearly the same bytes.
GRAIN = tl.constexpr(16)


def decode_attention(
    queries_RHD: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
    window: int | None,
    workspace: DecodeWorkspace,
) -> torch.Tensor:
    """See ``reference``."""
    num_requests, num_heads, head_dim = queries_RHD.shape
    num_kv_heads, block_tokens = keys.shape[1], keys.shape[2]
    assert all(tensor.is_contiguous() for tensor in (queries_RHD, keys, values, tables, lengths))
    out = torch.empty_like(queries_RHD)
    if num_requests == 0:
        return out
    sums, logs = workspace.view(num_requests)
    num_splits, group = sums.shape[2], num_heads // num_kv_heads
    padded_dim = max(16, triton.next_power_of_2(head_dim))
    _decode[(num_kv_heads, num_splits, num_requests)](
        queries_RHD,
        keys,
        values,
        tables,
        lengths,
        out,
        sums,
        logs,
        scaling * LOG2_E,
        tables.shape[1],
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        ROWS=max(16, triton.next_power_of_2(group)),
        DIM=head_dim,
        PADDED_DIM=padded_dim,
        BLOCK_TOKENS=block_tokens,
        TILE=64 if keys.itemsize == 2 else 32,
        WINDOW=window or 0,
        IS_SPLIT=num_splits > 1,
        num_warps=4,
        num_stages=3,
    )
    if num_splits > 1:
        _join[(num_requests * num_heads,)](
            sums, logs, out, DIM=head_dim, PADDED_DIM=padded_dim, SPLITS=num_splits, num_warps=4
        )
    return out


# fmt: off
# Not by alignment: parts of these tensors, which begin anywhere, must not make Triton compile in the middle of serving.
@triton.jit(do_not_specialize=["most_blocks"], do_not_specialize_on_alignment=["tables", "lengths"])
def _decode(
    queries, keys, values, tables, lengths, out, sums, logs, scale, most_blocks,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr, BLOCK_TOKENS: tl.constexpr, TILE: tl.constexpr, WINDOW: tl.constexpr,
    IS_SPLIT: tl.constexpr,
):
    kv_head, split, request = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_splits = tl.num_programs(1)
    length = tl.load(lengths + request)
    begin = tl.maximum(length - WINDOW, 0) if WINDOW > 0 else 0
    span = tl.cdiv(tl.cdiv(length - begin, num_splits), GRAIN) * GRAIN
    start = begin + split * span
    stop = tl.minimum(start + span, length)

    rows, dims = tl.arange(0, ROWS), tl.arange(0, PADDED_DIM)
    heads = request * (NUM_KV_HEADS * GROUP) + kv_head * GROUP + rows
    is_inside = (rows < GROUP)[:, None] & (dims < DIM)[None]
    q = tl.load(queries + heads[:, None] * DIM + dims[None], mask=is_inside, other=0.0)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    table = tables + request.to(tl.int64) * most_blocks
    for first in range(start, stop, TILE):
        positions = first + tl.arange(0, TILE)
        visible = positions < stop
        blocks = tl.load(table + positions // BLOCK_TOKENS, mask=visible, other=0).to(tl.int64)
        places = (blocks * NUM_KV_HEADS + kv_head) * BLOCK_TOKENS + positions % BLOCK_TOKENS
        offsets = places[:, None] * DIM + dims[None]
        # Masked loads: what lies past a request's end may be NaN, and zero times NaN is NaN.
        loaded = visible[:, None] & (dims < DIM)[None]
        k = tl.load(keys + offsets, mask=loaded, other=0.0)
        scores = tl.where(visible[None], tl.dot(q, tl.trans(k), input_precision="ieee"), float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - new_largest[:, None])
        correction = tl.exp2(largest - new_largest)
        total = total * correction + tl.sum(weights, 1)
        v = tl.load(values + offsets, mask=loaded, other=0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
        largest = new_largest

    # Without positions the total is 0, and so is the result.
    is_empty = total == 0.0
    total = tl.where(is_empty, 1.0, total)
    result = acc / total[:, None]
    if IS_SPLIT:
        parts = heads * num_splits + split
        tl.store(sums + parts[:, None] * DIM + dims[None], result, mask=is_inside)
        tl.store(logs + parts, tl.where(is_empty, float("-inf"), largest + tl.log2(total)), mask=rows < GROUP)
    else:
        tl.store(out + heads[:, None] * DIM + dims[None], result.to(out.dtype.element_ty), mask=is_inside)
# fmt: on


@triton.jit
def _join(sums, logs, out, DIM: tl.constexpr, PADDED_DIM: tl.constexpr, SPLITS: tl.constexpr):
    """One head of one request: its splits' results, weighted by their sums of weights."""
    head = tl.program_id(0)
    splits, dims = head * SPLITS + tl.arange(0, SPLITS), tl.arange(0, PADDED_DIM)
    log = tl.load(logs + splits)
    largest = tl.max(log, 0)
    weights = tl.exp2(log - tl.where(largest == float("-inf"), 0.0, largest))
    parts = tl.load(sums + splits[:, None] * DIM + dims[None], mask=(dims < DIM)[None], other=0.0)
    total = tl.sum(weights, 0)
    result = tl.sum(parts * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    tl.store(out + head * DIM + dims, result.to(out.dtype.element_ty), mask=dims < DIM)
