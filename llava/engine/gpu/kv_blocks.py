"""The paged KV cache of a GPU: one allocation for all layers, read where it is by the attention kernels."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch

from llava.engine import paged
from llava.engine.request import Copy


class BlockKVCache(paged.KVCache):
    """Keys and values of every layer as in ``KVCache``, with attention by the GPU kernels, whatever the layers are."""

    def __init__(
        self,
        num_layers: int,
        num_blocks: int,
        num_kv_heads: int,
        block_tokens: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
        kernels: ModuleType,
    ) -> None:
        self.block_tokens, self.kernels = block_tokens, kernels
        shape = (num_layers, 2, num_blocks, num_kv_heads, block_tokens, head_dim)
        self._all = torch.empty(shape, dtype=dtype, device=device)
        self.keys = [layer[0] for layer in self._all]
        self.values = [layer[1] for layer in self._all]

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copies blocks, each in all layers at once."""
        for source, target, _ in copies:
            self._all[:, :, target] = self._all[:, :, source]

    def attend(
        self, layer: int, queries_NHD: torch.Tensor, rows: paged.Rows, scaling: float, window: int | None
    ) -> torch.Tensor:
        """Causal attention of every request's queries over its own positions, [N, heads, head_dim], in one call."""
        places = (rows.tables, rows.starts, rows.lengths)
        keys, values = self.keys[layer], self.values[layer]
        return self.kernels.extend_attention(queries_NHD.contiguous(), keys, values, *places, scaling, window)
