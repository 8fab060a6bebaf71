"""A linear layer whose matrix lies in 8 or 4 bits in a CPU's memory, and models made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llava.native import packed
from llava.native.packed import Packed

# The head decides between words that are close: it takes 8 bits whatever the layers take.
HEAD_BITS = 8


class PackedLinear(nn.Module):
    """``nn.Linear`` with a packed matrix. It unpacks the matrix for every call: the slow way, and right everywhere.

    The engine multiplies with the packed matrix itself.
    """

    data: torch.Tensor
    scales: torch.Tensor

    def __init__(self, matrix: Packed, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.bits, self.out_features, self.in_features = matrix.bits, matrix.rows, matrix.columns
        self.register_buffer("data", matrix.data)
        self.register_buffer("scales", matrix.scales)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @property
    def packed(self) -> Packed:
        return Packed(self.bits, self.out_features, self.in_features, self.data, self.scales)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # A change of the model's dtype is none of the packed numbers: their scales stay what they are.
        kept = self.data, self.scales
        super()._apply(fn, recurse)
        for name, tensor in zip(("data", "scales"), kept, strict=True):
            moved = getattr(self, name)
            setattr(self, name, moved if moved.dtype == tensor.dtype else tensor.to(moved.device))
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, packed.unpack(self.packed, x.dtype), self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}"


def pack_layer(model: nn.Module, name: str, weight: torch.Tensor, bits: int) -> None:
    """Puts a PackedLinear with this matrix in the place of a linear layer; its bias stays."""
    parent, _, own_name = name.rpartition(".")
    old = model.get_submodule(name)
    setattr(model.get_submodule(parent), own_name, PackedLinear(packed.pack(weight, bits), getattr(old, "bias", None)))


def pack_model(model: Any, bits: int) -> None:
    """Packs the decoder's matrices and the head of a model that is there whole, one after the other."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear):
            layer_bits = bits_for(f"{name}.weight", bits, model.config.tie_word_embeddings)
            if layer_bits < 16:
                pack_layer(model, name, layer.weight, layer_bits)


def bits_for(name: str, bits: int, is_tied: bool) -> int:
    """How many bits the weight of that name takes if the decoder's layers take ``bits``; 16 is as it is."""
    if bits < 16 and name.startswith("model.layers."):
        return bits
    return HEAD_BITS if bits < 16 and name == "lm_head.weight" and not is_tied else 16
