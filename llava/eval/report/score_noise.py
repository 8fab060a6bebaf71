"""The standard error of a run's headline score, from its answers: how far another draw of questions would move it.

A headline is recognised by recomputing it from the scored answers. One that cannot be recomputed has no stated noise:
a wrong interval is worse than none. Loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

from llava.eval.score_file import AnswerRecord, ScoredRun

Z_95 = 1.96  # standard errors in half a 95 % interval
_ROUNDING = 0.0051  # scores may be rounded to two places
CIRCULAR = ("mmbench", "mmbench_cn")  # benchmarks in which a question counts if all its copies are right
CIRCLE = 10**6  # their copies of one question have ids that are equal modulo this


@dataclass(frozen=True)
class Noise:
    """``standard_error``: in the headline's own unit. ``how``: what it is computed from, as a noun phrase."""

    standard_error: float
    how: str


def estimate_noise(run: ScoredRun) -> Noise | None:
    """The standard error of the headline score; None if the headline cannot be recomputed from the answers."""
    headline = run.scores.get(run.headline)
    if headline is None or not run.answers:
        return None
    for recompute in (_shares, _circular, _pair_sums, _f1, _mean_of_categories):
        for score, noise in recompute(run):
            if abs(score - headline) <= _ROUNDING:
                return noise
    return None


def share_error(values: Sequence[float]) -> tuple[float, str]:
    """The standard error of the mean of scores between 0 and 1, and its name: binomial if all are right or wrong."""
    num, mean = len(values), sum(values) / len(values)
    if all(value in (0, 1) for value in values):
        if mean in (0, 1):  # the error of a share that no answer contradicts is not 0
            mean = (sum(values) + 1) / (num + 2)
        return math.sqrt(mean * (1 - mean) / num), "binomial"
    variance = sum((value - mean) ** 2 for value in values) / max(1, num - 1)
    return math.sqrt(variance / num), "of the mean"


_Recomputed = Iterator[tuple[float, Noise]]


def _group(
    answers: Sequence[AnswerRecord], key: Callable[[AnswerRecord], Hashable]
) -> dict[Hashable, list[AnswerRecord]]:
    groups: dict[Hashable, list[AnswerRecord]] = {}
    for answer in answers:
        groups.setdefault(key(answer), []).append(answer)
    return groups


def _members(run: ScoredRun) -> dict[str, list[AnswerRecord]]:
    """The answers of each category."""
    return {name: [answer for answer in run.answers if name in answer.categories] for name in run.categories}


def _shares(run: ScoredRun) -> _Recomputed:
    """The mean over all answers, or over those of one category, in percent, as a count, or as a share."""
    groups: list[tuple[str, Sequence[AnswerRecord]]] = [("", run.answers), *_members(run).items()]
    groups.append(("questions with an image", [answer for answer in run.answers if answer.images]))
    for name, answers in groups:
        if not answers:
            continue
        values = [answer.score for answer in answers]
        error, kind = share_error(values)
        of = f"{len(values):,} answer{'s' * (len(values) != 1)}" + (f" in {name}" if name else "")
        for scale in (100.0, float(len(values)), 1.0):
            yield scale * sum(values) / len(values), Noise(scale * error, f"{kind}, {of}")


def _circular(run: ScoredRun) -> _Recomputed:
    """MMBench's circular accuracy: a question counts if the answers to all its copies are right."""
    if run.task not in CIRCULAR or not all(isinstance(answer.id, int) for answer in run.answers):
        return
    groups = _group(run.answers, lambda answer: int(answer.id) % CIRCLE)
    values = [float(all(answer.score == 1 for answer in copies)) for copies in groups.values()]
    error, kind = share_error(values)
    yield 100 * sum(values) / len(values), Noise(100 * error, f"{kind}, {len(values):,} questions with their copies")


def _pair_sums(run: ScoredRun) -> _Recomputed:
    """MME: in each category 100 times the share right plus the share of images with both questions right, summed.

    The sum is over the categories of the headline's group, perception or cognition.
    """
    members = [answers for answers in _members(run).values() if answers and run.headline in answers[0].categories]
    total, variance, num_pairs = 0.0, 0.0, 0
    for answers in members:
        # Ids are "CATEGORY/[images/]FILE", and MME tells files apart by their stems.
        pairs = _group(answers, lambda answer: str(answer.id).rpartition("/")[2].partition(".")[0])
        if any(len(pair) != 2 for pair in pairs.values()):
            return
        values = [50 * (a.score + b.score) + 100 * (a.score == b.score == 1) for a, b in pairs.values()]
        mean = sum(values) / len(values)
        total += mean
        variance += sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1) / len(values)
        num_pairs += len(values)
    if members:
        yield total, Noise(math.sqrt(variance), f"from {num_pairs:,} images with two questions each")


def _f1(run: ScoredRun) -> _Recomputed:
    """POPE: the mean over the categories of F1 of yes, each a ratio of sums, whose error is the delta method's.

    The categories ask about the same images, so their errors are added as if they were one.
    """
    scores, errors = [], []
    for answers in _members(run).values():
        terms = []
        for answer in answers:
            is_yes, said_yes = answer.references[:1] == ("yes",), answer.reading == "yes"
            terms.append((2.0 * (is_yes and said_yes), float(is_yes) + float(said_yes)))
        total = sum(below for _, below in terms)
        if not total:
            return
        ratio = sum(above for above, _ in terms) / total
        scores.append(ratio)
        errors.append(math.sqrt(sum((above - ratio * below) ** 2 for above, below in terms)) / total)
    if scores:
        num = len(scores)
        how = f"delta method for F1, {len(run.answers):,} answers"
        yield 100 * sum(scores) / num, Noise(100 * sum(errors) / num, how)


def _mean_of_categories(run: ScoredRun) -> _Recomputed:
    """The mean of the categories' shares, each with the same weight."""
    groups = [[answer.score for answer in answers] for answers in _members(run).values()]
    if not groups or not all(groups):
        return
    errors = [share_error(values)[0] for values in groups]
    mean = sum(sum(values) / len(values) for values in groups) / len(groups)
    error = math.sqrt(sum(error**2 for error in errors)) / len(groups)
    yield 100 * mean, Noise(100 * error, f"of the mean of {len(groups)} categories, {len(run.answers):,} answers")
