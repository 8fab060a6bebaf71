"""Reads MMBench's tables of tab-separated values, and knows which of their cells pandas reads as empty. No torch."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from llava.errors import UsageError

# What pandas.read_table reads as an empty cell. Source: pandas documentation of read_csv, na_values.
EMPTY_CELLS = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
EMPTY_CELLS |= {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
# What the original's is_none adds to it, in lower case. Source: haotian-liu/LLaVA@c121f04 model_vqa_mmbench.py.
_NONE_WORDS = {"nan", "none"}


def read_table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(number, cells by column) of each row, from 1 on. Raises UsageError for a row of another length."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # an image is one cell
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise UsageError(f"The question file '{path}' cannot be read: {error.strerror}.") from error
    with file:
        try:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t"), 1):
                if None in row or None in row.values():
                    raise UsageError(
                        f"Row {number} of '{path}' has another number of cells than the header. Get it again."
                    )
                yield number, row
        except (UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"'{path}' is no table of tab-separated values in UTF-8: {error}.") from error


def read_cell(row: Mapping[str, str], key: str) -> str | None:
    """The cell's text; None where the column is missing, or for what the original takes as None when it asks."""
    value = row.get(key, "")
    return None if value in EMPTY_CELLS or value.lower() in _NONE_WORDS else value
