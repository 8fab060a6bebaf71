"""Lines of text that run across the rules between a table's cells, parted at these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from llava.model.lexical.line_finder import TextLine

# The ground of a cell, and a rule, go on above the capitals and below the baseline, by these parts of a capital's
# height, which letters do not.
_ABOVE, _BELOW = 1.45, 0.5
# Values of 0 to 255: what letters differ from their ground by at least, one ground or rule from the next, and the
# pixels of one column of it from each other. Between two grounds there are at most so many blurred columns.
_LETTER, _EDGE, _UNEVEN, _BLUR_PX = 40.0, 14.0, 14.0, 3
# A cell's text is at least so broad, as a part of a capital's height.
_LEAST_BREADTH = 0.2


def part_at_rules(planes_3HW: npt.NDArray[np.float32], lines: Sequence[TextLine]) -> list[TextLine]:
    """The lines, those across rules as one for each cell that has some ink."""
    return [part for line in lines for part in _part(planes_3HW, line)]


def _part(planes_3HW: npt.NDArray[np.float32], line: TextLine) -> Iterator[TextLine]:
    middle = line.baseline + line.slope * (line.right - line.left) / 2
    top, bottom = int(middle - _ABOVE * line.capital), int(middle + _BELOW * line.capital) + 1
    left, right = int(max(line.left, 0)), int(min(line.right, planes_3HW.shape[2]))
    strip = planes_3HW[:, max(top, 0) : bottom, left:right]
    if top < 0 or bottom > planes_3HW.shape[1] or strip.shape[2] < 3 * line.capital:
        yield line
        return
    is_ground_W = (strip.max(1) - strip.min(1)).max(0) <= _UNEVEN
    columns = np.flatnonzero(is_ground_W)
    colours = strip.mean(1)[:, columns]
    steps = np.abs(np.diff(colours, axis=1)).max(0)
    edges = np.flatnonzero((steps >= _EDGE) & (np.diff(columns) <= _BLUR_PX + 1))
    if not len(edges):
        yield line
        return
    letters = strip[:, int(0.4 * line.capital) : int(1.45 * line.capital)]
    has_ink_W = ~is_ground_W & ((letters.max(1) - letters.min(1)).max(0) >= _LETTER)
    starts, ends = [0, *columns[edges + 1].tolist()], [*columns[edges].tolist(), strip.shape[2]]
    for start, end in zip(starts, ends, strict=True):
        ink = start + np.flatnonzero(has_ink_W[start:end])
        if len(ink) and ink[-1] + 1 - ink[0] >= _LEAST_BREADTH * line.capital:
            shift = line.left - left
            low, high = left + float(ink[0]) + shift, left + float(ink[-1]) + 1 + shift
            yield line._replace(left=low, right=high, baseline=line.baseline + line.slope * (low - line.left))
