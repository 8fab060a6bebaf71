"""What every HTTP request passes: host, key, origin, request ids, errors in one shape, the end of unwanted work."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from llava.serve.api_errors import ApiError, limit_exceeded, to_api_error
from llava.serve.host_and_origin import check_host, check_origin
from llava.serve.limits import Settings
from llava.serve.request_path import apply_absolute_form, encode_path, normalize_path
from llava.serve.service import TENANT

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
WriteError = Callable[[ApiError], bytes]

# The one thing that may be asked without a key.
_OPEN_PATH = b"/health"
# Browsers read one challenge a line, and ask for a password where they find Basic; the key is one, with any name.
_CHALLENGES = ("Bearer", 'Basic realm="llava"')
# What is answered by an engine, and stops when the client goes.
ANSWERED = ("/v1/", "/worker_")


class ServerMiddleware:
    """The ASGI application around all others."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._digests = [_digest(key) for key in settings.keys]
        self._keeps_apart = settings.keeps_keys_apart
        self._header_bytes, self._answer_s = settings.limits.header_bytes, settings.limits.answer_s
        # Clients that know for how long a connection stays open send nothing on one that is just being closed.
        keep_alive_s = int(settings.limits.keep_alive_s)
        self._headers = [(b"keep-alive", b"timeout=%d" % keep_alive_s)] if keep_alive_s else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        request_id = f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        has_begun = has_ended = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_begun, has_ended
            has_ended = message["type"] == "http.response.body" and not message.get("more_body")
            if message["type"] == "http.response.start":
                has_begun = True
                own = [(b"x-request-id", request_id.encode()), *self._headers]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            self._check_headers(scope)
            apply_absolute_form(scope)
            if self._find_path(scope):
                await _send_to_root(self._settings.root_path, scope, receive, send_with_id)
                return
            check_host(scope["headers"], scope["path"], self._settings)
            digest = self._check_key(scope)
            check_origin(scope["method"], scope["path"], scope["headers"], self._settings)
            TENANT.set(digest if self._keeps_apart else "")
            if scope["path"].startswith(ANSWERED):
                await _run_while_connected(self._app, scope, receive, send_with_id, self._answer_s)
            else:
                await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # nobody is there to be told
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError):
                error = _shut_down()
            api_error = to_api_error(error, request_id, scope["state"].get("param"))
            if not has_begun:
                await error_response(api_error)(scope, receive, send_with_id)
            elif not has_ended:
                abort(scope)  # half an answer must not look like a whole one

    def _check_headers(self, scope: Scope) -> None:
        # What comes in one packet is parsed by the protocol before it looks at the length.
        num_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
        if num_bytes > self._header_bytes:
            value = f"The headers have {num_bytes:,} bytes"
            raise limit_exceeded("header_bytes", self._header_bytes, value, "Send fewer.", status=431)

    def _find_path(self, scope: Scope) -> bool:
        """Puts the server's own path into the scope. True if it is the prefix that lacks its slash at the end."""
        asked, root_path = scope["path"], self._settings.root_path
        path = normalize_path(asked, root_path)
        if path != asked:
            scope["path"], scope["raw_path"] = path, encode_path(path)
        return bool(root_path) and asked == root_path and scope["method"] in ("GET", "HEAD")

    def _check_key(self, scope: Scope) -> str:
        """The digest of the key that was sent; "" where none is needed. Raises ApiError."""
        if not self._digests or scope.get("raw_path", scope["path"].encode()) == _OPEN_PATH:
            return ""
        given = [_read_key(value) for name, value in scope["headers"] if name == b"authorization"]
        digest = _digest(given[0]) if given else b""
        if not any(hmac.compare_digest(digest, known) for known in self._digests):
            raise ApiError(
                401,
                "There is no API key, or a wrong one. Send 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
            )
        return digest.hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read_key(header: bytes) -> str:
    """The key in an Authorization header: what follows Bearer, or the password of Basic."""
    kind, _, value = header.decode("utf-8", "surrogateescape").strip().partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            pass
    return ""


async def _run_while_connected(app: App, scope: Scope, receive: Receive, send: Send, limit_s: float) -> None:
    """The application, cancelled when the client goes away. Raises ApiError (503) after ``limit_s``."""
    messages: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)
    is_wanted = asyncio.Event()
    if all(name != b"expect" for name, _ in scope["headers"]):
        is_wanted.set()

    async def take() -> Message:
        is_wanted.set()
        return await messages.get()

    async def watch() -> None:
        # Whoever sent Expect is told to go on by the first look, and should not be where the body will be refused.
        await is_wanted.wait()
        while (message := await receive())["type"] != "http.disconnect":
            await messages.put(message)

    async def run() -> None:
        await app(scope, take, send)

    main = asyncio.create_task(run())
    watcher = asyncio.create_task(watch())
    try:
        await asyncio.wait({main, watcher}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if main.done():
            await main
        elif not watcher.done():
            value = "The answer took too long"
            raise limit_exceeded("answer_s", limit_s, value, "Ask for less, or later.", status=503)
    except (ApiError, asyncio.CancelledError) as error:
        scope["llava.error"] = error if isinstance(error, ApiError) else _shut_down()
        raise
    finally:
        watcher.cancel()
        # Again and again: before Python 3.12 whoever is in asyncio.wait_for may miss it.
        while not main.done():
            main.cancel()
            await asyncio.wait({main}, timeout=0.05)
        if not main.cancelled():
            main.exception()  # whoever left does not hear it


def _shut_down() -> ApiError:
    """Only the end of the server cancels a request from outside."""
    return ApiError(503, "The server was shut down. Ask another one.", code="draining")


def abort(scope: Scope) -> None:
    """Breaks the connection off, where the server gave a means to."""
    close = scope.get("llava.abort")
    if close is not None:
        close()


async def _send_to_root(root_path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """The page's own addresses are relative to where it is, so it needs the slash."""
    await Response(status_code=307, headers={"Location": f"{root_path}/"})(scope, receive, send)


def error_response(api_error: ApiError) -> Response:
    response = Response(json.dumps(api_error.body), api_error.status, api_error.headers, "application/json")
    if api_error.status == 401:
        for challenge in _CHALLENGES:
            response.headers.append("WWW-Authenticate", challenge)
    return response
