"""An image that records what is drawn on it.

Everything drawn leaves a mark: a character with its centre and height, or an object with its box, shape, colour and
anchor. Exact answers and the tower's dense labels both come from the marks. Needs Pillow and the fonts of the ``eval``
extra; a trained model needs nothing from this module.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from llava.errors import UsageError

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "orange": (245, 135, 25),
    "yellow": (240, 210, 35),
    "green": (35, 155, 60),
    "blue": (40, 80, 215),
    "purple": (125, 45, 170),
    "pink": (245, 130, 185),
    "brown": (125, 75, 35),
    "gray": (135, 135, 135),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "hexagon", "ring")
# Objects that are not shapes of a scene: bars of charts, plates that carry text (signs, buttons, fields).
OBJECTS = (*SHAPES, "bar", "plate")
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:-/$%#&'!?()+@"

_FONT_FILES = (
    "matplotlib:DejaVuSans.ttf",
    "matplotlib:DejaVuSans-Bold.ttf",
    "matplotlib:DejaVuSansMono.ttf",
    "matplotlib:DejaVuSerif.ttf",
    "matplotlib:STIXGeneral.ttf",
    "matplotlib:STIXGeneralBol.ttf",
    "font_roboto:Roboto-Regular.ttf",
    "font_roboto:Roboto-Bold.ttf",
    "font_roboto:Roboto-Medium.ttf",
    "font_source_sans_pro:SourceSansPro-Regular.ttf",
    "font_source_sans_pro:SourceSansPro-Bold.ttf",
    "pillow:default",
)


class Character(NamedTuple):
    """One drawn character: its centre and the height of its capitals, in pixels, and its colour's name."""

    text: str
    x: float
    y: float
    height: float
    color: str


class Object(NamedTuple):
    """One drawn object: its box and anchor in pixels. The anchor is the centre, and of a bar the middle of its top."""

    shape: str
    color: str
    left: float
    top: float
    right: float
    bottom: float
    anchor_x: float
    anchor_y: float


@lru_cache(maxsize=1)
def font_paths() -> tuple[str, ...]:
    """The paths of the font files, in a fixed order; "" is Pillow's own font.

    Raises UsageError if the package of one is not installed: images must not differ between machines.
    """
    try:
        import font_roboto
        import font_source_sans_pro
        import matplotlib
    except ImportError as error:
        raise UsageError(
            f"Drawing images needs the fonts of the package '{error.name}': run pip install 'llava[eval]'."
        ) from error
    folders = {
        "matplotlib": Path(matplotlib.get_data_path()) / "fonts" / "ttf",
        "font_roboto": Path(font_roboto.__file__).parent / "files",
        "font_source_sans_pro": Path(font_source_sans_pro.__file__).parent / "files",
    }
    names = (name.split(":") for name in _FONT_FILES)
    return tuple("" if package == "pillow" else str(folders[package] / file) for package, file in names)


@lru_cache(maxsize=512)
def load_font(index: int, size_px: int) -> ImageFont.FreeTypeFont:
    """Font number ``index`` of ``font_paths`` at that size, cached. Raises UsageError as ``font_paths`` does."""
    path = font_paths()[index]
    if path:
        return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def draw_font(rng: random.Random) -> int:
    """The index of a random font, for ``load_font``."""
    return rng.randrange(len(_FONT_FILES))


def vary_color(rng: random.Random, name: str, amount: int = 18) -> tuple[int, int, int]:
    """A named colour as RGB from 0 to 255, each channel off by at most ``amount``."""
    red, green, blue = COLORS[name]
    return tuple(max(0, min(255, c + rng.randint(-amount, amount))) for c in (red, green, blue))  # type: ignore[return-value]


def _star(
    x: float, y: float, r: float, points: int = 5, inner: float = 0.42, turn: float = 0.0
) -> list[tuple[float, float]]:
    corners = []
    for i in range(2 * points):
        radius = r if i % 2 == 0 else r * inner
        angle = turn - math.pi / 2 + i * math.pi / points
        corners.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return corners


def _polygon(x: float, y: float, r: float, sides: int, turn: float) -> list[tuple[float, float]]:
    angles = (turn + 2 * math.pi * i / sides for i in range(sides))
    return [(x + r * math.cos(a), y + r * math.sin(a)) for a in angles]


