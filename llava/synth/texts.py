"""Images to read: single words, lines, forms and receipts, signs and screens."""

from __future__ import annotations

import random

from PIL import ImageFont

from llava.synth import words
from llava.synth.drawing import Drawing, vary_color
from llava.synth.scene import Scene, Turn, Type, article, choose, draw_light, draw_paper, draw_type

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
FORM_KEYS = (
    "Name City Date Phone Age Code Room Street Email Country Item Number Price Order Status Owner Team Year Floor Seat "
    "Gate Flight Train Model Size Weight Height Speed Level Score Grade Class Amount Tax Discount Balance Account"
).split()
RECEIPT_ITEMS = (
    "Bread Milk Tea Coffee Cake Soup Rice Fish Eggs Salt Juice Apple Pear Plum Lemon Pasta Pizza Salad Honey Cheese "
    "Butter Beans Corn Nuts Pie Jam Water Soda Sugar Flour Ham Beef Pork Lamb Curry Toast Bagel Muffin Cookie Tuna"
).split()
PLATE_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white")
# Type sizes in pixels of the image: large, medium, small.
TYPE_SIZES = {"large": (23, 34), "medium": (16, 22), "small": (12, 15)}


def draw_words(rng: random.Random, width: int, height: int, held_out: bool, size: str | None = None) -> Scene:
    """One word, number or code at a random place; ``size`` is a key of ``TYPE_SIZES``, by default random."""
    ground, ink = draw_paper(rng)
    drawing = Drawing(rng, width, height, ground)
    size = size or rng.choice(("large", "medium", "medium", "small"))
    low, high = TYPE_SIZES[size]
    text = words.draw_content(rng, held_out)
    for _ in range(40):
        kind = draw_type(rng, rng.randint(low, high))
        wide, tall = drawing.measure(text, kind.font)
        if wide <= width - 4 and tall <= height:
            break
        text = words.draw_content(rng, held_out, max_letters=max(3, int(len(text) * (width - 4) / wide)))
    x, y = rng.uniform(2, max(2.0, width - wide - 2)), rng.uniform(0, max(0.0, height - tall))
    drawing.write(x, y, text, kind.font, ink)
    scene = Scene("words", drawing, f"The text says {text}")
    question = choose(rng, "What is written?", "What does the text say?", "What is written in the picture?",
                    "Read the text.", "What does it say?")  # fmt: skip
    scene.turns.append(Turn(question, text, f"{size} type"))
    scene.turns.append(Turn("What color is the text?", ink, "text color"))
    return scene


