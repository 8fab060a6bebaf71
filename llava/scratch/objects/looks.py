"""Shapes in looks beyond llava.synth's: outlined, shaded, turned, overlapping, on any ground, at any size."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from llava.model.lexical.object_finder import COLORS
from llava.scratch.objects.grounds import Color, draw_ground
from llava.scratch.objects.hues import PROTOTYPES, measure_contrast, name_color

Point = tuple[float, float]
_SHAPES = (
    "circle", "square", "triangle", "star", "diamond", "cross", "hexagon", "ring",
    "circle", "square", "triangle", "star", "diamond", "cross", "hexagon", "ring",
    "rectangle", "oval", "pentagon", "heart",
)  # fmt: skip
# Masks are drawn at this many times the size and reduced, for smooth edges.
_SUPER = 3


class Mark(NamedTuple):
    """What is drawn where: box in pixels. An empty ``color`` is not to be learnt, nor is a mark without a ``kind``."""

    kind: str
    color: str
    left: float
    top: float
    right: float
    bottom: float


def _regular(sides: int, turn: float) -> list[Point]:
    return [(math.cos(turn + 2 * math.pi * i / sides), math.sin(turn + 2 * math.pi * i / sides)) for i in range(sides)]


def _outline(rng: random.Random, kind: str) -> list[Point]:
    """The corners of a shape of about radius 1 about (0, 0)."""
    turn = rng.uniform(-0.25, 0.25) if rng.random() < 0.6 else 0.0
    if kind in ("circle", "ring"):
        return _regular(48, 0)
    if kind == "oval":
        b = rng.uniform(0.4, 0.75)
        points = [(x, b * y) for x, y in _regular(48, 0)]
        return _rotate(points, rng.choice((0, 0, math.pi / 2, rng.uniform(0, 3))))
    if kind == "square":
        return _regular(4, math.pi / 4 + turn)
    if kind == "rectangle":
        b = rng.uniform(0.3, 0.72)
        return _rotate([(-1, -b), (1, -b), (1, b), (-1, b)], rng.choice((0, 0, math.pi / 2)) + turn)
    if kind == "diamond":
        b = rng.uniform(0.6, 1.0)
        return _rotate([(0, -1), (b, 0), (0, 1), (-b, 0)], turn * 0.6)
    if kind == "triangle":
        free = rng.random() < 0.3
        if rng.random() < 0.2:
            return _rotate([(-0.9, 0.8), (-0.9, -0.9), (0.9, 0.8)], rng.choice((0, 1, 2, 3)) * math.pi / 2)
        stretch = rng.uniform(0.8, 1.2)
        points = [(x * stretch, y) for x, y in _regular(3, -math.pi / 2)]
        return _rotate(points, rng.uniform(0, 6.3) if free else turn)
    if kind in ("hexagon", "pentagon"):
        sides = 6 if kind == "hexagon" else 5
        return _regular(sides, rng.choice((0.0, math.pi / 6)) + turn if sides == 6 else -math.pi / 2 + turn)
    if kind == "star":
        tips, inner = rng.choice((5, 5, 5, 5, 6, 8, 4)), rng.uniform(0.35, 0.5)
        angles = (turn - math.pi / 2 + i * math.pi / tips for i in range(2 * tips))
        radii = (1.0 if i % 2 == 0 else inner for i in range(2 * tips))
        return [(r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, radii, strict=True)]
    if kind == "cross":
        t = rng.uniform(0.2, 0.42)
        quarter = [(-t, -1.0), (t, -1.0), (t, -t)]
        points = [p for i in range(4) for p in _rotate(quarter, i * math.pi / 2)]
        return _rotate(points, math.pi / 4 if rng.random() < 0.2 else turn)
    assert kind == "heart"
    steps = (2 * math.pi * i / 40 for i in range(40))
    heart = [
        (16 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)))
        for t in steps
    ]
    return _rotate([(x / 16, y / 16) for x, y in heart], turn)


def _rotate(points: list[Point], angle: float) -> list[Point]:
    c, s = math.cos(angle), math.sin(angle)
    return [(c * x - s * y, s * x + c * y) for x, y in points]


def draw_named_color(rng: random.Random) -> tuple[str, Color]:
    """A colour that has a name beyond dispute, and the name; all names alike often."""
    name = rng.choice(COLORS[:11] if rng.random() < 0.9 else COLORS)
    base = rng.choice(PROTOTYPES[name])
    for _ in range(20):
        color = tuple(max(0, min(255, c + rng.randint(-28, 28))) for c in base)
        if name_color(color) == (name, True):
            return name, color  # type: ignore[return-value]
    return name, base


def _shade(rng: random.Random, color: Color, size: tuple[int, int]) -> Image.Image:
    """A fill of about that colour: flat, graded or rough."""
    draw = rng.random()
    if draw < 0.7:
        return Image.new("RGB", size, color)
    width, height = size
    light = np.zeros((height, width, 1), np.float32)
    if draw < 0.87:
        light += np.linspace(-1, 1, height, dtype=np.float32)[:, None, None] * rng.uniform(-25, 25)
    else:
        light += np.random.default_rng(rng.getrandbits(30)).normal(0, rng.uniform(3, 16), light.shape)
    return Image.fromarray((np.array(color, np.float32) + light).clip(0, 255).astype(np.uint8))


def draw_shape(rng: random.Random, image: Image.Image, kind: str, x: float, y: float, radius: float) -> Mark | None:
    """Draws a shape in a random look and returns its mark; nothing where it would hardly be visible."""
    corners = [(px * radius, py * radius) for px, py in _outline(rng, kind)]
    left, right = min(p[0] for p in corners), max(p[0] for p in corners)
    top, bottom = min(p[1] for p in corners), max(p[1] for p in corners)
    at_x, at_y = math.floor(x + left) - 2, math.floor(y + top) - 2
    size = (math.ceil(right - left) + 5, math.ceil(bottom - top) + 5)
    around = np.asarray(image.crop((at_x, at_y, at_x + size[0], at_y + size[1])).resize((8, 8)), np.float32)
    ground = around.reshape(-1, 3).mean(0)
    for _ in range(8):
        name, color = draw_named_color(rng)
        if measure_contrast(color, ground) > 0.17 and name_color(ground)[0] != name:
            break
    else:
        return None
    big = [((px + x - at_x) * _SUPER, (py + y - at_y) * _SUPER) for px, py in corners]
    mask = Image.new("L", (size[0] * _SUPER, size[1] * _SUPER), 0)
    pen = ImageDraw.Draw(mask)
    draw = rng.random()
    if kind == "ring":
        inner = rng.uniform(0.45, 0.78)
        pen.polygon(big, fill=255)
        middle = ((x - at_x) * _SUPER, (y - at_y) * _SUPER)
        pen.polygon(
            [(middle[0] + (bx - middle[0]) * inner, middle[1] + (by - middle[1]) * inner) for bx, by in big], fill=0
        )
    elif draw < 0.15 and radius > 8:  # an outline only
        width = max(1.5, radius * rng.uniform(0.04, 0.13))
        pen.line([*big, big[0], big[1]], fill=255, width=max(2, round(width * _SUPER)), joint="curve")
    else:
        pen.polygon(big, fill=255)
    mask = mask.resize(size, Image.Resampling.BOX)
    if rng.random() < 0.08:  # a shadow
        dark = mask.filter(ImageFilter.GaussianBlur(2)).point(lambda v: v // 2)
        image.paste((0, 0, 0), (at_x + 2, at_y + 3), dark)
    image.paste(_shade(rng, color, size), (at_x, at_y), mask)
    if 0.15 <= draw < 0.3 and kind != "ring":  # a fill with an edge of another colour
        edge = Image.new("L", (size[0] * _SUPER, size[1] * _SUPER), 0)
        width = max(1.0, radius * rng.uniform(0.02, 0.1))
        ImageDraw.Draw(edge).line([*big, big[0], big[1]], fill=255, width=max(2, round(width * _SUPER)))
        image.paste(
            rng.choice(((0, 0, 0), (255, 255, 255), (60, 60, 60))),
            (at_x, at_y),
            edge.resize(size, Image.Resampling.BOX),
        )
    return Mark(kind, name, x + left, y + top, x + right, y + bottom)


def draw_looks(
    rng: random.Random, width: int, height: int, ground: Image.Image | None = None
) -> tuple[Image.Image, list[Mark]]:
    """One to ten shapes on a ground, sometimes overlapping a little, sometimes all of one kind or in rows."""
    image = ground or draw_ground(rng, width, height)
    count = rng.choice((1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 10))
    overlap = rng.choice((1.15, 1.15, 1.05, 0.85))
    few = rng.sample(_SHAPES, 2) if rng.random() < 0.3 else _SHAPES
    largest = min(0.45, 0.62 / count**0.5) * min(width, height)
    placed: list[tuple[float, float, float]] = []
    marks = []
    for _ in range(count * 8):
        radius = max(6.0, largest * rng.uniform(0.3, 1.0))
        if 2 * radius >= min(width, height) - 2 or len(placed) == count:
            break
        x, y = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
        if any((x - a) ** 2 + (y - b) ** 2 < (overlap * (radius + r)) ** 2 for a, b, r in placed):
            continue
        mark = draw_shape(rng, image, rng.choice(few), x, y, radius)
        if mark is not None:
            placed.append((x, y, radius))
            marks.append(mark)
    return image, marks
