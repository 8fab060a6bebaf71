"""Parquet files as Hugging Face ``datasets`` stores them, as rows by number.

The texts of a row are read without the bytes of its images, which are read when an image is. Parquet can be read by
row groups only, so an image costs its whole group, 100 rows where ``datasets`` wrote them; a few groups are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any

from llava.data.indexed_rows import IndexedRows
from llava.data.json_rows import IndexBuilder
from llava.data.json_scan import ScannedRow
from llava.data.long_work import LongWork
from llava.data.parquet_schema import ParquetSchema, read_schema
from llava.data.pinned_file import pin
from llava.data.records import BadRow
from llava.data.row_groups import UNREADABLE, open_parquet, read_row_group
from llava.data.row_index import Arrays, open_index
from llava.errors import BadImage, UsageError

_TURN_KEYS = (("from", "value"), ("role", "content"))


@dataclass(frozen=True)
class ParquetImage:
    """An image whose bytes a parquet file holds; a ``StoredImage``. ``position`` is its place in a list of images."""

    path: str
    mtime_ns: int
    group: int
    row: int
    column: str
    position: int | None
    name: str

    def read(self) -> bytes:
        """Its bytes, undecoded. Raises BadImage where they are missing or the file is damaged."""
        try:
            value = read_row_group(self.path, self.mtime_ns, self.group, [self.column]).column(0)[self.row].as_py()
        except (UsageError, *UNREADABLE) as error:
            raise BadImage(str(error)) from error
        value = value if self.position is None else value[self.position]
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes) or not data:
            raise BadImage(f"The image {self.name} of '{self.path}' holds no bytes.")
        return data


class ParquetRows(IndexedRows):
    """The rows of one parquet file.

    Raises:
        UsageError: on opening, the file is missing, damaged or empty, has a column of another type, or an invalid row.
    """

    def __init__(self, path: str) -> None:
        try:
            self.file = pin(path)
        except OSError:
            open_parquet(path)  # says what is wrong
            raise
        self.path = path
        self._layout: _Layout | None = None
        self.index = open_index(Path(path), "parquet", self._build)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_layout": None}

    def row(self, index: int) -> Any:
        """Row number ``index`` in LLaVA's format; images are paths or ``ParquetImage``s."""
        self.check_index(index)
        if self._layout is None:
            self._layout = _Layout(self.path, self.file.mtime_ns)
        return self._layout.row(index)

    def _build(self) -> Arrays:
        builder = IndexBuilder(self.path)
        with LongWork(f"Reading {self.path}", None, " rows") as work:
            for scanned in scan_parquet(self.path):
                builder.add(scanned)
                work.move_to(scanned.number)
        return builder.finish()


def scan_parquet(path: str) -> Iterator[ScannedRow]:
    """All rows of a parquet file, in order. A damaged group is one fault, a value that cannot be read one of its row.

    Raises:
        UsageError: it cannot be opened.
    """
    layout = _Layout(path, _find_mtime(path))
    for group, start in enumerate(layout.starts):
        for own in range(layout.counts[group]):
            try:
                yield ScannedRow(start + own, layout.row(start + own))
            except BadRow as error:
                yield ScannedRow(start + own, None, fault=str(error))
            except UsageError as error:
                yield ScannedRow(start + own, None, fault=str(error))
                break


def _find_mtime(path: str) -> int:
    try:
        return pin(path).mtime_ns
    except OSError:
        open_parquet(path)  # says what is wrong
        raise


