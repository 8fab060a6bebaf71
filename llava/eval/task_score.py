"""What a benchmark's scorer says of a whole run. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from llava.eval.task import Question


@dataclass(frozen=True)
class ScoringOptions:
    """How a person wants a run scored.

    Attributes:
        throws_dice: guess where the published scorer guesses, with its seed; otherwise such answers count as wrong.
        is_partial: the questions are a part of the split, so that counts are not those of the benchmark.
    """

    throws_dice: bool = False
    is_partial: bool = False


@dataclass(frozen=True)
class ScoredAnswer:
    """One answer as its scorer saw it.

    Attributes:
        place: of its question in the run's list.
        score: the share of the full mark, 0 to 1.
        reading: what the scorer read out of the answer; None if nothing could be read.
        references: the answers that are right, or what people said.
        categories: the groups of the benchmark that it counts in.
        note: why the score is what it is, where that is not plain.
    """

    place: int
    score: float
    reading: str | None
    references: tuple[str, ...]
    categories: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class TaskScore:
    """The score of a run.

    Attributes:
        headline: the name in ``scores`` of the number that papers print.
        scores: every number that the benchmark's scorer prints, in the unit in which it is published (mostly 0 to 100).
        categories: score and number of answers by group, in the benchmark's order.
        answers: one for each question that is scored.
        readings: the headline by other published scorers, by their names.
        notes: sentences: what was counted as wrong and why, what differs from the published scorer here.
    """

    headline: str
    scores: Mapping[str, float]
    categories: Mapping[str, tuple[float, int]]
    answers: Sequence[ScoredAnswer]
    readings: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()


class TaskScorer(Protocol):
    """Scores a run; ``texts`` are the answers in the questions' order, one for each question."""

    def __call__(
        self, questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
    ) -> TaskScore:
        """Raises UsageError for annotations that are missing, damaged, or of another version."""
        ...
