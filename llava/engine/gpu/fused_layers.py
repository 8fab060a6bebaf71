"""The layers of a Llama, Mistral or Qwen2 decoder in ten kernels each, over blocks of KV cache.

The same arithmetic as Transformers' layers, in the same dtype and rounded in the same places, but for RoPE and SiLU,
which are rounded once. What each kernel does says ``reference``.

Shape suffixes: N positions, C hidden size, D head dimension, L positions that a token is sampled from, P positions of
RoPE's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from llava.engine.gpu.joined_weights import JoinedLinear
from llava.engine.gpu.kv_blocks import BlockKVCache

# (queries [N, heads, D], keys, values, window) -> attention [N, heads, D]
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "int | None"], torch.Tensor]


@dataclass(frozen=True)
class FusedLayer:
    """The weights of one layer, as they are multiplied."""

    input_norm_C: torch.Tensor
    post_norm_C: torch.Tensor
    qkv: JoinedLinear
    o: JoinedLinear
    gate_up: JoinedLinear
    down: JoinedLinear
    keys: torch.Tensor
    values: torch.Tensor
    window: int | None


class FusedLayers:
    """All layers of a decoder and its last norm. Joins the decoder's matrices, in place.

    Args:
        decoder: one that ``find_gpu_fallback_reason`` has nothing against.
        windows: the sliding window of each layer, in positions; None for none.
        kernels: ``triton_kernels`` or ``reference``.
    """

    def __init__(self, decoder: Any, cache: BlockKVCache, windows: Sequence[int | None], kernels: ModuleType) -> None:
        self._kernels = kernels
        self._last_norm_C = decoder.norm.weight.detach()
        self._eps: float = decoder.norm.variance_epsilon
        self.layers = []
        for i, layer in enumerate(decoder.layers):
            attention, mlp = layer.self_attn, layer.mlp
            self.layers.append(
                FusedLayer(
                    layer.input_layernorm.weight.detach(),
                    layer.post_attention_layernorm.weight.detach(),
                    JoinedLinear.of([attention.q_proj, attention.k_proj, attention.v_proj]),
                    JoinedLinear.of([attention.o_proj]),
                    JoinedLinear.of([mlp.gate_proj, mlp.up_proj]),
                    JoinedLinear.of([mlp.down_proj]),
                    cache.keys[i],
                    cache.values[i],
                    windows[i],
                )
            )
            if cache.keys[i].device.type == "cuda":
                torch.cuda.empty_cache()  # the matrices' old places, which are too small for the next joined ones

    def run(
        self,
        embeds_NC: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        positions_N: torch.Tensor,
        slots_N: torch.Tensor,
        attend: Attend,
        last_L: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The head's input [N, C] from embeddings, which are overwritten; with ``last_L``, of these positions [L, C].

        Args:
            rotary: RoPE's cos and sin [P, D] by position.
            slots_N: where keys and values are written; a position whose slot is less than 0 writes none.
        """
        kernels, residual_NC = self._kernels, embeds_NC
        places = (*rotary, positions_N, slots_N)
        norms = [layer.input_norm_C for layer in self.layers[1:]] + [self._last_norm_C]
        normed_NC = kernels.add_rms_norm(residual_NC, None, self.layers[0].input_norm_C, self._eps)
        for layer, next_norm_C in zip(self.layers, norms, strict=True):
            qkv = self.multiply(normed_NC, layer.qkv)
            queries = kernels.rotate_and_store(qkv, *places, layer.keys, layer.values)
            attended = attend(queries, layer.keys, layer.values, layer.window).flatten(1)
            if layer is self.layers[-1] and last_L is not None:
                attended, residual_NC = attended[last_L], residual_NC[last_L]
            delta_NC = self.multiply(attended, layer.o)
            normed_NC = kernels.add_rms_norm(residual_NC, delta_NC, layer.post_norm_C, self._eps)
            gated = kernels.silu_multiply(self.multiply(normed_NC, layer.gate_up))
            delta_NC = self.multiply(gated, layer.down)
            normed_NC = kernels.add_rms_norm(residual_NC, delta_NC, next_norm_C, self._eps)
        return normed_NC

    def multiply(self, x_NC: torch.Tensor, linear: JoinedLinear) -> torch.Tensor:
        """The product of rows with a matrix, and its bias."""
        if isinstance(linear.matrix_NK, torch.Tensor):
            return torch.nn.functional.linear(x_NC, linear.matrix_NK, linear.bias_N)
        return self._kernels.quantized_matmul(x_NC, linear.matrix_NK, linear.bias_N)
