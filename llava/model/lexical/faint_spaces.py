"""Spaces that a reader of crops holds for less likely than nothing, as it does beside short words: "of50" is "of 50".

Shapes: T steps of two pixels, K classes, H and W pixels of a crop.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from llava.model.lexical.characters import ALPHABET, find_runs

# A space is at least so likely at some step, and no ink is in so many columns of the crop, a third of a capital's
# height: with a quarter, screen fonts that are drawn unevenly had spaces within words ("Posses sion").
_ELSEWHERE = (0.08, 5)
# Between a figure and a letter, where readers of words see the fewest spaces, it is less likely and the gap wider: 37
# of 39 that were missed in 20 fonts, and 2 of 472 places without one.
_AT_FIGURE = (0.002, 5)
# Ink differs from its ground at least by this share of what most of the ink does. A pixel's step is half a column.
_INK_SHARE, _MOST_INK_PERCENTILE, _PX_A_STEP = 0.25, 99, 2
# A space is so many times as wide as most of the gaps between the line's letters: in "M E N U" none is.
_WIDER = 2.0
# Nothing is parted after the first nor before the second ones.
_OPENING, _CLOSING = frozenset("@/_-$€£¥(#"), frozenset("@/_-.,:;()!?%")
_SPACE = ALPHABET.index(" ") + 1


def add_faint_spaces(text: str, scores_TK: npt.NDArray[np.float32], crop_3HW: npt.NDArray[np.float32]) -> str:
    """The text with the spaces between two of its characters that it lacks.

    Args:
        text: what the runs of ``scores_TK`` were read as, a character for each, without spaces at the ends.
        scores_TK: log probabilities.
        crop_3HW: what they were read from.
    """
    runs = find_runs(scores_TK)
    while runs and runs[0].label == _SPACE:
        runs = runs[1:]
    while runs and runs[-1].label == _SPACE:
        runs = runs[:-1]
    if len(runs) != len(text):
        return text
    likely_T = np.exp(scores_TK[:, _SPACE])
    if likely_T.max() < _AT_FIGURE[0]:
        return text
    is_clear_W = _find_clear_columns(crop_3HW)
    middles = [_PX_A_STEP * (run.start + run.end) // 2 for run in runs]
    gaps = [_measure_longest(is_clear_W[start : end + 1]) for start, end in pairwise(middles)]
    within = [gap for gap, (before, after) in zip(gaps, pairwise(text), strict=True) if " " not in (before, after)]
    usual = float(np.median(within)) if within else 0.0
    parts = [text[:1]]
    for (a, b), (before, after), gap in zip(pairwise(runs), pairwise(text), gaps, strict=True):
        at_figure = (before.isdigit() and after.isalpha()) or (before.isalpha() and after.isdigit())
        likely, columns = _AT_FIGURE if at_figure else _ELSEWHERE
        is_wide = gap >= columns and gap >= _WIDER * usual
        is_space = is_wide and _may_part(before, after) and likely_T[a.start : b.end].max() >= likely
        parts.append(f" {after}" if is_space else after)
    return "".join(parts)


def _may_part(before: str, after: str) -> bool:
    """Whether a space may be between two characters. A name of a site or a file has none at its dot."""
    is_name = before == "." and after.islower()
    return " " not in (before, after) and before not in _OPENING and after not in _CLOSING and not is_name


def _find_clear_columns(crop_3HW: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which columns of a crop have no ink, but for its edges' rows."""
    grey_HW = crop_3HW.mean(0)
    ink_HW = np.abs(grey_HW - np.median(grey_HW))
    clear: npt.NDArray[np.bool_] = (ink_HW[1:-1] <= _INK_SHARE * np.percentile(ink_HW, _MOST_INK_PERCENTILE)).all(0)
    return clear


def _measure_longest(is_clear: npt.NDArray[np.bool_]) -> int:
    """How many follow each other at most."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_clear, [False])).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0
