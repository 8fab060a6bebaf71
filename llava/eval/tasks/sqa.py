"""Scores a run of ScienceQA: accuracy over questions with an image, which is the published number. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.errors import UsageError
from llava.eval.science_files import GROUPS, read_problems
from llava.eval.scoring.science_qa import OPTIONS, score_science_qa_lmms_eval
from llava.eval.scoring.science_qa import score_science_qa as score_answer
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore

BASE, SPLIT = "scienceqa", "test"


def score_science_qa(
    questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions
) -> TaskScore:
    """Accuracy in percent, over questions with an image and over all; the groups are those of ScienceQA's tables."""
    problems = read_problems(data / BASE, SPLIT)
    strangers = [question.id for question in questions if question.id not in problems]
    if strangers or not questions:
        raise UsageError(
            f"{len(strangers)} of the {len(questions)} questions are not in the split '{SPLIT}' of '{data / BASE}'"
            f"{f', such as {strangers[0]!r}' if strangers else ''}: take files of one version."
        )
    answers, lmms = [], []
    for place, (question, text) in enumerate(zip(questions, texts, strict=True)):
        problem = problems[str(question.id)]
        verdict = score_answer(text, problem.choices, problem.answer)
        truth = OPTIONS[problem.answer]
        answers.append(
            ScoredAnswer(place, verdict.score, verdict.reading, (truth,), problem.find_groups(), verdict.note)
        )
        lmms.append(score_science_qa_lmms_eval(text, problem.choices, problem.answer).score)
    with_image = [place for place, question in enumerate(questions) if question.images]
    scores = {"accuracy": _average([answer.score for answer in answers])}
    readings = {"lmms-eval": _average(lmms)}
    if with_image:
        scores = {"image accuracy": _average([answers[place].score for place in with_image]), **scores}
        readings = {"lmms-eval": _average([lmms[place] for place in with_image])}
    groups = {name: [answer.score for answer in answers if name in answer.categories] for name in GROUPS}
    notes = []
    if len(questions) != len(problems):
        notes.append(f"{len(questions)} of the {len(problems)} questions are asked, so the score is not the split's.")
    if not with_image:
        notes.append("No question has an image, so the score is over text-only questions.")
    if unread := sum(answer.reading is None for answer in answers):
        notes.append(f"No letter can be read out of {unread} answers, and they count as wrong.")
    return TaskScore(
        headline=next(iter(scores)),
        scores=scores,
        categories={name: (_average(found), len(found)) for name, found in groups.items() if found},
        answers=answers,
        readings=readings,
        notes=notes,
    )


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values) * 100
