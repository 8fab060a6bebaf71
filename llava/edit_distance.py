"""How far apart two texts are."""

from __future__ import annotations


def count_edits(one: str, other: str) -> int:
    """The Levenshtein distance: the fewest insertions, deletions and substitutions between the texts."""
    edits = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, edits[0] = edits[0], i
        for j, target in enumerate(other, 1):
            diagonal, edits[j] = edits[j], min(edits[j] + 1, edits[j - 1] + 1, diagonal + (letter != target))
    return edits[-1]
