"""Row groups of parquet files, the smallest parts that can be read: a few are kept, since neighbours are asked for.

Handles and what was read belong to one process: a forked worker opens its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llava.errors import UsageError

_MOST_BYTES = 256 * 1024 * 1024
_MOST_FILES = 16
_PART_BYTES = 64 * 1024 * 1024

# What pyarrow raises where a value, a page or a type in a file is none that can be read; its own errors are among them.
UNREADABLE = (OSError, ValueError, ArithmeticError, LookupError, NotImplementedError, MemoryError)


def import_parquet() -> Any:
    """``pyarrow.parquet``. Raises UsageError where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Reading parquet needs the package's data extra: run pip install 'llava[data]'.") from error
    return pyarrow.parquet


def open_parquet(path: str) -> Any:
    """The ``ParquetFile``. Raises UsageError for a file that is missing, damaged or something else."""
    parquet = import_parquet()
    try:
        return parquet.ParquetFile(path, memory_map=False, pre_buffer=False)
    except FileNotFoundError as error:
        raise UsageError(f"The data file '{path}' does not exist. The path is relative to {Path.cwd()}.") from error
    except UNREADABLE as error:
        raise UsageError(f"The data file '{path}' {say_foreign(path, error)}") from error


def say_foreign(path: str, error: BaseException) -> str:
    """What a file is that cannot be opened as its name promises, and the remedy: the predicate of a sentence."""
    try:
        with open(path, "rb") as file:
            start = file.read(1024).lstrip()
    except OSError as fault:
        return f"cannot be read: {fault.strerror or fault}."
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself. Run: git lfs pull"
    if start[:1] == b"<":
        return "is a web page (HTML), perhaps an error or a login. Fetch the file itself again."
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else "the file is empty"
    return f"is damaged or cut off ({reason}). Fetch it again."


@contextlib.contextmanager
def telling_damage(path: str, group: int) -> Iterator[None]:
    """Turns what pyarrow raises for a damaged row group into a UsageError that names the file and the group."""
    try:
        yield
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UsageError(
            f"Row group {group} of the data file '{path}' cannot be read ({reason}). The file is damaged: fetch it "
            "again."
        ) from error


class _Cache:
    """The row groups that were used last, by file, group and columns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int, int, tuple[str, ...]], Any] = OrderedDict()

    def read(self, path: str, mtime_ns: int, group: int, columns: Sequence[str]) -> Any:
        """Columns of a row group as a table. Raises UsageError."""
        key = (path, mtime_ns, group, tuple(columns))
        with self._lock:
            if key not in self._groups:
                file = self._open(path, mtime_ns)
                with telling_damage(path, group):
                    self._groups[key] = file.read_row_group(group, columns=list(columns), use_threads=False)
                while len(self._groups) > 1 and sum(each.nbytes for each in self._groups.values()) > _MOST_BYTES:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(key)
            return self._groups[key]

    def _open(self, path: str, mtime_ns: int) -> Any:
        key = (path, mtime_ns)
        if key not in self._files:
            if os.stat(path).st_mtime_ns != mtime_ns:
                raise UsageError(f"The data file '{path}' was changed while it was in use: start again.")
            self._files[key] = open_parquet(path)
            if len(self._files) > _MOST_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(key)
        return self._files[key]


_CACHE = _Cache()


def _forget() -> None:
    global _CACHE
    _CACHE = _Cache()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def read_row_group(path: str, mtime_ns: int, group: int, columns: Sequence[str]) -> Any:
    """Columns (or parts of them, as "image.path") of one row group, from the cache where they are in it.

    Raises UsageError if the file has changed since ``mtime_ns``, or is damaged.
    """
    return _CACHE.read(path, mtime_ns, group, columns)


def scan_tables(path: str) -> Iterator[tuple[int, Any]]:
    """All columns, as tables with the number of their first row: a row group each, or about 64 MiB of a larger one.

    Raises UsageError for a file or a group that is damaged.
    """
    import pyarrow

    start = 0
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            num_rows = metadata.num_rows * _PART_BYTES // max(1, metadata.total_byte_size)
            num_rows = min(max(1, num_rows), max(1, metadata.num_rows))
            parts = file.iter_batches(num_rows, row_groups=[group], use_threads=False)
            while True:
                with telling_damage(path, group):
                    part = next(parts, None)
                if part is None:
                    break
                table = pyarrow.Table.from_batches([part]).replace_schema_metadata(file.schema_arrow.metadata)
                yield start, table
                start += table.num_rows
