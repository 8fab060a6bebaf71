"""The projector of the lexical tower: words keep their embeddings, things begin as the mean of their likely names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from llava.model.lexical.features import lay_out
from llava.model.lexical.projector import NUM_CELLS, NUM_WHOLE, LexicalProjector, expand_colours

WIDTH = 16
NAMES = [[(c + 7 * slot) % 300 for slot in range(NUM_WHOLE)] for c in range(1000)]
SLOTS = torch.arange(NUM_WHOLE + NUM_CELLS)


@pytest.fixture
def table() -> torch.Tensor:
    return torch.randn(400, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def projector() -> LexicalProjector:
    torch.manual_seed(0)
    projector = LexicalProjector(SimpleNamespace(hidden_size=WIDTH)).eval()
    projector.set_names(NAMES, torch.full((1280,), 0.3), torch.full((1280,), 0.5))
    return projector


def _looks(classes: tuple[int, ...], logit: float = 50.0) -> torch.Tensor:
    """Looks [15, 2283] of an image that is one of the classes, each as likely, in every cell."""
    looks = torch.rand(15, 2283, generator=torch.Generator().manual_seed(1))
    looks[:, 1280:2280] = 0
    looks[:, [1280 + c for c in classes]] = logit
    return looks


def test_words_become_their_own_embeddings(projector: LexicalProjector, table: torch.Tensor) -> None:
    rows = projector(lay_out(_looks((3,)), [5, 399, 257]), lambda ids: F.embedding(ids, table))
    assert rows.shape == (18, WIDTH)
    torch.testing.assert_close(rows[15:], table[[5, 399, 257]])


def test_before_training_a_sure_class_says_its_name(projector: LexicalProjector, table: torch.Tensor) -> None:
    rows = projector(lay_out(_looks((3,)), []), lambda ids: F.embedding(ids, table))
    torch.testing.assert_close(rows[:6], table[NAMES[3]])
    torch.testing.assert_close(rows[6:], 0.5 * table[NAMES[3][:1]].expand(9, -1))  # cells: its kind, at half strength


def test_before_training_two_likely_classes_are_averaged(projector: LexicalProjector, table: torch.Tensor) -> None:
    rows = projector(lay_out(_looks((3, 8)), []), lambda ids: F.embedding(ids, table))
    torch.testing.assert_close(rows[:6], (table[NAMES[3]] + table[NAMES[8]]) / 2)


def test_a_row_alone_gives_what_it_gives_among_others(projector: LexicalProjector, table: torch.Tensor) -> None:
    torch.nn.init.normal_(projector.outer[2].weight)
    torch.nn.init.normal_(projector.outer[6].weight)
    features = lay_out(_looks((3, 8), 2.0), [7])
    together = projector(features, lambda ids: F.embedding(ids, table))
    alone = torch.cat([projector(row[None], lambda ids: F.embedding(ids, table)) for row in features])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[6], together[7])  # cells differ by place


def test_every_learnt_weight_gets_a_gradient(projector: LexicalProjector, table: torch.Tensor) -> None:
    for layer in (*projector.outer, *projector.name_up):
        torch.nn.init.normal_(layer.weight)
    projector.say(_looks((3,)), SLOTS, lambda ids: F.embedding(ids, table)).square().sum().backward()
    learnt = {name: value for name, value in projector.named_parameters() if value.requires_grad}
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in learnt.values())
    assert {"name_digits", "feature_mean", "feature_scale"}.isdisjoint(learnt)


def test_bfloat16_keeps_the_names_exactly(projector: LexicalProjector) -> None:
    digits = projector.name_digits.clone()
    assert torch.equal(projector.to(torch.bfloat16).name_digits.float(), digits)


def test_the_projector_of_the_default_model_has_at_most_four_million_weights() -> None:
    with torch.device("meta"):
        projector = LexicalProjector(SimpleNamespace(hidden_size=576))
    assert sum(weight.numel() for weight in projector.parameters()) < 4e6


def test_expanded_colours_tell_hues_apart_and_have_none_for_gray() -> None:
    red, cyan, gray = expand_colours(torch.tensor([[1.0, 0, 0], [0, 1, 1], [0.5, 0.5, 0.5]]))
    assert red[6] > 0.9
    assert cyan[6] < -0.9
    assert abs(float(gray[6])) < 0.01
