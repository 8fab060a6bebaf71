"""The sampler: logits become a token, with each request's own sampling parameters.

The order is that of Transformers' ``generate``: penalties, temperature, top-k, top-p, min-p. Before all of them the
request's grammar masks the tokens that it does not allow. Everything else that ``generate`` can be asked for is done by
its own logits processors (``Processors``). Log-probabilities are the model's own, from the logits as they arrive.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers.generation.logits_process import LogitsProcessorList

from llava.engine.grammar import GrammarMatcher
from llava.errors import LlavaError, UsageError
from llava.model.generation import Processors
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
    _generator: torch.Generator | None = None

    @property
    def is_argmax(self) -> bool:
        """Whether the next token is simply the argmax of the logits."""
        sampling = self.sampling
        is_greedy = sampling.temperature == 0 and not sampling.has_penalties and self.processors is None
        return is_greedy and sampling.logprobs is None and self.grammar is None

    def sample(self, logits_V: torch.Tensor) -> SampledToken:
        """The next token from float32 logits [V] on the CPU. Raises UsageError for parameters that allow no token."""
        sampling = self.sampling
        processed_V = self.process(logits_V)
        token = int(processed_V.argmax()) if sampling.temperature == 0 else self._draw(processed_V)
        if self.grammar is not None:
            token = self.grammar.accept(token, sampling.max_new_tokens - len(self._output_ids) - 1)
        self._output_ids.append(token)
        self.counts[token] += 1
        if sampling.logprobs is None:
            return SampledToken(token)
        logprobs_V = logits_V.log_softmax(-1)
        best = logprobs_V.topk(min(sampling.logprobs, len(logprobs_V)))
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return SampledToken(token, float(logprobs_V[token]), top)

    def process(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The logits [V] after grammar, penalties, processors, temperature and filters; the token is drawn from these.

        Raises UsageError where no token is left.
        """
        sampling, processors = self.sampling, self.processors
        allowed_V = None if self.grammar is None else self.grammar.mask_logits(logits_V)
        # Processors get finite logits: some turn minus infinity into NaN, or make a forbidden token likely.
        processed_V = logits_V if allowed_V is None else torch.where(allowed_V == -torch.inf, logits_V, allowed_V)
        if sampling.has_penalties and self.counts:
            processed_V = self._apply_penalties(processed_V)
        if processors is not None:
            processed_V = self._run_processors(processors.before, processed_V)
        if allowed_V is not None:
            processed_V = _reapply_mask(processed_V, allowed_V)
        highest = processed_V.max()
        if not highest.isfinite():
            raise UsageError(
                f"The highest logit for the next token is {float(highest)}: the request's penalties are too large, or "
                "too many words and tokens are barred. Use smaller penalties, or bar fewer."
            )
        if sampling.temperature > 0:
            # The smallest temperatures overflow float32; in float64 the likeliest token is then the only one left.
            processed_V = ((processed_V.double() - highest) / sampling.temperature).float()
        if processors is not None and processors.after:
            processed_V = self._run_processors(processors.after, processed_V)
        elif sampling.temperature > 0:
            processed_V = filter_logits(processed_V, sampling)
        return processed_V

    def _apply_penalties(self, logits_V: torch.Tensor) -> torch.Tensor:
        sampling, logits_V = self.sampling, logits_V.clone()
        seen = torch.tensor(list(self.counts))
        times = torch.tensor(list(self.counts.values()), dtype=torch.float64)
        old = logits_V[seen].double()
        # With processors, one of them applies the repetition penalty.
        factor = (sampling.repetition_penalty or 1.0) if self.processors is None else 1.0
        new = torch.where(old < 0, old * factor, old / factor)
        new -= sampling.presence_penalty + sampling.frequency_penalty * times
        # A tiny penalty divides a logit beyond float32: keep it finite.
        logits_V[seen] = new.clamp(max=torch.finfo(logits_V.dtype).max).to(logits_V.dtype)
        return logits_V

    def _run_processors(self, processors: LogitsProcessorList, logits_V: torch.Tensor) -> torch.Tensor:
        return processors(torch.tensor([self._output_ids], dtype=torch.long), logits_V[None])[0]

    def _draw(self, logits_V: torch.Tensor) -> int:
        sampling = self.sampling
        if self._generator is None:
            assert sampling.seed is not None, "the engine gives every sampled request a seed"
            self._generator = torch.Generator().manual_seed(sampling.seed % 2**63)
        return int(torch.multinomial(logits_V.softmax(-1), 1, generator=self._generator))


def _reapply_mask(processed_V: torch.Tensor, allowed_V: torch.Tensor) -> torch.Tensor:
    """Processed logits [V], minus infinity where the grammar's logits are.

    The grammar takes precedence: where the sampling parameters bar every token that it allows, such as a key that
    ``no_repeat_ngram_size`` lets come only once, they are ignored for this token.
    """
    masked_V = processed_V.masked_fill(allowed_V == -torch.inf, -torch.inf)
    return masked_V if bool(masked_V.max().isfinite()) else allowed_V


def filter_logits(logits_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Logits [V], minus infinity where top-k, top-p or min-p removes a token."""
    if sampling.top_k is not None and sampling.top_k < len(logits_V):
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(sampling.top_k).values[-1], -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ascending, order = logits_V.sort(descending=False)
        # A token is removed if it and all less likely ones together have at most 1 - top_p; the likeliest stays.
        is_removed = ascending.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        is_removed[-1] = False
        logits_V = logits_V.masked_fill(is_removed.scatter(0, order, is_removed), -torch.inf)
    if sampling.min_p > 0:
        probabilities = logits_V.softmax(-1)
        logits_V = logits_V.masked_fill(probabilities < sampling.min_p * probabilities.max(), -torch.inf)
    return logits_V


def describe_bad(logit: float) -> str:
    """What is said of logits whose maximum is NaN or infinite."""
    return f"The model's logits for the next token contain {logit}: it cannot go on."


def sample_all(logits_NV: torch.Tensor, samplers: list[Sampler]) -> list[SampledToken | Exception]:
    """The next token of each request from logits [N, V], or its error: BadLogits or whatever its sampler raised."""
    best = logits_NV.max(-1)
    values, tokens = best.values.tolist(), best.indices.tolist()
    sampled: list[SampledToken | Exception] = []
    for i, sampler in enumerate(samplers):
        removes_invalid = sampler.processors is not None and sampler.processors.mends_invalid
        if not abs(values[i]) < float("inf") and not removes_invalid:  # the maximum of anything with a NaN is NaN
            sampled.append(BadLogits(describe_bad(values[i])))
        elif sampler.is_argmax:
            sampled.append(SampledToken(tokens[i]))
        else:
            try:
                sampled.append(sampler.sample(logits_NV[i].float().cpu()))
            except Exception as error:  # fails this request alone
                sampled.append(error)
    return sampled
