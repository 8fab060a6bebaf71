"""Tables of bar charts, read from hand-made bars and lines."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from llava.model.lexical.chart_reading import MAX_BARS, Chart, read_chart
from llava.model.lexical.object_finder import Box, Drawn
from llava.model.lexical.value_axis import Tick, fit_axis, read_number


class Line(NamedTuple):
    text: str
    box: Box


def at(text: str, x: float, y: float, height: float = 10) -> Line:
    """A line whose middle is at (x, y)."""
    half = 0.3 * height * len(text)
    return Line(text, (x - half, y - height / 2, x + half, y + height / 2))


def bar(colour: str, *box: float, kind: str = "bar") -> Drawn:
    x0, y0, x1, y1 = box
    return Drawn(kind, colour, (x0, y0, x1, y1), 0.9)


def standing(values: list[float], colours: list[str] | None = None) -> list[Drawn]:
    """Bars of 30 px from x = 60, 50 px apart, from the base at y = 200, 10 px a unit."""
    colours = colours or ["blue"] * len(values)
    return [
        bar(colour, 60 + 50 * i, 200 - 10 * value, 90 + 50 * i, 200)
        for i, (value, colour) in enumerate(zip(values, colours, strict=True))
    ]


AXIS = [at(str(value), 35, 200 - 10 * value) for value in (0, 5, 10, 15)]
NAMES = [at(name, 75 + 50 * i, 212) for i, name in enumerate(("tea", "milk", "juice"))]


def table(chart: Chart | None) -> list[tuple[str, str, str]]:
    assert chart is not None
    return [(each.label, each.series, each.text) for each in chart.bars]


def test_values_are_read_off_the_axis() -> None:
    chart = read_chart(standing([4, 12.5, 8]), [*AXIS, *NAMES])
    assert table(chart) == [("tea", "", "4"), ("milk", "", "12.5"), ("juice", "", "8")]
    assert chart is not None
    assert (chart.is_horizontal, chart.arrangement, chart.title) == (False, "single", "")
    assert not any(each.is_printed for each in chart.bars)
    assert chart.used == frozenset(range(7))


def test_printed_values_come_first() -> None:
    printed = [at(text, 75 + 50 * i, y) for i, (text, y) in enumerate((("41", 152), ("125", 68), ("80", 112)))]
    chart = read_chart(standing([4, 12.5, 8]), [*printed, *NAMES])
    assert table(chart) == [("tea", "", "41"), ("milk", "", "125"), ("juice", "", "80")]
    assert chart is not None
    assert all(each.is_printed for each in chart.bars)


def test_a_printed_value_that_the_length_belies_gives_way_to_the_axis() -> None:
    printed = [at(text, 75 + 50 * i, y) for i, (text, y) in enumerate((("4", 152), ("72.5", 68), ("8", 112)))]
    assert [text for _, _, text in table(read_chart(standing([4, 12.5, 8]), [*printed, *NAMES, *AXIS]))] == [
        "4",
        "12.5",
        "8",
    ]


def test_a_missing_printed_value_follows_from_the_others() -> None:
    printed = [at(text, 75 + 50 * i, 192 - 10 * i) for i, text in enumerate(("20", "40", "60"))]
    chart = read_chart(standing([1, 2, 3, 7]), printed)
    assert chart is not None
    assert [(each.value, each.is_printed) for each in chart.bars] == [(20, True), (40, True), (60, True), (140, False)]


def test_one_misread_tick_does_not_spoil_the_axis() -> None:
    wrong = [at("3", 35, 200), *AXIS[1:], at("70", 35, 0)]
    assert [row[2] for row in table(read_chart(standing([4, 12.5, 8]), [*wrong, *NAMES]))] == ["4", "12.5", "8"]


def test_names_that_were_read_as_one_line_are_told_apart() -> None:
    joined = Line("tea milk juice", (65, 205, 190, 217))
    assert [row[0] for row in table(read_chart(standing([4, 12, 8]), [*AXIS, joined]))] == ["tea", "milk", "juice"]


def test_the_title_is_the_text_above_all() -> None:
    lines = [at("Drinks sold", 130, 15), *AXIS, *NAMES, at("kind of drink", 130, 240)]
    chart = read_chart(standing([4, 12, 8]), lines)
    assert chart is not None
    assert chart.title == "Drinks sold"
    assert 8 not in chart.used


def test_lying_bars_are_read_from_the_top() -> None:
    bars = [bar("green", 80, 40 + 40 * i, 80 + 10 * v, 65 + 40 * i) for i, v in enumerate((7, 15, 3))]
    names = [at(name, 55, 52.5 + 40 * i) for i, name in enumerate(("Rome", "Oslo", "Lima"))]
    ticks = [at(f"{value}%", 80 + 10 * value, 165) for value in (0, 5, 10, 15)]
    chart = read_chart(bars, [*names, *ticks])
    assert table(chart) == [("Rome", "", "7%"), ("Oslo", "", "15%"), ("Lima", "", "3%")]
    assert chart is not None
    assert chart.is_horizontal


def test_grouped_bars_take_their_series_from_the_legend_by_colour() -> None:
    bars = []
    for i, (a, b) in enumerate(((4, 9), (12, 5), (7, 7))):
        bars += [bar("blue", 60 + 60 * i, 200 - 10 * a, 80 + 60 * i, 200)]
        bars += [bar("orange", 80 + 60 * i, 200 - 10 * b, 100 + 60 * i, 200)]
    keys = [bar("blue", 60, 10, 70, 16, kind="key"), bar("orange", 130, 10, 140, 16, kind="key")]
    legend = [Line("in town", (74, 8, 116, 18)), Line("at sea", (144, 8, 180, 18))]
    names = [at(name, 80 + 60 * i, 212) for i, name in enumerate(("May", "June", "July"))]
    chart = read_chart([*bars, *keys], [*legend, *AXIS, *names])
    assert chart is not None
    assert (chart.arrangement, chart.title) == ("grouped", "")
    assert table(chart) == [
        ("May", "in town", "4"),
        ("May", "at sea", "9"),
        ("June", "in town", "12"),
        ("June", "at sea", "5"),
        ("July", "in town", "7"),
        ("July", "at sea", "7"),
    ]


def test_bars_with_a_label_each_are_no_groups_though_one_was_not_found() -> None:
    bars = standing([4.0, 9.0, 0.0, 7.0, 5.0], ["blue", "red", "gray", "green", "pink"])
    del bars[2]
    names = [at(name, 75 + 50 * i, 212) for i, name in enumerate(("tea", "milk", "", "wine", "rum")) if name]
    chart = read_chart(bars, [*AXIS, *names])
    assert table(chart) == [("tea", "", "4"), ("milk", "", "9"), ("wine", "", "7"), ("rum", "", "5")]
    assert chart is not None
    assert chart.arrangement == "single"


def test_the_scale_turns_about_the_base() -> None:
    """The base is known to a part of a pixel, and where a label's middle is only to a few."""
    texts = ("80", "100", "120")
    numbers = [number for text in texts if (number := read_number(text))]
    axis = fit_axis([Tick(*each) for each in zip((756, 886, 1012), numbers, strict=True)], 252.0)
    assert axis is not None
    assert axis.read(252.0) == pytest.approx(0, abs=1e-6)
    assert axis.read(252.0 + 118 * 6.325) == pytest.approx(118, abs=0.5)


