"""The receipts and menus of edition i of the drawn suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.talking_drawings import Drawn
from benchmarks.talking_edition_g import in_turn
from benchmarks.talking_edition_i_parts import (
    HAND,
    MONO,
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
from benchmarks.talking_editions import DARK, GREY, LIGHT, Pad, Page, fit, photograph, write

_FAINT = (206, 210, 216)


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
    """A confirmation on a phone: a tick in a disk, articles with thumbnails, and the sum."""
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
    """A touch screen of a restaurant: tiles in three columns with a photo, a name and a price."""
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
    "receipts": in_turn(
        *((draw_slip, "slip"), (draw_account, "account"), (draw_packing, "packing"), (draw_order, "order")),
        *((draw_docket, "docket"), (draw_utility, "utility")),
    ),
    "menus": in_turn(
        *((draw_prices, "prices"), (draw_two, "two"), (draw_kiosk, "kiosk"), (draw_tags, "tags"), (draw_bar, "bar")),
    ),
}
