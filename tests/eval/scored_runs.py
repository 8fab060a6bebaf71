"""Scored runs for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import AnswerRecord, ScoredRun


def make_answer(place: int, score: float, **changes: Any) -> AnswerRecord:
    values: dict[str, Any] = {
        "id": place,
        "place": place,
        "score": score,
        "reading": "yes",
        "references": ("yes",),
        "categories": (),
        "note": "",
        "prompt": f"Question {place}?",
        "text": "Yes.",
        "images": (),
    }
    return AnswerRecord(**{**values, **changes})


def make_run(answers: Sequence[AnswerRecord], headline: float | None = None, **changes: Any) -> ScoredRun:
    """A run whose headline is the share of the full mark in percent, unless it is given."""
    task = TASKS[changes.pop("task", "gqa")]
    if headline is None and answers:
        headline = 100 * sum(answer.score for answer in answers) / len(answers)
    names = list(dict.fromkeys(name for answer in answers for name in answer.categories))
    groups = {name: [answer.score for answer in answers if name in answer.categories] for name in names}
    values: dict[str, Any] = {
        "task": task.name,
        "model": "llava-v1.5-7b",
        "settings": {"temperature": 0.0, "template": "vicuna_v1"},
        "headline": "accuracy" if headline is not None else "",
        "scores": {"accuracy": headline} if headline is not None else {},
        "categories": {name: (100 * sum(scores) / len(scores), len(scores)) for name, scores in groups.items()},
        "readings": {},
        "notes": (),
        "published": dict(task.published),
        "source": task.source,
        "answers": tuple(answers),
    }
    return ScoredRun(**{**values, **changes})
