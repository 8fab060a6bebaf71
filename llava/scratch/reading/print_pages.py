"""Printed matter: menus, business cards, single long lines and letterspaced notices.

Each function draws one page and returns it with the marks of its lines.
"""

from __future__ import annotations

import math
import random

from llava.scratch.reading.line_colours import draw_colour, draw_ink_and_ground
from llava.scratch.reading.line_texts import draw_address, draw_contact, draw_dish, draw_person, price
from llava.scratch.reading.page import Finished, Page, Sources, Style, choose_readable, draw_paper, open_page


def draw_menu(rng: random.Random, sources: Sources) -> Finished:
    """Headings with dishes and prices: beside each other, far apart or joined by leaders, in one or two columns."""
    ink, ground = draw_paper(rng)
    size = rng.choice((12, 13, 14, 15, 16, 18, 20, 22, 26))
    style = sources.style(rng, size)
    columns = rng.choice((1, 1, 1, 2))
    wide = round(size * rng.uniform(17, 30))
    height = round(min(1500, style.leading * rng.randint(9, 30)))
    page = open_page(rng, ground, (wide * columns + size * 4, height))
    top = style.leading * 1.2
    if rng.random() < 0.8:
        head = sources.style(rng, round(size * rng.uniform(1.6, 3)), tracking=rng.choice((0, 0, 0.1, 0.2)))
        title = rng.choice(("Menu", "MENU", sources.texts.draw(rng, 16).upper(), sources.texts.draw(rng, 20)))
        top += head.capital
        page.write(page.size[0] / 2, top, title, head, choose_readable(rng, ground, ink), "center")
        top += head.leading
    heading = sources.style(rng, round(size * rng.uniform(1.1, 1.7)), rng.choice((None, style.face)))
    small = sources.style(rng, max(10, round(size * rng.uniform(0.7, 0.9))), rng.choice((None, style.face)))
    leader, price_form = (
        rng.choice(("", "", ".", ". ", "_", "·")),
        rng.choice((price, lambda r: f"{r.uniform(1, 40):.2f}")),
    )
    heading_ink, price_ink = choose_readable(rng, ground), choose_readable(rng, ground, rng.choice((None, ink, ink)))
    has_notes, far = rng.random() < 0.35, rng.random() < 0.8
    for column in range(columns):
        left, y = size * 1.4 + column * (wide + size * 1.2), top
        while y < height - style.leading * 1.5:
            if rng.random() < 0.13:
                y += heading.leading * 0.4
                page.write(left, y, sources.texts.draw(rng, 18), heading, heading_ink)
                y += heading.leading
                continue
            _write_dish(page, sources, style, (left, left + wide), y, ink, price_ink, price_form(rng), leader, far)
            y += style.leading * rng.choice((1, 1, 1.2))
            if has_notes and rng.random() < 0.6:
                page.write(left, y - style.leading * 0.1, sources.texts.draw(rng, 38).lower(), small, ink)
                y += small.leading
    return page.finish()


def _write_dish(
    page: Page,
    sources: Sources,
    style: Style,
    span: tuple[float, float],
    y: float,
    ink: tuple[int, int, int],
    price_ink: tuple[int, int, int],
    cost: str,
    leader: str,
    far: bool,
) -> None:
    rng = page.rng
    dish = draw_dish(rng, sources.texts)
    room = span[1] - span[0] - style.length(cost) - style.size
    while dish and style.length(dish) > room:
        dish = dish.rpartition(" ")[0]
    if not dish:
        return
    long = page.write(span[0], y, dish, style, ink)
    if not far:
        page.write(span[0] + long + style.size * rng.uniform(0.8, 2), y, cost, style, price_ink)
        return
    page.write(span[1], y, cost, style, price_ink, "right")
    gap = (span[0] + long + style.size * 0.3, span[1] - style.length(cost) - style.size * 0.3)
    if leader and gap[1] - gap[0] > style.size:
        # Leaders are no text: what is read are the dish and its price.
        dots = leader * int((gap[1] - gap[0]) / style.length(leader))
        style.put(page.pen, gap[0], y, dots.strip(), ink)


