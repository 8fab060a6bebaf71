"""The table of goals of benchmarks/engine.py judges figures by the goals, and never passes what was not measured."""

from __future__ import annotations

from benchmarks.goals import GOALS, Goal, print_goals

FIRST = Goal("first token", ("S",), ("engine", "first_token_s"), "<=", 0.95, ("vllm", "first_token_s"))


def test_a_goal_is_met_or_missed_by_the_ratio_of_two_sides() -> None:
    assert FIRST.judge({"engine": {"first_token_s": 9.0}, "vllm": {"first_token_s": 10.0}}).split()[-1] == "met"
    assert FIRST.judge({"engine": {"first_token_s": 9.6}, "vllm": {"first_token_s": 10.0}}).split()[-1] == "MISSED"


def test_a_goal_without_a_peer_is_told_as_not_measured() -> None:
    assert "not measured: vllm has no first_token_s" in FIRST.judge({"engine": {"first_token_s": 1.0}})
    assert "not measured: engine has no first_token_s" in FIRST.judge({"vllm": {"first_token_s": 1.0}})


def test_every_goal_of_a_shape_has_a_line() -> None:
    lines: list[str] = []
    print_goals("S", {"engine": {"ready_s": 6.0}}, lines.append)
    assert len(lines) == 1 + sum("S" in goal.shapes for goal in GOALS)
    (ready,) = [line for line in lines if line.startswith("ready")]
    assert ready.split()[-2:] == ["5", "MISSED"]
