"""Reads the datasets' JSON files entry by entry, and names the file, the entry and the remedy where one is wrong.

A file is never held in memory whole by ``iterate_json``: a window slides over it. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

from llava.errors import UsageError
from llava.text import fit_line

T = TypeVar("T")

_CHUNK = 1 << 20
# Characters of one entry. The largest entries of real files, Visual Genome's regions of an image, have about 100,000.
MOST_CHARACTERS = 256 << 20
_SPACE = " \t\r\n"
# A literal, a number or an escape that begins this close to the end of the window may be cut.
_MAY_BE_CUT = 16
_AFTER_A_VALUE = tuple(" \t\r\n,:]}")
_DECODER = json.JSONDecoder()
_KINDS: dict[Any, str] = {str: "a text", int: "an integer", float: "a number", list: "a list", dict: "an object"}


def iterate_json(path: Path, key: str | None = None) -> Iterator[tuple[Any, Any]]:
    """The entries of a JSON file, one at a time: (index, value) of a list, or (name, value) of an object.

    Args:
        path: the file. A byte order mark is skipped.
        key: if it is given, the file holds an object, and the entries are those of the list or object under this key.

    Raises:
        UsageError: the file cannot be read, is not valid JSON there, is cut off, or has nothing under ``key``.
    """
    with open_text(path) as file:
        window = _Window(file, path)
        if key is None:
            yield from window.read_container()
            window.check_end()
            return
        is_found = False
        for name in window.read_names():
            if name == key:
                is_found = True
                yield from window.read_container()
            else:
                window.skip_value()
        window.check_end()
        if not is_found:
            raise UsageError(
                f"The file '{path}' has no '{key}': it is another file, or another version. Get the one that is named."
            )


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises UsageError for one that cannot be read or is not valid."""
    try:
        with open_text(path) as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"The file '{path}' is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}). It may be "
            "incomplete: get it again."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _say_unreadable(path, error) from error


def iterate_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """(number, value) of each line of a JSON lines file, from 0 on; empty lines are skipped. Raises UsageError."""
    with open_text(path) as file:
        number = 0
        while line := _read(file, path, MOST_CHARACTERS, line=True):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise UsageError(
                        f"Line {number + 1} of '{path}' is not valid JSON: {fit_line(str(error), 80)}. The file may be "
                        "incomplete: get it again."
                    ) from error
            number += 1


