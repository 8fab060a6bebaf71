"""The optimizers a recipe can name: AdamW, and Muon for matrices with AdamW for everything else.

Muon (torch.optim.Muon) orthogonalises the update of every hidden matrix; embeddings, heads, norms and biases stay
with AdamW. With ``match_rms_adamw`` both take learning rates of the same scale (Moonshot AI, arXiv:2502.16982).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

ParamGroups = list[dict[str, Any]]


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step as one; a group with ``muon=True`` goes to Muon, the others to AdamW."""

    def __init__(self, groups: ParamGroups, betas: tuple[float, float] = (0.9, 0.98)) -> None:
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


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon may take this parameter: a 2-D weight that maps hidden states to hidden states."""
    return parameter.ndim == 2 and not any(part in name for part in ("embed", "lm_head", "head", "oracle"))


def build_optimizer(
    model: nn.Module,
    kind: str,
    lr: float,
    weight_decay: float = 0.0,
    lr_scales: Iterable[tuple[str, float]] = (),
) -> torch.optim.Optimizer:
    """The optimizer for the trainable parameters of a model.

    ``lr_scales`` are (part of a parameter's name, factor): the first that matches sets the group's rate, as
    mm_projector_lr and mm_vision_tower_lr do in the original.
    """
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = next((factor for part, factor in lr_scales if part in name), 1.0)
        muon = kind == "muon" and is_hidden_matrix(name, parameter)
        decays = parameter.ndim >= 2
        groups.setdefault((scale, muon, decays), []).append(parameter)
    settings: ParamGroups = [
        {"params": params, "lr": lr * scale, "muon": muon, "weight_decay": weight_decay if decays else 0.0}
        for (scale, muon, decays), params in groups.items()
    ]
    if kind == "muon":
        return MuonWithAdamW(settings)
    for group in settings:
        del group["muon"]
    return torch.optim.AdamW(settings, betas=(0.9, 0.98))
