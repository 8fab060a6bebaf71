"""Dots that lead from a name to its value are no part of the line that the name is found as."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from llava.model.lexical.leaders import part_at_leaders
from llava.model.lexical.line_finder import TextLine

NAMES = ["Patient", "Invoice no", "Date of birth", "Check-in", "Seat"]
VALUES = ["Gus Weber", "148.50", "14C", "5 June"]


def draw(seed: int, dots: str = ".") -> tuple[np.ndarray, TextLine, tuple[float, float], tuple[float, float], float]:
    """A name, dots and a value: pixels, the line they are found as, where both texts are, and their capitals."""
    rng = random.Random(seed)
    size, width = rng.choice((14, 18, 24, 30)), rng.choice((500, 700, 900))
    font, base = ImageFont.load_default(size), 80
    ink, paper = rng.choice((("black", "white"), ("#303030", "#f4f6ff"), ("white", "#204060")))
    image = Image.new("RGB", (width, 120), paper)
    pen = ImageDraw.Draw(image)
    name, value = rng.choice(NAMES), rng.choice(VALUES)
    pen.text((20, base), name, font=font, fill=ink, anchor="ls")
    pen.text((width - 20, base), value, font=font, fill=ink, anchor="rs")
    left, right = 20 + pen.textlength(name, font=font), width - 20 - pen.textlength(value, font=font)
    at = left + 6
    while at + 10 < right:
        pen.text((at, base), dots, font=font, fill=ink, anchor="ls")
        at += pen.textlength(dots, font=font) * rng.choice((1.0, 1.3))
    capital = base - pen.textbbox((0, base), "H", font=font, anchor="ls")[1]
    found = TextLine(20, rng.choice((width - 20.0, right - 4)), base, 0.0, rng.choice((1.0, 0.6)) * capital, 0.8)
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32), found, (20, left), (right, width - 20.0), capital


@pytest.mark.parametrize("seed", range(12))
def test_a_line_is_parted_at_its_dots_and_as_high_as_its_letters(seed: int) -> None:
    planes, line, name, value, capital = draw(seed)
    parts = part_at_leaders(planes, [line])
    assert len(parts) == (2 if line.right == value[1] else 1)
    for part, (left, right) in zip(parts, (name, value), strict=False):
        assert (part.left, part.right) == pytest.approx((left, right), abs=4)
        assert part.baseline == pytest.approx(80, abs=1.5)
        assert part.capital == pytest.approx(capital, abs=0.12 * capital + 2)


def test_what_was_found_twice_is_one_line() -> None:
    planes, line, name, _, capital = draw(3)
    twice = [line, TextLine(name[0], name[1], 79.0, 0.0, capital, 0.9)]
    assert len(part_at_leaders(planes, twice)) == len(part_at_leaders(planes, [line]))


@pytest.mark.parametrize(
    "text", ["Wait... what? No... it is i.e. 3.5 m", "minimum illicit million", "a. b. c. d. e. f. g."]
)
def test_other_lines_stay_as_they_are(text: str) -> None:
    image = Image.new("RGB", (500, 120), "white")
    font = ImageFont.load_default(26)
    ImageDraw.Draw(image).text((20, 80), text, font=font, fill="black", anchor="ls")
    line = TextLine(20, 20 + font.getlength(text), 80, 0.0, 18.0, 0.8)
    assert part_at_leaders(np.asarray(image).transpose(2, 0, 1).astype(np.float32), [line]) == [line]
