"""POPE's labels joined with the answers, its counts and its measures. Loads no torch.

The original joins labels by line number, so that another version of a label file scores wrongly without a word; here an
answer finds its label by image and question, and other counts are refused.

Source: haotian-liu/LLaVA@c121f04 llava/eval/eval_pope.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import pick_text
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


def count_pope(pairs: Iterable[tuple[str, str]], read: Callable[[str], str] = read_pope) -> PopeCounts:
    """The counts over pairs of an answer and its label. Raises UsageError if there is no pair.

    Answers that ``read`` takes for neither yes nor no are in none of the counts.
    """
    counts = Counter((read(text), "no" if label == "no" else "yes") for text, label in pairs)
    if not counts:
        raise UsageError("There is no answer to score in this category of POPE.")
    return PopeCounts(counts["yes", "yes"], counts["yes", "no"], counts["no", "no"], counts["no", "yes"])


def join_pope(
    answers: Iterable[tuple[Mapping[str, Any], str]],
    labels: Iterable[Mapping[str, Any]],
    where: str,
    *,
    is_partial: bool = False,
) -> list[tuple[str, str]]:
    """Each answer's text with its label, in the answers' order.

    Where a question occurs more than once in the labels, its n-th answer gets its n-th label.

    Args:
        answers: pairs of a question and an answer's text.
        where: names the labels.
        is_partial: labels without an answer are no fault.

    Raises:
        UsageError: the answers are not exactly to the labels' questions, or a label is neither yes nor no.
    """
    known: defaultdict[tuple[str, str], deque[str]] = defaultdict(deque)
    num_labels = 0
    for row in labels:
        label = pick_text(row, "label", where)
        if label not in ("yes", "no"):
            raise UsageError(f"'{where}' has the label {label[:80]!r}, which is neither yes nor no.")
        known[_key(row, where)].append(label)
        num_labels += 1
    given = [(_key(question, "the questions file"), text) for question, text in answers]
    asked = Counter(key for key, _ in given)
    wanted = Counter({key: len(found) for key, found in known.items()})
    if asked - wanted or (wanted - asked and not is_partial):
        raise UsageError(
            f"'{where}' has {num_labels} labels, and there are {len(given)} answers in this category; "
            f"{(wanted - asked).total()} labels have no answer and {(asked - wanted).total()} answers no label. "
            "Take the label file of AoiDragon/POPE@e3e3926 (random 2910, popular 3000, adversarial 3000), and answer "
            "each question once."
        )
    return [(text, known[key].popleft()) for key, text in given]


def _key(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Image and question. POPE's first version, which LLaVA asks, misspells the questions about "an" object."""
    question = pick_text(row, "text", where).split("\n")[0].strip().replace(" in the imange?", " in the image?")
    return pick_text(row, "image", where), question
