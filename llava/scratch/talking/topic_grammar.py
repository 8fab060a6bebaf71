"""Topics of charts and tables: what is compared, by which numbers, and in how many ways one asks, from ``topics``.

A file's grammar, line by line ("#" begins a comment)::

    topic animal sleep
    key: animal; animals              what a bar or a row is called: one and several
    head: Animal; Who sleeps          what the column of the names is called; none: the key
    names: Horse; Giraffe             names of bars or rows, or one of ``NAMES``; times make line charts, too
    title: How long animals sleep     several are possible, as of all below
    series: 2022; 2023                for grouped bars and several lines
    ? count How many animals are shown?
    ! count {count} animals are shown.
    measure sleep                     a table has several as its columns; a chart draws one
    head: Sleep (hours)               what the column or the axis is called
    range: 2-20                       of its numbers, or "values: sunny; rainy" where they are words, with "people" and
                                      "cities" as in names, or "clock: 6:05-22:50" where they are times, by which the
                                      rows are in order
    best: low                         of race times and the like, where the lowest number comes first
    unit: h
    chart: bar pie line               which charts of it make sense; none: tables only
    ? How long does the {key} sleep?  asks for the {value} of one name; "! " answers
    ? > Which animal sleeps most?     for the highest, "<" for the lowest, "=" for the name of a value,
    ? + Which of {key} and {other} sleeps longer?    which of two is higher ("-": lower): it is {key} in the answer
    ? s How long in {series}?         for the {value} of one name in one series; "s>", "s<": its highest and lowest
    ? y Does the {key} sleep {claim} hours?      "! y Yes, the {key} sleeps {value} hours.", and "! n No, ..."
    ? @food How long does the one sleep that eats {by}?    for the {value} of the name whose measure "food" is {by}
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from llava.scratch.talking.drawn_values import CITIES, FIRST_NAMES, MONTHS, draw_apart, draw_person
from llava.scratch.talking.page_grammar import MONTH_NAMES, WEEKDAYS, check_braces, read_folder, read_lines

_SHORT_DAYS = "Mon Tue Wed Thu Fri Sat Sun".split()
_TIMES = ("months", "years", "weekdays")
NAMES = (*_TIMES, "cities", "people")
# The slots that the questions of each kind have, and those that their answers have.
_ASKED = {"": "key", ">": "", "<": "", "=": "value", "+": "key other", "-": "key other", "s": "key series", "s>": "key",
          "s<": "key", "y": "key claim", "@": "by", "count": ""}  # fmt: skip
_SAID = {"": "key value", ">": "key value", "<": "key value", "=": "key value", "+": "key other value other_value",
         "-": "key other value other_value", "s": "key series value", "s>": "key series value",
         "s<": "key series value", "y": "key value", "n": "key value claim", "@": "key value by",
         "count": "count"}  # fmt: skip
KINDS = tuple(_ASKED)
_CHARTS, _MOST_STEPS = ("bar", "pie", "line"), 1e9
_CLOCK = re.compile(r"(\d+):(\d\d)-(\d+):(\d\d)")
_SLOT = re.compile(r"\{([^{}]+)\}")


@dataclass
class Measure:
    """What is counted of each name: numbers of a range, or words.

    Attributes:
        asks, says: questions and answers by their kind, one of ``KINDS``.
        low, high, digits: the range of its numbers, and how many decimals they have.
        values: its words; empty for numbers.
        is_clock: whether its numbers are minutes that are written as times.
        is_low_best: whether the lowest number comes first.
        line: its number in the file.
    """

    name: str
    line: int
    heads: list[str] = field(default_factory=list)
    low: float = 0.0
    high: float = 0.0
    digits: int = 0
    values: list[str] = field(default_factory=list)
    is_clock: bool = False
    is_low_best: bool = False
    unit: str = ""
    charts: list[str] = field(default_factory=list)
    asks: dict[str, list[str]] = field(default_factory=dict)
    says: dict[str, list[str]] = field(default_factory=dict)

    def draw(self, rng: random.Random, count: int) -> list[float]:
        """So many numbers, different where the range allows it."""
        step = 10**-self.digits
        steps = round((self.high - self.low) / step)
        drawn = rng.sample(range(steps + 1), count) if steps >= count else rng.choices(range(steps + 1), k=count)
        return [round(self.low + step * at, self.digits) for at in drawn]

    def draw_words(self, rng: random.Random, count: int) -> list[str]:
        """So many of its words, mostly different where there are enough."""
        built_in = self.values[0] if len(self.values) == 1 else ""
        known: Sequence[str] = {"people": FIRST_NAMES, "cities": CITIES}.get(built_in, self.values)
        if len(known) >= count and rng.random() < 0.7:
            return rng.sample(known, count)
        return [rng.choice(known) for _ in range(count)]

    def write(self, number: float) -> str:
        """The number as charts and tables write it, without its unit."""
        if self.is_clock:
            return f"{int(number) // 60}:{int(number) % 60:02}"
        return f"{number:.{self.digits}f}"


@dataclass
class Topic:
    """What is compared; see the module's docstring. ``line``: its number in the file."""

    name: str
    line: int
    key: str = ""
    keys: str = ""
    names: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    asks: list[str] = field(default_factory=list)
    says: list[str] = field(default_factory=list)

    @property
    def is_timed(self) -> bool:
        """Whether its names are times, in order."""
        return len(self.names) == 1 and self.names[0] in _TIMES

    def draw_names(self, rng: random.Random, count: int) -> list[str]:
        """Up to so many names, times in their order."""
        built_in = self.names[0] if len(self.names) == 1 else ""
        if built_in == "years":
            first = rng.randint(1960, 2030)
            return [str(first + i) for i in range(count)]
        if built_in in ("months", "weekdays"):
            known: Sequence[str] = rng.choice(
                (MONTHS, MONTH_NAMES) if built_in == "months" else (WEEKDAYS, _SHORT_DAYS)
            )
            start = rng.randrange(len(known) - min(count, len(known)) + 1)
            return list(known[start : start + count])
        if built_in == "people":
            return rng.sample(FIRST_NAMES, count) if rng.random() < 0.7 else draw_apart(rng, draw_person, count)
        known = CITIES if built_in == "cities" else self.names
        return rng.sample(known, min(count, len(known)))


