"""The web chat's conversations without their page: its messages become requests, answers become messages, votes lines.

A message is what Gradio's Chatbot shows: a role and a list of texts and files. Beside the user's and the model's there
are notices, which say what went wrong; they are shown and never asked. A question that was not answered, not even in
part, stays where its author sees it, but no later question carries it along. No Gradio here.
"""

from __future__ import annotations

import asyncio
import html
import logging
import mimetypes
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava.backends.protocol import ChatMessage, ChatRequest, Delta, Detail, FinishReason, SentPicture, Usage
from llava.errors import BadImage, ContextTooLong, UsageError
from llava.image.source import Picture
from llava.sampling import Sampling
from llava.serve.limits import Limits
from llava.serve.pictures import PictureLoader
from llava.serve.refusals import over, translate
from llava.serve.service import Service

Message = Mapping[str, Any]

LOG = logging.getLogger("llava.serve")
_NOTICE = "notice"
# Decoded pictures that are kept, in pixels: four of the largest that are allowed by default.
_KEPT_PIXELS = 100_000_000
# A page is told of news this often at most: each time it draws the answer anew.
_NEWS_S = 0.04


def write_question(text: str, paths: Sequence[str]) -> Message:
    """The user's message: pictures by their files, then what was typed, as it was typed."""
    files = [{"type": "file", "file": _describe_file(path), "alt_text": Path(path).name} for path in paths]
    # The page reads Markdown with HTML in it; what a person types is shown as it was typed.
    texts = [{"type": "text", "text": html.escape(text, quote=False)}] if text else []
    return {"role": "user", "content": [*files, *texts]}


def _describe_file(path: str) -> dict[str, Any]:
    return {"path": path, "mime_type": mimetypes.guess_type(path)[0], "orig_name": Path(path).name}


