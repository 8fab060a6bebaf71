"""What the drawings of edition e share: its faces, its colours, and how lines are set on a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.talking_editions import (
    DARK,
    GREY,
    Color,
    Font,
    fit,
    write,
)

FACES = {
    "fonts-horai-umefont": ("ume-hgo4.ttf", "ume-hgo5.ttf"),
    "fonts-nanum-extra": ("NanumSquare_acR.ttf", "NanumSquare_acB.ttf"),
    "fonts-lxgw-wenkai": ("LXGWWenKai-Regular.ttf", "LXGWWenKai-Bold.ttf"),
    "fonts-sil-alkalami": ("Alkalami-Light.ttf", "Alkalami-Regular.ttf"),
    "fonts-paktype": ("PakType Naqsh.ttf",),
    "fonts-smc-meera": ("Meera-Regular.ttf",),
    "fonts-sawarabi-mincho": ("sawarabi-mincho-medium.ttf",),
    "fonts-lexi-saebom": ("LexiSaebomR.ttf",),
    "fonts-smc-anjalioldlipi": ("AnjaliOldLipi-Regular.ttf",),
    "fonts-unifont": ("unifont.otf",),
    "fonts-seto": ("setofont.ttf",),
    "fonts-alee": ("Bangwool.ttf", "Eunjin.ttf", "Bandal.ttf"),
    "fonts-woowa-bm": ("BMJUA_ttf.ttf", "BMDOHYEON_ttf.ttf", "BMHANNAPro.ttf"),
    "fonts-reggae": ("ReggaeOne-Regular.ttf",),
    "fonts-stick": ("Stick-Regular.ttf",),
    "fonts-train": ("TrainOne-Regular.ttf",),
    "fonts-apropal": ("Apropal-Bold.otf",),
    "fonts-staypuft": ("StayPuft.ttf",),
    "fonts-smc-dyuthi": ("Dyuthi-Regular.ttf",),
    "fonts-smc-keraleeyam": ("Keraleeyam-Regular.ttf",),
    "fonts-summersby": ("summersby.ttf",),
    "fonts-havana": ("Havana-Regular.otf",),
    "fonts-kiloji": ("kiloji_p.ttf", "kiloji_b.ttf"),
    "fonts-engadget": ("Engadget.ttf",),
    "fonts-nafees": ("NafeesWeb.ttf",),
    "fonts-radisnoir": ("RadisSans-medium.otf",),
    "fonts-bwht": ("BecauseWeConnect-Regular.otf", "BecauseWeLearn-Regular.otf"),
    "fonts-humor-sans": ("Humor-Sans.ttf",),
}
PRINT = list(FACES)[:9]
SCREEN = PRINT[:3]
HAND = ["fonts-lxgw-wenkai", "fonts-alee", "fonts-seto"]
SHOWN = ["fonts-woowa-bm", "fonts-smc-dyuthi", "fonts-smc-keraleeyam", "fonts-reggae", "fonts-horai-umefont"]
DEEP: tuple[Color, ...] = ((30, 66, 112), (122, 34, 58), (26, 96, 90), (84, 62, 132), (158, 74, 24), (48, 52, 60))


@dataclass(frozen=True)
class Style:
    """How lines are set: their colours, ``at`` the left, the middle or the right, and how ``pairs`` stand.

    ``pairs`` is "ends" (the second at the right), "below" (in a box under the first), "dotted" (on a dotted line),
    "tab" (at a stop), "first" (the first is a price before the second), "ruled" (on a line of their own, the second at
    a stop), "cells" (in two boxes side by side) or "under" (the second, strong, under the first).
    """

    ink: Any = DARK
    accent: Any = DARK
    faint: Any = GREY
    value: Any = None
    at: str = "l"
    pairs: str = "ends"


def set_lines(lines: list[str], width: int, body: Font, bold: Font, style: Style) -> Image.Image:
    """The lines from top to bottom, on a transparent ground."""
    sheet, size, y = Image.new("RGBA", (width, 2400), (255, 255, 255, 0)), body.size, 0.0
    pen = ImageDraw.Draw(sheet)
    x = {"l": 0.0, "m": width / 2, "r": float(width)}[style.at]
    for line in lines:
        mark, _, rest = line.partition(" ")
        if line == "---":
            for left in np.arange(0, width, 0.9 * size):
                pen.line((left, y + 0.4 * size, left + 0.5 * size, y + 0.4 * size), fill=style.faint, width=2)
            y += 0.8 * size
        elif mark in ("!", "*", "-"):
            scale, step, face, ink = {
                "!": (1.8, 2.9, bold, style.accent),
                "*": (1.1, 2.0, bold, style.accent),
                "-": (0.88, 1.5, body, style.faint),
            }[mark]
            write(pen, x, y, rest, fit(face.font_variant(size=round(scale * size)), rest, width), ink, style.at)
            y += step * size
        elif line.startswith(("[x] ", "[ ] ")):
            pen.ellipse((2, y + 0.15 * size, 2 + size, y + 1.15 * size), fill="white", outline=DARK, width=2)
            if line[1] == "x":
                pen.ellipse((2 + 0.22 * size, y + 0.37 * size, 2 + 0.78 * size, y + 0.93 * size), fill=DARK)
            write(pen, 1.6 * size, y, line[4:], body, style.ink)
            y += 1.8 * size
        elif " | " in line:
            y += _set_pair(pen, line.split(" | "), y, width, body, bold, style)
        else:
            write(pen, x, y, line, fit(body, line, width), style.ink, style.at)
            y += 1.65 * size
    return sheet.crop((0, 0, width, round(y + 0.3 * size)))


def _set_pair(
    pen: ImageDraw.ImageDraw, cells: list[str], y: float, width: int, body: Font, bold: Font, style: Style
) -> float:
    """Writes two cells; returns the step to the next line."""
    (label, value), size, ink = cells, body.size, style.value or style.ink
    if style.pairs == "below":
        write(pen, 0, y, label, body.font_variant(size=round(0.8 * size)), style.faint)
        box = (0, y + 1.2 * size, width - 2, y + 3.0 * size)
        pen.rounded_rectangle(box, 8, fill="white", outline=style.faint, width=2)
        write(pen, 0.6 * size, y + 1.45 * size, value, body, ink)
        return 3.6 * size
    if style.pairs == "first":
        write(pen, 0, y, label, bold, style.accent)
        write(pen, 3.4 * size, y, value, body, ink)
        return 2.1 * size
    if style.pairs == "under":
        write(pen, 0, y, label, body, style.ink)
        write(pen, 0, y + 1.5 * size, value, bold, ink)
        return 3.6 * size
    if style.pairs == "cells":
        for left, right in ((0, 0.42 * width), (0.42 * width, width - 2)):
            pen.rectangle((left, y, right, y + 2.2 * size), outline=style.faint, width=2)
        write(pen, 0.5 * size, y + 0.45 * size, label, bold, style.ink)
        write(pen, 0.42 * width + 0.5 * size, y + 0.45 * size, value, body, ink)
        return 2.2 * size
    if style.pairs == "ruled":
        pen.line((0, y + 1.75 * size, width, y + 1.75 * size), fill=style.faint, width=1)
    write(pen, 0, y, label, body, style.ink)
    if style.pairs == "ends":
        write(pen, width, y, value, body, ink, "r")
        return 1.75 * size
    left = 0.44 * width
    if style.pairs == "dotted":
        for spot in np.arange(left, width - 4, 9):
            pen.ellipse((spot, y + 1.3 * size, spot + 3, y + 1.3 * size + 3), fill=style.faint)
    write(pen, left + 0.4 * size, y, value, body, ink)
    return 2.1 * size


def on_ground(sheet: Image.Image, color: Any, margin: int, head: int = 0) -> Image.Image:
    """The sheet with a margin, below ``head`` pixels for what is drawn there."""
    size = (sheet.width + 2 * margin, max(340, sheet.height + 2 * margin + head))
    ground = Image.new("RGB", size, color)
    ground.paste(sheet, (margin, margin + head), sheet)
    return ground
