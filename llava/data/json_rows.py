"""LLaVA's own data files, a JSON list or JSON lines, as rows by number.

The first time, every row is read and checked and an index is written, see ``llava.data.row_index``; after that a file
is opened without reading it. What was checked stays checked as long as the file does not change.

Source: haotian-liu/LLaVA@c121f04 docs/Finetune_Custom_Data.md (the list); LLaVA-VL/LLaVA-NeXT@df17966
llava/train/train.py, LazySupervisedDataset (.jsonl).
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llava.data.indexed_rows import IndexedRows
from llava.data.json_scan import ScannedRow, open_data, scan_lines, scan_list
from llava.data.long_work import LongWork
from llava.data.pinned_file import pin
from llava.data.records import Record, parse_record
from llava.data.row_index import Arrays, open_index
from llava.errors import UsageError


def scan_json(path: str) -> Iterator[ScannedRow]:
    """All rows of a .json or .jsonl file, in order. Raises UsageError if it holds none at all."""
    return scan_lines(path) if path.endswith(".jsonl") else scan_list(path)


class JsonRows(IndexedRows):
    """The rows of a .json or .jsonl file.

    Raises:
        UsageError: on opening, the file is missing, invalid or empty, or a row is invalid.
    """

    def __init__(self, path: str) -> None:
        open_data(path).close()  # a missing file is told as such
        self.path, self.file = path, pin(path)
        self.index = open_index(Path(path), "json", self._build)

    def row(self, index: int) -> Any:
        """Row number ``index`` as its file has it."""
        self.check_index(index)
        data = self.file.read(int(self.index["offsets"][index]), int(self.index["num_bytes"][index]))
        try:
            return json.loads(data)
        except ValueError as error:
            raise UsageError(
                f"Row {index} of the data file '{self.path}' is not where it was: the file was changed while it was in "
                "use. Start again."
            ) from error

    def _build(self) -> Arrays:
        builder = IndexBuilder(self.path)
        offsets, num_bytes = array("Q"), array("Q")
        with LongWork(f"Reading {self.path}", self.file.size, "B") as work:
            for scanned in scan_json(self.path):
                builder.add(scanned)
                offsets.append(scanned.offset)
                num_bytes.append(scanned.num_bytes)
                work.move_to(scanned.offset)
        return {"offsets": np.array(offsets), "num_bytes": np.array(num_bytes), **builder.finish()}


class IndexBuilder:
    """Checks rows one after the other and collects what every index has, see ``IndexedRows``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._num_words, self._num_images = array("I"), array("H")
        self._checksum = 0

    def add(self, scanned: ScannedRow) -> Record:
        """The record in a row. Raises UsageError for a fault or an invalid row."""
        if scanned.fault:
            raise UsageError(scanned.fault)
        record = parse_record(scanned.row, scanned.number, self.path)
        self._num_words.append(record.num_words)
        self._num_images.append(min(len(record.images), 0xFFFF))
        names = [image if isinstance(image, str) else image.name for image in record.images]
        said = json.dumps((record.id, names, record.turns)).encode()
        self._checksum = zlib.crc32(said, self._checksum)
        return record

    def finish(self) -> Arrays:
        """The arrays ``num_words``, ``num_images`` and ``checksum``. Raises UsageError if there was no row."""
        if not self._num_words:
            raise UsageError(f"The data file '{self.path}' must hold a non-empty list of samples, but holds none.")
        return {
            "num_words": np.array(self._num_words),
            "num_images": np.array(self._num_images),
            "checksum": np.array([self._checksum], dtype=np.uint32),
        }
