"""The later editions of the drawn suite: how their pages are read, and what their drawings share.

An edition is one file of texts or more (what its images show and what is asked of them: talking_edition_b.txt) and a
module of looks beside them, with faces of Debian packages that no training may draw in. Lines of an image:

    = layout            begins an image of the group; its lines may follow it after " // "
    ! title   * heading   - small line   a | b cells   --- a rule   other lines as they are
    ? question = answer; another answer <> rival; rival      text that is read
    ?# question = 12.5 ~ 0.5 a number, ?n a name, ?y yes or no, ?- cannot tell
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.talking_drawings import Asked, Drawn, Kit, as_jpeg, name, number, text, unknown, yes_no

GROUPS = frozenset("signs words lines forms receipts menus tables windows posters charts shapes".split()) | {
    "business cards",
    "charts of other looks",
}
DARK, GREY, LIGHT = (28, 30, 36), (105, 108, 116), (244, 244, 240)
Font = ImageFont.FreeTypeFont
Color = tuple[int, int, int]
_FLOORS: tuple[Color, ...] = ((98, 72, 52), (64, 68, 78), (168, 150, 124), (112, 124, 116))


@dataclass
class Page:
    """An image's layout, the lines that are written on it, and what is asked of it."""

    layout: str
    lines: list[str] = field(default_factory=list)
    asked: Asked = field(default_factory=list)

    def marked(self, mark: str) -> list[str]:
        """The lines that begin with a mark, without it."""
        return [line[len(mark) + 1 :] for line in self.lines if line.startswith(mark + " ")]

    @property
    def title(self) -> str:
        return next(iter(self.marked("!")), "")

    @property
    def rows(self) -> list[list[str]]:
        return [line.split(" | ") for line in self.lines if " | " in line and not line.startswith(("!", "*"))]

    @property
    def rest(self) -> list[str]:
        """The lines without a mark."""
        return [line for line in self.lines if not line.startswith(("! ", "* ", "[")) and " | " not in line]


def read_pages(letter: str) -> dict[str, list[Page]]:
    """Every group of an edition with its pages; without a layout, a line of signs or words is a page of its own."""
    groups: dict[str, list[Page]] = {}
    pages: list[Page] = []
    files = sorted(Path(__file__).parent.glob(f"talking_edition_{letter}*.txt"))
    for line in "\n".join(file.read_text(encoding="utf-8") for file in files).splitlines():
        if line.startswith("[") and line.strip("[]") in GROUPS:
            pages = groups.setdefault(line.strip("[]"), [])
        elif not line or line.startswith("#"):
            continue
        elif line.startswith("= "):
            layout, *lines = line[2:].split(" // ")
            pages.append(Page(layout, lines))
        elif line.startswith("?"):
            pages[-1].asked.append(read_question(line))
        elif list(groups)[-1] in ("signs", "words") and not (pages and pages[-1].layout):
            pages.append(Page("", [line]))
        else:
            pages[-1].lines.append(line)
    return groups


def read_question(line: str) -> dict[str, Any]:
    """A line that begins with a question's mark, as a row of truth.json, without its image."""
    mark, _, told = line.partition(" ")
    question, _, answer = told.partition(" = ")
    right, _, wrong = answer.partition(" <> ")
    answers, others = right.split("; "), tuple(wrong.split("; ")) if wrong else ()
    if mark == "?-":
        return unknown(question)
    if mark == "?#":
        value, _, tolerance = right.partition(" ~ ")
        return number(question, float(value), float(tolerance or 0))
    if mark == "?y":
        return yes_no(question, right == "yes")
    return (name if mark == "?n" else text)(question, *answers, others=others)


@cache
def _letters_of(path: str) -> frozenset[int]:
    from fontTools.ttLib import TTFont

    return frozenset(TTFont(path).getBestCmap())


class Pad(Kit):
    """A kit of an edition's faces; a face that lacks a letter of the page is never chosen for it."""

    def __init__(self, fetch: Callable[[str], Path], seed: str, letters: str, edition: Edition) -> None:
        super().__init__(fetch, seed, edition.faces)
        self.letters = {ord(letter) for letter in letters if not letter.isspace()}
        self._plain, self._stand_ins = edition.plain, edition.stand_ins

    def font(self, package: str, size: float, place: int = 0) -> Font:
        return super().font(self._stand_ins.get(package, package), size, place)

    def pick(self, packages: Sequence[str], size: float, place: int = 0) -> Font:
        """A font of one of the packages, in ``size`` px; ``place``: which of its faces. Raises LookupError."""
        for package in self.rng.sample(packages, len(packages)):
            font = self.font(package, size, place)
            if self.letters <= _letters_of(str(font.path)):
                return font
        raise LookupError(f"No face of {packages} has all of {sorted(map(chr, self.letters))}.")

    def plain(self, size: float, place: int = 0) -> Font:
        return self.pick(self._plain, size, place)


