"""Stages 0b and 1: the decoder learns to read from perfect labels, before there is a tower; the projector is aligned.

The *oracle* replaces tower and projector: it embeds the dense labels of every patch and the patch's row and column, and
their sum takes the place of the projected features. A decoder that has learnt where to look keeps that skill when real
features arrive; one that is trained on the features of an untrained tower stays at chance for tens of thousands of
images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from llava.synth.labels import LABEL_SIZES

ORACLE_STD = 0.02


class OracleFeatures(nn.Module):
    """Embeds dense labels [T, side, side, 7] as features [T, side * side, C] in place of a projector's."""

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
    """Adds a submodule ``oracle`` to a LLaVA model, which the model does not use before ``see_labels``."""
    model.oracle = OracleFeatures(model.config.hidden_size, model.get_vision_tower().num_patches_per_side)


def see_labels(model: Any) -> None:
    """Makes the model take dense labels [T, side, side, 7] in place of pixels, by replacing its ``encode_images``."""
    model.encode_images = model.oracle.forward


class ProjectorAlignment(nn.Module):
    """Stage 1: regression from the tower's features, through the projector, to the oracle's features.

    The loss is the mean squared error divided by the variance of the oracle's features, so that predicting their mean
    has the loss 1.0.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss for pixels [T, 3, S, S] and their dense labels [T, patches, 7], as ``{"loss": scalar}``."""
        with torch.no_grad():
            side = self.model.get_vision_tower().num_patches_per_side
            target = self.model.oracle(labels.unflatten(1, (side, side))).float()
        projected = self.model.encode_images(pixel_values).float()
        spread = (target - target.mean(dim=(0, 1), keepdim=True)).pow(2).mean()
        return {"loss": functional.mse_loss(projected, target) / spread}
