"""The tables, windows, charts and shapes of edition f of the drawn suite."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from benchmarks.talking_drawings import Drawn, as_jpeg
from benchmarks.talking_edition_e_figures import FILLS, ChartLooks, outline_of, paint_chart
from benchmarks.talking_edition_e_parts import Style, on_ground, set_lines
from benchmarks.talking_edition_f_parts import PALE, PRINT, RICH, SCREEN
from benchmarks.talking_editions import (
    DARK,
    GREY,
    LIGHT,
    Color,
    Font,
    Pad,
    Page,
    fit,
    paint_figure,
    paint_slope,
    photograph,
    write,
)

_MPL = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728")
_OFFICE = ("#156082", "#e97132", "#196b24", "#0f9ed5")  # Excel since 2023
_OFFICE_2007 = ("#4f81bd", "#c0504d", "#9bbb59", "#8064a2")
_BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12), "ncols": 3, "frameon": False}
_BESIDE = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False}
_LOOKS = {
    "mpl": ChartLooks(_MPL, lines_of="both", width=0.8, key={}, turns=False),
    "excel": ChartLooks(_OFFICE, has_key=True, width=0.5, key=_BELOW),
    "excel2007": ChartLooks(_OFFICE_2007, has_key=True, width=0.56, key=_BESIDE),
}


def draw_table(kit: Pad, page: Page) -> Drawn:
    """Rows of a web page, rules as in a book, a coloured first column, or a sheet on a fridge in a photograph."""
    layout, size, tint = page.layout, kit.rng.randint(22, 32), kit.rng.choice(RICH)
    face = SCREEN if layout == "web" else PRINT
    font, bold = (kit.pick(face, size, place) for place in (0, 1))
    rows = [*(each.split(" | ") for each in page.marked("*")), *page.rows]
    wides = [max(bold.getlength(row[i]) for row in rows) + 1.8 * size for i in range(len(rows[0]))]
    tall, top = (2.4 if layout == "web" else 2.0) * size, 3.8 * size
    width = max(460, round(sum(wides) + 100), round(1.4 * bold.getlength(page.title) + 100))
    left, bottom = (width - sum(wides)) / 2, top + tall * len(rows)
    image = Image.new("RGB", (width, max(360, round(bottom + 56))), "white")
    pen, right = ImageDraw.Draw(image), left + sum(wides)
    title = bold.font_variant(size=round(1.3 * size))
    write(pen, left if layout == "web" else width / 2, 30, page.title, title, DARK, "l" if layout == "web" else "m")
    if layout == "column":
        pen.rectangle((left, top, left + wides[0], bottom), fill=tint)
    for r, row in enumerate(rows):
        y, x = top + r * tall, left
        if layout == "web" and r % 2 == 0:
            pen.rectangle((left, y, right, y + tall), fill=(224, 228, 236) if r == 0 else (246, 247, 250))
        if layout == "fridge":
            pen.line((left, y + tall, right, y + tall), fill=(150, 154, 160), width=2)
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            is_head = r == 0 or (layout == "column" and i == 0)
            ink = LIGHT if layout == "column" and i == 0 else tint if layout == "fridge" and r == 0 else DARK
            # numbers end at the right on a web page; elsewhere all columns begin at the left
            at, spot = ("r", x + wide - 0.7 * size) if layout == "web" and i else ("l", x + 0.7 * size)
            write(pen, spot, y + 0.25 * tall, cell, bold if is_head else font, ink, at)
            x += wide
    if layout == "book":
        for y, thick in ((top, 4), (top + tall, 2), (bottom, 4)):
            pen.line((left, y, right, y), fill=DARK, width=thick)
    if layout == "column":
        for i in range(len(rows) + 1):
            pen.line((left, top + i * tall, right, top + i * tall), fill=(206, 208, 214), width=2)
    return (photograph(kit, image) if layout == "fridge" else image), page.asked


def draw_window(kit: Pad, page: Page) -> Drawn:
    """A lock screen, a program that installs something, an app with one large button, or a post."""
    layout, size, rng = page.layout, kit.rng.randint(24, 30), kit.rng
    body, bold, tint = kit.pick(SCREEN, size), kit.pick(SCREEN, size, 1), rng.choice(RICH)
    buttons = [line.strip("[]") for line in page.lines if line.startswith("[")]
    lines = [line for line in page.lines if not line.startswith(("[", "! "))]
    if layout == "lock":
        return _draw_lock(kit, page.title, lines, body, bold), page.asked
    if layout == "post":
        return _draw_post(page.title, lines, body, bold, tint), page.asked
    if layout == "app":
        sheet = set_lines(lines, 470, body, bold, Style(value=DARK, ink=GREY))
        image = on_ground(sheet, (255, 255, 255), 40, 90)
        taller = Image.new("RGB", (image.width, image.height + 90 * len(buttons)), (255, 255, 255))
        taller.paste(image)
        pen = ImageDraw.Draw(taller)
        pen.rectangle((0, 0, taller.width, 92), fill=tint)
        write(pen, taller.width / 2, 28, page.title, fit(bold, page.title, taller.width - 60), LIGHT, "m")
        for i, label in enumerate(buttons):
            y = image.height - 20 + 90 * i
            pen.rounded_rectangle((40, y, taller.width - 40, y + 74), 37, fill=tint if i == 0 else (232, 234, 238))
            write(pen, taller.width / 2, y + 37 - 0.65 * size, label, bold, LIGHT if i == 0 else DARK, "m")
        return taller, page.asked
    sheet = set_lines(lines, 700, body, bold, Style())
    image = on_ground(sheet, (240, 240, 240), 44, 70)
    taller = Image.new("RGB", (image.width, image.height + 70), (240, 240, 240))
    taller.paste(image)
    pen = ImageDraw.Draw(taller)
    pen.rectangle((0, 0, taller.width, 56), fill=(255, 255, 255))
    write(pen, 24, 10, page.title, fit(body, page.title, taller.width - 120), DARK)
    for slope in (1, -1):
        pen.line((taller.width - 44, 28 - 10 * slope, taller.width - 24, 28 + 10 * slope), fill=DARK, width=2)
    shares = [int(share) for share in re.findall(r"(\d+) %", " ".join(lines))]
    if shares:
        box = (44, image.height - 50, taller.width - 44, image.height - 24)
        pen.rectangle(box, fill=(220, 222, 224), outline=(170, 172, 176))
        pen.rectangle((44, box[1], 44 + (box[2] - 44) * shares[0] / 100, box[3]), fill=(14, 160, 60))
    x = taller.width - 44.0
    for label in reversed(buttons):
        wide = body.getlength(label) + 2 * size
        pen.rectangle(
            (x - wide, taller.height - 76, x, taller.height - 24), fill=(225, 225, 225), outline=(150, 152, 156)
        )
        write(pen, x - wide / 2, taller.height - 50 - 0.65 * size, label, body, DARK, "m")
        x -= wide + 20
    desk = paint_slope(taller.width + 120, taller.height + 120, (40, 120, 190), (20, 70, 140))
    desk.paste(taller, (60, 60))
    return desk, page.asked


def _draw_lock(kit: Pad, clock: str, lines: list[str], body: Font, bold: Font) -> Image.Image:
    """A phone's lock screen: the time, the day, and what has come in."""
    size, (day, *news) = body.size, lines
    image = paint_slope(600, round(max(900, 460 + 5.2 * size * len(news))), *kit.rng.sample(RICH, 2))
    pen = ImageDraw.Draw(image)
    write(pen, 300, 110, clock, bold.font_variant(size=130), LIGHT, "m")
    write(pen, 300, 280, day.removeprefix("- "), body, LIGHT, "m")
    for i, (sender, words) in enumerate(each.split(" | ") for each in news):
        y = 370 + 5.2 * size * i
        pen.rounded_rectangle((30, y, 570, y + 4.6 * size), 26, fill=(244, 244, 248))
        pen.rounded_rectangle((50, y + 1.3 * size, 50 + 2 * size, y + 3.3 * size), 12, fill=kit.rng.choice(RICH))
        write(pen, 70 + 2 * size, y + 0.6 * size, sender, bold, DARK)
        write(pen, 70 + 2 * size, y + 2.4 * size, words, fit(body, words, 570 - 100 - 2 * size), DARK)
    return image