def read_topics(text: str, origin: str) -> list[Topic]:
    """The topics of a grammar. Raises ValueError that names the line of ``origin`` which cannot be read."""
    topics: list[Topic] = []

    def read_line(line: str, number: int) -> None:
        try:
            _read_line(topics, line, number)
        except ValueError as error:
            raise ValueError(f"'{line}' cannot be read: {error}") from error

    read_lines(text, origin, read_line)
    if not topics:
        raise ValueError(f"{origin} has no topic.")
    for topic in topics:
        for measure in topic.measures:
            where = f"{origin}:{measure.line}: '{measure.name}' of '{topic.name}'"
            for kind in measure.asks:
                for answer in (kind, "n") if kind == "y" else (kind,):
                    if not measure.says.get(answer):
                        raise ValueError(f"{where} has no answer '! {answer}'.")
                if kind.startswith("@") and kind[1:] not in {one.name for one in topic.measures if one is not measure}:
                    raise ValueError(f"{where} asks by '{kind[1:]}', which is no other measure.")
            if not (measure.heads and measure.asks.get("") and (measure.values or measure.high > measure.low)):
                raise ValueError(f"{where} lacks a head, values or a question.")
            if measure.values and (measure.charts or measure.high > measure.low):
                raise ValueError(f"{where} has words as its values, so it has no range and no chart.")
            if "pie" in measure.charts and measure.low < 0:
                raise ValueError(f"{where} may be negative, which no part of a pie is.")
        where = f"{origin}:{topic.line}: '{topic.name}'"
        if not (topic.key and topic.names and topic.measures):
            raise ValueError(f"{where} lacks a key, names or a measure.")
        if len(set(topic.names)) < len(topic.names) or (len(topic.names) < 2 and topic.names[0] not in NAMES):
            raise ValueError(f"{where} needs two names or more, all different, or one of {', '.join(NAMES)}.")
        if topic.series and len(set(topic.series)) < max(2, len(topic.series)):
            raise ValueError(f"{where} needs two series or more, all different, or none.")
        if bool(topic.asks) != bool(topic.says):
            raise ValueError(f"{where} has 'count' only as a question, or only as an answer.")
    return topics


