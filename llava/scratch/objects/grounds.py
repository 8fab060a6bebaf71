"""Grounds to draw on and images without drawn objects: plain, graded, patterned, like photos, with cliparts and text.

Cliparts are those of Debian's openclipart-png (public domain), where a folder of them is given.
"""

from __future__ import annotations

import random
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from llava.synth.drawing import COLORS, draw_font, load_font, vary_color

Color = tuple[int, int, int]
# Cliparts whose paths hold one of these may show what the finder should find.
_SHAPELY = (
    "star", "circle", "ring", "square", "triangle", "diamond", "cross", "hexagon", "heart", "shape", "sign", "chart",
    "button", "icon", "flag", "pentagon", "oval", "ellipse", "rect", "border", "card", "symbol", "geometr", "valentine",
    "love", "web", "label", "arrow", "suit", "pie", "moon", "sun", "egg", "ball", "planet", "badge", "emblem", "crest",
)  # fmt: skip


@lru_cache(maxsize=2)
def list_cliparts(folder: str) -> tuple[str, ...]:
    """The paths of cliparts that show no plain shape, in a fixed order."""
    paths = (str(path) for path in sorted(Path(folder).rglob("*.png")))
    return tuple(p for p in paths if not any(word in p[len(folder) :].lower() for word in _SHAPELY))


def load_clipart(rng: random.Random, folder: str, side: int) -> Image.Image | None:
    """A random clipart, RGBA, its long side ``side`` px; None if the file cannot be read."""
    path = rng.choice(list_cliparts(folder))
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    try:
        with Image.open(path) as file:
            if max(file.size) > 1600:
                return None
            image = file.convert("RGBA")
    except (OSError, ValueError):
        return None
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)


def draw_any_color(rng: random.Random) -> Color:
    """Any colour, saturated ones as often as pale ones."""
    if rng.random() < 0.5:
        return vary_color(rng, rng.choice(tuple(COLORS)), 40)
    return (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))


def draw_plain(rng: random.Random, light_rate: float = 0.6) -> Color:
    """A colour for a plain ground, light at that rate."""
    if rng.random() < light_rate:
        base = rng.randint(222, 255)
        return tuple(min(255, base + rng.randint(-8, 8)) for _ in range(3))  # type: ignore[return-value]
    return draw_any_color(rng)


