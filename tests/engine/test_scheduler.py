"""The scheduler and the blocks, without a model: each request computes each position once, after its whole prefix."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llava.constants import IMAGE_TOKEN_INDEX
from llava.engine.blocks import BlockPool, OutOfBlocks
from llava.engine.feature_cache import ImageFeatureCache
from llava.engine.pace import Pace
from llava.engine.request import Request, State, fingerprint, position_keys
from llava.engine.scheduler import RequestTooLarge, Scheduler, Step

VOCABULARY = 3  # few words, so that prompts share prefixes
NUM_IMAGES = 3


class FakeRunner:
    """Writes position keys where a real runner writes keys and values, and reads the whole prefix before each one."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.cache: dict[tuple[int, int], int] = {}  # (block, place in it) -> position key
        self.num_computed = 0
        self.num_tiles = 0

    def slot(self, request: Request, position: int) -> tuple[int, int]:
        place, offset = divmod(position, self.scheduler.pool.block_tokens)
        return request.table[place], offset

    def run(self, step: Step) -> None:
        for _, image, start, stop in step.tile_chunks:
            entry = self.scheduler.features.entry(image)
            assert entry.tiles_done == start < stop <= image.num_tiles
            entry.tiles_done = stop
            self.num_tiles += stop - start
        for chunk in step.chunks:
            request = chunk.request
            assert request.state is State.RUNNING
            assert chunk.start == request.num_computed < chunk.stop <= len(request.keys)
            for image in request.images_between(chunk.start, chunk.stop):
                assert self.scheduler.features.entry(image).is_ready, "a position came before its image"
            if request.copy is not None:
                for offset in range(request.copy.num_tokens):
                    self.cache[request.copy.target, offset] = self.cache[request.copy.source, offset]
        written: set[tuple[int, int]] = set()
        for chunk in step.chunks:
            for position in range(chunk.start, chunk.stop):
                slot = self.slot(chunk.request, position)
                assert slot not in written, "two requests write one place"
                written.add(slot)
                self.cache[slot] = chunk.request.keys[position]
                self.num_computed += 1
        for chunk in step.chunks:
            request = chunk.request
            stored = [self.cache[self.slot(request, position)] for position in range(chunk.stop)]
            assert stored == request.keys[: chunk.stop], "a request reads what is not its own"
        for chunk in step.chunks:
            self.scheduler.complete(chunk)


def make_plan(num_positions: int, num_tiles: int) -> Any:
    """As much of a ``TilePlan`` as the scheduler reads."""
    return SimpleNamespace(num_positions=num_positions, num_tiles=num_tiles, counted=None)


def make_request(arrival: int, text: list[int], max_new_tokens: int = 4) -> Request:
    """Ids of 0 and more are text; -1, -2, ... are images of 5, 7, ... positions and 1, 2, ... tiles."""
    ids = [IMAGE_TOKEN_INDEX if item < 0 else item for item in text]
    images = [(make_plan(3 - 2 * item, -item), fingerprint(str(item), "plain"), None) for item in text if item < 0]
    keys, spans = position_keys(ids, images)
    return Request(arrival, keys, spans, max_new_tokens)


def make_scheduler(num_blocks: int = 64, block_tokens: int = 4, **settings: Any) -> Scheduler:
    return Scheduler(BlockPool(num_blocks, block_tokens), ImageFeatureCache(20), **{"tile_cost": 3, **settings})


def run_all(scheduler: Scheduler, runner: FakeRunner, budget: int = 1000) -> list[int]:
    """Runs until no request is left, each answering token 9 up to its limit; the arrivals in finish order."""
    finished = []
    for _ in range(10_000):
        step = scheduler.plan(budget)
        if not step.chunks and not step.tile_chunks:
            assert scheduler.is_idle, "nothing is planned though somebody waits"
            return finished
        sampled = [chunk.request for chunk in step.chunks if chunk.samples_token]
        runner.run(step)
        for request in sampled:
            request.keys.append(9)
            if len(request.new_tokens) == request.max_new_tokens:
                scheduler.finish(request)
                finished.append(request.arrival)
        scheduler.audit()
    raise AssertionError("it never ends")


