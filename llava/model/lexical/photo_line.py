"""What a photograph shows, in a line of text: the main thing, where it is, its colors, and what is around it.

    Photo of a dog, a Siberian Husky, in the center. It is white and gray. The background is black and brown. The photo
    is bright.
    Photo, perhaps of a lake or a valley, at the top. It is blue. The background is white at the top and green at the
    bottom. The photo is dark.
    Photo of something in the center. It is gray. It is a black and white photo.

Sentences of this form are what the language model answers with, because copying is what a small one does most surely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from llava.model.lexical.description import PLACES, say_place
from llava.model.lexical.nouns import with_article
from llava.model.lexical.thing_guesses import sum_by_kind

Light = Literal["bright", "dark", "black and white"]

# Of 205 photographs, guesses of a kind that reach the first probability were right in 87 of 101, and others in 36 of
# 104. Below the second, nothing is said.
_SURE, _PERHAPS = 0.4, 0.1
# A class is named beside its kind if it has this probability, and this share of its kind's.
_NAMED, _NAMED_SHARE = 0.3, 0.5


@dataclass(frozen=True)
class Guess:
    """What the main thing of an image may be.

    Attributes:
        kinds: the likeliest kinds, the first first: one if it ``is_sure``, up to two if not, or none.
        name: the class in that kind, such as "Siberian Husky"; "" where it is unsure, or called as the kind is.
    """

    kinds: tuple[str, ...] = ()
    name: str = ""
    is_sure: bool = False


@dataclass(frozen=True)
class Photo:
    """What a line says of a photograph.

    Attributes:
        cell: where the main thing is, in ``PLACES``.
        colours: one or two of its colors, the first first.
        ground: one or two of the colors around it; none where the thing fills the image.
        is_split: the first of two colors is at the top, such as the sky's, and the second at the bottom.
    """

    guess: Guess
    cell: int
    colours: tuple[str, ...]
    ground: tuple[str, ...]
    light: Light
    is_split: bool = False


def guess_main(logits_C: Tensor) -> Guess:
    """The guess that class logits [1000] allow."""
    kinds = sum_by_kind(logits_C)[:2]
    (kind, names), whole = kinds[0], sum(kinds[0][1].values())
    if whole >= _SURE:
        name, chance = max(names.items(), key=lambda one: one[1])
        is_named = name != kind and chance >= _NAMED and chance >= _NAMED_SHARE * whole
        return Guess((kind,), name if is_named else "", is_sure=True)
    return Guess(tuple(kind for kind, names in kinds if sum(names.values()) >= _PERHAPS))


def name_guess(guess: Guess) -> str:
    """The guess with articles: "a dog, a Siberian Husky", "a lake or a valley", "something"."""
    if not guess.kinds:
        return "something"
    said = " or ".join(map(with_article, guess.kinds))
    return f"{said}, {with_article(guess.name)}" if guess.name else said


def write_photo(photo: Photo) -> str:
    """The line about a photograph."""
    guess = photo.guess
    start = "Photo of" if guess.is_sure or not guess.kinds else "Photo, perhaps of"
    sentences = [f"{start} {say_placed(photo)}.", f"It is {' and '.join(photo.colours)}.", say_around(photo)]
    return " ".join(filter(None, sentences))


def say_placed(photo: Photo) -> str:
    """The guess and where it is: "a dog, a Siberian Husky, in the center", "something on the right"."""
    guess = photo.guess
    between = ", " if guess.name or (guess.kinds and not guess.is_sure) else " "
    return f"{name_guess(guess)}{between}{say_place(PLACES[photo.cell])}"


def say_around(photo: Photo) -> str:
    """The sentences about the background and the light."""
    is_grey = photo.light == "black and white"
    light = "It is a black and white photo." if is_grey else f"The photo is {photo.light}."
    return f"The background is {say_ground(photo)}. {light}" if photo.ground else light


def say_ground(photo: Photo) -> str:
    """The colors around the main thing, with their places if these are known."""
    if photo.is_split:
        return f"{photo.ground[0]} at the top and {photo.ground[1]} at the bottom"
    return " and ".join(photo.ground)
