"""Groups of parameters with their learning rates and weight decay, and Muon with AdamW, an optimizer of our own.

The groups are the originals': weight decay for everything but norms and biases, and a pair of groups for each rate.
Transformers makes the optimizer itself, whichever ``optim`` names.

Muon (torch.optim.Muon) orthogonalises the update of every hidden matrix; embeddings, heads, norms and biases stay with
AdamW. With ``match_rms_adamw`` both use learning rates of the same scale (Moonshot AI, arXiv:2502.16982).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from llava.errors import UsageError
from llava.train.parts import PartParameter

ParamGroups = list[dict[str, Any]]

# The originals' order of the groups that have a rate of their own; they come after those that have the stage's.
_ORDER = ("", "projector", "vision_tower")


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers that step as one; a group with ``muon=True`` goes to Muon, the others to AdamW."""

    def __init__(self, groups: ParamGroups, betas: tuple[float, float], eps: float = 1e-8) -> None:
        for group in groups:
            group.setdefault("muon", False)
        parts: list[torch.optim.Optimizer] = []
        matrices = [group for group in groups if group["muon"]]
        others = [group for group in groups if not group["muon"]]
        if matrices:
            parts.append(torch.optim.Muon(matrices, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
        if others:
            parts.append(torch.optim.AdamW(others, betas=betas, eps=eps))
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


def build_groups(
    trainable: Sequence[PartParameter], lr: float, weight_decay: float, *, muon: bool = False
) -> ParamGroups:
    """The optimizer's groups: for each key of ``lr_scales`` two, with weight decay and without; none is empty.

    The stage's own rate comes first, then the projector's, the tower's, and others as they occur. Norms and biases have
    no weight decay.

    Args:
        muon: also tell apart the matrices that Muon takes, by a key "muon" in every group.

    Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/llava_trainer.py (create_optimizer).
    """
    keys = [*_ORDER, *dict.fromkeys(each.key for each in trainable if each.key not in _ORDER)]
    groups: ParamGroups = []
    for key in keys:
        for is_norm_or_bias in (False, True):
            members = [each for each in trainable if (each.key, each.is_norm_or_bias) == (key, is_norm_or_bias)]
            for takes_muon in (True, False) if muon else (None,):
                chosen = [each for each in members if takes_muon is None or is_hidden_matrix(each) is takes_muon]
                if not chosen:
                    continue
                group: dict[str, Any] = {
                    "params": [each.parameter for each in chosen],
                    "lr": lr * chosen[0].scale,
                    "weight_decay": 0.0 if is_norm_or_bias else weight_decay,
                }
                groups.append(group if takes_muon is None else {**group, "muon": takes_muon})
    return groups


def check_groups(groups: ParamGroups, trainable: Sequence[PartParameter], root: nn.Module, lr: float) -> None:
    """Checks what was announced: each trainable parameter is in one group, at its rate, and every rate is used.

    Raises:
        UsageError: a parameter that is trained is in no group or in several, is announced but frozen, or has another
            rate than announced.
    """
    names = {id(parameter): name for name, parameter in root.named_parameters()}
    wanted = {id(each.parameter): lr * each.scale for each in trainable}
    found = Counter(id(parameter) for group in groups for parameter in group["params"])
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    for name, parameter in root.named_parameters():
        if parameter.requires_grad != (id(parameter) in wanted):
            state = "trainable, but was not announced" if parameter.requires_grad else "announced, but is frozen"
            raise UsageError(f"{name} is {state}. Something froze or released parameters after they were chosen.")
    for key, rate in wanted.items():
        if found[key] != 1:
            raise UsageError(f"{names.get(key, 'A parameter')} is in {found[key]} groups of the optimizer, not in one.")
        if abs(rates[key] - rate) > 1e-9 * abs(rate):
            raise UsageError(
                f"{names.get(key, 'A parameter')} would be trained at {rates[key]:.3g}, not at {rate:.3g}."
            )


def name_rates(args: Any) -> Mapping[str, float]:
    """The originals' rates of single parts as factors on the learning rate: mm_projector_lr, mm_vision_tower_lr.

    Raises:
        UsageError: the learning rate is 0, so that there is no factor.
    """
    given = {
        "projector": getattr(args, "mm_projector_lr", None),
        "vision_tower": getattr(args, "mm_vision_tower_lr", None),
    }
    rates = {part: rate for part, rate in given.items() if rate is not None}
    if rates and not args.learning_rate > 0:
        raise UsageError(f"learning_rate is {args.learning_rate} and must be above 0, also where parts have their own.")
    return {part: rate / args.learning_rate for part, rate in rates.items()}
