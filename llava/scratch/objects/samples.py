"""Training images of the object finder and what the net should say of them, number by number.

Images are drawn by llava.synth, by this folder's own looks and by matplotlib (a pool of files), or hold nothing to
find. All go through the finder's own resize, then a window of ``WINDOW_PX`` is cut.
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from llava.model.lexical.object_finder import COLORS, KINDS, STRIDE, choose_size
from llava.scratch.objects.grounds import add_cliparts, add_letters, add_table, draw_blobs, draw_ground
from llava.scratch.objects.looks import Mark, draw_looks
from llava.synth.bars import BAR_KINDS
from llava.synth.charts import draw_chart
from llava.synth.drawing import Drawing
from llava.synth.scene import Kind
from llava.synth.scenes import draw_page
from llava.synth.shapes import draw_shapes
from llava.synth.suite import SIZES
from llava.synth.text_page import draw_text_page
from llava.synth.texts import draw_form, draw_lines, draw_signs, draw_words

WINDOW_PX = 256
_CELLS = WINDOW_PX // STRIDE
# Shapes below 7 px, and these below so many, are not learnt.
_LEAST_PX = {"bar": 1.3, "wedge": 1.3, "key": 3.0}
# How often each source is drawn.
_MIX = (("synth-shapes", 30), ("looks", 18), ("synth-charts", 15), ("plots", 20), ("signs", 4), ("page", 2),
        ("text", 5), ("clipart", 8), ("photo", 3), ("letters", 3), ("table", 3))  # fmt: skip
_TEXTS: tuple[Kind, ...] = (draw_text_page, draw_lines, draw_form, draw_words)


@dataclass(frozen=True)
class Sources:
    """Folders of the pools: matplotlib plots (see ``plots``) and cliparts."""

    plots: str
    cliparts: str


def _size(rng: random.Random) -> tuple[int, int]:
    """Width and height at which an image is drawn: real ones, from 100 to 900 px."""
    if rng.random() < 0.35:
        narrow, wide, low, high = rng.choice(SIZES)
        return rng.randint(narrow, wide), rng.randint(low, high)
    side, aspect = 100 * 9 ** rng.random(), rng.choice((1.0, 1.33, 1.33, 1.5, 0.75, rng.uniform(0.45, 2.2)))
    return max(90, round(side)), max(90, round(side / aspect))


def _read_drawing(drawing: Drawing) -> tuple[Image.Image, list[Mark]]:
    """A synth drawing with its marks. Boxes of its shapes are squares about the centre, which is near enough."""
    names = {"plate": "sign"}
    marks = [Mark(names.get(o.shape, o.shape), o.color, o.left, o.top, o.right, o.bottom)
             for o in (*drawing.objects, *drawing.keys)]  # fmt: skip
    return drawing.image, [_tighten(mark) for mark in marks]


def _tighten(mark: Mark) -> Mark:
    """The real extent of a shape whose mark is its circle's square. Source: ``Drawing.shape``."""
    x, y, r = (mark.left + mark.right) / 2, (mark.top + mark.bottom) / 2, (mark.right - mark.left) / 2
    extents = {"square": (0.87, 0.87, 0.87, 0.87), "diamond": (0.72, 1.0, 0.72, 1.0),
               "triangle": (0.95, 0.95, 0.95, 0.7),
               "hexagon": (0.97, 0.93, 0.97, 0.93), "star": (1.05, 1.08, 1.05, 0.9)}  # fmt: skip
    if mark.kind not in extents:
        return mark
    a, b, c, d = extents[mark.kind]
    return Mark(mark.kind, mark.color, x - a * r, y - b * r, x + c * r, y + d * r)


@lru_cache(maxsize=4)
def _list_plots(folder: str) -> tuple[Path, ...]:
    return tuple(sorted(Path(folder).glob("*.json"), key=lambda path: int(path.stem)))


def read_plot(path: Path) -> tuple[Image.Image, list[Mark]]:
    """A plot of the pool, with its marks."""
    with Image.open(path.with_suffix(".png")) as file:
        image = file.convert("RGB")
    marks = [Mark(o["kind"], o["color"], *o["box"]) for o in json.loads(path.read_text())["marks"]]
    return image, [m for m in marks if m.right - m.left > 0.3 and m.bottom - m.top > 0.3]


