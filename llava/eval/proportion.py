"""The 95 % confidence interval of a share of right answers. Loads no torch."""

from __future__ import annotations

import math


def interval(right: float, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion. Source: E. B. Wilson, JASA 22 (1927)."""
    share = right / asked
    middle = (share + z * z / (2 * asked)) / (1 + z * z / asked)
    half = z * math.sqrt(share * (1 - share) / asked + z * z / (4 * asked * asked)) / (1 + z * z / asked)
    return max(0.0, middle - half), min(1.0, middle + half)
