"""The structures and statuses of the C interface, field by field as in abi.h and kernels.cpp."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

OUT_OF_MEMORY = 1


def _int32s(names: str) -> Iterator[tuple[str, type[ctypes.c_int32]]]:
    return ((name, ctypes.c_int32) for name in names.split())


def _pointers(names: str) -> Iterator[tuple[str, type[ctypes.c_void_p]]]:
    return ((name, ctypes.c_void_p) for name in names.split())


class Matrix(ctypes.Structure):
    """A weight matrix in one of the forms that quantized.h describes; its maker has to keep the memory alive."""

    _fields_ = [*_int32s("bits rows columns"), *_pointers("data scales")]


class LowRank(ctypes.Structure):
    """A low-rank update of a matrix, or none; its maker has to keep the memory alive."""

    _fields_ = [*_int32s("rank"), ("scaling", ctypes.c_float), *_pointers("down up")]


class Layer(ctypes.Structure):
    """A decoder layer."""

    _fields_ = [
        *_pointers("input_norm post_norm"),
        *((name, Matrix) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *_pointers("q_bias k_bias v_bias keys values"),
        *((f"of_{name}", LowRank) for name in ("q", "k", "v", "o", "gate", "up", "down")),
    ]


class Decoder(ctypes.Structure):
    """All layers of a decoder."""

    _fields_ = [
        *_int32s("num_layers hidden_size intermediate_size num_heads num_kv_heads head_dim block_tokens num_threads"),
        *_int32s("window"),
        *((name, ctypes.c_float) for name in ("eps", "scale")),
        *_pointers("layers"),
    ]


class Batch(ctypes.Structure):
    """The positions of one decode step."""

    _fields_ = [*_int32s("num table_stride"), *_pointers("lengths tables slots cos sin hidden adapted")]


class Attention(ctypes.Structure):
    """Attention of a prefill or of a vision tower."""

    _fields_ = [
        *_int32s("num_rows num_heads num_kv_heads head_dim block_tokens table_stride window num_threads"),
        *_int32s("is_bidirectional"),
        ("scale", ctypes.c_float),
        *_pointers("starts lengths tables"),
    ]


class Heads(ctypes.Structure):
    """How the products of the q, k and v matrices become queries and cache entries: biases, RoPE, slots."""

    _fields_ = [
        *_int32s("num num_heads num_kv_heads head_dim block_tokens num_threads"),
        *_pointers("q_bias k_bias v_bias cos sin slots"),
    ]


class Choosing(ctypes.Structure):
    """Rows of logits, their sampling parameters, and room for their next and their likeliest tokens."""

    _fields_ = [
        *_int32s("num num_tokens num_threads most_best"),
        *_pointers("logits originals temperatures top_ps min_ps uniforms top_ks num_best tokens highest best log_sums"),
    ]
