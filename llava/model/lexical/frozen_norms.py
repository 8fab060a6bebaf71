"""Batch norms without statistics: a factor and a summand for each channel.

A trained batch norm of a network that is only run is no more than that, and has no buffers to store.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


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

    Parts that can fuse theirs with their convolutions do so (``fuse_norms``).
    """
    network.eval()
    # On the meta device torch computes in Python, for which it imports its compiler: seconds of a command's start.
    is_outline = any(parameter.is_meta for parameter in network.parameters())
    if is_outline:
        network.to_empty(device="cpu")
    for module in list(network.modules()):
        if hasattr(module, "fuse_norms"):
            module.fuse_norms()
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, _freeze(child))
    if is_outline:
        network.to("meta")


def _freeze(norm: Any) -> FrozenNorm:
    with torch.no_grad():
        weight = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return FrozenNorm(weight, norm.bias - norm.running_mean * weight)
