"""Crops of single lines as the finder would cut them, with their text and colours: what the reader learns from."""

from __future__ import annotations

import io
import math
import random
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from llava.model.lexical.characters import plain
from llava.model.lexical.colour_names import name_colour
from llava.model.lexical.crop_reader import CROP_HEIGHT
from llava.scratch.reading.line_colours import RGB, contrast, draw_colour, draw_ground, draw_ink_and_ground
from llava.scratch.reading.line_texts import LineTexts, fit_to_face
from llava.scratch.reading.reading_fonts import Face, FaceBox

# A line's box reaches this many heights of a capital above its baseline and below it.
ABOVE, BELOW = 1.2, 0.42
MAX_WIDTH = 480
_SMALLEST_CAPITAL = 6.0
_FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS, Image.Resampling.BOX)


class LineImage(NamedTuple):
    """A crop [24, width, 3] uint8, what it says, and the names of its ink and ground.

    ``spans``: the left and right end of each character in pixels, [characters, 2].
    """

    pixels: np.ndarray
    text: str
    ink: str
    ground: str
    spans: np.ndarray


class _Layout(NamedTuple):
    text: str
    face: Face
    font: ImageFont.FreeTypeFont
    capital: float
    length: float
    x: float
    baseline: float
    width: int
    height: int
    ends: np.ndarray
    is_tracked: bool

    def write(self, pen: ImageDraw.ImageDraw, stroke: int) -> None:
        """Draws the text, letter by letter where it is letterspaced."""
        for x, part in zip(self.x + self.ends, self.text if self.is_tracked else (self.text,), strict=False):
            pen.text((x, self.baseline), part, fill=255, font=self.font, anchor="ls", stroke_width=stroke)


