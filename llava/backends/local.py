"""A loaded model on this machine: through the engine, or where that cannot be through the model's own ``generate``.

A conversation is prepared once for both: the pictures' tiles are planned and the prompt is rendered with every image
position reserved, so a prompt that does not fit is refused before any pixel is touched.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers.generation import StoppingCriteria, StoppingCriteriaList

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation
from llava.engine.engine import Engine
from llava.engine.memory import check_beams
from llava.engine.runner import find_obstacle
from llava.engine.stream import Question, Stream
from llava.errors import LlavaError, Notice, UsageError
from llava.image.geometry import TilePlan, plan_images
from llava.image.pixels import make_pixels
from llava.image.source import Picture
from llava.model.generation import (
    describe_unfollowed,
    find_settings,
    find_stop_strings,
    make_processors,
    write_for_generate,
)
from llava.prompt import Prompt, TextStream, find_closings, render
from llava.sampling import Sampling
from llava.text import find_flaw

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel


_log = logging.getLogger(__name__)

# The model's own end (a token, its template's separator); a stop text that was asked for; and what cut it.
FinishReason = Literal["stop", "stop_string", "length", "context", "memory", "time"]

_CUT = {
    "length": "The answer was cut after {0}.",
    "context": "The answer was cut after {0}: with the prompt's {1} they fill the model's context.",
    "memory": "The answer was cut after {0}: with the prompt's {1} they fill the memory for keys and values.",
    "time": "The answer was cut after {0}: the checkpoint's max_time is over.",
}


@dataclass(frozen=True)
class Answer:
    """What the model said and what it took. Times are seconds from the call; positions count the merged prompt."""

    text: str
    prompt_tokens: int
    cut_tokens: int  # what the prompt lost at its right end; 0 unless the model cuts
    image_positions: tuple[int, ...]
    new_tokens: int
    finished: bool  # False: cut at max_new_tokens or at the end of the context
    first_token_s: float
    total_s: float
    finish_reason: FinishReason = "stop"
    stop_text: str | None = None  # where the reason is "stop_string"
    first_token: int | None = None

    def explain(self, tokenizer: Any = None) -> str | None:
        """A sentence for the person who asked, if the answer was cut or is empty; None for any other."""
        count = f"{self.new_tokens} token{'s' * (self.new_tokens != 1)}"
        cut = _CUT.get(self.finish_reason, "").format(count, self.prompt_tokens)
        if self.text:
            return cut or None
        if self.finish_reason == "stop_string":
            return f"The answer is empty: it began with the stop text {self.stop_text!r}."
        said = f"{count} of blanks, of special tokens or of one unfinished character"
        if cut:
            return f"{cut} It is empty so far: {said}. Allow more --max-new-tokens."
        if self.new_tokens <= 1 and self.first_token is not None:
            piece = "" if tokenizer is None else f", {tokenizer.convert_ids_to_tokens(self.first_token)!r}"
            said = f"the model ended it at once, with token {self.first_token}{piece}"
        remedy = "Ask in other words, see that --conv-mode is the model's, or give --min-new-tokens."
        return f"The answer is empty: {said}. {remedy}"


@dataclass(frozen=True)
class Prepared:
    """A conversation as the model takes it."""

    prompt: Prompt
    pictures: Sequence[Picture]
    plans: Sequence[TilePlan]
    sampling: Sampling  # its max_new_tokens fit the context
    prompt_tokens: int  # less than the prompt's positions if the model cuts
    stop_texts: Sequence[str]
    stop_ids: Sequence[int]
    limit: FinishReason = "length"  # what max_new_tokens stands for


# Of many conversations so many are asked at once: more than run, fewer than an engine lets wait.
MOST_TOGETHER = 256

_making = threading.Lock()


class Local:
    """Answers conversations with one loaded model; ``Local.of`` keeps one for each.

    ``engine_settings`` are those of ``Engine``, which is made when it is first needed.
    """

    def __init__(self, loaded: LoadedModel, **engine_settings: Any) -> None:
        self.loaded = loaded
        self._engine_settings = engine_settings
        self._engine: Engine | None = None
        self._told_obstacle: str | None = None

    @classmethod
    def of(cls, loaded: LoadedModel, **engine_settings: Any) -> Local:
        """The backend of this model, the same for every caller; the settings are those of the first."""
        with _making:
            kept: Local | None = loaded.backend
            if kept is None:
                kept = cls(loaded, **engine_settings)
                if kept.notice is not None:
                    warnings.warn(kept.notice, Notice, stacklevel=3)
                object.__setattr__(loaded, "backend", kept)  # lives as long as the model
            return kept

    @property
    def notice(self) -> str | None:
        """What of the checkpoint's generation settings is not followed, as a sentence; None where all is."""
        return describe_unfollowed(self.loaded.model.generation_config)

    @property
    def engine(self) -> Engine:
        """The engine. Raises UsageError for a model that it cannot run; logs what of it runs slower than it could."""
        with _making:
            if self._engine is None:
                self._engine = Engine(self.loaded, **self._engine_settings)
                for sentence in self._engine.fallbacks:
                    _log.warning(sentence)
            return self._engine

    def prepare(
        self,
        conversation: Conversation,
        pictures: Sequence[Picture],
        sampling: Sampling,
        plans: Sequence[TilePlan] | None = None,
    ) -> Prepared:
        """Plans the pictures, unless that was done, and renders the prompt.

        Raises UsageError when slots and pictures disagree, ContextTooLong when the prompt does not fit. A model whose
        config says ``truncate_to_model_max_length`` cuts it instead, on the right, as the original.
        """
        loaded = self.loaded
        if plans is None:
            plans = plan_images([picture.size for picture in pictures], loaded.spec.tiling)
        config = loaded.model.config
        cuts = getattr(config, "truncate_to_model_max_length", False)
        limit_tokens = None if cuts else loaded.context_tokens
        positions = [plan.num_positions for plan in plans]
        check_text(conversation.get_prompt())
        prompt = render(conversation, loaded.tokenizer, positions, limit_tokens=limit_tokens)
        longest = (cuts and getattr(config, "tokenizer_model_max_length", None)) or prompt.num_positions
        prompt_tokens = min(prompt.num_positions, longest)
        stop_texts, stop_ids = find_ends(conversation, loaded)
        asked = sampling.max_new_tokens
        sampling = sampling.within(loaded.context_tokens - prompt_tokens)
        limit: FinishReason = "length" if sampling.max_new_tokens == asked else "context"
        return Prepared(prompt, pictures, plans, sampling, prompt_tokens, stop_texts, stop_ids, limit)

    def answer(
        self,
        conversation: Conversation,
        pictures: Sequence[Picture],
        sampling: Sampling,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """The model's next message in ``conversation``, whose last message is the empty one to be filled.

        An exception in ``on_text`` (Ctrl-C too) ends the answer.
        """
        began = time.perf_counter()
        prepared = self.prepare(conversation, pictures, sampling)
        if not self._suits_engine(prepared):
            return self._generate(prepared, began, on_text)
        return self._listen(prepared, self._submit(prepared), began, on_text)

    def answer_all(self, asked: Iterable[tuple[Conversation, Sequence[Picture], Sampling]]) -> Iterator[Answer]:
        """The answers to many conversations in their order, computed together, MOST_TOGETHER at a time."""
        waiting: deque[tuple[Prepared, Stream | None, float]] = deque()

        def hear_first() -> Answer:
            prepared, stream, began = waiting[0]
            if stream is None:
                answer = self._generate(prepared, began, None)
            else:
                answer = self._listen(prepared, stream, began, None)
            waiting.popleft()
            return answer

        try:
            for conversation, pictures, sampling in asked:
                if len(waiting) == MOST_TOGETHER:
                    yield hear_first()
                began = time.perf_counter()
                prepared = self.prepare(conversation, pictures, sampling)
                stream = self._submit(prepared) if self._suits_engine(prepared) else None
                waiting.append((prepared, stream, began))
            while waiting:
                yield hear_first()
        finally:
            for _, stream, _ in waiting:
                if stream is not None:
                    stream.cancel()

    def _suits_engine(self, prepared: Prepared) -> bool:
        """Beams, cut prompts, and models of which parts were replaced go through ``generate``."""
        is_whole = prepared.prompt_tokens == prepared.prompt.num_positions
        obstacle = find_obstacle(self.loaded.model)
        if obstacle is not None and obstacle != self._told_obstacle:
            _log.warning("The model answers through generate, which is slower than the engine: %s.", obstacle)
            self._told_obstacle = obstacle
        return prepared.sampling.num_beams == 1 and is_whole and obstacle is None

    def _submit(self, prepared: Prepared) -> Stream:
        return self.engine.submit(self.make_question(prepared))

    def make_question(self, prepared: Prepared) -> Question:
        """What the engine is asked."""
        loaded, model = self.loaded, self.loaded.model
        # Where memory is short the answer may become shorter, as it does at the end of the context.
        sampling = prepared.sampling.within(self._count_room(prepared))
        if sampling.repetition_penalty is None:
            sampling = replace(sampling, repetition_penalty=model.generation_config.repetition_penalty)
        values = find_settings(model, sampling, loaded.tokenizer)
        arguments = (model, values, sampling, prepared.stop_ids, prepared.prompt_tokens)
        return Question(
            prepared.prompt,
            prepared.pictures,
            prepared.plans,
            sampling,
            prepared.stop_texts,
            prepared.stop_ids,
            processors=partial(make_processors, *arguments) if values else None,
            max_time_s=model.generation_config.max_time,
        )

    def _listen(
        self, prepared: Prepared, stream: Stream, began: float, on_text: Callable[[str], None] | None
    ) -> Answer:
        speech, first_token = Speech(on_text), None
        try:
            for piece in stream:
                if first_token is None and piece.choices:
                    first_token = piece.choices[0].token
                speech.say(piece.text)
        except torch.OutOfMemoryError as error:
            raise _no_memory(self.loaded, prepared) from error
        finally:
            stream.cancel()  # changes nothing if it ended by itself
        result = stream.result
        assert result is not None
        return Answer(
            text=speech.text,
            prompt_tokens=prepared.prompt_tokens,
            cut_tokens=0,
            image_positions=tuple(plan.num_positions for plan in prepared.plans),
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
                "Presence and frequency penalties cannot be had here: this model, or a prompt that is cut, goes "
                "through generate, which knows a repetition penalty alone."
            )
        check_beams(model, sampling.num_beams, prepared.prompt_tokens)
        # The input ids are what places the pictures; the merge inside the model puts their positions in their stead.
        input_ids = torch.tensor([prepared.prompt.input_ids], device=model.device)
        pixels = [
            make_pixels(picture.image, loaded.spec.tiling, loaded.image_processor, whole=plan.num_tiles == 1).to(
                model.device, model.dtype
            )
            for picture, plan in zip(prepared.pictures, prepared.plans, strict=True)
        ]
        stops = (*prepared.stop_texts, *sampling.stop)
        listener = _Listener(TextStream(loaded.tokenizer, stop=stops), Speech(on_text), began)
        values = find_settings(model, sampling, loaded.tokenizer)
        arguments = sampling.for_generate() | write_for_generate(model.generation_config, values)
        if sampling.num_beams == 1:
            arguments["stopping_criteria"] = StoppingCriteriaList([listener])
        elif own_stops := find_stop_strings(model.generation_config):
            arguments.update(stop_strings=own_stops, tokenizer=loaded.tokenizer)
        has_seed = sampling.seed is not None
        with torch.inference_mode(), torch.random.fork_rng(enabled=has_seed), warnings.catch_warnings():
            # That they count the answer's tokens alone is what is wanted.
            warnings.filterwarnings("ignore", "Passing `(repetition_penalty|no_repeat_ngram_size)` with")
            warnings.filterwarnings("ignore", "Unfeasible length constraints")  # the longest possible is what counts
            if has_seed:
                torch.manual_seed(sampling.seed)
            try:
                new_ids = model.generate(
                    input_ids,
                    images=pixels or None,
                    image_sizes=[tuple(picture.size) for picture in prepared.pictures] or None,
                    max_new_tokens=sampling.max_new_tokens,
                    eos_token_id=list(prepared.stop_ids) or None,
                    use_cache=True,
                    **arguments,
                )[0].tolist()
            except torch.OutOfMemoryError as error:
                raise _no_memory(loaded, prepared) from error
        listener.hear(new_ids)
        reason = _judge_end(prepared, new_ids, is_stopped=listener.stream.stopped)
        return Answer(
            text=listener.finish(is_cut=reason != "stop"),
            prompt_tokens=prepared.prompt_tokens,
            cut_tokens=prepared.prompt.num_positions - prepared.prompt_tokens,
            image_positions=tuple(plan.num_positions for plan in prepared.plans),
            new_tokens=len(new_ids),
            finished=reason == "stop",
            first_token_s=listener.first_token_s,
            total_s=time.perf_counter() - began,
            finish_reason=self._find_reason(prepared, reason, len(new_ids), listener.stream.stop_text),
            stop_text=listener.stream.stop_text,
            first_token=new_ids[0] if new_ids else None,
        )

    def _find_reason(self, prepared: Prepared, reason: str, new_tokens: int, stop_text: str | None) -> FinishReason:
        """Why an answer ended, to the user; ``reason``: to the engine."""
        if reason == "length":
            return prepared.limit if new_tokens >= prepared.sampling.max_new_tokens else "memory"
        asked_for = (*prepared.sampling.stop, *find_stop_strings(self.loaded.model.generation_config))
        if reason == "stop":
            return "stop_string" if stop_text in asked_for else "stop"
        return "time"

    def _count_room(self, prepared: Prepared) -> int:
        """How many new tokens fit into the cache; the last one needs no place."""
        return self.engine.cache_tokens - prepared.prompt_tokens + 1


def _judge_end(prepared: Prepared, new_ids: Sequence[int], *, is_stopped: bool) -> str:
    """Why ``generate`` ended: "stop", "length" or "time"."""
    if is_stopped or (new_ids and new_ids[-1] in prepared.stop_ids):
        return "stop"
    return "length" if len(new_ids) >= prepared.sampling.max_new_tokens else "time"


def check_text(text: str, what: str = "conversation") -> None:
    """Raises UsageError for what no tokenizer takes."""
    if (flaw := find_flaw(text)) is not None:
        raise UsageError(f"The {what} {flaw}.")


def image_slot(loaded: LoadedModel) -> str:
    """What stands for one picture in a prompt of this checkpoint: ``<image>``, in start and end marks if it has them.

    Source: haotian-liu/LLaVA@c121f04 llava/eval/run_llava.py.
    """
    if getattr(loaded.model.config, "mm_use_im_start_end", False):
        return DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN
    return DEFAULT_IMAGE_TOKEN


def find_ends(conversation: Conversation, loaded: LoadedModel) -> tuple[list[str], list[int]]:
    """The texts and the token ids that close an answer: what the checkpoint says and what the template does."""
    said = loaded.model.generation_config.eos_token_id
    if said is None or said == []:
        said = loaded.tokenizer.eos_token_id
    texts, ids = find_closings(conversation, loaded.tokenizer)
    texts += find_stop_strings(loaded.model.generation_config)
    return texts, list(dict.fromkeys([*([said] if isinstance(said, int) else said or ()), *ids]))


def _no_memory(loaded: LoadedModel, prepared: Prepared) -> LlavaError:
    return LlavaError(
        f"{loaded.model.device} has no memory left for {prepared.prompt_tokens} tokens and their answer. "
        "Use --dtype bfloat16, fewer or smaller pictures, or --device cpu."
    )


class Speech:
    """Text without blanks at its ends, said as it comes: a blank waits for what follows it."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self._on_text = on_text
        self._waiting = ""
        self.text = ""

    def say(self, piece: str) -> None:
        piece = self._waiting + piece
        if not self.text:
            piece = piece.lstrip()
        sure = piece.rstrip()
        self._waiting = piece[len(sure) :]
        self.text += sure
        if sure and self._on_text is not None:
            self._on_text(sure)


class _Listener(StoppingCriteria):
    """Hears each new token as a stopping criterion, so that the answer can end with the very token that ends it."""

    def __init__(self, stream: TextStream, speech: Speech, began: float) -> None:
        self.stream, self._speech = stream, speech
        self._began = began
        self._num_heard = 0
        self.first_token_s = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.hear(input_ids[0].tolist())
        return torch.full((input_ids.shape[0],), self.stream.stopped, dtype=torch.bool, device=input_ids.device)

    def hear(self, new_ids: list[int]) -> None:
        """Pass on what is new in the answer so far."""
        if self._num_heard == 0:
            self.first_token_s = time.perf_counter() - self._began
        self._speech.say(self.stream.feed(new_ids[self._num_heard :]))
        self._num_heard = len(new_ids)

    def finish(self, *, is_cut: bool) -> str:
        """The whole answer, after saying what the stream held back."""
        self._speech.say(self.stream.finish(is_cut=is_cut))
        return self._speech.text
