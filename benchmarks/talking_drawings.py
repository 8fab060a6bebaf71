"""Images of other looks than the generator's, for talking_suites.py: signs, receipts, cards, tables, windows, posters.

Their texts are written by hand, and their fonts are of Debian packages that no training may draw in. What they show is
known because it is drawn; the questions are those that a person would ask of such an image. Charts are drawn by
talking_charts.py.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FACES = {
    "fonts-lato": ("Lato-Regular.ttf", "Lato-Bold.ttf", "Lato-Black.ttf"),
    "fonts-cantarell": ("Cantarell-Regular.otf", "Cantarell-Bold.otf"),
    "fonts-comic-neue": ("ComicNeue-Regular.otf", "ComicNeue-Bold.otf"),
    "fonts-cardo": ("Cardo104s.ttf", "Cardob101.ttf"),
    "fonts-goudybookletter": ("GoudyBookletter1911.otf",),
    "fonts-hosny-amiri": ("Amiri-Regular.ttf", "Amiri-Bold.ttf"),
    "fonts-league-mono": ("LeagueMono-Regular.otf", "LeagueMono-Bold.otf"),
    "fonts-fantasque-sans": ("FantasqueSansMono-Regular.ttf", "FantasqueSansMono-Bold.ttf"),
    "fonts-monoid": ("Monoid-Regular.ttf",),
    "fonts-mplus": ("Mplus1-Regular.otf", "Mplus1-Bold.otf"),
}
WORDS = """Harbour Orchard Lantern Meadow Violet Quartz Juniper Copper Falcon Summit Bridge Willow Castle Marble
Thunder Pepper Biscuit Pocket Jungle Velvet Anchor Ribbon Puzzle Candle Kettle Saddle Walnut Zipper Garlic Basil Cactus
Dragon Empire Fabric Gadget Helmet Island Jacket Knight Ladder""".split()
SIGNS = (
    "OPEN", "CLOSED", "EXIT", "ENTRANCE", "NO SMOKING", "PUSH", "PULL", "Wet Paint", "Mind the step", "Ring the bell",
    "Platform 4", "Mill Lane", "Queen Street", "Station Road", "SPEED LIMIT 45", "Reception", "Staff only",
    "Lost and found", "Ticket office", "Beware of the dog", "Fresh eggs", "Room 217", "Bus stop", "Library",
    "Car park full", "Exit 12",
    "Private property", "Keep left", "Boat hire", "Tea garden",
)  # fmt: skip

BOARDS: tuple[tuple[Any, Any], ...] = (
    ("white", (20, 20, 20)),
    ((20, 75, 150), "white"),
    ((250, 205, 40), (15, 15, 15)),
    ((170, 25, 30), "white"),
    ((25, 95, 60), "white"),
    ((240, 232, 215), (90, 30, 20)),
    ((35, 35, 38), (240, 200, 90)),
)


class Kit:
    """Fonts at any size, and a random generator of the image's own."""

    def __init__(
        self, fetch: Callable[[str], Path], seed: str, faces: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self._fetch = fetch
        self._faces = faces or FACES

    def font(self, package: str, size: float, place: int = 0) -> ImageFont.FreeTypeFont:
        name = self._faces[package][min(place, len(self._faces[package]) - 1)]
        path = next(path for path in sorted(self._fetch(package).rglob(name)))
        return ImageFont.truetype(str(path), round(size))

    def any_font(self, size: float) -> ImageFont.FreeTypeFont:
        return self.font(self.rng.choice(list(self._faces)), size, self.rng.randrange(3))


Asked = list[dict[str, Any]]
Drawn = tuple[Image.Image, Asked]


def text(question: str, *answers: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"question": question, "answers": list(answers), "others": list(others), "form": "text"}


def number(question: str, value: float, tolerance: float = 0.0) -> dict[str, Any]:
    return {"question": question, "answers": [f"{value:g}"], "form": "number", "tolerance": tolerance}


def name(question: str, *answers: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"question": question, "answers": list(answers), "others": list(others), "form": "name"}


def yes_no(question: str, is_so: bool) -> dict[str, Any]:
    return {"question": question, "answers": ["yes" if is_so else "no"], "form": "yes/no"}


def unknown(question: str) -> dict[str, Any]:
    return {"question": question, "answers": [], "form": "cannot tell"}


def wall(rng: random.Random, width: int, height: int) -> Image.Image:
    """Something to hang a sign on: a wall of bricks, planks or plaster, or a hedge."""
    noise = np.random.default_rng(rng.getrandbits(32))
    kind = rng.choice(("bricks", "planks", "plaster", "hedge"))
    base = np.array(
        {"bricks": (150, 80, 62), "planks": (140, 105, 70), "plaster": (205, 200, 188), "hedge": (60, 95, 45)}[kind]
    )
    pixels = base + noise.normal(0, 9 if kind != "hedge" else 32, (height, width, 1))
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8).repeat(1, axis=2))
    pen = ImageDraw.Draw(image)
    if kind == "bricks":
        for row, y in enumerate(range(0, height, 38)):
            pen.line((0, y, width, y), fill=(200, 190, 180), width=4)
            for x in range(-60 + 45 * (row % 2), width, 90):
                pen.line((x, y, x, y + 38), fill=(200, 190, 180), width=4)
    elif kind == "planks":
        for x in range(0, width, 110):
            pen.line((x, 0, x, height), fill=(80, 58, 36), width=5)
    return image.filter(ImageFilter.GaussianBlur(2.5 if kind == "hedge" else 0.8))


