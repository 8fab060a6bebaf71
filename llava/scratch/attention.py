"""Attention for training short sequences on a CPU: two matrix products and a softmax, all in the autocast dtype.

Up to a few hundred positions it is several times faster than torch's fused kernel, whose backward pass is slow in
bfloat16. It is registered with Transformers as "matmul"; it differs from other implementations only by rounding.
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
    """Attention [B, L, heads, D], and None for its weights, as Transformers' layers call it.

    ``query`` is [B, heads, L, D], ``key`` and ``value`` are [B, kv heads, L, D]; the mask is additive, [B, 1, L, L].
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query * scaling) @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    weights = nn.functional.dropout(scores.softmax(dim=-1), p=dropout, training=module.training)
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


def register() -> str:
    """Registers ``attend`` with Transformers and returns its name; idempotent."""
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    return NAME
