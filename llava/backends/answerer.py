"""Answers conversations with a model on this machine: through the engine, or else the model's own ``generate``.

A conversation is prepared once for both: the images' tiles are planned and the prompt is rendered with every image
position reserved, so that a prompt that does not fit is refused before any pixel is touched.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from llava.backends.preparation import Prepared, prepare
from llava.conversation import Conversation
from llava.engine.engine import Engine
from llava.engine.memory import check_beams
from llava.engine.runner import find_fallback_reason
from llava.engine.settings import EngineSettings
from llava.engine.stream import Question, Stream
from llava.errors import LlavaError, Notice, UsageError
from llava.image.pixels import make_pixels
from llava.image.source import LoadedImage
from llava.model.generation import (
    describe_unfollowed,
    find_settings,
    find_stop_strings,
    make_processors,
    write_for_generate,
)
from llava.prompt import TextStream
from llava.sampling import Sampling

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel


_log = logging.getLogger(__name__)

# The model's own end (an end token or its template's separator), a stop text that was asked for, or what cut it off.
FinishReason = Literal["stop", "stop_string", "length", "context", "memory", "time"]

_CUT = {
    "length": "The answer was cut after {0}.",
    "context": "The answer was cut after {0}: with the prompt's {1} they fill the model's context.",
    "memory": "The answer was cut after {0}: with the prompt's {1} they fill the KV cache.",
    "time": "The answer was cut after {0}: the checkpoint's max_time was reached.",
}


@dataclass(frozen=True)
class Answer:
    """An answer, and what it took. Times are seconds from the call; the prompt's tokens count every image position."""

    text: str
    prompt_tokens: int
    cut_tokens: int  # how many the prompt lost at its right end; 0 unless the checkpoint truncates
    image_positions: tuple[int, ...]
    new_tokens: int
    finished: bool  # False: cut by max_new_tokens, the context, memory or time
    first_token_s: float
    total_s: float
    finish_reason: FinishReason = "stop"
    stop_text: str | None = None  # set where finish_reason is "stop_string"
    first_token: int | None = None

    def explain(self, tokenizer: Any = None) -> str | None:
        """A sentence for the user, if the answer was cut or is empty; None for any other answer."""
        count = f"{self.new_tokens} token{'s' * (self.new_tokens != 1)}"
        cut = _CUT.get(self.finish_reason, "").format(count, self.prompt_tokens)
        if self.text:
            return cut or None
        if self.finish_reason == "stop_string":
            return f"The answer is empty: it began with the stop text {self.stop_text!r}."
        said = f"{count} of whitespace, of special tokens or of one incomplete character"
        if cut:
            return f"{cut} It is empty so far: {said}. Allow more --max-new-tokens."
        if self.new_tokens <= 1 and self.first_token is not None:
            piece = "" if tokenizer is None else f", {tokenizer.convert_ids_to_tokens(self.first_token)!r}"
            said = f"the model ended it at once, with token {self.first_token}{piece}"
        remedy = "Ask in other words, see that --conv-mode is the model's, or give --min-new-tokens."
        return f"The answer is empty: {said}. {remedy}"


# How many conversations ``answer_all`` submits ahead: more than run together, fewer than an engine lets wait.
MAX_SUBMITTED = 256

_lock = threading.Lock()
# By the ``id`` of each LoadedModel, until it is garbage-collected.
_answerers: dict[int, Answerer] = {}


