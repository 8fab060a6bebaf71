"""The layers of a decoder and of a vision tower, run by the native kernels.

Hidden states stay in float32 from the first layer to the last. A decode step, of few positions, runs through all layers
in one call. In a prefill torch computes the matrix products and the kernels everything between them. Where a CPU has no
bfloat16 dot product, matrices are widened to float32 one at a time, which is several times faster than torch's bfloat16
there.

N positions, C hidden size, M rows, K inputs, T tiles, P patches of a tile, D the tower's hidden size.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava.engine.paged import NativeKVCache, Rows
from llava.model.image_adapter import AdaptedLinear, AdaptedQuantizedLinear
from llava.model.placement import cpu_is_faster_in_bfloat16
from llava.model.quantized_linear import QuantizedLinear
from llava.native import abi, calls, quantization

# For more positions, torch's GEMM is faster than the kernels' GEMV.
MAX_DECODE_POSITIONS = 32
# Where each request has one position, so many requests are decoded all the same, in groups of MAX_DECODE_POSITIONS.
MAX_DECODING_REQUESTS = 128
# An MLP runs over so many rows at a time, because what is between its products is the largest part of a step's memory.
MAX_MLP_ROWS = 1536


class LowRankUpdate:
    """An image adapter's update of one matrix, which is added to the products of some rows."""

    def __init__(self, down_RK: torch.Tensor, up_NR: torch.Tensor, scaling: float) -> None:
        self._down_RK, self._up_RN, self._scaling = down_RK.detach(), up_NR.detach().T.contiguous(), scaling

    def structure(self) -> abi.LowRank:
        """The update as the library's structure; it points to this object's tensors."""
        return abi.LowRank(len(self._down_RK), self._scaling, *map(calls.pointer, (self._down_RK, self._up_RN)))

    def add(self, rows_MK: torch.Tensor, out_MN: torch.Tensor, is_adapted_M: torch.Tensor) -> None:
        """Adds the update to the products of those rows that are adapted."""
        lowered_MR = torch.mm(rows_MK, self._down_RK.T.to(rows_MK.dtype)).to(out_MN.dtype) * self._scaling
        lowered_MR.masked_fill_(~is_adapted_M[:, None], 0)  # adding 0 changes nothing
        out_MN.addmm_(lowered_MR, self._up_RN.to(out_MN.dtype))


