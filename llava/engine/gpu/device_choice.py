"""Chooses the next tokens on the device, and fetches them in one copy that nobody waits for until they are needed.

Shape suffixes: L positions that a token is sampled from, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llava.engine.launched_step import LaunchedStep, Sampled
from llava.engine.request import Request
from llava.engine.sampler import BadLogits, SampledToken, Sampler, describe_bad, sample_all


def choose_tokens(
    logits_LV: torch.Tensor,
    requests: Sequence[Request],
    sampler_of: Callable[[Request], Sampler],
    keep: Callable[[torch.Tensor], None] | None = None,
) -> LaunchedStep:
    """The step that chooses the next token of each request: on the device if all are greedy, else by ``sample_all``.

    ``keep``: takes the tokens int64 [L] that were chosen on the device; with it the next step need not wait for them.
    """
    samplers = [sampler_of(request) for request in requests]
    if not all(sampler.is_argmax for sampler in samplers) or not samplers:
        sampled = sample_all(logits_LV, samplers) if samplers else []
        return LaunchedStep(requests, lambda launched: sampled)
    highest_L, tokens_L = logits_LV.max(-1)
    if keep is not None:
        keep(tokens_L)
    fetched = fetch(torch.stack([tokens_L.double(), highest_L.double()]))

    def read(launched: LaunchedStep) -> list[Sampled]:
        tokens, highest = fetched().tolist()
        return [
            SampledToken(int(token)) if abs(logit) < float("inf") else BadLogits(describe_bad(logit))
            for token, logit in zip(tokens, highest, strict=True)
        ]

    return LaunchedStep(requests, read, can_wait=keep is not None)


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