def _draw_synth(rng: random.Random, kind: str) -> tuple[Image.Image, list[Mark]]:
    width, height = _size(rng)
    if kind == "synth-charts":
        name = rng.choice(("chart", "chart", *BAR_KINDS))
        width, height = max(150, width), max(130, height)
        if name != "chart":
            width, height = min(width, 520), min(height, 420)
        scene = (BAR_KINDS.get(name) or draw_chart)(rng, width, height, False)
    elif kind == "text":
        width, height = min(width, 420), min(height, 420)
        scene = rng.choice(_TEXTS)(rng, width, height, False)
    else:
        draw: Kind = {"synth-shapes": draw_shapes, "signs": draw_signs, "page": draw_page}[kind]
        if kind != "synth-shapes":
            width, height = min(width, 400), min(height, 400)
        scene = draw(rng, width, height, False)
    if kind == "synth-shapes" and rng.random() < 0.5:
        scene.drawing.spoil(0.7)
    return _read_drawing(scene.drawing)


def _draw_source(rng: random.Random, kind: str, sources: Sources) -> tuple[Image.Image, list[Mark]]:
    if kind == "plots":
        return read_plot(rng.choice(_list_plots(sources.plots)))
    width, height = _size(rng)
    if kind == "looks":
        side = min(1.0, 520 / max(width, height))
        width, height = max(90, round(width * side)), max(90, round(height * side))
        ground = draw_ground(rng, width, height)
        if rng.random() < 0.08:
            add_cliparts(rng, ground, sources.cliparts, 1)
        return draw_looks(rng, width, height, ground)
    if kind in ("clipart", "photo", "letters", "table"):
        side = min(1.0, 480 / max(width, height))
        width, height = max(90, round(width * side)), max(90, round(height * side))
        image = draw_blobs(rng, width, height) if kind == "photo" else draw_ground(rng, width, height, 0.6)
        if kind == "clipart":
            add_cliparts(rng, image, sources.cliparts, 3)
        elif kind == "letters":
            add_letters(rng, image)
        elif kind == "table":
            add_table(rng, image)
        return image, []
    return _draw_synth(rng, kind)


def _spoil(rng: random.Random, image: Image.Image) -> Image.Image:
    """Light, contrast, blur, noise and JPEG as they come with real images."""
    if rng.random() < 0.25:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.88, 1.08))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2) * max(image.size) / 400))
    if rng.random() < 0.15:
        noise = np.random.default_rng(rng.getrandbits(30)).normal(0, rng.uniform(2, 10), (image.height, image.width, 1))
        image = Image.fromarray((np.asarray(image, np.float32) + noise).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.25:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(30, 92))
        image = Image.open(buffer).convert("RGB")
    return image


def draw_image(index: int, sources: Sources, seed: str) -> tuple[Image.Image, list[Mark]]:
    """Image number ``index`` with its marks, before resizing; always the same."""
    rng = random.Random(f"{seed}:{index}")
    kind = rng.choices([k for k, _ in _MIX], [w for _, w in _MIX])[0]
    image, marks = _draw_source(rng, kind, sources)
    return _spoil(rng, image), marks


def draw_sample(index: int, sources: Sources, seed: str) -> tuple[Tensor, list[Mark]]:
    """A window uint8 [3, WINDOW_PX, WINDOW_PX] (gray where there is no image), and the marks in its pixels."""
    rng = random.Random(f"{seed}:window:{index}")
    image, marks = draw_image(index, sources, seed)
    whole = choose_size(image.height, image.width)
    zoom = rng.uniform(0.85, 1.08)
    if rng.random() < 0.5:  # all of the image
        zoom = min(zoom, WINDOW_PX / max(whole))
    size = (max(8, round(whole[0] * zoom)), max(8, round(whole[1] * zoom * rng.uniform(0.95, 1.05))))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    small = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)[0]
    y = rng.randint(0, max(0, size[0] - WINDOW_PX))
    x = rng.randint(0, max(0, size[1] - WINDOW_PX))
    part = small[:, y : y + WINDOW_PX, x : x + WINDOW_PX]
    window = torch.full((3, WINDOW_PX, WINDOW_PX), 128, dtype=torch.uint8)
    window[:, : part.shape[1], : part.shape[2]] = part
    across, down = size[1] / image.width, size[0] / image.height
    moved = [
        Mark(m.kind, m.color, m.left * across - x, m.top * down - y, m.right * across - x, m.bottom * down - y)
        for m in marks
    ]
    if rng.random() < 0.3 and not any(m.kind in ("bar", "key", "sign") for m in moved):
        window = window.flip(2)
        moved = [m._replace(left=WINDOW_PX - m.right, right=WINDOW_PX - m.left) for m in moved]
    return window, moved