def test_a_zero_that_was_read_as_nine_is_no_tick() -> None:
    texts = ("9", "200", "300", "400", "500")
    ticks = [
        Tick(place, number)
        for place, text in zip((2, 200, 300, 400, 500), texts, strict=True)
        if (number := read_number(text))
    ]
    axis = fit_axis(ticks, 0.0)
    assert axis is not None
    assert (axis.num_ticks, axis.step) == (4, 100)
    assert axis.read(250) == pytest.approx(250, abs=1)


def test_parts_of_a_stack_have_their_own_values() -> None:
    bars = [
        bar("red", 60, 160, 90, 200),
        bar("gray", 60, 100, 90, 160),
        bar("red", 110, 120, 140, 200),
        bar("gray", 110, 90, 140, 120),
    ]
    keys = [bar("red", 200, 10, 210, 16, kind="key"), bar("gray", 200, 30, 210, 36, kind="key")]
    legend = [Line("old", (214, 8, 232, 18)), Line("new", (214, 28, 232, 38))]
    chart = read_chart([*bars, *keys], [*legend, *AXIS, *NAMES[:2]])
    assert chart is not None
    assert chart.arrangement == "stacked"
    assert table(chart) == [("tea", "old", "4"), ("tea", "new", "6"), ("milk", "old", "8"), ("milk", "new", "3")]


