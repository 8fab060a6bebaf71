"""A drawn image with its questions, and what all kinds of scene share: backgrounds, inks and type."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from PIL import ImageFont

from llava.synth.drawing import COLORS, Drawing, draw_font, load_font, vary_color

SCENE_COLORS = tuple(name for name in COLORS if name != "white")


def is_held_out_pair(color: str, shape: str) -> bool:
    """Whether a colour-shape pair is held out from training: about one in nine, by its CRC."""
    return zlib.crc32(f"{color} {shape}".encode()) % 9 == 0


class Turn(NamedTuple):
    """One question with its only right answer, and the task it counts for."""

    question: str
    answer: str
    task: str


@dataclass
class Scene:
    """A finished image with its questions; ``caption`` describes everything on it."""

    kind: str
    drawing: Drawing
    caption: str
    turns: list[Turn] = field(default_factory=list)


# Draws a scene from (rng, width in pixels, height in pixels, held_out).
Kind = Callable[[random.Random, int, int, bool], Scene]


def draw_light(rng: random.Random) -> tuple[int, int, int]:
    """A background colour near white, as RGB from 0 to 255."""
    base = rng.randint(232, 255)
    return tuple(min(255, base + rng.randint(-6, 6)) for _ in range(3))  # type: ignore[return-value]


def choose(rng: random.Random, *phrasings: str) -> str:
    """One of these phrasings at random."""
    return rng.choice(phrasings)


def article(word: str) -> str:
    """The indefinite article of a lower-case word, "a" or "an"."""
    return "an" if word[0] in "aeiou" else "a"


class Type(NamedTuple):
    """A font at a size, and the height of its lines (ascent and descent) in pixels."""

    font: ImageFont.FreeTypeFont
    line_px: float


def draw_type(rng: random.Random, size_px: int) -> Type:
    """A random font at that size."""
    font = load_font(draw_font(rng), size_px)
    ascent, descent = font.getmetrics()
    return Type(font, ascent + descent)


def draw_paper(rng: random.Random) -> tuple[tuple[int, int, int], str]:
    """A background colour (RGB, 0 to 255) and the name of an ink that is legible on it."""
    if rng.random() < 0.85:
        return draw_light(rng), rng.choice(("black", "black", "black", "blue", "red", "green", "purple", "brown"))
    ground = vary_color(rng, rng.choice(("black", "blue", "green", "purple", "brown", "red")), 10)
    return ground, rng.choice(("white", "white", "yellow"))