class Answerer:
    """Answers conversations with one loaded model. ``Answerer.of`` keeps one for each model.

    ``settings``: fields of ``EngineSettings``, for the engine that is made when it is first needed. Raises UsageError
    for one out of range.
    """

    def __init__(self, loaded: LoadedModel, **settings: Any) -> None:
        self.loaded = loaded
        self.settings = EngineSettings(**settings)
        self._engine: Engine | None = None
        self._logged_reason: str | None = None

    @classmethod
    def of(cls, loaded: LoadedModel, **settings: Any) -> Answerer:
        """The answerer of this model, the same for every caller; it lives as long as ``loaded``.

        The first call's settings are in force. Raises UsageError for one that contradicts them; a setting that is left
        out, or None, contradicts nothing.
        """
        with _lock:
            kept = _answerers.get(id(loaded))
            if kept is None:
                # A copy: a reference to ``loaded`` itself from here would keep it alive for ever.
                kept = _answerers[id(loaded)] = cls(copy.copy(loaded), **settings)
                weakref.finalize(loaded, _answerers.pop, id(loaded), None).atexit = False
                if kept.notice is not None:
                    warnings.warn(kept.notice, Notice, stacklevel=3)
            elif conflict := kept.settings.find_conflict(EngineSettings(**settings), set(settings)):
                raise UsageError(f"{conflict}. Leave it out, or load the model again.")
            return kept

    @property
    def notice(self) -> str | None:
        """A sentence on the checkpoint's generation settings that are not followed; None if all are."""
        return describe_unfollowed(self.loaded.model.generation_config)

    @property
    def engine(self) -> Engine:
        """The engine. Raises UsageError for a model that it cannot run; logs which parts fall back to PyTorch."""
        with _lock:
            if self._engine is None:
                self._engine = Engine(self.loaded, **vars(self.settings))
                for sentence in self._engine.fallbacks:
                    _log.warning(sentence)
            return self._engine

    def prepare(self, conversation: Conversation, images: Sequence[LoadedImage], sampling: Sampling) -> Prepared:
        """See ``llava.backends.preparation.prepare``."""
        return prepare(self.loaded, conversation, images, sampling)

    def answer(
        self,
        conversation: Conversation,
        images: Sequence[LoadedImage],
        sampling: Sampling,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """The model's next message in ``conversation``, whose last message is the empty one to be filled.

        ``on_text`` gets each new piece of text; an exception in it (Ctrl-C too) ends the answer. Raises what
        ``prepare`` raises, and LlavaError where the device has no memory left.
        """
        began = time.perf_counter()
        prepared = self.prepare(conversation, images, sampling)
        if not self._suits_engine(prepared):
            return self._generate(prepared, began, on_text)
        return self._collect(prepared, self._submit(prepared), began, on_text)

    def answer_all(self, asked: Iterable[tuple[Conversation, Sequence[LoadedImage], Sampling]]) -> Iterator[Answer]:
        """The answers to (conversation, images, sampling) in their order, computed together.

        Conversations are read from ``asked`` at most MAX_SUBMITTED ahead. Raises what ``answer`` raises, when that
        conversation's turn comes.
        """
        waiting: deque[tuple[Prepared, Stream | None, float]] = deque()

        def finish_first() -> Answer:
            prepared, stream, began = waiting[0]
            if stream is None:
                answer = self._generate(prepared, began, None)
            else:
                answer = self._collect(prepared, stream, began, None)
            waiting.popleft()
            return answer

        try:
            for conversation, images, sampling in asked:
                if len(waiting) == MAX_SUBMITTED:
                    yield finish_first()
                began = time.perf_counter()
                prepared = self.prepare(conversation, images, sampling)
                stream = self._submit(prepared) if self._suits_engine(prepared) else None
                waiting.append((prepared, stream, began))
            while waiting:
                yield finish_first()
        finally:
            for _, stream, _ in waiting:
                if stream is not None:
                    stream.cancel()

    def _suits_engine(self, prepared: Prepared) -> bool:
        """Whether the engine can answer it: not beam search, truncated prompts, or models with replaced parts."""
        is_whole = prepared.prompt_tokens == prepared.prompt.num_positions
        reason = find_fallback_reason(self.loaded.model)
        if reason is not None and reason != self._logged_reason:
            _log.warning("The model answers through generate, which is slower than the engine: %s.", reason)
            self._logged_reason = reason
        return prepared.sampling.num_beams == 1 and is_whole and reason is None

    def _submit(self, prepared: Prepared) -> Stream:
        return self.engine.submit(self.make_question(prepared))

    def make_question(self, prepared: Prepared) -> Question:
        """The question for the engine."""
        loaded, model = self.loaded, self.loaded.model
        # Where the KV cache is smaller than the context, it limits the answer instead; the last token takes no place.
        sampling = prepared.sampling.fit(prepared.prompt_tokens, self.engine.cache_tokens + 1)
        if sampling.repetition_penalty is None:
            sampling = replace(sampling, repetition_penalty=model.generation_config.repetition_penalty)
        values = find_settings(model, sampling, loaded.tokenizer)
        arguments = (model, values, sampling, prepared.stop_ids, prepared.prompt_tokens)
        return Question(
            prepared.prompt,
            prepared.images,
            prepared.plans,
            sampling,
            prepared.stop_texts,
            prepared.stop_ids,
            processors=partial(make_processors, *arguments) if values else None,
            max_time_s=model.generation_config.max_time,
        )

    def _collect(
        self, prepared: Prepared, stream: Stream, began: float, on_text: Callable[[str], None] | None
    ) -> Answer:
        said, first_token = TrimmedText(on_text), None
        try:
            for piece in stream:
                if first_token is None and piece.tokens:
                    first_token = piece.tokens[0].token
                said.append(piece.text)
        except torch.OutOfMemoryError as error:
            raise _no_memory(self.loaded, prepared) from error
        finally:
            stream.cancel()  # does nothing if it has ended
        result = stream.result
        assert result is not None
        return Answer(
            text=said.text,
            prompt_tokens=prepared.prompt_tokens,
            cut_tokens=0,
            image_positions=prepared.positions,
            new_tokens=result.new_tokens,
            finished=result.reason == "stop",
            first_token_s=result.first_token_s,
            total_s=time.perf_counter() - began,
            finish_reason=self._find_reason(prepared, result.reason, result.new_tokens, result.stop_text),
            stop_text=result.stop_text,
            first_token=first_token,
        )

    def _generate(self, prepared: Prepared, began: float, on_text: Callable[[str], None] | None) -> Answer:
        """One answer through the model's own ``generate``."""
        loaded, model, sampling = self.loaded, self.loaded.model, prepared.sampling
        if sampling.presence_penalty or sampling.frequency_penalty:
            raise UsageError(
                "Presence and frequency penalties are not supported here: this model, or a truncated prompt, goes "
                "through generate, which has only a repetition penalty."
            )
        check_beams(model, sampling.num_beams, prepared.prompt_tokens)
        # The model replaces each slot of the input ids with the image's positions.
        input_ids = torch.tensor([prepared.prompt.input_ids], device=model.device)
        pixels = [
            make_pixels(image.image, plan, loaded.image_processor).to(model.device, model.dtype)
            if image.features is None
            else image.features
            for image, plan in zip(prepared.images, prepared.plans, strict=True)
        ]
        stops = (*prepared.stop_texts, *sampling.stop)
        streamer = _Streamer(TextStream(loaded.tokenizer, stop=stops), TrimmedText(on_text), began)
        values = find_settings(model, sampling, loaded.tokenizer)
        arguments = sampling.for_generate() | write_for_generate(model.generation_config, values)
        if sampling.num_beams == 1:
            arguments["stopping_criteria"] = StoppingCriteriaList([streamer])
        elif own_stops := find_stop_strings(model.generation_config):
            arguments.update(stop_strings=own_stops, tokenizer=loaded.tokenizer)
        has_seed = sampling.seed is not None
        with torch.inference_mode(), torch.random.fork_rng(enabled=has_seed), warnings.catch_warnings():
            # They warn that they count the answer's tokens alone, which is what is wanted.
            warnings.filterwarnings("ignore", "Passing `(repetition_penalty|no_repeat_ngram_size)` with")
            # Where the minimum exceeds the maximum, Transformers warns and takes the maximum.
            warnings.filterwarnings("ignore", "Unfeasible length constraints")
            if has_seed:
                torch.manual_seed(sampling.seed)
            try:
                new_ids = model.generate(
                    input_ids,
                    images=pixels or None,
                    image_sizes=[tuple(image.size) for image in prepared.images] or None,
                    max_new_tokens=sampling.max_new_tokens,
                    eos_token_id=list(prepared.stop_ids) or None,
                    use_cache=True,
                    **arguments,
                )[0].tolist()
            except torch.OutOfMemoryError as error:
                raise _no_memory(loaded, prepared) from error
        streamer.update(new_ids)
        reason = _judge_end(prepared, new_ids, is_stopped=streamer.stream.stopped)
        return Answer(
            text=streamer.finish(is_cut=reason != "stop"),
            prompt_tokens=prepared.prompt_tokens,
            cut_tokens=prepared.prompt.num_positions - prepared.prompt_tokens,
            image_positions=prepared.positions,
            new_tokens=len(new_ids),
            finished=reason == "stop",
            first_token_s=streamer.first_token_s,
            total_s=time.perf_counter() - began,
            finish_reason=self._find_reason(prepared, reason, len(new_ids), streamer.stream.stop_text),
            stop_text=streamer.stream.stop_text,
            first_token=new_ids[0] if new_ids else None,
        )

    def _find_reason(self, prepared: Prepared, reason: str, new_tokens: int, stop_text: str | None) -> FinishReason:
        """Why an answer ended, for the user; ``reason``: the engine's ``Result.reason``."""
        if reason == "length":
            return prepared.limit if new_tokens >= prepared.sampling.max_new_tokens else "memory"
        asked_for = (*prepared.sampling.stop, *find_stop_strings(self.loaded.model.generation_config))
        if reason == "stop":
            return "stop_string" if stop_text in asked_for else "stop"
        return "time"


def _judge_end(prepared: Prepared, new_ids: Sequence[int], *, is_stopped: bool) -> str:
    """Why ``generate`` ended: "stop", "length" or "time"."""
    if is_stopped or (new_ids and new_ids[-1] in prepared.stop_ids):
        return "stop"
    return "length" if len(new_ids) >= prepared.sampling.max_new_tokens else "time"


def _no_memory(loaded: LoadedModel, prepared: Prepared) -> LlavaError:
    return LlavaError(
        f"{loaded.model.device} has no memory left for {prepared.prompt_tokens} tokens and their answer. "
        "Use --dtype bfloat16, fewer or smaller images, or --device cpu."
    )


class TrimmedText:
    """Collects text without whitespace at its ends, while it streams: whitespace is held back until text follows it.

    ``on_text`` gets each piece that is final; ``text`` is all of them.
    """

    def __init__(self, on_text: Callable[[str], None] | None = None) -> None:
        self._on_text = on_text
        self._held_back = ""
        self.text = ""

    def append(self, piece: str) -> None:
        """Adds a piece of the untrimmed text."""
        piece = self._held_back + piece
        if not self.text:
            piece = piece.lstrip()
        final = piece.rstrip()
        self._held_back = piece[len(final) :]
        self.text += final
        if final and self._on_text is not None:
            self._on_text(final)


class _Streamer(StoppingCriteria):
    """Streams the text of ``generate``; a stopping criterion, so that the answer ends with the token that ends it."""

    def __init__(self, stream: TextStream, said: TrimmedText, began: float) -> None:
        self.stream, self._said = stream, said
        self._began = began
        self._num_seen = 0
        self.first_token_s = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.update(input_ids[0].tolist())
        return torch.full((input_ids.shape[0],), self.stream.stopped, dtype=torch.bool, device=input_ids.device)

    def update(self, new_ids: list[int]) -> None:
        """Delivers what is new in the answer so far."""
        if self._num_seen == 0:
            self.first_token_s = time.perf_counter() - self._began
        self._said.append(self.stream.feed(new_ids[self._num_seen :]))
        self._num_seen = len(new_ids)

    def finish(self, *, is_cut: bool) -> str:
        """The whole answer, after delivering what the stream held back."""
        self._said.append(self.stream.finish(is_cut=is_cut))
        return self._said.text
