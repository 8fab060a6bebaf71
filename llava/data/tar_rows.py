"""WebDataset's tar archives as rows by number.

A sample is the successive members with the same name up to the first dot: ``0001.jpg`` and ``0001.json`` with a row of
LLaVA's, or ``0001.jpg`` and ``0001.txt`` with a caption, which becomes the answer to a question that is only the image.
Several images are ``0001.0.jpg``, ``0001.1.jpg`` in the order of their numbers. An index has the place of every
member, so that one is read without the others; nothing is ever unpacked, so a member's name leads nowhere.

Source: webdataset/webdataset@07f5c6f webdataset/tariterators.py (base_plus_ext, group_by_keys: how names are split,
that successive members belong together, that ``__name__`` members are metadata).
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.indexed_rows import IndexedRows
from llava.data.json_rows import IndexBuilder
from llava.data.json_scan import MAX_ROW_BYTES, ScannedRow, open_data
from llava.data.long_work import LongWork
from llava.data.pinned_file import PinnedFile, pin
from llava.data.row_groups import say_foreign
from llava.data.row_index import Arrays, open_index
from llava.errors import BadImage, UsageError

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_METADATA = re.compile(r"__[^/]*__($|/)")
_IMAGES = "jpg jpeg png webp gif bmp tif tiff ppm avif heic jp2".split()
_END_BYTES = 1024  # two empty blocks
_PART_BYTES = 1024 * 1024  # of what follows them, which is read in parts


@dataclass(frozen=True)
class TarImage:
    """An image in a tar archive; a ``StoredImage``."""

    file: PinnedFile
    offset: int
    num_bytes: int
    name: str

    def read(self) -> bytes:
        """Its bytes, undecoded. Raises BadImage."""
        try:
            return self.file.read(self.offset, self.num_bytes)
        except UsageError as error:
            raise BadImage(str(error)) from error


class TarRows(IndexedRows):
    """The rows of one tar archive.

    Raises:
        UsageError: on opening, the archive is missing, cut off or empty, or a sample is invalid.
    """

    def __init__(self, path: str) -> None:
        open_data(path).close()  # a missing file is told as such
        self.path, self.file = path, pin(path)
        self.index = open_index(Path(path), "whole tar", self._build)  # those of kind "tar" may end too early

    def row(self, index: int) -> Any:
        """Row number ``index`` in LLaVA's format, its images as ``TarImage``s."""
        self.check_index(index)
        ends, text = self.index["member_ends"], self.index["members"]
        start = int(ends[index - 1]) if index else 0
        key, members = json.loads(bytes(text[start : int(ends[index])]))
        return _make_row(TarSample(key, [TarMember(*member) for member in members]), self.file)

    def _build(self) -> Arrays:
        builder = IndexBuilder(self.path)
        members, ends = bytearray(), []
        with LongWork(f"Reading {self.path}", self.file.size, "B") as work:
            for scanned, sample in scan_samples(self.path):
                builder.add(scanned)
                members += json.dumps(sample).encode()
                ends.append(len(members))
                work.move_to(sample.members[-1].offset if sample is not None else 0)
        arrays = builder.finish()
        return {"members": np.frombuffer(members, np.uint8), "member_ends": np.array(ends, np.uint64), **arrays}


def scan_tar(path: str) -> Iterator[ScannedRow]:
    """All rows of an archive, in order; where it is cut off, the last is a fault. Raises UsageError for no archive."""
    for scanned, _ in scan_samples(path):
        yield scanned


class TarMember(NamedTuple):
    """A file in an archive: where its bytes are, and what its name has after the first dot, in lower case."""

    suffix: str
    offset: int
    num_bytes: int


class TarSample(NamedTuple):
    """Successive members whose names begin with the key and a dot."""

    key: str
    members: list[TarMember]


def scan_samples(path: str) -> Iterator[tuple[ScannedRow, TarSample | None]]:
    """Each row, with its sample; None for a fault."""
    open_data(path).close()
    file = pin(path)
    for number, sample in enumerate(_group(path, file)):
        if isinstance(sample, str):
            yield ScannedRow(number, None, fault=sample), None
        else:
            try:
                row = _make_row(sample, file)
            except UsageError as error:
                yield ScannedRow(number, None, fault=str(error)), None
            else:
                num_bytes = sum(each.num_bytes for each in sample.members if each.suffix in ("json", "txt"))
                yield ScannedRow(number, row, sample.members[0].offset, num_bytes), sample