class Targets(NamedTuple):
    """What the net should say of a window of h = w = 64 cells (or of B such windows, with B in front).

    Attributes:
        heat: 1 at centres and falling off around them.
        counts: 0 where what the net says of centres is not judged.
        kind, color: indices, -1 where there is none.
        reach: log of px to the left, top, right and bottom edge.
        weight: how much a cell counts for kind, colour and box; the cells of one object sum to about 1.
    """

    heat_hw: Tensor
    counts_hw: Tensor
    kind_hw: Tensor
    color_hw: Tensor
    reach_4hw: Tensor
    weight_hw: Tensor


def make_targets(marks: list[Mark]) -> Targets:
    """What the net should say of a window with these marks."""
    heat, weight = np.zeros((2, _CELLS, _CELLS), np.float32)
    counts = np.ones((_CELLS, _CELLS), np.float32)
    kind, color = np.full((2, _CELLS, _CELLS), -1, np.int64)
    reach = np.zeros((4, _CELLS, _CELLS), np.float32)
    nearness = np.zeros((_CELLS, _CELLS), np.float32)
    middles = (np.arange(_CELLS) + 0.5) * STRIDE
    for m in marks:
        x, y, width, height = (m.left + m.right) / 2, (m.top + m.bottom) / 2, m.right - m.left, m.bottom - m.top
        seen_x = min(m.right, WINDOW_PX) - max(m.left, 0)
        seen_y = min(m.bottom, WINDOW_PX) - max(m.top, 0)
        if seen_x <= 0 or seen_y <= 0:
            continue
        is_small = min(width, height) < _LEAST_PX.get(m.kind, 7.0)
        is_inside = 0 <= x < WINDOW_PX and 0 <= y < WINDOW_PX and seen_x * seen_y >= 0.75 * width * height
        if not is_inside or is_small:
            rows = slice(max(0, int(m.top // STRIDE)), int(m.bottom // STRIDE) + 1)
            counts[rows, max(0, int(m.left // STRIDE)) : int(m.right // STRIDE) + 1] = 0
            continue
        sigma_x, sigma_y = (min(max(side / STRIDE / 6, 0.45), 2.5) * STRIDE for side in (width, height))
        bell_x, bell_y = (np.exp(-((middles - at) ** 2) / (2 * s**2)) for at, s in ((x, sigma_x), (y, sigma_y)))
        bell = bell_y[:, None] * bell_x
        np.maximum(heat, bell, out=heat)
        place = int(y // STRIDE), int(x // STRIDE)
        heat[place] = counts[place] = 1.0
        near = (bell > 0.35) & (bell > nearness)
        near[place] = True
        nearness[near] = bell[near]
        weight[near] = bell[near] / bell[near].sum()
        kind[near] = KINDS.index(m.kind)
        color[near] = COLORS.index(m.color) if m.color else -1
        ends = (middles - m.left, middles[:, None] - m.top, m.right - middles, m.bottom - middles[:, None])
        for i, end in enumerate(ends):
            # Cells at the very edge of thin objects keep half a pixel.
            reach[i][near] = np.log(np.broadcast_to(np.maximum(end, 0.5), near.shape)[near])
    return Targets(*map(torch.from_numpy, (heat, counts, kind, color, reach, weight)))


def rate(num_images: int, sources: Sources) -> float:
    """Samples a second of CPU time."""
    import time

    start = time.thread_time()
    for i in range(num_images):
        make_targets(draw_sample(i, sources, "rate")[1])
    return num_images / max(1e-9, time.thread_time() - start)
