"""Facts side by side, each with its name, as the tower tells names above their values: "Gate: B7 | Seat: 14C"."""

from __future__ import annotations

import random
import re
from collections.abc import Container, Sequence

# This share of pages has what has a name in rows of two to four.
_GRID_SHARE = 0.35
_LEAST_NAMED = 2
# A way to write a fact, of a grammar: a few words without a slot, and then what they name.
_NAMED = re.compile(r"(?! )([^{}|:/0-9]{1,27}?\w)(?:: | \| | // )([^|/]{1,40})")


def is_named(way: str) -> bool:
    """Whether a way to write a fact is a name and its value: "GATE | {1-79}"."""
    match = _NAMED.fullmatch(way)
    return match is not None and "{" in match[2] and len(match[1].split()) <= 4


def set_in_rows(rng: random.Random, texts: Sequence[str], named: Container[str]) -> list[str]:
    """The texts of a page, on some pages with those of ``named`` in rows, where the first of them stood."""
    chosen = [text for text in texts if text in named and _NAMED.fullmatch(text)]
    if len(chosen) < _LEAST_NAMED or rng.random() >= _GRID_SHARE:
        return list(texts)
    cells = [": ".join(re.split(r": | \| | // ", text, maxsplit=1)) for text in chosen]
    count = rng.choice((2, 2, 3, 3, 4))
    rows = [" | ".join(cells[i : i + count]) for i in range(0, len(cells), count)]
    before = texts.index(chosen[0])
    return [*texts[:before], *rows, *(text for text in texts[before:] if text not in chosen)]
