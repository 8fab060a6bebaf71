"""Our own engine in this process as a ``Backend``.

The engine's thread says each piece into the event loop; whoever reads it never holds the engine up. Closing a chat's
iterator cancels what is still open of it, so its blocks are free after the step that runs.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

from llava.backends.local import Local, Prepared, Speech, check_text, find_ends, image_slot
from llava.backends.protocol import ChatRequest, Delta, FinishReason, SentPicture, TokenLogprob, Usage
from llava.backends.turns import write_conversation
from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.engine.engine import Engine
from llava.engine.forms import Forms
from llava.engine.sampling import Choice
from llava.engine.stream import Piece, Stream
from llava.errors import ContextTooLong, EngineClosed, UsageError
from llava.image.geometry import TilePlan, Tiling, plan_images
from llava.model.checkpoint import load_model
from llava.model.generation import find_stop_strings
from llava.model.sources import DEFAULT_MODEL
from llava.prompt import Prompt, say_how_many_fit, tokenizer_image_token
from llava.sampling import Sampling

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

_log = logging.getLogger(__name__)

# A broken engine is made anew at most this often.
RESTART_S = 1.0


class Own:
    """A model on this machine, answering many at once.

    Args:
        model: a loaded model, or what ``load_model`` takes; that one is loaded by ``start``.
        model_id: what clients call it; by default its name without any folder.
        template: a name of ``conv_templates``; by default the checkpoint's own.
        loading: further arguments of ``load_model``.
        engine_settings: those of ``Engine``.
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
        self._engine_settings = engine_settings
        self._local: Local | None = None
        self._speller: _Speller | None = None
        self._forms: Forms | None = None
        self._next_restart, self._num_restarts = 0.0, 0
        if template is not None and template not in conv_templates:
            raise UsageError(
                f"There is no conversation template '{template}'. The names are: {', '.join(conv_templates)}."
            )

    async def start(self) -> None:
        """Loads the model and makes the engine. Raises CheckpointError and UsageError."""
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        model = self._model
        if model is None or isinstance(model, (str, Path)):
            model = load_model(model or DEFAULT_MODEL, **{"for_engine": True, **self._loading})
        local = Local(model, **self._engine_settings)
        _ = local.engine  # what it cannot run is refused here
        if local.notice is not None:
            _log.warning(local.notice)
        self.context_tokens = model.context_tokens
        self._speller = _Speller(model.tokenizer)
        self._forms = Forms(model.tokenizer, find_ends(conv_templates[self._template or model.template], model)[1])
        self._local = local

    async def stop(self) -> None:
        """Ends the engine and all answers. Again is harmless."""
        local, self._local = self._local, None
        if local is not None:
            await asyncio.to_thread(local.engine.close)

    async def is_ready(self) -> bool:
        """Whether the model is loaded and the engine runs."""
        try:
            return not self._ready().engine.is_closed
        except EngineClosed:
            return False

    @property
    def engine(self) -> Engine:
        """Raises EngineClosed before ``start`` and after ``stop``."""
        return self._ready().engine

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What runs slower than it could, and why, as sentences; nothing before ``start`` and after ``stop``."""
        return () if self._local is None else self._local.engine.fallbacks

    @property
    def tiling(self) -> Tiling:
        """How it cuts pictures. Raises EngineClosed before ``start`` and after ``stop``."""
        return self._ready().loaded.spec.tiling

    def _ready(self) -> Local:
        """Raises EngineClosed. An engine that broke is made anew, not more than once in RESTART_S."""
        if self._local is None:
            raise EngineClosed("The model is not loaded. Ask again later.")
        if self._local.engine.is_closed:
            if time.monotonic() < self._next_restart:
                raise EngineClosed("The engine broke and is being restarted. Ask again later.")
            self._next_restart = time.monotonic() + RESTART_S
            self._num_restarts += 1
            self._local = Local(self._local.loaded, **self._engine_settings)
        return self._local

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        """See ``Backend.chat``; choice i of a request with a seed is drawn with that seed plus i."""
        local = self._ready()
        prepared = await asyncio.to_thread(self._prepare, local, request)
        question = replace(local.make_question(prepared), salt=request.tenant)
        if request.response_format is not None:
            assert self._forms is not None
            form = await asyncio.to_thread(self._forms.make, request.response_format)
            # The form says where the answer ends; a template's closing text would be one that it may hold.
            question = replace(question, form=form, stop_texts=())
        loop = asyncio.get_running_loop()
        news: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        choices = [_Choosing() for _ in range(request.num_choices)]
        streams: list[Stream] = []
        try:
            for index in range(request.num_choices):
                sampling = question.sampling
                if sampling.seed is not None:
                    sampling = replace(sampling, seed=sampling.seed + index)
                hear = partial(_hear, loop, news, index)
                streams.append(local.engine.submit(replace(question, sampling=sampling), hear))
            while any(choice.reason is None for choice in choices):
                index, piece = await news.get()
                delta = self._tell(choices[index], index, piece, prepared, raw=request.prompt is not None)
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

    def _tell(self, choice: _Choosing, index: int, piece: Piece, prepared: Prepared, *, raw: bool) -> Delta:
        """A piece of the engine's as news for the client. Raises the error that the answer ended by."""
        result, chosen = piece.result, piece.choices
        if result is not None:
            if result.error is not None:
                if self._local is None or self._local.engine.is_closed:
                    raise EngineClosed("The engine broke while it answered. Ask again.") from result.error
                raise result.error
            if result.reason == "cancelled":
                raise EngineClosed("The engine was closed before the answer ended.")
            choice.reason = "stop" if result.reason == "stop" else "length"
            if result.reason == "stop":  # a token that only ends the answer says nothing
                chosen = tuple(one for one in chosen if one.token not in prepared.stop_ids)
        text = piece.text
        if not raw:
            said = len(choice.speech.text)
            choice.speech.say(text)
            text = choice.speech.text[said:]
        assert self._speller is not None
        logprobs = tuple(self._speller.describe(one) for one in chosen if one.logprob is not None)
        return Delta(index, text, logprobs, choice.reason)

    def _prepare(self, local: Local, request: ChatRequest) -> Prepared:
        sampling = replace(request.sampling, logprobs=request.top_logprobs)
        if request.prompt is not None:
            return _prepare_text(local, request, sampling)
        loaded = local.loaded
        template = conv_templates[self._template or loaded.template]
        conversation, sent = write_conversation(request.messages, template, image_slot(loaded))
        return local.prepare(conversation, [one.picture for one in sent], sampling, _plan(sent, loaded))

    def count(self) -> Mapping[str, float]:
        """The engine's counts; none before ``start``."""
        if self._local is None:
            return {}
        stats = self._local.engine.stats()
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
    """What clients call a model: a hub id as it is, of a folder the last part."""
    if model is None:
        return "embedded"
    if not isinstance(model, (str, Path)):
        return "llava"
    name = Path(model).name if Path(model).is_dir() else str(model)
    return name.encode("utf-8", "backslashreplace").decode()  # a folder's name need not be text


