"""Connected components of a mask, in numpy: one label per row of pixels joined to those that it touches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


class Components(NamedTuple):
    """The pixels of a mask and the component of each, numbered from 0: rows, columns and labels, [pixels]."""

    rows: Integers
    columns: Integers
    labels: Integers
    count: int


def find_components(mask_HW: npt.NDArray[np.bool_]) -> Components:
    """The components of the true pixels, joined by sides and corners."""
    height, width = mask_HW.shape
    padded = np.zeros((height, width + 2), dtype=np.int8)
    padded[:, 1:-1] = mask_HW
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    parents = _join_runs(rows, starts, ends)
    roots, labels = np.unique(parents, return_inverse=True)
    lengths = ends - starts
    runs = np.repeat(np.arange(len(rows)), lengths)
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return Components(rows[runs], starts[runs] + offsets, labels.reshape(-1)[runs], len(roots))


def _join_runs(rows: Integers, starts: Integers, ends: Integers) -> Integers:
    """The root of each horizontal run of pixels; runs are in raster order and end before ``ends``."""
    parents = list(range(len(rows)))

    def find_root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    row, start, end = rows.tolist(), starts.tolist(), ends.tolist()
    above = 0
    for run in range(len(parents)):
        while row[above] < row[run] - 1 or (row[above] == row[run] - 1 and end[above] < start[run]):
            above += 1
        other = above
        while row[other] == row[run] - 1 and start[other] <= end[run]:
            a, b = find_root(other), find_root(run)
            parents[max(a, b)] = min(a, b)
            other += 1
    return np.array([find_root(run) for run in range(len(parents))], dtype=np.int64)
