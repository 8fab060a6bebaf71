"""Inks and grounds of drawn lines: colours that have a name, and grounds that are not plain."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
from PIL import Image

from llava.synth.drawing import COLORS

RGB = tuple[int, int, int]
Pixels = npt.NDArray[np.float32]


def draw_colour(rng: random.Random) -> RGB:
    """A colour: a named one with some variation, a gray, or any."""
    kind = rng.random()
    if kind < 0.55:
        amount = rng.choice((8, 20, 35))
        base = rng.choice(list(COLORS.values()))
        return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in base)  # type: ignore[return-value]
    if kind < 0.75:
        level = rng.randrange(256)
        return tuple(min(255, max(0, level + rng.randint(-6, 6))) for _ in range(3))  # type: ignore[return-value]
    return (rng.randrange(256), rng.randrange(256), rng.randrange(256))


def contrast(a: RGB, b: RGB) -> float:
    """How far apart two colours look, 0 to about 300: mostly their lightness."""
    light = abs(sum((x - y) * w for x, y, w in zip(a, b, (0.3, 0.59, 0.11), strict=True)))
    hue = sum(abs(x - y) for x, y in zip(a, b, strict=True)) / 3
    return light + 0.35 * hue


def draw_ink_and_ground(rng: random.Random) -> tuple[RGB, RGB]:
    """Two colours that can be told apart; dark on light more often than any others."""
    kind = rng.random()
    if kind < 0.38:
        dark, light = rng.randint(0, 70), rng.randint(225, 255)
        ink: RGB = (dark, dark, dark)
        ground: RGB = tuple(max(0, light - rng.choice((0, 0, rng.randint(0, 14)))) for _ in range(3))  # type: ignore[assignment]
        return (ground, ink) if rng.random() < 0.18 else (ink, ground)
    if kind < 0.55:
        ink, ground = draw_colour(rng), (255, 255, 255) if rng.random() < 0.6 else (245, 245, 240)
    elif kind < 0.7:
        ink, ground = (255, 255, 255) if rng.random() < 0.8 else (15, 15, 15), draw_colour(rng)
    else:
        ink, ground = draw_colour(rng), draw_colour(rng)
    least = rng.choice((55, 75, 90, 110))
    return (ink, ground) if contrast(ink, ground) >= least else draw_ink_and_ground(rng)


def draw_ground(rng: random.Random, width: int, height: int, base: RGB, plain: float = 0.62) -> Pixels:
    """A ground [height, width, 3] around a colour, 0 to 255: plain (that share), or not."""
    ground = np.empty((height, width, 3), dtype=np.float32)
    ground[:] = base
    kind = rng.random()
    if kind < plain:
        return ground
    noise = np.random.default_rng(rng.getrandbits(32))
    strength = rng.uniform(5, 45)
    kind = rng.random()
    if kind < 0.3:
        angle = rng.uniform(0, 6.3)
        x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
        ramp = np.cos(angle) * x[None, :] + np.sin(angle) * y[:, None]
        ground += ramp[..., None] * np.array([rng.uniform(-1, 1) * strength for _ in range(3)], dtype=np.float32)
    elif kind < 0.75:
        cell = rng.choice((1, 2, 3, 6, 12, 25, 50))
        shape = (max(2, height // cell + 1), max(2, width // cell + 1), 1 if rng.random() < 0.6 else 3)
        rough = noise.normal(0, strength * (0.5 if cell < 4 else 0.9), shape).astype(np.float32)
        ground += enlarge(rough, width, height)
    elif kind < 0.88:
        period, phase = rng.uniform(4, 40), rng.uniform(0, 9)
        along = np.arange(width, dtype=np.float32)[None, :] * rng.uniform(-1, 1) + np.arange(height)[:, None]
        ground += (np.sin(along * (6.28 / period) + phase) * strength * 0.5)[..., None]
    else:
        other = [c + rng.uniform(-1, 1) * strength * 1.5 for c in base]
        x = rng.randrange(width)
        ground[:, x:] = other
    return ground


def enlarge(rough: Pixels, width: int, height: int) -> Pixels:
    """A small array [h, w, channels] brought to a size, bilinearly."""
    planes = [
        np.asarray(Image.fromarray(rough[..., c]).resize((width, height), Image.Resampling.BILINEAR))
        for c in range(rough.shape[2])
    ]
    return np.stack(planes, axis=-1)
