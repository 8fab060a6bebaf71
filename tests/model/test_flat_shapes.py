"""Flat shapes are named by their outlines: polygons that are drawn here are the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from llava.model.lexical.flat_fills import find_fills
from llava.model.lexical.flat_shapes import FlatShape, find_flat_shapes, merge_shapes
from llava.model.lexical.object_finder import Drawn
from llava.model.lexical.scene_text import read_scene
from tests.model.seen_lines import Line

Points = list[tuple[float, float]]


def turn_around(count: int, *reaches: float) -> Points:
    """Corners around the middle, the first at the top, at these distances in turn."""
    return [
        (r * math.sin(2 * math.pi * i / count), -r * math.cos(2 * math.pi * i / count))
        for i in range(count)
        for r in [reaches[i % len(reaches)]]
    ]


def cross(a: float) -> Points:
    return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]


OUTLINES: dict[str, Points] = {
    "circle": turn_around(180, 1),
    "oval": [(x, 0.6 * y) for x, y in turn_around(180, 1)],
    "square": [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)],
    "rectangle": [(-0.9, -0.5), (0.9, -0.5), (0.9, 0.5), (-0.9, 0.5)],
    "diamond": [(0, -1), (0.75, 0), (0, 1), (-0.75, 0)],
    "triangle": turn_around(3, 1),
    "triangle with a right angle": [(-0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)],
    "pentagon": turn_around(5, 1),
    "hexagon": turn_around(6, 1),
    "star": turn_around(10, 1, 0.42),
    "star of six points": turn_around(12, 1, 0.55),
    "star of four points": turn_around(8, 1, 0.4),
    "cross": cross(0.33),
    "cross that is thin": cross(0.2),
    "heart": [
        (
            16 * math.sin(u) ** 3 / 17,
            (5 * math.cos(2 * u) + 2 * math.cos(3 * u) + math.cos(4 * u) - 13 * math.cos(u)) / 17,
        )
        for u in np.linspace(0, 2 * math.pi, 200)
    ],
}
NO_KIND: dict[str, Points] = {
    "arrow": [(-1, -0.3), (0.2, -0.3), (0.2, -0.8), (1, 0), (0.2, 0.8), (0.2, 0.3), (-1, 0.3)],
    "trapezoid": [(-0.5, -0.6), (0.5, -0.6), (1, 0.6), (-1, 0.6)],
    "half circle": [(math.cos(u), math.sin(u) - 0.3) for u in np.linspace(0, math.pi, 90)],
}


def draw(
    shapes: Sequence[tuple[Points, tuple[int, int], float, str]], size: tuple[int, int], angle: float = 0
) -> torch.Tensor:
    """Shapes (outline, middle, reach, colour) with smooth edges on white, uint8 [3, H, W]; angle in radians."""
    image = Image.new("RGB", (4 * size[0], 4 * size[1]), "white")
    pen, c, s = ImageDraw.Draw(image), math.cos(angle), math.sin(angle)
    for points, (x0, y0), reach, colour in shapes:
        corners = [(4 * (x0 + reach * (c * x - s * y)), 4 * (y0 + reach * (s * x + c * y))) for x, y in points]
        pen.polygon(corners, fill=colour)
    return torch.from_numpy(np.array(image.resize(size, Image.Resampling.LANCZOS))).permute(2, 0, 1)


def find(canvas: torch.Tensor) -> list[FlatShape]:
    fills = find_fills(canvas)
    assert fills is not None
    return find_flat_shapes(fills, [])


@pytest.mark.parametrize("reach", [30, 90, 300])
@pytest.mark.parametrize("name", OUTLINES)
def test_a_shape_is_named_at_any_size_turned_or_not(name: str, reach: int) -> None:
    side = int(2.6 * reach) + 20
    angles = (0.0, 0.1) if name == "heart" else (0.0, 0.1, -0.2)
    for angle in angles:
        [shape] = find(draw([(OUTLINES[name], (side // 2, side // 2), reach, "blue")], (side, side), angle))
        assert (shape.kind, shape.colour) == (name.split()[0], "blue")


@pytest.mark.parametrize("name", NO_KIND)
def test_an_outline_that_is_none_of_them_gets_no_name(name: str) -> None:
    assert find(draw([(NO_KIND[name], (150, 150), 100, "red")], (300, 300))) == []
    two = draw([(NO_KIND[name], (150, 150), 60, "red"), (OUTLINES["circle"], (450, 150), 100, "green")], (600, 300))
    assert sorted(shape.kind for shape in find(two)) == ["", "circle"]


def test_a_hole_makes_a_ring_and_a_shape_within_another_does_not() -> None:
    outer, inner = (OUTLINES["circle"], (150, 150), 100.0, "green"), (OUTLINES["circle"], (150, 150), 60.0, "white")
    [ring] = find(draw([outer, inner], (300, 300)))
    assert (ring.kind, ring.colour) == ("ring", "green")
    square = (OUTLINES["square"], (150, 150), 120.0, "red")
    both = find(draw([square, (OUTLINES["circle"], (150, 150), 50.0, "blue")], (300, 300)))
    assert {(shape.colour, shape.kind) for shape in both} == {("red", "square"), ("blue", "circle")}


def test_what_the_network_found_is_named_placed_and_completed_by_flat_shapes() -> None:
    canvas = draw(
        [(OUTLINES["circle"], (200, 200), 150, "red"), (OUTLINES["star"], (500, 200), 60, "blue")], (600, 400)
    )
    wrong = Drawn("diamond", "red", (20.0, 120.0, 380.0, 280.0), 0.7)
    merged = merge_shapes([wrong], find(canvas))
    assert [(each.colour, each.kind) for each in merged] == [("blue", "star"), ("red", "circle")] or [
        (each.colour, each.kind) for each in merged
    ] == [("red", "circle"), ("blue", "star")]
    circle = next(each for each in merged if each.kind == "circle")
    assert np.abs(np.subtract(circle.box, (50, 50, 350, 350))).max() <= 2


def test_a_row_of_stars_that_was_read_as_letters_is_no_text() -> None:
    star = OUTLINES["star"]
    canvas = draw([(star, (x, 100), 60, "blue") for x in (100, 300, 500)], (600, 200))
    scene = read_scene(canvas, [Line("k k k", (50, 60, 550, 140), "blue")], [])
    assert scene.lines == []
    assert [each.kind for each in scene.objects] == ["star"] * 3
    said = read_scene(canvas, [Line("Stars", (10, 170, 90, 195), "black")], [])
    assert [line.text for line in said.lines] == ["Stars"]


def test_a_shape_on_another_keeps_its_outline_and_the_network_s_view_of_the_other_stays() -> None:
    circle = OUTLINES["circle"]
    canvas = draw([(circle, (150, 150), 90, "red"), (circle, (270, 150), 90, "blue")], (420, 300))
    below = Drawn("circle", "red", (60.0, 60.0, 240.0, 240.0), 0.9)
    merged = merge_shapes([below], find(canvas))
    assert {(each.colour, each.kind) for each in merged} == {("red", "circle"), ("blue", "circle")}


def test_a_letter_of_a_word_is_no_object() -> None:
    ring = Drawn("ring", "red", (60.0, 10.0, 95.0, 45.0), 0.9)
    scene = read_scene(None, [Line("NO", (20, 5, 100, 50), "red")], [ring])
    assert scene.objects == []
    assert read_scene(None, [Line("EXIT", (65, 22, 90, 30), "red")], [ring]).objects == [ring]


def test_a_page_of_text_holds_no_shapes() -> None:
    canvas = draw([(OUTLINES["circle"], (150, 150), 90, "red")], (300, 300))
    fills = find_fills(canvas)
    assert fills is not None
    assert len(find_flat_shapes(fills, [])) == 1
    assert find_flat_shapes(fills, [(0.0, 2.0 * i, 20.0, 2.0 * i + 1) for i in range(16)]) == []


def test_what_has_more_than_a_few_lines_on_it_is_no_shape() -> None:
    fills = find_fills(draw([(OUTLINES["diamond"], (300, 200), 180, "blue")], (600, 400)))
    assert fills is not None
    lines = [(270.0, 130.0 + 30 * i, 330.0, 150.0 + 30 * i) for i in range(4)]
    assert [shape.kind for shape in find_flat_shapes(fills, lines[:3])] == ["diamond"]
    assert find_flat_shapes(fills, lines) == []


@pytest.mark.parametrize("name", ["circle", "square", "triangle", "star", "hexagon"])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_a_shape_with_a_drawn_outline_is_one_shape_of_its_fill(name: str, width: int) -> None:
    outer, inner = (OUTLINES[name], (150, 150), 100.0, "black"), (OUTLINES[name], (150, 150), 100.0 - width, "yellow")
    found = find(draw([outer, inner], (300, 300)))
    assert [(each.colour, each.kind) for each in found] == [("yellow", name)]


@pytest.mark.parametrize("name", ["circle", "square", "triangle", "star", "diamond", "hexagon"])
def test_a_shape_that_touches_an_edge_is_named_and_a_band_along_it_is_no_shape(name: str) -> None:
    points = OUTLINES[name]
    x = -100 * min(x for x, _ in points)
    beside = (OUTLINES["circle"], (450, 150), 60.0, "blue")
    found = find(draw([(points, (round(x), 150), 100.0, "red"), beside], (600, 300)))
    assert sorted((each.colour, each.kind) for each in found) == [("blue", "circle"), ("red", name)]
    band: Points = [(-9, 0.5), (9, 0.5), (9, 0.8), (-9, 0.8)]
    found = find(draw([(band, (300, 220), 100.0, "green"), beside], (600, 300)))
    assert [(each.colour, each.kind) for each in found] in ([], [("blue", "circle")])
