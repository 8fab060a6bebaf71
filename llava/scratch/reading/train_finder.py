"""Fits the finder of lines to parts of drawn pages: ``python -m llava.scratch.reading.train_finder --help``.

Pages are drawn, cut and trained on in one thread; the run is resumable like ``train_reader``'s.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from llava.model.lexical.line_finder import (
    CORE_HIGH,
    CORE_INSET,
    CORE_LOW,
    STRIDE,
    LineFinder,
    measure_targets,
    scale_pixels,
)
from llava.scratch.reading.chart_images import draw_chart
from llava.scratch.reading.line_images import ABOVE, BELOW
from llava.scratch.reading.line_texts import LineTexts
from llava.scratch.reading.page import Mark, Sources, scale_marks
from llava.scratch.reading.page_kinds import draw_page
from llava.scratch.reading.reading_fonts import FaceBox
from llava.scratch.reading.training_state import resume, save

_WIDTH, _HEIGHT = 320, 224
# Capitals of these heights in px must be found, and of those outside the second pair must not; between it is left open.
_TAUGHT, _LEFT_OPEN = (5.0, 19.0), (3.5, 25.0)
_BATCH, _KEPT, _PARTS_A_PAGE = 4, 2400, 4
# The weights that are used are a running average over about this many steps.
_AVERAGE_DECAY = 1 - 1 / 80


class Part(NamedTuple):
    """A part of a page at some scale, with what is to be found on it.

    ``pixels`` [H, W, 3]; ``core`` [H/2, W/2]: 1 core, 0 not, 2 left open; ``sizes`` [2, H/4, W/4]: the baseline's
    distance below the pixel and the capitals' height in px, 0 where there is no line.
    """

    pixels: npt.NDArray[np.uint8]
    core: npt.NDArray[np.uint8]
    sizes: npt.NDArray[np.float32]


def main() -> None:
    """Trains for the minutes given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where checkpoint and log go")
    parser.add_argument("--fonts", nargs="+", required=True, help="folders with fonts")
    parser.add_argument("--words", type=Path, required=True, help="Debian's word list, american-english")
    parser.add_argument(
        "--cutouts", type=Path, required=True, help="a file with a path of a cutout without text a line"
    )
    parser.add_argument("--charts", type=int, default=120, help="how many charts matplotlib draws beforehand")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--last-rate", type=float, default=2e-5)
    flags = parser.parse_args()
    torch.set_num_threads(1)
    train(flags)


def open_sources(flags: argparse.Namespace, rng: random.Random) -> Sources:
    """The fonts, texts, cutouts and charts that training may use."""
    sources = Sources(FaceBox(tuple(flags.fonts), False), LineTexts(flags.words, False))
    sources.cutouts = tuple(map(Path, flags.cutouts.read_text().split("\n")[:-1]))
    sources.charts = [draw_chart(rng, sources.texts) for _ in range(flags.charts)]
    return sources


def train(flags: argparse.Namespace) -> None:
    """Trains, logs and saves until the minutes are over."""
    rng = random.Random(time.time_ns())
    sources = open_sources(flags, rng)
    network = LineFinder()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=flags.rate, weight_decay=0.01, betas=(0.9, 0.99))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE_DECAY), use_buffers=True)
    path = flags.folder / "line_finder.pt"
    step = resume(path, network, average, optimizer)
    kept: list[Part] = []
    start, shown, losses = time.time(), time.time(), []
    while (share := (time.time() - start) / (60 * flags.minutes)) < 1:
        while len(kept) < 64 or rng.random() < 0.25:
            kept = kept[-_KEPT:] + draw_parts(rng, sources)
        rate = flags.last_rate + (flags.rate - flags.last_rate) * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 50)
        losses.append(_update(network, optimizer, rng.choices(kept, k=_BATCH)))
        average.update_parameters(network)
        step += 1
        if time.time() - shown > 60:
            save(path, network, average, optimizer, step)
            entropy, overlap, error = np.mean(losses, axis=0)
            print(
                f"{(time.time() - start) / 60:.1f} min  step {step}  core {entropy:.3f}  overlap {overlap:.3f}  "
                f"baseline and capital {error:.3f}  rate {rate:.1e}",
                flush=True,
            )
            shown, losses = time.time(), []
    save(path, network, average, optimizer, step)


def draw_parts(rng: random.Random, sources: Sources) -> list[Part]:
    """Some parts of a new page, at scales where its lines are about as high as the finder knows them."""
    image, marks = draw_page(rng, sources)
    parts = []
    for _ in range(_PARTS_A_PAGE if marks else 2):
        mark = rng.choice(marks) if marks and rng.random() < 0.8 else None
        scale = (
            math.exp(rng.uniform(math.log(4.5), math.log(20))) / mark.capital
            if mark
            else math.exp(rng.uniform(-1.8, 0.2))
        )
        scale = max(min(scale, 1.6), 0.03)
        x, y = (
            rng.uniform(0, max(1.0, image.width * scale - _WIDTH)),
            rng.uniform(0, max(1.0, image.height * scale - _HEIGHT)),
        )
        if mark:
            x = min(max(x, mark.left * scale - _WIDTH * 0.8), mark.right * scale)
            y = min(max(y, mark.baseline * scale - _HEIGHT * 0.9), mark.baseline * scale - mark.capital * scale)
        parts.append(cut_part(rng, image, marks, scale, round(max(0, x)), round(max(0, y))))
    return parts


