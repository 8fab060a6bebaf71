"""The original worker's protocol, and as much of its controller's as a front end asks, so old front ends run.

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

from llava.backends.protocol import ChatRequest, Delta, SentPicture
from llava.errors import LlavaError
from llava.serve import schemas
from llava.serve.body import read_json
from llava.serve.gate import begin_stream
from llava.serve.openai import check_characters, check_model
from llava.serve.refusals import Refusal, over, translate
from llava.serve.service import Service


def add_worker_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes to the application."""
    app.add_route("/worker_generate_stream", partial(generate_stream, service), methods=["POST"])
    app.add_route("/worker_get_status", partial(get_status, service), methods=["POST"])
    app.add_route("/list_models", partial(list_models, service), methods=["POST"])
    app.add_route("/refresh_all_workers", partial(refresh, service), methods=["POST"])
    app.add_route("/get_worker_address", partial(get_address, service), methods=["POST"])


async def get_status(service: Service, request: Request) -> Response:
    return JSONResponse({"model_names": [service.backend.model_id], "speed": 1, "queue_length": service.num_open})


async def list_models(service: Service, request: Request) -> Response:
    return JSONResponse({"models": [service.backend.model_id]})


async def refresh(service: Service, request: Request) -> Response:
    return JSONResponse(None)


async def get_address(service: Service, request: Request) -> Response:
    """Where the worker is: here. An unknown model has no worker, which the original says with an empty text."""
    model = (await read_json(request, service.limits)).get("model")
    return JSONResponse({"address": service.settings.address if model == service.backend.model_id else ""})


async def generate_stream(service: Service, request: Request) -> Response:
    """The prompt and the answer so far, again and again, each as JSON with a NUL byte behind it.

    What goes wrong is an object with ``error_code`` 1. Before the answer begins it has an HTTP status and OpenAI's
    shape as well: the original's front end reads every answer alike, whatever the status.
    """
    try:
        return await _begin(service, request)
    except LlavaError as error:
        refusal = translate(error, request.state.request_id, "prompt")
        said = {**refusal.body, "text": str(refusal), "error_code": 1}
        return JSONResponse(said, refusal.status, refusal.headers)


async def _begin(service: Service, request: Request) -> Response:
    body = schemas.check(schemas.WorkerBody, await read_json(request, service.limits))
    check_model(service, body.model)
    check_characters(service, len(body.prompt), "prompt")
    images, limits = body.images or [], service.limits
    if len(images) > limits.pictures:
        raise over("pictures", limits.pictures, f"There are {len(images):,} pictures", "Send fewer.", param="images")
    sampling = schemas.read_sampling(body, limits)

    async def make() -> ChatRequest:
        named = [(f"data:image;base64,{data}", f"images.{i}") for i, data in enumerate(images)]
        pictures = tuple(map(SentPicture, await service.pictures.load_all(named)))
        return ChatRequest(sampling=sampling, prompt=body.prompt, pictures=pictures)

    pieces = _write_pieces(body.prompt, service.chat(make, "worker"), request.state.request_id)
    return await begin_stream(pieces, _write_refusal, limits.send_s, "application/octet-stream")


async def _write_pieces(
    prompt: str, deltas: AsyncGenerator[Delta, None], request_id: str
) -> AsyncGenerator[bytes, None]:
    text, begun = prompt, False
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                begun, text = True, text + delta.text
                yield _piece({"text": text, "error_code": 0})
    except Exception as error:
        if not begun:
            raise
        yield _write_refusal(translate(error, request_id))


def _write_refusal(refusal: Refusal) -> bytes:
    return _piece({"text": str(refusal), "error_code": 1})


def _piece(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\0"
