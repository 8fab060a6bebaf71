"""Chooses the next tokens on the device, and fetches them in one copy that nobody waits for until they are needed.

Shape suffixes: L positions that a token is sampled from, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from llava.engine.launched_step import Sampled
from llava.engine.sampler import BadLogits, SampledToken, Sampler, describe_bad, sample_all


class ChosenTokens(NamedTuple):
    """Tokens int64 [L] on the device, or None where the host chooses; and a function that waits for what was chosen."""

    tokens_L: torch.Tensor | None
    read: Callable[[], Sequence[Sampled]]


def choose_tokens(logits_LV: torch.Tensor, samplers: list[Sampler]) -> ChosenTokens:
    """The next token of each sampler: on the device if all are greedy, else by ``sample_all``, which waits for it."""
    if not all(sampler.is_argmax for sampler in samplers):
        sampled = sample_all(logits_LV, samplers)
        return ChosenTokens(None, lambda: sampled)
    highest_L, tokens_L = logits_LV.max(-1)
    fetched = fetch(torch.stack([tokens_L.double(), highest_L.double()]))

    def read() -> list[Sampled]:
        tokens, highest = fetched().tolist()
        return [
            SampledToken(int(token)) if abs(logit) < float("inf") else BadLogits(describe_bad(logit))
            for token, logit in zip(tokens, highest, strict=True)
        ]

    return ChosenTokens(tokens_L, read)


def fetch(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A function that waits for a copy of ``tensor`` on the CPU, which starts now."""
    if tensor.device.type != "cuda":
        return lambda: tensor
    fetched = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    fetched.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def wait() -> torch.Tensor:
        event.synchronize()
        return fetched

    return wait
