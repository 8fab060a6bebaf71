"""Uvicorn's configuration and HTTP protocol, shared by the server and the controller.

A connection has a deadline for its headers, protocol errors are answered as JSON, and the application can abort it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import h11
import uvicorn

from llava.serve.api_errors import LOG, ApiError, limit_exceeded
from llava.serve.half_close import HalfCloseProtocol
from llava.serve.limits import Limits
from llava.serve.middleware import App, Receive, Scope, Send

# The first bytes of a TLS handshake.
_TLS_HELLO = b"\x16\x03"


def make_config(app: Any, limits: Limits) -> uvicorn.Config:
    """Uvicorn's configuration for an ASGI application under these limits."""

    class Protocol(_Protocol):
        header_s = limits.header_s

    return uvicorn.Config(
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


class _Protocol(HalfCloseProtocol):
    """Uvicorn's HTTP protocol with a deadline for headers, JSON errors, and ``scope["llava.abort"]``.

    It keeps reading while a request is answered. Otherwise it would not notice the disconnect of a client that has
    already pipelined its next request.
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
        """Does nothing: a WebSocket upgrade is answered over HTTP, without uvicorn's advice to install a library."""

    def _watch_headers(self) -> None:
        """Starts the deadline while headers, or the unread rest of a rejected body, are outstanding; else stops it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_header_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_s, self.transport.abort)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def send_400_response(self, msg: str) -> None:
        # Uvicorn calls this from its handler of h11's exception, which carries the reason.
        reason = str(sys.exc_info()[1] or msg).rstrip(".")
        if self.conn.trailing_data[0].startswith(_TLS_HELLO):
            LOG.warning("a client attempted a TLS handshake: this server speaks http://, not https://; add a TLS proxy")
        limit = self.config.h11_max_incomplete_event_size or 0
        if len(self.conn.trailing_data[0]) >= limit:
            api_error = limit_exceeded(
                "header_bytes", limit, f"The request headers have {limit:,} bytes or more", "Send fewer.", status=431
            )
        else:
            api_error = ApiError(400, f"The request is not valid HTTP/1.1: {reason[:200]}.", code="invalid_http")
        body = json.dumps(api_error.body).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
        ]
        with contextlib.suppress(h11.LocalProtocolError):
            output = self.conn.send(h11.Response(status_code=api_error.status, headers=headers))
            output = (output or b"") + (self.conn.send(h11.Data(data=body)) or b"")
            self.transport.write(output + (self.conn.send(h11.EndOfMessage()) or b""))
        self.transport.close()
