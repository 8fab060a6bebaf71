"""Tables in rows of text: each cell told with its column's name, and what is highest and lowest in a column.

A small language model copies "Platform: 7" from the row that names Bremen; it does not count columns up to the head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

# A head and this many rows below it, with as many cells each, are a table.
_LEAST_ROWS = 2
_LEAST_COLUMNS = 3
# So many rows of words alone, in so many columns, are a table where but one cell of the head is a known one.
_LEAST_ROWS_OF_WORDS = 3
# What heads a column, in tables of two columns and in those without numbers, which are otherwise taken for plain text.
_HEADS = re.compile(
    r"(?i)(.* )?(name|day|date|time|month|year|week|city|town|country|place|room|teacher|subject|class|course|team"
    r"|player|group|person|student|member|item|product|article|price|cost|amount|quantity|qty|number|no\.?|count|total"
    r"|points?|score|goals|wins|rank|grade|mark|age|height|weight|length|width|size|distance|speed|seconds|minutes|hours"
    r"|days|weeks|temperature|degrees|euros?|dollars?|pounds|percent|share|votes|visitors|sales|stock|shelf|book|author"
    r"|host|guest|coach|driver|dish|drink|animal|river|mountain|language|currency|buy|sell|from|to|track|gate|platform"
    r"|status|destination|departure|arrival|floor|department|job|role|color|colour|kind|type|code|phone|email|km|kg|cm"
    r"|morning|afternoon|evening|monday|tuesday|wednesday|thursday|friday|calories|kcal|protein|fat|sugar|income|costs"
    r"|expenses|spent|budget|population|area|pages|seats|rooms|orders|rating|salary|duration|won|lost|drawn|played|high"
    r"|jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sep(tember)?|oct(ober)?|nov(ember)?"
    r"|dec(ember)?|q[1-4]|sum|low|min|max|start|end|adult|child|small|medium|large|single|double|return)"
    r"( ?\(.*\))?"
)
# So many prices in a list are compared, and so many columns of a table.
_LEAST_PRICES = 3
_MOST_COMPARED = 3
# So many names are told in the order of their numbers.
_LEAST_RANKED, _MOST_RANKED = 3, 9
# A longer row is no item with its price.
_MOST_CHARACTERS = 80

_AMOUNT = re.compile(r"[-+$€£¥]{0,2} ?(\d{1,3}(?:[,' ]\d{3})+|\d+)([.,]\d+)? ?(?:[$€£¥%°]|°[CF]|[a-zA-Z]{1,3})?")
# Of amounts in several of these, the larger number is not the larger amount.
_UNITS = frozenset("mg g kg t oz lb mm cm m km ml cl l ms s min h B kB KB MB GB TB W kW MW".split())
_YEAR = re.compile(r"(1[5-9]|20)\d\d")
# Months and days of the week head columns of numbers, and are no head of each other.
_CALENDAR = re.compile(
    r"(?i)(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?"
    r"|dec(ember)?|(mon|tues?|wed(nes)?|thu(rs)?|fri|sat(ur)?|sun)(day)?)\.?"
)
# Columns of which nothing is the highest.
_MOMENT = re.compile(r"(?i)time|date|day")
_PRICE = re.compile(r"[$€£¥]? ?\d{1,4}[.,]\d\d ?(?:[$€£¥]|EUR|USD|GBP|CHF)?|[$€£¥] ?\d{1,4}|\d{1,4} ?[$€£¥]")
_PRICE_AT_END = re.compile(
    r"(?:\d+ ?x )?(.*?)[ .:]*([$€£¥]? ?\d{1,4}[.,]\d{1,2} ?[$€£¥]?|[$€£¥] ?\d{1,4}|(?<=\s)\d{1,4} ?[$€£¥])"
)
# Amounts beside these are no prices of items: wherever they stand, or as the whole name, as "oil change" is an item.
_SUMS = re.compile(
    r"(?i)\b(sub ?-?total|total|tax|vat|mwst|cash|visa|mastercard|amex|due|amount|paid|balance|discount|rounding|given"
    r"|summe|gesamt)\b"
    r"|^(credit |debit |bank |by )?(card|change|credit|debit|tip|sum|(to|you) pay|payment|shipping|delivery|postage"
    r"|service|tel|phone|date|time)( (payment|back|charge|fee|costs?|ending|no|number)\b)?(\s*([^\w\s]|\d).*)?$"
)

# A box to tick before the first column stands beside each row; before others it is a choice, and no head.
_MARK = re.compile(r"\[[x ]\] ")
# Rows of tables that are called so are no entries.
_WHOLE = re.compile(r"(?i)(grand )?totals?|sum|subtotal|average|mean|all")

Span = tuple[float, float]


class Extremes(NamedTuple):
    """The highest and the lowest in a column: what it counts, and each one's name and number as they are written.

    ``order``: all of its names as ``list_order`` tells them.
    """

    what: str
    highest: tuple[str, str]
    lowest: tuple[str, str]
    order: str = ""

    def __str__(self) -> str:
        return f"Highest {self.what}: {' '.join(self.highest)}; lowest: {' '.join(self.lowest)}{self.order}."


def list_order(names: Sequence[str], sizes: Sequence[float]) -> str:
    """Three to nine names by their sizes: "; in order: 1. Ulm, 2. Bremen, 2. Jena"; "" for fewer and for more.

    Two ranks are compared more easily than two numbers, by a model that compares neither well.
    """
    if not _LEAST_RANKED <= len(names) <= _MOST_RANKED:
        return ""
    falling = sorted(sizes, reverse=True)
    ranked = sorted(zip(names, sizes, strict=True), key=lambda pair: -pair[1])
    return "; in order: " + ", ".join(f"{falling.index(size) + 1}. {name}" for name, size in ranked)


def label_cells(rows: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]] = ()) -> list[list[str]]:
    """The rows' cells, those below the head of a table as "Time: 8:32"; all others as they are.

    A price below what it is for is told as one in a table. In a spreadsheet, the numbers of rows stay what they are.

    ``spans``: where each cell begins and ends, px, by which rows with fewer cells than the head find their columns.
    """
    sheet = _open_sheet(rows)
    if sheet is not None:
        labelled = label_cells(*_cut_sheet(sheet, rows, spans))
        return [*map(list, rows[:sheet]), list(rows[sheet]),
                *([row[0], *cells] for row, cells in zip(rows[sheet + 1 :], labelled, strict=True))]  # fmt: skip
    labelled = [list(row) for row in rows]
    tables = _find_tables(rows, spans)
    for table in tables:
        for row, columns in zip(labelled[table.start + 1 :], table.columns, strict=False):
            heads = [table.head[column] for column in columns]
            row[:] = [f"{head}: {cell}" if head else cell for head, cell in zip(heads, row, strict=True)]
    for i in _find_prices_below(rows, tables):
        labelled[i] = [f"{name}: {price}" for name, price in zip(rows[i - 1], rows[i], strict=True)]
    return labelled


def find_extremes(rows: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]] = ()) -> list[Extremes]:
    """What is highest and lowest in the columns of tables, and among the prices of a list that is none.

    ``spans`` as in ``label_cells``.
    """
    sheet = _open_sheet(rows)
    if sheet is not None:
        return find_extremes(*_cut_sheet(sheet, rows, spans))
    found = []
    tables = _find_tables(rows, spans)
    for table in tables:
        below = rows[table.start + 1 : table.start + 1 + len(table.columns)]
        found += _compare_columns(table.head, list(map(_fill, below, table.columns)))
    if not tables:
        prices = [pair for pair in map(_find_price, rows) if pair is not None]
        for i in _find_prices_below(rows, tables):
            prices += [pair for pair in zip(rows[i - 1], rows[i], strict=True) if not _SUMS.search(pair[0])]
        if len(prices) >= _LEAST_PRICES:
            found += _compare("price", [name for name, _ in prices], [price for _, price in prices])
    return found


def is_date_word(text: str) -> bool:
    """Whether a text is a month or a day of the week."""
    return _CALENDAR.fullmatch(text.strip()) is not None


def are_prices(row: Sequence[str]) -> bool:
    """Whether all cells of a row are prices."""
    return all(_PRICE.fullmatch(cell.strip()) for cell in row)


def count_filled(rows: Sequence[Sequence[str]]) -> int:
    """How many rows there are but for the empty ones at the end of a spreadsheet, which have nothing but a number."""
    filled = len(rows)
    while filled > 0 and len(rows[filled - 1]) == 1 and rows[filled - 1][0].isdigit():
        filled -= 1
    return filled if filled < len(rows) and _open_sheet(rows[:filled]) is not None else len(rows)


def _open_sheet(rows: Sequence[Sequence[str]]) -> int | None:
    """The row of a spreadsheet's letters, below which the first cells count rows; None where there is none."""
    for i, row in enumerate(rows[:-1]):
        if list(row) == [chr(ord("A") + n) for n in range(len(row))] and len(rows) - i > _LEAST_ROWS:
            numbers = [below[0] if len(below) > 1 else "" for below in rows[i + 1 :]]
            return i if numbers == [str(n) for n in range(1, len(numbers) + 1)] else None
    return None


