"""The engine: submit a question, stream its answer, cancel it. One loop in one thread.

The life of a request:

    1. ``submit`` refuses at once what could never run, and puts the request into the inbox.
    2. The loop hands it to the scheduler, where it waits in order of arrival.
    3. It is admitted: its longest cached prefix is looked up in the prefix tree, and blocks are allocated for the rest.
    4. Its images' tiles are encoded, unless their features are in the image-feature cache.
    5. Its prompt is prefilled, in one step or in chunks between the other requests' tokens.
    6. Each step samples its next token; text goes to its stream as soon as it is final. When no block is left it may
       be preempted: it waits again and continues at 3, with the tokens that it has.
    7. It ends by an end token, a stop text, its length, ``cancel`` or an error; its last piece carries the result.
    8. Its blocks stay in the prefix tree until they are evicted, so a next question about the same image starts late
       in 5.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from llava.engine.blocks import BlockPool
from llava.engine.feature_cache import ImageFeatureCache
from llava.engine.memory import plan_memory
from llava.engine.pace import Pace
from llava.engine.request import Request, State, fingerprint, position_keys
from llava.engine.run_ahead import RunAhead, forget_pending
from llava.engine.runner import Runner
from llava.engine.sampler import BadLogits, SampledToken, Sampler
from llava.engine.scheduler import Scheduler, Step
from llava.engine.settings import EngineSettings
from llava.engine.stream import Piece, Question, Result, Stream
from llava.errors import EngineClosed as EngineClosed
from llava.errors import EngineFull as EngineFull
from llava.errors import UsageError
from llava.prompt import TextStream

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

_log = logging.getLogger(__name__)

# An idle engine's thread ends after this, so that a model without other references can be freed.
IDLE_S = 1.0
# How many positions of recent images' features are kept.
FEATURE_POSITIONS = 16 * 2880


@dataclass
class _Answering:
    """What the loop knows of a request beyond its schedule."""

    stream: Stream
    question: Question
    sampler: Sampler
    text: TextStream
    stop_ids: frozenset[int]
    submitted: float
    started: float = 0.0
    first_token_s: float = 0.0
    cached_tokens: int | None = None


@dataclass
class Stats:
    """Totals since the engine was made, and the numbers of requests waiting and running and of blocks in use now."""

    num_waiting: int = 0
    num_running: int = 0
    num_finished: int = 0
    num_failed: int = 0
    num_preemptions: int = 0
    num_steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    blocks_used: int = 0
    blocks: int = 0


class _LoopState(Enum):
    """What the loop does next."""

    STEP = "step"
    IDLE = "idle"
    CLOSED = "closed"


class Engine:
    """Answers many questions with one model by continuous batching: each step runs all of them in one pass.

    Args:
        loaded: from ``load_model``.
        settings: fields of ``EngineSettings``.

    ``close`` cancels all requests; so does leaving it as a context manager. Raises UsageError for a model that it
    cannot run, and for settings out of range.
    """

    def __init__(self, loaded: LoadedModel, **settings: Any) -> None:
        self.loaded, self.settings = loaded, EngineSettings(**settings)
        block_tokens, is_rounded = self.settings.block_tokens, self.settings.arithmetic == "int8"
        memory = plan_memory(loaded, block_tokens, self.settings.memory_bytes)
        pool = BlockPool(memory.num_blocks, block_tokens)
        features = ImageFeatureCache(FEATURE_POSITIONS)
        max_running = self.settings.max_running
        self._scheduler = Scheduler(pool, features, max_running=max_running, tile_cost=memory.tile_cost)
        self._runner = Runner(
            loaded, features, memory.num_blocks, block_tokens, is_rounded, max_running, self.settings.record_s
        )
        self._ahead = RunAhead(self._scheduler, self._take_token)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._arrivals = itertools.count()
        self._num_open = 0
        self._lock = threading.Lock()
        self._closed = False
        self._pace = Pace(self.settings.stall_s, self.settings.max_step_positions, memory.tile_cost)
        self._stats = Stats(blocks=memory.num_blocks)
        self._thread: threading.Thread | None = None
        _engines.add(self)
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    @property
    def cache_tokens(self) -> int:
        """How many positions the KV cache holds."""
        return self._scheduler.pool.num_blocks * self._scheduler.pool.block_tokens

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What runs slower than it could, and why, as sentences."""
        return self._runner.fallbacks

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more questions, because it was closed or its loop failed."""
        return self._closed

    def submit(self, question: Question, on_piece: Callable[[Piece], None] | None = None) -> Stream:
        """The stream of the question's answer; with ``on_piece``, the pieces go there instead.

        ``on_piece`` is called in the engine's thread and must be quick; an error that it raises ends the answer. Safe
        to call from any thread.

        Raises:
            RequestTooLarge: prompt and new tokens exceed the KV cache.
            EngineFull: ``max_waiting`` requests wait already.
            EngineClosed: the engine was closed or failed.
            UsageError: images and slots disagree, or the question asks for beams.
        """
        request, stream = self._make_request(question, on_piece)
        self._scheduler.check(request)
        self._check_open()
        self._runner.cut_images(request.images)
        with self._lock:
            self._check_open()
            self._num_open += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="llava-engine", daemon=True)
                self._thread.start()
            if self._runner.has_new_weights():
                self._inbox.put(self._reset_cache)
            self._inbox.put(lambda: self._scheduler.add(request))
        return stream

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed("The engine is closed and takes no more questions.")
        if self._num_open >= self.settings.max_waiting + self.settings.max_running:
            raise EngineFull(f"The engine is full: {self._num_open} questions are running or waiting. Ask again later.")

    def reset_cache(self) -> None:
        """Drops the prefix tree and all image features: needed after weights changed unseen by torch (``.data``).

        Other changes of weights are detected when the next question is submitted.
        """
        self._inbox.put(self._reset_cache)

    def _reset_cache(self) -> None:
        self._scheduler.preempt_all()  # running requests start over: their blocks are of the old weights, too
        self._evict_all()
        self._runner.reload()

    def _evict_all(self) -> None:
        self._scheduler.pool.evict_all()
        self._scheduler.features.evict_all()

    def stats(self) -> Stats:
        """The statistics now, as a copy."""
        pool = self._scheduler.pool
        return Stats(
            **{
                **vars(self._stats),
                "num_waiting": len(self._scheduler.waiting),
                "num_running": len(self._scheduler.running),
                "blocks_used": pool.num_blocks - pool.num_available,
            }
        )

    def close(self) -> None:
        """Cancels all requests and ends the thread. Idempotent."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._inbox.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()

    def _make_request(self, question: Question, on_piece: Callable[[Piece], None] | None) -> tuple[Request, Stream]:
        num_slots = question.prompt.num_images
        if not num_slots == len(question.images) == len(question.plans):
            raise UsageError(
                f"The prompt has {num_slots} image slots, but {len(question.images)} images and "
                f"{len(question.plans)} plans were given."
            )
        images = [
            (plan, fingerprint(image.digest, f"{plan!r}{question.salt}"), image)
            for image, plan in zip(question.images, question.plans, strict=True)
        ]
        keys, spans = position_keys(question.prompt.input_ids, images, question.salt)
        sampling = question.sampling
        if sampling.temperature > 0 and sampling.seed is None:
            # From torch's global generator, so that torch.manual_seed makes answers reproducible, as for generate.
            sampling = replace(sampling, seed=int(torch.randint(2**62, (1,))))
        if sampling.num_beams > 1:
            raise UsageError(f"The engine has no beam search, but num_beams is {sampling.num_beams}.")
        text = TextStream(self.loaded.tokenizer, stop=(*question.stop_texts, *sampling.stop))
        sampler = Sampler(
            sampling,
            grammar=question.grammar.start() if question.grammar else None,
            processors=question.processors() if question.processors else None,
        )
        request = Request(next(self._arrivals), keys, spans, sampling.max_new_tokens)
        stream = Stream(partial(self._cancel, request), on_piece)
        stop_ids = frozenset(question.stop_ids)
        request.payload = _Answering(stream, question, sampler, text, stop_ids, time.perf_counter())
        return request, stream

    def _cancel(self, request: Request) -> None:
        self._inbox.put(lambda: self._finish(request, "cancelled"))

    def _loop(self) -> None:
        """Drains the inbox and runs steps, until ``close`` or until the engine has been idle for IDLE_S."""
        error: Exception | None = None
        try:
            while (state := self._drain_inbox()) is _LoopState.STEP:
                self._step()
            if state is _LoopState.IDLE:
                return  # the next submit starts a new thread
        except Exception as failure:  # a bug in the loop itself: no stream may wait for ever
            error = failure
        with self._lock:
            self._closed = True
        while not self._inbox.empty():
            item = self._inbox.get()
            if item is not None:
                item()
        for request in [*self._scheduler.running, *self._scheduler.waiting]:
            self._finish(request, "error" if error else "cancelled", error)
        if error is not None:
            raise error

    def _drain_inbox(self) -> _LoopState:
        """Runs what is in the inbox; while no request is left, waits up to IDLE_S for more."""
        while True:
            is_idle = self._scheduler.is_idle
            try:
                item = self._inbox.get(block=is_idle, timeout=IDLE_S if is_idle else None)
            except queue.Empty:
                if not is_idle:
                    return _LoopState.STEP
                with self._lock:
                    if self._inbox.empty():
                        self._thread = None
                        return _LoopState.IDLE
                continue
            self._ahead.settle()
            if item is None:
                return _LoopState.CLOSED
            item()

    def _step(self) -> None:
        """Plans and launches one step, and records its tokens; while it only decodes, those of the step before it."""
        scheduler, pace = self._scheduler, self._pace
        is_ahead = self._ahead.is_in_flight
        if is_ahead and not scheduler.is_steady:
            self._ahead.settle()
            return
        scheduler.tile_cost = max(1, round(pace.tile_cost))
        step = scheduler.plan(pace.find_budget(scheduler.num_decoding, scheduler.num_prompts))
        num_positions = step.num_prompt_positions
        self._record_starts(step)
        began = time.perf_counter()
        try:
            launched = self._runner.launch(step, _sampler_of)
            self._ahead.settle(launched)
            if self._ahead.leave(step, launched):
                self._stats.num_steps += 1
                if is_ahead:  # one step was launched and another one ended
                    pace.learn(0, 0, time.perf_counter() - began)
                return
            sampled = launched.wait()
        except Exception as error:
            self._ahead.settle()
            self._retry_apart(step, error)
            return
        pace.learn(num_positions, step.num_tiles, time.perf_counter() - began)
        self._record(step, sampled)

    def _retry_apart(self, step: Step, error: Exception) -> None:
        """Reruns a failed step one request at a time, so that only the requests that cannot run fail."""
        requests = [tiles.request for tiles in step.tile_chunks] + [chunk.request for chunk in step.chunks]
        if len(set(requests)) == 1:
            self._finish(requests[0], "error", error)
            return
        for tiles in step.tile_chunks:
            self._try(Step(tile_chunks=[tiles]), tiles.request)
        for chunk in step.chunks:
            self._try(Step(chunks=[chunk]), chunk.request)

    def _try(self, part: Step, request: Request) -> None:
        if request.state is not State.RUNNING:
            return
        for chunk in part.chunks:
            images = request.images_between(chunk.start, chunk.stop)
            if not all(self._scheduler.features.entry(image).is_ready for image in images):
                return  # encoding failed with another request; the next step encodes the image for this one
        try:
            sampled = self._runner.launch(part, _sampler_of).wait()
        except Exception as error:
            self._finish(request, "error", error)
            return
        self._record(part, sampled)

    def _record_starts(self, step: Step) -> None:
        for chunk in step.chunks:
            answering = chunk.request.payload
            if answering.cached_tokens is None:
                answering.cached_tokens, answering.started = chunk.start, time.perf_counter()
                self._stats.cached_tokens += chunk.start

    def _record(self, step: Step, sampled: dict[int, SampledToken | Exception]) -> None:
        """Books a computed step; ``sampled``: the new token or error of each request, by its arrival."""
        self._stats.num_steps += 1
        for chunk in step.chunks:
            self._scheduler.complete(chunk)
            if chunk.request.arrival in sampled:
                self._take_token(chunk.request, sampled[chunk.request.arrival])

    def _take_token(self, request: Request, token: SampledToken | Exception) -> None:
        """Appends a request's new token, or ends the request with the error."""
        if isinstance(token, Exception):
            self._finish(request, "error", token)
            if isinstance(token, BadLogits):  # its keys and values may be NaN too: no other request may reuse them
                self._evict_all()
            return
        try:
            self._append(request, token)
        except Exception as error:  # raised by the tokenizer or by on_piece: fails this request alone
            self._finish(request, "error", error)

    def _append(self, request: Request, token: SampledToken) -> None:
        """Appends a token to an answer and delivers the text that became final."""
        answering: _Answering = request.payload
        request.keys.append(token.token)
        if len(request.new_tokens) == 1:
            answering.first_token_s = time.perf_counter() - answering.submitted
        grammar = answering.sampler.grammar
        ended = "length" if grammar is not None and grammar.is_truncated else "stop"
        if token.token in answering.stop_ids:
            self._finish(request, ended, token=token)
            return
        text = answering.text.feed(token.token)
        if answering.text.stopped:
            self._finish(request, "stop", text=text, token=token)
        elif grammar is not None and grammar.is_complete:
            self._finish(request, ended, text=text, token=token)
        elif len(request.keys) == request.max_tokens:
            self._finish(request, "length", text=text, token=token)
        elif _has_timed_out(answering):
            self._finish(request, "time", text=text, token=token)
        else:
            answering.stream.put(Piece(text, (token,)))

    def _finish(
        self,
        request: Request,
        reason: str,
        error: Exception | None = None,
        text: str = "",
        token: SampledToken | None = None,
    ) -> None:
        """Ends a request: releases its blocks and delivers its last piece. Idempotent."""
        if request.state is State.FINISHED:
            return
        forget_pending(request)
        self._scheduler.finish(request)
        answering: _Answering = request.payload
        try:
            text += answering.text.finish(is_cut=reason != "stop")
        except Exception as failure:
            reason, error = "error", error or failure
        num_new = len(request.keys) - request.num_prompt
        stats = self._stats
        stats.num_finished += 1
        stats.num_failed += error is not None
        stats.num_preemptions += request.num_preemptions
        stats.prompt_tokens += request.num_prompt
        stats.new_tokens += num_new
        with self._lock:
            self._num_open -= 1
        result = Result(
            reason,
            error,
            request.num_prompt,
            answering.cached_tokens or 0,
            num_new,
            answering.first_token_s,
            time.perf_counter() - answering.submitted,
            answering.text.stop_text,
        )
        try:
            answering.stream.put(Piece(text, () if token is None else (token,), result))
        except Exception as failure:
            _log.error("on_piece raised an error for the last piece of an answer", exc_info=failure)


def _sampler_of(request: Request) -> Sampler:
    sampler: Sampler = request.payload.sampler
    return sampler


def _has_timed_out(answering: _Answering) -> bool:
    """Whether the answer has used up its ``max_time_s``."""
    max_time_s = answering.question.max_time_s
    return max_time_s is not None and time.perf_counter() - answering.started > max_time_s


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_all() -> None:
    """At interpreter exit: a thread that is still computing in torch then would abort the process."""
    for engine in list(_engines):
        engine.close()