class Requests(RuleBasedStateMachine):
    """Requests arrive, run in steps of any budget, are cancelled and fail, in a cache that is too small for them."""

    @initialize(
        num_blocks=st.integers(6, 30),
        block_tokens=st.sampled_from([1, 2, 4, 16]),
        max_running=st.integers(1, 5),
        tile_cost=st.integers(1, 30),
        limit=st.integers(0, 30),
    )
    def begin(self, num_blocks: int, block_tokens: int, max_running: int, tile_cost: int, limit: int) -> None:
        pool = BlockPool(num_blocks, block_tokens)
        self.scheduler = Scheduler(pool, ImageFeatureCache(limit), max_running=max_running, tile_cost=tile_cost)
        self.runner = FakeRunner(self.scheduler)
        self.requests: list[Request] = []
        self.arrivals = 0

    def live(self) -> list[Request]:
        return [request for request in self.requests if request.state is not State.FINISHED]

    @rule(
        text=st.lists(st.integers(-NUM_IMAGES, VOCABULARY - 1), min_size=1, max_size=30),
        repeats=st.integers(1, 4),
        max_new_tokens=st.integers(1, 12),
    )
    def submit(self, text: list[int], repeats: int, max_new_tokens: int) -> None:
        request = make_request(self.arrivals, text * repeats, max_new_tokens)
        self.arrivals += 1
        room = self.scheduler.pool.num_blocks * self.scheduler.pool.block_tokens
        if request.max_tokens - 1 > room:
            with pytest.raises(RequestTooLarge, match=str(room)):
                self.scheduler.add(request)
            return
        self.scheduler.add(request)
        self.requests.append(request)

    @rule(budget=st.integers(0, 60), word=st.integers(0, VOCABULARY - 1), fails=st.booleans())
    def step(self, budget: int, word: int, fails: bool) -> None:
        step = self.scheduler.plan(budget)
        assert bool(step.chunks or step.tile_chunks) == bool(self.live()), "a step without progress"
        decoding = [chunk.request for chunk in step.chunks if chunk.request.is_decoding]
        # One budget at most, except for the minimum that a prompt gets: a few positions and one tile.
        tile_cost = self.scheduler.tile_cost
        assert step.prompt_budget == budget - len(decoding)
        assert step.num_prompt_positions + step.num_tiles * tile_cost <= max(step.prompt_budget, 16) + tile_cost
        for _, image, start, stop in step.tile_chunks:
            is_cut = stop < image.num_tiles
            assert not is_cut or (image.num_tiles - start) * tile_cost > step.prompt_budget, "an image is cut that fits"
        sampled = [chunk.request for chunk in step.chunks if chunk.samples_token]
        if fails and step.chunks:
            victim = step.chunks.pop()
            sampled = [request for request in sampled if request is not victim.request]
            self.runner.run(step)
            self.scheduler.finish(victim.request)
        else:
            self.runner.run(step)
        for request in sampled:
            request.keys.append(word)
            if len(request.new_tokens) == request.max_new_tokens:
                self.scheduler.finish(request)

    @rule(stall=st.integers(0, 12), max_positions=st.integers(1, 80), word=st.integers(0, VOCABULARY - 1))
    def step_at_a_pace(self, stall: int, max_positions: int, word: int) -> None:
        pace = Pace(stall, max_positions, self.scheduler.tile_cost, position_s=1.0)
        num_decoding, num_prompts = self.scheduler.num_decoding, self.scheduler.num_prompts
        assert num_decoding + num_prompts == len(self.live())
        budget = pace.find_budget(num_decoding, num_prompts)
        assert budget <= max_positions
        if num_decoding:
            assert budget - num_decoding <= stall * min(num_prompts, 8) or budget == 1 or not num_prompts
        self.step(budget, word, fails=False)

    @rule(tile_cost=st.integers(1, 30))
    def measure_another_tile_cost(self, tile_cost: int) -> None:
        self.scheduler.tile_cost = tile_cost

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.scheduler.finish(data.draw(st.sampled_from(self.live())))

    @invariant()
    def audit(self) -> None:
        if hasattr(self, "scheduler"):
            self.scheduler.audit()

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        run_all(self.scheduler, self.runner)
        pool = self.scheduler.pool
        assert pool.num_available == pool.num_blocks, "blocks leaked"
        assert all(request.state is State.FINISHED for request in self.requests)