def _cut_sheet(
    sheet: int, rows: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]]
) -> tuple[list[Sequence[str]], list[Sequence[Span]]]:
    """The rows below a spreadsheet's letters, and their spans, without their numbers."""
    return [row[1:] for row in rows[sheet + 1 :]], [row[1:] for row in spans[sheet + 1 :]]


def _find_prices_below(rows: Sequence[Sequence[str]], tables: Sequence[_Table]) -> list[int]:
    """The numbers of the rows that are prices of what is in the row above; none for a single price."""
    within = {i for table in tables for i in range(table.start, table.start + 1 + len(table.columns))}
    found = [
        i
        for i in range(1, len(rows))
        if len(rows[i]) == len(rows[i - 1])
        and not within & {i - 1, i}
        and are_prices(rows[i])
        and all(any(map(str.isalpha, cell)) and not _PRICE_AT_END.fullmatch(cell) for cell in rows[i - 1])
    ]
    return found if sum(len(rows[i]) for i in found) > 1 else []


class _Table(NamedTuple):
    """The number of a table's head, the columns of the cells of each row below it, and what these are called.

    The first column's name is "" where the corner of the table is empty.
    """

    start: int
    columns: list[list[int]]
    head: list[str]


def _find_tables(rows: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]]) -> list[_Table]:
    tables: list[_Table] = []
    start = 0
    while start < len(rows):
        table = _open_table(rows, spans, start)
        if table is not None:
            tables.append(table)
        start += 1 if table is None else 1 + len(table.columns)
    return tables


