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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from llava.model.lexical.description import Bar, ChartLine, ChartTable, describe
from llava.model.lexical.row_tables import find_extremes
from llava.scratch.talking.chart_records import describe_with
from llava.scratch.talking.drawn_values import CITIES, FIRST_NAMES, MONTHS, draw_apart, draw_person
from llava.scratch.talking.page_grammar import MONTH_NAMES, WEEKDAYS, as_asked, check_braces, fill, read_folder
from llava.scratch.talking.seen_records import Record, ask_for_option, ask_unknown, pick, place_row
from llava.synth.scene import SCENE_COLORS

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
# A pie in percent does not tell what is counted: answers tell of shares.
_OF_SHARES = {
    "": ["The share of {key} is {value}.", "{key} has a share of {value}."],
    ">": ["{key} is the largest part, {value}.", "The largest part is {key}."],
    "<": ["{key} is the smallest part, {value}.", "The smallest part is {key}."],
}
_TABLE_TOPICS_SHARE, _MOST_BARS, _MOST_GROUPED = 0.45, 9, 12
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
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        try:
            _read_line(topics, line, number)
        except ValueError as error:
            raise ValueError(f"{origin}:{number}: '{line}' cannot be read: {error}.") from error
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


def draw_topic_record(rng: random.Random) -> Record:
    """A chart or a table about one of the topics."""
    return make_topic_record(rng, rng.choice(load_topics()))


def make_topic_record(rng: random.Random, topic: Topic) -> Record:
    """A record of a topic: a chart of one of its measures, or a table of several."""
    charted = [measure for measure in topic.measures if measure.charts]
    if charted and (len(topic.measures) < 2 or rng.random() >= _TABLE_TOPICS_SHARE):
        return _make_chart(rng, topic, rng.choice(charted))
    return _make_table(rng, topic)


def _make_chart(rng: random.Random, topic: Topic, measure: Measure) -> Record:
    kind = rng.choice(measure.charts)
    series = topic.series if topic.series and "s" in measure.asks and kind != "pie" and rng.random() < 0.6 else []
    series = sorted(rng.sample(series, rng.randint(2, min(3, len(series)))), key=topic.series.index) if series else []
    most = _MOST_GROUPED // len(series) if series else _MOST_BARS
    names = topic.draw_names(rng, rng.randint(2, min(most, 6 if kind == "pie" else most)))
    rows = [measure.draw(rng, len(names)) for _ in series or [""]]
    title = rng.choice(topic.titles) if topic.titles and rng.random() < 0.75 else ""
    labels = names if rng.random() < 0.85 else [name.upper() for name in names]
    head = rng.choice(measure.heads) if rng.random() < 0.5 else ""
    if kind == "line" and topic.is_timed:
        chart = ChartTable(title, lines=_make_lines(rng, measure, labels, series, rows), y_name=head)
    else:
        chart = _make_bars(rng, measure, labels, series, rows, title, is_pie=kind == "pie")
        if not chart.is_pie:
            chart = replace(chart, x_name=head) if chart.is_horizontal else replace(chart, y_name=head)
    texts = [] if title or rng.random() < 0.7 or not topic.titles else [rng.choice(topic.titles)]
    record = Record("chart", describe_with(chart, texts))
    values = [[point.value for point in row] for row in _cells(chart, len(series) or 1)]
    if chart.is_pie and "%" in values[0][0]:
        measure = replace(measure, says=_OF_SHARES, asks={k: measure.asks[k] for k in _OF_SHARES if k in measure.asks})
    if series:
        _ask_for_series(rng, record, measure, names, series, rows, values)
    else:
        _ask_for_values(rng, record, measure, names, rows[0], values[0])
    record.ask(pick(rng, "What is this chart about?", "What does the chart show?", "What is the topic?",
                    "What is compared here?", "What is it about?", "What are these numbers?"),
               f"It is about: {title}." if title else f"The chart shows {topic.keys}.")  # fmt: skip
    if not series:
        _ask_for_count(rng, record, topic, len(names))
    _ask_for_others(rng, record, topic, measure, names)
    ask_unknown(rng, record, rate=0.1)
    return record.shorten(rng)


