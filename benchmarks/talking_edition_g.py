"""The looks of edition g of the drawn suite: those of e and f in other faces, and a few of its own.

Its own are neon and plates of metal, words on bands, on dark grounds or slanted, spreadsheets with letters and numbers
at their edges, and charts of Excel 2013 to 2021. About one question in six asks for a single word or phrase.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from benchmarks import talking_edition_e, talking_edition_f
from benchmarks import talking_edition_e_figures as e_figures
from benchmarks import talking_edition_e_parts as e_parts
from benchmarks import talking_edition_f_figures as f_figures
from benchmarks import talking_edition_f_parts as f_parts
from benchmarks.talking_drawings import Drawn, as_jpeg, text, wall
from benchmarks.talking_edition_e_figures import ChartLooks, paint_chart
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
    write,
)

FACES = {
    "fonts-baekmuk": ("dotum.ttf", "hline.ttf", "batang.ttf", "gulim.ttf"),
    "fonts-khmeros": ("KhmerOSsys.ttf",),
    "fonts-cwtex-yen": ("cwyen.ttf",),
    "fonts-cwtex-heib": ("cwheib.ttf",),
    "fonts-mmcedar": ("MMCedar-P.ttf",),
    "fonts-konatu": ("Konatu.ttf",),
    "fonts-sil-taiheritagepro": ("TaiHeritagePro-Regular.ttf", "TaiHeritagePro-Bold.ttf"),
    "fonts-freefarsi": ("FreeFarsi.ttf", "FreeFarsi-Bold.ttf"),
    "fonts-sil-dai-banna": ("DBSILLR.ttf", "DBSILLB.ttf"),
    "culmus-fancy": ("TaameyFrankCLM-Medium.ttf", "KeterYG-Bold.ttf", "KeterYG-Medium.ttf", "MakabiYG.ttf"),
    "fonts-lao": ("Phetsarath_OT.ttf",),
    "fonts-motoya-l-cedar": ("MTLc3m.ttf",),
    "fonts-povray": ("crystal.ttf",),
    "fonts-aoyagi-kouzan-t": ("AoyagiKouzanT.ttf",),
    "fonts-aoyagi-soseki": ("aoyagi-soseki.ttf",),
    "fonts-rufscript": ("Rufscript010.ttf",),
    "fonts-cherrybomb": ("CherryBomb-Regular.otf",),
    "fonts-rit-sundar": ("RIT-Sundar.ttf",),
    "fonts-tomsontalks": ("TomsonTalks.ttf",),
}
_PRINT = list(FACES)[:9]  # in some of the others figures are tiny, or they are no faces for small print
_STAND_INS = {
    **dict(zip(f_parts.PRINT, _PRINT, strict=True)),
    **dict(zip(e_parts.PRINT, (_PRINT[0], *_PRINT[2:], _PRINT[1]), strict=True)),
    **dict(zip(f_parts.HAND, ("fonts-rufscript", "fonts-aoyagi-kouzan-t"), strict=True)),
    **dict.fromkeys(("fonts-teluguvijayam", "fonts-woowa-bm"), "fonts-cherrybomb"),
    **dict.fromkeys(("fonts-le-murmure", "fonts-smc-dyuthi", "fonts-reggae"), "culmus-fancy"),
    **dict.fromkeys(("fonts-smc-keraleeyam", "fonts-alee"), "fonts-cwtex-heib"),
    "fonts-unifont": "fonts-povray",
    "fonts-seto": "fonts-motoya-l-cedar",
}
_TINTS: tuple[Color, ...] = ((140, 24, 70), (0, 104, 116), (70, 96, 20), (190, 70, 40), (52, 58, 128), (88, 60, 40))
_GLOWS: tuple[Color, ...] = ((255, 110, 180), (110, 240, 255), (255, 190, 70), (140, 255, 150))
_BRIEFLY = "\nAnswer the question using a single word or phrase."
_BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1), "ncols": 3, "frameon": False}
_EXCEL = ("#4472c4", "#ed7d31", "#a5a5a5", "#ffc000", "#5b9bd5")
_LOOKS = {
    "mpl": ChartLooks(
        ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd"), lines_of="both", width=0.8, key={}, turns=False
    ),
    "excel": ChartLooks(_EXCEL, has_key=True, width=0.48, key=_BELOW),
    "labelled": ChartLooks(_EXCEL, has_values=True, width=0.6, key=_BELOW),
    "marked": ChartLooks(_EXCEL, marker="o", key=_BELOW),
}


def draw_sign(kit: Pad, page: Page) -> Drawn:
    """Letters of neon on a wall at night, or a plate of metal with four screws."""
    rng, lines = kit.rng, page.lines
    width, height = rng.randint(640, 1200), rng.randint(480, 900)
    is_neon = page.layout == "neon"
    image = wall(rng, width, height)
    faces = ["fonts-aoyagi-soseki", "fonts-mmcedar", "fonts-cwtex-heib"] if is_neon else _PRINT
    font = fit_all(kit.pick(faces, 0.5 * height / (1.4 * len(lines)), 1), lines, 0.66 * width)
    step, top = 1.4 * font.size, (height - 1.4 * font.size * len(lines)) / 2
    ink: Any = DARK
    if is_neon:
        image, ink = image.point(lambda value: value // 5), rng.choice(_GLOWS)
        glow = Image.new("RGB", image.size)
        for i, line in enumerate(lines):
            write(ImageDraw.Draw(glow), width / 2, top + i * step, line, font, ink, "m")
        glow = glow.filter(ImageFilter.GaussianBlur(font.size / 6))
        image = ImageChops.add(image, glow)
        ink = tuple(min(255, value + 60) for value in ink)
    pen = ImageDraw.Draw(image)
    if not is_neon:
        half = 0.5 * max(map(font.getlength, lines)) + 0.8 * font.size
        box = (width / 2 - half, top - 0.5 * font.size, width / 2 + half, height - top + 0.4 * font.size)
        pen.rectangle(box, fill=rng.choice(((196, 168, 100), (184, 188, 194), (214, 206, 190))), outline=GREY, width=4)
        for x in (box[0] + 18, box[2] - 18):
            for y in (box[1] + 18, box[3] - 18):
                pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(110, 104, 92))
    for i, line in enumerate(lines):
        write(pen, width / 2, top + i * step, line, font, ink, "m")
    return as_jpeg(add_grain(kit, image, 3), 88), page.asked


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word under a strip of colour, on a dark ground, slanted, or on a band."""
    rng, word = kit.rng, page.lines[0]
    kind, tint = rng.choice(("split", "dark", "slanted", "band")), rng.choice(_TINTS)
    width, height = rng.randint(500, 1000), rng.randint(400, 640)
    font = fit(font.font_variant(size=round(rng.uniform(0.16, 0.24) * height)), word, 0.7 * width)
    left, y = rng.uniform(0.2, 0.8) * (width - font.getlength(word)), rng.uniform(0.3, 0.5) * height
    ground, ink = ((26, 28, 36), rng.choice(_GLOWS)) if kind == "dark" else ((248, 246, 240), tint)
    image = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(image)
    if kind == "split":
        pen.rectangle((0, 0, width, 0.6 * y), fill=tint)
    elif kind == "band":
        pen.rectangle((0, y - 0.5 * font.size, width, y + 1.8 * font.size), fill=tint)
        ink = LIGHT
    write(pen, left, y, word, font, ink)
    if kind == "slanted":
        image = image.rotate(rng.choice((-6, -4, 4, 6)), Image.Resampling.BICUBIC, fillcolor=ground)
    questions = (
        "What does it say?",
        "What's the word in the picture?",
        "Read this, please.",
        "Which word can you see?",
    )
    return as_jpeg(add_grain(kit, image, 2), 90), [text(rng.choice(questions), word)]


