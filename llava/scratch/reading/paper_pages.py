"""Pages of paper: receipts, forms, tables, paragraphs and printed programs.

Each function draws one page and returns it with the marks of its lines.
"""

from __future__ import annotations

import random

from llava.scratch.reading.line_colours import draw_ink_and_ground
from llava.scratch.reading.line_texts import date_or_time, number, price
from llava.scratch.reading.page import (
    Finished,
    Sources,
    choose_readable,
    draw_paper,
    open_page,
)
from llava.synth.texts import FORM_KEYS, RECEIPT_ITEMS


def draw_receipt(rng: random.Random, sources: Sources) -> Finished:
    """A narrow page of centred heads and rows of item and price."""
    ink, ground = draw_paper(rng)
    size = rng.choice((11, 12, 13, 14, 16, 18, 20, 24))
    face = sources.faces.draw_monospaced(rng) if rng.random() < 0.45 else sources.faces.draw(rng)
    style = sources.style(rng, size, face)
    bold = style._replace(face=sources.faces.draw_bold(rng, face))
    width = round(style.length("0") * rng.uniform(24, 44)) + 2 * size
    rows = rng.randint(6, 22)
    page = open_page(rng, ground, (width, round(style.leading * (rows + 6)) + 3 * size))
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
            shown = bold if rng.random() < (0.5 if "otal" in item.lower() else 0.03) else style
            if item:
                page.write(left, y, item, shown, ink)
            page.write(right, y, cost, shown, ink, "right")
        y += style.leading
    page.write(width / 2, y + style.leading / 2, sources.texts.draw(rng, 25), style, ink, "center")
    return page.finish()


def draw_form(rng: random.Random, sources: Sources) -> Finished:
    """Labels with values beside or below them, with or without boxes and lines to write on."""
    ink, ground = draw_paper(rng)
    page = open_page(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((11, 12, 13, 14, 15, 16, 18, 20, 24, 28)))
    other = style if rng.random() < 0.6 else sources.style(rng, style.size)
    x, y = width * rng.uniform(0.02, 0.15), style.leading * 2
    if rng.random() < 0.7:
        head = sources.style(rng, round(style.size * rng.uniform(1.2, 2.2)))
        page.write(x, y + head.capital / 2, sources.texts.draw(rng, 30), head, choose_readable(rng, ground, ink))
        y += head.leading * 1.5
    kind = rng.choice(("line", "beside", "box", "below"))
    column = x + style.size * rng.uniform(5, 12)
    value_ink = choose_readable(rng, ground, ink if rng.random() < 0.6 else (30, 60, 160))
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
                    choose_readable(rng, ground, (150, 150, 150)),
                    rng.choice((0, 4)),
                )
            elif rng.random() < 0.5:
                page.pen.line((start, y + style.size * 0.35, end, y + style.size * 0.35), fill=ink)
            page.write(start, y, value, other, value_ink)
        y += step
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            box = style.size * 0.9
            page.frame((x, y - box, x + box, y), None, ink)
            page.write(x + box * 1.8 + style.size * 0.2, y, sources.texts.draw(rng, 25), style, ink)
            y += style.leading
    return page.finish()


def draw_table(rng: random.Random, sources: Sources) -> Finished:
    """Rows and columns of words and numbers."""
    ink, ground = draw_paper(rng)
    page = open_page(rng, ground)
    width, height = page.size
    style = sources.style(rng, rng.choice((10, 11, 12, 13, 14, 15, 16, 18, 20)))
    bold = style._replace(face=sources.faces.draw_bold(rng, style.face)) if rng.random() < 0.5 else style
    pad = style.size * rng.uniform(0.4, 1.4)
    left, top = width * rng.uniform(0.02, 0.1), style.leading * rng.uniform(0.5, 3)
    if top > style.leading * 1.8:
        head = sources.style(rng, round(style.size * rng.uniform(1, 1.6)))
        page.write(left, top - style.leading * 0.6, sources.texts.draw(rng, 30), head, ink)
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
        long = max(*map(style.length, cells), bold.length(cells[0])) + 2 * pad
        if x + long > width - 4:
            break
        if head_ground != ground:
            page.frame((x, top, x + long, top + row_px), head_ground)
        align = rng.choice(("left", "left", "right", "center"))
        for row, cell in enumerate(cells):
            y = top + row * row_px
            if lines == "stripes" and row % 2 and row:
                shift = -18 if sum(ground) > 200 else 18
                red, green, blue = (max(0, min(255, c + shift)) for c in ground)
                page.frame((x, y, x + long, y + row_px), (red, green, blue))
            if lines == "all":
                page.frame(
                    (x, y, x + long, y + row_px),
                    None,
                    choose_readable(rng, ground, (128, 128, 128)) if sum(ground) > 600 else ink,
                )
            if lines == "rows" or (lines == "head" and row == 0):
                page.pen.line((x, y + row_px, x + long, y + row_px), fill=ink)
            at = {"left": x + pad, "right": x + long - pad, "center": x + long / 2}[align]
            shown = bold if row == 0 else style
            page.write(at, y + (row_px + style.capital) / 2, cell, shown, head_ink if row == 0 else ink, align)
        columns.append(cells)
        x += long
    return page.finish()


def draw_paragraphs(rng: random.Random, sources: Sources) -> Finished:
    """Running text in one or two columns with heads."""
    ink, ground = draw_paper(rng)
    page = open_page(rng, ground)
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


def draw_program(rng: random.Random, sources: Sources) -> Finished:
    """Indented lines whose words have different inks."""
    ground = rng.choice(((30, 30, 30), (40, 44, 52), (255, 255, 255), (253, 246, 227), (0, 0, 0)))
    page = open_page(rng, ground)
    height = page.size[1]
    style = sources.style(rng, rng.choice((11, 12, 13, 14, 15, 16, 18, 20)))
    palette = [choose_readable(rng, ground) for _ in range(4)]
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
