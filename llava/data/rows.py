"""Rows of data files by number: what every format of data file is read as, joined and chosen from.

A row is a mapping in LLaVA's data format, whatever its file holds; an image in it is a name or a ``StoredImage``. Rows
are read from their file when they are asked for, so that opening a file costs no memory, and they can be pickled for
the worker processes of a data loader.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from llava.data.records import Record, RecordSource, parse_record


class RowSizes(NamedTuple):
    """Words and images of each row, int64 [N]: what grouping by length needs, known without reading a row."""

    num_words: np.ndarray
    num_images: np.ndarray

    def take(self, indices: Sequence[int] | np.ndarray) -> RowSizes:
        """Those of the rows with these numbers."""
        chosen = np.asarray(indices, dtype=np.int64)
        return RowSizes(self.num_words[chosen], self.num_images[chosen])


class Rows(ABC):
    """Rows by number, from 0 on, and the records in them; a ``RecordSource``."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> Any:
        """Row number ``index`` in LLaVA's data format. Raises UsageError where the file has changed or is damaged."""

    @abstractmethod
    def locate(self, index: int) -> tuple[int, str]:
        """The number of row ``index`` in its own file, from 0 on, and the name of that file."""

    @abstractmethod
    def sizes(self) -> RowSizes:
        """Words and images of all rows."""

    @abstractmethod
    def digest(self) -> str:
        """A checksum of all records in their order, by which data that were changed are known."""

    def record(self, index: int) -> Record:
        """Record number ``index``. Raises UsageError for one that is invalid."""
        return parse_record(self.row(index), *self.locate(index))

    def check_index(self, index: int) -> None:
        """Raises IndexError if there is no row of that number."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no row {index}; there are {len(self)}.")


class JoinedRows(Rows):
    """The rows of several sources, one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = tuple(parts)
        self._ends = list(accumulate(len(part) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, index: int) -> Any:
        """Row number ``index`` of all."""
        part, own = self._find(index)
        return part.row(own)

    def locate(self, index: int) -> tuple[int, str]:
        """The row's number in its own file, and that file."""
        part, own = self._find(index)
        return part.locate(own)

    def sizes(self) -> RowSizes:
        """Words and images of all rows."""
        sizes = [part.sizes() for part in self.parts]
        return RowSizes(*(np.concatenate(arrays) for arrays in zip(*sizes, strict=True)))

    def digest(self) -> str:
        """A checksum of those of the parts."""
        return _checksum("".join(part.digest() for part in self.parts).encode())

    def _find(self, index: int) -> tuple[Rows, int]:
        self.check_index(index)
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)


class ChosenRows(Rows):
    """Some rows of another source, by their numbers there."""

    def __init__(self, rows: Rows, indices: Sequence[int]) -> None:
        self.rows, self.indices = rows, np.asarray(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def row(self, index: int) -> Any:
        """Row number ``index`` of those chosen."""
        self.check_index(index)
        return self.rows.row(int(self.indices[index]))

    def locate(self, index: int) -> tuple[int, str]:
        """The row's number in its own file, and that file."""
        self.check_index(index)
        return self.rows.locate(int(self.indices[index]))

    def sizes(self) -> RowSizes:
        """Words and images of all rows chosen."""
        return self.rows.sizes().take(self.indices)

    def digest(self) -> str:
        """A checksum of which rows are chosen, and of all from which they are."""
        return _checksum(self.rows.digest().encode() + self.indices.tobytes())


def _checksum(data: bytes) -> str:
    return f"{zlib.crc32(data):08x}"


def measure_records(records: RecordSource) -> RowSizes:
    """Words and images of all records: from an index where there is one, or else by reading each."""
    if isinstance(records, Rows):
        return records.sizes()
    each = [records.record(index) for index in range(len(records))]
    return RowSizes(
        np.array([record.num_words for record in each], dtype=np.int64),
        np.array([len(record.images) for record in each], dtype=np.int64),
    )