def draw_table(kit: Pad, page: Page) -> Drawn:
    """A spreadsheet: letters over its columns, numbers before its rows, and the title in its first cell."""
    size = kit.rng.randint(22, 28)
    font, bold = kit.pick(_PRINT[:5], size), kit.plain(size, 1)
    rows = [[page.title, *[""] * (len(page.rows[0]) - 1)], *(row.split(" | ") for row in page.marked("*")), *page.rows]
    wides = [max(bold.getlength(row[i]) for row in rows[1:]) + 2 * size for i in range(len(rows[0]))]
    wides[-1] += max(0.0, 1.1 * bold.getlength(page.title) + size - sum(wides))
    tall, edge = 1.8 * size, 2.2 * size
    image = Image.new("RGB", (round(edge + sum(wides)) + 60, round(max(360, tall * (len(rows) + 3)))), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, image.width, tall), fill=(230, 230, 230))
    pen.rectangle((0, 0, edge, image.height), fill=(230, 230, 230))
    for r in range(int(image.height / tall) + 1):
        pen.line((0, r * tall, image.width, r * tall), fill=(208, 208, 208))
        if r:
            write(pen, edge / 2, (r + 0.1) * tall, str(r), font.font_variant(size=round(0.8 * size)), GREY, "m")
    x = edge
    for i, wide in enumerate(wides):
        pen.line((x, 0, x, image.height), fill=(208, 208, 208))
        write(pen, x + wide / 2, 0.1 * tall, "ABCDEF"[i], font.font_variant(size=round(0.8 * size)), GREY, "m")
        for r, row in enumerate(rows):
            is_number = r > 1 and row[i][:1].isdigit()
            spot, at = (x + wide - 0.4 * size, "r") if is_number else (x + 0.4 * size, "l")
            if r == 0 and i:  # the title runs over the cells after its own
                pen.rectangle((x - 1, tall + 1, x + 1, 2 * tall - 1), fill="white")
            write(pen, spot, (r + 1.12) * tall, row[i] if r or not i else "", bold if r < 2 else font, DARK, at)
        x += wide
    pen.line((x, 0, x, image.height), fill=(208, 208, 208))
    write(pen, edge + 0.4 * size, 1.12 * tall, page.title, bold, DARK)
    return image, page.asked


