"""Names that stand above their values are told with them; what only looks a little like it stays as it was."""

from __future__ import annotations

from typing import Any

import pytest

from llava.model.lexical.description import describe
from llava.model.lexical.stacked_labels import join_stacked
from tests.model.seen_lines import Line

FIELDS = [("First name", "Hannah"), ("E-mail", "hannah@okafor.net"), ("City", "Lisbon")]


def place(text: str, left: float, top: float, height: float = 16, ink: str = "black") -> Line:
    return Line(text, (left, top, left + 0.6 * height * len(text), top + height), ink)


def stack(
    pairs: list[tuple[str, str]], *, sizes: tuple[float, float] = (16, 16), gaps: tuple[float, float] = (12, 20),
    indent: float = 0, inks: tuple[str, str] = ("black", "black"),
) -> list[list[Line]]:  # fmt: skip
    """Rows of one line: each name, ``gaps[0]`` px below it its value, and ``gaps[1]`` px below that the next name."""
    rows, top = [], 40.0
    for name, value in pairs:
        rows.append([place(name, 40, top, sizes[0], inks[0])])
        top += sizes[0] + gaps[0]
        rows.append([place(value, 40 + indent, top, sizes[1], inks[1])])
        top += sizes[1] + gaps[1]
    return rows


def read(rows: list[list[Line]]) -> list[str]:
    return [" | ".join(line.text for line in row) for row in join_stacked(rows)]


@pytest.mark.parametrize(
    "look", [{"sizes": (14, 20)}, {"sizes": (20, 14)}, {"indent": 12}, {"inks": ("gray", "black")}], ids=str
)
def test_a_name_is_told_with_what_stands_below_it(look: dict[str, Any]) -> None:
    title = [place("Registration", 40, 0, 28)]
    assert read([title, *stack(FIELDS, **look)]) == ["Registration", *(f"{name}: {value}" for name, value in FIELDS)]


def test_entries_of_two_lines_are_told_in_one() -> None:
    settings = [("Language", "English (UK)"), ("Time zone", "Europe/Berlin"), ("Theme", "Dark")]
    assert read(stack(settings, gaps=(8, 40))) == [f"{name}: {value}" for name, value in settings]


def test_colons_show_what_is_a_name() -> None:
    assert read(stack([("Name:", "Olga"), ("Valid until:", "March 2027")])) == ["Name: Olga", "Valid until: March 2027"]


def test_names_side_by_side_have_the_values_below_them() -> None:
    rows: list[list[Line]] = []
    cells = [[("GATE", "B7"), ("SEAT", "14C"), ("DATE", "12 May")], [("FROM", "Oslo"), ("Ticket no.", "77")]]
    for y, row in enumerate(cells):
        rows.append([place(name, 40 + 200 * x, 100 * y, 14) for x, (name, _) in enumerate(row)])
        rows.append([place(value, 38 + 200 * x, 100 * y + 24, 26) for x, (_, value) in enumerate(row)])
    assert read(rows) == ["GATE: B7 | SEAT: 14C | DATE: 12 May", "FROM: Oslo | Ticket no.: 77"]
    # They are no head of a table, although three rows of as many cells would be one.
    told = describe((900, 400), [line for row in rows for line in row], [])
    assert told.endswith("1. GATE: B7 | SEAT: 14C | DATE: 12 May\n2 (last). FROM: Oslo | Ticket no.: 77")


def test_a_number_above_what_it_counts_is_told_after_it() -> None:
    cards = [[place(text, 40 + 200 * x, 40 * y, 30 - 16 * y) for x, text in enumerate(row)]
             for y, row in enumerate((["72 %", "18 °C", "1013"], ["Humidity", "Temperature", "Pressure"]))]  # fmt: skip
    assert read([[line._replace(text=f"{line.text[:1]} km") for line in cards[0]], cards[1]]) == [
        "Humidity: 7 km | Temperature: 1 km | Pressure: 1 km"
    ]
    assert read(cards) == ["Humidity: 72 % | Temperature: 18 °C | Pressure: 1013"]
    assert read(stack([("412", "Followers"), ("87", "Posts")], sizes=(30, 14))) == ["Followers: 412", "Posts: 87"]


def test_gray_is_read_as_black_now_and_then_and_values_have_colors() -> None:
    rows = stack([("Carrier", "DHL"), ("Status", "late"), ("Order", "B-7")], sizes=(14, 20))
    inks = ("gray", "black", "black", "red", "gray", "green")
    rows = [[line._replace(ink=ink)] for [line], ink in zip(rows, inks, strict=True)]
    assert read(rows) == ["Carrier: DHL", "Status: late", "Order: B-7"]


def test_what_a_sign_says_is_told_as_it_stands_there() -> None:
    rows = stack([("Airport", "Terminal 1"), ("Hotel", "2 km")], sizes=(30, 16))
    told = describe((400, 300), [line for row in rows for line in row], [])
    assert told.splitlines() == [
        "Text (2 lines):", "1. Airport: Terminal 1", "2 (last). Hotel: 2 km", "It says: Airport Terminal 1 Hotel 2 km",
    ]  # fmt: skip


@pytest.mark.parametrize("second", [["Ben", "Rome", "27"], ["Ben", "27"]], ids=len)
def test_a_head_stays_with_its_table(second: list[str]) -> None:
    texts = (["Name", "City", "Age"], ["Ann", "Oslo", "31"], second, ["Eva", "Bonn", "45"])
    rows = [[place(text, 40 + 200 * x, 40 * y, 20 if y else 14) for x, text in enumerate(row)]
            for y, row in enumerate(texts)]  # fmt: skip
    assert join_stacked(rows) == rows
    assert read(rows[:2]) == ["Name: Ann | City: Oslo | Age: 31"]


@pytest.mark.parametrize(
    "rows",
    [
        stack(FIELDS),  # nothing shows which line belongs to which
        stack(FIELDS[:1], sizes=(14, 20)),  # a title and what it is about
        stack([("Please keep the door", "closed at night"), ("Do not feed", "the ducks")] * 2, gaps=(8, 40)),
        stack([("Rules of this house", "Nobody is to leave the kitchen before all of the dishes are washed")] * 2,
              sizes=(24, 14)),
        stack([("The boats go out", "upon the tide"), ("The gulls come in", "to rest")], indent=30),
        stack([("Opening hours", "We are glad to see you"), ("Parking", "There is none near us")], sizes=(24, 14)),
        stack([("1969", "Moon landing"), ("1989", "Fall of the wall")], sizes=(24, 14)),
        stack([("$9", "per month"), ("$20", "a year")], sizes=(30, 14)),
        stack([("12", "May"), ("3", "June")], sizes=(30, 14)),
        stack([("Milk.", "Bread"), ("Eggs.", "Butter")], sizes=(14, 20)),
        # Prices below what they are for are told and compared by what reads tables.
        [[place(text, 40 + 200 * x, 40 * y, 14 + 6 * (y % 2)) for x, text in enumerate(row)]
         for y, row in enumerate((["Taco", "Soup"], ["4.50", "5.20"], ["Tea", "Rice"], ["2.90", "3.10"]))],
        [[place("Name", 40, 0), place("City", 300, 0)], [place("Ann", 40, 40)], [place("Age", 40, 80)]],
    ],
)  # fmt: skip
def test_other_rows_stay_as_they_are(rows: list[list[Line]]) -> None:
    assert join_stacked(rows) == rows
