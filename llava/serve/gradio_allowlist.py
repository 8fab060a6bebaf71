"""The allowlist in front of Gradio: which of its routes a browser reaches, and what is validated before Gradio sees it.

Gradio has many more routes than the page uses, fetches URLs that clients name, and accepts any origin. Here every other
route is a 404; a request is rebuilt from validated values only, and a response keeps only known headers.
"""

from __future__ import annotations

import asyncio
import json
import re
import traceback
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from llava.serve.api_errors import LOG, ApiError
from llava.serve.body import read_json
from llava.serve.middleware import App, Message, Receive, Scope, Send, abort, error_response
from llava.serve.request_path import method_not_allowed, unknown_path
from llava.serve.service import Service
from llava.serve.upload_store import UploadStore

if TYPE_CHECKING:
    import gradio

    from llava.serve.gradio_sessions import GradioSessions

# Gradio's page generates styles and evaluates code at run time. Everything else comes from this server.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' data: blob:; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_STATIC = re.compile(
    r"/|/theme\.css|/favicon\.ico|/gradio_api/app_id|/(?:assets|static)/(?:[\w-][\w.-]*/)*[\w-][\w.-]*"
)
_FILE = "/gradio_api/file="
_UPDATES = "/gradio_api/queue/data"
_CALL, _CALL_NOW, _UPLOAD = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/upload"
_PAGE = re.compile(r"[A-Za-z0-9_-]{1,64}")
# The request headers that Gradio gets, and the response headers that a browser gets.
_HEADERS_IN = (b"accept", b"accept-encoding", b"accept-language", b"if-none-match", b"if-modified-since", b"user-agent")
_HEADERS_OUT = (
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"cache-control",
    b"etag",
    b"last-modified",
    b"vary",
)
# How long pages may still fetch the last updates during a shutdown.
_LAST_UPDATES_S = 2.0


