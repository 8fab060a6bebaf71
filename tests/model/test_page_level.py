"""Lines of a page that is turned, or seen from the side, are put into their rows."""

from __future__ import annotations

import random

import numpy as np
import pytest

from llava.model.lexical.line_finder import TextLine
from llava.model.lexical.line_reader import sort_lines
from llava.model.lexical.page_level import find_drops

ROWS, STEP, CAPITAL = 8, 50.0, 15.0


def see(slope: float, spread: float, rng: random.Random) -> list[tuple[int, TextLine]]:
    """The lines of a receipt with their rows: an item and a price in each, on rows that slope by ``slope`` in the
    middle of the page and by ``spread`` more at its foot.
    """
    lines = []
    for row in range(ROWS):
        at = (row - (ROWS - 1) / 2) / ((ROWS - 1) / 2)
        own = slope + spread * at
        for left, right in ((80.0, 80 + rng.uniform(60, 180)), (500.0, 560.0)):
            length = (right - left) / CAPITAL
            # The finder draws slopes of short lines towards zero, and misses baselines by a pixel.
            seen = own / (1 + 48 / length**2)
            baseline = 100 + STEP * row + own * (left - 320) + (own - seen) * (right - left) / 2 + rng.uniform(-1, 1)
            lines.append((row, TextLine(left, right, baseline, seen, CAPITAL, 0.9)))
    return lines


@pytest.mark.parametrize("slope", [-0.1, -0.05, 0.04, 0.08])
@pytest.mark.parametrize("spread", [-0.03, 0.0, 0.03])
def test_the_lines_of_a_row_are_brought_to_one_height(slope: float, spread: float) -> None:
    lines = see(slope, spread, random.Random(5))
    drops = find_drops([line for _, line in lines])
    levels: dict[int, list[float]] = {}
    for (row, line), drop in zip(lines, drops, strict=True):
        levels.setdefault(row, []).append(line.baseline + line.slope * (line.right - line.left) / 2 - drop)
    assert max(np.ptp(row) for row in levels.values()) < 0.4 * CAPITAL
    ordered = sort_lines([line for _, line in random.Random(1).sample(lines, len(lines))])
    rows = {line: row for row, line in lines}
    assert [rows[line] for line in ordered] == [row for row in range(ROWS) for _ in range(2)]


def test_a_level_page_and_two_columns_of_their_own_stay_as_they_are() -> None:
    level = [line for _, line in see(0.0, 0.0, random.Random(2))]
    assert not any(find_drops(level))
    columns = [TextLine(left, left + 250, 100 + 40 * row + shift, 0.0, 15, 0.9)
               for left, shift in ((50, 0), (400, 20)) for row in range(8)]  # fmt: skip
    assert not any(find_drops(columns))
    assert not any(find_drops(level[:3]))
    assert find_drops([]) == []
