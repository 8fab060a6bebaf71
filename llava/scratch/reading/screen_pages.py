"""Pages of screens: windows with menus, lists and buttons, and charts.

Each function draws one page and returns it with the marks of its lines.
"""

from __future__ import annotations

import random

from PIL import ImageDraw

from llava.scratch.reading.colours import RGB, draw_colour, draw_ink_and_ground
from llava.scratch.reading.line_texts import number
from llava.scratch.reading.page import (
    Finished,
    Page,
    Sources,
    Style,
    choose_readable,
    draw_paper,
    open_page,
)
from llava.scratch.reading.scenery import draw_picture


def draw_axes(rng: random.Random, sources: Sources) -> Finished:
    """A plot's area with labelled ticks, bars or curves, a title and a legend, as plotting programs draw them."""
    ink, ground = draw_paper(rng)
    page = open_page(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((10, 11, 12, 13, 14, 14, 15, 16, 18)))
    left, bottom = style.size * rng.uniform(4, 7), height - style.size * rng.uniform(3, 6)
    top, right = style.size * rng.uniform(2, 5), width - style.size * rng.uniform(1, 9)
    if rng.random() < 0.3:
        page.frame((left, top, right, bottom), draw_colour(rng) if rng.random() < 0.4 else (235, 235, 242))
    page.write(
        (left + right) / 2,
        top - style.size * 0.7,
        sources.texts.draw(rng, 30),
        sources.style(rng, round(style.size * rng.uniform(1, 1.6)), style.face),
        ink,
        "center",
    )
    box = (left, top, right, bottom)
    _draw_value_axis(page, sources, style, box, ink)
    _draw_bars(page, sources, style, box, ink)
    page.pen.line((left, top, left, bottom, right, bottom), fill=ink)
    if rng.random() < 0.5:
        page.write(
            (left + right) / 2, bottom + 8 + style.capital * 3.2, sources.texts.draw(rng, 20), style, ink, "center"
        )
    if right < width - style.size * 5:
        for i in range(rng.randint(2, 4)):
            y = top + (i + 1) * style.leading * 1.2
            page.frame((right + 5, y - style.capital, right + 5 + style.capital, y), draw_colour(rng))
            page.write(right + 9 + style.capital * 1.4, y, sources.texts.word(rng), style, ink)
    return page.finish()


_Box = tuple[float, float, float, float]


def _draw_value_axis(page: Page, sources: Sources, style: Style, box: _Box, ink: RGB) -> None:
    rng, (left, top, right, bottom) = page.rng, box
    start, step = rng.choice((0, 0, 0, -5, 10)), rng.choice((1, 2, 5, 10, 20, 25, 50, 100, 0.1, 0.2, 0.25, 0.5))
    count = rng.randint(3, 9)
    for i in range(count):
        y = bottom - (bottom - top) * i / (count - 0.5)
        page.pen.line((left - 4, y, left, y), fill=ink)
        if rng.random() < 0.3:
            page.pen.line((left, y, right, y), fill=(200, 200, 200))
        value = start + i * step
        page.write(
            left - 7,
            y + style.capital / 2,
            f"{value:.2f}" if step == 0.25 else f"{value:.1f}" if step < 1 else f"{value:,}",
            style,
            ink,
            "right",
        )


def _draw_bars(page: Page, sources: Sources, style: Style, box: _Box, ink: RGB) -> None:
    rng, (left, top, right, bottom) = page.rng, box
    bars = rng.randint(2, 9)
    names = [rng.choice((sources.texts.word, number, lambda r: str(r.randrange(1990, 2030))))(rng) for _ in range(bars)]
    slot = (right - left) / bars
    colour = draw_colour(rng)
    for i, name in enumerate(names):
        x = left + slot * (i + 0.5)
        bar_top = bottom - (bottom - top) * rng.uniform(0.05, 0.9)
        fill = colour if rng.random() < 0.7 else draw_colour(rng)
        if rng.random() < 0.85:
            page.frame((x - slot * 0.35, bar_top, x + slot * 0.35, bottom), fill)
        page.pen.line((x, bottom, x, bottom + 4), fill=ink)
        if style.length(name) < slot - style.size * 0.4:
            page.write(x, bottom + 6 + style.capital * 1.3, name, style, ink, "center")
        value = str(rng.randrange(100))
        if rng.random() < 0.3 and style.length(value) < slot:
            page.write(x, bar_top - style.size * 0.3, value, style, ink, "center")


def draw_drawn_chart(rng: random.Random, sources: Sources) -> Finished:
    """A chart that matplotlib drew beforehand."""
    if not sources.charts:
        return draw_axes(rng, sources)
    pixels, marks = rng.choice(sources.charts)
    page = Page(rng, pixels.astype("float32"))
    page.marks = list(marks)
    return page.finish()


