"""Answers that are sent piece by piece, and the comments that keep their connections alive meanwhile."""

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


def write_event_comment(place: int) -> bytes:
    """A comment of an event stream, which every client passes over; ``place``: in the queue, 0 behind it."""
    return f": queued {place}\n\n".encode() if place else b": keep-alive\n\n"


class KeepAliveStream(Response):
    """Pieces of a body as they are made, and a comment wherever none has come for ``silence_s``.

    A reader who leaves a piece unread for ``send_s`` is cut off. What goes wrong once the headers are out is the last
    piece: ``write_error`` makes it.
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
        self._said_s = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        def cut_off() -> None:
            limit = self._limits.send_s
            LOG.warning("a reader left an answer unread for %g seconds (limit send_s) and was cut off", limit)
            abort(scope)  # which the watch over the connection notices

        async def say(piece: bytes, *, more: bool = True) -> None:
            timer = loop.call_later(self._limits.send_s, cut_off)
            try:
                await send({"type": "http.response.body", "body": piece, "more_body": more})
            finally:
                timer.cancel()
            self._said_s = loop.time()

        loop = asyncio.get_running_loop()
        beating: asyncio.Task[None] | None = None
        async with aclosing(self._pieces):
            try:
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                self._said_s = loop.time()
                left = scope.get("llava.half_closed")
                if self._ticket.place or (left is not None and left.is_set()):
                    await say(self._write_comment(self._ticket.place))
                beating = loop.create_task(self._beat(say))
                await say(await self._first)
                async for piece in self._pieces:
                    await say(piece)
            except asyncio.CancelledError:
                if (api_error := scope.get("llava.error")) is not None:
                    if beating is not None:
                        beating.cancel()  # nothing may be said behind the end
                    await say(self._write_error(api_error), more=False)
                raise
            except Exception as error:
                state = self._request.state
                api_error = to_api_error(error, state.request_id, getattr(state, "param", None))
                await say(self._write_error(api_error))
            finally:
                if beating is not None:
                    beating.cancel()
                await _end(self._first)
            await say(b"", more=False)

    async def _beat(self, say: Callable[[bytes], Any]) -> None:
        """Breaks every silence, and that of a client who may have left at once: only writing tells."""
        loop, left = asyncio.get_running_loop(), self._request.scope.get("llava.half_closed")
        while True:
            rest_s = self._said_s + self._limits.silence_s - loop.time()
            if rest_s > 0:
                if left is None or left.is_set():
                    await asyncio.sleep(rest_s)
                    continue
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(left.wait(), rest_s)
                if not left.is_set():
                    continue
            await say(self._write_comment(self._ticket.place))


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
    """The response, as soon as its first piece is there, its request has to wait its turn, or ``status_s`` are over.

    An error before that is raised, and so still has a status.
    """

    async def take_first() -> bytes:
        return await anext(pieces)

    first = asyncio.create_task(take_first())
    events = [ticket.is_queued, request.scope.get("llava.half_closed")]
    waiting = [asyncio.create_task(event.wait()) for event in events if event is not None]
    try:
        await asyncio.wait({first, *waiting}, timeout=limits.status_s, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        await _end(first)
        await pieces.aclose()
        raise
    finally:
        for task in waiting:
            task.cancel()
    if first.done():
        first.result()
    return KeepAliveStream(request, ticket, first, pieces, write_error, write_comment, limits, kind)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancels a task and returns when it is over, however often its caller is cancelled meanwhile."""
    while not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=0.05)
