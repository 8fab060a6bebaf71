"""The looks of edition i of the drawn suite: everyday things once more, in faces of npm's packages.

Opening hours, cork boards, cinemas, split flaps, shelves and jars, recipes and quizzes, library cards and parcels,
packing slips, price lists, name badges, calendars, timetables, inboxes, dashboards, and charts of plotly and Power BI.
About one question in six asks for a single word or phrase.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from benchmarks import talking_edition_i_bills as bills
from benchmarks import talking_edition_i_figures as figures
from benchmarks import talking_edition_i_papers as papers
from benchmarks import talking_edition_i_screens as screens
from benchmarks import talking_edition_i_signs as signs
from benchmarks.talking_drawings import Drawn, text
from benchmarks.talking_edition_g import in_turn
from benchmarks.talking_edition_i_parts import (
    BLOCK,
    FACES,
    HAND,
    PRINT,
    RED,
    SANS,
    SERIF,
    SHOWN,
    SOFT,
    TINTS,
    YELLOW,
    Flow,
    finish,
    pick,
)
from benchmarks.talking_editions import (
    DARK,
    GREY,
    LIGHT,
    Edition,
    Font,
    Pad,
    Page,
    break_words,
    fit,
    fit_all,
    paint_slope,
    photograph,
    write,
)


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word on a button, in a dashed badge, over two colours, or as the head of a page of grey lines."""
    rng, word = kit.rng, page.lines[0]
    kind, tint = rng.choice(("button", "badge", "halves", "page")), rng.choice(TINTS)
    width, height = rng.randint(480, 1000), rng.randint(400, 660)
    font = fit(font.font_variant(size=round(rng.uniform(0.15, 0.24) * height)), word, 0.68 * width)
    image, ink = Image.new("RGB", (width, height), rng.choice((*SOFT, (250, 250, 248), (250, 250, 248)))), DARK
    pen, wide = ImageDraw.Draw(image), font.getlength(word)
    left, y = rng.uniform(0.35, 0.65) * (width - wide), rng.uniform(0.32, 0.46) * height
    box = (left - 0.7 * font.size, y - 0.25 * font.size, left + wide + 0.7 * font.size, y + 1.65 * font.size)
    if kind == "button":
        pen.rounded_rectangle((box[0], box[1] + 6, box[2], box[3] + 6), 0.95 * font.size, fill=(150, 150, 148))
        pen.rounded_rectangle(box, 0.95 * font.size, fill=tint)
        ink = LIGHT
    elif kind == "badge":
        for i in range(0, round(box[2] - box[0]), 24):
            for edge in (box[1], box[3]):
                pen.line((box[0] + i, edge, box[0] + i + 14, edge), fill=tint, width=5)
        ink = tint
    elif kind == "halves":
        image.paste((250, 248, 242), (0, 0, width, height))
        pen.polygon(((0, 0), (width, 0), (width, 0.5 * y), (0, 0.9 * y)), fill=tint)
    else:
        image.paste((252, 252, 250), (0, 0, width, height))
        y = 0.14 * height
        for i in range(5):
            edge = y + (2.2 + 0.55 * i) * font.size
            if edge < height - 20:
                pen.rectangle(
                    (left, edge, left + rng.uniform(0.7, 1) * 0.8 * (width - left), edge + 8), fill=(218, 220, 224)
                )
    write(pen, left, y, word, font, ink)
    questions = (
        "What does it say in this picture?",
        "Please read the text.",
        "Which word is shown?",
        "what is written there",
    )
    return finish(kit, image, Page("", [], [text(rng.choice(questions), word)]), 2, 90)


def draw_hello(kit: Pad, page: Page) -> Drawn:
    """A sticker with a name that is written by hand under two printed lines."""
    tint, (first, second, name, *rest) = kit.rng.choice((*TINTS[:5], RED)), page.lines
    card = Image.new("RGB", (820, 560), tint)
    pen = ImageDraw.Draw(card)
    write(pen, 410, 20, first, pick(kit, SANS, 74, 1), LIGHT, "m")
    write(pen, 410, 112, second, pick(kit, SANS, 36), LIGHT, "m")
    pen.rectangle((0, 190, 820, 510), fill=(254, 254, 252))
    flow = Flow(pen, 60, 220, 700)
    flow.say(name, pick(kit, HAND, 128, 1), (26, 30, 60), "m", 1.2)
    for line in rest:
        flow.say(line, pick(kit, HAND, 54), (26, 30, 60), "m", 1.3)
    return photograph(kit, card), page.asked


