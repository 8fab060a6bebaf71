"""MME's score of a category from the pairs of questions about its images. Loads no torch.

Source: MME's calculation.py, as in zjunlp/Deco@a3ccc15 eval_tool/calculation.py; EvolvingLMMs-Lab/lmms-eval 0.7.3
lmms_eval/tasks/mme/utils.py, whose score of a category differs by rounding only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
GROUPS = {"Perception": PERCEPTION, "Cognition": COGNITION}
QUESTIONS_PER_IMAGE = 2


def score_category(images: Iterable[Sequence[bool]]) -> float:
    """The score of a category, 0 to 200: the share of right answers and that of images with two of them, in percent.

    ``images``: for each image, at least one of them, whether each of its two answers is right.
    """
    rows = list(images)
    assert rows
    assert all(len(row) == QUESTIONS_PER_IMAGE for row in rows)
    accuracy = sum(map(sum, rows)) / (QUESTIONS_PER_IMAGE * len(rows))
    accuracy_plus = sum(all(row) for row in rows) / len(rows)
    return accuracy * 100 + accuracy_plus * 100


def add_scores(scores: Iterable[float]) -> float:
    """A group's score: the sum, rounded at each step as the original's (``sum`` rounds once from Python 3.12 on)."""
    total = 0.0
    for score in scores:
        total += score
    return total