def draw_lines(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """One to six lines of text; in three of four images one of them has a colour of its own."""
    ground, usual_ink = draw_light(rng), rng.choice(("black", "black", "blue", "brown"))
    drawing = Drawing(rng, width, height, ground)
    kind = draw_type(rng, rng.randint(13, 20))
    gap = kind.line_px * rng.uniform(1.0, 1.5)
    most = max(1, min(6, int((height - 4) / gap)))
    count = rng.randint(min(2, most), most)
    y = rng.uniform(1, max(1.5, height - count * gap))
    x = rng.uniform(2, 10)
    odd = rng.randrange(count) if rng.random() < 0.75 else -1
    odd_ink = rng.choice([c for c in ("red", "green", "blue", "purple", "orange", "pink") if c != usual_ink])
    lines: list[tuple[str, str]] = []
    while len(lines) < count:
        text = words.draw_content(rng, held_out)
        if rng.random() < 0.35:
            text += " " + words.draw_content(rng, held_out)
        if kind.font.getlength(text) > width - x - 2:
            text = words.draw_content(rng, held_out, max_letters=max(3, int((width - x - 2) / (kind.font.size * 0.75))))
            if kind.font.getlength(text) > width - x - 1:
                text = text[: max(2, int(len(text) * (width - x - 1) / kind.font.getlength(text)))]
        if text in [line for line, _ in lines]:
            continue
        ink = odd_ink if len(lines) == odd else usual_ink
        drawing.write(x, y + len(lines) * gap, text, kind.font, ink)
        lines.append((text, ink))
    scene = Scene("lines", drawing, "The text says " + " / ".join(text for text, _ in lines))
    for i in rng.sample(range(count), min(3, count)):
        text = lines[i][0]
        nth = ORDINALS[i]
        question = choose(
            rng, f"What does the {nth} line say?", f"What is written on the {nth} line?", f"Read line {i + 1}."
        )
        scene.turns.append(Turn(question, text, "n-th line"))
    if odd >= 0:
        scene.turns.append(Turn(choose(rng, f"What does the {odd_ink} line say?", f"What is written in {odd_ink}?"),
                                lines[odd][0], "colored line"))  # fmt: skip
    text, ink = rng.choice(lines)
    scene.turns.append(Turn(f"What color is the text {text}?", ink, "text color"))
    scene.turns.append(
        Turn(choose(rng, "How many lines are there?", "How many lines of text are there?"), str(count), "line count")
    )
    return scene


def _form_value(rng: random.Random, receipt: bool, held_out: bool, font: ImageFont.FreeTypeFont, room_px: float) -> str:
    """A value of at most ``room_px`` pixels, a price on a receipt and any kind on a form; "" if 20 tries gave none."""
    for _ in range(20):
        if receipt:
            value = words.draw_price(rng)
        else:
            draw = rng.choice((words.draw_number, words.draw_code, words.draw_date, words.draw_price, None))
            value = draw(rng) if draw else words.draw_word(rng, held_out, 7)
        if font.getlength(value) <= room_px:
            return value
    return ""


def draw_form(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """A form (key: value) or a receipt (item, price, total) of at most six rows."""
    receipt = rng.random() < 0.45
    drawing = Drawing(rng, width, height, draw_light(rng))
    kind = draw_type(rng, rng.randint(12, 17))
    gap = kind.line_px * rng.uniform(1.0, 1.4)
    most = max(2, min(6, int((height - 2) / gap)))
    count = rng.randint(2, most)
    x, y = rng.uniform(2, 8), rng.uniform(0, max(0.5, height - count * gap))
    ink = rng.choice(("black", "black", "black", "blue"))
    own_keys = RECEIPT_ITEMS if receipt else FORM_KEYS
    keys: list[str] = []
    while len(keys) < count:
        key = rng.choice(own_keys) if rng.random() < 0.7 else words.draw_word(rng, held_out, 6).title()
        if key not in keys:
            keys.append(key)
    if receipt and rng.random() < 0.8:
        keys[-1] = "Total"
    rows: list[tuple[str, str]] = []
    aligned = receipt or rng.random() < 0.4
    column = max(kind.font.getlength(k + ":") for k in keys) + x + rng.uniform(5, 14)
    for key in keys:
        label = key if receipt else key + ":"
        left = column if aligned else x + kind.font.getlength(label + " ")
        value = _form_value(rng, receipt, held_out, kind.font, width - 2 - left)
        if not value:
            continue
        if receipt and rng.random() < 0.5:
            left = max(left, width - 4 - kind.font.getlength(value))
        drawing.write(x, y + len(rows) * gap, label, kind.font, ink)
        drawing.write(left, y + len(rows) * gap, value, kind.font, ink)
        rows.append((key, value))
    if not rows:
        return draw_form(rng, width, height, held_out)
    scene = Scene(
        "form", drawing, "The text says " + " / ".join(f"{k} {v}" if receipt else f"{k}: {v}" for k, v in rows)
    )
    for key, value in rng.sample(rows, min(4, len(rows))):
        phrasings = (
            (f"How much is the {key}?", f"What is the price of {key}?", f"What is the {key}?")
            if receipt
            else (f"What is the {key}?", f"What is the value of {key}?", f"What does it say for {key}?")
        )
        scene.turns.append(Turn(choose(rng, *phrasings), value, "form value"))
    return scene


def draw_signs(rng: random.Random, width: int, height: int, held_out: bool) -> Scene:
    """One to four coloured plates with a text each: signs on a ground, or buttons of a window that may have a title."""
    screen = rng.random() < 0.5
    noun = "button" if screen else "sign"
    ground = (
        draw_light(rng)
        if screen or rng.random() < 0.4
        else vary_color(rng, rng.choice(("green", "blue", "gray", "brown")), 40)
    )
    drawing = Drawing(rng, width, height, ground)
    kind = draw_type(rng, rng.randint(13, 22 if width * height > 15000 else 17))
    title = ""
    y = rng.uniform(2, 6)
    if screen and height > 60 and rng.random() < 0.6:
        title = words.draw_word(rng, held_out, 7).title()
        bar_px = kind.line_px + 4
        color = rng.choice(("gray", "black"))
        drawing.box("plate", color, 0, 0, width, bar_px)
        drawing.write(4, 2, title, kind.font, "white" if color == "black" else "black")
        y += bar_px + 2
    plates = _draw_plates(rng, drawing, kind, y, held_out)
    listing = ", ".join(f"{article(color)} {color} {noun} {text}" for color, text in plates)
    scene = Scene("signs", drawing, (f"A window {title} with " if title else "There is ") + listing)
    _ask_about_plates(rng, scene, plates, noun)
    if title:
        scene.turns.append(Turn("What is the title of the window?", title, "window title"))
    return scene


def _draw_plates(rng: random.Random, drawing: Drawing, kind: Type, y: float, held_out: bool) -> list[tuple[str, str]]:
    """Draws plates of different colours from ``y`` downwards; returns the colour and text of each."""
    width, height = drawing.width, drawing.height
    pad = rng.uniform(3, 7)
    tall = kind.line_px + 2 * pad
    most = max(1, min(4, int((height - y) / (tall + 4))))
    count = rng.randint(1, most)
    slack = max(0.0, height - y - count * (tall + 4)) / count
    plates: list[tuple[str, str]] = []
    for color in rng.sample(PLATE_COLORS, count):
        text = words.draw_content(rng, held_out)
        if kind.font.getlength(text) > width - 2 * pad - 6:
            text = words.draw_content(rng, held_out, max_letters=max(3, int((width - 2 * pad - 6) / kind.font.size)))
        wide = kind.font.getlength(text) + 2 * pad
        left = rng.uniform(2, max(2.5, width - wide - 2))
        y += rng.uniform(0, slack)
        drawing.box(
            "plate", color, left, y, left + wide, y + tall, round_px=rng.choice((0, 3, 6)), outline=(90, 90, 90)
        )
        ink = "black" if color in ("yellow", "white", "orange", "pink") else "white"
        drawing.write(left + pad, y + pad, text, kind.font, ink)
        plates.append((color, text))
        y += tall + 4
    return plates


def _ask_about_plates(rng: random.Random, scene: Scene, plates: list[tuple[str, str]], noun: str) -> None:
    count = len(plates)
    for color, text in plates:
        if count == 1:
            question = choose(
                rng,
                f"What does the {noun} say?",
                f"What is written on the {noun}?",
                f"What does the {color} {noun} say?",
            )
        else:
            question = choose(rng, f"What does the {color} {noun} say?", f"What is written on the {color} {noun}?")
        scene.turns.append(Turn(question, text, "sign text"))
    color, text = rng.choice(plates)
    what = f"What color is the {noun}?" if count == 1 else f"What color is the {noun} {text}?"
    scene.turns.append(Turn(what, color, "sign color"))
    scene.turns.append(Turn(f"How many {noun}s are there?", str(count), "sign count"))
