"""The looks of edition h of the drawn suite: those of e, f and g in other faces, and a few of its own.

Its own are carved planks, cardboard and tiles, captions over an image, index cards, boarding passes, rankings, folders
of files and the weather, charts of Excel with a frame or on a dark ground, and shapes on squared paper or with shadows.
About one question in six asks for a single word or phrase.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks import talking_edition_e, talking_edition_f, talking_edition_g
from benchmarks import talking_edition_e_figures as e_figures
from benchmarks import talking_edition_e_parts as e_parts
from benchmarks import talking_edition_f_figures as f_figures
from benchmarks import talking_edition_f_parts as f_parts
from benchmarks.talking_drawings import Drawn, as_jpeg, text, wall
from benchmarks.talking_edition_e_figures import ChartLooks, outline_of, paint_chart
from benchmarks.talking_edition_g import in_turn
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
    "fonts-migmix": (
        *("migu-1p-regular.ttf", "migu-1p-bold.ttf", "migmix-2p-regular.ttf", "migmix-1m-bold.ttf"),
        "migu-1m-regular.ttf",
    ),
    "fonts-sil-mingzat": ("Mingzat-Regular.ttf",),
    "fonts-beng-extra": ("JamrulNormal.ttf",),
    "fonts-mona": ("mona.ttf",),
    "fonts-dzongkha": ("Jomolhari-alpha3c-0605331.ttf",),
    "fonts-tibetan-machine": ("TibetanMachineUni.ttf",),
    "fonts-oradano-mincho-gsrr": ("OradanoGSRR.ttf",),
    "fonts-symbola": ("Symbola_hint.ttf",),
    "fonts-aksharyogini2": ("Aksharyogini2Normal.ttf",),
    "fonts-taml-tscu": ("TSCu_Comic.ttf", "TSCu_Paranar.ttf", "TSCu_paranarb.ttf"),
    "fonts-aenigma": ("jmacscrl.ttf", "inkswipe.ttf", "lamebrai.ttf", "lethargi.ttf", "jekyll.ttf"),
    "fonts-cabinsketch": ("CabinSketch-Bold.ttf", "CabinSketch-Regular.ttf"),
    "fonts-gfs-theokritos": ("GFSTheokritos.otf",),
    "fonts-atarismall": ("AtariSmall.ttf",),
    "fonts-glasstty": ("Glass_TTY_VT220.ttf",),
    "fonts-ubuntu-title": ("Ubuntu-Title.ttf",),
    "fonts-sil-lateef": ("Lateef-Medium.ttf", "Lateef-Bold.ttf"),
    "fonts-sambhota-yigchung": ("TibetanSambhotaYigchung.ttf",),
    "fonts-smc-suruma": ("Suruma.ttf",),
}
_PRINT = list(FACES)[:9]  # the points of some of the others are hardly seen in small print
_SANS = _PRINT[:4]
_HAND = ["fonts-taml-tscu", "fonts-aenigma"]
_SHOWN = ["fonts-cabinsketch", "fonts-gfs-theokritos", "fonts-oradano-mincho-gsrr"]
_STAND_INS = {
    **dict(zip(talking_edition_g.EDITION.plain, _PRINT, strict=True)),
    **dict(zip(f_parts.PRINT, _PRINT, strict=True)),
    **dict(zip(e_parts.PRINT, (*_PRINT[1:4], _PRINT[0], *_PRINT[4:]), strict=True)),
    **dict(zip(f_parts.HAND, _HAND, strict=True)),
    **dict.fromkeys(("fonts-teluguvijayam", "fonts-woowa-bm", "fonts-reggae"), _SHOWN[0]),
    **dict.fromkeys(("fonts-le-murmure", "fonts-smc-dyuthi", "fonts-aoyagi-soseki"), _SHOWN[1]),
    "fonts-smc-keraleeyam": _SHOWN[2],
    "fonts-unifont": "fonts-atarismall",
    "fonts-alee": _HAND[0],
    "fonts-seto": _HAND[1],
}
_TINTS: tuple[Color, ...] = ((16, 92, 128), (150, 44, 44), (62, 104, 48), (112, 62, 122), (176, 96, 20), (44, 60, 96))
_OFFICE = ("#4472c4", "#ed7d31", "#a5a5a5", "#ffc000", "#5b9bd5")
_RIGHT = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False}
_BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1), "ncols": 4, "frameon": False}
_LOOKS = {
    "mpl": ChartLooks(
        ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"), lines_of="both", width=0.8, key={}, turns=False
    ),
    "excel": ChartLooks(_OFFICE, has_key=True, width=0.42, key=_RIGHT),
    "office": ChartLooks(_OFFICE, has_values=True, width=0.66, key=_BELOW),
    "dark": ChartLooks(("#ed7d31", "#ffc000", "#5b9bd5"), width=0.5, key=_BELOW),
}
_FILLS: dict[str, Color] = {  # of the shapes with shadows; else as in edition e
    **e_figures.FILLS,
    "red": (232, 62, 62),
    "blue": (58, 134, 255),
    "green": (46, 174, 96),
    "yellow": (255, 214, 64),
    "orange": (250, 146, 30),
}


def draw_sign(kit: Pad, page: Page) -> Drawn:
    """Planks with carved letters on two posts, a piece of cardboard on a string, or tiles in a wall."""
    rng, layout, lines = kit.rng, page.layout, page.lines
    width, height = rng.randint(640, 1240), rng.randint(480, 900)
    faces = {"wooden": _SHOWN, "cardboard": _HAND, "tile": _PRINT[4:]}[layout]
    font = kit.pick(faces, min(0.15 * height, 0.5 * height / (1.5 * len(lines))) * rng.uniform(0.85, 1))
    font = fit_all(font, lines, 0.6 * width)
    step, wide = 1.5 * font.size, max(map(font.getlength, lines)) + 2 * font.size
    tall = step * len(lines) + 0.8 * font.size
    left, top = (width - wide) * rng.uniform(0.35, 0.65), (height - tall) * rng.uniform(0.4, 0.55)
    right, bottom, ink = left + wide, top + tall, DARK
    image = wall(rng, width, height)
    if layout == "wooden":
        image = paint_slope(width, height, (172, 204, 232), (224, 232, 222))
        image.paste((96, 128, 74), (0, round(0.74 * height), width, height))
        image, ink = image.filter(ImageFilter.GaussianBlur(4)), (58, 34, 18)
    pen = ImageDraw.Draw(image)
    if layout == "wooden":
        for x in (left + 0.2 * wide, right - 0.2 * wide):
            pen.rectangle((x - 14, top - 24, x + 14, height), fill=(92, 64, 42))
        for i in range(len(lines)):
            y, shade = top + i * (tall / len(lines)), rng.randint(-12, 12)
            plank = (left + rng.randint(-14, 14), y, right + rng.randint(-14, 14), y + tall / len(lines) - 8)
            pen.rectangle(plank, fill=(198 + shade, 152 + shade, 100 + shade), outline=(120, 84, 50), width=3)
        step, top = tall / len(lines), top - 0.45 * font.size + (tall / len(lines) - 1.3 * font.size) / 2
    elif layout == "cardboard":
        pen.line((left + 0.15 * wide, top, width / 2, 0, right - 0.15 * wide, top), fill=(226, 222, 208), width=4)
        pen.rectangle((left + 7, top + 9, right + 7, bottom + 9), fill=(50, 44, 38))
        pen.rectangle((left, top, right, bottom), fill=rng.choice(((196, 158, 112), (206, 172, 128))))
        ink = rng.choice((DARK, (150, 26, 30), (26, 44, 120)))
    else:
        edge, ink = 0.9 * font.size, (28, 58, 128)
        pen.rectangle((left - edge, top - edge, right + edge, bottom + edge), fill=(28, 58, 128))
        pen.rectangle((left, top, right, bottom), fill=(246, 242, 228))
        for x in np.linspace(left - edge, right, round(wide / edge) + 2):
            for y in (top - edge / 2, bottom + edge / 2):
                pen.ellipse((x + 4, y - edge / 2 + 4, x + edge - 4, y + edge / 2 - 4), fill=(240, 196, 70))
    for i, line in enumerate(lines):
        write(pen, left + wide / 2, top + 0.45 * font.size + i * step, line, font, ink, "m")
    return as_jpeg(add_grain(kit, image, 3), 87), page.asked


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word in a speech bubble, between two rules, on a gradient, or in a rubber stamp's frame."""
    rng, word = kit.rng, page.lines[0]
    kind, tint = rng.choice(("bubble", "rules", "slope", "stamp")), rng.choice(_TINTS)
    width, height = rng.randint(500, 1000), rng.randint(400, 640)
    font = fit(font.font_variant(size=round(rng.uniform(0.16, 0.24) * height)), word, 0.64 * width)
    wide, ink = font.getlength(word), tint
    left, y = rng.uniform(0.3, 0.7) * (width - wide), rng.uniform(0.3, 0.48) * height
    box = (left - 0.5 * font.size, y - 0.2 * font.size, left + wide + 0.5 * font.size, y + 1.6 * font.size)
    image = Image.new("RGB", (width, height), (250, 249, 246))
    if kind == "slope":
        image, ink = paint_slope(width, height, tint, tuple(value // 3 for value in tint)), LIGHT
    pen = ImageDraw.Draw(image)
    if kind == "bubble":
        image.paste(tint, (0, 0, width, height))
        foot = (box[0] + font.size, box[3] - 4)
        pen.polygon((foot, (foot[0] + 40, foot[1]), (foot[0] - 10, foot[1] + 50)), fill=LIGHT)
        pen.rounded_rectangle(box, 30, fill=LIGHT)
        ink = DARK
    elif kind == "rules":
        for edge in (box[1], box[3]):
            pen.line((0.08 * width, edge, 0.92 * width, edge), fill=tint, width=4)
        ink = DARK
    elif kind == "stamp":
        pen.rounded_rectangle(box, 12, outline=tint, width=8)
    write(pen, left, y, word, font, ink)
    if kind == "stamp":
        image = image.rotate(rng.choice((-7, -3, 3, 5)), Image.Resampling.BICUBIC, fillcolor=(250, 249, 246))
    questions = (
        "What does this say?",
        "Read the word.",
        "Which word is written here?",
        "what is the text in the image",
    )
    return as_jpeg(add_grain(kit, image, 2), 90), [text(rng.choice(questions), word)]


def draw_lines(kit: Pad, page: Page) -> Drawn:
    """White capitals with a black edge at the top and the bottom of an image, or a card with a red rule."""
    rng, lines = kit.rng, page.lines
    if page.layout == "meme":
        width, height = rng.randint(600, 860), rng.randint(500, 700)
        image = add_grain(kit, paint_slope(width, height, rng.choice(_TINTS), rng.choice(_TINTS)), 14)
        image = image.filter(ImageFilter.GaussianBlur(3))
        font = fit_all(kit.pick(["fonts-migmix"], 0.11 * height, 1), lines, 0.86 * width)
        pen = ImageDraw.Draw(image)
        for y, side in ((0.4, 0.16), (0.36, 0.08)):
            box = (width / 2 - side * width, y * height, width / 2 + side * width, y * height + 2 * side * width)
            pen.ellipse(box, fill=(226, 190, 120) if side == 0.16 else (246, 222, 170))
        for line, y in ((lines[0], 0.15 * height), (lines[1], 0.93 * height)):
            pen.text((width / 2, y), line, font=font, fill="white", anchor="ms", stroke_width=4, stroke_fill="black")
        return as_jpeg(image, 84), page.asked
    width = rng.randint(620, 860)
    font = fit_all(kit.pick(_HAND, width / 15), lines, 0.82 * width)
    step = 1.7 * font.size
    card = Image.new("RGB", (width, round(max(400, step * (len(lines) + 2)))), (253, 252, 246))
    pen = ImageDraw.Draw(card)
    for i in range(1, int(card.height / step) + 1):
        y = (i + 0.55) * step
        pen.line((0, y, width, y), fill=(216, 96, 104) if i == 1 else (178, 200, 224), width=3 if i == 1 else 2)
    for i, line in enumerate(lines):
        write(pen, 0.07 * width, (i + 1.45) * step - font.size, line, font, (32, 40, 70))
    return photograph(kit, card), page.asked


def draw_pass(kit: Pad, page: Page) -> Drawn:
    """A boarding pass or a ticket: a coloured head, fields in three columns, and a stub with bars."""
    rng, tint = kit.rng, kit.rng.choice(_TINTS)
    size = rng.randint(26, 32)
    body, bold = kit.pick(_SANS, round(0.8 * size)), kit.font("fonts-migmix", size, 1)
    wide = max(bold.getlength(value) for _, value in page.rows) + 1.4 * size
    rows = -(-len(page.rows) // 2)
    width, height = round(2 * wide + 250), round(3 * size + 3.3 * size * rows + 60)
    card = Image.new("RGB", (width, max(340, height)), (252, 252, 254))
    pen = ImageDraw.Draw(card)
    pen.rectangle((0, 0, width, 2.4 * size), fill=tint)
    write(pen, 30, 0.55 * size, page.title, bold, LIGHT)
    for i, (label, value) in enumerate(page.rows):
        x, y = 30 + wide * (i % 2), 3.2 * size + 3.3 * size * (i // 2)
        write(pen, x, y, label, body, GREY)
        write(pen, x, y + 1.2 * size, value, bold, DARK)
    for y in range(round(2.4 * size), card.height, 18):
        pen.line((width - 190, y, width - 190, y + 9), fill=GREY, width=2)
    y = 3.6 * size
    while y < card.height - 40:
        thick = rng.choice((3, 5, 8))
        pen.rectangle((width - 150, y, width - 40, y + thick), fill=DARK)
        y += thick + rng.choice((4, 6, 9))
    return (photograph(kit, card) if rng.random() < 0.5 else card), page.asked


def draw_table(kit: Pad, page: Page) -> Drawn:
    """A ranking: places in disks before the rows, a dark head, and every second row tinted."""
    size, tint = kit.rng.randint(24, 30), kit.rng.choice(_TINTS)
    font, bold = kit.pick(_SANS, size), kit.font("fonts-migmix", size, 1)
    rows = [*(each.split(" | ") for each in page.marked("*")), *page.rows]
    wides = [max(bold.getlength(row[i]) for row in rows) + 2 * size for i in range(len(rows[0]))]
    tall, left, top = 2.2 * size, 3 * size, 4.0 * size
    width = round(max(left + sum(wides) + 30, bold.getlength(page.title) * 1.3 + 2 * size))
    image = Image.new("RGB", (width, round(max(340, top + tall * len(rows) + 30))), "white")
    pen = ImageDraw.Draw(image)
    write(pen, 0.8 * size, 1.1 * size, page.title, bold.font_variant(size=round(1.3 * size)), tint)
    for r, row in enumerate(rows):
        y, x = top + r * tall, float(left)
        fill = (40, 46, 58) if r == 0 else tuple(250 - (250 - value) // 8 for value in tint) if r % 2 == 0 else None
        if fill:
            pen.rectangle((0, y, width, y + tall), fill=fill)
        if r:
            pen.ellipse((0.7 * size, y + 0.3 * size, 2.3 * size, y + 1.9 * size), fill=tint)
            write(pen, 1.5 * size, y + 0.45 * size, str(r), bold.font_variant(size=round(0.9 * size)), LIGHT, "m")
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            spot, at = (x, "l") if i == 0 else (x + wide / 2, "m")
            write(pen, spot, y + 0.4 * size, cell, bold if r == 0 else font, LIGHT if r == 0 else DARK, at)
            x += wide
    return image, page.asked


def draw_window(kit: Pad, page: Page) -> Drawn:
    """A folder of files with their sizes, or the weather of a place today and on three days."""
    size = kit.rng.randint(24, 30)
    font, bold = kit.pick(_SANS, size), kit.font("fonts-migmix", size, 1)
    if page.layout == "weather":
        (degrees, sky), *days = page.rows
        image = paint_slope(620, round(15.5 * size), (70, 130, 200), (150, 196, 236))
        pen = ImageDraw.Draw(image)
        write(pen, 310, 1.2 * size, page.title, bold.font_variant(size=round(1.4 * size)), LIGHT, "m")
        write(pen, 310, 3.4 * size, f"{degrees}\N{DEGREE SIGN}", bold.font_variant(size=4 * size), LIGHT, "m")
        write(pen, 310, 8.2 * size, sky, bold, LIGHT, "m")
        pen.rounded_rectangle((30, 10.4 * size, 590, 14.8 * size), 24, fill=(52, 104, 170))
        for i, (day, value) in enumerate(days):
            write(pen, 130 + 180 * i, 11 * size, day, bold, LIGHT, "m")
            write(pen, 130 + 180 * i, 12.8 * size, f"{value}\N{DEGREE SIGN}", bold, LIGHT, "m")
        return image, page.asked
    width = round(max(640, max(font.getlength(name) for name, _ in page.rows) + 12 * size))
    image = Image.new("RGB", (width, round(max(380, 6.2 * size + 2 * size * len(page.rows)))), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width, 2.2 * size), fill=(226, 232, 240))
    write(pen, 0.8 * size, 0.45 * size, page.title, bold, DARK)
    x = width - 1.2 * size
    pen.line((x - 9, size - 4, x + 9, size + 14), fill=DARK, width=2)
    pen.line((x - 9, size + 14, x + 9, size - 4), fill=DARK, width=2)
    write(pen, 2.6 * size, 2.6 * size, "Name", font, GREY)
    write(pen, width - 1.5 * size, 2.6 * size, "Size", font, GREY, "r")
    for i, (file, told) in enumerate(page.rows):
        y = (4.4 + 2 * i) * size
        pen.rectangle(
            (0.9 * size, y, 1.9 * size, y + 1.3 * size), fill=(236, 240, 246), outline=(120, 140, 170), width=2
        )
        write(pen, 2.6 * size, y, file, font, DARK)
        write(pen, width - 1.5 * size, y, told, font, DARK, "r")
    pen.rectangle((0, 0, width - 1, image.height - 1), outline=(150, 160, 174), width=2)
    return image, page.asked


def draw_chart(kit: Pad, page: Page) -> Drawn:
    """A chart by matplotlib as it is without any setting, or by Excel: plain, with values, or on a dark ground."""
    import matplotlib

    maker = page.layout.split()[0]
    paint = partial(paint_chart, page, _LOOKS[maker])
    if maker == "mpl":
        font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 20)
        look: dict[str, Any] = {"font.size": 10}
        return paint_figure(kit.rng, font, "white", "black", paint, ((6.4, 4.8), (5.6, 4.6)), **look), page.asked
    ground, ink, faint = ("#404040", "#f2f2f2", "#6b6b6b") if maker == "dark" else ("white", "#595959", "#d9d9d9")
    look = {
        **dict.fromkeys((f"axes.spines.{side}" for side in ("top", "right", "left")), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), faint),
        "axes.axisbelow": True,
        "axes.titlesize": 18,
        "axes.titlepad": 28 if maker == "office" else 14,  # the highest bar's value stands above the axes
        "savefig.pad_inches": 0.3,
    }
    font = kit.font({"excel": "fonts-beng-extra", "office": "fonts-mona"}.get(maker, "fonts-migmix"), 20)
    image = paint_figure(kit.rng, font, ground, ink, paint, ((6, 3.6), (6.8, 4.2)), **look)
    if maker == "excel":
        ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=(217, 217, 217), width=2)
    return image, page.asked


def draw_shapes(kit: Pad, page: Page) -> Drawn:
    """Shapes with a pencil's edge on squared paper, or bright ones with a shadow; places as in edition e."""
    rng, is_flat = kit.rng, page.layout == "flat"
    width, height = rng.randint(560, 900), rng.randint(480, 720)
    large = Image.new("RGB", (2 * width, 2 * height), rng.choice(((236, 240, 246), (244, 240, 234))))
    pen = ImageDraw.Draw(large)
    if not is_flat:
        large.paste((253, 253, 250), (0, 0, 2 * width, 2 * height))
        for edge in range(0, 2 * max(width, height), 56):
            pen.line((edge, 0, edge, 2 * height), fill=(206, 220, 236), width=2)
            pen.line((0, edge, 2 * width, edge), fill=(206, 220, 236), width=2)
    for told, spot, radius in page.rows:
        color, kind = told.split()
        x, y = (float(each) / 50 * side for each, side in zip(spot.split(), (width, height), strict=True))
        unit = float(radius) / 50 * min(width, height)
        corners = [(x + unit * a, y + unit * b) for a, b in outline_of(kind)]
        if is_flat:
            shade = Image.new("L", large.size, 0)
            ImageDraw.Draw(shade).polygon([(a + 10, b + 16) for a, b in corners], fill=90)
            large.paste((60, 64, 74), mask=shade.filter(ImageFilter.GaussianBlur(14)))
        pen.polygon(corners, fill=_FILLS[color] if is_flat else e_figures.FILLS[color])
        if not is_flat:
            pen.line([*corners, *corners[:2]], fill=(70, 70, 74), width=5, joint="curve")
    return large.resize((width, height), Image.Resampling.LANCZOS), page.asked


_DRAW = {
    "signs": in_turn((draw_sign, "wooden cardboard tile"), (talking_edition_g.draw_sign, "neon plate"),
                     (talking_edition_e.draw_sign, "enamel gantry led glass hung taped"),
                     (talking_edition_f.draw_sign, "")),
    "lines": in_turn((draw_lines, "meme card"), (talking_edition_e.draw_lines, "notebook"),
                     (talking_edition_f.draw_lines, "")),
    "forms": in_turn((draw_pass, "pass"), (talking_edition_e.draw_form, "dotted panel stacked"),
                     (talking_edition_f.draw_form, "")),
    "receipts": in_turn((talking_edition_e.draw_receipt, "torn invoice phone"),
                        (talking_edition_f.draw_receipt, "")),
    "menus": in_turn((talking_edition_e.draw_menu, "slate front screen fold"), (talking_edition_f.draw_menu, "")),
    "business cards": in_turn((talking_edition_e.draw_card, "third flush night"),
                              (talking_edition_f.draw_card, "")),
    "tables": in_turn((draw_table, "ranking"), (talking_edition_g.draw_table, "sheet"),
                      (e_figures.draw_table, "dark double hairline"), (f_figures.draw_table, "")),
    "windows": in_turn((draw_window, "files weather"), (e_figures.draw_window, "alert browser chat toggles"),
                       (f_figures.draw_window, "")),
    "posters": in_turn((talking_edition_e.draw_poster, "night stripe"), (talking_edition_f.draw_poster, "")),
    "charts": in_turn((draw_chart, "")),
    "shapes": in_turn((draw_shapes, "squared flat"), (e_figures.draw_shapes, "dotted outlined sea"),
                      (f_figures.draw_shapes, "")),
}  # fmt: skip
EDITION = Edition(letter="h", faces=FACES, plain=_PRINT, draw_word=draw_word, draw=_DRAW, stand_ins=_STAND_INS)
