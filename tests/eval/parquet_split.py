"""Writes splits as the Hugging Face hub stores them: parquet shards whose rows hold their images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image


def draw(color: str, size: tuple[int, int] = (20, 12)) -> bytes:
    """A PNG of one color."""
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return out.getvalue()


def write_split(folder: Path, split: str, rows: Sequence[Mapping[str, Any]], num_shards: int = 2) -> list[Path]:
    """Writes ``SPLIT-0000K-of-0000N.parquet`` files, with row groups of 3 rows; bytes become image structs."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    folder.mkdir(parents=True, exist_ok=True)
    paths, size = [], -(-len(rows) // num_shards)
    for number in range(num_shards):
        part = [
            {name: {"bytes": value, "path": ""} if isinstance(value, bytes) else value for name, value in row.items()}
            for row in rows[number * size : (number + 1) * size]
        ]
        paths.append(folder / f"{split}-{number:05d}-of-{num_shards:05d}.parquet")
        parquet.write_table(arrow.Table.from_pylist(part), paths[-1], row_group_size=3)
    return paths
