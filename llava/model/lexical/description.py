"""What the lexical tower saw, written down in words that the language model knows.

The form is fixed, and every part is left out where it is empty:

    3 objects from left to right: red star (top left), blue circle (center), red cross (right). From top to bottom: red
    star, blue circle, red cross. Colors: red 2, blue 1. Shapes: stars 1, circles 1, crosses 1. Largest: blue circle;
    smallest: red star. In the top left: red star. In the center: blue circle. On the right: red cross. Left of the red
    cross: red star, blue circle. (and so on) The star is red. The circle is blue. The cross is red. The blue shape is a
    circle.
    Bar chart "Sold", 2 bars from left to right: Tea 37 (red), Milk 52 (blue). Largest: Milk 52; smallest: Tea 37.
    Text (2 lines):
    1. OPEN (white on red)
    2 (last). Monday | 9:00

Up to four rows without cells are also told in one line: "It says: Mind your head".

Two objects are also related to each other, in both directions and in a sentence for each, which the model copies:

    The red star is left of the blue circle. The red star is above the blue circle. The blue circle is right of the red
    star. The blue circle is below the red star.

The model copies what follows a word that it is asked for more surely than what stands before it, so what is asked for
from both ends is told from both. A chart of one line is told as

    Line chart "Sold" (blue), 3 points from left to right: Jan 12, Feb 15, Mar 9. Highest: Feb 15; lowest: Mar 9; it
    falls overall.

and of several, a line of text for each of them:

    Line chart "Sold", 2 lines, 3 points from left to right.
    Tea (blue): Jan 12, Feb 15, Mar 9. Highest: Feb 15; lowest: Mar 9; it falls overall.
    Milk (red): Jan 3, Feb 5, Mar 8. Highest: Mar 8; lowest: Jan 3; it rises overall.
    Highest at each: Jan Tea, Feb Tea, Mar Tea. Rising: Milk. Falling: Tea.
    From the highest line to the lowest: Tea, Milk.

Bars in groups are told by their series in the same way, below all of them:

    Men (blue): Berlin 14, Madrid 10. Highest: Berlin 14; lowest: Madrid 10.
    Women (orange): Berlin 18, Madrid 8. Highest: Berlin 18; lowest: Madrid 8.
    Highest at each: Berlin Women, Madrid Men.

Below the head of a table, each cell is told with its column's name, and its numbers are compared (``row_tables``):

    Text (3 lines):
    1. Time | Destination | Platform
    2. Time: 8:32 | Destination: Bremen | Platform: 7
    3 (last). Time: 9:05 | Destination: Ulm | Platform: 12
    Highest Platform: Ulm 12; lowest: Bremen 7.

So is a value with the name that stands above it, as on a ticket (``stacked_labels``): "1. Gate: B7 | Seat: 14C".

Bars, and rows of a table, from three to nine, are ranked as well: "...; smallest: Tea 37; in order: 1. Milk, 2. Juice,
3. Tea." Where a chart's axes have names, it ends in "X axis: Month. Y axis: Cups.", or one of both.

Orders, extremes and numbers stand there because the towers know them exactly and a small language model is poor at
sorting and at counting. It does not find the end of a ranked list, and cannot invert a relation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from llava.model.lexical.nouns import add_article
from llava.model.lexical.row_tables import count_filled, find_extremes, label_cells, list_order
from llava.model.lexical.seen_line import Box, SeenLine
from llava.model.lexical.stacked_labels import join_stacked

# The description of a dense page ends after this many characters, at the end of a line: about 350 tokens.
MAX_CHARACTERS = 1200
# More objects are only counted.
_MOST_LISTED = 12
# Of more objects, none is told by its kind, its colour or its place.
_MOST_TOLD_APART = 6
# Of more objects, none is told by what is beside, above and below it.
MOST_RELATED = 3
# So many rows, of so many characters in all, may be one text.
_MOST_BROKEN, _MOST_BROKEN_CHARACTERS = 4, 80
# One object is larger than another if its box's sides are, in the mean, this many times as long.
_LARGER = 1.2
# Two objects are beside each other, or one above the other, if their middles are this far apart, as a part of the
# image's shorter side.
LEAST_APART = 0.05
# A line whose ends differ by less than this share of its range ends about where it starts.
_LEVEL_SHARE = 0.1

_DARK = ("black", "gray")
_LIGHT = ("white", "gray")
# The ninths of an image, row by row.
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")


class SeenObject(Protocol):
    """A drawn object, such as a red star; ``box`` as a line's."""

    @property
    def kind(self) -> str:
        """What it is."""
        ...

    @property
    def colour(self) -> str:
        """Its colour."""
        ...

    @property
    def box(self) -> Box:
        """Where it is."""
        ...


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: its label, its colour's name, and the value as it would be written, "" where unknown."""

    label: str
    colour: str
    value: str
    size: float  # by which bars are sorted: the value, or the length in px where that is unknown


