"""Asks a model behind any endpoint with OpenAI's chat completions API, and does not give up at the first fault.

Faults that pass (429, 5xx, 408, timeouts, lost connections, bodies that are not an answer) are tried again after an
exponentially growing, random pause; ``Retry-After`` is respected, by all requests at once. A wrong key or URL ends the
work; a request that the endpoint refuses (400, 413, 422) fails alone. Needs httpx (the ``data`` extra).

Source: the API reference of OpenAI (chat completions); RFC 9110 10.2.3 (Retry-After); "full jitter" from Marc Brooker,
Exponential Backoff And Jitter, AWS Architecture Blog (2015).
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from llava.data.budget import Usage
from llava.errors import LlavaError, UsageError
from llava.text import fit_line

_PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
_REFUSING = (400, 413, 415, 422)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_MOST_BODY_BYTES = 8 * 2**20


@dataclass(frozen=True)
class ClientSettings:
    """How a model behind an endpoint is asked.

    Attributes:
        url: up to and with ``/v1``, to which it is completed; no user name or password in it.
        key: sent as a bearer token.
        max_answer_tokens: the longest answer, sent as ``max_tokens``.
        timeout_s: for one whole answer.
        max_attempts: how often a request is sent until its fault counts as lasting.
        longest_wait_s: a longer ``Retry-After`` ends the work, to be resumed later.
        role: what the model is called in messages; the flags are called after it.
    """

    url: str
    model: str
    key: str = ""
    max_answer_tokens: int = 1024
    temperature: float | None = None
    timeout_s: float = 180.0
    max_attempts: int = 6
    longest_wait_s: float = 600.0
    role: str = "teacher"


@dataclass(frozen=True)
class Reply:
    """An answer. ``used`` counts every attempt as a request; ``fault``: why there is no answer, else ""."""

    text: str = ""
    finish_reason: str | None = None
    model: str = ""
    used: Usage = field(default_factory=Usage)
    fault: str = ""


class ChatClient:
    """A client of one endpoint, for one event loop: ``async with ChatClient(...) as client``.

    Args:
        sleep, clock, draw: waiting, the time in seconds, and a number from 0 to 1.

    Raises UsageError for a URL that cannot be called, and if httpx is not installed.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.settings, self.url = settings, read_url(settings.url)
        self._sleep, self._clock, self._draw = sleep, clock, draw
        self._resume_at = 0.0
        self._limit_name = "max_tokens"
        self._httpx = import_httpx()
        self._client: Any = None

    async def __aenter__(self) -> ChatClient:
        headers = {"Authorization": f"Bearer {self.settings.key}"} if self.settings.key else {}
        is_here = urlsplit(self.url).hostname in ("127.0.0.1", "::1", "localhost")
        self._client = self._httpx.AsyncClient(
            headers={**headers, "Accept": "application/json"},
            timeout=self._httpx.Timeout(self.settings.timeout_s, connect=min(20.0, self.settings.timeout_s)),
            limits=self._httpx.Limits(max_connections=None),
            trust_env=not is_here,
            follow_redirects=False,  # a key is sent to the named host only
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def ask(
        self,
        messages: list[dict[str, Any]],
        estimate: Usage,
        may_send: Callable[[], bool] = lambda: True,
        *,
        temperature: float | None = None,
    ) -> Reply:
        """The answer to the last message.

        Args:
            estimate: the tokens, where the endpoint does not report them.
            may_send: asked before each attempt after the first.
            temperature: instead of that of the settings.

        Raises:
            UsageError: the key or the URL is wrong, so that no request can succeed.
            LlavaError: the endpoint asks to wait for longer than ``longest_wait_s``.
        """
        fault, attempt = "", 0
        for attempt in range(1, self.settings.max_attempts + 1):
            if attempt > 1 and not may_send():
                return Reply(used=Usage(attempt - 1), fault=f"{fault}; the budget allows no further attempt")
            await self._wait_for_turn()
            limit_name = self._limit_name
            try:
                status, headers, body = await asyncio.wait_for(
                    self._post(messages, temperature), self.settings.timeout_s
                )
            except (self._httpx.TimeoutException, asyncio.TimeoutError):
                fault, status, headers, body = f"no answer within {self.settings.timeout_s:g} s", 0, {}, b""
            except self._httpx.HTTPError as error:
                fault, status, headers, body = f"connection failed: {_say(error)}", 0, {}, b""
            if status == 200:
                reply = read_reply(body, estimate, attempt)
                if not reply.fault:
                    return reply
                fault = reply.fault
            elif status:
                fault = f"HTTP {status}: {read_error(body)}"
                self._refuse_lasting(status, fault, body)
                # Requests that ran at the same time are refused, too, after the first one has changed the name.
                if status == 400 and limit_name == "max_tokens" and b"max_completion_tokens" in body:
                    self._limit_name = "max_completion_tokens"  # newer models of OpenAI know no other name
                    continue
                if status in _REFUSING:
                    return Reply(used=Usage(attempt), fault=f"refused by the endpoint: {fault}")
            if attempt < self.settings.max_attempts:
                await self._pause(attempt, headers, status)
        return Reply(used=Usage(attempt), fault=f"{fault} (after {attempt} attempts)")

    async def _post(self, messages: list[dict[str, Any]], temperature: float | None) -> tuple[int, Any, bytes]:
        settings = self.settings
        content: dict[str, Any] = {
            "model": settings.model,
            "messages": messages,
            self._limit_name: settings.max_answer_tokens,
        }
        if temperature is None:
            temperature = settings.temperature
        if temperature is not None:
            content["temperature"] = temperature
        body = bytearray()
        data = json.dumps(content).encode()  # ASCII: httpx's own form cannot hold half an emoji
        headers = {"Content-Type": "application/json"}
        url = f"{self.url}/chat/completions"
        async with self._client.stream("POST", url, content=data, headers=headers) as response:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MOST_BODY_BYTES:
                    return response.status_code, response.headers, b"an answer of more than 8 MiB"
            return response.status_code, response.headers, bytes(body)

    async def _wait_for_turn(self) -> None:
        while (left_s := self._resume_at - self._clock()) > 0:
            await self._sleep(left_s)

    async def _pause(self, attempt: int, headers: Any, status: int) -> None:
        """Waits before the next attempt; after a Retry-After every request waits. Raises LlavaError."""
        asked_s = read_retry_after(headers.get("retry-after"), self._clock())
        if asked_s is not None and status:
            if asked_s > self.settings.longest_wait_s:
                raise LlavaError(
                    f"The {self.settings.role} asks to wait for {asked_s:,.0f} s (Retry-After of HTTP {status}). "
                    "What it answered is kept: run the same command again after that."
                )
            self._resume_at = max(self._resume_at, self._clock() + asked_s)
        bound_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (attempt - 1))
        await self._sleep(bound_s * self._draw())

    def _refuse_lasting(self, status: int, fault: str, body: bytes) -> None:
        """Raises UsageError for a status that every further request would get, too."""
        role = self.settings.role
        remedy = {
            401: f"Set the key in the environment variable that --{role}-key-env names.",
            403: f"The key may not use this model: name another with --{role}-model, or another key.",
            404: f"Check --{role}, which has to end before /chat/completions, and --{role}-model.",
            402: "The account has no credit left.",
        }.get(402 if b"insufficient_quota" in body else status)
        if remedy is None and status not in _PASSING and status not in _REFUSING:
            remedy = f"Check --{role}: {self.url}."
        if remedy is not None:
            raise UsageError(f"The {role} answers {fault}. {remedy}")


