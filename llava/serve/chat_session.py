"""Answers for the web chat: one running answer for each open page. No Gradio here.

The page's messages become a request, the answer is streamed back as it grows, and votes go to the conversation log.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from llava.backends.protocol import ChatMessage, ChatRequest, Delta, Detail, FinishReason, SentImage, Usage
from llava.errors import ContextTooLong, UsageError
from llava.sampling import Sampling
from llava.serve import chat_transcript
from llava.serve.api_errors import limit_exceeded, to_api_error
from llava.serve.chat_transcript import Message
from llava.serve.limits import Limits
from llava.serve.service import Service
from llava.serve.uploaded_images import UploadedImages

# The shortest interval between updates of a page. It grows with the answer, because each update carries the whole text.
_UPDATE_S, _UPDATE_CHARACTERS = 0.04, 20_000
# Rendering an update may take at most a fifth of the time: pause for this many times as long as it took.
_PAUSE_RATIO = 4


@dataclass(frozen=True)
class ChatSettings:
    """The page's settings."""

    temperature: float
    top_p: float
    max_new_tokens: int
    detail: Detail


async def make_request(
    messages: Sequence[Message], settings: ChatSettings, uploaded: UploadedImages, limits: Limits
) -> ChatRequest:
    """The request for the last question, with the answered turns before it.

    Raises ApiError for a value over a limit, BadImage, and UsageError if there is no question.
    """
    turns = chat_transcript.find_turns(messages)
    if not turns or turns[-1].answer is not None:
        raise UsageError("There is no question. Type one.")
    carried = [turn for turn in turns[:-1] if turn.answer is not None] + turns[-1:]
    texts = [text for turn in carried for text in (turn.question, turn.answer) if text is not None]
    for name, number, what in (
        ("messages", len(texts), "messages in this chat"),
        ("characters", sum(map(len, texts)), "characters of text in this chat"),
        ("images", sum(len(turn.paths) for turn in carried), "images in this chat"),
    ):
        if number > getattr(limits, name):
            raise limit_exceeded(name, getattr(limits, name), f"There are {number:,} {what}", "Start a new chat.")
    if not turns[-1].question.strip():
        raise UsageError("Type a question.")
    sampling = Sampling(
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=min(settings.max_new_tokens, limits.new_tokens),
    )
    images = iter(await uploaded.load([path for turn in carried for path in turn.paths]))
    written: list[ChatMessage] = []
    for turn in carried:
        shown = [SentImage(next(images), settings.detail) for _ in turn.paths]
        written.append(ChatMessage("user", (*shown, turn.question)))
        if turn.answer is not None:
            written.append(ChatMessage("assistant", (turn.answer,)))
    return ChatRequest(tuple(written), sampling)