def draw_screen(rng: random.Random, sources: Sources) -> Finished:
    """A window with a title bar, menus, buttons, lists, fields and icons."""
    ink, ground = draw_paper(rng)
    page = open_page(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((11, 12, 13, 14, 15, 16, 18, 20)))
    row = style.leading * rng.uniform(1.1, 1.7)
    bar_ink, bar = draw_ink_and_ground(rng)
    page.frame((0, 0, width, row), bar)
    page.write(style.size * rng.uniform(0.5, 3), (row + style.capital) / 2, sources.texts.draw(rng, 30), style, bar_ink)
    x, y = style.size, row + (row + style.capital) / 2
    while x < width * 0.8 and rng.random() < 0.85:
        long = page.write(x, y, sources.texts.word(rng).title(), style, ink)
        x += long + style.size * rng.uniform(0.9, 2.2)
    y = row * 2.3
    side = width * rng.uniform(0.15, 0.35) if rng.random() < 0.5 else 0
    if side:
        _draw_sidebar(page, sources, style, (0, y, side, height), row)
    x = side + style.size * rng.uniform(0.6, 2)
    while y < height - row * 2.2:
        kind = rng.random()
        y += row
        if kind < 0.3:
            _draw_buttons(page, sources, style, x, y, row)
            y += row * 0.3
        elif kind < 0.5:
            _draw_icon(rng, page.pen, x, y - style.capital / 2, style.capital * 1.1, choose_readable(rng, ground))
            page.write(x + style.capital * 1.6, y + style.capital / 2, sources.texts.draw(rng, 40), style, ink)
        elif kind < 0.65:
            page.write(x, y + style.capital / 2, sources.texts.draw(rng, 40), style, ink)
            page.write(width - style.size, y + style.capital / 2, number(rng), style, ink, "right")
            crossed = page.marks[-2:]
            if len(crossed) == 2 and crossed[0].right > crossed[1].left - style.size:
                page.frame((x - 2, y - row / 2, width, y + row / 2), ground)
                page.marks = page.marks[:-2]
        elif kind < 0.9:
            page.write(x, y + style.capital / 2, sources.texts.draw(rng, 60), style, ink)
        else:
            picture = draw_picture(rng, sources.pictures, round(row * rng.uniform(1, 4)))
            if picture is not None and y + picture.height < height:
                page.paste(picture, round(x), round(y))
                y += picture.height
    return page.finish()


def _draw_sidebar(page: Page, sources: Sources, style: Style, box: _Box, row: float) -> None:
    rng = page.rng
    side_ink, side_ground = draw_ink_and_ground(rng)
    page.frame(box, side_ground)
    at = box[1] + row
    while at < box[3] - row:
        if rng.random() < 0.5:
            _draw_icon(rng, page.pen, style.size * 0.3, at - style.capital, style.capital, side_ink)
        page.write(
            style.size * 1.6, at, sources.texts.draw(rng, max(4, int(box[2] / style.size * 1.2))), style, side_ink
        )
        at += row


def _draw_buttons(page: Page, sources: Sources, style: Style, x: float, y: float, row: float) -> None:
    rng = page.rng
    at = x
    for _ in range(rng.randint(1, 4)):
        label = rng.choice((sources.texts.word(rng).title(), sources.texts.draw(rng, 14)))
        button_ink, button = draw_ink_and_ground(rng)
        pad = style.size * rng.uniform(0.5, 1.2)
        wide = style.length(label) + 2 * pad
        if at + wide > page.size[0] - 4:
            break
        page.frame(
            (at, y - row / 2, at + wide, y + row / 2),
            button,
            draw_colour(rng) if rng.random() < 0.3 else None,
            rng.choice((0, 4, 8, row / 2)),
        )
        page.write(at + wide / 2, y + style.capital / 2, label, style, button_ink, "center")
        at += wide + style.size * rng.uniform(0.4, 1.5)


def _draw_icon(rng: random.Random, pen: ImageDraw.ImageDraw, x: float, y: float, side: float, ink: RGB) -> None:
    box = (x, y, x + side, y + side)
    kind = rng.random()
    if kind < 0.3:
        pen.ellipse(box, outline=ink, fill=ink if rng.random() < 0.5 else None)
    elif kind < 0.6:
        pen.rectangle(box, outline=ink, fill=ink if rng.random() < 0.5 else None)
    elif kind < 0.8:
        pen.line((x, y + side * 0.6, x + side * 0.4, y + side, x + side, y), fill=ink, width=2)
    else:
        for i in range(3):
            pen.line((x, y + side * (0.15 + 0.35 * i), x + side, y + side * (0.15 + 0.35 * i)), fill=ink, width=2)
