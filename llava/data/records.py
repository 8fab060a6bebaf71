"""A record: one conversation with the images that it is about, as a data file has it.

For all formats of data files: a reader makes records of rows, and training and evaluation take records. Nothing here
opens an image. No torch, no tokenizer, no template: a record says who says what, and not how it is written.

Source: haotian-liu/LLaVA@c121f04 docs/Finetune_Custom_Data.md and llava/train/train.py (the fields, the leading
answer); LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py (a list of images, ``role`` and ``content``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from llava.errors import UsageError
from llava.text import find_flaw, fit_line

# The speakers that a turn may name, and what a record calls them.
SPEAKERS = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt", "system": "system"}

_REMEDY = "Correct the row, or remove it."
_LONG_TEXT = 1024 * 1024  # characters
_WORD = re.compile(r"\S+")


class BadRow(UsageError):
    """A row of a data file is invalid. ``kind`` says in one or two words what about it is."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)

    def __reduce__(self) -> tuple[type[BadRow], tuple[str, str]]:
        return type(self), (self.kind, str(self))


@runtime_checkable
class StoredImage(Protocol):
    """An image that a data file holds itself, as a parquet column or a member of a tar archive. It can be pickled."""

    @property
    def name(self) -> str:
        """What messages call it: its own file name, or else its place in the data file."""
        ...

    def read(self) -> bytes:
        """Its bytes, undecoded. Raises BadImage for one that cannot be read."""
        ...


@dataclass(frozen=True)
class Record:
    """A conversation about images.

    Attributes:
        id: the row's own ``id``, or else its number in its file, from 0 on.
        images: its images in the order of the slots: the name of a file, or one that the data file holds.
        turns: (speaker, text). A speaker is "human" or "gpt", in turn and with a human first; a leading "system" turn
            and, after it, one leading "gpt" turn are possible.
        source: where it comes from: the row's ``data_source``, or else its file.
        place: the row that it was in messages, such as "row 3 of 'data.json'".
    """

    id: str
    images: tuple[str | StoredImage, ...]
    turns: tuple[tuple[str, str], ...]
    source: str = ""
    place: str = field(default="", compare=False)

    @property
    def num_words(self) -> int:
        """Words of all turns, separated by white space: the measure by which both originals group by length."""
        return sum(map(_count_words, (text for _, text in self.turns)))


def _count_words(text: str) -> int:
    if len(text) < _LONG_TEXT:
        return len(text.split())
    return sum(1 for _ in _WORD.finditer(text))  # slower, but without a list of millions of words


class RecordSource(Protocol):
    """Records by number, from 0 on; the same number always gives the same record."""

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """Record number ``index``. Raises UsageError for one that is invalid."""
        ...


def parse_record(row: Any, number: int, file: str) -> Record:
    """The record in a row of LLaVA's data format.

    ``image`` is absent, a name or a ``StoredImage``, or a list of these, and ``conversations`` a list of
    ``{"from": …, "value": …}`` or ``{"role": …, "content": …}``.

    Args:
        number: of the row in its file, from 0 on.
        file: its name, for messages.

    Raises:
        BadRow: (a UsageError) a field is missing or has the wrong type, the speakers are unknown or in an impossible
            order, or nobody answers; the file, the row and the remedy are named.
    """
    if not isinstance(row, Mapping):
        raise BadRow(
            "no row", f"Row {number} of '{file}' is {_say_type(row)}, not an object with 'conversations'. {_REMEDY}"
        )
    id = str(number if row.get("id") is None else row["id"])
    where = f"Row {number} of '{file}'" + (f" (id {fit_line(id)})" if row.get("id") is not None else "")
    if row.get("video") is not None:
        raise BadRow("video", f"{where} is about a video, and videos are not supported. {_REMEDY}")
    if "conversations" not in row:
        keys = fit_line(", ".join(map(str, row)))
        raise BadRow("turns", f"{where} needs a list 'conversations', but has {keys or 'nothing'}. {_REMEDY}")
    turns = parse_turns(row["conversations"], where)
    if "image" not in row and (lookalike := _find_lookalike(row)) is not None:
        raise BadRow(
            "image field",
            f"{where} has '{lookalike}': one image's name, or a list of them, is called 'image'. {_REMEDY}",
        )
    source = row.get("data_source")
    source = source if isinstance(source, str) else file
    return Record(id, _parse_images(row.get("image"), where), turns, source, f"row {number} of '{file}'")


