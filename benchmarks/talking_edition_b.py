"""The looks of edition b of the drawn suite: layouts and faces other than those of talking_drawings.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.talking_drawings import Drawn, as_jpeg, text, wall
from benchmarks.talking_editions import DARK, GREY, LIGHT, Edition, Font, Pad, Page, fit, paint_figure, write

FACES = {
    "fonts-nanum": ("NanumGothic.ttf", "NanumGothicBold.ttf", "NanumMyeongjo.ttf", "NanumSquareRoundB.ttf"),
    "fonts-smc-manjari": ("Manjari-Regular.otf", "Manjari-Bold.otf"),
    "fonts-sil-harmattan": ("Harmattan-Regular.ttf", "Harmattan-Bold.ttf"),
    "fonts-klee": ("KleeOne-Regular.ttf", "KleeOne-SemiBold.ttf"),
    "fonts-adf-berenis": ("BerenisADFPro-Regular.otf", "BerenisADFPro-Bold.otf"),
    "fonts-elstob": ("ElstobD-10ptMedium.otf", "ElstobD-10ptBold.otf"),
    "fonts-adf-irianis": ("IrianisADFStd-Regular.otf", "IrianisADFStd-Bold.otf"),
    "fonts-arapey": ("Arapey-Regular.otf", "Arapey-Black.otf"),
    "fonts-hermit": ("Hermit-medium.otf", "Hermit-bold.otf"),
    "fonts-3270": ("3270-Regular.ttf",),
    "fonts-osifont": ("osifont.ttf",),
    "fonts-leckerli-one": ("LeckerliOne-Regular.ttf",),
    "fonts-century-catalogue": ("Century-Catalogue.ttf",),
}
_PLAIN = list(FACES)[:6]  # the others have old figures, or are no faces for small print
_MONO = ["fonts-hermit", "fonts-3270", "fonts-nanum"]
_SHOWN = ["fonts-elstob", "fonts-arapey", "fonts-leckerli-one", "fonts-klee", "fonts-nanum", "fonts-century-catalogue"]
_STRONG = ((14, 84, 92), (122, 44, 90), (176, 82, 20), (38, 70, 140), (58, 92, 38), (150, 34, 42))
_SOFT = ((252, 244, 214), (226, 240, 232), (244, 228, 232), (230, 234, 248), (240, 240, 236))
_MATERIALS = ((118, 86, 60), (70, 96, 88), (150, 152, 160), (58, 62, 84), (196, 180, 150))


def _lay(kit: Pad, paper: Image.Image, turn: float) -> Image.Image:
    """A paper on a table of some material, slightly turned."""
    noise = np.random.default_rng(kit.rng.getrandbits(32))
    turned = paper.convert("RGBA").rotate(kit.rng.uniform(-turn, turn), Image.Resampling.BICUBIC, expand=True)
    margin = kit.rng.randint(24, 70)
    size = (turned.width + 2 * margin, turned.height + 2 * margin)
    grain = noise.normal(0, 7, (size[1], 1, 1)) + noise.normal(0, 4, (size[1], size[0], 1))
    table = Image.fromarray((np.array(kit.rng.choice(_MATERIALS)) + grain).clip(0, 255).astype(np.uint8))
    table.paste((0, 0, 0), (margin + 6, margin + 8), turned.getchannel("A").point(lambda alpha: alpha // 3))
    table.paste(turned, (margin, margin), turned)
    return as_jpeg(table, 85)


def draw_sign(kit: Pad, page: Page) -> Drawn:
    """An enamel plate with screws, a slate, a sheet of paper, or letters that glow."""
    rng, words = kit.rng, page.lines[0]
    width, height = rng.randint(520, 1300), rng.randint(420, 900)
    kind = rng.choice(("plate", "slate", "paper", "glow"))
    fill, ink = {
        "plate": (rng.choice(_STRONG), LIGHT),
        "slate": ((44, 50, 48), (236, 232, 214)),
        "paper": (rng.choice(_SOFT), rng.choice(_STRONG)),
        "glow": ((18, 16, 30), rng.choice(((255, 120, 190), (120, 240, 255)))),
    }[kind]
    parts = words.split(" ")
    half = (len(parts) + 1) // 2
    lines = [words] if len(words) < 12 else [" ".join(parts[:half]), " ".join(parts[half:])]
    font = kit.pick(
        _SHOWN if kind in ("slate", "glow") else [*_PLAIN, "fonts-osifont"], height * rng.uniform(0.1, 0.16), 1
    )
    font = min((fit(font, line, 0.7 * width) for line in lines), key=lambda each: each.size)
    wide, step = max(map(font.getlength, lines)) + 1.6 * font.size, 1.35 * font.size
    board = Image.new("RGB", (round(wide), round(step * len(lines) + 1.2 * font.size)), fill)
    pen = ImageDraw.Draw(board)
    if kind == "plate":
        pen.rectangle((8, 8, board.width - 9, board.height - 9), outline=ink, width=3)
        for x in (18, board.width - 26):
            pen.ellipse((x, board.height / 2 - 4, x + 8, board.height / 2 + 4), fill=(190, 190, 190))
    elif kind == "slate":
        pen.rectangle((0, 0, board.width - 1, board.height - 1), outline=(140, 100, 60), width=9)
    for i, line in enumerate(lines):
        write(pen, wide / 2, 0.55 * font.size + i * step, line, font, ink, "m")
    board = board.convert("RGBA").rotate(rng.uniform(-3, 3), Image.Resampling.BICUBIC, expand=True)
    image = wall(rng, width, height)
    image.paste(board, (rng.randint(0, width - board.width), rng.randint(0, height - board.height)), board)
    question = rng.choice(("What can you read on this sign?", "What does it say here?", "Which words are on the sign?"))
    return as_jpeg(image, 85), [text(question, words)]


def draw_word(kit: Pad, page: Page, font: Font) -> Drawn:
    """A word on paper, cloth or a coloured ground, slightly turned."""
    rng, word = kit.rng, page.lines[0]
    width, height = rng.randint(400, 1000), rng.randint(400, 700)
    ground = rng.choice((*_SOFT, *_STRONG, (255, 255, 255)))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, rng.choice((0, 0, 6)), (height, width, 1))
    image = Image.fromarray((np.array(ground) + noise).clip(0, 255).astype(np.uint8))
    font = fit(font.font_variant(size=round(rng.uniform(0.08, 0.22) * height)), word, 0.8 * width)
    layer = Image.new("L", (round(font.getlength(word) + font.size), round(2 * font.size)), 0)
    write(ImageDraw.Draw(layer), font.size / 2, 0.35 * font.size, word, font, 255)
    layer = layer.rotate(rng.uniform(-4, 4), Image.Resampling.BICUBIC, expand=True)
    spot = (rng.randint(0, max(0, width - layer.width)), rng.randint(0, height - layer.height))
    image.paste(LIGHT if sum(ground) < 400 else rng.choice((DARK, *_STRONG)), spot, layer)
    return image, [text(rng.choice(("Which word do you see?", "Can you read this word?", "What does it say?")), word)]


def draw_receipt(kit: Pad, page: Page) -> Drawn:
    rng, width = kit.rng, kit.rng.randint(430, 640)
    font = kit.pick(_MONO if page.layout == "paper" else _PLAIN, width / 23)
    head, line = kit.plain(width / 13, 1), 1.6 * font.size
    paper = Image.new(
        "RGB", (width, round(line * (len(page.lines) + 3))), rng.choice(_SOFT) if page.layout == "tinted" else LIGHT
    )
    pen, y = ImageDraw.Draw(paper), line
    total = [row for row in page.rows if row[0].lower().startswith(("total", "sum", "amount", "to pay"))]
    for each in page.lines:
        if each.startswith("! "):
            write(pen, width / 2, y, each[2:], fit(head, each[2:], width - 60), DARK, "m")
            y += 0.6 * line
        elif each == "---":
            for x in range(28, width - 34, 12):
                pen.line((x, y + line / 2, x + 6, y + line / 2), fill=GREY, width=2)
        elif each.startswith("- "):
            write(
                pen,
                width / 2 if page.layout == "paper" else 28,
                y,
                each[2:],
                font,
                GREY,
                "m" if page.layout == "paper" else "l",
            )
        else:
            left, right = each.split(" | ")
            if [left, right] in total and page.layout == "tinted":
                pen.rectangle((20, y - 2, width - 20, y + line - 4), fill=(206, 206, 200))
            write(pen, 28, y, left, font, DARK)
            write(pen, width - 28, y, right, font, DARK, "r")
        y += line
    return _lay(kit, paper, 2.0), page.asked


def draw_menu(kit: Pad, page: Page) -> Drawn:
    rng, width = kit.rng, kit.rng.randint(560, 1000)
    is_board = page.layout == "board"
    size, ground = width / rng.uniform(19, 23), (36, 42, 40) if is_board else rng.choice(_SOFT)
    ink, tint = (LIGHT, (246, 206, 110)) if is_board else (DARK, rng.choice(_STRONG))
    body, head = (
        kit.pick(["fonts-klee"] if is_board else [*_PLAIN, "fonts-elstob"], size),
        kit.pick(_SHOWN[:5], 1.9 * size, 1),
    )
    small, line = body.font_variant(size=round(0.78 * size)), 1.9 * size
    image = Image.new("RGB", (width, round(line * (len(page.lines) + 3))), ground)
    pen, y, edge = ImageDraw.Draw(image), line, width * 0.1
    if page.layout == "framed":
        pen.rectangle((16, 16, width - 17, image.height - 17), outline=tint, width=5)
        pen.rectangle((26, 26, width - 27, image.height - 27), outline=tint, width=1)
    for each in page.lines:
        if each.startswith("! "):
            left = page.layout == "described"
            write(
                pen,
                edge if left else width / 2,
                y,
                each[2:],
                fit(head, each[2:], 0.8 * width),
                tint,
                "l" if left else "m",
            )
            y += 0.7 * line
        elif each.startswith("* "):
            write(pen, width / 2, y, each[2:].upper(), small, tint, "m")
        elif each.startswith("- "):
            is_under = page.layout == "described"
            write(
                pen,
                edge if is_under else width / 2,
                y - 0.3 * line * is_under,
                each[2:],
                small,
                ink if is_board else GREY,
                "l" if is_under else "m",
            )
        else:
            dish, price = each.split(" | ")
            write(pen, edge, y, dish, body, ink)
            right = width - edge - (0 if page.layout != "described" else 0.12 * width)
            write(pen, right, y, price, body, tint if is_board else ink, "r")
            if page.layout == "leaders":
                for x in range(round(edge + body.getlength(dish) + 14), round(right - body.getlength(price) - 10), 11):
                    pen.ellipse((x, y + size - 3, x + 2, y + size - 1), fill=GREY)
        y += line
    return (as_jpeg(image) if is_board else image), page.asked


def draw_card(kit: Pad, page: Page) -> Drawn:
    rng, width, tint = kit.rng, kit.rng.randint(760, 1100), kit.rng.choice(_STRONG)
    height = round(width * 0.58)
    is_dark, share = page.layout == "dark", {"split": 0.36}.get(page.layout, 0.0)
    card = Image.new("RGB", (width, height), tint if is_dark else (253, 253, 250))
    pen, ink = ImageDraw.Draw(card), LIGHT if is_dark else DARK
    at, x = {"centred": ("m", width / 2), "right": ("r", width * 0.92)}.get(page.layout, ("l", width * (share + 0.07)))
    initials = "".join(part[0] for part in page.title.split())
    if share:
        pen.rectangle((0, 0, width * share, height), fill=tint)
        write(pen, width * share / 2, height * 0.36, initials, kit.pick(_SHOWN[:5], width / 9, 1), LIGHT, "m")
    else:
        pen.line((width * 0.08, height * 0.5, width * 0.92, height * 0.5), fill=ink if is_dark else tint, width=3)
    big, small = kit.pick([*_PLAIN, "fonts-elstob", "fonts-arapey"], width / 16, 1), kit.plain(width / 30)
    room = width * (0.86 - share)
    write(pen, x, height * 0.15, page.title, fit(big, page.title, room), ink if is_dark else tint, at)
    write(pen, x, height * 0.34, page.marked("*")[0], small, ink, at)
    for i, each in enumerate(page.rest):
        write(pen, x, height * (0.56 + 0.1 * i), each, fit(small, each, room), ink, at)
    return (_lay(kit, card, 1.5) if rng.random() < 0.5 else card), page.asked


def draw_table(kit: Pad, page: Page) -> Drawn:
    """Ruled below each row, boxed, striped, or without any rule; head rows are bold, filled or missing."""
    rng, size = kit.rng, kit.rng.randint(20, 36)
    font = kit.pick([*_PLAIN, "fonts-elstob"], size)
    bold = kit.plain(size, 1)
    heads = [each.split(" | ") for each in page.marked("*")]
    rows, tint = heads + page.rows, rng.choice(_STRONG)
    wides = [max(bold.getlength(row[i]) for row in rows) + 2.2 * size for i in range(len(rows[0]))]
    tall, top, left = rng.uniform(1.7, 2.3) * size, 3.4 * size if page.title else size, 1.5 * size
    ground = rng.choice(((255, 255, 255), *_SOFT))
    width = round(max(sum(wides), bold.getlength(page.title) * 1.3) + 2 * left)
    image = Image.new("RGB", (max(400, width), max(300, round(top + tall * len(rows) + 1.5 * size))), ground)
    pen, right = ImageDraw.Draw(image), left + sum(wides)
    write(pen, left, 1.1 * size, page.title, bold.font_variant(size=round(1.25 * size)), tint)
    for r, row in enumerate(rows):
        y, x, is_head = top + r * tall, left, r < len(heads)
        if page.layout in ("zebra", "boxes") and is_head:
            pen.rectangle((left, y, right, y + tall), fill=tint)
        elif page.layout == "zebra" and r % 2:
            pen.rectangle((left, y, right, y + tall), fill=(214, 218, 224))
        if page.layout == "lines":
            pen.line(
                (left, y + tall, right, y + tall), fill=DARK if is_head else (170, 172, 176), width=3 if is_head else 1
            )
        for i, (cell, wide) in enumerate(zip(row, wides, strict=True)):
            if page.layout == "boxes":
                pen.rectangle((x, y, x + wide, y + tall), outline=GREY)
            ink = LIGHT if is_head and page.layout in ("zebra", "boxes") else DARK
            far = i > 0 and page.layout != "plain"
            spot = x + wide - 0.6 * size if far else x + 0.6 * size
            write(pen, spot, y + (tall - 1.3 * size) / 2, cell, bold if is_head else font, ink, "r" if far else "l")
            x += wide
    return image, page.asked


def draw_window(kit: Pad, page: Page) -> Drawn:
    """A grey bevelled window, a dark one, a form with fields, or a notice on a telephone."""
    rng, layout = kit.rng, page.layout
    if layout == "phone":
        return _draw_phone(kit, page)
    width, height = rng.randint(700, 1250), rng.randint(520, 820)
    ground = {"bevel": (0, 128, 128), "dark": (70, 60, 90), "form": (214, 224, 236)}[layout]
    image = Image.new("RGB", (width, height), ground)
    pen, size = ImageDraw.Draw(image), rng.randint(22, 30)
    font, bold = kit.plain(size), kit.plain(size, 1)
    fill, ink = (
        ((45, 47, 54), LIGHT)
        if layout == "dark"
        else ((196, 198, 200), (0, 0, 0))
        if layout == "bevel"
        else ((255, 255, 255), DARK)
    )
    body: list[list[str]] = page.rows or [[each] for each in page.rest]
    buttons = [each.strip("[]") for each in page.lines if each.startswith("[")]
    wide, step = min(width - 40, rng.randint(20, 24) * size), 2.0 * size
    tall = step * (len(body) + 4)
    x, y = (width - wide) * rng.uniform(0.2, 0.8), (height - tall) * rng.uniform(0.3, 0.7)
    pen.rounded_rectangle(
        (x, y, x + wide, y + tall), 0 if layout == "bevel" else 16, fill=fill, outline=(90, 90, 96), width=2
    )
    if layout == "bevel":
        pen.rectangle((x + 4, y + 4, x + wide - 4, y + 1.7 * size), fill=(0, 0, 128))
        pen.rectangle((x + wide - 1.5 * size, y + 8, x + wide - 9, y + 1.7 * size - 4), fill=fill)
    middle = layout == "dark"
    write(
        pen,
        x + wide / 2 if middle else x + 0.7 * size,
        y + 0.25 * size,
        page.title,
        bold,
        LIGHT if layout == "bevel" else ink,
        "m" if middle else "l",
    )
    for i, row in enumerate(body):
        base = y + (1.3 + i) * step
        write(pen, x + 1.2 * size, base, row[0], font, ink)
        if layout == "form":
            pen.rectangle(
                (x + 0.42 * wide, base - 0.15 * size, x + wide - size, base + 1.45 * size), outline=GREY, width=2
            )
        if len(row) > 1:
            far = layout == "dark"
            write(
                pen,
                x + wide - 1.2 * size if far else x + 0.42 * wide + 12,
                base,
                row[1],
                font,
                ink,
                "r" if far else "l",
            )
    end = x + wide - size
    for place, label in enumerate(reversed(buttons)):
        room = font.getlength(label) + 2 * size
        box = (end - room, y + tall - 2.4 * size, end, y + tall - 0.7 * size)
        main = place == 0 and layout != "bevel"
        pen.rounded_rectangle(
            box, 0 if layout == "bevel" else 6, fill=(40, 120, 90) if main else fill, outline=GREY, width=2
        )
        write(pen, end - room / 2, box[1] + 0.15 * size, label, font, LIGHT if main else ink, "m")
        end -= room + 0.6 * size
    return image, page.asked


def _draw_phone(kit: Pad, page: Page) -> Drawn:
    width = kit.rng.randint(440, 620)
    height = round(1.7 * width)
    low, high = np.array(kit.rng.choice(_STRONG)), np.array(kit.rng.choice(_MATERIALS))
    slope = np.linspace(0, 1, height)[:, None, None]
    image = Image.fromarray(np.broadcast_to(low + (high - low) * slope, (height, width, 3)).astype(np.uint8))
    pen, font = ImageDraw.Draw(image), kit.plain(width / 20)
    write(pen, width / 2, 0.12 * height, page.title, kit.plain(width / 5), LIGHT, "m")
    pen.rounded_rectangle((24, 0.4 * height, width - 24, 0.4 * height + 8.2 * font.size), 26, fill=LIGHT)
    pen.ellipse(
        (48, 0.4 * height + font.size, 48 + 2 * font.size, 0.4 * height + 3 * font.size), fill=kit.rng.choice(_STRONG)
    )
    left = 66 + 2 * font.size
    write(pen, left, 0.4 * height + font.size, page.marked("*")[0], kit.plain(width / 18, 1), DARK)
    for i, each in enumerate(page.rest):
        write(pen, left, 0.4 * height + (3.3 + 1.7 * i) * font.size, each, font, DARK)
    return image, page.asked


def draw_poster(kit: Pad, page: Page) -> Drawn:
    rng, width, tint = kit.rng, kit.rng.randint(560, 900), kit.rng.choice(_STRONG)
    height, layout = round(width * rng.uniform(1.25, 1.5)), page.layout
    image = Image.new("RGB", (width, height), tint if layout == "left" else rng.choice(_SOFT))
    pen, ink = ImageDraw.Draw(image), LIGHT if layout == "left" else tint
    if layout == "framed":
        pen.rectangle((22, 22, width - 23, height - 23), outline=tint, width=14)
    elif layout == "banded":
        pen.polygon(((0, height * 0.28), (width, height * 0.2), (width, height * 0.46), (0, height * 0.54)), fill=tint)
    parts = page.title.split(" ")
    half = (len(parts) + 1) // 2
    title = [page.title] if layout == "banded" or len(parts) == 1 else [" ".join(parts[:half]), " ".join(parts[half:])]
    head = kit.pick(_SHOWN, width / 6, 1)
    head = min((fit(head, each, 0.8 * width) for each in title), key=lambda each: each.size)
    at, x = ("l", width * 0.1) if layout == "left" else ("m", width / 2)
    for i, each in enumerate(title):
        y = height * 0.37 - 0.7 * head.size if layout == "banded" else height * 0.1 + 1.25 * i * head.size
        write(pen, x, y, each, head, LIGHT if layout == "banded" else ink, at)
    for i in range(5):  # an ornament without a meaning
        y, r = height * 0.58, width * 0.035
        pen.regular_polygon(
            (width * (0.14 + 0.1 * i) if layout == "left" else width * (0.3 + 0.1 * i), y, r), 3 + i % 2, fill=ink
        )
    body = kit.plain(width / 17, 1)
    for i, each in enumerate(page.rest):
        write(
            pen,
            x,
            height * 0.68 + 1.6 * i * body.size,
            each,
            fit(body, each, 0.8 * width),
            ink if layout == "left" else DARK,
            at,
        )
    return as_jpeg(image), page.asked


def draw_chart(kit: Pad, page: Page) -> Drawn:
    if page.layout == "pills":
        return _draw_pills(kit, page)
    rng, font = kit.rng, kit.plain(20)
    title, *series = page.title.split(" | ")
    labels, values = [row[0] for row in page.rows], np.array([[float(v) for v in row[1:]] for row in page.rows]).T
    colors = rng.sample(["#2a6f97", "#e07a5f", "#81b29a", "#6d597a", "#f2b134", "#444444"], 6)
    dark = page.layout in ("lollipop", "area")

    def paint(axes: Any) -> None:
        spots = np.arange(len(labels))
        if page.layout == "grouped":
            for i, row in enumerate(values):
                axes.bar(spots + 0.38 * (i - 0.5), row, 0.36, color=colors[i], label=series[i])
        elif page.layout == "stacked":
            for i, row in enumerate(values):
                axes.bar(spots, row, 0.55, values[:i].sum(0) if i else 0, color=colors[i], label=series[i])
        elif page.layout == "lines":
            for i, row in enumerate(values):
                axes.plot(spots, row, marker="oD"[i], linewidth=2.5, color=colors[i], label=series[i])
        elif page.layout == "lollipop":
            axes.hlines(spots, 0, values[0], color=colors[0], linewidth=3)
            axes.plot(values[0], spots, "o", markersize=13, color=colors[0])
            for spot, value in zip(spots, values[0], strict=True):
                axes.text(value + 0.04 * values[0].max(), spot, f"{value:g}", va="center")
            axes.set_xlim(0, 1.2 * values[0].max())
        elif page.layout == "area":
            axes.fill_between(spots, values[0], color=colors[0], alpha=0.6)
            axes.plot(spots, values[0], color=colors[0], linewidth=3)
            axes.set_ylim(bottom=0)
        else:
            shown = [f"{label}\n{value:g}%" for label, value in zip(labels, values[0], strict=True)]
            axes.pie(values[0], labels=shown, colors=colors, wedgeprops={"width": 0.42, "edgecolor": "white"})
        if page.layout == "lollipop":
            axes.set_yticks(spots, labels)
            axes.set_xlabel(series[0])
        elif page.layout != "donut":
            axes.set_xticks(spots, labels)
            axes.grid(axis="y", alpha=0.35, linestyle=":")
        if len(values) > 1:
            axes.legend(frameon=False)
        axes.set_title(title, loc="left", fontsize=17)

    ground, ink = ("#202830", "white") if dark else ("#faf7f0", "#222222")
    bare: dict[str, Any] = {"axes.spines.top": False, "axes.spines.right": False}
    return paint_figure(rng, font, ground, ink, paint, **bare), page.asked


def _draw_pills(kit: Pad, page: Page) -> Drawn:
    """Round level bars with their values in them or behind, as magazines print them."""
    width, tint = kit.rng.randint(640, 1000), kit.rng.choice(_STRONG)
    size = width / 28
    image = Image.new("RGB", (width, round(size * (5 + 2.4 * len(page.rows)))), kit.rng.choice(_SOFT))
    pen, font, most = ImageDraw.Draw(image), kit.plain(size), max(float(row[1]) for row in page.rows)
    write(pen, size, 1.2 * size, page.title, kit.plain(1.6 * size, 1), DARK)
    for i, (label, value) in enumerate(page.rows):
        y, end = (4.4 + 2.4 * i) * size, 0.24 * width + 0.6 * width * float(value) / most
        write(pen, size, y, label, font, DARK)
        pen.rounded_rectangle((0.24 * width, y - 0.1 * size, end, y + 1.4 * size), 0.7 * size, fill=tint)
        write(pen, end + 0.5 * size, y, value, font, DARK)
    return image, page.asked


EDITION = Edition(
    letter="b",
    faces=FACES,
    plain=_PLAIN,
    draw_word=draw_word,
    draw={
        "signs": draw_sign,
        "receipts": draw_receipt,
        "menus": draw_menu,
        "business cards": draw_card,
        "tables": draw_table,
        "windows": draw_window,
        "posters": draw_poster,
        "charts of other looks": draw_chart,
    },
)