@dataclass
class _Choosing:
    """One choice on its way."""

    speech: Speech
    reason: FinishReason | None

    def __init__(self) -> None:
        self.speech, self.reason = Speech(None), None


def _hear(loop: asyncio.AbstractEventLoop, news: asyncio.Queue[Any], index: int, piece: Piece) -> None:
    """In the engine's thread."""
    try:
        loop.call_soon_threadsafe(news.put_nowait, (index, piece))
    except RuntimeError:  # the loop is closed: nobody listens any more
        assert loop.is_closed()


def _prepare_text(local: Local, request: ChatRequest, sampling: Sampling) -> Prepared:
    """A rendered prompt as the model takes it; it ends where the checkpoint's own end token comes."""
    loaded = local.loaded
    assert request.prompt is not None
    check_text(request.prompt, "prompt")
    ids = tuple(tokenizer_image_token(request.prompt, loaded.tokenizer))
    plans = _plan(request.pictures, loaded)
    num_slots = ids.count(IMAGE_TOKEN_INDEX)
    if num_slots != len(plans):
        raise UsageError(
            f"The prompt has {num_slots} {DEFAULT_IMAGE_TOKEN}, but there are {len(plans)} pictures. "
            "Each picture needs one place in the prompt."
        )
    if not ids:
        raise UsageError("The prompt is empty.")
    num_positions = len(ids) - num_slots + sum(plan.num_positions for plan in plans)
    if num_positions > loaded.context_tokens:
        remedy = say_how_many_fit(len(ids) - num_slots, [plan.num_positions for plan in plans], loaded.context_tokens)
        raise ContextTooLong(num_positions, loaded.context_tokens, remedy)
    sampling = sampling.within(loaded.context_tokens - num_positions)
    _, stop_ids = find_ends(conv_templates[loaded.template], loaded)
    pictures = [one.picture for one in request.pictures]
    stop_texts = find_stop_strings(loaded.model.generation_config)
    return Prepared(Prompt(ids, None, num_positions), pictures, plans, sampling, num_positions, stop_texts, stop_ids)


def _plan(sent: Sequence[SentPicture], loaded: LoadedModel) -> list[TilePlan]:
    return plan_images([one.picture.size for one in sent], loaded.spec.tiling, [one.detail for one in sent])


def _count_usage(prepared: Prepared, streams: Sequence[Stream]) -> Usage:
    results = [stream.result for stream in streams if stream.result is not None]
    return Usage(
        prompt_tokens=prepared.prompt_tokens,
        completion_tokens=sum(result.new_tokens for result in results),
        image_tokens=sum(plan.num_positions for plan in prepared.plans),
        cached_tokens=results[0].cached_tokens,
    )


class _Speller:
    """The texts of single tokens, with the blanks that they have in the middle of a text (see ``TokenLogprob``)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._anchor = list(tokenizer("a", add_special_tokens=False).input_ids)
        self._known: dict[int, str] = {}

    def spell(self, token: int) -> str:
        if token not in self._known:
            before, both = self._decode(self._anchor), self._decode([*self._anchor, token])
            text = both[len(before) :] if both.startswith(before) else self._decode([token])
            if "\ufffd" in text:
                text = _read_piece(self._tokenizer.convert_ids_to_tokens(token), text)
            self._known[token] = text
        return self._known[token]

    def describe(self, choice: Choice) -> TokenLogprob:
        assert choice.logprob is not None
        top = tuple((self.spell(token), logprob) for token, logprob in choice.top)
        return TokenLogprob(self.spell(choice.token), choice.logprob, top)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _read_piece(piece: str, text: str) -> str:
    """The bytes of a vocabulary's piece that is no whole characters; ``text`` for one that is not written in bytes."""
    byte = re.fullmatch("<0x([0-9A-F]{2})>", piece)  # sentencepiece's way, and below it GPT-2's
    values = {character: value for value, character in bytes_to_unicode().items()}
    if byte is not None:
        data = bytes.fromhex(byte[1])
    elif all(character in values for character in piece):
        data = bytes(values[character] for character in piece)
    else:
        return text
    return data.decode("utf-8", "surrogateescape")
