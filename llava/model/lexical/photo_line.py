"""What a photograph shows, in a line of text: the main thing, where it is, its colors, and what is around it.

    Photo of a dog, a Siberian Husky, in the center. It is white and gray. The background is black and brown. The photo
    is bright.
    Photo, perhaps of a lake or a valley, at the top. It is blue. The background is white at the top and green at the
    bottom. The photo is dark.
    Photo of something in the center. It is gray. It is a black and white photo.
    Photo of a person on the left. The clothes are blue. There are three people in the photo. The photo is bright.

Sentences of this form are what the language model answers with, because copying is what a small one does most surely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from llava.model.lexical.description import PLACES, say_place
from llava.model.lexical.nouns import with_article
from llava.model.lexical.thing_guesses import sum_by_kind

PERSON = "person"
_NUMBERS = ("no", "one", "two", "three", "four", "five")
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
        people: where the people are whose faces were found, in ``PLACES``. If the main thing is one of them, its colors
            are those of the clothes.
    """

    guess: Guess
    cell: int
    colours: tuple[str, ...]
    ground: tuple[str, ...]
    light: Light
    is_split: bool = False
    people: tuple[int, ...] = ()

    @property
    def shows_clothes(self) -> bool:
        """Whether the main thing is a person whose face was found, so that the colors are those of the clothes."""
        return bool(self.people) and self.guess.is_sure and self.guess.kinds[0] == PERSON


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
    return f"{start} {say_placed(photo)}. {say_looks(photo)} {say_around(photo)}"


def say_looks(photo: Photo, it: str = "It is") -> str:
    """The sentences about the main thing's colors, or the clothes', and about the people. ``it``: or "They are"."""
    looks = f"{'The clothes are' if photo.shows_clothes else it} {' and '.join(photo.colours)}."
    return f"{looks} {people}" if (people := say_people(photo)) else looks


def say_people(photo: Photo) -> str:
    """The sentence about the people that the main thing does not tell of already; "" if there is none."""
    if len(photo.people) == 1:
        return "" if photo.shows_clothes else f"There is a person {say_place(PLACES[photo.people[0]])}."
    return f"There are {count_people(photo)} in the photo." if photo.people else ""


def count_people(photo: Photo) -> str:
    """How many people there are: "no people", "one person", "two people", "more than five people"."""
    count = len(photo.people)
    number = _NUMBERS[count] if count < len(_NUMBERS) else f"more than {_NUMBERS[-1]}"
    return f"{number} {'person' if count == 1 else 'people'}"


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