def _make_lines(
    rng: random.Random, measure: Measure, labels: Sequence[str], series: Sequence[str], rows: Sequence[Sequence[float]]
) -> tuple[ChartLine, ...]:
    colours = rng.sample([colour for colour in SCENE_COLORS if colour != "white"], len(rows))

    def points(row: Sequence[float], colour: str) -> tuple[Bar, ...]:
        return tuple(Bar(label, colour, measure.write(v), v) for label, v in zip(labels, row, strict=True))

    named = zip(series or [""], colours, rows, strict=True)
    return tuple(ChartLine(name, colour, points(row, colour)) for name, colour, row in named)


def _make_bars(
    rng: random.Random,
    measure: Measure,
    names: Sequence[str],
    series: Sequence[str],
    rows: Sequence[Sequence[float]],
    title: str,
    *,
    is_pie: bool,
) -> ChartTable:
    if is_pie:
        total = sum(rows[0]) or 1.0
        shares = [100 * number / total for number in rows[0]]
        written = [measure.write(number) for number in rows[0]]
        if rng.random() < 0.6:
            written = [f"{share:.0f}%" for share in shares]
        colours = rng.sample(SCENE_COLORS, len(names))
        bars = tuple(Bar(*of) for of in zip(names, colours, written, rows[0], strict=True))
        return ChartTable(title, bars, is_pie=True)
    if series:
        colours = rng.sample(SCENE_COLORS, len(series))
        bars = tuple(
            Bar(f"{name} {one}", colour, measure.write(row[i]), row[i])
            for i, name in enumerate(names)
            for one, colour, row in zip(series, colours, rows, strict=True)
        )
    else:
        colours = [rng.choice(SCENE_COLORS)] * len(names)
        if rng.random() < 0.4 and len(names) < len(SCENE_COLORS):
            colours = rng.sample(SCENE_COLORS, len(names))
        bars = tuple(
            Bar(name, colour, measure.write(v), v) for name, colour, v in zip(names, colours, rows[0], strict=True)
        )
    return ChartTable(title, bars, is_horizontal=rng.random() < 0.3)


def _cells(chart: ChartTable, num_series: int) -> list[list[Bar]]:
    """The bars or points of each series."""
    if chart.lines:
        return [list(line.points) for line in chart.lines]
    return [list(chart.bars[i::num_series]) for i in range(num_series)]


def _turn(
    rng: random.Random, measure: Measure, kind: str, asked: Mapping[str, str] | None = None, **told: str
) -> tuple[str, str] | None:
    """A question of a kind and its answer with these values; ``asked``: those of the question, where they differ."""
    if kind not in measure.asks:
        return None
    question = fill(rng.choice(measure.asks[kind]), as_asked(rng, told if asked is None else asked))
    return question, fill(rng.choice(measure.says[kind]), told)


def _ask_for_values(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], numbers: Sequence[float],
    values: Sequence[str], by: str = "",
) -> None:  # fmt: skip
    """Asks for values of names, for the highest, the lowest, a name by its value, and two names compared.

    ``by``: the column of the numbers, in a table with several.
    """
    places = range(len(names))
    turns = [_turn(rng, measure, "", key=names[i], value=values[i]) for i in rng.sample(places, min(3, len(names)))]
    for kind, find in ((">", max), ("<", min)):
        best = find(places, key=lambda i: numbers[i])
        if list(numbers).count(numbers[best]) == 1:
            turns.append(_turn(rng, measure, kind, key=names[best], value=values[best]))
    i = rng.choice(places)
    if list(values).count(values[i]) == 1:
        turns.append(_turn(rng, measure, "=", key=names[i], value=values[i]))
    for kind in "+-":
        a, b = rng.sample(places, 2)
        if numbers[a] != numbers[b]:
            more = (numbers[a] > numbers[b]) == (kind == "+")
            best, other = (a, b) if more else (b, a)
            asked = {"key": names[a], "other": names[b]}
            told = {"key": names[best], "other": names[other], "value": values[best], "other_value": values[other]}
            if turn := _turn(rng, measure, kind, asked, **told):
                record.ask(*turn)
    for turn in filter(None, turns):
        record.ask(*turn)
    _ask_for_claim(rng, record, measure, names, values)
    _ask_for_ranks(rng, record, measure, names, numbers, by)
    if rng.random() < 0.15 and ">" in measure.asks:
        best = max(places, key=lambda i: numbers[i])
        if list(numbers).count(numbers[best]) == 1:
            ask_for_option(rng, record, rng.choice(measure.asks[">"]), names[best], names)


