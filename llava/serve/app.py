"""The server as an ASGI application: its routes, its middleware, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llava import __version__
from llava.backends.protocol import Backend
from llava.serve.api_errors import ApiError
from llava.serve.limits import Settings
from llava.serve.middleware import ServerMiddleware, error_response
from llava.serve.openai_routes import add_openai_routes
from llava.serve.request_path import method_not_allowed, unknown_path
from llava.serve.responses_routes import add_responses_route
from llava.serve.service import Service
from llava.serve.worker_routes import add_worker_routes

Mount = Callable[[FastAPI, Service], None]


def create_app(backend: Backend, settings: Settings = Settings(), *, mount: Mount | None = None) -> FastAPI:
    """The ASGI application that serves ``backend``; its lifespan starts and stops the backend.

    ``state.service`` is its ``Service``. ``mount`` adds further routes, such as the web chat.
    """
    service = Service(backend, settings)

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    # FastAPI's documentation pages are disabled: they load scripts from other hosts.
    app = FastAPI(
        title="llava",
        version=__version__,
        lifespan=run,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    add_openai_routes(app, service)
    add_responses_route(app, service)
    add_worker_routes(app, service)
    app.add_route("/health", partial(health, service), methods=["GET"])
    app.add_route("/ready", partial(ready, service), methods=["GET"])
    app.add_route("/metrics", partial(show_metrics, service), methods=["GET"])
    app.add_exception_handler(HTTPException, partial(_answer_routing_error, settings.root_path))
    if mount is not None:
        mount(app, service)
    app.add_middleware(ServerMiddleware, settings=settings)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "Retry-After"],
        )
    return app


async def health(service: Service, request: Request) -> Response:
    """/health: 503 only if the engine has failed, so that a supervisor restarts the process."""
    if service.is_starting:
        return JSONResponse({"status": "loading"})
    if service.failure is not None or not await service.backend.is_ready():
        return JSONResponse({"status": "broken"}, 503)
    fallbacks = getattr(service.backend, "fallbacks", ())  # only our own engine has them
    more = {"fallbacks": list(fallbacks)} if fallbacks else {}
    return JSONResponse({"status": "draining" if service.is_draining else "ok", **more})


async def ready(service: Service, request: Request) -> Response:
    """/ready: 200 if a request sent now would be answered, else 503."""
    if await service.is_ready():
        return JSONResponse({"status": "ready"})
    status = "draining" if service.is_draining else "loading" if service.is_starting else "broken"
    return JSONResponse({"status": status}, 503, {"Retry-After": "1"})


async def show_metrics(service: Service, request: Request) -> Response:
    """/metrics, in Prometheus' text format."""
    return Response(service.metrics.write(), media_type="text/plain; version=0.0.4")


async def _answer_routing_error(root_path: str, request: Request, error: Exception) -> Response:
    """The router's 404 and 405 in OpenAI's format."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    if error.status_code == 404:
        api_error = unknown_path(path, root_path)
    elif error.status_code == 405:
        api_error = method_not_allowed(request.method, path, (error.headers or {}).get("Allow", "another method"))
    else:
        api_error = ApiError(error.status_code, str(error.detail))
    return error_response(api_error)
