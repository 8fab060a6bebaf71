"""The score of Q-Bench's perception questions: accuracy, by the question's form and by what it asks about. No torch.

Q-Bench's authors have GPT compare answers with options, so that published scores are not these. Source:
EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/qbench/utils.py, which counts each question twice, by form and by
subject, with the same accuracy. It names the numbers of Q-Bench-HF, and LLVisionQA's files, which are read here, hold
no names of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.scoring.letter_rules import name_options
from llava.eval.scoring.q_bench_letters import Q_BENCH_READINGS
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.readings import find_mean, group, say_unread

FORMS = ("Yes/No", "How", "What")
CONCERNS = ("Global Distortion", "Global Others", "Local Distortion", "Local Others")


def score_qbench(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """Q-Bench's accuracy. Raises UsageError for questions without their answer, which those of the test split are."""
    if not questions:
        raise UsageError("There are no answers to score.")
    rows = [_read_row(question) for question in questions]
    headline, *others = Q_BENCH_READINGS
    judged = {
        name: [scorer(text, choices, truth) for text, (choices, truth, _) in zip(texts, rows, strict=True)]
        for name, scorer in Q_BENCH_READINGS.items()
    }
    answers = [
        ScoredAnswer(place, one.score, one.reading, (truth, name_options(choices)[truth]), groups)
        for place, (one, (choices, truth, groups)) in enumerate(zip(judged[headline], rows, strict=True))
    ]
    unread = sum(one.reading is None for one in judged[headline])
    published = "lmms-eval throws dice for their letter, and Q-Bench's authors ask a judge"
    notes = [say_unread(unread, len(texts), published)] if unread else []
    if options.throws_dice:
        notes.append("lmms-eval's dice have no seed of their own, so that they are not thrown here.")
    return TaskScore(
        "accuracy",
        {"accuracy": find_mean(answers)},
        group(answers, (*FORMS, *CONCERNS)),
        answers,
        {name: 100 * sum(one.score for one in judged[name]) / len(texts) for name in others},
        notes,
    )


def _read_row(question: Question) -> tuple[list[str], str, tuple[str, ...]]:
    """The options, the right letter, and the categories."""
    row = question.row or {}
    where = f"The question about '{question.id}'"
    choices, right = row.get("candidates"), row.get("correct_ans")
    if right is None:
        raise UsageError(f"{where} has no 'correct_ans': only the dev split is published with its answers.")
    if not isinstance(choices, list) or right not in choices:
        raise UsageError(f"{where} has {right!r} as 'correct_ans', which is none of its candidates {choices!r}.")
    letter = list(name_options(choices))[choices.index(right)]
    groups = (_pick_name(row, "type", FORMS), _pick_name(row, "concern", CONCERNS))
    return [str(choice) for choice in choices], letter, tuple(name for name in groups if name)


def _pick_name(row: Mapping[str, Any], key: str, names: Sequence[str]) -> str:
    place = row.get(key)
    return names[place] if isinstance(place, int) and 0 <= place < len(names) else ""
