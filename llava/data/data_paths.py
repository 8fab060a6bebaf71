"""From the names that a user gives to data files on this machine: braces, patterns, folders of shards, remote files."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from llava.errors import UsageError

FORMATS = (".json", ".jsonl", ".parquet", ".tar")
_SHARD_FORMATS = (".parquet", ".tar")
_MOST_FILES = 100_000
_BRACES = re.compile(r"(.*)\{(.*)\}(\.(?:jsonl?|parquet|tar))", re.DOTALL)
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
# How Hugging Face `datasets` names shards. Source: huggingface/datasets@1b935da src/datasets/naming.py.
_SHARD = re.compile(r"(.*?)-(\d{5,})-of-(\d{5,})\.parquet")


def list_data_files(path: str) -> list[str]:
    """The files on this machine that a name stands for, in order; a remote file is fetched to the cache first.

    A name is that of a file; ``name_{a,b}.json`` or ``name-{000000..000012}.tar``; a pattern with ``*``; a folder of
    .parquet or .tar files; or any of these after ``hf://``, ``https://``, ``s3://`` and the like.

    Raises:
        UsageError: it names no file, a shard is missing from a folder, or a remote file cannot be fetched.
    """
    if "{" in path and "}" in path:
        return [file for name in expand_braces(path) for file in _list_unbraced(name)]
    return _list_unbraced(path)


def expand_braces(path: str) -> list[str]:
    """The files that ``name_{a,b}.json`` or ``name_{00..12}.tar`` stands for, in order.

    Raises UsageError for any other use of braces.
    """
    found = _BRACES.fullmatch(path)
    if found is None:
        raise UsageError(
            f"The data path '{path}' has braces, but does not end with them and .json, .jsonl, .parquet or .tar: write "
            "it as folder/name_{a,b}.json, or name the files in a .yaml file."
        )
    return [f"{found[1]}{name}{found[3]}" for part in found[2].split(",") for name in _expand_range(part, path)]


def _expand_range(part: str, path: str) -> Iterator[str]:
    found = _RANGE.fullmatch(part)
    if found is None:
        yield part
        return
    first, last, width = int(found[1]), int(found[2]), len(found[1])
    if not 0 <= last - first < _MOST_FILES:
        raise UsageError(
            f"The data path '{path}' has the range {part}: it has to go up, by at most {_MOST_FILES:,} files."
        )
    for number in range(first, last + 1):
        yield str(number).zfill(width)


def _list_unbraced(path: str) -> list[str]:
    if "://" in path:
        from llava.data.remote_files import fetch_files

        return [file for local in fetch_files(path) for file in _list_local(local)]
    return _list_local(path)


def _list_local(path: str) -> list[str]:
    if any(mark in path for mark in "*?") and not Path(path).exists():
        files = sorted(name for name in glob.glob(path) if name.endswith(FORMATS))
        if not files:
            raise UsageError(f"No data file matches '{path}'. The path is relative to {Path.cwd()}.")
        return files
    if not path.endswith((*FORMATS, ".yaml", ".yml")) and Path(path).is_dir():
        return list_shards(Path(path))
    return [path]


def list_shards(folder: Path) -> list[str]:
    """The .parquet or .tar files of a folder, or of the folder "data" in it, in the order of their names.

    Raises:
        UsageError: there are none, of both kinds, or of several splits, or a shard of ``datasets`` is missing.
    """
    for place in (folder, folder / "data"):
        found = sorted(str(file) for file in place.glob("*") if file.suffix in _SHARD_FORMATS)
        if found:
            check_shards(found, str(place))
            return found
    raise UsageError(
        f"The folder '{folder}' holds no .parquet or .tar files. Name the data file, or the folder of its shards."
    )


def check_shards(files: list[str], place: str) -> None:
    """Raises UsageError unless the files are all shards of one split, in one format."""
    kinds = {Path(file).suffix for file in files}
    if len(kinds) > 1:
        raise UsageError(f"'{place}' holds .parquet and .tar files. Name one kind: {place}/*.parquet")
    shards = [found for file in files if (found := _SHARD.fullmatch(Path(file).name)) is not None]
    splits = sorted({found[1] for found in shards})
    if len(splits) > 1:
        raise UsageError(
            f"'{place}' holds the splits {', '.join(splits)}. Name the files of one: {place}/{splits[-1]}-*.parquet"
        )
    if shards:
        present, total = {int(found[2]) for found in shards}, int(shards[0][3])
        missing = sorted(set(range(total)) - present)
        if missing:
            raise UsageError(
                f"'{place}' lacks {len(missing)} of the {total} shards of '{splits[0]}', first number "
                f"{missing[0]:05d}. Fetch it, or name those that are there: {place}/{splits[0]}-*.parquet"
            )
