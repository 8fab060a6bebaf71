"""Who goes next: which positions of which requests one step computes. Integers only, no torch.

A step first gives every decoding request its next token, oldest first, then goes on with prompts, oldest first, until
its budget is spent, and only then begins waiting requests, in the order of their arrival. A prompt is cut into chunks
where the budget ends, and a picture into tiles, so a long one delays the others' tokens by one budget at most.

When the blocks are used up, the youngest running request is preempted: it loses its table and waits again, in its old
place. Requests that would begin alike in one step begin one after another, so that the second finds the first's blocks.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import NamedTuple

from llava.engine.blocks import BlockPool, OutOfBlocks, common_length
from llava.engine.features import FeatureStore
from llava.engine.request import Copy, PictureSpan, Request, State
from llava.errors import RequestTooLarge as RequestTooLarge

# What is left of a step's budget for a prompt has to be worth a pass over the weights.
MIN_CHUNK = 16
# A request waits for another's prompt if that saves it this many positions.
SHARE_WORTH = 64


class Encode(NamedTuple):
    """Tiles ``start`` to ``stop`` of a picture, to be encoded for a request; others may need them too."""

    request: Request
    picture: PictureSpan
    start: int
    stop: int


@dataclass(eq=False)
class Chunk:
    """Positions ``start`` to ``stop`` of a request; the last position of all gives the next token."""

    request: Request
    start: int
    stop: int

    @property
    def gives_token(self) -> bool:
        return self.stop == len(self.request.keys)


@dataclass(eq=False)
class Step:
    """What to compute in one go: tiles, then positions."""

    chunks: list[Chunk] = field(default_factory=list)
    encodes: list[Encode] = field(default_factory=list)

    @property
    def num_positions(self) -> int:
        return sum(chunk.stop - chunk.start for chunk in self.chunks)

    @property
    def num_tiles(self) -> int:
        return sum(encode.stop - encode.start for encode in self.encodes)


class Scheduler:
    """All requests that are not finished.

    ``tile_cost``: how many prompt positions cost what one tile costs. ``max_running``: requests with a table.
    """

    def __init__(self, pool: BlockPool, features: FeatureStore, *, max_running: int = 64, tile_cost: int = 150) -> None:
        self.pool, self.features = pool, features
        self.max_running, self.tile_cost = max_running, tile_cost
        self.waiting: list[Request] = []  # both by arrival
        self.running: list[Request] = []

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    @property
    def num_decoding(self) -> int:
        return sum(request.is_decoding for request in self.running)

    def check(self, request: Request) -> None:
        """Raises RequestTooLarge if the whole cache could not hold the request. From any thread."""
        # The last new token is never run, so it needs no room.
        needed, room = request.most_tokens - 1, self.pool.num_blocks * self.pool.block_tokens
        if needed > room:
            raise RequestTooLarge(
                f"The request takes up to {needed} tokens ({request.num_prompt} of the prompt, "
                f"{request.max_new_tokens} new), but the cache holds {room}. "
                "Ask for fewer new tokens, use smaller pictures, or give the engine more memory."
            )

    def add(self, request: Request) -> None:
        """Takes a new request. Raises RequestTooLarge if the whole cache could not hold it."""
        self.check(request)
        self._queue(request)

    def finish(self, request: Request) -> None:
        """Ends a request in whatever state it is; its content stays known for others."""
        if request.state is State.RUNNING:
            self._stop(request)
        elif request.state is State.WAITING:
            self.waiting.remove(request)
        request.state = State.FINISHED

    def plan(self, budget: int) -> Step:
        """The next step, of about ``budget`` positions at most; empty only if nobody waits or runs."""
        step = Step()
        self._continue_answers(step)
        left = budget - step.num_positions
        for request in self.running:
            if not request.is_decoding:
                left = self._go_on(request, step, left)
        while self.waiting and len(self.running) < self.max_running:
            request = self.waiting[0]
            has_turn = left >= MIN_CHUNK or not any(not other.is_decoding for other in self.running)
            if not has_turn or self._begins_like_another(request) or not self._start(request):
                break
            left = self._go_on(request, step, left)
        return step

    def complete(self, chunk: Chunk) -> None:
        """Books a chunk that was computed."""
        request = chunk.request
        if request.copy is not None:
            self.pool.release_one(request.copy.source)
            request.copy = None
        request.num_computed = chunk.stop
        request.num_published = self.pool.publish(
            request.table, request.keys, request.num_computed, request.num_published
        )
        while request.pinned and request.pinned[0].stop <= request.num_computed:
            self.features.unpin(request.pinned.pop(0))

    def preempt_all(self) -> None:
        """Lets every running request begin again: nobody holds any content then."""
        for request in list(self.running):
            self._preempt(request)

    def audit(self) -> None:
        """Checks pool, features and requests against each other. For tests."""
        copied = [request.copy.source for request in self.running if request.copy is not None]
        self.pool.audit([request.table for request in self.running], copied)
        self.features.audit([picture for request in self.running for picture in request.pinned])
        for group, state in ((self.waiting, State.WAITING), (self.running, State.RUNNING)):
            assert all(request.state is state for request in group)
            assert [request.arrival for request in group] == sorted(request.arrival for request in group)
        assert not any(request.table or request.copy or request.pinned for request in self.waiting)
        assert len(self.running) <= self.max_running

    def _queue(self, request: Request) -> None:
        request.state = State.WAITING
        bisect.insort(self.waiting, request, key=_by_arrival)

    def _continue_answers(self, step: Step) -> None:
        """One position for each decoding request, oldest first; the youngest ones give way if there is no room."""
        for request in list(self.running):
            if request.state is not State.RUNNING or not request.is_decoding:
                continue
            while request.state is State.RUNNING:
                try:
                    self.pool.extend(request.table, len(request.keys))
                except OutOfBlocks:
                    # Younger than any that has its chunk already, or this one itself.
                    self._preempt(self.running[-1])
                else:
                    step.chunks.append(Chunk(request, request.num_computed, len(request.keys)))
                    break

    def _go_on(self, request: Request, step: Step, left: int) -> int:
        """Plans the next tiles and positions of a prompt for ``left`` positions' worth; returns what is then left.

        Whoever comes first among the prompts gets at least a tile or MIN_CHUNK positions, however many answers run.
        """
        is_first = not step.encodes and all(chunk.request.is_decoding for chunk in step.chunks)
        if is_first:
            left = max(left, MIN_CHUNK)
        start = stop = request.num_computed
        end = len(request.keys)
        for picture in request.pictures_between(start, end):
            before = max(picture.start, stop)
            taken = min(before - stop, max(left, 0))
            stop, left = stop + taken, left - taken
            missing = self._tiles_missing(picture, step)
            if stop < before or (missing and left <= 0):
                break
            if missing:
                num_tiles = min(missing, max(left // self.tile_cost, int(is_first and not step.encodes)))
                done = picture.num_tiles - missing
                if num_tiles:
                    step.encodes.append(Encode(request, picture, done, done + num_tiles))
                    left -= num_tiles * self.tile_cost
                if num_tiles < missing:
                    break
            taken = min(picture.stop - stop, max(left, 0))
            stop, left = stop + taken, left - taken
            if stop < picture.stop:
                break
        else:
            taken = min(end - stop, max(left, 0))
            stop, left = stop + taken, left - taken
        if stop > start:
            step.chunks.append(Chunk(request, start, stop))
        return left

    def _tiles_missing(self, picture: PictureSpan, step: Step) -> int:
        """Tiles that are neither encoded nor planned in this step."""
        planned = sum(e.stop - e.start for e in step.encodes if e.picture.fingerprint == picture.fingerprint)
        return picture.num_tiles - self.features.entry(picture).tiles_done - planned

    def _begins_like_another(self, request: Request) -> bool:
        """Whether a running prompt will soon publish much of what this request begins with."""
        num_known = 0
        for other in self.running:
            if other.is_decoding:
                continue
            num_common = common_length(other.keys, request.keys[:-1])
            if num_common - other.num_computed >= SHARE_WORTH:
                num_known = num_known or len(self.pool.match(request.keys[:-1]).blocks) * self.pool.block_tokens
                if num_common - num_known >= SHARE_WORTH:
                    return True
        return False

    def _start(self, request: Request) -> bool:
        """Gives a waiting request its table, as much of it as possible from known content; False: there is no room."""
        pool = self.pool
        # The last position has to be run in any case: its output is the next token.
        match = pool.match(request.keys[:-1])
        table, source = list(match.blocks), match.copy_from
        pool.hold(table)
        # Each running answer will soon want a block; taking the last ones now would only preempt somebody.
        num_wanted = pool.blocks_for(len(request.keys)) - len(table) + len(self.running)
        if source is not None:
            pool.hold([source])
            if num_wanted > pool.num_available:
                pool.release_one(source)
                source = None
        if num_wanted > pool.num_available:
            pool.release(table)
            return False
        num_matched = len(table)
        pool.extend(table, len(request.keys))
        request.table, request.num_published = table, num_matched
        request.num_computed = num_matched * pool.block_tokens
        if source is not None:
            request.copy = Copy(source, table[num_matched], match.copy_tokens)
            request.num_computed += match.copy_tokens
        request.pinned = request.pictures_between(request.num_computed, len(request.keys))
        for picture in request.pinned:
            self.features.pin(picture)
        self.waiting.remove(request)
        bisect.insort(self.running, request, key=_by_arrival)
        request.state = State.RUNNING
        return True

    def _preempt(self, request: Request) -> None:
        self._stop(request)
        request.num_preemptions += 1
        self._queue(request)

    def _stop(self, request: Request) -> None:
        """Takes a running request's table, copy and pins away; what it computed stays known."""
        self.running.remove(request)
        if request.copy is not None:  # its positions never came to be
            request.num_computed -= request.copy.num_tokens
            self.pool.release_one(request.copy.source)
            request.copy = None
        self.pool.publish(request.table, request.keys, request.num_computed, request.num_published, last=True)
        self.pool.release(request.table)
        for picture in request.pinned:
            self.features.unpin(picture)
        request.pinned = []
        request.num_computed = request.num_published = 0


def _by_arrival(request: Request) -> int:
    return request.arrival
