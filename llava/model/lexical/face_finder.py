"""Finds faces with MTCNN: three small networks, each of which looks more closely at what the one before proposed.

Source: Zhang et al., "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional Networks", 2016; the
layers and the steps are those of timesler/facenet-pytorch@v2.6.0 (MIT), whose wheel has the weights.

    proposals    sees 12 x 12 px everywhere, at every size of the image
    refinement   sees the proposals at 24 x 24 px
    output       sees what is left at 48 x 48 px

Letters in shapes: N boxes, H height and W width in px. A box is (left, top, right, bottom) in px.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

# Faces are looked for from this part of the image's longer side on; each further size is so many times smaller.
_SMALLEST_PART, _LEAST_PX, _FACTOR = 0.05, 20, 0.709
# From these probabilities on a stage believes in a face. The last is above the source's 0.7: a face that is none is
# worse than one that is missed.
_PROPOSED, _REFINED, _CERTAIN = 0.6, 0.7, 0.97
# A wider or higher image is scaled down to this first.
_LONGEST_PX = 640
# More proposals than these, the surest, are not looked at: patterns give thousands.
_MOST_PROPOSALS = 400
_STRIDE, _CELL_PX = 2, 12


@dataclass(frozen=True)
class Face:
    """A face: its ``box`` (left, top, right, bottom) as parts of the image's width and height, and its probability."""

    box: tuple[float, float, float, float]
    chance: float


def _to_dense(maps_NCHW: torch.Tensor) -> torch.Tensor:
    """Maps as rows, in the order of the weights' first framework."""
    return maps_NCHW.permute(0, 3, 2, 1).flatten(1)


