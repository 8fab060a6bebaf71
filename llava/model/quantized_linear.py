"""Linear layers with matrices of 8 or 4 bits, and functions that put them into a model.

Under adapters that are not merged, and in training: ``bnb_quantization``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llava.native import quantization
from llava.native.quantization import QuantizedMatrix

# The head decides between tokens with close logits: it takes 8 bits whatever the layers take.
HEAD_BITS = 8


class QuantizedLinear(nn.Module):
    """``nn.Linear`` with a quantized matrix, which it dequantizes in every call: slow, and correct on every device.

    The engine's native layers, and its fused layers on a GPU, multiply by the quantized matrix itself.
    """

    data: torch.Tensor
    scales: torch.Tensor

    def __init__(self, matrix: QuantizedMatrix, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.bits, self.out_features, self.in_features = matrix.bits, matrix.rows, matrix.columns
        self.register_buffer("data", matrix.data)
        self.register_buffer("scales", matrix.scales)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def quantized(self) -> QuantizedMatrix:
        """The quantized matrix, [out_features, in_features]."""
        return QuantizedMatrix(self.bits, self.out_features, self.in_features, self.data, self.scales)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # A change of the model's dtype does not change the scales, which belong to the quantized integers.
        kept = self.data, self.scales
        super()._apply(fn, recurse)
        for name, tensor in zip(("data", "scales"), kept, strict=True):
            moved = getattr(self, name)
            setattr(self, name, moved if moved.dtype == tensor.dtype else tensor.to(moved.device))
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, quantization.dequantize(self.quantized, x.dtype), self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


def quantize_linear(model: nn.Module, name: str, weight: torch.Tensor, bits: int) -> None:
    """Replaces a linear layer by a QuantizedLinear of this matrix, with the same bias and the same image adapter."""
    parent, _, own_name = name.rpartition(".")
    old: Any = model.get_submodule(name)
    layer = QuantizedLinear(quantization.quantize(weight, bits), getattr(old, "bias", None))
    if hasattr(old, "give_adapter_to"):
        old.give_adapter_to(layer)
    setattr(model.get_submodule(parent), own_name, layer)


def quantize_linears(model: Any, bits: int, device: torch.device | None = None) -> None:
    """Quantizes the decoder's matrices and the head of a loaded model, one after the other.

    ``device``: where each matrix goes before it is quantized there, and the rest of the model after it.
    """
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear):
            layer_bits = bits_for(f"{name}.weight", bits, model.config.tie_word_embeddings)
            if layer_bits < 16:
                quantize_linear(model, name, layer.weight.to(device or layer.weight.device), layer_bits)
    if device is not None:
        model.to(device)


def bits_for(name: str, bits: int, is_tied: bool) -> int:
    """How many bits the weight of that name takes if the decoder's layers take ``bits``; 16 means not quantized."""
    if bits < 16 and name.startswith("model.layers."):
        return bits
    return HEAD_BITS if bits < 16 and name == "lm_head.weight" and not is_tied else 16
