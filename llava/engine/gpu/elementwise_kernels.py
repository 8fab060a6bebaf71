"""What lies between a layer's matrix products, one kernel each: rotary embeddings, norms and the activation.

Each reads and writes memory once; none has anything to tune but the size of a program. Not run on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

# Heads of one position, and features of one row, that a program takes.
HEADS, FEATURES = 8, 1024


def rotate_and_store(
    qkv_NF: torch.Tensor,
    cos_PD: torch.Tensor,
    sin_PD: torch.Tensor,
    positions_N: torch.Tensor,
    slots_N: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """See ``reference``."""
    num_kv_heads, block_tokens, head_dim = keys.shape[1:]
    num_rows = qkv_NF.shape[1] // head_dim
    num_heads = num_rows - 2 * num_kv_heads
    assert all(tensor.is_contiguous() for tensor in (qkv_NF, cos_PD, sin_PD, positions_N, slots_N, keys, values))
    queries_NHD = torch.empty(len(qkv_NF), num_heads, head_dim, dtype=qkv_NF.dtype, device=qkv_NF.device)
    if len(qkv_NF) == 0:
        return queries_NHD
    _rotate_and_store[(len(qkv_NF), triton.cdiv(num_rows, HEADS))](
        qkv_NF,
        cos_PD,
        sin_PD,
        positions_N,
        slots_N,
        queries_NHD,
        keys,
        values,
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HALF=head_dim // 2,
        PADDED_HALF=triton.next_power_of_2(head_dim // 2),
        BLOCK_TOKENS=block_tokens,
        HEADS=HEADS,
        num_warps=4,
    )
    return queries_NHD


def add_rms_norm(
    residual_NC: torch.Tensor, delta_NC: torch.Tensor | None, weight_C: torch.Tensor, eps: float
) -> torch.Tensor:
    """See ``reference``."""
    num, size = residual_NC.shape
    assert residual_NC.is_contiguous()
    assert delta_NC is None or delta_NC.is_contiguous()
    normed_NC = torch.empty(num, size, dtype=weight_C.dtype, device=residual_NC.device)
    if num:
        padded = triton.next_power_of_2(size)
        _add_rms_norm[(num,)](
            residual_NC,
            residual_NC if delta_NC is None else delta_NC,
            weight_C,
            normed_NC,
            eps,
            SIZE=size,
            PADDED=padded,
            HAS_DELTA=delta_NC is not None,
            num_warps=min(max(padded // 512, 1), 16),
        )
    return normed_NC


def silu_multiply(gate_up_NF: torch.Tensor) -> torch.Tensor:
    """See ``reference``."""
    num, both = gate_up_NF.shape
    assert gate_up_NF.is_contiguous()
    out = torch.empty(num, both // 2, dtype=gate_up_NF.dtype, device=gate_up_NF.device)
    if num:
        _silu_multiply[(num, triton.cdiv(both // 2, FEATURES))](
            gate_up_NF, out, SIZE=both // 2, FEATURES=FEATURES, num_warps=4
        )
    return out


@triton.jit(do_not_specialize_on_alignment=["positions", "slots"])
def _rotate_and_store(
    qkv,
    cos,
    sin,
    positions,
    slots,
    queries,
    keys,
    values,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    heads, dims = tl.program_id(1) * HEADS + tl.arange(0, HEADS), tl.arange(0, PADDED_HALF)
    is_dim = dims < HALF
    is_inside = (heads < NUM_HEADS + 2 * NUM_KV_HEADS)[:, None] & is_dim[None]
    own = qkv + (row * (NUM_HEADS + 2 * NUM_KV_HEADS) + heads)[:, None] * (2 * HALF) + dims[None]
    first = tl.load(own, mask=is_inside, other=0.0).to(tl.float32)
    second = tl.load(own + HALF, mask=is_inside, other=0.0).to(tl.float32)

    angle = tl.load(positions + row).to(tl.int64) * (2 * HALF) + dims
    cos_first = tl.load(cos + angle, mask=is_dim, other=0.0).to(tl.float32)[None]
    cos_second = tl.load(cos + angle + HALF, mask=is_dim, other=0.0).to(tl.float32)[None]
    sin_first = tl.load(sin + angle, mask=is_dim, other=0.0).to(tl.float32)[None]
    sin_second = tl.load(sin + angle + HALF, mask=is_dim, other=0.0).to(tl.float32)[None]
    is_value = (heads >= NUM_HEADS + NUM_KV_HEADS)[:, None]
    rotated_first = tl.where(is_value, first, first * cos_first - second * sin_first).to(queries.dtype.element_ty)
    rotated_second = tl.where(is_value, second, second * cos_second + first * sin_second).to(queries.dtype.element_ty)

    is_query = (heads < NUM_HEADS)[:, None] & is_dim[None]
    query = queries + (row * NUM_HEADS + heads)[:, None] * (2 * HALF) + dims[None]
    tl.store(query, rotated_first, mask=is_query)
    tl.store(query + HALF, rotated_second, mask=is_query)

    slot = tl.load(slots + row).to(tl.int64)
    kv_heads = (heads - NUM_HEADS) % NUM_KV_HEADS
    places = (slot // BLOCK_TOKENS * NUM_KV_HEADS + kv_heads) * BLOCK_TOKENS + slot % BLOCK_TOKENS
    offsets = places[:, None] * (2 * HALF) + dims[None]
    is_stored = (heads >= NUM_HEADS)[:, None] & is_inside & (slot >= 0)
    tl.store(keys + offsets, rotated_first, mask=is_stored & ~is_value)
    tl.store(keys + offsets + HALF, rotated_second, mask=is_stored & ~is_value)
    tl.store(values + offsets, rotated_first, mask=is_stored & is_value)
    tl.store(values + offsets + HALF, rotated_second, mask=is_stored & is_value)


@triton.jit
def _add_rms_norm(
    residual, delta, weight, normed, eps, SIZE: tl.constexpr, PADDED: tl.constexpr, HAS_DELTA: tl.constexpr
):
    begin, features = tl.program_id(0).to(tl.int64) * SIZE, tl.arange(0, PADDED)
    is_feature = features < SIZE
    row = tl.load(residual + begin + features, mask=is_feature, other=0.0)
    if HAS_DELTA:
        change = tl.load(delta + begin + features, mask=is_feature, other=0.0)
        row = (row.to(tl.float32) + change.to(tl.float32)).to(residual.dtype.element_ty)
    exact = row.to(tl.float32)
    scale = tl.rsqrt(tl.sum(exact * exact, 0) / SIZE + eps)
    if HAS_DELTA:
        # After the sum, where all threads have read their part of the row.
        tl.store(residual + begin + features, row, mask=is_feature)
    rounded = (exact * scale).to(residual.dtype.element_ty).to(tl.float32)
    scaled = tl.load(weight + features, mask=is_feature, other=0.0).to(tl.float32) * rounded
    tl.store(normed + begin + features, scaled.to(normed.dtype.element_ty), mask=is_feature)


@triton.jit
def _silu_multiply(gate_up, out, SIZE: tl.constexpr, FEATURES: tl.constexpr):
    row, features = tl.program_id(0).to(tl.int64), tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    is_feature = features < SIZE
    gate = tl.load(gate_up + row * (2 * SIZE) + features, mask=is_feature, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * (2 * SIZE) + SIZE + features, mask=is_feature, other=0.0).to(tl.float32)
    activated = (gate / (1.0 + tl.exp(-gate))).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + row * SIZE + features, (activated * up).to(out.dtype.element_ty), mask=is_feature)
