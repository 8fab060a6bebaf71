"""The paged KV cache, and attention over it.

    slot = block * block_tokens + offset in the block          where a position's key and value lie, in every layer

``KVCache`` runs everywhere: it gathers each request's blocks and calls torch's attention. ``NativeKVCache`` runs on
CPUs and reads the blocks where they are, through the native kernels; so does ``gpu.kv_blocks.BlockKVCache`` on GPUs.
All compute the same.
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
from llava.model.image_adapter import at_positions
from llava.native import calls

# The name under which Transformers' layers find ``attend_paged``.
ATTENTION = "llava_paged"


@dataclass
class Rows:
    """The requests of a step: where each one's queries begin, how many positions it has with them, and its blocks.

    int32 tensors: starts [R + 1], lengths [R], tables [R, most blocks]; slots [N] of all positions. On the CPU, but for
    a ``BlockKVCache``, which takes them on its device.
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    tables: torch.Tensor
    slots: torch.Tensor


class KVCache:
    """Keys and values of every layer, [blocks, kv heads, block_tokens, head_dim], with attention in torch."""

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
        # Not zeroed: a CPU's pages are allocated when they are first written.
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in range(num_layers)]

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copies the beginnings of blocks in every layer."""
        for source, target, _ in copies:
            for tensor in (*self.keys, *self.values):
                tensor[target] = tensor[source]

    def store(self, layer: int, keys_NHD: torch.Tensor, values_NHD: torch.Tensor, rows: Rows) -> None:
        """Writes the keys and values [N, kv heads, head_dim] of a layer to their slots."""
        slots = rows.slots.to(keys_NHD.device).long()
        blocks, offsets = slots // self.block_tokens, slots % self.block_tokens
        self.keys[layer][blocks, :, offsets] = keys_NHD
        self.values[layer][blocks, :, offsets] = values_NHD

    def attend(
        self, layer: int, queries_NHD: torch.Tensor, rows: Rows, scaling: float, window: int | None
    ) -> torch.Tensor:
        """Causal attention of every request's queries over its own positions, [N, heads, head_dim]."""
        starts, lengths = rows.starts.tolist(), rows.lengths.tolist()
        parts = [
            self._attend_one(layer, queries_NHD[start:stop].transpose(0, 1), table, length, scaling, window)
            for start, stop, table, length in zip(starts, starts[1:], rows.tables, lengths, strict=False)
        ]
        return torch.cat(parts)

    def _attend_one(
        self,
        layer: int,
        queries: torch.Tensor,
        table: torch.Tensor,
        length: int,
        scaling: float,
        window: int | None,
    ) -> torch.Tensor:
        """Attention [Q, heads, head_dim] of one request's queries [heads, Q, head_dim], its last positions."""
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
            # Grouped-query attention without expanded copies: the heads that share keys and values form one matrix.
            grouped = queries.reshape(keys.shape[0], num_groups, -1)
            scores = torch.matmul(grouped, keys.transpose(1, 2)).float() * scaling
            out = torch.matmul(scores.softmax(-1).to(values.dtype), values)
            return out.reshape(1, queries.shape[0], -1)
        is_plain_causal = first == 0 and (window is None or length <= window)
        out = nn.functional.scaled_dot_product_attention(
            queries[None],
            keys[None],
            values[None],
            attn_mask=None if is_plain_causal else _mask(first, num_queries, begin, length, window, queries.device),
            is_causal=is_plain_causal,
            scale=scaling,
            enable_gqa=num_groups > 1,
        )[0]
        return out.transpose(0, 1)


class NativeKVCache(KVCache):
    """The same in the layout of kv_cache.h, with attention by the native kernels."""

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

    def store(self, layer: int, keys_NHD: torch.Tensor, values_NHD: torch.Tensor, rows: Rows) -> None:
        calls.write_kv(self.keys[layer], self.values[layer], keys_NHD, values_NHD, rows.slots)

    def attend(
        self, layer: int, queries_NHD: torch.Tensor, rows: Rows, scaling: float, window: int | None
    ) -> torch.Tensor:
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
    """True where the query at position ``first`` + row sees position ``begin`` + column."""
    queries = torch.arange(first, first + num_queries, device=device)[:, None]
    positions = torch.arange(begin, length, device=device)[None]
    mask = positions <= queries
    return mask if window is None else mask & (positions > queries - window)


@dataclass
class PagedStep:
    """The metadata that the attention of every layer needs of a step."""

    cache: KVCache
    rows: Rows


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
    """Paged attention in the form that Transformers' layers call: all tensors [1, heads, N, head_dim].

    Without ``paged`` it is Transformers' own attention, for other threads that run the model meanwhile.
    """
    if paged is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    layer = module.layer_idx
    paged.cache.store(layer, key[0].transpose(0, 1), value[0].transpose(0, 1), paged.rows)
    out = paged.cache.attend(layer, query[0].transpose(0, 1), paged.rows, scaling, sliding_window)
    return out[None], None


def run_layers(
    decoder: Any,
    embeds_NC: torch.Tensor,
    positions_N: torch.Tensor,
    step: PagedStep,
    is_adapted_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hidden states [N, C] before the last norm, through Transformers' own layers with paged attention.

    ``is_adapted_N``: at which positions an image adapter is active; None: nowhere.
    """
    hidden, positions_1N = embeds_NC[None], positions_N[None].to(embeds_NC.device)
    shared: dict[str, Any] = {
        "attention_mask": None,
        "position_ids": positions_1N,
        "position_embeddings": decoder.rotary_emb(hidden, positions_1N),
        "use_cache": False,
        "paged": step,
    }
    is_adapted_1N = None if is_adapted_N is None else is_adapted_N[None].to(embeds_NC.device)
    with attention_in_blocks(decoder.config), at_positions(is_adapted_1N):
        for layer in decoder.layers:
            hidden = layer(hidden, **shared)
    return hidden[0]


def register() -> None:
    """Registers ``attend_paged`` with Transformers; idempotent."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attend_paged)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def attention_in_blocks(config: Any) -> AbstractContextManager[None]:
    """Switches the layers to paged attention, and back at the end for other code that runs the model.

    Several engines may do so with one model at once, each in its own thread.
    """
    return use_attention(config, ATTENTION)
