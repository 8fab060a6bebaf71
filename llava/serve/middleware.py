"""The server's middleware: Host, API key and Origin checks, request ids, errors as JSON, cancellation on disconnect.

Every request passes through ``ServerMiddleware``. What cancels an answer when its client disconnects, or when it takes
longer than ``answer_s``, is ``_cancel_on_disconnect``.
"""

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

# The only route that needs no API key.
_KEYLESS_PATH = b"/health"
# One header line each, because browsers parse only one challenge per line. On Basic a browser prompts for a password:
# the key, with any user name.
_CHALLENGES = ("Bearer", 'Basic realm="llava"')
# Routes that the engine answers. They are cancelled when the client disconnects.
ENGINE_ROUTES = ("/v1/", "/worker_")


class ServerMiddleware:
    """Checks each request before the application sees it, and turns exceptions into JSON errors."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._digests = [_digest(key) for key in settings.keys]
        self._keeps_apart = settings.keeps_keys_apart
        self._header_bytes, self._answer_s = settings.limits.header_bytes, settings.limits.answer_s
        # A client that knows the idle timeout does not reuse a connection that is about to be closed.
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
            if scope["path"].startswith(ENGINE_ROUTES):
                await _cancel_on_disconnect(self._app, scope, receive, send_with_id, self._answer_s)
            else:
                await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass  # the client disconnected, so no response can be sent
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError):
                error = _shutting_down()
            api_error = to_api_error(error, request_id, scope["state"].get("param"))
            if not has_begun:
                await error_response(api_error)(scope, receive, send_with_id)
            elif not has_ended:
                abort(scope)  # a truncated answer must not look complete

    def _check_headers(self, scope: Scope) -> None:
        # h11 checks the size only while headers are incomplete: those that arrive in one packet get past its limit.
        num_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
        if num_bytes > self._header_bytes:
            value = f"The request headers have {num_bytes:,} bytes"
            raise limit_exceeded("header_bytes", self._header_bytes, value, "Send fewer.", status=431)

    def _find_path(self, scope: Scope) -> bool:
        """Puts the normalized path into the scope. True for the bare ``root_path``, which lacks its trailing slash."""
        asked, root_path = scope["path"], self._settings.root_path
        path = normalize_path(asked, root_path)
        if path != asked:
            scope["path"], scope["raw_path"] = path, encode_path(path)
        return bool(root_path) and asked == root_path and scope["method"] in ("GET", "HEAD")

    def _check_key(self, scope: Scope) -> str:
        """The digest of the client's API key; "" if no key is required. Raises ApiError (401)."""
        if not self._digests or scope.get("raw_path", scope["path"].encode()) == _KEYLESS_PATH:
            return ""
        given = [_read_key(value) for name, value in scope["headers"] if name == b"authorization"]
        digest = _digest(given[0]) if given else b""
        if not any(hmac.compare_digest(digest, known) for known in self._digests):
            raise ApiError(
                401,
                "The API key is missing or wrong. Send 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
            )
        return digest.hex()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read_key(header: bytes) -> str:
    """The key in an Authorization header: the Bearer token, or the password of Basic."""
    kind, _, value = header.decode("utf-8", "surrogateescape").strip().partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            pass
    return ""


async def _cancel_on_disconnect(app: App, scope: Scope, receive: Receive, send: Send, limit_s: float) -> None:
    """Runs the application, and cancels it when the client disconnects. Raises ApiError (503) after ``limit_s``."""
    messages: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)
    is_wanted = asyncio.Event()
    if all(name != b"expect" for name, _ in scope["headers"]):
        is_wanted.set()

    async def take() -> Message:
        is_wanted.set()
        return await messages.get()

    async def watch() -> None:
        # The first ``receive`` sends 100 Continue. A client that sent Expect must not get it before the body is wanted.
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
            raise limit_exceeded("answer_s", limit_s, value, "Request a shorter one, or try again later.", status=503)
    except (ApiError, asyncio.CancelledError) as error:
        scope["llava.error"] = error if isinstance(error, ApiError) else _shutting_down()
        raise
    finally:
        watcher.cancel()
        # In a loop: before Python 3.12 asyncio.wait_for may swallow a cancellation.
        while not main.done():
            main.cancel()
            await asyncio.wait({main}, timeout=0.05)
        if not main.cancelled():
            main.exception()  # retrieved, so that asyncio does not log it: the client is gone


def _shutting_down() -> ApiError:
    """The error for a request that was cancelled from outside, which only a shutdown does."""
    return ApiError(503, "The server is shutting down. Use another one.", code="draining")


def abort(scope: Scope) -> None:
    """Closes the connection at once, if the server supports it."""
    close = scope.get("llava.abort")
    if close is not None:
        close()


async def _send_to_root(root_path: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Redirects to the path with a slash: the page's URLs are relative to it."""
    await Response(status_code=307, headers={"Location": f"{root_path}/"})(scope, receive, send)


def error_response(api_error: ApiError) -> Response:
    """The JSON response of an error, with its headers; 401 has a challenge for each scheme."""
    response = Response(json.dumps(api_error.body), api_error.status, api_error.headers, "application/json")
    if api_error.status == 401:
        for challenge in _CHALLENGES:
            response.headers.append("WWW-Authenticate", challenge)
    return response