@dataclass
class Drawing:
    """An RGB image under construction, with the marks of everything on it. Coordinates are pixels from the top left.

    Attributes:
        characters, objects: the marks, in the order of drawing.
        texts: the lines of text, in the order of drawing.
        keys: the coloured fields of a legend, with the kind "key"; the tower's labels do not have them.
    """

    rng: random.Random
    width: int
    height: int
    background: tuple[int, int, int] = (255, 255, 255)
    characters: list[Character] = field(default_factory=list)
    objects: list[Object] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    keys: list[Object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", (self.width, self.height), self.background)
        self.pen = ImageDraw.Draw(self.image)

    def measure(self, text: str, font: ImageFont.FreeTypeFont) -> tuple[float, float]:
        """Width and line height of a text, in pixels."""
        ascent, descent = font.getmetrics()
        return font.getlength(text), ascent + descent

    def write(self, x: float, y: float, text: str, font: ImageFont.FreeTypeFont, color: str) -> None:
        """Writes one line with its top left corner at (x, y) and marks its characters."""
        self.pen.text((x, y), text, font=font, fill=vary_color(self.rng, color, 12))
        ascent, _ = font.getmetrics()
        capital = font.size * 0.72
        self.texts.append(text)
        start = 0.0
        for i, character in enumerate(text):
            end = font.getlength(text[: i + 1])
            if character != " ":
                self.characters.append(
                    Character(character, x + (start + end) / 2, y + ascent - capital / 2, capital, color)
                )
            start = end

    def shape(self, kind: str, color: str, x: float, y: float, radius: float) -> None:
        """Draws one of ``SHAPES`` centred at (x, y), slightly turned, and marks it."""
        fill = vary_color(self.rng, color)
        turn = self.rng.uniform(-0.2, 0.2)
        r = radius
        if kind == "circle":
            self.pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        elif kind == "ring":
            self.pen.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=max(2, round(r * 0.35)))
        elif kind == "square":
            self.pen.polygon(_polygon(x, y, r * 1.2, 4, math.pi / 4 + turn * 0.4), fill=fill)
        elif kind == "diamond":
            self.pen.polygon([(x, y - r), (x + r * 0.72, y), (x, y + r), (x - r * 0.72, y)], fill=fill)
        elif kind == "triangle":
            self.pen.polygon(_polygon(x, y + r * 0.15, r * 1.1, 3, -math.pi / 2 + turn * 0.4), fill=fill)
        elif kind == "hexagon":
            self.pen.polygon(_polygon(x, y, r, 6, turn), fill=fill)
        elif kind == "star":
            self.pen.polygon(_star(x, y, r * 1.1, turn=turn), fill=fill)
        elif kind == "cross":
            t = r * 0.36
            self.pen.rectangle((x - r, y - t, x + r, y + t), fill=fill)
            self.pen.rectangle((x - t, y - r, x + t, y + r), fill=fill)
        else:
            raise AssertionError(kind)
        self.objects.append(Object(kind, color, x - r, y - r, x + r, y + r, x, y))

    def box(
        self,
        kind: str,
        color: str,
        left: float,
        top: float,
        right: float,
        bottom: float,
        round_px: float = 0,
        outline: tuple[int, int, int] | None = None,
    ) -> None:
        """Draws a bar or a plate and marks it; ``round_px`` is the radius of its corners."""
        fill = vary_color(self.rng, color)
        area = (round(left), round(top), round(right), round(bottom))
        if round_px:
            self.pen.rounded_rectangle(area, radius=round_px, fill=fill, outline=outline)
        else:
            self.pen.rectangle(area, fill=fill, outline=outline)
        x, y = (left + right) / 2, (top + bottom) / 2
        self.objects.append(Object(kind, color, left, top, right, bottom, x, top if kind == "bar" else y))

    def spoil(self, strength: float) -> None:
        """Adds noise, blur and JPEG artefacts at random, more often the greater ``strength``: 0 (never) to 1."""
        rng = self.rng
        if rng.random() < 0.25 * strength:
            self.image = self.image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.6)))
        if rng.random() < 0.35 * strength:
            noise = np.random.default_rng(rng.getrandbits(32)).normal(
                0, rng.uniform(2, 9), (self.height, self.width, 1)
            )
            pixels = np.asarray(self.image, dtype=np.float32) + noise.astype(np.float32)
            self.image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        if rng.random() < 0.25 * strength:
            buffer = io.BytesIO()
            self.image.save(buffer, "JPEG", quality=rng.randint(45, 90))
            self.image = Image.open(buffer).convert("RGB")