def draw_lanyard(kit: Pad, page: Page) -> Drawn:
    """The badge of a conference on its ribbon: the event, a name, what the person does and where."""
    tint = kit.rng.choice(TINTS)
    image = Image.new("RGB", (640, 860), kit.rng.choice(((210, 214, 220), (196, 186, 172))))
    pen = ImageDraw.Draw(image)
    for x in (150, 490):
        pen.polygon(((x - 26, 0), (x + 26, 0), (346, 116), (294, 116)), fill=tint)
    pen.rounded_rectangle((70, 110, 570, 810), 24, fill=(254, 254, 252), outline=(170, 172, 176), width=2)
    pen.rounded_rectangle((270, 128, 370, 150), 10, fill=(196, 200, 206))
    pen.rectangle((70, 180, 570, 330), fill=tint)
    event, *rest = page.rest
    flow = Flow(pen, 100, 205, 440)
    for line in break_words(event, 22):
        flow.say(line, pick(kit, SANS, 40, 1), LIGHT, "m", 1.3)
    flow.y = 380
    for line in break_words(page.title, 12):
        flow.say(line, pick(kit, SANS, 66, 1), DARK, "m", 1.25)
    flow.y += 24
    for line in page.marked("*"):
        flow.say(line, pick(kit, SANS, 38), tint, "m", 1.5)
    for line in rest:
        flow.say(line, pick(kit, SANS, 34), GREY, "m", 1.5)
    return finish(kit, image, page, 3)


def draw_halves(kit: Pad, page: Page) -> Drawn:
    """A card whose left half is coloured and has the firm, and whose right half has the person."""
    tint, (firm, *rest) = kit.rng.choice(TINTS), page.rest
    card = Image.new("RGB", (1000, 570), (254, 254, 252))
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, 400, 570), fill=tint)
    pen.regular_polygon((200, 190, 80), 6, fill=LIGHT)
    pen.regular_polygon((200, 190, 46), 6, fill=tint)
    flow = Flow(pen, 30, 310, 340)
    for line in break_words(firm, 14):
        flow.say(line, pick(kit, SERIF, 42, 1), LIGHT, "m", 1.3)
    flow = Flow(pen, 450, 120, 510)
    flow.say(page.title, pick(kit, PRINT, 50, 1), DARK, step=1.5)
    for line in page.marked("*"):
        flow.say(line, pick(kit, PRINT, 34), tint, step=2.2)
    for line in rest:
        flow.say(line, pick(kit, PRINT, 32), DARK, step=1.6)
    return (photograph(kit, card) if kit.rng.random() < 0.5 else card), page.asked


def draw_signature(kit: Pad, page: Page) -> Drawn:
    """The end of an e-mail: a greeting, a bar of colour, a name and where its owner works."""
    tint, (greeting, *rest) = kit.rng.choice(TINTS), page.rest
    image = Image.new("RGB", (880, 480), "white")
    pen = ImageDraw.Draw(image)
    font, bold = pick(kit, SANS, 30), pick(kit, SANS, 38, 1)
    write(pen, 60, 40, greeting, font, DARK)
    pen.rectangle((60, 120, 68, 430), fill=tint)
    flow = Flow(pen, 100, 116, 720)
    flow.say(page.title, bold, tint)
    for line in page.marked("*"):
        flow.say(line, font, GREY, step=1.9)
    for line in rest:
        flow.say(line, font, DARK, step=1.6)
    return image, page.asked


