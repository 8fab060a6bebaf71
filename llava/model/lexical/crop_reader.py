"""The network that reads one line of text from a crop, and the colours of its ink and ground.

A small convolutional network with CTC: it sees a crop 24 px high, normalized by its own mean and contrast, and says a
character or nothing every two pixels. Colours are named from the crop's own pixels by a network of one hidden layer.

Shapes: N crops, W width in px, T = W / 2 steps, C channels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llava.model.lexical.characters import NUM_CLASSES
from llava.model.lexical.colour_names import COLOURS

CROP_HEIGHT = 24
# Widths of crops are multiples of this many pixels.
WIDTH_STEP = 16
_INK_SHARES = (0.015, 0.05, 0.14)
NUM_COLOUR_FEATURES = 3 * (1 + len(_INK_SHARES))


class _Block(nn.Module):
    """A 2-D convolution with batch normalization, added to its input where ``is_residual``."""

    def __init__(
        self, channels_in: int, channels: int, stride: tuple[int, int] = (1, 1), is_residual: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.is_residual = is_residual

    def forward(self, x_NCHW: Tensor) -> Tensor:
        y_NCHW = F.relu(self.norm(self.conv(x_NCHW)))
        return x_NCHW + y_NCHW if self.is_residual else y_NCHW


class _Along(nn.Module):
    """A residual 1-D convolution along the line, written as a 2-D one of height 1."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (1, 5), padding=(0, 2 * dilation), dilation=(1, dilation), bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x_NC1W: Tensor) -> Tensor:
        return x_NC1W + F.relu(self.norm(self.conv(x_NC1W)))


class CropReader(nn.Module):
    """Crops of lines -> log probabilities of characters and scores of colour names."""

    def __init__(self, width: int = 208) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            _Block(3, 24, (2, 2)),
            _Block(24, 24, is_residual=True),
            _Block(24, 48, (2, 2)),
            _Block(48, 48, is_residual=True),
            _Block(48, 48, is_residual=True),
            _Block(48, 96, (2, 1)),
            _Block(96, 96, is_residual=True),
            _Block(96, 96, is_residual=True),
        )
        self.fold = nn.Conv2d(96, width, (CROP_HEIGHT // 8, 1), bias=False)
        self.fold_norm = nn.BatchNorm2d(width)
        self.along = nn.Sequential(*(_Along(width, dilation) for dilation in (1, 1, 2, 3, 1)))
        self.drop = nn.Dropout(0.05)
        # Two steps come from each column of stride 4, so that narrow letters and the blanks between them have room.
        self.characters = nn.Conv2d(width, 2 * NUM_CLASSES, 1)
        self.colours = nn.Sequential(
            nn.Linear(NUM_COLOUR_FEATURES, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2 * len(COLOURS))
        )

    def forward(self, crops_N3HW: Tensor) -> Tensor:
        """Log probabilities [T, N, K] of normalized crops [N, 3, 24, W], W a multiple of 4."""
        x_NC1W = F.relu(self.fold_norm(self.fold(self.trunk(crops_N3HW))))
        x_NC1W = self.characters(self.drop(self.along(x_NC1W)))
        x_NKW2 = x_NC1W.squeeze(2).unflatten(1, (2, NUM_CLASSES)).permute(0, 2, 3, 1)
        return F.log_softmax(x_NKW2.flatten(2).permute(2, 0, 1).float(), dim=-1)

    def name_colours(self, features_NF: Tensor) -> Tensor:
        """Scores [N, 2, colours] of the ink's and the ground's name from ``colour_features``."""
        scores: Tensor = self.colours(features_NF)
        return scores.unflatten(1, (2, len(COLOURS)))


def normalize(crop_3HW: Tensor) -> Tensor:
    """A crop of 0 to 255 with mean 0 and spread 1 over all its pixels and channels."""
    crop_3HW = crop_3HW.float()
    return (crop_3HW - crop_3HW.mean()) / (crop_3HW.std(correction=0) + 4.0)


def colour_features(crop_3HW: Tensor) -> Tensor:
    """The ground of a crop (the median) and the mean of the pixels that differ most from it, 0 to 1, [12]."""
    pixels_3P = crop_3HW[:, ::2, ::2].flatten(1).float() / 255
    ground_3 = pixels_3P.median(dim=1).values
    distance_P = (pixels_3P - ground_3[:, None]).abs().sum(0)
    most = max(1, int(distance_P.numel() * _INK_SHARES[-1]))
    far_P = distance_P.topk(most).indices
    inks = [pixels_3P[:, far_P[: max(1, int(distance_P.numel() * share))]].mean(1) for share in _INK_SHARES]
    return torch.cat((ground_3, *inks))
