"""Writes the rows of a converter to a file, all or nothing, and counts what was left out and why.

The rows are streamed to a temporary file beside the target, which gets its name when it is complete: an interrupted
conversion leaves nothing that looks finished, and starts over. No torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.convert.converter import Converter, LeftOut, Options, Row
from llava.data.records import Record, parse_record
from llava.data.whole_file import whole_file
from llava.errors import LlavaError, UsageError
from llava.text import write_line

_FORMATS = (".json", ".jsonl")
_SAY_EVERY_S = 5.0


@dataclass
class Written:
    """What a conversion wrote.

    Attributes:
        path: the file.
        num_rows, num_answers, num_images: rows, answers in them, and different images.
        num_renamed: rows whose id had occurred before, to which a number was added.
        by_source: rows by ``data_source``.
        left_out: what was not converted.
    """

    path: Path
    num_rows: int = 0
    num_answers: int = 0
    num_images: int = 0
    num_renamed: int = 0
    by_source: dict[str, int] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)

    def describe(self) -> str:
        """What was written and what was left out, as lines."""
        images = f" about {_count(self.num_images, 'image')}" if self.num_images else ""
        lines = [f"{self.path}: {_count(self.num_rows, 'row')}{images}, with {_count(self.num_answers, 'answer')}"]
        if len(self.by_source) > 1:
            lines += [f"  {num:9,}  {source}" for source, num in sorted(self.by_source.items())]
        if self.num_renamed:
            lines.append(f"  a number was added to the id of {_count(self.num_renamed, 'row')}, since it had occurred")
        for reason, num in self.left_out.counts.items():
            examples = self.left_out.examples[reason]
            more = ", ..." if num > len(examples) else ""
            lines.append(f"  left out, since it {reason}: {num:,} ({', '.join(examples)}{more})")
        return "\n".join(lines)


def convert(
    converter: Converter,
    src: Path,
    dst: Path,
    options: Options,
    *,
    limit: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Written:
    """Converts the dataset in ``src`` and writes its rows to ``dst``.

    Args:
        src: the folder with the dataset's files, or the file if there is one only.
        dst: a new file, .json for a list or .jsonl for a row in each line.
        options: ``left_out`` is filled.
        limit: stop after this number of rows.
        clock: seconds, for progress.

    Raises:
        UsageError: files are missing or wrong, ``dst`` exists or has another suffix.
        LlavaError: ``dst`` cannot be written, or nothing is left to write.
    """
    source = converter.find_source(src, options.split)
    written = Written(check_target(dst), left_out=options.left_out)
    lines = _check_rows(converter.convert(source, options), converter, options, written)
    with write_whole(dst) as write:
        said_at = clock()
        for line in lines:
            write(f"{line}\n" if dst.suffix == ".jsonl" else f"{'[' if written.num_rows == 1 else ','}\n{line}")
            if limit is not None and written.num_rows >= limit:
                break
            if clock() - said_at >= _SAY_EVERY_S:
                said_at = clock()
                write_line(f"llava: {_count(written.num_rows, 'row')}")
        if not written.num_rows:
            reasons = "".join(f" {num:,}: {reason}." for reason, num in written.left_out.counts.items())
            raise LlavaError(f"Nothing of {converter.title} was converted, and nothing was written.{reasons}")
        if dst.suffix == ".json":
            write("\n]\n")
    return written


def check_target(dst: Path) -> Path:
    """``dst``, which has to be a new .json or .jsonl file in a folder that exists. Raises UsageError."""
    if dst.suffix not in _FORMATS:
        raise UsageError(f"'{dst}' has to end with .json (a list) or .jsonl (a row in each line).")
    if dst.exists() or dst.is_symlink():
        raise UsageError(f"'{dst}' exists already. Remove it, or name another file.")
    if not dst.parent.is_dir():
        raise UsageError(f"The folder '{dst.parent}' does not exist. Create it first.")
    return dst


@contextlib.contextmanager
def write_whole(dst: Path) -> Iterator[Callable[[str], Any]]:
    """A function that writes text to ``dst``, which appears with everything written when the block ends, or not at all.

    Raises as ``whole_file`` does for a new file.
    """
    with whole_file(dst, is_new=True) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        yield file.write


@contextlib.contextmanager
def list_left_out(path: Path | None) -> Iterator[LeftOut]:
    """Counts what is left out, and writes {"reason", "what"} in a line of ``path`` for each, unless that is None.

    The list is written, too, when the conversion in the block fails.

    Raises:
        UsageError: ``path`` exists.
        LlavaError: it cannot be written.
    """
    if path is None:
        yield LeftOut()
        return
    if path.exists() or path.is_symlink():
        raise UsageError(f"'{path}' exists already. Remove it, or name another file.")
    failure: LlavaError | None = None
    with write_whole(path) as write:
        try:
            yield LeftOut(listener=lambda reason, thing: write(json.dumps({"reason": reason, "what": thing}) + "\n"))
        except LlavaError as error:
            failure = error
    if failure is not None:
        raise failure


def make_image_saver(folder: Path) -> Callable[[str, bytes], None]:
    """A function (name, data) that stores an image in ``folder``, for ``Options.save_image``.

    An image appears complete or not at all; one that is there already with the same bytes is kept. The function raises
    UsageError for a name that leaves the folder, or that another image has, and LlavaError for a full disk.
    """

    def save(name: str, data: bytes) -> None:
        if leaves_folder(name):
            raise UsageError(f"The image name '{name}' leaves the folder '{folder}'. The dataset's file is damaged.")
        path = folder / name
        try:
            if path.is_file():
                if path.read_bytes() == data:
                    return
                raise UsageError(f"'{path}' exists already, and is another image. Save the images to a new folder.")
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as unfinished:
                unfinished.write_bytes(data)
        except OSError as error:
            raise LlavaError(f"The image '{path}' cannot be written: {error.strerror or error}.") from error

    return save


def leaves_folder(name: str) -> bool:
    """Whether an image's name is not a plain path below the image folder."""
    parts = PurePosixPath(name).parts
    return not parts or "\\" in name or "\0" in name or name.startswith("/") or ".." in parts