TestRequests = Requests.TestCase
TestRequests.settings = settings(max_examples=150, stateful_step_count=30)


def test_a_second_question_about_an_image_computes_only_its_new_positions() -> None:
    scheduler = make_scheduler()
    runner = FakeRunner(scheduler)
    scheduler.add(make_request(0, [0, 1, -3, 1, 1, 2]))
    run_all(scheduler, runner)
    before, tiles = runner.num_computed, runner.num_tiles
    scheduler.add(make_request(1, [0, 1, -3, 1, 0, 0, 1, 2]))
    run_all(scheduler, runner)
    # 0 0 1 2 differ, and of the four answers' tokens the last is never run.
    assert runner.num_computed - before == 4 + 3
    assert runner.num_tiles == tiles == 3


def test_two_images_never_share() -> None:
    one, other = (
        position_keys([IMAGE_TOKEN_INDEX], [(make_plan(9, 1), fingerprint(name, "plain"), None)])[0] for name in "ab"
    )
    assert not set(one) & set(other)
    processed = position_keys([IMAGE_TOKEN_INDEX], [(make_plan(9, 1), fingerprint("a", "other tiles"), None)])[0]
    assert not set(one) & set(processed)
    scheduler = make_scheduler()
    runner = FakeRunner(scheduler)
    for arrival in range(2):
        scheduler.add(make_request(arrival, [0, -1 - arrival, 1]))
    run_all(scheduler, runner)
    assert runner.num_tiles == 1 + 2


def test_requests_that_come_together_share_their_image() -> None:
    scheduler = make_scheduler(num_blocks=200)
    runner = FakeRunner(scheduler)
    for arrival in range(8):
        scheduler.add(make_request(arrival, [1] * 70 + [-3, 1, arrival % 3]))
    run_all(scheduler, runner)
    assert runner.num_tiles == 3
    assert runner.num_computed <= 79 + 2 + 8 * (2 + 3)


def test_copies_of_one_prompt_start_together() -> None:
    scheduler = make_scheduler(num_blocks=200)
    runner = FakeRunner(scheduler)
    for arrival in range(8):
        scheduler.add(make_request(arrival, [1] * 100))
    num_steps = 0
    while any(request.num_computed < 100 for request in [*scheduler.running, *scheduler.waiting]):
        step = scheduler.plan(1000)
        sampled = [chunk.request for chunk in step.chunks if chunk.samples_token]
        runner.run(step)
        for request in sampled:
            request.keys.append(9)
        num_steps += 1
    assert num_steps == 2


def test_order_of_arrival_is_kept() -> None:
    scheduler = make_scheduler(num_blocks=12, max_running=3)
    for arrival, length in enumerate([20, 3, 30, 5, 5]):
        scheduler.add(make_request(arrival, [arrival % 3] * length))
    assert run_all(scheduler, FakeRunner(scheduler), budget=7) == [0, 1, 2, 3, 4]


def test_a_long_prompt_does_not_stop_an_answer() -> None:
    scheduler = make_scheduler(tile_cost=10)
    runner = FakeRunner(scheduler)
    short = make_request(0, [0, 1], max_new_tokens=30)
    scheduler.add(short)
    runner.run(scheduler.plan(100))
    short.keys.append(9)
    scheduler.add(make_request(1, [2] * 60 + [-3] + [2] * 60))
    num_steps = 0
    while not (scheduler.running[-1].arrival == 1 and scheduler.running[-1].num_computed == 129):
        step = scheduler.plan(20)
        assert any(chunk.request is short for chunk in step.chunks)
        assert step.num_positions + 10 * step.num_tiles <= 20 + 10
        runner.run(step)
        short.keys.append(9)
        num_steps += 1
    assert 129 / 20 < num_steps < 15


