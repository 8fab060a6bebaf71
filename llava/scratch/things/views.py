"""Views: what the encoder sees in training, one to five cut-outs on a ground, and what each view shows.

A view is planned first (a list of `View`, which is what training learns from) and rendered from its own seed, so any
view can be drawn again alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from llava.scratch.things.cutouts import CutOut
from llava.scratch.things.grounds import GROUND_SHARES, GROUNDS, draw_ground

SIDE_PX = 288


@dataclass(frozen=True)
class Placed:
    """One cut-out in a view."""

    cutout: int
    """Index into the list of cut-outs."""
    box: tuple[float, float, float, float]
    """The square it is fitted into: left, top, right, bottom in parts of the view's side; may reach outside."""
    turn_degrees: float
    mirrored: bool

    @property
    def cell(self) -> int:
        """The cell of a 3x3 grid that its centre lies in, row by row."""
        x, y = (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2
        return int(np.clip(y * 3, 0, 2)) * 3 + int(np.clip(x * 3, 0, 2))


@dataclass(frozen=True)
class View:
    """The plan of one view."""

    seed: int
    ground: str
    objects: list[Placed] = field(default_factory=list)
    layout: str = "single"
    """"single", "count" (one to five of the same), "pair" (side by side or one above the other) or "scatter"."""
    held_out: bool = False


def plan_views(cutouts: Sequence[CutOut], num_views: int, seed: int) -> list[View]:
    """Views in random order: three fifths show one thing, the rest several with their places.

    Names are drawn by the square root of how many cut-outs have them, so that "man" is not 3 % of all. A view shows
    either held-out names only or none.
    """
    rng = np.random.default_rng(seed)
    pools = {held: _by_name(cutouts, held) for held in (False, True)}
    views = []
    for number in range(num_views):
        held = bool(rng.random() < 0.08)
        layout = str(rng.choice(["single", "count", "pair", "scatter"], p=[0.6, 0.12, 0.14, 0.14]))
        ground = str(rng.choice(GROUNDS, p=GROUND_SHARES))
        objects = _arrange(layout, pools[held], rng)
        views.append(View(seed + number, ground, objects, layout, held))
    return views


def _by_name(cutouts: Sequence[CutOut], held_out: bool) -> tuple[list[list[int]], np.ndarray]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, cutout in enumerate(cutouts):
        if cutout.held_out == held_out:
            groups[cutout.name].append(index)
    weights = np.sqrt([len(group) for group in groups.values()])
    return list(groups.values()), weights / weights.sum()


def _arrange(layout: str, pool: tuple[list[list[int]], np.ndarray], rng: np.random.Generator) -> list[Placed]:
    groups, weights = pool

    def place(name: int, left: float, top: float, size: float, turn: float = 12) -> Placed:
        box = (left, top, left + size, top + size)
        return Placed(int(rng.choice(groups[name])), box, float(rng.uniform(-turn, turn)), bool(rng.random() < 0.5))

    def jitter(room: float) -> float:
        return float(rng.uniform(0, max(room, 0)))

    if layout == "single":
        size = float(rng.uniform(0.4, 1.0))
        # Half of the small ones stand off centre.
        shift = (1 - size) / 2 * (rng.uniform(-1, 1, 2) if rng.random() < 0.5 else rng.uniform(-0.3, 0.3, 2))
        return [place(int(rng.choice(len(groups), p=weights)), *((1 - size) / 2 + shift), size)]
    if layout == "pair":
        first, second = (int(i) for i in rng.choice(len(groups), 2, replace=False, p=weights))
        places = [(jitter(0.06), jitter(0.5)), (0.5 + jitter(0.06), jitter(0.5))]
        if rng.random() < 0.5:
            places = [(top, left) for left, top in places]
        return [
            place(name, *spot, float(rng.uniform(0.36, 0.46)))
            for name, spot in zip((first, second), places, strict=True)
        ]
    same = layout == "count"
    count = int(rng.integers(1, 6)) if same else int(rng.integers(2, 5))
    names = rng.choice(len(groups), count, replace=False, p=weights)
    cells = rng.choice(9, count, replace=False) if not same or rng.random() < 0.5 else _row(count, rng)
    placed = []
    for i, cell in enumerate(cells):
        size = float(rng.uniform(0.24, 0.31))
        left, top = cell % 3 / 3 + jitter(1 / 3 - size), cell // 3 / 3 + jitter(1 / 3 - size)
        placed.append(place(int(names[0] if same else names[i]), left, top, size))
    if same:  # the same drawing each time, as people count things
        placed = [Placed(placed[0].cutout, one.box, one.turn_degrees, one.mirrored) for one in placed]
    return placed


def _row(count: int, rng: np.random.Generator) -> list[int]:
    """Cells one after the other, as many as asked for."""
    start = int(rng.integers(0, 3)) * 3 if count <= 3 else int(rng.choice([0, 3] if count > 3 else [0]))
    return list(range(start, start + count))


def render(view: View, cutouts: Sequence[CutOut], folder: Path) -> np.ndarray:
    """The view as 8-bit RGB [288, 288, 3]."""
    rng = np.random.default_rng(view.seed)
    canvas = Image.fromarray(np.clip(draw_ground(view.ground, SIDE_PX, rng), 0, 255).astype(np.uint8))
    for placed in view.objects:
        with Image.open(folder / cutouts[placed.cutout].file) as image:
            thing = image.convert("RGBA")
        if placed.mirrored:
            thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        side = max(int((placed.box[2] - placed.box[0]) * SIDE_PX), 16)
        scale = side / max(thing.size)
        thing = thing.resize(
            (max(round(thing.width * scale), 2), max(round(thing.height * scale), 2)), Image.Resampling.BILINEAR
        )
        if abs(placed.turn_degrees) > 2:
            thing = thing.rotate(placed.turn_degrees, Image.Resampling.BILINEAR, expand=True)
        left = round((placed.box[0] + placed.box[2]) / 2 * SIDE_PX - thing.width / 2)
        top = round((placed.box[1] + placed.box[3]) / 2 * SIDE_PX - thing.height / 2)
        canvas.paste(thing, (left, top), thing)
    return np.asarray(canvas)
