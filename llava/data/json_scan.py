"""Reads the rows of a JSON list or of JSON lines one after the other, in little memory, with the place of each.

A fault in a row is a row of its own, so that a reader can stop there, as training does, or name it and go on, as
``llava data check`` does. In a list, nothing after a fault of syntax can be told apart, so it ends there.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llava.errors import UsageError

# A longer row is no sample, but a file without line breaks or with its images as text.
MAX_ROW_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 8 * 1024 * 1024
_BOM = codecs.BOM_UTF8
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
# The longest part of a JSON token that is an error of its own at the end of a window: "-Infinit", "\ud83".
_MARGIN = 16


class ScannedRow(NamedTuple):
    """A row, its number in its file from 0 on, and where it is there; or the fault that stands in its place."""

    number: int
    row: Any
    offset: int = 0
    num_bytes: int = 0
    fault: str = ""


def open_data(path: str) -> BinaryIO:
    """The data file, opened. Raises UsageError."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):  # opening it would wait for a writer
            raise UsageError(f"The data file '{path}' is a pipe, in which no place can be read: write it to a file.")
        return Path(path).open("rb", buffering=1024 * 1024)
    except FileNotFoundError as error:
        raise UsageError(f"The data file '{path}' does not exist. The path is relative to {Path.cwd()}.") from error
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The data file '{path}' cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error


def scan_lines(path: str) -> Iterator[ScannedRow]:
    """The rows of a file with a row in each line; blank lines are none. Raises UsageError if it cannot be opened."""
    with open_data(path) as file:
        offset, number, line_number = 0, 0, 0
        while line := file.readline(MAX_ROW_BYTES + 1):
            line_number += 1
            length = len(line)
            if length > MAX_ROW_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = file.readline(_CHUNK_BYTES)
                    length += len(line)
                fault = f"Line {line_number} of the data file '{path}' {_say_too_long(length)}"
                yield ScannedRow(number, None, offset, length, fault)
                number += 1
            elif line.strip():
                if offset == 0:
                    line = line.removeprefix(_BOM)
                start = offset + length - len(line)
                yield _parse_line(line, number, line_number, start, path)
                number += 1
            offset += length


def _parse_line(line: bytes, number: int, line_number: int, offset: int, path: str) -> ScannedRow:
    try:
        return ScannedRow(number, json.loads(line.decode("utf-8")), offset, len(line))
    except UnicodeDecodeError as error:
        fault = f"Line {line_number} of the data file '{path}' is not UTF-8 at byte {offset + error.start}. {_CONVERT}"
    except (ValueError, RecursionError) as error:
        fault = (
            f"Line {line_number} of the data file '{path}' is not valid JSON: {getattr(error, 'msg', error)}. Correct "
            "or remove the line; if it is the last one, the file may be incomplete: fetch it again."
        )
    return ScannedRow(number, None, offset, len(line), fault)


_CONVERT = "Convert it to UTF-8, or fetch it again."


def _say_too_long(num_bytes: int) -> str:
    return (
        f"has {num_bytes:,} bytes; at most {MAX_ROW_BYTES:,} can be one sample. If images are in it as text, save them "
        "as files and name those."
    )


class _Fault(Exception):
    """What is wrong in a JSON list, as a complete sentence."""


