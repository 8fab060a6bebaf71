"""Prints the table of converters."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console
from rich.table import Table

from llava.data.convert.converter import Converter, say_files
from llava.text import is_terminal, is_unicode

# Where the output is not a terminal no address and no name of a file is broken, and other cells are this wide at most.
_CELL_WIDTH = 40
_UNBOUNDED = 1000


def print_table(rows: Sequence[Converter]) -> None:
    """Prints name, rows, licence, source, and the files of the first split, of each on standard output."""
    table = Table(box=box.SIMPLE_HEAD, safe_box=not is_unicode(sys.stdout))
    is_wide = not is_terminal(sys.stdout)
    for title in ("name", "published", "licence", "source", "files"):
        is_whole = title == "name" or (is_wide and title in ("source", "files"))
        width = _CELL_WIDTH if is_wide and not is_whole else None
        table.add_column(title, overflow="fold", no_wrap=is_whole, max_width=width)
    for row in rows:
        num = "" if row.num_published is None else f"{row.num_published:,} {row.counted}"
        urls = "\n".join(url.removeprefix("https://") for url in row.url.split(" and "))
        files = "\n".join(entry.split(" | ")[0] for entry in _first_files(row))
        table.add_row(row.name, num, row.licence, urls, files)
    with StringIO() as text:
        width = _UNBOUNDED if is_wide else None
        Console(file=text, width=width, highlight=False, markup=False, color_system=None).print(table)
        print("\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n"))


def print_json(rows: Sequence[Converter]) -> None:
    """Prints everything that the table holds as a JSON list on standard output."""
    print(json.dumps([_as_dict(row) for row in rows], indent=1))


def describe(row: Converter) -> str:
    """Everything that the table holds about one dataset, as lines."""
    lines = [f"{row.name}: {row.title}"]
    if row.num_published is not None:
        lines.append(f"  published  {row.num_published:,} {row.counted}")
    lines += [f"  licence    {row.licence}", f"  source     {row.url}", f"  images     {row.images or 'in its files'}"]
    splits: dict[tuple[str, ...], list[str]] = {}
    for split, files in row.files.items():
        splits.setdefault(files, []).append(split)
    lines += [f"  files      {say_files(files)} (--split {', '.join(names)})" for files, names in splits.items()]
    lines += [f"  --format {', '.join(names)}: {text}" for text, names in _group_formats(row).items()]
    return "\n".join([*lines, f"  facts      {row.facts}"])


def _group_formats(row: Converter) -> dict[str, list[str]]:
    """Names of formats by what they make: ScienceQA has eighty."""
    names: dict[str, list[str]] = {}
    for name, text in row.formats.items():
        names.setdefault(text, []).append(name)
    return names


def _first_files(row: Converter) -> tuple[str, ...]:
    return row.files.get("train") or next(iter(row.files.values()))


def _as_dict(row: Converter) -> dict[str, object]:
    return {
        "name": row.name,
        "title": row.title,
        "published": row.num_published,
        "counted": row.counted,
        "licence": row.licence,
        "source": row.url,
        "images": row.images,
        "files": {split: list(files) for split, files in row.files.items()},
        "formats": dict(row.formats),
        "facts": row.facts,
    }
