"""POPE's labels joined with the answers, its counts and its measures. Loads no torch.

The original joins labels by line number, so that another version of a label file scores wrongly without a word; here an
answer finds its label by image and question, and other counts are refused.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_pope.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llava.errors import UsageError
from llava.eval.scoring.yes_no import read_pope


@dataclass(frozen=True)
class PopeCounts:
    """How often yes was said and right (tp), said and wrong (fp), and no said and right (tn), said and wrong (fn)."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def num(self) -> int:
        """The number of answers."""
        return self.tp + self.fp + self.tn + self.fn

    @property
    def accuracy(self) -> float:
        """The share of right answers, 0 to 1."""
        return (self.tp + self.tn) / self.num

    @property
    def precision(self) -> float:
        """The share of right ones among the answers yes; 0 if there is none, where the original crashes."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0

    @property
    def recall(self) -> float:
        """The share of the questions with label yes that are answered yes; 0 if there is none."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0

    @property
    def f1(self) -> float:
        """The F1 score, 0 to 1; 0 if no answer yes is right, where the original crashes."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def yes_ratio(self) -> float:
        """The share of answers yes."""
        return (self.tp + self.fp) / self.num


def count_pope(pairs: Iterable[tuple[str, str]]) -> PopeCounts:
    """The counts over pairs of an answer and its label. Raises UsageError if there is none."""
    counts = Counter((read_pope(text), "no" if label == "no" else "yes") for text, label in pairs)
    if not counts:
        raise UsageError("There is no answer to score in this category of POPE.")
    return PopeCounts(counts["yes", "yes"], counts["yes", "no"], counts["no", "no"], counts["no", "yes"])


def join_pope(
    answers: Iterable[tuple[Mapping[str, Any], str]], labels: Iterable[Mapping[str, Any]], where: str
) -> list[tuple[str, str]]:
    """Each answer's text with its label; ``answers`` are pairs of a question and an answer, ``where`` names the labels.

    Raises UsageError if the answers are not exactly to the labels' questions.
    """
    known = [(_key(row), str(row["label"])) for row in labels]
    given = [(_key(question), text) for question, text in answers]
    lacking, strange = Counter(key for key, _ in known), Counter(key for key, _ in given)
    if lacking != strange:
        raise UsageError(
            f"'{where}' has {len(known)} labels, and there are {len(given)} answers in this category; "
            f"{(lacking - strange).total()} labels have no answer and {(strange - lacking).total()} answers no label. "
            "Take the label file of AoiDragon/POPE@e3e3926 (random 2910, popular 3000, adversarial 3000), and answer "
            "each question once."
        )
    by_key: dict[tuple[str, str], set[str]] = {}
    for key, label in known:
        by_key.setdefault(key, set()).add(label)
    torn = next((key for key, found in by_key.items() if len(found) > 1), None)
    if torn is not None:
        raise UsageError(f"'{where}' labels the question {torn[1]!r} about '{torn[0]}' both yes and no.")
    return [(text, next(iter(by_key[key]))) for key, text in given]


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["image"]), str(row["text"]).split("\n")[0].strip()
