"""Batch norms without statistics: a factor and a summand for each channel.

A trained batch norm of a network that is only run is no more than that, and has no buffers to store.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class FrozenNorm(nn.Module):
    """x * weight + bias, by channel; named like the batch norm that it stands for."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [B, C, ...]."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        return torch.addcmul(self.bias.view(shape), x, self.weight.view(shape))


def freeze_norms(network: nn.Module) -> None:
    """Replaces the batch norms inside of a network by what they do in evaluation mode.

    Parts that can fuse theirs with their convolutions do so (``fuse_norms``). On the meta device nothing is computed.
    """
    network.eval()
    for part in list(network.modules()):
        fuse: Any = getattr(part, "fuse_norms", None)
        if fuse is not None:
            fuse()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, _freeze(child))


def fuse(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution that does what the two do in evaluation mode, one after the other."""
    if not conv.weight.is_meta:
        return fuse_conv_bn_eval(conv, norm)
    # There torch computes in Python, for which it imports its compiler: seconds of a command's start.
    if conv.bias is None:
        conv.bias = _without_values(norm.bias)
    return conv


def _without_values(parameter: torch.Tensor) -> nn.Parameter:
    # Not torch.empty_like, which runs in Python there, too.
    return nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device="meta"))


def _freeze(norm: Any) -> FrozenNorm:
    if norm.weight.is_meta:
        return FrozenNorm(_without_values(norm.weight), _without_values(norm.bias))
    with torch.no_grad():
        weight = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return FrozenNorm(weight, norm.bias - norm.running_mean * weight)
