"""What is wrong with one row of a data file, its images decoded: what ``llava data check`` asks of every row."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.data.image_files import find_image
from llava.data.json_scan import ScannedRow
from llava.data.records import BadRow, Record, StoredImage, parse_record
from llava.errors import BadImage, LlavaError
from llava.image.geometry import Size
from llava.image.misfits import identify
from llava.image.source import Limits, load_image

# Fields that are read, here or in training; ``width`` and ``height`` are those of its images.
_KNOWN_FIELDS = {"id", "image", "conversations", "data_source", "video", "width", "height"}
# What does not make a row unusable: it is counted, and named in the file of findings.
NOTES = ("unknown field", "over the context")
_LIMITS = Limits(draws_damaged=False)
_MOST_REMEMBERED = 100_000  # images whose result a check keeps, in each of its processes

Meter = Callable[[Sequence[tuple[str, str]], Sequence[Size]], tuple[int, int | None]]
"""Tokens, image positions included, of turns with images of these sizes; and the model's context."""


@dataclass(slots=True)
class RowFacts:
    """What was found out about a row: (kind, reason) of each finding, its lengths, and digests for duplicates."""

    number: int
    file: str
    id: str = ""
    source: str = ""
    num_words: int = 0
    num_images: int = 0
    num_tokens: int | None = None
    id_digest: str = ""
    content_digest: str = ""
    findings: list[tuple[str, str]] = field(default_factory=list)

    def to_list(self) -> list[Any]:
        """The values as JSON has them; ``from_list`` makes the same of them."""
        return [getattr(self, name) for name in self.__slots__]

    @staticmethod
    def from_list(values: list[Any]) -> RowFacts:
        """The facts with these values. Raises ValueError and TypeError for others."""
        facts = RowFacts(*values)
        facts.file, facts.source = sys.intern(facts.file), sys.intern(facts.source)
        facts.findings = [(kind, reason) for kind, reason in facts.findings]
        return facts

    @property
    def is_bad(self) -> bool:
        """Whether a finding makes the row unusable."""
        return any(kind not in NOTES for kind, _ in self.findings)


