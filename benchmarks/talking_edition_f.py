"""The looks of edition f of the drawn suite: once more the everyday things, as still other hands would make them.

Awnings and boards on the pavement, sticky notes, whiteboards, forms of a phone, rolls of thermal paper, kraft menus,
lock screens, and charts by matplotlib's defaults and Excel. No face belongs to a package that training draws in, but
that of matplotlib's charts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.talking_drawings import Drawn, as_jpeg, text, wall
from benchmarks.talking_edition_e_parts import Style, on_ground, set_lines
from benchmarks.talking_edition_f_figures import draw_chart, draw_shapes, draw_table, draw_window
from benchmarks.talking_edition_f_parts import FACES, HAND, PALE, PRINT, RICH, SCREEN, SHOWN
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
    paint_slope,
    photograph,
    write,
)

_ROADS: tuple[tuple[Color, Color], ...] = (
    ((0, 98, 64), LIGHT),
    ((250, 250, 248), DARK),
    ((110, 66, 34), LIGHT),
    ((250, 200, 30), DARK),
)


def draw_sign(kit: Pad, page: Page) -> Drawn:
    """A shop's awning, a board on the pavement, signposts, a notice with a head, a road sign, a door, or a banner."""
    rng, layout, lines = kit.rng, page.layout, page.lines
    width, height = rng.randint(640, 1400), rng.randint(480, 960)
    face = HAND if layout == "pavement" else SHOWN if layout in ("awning", "banner") else PRINT
    font = kit.pick(face, min(0.15 * height, 0.5 * height / (1.4 * len(lines))) * rng.uniform(0.85, 1), 1)
    font = fit_all(font, lines, 0.62 * width)
    step, wide = 1.4 * font.size, max(map(font.getlength, lines)) + 1.8 * font.size
    tall = step * len(lines) + 0.8 * font.size
    left, top = (width - wide) * rng.uniform(0.35, 0.65), (height - tall) * rng.uniform(0.4, 0.55)
    image, box = _paint_place(kit, layout, width, height), (left, top, left + wide, top + tall)
    pen, inks = ImageDraw.Draw(image), [DARK] * len(lines)
    if layout == "awning":
        fill, ink = rng.choice((((26, 60, 54), LIGHT), ((246, 240, 226), (120, 26, 34)), ((24, 34, 64), LIGHT)))
        left, inks = (width - wide) / 2, [ink] * len(lines)
        pen.rectangle((0, top, width, top + tall), fill=fill)
        stripes = (rng.choice(RICH), LIGHT)
        for i, edge in enumerate(range(0, width, 60)):
            pen.rectangle((edge, top + tall, edge + 60, top + tall + 70), fill=stripes[i % 2])
            pen.pieslice((edge, top + tall + 40, edge + 60, top + tall + 100), 0, 180, fill=stripes[i % 2])
    elif layout == "pavement":
        pen.polygon(
            ((left + 20, top), (box[2] - 20, top), (box[2] + 30, height), (left - 30, height)), fill=(58, 40, 28)
        )
        pen.rectangle(
            (left + 4, top + 14, box[2] - 4, box[3] + 30), fill=(38, 42, 40), outline=(150, 108, 66), width=10
        )
        inks = [(250, 250, 240), (255, 214, 110), (190, 232, 190), (250, 190, 200)]
    elif layout == "pointer":
        pen.rectangle((width / 2 - 16, 0.08 * height, width / 2 + 16, height), fill=(104, 78, 52))
        top, step, inks = 0.14 * height, 1.9 * font.size, [LIGHT] * len(lines)
        for i in range(len(lines)):
            y, tip = top + i * step, 0.8 * font.size * (1 if i % 2 else -1)
            ends = (left, box[2]) if i % 2 else (box[2], left)
            outline = ((ends[0], y), (ends[1], y), (ends[1] + tip, y + 0.8 * font.size))
            corners = (*outline, (ends[1], y + 1.6 * font.size), (ends[0], y + 1.6 * font.size))
            pen.polygon(corners, fill=(72, 96, 58), outline=LIGHT)
    elif layout == "notice":
        fill, ink = rng.choice((((22, 78, 156), LIGHT), ((196, 28, 36), LIGHT), ((248, 196, 30), DARK)))
        pen.rounded_rectangle(box, 16, fill=(252, 252, 250), outline=fill, width=6)
        pen.rounded_rectangle((left, top, box[2], top + 0.45 * font.size + step), 16, fill=fill)
        inks = [ink, *[DARK] * (len(lines) - 1)]
    elif layout == "road":
        fill, ink = rng.choice(_ROADS)
        for x in (left + 0.25 * wide, left + 0.75 * wide):
            pen.rectangle((x - 9, top, x + 9, height), fill=(136, 140, 144))
        pen.rounded_rectangle(box, 20, fill=fill)
        pen.rounded_rectangle((left + 8, top + 8, box[2] - 8, box[3] - 8), 14, outline=ink, width=4)
        inks = [ink] * len(lines)
    elif layout == "door":
        pen.rounded_rectangle(box, 6, fill=rng.choice(((206, 210, 214), (222, 196, 126), (250, 250, 248))))
        pen.rounded_rectangle(box, 6, outline=(120, 116, 108), width=3)
    else:
        fill = rng.choice(RICH)
        pen.rectangle((0, top, width, top + tall), fill=fill)
        for x in range(20, width, 120):
            pen.ellipse((x, top + 8, x + 12, top + 20), fill=(210, 210, 206))
            pen.line((x + 6, top + 14, x + 6, top - 40), fill=(230, 230, 226), width=3)
        left, inks = (width - wide) / 2, [LIGHT] * len(lines)
    shift = 0.1 if layout == "pointer" else 0.45
    for i, (line, ink) in enumerate(zip(lines, inks, strict=False)):
        write(pen, left + wide / 2, top + shift * font.size + i * step, line, font, ink, "m")
    return as_jpeg(add_grain(kit, image, 4), 87), page.asked


