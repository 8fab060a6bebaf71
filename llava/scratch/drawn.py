"""Drawn images as map-style datasets of any length: image number i is always the same.

So the Trainer can resume them, shuffle them and share them between workers like any other dataset.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from llava.data.records import parse_turns
from llava.image.geometry import Size, TilePlan, Tiling, plan_tiles
from llava.image.pixels import ImageProcessor, make_pixels
from llava.synth.conversations import as_conversations, choose_turns
from llava.synth.labels import label_tiles
from llava.synth.scene import Scene
from llava.synth.scenes import ALL_KINDS
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.samples import InstructionData, Sample


@dataclass(frozen=True)
class DrawnMix:
    """A distribution of drawn images.

    Attributes:
        kinds: kinds of scene, and how often each is drawn relative to the others.
        sizes: ranges (least width, most width, least height, most height) in pixels.
        spoil: how much noise, blur and JPEG artefacts there are, 0 to 1.
        held_out: whether held-out words and colour-shape pairs are drawn, and no others.
        group: this many consecutive images share a range of sizes, so that a batch of them has rows of similar length.
    """

    kinds: tuple[tuple[str, float], ...]
    sizes: tuple[tuple[int, int, int, int], ...]
    spoil: float = 0.5
    seed: int = 0
    held_out: bool = False
    group: int = 1

    def draw(self, index: int) -> Scene:
        """Scene number ``index``; always the same."""
        rng = random.Random(f"{self.seed}:{index}")
        kind = rng.choices([k for k, _ in self.kinds], [w for _, w in self.kinds])[0]
        narrow, wide, low, high = random.Random(f"{self.seed}:sizes:{index // self.group}").choice(self.sizes)
        width, height = rng.randint(narrow, wide), rng.randint(low, high)
        scene = ALL_KINDS[kind](rng, width, height, self.held_out)
        scene.drawing.spoil(self.spoil)
        return scene


class LabelledTiles(Dataset[dict[str, torch.Tensor]]):
    """Tiles with dense labels, for the tower's warm-up and the projector's alignment.

    One item is T = ``tiles_per_image`` random tiles of an image, ``pixel_values`` [T, 3, S, S] and ``labels``
    [T, patches, 7]. Tiles without marks are used only if the image has no others.
    """

    def __init__(
        self, mix: DrawnMix, tiling: Tiling, processor: ImageProcessor, num_images: int, tiles_per_image: int = 2
    ) -> None:
        self.mix, self.tiling, self.processor = mix, tiling, processor
        self.num_images, self.tiles_per_image = num_images, tiles_per_image

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        scene = self.mix.draw(index)
        plan = plan_tiles(Size(*scene.drawing.image.size), self.tiling)
        labels = label_tiles(scene.drawing, plan, self.tiling.tile_px, self.tiling.patch_px)
        pixels = make_pixels(scene.drawing.image, plan, self.processor)
        # Tiles with marks come first: after the first hundred, blank ones teach nothing more.
        order = np.argsort(~(labels[:, :, :4] > 0).any(axis=(1, 2)), kind="stable")
        rng = np.random.default_rng(index)
        marked = max(1, int((labels[:, :, :4] > 0).any(axis=(1, 2)).sum()))
        chosen = rng.choice(order[:marked], size=self.tiles_per_image, replace=marked < self.tiles_per_image)
        return {"pixel_values": pixels[chosen], "labels": torch.from_numpy(labels[chosen].astype(np.int64))}


def collate_tiles(items: Sequence[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """A batch of items of ``LabelledTiles``: all their tiles, in order."""
    return {key: torch.cat([item[key] for item in items]) for key in items[0]}


@dataclass(frozen=True)
class DrawnSample(Sample):
    """A sample with the dense labels [tiles, patches, 7] of its image, or None where the stage does not use them."""

    labels: np.ndarray | None = None


class DrawnSamples:
    """Conversations about drawn images; number i is always the same.

    ``label_tiling``: adds the dense labels of the image's tiles. The other arguments are those of ``choose_turns``.
    """

    def __init__(
        self, mix: DrawnMix, num_samples: int, num_turns: int, caption_rate: float, label_tiling: Tiling | None = None
    ) -> None:
        self.mix, self.num_samples = mix, num_samples
        self.num_turns, self.caption_rate, self.label_tiling = num_turns, caption_rate, label_tiling

    def __len__(self) -> int:
        return self.num_samples

    def sample(self, index: int) -> DrawnSample:
        """Conversation number ``index``."""
        scene = self.mix.draw(index)
        turns = choose_turns(random.Random(f"{self.mix.seed}:turns:{index}"), scene, self.num_turns, self.caption_rate)
        image = scene.drawing.image
        labels = None
        if self.label_tiling is not None:
            tiling = self.label_tiling
            labels = label_tiles(scene.drawing, plan_tiles(Size(*image.size), tiling), tiling.tile_px, tiling.patch_px)
        conversation = parse_turns(as_conversations(turns), "A drawn image")
        return DrawnSample((image,), conversation, str(index), "drawn", labels)


class OracleData(InstructionData):
    """Drawn samples whose ``images`` are dense labels [T, side, side, 7] instead of pixels."""

    def make_tiles(self, sample: Any, plans: Sequence[TilePlan]) -> list[torch.Tensor]:
        """The dense labels of the image, int64 [T, side, side, 7] with ``side`` patches per side of a tile."""
        side = self.tiling.tile_px // self.tiling.patch_px
        return [torch.from_numpy(sample.labels.astype(np.int64)).unflatten(1, (side, side))]


class LabelledData(InstructionData):
    """Drawn samples that also have ``tile_labels`` [T, patches, 7]."""

    def encode(self, sample: Any, template: str) -> dict[str, Any]:
        """The model's inputs for one sample, and its image's dense labels, int64."""
        return {**super().encode(sample, template), "tile_labels": torch.from_numpy(sample.labels.astype(np.int64))}


class LabelledCollator(InstructionCollator):
    """Makes batches that also have ``tile_labels`` [T, patches, 7], those of all tiles of the batch."""

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {**super().__call__(items), "tile_labels": torch.cat([item["tile_labels"] for item in items])}
