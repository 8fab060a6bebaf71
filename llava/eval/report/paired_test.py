"""Tests of whether two models' answers to the same questions differ by more than chance. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NUM_DRAWS, SEED = 20_000, 0
MOST_ENUMERATED = 16  # differing pairs of which all assignments of signs are tried, 65,536


@dataclass(frozen=True)
class PairedTest:
    """The outcome of a test.

    Attributes:
        name: of the test, as a report says it.
        p_value: two-sided: how likely a difference at least this large is if the models are equally good.
        difference: the mean of the second model's scores less the first's.
        standard_error: of the difference.
    """

    name: str
    p_value: float
    difference: float
    standard_error: float


def compare_pairs(pairs: Sequence[tuple[float, float]]) -> PairedTest:
    """Tests pairs of scores of the same question, of the first and of the second model.

    Scores that are all 0 or 1 get McNemar's exact test: the binomial test of the questions that exactly one of the
    models has right. Other scores get the paired permutation test of the mean difference: by trying all assignments of
    signs to at most 16 differing pairs, or else by 20,000 drawn ones with a fixed seed.

    Source: Q. McNemar, Psychometrika 12 (1947), in its exact form; R. A. Fisher, The Design of Experiments (1935).
    """
    assert pairs, "nothing to compare"
    differences = [second - first for first, second in pairs]
    num = len(differences)
    mean = sum(differences) / num
    variance = sum((each - mean) ** 2 for each in differences) / max(1, num - 1)
    if all(score in (0, 1) for pair in pairs for score in pair):
        gained, lost = differences.count(1), differences.count(-1)
        name, p_value = "McNemar's exact test", mcnemar(gained, lost)
    else:
        name, p_value = _permute([each for each in differences if abs(each) > 1e-9])
    return PairedTest(name, p_value, mean, math.sqrt(variance / num))


def mcnemar(gained: int, lost: int) -> float:
    """The two-sided p-value of McNemar's exact test, of the questions that one and the other model alone has right."""
    num, fewer = gained + lost, min(gained, lost)
    tail = ways = 1
    for k in range(fewer):
        ways = ways * (num - k) // (k + 1)  # num over k + 1
        tail += ways
    return min(1.0, 2 * tail / 2**num)  # whole numbers of any size, divided exactly


def _permute(differences: Sequence[float]) -> tuple[str, float]:
    import numpy as np

    if not differences:
        return "permutation test, no pair differs", 1.0
    values = np.asarray(differences)
    least = abs(values.sum()) - 1e-9  # as large but for rounding
    if len(values) <= MOST_ENUMERATED:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate((sums + value, sums - value))
        return "permutation test, exact", float((np.abs(sums) >= least).mean())
    random, hits, done = np.random.default_rng(SEED), 0, 0
    while done < NUM_DRAWS:
        num = min(max(1, 2_000_000 // len(values)), NUM_DRAWS - done)
        signs = random.integers(0, 2, (num, len(values)), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ values) >= least).sum())
        done += num
    return f"permutation test, {NUM_DRAWS:,} draws, seed {SEED}", (hits + 1) / (NUM_DRAWS + 1)
