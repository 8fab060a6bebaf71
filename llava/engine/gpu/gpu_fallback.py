"""Fallback reasons on a GPU: why steps have to run through Transformers' layers instead of the fused ones.

Whatever users put into a model (hooks, adapters, replaced modules) must run, so anything unknown is a reason.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from llava.engine.gpu.joined_weights import find_obstacle
from llava.model.image_adapter import find_image_adapter
from llava.model.quantized_linear import QuantizedLinear
from llava.model.replacements import has_global_hook, has_hook, is_replaced

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
_MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def find_device_obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this device's engine runs without the GPU kernels at all, in torch's own attention; None if it has them."""
    if device.type != "cuda":
        return f"the device is {device}"
    if torch.version.hip is not None:
        return "the GPU is not one of NVIDIA's"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if torch.cuda.get_device_capability(device) < (7, 0):
        return "Triton needs a GPU of compute capability 7.0"
    return None if dtype in _DTYPES else f"the dtype is {dtype}"


def find_gpu_fallback_reason(model: Any) -> str | None:
    """Why the fused layers cannot run this model's decoder; None if they can."""
    decoder, head = model.get_model(), model.lm_head
    if has_global_hook():
        return "all modules of the process have a hook"
    if find_image_adapter(model) is not None:
        return "its image adapter is active at some positions only"
    for layer in decoder.layers:
        if (reason := _find_layer_reason(layer)) is not None:
            return reason
    attention = [layer.self_attn for layer in decoder.layers]
    if len({(each.head_dim, each.scaling) for each in attention}) > 1:
        return "its layers have heads of different sizes"
    around = [decoder.embed_tokens, decoder.norm, decoder.rotary_emb, head]
    if type(decoder.embed_tokens) is not nn.Embedding or is_replaced(decoder.norm) or is_replaced(decoder.rotary_emb):
        return "the embeddings, the last norm or RoPE is not Transformers' own"
    if type(head) not in (nn.Linear, QuantizedLinear):
        return "the head is quantized in another way or has an adapter"
    if has_hook(around):
        return "the embeddings, the last norm, RoPE or the head has a hook"
    return find_obstacle(group for layer in decoder.layers for group in groups_of(layer)) or _find_dtype_reason(model)


def groups_of(layer: Any) -> list[list[nn.Module]]:
    """The linear layers of a decoder's layer, those with the same input together."""
    attention, mlp = layer.self_attn, layer.mlp
    return [
        [attention.q_proj, attention.k_proj, attention.v_proj],
        [attention.o_proj],
        [mlp.gate_proj, mlp.up_proj],
        [mlp.down_proj],
    ]


def _find_layer_reason(layer: Any) -> str | None:
    attention, mlp = layer.self_attn, layer.mlp
    for module, own in ((layer, _LAYER), (attention, _ATTENTION), (mlp, _MLP)):
        if {name for name, _ in module.named_children()} != own:
            return f"a {type(module).__name__} has other parts than usual"
    if not isinstance(mlp.act_fn, nn.SiLU) and "SiLU" not in type(mlp.act_fn).__name__:
        return f"the activation is {type(mlp.act_fn).__name__}"
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    if any(is_replaced(module) for module in (layer, attention, mlp, *norms)):
        return "a module is not Transformers' own"
    if has_hook(list(layer.modules())):
        return "a module has a hook"
    return None


def _find_dtype_reason(model: Any) -> str | None:
    decoder = model.get_model()
    tensors = [*decoder.layers.parameters(), *decoder.norm.parameters(), *model.lm_head.parameters()]
    tensors.append(decoder.embed_tokens.weight)
    if {tensor.dtype for tensor in tensors} != {model.dtype}:
        return f"not all of the decoder is in {model.dtype}"
    places = {tensor.device for tensor in (*tensors, *decoder.layers.buffers(), *model.lm_head.buffers())}
    return None if places == {model.device} else "its parts are on several devices"
