"""A page under construction: an image that records where each line of text stands on it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from llava.model.lexical.colour_names import name_colour
from llava.scratch.reading.line_colours import RGB, Pixels, contrast, draw_colour, draw_ground, draw_ink_and_ground
from llava.scratch.reading.line_images import spoil
from llava.scratch.reading.line_texts import LineTexts, fit_to_face
from llava.scratch.reading.reading_fonts import Face, FaceBox
from llava.scratch.reading.scenery import draw_rough_ground


class Mark(NamedTuple):
    """A line of text: its ends, its baseline at the left end and its capitals' height in pixels, and its slope.

    ``slope``: how far the baseline falls per pixel to the right. ``ink``, ``ground``: names of colours, "" where they
    are not known.
    """

    text: str
    left: float
    right: float
    baseline: float
    capital: float
    slope: float = 0.0
    ink: str = ""
    ground: str = ""


Finished = tuple[Image.Image, list[Mark]]


class Style(NamedTuple):
    """A face at a size, with the height of its capitals, the distance of lines and its letterspacing, in pixels."""

    face: Face
    size: int
    capital: float
    leading: float
    tracking: float = 0.0

    def length(self, text: str) -> float:
        """How long a text is in pixels."""
        return self.face.load(self.size).getlength(text) + self.tracking * max(0, len(text) - 1)

    def put(self, pen: ImageDraw.ImageDraw, x: float, baseline: float, text: str, ink: RGB) -> None:
        """Draws a text from x on, letter by letter where it is letterspaced."""
        font = self.face.load(self.size)
        for i, part in enumerate(text if self.tracking else (text,)):
            at = x + self.length(text[:i]) + (self.tracking if i else 0.0)
            pen.text((at, baseline), part, fill=ink, font=font, anchor="ls")


@dataclass
class Sources:
    """What pages are drawn from: faces, texts, folders of cutouts without text, and charts drawn beforehand."""

    faces: FaceBox
    texts: LineTexts
    cutouts: tuple[Path, ...] = ()
    charts: list[tuple[npt.NDArray[np.uint8], list[Mark]]] = field(default_factory=list)

    def style(self, rng: random.Random, size: int, face: Face | None = None, tracking: float = 0.0) -> Style:
        """A random face, or that one, at a size; ``tracking``: the share of the size added between letters."""
        face = face or self.faces.draw(rng)
        capital = max(0.4, face.capital) * size
        return Style(face, size, capital, size * rng.uniform(1.15, 1.6), round(tracking * size))


class Page:
    """An RGB image and its marks. Coordinates are pixels from the top left."""

    def __init__(self, rng: random.Random, ground: Pixels) -> None:
        self.rng = rng
        self.image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
        self.pen = ImageDraw.Draw(self.image)
        self.marks: list[Mark] = []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size

    def write(self, x: float, baseline: float, text: str, style: Style, ink: RGB, align: str = "left") -> float:
        """Writes a line whose left end, middle or right end is at ``x``; returns its length.

        A line that does not fit on the image is cut at its last word that does, or not written.
        """
        text = fit_to_face(text, style.face)
        length = style.length(text)
        left = x if align == "left" else x - length if align == "right" else x - length / 2
        width, height = self.size
        while text and (left < 0 or left + length > width):
            text = text.rsplit(" ", 1)[0] if " " in text else ""
            length = style.length(text)
            left = x if align == "left" else x - length if align == "right" else x - length / 2
        if not text or baseline - 1.1 * style.capital < 0 or baseline + 0.3 * style.capital > height:
            return 0.0
        ground = self._name_ground((left, baseline - style.capital, left + length, baseline))
        style.put(self.pen, left, baseline, text, ink)
        self.marks.append(Mark(text, left, left + length, baseline, style.capital, 0.0, name_colour(*ink), ground))
        return length

    def _name_ground(self, box: tuple[float, float, float, float]) -> str:
        """The name of the middle colour of a part of the page."""
        part = np.asarray(self.image.crop((int(box[0]), int(box[1]), int(box[2]) + 2, int(box[3]) + 2)))[::2, ::3]
        return name_colour(*np.median(part.reshape(-1, 3), axis=0))

    def frame(
        self,
        box: tuple[float, float, float, float],
        fill: RGB | None,
        outline: RGB | None = None,
        round_px: float = 0,
        thick: int = 1,
    ) -> None:
        """A rectangle, filled or outlined."""
        self.pen.rounded_rectangle(box, round_px, fill=fill, outline=outline, width=thick)

    def paste(self, cutout: Image.Image, x: int, y: int) -> None:
        """Puts a cutout with transparency on the page."""
        self.image.paste(cutout, (x, y), cutout if cutout.mode == "RGBA" else None)
        self.pen = ImageDraw.Draw(self.image)

    def finish(self) -> tuple[Image.Image, list[Mark]]:
        """The page, sometimes turned a little and spoilt, with its marks."""
        rng, image, marks = self.rng, self.image, self.marks
        if rng.random() < 0.15:
            image, marks = turn(image, marks, rng.gauss(0, 2.0), (rng.randrange(256),) * 3)
        image, scale = spoil(rng, image, 14, 9)
        return image, scale_marks(marks, scale)


def scale_marks(marks: list[Mark], scale: float, x: float = 0.0, y: float = 0.0) -> list[Mark]:
    """The marks of an image that was scaled and then cut at (x, y)."""
    return [
        m._replace(
            left=m.left * scale - x,
            right=m.right * scale - x,
            baseline=m.baseline * scale - y,
            capital=m.capital * scale,
        )
        for m in marks
    ]


def turn(image: Image.Image, marks: list[Mark], degrees: float, fill: RGB) -> tuple[Image.Image, list[Mark]]:
    """The image turned counter-clockwise about its middle, with its marks."""
    degrees = max(-5.0, min(5.0, degrees))
    angle = math.radians(degrees)
    x0, y0 = image.width / 2, image.height / 2
    cos, sin = math.cos(angle), math.sin(angle)

    def move(x: float, y: float) -> tuple[float, float]:
        return x0 + (x - x0) * cos + (y - y0) * sin, y0 - (x - x0) * sin + (y - y0) * cos

    moved = []
    for m in marks:
        (left, y), (right, y1) = move(m.left, m.baseline), move(m.right, m.baseline + m.slope * (m.right - m.left))
        moved.append(m._replace(left=left, right=right, baseline=y, slope=(y1 - y) / max(1e-6, right - left)))
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=fill), moved


def draw_page_size(rng: random.Random) -> tuple[int, int]:
    """Width and height of a page of 0.18 to 0.7 megapixels."""
    area = rng.uniform(180_000, 700_000)
    ratio = math.exp(rng.uniform(-0.5, 0.6))
    return round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))


def draw_paper(rng: random.Random) -> tuple[RGB, RGB]:
    """An ink and a ground, mostly of printed paper."""
    if rng.random() < 0.6:
        dark, light = rng.randint(0, 60), rng.randint(235, 255)
        return (dark, dark, dark), (light, light, max(0, light - rng.choice((0, 0, 0, 12))))
    return draw_ink_and_ground(rng)


def choose_readable(rng: random.Random, ground: RGB, ink: RGB | None = None) -> RGB:
    """An ink that can be read on that ground; ``ink`` itself if it can."""
    for _ in range(20):
        ink = ink or rng.choice(((0, 0, 0), (255, 255, 255), draw_colour(rng)))
        if contrast(ink, ground) > 75:
            return ink
        ink = None
    return (0, 0, 0) if sum(ground) > 380 else (255, 255, 255)


def open_page(rng: random.Random, ground: RGB, size: tuple[int, int] | None = None, rough: float = 0.0) -> Page:
    """An empty page; ``rough``: how likely its ground is like a photograph's."""
    width, height = size or draw_page_size(rng)
    if rng.random() < rough:
        return Page(rng, draw_rough_ground(rng, width, height))
    return Page(rng, draw_ground(rng, width, height, ground, plain=0.7))
