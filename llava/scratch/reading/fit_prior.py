"""Counts which characters follow each other in drawn texts: the tables of ``TextPrior``."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from llava.model.lexical.characters import ALPHABET, BLANK, NUM_CLASSES, encode, plain
from llava.model.lexical.text_prior import FOLDS, KINDS, NUM_FOLDS, NUM_KINDS, TextPrior
from llava.scratch.reading.line_texts import (
    LineTexts,
    date_or_time,
    draw_address,
    draw_contact,
    draw_dish,
    draw_person,
    price,
)

# How many imagined characters stand behind what was counted, spread as the shorter context says.
_DOUBT = (20.0, 15.0, 3.0)


def fit_prior(word_list: Path, count: int = 60_000, seed: int = 5) -> TextPrior:
    """The prior of lines, contacts, dishes, prices and dates as training draws them."""
    rng, texts = random.Random(seed), LineTexts(word_list, False)
    lines = [texts.draw(rng, 60) for _ in range(count)]
    for _ in range(count // 10):
        lines += [draw(rng, texts) for draw in (draw_contact, draw_address, draw_dish, draw_person)]
        lines += [price(rng), price(rng), date_or_time(rng)]
    return count_characters(lines)


def count_characters(lines: Iterable[str]) -> TextPrior:
    """The prior of these lines."""
    letters, forms = np.zeros((NUM_FOLDS,) * 3), np.zeros((NUM_KINDS, NUM_KINDS, NUM_CLASSES))
    for line in lines:
        classes = np.array([BLANK, BLANK, *encode("".join(c for c in plain(line) if c in ALPHABET)), BLANK])
        folds, kinds = FOLDS[classes], KINDS[classes]
        np.add.at(letters, (folds[:-2], folds[1:-1], folds[2:]), 1)
        np.add.at(forms, (kinds[:-2], kinds[1:-1], classes[2:]), 1)
    pairs = letters.sum(0)
    single = pairs.sum(0) + 0.5
    single /= single.sum()
    pairs = (pairs + _DOUBT[0] * single) / (pairs.sum(1, keepdims=True) + _DOUBT[0])
    chances = (letters + _DOUBT[1] * pairs) / (letters.sum(2, keepdims=True) + _DOUBT[1])
    # A form's chance is its share among the characters that fold to the same.
    member = np.zeros((NUM_FOLDS, NUM_CLASSES))
    member[FOLDS, np.arange(NUM_CLASSES)] = 1
    general = forms.sum((0, 1)) + 0.5
    general /= (member @ general)[FOLDS]
    shares = (forms + _DOUBT[2] * general) / ((forms @ member.T)[:, :, FOLDS] + _DOUBT[2])
    prior = TextPrior()
    prior.letters.copy_(torch.from_numpy(np.log(chances)))
    prior.forms.copy_(torch.from_numpy(np.log(shares)))
    return prior
