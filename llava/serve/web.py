"""The web chat: Gradio at ``/`` of the server, in its process, asking its engine directly.

Nothing of it comes from or goes to anywhere else: no analytics, no fonts or scripts of other hosts, and a content
security policy that holds the browser to it, whatever a model or a person writes. Gradio is imported once the engine
has started.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.routing import Match, Mount

from llava.serve.gate import App, Message, Receive, Scope, Send, answer_refusal
from llava.serve.limits import Limits
from llava.serve.refusals import LOG, Refusal, over
from llava.serve.talk import Album, Talks

if TYPE_CHECKING:
    from llava.serve.service import Service

ASSETS = Path(__file__).parent / "assets"
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
# How often uploaded files are looked through, and how long they stay.
_SWEEP_S, _STAY_S = 600, 24 * 3600


def mount(app: FastAPI, service: Service) -> None:
    """Adds the web chat to the application, below all routes that it has.

    It opens behind the engine: Gradio takes seconds to import, and who asks through the API need not wait for it.
    Votes go to the service's log, and what is shown to ``FILE-pictures`` beside it; without a log there are no votes.
    """
    page = _Page(service)
    app.router.routes.append(_Below(app, _Door(page, service.limits)))
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[Any]:
        async with inner(app) as state:
            opening = asyncio.create_task(page.open())
            try:
                yield state
            finally:
                await page.close(opening)

    app.router.lifespan_context = run


class _Page:
    """The chat as an ASGI application, with another page in its place until it is open."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._app: App | None = None
        self._closing = asyncio.Event()
        self._is_broken = False

    async def open(self) -> None:
        """Opens it once the engine has started, and returns when it is closed again."""
        with suppress(Exception):  # of which the service tells
            await self._service.started()
        if self._service.failure is not None:
            return
        try:
            # Gradio makes event loops that nobody closes where it is used without a running one.
            outer = await asyncio.to_thread(asyncio.run, _build(self._service))
        except Exception as error:
            self._is_broken = True
            LOG.error("the web chat could not be opened; the API answers without it", exc_info=error)
            return
        mounted = outer.router.routes.pop()
        assert isinstance(mounted, Mount)
        async with outer.router.lifespan_context(outer):
            self._app = mounted.app
            await self._closing.wait()

    async def close(self, opening: asyncio.Task[None]) -> None:
        """Ends ``opening``, the task of ``open``."""
        self._closing.set()
        if self._app is None:
            opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is not None:
            await self._app(scope, receive, send)
        elif scope["path"] == "/" and not self._is_broken:
            response = HTMLResponse(_read_asset("opening.html"), 503, {"Retry-After": "1"})
            await response(scope, receive, send)
        else:
            text = "could not be opened: the server's log says why" if self._is_broken else "is being opened"
            await answer_refusal(Refusal(503, f"The web chat {text}.", code="no_web"))(scope, receive, send)


async def _build(service: Service) -> FastAPI:
    """An application with nothing but Gradio's in it."""
    # Read by Gradio when it is imported, and whenever it would report something.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    from llava.serve.page import build_page, make_theme

    log, uploads = service.settings.log, _make_upload_folder()
    save_in = log.with_name(f"{log.name}-pictures") if log is not None else None
    album = Album(service.pictures, [uploads, ASSETS], save_in)
    outer = FastAPI()
    gradio.mount_gradio_app(
        outer,
        build_page(Talks(service, album), ASSETS, (_SWEEP_S, _STAY_S)),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=service.limits.picture_bytes,
        favicon_path=str(ASSETS / "icon.png"),
        theme=make_theme(),
        # Not as ``css``, which Gradio confines to what is below its own container.
        head=f"<style>{_read_asset('page.css')}</style><script>{_read_asset('page.js')}</script>",
    )
    return outer


def _read_asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _make_upload_folder() -> Path:
    """Where Gradio keeps what is uploaded: readable for this user only, and gone with the process."""
    known = os.environ.get("GRADIO_TEMP_DIR")
    if known is None:
        known = os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="llava-web-")
        atexit.register(shutil.rmtree, known, ignore_errors=True)
    return Path(known)


class _Below(Mount):
    """A mount at ``/`` that leaves to the API what is the API's: wrong methods and unknown names too."""

    def __init__(self, outer: FastAPI, app: App) -> None:
        super().__init__("/", app)
        self._outer = outer

    def matches(self, scope: Any) -> tuple[Match, Any]:
        others = (route for route in self._outer.router.routes if route is not self)
        if scope["path"].startswith("/v1/") or any(route.matches(scope)[0] is Match.PARTIAL for route in others):
            return Match.NONE, {}
        return super().matches(scope)


class _Door:
    """Around Gradio: bodies within limits, and headers that keep the page to this server."""

    def __init__(self, app: App, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most, come = self._find_limit(scope), 0
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if not announced.isdigit() or int(announced) > most:
            refusal = over("body_bytes", most, "The request's body is too large", "Send less.", status=413)
            await answer_refusal(refusal)(scope, receive, send)
            return

        async def receive_within() -> Message:
            nonlocal come
            message = await receive()
            come += len(message.get("body", b""))
            return message if come <= most else {"type": "http.disconnect"}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self._app(scope, receive_within, send_with_headers)

    def _find_limit(self, scope: Scope) -> int:
        """Gradio checks each file of an upload by itself; what it does not check is how many there are."""
        limits = self._limits
        if scope["path"].rstrip("/").endswith("/upload"):
            return max(limits.body_bytes, limits.picture_bytes * max(1, limits.pictures))
        return limits.body_bytes
