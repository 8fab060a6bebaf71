"""What ``llava data check`` found: a table, and a file of the rows with findings."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from llava.data.row_check import NOTES, RowFacts
from llava.data.whole_file import whole_file
from llava.errors import LlavaError, UsageError
from llava.text import fit_line

_MOST_SOURCES = 30
_PERCENTILES = (50, 95, 100)


def build_report(facts: list[RowFacts]) -> Group:
    """The tables: findings by kind, images per sample, lengths, sources."""
    bad = sum(each.is_bad for each in facts)
    head = Text(f"{len(facts):,} rows, {bad:,} with faults", style="bold red" if bad else "bold green")
    parts: list[Any] = [head]
    kinds = Counter(kind for each in facts for kind in {kind for kind, _ in each.findings})
    if kinds:
        parts.append(_build_findings(facts, kinds))
    usable = [each for each in facts if each.content_digest]
    if usable:
        parts += [_build_lengths(usable), _build_sources(usable)]
    return Group(*parts)


def _build_findings(facts: list[RowFacts], kinds: Counter[str]) -> Table:
    table = Table("finding", "rows", "first")
    table.columns[1].justify = "right"
    first: dict[str, tuple[RowFacts, str]] = {}
    for each in facts:
        for kind, reason in each.findings:
            first.setdefault(kind, (each, reason))
    for kind, count in sorted(kinds.items(), key=lambda item: (item[0] in NOTES, -item[1], item[0])):
        each, reason = first[kind]
        name = f"{kind} (note)" if kind in NOTES else kind
        row_id = f" (id {each.id})" if each.id else ""
        table.add_row(name, f"{count:,}", Text(fit_line(f"row {each.number}{row_id}: {reason}"), overflow="fold"))
    return table


def _build_lengths(usable: list[RowFacts]) -> Table:
    table = Table("per sample", "median", "95 %", "most", "sum")
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [("words", [each.num_words for each in usable]), ("images", [each.num_images for each in usable])]
    if tokens := [each.num_tokens for each in usable if each.num_tokens is not None]:
        rows.append(("tokens, images included", tokens))
    for name, values in rows:
        marks = np.percentile(values, _PERCENTILES, method="higher")
        table.add_row(name, *(f"{int(mark):,}" for mark in marks), f"{sum(values):,}")
    return table


def _build_sources(usable: list[RowFacts]) -> Table:
    table = Table("source", "rows", "with images")
    for column in table.columns[1:]:
        column.justify = "right"
    rows, seen = Counter(each.source for each in usable), Counter(each.source for each in usable if each.num_images)
    for source, count in rows.most_common(_MOST_SOURCES):
        table.add_row(Text(fit_line(source)), f"{count:,}", f"{seen[source]:,}")
    if len(rows) > _MOST_SOURCES:
        rest = sum(count for _, count in rows.most_common()[_MOST_SOURCES:])
        table.add_row(f"{len(rows) - _MOST_SOURCES} others", f"{rest:,}", "")
    return table


def write_findings(facts: Iterable[RowFacts], path: Path) -> int:
    """Writes one JSON line for each row with findings; returns how many. Raises LlavaError."""
    count = 0
    with replacing(path) as file:
        for each in facts:
            if each.findings:
                line = {"file": each.file, "row": each.number, "id": each.id, "bad": each.is_bad}
                line["findings"] = [{"kind": kind, "reason": reason} for kind, reason in each.findings]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
    return count


def check_outputs(files: list[str], bad: Path, fix: Path | None) -> None:
    """Raises UsageError if what a check writes would replace a file that no check has written."""
    journal = find_journal(bad)
    for out, flag in ((bad, "--bad"), (journal, "--bad"), (fix, "--fix")):
        if out is None:
            continue
        if any(_is_same(out, Path(file)) for file in files):
            raise UsageError(f"{flag} {out} is the file that is checked: name another one.")
        if out.is_dir():
            raise UsageError(f"{flag} {out} is a folder: name a file.")
    if fix is not None and (_is_same(fix, bad) or _is_same(fix, journal)):
        raise UsageError(f"--bad and --fix are the same file, {fix}: name another one.")
    if fix is not None and (fix.exists() or fix.is_symlink()):
        raise UsageError(f"--fix {fix} exists already: remove it, or name another file.")
    for out, start in ((bad, b'{"file": '), (journal, b'{"version": ')):
        if not _begins_with(out, start):
            raise UsageError(f"{out} exists, and no check has written it: remove it, or name another file with --bad.")


def find_journal(bad: Path) -> Path:
    """Where an interrupted check that writes its findings to ``bad`` goes on from."""
    return bad.with_name(f"{bad.name}.part")


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other) or (one.exists() and other.exists() and one.samefile(other))


def _begins_with(path: Path, start: bytes) -> bool:
    """Whether a file begins so, as far as it goes; one that is not there does."""
    try:
        with path.open("rb") as file:
            return start.startswith(file.read(len(start)))
    except FileNotFoundError:
        return True


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A file for JSON that takes its name when it is complete. Raises LlavaError if it cannot be written."""
    make_folder(path.parent)
    with whole_file(path) as unfinished, open_lines(unfinished) as file:
        yield file


def open_lines(path: Path) -> TextIO:
    """The file, to write JSON to; halves of surrogate pairs, which UTF-8 has no bytes for, are escaped."""
    return path.open("w", encoding="utf-8", errors="backslashreplace")


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it. Raises LlavaError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LlavaError(f"{folder} cannot be made: {error.strerror or error}.") from error