def draw_noise(rng: random.Random, width: int, height: int) -> npt.NDArray[np.float32]:
    """Noise like a photo's, float [H, W, 3] from about 0 to 255: soft at several scales, with some sharp edges."""
    generator = np.random.default_rng(rng.getrandbits(32))
    total = np.zeros((height, width, 3), np.float32)
    cell = max(width, height) * rng.uniform(0.3, 0.7)
    strength = rng.uniform(30, 90)
    while cell > 2:
        shape = (int(height / cell) + 2, int(width / cell) + 2, 3)
        colored = generator.normal(0, 1, shape)
        gray = generator.normal(0, 1, (*shape[:2], 1))
        cells = (strength * (gray + 0.4 * colored)).clip(-127, 127) + 128
        soft = Image.fromarray(cells.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(soft, np.float32) - 128
        cell /= rng.uniform(2, 4)
        strength *= rng.uniform(0.4, 0.8)
    return total + np.array(draw_any_color(rng), np.float32) * 0.5 + 60


def draw_blobs(rng: random.Random, width: int, height: int) -> Image.Image:
    """Soft-edged regions of noise, as things in a photo."""
    pixels: npt.NDArray[Any] = draw_noise(rng, width, height)
    for _ in range(rng.randint(0, 6)):
        mask = Image.new("L", (width // 4 + 1, height // 4 + 1), 0)
        pen = ImageDraw.Draw(mask)
        count = rng.randint(5, 11)
        x, y, r = rng.uniform(0, width / 4), rng.uniform(0, height / 4), rng.uniform(0.05, 0.3) * max(width, height) / 4
        corners = []
        for i in range(count):
            radius, angle = r * rng.uniform(0.4, 1.5), 6.2832 * (i + rng.uniform(-0.3, 0.3)) / count
            corners.append((x + radius * np.cos(angle), y + radius * np.sin(angle)))
        pen.polygon(corners, fill=255)
        share = np.asarray(mask.resize((width, height), Image.Resampling.BICUBIC), np.float32)[..., None] / 255
        inner = draw_noise(rng, width, height) if rng.random() < 0.4 else np.array(draw_any_color(rng), np.float32)
        slope = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] * rng.uniform(-50, 50)
        pixels = pixels * (1 - share) + (0.3 * pixels + 0.7 * (inner + slope)) * share
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_pattern(rng: random.Random, width: int, height: int) -> Image.Image:
    """A ground of stripes, checks, dots or a grid in two near colours."""
    base = np.array(draw_plain(rng, 0.5))
    other = tuple(int(v) for v in (base + np.array([rng.randint(-45, 45) for _ in range(3)])).clip(0, 255))
    image = Image.new("RGB", (width, height), tuple(int(v) for v in base))
    pen = ImageDraw.Draw(image)
    step, kind = rng.randint(6, 40), rng.choice(("stripes", "checks", "dots", "grid", "slanted"))
    for i in range(-height, width, step):
        if kind in ("stripes", "grid"):
            pen.line((i, 0, i, height), fill=other, width=1 if kind == "grid" else max(1, step // 3))
        if kind == "slanted":
            pen.line((i, 0, i + height, height), fill=other, width=max(1, step // 3))
    for j in range(0, height, step):
        if kind == "grid":
            pen.line((0, j, width, j), fill=other)
        for i in range((j // step) % 2 * step, width, 2 * step):
            if kind == "checks":
                pen.rectangle((i, j, i + step - 1, j + step - 1), fill=other)
            if kind == "dots":
                pen.ellipse((i, j, i + step // 3, j + step // 3), fill=other)
    return image


def draw_ground(rng: random.Random, width: int, height: int, plain_rate: float = 0.55) -> Image.Image:
    """A ground to draw on."""
    if rng.random() < plain_rate:
        return Image.new("RGB", (width, height), draw_plain(rng))
    kind = rng.choice(("graded", "pattern", "noise", "blobs", "soft"))
    if kind == "graded":
        a, b = np.array(draw_plain(rng), np.float32), np.array(draw_plain(rng), np.float32)
        share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
        if rng.random() < 0.5:
            share = np.linspace(0, 1, width, dtype=np.float32)[None, :, None]
        pixels = a * (1 - share) + b * share + np.zeros((height, width, 3), np.float32)
        return Image.fromarray(pixels.astype(np.uint8))
    if kind == "pattern":
        return draw_pattern(rng, width, height)
    if kind == "blobs":
        return draw_blobs(rng, width, height)
    pixels = draw_noise(rng, width, height)
    if kind == "soft":
        base = np.array(draw_plain(rng), np.float32)
        pixels = base + (pixels - pixels.mean((0, 1))) * rng.uniform(0.08, 0.3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def add_cliparts(rng: random.Random, image: Image.Image, folder: str, most: int) -> None:
    """Pastes one to ``most`` cliparts."""
    for _ in range(rng.randint(1, most)):
        clip = load_clipart(rng, folder, round(max(image.size) * rng.uniform(0.15, 0.9)))
        if clip is None:
            continue
        if rng.random() < 0.5:
            clip = clip.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x, y = rng.randint(-clip.width // 4, image.width), rng.randint(-clip.height // 4, image.height)
        if rng.random() < 0.6:
            x, y = (image.width - clip.width) // 2, (image.height - clip.height) // 2
        image.paste(clip, (x, y), clip)


def add_letters(rng: random.Random, image: Image.Image) -> None:
    """Writes a few large letters, digits and signs, alone or as words: none of them is a drawn object."""
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 5)):
        count = rng.choice((1, 1, 2, 3, 5, 8))
        text = "".join(rng.choice("OOoDQCGBPR0689IlLTHEFX+-=.:%VAWMNSeacdbpqi|/#*&@?") for _ in range(count))
        size = max(10, round(rng.uniform(0.06, 0.5) * min(image.size)))
        pen.text((rng.uniform(-0.05, 0.8) * image.width, rng.uniform(-0.05, 0.8) * image.height), text,
                 font=load_font(draw_font(rng), size), fill=draw_any_color(rng))  # fmt: skip


def add_table(rng: random.Random, image: Image.Image) -> None:
    """A table with lines, some cells filled, and some text: none of its cells is a bar."""
    pen = ImageDraw.Draw(image)
    rows, columns = rng.randint(2, 12), rng.randint(2, 7)
    left, top = rng.uniform(0, 0.2) * image.width, rng.uniform(0, 0.2) * image.height
    wide, tall = (image.width - left) * rng.uniform(0.7, 1.1) / columns, (image.height - top) * 0.95 / rows
    font = load_font(draw_font(rng), max(8, round(min(0.6 * tall, 0.25 * wide, 40))))
    fills = [None, draw_plain(rng, 0.8), draw_any_color(rng)]
    line = rng.choice((None, (0, 0, 0), (180, 180, 180)))
    for i in range(rows):
        for j in range(columns):
            fill = fills[2 if i == 0 and rng.random() < 0.9 else (1 if i % 2 else 0)]
            area = (left + j * wide, top + i * tall, left + (j + 1) * wide, top + (i + 1) * tall)
            pen.rectangle(area, fill=fill, outline=line)
            text = (
                str(rng.randint(0, 9999)) if rng.random() < 0.5 else rng.choice(("Name", "Total", "abc", "June", "-"))
            )
            near = (min(image.width - 1, max(0, int(area[0]) + 2)), min(image.height - 1, int(area[1]) + 2))
            ground = fill or np.asarray(image.crop((*near, near[0] + 1, near[1] + 1)))[0, 0]
            ink = (0, 0, 0) if int(np.sum(ground)) > 380 else (255, 255, 255)
            pen.text((area[0] + 3, area[1] + 0.2 * tall), text, font=font, fill=ink)