def test_an_image_that_fits_into_a_step_waits_for_one_with_room_for_all_of_it() -> None:
    scheduler = make_scheduler(tile_cost=10)
    runner = FakeRunner(scheduler)
    scheduler.add(make_request(0, [2] * 20))
    scheduler.add(make_request(1, [0, -3, 1]))
    scheduler.add(make_request(2, [1, 1, 1, 1]))
    first = scheduler.plan(40)
    # Text before an image does not wait for it, and no later request overtakes it.
    assert [(chunk.request.arrival, chunk.stop) for chunk in first.chunks] == [(0, 20), (1, 1)]
    assert first.num_tiles == 0
    runner.run(first)
    second = scheduler.plan(40)
    assert [(tiles.start, tiles.stop) for tiles in second.tile_chunks] == [(0, 3)]
    # One that fits into no step is cut where the budget ends.
    scheduler = make_scheduler(tile_cost=10)
    scheduler.add(make_request(0, [2] * 9))
    scheduler.add(make_request(1, [0, -3, 1]))
    cut = scheduler.plan(29)
    assert [(tiles.start, tiles.stop) for tiles in cut.tile_chunks] == [(0, 1)]


def test_the_youngest_is_preempted_and_all_finish() -> None:
    scheduler = make_scheduler(num_blocks=10)
    runner = FakeRunner(scheduler)
    requests = [make_request(arrival, [arrival] * 8, max_new_tokens=20) for arrival in range(3)]
    for request in requests:
        scheduler.add(request)
    assert run_all(scheduler, runner) == [0, 1, 2]
    assert requests[0].num_preemptions == 0
    assert requests[1].num_preemptions + requests[2].num_preemptions > 0


def test_a_request_larger_than_the_cache_is_refused_with_both_numbers() -> None:
    scheduler = make_scheduler(num_blocks=4)
    with pytest.raises(
        RequestTooLarge, match=r"up to 17 tokens \(14 of the prompt, 4 new\), but the KV cache holds 16"
    ):
        scheduler.add(make_request(0, [1] * 14))
    scheduler.add(make_request(0, [1] * 13))
    assert run_all(scheduler, FakeRunner(scheduler)) == [0]


def test_the_least_recently_used_is_evicted_first() -> None:
    pool = BlockPool(4, 2)
    for keys in ([1, 1, 1, 1], [2, 2, 2, 2]):
        table: list[int] = []
        pool.extend(table, 4)
        pool.insert(table, keys, 4, 0)
        pool.release(table)
    again = pool.lookup([1, 1, 1, 1]).blocks
    pool.acquire(again)
    pool.release(again)
    table = []
    pool.extend(table, 2)
    assert len(pool.lookup([1, 1, 1, 1]).blocks) == 2
    assert len(pool.lookup([2, 2, 2, 2]).blocks) == 1  # the end of a sequence goes before its beginning
    pool.audit([table])
    with pytest.raises(OutOfBlocks):
        pool.extend(table, 100)


def test_the_same_prompt_again_and_again_takes_no_memory() -> None:
    pool = BlockPool(num_blocks=8, block_tokens=4)
    keys = list(range(10))
    for _ in range(500):
        table = list(pool.lookup(keys).blocks)
        num_cached = len(table)
        pool.acquire(table)
        pool.extend(table, len(keys))
        pool.insert(table, keys, len(keys), num_cached, last=True)
        pool.release(table)
        pool.audit([])
    assert len(pool._leaves) <= 4 * pool.num_blocks
    pool.extend(table, 4 * pool.num_blocks)  # and all of it is still available
    pool.audit([table])


def test_lookup_agrees_with_a_search_over_everything_inserted() -> None:
    rng = random.Random(3)
    pool = BlockPool(300, 3)
    inserted: list[list[int]] = []
    for _ in range(60):
        keys = [rng.randrange(2) for _ in range(rng.randrange(1, 14))]
        match = pool.lookup(keys)
        best = max(
            (n for old in inserted for n in range(len(keys) + 1) if old[:n] == keys[:n]),
            default=0,
        )
        assert len(match.blocks) * 3 + match.copy_tokens == best
        table: list[int] = []
        pool.extend(table, len(keys))
        pool.insert(table, keys, len(keys), 0, last=True)
        pool.audit([table])
        pool.release(table)
        inserted.append(keys)
