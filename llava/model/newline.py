"""The newline vector ``image_newline`` [C], which ends each row of an image's map in the prompt.

    created    ``add_newline``, where ``mm_patch_merge_type`` contains "unpad"
    loaded     by name, as ``model.image_newline`` (``layouts.NEWLINE``); where the files lack it,
               ``open_checkpoint`` refuses them; Transformers' ``from_pretrained`` draws it by ``reset_newline``
    trained    as the part ``image_newline`` of a training recipe (``train.parts``)
    inserted   ``prepend_newline`` for maps that are gathered row by row (``merge.source_rows`` refers to it as
               NEWLINE_ROW), ``end_rows`` for maps that are resampled, and for the frames of videos

Where the plan of an image has newlines (``TilePlan.has_newlines``), they are counted in ``TilePlan.num_positions``.

Shape letters: R rows to look up, H and W rows and columns of a map, C width of the language model.

Source: haotian-liu/LLaVA@c121f04 llava/model/llava_arch.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import initialization as init

# The row of ``prepend_newline``'s result that is the newline vector.
NEWLINE_ROW = 0


def add_newline(core: Any) -> None:
    """Gives a ``LlavaMetaModel`` its ``image_newline``, N(0, 1/sqrt(C)), if its config merges with newlines."""
    if "unpad" not in (getattr(core.config, "mm_patch_merge_type", None) or "flat"):
        return
    weight, width = core.embed_tokens.weight, core.config.hidden_size
    newline_C = torch.randn(width, device=weight.device, dtype=weight.dtype)
    # On the meta device there is nothing to scale, and torch would import its compiler for it.
    core.image_newline = nn.Parameter(newline_C if weight.is_meta else newline_C / math.sqrt(width))


def reset_newline(core: Any) -> None:
    """Draws the newline vector anew, in place: what Transformers' ``from_pretrained`` does if a checkpoint lacks it."""
    if find_newline(core) is not None:
        init.normal_(core.image_newline, mean=0.0, std=1 / math.sqrt(core.config.hidden_size))


def find_newline(core: Any) -> nn.Parameter | None:
    """The newline vector [C] of a ``LlavaMetaModel``; None if it has none."""
    newline_C: nn.Parameter | None = getattr(core, "image_newline", None)
    return newline_C


def prepend_newline(features_RC: torch.Tensor, newline_C: torch.Tensor | None) -> torch.Tensor:
    """The newline vector as row NEWLINE_ROW, then the features: [1 + R, C]. Without a newline vector, row 0 is zero."""
    first_C = features_RC.new_zeros(features_RC.shape[1]) if newline_C is None else newline_C.to(features_RC)
    return torch.cat([first_C[None], features_RC])


def end_rows(map_HWC: torch.Tensor, newline_C: torch.Tensor) -> torch.Tensor:
    """The map with the newline vector at the end of each row: [..., H, W, C] -> [..., H, W + 1, C]."""
    newlines_H1C = newline_C.to(map_HWC).expand(*map_HWC.shape[:-2], 1, -1)
    return torch.cat([map_HWC, newlines_H1C], dim=-2)
