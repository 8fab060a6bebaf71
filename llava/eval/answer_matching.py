"""Joins an answers file with the questions it answers, by question and never by line. Loads no torch.

Answers may come in any order, and from the original's scripts or other tools as well as from here. What does not fit is
refused, or left out and named: nothing is scored as something that it is not.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.eval.task import Question


@dataclass(frozen=True)
class MatchedAnswers:
    """The questions that are answered, in the benchmark's order, with their answers; ``notes`` say what is odd."""

    questions: tuple[Question, ...]
    texts: tuple[str, ...]
    model: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Answer:
    id: int | str
    round_id: Any
    prompt: str | None
    text: str
    row: Mapping[str, Any] | None  # of an answer that repeats the benchmark's own row


def match_answers(
    path: Path, questions: Sequence[Question], *, ids_repeat: bool = False, is_partial: bool = False
) -> MatchedAnswers:
    """The answers of a file, each with its question.

    Args:
        ids_repeat: several questions have one id, so that an answer is known by its prompt, too.
        is_partial: questions without an answer are left out, not refused.

    Raises:
        UsageError: the file is damaged, is of other questions or of several models, answers one question in two ways,
            or leaves questions out.
    """
    rows = list(_read_objects(path))
    answers = [_read_answer(row, number, path) for number, row in rows]
    if not answers:
        raise UsageError(f"'{path}' has no answers.")
    models = dict.fromkeys(str(row["model_id"]) for _, row in rows if row.get("model_id") is not None)
    if len(models) > 1:
        raise UsageError(f"'{path}' has answers of {len(models)} models, such as {', '.join(list(models)[:3])}.")
    join = _Join(questions, ids_repeat)
    for answer in answers:
        join.add(answer)
    notes = join.describe(path)
    missing = [question.id for place, question in enumerate(questions) if place not in join.texts]
    if missing:
        said = f"{len(missing)} of the {len(questions)} questions have no answer in '{path}', the first {missing[0]!r}"
        if not is_partial:
            raise UsageError(f"{said}. Answer them by the same llava eval command, or score the others with --partial.")
        notes.append(f"{said}; they are not scored, so the score is not comparable with published ones.")
    places = sorted(join.texts)
    return MatchedAnswers(
        tuple(questions[place] for place in places),
        tuple(join.texts[place] for place in places),
        next(iter(models), ""),
        tuple(notes),
    )


class _Join:
    """Answers by the place of their question, as they are added."""

    def __init__(self, questions: Sequence[Question], ids_repeat: bool) -> None:
        self.texts: dict[int, str] = {}
        self._questions = questions
        self._indices: list[dict[Hashable, list[int]]] = [{} for _ in range(1 if ids_repeat else 3)]
        for place, question in enumerate(questions):
            keys = _list_keys(question.id, question.before.get("round_id"), question.prompt, question.row)
            for index, key in zip(self._indices, keys, strict=False):
                index.setdefault(key, []).append(place)
        self._taken: dict[tuple[int, Hashable], int] = {}
        self._by_index = [0, 0, 0]
        self._strangers: list[_Answer] = []
        self._alike: list[int | str] = []
        self._unlike: list[int | str] = []

    def add(self, answer: _Answer) -> None:
        """Joins an answer by its whole key, or else by its id, or else by what the id looks like."""
        keys = _list_keys(answer.id, answer.round_id, answer.prompt, answer.row)
        for number, (index, key) in enumerate(zip(self._indices, keys, strict=False)):
            places = index.get(key)
            if places is None or (number and len(places) > 1):
                continue
            nth = self._taken.get((number, key), 0)
            self._taken[number, key] = nth + 1
            free = [place for place in places if place not in self.texts]
            if free:
                self.texts[free[0]] = answer.text
                self._by_index[number] += 1
            elif answer.text in [self.texts[place] for place in places]:
                self._alike.append(answer.id)
            else:
                self._unlike.append(answer.id)
            return
        self._strangers.append(answer)

    def describe(self, path: Path) -> list[str]:
        """What is odd, as sentences. Raises UsageError for what cannot be scored."""
        if self._unlike:
            raise UsageError(
                f"{len(self._unlike)} questions have more than one answer in '{path}', and not the same, the first of "
                f"them {self._unlike[0]!r}. Remove those that do not count."
            )
        if self._strangers and not self.texts:
            raise UsageError(
                f"None of the {len(self._strangers)} answers in '{path}' is to one of these {len(self._questions)} "
                f"questions: the answers' ids are like {self._strangers[0].id!r}, the questions' like "
                f"{self._questions[0].id!r}. {self._explain()}"
            )
        notes = []
        if self._strangers:
            notes.append(
                f"{len(self._strangers)} answers in '{path}' are to other questions, such as "
                f"{self._strangers[0].id!r}, and are left out."
            )
        if self._alike:
            notes.append(f"{len(self._alike)} answers, such as to {self._alike[0]!r}, are in '{path}' more than once.")
        if num := self._by_index[1]:
            notes.append(f"{num} answers are to questions that were asked in other words than this benchmark's here.")
        if num := self._by_index[2]:
            notes.append(f"{num} answers have ids of another type, such as a text in place of a number.")
        return notes

    def _explain(self) -> str:
        ids = {question.id for question in self._questions}
        if any(answer.id in ids for answer in self._strangers):
            return "Some ids are equal, but what was asked is not: it is another variant of the benchmark."
        return "Name the answers to this benchmark and split."


def _list_keys(key: int | str, round_id: Any, prompt: str | None, row: Mapping[str, Any] | None) -> list[Hashable]:
    """What a question is known by, from the strictest on."""
    if row is not None:
        return [json.dumps({name: row[name] for name in sorted(row) if name != "response"})]
    return [(type(key).__name__, key, round_id, prompt), (type(key).__name__, key, round_id), (str(key), round_id)]


def _read_answer(row: Mapping[str, Any], number: int, path: Path) -> _Answer:
    where = f"Line {number} of '{path}'"
    name = "response" if "question_id" not in row and "response" in row else "text"
    text = row.get(name)
    if not isinstance(text, str):
        found = f"{str(text)[:80]!r} as '{name}', which is no text" if name in row else f"no '{name}'"
        raise UsageError(f"{where} has {found}.")
    if name == "response":
        return _Answer(str(row.get("img_path", number)), None, None, text, row)
    key, round_id, prompt = row.get("question_id"), row.get("round_id"), row.get("prompt")
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise UsageError(f"{where} has {str(key)[:80]!r} as 'question_id', which is neither text nor a whole number.")
    if not isinstance(round_id, int | str | None) or not isinstance(prompt, str | None):
        raise UsageError(f"{where} has no whole number as 'round_id' or no text as 'prompt'.")
    return _Answer(key, round_id, prompt, text, None)


def _read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their lines' numbers; several may stand on one line, as in Q-Bench's answers.

    Raises UsageError for a line that holds something else.
    """
    decoder = json.JSONDecoder()
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UsageError(f"The answers file '{path}' cannot be read: {error.strerror or error}.") from error
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8-sig").strip()
            while text:
                row, end = decoder.raw_decode(text)
                if not isinstance(row, dict):
                    raise ValueError
                yield number, row
                text = text[end:].lstrip()
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"Line {number} of '{path}' is half-written, or not JSON: finish the run by its own command, or remove "
                "the line."
            ) from error
