"""An index beside a data file: arrays about its rows, so that the file need not be parsed again to be opened.

``.data.json.llava-index`` holds where each row is, how many words and images it has. It is memory-mapped, so that all
processes share one copy. It belongs to one state of the data file, told by size, time of change and a digest of parts
of the content; any other index, and one that is damaged, is built anew. Where the folder of the data file takes no
file, the index is in the user's cache folder, and failing that in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llava.cache_folder import find_cache
from llava.errors import UsageError
from llava.text import write_line

SUFFIX = ".llava-index"
_MAGIC = b"llava row index\n"
_VERSION = 2
_ALIGNMENT = 64
_SAMPLE_BYTES = 65_536  # of the start, the middle and the end of the data file are part of its digest

Arrays = Mapping[str, np.ndarray]


class RowIndex:
    """Arrays by name. It is pickled as the name of its file, unless it is only in memory."""

    def __init__(self, arrays: Arrays, file: Path | None = None, checksum: int = 0) -> None:
        self.arrays, self.file, self.checksum = arrays, file, checksum

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __getstate__(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "checksum": self.checksum,
            "arrays": None if self.file is not None else {name: np.array(each) for name, each in self.arrays.items()},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.file, self.checksum, arrays = state["file"], state["checksum"], state["arrays"]
        if self.file is not None:
            loaded = _load(self.file, None)
            if loaded is None or loaded.checksum != self.checksum:
                raise UsageError(f"The index {self.file} was replaced while it was in use: start again.")
            arrays = loaded.arrays
        self.arrays = arrays


def open_index(path: Path, kind: str, build: Callable[[], Arrays]) -> RowIndex:
    """The index of a data file: the one that was written before if it is up to date, or else a new one.

    Args:
        kind: the format of the data file and of its arrays; an index of another kind is not used.
        build: makes the arrays; what it raises is passed on, and no index is written.

    Raises:
        UsageError: the data file changes while it is read.
    """
    key = _identify(path, kind)
    places = [find_index(path), _find_cached(path)]
    for place in places:
        found = _load(place, key)
        if found is not None:
            return found
    arrays = build()
    if _identify(path, kind) != key:
        raise UsageError(f"The data file '{path}' was changed while it was read: wait until it is complete.")
    for place in places:
        if _write(place, key, arrays):
            written = _load(place, key)
            if written is not None:
                return written
    write_line(
        f"llava: The index of '{path}' can be written neither beside it nor to {places[-1].parent}, so the file is "
        "read anew each time it is opened."
    )
    return RowIndex(arrays)


def _identify(path: Path, kind: str) -> dict[str, Any]:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.blake2b(digest_size=16)
        for start in (0, status.st_size // 2, max(0, status.st_size - _SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(_SAMPLE_BYTES))
    return {
        "version": _VERSION,
        "kind": kind,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "digest": digest.hexdigest(),
    }


def find_index(path: Path) -> Path:
    """Where a data file's index is, if its folder takes files: hidden, since `datasets` reads ``train-*`` as data."""
    return path.with_name(f".{path.name}{SUFFIX}")


def _find_cached(path: Path) -> Path:
    name = hashlib.sha256(os.fsencode(os.path.abspath(path))).hexdigest()[:32]
    return find_cache() / "index" / f"{name}{SUFFIX}"


def _write(place: Path, key: dict[str, Any], arrays: Arrays) -> bool:
    """Writes an index under its name at once and completely; False if that is impossible."""
    table = [[name, array.dtype.str, len(array)] for name, array in arrays.items()]
    header = json.dumps({"key": key, "arrays": table}).encode()
    body: list[Any] = [len(header).to_bytes(8, "little"), header]
    length = sum(map(len, body))
    for array in arrays.values():
        padding = -(length + len(_MAGIC) + 8) % _ALIGNMENT
        data = np.ascontiguousarray(array).view(np.uint8).data
        body += [b"\0" * padding, data]
        length += padding + len(data)
    checksum = 0
    for part in body:
        checksum = zlib.crc32(part, checksum)
    temporary = ""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(_MAGIC + checksum.to_bytes(8, "little"))
            file.writelines(body)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, place)
        return True
    except OSError:  # a read-only folder, a full disk
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False


def _load(place: Path, key: dict[str, Any] | None) -> RowIndex | None:
    """The index in a file; None if there is none, it is damaged, or belongs to another key."""
    try:
        with place.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start = len(_MAGIC) + 8
        checksum = int.from_bytes(data[len(_MAGIC) : start], "little")
        with memoryview(data) as view:
            if data[: len(_MAGIC)] != _MAGIC or zlib.crc32(view[start:]) != checksum:
                return None
        at = start + 8 + int.from_bytes(data[start : start + 8], "little")
        header = json.loads(data[start + 8 : at])
        if key is not None and header["key"] != key:
            return None
        arrays = {}
        for name, dtype, count in header["arrays"]:
            at += -at % _ALIGNMENT
            # An empty array may end the file, where a buffer has no such offset.
            arrays[name] = np.frombuffer(data, dtype, count, at) if count else np.empty(0, dtype)
            at += arrays[name].nbytes
        return RowIndex(arrays, place, checksum)
    except (OSError, ValueError, KeyError, TypeError):
        return None
