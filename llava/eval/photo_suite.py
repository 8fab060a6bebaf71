"""Scores a model on a folder of images whose content is known: ``llava eval photos``. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.eval.answer_health import Health, measure_health
from llava.eval.json_files import read_json
from llava.eval.photo_truths import WORDINGS, PhotoQuestion
from llava.eval.proportion import interval
from llava.eval.scoring.sentence_answers import Reading, judge
from llava.eval.task import Question

MAX_NEW_TOKENS = 64
VERSION = 1


@dataclass(frozen=True)
class PhotoAnswer:
    """An answer as it was judged: ``score`` is 1 for an accepted one, ``kind_score`` also for one of its kinds."""

    file: str
    group: str
    question: str
    accepted: tuple[str, ...]
    kinds: tuple[str, ...]
    answer: str
    score: int
    kind_score: int
    why: str


@dataclass(frozen=True)
class GroupScore:
    """A group's score. Images asked in several wordings count once, by the mean, also in the 95 % intervals.

    ``share``, ``low`` and ``high`` count accepted answers; ``kind_share`` and its limits count kinds, too.
    """

    group: str
    images: int
    questions: int
    share: float
    low: float
    high: float
    kind_share: float
    kind_low: float
    kind_high: float


@dataclass(frozen=True)
class PhotoScores:
    """A run on a folder, as its scores file holds it."""

    model: str
    folder: str
    groups: tuple[GroupScore, ...]
    health: Health
    answers: tuple[PhotoAnswer, ...]


def make_questions(asked: Sequence[PhotoQuestion]) -> list[Question]:
    """The questions as runs of ``llava eval`` ask them, with ids that follow from file, question and place."""
    return [
        Question(f"{number}:{one.path.name}", (one.path,), one.question, one.question, view="upright")
        for number, one in enumerate(asked)
    ]


def score_answers(asked: Sequence[PhotoQuestion], texts: Sequence[str], model: str, folder: Path) -> PhotoScores:
    """The scores of the answers, which are in the questions' order."""
    answers = []
    for one, text in zip(asked, texts, strict=True):
        reading: Reading = judge(text, one.truth, one.question)
        answers.append(
            PhotoAnswer(
                _name_in(folder, one.path),
                one.group,
                one.question,
                one.truth.answers,
                one.truth.kinds,
                text,
                int(reading.is_right),
                int(reading.is_right or reading.is_kind),
                reading.why,
            )
        )
    answerable = [one.truth.form != "cannot tell" for one in asked]
    groups = [_score_group(name, [a for a in answers if a.group == name]) for name in dict.fromkeys(_groups(answers))]
    if len(groups) > 1:
        groups.append(_score_group("all", answers))
    return PhotoScores(model, str(folder), tuple(groups), measure_health(texts, answerable), tuple(answers))


def _name_in(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _groups(answers: Iterable[PhotoAnswer]) -> list[str]:
    return [answer.group for answer in answers]


def _score_group(name: str, answers: Sequence[PhotoAnswer]) -> GroupScore:
    """Questions of one image in several wordings have the same truth, and are one unit of the interval."""
    units: dict[tuple[Any, ...], list[PhotoAnswer]] = {}
    for answer in answers:
        question = "" if answer.question in WORDINGS else answer.question
        units.setdefault((answer.file, question, answer.accepted, answer.kinds), []).append(answer)
    right = sum(sum(a.score for a in unit) / len(unit) for unit in units.values())
    kind = sum(sum(a.kind_score for a in unit) / len(unit) for unit in units.values())
    count = len(units)
    images = len({answer.file for answer in answers})
    return GroupScore(
        name, images, len(answers), right / count, *interval(right, count), kind / count, *interval(kind, count)
    )


def make_table(scores: PhotoScores) -> Table:
    """The groups' scores as a table for the terminal."""
    table = Table(title=f"{scores.folder}: {scores.model}")
    has_kinds = any(answer.kinds for answer in scores.answers)
    titles = ["", "images", "questions", "right", "95 % interval"]
    titles += ["right or its kind", "95 % interval"] if has_kinds else []
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left")
    for one in scores.groups:
        cells = [one.group, str(one.images), str(one.questions), f"{one.share:.1%}", f"{one.low:.0%} - {one.high:.0%}"]
        cells += [f"{one.kind_share:.1%}", f"{one.kind_low:.0%} - {one.kind_high:.0%}"] if has_kinds else []
        table.add_row(*cells)
    return table


def write_scores(path: Path, scores: PhotoScores) -> None:
    """Writes the scores as JSON. Raises LlavaError if they cannot be written."""
    text = json.dumps({"version": VERSION, **asdict(scores)}, indent=1, ensure_ascii=False)
    write_whole(path.resolve(), (text + "\n").encode())


def read_scores(path: Path) -> PhotoScores:
    """The scores of a file that ``write_scores`` wrote. Raises UsageError for any other file."""
    found = read_json(path)
    try:
        if found.pop("version") != VERSION:
            raise ValueError("it is of another version")
        answers = tuple(
            PhotoAnswer(**{**row, "accepted": tuple(row["accepted"]), "kinds": tuple(row["kinds"])})
            for row in found.pop("answers")
        )
        groups = tuple(GroupScore(**row) for row in found.pop("groups"))
        return PhotoScores(answers=answers, groups=groups, health=Health(**found.pop("health")), **found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"'{path}' is not a scores file of llava eval photos: {error}.") from error
