"""Paper: a texture of noise under what is drawn, and a sheet that lies on a table, seen slightly from the side."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from llava.synth.drawing import Drawing, vary_color

Array = npt.NDArray[np.float64]

# No corner of a sheet is further from the image's own than this share of the image's side.
_MAX_SHIFT = 0.05
_TABLES = ("brown", "gray", "blue", "green", "black")


def draw_texture(
    rng: random.Random, width: int, height: int, ground: tuple[int, int, int], rough: float
) -> Image.Image:
    """A ground with noise at three scales and a slope of light, as an RGB image.

    Args:
        ground: the colour, RGB from 0 to 255.
        rough: the amplitude of the noise, in the same units.
    """
    generator = np.random.default_rng(rng.getrandbits(32))
    light = np.zeros((height, width), dtype=np.float32)
    for cell_px, share in ((1, 0.35), (rng.randint(3, 7), 0.5), (rng.randint(20, 60), 1.0)):
        light += share * _draw_noise(generator, width, height, cell_px)
    angle, slope = rng.uniform(0, 2 * math.pi), rng.uniform(0, 1.5)
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
    light += (slope * (x * math.cos(angle) + y * math.sin(angle))).astype(np.float32)
    pixels = np.asarray(ground, dtype=np.float32) + rough * light[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_noise(generator: np.random.Generator, width: int, height: int, cell_px: int) -> npt.NDArray[np.float32]:
    """Smooth noise [height, width] from -1 to 1 that changes about every ``cell_px`` pixels."""
    cells = generator.uniform(-1, 1, (height // cell_px + 2, width // cell_px + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def lay_on_paper(drawing: Drawing, rng: random.Random) -> None:
    """Puts a sheet of paper under what was drawn on white."""
    base = rng.randint(212, 248)
    ground = (base, base - rng.randint(0, 8), base - rng.randint(0, 26))
    paper = draw_texture(rng, drawing.width, drawing.height, ground, rng.uniform(3, 14))
    ink = np.asarray(drawing.image, dtype=np.float32) / 255
    drawing.image = Image.fromarray((np.asarray(paper, dtype=np.float32) * ink).astype(np.uint8))


def tilt(drawing: Drawing, rng: random.Random) -> None:
    """Lays the image on a table in a light perspective, and moves the marks of its characters with it.

    Marks of objects stay where they are: only pages of text are tilted.
    """
    width, height = drawing.width, drawing.height
    before = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    after = [
        (abs(x - rng.uniform(0, _MAX_SHIFT) * width), abs(y - rng.uniform(0, _MAX_SHIFT) * height)) for x, y in before
    ]
    table = draw_texture(rng, width, height, vary_color(rng, rng.choice(_TABLES), 30), rng.uniform(5, 25))
    back = tuple(find_homography(after, before).flatten()[:8])
    size, how = (width, height), Image.Transform.PERSPECTIVE
    sheet = drawing.image.transform(size, how, back, Image.Resampling.BICUBIC)
    there = Image.new("L", size, 255).transform(size, how, back, Image.Resampling.BICUBIC)
    drawing.image = Image.composite(sheet, table, there)
    forth = find_homography(before, after)
    for i, mark in enumerate(drawing.characters):
        x, y = _move(forth, mark.x, mark.y)
        _, top = _move(forth, mark.x, mark.y - mark.height / 2)
        _, bottom = _move(forth, mark.x, mark.y + mark.height / 2)
        drawing.characters[i] = mark._replace(x=x, y=y, height=bottom - top)


def find_homography(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> Array:
    """The projective map [3, 3], with 1 in the last corner, that takes four points to four others."""
    rows, targets = [], []
    for (x, y), (u, v) in zip(before, after, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        targets += [u, v]
    return np.append(np.linalg.solve(np.array(rows, dtype=np.float64), np.array(targets)), 1.0).reshape(3, 3)


def _move(homography: Array, x: float, y: float) -> tuple[float, float]:
    u, v, w = homography @ (x, y, 1.0)
    return float(u / w), float(v / w)
