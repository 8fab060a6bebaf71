"""The native kernels as functions of tensors on a CPU; ``library.load`` must have found the library.

Each raises MemoryError where the library cannot allocate its scratch buffers; its inputs are unchanged then.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from llava.native import abi, library

LANES = 16
MAX_DIM = 256
MAX_GROUP = 48
DTYPES = {torch.float32: 0, torch.bfloat16: 1}
ACTIVATIONS = {"quick_gelu": 1, "gelu": 2, "gelu_pytorch_tanh": 3}


def allocate(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """An uninitialized tensor, aligned to 64 bytes, in huge pages where the system has them (torch asks for none)."""
    return _align(np.empty(math.prod(shape) * dtype.itemsize + 63, dtype=np.uint8)).view(dtype).view(shape)


def _align(array: Any) -> torch.Tensor:
    """The bytes of an array from its first address that is a multiple of 64, without the 63 bytes of slack."""
    skipped = -array.ctypes.data % 64
    return torch.from_numpy(array[skipped : len(array) - 63 + skipped])


class ScratchBuffers:
    """Named tensors in memory that is reused, because touching fresh pages costs more than computing in them."""

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """An uninitialized tensor, which the next call with this name overwrites."""
        size = math.prod(shape) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or len(buffer) < size:
            self._buffers.pop(name, None)
            buffer = self._buffers[name] = allocate(size, dtype=torch.uint8)
        return buffer[:size].view(dtype).view(shape)


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """The address of a contiguous tensor's data; a null pointer for None."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the library; raises MemoryError, with the bytes that could not be allocated."""
    native = library.load()
    assert native is not None
    status = getattr(native, name)(*arguments)
    if status == abi.OUT_OF_MEMORY:
        native.llava_failed_bytes.restype = ctypes.c_uint64
        num_bytes = native.llava_failed_bytes()
        size = f"{num_bytes:,} bytes" if num_bytes else "its scratch buffers"
        raise MemoryError(
            f"The native library could not allocate {size} in {name}. Free memory, or send fewer or shorter questions "
            "at once."
        )
    assert status == 0, f"{name} failed with status {status}"


def find_fallback_reason(
    dtype: torch.dtype, device: torch.device, head_dim: int, group: int, block_tokens: int
) -> str | None:
    """Why torch has to compute attention; None if the library can."""
    if device.type != "cpu":
        return f"the model is on {device}"
    if dtype not in DTYPES:
        return f"the dtype is {dtype}"
    if head_dim % LANES or head_dim > MAX_DIM or group > MAX_GROUP or block_tokens % LANES:
        return f"heads of {head_dim} in groups of {group} with blocks of {block_tokens} are not supported"
    return None if library.load() is not None else library.status()


def make_cache(
    num_blocks: int, num_kv_heads: int, block_tokens: int, head_dim: int, dtype: torch.dtype
) -> torch.Tensor:
    """A zeroed cache of keys or values [blocks, kv heads, block_tokens * head_dim], whose pages are not touched yet."""
    shape = (num_blocks, num_kv_heads, block_tokens * head_dim)
    return _align(np.zeros(math.prod(shape) * dtype.itemsize + 63, dtype=np.uint8)).view(dtype).view(shape)


