"""An OpenAI client as a ``Backend``: any server with OpenAI's chat completions API can be the engine.

Every answer is requested as a stream, so that it can be cancelled: closing the iterator closes the connection, on
which such a server stops generating. Requests are never retried.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx2 as httpx

from llava.backends.events import StreamReader, read_error, read_error_body, read_events
from llava.backends.protocol import ChatMessage, ChatRequest, Delta, SentImage, Usage
from llava.errors import EngineClosed, EngineFailed, EngineFull, UsageError
from llava.image.source import LoadedImage
from llava.prompt import ESCAPE
from llava.sampling import Sampling

# The markup of images and turns in the templates of LLaVA and similar models. An engine whose template is unknown here
# would read it as its own markup, even where a user typed it.
_MARKUP = re.compile(r"<(?=\|[^|<>\s]+\|>|/?s>|/?image>|image_pad>|unk>|pad>|im_(?:start|end|patch)>)|\[(?=/?INST\])")


@dataclass(frozen=True)
class Timeouts:
    """How long an engine may take to answer, in seconds."""

    connect_s: float = 5.0
    read_s: float = 300.0
    """Between two pieces of an answer, and before the first one: a full engine queues requests."""
    check_s: float = 2.0
    """For a health check, and for the list of models."""


@dataclass
class Counts:
    """What ``Backend.count`` reports about forwarded requests."""

    running: int = 0
    finished: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0

    def as_dict(self) -> dict[str, float]:
        """The counts by the names of ``Backend.count``."""
        return {
            "requests_running": self.running,
            "requests_total": self.finished,
            "failed_requests_total": self.failed,
            "prompt_tokens_total": self.prompt_tokens,
            "generated_tokens_total": self.generated_tokens,
            "cached_tokens_total": self.cached_tokens,
        }


class Remote:
    """A model that another server serves at a URL.

    Args:
        url: up to and with ``/v1``; without a path ``/v1`` is added.
        model: what the engine calls it; by default the only model that it lists.
        model_id: what clients call it; by default the same.
        api_key: sent as a bearer token.
        context_tokens: the size of its context, where the engine does not report it.
        timeouts: how long it may take to answer.
        supports_extras: whether it supports top_k, min_p and repetition_penalty, as vLLM, SGLang and llama.cpp do; then
            they are always sent, so that the engine's own defaults never apply.

    Raises UsageError for a URL that no client can call.
    """

    constrains_answers = True

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        model_id: str | None = None,
        api_key: str | None = None,
        context_tokens: int = 0,
        timeouts: Timeouts = Timeouts(),
        supports_extras: bool = False,
    ) -> None:
        self._url = _read_url(url)
        self._model = model
        self._is_named = bool(model_id or model)
        self.model_id = model_id or model or ""  # known from ``start`` on
        self.context_tokens = context_tokens
        self.counts = Counts()
        self._timeouts = timeouts
        self._supports_extras = supports_extras
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        waits = httpx.Timeout(
            timeouts.read_s, connect=timeouts.connect_s, pool=timeouts.connect_s, write=timeouts.read_s
        )
        # The environment's proxies are for remote hosts, never for an engine on this machine.
        is_here = urlsplit(self._url).hostname in ("127.0.0.1", "::1", "localhost")
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=waits,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=not is_here,
            follow_redirects=False,
        )

    async def start(self) -> None:
        """Finds out which model is served and how large its context is.

        Raises EngineClosed if the engine cannot be reached, EngineFailed if it lists no model of the name, UsageError
        if it lists several and none was named.
        """
        models = await self._list_models()
        names = [str(entry.get("id")) for entry in models]
        if self._model is None:
            if len(names) != 1:
                known = f"serves {len(names)} models ({', '.join(names[:8])})" if names else "lists no models"
                raise UsageError(f"The engine at {self._url} {known}: name one of them with --engine-model.")
            self._model = names[0]
        elif names and self._model not in names:
            raise EngineFailed(
                f"The engine at {self._url} serves no '{self._model}', but {', '.join(names[:8])}: name one of these."
            )
        self.model_id = self.model_id if self._is_named else self._model
        entry = next((entry for entry in models if entry.get("id") == self._model), {})
        said = entry.get("max_model_len")
        if isinstance(said, int) and said > 0:
            self.context_tokens = said

    async def _list_models(self) -> list[dict[str, Any]]:
        try:
            answer = await self._client.get(f"{self._url}/models", timeout=self._timeouts.check_s)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.status_code in (404, 405):  # some servers have no such route
            return []
        if answer.status_code != 200:
            raise read_error(answer.status_code, answer.content, answer.headers)
        try:
            listed = answer.json()["data"]
            return [dict(entry) for entry in listed]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineFailed(f"The server at {self._url}/models is not OpenAI-compatible.") from error

    async def stop(self) -> None:
        """Closes all connections, so open answers fail."""
        await self._client.aclose()

    async def is_ready(self) -> bool:
        """Whether the engine answers a request for its list of models."""
        try:
            answer = await self._client.get(f"{self._url}/models", timeout=self._timeouts.check_s)
        except (httpx.HTTPError, RuntimeError):  # the latter if our client is closed
            return False
        return answer.status_code < 500

    def count(self) -> Mapping[str, float]:
        """See ``Backend.count``: the requests that were passed on."""
        return self.counts.as_dict()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """See ``Backend.chat``. Raises EngineClosed, EngineFull, EngineFailed."""
        if request.prompt is not None and request.images:
            raise UsageError("This engine accepts images only in messages, not together with a raw prompt.")
        if request.prompt is not None:
            body = {"prompt": escape_markup(request.prompt), **self.write_sampling(request, is_chat=False)}
            path = "completions"
        else:
            body = {"messages": await asyncio.to_thread(write_messages, request.messages)}
            body.update(self.write_sampling(request, is_chat=True))
            path = "chat/completions"
        is_greedy = request.sampling.temperature == 0
        async with aclosing(self.ask(path, body, request.num_choices, is_greedy=is_greedy)) as deltas:
            async for delta in deltas:
                yield delta

    def write_sampling(self, request: ChatRequest, *, is_chat: bool) -> dict[str, Any]:
        """The request's settings in OpenAI's names, and beyond them in vLLM's and SGLang's."""
        sampling: Sampling = request.sampling
        values: dict[str, Any] = {
            "model": self._model or self.model_id,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "n": request.num_choices,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.temperature == 0:
            values["n"] = 1  # all choices of a greedy answer are equal, and vLLM refuses n > 1 for them
        if sampling.seed is not None:
            values["seed"] = sampling.seed
        if sampling.stop:
            values["stop"] = list(sampling.stop)
        if request.top_logprobs is not None:
            if is_chat:
                values.update(logprobs=True, top_logprobs=request.top_logprobs)
            else:
                values["logprobs"] = request.top_logprobs
        if request.response_format is not None:
            values["response_format"] = dict(request.response_format)
        if sampling.no_repeat_ngram_size:
            raise UsageError("no_repeat_ngram_size is not supported by this engine; leave it out.")
        if sampling.suppress_tokens:
            values["logit_bias"] = {str(token): -100 for token in sampling.suppress_tokens}
        if sampling.min_new_tokens:
            values["min_tokens"] = sampling.min_new_tokens
        if sampling.bad_words:
            values["bad_words"] = list(sampling.bad_words)
        extras = {
            "top_k": -1 if sampling.top_k is None else sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty or 1.0,
        }
        if not self._supports_extras:  # only what was requested, since OpenAI's own API rejects unknown fields
            extras = {name: value for name, value in extras.items() if value != _NO_EXTRAS[name]}
        return values | extras

    async def ask(
        self,
        path: str,
        body: Mapping[str, Any],
        num_choices: int,
        *,
        is_greedy: bool,
        translate: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """Posts ``body`` and reads the stream; a greedy answer is requested once and delivered ``num_choices`` times.

        ``path``: below the URL, or from the server's root if it begins with ``/``. ``translate``: makes an event of
        another dialect one of OpenAI's.
        """
        repeats = num_choices if is_greedy else 1
        reading = StreamReader(num_choices=1 if is_greedy else num_choices)
        self.counts.running += 1
        is_done = False
        try:
            async with aclosing(self._stream(path, body)) as events:
                async for event in events:
                    for delta in reading.read(translate(event) if translate else event):
                        for index in range(repeats):
                            yield replace(delta, index=index) if repeats > 1 else delta
            for delta, is_last in reading.finish():
                for index in range(repeats):
                    last_delta = replace(delta, index=index) if repeats > 1 else delta
                    if is_last and index == repeats - 1:
                        last_delta = replace(last_delta, usage=self._count(reading.usage(), repeats))
                        is_done = True
                    yield last_delta
        except (EngineClosed, EngineFailed, EngineFull):
            self.counts.failed += 1
            raise
        finally:
            self.counts.running -= 1
            self.counts.finished += is_done

    def _count(self, usage: Usage, repeats: int) -> Usage:
        self.counts.prompt_tokens += usage.prompt_tokens
        self.counts.generated_tokens += usage.completion_tokens
        self.counts.cached_tokens += usage.cached_tokens
        return replace(usage, completion_tokens=usage.completion_tokens * repeats)

    async def _stream(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The events of one answer."""
        has_begun = False
        try:
            async with self._client.stream("POST", self._find(path), json=body) as answer:
                if answer.status_code != 200:
                    raise read_error(answer.status_code, await read_error_body(answer.aiter_bytes()), answer.headers)
                has_begun = True
                async with aclosing(read_events(answer.aiter_bytes())) as events:
                    async for event in events:
                        yield event
        except httpx.TimeoutException as error:
            if isinstance(error, (httpx.ConnectTimeout, httpx.PoolTimeout)):
                raise self._unreachable(error) from error
            raise EngineFailed(
                f"The engine sent nothing for {self._timeouts.read_s:g} s, so its answer was aborted."
            ) from error
        except httpx.ConnectError as error:
            raise self._unreachable(error) from error
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not self._client.is_closed:
                raise
            what = "before the answer ended" if has_begun else "before it answered"
            raise EngineClosed(f"The engine closed the connection {what}. Try again.") from error

    def _find(self, path: str) -> str:
        parts = urlsplit(self._url)
        return f"{parts.scheme}://{parts.netloc}{path}" if path.startswith("/") else f"{self._url}/{path}"

    def _unreachable(self, error: Exception) -> EngineClosed:
        why = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
        return EngineClosed(f"The engine at {self._url} {why}: check that it is running and that the address is right.")


