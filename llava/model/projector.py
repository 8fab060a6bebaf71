"""Carries image features into the language model's embedding space.

The projector is position-wise: it neither mixes nor counts features. Parameter names follow the released
checkpoints (``mm_projector.0``, ``mm_projector.2``), so the layers sit in an ``nn.Sequential``.

Source: haotian-liu/LLaVA@c121f04 llava/model/multimodal_projector/builder.py; LLaVA-VL/LLaVA-NeXT@df17966, the same
file, for the residual blocks.
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


def _fit(features: torch.Tensor, weight: Any) -> torch.Tensor:
    """The features in the dtype of a projector's weight.

    A tower answers in the dtype of its pixels, and forks of the original hand it half precision wherever they run,
    with float32 weights on a CPU too. A quantized weight stores integers and takes the dtype it is given; so does every
    layer under autocast.
    """
    if torch.is_autocast_enabled(features.device.type) or not weight.is_floating_point():
        return features
    return features.to(weight.dtype)


# Named as what they are, so that a printed model is the original's.
class Linear(nn.Linear):
    """One layer; takes features of any float dtype."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(_fit(features, self.weight))


class Sequential(nn.Sequential):
    """Several layers; takes features of any float dtype."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(_fit(features, next(self.parameters())))


class SimpleResBlock(nn.Module):
    """A block that adds two layers of what it normalised to what it normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(channels)
        self.proj = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        normalised = self.pre_norm(features)
        return normalised + self.proj(normalised)


def build_vision_projector(config: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """The projector named by ``config.mm_projector_type``: ``linear`` (default), ``identity``, or an MLP.

    ``mlp{N}x_gelu`` has N layers; ``mlp{N}x_res{M}x_gelu`` has M ``SimpleResBlock`` behind them.

    Reads ``config.mm_hidden_size`` (what the tower gives) and ``config.hidden_size`` (what the language model
    takes). ``delay_load`` and further keywords are accepted because callers of the original pass them.

    Raises:
        UsageError: the type is none of these.
    """
    kind = getattr(config, "mm_projector_type", "linear")
    if kind == "identity":
        return IdentityMap()
    if kind == "linear":
        return Linear(config.mm_hidden_size, config.hidden_size)
    depth = re.fullmatch(r"mlp([1-9]\d*)x_(?:res(\d+)x_)?gelu", kind)
    if depth is None:
        raise UsageError(
            f"Unknown projector type: {kind!r}. Use 'linear', 'identity', 'mlp2x_gelu' (any depth from 1) or "
            "'mlp2x_res1x_gelu'."
        )
    layers: list[nn.Module] = [nn.Linear(config.mm_hidden_size, config.hidden_size)]
    for _ in range(int(depth[1]) - 1):
        layers += [nn.GELU(), nn.Linear(config.hidden_size, config.hidden_size)]
    layers += [SimpleResBlock(config.hidden_size) for _ in range(int(depth[2] or 0))]
    return Sequential(*layers)
