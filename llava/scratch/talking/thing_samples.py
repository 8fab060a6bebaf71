"""Looks of things with turns about them, and looks of drawn images, for the adapter's training."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from llava.model.lexical.efficientnet_lite import NUM_CLASSES, NUM_FEATURES
from llava.model.lexical.photo_line import Guess, guess_main, write_photo
from llava.model.lexical.thing_guesses import guess_things
from llava.scratch.talking.photo_turns import draw_photo, talk_about_photo
from llava.scratch.talking.seen_records import Turns
from llava.scratch.talking.thing_turns import admit_doubt, talk_about_view
from llava.scratch.things.bank import FeatureBank

# Shares of class prototypes, which stand for photographs, and of looks at nothing that has a name.
_PROTOTYPE_SHARE, _DOUBT_SHARE = 0.5, 0.04
# The shares of views that the tower takes for photographs, by their grounds.
_PHOTO_SHARES = {"texture": 0.85, "gradient": 0.85, "blobs": 0.85, "plain": 0.25, "white": 0.25}
# Of the prototypes, this share is a mixture of two or three, of which the encoder is unsure, as of many photographs;
# and so many of those with one unsure guess have another one beside it.
_MIXED_SHARE, _SECOND_SHARE = 0.3, 0.45
# Looks at nothing are drawn again where the encoder takes them for something, so many times.
_MOST_TRIES = 20

Seen = tuple[str, Turns, torch.Tensor]
"""Description, turns and looks of an image."""


class ThingSamples:
    """Samples from the folder that ``llava.scratch.things`` filled.

    ``looks.npz`` in it has looks of drawn images, float16 [images, 10, D], by their kind and how colours
    were measured ("shapes contrast"): "shapes", "signs", "text", "chart", and "nothing": noise, gradients, textures.
    """

    def __init__(self, folder: Path, facts: Path, colours: str = "contrast") -> None:
        """``facts``: a JSON file with a sentence about each thing by its name."""
        self._bank, self._colours = FeatureBank(folder, colours), colours
        self._facts: dict[str, str] = json.loads(facts.read_text("utf-8"))
        self._trained = [i for i, view in enumerate(self._bank.views) if not view["held_out"]]
        self._unseen = [i for i, view in enumerate(self._bank.views) if view["held_out"]]
        self._names = sorted({thing["name"] for i in self._trained for thing in self._bank.views[i]["objects"]})
        self._drawn = dict(np.load(folder / "looks.npz"))

    def draw(self, rng: random.Random) -> Seen:
        """An image of things: what the tower says of it, turns about it, and its looks [10, D]."""
        way = rng.random()
        if way < _DOUBT_SHARE:
            return self.draw_doubt(rng)
        return self.draw_prototype(rng) if way < _DOUBT_SHARE + _PROTOTYPE_SHARE else self.draw_view(rng)

    def draw_doubt(self, rng: random.Random) -> Seen:
        """An image in which nothing has a name."""
        drawn = (self.draw_looks(rng, "nothing") for _ in range(_MOST_TRIES))
        looks = next((looks for looks in drawn if not guess_main(get_logits(looks)).kinds), None)
        if looks is None:
            return self.draw_prototype(rng)
        photo = draw_photo(rng, Guess())
        turns = admit_doubt(rng) + talk_about_photo(rng, photo, self._names, self._facts)[1:]
        return write_photo(photo), turns, looks

    def draw_prototype(self, rng: random.Random) -> Seen:
        """A prototype of a class, in place of a photograph, or a mixture of several."""
        count = 1 if rng.random() >= _MIXED_SHARE else rng.choice((2, 2, 3))
        chance = np.random.default_rng(rng.getrandbits(64))
        drawn = [self._bank.prototype_features(rng.randrange(len(self._bank.prototype_class))) for _ in range(count)]
        looks = self._bank.prototype_looks(torch.stack(drawn).mean(0), chance)
        guess = guess_main(get_logits(looks))
        if len(guess.kinds) == 1 and not guess.is_sure and rng.random() < _SECOND_SHARE:
            other = rng.choice(self._bank.classes)["kind"]
            guess = Guess(tuple(dict.fromkeys((*guess.kinds, other))))
        photo = draw_photo(rng, guess)
        return write_photo(photo), talk_about_photo(rng, photo, self._names, self._facts), looks

    def draw_view(self, rng: random.Random) -> Seen:
        """A view of one thing or several."""
        while (seen := self._talk(rng, rng.choice(self._trained))) is None:
            pass
        return seen

    @property
    def has_unseen(self) -> bool:
        """Whether views show things of which no sample of ``draw`` tells."""
        return bool(self._unseen)

    def draw_unseen(self, rng: random.Random) -> Seen:
        """A view of things that ``draw`` never shows."""
        while (seen := self._talk(rng, rng.choice(self._unseen))) is None:
            pass
        return seen

    def _talk(self, rng: random.Random, index: int) -> Seen | None:
        """A view as a sample; None for what is taken for a photograph of something that it is not."""
        view, looks = self._bank.views[index], self._bank.looks(index)
        turns = talk_about_view(rng, view, self._names, self._facts)
        if rng.random() >= _PHOTO_SHARES[view["ground"]]:
            return guess_things(get_logits(looks)), turns, looks
        guess, things = guess_main(get_logits(looks)), view["objects"]
        photo = draw_photo(rng, guess, things[0])
        shown = {word for thing in things for word in (thing["name"], thing["kind"])}
        if guess.is_sure and not {guess.kinds[0], guess.name} & shown:
            return None
        if len(things) == 1:
            name, kind = things[0]["name"], things[0]["kind"]
            seen = guess if guess.is_sure else Guess((kind,), name if name != kind else "", is_sure=True)
            turns = talk_about_photo(rng, replace(photo, guess=seen), self._names, self._facts)
        return write_photo(photo), turns, looks

    def draw_looks(self, rng: random.Random, kind: str) -> torch.Tensor:
        """The looks [10, D] of a drawn image of that kind."""
        looks = self._drawn[f"{kind} {self._colours}"]
        return torch.from_numpy(looks[rng.randrange(len(looks))].astype(np.float32))


def get_logits(looks: torch.Tensor) -> torch.Tensor:
    """The class logits [1000] of an image's looks [10, D]."""
    return looks[0, NUM_FEATURES : NUM_FEATURES + NUM_CLASSES]
