"""Per-answer loss weighting: how much each token of an answer counts."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from llava.train.loss import build_answer_loss, weigh_answers

EOS = 2
# Answers of 4, 1 and 2 tokens with their end tokens, and the start of one that was truncated.
TARGETS = torch.tensor([7, 8, 9, EOS, EOS, 5, EOS, 6])


def test_every_answer_or_every_token_counts_alike() -> None:
    torch.testing.assert_close(weigh_answers(TARGETS, EOS, 0.0), torch.ones(8))
    weights = weigh_answers(TARGETS, EOS, 1.0)
    sums = [weights[:4].sum(), weights[4:5].sum(), weights[5:7].sum(), weights[7:].sum()]
    torch.testing.assert_close(torch.stack(sums), torch.full((4,), 2.0))
    half = weigh_answers(TARGETS, EOS, 0.5)
    assert float(half[4] / half[0]) == pytest.approx(2.0)
    assert float(half.mean()) == pytest.approx(1.0)


def test_the_loss_without_a_power_is_the_plain_mean() -> None:
    logits = torch.randn(8, 11, generator=torch.Generator().manual_seed(0))
    plain = functional.cross_entropy(logits, TARGETS)
    for power, equal in ((0.0, True), (0.5, False)):
        loss = build_answer_loss(EOS, power)(logits=logits, labels=None, shift_labels=TARGETS, vocab_size=11)
        assert torch.isclose(loss, plain) == equal
