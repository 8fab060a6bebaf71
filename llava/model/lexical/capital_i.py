"""A capital I that was read as a small L: in most sans-serif faces the two look alike, and what is beside them tells.

No English word begins with an L before a consonant, but units do, "lb", "lm", "lx", and so do abbreviations and the
commands and names of code: "ltd", "ls -l", "lr = 0.1", "lstat(".
"""

from __future__ import annotations

import re

_BEGINS_WORD = re.compile(
    r"(?<![\w'’./-])l(?=[bcdfghjkmnpqrstvwxz])(?!(?:[^aeiouydfst\W]s?|td|st|hs|pr|ng|bl|vl)\b)(?!\w+(?:[(_=]| =| -\w))"
)
# "I" alone, and no litre: "5 l of milk".
_ALONE = re.compile(r"(?<![\w'’.,])(?<!\d )l(?= [a-z]{2,}|'(?:m|ve|ll|d)\b)")
_AMONG_CAPITALS = re.compile(r"(?<=[A-Z])l(?=[A-Z]|\b)|\bl(?=[A-Z]{2})")


def mend_capitals(text: str) -> str:
    """The text with I where an l cannot stand: "lce cream" is "Ice cream", and "EXlT" is "EXIT"."""
    for pattern in (_BEGINS_WORD, _ALONE, _AMONG_CAPITALS):
        text = pattern.sub("I", text)
    return text
