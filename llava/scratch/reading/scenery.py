"""What is no text on drawn pages: rough grounds, clutter, regular patterns and pictures."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from llava.scratch.reading.colours import RGB, Pixels, draw_colour, enlarge


def draw_rough_ground(rng: random.Random, width: int, height: int) -> Pixels:
    """Something like a blurred photograph: coloured noise of many scales, patches with edges, and strokes."""
    noise = np.random.default_rng(rng.getrandbits(32))
    base = np.array(draw_colour(rng), dtype=np.float32)
    ground = np.empty((height, width, 3), dtype=np.float32)
    ground[:] = base
    steep = rng.uniform(0.4, 1.1)
    for octave in range(2, 9):
        cell = 2**octave
        amount = rng.uniform(0.2, 1) * 4 * (cell / 4) ** steep
        shape = (max(2, height // cell + 1), max(2, width // cell + 1), 1 if rng.random() < 0.5 else 3)
        ground += enlarge(noise.normal(0, min(60, amount), shape).astype(np.float32), width, height)
    if rng.random() < 0.6:
        ground += noise.normal(0, rng.uniform(1, 14), (height, width, 1)).astype(np.float32)
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw_clutter(rng, ImageDraw.Draw(image), width, height, rng.randint(0, 14))
    return np.asarray(image, dtype=np.float32)


def draw_clutter(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int, count: int) -> None:
    """Things that are no text: polygons, ellipses, strokes, grids, rows of windows, bricks, leaves and dots."""
    for _ in range(count):
        x, y = rng.randrange(width), rng.randrange(height)
        r = math.exp(rng.uniform(math.log(4), math.log(max(8, min(width, height) / 2))))
        colour, kind = draw_colour(rng), rng.random()
        if kind < 0.2:
            corners = [(x + rng.uniform(-r, r), y + rng.uniform(-r, r)) for _ in range(rng.randint(3, 8))]
            pen.polygon(corners, fill=colour)
        elif kind < 0.35:
            box = (x - r, y - r * rng.uniform(0.3, 1), x + r, y + r)
            pen.ellipse(
                box, fill=colour if rng.random() < 0.6 else None, outline=draw_colour(rng), width=rng.randint(1, 6)
            )
        elif kind < 0.45:
            pen.rectangle(
                (x - r, y - r / 2, x + r, y + r),
                fill=colour if rng.random() < 0.6 else None,
                outline=draw_colour(rng),
                width=rng.randint(1, 5),
            )
        elif kind < 0.65:
            for _ in range(rng.randint(1, 30)):
                px, py = x + rng.uniform(-r, r), y + rng.uniform(-r, r)
                angle, long = rng.uniform(0, 6.3), rng.uniform(3, r)
                path = [(px, py)]
                for _ in range(rng.randint(1, 5)):
                    path.append((path[-1][0] + long * math.cos(angle), path[-1][1] + long * math.sin(angle)))
                    angle += rng.uniform(-0.6, 0.6)
                pen.line(path, fill=colour, width=rng.choice((1, 1, 2, 3, 5)))
        elif kind < 0.9:
            _draw_rows(rng, pen, x, y, r, colour)
        else:
            for _ in range(rng.randint(5, 80)):
                px, py, q = x + rng.gauss(0, r), y + rng.gauss(0, r), rng.uniform(1, 5)
                pen.ellipse((px - q, py - q, px + q, py + q * rng.uniform(0.4, 1)), fill=colour)


def _draw_rows(rng: random.Random, pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: RGB) -> None:
    """A regular pattern: windows, bricks, tiles, railings, stripes or leaves."""
    step_x, step_y = rng.uniform(5, 40), rng.uniform(5, 40)
    fill_x, fill_y = rng.uniform(0.3, 0.95), rng.uniform(0.3, 0.95)
    kind = rng.choice(("box", "box", "ellipse", "bar", "outline"))
    for row in range(min(14, int(2 * r / step_y) + 1)):
        shift = rng.choice((0, step_x / 2)) if kind == "box" else 0
        for column in range(min(25, int(2 * r / step_x) + 1)):
            px, py = x + column * step_x + (shift if row % 2 else 0), y + row * step_y
            box = (px, py, px + step_x * fill_x, py + step_y * fill_y)
            if kind == "ellipse":
                pen.ellipse(box, fill=colour)
            elif kind == "outline":
                pen.rectangle(box, outline=colour)
            elif kind == "bar":
                pen.rectangle((px, py, px + step_x * fill_x * 0.3, py + step_y * 1.02), fill=colour)
            else:
                pen.rectangle(box, fill=colour)


def draw_picture(rng: random.Random, pictures: Sequence[Path], side: int) -> Image.Image | None:
    """A picture without text with transparency, its longer side ``side`` px; None where there are none."""
    if not pictures:
        return None
    with Image.open(rng.choice(pictures)) as file:
        picture = file.convert("RGBA")
    scale = side / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
