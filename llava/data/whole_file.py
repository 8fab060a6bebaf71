"""A file that appears when everything is written, or not at all, and that one command at a time writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from llava.errors import LlavaError, UsageError


@contextlib.contextmanager
def whole_file(path: Path, *, is_new: bool = False) -> Iterator[Path]:
    """The name of an unfinished file, which gets its own name when the block ends and is deleted after an error.

    The name is always the same one, so that what a killed command left is written over by the next one.

    Args:
        is_new: never replace a file that another command has completed meanwhile.

    Raises:
        UsageError: another command is writing the same file, or has written it (``is_new``).
        LlavaError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.partial")
    try:
        with _locked(unfinished, path):
            try:
                if is_new and (path.exists() or path.is_symlink()):
                    raise UsageError(f"'{path}' exists already. Remove it, or name another file.")
                yield unfinished
                with unfinished.open("rb+") as file:
                    os.fsync(file.fileno())
                os.replace(unfinished, path)
            finally:
                with contextlib.suppress(OSError):
                    unfinished.unlink()
    except OSError as error:
        raise LlavaError(f"'{path}' cannot be written: {error.strerror or error}. Nothing was kept.") from error


@contextlib.contextmanager
def _locked(unfinished: Path, path: Path) -> Iterator[None]:
    """Makes the unfinished file, or empties it, and holds it. The lock ends with the process, however that ends."""
    while True:
        with unfinished.open("ab") as file:
            hold_file(file, path)
            try:
                is_the_one = os.path.samestat(os.fstat(file.fileno()), os.stat(unfinished))
            except FileNotFoundError:  # another command has just completed it
                is_the_one = False
            if is_the_one:
                file.truncate(0)
                yield
                return


def hold_file(file: BinaryIO, path: Path) -> None:
    """Locks an open file until it is closed. Raises UsageError if another process holds it; ``path`` is what it names.

    Where the system or the file system has no locks, nothing is locked.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"Another command is writing '{path}'. Wait for it, or name another place.") from error
    except (ImportError, OSError):
        pass
