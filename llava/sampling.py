"""Sampling parameters: how an answer's tokens are chosen, and how many there may be. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from llava.errors import UsageError
from llava.text import find_flaw

# OpenAI's limit; each step has to select that many likeliest tokens.
MAX_LOGPROBS = 20


@dataclass(frozen=True)
class Sampling:
    """The sampling parameters of an answer; the defaults are greedy. Raises UsageError for a value out of range.

    Attributes:
        temperature: divides the logits, at least 0; 0 is greedy: then top_p, top_k, min_p and seed change nothing.
        top_p: nucleus sampling: only the likeliest tokens whose probabilities sum to this, in (0, 1]; None is 1.
        num_beams: above 1, beam search by Transformers' ``generate``.
        max_new_tokens: the longest answer, at least 1. See ``fit``.
        top_k: only this many of the likeliest tokens, at least 1; None is all.
        min_p: only tokens at least this times as likely as the likeliest one, in [0, 1].
        repetition_penalty: divides positive logits of tokens that the answer already has, and multiplies negative
            ones, above 0; None is the checkpoint's own, of its generation_config.json, or 1.
        presence_penalty, frequency_penalty: subtracted from a token's logit if the answer has it, and once for each
            time that it does; in [-2, 2], as in OpenAI's API.
        seed: answers with equal seeds are equal; None draws one.
        stop: texts; the answer ends before the first of them.
        logprobs: how many of the likeliest tokens to report with each token, 0 to 20; None reports nothing.
        min_new_tokens: the shortest answer; None is the checkpoint's own, or 0.
        no_repeat_ngram_size: no n-gram of this many tokens comes twice; 0 is off, None is the checkpoint's own, or 0.
        bad_words: texts that never come, tokenized as at the beginning and as in the middle of a text.
        suppress_tokens: token ids that never come. These and ``bad_words`` are added to the checkpoint's own.
    """

    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1
    max_new_tokens: int = 512
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    min_new_tokens: int | None = None
    no_repeat_ngram_size: int | None = None
    bad_words: tuple[str, ...] = ()
    suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UsageError(f"The temperature is {self.temperature}; it has to be 0 (greedy) or more.")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top-p is {self.top_p}; it has to be above 0 and at most 1.")
        if self.num_beams < 1:
            raise UsageError(f"The number of beams is {self.num_beams}; it has to be at least 1.")
        if self.max_new_tokens < 1:
            raise UsageError(f"The number of new tokens is {self.max_new_tokens}; it has to be at least 1.")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top-k is {self.top_k}; it has to be at least 1.")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min-p is {self.min_p}; it has to be between 0 and 1.")
        if self.repetition_penalty is not None and not 0 < self.repetition_penalty < math.inf:
            raise UsageError(f"The repetition penalty is {self.repetition_penalty}; it has to be above 0 (1 is none).")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not -2 <= value <= 2:
                raise UsageError(f"The {name.replace('_', ' ')} is {value}; it has to be between -2 and 2.")
        self._check_texts()
        for name in ("min_new_tokens", "no_repeat_ngram_size"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name} is {value}; it has to be at least 0.")
        if (self.min_new_tokens or 0) > self.max_new_tokens:
            raise UsageError(
                f"The answer has to have at least {self.min_new_tokens} new tokens, but at most {self.max_new_tokens}."
            )
        if any(token < 0 for token in self.suppress_tokens):
            raise UsageError(f"suppress_tokens holds {min(self.suppress_tokens)}; token ids are at least 0.")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise UsageError(f"logprobs is {self.logprobs}; it has to be between 0 and {MAX_LOGPROBS}.")
        if self.num_beams > 1:
            given = [name for name in _NOT_WITH_BEAMS if getattr(self, name) != getattr(Sampling, name)]
            if given:
                raise UsageError(f"{given[0]} cannot be combined with {self.num_beams} beams; leave one out.")

    def _check_texts(self) -> None:
        for name, texts in (("stop text", self.stop), ("bad word", self.bad_words)):
            if isinstance(texts, str):
                raise UsageError(f"A {name} has to be one of a tuple, but {texts!r} stands alone: write ({texts!r},).")
            for text in texts:
                if not text:
                    raise UsageError(f"A {name} is empty; it would end every answer at once.")
                if (flaw := find_flaw(text)) is not None:
                    raise UsageError(f"The {name} {text!r} {flaw}.")

    def fit(self, prompt_tokens: int, context_tokens: int) -> Sampling:
        """The same with no more new tokens than a context of ``context_tokens`` has left after the prompt.

        This is the one rule for how long an answer may be: ``max_new_tokens`` or the rest of the context, whichever is
        smaller, but at least one token. ``min_new_tokens`` never exceeds it.
        """
        most = max(1, min(self.max_new_tokens, context_tokens - prompt_tokens))
        least = None if self.min_new_tokens is None else min(self.min_new_tokens, most)
        return replace(self, max_new_tokens=most, min_new_tokens=least)

    @property
    def has_penalties(self) -> bool:
        """Whether any penalty changes the logits."""
        penalties = (self.presence_penalty, self.frequency_penalty)
        return self.repetition_penalty not in (None, 1) or any(penalties)

    def for_generate(self) -> dict[str, Any]:
        """The keyword arguments for ``generate``. A greedy call has no sampling flags, which would cause a warning."""
        chosen: dict[str, Any] = {"num_beams": self.num_beams, "do_sample": self.temperature > 0}
        if self.repetition_penalty is not None:
            chosen["repetition_penalty"] = float(self.repetition_penalty)
        if self.temperature > 0:
            chosen["temperature"] = self.temperature
            # Passed even when they are off: a checkpoint's generation_config.json may have other values.
            chosen["top_p"] = 1.0 if self.top_p is None else self.top_p
            chosen["top_k"] = self.top_k or 0
            chosen["min_p"] = self.min_p or None
        else:
            chosen.update(temperature=None, top_p=None, top_k=None, min_p=None)
        return chosen


_NOT_WITH_BEAMS = ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop", "logprobs")