def _ask_for_claim(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], values: Sequence[str]
) -> None:
    """Asks whether a name has a value, its own or that of another name."""
    if "y" not in measure.asks:
        return
    i = rng.randrange(len(names))
    others = sorted(set(values) - {values[i]})
    claim = rng.choice(others) if others and rng.random() < 0.5 else values[i]
    question = fill(rng.choice(measure.asks["y"]), as_asked(rng, {"key": names[i], "claim": claim}))
    says = measure.says["y" if claim == values[i] else "n"]
    record.ask(question, fill(rng.choice(says), {"key": names[i], "value": values[i], "claim": claim}))


def _ask_for_ranks(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], numbers: Sequence[float], by: str
) -> None:
    """Asks for the second and the third, where the description tells the order and no two are equal."""
    is_told = "in order: 1." in record.description and {">", "<"} & set(measure.asks) and not measure.is_clock
    if not is_told or len(set(numbers)) < len(numbers) or rng.random() < 0.5:
        return
    is_low_best = measure.is_low_best
    ranked = [name for _, name in sorted(zip(numbers, names, strict=True), reverse=not is_low_best)]
    place = rng.randrange(1, min(3, len(ranked)))
    word = ("second", "third")[place - 1]
    if is_low_best:
        ways = ["Which one comes {}?", "Which is in {} place?", "What has the {} lowest value?", "What is number {}?",
                "Who comes {}?", "Who is in {} place?"]  # fmt: skip
    else:
        ways = ["Which is the {} largest?", "Which one comes {}?", "Which is in {} place?", "What is number {}?",
                "What has the {} highest value?", "Which is the {} highest?"]  # fmt: skip
    if by:
        ways = [f'Which is in {{}} place by "{by}"?', f'Sorted by "{by}", which one comes {{}}?',
                f'Which has the {{}} {"lowest" if is_low_best else "highest"} number under "{by}"?']  # fmt: skip
    question = rng.choice(ways)
    asked = word if "What is number" not in question else ("two", "three")[place - 1]
    name = ranked[place]
    record.ask(question.replace("{}", asked), pick(rng, f"{name} comes {word}.", f"{name} is the {word}."))
    listed = ", ".join(ranked)
    order = "smallest to the largest" if is_low_best else "largest to the smallest"
    after = f' by "{by}"' if by else ""
    question = pick(rng, f"Sort them{after} from the {order}.", f"List them in order{after}.",
                    f"What is the ranking{after}?")  # fmt: skip
    record.ask(question, f"From the {order}: {listed}.")


def _ask_for_series(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], series: Sequence[str],
    rows: Sequence[Sequence[float]], values: Sequence[Sequence[str]],
) -> None:  # fmt: skip
    for _ in range(4):
        i, j = rng.randrange(len(names)), rng.randrange(len(series))
        turn = _turn(rng, measure, "s", key=names[i], series=series[j], value=values[j][i])
        if turn:
            record.ask(*turn)
    for kind, find in (("s>", max), ("s<", min)):
        i = rng.randrange(len(names))
        of_name = [row[i] for row in rows]
        best = of_name.index(find(of_name))
        if of_name.count(of_name[best]) == 1:
            turn = _turn(rng, measure, kind, key=names[i], series=series[best], value=values[best][i])
            if turn:
                record.ask(*turn)