def cut_part(rng: random.Random, image: Image.Image, marks: list[Mark], scale: float, x: int, y: int) -> Part:
    """The part at (x, y) of the image brought to a scale; beyond the image its edge goes on, as the finder pads."""
    box = (x / scale, y / scale, min(image.width, (x + _WIDTH) / scale), min(image.height, (y + _HEIGHT) / scale))
    width, height = max(1, round((box[2] - box[0]) * scale)), max(1, round((box[3] - box[1]) * scale))
    how = (
        Image.Resampling.BILINEAR
        if rng.random() < 0.5
        else Image.Resampling.BOX
        if scale < 1
        else Image.Resampling.BICUBIC
    )
    pixels = np.asarray(image.resize((min(width, _WIDTH), min(height, _HEIGHT)), how, box=box))
    pixels = np.pad(pixels, ((0, _HEIGHT - pixels.shape[0]), (0, _WIDTH - pixels.shape[1]), (0, 0)), mode="edge")
    core, sizes = draw_targets(scale_marks(marks, scale, x, y))
    return Part(pixels, core, sizes)


def draw_targets(marks: list[Mark]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """``core`` and ``sizes`` of a part with these lines."""
    core, number = Image.new("L", (_WIDTH, _HEIGHT)), Image.new("I", (_WIDTH, _HEIGHT))
    open_pen, pen = ImageDraw.Draw(core), ImageDraw.Draw(number)
    for m in marks:
        if m.text and _TAUGHT[0] <= m.capital <= _TAUGHT[1]:
            continue
        if _LEFT_OPEN[0] <= m.capital <= _LEFT_OPEN[1]:
            open_pen.polygon(_outline(m, -BELOW, ABOVE, 0), fill=2)
    for i, m in enumerate(marks, 1):
        if m.text and _TAUGHT[0] <= m.capital <= _TAUGHT[1]:
            # An edge of half a pixel, as polygons include their edge.
            edge = 0.5 / m.capital
            outline = _outline(
                m, CORE_LOW + edge, CORE_HIGH - edge, min(CORE_INSET * m.capital, (m.right - m.left) / 4)
            )
            open_pen.polygon(outline, fill=1)
            pen.polygon(outline, fill=i)
    full = np.asarray(core)
    halves = full.reshape(_HEIGHT // 2, 2, _WIDTH // 2, 2)
    target = np.where((halves == 1).sum((1, 3)) >= 2, 1, np.where((halves == 2).any((1, 3)), 2, 0)).astype(np.uint8)
    quarters = np.asarray(number).reshape(_HEIGHT // STRIDE, STRIDE, _WIDTH // STRIDE, STRIDE).max((1, 3))
    sizes = np.zeros((2, *quarters.shape), dtype=np.float32)
    rows, columns = np.nonzero(quarters)
    if len(rows):
        values = np.array([(m.baseline, m.left, m.slope, m.capital) for m in marks])[quarters[rows, columns] - 1]
        x, y = columns * STRIDE + STRIDE / 2, rows * STRIDE + STRIDE / 2
        sizes[0, rows, columns] = values[:, 0] + values[:, 2] * (x - values[:, 1]) - y
        sizes[1, rows, columns] = values[:, 3]
    return target, sizes


def _outline(m: Mark, low: float, high: float, inset: float) -> list[tuple[float, float]]:
    """A line's outline between two heights above its baseline, in capitals, ``inset`` px shorter at both ends."""
    left, right = m.left + inset, m.right - inset
    y0, y1 = m.baseline + m.slope * inset, m.baseline + m.slope * (right - m.left)
    # Pillow's pixel (0, 0) has its middle at 0.
    points = (
        (left, y0 - high * m.capital),
        (right, y1 - high * m.capital),
        (right, y1 - low * m.capital),
        (left, y0 - low * m.capital),
    )
    return [(x - 0.5, y - 0.5) for x, y in points]


def _update(network: LineFinder, optimizer: torch.optim.Optimizer, parts: list[Part]) -> tuple[float, float, float]:
    pixels = torch.from_numpy(np.stack([part.pixels for part in parts])).permute(0, 3, 1, 2)
    core = torch.from_numpy(np.stack([part.core for part in parts]))[:, None]
    sizes = torch.from_numpy(np.stack([part.sizes for part in parts]))
    maps = network(scale_pixels(pixels).contiguous(memory_format=torch.channels_last))
    scores = F.pixel_shuffle(maps[:, :4], 2)
    losses = measure_loss(scores, core, maps[:, 4:], sizes)
    loss = losses[0] + 0.5 * losses[1] + losses[2]
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 3.0)
    optimizer.step()
    return tuple(float(value.detach()) for value in losses)  # type: ignore[return-value]


def measure_loss(scores: Tensor, core: Tensor, geometry: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross entropy of the core, one minus its overlap (Dice), and the error of baseline and capital on lines."""
    is_taught = (core != 2).float()
    target = (core == 1).float()
    entropy = F.binary_cross_entropy_with_logits(scores, target, reduction="none") * is_taught
    # Hard places count in full, easy ground little (as a focal loss does).
    hardness = (torch.sigmoid(scores) - target).abs().detach() + 0.1
    entropy = (entropy * hardness * (1 + target)).sum() / (is_taught.sum() * 0.1 + target.sum())
    chance = torch.sigmoid(scores) * is_taught
    overlap = 1 - (2 * (chance * target).sum() + 1) / (chance.sum() + target.sum() + 1)
    wanted = measure_targets(sizes[:, 0], sizes[:, 1].clamp(min=1)).transpose(0, 1)
    there = (sizes[:, 1:] > 0).float()
    error = F.smooth_l1_loss(geometry, wanted, reduction="none", beta=0.1) * there
    return entropy, overlap, error.sum() / (there.sum() + 1) * 2


if __name__ == "__main__":
    main()
