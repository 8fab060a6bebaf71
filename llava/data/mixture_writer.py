"""Writes a mixture for others: JSON, or shards of parquet (Hugging Face ``datasets``) or of tar (WebDataset).

Shards hold their images and are shuffled, so that they can be read in order. Each appears when it is complete, and one
that is there is not written again: an interrupted command goes on when it is repeated, and several machines write
different shards of one folder. A row whose image cannot be read is left out and named, up to the mixture's failures.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.data.image_files import find_image
from llava.data.long_work import LongWork
from llava.data.mixture import Mixture
from llava.data.records import parse_record
from llava.data.whole_file import whole_file
from llava.errors import BadImage, LlavaError, UsageError
from llava.image.signatures import sniff
from llava.text import fit_line, write_line

FORMATS = ("json", "jsonl", "parquet", "webdataset")
_DESCRIPTION = "mixture.json"
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "HEIC": "heic"}
# The row's number, the row without its images, and name and bytes of each image.
_PackedRow = tuple[int, Any, list[tuple[str, bytes]]]


@dataclass
class Shards:
    """What was written.

    Attributes:
        files: those that are complete, in order, also from before.
        num_rows: rows that were written this time.
        failed: a sentence for each row that was left out, also before.
    """

    files: list[Path] = field(default_factory=list)
    num_rows: int = 0
    failed: list[str] = field(default_factory=list)


def choose_format(out: Path, format: str | None) -> str:
    """The format of a name: .json and .jsonl by their suffix, parquet for a folder.

    Raises UsageError if the name is of another format, or taken.
    """
    if format is None:
        format = out.suffix[1:] if out.suffix in (".json", ".jsonl") else "parquet"
    if format in ("json", "jsonl") and out.suffix != f".{format}":
        raise UsageError(f"--format {format} writes one file: name it .{format}, not '{out}'.")
    if format not in ("json", "jsonl") and out.suffix in (".json", ".jsonl"):
        raise UsageError(f"--format {format} writes a folder of shards: '{out}' is the name of a file.")
    if format in ("json", "jsonl") and (out.exists() or out.is_symlink()):
        raise UsageError(f"'{out}' exists: delete it, or name another file.")
    if format not in ("json", "jsonl") and out.exists() and not out.is_dir():
        raise UsageError(f"'{out}' is a file; --format {format} writes a folder of shards. Name a new folder.")
    return format


def write_json(mixture: Mixture, out: Path) -> Shards:
    """Writes all rows, in the order of the sources, as a .json list or .jsonl; images stay where they are.

    Raises:
        UsageError: a source holds its images itself, or ``out`` exists.
        LlavaError: the file cannot be written; nothing is left of it.
    """
    is_list, done = out.suffix == ".json", Shards([out])
    with (
        _complete(out, is_new=True) as path,
        path.open("w", encoding="utf-8", errors="backslashreplace") as file,
        _work(out, len(mixture)) as work,
    ):
        file.write("[\n" if is_list else "")
        for index in range(len(mixture)):
            row = mixture.row(index)
            images = row.get("image")
            if any(not isinstance(each, str) for each in _list_images(images)):
                raise UsageError(
                    f"The source '{row['data_source']}' holds its images itself: write --format parquet or webdataset."
                )
            file.write((",\n" if is_list and index else "") + json.dumps(row, ensure_ascii=False))
            file.write("" if is_list else "\n")
            done.num_rows += 1
            work.move_to(index)
        file.write("\n]\n" if is_list else "")
    return done


def write_shards(
    mixture: Mixture, out: Path, format: str, images: Path, *, shard_rows: int = 5000, part: tuple[int, int] = (1, 1)
) -> Shards:
    """Writes the mixture's rows with their images into a folder of shards.

    Args:
        format: "parquet" or "webdataset".
        images: the folder that image names are relative to.
        part: (k, n): only every n-th shard, from the k-th on, so that n commands write all of them.

    Raises:
        UsageError: the folder holds another mixture, or too many rows fail.
        LlavaError: a shard cannot be written; the complete ones stay.
    """
    order = mixture.order()
    num_shards = -(-len(order) // shard_rows)
    made_of = {
        "digest": mixture.digest(),
        "seed": mixture.file.seed,
        "rows": len(order),
        "shard_rows": shard_rows,
        "format": format,
    }
    _describe(out, made_of)
    pack = _pack_parquet if format == "parquet" else _pack_tar
    done = Shards(failed=_read_failed(out))
    with _work(out, num_shards) as work:
        for number in range(part[0] - 1, num_shards, part[1]):
            path = out / _name_shard(format, number, num_shards)
            if not path.exists():
                rows = _read_rows(mixture, order[number * shard_rows : (number + 1) * shard_rows], images, done)
                num_before = len(done.failed)
                with _complete(path) as unfinished:
                    pack(rows, unfinished)
                    _write_failed(path, done.failed[num_before:])
            done.files.append(path)
            work.move_to(number)
    return done


def _write_once(path: Path, text: str) -> None:
    """Writes a file unless it is there; of several commands that start at once, one writes it."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.chmod(file.name, 0o644)
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    except OSError as error:
        raise LlavaError(f"'{path}' cannot be written: {error.strerror or error}.") from error


def _find_failed(shard: Path) -> Path:
    """Where the rows that a shard lacks are named: a hidden file, which no reader takes for data."""
    return shard.with_name(f".{shard.name}.failed")


