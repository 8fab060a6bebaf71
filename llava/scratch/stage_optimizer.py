"""The optimizer of a stage from scratch: AdamW or Muon with weight decay for matrices, whichever part they are of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from llava.train.optimizer import MuonWithAdamW, is_hidden_matrix
from llava.train.parts import PartParameter

BETAS = (0.9, 0.98)


def build_optimizer(
    trainable: Sequence[PartParameter], kind: str, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer of that kind ("adamw" or "muon") for these parameters, with a group per part and learning rate.

    ``lr`` is multiplied by each parameter's scale. ``weight_decay`` applies to matrices, not to vectors.
    """
    groups: dict[tuple[str, float, bool, bool], dict[str, Any]] = {}
    for each in trainable:
        muon, decays = kind == "muon" and is_hidden_matrix(each), each.parameter.ndim >= 2
        group = groups.setdefault((each.part, each.scale, muon, decays), {"params": []})
        group["params"].append(each.parameter)
        group.update(lr=lr * each.scale, muon=muon, weight_decay=weight_decay if decays else 0.0)
    settings = list(groups.values())
    if kind == "muon":
        return MuonWithAdamW(settings, BETAS)
    for group in settings:
        del group["muon"]
    return torch.optim.AdamW(settings, betas=BETAS)
