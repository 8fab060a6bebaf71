"""The server process: listens at once, loads the model meanwhile, and goes quietly when told to."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI

from llava.backends.protocol import Backend
from llava.errors import LlavaError
from llava.flags import quick_imports
from llava.serve.app import Mount, create_app
from llava.serve.departure import HalfClosable
from llava.serve.gate import App, Receive, Scope, Send
from llava.serve.limits import Limits, Settings
from llava.serve.listener import listen
from llava.serve.origins import is_loopback_address
from llava.serve.refusals import Refusal, over
from llava.serve.service import Service
from llava.text import write_line


def serve(
    make_backend: Callable[[], Backend], settings: Settings, *, host: str, port: int, mount: Mount | None = None
) -> int:
    """Serves until SIGTERM or Ctrl-C, and returns the exit code.

    The first signal lets running answers finish; a second one ends them. Whoever asks while ``make_backend`` imports
    what it needs waits instead of finding no server. Raises what the backend failed to start by, and UsageError where
    ``port`` cannot be had.
    """
    began = time.perf_counter()
    listener = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}{settings.root_path}"
    settings = dataclasses.replace(settings, is_local=is_loopback_address(listener.getsockname()[0]))
    write_line(f"llava: will answer at {address}")
    if not (settings.is_local or settings.keys):
        text = "other machines reach this server, and it has no API key: anybody who reaches it can use it (--api-key)"
        write_line(f"llava: warning: {text}")
    with contextlib.ExitStack() as starting, contextlib.closing(listener):
        starting.enter_context(quick_imports())
        backend = make_backend()
        if not settings.address:
            settings = dataclasses.replace(settings, address=_find_address(host, listener.getsockname()[1]))
        server = make_server(create_app(backend, settings, mount=mount))

        def tell() -> None:
            starting.close()
            gc.freeze()  # what is there by now stays; looking it through takes longer than a token
            seconds = time.perf_counter() - began
            write_line(f"llava: {backend.model_id} is ready after {seconds:.1f} s")

        server.service.on_ready = tell
        server.run(sockets=[listener])
    failure = server.service.failure
    if isinstance(failure, LlavaError):
        raise failure
    return 0 if failure is None else LlavaError.exit_code


def _find_address(host: str, port: int) -> str:
    """Where clients on this machine find a server that listens at ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn's, which answers 503 while it drains instead of closing the door, and exits with 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        service.on_failure = self._give_up
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Lets running answers finish, then ends the server. Again ends them and it at once."""
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
            return
        self.should_exit = True
        for task in list(self.server_state.tasks):
            task.cancel()

    async def _drain(self) -> None:
        await self.service.drain()
        self.should_exit = True

    def _give_up(self) -> None:
        self.should_exit = True


def make_server(app: FastAPI) -> Server:
    """The server of an application made by ``create_app``, not yet running."""
    service: Service = app.state.service
    limits = service.limits

    class Protocol(_Protocol):
        header_s = limits.header_s

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]
    )
    return Server(config, service)


class _Protocol(HalfClosable):
    """Uvicorn's, with a deadline for headers, OpenAI-shaped refusals, and a way to break a connection off.

    It reads on while an answer is made, or it would not notice that a client left which has begun its next request.
    """

    header_s = Limits().header_s

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        inner: App = self.app
        self._header_timer: asyncio.TimerHandle | None = None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["llava.abort"], scope["llava.half_closed"] = self.transport.abort, self.half_closed
            await inner(scope, receive, send)

        self.app = app

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_headers()
        is_next_request = self.conn.their_state is h11.DONE
        if is_next_request and len(self.conn.trailing_data[0]) < (self.config.h11_max_incomplete_event_size or 0):
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.trailing_data[0] or self.conn.their_state is h11.SEND_BODY:
            self._watch_headers()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: whoever asks for a WebSocket gets an answer in HTTP, and the log no advice to install one."""

    def _watch_headers(self) -> None:
        """Keeps the deadline running while headers, or the rest of a body that nobody reads any more, are to come."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_header_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_s, self.transport.abort)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def send_400_response(self, msg: str) -> None:
        # h11 knows no other reason for a request it cannot finish reading than that its headers are too long.
        limit = self.config.h11_max_incomplete_event_size or 0
        if len(self.conn.trailing_data[0]) >= limit:
            refusal = over(
                "header_bytes", limit, f"The headers have {limit:,} bytes or more", "Send fewer.", status=431
            )
        else:
            refusal = Refusal(400, "This is not a request in HTTP/1.1.", code="invalid_http")
        body = json.dumps(refusal.body).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        with contextlib.suppress(h11.LocalProtocolError):
            output = self.conn.send(h11.Response(status_code=refusal.status, headers=headers))
            output = (output or b"") + (self.conn.send(h11.Data(data=body)) or b"")
            self.transport.write(output + (self.conn.send(h11.EndOfMessage()) or b""))
        self.transport.close()
