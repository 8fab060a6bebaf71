"""The tables, charts and shapes of edition i of the drawn suite."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.talking_drawings import Drawn
from benchmarks.talking_edition_e_figures import FILLS, ChartLooks, outline_of, paint_chart
from benchmarks.talking_edition_g import in_turn
from benchmarks.talking_edition_i_parts import (
    PRINT,
    SANS,
    SOFT,
    TINTS,
    Flow,
    cut_at,
    draw_tick,
    finish,
    pick,
    sheet_of,
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
    fit,
    paint_figure,
    paint_slope,
    photograph,
    write,
)

_FAINT = (214, 218, 224)
_PLOTLY = ("#636efa", "#ef553b", "#00cc96", "#ab63fa", "#ffa15a")
_RIGHT = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "frameon": False}
_ABOVE = {"loc": "lower left", "bbox_to_anchor": (0, 0.98), "ncols": 3, "frameon": False}
_LOOKS = {
    "mpl": ChartLooks(
        ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"), lines_of="both", width=0.8, key={}, turns=False
    ),
    "plotly": ChartLooks(_PLOTLY, has_key=True, width=0.8, key=_RIGHT),
    "powerbi": ChartLooks(("#118dff", "#12239e", "#e66c37", "#6b007b", "#e044a7"), width=0.7, key=_ABOVE),
    "keynote": ChartLooks(("#00a2ff", "#ff8a00", "#61b636", "#ee220c"), has_values=True, width=0.56, key=_RIGHT),
    "fivethirty": ChartLooks(("#008fd5", "#fc4f30", "#e5ae38", "#6d904f"), lines_of="both", key=_RIGHT),
}


def _cells(page: Page) -> list[list[str]]:
    """The head of a table and its rows."""
    return [*(each.split(" | ") for each in page.marked("*")), *page.rows]


def _spread(rows: list[list[str]], font: Font, more: float) -> list[float]:
    return [max(font.getlength(row[i]) for row in rows) + more for i in range(len(rows[0]))]


def draw_calendar(kit: Pad, page: Page) -> Drawn:
    """A month: days of the week, numbers, and what is on some of the days; "- 2 30": it begins on a Tuesday."""
    wide, tall, tint = 138, 112, kit.rng.choice(TINTS)
    first, days = map(int, page.marked("-")[0].split())
    told = dict(page.rows)
    image, pen = sheet_of(7 * wide + 60)
    font, bold = pick(kit, SANS, 23), pick(kit, SANS, 26, 1)
    write(pen, image.width / 2, 28, page.title, bold.font_variant(size=46), tint, "m")
    for i, name in enumerate(page.marked("*")[0].split(" | ")):
        write(pen, 30 + (i + 0.5) * wide, 106, name, bold, GREY, "m")
    weeks = -(-(first - 1 + days) // 7)
    for i in range(7 * weeks):
        x, y, day = 30 + wide * (i % 7), 150 + tall * (i // 7), i + 2 - first
        pen.rectangle((x, y, x + wide, y + tall), outline=_FAINT, width=2)
        if 1 <= day <= days:
            write(pen, x + 12, y + 4, str(day), bold, DARK)
            note = told.get(str(day))
            if note:
                pen.rounded_rectangle((x + 6, y + 50, x + wide - 6, y + 98), 8, fill=kit.rng.choice(SOFT))
                label = fit(font, note, wide - 22)
                write(pen, x + wide / 2, y + 74 - 0.68 * label.size, note, label, DARK, "m")
    image = cut_at(image, 150 + tall * weeks + 30)
    return (photograph(kit, image) if kit.rng.random() < 0.4 else image), page.asked


def draw_timetable(kit: Pad, page: Page) -> Drawn:
    """A line's stops with its times beside them, as they hang at a stop."""
    size, tint, rows = kit.rng.randint(26, 31), kit.rng.choice(TINTS), _cells(page)
    font, bold = pick(kit, SANS, size), pick(kit, SANS, size, 1)
    wides = _spread(rows, bold, 1.6 * size)
    width = round(max(sum(wides) + 110, bold.getlength(page.title) * 1.4 + 100))
    image, pen = sheet_of(width)
    pen.rectangle((0, 0, width, 3.2 * size), fill=tint)
    write(pen, 40, 0.75 * size, page.title, bold.font_variant(size=round(1.35 * size)), LIGHT)
    y = 3.8 * size
    for line in page.rest:
        write(pen, 40, y, line.removeprefix("- "), font, GREY)
        y += 1.7 * size
    for r, row in enumerate(rows):
        if r and r % 2 == 0:
            pen.rectangle((40, y, width - 30, y + 1.9 * size), fill=(240, 242, 246))
        if r:
            pen.line((58, y - (size if r > 1 else -0.95 * size), 58, y + 0.95 * size), fill=tint, width=6)
            pen.ellipse((48, y + 0.6 * size, 68, y + 0.6 * size + 20), fill="white", outline=tint, width=5)
        x = 90.0
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            at, spot = ("m", x + wide / 2) if i else ("l", x)
            write(pen, spot, y + 0.25 * size, cell, bold if r == 0 else font, tint if r == 0 else DARK, at)
            x += wide
        y += 1.9 * size
    image = cut_at(image, y + 40)
    return (photograph(kit, image) if kit.rng.random() < 0.6 else image), page.asked


