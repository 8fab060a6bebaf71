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
# So many prices in a list are compared, and so many columns of a table.
_LEAST_PRICES = 3
_MOST_COMPARED = 3
# A longer row is no item with its price.
_MOST_CHARACTERS = 80

_AMOUNT = re.compile(r"[-+$€£¥]{0,2} ?(\d{1,3}(?:[,' ]\d{3})+|\d+)([.,]\d+)? ?(?:[$€£¥%°]|°[CF]|[a-zA-Z]{1,3})?")
_PRICE_AT_END = re.compile(r"(?:\d+ ?x )?(.*?)[ .:]*([$€£¥]? ?\d{1,4}[.,]\d{1,2} ?[$€£¥]?)")
# Amounts beside these are no prices of items.
_SUMS = re.compile(
    r"(?i)\b(sub ?-?total|total|sum|tax|vat|mwst|cash|card|visa|mastercard|amex|debit|credit|change|due|amount|paid"
    r"|balance|tip|discount|rounding|given|summe|gesamt|tel|phone|date|time)\b"
)


class Extremes(NamedTuple):
    """The highest and the lowest in a column: what it counts, and each one's name and number as they are written."""

    what: str
    highest: tuple[str, str]
    lowest: tuple[str, str]

    def __str__(self) -> str:
        return f"Highest {self.what}: {' '.join(self.highest)}; lowest: {' '.join(self.lowest)}."


def label_cells(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows' cells, those below the head of a table as "Time: 8:32"; all others as they are."""
    labelled = [list(row) for row in rows]
    for start, end in _find_tables(rows):
        for row in labelled[start + 1 : end]:
            row[:] = [f"{name}: {cell}" for name, cell in zip(rows[start], row, strict=True)]
    return labelled


def find_extremes(rows: Sequence[Sequence[str]]) -> list[Extremes]:
    """What is highest and lowest in the columns of tables, and among the prices of a list that is none."""
    found = []
    tables = list(_find_tables(rows))
    for start, end in tables:
        found += _compare_columns(rows[start], rows[start + 1 : end])
    if not tables:
        prices = [pair for pair in map(_find_price, rows) if pair is not None]
        if len(prices) >= _LEAST_PRICES:
            found += _compare("price", [name for name, _ in prices], [price for _, price in prices])
    return found


def _find_tables(rows: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """The rows of each table, from its head to the one after its last."""
    tables, start = [], 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and len(rows[end]) == len(rows[start]):
            end += 1
        # What stands above a head may have as many cells, so the head is the first from which on it is a table.
        head = next((i for i in range(start, end) if _is_table(rows[i:end])), None)
        if head is not None:
            tables.append((head, end))
        start = end
    return tables


def _is_table(rows: Sequence[Sequence[str]]) -> bool:
    head, below = rows[0], rows[1:]
    if len(head) < _LEAST_COLUMNS or len(below) < _LEAST_ROWS or len({cell.lower() for cell in head}) < len(head):
        return False
    if any(map(str.isdigit, "".join(head))) or not all(any(map(str.isalpha, cell)) for cell in head):
        return False
    return any(all(any(map(str.isdigit, row[i])) for row in below) for i in range(len(head)))


def _compare_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Extremes]:
    columns = list(zip(*rows, strict=True))
    named = [i for i, cells in enumerate(columns) if sum(map(_is_name, cells)) > len(cells) / 2]
    if not named:
        return []
    found = []
    for name, cells in zip(head, columns, strict=True):
        if all(_read_amount(cell) is not None for cell in cells):
            found += _compare(name, columns[named[0]], cells)
    return found[:_MOST_COMPARED]


def _compare(what: str, names: Sequence[str], amounts: Sequence[str]) -> list[Extremes]:
    """One, or none where all are equal or an amount cannot be read."""
    sizes = [_read_amount(amount) for amount in amounts]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or len(set(known)) < 2:
        return []
    most, least = (known.index(find(known)) for find in (max, min))
    return [Extremes(what, *((names[i], amounts[i]) for i in (most, least)))]


def _is_name(cell: str) -> bool:
    return any(map(str.isalpha, cell)) and not any(map(str.isdigit, cell))


def _read_amount(text: str) -> float | None:
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        return None
    size = float(re.sub(r"\D", "", match[1]) + (match[2] or "").replace(",", "."))
    return -size if text.lstrip().startswith("-") else size


def _find_price(row: Sequence[str]) -> tuple[str, str] | None:
    """The name and the price of a row that ends in one; None for sums, and for what is no item."""
    text = " ".join(row).strip()
    match = _PRICE_AT_END.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if match is None or not any(map(str.isalpha, match[1])) or _SUMS.search(match[1]):
        return None
    return match[1].strip(), match[2].strip()
