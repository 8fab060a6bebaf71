"""Stage 0b: the decoder learns to read before there is a tower.

Its images are known perfectly: the dense labels of every patch, each embedded and summed, with the
patch's row and column, take the place of projected tower features. A decoder that has learnt where to look keeps that
skill when real features arrive; one trained on a young tower's features from the start stays at chance for tens of
thousands of images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from llava.synth.labels import LABEL_SIZES

ORACLE_STD = 0.02


class OracleFeatures(nn.Module):
    """Dense labels [T, side, side, 7] -> what a perfect projector would give the decoder, [T, side * side, C]."""

    def __init__(self, hidden_size: int, patches_per_side: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, hidden_size) for size in LABEL_SIZES)
        self.rows = nn.Embedding(patches_per_side, hidden_size)
        self.columns = nn.Embedding(patches_per_side, hidden_size)
        for table in (*self.tables, self.rows, self.columns):
            nn.init.normal_(table.weight, std=ORACLE_STD)

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        places = self.rows.weight[:, None] + self.columns.weight[None]
        features = places.flatten(0, 1).expand(len(labels), -1, -1)
        for i, table in enumerate(self.tables):
            features = features + table(labels[..., i].flatten(1))
        return features


def attach_oracle(model: Any) -> None:
    """Gives a LLaVA model a submodule ``oracle``; it is asked only after ``see_labels``."""
    model.oracle = OracleFeatures(model.config.hidden_size, model.get_vision_tower().num_patches_per_side)


def see_labels(model: Any) -> None:
    """Makes the model take dense labels [T, side, side, 7] where it takes pixels."""
    model.encode_images = model.oracle.forward


class ProjectorAlignment(nn.Module):
    """Stage 1: the projector learns to say what the oracle says, from the tower's features.

    The loss is the squared error relative to the oracle's own spread, so 1.0 is what predicting the mean gets.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Pixels [T, 3, S, S] and labels [T, patches, 7]."""
        with torch.no_grad():
            side = self.model.get_vision_tower().num_patches_per_side
            target = self.model.oracle(labels.unflatten(1, (side, side))).float()
        projected = self.model.encode_images(pixel_values).float()
        spread = (target - target.mean(dim=(0, 1), keepdim=True)).pow(2).mean()
        return {"loss": functional.mse_loss(projected, target) / spread}