def draw_roster(kit: Pad, page: Page) -> Drawn:
    """Who works when, or which lesson is when: the same word has the same colour everywhere."""
    size, rows = kit.rng.randint(24, 29), _cells(page)
    font, bold = pick(kit, SANS, size), pick(kit, SANS, size, 1)
    wides = _spread(rows, bold, 1.5 * size)
    words = sorted({cell for row in rows[1:] for cell in row[1:]})
    image, pen = sheet_of(round(max(sum(wides) + 80, bold.getlength(page.title) * 1.3 + 80)), (252, 252, 253))
    write(pen, 40, 26, page.title, bold.font_variant(size=round(1.3 * size)), DARK)
    y = 3.4 * size
    for r, row in enumerate(rows):
        x = 40.0
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            if r and i:
                fill = SOFT[words.index(cell) % 5] if cell not in ("-", "off") else (236, 238, 242)
                pen.rounded_rectangle((x + 3, y + 3, x + wide - 3, y + 2.1 * size - 3), 8, fill=fill)
            face, at = (bold, "l") if i == 0 else (bold if r == 0 else font, "m")
            write(pen, x + 6 if i == 0 else x + wide / 2, y + 0.35 * size, cell, face, DARK, at)
            x += wide
        y += 2.1 * size
    return cut_at(image, y + 36), page.asked


def draw_plans(kit: Pad, page: Page) -> Drawn:
    """What the plans of a service have: a cell says so with a tick or a dash ("yes", "no") or in words."""
    size, tint, rows = kit.rng.randint(25, 30), kit.rng.choice(TINTS), _cells(page)
    font, bold = pick(kit, SANS, size), pick(kit, SANS, size, 1)
    wides = [
        _spread(rows, bold, 2 * size)[0],
        *[max(7.5 * size, *_spread(rows, bold, 2 * size)[1:])] * (len(rows[0]) - 1),
    ]
    width = round(sum(wides) + 80)
    image, pen = sheet_of(width)
    head = bold.font_variant(size=round(1.5 * size))
    write(pen, width / 2, 30, page.title, fit(head, page.title, width - 60), DARK, "m")
    y = 4.2 * size
    for r, row in enumerate(rows):
        x = 40.0
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            if r == 0 and i:
                pen.rounded_rectangle((x + 6, y, x + wide - 6, y + 2.1 * size), 10, fill=tint)
            if i and cell == "yes":
                draw_tick(pen, x + wide / 2 - 0.5 * size, y + 0.5 * size, size, (30, 150, 80))
            elif i and cell == "no":
                pen.line((x + wide / 2 - 12, y + size, x + wide / 2 + 12, y + size), fill=(180, 184, 190), width=4)
            else:
                ink, at = LIGHT if r == 0 and i else DARK, "m" if i else "l"
                write(pen, x + wide / 2 if i else x, y + 0.35 * size, cell, font if r else bold, ink, at)
            x += wide
        y += 2.4 * size
        pen.line((40, y - 0.15 * size, width - 40, y - 0.15 * size), fill=(232, 234, 238), width=2)
    return cut_at(image, y + 30), page.asked


