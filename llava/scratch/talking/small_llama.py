"""A frozen Llama with a trained LoRA, computed as cheaply as two cores allow.

The prompt up to the image is the same for all samples, and the adapter is not active there, so its keys and values are
computed once. The head runs at the answers' positions alone.

Shape letters: B samples, L positions from the image on, C hidden size, H heads, K heads of keys, E width of a head,
N positions of the prefix, R rank.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from llava.model.gguf.gguf_file import Header
from llava.model.image_adapter import ADAPTED


@dataclass(frozen=True)
class Sizes:
    """The sizes of SmolLM2-135M-Instruct."""

    layers: int = 30
    hidden: int = 576
    heads: int = 9
    kv_heads: int = 3
    inner: int = 1536
    rope_base: float = 100000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        return self.hidden // self.heads


class Adapter(nn.Module):
    """LoRA for every linear layer of every decoder layer; ``rank`` R, scaled by ``alpha`` / R."""

    def __init__(self, weights: Mapping[str, torch.Tensor], sizes: Sizes, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank, self.scaling = rank, alpha / rank
        self.A, self.B = nn.ParameterDict(), nn.ParameterDict()
        for layer in range(sizes.layers):
            for name in ADAPTED:
                out, into = weights[f"layers.{layer}.{name}.weight"].shape
                key = _key(layer, name)
                self.A[key] = nn.Parameter(torch.randn(rank, into) / math.sqrt(into))
                self.B[key] = nn.Parameter(torch.zeros(out, rank))


def _key(layer: int, name: str) -> str:
    return f"{layer}_{name.replace('.', '_')}"


def name_adapter(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of an ``Adapter``'s state dict by a checkpoint's names."""
    return {theirs: state[ours] for ours, theirs in _list_names(state, 0)}


def read_adapter(file: Path) -> dict[str, torch.Tensor]:
    """An ``Adapter``'s state dict in float32.

    ``file``: a checkpoint of ``adapter_training``, or the ``adapter.safetensors`` that ``pack`` wrote from one.
    """
    if file.suffix != ".safetensors":
        state = torch.load(file, weights_only=True, map_location="cpu")["adapter"]
    else:
        packed = load_file(file)
        state = {ours: packed[theirs] for ours, theirs in _list_names(packed, 1)}
    return {name: value.float() for name, value in state.items()}


def _list_names(present: Container[str], side: int) -> Iterator[tuple[str, str]]:
    """Each tensor's name in an ``Adapter`` and in a checkpoint, as long as the ``side``-th of both is ``present``."""
    for layer in itertools.count():
        for name in ADAPTED:
            for matrix in "AB":
                names = f"{matrix}.{_key(layer, name)}", f"model.layers.{layer}.{name}.image_lora_{matrix}.weight"
                if names[side] not in present:
                    return
                yield names


