"""Charts are read from their pixels: drawn here by matplotlib, with the exact lines of text."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from llava.model.lexical import scene_text
from llava.model.lexical.description import Bar, ChartLine, ChartTable, describe
from llava.model.lexical.label_rows import complete_labels, split_words
from llava.model.lexical.scene_text import Scene, read_scene
from llava.model.lexical.value_axis import read_number
from llava.scratch.objects.plots import list_texts
from llava.scratch.things.view_grounds import GROUNDS, draw_ground
from tests.model.seen_lines import Line

Draw = Callable[[Any], None]


def draw(
    paint: Draw, size: tuple[float, float] = (4.0, 3.0), style: str = "default"
) -> tuple[torch.Tensor, list[Line]]:
    """A chart of 100 px an inch, uint8 [3, H, W], and its lines of text."""
    with plt.style.context(style):
        figure, axes = plt.subplots(figsize=size, dpi=100)
        paint(axes)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
        lines = [Line(text["text"], tuple(text["box"])) for text in list_texts(figure, pixels.shape[0])]
        # Labels beyond the axes' limits are listed, but not drawn.
        lines = [line for line in lines if np.ptp(crop(pixels, line.box)) > 60]
        plt.close(figure)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), lines


def crop(pixels: np.ndarray, box: tuple[float, ...]) -> np.ndarray:
    left, top, right, bottom = (int(max(0, value)) for value in box)
    return pixels[top : bottom + 1, left : right + 1]


def read(paint: Draw, **look: Any) -> ChartTable:
    canvas, lines = draw(paint, **look)
    table = read_scene(canvas, lines, []).chart
    assert table is not None
    return table


def list_bars(table: ChartTable) -> list[tuple[str, float]]:
    return [(bar.label, bar.size) for bar in table.bars]


def agree(found: Sequence[tuple[str, float]], wanted: dict[str, float], slack: float) -> None:
    assert [label for label, _ in found] == list(wanted)
    for (label, value), expected in zip(found, wanted.values(), strict=True):
        assert abs(value - expected) <= slack, (label, value, expected)


VOTES = {"Ann": 12.0, "Bob": 37.0, "Cleo": 25.0, "Dan": 4.0, "Eve": 31.0}


@pytest.mark.parametrize("style", ["default", "ggplot", "dark_background", "seaborn-v0_8-whitegrid"])
def test_bars_are_counted_named_and_measured(style: str) -> None:
    def paint(axes: Any) -> None:
        axes.bar(list(VOTES), list(VOTES.values()))
        axes.set_title("Votes")

    table = read(paint, style=style)
    assert (table.title, table.is_horizontal) == ("Votes", False)
    agree(list_bars(table), VOTES, 0.8)


def test_lying_bars_are_read_from_top_to_bottom() -> None:
    table = read(lambda axes: axes.barh(list(VOTES)[::-1], list(VOTES.values())[::-1], color="green"))
    assert table.is_horizontal
    agree(list_bars(table), VOTES, 0.8)
    assert {bar.colour for bar in table.bars} == {"green"}


def test_groups_and_stacks_take_their_names_from_the_legend() -> None:
    names, first, second = ["North", "South", "West"], [10, 20, 30], [25, 15, 5]

    def group(axes: Any) -> None:
        places = np.arange(3)
        axes.bar(places - 0.2, first, 0.4, label="Tea")
        axes.bar(places + 0.2, second, 0.4, label="Milk")
        axes.set_xticks(places, names)
        axes.set_ylim(0, 50)
        axes.legend()

    def stack(axes: Any) -> None:
        axes.bar(names, first, label="Tea")
        axes.bar(names, second, bottom=first, label="Milk")
        axes.set_ylim(0, 60)
        axes.legend(loc="upper left")

    wanted: dict[str, float] = {}
    for i, name in enumerate(names):
        wanted |= {f"{name} Tea": float(first[i]), f"{name} Milk": float(second[i])}
    for paint in (group, stack):
        agree(list_bars(read(paint)), wanted, 1.0)


def test_hatches_edges_and_a_grid_over_them_do_not_cut_bars() -> None:
    def paint(axes: Any) -> None:
        axes.bar(list(VOTES), list(VOTES.values()), edgecolor="black", hatch="/")
        axes.grid(True)
        axes.set_axisbelow(False)

    agree(list_bars(read(paint, size=(6.0, 4.0))), VOTES, 1.0)


def test_bars_of_a_jpeg_file_are_read() -> None:
    canvas, lines = draw(lambda axes: axes.bar(list(VOTES), list(VOTES.values()), color="crimson"))
    stream = io.BytesIO()
    Image.fromarray(canvas.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=50)
    stored = torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1).contiguous()
    table = read_scene(stored, lines, []).chart
    assert table is not None
    agree(list_bars(table), VOTES, 1.0)


RAIN = {"Jan": 12.0, "Feb": 25.0, "Mar": 7.0, "Apr": 18.0, "May": 30.0, "Jun": 28.0}


@pytest.mark.parametrize("look", [{}, {"marker": "o"}, {"lw": 3, "color": "purple"}])
def test_a_line_has_its_points_where_it_bends(look: dict[str, Any]) -> None:
    def paint(axes: Any) -> None:
        axes.plot(list(RAIN), list(RAIN.values()), **look)
        axes.set_title("Rainfall")

    table = read(paint, size=(5.0, 3.5))
    assert table.title == "Rainfall"
    (line,) = table.lines
    agree([(point.label, point.size) for point in line.points], RAIN, 0.7)
    assert line.trend == "rises overall"
    assert line.colour == ("purple" if "color" in look else "blue")


@pytest.mark.parametrize(
    ("where", "at"), [("upper right", None), ("upper left", (1, 1)), ("upper center", (0.5, -0.15)), ("ends", None)]
)
def test_lines_are_told_apart_by_colour_and_named(where: str, at: tuple[float, float] | None) -> None:
    years, tea, milk = [2016, 2018, 2020, 2022, 2024], [10, 30, 20, 40, 35], [45, 15, 25, 10, 5]

    def paint(axes: Any) -> None:
        axes.figure.subplots_adjust(right=0.7, bottom=0.25)
        for name, values, colour in (("Tea", tea, "red"), ("Milk", milk, "blue")):
            axes.plot(years, values, label=name, color=colour)
            if where == "ends":
                axes.text(2024.2, values[-1], name, va="center")
        axes.set_xticks(years)
        axes.set_ylim(0, 70)
        axes.grid(True)
        if where != "ends":
            axes.legend(loc=where, bbox_to_anchor=at, ncol=2 if at and at[1] < 0 else 1)

    table = read(paint, size=(5.5, 4.0))
    found = {line.name: line for line in table.lines}
    assert {name: line.colour for name, line in found.items()} == {"Tea": "red", "Milk": "blue"}
    for name, values in (("Tea", tea), ("Milk", milk)):
        wanted = {str(year): float(value) for year, value in zip(years, values, strict=True)}
        agree([(point.label, point.size) for point in found[name].points], wanted, 1.5)


def test_points_between_labels_are_counted_and_named_by_the_numbers() -> None:
    table = read(lambda axes: axes.plot([0, 1, 2, 3, 4, 5, 6, 7, 8], [3, 8, 2, 9, 4, 7, 1, 6, 5]), size=(6.0, 4.0))
    (line,) = table.lines
    assert [point.label for point in line.points] == [str(i) for i in range(9)]
    assert np.abs(np.array([point.size for point in line.points]) - [3, 8, 2, 9, 4, 7, 1, 6, 5]).max() < 0.25


def test_shares_of_a_pie_follow_from_its_angles() -> None:
    shares = {"Tea": 50.0, "Coffee": 30.0, "Milk": 15.0, "Juice": 5.0}
    table = read(lambda axes: axes.pie(list(shares.values()), labels=list(shares), startangle=90), size=(5.0, 4.0))
    assert table.is_pie
    # Matplotlib goes around counter-clockwise, the table clockwise.
    agree(list_bars(table), dict(list(shares.items())[::-1]), 1.0)


def test_a_ring_with_a_legend_is_a_pie() -> None:
    def paint(axes: Any) -> None:
        parts = axes.pie([40, 35, 25], startangle=90, wedgeprops={"width": 0.4})
        axes.legend(parts[0], ["North", "South", "West"], loc="center left", bbox_to_anchor=(0.9, 0.5))

    agree(list_bars(read(paint, size=(6.0, 4.0))), {"West": 25.0, "South": 35.0, "North": 40.0}, 1.0)


@pytest.mark.parametrize("kind", GROUNDS)
def test_textures_hold_no_chart(kind: str) -> None:
    for seed in range(3):
        pixels = np.clip(draw_ground(kind, 320, np.random.default_rng(seed)), 0, 255).astype(np.uint8)
        canvas = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        lines = [Line(str(5 * i), (10, 20 + 50 * i, 30, 32 + 50 * i)) for i in range(5)]
        assert read_scene(canvas, lines, []) == Scene(lines, [], None)


def test_labels_that_run_in_order_are_completed() -> None:
    assert complete_labels(["Jan", "", "Mar", "A", "May"]) == ["Jan", "Feb", "Mar", "Apr", "May"]
    assert complete_labels(["Sat", "Fri", "", "Wed"]) == ["Sat", "Fri", "Thu", "Wed"]
    assert complete_labels(["2018", "2019", "", "2021"]) == ["2018", "2019", "2020", "2021"]
    assert complete_labels(["", "0", "10", "20", "3O"]) == ["-10", "0", "10", "20", "30"]
    assert complete_labels(["Tea", "", "Milk"]) == ["Tea", "", "Milk"]
    assert complete_labels(["V", "W", "A", ""]) == ["V", "W", "A", ""]


def test_joined_labels_stand_where_each_was_drawn() -> None:
    words = split_words("10 20 30", 0, 200, 16)
    assert [text for text, _, _ in words] == ["10", "20", "30"]
    middles = [(low + high) / 2 for _, low, high in words]
    assert middles == pytest.approx([9.9, 100, 190.1], abs=0.1)
    assert read_number("10 20 30") is None
    assert read_number("1 200 000") is not None
    number = read_number("2500 -")
    assert number is not None
    assert number.value == 2500


def test_a_second_look_finds_labels_that_were_missed_and_the_turned_name() -> None:
    def paint(axes: Any) -> None:
        axes.bar(["Ann", "Bob", "Cleo", "Dan"], [12, 37, 25, 9])
        axes.set_ylabel("Votes")
        axes.set_xlabel("Person")

    canvas, lines = draw(paint, size=(6.0, 4.0))
    missed = [line for line in lines if line.text not in ("Bob", "20")]
    looks: list[tuple[int, ...]] = []

    def look(strip: torch.Tensor) -> list[Line]:
        """Reads what stands in the lower margin, and in a strip of the left one that is turned."""
        looks.append(tuple(strip.shape[1:]))
        height, width = canvas.shape[1:]
        if strip.shape[2] == 2 * width:
            top = height - strip.shape[1] // 2
            shown = [(line.text, line.box) for line in lines if line.box[1] > top]
            return [Line(text, (2 * a, 2 * b - 2 * top, 2 * c, 2 * d - 2 * top)) for text, (a, b, c, d) in shown]
        return [Line("Votes", (4, 4, 40, 18))] if strip.shape[1] < strip.shape[2] else []

    table = read_scene(canvas, missed, [], look).chart
    assert table is not None
    assert [bar.label for bar in table.bars] == ["Ann", "Bob", "Cleo", "Dan"]
    assert (table.x_name, table.y_name) == ("Person", "Votes")
    assert len(looks) == 3


def measure_ink(strip: torch.Tensor) -> tuple[int, int]:
    """The width and height of what is dark."""
    dark = (strip.float().mean(0) < 110).numpy()
    columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


@pytest.mark.parametrize(
    ("angle", "end"), [(45, "center"), (45, "right"), (30, "right"), (90, "center"), (-45, "left")]
)
def test_slanted_labels_are_turned_level_and_stand_below_their_bars(angle: float, end: str) -> None:
    names = ["Strawberry", "Lemon", "Gooseberry", "Jar", "Apricots", "Melon"]

    def paint(axes: Any) -> None:
        axes.bar(names, [12, 37, 25, 9, 31, 18])
        axes.set_xticks(range(6), names, rotation=angle, ha=end)
        axes.set_xlabel("Fruit")
        axes.figure.subplots_adjust(bottom=0.35)

    canvas, lines = draw(paint, size=(6.0, 4.5))
    base = max(line.box[3] for line in lines if line.text == "0")
    row = int(base) + 22
    x = int(torch.nonzero(canvas[0, row, 150:] < 110)[0]) + 150
    specks = [Line("O", (x - 4, row - 5, x + 4, row + 5))]
    widths: list[int] = []

    def look(strip: torch.Tensor) -> list[Line]:
        if widths or strip.shape[1] < strip.shape[2]:
            return []
        page = []
        each = strip.shape[1] // len(names)
        for i, name in enumerate(names):
            width, height = measure_ink(strip[:, i * each : (i + 1) * each])
            assert width > height
            assert height < 45
            widths.append(width)
            page.append(Line(name, (5, i * each + 5, 5 + width, (i + 1) * each - 5)))
        return page

    scene = read_scene(canvas, [*lines, *specks], [], look)
    assert scene.chart is not None
    agree(list_bars(scene.chart), dict(zip(names, (12, 37, 25, 9, 31, 18), strict=True)), 0.5)
    assert scene.chart.x_name == "Fruit"
    assert not scene.lines
    assert np.argmin(widths) == 3
    assert set(np.argsort(widths)[-2:]) == {0, 2}


def test_a_chart_with_nothing_below_its_axis_has_no_slanted_labels() -> None:
    def paint(axes: Any) -> None:
        axes.bar([0, 1, 2, 3, 4], [12, 37, 25, 9, 30])
        axes.set_xticks([])

    canvas, lines = draw(paint, size=(6.0, 4.0))
    assert lines
    # A stroke from the axis down to the edge is a part of the plot.
    canvas[:, -60:, 200:204] = 0
    assert read_scene(canvas, lines, [], lambda strip: []).chart is not None


def test_a_turned_name_is_found_past_its_own_stray_letters() -> None:
    def paint(axes: Any) -> None:
        axes.bar(list(VOTES), list(VOTES.values()))
        axes.set_ylabel("Votes in all")

    canvas, lines = draw(paint, size=(6.0, 4.0))
    dark = canvas[:, :, :40].float().mean(0) < 110
    left, top = int(torch.nonzero(dark.any(0))[0]), int(torch.nonzero(dark.any(1))[0])
    strays = [Line("O", (left, top + 9, left + 12, top + 19)), Line("h", (left, top + 30, left + 12, top + 40))]

    def look(strip: torch.Tensor) -> list[Line]:
        width, height = measure_ink(strip)
        return [Line("Votes in all", (4, 4, 99, 18))] if width > 4 * height else []

    scene = read_scene(canvas, [*lines, *strays], [], look)
    assert scene.chart is not None
    assert scene.chart.y_name == "Votes in all"
    assert not scene.lines


def test_a_word_without_its_first_letter_is_read_again() -> None:
    canvas, lines = draw(lambda axes: axes.barh(["Tyrants", "Fig", "Melon"], [12, 37, 25]), size=(6.0, 4.0))
    cut = [
        line._replace(text="yrants", box=(line.box[0] + 8, *line.box[1:])) if line.text == "Tyrants" else line
        for line in lines
    ]
    looks: list[tuple[int, int]] = []

    def look(strip: torch.Tensor) -> list[Line]:
        width, height = measure_ink(strip)
        looks.append((width, height))
        return [Line("Tyrants", (5, 5, 5 + width, 5 + height))]

    table = read_scene(canvas, cut, [], look).chart
    assert table is not None
    assert [bar.label for bar in table.bars] == ["Melon", "Fig", "Tyrants"]
    whole = next(line.box for line in lines if line.text == "Tyrants")
    assert [width / 2 for width, _ in looks[:1]] == pytest.approx([whole[2] - whole[0]], abs=4)
    assert read_scene(canvas, lines, [], look).chart == table


@pytest.mark.parametrize(
    ("is_lying", "size", "dots", "width"), [(False, (14.4, 9.0), 1.8, 1536), (True, (10.5, 6.0), 1.5, 1152)]
)
def test_gray_bars_are_found_on_a_blurred_black_axis(
    is_lying: bool, size: tuple[float, float], dots: float, width: int
) -> None:
    """Drawn at ``dots`` hundred pixels an inch and enlarged: gray pixels lie between the axis and the page."""
    colours = ["tab:red", "tab:blue", "tab:gray", "tab:green", "tab:brown"]

    def paint(axes: Any) -> None:
        (axes.barh if is_lying else axes.bar)(list(VOTES), list(VOTES.values()), color=colours)
        axes.set_title("Members 2018", fontsize=12 * dots)
        axes.tick_params(width=0.8 * dots, length=3.5 * dots, pad=3.5 * dots, labelsize=10 * dots)
        for spine in axes.spines.values():
            spine.set_linewidth(0.8 * dots)
        if is_lying:
            axes.figure.subplots_adjust(left=0.22)

    canvas, lines = draw(paint, size=size)
    scale = width / canvas.shape[2]
    image = Image.fromarray(canvas.permute(1, 2, 0).numpy())
    large = image.resize((width, round(canvas.shape[1] * scale)), Image.Resampling.BICUBIC)
    boxes = [tuple(value * scale for value in line.box) for line in lines]
    scaled = [Line(line.text, (x0, y0, x1, y1)) for line, (x0, y0, x1, y1) in zip(lines, boxes, strict=True)]
    table = read_scene(torch.from_numpy(np.array(large)).permute(2, 0, 1), scaled, []).chart
    assert table is not None
    assert table.title == "Members 2018"
    agree(list_bars(table)[:: -1 if is_lying else 1], VOTES, 0.5)


def test_a_line_chart_is_told_in_its_fixed_form() -> None:
    def line(name: str, colour: str, *values: float) -> ChartLine:
        labels = ("Jan", "Feb", "Mar")
        return ChartLine(
            name, colour, tuple(Bar(at, colour, f"{v:g}", v) for at, v in zip(labels, values, strict=True))
        )

    tea, milk = line("Tea", "blue", 12, 15, 9), line("Milk", "red", 3, 5, 8)
    assert describe((9, 9), [], [], ChartTable("Sold", lines=(line("", "blue", 12, 15, 9),), x_name="Month")) == (
        'Line chart "Sold" (blue), 3 points from left to right: Jan 12, Feb 15, Mar 9. Highest: Feb 15; lowest: Mar 9; '
        "it falls overall. X axis: Month."
    )
    assert describe((9, 9), [], [], ChartTable("", lines=(milk, tea))) == (
        "Line chart, 2 lines, 3 points from left to right.\n"
        "Milk (red): Jan 3, Feb 5, Mar 8. Highest: Mar 8; lowest: Jan 3; it rises overall.\n"
        "Tea (blue): Jan 12, Feb 15, Mar 9. Highest: Feb 15; lowest: Mar 9; it falls overall.\n"
        "Highest at each: Jan Tea, Feb Tea, Mar Tea. Rising: Milk. Falling: Tea.\n"
        "From the highest line to the lowest: Tea, Milk."
    )


def test_a_curve_that_was_read_as_letters_is_not_its_own_name() -> None:
    canvas, lines = draw(lambda axes: axes.plot(list(RAIN), [9, 9, 9, 9, 25, 30], color="blue"), size=(6.0, 4.0))
    blue = (canvas[2].int() - canvas[0].int() > 120).numpy()
    columns = np.flatnonzero(blue.any(0))
    at = int(columns[len(columns) // 4])  # left of it, the level curve looks like the key of a legend
    row = float(np.flatnonzero(blue[:, at]).mean())
    table = read_scene(canvas, [*lines, Line("Wvw", (at, row - 9, at + 50, row + 9), "blue")], []).chart
    assert table is not None
    assert [(line.name, line.colour) for line in table.lines] == [("", "blue")]


def test_no_margin_is_looked_at_twice_where_no_axis_may_be() -> None:
    canvas = torch.full((3, 400, 600), 255, dtype=torch.uint8)
    looks: list[torch.Tensor] = []
    prices = [
        Line(text, (500, 20 + 40 * i, 560, 34 + 40 * i)) for i, text in enumerate(("3.49", "17.80", "9.95", "31.24"))
    ]
    read_scene(canvas, prices, [], lambda strip: looks.append(strip) or [])  # type: ignore[func-returns-value]
    assert not looks
    ticks = [Line(str(30 - 10 * i), (20, 20 + 80 * i, 40, 34 + 80 * i)) for i in range(4)]
    read_scene(canvas, ticks, [], lambda strip: looks.append(strip) or [])  # type: ignore[func-returns-value]
    assert looks


def test_a_chart_that_a_second_look_would_lose_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [Line(str(i), (20.0 * i, 280, 20.0 * i + 15, 295)) for i in range(6)]
    table = ChartTable("", (Bar("5", "red", "7", 7.0),))
    charts = [scene_text._Found(table, frozenset({5}), (50.0, 50.0, 350.0, 270.0)), None]
    monkeypatch.setattr(scene_text, "_find_chart", lambda *given: charts.pop(0))
    # Words that were read as a part of one are left out, so that later lines have other numbers.
    monkeypatch.setattr(scene_text, "complete_words", lambda canvas, lines, *given: lines[:2])
    scene = read_scene(torch.full((3, 300, 400), 255, dtype=torch.uint8), lines, [], lambda strip: [])
    assert scene.chart == table
    assert [line.text for line in scene.lines] == ["0", "1", "2", "3", "4"]


def test_objects_are_told_from_both_ends() -> None:
    class Seen(NamedTuple):
        kind: str
        colour: str
        box: tuple[float, float, float, float]

    star, circle = Seen("star", "red", (10, 10, 40, 40)), Seen("circle", "blue", (120, 120, 240, 240))
    text = describe((300, 300), [], [circle, star])
    for said in (
        "Colors: red 1, blue 1. Shapes: stars 1, circles 1.",
        "Largest: blue circle; smallest: red star.",
        "Left of the blue circle: red star.",
        "Below the red star: blue circle.",
        "In the top left: red star.",
        "The star is red.",
        "The blue shape is a circle.",
    ):
        assert f" {said}" in text
    alike = describe((300, 300), [], [star, Seen("star", "red", (250, 10, 280, 40))])
    assert "Largest" not in alike
    assert "of the red star:" not in alike


def test_bars_in_groups_are_told_by_their_series_and_others_are_not() -> None:
    def bars(*named: tuple[str, str, float]) -> tuple[Bar, ...]:
        return tuple(Bar(label, colour, f"{value:g}", value) for label, colour, value in named)

    grouped = bars(
        ("Ulm Men", "blue", 14), ("Ulm Women", "red", 18), ("Bern Men", "blue", 10), ("Bern Women", "red", 8)
    )
    text = describe((9, 9), [], [], ChartTable("", grouped))
    assert "\nMen (blue): Ulm 14, Bern 10. Highest: Ulm 14; lowest: Bern 10.\n" in text
    assert "\nHighest at each: Ulm Women, Bern Men." in text
    apart = bars(("Old Town", "blue", 1), ("New Town", "red", 2), ("Sea", "blue", 3), ("Lake", "red", 4))
    assert "Highest at each" not in describe((9, 9), [], [], ChartTable("", apart))


def test_a_power_of_ten_above_the_axis_multiplies_the_values() -> None:
    canvas, lines = draw(lambda axes: axes.bar(["Jan", "Feb", "Mar"], [1.0, 3.5, 2.0]))
    offset = Line("1e6", (50, 18, 70, 28))
    scene = read_scene(canvas, [*lines, offset], [])
    assert scene.chart is not None
    assert [(bar.label, bar.value) for bar in scene.chart.bars] == [
        ("Jan", "1000000"),
        ("Feb", "3500000"),
        ("Mar", "2000000"),
    ]
    assert offset not in scene.lines


def test_many_objects_are_only_counted() -> None:
    class Seen(NamedTuple):
        kind: str
        colour: str
        box: tuple[float, float, float, float]

    seen = [Seen("star" if i % 4 else "circle", "red", (20.0 * i, 10, 20.0 * i + 9, 19)) for i in range(16)]
    assert describe((400, 100), [], seen) == "16 objects. Colors: red 16. Shapes: stars 12, circles 4."
