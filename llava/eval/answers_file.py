"""The answers file of a run: JSON lines as LLaVA writes them, in the questions' order, which a kill cannot damage."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from llava.data.collection.journal import is_stream, lock_file, write_whole
from llava.errors import LlavaError, UsageError
from llava.eval.json_files import find_repeated
from llava.eval.task import Question
from llava.text import write_line

_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Of shortuuid, which the original uses: no letter that looks like another."""


def make_answer_id(question: Question, model_id: str) -> str:
    """22 letters, as from shortuuid, but the same at every run for one question and model."""
    seed = json.dumps([model_id, question.id, question.before.get("round_id"), question.text], ensure_ascii=True)
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "big")
    letters = []
    for _ in range(22):
        number, place = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[place])
    return "".join(reversed(letters))


def make_row(question: Question, text: str, model_id: str) -> dict[str, Any]:
    """A line of the answers file, its keys in the original's order."""
    if question.row is not None:
        return {**question.row, "response": text}
    return {
        "question_id": question.id,
        **question.before,
        "prompt": question.prompt,
        "text": text,
        **question.after,
        "answer_id": make_answer_id(question, model_id),
        "model_id": model_id,
        "metadata": {},
    }


class AnswersFile:
    """Answers by question, written as they come; open while its ``with`` block runs, for one process alone.

    Opened again by an equal run, it goes on after the last whole line. What another run wrote (other weights, another
    template, other questions) is moved to ``FILE.old`` with its settings, and said; a file that holds no answers is
    refused. ``settings``: what makes the run's answers what they are; they are kept in ``.FILE.run``.
    """

    def __init__(
        self, path: Path, questions: Sequence[Question], model_id: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.model_id = path, model_id
        self._places: dict[Hashable, list[int]] = {}
        for place, question in enumerate(questions):
            self._places.setdefault(_make_key(make_row(question, "", model_id)), []).append(place)
        self._questions = questions
        self.lines: dict[int, bytes] = {}
        """What is written, by the question's place; known in the ``with`` block."""
        self._settings = json.dumps({"model_id": model_id, **(settings or {})}, sort_keys=True).encode()
        self._last = -1
        self._is_ordered = True
        self._file: BinaryIO | None = None
        self._lock = contextlib.ExitStack()

    def _read(self) -> bool:
        """Keeps the whole lines; returns False if one of them answers none of the questions."""
        taken: dict[Hashable, int] = {}
        for line in self.path.read_bytes().splitlines(keepends=True):
            row = _parse(line) if line.endswith(b"\n") else None
            if row is None:  # a kill cut it off: it is asked again
                continue
            key = _make_key(row)
            places = self._places.get(key, [])
            nth = taken.get(key, 0)
            taken[key] = nth + 1
            if nth >= len(places):
                return False
            self.lines[places[nth]] = line
        write_whole(self.path.resolve(), self._join())
        return True

    def _join(self) -> bytes:
        return b"".join(self.lines[place] for place in sorted(self.lines))

    def _take_over(self) -> None:
        """Reads what an equal run wrote, and moves away what another one did."""
        if self.path.exists() and not (_read_settings(self.path) == self._settings and self._read()):
            self.lines = {}
            old = _find_free(self.path)
            self.path.replace(old)
            with contextlib.suppress(FileNotFoundError):
                name_settings_file(self.path).replace(name_settings_file(old))
            write_line(
                f"llava: '{self.path}' is of another run; it is moved to '{old.name}', and all questions are asked."
            )
        write_whole(name_settings_file(self.path).resolve(), self._settings)

    def __enter__(self) -> AnswersFile:
        with contextlib.ExitStack() as lock:
            check_answers_path(self.path)
            if not is_stream(self.path):
                lock.enter_context(lock_file(self.path.with_name(f".{self.path.name}.lock"), self.path))
                self._take_over()
            try:
                self._file = self.path.open("ab", buffering=0)
            except OSError as error:
                raise UsageError(f"The answers file '{self.path}' cannot be written: {error.strerror}.") from error
            self._lock = lock.pop_all()
        self._last = max(self.lines, default=-1)
        self._is_ordered = True
        return self

    def write(self, place: int, text: str) -> None:
        """Writes the answer to the question at this place. Raises LlavaError on a full disk."""
        assert self._file is not None
        row = make_row(self._questions[place], text, self.model_id)
        line = json.dumps(row).encode() + b"\n"
        self._is_ordered &= place > self._last
        try:
            if self._file.write(line) != len(line):
                raise OSError("only a part was written")
        except OSError as error:
            raise LlavaError(
                f"'{self.path}' cannot be written: {error.strerror or error}. What it holds is kept: make room, and "
                "run the same command again."
            ) from error
        self.lines[place] = line
        self._last = max(self._last, place)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
            if not self._is_ordered and not is_stream(self.path):  # questions that had failed were answered later
                write_whole(self.path.resolve(), self._join())


def check_answers_path(path: Path, flag: str = "--answers") -> None:
    """Makes the folder of an answers file. Raises UsageError where none can be written, and for a file of other things.

    It is for the time before a model is loaded; ``AnswersFile`` does the same.
    """
    if is_stream(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise UsageError(
            f"The answers file '{path}' cannot be written: {error.strerror or error}. Name another with {flag}."
        ) from error
    rows = [row for row in map(_parse, lines) if row is not None]
    is_answered = any("response" in row or {"prompt", "text"} <= row.keys() for row in rows)
    if lines and not is_answered and not name_settings_file(path).exists():
        raise UsageError(f"'{path}' is there already and holds no answers: name another file for them.")


def _find_free(path: Path) -> Path:
    """``FILE.old``, or the first of ``FILE.old.2``, ``FILE.old.3`` and so on that is not there yet."""
    names = (f"{path.name}.old{'' if number == 1 else f'.{number}'}" for number in itertools.count(1))
    return next(one for one in map(path.with_name, names) if not os.path.lexists(one))


def merge(parts: Sequence[Path], target: Path) -> int:
    """Joins the answers files of shards, in their order; returns how many answers there are.

    Raises UsageError for a half-written file and for an answer that is there twice.
    """
    seen: dict[Hashable, Path] = {}
    data = []
    if repeated := find_repeated([path.resolve() for path in parts]):
        raise UsageError(f"'{repeated[0]}' is named twice: name each shard once.")
    for path in parts:
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from error
        for number, line in enumerate(lines, 1):
            row = _parse(line) if line.endswith(b"\n") else None
            if row is None:
                raise UsageError(f"Line {number} of '{path}' is half-written: finish this shard, by its own command.")
            key = _make_key(row)
            if key in seen and seen[key] != path:
                raise UsageError(
                    f"Line {number} of '{path}' answers the same question as a line of '{seen[key]}': the files are "
                    "not shards of one run."
                )
            seen[key] = path
        data += lines
    if is_stream(target):
        write_whole(target, b"".join(data))
        return len(data)
    settings = {_read_settings(path) for path in parts}
    if len(settings) > 1:
        write_line(f"llava: the shards are not of one run's settings: they are not kept for '{target}'.")
    write_whole(target.resolve(), b"".join(data))
    name_settings_file(target).unlink(missing_ok=True)  # of what was there before
    if len(settings) == 1 and (told := settings.pop()) is not None:
        write_whole(name_settings_file(target).resolve(), told)
    return len(data)


def name_settings_file(path: Path) -> Path:
    """Where a run leaves its settings, beside its answers file."""
    return path.with_name(f".{path.name}.run")


def _read_settings(path: Path) -> bytes | None:
    try:
        return name_settings_file(path).read_bytes()
    except OSError:
        return None


def _make_key(row: Mapping[str, Any]) -> Hashable:
    """What distinguishes a line: the question and the model. Rows that are repeated whole have no ids of their own."""
    if "question_id" not in row:
        return json.dumps({name: row[name] for name in sorted(row) if name != "response"})
    names = ("question_id", "round_id", "prompt", "answer_id", "model_id")
    return json.dumps([row.get(name) for name in names])


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and ("text" in row or "response" in row) else None
