"""The lines, forms, receipts and menus of edition i of the drawn suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.talking_drawings import Drawn
from benchmarks.talking_edition_g import in_turn
from benchmarks.talking_edition_i_parts import (
    HAND,
    MONO,
    NARROW,
    PRINT,
    SANS,
    SERIF,
    SHOWN,
    SOFT,
    TINTS,
    Flow,
    cut_at,
    draw_bars,
    draw_dots,
    draw_tick,
    finish,
    pick,
    sheet_of,
)
from benchmarks.talking_editions import DARK, GREY, LIGHT, Pad, Page, fit, fit_all, photograph, write

_FAINT = (206, 210, 216)


def draw_recipe(kit: Pad, page: Page) -> Drawn:
    """A recipe of a web page: a picture, what goes into it with dots before, and numbered steps."""
    rng, width = kit.rng, kit.rng.randint(680, 860)
    size = width / 28
    image, pen = sheet_of(width)
    font, bold, tint = pick(kit, SANS, size), pick(kit, [*SERIF, *SANS], 1.9 * size, 1), rng.choice(TINTS)
    pen.rectangle((0, 0, width, 150), fill=rng.choice(SOFT))
    pen.ellipse((width / 2 - 130, 20, width / 2 + 130, 210), fill=(250, 250, 248), outline=GREY, width=3)
    pen.ellipse(
        (width / 2 - 80, 60, width / 2 + 80, 170), fill=rng.choice(((206, 120, 50), (150, 60, 40), (240, 200, 90)))
    )
    pen.rectangle((0, 215, width, 230), fill="white")
    flow, step = Flow(pen, 50, 226, width - 100), 0
    for line in page.lines:
        mark, _, rest = line.partition(" ")
        if mark == "!":
            flow.say(rest, bold, DARK, step=1.5)
        elif mark == "-":
            flow.say(rest, font, GREY, step=1.9)
        elif mark == "*":
            step += 1
            flow.say(rest, font.font_variant(size=round(1.25 * size)), tint, step=1.7)
        elif step == 1:
            pen.ellipse((56, flow.y + 0.6 * size, 66, flow.y + 0.6 * size + 10), fill=tint)
            Flow(pen, 84, flow.y, width - 134).say(line, font)
            flow.y += 1.6 * size
        else:
            number = str(page.lines.index(line) - page.lines.index([each for each in page.lines if each[0] == "*"][1]))
            write(pen, 54, flow.y, number, font, tint)
            Flow(pen, 84, flow.y, width - 134).say(line, font)
            flow.y += 1.7 * size
    return cut_at(image, flow.y + 40), page.asked


def draw_steps(kit: Pad, page: Page) -> Drawn:
    """Instructions: each line beside a disk with its number."""
    width, tint = kit.rng.randint(640, 860), kit.rng.choice(TINTS)
    size = width / 24
    image, pen = sheet_of(width, (250, 250, 246))
    font, bold = fit_all(pick(kit, SANS, size), page.rest, width - 190), pick(kit, SANS, 1.3 * size, 1)
    pen.rectangle((0, 0, width, 3.2 * size), fill=tint)
    write(pen, 50, 0.8 * size, page.title, fit(bold, page.title, width - 100), LIGHT)
    y = 4.4 * size
    for i, line in enumerate(page.rest, 1):
        pen.ellipse((50, y, 50 + 2.2 * size, y + 2.2 * size), fill=tint)
        write(pen, 50 + 1.1 * size, y + 0.42 * size, str(i), pick(kit, SANS, size, 1), LIGHT, "m")
        write(pen, 60 + 3 * size, y + 0.5 * size, line, font, DARK)
        y += 3 * size
    image = cut_at(image, y + 20)
    return (photograph(kit, image) if kit.rng.random() < 0.5 else image), page.asked


def draw_quote(kit: Pad, page: Page) -> Drawn:
    """What somebody said, between large marks, with the name below."""
    width, tint = kit.rng.randint(720, 1000), kit.rng.choice(TINTS)
    font = fit_all(pick(kit, SERIF, width / 15), page.rest[:-1], 0.8 * width)
    image, pen = sheet_of(width, tint)
    write(pen, 60, 10, "\N{LEFT DOUBLE QUOTATION MARK}", pick(kit, SERIF, 130, 1), (250, 220, 140))
    flow = Flow(pen, 0.1 * width, 150, 0.8 * width)
    for line in page.rest[:-1]:
        flow.say(line, font, LIGHT, step=1.5)
    flow.y += 0.8 * font.size
    flow.say(page.rest[-1].removeprefix("- "), pick(kit, SANS, width / 28), (250, 220, 140), "r", 1.5)
    return finish(kit, cut_at(image, flow.y + 60, 420), page, 1, 90)


def draw_typed(kit: Pad, page: Page) -> Drawn:
    """A letter by typewriter, in a photograph."""
    width = kit.rng.randint(640, 820)
    font = fit_all(kit.font("@fontsource/special-elite", width / 20), page.lines, width - 130)
    image, pen = sheet_of(width, (248, 244, 232))
    flow = Flow(pen, 65, 60, width - 130)
    for line in page.lines:
        flow.say(line, font, (46, 44, 50), step=1.7)
    return photograph(kit, cut_at(image, flow.y + 60, 400)), page.asked


def draw_quiz(kit: Pad, page: Page) -> Drawn:
    """A worksheet's questions with options, of which those that begin with [x] are circled by hand."""
    width = kit.rng.randint(660, 840)
    font, bold = pick(kit, PRINT, width / 25), pick(kit, PRINT, width / 22, 1)
    image, pen = sheet_of(width)
    flow = Flow(pen, 60, 40, width - 120)
    for line in page.lines:
        if line.startswith("! "):
            flow.say(line[2:], bold, DARK, "m", 2.2)
        elif line.startswith("["):
            pen.text((90, flow.y + font.size), line[4:], font=font, fill=DARK, anchor="ls")
            if line[1] == "x":
                box = (78, flow.y - 0.05 * font.size, 104 + font.getlength(line[4:]), flow.y + 1.45 * font.size)
                pen.ellipse((box[0] - 8, box[1] - 2, box[2] + 10, box[3]), outline=(40, 60, 190), width=3)
            flow.y += 1.75 * font.size
        else:
            flow.y += 0.4 * font.size
            flow.say(line, font, DARK, step=1.8)
    return photograph(kit, cut_at(image, flow.y + 50)), page.asked


