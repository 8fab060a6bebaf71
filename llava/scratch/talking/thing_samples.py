"""Looks of things with turns about them, and looks of drawn images, for the adapter's training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch

from llava.scratch.talking.seen_records import Turns
from llava.scratch.talking.thing_turns import admit_doubt, talk_about_thing, talk_about_view
from llava.scratch.things.bank import FeatureBank

# Shares of class prototypes, which stand for photographs, and of looks at nothing that has a name.
_PROTOTYPE_SHARE, _DOUBT_SHARE = 0.45, 0.04


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

    def draw(self, rng: random.Random) -> tuple[torch.Tensor, Turns]:
        """The looks [10, D] of an image and turns about it."""
        way = rng.random()
        if way < _DOUBT_SHARE:
            return self.draw_doubt(rng)
        return self.draw_prototype(rng) if way < _DOUBT_SHARE + _PROTOTYPE_SHARE else self.draw_view(rng)

    def draw_doubt(self, rng: random.Random) -> tuple[torch.Tensor, Turns]:
        """An image in which nothing has a name."""
        return self.draw_looks(rng, "nothing"), admit_doubt(rng)

    def draw_prototype(self, rng: random.Random) -> tuple[torch.Tensor, Turns]:
        """A prototype of a class, in place of a photograph."""
        index = rng.randrange(len(self._bank.prototype_class))
        thing = self._bank.classes[int(self._bank.prototype_class[index])]
        turns = talk_about_thing(rng, thing, self._names, self._facts, has_place=False)
        return self._bank.prototype_looks(index, np.random.default_rng(rng.getrandbits(64))), turns

    def draw_view(self, rng: random.Random) -> tuple[torch.Tensor, Turns]:
        """A view of one thing or several."""
        return self._talk(rng, rng.choice(self._trained))

    @property
    def has_unseen(self) -> bool:
        """Whether views show things of which no sample of ``draw`` tells."""
        return bool(self._unseen)

    def draw_unseen(self, rng: random.Random) -> tuple[torch.Tensor, Turns]:
        """A view of things that ``draw`` never shows."""
        return self._talk(rng, rng.choice(self._unseen))

    def _talk(self, rng: random.Random, index: int) -> tuple[torch.Tensor, Turns]:
        return self._bank.looks(index), talk_about_view(rng, self._bank.views[index], self._names, self._facts)

    def draw_looks(self, rng: random.Random, kind: str) -> torch.Tensor:
        """The looks [10, D] of a drawn image of that kind."""
        looks = self._drawn[f"{kind} {self._colours}"]
        return torch.from_numpy(looks[rng.randrange(len(looks))].astype(np.float32))
