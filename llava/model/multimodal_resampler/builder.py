"""Front door: LLaVA-NeXT's resamplers. No released model has one, so features are returned unchanged.

Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/model/multimodal_resampler/builder.py.
"""

from typing import Any

import torch
from torch import nn

from llava.errors import UsageError

__all__ = ["IdentityMap", "build_vision_resampler"]


class IdentityMap(nn.Module):
    """Returns the features unchanged; further arguments are ignored."""

    def forward(self, features: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return features

    @property
    def config(self) -> dict[str, None]:
        """The resampler's part of a config.json."""
        return {"mm_resampler_type": None}


def build_vision_resampler(model_args: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """The resampler that ``model_args.mm_resampler_type`` names. Raises UsageError for any but None."""
    kind = getattr(model_args, "mm_resampler_type", None)
    if kind is not None:
        raise UsageError(f"mm_resampler_type is {kind!r}, which is not supported: leave it out.")
    return IdentityMap()