def draw_todo(kit: Pad, page: Page) -> Drawn:
    """A list of things to do in an app: boxes, of which some are ticked and struck through."""
    width, tint = kit.rng.randint(500, 640), kit.rng.choice(TINTS)
    font, bold = pick(kit, SANS, 30), pick(kit, SANS, 42, 1)
    image, pen = sheet_of(width, (246, 247, 250))
    flow = Flow(pen, 40, 40, width - 80)
    flow.say(page.title, bold, tint, step=2)
    for line in (each for each in page.lines if each.startswith("[")):
        pen.rounded_rectangle((36, flow.y, width - 36, flow.y + 70), 14, fill="white", outline=(228, 230, 236), width=2)
        pen.rounded_rectangle((56, flow.y + 20, 86, flow.y + 50), 7, outline=tint, width=3)
        ink = DARK
        if line[1] == "x":
            draw_tick(pen, 60, flow.y + 24, 22, tint)
            ink = GREY
        label = fit(font, line[4:], width - 160)
        write(pen, 106, flow.y + 14, line[4:], label, ink)
        if line[1] == "x":
            pen.line((106, flow.y + 38, 106 + label.getlength(line[4:]), flow.y + 38), fill=GREY, width=2)
        flow.y += 84
    return cut_at(image, flow.y + 40, 400), page.asked


