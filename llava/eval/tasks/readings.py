"""A run's answers scored by several published scorers: the first sets the score, the others are reported beside it.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llava.errors import UsageError
from llava.eval.scoring.verdict import Verdict
from llava.eval.task_score import ScoredAnswer

Reading = Callable[..., Verdict]
"""A pure scorer: the answer, its references, and what else ``Truth.more`` holds."""


@dataclass(frozen=True)
class Truth:
    """What is known of a question: its references as the scorers want them, its groups, and their further arguments."""

    references: Sequence[Any]
    categories: tuple[str, ...] = ()
    more: tuple[Any, ...] = ()


def score_answers(
    texts: Sequence[str], truths: Sequence[Truth], readings: Mapping[str, Reading]
) -> tuple[list[ScoredAnswer], dict[str, float], list[str]]:
    """Each answer by the first of the readings, the mean score of each reading in percent, and notes.

    A further reading that refuses a question is left out, which a note says. Raises UsageError where the first one
    does, and where there are no answers.
    """
    if not texts:
        raise UsageError("There are no answers to score.")
    first, *others = readings
    answers = []
    for place, (text, truth) in enumerate(zip(texts, truths, strict=True)):
        verdict = readings[first](text, truth.references, *truth.more)
        references = tuple(_write(reference) for reference in truth.references)
        answers.append(ScoredAnswer(place, verdict.score, verdict.reading, references, truth.categories, verdict.note))
    means, notes = {first: find_mean(answers)}, []
    for name in others:
        try:
            scores = [
                readings[name](text, truth.references, *truth.more).score
                for text, truth in zip(texts, truths, strict=True)
            ]
        except UsageError as error:
            notes.append(f"The reading {name} is left out: {error}")
        else:
            means[name] = 100 * sum(scores) / len(scores)
    return answers, means, notes


def find_mean(answers: Sequence[ScoredAnswer]) -> float:
    """The mean score in percent, 0 where there is no answer."""
    return 100 * sum(answer.score for answer in answers) / len(answers) if answers else 0.0


def group(answers: Sequence[ScoredAnswer], order: Sequence[str] = ()) -> dict[str, tuple[float, int]]:
    """The mean score in percent and the number of answers of each category.

    They come in ``order``, and those that it does not name in the order of their first answer.
    """
    groups: dict[str, list[ScoredAnswer]] = {name: [] for name in order}
    for answer in answers:
        for name in answer.categories:
            groups.setdefault(name, []).append(answer)
    return {name: (find_mean(members), len(members)) for name, members in groups.items() if members}


def say_unread(count: int, total: int, published: str) -> str:
    """A sentence on the answers of which nothing could be read; ``published`` is what the published scorer does."""
    return f"{count} of {total} answers could not be read and count as wrong; {published}."


def _write(reference: Any) -> str:
    return str(reference["answer"]) if isinstance(reference, Mapping) else str(reference)