@dataclass(frozen=True)
class ChartLine:
    """One line of a line chart: its name, "" if it has none, its colour's name, and its points from left to right."""

    name: str
    colour: str
    points: tuple[Bar, ...]

    @property
    def trend(self) -> str:
        """How its end compares with its start: "rises overall", "falls overall" or "ends about where it starts"."""
        sizes = [point.size for point in self.points]
        rise = sizes[-1] - sizes[0]
        if abs(rise) < _LEVEL_SHARE * max(max(sizes) - min(sizes), 1e-9):
            return "ends about where it starts"
        return "rises overall" if rise > 0 else "falls overall"


@dataclass(frozen=True)
class ChartTable:
    """A bar chart: its bars from left to right, or from top to bottom where they lie; or the parts of a pie.

    A line chart has ``lines``, and no bars. ``x_name`` and ``y_name`` are what the axes are called, "" if nothing.
    """

    title: str
    bars: tuple[Bar, ...] = ()
    is_horizontal: bool = False
    is_pie: bool = False
    lines: tuple[ChartLine, ...] = ()
    x_name: str = ""
    y_name: str = ""


def describe(
    size: tuple[int, int],
    lines: Sequence[SeenLine],
    objects: Sequence[SeenObject],
    chart: ChartTable | None = None,
) -> str:
    """The description of an image of ``size`` (width, height) px; "" if nothing was seen.

    ``lines`` are in reading order; lines whose middles are on one height become one row.
    """
    parts = []
    if objects:
        parts.append(_describe_objects(size, objects))
    if chart is not None:
        parts.append(_describe_chart(chart))
    if lines:
        parts.append(_describe_rows(_group_rows(lines)))
    return "\n".join(parts)


def join_rows(lines: Sequence[SeenLine]) -> list[str]:
    """The lines as rows of text: lines side by side are joined by " | ", and unusual colours are named."""
    rows = _group_rows(lines)
    return [_join(row, [line.text for line in row]) for row in rows]


def name_place(box: Box, size: tuple[int, int]) -> str:
    """Which ninth of the image the middle of a box is in, from "top left" to "bottom right"."""
    x, y = (box[0] + box[2]) / 2 / size[0], (box[1] + box[3]) / 2 / size[1]
    return PLACES[3 * max(0, min(2, int(3 * y))) + max(0, min(2, int(3 * x)))]


def _describe_rows(rows: Sequence[Sequence[SeenLine]]) -> str:
    rows = rows[: count_filled([[line.text for line in row] for row in rows])]
    broken = [[line.text for line in row] for row in rows]
    rows = join_stacked(rows)
    texts = [[line.text for line in row] for row in rows]
    spans = [[(line.box[0], line.box[2]) for line in row] for row in rows]
    count = "1 line" if len(rows) == 1 else f"{len(rows)} lines"
    written = _number(rows, label_cells(texts, spans))
    if sum(len(row) + 1 for row in written) > MAX_CHARACTERS:
        written = _number(rows, texts)  # more rows without their columns' names are better than few with them
    told = [f"It says: {' '.join(text for [text] in broken)}"] if _is_one_text(broken) else []
    return "\n".join([f"Text ({count}):", *_cut(written), *told, *map(str, find_extremes(texts, spans))])


def _is_one_text(texts: Sequence[Sequence[str]]) -> bool:
    """Whether rows may be one text that was broken over them, as on a sign."""
    return (
        1 < len(texts) <= _MOST_BROKEN
        and all(len(row) == 1 for row in texts)
        and sum(len(text) for [text] in texts) <= _MOST_BROKEN_CHARACTERS
    )


