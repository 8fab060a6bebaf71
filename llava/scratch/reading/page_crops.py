"""Crops of lines as the reader cuts them out of whole pages: with their neighbours, rules, icons and leaders."""

from __future__ import annotations

import math
import random

import numpy as np
import torch

from llava.model.lexical.characters import plain
from llava.model.lexical.line_finder import TextLine, make_levels
from llava.model.lexical.line_reader import REACHES, cut_crop
from llava.scratch.reading.line_images import LineImage
from llava.scratch.reading.page import Mark, Sources
from llava.scratch.reading.page_kinds import draw_page

_LINES_A_PAGE = 16
_SMALLEST_CAPITAL, _MAX_WIDTH = 5.5, 900


def draw_page_lines(rng: random.Random, sources: Sources) -> list[LineImage]:
    """Some lines of a new page, cut with about the errors that the finder makes; their ``spans`` are not known."""
    image, marks = draw_page(rng, sources)
    legible = [m for m in marks if m.text and m.capital >= _SMALLEST_CAPITAL]
    if not legible:
        return []
    levels = make_levels(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    lines = []
    for mark in rng.sample(legible, min(_LINES_A_PAGE, len(legible))):
        crop = cut_crop(levels, _blur(rng, mark, marks), rng.choice(REACHES))
        if crop.shape[2] <= _MAX_WIDTH:
            pixels = crop.permute(1, 2, 0).numpy().round().astype(np.uint8)
            lines.append(LineImage(pixels, plain(mark.text), mark.ink, mark.ground, np.zeros((0, 2))))
    return lines


def _blur(rng: random.Random, mark: Mark, marks: list[Mark]) -> TextLine:
    """A line as the finder may find it."""
    left, right = (edge + rng.gauss(0, 0.12) * mark.capital for edge in (mark.left, mark.right))
    if rng.random() < 0.08:
        # What stands beside a line without being text, such as an icon, is sometimes found with it.
        wider = mark._replace(left=left - rng.uniform(0.5, 2.5) * mark.capital)
        left = left if any(_overlap(wider, other) for other in marks if other is not mark) else wider.left
    return TextLine(
        min(left, mark.left + 0.2 * mark.capital),
        max(right, mark.right - 0.2 * mark.capital),
        mark.baseline + rng.gauss(0, 0.06) * mark.capital,
        mark.slope + rng.gauss(0, 0.02) * mark.capital / max(mark.capital, mark.right - mark.left),
        mark.capital * math.exp(rng.gauss(0, 0.07)),
        1.0,
    )


def _overlap(a: Mark, b: Mark) -> bool:
    return (
        a.left < b.right + b.capital
        and b.left < a.right + b.capital
        and abs(a.baseline - b.baseline) < 1.5 * max(a.capital, b.capital)
    )
