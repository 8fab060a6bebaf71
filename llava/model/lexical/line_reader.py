"""Reads the lines of text on an image: finds them, cuts each out upright and reads the crops in batches.

``LineReader`` is what the rest of the tower uses. It gives the same lines for the same image whatever else is going on,
and none for an image on which it is sure of none.

Shapes: H and W in pixels, N crops, T steps, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llava.model.lexical.capital_i import mend_capitals
from llava.model.lexical.cell_rules import part_at_rules
from llava.model.lexical.characters import read_steps
from llava.model.lexical.colour_names import COLOURS
from llava.model.lexical.crop_reader import CROP_HEIGHT, WIDTH_STEP, CropReader, colour_features, normalize
from llava.model.lexical.faint_spaces import add_faint_spaces
from llava.model.lexical.frozen_norms import fuse
from llava.model.lexical.leaders import part_at_leaders
from llava.model.lexical.line_finder import LineFinder, TextLine, make_levels
from llava.model.lexical.missed_cells import find_missed_cells
from llava.model.lexical.page_level import find_drops
from llava.model.lexical.text_prior import TextPrior

# A crop reaches this many heights of a capital above the baseline, below it, and beyond the line's ends. Each line is
# read from both crops, as its height is only estimated, and the surer reading counts.
REACHES = ((1.2, 0.42, 0.35), (1.05, 0.34, 0.3))
# A crop is cut from the level where its capitals are at least this high, so that it is hardly ever enlarged needlessly.
_CAPITAL_IN_LEVEL_PX = 11.0
_MAX_CROP_WIDTH = 2400
_MAX_PIXELS = 6_000_000
_PIXELS_A_BATCH = 6000
# A line is dropped whose characters are on average less sure than this; one or two characters must be surer.
_LEAST_SURE, _LEAST_SURE_SHORT = 0.65, 0.85
# Where a table has a cell, a figure is likely.
_LEAST_SURE_FIGURE = 0.75
# A reading with more characters counts only if it is as sure as this; an edge of a sign is read as one of these.
_LEAST_SURE_LONGER, _LIKE_EDGES = 0.85, frozenset("iIlLjJ1tf")
# A line that the finder is less sure of than this, such as a single figure, counts only where another line of about its
# height was clearly found.
_CLEARLY_FOUND, _HEIGHTS_ALIKE = 0.6, 1.25
# An ornament's crop is at least so wide without its margins and repeats itself so often, which is so much alike, and
# less so in between. Of drawn ornaments all were above .95, of lines of text none was above .8.
_LEAST_ORNAMENT_PX, _LEAST_REPEATS, _ALIKE, _UNLIKE, _MARGIN_PX = 96, 3, 0.9, 0.5, 6


class Line(NamedTuple):
    """A line of text that was read.

    Attributes:
        box: left, top, right and bottom in pixels of the image.
        ink, ground: names of ``colour_names.COLOURS``.
        score: how sure the reading is, 0 to 1.
        drop: how many pixels lower it stands than on a level page, where its row would be level.
    """

    text: str
    box: tuple[float, float, float, float]
    ink: str
    ground: str
    score: float
    drop: float = 0.0


class Reading(NamedTuple):
    """A crop's log probabilities [T, K], the names of its colours, how sure its characters are, 0 to 1, and both."""

    scores_TK: npt.NDArray[np.float32]
    ink: str
    ground: str
    sure: float
    text: str
    crop_3HW: Tensor


