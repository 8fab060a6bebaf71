"""The soft accuracy of the VQA challenges in its five published readings. Loads no torch.

Each person is left out in turn, and the answer scores a third for each of the others who gave it, at most 1; the score
is the mean over the people. The readings differ in how answers are normalized first, and in how many people there may
be. ``people`` are the answers, or VQAv2's rows ``{"answer": ..., "answer_id": ...}``: the scripts that read rows leave
out every row that equals the one left out, which shows where ids repeat.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava.errors import UsageError
from llava.eval.scoring.answer_normalizer import (
    normalize_answer,
    normalize_as_vqa_team,
    put_on_one_line,
    remove_punctuation,
    replace_words,
)
from llava.eval.scoring.verdict import Verdict

NUM_PEOPLE = 10
"""Human answers per question in VQAv2, TextVQA and VizWiz."""

People = Sequence[str] | Sequence[Mapping[str, Any]]


def score_m4c(prediction: str, people: People) -> Verdict:
    """The score by LLaVA's own scorer of TextVQA. Raises UsageError unless there are ten people.

    Source: haotian-liu/LLaVA@c121f04 llava/eval/m4c_evaluator.py, TextVQAAccuracyEvaluator.
    """
    if len(people) != NUM_PEOPLE:
        raise UsageError(f"{len(people)} people answered a question, but the score is defined for {NUM_PEOPLE}.")
    answer = normalize_answer(prediction)
    scores = _leave_one_out(answer, [normalize_answer(row["answer"]) for row in _rows(people)])
    return Verdict(sum(scores) / len(scores), answer or None)


def score_vqa_team(prediction: str, people: People) -> Verdict:
    """The score by the VQA team's script, which normalizes only where people disagree.

    Where all of them wrote the same, answers are compared as they stand: "Yes" is wrong if everybody wrote "yes".
    Source: GT-Vision-Lab/VQA@a013f00 PythonEvaluationTools/vqaEvaluation/vqaEval.py.
    """
    answer = put_on_one_line(prediction)
    rows = [{**row, "answer": put_on_one_line(row["answer"])} for row in _rows(people)]
    agreed = len({row["answer"] for row in rows}) == 1
    if not agreed:
        answer = normalize_as_vqa_team(answer)
        rows = [{**row, "answer": normalize_as_vqa_team(row["answer"])} for row in rows]
    scores = _leave_equal_out(answer, rows)
    note = "compared as it stands, since all people wrote the same" if agreed else ""
    return Verdict(sum(scores) / len(scores), answer or None, note)


def score_vqa_submitted(prediction: str, people: People) -> Verdict:
    """The score by the VQA team's script of the answer as LLaVA submits it: normalized by LLaVA's own rules.

    It is what the challenge's server makes of a submission, as far as it runs that script. Source:
    haotian-liu/LLaVA@c121f04 scripts/convert_vqav2_for_submission.py.
    """
    return score_vqa_team(normalize_answer(prediction), people)


def score_lmms_vqav2(prediction: str, people: People) -> Verdict:
    """The score by lmms-eval's VQAv2: the VQA team's script, but it always normalizes.

    Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/vqav2/utils.py.
    """
    answer = _normalize_line(prediction)
    rows = [{**row, "answer": _normalize_line(row["answer"])} for row in _rows(people)]
    return Verdict(float(statistics.mean(_leave_equal_out(answer, rows))), answer or None)


def score_lmms_textvqa(prediction: str, people: People) -> Verdict:
    """The score by lmms-eval's TextVQA and VizWiz: LLaVA's, for any number of people.

    Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/textvqa/utils.py and vizwiz_vqa/utils.py.
    """
    answer = normalize_answer(prediction)
    scores = _leave_one_out(answer, [normalize_answer(row["answer"]) for row in _rows(people)])
    return Verdict(float(statistics.mean(scores)), answer or None)


def _rows(people: People) -> list[Mapping[str, Any]]:
    """The people as VQAv2's rows; ids are their places, where only answers are given."""
    if not people:
        raise UsageError("Nobody answered a question: its list of human answers is empty.")
    return [said if isinstance(said, Mapping) else {"answer": said, "answer_id": i} for i, said in enumerate(people, 1)]


def _normalize_line(text: str) -> str:
    return replace_words(remove_punctuation(put_on_one_line(text)))


def _leave_one_out(answer: str, people: Sequence[str]) -> list[float]:
    """For each person left out, the answer's score against the others."""
    total = people.count(answer)
    return [min(1.0, (total - (said == answer)) / 3) for said in people]


def _leave_equal_out(answer: str, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """For each row, the answer's score against the rows that differ from it."""
    return [min(1.0, sum(other["answer"] == answer for other in rows if other != row) / 3) for row in rows]


VQA_READINGS: dict[str, Callable[[str, People], Verdict]] = {
    "m4c": score_m4c,
    "vqa-team": score_vqa_team,
    "vqa-submitted": score_vqa_submitted,
    "lmms-eval-vqav2": score_lmms_vqav2,
    "lmms-eval-textvqa": score_lmms_textvqa,
}
"""By name, the LLaVA-1.5 protocol's first."""