def draw_medicine(kit: Pad, page: Page) -> Drawn:
    """The front of a packet of medicine: a name on a band, what it is, and how it is taken."""
    tint, name = kit.rng.choice(TINTS), page.title
    box = Image.new("RGB", (900, 470), (252, 252, 252))
    pen = ImageDraw.Draw(box)
    pen.rectangle((0, 330, 900, 470), fill=tint)
    pen.polygon(((700, 0), (900, 0), (900, 330), (820, 330)), fill=tuple(255 - (255 - value) // 3 for value in tint))
    flow = Flow(pen, 50, 36, 620)
    flow.say(name, pick(kit, SANS, 88, 1), tint, step=1.4)
    for line in page.marked("-"):
        flow.say(line, pick(kit, SANS, 36), DARK, step=1.5)
    flow.y = 345
    flow.width = 800
    for line in (each for each in page.rest if not each.startswith("- ")):
        flow.say(line, pick(kit, SANS, 34), LIGHT, step=1.45)
    return photograph(kit, box), page.asked


def draw_library(kit: Pad, page: Page) -> Drawn:
    """A plastic card of a library, a gym or a museum: a band, fields, and the bars of a code."""
    tint, rng = kit.rng.choice(TINTS), kit.rng
    card = Image.new("RGB", (940, 580), (250, 250, 252))
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, 940, 120), fill=tint)
    write(pen, 50, 28, page.title, fit(pick(kit, SANS, 52, 1), page.title, 840), LIGHT)
    flow = Flow(pen, 50, 150, 840)
    font, bold = pick(kit, SANS, 30), pick(kit, SANS, 36, 1)
    for label, value in page.rows:
        write(pen, 50, flow.y + 5, label, font, GREY)
        write(pen, 320, flow.y, value, bold, DARK)
        flow.y += 66
    pen.rectangle((50, 465, 560, 560), fill="white")
    draw_bars(rng, pen, (60, 470, 550, 552))
    return (photograph(kit, card) if rng.random() < 0.6 else card), page.asked


