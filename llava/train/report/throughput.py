"""How much a training step computes, and how much this machine can: operations by formula, and the peak.

Counted is what a step cannot do without, per weight of a linear layer and position that passes through it: 2 operations
in the forward pass, 2 for the gradient that passes through, and 2 for the weight's own gradient. So it is 6 per trained
weight and 4 per frozen one of the decoder, 6 in a trained tower and 2 in a frozen one; attention takes 6 L^2 C in each
layer (causal), and the head works at targets only. What is computed twice to save memory, padding, and vision layers
that are not read do not count.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# Operations per second in 16 bits, dense, summed in float32, by words of the card's name; the first that occurs counts.
# Source: NVIDIA's data sheets.
_PEAKS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "RTX 6000 Ada": 364e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A40": 150e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX A6000": 155e12,
    "RTX 5090": 209e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}
_MEASURED_S = 0.2


@dataclass(frozen=True)
class Costs:
    """Operations of forward and backward pass per position, squared length of a sample, target, and tile."""

    per_position: int
    per_square: int
    per_target: int
    per_tile: int

    def count(self, positions: float, squares: float, targets: float, tiles: float) -> float:
        """The operations of a batch."""
        return (
            self.per_position * positions
            + self.per_square * squares
            + self.per_target * targets
            + self.per_tile * tiles
        )


def measure_costs(model: Any, reads_cache: bool | None = None) -> Costs:
    """The costs of training a LLaVA model with what it has as trainable now; without PEFT's wrapper.

    ``reads_cache``: whether the tower's features come from the disk; None looks for the model's cache.
    """
    inner, tower, config = model.get_model(), model.get_vision_tower(), model.config
    per_tile = 0
    if tower is not None:
        projected = _sum_linear(inner.mm_projector.modules(), 2)
        learns = any(parameter.requires_grad for parameter in tower.parameters())
        per_tile = tower.num_patches * projected
        if reads_cache is None:
            reads_cache = getattr(model, "tower_cache", None) is not None
        if not reads_cache:
            blocks = [module for name, module in tower.named_modules() if _is_run(name, tower)]
            num_positions = tower.num_patches + 1  # and CLS
            attention = 4 * num_positions * tower.hidden_size * tower.num_blocks_run * (3 if learns else 1)
            per_tile += num_positions * (_sum_linear(blocks, 4 if learns else 2) + attention)
    return Costs(
        per_position=_sum_linear(inner.layers.modules(), 4),
        per_square=6 * config.hidden_size * config.num_hidden_layers,
        per_target=_sum_linear([model.lm_head], 4),
        per_tile=per_tile,
    )


def _is_run(name: str, tower: Any) -> bool:
    """Whether a module of the tower is in a block that runs."""
    if ".layers." not in name:
        return False
    return int(name.split(".layers.")[1].split(".")[0]) < tower.num_blocks_run


def _sum_linear(modules: Iterable[nn.Module], of_frozen: int) -> int:
    """The operations of these modules' linear layers per position: 6 per trained weight, ``of_frozen`` per other."""
    total = 0
    for module in modules:
        if isinstance(module, nn.Linear):  # sizes instead of weights, which may be quantized or sharded
            size = module.in_features * module.out_features
            total += size * (6 if module.weight.requires_grad else of_frozen)
    return total


def find_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second that this device can do at most: by its data sheet, or else in a short matrix product."""
    if device.type == "cuda" and dtype != torch.float32:
        name = torch.cuda.get_device_name(device)
        for part, peak in _PEAKS.items():
            if re.search(rf"\b{part}\b", name):  # an "RTX A1000" is no A100, and an L40 no L4
                return peak
    return _measure_peak(device, dtype)


def _measure_peak(device: torch.device, dtype: torch.dtype) -> float:
    side = 4096 if device.type == "cuda" else 1024
    one, other = (torch.ones(side, side, device=device, dtype=dtype) for _ in range(2))  # draws no random numbers
    best, end = 0.0, time.perf_counter() + _MEASURED_S
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        while time.perf_counter() < end:
            _synchronize(device)
            began = time.perf_counter()
            one @ other
            _synchronize(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
