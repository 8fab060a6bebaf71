"""The windows of edition i of the drawn suite."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw

from benchmarks.talking_drawings import Drawn
from benchmarks.talking_edition_e_figures import outline_of
from benchmarks.talking_edition_g import in_turn
from benchmarks.talking_edition_i_parts import (
    MONO,
    SANS,
    SOFT,
    TINTS,
    Flow,
    cut_at,
    pick,
    sheet_of,
)
from benchmarks.talking_editions import (
    DARK,
    GREY,
    LIGHT,
    Pad,
    Page,
    fit,
    paint_slope,
    write,
)

_FAINT = (214, 218, 224)


def draw_inbox(kit: Pad, page: Page) -> Drawn:
    """The list of a mailbox: a disk with a letter, who wrote, what about, and when; the first ones are new."""
    size, rng = kit.rng.randint(24, 28), kit.rng
    font, bold = pick(kit, SANS, size), pick(kit, SANS, size, 1)
    width = 860
    image, pen = sheet_of(width)
    write(pen, 40, 26, page.title, bold.font_variant(size=round(1.5 * size)), DARK)
    y = 3.4 * size
    for sender, subject, when in page.rows:
        pen.line((0, y, width, y), fill=(232, 234, 238), width=2)
        pen.ellipse((36, y + 0.7 * size, 36 + 2.6 * size, y + 3.3 * size), fill=rng.choice(TINTS))
        write(pen, 36 + 1.3 * size, y + 1.3 * size, sender[0], bold, LIGHT, "m")
        write(pen, 130, y + 0.4 * size, sender, bold, DARK)
        write(pen, 130, y + 2.0 * size, subject, fit(font, subject, width - 180), (70, 74, 82))
        write(pen, width - 40, y + 0.4 * size, when, font, GREY, "r")
        y += 4.1 * size
    return cut_at(image, y + 20), page.asked


def draw_letter(kit: Pad, page: Page) -> Drawn:
    """An e-mail that is open: its subject, from whom to whom, and what it says."""
    size, tint = kit.rng.randint(25, 29), kit.rng.choice(TINTS)
    font, bold = pick(kit, SANS, size), pick(kit, SANS, size, 1)
    image, pen = sheet_of(860)
    pen.rectangle((0, 0, 860, 66), fill=(236, 239, 244))
    for x in (40, 90, 140):
        pen.rounded_rectangle((x, 20, x + 30, 46), 6, outline=GREY, width=3)
    flow = Flow(pen, 50, 86, 760)
    flow.say(page.title, bold.font_variant(size=round(1.35 * size)), DARK, step=1.7)
    for label, value in page.rows:
        write(pen, 50, flow.y, label, font, GREY)
        write(pen, 170, flow.y, value, fit(font, value, 640), DARK)
        flow.y += 1.55 * size
    flow.rule(_FAINT, 2, 32)
    for line in page.rest:
        flow.say(line, font, DARK, step=1.6)
    for line in (each.strip("[]") for each in page.lines if each.startswith("[")):
        wide = font.getlength(line) + 60
        pen.rounded_rectangle((50, flow.y + 16, 50 + wide, flow.y + 16 + 2 * size), 8, fill=tint)
        write(pen, 80, flow.y + 16 + 0.3 * size, line, font, LIGHT)
        flow.y += 2.4 * size
    return cut_at(image, flow.y + 40), page.asked


def draw_dashboard(kit: Pad, page: Page) -> Drawn:
    """Tiles with a figure each, how it changed, and a small line that means nothing."""
    tint, rng, wide, tall = kit.rng.choice(TINTS), kit.rng, 400, 200
    image = Image.new("RGB", (2 * wide + 120, 130 + tall * -(-len(page.rows) // 2) + 30), (241, 243, 247))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 70, image.height), fill=tint)
    for y in range(40, 260, 60):
        pen.rounded_rectangle((20, y, 50, y + 30), 6, fill=tuple(min(255, value + 60) for value in tint))
    write(pen, 100, 30, page.title, pick(kit, SANS, 42, 1), DARK)
    font, bold = pick(kit, SANS, 26), pick(kit, SANS, 52, 1)
    for i, (label, value, change) in enumerate(page.rows):
        x, y = 90 + wide * (i % 2), 110 + tall * (i // 2)
        pen.rounded_rectangle((x + 8, y + 8, x + wide - 8, y + tall - 8), 12, fill="white", outline=(226, 229, 235))
        write(pen, x + 32, y + 22, label, font, GREY)
        write(pen, x + 32, y + 62, value, bold, DARK)
        write(pen, x + 32, y + 140, change, font, (200, 50, 50) if change.startswith("-") else (30, 140, 80))
        heights = [y + 120 - rng.uniform(0, 50) for _ in range(7)]
        spots = [(x + 230 + 22 * j, each) for j, each in enumerate(heights)]
        pen.line(spots, fill=tint, width=4, joint="curve")
    return image, page.asked


def draw_player(kit: Pad, page: Page) -> Drawn:
    """A player of music on a phone: a cover, the song and who sings it, and how far it has come."""
    low, high = kit.rng.sample(TINTS, 2)
    image = paint_slope(560, 960, tuple(value // 2 for value in low), tuple(value // 3 for value in high))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle((60, 90, 500, 530), 18, fill=kit.rng.choice(SOFT))
    pen.ellipse((160, 190, 400, 430), fill=high)
    pen.ellipse((255, 285, 305, 335), fill=LIGHT)
    write(pen, 280, 28, page.rest[0], pick(kit, SANS, 24), LIGHT, "m")
    title = fit(pick(kit, SANS, 44, 1), page.title, 440)
    write(pen, 60, 556, page.title, title, LIGHT)
    write(pen, 60, 616, page.rest[1], pick(kit, SANS, 30), (206, 210, 218))
    ((gone, whole),) = page.rows
    share = _seconds(gone) / _seconds(whole)
    pen.rounded_rectangle((60, 706, 500, 714), 4, fill=(120, 124, 136))
    pen.rounded_rectangle((60, 706, 60 + 440 * share, 714), 4, fill=LIGHT)
    pen.ellipse((48 + 440 * share, 698, 72 + 440 * share, 722), fill=LIGHT)
    font = pick(kit, SANS, 26)
    write(pen, 60, 724, gone, font, LIGHT)
    write(pen, 500, 724, whole, font, LIGHT, "r")
    pen.ellipse((230, 800, 330, 900), fill=LIGHT)
    for x in (264, 288):
        pen.rectangle((x, 826, x + 10, 874), fill=low)
    for x, turn in ((140, -1), (420, 1)):
        pen.polygon(((x + 20 * turn, 850), (x - 20 * turn, 828), (x - 20 * turn, 872)), fill=LIGHT)
    return image, page.asked


def _seconds(clock: str) -> int:
    minutes, seconds = clock.split(":")
    return 60 * int(minutes) + int(seconds)


def draw_search(kit: Pad, page: Page) -> Drawn:
    """What a search found: titles in blue over their sites and a line of each."""
    size = kit.rng.randint(24, 28)
    font, bold = pick(kit, SANS, size), pick(kit, SANS, round(1.25 * size))
    image, pen = sheet_of(900)
    pen.rounded_rectangle((40, 28, 860, 28 + 2.4 * size), 30, outline=_FAINT, width=3)
    write(pen, 74, 28 + 0.5 * size, page.title, font, DARK)
    pen.ellipse((800, 40, 800 + size, 40 + size), outline=(66, 120, 240), width=4)
    pen.line((800 + 0.85 * size, 40 + 0.85 * size, 804 + 1.2 * size, 44 + 1.2 * size), fill=(66, 120, 240), width=5)
    flow = Flow(pen, 60, 28 + 3.1 * size, 800)
    for line in page.rest:
        flow.say(line, font.font_variant(size=round(0.85 * size)), GREY, step=2.2)
    for title, site, words in page.rows:
        flow.say(site, font.font_variant(size=round(0.85 * size)), (40, 110, 60), step=1.45)
        flow.say(title, bold, (26, 13, 171), step=1.4)
        flow.say(words, font, (70, 74, 82), step=2.5)
    return cut_at(image, flow.y + 10), page.asked


def draw_product(kit: Pad, page: Page) -> Drawn:
    """A thing in a web shop: a photo, its name, stars, its price, and a button to buy it."""
    tint, rng, (price,) = kit.rng.choice(TINTS), kit.rng, page.marked("*")
    image = Image.new("RGB", (980, 560), "white")
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 980, 70), fill=tint)
    pen.rounded_rectangle((300, 16, 680, 54), 8, fill="white")
    pen.rectangle((40, 110, 440, 510), fill=(244, 244, 246))
    pen.rounded_rectangle((150, 190, 330, 430), 40, fill=rng.choice(SOFT), outline=GREY, width=3)
    pen.arc((290, 240, 400, 380), 270, 90, fill=GREY, width=12)
    flow = Flow(pen, 490, 104, 450)
    flow.say(page.title, pick(kit, SANS, 46, 1), DARK, step=1.4)
    stars = float(page.rest[0].split()[0])
    for i in range(5):
        x, y = 510 + 40 * i, flow.y + 26
        corners = [(x + 19 * a, y + 19 * b) for a, b in outline_of("star")]
        pen.polygon(corners, fill=(250, 180, 30) if i + 0.5 <= stars else (222, 224, 228))
    write(pen, 710, flow.y, page.rest[0], pick(kit, SANS, 28), GREY)
    flow.y += 70
    flow.say(price, pick(kit, SANS, 50, 1), tint, step=1.5)
    for line in page.rest[1:]:
        flow.say(line, pick(kit, SANS, 28), DARK, step=1.55)
    (label,) = (each.strip("[]") for each in page.lines if each.startswith("["))
    pen.rounded_rectangle((490, flow.y + 20, 860, flow.y + 90), 35, fill=(250, 176, 40))
    write(pen, 675, flow.y + 34, label, pick(kit, SANS, 30, 1), DARK, "m")
    return image, page.asked


def draw_alarms(kit: Pad, page: Page) -> Drawn:
    """The alarms of a phone: a time, on which days, and a switch ("on" or "off")."""
    is_dark = kit.rng.random() < 0.5
    ground, ink, box = ((18, 18, 22), LIGHT, (40, 42, 48)) if is_dark else ((244, 245, 248), DARK, (255, 255, 255))
    image, pen = sheet_of(560, ground)
    write(pen, 40, 40, page.title, pick(kit, SANS, 46, 1), ink)
    y, font, bold = 130.0, pick(kit, SANS, 27), pick(kit, SANS, 58)
    for clock, days, state in page.rows:
        pen.rounded_rectangle((28, y, 532, y + 146), 26, fill=box)
        faint = ink if state == "on" else (140, 144, 152)
        write(pen, 56, y + 8, clock, bold, faint)
        write(pen, 56, y + 88, days, font, faint)
        pen.rounded_rectangle((420, y + 48, 506, y + 96), 24, fill=(52, 168, 83) if state == "on" else (150, 154, 160))
        x = 460 if state == "on" else 424
        pen.ellipse((x, y + 51, x + 42, y + 93), fill=(252, 252, 252))
        y += 166
    return cut_at(image, y + 30, 400), page.asked


def draw_terminal(kit: Pad, page: Page) -> Drawn:
    """A window with commands and what they print."""
    size = kit.rng.randint(22, 27)
    font = pick(kit, MONO, size)
    width = round(max(700, max(font.getlength(line) for line in page.rest) + 90))
    image, pen = sheet_of(width, (28, 30, 38))
    pen.rectangle((0, 0, width, 54), fill=(58, 60, 70))
    for i, color in enumerate(((236, 98, 90), (244, 190, 78), (98, 196, 84))):
        pen.ellipse((20 + 32 * i, 16, 42 + 32 * i, 38), fill=color)
    write(pen, width / 2, 10, page.title, pick(kit, SANS, 24), (206, 208, 214), "m")
    y = 80.0
    for line in page.rest:
        ink = (140, 226, 140) if line.startswith("$") else (255, 140, 120) if "rror" in line else (226, 228, 232)
        write(pen, 34, y, line, font, ink)
        y += 1.55 * size
    return cut_at(image, y + 40), page.asked


def draw_poll(kit: Pad, page: Page) -> Drawn:
    """What people voted for: a bar with its share for each option, and how many took part."""
    tint = kit.rng.choice(TINTS)
    image, pen = sheet_of(760)
    font, bold = pick(kit, SANS, 28), pick(kit, SANS, 34, 1)
    flow = Flow(pen, 50, 40, 660)
    flow.say(page.title, bold, DARK, step=2)
    light = tuple(255 - (255 - value) // 3 for value in tint)
    for option, share in page.rows:
        y, part = flow.y, int(share.rstrip(" %"))
        pen.rounded_rectangle((50, y, 710, y + 62), 10, fill=(240, 242, 245))
        pen.rounded_rectangle((50, y, 50 + max(20, 660 * part / 100), y + 62), 10, fill=light)
        write(pen, 72, y + 11, option, font, DARK)
        write(pen, 690, y + 11, share, pick(kit, SANS, 28, 1), DARK, "r")
        flow.y += 78
    for line in page.rest:
        flow.say(line, font, GREY)
    return cut_at(image, flow.y + 30), page.asked


def draw_group(kit: Pad, page: Page) -> Drawn:
    """A chat of several people: a name in colour over what each of them wrote."""
    rng, inks = kit.rng, {name: TINTS[i % 5] for i, name in enumerate(dict.fromkeys(row[0] for row in page.rows))}
    image, pen = sheet_of(680, rng.choice(((232, 226, 216), (222, 232, 240))))
    pen.rectangle((0, 0, 680, 96), fill=rng.choice(TINTS))
    pen.ellipse((24, 18, 84, 78), fill=LIGHT)
    write(pen, 106, 24, page.title, pick(kit, SANS, 34, 1), LIGHT)
    y, font, bold = 124.0, pick(kit, SANS, 28), pick(kit, SANS, 25, 1)
    for author, words in page.rows:
        is_own = author == "You"
        wide = max(fit(font, words, 580).getlength(words), bold.getlength(author)) + 44
        left = 656 - wide if is_own else 24
        tall = 66 if is_own else 104
        pen.rounded_rectangle((left, y, left + wide, y + tall), 18, fill=(208, 240, 200) if is_own else (255, 255, 255))
        if not is_own:
            write(pen, left + 22, y + 8, author, bold, inks[author])
        write(pen, left + 22, y + (12 if is_own else 48), words, fit(font, words, 580), DARK)
        y += tall + 20
    return cut_at(image, y + 20, 400), page.asked


def draw_warning(kit: Pad, page: Page) -> Drawn:
    """A dialog over a dimmed window: a red disk with an exclamation mark, what is wrong, and buttons."""
    image = Image.new("RGB", (1000, 620), (96, 100, 108))
    pen, tint = ImageDraw.Draw(image), kit.rng.choice(TINTS)
    pen.rectangle((0, 0, 1000, 60), fill=(70, 74, 82))
    for y in range(100, 600, 50):
        pen.rectangle((60, y, 60 + kit.rng.randint(300, 880), y + 14), fill=(112, 116, 124))
    pen.rounded_rectangle((130, 110, 870, 510), 20, fill=(252, 252, 254))
    pen.ellipse((460, 140, 540, 220), fill=(214, 50, 50))
    write(pen, 500, 146, "!", pick(kit, SANS, 56, 1), LIGHT, "m")
    flow = Flow(pen, 170, 236, 660)
    flow.say(page.title, pick(kit, SANS, 36, 1), DARK, "m", 1.7)
    for line in page.rest:
        flow.say(line, pick(kit, SANS, 27), (80, 84, 92), "m", 1.5)
    labels = [each.strip("[]") for each in page.lines if each.startswith("[")]
    font = pick(kit, SANS, 28, 1)
    for i, label in enumerate(labels):
        x = 500 + (i - (len(labels) - 1) / 2) * 280
        pen.rounded_rectangle((x - 125, 420, x + 125, 484), 12, fill=tint if i == 0 else (226, 229, 234))
        write(pen, x, 432, label, fit(font, label, 220), LIGHT if i == 0 else DARK, "m")
    return image, page.asked


DRAW: dict[str, Callable[[Pad, Page], Drawn]] = {
    "windows": in_turn(
        *((draw_inbox, "inbox"), (draw_letter, "letter"), (draw_dashboard, "dashboard"), (draw_player, "player")),
        *((draw_search, "search"), (draw_product, "product"), (draw_alarms, "alarms"), (draw_terminal, "terminal")),
        *((draw_poll, "poll"), (draw_group, "group"), (draw_warning, "warning")),
    ),
}