class _Layout:
    """Where the rows of a parquet file are, and how they become LLaVA's."""

    def __init__(self, path: str, mtime_ns: int) -> None:
        self.path, self.mtime_ns = path, mtime_ns
        with open_parquet(path) as file:
            self.schema: ParquetSchema = read_schema(file, path)
            metadata = file.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            self.counts = [group.num_rows for group in groups]
            self._num_null = [_count_null(group, self.schema.leaf) for group in groups]
        self.starts = [0, *accumulate(self.counts)][:-1]
        self._has_paths: dict[int, bool] = {}

    def row(self, index: int) -> dict[str, Any]:
        """The row. Raises BadRow for a value that is none, and UsageError for a damaged group."""
        group = bisect_right(self.starts, index) - 1
        try:
            return self._read(group, index - self.starts[group])
        except UsageError:  # a ValueError itself: the group is damaged
            raise
        except UNREADABLE as error:  # text that is not UTF-8, a date beyond the year 9999, an unknown time zone
            raise BadRow(
                "unreadable",
                f"Row {index} of '{self.path}' holds a value that cannot be read: {error}. Correct or remove the row.",
            ) from error

    def _read(self, group: int, own: int) -> dict[str, Any]:
        table = read_row_group(self.path, self.mtime_ns, group, self.schema.texts)
        values = {name: table.column(name)[own].as_py() for name in table.column_names}
        row = {name: values[name] for name in ("id", "data_source") if values.get(name) is not None}
        row["conversations"] = _list_turns(values["conversations"])
        if self.schema.image is not None and self.schema.kind != "null":
            images = self._list_images(values.get(self.schema.image), group, own)
            if images is not None:
                row["image"] = images
        return row

    def _list_images(self, value: Any, group: int, own: int) -> Any:
        """The row's images: ``value`` without their bytes tells how many there are."""
        assert self.schema.image is not None
        if value is None or self.schema.kind == "path":
            return value
        if self.schema.leaf and self._mixes_paths(group):
            table = read_row_group(self.path, self.mtime_ns, group, [self.schema.image])
            value = table.column(0)[own].as_py()
            is_known = True
        else:
            is_known = False
        if not isinstance(value, list):
            return self._make_image(value, group, own, None, is_known)
        return [self._make_image(each, group, own, position, is_known) for position, each in enumerate(value)]

    def _make_image(self, value: Any, group: int, own: int, position: int | None, is_known: bool) -> Any:
        """The image in one value; if ``is_known``, with its bytes, which may be absent beside a path."""
        assert self.schema.image is not None
        path = value.get("path") if isinstance(value, dict) else None
        has_bytes = bool(self.schema.leaf) and (not is_known or not isinstance(value, dict) or value.get("bytes"))
        if path and not has_bytes:
            return path
        place = f"row {self.starts[group] + own}" + ("" if position is None else f", image {position + 1}")
        name = PurePath(path).name if path else place
        return ParquetImage(self.path, self.mtime_ns, group, own, self.schema.image, position, name)

    def _mixes_paths(self, group: int) -> bool:
        """Whether some image of the group has only a path, so that each has to be looked at.

        The statistics of the file count the bytes that are null; rows without an image are among them.
        """
        if group not in self._has_paths:
            absent = 0
            if self.schema.kind == "struct" and self._num_null[group] is not None:
                table = read_row_group(self.path, self.mtime_ns, group, self.schema.texts)
                try:
                    absent = sum(map(_count_absent, table.column(self.schema.image).to_pylist()))
                except UNREADABLE:  # a fault of one row, which is told where that row is read
                    absent = -1
            self._has_paths[group] = self.schema.kind == "struct" and self._num_null[group] != absent
        return self._has_paths[group]


def _count_null(group: Any, leaf: str) -> int | None:
    for i in range(group.num_columns if leaf else 0):
        column = group.column(i)
        if column.path_in_schema == leaf and column.statistics is not None and column.statistics.has_null_count:
            return int(column.statistics.null_count)
    return None


def _count_absent(value: Any) -> int:
    """The nulls that a value without an image, or a list with such values, leaves in the column of bytes."""
    if isinstance(value, list):
        return sum(each is None for each in value) if value else 1
    return int(value is None)


def _list_turns(value: Any) -> Any:
    """A list of turns, also where they are stored as a struct of lists."""
    if not isinstance(value, dict):
        return value
    for keys in _TURN_KEYS:
        if all(isinstance(value.get(key), list) for key in keys):
            names, texts = (value[key] for key in keys)
            if len(names) == len(texts):
                return [dict(zip(keys, pair, strict=True)) for pair in zip(names, texts, strict=True)]
    return value