def write_answer(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def write_notice(sentence: str) -> Message:
    """Says something that is not the model's."""
    shown = f'<span class="notice">{html.escape(sentence, quote=False)}</span>'
    return {**write_answer(shown), "metadata": {"id": _NOTICE}}


def is_notice(message: Message) -> bool:
    return (message.get("metadata") or {}).get("id") == _NOTICE


def read_message(message: Message) -> tuple[str, list[str]]:
    """Its text, and the paths of its files."""
    parts = message["content"]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    text = html.unescape(text) if message["role"] == "user" else text
    return text, [part["file"]["path"] for part in parts if part["type"] == "file"]


def find_turns(messages: Sequence[Message]) -> Iterator[tuple[Message, Message | None]]:
    """The questions with their answers, in order; None where there is none."""
    question = None
    for message in messages:
        if is_notice(message):
            continue
        if message["role"] == "user":
            if question is not None:
                yield question, None
            question = message
        elif question is not None:
            yield question, message
            question = None
    if question is not None:
        yield question, None


def split_at(messages: Sequence[Message], index: int) -> tuple[list[Message], Message]:
    """What stands before the user's message at ``index``, or before the last one up to there, and that message.

    Raises UsageError if there is none.
    """
    while index >= 0 and (index >= len(messages) or messages[index]["role"] != "user"):
        index -= 1
    if index < 0:
        raise UsageError("There is no question to go back to.")
    return list(messages[:index]), messages[index]


def find_unanswered(messages: Sequence[Message]) -> tuple[list[Message], Message] | None:
    """If the last question was refused: the messages without it, and it."""
    for index in reversed(range(len(messages))):
        if not is_notice(messages[index]):
            if messages[index]["role"] != "user":
                return None
            return [*messages[:index], *messages[index + 1 :]], messages[index]
    return None


@dataclass(frozen=True)
class Wishes:
    """The page's settings."""

    temperature: float
    top_p: float
    max_new_tokens: int
    detail: Detail


class Album:
    """Pictures of uploaded files: decoded once, and saved by digest if conversations are logged.

    ``folders``: a file elsewhere is refused, whoever names it. ``save_in``: None saves nothing.
    """

    def __init__(self, loader: PictureLoader, folders: Sequence[Path], save_in: Path | None = None) -> None:
        self._loader, self._save_in = loader, save_in
        self._folders = [folder.resolve() for folder in folders]
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._failed = False

    async def load(self, path: str) -> Picture:
        """The picture in a file. Raises BadImage."""
        picture = self._kept.pop(path, None)
        if picture is None:
            data = await asyncio.to_thread(self._read, Path(path))
            picture = await self._loader.decode(data, Path(path).name)
        self._kept[path] = picture
        while (
            len(self._kept) > 1 and sum(one.size.width * one.size.height for one in self._kept.values()) > _KEPT_PIXELS
        ):
            self._kept.popitem(last=False)
        if self._save_in is not None:
            await asyncio.to_thread(self._save, picture, self._save_in)
        return picture

    def _read(self, path: Path) -> bytes:
        if not any(path.resolve().is_relative_to(folder) for folder in self._folders):
            raise BadImage(f"{path.name} was not uploaded here. Upload it again.")
        limit = self._loader.image_limits.max_bytes
        try:
            with path.open("rb") as file:
                data = file.read(limit + 1)
        except OSError as error:
            raise BadImage(f"{path.name} is no longer kept here. Upload it again.") from error
        if len(data) > limit:
            raise BadImage(f"{path.name} has more than {limit:,} bytes, which is the most allowed.")
        return data

    def _save(self, picture: Picture, folder: Path) -> None:
        """Once for each digest, whole or not at all. A full disk costs the log, not the answer."""
        path = folder / f"{picture.digest}.png"
        if path.exists():
            return
        part = folder / f"{picture.digest}.{uuid.uuid4().hex}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                picture.image.save(part, "PNG")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            if not self._failed:
                LOG.error("%s cannot be written: %s. Pictures are not logged.", folder, error.strerror)
            self._failed = True


async def make_request(messages: Sequence[Message], wishes: Wishes, album: Album, limits: Limits) -> ChatRequest:
    """The last question with the answered ones before it. Raises Refusal for limits, BadImage and UsageError."""
    turns = list(find_turns(messages))
    if not turns or turns[-1][1] is not None:
        raise UsageError("There is no question. Type one.")
    said = [turn for turn in turns[:-1] if turn[1] is not None]
    texts = [read_message(message)[0] for turn in [*said, turns[-1]] for message in turn if message is not None]
    paths = [path for question, _ in [*said, turns[-1]] for path in read_message(question)[1]]
    for name, number, what in (
        ("messages", len(texts), "messages in this chat"),
        ("characters", sum(map(len, texts)), "characters of text in this chat"),
        ("pictures", len(paths), "pictures in this chat"),
    ):
        if number > getattr(limits, name):
            raise over(name, getattr(limits, name), f"There are {number:,} {what}", "Begin a new chat.")
    if not texts[-1].strip():
        raise UsageError("Type a question about the picture.")
    written: list[ChatMessage] = []
    for question, answer in [*said, turns[-1]]:
        text, files = read_message(question)
        shown = [SentPicture(await album.load(path), wishes.detail) for path in files]
        written.append(ChatMessage("user", (*shown, text)))
        if answer is not None:
            written.append(ChatMessage("assistant", (read_message(answer)[0],)))
    sampling = Sampling(
        temperature=wishes.temperature,
        top_p=wishes.top_p,
        max_new_tokens=min(wishes.max_new_tokens, limits.new_tokens),
    )
    return ChatRequest(tuple(written), sampling)


@dataclass
class Answering:
    """An answer on its way: what there is of it, and how it ended."""

    text: str = ""
    request: ChatRequest | None = None
    usage: Usage | None = None
    reason: FinishReason | None = None
    error: str | None = None  # a sentence
    is_dropped: bool = False  # nobody wants to see it any more
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ends it now; what there is of it stays."""
        if self.task is not None and not self.task.done():
            self.reason = "cancelled"
            self.task.cancel()

    def hear(self, delta: Delta) -> None:
        self.text += delta.text
        self.reason = delta.finish_reason or self.reason
        self.usage = delta.usage or self.usage
        self.news.set()


class Talks:
    """The answers on their way, one for each open page; asking anew or ``stop`` ends a page's answer."""

    def __init__(self, service: Service, album: Album) -> None:
        self.service, self.album = service, album
        self._open: dict[str, Answering] = {}

    def is_busy(self, page: str) -> bool:
        return page in self._open

    def stop(self, page: str, *, drop: bool = False) -> None:
        """Ends the page's answer, if there is one. ``drop``: what there is of it is not shown either."""
        answering = self._open.get(page)
        if answering is not None:
            answering.is_dropped = answering.is_dropped or drop
            answering.stop()

    async def ask(self, page: str, messages: Sequence[Message], wishes: Wishes) -> AsyncGenerator[Answering, None]:
        """The answer to the last question, again and again while it grows. Closing this frees its work."""
        self.stop(page, drop=True)
        answering = self._open[page] = Answering()
        answering.task = asyncio.create_task(self._pump(answering, messages, wishes))
        try:
            while not answering.task.done():
                waiting = asyncio.create_task(answering.news.wait())
                await asyncio.wait((waiting, answering.task), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                answering.news.clear()
                if not answering.is_dropped and not answering.task.done():
                    yield answering
                    await asyncio.wait((answering.task,), timeout=_NEWS_S)
            if not answering.is_dropped:
                yield answering
        finally:
            answering.stop()
            if self._open.get(page) is answering:
                del self._open[page]

    async def _pump(self, answering: Answering, messages: Sequence[Message], wishes: Wishes) -> None:
        async def make() -> ChatRequest:
            answering.request = await make_request(messages, wishes, self.album, self.service.limits)
            return answering.request

        try:
            async with aclosing(self.service.chat(make, "web")) as deltas:
                async for delta in deltas:
                    answering.hear(delta)
        except Exception as error:
            answering.error = explain(error)

    async def vote(self, messages: Sequence[Message], index: int, vote: str) -> None:
        """Writes what somebody thinks of the answer at ``index``, with the conversation up to there."""
        log = self.service.log
        if log is None or not 0 <= index < len(messages) or messages[index]["role"] != "assistant":
            return
        log.write(
            {
                "kind": "vote",
                "source": "web",
                "model": self.service.backend.model_id,
                "messages": [await self._describe(message) for message in messages[:index] if not is_notice(message)],
                "answer": read_message(messages[index])[0],
                "vote": vote,
            }
        )

    async def _describe(self, message: Message) -> dict[str, Any]:
        text, paths = read_message(message)
        parts: list[Any] = []
        for path in paths:
            try:
                parts.append({"sha256": (await self.album.load(path)).digest})
            except BadImage as error:
                parts.append({"error": str(error)})
        return {"role": message["role"], "parts": [*parts, text]}


def explain(error: Exception) -> str:
    """What went wrong as a sentence for the person at the page; our own faults are logged under the name it gives."""
    sentence = str(translate(error, f"web_{uuid.uuid4().hex[:12]}"))
    return f"{sentence} Or begin a new chat." if isinstance(error, ContextTooLong) else sentence


def describe_end(answering: Answering) -> str | None:
    """A sentence about how an answer ended, where the person should know."""
    if answering.error is not None:
        return f"The answer broke off. {answering.error}" if answering.text else answering.error
    if answering.reason == "length":
        return "The answer was cut: it reached the longest that the settings or the model's context allow."
    if answering.reason == "cancelled" and not answering.text:
        return "Stopped before the first word."
    if not answering.text:
        return "The model said nothing."
    return None