def _paint_place(kit: Pad, layout: str, width: int, height: int) -> Image.Image:
    """Where a sign of a layout is: a door, under the sky, or at a wall."""
    if layout == "door":
        image = Image.new("RGB", (width, height), kit.rng.choice(((120, 76, 44), (72, 86, 104), (226, 222, 212))))
        pen = ImageDraw.Draw(image)
        for inset in (24, 34):
            pen.rectangle((inset, inset, width - inset, height - inset), outline=(60, 50, 44), width=3)
        pen.ellipse((width - 80, 0.52 * height, width - 44, 0.52 * height + 36), fill=(206, 176, 96))
        return image
    if layout not in ("road", "pointer", "banner"):
        return wall(kit.rng, width, height)
    image = paint_slope(width, height, (126, 176, 226), (228, 238, 244))
    image.paste((104, 138, 72), (0, round(0.78 * height), width, height))
    return image.filter(ImageFilter.GaussianBlur(3))


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word on a tag, on a coloured disk, underlined on paper, or with a shadow."""
    rng, word = kit.rng, page.lines[0]
    kind, tint = rng.choice(("tag", "disk", "underlined", "shadow")), rng.choice(RICH)
    width, height = rng.randint(480, 1100), rng.randint(400, 680)
    font = fit(font.font_variant(size=round(rng.uniform(0.16, 0.26) * height)), word, 0.74 * width)
    image = Image.new("RGB", (width, height), rng.choice(PALE))
    pen, wide, y, ink = ImageDraw.Draw(image), font.getlength(word), rng.uniform(0.3, 0.5) * height, tint
    left = rng.uniform(0.15, 0.85) * (width - wide)
    if kind == "tag":
        left = (width - wide) / 2
        edge = (left - 0.6 * font.size, y - 0.3 * font.size, left + wide + 0.6 * font.size, y + 1.6 * font.size)
        image.paste(tint, (0, 0, width, height))
        pen.rounded_rectangle(edge, 18, fill=(252, 250, 244))
        pen.ellipse((edge[0] + 10, y + 0.5 * font.size, edge[0] + 26, y + 0.5 * font.size + 16), fill=tint)
    elif kind == "disk":
        middle, radius = (left + wide / 2, y + 0.65 * font.size), 0.62 * max(wide, 0.5 * height)
        pen.ellipse((middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius), fill=tint)
        ink = (252, 252, 248)
    elif kind == "underlined":
        pen.line((left, y + 1.45 * font.size, left + wide, y + 1.45 * font.size), fill=tint, width=6)
        ink = DARK
    else:
        write(pen, left + 0.04 * font.size, y + 0.05 * font.size, word, font, (196, 196, 190))
    write(pen, left, y, word, font, ink)
    questions = (
        "What word is this?",
        "Can you tell me what's written here?",
        "whats this say",
        "Please type out the text.",
    )
    return as_jpeg(add_grain(kit, image, 2), 90), [text(rng.choice(questions), word)]


def draw_lines(kit: Pad, page: Page) -> Drawn:
    """A sticky note, a whiteboard, the notes of a phone, or a page of a book."""
    rng, layout, lines = kit.rng, page.layout, page.lines
    width = rng.randint(540, 860)
    face = (
        HAND
        if layout in ("sticky", "whiteboard")
        else ["fonts-sil-mondulkiri", "culmus"]
        if layout == "book"
        else SCREEN
    )
    font = fit_all(kit.pick(face, width / 13, 2 if layout == "book" else 0), lines, 0.82 * width)
    step = 1.75 * font.size
    height, left, top = round(max(400, step * len(lines) + 200)), 0.09 * width, 90.0
    image = Image.new("RGB", (width, height), {"sticky": (252, 236, 120), "book": (248, 242, 228)}.get(layout, "white"))
    pen, ink = ImageDraw.Draw(image), DARK
    if layout == "sticky":
        image.paste(paint_slope(width, height, (254, 240, 130), (246, 224, 96)))
        ink = (30, 34, 60)
    elif layout == "whiteboard":
        image.paste(paint_slope(width, height, (250, 252, 252), (228, 232, 236)))
        pen.rectangle((0, 0, width - 1, height - 1), outline=(150, 154, 160), width=20)
        pen.rectangle((0.3 * width, height - 34, 0.7 * width, height - 20), fill=(120, 124, 130))
        ink = rng.choice(((20, 60, 170), (26, 26, 30), (180, 30, 36), (18, 110, 70)))
    elif layout == "notes app":
        pen.rectangle((0, 0, width, 70), fill=(246, 246, 248))
        write(pen, left, 18, "Notes", font.font_variant(size=28), (214, 150, 20))
        top = 110.0
    else:
        image.paste(paint_slope(width, height, (250, 245, 232), (240, 230, 210)))
        write(pen, width / 2, height - 60, str(rng.randint(12, 340)), font.font_variant(size=22), GREY, "m")
    for i, line in enumerate(lines):
        write(pen, left, top + i * step, line, font, ink)
    return (image if layout == "notes app" else photograph(kit, image)), page.asked


def draw_form(kit: Pad, page: Page) -> Drawn:
    """A sheet of ruled fields that are filled in by hand, a profile on a phone, or boxes side by side."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(RICH)
    width = rng.randint(440, 560) if layout == "phone" else rng.randint(640, 900)
    size = width / (19 if layout == "phone" else 25)
    body = kit.pick(SCREEN if layout == "phone" else PRINT, size)
    style = {
        "ruled": Style(accent=DARK, pairs="ruled", value=(24, 50, 150)),
        "phone": Style(ink=GREY, accent=tint, pairs="under", value=DARK),
        "boxes": Style(accent=tint, pairs="cells", faint=(120, 124, 132)),
    }[layout]
    sheet = set_lines(page.lines, width, body, kit.plain(size, 1), style)
    if layout == "phone":
        paper = on_ground(sheet, (250, 250, 252), 44, 40)
        pen = ImageDraw.Draw(paper)
        pen.rectangle((0, 0, paper.width, 54), fill=tint)
        for i in range(3):
            pen.line((26, 19 + 8 * i, 52, 19 + 8 * i), fill=LIGHT, width=3)
        return paper, page.asked
    paper = on_ground(sheet, (254, 254, 252), 64)
    if layout == "boxes":
        ImageDraw.Draw(paper).rectangle((0, 0, paper.width, 18), fill=tint)
        return paper, page.asked
    return photograph(kit, paper), page.asked


