"""The optimizers update the right parameters at the right rates, and resume from a saved state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llava.scratch.stage_optimizer import build_optimizer
from llava.train.optimizer import MuonWithAdamW
from llava.train.parts import PartParameter, choose_trainable, scale_rates


def make(kind: str = "muon") -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    parts = {"all": {"": model}}
    trainable = scale_rates(choose_trainable(model, parts, ["all"], "Here"), parts, {"1": 0.5}, "Here")
    return model, build_optimizer(trainable, kind, 1e-2, weight_decay=0.1)


def step(optimizer: torch.optim.Optimizer, model: nn.Module, *values: float) -> None:
    for value in values:
        optimizer.zero_grad()
        model(torch.full((2, 4), value)).pow(2).sum().backward()
        optimizer.step()


def test_muon_updates_matrices_adamw_the_rest_and_a_saved_state_resumes_identically() -> None:
    model, optimizer = make()
    assert isinstance(optimizer, MuonWithAdamW)
    assert {group["lr"] for group in optimizer.param_groups} == {1e-2, 5e-3}
    assert sum(len(group["params"]) for group in optimizer.param_groups if group["muon"]) == 2
    step(optimizer, model, 1.0, 2.0, 3.0, 4.0)
    again, resumed = make()
    step(resumed, again, 1.0, 2.0)
    saved, weights = resumed.state_dict(), again.state_dict()
    other, optimizer_of_other = make()
    other.load_state_dict(weights)
    optimizer_of_other.load_state_dict(saved)
    step(optimizer_of_other, other, 3.0, 4.0)
    for name, value in model.state_dict().items():
        assert torch.allclose(value, other.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_parameter_is_in_one_group_and_only_matrices_decay(kind: str) -> None:
    model, optimizer = make(kind)
    found: list[Any] = [(p, group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p, _ in found} == {id(p) for p in model.parameters()}
    assert len(found) == 6
    assert all((decay > 0) == (p.ndim == 2) for p, decay in found)


def test_muon_leaves_embeddings_and_heads_to_adamw() -> None:
    matrix = nn.Parameter(torch.ones(2, 2))
    names = ("embed_tokens.weight", "lm_head.weight", "layers.0.mlp.up_proj.weight")
    trainable = [PartParameter("language_model", name, nn.Parameter(matrix.detach().clone()), False) for name in names]
    groups = build_optimizer(trainable, "muon", 1e-2, 0.0).param_groups
    assert [len(group["params"]) for group in groups if group["muon"]] == [1]
    assert [len(group["params"]) for group in groups if not group["muon"]] == [2]