def _group(path: str, file: PinnedFile) -> Iterator[TarSample | str]:
    """The samples of an archive; a text is a fault in the place of one."""
    keys: set[str] = set()
    sample: TarSample | None = None
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # else all are kept in memory
                found = _NAME.fullmatch(member.name)
                if member.isdir() or found is None or _METADATA.match(member.name):
                    continue
                if not member.isreg():
                    yield f"The member '{member.name}' of '{path}' is a link or a device, not a file. Pack the file."
                    continue
                key, suffix = found[1], found[2].lower()
                if sample is not None and key != sample.key:
                    yield sample
                    sample = None
                if sample is None:
                    if key in keys:
                        yield (
                            f"The sample '{key}' of '{path}' comes twice, or its members are apart. Sort the archive "
                            "by name, or give each sample its own name."
                        )
                    keys.add(key)
                    sample = TarSample(key, [])
                sample.members.append(TarMember(suffix, member.offset_data, member.size))
            if sample is not None:
                yield sample
                sample = None
        _check_end(file, archive.offset)
    except (tarfile.TarError, UsageError, OSError, ValueError) as error:
        fault = f"The archive '{path}' {say_foreign(path, error)}"
        if not keys:
            raise UsageError(fault) from error
        if sample is not None and _ends_within(sample, file):
            yield sample
        yield fault


def _ends_within(sample: TarSample, file: PinnedFile) -> bool:
    return all(member.offset + member.num_bytes <= file.size for member in sample.members)


def _check_end(file: PinnedFile, offset: int) -> None:
    """Raises UsageError unless nothing but empty blocks, two at least, follows the last member that was read.

    ``tarfile`` also ends at a damaged header, at the end mark of an archive to which another was appended, and where
    the file ends: whatever samples follow would be missing.
    """
    if file.size - offset < _END_BYTES:
        raise UsageError("the archive has no end mark")
    if any(file.read(offset, _END_BYTES)):
        raise UsageError(f"the header of a member is not valid, at byte {offset}")
    for start in range(offset + _END_BYTES, file.size, _PART_BYTES):
        if any(file.read(start, min(_PART_BYTES, file.size - start))):
            raise UsageError(f"more follows the end mark at byte {offset}, perhaps another archive")


def _make_row(sample: TarSample, file: PinnedFile) -> dict[str, Any]:
    """The row of a sample. Raises UsageError if it has no text, or one that is not valid."""
    where = f"The sample '{sample.key}' of '{file.path}'"
    by_suffix = {member.suffix: member for member in sample.members}
    if len(by_suffix) < len(sample.members):
        raise UsageError(f"{where} has two members of the same name. Pack the archive again.")
    row: Any = {}
    if "json" in by_suffix:
        try:
            row = json.loads(_read_text(by_suffix["json"], file, where))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where} has a .json that is not valid JSON: {error}. Correct or remove it.") from error
        if not isinstance(row, dict):
            raise UsageError(f"{where} has a .json that is not an object. Correct or remove it.")
    if "conversations" not in row and "txt" in by_suffix:
        caption = _read_text(by_suffix["txt"], file, where).strip()
        row["conversations"] = [
            {"from": "human", "value": DEFAULT_IMAGE_TOKEN},
            {"from": "gpt", "value": caption},
        ]
    if not row:
        suffixes = ", ".join(member.suffix for member in sample.members)
        raise UsageError(f"{where} has neither .json nor .txt, only {suffixes}. Add its text, or remove it.")
    row.setdefault("id", sample.key)
    images = sorted(
        (member for member in sample.members if member.suffix.rpartition(".")[2] in _IMAGES), key=_find_order
    )
    if images:
        name = Path(sample.key).name
        stored = [TarImage(file, each.offset, each.num_bytes, f"{name}.{each.suffix}") for each in images]
        row["image"] = stored if len(stored) > 1 else stored[0]
    return row


def _find_order(member: TarMember) -> list[tuple[int, str]]:
    """Numbers in a name sort as numbers: "2.jpg" before "10.jpg"."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", member.suffix)]


def _read_text(member: TarMember, file: PinnedFile, where: str) -> str:
    if member.num_bytes > MAX_ROW_BYTES:
        raise UsageError(
            f"{where} has a .{member.suffix} of {member.num_bytes:,} bytes, which is no sample. Remove it."
        )
    try:
        return file.read(member.offset, member.num_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} has a .{member.suffix} that is not UTF-8. Convert it to UTF-8.") from error
