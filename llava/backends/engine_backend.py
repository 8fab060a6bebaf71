"""This package's own engine, in this process, as a ``Backend``.

The engine's thread posts each piece to the event loop, so a slow client never blocks the engine. Closing a chat's
iterator cancels its requests, so their blocks are released after the step that is running.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from llava.backends.answerer import Answerer, TrimmedText
from llava.backends.preparation import Prepared, find_ends, image_slot, prepare, puts_images_first, read_out
from llava.backends.protocol import ChatRequest, Delta, FinishReason, TokenLogprob, Usage
from llava.backends.turns import write_conversation
from llava.conversation import Conversation, find_template
from llava.engine.engine import Engine
from llava.engine.grammar import GrammarCompiler
from llava.engine.sampler import SampledToken
from llava.engine.settings import EngineSettings
from llava.engine.stream import Piece, Stream
from llava.errors import EngineClosed
from llava.image.geometry import TilePlan, Tiling
from llava.image.source import LoadedImage
from llava.model.checkpoint import load_model
from llava.model.default_choice import DEFAULT_MODEL, name_default

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

_log = logging.getLogger(__name__)

# A failed engine is restarted at most once in this time.
RESTART_S = 1.0


class EngineBackend:
    """A model on this machine that answers many requests at once. See ``Backend``.

    Args:
        model: a loaded model, or what ``load_model`` takes, which ``start`` loads; None is the embedded model.
        model_id: what clients call it; by default its name without any folder.
        template: a name of ``conv_templates``; by default the checkpoint's own.
        loading: further arguments of ``load_model``.
        engine_settings: fields of ``EngineSettings``.

    Raises UsageError for an unknown template, and for engine settings out of range.
    """

    constrains_answers = True

    def __init__(
        self,
        model: LoadedModel | str | Path | None = None,
        *,
        model_id: str | None = None,
        template: str | None = None,
        loading: Mapping[str, Any] | None = None,
        **engine_settings: Any,
    ) -> None:
        self.model_id = model_id or name_model(model)
        self.context_tokens = 0  # known from ``start`` on
        self._model = model
        self._template = template
        self._loading = dict(loading or {})
        self._settings = EngineSettings(**engine_settings)
        self._answerer: Answerer | None = None
        self._decoder: _TokenDecoder | None = None
        self._grammars: GrammarCompiler | None = None
        self._next_restart, self._num_restarts = 0.0, 0
        if template is not None:
            find_template(template)

    async def start(self) -> None:
        """Loads the model and makes the engine. Raises CheckpointError and UsageError."""
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        model = self._model
        if model is None or isinstance(model, (str, Path)):
            model = load_model(DEFAULT_MODEL if model is None else model, **{"for_engine": True, **self._loading})
        answerer = Answerer(model, **vars(self._settings))
        _ = answerer.engine  # raises for a model that it cannot run
        if answerer.notice is not None:
            _log.warning(answerer.notice)
        self.context_tokens = model.context_tokens
        self._decoder = _TokenDecoder(model.tokenizer)
        _, stop_ids = find_ends(find_template(self._template or model.template), model)
        self._grammars = GrammarCompiler(model.tokenizer, stop_ids)
        self._answerer = answerer

    async def stop(self) -> None:
        """Closes the engine and ends all answers. Idempotent."""
        answerer, self._answerer = self._answerer, None
        if answerer is not None:
            await asyncio.to_thread(answerer.engine.close)

    async def is_ready(self) -> bool:
        """Whether the model is loaded and the engine runs."""
        try:
            return not self._ready().engine.is_closed
        except EngineClosed:
            return False

    @property
    def engine(self) -> Engine:
        """The engine. Raises EngineClosed before ``start``, after ``stop``, and until a failed one may restart."""
        return self._ready().engine

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What runs slower than it could, and why, as sentences; nothing before ``start`` and after ``stop``."""
        return () if self._answerer is None else self._answerer.engine.fallbacks

    @property
    def tiling(self) -> Tiling:
        """How it cuts images into tiles. Raises EngineClosed before ``start`` and after ``stop``."""
        return self._ready().loaded.spec.tiling

    def read_out(self, image: LoadedImage, plan: TilePlan) -> str:
        """What the tower wrote about an image, where it is one that writes, else "". Raises EngineClosed."""
        return read_out(self._ready().loaded, image, plan)

    def _ready(self) -> Answerer:
        """The answerer, with a new engine if the last one failed; at most one new engine in RESTART_S.

        Raises EngineClosed.
        """
        if self._answerer is None:
            raise EngineClosed("The model is not loaded. Try again later.")
        if self._answerer.engine.is_closed:
            if time.monotonic() < self._next_restart:
                raise EngineClosed("The engine failed and is being restarted. Try again later.")
            self._next_restart = time.monotonic() + RESTART_S
            self._num_restarts += 1
            self._answerer = Answerer(self._answerer.loaded, **vars(self._settings))
        return self._answerer

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """See ``Backend.chat``. Choice i of a request with a seed uses that seed plus i."""
        answerer = self._ready()
        prepared = await asyncio.to_thread(self._prepare, answerer, request)
        question = replace(answerer.make_question(prepared), salt=request.tenant)
        if request.response_format is not None:
            assert self._grammars is not None
            grammar = await asyncio.to_thread(self._grammars.compile, request.response_format)
            # The grammar ends the answer; the template's stop text may be part of the document.
            question = replace(question, grammar=grammar, stop_texts=())
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        choices = [_Choice() for _ in range(request.num_choices)]
        streams: list[Stream] = []
        try:
            for index in range(request.num_choices):
                sampling = question.sampling
                if sampling.seed is not None:
                    sampling = replace(sampling, seed=sampling.seed + index)
                on_piece = partial(_post, loop, pieces, index)
                streams.append(answerer.engine.submit(replace(question, sampling=sampling), on_piece))
            while any(choice.reason is None for choice in choices):
                index, piece = await pieces.get()
                delta = self._make_delta(choices[index], index, piece, prepared, raw=request.prompt is not None)
                if piece.result is not None:
                    is_short = question.sampling.max_new_tokens < request.sampling.max_new_tokens
                    cut_by = "context_length" if is_short else "max_tokens"
                    stop = piece.result.stop_text
                    why = cut_by if delta.finish_reason == "length" else stop if stop in sampling.stop else None
                    delta = replace(delta, stop_reason=why)
                if all(choice.reason for choice in choices):
                    delta = replace(delta, usage=_count_usage(prepared, streams))
                yield delta
        finally:
            for stream in streams:
                if stream.result is None:
                    stream.cancel()

    def _make_delta(self, choice: _Choice, index: int, piece: Piece, prepared: Prepared, *, raw: bool) -> Delta:
        """The engine's piece for the client. Raises the error that the answer failed with."""
        result, tokens = piece.result, piece.tokens
        if result is not None:
            if result.error is not None:
                if self._answerer is None or self._answerer.engine.is_closed:
                    raise EngineClosed("The engine failed while it answered. Try again.") from result.error
                raise result.error
            if result.reason == "cancelled":
                raise EngineClosed("The engine was closed before the answer ended.")
            choice.reason = "stop" if result.reason == "stop" else "length"
            if result.reason == "stop":  # an end token is not part of the answer
                tokens = tuple(one for one in tokens if one.token not in prepared.stop_ids)
        text = piece.text
        if not raw:
            before = len(choice.said.text)
            choice.said.append(text)
            text = choice.said.text[before:]
        assert self._decoder is not None
        logprobs = tuple(self._decoder.describe(one) for one in tokens if one.logprob is not None)
        return Delta(index, text, logprobs, choice.reason)

    def _prepare(self, answerer: Answerer, request: ChatRequest) -> Prepared:
        loaded = answerer.loaded
        conversation: Conversation | str
        if request.prompt is not None:
            conversation, sent = request.prompt, list(request.images)
        else:
            template = find_template(self._template or loaded.template)
            conversation, sent = write_conversation(
                request.messages, template, image_slot(loaded), images_first=puts_images_first(loaded)
            )
        sampling = replace(request.sampling, logprobs=request.top_logprobs)
        details = [one.detail for one in sent]
        return prepare(loaded, conversation, [one.loaded for one in sent], sampling, details=details)

    def count(self) -> Mapping[str, float]:
        """See ``Backend.count``; empty before ``start``."""
        if self._answerer is None:
            return {}
        stats = self._answerer.engine.stats()
        return {
            "requests_running": stats.num_running,
            "requests_waiting": stats.num_waiting,
            "kv_used_share": stats.blocks_used / stats.blocks,
            "requests_total": stats.num_finished,
            "failed_requests_total": stats.num_failed,
            "preemptions_total": stats.num_preemptions,
            "restarts_total": self._num_restarts,
            "steps_total": stats.num_steps,
            "prompt_tokens_total": stats.prompt_tokens,
            "cached_tokens_total": stats.cached_tokens,
            "generated_tokens_total": stats.new_tokens,
        }


