"""Features on disk as the rows that the lexical projector reads, with what they show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from llava.model.lexical.lexical_projector import NUM_WHOLE


class FeatureBank:
    """Views and prototypes of a folder that `view_features` and `prototypes` filled.

    A look [2283] is pooled features (1280), class logits (1000) and RGB (3), as the tower makes them; a view has ten,
    the whole image's and those of its nine cells. `as_slots` repeats the first for the six slots of the whole image.
    """

    def __init__(self, folder: Path, colours: str = "rgb") -> None:
        """``colours``: "rgb" (means) or "contrast" (means of what differs from the ground)."""
        self.num_views = int((folder / "done").read_text())
        self.g, self.cells, self.colours = (
            np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("g", "cells", colours)
        )
        self.views: list[dict[str, Any]] = json.loads((folder / "views.json").read_text())[: self.num_views]
        self.classes: list[dict[str, str]] = json.loads((folder / "classes.json").read_text())
        prototypes = load_file(folder / "prototypes.safetensors")
        self.prototype_g, self.prototype_class = prototypes["g"], prototypes["class"].long()
        head = load_file(folder / "head.safetensors")
        self.weight, self.bias = head["weight"], head["bias"]
        self.singles = [i for i, view in enumerate(self.views) if view["layout"] == "single" and not view["held_out"]]

    def looks(self, view: int) -> torch.Tensor:
        """The looks [10, 2283] of a view."""
        return self._complete(*self._read(view))

    def prototype_features(self, prototype: int) -> torch.Tensor:
        """The pooled features [1280] of a prototype."""
        return self.prototype_g[prototype].float()

    def prototype_looks(self, features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """The looks [10, 2283] of a prototype's features, with the colours and the cells' spread of a random view."""
        whole, cells, colours = self._read(self.singles[int(rng.integers(len(self.singles)))])
        own = features * float(rng.uniform(0.9, 1.1))
        return self._complete(own, (cells - whole + own).clamp(0, 6), colours)

    def prototype_whole(self, prototype: int, rng: np.random.Generator) -> torch.Tensor:
        """The first of a prototype's looks alone [1, 2283], of no particular colour."""
        own = self.prototype_g[prototype].float() * float(rng.uniform(0.9, 1.1))
        colour = torch.from_numpy(rng.random((1, 3), dtype=np.float32))
        return torch.cat([own[None], self._classify(own[None]), colour], 1)

    def _read(self, view: int) -> list[torch.Tensor]:
        return [torch.from_numpy(array[view].astype(np.float32)) for array in (self.g, self.cells, self.colours)]

    def _classify(self, features: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(features, self.weight, self.bias)

    def _complete(self, whole: torch.Tensor, cells: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([whole[None], cells])
        return torch.cat([rows, self._classify(rows), colours], 1)


def as_slots(looks: torch.Tensor) -> torch.Tensor:
    """The fifteen rows [15, D] of an image from its ten looks [10, D]."""
    return torch.cat([looks[:1].expand(NUM_WHOLE, -1), looks[1:]])
