"""The tables, windows, charts and shapes of edition e of the drawn suite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.talking_drawings import Drawn, as_jpeg
from benchmarks.talking_edition_e_parts import DEEP, PRINT, SCREEN, Style, on_ground, set_lines
from benchmarks.talking_editions import (
    DARK,
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

_SHEETS = ("#4285f4", "#ea4335", "#fbbc04", "#34a853")
_GGPLOT = ("#f8766d", "#00ba38", "#619cff", "#c77cff")
_BRIGHT = ("#fbbc04", "#ebb434")
_NEWS = ("#006ba2", "#db444b", "#ebb434", "#379a8b")
FILLS: dict[str, Color] = {
    "red": (206, 32, 46),
    "blue": (44, 104, 214),
    "green": (40, 140, 76),
    "yellow": (246, 204, 44),
    "orange": (240, 138, 36),
    "purple": (124, 66, 170),
    "black": (24, 24, 26),
    "pink": (244, 130, 180),
    "brown": (128, 80, 44),
    "grey": (142, 146, 152),
    "white": (255, 255, 255),
}


@dataclass(frozen=True)
class ChartLooks:
    """How a maker of charts draws them.

    ``marker``: what stands at the values of a line. ``has_values``: bars have their values beside them, and no axis of
    values. ``has_key``: a pie's names are in a legend. ``lines_of``: to which axes the grid's lines belong, "both" as
    the settings say. ``key``: where a legend is. ``turns``: a pie begins at the top and runs clockwise.
    """

    colors: Sequence[str]
    marker: str | None = None
    has_values: bool = False
    has_key: bool = False
    lines_of: str = "values"
    width: float = 0.66
    key: Mapping[str, Any] = field(
        default_factory=lambda: {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "frameon": False}
    )
    turns: bool = True


_LOOKS = {
    "sheets": ChartLooks(_SHEETS, has_key=True),
    "ggplot": ChartLooks(_GGPLOT, lines_of="both"),
    "news": ChartLooks(_NEWS, marker="o", has_values=True),
}


def draw_table(kit: Pad, page: Page) -> Drawn:
    """Hairlines, double frames, a dark screen, or a printed sheet in a photograph."""
    layout, size, tint = page.layout, kit.rng.randint(22, 32), kit.rng.choice(DEEP)
    font, bold = (kit.pick(SCREEN if layout == "dark" else PRINT, size, place) for place in (0, 1))
    rows = [*(each.split(" | ") for each in page.marked("*")), *page.rows]
    wides = [max(bold.getlength(row[i]) for row in rows) + 2 * size for i in range(len(rows[0]))]
    tall, left, top = 2.1 * size, 46.0, 3.6 * size + 20
    width = max(440, round(sum(wides) + 2 * left), round(1.4 * bold.getlength(page.title) + 2 * left))
    left = (width - sum(wides)) / 2
    is_dark = layout == "dark"
    image = Image.new(
        "RGB", (width, max(340, round(top + tall * len(rows) + 46))), (30, 32, 40) if is_dark else "white"
    )
    pen, ink = ImageDraw.Draw(image), LIGHT if is_dark else DARK
    write(pen, width / 2, 28, page.title, bold.font_variant(size=round(1.3 * size)), tint if not is_dark else ink, "m")
    for r, row in enumerate(rows):
        y, x = top + r * tall, left
        if layout == "printed" and r == 0:
            pen.rectangle((left, y, left + sum(wides), y + tall), fill=tint)
        if layout == "hairline" or is_dark:
            faint = (74, 78, 90) if is_dark else (186, 190, 196)
            pen.line((left, y + tall, left + sum(wides), y + tall), fill=faint, width=3 if r == 0 else 1)
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            if layout in ("double", "printed"):
                pen.rectangle((x, y, x + wide, y + tall), outline=DARK, width=2)
            color = {"printed": LIGHT, "hairline": tint, "dark": (150, 200, 255)}.get(layout, ink) if r == 0 else ink
            # names begin at the left, all other columns are centred
            at, spot = ("l", x + 0.6 * size) if i == 0 else ("m", x + wide / 2)
            write(pen, spot, y + 0.4 * size, cell, bold if r == 0 else font, color, at)
            x += wide
    if layout == "double":
        box = (left - 7, top - 7, left + sum(wides) + 7, top + tall * len(rows) + 7)
        pen.rectangle(box, outline=DARK, width=2)
    return (photograph(kit, image) if layout == "printed" else image), page.asked


def draw_window(kit: Pad, page: Page) -> Drawn:
    """An alert over a blurred screen, a page in a browser, a chat, or switches."""
    layout, size, rng = page.layout, kit.rng.randint(24, 30), kit.rng
    body, bold, tint = kit.pick(SCREEN, size), kit.pick(SCREEN, size, 1), rng.choice(DEEP)
    buttons = [line.strip("[]") for line in page.lines if line.startswith("[")]
    lines = [line for line in page.lines if not line.startswith(("[", "! "))]
    if layout == "chat":
        return _draw_chat(page, lines, body, bold, tint), page.asked
    width = 520 if layout == "toggles" else 680
    if layout == "toggles":
        sheet = set_lines(page.lines, width, body, bold, Style(value=tint))
        return on_ground(sheet, (240, 242, 246), 52), page.asked
    inner = lines if layout == "browser" else [f"! {page.title}", *lines]
    sheet = set_lines(inner, width, body, bold, Style(at="l" if layout == "browser" else "m"))
    window = on_ground(sheet, (255, 255, 255), 50, 70 if layout == "browser" else 0)
    taller = Image.new("RGB", (window.width, window.height + 70), (255, 255, 255))
    taller.paste(window)
    pen, wide = ImageDraw.Draw(taller), taller.width / max(1, len(buttons))
    if layout == "browser":
        pen.rectangle((0, 0, taller.width, 72), fill=(222, 225, 230))
        for i, color in enumerate(((236, 98, 90), (244, 190, 78), (98, 196, 84))):
            pen.ellipse((20 + 30 * i, 26, 40 + 30 * i, 46), fill=color)
        pen.rounded_rectangle((130, 14, taller.width - 24, 60), 22, fill="white")
        write(pen, 154, 36 - 0.62 * size, page.title, fit(body, page.title, taller.width - 210), DARK)
    for i, label in enumerate(buttons):
        y = taller.height - 76
        if layout == "browser":
            pen.rounded_rectangle((50, y - 10, 50 + body.getlength(label) + 50, y + 46), 26, fill=tint)
            write(pen, 75, y - 10 + 0.4 * size, label, body, LIGHT)
            continue
        pen.line((0, y, taller.width, y), fill=(200, 202, 208), width=2)
        if i:
            pen.line((i * wide, y, i * wide, taller.height), fill=(200, 202, 208), width=2)
        write(pen, (i + 0.5) * wide, y + 0.6 * size, label, bold, (10, 96, 220), "m")
    if layout == "browser":
        return taller, page.asked
    desk = paint_slope(taller.width + 180, taller.height + 200, *rng.sample(DEEP, 2))
    mask = Image.new("L", taller.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, taller.width - 1, taller.height - 1), 28, fill=255)
    desk.paste(taller, (90, 100), mask)
    return desk, page.asked


def _draw_chat(page: Page, lines: list[str], body: Font, bold: Font, tint: Color) -> Image.Image:
    size = body.size
    image = Image.new("RGB", (680, round(150 + 3.1 * size * len(lines) + 60)), (232, 236, 232))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, image.width, 90), fill=tint)
    pen.ellipse((24, 18, 78, 72), fill=(214, 218, 224))
    write(pen, 100, 45 - 0.62 * size, page.title, bold, LIGHT)
    for i, line in enumerate(lines):
        words, y = line[2:], 120 + 3.1 * size * i
        wide = body.getlength(words) + 1.6 * size
        left = 24 if line.startswith("<") else image.width - 24 - wide
        color = (255, 255, 255) if line.startswith("<") else (206, 236, 196)
        pen.rounded_rectangle((left, y, left + wide, y + 2.4 * size), 20, fill=color)
        write(pen, left + 0.8 * size, y + 0.55 * size, words, body, DARK)
    return image


def draw_chart(kit: Pad, page: Page) -> Drawn:
    """A chart of Google Sheets, ggplot2 or a newspaper."""
    maker = page.layout.split()[0]
    font = kit.font({"sheets": SCREEN[1], "ggplot": SCREEN[0]}.get(maker, "fonts-smc-meera"), 20)
    look: dict[str, Any] = {
        **dict.fromkeys((f"axes.spines.{side}" for side in ("top", "right", "left", "bottom")), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        "axes.axisbelow": True,
        "savefig.pad_inches": 0.3,
        "xtick.major.pad": 9,
    }
    paint = partial(paint_chart, page, _LOOKS[maker])
    if maker == "ggplot":
        look |= {"axes.facecolor": "#ebebeb", "grid.color": "white", "axes.grid": True, "grid.linewidth": 1.4}
    elif maker == "sheets":
        look |= {"grid.color": "#cccccc", "axes.titlelocation": "left", "axes.titlecolor": "#757575"}
    else:
        look |= {"axes.titlelocation": "left", "axes.titlesize": 18, "grid.color": "#b7c6cf", "axes.titlepad": 18}
    return paint_figure(kit.rng, font, "white", "#333333", paint, **look), page.asked


def paint_chart(page: Page, looks: ChartLooks, axes: Any) -> None:
    """Paints a page's chart on matplotlib's axes; the page's layout is its maker and its kind."""
    kind = page.layout.split()[1]
    title, *series = page.title.split(" | ")
    colors = looks.colors
    labels, values = [row[0] for row in page.rows], np.array([[float(v) for v in row[1:]] for row in page.rows])
    if kind in ("pie", "donut"):
        _paint_pie(labels, values[:, 0], looks, kind == "donut", axes)
    elif kind == "hbars":
        bars = axes.barh(labels[::-1], values[::-1, 0], height=looks.width + 0.04, color=colors[0])
        if looks.has_values:
            axes.bar_label(bars, padding=6)
            axes.set_xticks([])
    elif kind == "lines":
        for i, label in enumerate(series):
            axes.plot(labels, values[:, i], color=colors[i], linewidth=2.4, marker=looks.marker, label=label)
        axes.set_ylim(bottom=0)
    else:
        share = looks.width / values.shape[1]
        for i, label in enumerate(series):
            spots = np.arange(len(labels)) + (i - (values.shape[1] - 1) / 2) * share
            bars = axes.bar(spots, values[:, i], share, color=colors[i], label=label)
            if looks.has_values:
                axes.bar_label(bars, padding=3)
        axes.set_xticks(range(len(labels)), labels)
        if looks.has_values:
            axes.set_yticks([])
    if kind not in ("pie", "donut") and looks.lines_of == "values":
        axes.grid(axis="x" if kind == "hbars" else "y")
    if len(series) > 1:
        axes.legend(**looks.key)
    for names in page.marked("*"):
        across, up = names.split(" | ")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
    axes.set_title(title)