class GradioAllowlist:
    """The web chat as an ASGI application. Until ``open`` is called, ``placeholder`` answers."""

    def __init__(self, service: Service, placeholder: App) -> None:
        self._service, self._placeholder = service, placeholder
        self._limits = service.limits
        self._root_path = service.settings.root_path
        self._app: App | None = None
        self._blocks: gradio.Blocks
        self._sessions: GradioSessions
        self._uploads: UploadStore

    def open(self, app: App, blocks: gradio.Blocks, sessions: GradioSessions, uploads: UploadStore) -> None:
        """Forwards requests to Gradio from now on."""
        self._app, self._blocks, self._sessions, self._uploads = app, blocks, sessions, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await self._send_in_time(scope, send, message)

        answer = self._find_route(scope["method"], scope["path"])
        if self._app is None:
            await self._placeholder(scope, receive, send_with_headers)
        else:
            await answer(scope, receive, send_with_headers)

    def _find_route(self, method: str, path: str) -> App:
        """The handler for a path. Raises ApiError (404, 405)."""
        answer, methods = self._send_static, "GET, HEAD"
        if path.startswith(_FILE):
            answer = self._send_upload
        elif path == _UPDATES:
            answer, methods = self._stream_updates, "GET"
        elif path in (_CALL, _CALL_NOW):
            answer, methods = self._call, "POST"
        elif path == _UPLOAD:
            answer, methods = self._upload, "POST"
        elif not _STATIC.fullmatch(path):
            raise unknown_path(path, self._root_path)
        if method not in methods.split(", "):
            raise method_not_allowed(method, path, methods)
        return answer

    async def _send_in_time(self, scope: Scope, send: Send, message: Message) -> None:
        """Sends a piece; a client that does not read it within ``send_s`` is disconnected, as with API streams."""
        timer = asyncio.get_running_loop().call_later(self._limits.send_s, abort, scope)
        try:
            await send(message)
        finally:
            timer.cancel()

    async def _send_static(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._forward(scope, receive, send)

    async def _send_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._uploads.respond(scope["path"].removeprefix(_FILE))
        await response(scope, receive, send)

    async def _stream_updates(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = _read_page(parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0])
        if not self._sessions.has_updates(page):
            raise ApiError(404, "There are no updates for this page. Reload it.", code="not_found")
        with self._sessions.reading(page):
            async with self._until_drained(receive, page) as receive_more:
                await self._forward(scope, receive_more, send, query=f"session_hash={page}".encode())

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        from llava.serve.gradio_payload import check_call

        is_queued = scope["path"] == _CALL
        try:
            call = await read_json(Request(scope, receive), self._limits)
            page = _read_page(call.get("session_hash"))
            check = partial(check_call, call, self._blocks, self._uploads, self._limits, _find_hosts(scope))
            checked = await asyncio.to_thread(check, is_queued=is_queued)
            if is_queued:
                self._sessions.admit(page)
            body = json.dumps(checked).encode()
            await self._forward(scope, _replay_body(body, receive), send, body=body)
            if is_queued:
                self._sessions.expect_reader(page)
        except ApiError as api_error:
            # Gradio's page displays ``detail`` to the user.
            body = json.dumps({**api_error.body, "detail": str(api_error)}).encode()
            await Response(body, api_error.status, api_error.headers, "application/json")(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            paths = await self._uploads.accept(scope, receive)
        except ApiError as api_error:
            response = error_response(api_error)
            if any(name == b"origin" for name, _ in scope["headers"]):  # Gradio's page displays the whole body
                response = PlainTextResponse(str(api_error), api_error.status, api_error.headers)
        else:
            response = Response(json.dumps(paths), media_type="application/json")
        await response(scope, receive, send)

    async def _forward(
        self, scope: Scope, receive: Receive, send: Send, *, query: bytes = b"", body: bytes | None = None
    ) -> None:
        """Forwards the request to Gradio and a successful response to the client. Raises ApiError otherwise."""
        status, has_ended = 0, False

        async def send_stripped(message: Message) -> None:
            nonlocal status, has_ended
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [pair for pair in message.get("headers", ()) if pair[0].lower() in _HEADERS_OUT]
            if status < 300 or status == 304:
                has_ended = message["type"] == "http.response.body" and not message.get("more_body")
                await send(message)

        assert self._app is not None
        try:
            await self._app(_rewrite(scope, query, body), receive, send_stripped)
        except Exception as error:
            log_without_text("the web chat failed on a request", error)
            raise ApiError(500, "The web chat failed on this request. See the server's log.", code="internal") from None
        if not status or (300 <= status < 400 and status != 304) or status == 404:
            raise unknown_path(scope["path"], self._root_path)
        if status >= 400:
            raise ApiError(status, "The web chat rejected this request. Reload the page.", code="bad_call")
        if not has_ended:
            await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def _until_drained(self, receive: Receive, page: str) -> AsyncIterator[Receive]:
        """``receive``, which also reports a disconnect once the server has drained and the page has no open calls."""

        async def wait() -> None:
            await self._service.is_drained.wait()
            end = asyncio.get_running_loop().time() + _LAST_UPDATES_S
            while self._sessions.num_calls(page) and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.02)

        drained = asyncio.create_task(wait())

        async def receive_until_then() -> Message:
            message = asyncio.ensure_future(receive())
            try:
                await asyncio.wait((message, drained), return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                message.cancel()

        try:
            yield receive_until_then
        finally:
            drained.cancel()
            await asyncio.gather(drained, return_exceptions=True)


def log_without_text(what: str, error: BaseException) -> None:
    """Logs an error's type and traceback but not its message, which may quote what a client sent."""
    LOG.error("%s: %s\n%s", what, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)).rstrip())


def _read_page(value: Any) -> str:
    """A page's session hash. Raises ApiError (400)."""
    if not isinstance(value, str) or not _PAGE.fullmatch(value):
        why = "session_hash has to be 1 to 64 letters, digits, hyphens or underscores."
        raise ApiError(400, why, param="session_hash", code="bad_call")
    return value


def _find_hosts(scope: Scope) -> frozenset[str]:
    """The names by which the calling page may address this server: its own origin, and ``Host``."""
    found: Iterable[tuple[bytes, bytes]] = scope["headers"]
    hosts = [value.decode("latin-1").lower() for name, value in found if name == b"host"]
    origins = [value.decode("latin-1").lower() for name, value in found if name == b"origin"]
    return frozenset([*hosts, *(origin.partition("://")[2] for origin in origins)]) - {""}


def _rewrite(scope: Scope, query: bytes, body: bytes | None) -> Scope:
    """The request that Gradio gets, which contains nothing unvalidated from the client."""
    headers = [(name, value) for name, value in scope["headers"] if name in _HEADERS_IN]
    headers.append((b"host", b"localhost"))
    if body is not None:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    asgi = {**scope.get("asgi", {}), "spec_version": "2.3"}  # makes Starlette's streams listen for a disconnect
    method = "GET" if scope["method"] == "HEAD" else scope["method"]  # uvicorn omits the body
    rewritten = {
        "method": method,
        "headers": headers,
        "query_string": query,
        "root_path": "",
        "asgi": asgi,
        "state": {},
    }
    return {**scope, **rewritten}


def _replay_body(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that returns the given body first, and then the client's further messages."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_more() -> Message:
        return messages.pop() if messages else await receive()

    return receive_more
