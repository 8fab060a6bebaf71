"""Names that stand above their values, as on tickets, in web forms and in lists of settings: told as "Gate: B7".

In a row of its own a name is as far from its value as from any other text. That it names what is below it shows in how
the rows change: small and large, black and blue, indented or not, near and far.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple, TypeVar

from llava.model.lexical.row_tables import are_prices, is_date_word
from llava.model.lexical.seen_line import Box, SeenLine

# So many names in a column, or rows of several side by side, show what they are; of two-line entries it takes more.
_LEAST_PAIRS, _LEAST_ENTRIES = 2, 3
# Longer texts name nothing, and longer values are paragraphs.
_MOST_WORDS, _MOST_CHARACTERS, _MOST_OF_VALUE = 4, 28, 60
# So many words may be a value below a heading, and more with one of these in them.
_MOST_WORDS_BELOW, _MARKS = 2, frozenset("0123456789@")
# What counts the entries of a list: a year, a time, "1", "02".
_COUNT = re.compile(r"(1[5-9]|20)\d\d|\d?\d[:.]\d\d( ?[ap]m)?|0?\d\.?", re.IGNORECASE)
_RATE = re.compile(r"(per|from|a|an|each|/)\b|/", re.IGNORECASE)
# A number has so many characters, so many letters of a unit among them.
_MOST_OF_NUMBER, _MOST_OF_UNIT = 12, 4
# Rows are written alike if the heights of their letters differ by less than the first, and apart from the second on.
_ALIKE, _APART = 1.25, 1.15
# How far a value may begin from where its name does, and how level those that are in one column are, as a part of the
# name's height.
_REACH, _LEVEL = 1.6, 0.35
# A value is so near to its name, as a part of the higher of both; what follows is so many times as far.
_NEAR, _FARTHER, _FAR = 2.2, 1.1, 2.0

# "Licence no." ends no sentence.
_SENTENCE_END = re.compile(r"[,!;]$|\w{4,}\.$|[^\w]\.$")


class Named(NamedTuple):
    """A value below its name, as one line of text: the box holds both, the colours are the value's."""

    text: str
    box: Box
    ink: str
    ground: str


AnyLine = TypeVar("AnyLine", bound=SeenLine)
_Rows = Sequence[Sequence[SeenLine]]


def join_stacked(rows: Sequence[Sequence[AnyLine]]) -> list[list[AnyLine | Named]]:
    """The rows, those of names and the rows of their values as one: "Gate: B7", "Seat: 14C".

    A number may also stand above what it counts, as on a dashboard.
    """
    joined: list[list[AnyLine | Named]] = []
    start = 0
    while start < len(rows):
        below = _count_pairs(rows, start, _names_below)
        count = below or _count_pairs(rows, start, _counts_below)
        for i in range(start, start + 2 * count, 2):
            pairs = zip(*((rows[i], rows[i + 1]) if below else (rows[i + 1], rows[i])), strict=True)
            joined.append([_join(*pair) for pair in pairs])
        if not count:
            joined.append(list(rows[start]))
        start += 2 * count or 1
    return joined


def _count_pairs(rows: _Rows, start: int, tells: Callable[[Sequence[SeenLine], Sequence[SeenLine]], bool]) -> int:
    """How many pairs of rows, of names and their values, begin at a row; 0 if it is none of them.

    ``tells``: whether the texts of one row may belong to those of the row below it.
    """
    end = start
    while end + 1 < len(rows) and _is_pair(rows, start, end) and tells(rows[end], rows[end + 1]):
        end += 2
    count = (end - start) // 2
    upper, lower = rows[start:end:2], rows[start + 1 : end : 2]
    if not count or (all(len(row) == 1 for row in upper) and _are_plain_texts(upper, lower)):
        return 0
    if any(shows(upper, lower) for shows in _SIGNS):
        return count if count >= _LEAST_PAIRS or _is_alone(rows, start) else 0
    is_far = all(_measure_gap(rows[i + 1], rows[i + 2]) >= _FAR * max(1.0, _measure_gap(rows[i], rows[i + 1]))
                 for i in range(start, end - 2, 2))  # fmt: skip
    return count if is_far and count >= _LEAST_ENTRIES else 0


def _is_alone(rows: _Rows, start: int) -> bool:
    """Whether two rows are names and their values by themselves: several cells, and no head of a table."""
    upper, lower = rows[start : start + 2]
    if len(upper) < 2 or start + 2 == len(rows):
        return len(upper) > 1
    after = rows[start + 2]
    return len(after) != len(upper) and not (len(after) > 1 and _is_as_high(after, lower))


def _are_plain_texts(upper: _Rows, lower: _Rows) -> bool:
    """Whether a column is a poem, headings with what they are about, or a list by years, times or numbers."""
    first, second = ([row[0].text.strip() for row in rows] for rows in (upper, lower))
    if any(text[:1].islower() and len(text.split()) > 1 for text in second):
        return True
    if all(_COUNT.fullmatch(text) for text in first):
        return True
    is_short = [len(text.split()) <= _MOST_WORDS_BELOW or any(map(_MARKS.__contains__, text)) for text in second]
    are_headings = all(_measure_height(name) >= _APART * _measure_height(value)
                       for name, value in zip(upper, lower, strict=True))  # fmt: skip
    return are_headings and 2 * sum(is_short) <= len(is_short)


