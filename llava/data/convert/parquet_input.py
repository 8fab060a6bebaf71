"""Reads the rows of parquet files as Hugging Face `datasets` stores them, a few at a time. No torch.

Source: huggingface/datasets, features Image: a column of structs with ``bytes`` and ``path``, of which either may be
null, or a column of paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llava.data.row_groups import UNREADABLE
from llava.errors import UsageError
from llava.image.signatures import sniff
from llava.text import fit_line

_BATCH_ROWS = 64
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}


def iterate_parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, row) of a parquet file, with these columns only; the number is from 0 on.

    Raises:
        UsageError: pyarrow is missing, the file is no complete parquet file, or lacks a column.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("Reading parquet files needs pyarrow. Install it: pip install 'llava[data]'.") from error
    try:
        with pq.ParquetFile(path) as file:
            known = file.schema_arrow.names
            missing = [name for name in columns if name not in known]
            if missing:
                raise UsageError(
                    f"The file '{path}' has no column '{missing[0]}'; it has {', '.join(map(repr, known))}. It is "
                    "another dataset, or another version of it."
                )
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns)):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except UsageError:  # a ValueError itself
        raise
    except UNREADABLE as error:  # also a text that is not UTF-8, or a date beyond the year 9999
        raise UsageError(
            f"The file '{path}' is no complete parquet file: {fit_line(str(error), 120)} Get it again."
        ) from error


def find_bytes(image: Any, where: str) -> bytes | None:
    """The bytes in a cell of an image column; None if it holds none, but at most a path.

    Raises:
        UsageError: the column is none of images.
    """
    if isinstance(image, (bytes, bytearray)):
        return bytes(image) or None
    if image is None or isinstance(image, str):
        return None
    if isinstance(image, Mapping) and {"bytes", "path"} & set(image):
        data = image.get("bytes")
        if data is None or isinstance(data, bytes):
            return data or None
    raise UsageError(f"{where}: its column of images holds {type(image).__name__}, which is no image.")


def choose_suffix(data: bytes) -> str | None:
    """The suffix of an image file with these bytes; None if they are no image of a format that is common."""
    return _SUFFIXES.get(sniff(data[:4096]) or "")