def write_kv(
    key_cache: torch.Tensor, value_cache: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    """Writes keys and values [N, kv heads, head_dim] to int64 slots [N] of caches from ``make_cache``."""
    num, num_kv_heads, head_dim = keys.shape
    keys, values = keys.contiguous(), values.contiguous()
    sizes = (num, num_kv_heads, head_dim, key_cache.shape[2] // head_dim)
    tensors = (keys, values, slots, key_cache, value_cache)
    call("llava_write_kv", DTYPES[keys.dtype], *sizes, *map(pointer, tensors), torch.get_num_threads())


def apply_rope_and_write_kv(
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
    """Rotated queries [N, heads, head_dim] in the caches' dtype; rotated keys and values go to their int64 slots [N].

    ``queries``, ``keys``, ``values``: the products [N, heads * head_dim] of their matrices. Queries may be None, or
    keys and values. ``biases``: float32, of the three. ``rotary``: float32 cos and sin [N, head_dim]; None for no RoPE.
    """
    given = keys if queries is None else queries
    assert given is not None
    num, num_heads = len(slots), 0 if queries is None else queries.shape[1] // head_dim
    heads = abi.Heads(
        num,
        num_heads,
        0 if keys is None else key_cache.shape[1],
        head_dim,
        key_cache.shape[2] // head_dim,
        torch.get_num_threads(),
        *map(pointer, (*biases, *(rotary or (None, None)), slots)),
    )
    if out is None:
        out = torch.empty(num, num_heads, head_dim, dtype=key_cache.dtype)
    dtypes = (DTYPES[given.dtype], DTYPES[key_cache.dtype])
    tensors = (queries, keys, values, out, key_cache, value_cache)
    call("llava_apply_rope_and_write_kv", *dtypes, ctypes.byref(heads), *map(pointer, tensors))
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
    is_bidirectional: bool = False,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention [N, heads, head_dim] of the last queries of every request over its own positions.

    ``starts``: int32 [R + 1], where each request's queries begin. ``lengths``: int32 [R], its positions so far.
    ``tables``: int32 [R, most blocks]. ``window``: how many positions up to its own a query sees.
    ``is_bidirectional``: it sees the positions after its own, too.
    """
    _, num_heads, head_dim = queries.shape
    queries = queries.contiguous()
    if out is None:
        out = torch.empty_like(queries)
    arguments = abi.Attention(
        len(lengths),
        num_heads,
        key_cache.shape[1],
        head_dim,
        key_cache.shape[2] // head_dim,
        tables.shape[1],
        window or 0,
        torch.get_num_threads(),
        is_bidirectional,
        scale,
        *map(pointer, (starts, lengths, tables)),
    )
    tensors = (queries, key_cache, value_cache, out)
    call("llava_attend", DTYPES[queries.dtype], ctypes.byref(arguments), *map(pointer, tensors))
    return out


def decode_layers(dtype: torch.dtype, decoder: abi.Decoder, batch: abi.Batch) -> None:
    """Runs all layers of a decoder, whose caches are of ``dtype``, over a few positions, in place."""
    decoder.num_threads = torch.get_num_threads()
    call("llava_decode_layers", DTYPES[dtype], ctypes.byref(decoder), ctypes.byref(batch))


class Chosen(NamedTuple):
    """What ``choose`` found in N rows of logits.

    ``tokens``: [N]. ``highest``: [N], the highest logits; where one is not finite, the row has nothing else. ``best``:
    [N][...] the likeliest tokens of the originals, the likeliest first. ``log_sums``: [N] of e**logit of the originals.
    """

    tokens: list[int]
    highest: list[float]
    best: list[list[int]]
    log_sums: list[float]


def choose(
    num_tokens: int,
    logits: Sequence[int],
    parameters: Sequence[tuple[float, int, float, float, float]],
    originals: Sequence[int],
    num_best: Sequence[int],
) -> Chosen:
    """The next token of each row of logits, as ``choose`` of ``llava.engine.choose`` gives it, but without fallbacks.

    ``logits``, ``originals``: addresses of contiguous float32 rows of ``num_tokens``; the tokens are chosen from
    ``logits``. ``parameters``: temperature, top-k, top-p, min-p and uniform number of each. ``num_best``: how many of
    the likeliest tokens of each row in ``originals`` are wanted; -1 for neither them nor the sum.
    """
    num, most = len(logits), max(0, *num_best)
    temperatures, top_ks, top_ps, min_ps, uniforms = zip(*parameters, strict=True)
    doubles, int64s, int32s = ctypes.c_double * num, ctypes.c_int64 * num, ctypes.c_int32 * num
    tokens, highest, log_sums = int64s(), (ctypes.c_float * num)(), doubles()
    best = (ctypes.c_int32 * (num * most))()
    arrays = (
        *(int64s(*logits), int64s(*originals)),
        *(doubles(*temperatures), doubles(*top_ps), doubles(*min_ps), doubles(*uniforms)),
        *(int32s(*(min(top_k, num_tokens) for top_k in top_ks)), int32s(*num_best)),
        *(tokens, highest, best, log_sums),
    )
    sizes = (num, num_tokens, torch.get_num_threads(), most)
    call("llava_choose", ctypes.byref(abi.Choosing(*sizes, *(ctypes.addressof(array) for array in arrays))))
    likeliest = [best[i * most : i * most + max(0, count)] for i, count in enumerate(num_best)]
    return Chosen(tokens[:], highest[:], likeliest, log_sums[:])


def dense(weight: torch.Tensor) -> abi.Matrix:
    """A float32 or bfloat16 tensor [N, K] as the library's structure; it points to the tensor's memory."""
    return abi.Matrix(8 * weight.itemsize, *weight.shape, pointer(weight), None)


def has_vnni() -> bool:
    """Whether this CPU has int8 dot products: quantized matrices are then faster than dense ones in a prefill too."""
    native = library.load()
    return native is not None and bool(native.llava_has_vnni())


def gemv(rows: torch.Tensor, matrix: abi.Matrix, out: torch.Tensor | None = None) -> torch.Tensor:
    """Float32 [M, N] = a few rows [M, K] times ``matrix`` [N, K]; dense matrices are of the rows' dtype."""
    return _multiply("llava_gemv", rows, matrix, out)


def gemm_int8(rows: torch.Tensor, matrix: abi.Matrix, out: torch.Tensor | None = None) -> torch.Tensor:
    """Float32 [M, N] = many rows [M, K], which are quantized to 8 bits, times a quantized ``matrix``."""
    return _multiply("llava_gemm_int8", rows, matrix, out)


def _multiply(name: str, rows: torch.Tensor, matrix: abi.Matrix, out: torch.Tensor | None) -> torch.Tensor:
    rows = rows.contiguous()
    if out is None:
        out = torch.empty(len(rows), matrix.rows)
    tensors = (pointer(rows), pointer(out))
    call(name, DTYPES[rows.dtype], ctypes.byref(matrix), len(rows), *tensors, torch.get_num_threads())
    return out


def normalize(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, eps: float, out: torch.Tensor
) -> torch.Tensor:
    """RMS norm of float32 rows [M, C], or with a bias their layer norm, into ``out``; weight and bias float32."""
    tensors = (pointer(hidden), pointer(weight), pointer(bias))
    scale = (ctypes.c_float(eps), pointer(out), torch.get_num_threads())
    call("llava_norm", DTYPES[out.dtype], *hidden.shape, *tensors, *scale)
    return out


def add(hidden: torch.Tensor, rows: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """Adds rows [M, C], and a float32 bias [C], to float32 ``hidden`` [M, C], in place."""
    tensors = (pointer(rows), pointer(bias), pointer(hidden))
    call("llava_add", DTYPES[rows.dtype], *rows.shape, *tensors, torch.get_num_threads())


def activate(rows: torch.Tensor, bias: torch.Tensor | None, activation: str) -> None:
    """Applies an activation to rows [M, C], plus a float32 bias [C], in place."""
    tensors = (pointer(rows), pointer(bias))
    call("llava_activate", DTYPES[rows.dtype], ACTIVATIONS[activation], *rows.shape, *tensors, torch.get_num_threads())


def gate(gates: torch.Tensor, ups: torch.Tensor) -> None:
    """Multiplies SiLU of ``gates`` with ``ups`` (equal shapes and dtypes), into ``gates``."""
    tensors = (pointer(gates), pointer(ups))
    call("llava_gate", DTYPES[gates.dtype], ctypes.c_long(gates.numel()), *tensors, torch.get_num_threads())