def _is_pair(rows: _Rows, start: int, i: int) -> bool:
    """Whether row ``i`` and the one below it are near to each other, and written as the pair at ``start`` is."""
    upper, lower = rows[i], rows[i + 1]
    are_alike = _is_as_high(upper, rows[start]) and _is_as_high(lower, rows[start + 1])
    if len(upper) != len(lower) or not are_alike or not _may_be_one_ink(upper[0].ink, rows[start][0].ink):
        return False
    gap, height = _measure_gap(upper, lower), max(_measure_height(upper), _measure_height(lower))
    is_near = -0.5 * height < gap < _NEAR * height
    is_apart = i + 2 == len(rows) or _measure_gap(lower, rows[i + 2]) > _FARTHER * gap
    return is_near and is_apart and all(_begins_below(*pair) for pair in zip(upper, lower, strict=True))


def _names_below(upper: Sequence[SeenLine], lower: Sequence[SeenLine]) -> bool:
    """Whether a row may have names of what is below. Prices below items are told and compared by ``row_tables``."""
    are_items = len(lower) > 1 and are_prices([line.text for line in lower])
    return all(map(_may_name, upper)) and all(map(_may_be_named, lower)) and not are_items


def _counts_below(upper: Sequence[SeenLine], lower: Sequence[SeenLine]) -> bool:
    """Whether a row may have numbers of what is below: "72 %" above "Humidity".

    But not "12" above "May", nor "$9" above "per month".
    """
    return all(map(_is_number, upper)) and all(
        _may_name(line)
        and not is_date_word(line.text)
        and not any(map(str.isdigit, line.text))
        and not _RATE.match(line.text.strip())
        for line in lower
    )


def _is_number(line: SeenLine) -> bool:
    text = line.text.strip()
    letters, digits = (sum(map(is_one, text)) for is_one in (str.isalpha, str.isdigit))
    return digits > 0 and letters <= _MOST_OF_UNIT and len(text) <= _MOST_OF_NUMBER


def _may_name(line: SeenLine) -> bool:
    """Whether a text may be a name: a few words, of which no sentence ends."""
    text = line.text.strip()
    letters, digits = (sum(map(is_one, text)) for is_one in (str.isalpha, str.isdigit))
    is_short = len(text) <= _MOST_CHARACTERS and len(text.split()) <= _MOST_WORDS
    is_amount = text[:1].isdigit() and _is_number(line)
    return is_short and letters > digits and not is_amount and _SENTENCE_END.search(text) is None


def _may_be_named(line: SeenLine) -> bool:
    """Whether a text may be a value: no paragraph, and no name of what follows."""
    text = line.text.strip()
    return 0 < len(text) <= _MOST_OF_VALUE and not text.endswith(":")


def _begins_below(name: SeenLine, value: SeenLine) -> bool:
    """Whether a value begins where its name does, but for a field's margin, or is centered below it."""
    height = name.box[3] - name.box[1]
    is_left = -_LEVEL * height <= value.box[0] - name.box[0] + 0.5 * height <= (_REACH + 0.5) * height
    return is_left or abs(sum(name.box[::2]) - sum(value.box[::2])) < height


def _measure_gap(above: Sequence[SeenLine], below: Sequence[SeenLine]) -> float:
    return min(line.box[1] for line in below) - max(line.box[3] for line in above)


def _measure_height(row: Sequence[SeenLine]) -> float:
    return median(line.box[3] - line.box[1] for line in row)


def _is_as_high(one: Sequence[SeenLine], other: Sequence[SeenLine]) -> bool:
    """Whether two rows are written at one size on one ground."""
    ratio = _measure_height(one) / max(_measure_height(other), 1e-6)
    return 1 / _ALIKE < ratio < _ALIKE and one[0].ground == other[0].ground


def _may_be_one_ink(one: str, other: str) -> bool:
    """Whether two inks may be one: small gray letters are read as gray, black or white."""
    return one == other or {one, other} <= {"gray", "black"} or {one, other} <= {"gray", "white"}


def _differ_in_height(names: _Rows, values: _Rows) -> bool:
    ratios = [_measure_height(value) / max(_measure_height(name), 1e-6)
              for name, value in zip(names, values, strict=True)]  # fmt: skip
    return min(ratios) >= _APART or max(ratios) <= 1 / _APART


def _differ_in_colour(names: _Rows, values: _Rows) -> bool:
    return {line.ink for row in names for line in row}.isdisjoint(line.ink for row in values for line in row)


def _end_in_colons(names: _Rows, values: _Rows) -> bool:
    return all(line.text.rstrip().endswith(":") for row in names for line in row)


def _are_indented(names: _Rows, values: _Rows) -> bool:
    """Whether names begin level with each other, and values, too, but farther to the right: in the frames of fields."""
    height = _measure_height(names[0])
    lefts = [[row[0].box[0] for row in rows] for rows in (names, values)]
    are_level = all(max(each) - min(each) <= _LEVEL * height for each in lefts)
    return are_level and min(lefts[1]) - max(lefts[0]) >= _LEVEL * height


_SIGNS: tuple[Callable[[_Rows, _Rows], bool], ...] = (
    _differ_in_height,
    _differ_in_colour,
    _end_in_colons,
    _are_indented,
)


def _join(name: SeenLine, value: SeenLine) -> Named:
    first, second = name.text.strip().removesuffix(":").rstrip(), value.text.strip()
    (left, top, right, bottom), (x0, y0, x1, y1) = name.box, value.box
    box = (min(left, x0), min(top, y0), max(right, x1), max(bottom, y1))
    # A color is told of all that is in a line.
    is_told = name.ink == value.ink or value.ground not in ("", "white", "gray")
    return Named(f"{first}: {second}", box, value.ink if is_told else "", value.ground)
