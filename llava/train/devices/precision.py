"""Which dtype each weight has in training: float32 where it is trained, 16 bits where it is frozen and that is used.

Trained in 16 bits, weights lose every update that is smaller than their rounding, and float16 ones overflow; in float32
under autocast they do not, at the same speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from llava.errors import LlavaError, UsageError
from llava.model.layouts import NEWLINE
from llava.train.parts import PartParameter


def set_precision(
    model: Any,
    trainable: Sequence[PartParameter],
    *,
    mixed_precision: str,
    has_original_tower: bool,
    device: torch.device | None = None,
    is_outline: bool = False,
) -> None:
    """Casts the model's weights: trained ones to float32, frozen ones to what autocast computes in.

    Each weight goes to ``device`` before it is cast, so the host never holds a copy of what its files have. With
    ``is_outline`` there is nothing to cast, and no memory is taken, see ``load_opened``.

    A tower of which anything is trained stays in float32 as a whole, and one with a dtype of its own keeps that. The
    newline vector is in float32 also where it is frozen: it is saved with what is trained, as it was. A quantized
    model's other weights keep what its quantization gave them. With ``has_original_tower``, a frozen tower is in
    float16 where bfloat16 is not used, also where everything else is in float32, as in both originals.

    Source: haotian-liu/LLaVA@c121f04 llava/train/train.py (``vision_tower.to(dtype=...)``).
    """
    trained = {id(each.parameter) for each in trainable}
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision)
    tower = model.get_vision_tower() if hasattr(model, "get_vision_tower") else None
    tower_weights = [] if tower is None else list(tower.parameters())
    in_tower = {id(parameter) for parameter in tower_weights}
    trains_tower = any(id(parameter) in trained for parameter in tower_weights)
    is_quantized = getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    low_of_tower = None if trains_tower else (low or (torch.float16 if has_original_tower else None))
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            continue
        if id(parameter) in trained or name.endswith(NEWLINE):
            dtype: torch.dtype | None = torch.float32
        elif id(parameter) in in_tower:
            dtype = getattr(tower, "own_dtype", None) or low_of_tower or torch.float32
        else:
            dtype = None if is_quantized else (low or torch.float32)
        if is_outline:
            parameter.data = torch.empty(parameter.shape, dtype=dtype)
        elif dtype is not None:
            try:
                parameter.data = parameter.data.to(device or parameter.device).to(dtype)
            except torch.OutOfMemoryError as error:
                num_gb = sum(each.numel() * each.element_size() for each in model.parameters()) / 1e9
                raise LlavaError(
                    f"{device} has no room for the weights, more than {num_gb:.1f} GB: use sharding: fsdp on several "
                    "GPUs, lora, or lora with quantization; llava train --dry-run estimates what fits."
                ) from error


def check_precision(root: nn.Module) -> None:
    """Raises UsageError if a trained weight is in float16, in which training fails sooner or later."""
    halves = [
        name for name, weight in root.named_parameters() if weight.requires_grad and weight.dtype == torch.float16
    ]
    if halves:
        raise UsageError(
            f"{len(halves)} trained weights are in float16, such as {halves[0]}: updates are lost or overflow. Load "
            "the model in float32; with fp16, training computes in float16 and keeps these weights in float32."
        )