def test_a_logarithmic_axis_is_recognized_by_its_ticks() -> None:
    ticks = [at(text, 30, 200 - 40 * i) for i, text in enumerate(("1", "10", "100", "1000"))]
    chart = read_chart(standing([4, 12, 8]), [*ticks, *NAMES])
    assert [row[2] for row in table(chart)] == ["10", "1000", "100"]


def test_negative_bars_hang_from_the_base() -> None:
    bars = [*standing([6, 4]), bar("blue", 160, 200, 190, 230)]
    ticks = [at(text, 30, 200 - 5 * value) for text, value in (("-4", -4), ("0", 0), ("4", 4), ("8", 8), ("12", 12))]
    chart = read_chart(bars, ticks)
    assert chart is not None
    assert [each.value for each in chart.bars] == pytest.approx([12, 8, -6], abs=0.1)


def test_what_is_no_chart_gives_nothing() -> None:
    words = [at("Hello world", 100, 50), at("12", 30, 80)]
    assert read_chart([], words) is None
    assert read_chart([bar("red", 10, 10, 60, 60, kind="square")], words) is None
    scattered = [bar("red", 10, 10, 40, 60), bar("blue", 100, 80, 160, 170), bar("gray", 60, 200, 80, 230)]
    assert read_chart(scattered, words) is None
    assert read_chart(standing([4, 12, 8]), []) is None
    assert read_chart(standing([4]), words) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), ("1,200", 1200), ("−0.5", -0.5), ("$7.50", 7.5), ("35%", 35), ("10k", 10000), ("1O", 10), (".5", 0.5)],
)
def test_numbers_are_read_as_they_are_written(text: str, value: float) -> None:
    number = read_number(text)
    assert number is not None
    assert number.value == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "tea", "Q1", "12 May", "1,20", "-", "3rd", "10:45", "O", "9" * 17, "1" * 400])
def test_other_text_is_no_number(text: str) -> None:
    assert read_number(text) is None


@pytest.mark.parametrize("label", ["--5", "\N{SUPERSCRIPT TWO}", "3\N{SUPERSCRIPT TWO}", "9" * 400])
def test_a_label_that_is_nearly_a_number_stays_as_it_was_read(label: str) -> None:
    names = [at(name, 75 + 50 * i, 212) for i, name in enumerate(("1", "7", "20", ""))]
    chart = read_chart(standing([4, 12.5, 8, 2]), [*AXIS, *names, Line(label, (215, 207, 235, 217))])
    assert [name for name, *_ in table(chart)] == ["1", "7", "20", label]


def test_a_line_beyond_the_images_edge_is_no_part_of_a_chart() -> None:
    beyond = Line("7", (70, 100, 80, 100))
    assert read_chart(standing([4, 12.5, 8]), [*AXIS, *NAMES, beyond]) == read_chart(
        standing([4, 12.5, 8]), [*AXIS, *NAMES]
    )


def test_a_logarithmic_axis_ends_far_above_its_ticks() -> None:
    ticks = [Tick(6.0 * i, number) for i in range(4) if (number := read_number(str(10 ** (3 * i)))) is not None]
    axis = fit_axis(ticks, 0.0)
    assert axis is not None
    assert axis.is_logarithmic
    assert axis.write(axis.snap(axis.read(2000.0))) == str(10**15)