def as_jpeg(image: Image.Image, quality: int = 88) -> Image.Image:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def draw_sign(kit: Kit, words: str) -> Drawn:
    rng = kit.rng
    width, height = rng.randint(640, 1400), rng.randint(480, 1000)
    image = wall(rng, width, height)
    font = kit.any_font(rng.uniform(0.09, 0.15) * height)
    while font.getlength(words) > 0.75 * width:
        font = font.font_variant(size=round(font.size * 0.85))
    lines = words.split(" ") if rng.random() < 0.3 else [words]
    board, ink = rng.choice(BOARDS)
    wide, line = max(font.getlength(each) for each in lines) + font.size * 1.2, font.size * 1.3
    tall = line * len(lines) + font.size * 0.8
    x, y = (width - wide) * rng.uniform(0.2, 0.8), (height - tall) * rng.uniform(0.2, 0.7)
    shade = Image.new("L", image.size, 0)
    ImageDraw.Draw(shade).rectangle((x + 9, y + 11, x + wide + 9, y + tall + 11), fill=150)
    image.paste((0, 0, 0), mask=shade.filter(ImageFilter.GaussianBlur(7)))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((x, y, x + wide, y + tall), rng.choice((0, 10, 26)), fill=board, outline=ink, width=4)
    for i, each in enumerate(lines):
        left = x + (wide - font.getlength(each)) / 2
        pen.text((left, y + font.size * 0.35 + i * line), each, font=font, fill=ink)
    question = rng.choice(("What does the sign say?", "What is written on the sign?", "Please read the sign."))
    return as_jpeg(image), [text(question, words)]


def draw_word(kit: Kit, package: str, place: int, word: str) -> Drawn:
    """A word in a face that no training draws in."""
    rng = kit.rng
    width, height = rng.randint(420, 900), rng.randint(400, 620)
    ground = rng.choice(((255, 255, 255), (246, 240, 228), (225, 236, 246), (28, 32, 44)))
    image = Image.new("RGB", (width, height), ground)
    font = kit.font(package, rng.uniform(0.10, 0.2) * height, place)
    while font.getlength(word) > 0.85 * width:
        font = font.font_variant(size=round(font.size * 0.85))
    ink = (245, 245, 245) if sum(ground) < 300 else (25, 25, 30)
    spot = (rng.uniform(0.1, 0.9) * (width - font.getlength(word)), rng.uniform(0.1, 0.8) * (height - 2 * font.size))
    ImageDraw.Draw(image).text(spot, word, font=font, fill=ink)
    return image, [text(rng.choice(("What is written here?", "What word is this?", "What does the image say?")), word)]


