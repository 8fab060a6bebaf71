"""The score of MathVista: accuracy, and by what the data set says of each question. No torch.

Source: lupantech/MathVista@53d5258 evaluation/calculate_score.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.parquet_questions import iterate_rows, pick_text, read_choices
from llava.eval.scoring.math_vista_answers import CHOICE, MATH_VISTA_READINGS, Problem, score_by_rules
from llava.eval.scoring.verdict import Verdict
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.tally import say_empty, take_percent, tally_categories

_GROUPS = ("language", "source", "category", "task", "context", "grade", "skills")
_COLUMNS = ("pid", "question_type", "answer_type", "choices", "precision", "answer", "metadata")

Judge = Callable[[str, str], str]
"""Finds the answer within a response, from the question and the response, as MathVista has GPT-4 do."""


def score_math_vista(
    questions: Sequence[Question],
    texts: Sequence[str],
    data: Path,
    options: ScoringOptions,
    *,
    judge: Judge | None = None,
) -> TaskScore:
    """MathVista's accuracy. Raises UsageError for questions of another version, or without published answers."""
    problems = _read_problems(TASKS["mathvista"].find_questions(data), questions)
    verdicts = [
        _judge_one(text, problem, question, judge)
        for question, text, (problem, _) in zip(questions, texts, problems, strict=True)
    ]
    unread = sum(bool(one.note) for one in verdicts)
    _, published, *others = MATH_VISTA_READINGS
    judged = {
        name: [MATH_VISTA_READINGS[name](text, problem) for text, (problem, _) in zip(texts, problems, strict=True)]
        for name in (published, *others)
    }
    if options.throws_dice and judge is None:
        verdicts = [
            Verdict(guess.score, guess.reading, "the choice nearest to an empty text") if one.note else one
            for one, guess in zip(verdicts, judged[published], strict=True)
        ]
    answers = [
        ScoredAnswer(place, one.score, one.reading, (problem.answer,), groups, one.note)
        for place, (one, (problem, groups)) in enumerate(zip(verdicts, problems, strict=True))
    ]
    return TaskScore(
        "accuracy",
        {"accuracy": take_percent(answer.score for answer in answers)},
        tally_categories(answers),
        answers,
        {name: take_percent(one.score for one in ones) for name, ones in judged.items()},
        _say_unread(unread, len(texts), options) + say_empty(texts),
    )


def _judge_one(text: str, problem: Problem, question: Question, judge: Judge | None) -> Verdict:
    if judge is None:
        return score_by_rules(text, problem)
    ask = judge
    return score_by_rules(text, problem, lambda response: ask(question.text, response))


def _say_unread(count: int, total: int, options: ScoringOptions) -> list[str]:
    if not count:
        return []
    asked = f"{count} of {total} responses are more than an answer, which MathVista has GPT-4 extract"
    if options.throws_dice:
        return [f"{asked}: without it the nearest choice to an empty text is taken, as in MathVista's scorer."]
    return [f"{asked}: without a judge they count as wrong. Published scores are with the judge."]


def _read_problems(path: Path, questions: Sequence[Question]) -> list[tuple[Problem, tuple[str, ...]]]:
    found = {}
    for where, row in iterate_rows(path, _COLUMNS):
        found[pick_text(row, "pid", where)] = (where, row)
    problems = []
    for question in questions:
        if question.id not in found:
            raise UsageError(f"'{path}' has no question {question.id!r}: the questions are of another version.")
        where, row = found[str(question.id)]
        problem = Problem(
            pick_text(row, "question_type", where),
            pick_text(row, "answer_type", where),
            tuple(read_choices(row, where)),
            row["precision"] if isinstance(row["precision"], int | float) else None,
            "" if row["answer"] is None else pick_text(row, "answer", where),
        )
        if not problem.answer or (problem.question_type == CHOICE and problem.answer not in problem.choices):
            raise UsageError(
                f"{where} has {row['answer']!r} as its answer, which is none: the answers of MathVista's test split "
                "are not published."
            )
        problems.append((problem, _name_groups(row)))
    return problems


def _name_groups(row: Mapping[str, Any]) -> tuple[str, ...]:
    about = row["metadata"] if isinstance(row["metadata"], Mapping) else {}
    pairs = [("question_type", row["question_type"]), ("answer_type", row["answer_type"])]
    for key in _GROUPS:
        value = about.get(key)
        pairs += [(key, one) for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]
    return tuple(f"{key}: {value}" for key, value in pairs)
