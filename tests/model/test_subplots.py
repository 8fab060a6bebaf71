"""Plots beside each other are parted at the blank between them; one chart is never parted."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from llava.model.lexical.scene_text import describe_scene
from llava.model.lexical.subplots import part_plots
from tests.model.seen_lines import Line

HIGH = 280  # px from a value of 0 to the top of a scale


def draw_bars(
    pen: ImageDraw.ImageDraw, left: int, top: int, values: dict[str, float], most: int, has_frame: bool = True
) -> list[Line]:
    """Bars of 50 px on a scale from 0 to ``most``, and the lines of text that belong to them."""
    if has_frame:
        pen.rectangle((left + 40, top + 30, left + 340, top + 30 + HIGH), outline="black")
    lines = []
    for i in range(5):
        y = top + 30 + HIGH - i * HIGH // 4
        pen.line((left + 35, y, left + 40, y), fill="black")
        lines.append(Line(f"{most * i / 4:g}", (left + 8, y - 7, left + 31, y + 7)))
    for i, (name, value) in enumerate(values.items()):
        x = left + 70 + 90 * i
        pen.rectangle((x, top + 30 + HIGH - HIGH * value / most, x + 50, top + 30 + HIGH), fill="steelblue")
        lines.append(Line(name, (x + 5, top + HIGH + 38, x + 45, top + HIGH + 52)))
    return sorted(lines, key=lambda line: line.box[1])


def to_canvas(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_each_of_two_plots_is_read_by_its_own_scale() -> None:
    for is_below in (False, True):
        image = Image.new("RGB", (400, 720) if is_below else (760, 380), "white")
        pen = ImageDraw.Draw(image)
        lines = draw_bars(pen, 0, 0, {"Ann": 3, "Ben": 5, "Cleo": 2}, 8)
        lines += draw_bars(pen, *((0, 350) if is_below else (370, 0)), {"Dan": 20, "Eve": 40, "Finn": 10}, 40)
        told = describe_scene(image.size, lines, [], to_canvas(image))
        first, second = told.split("\n")
        assert first.startswith("Bar chart, 3 bars from left to right: Ann 3 (blue), Ben 5 (blue), Cleo 2 (blue).")
        assert second.startswith("Bar chart, 3 bars from left to right: Dan 20 (blue), Eve 40 (blue), Finn 10 (blue).")


def test_a_title_over_two_plots_is_told_before_them() -> None:
    image = Image.new("RGB", (760, 420), "white")
    pen = ImageDraw.Draw(image)
    lines = draw_bars(pen, 0, 40, {"Ann": 3, "Ben": 5}, 8) + draw_bars(pen, 370, 40, {"Dan": 20, "Eve": 40}, 40)
    pen.rectangle((250, 8, 520, 28), fill="black")
    told = describe_scene(image.size, [Line("Sales of both shops", (250, 8, 520, 28)), *lines], [], to_canvas(image))
    assert told.startswith("Text (1 line):\n1. Sales of both shops\nBar chart, 2 bars from left to right: Ann 3")


def test_one_chart_is_not_parted() -> None:
    image = Image.new("RGB", (400, 380), "white")
    lines = draw_bars(ImageDraw.Draw(image), 0, 0, {"Ann": 3, "Ben": 5, "Cleo": 2}, 8, has_frame=False)
    assert part_plots(to_canvas(image), lines, []) == []
    wide = Image.new("RGB", (760, 380), "white")
    lines = draw_bars(ImageDraw.Draw(wide), 0, 0, {"Ann": 3, "Ben": 5, "Cleo": 2}, 8)
    legend = [Line("Shop 1", (480, 100, 560, 114)), Line("Shop 2", (480, 130, 560, 144))]
    assert part_plots(to_canvas(wide), lines + legend, []) == []


def test_columns_of_text_and_of_numbers_are_not_told_as_plots() -> None:
    image = Image.new("RGB", (760, 380), "white")
    pen = ImageDraw.Draw(image)
    lines = [Line(str(10 * i), (x, 20 + 50 * i, x + 30, 36 + 50 * i)) for i in range(6) for x in (20, 420)]
    for line in lines:
        pen.text(line.box[:2], line.text, fill="black")
    assert "chart" not in describe_scene(image.size, lines, [], to_canvas(image))