class Proposals(nn.Module):
    """The first network, fully convolutional (PNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, pixels_13HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The shifts of boxes [4, H', W'] and probabilities [H', W'] of faces at each second pixel."""
        x = F.max_pool2d(self.prelu1(self.conv1(pixels_13HW)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x)[0], self.conv4_1(x).softmax(1)[0, 1]


class Refinement(nn.Module):
    """The second network, for 24 x 24 px (RNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, pixels_N3SS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shifts [N, 4] and probabilities [N]."""
        x = F.max_pool2d(self.prelu1(self.conv1(pixels_N3SS)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu4(self.dense4(_to_dense(self.prelu3(self.conv3(x)))))
        return self.dense5_2(x), self.dense5_1(x).softmax(1)[:, 1]


class Output(nn.Module):
    """The third network, for 48 x 48 px (ONet). Its five points in a face are not used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)

    def forward(self, pixels_N3SS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shifts [N, 4] and probabilities [N]."""
        x = F.max_pool2d(self.prelu1(self.conv1(pixels_N3SS)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu5(self.dense5(_to_dense(self.prelu4(self.conv4(x)))))
        return self.dense6_2(x), self.dense6_1(x).softmax(1)[:, 1]


class FaceFinder(nn.Module):
    """The three networks together."""

    def __init__(self) -> None:
        super().__init__()
        self.proposals, self.refinement, self.output = Proposals(), Refinement(), Output()

    @torch.no_grad()
    def find(self, image_3HW: torch.Tensor) -> list[Face]:
        """The faces of an image, uint8 RGB, from left to right."""
        pixels_13HW = _shrink(image_3HW[None].float())
        height_px, width_px = pixels_13HW.shape[2:]
        boxes_N4 = self._propose(pixels_13HW)
        for stage, side, least in ((self.refinement, 24, _REFINED), (self.output, 48, _CERTAIN)):
            is_last = stage is self.output
            boxes_N4, crops_N3SS = _crop(pixels_13HW, boxes_N4, side)
            if not len(boxes_N4):
                return []
            shifts_N4, chances_N = stage(_normalize(crops_N3SS))
            sure = chances_N > least
            boxes_N4, chances_N = _shift(boxes_N4[sure], shifts_N4[sure], 1), chances_N[sure]
            kept = _suppress(boxes_N4, chances_N, 0.7, of_smaller=is_last)
            boxes_N4, chances_N = boxes_N4[kept], chances_N[kept]
            if not is_last:
                boxes_N4 = _make_square(boxes_N4)
        size_4 = boxes_N4.new_tensor([width_px, height_px, width_px, height_px])
        found = [
            Face(tuple(box), chance)
            for box, chance in zip((boxes_N4 / size_4).clamp(0, 1).tolist(), chances_N.tolist(), strict=True)
        ]
        return sorted(found, key=lambda face: face.box)

    def _propose(self, pixels_13HW: torch.Tensor) -> torch.Tensor:
        """Square boxes [N, 4] in which faces may be."""
        height, width = pixels_13HW.shape[2:]
        least_px = max(_LEAST_PX, _SMALLEST_PART * max(height, width))
        scale, boxes, chances = _CELL_PX / least_px, [], []
        while min(height, width) * scale >= _CELL_PX:
            size = (int(height * scale + 1), int(width * scale + 1))
            shifts_4HW, chances_HW = self.proposals(_normalize(F.interpolate(pixels_13HW, size, mode="area")))
            rows, columns = (chances_HW >= _PROPOSED).nonzero(as_tuple=True)
            corner_N2 = torch.stack([columns, rows], 1) * _STRIDE
            box_N4 = torch.cat([(corner_N2 + 1) / scale, (corner_N2 + _CELL_PX) / scale], 1).floor()
            chance_N = chances_HW[rows, columns]
            kept = _suppress(box_N4, chance_N, 0.5)
            boxes.append(_shift(box_N4[kept], shifts_4HW[:, rows, columns].T[kept], 0))
            chances.append(chance_N[kept])
            scale *= _FACTOR
        if not boxes:
            return pixels_13HW.new_zeros(0, 4)
        boxes_N4, chances_N = torch.cat(boxes), torch.cat(chances)
        return _make_square(boxes_N4[_suppress(boxes_N4, chances_N, 0.7)])


def _shrink(pixels_13HW: torch.Tensor) -> torch.Tensor:
    height, width = pixels_13HW.shape[2:]
    scale = _LONGEST_PX / max(height, width)
    if scale >= 1:
        return pixels_13HW
    return F.interpolate(pixels_13HW, (max(1, round(height * scale)), max(1, round(width * scale))), mode="area")


def _normalize(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels - 127.5) / 128


def _crop(pixels_13HW: torch.Tensor, boxes_N4: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The boxes that have something of the image, and what is in them, scaled to ``side``."""
    height, width = pixels_13HW.shape[2:]
    kept, crops = [], []
    for i, (left, top, right, bottom) in enumerate(boxes_N4.trunc().int().tolist()):
        left, top, right, bottom = max(left, 1) - 1, max(top, 1) - 1, min(right, width), min(bottom, height)
        if right > left and bottom > top:
            kept.append(i)
            crops.append(F.interpolate(pixels_13HW[..., top:bottom, left:right], (side, side), mode="area"))
    return boxes_N4[kept], torch.cat(crops) if crops else pixels_13HW.new_zeros(0, 3, side, side)


def _shift(boxes_N4: torch.Tensor, shifts_N4: torch.Tensor, rim: int) -> torch.Tensor:
    """Boxes moved by parts of their width and height, which are counted with a rim of so many px."""
    size_N2 = boxes_N4[:, 2:] - boxes_N4[:, :2] + rim
    return boxes_N4 + shifts_N4 * size_N2.repeat(1, 2)


def _make_square(boxes_N4: torch.Tensor) -> torch.Tensor:
    """Squares around the boxes' middles, with their longer sides."""
    middle_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / 2
    half_N1 = (boxes_N4[:, 2:] - boxes_N4[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([middle_N2 - half_N1, middle_N2 + half_N1], 1)


def _suppress(boxes_N4: torch.Tensor, chances_N: torch.Tensor, most: float, *, of_smaller: bool = False) -> list[int]:
    """Indices of the likeliest boxes, each of which shares at most ``most`` with a likelier one.

    What is shared counts as a part of the two boxes' union or, ``of_smaller``, of the smaller one.
    """
    order = chances_N.argsort(descending=True)[:_MOST_PROPOSALS]
    boxes_N4 = boxes_N4[order]
    area_N = (boxes_N4[:, 2:] - boxes_N4[:, :2]).prod(1)
    shared_NN2 = torch.minimum(boxes_N4[:, None, 2:], boxes_N4[None, :, 2:]) - torch.maximum(
        boxes_N4[:, None, :2], boxes_N4[None, :, :2]
    )
    shared_NN = shared_NN2.clamp(min=0).prod(2)
    whole_NN = torch.minimum(area_N[:, None], area_N) if of_smaller else area_N[:, None] + area_N - shared_NN
    is_near_NN = (shared_NN / whole_NN.clamp(min=1e-6) > most).tolist()
    kept: list[int] = []
    for i in range(len(order)):
        if not any(is_near_NN[i][j] for j in kept):
            kept.append(i)
    return order[kept].tolist()
