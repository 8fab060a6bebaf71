"""A file that is read at any place, in any process, and that must not change meanwhile."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from llava.errors import UsageError


class _Handle:
    """An open file descriptor, closed with the last reference to it."""

    def __init__(self, path: str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


@dataclass(frozen=True)
class PinnedFile:
    """A file in the state that it had when it was pinned, see ``pin``. It can be pickled."""

    path: str
    size: int
    mtime_ns: int

    def read(self, offset: int, num_bytes: int) -> bytes:
        """The bytes at that place. Raises UsageError if the file has changed, is gone or cannot be read."""
        try:
            handle = _open(self)
            data = os.pread(handle.number, num_bytes, offset)
            while len(data) < num_bytes:  # one call reads at most 2 GiB
                more = os.pread(handle.number, num_bytes - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise UsageError(f"The data file '{self.path}' cannot be read: {error.strerror or error}.") from error
        if len(data) < num_bytes:
            raise UsageError(f"The data file '{self.path}' was cut off while it was in use. Fetch it again.")
        return data


def pin(path: str) -> PinnedFile:
    """The file as it is now. Raises OSError."""
    status = os.stat(path)
    return PinnedFile(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _open(file: PinnedFile) -> _Handle:
    handle = _Handle(file.path)
    status = os.fstat(handle.number)
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise UsageError(f"The data file '{file.path}' was changed while it was in use: start again.")
    return handle
