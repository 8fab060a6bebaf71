"""Draws AI2D's diagrams with letters in place of their labels, which many of its questions ask about.

Two ways that the field uses: opaque boxes with a letter in each ("mask", as in LLaVA-NeXT's ai2d/abc_images), and
translucent boxes with the letter beside them, so that the label itself stays readable ("no-mask").

Source: google-research/big_vision@11eea57 big_vision/datasets/ai2d/ai2d.py, _draw_text (white boxes, black letters);
allenai/molmo olmo/data/ai2d_dataset.py, draw_abc_labels (both ways; colour, margins and type size of the second).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_TINT = (25, 249, 255, 127)
_MARGIN = (12, 10)
_MOST_TYPE_PX, _LEAST_TYPE_PX = 100, 6


@dataclass(frozen=True)
class Label:
    """A text of a diagram: its box in pixels, and the letter that stands for it."""

    box: tuple[float, float, float, float]
    letter: str


def draw_labels(image: Image.Image, labels: Sequence[Label], *, is_opaque: bool) -> bytes:
    """The diagram with its letters, as a PNG file. Labels outside it, or without a size, are passed over."""
    canvas = image.convert("RGB")
    draw = ImageDraw.Draw(canvas, "RGBA")
    for label in labels:
        left, right = (min(max(x, 0), canvas.width) for x in sorted((label.box[0], label.box[2])))
        top, bottom = (min(max(y, 0), canvas.height) for y in sorted((label.box[1], label.box[3])))
        if right - left < 1 or bottom - top < 1:
            continue
        if is_opaque:
            draw.rectangle((left, top, right, bottom), fill="white")
            font = _fit_type(draw, label.letter, right - left, bottom - top)
            draw.text(((left + right) / 2, (top + bottom) / 2), label.letter, fill="black", font=font, anchor="mm")
        else:
            draw.rectangle((left, top, right, bottom), fill=_TINT)
            font = _load_type(min(max(16, min(canvas.size) // 50), 32))
            at = (max(left - _MARGIN[0], 0), max(top - _MARGIN[1], 0))
            draw.rectangle(draw.textbbox(at, label.letter, font=font), fill="white")
            draw.text(at, label.letter, fill="black", font=font)
    file = io.BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()


def _fit_type(draw: ImageDraw.ImageDraw, letter: str, width: float, height: float) -> ImageFont.FreeTypeFont:
    """The largest type in which the letter fits into the box."""
    size_px = int(min(_MOST_TYPE_PX, height))
    while size_px > _LEAST_TYPE_PX:
        font = _load_type(size_px)
        left, top, right, bottom = draw.textbbox((0, 0), letter, font=font)
        if right - left <= width and bottom - top <= height:
            return font
        size_px -= 1
    return _load_type(_LEAST_TYPE_PX)


def _load_type(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font
