"""Kinds of pages: signs, receipts, forms, tables, charts, screens, posters, programs, paragraphs, and scenes without text.

Each function draws one page and returns it with the marks of its lines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw

from llava.scratch.reading.colours import RGB, contrast, draw_colour, draw_ink_and_ground
from llava.scratch.reading.line_texts import date_or_time, number, price
from llava.scratch.reading.page import (
    Mark,
    Page,
    Sources,
    Style,
    draw_clutter,
    draw_page_ground,
    draw_picture,
    draw_rough_ground,
)
from llava.synth.texts import FORM_KEYS, RECEIPT_ITEMS

Finished = tuple[Image.Image, list[Mark]]


def draw_page(rng: random.Random, sources: Sources) -> Finished:
    """A random page of about 400 to 1200 px."""
    kinds = list(KINDS)
    (kind,) = rng.choices(kinds, [KINDS[k][1] for k in kinds])
    return KINDS[kind][0](rng, sources)


def _draw_size(rng: random.Random) -> tuple[int, int]:
    area = rng.uniform(180_000, 700_000)
    ratio = math.exp(rng.uniform(-0.5, 0.6))
    return round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))


def _paper(rng: random.Random) -> tuple[RGB, RGB]:
    """An ink and a ground, mostly of printed paper."""
    if rng.random() < 0.6:
        dark, light = rng.randint(0, 60), rng.randint(235, 255)
        return (dark, dark, dark), (light, light, max(0, light - rng.choice((0, 0, 0, 12))))
    return draw_ink_and_ground(rng)


def _readable(rng: random.Random, ground: RGB, ink: RGB | None = None) -> RGB:
    """An ink that can be read on that ground; ``ink`` itself if it can."""
    for _ in range(20):
        ink = ink or rng.choice(((0, 0, 0), (255, 255, 255), draw_colour(rng)))
        if contrast(ink, ground) > 75:
            return ink
        ink = None
    return (0, 0, 0) if sum(ground) > 380 else (255, 255, 255)


def _open(rng: random.Random, ground: RGB, size: tuple[int, int] | None = None, rough: float = 0.0) -> Page:
    width, height = size or _draw_size(rng)
    if rng.random() < rough:
        return Page(rng, draw_rough_ground(rng, width, height))
    return Page(rng, draw_page_ground(rng, width, height, ground))


def _draw_sign(rng: random.Random, sources: Sources) -> Finished:
    """Plates with one to four lines on a rough or plain ground."""
    page = _open(rng, draw_colour(rng), rough=0.6)
    width, height = page.size
    if rng.random() < 0.4:
        draw_clutter(rng, page.pen, width, height, rng.randint(0, 6))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        style = sources.style(rng, round(math.exp(rng.uniform(math.log(13), math.log(min(width, height) / 3)))))
        lines = [sources.texts.draw(rng, rng.choice((8, 12, 20, 30))) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))]
        if rng.random() < 0.35:
            lines = [line.upper() for line in lines]
        ink, ground = draw_ink_and_ground(rng)
        pad = style.size * rng.uniform(0.15, 1.2)
        wide, tall = max(map(style.length, lines)) + 2 * pad, style.leading * len(lines) + 2 * pad * rng.uniform(0.5, 1)
        if wide > width - 4 or tall > height - 4:
            continue
        x, y = rng.uniform(0, width - wide), rng.uniform(0, height - tall)
        box = (x, y, x + wide, y + tall)
        if any(_touches(box, mark) for mark in page.marks):
            continue
        page.frame(
            box,
            ground,
            _readable(rng, ground) if rng.random() < 0.4 else None,
            rng.choice((0, 0, pad / 2, pad)),
            max(1, round(style.size / 12)),
        )
        align = rng.choice(("center", "center", "left"))
        top = y + (tall - style.leading * len(lines)) / 2 + (style.leading + style.capital) / 2
        for i, line in enumerate(lines):
            page.write(x + wide / 2 if align == "center" else x + pad, top + i * style.leading, line, style, ink, align)
    return page.finish()


def _touches(box: tuple[float, float, float, float], mark: Mark) -> bool:
    return (
        box[0] < mark.right + mark.capital
        and box[2] > mark.left - mark.capital
        and box[1] < mark.baseline + mark.capital
        and box[3] > mark.baseline - 2 * mark.capital
    )


def _draw_receipt(rng: random.Random, sources: Sources) -> Finished:
    """A narrow page of centred heads and rows of item and price."""
    ink, ground = _paper(rng)
    size = rng.choice((11, 12, 13, 14, 16, 18, 20, 24))
    style = sources.style(rng, size)
    width = round(style.length("0") * rng.uniform(24, 44)) + 2 * size
    rows = rng.randint(6, 22)
    page = _open(rng, ground, (width, round(style.leading * (rows + 6)) + 3 * size))
    y = style.leading * 1.5
    head = sources.style(rng, round(size * rng.uniform(1, 1.8)), style.face if rng.random() < 0.7 else None)
    page.write(width / 2, y, sources.texts.draw(rng, 18), head, ink, "center")
    y += head.leading
    for _ in range(rng.randint(0, 3)):
        page.write(width / 2, y, rng.choice((sources.texts.draw(rng, 30), date_or_time(rng))), style, ink, "center")
        y += style.leading
    left, right = size * rng.uniform(0.5, 1.5), width - size * rng.uniform(0.5, 1.5)
    for _ in range(rows):
        kind = rng.random()
        if kind < 0.08:
            if rng.random() < 0.5:
                page.pen.line((left, y - size / 3, right, y - size / 3), fill=ink, width=rng.choice((1, 1, 2)))
            else:
                page.write(left, y, rng.choice("-=_*.") * int((right - left) / style.length("-") * 0.9), style, ink)
                page.marks[-1:] = [m._replace(text="") for m in page.marks[-1:]]
        else:
            item = rng.choice(
                (
                    rng.choice(RECEIPT_ITEMS),
                    sources.texts.word(rng),
                    sources.texts.draw(rng, 22),
                    rng.choice(("Total", "TOTAL", "Subtotal", "Tax", "Cash", "Change", "VISA", "Tip")),
                )
            )
            if rng.random() < 0.2:
                item = f"{rng.randint(1, 9)}{rng.choice((' x ', 'x ', ' '))}{item}"
            cost = price(rng)
            room = right - left - style.length(cost) - size
            while item and style.length(item) > room:
                item = item[:-1].rstrip()
            if item:
                page.write(left, y, item, style, ink)
            page.write(right, y, cost, style, ink, "right")
        y += style.leading
    page.write(width / 2, y + style.leading / 2, sources.texts.draw(rng, 25), style, ink, "center")
    return page.finish()


def _draw_form(rng: random.Random, sources: Sources) -> Finished:
    """Labels with values beside or below them, with or without boxes and lines to write on."""
    ink, ground = _paper(rng)
    page = _open(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((11, 12, 13, 14, 15, 16, 18, 20, 24, 28)))
    other = style if rng.random() < 0.6 else sources.style(rng, style.size)
    x, y = width * rng.uniform(0.02, 0.15), style.leading * 2
    if rng.random() < 0.7:
        head = sources.style(rng, round(style.size * rng.uniform(1.2, 2.2)))
        page.write(x, y + head.capital / 2, sources.texts.draw(rng, 30), head, _readable(rng, ground, ink))
        y += head.leading * 1.5
    kind = rng.choice(("line", "beside", "box", "below"))
    column = x + style.size * rng.uniform(5, 12)
    value_ink = _readable(rng, ground, ink if rng.random() < 0.6 else (30, 60, 160))
    step = style.leading * rng.uniform(1.1, 2.2)
    while y < height - style.leading * 2:
        key = rng.choice((rng.choice(FORM_KEYS), sources.texts.word(rng), sources.texts.draw(rng, 16))) + rng.choice(
            (":", ":", "")
        )
        value = rng.choice((price, number, date_or_time, sources.texts.word, lambda r: sources.texts.draw(r, 28)))(rng)
        if kind == "line":
            page.write(x, y, f"{key} {value}", style, ink)
        elif kind == "below":
            page.write(x, y, key, style, ink)
            y += style.leading
            page.write(x, y, value, other, value_ink)
        else:
            long = page.write(x, y, key, style, ink)
            start = max(column, x + long + style.size)
            end = min(width - 8, start + max(style.size * 12, other.length(value) + style.size))
            if kind == "box":
                pad = style.size * rng.uniform(0.35, 0.5)
                page.frame(
                    (start - pad, y - style.capital - pad, end, y + pad),
                    None,
                    _readable(rng, ground, (150, 150, 150)),
                    rng.choice((0, 4)),
                )
            elif rng.random() < 0.5:
                page.pen.line((start, y + style.size * 0.35, end, y + style.size * 0.35), fill=ink)
            page.write(start, y, value, other, value_ink)
        y += step
    if rng.random() < 0.5:
        for i in range(rng.randint(1, 3)):
            box = style.size * 0.9
            page.frame((x, y - box, x + box, y), None, ink)
            page.write(x + box * 1.8 + style.size * 0.2, y, sources.texts.draw(rng, 25), style, ink)
            y += style.leading
    return page.finish()


def _draw_table(rng: random.Random, sources: Sources) -> Finished:
    """Rows and columns of words and numbers."""
    ink, ground = _paper(rng)
    page = _open(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((10, 11, 12, 13, 14, 15, 16, 18, 20)))
    pad = style.size * rng.uniform(0.4, 1.4)
    left, top = width * rng.uniform(0.02, 0.1), style.leading * rng.uniform(0.5, 3)
    row_px = style.leading * rng.uniform(1, 1.8)
    lines = rng.choice(("all", "rows", "head", "none", "stripes"))
    head_ink, head_ground = (ink, ground) if rng.random() < 0.5 else draw_ink_and_ground(rng)
    columns: list[list[str]] = []
    rows = max(2, min(rng.randint(3, 16), int((height - top - 4) / row_px)))
    x = left
    for i in range(rng.randint(2, 7)):
        make = rng.choice(
            (number, number, price, date_or_time, sources.texts.word, lambda r: sources.texts.draw(r, 18))
        )
        make = sources.texts.word if i == 0 and rng.random() < 0.6 else make
        cells = [rng.choice((sources.texts.word, lambda r: sources.texts.draw(r, 14)))(rng).capitalize()] + [
            make(rng) for _ in range(rows - 1)
        ]
        long = max(map(style.length, cells)) + 2 * pad
        if x + long > width - 4:
            break
        if head_ground != ground:
            page.frame((x, top, x + long, top + row_px), head_ground)
        align = rng.choice(("left", "left", "right", "center"))
        for row, cell in enumerate(cells):
            y = top + row * row_px
            if lines == "stripes" and row % 2 and row:
                page.frame(
                    (x, y, x + long, y + row_px),
                    tuple(max(0, min(255, c - 18 if sum(ground) > 200 else c + 18)) for c in ground),
                )  # type: ignore[arg-type]
            if lines == "all":
                page.frame(
                    (x, y, x + long, y + row_px),
                    None,
                    _readable(rng, ground, (128, 128, 128)) if sum(ground) > 600 else ink,
                )
            if lines == "rows" or (lines == "head" and row == 0):
                page.pen.line((x, y + row_px, x + long, y + row_px), fill=ink)
            at = {"left": x + pad, "right": x + long - pad, "center": x + long / 2}[align]
            page.write(at, y + (row_px + style.capital) / 2, cell, style, head_ink if row == 0 else ink, align)
        columns.append(cells)
        x += long
    return page.finish()


def _draw_axes(rng: random.Random, sources: Sources) -> Finished:
    """A plot's area with labelled ticks, bars or curves, a title and a legend, as plotting programs draw them."""
    ink, ground = _paper(rng)
    page = _open(rng, ground)
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


