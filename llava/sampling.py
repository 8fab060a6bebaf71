"""How an answer's words are chosen. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llava.errors import UsageError

# OpenAI's limit; each one is read from every step's scores.
MAX_LOGPROBS = 20


@dataclass(frozen=True)
class Sampling:
    """How an answer's words are chosen; the defaults are greedy. Raises UsageError for a number out of range.

    Attributes:
        temperature: 0 is greedy; then nothing below but the penalties changes which token is likeliest.
        top_p: only the likeliest tokens whose probabilities sum to this, in (0, 1]; None is 1.
        top_k: only this many of the likeliest tokens; None is all.
        min_p: only tokens at least this times as likely as the likeliest, in [0, 1].
        repetition_penalty: divides the scores above 0 of tokens that the answer has, and multiplies those below; None
            is the checkpoint's own, of its generation_config.json, or 1.
        presence_penalty, frequency_penalty: taken from a token's score if the answer has it, and for each time it does;
            in [-2, 2], as OpenAI's.
        seed: answers with equal seeds are equal; None draws one.
        stop: texts before the first of which the answer ends.
        logprobs: how many of the likeliest tokens to tell with each token, 0 to 20; None tells nothing.
        num_beams: more than 1 searches for the likeliest answer, by Transformers' ``generate``.
        max_new_tokens: at most so many.
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
        if any(not text for text in self.stop):
            raise UsageError("A stop text is empty; it would end every answer at once.")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise UsageError(f"logprobs is {self.logprobs}; it has to be between 0 and {MAX_LOGPROBS}.")
        if self.num_beams > 1:
            given = [name for name in _NOT_WITH_BEAMS if getattr(self, name) != getattr(Sampling, name)]
            if given:
                raise UsageError(f"{given[0]} cannot be had together with {self.num_beams} beams; leave one out.")

    @property
    def has_penalties(self) -> bool:
        penalties = (self.presence_penalty, self.frequency_penalty)
        return self.repetition_penalty not in (None, 1) or any(penalties)

    def for_generate(self) -> dict[str, Any]:
        """Arguments for ``generate``; the sampling flags are absent from a greedy call, which would warn of them."""
        chosen: dict[str, Any] = {"num_beams": self.num_beams, "do_sample": self.temperature > 0}
        if self.repetition_penalty is not None:
            chosen["repetition_penalty"] = self.repetition_penalty
        if self.temperature > 0:
            chosen["temperature"] = self.temperature
            if self.min_p:
                chosen["min_p"] = self.min_p
            # Said even when they are off: a checkpoint's generation_config.json may hold other values.
            chosen["top_p"] = 1.0 if self.top_p is None else self.top_p
            chosen["top_k"] = self.top_k or 0
        else:
            chosen.update(temperature=None, top_p=None, top_k=None)
        return chosen


_NOT_WITH_BEAMS = ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop", "logprobs")
