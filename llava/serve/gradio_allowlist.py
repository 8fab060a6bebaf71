"""The door of the web chat: what of Gradio a browser reaches, and what is checked before Gradio sees it.

Gradio brings many more routes than the page uses, fetches what it is told to, and answers any origin. Here a route is
admitted by name or not at all; what comes in is put together anew from what was checked, and what goes out is stripped.
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

# Gradio's page makes its style sheets and small functions as it runs. Everything else comes from this server.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "connect-src 'self' data: blob:; form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_SHOWN = re.compile(r"/|/theme\.css|/favicon\.ico|/gradio_api/app_id|/(?:assets|static)/(?:[\w-][\w.-]*/)*[\w-][\w.-]*")
_FILE = "/gradio_api/file="
_NEWS = "/gradio_api/queue/data"
_CALL, _CALL_NOW, _UPLOAD = "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/upload"
_PAGE = re.compile(r"[A-Za-z0-9_-]{1,64}")
# What Gradio may know of a request and what a browser may know of its answer.
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
# The last news of answers that are over, once the server is being shut down.
_LAST_NEWS_S = 2.0


class GradioAllowlist:
    """The web chat as an ASGI application. Until ``open`` there is only ``waiting``, which says so."""

    def __init__(self, service: Service, waiting: App) -> None:
        self._service, self._waiting = service, waiting
        self._limits = service.limits
        self._root_path = service.settings.root_path
        self._app: App | None = None
        self._blocks: gradio.Blocks
        self._sessions: GradioSessions
        self._uploads: UploadStore

    def open(self, app: App, blocks: gradio.Blocks, sessions: GradioSessions, uploads: UploadStore) -> None:
        """From now on it leads to Gradio."""
        self._app, self._blocks, self._sessions, self._uploads = app, blocks, sessions, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await self._send_in_time(scope, send, message)

        answer = self._find(scope["method"], scope["path"])
        if self._app is None:
            await self._waiting(scope, receive, send_with_headers)
        else:
            await answer(scope, receive, send_with_headers)

    def _find(self, method: str, path: str) -> App:
        """What answers there. Raises ApiError: 404 and 405."""
        answer, methods = self._show, "GET, HEAD"
        if path.startswith(_FILE):
            answer = self._show_file
        elif path == _NEWS:
            answer, methods = self._tell_news, "GET"
        elif path in (_CALL, _CALL_NOW):
            answer, methods = self._call, "POST"
        elif path == _UPLOAD:
            answer, methods = self._upload, "POST"
        elif not _SHOWN.fullmatch(path):
            raise unknown_path(path, self._root_path)
        if method not in methods.split(", "):
            raise method_not_allowed(method, path, methods)
        return answer

    async def _send_in_time(self, scope: Scope, send: Send, message: Message) -> None:
        """A reader who leaves a piece unread for ``send_s`` is cut off, as an answer's is."""
        timer = asyncio.get_running_loop().call_later(self._limits.send_s, abort, scope)
        try:
            await send(message)
        finally:
            timer.cancel()

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._ask(scope, receive, send)

    async def _show_file(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._uploads.show(scope["path"].removeprefix(_FILE))
        await response(scope, receive, send)

    async def _tell_news(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = _read_page(parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0])
        if not self._sessions.knows(page):
            raise ApiError(404, "There is nothing to tell this page. Load it again.", code="not_found")
        with self._sessions.read(page):
            async with self._until_drained(receive, page) as receive_more:
                await self._ask(scope, receive_more, send, query=f"session_hash={page}".encode())

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
            await self._ask(scope, _say_once(body, receive), send, body=body)
            if is_queued:
                self._sessions.expect_reader(page)
        except ApiError as api_error:
            # Gradio's page shows the person what stands in ``detail``.
            body = json.dumps({**api_error.body, "detail": str(api_error)}).encode()
            await Response(body, api_error.status, api_error.headers, "application/json")(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            paths = await self._uploads.take(scope, receive)
        except ApiError as api_error:
            response = error_response(api_error)
            if any(name == b"origin" for name, _ in scope["headers"]):  # Gradio's page shows the person the whole body
                response = PlainTextResponse(str(api_error), api_error.status, api_error.headers)
        else:
            response = Response(json.dumps(paths), media_type="application/json")
        await response(scope, receive, send)

    async def _ask(
        self, scope: Scope, receive: Receive, send: Send, *, query: bytes = b"", body: bytes | None = None
    ) -> None:
        """Gradio's answer, if it is a good one. Raises ApiError otherwise."""
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
            raise ApiError(500, "The web chat failed on this request. Its log says more.", code="internal") from None
        if not status or (300 <= status < 400 and status != 304) or status == 404:
            raise unknown_path(scope["path"], self._root_path)
        if status >= 400:
            raise ApiError(status, "The web chat cannot do this. Load the page again.", code="bad_call")
        if not has_ended:
            await send({"type": "http.response.body", "body": b""})

    @asynccontextmanager
    async def _until_drained(self, receive: Receive, page: str) -> AsyncIterator[Receive]:
        """What the client sends; it seems to leave when the server is shut down and nothing is on its way to it."""

        async def wait() -> None:
            await self._service.is_drained.wait()
            end = asyncio.get_running_loop().time() + _LAST_NEWS_S
            while self._sessions.num_calls(page) and asyncio.get_running_loop().time() < end:
                await asyncio.sleep(0.02)

        over = asyncio.create_task(wait())

        async def receive_until_then() -> Message:
            message = asyncio.ensure_future(receive())
            try:
                await asyncio.wait((message, over), return_when=asyncio.FIRST_COMPLETED)
                return message.result() if message.done() else {"type": "http.disconnect"}
            finally:
                message.cancel()

        try:
            yield receive_until_then
        finally:
            over.cancel()
            await asyncio.gather(over, return_exceptions=True)


def log_without_text(what: str, error: BaseException) -> None:
    """Logs where an error came from, but nothing that a client sent: messages of errors quote it."""
    LOG.error("%s: %s\n%s", what, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)).rstrip())


def _read_page(value: Any) -> str:
    """A page's session hash. Raises ApiError."""
    if not isinstance(value, str) or not _PAGE.fullmatch(value):
        raise ApiError(400, "A page is named by up to 64 letters and digits.", param="session_hash", code="bad_call")
    return value


def _find_hosts(scope: Scope) -> frozenset[str]:
    """By what names the page that asks may call this server: its own origin, and what it was called by."""
    found: Iterable[tuple[bytes, bytes]] = scope["headers"]
    hosts = [value.decode("latin-1").lower() for name, value in found if name == b"host"]
    origins = [value.decode("latin-1").lower() for name, value in found if name == b"origin"]
    return frozenset([*hosts, *(origin.partition("://")[2] for origin in origins)]) - {""}


def _rewrite(scope: Scope, query: bytes, body: bytes | None) -> Scope:
    """The request as Gradio gets it: nothing of it comes from the client unchecked."""
    headers = [(name, value) for name, value in scope["headers"] if name in _HEADERS_IN]
    headers.append((b"host", b"localhost"))
    if body is not None:
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    asgi = {**scope.get("asgi", {}), "spec_version": "2.3"}  # streams listen for a disconnect then
    method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves the body out
    said = {"method": method, "headers": headers, "query_string": query, "root_path": "", "asgi": asgi, "state": {}}
    return {**scope, **said}


def _say_once(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, and then what the client does."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_more() -> Message:
        return messages.pop() if messages else await receive()

    return receive_more