def _draw_chart(rng: random.Random, sources: Sources) -> Finished:
    """A chart that matplotlib drew beforehand."""
    if not sources.charts:
        return _draw_axes(rng, sources)
    pixels, marks = rng.choice(sources.charts)
    page = Page(rng, pixels.astype("float32"))
    page.marks = list(marks)
    return page.finish()


def _draw_screen(rng: random.Random, sources: Sources) -> Finished:
    """A window with a title bar, menus, buttons, lists, fields and icons."""
    ink, ground = _paper(rng)
    page = _open(rng, ground)
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
        side_ink, side_ground = draw_ink_and_ground(rng)
        page.frame((0, y, side, height), side_ground)
        at = y + row
        while at < height - row:
            if rng.random() < 0.5:
                _draw_icon(rng, page.pen, style.size * 0.3, at - style.capital, style.capital, side_ink)
            page.write(
                style.size * 1.6, at, sources.texts.draw(rng, max(4, int(side / style.size * 1.2))), style, side_ink
            )
            at += row
    x = side + style.size * rng.uniform(0.6, 2)
    while y < height - row * 2.2:
        kind = rng.random()
        y += row
        if kind < 0.3:
            at = x
            for _ in range(rng.randint(1, 4)):
                label = rng.choice((sources.texts.word(rng).title(), sources.texts.draw(rng, 14)))
                button_ink, button = draw_ink_and_ground(rng)
                pad = style.size * rng.uniform(0.5, 1.2)
                wide = style.length(label) + 2 * pad
                if at + wide > width - 4:
                    break
                page.frame(
                    (at, y - row / 2, at + wide, y + row / 2),
                    button,
                    draw_colour(rng) if rng.random() < 0.3 else None,
                    rng.choice((0, 4, 8, row / 2)),
                )
                page.write(at + wide / 2, y + style.capital / 2, label, style, button_ink, "center")
                at += wide + style.size * rng.uniform(0.4, 1.5)
            y += row * 0.3
        elif kind < 0.5:
            _draw_icon(rng, page.pen, x, y - style.capital / 2, style.capital * 1.1, _readable(rng, ground))
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
            picture = draw_picture(rng, sources, round(row * rng.uniform(1, 4)))
            if picture is not None and y + picture.height < height:
                page.paste(picture, round(x), round(y))
                y += picture.height
    return page.finish()


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


