"""Finds drawn objects: shapes, bars of charts, plates that carry text, keys of legends, wedges.

A small fully convolutional net in the manner of CenterNet looks at the whole image at about one tenth of a megapixel.
In each cell of 4x4 pixels it says how much the cell is the centre of an object, and that object's kind, colour and box.
A second net, the namer, then looks at each box by itself. Edges of bars are moved to where the bar's fill ends in the
image's own pixels. A photo or a page of text has no such objects and gives none.

Source: CenterNet (arXiv:1904.07850).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llava.model.lexical.bar_edges import refine_bar
from llava.model.lexical.object_namer import ObjectNamer, cut_crops

# Tensor shapes: B images, C channels, H and W pixels, h and w cells of STRIDE pixels.
KINDS = (
    "circle", "square", "triangle", "star", "diamond", "cross", "hexagon", "ring", "rectangle", "oval", "pentagon",
    "heart", "bar", "sign", "key", "wedge",
)  # fmt: skip
COLORS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white", "olive", "cyan",
)  # fmt: skip
STRIDE = 4
# The net sees images at this area, and no side longer than this.
AREA_PX = 384 * 288
MAX_SIDE_PX = 576
_PADDING_PX = 32
# How sure the net must be of a centre, and both nets together (the geometric mean) of an object.
MIN_CENTRE, MIN_SCORE = 0.1, 0.4
# What the finder's own view of kind and colour counts for beside the namer's.
FINDER_SHARE = 0.5
_MAX_OBJECTS = 100
# Of two objects of which one covers this share of the other (intersection over union), the surer stays.
_MAX_OVERLAP = 0.5

Box = tuple[float, float, float, float]


class Drawn(NamedTuple):
    """A drawn object. ``box``: left, top, right and bottom in pixels of the image; ``score``: from 0 to 1."""

    kind: str
    colour: str
    box: Box
    score: float


class _Step(nn.Module):
    """A 3x3 convolution with batch norm and ReLU, added to its input where the shape stays."""

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.is_residual = width_in == width and stride == 1

    def forward(self, x_BCHW: Tensor) -> Tensor:
        new = F.relu(self.norm(self.conv(x_BCHW)))
        return x_BCHW + new if self.is_residual else new


def choose_size(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which the net sees an image."""
    scale = min(math.sqrt(AREA_PX / (height * width)), MAX_SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class ObjectFinder(nn.Module):
    """The net and how its output is read.

    Args:
        widths: channels at strides 4, 8, 16 and 32.
        depths: residual steps at each.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (32, 64, 96, 96),
        depths: tuple[int, int, int, int] = (1, 3, 3, 3),
        head: int = 48,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        width_in = 3 * STRIDE**2
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            steps = [_Step(width_in, width, 1 if i == 0 else 2), *(_Step(width, width) for _ in range(depth))]
            self.levels.append(nn.Sequential(*steps))
            width_in = width
        # On the way back up, each level becomes as wide as the next finer one's summand.
        outs = (head, head, widths[1], widths[2])
        self.laterals = nn.ModuleList(nn.Conv2d(width, out, 1) for width, out in zip(widths, outs, strict=True))
        self.merges = nn.ModuleList(_Step(outs[i + 1], outs[i]) for i in range(3))
        self.last = _Step(head, head)
        self.namer = ObjectNamer(len(KINDS), len(COLORS))
        self.head = nn.Conv2d(head, 1 + len(KINDS) + len(COLORS) + 4, 1)
        # Nothing is known at the start: one cell in a hundred is a centre, and an edge is 10 px off.
        bias = torch.zeros(self.head.out_channels)
        bias[0], bias[-4:] = -4.6, 2.3
        nn.init.zeros_(self.head.weight)
        self.head.bias = nn.Parameter(bias)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Logits of a centre, of kinds, of colours, and log of px to left, top, right and bottom edge, [B, 34, h, w].

        ``pixels_BCHW``: float, 0 to 255 less 128, over 64; height and width multiples of 32.
        """
        x = F.pixel_unshuffle(pixels_BCHW, STRIDE)
        views = []
        for level in self.levels:
            x = level(x)
            views.append(x)
        y = self.laterals[3](views[3])
        for i in (2, 1, 0):
            y = F.interpolate(self.merges[i](y), scale_factor=2.0, mode="nearest") + self.laterals[i](views[i])
        head: Tensor = self.head(self.last(F.relu(y)))
        return head

    def name(self, pixels_CHW: Tensor, candidates: Sequence[Candidate]) -> list[Drawn]:
        """The candidates that are objects, by the judgement of both nets; boxes stay in the net's pixels."""
        if not candidates:
            return []
        crops = cut_crops(pixels_CHW, [each.box for each in candidates])
        logits = self.namer(crops).float()
        kinds = logits[:, : len(KINDS) + 1].log_softmax(1)
        colors = logits[:, len(KINDS) + 1 :].log_softmax(1)
        found = []
        for i, each in enumerate(candidates):
            is_object = 1.0 - float(kinds[i, -1].exp())
            score = (each.score * is_object) ** 0.5
            if score > MIN_SCORE:
                kind = int((kinds[i, :-1] + FINDER_SHARE * each.kinds_K).argmax())
                color = int((colors[i] + FINDER_SHARE * each.colors_C).argmax())
                found.append(Drawn(KINDS[kind], COLORS[color], each.box, score))
        return found

    @torch.inference_mode()
    def find(self, image: Tensor) -> list[Drawn]:
        """The drawn objects of an image, uint8 [3, H, W], in reading order: rows of thirds, from left to right."""
        height, width = image.shape[-2:]
        if min(height, width) < 8:
            return []
        size = choose_size(height, width)
        small = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)
        weight = self.head.weight
        pixels = ((small.float() - 128) / 64).to(weight.device, weight.dtype)
        pad_y, pad_x = -size[0] % _PADDING_PX, -size[1] % _PADDING_PX
        padded = F.pad(pixels, (0, pad_x, 0, pad_y)).contiguous(memory_format=torch.channels_last)
        seen = self.name(pixels[0], decode(self(padded)[0].float()))
        across, down = width / size[1], height / size[0]
        found = []
        for each in seen:
            x0, y0, x1, y1 = each.box
            box = (
                min(max(x0 * across, 0.0), width),
                min(max(y0 * down, 0.0), height),
                min(max(x1 * across, 0.0), width),
                min(max(y1 * down, 0.0), height),
            )
            if box[2] - box[0] < 1e-3 or box[3] - box[1] < 1e-3:
                continue
            if each.kind == "bar":
                box = refine_bar(image, box, 2 * max(across, down))
            found.append(each._replace(box=box))
        return sorted(found, key=lambda o: (int(1.5 * (o.box[1] + o.box[3]) / height), o.box[0] + o.box[2]))


