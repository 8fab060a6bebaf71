"""Shapes at full size, with smooth edges: their colour, their kind, how many, where, and what is beside what."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import NamedTuple

from PIL import Image, ImageDraw

from llava.synth.drawing import COLORS, SHAPES
from llava.synth.full_size.full_size_item import FullSizeItem, compress, draw_ground, draw_size
from llava.synth.truth import Truth

_SMOOTH = 2  # every pixel is drawn as 2x2
_INKS = tuple(name for name in COLORS if name not in ("white", "gray"))
_PLACES = {
    "top left": ("top left", "upper left"), "top": ("top", "top center", "top middle", "upper middle"),
    "top right": ("top right", "upper right"), "left": ("left", "middle left", "center left", "left center"),
    "center": ("center", "middle", "centre"), "right": ("right", "middle right", "center right", "right center"),
    "bottom left": ("bottom left", "lower left"), "bottom": ("bottom", "bottom center", "bottom middle"),
    "bottom right": ("bottom right", "lower right"),
}  # fmt: skip


class _Shape(NamedTuple):
    kind: str
    color: str
    x: float  # of the image's width and height, from 0 to 1
    y: float
    radius: float  # of the image's shorter side

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"


def _outline(kind: str, radius: float, turn: float) -> list[tuple[float, float]]:
    """The corners around (0, 0) of a shape that has corners."""

    def ring(count: int, start: float, *radii: float) -> list[tuple[float, float]]:
        steps = count * len(radii)
        angles = [start + turn + 2 * math.pi * i / steps for i in range(steps)]
        return [
            (radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)
        ]

    if kind == "square":
        return ring(4, math.pi / 4, radius * 1.15)
    if kind == "triangle":
        return ring(3, -math.pi / 2, radius * 1.1)
    if kind == "hexagon":
        return ring(6, 0.0, radius)
    if kind == "star":
        return ring(5, -math.pi / 2, radius * 1.1, radius * 0.45)
    if kind == "diamond":
        return [(0, -radius), (radius * 0.7, 0), (0, radius), (-radius * 0.7, 0)]
    assert kind == "cross"
    arm = radius * 0.34
    corners = [(-arm, -radius), (arm, -radius), (arm, -arm), (radius, -arm), (radius, arm), (arm, arm)]
    return [*corners, *((-x, -y) for x, y in corners)]


def _paint(pen: ImageDraw.ImageDraw, shape: _Shape, width: int, height: int, turn: float) -> None:
    x, y, radius = shape.x * width, shape.y * height, shape.radius * min(width, height)
    fill = COLORS[shape.color]
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape.kind == "circle":
        pen.ellipse(box, fill=fill)
    elif shape.kind == "ring":
        pen.ellipse(box, outline=fill, width=round(radius * 0.35))
    else:
        pen.polygon([(x + dx, y + dy) for dx, dy in _outline(shape.kind, radius, turn)], fill=fill)


def _place(rng: random.Random, count: int) -> list[tuple[float, float]]:
    """Different ninths of the image, a little off their middles."""
    cells = rng.sample([(column, row) for row in range(3) for column in range(3)], count)
    return [((c + 0.5 + rng.uniform(-0.1, 0.1)) / 3, (r + 0.5 + rng.uniform(-0.1, 0.1)) / 3) for c, r in cells]


def draw_shapes_item(rng: random.Random, kind: str) -> FullSizeItem:
    """One to six shapes and a question. ``kind``: color, shape, count, place or relation."""
    width, height = draw_size(rng)
    ground = draw_ground(rng, width, height, textured=False)
    layer = ground.resize((width * _SMOOTH, height * _SMOOTH))
    pen = ImageDraw.Draw(layer)
    shapes: list[_Shape] = []
    pairs = [(shape, color) for shape in SHAPES for color in _INKS]
    few = [rng.choice(pairs) for _ in range(2)]
    for x, y in _place(rng, rng.randint(2, 6) if kind != "count" else rng.randint(2, 7)):
        pair = rng.choice(few if kind == "count" and rng.random() < 0.8 else pairs)
        shapes.append(_Shape(*pair, x, y, rng.uniform(0.07, 0.12)))
    for shape in shapes:
        _paint(pen, shape, width * _SMOOTH, height * _SMOOTH, rng.uniform(-0.2, 0.2))
    asked = _ask(rng, kind, shapes)
    if asked is None:
        return draw_shapes_item(rng, kind)
    return FullSizeItem(compress(rng, layer.resize((width, height), Image.Resampling.LANCZOS)), *asked)


def _ask(rng: random.Random, kind: str, shapes: list[_Shape]) -> tuple[str, Truth] | None:
    """The question, or None where this image allows none of that kind."""
    kinds, colors, names = (Counter(each) for each in zip(*((s.kind, s.color, s.name) for s in shapes), strict=True))
    if kind == "count":
        return _ask_count(rng, kinds, colors, len(shapes))
    single = [shape for shape in shapes if names[shape.name] == 1]
    if kind == "color":
        fit = [shape for shape in shapes if kinds[shape.kind] == 1]
        if not fit:
            return None
        shape = rng.choice(fit)
        return f"What color is the {shape.kind}?", Truth((shape.color,), others=_without(COLORS, shape.color))
    if kind == "shape":
        fit = [shape for shape in shapes if colors[shape.color] == 1]
        if not fit:
            return None
        shape = rng.choice(fit)
        question = rng.choice((f"What shape is the {shape.color} object?", f"What is the {shape.color} shape?"))
        ways = {"ring": ("ring", "donut"), "diamond": ("diamond", "rhombus"), "cross": ("cross", "plus")}
        return question, Truth(ways.get(shape.kind, (shape.kind,)), others=_without(SHAPES, shape.kind))
    if kind == "place":
        if not single:
            return None
        shape = rng.choice(single)
        row, column = ("top", "", "bottom")[int(3 * shape.y)], ("left", "", "right")[int(3 * shape.x)]
        accepted = _PLACES[f"{row} {column}".strip() or "center"]
        others = [name for ways in _PLACES.values() for name in ways if name not in accepted]
        return f"Where is the {shape.name}?", Truth(accepted, others=tuple(others))
    if len(single) < 2:
        return None
    a, b = rng.sample(single, 2)
    across = abs(a.x - b.x) > abs(a.y - b.y)
    if max(abs(a.x - b.x), abs(a.y - b.y)) < 0.2:
        return None
    words = ("to the left of", "to the right of") if across else ("above", "below")
    word = rng.choice(words)
    holds = (a.x < b.x if across else a.y < b.y) == (word == words[0])
    return f"Is the {a.name} {word} the {b.name}?", Truth(("yes" if holds else "no",), "yes/no")


def _ask_count(rng: random.Random, kinds: Counter[str], colors: Counter[str], all_of: int) -> tuple[str, Truth] | None:
    choices = [
        (f"How many {kind + 'es' if kind == 'cross' else kind + 's'} are there?", n) for kind, n in kinds.items()
    ]
    choices += [(f"How many {color} shapes are there?", n) for color, n in colors.items()]
    choices += [("How many shapes are there in all?", all_of)]
    choices = [choice for choice in choices if choice[1] <= 5]
    # Ones are the most frequent, and the least telling.
    more = [choice for choice in choices if choice[1] > 1]
    if not choices:
        return None
    question, count = rng.choice(more if more and rng.random() < 0.8 else choices)
    return question, Truth((str(count),), "number")


def _without(names: dict[str, tuple[int, int, int]] | tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)
