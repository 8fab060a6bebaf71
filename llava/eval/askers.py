"""Who answers a benchmark's questions: a model on this machine, or any URL with OpenAI's chat completions API.

Both get questions one after the other and return their answers in the same order, computed together. A question that
fails is returned with its error, and the others go on.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from llava.data.records import StoredImage
from llava.errors import BadImage, EngineClosed, EngineFailed, EngineFull, LlavaError, UsageError
from llava.eval.task import ImageView, Question
from llava.image.decoding import TURNED
from llava.image.source import FOR_LOCAL_USER, Limits, LoadedImage, load_image
from llava.sampling import Sampling
from llava.text import fit_line, write_line

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

CONCURRENCY = 32  # requests to a URL at a time
MOST_ATTEMPTS = 6  # of a request to a server that is too busy, or whose connection breaks

_REJECTED = (401, 403)  # the key

AS_EVALUATED = replace(FOR_LOCAL_USER, draws_damaged=False)
"""Limits of a benchmark's images: a damaged one fails, as it does in the original, and is not asked about in part."""


@dataclass(frozen=True)
class Outcome:
    """A question's answer, or why there is none. ``is_cut``: it reached the most new tokens."""

    text: str | None
    error: str = ""
    is_cut: bool = False


class Asker(Protocol):
    """Answers questions; ``model_id`` is what the answers file calls the model."""

    model_id: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else its answers depend on, as JSON values."""
        ...

    def ask(self, questions: Iterable[Question]) -> Iterator[Outcome]:
        """The outcomes in the questions' order."""
        ...


class ImageReader:
    """Reads the images of questions, as the original does: not turned by their EXIF, unless their view is upright.

    Keeps the last ones.
    """

    def __init__(self, crop_px: int, limits: Limits = AS_EVALUATED) -> None:
        self._crop_px, self._limits = crop_px, limits
        self._kept: dict[Any, LoadedImage] = {}
        self._odd: dict[str, str] = {}  # how unusual images were read, by their names

    def say_odd(self) -> None:
        """Writes a line to standard error on the images that are not read as they are: frames, 16 bits."""
        if self._odd:
            name, note = next(iter(self._odd.items()))
            count = len(self._odd)
            others = f" There are {count:,} such images." if count > 1 else ""
            write_line(f"llava: {fit_line(name)}: {fit_line(note)}.{others}")

    def read(self, question: Question) -> list[LoadedImage]:
        """The question's images. Raises BadImage."""
        images = []
        for source in question.images:
            key = (source, question.view)
            if key not in self._kept:
                if len(self._kept) >= 8:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[key] = self._load(source, question.view)
            images.append(self._kept[key])
        return images

    def _load(self, source: Path | bytes | StoredImage, view: ImageView) -> LoadedImage:
        if not isinstance(source, Path | bytes):
            source = source.read()
        # It checks the file against the limits. What it turned upright is read again, as it is stored.
        loaded = load_image(source, self._limits)
        if notes := [note for note in loaded.notes if note != TURNED]:
            self._odd.setdefault(loaded.name, "; ".join(notes))
        image = loaded.image
        if TURNED in loaded.notes and view != "upright":
            image = _read_stored(source)
        if view == "center_crop":
            image = crop_center(image, self._crop_px)
        return loaded if image is loaded.image else replace(load_image(image, self._limits), name=loaded.name)


def _read_stored(source: Path | bytes) -> Image.Image:
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise BadImage(f"The image cannot be read: {error}.") from error


def crop_center(image: Image.Image, side_px: int) -> Image.Image:
    """The square in the middle, after the shorter side was resized to ``side_px``: CLIP's own preprocessing."""
    short = min(image.size)
    width, height = (int(side_px * side / short) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side_px) // 2, (height - side_px) // 2
    return resized.crop((left, top, left + side_px, top + side_px))


def _seed(question: Question, sampling: Sampling) -> Sampling:
    """Sampling whose dice are the question's own, so that a run that is resumed throws the same."""
    if sampling.temperature == 0 or sampling.seed is not None:
        return sampling
    digest = hashlib.sha256(repr(question.key).encode("utf-8", "backslashreplace")).digest()
    return replace(sampling, seed=int.from_bytes(digest[:4], "big") >> 1)


def choose_template(loaded: LoadedModel, published: str = "vicuna_v1") -> str:
    """The template of the checkpoint's published scores.

    LLaVA-1.5 and NeXT on Vicuna are asked in ``published``, whatever the original's chat chooses for them; other
    families in their own. Source: haotian-liu/LLaVA@c121f04 scripts/v1_5/eval.
    """
    return published if loaded.template == "llava_v1" else loaded.template


def describe_sampling(sampling: Sampling) -> dict[str, Any]:
    """The sampling parameters as JSON values."""
    return dict(vars(sampling))


def digest_files(folder: str | None) -> str:
    """A digest of a folder's files, by name, size and time; of a name alone if it is no folder here."""
    seen: list[Any] = [folder]
    if folder is not None and Path(folder).is_dir():
        files = sorted(path for path in Path(folder).iterdir() if path.is_file())
        seen += [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(seen).encode("utf-8", "backslashreplace")).hexdigest()[:16]


