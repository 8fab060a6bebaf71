"""Half-closed connections: tells a client that shut down its sending side from one that has disconnected.

Both look alike (EOF) until the server writes: a client that disconnected answers with a reset, one that only called
``shutdown(SHUT_WR)`` (``nc -N``) reads on. A stream writes anyway. For any other answer the server waits a moment,
because most answers are quick, and then sends an interim response, ``100 Continue``, which HTTP/1.1 clients ignore.
HTTP/1.0 has no interim responses, so there EOF counts as a disconnect.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llava.serve.middleware import ENGINE_ROUTES

# The delay before the client is probed, and the interval at which the socket is then checked for a reset.
_GRACE_S, _POLL_S = 2.0, 0.1


class HalfCloseProtocol(H11Protocol):
    """Uvicorn's HTTP protocol, which also answers half-closed connections. ``half_closed`` is set on EOF."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.half_closed = asyncio.Event()
        self._is_probed = False

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open: only while an answer is under way.

        Streams of other routes, such as the web chat's, may be silent for long; EOF ends them at once.
        """
        is_whole = self.conn.their_state is not h11.SEND_BODY
        if not self._is_answering or not is_whole or self.scope["http_version"] == "1.0":
            return False
        if self.cycle.response_started and not self.scope["path"].startswith(ENGINE_ROUTES):
            return False
        if not self.half_closed.is_set():
            self.half_closed.set()
            self._poll(self.loop.time() + _GRACE_S)
        return True

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _poll(self, probe_at_s: float) -> None:
        if self.transport.is_closing() or not self._is_answering:
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if not self._is_probed and self.loop.time() >= probe_at_s and not self.cycle.response_started:
            self._is_probed = True
            self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        self.loop.call_later(_POLL_S, self._poll, probe_at_s)

    def on_response_complete(self) -> None:
        """Closes a half-closed connection after its last answer."""
        super().on_response_complete()
        if self.half_closed.is_set() and not self._is_answering:  # no pipelined request follows
            self.transport.close()
