"""Per-answer loss weighting: how much each token of an answer counts.

With a plain mean over tokens, a caption of 60 tokens counts 30 times as much as a "yes", and tasks that only short
answers teach (relations, comparisons) are learnt last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional


def weigh_answers(targets: torch.Tensor, eos_token_id: int, power: float) -> torch.Tensor:
    """Weights [N] of mean 1 for target tokens [N] in reading order; every answer has to end with ``eos_token_id``.

    A token of an answer of n tokens weighs n ** -power, so that with a power of 0 all tokens count equally, and with a
    power of 1 all answers.
    """
    ends = targets == eos_token_id
    answer = ends.cumsum(0) - ends.long()
    lengths = torch.bincount(answer)
    weights = lengths[answer].float().pow(-power)
    return weights / weights.mean()


def build_answer_loss(eos_token_id: int, power: float) -> Callable[..., torch.Tensor]:
    """A ``loss_function`` for Transformers' models, over logits [N, V] of the N target positions only.

    ``power``: see ``weigh_answers``. The weights' mean is 1 over each forward pass; where an update has several, each
    counts by its number of targets, of ``num_items_in_batch`` in all.
    """

    def answer_loss(
        logits: torch.Tensor,
        labels: Any,
        vocab_size: int,
        shift_labels: torch.Tensor,
        num_items_in_batch: Any = None,
        **_kwargs: Any,
    ) -> torch.Tensor:
        assert labels is None
        each = functional.cross_entropy(logits.float(), shift_labels, reduction="none")
        weighted = each * weigh_answers(shift_labels, eos_token_id, power)
        return weighted.mean() if num_items_in_batch is None else weighted.sum() / num_items_in_batch

    return answer_loss
