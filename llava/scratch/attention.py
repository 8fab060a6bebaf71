"""Attention for training short sequences on a CPU: two matrix products and a softmax, all in the autocast dtype.

Within a few hundred positions it is several times faster there than torch's fused kernel, whose backward pass is
slow in bfloat16. Registered with Transformers as "matmul"; a model trained with it differs from one trained with
another implementation by rounding alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "matmul"


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Queries, keys and values [B, heads, L, D] and an additive mask [B, 1, L, L] -> [B, L, heads, D]."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query * scaling) @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    weights = nn.functional.dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def register() -> str:
    """Makes the name known to Transformers, and returns it."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME
