"""The original's controller: a registry of workers and their models, which dispatches requests among them.

A worker registers with its models and then sends heartbeats; without one for ``CONTROLLER_HEART_BEAT_EXPIRATION``
seconds it is removed. Clients ask for a worker's address, or for an answer, which is proxied.

Source: haotian-liu/LLaVA@c121f04 llava/serve/controller.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Annotated, Any

import httpx2 as httpx
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from llava.backends.workers import make_client, post_json, read_address
from llava.constants import CONTROLLER_HEART_BEAT_EXPIRATION
from llava.errors import LlavaError
from llava.serve.api_errors import LOG, ApiError
from llava.serve.body import read_json
from llava.serve.connection import make_config
from llava.serve.host_and_origin import is_loopback_address
from llava.serve.limits import Settings
from llava.serve.listener import listen
from llava.serve.middleware import ServerMiddleware
from llava.serve.schemas import check
from llava.text import write_line

DISPATCH_METHODS = ("lottery", "shortest_queue")


_Length = Annotated[int, Field(ge=0, lt=2**53)]


class WorkerStatus(BaseModel):
    """What a worker reports about itself."""

    model_names: list[str]
    speed: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1
    queue_length: _Length = 0


class _Registration(BaseModel):
    worker_name: str
    check_heart_beat: bool = False
    worker_status: WorkerStatus | None = None


class _HeartBeat(BaseModel):
    worker_name: str
    queue_length: _Length


class _Wanted(BaseModel):
    """Which model is asked for. ``without`` names workers already tried; the original's clients do not send it."""

    model: str | None = None
    without: list[str] = []


@dataclass
class _Worker:
    status: WorkerStatus
    has_heart_beat: bool
    seen_s: float


class WorkerRegistry:
    """The registered workers by address. ``clock`` returns seconds."""

    def __init__(self, dispatch: str = "shortest_queue", clock: Callable[[], float] = time.monotonic) -> None:
        assert dispatch in DISPATCH_METHODS
        self._dispatch, self._clock = dispatch, clock
        self._workers: dict[str, _Worker] = {}

    @property
    def workers(self) -> dict[str, _Worker]:
        """The live workers; removes those whose heartbeat has expired."""
        end = self._clock() - CONTROLLER_HEART_BEAT_EXPIRATION
        silent = [name for name, worker in self._workers.items() if worker.has_heart_beat and worker.seen_s < end]
        for name in silent:
            LOG.warning("the worker at %s sent no heartbeat and was removed", name)
            del self._workers[name]
        return self._workers

    def add(self, name: str, status: WorkerStatus, *, has_heart_beat: bool) -> None:
        """Adds a worker, or updates its status."""
        self._workers[name] = _Worker(status, has_heart_beat, self._clock())

    def remove(self, name: str) -> None:
        """Removes a worker, if it is registered."""
        self._workers.pop(name, None)

    def mark_unreachable(self, name: str) -> None:
        """Removes a worker that cannot be reached, if it sends heartbeats and so will register again."""
        if (worker := self._workers.get(name)) is not None and worker.has_heart_beat:
            LOG.warning("the worker at %s cannot be reached and was removed until it registers again", name)
            self.remove(name)

    def record_heartbeat(self, name: str, queue_length: int) -> bool:
        """Records a worker's heartbeat; False if it is not registered and has to register again."""
        worker = self.workers.get(name)
        if worker is None:
            return False
        worker.status.queue_length, worker.seen_s = queue_length, self._clock()
        return True

    def list_models(self) -> list[str]:
        """The names of all workers' models, sorted."""
        return sorted({model for worker in self.workers.values() for model in worker.status.model_names})

    def choose(self, model: str | None, without: Collection[str] = ()) -> str:
        """The address of the worker for the next request, but none of ``without``; "" if no other has the model."""
        fit = {name: worker.status for name, worker in self.workers.items() if model in worker.status.model_names}
        fit = {name: status for name, status in fit.items() if status.speed > 0 and name not in without}
        if not fit:
            return ""
        if self._dispatch == "lottery":
            return random.choices(list(fit), [status.speed for status in fit.values()])[0]
        chosen = min(fit, key=lambda name: fit[name].queue_length / fit[name].speed)
        fit[chosen].queue_length += 1  # until its next heartbeat
        return chosen


