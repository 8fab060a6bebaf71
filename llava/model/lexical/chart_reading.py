"""The table of a bar chart, from the bars that were found and the lines that were read.

Upright and lying bars are one case: boxes are moved to a frame in which ``along`` runs along the names and ``up`` along
the values, away from the bars' base. The bars themselves decide which way that is. Anything else gives None.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from statistics import mean, median, pstdev
from typing import NamedTuple, Protocol

from llava.model.lexical.bar_names import PlacedBar, Span, Unit, Word, read_names, split_line
from llava.model.lexical.label_rows import have_scale
from llava.model.lexical.object_finder import Box, Drawn
from llava.model.lexical.value_axis import Axis, Tick, fit_axis, read_number

# What has more bars is a barcode, a board or a keyboard, and its table would not fit into a description.
MAX_BARS = 40
# Of so many bars, most of which have names, no value has to be known.
_MANY_BARS, _NAMED_SHARE = 4, 0.7

# With so many ticks, it is known where the axis ends. Labels or bars that are farther off than this share of the
# distance from one to the next, or to the next tick, belong elsewhere.
_SURE_TICKS, _OFF_SHARE = 3, 0.35


class ReadLine(Protocol):
    """A line of text and where it stands, in pixels: left, top, right and bottom."""

    @property
    def text(self) -> str:
        """What was read."""
        ...

    @property
    def box(self) -> Box:
        """Where it stands."""
        ...


class ChartBar(NamedTuple):
    """One bar, or one part of a stack.

    Attributes:
        label: its name at the axis, or in the legend if only that has one; "" if none was read.
        series: its entry of the legend, where there are several; else "".
        value: None where it can be neither read nor measured; ``text`` is "" then.
        text: the value as it is printed, or measured to a sensible precision.
    """

    label: str
    series: str
    colour: str
    value: float | None
    text: str
    is_printed: bool
    box: Box


class Chart(NamedTuple):
    """A bar chart. Bars stand in reading order: group by group; a stack's parts from its base.

    ``used``: the indices of the lines that went into it, as titles, names, ticks, values and entries of the legend.
    """

    title: str
    is_horizontal: bool
    arrangement: str  # "single", "grouped" or "stacked"; "pie" for wedges
    bars: tuple[ChartBar, ...]
    used: frozenset[int]


def read_chart(objects: Sequence[Drawn], lines: Sequence[ReadLine]) -> Chart | None:
    """The bar chart that these objects and lines are; None if they are none."""
    drawn = [each for each in objects if each.kind == "bar"]
    if not 1 <= len(drawn) <= MAX_BARS:
        return None
    is_horizontal = _choose_frame(drawn)
    bars = [_move_bar(each, is_horizontal) for each in drawn]
    base = _find_base(bars)
    rooted = _count_rooted(bars, base)
    if rooted < 0.7 * len(bars):
        return None
    # A line that was found beyond an edge of the image has no height in it.
    words = [
        _move_line(i, line, is_horizontal)
        for i, line in enumerate(lines)
        if line.text.strip() and line.box[3] > line.box[1]
    ]
    legend, legend_lines = read_legend(objects, lines)
    words = [word for word in words if word.line not in legend_lines]
    units, arrangement = _group(bars, base)
    ticks = _find_ticks(bars, words, is_horizontal)
    axis = fit_axis([tick for tick, _ in ticks], base)
    size = median([word.height for word in words]) if words else 0.0
    slack_px = max(5.0, 0.5 * size)
    tick_lines = {i for tick, i in ticks if axis is not None and axis.miss(tick.number.value, tick.place) <= slack_px}
    others = [w for w in words if w.line not in tick_lines]
    labels = read_names(units, others, base)
    if arrangement == "grouped":
        # Where each bar has a line of its own, a gap is a bar that was not found.
        alone = [Unit((bar,)) for unit in units for bar in unit.bars]
        own = read_names(alone, others, base)
        lines_of_own = [line for _, found in own for line in found]
        if all(text for text, _ in own) and len(lines_of_own) == len(set(lines_of_own)) == len(alone):
            units, arrangement, labels = alone, "single", own
    if have_scale([text for text, _ in labels]) or _float(axis, ticks, base):
        return None
    if _are_off(units, labels, others):
        labels = [("", found) for _, found in labels]
    label_lines = {line for _, found in labels for line in found}
    free = [w for w in words if w.line not in tick_lines | label_lines]
    printed = _find_printed(bars, free)
    named = sum(bool(text) for text, _ in labels)
    enough = (axis is not None and axis.num_ticks >= 2) + (2 * len(printed) >= len(bars)) + (2 * named >= len(units))
    if enough < (2 if len(bars) == 1 else 1):
        return None
    values = _measure(bars, axis, printed, base)
    if 2 * len(printed) < len(bars) and _are_cells(bars):
        return None
    title, title_line = find_title(drawn, lines, tick_lines | label_lines, legend_lines)
    used = legend_lines | tick_lines | label_lines | title_line | {w.line for w in printed.values()}
    rows = _write_rows(units, labels, values, legend, arrangement)
    return Chart(title, is_horizontal, arrangement, tuple(rows), frozenset(used))


# --- the frame ---


def _move_bar(each: Drawn, is_horizontal: bool) -> PlacedBar:
    x0, y0, x1, y1 = each.box
    return PlacedBar(each, *((Span(y0, y1), Span(x0, x1)) if is_horizontal else (Span(x0, x1), Span(-y1, -y0))))


def _move_line(index: int, line: ReadLine, is_horizontal: bool) -> Word:
    x0, y0, x1, y1 = line.box
    along, up = (Span(y0, y1), Span(x0, x1)) if is_horizontal else (Span(x0, x1), Span(-y1, -y0))
    return Word(line.text.strip(), along, up, index, y1 - y0)


def _choose_frame(drawn: list[Drawn]) -> bool:
    """Whether the bars lie: bars of one chart begin at one base and are equally broad."""
    scores = []
    for is_horizontal in (False, True):
        bars = [_move_bar(each, is_horizontal) for each in drawn]
        breadths = [bar.along.size for bar in bars]
        uneven = pstdev(breadths) / max(1e-6, mean(breadths))
        longer = mean(bar.up.size > bar.along.size for bar in bars)
        scores.append(_count_rooted(bars, _find_base(bars)) / len(bars) - min(1.0, uneven) + 0.1 * longer)
    return scores[1] > scores[0]


def _tolerance(bars: list[PlacedBar]) -> float:
    return max(2.5, 0.02 * (max(b.up.high for b in bars) - min(b.up.low for b in bars)))


def _find_base(bars: list[PlacedBar]) -> float:
    """Where the bars begin: the place from which most go up, or down where values are negative."""
    near = _tolerance(bars)

    def rate(place: float) -> tuple[float, float]:
        sides = [_side(bar, bars, place) for bar in bars]
        return sides.count(1) + 0.6 * sides.count(-1), -place

    best = max([b.up.low for b in bars] + [b.up.high for b in bars], key=rate)
    ends = [b.up.low for b in bars] + [b.up.high for b in bars]
    return mean(end for end in ends if abs(end - best) <= near)


def _is_same_place(a: PlacedBar, b: PlacedBar) -> bool:
    """Whether two bars lie on one another's line, as the parts of a stack do."""
    both = min(a.along.high, b.along.high) - max(a.along.low, b.along.low)
    return both > 0.7 * min(a.along.size, b.along.size)


