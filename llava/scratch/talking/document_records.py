"""Records of tables and of notices, and ``draw_record``, which draws one of any kind."""

from __future__ import annotations

import random
from collections.abc import Callable

from llava.model.lexical.description import describe, join_rows
from llava.scratch.talking.records import (
    CITIES,
    FIRST_NAMES,
    ITEMS,
    LAST_NAMES,
    MONTHS,
    PLATES,
    SIGNS,
    Line,
    Record,
    ask_description,
    ask_for_text,
    ask_unknown,
    draw_chart_record,
    draw_form_record,
    draw_lines_record,
    draw_mail,
    draw_phone,
    draw_receipt_record,
    draw_shapes_record,
    draw_sign_record,
    draw_time,
    list_all,
    pick,
    say,
    shorten,
)
from llava.synth import words

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
_TITLES = ("Departures", "Results", "Timetable", "Price list", "Team", "Overview", "Schedule", "Weather")


def draw_table_record(rng: random.Random) -> Record:
    """A table: a timetable, a list of prices, of people or of results."""
    columns = rng.choice(_TABLES).split()
    keyed = 1 if columns[0] == "Time" else 0  # the column that names a row
    rows: list[list[str]] = []
    for _ in range(rng.randint(2, 6)):
        row = [_COLUMNS[column](rng) for column in columns]
        if row[keyed] not in [other[keyed] for other in rows]:
            rows.append(row)
    title = rng.choice(_TITLES) if rng.random() < 0.5 else ""
    shown = [[title]] * bool(title) + [columns] * (rng.random() < 0.85) + rows
    lines = [
        Line(text, (10.0 + 100 * x, 30.0 * y, 90.0 + 100 * x, 30.0 * y + 20))
        for y, row in enumerate(shown)
        for x, text in enumerate(row)
    ]
    record = Record("text", describe((400, 400), lines, []))
    _ask_about_table(rng, record, columns, keyed, rows)
    about = f'a table with the title "{title}"' if title else "a table"
    every = list_all([row[keyed] for row in rows])
    record.turns.append((ask_description(rng), f"The image shows {about}. It lists {every}."))
    record.turns.append(ask_for_text(rng, join_rows(lines)))
    ask_unknown(rng, record.turns, record.description, rate=0.5)
    return shorten(rng, record)


def _ask_about_table(rng: random.Random, record: Record, columns: list[str], keyed: int, rows: list[list[str]]) -> None:
    places = [i for i in range(len(columns)) if i != keyed]
    for row in rng.sample(rows, min(3, len(rows))):
        place = rng.choice(places)
        column, name, value = columns[place].lower(), row[keyed], row[place]
        question = pick(rng, "What is the {} of {}?", "What is the {} for {}?", "Which {} does {} have?")
        question = question.format(column, name)
        if column == "time" and rng.random() < 0.6:
            question = f"When does the {rng.choice(('train', 'bus', 'flight'))} to {name} leave?"
        if column == "price" and rng.random() < 0.6:
            question = f"How much is the {name.lower()}?"
        answer = pick(rng, f"The {column} of {name} is {value}.", f"The {column} for {name} is {value}.")
        record.turns.append((question, answer))
    place = rng.choice(places)
    value = rng.choice(rows)[place]
    owners = [row[keyed] for row in rows if row[place] == value]
    question = f"Which {columns[keyed].lower()} has the {columns[place].lower()} {value}?"
    record.turns.append(
        (question, f"{list_all(owners)} {'has' if len(owners) == 1 else 'have'} the {columns[place].lower()} {value}.")
    )
    question = pick(rng, "How many rows are there?", "How many entries does the table have?")
    record.turns.append((question, f"There are {len(rows)} entries." if len(rows) > 1 else "There is 1 entry."))
    other = _COLUMNS[columns[keyed]](rng)
    if other not in [row[keyed] for row in rows]:
        record.turns.append((f"What is the {columns[-1].lower()} of {other}?", f"I see no {other} in the image."))


_HEADINGS = (
    "Summer Concert;Flea Market;Lost Cat;Book Sale;Open Day;Yoga Class;Job Offer;Street Festival;Piano Lessons;"
    "Bike for sale;Room to rent;Movie Night;Save changes?;New message;Garden Party;Spring Sale;Art Exhibition"
).split(";")
_ASKS = {
    "date": ("When is it?", "What is the date?", "On which day is it?"),
    "time": ("What time is it at?", "What is the time?", "When does it start?"),
    "place": ("Where is it?", "What is the place?", "Where does it take place?"),
    "price": ("How much does it cost?", "What is the price?", "How much is it?"),
    "phone number": ("What is the phone number?", "Which number can I call?", "What is the telephone number?"),
    "e-mail address": ("What is the e-mail address?", "What is the email?"),
    "name": ("What is the name of the person?", "Whose name is given?", "Who is the contact?"),
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
        "name": f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
    }


def draw_notice_record(rng: random.Random) -> Record:
    """A poster, a notice, a card or a screen: a heading, and what, when, where and how much."""
    heading = rng.choice(_HEADINGS)
    if rng.random() < 0.4:
        heading = rng.choice((heading.upper(), rng.choice(SIGNS)))
    facts = _draw_facts(rng)
    held = rng.sample(sorted(facts), rng.randint(1, 4))
    ground = rng.choice(("white", "white", "white", *PLATES))
    ink = "black" if ground in ("white", "yellow", "orange", "pink", "gray") else "white"
    texts = [heading, *(rng.choice(_WRITES[what]).format(facts[what]) for what in held)]
    lines = [Line(text, (10, 30.0 * i, 200, 30.0 * i + 20), ink, ground) for i, text in enumerate(texts)]
    record = Record("signs" if ground != "white" else "text", describe((400, 400), lines, []))
    turns = record.turns
    for what in held:
        turns.append((rng.choice(_ASKS[what]), pick(rng, f"The {what} is {facts[what]}.", f"It is {facts[what]}.")))
    for what in rng.sample([each for each in facts if each not in held], 2):
        turns.append(
            (rng.choice(_ASKS[what]), pick(rng, f"I see no {what} in the image.", f"The image shows no {what}."))
        )
    question = pick(rng, "What is the heading?", "What is the title?", "What is this about?")
    turns.append((question, f"The heading is {say(rng, heading)}."))
    given = list_all([f"the {what} {facts[what]}" for what in held])
    turns.append(
        (ask_description(rng), f"The image shows a notice with the heading {say(rng, heading)}. It gives {given}.")
    )
    turns.append(ask_for_text(rng, texts))
    if ground != "white":
        question = pick(rng, "What color is the background?", "What is the color of the background?")
        turns.append((question, f"The background is {ground}."))
    return shorten(rng, record)


MAKERS: dict[str, tuple[float, Callable[[random.Random], Record]]] = {
    "shapes": (0.22, draw_shapes_record),
    "signs": (0.16, draw_sign_record),
    "lines": (0.12, draw_lines_record),
    "form": (0.1, draw_form_record),
    "receipt": (0.12, draw_receipt_record),
    "table": (0.08, draw_table_record),
    "notice": (0.08, draw_notice_record),
    "chart": (0.12, draw_chart_record),
}


def draw_record(rng: random.Random) -> Record:
    """A record of a random kind."""
    kind = rng.choices(list(MAKERS), [share for share, _ in MAKERS.values()])[0]
    return MAKERS[kind][1](rng)