@dataclass(frozen=True)
class RowChecker:
    """Checks rows against the images in ``folder``, and measures them with ``meter``, if there is one."""

    folder: Path
    allows_outside: bool = False
    meter: Meter | None = None
    # Of files, by their names: many rows are about the same image. A later check may find other files under them.
    _looked: dict[str, _Seen | tuple[str, str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def check(self, scanned: ScannedRow, file: str) -> RowFacts:
        """The facts about one row."""
        facts = RowFacts(scanned.number, file)
        if scanned.fault:
            facts.findings.append(("unreadable", scanned.fault))
            return facts
        try:
            record = parse_record(scanned.row, scanned.number, file)
        except BadRow as error:
            row_id = scanned.row.get("id", "") if isinstance(scanned.row, Mapping) else ""
            facts.id = str(row_id)
            facts.findings.append((error.kind, str(error)))
            return facts
        facts.id, facts.source = record.id, sys.intern(record.source)
        facts.num_words, facts.num_images = record.num_words, len(record.images)
        if "id" in scanned.row:
            facts.id_digest = _digest(str(scanned.row["id"]))
        images = [image if isinstance(image, str) else _Stored.read(image) for image in record.images]
        facts.content_digest = _digest(json.dumps([record.turns, [_identify(image) for image in images]]))
        facts.findings += [
            ("unknown field", f"'{name}' is ignored") for name in scanned.row if name not in _KNOWN_FIELDS
        ]
        _check_slots(record, facts)
        sizes = self._check_images(images, scanned.row, facts)
        if self.meter is not None and not facts.is_bad:
            _measure(self.meter, record, sizes, facts)
        return facts

    def _check_images(self, images: Sequence[str | _Stored], row: Mapping[str, Any], facts: RowFacts) -> list[Size]:
        sizes = []
        for position, image in enumerate(images):
            found = self._look(image)
            if isinstance(found, tuple):
                facts.findings.append(found)
                continue
            sizes.append(found.upright)
            declared = _read_declared(row, position)
            if declared is not None and declared not in (found.upright, found.stored):
                reason = f"{_name(image)} has {found.upright} px, but the row says {declared}"
                facts.findings.append(("wrong size", reason))
        return sizes

    def _look(self, image: str | _Stored) -> _Seen | tuple[str, str]:
        if isinstance(image, str):
            if image not in self._looked:
                if len(self._looked) >= _MOST_REMEMBERED:
                    self._looked.clear()
                self._looked[image] = _look_at_file(self.folder, image, self.allows_outside)
            return self._looked[image]
        return ("broken image", image.fault) if image.content is None else _decode(image.content, image.name)


@dataclass(frozen=True)
class _Stored:
    """An image that the data file holds; ``fault`` says why its content could not be read."""

    name: str
    content: bytes | None
    fault: str = ""

    @classmethod
    def read(cls, image: StoredImage) -> _Stored:
        try:
            return cls(image.name, image.read())
        except BadImage as error:
            return cls(image.name, None, str(error))


def _identify(image: str | _Stored) -> str:
    """What is the same for the same image: names in a data file may be too, of different ones."""
    if isinstance(image, str):
        return image
    return image.name if image.content is None else hashlib.blake2b(image.content, digest_size=16).hexdigest()


@dataclass(frozen=True)
class _Seen:
    upright: Size
    stored: Size


def _look_at_file(folder: Path, name: str, allows_outside: bool) -> _Seen | tuple[str, str]:
    """The sizes of an image that was decoded, or what is wrong with it."""
    try:
        path = find_image(folder, name, allows_outside=allows_outside)
    except BadImage as error:
        kind = "missing image" if "There is no image" in str(error) else "image not allowed"
        return kind, str(error)
    try:
        data = path.read_bytes()
    except OSError as error:
        return "broken image", f"{path} cannot be read: {error.strerror or error}."
    return _decode(data, str(path))


def _decode(data: bytes, name: str) -> _Seen | tuple[str, str]:
    if not data:
        return "broken image", f"{name} is empty."
    foreign = identify(data)
    if foreign is not None and "HTML" in foreign.kind:
        return "image is HTML", f"{name} is {foreign.kind}, perhaps an error that a server answered. Fetch it again."
    try:
        loaded = load_image(data, _LIMITS)
    except BadImage as error:
        return "broken image", str(error).replace("The image", name, 1)
    return _Seen(loaded.size, loaded.stored or loaded.size)


def count_slots(record: Record) -> int:
    """The image slots that training finds in the turns: several in a turn about one image are one.

    Source: haotian-liu/LLaVA@c121f04 llava/train/train.py, preprocess_multimodal.
    """
    counts = [text.count(DEFAULT_IMAGE_TOKEN) for _, text in record.turns]
    return sum(min(count, 1) for count in counts) if len(record.images) == 1 else sum(counts)


def _check_slots(record: Record, facts: RowFacts) -> None:
    num_slots = count_slots(record)
    if num_slots != len(record.images):
        reason = f"{num_slots} {DEFAULT_IMAGE_TOKEN} in its text, but {len(record.images)} images"
        facts.findings.append(("slots and images", reason))


def _measure(meter: Meter, record: Record, sizes: Sequence[Size], facts: RowFacts) -> None:
    try:
        facts.num_tokens, limit = meter(record.turns, sizes)
    except LlavaError as error:
        facts.findings.append(("not for the model", str(error)))
        return
    if limit is not None and facts.num_tokens > limit:
        facts.findings.append(("over the context", f"{facts.num_tokens} tokens; the model's context holds {limit}"))


def _read_declared(row: Mapping[str, Any], position: int) -> Size | None:
    """The size that a row declares for one of its images, in ``width`` and ``height``: numbers or lists of them."""
    sides = []
    for name in ("width", "height"):
        value = row.get(name)
        if isinstance(value, list):
            value = value[position] if position < len(value) else None
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        sides.append(value)
    return Size(*sides)


def _name(image: str | _Stored) -> str:
    return image if isinstance(image, str) else image.name


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
