"""The web chat's conversations without their page: its messages become requests, answers become messages, votes lines.

A message is what Gradio's Chatbot shows: a role and a list of texts, written as HTML by ``markup``, and files. Beside
the user's and the model's there are notices, which say what went wrong; they are shown and never asked. A question that
was not answered, not even in part, stays where its author sees it, but no later question carries it along. No Gradio
here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import mimetypes
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llava.backends.protocol import ChatMessage, ChatRequest, Delta, Detail, FinishReason, SentImage, Usage
from llava.errors import BadImage, ContextTooLong, UsageError
from llava.image.source import LoadedImage
from llava.sampling import Sampling
from llava.serve import markup
from llava.serve.image_loader import ImageLoader
from llava.serve.limits import Limits
from llava.serve.refusals import over, translate
from llava.serve.service import Service

Message = Mapping[str, Any]

# What messages are beside a question or a whole answer, as their metadata says.
_NOTICE, _REFUSAL, _OPEN = "notice", "notice refusal", "open"
# What is asked about images that come without words.
_ABOUT_ONE, _ABOUT_SEVERAL = "Describe the image.", "Describe the images."
_BROKEN_OFF = "The answer broke off here: the server stopped, or this page was left or loaded again."
LOG = logging.getLogger("llava.serve")
# Files whose digests are known, for votes.
_DIGESTS = 10_000
# A page is told of news this often at most, and of longer answers less often: each time it gets and draws all of it.
_NEWS_S, _NEWS_CHARACTERS = 0.04, 20_000
# And so that showing it takes at most a fifth of the time.
_PAUSES = 4
# Of a chat that a browser brings back, answers beyond so many characters are shown without Markdown. More messages, or
# files beside what is typed, than any page comes to are not read at all.
_DRAWN_CHARACTERS, _KEPT_MESSAGES, _KEPT_FILES = 250_000, 2_000, 200
# What reading a text of a browser's as JSON, and its values as what they should be, may raise.
_NONSENSE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, OSError)


def write_question(text: str, paths: Sequence[str]) -> list[Message]:
    """The user's messages: one of images, if there are any, and one of what was typed, as it was typed.

    They are apart because Chatbot drops the files of a message whose text is edited.
    """
    files = [{"type": "file", "file": _describe_file(path), "alt_text": Path(path).name} for path in paths]
    texts = [{"type": "text", "text": markup.show_typed(text)}] if text else []
    return [{"role": "user", "content": parts} for parts in (files, texts) if parts]


def fill_in(text: str, paths: Sequence[str]) -> str:
    """What is asked: what was typed, or for images without words, what they show."""
    if text.strip() or not paths:
        return text
    return _ABOUT_ONE if len(paths) == 1 else _ABOUT_SEVERAL


def _describe_file(path: str) -> dict[str, Any]:
    return {"path": path, "mime_type": mimetypes.guess_type(path)[0], "orig_name": Path(path).name}


def write_answer(text: str, *, is_open: bool = False, is_plain: bool = False) -> Message:
    """The model's message. ``is_open``: there is more to come, and if nothing comes, it broke off."""
    message = _write(markup.show_answer(text, is_open=is_open, is_plain=is_plain))
    return {**message, "metadata": {"id": _OPEN}} if is_open else message


def write_notice(sentence: str, *, is_refusal: bool = False) -> Message:
    """Says something that is not the model's. A refusal stands in the place of an answer."""
    message = _write(markup.show_notice(sentence, is_refusal=is_refusal))
    return {**message, "metadata": {"id": _REFUSAL if is_refusal else _NOTICE}}


