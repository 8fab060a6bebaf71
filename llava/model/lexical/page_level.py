"""How far each line of a page lies off its row, where the page is turned or photographed at an angle.

Rows of a turned page all slope alike; on one seen from the side they meet at a point far off, so that their slopes
change evenly from the top to the bottom: ``slope = at_top + by_height * y``. What is printed in rows tells both, as
only with the right ones do the lines of a row lie on one height.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from llava.model.lexical.line_finder import TextLine

Floats = npt.NDArray[np.float64]

# Slopes that are tried: at the page's middle, and how much more or less at its top and bottom.
_STEPS, _STEP, _SPREADS = 60, 0.004, np.linspace(-0.05, 0.05, 11)
# Rows slope at most this many times as much as their longest lines were found to, or this much more. A line of few
# letters is found nearly level whatever its page is.
_MOST_TIMES, _SLACK = 3.0, 0.012
# The finder draws slopes towards zero, by lengths in heights of a capital; shorter lines than this tell nothing.
_PULL, _LEAST_LENGTH = 48.0, 4.0
# Lines are on one height if they differ by less than about this share of a capital's height.
_ON_ONE_HEIGHT = 0.3
# At least so many more pairs of lines must then be on one height, and this share of all lines.
_LEAST_GAIN, _LEAST_SHARE = 1.0, 0.1
_MOST_LINES = 120


def find_drops(lines: Sequence[TextLine]) -> list[float]:
    """How far the middle of each line's baseline lies lower than on a level page, in px; zeros for a level page."""
    level = [0.0] * len(lines)
    if not 3 < len(lines) <= _MOST_LINES:
        return level
    ends_N2 = np.array([(line.left, line.right) for line in lines])
    sizes_N = np.array([line.capital for line in lines])
    x_N = ends_N2.mean(1)
    y_N = np.array([line.baseline + line.slope * (line.right - line.left) / 2 for line in lines])
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    apart_NN = np.maximum(ends_N2[:, None, 0], ends_N2[None, :, 0]) - np.minimum(
        ends_N2[:, None, 1], ends_N2[None, :, 1]
    )
    pairs = np.argwhere(np.triu(apart_NN > 0, 1))
    if len(pairs) < 2:
        return level
    sizes_P = np.minimum(sizes_N[pairs[:, 0]], sizes_N[pairs[:, 1]])
    reach = float(np.abs(y_N).max()) or 1.0

    def place(slope: float, spread: float) -> Floats:
        by_height = spread / reach
        return (y_N - slope * x_N) / (1 + by_height * x_N)

    def count(slope: float, spread: float) -> float:
        rows_N = place(slope, spread)
        off_P = (rows_N[pairs[:, 0]] - rows_N[pairs[:, 1]]) / (_ON_ONE_HEIGHT * sizes_P)
        return float(np.exp(-np.square(off_P)).sum())

    least, most = _bound_slopes(lines)
    slopes = [_STEP * n for n in range(-_STEPS, _STEPS + 1) if least <= _STEP * n <= most]
    as_is = count(0.0, 0.0)
    # Of equally good ones, the nearest to a level page.
    tried = [(count(slope, spread) - 2 * abs(slope) - 4 * abs(spread), slope, spread)
             for slope in slopes for spread in _SPREADS]  # fmt: skip
    best, slope, spread = max(tried)
    if best < as_is + max(_LEAST_GAIN, _LEAST_SHARE * len(lines)):
        return level
    return [float(drop) for drop in y_N - place(slope, spread)]


def _bound_slopes(lines: Sequence[TextLine]) -> tuple[float, float]:
    """The least and the greatest slope that the page may have in its middle."""
    lengths = [(line.right - line.left) / line.capital for line in lines]
    known = [
        (line.slope * (1 + _PULL / length**2), line.right - line.left)
        for line, length in zip(lines, lengths, strict=True)
        if length >= _LEAST_LENGTH
    ]
    if not known:
        return -_SLACK, _SLACK
    slopes, weights = (np.array(column) for column in zip(*sorted(known), strict=True))
    usual = float(slopes[np.searchsorted(np.cumsum(weights), weights.sum() / 2)])
    return min(0.0, _MOST_TIMES * usual) - _SLACK, max(0.0, _MOST_TIMES * usual) + _SLACK