def name_model(model: Any) -> str:
    """What clients call a model: a hub id as it is, or the last part of a folder's path."""
    if model is None:
        model = name_default()
    if not isinstance(model, (str, Path)):
        return "llava"
    name = Path(model).name if Path(model).is_dir() else str(model)
    return name.encode("utf-8", "backslashreplace").decode()  # a folder's name need not be text


@dataclass
class _Choice:
    """One choice of a request while it is answered."""

    said: TrimmedText = field(default_factory=TrimmedText)
    reason: FinishReason | None = None


def _post(loop: asyncio.AbstractEventLoop, pieces: asyncio.Queue[Any], index: int, piece: Piece) -> None:
    """Posts a piece from the engine's thread."""
    try:
        loop.call_soon_threadsafe(pieces.put_nowait, (index, piece))
    except RuntimeError:  # the event loop is closed, so every client has disconnected
        assert loop.is_closed()


def _count_usage(prepared: Prepared, streams: Sequence[Stream]) -> Usage:
    results = [stream.result for stream in streams if stream.result is not None]
    return Usage(
        prompt_tokens=prepared.prompt_tokens,
        completion_tokens=sum(result.new_tokens for result in results),
        image_tokens=sum(prepared.positions),
        cached_tokens=results[0].cached_tokens,
    )


