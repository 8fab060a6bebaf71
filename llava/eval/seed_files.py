"""SEED-Bench's annotations, and answers joined with them by id. Loads no torch.

Ids of images are numbers and those of videos begin with "v". The annotations have both as text, and LLaVA's question
file has the former as numbers; here "12" and 12 are one id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick, pick_text, read_object
from llava.eval.scoring.seed_bench import LETTERS
from llava.eval.submission import pick_id

KINDS = ("image", "video")


@dataclass(frozen=True)
class SeedQuestion:
    """A question of SEED-Bench.json: its id there, its type, "image" or "video", and the letter that is right."""

    id: int | str
    type_id: int
    kind: str
    answer: str


@dataclass(frozen=True)
class SeedAnnotations:
    """All questions in the file's order, and the types' names by number."""

    questions: list[SeedQuestion]
    types: dict[int, str]


def make_key(question_id: int | str) -> int | str:
    """An id that is equal however it is written; the original compares the numbers of images as ``int`` does."""
    try:
        return int(question_id)
    except ValueError:
        return question_id


def read_seed(path: str | Path) -> SeedAnnotations:
    """Reads SEED-Bench.json. Raises UsageError for a file that is not SEED-Bench's first version."""
    content = read_object(path)
    types, rows = pick(content, "question_type", path), pick(content, "questions", path)
    numbers = types.values() if isinstance(types, dict) else [None]
    if not all(isinstance(number, int) for number in numbers) or not isinstance(rows, list) or not rows:
        raise UsageError(
            f"'{path}' is not SEED-Bench.json, which has the names and numbers of types as 'question_type', and a list "
            "'questions'."
        )
    names = {number: name for name, number in types.items()}
    questions = [_read_question(row, names, path) for row in rows]
    if repeated := find_repeated(make_key(question.id) for question in questions):
        raise UsageError(f"{len(repeated)} ids occur more than once in '{path}', the first of them {repeated[0]!r}.")
    return SeedAnnotations(questions, names)


def _read_question(row: Any, names: dict[Any, str], path: str | Path) -> SeedQuestion:
    if not isinstance(row, dict):
        raise UsageError(f"'{path}' has {str(row)[:80]!r} among its questions, which is not an object.")
    type_id, kind = pick(row, "question_type_id", path), pick_text(row, "data_type", path)
    answer = pick_text(row, "answer", path)
    if not isinstance(type_id, int) or type_id not in names:
        raise UsageError(f"'{path}' has a question of the type {str(type_id)[:80]!r}, which 'question_type' lacks.")
    if kind not in KINDS or answer not in LETTERS:
        raise UsageError(
            f"'{path}' has a question about the {kind[:80]!r} with the answer {answer[:80]!r}; SEED-Bench asks about "
            "image and video, and answers are A to D."
        )
    return SeedQuestion(pick_id(row, "question_id", path), type_id, kind, answer)


@dataclass(frozen=True)
class SeedTable:
    """How many questions there are and how many answers are right, by type."""

    num: dict[int, int]
    right: dict[int, int]

    @property
    def total(self) -> int:
        """The number of questions."""
        return sum(self.num.values())

    @property
    def accuracy(self) -> float:
        """Of all types together, in percent."""
        return sum(self.right.values()) / self.total * 100

    def accuracy_of(self, type_id: int) -> float:
        """Of one type, in percent."""
        return self.right[type_id] / self.num[type_id] * 100


def count_seed(rows: Iterable[tuple[SeedQuestion, bool]], kinds: Sequence[str] = KINDS) -> SeedTable:
    """The table over pairs of a question and whether its answer is right, in the order of the types' numbers."""
    num: dict[int, int] = {}
    right: dict[int, int] = {}
    for question, is_right in rows:
        if question.kind in kinds:
            num[question.type_id] = num.get(question.type_id, 0) + 1
            right[question.type_id] = right.get(question.type_id, 0) + is_right
    order = sorted(num)
    return SeedTable({key: num[key] for key in order}, {key: right[key] for key in order})
