"""The embedded model behind a server, and an internet of one computer."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator

import pytest

from llava.backends.engine_backend import EngineBackend
from llava.serve.limits import Limits, Settings
from tests.serve.serving import PATIENCE_S, Running, run_server

# Small enough to be exceeded in no time, but for those that a good request could exceed on a busy machine.
LIMITS = Limits(
    image_bytes=2 * 2**20,
    images=4,
    messages=20,
    fetch_s=PATIENCE_S,
    header_s=PATIENCE_S,
    body_s=PATIENCE_S,
    decode_s=PATIENCE_S,
    status_s=PATIENCE_S,
)


@pytest.fixture(scope="session")
def own() -> Iterator[Running]:
    """The embedded model, with our engine, and small limits."""
    with run_server(EngineBackend(), Settings(limits=LIMITS)) as running:
        yield running


Serve = Callable[[socket.socket], None]


class Internet:
    """One host, ``images.example``, with a public address; connections to it reach a server of the test's.

    ``connected``: the addresses that were asked for, but for the server's own.
    """

    address = "93.184.216.34"

    def __init__(self) -> None:
        self.pages: dict[str, Serve] = {}
        self.connected: list[str] = []
        self.names = {"images.example": [self.address]}
        internet = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                path = self.request.recv(65536).decode("latin-1").split(" ")[1]
                with contextlib.suppress(OSError):
                    internet.pages[path](self.request)

        class Threads(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self.tcp = Threads(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.tcp.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def page(
        self, path: str, body: bytes = b"", status: str = "200 OK", *, length: int | None = None, **more: str
    ) -> str:
        """Puts a page there; returns its URL."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"{name}: {value}" for name, value in more.items()]
        message = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.pages[path] = lambda connection: connection.sendall(message)
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://images.example{path}"


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    internet = Internet()
    resolve, connect = socket.getaddrinfo, socket.create_connection

    def getaddrinfo(host, port, *arguments, **keywords):
        found = internet.names.get(host)
        if found is None:
            if not str(host).replace(".", "").isdigit() and ":" not in str(host):
                raise socket.gaierror(socket.EAI_NONAME, "no such host")
            return resolve(host, port, *arguments, **keywords)
        address = found.pop(0) if len(found) > 1 else found[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def create_connection(address, *arguments, **keywords):
        if threading.current_thread().name.startswith("llava-fetch"):
            internet.connected.append(address[0])
            address = internet.tcp.server_address if address[0] == internet.address else address
        return connect(address, *arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    yield internet
    internet.tcp.shutdown()
    internet.tcp.server_close()
