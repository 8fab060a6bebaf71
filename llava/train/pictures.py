"""Drawn pictures as an endless training set: picture number i is always the same picture.

A map-style dataset, so that the Trainer can resume, shuffle and share it between workers as it does any other.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from llava.image.geometry import Size, Tiling, plan_tiles
from llava.image.pixels import ImageProcessor, make_pixels
from llava.synth.labels import label_tiles
from llava.synth.scene import Scene
from llava.synth.scenes import ALL_KINDS


@dataclass(frozen=True)
class PictureMix:
    """Which kinds are drawn how often, how large, and how spoilt by noise, blur and JPEG (0 to 1).

    ``group`` neighbouring pictures share one range of sizes, so that a batch of that many has rows of similar length.
    """

    kinds: tuple[tuple[str, float], ...]
    sizes: tuple[tuple[int, int, int, int], ...]  # (least width, most width, least height, most height) in pixels
    spoil: float = 0.5
    seed: int = 0
    held_out: bool = False
    group: int = 1

    def draw(self, index: int) -> Scene:
        rng = random.Random(f"{self.seed}:{index}")
        kind = rng.choices([k for k, _ in self.kinds], [w for _, w in self.kinds])[0]
        narrow, wide, low, high = random.Random(f"{self.seed}:sizes:{index // self.group}").choice(self.sizes)
        width, height = rng.randint(narrow, wide), rng.randint(low, high)
        scene = ALL_KINDS[kind](rng, width, height, self.held_out)
        scene.canvas.spoil(self.spoil)
        return scene


class LabelledTiles(Dataset[dict[str, torch.Tensor]]):
    """Tiles with dense labels, to warm up the tower on. One item is ``tiles_per_picture`` tiles of a picture."""

    def __init__(
        self, mix: PictureMix, tiling: Tiling, processor: ImageProcessor, num_pictures: int, tiles_per_picture: int = 2
    ) -> None:
        self.mix, self.tiling, self.processor = mix, tiling, processor
        self.num_pictures, self.tiles_per_picture = num_pictures, tiles_per_picture

    def __len__(self) -> int:
        return self.num_pictures

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        scene = self.mix.draw(index)
        plan = plan_tiles(Size(*scene.canvas.image.size), self.tiling)
        labels = label_tiles(scene.canvas, plan, self.tiling.tile_px, self.tiling.patch_px)
        pixels = make_pixels(scene.canvas.image, self.tiling, self.processor)
        # Tiles that carry marks first: blank ones teach nothing after the first hundred.
        order = np.argsort(~(labels[:, :, :4] > 0).any(axis=(1, 2)), kind="stable")
        rng = np.random.default_rng(index)
        marked = max(1, int((labels[:, :, :4] > 0).any(axis=(1, 2)).sum()))
        chosen = rng.choice(order[:marked], size=self.tiles_per_picture, replace=marked < self.tiles_per_picture)
        return {"pixel_values": pixels[chosen], "labels": torch.from_numpy(labels[chosen].astype(np.int64))}


def collate_tiles(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, Any]:
    return {key: torch.cat([item[key] for item in items]) for key in items[0]}