@dataclass
class RunningAnswer:
    """An answer in progress: its text so far, and how it ended."""

    text: str = ""
    request: ChatRequest | None = None
    usage: Usage | None = None
    reason: FinishReason | None = None
    error: str | None = None  # a sentence
    is_dropped: bool = False  # the page shows something else now
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Cancels it, and keeps its text."""
        if self.task is not None and not self.task.done():
            self.reason = "cancelled"
            self.task.cancel()
            self.changed.set()

    async def end(self) -> None:
        """Cancels it, and returns when its task has ended."""
        while self.task is not None and not self.task.done():
            self.stop()  # in a loop: before Python 3.12 wait_for may swallow a cancellation
            await asyncio.wait((self.task,), timeout=_UPDATE_S)

    def time_out(self, limit_s: float) -> None:
        """Cancels it with an error that names the limit."""
        remedy = "Request a shorter one, or try again later."
        self.error = str(limit_exceeded("answer_s", limit_s, "The answer took too long", remedy))
        self.stop()

    def append(self, delta: Delta) -> None:
        """Adds the next part."""
        self.text += delta.text
        self.reason = delta.finish_reason or self.reason
        self.usage = delta.usage or self.usage
        self.changed.set()


class ChatSessions:
    """The running answers, at most one per open page. A new question or ``stop`` cancels the page's answer."""

    def __init__(self, service: Service, uploaded: UploadedImages) -> None:
        self.service, self.uploaded = service, uploaded
        self._open: dict[str, RunningAnswer] = {}
        self._last_vote: tuple[Any, ...] = ()

    def is_busy(self, page: str) -> bool:
        """Whether the page has a running answer."""
        return page in self._open

    def stop(self, page: str, *, drop: bool = False) -> None:
        """Cancels the page's answer, if there is one. ``drop``: its text so far is not shown either."""
        running_answer = self._open.get(page)
        if running_answer is not None:
            running_answer.is_dropped = running_answer.is_dropped or drop
            running_answer.stop()

    async def ask(
        self, page: str, messages: Sequence[Message], settings: ChatSettings
    ) -> AsyncGenerator[RunningAnswer, None]:
        """Yields the answer to the last question repeatedly as it grows. Closing the generator cancels it."""
        self.stop(page, drop=True)
        if page in self._open:
            await self._open[page].end()  # so that its slot is free for this one
        running_answer = self._open[page] = RunningAnswer()
        running_answer.task = asyncio.create_task(self._pump(running_answer, messages, settings))
        limit_s = self.service.limits.answer_s
        timer = asyncio.get_running_loop().call_later(limit_s, running_answer.time_out, limit_s)
        try:
            while not running_answer.task.done() and running_answer.reason != "cancelled":
                waiting = asyncio.create_task(running_answer.changed.wait())
                await asyncio.wait((waiting, running_answer.task), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                running_answer.changed.clear()
                if running_answer.reason is None and not running_answer.task.done():
                    began = time.perf_counter()
                    yield running_answer
                    taken_s = time.perf_counter() - began
                    pause_s = max(_UPDATE_S, len(running_answer.text) / _UPDATE_CHARACTERS, _PAUSE_RATIO * taken_s)
                    await asyncio.wait((running_answer.task,), timeout=pause_s)
            await running_answer.end()
            if not running_answer.is_dropped:
                yield running_answer
        finally:
            timer.cancel()
            await running_answer.end()
            if self._open.get(page) is running_answer:
                del self._open[page]

    async def _pump(self, running_answer: RunningAnswer, messages: Sequence[Message], settings: ChatSettings) -> None:
        async def make() -> ChatRequest:
            running_answer.request = await make_request(messages, settings, self.uploaded, self.service.limits)
            return running_answer.request

        try:
            async with aclosing(self.service.chat(make, "web")) as deltas:
                async for delta in deltas:
                    running_answer.append(delta)
        except Exception as error:
            running_answer.error = explain(error)

    def vote(self, page: str, messages: Sequence[Message], index: int, vote: str) -> None:
        """Logs a vote on the answer at ``index``, with the conversation up to there."""
        log = self.service.log
        if log is None:
            return
        turns = [turn for turn in chat_transcript.find_turns(messages[: index + 1]) if turn.answer is not None]
        if not turns or turns[-1].end != index + 1:
            return  # a notice
        if self._last_vote == (cast := (page, index, turns[-1].answer, vote)):
            return  # Chatbot sends some votes twice
        self._last_vote = cast
        said: list[dict[str, Any]] = []
        for turn in turns:
            shown = [{"sha256": self.uploaded.find_digest(path)} for path in turn.paths]
            said.append({"role": "user", "parts": [*shown, turn.question]})
            said.append({"role": "assistant", "parts": [turn.answer]})
        model = self.service.backend.model_id
        log.write(
            {
                "kind": "vote",
                "source": "web",
                "model": model,
                "messages": said[:-1],
                "answer": turns[-1].answer,
                "vote": vote,
            }
        )


def explain(error: Exception) -> str:
    """A sentence for the user on what went wrong. Server faults are logged under the id that it names."""
    sentence = str(to_api_error(error, f"web_{uuid.uuid4().hex[:12]}"))
    return f"{sentence} Or start a new chat." if isinstance(error, ContextTooLong) else sentence


def describe_end(running_answer: RunningAnswer) -> str | None:
    """A sentence on how an answer ended; None if it ended normally."""
    has_text = bool(running_answer.text.strip())
    if running_answer.error is not None:
        return f"The answer was interrupted. {running_answer.error}" if has_text else running_answer.error
    if running_answer.reason == "length":
        return _describe_length(running_answer)
    if running_answer.reason == "cancelled":
        return "You stopped the answer here." if has_text else "You stopped the answer before its first word."
    if not has_text:
        return "The model gave an empty answer. Rephrase the question, or try again with a higher temperature."
    return None


def _describe_length(running_answer: RunningAnswer) -> str:
    request, usage = running_answer.request, running_answer.usage
    most = request.sampling.max_new_tokens if request is not None else None
    if most is None or usage is None:
        return "The answer was cut off: it reached the longest length that the settings or the model's context allow."
    if usage.completion_tokens < most:
        return "The answer was cut off: this chat fills the model's context. Start a new chat to ask more."
    return (
        f"The answer was cut off after {most:,} tokens, the longest answer that the settings allow. "
        "Raise that limit and try again, or ask the model to continue."
    )
