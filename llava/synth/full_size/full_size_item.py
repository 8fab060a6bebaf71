"""One question of the full-size suite, and the grounds that its images lie on."""

from __future__ import annotations

import io
import random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from llava.synth.paper import draw_texture
from llava.synth.truth import Truth


class FullSizeItem(NamedTuple):
    """An image with a question and its truth."""

    image: Image.Image
    question: str
    truth: Truth


Color = tuple[int, int, int]


def draw_size(rng: random.Random, least: int = 400, most: int = 1500) -> tuple[int, int]:
    """Width and height in pixels, the one at most 2.2 times the other."""
    while True:
        width, height = rng.randint(least, most), rng.randint(least, min(most, 1200))
        if max(width, height) <= 2.2 * min(width, height):
            return width, height


def draw_color(rng: random.Random, low: int, high: int) -> Color:
    """A random colour whose channels are in that range."""
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def draw_ground(rng: random.Random, width: int, height: int, *, textured: bool) -> Image.Image:
    """A plain ground, or one that looks photographed: rough, with a slope of light, or with spots out of focus."""
    if not textured:
        return Image.new("RGB", (width, height), draw_color(rng, 200, 255) if rng.random() < 0.7 else (255, 255, 255))
    if rng.random() < 0.5:
        return draw_texture(rng, width, height, draw_color(rng, 60, 200), rng.uniform(10, 45))
    noise = np.random.default_rng(rng.getrandbits(32))
    cells = noise.integers(40, 220, (rng.randint(3, 7), rng.randint(3, 7), 3), dtype=np.uint8)
    spots = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    return spots.filter(ImageFilter.GaussianBlur(6))


def compress(rng: random.Random, image: Image.Image) -> Image.Image:
    """The image as a JPEG of common quality, as most images that people have, in three of five cases."""
    if rng.random() < 0.4:
        return image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(75, 95))
    return Image.open(file).convert("RGB")
