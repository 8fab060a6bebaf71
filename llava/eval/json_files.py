"""Reads and writes the JSON files of evaluation: answers, annotations, submissions. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.data.collection.journal import is_stream, write_whole
from llava.errors import UsageError


@dataclass(frozen=True)
class JsonLines:
    """The JSON objects of a file, a line each, and the numbers of the lines that are none."""

    path: Path
    rows: list[dict[str, Any]]
    broken: list[int]


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises UsageError for a file that cannot be read or is not JSON."""
    try:
        return json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"'{path}' is not a JSON file: {error}.") from error


def read_json_lines(path: str | Path) -> JsonLines:
    """The objects of a file of JSON lines; a line that is half-written or empty is among the broken ones.

    Raises UsageError for a file that cannot be read.
    """
    rows, broken = [], []
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.") from error
    for number, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken.append(number)
    return JsonLines(Path(path), rows, broken)


def read_whole_lines(path: str | Path) -> list[dict[str, Any]]:
    """``read_json_lines``, where no line may be broken. Raises UsageError."""
    lines = read_json_lines(path)
    if lines.broken:
        raise UsageError(
            f"Line {lines.broken[0]} of '{path}' is not a JSON object ({len(lines.broken)} such lines): the file is "
            "half-written, or not one of JSON lines. Finish it, or remove these lines."
        )
    return lines.rows


def write_json(path: str | Path, value: object) -> None:
    """Writes the value as ``json.dump`` does, all of it or nothing; makes the folder. Raises LlavaError."""
    target = Path(path)
    write_whole(target if is_stream(target) else target.resolve(), json.dumps(value).encode())


def find_repeated(ids: Iterable[object]) -> list[object]:
    """The ids that occur more than once, in the order of their repetition."""
    seen, repeated = set(), {}
    for key in ids:
        if key in seen:
            repeated[key] = True
        seen.add(key)
    return list(repeated)


def pick(row: Mapping[str, Any], key: str, path: str | Path) -> Any:
    """The value under a key of a row of ``path``. Raises UsageError if the row lacks it."""
    if key not in row:
        raise UsageError(f"A row of '{path}' has no '{key}'; it has: {', '.join(map(str, row)) or 'nothing'}.")
    return row[key]


def pick_text(row: Mapping[str, Any], key: str, path: str | Path) -> str:
    """The text under a key of a row of ``path``. Raises UsageError if there is none."""
    value = pick(row, key, path)
    if not isinstance(value, str):
        raise UsageError(f"A row of '{path}' has {str(value)[:80]!r} as '{key}', which is not a text.")
    return value


def read_object(path: str | Path) -> dict[str, Any]:
    """``read_json``, where the file has to hold an object. Raises UsageError."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UsageError(f"'{path}' does not hold a JSON object, but {str(value)[:80]!r}: it is another file.")
    return value
