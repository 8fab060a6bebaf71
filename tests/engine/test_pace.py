"""The budget of a step: how many positions of prompts may delay answers, and how that is learned."""

from __future__ import annotations

import random

import pytest

from llava.engine.pace import MAX_STALLS, Pace


def make_pace(**changes: float) -> Pace:
    return Pace(**{"stall_s": 0.25, "max_positions": 4096, "tile_cost": 200.0, "position_s": 0.001, **changes})  # type: ignore[arg-type]


def test_prompts_that_delay_nobody_take_as_many_positions_as_fit_into_memory() -> None:
    for num_prompts in (0, 1, 100):
        assert make_pace().find_budget(0, num_prompts) == 4096
        assert make_pace(position_s=None).find_budget(0, num_prompts) == 4096  # type: ignore[arg-type]


def test_one_prompt_delays_an_answer_by_one_stall_and_a_crowd_by_eight() -> None:
    pace = make_pace()
    assert [pace.find_budget(1, prompts) - 1 for prompts in (0, 1, 2, 7, 8, 9, 1000)] == [
        250,
        250,
        500,
        1750,
        2000,
        2000,
        2000,
    ]
    assert MAX_STALLS == 8
    assert pace.find_budget(30, 1) == 30 + 250  # the answers' own positions come on top
    assert pace.find_budget(30, 100) == 30 + 2000
    assert make_pace(max_positions=1000).find_budget(30, 100) == 1000
    assert make_pace(stall_s=0).find_budget(3, 100) == 3
    assert make_pace(stall_s=float("inf")).find_budget(3, 1) == 4096
    assert make_pace(position_s=None).find_budget(3, 100) == 64  # type: ignore[arg-type]


def run(pace: Pace, rng: random.Random, position_s: float, tile_s: float, decoding_s: float, num_steps: int) -> None:
    """Steps of a machine that takes so long for a position, a tile and a step of answers, give or take 20 %."""
    for _ in range(num_steps):
        kind = rng.choice(["answers", "positions", "tiles", "both"])
        num_positions = rng.randint(100, 800) if kind in ("positions", "both") else 0
        num_tiles = rng.randint(1, 5) if kind in ("tiles", "both") else 0
        exact = decoding_s + num_positions * position_s + num_tiles * tile_s
        pace.learn(num_positions, num_tiles, exact * rng.uniform(0.8, 1.2))


@pytest.mark.parametrize("tile_s", [0.02, 0.2, 2.0])
def test_the_costs_of_positions_and_tiles_are_learned_apart(tile_s: float) -> None:
    pace, rng = make_pace(position_s=None), random.Random(1)  # type: ignore[arg-type]
    run(pace, rng, 0.001, tile_s, 0.05, 400)
    assert pace.position_s == pytest.approx(0.001, rel=0.35)
    assert pace.tile_cost == pytest.approx(tile_s / 0.001, rel=0.5)
    assert pace.decoding_s == pytest.approx(0.05, rel=0.2)
    # A machine that gets slower, such as one with other work.
    run(pace, rng, 0.004, 4 * tile_s, 0.2, 60)
    assert pace.position_s == pytest.approx(0.004, rel=0.35)


def test_steps_of_many_answers_do_not_make_prompts_look_slow() -> None:
    pace = make_pace()
    for _ in range(100):
        pace.learn(0, 0, 0.1)  # say 64 requests, one position each
    assert pace.position_s == 0.001
    assert pace.find_budget(64, 1) == 64 + 250
    pace.learn(250, 0, 0.1 + 250 * 0.001)
    assert pace.position_s == pytest.approx(0.001)


def test_one_interrupted_step_does_not_end_prefilling() -> None:
    pace = make_pace()
    pace.learn(250, 0, 30.0)
    assert pace.find_budget(1, 1) > 50
    for _ in range(10):
        pace.learn(250, 0, 0.25)
    assert pace.find_budget(1, 1) == pytest.approx(250, rel=0.1)


def test_a_handful_of_positions_says_nothing() -> None:
    pace = make_pace()
    pace.learn(10, 0, 5.0)
    assert pace.position_s == 0.001
    pace.learn(100, 0, 0.0)  # a clock that does not move
    assert pace.position_s == 0.001
