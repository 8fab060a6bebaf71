"""Writes a mixture for others: JSON, or shards of parquet (Hugging Face ``datasets``) or of tar (WebDataset).

Shards hold their images and are shuffled, so that they can be read in order. Each appears when it is complete, and one
that is there is not written again: an interrupted command goes on when it is repeated, and several machines write
different shards of one folder. A row whose image cannot be read is left out and named, up to the mixture's failures.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.data.image_files import find_image
from llava.data.long_work import LongWork
from llava.data.mixture import Mixture
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
        failed: a sentence for each row that was left out.
    """

    files: list[Path] = field(default_factory=list)
    num_rows: int = 0
    failed: list[str] = field(default_factory=list)


def choose_format(out: Path, format: str | None) -> str:
    """The format of a name: .json and .jsonl by their suffix, parquet for a folder. Raises UsageError."""
    if format is None:
        return out.suffix[1:] if out.suffix in (".json", ".jsonl") else "parquet"
    if format in ("json", "jsonl") and out.suffix != f".{format}":
        raise UsageError(f"--format {format} writes one file: name it .{format}, not '{out}'.")
    if format not in ("json", "jsonl") and out.suffix in (".json", ".jsonl"):
        raise UsageError(f"--format {format} writes a folder of shards: '{out}' is the name of a file.")
    return format


def write_json(mixture: Mixture, out: Path) -> Shards:
    """Writes all rows, in the order of the sources, as a .json list or .jsonl; images stay where they are.

    Raises:
        UsageError: a source holds its images itself, or ``out`` exists.
        LlavaError: the file cannot be written; nothing is left of it.
    """
    if out.exists():
        raise UsageError(f"'{out}' exists: delete it, or name another file.")
    is_list, done = out.suffix == ".json", Shards([out])
    with _complete(out) as path, path.open("w", encoding="utf-8") as file, _work(out, len(mixture)) as work:
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
    made_of = {"digest": mixture.digest(), "seed": mixture.file.seed, "rows": len(order), "shard_rows": shard_rows}
    _describe(out, made_of)
    pack = _pack_parquet if format == "parquet" else _pack_tar
    done = Shards()
    with _work(out, num_shards) as work:
        for number in range(part[0] - 1, num_shards, part[1]):
            path = out / _name_shard(format, number, num_shards)
            if not path.exists():
                rows = _read_rows(mixture, order[number * shard_rows : (number + 1) * shard_rows], images, done)
                with _complete(path) as unfinished:
                    pack(rows, unfinished)
            done.files.append(path)
            work.move_to(number)
    return done


def _name_shard(format: str, number: int, num_shards: int) -> str:
    return f"train-{number:05}-of-{num_shards:05}.parquet" if format == "parquet" else f"train-{number:06}.tar"


def _describe(out: Path, values: dict[str, Any]) -> None:
    """Writes what the folder's shards are made of. Raises UsageError if they are made of something else."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / _DESCRIPTION
    if not path.exists():
        if any(out.glob("train-*")):
            raise UsageError(f"'{out}' holds shards of something else: name another folder.")
        with _complete(path) as unfinished:
            unfinished.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
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
            record, row = mixture.record(int(index)), dict(mixture.row(int(index)))
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
        row.pop("image", None)
        row["id"] = record.id
        done.num_rows += 1
        yield int(index), row, stored


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
            stored = [{"bytes": data, "path": name} for name, data in images]
            group.append({**row, "images": stored, "conversations": turns})
            if len(group) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


# Rows in a row group: an image that is read alone costs its whole group.
_GROUP_ROWS = 20


def _pack_tar(rows: Iterator[_PackedRow], path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index, row, images in rows:
            members = [("json", json.dumps(row, ensure_ascii=False).encode())]
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


class _complete:
    """A name for an unfinished file, which gets its own name at the end and is deleted after an error."""

    def __init__(self, path: Path) -> None:
        self.path, self.unfinished = path, path.with_name(f".{path.name}.{os.getpid()}.part")

    def __enter__(self) -> Path:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LlavaError(f"'{self.path.parent}' cannot be made: {error.strerror or error}.") from error
        return self.unfinished

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            os.replace(self.unfinished, self.path)
            return
        self.unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise LlavaError(f"'{self.path}' cannot be written: {error.strerror or error}.") from error
