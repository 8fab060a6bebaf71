"""The grammars of pages and topics: they are read as they say, and what they draw answers from what is shown."""

from __future__ import annotations

import random
import re

import pytest

from llava.scratch.talking import page_grammar, topic_grammar
from llava.scratch.talking.page_grammar import load_pages, make_record, read_pages
from llava.scratch.talking.seen_records import Record
from llava.scratch.talking.topic_grammar import load_topics, read_topics
from llava.scratch.talking.topic_records import make_topic_record
from tests.scratch.test_talking import cells_of, rows_of

PAGE = """
# Of concerts.
list band
The Foxes; Night Owls
Blue Harbour

page concert poster
with band
fact title
> {band} LIVE
? Who is playing?
! {band} is playing.
fact start
> Doors {time} // Stage {time2}
? When do the doors open?
! They open at {time}.
~ The image does not say when the doors open.
fact seats
> {30-60} seats
? How many seats are there?
! There are {30-60} seats.
fact entry
> Free entry
? Does it cost anything?
! No, entry is free.
fact entry
> Entry | {price}
? Does it cost anything?
! Yes, entry is {price}.
"""
TOPIC = """
topic animal sleep
key: animal; animals
names: Horse; Giraffe; Tiger; Sloth; Bat
title: Animal sleep
series: 2022; 2023
? count How many animals are shown?
! count {count} animals are shown.
measure sleep
head: Sleep (h)
range: 2-20
chart: bar pie
? How long does the {key} sleep?
! The {key} sleeps {value} hours.
? > Which sleeps the longest?
! > The {key} sleeps the longest, {value} hours.
? + Which sleeps longer, {key} or {other}?
! + The {key} sleeps longer: {value} against {other_value}.
? s How long did the {key} sleep in {series}?
! s In {series} it was {value} hours.
? s> When did the {key} sleep longest?
! s> In {series}, {value} hours.
measure weight
head: Weight
range: 0.5-9.5
unit: kg
? How heavy is the {key}?
! The {key} weighs {value}.
measure food
head: Food
values: grass; leaves; meat
? What does the {key} eat?
! The {key} eats {value}.
"""

TIMETABLE = """
topic trains
key: train; trains
head: To
names: cities
title: Departures
measure time
head: Departs
clock: 6:05-22:50
? When does the train to {key} leave?
! It leaves at {value}.
? > Which is last?
! > Last comes {key} at {value}.
? < Which is first?
! < First comes {key} at {value}.
measure track
head: Track
values: 1; 2; 3; 4; 5; 6; 7; 8; 9
? Where does it leave for {key}?
! From track {value}.
? y Is track {claim} for {key}?
! y Yes, {key} is track {value}.
! n No, {key} is track {value}.
? @time From which track does the train at {by} leave?
! @time The train at {by} leaves from track {value}.
"""

HEAD = "topic t\nkey: a; b\nnames: x; y; z\ntitle: T\n"
MEASURE = "measure m\nhead: h\nrange: 1-5\nchart: bar\n? How {key}?\n! {value}.\n"


def test_a_page_shows_its_title_and_one_variant_of_a_fact() -> None:
    (page,) = read_pages(PAGE, "test")
    seen = set()
    for seed in range(200):
        record = make_record(random.Random(seed), page, has_faults=False)
        text = " ".join(rows_of(record.description)).lower()
        bands = [band for band in ("the foxes", "night owls", "blue harbour") if f"{band} live" in text]
        assert len(bands) == 1 or "live" not in text
        assert not ("free entry" in text and re.search(r"entry \| ", text))
        for question, answer in record.turns:
            seen.add(question)
            if question == "Does it cost anything?":
                assert answer.startswith("No") == ("free entry" in text)
            if question == "How many seats are there?":
                assert 30 <= int(re.findall(r"\d+", answer)[0]) <= 60
                assert f"{re.findall(r'[0-9]+', answer)[0]} seats" in text
            if question == "When do the doors open?" and "does not say" not in answer:
                assert f"doors {answer.removeprefix('They open at ').rstrip('.').lower()}" in text
            if question == "When do the doors open?" and "does not say" in answer:
                assert "doors" not in text
    assert {"Who is playing?", "When do the doors open?", "Does it cost anything?"} <= seen


