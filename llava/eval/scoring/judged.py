"""LLaVA-Bench: the two scores in a judge's review, and a model's score over all reviews. Loads no torch.

A review's first line holds the score of the reference answer and then that of the model's answer, 1 to 10 each; the
published number is their means' ratio in percent. The published parser reads "8, 7" as a failure and "nan 3" as
scores, and counts a failure as a score of -1 in both means. Here a failed review is left out and counted.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_gpt_review_bench.py (parse_score), summarize_gpt_review.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llava.eval.scoring.verdict import Verdict

LEAST, MOST = 1.0, 10.0
"""The scale that the judge is told."""

_PLAIN = re.compile(r"[0-9]{1,2}(?:\.[0-9]+)?", re.ASCII)


def parse_score(review: str, say: Callable[[str], object] = lambda line: None) -> list[float]:
    """The two scores by the published parser, [-1, -1] if it reads none; ``say`` gets the lines that it prints then."""
    parts = review.split("\n")[0].replace(",", " ").split(" ")
    if len(parts) == 2:
        try:
            return [float(parts[0]), float(parts[1])]
        except ValueError as error:
            say(str(error))
    say(f"error {review}")
    return [-1, -1]


def read_published(review: str) -> Verdict:
    """The model's score, as a share of 10, by the published parser."""
    pair = parse_score(review)
    if pair == [-1, -1]:
        return Verdict(0.0, None, _explain(review))
    return Verdict(pair[1] / MOST, f"{pair[0]:g} {pair[1]:g}")


def read_strict(review: str) -> Verdict:
    """The same, where both scores also have to be plain decimal numbers on the judge's scale."""
    verdict = read_published(review)
    if verdict.reading is None:
        return verdict
    words = review.split("\n")[0].replace(",", " ").split()
    for word in words:
        if not _PLAIN.fullmatch(word):
            return Verdict(0.0, None, f"{word[:20]!r} is not a plain decimal number")
        if not LEAST <= float(word) <= MOST:
            return Verdict(0.0, None, f"{word} is not on the scale of {LEAST:g} to {MOST:g}")
    return verdict


def _explain(review: str) -> str:
    first = review.split("\n")[0]
    if not first.strip():
        return "the first line is empty"
    num_parts = len(first.replace(",", " ").split(" "))
    if num_parts != 2:
        return f"the first line, {first[:40]!r}, has {num_parts} parts between single blanks and commas instead of 2"
    return f"the first line, {first[:40]!r}, is not two numbers, or is the published mark of a failure"


def is_failed(pair: object) -> bool:
    """Whether a ``tuple`` of a reviews file holds no pair of scores: [-1, -1], NaN, or something else."""
    if not (isinstance(pair, Sequence) and len(pair) == 2):
        return True
    if any(isinstance(score, bool) or not isinstance(score, (int, float)) for score in pair):
        return True
    return any(not math.isfinite(score) or score < 0 for score in pair)


@dataclass(frozen=True)
class PairSummary:
    """Means over reviews; ``relative`` is the published number, None if the reference answers' mean is 0."""

    relative: float | None
    first: float
    second: float
    num_reviews: int

    @property
    def line(self) -> str:
        """The three numbers as the original prints them."""
        return f"{self.relative} {self.first} {self.second}"


def summarize_pairs(pairs: Sequence[Sequence[float]]) -> PairSummary:
    """100 × mean of the second scores / mean of the first, and both means × 10, rounded in the published order.

    The means are rounded to 3 decimals before the division. Needs at least one pair.
    """
    first, second = (round(mean, 3) for mean in np.asarray(pairs, dtype=float).mean(0).tolist())
    relative = round(second / first * 100, 1) if first else None
    return PairSummary(relative, round(first * 10, 1), round(second * 10, 1), len(pairs))


READINGS: dict[str, Callable[[str], Verdict]] = {"published": read_published, "strict": read_strict}
"""The readings of a review by name, the 1.5 protocol's first."""
