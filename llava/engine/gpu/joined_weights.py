"""Joins the matrices of a decoder that are multiplied by the same rows: q, k and v, and gate and up.

No second copy is kept: the modules' own parameters become views of the joined matrix. Whatever changes them in place
changes both, and whatever replaces one of them is noticed by ``Runner.has_new_weights``, after which they are joined
anew.

Shape suffixes: M rows, K input features, N output features.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llava.model.quantized_linear import QuantizedLinear
from llava.native.calls import LANES
from llava.native.quantization import QuantizedMatrix


@dataclass(frozen=True)
class JoinedLinear:
    """One or several linear layers of the same input as one: their matrices, and biases, below each other."""

    matrix_NK: torch.Tensor | QuantizedMatrix
    bias_N: torch.Tensor | None

    @classmethod
    def of(cls, modules: Sequence[nn.Module]) -> JoinedLinear:
        """The layers ``modules``, all ``nn.Linear`` or all ``QuantizedLinear``; their tensors become views of it."""
        biases = [module.bias for module in modules]
        bias = None if biases[0] is None else _join([_Place.of_parameter(bias) for bias in biases])
        if isinstance(modules[0], nn.Linear):
            return cls(_join([_Place.of_parameter(module.weight) for module in modules]), bias)
        return cls(_join_quantized([module for module in modules if isinstance(module, QuantizedLinear)]), bias)


@dataclass(frozen=True)
class _Place:
    """A tensor of a module, and how another one of the same values is put in its place."""

    tensor: torch.Tensor
    owner: Any
    name: str

    @classmethod
    def of_parameter(cls, parameter: Any) -> _Place:
        return cls(parameter.detach(), parameter, "data")


def _join(places: Sequence[_Place]) -> torch.Tensor:
    """The tensors at ``places`` as one, along their first dimension, of which they become views."""
    tensors = [place.tensor for place in places]
    if _are_joined(tensors):
        first = tensors[0]
        return first.as_strided((sum(map(len, tensors)), *first.shape[1:]), first.stride())
    joined = torch.cat(tensors)
    for place, part in zip(places, joined.split([len(tensor) for tensor in tensors]), strict=True):
        setattr(place.owner, place.name, part)
    return joined


def _are_joined(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether each tensor begins where the one before it ends, in one storage."""
    first = tensors[0]
    place = first.data_ptr()
    for tensor in tensors:
        is_next = tensor.data_ptr() == place and tensor.is_contiguous()
        if not is_next or tensor.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return False
        place += tensor.nbytes
    return True


def _join_quantized(modules: Sequence[QuantizedLinear]) -> QuantizedMatrix:
    """Quantized matrices as one: strips of 16 rows below each other, so all but the last need whole strips."""
    assert all(module.out_features % LANES == 0 for module in modules[:-1])
    data, scales = (
        _join([_Place(getattr(module, name), module, name) for module in modules]) for name in ("data", "scales")
    )
    rows = sum(module.out_features for module in modules)
    return QuantizedMatrix(modules[0].bits, rows, modules[0].in_features, data, scales)


def find_obstacle(groups: Iterable[Sequence[Any]]) -> str | None:
    """Why some group of linear layers cannot be joined; None if all can.

    Parameters that several modules share would no longer be shared after it.
    """
    seen: set[int] = set()
    for modules in groups:
        if len({type(module) for module in modules}) > 1 or type(modules[0]) not in (nn.Linear, QuantizedLinear):
            return "a matrix is quantized in another way or has an adapter"
        if len({module.bias is None for module in modules}) > 1:
            return "only some of the matrices that are multiplied together have a bias"
        for module in modules:
            tensors = [module.weight] if isinstance(module, nn.Linear) else [module.data, module.scales]
            if module.bias is not None:
                tensors.append(module.bias)
            places = {tensor.data_ptr() for tensor in tensors}
            if places & seen:
                return "two modules share a matrix"
            seen |= places
        if isinstance(modules[0], QuantizedLinear):
            if len({module.bits for module in modules}) > 1:
                return "the matrices that are multiplied together have different numbers of bits"
            if any(module.out_features % LANES for module in modules[:-1]):
                return f"a quantized matrix has a number of rows that is not a multiple of {LANES}"
        elif len({(module.weight.dtype, module.weight.device) for module in modules}) > 1:
            return "the matrices that are multiplied together differ in dtype or device"
    return None
