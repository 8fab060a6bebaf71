"""What the GPU kernels compute, in torch: their oracle, and what runs where Triton does not.

Each function exists under the same name and with the same arguments in ``triton_kernels``; ``choose_kernels`` picks.
Only shapes decide what a kernel launches, never a length, a table or a slot, so that every call can be captured in a
CUDA graph: tables, lengths, starts, positions and slots are tensors on the device.

R requests, N positions, H heads, D head dimension, P positions of the rotary tables, C hidden size, F features.
Keys and values of a layer are [blocks, kv heads, block_tokens, D]. A position is in row ``position // block_tokens``
of its request's table. Attention sums in float32 whatever the dtype, and float32 inputs are multiplied in float32.
"""

from __future__ import annotations

import torch
from torch import nn

from llava.engine.gpu.workspace import DecodeWorkspace
from llava.native import quantization
from llava.native.quantization import QuantizedMatrix


def decode_attention(
    queries_RHD: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
    window: int | None,
    workspace: DecodeWorkspace,
) -> torch.Tensor:
    """Attention [R, H, D] of one query of each request, its last position, over all its positions.

    Args:
        tables: int32 [R, most blocks]; entries past a request's blocks are never read.
        lengths: int32 [R], with the new position; 0 is a padding row, whose result is zero.
        window: how many positions a query sees, itself included.
        workspace: for at least R requests; two calls that run at the same time need two.
    """
    starts = torch.arange(len(queries_RHD) + 1, dtype=torch.int32, device=queries_RHD.device)
    return extend_attention(queries_RHD, keys, values, tables, starts, lengths, scaling, window)


def extend_attention(
    queries_NHD: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Causal attention [N, H, D] of each request's queries, its last positions, over its positions.

    Right for requests of one query, too, which ``decode_attention`` computes faster.

    Args:
        tables: int32 [R, most blocks]; entries past a request's blocks are never read.
        starts: int32 [R + 1], where each request's queries begin; a request may have none. The results of queries
            from the last start on are zero.
        lengths: int32 [R], with the new positions; no request has more queries than positions.
        window: how many positions a query sees, itself included.
    """
    out = torch.zeros_like(queries_NHD)
    bounds, num_kv_heads, block_tokens = starts.tolist(), keys.shape[1], keys.shape[2]
    for start, stop, table, length in zip(bounds, bounds[1:], tables, lengths.tolist(), strict=False):
        if start == stop or length == 0:
            continue
        blocks = table[: -(-length // block_tokens)].long()
        own_keys, own_values = (
            tensor[blocks].transpose(0, 1).flatten(1, 2)[:, None, :length].float() for tensor in (keys, values)
        )
        queries = queries_NHD[start:stop].transpose(0, 1).unflatten(0, (num_kv_heads, -1)).float()  # [KV, G, Q, D]
        places = torch.arange(length - (stop - start), length, device=table.device)[:, None]
        positions = torch.arange(length, device=table.device)
        visible = positions <= places
        if window is not None:
            visible = visible & (positions > places - window)
        scores = (queries @ own_keys.transpose(2, 3) * scaling).masked_fill(~visible, -torch.inf)
        out[start:stop] = (scores.softmax(-1) @ own_values).flatten(0, 1).transpose(0, 1).to(out.dtype)
    return out


def rotate_and_store(
    qkv_NF: torch.Tensor,
    cos_PD: torch.Tensor,
    sin_PD: torch.Tensor,
    positions_N: torch.Tensor,
    slots_N: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
) -> torch.Tensor:
    """Rotated queries [N, H, D] of queries, keys and values side by side; rotated keys and values go to their slots.

    Rotary embeddings of halves, as in Transformers' Llama, in float32 and rounded once.

    Args:
        qkv_NF: F = (H + 2 kv heads) * D.
        cos_PD, sin_PD: of each position, of any floating dtype.
        positions_N, slots_N: int32 or int64. Slot = block * block_tokens + offset; less than 0 is padding, which is
            not stored.
    """
    num_kv_heads, block_tokens, head_dim = keys.shape[1:]
    heads = qkv_NF.unflatten(1, (-1, head_dim))
    rotated, own_values = heads[:, :-num_kv_heads].float(), heads[:, -num_kv_heads:]
    cos, sin = (table[positions_N.long()].float()[:, None] for table in (cos_PD, sin_PD))
    first, second = rotated.chunk(2, -1)
    rotated = (rotated * cos + torch.cat([-second, first], -1) * sin).to(qkv_NF.dtype)
    stored = slots_N >= 0
    slots = slots_N[stored].long()
    blocks, offsets = slots // block_tokens, slots % block_tokens
    keys[blocks, :, offsets] = rotated[stored, -num_kv_heads:]
    values[blocks, :, offsets] = own_values[stored]
    return rotated[:, :-num_kv_heads].contiguous()


def add_rms_norm(
    residual_NC: torch.Tensor, delta_NC: torch.Tensor | None, weight_C: torch.Tensor, eps: float
) -> torch.Tensor:
    """Transformers' LlamaRMSNorm [N, C] of ``residual_NC + delta_NC``, which replaces ``residual_NC``.

    The result has the dtype of the weight; the normalized rows are rounded to the residual's before they are scaled.
    """
    if delta_NC is not None:
        residual_NC.copy_(residual_NC + delta_NC)
    rows = residual_NC.float()
    normed = rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + eps)
    return (weight_C * normed.to(residual_NC.dtype)).to(weight_C.dtype)


def silu_multiply(gate_up_NF: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of the features times the second half: [N, F / 2]."""
    gate, up = gate_up_NF.chunk(2, -1)
    return nn.functional.silu(gate) * up


def quantized_matmul(x_NC: torch.Tensor, matrix: QuantizedMatrix, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Products [N, rows] with a quantized matrix [rows, C], and the bias, in the dtype of ``x_NC``.

    In the layout that CPUs read, too: ``quantization``. The weights may be rounded to the dtype of ``x_NC``.
    """
    weight = quantization.dequantize(matrix)
    products = x_NC.float() @ weight.T
    return (products if bias is None else products + bias.float()).to(x_NC.dtype)
