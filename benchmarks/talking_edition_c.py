"""The looks of edition c of the drawn suite: layouts and faces other than those of editions a and b.

Papers are photographed: seen from an angle, unevenly lit, with a camera's noise. No face belongs to a package that the
reader or the talking model learns from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.talking_drawings import Drawn, as_jpeg, text
from benchmarks.talking_editions import (
    DARK,
    GREY,
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
    paint_figure,
    paint_slope,
    photograph,
    tick_every,
    write,
)

FACES = {
    "fonts-tiresias": ("tiresias_infofont.ttf", "tiresias_infofont_bold.ttf", "tiresias_signfont.ttf"),
    "fonts-sil-akatab": ("Akatab-Regular.ttf", "Akatab-Bold.ttf"),
    "fonts-smc-gayathri": ("Gayathri-Regular.otf", "Gayathri-Bold.otf"),
    "fonts-morisawa-bizud-gothic": ("BIZUDPGothic-Regular.ttf", "BIZUDPGothic-Bold.ttf", "BIZUDGothic-Regular.ttf"),
    "fonts-sil-padauk": ("Padauk-Regular.ttf", "Padauk-Bold.ttf"),
    "fonts-adf-ikarius": ("IkariusADFStd-Regular.otf", "IkariusADFStd-Bold.otf"),
    "fonts-gemunu-libre": ("GemunuLibre-Medium.otf", "GemunuLibre-Bold.otf"),
    "fonts-sil-annapurna": ("AnnapurnaSIL-Regular.ttf", "AnnapurnaSIL-Bold.ttf"),
    "fonts-dustin": ("Dustismo_Roman.ttf", "Dustismo_Roman_Bold.ttf"),
    "fonts-adf-mekanus": ("MekanusADFStd-Regular.otf", "MekanusADFStd-Bold.otf"),
    "fonts-morisawa-bizud-mincho": ("BIZUDPMincho-Regular.ttf",),
    "fonts-hosny-thabit": ("Thabit.ttf", "Thabit-Bold.ttf"),
    "fonts-dotgothic16": ("DotGothic16-Regular.ttf",),
    "fonts-lemonada": ("Lemonada-Regular.otf", "Lemonada-Bold.otf"),
    "fonts-okolaks": ("okolaksRegular.ttf", "okolaksBold.ttf"),
    "fonts-klaudia-berenika": ("Klaudia.ttf", "Berenika.ttf"),
    "fonts-smc-chilanka": ("Chilanka-Regular.otf",),
    "fonts-yusei-magic": ("YuseiMagic-Regular.ttf",),
    "fonts-rocknroll": ("RocknRollOne-Regular.ttf",),
    "fonts-smiley-sans": ("SmileySans-Oblique.ttf",),
    "fonts-smc-uroob": ("Uroob-Regular.ttf",),
}
_PLAIN = list(FACES)[:8]  # in the others 1 looks like I, or they are no faces for small print
_MONO = ["fonts-hosny-thabit", "fonts-dotgothic16"]
_HAND = ["fonts-smc-chilanka", "fonts-yusei-magic", "fonts-klaudia-berenika"]
_SHOWN = ["fonts-lemonada", "fonts-rocknroll", "fonts-adf-mekanus", "fonts-smiley-sans", *_HAND[1:]]
_STRONG: tuple[Color, ...] = ((96, 52, 140), (0, 112, 122), (186, 58, 76), (34, 84, 160), (30, 116, 72), (150, 84, 18))
_SOFT: tuple[Color, ...] = ((250, 250, 247), (255, 238, 224), (232, 244, 250), (238, 248, 226), (248, 234, 246))
Ink = Any


def draw_sign(kit: Pad, page: Page) -> Drawn:
    """A road sign before the sky, a dot matrix, letters on a glass door or in wood, a label tape, a warning sticker."""
    rng, words = kit.rng, page.lines[0]
    kind = rng.choice(("road", "dots", "glass", "wood", "tape", "warning"))
    width, height = rng.randint(560, 1200), rng.randint(420, 860)
    lines = [words] if kind in ("dots", "tape") else break_words(words, 11)
    faces = {"wood": _SHOWN[:3], "dots": ["fonts-dotgothic16"]}.get(kind, _PLAIN[:7])
    font = fit_all(kit.pick(faces, height * rng.uniform(0.12, 0.18), 1), lines, 0.68 * width)
    wide, step = max(map(font.getlength, lines)) + 1.8 * font.size, 1.3 * font.size
    tall = step * len(lines) + 1.1 * font.size
    left, top = (width - wide) * rng.uniform(0.2, 0.8), (height - tall) * rng.uniform(0.15, 0.6)
    box, ink = (left, top, left + wide, top + tall), LIGHT
    image = _sign_ground(kit, kind, width, height)
    pen = ImageDraw.Draw(image)
    if kind == "road":
        for x in (left + 0.2 * wide, left + 0.8 * wide):
            pen.rectangle((x - 7, top, x + 7, height), fill=(140, 144, 148))
        pen.rounded_rectangle(box, 18, fill=rng.choice(((0, 98, 66), (20, 70, 150), (108, 62, 30))))
        pen.rounded_rectangle((left + 7, top + 7, box[2] - 7, box[3] - 7), 13, outline=LIGHT, width=4)
    elif kind == "dots":
        pen.rectangle(box, fill=(14, 14, 14), outline=(60, 60, 60), width=6)
        ink = rng.choice(((255, 176, 0), (255, 70, 50), (120, 255, 110)))
    elif kind == "tape":
        pen.rectangle(box, fill=rng.choice(_STRONG))
    elif kind == "warning":
        pen.rounded_rectangle(box, 12, fill=(252, 206, 20), outline=DARK, width=6)
        ink = DARK
    else:
        ink = (60, 34, 16) if kind == "wood" else LIGHT
    for i, line in enumerate(lines):
        y = top + 0.5 * font.size + i * step
        if kind == "wood":  # the lit edge of a carved letter
            write(pen, left + wide / 2 + 2, y + 2, line, font, (226, 186, 138), "m")
        write(pen, left + wide / 2, y, line, font, ink, "m")
    questions = ("What is written on this sign?", "Could you read the sign to me?", "What does this sign tell me?")
    return as_jpeg(add_grain(kit, image, 4), 84), [text(rng.choice(questions), words)]


def _sign_ground(kit: Pad, kind: str, width: int, height: int) -> Image.Image:
    rng = kit.rng
    if kind == "road":
        image = paint_slope(width, height, (110, 160, 220), (226, 236, 244))
        ImageDraw.Draw(image).rectangle((0, 0.82 * height, width, height), fill=(96, 128, 66))
        return image
    if kind == "wood":
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 9, (height, 1, 1))
        rows = np.array((178, 128, 80)) + noise + np.zeros((1, width, 1))
        return Image.fromarray(rows.clip(0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    colors = {
        "dots": ((70, 74, 80), (40, 42, 48)),
        "glass": ((58, 84, 92), (30, 44, 52)),
        "tape": ((196, 198, 202),) * 2,
    }
    low, high = colors.get(kind, ((172, 168, 160), (140, 136, 130)))
    image = paint_slope(width, height, low, high)
    if kind == "glass":
        pen, x = ImageDraw.Draw(image), rng.uniform(0, width)
        pen.polygon(((x, 0), (x + 120, 0), (x - 140, height), (x - 260, height)), fill=(72, 98, 106))
        pen.rectangle((width - 34, 0.35 * height, width - 22, 0.65 * height), fill=(190, 192, 194))
    return image


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word with a shadow, in outline, on squared or ruled paper, or photographed."""
    rng, word = kit.rng, page.lines[0]
    kind = rng.choice(("shadow", "outline", "squared", "ruled", "photographed"))
    width, height = rng.randint(420, 960), rng.randint(400, 720)
    font = fit(font.font_variant(size=round(rng.uniform(0.1, 0.2) * height)), word, 0.78 * width)
    strong = rng.choice(_STRONG)
    image = (
        paint_slope(width, height, strong, DARK) if kind == "shadow" else Image.new("RGB", (width, height), _SOFT[0])
    )
    pen = ImageDraw.Draw(image)
    gap = round(0.9 * font.size)
    if kind in ("squared", "ruled"):
        for row in range(gap, height, gap):
            pen.line((0, row, width, row), fill=(188, 206, 226), width=2)
        for column in range(gap, width, gap) if kind == "squared" else (70,):
            pen.line(
                (column, 0, column, height), fill=(188, 206, 226) if kind == "squared" else (230, 150, 150), width=2
            )
    x, y = rng.uniform(0.1, 0.9) * (width - font.getlength(word)), rng.uniform(0.1, 0.8) * (height - 1.6 * font.size)
    if kind == "shadow":
        write(pen, x + font.size / 16, y + font.size / 16, word, font, (0, 0, 0))
    spot = (x, y + font.size)
    if kind == "outline":
        edge = max(2, font.size // 22)
        pen.text(spot, word, font=font, fill=(255, 222, 120), anchor="ls", stroke_width=edge, stroke_fill=strong)
    else:
        write(pen, x, y, word, font, LIGHT if kind == "shadow" else strong if kind == "ruled" else DARK)
    questions = ("Which word is this?", "What word is written on it?", "Read the word, please.")
    return (photograph(kit, image) if kind == "photographed" else image), [text(rng.choice(questions), word)]


def draw_receipt(kit: Pad, page: Page) -> Drawn:
    """A thermal roll, an invoice with its columns, a ticket with a stub, or an order on a telephone."""
    layout, width = page.layout, {"roll": 470, "invoice": 820, "ticket": 760, "app": 520}[page.layout]
    width += kit.rng.randint(0, 90)
    tint = kit.rng.choice(_STRONG)
    font = kit.pick(_MONO if layout == "roll" else _PLAIN, width / (30 if layout == "invoice" else 22))
    head, line = kit.plain(1.7 * font.size, 1), (1.5 if layout == "roll" else 2.0) * font.size
    paper = Image.new("RGB", (width, round(line * (len(page.lines) + 2.5))), (246, 246, 244))
    pen, left, right, y = ImageDraw.Draw(paper), 34.0, width - 34.0, line
    if layout == "ticket":
        left = 0.24 * width
        pen.rectangle((0, 0, 0.19 * width, paper.height), fill=tint)
        for spot in range(0, paper.height, 18):
            pen.line((0.2 * width, spot, 0.2 * width, spot + 9), fill=GREY, width=3)
    elif layout == "app":
        pen.rectangle((0, 0, width, 3.4 * line), fill=tint)
    rules = 0
    for each in page.lines:
        if each.startswith("! "):
            ink = LIGHT if layout == "app" else DARK if layout == "roll" else tint
            write(pen, left, y - 0.2 * line, each[2:], fit(head, each[2:], right - left), ink)
            y += 0.5 * line
        elif each == "---":
            rules += 1
            y -= 0.25 * line
            if layout == "invoice" and rules == 1:
                pen.rectangle((left, y + 0.2 * line, right, y + 0.7 * line), fill=tint)
            elif layout == "roll":
                write(pen, left, y, "-" * int((right - left) / font.getlength("-")), font, GREY)
            else:
                pen.line((left, y + line / 2, right, y + line / 2), fill=(196, 198, 202), width=2)
            y -= 0.25 * line
        elif each.startswith("- "):
            write(pen, left, y, each[2:], font, LIGHT if layout == "app" and not rules else GREY)
        else:
            label, amount = each.split(" | ")
            write(pen, left, y, label, font, DARK)
            write(pen, right, y, amount, font, DARK, "r")
            if layout == "invoice" and rules == 1:
                pen.line((left, y + 0.8 * line, right, y + 0.8 * line), fill=(214, 216, 220), width=1)
        y += line
    return (paper if layout == "app" else photograph(kit, paper)), page.asked


def draw_menu(kit: Pad, page: Page) -> Drawn:
    """Coloured tiles on a screen, two columns, prices in discs, or a hand-written strip in a photograph."""
    layout, tint, width = page.layout, kit.rng.choice(_STRONG), kit.rng.randint(720, 1000)
    size = width / (24 if layout in ("tiles", "columns") else 18)
    body = kit.pick(_HAND if layout == "strip" else _PLAIN, size)
    head = kit.pick(_SHOWN if layout != "tiles" else _PLAIN, 1.9 * size, 1)
    is_dark = layout == "tiles"
    rows = -(-len(page.rows) // 2) if is_dark else max(len(page.rows), 1)
    if layout == "columns":
        rows = 2 + len(page.rows) // 2
    step = (4.2 if is_dark else 2.3) * size
    image = Image.new("RGB", (width, round(5 * size + step * (rows + 0.6))), (22, 22, 30) if is_dark else _SOFT[1])
    pen = ImageDraw.Draw(image)
    write(pen, width / 2, 1.2 * size, page.title, fit(head, page.title, 0.84 * width), LIGHT if is_dark else tint, "m")
    for note in (line[2:] for line in page.lines if line.startswith("- ")):
        write(pen, width / 2, 3.6 * size, note, body.font_variant(size=round(0.8 * size)), DARK, "m")
    top = 5.2 * size
    if layout == "columns":
        spots = {name: (0.07 + 0.46 * i) * width for i, name in enumerate(page.marked("*"))}
        at = left = 0.0
        for each in page.lines:
            if each.startswith("* "):
                at, left = top, spots[each[2:]]
                write(pen, left, at, each[2:], kit.plain(1.15 * size, 1), tint)
                pen.line((left, at + 1.6 * size, left + 0.4 * width, at + 1.6 * size), fill=tint, width=3)
            elif " | " in each:
                at += step
                dish, price = each.split(" | ")
                write(pen, left, at, dish, body, DARK)
                write(pen, left + 0.4 * width, at, price, body, DARK, "r")
        return image, page.asked
    for i, (dish, price) in enumerate(page.rows):
        y = top + step * (i // 2 if is_dark else i)
        if is_dark:
            x = (0.04 + 0.47 * (i % 2)) * width
            pen.rounded_rectangle((x, y, x + 0.45 * width, y + 0.9 * step), 18, fill=_STRONG[i % len(_STRONG)])
            write(pen, x + 0.6 * size, y + 0.4 * size, dish, body, LIGHT)
            write(pen, x + 0.45 * width - 0.6 * size, y + 1.8 * size, price, kit.plain(1.3 * size, 1), LIGHT, "r")
        elif layout == "circles":
            pen.ellipse((0.1 * width, y - 0.3 * size, 0.1 * width + 2 * size, y + 1.7 * size), fill=tint)
            write(pen, 0.1 * width + size, y, price, body, LIGHT, "m")
            write(pen, 0.1 * width + 3 * size, y, dish, body, DARK)
        else:
            write(pen, 0.09 * width, y, price, body, tint)
            write(pen, 0.3 * width, y, dish, body, DARK)
    return (photograph(kit, image) if layout == "strip" else image), page.asked


def draw_card(kit: Pad, page: Page) -> Drawn:
    """An upright card, one with a diagonal, one with a broad rule beside its lines, or one with a dark edge."""
    layout, tint = page.layout, kit.rng.choice(_STRONG)
    width, height = (kit.rng.randint(520, 640), 880) if layout == "portrait" else (kit.rng.randint(820, 1040), 560)
    card = Image.new("RGB", (width, height), kit.rng.choice(_SOFT))
    pen, at, x = ImageDraw.Draw(card), "l", 0.09 * width
    top, start, size = 0.14 * height, 0.52 * height, height / 15
    if layout == "portrait":
        pen.rectangle((0, 0, width, 0.22 * height), fill=tint)
        pen.ellipse(
            (width / 2 - 80, 0.12 * height, width / 2 + 80, 0.12 * height + 160), fill=_SOFT[0], outline=tint, width=6
        )
        write(pen, width / 2, 0.12 * height + 36, page.title[0], kit.pick(_SHOWN, 80, 1), tint, "m")
        at, x, top, start, size = "m", width / 2, 0.36 * height, 0.62 * height, height / 26
    elif layout == "diagonal":
        pen.polygon(((width, 0), (width, height), (0.62 * width, height), (0.84 * width, 0)), fill=tint)
    elif layout == "labels":
        pen.rectangle((0.09 * width, start - 8, 0.1 * width, height * 0.94), fill=tint)
    else:
        pen.rectangle((0, 0, width, 0.09 * height), fill=DARK)
        pen.rectangle((0, 0.91 * height, width, height), fill=DARK)
        at, x = "r", 0.92 * width
    room = width * (0.6 if layout == "diagonal" else 0.82)
    big = kit.pick([*_PLAIN, *_SHOWN[:3]], 1.7 * size, 1)
    small = kit.plain(size)
    write(pen, x, top, page.title, fit(big, page.title, room), DARK if layout == "edge" else tint, at)
    write(pen, x, top + 2.3 * size, page.marked("*")[0], small, GREY, at)
    for i, each in enumerate(page.rest):
        left = 0.13 * width if layout == "labels" else x
        write(pen, left, start + 1.7 * i * size, each, fit(small, each, room), DARK, at)
    return (photograph(kit, card) if kit.rng.random() < 0.6 else card), page.asked


def draw_table(kit: Pad, page: Page) -> Drawn:
    """A spreadsheet with its letters and numbers, a board of flaps, rows as cards, or a dark grid."""
    layout, size = page.layout, kit.rng.randint(22, 36)
    font = kit.pick(_MONO if layout == "flaps" else _PLAIN, size)
    bold = kit.pick(_MONO[:1] if layout == "flaps" else _PLAIN, size, 1)
    tint = kit.rng.choice(_STRONG)
    rows = [*(each.split(" | ") for each in page.marked("*")), *page.rows]
    if layout == "sheet":
        rows = [["", *"ABC"[: len(rows[0])]], *([str(i), *row] for i, row in enumerate(rows, 1))]
    wides = [max(bold.getlength(row[i]) for row in rows) + 1.8 * size for i in range(len(rows[0]))]
    tall = {"cards": 2.6, "flaps": 2.3}.get(layout, 1.9) * size
    left, top = 1.2 * size, (3.2 if page.title else 1.0) * size
    ground = {"flaps": (24, 24, 26), "dark": (32, 36, 46), "cards": (226, 230, 236)}.get(layout, (255, 255, 255))
    width = max(420, round(max(sum(wides), 1.3 * bold.getlength(page.title)) + 2 * left))
    image = Image.new("RGB", (width, max(400, round(top + tall * len(rows) + size))), ground)
    pen, is_dark = ImageDraw.Draw(image), layout in ("flaps", "dark")
    title_ink = (250, 200, 60) if layout == "flaps" else LIGHT if is_dark else tint
    write(pen, left, size, page.title, bold.font_variant(size=round(1.3 * size)), title_ink)
    stretch = (width - 2 * left) / sum(wides)
    for r, row in enumerate(rows):
        y, x = top + r * tall, left
        if layout == "cards" and r:
            pen.rounded_rectangle((left, y, width - left, y + 0.86 * tall), 12, fill=(255, 255, 255))
        for i, (cell, slim) in enumerate(zip(row, wides, strict=True)):
            wide, box = slim * stretch, (x, y, x + slim * stretch, y + tall)
            is_edge = layout == "sheet" and (r == 0 or i == 0)
            is_head = r == (1 if layout == "sheet" else 0) and not is_edge
            if layout == "sheet":
                pen.rectangle(box, fill=(232, 234, 236) if is_edge else None, outline=(196, 198, 200))
            elif layout == "dark":
                pen.rectangle(box, fill=tint if r == 0 or i == 0 else None, outline=(84, 90, 104))
            elif layout == "flaps" and r:
                for place in range(len(cell)):
                    slot = x + 0.3 * size + place * font.getlength("0")
                    pen.rectangle((slot, y + 3, slot + 0.94 * font.getlength("0"), y + 0.8 * tall), fill=(46, 46, 50))
            ink = GREY if is_edge else LIGHT if is_dark else DARK
            write(pen, x + 0.3 * size, y + 0.2 * size, cell, bold if is_head else font, ink)
            x += wide
    return image, page.asked


def draw_window(kit: Pad, page: Page) -> Drawn:
    return _WINDOWS[page.layout](kit, page)


def _draw_terminal(kit: Pad, page: Page) -> Drawn:
    width, size = kit.rng.randint(620, 940), kit.rng.randint(26, 34)
    image = Image.new("RGB", (width, max(400, round(size * (4.5 + 1.7 * len(page.rest))))), (18, 20, 24))
    pen, font = ImageDraw.Draw(image), kit.pick(_MONO, size)
    pen.rectangle((0, 0, width, 1.7 * size), fill=(70, 72, 78))
    for i, color in enumerate(((255, 95, 86), (255, 189, 46), (39, 201, 63))):
        pen.ellipse((14 + 30 * i, 0.5 * size, 32 + 30 * i, 0.5 * size + 18), fill=color)
    write(pen, width / 2, 0.25 * size, page.title, font.font_variant(size=round(0.8 * size)), LIGHT, "m")
    ink = kit.rng.choice(((120, 240, 140), (236, 236, 230), (255, 196, 90)))
    for i, each in enumerate(page.rest):
        write(pen, 22, (2.4 + 1.7 * i) * size, each, font, ink)
    return image, page.asked


def _draw_browser(kit: Pad, page: Page) -> Drawn:
    width, size, tint = kit.rng.randint(820, 1200), kit.rng.randint(25, 32), kit.rng.choice(_STRONG)
    image = Image.new("RGB", (width, round(size * (13 + 2 * len(page.rest)))), (255, 255, 255))
    pen, font = ImageDraw.Draw(image), kit.plain(size)
    pen.rectangle((0, 0, width, 2.8 * size), fill=(222, 224, 230))
    pen.rounded_rectangle((70, 0.5 * size, width - 40, 2.3 * size), 22, fill=(255, 255, 255))
    pen.polygon(((20, 1.4 * size), (44, 0.8 * size), (44, 2.0 * size)), fill=GREY)
    write(pen, 96, 0.75 * size, page.title, font, GREY)
    pen.rectangle((0, 2.8 * size, width, 6.4 * size), fill=tint)
    heading = page.marked("*")[0]
    write(pen, 50, 3.7 * size, heading, fit(kit.plain(1.7 * size, 1), heading, width - 100), LIGHT)
    for i, each in enumerate(page.rest):
        write(pen, 50, (7.6 + 2 * i) * size, each, font, DARK)
    for label in (each.strip("[]") for each in page.lines if each.startswith("[")):
        y, wide = (8.4 + 2 * len(page.rest)) * size, font.getlength(label) + 2 * size
        pen.rounded_rectangle((50, y, 50 + wide, y + 2 * size), 10, fill=tint)
        write(pen, 50 + wide / 2, y + 0.35 * size, label, font, LIGHT, "m")
    return image, page.asked


def _draw_switches(kit: Pad, page: Page) -> Drawn:
    width, tint = kit.rng.randint(480, 700), kit.rng.choice(_STRONG)
    size = width / 20
    image = Image.new("RGB", (width, max(400, round(size * (5.5 + 2.8 * len(page.rows))))), (240, 241, 245))
    pen, font = ImageDraw.Draw(image), kit.plain(size)
    write(pen, size, 1.4 * size, page.title, kit.plain(1.6 * size, 1), DARK)
    pen.rounded_rectangle(
        (0.5 * size, 4.2 * size, width - 0.5 * size, (4.2 + 2.8 * len(page.rows)) * size), 20, fill="white"
    )
    for i, (label, state) in enumerate(page.rows):
        y, right, is_on = (4.9 + 2.8 * i) * size, width - 1.4 * size, state == "on"
        write(pen, 1.3 * size, y, label, font, DARK)
        pen.rounded_rectangle(
            (right - 2.6 * size, y, right, y + 1.4 * size), 0.7 * size, fill=tint if is_on else (196, 198, 204)
        )
        knob = right - 1.3 * size if is_on else right - 2.5 * size
        pen.ellipse((knob, y + 0.1 * size, knob + 1.2 * size, y + 1.3 * size), fill="white")
    return image, page.asked


def _draw_chat(kit: Pad, page: Page) -> Drawn:
    """Bubbles: what begins with "<" came in, and what begins with ">" went out."""
    width, tint = kit.rng.randint(560, 700), kit.rng.choice(_STRONG)
    size = width / 22
    said = [each for each in page.rest if each[0] in "<>"]
    image = Image.new("RGB", (width, round(size * (7 + 3 * len(said)))), (232, 228, 220))
    pen, font = ImageDraw.Draw(image), kit.plain(size)
    pen.rectangle((0, 0, width, 3 * size), fill=tint)
    pen.ellipse((0.8 * size, 0.6 * size, 2.6 * size, 2.4 * size), fill=LIGHT)
    write(pen, 3.4 * size, 0.7 * size, page.title, kit.plain(1.2 * size, 1), LIGHT)
    (clock,) = (each[2:] for each in page.rest if each.startswith("- "))
    write(pen, width / 2, 3.5 * size, clock, font.font_variant(size=round(0.85 * size)), GREY, "m")
    for i, each in enumerate(said):
        is_mine, y = each[0] == ">", (5.8 + 3 * i) * size
        wide = font.getlength(each[2:]) + 1.6 * size
        x = width - wide - size if is_mine else size
        pen.rounded_rectangle((x, y, x + wide, y + 2.3 * size), size, fill=(206, 240, 196) if is_mine else "white")
        write(pen, x + 0.8 * size, y + 0.5 * size, each[2:], font, DARK)
    return image, page.asked


_WINDOWS: dict[str, Callable[[Pad, Page], Drawn]] = {
    "terminal": _draw_terminal,
    "browser": _draw_browser,
    "switches": _draw_switches,
    "chat": _draw_chat,
}


def draw_poster(kit: Pad, page: Page) -> Drawn:
    """Halves with a disc, a ticket with a torn-off stub, a tall title in a margin, or rays from the middle."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(_STRONG)
    width, height = rng.randint(560, 820), rng.randint(820, 1120)
    if layout == "stub":
        width, height = height, width
    image = Image.new("RGB", (width, height), rng.choice(_SOFT))
    pen, facts = ImageDraw.Draw(image), page.rest
    body = fit_all(kit.plain(min(width, height) / 17, 1), facts, 0.62 * width)
    lines = break_words(page.title, 8)
    x, at, ink, start, room = width / 2, "m", DARK, 0.62 * height, 0.84 * width
    top, title_ink = 0.12 * height, tint
    if layout == "halves":
        pen.rectangle((0, 0, width, height / 2), fill=tint)
        pen.ellipse(
            (0.36 * width, height / 2 - 0.14 * width, 0.64 * width, height / 2 + 0.14 * width), fill=(248, 196, 64)
        )
        start, title_ink, top = 0.68 * height, LIGHT, 0.05 * height
    elif layout == "stub":
        pen.rectangle((0, 0, 0.68 * width, height), fill=tint)
        for y in range(0, height, 22):
            pen.ellipse((0.68 * width - 5, y, 0.68 * width + 5, y + 10), fill=LIGHT)
        x, at, ink, start, room, title_ink = 0.06 * width, "l", LIGHT, 0.56 * height, 0.56 * width, LIGHT
        for i in range(24):  # bars without a meaning
            pen.rectangle(
                (0.76 * width, (0.12 + 0.03 * i) * height, 0.92 * width, (0.12 + 0.03 * i) * height + 2 + i * 7 % 9),
                fill=DARK,
            )
        body = fit_all(body, facts, 0.56 * width)
    elif layout == "tall":
        pen.rectangle((0, 0, 0.12 * width, height), fill=tint)
        x, at, room = 0.19 * width, "l", 0.74 * width
    else:
        for i in range(0, 360, 20):
            box = (width / 2 - height, 0.25 * height - height, width / 2 + height, 0.25 * height + height)
            pen.pieslice(box, i, i + 10, fill=(255, 214, 120))
        pen.rectangle((0, 0.56 * height, width, height), fill=tint)
        ink = LIGHT
    head = fit_all(kit.pick(_SHOWN, min(min(width, height) / 5, height / (4.2 * len(lines))), 1), lines, room)
    for i, line in enumerate(lines):
        write(pen, x, top + 1.25 * i * head.size, line, head, title_ink, at)
    for i, line in enumerate(facts):
        write(pen, x, start + 1.7 * i * body.size, line, body, ink, at)
    return (photograph(kit, image) if rng.random() < 0.4 else as_jpeg(image)), page.asked


def draw_chart(kit: Pad, page: Page) -> Drawn:
    title, *series = page.title.split(" | ")
    if page.layout == "icons":
        return _draw_icons(kit, page)
    labels, values = [row[0] for row in page.rows], np.array([[float(v) for v in row[1:]] for row in page.rows])
    rng, font = kit.rng, kit.plain(20)
    colors = rng.sample(["#7b3fa0", "#00878f", "#d1495b", "#edae49", "#30638e", "#66a182"], 6)
    look: dict[str, Any] = {
        "axes.spines.top": page.layout in ("steps", "ranges"),
        "axes.spines.right": False,
        "axes.axisbelow": True,
    }
    look["savefig.pad_inches"] = 0.5
    paint = partial(_PAINT[page.layout], labels, values, series, colors, title)
    return paint_figure(rng, font, rng.choice(("#ffffff", "#eef3f6", "#fff6ea")), "#1c1c28", paint, **look), page.asked


def _paint_heat(labels: list[str], values: Any, series: list[str], colors: list[str], title: str, axes: Any) -> None:
    axes.imshow(values, cmap="YlGnBu", aspect="auto", vmin=-0.2 * values.max(), vmax=1.5 * values.max())
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:g}", ha="center", va="center", color="#101018")
    axes.set_xticks(range(len(series)), series)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_title(title)


def _paint_ranges(labels: list[str], values: Any, series: list[str], colors: list[str], title: str, axes: Any) -> None:
    spots = range(len(labels))
    axes.hlines(spots, values[:, 0], values[:, 1], color="#b0b4bc", linewidth=8)
    for i, name in enumerate(series):
        axes.scatter(values[:, i], spots, s=170, color=colors[i], label=name, zorder=3)
    axes.set_yticks(spots, labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.xaxis.set_major_locator(tick_every(2))
    axes.grid(axis="x", alpha=0.4)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2, frameon=False)
    axes.set_title(title)


def _paint_wedges(labels: list[str], values: Any, series: list[str], colors: list[str], title: str, axes: Any) -> None:
    axes.pie(values[:, 0], colors=colors, autopct="%d%%", startangle=70, explode=[0.04] * len(labels), shadow=True)
    axes.legend(labels, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(title)


def _paint_hbars(labels: list[str], values: Any, series: list[str], colors: list[str], title: str, axes: Any) -> None:
    axes.barh(labels[::-1], values[::-1, 0], color=colors[: len(labels)], hatch="//", edgecolor="white")
    axes.xaxis.set_major_locator(tick_every(1))
    axes.grid(axis="x", alpha=0.5)
    axes.set_xlabel(series[0])
    axes.set_title(title)


def _paint_steps(labels: list[str], values: Any, series: list[str], colors: list[str], title: str, axes: Any) -> None:
    spots = np.arange(len(labels))
    axes.step(spots, values[:, 0], where="mid", color=colors[0], linewidth=3)
    axes.fill_between(spots, values[:, 0], step="mid", color=colors[0], alpha=0.2)
    axes.set_xticks(spots, labels)
    axes.yaxis.set_major_locator(tick_every(1))
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.4)
    axes.set_ylabel(series[0])
    axes.set_title(title)


def _paint_bubbles(labels: list[str], values: Any, series: list[str], colors: list[str], title: str, axes: Any) -> None:
    for i, (label, value) in enumerate(zip(labels, values[:, 0], strict=True)):
        axes.scatter([i], [1], s=60 * value, color=colors[i], alpha=0.75)
        axes.text(i, 1, f"{value:g}", ha="center", va="center")
        axes.text(i, 0.45, label, ha="center", va="center")
    axes.set_xlim(-0.7, len(labels) - 0.3)
    axes.set_ylim(0.2, 1.7)
    axes.axis("off")
    axes.set_title(title)


_PAINT: dict[str, Callable[..., None]] = {
    "heat": _paint_heat,
    "ranges": _paint_ranges,
    "wedges": _paint_wedges,
    "hbars": _paint_hbars,
    "steps": _paint_steps,
    "bubbles": _paint_bubbles,
}


def _draw_icons(kit: Pad, page: Page) -> Drawn:
    """One disc for each thing, as papers for children count."""
    width, tint = kit.rng.randint(660, 900), kit.rng.choice(_STRONG)
    size = width / 24
    image = Image.new("RGB", (width, max(400, round(size * (5.5 + 2.8 * len(page.rows))))), kit.rng.choice(_SOFT))
    pen, font = ImageDraw.Draw(image), kit.plain(size)
    write(pen, size, 1.2 * size, page.title, kit.plain(1.6 * size, 1), tint)
    for i, (label, count) in enumerate(page.rows):
        y = (4.6 + 2.8 * i) * size
        write(pen, size, y, label, font, DARK)
        for place in range(int(count)):
            x = (6 + 2.3 * place) * size
            pen.ellipse((x, y - 0.2 * size, x + 1.8 * size, y + 1.6 * size), fill=tint)
    return image, page.asked


EDITION = Edition(
    letter="c",
    faces=FACES,
    plain=_PLAIN,
    draw_word=draw_word,
    draw={
        "signs": draw_sign,
        "receipts": draw_receipt,
        "menus": draw_menu,
        "business cards": draw_card,
        "tables": draw_table,
        "windows": draw_window,
        "posters": draw_poster,
        "charts of other looks": draw_chart,
    },
)
