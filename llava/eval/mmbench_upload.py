"""The table that MMBench's server scores, as LLaVA-1.5 writes it: an .xlsx file with a column of answers. No torch.

Columns, cells and their types are those that pandas would write. What the original passes over in silence, such as an
answer to no row, is said on stderr; what it turns into something else, such as an answer "=1" into a formula, is kept.

Source: haotian-liu/LLaVA@524a75b scripts/convert_mmbench_for_submission.py; pandas 3.1, read_table and to_excel.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data.collection.journal import write_whole
from llava.errors import UsageError
from llava.eval.json_files import find_repeated, pick, read_whole_lines
from llava.eval.submission import pick_id, say_empty
from llava.eval.tsv_table import EMPTY_CELLS, read_table
from llava.text import write_line

_DROPPED = ("hint", "category", "source", "image", "comment", "l2-category")
_NEEDED = ("index", "question", "A", "B")
_PLACE = 6  # of the predictions among the columns
_LONGEST_CELL = 32767  # letters that a cell of .xlsx holds
_INTEGER = re.compile(r" *[+-]?[0-9]+ *")
_FLOAT = re.compile(r" *[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *|[+-]?inf(?:inity)?", re.IGNORECASE)
_TRUTHS = {"true": True, "false": False}
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML 1.0, production Char

Cell = str | int | float | bool | None


def write_upload(annotations: Path, answers: Path, target: Path) -> None:
    """Writes the table with the answers. Raises UsageError for files that do not belong together, or lack columns."""
    columns = _read_columns(annotations)
    columns = _insert(columns, "prediction", _find_predictions(annotations, columns["index"], answers))
    write_whole(target.resolve(), _write_xlsx(columns))


def _read_columns(path: Path) -> dict[str, list[Cell]]:
    """The columns that are uploaded, with typed cells."""
    texts: dict[str, list[str]] = {}
    for _, row in read_table(path):
        for name, cell in row.items():
            if name != "image":
                texts.setdefault(name, []).append(cell)
            else:
                texts.setdefault(name, [])
    if not texts:
        raise UsageError(f"'{path}' has no rows.")
    missing = [name for name in _NEEDED if name not in texts]
    if missing:
        raise UsageError(
            f"'{path}' has no column {' nor '.join(map(repr, missing))}; it has {', '.join(map(repr, texts))}. It is "
            "no table of MMBench."
        )
    known = {name.lower() for name in texts}
    absent = [name for name in _DROPPED if name not in known]
    if absent:
        write_line(f"llava: '{path}' has no column {', '.join(map(repr, absent))}; none of them is uploaded.")
    return {name: infer_cells(cells) for name, cells in texts.items() if name.lower() not in _DROPPED}


def infer_cells(texts: Sequence[str]) -> list[Cell]:
    """A column's cells as pandas types them: whole numbers, numbers, truth values or texts; None is an empty cell."""
    full = [text for text in texts if text not in EMPTY_CELLS]
    if not full:
        return [None] * len(texts)
    kind: Any
    if all(map(_INTEGER.fullmatch, full)):
        # A column of whole numbers cannot hold an empty cell; numbers of more than 64 bits stay texts.
        fits = all(-(2**63) <= int(text) < 2**63 for text in full) or all(0 <= int(text) < 2**64 for text in full)
        kind = (int if len(full) == len(texts) else float) if fits else str
    elif all(map(_FLOAT.fullmatch, full)):
        kind = float
    elif all(text.lower() in _TRUTHS for text in full):
        kind = _read_truth
    else:
        kind = str
    return [None if text in EMPTY_CELLS else kind(text) for text in texts]


def _read_truth(text: str) -> bool:
    return _TRUTHS[text.lower()]


def _insert(columns: Mapping[str, list[Cell]], name: str, cells: list[Cell]) -> dict[str, list[Cell]]:
    """The columns with another at the seventh place, or at the end of fewer."""
    pairs = list(columns.items())
    return dict([*pairs[:_PLACE], (name, cells), *pairs[_PLACE:]])


def _find_predictions(annotations: Path, indices: Sequence[Cell], answers: Path) -> list[Cell]:
    rows = read_whole_lines(answers)
    given: dict[str | int, str] = {}
    ids = []
    for row in rows:
        key = pick_id(row, "question_id", answers)
        text = pick(row, "text", answers)
        if not isinstance(text, str):
            raise UsageError(f"The answer to question {key!r} in '{answers}' is {text!r}, which is no text.")
        if row.get("round_id") in (None, 0):  # later rounds show the options under other letters
            ids.append(key)
            given[key] = text
    if len(ids) < len(rows):
        write_line(
            f"llava: {len(rows) - len(ids)} answers in '{answers}' are of later rounds (--all-rounds), whose letters "
            "are not the table's; the first round is uploaded. The original uploads the last, under wrong letters."
        )
    known = set(indices)
    strangers = [key for key in given if key not in known]
    if not given or len(strangers) == len(given):
        raise UsageError(
            f"None of the {len(given)} answers in '{answers}' is to a row of '{annotations}': the answers' ids are "
            f"like {next(iter(given), None)!r}, the rows' like {next(iter(indices), None)!r}. Name the files of one "
            "split."
        )
    if strangers:
        write_line(f"llava: {len(strangers)} answers are to no row of the table, such as {strangers[0]!r}; left out.")
    if repeated := find_repeated(ids):
        write_line(
            f"llava: {len(repeated)} rows are answered more than once, such as {repeated[0]!r}; the last counts."
        )
    if missing := sum(index not in given for index in indices):
        write_line(f"llava: {missing} of the {len(indices)} rows have no answer, and an empty cell is uploaded.")
    say_empty(given.values(), answers)
    return [
        _clean(given[index], index) if isinstance(index, str | int) and index in given else None for index in indices
    ]


def _clean(text: str, index: object) -> str:
    """What of an answer a cell can hold; says what it cannot."""
    clean = _UNWRITABLE.sub("", text)[:_LONGEST_CELL]
    if clean != text:
        write_line(
            f"llava: the answer to index {index} has characters, or more than {_LONGEST_CELL} of them, that a cell "
            "cannot hold; they are left out."
        )
    return clean


def _write_xlsx(columns: Mapping[str, Sequence[Cell]]) -> bytes:
    try:
        from openpyxl import Workbook
    except ImportError as error:
        raise UsageError("Writing .xlsx files needs openpyxl. Install it: pip install 'llava[eval]'.") from error
    book = Workbook()
    sheet = book.active
    sheet.title = "Sheet1"
    for row in [list(columns), *zip(*columns.values(), strict=True)]:
        cells = [
            "" if value is None else _UNWRITABLE.sub("", value) if isinstance(value, str) else value for value in row
        ]
        sheet.append([str(cell) if isinstance(cell, float) and math.isinf(cell) else cell for cell in cells])
        for cell in sheet[sheet.max_row]:
            if isinstance(cell.value, str):
                cell.data_type = "s"  # "=1" is an answer, and no formula; "#N/A" no error
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()
