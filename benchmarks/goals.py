"""The goals of ``benchmarks/engine.py`` on a CPU, beside the figures of a run.

Each goal is a ratio between figures of that run, so other work on the machine disturbs both sides. A goal whose figures
the run does not have, because a peer is not installed or a part was left out, is listed with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

# The figures of each side by name; the floors are a side of their own.
Sides = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Goal:
    """``ours`` has to be at least (``>=``) or at most (``<=``) ``factor`` times ``theirs``, or ``factor`` itself."""

    work: str
    shapes: tuple[str, ...]
    ours: tuple[str, str]  # a side and one of its figures
    sign: str
    factor: float
    theirs: tuple[str, str] | None = None

    def judge(self, sides: Sides) -> str:
        """The figure, the goal, and whether it is met; or what is missing."""
        mine = sides.get(self.ours[0], {}).get(self.ours[1])
        other = None if self.theirs is None else sides.get(self.theirs[0], {}).get(self.theirs[1])
        if mine is None or (self.theirs is not None and other is None):
            missing = self.ours if mine is None else self.theirs
            assert missing is not None
            return f"{'-':>10}  {self._describe():32} not measured: {missing[0]} has no {missing[1]}"
        value = mine / other if other is not None else mine
        is_met = value >= self.factor if self.sign == ">=" else value <= self.factor
        return f"{value:10.3g}  {self._describe():32} {'met' if is_met else 'MISSED'}"

    def _describe(self) -> str:
        return f"{self.sign} {self.factor:g}" + ("" if self.theirs is None else f" x {self.theirs[0]}")


_LARGE = ("S", "7B")
GOALS = (
    Goal("first token, 16 bits", ("S",), ("engine", "first_token_s"), "<=", 0.95, ("vllm", "first_token_s")),
    Goal(
        "first token, int8 arithmetic",
        ("S",),
        ("engine int8 arithmetic", "first_token_s"),
        "<=",
        0.6,
        ("vllm", "first_token_s"),
    ),
    Goal(
        "decode, 16 bits, of memory bandwidth",
        ("S",),
        ("engine", "tokens_per_s"),
        ">=",
        0.85,
        ("limit", "tokens_per_s"),
    ),
    Goal("decode, 16 bits", ("S",), ("engine", "tokens_per_s"), ">=", 1.5, ("vllm", "tokens_per_s")),
    Goal("decode, int8", ("S",), ("engine int8", "tokens_per_s"), ">=", 1.8, ("llama.cpp Q8_0", "tokens_per_s")),
    Goal("decode, int4", ("S",), ("engine int4", "tokens_per_s"), ">=", 2.0, ("llama.cpp Q4_0", "tokens_per_s")),
    Goal("32 different images", ("XS",), ("engine", "32_different_tok_s"), ">=", 1.3, ("vllm", "32_different_tok_s")),
    Goal("32 questions on one image", ("XS",), ("engine", "32_same_tok_s"), ">=", 1.3, ("vllm", "32_same_tok_s")),
    Goal(
        "decode, int4, of memory bandwidth",
        ("7B",),
        ("engine int4", "tokens_per_s"),
        ">=",
        0.8,
        ("limit", "int4_tokens_per_s"),
    ),
    Goal(
        "first token, int4", ("7B",), ("engine int4", "first_token_s"), "<=", 0.6, ("llama.cpp Q4_0", "first_token_s")
    ),
    Goal("ready, s", ("S",), ("engine", "ready_s"), "<=", 5.0),
    Goal("memory above weights and KV cache, GB", ("XS", *_LARGE), ("engine", "above_gb"), "<=", 0.4),
    Goal("64 running, tokens/s", ("XS",), ("embedded", "64_tok_s"), ">=", 1.0, ("embedded", "32_tok_s")),
    Goal("step with top-p, 128 K words", ("XS",), ("embedded", "top_p_s"), "<=", 1.1, ("embedded", "greedy_s")),
    Goal("longest gap while images arrive, s", ("S", "XS"), ("engine", "gap_s"), "<=", 1.0, ("engine", "budget_s")),
    Goal("llava ask, cold process", ("XS",), ("embedded", "ask_s"), "<=", 1.3, ("embedded", "imports_s")),
    Goal("llava serve ready, s", ("XS",), ("embedded", "serve_ready_s"), "<=", 3.0),
)


def print_goals(shape: str, sides: Sides, write: Callable[[str], Any] = print) -> None:
    """A line for each goal of that shape."""
    write(f"\n{'goals':42}{'ratio':>10}  goal")
    for goal in GOALS:
        if shape in goal.shapes:
            write(f"{goal.work:42}{goal.judge(sides)}")
