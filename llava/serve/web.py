"""The web chat: Gradio at ``/`` of the server, in its process, asking its engine directly.

Nothing of it comes from or goes to anywhere else: no analytics, no fonts or scripts of other hosts. What of Gradio
browsers reach is decided in ``door``. Gradio is imported once the engine has started.
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
from llava.serve.upload_store import FORMATS, STAY_S, SWEEP_S, UploadStore
from llava.serve.uploaded_images import UploadedImages

if TYPE_CHECKING:
    from llava.serve.service import Service

ASSETS = Path(__file__).parent / "assets"


def mount(app: FastAPI, service: Service) -> None:
    """Adds the web chat to the application, below all routes that it has.

    It opens behind the engine: Gradio takes seconds to import, and who asks through the API need not wait for it.
    Votes go to the service's log, and what is shown to ``FILE-images`` beside it; without a log there are no votes.
    """
    page = _Page(service)
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


class _Page:
    """The chat behind its door, with another page in its place until it is open."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.allowlist = GradioAllowlist(service, self._say_why)
        self._closing = asyncio.Event()
        self._is_open = self._is_broken = False

    async def open(self) -> None:
        """Opens it once the engine has started, and returns when it is closed again."""
        with suppress(Exception):  # of which the service tells
            await self._service.started()
        if self._service.failure is not None:
            return
        uploads = None
        try:
            uploads = await asyncio.to_thread(UploadStore, self._service.limits, self._service.images.image_limits)
            sessions = _make_sessions(self._service, uploads)
            # Gradio makes event loops that nobody closes where it is used without a running one.
            outer = await asyncio.to_thread(asyncio.run, _build(sessions))
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
            LOG.error("the web chat could not be opened; the API answers without it", exc_info=error)
        finally:
            if uploads is not None:
                uploads.close()

    async def close(self, opening: asyncio.Task[None]) -> None:
        """Ends ``opening``, the task of ``open``."""
        self._closing.set()
        if not self._is_open:
            opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

    async def _say_why(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Why there is no chat, or not yet."""
        if scope["path"] == "/" and not self._is_broken:
            response: Response = HTMLResponse(_read_asset("loading.html"), 503, {"Retry-After": "1"})
        else:
            text = "could not be opened: the server's log says why" if self._is_broken else "is being opened"
            response = error_response(ApiError(503, f"The web chat {text}.", code="no_web"))
        await response(scope, receive, send)


def _make_sessions(service: Service, uploads: UploadStore) -> ChatSessions:
    log = service.settings.log
    save_in = log.with_name(f"{log.name}-images") if log is not None else None
    return ChatSessions(service, UploadedImages(service.images, [uploads.folder], save_in))


async def _build(sessions: ChatSessions) -> FastAPI:
    """An application with nothing but Gradio's in it."""
    # Read by Gradio when it is imported, and whenever it would report something.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    disable_gradio_analytics()
    import gradio

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
        # Not as ``css``, which Gradio confines to what is below its own container.
        head=f"<style>{_read_asset('page.css')}</style><script>{_read_asset('page.js')}</script>",
    )
    return outer


def _patch_gradio() -> None:
    """What no setting of Gradio does: no addresses from a client's headers, no prints of its text, all images known."""
    import gradio.queueing
    import gradio.route_utils
    import gradio.routes

    gradio.route_utils.get_root_url = _write_root
    for module in (gradio.queueing, gradio.routes):
        module.traceback = _Prints()  # type: ignore[attr-defined]
    # Python knows WebP only where the system does, and what has no type is no image to Gradio.
    for ending, kind in FORMATS.items():
        mimetypes.add_type(f"image/{kind.lower()}", ending)


def _write_root(request: Any, route_path: str, root_path: str | None) -> str:
    """Relative to wherever the browser found the page. The dot keeps two slashes, which name a host, from meeting."""
    return f"{(root_path or '').rstrip('/')}/."


class _Prints:
    """In the place of the module ``traceback``."""

    def print_exc(self) -> None:
        error = sys.exc_info()[1]
        if error is not None:
            log_without_text("the web chat failed", error)


def _read_asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


class _FallbackMount(Mount):
    """A mount at ``/`` that leaves to the API what is the API's: wrong methods and unknown names too."""

    def __init__(self, outer: FastAPI, app: App) -> None:
        super().__init__("/", app)
        self._outer = outer

    def matches(self, scope: Any) -> tuple[Match, Any]:
        others = (route for route in self._outer.router.routes if route is not self)
        if scope["path"].startswith("/v1/") or any(route.matches(scope)[0] is Match.PARTIAL for route in others):
            return Match.NONE, {}
        return super().matches(scope)
