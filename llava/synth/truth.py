"""The truth of a question about an image: the accepted answers, and those that would be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AnswerForm = Literal["name", "text", "number", "yes/no", "cannot tell"]


@dataclass(frozen=True)
class Truth:
    """The right answers to a question about an image.

    Attributes:
        answers: any of them is right; empty for "cannot tell".
        form: "name" is a thing, a colour, a place or a bar; "text" is read letter by letter; "number" is compared by
            value; "cannot tell" is right where the answer says that the image does not show it.
        others: answers that are wrong, such as the other colours. An answer that claims one of them, too, is wrong.
        kinds: more general names, such as "animal" for a cat. They are counted apart from ``answers``.
        tolerance: how far off a number may be and still be right.
        keeps_case: capitals are compared, too.
    """

    answers: tuple[str, ...] = ()
    form: AnswerForm = "name"
    others: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    tolerance: float = 0.0
    keeps_case: bool = False
