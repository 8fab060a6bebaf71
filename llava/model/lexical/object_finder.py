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
from llava.model.lexical.bar_rows import complete_bars
from llava.model.lexical.fill_color import Fill, measure_extent, measure_fill, measure_roundness, measure_unevenness
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
MIN_CENTRE, MIN_SCORE = 0.1, 0.5
# Bars confirm one another by their base; one that no other confirms must be surer than they.
MIN_SCORE_OF_BARS, LONELY_BAR_SCORE = 0.4, 0.6
# What the finder's own view of kind and colour counts for beside the namer's.
FINDER_SHARE = 0.5
# What the measured colour of the fill counts for, as a log share.
FILL_SHARE = 3.0
# Kinds whose middle has one colour, and how uneven that may be.
_FILLED = (
    "circle", "square", "triangle", "star", "diamond", "cross", "hexagon", "rectangle", "oval", "pentagon", "heart",
)  # fmt: skip
_MAX_UNEVENNESS = 40.0
_ROUND = ("circle", "hexagon", "oval", "pentagon")
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

    def name(self, image: Tensor, pixels_CHW: Tensor, candidates: Sequence[Candidate]) -> list[Drawn]:
        """The candidates that are objects, by the judgement of both nets and of the colours, in pixels of the image."""
        if not candidates:
            return []
        scale = (image.shape[2] / pixels_CHW.shape[2], image.shape[1] / pixels_CHW.shape[1])
        fills = [measure_fill(image, _scale_box(each.box, scale)) for each in candidates]
        candidates = [_correct(image, each, fill, scale) for each, fill in zip(candidates, fills, strict=True)]
        crops = cut_crops(pixels_CHW, [each.box for each in candidates])
        logits = self.namer(crops).float()
        kinds = logits[:, : len(KINDS) + 1].log_softmax(1)
        colors = logits[:, len(KINDS) + 1 :].log_softmax(1)
        found = []
        for i, each in enumerate(candidates):
            is_object = 1.0 - float(kinds[i, -1].exp())
            score = (each.score * is_object) ** 0.5
            kind = int((kinds[i, :-1] + FINDER_SHARE * each.kinds_K).argmax())
            if score > (MIN_SCORE_OF_BARS if KINDS[kind] == "bar" else MIN_SCORE):
                fill = fills[i]
                if fill is not None and KINDS[kind] in _ROUND:
                    kind = _judge_round(image, _scale_box(each.box, scale), fill, kind)
                box = _clip(_scale_box(each.box, scale), image)
                if box is None:
                    continue
                if KINDS[kind] in _FILLED and measure_unevenness(image, box) > _MAX_UNEVENNESS:
                    continue  # a thing in a photograph
                if KINDS[kind] == "ring" and fill is None:
                    continue
                if KINDS[kind] == "bar":
                    box = refine_bar(image, box, 2 * max(scale))
                votes = colors[i] + FINDER_SHARE * each.colors_C
                if fill is not None:
                    votes[COLORS.index(fill.name)] += FILL_SHARE if fill.is_sure else FILL_SHARE / 2
                found.append(Drawn(KINDS[kind], COLORS[int(votes.argmax())], box, score))
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
        found = self.name(image, pixels[0], decode(self(padded)[0].float()))
        found = _complete(image, found)
        return sorted(found, key=lambda o: (int(1.5 * (o.box[1] + o.box[3]) / height), o.box[0] + o.box[2]))


def _scale_box(box: Box, scale: tuple[float, float]) -> Box:
    return box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1]


def _clip(box: Box, image: Tensor) -> Box | None:
    """The part of a box that is within the image; None if nothing of it is."""
    height, width = image.shape[-2:]
    x0, x1 = (min(max(x, 0.0), float(width)) for x in box[::2])
    y0, y1 = (min(max(y, 0.0), float(height)) for y in box[1::2])
    return (x0, y0, x1, y1) if x1 - x0 > 1e-3 and y1 - y0 > 1e-3 else None


def _judge_round(image: Tensor, box: Box, fill: Fill, kind: int) -> int:
    """Circle or hexagon, where a flat fill in a box about as wide as high says so; else the kind as it was."""
    width, height = box[2] - box[0], box[3] - box[1]
    if not 0.8 < width / height < 1.25 or min(width, height) < 14:
        return kind
    roundness = measure_roundness(image, box, fill)
    if roundness > 0.93:
        return KINDS.index("circle")
    return KINDS.index("hexagon") if 0.79 < roundness < 0.88 else kind


def _correct(image: Tensor, each: Candidate, fill: Fill | None, scale: tuple[float, float]) -> Candidate:
    """The candidate with the box of its fill, where that is clear. What may touch its like is left as it is."""
    if fill is None or KINDS[int(each.kinds_K.argmax())] in ("bar", "key", "wedge", "sign"):
        return each
    box = measure_extent(image, _scale_box(each.box, scale), fill)
    return each if box is None else each._replace(box=_scale_box(box, (1 / scale[0], 1 / scale[1])))


def _complete(image: Tensor, found: list[Drawn]) -> list[Drawn]:
    """The objects, with all bars that stand at the base of those found, each once."""
    bars = [each for each in found if each.kind == "bar"]
    boxes = complete_bars(image, [each.box for each in bars])
    if not boxes:
        return [each for each in found if each.kind != "bar" or each.score > LONELY_BAR_SCORE]
    result = [each for each in found if each.kind != "bar"]
    for box in boxes:
        nearest = max(bars, key=lambda bar: measure_overlap(bar.box, box))
        score = nearest.score if measure_overlap(nearest.box, box) > 0.1 else min(bar.score for bar in bars)
        fill = measure_fill(image, box)
        colour = nearest.colour if fill is None or not fill.is_sure else fill.name
        # The fill is the bar's, so what was found of another kind within it is a part of it.
        result = [each for each in result if share_within(each.box, box) < 0.6]
        result.append(Drawn("bar", colour, box, score))
    traced = [each for each in result if each.kind == "bar"]
    height, width = image.shape[-2:]
    for bar in bars:
        if any(share_within(bar.box, each.box) >= 0.35 for each in traced):
            continue
        # Beside a row of bars, a small field of colour is a key of the legend.
        if bar.box[3] - bar.box[1] < 0.06 * height and bar.box[2] - bar.box[0] < 0.12 * width:
            result.append(bar._replace(kind="key"))
        elif bar.score > LONELY_BAR_SCORE:
            result.append(bar)
    return result


def share_within(inner: Box, outer: Box) -> float:
    """How much of a box another holds."""
    across, down = min(inner[2], outer[2]) - max(inner[0], outer[0]), min(inner[3], outer[3]) - max(inner[1], outer[1])
    area = (inner[2] - inner[0]) * (inner[3] - inner[1])
    return max(0.0, across) * max(0.0, down) / max(area, 1e-6)


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


def share_area(a: Box, b: Box) -> float:
    """The area that both boxes cover, in px²."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, across) * max(0.0, down)


def measure_overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    both = share_area(a, b)
    if both <= 0:
        return 0.0
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
