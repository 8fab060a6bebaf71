"""The folder that a run writes into: whether it can, and whether it would replace what the run starts from."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from llava.errors import UsageError
from llava.train.snapshots import refuse_output


def check_output(folder: Path, names: Iterable[str], starts: Iterable[str]) -> None:
    """Checks where stages of these names would be written, without writing anything.

    Args:
        folder: the run's folder.
        starts: the checkpoints that the run starts from; names that are no folders here are passed over.

    Raises:
        UsageError: a path is a file or a link to nothing, is not writable, or belongs to a checkpoint of ``starts``.
    """
    starts = list(starts)
    for name in names:
        for path in (folder, folder / name, folder / name / "model"):
            if os.path.lexists(path) and not path.is_dir():
                kind = "a link that leads nowhere" if path.is_symlink() and not path.exists() else "a file"
                raise UsageError(f"The output would go to {path}, which is {kind}: name another folder with --output.")
        for start in starts:
            for path in (folder / name, folder / name / "model"):
                refuse_output(start, path)
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise UsageError(f"The output would go to {folder}, but {existing} is a file: name another folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"The output would go to {folder}, but {existing} is not writable: name another folder.")


def make_output(folder: Path) -> None:
    """Creates the run's folder. Raises UsageError if it cannot be written into."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"The output folder {folder} cannot be written into ({error.strerror or error}): name another."
        ) from error
