"""Every reading of a multiple-choice, open or mathematical answer is its published scorer's, on hard cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava.eval.scoring.ai2d_letters import score_ai2d
from llava.eval.scoring.letter_rules import LETTER_RULES
from llava.eval.scoring.math_vista_answers import MATH_VISTA_READINGS, Problem, score_by_rules
from llava.eval.scoring.math_vista_judge import write_prompt
from llava.eval.scoring.mmmu_parsers import MMMU_READINGS
from llava.eval.scoring.q_bench_letters import Q_BENCH_READINGS
from llava.eval.scoring.verdict import Verdict

GOLD = json.loads((Path(__file__).parents[1] / "gold/eval/choices.json").read_text(encoding="utf-8"))


def to_problem(problem: dict[str, Any]) -> Problem:
    return Problem(**{**problem, "choices": tuple(problem["choices"])})


def score_math(scorer: Callable[..., Verdict]) -> Callable[[str, dict[str, Any]], Verdict]:
    return lambda said, problem: scorer(said, to_problem(problem))


def score_with_echo(said: str, problem: Problem) -> Verdict:
    return score_by_rules(said, problem, reply=said)


SCORERS: dict[tuple[str, str], Callable[..., Verdict]] = {
    ("ai2d", "lmms-eval"): score_ai2d,
    **{("mmmu", name): scorer for name, scorer in MMMU_READINGS.items()},
    **{("q_bench", name): scorer for name, scorer in Q_BENCH_READINGS.items()},
    **{("math_vista", name): score_math(scorer) for name, scorer in MATH_VISTA_READINGS.items() if " by " not in name},
    ("math_vista", "MathVista, a judge that repeats the response"): score_math(score_with_echo),
}


def column(family: str, reading: str) -> list[tuple[Any, Any]]:
    place = GOLD[family]["readings"].index(reading)
    return [(case, values[place]) for case, values in GOLD[family]["cases"]]


@pytest.mark.parametrize(("family", "reading"), SCORERS)
def test_a_score_is_the_published_scorers(family: str, reading: str) -> None:
    cases = column(family, reading)
    assert len(cases) >= 60
    scorer = SCORERS[family, reading]
    assert [(case, scorer(*case).score) for case, _ in cases] == cases


@pytest.mark.parametrize("reading", LETTER_RULES)
def test_a_letter_is_the_published_rules(reading: str) -> None:
    cases = column("letters", reading)
    assert len(cases) >= 60
    assert [(case, LETTER_RULES[reading](*case)) for case, _ in cases] == cases


def test_math_vistas_judge_is_asked_in_the_published_words() -> None:
    assert write_prompt("Hint: x\nQuestion: ?", "It is 5.") == GOLD["math_vista_prompt"]


def test_no_published_reading_is_left_out_and_the_cases_tell_them_apart() -> None:
    for family in ("letters", "mmmu", "ai2d", "q_bench", "math_vista"):
        readings = GOLD[family]["readings"]
        if family == "letters":
            assert list(LETTER_RULES) == readings
        else:
            assert {name for known, name in SCORERS if known == family} == set(readings)
        columns = zip(*(values for _, values in GOLD[family]["cases"]), strict=True)
        assert len({tuple(values) for values in columns}) == len(readings)
