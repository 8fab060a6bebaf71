"""Line charts of any look: dashes, keys that were read as letters, legends above titles, curves read as text."""

from __future__ import annotations

import random
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch

from llava.model.lexical.legend_keys import part_from_keys
from llava.model.lexical.object_finder import Drawn
from llava.model.lexical.scene_text import read_scene
from tests.model.seen_lines import Line
from tests.model.test_drawn_charts import agree, draw, list_bars, read

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul"]


def choose_values(rng: random.Random) -> dict[str, float]:
    return {month: float(rng.randint(5, 95)) for month in MONTHS}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dashes", ["--", "-."])
def test_dashed_lines_are_traced(dashes: str, seed: int) -> None:
    rng = random.Random(seed)
    first, second = choose_values(rng), choose_values(rng)
    look = {"linestyle": dashes, "linewidth": rng.choice((1.2, 1.5, 2.5)), "marker": rng.choice((None, "o", "s"))}

    def paint(axes: Any) -> None:
        axes.plot(MONTHS, list(first.values()), color="tab:blue", **look)
        axes.plot(MONTHS, list(second.values()), color="tab:red")
        axes.set_ylim(0, 100)

    table = read(paint, size=(6.4, 4.0), style=rng.choice(("default", "ggplot", "seaborn-v0_8-whitegrid")))
    found = {line.colour: [(point.label, point.size) for point in line.points] for line in table.lines}
    assert set(found) == {"blue", "red"}
    agree(found["blue"], first, 3.0)
    agree(found["red"], second, 3.0)


@pytest.mark.parametrize("marker", ["o", "s", "^", "x"])
def test_scattered_markers_are_no_chart(marker: str) -> None:
    rng = np.random.default_rng(3)

    def paint(axes: Any) -> None:
        axes.scatter(rng.uniform(0, 100, 60), rng.uniform(0, 50, 60), s=36, marker=marker)

    canvas, lines = draw(paint, size=(6.4, 4.0))
    assert read_scene(canvas, lines, []).chart is None


def test_pale_lines_of_like_hues_are_two() -> None:
    rng = random.Random(5)
    first, second = choose_values(rng), choose_values(rng)

    def paint(axes: Any) -> None:
        axes.plot(MONTHS, list(first.values()), color="#8dd3c7")
        axes.plot(MONTHS, list(second.values()), color="#bfbbd9")
        axes.set_ylim(0, 100)

    assert len(read(paint, size=(6.4, 4.0), style="dark_background").lines) == 2


def test_a_title_may_stand_below_a_legend() -> None:
    def paint(axes: Any) -> None:
        axes.figure.subplots_adjust(top=0.75)
        axes.plot(MONTHS, range(7), label="Tea")
        axes.plot(MONTHS, [5, 3, 6, 2, 4, 1, 0], label="Milk")
        axes.set_title("Cups")
        axes.legend(bbox_to_anchor=(0.5, 1.15), loc="lower center", ncol=2)

    table = read(paint, size=(6.4, 4.0))
    assert table.title == "Cups"
    assert {line.name for line in table.lines} == {"Tea", "Milk"}


def test_an_area_ends_before_a_legend_on_its_own_ground() -> None:
    first = choose_values(random.Random(1))

    def paint(axes: Any) -> None:
        axes.figure.subplots_adjust(top=0.75)
        axes.plot(MONTHS, list(first.values()), label="A long name of tea")
        axes.set_ylim(0, 100)
        axes.legend(bbox_to_anchor=(0.5, 1.12), loc="lower center", fontsize=16)

    (line,) = read(paint, size=(6.4, 4.0), style="bmh").lines
    agree([(point.label, point.size) for point in line.points], first, 2.5)


