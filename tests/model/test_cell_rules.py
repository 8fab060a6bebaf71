"""Lines that the finder joined across the rules of a table are parted at these."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from llava.model.lexical.cell_rules import part_at_rules
from llava.model.lexical.line_finder import TextLine

SIZE = 30


def draw(*, gray: str = "white", rule: str | None = "black") -> tuple[np.ndarray, TextLine]:
    """A row of three cells, "4", "Carol" and "Miami", of which the first may be gray, and a line across all of them."""
    image = Image.new("RGB", (500, 120), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(SIZE)
    pen.rectangle((0, 0, 59, 120), fill=gray)
    for x in (60, 220) if rule else ():
        pen.line((x, 0, x, 120), fill=rule, width=2)
    for x, text in ((25, "4"), (75, "Carol"), (235, "Miami")):
        pen.text((x, 75), text, font=font, fill="black", anchor="ls")
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32), TextLine(20, 330, 75, 0.0, 0.72 * SIZE, 0.8)


@pytest.mark.parametrize("rule", ["black", "#c8c8c8", "#2040a0"])
@pytest.mark.parametrize("gray", ["white", "#e6e6e6"])
def test_a_line_is_parted_at_rules_and_where_the_ground_changes(gray: str, rule: str) -> None:
    planes, line = draw(gray=gray, rule=rule)
    parts = part_at_rules(planes, [line])
    assert len(parts) == 3
    assert [part.left for part in parts] == pytest.approx([26, 77, 238], abs=4)
    assert all(part.right < limit for part, limit in zip(parts, (60, 220, 331), strict=True))
    assert {(part.baseline, part.capital) for part in parts} == {(line.baseline, line.capital)}


def test_a_line_without_a_rule_stays_as_it_is() -> None:
    planes, line = draw(rule=None)
    assert part_at_rules(planes, [line]) == [line]
    noisy = planes + np.random.default_rng(1).normal(0, 12, planes.shape).astype(np.float32)
    assert part_at_rules(noisy, [line]) == [line]
    at_edge = line._replace(baseline=12.0)
    assert part_at_rules(planes, [at_edge]) == [at_edge]


@pytest.mark.parametrize("text", ["Ill|lIl", "HAND [12] | 7", "_____ ___"])
def test_tall_letters_are_no_rules(text: str) -> None:
    image = Image.new("RGB", (400, 120), "white")
    ImageDraw.Draw(image).text((20, 75), text, font=ImageFont.load_default(SIZE), fill="black", anchor="ls")
    line = TextLine(20, 330, 75, 0.0, 0.72 * SIZE, 0.8)
    assert part_at_rules(np.asarray(image).transpose(2, 0, 1).astype(np.float32), [line]) == [line]
