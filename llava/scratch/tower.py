"""Stage 0a: the vision tower learns to predict the dense labels of every patch.

It takes the place of CLIP's pre-training. The heads read the features that LLaVA uses (of the layer and positions that
``mm_vision_select_layer`` and ``mm_vision_select_feature`` name) and are not part of the finished model. A later stage
may add this task to its own, so that the tower keeps learning to read while the decoder learns to answer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from llava.synth.labels import LABEL_SIZES, NUM_SLOTS

# The most patches per side of a tile.
MAX_SIDE = 32


class LabelHeads(nn.Module):
    """Linear heads over features [T, N, D] for all dense labels, and for the row and the column of the patch itself.

    Row and column keep the place of a patch in its features: no other label needs it, and the decoder gets it from
    nowhere else.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.label_head = nn.Linear(hidden_size, sum(LABEL_SIZES))
        self.place_head = nn.Linear(hidden_size, 2 * MAX_SIDE)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss for features [T, N, D] and labels [T, N, 7], and the accuracy of each group of labels, ``*_right``.

        Labels of class 0 (nothing) do not count in the accuracies.
        """
        normed = self.norm(features)
        logits = self.label_head(normed).float().flatten(0, 1)
        targets = labels.flatten(0, 1)
        loss = logits.new_zeros(())
        right = []
        for i, part in enumerate(logits.split(LABEL_SIZES, dim=-1)):
            # The sum is divided by the number of labels that are not 0: the many easy blank patches must not dilute it.
            loss = loss + functional.cross_entropy(part, targets[:, i], reduction="sum")
            there = targets[:, i] > 0
            right.append((part.argmax(-1) == targets[:, i])[there])
        loss = loss / (targets > 0).sum().clamp(min=1)
        place_loss, places_right = self._name_places(normed)
        loss = loss + place_loss
        parts = {
            "characters": right[:NUM_SLOTS],
            "shapes": right[NUM_SLOTS : NUM_SLOTS + 1],
            "colors": right[NUM_SLOTS + 1 : NUM_SLOTS + 2],
            "inks": right[NUM_SLOTS + 2 : NUM_SLOTS + 3],
            "anchors": right[NUM_SLOTS + 3 :],
        }
        shares = {f"{name}_right": torch.cat(part).float().mean() for name, part in parts.items()}
        return {"loss": loss, "places_right": places_right, **shares}

    def _name_places(self, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        num_tiles, num_patches, _ = normed.shape
        side = math.isqrt(num_patches)
        assert side * side == num_patches
        assert side <= MAX_SIDE
        places = torch.arange(num_patches, device=normed.device)
        targets = torch.stack([places // side, places % side], dim=1).expand(num_tiles, -1, -1).flatten()
        logits = self.place_head(normed).float().unflatten(-1, (2, MAX_SIDE)).flatten(0, 2)
        return functional.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean()


class PatchLabeller(nn.Module):
    """A tower with its heads; forward takes pixels [T, 3, S, S] and labels [T, N, 7] and returns the heads' loss."""

    def __init__(self, tower: nn.Module, heads: LabelHeads) -> None:
        super().__init__()
        self.tower, self.heads = tower, heads

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.heads(self.tower(pixel_values), labels)


class AnsweringLabeller(nn.Module):
    """A LLaVA model trained on answers and on dense labels at once; ``weight`` scales the second loss."""

    def __init__(self, model: Any, heads: LabelHeads, weight: float) -> None:
        super().__init__()
        self.model, self.heads, self.weight = model, heads, weight

    def forward(self, tile_labels: torch.Tensor, **inputs: Any) -> dict[str, torch.Tensor]:
        seen: list[torch.Tensor] = []
        hook = self.model.get_vision_tower().register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            answered = self.model(**inputs)
        finally:
            hook.remove()
        labelled = self.heads(torch.cat(seen), tile_labels)
        return {**labelled, "loss": answered["loss"] + self.weight * labelled["loss"]}
