"""How answers and questions of VQA datasets become turns, as in LLaVA-1.5's data.

Source: LLaVA-1.5 (arXiv:2310.03744v2) A.2: question-answer pairs about one image are one conversation; rows of
llava_v1_5_mix665k.json (gqa 2327515, ocr_vqa 967097339): the answer-format sentence is in the first question only.
No torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from llava.data.convert.converter import Options

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def choose_majority(answers: Sequence[str]) -> str | None:
    """The most frequent answer, the first of those if several are; None if there is none that says anything.

    Answers that differ in case or outer blanks only count as one, and the first of them is returned.
    """
    counts = Counter(answer.strip().casefold() for answer in answers if answer.strip())
    if not counts:
        return None
    chosen = counts.most_common(1)[0][0]
    return next(answer.strip() for answer in answers if answer.strip().casefold() == chosen)


def capitalize(text: str) -> str:
    """The text with its first letter in upper case; the others stay, unlike in ``str.capitalize``."""
    return text[:1].upper() + text[1:]


def group(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """The values of each key, in order; the keys in the order of their first values."""
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def ask_all(turns: Sequence[tuple[str, str]], sentence: str, options: Options) -> list[tuple[str, str]]:
    """The turns of a conversation, with the answer-format sentence, or what replaces it, after the first question."""
    return [
        (options.ask(question, sentence) if i == 0 else question, answer) for i, (question, answer) in enumerate(turns)
    ]