def draw_details(kit: Pad, page: Page) -> Drawn:
    """What a shop tells of a thing: a name in grey and its value on each row."""
    size, rows = kit.rng.randint(25, 31), page.rows
    font, bold = pick(kit, SANS, size), pick(kit, SANS, size, 1)
    wides = _spread(rows, font, 1.8 * size)
    width = round(max(sum(wides) + 90, 1.5 * bold.getlength(page.title) + 90))
    image, pen = sheet_of(width)
    write(pen, 45, 30, page.title, bold.font_variant(size=round(1.4 * size)), DARK)
    y = 3.6 * size
    for r, (label, value) in enumerate(rows):
        if r % 2 == 0:
            pen.rectangle((30, y, width - 30, y + 2 * size), fill=(242, 244, 247))
        write(pen, 45, y + 0.3 * size, label, font, GREY)
        write(pen, 45 + wides[0], y + 0.3 * size, value, font, DARK)
        y += 2 * size
    return cut_at(image, y + 40), page.asked


def draw_nutrition(kit: Pad, page: Page) -> Drawn:
    """The table at the back of a packet of food, between thick rules."""
    width = kit.rng.randint(480, 600)
    font, bold = pick(kit, SANS, width / 18), pick(kit, SANS, width / 18, 1)
    image, pen = sheet_of(width)
    flow = Flow(pen, 40, 30, width - 80)
    flow.say(page.title, pick(kit, SANS, width / 10, 1), DARK, step=1.35)
    for line in page.rest:
        flow.say(line.removeprefix("- "), font, DARK, step=1.45)
    flow.rule(DARK, 12, 26)
    for label, value in page.rows:
        flow.pair((label, value), bold, font, step=1.45)
        flow.rule(DARK, 2, 10)
    flow.rule(DARK, 8, 22)
    image = cut_at(image, flow.y + 20)
    ImageDraw.Draw(image).rectangle((16, 16, width - 17, image.height - 10), outline=DARK, width=4)
    return photograph(kit, image), page.asked


def draw_ledger(kit: Pad, page: Page) -> Drawn:
    """Green accounting paper with figures in columns that end at the right."""
    size, rows = kit.rng.randint(25, 30), _cells(page)
    font, bold = pick(kit, PRINT, size), pick(kit, PRINT, size, 1)
    wides, tall = _spread(rows, bold, 1.8 * size), 1.9 * size
    width = round(max(sum(wides) + 80, 1.4 * bold.getlength(page.title) + 80))
    image, pen = sheet_of(width, (240, 248, 238))
    write(pen, width / 2, 30, page.title, bold.font_variant(size=round(1.3 * size)), DARK, "m")
    y = 3.4 * size
    left = (width - sum(wides)) / 2
    for r, row in enumerate(rows):
        x = left
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            at, spot = ("r", x + wide - 0.6 * size) if i else ("l", x + 0.6 * size)
            write(pen, spot, y + 0.25 * size, cell, font if r else bold, DARK, at)
            pen.line((x + wide, 3.4 * size, x + wide, y + tall), fill=(206, 140, 140), width=2)
            x += wide
        y += tall
        pen.line((left, y, left + sum(wides), y), fill=DARK if r == 0 else (150, 190, 150), width=3 if r == 0 else 2)
    return photograph(kit, cut_at(image, y + 40)), page.asked


def _paint(page: Page, looks: ChartLooks, axes: Any) -> None:
    """Bars on top of each other, or points; else as the earlier editions paint."""
    kind = page.layout.split()[1]
    title, *series = page.title.split(" | ")
    if kind not in ("stacked", "points"):
        return paint_chart(page, looks, axes)
    values = np.array([[float(value) for value in row[1:]] for row in page.rows])
    if kind == "points":
        axes.scatter([float(row[0]) for row in page.rows], values[:, 0], s=60, color=looks.colors[0])
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
    else:
        labels, base = [row[0] for row in page.rows], 0.0 * values[:, 0]
        for i, label in enumerate(series):
            axes.bar(labels, values[:, i], looks.width, bottom=base, color=looks.colors[i], label=label)
            base += values[:, i]
        axes.legend(**looks.key)
    if looks.lines_of == "values":
        axes.grid(axis="y")
    for names in page.marked("*"):
        across, up = names.split(" | ")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
    axes.set_title(title)
    return None


