"""The looks of edition d of the drawn suite: what people show a model first, as it usually looks.

Signs in a street and on a door, papers, screens, and charts as matplotlib and Excel draw them by default. No face
belongs to a package that the reader or the talking model learns from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.talking_drawings import Drawn, as_jpeg, text, wall
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
    fit,
    fit_all,
    paint_figure,
    paint_slope,
    photograph,
    write,
)

FACES = {
    "fonts-wine": ("tahoma.ttf", "tahomabd.ttf"),
    "fonts-tlwg-loma-otf": ("Loma.otf", "Loma-Bold.otf"),
    "fonts-arundina": ("ArundinaSans.ttf", "ArundinaSans-Bold.ttf", "ArundinaSerif.ttf"),
    "fonts-lg-aboriginal": ("AboriginalSansREGULAR9433.ttf", "AboriginalSansBOLD9433.ttf"),
    "fonts-unfonts-core": ("UnDotum.ttf", "UnDotumBold.ttf", "UnBatang.ttf"),
    "fonts-stix": ("STIX-Regular.otf", "STIX-Bold.otf"),
    "fonts-gfs-didot": ("GFSDidot.otf", "GFSDidotBold.otf"),
    "fonts-sil-galatia": ("GalSILR.ttf", "GalSILB.ttf"),
    "fonts-linex": ("Quercus.ttf", "Quercus_Bold.ttf", "BABELreg.ttf", "Jara_Bold.ttf"),
    "fonts-noto-mono": ("NotoMono-Regular.ttf", "NotoSansMono-Bold.ttf"),
    "fonts-tlwg-typist-otf": ("TlwgTypist.otf", "TlwgTypist-Bold.otf"),
    "fonts-bpg-georgian": ("BPG_Glaho_GPL&GNU.ttf", "BPG_Serif_Modern_GPL&GNU.ttf"),
    "fonts-georgewilliams": ("CaslonRoman.ttf", "CaslonBold.ttf", "Caliban.ttf"),
    "fonts-eurofurence": ("eurof55.ttf", "eurof75.ttf"),
    "fonts-beteckna": ("BetecknaGS.ttf", "BetecknaGS-Bold.ttf"),
    "fonts-smc-rachana": ("Rachana-Regular.ttf", "Rachana-Bold.ttf"),
    "fonts-takao-gothic": ("TakaoPGothic.ttf",),
    "fonts-sawarabi-gothic": ("sawarabi-gothic-medium.ttf",),
    "fonts-lexi-gulim": ("LexiGulim.ttf",),
    "fonts-ipaexfont-mincho": ("ipaexm.ttf",),
    "fonts-motoya-l-maruberi": ("MTLmr3m.ttf",),
}
_PLAIN = list(FACES)[:8]
_MONO = list(FACES)[9:11]
_SCREEN = _PLAIN[:3]
_STRONG: tuple[Color, ...] = ((192, 30, 40), (22, 82, 160), (16, 110, 70), (60, 60, 66), (120, 60, 130), (200, 96, 20))
_EXCEL = ("#4472c4", "#ed7d31", "#a5a5a5", "#ffc000")
_SHAPES = {
    "red": (214, 40, 40),
    "blue": (36, 92, 204),
    "green": (34, 150, 70),
    "yellow": (250, 208, 30),
    "orange": (245, 130, 32),
    "purple": (130, 60, 160),
    "black": (20, 20, 20),
}


@dataclass(frozen=True)
class Look:
    """How the lines of a page are written: colours, ``at`` the left or in the middle, and how two ``cells`` stand.

    ``cells`` is "ends" (the second one at the right), "dots" (with dots between), "boxes" or "ruled" (of a form).
    """

    ink: Any = DARK
    tint: Any = DARK
    at: str = "l"
    cells: str = "ends"
    grey: Any = GREY


def _lay_out(page: Page, width: int, body: Font, bold: Font, look: Look) -> Image.Image:
    """The page's lines from top to bottom on a transparent ground: a title, headings, cells, boxes to tick, rules."""
    size = body.size
    steps = [_height_of(line, look) * size for line in page.lines]
    sheet = Image.new("RGBA", (width, round(sum(steps) + 0.6 * size)), (255, 255, 255, 0))
    pen, y = ImageDraw.Draw(sheet), 0.0
    x = width / 2 if look.at == "m" else 0.0
    for line, step in zip(page.lines, steps, strict=True):
        mark, _, rest = line.partition(" ")
        if mark == "!":
            write(pen, x, y, rest, fit(bold.font_variant(size=round(1.7 * size)), rest, width), look.tint, look.at)
        elif mark == "*":
            write(pen, x, y + 0.4 * size, rest, bold.font_variant(size=round(1.15 * size)), look.tint, look.at)
        elif mark == "-":
            write(pen, x, y, rest, fit(body.font_variant(size=round(0.9 * size)), rest, width), look.grey, look.at)
        elif mark == "---":
            pen.line((0, y + 0.4 * size, width, y + 0.4 * size), fill=look.grey, width=2)
        elif line.startswith(("[x] ", "[ ] ")):
            box = (2, y + 0.1 * size, 2 + size, y + 1.1 * size)
            pen.rectangle(box, fill="white", outline=look.ink, width=2)
            if line[1] == "x":
                pen.line((box[0] + 4, box[1] + 4, box[2] - 4, box[3] - 4), fill=look.ink, width=3)
                pen.line((box[0] + 4, box[3] - 4, box[2] - 4, box[1] + 4), fill=look.ink, width=3)
            write(pen, 1.6 * size, y, line[4:], body, look.ink)
        elif " | " in line:
            _write_cells(pen, line.split(" | "), y, width, body, look)
        else:
            write(pen, x, y, line, fit(body, line, width), look.ink, look.at)
        y += step
    return sheet


