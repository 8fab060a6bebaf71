"""Attention over packed rows, sample by sample: torch's fused causal kernel without a mask.

A block-diagonal mask of a row of L positions takes L x L values and is computed in full. Here each sample costs its own
length squared, and nothing is masked but what a sliding window excludes. It is registered with Transformers as
"sdpa_packed", and is "sdpa" for everything that is not packed. Where flash-attention is installed, it is faster still.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sdpa_packed"


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention [B, L, heads, D], and None for its weights, as Transformers' layers call it.

    ``query`` is [B, heads, L, D], ``key`` and ``value`` are [B, kv heads, L, D]. Without a mask, rows are causal and
    have no padding; ``cu_seq_lens_q`` then divides a single row into samples.
    """
    if attention_mask is not None or query.shape[2] != key.shape[2] or not getattr(module, "is_causal", True):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    lengths = [query.shape[2]] if cu_seq_lens_q is None else _read_lengths(cu_seq_lens_q)
    groups = query.shape[1] // key.shape[1]
    samples = []
    parts = (tensor.split(lengths, dim=2) for tensor in (query, key, value))
    for one_query, one_key, one_value in zip(*parts, strict=True):
        mask_LL = _make_window(one_query.shape[2], sliding_window, query.device)
        samples.append(
            functional.scaled_dot_product_attention(
                one_query,
                one_key,
                one_value,
                attn_mask=mask_LL,
                dropout_p=dropout,
                scale=scaling,
                is_causal=mask_LL is None,
                enable_gqa=groups > 1,
            )
        )
    return torch.cat(samples, dim=2).transpose(1, 2).contiguous(), None


def _read_lengths(starts: torch.Tensor) -> list[int]:
    """The lengths of samples from where they start; read once for all layers, because a GPU has to wait for it."""
    lengths: list[int] | None = getattr(starts, "lengths_of_samples", None)
    if lengths is None:
        lengths = starts.diff().tolist()
        starts.lengths_of_samples = lengths  # type: ignore[attr-defined]
    return lengths


def _make_window(length: int, sliding_window: int | None, device: torch.device) -> torch.Tensor | None:
    """Which positions each one sees, bool [L, L]; None if these are all before it."""
    if sliding_window is None or length <= sliding_window:
        return None
    seen_LL = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return seen_LL.triu(1 - sliding_window)


def _make_mask(*arguments: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """SDPA's mask where there is padding or a cache; None where ``attend`` knows all that is to be masked."""
    if attention_mask is None and kwargs["q_length"] == kwargs["kv_length"]:
        return None
    return sdpa_mask(*arguments, attention_mask=attention_mask, **kwargs)


def register() -> str:
    """Registers ``attend`` with Transformers and returns its name; idempotent."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, _make_mask)
    return NAME