def _open_table(rows: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]], start: int) -> _Table | None:
    """The table whose head is a row; None if it is no head."""
    head, head_spans = _complete_head(rows, spans, start)
    are_known = [_HEADS.fullmatch(cell) is not None for cell in head]
    is_known = sum(are_known) > 1 or (len(head) == _LEAST_COLUMNS - 1 and are_known[-1])
    if len(head) < _LEAST_COLUMNS - is_known or len({cell.lower() for cell in head}) < len(head):
        return None
    if any(map(_MARK.match, head[1:])):
        return None
    head[0] = _MARK.sub("", head[0])
    named = head if head[0] else head[1:]
    if not all(map(_is_heading, head[: bool(head[0])] if _are_years(head[1:]) else named)):
        return None
    every = list(range(len(head)))
    columns: list[list[int]] = []
    for i in range(start + 1, len(rows)):
        if len(rows[i]) == len(head):
            columns.append(every)
        elif spans and 1 < len(rows[i]) < len(head) and (found := _assign(head_spans, spans[i])) is not None:
            columns.append(found)
        else:
            break
    whole = [row for row, own in zip(rows[start + 1 :], columns, strict=False) if own == every]
    if len(columns) < _LEAST_ROWS or 2 * len(whole) < len(columns):
        return None
    below = list(zip(*whole, strict=True))
    if any(map(_are_alike, head, below)):
        return None
    heads_dates = any(all(map(_CALENDAR.fullmatch, cells)) for cells in below)
    is_known = is_known or ((any(are_known) or heads_dates) and len(whole) >= _LEAST_ROWS_OF_WORDS)
    has_numbers = any(all(map(_has_digit, cells)) for cells in below)
    # A name with a digit, such as "Q2", heads numbers or plain names, and nothing that is written like it.
    are_apart = all(
        not _has_digit(cell) or not any(_has_digit(other) and _is_heading(other) for other in cells)
        for cell, cells in zip(head, below, strict=True)
    )
    if len(head) < _LEAST_COLUMNS and not all(_read_amount(cell) is not None for cell in below[-1]):
        return None
    return _Table(start, columns, head) if (has_numbers or is_known) and are_apart else None


def _complete_head(
    rows: Sequence[Sequence[str]], spans: Sequence[Sequence[Span]], start: int
) -> tuple[list[str], list[Span]]:
    """The cells of a head and their spans, with an empty one before them where the rows below have a cell more."""
    head, own = list(rows[start]), list(spans[start]) if spans else []
    below = rows[start + 1 : start + 1 + _LEAST_ROWS]
    if not spans or len(head) < _LEAST_COLUMNS - 1 or len(below) < _LEAST_ROWS:
        return head, own
    first = spans[start + 1]
    is_longer = all(len(row) == len(head) + 1 and _is_name(row[0]) for row in below)
    if is_longer and first[0][1] < own[0][0] and _assign(first, own) == list(range(1, len(first))):
        return ["", *head], [first[0], *own]
    return head, own


