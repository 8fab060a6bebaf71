"""Turns a page upright that was photographed or scanned on its side or upside down.

Upside down, lines are found where they are and read as signs that the reader is unsure of; on its side, a page is found
to be single letters. Only then is it read the other ways round as well, and it counts as turned only if it then is read
as surely as upright pages are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llava.model.lexical.line_reader import Line

Read = Callable[[Tensor], list[Line]]

# Lines of upright pages were read with a mean sureness above the first of these, turned ones below the second.
_SURE, _UNSURE = 0.93, 0.88
# A line of a page on its side is found as so many characters at most, and as several such lines; turned upright, it has
# so many lines that are that long.
_MOST_LETTERS, _LEAST_PARTS, _LEAST_LINES, _LEAST_LENGTH = 2.0, 6, 3, 4
# A page that stands upside down has so many characters; turned, it has this share of them at least.
_LEAST_CHARACTERS, _LEAST_SHARE = 8, 0.6
# This share of the characters of a page on its side is at most in words, and of an upright one at least.
_MOST_IN_WORDS, _LEAST_IN_WORDS = 0.15, 0.8


class _Reading(NamedTuple):
    """How a page was read: the number of its characters, how sure they are, and how many of them are in long lines."""

    num_characters: int
    sure: float
    num_long_lines: int
    in_words: float


def read_upright(canvas_CHW: Tensor, read: Read) -> tuple[Tensor, list[Line]]:
    """The canvas, turned if it is not upright, and its lines."""
    lines = read(canvas_CHW)
    as_is = _measure(lines)
    if as_is.num_characters >= _LEAST_CHARACTERS and as_is.sure < _UNSURE:
        turns: tuple[int, ...] = (2,)
    elif (
        len(lines) >= _LEAST_PARTS
        and as_is.num_characters < _MOST_LETTERS * len(lines)
        and as_is.in_words <= _MOST_IN_WORDS
    ):
        turns = (1, 3)
    else:
        return canvas_CHW, lines
    tried = []
    for turn in turns:
        turned_CHW = torch.rot90(canvas_CHW, turn, (1, 2)).contiguous()
        turned_lines = read(turned_CHW)
        reading = _measure(turned_lines)
        is_read = reading.num_long_lines >= _LEAST_LINES and reading.in_words >= _LEAST_IN_WORDS
        if turn == 2:
            is_read = reading.num_characters >= max(_LEAST_CHARACTERS, _LEAST_SHARE * as_is.num_characters)
        if is_read and reading.sure >= _SURE:
            tried.append((reading.sure * reading.num_characters, turned_CHW, turned_lines))
    if not tried:
        return canvas_CHW, lines
    _, upright_CHW, upright_lines = max(tried, key=lambda each: each[0])
    return upright_CHW, upright_lines


def _measure(lines: Sequence[Line]) -> _Reading:
    num_characters = sum(len(line.text) for line in lines)
    if not num_characters:
        return _Reading(0, 0.0, 0, 0.0)
    sure = sum(line.score * len(line.text) for line in lines) / num_characters
    long = [line for line in lines if len(line.text) >= _LEAST_LENGTH]
    return _Reading(num_characters, sure, len(long), sum(len(line.text) for line in long) / num_characters)