class LineReader(nn.Module):
    """The finder, the reader of crops and the prior of texts. Call ``fuse_norms`` once the weights are in place."""

    def __init__(self) -> None:
        super().__init__()
        self.finder = LineFinder()
        self.crops = CropReader()
        self.prior = TextPrior()
        self.eval()

    @torch.inference_mode()
    def read(self, image_3HW: Tensor) -> list[Line]:
        """The lines on a uint8 image [3, H, W], or grey [1, H, W] or [H, W]: rows from the top, each from the left.

        Raises ValueError for anything else.
        """
        levels, scale = _open(image_3HW)
        planes = levels[0].numpy()
        found = part_at_leaders(planes, part_at_rules(planes, self.finder.find(levels)))
        lines: list[tuple[TextLine, Line]] = []
        for line, (text, (_, ink, ground, sure, *_)) in zip(found, self._read_lines(levels, found), strict=True):
            if text and sure >= (_LEAST_SURE if len(text) > 2 else _LEAST_SURE_SHORT):
                box = _box(line, scale, image_3HW.shape[-1], image_3HW.shape[-2])
                lines.append((line, Line(text, box, ink, ground, sure)))
        clear = [line.capital for line, _ in lines if line.score >= _CLEARLY_FOUND]
        kept = {line: read for line, read in lines if any(_is_alike(line.capital, other) for other in clear)}
        missed = self._read_missed_cells(levels, scale, list(kept))
        every = kept | missed
        drops = dict(zip(every, find_drops([*every]), strict=True))
        return [every[line]._replace(drop=scale * drops[line]) for line in sort_lines([*every], drops)]

    def _read_missed_cells(self, levels: list[Tensor], scale: float, lines: list[TextLine]) -> dict[TextLine, Line]:
        """The cells of a table that the finder missed, read where they stand."""
        height, width = levels[0].shape[1:]
        boxes = find_missed_cells(levels[0].numpy(), [_box(line, 1.0, width, height) for line in lines])
        if not boxes:
            return {}
        cells = [TextLine(left, right, bottom, 0.0, bottom - top, 1.0) for left, top, right, bottom in boxes]
        read: dict[TextLine, Line] = {}
        for cell, (text, (_, ink, ground, sure, *_)) in zip(cells, self._read_lines(levels, cells), strict=True):
            if any(map(str.isalnum, text)) and sure >= (_LEAST_SURE_FIGURE if text.isdigit() else _LEAST_SURE_SHORT):
                top, bottom = scale * (cell.baseline - cell.capital), scale * cell.baseline
                read[cell] = Line(text, (scale * cell.left, top, scale * cell.right, bottom), ink, ground, sure)
        return read

    def _read_lines(self, levels: list[Tensor], lines: list[TextLine]) -> list[tuple[str, Reading]]:
        """The text of each line, "" for an ornament, and the reading that it comes from."""
        crops = [cut_crop(levels, line, reach) for line in lines for reach in REACHES]
        readings = self._read_crops(crops)
        chosen = [choose(readings[i : i + len(REACHES)]) for i in range(0, len(readings), len(REACHES))]
        texts = [
            mend_capitals(add_faint_spaces(text, reading.scores_TK, reading.crop_3HW.cpu().numpy()))
            for text, reading in zip(self.prior.read([one.scores_TK for one in chosen]), chosen, strict=True)
        ]
        wide = crops[:: len(REACHES)]
        texts = ["" if text and is_ornament(crop) else text for text, crop in zip(texts, wide, strict=True)]
        return list(zip(texts, chosen, strict=True))

    def _read_crops(self, crops: list[Tensor]) -> list[Reading]:
        """The reading of each crop [3, 24, W]."""
        results: dict[int, Reading] = {}
        for chosen in _make_batches([crop.shape[2] for crop in crops]):
            batch = [crops[i] for i in chosen]
            width = -(-max(crop.shape[2] for crop in batch) // WIDTH_STEP) * WIDTH_STEP
            pixels = torch.stack([F.pad(normalize(crop), (0, width - crop.shape[2])) for crop in batch])
            scores_TNK = self.crops(pixels.contiguous(memory_format=torch.channels_last))
            names = self.crops.name_colours(torch.stack([colour_features(crop) for crop in batch])).argmax(-1).tolist()
            for column, i in enumerate(chosen):
                steps = count_steps(crops[i].shape[2], width)
                scores_TK = scores_TNK[:steps, column].cpu().numpy()
                ink, ground = (COLOURS[name] for name in names[column])
                text, sure = read_steps(scores_TK)
                results[i] = Reading(scores_TK, ink, ground, sure, text, crops[i])
        return [results[i] for i in range(len(crops))]

    def fuse_norms(self) -> LineReader:
        """Merges each batch normalization into its convolution, for inference; the module itself is returned."""
        for module in self.modules():
            for conv, norm in (("conv", "norm"), ("fold", "fold_norm")):
                if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                    setattr(module, conv, fuse(getattr(module, conv), getattr(module, norm)))
                    setattr(module, norm, nn.Identity())
        if not next(self.parameters()).is_meta:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self


def choose(readings: Sequence[Reading]) -> Reading:
    """The surest of a line's readings, or one that has all of its text and letters or digits beside it.

    What a crop cuts off at an end makes the rest no less sure: "arage" is surer than "Garage".
    """
    best = max(readings, key=lambda reading: reading.sure)
    for other in readings:
        before, found, after = other.text.lower().rpartition(best.text.lower()) if best.text else ("",) * 3
        has_more = (before + after).isalnum() and not _LIKE_EDGES.issuperset(before + after)
        if found and has_more and other.sure >= _LEAST_SURE_LONGER:
            best = other
    return best


def is_ornament(crop_3HW: Tensor) -> bool:
    """Whether a line's crop shows the same again and again, as dashes, dots, waves and rows of stars do.

    Shifted by a part of its length, it is then as it was (autocorrelation); a text never is, "Anna" the most of all.
    """
    grey_HW = crop_3HW.float().mean(0)
    grey_HW = (grey_HW - grey_HW.median())[:, _MARGIN_PX:-_MARGIN_PX]
    width = grey_HW.shape[1]
    if width < _LEAST_ORNAMENT_PX:
        return False
    spectrum = torch.fft.rfft(grey_HW, 2 * width)
    alike = torch.fft.irfft(spectrum.abs().square().sum(0), 2 * width)[:width]
    power = F.pad(grey_HW.square().sum(0).cumsum(0), (1, 0))
    shift = torch.arange(width)
    alike = alike / ((power[width - shift] * (power[width] - power[shift])).sqrt() + 1e-3)
    # Shifted by a pixel or two, everything is nearly as it was.
    apart = (alike < _UNLIKE).nonzero()
    first = int(apart[0]) if len(apart) else width
    return first < width // _LEAST_REPEATS and float(alike[first : width // _LEAST_REPEATS].max()) > _ALIKE


def count_steps(crop_width: int, batch_width: int) -> int:
    """The steps that a crop of a batch has: two for every four of its pixels."""
    return min(batch_width, -(-crop_width // 4) * 4) // 2


def sort_lines(lines: list[TextLine], drops: Mapping[TextLine, float] | None = None) -> list[TextLine]:
    """The lines in reading order: rows from top to bottom, each from left to right, also where the page is turned.

    ``drops``: of each line, where ``find_drops`` was asked before.
    """
    if not lines:
        return []
    by_length = sorted(lines, key=lambda line: line.right - line.left)
    slope = by_length[len(by_length) // 2].slope if len(lines) < 4 else _weigh_slopes(lines)
    drops = dict(zip(lines, find_drops(lines), strict=True)) if drops is None else drops
    is_levelled = any(drops.values())

    def place(line: TextLine) -> float:
        x = (line.left + line.right) / 2
        middle = line.baseline + line.slope * (x - line.left) - line.capital / 2
        return middle - (drops[line] if is_levelled else slope * x)

    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=place):
        before = rows[-1][-1] if rows else None
        if before is not None and place(line) - place(before) < 0.5 * min(line.capital, before.capital):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.left)]


def _weigh_slopes(lines: list[TextLine]) -> float:
    """The slope of most of the text: the median over the lines, each counted by its length."""
    ordered = sorted(lines, key=lambda line: line.slope)
    half = sum(line.right - line.left for line in lines) / 2
    for line in ordered:
        half -= line.right - line.left
        if half <= 0:
            return line.slope
    return ordered[-1].slope


def _open(image: Tensor) -> tuple[list[Tensor], float]:
    """The levels of an image in three channels, and how many of its pixels one of the first level has."""
    if image.dtype != torch.uint8 or image.ndim not in (2, 3) or image.numel() == 0:
        raise ValueError(
            f"An image must be uint8 [3, H, W] or [H, W] and not empty, not {image.dtype} {list(image.shape)}."
        )
    image = image[None] if image.ndim == 2 else image
    if image.shape[0] not in (1, 3):
        raise ValueError(f"An image must have 1 or 3 channels, not {image.shape[0]}.")
    image, scale = image.expand(3, -1, -1).float(), 1.0
    while image.shape[1] * image.shape[2] > _MAX_PIXELS and min(image.shape[1:]) > 1:
        image, scale = F.avg_pool2d(image[None], 2)[0], scale * 2
    return make_levels(image), scale


def cut_crop(levels: list[Tensor], line: TextLine, reach: tuple[float, float, float]) -> Tensor:
    """The crop [3, 24, W] of a line, made level, from the smallest level that has enough pixels for it."""
    depth = max(0, min(len(levels) - 1, int(math.log2(max(line.capital, 1e-3) / _CAPITAL_IN_LEVEL_PX))))
    level, scale = levels[depth], 2.0**depth
    above, below, beside = reach
    step = (above + below) * line.capital / CROP_HEIGHT
    length = line.right - line.left + 2 * beside * line.capital
    width = max(8, min(_MAX_CROP_WIDTH, round(length / step)))
    # Twice as many samples as pixels, averaged, so that a level somewhat too fine makes no false patterns.
    x = line.left - beside * line.capital + (torch.arange(2 * width) + 0.5) * (length / (2 * width))
    y = (torch.arange(2 * CROP_HEIGHT) + 0.5) * (step / 2) - above * line.capital
    baseline = line.baseline + line.slope * (x - line.left)
    grid_x = (x / scale / level.shape[2] * 2 - 1).expand(2 * CROP_HEIGHT, -1)
    grid_y = (y[:, None] + baseline[None]) / scale / level.shape[1] * 2 - 1
    grid = torch.stack((grid_x, grid_y), dim=-1)[None]
    crop = F.grid_sample(level[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(crop, 2)[0]


def _make_batches(widths: list[int]) -> list[list[int]]:
    """Numbers of crops of about the same width, for batches of bounded size."""
    batches: list[list[int]] = []
    for i in sorted(range(len(widths)), key=widths.__getitem__):
        if (
            batches
            and (len(batches[-1]) + 1) * widths[i] <= _PIXELS_A_BATCH
            and widths[i] <= 1.3 * widths[batches[-1][0]] + WIDTH_STEP
        ):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _is_alike(a: float, b: float) -> bool:
    return a < b * _HEIGHTS_ALIKE and b < a * _HEIGHTS_ALIKE


def _box(line: TextLine, scale: float, width: int, height: int) -> tuple[float, float, float, float]:
    """A line's box on the image: capitals and descenders, within the image."""
    ends = (line.baseline, line.baseline + line.slope * (line.right - line.left))
    top, bottom = min(ends) - 1.05 * line.capital, max(ends) + 0.3 * line.capital
    return (
        min(max(line.left * scale, 0.0), float(width)),
        min(max(top * scale, 0.0), float(height)),
        min(max(line.right * scale, 0.0), float(width)),
        min(max(bottom * scale, 0.0), float(height)),
    )
