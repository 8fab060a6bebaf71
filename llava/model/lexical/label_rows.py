"""Labels of an axis put right by what they count: months, days, quarters, letters, or even steps of numbers.

A reader misses a short label now and then, or reads a part of it; where the others run in order, it is known.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from llava.model.lexical.value_axis import read_number

_CYCLES = (
    "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(),
    "January February March April May June July August September October November December".split(),
    "Mon Tue Wed Thu Fri Sat Sun".split(),
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "Q1 Q2 Q3 Q4".split(),
)
_LETTERS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
# This share of the labels that were read, and so many, must run in order before the others are put right.
_LEAST_SHARE, _LEAST = 0.6, 2
# A letter's or a figure's width as a share of the height of a line's box, from capitals to descenders.
_LETTER_SHARE = 0.62
_INTEGER = re.compile(r"-?[0-9]+")


def split_words(text: str, low: float, high: float, height: float) -> list[tuple[str, float, float]]:
    """The words of a line from ``low`` to ``high`` px, each with its own extent; ``height``: of the line's box, px.

    Labels that a reader joined stand further apart than words do, so a word's extent follows from the type's height.
    """
    words = text.split()
    if len(words) < 2:
        return [(text.strip(), low, high)]
    proportional = (high - low) / max(1, len(text))
    letter = min(_LETTER_SHARE * height, proportional)
    gap = (high - low - letter * sum(map(len, words))) / (len(words) - 1)
    found, at = [], low
    for word in words:
        found.append((word, at, at + letter * len(word)))
        at += letter * len(word) + gap
    return found


def have_scale(labels: Sequence[str]) -> bool:
    """Whether below the bars is a scale and no names, as below a histogram or an area: several numbers for one bar."""
    words = [word for label in labels for word in label.split()]
    are_numbers = bool(words) and all(read_number(word) is not None for word in words)
    return are_numbers and any(len(label.split()) > 1 for label in labels)


def complete_labels(labels: Sequence[str]) -> list[str]:
    """The labels, with those that do not fit into the order of the others replaced; "" is one that was not read."""
    read = [label for label in labels if label]
    if len(labels) < 3 or len(read) < _LEAST:
        return list(labels)
    for cycle in (*_CYCLES, _LETTERS):
        places = {name.lower(): i for i, name in enumerate(cycle)}
        at = [(i, places[label.lower()]) for i, label in enumerate(labels) if label.lower() in places]
        for step in (1, -1):
            offsets = Counter((place - step * i) % len(cycle) for i, place in at)
            if not offsets:
                continue
            first, count = offsets.most_common(1)[0]
            # Single letters are in order by chance more easily than months are.
            least = max(3, len(read)) if cycle is _LETTERS else max(_LEAST, _LEAST_SHARE * len(read))
            if count >= least and _runs_on(first, step, len(labels), cycle):
                return [cycle[(first + step * i) % len(cycle)] for i in range(len(labels))]
    return _complete_numbers(labels, read)


def _runs_on(first: int, step: int, count: int, cycle: Sequence[str]) -> bool:
    """Whether an order goes on that far: letters begin at A after no Z, and nothing is named twice."""
    if count > len(cycle):
        return False
    return cycle is not _LETTERS or 0 <= first + step * (count - 1) < len(cycle)


def _complete_numbers(labels: Sequence[str], read: Sequence[str]) -> list[str]:
    # Superscripts are digits, too, but no numbers, as "--5" is none.
    whole = {i: int(label) for i, label in enumerate(labels) if _INTEGER.fullmatch(label) and len(label) < 7}
    if len(whole) < max(3, _LEAST_SHARE * len(read)):
        return list(labels)
    steps = Counter((b - a) // (j - i) for i, a in whole.items() for j, b in whole.items() if j == i + 1)
    if not steps:
        return list(labels)
    step, _ = steps.most_common(1)[0]
    offsets = Counter(value - step * i for i, value in whole.items())
    first, count = offsets.most_common(1)[0]
    if not step or count < max(3, _LEAST_SHARE * len(read)):
        return list(labels)
    return [str(first + step * i) for i in range(len(labels))]
