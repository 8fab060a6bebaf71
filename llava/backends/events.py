"""Parses an external engine's responses: events become deltas, error responses become exceptions. No network.

An event is a chunk of OpenAI's chat completions or completions. Its size is limited, so that a broken engine cannot
exhaust the server's memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava.backends.protocol import Delta, FinishReason, TokenLogprob, Usage
from llava.errors import EngineClosed, EngineFailed, EngineFull

# The largest event of a stream, and how much of an error response's body is read.
_MAX_EVENT_BYTES = 4 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024


@dataclass
class StreamReader:
    """Turns the events of a stream into deltas; the last delta of each choice is held back until the usage is known."""

    num_choices: int
    num_pieces: int = 0
    ended: dict[int, Delta] = field(default_factory=dict)
    said: Usage | None = None

    def read(self, event: Mapping[str, Any]) -> list[Delta]:
        """The deltas of an event. Raises EngineClosed, EngineFull and EngineFailed."""
        error = event.get("error")
        if error:
            status = error.get("code") if isinstance(error, dict) else None
            raise read_error(status if isinstance(status, int) else 500, json.dumps(error).encode(), {})
        if isinstance(event.get("usage"), dict):
            self.said = _read_usage(event["usage"])
        deltas = []
        for choice in event.get("choices") or ():
            delta = _read_choice(choice)
            if not 0 <= delta.index < self.num_choices or delta.index in self.ended:
                raise EngineFailed(
                    f"The engine sent a piece of choice {delta.index}, which does not exist or has ended."
                )
            self.num_pieces += bool(delta.text)
            if delta.finish_reason is not None:
                self.ended[delta.index] = delta
            elif delta.text or delta.logprobs:
                deltas.append(delta)
        return deltas

    def finish(self) -> list[tuple[Delta, bool]]:
        """The last delta of each choice, and whether it is the last one of all."""
        if len(self.ended) != self.num_choices:
            raise EngineClosed("The engine closed the connection before the answer ended. Try again.")
        *others, last = self.ended.values()
        return [*((delta, False) for delta in others), (last, True)]

    def usage(self) -> Usage:
        """The engine's own usage; without one, the pieces are counted as tokens."""
        return self.said or Usage(prompt_tokens=0, completion_tokens=self.num_pieces)


def _read_usage(values: Mapping[str, Any]) -> Usage:
    details = values.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=_count(values.get("prompt_tokens")),
        completion_tokens=_count(values.get("completion_tokens")),
        image_tokens=_count(details.get("image_tokens")),
        cached_tokens=_count(details.get("cached_tokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _read_choice(choice: Any) -> Delta:
    try:
        index = int(choice.get("index") or 0)
        said = choice.get("delta")
        text = choice.get("text") if said is None else said.get("content")
        reason = choice.get("finish_reason")
        logprobs = _read_logprobs(choice.get("logprobs"))
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise EngineFailed("The engine sent a chunk that cannot be parsed.") from error
    if reason is None:
        finish: FinishReason | None = None
    elif reason in ("abort", "error"):  # SGLang's and vLLM's reasons for an answer that they aborted themselves
        raise EngineClosed("The engine aborted the answer. Try again.")
    else:
        finish = "length" if reason == "length" else "stop"
    stop_reason = choice.get("stop_reason") or choice.get("matched_stop")  # vLLM's and SGLang's names
    return Delta(
        index,
        text or "",
        logprobs,
        finish,
        stop_reason=stop_reason if finish and isinstance(stop_reason, str) else None,
    )


def _read_logprobs(values: Any) -> tuple[TokenLogprob, ...]:
    if not values:
        return ()
    if "content" in values:
        return tuple(
            TokenLogprob(
                one["token"],
                float(one["logprob"]),
                tuple((other["token"], float(other["logprob"])) for other in one.get("top_logprobs") or ()),
            )
            for one in values["content"] or ()
        )
    tops = values.get("top_logprobs") or [{}] * len(values["tokens"])
    return tuple(
        TokenLogprob(token, float(logprob), tuple((name, float(value)) for name, value in (top or {}).items()))
        for token, logprob, top in zip(values["tokens"], values["token_logprobs"], tops, strict=True)
    )


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """The server-sent events of a body up to ``[DONE]``; comments and fields other than ``data`` are skipped.

    Raises EngineFailed for invalid events, EngineClosed if the body ends before ``[DONE]``.
    """
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield _parse_event(data)
        if len(rest) > _MAX_EVENT_BYTES:
            raise EngineFailed(f"The engine sent an event of more than {_MAX_EVENT_BYTES:,} bytes.")
    raise EngineClosed("The engine closed the connection before the answer ended. Try again.")


def _parse_event(data: bytes) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise EngineFailed("The engine sent an event that is not JSON.") from error
    if not isinstance(event, dict):
        raise EngineFailed("The engine sent an event that is not a JSON object.")
    return event


async def read_error_body(chunks: AsyncIterator[bytes]) -> bytes:
    """The beginning of an error response's body, at least as much as ``read_error`` uses."""
    body = b""
    async for chunk in chunks:
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            break
    return body


def read_error(status: int, body: bytes, headers: Mapping[str, str]) -> Exception:
    """The exception for a status other than 200, with the engine's own message but without its addresses and paths."""
    message = _find_message(body[:_MAX_ERROR_BYTES])
    if status in (429, 503):
        wait = f" Try again in {headers['retry-after']} s." if headers.get("retry-after", "").isdigit() else ""
        reason = f"The engine is too busy: {message}" if message else "The engine is too busy."
        return (EngineFull if status == 429 else EngineClosed)(reason + wait)
    if status in (401, 403):
        return EngineFailed("The engine rejected the API key: set the right one in LLAVA_ENGINE_KEY.", status)
    if not message:
        return EngineFailed(f"The engine answered with status {status} and no message.", status)
    return EngineFailed(f"The engine answered with status {status}: {message}", status)


def _find_message(body: bytes) -> str:
    """The message of an OpenAI, FastAPI or plain error response, without the engine's addresses and paths."""
    text = body.decode("utf-8", "replace")
    try:
        said: Any = json.loads(text)
        while isinstance(said, dict) and any(key in said for key in ("error", "message", "detail")):
            said = next(said[key] for key in ("error", "message", "detail") if key in said)
        text = said if isinstance(said, str) else json.dumps(said)
    except ValueError:
        text = "" if text.lstrip().startswith("<") else text  # an HTML page
    text = re.sub(r"0x[0-9a-fA-F]+", "…", text)
    text = re.sub(r"(?<![\w/:])(?:/[\w.@+-]+){2,}", "…", text)
    text = " ".join(text.split())
    return text[:300] + "…" if len(text) > 300 else text
