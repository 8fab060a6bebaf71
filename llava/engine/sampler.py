"""The sampler: logits become a token, with each request's own sampling parameters.

The order is that of Transformers' ``generate``: penalties, temperature, top-k, top-p, min-p. Before all of them the
request's grammar masks the tokens that it does not allow. Everything else that ``generate`` can be asked for is done by
its own logits processors (``Processors``). Log-probabilities are the model's own, from the logits as they arrive.

``sample_all`` chooses for all requests of a step at once. ``Sampler.sample`` is its slow reference for one request,
and the way of the requests that have processors. Both draw with one uniform number, so that they choose the same token.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from transformers.generation.logits_process import LogitsProcessorList

from llava.engine.choose import pack_choice, penalize_seen, rank
from llava.engine.grammar import GrammarMatcher
from llava.errors import LlavaError, UsageError
from llava.model.generation import Processors
from llava.native import calls, library
from llava.sampling import Sampling


class BadLogits(LlavaError):
    """The model's logits are NaN or infinite."""


class SampledToken(NamedTuple):
    """A token id, and where asked for its natural log-probability and the likeliest (id, log-probability) pairs."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class Sampler:
    """Samples the tokens of one request: holds its parameters, random generator, grammar and output so far."""

    sampling: Sampling
    counts: Counter[int] = field(default_factory=Counter)
    grammar: GrammarMatcher | None = None
    processors: Processors | None = None
    _output_ids: list[int] = field(default_factory=list)
    _returned: list[float] = field(default_factory=list)

    @property
    def is_plain(self) -> bool:
        """Whether the next token is chosen from the logits as they arrive."""
        return self.processors is None and self.grammar is None and not (self._has_penalties and self.counts)

    @cached_property
    def _has_penalties(self) -> bool:
        return self.sampling.has_penalties

    @cached_property
    def parameters(self) -> tuple[float, int, float, float]:
        """Temperature, top-k, top-p and min-p, with the numbers of ``Parameters`` for what is off."""
        sampling = self.sampling
        return sampling.temperature, sampling.top_k or 0, sampling.top_p or 1.0, sampling.min_p

    def draw_uniform(self) -> float:
        """The next number in [0, 1) of the request's own generator; greedy requests need none."""
        if self._returned:
            return self._returned.pop()
        return 0.0 if self.sampling.temperature == 0 else self._random.random()

    def return_uniform(self, uniform: float) -> None:
        """Makes ``draw_uniform`` return this number of its own again, since what was drawn with it means nothing."""
        self._returned.append(uniform)

    @cached_property
    def _random(self) -> random.Random:
        assert self.sampling.seed is not None, "the engine gives every sampled request a seed"
        return random.Random(self.sampling.seed % 2**63)

    def sample(self, logits_V: torch.Tensor) -> SampledToken:
        """The next token from float32 logits [V]. Raises UsageError for parameters that allow no token."""
        token = self.draw(self.process(logits_V), self.draw_uniform())
        if self.sampling.logprobs is None:
            return self.accept(token)
        best = logits_V.topk(min(self.sampling.logprobs, len(logits_V))).indices
        return self.accept(token, logits_V, float(logits_V.double().logsumexp(-1)), best.tolist())

    def draw(self, processed_V: torch.Tensor, uniform: float) -> int:
        """The token at which the CDF, over the tokens in the order of their ids, first exceeds the number in [0, 1)."""
        if self.sampling.temperature == 0:
            return int(processed_V.argmax())
        cdf_V = processed_V.double().softmax(-1).cumsum(-1)
        return int(torch.searchsorted(cdf_V, uniform * cdf_V[-1:], right=True))

    def accept(
        self, token: int, logits_V: torch.Tensor | None = None, log_sum: float = 0.0, best: Sequence[int] = ()
    ) -> SampledToken:
        """Records a token, which the grammar may replace, and returns it; with ``logits_V``, with log-probabilities.

        ``log_sum``: the logarithm of the sum of e**logit. ``best``: the likeliest tokens. Raises BadSchema.
        """
        if self.grammar is not None:
            token = self.grammar.accept(token, self.sampling.max_new_tokens - len(self._output_ids) - 1)
        self._output_ids.append(token)
        self.counts[token] += 1
        if logits_V is None:
            return SampledToken(token)
        mine, *others = (logit - log_sum for logit in logits_V[[token, *best]].tolist())
        return SampledToken(token, mine, tuple(zip(best, others, strict=True)))

    def process(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits [V] after grammar, penalties, processors, temperature and filters; the token is drawn from these.

        Raises UsageError where no token is left.
        """
        return self.warp(self.prepare(logits_V))

    def warp(self, processed_V: torch.Tensor) -> torch.Tensor:
        """The logits [V] of ``prepare`` after temperature and filters. Raises UsageError where no token is left."""
        sampling, processors = self.sampling, self.processors
        highest = processed_V.max()
        check_highest(float(highest))
        if sampling.temperature > 0:
            # The smallest temperatures overflow float32; in float64 the likeliest token is then the only one left.
            processed_V = ((processed_V.double() - highest) / sampling.temperature).float()
        if processors is not None and processors.after:
            processed_V = self._run_processors(processors.after, processed_V)
        elif sampling.temperature > 0:
            processed_V = filter_logits(processed_V, sampling)
        return processed_V

    def prepare(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits [V] after all that comes before the temperature."""
        processors = self.processors
        allowed_V = None if self.grammar is None else self.grammar.mask_logits(logits_V)
        processed_V = logits_V if allowed_V is None else allowed_V
        if allowed_V is not None and processors is not None:
            # Processors get finite logits: some turn minus infinity into NaN, or make a forbidden token likely.
            processed_V = torch.where(allowed_V == -torch.inf, logits_V, allowed_V)
        if self._has_penalties and self.counts:
            processed_V = self._apply_penalties(processed_V)
        if processors is not None:
            processed_V = self._run_processors(processors.before, processed_V)
        return processed_V if allowed_V is None else _reapply_mask(processed_V, allowed_V)

    def _apply_penalties(self, logits_V: torch.Tensor) -> torch.Tensor:
        sampling = self.sampling
        seen, times = torch.tensor(list(self.counts)), torch.tensor(list(self.counts.values()))
        # With processors, one of them applies the repetition penalty.
        factor = (sampling.repetition_penalty or 1.0) if self.processors is None else 1.0
        penalties = torch.tensor([factor, sampling.presence_penalty, sampling.frequency_penalty], dtype=torch.float64)
        return logits_V.index_copy(0, seen, penalize_seen(logits_V[seen], times, *penalties))

    def _run_processors(self, processors: LogitsProcessorList, logits_V: torch.Tensor) -> torch.Tensor:
        return processors(torch.tensor([self._output_ids], dtype=torch.long), logits_V[None])[0]


def _reapply_mask(processed_V: torch.Tensor, allowed_V: torch.Tensor) -> torch.Tensor:
    """Processed logits [V], minus infinity where the grammar's logits are.

    The grammar takes precedence: where the sampling parameters bar every token that it allows, such as a key that
    ``no_repeat_ngram_size`` lets come only once, they are ignored for this token.
    """
    if processed_V is allowed_V:
        return allowed_V
    masked_V = processed_V.masked_fill(allowed_V == -torch.inf, -torch.inf)
    return masked_V if bool(masked_V.max().isfinite()) else allowed_V


def check_highest(highest: float) -> None:
    """Raises UsageError for a highest logit that is not finite after the request's own settings."""
    if not math.isfinite(highest):
        raise UsageError(
            f"The highest logit for the next token is {highest}: the request's penalties are too large, or "
            "too many words and tokens are barred. Use smaller penalties, or bar fewer."
        )


def check_logits(highest: float) -> None:
    """Raises BadLogits for a highest logit that is not finite as the model gave it."""
    if not math.isfinite(highest):
        raise BadLogits(f"The model's logits for the next token contain {highest}: it cannot go on.")


def filter_logits(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits [V], minus infinity where top-k, top-p or min-p removes a token."""
    if sampling.top_k is not None and sampling.top_k < len(logits_V):
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(sampling.top_k).values[-1], -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        # Of tokens that tie, those with the lowest ids come last, so that the first of them is kept the longest.
        descending, order = logits_V.sort(descending=True, stable=True)
        ascending = descending.flip(0)
        # A token is removed if it and all less likely ones together have at most 1 - top_p; the likeliest stays.
        is_removed = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        is_removed[-1] = False
        logits_V = logits_V.masked_fill(is_removed.scatter(0, order.flip(0), is_removed), -torch.inf)
    if sampling.min_p > 0:
        probabilities = logits_V.softmax(-1)
        logits_V = logits_V.masked_fill(probabilities < sampling.min_p * probabilities.max(), -torch.inf)
    return logits_V


def sample_all(logits_NV: torch.Tensor, samplers: list[Sampler]) -> list[SampledToken | Exception]:
    """The next token of each request from float32 logits [N, V], or its error: BadLogits or what its sampler raised."""
    sampled: dict[int, SampledToken | Exception] = {}
    prepared: dict[int, torch.Tensor] = {}  # where the logits are not those that arrived
    for i, sampler in enumerate(samplers):
        if sampler.is_plain:
            continue
        logits_V = logits_NV[i].cpu()
        try:
            if sampler.processors is None or not sampler.processors.mends_invalid:
                check_logits(float(logits_V.max()))
            if sampler.processors is not None:
                sampled[i] = sampler.sample(logits_V)
            else:
                prepared[i] = sampler.prepare(logits_V)
        except Exception as error:  # fails this request alone
            sampled[i] = error
    rows = [i for i in range(len(samplers)) if i not in sampled]
    if rows:
        is_native = logits_NV.device.type == "cpu" and library.load() is not None
        choose_rows = _choose_natively if is_native else _choose_by_torch
        try:
            chosen = choose_rows(logits_NV, rows, prepared, samplers)
        except Exception as error:  # no memory is left; the requests that were sampled above go on
            return [sampled.get(i, error) for i in range(len(samplers))]
        for i, token, highest, best, log_sum in zip(rows, *chosen, strict=True):
            try:
                (check_highest if i in prepared else check_logits)(highest)
                wants_logprobs = samplers[i].sampling.logprobs is not None
                sampled[i] = samplers[i].accept(token, logits_NV[i] if wants_logprobs else None, log_sum, best)
            except Exception as error:
                sampled[i] = error
    return [sampled[i] for i in range(len(samplers))]


def _choose_natively(
    logits_NV: torch.Tensor, rows: Sequence[int], prepared: Mapping[int, torch.Tensor], samplers: Sequence[Sampler]
) -> calls.Chosen:
    """The next tokens of some rows, and what their log-probabilities need, by the native library."""
    assert logits_NV.dtype == torch.float32
    logits_NV = logits_NV.contiguous()
    num_tokens, first, row_bytes = logits_NV.shape[1], logits_NV.data_ptr(), logits_NV.stride(0) * logits_NV.itemsize
    originals = [first + i * row_bytes for i in rows]
    asking = [samplers[i] for i in rows]
    return calls.choose(
        num_tokens,
        [prepared[i].data_ptr() if i in prepared else row for i, row in zip(rows, originals, strict=True)],
        [(*sampler.parameters, sampler.draw_uniform()) for sampler in asking],
        originals,
        [-1 if (num := sampler.sampling.logprobs) is None else min(num, num_tokens) for sampler in asking],
    )


def _choose_by_torch(
    logits_NV: torch.Tensor, rows: Sequence[int], prepared: Mapping[int, torch.Tensor], samplers: Sequence[Sampler]
) -> calls.Chosen:
    """The same on any device."""
    device = logits_NV.device
    if device.type == "cpu" and len(rows) > 1:  # one by one: the intermediate results of one row fit into its caches
        apart = [_choose_by_torch(logits_NV, [i], prepared, samplers) for i in rows]
        return calls.Chosen(*(list(itertools.chain(*parts)) for parts in zip(*apart, strict=True)))
    logits_MV = torch.stack([prepared[i].to(device) if i in prepared else logits_NV[i] for i in rows])
    if all(samplers[i].sampling.temperature == 0 for i in rows):
        best_M = logits_MV.max(-1)
        tokens, highest = best_M.indices.tolist(), best_M.values.tolist()
    else:
        tokens, highest = _draw_by_torch(logits_MV, [samplers[i] for i in rows])
    wanted = [samplers[i].sampling.logprobs for i in rows]
    if all(num is None for num in wanted):
        return calls.Chosen(tokens, highest, [[]] * len(rows), [0.0] * len(rows))
    log_sums_M, best_M20 = rank(logits_NV[rows], max(num or 0 for num in wanted))
    best = [likeliest[: num or 0] for likeliest, num in zip(best_M20.tolist(), wanted, strict=True)]
    return calls.Chosen(tokens, highest, best, log_sums_M.tolist())


def pack_parameters(samplers: Sequence[Sampler], uniforms: Sequence[float]) -> torch.Tensor:
    """What ``pack_choice`` takes for logits whose penalties are applied already, on the CPU."""
    rows = [(*sampler.parameters, 1, 0, 0, uniform) for sampler, uniform in zip(samplers, uniforms, strict=True)]
    return torch.tensor(rows, dtype=torch.float64).T.contiguous()


def _draw_by_torch(logits_MV: torch.Tensor, samplers: Sequence[Sampler]) -> tuple[list[int], list[float]]:
    """The next tokens of rows of prepared logits and their highest logits, fallbacks included."""
    uniforms = [sampler.draw_uniform() for sampler in samplers]
    lines_PM = pack_parameters(samplers, uniforms).to(logits_MV.device)
    tokens, highest, needs_fallback = pack_choice(logits_MV, lines_PM).tolist()
    for n, sampler in enumerate(samplers):
        if needs_fallback[n] and math.isfinite(highest[n]):
            tokens[n] = sampler.draw(sampler.warp(logits_MV[n]), uniforms[n])
    return [int(token) for token in tokens], highest
