"""The value axis of a chart: numbers as they are written at its ticks, and the scale that fits their places."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_NUMBER = re.compile(r"([-−–+]?)([$€£¥]?)(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?([kKM]|%)?")
# Letters that a reader takes digits for, in what is otherwise a number.
_LOOKALIKES = str.maketrans({"O": "0", "o": "0", "l": "1", "I": "1", "|": "1"})
# A bar that ends this near to a tick is taken to end at it; and to a part of one, if these are far enough apart.
_SNAP_PX, _MIN_GRAIN_PX = 1.5, 8.0
_FACTORS = {"k": 1e3, "K": 1e3, "M": 1e6}
# A longer row of figures is a code, and no number that a chart shows; far above its ticks, a logarithmic scale ends.
_TOO_LARGE, _LARGEST_EXPONENT = 1e16, 15.0
# Ticks are a round number apart, or a few times one where some were not read.
_ROUND, _MOST_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0), 6


# So many ticks tell a scale's slope surely.
_MANY_TICKS = 4


class Number(NamedTuple):
    """A written number: its value, and the sign before or after it ("$", "%" or "")."""

    value: float
    prefix: str
    suffix: str


class Tick(NamedTuple):
    """A number that is written at a place along the axis, in pixels."""

    place: float
    number: Number


class Axis(NamedTuple):
    """A scale: value = slope * place + offset, or its logarithm to base ten is; ``step``: between ticks that were read.

    ``num_ticks``: how many of the read ticks agree with it.
    """

    slope: float
    offset: float
    is_logarithmic: bool
    step: float
    num_ticks: int
    prefix: str
    suffix: str

    def read(self, place: float) -> float:
        """The value at a place in pixels."""
        value = self.slope * place + self.offset
        return 10.0 ** min(value, _LARGEST_EXPONENT) if self.is_logarithmic else value

    def miss(self, value: float, place: float) -> float:
        """How far from a place in pixels a value stands; beyond all where a logarithmic scale has none for it."""
        if self.is_logarithmic:
            if value <= 0:
                return math.inf
            value = math.log10(value)
        return abs((value - self.offset) / self.slope - place)

    def snap(self, value: float) -> float:
        """The value, or the tick, half or fifth between two ticks that it cannot be told from on the image."""
        if self.is_logarithmic:
            exponent = math.log10(max(value, 1e-9))
            is_near = abs(exponent - round(exponent)) / self.slope <= _SNAP_PX + 0.005 * abs(exponent) / self.slope
            return 10.0 ** round(exponent) if is_near else value
        slack = _SNAP_PX + 0.005 * abs(value) / self.slope
        for grain in (self.step, self.step / 2, self.step / 5):
            near = round(value / grain) * grain
            grain_px = grain / self.slope
            if grain_px >= _MIN_GRAIN_PX and abs(value - near) / self.slope <= min(slack, 0.25 * grain_px):
                return near
        return value

    def write(self, value: float) -> str:
        """The value as text, no finer than a tenth or so of the distance between ticks."""
        rough = value if self.is_logarithmic and value > 0 else self.step
        grain = 10.0 ** math.floor(math.log10(rough / 10) + 1e-9)
        rounded = round(value / grain) * grain
        digits = max(0, -math.floor(math.log10(grain) + 1e-9))
        text = f"{rounded:.{digits}f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
        return f"{self.prefix}{'0' if text in ('-0', '') else text}{self.suffix}"


def read_number(text: str) -> Number | None:
    """The number that a text is, as "1,200", "$5", "35%", "-2.5" or "10k"; None if it is something else."""
    first, *others = text.strip().rstrip("-–—_ ").split() or [""]
    # Spaces are for thousands, or beside a sign; else these are several numbers.
    if first[-1:].isdigit() and any(other[0].isdigit() and len(other) != 3 for other in others):
        return None
    packed = "".join((first, *others))
    if any(c.isdigit() for c in packed):
        packed = packed.translate(_LOOKALIKES)
    match = _NUMBER.fullmatch(packed)
    if match is None or not (match[3] or match[4]):
        return None
    value = float((match[3] or "0").replace(",", "") + (match[4] or ""))
    value *= _FACTORS.get(match[5] or "", 1.0)
    if value >= _TOO_LARGE:
        return None
    sign = -1.0 if match[1] in ("-", "−", "–") else 1.0
    return Number(sign * value, match[2], "%" if match[5] == "%" else "")


def fit_axis(ticks: Sequence[Tick], base: float | None) -> Axis | None:
    """The scale on which most ticks lie, linear or logarithmic; None if no two do, or if they are no round numbers.

    Args:
        ticks: what was read beside the axis; some of it may be misread or no tick at all.
        base: where the bars begin; a linear scale that is 0 there is preferred to one that is not. None without bars.
    """
    linear = _fit([(t.place, t.number.value, t.number) for t in ticks], base, False)
    positive = [t for t in ticks if t.number.value > 0 and f"{t.number.value:.0e}"[0] in "125"]
    logarithmic = _fit([(t.place, math.log10(t.number.value), t.number) for t in positive], base, True)
    if linear is None or logarithmic is None:
        return linear or (logarithmic if logarithmic and logarithmic.num_ticks > 2 else None)
    return logarithmic if logarithmic.num_ticks > max(2, linear.num_ticks) else linear


def _are_even(values: Sequence[float], step: float) -> bool:
    """Whether numbers may be ticks: multiples of a round number. Any two prices make a scale, but hardly such a one."""
    for grain in (step / count for count in range(1, _MOST_STEPS + 1)):
        mantissa = grain / 10.0 ** math.floor(math.log10(grain))
        is_round = any(abs(mantissa - number) <= 0.005 * number for number in _ROUND)
        if is_round and all(abs(value / grain - round(value / grain)) <= 0.02 for value in values):
            return True
    return False


def _drop_misread(points: Sequence[tuple[float, float, Number]], near: list[int]) -> list[int]:
    """Ticks without the one that is no round number, if all others are: a 0 that was read as 9 is near its place."""
    for kept in (near, *([k for k in near if k != one] for one in near)):
        values = sorted({points[k][1] for k in kept})
        if len(values) >= min(3, len(near)) and _are_even(values, min(b - a for a, b in pairwise(values))):
            return kept
    return near


def _fit(points: list[tuple[float, float, Number]], base: float | None, is_logarithmic: bool) -> Axis | None:
    best: tuple[float, list[int]] | None = None
    span = max((p[0] for p in points), default=0.0) - min((p[0] for p in points), default=0.0)
    tolerance = max(2.5, 0.015 * span)
    for i in range(len(points)):
        for j in range(len(points)):
            rise = points[j][1] - points[i][1]
            run = points[j][0] - points[i][0]
            if run <= 2 * tolerance or rise <= 0:
                continue
            slope = rise / run
            offset = points[i][1] - slope * points[i][0]
            near = [k for k, p in enumerate(points) if abs(p[0] - (p[1] - offset) / slope) <= tolerance]
            at_base = False
            if base is not None and not is_logarithmic:
                at_base = abs(slope * base + offset) <= 2 * tolerance * slope
            score = len(near) + (0.5 if at_base else 0.0) + 1e-6 * run
            if best is None or score > best[0]:
                best = (score, near)
    if best is None:
        return None
    near = best[1] if is_logarithmic else _drop_misread(points, best[1])
    if len({points[k][1] for k in near}) < 2:
        return None
    middle = sum(points[k][0] for k in near) / len(near)
    mean = sum(points[k][1] for k in near) / len(near)
    spread = sum((points[k][0] - middle) ** 2 for k in near)
    slope = sum((points[k][0] - middle) * (points[k][1] - mean) for k in near) / spread
    values = sorted({points[k][2].value for k in near})
    step = min(b - a for a, b in pairwise(values))
    if not is_logarithmic and not _are_even(values, step):
        return None
    offset = mean - slope * middle
    # Labels stand a little above or below their ticks. Bars begin at 0, or at a power of ten.
    miss = 0.0 if base is None else slope * base + offset
    if base is not None and is_logarithmic and abs(miss - round(miss)) <= 0.2:
        offset -= miss - round(miss)
    elif base is not None and not is_logarithmic and abs(miss) <= 0.35 * step and len(near) >= _MANY_TICKS:
        offset = -slope * base  # so many labels tell the slope, and all of them stand too high or too low
    elif base is not None and not is_logarithmic and abs(miss) <= 0.35 * step:
        # The base is better known than where a label's middle is, so the scale turns about it.
        reach = sum((points[k][0] - base) ** 2 for k in near)
        slope = sum((points[k][0] - base) * points[k][1] for k in near) / reach
        offset = -slope * base
    numbers = [points[k][2] for k in near]
    prefix, suffix = (max(sorted({n[i] for n in numbers}), key=[n[i] for n in numbers].count) for i in (1, 2))
    return Axis(slope, offset, is_logarithmic, step, len(near), str(prefix), str(suffix))
