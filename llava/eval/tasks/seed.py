"""Scores a run of SEED-Bench: over all questions, as LLaVA-1.5 is, or over images only, as LLaVA-NeXT. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llava.errors import UsageError
from llava.eval.scoring.seed_bench import score_seed as score_answer
from llava.eval.scoring.seed_bench import score_seed_lmms_eval
from llava.eval.seed_files import KINDS, count_seed, make_key, read_seed
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore

ANNOTATIONS = "seed_bench/SEED-Bench.json"


def score_seed(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """Accuracy in percent; the headline is "image" if only images are asked about, and "all" otherwise."""
    annotations = read_seed(data / ANNOTATIONS)
    known = {make_key(question.id): question for question in annotations.questions}
    strangers = [question.id for question in questions if make_key(question.id) not in known]
    if strangers or not questions:
        raise UsageError(
            f"{len(strangers)} of the {len(questions)} questions are not in '{data / ANNOTATIONS}'"
            f"{f', such as {strangers[0]!r}' if strangers else ''}: take the files of one version of SEED-Bench."
        )
    asked = [known[make_key(question.id)] for question in questions]
    answers, rows, lmms = [], [], []
    for place, (question, text) in enumerate(zip(asked, texts, strict=True)):
        verdict = score_answer(text, question.answer)
        groups = (annotations.types[question.type_id], question.kind)
        answers.append(ScoredAnswer(place, verdict.score, verdict.reading, (question.answer,), groups))
        rows.append((question, verdict.score == 1))
        lmms.append((question, score_seed_lmms_eval(text, question.answer).score == 1))
    table = count_seed(rows)
    kinds = [kind for kind in KINDS if any(question.kind == kind for question in asked)]
    scores = {kind: count_seed(rows, (kind,)).accuracy for kind in kinds}
    headline = "image" if kinds == ["image"] else "all"
    if headline == "all":
        scores = {"all": table.accuracy, **scores}
    wanted = [one for one in annotations.questions if headline == "all" or one.kind == "image"]
    notes = []
    if headline == "image":
        notes.append("The number is over images only, as LLaVA-NeXT's is; LLaVA-1.5's is over images and videos.")
    if len(asked) != len(wanted):
        notes.append(f"{len(asked)} of the {len(wanted)} questions are asked, so the score is not SEED-Bench's.")
    if unread := sum(answer.reading is None for answer in answers):
        notes.append(f"{unread} answers are not exactly a letter from A to D and count as wrong.")
    return TaskScore(
        headline=headline,
        scores=scores,
        categories={annotations.types[key]: (table.accuracy_of(key), num) for key, num in table.num.items()},
        answers=answers,
        readings={"lmms-eval": count_seed(lmms).accuracy},
        notes=notes,
    )