def draw_chart(kit: Pad, page: Page) -> Drawn:
    """A chart by matplotlib as it is without any setting, or by Excel as it was from 2013 on."""
    import matplotlib

    maker = page.layout.split()[0]
    paint = partial(paint_chart, page, _LOOKS[maker])
    if maker == "mpl":
        font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 20)
        look: dict[str, Any] = {"font.size": 10}
        return paint_figure(kit.rng, font, "white", "black", paint, ((6.4, 4.8), (7, 4.2)), **look), page.asked
    look = {
        **dict.fromkeys((f"axes.spines.{side}" for side in ("top", "right", "left")), False),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), "#d9d9d9"),
        "axes.axisbelow": True,
        "axes.titlesize": 18,
        "axes.titlepad": 30 if maker == "labelled" else 14,  # the highest bar's value stands above the axes
        "savefig.pad_inches": 0.3,
    }
    font = kit.font("fonts-mmcedar" if maker == "marked" else "fonts-khmeros", 20)
    return paint_figure(kit.rng, font, "white", "#595959", paint, ((6, 3.8), (7.4, 4.4)), **look), page.asked


def in_turn(*drawings: tuple[Callable[[Pad, Page], Drawn], str]) -> Callable[[Pad, Page], Drawn]:
    """Draws a page by the drawing that has its layout, or by the last one; ``ask`` words its questions."""

    def draw(kit: Pad, page: Page) -> Drawn:
        takes = [one for one, layouts in drawings if page.layout in layouts.split()]
        image, asked = (takes[0] if takes else drawings[-1][0])(kit, page)
        return image, [row | {"question": ask(row)} for row in asked]

    return draw


def ask(row: dict[str, Any]) -> str:
    """The question of a row with its line breaks; some of those that can be answered ask for a single word."""
    question = row["question"].replace(" // ", "\n")
    is_brief = row["form"] != "cannot tell" and question.endswith("?") and zlib.crc32(question.encode()) % 5 == 0
    return question + _BRIEFLY if is_brief else question


_DRAW = {
    "signs": in_turn((draw_sign, "neon plate"), (talking_edition_e.draw_sign, "enamel gantry glass hung led"),
                     (talking_edition_f.draw_sign, "")),
    "lines": in_turn((talking_edition_f.draw_lines, "")),
    "forms": in_turn((talking_edition_e.draw_form, "dotted panel stacked"), (talking_edition_f.draw_form, "")),
    "receipts": in_turn((talking_edition_e.draw_receipt, "till torn invoice"), (talking_edition_f.draw_receipt, "")),
    "menus": in_turn((talking_edition_e.draw_menu, "front screen fold"), (talking_edition_f.draw_menu, "")),
    "business cards": in_turn((talking_edition_e.draw_card, "third flush night"), (talking_edition_f.draw_card, "")),
    "tables": in_turn((draw_table, "sheet"), (e_figures.draw_table, "dark double hairline printed"),
                      (f_figures.draw_table, "")),
    "windows": in_turn((e_figures.draw_window, "alert browser chat toggles"), (f_figures.draw_window, "")),
    "posters": in_turn((talking_edition_e.draw_poster, "disk stripe border"), (talking_edition_f.draw_poster, "")),
    "charts": in_turn((draw_chart, "")),
    "shapes": in_turn((e_figures.draw_shapes, "dotted outlined filled"), (f_figures.draw_shapes, "")),
}  # fmt: skip
EDITION = Edition(letter="g", faces=FACES, plain=_PRINT, draw_word=draw_word, draw=_DRAW, stand_ins=_STAND_INS)
