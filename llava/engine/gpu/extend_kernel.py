"""Extend attention: several new positions of each request, causal, over its blocks, which are read in place.

A program takes one kv head and a tile of a request's queries with all heads that share that kv head, so that a block is
read once for the group. Which request a tile belongs to follows from ``starts``, on the device: request r begins with
tile ``starts[r] // queries + r``, which leaves every request the tiles that it needs.

Sizes, for an H100 or H200 (not run on a GPU): 128 rows of queries and tiles of 64 positions on 8 warps, a usual shape
of flash attention; 64 rows where requests have few queries. Positions that all queries of a tile see need no mask; only
the last tiles and those of a window do. A prompt's last queries, which see most, come first.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from llava.engine.gpu.decode_kernel import LOG2_E


def extend_attention(
    queries_NHD: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """See ``reference``."""
    num, num_heads, head_dim = queries_NHD.shape
    num_kv_heads, block_tokens = keys.shape[1], keys.shape[2]
    assert all(tensor.is_contiguous() for tensor in (queries_NHD, keys, values, tables, starts, lengths))
    out = torch.empty_like(queries_NHD)
    if num == 0:
        return out
    num_requests, group = len(lengths), num_heads // num_kv_heads
    padded_group = triton.next_power_of_2(group)
    if keys.itemsize == 4:  # float32 is multiplied without tensor cores
        rows, tile = 16, 32
    else:
        rows, tile = (128 if num * padded_group > 64 * num_requests else 64), 64
    rows = max(rows, padded_group)
    queries = rows // padded_group
    _extend[(num // queries + num_requests + 1, num_kv_heads)](
        queries_NHD,
        keys,
        values,
        tables,
        starts,
        lengths,
        out,
        scaling * LOG2_E,
        tables.shape[1],
        num_requests,
        num,
        NUM_KV_HEADS=num_kv_heads,
        GROUP=group,
        PADDED_GROUP=padded_group,
        QUERIES=queries,
        DIM=head_dim,
        PADDED_DIM=max(16, triton.next_power_of_2(head_dim)),
        BLOCK_TOKENS=block_tokens,
        TILE=tile,
        WINDOW=window or 0,
        num_warps=8 if rows > 64 else 4,
        num_stages=3,
    )
    return out


@triton.jit(
    do_not_specialize=["most_blocks", "num_requests", "num_queries"],
    do_not_specialize_on_alignment=["tables", "starts", "lengths"],
)
def _extend(
    queries,
    keys,
    values,
    tables,
    starts,
    lengths,
    out,
    scale,
    most_blocks,
    num_requests,
    num_queries,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    PADDED_GROUP: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
):
    tile, kv_head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1)
    request = _find_request(starts, num_requests, tile, QUERIES)
    is_request = request < num_requests  # the queries after the last request's get zeros
    begin = tl.load(starts + request)
    count = tl.load(starts + request + 1, mask=is_request, other=num_queries) - begin
    first = (tile - begin // QUERIES - request) * QUERIES  # the tile's first query, of this request's
    if first < count:
        length = tl.load(lengths + request, mask=is_request, other=0)
        rows, dims = tl.arange(0, QUERIES * PADDED_GROUP), tl.arange(0, PADDED_DIM)
        own, member = first + rows // PADDED_GROUP, rows % PADDED_GROUP
        heads = (begin + own).to(tl.int64) * (NUM_KV_HEADS * GROUP) + kv_head * GROUP + member
        is_inside = ((own < count) & (member < GROUP))[:, None] & (dims < DIM)[None]
        q = tl.load(queries + heads[:, None] * DIM + dims[None], mask=is_inside, other=0.0)

        # Every query of the tile sees [low, middle), except for a window; the rest needs a mask.
        place = tl.where(is_request, length - count + first, -1)  # the position of the first query
        high = tl.where(is_request, tl.minimum(place + QUERIES, length), 0)
        middle = (place + 1) // TILE * TILE
        low = tl.maximum(place - WINDOW + 1, 0) // TILE * TILE if WINDOW > 0 else 0
        places = length - count + own
        largest = tl.full([QUERIES * PADDED_GROUP], float("-inf"), tl.float32)
        total = tl.zeros([QUERIES * PADDED_GROUP], tl.float32)
        acc = tl.zeros([QUERIES * PADDED_GROUP, PADDED_DIM], tl.float32)
        table = tables + request.to(tl.int64) * most_blocks
        acc, total, largest = _attend_tiles(
            acc, total, largest, q, keys, values, table, places, kv_head, low, middle, scale,
            NUM_KV_HEADS, DIM, PADDED_DIM, BLOCK_TOKENS, TILE, WINDOW, WINDOW > 0,
        )  # fmt: skip
        acc, total, largest = _attend_tiles(
            acc, total, largest, q, keys, values, table, places, kv_head, middle, high, scale,
            NUM_KV_HEADS, DIM, PADDED_DIM, BLOCK_TOKENS, TILE, WINDOW, True,
        )  # fmt: skip
        result = acc / tl.where(total == 0.0, 1.0, total)[:, None]
        tl.store(out + heads[:, None] * DIM + dims[None], result.to(out.dtype.element_ty), mask=is_inside)


@triton.jit
def _find_request(starts, num_requests, tile, QUERIES: tl.constexpr):
    """The last request whose first tile is ``tile`` or one before; ``num_requests`` after the last one's queries."""
    count = 0
    for base in range(0, num_requests + 1, 64):
        requests = base + tl.arange(0, 64)
        begins = tl.load(starts + requests, mask=requests <= num_requests, other=0)
        count += tl.sum(((begins // QUERIES + requests <= tile) & (requests <= num_requests)).to(tl.int32), 0)
    return count - 1


@triton.jit
def _attend_tiles(
    acc,
    total,
    largest,
    q,
    keys,
    values,
    table,
    places,
    kv_head,
    low,
    high,
    scale,
    NUM_KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    TILE: tl.constexpr,
    WINDOW: tl.constexpr,
    IS_MASKED: tl.constexpr,
):
    """The online softmax of rows of queries at ``places``, continued over the positions [low, high)."""
    dims = tl.arange(0, PADDED_DIM)
    for first in range(low, high, TILE):
        positions = first + tl.arange(0, TILE)
        visible = positions < high
        blocks = tl.load(table + positions // BLOCK_TOKENS, mask=visible, other=0).to(tl.int64)
        offsets = ((blocks * NUM_KV_HEADS + kv_head) * BLOCK_TOKENS + positions % BLOCK_TOKENS)[:, None] * DIM
        offsets += dims[None]
        # Masked loads: what lies past a request's end may be NaN, and zero times NaN is NaN.
        loaded = visible[:, None] & (dims < DIM)[None]
        k = tl.load(keys + offsets, mask=loaded, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee")
        if IS_MASKED:
            seen = positions[None] <= places[:, None]
            if WINDOW > 0:
                seen &= positions[None] > places[:, None] - WINDOW
            scores = tl.where(seen & visible[None], scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1) * scale)
        # A row may have seen nothing yet: then its weights are exp2(-inf), not exp2(-inf + inf).
        base = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weights = tl.exp2(scores * scale - base[:, None])
        correction = tl.exp2(largest - base)
        total = total * correction + tl.sum(weights, 1)
        v = tl.load(values + offsets, mask=loaded, other=0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc * correction[:, None], input_precision="ieee")
        largest = new_largest
    return acc, total, largest
