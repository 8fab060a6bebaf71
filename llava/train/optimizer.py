"""The optimizers that a recipe can name: AdamW, and Muon for matrices with AdamW for everything else.

Muon (torch.optim.Muon) orthogonalises the update of every hidden matrix; embeddings, heads, norms and biases stay
with AdamW. With ``match_rms_adamw`` both use learning rates of the same scale (Moonshot AI, arXiv:2502.16982).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from llava.train.parts import PartParameter

ParamGroups = list[dict[str, Any]]
BETAS = (0.9, 0.98)


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step as one; a group with ``muon=True`` goes to Muon, the others to AdamW."""

    def __init__(self, groups: ParamGroups, betas: tuple[float, float] = BETAS) -> None:
        for group in groups:
            group.setdefault("muon", False)
        parts: list[torch.optim.Optimizer] = []
        matrices = [group for group in groups if group["muon"]]
        others = [group for group in groups if not group["muon"]]
        if matrices:
            parts.append(torch.optim.Muon(matrices, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
        if others:
            parts.append(torch.optim.AdamW(others, betas=betas))
        super().__init__([group for part in parts for group in part.param_groups], {})
        # Both share the group dictionaries, so a scheduler that sets "lr" here sets it in the parts.
        self.parts = parts
        start = 0
        for part in parts:
            part.param_groups = self.param_groups[start : start + len(part.param_groups)]
            start += len(part.param_groups)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def is_hidden_matrix(each: PartParameter) -> bool:
    """Whether Muon may take this parameter: a 2-D weight that maps hidden states to hidden states."""
    path = f"{each.part}.{each.path}"
    return each.parameter.ndim == 2 and not any(part in path for part in ("embed", "head", "oracle"))


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
        return MuonWithAdamW(settings)
    for group in settings:
        del group["muon"]
    return torch.optim.AdamW(settings, betas=BETAS)
