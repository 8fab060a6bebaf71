"""Scores a run of MME: perception, which is the published number, and cognition. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llava.errors import UsageError
from llava.eval.mme_files import MmeQuestion, find_question, read_mme_folder
from llava.eval.scoring.mme_pairs import GROUPS, QUESTIONS_PER_IMAGE, add_scores, score_category
from llava.eval.scoring.verdict import Verdict
from llava.eval.scoring.yes_no import score_mme as score_answer
from llava.eval.scoring.yes_no import score_mme_lmms_eval, score_vlmevalkit
from llava.eval.task import Question
from llava.eval.task_score import ScoredAnswer, ScoringOptions, TaskScore

FOLDER = "MME/MME_Benchmark_release_version"
_GROUP_OF = {category: group.lower() for group, names in GROUPS.items() for category in names}

Pairs = dict[tuple[str, str], list[int]]
"""The places of the two questions about an image, by category and file."""


def score_mme(questions: Sequence[Question], texts: Sequence[str], data: Path, options: ScoringOptions) -> TaskScore:
    """The scores of MME's calculation; the truths are those of MME's folder."""
    asked = _find_questions(questions, data / FOLDER)
    pairs, alone = _pair(asked, is_partial=options.is_partial)
    scores = _score(pairs, asked, texts, score_answer)
    totals = _add_groups(scores)
    headline = "perception" if "perception" in totals else "cognition"  # the latter for a part of the questions only
    others = {"lmms-eval": score_mme_lmms_eval, "VLMEvalKit": score_vlmevalkit}
    sums = {name: _add_groups(_score(pairs, asked, texts, judge)) for name, judge in others.items()}
    answers = []
    for place in sorted(place for places in pairs.values() for place in places):
        question = asked[place]
        verdict = score_answer(texts[place], question.truth)
        groups = (question.category, _GROUP_OF[question.category])
        answers.append(ScoredAnswer(place, verdict.score, verdict.reading, (question.truth,), groups))
    counts = {name: sum(asked[answer.place].category == name for answer in answers) for name in scores}
    return TaskScore(
        headline=headline,
        scores=totals,
        categories={name: (scores[name], counts[name]) for name in scores},
        answers=answers,
        readings={name: found[headline] for name, found in sums.items()},
        notes=_write_notes(answers, scores, alone),
    )


def _add_groups(scores: Mapping[str, float]) -> dict[str, float]:
    """The sum of each group that has a category among the scores."""
    groups = {group.lower(): [scores[name] for name in names if name in scores] for group, names in GROUPS.items()}
    return {group: add_scores(found) for group, found in groups.items() if found}


def _find_questions(questions: Sequence[Question], folder: Path) -> list[MmeQuestion]:
    known = read_mme_folder(folder)
    found = [find_question(known, question.id, question.prompt) for question in questions]
    strange = [question for question, one in zip(questions, found, strict=True) if one is None]
    if strange:
        raise UsageError(
            f"{len(strange)} questions are not in '{folder}', the first of them {strange[0].prompt[:80]!r} about "
            f"{strange[0].id!r}: the questions and the folder are of different versions."
        )
    asked = [one for one in found if one is not None]
    if other := sorted({one.category for one in asked} - _GROUP_OF.keys()):
        raise UsageError(f"MME has no category {', '.join(other)}; it has {', '.join(_GROUP_OF)}.")
    return asked


def _pair(asked: Sequence[MmeQuestion], *, is_partial: bool) -> tuple[Pairs, list[MmeQuestion]]:
    """The pairs in MME's order of categories, and questions whose partner is not asked. Raises UsageError."""
    images: Pairs = {}
    for place, question in enumerate(asked):
        images.setdefault((question.category, question.file), []).append(place)
    whole = {key: places for key, places in images.items() if len(places) == QUESTIONS_PER_IMAGE}
    many = [asked[places[0]] for places in images.values() if len(places) > QUESTIONS_PER_IMAGE]
    alone = [asked[places[0]] for places in images.values() if len(places) < QUESTIONS_PER_IMAGE]
    absent = sorted(_GROUP_OF.keys() - {category for category, _ in images})
    if many or (not is_partial and (alone or absent)) or not whole:
        odd = [f"{one.category}/{one.file}" for one in (*many, *alone)][:1] or absent
        raise UsageError(
            f"MME is scored by pairs of questions about an image, in all of its {len(_GROUP_OF)} categories: "
            f"{len(alone)} images have one question, {len(many)} more than two, and {len(absent)} categories none"
            f"{f' (such as {odd[0]})' if odd else ''}."
        )
    order = list(_GROUP_OF)
    return dict(sorted(whole.items(), key=lambda item: order.index(item[0][0]))), alone


def _score(
    pairs: Pairs, asked: Sequence[MmeQuestion], texts: Sequence[str], judge: Callable[[str, str], Verdict]
) -> dict[str, float]:
    """The score of each category."""
    rights: dict[str, list[list[bool]]] = {}
    for (category, _), places in pairs.items():
        row = [judge(texts[place], asked[place].truth).score == 1 for place in places]
        rights.setdefault(category, []).append(row)
    return {category: score_category(rows) for category, rows in rights.items()}


def _write_notes(
    answers: Sequence[ScoredAnswer], scores: Mapping[str, float], alone: Sequence[MmeQuestion]
) -> list[str]:
    notes = []
    if num := sum(answer.reading is None for answer in answers):
        notes.append(f"{num} answers have neither yes nor no in their first four characters and count as wrong.")
    if len(scores) < len(_GROUP_OF):
        notes.append(f"Only {len(scores)} of {len(_GROUP_OF)} categories are asked, and the sums are over these.")
    if alone:
        notes.append(f"{len(alone)} questions are not scored, since the other question about the image is not asked.")
    return notes