def test_a_curve_that_was_read_as_letters_is_no_text() -> None:
    first = choose_values(random.Random(2))

    def paint(axes: Any) -> None:
        axes.plot(MONTHS, list(first.values()), color="red", linestyle="--")
        axes.set_ylim(0, 100)

    canvas, lines = draw(paint, size=(6.4, 4.0))
    curve = Line("w s w s w", (150, 150, 400, 170), "red")
    scene = read_scene(canvas, [*lines, curve], [])
    assert scene.chart is not None
    (line,) = scene.chart.lines
    assert line.name == ""
    assert not scene.lines
    agree([(point.label, point.size) for point in line.points], first, 3.0)


@pytest.mark.parametrize("is_line", [False, True])
def test_a_text_is_read_again_without_its_key(is_line: bool) -> None:
    def paint(axes: Any) -> None:
        axes.figure.subplots_adjust(right=0.7)
        (axes.plot if is_line else axes.bar)(MONTHS, range(1, 8), label="Oslo", color="tab:orange")
        axes.legend(bbox_to_anchor=(1.02, 1), loc="upper left")

    canvas, lines = draw(paint, size=(6.4, 4.0))
    (entry,) = (line for line in lines if line.text == "Oslo")
    left, top, right, bottom = entry.box
    misread = entry._replace(text="WOslo", box=(left - 2.2 * (bottom - top), top, right, bottom))
    strips: list[torch.Tensor] = []

    def look(strip: torch.Tensor) -> list[Line]:
        strips.append(strip)
        return [Line("Oslo", (4.0, 4.0, 40.0, 20.0))]

    others = [line for line in lines if line is not entry]
    parted = part_from_keys(canvas, [*others, misread], [], look)
    assert parted[:-1] == others
    assert parted[-1].text == "Oslo"
    assert parted[-1].box[::2] == pytest.approx((left, right), abs=3)
    (strip,) = strips
    assert int((strip.amax(0).int() - strip.amin(0).int()).max()) < 30  # nothing coloured is left


def test_keys_of_gray_are_known_by_their_fills() -> None:
    canvas = torch.full((3, 60, 200), 255, dtype=torch.uint8)
    canvas[:, 20:36, 20:36] = 165
    canvas[:, 20:36, 50:54] = 40
    line = Line("Bi", (18, 18, 70, 40))
    key = Drawn("key", "gray", (20.0, 20.0, 36.0, 36.0), 1.0)
    assert part_from_keys(canvas, [line], [], lambda strip: [Line("l", (2, 2, 9, 20))]) == [line]
    (parted,) = part_from_keys(canvas, [line], [key], lambda strip: [Line("l", (2, 2, 9, 20))])
    assert (parted.text, parted.box[0]) == ("l", 50)


def test_a_label_on_a_fill_has_no_key() -> None:
    canvas = torch.tensor([52, 168, 83], dtype=torch.uint8)[:, None, None].expand(3, 60, 200).clone()
    canvas[:, :, :34] = torch.tensor([251, 188, 4], dtype=torch.uint8)[:, None, None]
    canvas[:, 22:36, 44:52] = 255
    label = Line("10%", (30, 18, 60, 40), "white", "green")
    assert part_from_keys(canvas, [label], [], lambda strip: [Line("4", (2, 2, 9, 20))]) == [label]


def test_bars_that_begin_between_ticks_are_markers() -> None:
    def paint(axes: Any) -> None:
        axes.bar([1, 2, 3, 4], 6, 0.2, bottom=[40, 40, 40, 40])
        axes.set_ylim(0, 100)

    canvas, lines = draw(paint, size=(6.4, 4.0))
    assert read_scene(canvas, lines, []).chart is None


def test_ticks_below_a_histogram_name_no_bars() -> None:
    counts = [3, 8, 14, 21, 12, 6]

    def paint(axes: Any) -> None:
        axes.bar(np.arange(6) * 7 + 24, counts, 7, edgecolor="white")
        axes.set_xticks([20, 30, 40, 50, 60])

    table = read(paint, size=(6.4, 4.0))
    assert {label for label, _ in list_bars(table)} == {""}
    assert [size for _, size in list_bars(table)] == pytest.approx(counts, abs=0.4)