def _side(bar: PlacedBar, bars: list[PlacedBar], base: float) -> int:
    """1 if the bar goes up from the base, or from the end of one that does; -1 if so down; 0 if it does neither."""
    near = _tolerance(bars)
    if abs(bar.up.low - base) <= near:
        return 1
    if abs(bar.up.high - base) <= near:
        return -1
    under = [o for o in bars if o is not bar and _is_same_place(bar, o)]
    if bar.up.low > base:
        return int(any(abs(o.up.high - bar.up.low) <= near for o in under))
    return -int(any(abs(o.up.low - bar.up.high) <= near for o in under))


def _count_rooted(bars: list[PlacedBar], base: float) -> int:
    return sum(_side(bar, bars, base) != 0 for bar in bars)


def _are_cells(bars: list[PlacedBar]) -> bool:
    """Whether bars are equally long, as the fields of a board, a barcode's or a flag's stripes are."""
    lengths = [bar.up.size for bar in bars]
    return len(bars) > 2 and max(lengths) - min(lengths) <= max(2.0, 0.015 * max(lengths))


def _are_off(units: list[Unit], labels: Sequence[tuple[str, set[int]]], words: Sequence[Word]) -> bool:
    """Whether numbers below bars are ticks of a scale of their own, as below a histogram: here left of a bar's middle,
    there right of it.
    """
    names = [text for text, _ in labels if text]
    if len(units) < _MANY_BARS or not names or not all(read_number(text) is not None for text in names):
        return False
    places = {word.line: word for word in words}
    found = [
        (unit, places[next(iter(lines))]) for unit, (_, lines) in zip(units, labels, strict=True) if len(lines) == 1
    ]
    away = [word.along.middle - unit.middle for unit, word in found if read_number(word.text) is not None]
    slot = (max(unit.middle for unit in units) - min(unit.middle for unit in units)) / (len(units) - 1)
    return len(away) < 3 or max(away) - min(away) > _OFF_SHARE * slot