def test_a_fault_of_the_reader_leaves_values_as_they_are() -> None:
    (page,) = read_pages(PAGE.replace("{30-60} seats", "Bring {30-60} chairs"), "test")
    texts = [" ".join(rows_of(make_record(random.Random(seed), page).description)).lower() for seed in range(600)]
    assert any("ring " in text and "bring " not in text for text in texts)
    assert any(re.search(r"\| chairs", text) for text in texts)
    assert all(re.search(r"\b([3-5]\d|60)\b", text) for text in texts if "chair" in text or "hairs" in text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("page p\nfact a\n> {nothing}\n", "test:3: there is no slot {nothing}"),
        ("> lost\n", "test:1: '> lost' belongs to no fact"),
        ("page p\nfact a\n> {time}\n? When?\n", "'a' of 'p' needs"),
        ("page p\nfact a\n> Now\n? When?\n! At {time}.\n", "{time} of 'At {time}.' is not in 'Now'"),
        ("page p\nfact a\n> Now\n? At {time}?\n! Now.\n", "{time} of 'At {time}?' is not in 'Now'"),
        ("something else\n", "test:1: 'something else' is none of"),
        ("", "test has no page"),
        ("list x\na; b\n", "test has no page"),
        ("list x\n# none\npage p\nfact a\n> {x}\n? Q?\n! {x}.\n", "test:1: the list 'x' is empty"),
        ("list x\nb\n{x}\npage p\nfact a\n> {x}\n? Q?\n! {x}.\n", "test:3: '{x}' has braces"),
        ("list\na; b\n", "test:1: 'list' has no name"),
        ("page p\nfact\n", "test:2: 'fact' has no name"),
        ("page p\n\npage q\nfact a\n> Now\n? Q?\n! Now.\n", "test:1: 'p' has no fact"),
        ("page p\nwith time nothing\n", "test:2: there is no slot {nothing}"),
        ("page p\nfact a\n> {9-3}\n", "test:3: there is no slot {9-3}"),
        ("page p\nfact a\n> {time\n", "test:3: '{time' has a brace that belongs to no slot"),
        ("page p\nfact a\n> Now\n?\n", "test:4: '? ' has an empty text"),
        ("page p\nfact a\n> a |  | b\n", "test:3: '> a |  | b' has an empty cell"),
        ("page p\nfact a\nlist x\na; b\nfact b\n> Now\noops\n", "test:7: 'oops' is none of"),
        ("page p\r\n\r\nfact a\r\n> {nothing}\r\n", "test:4: there is no slot {nothing}"),
    ],
)
def test_a_wrong_page_is_refused_by_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_pages(text, "test")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("topic t\nkey: a; b\nnames: x\nmeasure m\n? > Which?\n! > {wrong}.\n", "test:6"),
        ("topic t\nkey: a\n", "test:2"),
        ("topic t\nkey: a; b\nnames: x\nmeasure m\nhead: h\nrange: 1-5\n? How?\n", "'m' of 't' has no answer"),
        ("topic t\nkey: a; b\nnames: x\nmeasure m\nhead: h\n? How?\n! So.\n", "lacks a head, values or a question"),
        ("topic t\nkey: a; b\nmeasure m\nhead: h\nrange: 1-5\n? How?\n! So.\n", "lacks a key, names or a measure"),
        ("", "test has no topic"),
        ("key: a; b\n", "test:1: 'key: a; b' cannot be read: it stands before any topic"),
        (f"{HEAD}? How?\n", "test:5: '? How?' cannot be read: it stands before any measure"),
        (f"{HEAD}nonsense\n", "test:5: 'nonsense' cannot be read: it is none of"),
        (f"{HEAD}measure \n", "test:5: 'measure' cannot be read: it has no name"),
        (HEAD.replace("x; y; z", "x; x") + MEASURE, "test:1: 't' needs two names or more, all different"),
        (HEAD.replace("x; y; z", "x") + MEASURE, "test:1: 't' needs two names or more"),
        (f"{HEAD}series: 1\n{MEASURE}", "test:1: 't' needs two series or more"),
        (f"{HEAD}? count How many?\n{MEASURE}", "test:1: 't' has 'count' only as a question"),
        (f"{HEAD}{MEASURE}? How {{other}}?\n", "test:11: '? How {other}?' cannot be read: there is no slot {other}"),
        (f"{HEAD}{MEASURE}? How {{key?\n", "test:11: '? How {key?' cannot be read"),
        (f"{HEAD}{MEASURE}? >\n", "test:11: '? >' cannot be read: it has no text"),
        (HEAD + MEASURE.replace("bar", "bars"), "test:8: 'chart: bars' cannot be read: 'bars' is none of"),
        (HEAD + MEASURE.replace("1-5", "1-inf"), "test:7: 'range: 1-inf' cannot be read"),
        (HEAD + MEASURE.replace("1-5", "5-1"), "test:7: 'range: 5-1' cannot be read"),
        (HEAD + MEASURE.replace("1-5", "-5-5").replace("bar", "pie"), "test:5: 'm' of 't' may be negative"),
        (HEAD + MEASURE.replace("range: 1-5", "values: q; r"), "test:5: 'm' of 't' has words as its values"),
        (HEAD + MEASURE.replace("range: 1-5", "clock: 7-8"), "test:7: 'clock: 7-8' cannot be read"),
        (f"{HEAD}{MEASURE}best: high\n", "test:11: 'best: high' cannot be read"),
        (f"{HEAD}{MEASURE}? y Is it {{claim}}?\n! y Yes.\n", "test:5: 'm' of 't' has no answer '! n'"),
        (f"{HEAD}{MEASURE}? @o Which at {{by}}?\n! @o {{key}}.\n", "test:5: 'm' of 't' asks by 'o'"),
        (HEAD.replace("a; b", "a; b; c").replace("\n", "\r\n"), "test:2: 'key: a; b; c' cannot be read"),
    ],
)
def test_a_wrong_topic_is_refused_by_its_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_topics(text, "test")


