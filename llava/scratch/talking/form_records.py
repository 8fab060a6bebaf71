"""Records of forms: names of fields and their values, in one line or side by side."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llava.model.lexical.description import describe, join_rows
from llava.model.lexical.nouns import add_article
from llava.scratch.talking.drawn_values import FIELDS
from llava.scratch.talking.seen_records import (
    Line,
    Record,
    ask_description,
    ask_for_option,
    ask_for_text,
    ask_unknown,
    pick,
    place_row,
    say_missing,
)
from llava.synth import words
from llava.text import list_all

_TITLES = ("Registration form", "Order form", "Invoice", "Visitor pass", "Boarding pass", "Profile", "Details")
# Fields of which one answers a question for another.
_ALIKE = (
    {"Name", "Full name", "Owner"},
    {"Phone", "Telephone"},
    {"Street", "Address"},
    {"Date", "Due date", "Date of birth", "Year"},
    {"Price", "Amount", "Balance", "Total"},
    {"Number", "Order number", "Order", "Code", "Invoice", "Score"},
    {"Weight", "Height", "Size"},
    {"Job title", "Class"},
)


def draw_form_record(rng: random.Random) -> Record:
    """A form, a business card or a table of keys and values, of two to nine fields."""
    keys = rng.sample(sorted(FIELDS), rng.randint(2, 9))
    rows = [(key, FIELDS[key](rng)) for key in keys]
    own = words.draw_word(rng, False).title()
    if rng.random() < 0.3 and own not in keys:
        rows[0] = (own, words.draw_content(rng, False, 9))
    title = rng.choice(_TITLES) if rng.random() < 0.5 else ""
    style = rng.randrange(3)
    lines: list[Line] = place_row(0, title) if title else []
    for i, (key, value) in enumerate(rows, 1):
        shown = (f"{key}: {value}",) if style == 0 else (key + (":" if style == 1 else ""), value)
        lines += place_row(i, *shown)
    record = Record("text", describe((400, 300), lines, []))
    _ask_for_values(rng, record, rows)
    _ask_for_missing_field(rng, record, keys)
    what = f"a form with the title {title}" if title else "a form"
    given = list_all([f"the {key.lower()} {value}" for key, value in rows[:4]])
    record.ask(ask_description(rng), f"The image shows {what}. It gives {given}.")
    record.ask(*ask_for_text(rng, join_rows(lines)))
    if title:
        question = pick(rng, "What is the title?", "What is the heading?", "What kind of document is this?")
        record.ask(question, f"The title is {title}.")
    ask_unknown(rng, record, rate=0.2)
    return record.shorten(rng)


def _ask_for_values(rng: random.Random, record: Record, rows: Sequence[tuple[str, str]]) -> None:
    for key, value in rng.sample(rows, min(3, len(rows))):
        lower = key if key.isupper() else key[0].lower() + key[1:]
        question = pick(
            rng, "What is the {}?", "What is the value of {}?", "What does it say for {}?", "Which {} is given?", "{}?"
        )
        answer = pick(rng, f"The {lower} is {value}.", f"{key}: {value}.", f"It is {value}.")
        record.ask(question.format(key if rng.random() < 0.6 else lower), answer)
    key, value = rng.choice(rows)
    ask_for_option(rng, record, f"What is the {key}?", value, [other for _, other in rows])
    if [other for _, other in rows].count(value) == 1:
        record.ask(f"Which field has the value {value}?", f"The field {key} has the value {value}.")


def _ask_for_missing_field(rng: random.Random, record: Record, keys: Sequence[str]) -> None:
    answered = set(keys).union(*(group for group in _ALIKE if group & set(keys)))
    known = record.description.lower()
    missing = rng.choice([key for key in FIELDS if key not in answered and key.lower() not in known]).lower()
    question = pick(rng, f"What is the {missing}?", f"Which {missing} is given?", f"Can you tell me the {missing}?")
    record.ask(question, say_missing(rng, missing))
    record.ask(f"Is there {add_article(missing)}?", f"No, I see no {missing}.")
