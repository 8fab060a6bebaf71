"""Whether a client that ended its sending side has left, or waits for its answer.

A client that closes its connection and one that only sends no more (``shutdown(SHUT_WR)``, ``nc -N``) look alike until
something is written: who has left answers that with a reset. An answer that is being streamed is written to anyway.
One that has not begun gets a moment, for most come soon, and then an interim response, ``100 Continue``, which every
client of HTTP/1.1 reads over. In HTTP/1.0 there is none, so there the end of sending is the end.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llava.serve.middleware import ANSWERED

# Until a client is asked, and between two looks whether it has answered.
_GRACE_S, _LOOK_S = 2.0, 0.1


class HalfCloseProtocol(H11Protocol):
    """Uvicorn's, which answers clients that send no more. ``half_closed`` is set when one does so."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.half_closed = asyncio.Event()
        self._is_asked = False

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays: only for an answer that is under way.

        A stream of another part's, such as the web chat's, may be silent for long, and is over at once.
        """
        is_whole = self.conn.their_state is not h11.SEND_BODY
        if not self._is_answering or not is_whole or self.scope["http_version"] == "1.0":
            return False
        if self.cycle.response_started and not self.scope["path"].startswith(ANSWERED):
            return False
        if not self.half_closed.is_set():
            self.half_closed.set()
            self._look(self.loop.time() + _GRACE_S)
        return True

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self, ask_s: float) -> None:
        if self.transport.is_closing() or not self._is_answering:
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        if not self._is_asked and self.loop.time() >= ask_s and not self.cycle.response_started:
            self._is_asked = True
            self.transport.write(self.conn.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        self.loop.call_later(_LOOK_S, self._look, ask_s)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.half_closed.is_set() and not self._is_answering:  # there was no further request
            self.transport.close()