def _draw_post(author: str, lines: list[str], body: Font, bold: Font, tint: Color) -> Image.Image:
    """What somebody wrote for all to see: the author, when, the words, and how many liked it."""
    size, (when, *words, liked) = body.size, lines
    image = Image.new("RGB", (740, round(max(360, 220 + 1.8 * size * len(words) + 90))), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    pen.ellipse((36, 36, 126, 126), fill=tint)
    write(pen, 81, 81 - 0.95 * size, author[0], bold.font_variant(size=round(1.5 * size)), LIGHT, "m")
    write(pen, 150, 34, author, bold, DARK)
    write(pen, 150, 40 + 1.4 * size, when.removeprefix("- "), body.font_variant(size=round(0.85 * size)), GREY)
    for i, line in enumerate(words):
        write(pen, 40, 160 + 1.8 * size * i, line, fit(body, line, 660), DARK)
    y = image.height - 80
    pen.line((36, y - 12, 704, y - 12), fill=(224, 226, 230), width=2)
    write(pen, 40, y, liked, body, GREY)
    return image


def draw_chart(kit: Pad, page: Page) -> Drawn:
    """A chart by matplotlib as it is without any setting, or by an Excel of today or of 2007."""
    import matplotlib

    maker = page.layout.split()[0]
    paint, folder = partial(paint_chart, page, _LOOKS[maker]), Path(matplotlib.get_data_path())
    if maker == "mpl":
        font = ImageFont.truetype(str(folder / "fonts/ttf/DejaVuSans.ttf"), 20)
        look: dict[str, Any] = {"font.size": 10}
        return paint_figure(kit.rng, font, "white", "black", paint, ((6.4, 4.8), (8, 5)), **look), page.asked
    look = {
        **dict.fromkeys((f"axes.spines.{side}" for side in ("top", "right", "left")), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        "axes.axisbelow": True,
        "axes.edgecolor": "#d9d9d9",
        "grid.color": "#d9d9d9",
        "axes.titlesize": 17,
        "axes.titlepad": 16,
        "savefig.pad_inches": 0.3,
    }
    ink = "#595959"
    if maker == "excel2007":
        look |= {"axes.edgecolor": "#868686", "grid.color": "#868686", "axes.spines.left": True, "axes.titlesize": 20}
        look |= {"ytick.major.size": 4, "xtick.major.size": 4}
        ink = "black"
    font = kit.font("fonts-ukij-uyghur" if maker == "excel" else "fonts-ipaexfont-gothic", 20)
    image = paint_figure(kit.rng, font, "white", ink, paint, ((6, 3.6), (7.5, 4.5)), **look)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, image.width - 1, image.height - 1), outline=(190, 190, 190), width=2)
    return image, page.asked