def _check_rows(rows: Iterable[Row], converter: Converter, options: Options, written: Written) -> Iterator[str]:
    """The rows that can be trained on, with unique ids, as JSON; the others are left out."""
    digests: set[bytes] = set()
    num_of_id: dict[str, int] = {}
    images: set[str] = set()
    absent: set[str] = set()
    for number, row in enumerate(rows):
        try:
            record = parse_record(row, number, converter.name)
        except UsageError as error:
            options.leave_out("is a row that cannot be trained on", str(error))
            continue
        names = tuple(str(name) for name in record.images)
        fault = _find_fault(record, names, options.images, images, absent)
        if fault is not None:
            options.leave_out(fault, f"{record.id} ({', '.join(names)})" if names else record.id)
            continue
        line = _encode(row)
        try:
            digest = hashlib.blake2b(line.encode(), digest_size=16).digest()
        except UnicodeEncodeError:  # a lone surrogate in a field that is not a turn
            options.leave_out("holds text that is not valid Unicode", record.id)
            continue
        if digest in digests:
            options.leave_out("is the same row again", record.id)
            continue
        digests.add(digest)
        id = _make_unique(record.id, num_of_id)
        written.num_renamed += id != record.id
        images.update(names)
        written.num_rows += 1
        written.by_source[record.source] = written.by_source.get(record.source, 0) + 1
        written.num_answers += sum(speaker == "gpt" for speaker, _ in record.turns)
        written.num_images = len(images)
        yield line if row.get("id") == id else _encode({**row, "id": id})


def _find_fault(
    record: Record, names: tuple[str, ...], folder: Path | None, present: set[str], absent: set[str]
) -> str | None:
    """Why a row cannot be used, as a clause; None if it can. ``absent`` and ``present`` are what is known of images."""
    slots = sum(text.count(DEFAULT_IMAGE_TOKEN) for _, text in record.turns)
    if slots != len(names):
        return f"has {DEFAULT_IMAGE_TOKEN} {_count(slots, 'time')} for {_count(len(names), 'image')}"
    for name in names:
        if leaves_folder(name):
            return "has an image outside the image folder"
        if folder is not None and name not in present and (name in absent or not os.path.isfile(folder / name)):
            absent.add(name)
            return "has an image that is absent"
    return None


def _make_unique(id: str, num_of_id: dict[str, int]) -> str:
    """The id, or one with a number if it has occurred; ``num_of_id`` counts each id's rows."""
    unique = id
    while unique in num_of_id:
        num_of_id[id] += 1
        unique = f"{id}-{num_of_id[id]}"
    num_of_id[unique] = 1
    return unique


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}" if num == 1 else f"{num:,} {noun}s"


def _encode(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)
