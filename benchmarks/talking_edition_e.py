"""The looks of edition e of the drawn suite: the everyday things of edition d as other hands would make them.

Boards that hang over a door, displays of a bus, exercise books, web forms, bills of an app, menus on slate, chats, and
charts as Google Sheets, ggplot2 and newspapers draw them. No face belongs to a package that training draws in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.talking_drawings import Drawn, as_jpeg, text, wall
from benchmarks.talking_edition_e_figures import draw_chart, draw_shapes, draw_table, draw_window
from benchmarks.talking_edition_e_parts import DEEP, FACES, HAND, PRINT, SCREEN, SHOWN, Style, on_ground, set_lines
from benchmarks.talking_editions import (
    DARK,
    LIGHT,
    Color,
    Edition,
    Font,
    Pad,
    Page,
    add_grain,
    break_words,
    fit,
    fit_all,
    paint_slope,
    photograph,
    write,
)


def draw_sign(kit: Pad, page: Page) -> Drawn:
    """A board on chains, an enamelled plate, a glass door, a taped sheet, a board over a motorway, or a display."""
    rng, layout, lines = kit.rng, page.layout, page.lines
    width, height = rng.randint(600, 1300), rng.randint(460, 940)
    packages = {"led": ["fonts-unifont"], "taped": HAND, "hung": SHOWN, "glass": SHOWN}.get(layout, PRINT)
    font = kit.pick(packages, min(0.15 * height, 0.52 * height / (1.4 * len(lines))) * rng.uniform(0.8, 1), 1)
    font = fit_all(font, lines, 0.64 * width)
    step, wide = 1.4 * font.size, max(map(font.getlength, lines)) + 1.8 * font.size
    tall = step * len(lines) + 0.8 * font.size
    left, top = (width - wide) * rng.uniform(0.35, 0.65), (height - tall) * rng.uniform(0.4, 0.6)
    if layout == "glass":
        image = paint_slope(width, height, (52, 70, 82), (112, 132, 140)).filter(ImageFilter.GaussianBlur(2))
    elif layout == "gantry":
        image = paint_slope(width, height, (150, 186, 224), (226, 232, 236))
    else:
        image = wall(rng, width, height)
    pen, box = ImageDraw.Draw(image), (left, top, left + wide, top + tall)
    ink: Any = LIGHT
    if layout == "hung":
        pen.line((0, 0.05 * height, width, 0.05 * height), fill=(40, 36, 34), width=14)
        for x in (left + 0.15 * wide, left + 0.85 * wide):
            for y in np.arange(0.05 * height, top, 18):
                pen.ellipse((x - 5, y, x + 5, y + 20), outline=(36, 34, 32), width=3)
        fill, ink = rng.choice(
            (((58, 40, 30), (240, 214, 150)), ((28, 60, 52), LIGHT), ((238, 228, 204), (96, 26, 30)))
        )
        pen.rounded_rectangle(box, 22, fill=fill, outline=ink, width=6)
    elif layout == "enamel":
        fill, ink = rng.choice((((20, 58, 132), LIGHT), ((250, 250, 246), DARK), ((250, 250, 246), (158, 22, 30))))
        pen.rectangle(box, fill=fill)
        pen.rectangle((left + 9, top + 9, box[2] - 9, box[3] - 9), outline=ink, width=4)
        for x, y in (
            (left + 22, top + 22),
            (box[2] - 22, top + 22),
            (left + 22, box[3] - 22),
            (box[2] - 22, box[3] - 22),
        ):
            pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=(150, 150, 146))
    elif layout == "gantry":
        pen.rectangle((0, 0.88 * height, width, height), fill=(92, 94, 98))
        for x in (left + 0.1 * wide, left + 0.9 * wide):
            pen.rectangle((x - 8, 0, x + 8, top), fill=(128, 132, 136))
        pen.rounded_rectangle(box, 16, fill=rng.choice(((0, 88, 160), (0, 104, 72))), outline=LIGHT, width=6)
    elif layout == "led":
        pen.rounded_rectangle(box, 10, fill=(12, 12, 14), outline=(70, 72, 76), width=8)
        ink = rng.choice(((255, 176, 32), (255, 96, 60), (120, 240, 120)))
    elif layout == "taped":
        pen.rectangle((left + 8, top + 10, box[2] + 8, box[3] + 10), fill=tuple(v // 2 for v in image.getpixel((5, 5))))  # type: ignore[union-attr]
        pen.rectangle(box, fill=rng.choice(((252, 252, 250), (252, 246, 180), (236, 244, 250))))
        for x in (left, box[2]):
            pen.rectangle((x - 34, top - 12, x + 34, top + 16), fill=(222, 214, 176))
        ink = rng.choice((DARK, (26, 44, 140), (180, 24, 32)))
    else:
        pen.rectangle((6, 6, width - 6, height - 6), outline=(176, 180, 184), width=14)
        pen.rectangle((width - 70, 0.4 * height, width - 46, 0.62 * height), fill=(196, 200, 204))
        for x in (0.12 * width, 0.3 * width):
            pen.polygon(((x, 20), (x + 60, 20), (x - 90, height - 20), (x - 150, height - 20)), fill=(88, 108, 118))
    for i, line in enumerate(lines):
        write(pen, left + wide / 2, top + 0.45 * font.size + i * step, line, font, ink, "m")
    return as_jpeg(add_grain(kit, image, 4), 86), page.asked


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word on a band, in a frame, on stripes, or on a slanted slip of paper."""
    rng, word = kit.rng, page.lines[0]
    kind, tint = rng.choice(("band", "frame", "stripes", "slip")), rng.choice(DEEP)
    width, height = rng.randint(460, 1000), rng.randint(400, 700)
    font = fit(font.font_variant(size=round(rng.uniform(0.15, 0.25) * height)), word, 0.72 * width)
    image = Image.new("RGB", (width, height), rng.choice(((250, 248, 244), (226, 234, 236), (244, 232, 222))))
    pen, y, ink = ImageDraw.Draw(image), rng.uniform(0.25, 0.6) * (height - 1.6 * font.size), tint
    if kind == "band":
        pen.rectangle((0, y - 0.4 * font.size, width, y + 1.7 * font.size), fill=tint)
        ink = (252, 252, 250)
    elif kind == "frame":
        pen.rectangle((24, 24, width - 24, height - 24), outline=tint, width=8)
    elif kind == "stripes":
        for x in range(-height, width, 56):
            pen.line((x, height, x + height, 0), fill=(236, 240, 244), width=18)
        ink = DARK
    else:
        slip = Image.new("RGBA", (round(font.getlength(word) + 1.4 * font.size), round(2.2 * font.size)), "white")
        write(ImageDraw.Draw(slip), slip.width / 2, 0.4 * font.size, word, font, DARK, "m")
        slip = slip.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True)
        image = Image.new("RGB", (max(width, slip.width + 20), height), tint)
        image.paste(slip, ((image.width - slip.width) // 2, round(y)), slip)
    if kind != "slip":
        write(pen, rng.uniform(0.12, 0.88) * (width - font.getlength(word)), y, word, font, ink)
    questions = ("Read this for me.", "What does it say here?", "Which words do you see?", "what's the text")
    return as_jpeg(add_grain(kit, image, 2), 90), [text(rng.choice(questions), word)]


def draw_receipt(kit: Pad, page: Page) -> Drawn:
    """A till's slip, a torn one, an invoice with a coloured head, or the bill of an app."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(DEEP)
    width = rng.randint(660, 820) if layout == "invoice" else rng.randint(390, 540)
    size = width / (23 if layout == "invoice" else 16)
    body = kit.pick(["fonts-unifont", "fonts-seto"] if layout == "till" else SCREEN, size)
    if layout == "invoice":
        head = Page("", [f"! {page.title}"])
        sheet = set_lines(page.lines[1:], width, body, kit.plain(size, 1), Style())
        paper = on_ground(sheet, (255, 255, 255), 56, 110)
        ImageDraw.Draw(paper).rectangle((0, 0, paper.width, 120), fill=tint)
        title = set_lines(head.lines, width, body, kit.plain(size, 1), Style(accent=LIGHT))
        paper.paste(title, (56, 30), title)
        return paper, page.asked
    # the head of a slip is in the middle, what was bought is not
    cut = page.lines.index("---")
    sheets = [
        set_lines(page.lines[:cut], width, body, kit.pick(SCREEN, size, 1), Style(at="m")),
        set_lines(page.lines[cut:], width, body, kit.pick(SCREEN, size, 1), Style()),
    ]
    sheet = Image.new("RGBA", (width, sum(each.height for each in sheets)), (255, 255, 255, 0))
    sheet.paste(sheets[0], (0, 0))
    sheet.paste(sheets[1], (0, sheets[0].height))
    paper = on_ground(sheet, (252, 252, 250), 46)
    if layout == "phone":
        back = Image.new("RGB", (paper.width + 60, paper.height + 170), (236, 239, 243))
        ImageDraw.Draw(back).rectangle((0, 0, back.width, 76), fill=tint)
        back.paste(paper, (30, 110))
        return back, page.asked
    if layout == "torn":
        teeth = [(x, paper.height - (12 if i % 2 else 0)) for i, x in enumerate(range(0, paper.width + 12, 12))]
        back = Image.new("RGB", (paper.width + 120, paper.height + 120), rng.choice(((182, 168, 150), (90, 110, 122))))
        mask = Image.new("L", paper.size, 0)
        ImageDraw.Draw(mask).polygon([(0, 0), (paper.width, 0), *reversed(teeth)], fill=255)
        back.paste(paper, (60, 60), mask)
        return as_jpeg(add_grain(kit, back, 5), 84), page.asked
    return photograph(kit, paper), page.asked


def draw_lines(kit: Pad, page: Page) -> Drawn:
    """A page of an exercise book, a blackboard, a packet, or a postcard."""
    rng, layout, lines = kit.rng, page.layout, page.lines
    width = rng.randint(520, 800)
    font = fit_all(kit.pick(PRINT if layout == "packet" else HAND, width / 11), lines, 0.84 * width)
    step = (2.0 if layout == "packet" else 1.8) * font.size
    height, left = round(max(380, step * len(lines) + 160)), 0.1 * width
    image = Image.new("RGB", (width, height), (252, 252, 248))
    ink: Any = (28, 42, 120)
    if layout == "chalk":
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 26, (height // 8, width // 8))
        haze = Image.fromarray((52 + noise).clip(20, 110).astype(np.uint8)).resize((width, height))
        image = Image.merge("RGB", (haze.point(lambda v: v * 3 // 4), haze, haze.point(lambda v: v * 5 // 6)))
        image = image.filter(ImageFilter.GaussianBlur(12))
        ImageDraw.Draw(image).rectangle((0, 0, width - 1, height - 1), outline=(140, 104, 66), width=18)
        ink = (240, 240, 232)
    pen = ImageDraw.Draw(image)
    if layout == "packet":
        tint, ink = rng.choice(DEEP), DARK
        pen.rectangle((0, 0, width, 40), fill=tint)
        pen.rectangle((0, height - 40, width, height), fill=tint)
    elif layout == "postcard":
        pen.rectangle((14, 14, width - 14, height - 14), outline=(196, 120, 96), width=3)
    for i, line in enumerate(lines):
        y = 80 + i * step
        if layout == "notebook":
            pen.line((0, y + 1.2 * font.size, width, y + 1.2 * font.size), fill=(176, 200, 226), width=2)
        write(pen, left + (0.05 * width if layout == "notebook" else 0), y, line, font, ink)
    if layout == "notebook":
        pen.line((left, 0, left, height), fill=(226, 120, 126), width=3)
    return (image if layout in ("packet", "chalk") else photograph(kit, image)), page.asked


def draw_form(kit: Pad, page: Page) -> Drawn:
    """A form of a web page, one to fill in by hand, or a panel of a program."""
    rng, layout = kit.rng, page.layout
    width, tint = rng.randint(560, 820), rng.choice(DEEP)
    size = width / 24
    pairs = {"stacked": "below", "dotted": "dotted", "panel": "tab"}[layout]
    body = kit.pick(SCREEN if layout == "stacked" else PRINT, size)
    style = Style(accent=tint, pairs=pairs, value=(20, 36, 130) if layout == "dotted" else None)
    sheet = set_lines(page.lines, width, body, kit.plain(size, 1), style)
    paper = on_ground(sheet, {"stacked": (248, 249, 252), "dotted": (250, 248, 240)}.get(layout, (255, 255, 255)), 58)
    if layout == "dotted":
        return photograph(kit, paper), page.asked
    if layout == "panel":
        ImageDraw.Draw(paper).rectangle((20, 20, paper.width - 20, paper.height - 20), outline=tint, width=3)
    return paper, page.asked


def draw_menu(kit: Pad, page: Page) -> Drawn:
    """Chalk on slate, prices before the dishes, tiles of a screen over the counter, or a folded card."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(DEEP)
    width = rng.randint(520, 780)
    size = width / 19
    body, bold = kit.pick(HAND[:2] if layout == "slate" else PRINT, size), kit.plain(size, 1)
    if layout == "screen":
        return _draw_tiles(page, width, body, bold, tint), page.asked
    style = Style(accent=tint, pairs="first" if layout == "front" else "ends")
    if layout == "slate":
        style = Style((236, 236, 230), (255, 196, 120), (170, 172, 170))
    elif layout == "fold":
        style = replace(style, value=tint)
    paper = on_ground(set_lines(page.lines, width, body, bold, style), (38, 42, 48), 70)
    if layout == "slate":
        ImageDraw.Draw(paper).rectangle((0, 0, paper.width - 1, paper.height - 1), outline=(156, 112, 70), width=22)
        return as_jpeg(add_grain(kit, paper, 7), 86), page.asked
    paper = on_ground(set_lines(page.lines, width, body, bold, style), (255, 253, 247), 70)
    if layout == "fold":
        light = np.concatenate([np.linspace(1, 0.84, paper.width // 2), np.ones(paper.width - paper.width // 2)])
        paper = Image.fromarray((np.asarray(paper) * light[None, :, None]).astype(np.uint8))
        return photograph(kit, paper), page.asked
    ImageDraw.Draw(paper).rectangle((0, 0, 24, paper.height), fill=tint)
    return paper, page.asked


def _draw_tiles(page: Page, width: int, body: Font, bold: Font, tint: Color) -> Image.Image:
    rows, size = page.rows, body.size
    tall, wide = 4.4 * size, width / 2
    image = Image.new("RGB", (width + 60, max(360, round(4 * size + tall * math.ceil(len(rows) / 2) + 40))), tint)
    pen = ImageDraw.Draw(image)
    write(
        pen,
        image.width / 2,
        size,
        page.title,
        fit(bold.font_variant(size=round(1.8 * size)), page.title, width),
        LIGHT,
        "m",
    )
    for i, (dish, price) in enumerate(rows):
        x, y = 30 + wide * (i % 2), 4 * size + tall * (i // 2)
        pen.rounded_rectangle((x + 6, y + 6, x + wide - 6, y + tall - 6), 12, fill=(252, 250, 246))
        write(pen, x + wide / 2, y + 0.6 * size, dish, fit(body, dish, wide - 30), DARK, "m")
        write(pen, x + wide / 2, y + 2.2 * size, price, bold, tint, "m")
    return image


def draw_card(kit: Pad, page: Page) -> Drawn:
    """A card with a coloured third, a dark one, or one whose lines end at the right."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(DEEP)
    width, height, size = 980, 560, 36
    card = Image.new("RGB", (width, height), (22, 26, 34) if layout == "night" else (254, 253, 250))
    style = Style(accent=tint, at="r" if layout == "flush" else "l")
    if layout == "night":
        style = Style(LIGHT, (226, 186, 96), (180, 182, 186))
    inner = 600 if layout == "third" else 820
    sheet = set_lines(page.lines, inner, kit.plain(size), kit.plain(size, 1), style)
    pen = ImageDraw.Draw(card)
    if layout == "third":
        pen.rectangle((0, 0, 300, height), fill=tint)
        for radius in (90, 60, 30):
            pen.ellipse((150 - radius, 280 - radius, 150 + radius, 280 + radius), outline=LIGHT, width=8)
    elif layout == "night":
        pen.line((80, height - 50, width - 80, height - 50), fill=(226, 186, 96), width=4)
    else:
        pen.polygon(((0, 0), (200, 0), (0, 200)), fill=tint)
    card.paste(sheet, (340 if layout == "third" else 80, round((height - sheet.height) / 2)), sheet)
    return (photograph(kit, card) if rng.random() < 0.5 else card), page.asked


def draw_poster(kit: Pad, page: Page) -> Drawn:
    """A disk behind the title, slanted stripes, a frame of two lines, or a sky at night."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(DEEP)
    width = rng.randint(600, 820)
    height = round(1.5 * width) if layout == "disk" else rng.randint(820, 1080)
    image = Image.new("RGB", (width, height), (250, 244, 230) if layout == "disk" else (254, 254, 252))
    if layout == "night":
        image = paint_slope(width, height, (10, 14, 44), (52, 50, 104))
    pen, style = ImageDraw.Draw(image), Style(accent=tint, at="m")
    if layout == "disk":
        pen.ellipse((0.12 * width, 0.08 * height, 0.88 * width, 0.08 * height + 0.76 * width), fill=tint)
        style = replace(style, accent=LIGHT)
    elif layout == "stripe":
        for x in range(-height, width, 90):
            pen.line((x, height, x + height, 0), fill=(236, 238, 242), width=40)
        pen.rectangle((0, 0, width, 26), fill=tint)
        pen.rectangle((0, height - 26, width, height), fill=tint)
    elif layout == "border":
        for inset in (26, 40):
            pen.rectangle((inset, inset, width - inset, height - inset), outline=tint, width=4)
    else:
        style = Style(LIGHT, (255, 226, 140), at="m")
        for _ in range(70):
            left, top, wide = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 6)
            pen.ellipse((left, top, left + wide, top + wide), fill=(220, 224, 250))
    bold = kit.pick(SHOWN, width / 10, 1)
    title = break_words(page.title, 14)
    bold = fit_all(bold, title, (0.6 if layout == "disk" else 0.8) * width)
    y = 0.08 * height + 0.38 * width - 0.75 * bold.size * len(title) if layout == "disk" else 0.14 * height
    for i, line in enumerate(title):
        write(pen, width / 2, y + 1.35 * bold.size * i, line, bold, style.accent, "m")
    body = fit_all(kit.plain(width / 15), page.rest, 0.78 * width)
    sheet = set_lines(page.rest, round(0.84 * width), body, body, style)
    top = max(0.6 * height, 0.08 * height + 0.82 * width) if layout == "disk" else 0.42 * height
    image.paste(sheet, (round(0.08 * width), round(min(top, height - 50 - sheet.height))), sheet)
    return (photograph(kit, image) if rng.random() < 0.3 else as_jpeg(image, 88)), page.asked


_DRAW: dict[str, Callable[[Pad, Page], Drawn]] = {
    "signs": draw_sign,
    "lines": draw_lines,
    "forms": draw_form,
    "receipts": draw_receipt,
    "menus": draw_menu,
    "business cards": draw_card,
    "tables": draw_table,
    "windows": draw_window,
    "posters": draw_poster,
    "charts": draw_chart,
    "shapes": draw_shapes,
}
EDITION = Edition(letter="e", faces=FACES, plain=PRINT, draw_word=draw_word, draw=_DRAW)
