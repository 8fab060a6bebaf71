"""The table of a pie chart: its wedges' names, shares and colours, paired by where they stand around the centre."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llava.model.lexical.chart_reading import Chart, ChartBar, ReadLine, find_title, read_legend
from llava.model.lexical.object_finder import Drawn
from llava.model.lexical.value_axis import read_number

# Text further out than this many radii is not a wedge's name.
_MAX_REACH = 1.9


def read_pie(objects: Sequence[Drawn], lines: Sequence[ReadLine]) -> Chart | None:
    """The pie that these objects and lines are; None if they are none, or if nothing is written at its wedges."""
    wedges = [each for each in objects if each.kind == "wedge"]
    if len(wedges) < 2:
        return None
    left, top = min(w.box[0] for w in wedges), min(w.box[1] for w in wedges)
    right, bottom = max(w.box[2] for w in wedges), max(w.box[3] for w in wedges)
    middle, radius = ((left + right) / 2, (top + bottom) / 2), (right - left + bottom - top) / 4
    legend, legend_lines = read_legend(objects, lines)
    inside: list[tuple[float, int]] = []
    outside: list[tuple[float, int]] = []
    for i, line in enumerate(lines):
        x, y = _place(line)
        far = math.hypot(x - middle[0], y - middle[1]) / max(radius, 1e-6)
        # A name ends at the circle, however long it is.
        near_x = min(max(middle[0], line.box[0]), line.box[2])
        near = math.hypot(near_x - middle[0], y - middle[1]) / max(radius, 1e-6)
        if i in legend_lines or far > _MAX_REACH or near > 1.35:
            continue
        angle = math.atan2(y - middle[1], (x if far < 0.95 else near_x) - middle[0])
        if read_number(line.text) is not None:
            inside.append((angle, i))
        elif far > 0.95 and any(c.isalnum() for c in line.text):
            outside.append((angle, i))
    angles = [math.atan2(_middle(w)[1] - middle[1], _middle(w)[0] - middle[0]) for w in wedges]
    names, shares = _pair(angles, outside), _pair(angles, inside)
    if 2 * max(len(names), len(shares), len(legend)) < len(wedges):
        return None
    taken = legend_lines | set(names.values()) | set(shares.values())
    title, title_lines = find_title(wedges, lines, taken)
    rows = []
    colours = [colour for colour, _ in legend]
    # Matplotlib and Excel begin at different places; reading order here is clockwise from the top.
    for at in sorted(range(len(wedges)), key=lambda i: (angles[i] + math.pi / 2) % (2 * math.pi)):
        colour = wedges[at].colour
        label = lines[names[at]].text.strip() if at in names else ""
        if not label and colours.count(colour) == 1:
            label = legend[colours.index(colour)][1]
        text = lines[shares[at]].text.strip() if at in shares else ""
        number = read_number(text)
        rows.append(ChartBar(label, "", colour, number and number.value, text, at in shares, wedges[at].box))
    return Chart(title, False, "pie", tuple(rows), frozenset(taken | title_lines))


def _place(line: ReadLine) -> tuple[float, float]:
    return (line.box[0] + line.box[2]) / 2, (line.box[1] + line.box[3]) / 2


def _middle(each: Drawn) -> tuple[float, float]:
    return (each.box[0] + each.box[2]) / 2, (each.box[1] + each.box[3]) / 2


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
