"""A conversation log as the server writes it, and a teacher that says what a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from llava.image.source import load_image

NOTICE = "Chats may be used to train models."


def draw(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """An image that resembles no other: noise at two scales."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.blend(coarse, Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)), 0.15)


class Log:
    """A log and the folder of its images."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.with_name(f"{path.name}-images")

    def save(self, image: Image.Image) -> str:
        """Saves an image as the web chat does; returns its digest."""
        self.folder.mkdir(exist_ok=True)
        digest = load_image(image).digest
        image.save(self.folder / f"{digest}.png")
        return digest

    def add(self, *said: Any, **changes: Any) -> dict[str, Any]:
        """Appends an answered request; each of ``said`` is a text, or a list of digests of images and texts."""
        messages = []
        for i, parts in enumerate(said):
            parts = [parts] if isinstance(parts, str) else parts
            marked = [{"sha256": part} if len(part) == 64 and part.isalnum() else part for part in parts]
            messages.append({"role": ("user", "assistant")[i % 2], "parts": marked})
        record = {
            "time": 1700000000.0,
            "kind": "answer",
            "source": "web",
            "model": "m",
            "messages": messages,
            "answers": ["ok"],
            "outcome": "answered",
            "consent": NOTICE,
            **changes,
        }
        self.write(json.dumps({name: value for name, value in record.items() if value is not None}).encode() + b"\n")
        return record

    def write(self, line: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(line)

    def ask(self, seed: int, question: str, **changes: Any) -> str:
        """A question about the image of that number; returns the image's digest."""
        digest = self.save(draw(seed))
        self.add([digest, question], **changes)
        return digest


def complete(text: str | None, reason: str | None = "stop", **usage: int) -> dict[str, Any]:
    """The body of an answer."""
    message = {"role": "assistant", "content": text}
    counts = {"usage": {"prompt_tokens": 100, "completion_tokens": 10, **usage}}
    return {"model": "teacher-1", "choices": [{"index": 0, "message": message, "finish_reason": reason}], **counts}


class FakeTeacher:
    """An endpoint. ``answer``: from a request to a body, or to (status, headers, body); bytes stay as they are."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.answer = answer
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.url = ""

    @property
    def questions(self) -> list[str]:
        """The last text of each request, as they came."""
        return [request["messages"][-1]["content"][-1]["text"] for request in self.requests]


@contextlib.contextmanager
def run_teacher(answer: Callable[[dict[str, Any]], Any]) -> Iterator[FakeTeacher]:
    """The endpoint, up until the block ends."""
    teacher = FakeTeacher(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with teacher.lock:
                teacher.requests.append(request)
                teacher.keys.append(self.headers["Authorization"])
                said = teacher.answer(request)
            status, headers, body = said if isinstance(said, tuple) else (200, {}, said)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            with contextlib.suppress(ConnectionError):  # a client that gave up, or was killed
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    teacher.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield teacher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
