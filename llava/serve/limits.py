"""Every limit of the server and how it is set up, in one place. Light: the command line reads its flags from here.

Each limit is refused by name: a refusal says the limit, the value that exceeds it, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


def _limit(default: float, text: str) -> Any:
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class Limits:
    """What a request may cost, and how many there may be at once. Times are seconds."""

    body_bytes: int = _limit(32 * 2**20, "a request's body")
    body_s: float = _limit(30.0, "until a request's body has come")
    values: int = _limit(300_000, "values in a request's JSON, told by its commas before it is parsed")
    messages: int = _limit(256, "messages of a conversation")
    parts: int = _limit(1024, "texts and images that the messages are put together from")
    characters: int = _limit(262_144, "characters of text in a request, counted before anything is tokenized")
    images: int = _limit(16, "images in a request")
    image_bytes: int = _limit(20 * 2**20, "an image's file")
    image_pixels: int = _limit(25_000_000, "width times height of an image, as its header says")
    image_side_px: int = _limit(16_384, "the longer side of an image")
    images_bytes: int = _limit(2**30, "the decoded images of all requests together; requests wait for room")
    decode_s: float = _limit(10.0, "until an image is decoded")
    fetch_s: float = _limit(10.0, "until an image is fetched, redirects included")
    fetched_bytes: int = _limit(64 * 2**20, "the files that are fetched for a request, together")
    fetch_redirects: int = _limit(3, "redirects on the way to an image")
    upload_bytes: int = _limit(2**30, "the images that the web chat keeps for open conversations, together")
    new_tokens: int = _limit(4096, "new tokens of an answer; what asks for more gets this, or what the context holds")
    choices: int = _limit(8, "answers to one request (n)")
    stop_texts: int = _limit(4, "stop texts")
    stop_characters: int = _limit(256, "characters of a stop text")
    running: int = _limit(32, "requests that are answered at once")
    waiting: int = _limit(128, "requests that wait for their turn; one more is answered 429")
    answer_s: float = _limit(600.0, "until an answer is complete, waiting included")
    header_s: float = _limit(10.0, "until a request's headers have come, or the rest of a body that was refused")
    header_bytes: int = _limit(64 * 2**10, "a request's headers")
    keep_alive_s: float = _limit(75.0, "that a connection stays open without a request")
    status_s: float = _limit(1.0, "that a stream's headers wait for its first token, so that errors have a status")
    silence_s: float = _limit(10.0, "of silence in a stream until a comment keeps its connection alive")
    send_s: float = _limit(30.0, "that a reader may leave a piece of an answer unread")
    drain_s: float = _limit(30.0, "that running answers get to finish after SIGTERM")

    def __post_init__(self) -> None:
        from llava.errors import UsageError

        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name in ("waiting", "images", "fetch_redirects") else 1
            if one.name.endswith("_s"):
                least = 0
            # Beyond some 24 days a socket has no timeout any more.
            most = 10**6 if one.name.endswith("_s") else 2**53 - 1
            if not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise UsageError(f"The limit {one.name} is {value}; it has to be {bound}.")


@dataclass(frozen=True)
class Settings:
    """How the server is set up.

    Attributes:
        keys: what clients have to send as ``Authorization: Bearer KEY``; none lets everybody in.
        origins: web pages that may ask from a browser (CORS).
        hosts: what the server is called: a request that names another host is refused; none asks for no name, except
            where ``is_local`` and no key protects the server.
        is_local: whether only this machine reaches it. Then a foreign name in ``Host`` is a page of some website that
            had its name lead here (DNS rebinding).
        root_path: the prefix under which a proxy shows it, such as ``/llava``.
        fetch: whether images are fetched by URL; ``fetch_hosts``: from these hosts only; ``fetch_private``: also from
            addresses that are not public.
        address: what clients of the original's controller are told to ask.
        log: a file to which conversations are written, one JSON object a line.
        decoders: processes that decode images.
        keeps_keys_apart: what the engine remembers for one key (prompts, images) serves no other: from how soon an
            answer begins, nobody learns what others have asked.
    """

    limits: Limits = field(default_factory=Limits)
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    is_local: bool = True
    root_path: str = ""
    fetch: bool = True
    fetch_hosts: tuple[str, ...] = ()
    fetch_private: bool = False
    address: str = "http://127.0.0.1:8000"
    log: Path | None = None
    decoders: int = 2
    keeps_keys_apart: bool = False


def describe_limits() -> list[tuple[str, str, str]]:
    """Name, default with its unit, and meaning of every limit, for the manual."""
    rows = []
    for one in fields(Limits):
        value: Any = one.default
        shown = f"{value:,}"
        if one.name.endswith("_bytes"):
            shown = f"{value // 2**20:,} MiB" if value >= 2**20 else f"{value // 2**10} KiB"
        elif one.name.endswith("_s"):
            shown = f"{value:g} s"
        rows.append((one.name, shown, one.metadata["text"]))
    return rows
