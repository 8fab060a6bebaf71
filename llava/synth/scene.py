"""An image with its questions, and what all kinds of image are drawn with: grounds, inks, type."""

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
    """Whether a colour-shape pair is kept from training: about one in ten, by hash."""
    return zlib.crc32(f"{color} {shape}".encode()) % 9 == 0


class Turn(NamedTuple):
    """One question with its only right answer, and the task it counts for."""

    question: str
    answer: str
    task: str


@dataclass
class Scene:
    """A finished image with its questions; ``caption`` says all that is on it."""

    kind: str
    drawing: Drawing
    caption: str
    turns: list[Turn] = field(default_factory=list)


Kind = Callable[[random.Random, int, int, bool], Scene]


def draw_light(rng: random.Random) -> tuple[int, int, int]:
    base = rng.randint(232, 255)
    return tuple(min(255, base + rng.randint(-6, 6)) for _ in range(3))  # type: ignore[return-value]


def choose(rng: random.Random, *phrasings: str) -> str:
    return rng.choice(phrasings)


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


class Type(NamedTuple):
    font: ImageFont.FreeTypeFont
    line_px: float


def draw_type(rng: random.Random, size_px: int) -> Type:
    font = load_font(draw_font(rng), size_px)
    ascent, descent = font.getmetrics()
    return Type(font, ascent + descent)


def draw_paper(rng: random.Random) -> tuple[tuple[int, int, int], str]:
    """A ground and an ink that can be read on it."""
    if rng.random() < 0.85:
        return draw_light(rng), rng.choice(("black", "black", "black", "blue", "red", "green", "purple", "brown"))
    ground = vary_color(rng, rng.choice(("black", "blue", "green", "purple", "brown", "red")), 10)
    return ground, rng.choice(("white", "white", "yellow"))