class NativeLinear:
    """The matrix of a linear layer, dense or quantized, and its float32 bias, which the products do not include.

    ``quantizes_rows``: ``gemm`` with a quantized matrix rounds the rows to 8 bits.
    """

    def __init__(self, layer: nn.Module, quantizes_rows: bool = False) -> None:
        self._quantizes_rows = quantizes_rows
        self._weight: torch.Tensor | quantization.QuantizedMatrix
        if isinstance(layer, QuantizedLinear):
            self._weight = layer.quantized
            self.matrix = self._weight.matrix()
        else:
            assert isinstance(layer, nn.Linear)
            self._weight = layer.weight.detach()
            self.matrix = calls.dense(self._weight)
        self.bias = None if layer.bias is None else _float(layer.bias)
        self.update: LowRankUpdate | None = None
        if isinstance(layer, (AdaptedLinear, AdaptedQuantizedLinear)):
            down, up = layer.image_lora_A.weight, layer.image_lora_B.weight
            self.update = LowRankUpdate(down, up, layer.image_lora_scaling)

    def gemv(self, rows_MK: torch.Tensor) -> torch.Tensor:
        """Float32 products [M, N] of rows [M, K], MAX_DECODE_POSITIONS at a time."""
        if not isinstance(self._weight, quantization.QuantizedMatrix):
            rows_MK = rows_MK.to(self._weight.dtype)
        out_MN = torch.empty(len(rows_MK), self.matrix.rows)
        for rows, out in zip(rows_MK.split(MAX_DECODE_POSITIONS), out_MN.split(MAX_DECODE_POSITIONS), strict=True):
            calls.gemv(rows, self.matrix, out)
        return out_MN

    def gemm(
        self,
        rows_MK: torch.Tensor,
        scratch: calls.ScratchBuffers,
        name: str,
        is_adapted_M: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Products [M, N] of many rows, in the scratch buffer ``name``: in their dtype, or float32 where quantized.

        ``is_adapted_M``: which rows get the image adapter's update; None: no row.
        """
        out_MN = self._multiply(rows_MK, scratch, name)
        if self.update is not None and is_adapted_M is not None:
            self.update.add(rows_MK, out_MN, is_adapted_M)
        return out_MN

    def _multiply(self, rows_MK: torch.Tensor, scratch: calls.ScratchBuffers, name: str) -> torch.Tensor:
        shape = (len(rows_MK), self.matrix.rows)
        if isinstance(self._weight, quantization.QuantizedMatrix):
            if self._quantizes_rows or calls.has_vnni():
                multiply = calls.gemm_int8 if self._quantizes_rows else calls.gemv
                return multiply(rows_MK, self.matrix, scratch.take(name, *shape))
            widened = scratch.take("widened", self.matrix.rows, self.matrix.columns, dtype=rows_MK.dtype)
            weight = quantization.dequantize(self._weight, rows_MK.dtype, widened)
        elif self._weight.dtype != rows_MK.dtype:
            weight = scratch.take("widened", *self._weight.shape, dtype=rows_MK.dtype).copy_(self._weight)
        else:
            weight = self._weight
        return torch.mm(rows_MK, weight.T, out=scratch.take(name, *shape, dtype=rows_MK.dtype))


def choose_compute_dtype(weights: torch.dtype) -> torch.dtype:
    """The dtype of products of many rows: bfloat16 where the weights are and the CPU gains by it, else float32."""
    return torch.bfloat16 if weights == torch.bfloat16 and cpu_is_faster_in_bfloat16() else torch.float32


def split_rows(rows_NC: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Views of as few equal parts of rows [N, C] as have at most MAX_MLP_ROWS."""
    return rows_NC.tensor_split(-(-len(rows_NC) // MAX_MLP_ROWS))


def _float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().contiguous()


@dataclass(frozen=True)
class _Attention:
    """Attention of one model's layers, in scratch buffers."""

    head_dim: int
    scale: float
    scratch: calls.ScratchBuffers
    window: int | None = None
    is_bidirectional: bool = False

    def run(
        self,
        products: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
        biases: tuple[torch.Tensor | None, ...],
        key_cache: torch.Tensor,
        value_cache: torch.Tensor,
        rows: Rows,
        rotary: tuple[torch.Tensor, ...] | None = None,
    ) -> torch.Tensor:
        """[N, heads * head_dim] in the cache's dtype, of a layer's q, k and v; without k and v the cache has them."""
        q, k, v = products
        shape = (len(q), q.shape[1] // self.head_dim, self.head_dim)
        queries, out = (self.scratch.take(name, *shape, dtype=key_cache.dtype) for name in ("queries", "attended"))
        places = (key_cache, value_cache, rows.slots, self.head_dim)
        calls.apply_rope_and_write_kv(q, k, v, *places, biases, rotary, queries)
        caches, tables = (key_cache, value_cache), (rows.starts, rows.lengths, rows.tables)
        calls.attend(queries, *caches, *tables, self.scale, self.window, self.is_bidirectional, out)
        return out.flatten(1)


@dataclass(frozen=True)
class DecoderLayer:
    """The weights of one decoder layer, norms in float32, and its part of the KV cache."""

    input_norm: torch.Tensor
    post_norm: torch.Tensor
    q: NativeLinear
    k: NativeLinear
    v: NativeLinear
    o: NativeLinear
    gate: NativeLinear
    up: NativeLinear
    down: NativeLinear
    keys: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, layer: Any, keys: torch.Tensor, values: torch.Tensor, quantizes_rows: bool) -> DecoderLayer:
        """The weights of one of Transformers' layers, without a copy."""
        attention, mlp = layer.self_attn, layer.mlp
        return cls(
            input_norm=_float(layer.input_layernorm.weight),
            post_norm=_float(layer.post_attention_layernorm.weight),
            q=NativeLinear(attention.q_proj, quantizes_rows),
            k=NativeLinear(attention.k_proj, quantizes_rows),
            v=NativeLinear(attention.v_proj, quantizes_rows),
            o=NativeLinear(attention.o_proj, quantizes_rows),
            gate=NativeLinear(mlp.gate_proj, quantizes_rows),
            up=NativeLinear(mlp.up_proj, quantizes_rows),
            down=NativeLinear(mlp.down_proj, quantizes_rows),
            keys=keys,
            values=values,
        )

    @property
    def biases(self) -> tuple[torch.Tensor | None, ...]:
        """The float32 biases of q, k and v, or None for each."""
        return (self.q.bias, self.k.bias, self.v.bias)

    def structure(self) -> abi.Layer:
        """The layer as the library's structure; it points to the tensors of this object, which has to outlive it."""
        linears = (self.q, self.k, self.v, self.o, self.gate, self.up, self.down)
        return abi.Layer(
            *map(calls.pointer, (self.input_norm, self.post_norm)),
            *(linear.matrix for linear in linears),
            *map(calls.pointer, (*self.biases, self.keys, self.values)),
            *(abi.LowRank() if linear.update is None else linear.update.structure() for linear in linears),
        )


class DecoderLayers:
    """All layers of a Llama, Mistral or Qwen2 decoder, over a native KV cache.

    Args:
        decoder: Transformers'; its weights are used without a copy.
        window: the sliding window of all layers, in positions; None for none.
        quantizes_rows: whether a prefill's products with quantized matrices are computed in integers of 8 bits.
    """

    def __init__(
        self,
        decoder: Any,
        config: Any,
        cache: NativeKVCache,
        window: int | None,
        scratch: calls.ScratchBuffers,
        quantizes_rows: bool = False,
    ) -> None:
        first = decoder.layers[0].self_attn
        self.scratch, self.eps = scratch, config.rms_norm_eps
        self._last_norm = _float(decoder.norm.weight)
        self._attention = _Attention(first.head_dim, first.scaling, scratch, window)
        self.dtype = cache.keys[0].dtype
        self.compute_dtype = choose_compute_dtype(self.dtype)
        self.layers = [
            DecoderLayer.of(layer, keys, values, quantizes_rows)
            for layer, keys, values in zip(decoder.layers, cache.keys, cache.values, strict=True)
        ]
        # In vectors of fewer lanes, more dense products are faster through torch.
        has_quick_gemv = self.layers[0].q.matrix.bits <= 8 or torch.backends.cpu.get_cpu_capability() == "AVX512"
        self._max_decoding_requests = MAX_DECODING_REQUESTS if has_quick_gemv else MAX_DECODE_POSITIONS
        self._structures = (abi.Layer * len(self.layers))(*(layer.structure() for layer in self.layers))
        self._decoder = abi.Decoder(
            len(self.layers),
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            first.head_dim,
            cache.block_tokens,
            1,
            window or 0,
            self.eps,
            first.scaling,
            ctypes.addressof(self._structures),
        )

    def run(
        self,
        hidden_NC: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        positions_N: torch.Tensor,
        rows: Rows,
        sampled: list[int],
        is_adapted_N: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Float32 hidden states [len(sampled), C] after the last layer, before the last norm, from embeddings [N, C].

        ``cos`` and ``sin``: float32 [N, head_dim]. ``positions_N``: the index of each position in its request.
        ``sampled``: the requests from whose last positions a token is sampled; only these are returned.
        ``is_adapted_N``: at which positions an image adapter is active; None: nowhere.
        """
        hidden_NC = hidden_NC.float().contiguous().clone()
        last = (rows.starts[1:][sampled] - 1).long()
        is_decoding = len(hidden_NC) == len(rows.lengths) <= self._max_decoding_requests
        if len(hidden_NC) > MAX_DECODE_POSITIONS and not is_decoding:
            return self._prefill(hidden_NC, (cos, sin), rows, sampled, last, is_adapted_N)
        self._decode(hidden_NC, cos, sin, positions_N, rows, is_adapted_N)
        return hidden_NC[last]

    def normalize(self, hidden_NC: torch.Tensor) -> torch.Tensor:
        """The head's input [N, C], float32."""
        return calls.normalize(hidden_NC, self._last_norm, None, self.eps, torch.empty_like(hidden_NC))

    def _decode(
        self,
        hidden_NC: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        positions_N: torch.Tensor,
        rows: Rows,
        is_adapted_N: torch.Tensor | None,
    ) -> None:
        """Runs all layers over a few positions at a time, in place, each in one call."""
        counts = (rows.starts[1:] - rows.starts[:-1]).long()
        tables = rows.tables.repeat_interleave(counts, 0)
        lengths = (positions_N + 1).to(torch.int32)
        for first in range(0, len(hidden_NC), MAX_DECODE_POSITIONS):
            part = slice(first, first + MAX_DECODE_POSITIONS)
            tensors: list[torch.Tensor | None] = [
                each[part] for each in (lengths, tables, rows.slots, cos, sin, hidden_NC)
            ]
            tensors.append(None if is_adapted_N is None else is_adapted_N[part])
            batch = abi.Batch(tables[part].shape[0], tables.shape[1], *map(calls.pointer, tensors))
            calls.decode_layers(self.dtype, self._decoder, batch)

    def _prefill(
        self,
        hidden_NC: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        rows: Rows,
        sampled: list[int],
        last: torch.Tensor,
        is_adapted_N: torch.Tensor | None,
    ) -> torch.Tensor:
        """Runs all layers over many positions; returns the hidden states of ``last``. Overwrites ``hidden_NC``."""
        scratch = self.scratch
        normed = scratch.take("normed", *hidden_NC.shape, dtype=self.compute_dtype)
        for layer in self.layers[:-1]:
            calls.normalize(hidden_NC, layer.input_norm, None, self.eps, normed)
            q, k, v = (getattr(layer, name).gemm(normed, scratch, name, is_adapted_N) for name in ("q", "k", "v"))
            attended = self._attention.run((q, k, v), layer.biases, layer.keys, layer.values, rows, rotary)
            self._feed_forward(layer, hidden_NC, attended, is_adapted_N)
        # In the last layer all positions need keys and values; only those that a token is sampled from need the rest.
        layer = self.layers[-1]
        calls.normalize(hidden_NC, layer.input_norm, None, self.eps, normed)
        k, v = (getattr(layer, name).gemm(normed, scratch, name, is_adapted_N) for name in ("k", "v"))
        places = (layer.keys, layer.values, rows.slots, self._attention.head_dim)
        calls.apply_rope_and_write_kv(None, k, v, *places, layer.biases, rotary)
        hidden_LC = hidden_NC[last]
        if sampled:
            is_adapted_L = None if is_adapted_N is None else is_adapted_N[last]
            q = layer.q.gemm(normed[last], scratch, "q", is_adapted_L)
            ends = torch.arange(len(sampled) + 1, dtype=torch.int32)
            own = Rows(ends, rows.lengths[sampled], rows.tables[sampled], rows.slots[last])
            rotary_L = tuple(part[last] for part in rotary)
            caches = (layer.keys, layer.values)
            attended = self._attention.run((q, None, None), layer.biases, *caches, own, rotary_L)
            self._feed_forward(layer, hidden_LC, attended, is_adapted_L)
        return hidden_LC

    def _feed_forward(
        self, layer: DecoderLayer, hidden_NC: torch.Tensor, attended: torch.Tensor, is_adapted_N: torch.Tensor | None
    ) -> None:
        """Runs what follows a layer's attention, in place: its output projection and its MLP."""
        scratch, parts = self.scratch, split_rows(hidden_NC)
        calls.add(hidden_NC, layer.o.gemm(attended.to(self.compute_dtype), scratch, "q", is_adapted_N))
        adapted = [None] * len(parts) if is_adapted_N is None else split_rows(is_adapted_N)
        for rows_MC, is_adapted_M in zip(parts, adapted, strict=True):
            normed = scratch.take("normed", *rows_MC.shape, dtype=self.compute_dtype)
            calls.normalize(rows_MC, layer.post_norm, None, self.eps, normed)
            gated = layer.gate.gemm(normed, scratch, "inner", is_adapted_M)
            calls.gate(gated, layer.up.gemm(normed, scratch, "up", is_adapted_M))
            calls.add(rows_MC, layer.down.gemm(gated, scratch, "q", is_adapted_M))


@dataclass(frozen=True)
class _LayerNorm:
    """The weights of a layer norm, float32."""

    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, norm: Any) -> _LayerNorm:
        return cls(_float(norm.weight), _float(norm.bias))


@dataclass(frozen=True)
class TowerBlock:
    """The weights of one block of a vision tower. ``biases``: float32, of q, k and v, with padded heads."""

    first: _LayerNorm
    second: _LayerNorm
    q: NativeLinear
    k: NativeLinear
    v: NativeLinear
    o: NativeLinear
    up: NativeLinear
    down: NativeLinear
    biases: tuple[torch.Tensor | None, ...]


class TowerLayers:
    """The blocks of a CLIP or SigLIP tower up to the one whose output is selected.

    The kernels need heads of whole vectors. Other heads (SigLIP's, of 72 numbers) are padded with zeros, which change
    neither the dot products nor the part of the result that is used.
    """

    def __init__(self, tower: Any, scratch: calls.ScratchBuffers) -> None:
        self.scratch = scratch
        body, config = tower.vision_tower.vision_model, tower.config
        self.tower = tower
        own_dim = config.hidden_size // config.num_attention_heads
        self.own_dim, self.head_dim = own_dim, -(-own_dim // calls.LANES) * calls.LANES
        self.activation, self.eps = config.hidden_act, config.layer_norm_eps
        self.dtype = tower.dtype
        self.compute_dtype = choose_compute_dtype(self.dtype)
        self.num_heads = config.num_attention_heads
        self._attention = _Attention(self.head_dim, own_dim**-0.5, scratch, is_bidirectional=True)
        self._cache: tuple[tuple[int, int], torch.Tensor, torch.Tensor] | None = None
        self.blocks = [self._make_block(block) for block in body.encoder.layers[: tower.num_blocks_run]]

    def _make_block(self, block: Any) -> TowerBlock:
        attention = block.self_attn
        q, k, v = (NativeLinear(module) for module in (attention.q_proj, attention.k_proj, attention.v_proj))
        return TowerBlock(
            first=_LayerNorm.of(block.layer_norm1),
            second=_LayerNorm.of(block.layer_norm2),
            q=q,
            k=k,
            v=v,
            o=NativeLinear(attention.out_proj),
            up=NativeLinear(block.mlp.fc1),
            down=NativeLinear(block.mlp.fc2),
            biases=tuple(None if each.bias is None else self._pad_heads(each.bias) for each in (q, k, v)),
        )

    def run(self, pixels_TCHW: torch.Tensor) -> torch.Tensor:
        """The tower's output for these tiles, [T, P, D] in its dtype."""
        hidden_TPD = self.tower.embed(pixels_TCHW)
        num_tiles, num_patches, _ = hidden_TPD.shape
        hidden = hidden_TPD.detach().float().flatten(0, 1).contiguous().clone()
        keys, values, rows = self._place(num_tiles, num_patches)
        scratch = self.scratch
        normed = scratch.take("normed", *hidden.shape, dtype=self.compute_dtype)
        for block in self.blocks:
            calls.normalize(hidden, block.first.weight, block.first.bias, self.eps, normed)
            q, k, v = (
                self._pad_heads(getattr(block, name).gemm(normed, scratch, name), f"{name} padded") for name in "qkv"
            )
            attended = self._attention.run((q, k, v), block.biases, keys, values, rows)
            if self.own_dim < self.head_dim:
                attended = attended.unflatten(1, (-1, self.head_dim))[:, :, : self.own_dim].flatten(1)
            calls.add(hidden, block.o.gemm(attended.to(self.compute_dtype), scratch, "q"), block.o.bias)
            self._feed_forward(block, hidden)
        out = hidden.view(num_tiles, num_patches, -1)
        return self.tower.drop_cls(out).to(pixels_TCHW.dtype)

    def _feed_forward(self, block: TowerBlock, hidden_ND: torch.Tensor) -> None:
        """Runs a block's MLP, in place."""
        for rows_MD in split_rows(hidden_ND):
            normed = self.scratch.take("normed", *rows_MD.shape, dtype=self.compute_dtype)
            calls.normalize(rows_MD, block.second.weight, block.second.bias, self.eps, normed)
            inner = block.up.gemm(normed, self.scratch, "inner")
            calls.activate(inner, block.up.bias, self.activation)
            calls.add(rows_MD, block.down.gemm(inner, self.scratch, "q"), block.down.bias)

    def _pad_heads(self, rows: torch.Tensor, name: str | None = None) -> torch.Tensor:
        """Rows [..., heads * own_dim] with each head padded to ``head_dim``, in the scratch buffer of that name."""
        if self.own_dim == self.head_dim:
            return rows
        heads = rows.unflatten(-1, (-1, self.own_dim))
        shape = (*heads.shape[:-1], self.head_dim)
        padded = rows.new_empty(shape) if name is None else self.scratch.take(name, *shape, dtype=rows.dtype)
        padded[..., : self.own_dim] = heads
        padded[..., self.own_dim :] = 0
        return padded.flatten(-2)

    def _place(self, num_tiles: int, num_patches: int) -> tuple[torch.Tensor, torch.Tensor, Rows]:
        """A cache for the tiles' keys and values with one block for each tile, and the rows that fill it."""
        size = -(-num_patches // calls.LANES) * calls.LANES
        # Reused for the same shape only: the slots past a tile's patches have then never been written, and are not NaN.
        if self._cache is None or self._cache[0] != (num_tiles, num_patches):
            shape = (num_tiles, self.num_heads, size, self.head_dim, self.dtype)
            self._cache = (num_tiles, num_patches), calls.make_cache(*shape), calls.make_cache(*shape)
        tiles = torch.arange(num_tiles)
        slots = (tiles[:, None] * size + torch.arange(num_patches)).flatten()
        starts = (torch.arange(num_tiles + 1) * num_patches).to(torch.int32)
        lengths = torch.full((num_tiles,), num_patches, dtype=torch.int32)
        return *self._cache[1:], Rows(starts, lengths, tiles[:, None].to(torch.int32).contiguous(), slots)
