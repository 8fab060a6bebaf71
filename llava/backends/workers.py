"""The workers of the original's controller as a ``Backend``: the controller picks the worker for each request.

A worker of this package is asked through its OpenAI API, which supports everything that a request can contain. Any
other worker, and a finished prompt, is asked in the original's protocol: a prompt with base64 images in; prompt and
answer so far out, repeatedly, as JSON followed by a NUL byte.

Source: haotian-liu/LLaVA@c121f04 llava/serve/controller.py, llava/serve/model_worker.py, gradio_web_server.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import httpx2 as httpx

from llava.backends.protocol import ChatRequest, Delta, Usage
from llava.backends.remote import Counts, Remote, Timeouts, split_address, write_data_uri
from llava.backends.turns import write_conversation
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import find_template, template_name
from llava.errors import EngineClosed, EngineFailed, UsageError
from llava.text import write_line

# The polling interval of a controller without workers.
_LOOK_S = 1.0
# This package's workers send keep-alives sooner (the limit silence_s): one that is silent for so long hangs.
_READ_S = 30.0
# One piece holds the prompt and the whole answer so far.
_MOST_PIECE_BYTES = 32 * 2**20


def read_address(text: str) -> str:
    """A server's URL without a slash at its end. Raises UsageError."""
    parts = split_address(text)
    if parts is None:
        raise UsageError(f"'{text}' is not the URL of a server; write one such as http://localhost:21001.")
    return parts.geturl().rstrip("/")