class Candidate(NamedTuple):
    """Where there may be an object: its box in pixels of the net's input, and log shares of kinds and colours."""

    box: Box
    score: float
    kinds_K: Tensor
    colors_C: Tensor


def decode(output: Tensor) -> list[Candidate]:
    """What one image's output [34, h, w] says may be objects, the surest first; none overlaps another much."""
    heat = output[0].sigmoid()
    is_peak = F.max_pool2d(heat[None, None], 3, 1, 1)[0, 0] == heat
    scores, places = (heat * is_peak).flatten().topk(min(4 * _MAX_OBJECTS, heat.numel()))
    places = places[scores > MIN_CENTRE]
    y, x = places // heat.shape[1], places % heat.shape[1]
    reach = output[-4:, y, x].clamp(-3, 7).exp()
    middle_x, middle_y = (x + 0.5) * STRIDE, (y + 0.5) * STRIDE
    boxes = torch.stack((middle_x - reach[0], middle_y - reach[1], middle_x + reach[2], middle_y + reach[3]), 1)
    kinds = output[1 : 1 + len(KINDS), y, x].log_softmax(0).T
    colors = output[1 + len(KINDS) : -4, y, x].log_softmax(0).T
    kept: list[Candidate] = []
    for i, (score, box) in enumerate(zip(heat[y, x].tolist(), boxes.tolist(), strict=True)):
        each = Candidate((box[0], box[1], box[2], box[3]), score, kinds[i], colors[i])
        if all(measure_overlap(each.box, other.box) <= _MAX_OVERLAP for other in kept):
            kept.append(each)
    return kept[:_MAX_OBJECTS]


def measure_overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
