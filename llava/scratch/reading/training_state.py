"""A network in training with its optimizer and the running average of its weights, kept in one file."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def resume(path: Path, network: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer) -> int:
    """Reads what ``save`` wrote, if there is such a file; returns the number of steps done."""
    if not path.exists():
        return 0
    saved = torch.load(path, weights_only=True)
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    average.module.load_state_dict(saved.get("average", saved["network"]))
    step: int = saved["step"]
    return step


def save(path: Path, network: nn.Module, average: AveragedModel, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes everything that a continued training needs, whole or not at all."""
    state = {
        "network": network.state_dict(),
        "average": average.module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)
