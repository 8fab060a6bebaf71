"""Lines, forms and receipts at full size, as they are scanned, photographed from above, or shown on a screen."""

from __future__ import annotations

import random
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from llava.synth import words
from llava.synth.full_size.full_size_item import Color, FullSizeItem, compress
from llava.synth.full_size.typefaces import Typeface
from llava.synth.paper import draw_texture
from llava.synth.texts import FORM_KEYS, ORDINALS, RECEIPT_ITEMS
from llava.synth.truth import Truth

_INKS: dict[str, Color] = {
    "red": (200, 30, 30),
    "blue": (30, 60, 190),
    "green": (20, 130, 50),
    "purple": (120, 40, 160),
}
# Fields whose absence no other field makes doubtful, as an amount would that of a price.
_ABSENT = "Name City Date Phone Age Street Email Country Floor Seat Gate Flight Train Height Speed".split()
_FORMS = ("Registration", "Order", "Delivery note", "Visitor pass", "Membership", "Application", "Invoice", "Booking")


def _draw_sheet(rng: random.Random, width: int, height: int) -> Image.Image:
    """A white, tinted or rough sheet."""
    if rng.random() < 0.5:
        return Image.new("RGB", (width, height), rng.choice(((255, 255, 255), (252, 250, 244), (246, 246, 248))))
    base = rng.randint(220, 245)
    return draw_texture(rng, width, height, (base, base - 2, base - rng.randint(0, 16)), rng.uniform(2, 9))


def _draw_texts(rng: random.Random, count: int) -> list[str]:
    """Different lines of one to four words, numbers or codes."""
    texts: list[str] = []
    while len(texts) < count:
        parts = [words.draw_word(rng, True, 9) for _ in range(rng.choice((1, 2, 2, 3)))]
        if rng.random() < 0.3:
            parts.append(rng.choice((words.draw_number, words.draw_code))(rng))
        text = " ".join(parts)
        if text.lower() not in [each.lower() for each in texts]:
            texts.append(text)
    return texts


def draw_lines_item(rng: random.Random) -> FullSizeItem:
    """Four to eight lines of text, in three of four images one of them in a colour, and a question about one."""
    width = rng.randint(500, 1300)
    size = rng.randint(20, 44)
    face = Typeface(rng)
    font = face.load(size)
    gap = round(size * rng.uniform(1.3, 2.0))
    texts = _draw_texts(rng, rng.randint(4, 8))
    margin = rng.randint(20, 70)
    texts = [text for text in texts if font.getlength(text) < width - 2 * margin] or [texts[0][:8]]
    height = max(400, len(texts) * gap + 2 * margin)
    image = _draw_sheet(rng, width, height)
    pen = ImageDraw.Draw(image)
    odd = rng.randrange(len(texts)) if rng.random() < 0.75 else -1
    ink_name = rng.choice(list(_INKS))
    for i, text in enumerate(texts):
        pen.text((margin, margin + i * gap), text, font=font, fill=_INKS[ink_name] if i == odd else (25, 25, 30))
    place = rng.randrange(len(texts))
    names = [ORDINALS[place]] + (["last"] if place == len(texts) - 1 else [])
    questions = [f"What does the {name} line say?" for name in names] + [f"Read the {names[0]} line."]
    if odd >= 0 and rng.random() < 0.4:
        place, questions = odd, [f"What is written in {ink_name}?", f"What does the {ink_name} line say?"]
    others = tuple(text for i, text in enumerate(texts) if i != place)
    return FullSizeItem(compress(rng, image), rng.choice(questions), Truth((texts[place],), "text", others))


def _draw_value(rng: random.Random, key: str) -> str:
    if key in ("Name", "City", "Street", "Country", "Owner", "Team"):
        return words.draw_word(rng, True, 9).title()
    if key == "Date":
        return words.draw_date(rng)
    if key in ("Price", "Amount", "Tax", "Discount", "Balance"):
        return f"${rng.randrange(1, 400)}.{rng.randrange(100):02d}"
    return rng.choice((words.draw_number, words.draw_code))(rng)