def draw_chart(kit: Pad, page: Page) -> Drawn:
    """A chart of matplotlib as it is, in the style of FiveThirtyEight, or of plotly, Power BI or Keynote."""
    import matplotlib

    maker, kind = page.layout.split()
    paint, is_round = partial(_paint, page, _LOOKS[maker]), kind in ("pie", "donut")
    sizes = ((7, 5.6), (6.8, 5.8)) if is_round else ((6.4, 4.8), (6, 4.2)) if maker == "mpl" else ((6, 4), (7.4, 4.4))
    if maker == "mpl":
        font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 20)
        plain: dict[str, Any] = {"font.size": 10}
        return paint_figure(kit.rng, font, "white", "black", paint, sizes, **plain), page.asked
    look: dict[str, Any] = {
        **dict.fromkeys((f"axes.spines.{side}" for side in ("top", "right", "left", "bottom")), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        "axes.axisbelow": True,
        "axes.titlelocation": "center" if maker == "keynote" else "left",
        "axes.titlesize": 18,
        "axes.titlepad": 40 if maker == "powerbi" and " | " in page.title else 30 if maker == "keynote" else 18,
        "savefig.pad_inches": 0.3,
    }
    ground, ink = "white", "#333333"
    if maker == "plotly":
        look |= {"axes.facecolor": "#e5ecf6", "grid.color": "white", "grid.linewidth": 1.2}
        ink = "#2a3f5f"
    elif maker == "fivethirty":
        look |= {"axes.grid": True, "grid.color": "#cbcbcb", "lines.linewidth": 4, "axes.titlesize": 20}
        look |= {"axes.facecolor": "#f0f0f0"}
        ground = "#f0f0f0"
    elif maker == "powerbi":
        look |= {"grid.color": "#d0d0d0", "grid.linestyle": ":", "grid.linewidth": 1.4}
    else:
        look |= {"axes.spines.bottom": True, "axes.edgecolor": "#999999"}
    names = {"plotly": SANS[0], "powerbi": SANS[2], "keynote": SANS[3], "fivethirty": SANS[4]}
    return paint_figure(kit.rng, kit.font(names[maker], 20), ground, ink, paint, sizes, **look), page.asked


def draw_shapes(kit: Pad, page: Page) -> Drawn:
    """Shapes as blocks of wood, in chalk, on tiles, on stripes, or hatched by a crayon; places as in edition e."""
    rng, layout = kit.rng, page.layout
    width, height = rng.randint(580, 920), rng.randint(500, 740)
    large = Image.new("RGB", (2 * width, 2 * height), rng.choice(((250, 248, 242), (236, 242, 248))))
    if layout == "chalk":
        large = add_grain(kit, Image.new("RGB", large.size, (40, 58, 50)), 14).filter(ImageFilter.GaussianBlur(2))
    pen = ImageDraw.Draw(large)
    if layout == "blocks":
        large.paste((222, 190, 146), (0, 0, *large.size))
        for edge in range(0, 2 * height, 180):
            pen.line((0, edge, 2 * width, edge), fill=(198, 164, 120), width=6)
    elif layout == "stripes":
        for edge in range(-2 * height, 2 * width, 140):
            pen.line((edge, 2 * height, edge + 2 * height, 0), fill=(228, 234, 226), width=50)
    for told, spot, radius in page.rows:
        color, kind = told.split()
        x, y = (float(each) / 50 * side for each, side in zip(spot.split(), (width, height), strict=True))
        unit = float(radius) / 50 * min(width, height)
        corners = [(x + unit * a, y + unit * b) for a, b in outline_of(kind)]
        _paint_shape(large, layout, corners, (x, y, unit), FILLS[color])
    image = large.resize((width, height), Image.Resampling.LANCZOS)
    return finish(kit, image, page, 5 if layout in ("blocks", "chalk") else 1, 90)


def _paint_shape(
    large: Image.Image,
    layout: str,
    corners: list[tuple[float, float]],
    place: tuple[float, float, float],
    fill: Color,
) -> None:
    pen, (x, y, unit) = ImageDraw.Draw(large), place
    if layout == "tiles":
        box = (x - 1.5 * unit, y - 1.5 * unit, x + 1.5 * unit, y + 1.5 * unit)
        pen.rounded_rectangle(box, 40, fill=(255, 255, 255), outline=_FAINT, width=4)
    elif layout == "blocks":
        shade = [(a + 26, b + 30) for a, b in corners]
        pen.polygon(shade, fill=tuple(value // 2 for value in fill))
    if layout in ("chalk", "crayon"):
        mask = Image.new("L", large.size, 0)
        ImageDraw.Draw(mask).polygon(corners, fill=255)
        strokes = Image.new("L", large.size, 0)
        brush, gap = ImageDraw.Draw(strokes), 22 if layout == "chalk" else 16
        for start in range(round(x - 3 * unit), round(x + 3 * unit), gap):
            brush.line((start, y - 1.5 * unit, start + unit, y + 1.5 * unit), fill=255, width=gap // 2 + 3)
        hatch = Image.composite(strokes, Image.new("L", large.size, 0), mask)
        large.paste(fill, (0, 0, *large.size), hatch)
        pen.line([*corners, *corners[:2]], fill=fill, width=14, joint="curve")
    else:
        pen.polygon(corners, fill=fill)


def draw_traffic(kit: Pad, page: Page) -> Drawn:
    """Cars of the colours of the page's rows, one behind the other on a road, from left to right."""
    colors = [color for _, color in page.rows]
    width, height = 300 * len(colors) + 60, kit.rng.randint(460, 560)
    image = paint_slope(width, height, (170, 210, 240), (232, 240, 244))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0.6 * height, width, height), fill=(104, 106, 112))
    for x in range(20, width, 120):
        pen.rectangle((x, 0.9 * height, x + 60, 0.9 * height + 10), fill=(240, 240, 236))
    for i, color in enumerate(colors):
        x, y = 50 + 300 * i, 0.74 * height
        pen.polygon(((x + 50, y - 50), (x + 85, y - 110), (x + 165, y - 110), (x + 205, y - 50)), fill=FILLS[color])
        pen.polygon(((x + 68, y - 52), (x + 92, y - 98), (x + 120, y - 98), (x + 120, y - 52)), fill=(214, 234, 246))
        pen.polygon(((x + 130, y - 52), (x + 130, y - 98), (x + 158, y - 98), (x + 188, y - 52)), fill=(214, 234, 246))
        pen.rounded_rectangle((x, y - 54, x + 250, y + 6), 24, fill=FILLS[color])
        for wheel in (x + 58, x + 192):
            pen.ellipse((wheel - 32, y - 26, wheel + 32, y + 38), fill=(26, 26, 28))
            pen.ellipse((wheel - 14, y - 8, wheel + 14, y + 20), fill=(190, 194, 200))
    return finish(kit, image.filter(ImageFilter.GaussianBlur(0.8)), page, 4)


def draw_flowers(kit: Pad, page: Page) -> Drawn:
    """Flowers in a vase, a row for each with its colour, and the vase's colour in the first row."""
    (_, vase), *flowers = page.rows
    width, height = kit.rng.randint(620, 820), kit.rng.randint(680, 820)
    image = paint_slope(width, height, (244, 238, 226), (232, 222, 206))
    pen, middle, rim = ImageDraw.Draw(image), width / 2, 0.58 * height
    pen.rectangle((0, 0.86 * height, width, height), fill=(150, 104, 66))
    spots = np.linspace(-0.34, 0.34, len(flowers)) * width
    for (_, color), shift in zip(flowers, spots, strict=True):
        x, y = middle + shift, 0.26 * height + 0.5 * abs(shift)
        pen.line((middle + 0.12 * shift, rim + 20, x, y), fill=(60, 130, 60), width=9)
        for turn in np.linspace(0, 2 * np.pi, 6, endpoint=False):
            a, b = x + 42 * np.cos(turn), y + 42 * np.sin(turn)
            pen.ellipse((a - 30, b - 30, a + 30, b + 30), fill=FILLS[color])
        pen.ellipse((x - 24, y - 24, x + 24, y + 24), fill=(120, 80, 30))
    body = ((middle - 70, rim), (middle + 70, rim), (middle + 110, 0.9 * height), (middle - 110, 0.9 * height))
    pen.polygon(body, fill=FILLS[vase], outline=DARK)
    return finish(kit, image.filter(ImageFilter.GaussianBlur(0.8)), page, 4)


DRAW: dict[str, Callable[[Pad, Page], Drawn]] = {
    "tables": in_turn(
        *((draw_calendar, "calendar"), (draw_timetable, "timetable"), (draw_roster, "roster"), (draw_plans, "plans")),
        *((draw_details, "details"), (draw_nutrition, "nutrition"), (draw_ledger, "ledger")),
    ),
    "charts": in_turn((draw_chart, "")),
    "shapes": in_turn((draw_traffic, "traffic"), (draw_flowers, "flowers"), (draw_shapes, "")),
}
