"""The score of AI2D: accuracy by lmms-eval's rule. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.parquet_questions import iterate_rows, pick_list, pick_text
from llava.eval.scoring.ai2d_letters import score_ai2d as score_answer
from llava.eval.scoring.letter_rules import name_options, read_bare_letter, read_vlmevalkit
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore
from llava.eval.tasks.tally import say_empty, say_unread, take_percent


def score_ai2d(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """AI2D's accuracy. Raises UsageError for questions of another version."""
    golds = _read_golds(TASKS["ai2d"].find_questions(data), questions)
    verdicts = [score_answer(text, truth) for text, (_, truth) in zip(texts, golds, strict=True)]
    others = {
        name: take_percent(
            float(rule(text, choices) == truth) for text, (choices, truth) in zip(texts, golds, strict=True)
        )
        for name, rule in (("VLMEvalKit", read_vlmevalkit), ("bare letter", read_bare_letter))
    }
    answers = [
        ScoredAnswer(place, one.score, one.reading, (truth, choices[truth]))
        for place, (one, (choices, truth)) in enumerate(zip(verdicts, golds, strict=True))
    ]
    unread = sum(one.reading is None for one in verdicts)
    accuracy = take_percent(one.score for one in verdicts)
    notes = say_unread(unread, len(texts), "lmms-eval counts them as wrong too") + say_empty(texts)
    return TaskScore("accuracy", {"accuracy": accuracy}, {}, answers, others, notes)


def _read_golds(path: Path, questions: Sequence[Question]) -> list[tuple[dict[str, str], str]]:
    """The options by letter, and the right letter, of each question."""
    found = {}
    for number, (where, row) in enumerate(iterate_rows(path, ("question", "options", "answer"))):
        choices = name_options(pick_list(row, "options", where))
        said = str(row["answer"])
        letters = list(choices)
        if not said.isdecimal() or int(said) >= len(letters):
            raise UsageError(f"{where} has {said!r} as its answer, which is no number of its {len(letters)} options.")
        found[number] = (pick_text(row, "question", where), choices, letters[int(said)])
    golds = []
    for question in questions:
        asked, choices, truth = found.get(question.id, ("", {}, "")) if isinstance(question.id, int) else ("", {}, "")
        if not truth or not question.prompt.startswith(asked):
            raise UsageError(
                f"'{path}' has another question at row {question.id!r}: the questions are of another version."
            )
        golds.append((choices, truth))
    return golds
