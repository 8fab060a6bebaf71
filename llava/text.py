"""Validation of input text, and output that no encoding or terminal can corrupt.

Input (questions, stop strings, names) is refused if it contains a lone surrogate, which is how Python represents bytes
that are not UTF-8 and which no tokenizer accepts, or U+0000. Output is escaped where the stream's encoding lacks a
character, and where a terminal would interpret it as a control sequence.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

_MOST_NAMED = 120  # characters of a file's name

_NO_TEXT = re.compile("[\ud800-\udfff\0]")

# Characters that a terminal interprets: C0 and C1 controls except tab and line feed, and bidirectional overrides
# (CVE-2021-42574). A carriage return would let a line be overwritten.
_SHORT = {0x09: "\\t", 0x0A: "\\n"}
_BREAKS = re.compile("[\t\n\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def find_flaw(text: str) -> str | None:
    """Why this is not valid text, as the predicate of a sentence; None for valid text."""
    found = _NO_TEXT.search(text)
    if found is None:
        return None
    if found[0] == "\0":
        return f"holds the character U+0000, at {found.start()}, which no text has"
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"is not valid UTF-8: at {found.start()} it holds the byte 0x{code - 0xDC00:02x}"
    return f"holds half of a surrogate pair, U+{code:04X}, at {found.start()}, which is no character"


def make_visible(text: str) -> str:
    r"""The text with control characters escaped as ``\x1b`` or ``\u202e``, which is safe to print on a terminal.

    Tabs and line feeds are kept.
    """
    return _CONTROLS.sub(lambda found: _escape(ord(found[0])), text)


def fit_line(text: str, most: int = 200) -> str:
    r"""The text on one line and no longer than ``most``: controls, tabs and line breaks are escaped, as ``\n``."""
    text = _BREAKS.sub(lambda found: _escape(ord(found[0])), make_visible(text))
    return text if len(text) <= most else text[: most - 3] + "..."


def list_all(items: Sequence[str]) -> str:
    """Items as an enumeration in a sentence: "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def name_safely(name: str) -> str:
    """A name from outside, such as a model's id, as part of a file's name: "/" becomes "--", other marks "-".

    What is no longer the name itself, or too long, is told apart by a digest.
    """
    parted = name.replace("/", "--")
    plain = re.sub(r"[^\w.+=@ -]", "-", parted).strip(". ")[:_MOST_NAMED]
    return plain if plain == parted else f"{plain}-{hashlib.sha256(repr(name).encode()).hexdigest()[:6]}"


def _escape(code: int) -> str:
    if code in _SHORT:
        return _SHORT[code]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is an open terminal."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def for_stream(text: str, stream: TextIO | None) -> str:
    """The text as the stream can print it: escaped for a terminal, and where the encoding lacks a character."""
    if is_terminal(stream):
        text = make_visible(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def is_unicode(stream: TextIO | None) -> bool:
    """Whether the stream's encoding has every character."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-")
    return encoding.startswith(("utf-", "utf8"))


def open_streams() -> bool:
    """Makes the standard streams accept any text; returns whether standard output was open.

    Output that the encoding lacks is escaped; invalid input is decoded to surrogates, for ``find_flaw``. A closed
    stream is replaced by an empty one: with None, ``print(file=sys.stderr)`` would write to standard output, and the
    next file opened would get the closed stream's number.
    """
    had_output = sys.stdout is not None
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream: Any = getattr(sys, name)
        if stream is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                number = -1  # another file has this number by now
            handle = os.open(os.devnull, os.O_RDWR)
            if number not in (-1, handle):
                os.dup2(handle, number)
                os.close(handle)
                handle = number
            setattr(sys, name, open(handle, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape" if mode == "r" else "backslashreplace")
    return had_output


def write_line(text: str, stream: TextIO | None = None) -> None:
    """Prints a line, by default to standard error; a failure to write it is ignored."""
    stream = sys.stderr if stream is None else stream
    try:
        print(for_stream(text, stream), file=stream, flush=True)
    except OSError:
        give_up(stream)


class Printer:
    """Writes an answer to standard output piece by piece, and keeps it in case that fails.

    Raises BrokenPipeError, since nobody reads a closed pipe. After any other error, such as a full disk, further pieces
    are only kept: ``failure`` is the reason, ``text`` the whole answer.
    """

    def __init__(self, failure: str = "") -> None:
        self.text, self.failure = "", failure

    def say(self, piece: str) -> None:
        """Writes a piece and flushes it."""
        self.text += piece
        if self.failure:
            return
        try:
            print(for_stream(piece, sys.stdout), end="", flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failure = error.strerror or str(error)
            give_up(sys.stdout)


def give_up(stream: TextIO) -> None:
    """Redirects the stream to the null device, so that Python does not fail again when it closes the stream."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
