"""The lines and forms of edition i of the drawn suite."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw

from benchmarks.talking_drawings import Drawn
from benchmarks.talking_edition_g import in_turn
from benchmarks.talking_edition_i_parts import (
    NARROW,
    PRINT,
    SANS,
    SERIF,
    SOFT,
    TINTS,
    Flow,
    cut_at,
    draw_bars,
    draw_tick,
    finish,
    pick,
    sheet_of,
)
from benchmarks.talking_editions import DARK, GREY, LIGHT, Pad, Page, fit, fit_all, photograph, write

_FAINT = (206, 210, 216)


def draw_recipe(kit: Pad, page: Page) -> Drawn:
    """A recipe of a web page: a photo, what goes into it with dots before, and numbered steps."""
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
    """A card with somebody's photo at the left and the fields at the right."""
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


DRAW: dict[str, Callable[[Pad, Page], Drawn]] = {
    "lines": in_turn(
        *((draw_recipe, "recipe"), (draw_steps, "steps"), (draw_quote, "quote"), (draw_typed, "typed")),
        *((draw_quiz, "quiz"), (draw_todo, "todo"), (draw_medicine, "medicine")),
    ),
    "forms": in_turn(
        *((draw_library, "library"), (draw_train, "train"), (draw_parcel, "parcel"), (draw_checkout, "checkout")),
        *((draw_survey, "survey"), (draw_pass, "pass")),
    ),
}