def _number(rows: Sequence[Sequence[SeenLine]], texts: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their numbers; the last of several is called so: the model does not find the end of a list."""
    written = [f"{i}. {_join(*row)}" for i, row in enumerate(zip(rows, texts, strict=True), 1)]
    if len(written) > 1:
        written[-1] = written[-1].replace(".", " (last).", 1)
    return written


def _group_rows(lines: Sequence[SeenLine]) -> list[list[SeenLine]]:
    """The lines by rows, each from left to right. In reading order, a row's lines follow each other."""
    rows: list[list[SeenLine]] = []
    for line in lines:
        if rows and all(_is_beside(other, line) for other in rows[-1]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [sorted(row, key=lambda line: line.box[0]) for row in rows]


def _join(row: Sequence[SeenLine], texts: Sequence[str]) -> str:
    """A row of lines that are written as ``texts``, with their colours where those are unusual."""
    notes = [_note_colours(line) for line in row]
    if len(set(notes)) == 1:
        return " | ".join(texts) + notes[0]
    return " | ".join(text + note for text, note in zip(texts, notes, strict=True))


def _is_beside(a: SeenLine, b: SeenLine) -> bool:
    """Whether two lines are on one height, side by side. Letters with tails move a line's middle."""
    (left, top, right, bottom), (x0, y0, x1, y1) = a.box, b.box
    height, width = min(bottom - top, y1 - y0), min(right - left, x1 - x0)
    shared = min(bottom, y1) - max(top, y0)
    is_level = abs(top + bottom - y0 - y1) < 0.8 * height or shared > 0.7 * height
    return is_level and min(right, x1) - max(left, x0) < 0.2 * width


def _note_colours(line: SeenLine) -> str:
    if line.ground in ("", *_LIGHT):
        return "" if line.ink in ("", *_DARK) else f" ({line.ink})"
    return f" ({line.ink} on {line.ground})"


def _cut(written: Sequence[str]) -> list[str]:
    kept, used = [], 0
    for row in written:
        used += len(row) + 1
        if used > MAX_CHARACTERS:
            kept.append("...")
            break
        kept.append(row)
    return kept


def _describe_objects(size: tuple[int, int], objects: Sequence[SeenObject]) -> str:
    across = sorted(objects, key=lambda seen: seen.box[0] + seen.box[2])
    if len(across) == 1:
        return f"1 object: {_name(across[0])} ({name_place(across[0].box, size)})."
    down = sorted(objects, key=lambda seen: seen.box[1] + seen.box[3])
    listed = ", ".join(f"{_name(seen)} ({name_place(seen.box, size)})" for seen in across)
    text = f"{len(across)} objects from left to right: {listed}. From top to bottom: {', '.join(map(_name, down))}."
    colours, kinds = Counter(seen.colour for seen in across), Counter(seen.kind for seen in across)
    if len(across) > _MOST_LISTED:
        text = f"{len(across)} objects."
    shapes = [f"{name_several(kind)} {count}" for kind, count in kinds.most_common()]
    colored = [f"{colour} {count}" for colour, count in colours.most_common()]
    sizes = _compare_sizes(across)
    related = _relate(across[0], across[1], size) if len(across) == 2 else ""
    around = _find_around(across, size) if len(across) <= MOST_RELATED else ""
    told = _tell_apart(across, kinds, colours, size) if len(across) <= _MOST_TOLD_APART else ""
    return f"{text}{related} Colors: {', '.join(colored)}. Shapes: {', '.join(shapes)}.{sizes}{around}{told}"


def _tell_apart(
    objects: Sequence[SeenObject], kinds: Counter[str], colours: Counter[str], size: tuple[int, int]
) -> str:
    """What is at each place, and a sentence for each object that its kind or its colour tells from the others."""
    there: dict[str, list[str]] = {}
    for seen in objects:
        there.setdefault(name_place(seen.box, size), []).append(_name(seen))
    by_place = [f" {say_place(place).capitalize()}: {', '.join(names)}." for place, names in there.items()]
    by_kind = [f" The {seen.kind} is {seen.colour}." for seen in objects if kinds[seen.kind] == 1]
    lone = [seen for seen in objects if colours[seen.colour] == 1]
    by_colour = [f" The {seen.colour} shape is {add_article(seen.kind)}." for seen in lone]
    return "".join(by_place + by_kind + by_colour)


def say_place(place: str) -> str:
    """A ninth of the image as an adverbial: "in the top left", "on the right"."""
    return f"{'on' if place in ('left', 'right') else 'at' if place in ('top', 'bottom') else 'in'} the {place}"


def find_sizes(boxes: Sequence[Box]) -> tuple[int | None, int | None]:
    """Which box is clearly larger than all others, and which is smaller; None where none is."""
    sides = [((box[2] - box[0]) * (box[3] - box[1])) ** 0.5 for box in boxes]
    order = sorted(range(len(sides)), key=sides.__getitem__)
    if len(order) < 2:
        return None, None
    is_largest, is_smallest = (sides[b] >= _LARGER * sides[a] for a, b in (order[-2:], order[:2]))
    return order[-1] if is_largest else None, order[0] if is_smallest else None


def _compare_sizes(objects: Sequence[SeenObject]) -> str:
    found = zip(("largest", "smallest"), find_sizes([seen.box for seen in objects]), strict=True)
    told = [f"{which}: {_name(objects[i])}" for which, i in found if i is not None]
    return f" {'; '.join(told).capitalize()}." if told else ""


def _find_around(objects: Sequence[SeenObject], size: tuple[int, int]) -> str:
    """What is left of, right of, above and below each object whose name is its alone."""
    names = Counter(map(_name, objects))
    found: dict[str, list[str]] = {}
    for seen in objects:
        for other in objects:
            if names[_name(seen)] == 1 and other is not seen:
                for way in find_relations(other.box, seen.box, size):
                    found.setdefault(f" {way.capitalize()} the {_name(seen)}", []).append(_name(other))
    return "".join(f"{where}: {', '.join(there)}." for where, there in found.items())


def find_relations(a: Box, b: Box, size: tuple[int, int]) -> list[str]:
    """How the middle of ``a`` lies to that of ``b`` on an image of ``size`` px: "left of" or "right of", "above" or
    "below", both or neither, by what is at least ``LEAST_APART``.
    """
    relations = []
    for axis, (less, more) in enumerate((("left of", "right of"), ("above", "below"))):
        apart = (a[axis] + a[axis + 2] - b[axis] - b[axis + 2]) / 2
        if abs(apart) >= LEAST_APART * min(size):
            relations.append(less if apart < 0 else more)
    return relations


def _relate(a: SeenObject, b: SeenObject, size: tuple[int, int]) -> str:
    """How two objects lie to each other, told from each side; "" where they are alike or nearly in one place."""
    if _name(a) == _name(b):
        return ""
    return "".join(
        f" The {_name(one)} is {way} the {_name(other)}."
        for one, other in ((a, b), (b, a))
        for way in find_relations(one.box, other.box, size)
    )


def name_several(kind: str) -> str:
    """The plural of a shape's name: "crosses"."""
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def _name(seen: SeenObject) -> str:
    return f"{seen.colour} {seen.kind}"


def _describe_chart(chart: ChartTable) -> str:
    names = "".join(f" {axis} axis: {name}." for axis, name in (("X", chart.x_name), ("Y", chart.y_name)) if name)
    return (_describe_lines(chart) if chart.lines else _describe_bars(chart)) + names


def _describe_bars(chart: ChartTable) -> str:
    title = f' "{chart.title}"' if chart.title else ""
    order = "from top to bottom" if chart.is_horizontal else "from left to right"
    order = "clockwise from the top" if chart.is_pie else order
    kind, part = ("Pie chart", "part") if chart.is_pie else ("Bar chart", "bar")
    listed = ", ".join(f"{' '.join(filter(None, (bar.label, bar.value)))} ({bar.colour})" for bar in chart.bars)
    text = f"{kind}{title}, {len(chart.bars)} {part if len(chart.bars) == 1 else part + 's'}"
    if len(chart.bars) < 2:
        return f"{text}: {listed}."
    most, least = (find(chart.bars, key=lambda bar: bar.size) for find in (max, min))
    largest, smallest = (" ".join(filter(None, (bar.label or bar.colour, bar.value))) for bar in (most, least))
    ranked = list_order([bar.label or bar.colour for bar in chart.bars], [bar.size for bar in chart.bars])
    series = find_series(chart)
    rows = [f"{text} {order}: {listed}. Largest: {largest}; smallest: {smallest}{ranked}."]
    rows += [f"{each.name} ({each.colour}): {_list_points(each)}" for each in series]
    return "\n".join([*rows, _rank_at_each(series)]) if series else rows[0]


def find_series(chart: ChartTable) -> tuple[ChartLine, ...]:
    """The series of a chart's bars in groups, as the lines of a line chart; () where the bars are in no groups.

    A bar of a group is labelled with the group's name and its series', which has one colour.
    """
    by_colour: dict[str, list[Bar]] = {}
    for bar in chart.bars:
        by_colour.setdefault(bar.colour, []).append(bar)
    series = []
    for colour, bars in by_colour.items():
        name = _find_end([bar.label for bar in bars])
        points = [replace(bar, label=bar.label.removesuffix(f" {name}")) for bar in bars]
        series.append(ChartLine(name, colour, tuple(points)))
    groups = {tuple(point.label for point in each.points) for each in series}
    is_grouped = len(series) > 1 and len(groups) == 1 and len(series[0].points) > 1
    return tuple(series) if is_grouped and all(each.name for each in series) else ()


def _find_end(labels: Sequence[str]) -> str:
    """The words that all labels end in, after at least one other word; "" if there are none."""
    split = [label.split() for label in labels]
    most = min(map(len, split)) - 1
    same = [n for n in range(1, most + 1) if len({tuple(words[-n:]) for words in split}) == 1]
    return " ".join(split[0][-same[-1] :]) if same else ""


def _rank_at_each(lines: Sequence[ChartLine]) -> str:
    """Which of several lines or series is the highest at each of their points; equal ones are both named."""
    told = []
    for points in zip(*(line.points for line in lines), strict=False):
        most = max(point.size for point in points)
        names = [line.name or line.colour for line, point in zip(lines, points, strict=True) if point.size == most]
        told.append(f"{points[0].label} {' and '.join(names)}")
    return f"Highest at each: {', '.join(told)}."


def _describe_lines(chart: ChartTable) -> str:
    title = f' "{chart.title}"' if chart.title else ""
    first = chart.lines[0]
    count = f"{len(first.points)} point{'s' if len(first.points) > 1 else ''} from left to right"
    if len(chart.lines) == 1:
        name = f"{first.name}, {first.colour}" if first.name else first.colour
        return f"Line chart{title} ({name}), {count}: {_list_points(first, has_trend=True)}"
    rows = [f"Line chart{title}, {len(chart.lines)} lines, {count}."]
    rows += [f"{line.name or 'Line'} ({line.colour}): {_list_points(line, has_trend=True)}" for line in chart.lines]
    ranked = sorted(chart.lines, key=lambda line: -sum(point.size for point in line.points) / len(line.points))
    rows.append(_rank_at_each(chart.lines) + _group_trends(chart.lines))
    rows.append(f"From the highest line to the lowest: {', '.join(line.name or line.colour for line in ranked)}.")
    return "\n".join(rows)


def _group_trends(lines: Sequence[ChartLine]) -> str:
    """The names of the lines that rise overall, and of those that fall."""
    told = ""
    for word, trend in (("Rising", "rises overall"), ("Falling", "falls overall")):
        names = [line.name or line.colour for line in lines if line.trend == trend]
        told += f" {word}: {', '.join(names)}." if names else ""
    return told


def _list_points(line: ChartLine, has_trend: bool = False) -> str:
    listed = [" ".join(filter(None, (point.label, point.value))) for point in line.points]
    if len(listed) < 2:
        return f"{listed[0]}."
    sizes = [point.size for point in line.points]
    high, low = (listed[sizes.index(most(sizes))] for most in (max, min))
    trend = f"; it {line.trend}" if has_trend else ""
    return f"{', '.join(listed)}. Highest: {high}; lowest: {low}{trend}."
