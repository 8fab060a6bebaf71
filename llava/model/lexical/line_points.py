"""The points of traced lines: where they bend or carry markers, on an even grid, and their heights there.

Slopes are measured on either side of a point, so that a peak is not rounded off by a line's thickness.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llava.model.lexical.line_traces import Floats, Trace

# Points are at least this far apart.
_MIN_SPACING_PX = 11
_MAX_SEGMENTS = 40
# A bend is a change of direction of so many radians.
_BEND = 0.12
_EXPLAINED = 0.88


def find_points(traces: Sequence[Trace], labels: Sequence[float], are_names: bool = False) -> Floats | None:
    """The columns of the points that the lines share, an even grid; None if there is none.

    ``labels``: the columns of the labels at the axis, of which most are points' if lines do not say otherwise;
    ``are_names``: whether they are words, each of which has its point.
    """
    # What hides a line's end hides no other's, as a rule.
    start = float(min(trace.start for trace in traces))
    end = float(max(trace.end for trace in traces)) - 1
    caps = float(np.median([_measure_width(trace) for trace in traces])) / 2
    markers = [found for trace in traces if len(found := _find_markers(trace)) >= 2]
    if len(markers) >= max(1, 0.5 * len(traces)):
        for most in sorted(markers, key=len, reverse=True):
            grid = np.linspace(most[0], most[-1], len(most))
            if len(most) > 2 and all(_lies_on(m, grid) for m in (most, *markers)):
                return grid
        # With markers, lines end at the outer markers' edges.
        start, end = min(m[0] for m in markers), max(m[-1] for m in markers)
    else:
        start, end = start + caps, end - caps
    bends = [bend for trace in traces for bend in _find_bends(trace) if start + 5 < bend < end - 5]
    inside = [label for label in labels if start - 4 <= label <= end + 4]
    if are_names and len(inside) >= 3 and (named := _fit_grid(start, end, bends, inside, 0.4)) is not None:
        return np.linspace(start, end, named + 1)
    alone = _fit_grid(start, end, bends)
    both = _fit_grid(start, end, bends, inside) if len(inside) >= 2 else None
    if (
        alone is not None
        and len({round((b - start) / (end - start) * alone) for b in bends}) >= 0.7 * (alone - 1) > 0.7
    ):
        near = both if both is not None and both <= 1.5 * alone else alone
        return np.linspace(start, end, near + 1)
    segments = both or alone
    if segments is None and len(inside) >= 3:
        # Lines that hide one another seem to bend where they cross.
        segments = _fit_grid(start, end, bends, inside, 0.5)
    if segments is not None:
        return np.linspace(start, end, segments + 1)
    return np.array(sorted(inside)) if len(inside) >= 2 else None


def _lies_on(places: Sequence[float], grid: Floats) -> bool:
    """Whether places are points of a grid that is not too narrow."""
    spacing = float(grid[1] - grid[0])
    misses = np.abs(np.array(places)[:, None] - grid[None]).min(1)
    return spacing >= _MIN_SPACING_PX and bool(misses.max() <= max(3.0, 0.12 * spacing))


def _fit_grid(
    start: float, end: float, bends: Sequence[float], labels: Sequence[float] = (), share: float = _EXPLAINED
) -> int | None:
    """The fewest equal segments at whose ends that share of the bends, and nearly all labels, are."""
    if not bends and not labels:
        return None
    for count in range(1, _MAX_SEGMENTS + 1):
        spacing = (end - start) / count
        if spacing < _MIN_SPACING_PX:
            return None

        def explain(places: Sequence[float], slack: float, spacing: float = spacing) -> float:
            if not places:
                return 1.0
            at = (np.array(places) - start) / spacing
            return float((np.abs(at - at.round()) * spacing <= slack).mean())

        slack = min(6.0, max(3.0, 0.08 * spacing))
        if explain(bends, slack) >= share and explain(labels, min(8.0, 0.2 * spacing)) >= _EXPLAINED:
            return count
    return None


def measure_heights(trace: Trace, points: Floats) -> list[float | None]:
    """The line's row at each of the points' columns; None where it does not reach."""
    spacing = float(np.diff(points).min()) if len(points) > 1 else 40.0
    width = _measure_width(trace)
    markers = _find_markers(trace)
    inner = max(2.0, width / 2) + (3.0 if markers else 0.0)
    columns = trace.start + np.arange(len(trace.middle)) + 0.5
    seen = ~np.isnan(trace.middle)
    heights: list[float | None] = []
    for point in points.tolist():
        if not trace.start - 0.3 * spacing <= point <= trace.end + 0.3 * spacing:
            heights.append(None)
            continue
        ends = []
        for side in (-1, 1):
            away = side * (columns - point)
            chosen = seen & (away >= inner) & (away <= max(inner + 5, 0.45 * spacing))
            if chosen.sum() >= 4:
                slope, height = np.polyfit(columns[chosen] - point, trace.middle[chosen], 1)
                miss = np.abs(trace.middle[chosen] - (slope * (columns[chosen] - point) + height)).mean()
                ends.append((float(height), float(miss)))
        straight = [height for height, miss in ends if miss <= 0.6 + 0.15 * width]
        if straight and (len(straight) == 1 or abs(straight[0] - straight[1]) <= 5 + width):
            heights.append(float(np.mean(straight)))
            continue
        near = seen & (np.abs(columns - point) <= 2.5)
        if near.any():
            heights.append(float(np.mean(trace.middle[near])))
        elif seen.any():
            heights.append(float(np.interp(point, columns[seen], trace.middle[seen])))
        else:
            heights.append(None)
    return heights


def _measure_width(trace: Trace) -> float:
    """The thickness of the line across its direction, px."""
    slopes = np.gradient(_fill(trace.middle)) if len(trace.middle) > 2 else np.zeros(len(trace.middle))
    return float(np.nanmedian(trace.thickness / np.sqrt(1 + slopes**2)))


def _fill(middle: Floats) -> Floats:
    seen = ~np.isnan(middle)
    at = np.arange(len(middle))
    return middle if seen.all() else np.interp(at, at[seen], middle[seen])


def _find_markers(trace: Trace) -> list[float]:
    """The columns of markers: where the line is thicker than its direction explains."""
    middle = _fill(trace.middle)
    if len(middle) < 24:
        return []
    reach = 6
    smooth = np.convolve(np.pad(middle, reach, mode="edge"), np.ones(2 * reach + 1) / (2 * reach + 1), mode="valid")
    slopes = np.gradient(smooth)
    across = np.nan_to_num(trace.thickness) / np.sqrt(1 + slopes**2)
    width = float(np.median(across))
    is_thick = across > max(1.6 * width, width + 2.5)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], is_thick.astype(np.int8), [0]))))
    found: list[tuple[float, int]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if found and first - (found[-1][0] + found[-1][1] / 2) <= 3:
            left = found[-1][0] - found[-1][1] / 2
            found[-1] = ((left + last) / 2, int(last - left))
        else:
            found.append(((first + last) / 2, last - first))
    found = [each for each in found if each[1] >= max(3, 0.8 * width)]
    if not found:
        return []
    usual = float(np.median([size for _, size in found]))
    # A line without markers is thick where it turns sharply, but not at its ends.
    if found[0][0] > 1.2 * usual + 3 or found[-1][0] < len(middle) - 1.2 * usual - 3:
        return []
    alike = [trace.start + at for at, size in found if 0.5 * usual <= size <= 2.2 * usual]
    return alike if len(alike) >= 0.7 * len(found) else []


def _find_bends(trace: Trace) -> list[float]:
    """The columns where the line changes its direction."""
    middle = _fill(trace.middle)
    reach = int(min(14, max(6, 0.02 * len(middle))))
    if len(middle) < 4 * reach:
        return []
    offsets = np.arange(reach) - (reach - 1) / 2
    weights = offsets / (offsets**2).sum()
    slopes = np.convolve(middle, weights[::-1], mode="valid")  # of the window that starts at each column
    means = np.convolve(middle, np.ones(reach) / reach, mode="valid")
    gap = 2
    count = len(middle) - 2 * reach - gap
    left_slope, right_slope = slopes[:count], slopes[reach + gap :][:count]
    left_mean, right_mean = means[:count], means[reach + gap :][:count]
    turn = np.abs(np.arctan(right_slope) - np.arctan(left_slope))
    found: list[float] = []
    for at in np.flatnonzero(turn > _BEND).tolist():
        if turn[at] < turn[max(0, at - reach) : at + reach + 1].max():
            continue
        # Where the straight lines on either side meet.
        left_middle, right_middle = at + (reach - 1) / 2, at + reach + gap + (reach - 1) / 2
        rise = right_slope[at] - left_slope[at]
        start = left_mean[at] - left_slope[at] * left_middle
        end = right_mean[at] - right_slope[at] * right_middle
        meet = (start - end) / rise
        if left_middle <= meet <= right_middle + 1 and (not found or trace.start + meet + 0.5 - found[-1] > reach):
            found.append(float(trace.start + meet + 0.5))
    return found