class LocalAsker:
    """Answers with a model on this machine, through the engine's continuous batching and prefix cache."""

    def __init__(
        self,
        loaded: LoadedModel,
        model_id: str,
        sampling: Sampling,
        template: str | None = None,
        *,
        model_path: str | None = None,
        limits: Limits = AS_EVALUATED,
    ) -> None:
        from llava.answer import start_conversation
        from llava.backends.answerer import Answerer

        template = template or choose_template(loaded)
        start_conversation(loaded, template)  # refuses an unknown template
        self.model_id = model_id
        self._loaded, self._template, self._sampling = loaded, template, sampling
        self.settings: dict[str, Any] = {
            "checkpoint": digest_files(model_path),
            "template": template,
            "image_aspect_ratio": str(loaded.spec.tiling.aspect),
            "dtype": str(loaded.model.dtype),
            "sampling": describe_sampling(sampling),
        }
        self._answerer = Answerer.of(loaded)
        crop = getattr(loaded.image_processor, "crop_size", None) or {}
        self._images = ImageReader(int(crop["height"]) if "height" in crop else 336, limits)

    def ask(self, questions: Iterable[Question]) -> Iterator[Outcome]:
        """See ``Asker``."""
        from llava.answer import write_chat

        failed: deque[str | None] = deque()  # one for each question that was read

        def prepare() -> Iterator[Any]:
            for question in questions:
                try:
                    images = self._images.read(question)
                    conversation = write_chat(self._loaded, [(question.text, len(images), None)], self._template)
                    sampling = _seed(question, self._sampling)
                    self._answerer.prepare(conversation, images, sampling)  # refuses what does not fit
                except LlavaError as error:
                    failed.append(str(error))
                    continue
                failed.append(None)
                yield conversation, images, sampling

        for answer in self._answerer.answer_all(prepare()):
            while (error := failed.popleft()) is not None:
                yield Outcome(None, error)
            yield Outcome(answer.text.strip(), is_cut=not answer.finished)
        yield from (Outcome(None, error) for error in failed if error is not None)
        self._images.say_odd()

    def close(self) -> None:
        """Does nothing: the model is the caller's."""


class UrlAsker:
    """Answers with the model behind a URL, several questions at a time; the prompt is written by its server.

    ``pause_s``: before a request is sent again, doubled each time.
    """

    def __init__(
        self,
        url: str,
        model: str | None,
        api_key: str | None,
        sampling: Sampling,
        crop_px: int = 336,
        *,
        pause_s: float = 1.0,
        limits: Limits = AS_EVALUATED,
    ) -> None:
        from llava.backends.remote import Remote

        self._sampling, self._pause_s = sampling, pause_s
        self._images = ImageReader(crop_px, limits)
        self._remote = Remote(url, model=model, api_key=api_key)
        self._chats: set[asyncio.Task[Outcome]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._run(self._remote.start()).result()
        except BaseException as error:
            self.close()
            if isinstance(error, LlavaError):
                raise _speak_of_eval(error) from error
            raise
        self.model_id = self._remote.model_id
        self.settings: dict[str, Any] = {"url": url, "sampling": describe_sampling(sampling)}

    def _run(self, work: Any) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def ask(self, questions: Iterable[Question]) -> Iterator[Outcome]:
        """See ``Asker``. Raises EngineClosed if the server cannot be reached, UsageError if it rejects the key."""
        waiting: deque[Future[Outcome] | Outcome] = deque()
        try:
            for question in questions:
                if len(waiting) == CONCURRENCY:
                    yield _wait(waiting.popleft())
                try:
                    images = self._images.read(question)
                except LlavaError as error:
                    waiting.append(Outcome(None, str(error)))
                else:
                    waiting.append(self._run(self._keep_chat(question, images)))
            while waiting:
                yield _wait(waiting.popleft())
            self._images.say_odd()
        finally:
            for one in waiting:
                if not isinstance(one, Outcome) and self._loop.is_running():  # else it is cancelled already
                    one.cancel()

    async def _keep_chat(self, question: Question, images: list[LoadedImage]) -> Outcome:
        chat = asyncio.ensure_future(self._chat(question, images))
        self._chats.add(chat)
        chat.add_done_callback(self._chats.discard)
        return await chat

    async def _chat(self, question: Question, images: list[LoadedImage]) -> Outcome:
        from llava.backends.protocol import ChatMessage, ChatRequest, SentImage

        parts: tuple[str | SentImage, ...] = (*(SentImage(image) for image in images), question.text)
        request = ChatRequest((ChatMessage("user", parts),), sampling=_seed(question, self._sampling))
        for attempt in range(MOST_ATTEMPTS):
            text, is_cut = "", False
            try:
                async for delta in self._remote.chat(request):
                    text += delta.text
                    is_cut |= delta.finish_reason == "length"
                return Outcome(text.strip(), is_cut=is_cut)
            except (EngineClosed, EngineFull) as error:
                if attempt + 1 < MOST_ATTEMPTS:
                    await asyncio.sleep(self._pause_s * 2**attempt)
                elif await self._remote.is_ready():  # the others may be answered
                    return Outcome(None, str(error))
                else:
                    raise
            except LlavaError as error:
                if isinstance(error, EngineFailed) and error.status in _REJECTED:
                    raise _speak_of_eval(error) from error
                return Outcome(None, str(error))
        raise AssertionError("the last attempt returns or raises")

    async def _cancel_chats(self) -> None:
        for chat in self._chats:
            chat.cancel()
        await asyncio.gather(*self._chats, return_exceptions=True)

    def close(self) -> None:
        """Cancels what is not answered yet, and closes its connections."""
        if self._loop.is_running():
            self._run(self._cancel_chats()).result()
            self._run(self._remote.stop()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _speak_of_eval(error: LlavaError) -> LlavaError:
    """The error of a server with this command's names in place of those of ``llava serve``."""
    text = str(error).replace("--engine-model", "--url-model").replace("LLAVA_ENGINE_KEY", "OPENAI_API_KEY")
    is_usage = isinstance(error, UsageError) or (isinstance(error, EngineFailed) and error.status in _REJECTED)
    return UsageError(text) if is_usage else type(error)(text)


def _wait(one: Future[Outcome] | Outcome) -> Outcome:
    return one if isinstance(one, Outcome) else one.result()