def _paint_pie(labels: list[str], values: Any, looks: ChartLooks, is_donut: bool, axes: Any) -> None:
    hole = {"wedgeprops": {"width": 0.42, "edgecolor": "white"}, "pctdistance": 0.79} if is_donut else {}
    named = {} if looks.has_key else {"labels": labels}
    turned = {"startangle": 90, "counterclock": False} if looks.turns else {}
    look = {**turned, "textprops": {"color": "white" if not named else "#222222"}}
    _, _, shares = axes.pie(values, autopct="%1.0f%%", colors=looks.colors, **named, **look, **hole)
    for share, color in zip(shares, looks.colors, strict=False):
        share.set_color("#222222" if color in _BRIGHT else "white")
    if not named:
        axes.legend(labels, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def draw_shapes(kit: Pad, page: Page) -> Drawn:
    """A few shapes, filled, outlined or on a ground of dots, by place and radius in hundredths; or boats at sea."""
    if page.layout == "sea":
        return _draw_sea(kit, page)
    side = kit.rng.randint(480, 860)
    large = Image.new("RGB", (2 * side, 2 * side), kit.rng.choice(((255, 255, 255), (250, 246, 238))))
    pen = ImageDraw.Draw(large)
    for left in range(26, 2 * side, 60) if page.layout == "dotted" else ():
        for top in range(26, 2 * side, 60):
            pen.ellipse((left, top, left + 8, top + 8), fill=(216, 220, 228))
    for told, spot, radius in page.rows:
        color, kind = told.split()
        x, y = (float(each) * side / 50 for each in spot.split())
        corners = [(x + float(radius) * side / 50 * a, y + float(radius) * side / 50 * b) for a, b in outline_of(kind)]
        if page.layout == "outlined":
            pen.line([*corners, corners[0], corners[1]], fill=FILLS[color], width=side // 40, joint="curve")
        else:
            pen.polygon(corners, fill=FILLS[color])
    return large.resize((side, side), Image.Resampling.LANCZOS), page.asked


def outline_of(kind: str) -> list[tuple[float, float]]:
    """The corners of a shape of radius one; y grows downwards."""
    turns = np.linspace(0, 2 * math.pi, 120, endpoint=False)
    if kind == "heart":
        return [(math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)) / 15) for t in turns]
    radii, first = {
        "circle": ((1.0,) * 120, 0),
        "square": ((1.2,) * 4, 45),
        "pentagon": ((1.1,) * 5, -90),
        "hexagon": ((1.1,) * 6, 0),
        "diamond": ((0.9, 1.25) * 2, 0),
        "triangle": ((1.15,) * 3, -90),
        "star": ((1.15, 0.46) * 5, -90),
    }[kind]
    angles = [math.radians(first + 360 * i / len(radii)) for i in range(len(radii))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _draw_sea(kit: Pad, page: Page) -> Drawn:
    width, height, told = kit.rng.randint(760, 1080), kit.rng.randint(540, 720), " ".join(page.lines)
    image = paint_slope(width, height, (150, 200, 240), (236, 244, 250))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0.6 * height, width, height), fill=(38, 104, 156))
    if "sun" in told:
        pen.ellipse((0.78 * width, 0.08 * height, 0.78 * width + 0.18 * height, 0.26 * height), fill=(250, 210, 60))
    sail = FILLS["red" if "red" in told else "green"]
    for x in (0.27 * width, 0.7 * width)[: 2 if "two" in told else 1]:
        y, unit = 0.72 * height, 0.1 * width
        pen.line((x, y, x, y - 2.6 * unit), fill=(92, 62, 40), width=9)
        pen.polygon(((x + 8, y - 2.5 * unit), (x + 8, y - 0.2 * unit), (x + 1.1 * unit, y - 0.2 * unit)), fill=sail)
        pen.polygon(((x - 8, y - 2.2 * unit), (x - 8, y - 0.2 * unit), (x - 0.8 * unit, y - 0.2 * unit)), fill=sail)
        hull = (
            (x - 1.2 * unit, y),
            (x + 1.3 * unit, y),
            (x + 0.9 * unit, y + 0.5 * unit),
            (x - 0.8 * unit, y + 0.5 * unit),
        )
        pen.polygon(hull, fill=(112, 70, 40))
    return as_jpeg(add_grain(kit, image.filter(ImageFilter.GaussianBlur(1)), 4), 88), page.asked
