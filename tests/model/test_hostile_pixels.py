"""Images that look like charts to a part of the chart reader: mosaics, noise, gradients, narrow and tiny ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from llava.model.lexical import fill_boxes
from llava.model.lexical.fill_boxes import FillBox
from llava.model.lexical.flat_fills import find_fills
from llava.model.lexical.scene_text import read_scene
from llava.scratch.objects.chart_measures import make_canvas

Pixels = npt.NDArray[np.uint8]
PALETTE = np.array([[255, 255, 255], [200, 30, 30], [30, 30, 200], [20, 140, 60], [0, 0, 0]], dtype=np.uint8)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def to_canvas(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).contiguous()


def make_mosaic(cell: int, num_colours: int, width: int = 400, height: int = 300) -> Pixels:
    """Cells of a few colours in rows and columns."""
    cells = random().integers(0, num_colours, (-(-height // cell), -(-width // cell)))
    return PALETTE[cells].repeat(cell, 0).repeat(cell, 1)[:height, :width]


def ramp(width: int, height: int, step: int = 1) -> Pixels:
    values = (np.arange(width) * 255 // width // step * step).astype(np.uint8)
    return np.broadcast_to(values[None, :, None], (height, width, 3)).copy()


def speckle(share: float) -> Pixels:
    image = np.full((300, 400, 3), 255, dtype=np.uint8)
    image[random().random((300, 400)) < share] = (0, 0, 0)
    return image


HOSTILE: dict[str, Callable[[], Pixels]] = {
    "one pixel": lambda: PALETTE[[[1]]],
    "one row": lambda: PALETTE[random().integers(0, 5, (1, 900))],
    "one column": lambda: PALETTE[random().integers(0, 5, (900, 1))],
    "just large enough": lambda: PALETTE[random().integers(0, 2, (48, 48))],
    "one colour": lambda: np.full((300, 400, 3), 200, dtype=np.uint8),
    "gradient": lambda: ramp(400, 300),
    "gradient in steps": lambda: ramp(400, 300, 16),
    "noise": lambda: random().integers(0, 256, (300, 400, 3), dtype=np.uint8),
    "faint noise": lambda: (200 + 4 * random().standard_normal((300, 400, 3))).astype(np.uint8),
    "few specks": lambda: speckle(0.01),
    "many specks": lambda: speckle(0.2),
    **{f"cells of {cell} px": lambda cell=cell: make_mosaic(cell, 3) for cell in (2, 3, 5, 9, 20)},  # type: ignore[misc]
    "cells of five colours": lambda: make_mosaic(7, 5),
    "stripes": lambda: PALETTE[np.broadcast_to(np.arange(400) // 3 % 2, (300, 400))],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_chart_has_none_and_no_error(kind: str) -> None:
    for pixels in (HOSTILE[kind](), np.swapaxes(HOSTILE[kind](), 0, 1)):
        scene = read_scene(to_canvas(pixels), [], [], lambda _: [])
        assert scene.chart is None
        assert scene.lines == scene.objects == []


def gather_slowly(runs: Iterable[Sequence[int]]) -> list[FillBox]:
    """As ``_gather_columns``, comparing every run with all boxes of the column before."""
    found: list[list[int]] = []
    before: list[list[int]] = []
    now: list[list[int]] = []
    at = (-1, -1)
    for fill, x, top, bottom in runs:
        if (fill, x) != at:
            before, now = (now if at == (fill, x - 1) else []), []
            at = (fill, x)
        box = next((b for b in before if abs(b[2] - top) <= 1 and abs(b[4] - bottom) <= 1), None)
        if box is None:
            box = [fill, x, top, x + 1, bottom]
            found.append(box)
        box[3] = x + 1
        now.append(box)
    return [FillBox(*box) for box in found if box[3] - box[1] >= 2]


@pytest.mark.parametrize("seed", range(5))
def test_boxes_gathered_by_their_upper_edges_are_those_of_comparing_all(seed: int) -> None:
    rng = random(seed)
    runs = []
    for fill, x in itertools.product(range(2), range(60)):
        edges = np.cumsum(rng.choice((3, 3, 4, 5, 9), 24))
        runs += [(fill, x, int(top), int(bottom)) for top, bottom in zip(edges[::2], edges[1::2], strict=True)]
    gathered = fill_boxes._gather_columns(runs)
    assert len(gathered) > 20
    assert gathered == gather_slowly(runs)


def test_boxes_of_a_mosaic_are_compared_with_near_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    is_same = fill_boxes._is_same

    def count(*arguments: object) -> bool:
        nonlocal compared
        compared += 1
        return is_same(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fill_boxes, "_is_same", count)
    labels = np.zeros((400, 3000), dtype=np.int16)
    rows, columns = np.meshgrid(np.arange(400), np.arange(3000), indexing="ij")
    labels[(rows % 16 < 6) & (columns % 16 < 6)] = 1
    boxes = fill_boxes._find_boxes(labels, [0])
    assert len(boxes) == 25 * 188
    assert compared < 15 * len(boxes)


# ------------------------------------------------------------------------------------------------ photographs


def test_a_photograph_is_left_at_a_glance() -> None:
    photo = make_canvas(Image.open(Path(__file__).parents[2] / "examples/photo.jpg"))
    assert find_fills(photo) is None
    soft = 128 + 90 * np.stack([np.sin(np.hypot(*np.indices((300, 400))) / k) for k in (30, 50, 80)], -1)
    assert find_fills(to_canvas((soft + 3 * random().standard_normal(soft.shape)).astype(np.uint8))) is None


@pytest.mark.parametrize("spread", [0, 4, 9])
def test_noise_on_a_few_colours_is_no_photograph(spread: int) -> None:
    plain = np.full((300, 400, 3), 240.0)
    plain[100:260, 60:120], plain[160:260, 180:240], plain[60:260, 300:360] = (
        (200, 40, 40),
        (40, 40, 200),
        (20, 150, 60),
    )
    fills = find_fills(
        to_canvas((plain + spread * random().standard_normal(plain.shape)).clip(0, 255).astype(np.uint8))
    )
    assert fills is not None
    assert len(fills.colours) == 4
    assert fills.is_noisy == (spread > 0)