def draw_receipt(kit: Pad, page: Page) -> Drawn:
    """A slip of thermal paper, an invoice as a file, a pad written by hand, or a confirmation by e-mail."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(RICH)
    width = {"thermal": rng.randint(380, 500), "pad": rng.randint(460, 600)}.get(layout, rng.randint(620, 820))
    size = width / {"thermal": 17, "pad": 15}.get(layout, 24)
    place = 4 if layout == "thermal" else 0
    body = kit.pick({"thermal": ["culmus"], "pad": HAND}.get(layout, SCREEN), size, place)
    bold = body if layout in ("thermal", "pad") else kit.pick(SCREEN, size, 1)
    cut = page.lines.index("---")
    ink: Any = (30, 44, 140) if layout == "pad" else (54, 54, 60) if layout == "thermal" else DARK
    at = "m" if layout in ("thermal", "mail") else "l"
    head = set_lines(page.lines[:cut], width, body, bold, Style(ink, tint if place == 0 else ink, at=at))
    rest = set_lines(page.lines[cut:], width, body, bold, Style(ink, ink))
    sheet = Image.new("RGBA", (width, head.height + rest.height), (255, 255, 255, 0))
    sheet.paste(head, (0, 0))
    sheet.paste(rest, (0, head.height))
    if layout == "thermal":
        paper = on_ground(sheet, (246, 246, 244), 34)
        bumps = np.random.default_rng(rng.getrandbits(32)).normal(1, 0.05, (9, 5))
        shade = Image.fromarray((bumps * 200).clip(0, 255).astype(np.uint8)).resize(
            paper.size, Image.Resampling.BICUBIC
        )
        folded = np.asarray(paper) * (np.asarray(shade)[..., None] / 206)
        return photograph(kit, Image.fromarray(folded.clip(0, 255).astype(np.uint8))), page.asked
    if layout == "pad":
        paper = on_ground(sheet, (252, 244, 206), 50, 30)
        pen = ImageDraw.Draw(paper)
        for x in range(16, paper.width, 34):
            pen.ellipse((x, 10, x + 12, 22), fill=(98, 84, 70))
        return photograph(kit, paper), page.asked
    paper = on_ground(sheet, (255, 255, 255), 60, 20)
    if layout == "mail":
        back = Image.new("RGB", (paper.width + 90, paper.height + 90), (232, 236, 240))
        back.paste(paper, (45, 45))
        return back, page.asked
    ImageDraw.Draw(paper).rectangle((60, 44, paper.width - 60, 52), fill=tint)
    return paper, page.asked


def draw_menu(kit: Pad, page: Page) -> Drawn:
    """Kraft paper, a lit board over the counter, the list of a delivery app, or a diner's checked card."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(RICH)
    width = rng.randint(560, 820)
    size = width / 20
    body, bold = kit.pick(SCREEN if layout == "app" else PRINT, size), kit.plain(size, 1)
    if layout == "app":
        return _draw_dishes(page, width, body, bold, tint), page.asked
    style = {
        "kraft": Style((50, 34, 22), (50, 34, 22), (96, 74, 54)),
        "lit": Style((250, 250, 246), (255, 168, 60), (170, 174, 180), value=(255, 206, 110)),
        "diner": Style(accent=tint, pairs="dotted"),
    }[layout]
    ground = {"kraft": (202, 166, 120), "lit": (24, 24, 28), "diner": (254, 252, 248)}[layout]
    paper = on_ground(set_lines(page.lines, width, body, bold, style), ground, 76)
    pen = ImageDraw.Draw(paper)
    if layout == "kraft":
        return photograph(kit, add_grain(kit, paper, 6)), page.asked
    if layout == "lit":
        pen.rectangle((0, 0, paper.width - 1, paper.height - 1), outline=(96, 98, 104), width=14)
        return as_jpeg(paper, 86), page.asked
    for edge in (0, paper.height - 36):
        for i, x in enumerate(range(0, paper.width, 18)):
            pen.rectangle((x, edge + 18 * (i % 2), x + 17, edge + 18 * (i % 2) + 17), fill=tint)
    return paper, page.asked


