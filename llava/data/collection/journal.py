"""A file of JSON lines that a kill cannot damage: what was written before it is read again, and nothing is done twice.

Each entry is written, flushed and synced to the disk before the next step; a line that a kill cut off is removed when
the file is opened. A lock keeps two processes from writing to the same folder.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from llava.errors import LlavaError, UsageError
from llava.text import write_line

_STREAMS = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))


class Journal:
    """Entries by their ``key``, the last one of each; kept in a file as they come. ``history`` has all of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self.history: list[dict[str, Any]] = []
        self.num_damaged = 0
        self._file: BinaryIO | None = None
        if path.exists():
            self._read()

    def _read(self) -> None:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    try:
                        entry = json.loads(line) if line.endswith(b"\n") else None
                    except (ValueError, RecursionError):
                        entry = None
                    if isinstance(entry, dict) and isinstance(entry.get("key"), str):
                        self._keep(entry)
                    else:
                        self.num_damaged += 1
        except OSError as error:
            raise UsageError(f"'{self.path}' cannot be read: {error.strerror or error}.") from error

    def open(self) -> None:
        """Opens it for writing, and removes a last line that is incomplete. Raises LlavaError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._end = _cut_to_lines(self.path)
        except OSError as error:
            raise self._fail(error) from error
        if self.num_damaged:
            write_line(f"llava: {self.path.name}: {self.num_damaged} incomplete or damaged lines are ignored.")

    def write(self, entry: dict[str, Any]) -> None:
        """Keeps an entry on the disk. Raises LlavaError if that fails, on a full disk; the file stays valid."""
        assert self._file is not None, "open it first"
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError("only a part was written")
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise self._fail(error) from error
        self._end += len(line)
        self._keep(entry)

    def _keep(self, entry: dict[str, Any]) -> None:
        self.entries[entry["key"]] = entry
        self.history.append(entry)

    def close(self) -> None:
        """Closes the file. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _fail(self, error: OSError) -> LlavaError:
        return LlavaError(
            f"'{self.path}' cannot be written: {error.strerror or error}. What it held is kept: make room or correct "
            "the cause, and run the same command again."
        )


def _cut_to_lines(path: Path) -> int:
    """Removes an incomplete last line; returns the size, bytes."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        begin = end
        while begin:
            begin = max(0, begin - 65_536)
            file.seek(begin)
            found = file.read(min(65_536, end - begin)).rfind(b"\n")
            if found >= 0:
                size = begin + found + 1
                break
        else:
            size = 0
        if size != end:
            file.truncate(size)
        return size


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds the folder, which is made. Raises UsageError if another process holds it or it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a")
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"The folder '{folder}' cannot be written: {reason}. Name another with --out.") from error
    with _hold(file, folder, "folder"):
        yield


@contextlib.contextmanager
def lock_file(path: Path, named: Path | None = None) -> Iterator[None]:
    """Holds the file, which is made, and removed if it is empty afterwards. Raises UsageError as ``lock_folder``.

    ``named``: what an error names, if the file stands for another.
    """
    named = named or path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise UsageError(f"'{named}' cannot be written: {error.strerror or error}. Name another file.") from error
    with _hold(file, named, "file"):
        try:
            yield
        finally:
            if path.exists() and not path.stat().st_size:
                path.unlink()


@contextlib.contextmanager
def _hold(file: TextIO, path: Path, noun: str) -> Iterator[None]:
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows
            pass
        except OSError as error:
            raise UsageError(f"Another command is writing to '{path}'. Wait for it, or name another {noun}.") from error
        yield


def is_stream(path: Path) -> bool:
    """Whether what is written there goes to a device, a pipe or an open stream, which no other file may replace."""
    if path.parent in _STREAMS:  # /dev/stdout is a regular file where a shell redirects it to one
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file atomically: it is complete, or as it was before. A stream is written to. Raises LlavaError."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if is_stream(path):
            with path.open("ab") as stream:
                stream.write(data)
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise LlavaError(f"'{path}' cannot be written: {error.strerror or error}.") from error
