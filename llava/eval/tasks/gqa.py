"""GQA's score on the balanced questions of testdev. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import read_json
from llava.eval.scoring.gqa_accuracy import GQA_READINGS, read_gqa
from llava.eval.scoring.gqa_report import GqaReport, evaluate_gqa
from llava.eval.task import Question
from llava.eval.task_score import ScoringOptions, TaskScore
from llava.eval.tasks.readings import Truth, score_answers

ANNOTATIONS = "gqa/data/testdev_balanced_questions.json"


def score_gqa(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """The official evaluation's accuracy, 0 to 100, by kind, type, steps and words. A ``TaskScorer``."""
    path = data / ANNOTATIONS
    annotations = _read_annotations(path)
    rows = [annotations.get(str(question.id)) for question in questions]
    strangers = [question.id for question, row in zip(questions, rows, strict=True) if row is None]
    if strangers:
        raise UsageError(
            f"{len(strangers)} questions are not in '{path}', the first of them {strangers[0]!r}: it is of another "
            "split. LLaVA-1.5's is testdev_balanced."
        )
    asked = {str(question.id): annotations[str(question.id)] for question in questions}
    predictions = {str(question.id): read_gqa(text) for question, text in zip(questions, texts, strict=True)}
    try:
        # All balanced questions are wanted, unless a part of them is scored on purpose.
        report = evaluate_gqa(asked if options.is_partial else annotations, predictions)
        truths = [Truth((row["answer"],), _name_groups(row)) for row in asked.values() if row["isBalanced"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"'{path}' is not a questions file of GQA: {error!r}.") from error
    kept = [place for place, row in enumerate(asked.values()) if row["isBalanced"]]
    answers, means, notes = score_answers([texts[place] for place in kept], truths, GQA_READINGS)
    answers = [replace(answer, place=place) for answer, place in zip(answers, kept, strict=True)]
    if len(kept) < len(questions):
        notes.append(f"{len(questions) - len(kept)} of the questions are not balanced, and GQA does not score them.")
    notes.append("Validity, plausibility, consistency and grounding need files that testdev does not have.")
    scores = {"accuracy": report.accuracy, "binary": report.binary, "open": report.open}
    if report.distribution is not None:
        scores["distribution"] = report.distribution
    return TaskScore("accuracy", scores, _list_categories(report), answers, means, notes)


def _name_groups(row: Mapping[str, Any]) -> tuple[str, ...]:
    types = row["types"]
    return (f"structural: {types['structural']}", f"semantic: {types['semantic']}")


def _list_categories(report: GqaReport) -> dict[str, tuple[float, int]]:
    tables: tuple[tuple[str, Mapping[Any, tuple[float, int]]], ...] = (
        ("structural", report.by_structure),
        ("semantic", report.by_semantics),
        ("steps", report.by_steps),
        ("words", report.by_words),
    )
    return {f"{title}: {name}": pair for title, pairs in tables for name, pair in pairs.items()}


def _read_annotations(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UsageError(f"'{path}' is not a questions file of GQA: it holds no object.")
    return value
