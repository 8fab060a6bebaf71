"""Chooses the next tokens on the device, and fetches them in one copy that nobody waits for until they are needed.

Shape suffixes: L positions that a token is sampled from, V vocabulary, P sampling parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from llava.engine.choose import NUM_CANDIDATES, pack_choice
from llava.engine.gpu.device_rows import send
from llava.engine.launched_step import LaunchedStep, Sampled
from llava.engine.request import Request
from llava.engine.sampler import Sampler, check_logits, pack_parameters, sample_all

# Given the parameters, float64 [P, L] on the CPU, or None where all are greedy: the packed choice on the device.
Choose = Callable[["torch.Tensor | None"], torch.Tensor]


def choose_now(logits_LV: torch.Tensor, lines_PL: torch.Tensor | None) -> torch.Tensor:
    """``pack_choice`` with parameters from the CPU."""
    return pack_choice(logits_LV, None if lines_PL is None else send(lines_PL, logits_LV.device))


def launch_choice(
    requests: Sequence[Request],
    sampler_of: Callable[[Request], Sampler],
    logits_LV: torch.Tensor,
    choose: Choose,
    is_kept: bool,
) -> LaunchedStep:
    """The step in which each request's next token is chosen: on the device if all can be, else on the CPU.

    ``is_kept``: whether ``choose`` leaves the tokens where the next step finds them.
    """
    samplers = [sampler_of(request) for request in requests]
    if not all(map(_suits_device, samplers)):
        sampled = sample_all(fetch(logits_LV)(), samplers)
        return LaunchedStep(requests, lambda launched: sampled)
    uniforms = [sampler.draw_uniform() for sampler in samplers]
    lines_PL = None
    if any(sampler.sampling.temperature > 0 for sampler in samplers):
        lines_PL = pack_parameters(samplers, uniforms)
    fetched = fetch(choose(lines_PL))
    # The next step overwrites the logits, and only then is it known whether they are needed.
    spare_LV = logits_LV.clone() if any(map(_may_need_fallback, samplers)) else None

    def read(launched: LaunchedStep) -> list[Sampled]:
        sampled: list[Sampled] = []
        for i, (token, highest, needs_fallback) in enumerate(fetched().T.tolist()):
            if requests[i] in launched.void:
                sampled.append(RuntimeError("the device ran another token than the one that was chosen"))
                continue
            try:
                check_logits(highest)
                if needs_fallback:
                    assert spare_LV is not None
                    token = samplers[i].draw(samplers[i].warp(spare_LV[i]), uniforms[i])
                    launched.corrected.add(requests[i].arrival)
                sampled.append(samplers[i].accept(int(token)))
            except Exception as error:  # fails this request alone
                sampled.append(error)
        return sampled

    def undo(request: Request) -> None:
        place = requests.index(request)
        samplers[place].return_uniform(uniforms[place])

    return LaunchedStep(requests, read, can_wait=is_kept, on_void=undo)


def _suits_device(sampler: Sampler) -> bool:
    """Whether none of the request's tokens needs more than its logits and sampling parameters to be chosen."""
    sampling = sampler.sampling
    return sampler.is_plain and not sampling.has_penalties and sampling.logprobs is None


def _may_need_fallback(sampler: Sampler) -> bool:
    temperature, top_k, top_p, _ = sampler.parameters
    return temperature > 0 and (top_p < 1 or top_k > NUM_CANDIDATES)


def fetch(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A function that waits for a copy of ``tensor`` on the CPU, which starts now."""
    if tensor.device.type != "cuda":
        copied = tensor.clone()
        return lambda: copied
    fetched = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    fetched.copy_(tensor, non_blocking=True)
    event = torch.cuda.Event()
    event.record()

    def wait() -> torch.Tensor:
        event.synchronize()
        return fetched

    return wait