class _Routes:
    def __init__(self, registry: WorkerRegistry, settings: Settings, client: httpx.AsyncClient) -> None:
        self.registry, self.limits, self.client = registry, settings.limits, client

    async def register(self, request: Request) -> Response:
        asked = check(_Registration, await read_json(request, self.limits))
        name = read_address(asked.worker_name)
        await self._add(name, asked.worker_status, has_heart_beat=asked.check_heart_beat)
        return JSONResponse(None)

    async def _add(self, name: str, status: WorkerStatus | None, *, has_heart_beat: bool) -> None:
        if status is None:
            said = await post_json(self.client, f"{name}/worker_get_status", {}, "worker")
            status = check(WorkerStatus, said if isinstance(said, dict) else {})
        self.registry.add(name, status, has_heart_beat=has_heart_beat)
        LOG.info("the worker at %s has %s", name, ", ".join(status.model_names))

    async def refresh(self, request: Request) -> Response:
        known = dict(self.registry.workers)
        await asyncio.gather(*(self._look_at(name, worker.has_heart_beat) for name, worker in known.items()))
        return JSONResponse(None)

    async def _look_at(self, name: str, has_heart_beat: bool) -> None:
        try:
            await self._add(name, None, has_heart_beat=has_heart_beat)
        except LlavaError as error:
            LOG.warning("%s It was removed.", error)
            self.registry.remove(name)

    async def list_models(self, request: Request) -> Response:
        return JSONResponse({"models": self.registry.list_models()})

    async def get_address(self, request: Request) -> Response:
        wanted = check(_Wanted, await read_json(request, self.limits))
        return JSONResponse({"address": self.registry.choose(wanted.model, wanted.without)})

    async def receive_heartbeat(self, request: Request) -> Response:
        beat = check(_HeartBeat, await read_json(request, self.limits))
        return JSONResponse(
            {"exist": self.registry.record_heartbeat(read_address(beat.worker_name), beat.queue_length)}
        )

    async def get_status(self, request: Request) -> Response:
        statuses = [worker.status for worker in self.registry.workers.values()]
        return JSONResponse(
            {
                "model_names": self.registry.list_models(),
                "speed": sum(status.speed for status in statuses),
                "queue_length": sum(status.queue_length for status in statuses),
            }
        )

    async def generate(self, request: Request) -> Response:
        """A worker's answer, streamed through. ``error_code`` is 2 for no such worker, 3 for a lost connection.

        If a worker cannot be reached, the next one is asked.
        """
        content = await read_json(request, self.limits)
        model = check(_Wanted, content).model
        timeout = httpx.Timeout(self.limits.answer_s, connect=5.0)
        unreachable = set[str]()
        while address := self.registry.choose(model, unreachable):
            url = f"{address}/worker_generate_stream"
            asking = self.client.build_request("POST", url, json=content, timeout=timeout)
            try:
                answer = await self.client.send(asking, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                unreachable.add(address)
                self.registry.mark_unreachable(address)
                continue
            except httpx.HTTPError:
                return _error(503, 3, f"The worker for '{model}' closed the connection before it answered. Try again.")
            return StreamingResponse(_pass_through(answer), answer.status_code, media_type="application/octet-stream")
        if unreachable:
            return _error(503, 3, f"No worker for '{model}' can be reached. Try again later.")
        known = ", ".join(self.registry.list_models()) or "none"
        return _error(404, 2, f"No worker has the model '{model}'. The models are: {known}.")


async def _pass_through(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.aiter_bytes():
            yield chunk
    except httpx.HTTPError:
        yield json.dumps({"text": "The worker closed the connection. Try again.", "error_code": 3}).encode() + b"\0"
    finally:
        await answer.aclose()


def _error(status: int, code: int, sentence: str) -> Response:
    api_error = ApiError(status, sentence, code="no_worker")
    return JSONResponse({**api_error.body, "text": sentence, "error_code": code}, status, api_error.headers)


def create_controller(registry: WorkerRegistry, settings: Settings = Settings()) -> FastAPI:
    """The controller as an ASGI application. LLAVA_ENGINE_KEY is the workers' API key."""
    client = make_client(api_key=os.environ.get("LLAVA_ENGINE_KEY"))

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=run, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    routes = _Routes(registry, settings, client)
    for path, answer in {
        "/register_worker": routes.register,
        "/refresh_all_workers": routes.refresh,
        "/list_models": routes.list_models,
        "/get_worker_address": routes.get_address,
        "/receive_heart_beat": routes.receive_heartbeat,
        "/worker_generate_stream": routes.generate,
        "/worker_get_status": routes.get_status,
    }.items():
        app.add_route(path, answer, methods=["POST"])
    app.add_middleware(ServerMiddleware, settings=settings)
    return app


class _Server(uvicorn.Server):
    """Uvicorn's server, which exits with 0 on SIGTERM and Ctrl-C."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def serve_controller(host: str, port: int, dispatch: str, hosts: Sequence[str] = ()) -> int:
    """Serves until SIGTERM or Ctrl-C. ``hosts``: see ``Settings``. Raises UsageError if it cannot listen there."""
    with closing(listen(host, port)) as listener:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        write_line(f"llava: the controller answers at {address}")
        settings = Settings(hosts=tuple(hosts), is_local=is_loopback_address(listener.getsockname()[0]))
        config = make_config(create_controller(WorkerRegistry(dispatch), settings), settings.limits)
        _Server(config).run(sockets=[listener])
    return 0
