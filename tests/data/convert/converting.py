"""Runs a converter on small files that a test writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llava.data.convert.converter import LeftOut, Options, Row
from llava.data.convert.row_writer import convert
from llava.data.convert.table import find_converter


def write_json(folder: Path, name: str, value: Any) -> Path:
    """Writes a JSON file, with its folders, as the datasets' own files are."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def run(name: str, folder: Path, *, limit: int | None = None, **options: Any) -> tuple[list[Row], dict[str, int]]:
    """The rows that a converter writes, and how many things were left out for each reason."""
    converter = find_converter(name)
    options["format"] = converter.check_format(options.get("format"))
    left_out = LeftOut()
    dst = (folder if folder.is_dir() else folder.parent) / "converted.jsonl"
    dst.unlink(missing_ok=True)
    convert(converter, folder, dst, Options(left_out=left_out, **options), limit=limit)
    rows = [json.loads(line) for line in dst.read_text(encoding="utf-8").splitlines()]
    return rows, left_out.counts


def turns(row: Row) -> list[tuple[str, str]]:
    """The (question, answer) pairs of a row."""
    said = [turn["value"] for turn in row["conversations"]]
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"] * (len(said) // 2)
    return list(zip(said[::2], said[1::2], strict=True))
