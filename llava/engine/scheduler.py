"""The scheduler: which positions of which requests the next step computes. Integers only, no torch.

Continuous batching with chunked prefill. A step first gives each decoding request its next token, oldest first; then
continues running prefills, oldest first, until its budget is spent; and only then admits waiting requests, in order of
arrival. A prompt is cut into chunks where the budget ends, so a long prompt delays the other requests' tokens by one
budget at most. An image that fits into a budget is encoded in one step; a larger one is cut into tiles, of which each
step encodes at least one.

When no block is left, the youngest running request is preempted: it loses its block table and waits again, in its old
place. Of several requests with a common prefix one is admitted first, so that the others find its blocks in the prefix
tree.
"""

from __future__ import annotations

import bisect
from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from llava.engine.blocks import BlockPool, OutOfBlocks, common_prefix_length
from llava.engine.feature_cache import ImageFeatureCache
from llava.engine.request import Copy, ImageSpan, Request, State
from llava.errors import RequestTooLarge as RequestTooLarge

# A smaller rest of the budget, in positions, is not worth a pass over the weights for one more prompt.
MIN_CHUNK = 16
# A request waits for another one's prefill if sharing its blocks saves at least this many positions.
MIN_SHARED = 64


class TileChunk(NamedTuple):
    """Tiles ``start`` up to ``stop`` of an image to encode for a request; other requests may need them too."""

    request: Request
    image: ImageSpan
    start: int
    stop: int


@dataclass(eq=False)
class Chunk:
    """Positions ``start`` up to ``stop`` of a request. The logits of a request's last position give its next token."""

    request: Request
    start: int
    stop: int

    @property
    def samples_token(self) -> bool:
        """Whether a token is sampled from this chunk: it reaches the end of the request."""
        return self.stop == len(self.request.keys)


@dataclass(eq=False)
class Step:
    """One batch: tiles for the vision tower, then positions for the decoder.

    ``prompt_budget``: how many positions prompts may take in it, with what their tiles cost.
    """

    prompt_budget: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    tile_chunks: list[TileChunk] = field(default_factory=list)

    @property
    def num_positions(self) -> int:
        """How many positions the decoder runs."""
        return sum(chunk.stop - chunk.start for chunk in self.chunks)

    @property
    def num_prompt_positions(self) -> int:
        """How many of them belong to prompts, before the step is recorded."""
        return sum(chunk.stop - chunk.start for chunk in self.chunks if not chunk.request.is_decoding)

    @property
    def num_tiles(self) -> int:
        """How many tiles the vision tower encodes."""
        return sum(tiles.stop - tiles.start for tiles in self.tile_chunks)