def from_flags(arguments: Any, settings: Any) -> Remote:
    """The backend that ``llava serve --engine-url`` describes."""
    return Remote(**read_remote_flags(arguments, settings))


def read_remote_flags(arguments: Any, settings: Any) -> dict[str, Any]:
    """The arguments of ``Remote`` from the flags of ``llava serve``; its key is LLAVA_ENGINE_KEY."""
    for flag, value in (("--model", arguments.model), ("--conv-mode", arguments.conv_mode)):
        if value is not None:
            raise UsageError(f"{flag} has no effect on a running engine: leave it out (see --engine-model).")
    return {
        "url": arguments.engine_url,
        "model": arguments.engine_model,
        "model_id": arguments.name,
        "api_key": os.environ.get("LLAVA_ENGINE_KEY"),
        "context_tokens": arguments.context or 0,
        "timeouts": Timeouts(read_s=settings.limits.answer_s),
    }


_NO_EXTRAS: Mapping[str, float] = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


def split_address(text: str) -> SplitResult | None:
    """A server's URL, which may lack its scheme; None for one that no client can call."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts, known = urlsplit(url), httpx.URL(url)
        is_address = bool(parts.hostname and known.host) and parts.port != 0
    except (ValueError, httpx.InvalidURL):  # no port, no IPv6 address, control characters, half of a surrogate pair
        return None
    is_fit = is_address and parts.scheme in ("http", "https") and not (parts.query or parts.fragment)
    return parts if is_fit else None


def _read_url(url: str) -> str:
    parts = split_address(url)
    if parts is None:
        raise UsageError(f"'{url}' is not the URL of an engine; write one such as http://127.0.0.1:30000/v1.")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def escape_markup(text: str) -> str:
    """A user's text with template markup escaped, so that an engine finds no image slot or end of turn in it.

    An invisible ESCAPE splits the markup of common templates; other text is unchanged.
    """
    return _MARKUP.sub(lambda found: found[0] + ESCAPE, text.replace(ESCAPE, ""))


def write_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages in OpenAI's format: a single text as a string, else a list of parts in their order."""
    written: list[dict[str, Any]] = []
    for message in messages:
        parts = [
            {
                "type": "image_url",
                "image_url": {"url": write_data_uri(part.loaded), "detail": part.detail},
            }
            if isinstance(part, SentImage)
            else {"type": "text", "text": escape_markup(part)}
            for part in message.parts
        ]
        is_text = len(parts) == 1 and parts[0]["type"] == "text"
        written.append({"role": message.role, "content": parts[0]["text"] if is_text else parts})
    return written


def write_data_uri(image: LoadedImage) -> str:
    """The image as a PNG in a data URI: exactly its pixels, without its file's metadata."""
    file = io.BytesIO()
    image.image.save(file, "PNG", compress_level=1)  # fast, because it only goes to the next process
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