def parse_turns(conversations: Any, where: str) -> tuple[tuple[str, str], ...]:
    """The turns of a conversation, as ``Record.turns``.

    Args:
        where: what messages begin with, such as "Row 3 of 'data.json'".

    Raises:
        UsageError: as ``parse_record`` does.
    """
    if not isinstance(conversations, Sequence) or isinstance(conversations, str):
        raise BadRow("turns", f"{where} needs a list 'conversations', which is {_say_type(conversations)}. {_REMEDY}")
    turns = tuple(_parse_turn(turn, where, i + 1) for i, turn in enumerate(conversations))
    check_order([speaker for speaker, _ in turns], where)
    if not any(text for speaker, text in turns[find_first_question(turns) :] if speaker == "gpt"):
        raise BadRow(
            "no answer", f"{where} has no answer: nothing can be learned from it. Add a turn by 'gpt', or remove it."
        )
    return turns


def find_first_question(turns: Sequence[tuple[str, str]]) -> int:
    """The index of the first turn after a leading system turn and a leading answer, which no template can express."""
    first = int(bool(turns) and turns[0][0] == "system")
    return first + int(turns[first : first + 1] != () and turns[first][0] == "gpt")


def check_order(speakers: Sequence[str], where: str) -> None:
    """Raises UsageError unless human and gpt take turns, possibly after a system turn and a leading answer."""
    said = list(speakers)
    rest = said[1:] if said[:1] == ["system"] else said
    rest = rest[1:] if rest[:1] == ["gpt"] else rest
    if rest != [("human", "gpt")[i % 2] for i in range(len(rest))]:
        raise BadRow(
            "role order",
            f"{where}: the speakers have to take turns, human and then gpt, with at most one system turn before them. "
            f"They are: {', '.join(said)}. {_REMEDY}",
        )


def _parse_turn(turn: Any, where: str, number: int) -> tuple[str, str]:
    if isinstance(turn, Mapping):
        keys = ("from", "value") if "from" in turn else ("role", "content")
        name, text = turn.get(keys[0]), turn.get(keys[1])
        speaker = SPEAKERS.get(name) if isinstance(name, str) else None
        if speaker and isinstance(text, str) and (text.isascii() or find_flaw(text.replace("\0", "")) is None):
            return speaker, text
    raise _find_fault(turn, f"{where}, turn {number}")


def _find_fault(turn: Any, where: str) -> BadRow:
    """What is wrong with a turn that is invalid."""
    if not isinstance(turn, Mapping):
        return BadRow("turns", f"{where} is {_say_type(turn)}, not an object with 'from' and 'value'. {_REMEDY}")
    keys = ("from", "value") if "from" in turn else ("role", "content")
    name, text = turn.get(keys[0]), turn.get(keys[1])
    if not isinstance(name, str) or name not in SPEAKERS:
        return BadRow("unknown speaker", f"{where} is by {name!r}; it has to be by {', '.join(SPEAKERS)}. {_REMEDY}")
    if not isinstance(text, str):
        found = "is missing" if keys[1] not in turn else f"is {_say_type(text)}"
        return BadRow("turns", f"{where} needs a text '{keys[1]}', which {found}. {_REMEDY}")
    return BadRow("text", f"{where}: the text {text[:40]!a} {find_flaw(text.replace(chr(0), ''))}. {_REMEDY}")


def _parse_images(image: Any, where: str) -> tuple[str | StoredImage, ...]:
    names = () if image is None else image if isinstance(image, (list, tuple)) else (image,)
    if not all((isinstance(name, str) and name) or isinstance(name, StoredImage) for name in names):
        raise BadRow(
            "image field", f"{where}: 'image' is {image!r:.80}; it has to be a file's name or a list of them. {_REMEDY}"
        )
    return tuple(names)


def _find_lookalike(row: Mapping[Any, Any]) -> str | None:
    """A key that is meant to be ``image``; with it, an image would be ignored."""
    return next((str(key) for key in row if str(key).lower() in ("image", "images") and row[key]), None)


def _say_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