class Scheduler:
    """All requests that are waiting or running.

    ``tile_cost``: how many prompt positions take as long as one tile. ``max_running``: requests with a block table.
    """

    def __init__(
        self, pool: BlockPool, features: ImageFeatureCache, *, max_running: int = 64, tile_cost: int = 150
    ) -> None:
        self.pool, self.features = pool, features
        self.max_running, self.tile_cost = max_running, tile_cost
        self.waiting: list[Request] = []  # both lists are sorted by arrival
        self.running: list[Request] = []

    @property
    def is_idle(self) -> bool:
        """Whether no request is waiting or running."""
        return not self.waiting and not self.running

    @property
    def num_decoding(self) -> int:
        """How many running requests have their whole prompt computed."""
        return sum(request.is_decoding for request in self.running)

    @property
    def is_steady(self) -> bool:
        """Whether the next step gives every running request one more token, and does nothing else."""
        is_full = len(self.running) >= self.max_running
        can_go_on = all(request.is_decoding and len(request.keys) < request.max_tokens for request in self.running)
        return can_go_on and (is_full or not self.waiting) and self.pool.num_available >= len(self.running)

    @property
    def num_prompts(self) -> int:
        """How many requests have a prompt that is not computed yet, waiting ones included."""
        return len(self.waiting) + len(self.running) - self.num_decoding

    def check(self, request: Request) -> None:
        """Raises RequestTooLarge if the request does not fit into the whole KV cache. Safe to call from any thread."""
        # The last new token is never run, so it takes no position in the cache.
        needed, room = request.max_tokens - 1, self.pool.num_blocks * self.pool.block_tokens
        if needed > room:
            raise RequestTooLarge(
                f"The request takes up to {needed} tokens ({request.num_prompt} of the prompt, "
                f"{request.max_new_tokens} new), but the KV cache holds {room}. "
                "Ask for fewer new tokens, use smaller images, or give the engine more memory (--memory)."
            )

    def add(self, request: Request) -> None:
        """Queues a new request. Raises RequestTooLarge if it does not fit into the whole KV cache."""
        self.check(request)
        self._enqueue(request)

    def finish(self, request: Request) -> None:
        """Ends a request in any state. What it computed stays in the prefix tree for other requests."""
        if request.state is State.RUNNING:
            self._free(request)
        elif request.state is State.WAITING:
            self.waiting.remove(request)
        request.state = State.FINISHED

    def plan(self, budget: int) -> Step:
        """The next step, of about ``budget`` positions at most. It is empty only if the scheduler is idle."""
        step = Step()
        self._schedule_decodes(step)
        left = step.prompt_budget = budget - step.num_positions
        for request in self.running:
            if not request.is_decoding:
                left = self._schedule_prefill(request, step, left)
        while self.waiting and len(self.running) < self.max_running:
            request = self.waiting[0]
            has_budget = left >= MIN_CHUNK or not any(not other.is_decoding for other in self.running)
            if not has_budget or self._awaits_shared_prefix(request) or not self._admit(request):
                break
            left = self._schedule_prefill(request, step, left)
        return step

    def complete(self, chunk: Chunk) -> None:
        """Records that a chunk was computed, and inserts the blocks that are now full into the prefix tree."""
        request = chunk.request
        if request.copy is not None:
            self.pool.release_one(request.copy.source)
            request.copy = None
        request.num_computed = chunk.stop
        request.num_inserted = self.pool.insert(request.table, request.keys, request.num_computed, request.num_inserted)
        while request.pinned and request.pinned[0].stop <= request.num_computed:
            self.features.unpin(request.pinned.pop(0))

    def preempt_all(self) -> None:
        """Preempts every running request, so that no block is in use."""
        for request in list(self.running):
            self._preempt(request)

    def audit(self) -> None:
        """Asserts that pool, image-feature cache and requests agree. For tests."""
        copied = [request.copy.source for request in self.running if request.copy is not None]
        self.pool.audit([request.table for request in self.running], copied)
        self.features.audit([image for request in self.running for image in request.pinned])
        for group, state in ((self.waiting, State.WAITING), (self.running, State.RUNNING)):
            assert all(request.state is state for request in group)
            assert [request.arrival for request in group] == sorted(request.arrival for request in group)
        assert not any(request.table or request.copy or request.pinned for request in self.waiting)
        assert len(self.running) <= self.max_running

    def _enqueue(self, request: Request) -> None:
        request.state = State.WAITING
        bisect.insort(self.waiting, request, key=_by_arrival)

    def _schedule_decodes(self, step: Step) -> None:
        """Plans one position for each decoding request, oldest first, preempting the youngest if no block is left."""
        for request in list(self.running):
            if request.state is not State.RUNNING or not request.is_decoding:
                continue
            while request.state is State.RUNNING:
                try:
                    self.pool.extend(request.table, len(request.keys))
                except OutOfBlocks:
                    # The youngest has no chunk in this step yet: it comes last, and may be this request itself.
                    self._preempt(self.running[-1])
                else:
                    step.chunks.append(Chunk(request, request.num_computed, len(request.keys)))
                    break

    def _schedule_prefill(self, request: Request, step: Step, left: int) -> int:
        """Plans a prompt's next tiles and positions within a budget of ``left`` positions; returns the rest of it.

        The first prefill of a step gets at least one tile or MIN_CHUNK positions, however many requests are decoding.
        """
        is_first = not step.tile_chunks and all(chunk.request.is_decoding for chunk in step.chunks)
        if is_first:
            left = max(left, MIN_CHUNK)
        start = stop = request.num_computed
        end = len(request.keys)
        for image in request.images_between(start, end):
            before = max(image.start, stop)
            taken = min(before - stop, max(left, 0))
            stop, left = stop + taken, left - taken
            missing = self._count_missing_tiles(image, step)
            if stop < before or (missing and left <= 0):
                break
            if left < missing * self.tile_cost <= step.prompt_budget:
                left = 0  # first in the next step, it is encoded whole
                break
            if missing:
                num_tiles = min(missing, max(left // self.tile_cost, int(is_first and not step.tile_chunks)))
                done = image.num_tiles - missing
                if num_tiles:
                    step.tile_chunks.append(TileChunk(request, image, done, done + num_tiles))
                    left -= num_tiles * self.tile_cost
                if num_tiles < missing:
                    break
            taken = min(image.stop - stop, max(left, 0))
            stop, left = stop + taken, left - taken
            if stop < image.stop:
                break
        else:
            taken = min(end - stop, max(left, 0))
            stop, left = stop + taken, left - taken
        if stop > start:
            step.chunks.append(Chunk(request, start, stop))
        return left

    def _count_missing_tiles(self, image: ImageSpan, step: Step) -> int:
        """How many tiles of the image are neither encoded nor planned in this step."""
        planned = sum(one.stop - one.start for one in step.tile_chunks if one.image.fingerprint == image.fingerprint)
        return image.num_tiles - self.features.entry(image).tiles_done - planned

    def _awaits_shared_prefix(self, request: Request) -> bool:
        """Whether a running prefill will soon insert a long prefix of this request into the tree."""
        num_cached = 0
        for other in self.running:
            if other.is_decoding:
                continue
            num_common = common_prefix_length(other.keys, request.keys[:-1])
            if num_common - other.num_computed >= MIN_SHARED:
                num_cached = num_cached or len(self.pool.lookup(request.keys[:-1]).blocks) * self.pool.block_tokens
                if num_common - num_cached >= MIN_SHARED:
                    return True
        return False

    def _admit(self, request: Request) -> bool:
        """Gives a waiting request its block table, reusing its cached prefix; False if there are too few blocks."""
        pool = self.pool
        # The last position always has to be run: its logits give the next token.
        match = pool.lookup(request.keys[:-1])
        table, source = array("i", match.blocks), match.copy_from
        pool.acquire(table)
        # Keep one block for each running request: taking the last ones now would only cause a preemption soon.
        num_wanted = pool.count_blocks(len(request.keys)) - len(table) + len(self.running)
        if source is not None:
            pool.acquire([source])
            if num_wanted > pool.num_available:
                pool.release_one(source)
                source = None
        if num_wanted > pool.num_available:
            pool.release(table)
            return False
        num_matched = len(table)
        pool.extend(table, len(request.keys))
        request.table, request.num_inserted = table, num_matched
        request.num_computed = num_matched * pool.block_tokens
        if source is not None:
            request.copy = Copy(source, table[num_matched], match.copy_tokens)
            request.num_computed += match.copy_tokens
        request.pinned = request.images_between(request.num_computed, len(request.keys))
        for image in request.pinned:
            self.features.pin(image)
        self.waiting.remove(request)
        bisect.insort(self.running, request, key=_by_arrival)
        request.state = State.RUNNING
        return True

    def _preempt(self, request: Request) -> None:
        self._free(request)
        request.num_preemptions += 1
        self._enqueue(request)

    def _free(self, request: Request) -> None:
        """Releases a running request's blocks, pending copy and pins; what it computed stays in the prefix tree."""
        self.running.remove(request)
        if request.copy is not None:  # the copy was never made, so its positions are not computed after all
            request.num_computed -= request.copy.num_tokens
            self.pool.release_one(request.copy.source)
            request.copy = None
        self.pool.insert(request.table, request.keys, request.num_computed, request.num_inserted, last=True)
        self.pool.release(request.table)
        for image in request.pinned:
            self.features.unpin(image)
        request.pinned = []
        request.num_computed = request.num_inserted = 0


def _by_arrival(request: Request) -> int:
    return request.arrival
