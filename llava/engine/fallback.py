"""Fallback reasons: why a decoder or a tower has to run through its own modules instead of the native layers.

Whatever users put into a model (hooks, adapters, replaced modules) must run, so anything unknown is a reason.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llava.model.image_adapter import AdaptedLinear, AdaptedQuantizedLinear
from llava.model.quantized_linear import QuantizedLinear
from llava.model.replacements import has_hook, is_replaced
from llava.model.vision import CLIPVisionTower, SigLipVisionTower, VisionTower
from llava.native import calls

# The layers with an image adapter, which the native layers compute, and what they are without it.
_UNADAPTED: dict[type, type] = {AdaptedLinear: nn.Linear, AdaptedQuantizedLinear: QuantizedLinear}


def find_decoder_fallback_reason(decoder: Any, dtype: torch.dtype) -> str | None:
    """Why the native layers cannot run this decoder over a cache of ``dtype``; None if they can."""
    kinds: set[type] = set()
    for layer in decoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        modules = [getattr(attention, f"{name}_proj") for name in ("q", "k", "v", "o")]
        modules += [getattr(mlp, f"{name}_proj") for name in ("gate", "up", "down")]
        kinds |= {_UNADAPTED.get(type(module), type(module)) for module in modules}
        if not kinds <= {nn.Linear, QuantizedLinear}:
            return "a matrix is quantized in another way or has an adapter"
        if len(kinds) > 1:
            return "only some of the matrices are quantized"
        if modules[3].bias is not None or any(module.bias is not None for module in modules[4:]):
            return "attention's output matrix or a matrix of the MLP has a bias"
        weights = [weight for module in modules for weight in module.parameters() if weight is not module.bias]
        if {weight.dtype for weight in weights} - {dtype}:
            return f"not all matrices are in {dtype}"
        if any(tensor.device.type != "cpu" for module in modules for tensor in module.state_dict().values()):
            return "a matrix is not on the CPU"
        if not _is_silu(mlp.act_fn):
            return f"the activation is {type(mlp.act_fn).__name__}"
        if any(is_replaced(module) for module in (mlp, layer.input_layernorm, layer.post_attention_layernorm)):
            return "a module is not Transformers' own"
        if has_hook(list(layer.modules())):
            return "a module has a hook"
    if is_replaced(decoder.norm) or has_hook([decoder.norm]):
        return "the last norm is not Transformers' own, or has a hook"
    return None


def find_tower_fallback_reason(tower: Any) -> str | None:
    """Why the native layers cannot run this tower; None if they can."""
    if type(tower) not in (CLIPVisionTower, SigLipVisionTower) or tower.forward.__module__ != VisionTower.__module__:
        return "the tower is of another kind"
    if tower.is_watched() or has_hook([tower]):
        return "the tower has a hook, or a part of it was replaced"
    config = tower.config
    if tower.device.type != "cpu" or tower.dtype not in calls.DTYPES:
        return f"the tower is on {tower.device} in {tower.dtype}"
    if config.hidden_act not in calls.ACTIVATIONS:
        return f"the tower's activation is {config.hidden_act}"
    if config.hidden_size // config.num_attention_heads > calls.MAX_DIM:
        return f"the tower's heads of {config.hidden_size // config.num_attention_heads} are not supported"
    for block in tower.blocks_run:
        owners = [module for module in block.modules() if list(module.parameters(recurse=False))]
        if any(type(module) not in (nn.Linear, nn.LayerNorm) for module in owners):
            return "a block of the tower has other layers"
        if any(is_replaced(module) for module in (block, block.self_attn, block.mlp)):
            return "a block of the tower is not Transformers' own"
        if has_hook([block, *block.modules()]):
            return "a block of the tower has a hook"
    return None


def _is_silu(activation: Any) -> bool:
    return isinstance(activation, nn.SiLU) or "SiLU" in type(activation).__name__
