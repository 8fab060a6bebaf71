"""The characters that lines are read as, and their form in the network's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# The ASCII characters in the order of their codes, then others that signs, receipts and charts have.
ALPHABET = "".join(map(chr, range(32, 127))) + "—€£¥°·•×±©®½²³éèêàáâäöüßñçåøíóúÉÖÄÜ→✓"
BLANK = 0
NUM_CLASSES = 1 + len(ALPHABET)
# Characters that take so little room that two of them may stand in neighbouring steps.
_NARROW = frozenset(encoded for encoded, c in enumerate(ALPHABET, 1) if c in "il.,:;'|!1jtfrI()[]-` \"°·")
# Two different characters whose middles are nearer than this many steps are two readings of one; half a step less where
# one of them is narrow.
_LEAST_DISTANCE = 2.6
_INDEX = {character: i + 1 for i, character in enumerate(ALPHABET)}
# Characters that look alike are read as the plain one.
_SAME = str.maketrans(
    {
        "–": "-",
        "−": "-",
        "‐": "-",
        "‑": "-",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "„": '"',
        "…": "...",
        "\u00a0": " ",
        "∙": "·",
        "μ": "u",
        "µ": "u",
    }
)


def plain(text: str) -> str:
    """A text with look-alike characters replaced, as it is read."""
    return text.translate(_SAME)


def encode(text: str) -> list[int]:
    """The classes of a text's characters. Raises KeyError for a character that is not in the alphabet."""
    return [_INDEX[character] for character in plain(text)]


def decode(classes: Sequence[int]) -> str:
    """The text of a sequence of classes, one per step: repeats are merged, then blanks removed (greedy CTC).

    Source: Graves et al. 2006, "Connectionist Temporal Classification", section 3.2.
    """
    text = []
    before = BLANK
    for index in classes:
        if index not in (before, BLANK):
            text.append(ALPHABET[index - 1])
        before = index
    return "".join(text)


class Run(NamedTuple):
    """Steps from ``start`` to before ``end`` at which a class is the likeliest."""

    label: int
    start: int
    end: int


def find_runs(scores_TK: npt.NDArray[np.float32]) -> list[Run]:
    """The runs of steps with characters, where of two characters too close to each other the likelier one stays."""
    classes = scores_TK.argmax(1)
    edges = np.flatnonzero(np.diff(classes)) + 1
    kept: list[Run] = []
    for start, end in zip([0, *edges], [*edges, len(classes)], strict=True):
        run = Run(int(classes[start]), int(start), int(end))
        if run.label == BLANK:
            continue
        if kept and kept[-1].end == run.start and _are_one(kept[-1], run):
            before = kept.pop()
            shares = np.exp(scores_TK[before.start : run.end, [before.label, run.label]]).sum(0)
            run = Run(before.label if shares[0] >= shares[1] else run.label, before.start, run.end)
        kept.append(run)
    return kept


def read_steps(scores_TK: npt.NDArray[np.float32]) -> tuple[str, float]:
    """The text of log probabilities [steps, classes], and the mean probability of the steps that have characters.

    As ``decode`` of the likeliest classes, except that where two different characters follow each other too closely
    for both to be there, the likelier one stays. The mean is geometric, and 0 where there is no text.
    """
    text = "".join(ALPHABET[run.label - 1] for run in find_runs(scores_TK)).strip()
    there = scores_TK.argmax(1) != BLANK
    return text, float(np.exp(scores_TK.max(1)[there].mean())) if there.any() else 0.0


def _are_one(a: Run, b: Run) -> bool:
    num_narrow = (a.label in _NARROW) + (b.label in _NARROW)
    distance = (b.start + b.end - a.start - a.end) / 2
    return num_narrow < 2 and distance < _LEAST_DISTANCE - 0.5 * num_narrow
