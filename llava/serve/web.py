"""The web chat: a Gradio app mounted at ``/``, in the server's process.

It contacts no other host: no analytics, no external fonts or scripts. ``gradio_allowlist`` decides which of Gradio's
routes browsers reach. Gradio is imported once the engine has started.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Mount

from llava.serve.api_errors import LOG, ApiError
from llava.serve.chat_session import ChatSessions
from llava.serve.gradio_allowlist import GradioAllowlist, log_without_text
from llava.serve.gradio_sessions import GradioSessions, disable_gradio_analytics
from llava.serve.middleware import App, Receive, Scope, Send, error_response
from llava.serve.stoppable_import import import_unless
from llava.serve.upload_store import FORMATS, STAY_S, SWEEP_S, UploadStore
from llava.serve.uploaded_images import UploadedImages

if TYPE_CHECKING:
    from llava.serve.service import Service

ASSETS = Path(__file__).parent / "assets"


def mount(app: FastAPI, service: Service) -> None:
    """Adds the web chat to the application, after all of its routes.

    It starts after the engine, because importing Gradio takes seconds and API clients need not wait for it. Votes go
    to the service's log, and images to ``FILE-images`` next to it; without a log there are no votes.
    """
    page = _WebChat(service)
    app.state.gradio_allowlist = page.allowlist
    app.router.routes.append(_FallbackMount(app, page.allowlist))
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


class _WebChat:
    """Starts and stops the web chat; until it has started, a placeholder page answers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.allowlist = GradioAllowlist(service, self._answer_unavailable)
        self._closing = asyncio.Event()
        self._is_open = self._is_broken = False

    async def open(self) -> None:
        """Starts it once the engine has started, and runs until ``close``."""
        with suppress(Exception):  # the service reports it
            await self._service.started()
        if self._service.failure is not None:
            return
        uploads = None
        try:
            uploads = await asyncio.to_thread(UploadStore, self._service.limits, self._service.images.image_limits)
            sessions = _make_sessions(self._service, uploads)
            # In a running event loop: without one Gradio creates loops that it never closes.
            outer = await asyncio.to_thread(asyncio.run, _build(sessions, self._closing))
            mounted = outer.router.routes.pop()
            assert isinstance(mounted, Mount)
            gradio_app: Any = mounted.app
            async with outer.router.lifespan_context(outer):
                gradio_sessions = GradioSessions(gradio_app, self._service.limits, partial(sessions.stop, drop=True))
                self.allowlist.open(gradio_app, gradio_app.get_blocks(), gradio_sessions, uploads)
                self._is_open = True
                while not self._closing.is_set():
                    uploads.sweep()
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), SWEEP_S)
        except Exception as error:
            self._is_broken = True
            LOG.error("the web chat could not be started; the API works without it", exc_info=error)
        finally:
            if uploads is not None:
                uploads.close()

    async def close(self, opening: asyncio.Task[None]) -> None:
        """Stops the web chat. ``opening``: the task of ``open``."""
        self._closing.set()
        if not self._is_open:
            opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

    async def _answer_unavailable(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The placeholder: says that the web chat is starting, or that it failed to start."""
        if scope["path"] == "/" and not self._is_broken:
            response: Response = HTMLResponse(_read_asset("loading.html"), 503, {"Retry-After": "1"})
        else:
            text = "could not be started: see the server's log" if self._is_broken else "is starting"
            response = error_response(ApiError(503, f"The web chat {text}.", code="no_web"))
        await response(scope, receive, send)


def _make_sessions(service: Service, uploads: UploadStore) -> ChatSessions:
    log = service.settings.log
    save_in = log.with_name(f"{log.name}-images") if log is not None else None
    return ChatSessions(service, UploadedImages(service.images, [uploads.folder], save_in))


async def _build(sessions: ChatSessions, closing: asyncio.Event) -> FastAPI:
    """An application that contains only Gradio's. Ends soon once ``closing`` is set: importing Gradio takes seconds."""
    # Gradio reads it on import, and before each report.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    disable_gradio_analytics()
    gradio: Any = import_unless(closing, "gradio")

    from llava.serve.chat_page import build_page, make_theme

    service = sessions.service
    _patch_gradio()
    outer = FastAPI()
    gradio.mount_gradio_app(
        outer,
        build_page(sessions, ASSETS, (SWEEP_S, STAY_S)),
        path="/",
        root_path=service.settings.root_path or None,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        show_error=False,
        max_file_size=service.limits.image_bytes,
        favicon_path=str(ASSETS / "icon.png"),
        theme=make_theme(),
        # Not as ``css``, which Gradio scopes to its own container.
        head=f"<style>{_read_asset('page.css')}</style><script>{_read_asset('page.js')}</script>",
    )
    return outer


def _patch_gradio() -> None:
    """Patches what Gradio has no settings for: URLs from client headers, printed tracebacks, unknown image types."""
    import gradio.queueing
    import gradio.route_utils
    import gradio.routes

    gradio.route_utils.get_root_url = _write_root
    for module in (gradio.queueing, gradio.routes):
        module.traceback = _SafeTraceback()  # type: ignore[attr-defined]
    # Python knows WebP's type only if the system does, and Gradio accepts no image without a type.
    for ending, kind in FORMATS.items():
        mimetypes.add_type(f"image/{kind.lower()}", ending)


def _write_root(request: Any, route_path: str, root_path: str | None) -> str:
    """A root URL relative to the page. The dot prevents a leading ``//``, which would name a host."""
    return f"{(root_path or '').rstrip('/')}/."


class _SafeTraceback:
    """Replaces the module ``traceback`` in Gradio: logs errors without their messages, which quote clients."""

    def print_exc(self) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            log_without_text("the web chat failed", error)


def _read_asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


class _FallbackMount(Mount):
    """A mount at ``/`` that never shadows the API, not even for wrong methods and unknown ``/v1/`` paths."""

    def __init__(self, outer: FastAPI, app: App) -> None:
        super().__init__("/", app)
        self._outer = outer

    def matches(self, scope: Any) -> tuple[Match, Any]:
        others = (route for route in self._outer.router.routes if route is not self)
        if scope["path"].startswith("/v1/") or any(route.matches(scope)[0] is Match.PARTIAL for route in others):
            return Match.NONE, {}
        return super().matches(scope)
