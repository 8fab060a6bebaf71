"""OCRBench: an answer is right if it contains a reference. Loads no torch.

Case and newlines do not count, except for the formulas of HME100k, where case counts and no blank does. An empty
reference is contained in every answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from llava.errors import UsageError
from llava.eval.scoring.verdict import Verdict

FORMULAS = "HME100k"
RECOGNITION = (
    "Regular Text Recognition",
    "Irregular Text Recognition",
    "Artistic Text Recognition",
    "Handwriting Recognition",
    "Digit String Recognition",
    "Non-Semantic Text Recognition",
)
"""The question types that add up to "Text Recognition", 50 questions each."""
QUESTION_TYPES = (
    *RECOGNITION,
    "Scene Text-centric VQA",
    "Doc-oriented VQA",
    "Key Information Extraction",
    "Handwritten Mathematical Expression Recognition",
)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


def score_ocrbench_team(prediction: str, references: Sequence[str], dataset: str = "") -> Verdict:
    """1.0 if the answer contains a reference, by the OCRBench team's script.

    ``dataset`` is the row's ``dataset_name``. Source: Yuliang-Liu/MultimodalOCR@f5cbec6 OCRBench/example.py.
    """
    return _contains(prediction, references, _drop_blanks if dataset == FORMULAS else _lower)


def score_ocrbench_lmms(prediction: str, references: Sequence[str], dataset: str = "") -> Verdict:
    """``score_ocrbench_team``, but full-width forms of ASCII characters equal them, except in formulas.

    ``dataset`` is the row's ``dataset``. Source: EvolvingLMMs-Lab/lmms-eval 0.7.3 lmms_eval/tasks/ocrbench/utils.py.
    """
    return _contains(prediction.strip(), references, _drop_blanks if dataset == FORMULAS else _fold_width)


def add_up_ocrbench(scored: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The points of each question type, of "Text Recognition" and the "Final Score" of 1000, from types and scores.

    Raises UsageError for an unknown type.
    """
    points = dict.fromkeys(QUESTION_TYPES, 0.0)
    for question_type, score in scored:
        if question_type not in points:
            raise UsageError(f"'{question_type}' is no question type of OCRBench; there are: {', '.join(points)}.")
        points[question_type] += score
    recognition = sum(points[name] for name in RECOGNITION)
    return {"Text Recognition": recognition, **points, "Final Score": sum(points.values())}


def _contains(prediction: str, references: Sequence[str], fold: Callable[[str], str]) -> Verdict:
    if not references:
        raise UsageError("A question has no reference answer: its list of answers is empty.")
    answer = fold(prediction)
    found = [reference for reference in map(fold, references) if reference in answer]
    note = "an empty reference is contained in every answer" if found and not any(found) else ""
    return Verdict(float(bool(found)), answer.strip() or None, note)


def _lower(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _fold_width(text: str) -> str:
    return _lower(text.translate(_FULL_WIDTH))


def _drop_blanks(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


OCRBENCH_READINGS: dict[str, Callable[[str, Sequence[str], str], Verdict]] = {
    "ocrbench-team": score_ocrbench_team,
    "lmms-eval": score_ocrbench_lmms,
}
"""By name, the benchmark's own first."""