def draw_train(kit: Pad, page: Page) -> Drawn:
    """A ticket: the first two rows are large with an arrow between them, the others stand in columns below."""
    rng, tint = kit.rng, kit.rng.choice(TINTS)
    (_, start), (_, end), *rest = page.rows
    width = 1000
    card = Image.new(
        "RGB", (width, 250 + 130 * -(-len(rest) // 3) + 50), rng.choice(((252, 248, 236), (238, 246, 242)))
    )
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, width, 74), fill=tint)
    write(pen, 44, 16, page.title, pick(kit, SANS, 34, 1), LIGHT)
    large, small, bold = pick(kit, NARROW, 62, 1), pick(kit, SANS, 26), pick(kit, SANS, 36, 1)
    write(pen, 44, 100, page.rows[0][0], small, GREY)
    write(pen, 560, 100, page.rows[1][0], small, GREY)
    write(pen, 44, 132, start, fit(large, start, 400), DARK)
    write(pen, 560, 132, end, fit(large, end, 400), DARK)
    pen.line((468, 176, 524, 176), fill=tint, width=6)
    pen.polygon(((520, 162), (544, 176), (520, 190)), fill=tint)
    for i, (label, value) in enumerate(rest):
        x, y = 44 + 310 * (i % 3), 256 + 130 * (i // 3)
        write(pen, x, y, label, small, GREY)
        write(pen, x, y + 36, value, fit(bold, value, 290), DARK)
    return (photograph(kit, card) if rng.random() < 0.5 else card), page.asked


def draw_parcel(kit: Pad, page: Page) -> Drawn:
    """The label of a parcel: who sends it in small letters, who gets it in large ones, and a code."""
    rng = kit.rng
    image, pen = sheet_of(720)
    font, bold = pick(kit, SANS, 28), pick(kit, SANS, 44, 1)
    pen.rectangle((0, 0, 720, 96), fill=DARK)
    write(pen, 40, 22, page.title, fit(pick(kit, NARROW, 52, 1), page.title, 640), LIGHT)
    flow = Flow(pen, 40, 116, 640)
    for line in page.lines[1:]:
        if line.startswith("* "):
            flow.rule(DARK, 4, 26)
            flow.say(line[2:], font, GREY, step=1.5)
        elif line.startswith("- "):
            flow.say(line[2:], font, DARK, step=1.4)
        elif " | " in line:
            flow.pair(line.split(" | "), font, pick(kit, SANS, 32, 1), step=1.8)
        else:
            flow.say(line, bold, DARK, step=1.3)
    flow.rule(DARK, 4, 26)
    draw_bars(rng, pen, (90, flow.y + 16, 630, flow.y + 130))
    image = cut_at(image, flow.y + 170)
    ImageDraw.Draw(image).rectangle((0, 0, 719, image.height - 1), outline=DARK, width=5)
    return photograph(kit, image), page.asked


def draw_checkout(kit: Pad, page: Page) -> Drawn:
    """A form of a web shop: labels at the left, boxes at the right, a chosen circle, and a button."""
    width, tint = kit.rng.randint(760, 980), kit.rng.choice(TINTS)
    font, bold = pick(kit, SANS, 26), pick(kit, SANS, 36, 1)
    image, pen = sheet_of(width, (250, 250, 252))
    flow = Flow(pen, 50, 36, width - 100)
    flow.say(page.title, bold, DARK, step=1.9)
    for line in page.lines[1:]:
        if line.startswith("["):
            mark, label = line[1], line[4:]
            if line.startswith("[="):
                label = line[2:-1]
                wide = bold.getlength(label) + 80
                pen.rounded_rectangle((50, flow.y + 12, 50 + wide, flow.y + 84), 10, fill=tint)
                write(pen, 90, flow.y + 24, label, bold, LIGHT)
                flow.y += 96
                continue
            x = 0.34 * width
            pen.ellipse((x, flow.y + 6, x + 28, flow.y + 34), outline=tint, width=3, fill="white")
            if mark == "x":
                pen.ellipse((x + 7, flow.y + 13, x + 21, flow.y + 27), fill=tint)
            write(pen, x + 44, flow.y, label, font, DARK)
            flow.y += 50
        else:
            label, value = line.split(" | ")
            write(pen, 50, flow.y + 10, label, font, GREY)
            pen.rounded_rectangle(
                (0.34 * width, flow.y, width - 50, flow.y + 56), 6, fill="white", outline=_FAINT, width=2
            )
            write(pen, 0.34 * width + 18, flow.y + 10, value, font, DARK)
            flow.y += 74
    return cut_at(image, flow.y + 40), page.asked


def draw_survey(kit: Pad, page: Page) -> Drawn:
    """A sheet on which each row has a circle for 1 to 5, and one of them is filled."""
    width = kit.rng.randint(760, 900)
    font, bold = pick(kit, PRINT, 30), pick(kit, PRINT, 40, 1)
    image, pen = sheet_of(width)
    flow = Flow(pen, 50, 40, width - 100)
    flow.say(page.title, bold, DARK, step=1.6)
    for line in page.rest:
        flow.say(line.removeprefix("- "), font, GREY, step=1.9)
    spots = [width - 330 + 66 * i for i in range(5)]
    for i, x in enumerate(spots, 1):
        write(pen, x, flow.y, str(i), bold.font_variant(size=30), DARK, "m")
    flow.y += 60
    for label, mark in page.rows:
        write(pen, 50, flow.y, label, fit(font, label, spots[0] - 90), DARK)
        for i, x in enumerate(spots, 1):
            box = (x - 17, flow.y + 4, x + 17, flow.y + 38)
            pen.ellipse(box, outline=DARK, width=2, fill=(30, 50, 150) if str(i) == mark else "white")
        flow.y += 64
        pen.line((50, flow.y - 10, width - 50, flow.y - 10), fill=(226, 228, 232), width=2)
    return photograph(kit, cut_at(image, flow.y + 50)), page.asked


def draw_pass(kit: Pad, page: Page) -> Drawn:
    """A card with somebody's picture at the left and the fields at the right."""
    tint, rng = kit.rng.choice(TINTS), kit.rng
    card = Image.new("RGB", (980, 600), tuple(255 - (255 - value) // 8 for value in tint))
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, 980, 100), fill=tint)
    write(pen, 490, 22, page.title, fit(pick(kit, SANS, 46, 1), page.title, 900), LIGHT, "m")
    pen.rectangle((50, 140, 320, 490), fill=(220, 226, 232))
    pen.ellipse((120, 200, 250, 350), fill=(214, 170, 140))
    pen.chord((80, 380, 290, 640), 180, 360, fill=rng.choice(TINTS))
    pen.rectangle((50, 490, 320, 640), fill=tuple(255 - (255 - value) // 8 for value in tint))
    pen.pieslice((110, 180, 260, 330), 180, 360, fill=rng.choice(((60, 44, 34), (150, 110, 60), (30, 30, 34))))
    y, font, bold = 136, pick(kit, SANS, 26), pick(kit, SANS, 38, 1)
    for label, value in page.rows:
        write(pen, 370, y, label, font, GREY)
        write(pen, 370, y + 34, value, fit(bold, value, 570), DARK)
        y += 108
    return (photograph(kit, card) if rng.random() < 0.5 else card), page.asked


def _cut(page: Page) -> tuple[list[str], list[str], list[str]]:
    """The head of a receipt, its articles, and what they come to."""
    first = page.lines.index("---")
    second = page.lines.index("---", first + 1)
    return page.lines[:first], page.lines[first + 1 : second], page.lines[second + 1 :]


def _head(flow: Flow, lines: list[str], bold: Any, font: Any, ink: Any = DARK, at: str = "l") -> None:
    for line in lines:
        if line.startswith("! "):
            flow.say(line[2:], bold, ink, at, 1.6)
        else:
            flow.say(line.removeprefix("- "), font, DARK if at == "m" else GREY, at, 1.5)


def draw_slip(kit: Pad, page: Page) -> Drawn:
    """A slip of a till in a face of even width, with broken rules and a code at its foot."""
    rng, (head, articles, sums) = kit.rng, _cut(page)
    width = rng.randint(420, 540)
    font, bold = pick(kit, MONO, width / 19), pick(kit, MONO, width / 14, 1)
    image, pen = sheet_of(width, (252, 251, 248))
    flow = Flow(pen, 36, 40, width - 72)
    _head(flow, head, bold, font, DARK, "m")
    for lines, face in ((articles, font), (sums, font)):
        flow.rule(GREY, 2, 30, 9)
        for line in lines:
            if " | " in line:
                flow.pair(line.split(" | "), face, step=1.65)
            else:
                flow.say(line, font, DARK, "m", 1.65)
    draw_bars(rng, pen, (80, flow.y + 30, width - 80, flow.y + 100))
    return photograph(kit, cut_at(image, flow.y + 140)), page.asked


def draw_account(kit: Pad, page: Page) -> Drawn:
    """An invoice with a shaded head of its table and what is to be paid in a box of colour."""
    width, tint, (head, articles, sums) = kit.rng.randint(740, 940), kit.rng.choice(TINTS), _cut(page)
    font, bold = pick(kit, SANS, width / 30), pick(kit, SANS, width / 19, 1)
    size = font.size
    image, pen = sheet_of(width)
    flow = Flow(pen, 60, 50, width - 120)
    _head(flow, head, bold, font, tint)
    flow.y += 20
    pen.rectangle((44, flow.y - 6, width - 44, flow.y + 1.7 * size), fill=(228, 232, 238))
    flow.pair(("Description", "Amount"), pick(kit, SANS, size, 1), step=2.1)
    for line in articles:
        flow.pair(line.split(" | "), font, step=1.5)
        flow.rule((230, 232, 236), 2, 14)
    flow.y += 16
    for i, line in enumerate(sums):
        if i == 0:
            pen.rectangle((width / 2 - 60, flow.y - 10, width - 44, flow.y + 2 * size), fill=tint)
        right = Flow(pen, width / 2 - 40, flow.y, width / 2 - 20)
        if " | " in line:
            right.pair(line.split(" | "), font, pick(kit, SANS, size, 1), ink=DARK if i else LIGHT)
        else:
            flow.say(line, font, GREY)
        flow.y += 2.4 * size
    return cut_at(image, flow.y + 40, 400), page.asked


def draw_packing(kit: Pad, page: Page) -> Drawn:
    """The slip in a parcel: how many of what, with boxes that somebody ticked."""
    width, (head, articles, sums) = kit.rng.randint(640, 800), _cut(page)
    font, bold = pick(kit, PRINT, width / 25), pick(kit, PRINT, width / 17, 1)
    size = font.size
    image, pen = sheet_of(width)
    flow = Flow(pen, 60, 50, width - 120)
    _head(flow, head, bold, font)
    flow.rule(DARK, 3, 26)
    for line in articles:
        item, count = line.split(" | ")
        pen.rectangle((60, flow.y + 4, 60 + size, flow.y + 4 + size), outline=DARK, width=2)
        draw_tick(pen, 62, flow.y - 2, size, (30, 50, 160))
        write(pen, 60 + 1.8 * size, flow.y, item, font, DARK)
        write(pen, width - 60, flow.y, count, font, DARK, "r")
        flow.y += 1.9 * size
    flow.rule(DARK, 3, 26)
    for line in sums:
        if " | " in line:
            flow.pair(line.split(" | "), font, pick(kit, PRINT, size, 1))
        else:
            flow.say(line, font, GREY)
    return photograph(kit, cut_at(image, flow.y + 50)), page.asked


def draw_order(kit: Pad, page: Page) -> Drawn:
    """A confirmation on a phone: a tick in a disk, articles with small pictures, and the sum."""
    width, tint, (head, articles, sums) = kit.rng.randint(500, 620), kit.rng.choice(TINTS), _cut(page)
    font, bold = pick(kit, SANS, width / 21), pick(kit, SANS, width / 15, 1)
    image, pen = sheet_of(width, (247, 248, 250))
    pen.ellipse((width / 2 - 44, 36, width / 2 + 44, 124), fill=(40, 160, 90))
    draw_tick(pen, width / 2 - 22, 58, 44, LIGHT)
    flow = Flow(pen, 40, 140, width - 80)
    _head(flow, head, bold, font, DARK, "m")
    flow.y += 10
    for line in articles:
        item, price = line.split(" | ")
        pen.rounded_rectangle((30, flow.y, width - 30, flow.y + 88), 14, fill="white")
        pen.rounded_rectangle((44, flow.y + 12, 108, flow.y + 76), 10, fill=kit.rng.choice(SOFT))
        write(pen, 126, flow.y + 44 - 0.68 * font.size, item, fit(font, item, width - 290), DARK)
        write(pen, width - 50, flow.y + 44 - 0.68 * font.size, price, font, DARK, "r")
        flow.y += 100
    flow.rule(step=24)
    for i, line in enumerate(sums):
        if " | " in line:
            flow.pair(line.split(" | "), font if i else pick(kit, SANS, font.size, 1))
        else:
            flow.say(line, font, tint)
    return cut_at(image, flow.y + 40), page.asked


def draw_docket(kit: Pad, page: Page) -> Drawn:
    """A waiter's pad with green rules, written by hand."""
    width, (head, articles, sums) = kit.rng.randint(440, 560), _cut(page)
    font = pick(kit, HAND, width / 12, 1)
    image, pen = sheet_of(width, (244, 250, 240))
    pen.rectangle((0, 0, width, 90), fill=(40, 110, 74))
    write(pen, width / 2, 22, head[0].removeprefix("! "), fit(pick(kit, SERIF, 40, 1), head[0], width - 60), LIGHT, "m")
    flow = Flow(pen, 40, 110, width - 80)
    for line in [*head[1:], *articles, *sums]:
        if line == sums[0]:
            pen.line((40, flow.y - 4, width - 40, flow.y - 4), fill=(30, 40, 120), width=4)
        if " | " in line:
            flow.pair(line.split(" | "), font, ink=(30, 40, 120), step=1.5)
        else:
            flow.say(line.removeprefix("- "), font, (30, 40, 120), step=1.5)
        pen.line((20, flow.y - 6, width - 20, flow.y - 6), fill=(150, 200, 160), width=2)
    return photograph(kit, cut_at(image, flow.y + 50)), page.asked


def draw_utility(kit: Pad, page: Page) -> Drawn:
    """A bill of a company: what is due in a large frame at the right, and how it comes about below."""
    width, tint, (head, articles, sums) = kit.rng.randint(760, 960), kit.rng.choice(TINTS), _cut(page)
    font, bold = pick(kit, SANS, width / 31), pick(kit, SANS, width / 22, 1)
    image, pen = sheet_of(width)
    pen.rectangle((0, 0, width, 16), fill=tint)
    flow = Flow(pen, 50, 50, 0.54 * width)
    _head(flow, head, bold, font, tint)
    label, value = sums[0].split(" | ")
    box = (0.62 * width, 50, width - 44, 190)
    pen.rounded_rectangle(box, 12, outline=tint, width=4)
    write(pen, (box[0] + box[2]) / 2, 62, label, fit(font, label, 0.3 * width), DARK, "m")
    write(pen, (box[0] + box[2]) / 2, 104, value, bold.font_variant(size=round(1.4 * bold.size)), DARK, "m")
    flow = Flow(pen, 50, max(flow.y, 210) + 24, width - 100)
    for line in articles:
        flow.pair(line.split(" | "), font, step=1.6)
        flow.rule((226, 228, 234), 2, 14)
    for line in sums[1:]:
        flow.say(line.replace(" | ", ": "), font, GREY, step=1.7)
    return cut_at(image, flow.y + 50, 400), page.asked


def draw_prices(kit: Pad, page: Page) -> Drawn:
    """A list of prices with dots between a service and what it costs, under heads of colour."""
    width, tint = kit.rng.randint(600, 800), kit.rng.choice(TINTS)
    font, bold = pick(kit, PRINT, width / 22), pick(kit, [*SHOWN[:3], *SERIF], width / 11)
    image, pen = sheet_of(width, (252, 250, 246))
    flow = Flow(pen, 60, 50, width - 120)
    flow.say(page.title, bold, tint, "m", 1.9)
    for line in page.lines[1:]:
        if line.startswith("* "):
            flow.say(line[2:], pick(kit, PRINT, width / 19, 1), tint, step=1.6)
        elif " | " in line:
            name, price = line.split(" | ")
            ends = 72 + font.getlength(name), width - 72 - font.getlength(price)
            draw_dots(pen, *ends, flow.y + 0.96 * font.size)
            flow.pair((name, price), font, step=1.8)
        else:
            flow.say(line, font, GREY, "m", 1.9)
    return (
        photograph(kit, cut_at(image, flow.y + 50)) if kit.rng.random() < 0.5 else cut_at(image, flow.y + 50)
    ), page.asked


def draw_two(kit: Pad, page: Page) -> Drawn:
    """A printed card whose second head begins a second column."""
    width, tint = kit.rng.randint(900, 1100), kit.rng.choice(TINTS)
    font, bold = pick(kit, PRINT, 29), pick(kit, SERIF, 36, 1)
    image, pen = sheet_of(width, (255, 253, 248))
    write(pen, width / 2, 40, page.title, pick(kit, SHOWN[:3], 70), tint, "m")
    heads = [i for i, line in enumerate(page.lines) if line.startswith("* ")]
    ends = []
    for i, (start, end) in enumerate(zip(heads, (*heads[1:], len(page.lines)), strict=True)):
        flow = Flow(pen, 60 + i * (width / 2 - 10), 170, width / 2 - 110)
        flow.say(page.lines[start][2:], bold, tint, step=1.8)
        for line in page.lines[start + 1 : end]:
            name, price = line.split(" | ")
            write(pen, flow.left, flow.y, name, fit(font, name, flow.width - 100), DARK)
            write(pen, flow.left + flow.width, flow.y, price, font, DARK, "r")
            flow.y += 1.9 * font.size
        ends.append(flow.y)
    pen.line((width / 2, 180, width / 2, max(ends)), fill=_FAINT, width=2)
    return photograph(kit, cut_at(image, max(ends) + 40, 400)), page.asked


def draw_kiosk(kit: Pad, page: Page) -> Drawn:
    """A touch screen of a restaurant: tiles in three columns with a picture, a name and a price."""
    tint, rng, wide, tall = kit.rng.choice(TINTS), kit.rng, 280, 290
    rows = -(-len(page.rows) // 3)
    image = Image.new("RGB", (3 * wide + 60, 150 + rows * tall + 30), (242, 243, 246))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, image.width, 110), fill=tint)
    write(pen, 40, 26, page.title, pick(kit, SANS, 46, 1), LIGHT)
    font, bold = pick(kit, SANS, 28), pick(kit, SANS, 32, 1)
    for i, (dish, price) in enumerate(page.rows):
        x, y = 30 + wide * (i % 3), 130 + tall * (i // 3)
        pen.rounded_rectangle((x + 8, y + 8, x + wide - 8, y + tall - 8), 20, fill="white")
        pen.ellipse((x + 80, y + 28, x + wide - 80, y + wide - 132), fill=rng.choice(SOFT))
        write(pen, x + wide / 2, y + 162, dish, fit(font, dish, wide - 36), DARK, "m")
        write(pen, x + wide / 2, y + 212, price, bold, tint, "m")
    return image, page.asked


def draw_tags(kit: Pad, page: Page) -> Drawn:
    """The counter of a bakery: each thing has a tag of its own on a stick."""
    rng, wide = kit.rng, 330
    columns = 2 if len(page.rows) in (2, 4) else 3
    rows = -(-len(page.rows) // columns)
    image = Image.new("RGB", (columns * wide + 60, 150 + 270 * rows), (222, 206, 184))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, image.width, 110), fill=(70, 46, 34))
    write(pen, image.width / 2, 22, page.title, pick(kit, SHOWN, 54), (250, 236, 206), "m")
    for i, (thing, price) in enumerate(page.rows):
        x, y = 30 + wide * (i % columns), 140 + 270 * (i // columns)
        for j in range(3):
            spot = (x + 40 + 80 * j, y + 180, x + 130 + 80 * j, y + 240)
            pen.ellipse(spot, fill=rng.choice(((200, 140, 70), (176, 112, 54), (214, 160, 90))))
        pen.rectangle((x + wide / 2 - 5, y + 120, x + wide / 2 + 5, y + 210), fill=(120, 90, 60))
        pen.rounded_rectangle(
            (x + 24, y, x + wide - 24, y + 140), 12, fill=(252, 250, 242), outline=(150, 120, 90), width=3
        )
        font = pick(kit, HAND, 44, 1)
        write(pen, x + wide / 2, y + 8, thing, fit(font, thing, wide - 80), DARK, "m")
        write(pen, x + wide / 2, y + 66, price, font, (160, 30, 36), "m")
    return finish(kit, image, page, 4)


def draw_bar(kit: Pad, page: Page) -> Drawn:
    """A dark card: names in gold, and prices under them."""
    width = kit.rng.randint(560, 720)
    image, pen = sheet_of(width, (22, 24, 30))
    flow = Flow(pen, 60, 60, width - 120)
    flow.say(page.title, pick(kit, SHOWN[:3], 66), (226, 190, 110), "m", 1.8)
    font, bold = pick(kit, SANS, 28), pick(kit, SERIF, 38, 1)
    for name, price in page.rows:
        flow.say(name, bold, (226, 190, 110), "m", 1.35)
        flow.say(price, font, (236, 236, 232), "m", 2.1)
    for line in page.rest:
        flow.say(line, font, (170, 174, 182), "m", 1.7)
    return finish(kit, cut_at(image, flow.y + 40, 420), page, 3)


DRAW: dict[str, Callable[[Pad, Page], Drawn]] = {
    "lines": in_turn(
        *((draw_recipe, "recipe"), (draw_steps, "steps"), (draw_quote, "quote"), (draw_typed, "typed")),
        *((draw_quiz, "quiz"), (draw_todo, "todo"), (draw_medicine, "medicine")),
    ),
    "forms": in_turn(
        *((draw_library, "library"), (draw_train, "train"), (draw_parcel, "parcel"), (draw_checkout, "checkout")),
        *((draw_survey, "survey"), (draw_pass, "pass")),
    ),
    "receipts": in_turn(
        *((draw_slip, "slip"), (draw_account, "account"), (draw_packing, "packing"), (draw_order, "order")),
        *((draw_docket, "docket"), (draw_utility, "utility")),
    ),
    "menus": in_turn(
        *((draw_prices, "prices"), (draw_two, "two"), (draw_kiosk, "kiosk"), (draw_tags, "tags"), (draw_bar, "bar")),
    ),
}
