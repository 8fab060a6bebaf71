"""The signs of edition i of the drawn suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.talking_drawings import Drawn, wall
from benchmarks.talking_edition_g import in_turn
from benchmarks.talking_edition_i_parts import (
    BLOCK,
    BLUE,
    HAND,
    MONO,
    NARROW,
    RED,
    SANS,
    SERIF,
    SHOWN,
    SOFT,
    TINTS,
    YELLOW,
    Flow,
    draw_bars,
    finish,
    lean,
    pick,
)
from benchmarks.talking_editions import (
    DARK,
    GREY,
    LIGHT,
    Color,
    Font,
    Pad,
    Page,
    add_grain,
    break_words,
    fit,
    fit_all,
    paint_slope,
    write,
)


def _lines_on(
    pen: ImageDraw.ImageDraw, page_lines: list[str], font: Font, middle: float, top: float, ink: Any, step: float = 1.4
) -> None:
    for i, line in enumerate(page_lines):
        write(pen, middle, top + i * step * font.size, line, font, ink, "m")


def draw_hours(kit: Pad, page: Page) -> Drawn:
    """When a shop is open, on a card behind the glass of its door."""
    rng = kit.rng
    width, size = rng.randint(640, 860), rng.randint(30, 38)
    font, bold = pick(kit, SANS, size), pick(kit, SANS, size, 1)
    tall = size * (4.2 + 1.9 * (len(page.rows) + len(page.rest)))
    image = paint_slope(width, round(tall + 260), (70, 86, 92), (124, 138, 140)).filter(ImageFilter.GaussianBlur(2))
    pen = ImageDraw.Draw(image)
    for x in (0.2 * width, 0.6 * width):
        pen.polygon(((x, 0), (x + 90, 0), (x - 60, image.height), (x - 150, image.height)), fill=(112, 130, 136))
    fill, ink = rng.choice((((252, 252, 250), DARK), ((30, 34, 40), LIGHT), ((250, 244, 226), (88, 36, 30))))
    pen.rounded_rectangle((70, 110, width - 70, 110 + tall), 14, fill=fill)
    flow = Flow(pen, 110, 110 + 0.8 * size, width - 220)
    flow.say(page.title, bold.font_variant(size=round(1.4 * size)), ink, "m", 1.9)
    for day, times in page.rows:
        flow.pair((day, times), font, ink=ink, step=1.8)
    for line in page.rest:
        flow.say(line, font, ink, "m", 1.8)
    return finish(kit, lean(kit, image), page)


def draw_street(kit: Pad, page: Page) -> Drawn:
    """The plate of a street at a wall, with its district in small letters above."""
    rng, (name, *above) = kit.rng, page.lines
    width, height = rng.randint(760, 1200), rng.randint(480, 760)
    image = wall(rng, width, height)
    font = fit(pick(kit, [*NARROW, *SANS], 0.2 * height, 1), name, 0.66 * width)
    small, wide = font.font_variant(size=max(22, round(0.42 * font.size))), font.getlength(name) + 1.6 * font.size
    tall, left = 2.0 * font.size + 1.3 * small.size * len(above), (width - wide) / 2
    top = (height - tall) * rng.uniform(0.35, 0.55)
    fill, ink = rng.choice(((BLUE, LIGHT), ((16, 92, 62), LIGHT), ((250, 250, 246), DARK)))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((left + 6, top + 9, left + wide + 6, top + tall + 9), 12, fill=(40, 36, 34))
    pen.rounded_rectangle((left, top, left + wide, top + tall), 12, fill=fill)
    pen.rounded_rectangle((left + 8, top + 8, left + wide - 8, top + tall - 8), 8, outline=ink, width=3)
    _lines_on(pen, above, small, width / 2, top + 0.3 * font.size, ink)
    write(pen, width / 2, top + 0.4 * font.size + 1.3 * small.size * len(above), name, font, ink, "m")
    return finish(kit, lean(kit, image), page)


def draw_ban(kit: Pad, page: Page) -> Drawn:
    """A white plate with a red ring and a stroke across it, and below what must not be done."""
    rng, lines = kit.rng, page.lines
    width, height = rng.randint(560, 760), rng.randint(680, 900)
    image = wall(rng, width, height)
    font = fit_all(pick(kit, SANS, 0.075 * height, 1), lines, 0.6 * width)
    pen, middle, radius = ImageDraw.Draw(image), width / 2, 0.2 * width
    top = 0.12 * height
    pen.rounded_rectangle((0.14 * width, top, 0.86 * width, 0.9 * height), 20, fill=(252, 252, 250), outline=GREY)
    center = top + 0.06 * height + radius
    slant = 0.7 * radius
    pen.line((middle - slant, center - slant, middle + slant, center + slant), fill=RED, width=26)
    pen.ellipse((middle - radius, center - radius, middle + radius, center + radius), outline=RED, width=28)
    _lines_on(pen, lines, font, middle, center + radius + 0.05 * height, DARK)
    return finish(kit, lean(kit, image), page)


def draw_room(kit: Pad, page: Page) -> Drawn:
    """A plate of brushed metal beside a door: the number of a room, who is in it, and a slide."""
    rng, (first, *lines) = kit.rng, page.rest
    width, height = rng.randint(620, 840), rng.randint(560, 740)
    image = Image.new("RGB", (width, height), rng.choice(((232, 228, 220), (206, 214, 218), (222, 206, 186))))
    grain = np.random.default_rng(rng.getrandbits(32)).normal(200, 5, (round(0.72 * height), 1, 1))
    metal = np.broadcast_to(grain, (round(0.72 * height), round(0.7 * width), 3)).clip(0, 255).astype(np.uint8)
    left, top = round(0.15 * width), round(0.13 * height)
    pen = ImageDraw.Draw(image)
    pen.rectangle((left + 7, top + 9, left + 7 + metal.shape[1], top + 9 + metal.shape[0]), fill=(150, 146, 140))
    image.paste(Image.fromarray(metal), (left, top))
    flow = Flow(pen, left + 40, top + 24, metal.shape[1] - 80)
    bold, font = pick(kit, SANS, 0.16 * height, 1), pick(kit, SANS, 0.066 * height)
    flow.say(first, bold, DARK, "l", 1.4)
    for line in lines:
        flow.say(line, font, DARK, "l", 1.45)
    for told in page.marked("*"):
        fill = (36, 140, 76) if told == "FREE" else (190, 40, 44)
        box = (left + 40, top + 0.56 * height, left + 0.55 * width, top + 0.66 * height)
        pen.rounded_rectangle(box, 10, fill=fill)
        label = fit(font, told, box[2] - box[0] - 30)
        write(pen, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2 - 0.66 * label.size, told, label, LIGHT, "m")
    return finish(kit, lean(kit, image), page)


def draw_cork(kit: Pad, page: Page) -> Drawn:
    """Notes of paper, each at a pin on a board of cork; a row is a note's colour and its lines."""
    rng, notes = kit.rng, page.rows
    columns = 2 if len(notes) in (2, 4) else 3
    wide, tall = rng.randint(340, 400), rng.randint(260, 300)
    width, height = columns * (wide + 40) + 60, -(-len(notes) // columns) * (tall + 50) + 70
    image = add_grain(kit, Image.new("RGB", (width, height), (196, 148, 96)), 26).filter(ImageFilter.GaussianBlur(1))
    paints: dict[str, Color] = {"yellow": SOFT[0], "green": SOFT[1], "pink": SOFT[2], "blue": SOFT[3]}
    for i, (color, *lines) in enumerate(notes):
        note = Image.new("RGBA", (wide, tall), paints.get(color, (252, 252, 248)))
        font = fit_all(pick(kit, HAND if rng.random() < 0.5 else SANS, 0.15 * tall), lines, 0.84 * wide)
        top = (tall - 1.5 * font.size * len(lines)) / 2
        _lines_on(ImageDraw.Draw(note), lines, font, wide / 2, top, DARK, 1.5)
        note = note.rotate(rng.uniform(-4, 4), Image.Resampling.BICUBIC, expand=True)
        x, y = 50 + (wide + 40) * (i % columns), 50 + (tall + 50) * (i // columns)
        image.paste((120, 86, 50), (x + 7, y + 9), note.getchannel("A").filter(ImageFilter.GaussianBlur(5)))
        image.paste(note, (x, y), note)
        spot = (x + note.width / 2 - 9, y + 4, x + note.width / 2 + 9, y + 22)
        ImageDraw.Draw(image).ellipse(spot, fill=rng.choice((RED, BLUE, (30, 130, 70))), outline=(70, 60, 50))
    return finish(kit, image, page, 4)


def draw_cinema(kit: Pad, page: Page) -> Drawn:
    """Black letters on rails before a lit box, as cinemas and churches have them."""
    rng, lines = kit.rng, page.lines
    width, height = rng.randint(820, 1240), rng.randint(520, 720)
    font = fit_all(pick(kit, BLOCK, 0.6 * height / (1.6 * len(lines))), lines, 0.7 * width)
    image = paint_slope(width, height, (28, 30, 58), (74, 62, 92))
    pen, step = ImageDraw.Draw(image), 1.55 * font.size
    box = (0.09 * width, (height - step * len(lines)) / 2 - 40, 0.91 * width, (height + step * len(lines)) / 2 + 40)
    pen.rectangle((box[0] - 22, box[1] - 22, box[2] + 22, box[3] + 22), fill=(120, 24, 30))
    pen.rectangle(box, fill=(250, 246, 230))
    for x in np.linspace(box[0] - 11, box[2] + 11, 26):
        for y in (box[1] - 11, box[3] + 11):
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(255, 226, 140))
    for i, line in enumerate(lines):
        y = box[1] + 40 + (i + 1) * step - 0.16 * step
        pen.line((box[0], y, box[2], y), fill=(206, 200, 184), width=3)
        write(pen, width / 2, y - 1.06 * font.size, line, font, (24, 22, 26), "m")
    return finish(kit, lean(kit, image), page, 4)


def draw_parking(kit: Pad, page: Page) -> Drawn:
    """A blue plate with a P on a post, and a white one below it that says for whom and how long."""
    rng, lines = kit.rng, page.lines
    width, height = rng.randint(560, 760), rng.randint(760, 980)
    image = paint_slope(width, height, (140, 186, 226), (220, 230, 228))
    image.paste((86, 110, 72), (0, round(0.86 * height), width, height))
    image = image.filter(ImageFilter.GaussianBlur(5))
    pen, middle, side = ImageDraw.Draw(image), width / 2, 0.4 * width
    pen.rectangle((middle - 12, 0.05 * height, middle + 12, height), fill=(132, 136, 140))
    top = 0.08 * height
    pen.rounded_rectangle((middle - side / 2, top, middle + side / 2, top + side), 20, fill=BLUE)
    pen.rounded_rectangle((middle - side / 2 + 9, top + 9, middle + side / 2 - 9, top + side - 9), 14, outline=LIGHT,
                          width=4)  # fmt: skip
    write(pen, middle, top + 0.02 * side, "P", pick(kit, SANS, 0.78 * side, 1), LIGHT, "m")
    font = fit_all(pick(kit, SANS, 0.062 * height, 1), lines, 0.62 * width)
    box = (0.13 * width, top + side + 24, 0.87 * width, top + side + 24 + (1.45 * len(lines) + 0.7) * font.size)
    pen.rounded_rectangle(box, 14, fill=(252, 252, 250), outline=DARK, width=4)
    _lines_on(pen, lines, font, middle, box[1] + 0.3 * font.size, DARK, 1.45)
    return finish(kit, lean(kit, image), page)


def draw_hazard(kit: Pad, page: Page) -> Drawn:
    """A yellow plate that warns: a black triangle with an exclamation mark, and the danger beside it."""
    rng, lines = kit.rng, page.lines
    width, height = rng.randint(820, 1200), rng.randint(460, 640)
    image = wall(rng, width, height)
    pen = ImageDraw.Draw(image)
    box = (0.08 * width, 0.16 * height, 0.92 * width, 0.84 * height)
    pen.rectangle(box, fill=YELLOW, outline=DARK, width=8)
    x, y, unit = 0.22 * width, 0.52 * height, min(0.22 * height, 0.11 * width)
    pen.polygon(((x, y - unit), (x + unit, y + 0.8 * unit), (x - unit, y + 0.8 * unit)), fill=DARK)
    pen.rectangle((x - 0.08 * unit, y - 0.45 * unit, x + 0.08 * unit, y + 0.25 * unit), fill=YELLOW)
    pen.ellipse((x - 0.1 * unit, y + 0.4 * unit, x + 0.1 * unit, y + 0.6 * unit), fill=YELLOW)
    font = fit_all(pick(kit, [*NARROW, *SANS], 0.5 * height / (1.35 * len(lines)), 1), lines, 0.5 * width)
    top = height / 2 - 0.675 * font.size * len(lines)
    for i, line in enumerate(lines):
        write(pen, 0.36 * width, top + 1.35 * i * font.size, line, font, DARK)
    return finish(kit, lean(kit, image), page)


def draw_flaps(kit: Pad, page: Page) -> Drawn:
    """A board of a station whose letters stand on flaps of their own."""
    wides = [max(map(len, cells)) for cells in zip(*page.rows, strict=True)]
    rows = [" ".join(cell.ljust(wide) for cell, wide in zip(row, wides, strict=True)) for row in page.rows]
    size = kit.rng.randint(36, 46)
    font, longest = pick(kit, MONO, size, 1), max(map(len, rows))
    wide, tall = round(0.86 * size), round(1.5 * size)
    image = Image.new("RGB", (wide * longest + 100, round(max(360, 190 + (tall + 16) * len(rows)))), (52, 54, 60))
    pen = ImageDraw.Draw(image)
    write(pen, 50, 34, page.title, pick(kit, SANS, size, 1), YELLOW)
    for r, row in enumerate(rows):
        for i, letter in enumerate(row.ljust(longest)):
            x, y = 50 + i * wide, 130 + r * (tall + 16)
            pen.rounded_rectangle((x + 1, y, x + wide - 2, y + tall), 5, fill=(18, 19, 22))
            write(pen, x + wide / 2, y + 0.12 * size, letter, font, (244, 240, 224), "m")
            pen.line((x + 1, y + tall / 2, x + wide - 2, y + tall / 2), fill=(40, 42, 46), width=1)
    return finish(kit, image, page, 3)


def draw_stone(kit: Pad, page: Page) -> Drawn:
    """Letters cut into a slab of stone."""
    rng, lines = kit.rng, page.lines
    width, height = rng.randint(760, 1100), rng.randint(520, 760)
    tint = rng.choice(((168, 166, 162), (188, 178, 160), (150, 152, 158)))
    image = add_grain(kit, Image.new("RGB", (width, height), tint), 24).filter(ImageFilter.GaussianBlur(1.2))
    pen, font = ImageDraw.Draw(image), pick(kit, SERIF, 0.6 * height / (1.5 * len(lines)), 1)
    font = fit_all(font, lines, 0.76 * width)
    pen.rectangle((30, 30, width - 30, height - 30), outline=tuple(value - 50 for value in tint), width=4)
    top = (height - 1.5 * font.size * len(lines)) / 2
    _lines_on(pen, lines, font, width / 2 + 2, top + 2, tuple(min(255, value + 50) for value in tint), 1.5)
    _lines_on(pen, lines, font, width / 2, top, (48, 46, 44), 1.5)
    return finish(kit, lean(kit, image), page, 5)


def draw_shelf(kit: Pad, page: Page) -> Drawn:
    """The label of a price at the edge of a shelf, under blurred packets."""
    rng, (price,) = kit.rng, page.marked("*")
    width, height = rng.randint(700, 940), rng.randint(560, 700)
    image = Image.new("RGB", (width, height), (92, 84, 78))
    pen = ImageDraw.Draw(image)
    x = 0
    while x < width:
        wide = rng.randint(80, 150)
        pen.rectangle((x, rng.randint(10, 80), x + wide - 6, 0.36 * height), fill=rng.choice(TINTS))
        x += wide
    image = image.filter(ImageFilter.GaussianBlur(6))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0.36 * height, width, height), fill=(206, 208, 210))
    box = (0.1 * width, 0.42 * height, 0.9 * width, 0.95 * height)
    pen.rectangle(box, fill=rng.choice(((254, 254, 252), (255, 234, 120))), outline=(120, 120, 116), width=3)
    flow = Flow(pen, box[0] + 28, box[1] + 14, 0.8 * width - 56)
    flow.say(page.title, pick(kit, SANS, 0.07 * height, 1), DARK, "l", 1.45)
    font = pick(kit, SANS, 0.042 * height)
    for line in page.rest:
        flow.say(line.removeprefix("- "), font, (64, 66, 72), "l", 1.45)
    large = pick(kit, BLOCK, 0.18 * height, 1)
    write(pen, box[2] - 28, box[3] - 1.4 * large.size, price, large, DARK, "r")
    draw_bars(rng, pen, (box[0] + 28, box[3] - 70, box[0] + 210, box[3] - 20))
    return finish(kit, lean(kit, image), page)