def _ask_for_count(rng: random.Random, record: Record, topic: Topic, count: int) -> None:
    if topic.asks:
        record.ask(rng.choice(topic.asks), rng.choice(topic.says).replace("{count}", str(count)))


def _ask_for_others(rng: random.Random, record: Record, topic: Topic, measure: Measure, names: Sequence[str]) -> None:
    """Asks for a name that is not shown, which is refused by that name."""
    absent = topic.draw_names(rng, 1)[0]
    if absent.lower() in record.description.lower() or rng.random() < 0.4:
        return
    turn = _turn(rng, measure, "", key=absent, value="")
    if turn:
        record.ask(turn[0], pick(rng, f"I see no {absent} in the image.", f"The image shows no {absent}.",
                                 f"The image does not show {absent}."))  # fmt: skip


def _make_table(rng: random.Random, topic: Topic) -> Record:
    measures = rng.sample(topic.measures, rng.randint(min(2, len(topic.measures)), min(4, len(topic.measures))))
    names = topic.draw_names(rng, rng.randint(3, 6))
    has_unit = rng.random() < 0.4
    numbers = [measure.draw(rng, len(names)) if not measure.values else [] for measure in measures]
    clock = next((i for i, measure in enumerate(measures) if measure.is_clock and not topic.is_timed), None)
    if clock is not None:
        numbers[clock].sort()
    columns = []
    for measure, of_names in zip(measures, numbers, strict=True):
        unit = f" {measure.unit}" if measure.unit and has_unit else ""
        written = [measure.write(number) + unit for number in of_names]
        columns.append(written or measure.draw_words(rng, len(names)))
    heads = [rng.choice(topic.heads or [topic.key.capitalize()]), *(rng.choice(measure.heads) for measure in measures)]
    cells = [[name, *(column[i] for column in columns)] for i, name in enumerate(names)]
    title = [[rng.choice(topic.titles)]] if topic.titles and rng.random() < 0.6 else []
    shown = [*title, heads, *cells]
    record = Record(
        "text", describe((500, 400), [line for y, row in enumerate(shown) for line in place_row(y, *row)], [])
    )
    told = {extremes.what for extremes in find_extremes(shown)}
    several = sum(map(bool, numbers)) > 1
    for at, (measure, of_names, column, head) in enumerate(zip(measures, numbers, columns, heads[1:], strict=True)):
        others = {other.name: values for other, values in zip(measures, columns, strict=True)}
        _ask_by_others(rng, record, measure, names, column, others)
        if not of_names:
            for i in rng.sample(range(len(names)), 2):
                turn = _turn(rng, measure, "", key=names[i], value=column[i])
                if turn:
                    record.ask(*turn)
            i = rng.randrange(len(names))
            if column.count(column[i]) == 1 and (turn := _turn(rng, measure, "=", key=names[i], value=column[i])):
                record.ask(*turn)
            _ask_for_claim(rng, record, measure, names, column)
            continue
        asked = measure
        if head not in told and at != clock:  # what is highest in a column the model copies, and does not find
            kept = {kind: ways for kind, ways in measure.asks.items() if kind not in (">", "<")}
            asked = replace(measure, asks=kept)
        _ask_for_values(rng, record, asked, names, of_names, column, head if several else "")
    _ask_for_count(rng, record, topic, len(names))
    _ask_for_others(rng, record, topic, rng.choice(measures), names)
    ask_unknown(rng, record, rate=0.1)
    return record.shorten(rng)


def _ask_by_others(
    rng: random.Random, record: Record, measure: Measure, names: Sequence[str], values: Sequence[str],
    others: Mapping[str, Sequence[str]],
) -> None:  # fmt: skip
    """Asks for values of names that are told by their values in other columns."""
    for kind in measure.asks:
        known = others.get(kind[1:], ()) if kind.startswith("@") else ()
        alone = [i for i, one in enumerate(known) if known.count(one) == 1]
        for i in rng.sample(alone, min(2, len(alone))):
            told = {"key": names[i], "value": values[i], "by": known[i]}
            if turn := _turn(rng, measure, kind, {"by": known[i]}, **told):
                record.ask(*turn)
