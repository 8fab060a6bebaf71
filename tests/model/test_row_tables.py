"""Cells of tables are told with their columns' names, and the highest and the lowest of what is counted is named."""

from __future__ import annotations

import pytest

from llava.model.lexical.description import MAX_CHARACTERS, describe
from llava.model.lexical.row_tables import find_extremes, label_cells, list_order
from llava.scratch.talking.seen_records import place_row

TIMES = [["Time", "Destination", "Platform"], ["8:32", "Bremen", "7"], ["9:05", "Ulm", "12"]]


def test_cells_below_a_head_have_their_columns_names() -> None:
    around = [["Departures"], *TIMES, ["Have a nice day"]]
    assert label_cells(around) == [
        ["Departures"],
        ["Time", "Destination", "Platform"],
        ["Time: 8:32", "Destination: Bremen", "Platform: 7"],
        ["Time: 9:05", "Destination: Ulm", "Platform: 12"],
        ["Have a nice day"],
    ]


def test_a_head_may_hold_a_unit_and_a_value_is_no_head() -> None:
    rows = [["per 100 g", "Bar A", "Q2"], ["Energy", "412", "385"], ["Fat", "17.5", "11.2"]]
    assert label_cells(rows)[2] == ["per 100 g: Fat", "Bar A: 17.5", "Q2: 11.2"]
    assert label_cells([["Tea", "2 kg", "Milk"], *rows[1:]])[1] == rows[1]


def test_a_row_of_as_many_cells_above_the_head_is_not_the_head() -> None:
    assert label_cells([["Gate 1", "Hall", "East"], *TIMES])[2] == ["Time: 8:32", "Destination: Bremen", "Platform: 7"]


@pytest.mark.parametrize(
    ("rows", "labelled", "extremes"),
    [
        (
            [["Swimmer", "Seconds"], ["Nils", "58.4"], ["Amara", "56.9"]],
            [["Swimmer: Nils", "Seconds: 58.4"], ["Swimmer: Amara", "Seconds: 56.9"]],
            ["Highest Seconds: Nils 58.4; lowest: Amara 56.9."],
        ),
        (
            [["Month", "Book", "Host"], ["May", "Emma", "Victor"], ["June", "Dune", "Rosa"]],
            [["Month: May", "Book: Emma", "Host: Victor"], ["Month: June", "Book: Dune", "Host: Rosa"]],
            [],
        ),
        (
            [["A", "B"], ["1", "Item", "Count"], ["2", "Bolts", "90"], ["3", "Nuts", "64"]],
            [["1", "Item", "Count"], ["2", "Item: Bolts", "Count: 90"], ["3", "Item: Nuts", "Count: 64"]],
            ["Highest Count: Bolts 90; lowest: Nuts 64."],
        ),
        ([["Time", "Room", "Day"], ["9 am", "B", "1"], ["8 am", "A", "2"]], None, []),
        (
            [["Town", "2010", "2020"], ["Kelso", "48", "44"], ["Marl", "35", "39"]],
            [["Town: Kelso", "2010: 48", "2020: 44"], ["Town: Marl", "2010: 35", "2020: 39"]],
            ["Highest 2010: Kelso 48; lowest: Marl 35.", "Highest 2020: Kelso 44; lowest: Marl 39."],
        ),
        (
            [["King", "1760", "1820"], ["George", "1820", "1830"], ["William", "1830", "1837"]],
            [["George", "1820", "1830"], ["William", "1830", "1837"]],
            [],
        ),
        (
            [
                ["Plant", "Sow in", "Harvest in"],
                ["Radish", "March", "May"],
                ["Beans", "May", "August"],
                ["Kale", "June", "November"],
            ],
            [
                ["Plant: Radish", "Sow in: March", "Harvest in: May"],
                ["Plant: Beans", "Sow in: May", "Harvest in: August"],
                ["Plant: Kale", "Sow in: June", "Harvest in: November"],
            ],
            [],
        ),
        (
            [
                ["Oil change", "55.00"],
                ["Card game", "8.50"],
                ["Wipers", "18.00"],
                ["Card ****1234", "81.50"],
                ["To pay", "81.50"],
                ["Change", "0.00"],
                ["Shipping", "5.00"],
                ["Credit card", "3.00"],
            ],
            None,
            [
                "Highest price: Oil change 55.00; lowest: Card game 8.50; "
                "in order: 1. Oil change, 2. Wipers, 3. Card game."
            ],
        ),
    ],
)
def test_tables_of_known_heads_and_spreadsheets_are_labelled(
    rows: list[list[str]], labelled: list[list[str]] | None, extremes: list[str]
) -> None:
    assert labelled is None or label_cells(rows)[1:] == labelled
    assert list(map(str, find_extremes(rows))) == extremes


