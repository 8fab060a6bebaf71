"""Records of tables and of notices, and ``draw_record``, which draws one of any kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from llava.model.lexical.description import describe, join_rows
from llava.model.lexical.row_tables import find_extremes
from llava.scratch.talking.card_records import draw_card_record, draw_menu_record, draw_window_record
from llava.scratch.talking.chart_records import draw_chart_record
from llava.scratch.talking.comparison_records import draw_bar_comparison_record, draw_number_comparison_record
from llava.scratch.talking.drawn_values import (
    CITIES,
    FIELDS,
    FIRST_NAMES,
    ITEMS,
    LAST_NAMES,
    LIGHT_PLATES,
    MONTHS,
    PLATES,
    SIGNS,
    draw_apart,
    draw_item,
    draw_label,
    draw_mail,
    draw_person,
    draw_phone,
    draw_time,
)
from llava.scratch.talking.form_records import draw_form_record
from llava.scratch.talking.line_chart_records import draw_line_chart_record
from llava.scratch.talking.page_grammar import ask_of_other_page, draw_page_record
from llava.scratch.talking.receipt_records import draw_receipt_record
from llava.scratch.talking.seen_records import (
    Record,
    ask_description,
    ask_for_text,
    ask_unknown,
    is_shown,
    pick,
    place_row,
    quote,
    say_missing,
)
from llava.scratch.talking.shape_records import draw_comparison_record, draw_shapes_record
from llava.scratch.talking.sign_records import draw_lines_record, draw_sign_record
from llava.scratch.talking.topic_records import draw_topic_record
from llava.synth import words
from llava.text import list_all

_COLUMNS: dict[str, Callable[[random.Random], str]] = {
    "Name": lambda r: r.choice(FIRST_NAMES),
    "City": lambda r: r.choice(CITIES),
    "Destination": lambda r: r.choice(CITIES),
    "Product": lambda r: r.choice(ITEMS),
    "Age": lambda r: str(r.randint(5, 90)),
    "Price": words.draw_price,
    "Stock": lambda r: str(r.randint(0, 200)),
    "Time": lambda r: f"{r.randint(5, 23):02d}:{r.randrange(60):02d}",
    "Platform": lambda r: str(r.randint(1, 16)),
    "Gate": lambda r: f"{r.choice('ABCDE')}{r.randint(1, 40)}",
    "Status": lambda r: r.choice(("on time", "delayed", "cancelled", "boarding", "5 min late", "open", "closed")),
    "Score": lambda r: str(r.randint(0, 100)),
    "Points": lambda r: str(r.randint(0, 60)),
    "Temperature": lambda r: f"{r.randint(-9, 38)}°",
    "Weather": lambda r: r.choice(("sunny", "cloudy", "rain", "snow", "windy")),
    "Opening": lambda r: f"{r.randint(6, 11)}:00",
    "Closing": lambda r: f"{r.randint(15, 23)}:00",
    "Room": lambda r: str(r.randint(100, 420)),
    "Grade": lambda r: r.choice("ABCD"),
}
_TABLES = (
    "Time Destination Platform;Time Destination Gate Status;Name Age City;Product Price Stock;City Temperature Weather;"
    "Name Points;Name Score Grade;Product Price;Destination Time Platform Status;City Opening Closing;Name Room Time"
).split(";")
_SUPERLATIVES = {
    ("price", "highest"): ("Which {} is the most expensive?", "What costs the most?"),
    ("price", "lowest"): ("Which {} is the cheapest?", "What costs the least?"),
    ("age", "highest"): ("Who is the oldest?",),
    ("age", "lowest"): ("Who is the youngest?",),
    ("temperature", "highest"): ("Which {} is the warmest?", "Where is it the warmest?"),
    ("temperature", "lowest"): ("Which {} is the coldest?", "Where is it the coldest?"),
    ("points", "highest"): ("Who has the most points?", "Who is first?"),
    ("points", "lowest"): ("Who has the fewest points?", "Who is last?"),
    ("score", "highest"): ("Who is the best?",),
    ("score", "lowest"): ("Who is the worst?",),
    ("weight", "highest"): ("Which {} is the heaviest?",),
    ("weight", "lowest"): ("Which {} is the lightest?",),
    ("height", "highest"): ("Which {} is the tallest?",),
    ("height", "lowest"): ("Which {} is the smallest?",),
    ("speed", "highest"): ("Which {} is the fastest?",),
    ("speed", "lowest"): ("Which {} is the slowest?",),
}
# How often a record is asked for what another kind of page would tell.
_ELSEWHERE_SHARE = 0.4
# The share of turns that ask for a word or a phrase, of those that have one.
_SHORT_SHARE = 0.12
_KEY_COLUMNS = tuple("Name Item Product City Article Team Month Place Person Company Course Brand".split())
_TITLES = ("Departures", "Results", "Timetable", "Price list", "Team", "Overview", "Schedule", "Weather")


@dataclass(frozen=True)
class _Table:
    """The cells of a table as they are written. ``keyed``: the column that names a row."""

    columns: Sequence[str]
    keyed: int
    rows: Sequence[Sequence[str]]

    @property
    def key(self) -> str:
        return self.columns[self.keyed]

    @property
    def names(self) -> list[str]:
        return [row[self.keyed] for row in self.rows]


def draw_table_record(rng: random.Random) -> Record:
    """A table of up to six rows: a timetable, a list of prices, of people or of results."""
    table = _draw_own_table(rng) if rng.random() < 0.55 else _draw_known_table(rng)
    columns = table.columns
    title = rng.choice(_TITLES) if rng.random() < 0.5 else ""
    shown = [[title]] * bool(title) + [columns] * (rng.random() < 0.85) + list(table.rows)
    lines = [line for y, row in enumerate(shown) for line in place_row(y, *row)]
    record = Record("text", describe((400, 400), lines, []))
    _ask_for_cells(rng, record, table)
    _ask_about_rows(rng, record, table)
    about = f'a table with the title "{title}"' if title else "a table"
    record.ask(ask_description(rng), f"The image shows {about}. It lists {list_all(table.names)}.")
    record.ask(*ask_for_text(rng, join_rows(lines)))
    ask_unknown(rng, record, rate=0.25, known=" ".join(columns))
    return record.shorten(rng)


def _draw_known_table(rng: random.Random) -> _Table:
    columns = rng.choice(_TABLES).split()
    keyed = 1 if columns[0] == "Time" else 0
    rows: dict[str, list[str]] = {}
    for _ in range(rng.randint(2, 6)):
        row = [_COLUMNS[column](rng) for column in columns]
        rows.setdefault(row[keyed], row)
    return _Table(columns, keyed, list(rows.values()))


def _draw_own_table(rng: random.Random) -> _Table:
    """A table of anything: its columns are those of forms, or have made-up names, and so have its rows."""
    columns = draw_apart(rng, lambda r: r.choice((*FIELDS, draw_label(r).capitalize())), rng.randint(2, 5))
    keyed = int(rng.random() < 0.15)
    columns[keyed] = rng.choice((*_KEY_COLUMNS, draw_label(rng).capitalize(), columns[keyed]))
    keys = draw_apart(rng, rng.choice((draw_label, draw_item, draw_person, lambda r: r.choice(CITIES))), 6)
    if rng.random() < 0.3:
        keys = rng.sample(MONTHS, 6)
    counts = [rng.random() < 0.6 for _ in columns]
    most = rng.choice((20, 100, 1000, 9999))
    rows = []
    for key in keys[: rng.randint(2, 6)]:
        row = [
            FIELDS[column](rng) if column in FIELDS else str(rng.randint(0, most)) if is_count
            else words.draw_content(rng, False, 9)
            for column, is_count in zip(columns, counts, strict=True)
        ]  # fmt: skip
        row[keyed] = key
        rows.append(row)
    return _Table(columns, keyed, rows)


def _ask_for_cells(rng: random.Random, record: Record, table: _Table) -> None:
    places = [i for i in range(len(table.columns)) if i != table.keyed]
    for row in rng.sample(table.rows, min(4, len(table.rows))):
        place = rng.choice(places)
        column, name, value = table.columns[place].lower(), row[table.keyed], row[place]
        question = pick(rng, f"What is the {column} of {name}?", f"What is the {column} for {name}?",
                        f"Which {column} does {name} have?", f"What {column} does {name} have?",
                        f"{name}: {column}?", f"Tell me the {column} of {name}.",
                        f"What does it say for {name} under {column}?")  # fmt: skip
        if value.isdigit() and rng.random() < 0.4:
            question = f"How many {column} does {name} have?"
        if column == "time" and table.key == "Destination" and rng.random() < 0.6:
            question = f"When does the {rng.choice(('train', 'bus', 'flight'))} to {name} leave?"
        if column == "price" and rng.random() < 0.6:
            question = f"How much is the {name.lower()}?"
        record.ask(question, pick(rng, f"The {column} of {name} is {value}.", f"The {column} for {name} is {value}."))
    place = rng.choice(places)
    column, value = table.columns[place].lower(), rng.choice(table.rows)[place]
    owners = [row[table.keyed] for row in table.rows if row[place] == value]
    has = "has" if len(owners) == 1 else "have"
    record.ask(
        f"Which {table.key.lower()} has the {column} {value}?", f"{list_all(owners)} {has} the {column} {value}."
    )


def _ask_about_rows(rng: random.Random, record: Record, table: _Table) -> None:
    count = len(table.rows)
    question = pick(rng, "How many rows are there?", "How many entries does the table have?")
    record.ask(question, f"There are {count} entries." if count > 1 else "There is 1 entry.")
    other = rng.choice((_COLUMNS.get(table.key, draw_label), draw_label))(rng)
    if other.lower() not in record.description.lower():
        record.ask(f"What is the {table.columns[-1].lower()} of {other}?", f"I see no {other} in the image.")
    column = rng.choice((*FIELDS, *_COLUMNS, "Supplier", "Wind", "Teacher", "Weight of the box", "Color")).lower()
    if not is_shown(column, f"{record.description} {' '.join(table.columns)}"):
        record.ask(f"What is the {column} of {rng.choice(table.names)}?", say_missing(rng, column))
    question = pick(rng, "Which columns are there?", "What are the columns called?", "What does the table list?")
    if record.description.count(f" {table.columns[0]} |"):
        record.ask(question, f"The columns are {list_all(table.columns)}.")
    _ask_for_extremes(rng, record, table)


def _ask_for_extremes(rng: random.Random, record: Record, table: _Table) -> None:
    """Asks for what is highest and lowest in the columns where the description tells it, and two rows compared."""
    for found in find_extremes([table.columns, *table.rows])[:2]:
        if str(found) not in record.description:
            continue
        column, key = found.what.lower(), table.key.lower()
        for word, (name, value) in (("highest", found.highest), ("lowest", found.lowest)):
            ways = [f"Which {key} has the {word} {column}?", f"Who has the {word} {column}?"]
            ways += [way.format(key) for way in _SUPERLATIVES.get((column, word), ())]
            record.ask(rng.choice(ways), f"{name} has the {word} {column}, {value}.")
            record.ask(f"What is the {word} {column}?", f"The {word} {column} is {value}, of {name}.")


_HEADINGS = (
    "Summer Concert;Flea Market;Lost Cat;Book Sale;Open Day;Yoga Class;Job Offer;Street Festival;Piano Lessons;"
    "Bike for sale;Room to rent;Movie Night;Save changes?;New message;Garden Party;Spring Sale;Art Exhibition"
).split(";")
_ASKS = {
    "date": (
        "When is it?",
        "What is the date?",
        "On which day is it?",
        "On which day does it happen?",
        "Which day is it on?",
    ),
    "time": ("What time is it at?", "What is the time?", "When does it start?", "At what time does it begin?"),
    "place": (
        "Where is it?",
        "What is the place?",
        "Where does it take place?",
        "Where can I go?",
        "In which place is it?",
    ),
    "price": ("How much does it cost?", "What is the price?", "How much is it?", "What do I have to pay?"),
    "phone number": (
        "What is the phone number?",
        "Which number can I call?",
        "What is the telephone number?",
        "Which number should I call?",
    ),
    "e-mail address": ("What is the e-mail address?", "What is the email?"),
    "name": ("What is the name of the person?", "Whose name is given?", "Who is the contact?", "Whom should I call?"),
}
_WRITES = {
    "date": ("{}", "Date: {}", "on {}"),
    "time": ("{}", "starts at {}", "Time: {}"),
    "place": ("{}", "Place: {}", "at {}"),
    "price": ("{}", "Tickets {}", "only {}", "Price: {}"),
    "phone number": ("{}", "Call {}", "Tel. {}", "Phone: {}"),
    "e-mail address": ("{}", "E-mail: {}"),
    "name": ("{}", "Contact: {}"),
}


def _draw_facts(rng: random.Random) -> dict[str, str]:
    place = (f"{rng.choice(LAST_NAMES)} Hall", f"{rng.choice(CITIES)} Park", f"{rng.choice(LAST_NAMES)} Street 9")
    return {
        "date": words.draw_date(rng) if rng.random() < 0.5 else f"{rng.choice(MONTHS)} {rng.randint(1, 30)}",
        "time": draw_time(rng),
        "place": rng.choice(place),
        "price": words.draw_price(rng),
        "phone number": draw_phone(rng),
        "e-mail address": draw_mail(rng),
        "name": draw_person(rng),
    }


def draw_notice_record(rng: random.Random) -> Record:
    """A poster, a notice, a card or a screen: a heading, and what, when, where and how much."""
    heading = rng.choice(_HEADINGS)
    if rng.random() < 0.4:
        heading = rng.choice((heading.upper(), rng.choice(SIGNS)))
    facts = _draw_facts(rng)
    held = rng.sample(sorted(facts), rng.randint(1, 4))
    ground = rng.choice(("white", "white", "white", *PLATES))
    ink = "black" if ground in LIGHT_PLATES else "white"
    texts = [heading, *(rng.choice(_WRITES[what]).format(facts[what]) for what in held)]
    rows = [line for y, text in enumerate(texts) for line in place_row(y, text)]
    lines = [replace(line, ink=ink, ground=ground) for line in rows]
    record = Record("signs" if ground != "white" else "text", describe((400, 400), lines, []))
    for what in held:
        record.ask(rng.choice(_ASKS[what]), pick(rng, f"The {what} is {facts[what]}.", f"It is {facts[what]}."))
    absent = [what for what in facts if what not in held and not is_shown(what, record.description)]
    for what in rng.sample(absent, min(2, len(absent))):
        record.ask(rng.choice(_ASKS[what]), say_missing(rng, what))
    question = pick(rng, "What is the heading?", "What is the title?", "What is this about?",
                    "What is being advertised?", "What is announced?", "Which event is it?")  # fmt: skip
    record.ask(question, f"The heading is {quote(rng, heading)}.")
    given = list_all([f"the {what} {facts[what]}" for what in held])
    about = f"The image shows a notice with the heading {quote(rng, heading)}. It gives {given}."
    record.ask(ask_description(rng), about)
    record.ask(*ask_for_text(rng, texts))
    if ground != "white":
        question = pick(rng, "What color is the background?", "What is the color of the background?")
        record.ask(question, f"The background is {ground}.")
    return record.shorten(rng)


MAKERS: dict[str, tuple[float, Callable[[random.Random], Record]]] = {
    "shapes": (0.3, draw_shapes_record),
    "comparisons": (0.9, draw_comparison_record),
    "numbers": (1.0, draw_number_comparison_record),
    "bars": (0.1, draw_bar_comparison_record),
    "signs": (0.22, draw_sign_record),
    "lines": (0.1, draw_lines_record),
    "form": (0.06, draw_form_record),
    "receipt": (0.1, draw_receipt_record),
    "table": (0.06, draw_table_record),
    "notice": (0.06, draw_notice_record),
    "card": (0.05, draw_card_record),
    "window": (0.05, draw_window_record),
    "menu": (0.05, draw_menu_record),
    "chart": (0.1, draw_chart_record),
    "line chart": (0.08, draw_line_chart_record),
    "page": (1.1, draw_page_record),
    "topic": (0.7, draw_topic_record),
}


def draw_record(rng: random.Random, kinds: Sequence[str] = tuple(MAKERS)) -> Record:
    """A record of one of these kinds, drawn by their shares."""
    kind = rng.choices(kinds, [MAKERS[kind][0] for kind in kinds])[0]
    record = MAKERS[kind][1](rng)
    if kind not in ("comparisons", "numbers", "bars"):  # they ask for words of themselves
        record.ask_shortly(rng, _SHORT_SHARE)
    if rng.random() < _ELSEWHERE_SHARE:
        ask_of_other_page(rng, record)
    return record
