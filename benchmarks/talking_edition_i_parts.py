"""What the drawings of edition i share: its faces, its colours, and how lines follow each other on a page."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.talking_drawings import Drawn, as_jpeg
from benchmarks.talking_editions import DARK, GREY, Color, Font, Pad, Page, add_grain, fit, write

_WEIGHTS = {  # faces of npm's packages @fontsource/NAME
    **dict.fromkeys("anton pacifico oswald lilita-one special-elite abril-fatface righteous".split(), "400"),
    **dict.fromkeys("fjalla-one varela-round share-tech-mono patrick-hand patua-one".split(), "400"),
    **dict.fromkeys("caveat kalam passion-one space-mono archivo-narrow".split(), "400 700"),
    **dict.fromkeys("work-sans rubik barlow red-hat-text mulish titillium-web kanit".split(), "400 700"),
    **dict.fromkeys("domine aleo newsreader rokkitt".split(), "400 700"),
}


def _named(names: str) -> list[str]:
    return [f"@fontsource/{name}" for name in names.split()]


FACES = {
    f"@fontsource/{name}": tuple(f"{name}-latin-{weight}-normal.ttf" for weight in weights.split())
    for name, weights in _WEIGHTS.items()
}
SANS = _named("work-sans rubik barlow red-hat-text mulish titillium-web")
SERIF = _named("domine aleo newsreader rokkitt")
NARROW = _named("archivo-narrow fjalla-one oswald")
BLOCK = _named("anton oswald fjalla-one")
HAND = _named("caveat kalam patrick-hand")
MONO = _named("space-mono share-tech-mono")
SHOWN = _named("abril-fatface lilita-one righteous passion-one patua-one anton")
PRINT = [*SANS, *SERIF, *_named("kanit archivo-narrow")]
TINTS: tuple[Color, ...] = ((24, 78, 140), (138, 28, 60), (20, 108, 84), (92, 52, 140), (190, 84, 22), (38, 44, 58))
BLUE, YELLOW, RED = (20, 70, 150), (250, 204, 40), (204, 30, 40)
SOFT: tuple[Color, ...] = ((255, 236, 150), (196, 232, 200), (250, 204, 208), (200, 224, 248), (238, 222, 250))


@dataclass
class Flow:
    """Lines that follow each other downwards from ``y``, between ``left`` and ``left`` + ``width``."""

    pen: ImageDraw.ImageDraw
    left: float
    y: float
    width: float

    def say(self, words: str, font: Font, ink: Any = DARK, at: str = "l", step: float = 1.6) -> None:
        font = fit(font, words, self.width)
        x = {"l": self.left, "m": self.left + self.width / 2, "r": self.left + self.width}[at]
        write(self.pen, x, self.y, words, font, ink, at)
        self.y += step * font.size

    def pair(
        self, cells: Sequence[str], font: Font, other: Font | None = None, ink: Any = DARK, step: float = 1.7
    ) -> None:
        """Two cells of a line, the second at the right and in the font ``other``."""
        write(self.pen, self.left, self.y, cells[0], font, ink)
        write(self.pen, self.left + self.width, self.y, cells[1], other or font, ink, "r")
        self.y += step * font.size

    def rule(self, ink: Any = (206, 210, 216), thick: int = 2, step: float = 16, dash: int = 0) -> None:
        y, end = self.y + step / 2, round(self.left + self.width)
        for x in range(round(self.left), end, 2 * dash or end):
            self.pen.line((x, y, x + dash if dash else end, y), fill=ink, width=thick)
        self.y += step


def pick(kit: Pad, packages: list[str], size: float, place: int = 0) -> Font:
    """A font as ``Pad.pick`` takes it, but always of the same face on a page."""
    face = random.Random(f"{sorted(kit.letters)} {packages}").choice(packages)
    return kit.pick([face], size, place)


def sheet_of(width: int, ground: Any = "white") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A page of any length, and a pen; what it needs is cut from it at the end."""
    image = Image.new("RGB", (width, 2400), ground)
    return image, ImageDraw.Draw(image)


def cut_at(image: Image.Image, y: float, least: int = 340) -> Image.Image:
    return image.crop((0, 0, image.width, max(least, round(y))))


def finish(kit: Pad, image: Image.Image, page: Page, grain: float = 3, quality: int = 87) -> Drawn:
    return as_jpeg(add_grain(kit, image, grain), quality), page.asked


def lean(kit: Pad, image: Image.Image) -> Image.Image:
    """The image as somebody takes it who does not stand quite before it."""
    (width, height), rng = image.size, kit.rng
    x, y = 0.045 * width, 0.045 * height
    corners = ((0, 0), (0, height - y), (width - x, height - y), (width - x, 0))
    quad = [side + rng.uniform(0, edge) for corner in corners for side, edge in zip(corner, (x, y), strict=True)]
    return image.transform(image.size, Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)


def draw_bars(rng: random.Random, pen: ImageDraw.ImageDraw, box: tuple[float, float, float, float]) -> None:
    """The bars of a code without its number."""
    x = box[0]
    while x < box[2] - 6:
        thick = rng.choice((2, 3, 5))
        pen.rectangle((x, box[1], x + thick - 1, box[3]), fill=DARK)
        x += thick + rng.choice((2, 3, 4))


def draw_dots(pen: ImageDraw.ImageDraw, left: float, right: float, y: float, ink: Any = GREY) -> None:
    """Dots that lead from a name to its price."""
    for x in range(round(left), round(right), 10):
        pen.ellipse((x, y, x + 2, y + 2), fill=ink)


def draw_tick(pen: ImageDraw.ImageDraw, x: float, y: float, size: float, ink: Any) -> None:
    spots = ((x, y + 0.55 * size), (x + 0.35 * size, y + 0.9 * size), (x + size, y + 0.1 * size))
    pen.line(spots, fill=ink, width=max(3, round(size / 6)), joint="curve")
