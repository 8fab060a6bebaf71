"""Streamed responses: pieces as they are made, with comments in between that keep the connection alive."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llava.serve.admission_queue import Ticket
from llava.serve.api_errors import LOG, to_api_error
from llava.serve.limits import Limits
from llava.serve.middleware import WriteError, abort

WriteComment = Callable[[int], bytes]


def write_event_comment(position: int) -> bytes:
    """A comment of an event stream, which clients ignore. ``position``: in the queue; 0 if it is not waiting."""
    return f": queued {position}\n\n".encode() if position else b": keep-alive\n\n"


class KeepAliveStream(Response):
    """Sends pieces of a body as they are made, and a comment after each ``silence_s`` without one.

    A client that does not read a piece within ``send_s`` is disconnected. After the headers are sent, an error can only
    be reported in the body: ``write_error`` makes the last piece from it.
    """

    def __init__(
        self,
        request: Request,
        ticket: Ticket,
        first: asyncio.Task[bytes],
        pieces: AsyncGenerator[bytes, None],
        write_error: WriteError,
        write_comment: WriteComment,
        limits: Limits,
        kind: str,
    ) -> None:
        super().__init__(status_code=200, media_type=kind, headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._request, self._ticket, self._first, self._pieces = request, ticket, first, pieces
        self._write_error, self._write_comment, self._limits = write_error, write_comment, limits
        self._last_sent_s = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        def disconnect() -> None:
            limit = self._limits.send_s
            LOG.warning("a client did not read its answer for %g seconds (limit send_s) and was disconnected", limit)
            abort(scope)  # the middleware then cancels this request

        async def send_piece(piece: bytes, *, more: bool = True) -> None:
            timer = loop.call_later(self._limits.send_s, disconnect)
            try:
                await send({"type": "http.response.body", "body": piece, "more_body": more})
            finally:
                timer.cancel()
            self._last_sent_s = loop.time()

        loop = asyncio.get_running_loop()
        keeping_alive: asyncio.Task[None] | None = None
        async with aclosing(self._pieces):
            try:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                self._last_sent_s = loop.time()
                half_closed = scope.get("llava.half_closed")
                if self._ticket.position or (half_closed is not None and half_closed.is_set()):
                    await send_piece(self._write_comment(self._ticket.position))
                keeping_alive = loop.create_task(self._keep_alive(send_piece))
                await send_piece(await self._first)
                async for piece in self._pieces:
                    await send_piece(piece)
            except asyncio.CancelledError:
                if (api_error := scope.get("llava.error")) is not None:
                    if keeping_alive is not None:
                        keeping_alive.cancel()  # no comment may follow the last piece
                    await send_piece(self._write_error(api_error), more=False)
                raise
            except Exception as error:
                state = self._request.state
                api_error = to_api_error(error, state.request_id, getattr(state, "param", None))
                await send_piece(self._write_error(api_error))
            finally:
                if keeping_alive is not None:
                    keeping_alive.cancel()
                await _cancel(self._first)
            await send_piece(b"", more=False)

    async def _keep_alive(self, send_piece: Callable[[bytes], Any]) -> None:
        """Sends a comment after each ``silence_s``, and at once when the connection is half-closed: the write probes
        whether the client has disconnected.
        """
        loop, half_closed = asyncio.get_running_loop(), self._request.scope.get("llava.half_closed")
        while True:
            rest_s = self._last_sent_s + self._limits.silence_s - loop.time()
            if rest_s > 0:
                if half_closed is None or half_closed.is_set():
                    await asyncio.sleep(rest_s)
                    continue
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(half_closed.wait(), rest_s)
                if not half_closed.is_set():
                    continue
            await send_piece(self._write_comment(self._ticket.position))


async def begin_stream(
    request: Request,
    ticket: Ticket,
    pieces: AsyncGenerator[bytes, None],
    write_error: WriteError,
    limits: Limits,
    *,
    write_comment: WriteComment = write_event_comment,
    kind: str = "text/event-stream",
) -> KeepAliveStream:
    """The response, once its first piece is ready, its request is queued, or ``status_s`` have passed.

    An error before that is raised, so it still gets an HTTP status.
    """

    async def take_first() -> bytes:
        return await anext(pieces)

    first = asyncio.create_task(take_first())
    events = [ticket.is_queued, request.scope.get("llava.half_closed")]
    waiting = [asyncio.create_task(event.wait()) for event in events if event is not None]
    try:
        await asyncio.wait({first, *waiting}, timeout=limits.status_s, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _cancel(first)
        await pieces.aclose()
        raise
    finally:
        for task in waiting:
            task.cancel()
    if first.done():
        first.result()
    return KeepAliveStream(request, ticket, first, pieces, write_error, write_comment, limits, kind)


async def _cancel(task: asyncio.Task[Any]) -> None:
    """Cancels a task and returns when it has ended, even if the caller itself is cancelled meanwhile."""
    while not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=0.05)
