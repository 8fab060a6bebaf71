"""Tables of pie charts, read from hand-made wedges and lines."""

from __future__ import annotations

import math
from typing import NamedTuple

from llava.model.lexical.object_finder import Box, Drawn
from llava.model.lexical.pie_reading import read_pie


class Line(NamedTuple):
    text: str
    box: Box


def at(text: str, angle: float, radius: float) -> Line:
    """A line around the centre (200, 200), at degrees clockwise from the right; outside, its near end is there."""
    x, y = 200 + radius * math.cos(math.radians(angle)), 200 + radius * math.sin(math.radians(angle))
    half = 4.0 * len(text)
    shift = half * math.copysign(1, x - 200) if radius > 100 else 0.0
    return Line(text, (x + shift - half, y - 6, x + shift + half, y + 6))


def wedge(colour: str, begin: int, end: int) -> Drawn:
    """A wedge of the circle of radius 100, between two angles in degrees."""
    edge = [(math.cos(math.radians(a)), math.sin(math.radians(a))) for a in range(begin, end + 1)]
    x, y = ([0.0, *(p[i] for p in edge)] for i in (0, 1))
    box = (200 + 100 * min(x), 200 + 100 * min(y), 200 + 100 * max(x), 200 + 100 * max(y))
    return Drawn("wedge", colour, box, 0.9)


WEDGES = [wedge("blue", 0, 90), wedge("orange", 90, 150), wedge("green", 150, 270), wedge("red", 270, 360)]
NAMES = [at("Rome", 45, 110), at("Oslo", 120, 110), at("Buenos Aires", 210, 110), at("Lima", 315, 110)]
SHARES = [at("25%", 45, 60), at("17%", 120, 60), at("33%", 210, 60), at("25%", 315, 60)]


def test_names_and_shares_are_those_at_the_wedge() -> None:
    chart = read_pie(WEDGES, [*SHARES, Line("Where they live", (130, 20, 270, 36)), *NAMES])
    assert chart is not None
    assert (chart.title, chart.arrangement) == ("Where they live", "pie")
    assert [(bar.label, bar.colour, bar.text) for bar in chart.bars] == [
        ("Lima", "red", "25%"),
        ("Rome", "blue", "25%"),
        ("Oslo", "orange", "17%"),
        ("Buenos Aires", "green", "33%"),
    ]
    assert chart.used == frozenset(range(9))


def test_a_name_that_was_not_read_leaves_the_others_in_place() -> None:
    chart = read_pie(WEDGES, [*SHARES, *NAMES[1:]])
    assert chart is not None
    assert [bar.label for bar in chart.bars] == ["Lima", "", "Oslo", "Buenos Aires"]


def test_names_come_from_the_legend_where_there_is_one() -> None:
    keys = [Drawn("key", w.colour, (340.0, 100 + 20.0 * i, 352.0, 108 + 20.0 * i), 0.9) for i, w in enumerate(WEDGES)]
    legend = [Line(name.text, (358, 98 + 20.0 * i, 420, 110 + 20.0 * i)) for i, name in enumerate(NAMES)]
    chart = read_pie([*WEDGES, *keys], [*legend, *SHARES])
    assert chart is not None
    assert [bar.label for bar in chart.bars] == ["Lima", "Rome", "Oslo", "Buenos Aires"]


def test_wedges_with_nothing_written_at_them_are_no_pie_to_read() -> None:
    assert read_pie(WEDGES, [Line("Far away", (600, 20, 700, 36))]) is None
    assert read_pie(WEDGES[:1], NAMES) is None