def _float(axis: Axis | None, ticks: Sequence[tuple[Tick, int]], base: float) -> bool:
    """Whether bars begin at no end of the axis and not at 0 either, as markers do that are level by chance."""
    if axis is None or axis.is_logarithmic or axis.num_ticks < _SURE_TICKS:
        return False
    values = [t.number.value for t, _ in ticks if axis.miss(t.number.value, t.place) * axis.slope < 0.5 * axis.step]
    value, slack = axis.read(base), _OFF_SHARE * axis.step
    return len(values) > 2 and min(values) + slack < value < max(values) - slack and abs(value) > slack


def has_values(chart: Chart) -> bool:
    """Whether the values of most bars are known."""
    return 2 * sum(bar.value is not None for bar in chart.bars) >= len(chart.bars)


def is_sure(chart: Chart) -> bool:
    """Whether fields of colour in a row are bars: values can be read, or there are many, and most have own names."""
    names = {(bar.label, bar.series) for bar in chart.bars if bar.label}
    are_named = len(chart.bars) >= _MANY_BARS and len(names) >= _NAMED_SHARE * len(chart.bars)
    return are_named or has_values(chart)


# --- groups, names and the legend ---


def _group(bars: list[PlacedBar], base: float) -> tuple[list[Unit], str]:
    """The bars' units along the axis, in order, and the arrangement."""
    columns: list[list[PlacedBar]] = []
    for bar in sorted(bars, key=lambda b: b.along.middle):
        if columns and _is_same_place(columns[-1][0], bar):
            columns[-1].append(bar)
        else:
            columns.append([bar])
    columns = [sorted(column, key=lambda b: abs(b.up.middle - base)) for column in columns]
    if sum(len(column) > 1 for column in columns) * 2 >= len(columns):
        return [Unit(tuple(column)) for column in columns], "stacked"
    ends = [(c[0].along.low, c[0].along.high) for c in columns]
    gaps = [b[0] - a[1] for a, b in pairwise(ends)]
    breadth = median(c[0].along.size for c in columns)
    num_colours = len({bar.drawn.colour for bar in bars})
    if num_colours < 2 or len(gaps) < 2 or max(gaps) - min(gaps) < max(3.0, 0.35 * breadth):
        return [Unit(tuple(column)) for column in columns], "single"
    border = (max(gaps) + min(gaps)) / 2
    groups = [list(columns[0])]
    for gap, column in zip(gaps, columns[1:], strict=True):
        if gap > border:
            groups.append([])
        groups[-1] += column
    return [Unit(tuple(group)) for group in groups], "grouped"


