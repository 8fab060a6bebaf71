"""Grounds for cut-outs to stand on: plain, gradient, textured and blurred, all drawn with numpy."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

GROUNDS = ("white", "plain", "gradient", "texture", "blobs")
GROUND_SHARES = (0.28, 0.18, 0.16, 0.22, 0.16)


def draw_ground(kind: str, side_px: int, rng: np.random.Generator) -> np.ndarray:
    """A square ground of one of the kinds of `GROUNDS`, float32 RGB [side, side, 3] in 0..255."""
    if kind == "white":
        return np.full((side_px, side_px, 3), rng.choice([255.0, 255.0, 250.0, 244.0]), np.float32)
    if kind == "plain":
        return np.broadcast_to(pick_colour(rng), (side_px, side_px, 3)).astype(np.float32)
    if kind == "gradient":
        return _gradient(side_px, rng)
    if kind == "texture":
        return _texture(side_px, rng)
    return _blobs(side_px, rng)


def pick_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour as grounds have it: mostly pale or dull, now and then strong."""
    strength = rng.choice([0.25, 0.5, 1.0], p=[0.45, 0.35, 0.2])
    base = rng.uniform(60, 245)
    return np.clip(base + strength * (rng.uniform(0, 255, 3) - 128), 0, 255).astype(np.float32)


def _gradient(side_px: int, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[0:side_px, 0:side_px] / side_px - 0.5
    along = (np.cos(angle) * columns + np.sin(angle) * rows + 0.7) / 1.4
    mixed = along[..., None] * pick_colour(rng) + (1 - along[..., None]) * pick_colour(rng)
    return (mixed + rng.normal(0, rng.choice([0, 3, 8]), (side_px, side_px, 1))).astype(np.float32)


def _blobs(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Blurred blocks of a few colours, like a room or a landscape out of focus."""
    cells = int(rng.integers(3, 7))
    palette = np.stack([pick_colour(rng) for _ in range(4)])
    blocks = palette[rng.integers(0, 4, (cells, cells))].astype(np.uint8)
    image = Image.fromarray(blocks).resize((side_px, side_px), Image.Resampling.BICUBIC)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(side_px / 40)), np.float32)
    return blurred + rng.normal(0, 4, (side_px, side_px, 1)).astype(np.float32)


def _noise(side_px: int, cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise [side, side] in -1..1 with a number of cells down and across."""
    small = Image.fromarray((rng.random(cells) * 255).astype(np.uint8))
    return np.asarray(small.resize((side_px, side_px), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1


def _texture(side_px: int, rng: np.random.Generator) -> np.ndarray:
    """Brick, wood, grass, stone, cloth or gravel, between two colours."""
    pattern = rng.choice(["brick", "wood", "grass", "stone", "cloth", "gravel", "boards", "dots"])
    rows, columns = np.mgrid[0:side_px, 0:side_px].astype(np.float32)
    fine = rng.normal(0, 1, (side_px, side_px)).astype(np.float32)
    if pattern == "brick":
        height, width = rng.integers(14, 34), rng.integers(30, 70)
        shifted = columns + (rows // height % 2) * width / 2
        joints = ((rows % height < 2) | (shifted % width < 2)).astype(np.float32)
        tone = np.sin(rows // height * 12.9 + shifted // width * 78.2) * 0.35 - 1.6 * joints + 0.15 * fine
    elif pattern == "wood":
        warped = rows / rng.uniform(4, 9) + 3 * _noise(side_px, (8, 3), rng)
        tone = 0.6 * np.sin(warped) + 0.5 * _noise(side_px, (int(side_px / 3), 4), rng)
    elif pattern == "grass":
        tone = _noise(side_px, (int(side_px / 6), int(side_px / 2)), rng) + 0.5 * _noise(side_px, (6, 6), rng)
    elif pattern == "cloth":
        period = rng.uniform(3, 9)
        tone = 0.5 * np.sin(rows * 2 * np.pi / period) + 0.5 * np.sin(columns * 2 * np.pi / period) + 0.2 * fine
    elif pattern == "boards":
        width = rng.integers(24, 60)
        tone = np.sin(columns // width * 45.3) * 0.5 - 1.5 * (columns % width < 2) + 0.3 * _noise(side_px, (5, 90), rng)
    elif pattern == "dots":
        period = rng.integers(14, 40)
        distance = np.hypot(rows % period - period / 2, columns % period - period / 2)
        tone = np.where(distance < period * rng.uniform(0.15, 0.35), 1.0, -0.6) + 0.05 * fine
    else:
        scales = (6, 14, 34, 80) if pattern == "stone" else (30, 60, 120)
        tone = sum(_noise(side_px, (scale, scale), rng) / (i + 1) for i, scale in enumerate(scales)) + 0.15 * fine
    tone = np.clip(tone, -1.6, 1.6)[..., None]
    middle, spread = pick_colour(rng), rng.uniform(12, 45)
    return (middle + spread * tone * rng.uniform(0.8, 1.2, 3)).astype(np.float32)