def take(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """``entry[key]``, which has to be of this kind.

    Args:
        kind: such as str, or (str, int) for an id. A float may be an integer; an integer may not be true or false.
        where: what messages call the entry, such as "Question 3 of 'questions.json'".

    Raises:
        UsageError: the entry is not an object, or lacks the key, or has another kind there.
    """
    if not isinstance(entry, Mapping):
        raise UsageError(f"{where} is {say_kind(entry)}, not an object. {_REMEDY}")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    value = entry.get(key)
    if not _is_one_of(value, kinds):
        wanted = " or ".join(_KINDS.get(kind, kind.__name__) for kind in kinds)
        found = "is missing" if key not in entry else f"is {say_kind(value)}"
        raise UsageError(f"{where} needs {wanted} '{key}', which {found}. {_REMEDY}")
    return value


_REMEDY = "The file may be of another version than the one that is converted, or damaged: get it again."


def take_list(entry: Any, key: str, kind: type[T], where: str) -> list[T]:
    """``entry[key]``, a list whose items are all of this kind. Raises UsageError as ``take`` does."""
    values = take(entry, key, list, where)
    for i, value in enumerate(values):
        if not _is_one_of(value, (kind,)):
            raise UsageError(f"{where}: item {i} of '{key}' is {say_kind(value)}, not {_KINDS[kind]}. {_REMEDY}")
    return values


def _is_one_of(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether the value is of such a kind; an integer is a number, but true and false are no integers."""
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def say_kind(value: Any) -> str:
    """What a JSON value is, as messages call it."""
    names = {type(None): "null", bool: "true or false", **_KINDS}
    return names.get(type(value), type(value).__name__)


def open_text(path: Path) -> TextIOWrapper:
    """The file, opened as UTF-8. Raises UsageError for one that cannot be opened."""
    try:
        return path.open(encoding="utf-8-sig")
    except OSError as error:
        raise _say_unreadable(path, error) from error


def _read(file: TextIOWrapper, path: Path, num: int, *, line: bool = False) -> str:
    try:
        text = file.readline(num) if line else file.read(num)
    except (OSError, UnicodeDecodeError) as error:
        raise _say_unreadable(path, error) from error
    if line and len(text) >= num:
        raise UsageError(f"The file '{path}' has a line of more than {num:,} characters, which is not one sample.")
    return text


def _say_unreadable(path: Path, error: Exception) -> UsageError:
    if isinstance(error, UnicodeDecodeError):
        return UsageError(
            f"The file '{path}' is not UTF-8. It may be compressed or damaged: unpack it, or get it again."
        )
    if isinstance(error, RecursionError):
        return UsageError(f"The file '{path}' is nested too deeply.")
    return UsageError(f"The file '{path}' cannot be read: {getattr(error, 'strerror', None) or error}.")


class _Window:
    """A part of a JSON text, which slides over the file."""

    def __init__(self, file: TextIOWrapper, path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._at, self._dropped = "", 0, 0
        self._is_complete = self._has_begun = False

    def read_container(self) -> Iterator[tuple[Any, Any]]:
        """The items of the list or object that begins here."""
        if self._peek() == "{":
            for name in self.read_names():
                yield name, self._decode()
        elif self._peek() == "[":
            self._at += 1
            index = 0
            while not self._ends("]", index):
                yield index, self._decode()
                index += 1
        else:
            raise self._fail("holds neither a list nor an object there")

    def read_names(self) -> Iterator[str]:
        """The names of the object that begins here; each value has to be read before the next name."""
        if self._peek() != "{":
            raise self._fail("does not hold an object there")
        self._at += 1
        index = 0
        while not self._ends("}", index):
            name = self._decode()
            if not isinstance(name, str) or self._peek() != ":":
                raise self._fail("is not valid JSON")
            self._at += 1
            yield name
            index += 1

    def skip_value(self) -> None:
        """Passes over the value that begins here."""
        if self._peek() in ("{", "["):
            for _ in self.read_container():
                pass
        else:
            self._decode()

    def check_end(self) -> None:
        """Raises UsageError unless the file ends here."""
        if self._peek() != "":
            raise self._fail("goes on after its end")

    def _ends(self, bracket: str, index: int) -> bool:
        """Whether the container ends here, after ``index`` items; otherwise its next item begins here."""
        if self._peek() == bracket:
            self._at += 1
            return True
        if index:
            if self._peek() != ",":
                raise self._fail("is not valid JSON")
            self._at += 1
        return False

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text):
                self._has_begun = True
                return self._text[self._at]
            if not self._fill(_CHUNK):
                return ""

    def _decode(self) -> Any:
        """The value that begins here."""
        self._peek()
        num = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self._fail("is nested too deeply") from error
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _MAY_BE_CUT
                if not is_cut or self._is_complete:
                    self._at = error.pos
                    raise self._fail("is not valid JSON") from error
            except ValueError as error:
                raise self._fail("holds a number with too many digits") from error
            else:
                if self._is_complete or self._is_whole(end):
                    self._at = end
                    return value
            if len(self._text) - self._at > MOST_CHARACTERS:
                raise self._fail(f"has an entry of more than {MOST_CHARACTERS:,} characters")
            self._fill(num)
            num *= 2  # a long entry is decoded again each time

    def _is_whole(self, end: int) -> bool:
        """Whether a value that was decoded up to ``end`` ends there: "2.5e" may go on as "2.5e-3"."""
        return len(self._text) - end >= _MAY_BE_CUT or self._text[end : end + 1] in _AFTER_A_VALUE

    def _fill(self, num: int) -> bool:
        """Reads on; returns whether there was more."""
        more = _read(self._file, self._path, num)
        self._is_complete = not more
        self._dropped += self._at
        self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)

    def _fail(self, fault: str) -> UsageError:
        if self._is_complete and self._text[self._at :].strip() == "":
            fault = "is cut off at its end" if self._has_begun else "is empty"
        where = f"character {self._dropped + self._at + 1:,}"
        return UsageError(f"The file '{self._path}' {fault} ({where}). It may be incomplete: get it again.")