def read_legend(objects: Sequence[Drawn], lines: Sequence[ReadLine]) -> tuple[list[tuple[str, str]], set[int]]:
    """(colour, text) of each key of the legend that has a text to its right, and the lines these are in."""
    keys = [each for each in objects if each.kind == "key"]
    entries: list[tuple[str, str]] = []
    used: set[int] = set()
    for key in keys:
        _, top, right, bottom = key.box
        found: list[Word] = []
        for i, line in enumerate(lines):
            height = line.box[3] - line.box[1]
            if not line.box[1] - 0.2 * height <= (top + bottom) / 2 <= line.box[3] + 0.2 * height:
                continue
            others = [
                o.box[0] for o in keys if o is not key and o.box[0] > right and o.box[1] < bottom and o.box[3] > top
            ]
            end = min(others, default=math.inf)
            word = _move_line(i, line, False)
            parts = split_line(word) if line.box[0] < right - height or line.box[2] > end else [word]
            found += [p for p in parts if right - 0.5 * height <= p.along.low and p.along.middle < end]
        text: list[Word] = []
        for part in sorted(found, key=lambda w: w.along.low):
            if part.along.low - (text[-1].along.high if text else right) <= 1.6 * part.height:
                text.append(part)
        if text:
            entries.append((key.colour, " ".join(w.text for w in text)))
            used |= {w.line for w in text}
    return entries, used


# --- values ---


def _find_ticks(bars: list[PlacedBar], words: list[Word], is_horizontal: bool) -> list[tuple[Tick, int]]:
    """The numbers beside the bars, on the side where more of them stand; with their lines' indices."""
    first, last = min(b.along.low for b in bars), max(b.along.high for b in bars)
    sides: list[list[tuple[Tick, int]]] = [[], []]
    for word in words:
        whole = read_number(word.text)
        for part in [word] if whole is not None else split_line(word):
            number = read_number(part.text)
            side = 0 if part.along.middle < first else 1 if part.along.middle > last else -1
            if number is not None and side >= 0:
                # Figures stand on the baseline, and a box reaches below it.
                shift = 0.0 if is_horizontal else 0.09 * part.height
                sides[side].append((Tick(part.up.middle + shift, number), word.line))
    return max(sides, key=len)


def _find_printed(bars: list[PlacedBar], words: list[Word]) -> dict[int, Word]:
    """The number that is printed at each bar's end or in it, by the bar's index."""
    pairs = []
    for word in words:
        covered = sum(word.along.low < b.along.middle < word.along.high for b in bars)
        many = covered > 1 and len(word.text.split()) > 1
        for part in split_line(word) if many else [word]:
            if read_number(part.text) is None:
                continue
            for i, bar in enumerate(bars):
                aside = abs(part.along.middle - bar.along.middle)
                over = part.up.low - bar.up.high
                under = bar.up.low - part.up.high  # at the end of a bar below the base
                is_inside = bar.up.low <= part.up.middle <= bar.up.high
                reach = min(max(over, under), 3 * part.height)
                if aside <= max(0.5 * bar.along.size, 4) and (
                    is_inside or -0.6 * part.height <= reach <= 1.5 * part.height
                ):
                    cost = aside / max(bar.along.size, 4) + (0.3 if is_inside else abs(reach) / part.height)
                    pairs.append((cost, i, part))
    found: dict[int, Word] = {}
    for _, i, part in sorted(pairs, key=lambda pair: pair[0]):
        if i not in found and all(part is not other for other in found.values()):
            found[i] = part
    return found