def read_url(url: str) -> str:
    """The URL without a slash at its end, and with ``/v1`` if it has no path. Raises UsageError."""
    try:
        parts = urlsplit(url.strip())
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(f"'{fit_line(url, 80)}' is no URL of an endpoint; write one such as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password:
        raise UsageError("The URL of the endpoint holds a password. Put the key into an environment variable instead.")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def read_reply(body: bytes, estimate: Usage, attempts: int) -> Reply:
    """The answer in the body of a response with status 200; with a ``fault`` if it holds none."""
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        message = choice["message"]
        text = message.get("content")
        if isinstance(text, list):
            text = "".join(part.get("text", "") for part in text)
        if not isinstance(text, str | None):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Reply(fault=f"not a chat completion: {fit_line(body[:60].decode('utf-8', 'replace'), 80)}")
    reason = choice.get("finish_reason")
    refusal = message.get("refusal")
    usage = content.get("usage") if isinstance(content.get("usage"), dict) else {}
    return Reply(
        text=text or "",
        finish_reason="refusal" if refusal and not text else reason if isinstance(reason, str) else None,
        model=str(content.get("model") or "")[:200],
        used=Usage(
            attempts,
            _read_count(usage.get("prompt_tokens"), estimate.tokens_in),
            _read_count(usage.get("completion_tokens"), estimate.tokens_out),
        ),
    )


def read_retry_after(value: str | None, now: float) -> float | None:
    """The seconds to wait by a header Retry-After, which holds seconds or a date; None if it says nothing."""
    if not value:
        return None
    try:
        return max(0.0, float(value)) if not math.isnan(float(value)) else None
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def read_error(body: bytes) -> str:
    """The message in the body of an error, on one line."""
    try:
        error = json.loads(body)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, LookupError, TypeError, RecursionError):
        text = body[:200].decode("utf-8", "replace")
    return fit_line(str(text).strip() or "no message", 160)


def import_httpx() -> Any:
    """The module httpx. Raises UsageError with the remedy if it is missing."""
    try:
        import httpx
    except ImportError as error:
        raise UsageError("Asking a model behind an endpoint needs httpx: run pip install 'llava[data]'.") from error
    return httpx


def _read_count(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else otherwise


def _say(error: Exception) -> str:
    return fit_line(str(error) or type(error).__name__, 120)