@dataclass(frozen=True)
class Edition:
    """Another edition of the drawn suite: its faces by package, and how each group is drawn.

    ``plain``: the packages whose faces suit small print. Their first face is regular, their second one bold.
    ``stand_ins``: which of its packages is drawn in where the drawing of another edition names one of that edition's.
    """

    letter: str
    faces: dict[str, tuple[str, ...]]
    plain: Sequence[str]
    draw_word: Callable[[Pad, Page, Font], Drawn]
    draw: dict[str, Callable[[Pad, Page], Drawn]]
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    def draw_images(self, fetch: Callable[[str], Path]) -> Iterator[tuple[str, Drawn]]:
        """Every image with its group; the same at every call. ``fetch``: the folder of a Debian package."""
        faces = [(package, place) for package, names in self.faces.items() for place in range(len(names))]
        for group, pages in read_pages(self.letter).items():
            for i, page in enumerate(pages):
                if group == "words":
                    kit, (package, place) = self._take(fetch, page, ""), faces[i % len(faces)]
                    yield "other fonts", self.draw_word(kit, page, kit.font(package, 40, place))
                else:
                    yield group, self.draw[group](self._take(fetch, page, "".join(page.lines)), page)

    def _take(self, fetch: Callable[[str], Path], page: Page, letters: str) -> Pad:
        return Pad(fetch, f"{self.letter} {page.lines}", letters, self)


def fit(font: Font, words: str, wide: float) -> Font:
    return (
        font if font.getlength(words) <= wide else font.font_variant(size=int(font.size * wide / font.getlength(words)))
    )


def add_grain(kit: Pad, image: Image.Image, strength: float) -> Image.Image:
    noise = np.random.default_rng(kit.rng.getrandbits(32)).normal(0, strength, (image.height, image.width, 1))
    return Image.fromarray((np.asarray(image.convert("RGB")) + noise).clip(0, 255).astype(np.uint8))


def paint_slope(width: int, height: int, low: Any, high: Any) -> Image.Image:
    """A vertical gradient between two colours."""
    share = np.linspace(0, 1, height)[:, None, None]
    pixels = np.array(low) + (np.array(high) - np.array(low)) * share
    return Image.fromarray(np.broadcast_to(pixels, (height, width, 3)).astype(np.uint8))


def photograph(kit: Pad, paper: Image.Image) -> Image.Image:
    """A paper on a floor as a hand-held camera takes it: from an angle, lit from one side, with noise."""
    rng, margin = kit.rng, kit.rng.randint(30, 80)
    wide, tall = paper.width + 2 * margin, paper.height + 2 * margin
    corners = [(margin, margin), (wide - margin, margin), (wide - margin, tall - margin), (margin, tall - margin)]
    seen = [(x + rng.uniform(-0.5, 0.5) * margin, y + rng.uniform(-0.5, 0.5) * margin) for x, y in corners]
    source = [(0, 0), (paper.width, 0), (paper.width, paper.height), (0, paper.height)]
    rows, aims = [], []
    for (x, y), (u, v) in zip(seen, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        aims += [u, v]
    warp = tuple(np.linalg.solve(np.array(rows), np.array(aims)))
    sheet = paper.convert("RGBA").transform((wide, tall), Image.Transform.PERSPECTIVE, warp, Image.Resampling.BICUBIC)
    scene = add_grain(kit, Image.new("RGB", (wide, tall), rng.choice(_FLOORS)), 9).filter(ImageFilter.GaussianBlur(1.2))
    shade = sheet.getchannel("A").filter(ImageFilter.GaussianBlur(9)).point(lambda alpha: alpha * 2 // 5)
    scene.paste((0, 0, 0), (8, 11), shade)
    scene.paste(sheet, (0, 0), sheet)
    light = np.linspace(rng.uniform(0.72, 0.86), 1.03, wide)[:: rng.choice((1, -1))]
    lit = Image.fromarray((np.asarray(scene) * light[None, :, None]).clip(0, 255).astype(np.uint8))
    return as_jpeg(add_grain(kit, lit, 3), 82)


def break_words(words: str, longest: int) -> list[str]:
    """The words on one line, or in two lines of about the same length if there are more letters than ``longest``."""
    parts = words.split(" ")
    cuts = [(" ".join(parts[:i]), " ".join(parts[i:])) for i in range(1, len(parts))]
    if len(words) <= longest or not cuts:
        return [words]
    first, second = min(cuts, key=lambda cut: abs(len(cut[0]) - len(cut[1])))
    return [first, second]


def fit_all(font: Font, lines: list[str], wide: float) -> Font:
    return min((fit(font, line, wide) for line in lines), key=lambda each: each.size)


def tick_every(step: float) -> Any:
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(step)


def write(pen: ImageDraw.ImageDraw, x: float, y: float, words: str, font: Font, ink: Any, at: str = "l") -> None:
    """Writes on the base line that hangs from y; ``at`` is l, m or r for what x is."""
    pen.text((x, y + font.size), words, font=font, fill=ink, anchor=at + "s")


def paint_figure(
    rng: random.Random,
    font: Font,
    ground: str,
    ink: str,
    paint: Callable[[Any], None],
    sizes: Sequence[tuple[float, float]] = ((6, 5), (8, 4.5)),
    **look: Any,
) -> Image.Image:
    """What matplotlib shows of ``paint(axes)`` in the font's face; ``look``: the edition's own settings."""
    import matplotlib.font_manager
    import matplotlib.pyplot

    matplotlib.font_manager.fontManager.addfont(str(font.path))
    inks = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    settings = {
        "font.family": matplotlib.font_manager.FontProperties(fname=str(font.path)).get_name(),
        "font.size": rng.choice((12, 14)),
        "axes.unicode_minus": False,  # few of the faces have the sign
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), ground),
        **dict.fromkeys(inks, ink),
    }
    with matplotlib.pyplot.rc_context(settings | look):
        figure: Any = matplotlib.pyplot.figure(figsize=rng.choice(sizes), dpi=rng.choice((90, 120, 150)))
        paint(figure.subplots())
        file = io.BytesIO()
        figure.savefig(file, format="png", bbox_inches="tight")
        matplotlib.pyplot.close(figure)
    return Image.open(file).convert("RGB")
