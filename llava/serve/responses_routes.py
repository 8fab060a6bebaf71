"""The OpenAI route /v1/responses, stateless: one JSON object, or an event stream."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llava.backends.protocol import ChatRequest, Delta, Usage
from llava.serve import schemas
from llava.serve.admission_queue import Ticket
from llava.serve.api_errors import ApiError
from llava.serve.body import read_json
from llava.serve.openai_routes import (
    check_lengths,
    check_messages,
    check_model,
    load_messages,
    make_envelope,
    read_format,
)
from llava.serve.schemas import ResponseEnvelope, ResponsesBody
from llava.serve.service import Service
from llava.serve.streaming import begin_stream


def add_responses_route(app: FastAPI, service: Service) -> None:
    """Adds the route to the application."""
    app.add_route("/v1/responses", partial(respond, service), methods=["POST"])


async def respond(service: Service, request: Request) -> Response:
    """/v1/responses: one JSON object, or an event stream. Raises ApiError."""
    request.state.param = "input"  # the field that engine errors are about
    raw = await read_json(request, service.limits)
    for name in ("previous_response_id", "conversation", "prompt"):
        if raw.get(name) is not None:
            raise ApiError(
                400,
                f"{name} is not supported: this server stores nothing. Send the whole conversation as input.",
                param=name,
                code="unsupported_parameter",
            )
    wanted = raw.get("include")
    wants_logprobs = isinstance(wanted, list) and "message.output_text.logprobs" in wanted
    if raw.get("top_logprobs") or wants_logprobs:
        name = "include" if wants_logprobs else "top_logprobs"
        why = f"{name}: this route returns no log-probabilities. Use /v1/chat/completions for them."
        raise ApiError(400, why, param=name, code="unsupported_parameter")
    check_lengths(service, raw.get("input"), "input")
    body = schemas.check(ResponsesBody, raw)
    check_model(service, body.model)
    form = read_format(service, body.text.format if body.text is not None else None, "text.format")
    messages = list(body.input)
    check_messages(service, messages, "input", body.instructions or "")
    sampling = schemas.read_sampling(body, service.limits)

    async def make() -> ChatRequest:
        loaded = await load_messages(service, messages, "input")
        return ChatRequest((*schemas.system_message(body.instructions), *loaded), sampling, response_format=form)

    writer = _Writer(make_envelope(service, "resp"), body, form)
    ticket = Ticket()
    deltas = service.chat(make, ticket=ticket)
    if body.stream:
        return await begin_stream(request, ticket, _write_events(writer, deltas), writer.error, service.limits)
    async with aclosing(deltas):
        said = [delta async for delta in deltas]
    (choice,) = schemas.collect_choices(said, 1)
    return JSONResponse(writer.response(choice.text, choice.finish_reason, said[-1].usage))


async def _write_events(writer: _Writer, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[bytes, None]:
    text, reason, usage, begun = "", None, None, False
    place = {"item_id": writer.message_id, "output_index": 0, "content_index": 0}
    async with aclosing(deltas):
        async for delta in deltas:
            if not begun:
                begun = True
                yield writer.event("created", response=writer.response("", None, None))
                yield writer.event("in_progress", response=writer.response("", None, None))
                yield writer.event("output_item.added", output_index=0, item=writer.message(None))
                yield writer.event("content_part.added", **place, part=writer.part(""))
            if delta.text:
                text += delta.text
                yield writer.event("output_text.delta", **place, delta=delta.text, logprobs=[])
            reason, usage = delta.finish_reason or reason, delta.usage or usage
    response = writer.response(text, reason, usage)
    yield writer.event("output_text.done", **place, text=text, logprobs=[])
    yield writer.event("content_part.done", **place, part=writer.part(text))
    yield writer.event("output_item.done", output_index=0, item=response["output"][0])
    yield writer.event(response["status"], response=response)


@dataclass
class _Writer:
    """Writes the objects of one response and its numbered events."""

    envelope: ResponseEnvelope
    body: ResponsesBody
    form: dict[str, Any] | None
    num_events: int = 0

    @property
    def message_id(self) -> str:
        return self.envelope.id.replace("resp-", "msg_")

    def part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def message(self, text: str | None, status: str = "in_progress") -> dict[str, Any]:
        content = [] if text is None else [self.part(text)]
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def response(self, text: str, reason: str | None, usage: Usage | None) -> dict[str, Any]:
        """The response object. ``reason``: the finish reason; None while the answer is in progress."""
        status = {None: "in_progress", "length": "incomplete"}.get(reason, "completed")
        return {
            "id": self.envelope.id.replace("resp-", "resp_"),
            "object": "response",
            "created_at": self.envelope.created,
            "model": self.envelope.model,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if reason == "length" else None,
            "instructions": self.body.instructions,
            "metadata": {},
            "output": [] if reason is None else [self.message(text, status)],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": self.body.temperature or 0.0,
            "text": {"format": self._write_format()},
            "tool_choice": "none",
            "tools": [],
            "top_p": self.body.top_p or 1.0,
            "usage": _write_usage(usage),
        }

    def _write_format(self) -> dict[str, Any]:
        form = self.form or {"type": "text"}
        return {**form.get("json_schema", {}), "type": form["type"]}

    def event(self, kind: str, **content: Any) -> bytes:
        return self.write(f"response.{kind}", **content)

    def error(self, error: ApiError) -> bytes:
        return self.write("error", code=error.code, message=error.message, param=error.param)

    def write(self, kind: str, **content: Any) -> bytes:
        numbered = {"type": kind, "sequence_number": self.num_events, **content}
        self.num_events += 1
        return f"event: {kind}\ndata: {json.dumps(numbered, ensure_ascii=False)}\n\n".encode()


def _write_usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "image_tokens": usage.image_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
