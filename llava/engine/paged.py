"""Keys and values in blocks, and attention over them.

    slot = block * block_tokens + place in the block          where a position's key and value lie, in every layer

The slow way, in torch alone, gathers each request's blocks and gives them to torch's attention; the fast way is
compiled (kernels.cpp) and reads the blocks where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava.engine.request import Copy
from llava.model.attention_switch import use_attention
from llava.native import calls

# The name under which Transformers' layers find ``attend_paged``.
ATTENTION = "llava_paged"


@dataclass
class Rows:
    """The requests of a step: whose queries begin where, how many positions each has with them, and their blocks.

    int32 tensors on the CPU: starts [R + 1], lengths [R], tables [R, most blocks]; int64 slots [N] of all positions.
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    tables: torch.Tensor
    slots: torch.Tensor


@dataclass
class FixedRows:
    """One new position for each of R requests, padded to a fixed shape: int64 tensors on the model's device.

    tables [R, blocks], lengths [R] with the new position, slots [R].
    """

    tables: torch.Tensor
    lengths: torch.Tensor
    slots: torch.Tensor


class KVCache:
    """For every layer keys and values [blocks, kv heads, block_tokens, head_dim], computed with in torch."""

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        num_kv_heads: int,
        block_tokens: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.block_tokens = block_tokens
        shape = (num_blocks, num_kv_heads, block_tokens, head_dim)
        # Not cleared: on a CPU memory is only taken where something is written.
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copies the beginnings of blocks, in every layer."""
        for source, target, _ in copies:
            for tensor in (*self.keys, *self.values):
                tensor[target] = tensor[source]

    def store(self, layer: int, keys_NHD: torch.Tensor, values_NHD: torch.Tensor, rows: Rows | FixedRows) -> None:
        """Writes a key and a value for each slot."""
        slots = rows.slots.to(keys_NHD.device)
        blocks, places = slots // self.block_tokens, slots % self.block_tokens
        self.keys[layer][blocks, :, places] = keys_NHD
        self.values[layer][blocks, :, places] = values_NHD

    def attend(
        self, layer: int, queries_NHD: torch.Tensor, rows: Rows | FixedRows, scaling: float, window: int | None
    ) -> torch.Tensor:
        """Causal attention of every request's queries over its own positions, [N, heads, head_dim]."""
        if isinstance(rows, FixedRows):
            return self._attend_fixed(layer, queries_NHD, rows, scaling, window)
        starts, lengths = rows.starts.tolist(), rows.lengths.tolist()
        parts = [
            self._attend_one(layer, queries_NHD[start:stop].transpose(0, 1), table, length, scaling, window)
            for start, stop, table, length in zip(starts, starts[1:], rows.tables, lengths, strict=False)
        ]
        return torch.cat(parts)

    def _attend_fixed(
        self, layer: int, queries_RHD: torch.Tensor, rows: FixedRows, scaling: float, window: int | None
    ) -> torch.Tensor:
        """One query of each request over all its blocks, those that only pad too: nothing depends on a length."""
        num_requests, num_blocks = rows.tables.shape
        keys, values = (tensor[rows.tables] for tensor in (self.keys[layer], self.values[layer]))  # [R, B, KV, T, D]
        grouped = queries_RHD.view(num_requests, 1, keys.shape[2], -1, queries_RHD.shape[2])
        scores = torch.matmul(grouped, keys.transpose(3, 4)).float() * scaling  # [R, B, KV, G, T]
        at = torch.arange(num_blocks * self.block_tokens, device=scores.device).view(1, num_blocks, 1, 1, -1)
        lengths = rows.lengths.view(-1, 1, 1, 1, 1)
        seen = at < lengths
        if window is not None:
            seen = seen & (at >= lengths - window)
        # Values beyond a request's end may be anything, and zero times NaN is NaN.
        values = values.masked_fill(~seen.transpose(3, 4), 0)
        scores = scores.masked_fill(~seen, -torch.inf).transpose(1, 3).transpose(3, 4)  # [R, G, KV, T, B] transposed
        shape = scores.shape
        weights = scores.flatten(3).softmax(-1).view(shape).transpose(3, 4).transpose(1, 3).to(values.dtype)
        return torch.matmul(weights, values).sum(1).reshape(queries_RHD.shape)

    def _attend_one(
        self,
        layer: int,
        queries: torch.Tensor,
        table: torch.Tensor,
        length: int,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """One request's queries [heads, Q, head_dim], the last of its positions; [Q, heads, head_dim]."""
        num_queries = queries.shape[1]
        first = length - num_queries  # the position of the first query
        begin = 0 if window is None else max(0, first - window + 1)
        blocks = table[: -(-length // self.block_tokens)].to(queries.device)
        keys, values = (
            tensor[blocks].transpose(0, 1).flatten(1, 2)[:, begin:length]
            for tensor in (self.keys[layer], self.values[layer])
        )
        num_groups = queries.shape[0] // keys.shape[0]
        if num_queries == 1:
            # Heads that share a key and a value lie beside each other, instead of copying what they share.
            grouped = queries.reshape(keys.shape[0], num_groups, -1)
            scores = torch.matmul(grouped, keys.transpose(1, 2)).float() * scaling
            out = torch.matmul(scores.softmax(-1).to(values.dtype), values)
            return out.reshape(1, queries.shape[0], -1)
        is_whole = first == 0 and (window is None or length <= window)
        out = nn.functional.scaled_dot_product_attention(
            queries[None],
            keys[None],
            values[None],
            attn_mask=None if is_whole else _mask(first, num_queries, begin, length, window, queries.device),
            is_causal=is_whole,
            scale=scaling,
            enable_gqa=num_groups > 1,
        )[0]
        return out.transpose(0, 1)


class NativeKVCache(KVCache):
    """The same in the order that the compiled arithmetic reads, and computed with by it."""

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        num_kv_heads: int,
        block_tokens: int,
        head_dim: int,
        dtype: torch.dtype,
    ) -> None:
        self.block_tokens = block_tokens
        shape = (num_blocks, num_kv_heads, block_tokens, head_dim)
        self.keys = [calls.make_cache(*shape, dtype) for _ in range(num_layers)]
        self.values = [calls.make_cache(*shape, dtype) for _ in range(num_layers)]

    def store(self, layer: int, keys_NHD: torch.Tensor, values_NHD: torch.Tensor, rows: Rows | FixedRows) -> None:
        calls.store(self.keys[layer], self.values[layer], keys_NHD, values_NHD, rows.slots)

    def attend(
        self, layer: int, queries_NHD: torch.Tensor, rows: Rows | FixedRows, scaling: float, window: int | None
    ) -> torch.Tensor:
        assert isinstance(rows, Rows)
        return calls.attend(
            queries_NHD,
            self.keys[layer],
            self.values[layer],
            rows.starts,
            rows.lengths,
            rows.tables,
            scaling,
            window,
        )


def _mask(
    first: int, num_queries: int, begin: int, length: int, window: int | None, device: torch.device
) -> torch.Tensor:
    """True where the query at ``first`` + row may see position ``begin`` + column."""
    at = torch.arange(first, first + num_queries, device=device)[:, None]
    seen = torch.arange(begin, length, device=device)[None]
    mask = seen <= at
    return mask if window is None else mask & (seen > at - window)


@dataclass
class PagedStep:
    """What the layers' attention is told of a step."""

    cache: KVCache
    rows: Rows | FixedRows


def attend_paged(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    sliding_window: int | None = None,
    paged: PagedStep | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as Transformers' layers call it, with keys and values in blocks: all [1, heads, N, head_dim].

    Without ``paged`` it is Transformers' own: another thread may run the model by itself meanwhile.
    """
    if paged is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    layer = module.layer_idx
    paged.cache.store(layer, key[0].transpose(0, 1), value[0].transpose(0, 1), paged.rows)
    out = paged.cache.attend(layer, query[0].transpose(0, 1), paged.rows, scaling, sliding_window)
    return out[None], None


def register() -> None:
    """Makes ``attend_paged`` known to Transformers; again is harmless."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend_paged)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def attention_in_blocks(config: Any) -> AbstractContextManager[None]:
    """Lets the layers attend over blocks, and sets everything back for whoever else runs the model.

    Several engines may do so with one model at once, each in its own thread.
    """
    return use_attention(config, ATTENTION)
