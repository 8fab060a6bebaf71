"""Text that comes from outside and text that goes there: what is wrong with it, and how it is written without loss.

Text from outside (questions, stop strings, names) is refused where it holds half of a surrogate pair, which is how
Python passes on bytes that are not UTF-8, or U+0000: no tokenizer takes the one, no text has the other. Text to the
outside is escaped where the stream's encoding has no character for it, and where a terminal would obey it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from typing import Any, TextIO

_NO_TEXT = re.compile("[\ud800-\udfff\0]")

# What a terminal obeys instead of showing: C0 and C1 controls, without tab and line feed, and what turns the order of
# characters around (CVE-2021-42574). A carriage return lets a line be written over.
_SHORT = {0x09: "\\t", 0x0A: "\\n"}
_BREAKS = re.compile("[\t\n\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def find_flaw(text: str) -> str | None:
    """What makes this no text, as the rest of a sentence; None if nothing does."""
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
    r"""The text with control characters as ``\x1b`` or ``\u202e``: a terminal shows it and obeys nothing in it.

    Tabs and line feeds stay.
    """
    return _CONTROLS.sub(lambda found: _escape(ord(found[0])), text)


def fit_line(text: str, most: int = 200) -> str:
    r"""The text on one line and no longer than ``most``: controls, tabs and line breaks are escaped, as ``\n``."""
    text = _BREAKS.sub(lambda found: _escape(ord(found[0])), make_visible(text))
    return text if len(text) <= most else text[: most - 3] + "..."


def _escape(code: int) -> str:
    if code in _SHORT:
        return _SHORT[code]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees what is written there."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


def for_stream(text: str, stream: TextIO | None) -> str:
    """The text as that stream can take it: visible on a terminal, and with escapes for what its encoding has not."""
    if is_terminal(stream):
        text = make_visible(text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def is_unicode(stream: TextIO | None) -> bool:
    """Whether every character can be written there."""
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("_", "-")
    return encoding.startswith(("utf-", "utf8"))


def open_streams() -> bool:
    """Makes the standard streams fit for any text; returns whether standard output was open.

    What an encoding cannot write is escaped, what is read and is not valid comes as surrogates, for ``find_flaw``. A
    stream that is closed becomes an empty one: None in its place would make ``print(file=sys.stderr)`` write to
    standard output, and the next file opened would get its number.
    """
    had_output = sys.stdout is not None
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream: Any = getattr(sys, name)
        if stream is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                number = -1  # something else has that number by now
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
    """Print a line about the work, by default to standard error; one that nobody can get is no reason to stop."""
    stream = sys.stderr if stream is None else stream
    try:
        print(for_stream(text, stream), file=stream, flush=True)
    except OSError:
        give_up(stream)


class Printer:
    """Writes an answer to standard output piece by piece, and keeps it if it cannot be written.

    A reader who left (BrokenPipeError) wants nothing more, so that error is raised. After any other, such as a full
    disk, the rest is only kept: ``failure`` says why, ``text`` is the whole.
    """

    def __init__(self, failure: str = "") -> None:
        self.text, self.failure = "", failure

    def say(self, piece: str) -> None:
        """Write a piece and let it be seen at once."""
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
    """The stream leads nowhere from here on, so that Python does not fail once more when it closes it."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
