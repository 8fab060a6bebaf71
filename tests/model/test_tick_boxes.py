"""Boxes and circles before a line are told as ticked or not; letters, icons and bullets are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from llava.model.lexical.tick_boxes import find_marks, mark_ticks
from tests.model.seen_lines import Line

PX = 28
Draw = Callable[[ImageDraw.ImageDraw, tuple[int, int, int, int], str, bool], None]


def check(at: tuple[int, int, int, int]) -> list[tuple[float, float]]:
    """The ends and the turn of a check mark in a square."""
    x, y, side = at[0], at[1], at[2] - at[0]
    return [(x + a * side, y + b * side) for a, b in ((0.2, 0.5), (0.42, 0.75), (0.83, 0.24))]


def box(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    draw.rectangle(at, outline=ink, width=2)
    if is_ticked:
        draw.line(check(at), fill=ink, width=3)


def crossed(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    x0, y0, x1, y1 = at
    draw.rectangle(at, outline=ink, width=2)
    if is_ticked:
        draw.line((x0 + 3, y0 + 3, x1 - 3, y1 - 3), fill=ink, width=2)
        draw.line((x0 + 3, y1 - 3, x1 - 3, y0 + 3), fill=ink, width=2)


def radio(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    x0, y0, x1, y1 = at
    draw.ellipse(at, outline=ink, width=2)
    if is_ticked:
        inset = 0.27 * (x1 - x0)
        draw.ellipse((x0 + inset, y0 + inset, x1 - inset, y1 - inset), fill=ink)


def filled(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    if is_ticked:
        draw.rectangle(at, fill="#1a73e8")
        draw.line(check(at), fill="white", width=3)
    else:
        draw.rectangle(at, outline="gray", width=2)


def overshot(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    x0, y0, x1, y1 = at
    draw.rectangle(at, outline=ink, width=2)
    if is_ticked:
        draw.line((x0 - 6, y0 - 6, x1 + 7, y1 + 6), fill="#2040a0", width=3)
        draw.line((x0 - 5, y1 + 6, x1 + 6, y0 - 6), fill="#2040a0", width=3)


def ballot(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    draw.ellipse(at, outline=ink, width=2, fill=ink if is_ticked else None)


def web_radio(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    x0, y0, x1, y1 = at
    draw.ellipse(at, outline="#0d6efd" if is_ticked else "#c4c4c4", width=2, fill="#0d6efd" if is_ticked else None)
    if is_ticked:
        inset = 0.3 * (x1 - x0)
        draw.ellipse((x0 + inset, y0 + inset, x1 - inset, y1 - inset), fill="white")


def rounded(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    draw.rounded_rectangle(
        at, 4, outline="#2f81f7" if is_ticked else "gray", width=2, fill="#2f81f7" if is_ticked else None
    )
    if is_ticked:
        draw.line(check(at), fill="white", width=3)


def boxed_letter(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    draw.rectangle(at, outline=ink, width=2)
    draw.text((at[0] + 12, at[1] + 12), "AB"[is_ticked], fill=ink, font=ImageFont.load_default(16), anchor="mm")


def folder(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    x0, y0, x1, y1 = at
    draw.rectangle(at, outline=ink, width=2)
    draw.line((x0 + 5, y0 + 12, x1 - 5, y0 + 12), fill=ink, width=2)
    if is_ticked:
        draw.line((x0 + 12, y0 + 5, x0 + 12, y1 - 5), fill=ink, width=2)


def envelope(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    x0, y0, x1, _ = at
    draw.rectangle(at, outline=ink, width=2)
    draw.line((x0 + 2, y0 + 3, x0 + 12, y0 + 14, x1 - 2, y0 + 3), fill=ink, width=2)


def swatch(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    draw.rectangle(at, fill="green" if is_ticked else "blue", outline=ink, width=2)


def circled_i(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    x0, y0, x1, y1 = at
    draw.ellipse(at, outline=ink, width=2)
    draw.line(((x0 + x1) // 2, y0 + 7, (x0 + x1) // 2, y1 - 7), fill=ink, width=3)


def disc(draw: ImageDraw.ImageDraw, at: tuple[int, int, int, int], ink: str, is_ticked: bool) -> None:
    draw.ellipse(at, fill=ink)


def draw_form(
    mark: Draw, states: list[bool], ink: str = "black", ground: str = "white"
) -> tuple[torch.Tensor, list[Line]]:
    """A form with a mark before each of its lines, and the lines as a reader gives them, without the marks."""
    image = Image.new("RGB", (420, 60 * len(states) + 30), ground)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(PX)
    lines = []
    for i, state in enumerate(states):
        y = 30 + 60 * i
        mark(draw, (20, y, 20 + 24, y + 24), ink, state)
        left, top, right, bottom = draw.textbbox((62, y - 6), f"Choice {i}", font=font)
        draw.text((62, y - 6), f"Choice {i}", fill=ink, font=font)
        lines.append(Line(f"Choice {i}", (left, top, right, bottom)))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), lines


def tell(canvas: torch.Tensor, lines: list[Line]) -> list[Line]:
    """The lines with the marks before them."""
    return mark_ticks(lines, find_marks(canvas, lines))


DARK = ("white", "#222831")
LIGHT = ("black", "white")


@pytest.mark.parametrize(
    ("mark", "colours"),
    [
        *((mark, colours) for mark in (box, crossed, radio, rounded, ballot) for colours in (LIGHT, DARK)),
        *((mark, LIGHT) for mark in (filled, overshot, web_radio)),
    ],
)
def test_marks_are_told_as_they_are(mark: Draw, colours: tuple[str, str]) -> None:
    states = [True, False, False, True]
    canvas, lines = draw_form(mark, states, *colours)
    wanted = [f"[{'x' if state else ' '}] Choice {i}" for i, state in enumerate(states)]
    assert [line.text for line in tell(canvas, lines)] == wanted


@pytest.mark.parametrize(("read", "left"), [("© Choice 0", 18), (") Choice 0", 40), ("O Choice 0", 19)])
def test_what_a_mark_was_read_as_is_dropped(read: str, left: int) -> None:
    canvas, lines = draw_form(radio, [True, False])
    lines[0] = Line(read, (left, *lines[0].box[1:]))
    assert tell(canvas, lines)[0].text == "[x] Choice 0"


def test_a_mark_that_was_read_alone_is_no_line() -> None:
    canvas, lines = draw_form(radio, [True, False])
    assert len(tell(canvas, [Line("O", (20, 90, 44, 114)), *lines])) == 2


@pytest.mark.parametrize("scale", [0.7, 1.3])
@pytest.mark.parametrize("mark", [box, crossed, radio, filled, rounded, ballot])
def test_marks_are_told_at_other_sizes(mark: Draw, scale: float) -> None:
    canvas, lines = draw_form(mark, [True, False, False, True])
    shown = torch.nn.functional.interpolate(canvas[None].float(), scale_factor=scale, mode="bilinear", antialias=True)
    lines = [Line(line.text, tuple(scale * end for end in line.box)) for line in lines]  # type: ignore[arg-type]
    told = [line.text[:3] for line in tell(shown[0].round().to(torch.uint8), lines)]
    assert told == ["[x]", "[ ]", "[ ]", "[x]"]


@pytest.mark.parametrize("mark", [circled_i, disc, boxed_letter, folder, envelope, swatch])
def test_icons_and_bullets_are_no_marks(mark: Draw) -> None:
    canvas, lines = draw_form(mark, [True, False, True])
    assert tell(canvas, lines) == lines


def test_a_lone_empty_ring_is_a_bullet() -> None:
    canvas, lines = draw_form(radio, [False])
    assert tell(canvas, lines) == lines


def test_letters_are_no_marks() -> None:
    image = Image.new("RGB", (420, 150), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(PX)
    lines = []
    for y, text in ((20, "O Canada"), (80, "O Brother, © Otto")):
        draw.text((20, y), text, fill="black", font=font)
        lines.append(Line(text, draw.textbbox((20, y), text, font=font)))
    assert tell(torch.from_numpy(np.array(image)).permute(2, 0, 1), lines) == lines
