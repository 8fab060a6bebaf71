"""A server with OpenAI's chat completions API in a thread, which says what a test wants, and breaks where it wants."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DROP = object()
"""A connection that is closed without an answer."""


def events(*pieces: str, reason: str | None = "stop") -> bytes:
    """The stream of an answer in pieces; one without a reason is cut off."""
    chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    if reason is not None:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"] if reason is not None else lines).encode()


@dataclass
class ChatServer:
    """``answer``: from the last text of a request and how often it came to a stream, a status and body, or DROP."""

    answer: Callable[[str, int], Any]
    models: Any = field(default_factory=lambda: {"data": [{"id": "fake"}]})
    url: str = ""
    asked: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def run_chat_server(server: ChatServer) -> Iterator[ChatServer]:
    """The server, up until the block ends."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(server.models if isinstance(server.models, tuple) else (200, json.dumps(server.models).encode()))

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            content = request["messages"][-1]["content"]
            text = content if isinstance(content, str) else content[-1]["text"]
            with lock:
                said = server.answer(text, server.asked.count(text))
                server.asked.append(text)
                server.requests.append(request)
            if said is DROP:
                self.close_connection = True
                return
            self._send(said if isinstance(said, tuple) else (200, said))

        def _send(self, said: tuple[int, bytes]) -> None:
            status, body = said
            with contextlib.suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
