"""The original worker's protocol, and the controller routes that front ends call, so that old front ends work.

Source: haotian-liu/LLaVA@c121f04 llava/serve/model_worker.py, llava/serve/controller.py.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llava.backends.protocol import ChatRequest, Delta, SentImage
from llava.errors import LlavaError
from llava.serve import schemas
from llava.serve.admission_queue import Ticket
from llava.serve.api_errors import LOG, ApiError, limit_exceeded, to_api_error
from llava.serve.body import read_json
from llava.serve.openai_routes import check_characters, check_model
from llava.serve.service import Service
from llava.serve.streaming import begin_stream

_KIND = "application/octet-stream"
# The original worker's answer if the answer may have no tokens at all.
_NO_ROOM = "Exceeds max token length. Please start a new conversation, thanks."


def add_worker_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes to the application."""
    app.add_route("/worker_generate_stream", partial(generate_stream, service), methods=["POST"])
    app.add_route("/worker_get_status", partial(get_status, service), methods=["POST"])
    app.add_route("/list_models", partial(list_models, service), methods=["POST"])
    app.add_route("/refresh_all_workers", partial(refresh, service), methods=["POST"])
    app.add_route("/get_worker_address", partial(get_address, service), methods=["POST"])
    app.add_route("/register_worker", partial(register, service), methods=["POST"])
    app.add_route("/receive_heart_beat", partial(receive_heart_beat, service), methods=["POST"])


def _list_models(service: Service) -> list[str]:
    return list(filter(None, [service.backend.model_id]))


def _is_served(service: Service, name: str) -> bool:
    """Whether ``name`` is the served model. Front ends may give a path or a hub id that ends in its name."""
    known = service.backend.model_id
    return bool(known) and _shorten(name) == _shorten(known)


def _shorten(name: str) -> str:
    """The original's name for a model path: its last part, or for ``checkpoint-N`` its last two."""
    parts = name.strip("/").split("/")
    return "_".join(parts[-2:]) if parts[-1].startswith("checkpoint-") else parts[-1]


async def get_status(service: Service, request: Request) -> Response:
    """/worker_get_status: the model, the speed and the queue length."""
    return JSONResponse({"model_names": _list_models(service), "speed": 1, "queue_length": service.num_open})


async def list_models(service: Service, request: Request) -> Response:
    """/list_models: the one model."""
    return JSONResponse({"models": _list_models(service)})


async def refresh(service: Service, request: Request) -> Response:
    """/refresh_all_workers: does nothing, because there are no other workers."""
    return JSONResponse(None)


async def get_address(service: Service, request: Request) -> Response:
    """/get_worker_address: this server's own address; an empty string for an unknown model, as in the original."""
    model = (await read_json(request, service.limits)).get("model")
    is_here = isinstance(model, str) and _is_served(service, model)
    return JSONResponse({"address": service.settings.address if is_here else ""})


async def register(service: Service, request: Request) -> Response:
    """/register_worker: accepts a worker, as the original's controller does, but forwards no requests to it."""
    name = _read_name(await read_json(request, service.limits))
    if name.rstrip("/") != service.settings.address:
        LOG.warning("a worker registered, but this server answers all requests itself and forwards none")
    return JSONResponse(None)


async def receive_heart_beat(service: Service, request: Request) -> Response:
    """/receive_heart_beat: whether the worker is registered, which only this server itself is."""
    name = _read_name(await read_json(request, service.limits))
    return JSONResponse({"exist": name.rstrip("/") == service.settings.address})


def _read_name(raw: dict[str, Any]) -> str:
    name = raw.get("worker_name")
    if not isinstance(name, str):
        raise ApiError(400, "worker_name: this has to be the worker's URL.", param="worker_name", code="invalid_value")
    return name


async def generate_stream(service: Service, request: Request) -> Response:
    """/worker_generate_stream: a series of JSON objects, each with prompt and answer so far, each followed by a NUL.

    An error is an object with ``error_code`` 1. Before the answer begins it also has an HTTP status and OpenAI's error
    object: the original's front end reads the body whatever the status is.
    """
    try:
        return await _begin(service, request)
    except LlavaError as error:
        api_error = to_api_error(error, request.state.request_id, "prompt")
        said = {**api_error.body, "text": api_error.message, "error_code": 1}
        return JSONResponse(said, api_error.status, api_error.headers)


async def _begin(service: Service, request: Request) -> Response:
    body = schemas.check(schemas.WorkerBody, await read_json(request, service.limits))
    if body.model and not _is_served(service, body.model):
        check_model(service, body.model)
    check_characters(service, len(body.prompt), "prompt")
    images, limits = body.images or [], service.limits
    if len(images) > limits.images:
        raise limit_exceeded(
            "images", limits.images, f"There are {len(images):,} images", "Send fewer.", param="images"
        )
    if body.max_new_tokens < 1:  # the start of the front end's slider
        return Response(_piece({"text": body.prompt + _NO_ROOM, "error_code": 0}), media_type=_KIND)
    sampling = schemas.read_sampling(body, limits)

    async def make() -> ChatRequest:
        named = [(_as_uri(data), f"images.{i}") for i, data in enumerate(images)]
        sent = tuple(map(SentImage, await service.images.load_all(named)))
        return ChatRequest(sampling=sampling, prompt=body.prompt, images=sent)

    ticket = Ticket()
    pieces = _write_pieces(body.prompt, service.chat(make, "worker", ticket))
    return await begin_stream(
        request, ticket, pieces, _write_error, limits, write_comment=_write_keep_alive, kind=_KIND
    )


def _as_uri(data: str) -> str:
    return data if data[:5].lower() == "data:" else f"data:image;base64,{data}"


async def _write_pieces(prompt: str, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
    text = prompt
    async with aclosing(deltas):
        async for delta in deltas:
            text += delta.text
            yield _piece({"text": text, "error_code": 0})


def _write_keep_alive(position: int) -> bytes:
    """An empty piece, which the original's clients ignore."""
    return b"\0"


def _write_error(api_error: ApiError) -> bytes:
    return _piece({"text": api_error.message, "error_code": 1})


def _piece(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\0"