def draw_line(rng: random.Random, faces: FaceBox, texts: LineTexts) -> LineImage:
    """A random line."""
    while True:
        layout = _lay_out(rng, faces, texts)
        if layout is not None:
            break
    ink, ground = draw_ink_and_ground(rng)
    image = Image.fromarray(_paint(rng, layout, texts, ink, ground).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.2:
        lean = min(math.radians(2.5), 0.35 * layout.capital / (layout.length / 2))
        angle = math.degrees(rng.uniform(-lean, lean))
        middle = (layout.x + layout.length / 2, layout.baseline - layout.capital / 2)
        image = image.rotate(angle, Image.Resampling.BICUBIC, center=middle, fillcolor=ground)
    if rng.random() < 0.15:
        slant = rng.uniform(-0.25, 0.25)
        image = image.transform(
            image.size, Image.Transform.AFFINE, (1, slant, -slant * layout.baseline, 0, 1, 0), Image.Resampling.BICUBIC
        )
    image, scale = spoil(rng, image, layout.capital)
    pixels, spans = _cut(rng, image, layout, scale)
    return LineImage(pixels, plain(layout.text), name_colour(*ink), name_colour(*ground), spans)


def _lay_out(rng: random.Random, faces: FaceBox, texts: LineTexts) -> _Layout | None:
    face = faces.draw(rng)
    text = fit_to_face(texts.draw(rng, rng.choice((12, 24, 40, 60))), face)
    if not text:
        return None
    # Most type on pages is small, and the smallest is the hardest.
    size = round(math.exp(rng.uniform(math.log(9.5), math.log(22 if rng.random() < 0.65 else 60))))
    font = face.load(size)
    capital = max(face.capital, 0.5) * size
    # The place of each character is that of its advance, as measuring every beginning of the text takes long.
    ends = np.cumsum([0.0, *(_advance(face, size, character) for character in text)])
    length = font.getlength(text)
    ends *= length / max(1.0, ends[-1])
    is_tracked = len(text) > 1 and rng.random() < 0.15
    if is_tracked:
        ends += np.arange(len(ends)) * (size * rng.choice((rng.uniform(-0.05, 0.1), rng.uniform(0.05, 0.4))))
        length = ends[-1]
    if length / capital > MAX_WIDTH / CROP_HEIGHT * (ABOVE + BELOW) - 1.2 or length < 1:
        return None
    margin = 1.5 * capital
    width, height = math.ceil(length + 2 * margin), math.ceil((ABOVE + BELOW + 1.2) * capital) + 4
    return _Layout(
        text, face, font, capital, length, margin, 2 + (ABOVE + 0.6) * capital, width, height, ends, is_tracked
    )


@lru_cache(maxsize=200_000)
def _advance(face: Face, size: int, character: str) -> float:
    return face.load(size).getlength(character)


def _paint(rng: random.Random, line: _Layout, texts: LineTexts, ink: RGB, ground: RGB) -> np.ndarray:
    mask = Image.new("L", (line.width, line.height))
    pen = ImageDraw.Draw(mask)
    pen.fontmode = "1" if rng.random() < 0.02 and line.capital > 10 else "L"
    stroke = 1 if line.capital > 16 and rng.random() < 0.06 else 0
    line.write(pen, stroke)
    if line.capital > 16 and rng.random() < 0.08:
        mask = _reshape(rng, mask, line)
        pen = ImageDraw.Draw(mask)
    if rng.random() < 0.3:
        gap = line.font.size * rng.uniform(1.12, 1.7)
        for y in (line.baseline - gap, line.baseline + gap):
            if rng.random() < 0.75:
                other = fit_to_face(texts.draw(rng, 40), line.face)
                pen.text((line.x - rng.uniform(0, 3) * line.capital, y), other, fill=255, font=line.font, anchor="ls")
    if rng.random() < 0.03:
        y = line.baseline + line.capital * rng.uniform(0.15, 0.3)
        pen.line((line.x, y, line.x + line.length, y), fill=255, width=max(1, round(line.capital / 12)))
    canvas = draw_ground(rng, line.width, line.height, ground)
    if rng.random() < 0.2:
        _rule(rng, canvas, line)
    share = np.asarray(mask, dtype=np.float32)[..., None] / 255
    if rng.random() < 0.05:
        shift = max(1, round(line.capital * 0.06))
        shadow = np.roll(share, (shift, rng.choice((-shift, shift))), (0, 1)) * rng.uniform(0.3, 0.8)
        shade = draw_colour(rng)
        if contrast(shade, ink) > 70:
            canvas = (canvas * (1 - shadow) + np.array(shade, dtype=np.float32) * shadow).astype(np.float32)
    if rng.random() < 0.12:
        share = share * rng.uniform(0.65, 1)
    if rng.random() < 0.25:
        share = share ** rng.uniform(0.5, 2)  # bolder or lighter letters
    return canvas * (1 - share) + np.array(ink, dtype=np.float32) * share


def _reshape(rng: random.Random, mask: Image.Image, line: _Layout) -> Image.Image:
    """The letters bolder, lighter, or as outlines."""
    kind = rng.random()
    if kind < 0.4:
        return mask.filter(ImageFilter.MaxFilter(3))
    if kind < 0.6:
        return Image.blend(mask, mask.filter(ImageFilter.MinFilter(3)), rng.uniform(0.3, 0.7))
    thick = max(1, round(line.capital * rng.uniform(0.03, 0.07)))
    outer = Image.new("L", mask.size)
    line.write(ImageDraw.Draw(outer), thick)
    return ImageChops.subtract(outer, mask)


def _rule(rng: random.Random, canvas: np.ndarray, line: _Layout) -> None:
    """Draws lines of tables, frames and edges of plates near the text, without touching it."""
    colour = draw_colour(rng)
    thick = max(1, round(line.capital * rng.uniform(0.04, 0.16)))
    if rng.random() < 0.5:
        y = round(line.baseline + line.capital * rng.uniform(0.4, 0.75))
        canvas[y : y + thick] = colour
    if rng.random() < 0.4:
        y = round(line.baseline - line.capital * rng.uniform(1.25, 1.6))
        canvas[max(0, y - thick) : max(0, y)] = colour
    if rng.random() < 0.4:
        x = round(line.x - line.capital * rng.uniform(0.25, 0.9))
        canvas[:, max(0, x - thick) : max(0, x)] = colour
    if rng.random() < 0.3:
        x = round(line.x + line.length + line.capital * rng.uniform(0.25, 0.9))
        canvas[:, x : x + thick] = colour
    if rng.random() < 0.3:
        # The tick of an axis beside its label.
        x = round(line.x + line.length + line.capital * rng.uniform(0.25, 0.7))
        y = round(line.baseline - line.capital * rng.uniform(0.35, 0.65))
        canvas[y : y + thick, x : x + round(line.capital * 0.6)] = colour
    if rng.random() < 0.2:
        y = round(line.baseline + line.capital * rng.uniform(0.45, 0.8))
        canvas[y:] = draw_colour(rng)


def spoil(
    rng: random.Random, image: Image.Image, capital: float, smallest: float = _SMALLEST_CAPITAL
) -> tuple[Image.Image, float]:
    """The image resampled, blurred, made noisy or compressed, and by which factor it was scaled."""
    scale = 1.0
    if rng.random() < 0.4:
        scale = math.exp(rng.uniform(math.log(0.4), math.log(2.5)))
        scale = min(max(scale, smallest / capital), max(1.0, 60 / capital))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        how = Image.Resampling.NEAREST if rng.random() < 0.03 and scale > 1 else rng.choice(_FILTERS)
        image = image.resize(size, how)
    if rng.random() < 0.18:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.01, 0.07) * capital * scale))
    if rng.random() < 0.18:
        noise = np.random.default_rng(rng.getrandbits(32))
        shape = (image.height, image.width, 1 if rng.random() < 0.5 else 3)
        rough = noise.standard_normal(shape, dtype=np.float32) * rng.uniform(2, 12)
        image = Image.fromarray((np.asarray(image, dtype=np.float32) + rough).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(30, 95))
        image = Image.open(buffer).convert("RGB")
    return image, scale


def _cut(rng: random.Random, image: Image.Image, line: _Layout, scale: float) -> tuple[np.ndarray, np.ndarray]:
    unit = line.capital
    top = line.baseline - (ABOVE + rng.gauss(0, 0.12)) * unit
    bottom = line.baseline + (BELOW + rng.gauss(0, 0.1)) * unit
    left = line.x - rng.uniform(0.0, 1.0) * unit
    right = line.x + line.length + rng.uniform(0.0, 1.0) * unit
    box = (
        max(0.0, left * scale),
        max(0.0, top * scale),
        min(image.width, right * scale),
        min(image.height, bottom * scale),
    )
    width = max(
        8,
        round(
            (box[2] - box[0])
            * CROP_HEIGHT
            / (box[3] - box[1])
            * math.exp(rng.gauss(0, rng.choice((0.08, 0.08, 0.15, 0.3))))
        ),
    )
    width = min(width, MAX_WIDTH)
    crop = image.resize((width, CROP_HEIGHT), Image.Resampling.BILINEAR, box=box)
    ends = ((line.ends + line.x) * scale - box[0]) * (width / (box[2] - box[0]))
    return np.asarray(crop), np.stack((ends[:-1], ends[1:]), axis=1)