def draw_receipt(kit: Kit, shop: str, street: str, items: list[tuple[str, float]], currency: str) -> Drawn:
    rng = kit.rng
    width = rng.randint(430, 700)
    font = kit.font(rng.choice(("fonts-league-mono", "fonts-fantasque-sans", "fonts-monoid", "fonts-lato")), width / 24)
    bold = kit.font("fonts-lato", width / 15, 1)
    line = font.size * 1.55
    total = sum(price for _, price in items)
    tax = round(total * 0.19 / 1.19, 2)
    paid = float(-(-total // 10) * 10)
    image = Image.new("RGB", (width, round(line * (len(items) + 13))), (250, 249, 245))
    pen = ImageDraw.Draw(image)
    pen.text(((width - bold.getlength(shop)) / 2, line), shop, font=bold, fill=(20, 20, 20))
    pen.text(((width - font.getlength(street)) / 2, line * 2.6), street, font=font, fill=(40, 40, 40))
    rows = [(label, f"{price:.2f}") for label, price in items]
    rows += [("", ""), ("TOTAL " + currency, f"{total:.2f}"), ("Tax 19%", f"{tax:.2f}"), ("Cash", f"{paid:.2f}")]
    rows += [("Change", f"{paid - total:.2f}")]
    for i, (label, price) in enumerate(rows):
        y = line * (4.4 + i)
        pen.text((30, y), label, font=font, fill=(30, 30, 30))
        pen.text((width - 30 - font.getlength(price), y), price, font=font, fill=(30, 30, 30))
    number_text = f"{rng.randrange(100, 999)}-{rng.randrange(1000, 9999)}"
    pen.text((30, image.height - line * 2), f"Receipt {number_text}", font=font, fill=(60, 60, 60))
    article, cost = rng.choice(items)
    return as_jpeg(image), [
        number(f"How much does the {article.lower()} cost?", cost),
        number("What is the total?", total),
        rng.choice(
            (
                text("What is the name of the shop?", shop),
                text("What is the receipt number?", number_text),
                number("How much change was given?", round(paid - total, 2)),
            )
        ),
        unknown(rng.choice(("What is the name of the cashier?", "What is the telephone number of the shop?"))),
    ]


def draw_menu(kit: Kit, title: str, dishes: list[tuple[str, float]]) -> Drawn:
    rng = kit.rng
    width, height = rng.randint(620, 900), 260 + 96 * len(dishes)
    dark = rng.random() < 0.35
    image = Image.new("RGB", (width, height), (38, 42, 40) if dark else (250, 245, 232))
    pen, ink = ImageDraw.Draw(image), (240, 236, 220) if dark else (70, 40, 25)
    head = kit.font(rng.choice(("fonts-cardo", "fonts-goudybookletter", "fonts-hosny-amiri")), 64, 1)
    body = kit.font(rng.choice(("fonts-cardo", "fonts-lato", "fonts-comic-neue", "fonts-hosny-amiri")), 34)
    pen.text(((width - head.getlength(title)) / 2, 50), title, font=head, fill=ink)
    for i, (dish, price) in enumerate(dishes):
        y = 200 + 96 * i
        shown = f"{price:.2f}"
        pen.text((60, y), dish, font=body, fill=ink)
        pen.text((width - 60 - body.getlength(shown), y), shown, font=body, fill=ink)
    dear, cheap = max(dishes, key=lambda each: each[1]), min(dishes, key=lambda each: each[1])
    some = rng.choice(dishes)
    rest = lambda one: tuple(each for each, _ in dishes if each != one)  # noqa: E731
    return image, [
        number(f"How much is the {some[0].lower()}?", some[1]),
        rng.choice(
            (
                text("Which dish is the most expensive?", dear[0], others=rest(dear[0])),
                text("What is the cheapest thing on the menu?", cheap[0], others=rest(cheap[0])),
                text("What is the name of the place?", title),
            )
        ),
    ]


def draw_card(kit: Kit, person: str, job: str, firm: str, phone: str, mail: str) -> Drawn:
    rng = kit.rng
    width, height = 1050, 600
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    color = rng.choice(((20, 90, 140), (140, 30, 50), (30, 110, 80), (60, 60, 65)))
    pen.rectangle(rng.choice(((0, 0, 40, height), (0, 0, width, 30), (0, height - 46, width, height))), fill=color)
    big, small = kit.any_font(58), kit.font(rng.choice(("fonts-lato", "fonts-cantarell", "fonts-mplus")), 32)
    pen.text((90, 90), firm, font=small.font_variant(size=40), fill=color)
    pen.text((90, 210), person, font=big, fill=(25, 25, 30))
    pen.text((90, 300), job, font=small, fill=(90, 90, 95))
    pen.text((90, 410), phone, font=small, fill=(40, 40, 45))
    pen.text((90, 465), mail, font=small, fill=(40, 40, 45))
    return image, [
        text("What is the name of the person?", person, others=(firm,)),
        rng.choice(
            (
                text("What is the phone number?", phone),
                text("What is the job title?", job, f"the {job}"),
                text("Which company is it?", firm),
                text("What is the e-mail address?", mail),
            )
        ),
        unknown(rng.choice(("What is the fax number?", "What is the street address?", "How old is the person?"))),
    ]


def draw_table(kit: Kit, title: str, heads: list[str], rows: list[list[str]], ask: Asked) -> Drawn:
    """A table as a spreadsheet or a web page shows it."""
    rng = kit.rng
    font = kit.font(rng.choice(("fonts-lato", "fonts-cantarell", "fonts-mplus", "fonts-cardo")), rng.randint(24, 34))
    bold = kit.font("fonts-lato", font.size, 1)
    widths = [max(font.getlength(row[i]) for row in [heads, *rows]) * 1.15 + 46 for i in range(len(heads))]
    tall = font.size * 1.9
    top = 2.6 * tall
    image = Image.new("RGB", (round(sum(widths)) + 80, round(top + tall * (len(rows) + 1) + 50)), "white")
    pen = ImageDraw.Draw(image)
    pen.text((40, 0.7 * tall), title, font=bold.font_variant(size=round(font.size * 1.3)), fill=(25, 30, 40))
    striped = rng.random() < 0.5
    for r, row in enumerate([heads, *rows]):
        y, x = top + r * tall, 40.0
        if r == 0 or (striped and r % 2 == 0):
            pen.rectangle((40, y, 40 + sum(widths), y + tall), fill=(68, 114, 196) if r == 0 else (221, 232, 247))
        for cell, wide in zip(row, widths, strict=True):
            if not striped:
                pen.rectangle((x, y, x + wide, y + tall), outline=(170, 170, 170))
            pen.text(
                (x + 14, y + 0.22 * tall), cell, font=bold if r == 0 else font, fill="white" if r == 0 else (30, 30, 30)
            )
            x += wide
    return image, ask


def draw_dialog(kit: Kit, title: str, message: str, buttons: list[str], ask: Asked) -> Drawn:
    """A window on a desktop."""
    rng = kit.rng
    width, height = rng.randint(800, 1280), rng.randint(560, 800)
    image = Image.new("RGB", (width, height), rng.choice(((0, 95, 125), (52, 73, 94), (98, 60, 110), (200, 208, 214))))
    pen = ImageDraw.Draw(image)
    font = kit.font(rng.choice(("fonts-cantarell", "fonts-lato", "fonts-mplus")), 25)
    bold = kit.font("fonts-cantarell", 26, 1)
    lines = message.split("\n")
    wide = max([font.getlength(each) for each in lines] + [460.0]) + 90
    tall = 190 + 42 * len(lines)
    x, y = (width - wide) / 2, (height - tall) / 2
    pen.rounded_rectangle((x, y, x + wide, y + tall), 12, fill=(246, 246, 247), outline=(120, 120, 125))
    pen.rounded_rectangle((x, y, x + wide, y + 52), 12, fill=(222, 222, 226))
    pen.text((x + 24, y + 9), title, font=bold, fill=(30, 30, 35))
    for i, each in enumerate(lines):
        pen.text((x + 40, y + 84 + 42 * i), each, font=font, fill=(40, 40, 45))
    right = x + wide - 30
    for place, label in enumerate(reversed(buttons)):
        size = font.getlength(label) + 44
        fill = (53, 132, 228) if place == 0 else (228, 228, 232)
        pen.rounded_rectangle((right - size, y + tall - 72, right, y + tall - 22), 8, fill=fill)
        pen.text((right - size + 22, y + tall - 64), label, font=font, fill="white" if place == 0 else (30, 30, 35))
        right -= size + 18
    return image, ask


def draw_poster(kit: Kit, title: str, facts: list[str], ask: Asked) -> Drawn:
    rng = kit.rng
    width, height = rng.randint(620, 860), rng.randint(860, 1150)
    low = np.array([rng.randint(20, 120) for _ in range(3)])
    high = np.array([rng.randint(120, 235) for _ in range(3)])
    slope = np.linspace(0, 1, height)[:, None, None]
    image = Image.fromarray(np.broadcast_to(low + (high - low) * slope, (height, width, 3)).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    font = kit.any_font(110)
    while font.getlength(title) > width - 80:
        font = font.font_variant(size=round(font.size * 0.9))
    pen.text(((width - font.getlength(title)) / 2, height * 0.1), title, font=font, fill="white")
    for _ in range(3):
        x, y, r = rng.uniform(0.2, 0.8) * width, rng.uniform(0.4, 0.55) * height, rng.uniform(0.05, 0.1) * width
        pen.ellipse((x - r, y - r, x + r, y + r), outline="white", width=5)
    body = kit.font(rng.choice(("fonts-lato", "fonts-cardo", "fonts-comic-neue")), 40, 1)
    for i, fact in enumerate(facts):
        y = height * 0.7 + i * 62
        pen.rectangle((0, y - 6, width, y + 54), fill=tuple(int(c * 0.5) for c in low))
        pen.text(((width - body.getlength(fact)) / 2, y), fact, font=body, fill="white")
    return as_jpeg(image), ask


def draw_all(folder: Path, fetch: Callable[[str], Path], edition: str = "a") -> list[dict[str, Any]]:
    """Draws every image of an edition, a to i, into the folder; returns the entries of its ``truth.json``."""
    from benchmarks.talking_charts import draw_charts
    from benchmarks.talking_pages import draw_pages

    truths: list[dict[str, Any]] = []
    parts: list[Iterator[tuple[str, Drawn]]] = [_draw_words(fetch), draw_pages(fetch), draw_charts(fetch)]
    if edition != "a":
        parts = [import_module(f"benchmarks.talking_edition_{edition}").EDITION.draw_images(fetch)]
    for found in parts:
        for group, (image, asked) in found:
            file = f"{len({row['file'] for row in truths}) + 1:03d}.png"
            image.convert("RGB").save(folder / file)
            for row in asked:
                cannot = row["form"] == "cannot tell"
                kept = {key: value for key, value in row.items() if value or (key == "answers" and not cannot)}
                truths.append({"file": file, **kept, "group": "cannot tell" if cannot else group})
    return truths


def _draw_words(fetch: Callable[[str], Path]) -> Iterator[tuple[str, Drawn]]:
    for words in SIGNS:
        yield "signs", draw_sign(Kit(fetch, f"sign {words}"), words)
    faces = [(package, place) for package, names in FACES.items() for place in range(len(names))]
    for i, word in enumerate(WORDS):
        kit = Kit(fetch, f"word {word}")
        shown = word if i % 3 else word.upper() if i % 2 else word.lower()
        yield "other fonts", draw_word(kit, *faces[i % len(faces)], shown)