def make_client(timeout: Any = 10.0, api_key: str | None = None) -> httpx.AsyncClient:
    """A client for controllers and workers, which ignores the environment's proxies."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False, follow_redirects=False)


async def post_json(client: httpx.AsyncClient, url: str, content: Any, who: str = "controller") -> Any:
    """The JSON answer of ``url``. Raises EngineClosed if it cannot be reached, EngineFailed for any but JSON."""
    place = f"The {who} at {url.rpartition('/')[0]}"
    try:
        answer = await client.post(url, json=content)
    except httpx.HTTPError as error:
        raise EngineClosed(
            f"{place} cannot be reached: check that it is running and that the address is right."
        ) from error
    said = None
    with suppress(ValueError):
        said = answer.json()
        if answer.status_code == 200:
            return said
    details = said.get("error") if isinstance(said, dict) else None
    if isinstance(details, dict) and answer.status_code not in (404, 405) and details.get("message"):
        why = str(details["message"])  # the server is one of this package, whose message says what is wrong
    else:
        why = f"the server there is not a LLaVA {who}."
    raise EngineFailed(f"{place} answered {answer.status_code} to {url.rpartition('/')[2]}: {why}")


class Workers:
    """See ``Backend``.

    Args:
        controller: its URL.
        model_id: which of the controller's models is asked; by default the first in alphabetical order.
        api_key: sent to workers as a bearer token.
        on_progress: gets sentences for the user who waits for the start.
    """

    constrains_answers = True

    def __init__(
        self,
        controller: str,
        *,
        model_id: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts = Timeouts(),
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self._controller = read_address(controller)
        self._wanted = model_id
        self.model_id = model_id or ""  # until ``start`` knows
        self.context_tokens = 0  # until a worker has reported it
        self._api_key, self._timeouts = api_key, timeouts
        self._tell = on_progress or (lambda sentence: None)
        self._client = make_client(timeouts.check_s)
        self._remotes: dict[str, Remote | None] = {}
        self._last_address = ""
        self.counts = Counts()

    async def start(self, *, waits: bool = True) -> None:
        """Returns once the controller knows a worker of the model.

        Raises EngineClosed if there is no controller, and without ``waits`` also if it knows no such worker.
        """
        reported = None
        while not self._choose(known := await self._list_models(is_first=reported is None)):
            which = "a worker" if self._wanted is None else f"a worker for '{self._wanted}'"
            others = f"; it has {', '.join(known)}" if known else ""
            if not waits:
                raise EngineClosed(f"The controller at {self._controller} does not have {which}{others}.")
            if known != reported:
                self._tell(f"waiting until {which} registers with the controller at {self._controller}{others}")
                reported = known
            await asyncio.sleep(_LOOK_S)
        if len(known) > 1:
            self._tell(f"the controller has {', '.join(known)}; using {self.model_id} (choose another with --model)")
        with suppress(EngineClosed, EngineFailed):  # the first request would report it
            await self._find_remote(await self._find_worker())

    def _choose(self, known: list[str]) -> bool:
        if not known or self._wanted not in (None, *known):
            return False
        self.model_id = self._wanted or known[0]
        return True

    async def _list_models(self, *, is_first: bool) -> list[str]:
        try:
            listed = await post_json(self._client, f"{self._controller}/list_models", {})
            return sorted(str(name) for name in listed["models"])
        except EngineClosed:
            if is_first:
                raise
            return []
        except (KeyError, TypeError) as error:
            raise EngineFailed(f"The server at {self._controller} is not a LLaVA controller.") from error

    async def stop(self) -> None:
        """Closes all connections, so open answers fail."""
        await self._client.aclose()
        for remote in self._remotes.values():
            if remote is not None:
                await remote.stop()

    async def is_ready(self) -> bool:
        """Whether the controller knows a worker of the model."""
        try:
            listed = await post_json(self._client, f"{self._controller}/list_models", {})
            return self.model_id in listed["models"]
        except (EngineClosed, EngineFailed, KeyError, TypeError, RuntimeError):  # it is closed
            return False

    def count(self) -> Mapping[str, float]:
        """See ``Backend.count``: the requests that were passed on."""
        return self.counts.as_dict()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """See ``Backend.chat``. If a worker fails before its answer begins, another one is asked.

        Raises EngineClosed, EngineFull, EngineFailed.
        """
        self.counts.running += 1
        try:
            async with aclosing(self._ask_workers(request)) as deltas:
                async for delta in deltas:
                    yield delta
            self.counts.finished += 1
        except (EngineClosed, EngineFailed):
            self.counts.failed += 1
            raise
        finally:
            self.counts.running -= 1

    async def _ask_workers(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        address, tried = await self._find_worker(), set[str]()
        while True:
            has_begun = False
            try:
                async with aclosing(await self._ask(address, request)) as deltas:
                    async for delta in deltas:
                        has_begun = True
                        yield delta
                return
            except EngineClosed:
                tried.add(address)
                if has_begun or (address := await self._find_another(tried)) in tried:
                    raise

    async def _ask(self, address: str, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        remote = await self._find_remote(address)
        if remote is not None and request.prompt is None:
            return remote.chat(request)
        return self.ask_worker(address, request)

    async def _find_another(self, tried: Collection[str]) -> str:
        """A worker that was not tried yet, or one that was if the controller names no other."""
        address = next(iter(tried))
        for _ in range(len(tried) + 1):  # the original's controller may name one of these again
            with suppress(EngineClosed, EngineFailed):
                address = await self._find_worker(tried)
            if address not in tried:
                break
        return address

    async def _find_worker(self, without: Collection[str] = ()) -> str:
        wanted = {"model": self.model_id, "without": list(without)}
        try:
            said = await post_json(self._client, f"{self._controller}/get_worker_address", wanted)
        except EngineClosed:
            if self._last_address in ("", *without):
                raise
            return self._last_address  # workers keep working while their controller restarts
        address = said.get("address") if isinstance(said, dict) else None
        if not address:
            raise EngineClosed(f"No worker for '{self.model_id}' is registered with the controller. Try again later.")
        self._last_address = read_address(str(address))
        return self._last_address

    async def _find_remote(self, address: str) -> Remote | None:
        """The client of a worker's OpenAI API; None if it has none, which is checked once."""
        if address not in self._remotes:
            try:
                answer = await self._client.get(f"{address}/v1/models", headers=self._authorize())
            except httpx.HTTPError as error:
                raise EngineClosed(f"The worker at {address} cannot be reached. Try again later.") from error
            self.context_tokens = self.context_tokens or _read_context(answer)
            if address not in self._remotes:
                self._remotes[address] = None if answer.status_code in (404, 405) else self._make_remote(address)
        return self._remotes[address]

    def _make_remote(self, address: str) -> Remote:
        url, key = f"{address}/v1", self._api_key
        waits = replace(self._timeouts, read_s=min(self._timeouts.read_s, _READ_S))
        return Remote(url, model=self.model_id, api_key=key, timeouts=waits, supports_extras=True)

    def _authorize(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    async def ask_worker(self, address: str, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """An answer in the original's protocol, which reports neither a finish reason nor token counts.

        ``address``: of any worker, whether a controller knows it or not.
        """
        content = await asyncio.to_thread(self._write_request, request)
        prompt, said = content["prompt"], ""
        async with aclosing(self._read_pieces(address, content)) as pieces:
            async for piece in pieces:
                try:
                    text, code = str(piece["text"]), int(piece.get("error_code", 0))
                except (KeyError, TypeError, ValueError) as error:
                    raise EngineFailed("The worker sent a piece that violates its protocol.") from error
                if code:
                    raise EngineFailed(f"The worker failed: {text}")
                answer = text.removeprefix(prompt)
                if answer.startswith(said):  # a stop text is removed again at the end
                    yield Delta(text=answer[len(said) :])
                    said = answer
        yield Delta(finish_reason="stop", usage=Usage(0, 0))

    async def _read_pieces(self, address: str, content: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        silent = httpx.Timeout(self._timeouts.read_s, connect=self._timeouts.connect_s)
        url, rest = f"{address}/worker_generate_stream", b""
        try:
            async with self._client.stream(
                "POST", url, json=content, timeout=silent, headers=self._authorize()
            ) as answer:
                async for chunk in answer.aiter_bytes():
                    *pieces, rest = (rest + chunk).split(b"\0")
                    for piece in filter(None, pieces):  # an empty one is a keep-alive
                        yield json.loads(piece)
                    if len(rest) > _MOST_PIECE_BYTES:
                        raise EngineFailed(f"The worker sent a piece of more than {_MOST_PIECE_BYTES:,} bytes.")
                if rest:
                    yield json.loads(rest)
        except ValueError as error:
            raise EngineFailed("The worker sent a piece that violates its protocol.") from error
        except httpx.HTTPError as error:
            raise EngineClosed(
                f"The worker at {address} cannot be reached, or closed the connection. Try again."
            ) from error

    def _write_request(self, request: ChatRequest) -> dict[str, Any]:
        sampling = request.sampling
        if len(sampling.stop) > 1 or request.num_choices > 1 or request.top_logprobs is not None:
            raise UsageError("The worker's protocol supports one answer, one stop text and no log-probabilities.")
        prompt, stop = request.prompt, sampling.stop[0] if sampling.stop else None
        if prompt is None:
            template = find_template(template_name(self.model_id))
            conversation, _ = write_conversation(request.messages, template, DEFAULT_IMAGE_TOKEN)
            prompt = conversation.get_prompt()
            stop = stop or conversation.sep2 or conversation.sep
        images = [write_data_uri(sent.loaded).partition(",")[2] for sent in request.all_images]
        return {
            "model": self.model_id,
            "prompt": prompt,
            "temperature": sampling.temperature,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "max_new_tokens": sampling.max_new_tokens,
            "stop": stop,
            "images": images,
        }


def _read_context(answer: httpx.Response) -> int:
    """The size of a worker's context in tokens; 0 if its list of models does not have it."""
    try:
        return int(answer.json()["data"][0]["max_model_len"])
    except (ValueError, KeyError, TypeError, IndexError):
        return 0


def from_flags(arguments: Any, settings: Any) -> Workers:
    """The backend of ``llava serve --workers-of``; the workers' key is LLAVA_ENGINE_KEY."""
    return Workers(
        arguments.workers_of,
        model_id=arguments.model or arguments.name,
        api_key=os.environ.get("LLAVA_ENGINE_KEY"),
        timeouts=Timeouts(read_s=settings.limits.answer_s),
        on_progress=lambda sentence: write_line(f"llava: {sentence}"),
    )
