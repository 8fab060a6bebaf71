"""Scores become a token, as each request wants it.

The order is that of Transformers' ``generate``: penalties, temperature, top-k, top-p, min-p; before them goes what the
answer's form does not allow. Log probabilities are those of the model itself, before all of these.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from llava.engine.forms import Following
from llava.errors import LlavaError, UsageError
from llava.sampling import Sampling


class BadScores(LlavaError):
    """The model gave scores that are no numbers."""


class Choice(NamedTuple):
    """A token, with its log probability and those of the likeliest tokens where they were asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class Chooser:
    """One request's choices: its settings, its random numbers, its form, and what its answer has so far."""

    sampling: Sampling
    counts: Counter[int] = field(default_factory=Counter)
    form: Following | None = None
    _generator: torch.Generator | None = None
    _num_chosen: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token is all that is wanted."""
        sampling = self.sampling
        is_greedy = sampling.temperature == 0 and not sampling.has_penalties
        return is_greedy and sampling.logprobs is None and self.form is None

    def choose(self, scores_V: torch.Tensor) -> Choice:
        """The next token from float32 scores [V] on the CPU. Raises UsageError for settings that allow none."""
        sampling = self.sampling
        changed_V = scores_V if self.form is None else self.form.mask(scores_V)
        if sampling.has_penalties and self.counts:
            changed_V = self._penalize(changed_V)
        highest = changed_V.max()
        if not highest.isfinite():
            raise UsageError(f"The penalties make a score of {float(highest)} for the next token: they are too large.")
        if sampling.temperature == 0:
            token = int(changed_V.argmax())
        else:
            # Float64 has room for the least temperature, whose likeliest token is then the only one.
            token = self._draw(((changed_V.double() - highest) / sampling.temperature).float())
        if self.form is not None:
            token = self.form.take(token, sampling.max_new_tokens - self._num_chosen - 1)
        self._num_chosen += 1
        self.counts[token] += 1
        if sampling.logprobs is None:
            return Choice(token)
        logprobs_V = scores_V.log_softmax(-1)
        best = logprobs_V.topk(min(sampling.logprobs, len(logprobs_V)))
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Choice(token, float(logprobs_V[token]), top)

    def _penalize(self, scores_V: torch.Tensor) -> torch.Tensor:
        sampling, scores_V = self.sampling, scores_V.clone()
        said = torch.tensor(list(self.counts))
        times = torch.tensor(list(self.counts.values()), dtype=torch.float64)
        old = scores_V[said].double()
        factor = 1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty
        new = torch.where(old < 0, old * factor, old / factor)
        new -= sampling.presence_penalty + sampling.frequency_penalty * times
        # However small a penalty, what it favours stays a number.
        scores_V[said] = new.clamp(max=torch.finfo(scores_V.dtype).max).to(scores_V.dtype)
        return scores_V

    def _draw(self, scores_V: torch.Tensor) -> int:
        sampling = self.sampling
        if self._generator is None:
            assert sampling.seed is not None, "whoever takes a request gives it a seed"
            self._generator = torch.Generator().manual_seed(sampling.seed % 2**63)
        return int(torch.multinomial(keep_likely(scores_V, sampling).softmax(-1), 1, generator=self._generator))


def keep_likely(scores_V: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Scores [V], minus infinity where top-k, top-p and min-p leave a token out."""
    if sampling.top_k is not None and sampling.top_k < len(scores_V):
        scores_V = scores_V.masked_fill(scores_V < scores_V.topk(sampling.top_k).values[-1], -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, places = scores_V.sort(descending=False)
        # A token goes if it and all less likely ones together have no more than 1 - top_p; the likeliest stays.
        goes = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        goes[-1] = False
        scores_V = scores_V.masked_fill(goes.scatter(0, places, goes), -torch.inf)
    if sampling.min_p > 0:
        likelihood = scores_V.softmax(-1)
        scores_V = scores_V.masked_fill(likelihood < sampling.min_p * likelihood.max(), -torch.inf)
    return scores_V


def choose_all(scores_NV: torch.Tensor, choosers: list[Chooser]) -> list[Choice | Exception]:
    """The next token of each request from scores [N, V], or what went wrong with it: BadScores, or another error."""
    best = scores_NV.max(-1)
    values, tokens = best.values.tolist(), best.indices.tolist()
    choices: list[Choice | Exception] = []
    for i, chooser in enumerate(choosers):
        if not abs(values[i]) < float("inf"):  # the maximum of anything with a NaN is NaN
            choices.append(BadScores(f"The model's scores for the next token hold {values[i]}: it cannot go on."))
        elif chooser.is_plain:
            choices.append(Choice(tokens[i]))
        else:
            try:
                choices.append(chooser.choose(scores_NV[i].float().cpu()))
            except Exception as error:  # this request's alone
                choices.append(error)
    return choices