def test_a_topic_is_drawn_as_charts_and_tables_and_asked_for_what_they_show() -> None:
    (topic,) = read_topics(TOPIC, "test")
    charts, asked = set(), set()
    for seed in range(300):
        record = make_topic_record(random.Random(seed), topic)
        known = record.description
        chart = re.match(r"Bar chart|Pie chart|Text", known)
        assert chart is not None
        charts.add(chart[0])
        for question, answer in record.turns:
            asked.add(question.split()[0])
            if match := re.fullmatch(r"The (\w+) sleeps (\d+) hours\.", answer):
                assert re.search(rf"(?i)\b{match[1]}( \|.*Sleep \(h\):)? {match[2]}\b", known), answer
            if match := re.fullmatch(r"The (\w+) sleeps the longest, (\d+) hours\.", answer):
                assert re.search(rf"(?i)(Largest|Highest Sleep \(h\)): {match[1]} {match[2]}", known), answer
            if match := re.fullmatch(r"The (\w+) sleeps longer: (\d+) against (\d+)\.", answer):
                assert int(match[2]) >= int(match[3])
            if match := re.fullmatch(r"In (\d+) it was (\d+) hours\.", answer):
                name = re.fullmatch(r"How long did the (\w+) sleep in \d+\?", question)
                assert name is not None
                assert re.search(rf"(?i){name[1]} {match[1]} {match[2]} \(", known)
            if match := re.fullmatch(r"(\w+) is the largest part, (\d+%)\.", answer):
                assert chart[0] == "Pie chart"
                assert f"largest: {match[1]} {match[2]}".lower() in known.lower()
            if match := re.fullmatch(r"The (\w+) eats (\w+)\.", answer):
                row = next(row for row in rows_of(known) if match[1] in row)
                assert match[2] in cells_of(row)
    assert charts == {"Bar chart", "Pie chart", "Text"}
    assert {"How", "Which", "When", "What"} <= asked


def test_a_timetable_is_in_order_and_is_asked_by_its_times_and_whether_it_says_so() -> None:
    (topic,) = read_topics(TIMETABLE, "test")
    asked = set()
    for seed in range(200):
        record = make_topic_record(random.Random(seed), topic)
        head, *rows = [cells_of(row) for row in rows_of(record.description) if "|" in row]
        if "Departs" not in " ".join(head):
            continue
        for question, answer in record.turns:
            asked.add(question.split()[0])
            if match := re.fullmatch(r"The train at (.+) leaves from track (.+)\.", answer):
                assert any(match[1] in row and match[2] in row for row in map(str, rows)), answer
            if match := re.fullmatch(r"First comes (.+) at (.+)\.", answer):
                assert match[1] in str(rows[0])
                assert match[2] in str(rows[0])
            if match := re.fullmatch(r"(Yes|No), (.+) is track (\d+)\.", answer):
                assert (match[1] == "Yes") == (question.lower() == f"is track {match[3]} for {match[2]}?".lower())
    assert {"From", "Which", "Is"} <= asked