def draw_loyalty(kit: Pad, page: Page) -> Drawn:
    """A card with circles, some of which are stamped; its row says how many of how many."""
    tint, rng = kit.rng.choice(TINTS), kit.rng
    card = Image.new("RGB", (960, 560), rng.choice(((248, 240, 224), (254, 254, 252), (232, 238, 232))))
    pen = ImageDraw.Draw(card)
    flow = Flow(pen, 60, 36, 840)
    flow.say(page.title, pick(kit, SHOWN, 64), tint, "m", 1.5)
    for line in page.rest:
        flow.say(line, pick(kit, SANS, 32), DARK, "m", 1.4)
    ((_, counts),) = page.rows
    stamped, spots = map(int, counts.split(" of "))
    for i in range(spots):
        x, y = 480 + (i % 5 - 2) * 160, 340 + 120 * (i // 5)
        pen.ellipse((x - 48, y - 48, x + 48, y + 48), outline=GREY, width=3)
        if i < stamped:
            x, y = x + rng.randint(-6, 6), y + rng.randint(-6, 6)
            pen.regular_polygon((x, y, 44), 5, rng.randint(0, 70), fill=tint)
    return photograph(kit, card), page.asked


def draw_missing(kit: Pad, page: Page) -> Drawn:
    """A sheet that looks for a pet: a large head, a drawing of the animal, and how to tell its owner."""
    rng = kit.rng
    image = Image.new("RGB", (720, 1000), (254, 254, 250))
    pen = ImageDraw.Draw(image)
    flow = Flow(pen, 50, 30, 620)
    flow.say(page.title, pick(kit, BLOCK, 110), RED, "m", 1.55)
    fur = rng.choice(((90, 70, 54), (60, 60, 64), (206, 140, 70)))
    pen.rectangle((160, 210, 560, 540), fill=(206, 220, 206))
    pen.ellipse((230, 380, 490, 640), fill=fur)
    pen.rectangle((160, 540, 560, 640), fill=(254, 254, 250))
    for x in (290, 430):
        pen.polygon(((x - 50, 330), (x + 50, 330), (x + (-40 if x < 360 else 40), 230)), fill=fur)
    pen.ellipse((260, 270, 460, 450), fill=fur)
    for x in (315, 405):
        pen.ellipse((x - 16, 330, x + 16, 362), fill=(240, 220, 90))
        pen.ellipse((x - 6, 334, x + 6, 358), fill=DARK)
    flow.y = 570
    font = fit_all(pick(kit, SANS, 46), page.rest, 620)
    for line in page.rest:
        flow.say(line, font, DARK, "m", 1.6)
    return photograph(kit, image), page.asked


def draw_sale(kit: Pad, page: Page) -> Drawn:
    """A coloured sheet with a burst of yellow around the first of its lines."""
    tint, rng = kit.rng.choice(TINTS), kit.rng
    width, height = rng.randint(660, 820), rng.randint(880, 1040)
    image = Image.new("RGB", (width, height), tint)
    pen = ImageDraw.Draw(image)
    flow = Flow(pen, 50, 0.05 * height, width - 100)
    head = break_words(page.title, 14)
    bold = fit_all(pick(kit, SHOWN, width / 8), head, flow.width)
    for line in head:
        flow.say(line, bold, LIGHT, "m", 1.25)
    burst, *rest = page.rest
    x, y, radius = width / 2, 0.52 * height, 0.3 * width
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    reach = [radius if i % 2 else 0.86 * radius for i in range(40)]
    pen.polygon([(x + r * np.cos(t), y + r * np.sin(t)) for r, t in zip(reach, turns, strict=True)], fill=YELLOW)
    font = fit(pick(kit, BLOCK, 0.24 * width, 1), burst, 1.4 * radius)
    write(pen, x, y - 0.68 * font.size, burst, font, DARK, "m")
    flow.y = 0.76 * height
    body = fit_all(pick(kit, SANS, width / 15), rest, flow.width)
    for line in rest:
        flow.say(line, body, LIGHT, "m", 1.5)
    return finish(kit, image, page, 1, 88)


def draw_bill(kit: Pad, page: Page) -> Drawn:
    """Who plays at a festival: names that become smaller from line to line, between two bands of waves."""
    width, height = kit.rng.randint(680, 840), kit.rng.randint(920, 1080)
    low, high = kit.rng.sample(TINTS, 2)
    image = paint_slope(width, height, tuple(value // 2 for value in low), high)
    pen, wave = ImageDraw.Draw(image), np.linspace(0, width, 80)
    for i, ink in enumerate(((250, 210, 90), (240, 130, 90))):
        edge = height - 70 + 30 * i + 16 * np.sin(wave / 60 + i)
        pen.polygon([*zip(wave, edge, strict=True), (width, height), (0, height)], fill=ink)
    flow = Flow(pen, 50, 0.06 * height, width - 100)
    head = break_words(page.title, 13)
    for line in head:
        flow.say(line, fit_all(pick(kit, SHOWN, width / 8), head, flow.width), (255, 226, 130), "m", 1.3)
    font = pick(kit, SANS, width / 19)
    for line in page.marked("-"):
        flow.say(line, font, LIGHT, "m", 2.2)
    for i, line in enumerate(page.marked("*")):
        flow.say(line, pick(kit, BLOCK, width / (9 + 2 * i)), LIGHT, "m", 1.55)
    flow.y = max(flow.y + 20, 0.72 * height)
    for line in (each for each in page.rest if not each.startswith("- ")):
        flow.say(line, font, LIGHT, "m", 1.6)
    return finish(kit, image, page, 1, 88)


def draw_lecture(kit: Pad, page: Page) -> Drawn:
    """A sober sheet of a university: a title at the left, small lines, and a bar down its side."""
    tint = kit.rng.choice(TINTS)
    width, height = kit.rng.randint(700, 840), kit.rng.randint(900, 1060)
    image = Image.new("RGB", (width, height), (250, 249, 245))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 54, height), fill=tint)
    pen.ellipse((width - 170, 50, width - 60, 160), outline=tint, width=10)
    flow = Flow(pen, 110, 0.09 * height, width - 170)
    for line in page.marked("-"):
        flow.say(line, pick(kit, SANS, width / 26), tint, step=4)
    head = break_words(page.title, 16)
    bold = fit_all(pick(kit, SERIF, width / 10, 1), head, flow.width)
    for line in head:
        flow.say(line, bold, DARK, step=1.25)
    flow.y += 0.06 * height
    for line in (each for each in page.rest if not each.startswith("- ")):
        flow.say(line, pick(kit, SANS, width / 21), DARK, step=1.75)
    return (photograph(kit, image) if kit.rng.random() < 0.4 else image), page.asked


_DRAW: dict[str, Callable[[Pad, Page], Drawn]] = {
    **signs.DRAW,
    "business cards": in_turn(
        *((draw_hello, "hello"), (draw_lanyard, "lanyard"), (draw_halves, "halves"), (draw_loyalty, "loyalty")),
        (draw_signature, "signature"),
    ),
    "posters": in_turn(
        *((draw_missing, "missing"), (draw_sale, "sale"), (draw_bill, "bill"), (draw_lecture, "lecture")),
    ),
    **papers.DRAW,
    **bills.DRAW,
    **screens.DRAW,
    **figures.DRAW,
}
EDITION = Edition(letter="i", faces=FACES, plain=PRINT, draw_word=draw_word, draw=_DRAW)