def draw_shapes(kit: Pad, page: Page) -> Drawn:
    """Shapes by place and radius in hundredths, as a paint program, slides or a child's book have them; or a scene.

    A row is "red circle | 20 50 | 12"; a balloon has a string.
    """
    rng, layout = kit.rng, page.layout
    if layout == "house":
        return _draw_house(kit, page)
    width, height = {"slide": (1280, 720), "paint": (800, 600)}.get(
        layout, (rng.randint(500, 900), rng.randint(460, 760))
    )
    ground = {"night": (28, 32, 48), "pale": rng.choice(PALE)}.get(layout, (255, 255, 255))
    large = Image.new("RGB", (2 * width, 2 * height), ground)
    pen = ImageDraw.Draw(large)
    for told, spot, radius in page.rows:
        color, kind = told.split()
        (x, y), unit = (float(each) / 50 * side for each, side in zip(spot.split(), (width, height), strict=True)), 0.0
        unit = float(radius) / 50 * min(width, height)
        if kind == "balloon":
            pen.line((x, y, x + 0.2 * unit, y + 2.4 * unit), fill=(90, 90, 96), width=5)
        around = {"oval": (1.5, 0.85), "rectangle": (1.4, 0.7), "balloon": (0.9, 1.1)}.get(kind, (1.0, 1.0))
        base = {"oval": "circle", "rectangle": "square", "balloon": "circle"}.get(kind, kind)
        corners = [(x + unit * a * around[0], y + unit * b * around[1]) for a, b in outline_of(base)]
        pen.polygon(corners, fill=FILLS[color])
        edge = {"paint": DARK, "slide": tuple(value * 2 // 3 for value in FILLS[color])}.get(layout)
        if edge:
            pen.line([*corners, corners[0], corners[1]], fill=edge, width=10 if layout == "paint" else 6, joint="curve")
    image = large.resize((width, height), Image.Resampling.LANCZOS)
    return (as_jpeg(image, 90) if layout == "night" else image), page.asked


def _draw_house(kit: Pad, page: Page) -> Drawn:
    """A house, of the colours of the page's rows, with as many trees beside it as they say."""
    told = dict(page.rows)
    width, height = kit.rng.randint(800, 1200), kit.rng.randint(560, 760)
    image = paint_slope(width, height, (140, 200, 246), (222, 240, 252))
    pen, base = ImageDraw.Draw(image), 0.82 * height
    pen.rectangle((0, 0.78 * height, width, height), fill=(110, 176, 80))
    left, right, top = 0.1 * width, 0.44 * width, 0.46 * height
    pen.rectangle((left, top, right, base), fill=FILLS[told["walls"]], outline=DARK, width=4)
    roof = ((left - 24, top), (right + 24, top), ((left + right) / 2, 0.2 * height))
    pen.polygon(roof, fill=FILLS[told["roof"]], outline=DARK)
    middle, unit = (left + right) / 2, 0.04 * width
    pen.rectangle((middle - unit, base - 0.22 * height, middle + unit, base), fill=FILLS[told["door"]], outline=DARK)
    for x in (left + 1.4 * unit, right - 1.4 * unit):
        box = (x - 0.8 * unit, top + 0.06 * height, x + 0.8 * unit, top + 0.06 * height + 1.6 * unit)
        pen.rectangle(box, fill=(206, 232, 250), outline=DARK, width=3)
    for i in range(int(told["trees"])):
        x = (0.56 + 0.14 * i) * width
        pen.rectangle((x - 10, 0.6 * height, x + 10, base), fill=(110, 72, 42))
        radius = 0.11 * height
        pen.ellipse((x - radius, 0.52 * height - radius, x + radius, 0.52 * height + radius), fill=(44, 124, 58))
    if told["sky"] == "sun":
        pen.ellipse((0.84 * width, 0.06 * height, 0.84 * width + 0.15 * height, 0.21 * height), fill=(252, 214, 60))
    return image, page.asked