def draw_jar(kit: Pad, page: Page) -> Drawn:
    """A jar with a label: what is in it, by whom, and until when it keeps."""
    rng, tint = kit.rng, kit.rng.choice(TINTS)
    width, height = rng.randint(600, 760), rng.randint(760, 940)
    image = paint_slope(width, height, (226, 220, 210), (190, 176, 160))
    pen = ImageDraw.Draw(image)
    content = (226, 158, 40) if "Honey" in page.title else (128, 26, 60)
    pen.rounded_rectangle((0.1 * width, 0.16 * height, 0.9 * width, 0.95 * height), 60, fill=content)
    pen.rounded_rectangle((0.13 * width, 0.04 * height, 0.87 * width, 0.16 * height), 14, fill=(190, 184, 176))
    for x in range(round(0.14 * width), round(0.86 * width), 12):
        pen.line((x, 0.06 * height, x, 0.14 * height), fill=(168, 162, 154), width=2)
    box = (0.16 * width, 0.3 * height, 0.84 * width, 0.84 * height)
    pen.rectangle(box, fill=(252, 248, 236))
    pen.rectangle((box[0] + 10, box[1] + 10, box[2] - 10, box[3] - 10), outline=tint, width=3)
    flow = Flow(pen, box[0] + 30, box[1] + 0.04 * height, 0.68 * width - 60)
    title = break_words(page.title, 10)
    head = fit_all(pick(kit, [*SHOWN[:3], *SERIF], 0.09 * height, 1), title, flow.width)
    for line in title:
        flow.say(line, head, tint, "m", 1.25)
    flow.y += 0.03 * height
    font = fit_all(pick(kit, SANS, 0.042 * height), page.rest, flow.width)
    for line in page.rest:
        flow.say(line, font, DARK, "m", 1.55)
    return finish(kit, image, page, 4)


DRAW: dict[str, Callable[[Pad, Page], Drawn]] = {
    "signs": in_turn(
        *((draw_hours, "hours"), (draw_street, "street"), (draw_ban, "ban"), (draw_room, "room"), (draw_cork, "cork")),
        *((draw_cinema, "cinema"), (draw_parking, "parking"), (draw_hazard, "hazard"), (draw_flaps, "flaps")),
        *((draw_stone, "stone"), (draw_shelf, "shelf"), (draw_jar, "jar")),
    ),
}