def _assign(head: Sequence[Span], cells: Sequence[Span]) -> list[int] | None:
    """The column of each cell: that which it shares most with, or is nearest to; None if two would have the same."""

    def distance(a: Span, b: Span) -> float:
        apart = max(a[0], b[0]) - min(a[1], b[1])
        return apart if apart > 0 else min(abs(a[0] - b[0]), abs(a[1] - b[1]), abs(sum(a) - sum(b)) / 2) - 1e6

    columns = [min(range(len(head)), key=lambda i: distance(head[i], cell)) for cell in cells]
    return columns if columns == sorted(set(columns)) else None


def _fill(row: Sequence[str], columns: Sequence[int]) -> dict[int, str]:
    return dict(zip(columns, row, strict=True))


def _compare_columns(head: Sequence[str], rows: Sequence[dict[int, str]]) -> list[Extremes]:
    def is_named(column: int) -> bool:
        cells = [row[column] for row in rows if column in row]
        return len(cells) == len(rows) and 2 * sum(map(_is_name, cells)) > len(cells)

    named = [i for i in range(len(head)) if is_named(i)]
    found = []
    for i, what in enumerate(head if named else ()):
        if _MOMENT.fullmatch(what):
            continue
        counted = [row for row in rows if i in row and not _WHOLE.fullmatch(row[named[0]].strip())]
        if len(counted) > 1 and all(_read_amount(row[i]) is not None for row in counted):
            found += _compare(what, [row[named[0]] for row in counted], [row[i] for row in counted])
    return found[:_MOST_COMPARED]


def _compare(what: str, names: Sequence[str], amounts: Sequence[str]) -> list[Extremes]:
    """One, or none where all are equal, an amount cannot be read or they are in several units."""
    sizes = [_read_amount(amount) for amount in amounts]
    known = [size for size in sizes if size is not None]
    units = {amount.lstrip("-+0123456789.,' ") for amount in amounts} & _UNITS
    if len(known) < len(sizes) or len(set(known)) < 2 or len(units) > 1:
        return []
    most, least = (known.index(find(known)) for find in (max, min))
    order = list_order(names, known)
    return [Extremes(what, (names[most], amounts[most]), (names[least], amounts[least]), order)]


def _is_heading(cell: str) -> bool:
    """Whether a cell may be the name of a column, such as "Height (m)" or "per 100 g", and is no value itself."""
    letters, digits = (sum(map(is_one, cell)) for is_one in (str.isalpha, str.isdigit))
    return letters >= max(1, digits) and _read_amount(cell) is None and ": " not in cell


def _are_alike(head: str, cells: Sequence[str]) -> bool:
    """Whether what would head a column is one more of its values: a month above months, or a year above years."""
    is_date = _CALENDAR.fullmatch(head) is not None and any(map(_CALENDAR.fullmatch, cells))
    return is_date or (_are_years([head]) and _are_years(cells))


def _are_years(cells: Sequence[str]) -> bool:
    """Whether there are cells, and all are years."""
    return bool(cells) and all(map(_YEAR.fullmatch, cells))


def _has_digit(cell: str) -> bool:
    return any(map(str.isdigit, cell))


def _is_name(cell: str) -> bool:
    return any(map(str.isalpha, cell)) and not _has_digit(cell)


def _read_amount(text: str) -> float | None:
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        return None
    size = float(re.sub(r"\D", "", match[1]) + (match[2] or "").replace(",", "."))
    return -size if "-" in text[: text.index(match[1])] else size


def _find_price(row: Sequence[str]) -> tuple[str, str] | None:
    """The name and the price of a row that ends in one; None for a sum, and where no price is."""
    if any(_read_amount(cell) is not None for cell in row[1:-1]):
        return None
    if len(row) > 1 and _PRICE.fullmatch(row[0].strip()):
        row = [*row[1:], row[0]]
    text = " ".join(row).strip()
    match = _PRICE_AT_END.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if match is None or not any(map(str.isalpha, match[1])) or _SUMS.search(match[1]):
        return None
    return match[1].strip(), match[2].strip()
