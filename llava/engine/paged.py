"""Keys and values in blocks, and attention over them.

    slot = block * block_tokens + place in the block          where a position's key and value lie, in every layer

The slow way, in torch alone: each request's blocks are gathered and given to torch's attention. Query heads that share
a key and value head are laid beside each other instead of copying what they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava.engine.request import Copy

# The name under which Transformers' layers find ``attend_paged``.
ATTENTION = "llava_paged"


class KVCache:
    """For every layer keys and values [blocks, kv heads, block_tokens, head_dim]."""

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
        for source, target, num_tokens in copies:
            for tensor in (*self.keys, *self.values):
                tensor[target, :, :num_tokens] = tensor[source, :, :num_tokens]

    def store(self, layer: int, keys_NHD: torch.Tensor, values_NHD: torch.Tensor, slots_N: torch.Tensor) -> None:
        """Writes a key and a value for each slot."""
        blocks, places = slots_N // self.block_tokens, slots_N % self.block_tokens
        self.keys[layer][blocks, :, places] = keys_NHD
        self.values[layer][blocks, :, places] = values_NHD

    def gather(self, layer: int, table: torch.Tensor, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first ``length`` keys and values of a table, each [kv heads, length, head_dim]."""
        return tuple(
            tensor[table].transpose(0, 1).flatten(1, 2)[:, :length] for tensor in (self.keys[layer], self.values[layer])
        )  # type: ignore[return-value]


@dataclass
class Row:
    """One request in a step: its queries ``start`` to ``stop`` of the step's, its blocks, and its length with them."""

    start: int
    stop: int
    table: torch.Tensor
    length: int


@dataclass
class PagedStep:
    """What attention needs to know of a step."""

    cache: KVCache
    slots: torch.Tensor
    rows: list[Row]


def attend(queries_HND: torch.Tensor, step: PagedStep, layer: int, scaling: float, window: int | None) -> torch.Tensor:
    """Causal attention of every row's queries [heads, N, head_dim] over its own positions; [N, heads, head_dim]."""
    parts = []
    for row in step.rows:
        table = row.table
        keys, values = step.cache.gather(layer, table, row.length)
        num_queries = row.stop - row.start
        first = row.length - num_queries  # the position of the first query
        begin = 0 if window is None else max(0, first - window + 1)
        keys, values = keys[:, begin:], values[:, begin:]
        queries = queries_HND[:, row.start : row.stop]
        num_groups = queries.shape[0] // keys.shape[0]
        if num_queries == 1:
            grouped = queries.reshape(keys.shape[0], num_groups, -1)
            scores = torch.matmul(grouped, keys.transpose(1, 2)).float() * scaling
            out = torch.matmul(scores.softmax(-1).to(values.dtype), values)
            parts.append(out.reshape(1, queries.shape[0], -1))
            continue
        is_whole = first == 0 and (window is None or row.length <= window)
        mask = None if is_whole else _mask(first, num_queries, begin, row.length, window, queries.device)
        out = nn.functional.scaled_dot_product_attention(
            queries[None],
            keys[None],
            values[None],
            attn_mask=mask,
            is_causal=is_whole,
            scale=scaling,
            enable_gqa=num_groups > 1,
        )[0]
        parts.append(out.transpose(0, 1))
    return torch.cat(parts)


def _mask(
    first: int, num_queries: int, begin: int, length: int, window: int | None, device: torch.device
) -> torch.Tensor:
    """True where the query at ``first`` + row may see position ``begin`` + column."""
    at = torch.arange(first, first + num_queries, device=device)[:, None]
    seen = torch.arange(begin, length, device=device)[None]
    mask = seen <= at
    return mask if window is None else mask & (seen > at - window)


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
    paged.cache.store(layer, key[0].transpose(0, 1), value[0].transpose(0, 1), paged.slots)
    return attend(query[0], paged, layer, scaling, sliding_window)[None], None


def register() -> None:
    """Makes ``attend_paged`` known to Transformers; again is harmless."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend_paged)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
