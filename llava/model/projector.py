"""The projector, which maps image features to the language model's embedding space.

It works on each feature alone, whatever their number. Parameter names are those of the released checkpoints
(``mm_projector.0``, ``mm_projector.2``), so the layers are in an ``nn.Sequential``.

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
    """A projector that returns the features unchanged; further arguments are ignored."""

    def forward(self, features: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return features

    @property
    def config(self) -> dict[str, str]:
        """The configuration that builds this projector."""
        return {"mm_projector_type": "identity"}


def _fit(features: torch.Tensor, weight: Any) -> torch.Tensor:
    """The features in the dtype of a projector's weight.

    A tower returns features in the dtype of its pixels, and forks of the original pass half precision everywhere, even
    with float32 weights on a CPU. Quantized weights are integers and take any float dtype, and so does every layer
    under autocast.
    """
    if torch.is_autocast_enabled(features.device.type) or not weight.is_floating_point():
        return features
    return features.to(weight.dtype)


# Named like torch's classes, so that a printed model looks like the original's.
class Linear(nn.Linear):
    """A linear layer that takes features of any float dtype."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(_fit(features, self.weight))


class Sequential(nn.Sequential):
    """A sequence of layers that takes features of any float dtype."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(_fit(features, next(self.parameters())))


class SimpleResBlock(nn.Module):
    """A layer norm, then a residual MLP of two layers: x = norm(x); x + mlp(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(channels)
        self.proj = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        normalized = self.pre_norm(features)
        return normalized + self.proj(normalized)


def build_vision_projector(config: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """The projector of the type ``config.mm_projector_type``: ``linear`` (default), ``identity``, or an MLP.

    A ``lexical`` one is for a lexical tower, and is called with the language model's embeddings too.

    ``mlp{N}x_gelu`` has N layers; ``mlp{N}x_res{M}x_gelu`` has M ``SimpleResBlock`` after them.

    Reads ``config.mm_hidden_size`` (the width of the tower's features) and ``config.hidden_size`` (the language
    model's). ``delay_load`` and further keywords are accepted because callers of the original pass them.

    Raises:
        UsageError: the type is unknown, or ``identity`` would have to change the width.
    """
    kind = getattr(config, "mm_projector_type", "linear")
    if kind == "lexical":
        from llava.model.lexical.projector import LexicalProjector

        return LexicalProjector(config)
    if kind == "identity":
        seen, wanted = (getattr(config, name, None) for name in ("mm_hidden_size", "hidden_size"))
        if seen is not None and seen != wanted:
            raise UsageError(
                f"mm_projector_type identity leaves features as wide as the tower's, {seen}, but the language model "
                f"needs {wanted}. Use mlp2x_gelu."
            )
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
