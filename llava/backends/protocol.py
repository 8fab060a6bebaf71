"""The interface between server and engine: one chat in, pieces of text out.

This package's engine in this process, SGLang, vLLM, or any OpenAI-compatible URL: each is a ``Backend``. Requests reach
a backend validated and with their images decoded (``llava.serve`` does that); a backend never fetches anything for a
client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any, Literal, Protocol

from llava.image.source import LoadedImage
from llava.sampling import Sampling

Role = Literal["system", "user", "assistant"]
Detail = Literal["auto", "low", "high"]
FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class SentImage:
    """An image in a message. ``detail`` "low" is the whole-image tile alone; the others are the model's own AnyRes."""

    loaded: LoadedImage
    detail: Detail = "auto"


@dataclass(frozen=True)
class ChatMessage:
    """One turn: texts and images in the order in which the client sent them."""

    role: Role
    parts: tuple[str | SentImage, ...]


@dataclass(frozen=True)
class ChatRequest:
    """What a client asked.

    Attributes:
        messages: the conversation; its last message is the user's.
        sampling: the sampling parameters, and the longest answer.
        num_choices: how many answers, at least 1.
        top_logprobs: None is no log-probabilities, 0 only those of the sampled tokens.
        prompt: in place of ``messages``, a finished text to continue: special tokens in it count, and each ``<image>``
            is one of ``images``. (``llava.prompt.escape_image_tokens`` escapes what users typed first.)
        tenant: requests share cached content only within one tenant.
        response_format: what the answer is constrained to, ``json_object`` or ``json_schema`` as in OpenAI's API; only
            for a backend that ``constrains_answers``.
    """

    messages: tuple[ChatMessage, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    num_choices: int = 1
    top_logprobs: int | None = None
    prompt: str | None = None
    images: tuple[SentImage, ...] = ()
    tenant: str = ""
    response_format: Mapping[str, Any] | None = None

    @property
    def all_images(self) -> list[SentImage]:
        """The images of the messages in their order, or those of the prompt."""
        parts = [part for message in self.messages for part in message.parts]
        return [*(part for part in parts if isinstance(part, SentImage)), *self.images]


@dataclass(frozen=True)
class TokenLogprob:
    """A sampled token with its natural log-probability, and the likeliest tokens in its place, likeliest first.

    Bytes of a token that are no whole character are surrogates in its text, by Python's ``surrogateescape``.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Positions of the prompt, every image position included, and new tokens of all choices."""

    prompt_tokens: int
    completion_tokens: int
    image_tokens: int = 0
    cached_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """The sum of both usages."""
        mine, theirs = astuple(self), astuple(other)
        return Usage(*(one + another for one, another in zip(mine, theirs, strict=True)))


@dataclass(frozen=True)
class Delta:
    """The next part of one choice. The last of each choice has ``finish_reason``; the last of all has ``usage``.

    ``stop_reason``: the stop text that ended the answer; for an answer that was cut off, ``max_tokens``, or
    ``context_length`` where the context held less. None where the model ended it, or where it is not known.
    """

    index: int = 0
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    stop_reason: str | None = None


class Backend(Protocol):
    """An engine, as the server uses it. All calls come from one event loop."""

    model_id: str
    context_tokens: int
    constrains_answers: bool
    """Whether it can constrain an answer to ``ChatRequest.response_format``."""

    async def start(self) -> None:
        """Makes it ready. Raises LlavaError with a remedy."""
        ...

    async def stop(self) -> None:
        """Ends it: open answers fail, processes end, memory is freed. Idempotent."""
        ...

    async def is_ready(self) -> bool:
        """Whether a request sent now would be answered."""
        ...

    def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """The answer as it comes. Closing the iterator early cancels the request.

        Raises LlavaError: before the first delta for a request that is refused (ContextTooLong, RequestTooLarge,
        EngineFull ...), later for an engine that failed.
        """
        ...

    def count(self) -> Mapping[str, float]:
        """Counters and gauges for /metrics by name: requests_running, requests_waiting, kv_used_share and so on."""
        ...