def draw_form_item(rng: random.Random, *, absent: bool = False) -> FullSizeItem:
    """A form with a title and six to ten fields. ``absent``: the question is about a field that it does not have."""
    width = rng.randint(560, 1300)
    size = rng.randint(20, 36)
    face = Typeface(rng)
    font, bold = face.load(size), face.load(size * 1.5)
    keys = rng.sample(FORM_KEYS, rng.randint(6, 10))
    values: list[str] = []
    while len(values) < len(keys):
        value = _draw_value(rng, keys[len(values)])
        if value not in values:
            values.append(value)
    gap = round(size * rng.uniform(1.6, 2.4))
    margin = rng.randint(24, 60)
    height = margin * 2 + gap * (len(keys) + 2)
    image = _draw_sheet(rng, width, height)
    pen = ImageDraw.Draw(image)
    pen.text((margin, margin), f"{rng.choice(_FORMS)} form", font=bold, fill=(25, 25, 30))
    column = margin + max(font.getlength(key + ":") for key in keys) + rng.randint(20, 80)
    boxed = rng.random() < 0.5
    for i, (key, value) in enumerate(zip(keys, values, strict=True)):
        y = margin + (i + 2) * gap
        pen.text((margin, y), key + ":", font=font, fill=(60, 60, 70))
        if boxed:
            pen.rectangle((column - 10, y - 4, min(width - margin, column + 320), y + size * 1.35), outline=(130,) * 3)
        pen.text((column, y), value, font=font, fill=(20, 30, 110) if boxed else (20, 20, 20))
    if absent:
        key = rng.choice([key for key in _ABSENT if key not in keys and not (key == "Name" and "Owner" in keys)])
        return FullSizeItem(compress(rng, image), f"What is the {key.lower()}?", Truth(form="cannot tell"))
    place = rng.randrange(len(keys))
    key, value = keys[place], values[place]
    question = rng.choice(
        (f"What is the {key.lower()}?", f"What does it say for {key}?", f"What is the value of {key}?")
    )
    others = tuple(other for other in values if other != value)
    return FullSizeItem(compress(rng, image), question, Truth((value,), "text", others))


def draw_receipt_item(rng: random.Random) -> FullSizeItem:
    """A receipt with shop, date, four to eight items and the total, and a question about one of these."""
    width = rng.randint(420, 800)
    size = round(width / rng.uniform(18, 26))
    face = Typeface(rng)
    font, big = face.load(size), face.load(size * 1.6)
    shop = f"{words.draw_word(rng, True, 9).title()} {rng.choice(('Market', 'Bakery', 'Store', 'Cafe', 'Shop'))}"
    items = rng.sample(RECEIPT_ITEMS, rng.randint(4, 8))
    cents = rng.sample(range(80, 2500), len(items))
    date = f"{rng.randrange(1, 29):02d}.{rng.randrange(1, 13):02d}.{rng.randrange(2015, 2030)}"
    gap = round(size * 1.5)
    height = max(400, gap * (len(items) + 9))
    image = _draw_sheet(rng, width, height)
    pen = ImageDraw.Draw(image)
    ink, margin = (30, 30, 30), round(width * 0.08)

    def center(y: float, text: str, used: ImageFont.FreeTypeFont) -> None:
        pen.text(((width - used.getlength(text)) / 2, y), text, font=used, fill=ink)

    def row(y: float, left: str, right: str, used: ImageFont.FreeTypeFont) -> None:
        pen.text((margin, y), left, font=used, fill=ink)
        pen.text((width - margin - used.getlength(right), y), right, font=used, fill=ink)

    center(gap, shop, big if big.getlength(shop) < width - 2 * margin else font)
    center(gap * 2.6, date, font)
    prices = [f"{cent // 100}.{cent % 100:02d}" for cent in cents]
    total = f"{sum(cents) // 100}.{sum(cents) % 100:02d}"
    for i, (item, price) in enumerate(zip(items, prices, strict=True)):
        row(gap * (4.2 + i), item, price, font)
    y = gap * (4.6 + len(items))
    pen.line((margin, y, width - margin, y), fill=ink, width=2)
    row(y + gap * 0.3, "TOTAL", total, face.load(size * 1.2))
    center(y + gap * 2.4, "Thank you!", font)
    return FullSizeItem(
        compress(rng, image), *_ask_receipt(rng, shop, date, dict(zip(items, prices, strict=True)), total)
    )


def _ask_receipt(rng: random.Random, shop: str, date: str, prices: dict[str, str], total: str) -> tuple[str, Truth]:
    everything: Sequence[str] = [*prices.values(), total]
    kind = rng.choice(("price", "price", "price", "total", "total", "date", "shop"))
    if kind == "price":
        item = rng.choice(list(prices))
        question = rng.choice((f"How much is the {item.lower()}?", f"What does the {item.lower()} cost?"))
        right = prices[item]
    elif kind == "total":
        question, right = rng.choice(("What is the total?", "How much did it cost in all?")), total
    elif kind == "date":
        return rng.choice(("What is the date?", "On which day was this bought?")), Truth((date,), "text")
    else:
        return "What is the name of the shop?", Truth((shop, shop.split()[0]), "text", tuple(prices))
    others = tuple(price for price in everything if float(price) != float(right))
    return question, Truth((right,), "text", others)
