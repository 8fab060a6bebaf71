"""The server process: listens at once, loads the model meanwhile, and drains on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import socket
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from llava.backends.protocol import Backend
from llava.entry_point import quick_imports
from llava.errors import LlavaError
from llava.serve.app import Mount, create_app
from llava.serve.connection import make_config
from llava.serve.host_and_origin import is_loopback_address
from llava.serve.limits import Settings
from llava.serve.listener import listen
from llava.serve.service import Service
from llava.text import write_line


def serve(
    make_backend: Callable[[], Backend], settings: Settings, *, host: str, port: int, mount: Mount | None = None
) -> int:
    """Serves until SIGTERM or Ctrl-C, and returns the exit code.

    The first signal lets running answers finish; a second one cancels them. The port is open before ``make_backend``
    imports its dependencies, so early clients wait instead of being refused. Raises the error with which the backend
    failed to start, and UsageError if ``port`` cannot be bound.
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
            gc.freeze()  # these objects stay alive, and scanning them takes longer than a token
            seconds = time.perf_counter() - began
            write_line(f"llava: {backend.model_id} is ready after {seconds:.1f} s")

        server.service.on_ready = tell
        server.run(sockets=[listener])
    failure = server.service.failure
    if isinstance(failure, LlavaError):
        raise failure
    return 0 if failure is None else LlavaError.exit_code


def _find_address(host: str, port: int) -> str:
    """The URL at which clients on this machine reach a server that listens at ``host``."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """Uvicorn's server, which answers 503 while it drains instead of closing its socket, and exits with 0."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        service.on_failure = self._give_up
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until ``should_exit`` is set."""
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Called for SIGTERM and SIGINT."""
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """Lets running answers finish, then ends the server. A second call cancels them and ends it at once."""
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
    return Server(make_config(app, service.limits), service)