def test_choices_are_no_head_and_a_box_before_a_head_is_no_part_of_its_name() -> None:
    choices = [["Smoker?", "[x] Yes", "[ ] No"], ["Driver?", "[ ] Yes", "[x] No"], ["Adult?", "[x] Yes", "[ ] No"]]
    assert label_cells(choices) == choices
    files = [["[ ] File", "Size", "Date"], ["[x] a.txt", "12 kB", "1 May"], ["[ ] b.png", "3 MB", "2 May"]]
    assert label_cells(files)[1] == ["File: [x] a.txt", "Size: 12 kB", "Date: 1 May"]


def test_a_price_below_what_it_is_for_or_before_it_is_told_with_it() -> None:
    grid = [["Cocoa", "Latte"], ["4.10", "4.90"], ["Tea"], ["2.00"], ["Total"], ["11.00"]]
    assert label_cells(grid)[1::2] == [["Cocoa: 4.10", "Latte: 4.90"], ["Tea: 2.00"], ["Total: 11.00"]]
    [found] = find_extremes(grid)
    assert str(found) == "Highest price: Latte 4.90; lowest: Tea 2.00; in order: 1. Latte, 2. Cocoa, 3. Tea."
    assert label_cells([["Tea 2.00"], ["3.00"], ["12:30"], ["4.00"]])[1::2] == [["3.00"], ["4.00"]]
    [found] = find_extremes([["1.90", "One scoop"], ["3.40", "Two scoops"], ["4.80", "Three"]])
    assert (found.highest, found.lowest) == (("Three", "4.80"), ("One scoop", "1.90"))


@pytest.mark.parametrize(
    "rows",
    [
        [["Name", "Anna"], ["City", "Oslo"], ["Room", "102"]],  # a form
        [["8:32", "Bremen", "7"], ["9:05", "Ulm", "12"], ["9:30", "Kiel", "3"]],  # no head
        [["Save", "Open", "Close"], ["Back", "Next", "Help"], ["Cut", "Copy", "Paste"]],  # nothing with digits
        [["Time", "Destination", "Platform"], ["8:32", "Bremen", "7"]],  # one row
        [["Time", "Destination", "Platform"], ["8:32", "Bremen"], ["9:05", "Ulm"]],
        [["Tea", "Tea", "Milk"], ["1", "2", "3"], ["4", "5", "6"]],  # names that do not tell columns apart
    ],
)
def test_what_is_no_table_with_a_head_stays_as_it_is(rows: list[list[str]]) -> None:
    assert label_cells(rows) == rows
    assert find_extremes(rows) == []


def test_a_row_that_lacks_a_cell_finds_its_columns_by_their_places() -> None:
    spans = [[(0, 40), (100, 190), (200, 290)], [(0, 40), (100, 170), (200, 210)], [(2, 42), (100, 130)]]
    spans += [[(0, 40), (205, 220)]]
    rows = [*TIMES[:2], ["9:05", "Ulm"], ["9:30", "3"]]
    labelled = label_cells([*rows, TIMES[2], TIMES[2]], [*spans, spans[0], spans[0]])
    assert labelled[2:4] == [["Time: 9:05", "Destination: Ulm"], ["Time: 9:30", "Platform: 3"]]
    assert label_cells([*rows, TIMES[2], TIMES[2]])[2:4] == rows[2:]  # nothing tells where they stand
    assert label_cells(rows[:3], [spans[0], spans[1], [(100, 120), (150, 180)]])[2] == rows[2]  # both in one column


def test_numbers_in_columns_are_compared_and_times_are_not() -> None:
    assert [str(each) for each in find_extremes(TIMES)] == ["Highest Platform: Ulm 12; lowest: Bremen 7."]
    weather = [["City", "Temperature", "Rain"], ["Oslo", "-4 °C", "3 mm"], ["Lima", "19 °C", "3 mm"]]
    assert [str(each) for each in find_extremes(weather)] == ["Highest Temperature: Lima 19 °C; lowest: Oslo -4 °C."]
    sold = [["Product", "Sold", "Price"], ["Table", "1,200", "$149.00"], ["Chair", "950", "$59.50"]]
    assert [str(each) for each in find_extremes(sold)] == [
        "Highest Sold: Table 1,200; lowest: Chair 950.",
        "Highest Price: Table $149.00; lowest: Chair $59.50.",
    ]


def test_a_sign_counts_before_and_after_a_currency() -> None:
    rows = [["Day", "Shop", "Change"], ["Mon", "Ulm", "$-30"], ["Tue", "Jena", "-$7"], ["Wed", "Bonn", "$5"]]
    (found,) = find_extremes(rows)
    assert str(found) == "Highest Change: Wed $5; lowest: Mon $-30; in order: 1. Wed, 2. Tue, 3. Mon."


def test_amounts_in_several_units_are_not_compared() -> None:
    weights = ["5 kg", "300 g", "1 t"]
    rows = [
        ["Name", "City", "Weight"],
        *([name, "Ulm", weight] for name, weight in zip(("Dog", "Ant", "Cow"), weights, strict=True)),
    ]
    assert find_extremes(rows) == []
    rows[2][2] = "3 kq"  # as a reader may read it
    rows[3][2] = "12 kg"
    assert str(find_extremes(rows)[0]).startswith("Highest Weight: Cow 12 kg; lowest: Ant 3 kq")


