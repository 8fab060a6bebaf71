"""The OpenAI routes /v1/chat/completions, /v1/completions and /v1/models."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llava import __version__
from llava.backends.protocol import ChatMessage, ChatRequest, Delta, SentImage, Usage
from llava.backends.turns import check_last
from llava.prompt import escape_image_tokens
from llava.serve import schemas
from llava.serve.admission_queue import Ticket
from llava.serve.api_errors import ApiError, context_length_exceeded, limit_exceeded, model_loading
from llava.serve.body import read_json
from llava.serve.messages import ImagePart, Message, Part, turn_roles
from llava.serve.schemas import ChatBody, CompletionBody, ResponseEnvelope
from llava.serve.service import Service
from llava.serve.streaming import begin_stream

_BEGAN = int(time.time())


def add_openai_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes to the application."""
    app.add_route("/v1/chat/completions", partial(chat_completions, service), methods=["POST"])
    app.add_route("/v1/completions", partial(completions, service), methods=["POST"])
    app.add_route("/v1/models", partial(list_models, service), methods=["GET"])
    app.add_route("/v1/models/{model_id:path}", partial(show_model, service), methods=["GET"])


async def list_models(service: Service, request: Request) -> Response:
    """/v1/models: the one model; an empty list until an external engine has reported its name."""
    return JSONResponse({"object": "list", "data": [_describe_model(service)] if service.backend.model_id else []})


async def show_model(service: Service, request: Request) -> Response:
    """/v1/models/NAME: the model of that name. Raises ApiError (404, 503)."""
    if not service.backend.model_id:
        raise model_loading()
    check_model(service, request.path_params["model_id"])
    return JSONResponse(_describe_model(service))


def _describe_model(service: Service) -> dict[str, Any]:
    backend = service.backend
    known = {"max_model_len": backend.context_tokens} if backend.context_tokens else {}
    return {"id": backend.model_id, "object": "model", "created": _BEGAN, "owned_by": "llava", **known}


def check_model(service: Service, name: str | None) -> None:
    """Raises ApiError (404) if ``name`` is not the served model. No name means that model.

    While the model's name is still unknown, every name passes: the request then fails with 503 (loading).
    """
    known = service.backend.model_id
    if name and known and name != known:
        raise ApiError(
            404,
            f"There is no model '{name[:200]}' on this server. The model is '{known}'.",
            param="model",
            code="model_not_found",
        )


async def chat_completions(service: Service, request: Request) -> Response:
    """/v1/chat/completions: one JSON object, or an event stream. Raises ApiError."""
    request.state.param = "messages"  # the field that engine errors are about
    raw = await read_json(request, service.limits)
    check_lengths(service, raw.get("messages"), "messages")
    body = schemas.check(ChatBody, raw)
    check_model(service, body.model)
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true.", param="top_logprobs", code="invalid_value")
    form = read_format(service, body.response_format, "response_format")
    check_messages(service, body.messages)
    num_top = (body.top_logprobs or 0) if body.logprobs else None
    num_choices = schemas.read_choices(body, service.limits)
    sampling = schemas.read_sampling(body, service.limits)

    async def make() -> ChatRequest:
        messages = await load_messages(service, body.messages)
        return ChatRequest(messages, sampling, num_choices, num_top, response_format=form)

    ticket = Ticket()
    deltas = service.chat(make, ticket=ticket)
    envelope = make_envelope(service, "chatcmpl")
    if body.stream:
        chunks = _write_chunks(envelope, deltas, num_top, body.wants_usage)
        return await begin_stream(request, ticket, chunks, _write_error, service.limits)
    async with aclosing(deltas):
        said = [delta async for delta in deltas]
    choices = [
        {
            "index": one.index,
            "message": {"role": "assistant", "content": one.text, "refusal": None},
            "logprobs": schemas.write_chat_logprobs(one.logprobs, num_top),
            **schemas.write_end(one),
        }
        for one in schemas.collect_choices(said, num_choices)
    ]
    return JSONResponse(envelope.chat(choices, chunk=False, usage=schemas.write_usage(said[-1].usage)))


