"""Records of charts and tables whose answers are decided by one word: which cell, which of two, yes or no.

In other records such a word is one of ten or twenty of an answer, so that it is hardly learnt; here there is little
else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llava.model.lexical.description import Bar, ChartTable, describe
from llava.scratch.talking.chart_records import LABELS, TOPICS, describe_with
from llava.scratch.talking.drawn_values import CITIES, FIRST_NAMES, draw_apart, draw_item, draw_label, draw_person
from llava.scratch.talking.seen_records import Record, ask_for_option, pick, place_row, say_missing
from llava.synth.scene import SCENE_COLORS

# In this share of the turns a word is asked for, so that what is decided is the first thing that is said.
_SHORT_SHARE = 0.5
_NUM_TURNS = 12
# How many bars or rows there are. Of two it is told in so many words which is more: there it is learnt first.
_COUNTS = (2, 2, 2, 3, 3, 3, 4, 4, 5, 6, 7)
_FEW = (2, 2, 3, 3, 4)


@dataclass(frozen=True)
class _Column:
    """What a column of numbers tells of names.

    Attributes:
        head: what it is called; with a unit, in parentheses, it is asked for without it.
        draw: a number of it, and ``write`` as it is written.
        asks: questions for the value of {a}.
        more, less: ways to ask whether {a} has more, or less, than {b}.
        which: how "more" and "less" are said where it is asked which of two: "which is heavier".
        best: how it is asked which has the most, and which the least.
    """

    head: str
    draw: Callable[[random.Random], float]
    write: str
    asks: Sequence[str]
    more: Sequence[str]
    less: Sequence[str]
    which: Sequence[str]
    best: Sequence[str]

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return self.head.partition(" (")[0].lower()


def _column(
    head: str,
    draw: Callable[[random.Random], float],
    write: str,
    asks: str,
    more: str,
    less: str,
    which: str,
    best: str,
) -> _Column:
    """A column by its ways to ask, each separated by semicolons."""
    return _Column(head, draw, write, *(ways.split(";") for ways in (asks, more, less, which, best)))


_COLUMNS = (
    _column("Price", lambda r: r.randint(50, 9000) / 100, "{:.2f}",
            "How much does the {a} cost?;How much is the {a}?;What does the {a} cost?;What is the price of the {a}?;"
            "What do I pay for the {a}?",
            "Is the {a} more expensive than the {b}?;Does the {a} cost more than the {b}?;"
            "Is the {a} dearer than the {b}?",
            "Is the {a} cheaper than the {b}?;Does the {a} cost less than the {b}?",
            "is more expensive;is cheaper", "Which is the most expensive?;Which is the cheapest?"),
    _column("Price", lambda r: r.randint(8, 3000), "${:.0f}",
            "How much does the {a} cost?;How much is the {a}?;What is the price of the {a}?;{a}: how much?",
            "Is the {a} more expensive than the {b}?;Does the {a} cost more than the {b}?",
            "Is the {a} cheaper than the {b}?;Does the {a} cost less than the {b}?",
            "costs more;costs less", "What costs the most?;What costs the least?"),
    _column("Stock", lambda r: r.randint(0, 250), "{:.0f}",
            "How many {a} are in stock?;How many {a} are left?;What is the stock of {a}?",
            "Are there more {a} than {b} in stock?;Is the stock of {a} larger than that of {b}?",
            "Are there fewer {a} than {b} in stock?;Is the stock of {a} smaller than that of {b}?",
            "has the larger stock;has the smaller stock", "Of which are most in stock?;Of which are fewest in stock?"),
    _column("Weight (kg)", lambda r: r.randint(5, 900) / 10, "{:.1f}",
            "How heavy is the {a}?;How much does the {a} weigh?;What is the weight of the {a}?",
            "Is the {a} heavier than the {b}?;Does the {a} weigh more than the {b}?",
            "Is the {a} lighter than the {b}?;Does the {a} weigh less than the {b}?",
            "is heavier;is lighter", "Which is the heaviest?;Which is the lightest?"),
    _column("Age", lambda r: r.randint(4, 95), "{:.0f}",
            "How old is {a}?;What is the age of {a}?;What age is {a}?",
            "Is {a} older than {b}?", "Is {a} younger than {b}?", "is older;is younger",
            "Who is the oldest?;Who is the youngest?"),
    _column("Points", lambda r: r.randint(0, 99), "{:.0f}",
            "How many points does {a} have?;What is the score of {a}?;How many points did {a} get?",
            "Does {a} have more points than {b}?;Is {a} ahead of {b}?;Did {a} get more points than {b}?",
            "Does {a} have fewer points than {b}?;Is {a} behind {b}?",
            "has more points;has fewer points", "Who has the most points?;Who has the fewest points?"),
    _column("Height (cm)", lambda r: r.randint(60, 220), "{:.0f}",
            "How tall is {a}?;What is the height of {a}?",
            "Is {a} taller than {b}?", "Is {a} shorter than {b}?;Is {a} smaller than {b}?", "is taller;is shorter",
            "Which is the tallest?;Which is the shortest?"),
    _column("Temperature", lambda r: r.randint(-15, 40), "{:.0f}",
            "How warm is it in {a}?;What is the temperature in {a}?;How many degrees does {a} have?",
            "Is it warmer in {a} than in {b}?;Is {a} hotter than {b}?",
            "Is it colder in {a} than in {b}?;Is {a} cooler than {b}?", "is warmer;is colder",
            "Where is it warmest?;Where is it coldest?"),
    _column("Distance (km)", lambda r: r.randint(2, 990), "{:.0f}",
            "How far is {a}?;What is the distance to {a}?;How many kilometers is it to {a}?",
            "Is {a} farther than {b}?;Is it farther to {a} than to {b}?",
            "Is {a} nearer than {b}?;Is {a} closer than {b}?", "is farther;is nearer",
            "Which is the farthest?;Which is the nearest?"),
    _column("Time (min)", lambda r: r.randint(3, 240), "{:.0f}",
            "How long does {a} take?;How many minutes does {a} take?;What is the time for {a}?",
            "Does {a} take longer than {b}?", "Is {a} quicker than {b}?;Does {a} take less time than {b}?",
            "takes longer;is quicker", "What takes the longest?;What is the quickest?"),
    _column("Speed", lambda r: r.randint(10, 400), "{:.0f} km/h",
            "How fast is the {a}?;What is the speed of the {a}?;What speed does the {a} reach?",
            "Is the {a} faster than the {b}?", "Is the {a} slower than the {b}?", "is faster;is slower",
            "Which is the fastest?;Which is the slowest?"),
    _column("Members", lambda r: r.randint(3, 900), "{:.0f}",
            "How many members does {a} have?;What is the number of members of {a}?",
            "Does {a} have more members than {b}?;Is {a} larger than {b}?",
            "Does {a} have fewer members than {b}?;Is {a} smaller than {b}?", "has more members;has fewer members",
            "Which has the most members?;Which has the fewest members?"),
    _column("Sold", lambda r: r.randint(0, 5000), "{:.0f}",
            "How many {a} were sold?;How many units of {a} were sold?",
            "Were more {a} sold than {b}?;Did {a} sell more units than {b}?;Did {a} sell better than {b}?",
            "Were fewer {a} sold than {b}?;Did {a} sell less than {b}?", "sold more;sold less",
            "What sold best?;What sold worst?"),
    _column("Votes", lambda r: r.randint(0, 2000), "{:.0f}",
            "How many votes did {a} get?;How many people voted for {a}?",
            "Did {a} get more votes than {b}?;Is {a} preferred by more people than {b}?",
            "Did {a} get fewer votes than {b}?;Is {a} preferred by fewer people than {b}?",
            "got more votes;got fewer votes", "Which got the most votes?;Which got the fewest votes?"),
)  # fmt: skip
_WORDS = (
    ("Color", tuple(SCENE_COLORS), "What color is the {a}?;Which color does the {a} have?"),
    ("Status", ("open", "closed", "delayed", "done", "new", "sold out"), "What is the status of {a}?;How is {a}?"),
    ("City", tuple(CITIES), "Which city is {a} in?;Where is {a}?;What is the city of {a}?"),
    ("Day", tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
     "On which day is {a}?;When is {a}?;What day is {a}?"),
    ("Owner", tuple(FIRST_NAMES), "Who owns the {a}?;Whose is the {a}?;Who is the owner of {a}?"),
    ("Room", ("101", "102", "204", "210", "305", "A1", "B2", "C3"), "Which room is {a} in?;Where is {a}?"),
    ("Code", ("X7", "B12", "K90", "M4", "T33", "Q8"), "What is the code of {a}?;Which code does {a} have?"),
)  # fmt: skip
# What is asked of the bars of any chart.
_OF_BARS = _column(
    "", lambda r: r.randint(1, 99), "{:.0f}",
    "What is the value of {a}?;How much is {a}?;What value does {a} have?;How high is {a}?",
    "Is {a} larger than {b}?;Is {a} larger than {b}?;Is {a} higher than {b}?;Is {a} more than {b}?;"
    "Does {a} have more than {b}?;Is the value of {a} larger than that of {b}?;Is {a} greater than {b}?;"
    "Does {a} have a higher value than {b}?;Are there more {a} than {b}?",
    "Is {a} smaller than {b}?;Is {a} lower than {b}?;Is {a} less than {b}?;Does {a} have less than {b}?;"
    "Is the value of {a} smaller than that of {b}?;Are there fewer {a} than {b}?",
    "is larger;is smaller", "Which is the largest?;Which is the smallest?",
)  # fmt: skip


def draw_number_comparison_record(rng: random.Random) -> Record:
    """A chart or a table, and questions whose answers are a cell, one of two names, yes or no, or a letter."""
    record = _draw_bars(rng, _COUNTS, _QUESTIONS) if rng.random() < 0.4 else _draw_table(rng)
    return record.shorten(rng, _NUM_TURNS).ask_shortly(rng, _SHORT_SHARE)


def draw_bar_comparison_record(rng: random.Random) -> Record:
    """Two to four bars, and only which of two is more. A training on these alone is where that is learnt."""
    record = _draw_bars(rng, _FEW, _WHICH_IS_MORE)
    return record.shorten(rng, _NUM_TURNS).ask_shortly(rng, _SHORT_SHARE)


@dataclass(frozen=True)
class _Compared:
    """A column, and the numbers of names in it as the image has them; ``absent``: a name like them that it lacks."""

    column: _Column
    names: Sequence[str]
    absent: str
    numbers: Sequence[float]
    values: Sequence[str]

    def find(self, find: Callable[..., int]) -> int:
        """Where the largest (``max``) or the smallest (``min``) of the numbers stands."""
        return find(range(len(self.names)), key=lambda i: self.numbers[i])


def _draw_names(rng: random.Random, counts: Sequence[int] = _COUNTS) -> tuple[list[str], str]:
    """Names of one kind, and another one: labels, things to buy, models with numbers, people or places."""

    def draw_model(rng: random.Random) -> str:
        return f"{draw_label(rng).split()[0].capitalize()} {rng.choice((rng.randint(1, 20), rng.randint(2, 99) * 10))}"

    draw = rng.choice((draw_label, draw_item, draw_model, draw_person, lambda r: r.choice(FIRST_NAMES),
                       lambda r: r.choice(CITIES)))  # fmt: skip
    *names, absent = draw_apart(rng, draw, rng.choice(counts) + 1)
    return names, absent


def _draw_bars(rng: random.Random, counts: Sequence[int], questions: _Questions) -> Record:
    names, absent = _draw_names(rng, counts)
    if rng.random() < 0.4:
        known = rng.choice(LABELS)
        names = list(known[: len(names)])
        absent = next((label for label in reversed(known) if label not in names), absent)
    scale = rng.choice((1, 1, 10, 0.1))
    numbers = [number * scale for number in rng.sample(range(1, 100), len(names))]
    values = [f"{number:g}" for number in numbers]
    is_pie = rng.random() < 0.2
    colours = rng.sample(SCENE_COLORS, len(names))
    if not is_pie and rng.random() < 0.5:
        colours = colours[:1] * len(names)
    bars = tuple(Bar(*of) for of in zip(names, colours, values, numbers, strict=True))
    title = rng.choice(TOPICS) if rng.random() < 0.6 else ""
    chart = ChartTable(title, bars, is_pie=is_pie, is_horizontal=not is_pie and rng.random() < 0.2)
    record = Record("chart", describe_with(chart, []))
    _ask(rng, record, [_Compared(_OF_BARS, names, absent, numbers, values)], questions, _NUM_TURNS + 4)
    return record


def _draw_table(rng: random.Random) -> Record:
    """Two to four columns beside the names, of numbers or of words."""
    names, absent = _draw_names(rng)
    told = []
    for column in {each.head: each for each in rng.sample(_COLUMNS, rng.randint(1, 3))}.values():
        numbers = [column.draw(rng) for _ in names]
        told.append(_Compared(column, names, absent, numbers, [column.write.format(number) for number in numbers]))
    shown = [(each.column.head, each.values) for each in told]
    head, known, asks = rng.choice(_WORDS)
    words = [rng.choice(known) for _ in names] if rng.random() < 0.6 else []
    if words:
        shown.append((head, words))
    rng.shuffle(shown)
    heads = [rng.choice(("Name", "Item", "Product", "Model", "Team", "", "What")), *(each for each, _ in shown)]
    rows = [heads, *([name, *(of[i] for _, of in shown)] for i, name in enumerate(names))]
    lines = [line for y, row in enumerate(rows) for line in place_row(y, *row)]
    record = Record("text", describe((500, 400), lines, []))
    _ask(rng, record, told, _QUESTIONS, _NUM_TURNS)
    for i in rng.sample(range(len(names)), 2) if words else ():
        question = rng.choice(asks.split(";")).format(a=names[i])
        record.ask(question, f"The {head.lower()} of {names[i]} is {words[i]}.", words[i])
    return record


def _ask(rng: random.Random, record: Record, told: Sequence[_Compared], questions: _Questions, count: int) -> None:
    """Adds up to ``count`` questions about one of the columns each, and about what the image lacks."""
    for _ in range(count):
        rng.choices(*questions)[0](rng, record, rng.choice(told))
    lacking = [each for each in _COLUMNS if each.name not in record.description.lower()]
    if told[0].column.name and lacking and rng.random() < 0.6:
        column, name = rng.choice(lacking), rng.choice(told[0].names)
        record.ask(rng.choice(column.asks).format(a=name), say_missing(rng, column.name))


def _ask_value(rng: random.Random, record: Record, told: _Compared) -> None:
    """What the value of a name is, also of one that is not there."""
    column, i = told.column, rng.randrange(len(told.names))
    ways = list(column.asks)
    if column.name:
        ways += [f"What is the {column.name} of {{a}}?", f"{{a}}: {column.name}?", f"What {column.name} has {{a}}?"]
    way = rng.choice(ways)
    if rng.random() < 0.12 and told.absent.lower() not in record.description.lower():
        ways = [f"I see no {told.absent} in the image.", f"The image does not show {told.absent}."]
        record.ask(way.format(a=told.absent), rng.choice(ways))
        return
    question = way.format(a=told.names[i])
    if rng.random() < 0.15:
        ask_for_option(rng, record, question, told.values[i], told.values)
    elif column.name:
        record.ask(question, f"The {column.name} of {told.names[i]} is {told.values[i]}.", told.values[i])
    else:
        record.ask(question, f"{told.names[i]} is {told.values[i]}.", told.values[i])


def _ask_whether(rng: random.Random, record: Record, told: _Compared) -> None:
    """Whether one has more, or less, than another."""
    names, numbers, values = told.names, told.numbers, told.values
    a, b = rng.sample(range(len(names)), 2)
    if numbers[a] == numbers[b]:
        return
    is_more = rng.random() < 0.6
    question = rng.choice(told.column.more if is_more else told.column.less).format(a=names[a], b=names[b])
    word = "Yes" if (numbers[a] > numbers[b]) == is_more else "No"
    record.ask(question, f"{word}, {names[a]} is {values[a]} and {names[b]} is {values[b]}.", word)


def _ask_which(rng: random.Random, record: Record, told: _Compared) -> None:
    """Which of two has more, or less."""
    names, numbers = told.names, told.numbers
    a, b = rng.sample(range(len(names)), 2)
    if numbers[a] == numbers[b]:
        return
    is_more = rng.random() < 0.6
    says = told.column.which[not is_more]
    best, other = (a, b) if (numbers[a] > numbers[b]) == is_more else (b, a)
    question = pick(rng, f"Which {says}, {names[a]} or {names[b]}?", f"What {says}: {names[a]} or {names[b]}?",
                    f"{names[a]} or {names[b]}: which {says}?")  # fmt: skip
    record.ask(question, f"{names[best]} {says}: {told.values[best]} against {told.values[other]}.", names[best])


def _ask_best(rng: random.Random, record: Record, told: _Compared) -> None:
    """Which has the most, or the least."""
    is_most = rng.random() < 0.6
    best = told.find(max if is_most else min)
    if list(told.numbers).count(told.numbers[best]) > 1:
        return
    question = told.column.best[not is_most]
    if rng.random() < 0.3:
        ask_for_option(rng, record, question, told.names[best], told.names)
    else:
        record.ask(question, f"{told.names[best]}, with {told.values[best]}.", told.names[best])


def _ask_claim(rng: random.Random, record: Record, told: _Compared) -> None:
    """Whether something has a value, its own or another's."""
    i = rng.randrange(len(told.names))
    value, name = told.values[i], told.names[i]
    others = sorted(set(told.values) - {value})
    if not others:
        return
    claim = rng.choice(others) if rng.random() < 0.5 else value
    of = f"the {told.column.name} of {name}" if told.column.name else name
    word = "Yes" if claim == value else "No"
    start = of[:1].upper() + of[1:]
    question = pick(rng, f"Is {of} {claim}?", f"Is it true that {of} is {claim}?", f"{start} is {claim}, right?")
    record.ask(question, f"{word}, {of} is {value}.", word)


_Questions = tuple[Sequence[Callable[[random.Random, Record, _Compared], None]], Sequence[float]]
_QUESTIONS: _Questions = ((_ask_value, _ask_whether, _ask_which, _ask_best, _ask_claim), (0.32, 0.3, 0.18, 0.1, 0.1))
_WHICH_IS_MORE: _Questions = ((_ask_whether, _ask_which), (0.75, 0.25))
