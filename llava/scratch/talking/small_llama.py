"""A frozen Llama with a trained LoRA, computed as cheaply as two cores allow.

The prompt up to the image is the same for all samples, and the adapter is not active there, so its keys and values are
computed once. The head runs at the answers' positions alone.

Shape letters: B samples, L positions from the image on, C hidden size, H heads, K heads of keys, E width of a head,
N positions of the prefix, R rank.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

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

    def of_layer(self, layer: int, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A and the scaled B of each matrix of a layer, in the order of ``ADAPTED``."""
        keys = [_key(layer, name) for name in ADAPTED]
        return [(self.A[key].to(dtype), (self.B[key] * self.scaling).to(dtype)) for key in keys]


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


class _Layer(NamedTuple):
    """The frozen matrices of a layer; those that read the same states are one."""

    norm: torch.Tensor
    qkv: torch.Tensor
    out: torch.Tensor
    later_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


# Of each matrix, A [R, in] and B [out, R], scaled.
_Lora = Sequence[tuple[torch.Tensor, torch.Tensor]]


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
        self._run_layer = run_layer

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.embeddings.device

    def to(self, device: torch.device, dtype: torch.dtype) -> SmallLlama:
        """The model on that device, its matrices in that dtype, without a prefix. Norms stay in float32."""
        moved = {n: w.to(device, dtype if w.dim() > 1 else torch.float32) for n, w in self.weights.items()}
        return SmallLlama(moved, self.sizes)

    def compile(self) -> None:
        """Compiles the layers from now on, which takes a minute at the first step and a C++ compiler on a CPU.

        On one core with AMX, in bfloat16, a step then takes 0.6 of the time.
        """
        self._run_layer = torch.compile(run_layer, dynamic=True)

    @property
    def embeddings(self) -> torch.Tensor:
        """The table of embeddings [V, C], which is the head too where the weights have none."""
        return self.weights["embed_tokens.weight"]

    @torch.no_grad()
    def set_prefix(self, ids: torch.Tensor) -> None:
        """Computes the keys and values of the prompt's first tokens [N], without the adapter."""
        self._prefix = []
        _, self._prefix = self._run(self.embeddings[ids][None], None, None)

    def hidden(
        self, embeds_BLC: torch.Tensor, adapter: Adapter | None, branch_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The last hidden states [B, L, C] of the positions after the prefix. Padding goes on the right.

        ``branch_BL``: of each position 0, or the number of the branch that it belongs to. It sees the positions before
        it of branch 0 and of its own, and is counted as if there were no others.
        """
        return self._run(embeds_BLC, adapter, branch_BL)[0]

    def logits(self, hidden_XC: torch.Tensor) -> torch.Tensor:
        """Logits [X, V] of hidden states, by ``lm_head.weight`` or, where that is tied, by the table of embeddings."""
        return hidden_XC @ self.weights.get("lm_head.weight", self.embeddings).T

    @cached_property
    def _layers(self) -> list[_Layer]:
        def get(layer: int, *names: str) -> torch.Tensor:
            return torch.cat([self.weights[f"layers.{layer}.{name}.weight"] for name in names])

        return [
            _Layer(
                get(i, "input_layernorm"),
                get(i, "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                get(i, "self_attn.o_proj"),
                get(i, "post_attention_layernorm"),
                get(i, "mlp.gate_proj", "mlp.up_proj"),
                get(i, "mlp.down_proj"),
            )
            for i in range(self.sizes.layers)
        ]

    def _run(
        self, x: torch.Tensor, adapter: Adapter | None, branch_BL: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """The last hidden states, and the keys and values of each layer."""
        x = x.float()  # the sum of all layers stays exact, whatever the matrices have
        sizes, num_before = self.sizes, self._prefix[0][0].shape[2] if self._prefix else 0
        length = x.shape[1]
        sees_BLL = torch.ones(1, length, length, dtype=torch.bool, device=self.device).tril()
        if branch_BL is not None:
            sees_BLL = sees_BLL & ((branch_BL[:, None] == 0) | (branch_BL[:, None] == branch_BL[..., None]))
        angles = (num_before + sees_BLL.sum(2) - 1).float()[:, None, :, None] * self._inverse
        cos, sin = torch.cat([angles, angles], 3).cos(), torch.cat([angles, angles], 3).sin()
        mask = torch.zeros(len(sees_BLL), 1, length, num_before + length, device=self.device)
        mask[..., num_before:].masked_fill_(~sees_BLL[:, None], float("-inf"))
        kept = []
        for i, layer in enumerate(self._layers):
            lora = [] if adapter is None else adapter.of_layer(i, layer.qkv.dtype)
            before = self._prefix[i] if self._prefix else None
            x, keys, values = self._run_layer(x, layer, lora, before, cos, sin, mask, sizes)
            kept.append((keys, values))
        return normalize(x, self.weights["norm.weight"], sizes.norm_eps).to(self.embeddings.dtype), kept


def run_layer(
    x: torch.Tensor,
    layer: _Layer,
    lora: _Lora,
    before: tuple[torch.Tensor, torch.Tensor] | None,
    cos: torch.Tensor,
    sin: torch.Tensor,
    mask: torch.Tensor,
    sizes: Sizes,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One decoder layer: its states [B, L, C] in float32, and the keys and values [B, K, L, E] of these positions."""
    batch, length = x.shape[:2]
    heads, kv_heads, width = sizes.heads, sizes.kv_heads, sizes.head_dim
    dtype = layer.qkv.dtype
    normed = normalize(x, layer.norm, sizes.norm_eps).to(dtype)
    q, k, v = (
        part.view(batch, length, -1, width).transpose(1, 2)
        for part in _project(normed, layer.qkv, lora[:3], (heads * width, kv_heads * width, kv_heads * width))
    )
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    all_k, all_v = k, v
    if before is not None:
        all_k, all_v = (
            torch.cat([old.expand(batch, -1, -1, -1), new], 2) for old, new in zip(before, (k, v), strict=True)
        )
    mixed = _attend(q, all_k, all_v, mask).transpose(1, 2).reshape(batch, length, -1)
    [out] = _project(mixed, layer.out, lora[3:4], (layer.out.shape[0],))
    x = x + out
    normed = normalize(x, layer.later_norm, sizes.norm_eps).to(dtype)
    gate, up = _project(normed, layer.gate_up, lora[4:6], (sizes.inner, sizes.inner))
    [down] = _project((functional.silu(gate.float()) * up).to(dtype), layer.down, lora[6:], (layer.down.shape[0],))
    return x + down, k, v


def normalize(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMSNorm, in float32."""
    return functional.rms_norm(x, (x.shape[-1],), weight, eps)


def _project(x: torch.Tensor, matrix: torch.Tensor, lora: _Lora, parts: Sequence[int]) -> Sequence[torch.Tensor]:
    """What the matrices that are one make of x, each with its LoRA."""
    outs = functional.linear(x, matrix).split(list(parts), -1)
    if not lora:
        return outs
    inner = functional.linear(x, torch.cat([A for A, _ in lora])).split([len(A) for A, _ in lora], -1)
    return [out + functional.linear(low, B) for out, low, (_, B) in zip(outs, inner, lora, strict=True)]


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Grouped attention of q [B, H, L, E] to k and v [B, K, N + L, E]; softmax in float32.

    On a CPU, PyTorch's own attention with a mask takes twice as long, most of it backwards.
    """
    (batch, heads, length, width), kv_heads = q.shape, k.shape[1]
    if q.device.type != "cpu":
        k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
        return functional.scaled_dot_product_attention(q, k, v, mask.to(q.dtype))
    grouped = q.reshape(batch, kv_heads, -1, width)
    scores = (grouped @ k.transpose(2, 3)).view(batch, kv_heads, heads // kv_heads, length, -1)
    shares = torch.softmax(scores.float() / math.sqrt(width) + mask[:, :, None], -1).to(v.dtype)
    return (shares.view(batch, kv_heads, -1, shares.shape[-1]) @ v).view(batch, heads, length, width)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)


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