async def _write_chunks(
    envelope: ResponseEnvelope, deltas: AsyncGenerator[Delta, None], num_top: int | None, wants_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The events of a streamed chat: for each choice its role, then text, then the finish reason."""
    more: dict[str, Any] = {"usage": None} if wants_usage else {}

    def write(index: int, delta: dict[str, Any], logprobs: Any = None, end: Delta | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, **schemas.write_end(end)}
        return _event(envelope.chat([choice], chunk=True, **more))

    has_role: set[int] = set()
    async with aclosing(deltas):
        async for delta in deltas:
            if delta.index not in has_role:
                has_role.add(delta.index)
                yield write(delta.index, {"role": "assistant", "content": ""})
            if delta.text or delta.logprobs:
                logprobs = schemas.write_chat_logprobs(delta.logprobs, num_top)
                yield write(delta.index, {"content": delta.text}, logprobs)
            if delta.finish_reason is not None:
                yield write(delta.index, {}, None, delta)
            if delta.usage is not None and wants_usage:
                yield _event(envelope.chat([], chunk=True, usage=schemas.write_usage(delta.usage)))
    yield b"data: [DONE]\n\n"


async def completions(service: Service, request: Request) -> Response:
    """/v1/completions: one JSON object, or an event stream. Raises ApiError."""
    request.state.param = "prompt"
    raw = await read_json(request, service.limits)
    prompts = raw.get("prompt")
    if isinstance(prompts, list) and any(isinstance(one, (int, list)) for one in prompts[:1]):
        raise ApiError(
            400,
            "prompt has to be a string or a list of strings: token ids are not accepted.",
            param="prompt",
            code="unsupported_parameter",
        )
    body = schemas.check(CompletionBody, raw)
    check_model(service, body.model)
    num_choices = schemas.read_choices(body, service.limits)
    if body.echo or body.suffix or (body.best_of or num_choices) != num_choices:
        name = "echo" if body.echo else "suffix" if body.suffix else "best_of"
        raise ApiError(400, f"{name} is not supported. Leave it out.", param=name, code="unsupported_parameter")
    if len(body.prompt) > service.limits.parts:
        value = f"There are {len(body.prompt):,} prompts"
        raise limit_exceeded("parts", service.limits.parts, value, "Send fewer.", param="prompt")
    check_characters(service, sum(map(len, body.prompt)), "prompt")
    sampling = schemas.read_sampling(body, service.limits, new_tokens=16)  # OpenAI's default
    form = read_format(service, body.response_format, "response_format")
    asked = [
        ChatRequest((), sampling, num_choices, body.logprobs, escape_image_tokens(prompt), response_format=form)
        for prompt in body.prompt
    ]
    ticket = Ticket()
    deltas = _answer_all(service, asked, ticket)
    envelope = make_envelope(service, "cmpl")
    if body.stream:
        chunks = _write_texts(envelope, deltas, body.logprobs, body.wants_usage)
        return await begin_stream(request, ticket, chunks, _write_error, service.limits)
    async with aclosing(deltas):
        said = [delta async for delta in deltas]
    choices = [
        {
            "index": one.index,
            "text": one.text,
            "logprobs": schemas.write_completion_logprobs(one.logprobs, body.logprobs),
            **schemas.write_end(one),
        }
        for one in schemas.collect_choices(said, num_choices * len(asked))
    ]
    return JSONResponse(envelope.completion(choices, usage=schemas.write_usage(said[-1].usage)))


async def _answer_all(service: Service, asked: Sequence[ChatRequest], ticket: Ticket) -> AsyncGenerator[Delta, None]:
    """The answers to several prompts, one after another, as choices of one response.

    Each prompt is queued on its own, so that many prompts in one request do not block other requests.
    """
    usage: Usage | None = None
    for number, request in enumerate(asked):
        first_index = number * request.num_choices
        async with aclosing(service.chat(request, ticket=ticket)) as deltas:
            async for delta in deltas:
                if delta.usage is not None:
                    usage = delta.usage if usage is None else usage.plus(delta.usage)
                    delta = replace(delta, usage=usage if number == len(asked) - 1 else None)
                yield replace(delta, index=first_index + delta.index)


async def _write_texts(
    envelope: ResponseEnvelope, deltas: AsyncGenerator[Delta, None], num_top: int | None, wants_usage: bool
) -> AsyncGenerator[bytes, None]:
    starts = dict[int, int]()
    more: dict[str, Any] = {"usage": None} if wants_usage else {}
    async with aclosing(deltas):
        async for delta in deltas:
            start = starts.get(delta.index, 0)
            starts[delta.index] = start + sum(map(schemas.count_characters, delta.logprobs))
            choice = {
                "index": delta.index,
                "text": delta.text,
                "logprobs": schemas.write_completion_logprobs(delta.logprobs, num_top, start),
                **schemas.write_end(delta),
            }
            yield _event(envelope.completion([choice], **more))
            if delta.usage is not None and wants_usage:
                yield _event(envelope.completion([], usage=schemas.write_usage(delta.usage)))
    yield b"data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def _write_error(error: ApiError) -> bytes:
    return _event(error.body)


def make_envelope(service: Service, kind: str) -> ResponseEnvelope:
    """The fields that the response and all of its chunks share. ``kind``: the prefix of its id."""
    return ResponseEnvelope(
        f"{kind}-{uuid.uuid4().hex}", int(time.time()), service.backend.model_id, f"llava-{__version__}"
    )


def check_lengths(service: Service, messages: Any, param: str) -> None:
    """Raises ApiError for too many messages or parts, before they are validated. ``messages``: the raw JSON."""
    if not isinstance(messages, list):
        return
    limits = service.limits
    if len(messages) > limits.messages:
        value = f"There are {len(messages):,} messages"
        raise limit_exceeded("messages", limits.messages, value, "Send only the latest ones.", param=param)
    lists = [message.get(key) for message in messages if isinstance(message, dict) for key in _LISTS]
    num_parts = sum(len(parts) for parts in lists if isinstance(parts, list))
    if num_parts > limits.parts:
        raise limit_exceeded(
            "parts", limits.parts, f"The messages have {num_parts:,} parts", "Join text parts.", param=param
        )


# The fields of a message that may be lists.
_LISTS = ("content", "output", "tool_calls")


def check_messages(
    service: Service, messages: Sequence[Message], param: str = "messages", instructions: str = ""
) -> None:
    """Raises ApiError if the conversation exceeds a limit, UsageError if there is nothing to answer.

    ``param``: the request's field for it.
    """
    limits = service.limits
    num_images = sum(isinstance(part, ImagePart) for message in messages for part in message.content)
    if num_images > limits.images:
        raise limit_exceeded("images", limits.images, f"There are {num_images:,} images", "Send fewer.", param=param)
    num_characters = len(instructions) + sum(message.num_characters for message in messages)
    check_characters(service, num_characters, param)
    check_last(turn_roles(messages))


def read_format(service: Service, asked: schemas.ResponseFormat | None, param: str) -> dict[str, Any] | None:
    """The response format, whose schema counts as text. Raises ApiError."""
    form = schemas.read_format(asked, param, can_constrain=service.backend.constrains_answers)
    if form is not None:
        check_characters(service, len(json.dumps(form)), param)
    return form


def check_characters(service: Service, number: int, param: str) -> None:
    """Raises ApiError (400) for more characters than the limit: such a text could not fit the context."""
    limit = service.limits.characters
    if number > limit:
        said = f"There are {number:,} characters of text; the limit characters is {limit:,}. Shorten the text."
        raise context_length_exceeded(service.backend.context_tokens, said, param)


async def load_messages(
    service: Service, messages: Sequence[Message], param: str = "messages"
) -> tuple[ChatMessage, ...]:
    """The messages with their images loaded. Raises ApiError, which names the image at fault."""
    named = [
        (part.image_url.url, f"{param}.{i}.content.{j}.image_url")
        for i, message in enumerate(messages)
        for j, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    images = iter(await service.images.load_all(named))

    def take(part: Part) -> str | SentImage:
        if isinstance(part, ImagePart):
            return SentImage(next(images), part.detail or part.image_url.detail)
        return part.text

    return tuple(
        ChatMessage(message.speaker, tuple(filter(None, (message.prefix, *map(take, message.content), message.suffix))))
        for message in messages
    )