def _draw_poster(rng: random.Random, sources: Sources) -> Finished:
    """Lines of very different sizes, shapes and pictures."""
    ink, ground = draw_ink_and_ground(rng)
    page = _open(rng, ground, rough=0.3)
    rough = page.image.resize((1, 1)).getpixel((0, 0))
    assert isinstance(rough, tuple)
    ground = rough[:3]
    width, height = page.size
    if rng.random() < 0.5:
        draw_clutter(rng, page.pen, width, height, rng.randint(1, 5))
    for _ in range(rng.randint(0, 2)):
        picture = draw_picture(rng, sources, round(min(width, height) * rng.uniform(0.2, 0.6)))
        if picture is not None:
            page.paste(
                picture, rng.randrange(max(1, width - picture.width)), rng.randrange(max(1, height - picture.height))
            )
    y = height * rng.uniform(0.02, 0.3)
    while y < height * 0.95 and len(page.marks) < 14:
        style = sources.style(rng, round(math.exp(rng.uniform(math.log(13), math.log(min(width, height) / 3)))))
        text = sources.texts.draw(rng, rng.choice((6, 12, 20, 40)))
        y += style.capital * 1.5
        align = rng.choice(("center", "left"))
        length = style.length(text)
        x = width / 2 if align == "center" else rng.uniform(0.02, 0.3) * width
        if length < width * 0.96 and y < height - style.size * 0.4:
            behind = ground
            if rng.random() < 0.4:
                ink, behind = draw_ink_and_ground(rng)
                start = x - length / 2 if align == "center" else x
                pad = style.size * rng.uniform(0.2, 0.4)
                page.frame((start - pad, y - style.capital - pad, start + length + pad, y + pad), behind)
            page.write(x, y, text, style, _readable(rng, behind, ink), align)
        y += style.size * rng.uniform(0.4, 1.2)
    return page.finish()


