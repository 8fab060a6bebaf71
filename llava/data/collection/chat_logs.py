"""Reads the server's conversation logs: which requests of users may become training data, and why others may not.

A log is what ``llava serve --log-conversations FILE`` appends (``llava/serve/conversation_log.py``): a JSON object per
line, images by the digest of their pixels in ``FILE-images/``. Logs may be rotated (``FILE.1``, ``FILE-20260131.gz``),
cut, of older versions, or those of the original (haotian-liu/LLaVA@c121f04 llava/serve/gradio_web_server.py, which
have no consent). A record without consent is never used. Every line that is left out is counted with its reason.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from llava.errors import UsageError
from llava.text import find_flaw, fit_line

_MOST_LINE_BYTES = 16 * 2**20
_LATEST_TIME = 1e11  # seconds since 1970; NaN, infinite and longer numbers are no time
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROTATED = re.compile(r"(?:[.-]\d{1,14})+$")
SLOT = "<image>"


@dataclass(frozen=True)
class Turn:
    """What a user asked in one turn. ``images``: digests of their pixels."""

    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class UserRequest:
    """The questions of one logged conversation; the old model's answers are not part of it.

    ``line``: SHA-256 of the line of the log. ``folders``: where its images may be.
    """

    turns: tuple[Turn, ...]
    system: str
    line: str
    log: str
    number: int
    time: float
    consent: str
    folders: tuple[Path, ...] = ()

    @property
    def id(self) -> str:
        """Follows from the questions and images alone, so that the same request has the same id in every run."""
        return f"user-{self.digests[-1][:16]}"

    @property
    def digests(self) -> tuple[str, ...]:
        """A digest for the first turn, the first two turns, and so on."""
        found, digests = hashlib.sha256(json.dumps(self.system).encode()), []
        for turn in self.turns:
            found.update(json.dumps([turn.text, turn.images]).encode())
            digests.append(found.hexdigest())
        return tuple(digests)

    @property
    def images(self) -> tuple[str, ...]:
        """The digests of all images, in order."""
        return tuple(image for turn in self.turns for image in turn.images)

    @property
    def text(self) -> str:
        """All that the user wrote."""
        return "\n".join([self.system, *(turn.text for turn in self.turns)]).strip()


@dataclass
class Removed:
    """What was left out: how much for which reason, and each place with its reason."""

    counts: Counter[str] = field(default_factory=Counter)
    places: list[dict[str, Any]] = field(default_factory=list)

    def add(self, reason: str, request: UserRequest | None = None, *, detail: str = "", place: str = "") -> None:
        """Counts one. ``detail`` is named with the place, and not in the table."""
        self.counts[reason] += 1
        where = f"{request.log}:{request.number}" if request is not None else place
        facts = {"line": request.line, "id": request.id} if request is not None else {}
        self.places.append({"where": where, "reason": reason, **({"detail": detail} if detail else {}), **facts})


def read_logs(
    logs: Sequence[Path], removed: Removed, folders: Sequence[Path] = (), max_turns: int = 1
) -> Iterator[UserRequest]:
    """The requests that may be used, in order; ``removed`` counts all other lines.

    Args:
        folders: where images are, beside the folders that belong to the logs.
        max_turns: how many questions of a conversation are taken: later ones are about the old model's answers.

    Raises:
        UsageError: a log is missing or cannot be read.
    """
    seen: set[bytes] = set()
    for log in logs:
        places = (*_image_folders(log), *folders)
        for number, line, fault in _read_lines(log):
            place = f"{log.name}:{number}"
            if fault:
                removed.add(fault, place=place)
                continue
            digest = hashlib.sha256(line).digest()
            if digest in seen:  # a rotated log and its copy, or the same log named twice
                removed.add("the same line of a log again", place=place)
                continue
            seen.add(digest)
            try:
                yield _parse(json.loads(line), place, digest.hex(), places, max_turns)
            except _LeftOut as reason:
                removed.add(str(reason), place=place)
            except (ValueError, RecursionError):
                removed.add("not JSON (cut off or damaged)", place=place)


def keep_longest(requests: Sequence[UserRequest], removed: Removed) -> list[UserRequest]:
    """The requests without repetitions and without those that a longer conversation repeats and continues."""
    begun = {digest for request in requests for digest in request.digests[:-1]}
    kept: dict[str, UserRequest] = {}
    for request in requests:
        if request.digests[-1] in begun:
            removed.add("continued in a longer conversation", request)
        elif request.id in kept:
            removed.add("the same request again", request)
        else:
            kept[request.id] = request
    return list(kept.values())


def find_image(request: UserRequest, digest: str) -> Path | None:
    """The file of an image; None if it is in none of the folders."""
    paths = (folder / f"{digest}.png" for folder in request.folders)
    return next((path for path in paths if path.is_file()), None)


class _LeftOut(Exception):
    """Why a record is not used."""


def _image_folders(log: Path) -> tuple[Path, ...]:
    """Where the images of a log are, also if the log was rotated and compressed since."""
    names = [log.name, log.name.removesuffix(".gz")]
    names += [_ROTATED.sub("", names[-1])]
    return tuple(log.with_name(f"{name}-images") for name in dict.fromkeys(names))


def _read_lines(log: Path) -> Iterator[tuple[int, bytes, str]]:
    """(number from 1 on, line, fault) of each line of a log that is not empty; a line with a fault is left out."""
    try:
        with _open(log) as file:
            number = 0
            while line := file.readline(_MOST_LINE_BYTES):
                number += 1
                is_long = len(line) >= _MOST_LINE_BYTES and not line.endswith(b"\n")
                while is_long and (rest := file.readline(_MOST_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                if is_long:
                    yield number, b"", f"longer than {_MOST_LINE_BYTES >> 20} MiB"
                elif line.strip(b" \t\r\n\0"):  # a crash of the machine leaves zeros
                    yield number, line.strip(b" \t\r\n\0"), ""
    except (EOFError, zlib.error, gzip.BadGzipFile):
        yield number + 1, b"", "the compressed log is cut off or damaged here"
    except OSError as error:
        raise UsageError(f"The log '{fit_line(str(log))}' cannot be read: {error.strerror or error}.") from error


def _open(log: Path) -> IO[bytes]:
    return gzip.open(log, "rb") if log.suffix == ".gz" else log.open("rb")  # type: ignore[return-value]


def _parse(record: Any, place: str, line: str, folders: tuple[Path, ...], max_turns: int) -> UserRequest:
    """The request in a record. Raises _LeftOut."""
    if not isinstance(record, dict):
        raise _LeftOut("not a record of a conversation")
    consent = record.get("consent")
    if not (isinstance(consent, str) and consent.strip()):
        raise _LeftOut("no consent")
    if record.get("kind") != "answer":
        raise _LeftOut("a vote" if record.get("kind") == "vote" else "a record of an unknown kind")
    if record.get("outcome") != "answered":
        raise _LeftOut("the request was not answered")
    if record.get("source") != "web":  # the server shows the notice on its page, and writes consent nowhere else
        raise _LeftOut("consent in a record that is not of the web chat")
    system, turns = _parse_messages(record.get("messages"))
    log, _, number = place.rpartition(":")
    time = record.get("time")
    return UserRequest(
        turns=turns[: max(1, max_turns)],
        system=system,
        line=line,
        log=log,
        number=int(number),
        time=float(time) if isinstance(time, (int, float)) and 0 <= time < _LATEST_TIME else 0.0,
        consent=consent,
        folders=folders,
    )


def _parse_messages(messages: Any) -> tuple[str, tuple[Turn, ...]]:
    """The system text and the questions. Raises _LeftOut."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _LeftOut("no messages")
    said = [(message.get("role"), _parse_parts(message.get("parts"))) for message in messages]
    system = ""
    if said and said[0][0] == "system":
        system = said.pop(0)[1].text
    if not said or [role for role, _ in said] != [("user", "assistant")[i % 2] for i in range(len(said))]:
        raise _LeftOut("the speakers do not take turns")
    turns = tuple(turn for role, turn in said if role == "user")
    for text in (system, *(turn.text for turn in turns)):
        if find_flaw(text) is not None:
            raise _LeftOut("invalid text")
        if SLOT in text:  # it would become a slot for an image
            raise _LeftOut(f"the text holds the markup {SLOT}")
    if not all(turn.text for turn in turns):
        raise _LeftOut("an empty question")
    return system, turns


def _parse_parts(parts: Any) -> Turn:
    if not isinstance(parts, list):
        raise _LeftOut("a message without parts")
    texts = [part for part in parts if isinstance(part, str)]
    images = [part.get("sha256") for part in parts if isinstance(part, dict)]
    if len(texts) + len(images) != len(parts):
        raise _LeftOut("a message with an unknown part")
    if not all(isinstance(image, str) and _DIGEST.fullmatch(image) for image in images):
        raise _LeftOut("an image without a digest")
    return Turn("\n".join(texts).strip(), tuple(images))  # type: ignore[arg-type]
