"""The characters that lines are read as, and their form in the network's output. No torch."""

from __future__ import annotations

from collections.abc import Sequence

# The ASCII characters in the order of their codes, then others that signs, receipts and charts have.
ALPHABET = "".join(map(chr, range(32, 127))) + "—€£¥°·•×±©®½²³éèêàáâäöüßñçåøíóúÉÖÄÜ→✓"
BLANK = 0
NUM_CLASSES = 1 + len(ALPHABET)
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
