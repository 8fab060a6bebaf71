"""What every HTTP request passes: keys, request ids, errors in one shape, and the end of work nobody waits for."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from llava.serve.limits import Settings
from llava.serve.refusals import LOG, Refusal, translate

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The one thing that may be asked without a key.
_OPEN_PATH = b"/health"
# What is answered by an engine, and stops when the client goes.
_ANSWERED = ("/v1/", "/worker_")


class Gate:
    """The ASGI application around all others."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app = app
        self._digests = [_digest(key) for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        has_begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self._check_key(scope)
            if scope["path"].startswith(_ANSWERED):
                await _run_while_connected(self._app, scope, receive, send_with_id)
            else:
                await self._app(scope, receive, send_with_id)
        except Exception as error:
            refusal = translate(error, request_id)
            if has_begun:
                abort(scope)  # half an answer must not look like a whole one
            else:
                await answer_refusal(refusal)(scope, receive, send_with_id)

    def _check_key(self, scope: Scope) -> None:
        if not self._digests or scope.get("raw_path", scope["path"].encode()) == _OPEN_PATH:
            return
        given = [_read_key(value) for name, value in scope["headers"] if name == b"authorization"]
        digest = _digest(given[0]) if given else b""
        if not any(hmac.compare_digest(digest, known) for known in self._digests):
            raise Refusal(
                401,
                "There is no API key, or a wrong one. Send 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                # Browsers ask for a password then; the key is one, with any name.
                headers={"WWW-Authenticate": 'Bearer, Basic realm="llava"'},
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read_key(header: bytes) -> str:
    """The key in an Authorization header: what follows Bearer, or the password of Basic."""
    kind, _, value = header.decode("latin-1").strip().partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            pass
    return ""


async def _run_while_connected(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """The application, cancelled when the client goes away."""
    messages: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                is_gone = True
                main.cancel()
                return
            await messages.put(message)

    async def run() -> None:
        await app(scope, messages.get, send)

    main = asyncio.create_task(run())
    watcher = asyncio.create_task(watch())
    try:
        await main
    except asyncio.CancelledError:
        if not is_gone:
            raise
    finally:
        watcher.cancel()


def abort(scope: Scope) -> None:
    """Breaks the connection off, where the server gave a means to."""
    close = scope.get("llava.abort")
    if close is not None:
        close()


def answer_refusal(refusal: Refusal) -> Response:
    return Response(json.dumps(refusal.body), refusal.status, refusal.headers, "application/json")


class PieceStream(Response):
    """Pieces of a body as they are made. A reader who leaves one unread for ``send_s`` is cut off."""

    def __init__(self, first: bytes, pieces: AsyncGenerator[bytes, None], send_s: float, media_type: str) -> None:
        super().__init__(status_code=200, media_type=media_type, headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._first, self._pieces, self._send_s = first, pieces, send_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def say(piece: bytes, *, more: bool) -> None:
            message = {"type": "http.response.body", "body": piece, "more_body": more}
            await asyncio.wait_for(send(message), self._send_s)

        try:
            async with aclosing(self._pieces):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await say(self._first, more=True)
                async for piece in self._pieces:
                    await say(piece, more=True)
                await say(b"", more=False)
        except asyncio.TimeoutError:
            LOG.warning("a reader left an answer unread for %g seconds (limit send_s) and was cut off", self._send_s)
            abort(scope)


async def begin_stream(pieces: AsyncGenerator[bytes, None], send_s: float, media_type: str) -> PieceStream:
    """The response whose first piece is already there, so that an error before it still has a status."""
    return PieceStream(await anext(pieces), pieces, send_s, media_type)
