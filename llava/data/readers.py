"""Reads the files that ``--data_path`` of both originals takes, and names what is wrong with them.

A JSON list, JSON lines, a YAML file that samples several files, ``name_{a,b}.json``, or a list of all these. The rows
are held in memory and checked when a file is read, so that a mistake is found before training; no image is opened.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py, LazySupervisedDataset.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from llava.data.records import Record, parse_record
from llava.errors import UsageError
from llava.yaml_files import name_nearest, parse_mapping

_STRATEGIES = ("all", "first", "end", "random")
_FORMATS = (".json", ".jsonl")
_BRACES = re.compile(r"(.*)\{(.*)\}(\.jsonl?)", re.DOTALL)
_AMOUNT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Rows:
    """Records in memory; ``rows`` holds each row as its file has it, with its number and its file."""

    rows: tuple[tuple[Any, int, str], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, index: int) -> Record:
        """Record number ``index``."""
        row, number, file = self.rows[index]
        return parse_record(row, number, file)

    def digest(self) -> str:
        """A checksum of all rows, by which a file that was changed is known."""
        checksum = 0
        for row, _, _ in self.rows:
            checksum = zlib.crc32(json.dumps(row, sort_keys=True).encode(), checksum)
        return f"{checksum:08x}"


def read_records(data_path: str | Path | Sequence[str | Path], seed: int = 0) -> Rows:
    """All records that ``data_path`` names, in order.

    Args:
        data_path: a .json file with a list of rows; a .jsonl file with a row in each line; a .yaml file with
            ``datasets``, each with a ``json_path`` and optionally a ``sampling_strategy``: ``all``, or ``first``,
            ``end`` or ``random`` with a number or a percentage (rounded up), such as ``first:1000`` or ``random:10%``;
            ``name_{a,b}.json`` for several files; or a list of these.
        seed: decides what ``random`` takes, and in which order.

    Raises:
        UsageError: a file is missing, cannot be read or has no rows, or a row is invalid; the remedy is named.
    """
    if not isinstance(data_path, (str, Path)):
        if not data_path:
            raise UsageError("The list of data files is empty. Name at least one.")
        return Rows(tuple(row for path in data_path for row in read_records(path, seed).rows))
    path = str(data_path)
    if "{" in path and "}" in path:
        return Rows(tuple(row for file in expand_braces(path) for row in _read_file(file)))
    if path.endswith((".yaml", ".yml")):
        return Rows(tuple(_read_mixture(path, seed)))
    return Rows(tuple(_read_file(path)))


def expand_braces(path: str) -> list[str]:
    """The files that ``name_{a,b}.json`` stands for, in order. Raises UsageError for any other use of braces."""
    found = _BRACES.fullmatch(path)
    if found is None:
        raise UsageError(
            f"The data path '{path}' has braces, but does not end with them and .json or .jsonl: write it as "
            "folder/name_{a,b}.json, or name the files in a .yaml file."
        )
    return [f"{found[1]}{name}{found[3]}" for name in found[2].split(",")]


def _read_file(path: str) -> list[tuple[Any, int, str]]:
    """The rows of a .json or .jsonl file, each checked. Raises UsageError."""
    text = _read_text(path)
    rows = _parse_lines(text, path) if path.endswith(".jsonl") else _parse_list(text, path)
    for number, row in enumerate(rows):
        parse_record(row, number, path)
    return [(row, number, path) for number, row in enumerate(rows)]


def _read_text(path: str) -> str:
    if not path.endswith(_FORMATS):
        raise UsageError(f"The data file '{path}' is none that can be read: it has to end with .json, .jsonl or .yaml.")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"The data file '{path}' does not exist. The path is relative to {Path.cwd()}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"The data file '{path}' is not UTF-8 at byte {error.start}. Convert it to UTF-8, or fetch it again."
        ) from error
    except OSError as error:
        raise UsageError(f"The data file '{path}' cannot be read: {error.strerror or error}.") from error


def _parse_list(text: str, path: str) -> list[Any]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise UsageError(f"The data file '{path}' is not valid JSON{_say_fault(error, text)}") from error
    except RecursionError as error:
        raise UsageError(f"The data file '{path}' is nested too deeply to be a list of samples.") from error
    if not isinstance(rows, list):
        raise UsageError(
            f"The data file '{path}' must hold a JSON list of samples, but holds {_say_value(rows)}. A file with one "
            "sample in each line has to end with .jsonl."
        )
    return _check_any(rows, path)


def _parse_lines(text: str, path: str) -> list[Any]:
    rows = []
    for i, line in enumerate(text.split("\n")):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"Line {i + 1} of the data file '{path}' is not valid JSON: {getattr(error, 'msg', error)}. Correct or "
                "remove the line; if it is the last one, the file may be incomplete: fetch it again."
            ) from error
    return _check_any(rows, path)


def _check_any(rows: list[Any], path: str) -> list[Any]:
    if not rows:
        raise UsageError(f"The data file '{path}' must hold a non-empty list of samples, but holds none.")
    return rows


def _say_fault(error: ValueError, text: str) -> str:
    """Where JSON is wrong, and the remedy: a file that ends too early was probably not fetched completely."""
    if not isinstance(error, json.JSONDecodeError):
        return f": {error}."
    if not text.strip():
        return ": it is empty. Fetch it again."
    where = f" (line {error.lineno}, column {error.colno}: {error.msg})"
    is_cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
    if is_cut:
        return f"{where}. It seems to be cut off at its end, after {len(text):,} characters: fetch it again."
    if error.msg.startswith("Extra data"):
        return f"{where}. A file with one sample in each line has to end with .jsonl."
    return f"{where}. Correct it there."


def _say_value(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(list(value)[:5])}" if value else "an empty object"
    return f"{value!r:.40}"


def _read_mixture(path: str, seed: int) -> list[tuple[Any, int, str]]:
    """The rows that a .yaml file takes from its files. Raises UsageError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        fault = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UsageError(f"The data file '{path}' {fault}.") from error
    datasets = parse_mapping(text, f"The data file '{path}'").get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise UsageError(f"The data file '{path}' needs a list 'datasets', each with a json_path.")
    rows: list[tuple[Any, int, str]] = []
    for i, dataset in enumerate(datasets):
        where = f"Dataset {i + 1} of '{path}'"
        if not isinstance(dataset, dict) or not isinstance(dataset.get("json_path"), str):
            raise UsageError(f"{where} needs a json_path, the name of a .json or .jsonl file.")
        unknown = [key for key in dataset if key not in ("json_path", "sampling_strategy")]
        if unknown:
            nearest = name_nearest(str(unknown[0]), ("json_path", "sampling_strategy"))
            raise UsageError(f"{where} has the unknown key '{unknown[0]}'.{nearest}")
        strategy = dataset.get("sampling_strategy", "all")
        name, amount = _parse_strategy(strategy, where)
        rows += _take(_read_file(dataset["json_path"]), name, amount, random.Random(f"{seed}:{i}"))
    return rows


