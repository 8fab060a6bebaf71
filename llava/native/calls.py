"""Calls into the library with tensors. All are for a CPU; ``library.load`` must have given one."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import torch

from llava.native import library

LANES = 16
MAX_DIM = 256
MAX_GROUP = 48
KINDS = {torch.float32: 0, torch.bfloat16: 1}


class Matrix(ctypes.Structure):
    """A matrix in any form that matrix.h knows; whoever makes one keeps its memory."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("bits", "rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("data", "scales")),
    ]


class _Attention(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_rows", "num_heads", "num_kv_heads", "head_dim", "block_tokens")),
        *((name, ctypes.c_int32) for name in ("table_stride", "window", "num_threads", "sees_all")),
        ("scale", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("starts", "lengths", "tables")),
    ]


class _Heads(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num", "num_heads", "num_kv_heads", "head_dim", "block_tokens")),
        ("num_threads", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("q_bias", "k_bias", "v_bias", "cos", "sin", "slots")),
    ]


def make_memory(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """An uninitialized tensor, in large pages where the system gives them (NumPy asks for them, torch does not)."""
    return _align(np.empty(math.prod(shape) * dtype.itemsize + 63, dtype=np.uint8)).view(dtype).view(shape)


def _align(whole: Any) -> torch.Tensor:
    """Bytes that begin where a vector does, of an array with 63 more."""
    skipped = -whole.ctypes.data % 64
    return torch.from_numpy(whole[skipped : len(whole) - 63 + skipped])


class Scratch:
    """Tensors by name in memory that is kept: fresh pages cost more than what is computed in them."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialized tensor, which the next call with this name overwrites."""
        size = math.prod(shape) * dtype.itemsize
        kept = self._kept.get(name)
        if kept is None or len(kept) < size:
            self._kept.pop(name, None)
            kept = self._kept[name] = make_memory(size, dtype=torch.uint8)
        return kept[:size].view(dtype).view(shape)


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """Where a contiguous tensor's numbers lie; a null pointer for None."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def _call(name: str, *arguments: Any) -> None:
    native = library.load()
    assert native is not None
    getattr(native, name)(*arguments, torch.get_num_threads())


def find_obstacle(dtype: torch.dtype, device: torch.device, head_dim: int, group: int, block_tokens: int) -> str | None:
    """Why attention cannot be computed by the library; None if it can."""
    if device.type != "cpu":
        return f"the model is on {device}"
    if dtype not in KINDS:
        return f"the dtype is {dtype}"
    if head_dim % LANES or head_dim > MAX_DIM or group > MAX_GROUP or block_tokens % LANES:
        return f"heads of {head_dim} in groups of {group} with blocks of {block_tokens} are not foreseen"
    return None if library.load() is not None else library.status()


def make_cache(
    num_blocks: int, num_kv_heads: int, block_tokens: int, head_dim: int, dtype: torch.dtype
) -> torch.Tensor:
    """Memory for keys or values, all zero without being touched: [blocks, kv heads, block_tokens * head_dim]."""
    shape = (num_blocks, num_kv_heads, block_tokens * head_dim)
    return _align(np.zeros(math.prod(shape) * dtype.itemsize + 63, dtype=np.uint8)).view(dtype).view(shape)


def store(
    key_cache: torch.Tensor, value_cache: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """Writes keys and values [N, kv heads, head_dim] into int64 slots [N] of caches from ``make_cache``."""
    num, num_kv_heads, head_dim = keys.shape
    _call(
        "llava_store",
        KINDS[keys.dtype],
        num,
        num_kv_heads,
        head_dim,
        key_cache.shape[2] // head_dim,
        pointer(keys.contiguous()),
        pointer(values.contiguous()),
        pointer(slots),
        pointer(key_cache),
        pointer(value_cache),
    )


def spread(
    queries: torch.Tensor | None,
    keys: torch.Tensor | None,
    values: torch.Tensor | None,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slots: torch.Tensor,
    head_dim: int,
    biases: tuple[torch.Tensor | None, ...] = (None, None, None),
    rotary: tuple[torch.Tensor, ...] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Queries [N, heads, head_dim] in the caches' dtype, ready for ``attend``; keys and values go into their slots.

    ``queries``, ``keys``, ``values`` [N, heads * head_dim] as the products gave them, None where there are none of
    queries, or of keys and values; ``biases`` float32 of the three; ``rotary`` float32 cos and sin [N, head_dim]. Slots
    int64 [N].
    """
    native = library.load()
    assert native is not None
    given = keys if queries is None else queries
    assert given is not None
    num, num_heads = len(slots), 0 if queries is None else queries.shape[1] // head_dim
    heads = _Heads(
        num,
        num_heads,
        0 if keys is None else key_cache.shape[1],
        head_dim,
        key_cache.shape[2] // head_dim,
        torch.get_num_threads(),
        *(pointer(bias) for bias in biases),
        *(pointer(part) for part in rotary or (None, None)),
        pointer(slots),
    )
    if out is None:
        out = torch.empty(num, num_heads, head_dim, dtype=key_cache.dtype)
    native.llava_spread(
        KINDS[given.dtype],
        KINDS[key_cache.dtype],
        ctypes.byref(heads),
        *(pointer(tensor) for tensor in (queries, keys, values, out, key_cache, value_cache)),
    )
    return out


def attend(
    queries: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    tables: torch.Tensor,
    scale: float,
    window: int | None = None,
    sees_all: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention [N, heads, head_dim] of the last queries of every request over its own positions.

    ``starts`` int32 [R + 1]: where each request's queries begin. ``lengths`` int32 [R]: its positions so far.
    ``tables`` int32 [R, most]: its blocks. ``window``: how many positions up to its own a query sees. ``sees_all``: it
    sees those behind its own too.
    """
    native = library.load()
    assert native is not None
    _, num_heads, head_dim = queries.shape
    queries = queries.contiguous()
    if out is None:
        out = torch.empty_like(queries)
    arguments = _Attention(
        len(lengths),
        num_heads,
        key_cache.shape[1],
        head_dim,
        key_cache.shape[2] // head_dim,
        tables.shape[1],
        window or 0,
        torch.get_num_threads(),
        sees_all,
        scale,
        pointer(starts),
        pointer(lengths),
        pointer(tables),
    )
    native.llava_attend(
        KINDS[queries.dtype],
        ctypes.byref(arguments),
        *(pointer(tensor) for tensor in (queries, key_cache, value_cache, out)),
    )
    return out


def dense(weight: torch.Tensor) -> Matrix:
    """A float32 or bfloat16 matrix of torch's as the library takes it."""
    return Matrix(8 * weight.itemsize, *weight.shape, pointer(weight), None)


def has_quads() -> bool:
    """Whether this CPU multiplies packed matrices faster than dense ones, for however many rows."""
    native = library.load()
    return native is not None and bool(native.llava_has_quads())


def multiply_few(rows: torch.Tensor, matrix: Matrix, out: torch.Tensor | None = None) -> torch.Tensor:
    """Float32 [M, N] = rows [M, K] times ``matrix`` [N, K], for few rows; dense ones are of the rows' dtype."""
    rows = rows.contiguous()
    if out is None:
        out = torch.empty(len(rows), matrix.rows)
    _call("llava_linear", KINDS[rows.dtype], ctypes.byref(matrix), len(rows), pointer(rows), pointer(out))
    return out


def multiply_bytes(rows: torch.Tensor, matrix: Matrix, out: torch.Tensor | None = None) -> torch.Tensor:
    """Float32 [M, N] = rows [M, K] times a packed ``matrix``, for many rows, which are rounded to 8 bits each."""
    rows = rows.contiguous()
    if out is None:
        out = torch.empty(len(rows), matrix.rows)
    _call("llava_bytes", KINDS[rows.dtype], ctypes.byref(matrix), len(rows), pointer(rows), pointer(out))
    return out


def normalize(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, out: torch.Tensor
) -> torch.Tensor:
    """Layer norm of float32 rows [M, C], or without a bias their RMS norm, into ``out``; weight and bias float32."""
    tensors = (pointer(hidden), pointer(weight), pointer(bias))
    _call("llava_norm", KINDS[out.dtype], *hidden.shape, *tensors, ctypes.c_float(eps), pointer(out))
    return out


def add(hidden: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """Adds rows [M, C], and a float32 bias [C], to float32 ``hidden`` [M, C], in place."""
    _call("llava_add", KINDS[rows.dtype], *rows.shape, pointer(rows), pointer(bias), pointer(hidden))


ACTIVATIONS = {"quick_gelu": 1, "gelu": 2, "gelu_pytorch_tanh": 3}


def activate(rows: torch.Tensor, bias: torch.Tensor, activation: str) -> None:
    """An activation of rows [M, C] plus a float32 bias [C], in place."""
    _call("llava_activate", KINDS[rows.dtype], ACTIVATIONS[activation], *rows.shape, pointer(rows), pointer(bias))


def gate(gates: torch.Tensor, ups: torch.Tensor) -> None:
    """SiLU of ``gates`` times ``ups``, into ``gates``."""
    _call("llava_gate", KINDS[gates.dtype], ctypes.c_long(gates.numel()), pointer(gates), pointer(ups))
