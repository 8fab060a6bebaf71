"""Submit a question, read its answer as it comes, cancel it: the one loop, in one thread.

The life of a request:

    1. ``submit`` refuses at once what could never run, and puts the request into the inbox.
    2. The loop takes it over to the scheduler, where it waits for its turn.
    3. It begins: what the pool knows of its beginning is shared, and blocks for the rest of its prompt are taken.
    4. Its pictures' tiles are encoded, unless their features are still known.
    5. Its prompt is computed, in one step or in chunks between the others' tokens.
    6. Each step chooses its next token; text goes to its stream as soon as it is certain. If blocks run out it may be
       preempted: it waits again and begins at 3, with the tokens it has.
    7. It ends by an end token, a stop text, its length, ``cancel`` or an error: its last piece carries the result.
    8. Its blocks stay known until others need them, so a next question on the same picture begins late in 5.
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
from typing import TYPE_CHECKING, Any

import torch

from llava.engine.blocks import BlockPool
from llava.engine.features import FeatureStore
from llava.engine.memory import plan_memory
from llava.engine.request import Request, State, fingerprint, position_keys
from llava.engine.runner import Runner
from llava.engine.sampling import BadScores, Choice, Chooser, choose_all
from llava.engine.scheduler import Chunk, Scheduler, Step
from llava.engine.stream import Piece, Question, Result, Stream
from llava.errors import EngineClosed as EngineClosed
from llava.errors import EngineFull as EngineFull
from llava.errors import UsageError
from llava.prompt import TextStream

if TYPE_CHECKING:
    from llava.model.checkpoint import LoadedModel

_log = logging.getLogger(__name__)

BLOCK_TOKENS = 16
MAX_RUNNING = 64
MAX_WAITING = 1024
# How long a prompt may keep the others' next tokens waiting.
STALL_S = 0.25
# An idle engine's thread ends after this, so that a model nobody refers to can be let go.
IDLE_S = 1.0
# Positions of one step where nobody waits for a token: bounds the memory of activations.
MOST_POSITIONS = 4096
# Recent pictures' features that are kept, in positions.
FEATURE_POSITIONS = 16 * 2880


@dataclass
class _Answering:
    """What the loop knows of one request beyond its schedule."""

    stream: Stream
    question: Question
    chooser: Chooser
    text: TextStream
    stop_ids: frozenset[int]
    submitted: float
    begun: float = 0.0
    first_token_s: float = 0.0
    cached_tokens: int | None = None


@dataclass
class Stats:
    """Counts since the engine began, and how many requests are where now."""

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


class _Going(Enum):
    """What the loop does next."""

    ON = "on"
    IDLE = "idle"
    CLOSED = "closed"


@dataclass
class _Pace:
    """Seconds per position of prompt, as measured, to keep a step within the time that others may wait."""

    seconds: float | None = None

    def learn(self, num_positions: float, seconds: float) -> None:
        if num_positions < 8:
            return  # a pass over the weights, not the positions, is what took the time
        new = seconds / num_positions
        self.seconds = new if self.seconds is None else 0.7 * self.seconds + 0.3 * new


class Engine:
    """Answers many questions with one model, each token of all of them in one pass.

    Args:
        loaded: from ``load_model``.
        memory_bytes: for keys and values; None finds what the machine can spare.
        max_running, max_waiting: requests; one more than may wait is refused.
        stall_s: how long a prompt may keep the other answers' next token waiting.
        block_tokens: positions in a block of the cache.
        arithmetic: "exact", or "int8": prompts' products with matrices in 8 or 4 bits are computed in integers of 8
            bits, several times faster, where the compiled library is there.

    Closing ends all requests. A context manager closes at its end.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        memory_bytes: int | None = None,
        max_running: int = MAX_RUNNING,
        max_waiting: int = MAX_WAITING,
        stall_s: float = STALL_S,
        block_tokens: int = BLOCK_TOKENS,
        most_positions: int = MOST_POSITIONS,
        arithmetic: str = "exact",
    ) -> None:
        if min(max_running, block_tokens) < 1 or max_waiting < 0:
            raise UsageError(
                f"An engine with {max_running} requests that run, {max_waiting} that wait and blocks of {block_tokens} "
                "positions answers nothing; at least one has to run, and a block has to hold one."
            )
        self.loaded = loaded
        self.max_waiting, self.stall_s, self.most_positions = max_waiting, stall_s, most_positions
        memory = plan_memory(loaded, block_tokens, memory_bytes)
        pool = BlockPool(memory.num_blocks, block_tokens)
        features = FeatureStore(FEATURE_POSITIONS)
        self._scheduler = Scheduler(pool, features, max_running=max_running, tile_cost=memory.tile_cost)
        if arithmetic not in ("exact", "int8"):
            raise UsageError(f"The arithmetic is {arithmetic!r}; it can be exact or int8.")
        self._runner = Runner(loaded, features, memory.num_blocks, block_tokens, arithmetic == "int8")
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._arrivals = itertools.count()
        self._num_open = 0
        self._lock = threading.Lock()
        self._closed = False
        self._pace = _Pace()
        self._stats = Stats(blocks=memory.num_blocks)
        self._thread: threading.Thread | None = None
        _engines.add(self)
        atexit.unregister(_close_all)
        atexit.register(_close_all)

    @property
    def cache_tokens(self) -> int:
        """How many positions the cache holds."""
        return self._scheduler.pool.num_blocks * self._scheduler.pool.block_tokens

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """What runs slower than it could, and why, as sentences."""
        return self._runner.fallbacks

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more questions: it was closed, or broke."""
        return self._closed

    def submit(self, question: Question, on_piece: Callable[[Piece], None] | None = None) -> Stream:
        """Takes a question; its answer comes through the stream, or piece by piece to ``on_piece``.

        ``on_piece`` is called in the engine's thread and must be quick; an error that it raises ends the answer.

        Raises:
            RequestTooLarge: prompt and new tokens exceed the cache. EngineFull: too many wait. EngineClosed.
        """
        request, answering = self._make_request(question, on_piece)
        with self._lock:
            if self._closed:
                raise EngineClosed("The engine is closed and takes no more questions.")
            if self._num_open >= self.max_waiting + self._scheduler.max_running:
                raise EngineFull(
                    f"{self._num_open} questions are being answered or wait, and no more are taken. Ask again later."
                )
            self._scheduler.check(request)
            self._num_open += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="llava-engine", daemon=True)
                self._thread.start()
            if self._runner.has_new_weights():
                self._inbox.put(self._forget)
            self._inbox.put(lambda: self._scheduler.add(request))
        return answering.stream

    def forget(self) -> None:
        """Forgets all keys, values and features: of use after the weights were changed behind torch's back (``.data``).

        Other changes are noticed when the next question is submitted.
        """
        self._inbox.put(self._forget)

    def _forget(self) -> None:
        self._scheduler.preempt_all()  # those that run too: nothing of the old weights may be found by the next
        self._scheduler.pool.forget_all()
        self._scheduler.features.forget_all()
        self._runner.reload()

    def stats(self) -> Stats:
        """A copy of the counts."""
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
        """Ends all answers as cancelled, and the thread."""
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

    def _make_request(self, question: Question, on_piece: Callable[[Piece], None] | None) -> tuple[Request, _Answering]:
        num_slots = question.prompt.num_images
        if not num_slots == len(question.pictures) == len(question.plans):
            raise UsageError(
                f"The prompt has {num_slots} image slots, but {len(question.pictures)} pictures and "
                f"{len(question.plans)} plans were given."
            )
        pictures = [
            (plan.num_positions, plan.num_tiles, fingerprint(picture.digest, f"{plan!r}{question.salt}"), picture)
            for picture, plan in zip(question.pictures, question.plans, strict=True)
        ]
        keys, spans = position_keys(question.prompt.input_ids, pictures, question.salt)
        sampling = question.sampling
        if sampling.temperature > 0 and sampling.seed is None:
            # From torch's own numbers, so that torch.manual_seed makes answers repeatable, as it does for generate.
            sampling = replace(sampling, seed=int(torch.randint(2**62, (1,))))
        if sampling.num_beams > 1:
            raise UsageError(f"The engine does not search with beams, but num_beams is {sampling.num_beams}.")
        stream = Stream(self, on_piece)
        text = TextStream(self.loaded.tokenizer, stop=(*question.stop_texts, *sampling.stop))
        stop_ids = frozenset(question.stop_ids)
        chooser = Chooser(
            sampling,
            form=question.form.begin() if question.form else None,
            processors=question.processors() if question.processors else None,
        )
        answering = _Answering(stream, question, chooser, text, stop_ids, time.perf_counter())
        request = Request(next(self._arrivals), keys, spans, sampling.max_new_tokens, answering)
        stream.request = request
        return request, answering

    def _cancel(self, stream: Stream) -> None:
        request = stream.request
        assert request is not None

        self._inbox.put(lambda: self._finish(request, "cancelled"))

    def _loop(self) -> None:
        """Takes in what came and computes steps, until ``close``, or until nobody has asked for a while."""
        error: Exception | None = None
        try:
            while (going := self._take_in()) is _Going.ON:
                self._step()
            if going is _Going.IDLE:
                return  # the next submit starts a new thread
        except Exception as broken:  # an error of this file's own: nobody may wait for ever
            error = broken
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

    def _take_in(self) -> _Going:
        """Carries out what is in the inbox, waiting a while for something if nobody runs."""
        while True:
            is_idle = self._scheduler.is_idle
            try:
                item = self._inbox.get(block=is_idle, timeout=IDLE_S if is_idle else None)
            except queue.Empty:
                if not is_idle:
                    return _Going.ON
                with self._lock:
                    if self._inbox.empty():
                        self._thread = None
                        return _Going.IDLE
                continue
            if item is None:
                return _Going.CLOSED
            item()

    def _step(self) -> None:
        """Plans, runs and books one step."""
        scheduler = self._scheduler
        step = scheduler.plan(self._budget())
        self._note_cached(step)
        began = time.perf_counter()
        try:
            scores = self._runner.run(step)
        except Exception as error:
            self._run_apart(step, error)
            return
        giving = [chunk for chunk in step.chunks if chunk.gives_token]
        choices = choose_all(scores, [chunk.request.payload.chooser for chunk in giving]) if giving else []
        self._pace.learn(step.num_positions + step.num_tiles * scheduler.tile_cost, time.perf_counter() - began)
        self._book(step, dict(zip((chunk.request.arrival for chunk in giving), choices, strict=True)))

    def _budget(self) -> int:
        if not self._scheduler.num_decoding:
            return self.most_positions
        if self._pace.seconds is None:
            return 64
        return max(1, min(self.most_positions, int(self.stall_s / self._pace.seconds)))

    def _run_apart(self, step: Step, error: Exception) -> None:
        """A step failed: each request of it alone, so that only those fail that cannot be run."""
        requests = [encode.request for encode in step.encodes] + [chunk.request for chunk in step.chunks]
        if len(set(requests)) == 1:
            self._finish(requests[0], "error", error)
            return
        for encode in step.encodes:
            self._try(Step(encodes=[encode]), encode.request)
        for chunk in step.chunks:
            self._try(Step(chunks=[chunk]), chunk.request)

    def _try(self, part: Step, request: Request) -> None:
        if request.state is not State.RUNNING:
            return
        for chunk in part.chunks:
            pictures = request.pictures_between(chunk.start, chunk.stop)
            if not all(self._scheduler.features.entry(picture).is_ready for picture in pictures):
                return  # they failed with the request that was to encode them; the next step tries it for this one
        try:
            scores = self._runner.run(part)
        except Exception as error:
            self._finish(request, "error", error)
            return
        choices = {}
        if part.chunks and part.chunks[0].gives_token:
            choices[request.arrival] = choose_all(scores, [request.payload.chooser])[0]
        self._book(part, choices)

    def _note_cached(self, step: Step) -> None:
        for chunk in step.chunks:
            answering = chunk.request.payload
            if answering.cached_tokens is None:
                answering.cached_tokens, answering.begun = chunk.start, time.perf_counter()
                self._stats.cached_tokens += chunk.start

    def _book(self, step: Step, choices: dict[int, Choice | Exception]) -> None:
        self._stats.num_steps += 1
        for chunk in step.chunks:
            self._scheduler.complete(chunk)
            choice = choices.get(chunk.request.arrival)
            if isinstance(choice, Exception):
                self._finish(chunk.request, "error", choice)
                if isinstance(choice, BadScores):  # what it computed may be no numbers either, and serves nobody else
                    self._scheduler.pool.forget_all()
                    self._scheduler.features.forget_all()
            elif choice is not None:
                try:
                    self._say(chunk, choice)
                except Exception as error:  # of the tokenizer, or of who listens: no business of the others
                    self._finish(chunk.request, "error", error)

    def _say(self, chunk: Chunk, choice: Choice) -> None:
        """Adds a token to an answer and hands on the text that became certain."""
        request = chunk.request
        answering: _Answering = request.payload
        request.keys.append(choice.token)
        if len(request.new_tokens) == 1:
            answering.first_token_s = time.perf_counter() - answering.submitted
        form = answering.chooser.form
        ended = "length" if form is not None and form.is_cut else "stop"
        if choice.token in answering.stop_ids:
            self._finish(request, ended, choice=choice)
            return
        text = answering.text.feed(choice.token)
        if answering.text.stopped:
            self._finish(request, "stop", text=text, choice=choice)
        elif form is not None and form.is_complete:
            self._finish(request, ended, text=text, choice=choice)
        elif len(request.keys) == request.most_tokens:
            self._finish(request, "length", text=text, choice=choice)
        elif _is_over(answering):
            self._finish(request, "time", text=text, choice=choice)
        else:
            answering.stream._put(Piece(text, (choice,)))

    def _finish(
        self,
        request: Request,
        reason: str,
        error: Exception | None = None,
        text: str = "",
        choice: Choice | None = None,
    ) -> None:
        """Ends a request, unless it has ended: what it held is free, and the last piece of its stream is out."""
        if request.state is State.FINISHED:
            return
        self._scheduler.finish(request)
        answering: _Answering = request.payload
        try:
            text += answering.text.finish(is_cut=reason != "stop")
        except Exception as broken:
            reason, error = "error", error or broken
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
            answering.stream._put(Piece(text, () if choice is None else (choice,), result))
        except Exception as broken:
            _log.error("whoever listens to an answer raised an error at its end", exc_info=broken)


def _is_over(answering: _Answering) -> bool:
    """Whether the answer has taken all the time that it may."""
    most_s = answering.question.max_time_s
    return most_s is not None and time.perf_counter() - answering.begun > most_s


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _close_all() -> None:
    """At the process's end: a thread that computes then would end it with an abort."""
    for engine in list(_engines):
        engine.close()
