"""Scores become a token, as each request wants it.

The order is that of Transformers' ``generate``: penalties, temperature, top-k, top-p, min-p; before them goes what the
answer's form does not allow. For all else that ``generate`` can be asked for, its own processors run (``Processors``).
Log probabilities are those of the model itself, before all of these.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers.generation.logits_process import LogitsProcessorList

from llava.engine.forms import Following
from llava.errors import LlavaError, UsageError
from llava.model.generation import Processors
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
    processors: Processors | None = None
    _said: list[int] = field(default_factory=list)
    _generator: torch.Generator | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token is all that is wanted."""
        sampling = self.sampling
        is_greedy = sampling.temperature == 0 and not sampling.has_penalties and self.processors is None
        return is_greedy and sampling.logprobs is None and self.form is None

    def choose(self, scores_V: torch.Tensor) -> Choice:
        """The next token from float32 scores [V] on the CPU. Raises UsageError for settings that allow none."""
        sampling = self.sampling
        changed_V = self.change(scores_V)
        token = int(changed_V.argmax()) if sampling.temperature == 0 else self._draw(changed_V)
        if self.form is not None:
            token = self.form.take(token, sampling.max_new_tokens - len(self._said) - 1)
        self._said.append(token)
        self.counts[token] += 1
        if sampling.logprobs is None:
            return Choice(token)
        logprobs_V = scores_V.log_softmax(-1)
        best = logprobs_V.topk(min(sampling.logprobs, len(logprobs_V)))
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        return Choice(token, float(logprobs_V[token]), top)

    def change(self, scores_V: torch.Tensor) -> torch.Tensor:
        """The scores [V] as this answer's settings change them: from these the next token is chosen."""
        sampling, processors = self.sampling, self.processors
        form_V = None if self.form is None else self.form.mask(scores_V)
        # Processors see finite numbers: some make NaN of minus infinity, or a token likely that may not come.
        changed_V = scores_V if form_V is None else torch.where(form_V == -torch.inf, scores_V, form_V)
        if sampling.has_penalties and self.counts:
            changed_V = self._penalize(changed_V)
        if processors is not None:
            changed_V = self._process(processors.before, changed_V)
        if form_V is not None:
            changed_V = _keep_form(changed_V, form_V)
        highest = changed_V.max()
        if not highest.isfinite():
            raise UsageError(
                f"The highest score for the next token is {float(highest)}: the answer's penalties are too large, or "
                "too many words and tokens are barred."
            )
        if sampling.temperature > 0:
            # Float64 has room for the least temperature, whose likeliest token is then the only one.
            changed_V = ((changed_V.double() - highest) / sampling.temperature).float()
        if processors is not None and processors.after:
            changed_V = self._process(processors.after, changed_V)
        elif sampling.temperature > 0:
            changed_V = keep_likely(changed_V, sampling)
        return changed_V

    def _penalize(self, scores_V: torch.Tensor) -> torch.Tensor:
        sampling, scores_V = self.sampling, scores_V.clone()
        said = torch.tensor(list(self.counts))
        times = torch.tensor(list(self.counts.values()), dtype=torch.float64)
        old = scores_V[said].double()
        factor = (sampling.repetition_penalty or 1.0) if self.processors is None else 1.0  # else a processor's
        new = torch.where(old < 0, old * factor, old / factor)
        new -= sampling.presence_penalty + sampling.frequency_penalty * times
        # However small a penalty, what it favours stays a number.
        scores_V[said] = new.clamp(max=torch.finfo(scores_V.dtype).max).to(scores_V.dtype)
        return scores_V

    def _process(self, processors: LogitsProcessorList, scores_V: torch.Tensor) -> torch.Tensor:
        return processors(torch.tensor([self._said], dtype=torch.long), scores_V[None])[0]

    def _draw(self, scores_V: torch.Tensor) -> int:
        sampling = self.sampling
        if self._generator is None:
            assert sampling.seed is not None, "whoever takes a request gives it a seed"
            self._generator = torch.Generator().manual_seed(sampling.seed % 2**63)
        return int(torch.multinomial(scores_V.softmax(-1), 1, generator=self._generator))


def _keep_form(changed_V: torch.Tensor, form_V: torch.Tensor) -> torch.Tensor:
    """Changed scores [V], minus infinity where the form's are.

    The form is what was asked for first: where the settings bar every token that it allows, such as a key that
    ``no_repeat_ngram_size`` lets come only once, they do not hold for this token.
    """
    kept_V = changed_V.masked_fill(form_V == -torch.inf, -torch.inf)
    return kept_V if bool(kept_V.max().isfinite()) else form_V


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
        is_mended = chooser.processors is not None and chooser.processors.mends_invalid
        if not abs(values[i]) < float("inf") and not is_mended:  # the maximum of anything with a NaN is NaN
            choices.append(BadScores(f"The model's scores for the next token hold {values[i]}: it cannot go on."))
        elif chooser.is_plain:
            choices.append(Choice(tokens[i]))
        else:
            try:
                choices.append(chooser.choose(scores_NV[i].float().cpu()))
            except Exception as error:  # this request's alone
                choices.append(error)
    return choices