def _read_line(topics: list[Topic], line: str, number: int) -> None:
    mark, _, rest = line.partition(" ")
    if mark == "topic":
        topics.append(Topic(_named(rest), number))
    elif not topics:
        raise ValueError("it stands before any topic")
    elif mark == "measure":
        topics[-1].measures.append(Measure(_named(rest), number))
    elif mark in ("?", "!"):
        _add_turn(topics[-1], mark, rest.strip())
    elif ":" in line:
        _set(topics[-1], *map(str.strip, line.split(":", 1)))
    else:
        raise ValueError("it is none of topic, measure, ?, ! and 'name: values'")


def _named(name: str) -> str:
    if not name.strip():
        raise ValueError("it has no name")
    return name.strip()


def _add_turn(topic: Topic, mark: str, rest: str) -> None:
    first, _, after = rest.partition(" ")
    known = _ASKED if mark == "?" else _SAID
    kind, said = (first, after.strip()) if first in known or first[:1] == "@" else ("", rest)
    if not said:
        raise ValueError("it has no text")
    if kind == "count":
        (topic.asks if mark == "?" else topic.says).append(said)
    elif not topic.measures:
        raise ValueError("it stands before any measure")
    else:
        measure = topic.measures[-1]
        (measure.asks if mark == "?" else measure.says).setdefault(kind, []).append(said)
    for slot in set(_SLOT.findall(said)) - set(known["@" if kind[:1] == "@" else kind].split()):
        raise ValueError(f"there is no slot {{{slot}}} in {'a question' if mark == '?' else 'an answer'} '{kind}'")
    check_braces(said)


def _set(topic: Topic, name: str, value: str) -> None:
    values = [one.strip() for one in value.split(";") if one.strip()]
    if topic.measures:
        measure = topic.measures[-1]
        if name == "range":
            _set_range(measure, value)
        elif name == "clock":
            _set_clock(measure, value)
        elif name == "best":
            if value != "low":
                raise ValueError("what is best is 'low', or the highest, which is not told")
            measure.is_low_best = True
        elif name == "unit":
            measure.unit = value
        elif name == "chart":
            measure.charts.extend(value.replace(",", " ").split())
            if unknown := set(measure.charts) - set(_CHARTS):
                raise ValueError(f"'{min(unknown)}' is none of {', '.join(_CHARTS)}")
        elif name in ("head", "values"):
            (measure.heads if name == "head" else measure.values).extend(values)
        else:
            raise ValueError(f"'{name}' is no part of a measure")
    elif name == "key":
        if len(values) != 2:
            raise ValueError("a key is a name for one and a name for several")
        topic.key, topic.keys = values
    elif name in ("names", "title", "series", "head"):
        parts = {"names": topic.names, "title": topic.titles, "series": topic.series, "head": topic.heads}
        parts[name].extend(values)
    else:
        raise ValueError(f"'{name}' is no part of a topic")


def _set_range(measure: Measure, value: str) -> None:
    low, dash, high = value.removeprefix("-").partition("-")
    if not dash:
        raise ValueError("a range is two numbers, as 2-20 or -5-30")
    measure.low, measure.high = float(low) * (-1 if value.startswith("-") else 1), float(high)
    measure.digits = max(len(end.partition(".")[2]) for end in (low, high))
    if not 0 < (measure.high - measure.low) * 10.0**measure.digits < _MOST_STEPS:
        raise ValueError("a range goes from a number to a larger one, with up to a billion numbers between them")


def _set_clock(measure: Measure, value: str) -> None:
    match = _CLOCK.fullmatch(value)
    if match is None:
        raise ValueError("a clock goes from a time to a later one, as 6:05-22:50")
    first, last = (60 * int(match[i]) + int(match[i + 1]) for i in (1, 3))
    measure.low, measure.high, measure.is_clock = float(first), float(last), True


@lru_cache(maxsize=1)
def load_topics() -> list[Topic]:
    """All topics of the package."""
    return [topic for name, text in read_folder("topics") for topic in read_topics(text, name)]
