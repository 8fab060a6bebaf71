"""Decoder matrices in 8 or 4 bits, through bitsandbytes, for training and for adapters that are not merged.

All other models are quantized by ``quantized_linear``. Here only the decoder's blocks are: tower, projector,
embeddings and head stay as they are.

Source: haotian-liu/LLaVA@c121f04 llava/model/builder.py (nf4, double quantization); bitsandbytes 0.45 nn/modules.py.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch
from torch import nn

from llava.errors import UsageError


def check_quantization(bits: int, device: torch.device, is_apart: bool = False) -> None:
    """Raises UsageError unless a model can be quantized to ``bits`` on the device; 16 means not quantized.

    ``is_apart``: an adapter will be attached as PEFT layers, not merged, which bitsandbytes is needed for.
    """
    if bits == 16:
        return
    if bits not in (8, 4):
        raise UsageError(f"A model can be loaded in 16, 8 or 4 bits, not in {bits}.")
    if device.type == "cpu" and is_apart:
        raise UsageError(
            f"On a CPU a model in {bits} bits takes no adapter that is not merged: merge it, or use 16 bits."
        )
    if device.type not in ("cpu", "cuda"):
        raise UsageError(
            f"Loading in {bits} bits works on CPUs and NVIDIA GPUs, but the device is {device}. "
            "Leave the bits out; float16 takes half of float32's memory."
        )
    if is_apart and importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f"A model in {bits} bits with an adapter that is not merged needs bitsandbytes, which is not installed: "
            "pip install bitsandbytes"
        )


def is_quantized(name: str, module: nn.Module, bits: int) -> bool:
    """Whether the tensor of that name belongs to a linear layer of the decoder, which is quantized on a GPU."""
    return bits < 16 and isinstance(module, nn.Linear) and name.startswith("model.layers.")


def quantize_model(
    model: nn.Module, bits: int, device: torch.device, kind: str = "nf4", is_double: bool = True
) -> None:
    """Quantizes a whole model on the CPU, matrix by matrix, and moves it to the device.

    Args:
        kind: of 4 bits, "nf4" or "fp4".
        is_double: whether the scales of 4 bits are quantized as well.
    """
    for name, parameter in list(model.named_parameters()):
        owner_name, _, leaf = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if is_quantized(name, owner, bits):
            quantize_layer(model, owner_name, leaf, parameter.detach(), bits, device, kind, is_double)
        else:
            parameter.data = parameter.data.to(device)  # in place: a tied head stays tied
    for name, buffer in list(model.named_buffers()):
        owner_name, _, leaf = name.rpartition(".")
        if buffer.device != device:
            setattr(model.get_submodule(owner_name), leaf, buffer.to(device))


def quantize_layer(
    model: nn.Module,
    layer_name: str,
    leaf: str,
    value: torch.Tensor,
    bits: int,
    device: torch.device,
    kind: str = "nf4",
    is_double: bool = True,
) -> None:
    """Sets a linear layer's ``weight``, which is quantized, or its ``bias``; replaces the layer if need be.

    ``value`` should be on the CPU: moving it to the device quantizes it. ``kind``, ``is_double``: see
    ``quantize_model``.
    """
    bnb = importlib.import_module("bitsandbytes")
    old = model.get_submodule(layer_name)
    assert isinstance(old, nn.Linear)
    if hasattr(old, "give_adapter_to"):
        raise UsageError(f"bitsandbytes cannot quantize {layer_name}, which has an image adapter: use 16 bits.")
    layer: Any = old
    if type(old) is nn.Linear:
        sizes = (old.in_features, old.out_features)
        with torch.device("meta"):
            if bits == 8:
                layer = bnb.nn.Linear8bitLt(*sizes, bias=old.bias is not None, has_fp16_weights=False, threshold=6.0)
            else:
                layer = bnb.nn.Linear4bit(
                    *sizes,
                    bias=old.bias is not None,
                    compute_dtype=value.dtype,
                    compress_statistics=is_double,
                    quant_type=kind,
                )
        parent, _, own_name = layer_name.rpartition(".")
        setattr(model.get_submodule(parent), own_name, layer)
    if leaf == "bias":
        layer.bias = nn.Parameter(value.to(device), requires_grad=False)
    elif bits == 8:
        layer.weight = bnb.nn.Int8Params(value, requires_grad=False, has_fp16_weights=False).to(device)
    else:
        weight = bnb.nn.Params4bit(value, requires_grad=False, compress_statistics=is_double, quant_type=kind)
        layer.weight = weight.to(device)