class _Window:
    """A part of a text file that moves on; ``at`` is the place in ``text`` where reading continues."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file, self.path = file, path
        self.text, self.at, self.is_whole = "", 0, False
        self.offset = 0  # of ``at`` in the file, bytes
        self._pending, self._num_decoded = b"", 0
        self._num_chars, self._num_lines, self._num_columns = 0, 0, 0  # of what is no longer in ``text``
        self.grow()
        if self.text.startswith("\ufeff"):
            self.advance(1)

    def grow(self) -> None:
        """Reads on: at least as much as is there, so that a long row is not parsed too often. Raises _Fault."""
        left = self.text[: self.at]
        lines = left.count("\n")
        self._num_columns = len(left) - left.rfind("\n") - 1 + (0 if lines else self._num_columns)
        self._num_lines += lines
        self._num_chars += len(left)
        self.text, self.at = self.text[self.at :], 0
        num_bytes = min(len(self.text), MAX_ROW_BYTES + 1 - len(self.text))  # no more than tells a row that is too long
        chunk = self.file.read(max(_CHUNK_BYTES, num_bytes))
        self.is_whole = not chunk
        data = self._pending + chunk
        try:
            more, used = codecs.utf_8_decode(data, "strict", self.is_whole)
        except UnicodeDecodeError as error:
            place = self._num_decoded + error.start
            raise _Fault(f"The data file '{self.path}' is not UTF-8 at byte {place}. {_CONVERT}") from error
        self._num_decoded += used
        self._pending = data[used:]
        self.text += more

    def advance(self, num_chars: int) -> int:
        """Moves ``at`` on, and returns by how many bytes."""
        part = self.text[self.at : self.at + num_chars]
        num_bytes = len(part) if part.isascii() else len(part.encode())
        self.at += num_chars
        self.offset += num_bytes
        return num_bytes

    def peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            found = _SPACE.match(self.text, self.at)
            assert found is not None
            self.advance(found.end() - self.at)
            if self.at < len(self.text) or self.is_whole:
                return self.text[self.at : self.at + 1]
            self.grow()

    def decode(self, number: int) -> tuple[Any, int]:
        """The JSON value that begins here, and its bytes. Raises _Fault."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _MARGIN
                if self.is_whole or not may_go_on:
                    raise _Fault(self.say_fault(error.msg, error.pos)) from error
            except RecursionError as error:
                raise _Fault(f"The data file '{self.path}' is nested too deeply to be a list of samples.") from error
            except ValueError as error:  # a number of more than 4,300 digits
                raise _Fault(f"Row {number} of '{self.path}' holds a value that cannot be read: {error}.") from error
            else:
                if end < len(self.text) or self.is_whole:
                    num_bytes = self.advance(end - self.at)
                    if num_bytes > MAX_ROW_BYTES:
                        raise _Fault(f"Row {number} of '{self.path}' {_say_too_long(num_bytes)}")
                    return value, num_bytes
            if len(self.text) - self.at > MAX_ROW_BYTES:
                fault = _say_too_long(MAX_ROW_BYTES).replace("has", "has more than", 1)
                raise _Fault(f"Row {number} of '{self.path}' {fault}")
            self.grow()

    def say_fault(self, message: str, position: int) -> str:
        """Where JSON is wrong, and the remedy: a file that ends too early was probably not fetched completely."""
        before = self.text[:position]
        lines = before.count("\n")
        column = position - before.rfind("\n") + (0 if lines else self._num_columns)
        start = f"The data file '{self.path}' is not valid JSON"
        where = f" (line {self._num_lines + lines + 1}, column {column}: {message})"
        if message.startswith("Extra data"):
            return f"{start}{where}. A file with one sample in each line has to end with .jsonl."
        is_cut = self.is_whole and (position >= len(self.text.rstrip()) or message.startswith("Unterminated string"))
        if not is_cut:
            return f"{start}{where}. Correct it there."
        num_chars = self._num_chars + len(self.text)
        return f"{start}{where}. It seems to be cut off at its end, after {num_chars:,} characters: fetch it again."


def scan_list(path: str) -> Iterator[ScannedRow]:
    """The rows of a file that holds a JSON list. Raises UsageError if it cannot be opened or holds no list."""
    with open_data(path) as file:
        number, window = 0, None
        try:
            window = _open_list(file, path)
            is_open = window.peek() != "]"
            while is_open:
                offset = window.offset
                row, num_bytes = window.decode(number)
                yield ScannedRow(number, row, offset, num_bytes)
                number += 1
                after = window.peek()
                if after not in (",", "]"):
                    raise _Fault(window.say_fault("Expecting ',' delimiter", window.at))
                is_open = after == ","
                if is_open:
                    window.advance(1)
                    window.peek()
            window.advance(1)
            if window.peek():
                raise _Fault(window.say_fault("Extra data", window.at))
        except _Fault as fault:
            yield ScannedRow(number, None, window.offset if window is not None else 0, 0, str(fault))
        except OSError as error:
            raise UsageError(f"The data file '{path}' cannot be read: {error.strerror or error}.") from error


def _open_list(file: BinaryIO, path: str) -> _Window:
    """The file, after the bracket with which its list begins. Raises UsageError if it holds no list, and _Fault."""
    window = _Window(file, path)
    first = window.peek()
    if not first:
        raise UsageError(f"The data file '{path}' is not valid JSON: it is empty. Fetch it again.")
    if first == "[":
        window.advance(1)
        return window
    value, _ = window.decode(0)
    if window.peek():
        raise UsageError(window.say_fault("Extra data", window.at))
    raise UsageError(
        f"The data file '{path}' must hold a JSON list of samples, but holds {_say_value(value)}. A file with one "
        "sample in each line has to end with .jsonl."
    )


def _say_value(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(list(value)[:5])}" if value else "an empty object"
    return f"{value!r:.40}"
