"""How a run's answers behave, whatever their score: empty, caught in a loop, refusing, and how long. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llava.eval.scoring.sentence_answers import says_it_cannot_tell

_MOST_WORDS = 8  # of what repeats
_LEAST_TIMES = 3


@dataclass(frozen=True)
class Health:
    """Shares (0 to 1) of a run's answers, and their mean length.

    Attributes:
        repeating: end in words that come three times or more in a row.
        cut: reached the most new tokens; None where that is not known.
        unsure: say that the model cannot tell, of those questions whose answer the image holds.
    """

    answers: int
    empty: float
    repeating: float
    cut: float | None
    unsure: float
    mean_words: float


def ends_in_repetition(text: str) -> bool:
    """Whether the answer's last words, one to eight of them, came at least three times in a row.

    The last time may be cut off. Numbers may repeat up to five times: "0 0 0" can be a table's row.
    """
    words = [word.strip(".,;:!?").lower() or word for word in text.split()]
    for length in range(1, _MOST_WORDS + 1):
        for cut in range(length if length > 1 else 1):  # words of a last round that is not whole
            whole = words[: len(words) - cut] if cut else words
            unit = whole[-length:]
            times = 5 if all(word.isdigit() for word in unit) else _LEAST_TIMES
            if len(whole) < length * times or whole[-length * times :] != unit * times:
                continue
            if words[len(whole) :] == unit[:cut]:
                return True
    return bool(words) and _is_stuck(text.split()[-1])


def _is_stuck(word: str) -> bool:
    """Whether a word without blanks repeats itself, such as "hahahahahahaha" or "..........."."""
    return any(len(word) >= 12 and word[-unit:] * (12 // unit) == word[-(12 // unit) * unit :] for unit in range(1, 5))


def measure_health(texts: Sequence[str], answerable: Sequence[bool], cut: Sequence[bool] | None = None) -> Health:
    """The health of answers to questions; ``answerable``: whether the image holds the answer to each."""
    count = max(1, len(texts))
    asked = [text for text, holds in zip(texts, answerable, strict=True) if holds]
    return Health(
        answers=len(texts),
        empty=sum(not text.strip() for text in texts) / count,
        repeating=sum(map(ends_in_repetition, texts)) / count,
        cut=None if cut is None else sum(cut) / count,
        unsure=sum(map(says_it_cannot_tell, asked)) / max(1, len(asked)),
        mean_words=sum(len(text.split()) for text in texts) / count,
    )


def describe_health(health: Health) -> str:
    """The health in one line."""
    cut = "" if health.cut is None else f", {health.cut:.1%} cut at the most new tokens"
    return (
        f"{health.answers:,} answers of {health.mean_words:.1f} words on average: {health.empty:.1%} empty, "
        f"{health.repeating:.1%} ending in repetition{cut}; {health.unsure:.1%} of the questions that their image "
        "answers got an answer that it cannot be told."
    )
