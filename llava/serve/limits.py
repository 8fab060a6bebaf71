"""Every limit of the server with its default, and the settings that its parts read. Light: no torch, no FastAPI.

A refusal names the limit, the value that exceeds it, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


def _limit(default: float, text: str, flag: str | None = None) -> Any:
    """A limit. ``flag``: its flag of ``llava serve``, for those that operators set; a config file sets them all."""
    return field(default=default, metadata={"text": text, "flag": flag})


@dataclass(frozen=True)
class Limits:
    """What one request may cost, and how many are served at once. Times are in seconds.

    Raises UsageError for a value out of range.
    """

    body_bytes: int = _limit(32 * 2**20, "size of a request's body", "--max-body-bytes")
    body_s: float = _limit(30.0, "time for a request's body to arrive")
    values: int = _limit(300_000, "JSON values in a request, estimated from its commas before it is parsed")
    messages: int = _limit(256, "messages in a conversation")
    parts: int = _limit(1024, "texts and images in all messages together")
    characters: int = _limit(262_144, "characters of text in a request, counted before tokenization")
    images: int = _limit(16, "images in a request", "--max-images")
    image_bytes: int = _limit(20 * 2**20, "size of an image file")
    image_pixels: int = _limit(25_000_000, "width times height of an image, read from its header", "--max-image-pixels")
    image_side_px: int = _limit(16_384, "the longer side of an image")
    images_bytes: int = _limit(2**30, "memory for the decoded images of all requests; a request waits until it is free")
    decode_s: float = _limit(10.0, "time to decode an image")
    fetch_s: float = _limit(10.0, "time to fetch an image, including redirects")
    fetched_bytes: int = _limit(64 * 2**20, "size of all files fetched for a request")
    fetch_redirects: int = _limit(3, "redirects while an image is fetched")
    upload_bytes: int = _limit(2**30, "disk space for the web chat's uploads of the last day", "--max-upload-bytes")
    new_tokens: int = _limit(
        4096,
        "new tokens in an answer; a request for more gets this many, or what the context holds",
        "--max-new-tokens",
    )
    choices: int = _limit(8, "choices per request (n)")
    stop_texts: int = _limit(4, "stop texts in a request")
    stop_characters: int = _limit(256, "characters in a stop text")
    running: int = _limit(32, "requests answered concurrently", "--max-running")
    waiting: int = _limit(128, "queued requests; further ones are answered 429", "--max-waiting")
    answer_s: float = _limit(600.0, "time for an answer, including its time in the queue", "--max-answer-s")
    header_s: float = _limit(10.0, "time for a request's headers, or the rest of a refused body, to arrive")
    header_bytes: int = _limit(64 * 2**10, "size of a request's headers")
    keep_alive_s: float = _limit(75.0, "time that an idle connection stays open", "--keep-alive-s")
    status_s: float = _limit(1.0, "time that a stream's headers wait for its first token, so that errors get a status")
    silence_s: float = _limit(10.0, "silence in a stream after which a keep-alive comment is sent")
    send_s: float = _limit(30.0, "time that a client may leave a piece of its answer unread")
    drain_s: float = _limit(30.0, "time for running answers to finish after SIGTERM", "--max-drain-s")

    def __post_init__(self) -> None:
        from llava.errors import UsageError

        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name in ("waiting", "images", "fetch_redirects") else 1
            if one.name.endswith("_s"):
                least = 0
            # A socket timeout of more than about 24 days overflows.
            most = 10**6 if one.name.endswith("_s") else 2**53 - 1
            if not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise UsageError(f"The limit {one.name} is {value}; it has to be {bound}.")


@dataclass(frozen=True)
class Settings:
    """How the server is set up.

    Attributes:
        keys: API keys, one of which a client sends as ``Authorization: Bearer KEY``; with none, all clients are served.
        origins: origins of web pages that may send requests from a browser (CORS).
        hosts: the server's host names; requests with another ``Host`` are refused. If empty, any name is accepted,
            except where ``is_local`` holds and there are no ``keys``.
        is_local: whether the server listens on a loopback address only. An unknown name in ``Host`` is then a sign of
            DNS rebinding: a website whose name resolves to this machine.
        root_path: the path prefix under which a proxy publishes the server, such as ``/llava``.
        fetch: whether images are fetched by URL; ``fetch_hosts``: from these hosts only; ``fetch_private``: from
            non-public addresses too.
        address: the server's URL as the original's controller gives it to clients.
        log: a file to which conversations are appended, one JSON object per line.
        consent: the notice that the web chat shows about the use of logged conversations, written to each of its
            records as the user's consent; "" if users were not asked.
        decoders: the number of processes that decode images.
        keeps_keys_apart: whether each API key has a prefix cache and an image cache of its own, so that response times
            reveal nothing about the requests of other keys.
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
    consent: str = ""
    decoders: int = 2
    keeps_keys_apart: bool = False
