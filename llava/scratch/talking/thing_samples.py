"""Looks of things with turns about them, and looks of drawn images, for the adapter's training."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch

from llava.scratch.talking.records import Turns
from llava.scratch.talking.thing_turns import admit_doubt, talk_about_thing, talk_about_view
from llava.scratch.things.bank import FeatureBank

# Shares of class prototypes, which stand for photographs, and of looks at nothing that has a name.
PROTOTYPE_SHARE, DOUBT_SHARE = 0.45, 0.04


class ThingSamples:
    """Samples from the folder that ``llava.scratch.things`` filled.

    ``looks.npz`` in it has looks of drawn images, float16 [images, 10, D], by their kind and how colours
    were measured ("shapes contrast"): "shapes", "signs", "text", "chart", and "nothing": noise, gradients, textures.
    """

    def __init__(self, folder: Path, facts: Path, colours: str = "contrast") -> None:
        self.bank, self.colours = FeatureBank(folder, colours), colours
        self.facts: dict[str, str] = json.loads(facts.read_text("utf-8"))
        self.trained = [i for i, view in enumerate(self.bank.views) if not view["held_out"]]
        self.names = sorted({thing["name"] for i in self.trained for thing in self.bank.views[i]["objects"]})
        self.drawn = dict(np.load(folder / "looks.npz"))
        self._chance = np.random.default_rng(0)

    def draw(self, rng: random.Random) -> tuple[torch.Tensor, Turns]:
        """The looks [10, D] of an image and turns about it."""
        way = rng.random()
        if way < DOUBT_SHARE:
            return self.draw_looks(rng, "nothing"), admit_doubt(rng)
        if way < DOUBT_SHARE + PROTOTYPE_SHARE:
            index = rng.randrange(len(self.bank.prototype_class))
            thing = self.bank.classes[int(self.bank.prototype_class[index])]
            turns = talk_about_thing(rng, thing, self.names, self.facts, has_place=False)
            return self.bank.prototype_looks(index, self._chance), turns
        index = rng.choice(self.trained)
        return self.bank.looks(index), talk_about_view(rng, self.bank.views[index], self.names, self.facts)

    def draw_looks(self, rng: random.Random, kind: str) -> torch.Tensor:
        """The looks [10, D] of a drawn image of that kind."""
        looks = self.drawn[f"{kind} {self.colours}"]
        return torch.from_numpy(looks[rng.randrange(len(looks))].astype(np.float32))