def _measure(
    bars: list[PlacedBar], axis: Axis | None, printed: dict[int, Word], base: float
) -> dict[int, tuple[float, str, bool]]:
    """By the id of the bar: value, text, whether it is printed. Printed numbers that the lengths belie are not used."""
    read = {i: number for i, word in printed.items() if (number := read_number(word.text)) is not None}
    measured: dict[int, float] = {}
    write = (lambda value: axis.write(value)) if axis is not None else (lambda value: f"{value:g}")
    if axis is not None:
        for i, bar in enumerate(bars):
            end, start = (bar.up.low, bar.up.high) if bar.up.middle < base else (bar.up.high, bar.up.low)
            is_first = abs(start - base) <= _tolerance(bars)
            measured[i] = axis.snap(axis.read(end) - (0.0 if is_first else axis.read(start)))
    elif 2 * len(read) >= len(bars):
        ratios = [n.value / max(bars[i].up.size, 1e-6) for i, n in read.items()]
        ratio = median(ratios)
        if sum(abs(r - ratio) <= 0.05 * abs(ratio) for r in ratios) >= 0.6 * len(ratios):
            whole = all(n.value == int(n.value) for n in read.values())
            measured = {i: round(ratio * bar.up.size, 0 if whole else 1) for i, bar in enumerate(bars)}
    use_printed = 2 * len(read) >= len(bars)
    result = {}
    for i, bar in enumerate(bars):
        number = read.get(i) if use_printed else None
        slack = max(0.12 * max(map(abs, measured.values()), default=0.0), axis.step if axis is not None else 0.0)
        if number is not None and (i not in measured or abs(number.value - measured[i]) <= slack):
            result[id(bar)] = (number.value, printed[i].text.strip(), True)
        elif i in measured:
            result[id(bar)] = (measured[i], write(measured[i]), False)
    return result


# --- the table ---


def find_title(
    drawn: list[Drawn], lines: Sequence[ReadLine], taken: set[int], legend: Collection[int] = ()
) -> tuple[str, set[int]]:
    """The topmost text above all bars and ticks; "" if there is none. A ``legend`` may stand above it."""
    top = min([each.box[1] for each in drawn] + [lines[i].box[1] for i in taken])
    above = [
        (line.box[1], i)
        for i, line in enumerate(lines)
        if i not in taken
        and i not in legend
        and line.box[3] <= top + 0.35 * (line.box[3] - line.box[1])
        and sum(c.isalpha() for c in line.text) > 1
        and read_number(line.text) is None
    ]
    if not above:
        return "", set()
    first = min(above)[1]
    limit = (lines[first].box[1] + lines[first].box[3]) / 2
    row = sorted((lines[i].box[0], i) for _, i in above if lines[i].box[1] < limit < lines[i].box[3])
    return " ".join(lines[i].text.strip() for _, i in row), {i for _, i in row}


def _write_rows(
    units: list[Unit],
    labels: list[tuple[str, set[int]]],
    values: dict[int, tuple[float, str, bool]],
    legend: list[tuple[str, str]],
    arrangement: str,
) -> list[ChartBar]:
    colours = [colour for colour, _ in legend]
    rows = []
    for unit, (label, _) in zip(units, labels, strict=True):
        for place, bar in enumerate(unit.bars):
            entry = ""
            if colours.count(bar.drawn.colour) == 1:
                entry = legend[colours.index(bar.drawn.colour)][1]
            elif len(legend) == len(unit.bars) > 1:
                entry = legend[place][1]
            value, text, is_printed = values.get(id(bar), (None, "", False))
            is_series = arrangement != "single" and len(legend) > 1
            series = entry if is_series else ""
            rows.append(
                ChartBar(
                    label or ("" if is_series else entry),
                    series,
                    bar.drawn.colour,
                    value,
                    text,
                    is_printed,
                    bar.drawn.box,
                )
            )
    return rows
