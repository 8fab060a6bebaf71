"""What characters follow each other in text, which settles what a crop leaves open: O or 0, l or I or 1, S or $.

A trigram in two factors: which letter (or figure, currency, sign) comes after two others, whatever their case, and in
which form it comes after two characters of such kinds. So "Smugg1e" becomes "Smuggle" and "S286.95" "$286.95" where
the reader of crops holds both for likely. Tables of zeros change nothing.

Shapes: T steps, K classes of characters, F folded characters, G kinds of characters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from llava.model.lexical.characters import ALPHABET, BLANK, NUM_CLASSES, find_runs

Floats = npt.NDArray[np.float32]

_SIGNS = ".,:-/'\"()&!@#%_"
_CURRENCIES = "$€£¥"
# How much the prior counts, how many classes of a run are held for possible, and how unlikely they may be.
_WEIGHT, _MOST_CLASSES, _LEAST_SCORE = 0.3, 5, -6.0


def fold(character: str) -> int:
    """What a character is, whatever its case: a letter, a figure, a currency, one of the common signs, or another."""
    if character == " ":
        return 1
    if character.isascii() and character.isalpha():
        return 2 + ord(character.lower()) - ord("a")
    if character.isascii() and character.isdigit():
        return 28
    if character in _CURRENCIES:
        return 29
    return 30 + (_SIGNS.index(character) if character in _SIGNS else len(_SIGNS))


def kind(character: str) -> int:
    """Blank, small letter, capital, figure, currency or another sign, from 1 on."""
    tests = (
        character == " ",
        character.islower(),
        character.isupper(),
        character.isdigit(),
        character in _CURRENCIES,
        True,
    )
    return 1 + tests.index(True)


# By class; class 0 is the edge of a line.
FOLDS = np.array([0, *map(fold, ALPHABET)])
KINDS = np.array([0, *map(kind, ALPHABET)])
NUM_FOLDS, NUM_KINDS = 31 + len(_SIGNS), 7


class TextPrior(nn.Module):
    """Two tables of log probabilities: ``letters`` [F, F, F] and ``forms`` [G, G, K]."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Parameter(torch.zeros(NUM_FOLDS, NUM_FOLDS, NUM_FOLDS), requires_grad=False)
        self.forms = nn.Parameter(torch.zeros(NUM_KINDS, NUM_KINDS, NUM_CLASSES), requires_grad=False)

    def read(self, readings: list[Floats]) -> list[str]:
        """The texts of log probabilities [T, K]: the likeliest with the prior, of as many characters as without it."""
        letters, forms = (table.detach().float().cpu().numpy() for table in (self.letters, self.forms))
        return [_read(scores_TK, letters, forms) for scores_TK in readings]


def _read(scores_TK: Floats, letters: Floats, forms: Floats) -> str:
    """The best path through the runs' classes (Viterbi over pairs of neighbours)."""
    edge = np.array([BLANK])
    before, here, score = edge, edge, np.zeros((1, 1), dtype=np.float32)
    columns, arrows = [], []
    for run in find_runs(scores_TK):
        seen_K = np.log(np.exp(scores_TK[run.start : run.end]).mean(0) + 1e-9)
        seen_K[BLANK] = -np.inf
        classes = np.argsort(-seen_K)[:_MOST_CLASSES]
        classes = classes[seen_K[classes] >= min(_LEAST_SCORE, float(seen_K.max()))]
        paths = score[:, :, None] + _WEIGHT * _follow(before, here, classes, letters, forms)
        arrows.append(paths.argmax(0))
        score = paths.max(0) + seen_K[classes]
        before, here = here, classes
        columns.append(classes)
    if not columns:
        return ""
    score = score + _WEIGHT * _follow(before, here, edge, letters, forms)[:, :, 0]
    i, j = np.unravel_index(int(score.argmax()), score.shape)
    text = []
    for column, arrow in zip(reversed(columns), reversed(arrows), strict=True):
        text.append(ALPHABET[column[j] - 1])
        i, j = arrow[i, j], i
    return "".join(reversed(text)).strip()


def _follow(
    before: npt.NDArray[np.int64],
    here: npt.NDArray[np.int64],
    after: npt.NDArray[np.int64],
    letters: Floats,
    forms: Floats,
) -> Floats:
    """Log probabilities of classes after two others, [before, here, after]."""
    i, j = before[:, None, None], here[:, None]
    result: Floats = letters[FOLDS[i], FOLDS[j], FOLDS[after]] + forms[KINDS[i], KINDS[j], after]
    return result
