"""Means over the answers of a run, in percent. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llava.eval.task_score import ScoredAnswer


def take_percent(scores: Iterable[float]) -> float:
    """The mean in percent; 0 of nothing."""
    values = list(scores)
    return 100 * sum(values) / len(values) if values else 0.0


def tally_categories(answers: Sequence[ScoredAnswer], order: Iterable[str] = ()) -> dict[str, tuple[float, int]]:
    """Mean in percent and number of answers of each category: those of ``order`` first, then as they occur."""
    groups: dict[str, list[float]] = {name: [] for name in order}
    for answer in answers:
        for name in dict.fromkeys(answer.categories):
            groups.setdefault(name, []).append(answer.score)
    return {name: (take_percent(scores), len(scores)) for name, scores in groups.items() if scores}


def say_unread(count: int, total: int, what: str) -> list[str]:
    """A sentence on answers of which nothing could be read, if any; ``what`` says what the published scorer does."""
    return [f"{count} of {total} answers could not be read and count as wrong; {what}."] if count else []


def say_empty(texts: Sequence[str]) -> list[str]:
    """A sentence on empty answers, if there are any."""
    count = sum(not text.strip() for text in texts)
    return [f"{count} of {len(texts)} answers are empty."] if count else []
