"""A server in a thread, a client that sends exactly what it is told, and a backend that says what a test wants."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from PIL import Image

from llava.backends.protocol import ChatRequest, Delta, Usage
from llava.serve.app import Mount, create_app
from llava.serve.limits import Limits, Settings
from llava.serve.listener import listen
from llava.serve.server_process import Server, make_server
from llava.serve.service import Service

# Seconds until something that has to come is given up: many times what it takes, so that it comes on a machine that is
# busy with other things, too, but less than what the limits that a server has by default would end.
PATIENCE_S = 200.0


@dataclass
class Reply:
    """An HTTP answer. ``seconds``: from the first byte sent to the last one read."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The events of a stream, without comments and the closing [DONE], which has to be there."""
        *events, done, rest = (event for event in self.body.decode().split("\n\n") if not event.startswith(":"))
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    @property
    def text(self) -> str:
        return self.json["choices"][0]["message"]["content"]


@dataclass
class Running:
    """A server that is up."""

    port: int
    server: Server
    service: Service
    loop: asyncio.AbstractEventLoop = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, Any] = {}) -> Reply:
        """One request on a connection of its own; the path is sent as it stands."""
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            data = response.read()
            seconds = time.perf_counter() - began
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, data, seconds)
        finally:
            connection.close()

    def post(self, path: str, content: Any, **headers: str | bytes) -> Reply:
        """JSON; ``content`` may be bytes, which are sent as they are."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body, {"Content-Type": "application/json", **headers})

    def chat(self, *parts: Any, **more: Any) -> Reply:
        """One user message."""
        content = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else list(map(as_part, parts))
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": content}], **more})

    def counts(self) -> dict[str, float]:
        """What /metrics tells."""
        text = self.send("GET", "/metrics").body.decode()
        pairs = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def do(self, work: Callable[[], Any]) -> Any:
        """Runs a coroutine function in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result(3 * PATIENCE_S)


def as_part(part: Any) -> Any:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Image.Image):
        return {"type": "image_url", "image_url": {"url": data_uri(write_image(part))}}
    return part


def write_image(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# Deadlines that only bound what hangs.
PATIENT = Settings(
    limits=Limits(header_s=PATIENCE_S, body_s=PATIENCE_S, fetch_s=PATIENCE_S, decode_s=PATIENCE_S, send_s=PATIENCE_S)
)


@contextlib.contextmanager
def run_server(backend: Any, settings: Settings = PATIENT, mount: Mount | None = None) -> Iterator[Running]:
    """The server of ``backend``, up and ready; ended behind."""
    listener = listen("127.0.0.1", 0)
    loops: list[asyncio.AbstractEventLoop] = []
    server = make_server(create_app(backend, settings, mount=mount))

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listener])

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server")
    thread.start()
    try:
        wait_until(lambda: server.started)
        running = Running(listener.getsockname()[1], server, server.service, loops[0])
        running.do(server.service.started)
        yield running
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()


def stop_process(pid: int) -> None:
    """Stops it; from here on it does nothing. A signal alone only asks for that, and takes its time."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def wait_until(is_true: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


class Puppet:
    """A backend whose answers wait until a test lets them go on.

    ``num_tokens`` words of ``word`` for each question; ``let_go`` counts the words that may be said before it waits.
    """

    model_id = "puppet"
    context_tokens = 100
    constrains_answers = False

    def __init__(self, num_tokens: int = 3, word: str = "word ") -> None:
        self.num_tokens, self.word = num_tokens, word
        self.gate = threading.Event()
        self.gate.set()
        self.requests: list[ChatRequest] = []
        self.num_open = 0
        self.num_stopped = 0
        self.error: Exception | None = None
        self.error_after = 0
        self.start_error: Exception | None = None
        self.is_well = True

    async def start(self) -> None:
        if self.start_error is not None:
            raise self.start_error

    async def stop(self) -> None:
        self.num_stopped += 1

    async def is_ready(self) -> bool:
        return self.is_well

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        num_tokens = self.num_tokens  # read before anybody can see that a question came
        self.num_open += 1
        self.requests.append(request)
        try:
            for i in range(num_tokens):
                while not self.gate.is_set():
                    await asyncio.sleep(0.005)
                if self.error is not None and i >= self.error_after:
                    raise self.error
                yield Delta(text=self.word)
                await asyncio.sleep(0)
            yield Delta(finish_reason="stop", usage=Usage(7, num_tokens))
        finally:
            self.num_open -= 1

    def count(self) -> Mapping[str, float]:
        return {"requests_running": self.num_open, "requests_total": len(self.requests)}
