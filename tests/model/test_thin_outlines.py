"""Shapes that are drawn as lines are named; grids, letters, frames of plots and tables are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from llava.model.lexical.flat_fills import find_fills
from llava.model.lexical.flat_shapes import FlatShape
from llava.model.lexical.scene_text import read_scene
from llava.model.lexical.thin_outlines import find_outlines
from tests.model.seen_lines import Line
from tests.model.test_flat_shapes import OUTLINES, Points, turn_around

Shown = tuple[Points, tuple[int, int], float, str]
CIRCLE, SQUARE, TRIANGLE = (OUTLINES[name] for name in ("circle", "square", "triangle"))


def to_canvas(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def draw_lines(shapes: list[Shown], width: float, times: int = 1) -> Image.Image:
    """Shapes (outline, middle, reach, colour) as lines of a width in px, smooth where they are drawn larger."""
    image = Image.new("RGB", (600 * times, 400 * times), "white")
    pen = ImageDraw.Draw(image)
    for points, (x0, y0), reach, colour in shapes:
        corners = [(times * (x0 + reach * x), times * (y0 + reach * y)) for x, y in points]
        pen.line([*corners, *corners[:2]], fill=colour, width=round(width * times), joint="curve")
    return image if times == 1 else image.resize((600, 400), Image.Resampling.LANCZOS)


def find(image: Image.Image) -> list[FlatShape]:
    fills = find_fills(to_canvas(image))
    assert fills is not None
    return find_outlines(fills, [], [])


@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("name", OUTLINES)
def test_a_shape_is_named_by_the_line_around_it(name: str, width: int, times: int) -> None:
    for reach in (40, 150):
        image = draw_lines([(OUTLINES[name], (300, 200), reach, "blue")], width, times)
        [shape] = find(image)
        assert (shape.kind, shape.colour) == (name.split()[0], "blue")
        assert abs(shape.box[1] - min(200 + reach * y for _, y in OUTLINES[name])) <= 4


def test_each_of_several_outlines_has_its_own_colour() -> None:
    shown: list[Shown] = [
        (CIRCLE, (110, 200), 70, "red"), (SQUARE, (300, 200), 80, "green"), (TRIANGLE, (480, 220), 80, "black")
    ]  # fmt: skip
    found = {(each.colour, each.kind) for each in find(draw_lines(shown, 2, 3))}
    assert found == {("red", "circle"), ("green", "square"), ("black", "triangle")}


def draw_on_page(kind: str) -> Image.Image:
    image = Image.new("RGB", (600, 400), "white")
    pen = ImageDraw.Draw(image)
    if kind == "grid":
        for k in range(6):
            pen.line((100 + 60 * k, 80, 100 + 60 * k, 330), fill="black", width=2)
            pen.line((100, 80 + 50 * k, 400, 80 + 50 * k), fill="black", width=2)
    elif kind == "plot":
        pen.rectangle((80, 50, 540, 340), outline="black")
        for k in range(6):
            pen.line((73, 60 + 54 * k, 80, 60 + 54 * k), fill="black")
            pen.line((90 + 85 * k, 340, 90 + 85 * k, 347), fill="black")
    elif kind == "border":
        pen.rectangle((10, 10, 590, 390), outline="black", width=2)
    elif kind == "dots in a box":
        pen.rectangle((80, 50, 440, 340), outline="black")
        for k in range(30):
            pen.ellipse((100 + 11 * k, 80 + 37 * k % 230, 106 + 11 * k, 86 + 37 * k % 230), fill="blue")
    elif kind == "cross of lines":
        pen.line((100, 200, 500, 200), fill="black", width=2)
        pen.line((300, 50, 300, 350), fill="black", width=2)
    elif kind == "face":
        pen.ellipse((150, 50, 450, 350), outline="black", width=2)
        pen.ellipse((220, 130, 260, 170), fill="black")
        pen.ellipse((340, 130, 380, 170), fill="black")
    elif kind == "open curve":
        pen.arc((150, 50, 450, 350), 20, 320, fill="black", width=2)
    elif kind == "diagonal in a box":
        pen.rectangle((100, 100, 400, 300), outline="black", width=2)
        pen.line((100, 100, 400, 300), fill="black", width=2)
    return image


@pytest.mark.parametrize(
    "kind", ["grid", "plot", "border", "dots in a box", "cross of lines", "face", "open curve", "diagonal in a box"]
)
def test_other_lines_are_no_shapes(kind: str) -> None:
    assert find(draw_on_page(kind)) == []


def test_a_field_with_words_in_it_is_no_object_and_a_circle_with_a_word_is() -> None:
    def see(points: Points) -> list[str]:
        canvas = to_canvas(draw_lines([(points, (300, 200), 100, "blue")], 2))
        scene = read_scene(canvas, [Line("Search here", (250, 185, 350, 210), "black")], [])
        assert [line.text for line in scene.lines] == ["Search here"]
        return [each.kind for each in scene.objects]

    assert see(OUTLINES["rectangle"]) == []
    assert see(CIRCLE) == ["circle"]


def test_outlines_that_were_read_as_letters_are_no_text_and_letters_are_no_outlines() -> None:
    shown: list[Shown] = [
        (points, (110 + 185 * i, 200), 75, "red") for i, points in enumerate((CIRCLE, SQUARE, TRIANGLE))
    ]
    scene = read_scene(to_canvas(draw_lines(shown, 2)), [Line(")Z1", (40, 130, 550, 270), "red")], [])
    assert scene.lines == []
    assert sorted(each.kind for each in scene.objects) == ["circle", "square", "triangle"]
    oval = [(0.6 * x, y) for x, y in turn_around(90, 1)]
    number = draw_lines([(oval, (280, 200), 80, "black"), (oval, (400, 200), 80, "black")], 2)
    ImageDraw.Draw(number).line((200, 120, 200, 280), fill="black", width=2)
    scene = read_scene(to_canvas(number), [Line("100", (190, 118, 450, 282), "black")], [])
    assert [line.text for line in scene.lines] == ["100"]
    assert scene.objects == []
