"""The scores file of a run, ``ANSWERS.scores.json``: its scores, how it was made, and every answer as it was scored.

Reports and comparisons are made of this file alone. Loads no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.eval.json_files import read_json
from llava.eval.task import Question, Task
from llava.eval.task_score import ScoredAnswer, TaskScore

VERSION = 1
_FAR = 1e15  # no score is as far from 0; NaN, infinity and whole numbers that no float holds are not nearer either


@dataclass(frozen=True)
class AnswerRecord:
    """One scored answer with its question.

    Attributes:
        id: the question's, with its JSON type.
        place, score, reading, references, categories, note: see ``ScoredAnswer``.
        prompt: what was asked, the sentence that asks for a form included.
        text: the answer.
        images: paths; None for an image that the questions' own file holds.
    """

    id: int | str
    place: int
    score: float
    reading: str | None
    references: tuple[str, ...]
    categories: tuple[str, ...]
    note: str
    prompt: str
    text: str
    images: tuple[str | None, ...]


@dataclass(frozen=True)
class ScoredRun:
    """What a scores file holds.

    Attributes:
        task: the benchmark's name in the table.
        model: what the answers file calls it.
        settings: how the run was made, as JSON values, by plain names such as "temperature" and "template".
        headline: the name in ``scores`` of the number that papers print; "" where only a server or a judge scores, and
            then ``scores`` is empty.
        scores, categories, readings, notes: see ``TaskScore``.
        published: scores by checkpoint, as they are printed.
        source: of the published scores.
        answers: in the questions' order.
    """

    task: str
    model: str
    settings: Mapping[str, Any]
    headline: str
    scores: Mapping[str, float]
    categories: Mapping[str, tuple[float, int]]
    readings: Mapping[str, float]
    notes: tuple[str, ...]
    published: Mapping[str, str]
    source: str
    answers: tuple[AnswerRecord, ...]


def name_scores_file(answers: Path) -> Path:
    """The scores file of an answers file: beside it, ``.scores.json`` in place of ``.jsonl``."""
    stem = answers.name.removesuffix(".jsonl")
    return answers.with_name(f"{stem}.scores.json")


def make_scored_run(
    task: Task,
    model: str,
    settings: Mapping[str, Any],
    score: TaskScore,
    questions: Sequence[Question],
    texts: Sequence[str],
) -> ScoredRun:
    """The run as its scores file holds it; ``texts`` are the answers in the questions' order."""
    return ScoredRun(
        task=task.name,
        model=model,
        settings=dict(settings),
        headline=score.headline,
        scores=dict(score.scores),
        categories=dict(score.categories),
        readings=dict(score.readings),
        notes=tuple(score.notes),
        published=dict(task.published),
        source=task.source,
        answers=tuple(_record(one, questions[one.place], texts[one.place]) for one in score.answers),
    )


def _record(one: ScoredAnswer, question: Question, text: str) -> AnswerRecord:
    images = tuple(str(image.absolute()) if isinstance(image, Path) else None for image in question.images)
    return AnswerRecord(
        question.id,
        one.place,
        one.score,
        one.reading,
        tuple(one.references),
        tuple(one.categories),
        one.note,
        question.text,
        text,
        images,
    )


def write_scores(path: Path, run: ScoredRun) -> None:
    """Writes the file, all of it or nothing. Raises LlavaError."""
    value = {"version": VERSION, **vars(run), "answers": [vars(one) for one in run.answers]}
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    write_whole(path.resolve(), text.encode("utf-8", "backslashreplace") + b"\n")


def read_scores(path: str | Path) -> ScoredRun:
    """The run that a scores file holds. Raises UsageError for a file of another form."""
    try:
        value = read_json(path)
    except OSError as error:
        raise UsageError(f"The scores file '{path}' cannot be read: {error.strerror or error}.") from error
    if not isinstance(value, dict) or value.get("version") != VERSION:
        found = f"version {value.get('version')!r}" if isinstance(value, dict) else "no object"
        raise UsageError(
            f"'{path}' is not a scores file of this version, {VERSION}: it has {found}. Make it again with llava eval "
            "score TASK ANSWERS.jsonl."
        )
    read = _Reader(path, value)
    answers = read.get("answers", _is_list)
    scores = read.get("scores", lambda found: _is_object(found) and all(map(_is_number, found.values())))
    return ScoredRun(
        task=read.get("task", _is_text),
        model=read.get("model", _is_text),
        settings=read.get("settings", _is_object),
        headline=read.get("headline", lambda found: _is_text(found) and (not found or found in scores)),
        scores=scores,
        categories={name: tuple(pair) for name, pair in read.get("categories", _are_categories).items()},
        readings=read.get("readings", lambda found: _is_object(found) and all(map(_is_number, found.values()))),
        notes=tuple(read.get("notes", _are_texts)),
        published=read.get("published", lambda found: _is_object(found) and _are_texts([*found.values()])),
        source=read.get("source", _is_text),
        answers=tuple(_read_answer(path, number, row) for number, row in enumerate(answers, 1)),
    )


def _read_answer(path: str | Path, number: int, row: object) -> AnswerRecord:
    read = _Reader(path, row if isinstance(row, dict) else {}, f"answers, entry {number}: ")
    return AnswerRecord(
        id=read.get("id", lambda found: _is_text(found) or _is_count(found)),
        place=read.get("place", _is_count),
        score=read.get("score", lambda found: _is_number(found) and 0 <= found <= 1),
        reading=read.get("reading", lambda found: found is None or _is_text(found)),
        references=tuple(read.get("references", _are_texts)),
        categories=tuple(read.get("categories", _are_texts)),
        note=read.get("note", _is_text),
        prompt=read.get("prompt", _is_text),
        text=read.get("text", _is_text),
        images=tuple(read.get("images", lambda found: _is_list(found) and _are_texts([i for i in found if i]))),
    )


@dataclass(frozen=True)
class _Reader:
    path: str | Path
    row: Mapping[str, Any]
    where: str = ""

    def get(self, key: str, fits: Callable[[Any], bool]) -> Any:
        """The value of a key. Raises UsageError if it is missing or does not fit."""
        if key in self.row and fits(self.row[key]):
            return self.row[key]
        found = f"is {str(self.row[key])[:80]!r}" if key in self.row else "is missing"
        raise UsageError(
            f"'{self.path}' is not a scores file: {self.where}'{key}' {found}. Make it again with llava eval score "
            "TASK ANSWERS.jsonl."
        )


def _is_text(found: Any) -> bool:
    return isinstance(found, str)


def _is_list(found: Any) -> bool:
    return isinstance(found, list)


def _is_object(found: Any) -> bool:
    return isinstance(found, dict)


def _are_texts(found: Any) -> bool:
    return isinstance(found, list) and all(map(_is_text, found))


def _is_count(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool)


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < _FAR


def _are_categories(found: Any) -> bool:
    return _is_object(found) and all(
        _is_list(pair) and len(pair) == 2 and _is_number(pair[0]) and _is_count(pair[1]) for pair in found.values()
    )
