"""Kinds of pages: signs, posters and scenes without text, and all others with their shares.

Each function draws one page and returns it with the marks of its lines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from llava.scratch.reading.line_colours import draw_colour, draw_ink_and_ground
from llava.scratch.reading.page import (
    Finished,
    Mark,
    Sources,
    choose_readable,
    draw_page_size,
    open_page,
)
from llava.scratch.reading.paper_pages import draw_form, draw_paragraphs, draw_program, draw_receipt, draw_table
from llava.scratch.reading.print_pages import draw_card, draw_long_line, draw_menu, draw_notice
from llava.scratch.reading.scenery import draw_clutter, draw_cutout
from llava.scratch.reading.screen_pages import draw_axes, draw_drawn_chart, draw_screen


def draw_page(rng: random.Random, sources: Sources) -> Finished:
    """A random page of about 400 to 1200 px."""
    kinds = list(KINDS)
    (kind,) = rng.choices(kinds, [KINDS[k][1] for k in kinds])
    return KINDS[kind][0](rng, sources)


def _draw_sign(rng: random.Random, sources: Sources) -> Finished:
    """Plates with one to four lines on a rough or plain ground."""
    page = open_page(rng, draw_colour(rng), rough=0.6)
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
            choose_readable(rng, ground) if rng.random() < 0.4 else None,
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


def _draw_poster(rng: random.Random, sources: Sources) -> Finished:
    """Lines of very different sizes, shapes and cutouts."""
    ink, ground = draw_ink_and_ground(rng)
    page = open_page(rng, ground, rough=0.3)
    rough = page.image.resize((1, 1)).getpixel((0, 0))
    assert isinstance(rough, tuple)
    ground = (rough[0], rough[1], rough[2])
    width, height = page.size
    if rng.random() < 0.5:
        draw_clutter(rng, page.pen, width, height, rng.randint(1, 5))
    for _ in range(rng.randint(0, 2)):
        cutout = draw_cutout(rng, sources.cutouts, round(min(width, height) * rng.uniform(0.2, 0.6)))
        if cutout is not None:
            page.paste(
                cutout, rng.randrange(max(1, width - cutout.width)), rng.randrange(max(1, height - cutout.height))
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
            page.write(x, y, text, style, choose_readable(rng, behind, ink), align)
        y += style.size * rng.uniform(0.4, 1.2)
    return page.finish()


def _draw_scene(rng: random.Random, sources: Sources) -> Finished:
    """No text: a rough ground with cutouts, shapes, textures and patterns."""
    width, height = draw_page_size(rng)
    page = open_page(rng, draw_colour(rng), (width, height), rough=0.75)
    if rng.random() < 0.7:
        draw_clutter(rng, page.pen, width, height, rng.randint(2, 25))
    for _ in range(rng.randint(0, 5)):
        cutout = draw_cutout(rng, sources.cutouts, round(min(width, height) * rng.uniform(0.15, 0.95)))
        if cutout is not None:
            page.paste(
                cutout, rng.randrange(max(1, width - cutout.width)), rng.randrange(max(1, height - cutout.height))
            )
    return page.finish()


# Each kind of page and its share.
KINDS: dict[str, tuple[Callable[[random.Random, Sources], Finished], float]] = {
    "sign": (_draw_sign, 0.14),
    "receipt": (draw_receipt, 0.11),
    "menu": (draw_menu, 0.08),
    "card": (draw_card, 0.07),
    "long line": (draw_long_line, 0.06),
    "notice": (draw_notice, 0.06),
    "form": (draw_form, 0.08),
    "table": (draw_table, 0.09),
    "axes": (draw_axes, 0.06),
    "chart": (draw_drawn_chart, 0.07),
    "screen": (draw_screen, 0.08),
    "poster": (_draw_poster, 0.07),
    "paragraphs": (draw_paragraphs, 0.05),
    "program": (draw_program, 0.03),
    "scene": (_draw_scene, 0.13),
}