def test_whole_prices_are_prices_by_their_currency() -> None:
    rows = [["Noodle Corner"], ["Ramen", "$9"], ["Udon", "$8"], ["$12", "Pad thai"], ["Table 5"], ["Open since 1998"]]
    told = "Highest price: Pad thai $12; lowest: Udon $8; in order: 1. Pad thai, 2. Ramen, 3. Udon."
    assert list(map(str, find_extremes(rows))) == [told]
    assert find_extremes([["Ramen", "9"], ["Udon", "8"], ["Pad thai", "12"]]) == []


def test_prices_of_a_list_are_compared_without_its_sums() -> None:
    rows = [["The Inn"], ["Soup ....", "5.80"], ["Trout . . .", "15.80"], ["2 x Tea 2.40"], ["Total", "24.00"]]
    told = "Highest price: Trout 15.80; lowest: Tea 2.40; in order: 1. Trout, 2. Soup, 3. Tea."
    assert [str(each) for each in find_extremes(rows)] == [told]
    assert find_extremes(rows[:3]) == []  # two prices
    assert find_extremes([["Fat (g)", "17.5", "11.2"], ["Sugar (g)", "33.0", "41.6"], ["Salt (g)", "0.4", "0.7"]]) == []
    assert find_extremes([["Soup", "5.80"], ["Trout", "5.80"], ["Tea", "5.80"]]) == []


def test_a_table_that_does_not_fit_with_its_columns_names_is_told_without_them() -> None:
    head = ["Name of the station", "Number of passengers", "Minutes of delay"]
    rows = [head, *([f"Station {'abcdefghijklmnopq'[i]}", str(100 + i), str(i)] for i in range(17))]
    lines = [line for y, row in enumerate(rows) for line in place_row(y, *row)]
    text = describe((400, 900), lines, [])
    assert "18 (last). Station q | 116 | 16" in text
    assert "Name of the station:" not in text
    assert len(text) < MAX_CHARACTERS + 200
    assert text.endswith("Highest Minutes of delay: Station q 16; lowest: Station a 0.")


def test_the_last_of_several_lines_is_called_so() -> None:
    lines = [line for y, text in enumerate(("OPEN", "Monday")) for line in place_row(y, text)]
    assert describe((400, 300), lines, []) == "Text (2 lines):\n1. OPEN\n2 (last). Monday\nIt says: OPEN Monday"
    assert describe((400, 300), lines[:1], []) == "Text (1 line):\n1. OPEN"


def test_names_are_ranked_by_their_sizes_where_they_are_neither_few_nor_many() -> None:
    assert list_order(["Ulm", "Jena", "Bonn", "Kiel"], [3, 9, 3, -1]) == (
        "; in order: 1. Jena, 2. Ulm, 2. Bonn, 4. Kiel"
    )
    assert list_order(["Ulm", "Jena"], [3, 9]) == ""
    assert list_order([str(i) for i in range(10)], list(range(10))) == ""


def test_a_spreadsheet_s_empty_rows_and_its_totals_are_no_entries() -> None:
    rows = [("A", "B"), ("1", "Item", "Jan"), ("2", "Rent", "800"), ("3", "Food", "310"), ("4", "Fuel", "95")]
    rows += [("5", "Total", "1205"), ("6",), ("7",)]
    text = describe((900, 900), [line for y, row in enumerate(rows) for line in place_row(y, *row)], [])
    assert "6 (last). 5 | Item: Total | Jan: 1205" in text
    assert "Highest Jan: Rent 800; lowest: Fuel 95; in order: 1. Rent, 2. Food, 3. Fuel." in text
    numbers = [line for y, row in enumerate((("7",), ("8",))) for line in place_row(y, *row)]
    assert "2 (last). 8" in describe((900, 900), numbers, [])


@pytest.mark.parametrize("head", [["2019", "2020", "2021"], ["Jan", "Feb", "Mar"], ["Adult", "Child"]])
def test_a_head_may_begin_above_the_second_column(head: list[str]) -> None:
    names, count = ["Ulm", "Jena", "Bonn"], len(head)
    rows = [head, *([name, *(str(10 * i + j) for j in range(count))] for i, name in enumerate(names, 1))]
    spans = [[(100.0 * x + 110, 100.0 * x + 150) for x in range(count)]]
    spans += [[(10.0, 60.0), *((100.0 * x + 120, 100.0 * x + 150) for x in range(count))] for _ in names]
    labelled = label_cells(rows, spans)
    assert labelled[0] == head
    assert labelled[2] == ["Jena", *(f"{name}: {20 + j}" for j, name in enumerate(head))]
    assert str(find_extremes(rows, spans)[0]).startswith(f"Highest {head[0]}: Bonn 30; lowest: Ulm 10")
    # A head that stands above the first columns leaves the last one out, and is none of the others.
    shifted = [[(x0 - 100, x1 - 100) for x0, x1 in spans[0]], *spans[1:]]
    assert label_cells(rows, shifted) == rows
