"""The table of a pie chart: its wedges' names, shares and colours, paired by where they stand around the centre."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from llava.model.lexical.chart_reading import Chart, ChartBar, ReadLine, find_title, read_legend
from llava.model.lexical.object_finder import Drawn
from llava.model.lexical.pie_finder import Pie, Wedge
from llava.model.lexical.value_axis import read_number

# Text further out than this many radii is not a wedge's name.
_MAX_REACH = 1.9
# A sign of percent that was read twice, or with figures after it.
_SPELT_PERCENT = re.compile(r"(\d{1,2}(?:[.,]\d)?) ?%[%\d]{1,2}")
# A share is what an angle says within so many percent of the whole circle.
_NEAR_SHARE = 3.5


def read_pie(objects: Sequence[Drawn], lines: Sequence[ReadLine], pie: Pie | None = None) -> Chart | None:
    """The pie that these objects and lines are; None if they are none, or if nothing is written at its wedges.

    ``pie``: as it was measured; then wedges among the objects do not count, and shares that are not written follow
    from the angles.
    """
    if pie is None:
        pie = _gather_wedges([each for each in objects if each.kind == "wedge"])
    if pie is None:
        return None
    legend, legend_lines = read_legend(objects, lines)
    inside: list[tuple[float, int]] = []
    outside: list[tuple[float, int]] = []
    for i, line in enumerate(lines):
        x, y = _place(line)
        far = math.hypot(x - pie.x, y - pie.y) / max(pie.radius, 1e-6)
        # A name ends at the circle, however long it is.
        near_x = min(max(pie.x, line.box[0]), line.box[2])
        near = math.hypot(near_x - pie.x, y - pie.y) / max(pie.radius, 1e-6)
        if i in legend_lines or far > _MAX_REACH or near > 1.35:
            continue
        angle = math.atan2(y - pie.y, (x if far < 0.95 else near_x) - pie.x)
        if _mend_share(line.text) is not None and (far < 0.95 or "%" in line.text):
            inside.append((angle, i))
        elif far > 0.95 and any(c.isalnum() for c in line.text) and not _is_title(pie, line):
            outside.append((angle, i))
    angles = [wedge.direction for wedge in pie.wedges]
    names, shares = _pair(angles, outside), _pair(angles, inside)
    # A pie that was measured is one where anything is written at it.
    least = 1 if pie.wedges[0].share and len(pie.wedges) > 2 else len(pie.wedges) / 2
    if max(len(names), len(shares), len(legend)) < least:
        return None
    taken = legend_lines | set(names.values()) | set(shares.values())
    circle = (pie.x - pie.radius, pie.y - pie.radius, pie.x + pie.radius, pie.y + pie.radius)
    title, title_lines = find_title([Drawn("wedge", "", circle, 1.0)], lines, taken)
    colours = [colour for colour, _ in legend]
    rows = []
    for at, wedge in enumerate(pie.wedges):
        label = lines[names[at]].text.strip() if at in names else ""
        if not label and colours.count(wedge.colour) == 1:
            label = legend[colours.index(wedge.colour)][1]
        elif not label and len(legend) == len(pie.wedges):
            label = _name_by_order(pie, legend, at)
        text, value = _tell_share(wedge, lines[shares[at]].text.strip() if at in shares else "")
        rows.append(ChartBar(label, "", wedge.colour, value, text, at in shares, circle))
    return Chart(title, False, "pie", tuple(rows), frozenset(taken | title_lines))


def _is_title(pie: Pie, line: ReadLine) -> bool:
    """Whether a line stands over the middle, further up than names do."""
    return line.box[3] < pie.y - 1.17 * pie.radius and abs(_place(line)[0] - pie.x) < 0.06 * pie.radius


def _name_by_order(pie: Pie, legend: Sequence[tuple[str, str]], at: int) -> str:
    """The legend's entry of a wedge whose colour's name is not its alone: entries run around the pie, either way."""
    ours = [wedge.colour for wedge in pie.wedges]
    theirs = [colour for colour, _ in legend]
    count = len(ours)
    ways = [[(first + step * i) % count for i in range(count)] for first in range(count) for step in (1, -1)]
    best = max(ways, key=lambda way: sum(ours[wedge] == colour for wedge, colour in zip(way, theirs, strict=True)))
    return legend[best.index(at)][1]


def _tell_share(wedge: Wedge, written: str) -> tuple[str, float | None]:
    """A wedge's share as text and as a number: as written, unless that is a percentage that its angle belies."""
    measured = 100 * wedge.share
    written = _mend_share(written, measured) or ""
    number = read_number(written)
    if number is not None and (number.suffix != "%" or not measured or abs(number.value - measured) <= _NEAR_SHARE):
        return written, number.value
    if not measured:
        return "", None
    return f"{measured:.0f}%", measured


def _mend_share(written: str, measured: float = 0.0) -> str | None:
    """A share as it was written, where its sign of percent was read as figures ("40%6", "329"); None for no number.

    ``measured``: in percent, 0 where it is unknown.
    """
    text = written.strip()
    if match := _SPELT_PERCENT.fullmatch(text):
        return f"{match[1]}%"
    is_too_large = text.isdigit() and int(text) > 100 and abs(int(text[:-1]) - measured) <= _NEAR_SHARE
    return f"{text[:-1]}%" if is_too_large else None if read_number(text) is None else text


def _gather_wedges(found: Sequence[Drawn]) -> Pie | None:
    """A pie of the finder's wedges, whose shares are unknown: 0."""
    if len(found) < 2:
        return None
    left, top = min(w.box[0] for w in found), min(w.box[1] for w in found)
    right, bottom = max(w.box[2] for w in found), max(w.box[3] for w in found)
    x, y, radius = (left + right) / 2, (top + bottom) / 2, (right - left + bottom - top) / 4
    wedges = [
        Wedge(-1, w.colour, 0.0, math.atan2((w.box[1] + w.box[3]) / 2 - y, (w.box[0] + w.box[2]) / 2 - x))
        for w in found
    ]
    # Matplotlib and Excel begin at different places; reading order here is clockwise from the top.
    wedges.sort(key=lambda wedge: (wedge.direction + math.pi / 2) % (2 * math.pi))
    return Pie(x, y, radius, tuple(wedges))


def _place(line: ReadLine) -> tuple[float, float]:
    return (line.box[0] + line.box[2]) / 2, (line.box[1] + line.box[3]) / 2


def _pair(angles: list[float], texts: list[tuple[float, int]]) -> dict[int, int]:
    """Line by wedge, each used once, by the smallest differences of angle; where counts agree, in the same order."""

    def measure(a: float, b: float) -> float:
        return abs((a - b + math.pi) % (2 * math.pi) - math.pi)

    if len(texts) == len(angles):
        wedges = sorted(range(len(angles)), key=lambda i: angles[i])
        ordered = sorted(texts)
        turns = [
            (sum(measure(angles[w], ordered[(k + turn) % len(texts)][0]) for k, w in enumerate(wedges)), turn)
            for turn in range(len(texts))
        ]
        turn = min(turns)[1]
        return {w: ordered[(k + turn) % len(texts)][1] for k, w in enumerate(wedges)}
    pairs = sorted((measure(angle, at), w, i) for w, angle in enumerate(angles) for at, i in texts)
    found: dict[int, int] = {}
    for difference, w, i in pairs:
        if difference < math.pi / 4 and w not in found and i not in found.values():
            found[w] = i
    return found
