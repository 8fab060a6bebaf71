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

from llava.scratch.reading.colours import RGB, Pixels, draw_colour, draw_ground, enlarge
from llava.scratch.reading.line_images import spoil
from llava.scratch.reading.line_texts import LineTexts, fit_to_face
from llava.scratch.reading.typefaces import Face, FaceBox


class Mark(NamedTuple):
    """A line of text: its ends, its baseline at the left end and its capitals' height in pixels, and its slope.

    ``slope``: how far the baseline falls per pixel to the right.
    """

    text: str
    left: float
    right: float
    baseline: float
    capital: float
    slope: float = 0.0
    ink: str = ""


class Style(NamedTuple):
    """A face at a size, with the height of its capitals and the distance of lines, in pixels."""

    face: Face
    size: int
    capital: float
    leading: float

    def length(self, text: str) -> float:
        return self.face.load(self.size).getlength(text)


@dataclass
class Sources:
    """What pages are drawn from: faces, texts, folders of pictures without text, and charts drawn beforehand."""

    faces: FaceBox
    texts: LineTexts
    pictures: tuple[Path, ...] = ()
    charts: list[tuple[npt.NDArray[np.uint8], list[Mark]]] = field(default_factory=list)

    def style(self, rng: random.Random, size: int, face: Face | None = None) -> Style:
        """A random face, or that one, at a size."""
        face = face or self.faces.draw(rng)
        return Style(face, size, max(0.4, face.capital) * size, size * rng.uniform(1.15, 1.6))


class Page:
    """An RGB image and its marks. Coordinates are pixels from the top left."""

    def __init__(self, rng: random.Random, ground: Pixels) -> None:
        self.rng = rng
        self.image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
        self.pen = ImageDraw.Draw(self.image)
        self.marks: list[Mark] = []

    @property
    def size(self) -> tuple[int, int]:
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
        self.pen.text((left, baseline), text, fill=ink, font=style.face.load(style.size), anchor="ls")
        self.marks.append(Mark(text, left, left + length, baseline, style.capital))
        return length

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

    def paste(self, picture: Image.Image, x: int, y: int) -> None:
        """Puts a picture with transparency on the page."""
        self.image.paste(picture, (x, y), picture if picture.mode == "RGBA" else None)
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
        m._replace(left=m.left * scale - x, right=m.right * scale - x, baseline=m.baseline * scale - y, capital=m.capital * scale)
        for m in marks
    ]  # fmt: skip


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


def draw_rough_ground(rng: random.Random, width: int, height: int) -> Pixels:
    """Something like a blurred photograph: coloured noise of many scales, patches with edges, and strokes."""
    noise = np.random.default_rng(rng.getrandbits(32))
    base = np.array(draw_colour(rng), dtype=np.float32)
    ground = np.empty((height, width, 3), dtype=np.float32)
    ground[:] = base
    steep = rng.uniform(0.4, 1.1)
    for octave in range(2, 9):
        cell = 2**octave
        amount = rng.uniform(0.2, 1) * 4 * (cell / 4) ** steep
        shape = (max(2, height // cell + 1), max(2, width // cell + 1), 1 if rng.random() < 0.5 else 3)
        ground += enlarge(noise.normal(0, min(60, amount), shape).astype(np.float32), width, height)
    if rng.random() < 0.6:
        ground += noise.normal(0, rng.uniform(1, 14), (height, width, 1)).astype(np.float32)
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    draw_clutter(rng, ImageDraw.Draw(image), width, height, rng.randint(0, 14))
    return np.asarray(image, dtype=np.float32)


def draw_clutter(rng: random.Random, pen: ImageDraw.ImageDraw, width: int, height: int, count: int) -> None:
    """Things that are no text: polygons, ellipses, strokes, grids, rows of windows, bricks, leaves and dots."""
    for _ in range(count):
        x, y = rng.randrange(width), rng.randrange(height)
        r = math.exp(rng.uniform(math.log(4), math.log(max(8, min(width, height) / 2))))
        colour, kind = draw_colour(rng), rng.random()
        if kind < 0.2:
            corners = [(x + rng.uniform(-r, r), y + rng.uniform(-r, r)) for _ in range(rng.randint(3, 8))]
            pen.polygon(corners, fill=colour)
        elif kind < 0.35:
            box = (x - r, y - r * rng.uniform(0.3, 1), x + r, y + r)
            pen.ellipse(
                box, fill=colour if rng.random() < 0.6 else None, outline=draw_colour(rng), width=rng.randint(1, 6)
            )
        elif kind < 0.45:
            pen.rectangle(
                (x - r, y - r / 2, x + r, y + r),
                fill=colour if rng.random() < 0.6 else None,
                outline=draw_colour(rng),
                width=rng.randint(1, 5),
            )
        elif kind < 0.65:
            for _ in range(rng.randint(1, 30)):
                px, py = x + rng.uniform(-r, r), y + rng.uniform(-r, r)
                angle, long = rng.uniform(0, 6.3), rng.uniform(3, r)
                path = [(px, py)]
                for _ in range(rng.randint(1, 5)):
                    path.append((path[-1][0] + long * math.cos(angle), path[-1][1] + long * math.sin(angle)))
                    angle += rng.uniform(-0.6, 0.6)
                pen.line(path, fill=colour, width=rng.choice((1, 1, 2, 3, 5)))
        elif kind < 0.9:
            _draw_rows(rng, pen, x, y, r, colour)
        else:
            for _ in range(rng.randint(5, 80)):
                px, py, q = x + rng.gauss(0, r), y + rng.gauss(0, r), rng.uniform(1, 5)
                pen.ellipse((px - q, py - q, px + q, py + q * rng.uniform(0.4, 1)), fill=colour)


def _draw_rows(rng: random.Random, pen: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: RGB) -> None:
    """A regular pattern: windows, bricks, tiles, railings, stripes or leaves."""
    step_x, step_y = rng.uniform(5, 40), rng.uniform(5, 40)
    fill_x, fill_y = rng.uniform(0.3, 0.95), rng.uniform(0.3, 0.95)
    kind = rng.choice(("box", "box", "ellipse", "bar", "outline"))
    for row in range(min(14, int(2 * r / step_y) + 1)):
        shift = rng.choice((0, step_x / 2)) if kind == "box" else 0
        for column in range(min(25, int(2 * r / step_x) + 1)):
            px, py = x + column * step_x + (shift if row % 2 else 0), y + row * step_y
            box = (px, py, px + step_x * fill_x, py + step_y * fill_y)
            if kind == "ellipse":
                pen.ellipse(box, fill=colour)
            elif kind == "outline":
                pen.rectangle(box, outline=colour)
            elif kind == "bar":
                pen.rectangle((px, py, px + step_x * fill_x * 0.3, py + step_y * 1.02), fill=colour)
            else:
                pen.rectangle(box, fill=colour)


def draw_picture(rng: random.Random, sources: Sources, side: int) -> Image.Image | None:
    """A picture without text with transparency, its longer side ``side`` px; None where there are none."""
    if not sources.pictures:
        return None
    with Image.open(rng.choice(sources.pictures)) as file:
        picture = file.convert("RGBA")
    scale = side / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def draw_page_ground(rng: random.Random, width: int, height: int, base: RGB) -> Pixels:
    """The ground of a page: mostly plain."""
    return draw_ground(rng, width, height, base, plain=0.7)
