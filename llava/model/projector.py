"""Carries image features into the language model's embedding space.

The projector is position-wise: it neither mixes nor counts features. Parameter names follow the released
checkpoints (``mm_projector.0``, ``mm_projector.2``), so the layers sit in a plain ``nn.Sequential``.

Source: haotian-liu/LLaVA@c121f04 llava/model/multimodal_projector/builder.py.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from llava.errors import UsageError


class IdentityMap(nn.Module):
    """A projector that hands the features on as they are; it takes and ignores further arguments."""

    def forward(self, features: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return features

    @property
    def config(self) -> dict[str, str]:
        return {"mm_projector_type": "identity"}


def build_vision_projector(config: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """The projector named by ``config.mm_projector_type``: ``linear`` (default), ``mlp{N}x_gelu`` or ``identity``.

    Reads ``config.mm_hidden_size`` (what the tower gives) and ``config.hidden_size`` (what the language model
    takes). ``delay_load`` and further keywords are accepted because callers of the original pass them.

    Raises:
        UsageError: the type is none of the three.
    """
    kind = getattr(config, "mm_projector_type", "linear")
    if kind == "identity":
        return IdentityMap()
    if kind == "linear":
        return nn.Linear(config.mm_hidden_size, config.hidden_size)
    depth = re.fullmatch(r"mlp(\d+)x_gelu", kind)
    if depth is None or int(depth[1]) < 1:
        raise UsageError(
            f"Unknown projector type: {kind!r}. Use 'linear', 'identity' or 'mlp2x_gelu' (any depth from 1)."
        )
    layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, config.hidden_size)]
    for _ in range(int(depth[1]) - 1):
        layers += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
    return nn.Sequential(*layers)