def draw_card(rng: random.Random, sources: Sources) -> Finished:
    """A business card: a name, a title, a company, and how to reach them in small type."""
    width = round(math.exp(rng.uniform(math.log(380), math.log(1050))))
    height = round(width / rng.uniform(1.5, 1.85))
    ink, ground = draw_paper(rng)
    page = open_page(rng, ground, (width, height))
    unit = height / rng.uniform(15, 21)
    align = rng.choice(("left", "left", "center", "right"))
    band = width * rng.uniform(0.06, 0.3) if rng.random() < 0.35 else 0.0
    x0 = band + unit * rng.uniform(0.8, 2)
    x = {"left": x0, "right": width - unit * rng.uniform(0.8, 2), "center": (band + width) / 2}[align]
    if band:
        page.frame((0, 0, band, height), draw_colour(rng))
    elif rng.random() < 0.4:
        page.frame((3, 3, width - 4, height - 4), None, draw_colour(rng), 0, rng.choice((1, 2, 4)))
    face, accent = sources.faces.draw(rng), choose_readable(rng, ground)
    small = sources.style(rng, max(10, round(unit)), rng.choice((None, face)))
    name = sources.style(rng, round(unit * rng.uniform(1.5, 2.6)), face, rng.choice((0, 0, 0, 0.06)))
    other = sources.style(rng, max(10, round(unit * rng.uniform(1, 1.5))), rng.choice((None, face)))
    person = draw_person(rng, sources.texts)
    rows = [
        (person.upper() if rng.random() < 0.25 else person, name, ink),
        (rng.choice((sources.texts.draw(rng, 24).title(), sources.texts.word(rng).title())), other, accent),
        *((draw_contact(rng, sources.texts), small, ink) for _ in range(rng.randint(2, 4))),
    ]
    if rng.random() < 0.6:
        rows.insert(rng.randrange(len(rows)), (draw_address(rng, sources.texts), small, ink))
    if rng.random() < 0.7:
        company = sources.texts.draw(rng, 20)
        rows.insert(rng.choice((0, 2)), (company.upper() if rng.random() < 0.4 else company, other, accent))
    y = unit * rng.uniform(0.8, 2)
    for text, style, colour in rows:
        y += style.capital + style.size * rng.uniform(0.25, 0.6)
        page.write(x, y, text, style, choose_readable(rng, ground, colour), align)
        y += style.size * (rng.uniform(0.5, 1.5) if rng.random() < 0.25 else 0)
    return page.finish()


def draw_long_line(rng: random.Random, sources: Sources) -> Finished:
    """One to three lines of 30 to 80 characters across the whole page."""
    ink, ground = draw_ink_and_ground(rng) if rng.random() < 0.5 else draw_paper(rng)
    style = sources.style(rng, round(math.exp(rng.uniform(math.log(12), math.log(42)))))
    lines = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        text, most = "", rng.uniform(30, 80)
        while len(text) < most and style.length(text) < 1450:
            text = f"{text} {sources.texts.draw(rng, 30)}".strip()
        lines.append(text)
    width = round(max(map(style.length, lines)) + style.size * rng.uniform(1, 6))
    step = style.leading * rng.uniform(1, 2)
    page = open_page(rng, ground, (width, round(max(60, step * (len(lines) + rng.uniform(0.6, 5))))))
    y = style.size * 0.3 + step * rng.uniform(0.7, 1)
    for text in lines:
        page.write(style.size * 0.5, y, text, style, ink)
        y += step
    return page.finish()


def draw_notice(rng: random.Random, sources: Sources) -> Finished:
    """Centred lines of one look, often in capitals and letterspaced, as on posters and signs."""
    ink, ground = draw_ink_and_ground(rng)
    page = open_page(rng, ground, rough=0.1)
    width, height = page.size
    face = sources.faces.draw(rng)
    is_upper, tracking = rng.random() < 0.5, rng.choice((0, 0, 0.05, 0.12, 0.25))
    y = height * rng.uniform(0.03, 0.2)
    while y < height * 0.95:
        size = round(math.exp(rng.uniform(math.log(14), math.log(min(width, height) / 4))))
        style = sources.style(rng, size, face if rng.random() < 0.7 else None, tracking if rng.random() < 0.7 else 0)
        text = sources.texts.draw(rng, rng.choice((8, 14, 22, 34)))
        text = text.upper() if is_upper else text
        y += style.capital * rng.uniform(1.2, 1.5)
        if style.length(text) < width * 0.95:
            page.write(width / 2, y, text, style, ink if rng.random() < 0.8 else choose_readable(rng, ground), "center")
        y += style.size * rng.uniform(0.3, 1)
    return page.finish()
