"""The score of MMMU: accuracy over all questions, by discipline and by subject. No torch.

Source: MMMU-Benchmark/MMMU@bb0b95a eval/main_parse_and_eval.py, main_eval_only.py and data_utils.py.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.parquet_questions import iterate_rows, pick_text, read_options
from llava.eval.scoring.letter_rules import name_options
from llava.eval.scoring.mmmu_parsers import CHOICE, MMMU_READINGS, parse_golds
from llava.eval.scoring.verdict import Verdict
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.tally import say_empty, say_unread, take_percent, tally_categories

SEED = 42
"""Of MMMU's dice."""

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
_DISCIPLINE_OF = {subject: name for name, subjects in DISCIPLINES.items() for subject in subjects}
_ORDER = [name for discipline, subjects in DISCIPLINES.items() for name in (discipline, *subjects)]

Gold = tuple[str, list[str], str]
"""The question's type, its options, and the answer."""


def score_mmmu(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """MMMU's accuracy. Raises UsageError for questions of another version, or without published answers."""
    golds = _read_golds(TASKS["mmmu"].find_questions(data), questions)
    headline, *others = MMMU_READINGS
    judged = {
        name: [scorer(text, *gold) for text, gold in zip(texts, golds, strict=True)]
        for name, scorer in MMMU_READINGS.items()
    }
    verdicts = judged[headline]
    unread = [place for place, gold in enumerate(golds) if gold[0] == CHOICE and verdicts[place].reading is None]
    if options.throws_dice:
        verdicts = _throw_dice(questions, golds, verdicts, unread)
    answers = [
        ScoredAnswer(place, one.score, one.reading, _name_right(gold), _categories(question), one.note)
        for place, (question, gold, one) in enumerate(zip(questions, golds, verdicts, strict=True))
    ]
    kinds: dict[str, list[float]] = {"multiple choice": [], "open": []}
    for gold, one in zip(golds, verdicts, strict=True):
        kinds["multiple choice" if gold[0] == CHOICE else "open"].append(one.score)
    if options.throws_dice:
        notes = [f"{len(unread)} answers could not be read: dice are thrown as in MMMU's scorer, seed {SEED}."]
        notes += ["The dice are those of another run of questions."] if options.is_partial else []
    else:
        notes = say_unread(len(unread), len(texts), "MMMU's scorer throws dice for their letter")
    return TaskScore(
        "accuracy",
        {
            "accuracy": take_percent(one.score for one in verdicts),
            **{f"accuracy of {name} questions": take_percent(scores) for name, scores in kinds.items() if scores},
        },
        tally_categories(answers, _ORDER),
        answers,
        {name: take_percent(one.score for one in judged[name]) for name in others},
        notes + say_empty(texts),
    )


def _read_golds(path: Path, questions: Sequence[Question]) -> list[Gold]:
    found = {}
    for where, row in iterate_rows(path, ("id", "question_type", "options", "answer")):
        kind = pick_text(row, "question_type", where)
        choices = read_options(row, where) if kind == CHOICE else []
        found[pick_text(row, "id", where)] = (kind, choices, pick_text(row, "answer", where))
    for question in questions:
        if question.id not in found:
            raise UsageError(f"'{path}' has no question {question.id!r}: the questions are of another version.")
        kind, choices, gold = found[str(question.id)]
        if gold == "?" or (kind == CHOICE and gold not in name_options(choices)):
            raise UsageError(
                f"'{path}' has {gold!r} as the answer of question {question.id!r}, which is none of its letters: the "
                "answers of MMMU's test split are not published."
            )
    return [found[str(question.id)] for question in questions]


def _throw_dice(
    questions: Sequence[Question], golds: Sequence[Gold], verdicts: Sequence[Verdict], unread: Sequence[int]
) -> list[Verdict]:
    """The verdicts with thrown letters, subject by subject in alphabetical order as in MMMU's scorer."""
    dice, thrown = random.Random(SEED), list(verdicts)
    for place in sorted(unread, key=lambda place: (_subject_of(questions[place]), place)):
        letter = dice.choice(list(name_options(golds[place][1])))
        right = float(letter == golds[place][2])
        thrown[place] = replace(verdicts[place], score=right, reading=letter, note="thrown by dice")
    return thrown


def _subject_of(question: Question) -> str:
    return "_".join(str(question.id).split("_")[1:-1])


def _categories(question: Question) -> tuple[str, ...]:
    subject = _subject_of(question)
    return tuple(name for name in (_DISCIPLINE_OF.get(subject), subject) if name)


def _name_right(gold: Gold) -> tuple[str, ...]:
    kind, choices, answer = gold
    return (answer, name_options(choices)[answer]) if kind == CHOICE else tuple(parse_golds(answer))