def _write_failed(shard: Path, failed: list[str]) -> None:
    if not failed:
        _find_failed(shard).unlink(missing_ok=True)
    else:
        with _complete(_find_failed(shard)) as unfinished:
            unfinished.write_text(json.dumps(failed) + "\n", encoding="utf-8")


def _read_failed(out: Path) -> list[str]:
    """A sentence for each row that the shards which are there lack: they count when a command goes on."""
    found: list[str] = []
    for shard in sorted(out.glob("train-*")):
        with contextlib.suppress(FileNotFoundError):
            try:
                found += json.loads(_find_failed(shard).read_text(encoding="utf-8"))
            except ValueError as error:
                raise UsageError(f"'{_find_failed(shard)}' is damaged: delete '{shard}', too.") from error
    return found


def _name_shard(format: str, number: int, num_shards: int) -> str:
    return f"train-{number:05}-of-{num_shards:05}.parquet" if format == "parquet" else f"train-{number:06}.tar"


def _describe(out: Path, values: dict[str, Any]) -> None:
    """Writes what the folder's shards are made of. Raises UsageError if they are made of something else."""
    _make_folder(out)
    path = out / _DESCRIPTION
    if not path.exists():
        if any(out.glob("train-*")):
            raise UsageError(f"'{out}' holds shards of something else: name another folder.")
        _write_once(path, json.dumps(values, indent=1) + "\n")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"'{path}' is damaged: delete the folder '{out}', or name another.") from error
    if found != values:
        changed = ", ".join(key for key in values if not isinstance(found, dict) or found.get(key) != values[key])
        raise UsageError(f"'{out}' holds shards of another mixture (other {changed}): delete it, or name another one.")


def _read_rows(mixture: Mixture, indices: Any, images: Path, done: Shards) -> Iterator[_PackedRow]:
    """(number, row without images, (name, bytes) of each image); rows that fail are noted and left out."""
    for index in indices:
        try:
            row = mixture.row(int(index))
            record = parse_record(row, *mixture.locate(int(index)))
            stored = [_read_image(each, images) for each in record.images]
        except (BadImage, UsageError) as error:
            done.failed.append(str(error))
            write_line(f"llava: {fit_line(str(error), 500)} The row is left out.")
            if len(done.failed) > mixture.num_failures:
                raise UsageError(
                    f"{len(done.failed):,} rows of the mixture '{mixture.file.name}' failed, and its 'failures' allow "
                    f"{mixture.num_failures:,}. The shards that are complete stay."
                ) from error
            continue
        rest = {**row, "id": record.id}
        rest.pop("image", None)
        done.num_rows += 1
        yield int(index), rest, stored


def _read_image(image: Any, folder: Path) -> tuple[str, bytes]:
    name = image if isinstance(image, str) else image.name
    try:
        data = find_image(folder, image).read_bytes() if isinstance(image, str) else image.read()
    except OSError as error:
        raise BadImage(f"The image '{fit_line(name)}' cannot be read: {error.strerror or error}.") from error
    if sniff(data, name) is None:
        raise BadImage(f"The image '{fit_line(name)}' is not an image in a supported format.")
    return name, data


def _pack_parquet(rows: Iterator[_PackedRow], path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("Parquet needs the package's data extra: run pip install 'llava[data]'.") from error
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = [(name, pa.string()) for name in ("id", "data_source")]
    schema = pa.schema([*texts, ("images", pa.list_(image)), ("conversations", pa.list_(turn))])
    with pq.ParquetWriter(path, schema) as writer:
        group: list[dict[str, Any]] = []
        for _, row, images in rows:
            turns = [
                {"from": each.get("from", each.get("role")), "value": each.get("value", each.get("content"))}
                for each in row["conversations"]
            ]
            stored = [{"bytes": data, "path": _to_text(name)} for name, data in images]
            group.append({**row, "id": _to_text(row["id"]), "images": stored, "conversations": turns})
            if len(group) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _to_text(name: str) -> str:
    """The name with halves of surrogate pairs escaped, which a column of texts cannot hold."""
    return name.encode("utf-8", "backslashreplace").decode()


# Rows in a row group: an image that is read alone costs its whole group.
_GROUP_ROWS = 20


def _pack_tar(rows: Iterator[_PackedRow], path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index, row, images in rows:
            members = [("json", json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace"))]
            for position, (name, data) in enumerate(images):
                suffix = _SUFFIXES.get(sniff(data, name) or "") or Path(name).suffix[1:].lower()
                members.append((suffix if len(images) == 1 else f"{position}.{suffix}", data))
            for suffix, data in members:
                member = tarfile.TarInfo(f"{index:09}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def _list_images(images: Any) -> list[Any]:
    return [] if images is None else list(images) if isinstance(images, (list, tuple)) else [images]


def _work(out: Path, total: int) -> LongWork:
    return LongWork(f"Writing {out}", total, "")


@contextlib.contextmanager
def _complete(path: Path, *, is_new: bool = False) -> Iterator[Path]:
    """``whole_file`` in a folder that is made."""
    _make_folder(path.parent)
    with whole_file(path, is_new=is_new) as unfinished:
        yield unfinished


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fault = "it is a file" if folder.is_file() else error.strerror or error
        raise LlavaError(f"The folder '{folder}' cannot be made: {fault}.") from error
