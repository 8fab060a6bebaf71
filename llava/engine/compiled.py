"""A model's layers through the compiled arithmetic: a decoder's few or many positions, a tower's tiles.

Hidden states stay in float32 from the first layer to the last. Few positions run through all layers as one call; for
many, torch multiplies and the library does what lies between. Where a CPU has no instructions for bfloat16 its matrices
are widened to float32 one at a time, which is several times faster than torch's own way.

N positions, C width, M rows, T tiles, P places of a tile.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import nn

from llava.engine.paged import NativeKVCache, Rows
from llava.model.hooks import has_hook
from llava.model.packed import PackedLinear
from llava.model.placement import cpu_has_bfloat16
from llava.model.vision import CLIPVisionTower, SigLipVisionTower, VisionTower
from llava.native import calls, library, packed

# More positions than this are computed faster by the matrix products of torch.
MAX_POSITIONS = 32
_MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("input_norm", "post_norm")),
        *((name, calls.Matrix) for name in _MATRICES),
        *((name, ctypes.c_void_p) for name in ("q_bias", "k_bias", "v_bias", "keys", "values")),
    ]


class _Decoder(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_layers", "width", "inner", "num_heads", "num_kv_heads")),
        *((name, ctypes.c_int32) for name in ("head_dim", "block_tokens", "num_threads", "window")),
        *((name, ctypes.c_float) for name in ("eps", "scale")),
        ("layers", ctypes.c_void_p),
    ]


class _Positions(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num", "table_stride")),
        *((name, ctypes.c_void_p) for name in ("lengths", "tables", "slots", "cos", "sin", "hidden")),
    ]


class Product:
    """Rows times the matrix of a linear layer, whatever form it has; its bias is left to the caller."""

    def __init__(self, layer: nn.Module, is_rounded: bool = False) -> None:
        self.is_rounded = is_rounded
        self.weight: torch.Tensor | packed.Packed
        if isinstance(layer, PackedLinear):
            self.weight = layer.packed
            self.matrix = self.weight.matrix()
        else:
            assert isinstance(layer, nn.Linear)
            self.weight = layer.weight.detach()
            self.matrix = calls.dense(self.weight)

    def few(self, rows_MK: torch.Tensor) -> torch.Tensor:
        """Float32 [M, N] of a few rows."""
        if not isinstance(self.weight, packed.Packed):
            rows_MK = rows_MK.to(self.weight.dtype)
        return calls.multiply_few(rows_MK, self.matrix)

    def many(self, rows_MK: torch.Tensor, scratch: calls.Scratch, name: str) -> torch.Tensor:
        """[M, N] of many rows, in ``scratch`` under ``name``: in their dtype, or in float32 from packed matrices."""
        shape = (len(rows_MK), self.matrix.rows)
        if isinstance(self.weight, packed.Packed):
            if self.is_rounded or calls.has_quads():
                multiply = calls.multiply_bytes if self.is_rounded else calls.multiply_few
                return multiply(rows_MK, self.matrix, scratch.take(name, *shape))
            weight = packed.unpack(self.weight, rows_MK.dtype)
        elif self.weight.dtype != rows_MK.dtype:
            weight = scratch.take("widened", *self.weight.shape, dtype=rows_MK.dtype).copy_(self.weight)
        else:
            weight = self.weight
        return torch.mm(rows_MK, weight.T, out=scratch.take(name, *shape, dtype=rows_MK.dtype))


def choose_working_dtype(weights: torch.dtype) -> torch.dtype:
    """What many rows are multiplied in: bfloat16 where the weights and the CPU have it, else float32."""
    return torch.bfloat16 if weights == torch.bfloat16 and cpu_has_bfloat16() else torch.float32


def _float(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.detach().float().contiguous()


class DecoderLayers:
    """All layers of a Llama, Mistral or Qwen2 decoder, over a cache of the library's kind.

    ``decoder``: Transformers', whose weights are used where they are. ``is_rounded``: many positions'
    products with packed matrices are computed in integers of 8 bits.
    """

    def __init__(
        self,
        decoder: Any,
        config: Any,
        cache: NativeKVCache,
        window: int | None,
        scratch: calls.Scratch,
        is_rounded: bool = False,
    ) -> None:
        layers, first = decoder.layers, decoder.layers[0].self_attn
        self.scratch = scratch
        self.cache, self.window, self.eps = cache, window, config.rms_norm_eps
        self._last_norm = decoder.norm.weight.detach().float().contiguous()
        self.head_dim, self.scale = first.head_dim, first.scaling
        self.dtype = cache.keys[0].dtype
        self.working_dtype = choose_working_dtype(self.dtype)
        self.layers: list[dict[str, Any]] = []
        structures = (_Layer * len(layers))()
        for structure, layer, keys, values in zip(structures, layers, cache.keys, cache.values, strict=True):
            attention, mlp = layer.self_attn, layer.mlp
            parts: dict[str, Any] = {
                "input_norm": _float(layer.input_layernorm.weight),
                "post_norm": _float(layer.post_attention_layernorm.weight),
                "keys": keys,
                "values": values,
            }
            for name in _MATRICES:
                module = getattr(attention if name in ("q", "k", "v", "o") else mlp, f"{name}_proj")
                parts[name] = Product(module, is_rounded)
                if name in ("q", "k", "v"):
                    parts[f"{name}_bias"] = _float(module.bias)
            for name, part in parts.items():
                setattr(structure, name, part.matrix if isinstance(part, Product) else calls.pointer(part))
            self.layers.append(parts)
        self._structures = structures
        self._decoder = _Decoder(
            len(layers),
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            self.head_dim,
            cache.block_tokens,
            1,
            window or 0,
            self.eps,
            self.scale,
            ctypes.addressof(structures),
        )

    def run(
        self,
        hidden_NC: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        positions_N: torch.Tensor,
        rows: Rows,
        giving: list[int],
    ) -> torch.Tensor:
        """Float32 [len(giving), C] behind the last layer, before the last norm, from embeddings [N, C].

        ``cos`` and ``sin`` float32 [N, head_dim]; ``positions_N``: the place of each in its request. ``giving``: the
        requests whose last positions are wanted.
        """
        hidden_NC = hidden_NC.float().contiguous().clone()
        last = (rows.starts[1:][giving] - 1).long()
        if len(hidden_NC) > MAX_POSITIONS:
            return self._run_many(hidden_NC, (cos, sin), rows, giving, last)
        self._run_few(hidden_NC, cos, sin, positions_N, rows)
        return hidden_NC[last]

    def normalize(self, hidden_NC: torch.Tensor) -> torch.Tensor:
        """What the head is given [N, C], float32."""
        return calls.normalize(hidden_NC, self._last_norm, None, self.eps, torch.empty_like(hidden_NC))

    def _run_few(
        self, hidden_NC: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions_N: torch.Tensor, rows: Rows
    ) -> None:
        native = library.load()
        assert native is not None
        counts = (rows.starts[1:] - rows.starts[:-1]).long()
        tables = rows.tables.repeat_interleave(counts, 0)
        lengths = (positions_N + 1).to(torch.int32)
        self._decoder.num_threads = torch.get_num_threads()
        tensors = (lengths, tables, rows.slots, cos, sin, hidden_NC)
        positions = _Positions(len(hidden_NC), tables.shape[1], *(calls.pointer(tensor) for tensor in tensors))
        native.llava_decode(calls.KINDS[self.dtype], ctypes.byref(self._decoder), ctypes.byref(positions))

    def _run_many(
        self,
        hidden_NC: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        rows: Rows,
        giving: list[int],
        last: torch.Tensor,
    ) -> torch.Tensor:
        scratch = self.scratch
        normed = scratch.take("normed", *hidden_NC.shape, dtype=self.working_dtype)
        for layer in self.layers[:-1]:
            calls.normalize(hidden_NC, layer["input_norm"], None, self.eps, normed)
            q, k, v = (layer[name].many(normed, scratch, name) for name in ("q", "k", "v"))
            seen = _attend(self, layer, (q, k, v), rows, rotary, window=self.window)
            self._feed(layer, hidden_NC, seen)
        # Of the last layer, keys and values of all positions are needed, and the rest of those that give a token.
        layer = self.layers[-1]
        calls.normalize(hidden_NC, layer["input_norm"], None, self.eps, normed)
        k, v = (layer[name].many(normed, scratch, name) for name in ("k", "v"))
        places = (layer["keys"], layer["values"], rows.slots, self.head_dim)
        calls.spread(None, k, v, *places, (None, layer["k_bias"], layer["v_bias"]), rotary)
        hidden_LC = hidden_NC[last]
        if giving:
            q = layer["q"].many(normed[last], scratch, "q")
            ends = torch.arange(len(giving) + 1, dtype=torch.int32)
            own = Rows(ends, rows.lengths[giving], rows.tables[giving], rows.slots[last])
            turned = tuple(part[last] for part in rotary)
            self._feed(layer, hidden_LC, _attend(self, layer, (q, None, None), own, turned, window=self.window))
        return hidden_LC

    def _feed(self, layer: dict[str, Any], hidden_NC: torch.Tensor, seen: torch.Tensor) -> None:
        """What of a layer stands behind its attention, in place."""
        scratch = self.scratch
        calls.add(hidden_NC, layer["o"].many(seen.to(self.working_dtype), scratch, "q"))
        normed = scratch.take("normed", *hidden_NC.shape, dtype=self.working_dtype)
        calls.normalize(hidden_NC, layer["post_norm"], None, self.eps, normed)
        gated = layer["gate"].many(normed, scratch, "inner")
        calls.gate(gated, layer["up"].many(normed, scratch, "up"))
        calls.add(hidden_NC, layer["down"].many(gated, scratch, "q"))


class TowerLayers:
    """The blocks of a CLIP or SigLIP tower up to the one that is read.

    The library takes heads of whole vectors; shorter ones (SigLIP's of 72) are filled up with zeros, which change
    neither a product of two of them nor what is read of the result.
    """

    def __init__(self, tower: Any, scratch: calls.Scratch) -> None:
        self.scratch = scratch
        body, config = tower.vision_tower.vision_model, tower.config
        self.tower = tower
        own_dim = config.hidden_size // config.num_attention_heads
        self.own_dim, self.head_dim = own_dim, -(-own_dim // calls.LANES) * calls.LANES
        self.activation, self.eps = config.hidden_act, config.layer_norm_eps
        self.dtype = tower.dtype
        self.working_dtype = choose_working_dtype(self.dtype)
        self.num_heads, self.scale = config.num_attention_heads, own_dim**-0.5
        self._kept: tuple[tuple[int, int], torch.Tensor, torch.Tensor] | None = None
        self.blocks = []
        for block in body.encoder.layers[: tower.num_blocks_run]:
            parts: dict[str, Any] = {}
            for name, norm in (("first", block.layer_norm1), ("second", block.layer_norm2)):
                parts[name] = (_float(norm.weight), _float(norm.bias))
            attention = block.self_attn
            modules = {"q": attention.q_proj, "k": attention.k_proj, "v": attention.v_proj, "o": attention.out_proj}
            for name, module in {**modules, "up": block.mlp.fc1, "down": block.mlp.fc2}.items():
                parts[name] = Product(module)
                bias = _float(module.bias)
                parts[f"{name}_bias"] = self._fill_heads(bias) if bias is not None and name in ("q", "k", "v") else bias
            self.blocks.append(parts)

    def run(self, pixels_TCHW: torch.Tensor) -> torch.Tensor:
        """What the tower gives for these tiles, [T, P, D] in its dtype."""
        hidden_TPD = self.tower.embed(pixels_TCHW)
        num_tiles, num_places, _ = hidden_TPD.shape
        hidden = hidden_TPD.detach().float().flatten(0, 1).contiguous().clone()
        keys, values, rows = self._place(num_tiles, num_places)
        working, scratch = self.working_dtype, self.scratch
        normed = scratch.take("normed", *hidden.shape, dtype=working)
        for block in self.blocks:
            weight, bias = block["first"]
            calls.normalize(hidden, weight, bias, self.eps, normed)
            q, k, v = (self._fill_heads(block[name].many(normed, scratch, name), f"{name} filled") for name in "qkv")
            seen = _attend(self, {**block, "keys": keys, "values": values}, (q, k, v), rows, None, sees_all=True)
            if self.own_dim < self.head_dim:
                seen = seen.unflatten(1, (-1, self.head_dim))[:, :, : self.own_dim].flatten(1)
            calls.add(hidden, block["o"].many(seen.to(working), scratch, "q"), block["o_bias"])
            weight, bias = block["second"]
            calls.normalize(hidden, weight, bias, self.eps, normed)
            inner = block["up"].many(normed, scratch, "inner")
            calls.activate(inner, block["up_bias"], self.activation)
            calls.add(hidden, block["down"].many(inner, scratch, "q"), block["down_bias"])
        out = hidden.view(num_tiles, num_places, -1)
        return self.tower.select(out).to(pixels_TCHW.dtype)

    def _fill_heads(self, rows: torch.Tensor, name: str | None = None) -> torch.Tensor:
        """Rows [..., heads * own_dim] with each head filled up to ``head_dim``, in scratch memory of that name."""
        if self.own_dim == self.head_dim:
            return rows
        heads = rows.unflatten(-1, (-1, self.own_dim))
        shape = (*heads.shape[:-1], self.head_dim)
        filled = rows.new_empty(shape) if name is None else self.scratch.take(name, *shape, dtype=rows.dtype)
        filled[..., : self.own_dim] = heads
        filled[..., self.own_dim :] = 0
        return filled.flatten(-2)

    def _place(self, num_tiles: int, num_places: int) -> tuple[torch.Tensor, torch.Tensor, Rows]:
        """A cache for the tiles' keys and values, a block for each tile, and where they go."""
        size = -(-num_places // calls.LANES) * calls.LANES
        # The same cache only for the same tiles: what lies behind a tile's places is never written, and so no NaN.
        if self._kept is None or self._kept[0] != (num_tiles, num_places):
            shape = (num_tiles, self.num_heads, size, self.head_dim, self.dtype)
            self._kept = (num_tiles, num_places), calls.make_cache(*shape), calls.make_cache(*shape)
        tiles = torch.arange(num_tiles)
        slots = (tiles[:, None] * size + torch.arange(num_places)).flatten()
        starts = (torch.arange(num_tiles + 1) * num_places).to(torch.int32)
        lengths = torch.full((num_tiles,), num_places, dtype=torch.int32)
        return *self._kept[1:], Rows(starts, lengths, tiles[:, None].to(torch.int32).contiguous(), slots)


def _attend(
    layers: DecoderLayers | TowerLayers,
    layer: dict[str, Any],
    products: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    rows: Rows,
    rotary: tuple[torch.Tensor, ...] | None,
    **sight: Any,
) -> torch.Tensor:
    """What a layer's positions see [N, heads * head_dim], in the cache's dtype, from its products q, k and v.

    Without k and v the cache has them already.
    """
    keys, values = layer["keys"], layer["values"]
    shape = (len(products[0]), products[0].shape[1] // layers.head_dim, layers.head_dim)
    queries, seen = (layers.scratch.take(name, *shape, dtype=keys.dtype) for name in ("queries", "seen"))
    biases = tuple(layer[f"{name}_bias"] for name in ("q", "k", "v"))
    q, k, v = products
    calls.spread(q, k, v, keys, values, rows.slots, layers.head_dim, biases, rotary, queries)
    calls.attend(queries, keys, values, rows.starts, rows.lengths, rows.tables, layers.scale, out=seen, **sight)
    return seen.flatten(1)


def find_layer_obstacle(decoder: Any, dtype: torch.dtype) -> str | None:
    """Why this decoder's layers cannot run through the library over a cache of ``dtype``; None if they can."""
    kinds = set()
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        modules = [getattr(attention, f"{name}_proj") for name in ("q", "k", "v", "o")]
        modules += [getattr(mlp, f"{name}_proj") for name in ("gate", "up", "down")]
        kinds |= {type(module) for module in modules}
        if not kinds <= {nn.Linear, PackedLinear}:
            return "a matrix is quantized in another way or has an adapter"
        if len(kinds) > 1:
            return "only some of the matrices are packed"
        if modules[3].bias is not None or any(module.bias is not None for module in modules[4:]):
            return "a matrix behind attention has a bias"
        if {module.weight.dtype for module in modules if isinstance(module, nn.Linear)} - {dtype}:
            return f"not all matrices are in {dtype}"
        if any(tensor.device.type != "cpu" for module in modules for tensor in module.state_dict().values()):
            return "a matrix is not on the CPU"
        if not _is_silu(mlp.act_fn):
            return f"the activation is {type(mlp.act_fn).__name__}"
        if any(is_replaced(module) for module in (mlp, layer.input_layernorm, layer.post_attention_layernorm)):
            return "a module is not Transformers' own"
        if has_hook(list(layer.modules())):
            return "a module has a hook"
    if is_replaced(decoder.norm) or has_hook([decoder.norm]):
        return "the last norm is not Transformers' own, or has a hook"
    return None


def find_tower_obstacle(tower: Any) -> str | None:
    """Why this tower cannot run through the library; None if it can."""
    if type(tower) not in (CLIPVisionTower, SigLipVisionTower) or tower.forward.__module__ != VisionTower.__module__:
        return "the tower is of another kind"
    if tower.is_watched() or has_hook([tower]):
        return "the tower has a hook, or a part of it was replaced"
    config = tower.config
    blocks = tower.vision_tower.vision_model.encoder.layers[: tower.num_blocks_run]
    if tower.device.type != "cpu" or tower.dtype not in calls.KINDS:
        return f"the tower is on {tower.device} in {tower.dtype}"
    if config.hidden_act not in calls.ACTIVATIONS:
        return f"the tower's activation is {config.hidden_act}"
    if config.hidden_size // config.num_attention_heads > calls.MAX_DIM:
        return f"the tower's heads of {config.hidden_size // config.num_attention_heads} are not foreseen"
    for block in blocks:
        owners = [module for module in block.modules() if list(module.parameters(recurse=False))]
        if any(type(module) not in (nn.Linear, nn.LayerNorm) for module in owners):
            return "a block of the tower has other layers"
        if any(is_replaced(module) for module in (block, block.self_attn, block.mlp)):
            return "a block of the tower is not Transformers' own"
        if has_hook([block, *block.modules()]):
            return "a block of the tower has a hook"
    return None


def is_replaced(module: nn.Module) -> bool:
    """Whether a module computes something else than Transformers' own of these models."""
    return not module.forward.__module__.startswith("transformers.models.")


def _is_silu(activation: Any) -> bool:
    return isinstance(activation, nn.SiLU) or "SiLU" in type(activation).__name__