def _draw_paragraphs(rng: random.Random, sources: Sources) -> Finished:
    """Running text in one or two columns with heads."""
    ink, ground = _paper(rng)
    page = _open(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((10, 11, 12, 13, 14, 15, 16, 18, 20, 24, 28)))
    columns = rng.choice((1, 1, 2)) if width > style.size * 34 else 1
    gutter = style.size * rng.uniform(1.6, 3)
    margin = width * rng.uniform(0.02, 0.1)
    wide = (width - 2 * margin - gutter * (columns - 1)) / columns
    for column in range(columns):
        x, y = margin + column * (wide + gutter), style.leading * rng.uniform(1.2, 2.5)
        while y < height - style.leading:
            if rng.random() < 0.08:
                head = sources.style(rng, round(style.size * rng.uniform(1.1, 2)))
                text = sources.texts.draw(rng, 24)
                y += head.leading * 0.4
                if head.length(text) < wide:
                    page.write(x, y, text, head, ink)
                y += head.leading
                continue
            text = ""
            while style.length(text) < wide:
                line, text = text, (text + " " + sources.texts.draw(rng, 60)).strip()
                if rng.random() < 0.12:
                    break
            text = text if style.length(text) < wide else line
            while style.length(text) > wide:
                text = text.rsplit(" ", 1)[0] if " " in text else ""
            page.write(x, y, text, style, ink)
            y += style.leading
    return page.finish()


