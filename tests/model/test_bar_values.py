"""Figures at the ends of bars are found where they stand, and read together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from llava.model.lexical.bar_values import read_bar_values
from llava.model.lexical.flat_fills import find_fills
from llava.model.lexical.object_finder import Drawn
from tests.model.seen_lines import Line

FIGURES = ("12", "9", "15", "18", "7", "11")
SIZE = 24


def draw_bars(*, are_level: bool, has_figures: bool = True) -> tuple[torch.Tensor, list[Drawn]]:
    """Bars beside each other, two and two without a gap, as long as their figures say, which stand at their ends."""
    image = Image.new("RGB", (700, 500), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(SIZE)
    bars = []
    for i, figure in enumerate(FIGURES):
        start, length = 40 + 50 * i + 40 * (i // 2), 15 * int(figure)
        box = (60, start, 60 + length, start + 50) if are_level else (start, 400 - length, start + 50, 400)
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=("#4472c4", "#ed7d31")[i % 2])
        place = (box[2] + 10, box[1] + 12) if are_level else (box[0] + 12, box[1] - 36)
        if has_figures:
            draw.text(place, figure, fill="#404040", font=font)
        bars.append(Drawn("bar", "blue", tuple(map(float, box)), 1.0))  # type: ignore[arg-type]
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(), bars


def read_strips(sheet: torch.Tensor) -> list[Line]:
    """A reader that tells how many strips of the sheet have ink, and where, as "0", "1" and so on."""
    has_ink = (sheet.float().mean(0) < 160).any(1).tolist()
    starts = [y for y in range(1, len(has_ink)) if has_ink[y] and not has_ink[y - 1]]
    ends = [y for y in range(1, len(has_ink)) if not has_ink[y] and has_ink[y - 1]]
    pairs = zip(starts, ends, strict=True)
    return [Line(str(i), (0.0, float(start), 10.0, float(end))) for i, (start, end) in enumerate(pairs)]


NAMES = [Line("Spring", (40, 420, 120, 420 + SIZE)), Line("Autumn", (180, 420, 260, 420 + SIZE))]


@pytest.mark.parametrize("are_level", [False, True])
def test_each_bar_has_the_figure_at_its_end(are_level: bool) -> None:
    canvas, bars = draw_bars(are_level=are_level)
    fills = find_fills(canvas)
    assert fills is not None
    lines = read_bar_values(canvas, fills, bars, NAMES, read_strips)
    assert lines is not None
    found = {line.text: line.box for line in lines if line.text.isdigit()}
    assert sorted(found) == ["0", "1", "2", "3", "4", "5"]
    for number, bar in enumerate(bars):
        left, top, right, bottom = found[str(number)]
        if are_level:
            assert bar.box[1] < (top + bottom) / 2 < bar.box[3]
            assert 0 < left - bar.box[2] < SIZE
        else:
            assert bar.box[0] < (left + right) / 2 < bar.box[2]
            assert 0 < bar.box[1] - bottom < SIZE
    assert [line for line in lines if not line.text.isdigit()] == NAMES


def test_bars_without_figures_have_none() -> None:
    canvas, bars = draw_bars(are_level=False, has_figures=False)
    fills = find_fills(canvas)
    assert fills is not None
    assert read_bar_values(canvas, fills, bars, NAMES, read_strips) is None
