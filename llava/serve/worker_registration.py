"""Registers this server as a worker with the original's controller: ``llava serve --controller``.

It registers once its model is loaded, sends heartbeats with its queue length, and registers again if the controller
has forgotten it.

Source: haotian-liu/LLaVA@c121f04 llava/serve/model_worker.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI

from llava.backends.workers import make_client, post_json, read_address
from llava.constants import WORKER_HEART_BEAT_INTERVAL
from llava.errors import EngineClosed, EngineFailed
from llava.serve.api_errors import LOG
from llava.serve.app import Mount
from llava.serve.host_and_origin import is_loopback_address
from llava.serve.service import Service
from llava.text import write_line

# The interval at which a changed queue length is reported, and at which a heartbeat that failed is sent again.
_UPDATE_S = 1.0


def register_with(controller: str, mount: Mount | None) -> Mount:
    """A mount that also registers the server with ``controller``. Raises UsageError if that is not a URL."""
    url = read_address(controller)

    def add(app: FastAPI, service: Service) -> None:
        if mount is not None:
            mount(app, service)
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def run(app: FastAPI) -> AsyncIterator[Any]:
            async with inner(app) as state:
                keeping = asyncio.create_task(_keep_registered(url, service))
                try:
                    yield state
                finally:
                    keeping.cancel()
                    await asyncio.gather(keeping, return_exceptions=True)

        app.router.lifespan_context = run

    return add


def _is_here(address: str) -> bool:
    """Whether only this machine can reach the address."""
    name = urlsplit(address).hostname or ""
    return name == "localhost" or is_loopback_address(name)


async def _keep_registered(controller: str, service: Service) -> None:
    """Stops the server if there is no controller at startup. One that goes away later is retried until it answers."""
    name = service.settings.address

    async def register() -> None:
        status = {"model_names": [service.backend.model_id], "speed": 1, "queue_length": service.num_open}
        content = {"worker_name": name, "check_heart_beat": True, "worker_status": status}
        await post_json(client, f"{controller}/register_worker", content)
        write_line(f"llava: registered as {name} with the controller at {controller}")

    if _is_here(name) and not _is_here(controller):
        text = f"this worker registers as {name}, which other machines cannot reach: set its address with --address"
        write_line(f"llava: warning: {text} (--worker-address in the original's commands)")
    async with make_client() as client:
        try:
            await post_json(client, f"{controller}/list_models", {})  # fails before a model is loaded in vain
            await service.started()
            await register()
        except Exception as error:
            if service.failure is None:
                service.failure = error
                service.on_failure()
            return
        reported, answered_s, is_away = service.num_open, time.monotonic(), False
        while True:
            await asyncio.sleep(_UPDATE_S)
            is_due = time.monotonic() - answered_s >= WORKER_HEART_BEAT_INTERVAL
            if not (is_due or is_away or service.num_open != reported):
                continue
            reported = service.num_open
            try:
                beat = {"worker_name": name, "queue_length": reported}
                said = await post_json(client, f"{controller}/receive_heart_beat", beat)
                if not (isinstance(said, dict) and said.get("exist")):
                    await register()
                answered_s, is_away = time.monotonic(), False
            except (EngineClosed, EngineFailed) as error:
                if not is_away:
                    LOG.warning("%s Retrying until it answers.", error)
                is_away = True