def _draw_program(rng: random.Random, sources: Sources) -> Finished:
    """Indented lines whose words have different inks."""
    ground = rng.choice(((30, 30, 30), (40, 44, 52), (255, 255, 255), (253, 246, 227), (0, 0, 0)))
    page = _open(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((11, 12, 13, 14, 15, 16, 18, 20)))
    palette = [_readable(rng, ground) for _ in range(4)]
    y, indent = style.leading * 1.2, 0
    number_lines = rng.random() < 0.4
    while y < height - style.leading:
        x = style.size * (0.6 + indent * 2)
        if number_lines:
            page.write(style.size * 2.2, y, str(len(page.marks) // 2 + 1), style, palette[0], "right")
            x += style.size * 2.6
        if rng.random() < 0.9:
            words = sources.texts.draw(rng, 50).split(" ")
            marks = len(page.marks)
            for word in words:
                if not page.write(x, y, word, style, rng.choice(palette)):
                    break
                x += style.length(word + " ")
            line = page.marks[marks:]
            if line:
                page.marks[marks:] = [line[0]._replace(text=" ".join(m.text for m in line), right=line[-1].right)]
        indent = max(0, min(5, indent + rng.choice((-1, 0, 0, 1))))
        y += style.leading
    return page.finish()


def _draw_scene(rng: random.Random, sources: Sources) -> Finished:
    """No text: a rough ground with pictures, shapes, textures and patterns."""
    width, height = _draw_size(rng)
    page = _open(rng, draw_colour(rng), (width, height), rough=0.75)
    if rng.random() < 0.7:
        draw_clutter(rng, page.pen, width, height, rng.randint(2, 25))
    for _ in range(rng.randint(0, 5)):
        picture = draw_picture(rng, sources, round(min(width, height) * rng.uniform(0.15, 0.95)))
        if picture is not None:
            page.paste(
                picture, rng.randrange(max(1, width - picture.width)), rng.randrange(max(1, height - picture.height))
            )
    return page.finish()


# Each kind of page and its share.
KINDS: dict[str, tuple[Callable[[random.Random, Sources], Finished], float]] = {
    "sign": (_draw_sign, 0.17),
    "receipt": (_draw_receipt, 0.1),
    "form": (_draw_form, 0.08),
    "table": (_draw_table, 0.09),
    "axes": (_draw_axes, 0.07),
    "chart": (_draw_chart, 0.1),
    "screen": (_draw_screen, 0.09),
    "poster": (_draw_poster, 0.09),
    "paragraphs": (_draw_paragraphs, 0.06),
    "program": (_draw_program, 0.04),
    "scene": (_draw_scene, 0.16),
}