def test_where_the_lowest_is_best_it_comes_first() -> None:
    (topic,) = read_topics(TOPIC.replace("unit: kg", "best: low\n? > Which?\n! > {key}."), "test")
    found = 0
    for seed in range(300):
        record = make_topic_record(random.Random(seed), topic)
        for question, answer in record.turns:
            if answer.startswith("From the smallest") and "Sleep" not in question:
                names = answer.removesuffix(".").split(": ")[1].split(", ")
                told = re.search(r"Weight: .*; in order: (.*)\.", record.description)
                assert told is not None
                assert names == [one.split(". ")[1] for one in told[1].split(". Highest")[0].split(", ")][::-1]
                found += 1
    assert found


def test_every_page_of_the_package_tells_the_answers_values() -> None:
    """An answer's words that are no words of the grammar itself come from the page, as it writes them."""
    pages = load_pages()
    assert len(pages) > 20
    for page in pages:
        for fact in page.facts:
            for shown in fact.shows:
                slots = set(re.findall(r"\{[^}]+\}", " ".join((*fact.says, *fact.asks))))
                assert slots <= set(re.findall(r"\{[^}]+\}", shown)) | {f"{{{name}}}" for name in page.shared}
            begins = ("The image does not", "I see no", "I cannot tell", "There is no")
            assert all(lack.startswith(begins) for lack in fact.lacks), fact.lacks


def test_no_two_facts_of_a_page_are_asked_for_in_the_same_words() -> None:
    for page in load_pages():
        names: dict[str, str] = {}
        for fact in page.facts:
            for ask in fact.asks:
                assert names.setdefault(ask.lower(), fact.name) == fact.name, (page.name, ask)


def test_every_topic_of_the_package_has_questions_for_its_charts() -> None:
    topics = load_topics()
    assert len(topics) > 20
    for topic in topics:
        assert topic.titles, topic.name
        assert len(set(topic.names)) == len(topic.names), topic.name
        for measure in topic.measures:
            assert "line" not in measure.charts or topic.is_timed, (topic.name, measure.name)
            assert {kind for kind in measure.asks if not kind.startswith("@")} <= set(topic_grammar.KINDS)
            assert not (measure.values and measure.charts)
    assert page_grammar.SLOTS


def test_grammars_of_any_systems_line_ends_are_the_same() -> None:
    assert read_pages(PAGE.replace("\n", "\r\n"), "test") == read_pages(PAGE, "test")
    assert read_topics(TOPIC.replace("\n", "\r\n"), "test") == read_topics(TOPIC, "test")


def test_an_image_is_asked_for_what_other_pages_tell_only_where_it_shows_nothing_of_that_shape() -> None:
    telling = {
        "price": "Soup 7,80", "phone": "Tel. 555-7584", "mail": "me@here.org", "site": "www.here.org", "percent": "5 %",
        "time": "3 pm", "date": "4 May", "weekday": "Monday", "year": "1994", "person": "Anna Berg",
    }  # fmt: skip
    facts = page_grammar._load_facts_of_shape()
    slot_of = {ask: find_slot(fact) for fact in facts for ask in fact.asks}
    assert set(slot_of.values()) == set(telling)
    for slot, text in telling.items():
        asked = set()
        for seed in range(400):
            record = Record("text", f"Text (1 line):\n1 (last). {text}.")
            page_grammar.ask_of_other_page(random.Random(seed), record)
            asked |= {slot_of[question] for question, _ in record.turns}
        assert slot not in asked
        assert len(asked) > 4, "other slots are asked for"


def find_slot(fact: page_grammar.Fact) -> str:
    [slot] = set(re.findall(r"\{([a-z]+)\d*\}", fact.says[0]))
    return str(slot)