def test_no_axis_without_two_different_ticks() -> None:
    number = read_number("5")
    assert number is not None
    assert fit_axis([], 0.0) is None
    assert fit_axis([Tick(10.0, number)], 0.0) is None
    assert fit_axis([Tick(10.0, number), Tick(50.0, number)], 0.0) is None


@pytest.mark.parametrize(("value", "text"), [(12.3456, "12.3"), (0.02, "0"), (-3.96, "-4"), (7, "7"), (104.97, "105")])
def test_measured_values_are_no_finer_than_the_axis_allows(value: float, text: str) -> None:
    ticks = [Tick(10.0 * v, number) for v in (0, 2, 4) if (number := read_number(str(v))) is not None]
    axis = fit_axis(ticks, 0.0)
    assert axis is not None
    assert axis.write(value) == text


def test_fields_of_equal_length_and_crowds_of_bars_are_no_chart() -> None:
    assert read_chart(standing([8, 8, 8]), [*AXIS, *NAMES]) is None
    printed = [at("8", 75 + 50 * i, 112) for i in range(3)]
    assert table(read_chart(standing([8, 8, 8]), [*printed, *NAMES])) == [
        ("tea", "", "8"),
        ("milk", "", "8"),
        ("juice", "", "8"),
    ]
    heights = [2.0 + i % 9 for i in range(MAX_BARS + 1)]
    assert read_chart(standing(heights), AXIS) is None
    assert read_chart(standing(heights[:-1]), AXIS) is not None


def test_names_stand_near_the_bars() -> None:
    far = [at(name, 75 + 50 * i, 460) for i, name in enumerate(("tea", "milk", "juice"))]
    assert [row[0] for row in table(read_chart(standing([4, 12.5, 8]), [*AXIS, *far]))] == ["", "", ""]


@pytest.mark.parametrize(
    ("texts", "is_axis"),
    [
        (("0", "20", "40"), True),
        (("7.5", "10", "15"), True),
        (("100", "400", "500"), True),
        (("-3", "0", "3"), True),
        (("105.99", "189.49", "272.99"), False),
        (("3321", "9812"), False),
        (("17", "36", "55"), False),
    ],
)
def test_an_axis_has_round_numbers(texts: tuple[str, ...], is_axis: bool) -> None:
    numbers = [number for text in texts if (number := read_number(text)) is not None]
    ticks = [Tick(3 * (number.value - numbers[0].value) * 60 / numbers[-1].value, number) for number in numbers]
    assert (fit_axis(ticks, None) is not None) == is_axis


@pytest.mark.parametrize("lower", [-3, 3, 5])
def test_ticks_that_all_stand_too_low_or_too_high_tell_the_values_that_the_base_tells(lower: int) -> None:
    ticks = [at(str(value), 35, 200 - 10 * value + lower) for value in (0, 5, 10, 15)]
    chart = read_chart(standing([4, 12.5, 8]), [*ticks, *NAMES])
    assert [text for _, _, text in table(chart)] == ["4", "12.5", "8"]
    assert chart is not None
    assert chart.used == frozenset(range(7))


def test_a_zero_that_stands_nearer_to_the_base_than_the_names_is_no_name() -> None:
    ticks = [Line("0", (47, 201, 55, 213)), *AXIS[1:]]
    names = [line._replace(box=(line.box[0], line.box[1] + 4, line.box[2], line.box[3] + 4)) for line in NAMES]
    assert [label for label, _, _ in table(read_chart(standing([4, 12.5, 8]), [*ticks, *names]))] == [
        "tea",
        "milk",
        "juice",
    ]


def test_fields_above_a_scale_of_numbers_are_no_bars() -> None:
    scale = [at(f"{0.5 * i:.1f}", 62 + 16 * i, 212) for i in range(8)]
    assert read_chart(standing([4, 12.5, 8]), [*AXIS, *scale]) is None
    years = [at(str(2019 + i), 75 + 50 * i, 212) for i in range(3)]
    assert [label for label, *_ in table(read_chart(standing([4, 12.5, 8]), [*AXIS, *years]))] == [
        "2019",
        "2020",
        "2021",
    ]