def _write(shown: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": shown}]}


def _kind(message: Message) -> str:
    return str((message.get("metadata") or {}).get("id", ""))


def is_notice(message: Message) -> bool:
    return _kind(message) in (_NOTICE, _REFUSAL)


def read_message(message: Message) -> tuple[str, list[str]]:
    """Its text as it was typed or said, and the paths of its files."""
    parts = message["content"]
    text = "\n".join(markup.read_text(part["text"]) for part in parts if part["type"] == "text")
    return text, [part["file"]["path"] for part in parts if part["type"] == "file"]


@dataclass(frozen=True)
class Turn:
    """A question with its images, and its answer; None where it was refused or is still to be answered."""

    question: str
    paths: tuple[str, ...]
    answer: str | None
    begin: int  # of its messages
    end: int


def find_turns(messages: Sequence[Message]) -> list[Turn]:
    """The turns in order. Images belong to the text below them; a notice ends a turn, if one is open."""
    turns: list[Turn] = []
    open_turn: Turn | None = None
    for index, message in enumerate(messages):
        text, paths = read_message(message)
        if message["role"] == "user":
            if open_turn is not None and open_turn.question:
                turns.append(open_turn)
                open_turn = None
            if open_turn is None:
                open_turn = Turn("", (), None, index, index)
            open_turn = replace(open_turn, question=text, paths=(*open_turn.paths, *paths), end=index + 1)
        elif open_turn is not None:
            turns.append(open_turn if is_notice(message) else replace(open_turn, answer=text, end=index + 1))
            open_turn = None
    return [*turns, open_turn] if open_turn is not None else turns


def find_turn(messages: Sequence[Message], index: int) -> Turn:
    """The turn of the message at ``index``, or the last one before it. Raises UsageError if there is none."""
    found = [turn for turn in find_turns(messages) if turn.begin <= index]
    if not found:
        raise UsageError("There is no question to go back to.")
    return found[-1]


def read_kept(kept: str, album: Album) -> list[Message]:
    """The messages of a conversation that a browser kept, as JSON, or none: a browser can say anything.

    Images that are no longer here are left out, which a notice says; so are refusals. An answer that had not ended is
    said to be broken off.
    """
    written: list[Message] = []
    gone: list[str] = []
    num_characters = 0
    try:
        for message in _read_list(json.loads(kept), _KEPT_MESSAGES):
            text, paths = read_message(message)
            num_characters += len(text)
            if message["role"] == "user":
                gone += [Path(path).name for path in paths if not album.holds(path)]
                written += write_question(text, [path for path in paths if album.holds(path)])
            elif _kind(message) == _NOTICE:
                written.append(write_notice(text))
            elif _kind(message) != _REFUSAL:
                is_plain = num_characters > _DRAWN_CHARACTERS
                written.append(write_answer(text, is_plain=is_plain))
                written += [write_notice(_BROKEN_OFF)] if _kind(message) == _OPEN else []
    except _NONSENSE:
        return []
    written = tidy(written)
    if gone:
        what, it = (f"{len(gone)} images of this chat are", "them") if gone[1:] else (f"The image {gone[0]} is", "it")
        written.append(
            write_notice(f"{what} no longer kept by the server. Attach {it} again to go on asking about {it}.")
        )
    return written


def read_draft(kept: str, album: Album) -> tuple[str, list[str]]:
    """What was typed and not sent, and its images, as a browser kept them."""
    try:
        draft = json.loads(kept)
        paths = [path for path in _read_list(draft["files"], _KEPT_FILES) if album.holds(path)]
        return markup.clean(draft["text"]), paths
    except _NONSENSE:
        return "", []


def read_settings(kept: str) -> tuple[list[float], Any]:
    """The numbers and the choice behind them that a browser kept, or none."""
    try:
        *numbers, choice = _read_list(json.loads(kept), _KEPT_FILES)
        return [float(number) for number in numbers], choice
    except _NONSENSE:
        return [], None


def _read_list(value: Any, most: int) -> list[Any]:
    """Raises ValueError if it is no list, or a longer one."""
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("not what a page kept")
    return value


def tidy(messages: Sequence[Message]) -> list[Message]:
    """Without the refusals of questions that are no longer there, and with answers that broke off said to be so."""
    tidied: list[Message] = []
    num_characters = 0
    for index, message in enumerate(messages):
        if _kind(message) == _OPEN:
            text = read_message(message)[0]
            num_characters += len(text)
            tidied.append(write_answer(text, is_plain=num_characters > _DRAWN_CHARACTERS))
            tidied.append(write_notice(_BROKEN_OFF))
        elif _kind(message) != _REFUSAL or (index > 0 and messages[index - 1]["role"] == "user"):
            tidied.append(message)
    return tidied


@dataclass(frozen=True)
class Wishes:
    """The page's settings."""

    temperature: float
    top_p: float
    max_new_tokens: int
    detail: Detail


class Album:
    """Images of uploaded files, which are saved by their digests if conversations are logged.

    ``folders``: a file elsewhere is refused, whoever names it. ``save_in``: None saves nothing.
    """

    def __init__(self, loader: ImageLoader, folders: Sequence[Path], save_in: Path | None = None) -> None:
        self._loader, self._save_in = loader, save_in
        self._folders = [folder.resolve() for folder in folders]
        self._digests: OrderedDict[str, str] = OrderedDict()
        self._failed = False

    async def load(self, paths: Sequence[str]) -> list[LoadedImage]:
        """The images of one request. Raises BadImage, and Refusal for what all take together."""
        files = [(Path(path).name, await asyncio.to_thread(self._read, Path(path))) for path in paths]
        images = await self._loader.load_files(files)
        for path, image in zip(paths, images, strict=True):
            self._digests[path] = image.digest
            if self._save_in is not None:
                await asyncio.to_thread(self._save, image, self._save_in)
        while len(self._digests) > _DIGESTS:
            self._digests.popitem(last=False)
        return images

    def holds(self, path: str) -> bool:
        """Whether there is such an image, in one of the folders."""
        place = Path(path).resolve()
        is_inside = any(place.is_relative_to(folder) for folder in self._folders)
        is_image = (mimetypes.guess_type(place.name)[0] or "").startswith("image/")
        return is_inside and is_image and place.is_file()

    def find_digest(self, path: str) -> str | None:
        """That of a file which was loaded before; None if it was too long ago."""
        return self._digests.get(path)

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

    def _save(self, image: LoadedImage, folder: Path) -> None:
        """Once for each digest, whole or not at all. A full disk costs the log, not the answer."""
        path = folder / f"{image.digest}.png"
        if path.exists():
            return
        part = folder / f"{image.digest}.{uuid.uuid4().hex}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                image.image.save(part, "PNG")
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            if not self._failed:
                LOG.error("%s cannot be written: %s. Images are not logged.", folder, error.strerror)
            self._failed = True


async def make_request(messages: Sequence[Message], wishes: Wishes, album: Album, limits: Limits) -> ChatRequest:
    """The last question with the answered ones before it. Raises Refusal for limits, BadImage and UsageError."""
    turns = find_turns(messages)
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
            raise over(name, getattr(limits, name), f"There are {number:,} {what}", "Begin a new chat.")
    if not turns[-1].question.strip():
        raise UsageError("Type a question.")
    sampling = Sampling(
        temperature=wishes.temperature,
        top_p=wishes.top_p,
        max_new_tokens=min(wishes.max_new_tokens, limits.new_tokens),
    )
    images = iter(await album.load([path for turn in carried for path in turn.paths]))
    written: list[ChatMessage] = []
    for turn in carried:
        shown = [SentImage(next(images), wishes.detail) for _ in turn.paths]
        written.append(ChatMessage("user", (*shown, turn.question)))
        if turn.answer is not None:
            written.append(ChatMessage("assistant", (turn.answer,)))
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
            self.news.set()

    async def end(self) -> None:
        """Ends it now, and returns when its work is freed."""
        while self.task is not None and not self.task.done():
            self.stop()  # again: up to Python 3.11, wait_for may swallow a cancellation
            await asyncio.wait((self.task,), timeout=_NEWS_S)

    def run_late(self, limit_s: float) -> None:
        self.error = str(over("answer_s", limit_s, "The answer took too long", "Ask for less, or later."))
        self.stop()

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
        self._last_vote: tuple[Any, ...] = ()

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
        if page in self._open:
            await self._open[page].end()  # its place is free for this one
        answering = self._open[page] = Answering()
        answering.task = asyncio.create_task(self._pump(answering, messages, wishes))
        limit_s = self.service.limits.answer_s
        timer = asyncio.get_running_loop().call_later(limit_s, answering.run_late, limit_s)
        try:
            while not answering.task.done() and answering.reason != "cancelled":
                waiting = asyncio.create_task(answering.news.wait())
                await asyncio.wait((waiting, answering.task), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                answering.news.clear()
                if answering.reason is None and not answering.task.done():
                    began = time.perf_counter()
                    yield answering
                    taken_s = time.perf_counter() - began
                    pause_s = max(_NEWS_S, len(answering.text) / _NEWS_CHARACTERS, _PAUSES * taken_s)
                    await asyncio.wait((answering.task,), timeout=pause_s)
            await answering.end()
            if not answering.is_dropped:
                yield answering
        finally:
            timer.cancel()
            await answering.end()
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

    def vote(self, page: str, messages: Sequence[Message], index: int, vote: str) -> None:
        """Writes what somebody thinks of the answer at ``index``, with the conversation up to there."""
        log = self.service.log
        if log is None:
            return
        turns = [turn for turn in find_turns(messages[: index + 1]) if turn.answer is not None]
        if not turns or turns[-1].end != index + 1:
            return  # a notice
        if self._last_vote == (cast := (page, index, turns[-1].answer, vote)):
            return  # Chatbot says some votes twice
        self._last_vote = cast
        said: list[dict[str, Any]] = []
        for turn in turns:
            shown = [{"sha256": self.album.find_digest(path)} for path in turn.paths]
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
    """What went wrong as a sentence for the person at the page; our own faults are logged under the name it gives."""
    sentence = str(translate(error, f"web_{uuid.uuid4().hex[:12]}"))
    return f"{sentence} Or begin a new chat." if isinstance(error, ContextTooLong) else sentence


def describe_end(answering: Answering) -> str | None:
    """A sentence about how an answer ended, where the person should know."""
    has_text = bool(answering.text.strip())
    if answering.error is not None:
        return f"The answer broke off. {answering.error}" if has_text else answering.error
    if answering.reason == "length":
        return _describe_length(answering)
    if answering.reason == "cancelled":
        return "You stopped the answer here." if has_text else "You stopped the answer before its first word."
    if not has_text:
        return "The model gave an empty answer. Ask in other words, or try again with a higher temperature."
    return None


def _describe_length(answering: Answering) -> str:
    request, usage = answering.request, answering.usage
    most = request.sampling.max_new_tokens if request is not None else None
    if most is None or usage is None:
        return "The answer was cut: it reached the longest that the settings or the model's context allow."
    if usage.completion_tokens < most:
        return "The answer was cut: this chat fills the model's context. Begin a new chat to ask more."
    return (
        f"The answer was cut after {most:,} tokens, the longest answer that the settings allow. "
        "Raise it there and try again, or ask the model to continue."
    )