def _height_of(line: str, look: Look) -> float:
    """The step to the next line, in sizes of the letters."""
    if " | " in line:
        return 2.4 if look.cells in ("boxes", "ruled") else 1.9
    return {"!": 2.7, "*": 2.3, "---": 0.9, "-": 1.6}.get(line.partition(" ")[0], 1.75)


def _write_cells(pen: ImageDraw.ImageDraw, cells: list[str], y: float, width: int, font: Font, look: Look) -> None:
    (label, value), size = cells, font.size
    write(pen, 0, y, label, font, look.ink)
    if look.cells in ("boxes", "ruled"):
        left = 0.42 * width
        if look.cells == "boxes":
            pen.rectangle((left, y - 0.4 * size, width - 2, y + 1.5 * size), fill="white", outline=GREY, width=2)
        else:
            pen.line((left, y + 1.35 * size, width, y + 1.35 * size), fill=GREY, width=2)
        write(pen, left + 0.5 * size, y, value, font, (24, 40, 120))
        return
    write(pen, width, y, value, font, look.ink, "r")
    if look.cells == "dots":
        first, last = font.getlength(label) + 0.6 * size, width - font.getlength(value) - 0.6 * size
        for spot in np.arange(first, last, 0.55 * size):
            pen.ellipse((spot, y + 0.86 * size, spot + 3, y + 0.86 * size + 3), fill=look.grey)


def _mount(sheet: Image.Image, ground: Image.Image, x: float, y: float) -> Image.Image:
    ground.paste(sheet, (round(x), round(y)), sheet)
    return ground


def _paper(sheet: Image.Image, margin: int, color: Any = (252, 252, 250)) -> Image.Image:
    """The sheet on paper with a margin."""
    size = (sheet.width + 2 * margin, max(400, sheet.height + 2 * margin))
    return _mount(sheet, Image.new("RGB", size, color), margin, margin)


def _blur_street(kit: Pad, width: int, height: int) -> Image.Image:
    """A street out of focus: houses, windows and a pavement, as a camera shows what is far behind."""
    rng = kit.rng
    image = paint_slope(width, height, (176, 196, 216), (126, 124, 122))
    pen = ImageDraw.Draw(image)
    x = -40.0
    while x < width:
        wide = rng.uniform(0.12, 0.3) * width
        base = rng.choice(((158, 120, 96), (140, 140, 136), (180, 168, 146), (110, 124, 112)))
        pen.rectangle((x, rng.uniform(0, 0.35) * height, x + wide, 0.84 * height), fill=base)
        for spot in range(3):
            left = x + (0.15 + 0.28 * spot) * wide
            pen.rectangle((left, 0.5 * height, left + 0.16 * wide, 0.62 * height), fill=(70, 80, 92))
        x += wide
    return image.filter(ImageFilter.GaussianBlur(min(width, height) / 60))


