"""Spaces that the reader of crops missed: gaps between characters that are as wide as the spaces that it did see.

A line measures itself: what is a wide gap depends on its face. So a line without any space gets none.

Shapes: W width in px, T steps of two px, K classes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor

from llava.model.lexical.characters import BLANK, encode, find_runs

_SPACE, _NEVER = encode(" ")[0], -20.0
_STEP_PX = 2
# Between figures a 1 leaves as much room as a space does.
_FIGURES = frozenset(encode("0123456789"))
# Ink differs from the ground by more than this share of what differs most from it.
_LEAST_INK = 0.3
# A gap is a space from this share of the line's usual space on, if it has so many pixels, and if it is so many times
# wider than all gaps that are none.
_LEAST_SHARE, _LEAST_PX, _LEAST_APART = 0.9, 3, 1.25
# The rows of a crop that letters of one line reach; beyond them may be other lines.
_ROWS = slice(3, 20)


def mark_spaces(scores_TK: npt.NDArray[np.float32], crop_3HW: Tensor) -> npt.NDArray[np.float32]:
    """The log probabilities of a crop's characters, with spaces where gaps are wide and nothing was read."""
    runs = find_runs(scores_TK)
    letters = [run for run in runs if run.label != _SPACE]
    if len(letters) in (0, len(runs)):
        return scores_TK
    is_blank = np.concatenate(([False], _find_blank(crop_3HW), [False]))
    starts, ends = (np.flatnonzero(np.diff(is_blank.astype(np.int8)) == way) for way in (1, -1))
    seen: list[int] = []
    unread: list[tuple[int, int]] = []  # the width of a gap, and the step in its middle
    for a, b in pairwise(letters):
        left, right = ((run.start + run.end) / 2 * _STEP_PX for run in (a, b))
        gaps = np.where((starts < right) & (ends > left), ends - starts, 0)
        width = int(gaps.max(initial=0))
        if any(a.end <= run.start < b.start and run.label == _SPACE for run in runs):
            seen.append(width)
        elif not _FIGURES.issuperset((a.label, b.label)):
            middle = (starts[gaps.argmax()] + ends[gaps.argmax()]) / 2 / _STEP_PX if width else 0.0
            free = [step for step in range(a.end, b.start) if scores_TK[step].argmax() == BLANK]
            unread += [(width, min(free, key=lambda step: abs(step - middle)))] if free else []
    least = max(_LEAST_PX, _LEAST_SHARE * float(np.median(seen))) if seen else np.inf
    wide = [gap for gap in unread if gap[0] >= least]
    widest = max((width for width, _ in unread if width < least), default=0)
    # Where gaps of letters and of words are not clearly apart, they tell nothing.
    if not wide or min(wide)[0] < _LEAST_APART * widest:
        return scores_TK
    marked = scores_TK.copy()
    for _, step in wide:
        marked[step] = _NEVER
        marked[step, _SPACE] = 0.0
    return marked


def _find_blank(crop_3HW: Tensor) -> npt.NDArray[np.bool_]:
    """Which columns [W] of a crop have no ink."""
    rows = crop_3HW[:, _ROWS].float()
    away_HW = (rows - rows.flatten(1).median(1).values[:, None, None]).abs().sum(0)
    columns: npt.NDArray[np.float32] = away_HW.amax(0).numpy()
    return columns < _LEAST_INK * float(np.quantile(columns, 0.9))