class _TokenDecoder:
    """The texts of single tokens, with the spaces that they have in the middle of a text (see ``TokenLogprob``)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._anchor = list(tokenizer("a", add_special_tokens=False).input_ids)
        self._cache: dict[int, str] = {}

    def decode(self, token: int) -> str:
        """The token's text; bytes that are no whole character are surrogates, by ``surrogateescape``."""
        if token not in self._cache:
            before, both = self._decode(self._anchor), self._decode([*self._anchor, token])
            text = both[len(before) :] if both.startswith(before) else self._decode([token])
            if "\ufffd" in text:
                text = _decode_bytes(self._tokenizer.convert_ids_to_tokens(token), text)
            self._cache[token] = text
        return self._cache[token]

    def describe(self, sampled: SampledToken) -> TokenLogprob:
        """A sampled token with its log-probabilities, as text."""
        assert sampled.logprob is not None
        top = tuple((self.decode(token), logprob) for token, logprob in sampled.top)
        return TokenLogprob(self.decode(sampled.token), sampled.logprob, top)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _decode_bytes(piece: str, text: str) -> str:
    """The bytes that a vocabulary entry stands for; ``text`` for an entry that is not written as bytes."""
    byte = re.fullmatch("<0x([0-9A-F]{2})>", piece)  # sentencepiece's notation; below, GPT-2's
    values = {character: value for value, character in bytes_to_unicode().items()}
    if byte is not None:
        data = bytes.fromhex(byte[1])
    elif all(character in values for character in piece):
        data = bytes(values[character] for character in piece)
    else:
        return text
    return data.decode("utf-8", "surrogateescape")
