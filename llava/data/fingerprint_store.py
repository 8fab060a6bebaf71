"""Fingerprints of many images in one file, so that no image is hashed twice, also after a run was killed.

The file has a row of fixed size for each image and is only appended to; a row that was cut off is dropped when it is
opened. Rows are read through a memory map: a million of them take 1.1 GB on disk, and 100 MB of memory for their keys.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from llava.data.fingerprints import DIGEST_BYTES, THUMBNAIL_PX, ImageSource, fingerprint
from llava.data.worker_processes import start_worker
from llava.errors import BadImage, LlavaError, UsageError

_MAGIC = b"llava fingerprints 1\n"
_ROW = np.dtype([("key", "V16"), ("digest", "V16"), ("size", "<u4", 2), ("thumbnail", "u1", (THUMBNAIL_PX,) * 2)])
_BATCH = 64


class FingerprintStore:
    """A file of fingerprints, open for appending. Only one process may have it open.

    Raises:
        UsageError: the file exists and is not one of fingerprints.
        LlavaError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise LlavaError(f"'{path}' cannot be written: {error.strerror or error}.") from error
        try:
            self._drop_torn_row()
        except BaseException:
            self._file.close()
            raise
        self._num_rows = (self.path.stat().st_size - len(_MAGIC)) // _ROW.itemsize
        self._rows = {key.tobytes(): i for i, key in enumerate(self.open()["key"])} if self._num_rows else {}

    def _drop_torn_row(self) -> None:
        num_bytes = os.fstat(self._file.fileno()).st_size
        self._file.seek(0)
        start = self._file.read(len(_MAGIC))
        if not (start == _MAGIC if num_bytes >= len(_MAGIC) else _MAGIC.startswith(start)):
            raise UsageError(f"'{self.path}' is not a file of fingerprints. Name another folder, or remove it.")
        try:
            if num_bytes < len(_MAGIC):
                self._file.truncate(0)
                self._file.write(_MAGIC)
                self._file.flush()
            else:
                self._file.truncate(num_bytes - (num_bytes - len(_MAGIC)) % _ROW.itemsize)
        except OSError as error:
            raise LlavaError(f"'{self.path}' cannot be written: {error.strerror or error}.") from error

    def __enter__(self) -> FingerprintStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def row(self, key: bytes) -> int | None:
        """The number of an image's row, None for one that has none."""
        return self._rows.get(key)

    def append(self, found: Iterable[tuple[bytes, Any]]) -> None:
        """Adds fingerprints with their keys. Raises LlavaError for a full disk."""
        rows = [(key, print.digest, tuple(print.size), as_array(print.thumbnail)) for key, print in found]
        if not rows:
            return
        table = np.zeros(len(rows), _ROW)
        for i, (key, digest, size, thumbnail) in enumerate(rows):
            table[i] = (np.void(key), np.void(digest), size, thumbnail)
        try:
            self._file.write(table.tobytes())
            self._file.flush()
        except OSError as error:
            raise LlavaError(
                f"'{self.path}' cannot be written: {error.strerror or error}. What was hashed is kept; run it again "
                "when there is room."
            ) from error
        for key, *_ in rows:
            self._rows[key] = self._num_rows
            self._num_rows += 1

    def open(self) -> Any:
        """All rows, as a memory map with the fields digest, size and thumbnail."""
        if not self._num_rows:
            return np.zeros(0, _ROW)
        return np.memmap(self.path, _ROW, "r", offset=len(_MAGIC), shape=(self._num_rows,))


def as_array(thumbnail: bytes) -> npt.NDArray[np.uint8]:
    """A fingerprint's thumbnail as an array, [32, 32]."""
    return np.frombuffer(thumbnail, np.uint8).reshape(THUMBNAIL_PX, THUMBNAIL_PX)


def make_key(text: str) -> bytes:
    """The key of an image from what identifies its file: name, size and time of change."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def fingerprint_all(
    images: Sequence[tuple[bytes, ImageSource]], store: FingerprintStore, num_workers: int
) -> Iterator[tuple[int, list[tuple[bytes, str]]]]:
    """Hashes images into the store, in parallel; after each batch, how many were done and which could not be read.

    Args:
        images: their keys and sources.
    """
    batches = (list(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH))
    for done in map_in_processes(_fingerprint_batch, batches, num_workers):
        store.append((key, found) for key, found in done if not isinstance(found, str))
        yield len(done), [(key, found) for key, found in done if isinstance(found, str)]


def _fingerprint_batch(images: list[tuple[bytes, ImageSource]]) -> list[tuple[bytes, Any]]:
    """A fingerprint for each key, or a message for an image that cannot be read."""
    done: list[tuple[bytes, Any]] = []
    for key, source in images:
        try:
            done.append((key, fingerprint(source)))
        except BadImage as error:
            done.append((key, str(error)))
    return done


def map_in_processes(work: Any, tasks: Iterable[Any], num_workers: int) -> Iterator[Any]:
    """The results of ``work(task)``, in any order, with few tasks in flight. Raises LlavaError if a process dies."""
    if num_workers <= 1:
        yield from map(work, tasks)
        return
    with ProcessPoolExecutor(num_workers, get_context("spawn"), start_worker) as pool:
        waiting: set[Future[Any]] = set()
        try:
            for task in tasks:
                waiting.add(pool.submit(work, task))
                if len(waiting) >= 3 * num_workers:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool as error:
            raise LlavaError(
                "A worker process died, probably for lack of memory. Run it again with fewer --workers: it continues."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