def _parse_strategy(strategy: Any, where: str) -> tuple[str, str]:
    """The name of a sampling strategy, and its amount, "" for ``all``. Raises UsageError."""
    name, _, amount = str(strategy).partition(":")
    if name not in _STRATEGIES:
        raise UsageError(f"{where}: there is no sampling_strategy '{name}'.{name_nearest(name, _STRATEGIES)}")
    if (name == "all") != (amount == "") or (amount and not _AMOUNT.fullmatch(amount)):
        raise UsageError(
            f"{where}: sampling_strategy is '{strategy}'. It has to be all, or first, end or random with a number or a "
            "percentage, such as first:1000 or random:10%."
        )
    if amount and not float(amount.rstrip("%")):
        raise UsageError(f"{where}: sampling_strategy is '{strategy}', which takes no sample. Remove the dataset.")
    return name, amount


def _take(rows: list[Any], name: str, amount: str, rng: random.Random) -> list[Any]:
    """The rows that a checked strategy takes: all if it asks for more than there are."""
    if name == "all":
        return rows
    num = int(amount) if "%" not in amount else -int(-(Fraction(amount[:-1]) * len(rows) / 100) // 1)
    if name == "random":
        rows = rng.sample(rows, len(rows))
    return rows[-num:] if name == "end" else rows[:num]
