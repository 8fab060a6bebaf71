"""A clean copy of checked data, in the format of the data: rows without faults, each under an id of its own."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from llava.data.check_report import make_folder, open_lines
from llava.data.long_work import LongWork
from llava.data.pinned_file import PinnedFile, pin
from llava.data.readers import scan_rows
from llava.data.row_check import NOTES, RowFacts
from llava.data.whole_file import whole_file
from llava.errors import LlavaError, UsageError

if TYPE_CHECKING:
    from llava.data.tar_rows import TarSample

# A row with one of these is kept: it gets an id of its own.
_RENAMED = {"duplicate id"}
_FORMATS = {".json": (".json", ".jsonl"), ".jsonl": (".json", ".jsonl"), ".parquet": (".parquet",), ".tar": (".tar",)}

# By number of the row in its file, the new id of each row that is kept, or None where it keeps its own.
_Kept = Mapping[int, str | None]


def check_fixable(files: list[str], out: Path) -> None:
    """Raises UsageError if no clean copy of these files can be written there."""
    suffix = PurePath(files[0]).suffix
    formats = _FORMATS.get(suffix)
    if formats is not None and out.suffix not in formats:  # any other suffix is refused as that of no data file
        raise UsageError(f"--fix {out}: the clean copy of {files[0]} has to end with {' or '.join(formats)}.")


def write_clean_copy(
    files: list[str], facts: list[RowFacts], out: Path, before_named: Callable[[], None] = lambda: None
) -> tuple[int, int]:
    """Writes all rows without faults, those with another row's id under a new one, into one file.

    Parquet keeps its columns and their metadata, and an archive the members of its samples.

    Args:
        out: a new file.
        before_named: called when everything is written, and the file does not have its name yet.

    Returns:
        How many rows it has, and how many ids are new.

    Raises:
        UsageError: the files changed meanwhile, are damaged or have different columns, or ``out`` exists.
        LlavaError: no row is without a fault, or the file cannot be written; nothing is left of it.
    """
    kept = _choose(files, facts)
    num_written = sum(map(len, kept.values()))
    if not num_written:
        raise LlavaError(f"No row is without a fault, so {out} was not written.")
    write = {".parquet": _write_parquet, ".tar": _write_tar}.get(
        out.suffix, partial(_write_json, is_list=out.suffix == ".json")
    )
    make_folder(out.parent)
    states = [pin(file) for file in kept]
    with whole_file(out, is_new=True) as unfinished, LongWork(f"Writing {out}", num_written, " rows") as work:
        if write(kept, unfinished, work) != num_written or states != [pin(file) for file in kept]:
            raise _changed()
        before_named()
    return num_written, sum(name is not None for chosen in kept.values() for name in chosen.values())


def _choose(files: list[str], facts: list[RowFacts]) -> dict[str, dict[int, str | None]]:
    ids = {each.id for each in facts}
    kept: dict[str, dict[int, str | None]] = {file: {} for file in files}
    for each in facts:
        faults = {kind for kind, _ in each.findings if kind not in NOTES}
        if not faults - _RENAMED:
            kept[each.file][each.number] = _make_name(each.id, ids) if faults else None
    return kept


def _make_name(name: str, taken: set[str]) -> str:
    number = 2
    while (made := f"{name}-{number}") in taken:
        number += 1
    taken.add(made)
    return made


def _changed() -> UsageError:
    return UsageError("The data files were changed while they were checked: start again.")


def _write_json(kept: Mapping[str, _Kept], out: Path, work: LongWork, *, is_list: bool) -> int:
    first, between, last = ("[\n", ",\n", "\n]\n") if is_list else ("", "\n", "\n")
    done = 0
    with open_lines(out) as file:
        for row in _list_rows(kept):
            file.write(f"{between if done else first}{json.dumps(row, ensure_ascii=False)}")
            done += 1
            work.move_to(done)
        file.write(last)
    return done


def _list_rows(kept: Mapping[str, _Kept]) -> Iterator[dict[str, Any]]:
    for path, chosen in kept.items():
        for scanned in scan_rows(path):
            if scanned.number in chosen:
                if not isinstance(scanned.row, dict):
                    raise _changed()
                name = chosen[scanned.number]
                yield scanned.row if name is None else {**scanned.row, "id": name}


def _write_parquet(kept: Mapping[str, _Kept], out: Path, work: LongWork) -> int:
    from llava.data.row_groups import import_parquet

    parquet, done = import_parquet(), 0
    has_new_ids = any(name is not None for chosen in kept.values() for name in chosen.values())
    writer: Any = None
    try:
        for path, chosen in kept.items():
            for table in _list_tables(path, chosen, has_new_ids):
                if writer is None:
                    writer = parquet.ParquetWriter(out, table.schema)
                names = writer.schema.names
                if len(set(names)) == len(names) and set(names) == set(table.column_names):
                    table = table.select(names)  # the same columns in another order
                if not table.schema.equals(writer.schema):
                    raise UsageError(
                        f"{path} has other columns than the files before it, {_name_columns(table.schema)} and "
                        f"{_name_columns(writer.schema)}: write a clean copy of each file by itself."
                    )
                writer.write_table(table)
                done += table.num_rows
                work.move_to(done)
    finally:
        if writer is not None:
            writer.close()
    return done


def _name_columns(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _list_tables(path: str, chosen: _Kept, has_new_ids: bool) -> Iterator[Any]:
    """The rows that are kept, by row group or, of a large one, by parts of it.

    Ids become text where some are new, since a number has no ``-2``.
    """
    import pyarrow

    from llava.data.row_groups import scan_tables

    for start, table in scan_tables(path):
        numbers = [number for number in range(start, start + table.num_rows) if number in chosen]
        if not numbers:
            continue
        table = _take(table, [number - start for number in numbers], path)
        if has_new_ids and "id" in table.column_names:
            olds = table.column("id").to_pylist()
            names = [
                old if chosen[number] is None else chosen[number] for old, number in zip(olds, numbers, strict=True)
            ]
            texts = pyarrow.array([None if name is None else str(name) for name in names], pyarrow.string())
            table = table.set_column(table.column_names.index("id"), "id", texts)
        yield table


def _take(table: Any, numbers: list[int], path: str) -> Any:
    try:
        return table.take(numbers)
    except NotImplementedError as error:  # for columns of views, say
        raise UsageError(
            f"{path} has a column of a type from which no rows can be taken ({error}). Write the file anew with plain "
            "types, such as string in place of string_view."
        ) from error


def _write_tar(kept: Mapping[str, _Kept], out: Path, work: LongWork) -> int:
    from llava.data.tar_rows import scan_samples

    keys: set[str] = set()
    done = 0
    with tarfile.open(out, "w") as archive:
        for path, chosen in kept.items():
            file = pin(path)
            for scanned, sample in scan_samples(path):
                if scanned.number not in chosen:
                    continue
                if sample is None:
                    raise _changed()
                _add_sample(archive, file, scanned.row, sample, chosen[scanned.number], keys)
                done += 1
                work.move_to(done)
    return done


def _add_sample(
    archive: tarfile.TarFile,
    file: PinnedFile,
    row: Mapping[str, Any],
    sample: TarSample,
    name: str | None,
    keys: set[str],
) -> None:
    """Adds the members of a sample, its row under the new id if ``name`` is one, by a key that is in ``keys`` then."""
    key = sample.key if name is None or row["id"] != sample.key else name
    key = _make_name(key, keys) if key in keys else key
    keys.add(key)
    for member in sample.members:
        content = file.read(member.offset, member.num_bytes)
        if name is not None and member.suffix == "json":
            text = json.dumps({**json.loads(content), "id": name}, ensure_ascii=False)
            content = text.encode("utf-8", "backslashreplace")
        _add(archive, f"{key}.{member.suffix}", content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
