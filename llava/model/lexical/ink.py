"""Which pixels are a line's ink, which its ground, and which neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llava.model.lexical.flat_fills import Bools

# Ink is at least so far from its ground, and this share of the pixels has the most of it.
_LEAST_CONTRAST, _INK_SHARE = 60.0, 0.05
# What is nearer to the ground than this share of the way to the ink belongs to it.
_NEAR_GROUND = 0.25


def find_ground(inner: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The ground [3] of pixels [3, H, W] of which most are ground: their median."""
    ground: npt.NDArray[np.float64] = np.median(inner.reshape(len(inner), -1), axis=1)
    return ground


def tell_apart(part: npt.NDArray[Any], inner: npt.NDArray[Any]) -> tuple[Bools, Bools]:
    """Which pixels of a part [3, H, W] of an image, 0 to 255, have the ink of a line, and which its ground.

    The ink is what differs most from the ground among the line's own pixels, ``inner``. Both are told from what has
    another colour.
    """
    ground = find_ground(inner)
    away_3P = inner.reshape(len(inner), -1) - ground[:, None]
    farthest = np.argsort(np.abs(away_3P).sum(0))[-max(1, int(_INK_SHARE * away_3P.shape[1])) :]
    ink = away_3P[:, farthest].mean(1)
    length = max(float((ink**2).sum()), _LEAST_CONTRAST**2)
    away = part - ground[:, None, None]
    along, distance = np.tensordot(ink, away, 1) / length, (away**2).sum(0) / length
    return (along > 0.5) & (distance - along**2 < 0.25), distance < _NEAR_GROUND**2