def _draw_dishes(page: Page, width: int, body: Font, bold: Font, tint: Color) -> Image.Image:
    """Dishes one below the other, each with its price under its name and a photo at the right."""
    size, tall = body.size, 4.6 * body.size
    image = Image.new("RGB", (width, max(420, round(5 * size + tall * len(page.rows) + 20))), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width, 4 * size), fill=tint)
    write(
        pen, 30, 1.1 * size, page.title, fit(bold.font_variant(size=round(1.5 * size)), page.title, width - 60), LIGHT
    )
    for i, (dish, price) in enumerate(page.rows):
        y = 4.6 * size + i * tall
        write(pen, 30, y + 0.6 * size, dish, fit(bold, dish, width - 5 * size - 60), DARK)
        write(pen, 30, y + 2.3 * size, price, body, GREY)
        box = (width - 4.6 * size, y + 0.5 * size, width - 30, y + 4 * size)
        pen.rounded_rectangle(box, 14, fill=(236, 232, 224))
        pen.ellipse((box[0] + 14, box[1] + 14, box[2] - 14, box[3] - 14), fill=(250, 250, 248), outline=(200, 196, 188))
        pen.line((30, y + tall, width - 30, y + tall), fill=(226, 228, 232), width=2)
    return image


def draw_card(kit: Pad, page: Page) -> Drawn:
    """A card with a round badge, one with a coloured foot, or one of pale paper with its lines in the middle."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(RICH)
    width, height, size = 1040, 600, 38
    card = Image.new("RGB", (width, height), rng.choice(PALE) if layout == "pale" else (255, 255, 255))
    pen, inner = ImageDraw.Draw(card), 640 if layout == "badge" else 880
    style = Style(accent=tint if layout != "pale" else DARK, at="m" if layout == "pale" else "l")
    sheet = set_lines(page.lines, inner, kit.plain(size), kit.plain(size, 1), style)
    left, top = 80, round((height - sheet.height) / 2)
    if layout == "badge":
        pen.ellipse((60, 170, 320, 430), fill=tint)
        letters = "".join(part[0] for part in page.title.split() if part[0].isupper())[:2]
        write(pen, 190, 228, letters, kit.pick(SCREEN, 110, 1), LIGHT, "m")
        left = 370
    elif layout == "foot":
        pen.rectangle((0, height - 70, width, height), fill=tint)
        top = max(24, top - 40)
    else:
        pen.line((width / 2 - 120, height - 50, width / 2 + 120, height - 50), fill=tint, width=5)
        pen.line((width / 2 - 120, 50, width / 2 + 120, 50), fill=tint, width=5)
    card.paste(sheet, (left, top), sheet)
    return (photograph(kit, card) if rng.random() < 0.4 else card), page.asked


def draw_poster(kit: Pad, page: Page) -> Drawn:
    """An arch, paper confetti, a coloured upper half, or slips to tear off."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(RICH)
    width, height = rng.randint(620, 860), rng.randint(880, 1160)
    image = Image.new("RGB", (width, height), rng.choice(PALE) if layout in ("arch", "confetti") else (254, 254, 252))
    pen, style = ImageDraw.Draw(image), Style(accent=tint, at="m")
    if layout == "arch":
        pen.pieslice((0.08 * width, 0.06 * height, 0.92 * width, 0.06 * height + 0.84 * width), 180, 360, fill=tint)
        pen.rectangle((0.08 * width, 0.06 * height + 0.42 * width, 0.92 * width, 0.96 * height), fill=tint)
        style = Style(LIGHT, LIGHT, at="m")
    elif layout == "confetti":
        for _ in range(160):
            x, y, side = rng.uniform(0, width), rng.choice((rng.uniform(0, 0.1), rng.uniform(0.92, 1))) * height, 14
            pen.rectangle((x, y, x + side, y + side), fill=rng.choice(RICH))
    elif layout == "half":
        pen.rectangle((0, 0, width, 0.46 * height), fill=tint)
        style = replace(style, accent=LIGHT)
    else:
        pen.line((0, 0.87 * height, width, 0.87 * height), fill=GREY, width=2)
        for i in range(1, 9):
            pen.line((i * width / 9, 0.87 * height, i * width / 9, height), fill=GREY, width=2)
    title = break_words(page.title, 13)
    bold = fit_all(kit.pick(SHOWN, width / 9, 1), title, 0.74 * width)
    for i, line in enumerate(title):
        write(pen, width / 2, 0.17 * height + 1.35 * bold.size * i, line, bold, style.accent, "m")
    body = fit_all(kit.plain(width / 15), page.rest, 0.74 * width)
    sheet = set_lines(page.rest, round(0.8 * width), body, body, style)
    image.paste(sheet, (round(0.1 * width), round(min(0.52 * height, 0.86 * height - sheet.height))), sheet)
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
EDITION = Edition(letter="f", faces=FACES, plain=PRINT, draw_word=draw_word, draw=_DRAW)
