"""A benchmark's files by name: alternatives, and patterns for the shards of one split. No torch."""

from __future__ import annotations

from pathlib import Path

from llava.data.data_paths import check_shards

ALTERNATIVE = " | "


def choose_path(data: Path, names: str) -> Path | None:
    """The path under the data folder, perhaps a pattern, of the first name of which there is a file; None if of none.

    ``names``: names with " | " between them, in which ``*`` stands for anything within a folder's or a file's name.
    """
    return next((data / name for name in names.split(ALTERNATIVE) if expand_path(data / name)), None)


def expand_path(path: Path) -> list[Path]:
    """The files that a path with ``*`` stands for, in the order of their names; empty if there is none.

    Raises UsageError where shards are missing, as ``datasets`` numbers them.
    """
    if path.exists():
        return [path]
    place = next((place for place, part in enumerate(path.parts) if "*" in part), None)
    if place is None:
        return []
    found = sorted(Path(*path.parts[:place]).glob(str(Path(*path.parts[place:]))))
    for folder in dict.fromkeys(file.parent for file in found):
        check_shards([str(file) for file in found if file.parent == folder], str(folder))
    return found