def _wood(kit: Pad, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(kit.rng.getrandbits(32)).normal(0, 8, (1, width, 1))
    columns = np.array(kit.rng.choice(((150, 104, 66), (206, 176, 138), (110, 74, 50)))) + noise
    grain = Image.fromarray(np.broadcast_to(columns, (height, width, 3)).clip(0, 255).astype(np.uint8))
    return grain.filter(ImageFilter.GaussianBlur(1.5))


def draw_sign(kit: Pad, page: Page) -> Drawn:
    """A plate on a post, letters over a shop, a plate on a door, a yellow warning, or a sheet on the wall."""
    rng, layout = kit.rng, page.layout
    width, height = rng.randint(560, 1400), rng.randint(440, 1000)
    lines = [line.removeprefix("! ") for line in page.lines]
    font = kit.plain(min(0.14 * height, 0.5 * height / (1.35 * len(lines))) * rng.uniform(0.75, 1), 1)
    font = fit_all(font, lines, 0.6 * width)
    step, wide = 1.35 * font.size, max(map(font.getlength, lines)) + 1.6 * font.size
    tall = step * len(lines) + 0.9 * font.size
    extra = 1.5 * font.size if layout == "warning" else 0.0
    if layout == "notice":
        sheet = Image.new("RGB", (max(400, round(wide)), max(340, round(tall + 0.5 * font.size))), (250, 250, 248))
        for i, line in enumerate(lines):
            write(ImageDraw.Draw(sheet), sheet.width / 2, (0.6 + 1.35 * i) * font.size, line, font, DARK, "m")
        return photograph(kit, sheet), page.asked
    image = {"street": _blur_street, "plate": _wood}.get(layout, lambda kit, *size: wall(kit.rng, *size))(
        kit, width, height
    )
    pen, left, top = ImageDraw.Draw(image), (width - wide) * rng.uniform(0.3, 0.7), (height - tall - extra) / 2
    box = (left, top, left + wide, top + tall + extra)
    fill, ink = {
        "street": rng.choice((((16, 92, 60), LIGHT), ((24, 76, 156), LIGHT), ((248, 248, 246), DARK))),
        "shop": rng.choice((((40, 44, 52), LIGHT), ((250, 246, 232), (110, 24, 30)), ((20, 84, 76), LIGHT))),
        "plate": rng.choice((((214, 190, 120), DARK), ((246, 246, 244), DARK), ((198, 202, 206), DARK))),
        "warning": ((252, 204, 20), DARK),
    }[layout]
    if layout == "street":
        pen.rectangle((left + wide / 2 - 9, top, left + wide / 2 + 9, height), fill=(150, 152, 156))
    if layout == "shop":
        box = (0, top, width, top + tall)
        left = (width - wide) / 2
        pen.rectangle((0, box[3], width, height), fill=(74, 84, 92))
        pen.line((width / 2, box[3], width / 2, height), fill=(40, 44, 50), width=12)
    pen.rounded_rectangle(box, 0 if layout == "shop" else 14, fill=fill, outline=ink, width=4)
    if layout == "warning":
        middle, side = left + wide / 2, 0.62 * font.size
        base = top + 1.75 * font.size
        pen.polygon(((middle - side, base), (middle + side, base), (middle, base - 1.8 * side)), fill=DARK)
        pen.line((middle, base - 1.15 * side, middle, base - 0.5 * side), fill=fill, width=max(4, round(side / 6)))
        pen.ellipse((middle - side / 9, base - 0.36 * side, middle + side / 9, base - 0.14 * side), fill=fill)
    for i, line in enumerate(lines):
        write(pen, left + wide / 2, top + extra + 0.35 * font.size + i * step, line, font, ink, "m")
    return as_jpeg(add_grain(kit, image, 3), 88), page.asked


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word on a plain ground, on paper, on a gradient, or before something out of focus."""
    rng, word = kit.rng, page.lines[0]
    kind = rng.choice(("plain", "paper", "gradient", "blurred"))
    width, height = rng.randint(420, 1000), rng.randint(400, 720)
    font = fit(font.font_variant(size=round(rng.uniform(0.1, 0.2) * height)), word, 0.8 * width)
    tint = rng.choice(_STRONG)
    image = Image.new("RGB", (width, height), rng.choice(((255, 255, 255), (246, 242, 230), (228, 238, 248))))
    ink: Any = rng.choice((DARK, tint))
    if kind == "gradient":
        image, ink = paint_slope(width, height, tint, tuple(value // 2 for value in tint)), (255, 255, 255)
    elif kind == "blurred":
        image, ink = _blur_street(kit, width, height).point(lambda value: value // 2), (255, 255, 255)
    elif kind == "paper":
        image = add_grain(kit, image, 6)
    x, y = rng.uniform(0.1, 0.9) * (width - font.getlength(word)), rng.uniform(0.15, 0.75) * (height - 1.6 * font.size)
    write(ImageDraw.Draw(image), x, y, word, font, ink)
    questions = ("What does this say?", "What's written here?", "Please read the text in this image.", "read this")
    return as_jpeg(image, 90), [text(rng.choice(questions), word)]


def draw_receipt(kit: Pad, page: Page) -> Drawn:
    """A roll or a paper in a photograph, or a bill as a document."""
    width = kit.rng.randint(640, 800) if page.layout == "bill" else kit.rng.randint(380, 520)
    size = width / (24 if page.layout == "bill" else 17)
    body = kit.pick(_MONO if page.layout == "roll" else _PLAIN, size)
    look = Look(tint=kit.rng.choice(_STRONG)) if page.layout == "bill" else Look()
    paper = _paper(_lay_out(page, width, body, kit.plain(size, 1), look), 50)
    return (paper if page.layout == "bill" else photograph(kit, paper)), page.asked


def draw_lines(kit: Pad, page: Page) -> Drawn:
    """A note or a letter in a photograph, or a label."""
    width = kit.rng.randint(420, 700)
    longest = max(page.lines, key=len)
    body = fit(kit.plain(width / 14), longest, width)
    look = Look(at="m" if page.layout == "label" else "l")
    sheet = _lay_out(page, width, body, kit.plain(body.size, 1), look)
    colors = {
        "note": (255, 244, 168),
        "letter": (252, 252, 250),
        "label": kit.rng.choice(((255, 255, 255), (232, 244, 226))),
    }
    paper = _paper(sheet, 56, colors[page.layout])
    if page.layout != "label":
        return photograph(kit, paper), page.asked
    ImageDraw.Draw(paper).rectangle(
        (12, 12, paper.width - 13, paper.height - 13), outline=kit.rng.choice(_STRONG), width=6
    )
    return paper, page.asked


def draw_form(kit: Pad, page: Page) -> Drawn:
    width = kit.rng.randint(620, 900)
    look = Look(tint=kit.rng.choice(_STRONG), cells="boxes" if page.layout == "boxes" else "ruled")
    sheet = _lay_out(page, width, kit.plain(width / 26), kit.plain(width / 26, 1), look)
    paper = _paper(sheet, 60, (255, 255, 255) if page.layout == "lines" else (244, 246, 249))
    return (photograph(kit, paper) if page.layout == "lines" else paper), page.asked


def draw_menu(kit: Pad, page: Page) -> Drawn:
    """Paper with dots to the prices, a dark board, or a card in a frame."""
    layout, width = page.layout, kit.rng.randint(520, 800)
    size, margin = width / 20, 70
    tint = kit.rng.choice(_STRONG)
    look = Look(tint=tint, cells="dots")
    if layout == "board":
        look = Look(LIGHT, (250, 214, 120), grey=(190, 190, 186))
    sheet = _lay_out(page, width, kit.plain(size), kit.plain(size, 1), look)
    paper = _paper(sheet, margin, (44, 48, 46) if layout == "board" else (253, 248, 236))
    if layout == "framed":
        for inset, thick in ((18, 5), (30, 2)):
            box = (inset, inset, paper.width - inset, paper.height - inset)
            ImageDraw.Draw(paper).rectangle(box, outline=tint, width=thick)
    return (photograph(kit, paper) if layout == "plain" else paper), page.asked


def draw_card(kit: Pad, page: Page) -> Drawn:
    """A card written from the left or in the middle, or with a broad band."""
    width, height, tint = 960, 560, kit.rng.choice(_STRONG)
    card = Image.new("RGB", (width, height), (253, 253, 252))
    pen, size = ImageDraw.Draw(card), 38
    look = Look(tint=tint, at="m" if page.layout == "centre" else "l")
    sheet = _lay_out(page, 760, kit.plain(size), kit.plain(size, 1), look)
    if page.layout == "band":
        pen.rectangle((0, 0, 70, height), fill=tint)
    elif page.layout == "left":
        pen.rectangle((0, height - 26, width, height), fill=tint)
    _mount(sheet, card, 120 if page.layout == "band" else 100, (height - sheet.height) / 2)
    return (photograph(kit, card) if kit.rng.random() < 0.5 else card), page.asked


def draw_table(kit: Pad, page: Page) -> Drawn:
    """A grid, stripes as on a web page, a spreadsheet, or rules as in a book."""
    layout, size = page.layout, kit.rng.randint(22, 34)
    font, bold = (kit.pick(_SCREEN if layout == "sheet" else _PLAIN, size, place) for place in (0, 1))
    rows = [*(each.split(" | ") for each in page.marked("*")), *page.rows]
    if layout == "sheet":
        rows = [["", *"ABCD"[: len(rows[0])]], *([str(i), *row] for i, row in enumerate(rows, 1))]
    wides = [max(bold.getlength(row[i]) for row in rows) + 1.6 * size for i in range(len(rows[0]))]
    tall, left, top = 1.8 * size, 40.0, 3.4 * size if page.title else 40.0
    width = max(420, round(sum(wides) + 2 * left), round(1.3 * bold.getlength(page.title) + 2 * left))
    image = Image.new("RGB", (width, max(400, round(top + tall * len(rows) + 40))), "white")
    pen, tint, head = ImageDraw.Draw(image), kit.rng.choice(_STRONG), 1 if layout == "sheet" else 0
    write(pen, left, size, page.title, bold.font_variant(size=round(1.25 * size)), DARK)
    for r, row in enumerate(rows):
        y, x = top + r * tall, left
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            box, ink = (x, y, x + wide, y + tall), DARK
            if layout == "grid":
                pen.rectangle(box, fill=(228, 232, 238) if r == 0 else None, outline=(90, 92, 96), width=1)
            elif layout == "sheet":
                is_edge = r == 0 or i == 0
                pen.rectangle(box, fill=(230, 230, 230) if is_edge else None, outline=(200, 200, 200))
                ink = GREY if is_edge else DARK
            elif layout == "striped":
                pen.rectangle(box, fill=tint if r == 0 else (238, 242, 248) if r % 2 == 0 else None)
                ink = LIGHT if r == 0 else DARK
            write(pen, x + 0.5 * size, y + 0.25 * size, cell, bold if r == head else font, ink)
            x += wide
        if layout == "rules" and r in (0, len(rows) - 1):
            pen.line((left, y + tall, x, y + tall), fill=DARK, width=2)
    return image, page.asked


def draw_window(kit: Pad, page: Page) -> Drawn:
    """A dialogue on a desktop, a list of settings, or a mail."""
    size = kit.rng.randint(24, 30)
    body, bold = (kit.pick(_SCREEN, size, place) for place in (0, 1))
    buttons = [line.strip("[]") for line in page.lines if line.startswith("[")]
    width = 560 if page.layout == "settings" else 760
    if page.layout == "settings":
        sheet = _lay_out(page, width, body, bold, Look())
        return _paper(sheet, 44, kit.rng.choice(((246, 247, 250), (255, 255, 255)))), page.asked
    inner = Page(page.layout, [line for line in page.lines if not line.startswith(("[", "! "))])
    sheet, bar = _lay_out(inner, width, body, bold, Look(tint=(22, 82, 160))), 2 * size
    window = Image.new("RGB", (width + 80, bar + sheet.height + 60 + (3 * size if buttons else 0)), (250, 250, 251))
    pen = ImageDraw.Draw(window)
    pen.rectangle((0, 0, window.width, bar), fill=kit.rng.choice(((222, 224, 230), (22, 82, 160), (60, 60, 66))))
    ink = DARK if window.getpixel((2, 2)) == (222, 224, 230) else LIGHT
    write(pen, 24, 0.45 * size, page.title, fit(bold, page.title, width - 60), ink)
    for offset in (-9, 9):
        pen.line((window.width - 40, bar / 2 - offset, window.width - 22, bar / 2 + offset), fill=ink, width=3)
    _mount(sheet, window, 40, bar + 34)
    right = window.width - 30.0
    for label in reversed(buttons):
        wide = body.getlength(label) + 1.6 * size
        box = (right - wide, window.height - 2.6 * size, right, window.height - 0.8 * size)
        pen.rounded_rectangle(box, 8, fill=(232, 234, 238), outline=GREY, width=1)
        write(pen, right - wide / 2, box[1] + 0.3 * size, label, body, DARK, "m")
        right -= wide + 20
    if page.layout == "mail":
        return window, page.asked
    desk = paint_slope(
        window.width + 240, window.height + 260, *kit.rng.sample(((20, 70, 120), (90, 130, 160), (60, 40, 90)), 2)
    )
    desk.paste(window, (120, 130))
    return desk, page.asked


def draw_poster(kit: Pad, page: Page) -> Drawn:
    """Before a blurred photograph, black on white, or between two bars of a colour."""
    rng, layout, tint = kit.rng, page.layout, kit.rng.choice(_STRONG)
    width, height = rng.randint(600, 840), rng.randint(800, 1100)
    image = Image.new("RGB", (width, height), (252, 252, 250))
    look = Look(tint=tint if layout == "bars" else DARK, at="m")
    if layout == "photo":
        sky = paint_slope(width, height, tint, (24, 24, 40))
        for _ in range(14):
            x, y, side = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(20, 80)
            ImageDraw.Draw(sky).ellipse((x, y, x + side, y + side), fill=tuple(min(255, value + 60) for value in tint))
        image, look = (
            sky.filter(ImageFilter.GaussianBlur(16)).point(lambda value: value * 3 // 4),
            Look(LIGHT, LIGHT, "m"),
        )
    elif layout == "bars":
        for y in (0, 0.88 * height):
            ImageDraw.Draw(image).rectangle((0, y, width, y + 0.12 * height), fill=tint)
    body = fit_all(kit.plain(width / 15), page.rest, 0.8 * width)
    sheet = _lay_out(page, round(0.84 * width), body, kit.plain(body.size, 1), look)
    _mount(sheet, image, 0.08 * width, (height - sheet.height) * rng.uniform(0.35, 0.6))
    return (photograph(kit, image) if rng.random() < 0.3 else as_jpeg(image, 90)), page.asked


def draw_chart(kit: Pad, page: Page) -> Drawn:
    is_excel, paint = page.layout.startswith("excel"), partial(_paint_chart, page)
    if not is_excel:
        return paint_figure(kit.rng, kit.font("fonts-arundina", 20), "white", "black", paint), page.asked
    look = {
        "axes.prop_cycle": _cycle(_EXCEL),
        "axes.axisbelow": True,
        "grid.color": "#d9d9d9",
        "axes.edgecolor": "#d9d9d9",
        **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left"), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        "savefig.pad_inches": 0.25,
    }
    return paint_figure(kit.rng, kit.font("fonts-tlwg-loma-otf", 20), "white", "#595959", paint, **look), page.asked


def _cycle(colors: Sequence[str]) -> Any:
    from matplotlib.rcsetup import cycler

    return cycler(color=colors)


def _paint_chart(page: Page, axes: Any) -> None:
    program, kind = page.layout.split()
    title, *series = page.title.split(" | ")
    labels, values = [row[0] for row in page.rows], np.array([[float(v) for v in row[1:]] for row in page.rows])
    if kind == "pie":
        if program == "mpl":
            axes.pie(values[:, 0], labels=labels, autopct="%1.0f%%")
        else:
            axes.pie(values[:, 0], autopct="%1.0f%%", colors=_EXCEL, startangle=90, textprops={"color": "white"})
            axes.legend(labels, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncol=4, frameon=False)
    elif kind == "hbars":
        axes.barh(labels, values[:, 0], height=0.5 if program == "excel" else 0.8)
    elif kind == "lines":
        for i, label in enumerate(series):
            axes.plot(labels, values[:, i], label=label, linewidth=2.5 if program == "excel" else None)
    else:
        share = (0.6 if program == "excel" else 0.8) / values.shape[1]
        for i, label in enumerate(series or [""]):
            spots = np.arange(len(labels)) + (i - (values.shape[1] - 1) / 2) * share
            axes.bar(spots, values[:, i], share, label=label)
        axes.set_xticks(range(len(labels)), labels)
    if kind != "pie" and program == "excel":
        axes.grid(axis="x" if kind == "hbars" else "y")
        if kind == "lines":
            axes.set_ylim(bottom=0)
    if len(series) > 1:
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.08), "ncol": 3, "frameon": False}
        axes.legend(**(below if program == "excel" else {}))
    for names in page.marked("*"):
        across, up = names.split(" | ")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
    axes.set_title(title)


def draw_shapes(kit: Pad, page: Page) -> Drawn:
    """A few flat shapes, by colour and kind, place and radius in hundredths; or a house with trees before the sky."""
    if page.layout == "scene":
        return _draw_scene(kit, page)
    side = kit.rng.randint(480, 900)
    ground = (255, 255, 255) if page.layout == "plain" else kit.rng.choice(((226, 236, 246), (246, 238, 220)))
    large = Image.new("RGB", (2 * side, 2 * side), ground)
    for told, place, radius in page.rows:
        color, kind = told.split()
        x, y = (float(each) * side / 50 for each in place.split())
        _draw_shape(ImageDraw.Draw(large), kind, x, y, float(radius) * side / 50, _SHAPES[color])
    return large.resize((side, side), Image.Resampling.LANCZOS), page.asked


def _draw_shape(pen: ImageDraw.ImageDraw, kind: str, x: float, y: float, radius: float, color: Color) -> None:
    if kind == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
        return
    radii, turn = {"square": ((1.2,) * 4, 45), "triangle": ((1.15,) * 3, -90), "star": ((1.1, 0.44) * 5, -90)}[kind]
    angles = [math.radians(turn + 360 * i / len(radii)) for i in range(len(radii))]
    pen.polygon(
        [(x + radius * r * math.cos(a), y + radius * r * math.sin(a)) for r, a in zip(radii, angles, strict=True)],
        fill=color,
    )


def _draw_scene(kit: Pad, page: Page) -> Drawn:
    rng = kit.rng
    width, height = rng.randint(760, 1100), rng.randint(520, 720)
    image = paint_slope(width, height, (110, 164, 226), (228, 238, 246))
    pen, told = ImageDraw.Draw(image), " ".join(page.lines)
    pen.rectangle((0, 0.68 * height, width, height), fill=(104, 150, 70))
    left, right, top, base = 0.12 * width, 0.5 * width, 0.44 * height, 0.8 * height
    pen.rectangle((left, top, right, base), fill=(236, 226, 206))
    roof = _SHAPES["red" if "red" in told else "blue"]
    pen.polygon(((left - 26, top), (right + 26, top), ((left + right) / 2, 0.18 * height)), fill=roof)
    pen.rectangle((left + 0.15 * width, 0.6 * height, left + 0.23 * width, base), fill=(110, 74, 50))
    for x in (left + 0.04 * width, left + 0.27 * width):
        pen.rectangle(
            (x, 0.54 * height, x + 0.07 * width, 0.66 * height), fill=(120, 150, 180), outline=(250, 250, 250)
        )
    for x in (0.66, 0.87)[: 2 if "two" in told else 1]:
        pen.rectangle(((x - 0.012) * width, 0.56 * height, (x + 0.012) * width, 0.84 * height), fill=(104, 72, 44))
        for dx, dy in ((-0.045, 0.46), (0.045, 0.46), (0, 0.36), (0, 0.5)):
            spot, side = (x + dx) * width, 0.065 * width
            pen.ellipse((spot - side, dy * height - side, spot + side, dy * height + side), fill=(46, 112, 52))
    return as_jpeg(add_grain(kit, image.filter(ImageFilter.GaussianBlur(1.2)), 5), 88), page.asked


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
EDITION = Edition(letter="d", faces=FACES, plain=_PLAIN, draw_word=draw_word, draw=_DRAW)