class SmallLlama:
    """The frozen model.

    Args:
        weights: by Transformers' names without ``model.``, float32.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], sizes: Sizes = Sizes()) -> None:
        self.weights, self.sizes = dict(weights), sizes
        half = sizes.head_dim // 2
        self._inverse = sizes.rope_base ** (-torch.arange(half, device=self.device).float() / half)
        self._prefix: list[tuple[torch.Tensor, torch.Tensor]] = []

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embeddings.device

    def to(self, device: torch.device, dtype: torch.dtype) -> SmallLlama:
        """The model on that device, its matrices in that dtype, without a prefix. Norms stay in float32."""
        moved = {n: w.to(device, dtype if w.dim() > 1 else torch.float32) for n, w in self.weights.items()}
        return SmallLlama(moved, self.sizes)

    @property
    def embeddings(self) -> torch.Tensor:
        """The table of embeddings, which is the head too: [V, C]."""
        return self.weights["embed_tokens.weight"]

    @torch.no_grad()
    def set_prefix(self, ids: torch.Tensor) -> None:
        """Computes the keys and values of the prompt's first tokens [N], without the adapter."""
        self._prefix = []
        self._run(self.embeddings[ids][None], None, keep=True)

    def hidden(
        self, embeds_BLC: torch.Tensor, adapter: Adapter | None, branch_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The last hidden states [B, L, C] of the positions after the prefix. Padding goes on the right.

        ``branch_BL``: of each position 0, or the number of the branch that it belongs to. It sees the positions before
        it of branch 0 and of its own, and is counted as if there were no others.
        """
        return self._run(embeds_BLC, adapter, keep=False, branch_BL=branch_BL)

    def logits(self, hidden_XC: torch.Tensor) -> torch.Tensor:
        """Logits [X, V] of hidden states."""
        return hidden_XC @ self.embeddings.T

    def _run(
        self, x: torch.Tensor, adapter: Adapter | None, keep: bool, branch_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = x.float()  # the sum of all layers stays exact, whatever the matrices have
        sizes, num_before = self.sizes, self._prefix[0][0].shape[2] if self._prefix else 0
        batch, length = x.shape[:2]
        sees_BLL = torch.ones(1, length, length, dtype=torch.bool, device=self.device).tril()
        if branch_BL is not None:
            sees_BLL = sees_BLL & ((branch_BL[:, None] == 0) | (branch_BL[:, None] == branch_BL[..., None]))
        angles = (num_before + sees_BLL.sum(2) - 1).float()[:, None, :, None] * self._inverse
        cos, sin = torch.cat([angles, angles], 3).cos(), torch.cat([angles, angles], 3).sin()
        mask = torch.zeros(len(sees_BLL), 1, length, num_before + length, device=self.device)
        mask[..., num_before:].masked_fill_(~sees_BLL[:, None], float("-inf"))
        kept = []
        for layer in range(sizes.layers):
            normed = self._norm(x, f"layers.{layer}.input_layernorm.weight")
            q = self._linear(normed, adapter, layer, "self_attn.q_proj").view(batch, length, sizes.heads, -1)
            k = self._linear(normed, adapter, layer, "self_attn.k_proj").view(batch, length, sizes.kv_heads, -1)
            v = self._linear(normed, adapter, layer, "self_attn.v_proj").view(batch, length, sizes.kv_heads, -1)
            q, k, v = _rotate(q.transpose(1, 2), cos, sin), _rotate(k.transpose(1, 2), cos, sin), v.transpose(1, 2)
            if keep:
                kept.append((k, v))
            elif self._prefix:
                old_k, old_v = self._prefix[layer]
                k = torch.cat([old_k.expand(batch, -1, -1, -1), k], 2)
                v = torch.cat([old_v.expand(batch, -1, -1, -1), v], 2)
            group = sizes.heads // sizes.kv_heads
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
            mixed = functional.scaled_dot_product_attention(q, k, v, mask)
            mixed = mixed.transpose(1, 2).reshape(batch, length, -1)
            x = x + self._linear(mixed, adapter, layer, "self_attn.o_proj")
            normed = self._norm(x, f"layers.{layer}.post_attention_layernorm.weight")
            gate = functional.silu(self._linear(normed, adapter, layer, "mlp.gate_proj"))
            up = self._linear(normed, adapter, layer, "mlp.up_proj")
            x = x + self._linear(gate * up, adapter, layer, "mlp.down_proj")
        if keep:
            self._prefix = kept
        return self._norm(x, "norm.weight")

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weights[name], self.sizes.norm_eps)

    def _linear(self, x: torch.Tensor, adapter: Adapter | None, layer: int, name: str) -> torch.Tensor:
        y = functional.linear(x, self.weights[f"layers.{layer}.{name}.weight"])
        if adapter is None:
            return y
        key = _key(layer, name)
        return y + functional.linear(functional.linear(x, adapter.A[key]), adapter.B[key] * adapter.scaling)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


# llama.cpp's names of a layer's tensors, by Transformers'.
_GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def read_sizes(header: Header) -> Sizes:
    """The sizes that the metadata of a Llama's GGUF file describe. Raises GgufFault."""
    whole, number = int, (int, float)
    return Sizes(
        layers=header.need("llama.block_count", whole),
        hidden=header.need("llama.embedding_length", whole),
        heads=header.need("llama.attention.head_count", whole),
        kv_heads=header.need("llama.attention.head_count_kv", whole),
        inner=header.need("llama.feed_forward_length", whole),
        rope_base=float(header.need("llama.rope.freq_base", number)),
        norm_eps=float(header.need("llama.attention.layer_norm_rms_epsilon", number)),
    )


def name_from_gguf(tensors: Mapping[str, torch.Tensor], sizes: Sizes = Sizes()) -> dict[str, torch.Tensor]:
    """The weights by Transformers' names; the rows of q and k are in Transformers' order already."""
    named = {"embed_tokens.weight": tensors["token_embd.weight"], "norm.weight": tensors["output_norm.weight"]}
    for layer in range(sizes.layers):
        for ours, theirs in _GGUF_NAMES.items():
            named[f"layers.{layer}.{ours}.weight"] = tensors[f"blk.{layer}.{theirs}.weight"]
    return named
