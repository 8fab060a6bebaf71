"""The median, without NumPy's own, which imports masked arrays: a fifth of a second of a command's first image."""

from __future__ import annotations

from typing import Any

import numpy as np


def median(values: Any) -> Any:
    """As NumPy's along the first axis, of at least one value."""
    ordered = np.sort(values, axis=0)
    return ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]].mean(axis=0)
