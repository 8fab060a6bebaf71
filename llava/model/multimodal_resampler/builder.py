"""Front door: LLaVA-NeXT's resamplers, of which released models have none: features go on as they are.

Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/model/multimodal_resampler/builder.py.
"""

from typing import Any

import torch
from torch import nn

from llava.errors import UsageError

__all__ = ["IdentityMap", "build_vision_resampler"]


class IdentityMap(nn.Module):
    """Hands the features on as they are; it takes and ignores further arguments."""

    def forward(self, features: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return features

    @property
    def config(self) -> dict[str, None]:
        return {"mm_resampler_type": None}


def build_vision_resampler(model_args: Any, delay_load: bool = False, **kwargs: Any) -> nn.Module:
    """The resampler that ``model_args.mm_resampler_type`` names. Raises UsageError for any but None."""
    kind = getattr(model_args, "mm_resampler_type", None)
    if kind is not None:
        raise UsageError(f"mm_resampler_type is {kind!r}, which is not supported: leave it out.")
    return IdentityMap()
