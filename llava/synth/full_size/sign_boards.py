"""Signs at full size: a word or two on a board, on plain and on textured grounds."""

from __future__ import annotations

import random

from PIL import ImageDraw

from llava.synth import words
from llava.synth.drawing import COLORS
from llava.synth.full_size.full_size_item import FullSizeItem, compress, draw_ground, draw_size
from llava.synth.full_size.typefaces import Typeface
from llava.synth.truth import Truth

QUESTIONS = (
    "What does the sign say?",
    "What is written on the sign?",
    "What word is on this sign?",
    "Read the sign.",
    "Can you read the sign?",
    "What text is in the image?",
)
_BOARDS = {
    "red": "white", "blue": "white", "green": "white", "yellow": "black", "white": "black", "black": "white",
    "orange": "black", "brown": "white", "purple": "white",
}  # fmt: skip


def draw_sign_item(rng: random.Random, *, textured: bool, other_face: bool) -> FullSizeItem:
    """A board with a word, in one of four cases with two lines, and a question about what it says."""
    width, height = draw_size(rng)
    image = draw_ground(rng, width, height, textured=textured)
    pen = ImageDraw.Draw(image)
    face = Typeface(rng, other=other_face)
    lines = [words.draw_word(rng, True, 10)]
    if rng.random() < 0.25:
        lines.append(words.draw_word(rng, True, 8))
    share = rng.uniform(0.35, 0.85)
    size = rng.uniform(0.08, 0.3) * height
    fonts = [face.fit(line, share * width, size) for line in lines]
    font = min(fonts, key=lambda each: each.size)
    ascent, descent = font.getmetrics()
    tall = ascent + descent
    pad = font.size * rng.uniform(0.3, 0.8)
    wide = max(font.getlength(line) for line in lines) + 2 * pad
    high = tall * len(lines) + 2 * pad
    left = rng.uniform(4, max(5.0, width - wide - 4))
    top = rng.uniform(4, max(5.0, height - high - 4))
    board = rng.choice(list(_BOARDS))
    ink = COLORS[_BOARDS[board]]
    area = (left, top, left + wide, top + high)
    pen.rounded_rectangle(area, rng.choice((0, 0.15, 0.4)) * pad, fill=COLORS[board], outline=(60, 60, 60), width=2)
    if rng.random() < 0.4:
        edge = 0.25 * pad
        inner = (left + edge, top + edge, left + wide - edge, top + high - edge)
        pen.rectangle(inner, outline=ink, width=max(2, round(font.size / 20)))
    for i, line in enumerate(lines):
        x = left + (wide - font.getlength(line)) / 2
        pen.text((x, top + pad + i * tall), line, font=font, fill=ink)
    return FullSizeItem(compress(rng, image), rng.choice(QUESTIONS), Truth((" ".join(lines),), "text"))
