"""Dense labels: what is drawn in each patch of each tile. The tower's warm-up learns to predict them.

The marks of a drawn image are transformed into tile coordinates by the same tile plan that cuts its pixels, so labels
and pixels cannot disagree. A patch has seven labels, in this order: up to three characters whose centres fall into it
(left to right), the shape that covers it, that shape's colour, the colour of the ink, and how far down in the patch an
object's anchor lies, in quarters, so that bars that end in the same patch still differ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llava.image.geometry import TilePlan
from llava.synth.drawing import CHARACTERS, COLORS, OBJECTS, Drawing

NUM_SLOTS = 3
ANCHOR_LEVELS = 4
# The number of classes of each label; class 0 is "nothing" in all of them.
LABEL_SIZES = (
    *(len(CHARACTERS) + 1,) * NUM_SLOTS,
    len(OBJECTS) + 1,
    len(COLORS) + 1,
    len(COLORS) + 1,
    ANCHOR_LEVELS + 1,
)
_CHARACTER_INDEX = {character: i + 1 for i, character in enumerate(CHARACTERS)}
_OBJECT_INDEX = {name: i + 1 for i, name in enumerate(OBJECTS)}
_COLOR_INDEX = {name: i + 1 for i, name in enumerate(COLORS)}
# Capitals lower than this many tile pixels are illegible and get no labels.
MIN_CAPITAL_PX = 6.0

Labels = npt.NDArray[np.uint8]


def tile_transforms(plan: TilePlan, tile_px: int) -> list[tuple[float, float, float, float]]:
    """(scale x, scale y, shift x, shift y) of every tile: tile coordinate = image coordinate * scale + shift."""
    width, height = plan.image
    transforms = []
    if plan.num_tiles > 1:
        transforms.append((tile_px / width, tile_px / height, 0.0, 0.0))
    scale_x, scale_y = plan.content.width / width, plan.content.height / height
    for row in range(plan.grid.height):
        for column in range(plan.grid.width):
            transforms.append((scale_x, scale_y, plan.offset[0] - column * tile_px, plan.offset[1] - row * tile_px))
    return transforms


def label_tiles(drawing: Drawing, plan: TilePlan, tile_px: int, patch_px: int) -> Labels:
    """Labels [tiles, patches of a tile in raster order, 7] of a drawn image, uint8."""
    side = tile_px // patch_px
    transforms = tile_transforms(plan, tile_px)
    labels = np.zeros((len(transforms), side * side, len(LABEL_SIZES)), dtype=np.uint8)
    marks = np.array([(c.x, c.y, c.height) for c in drawing.characters], dtype=np.float64).reshape(-1, 3)
    names = [_CHARACTER_INDEX[c.text] for c in drawing.characters]
    inks = [_COLOR_INDEX[c.color] for c in drawing.characters]
    middles = (np.arange(side) + 0.5) * patch_px
    for tile, (scale_x, scale_y, shift_x, shift_y) in enumerate(transforms):
        grid = labels[tile].reshape(side, side, -1)
        for thing in drawing.objects:
            left, right = thing.left * scale_x + shift_x, thing.right * scale_x + shift_x
            top, bottom = thing.top * scale_y + shift_y, thing.bottom * scale_y + shift_y
            if right <= 0 or bottom <= 0 or left >= tile_px or top >= tile_px:
                continue
            shape, color = _OBJECT_INDEX[thing.shape], _COLOR_INDEX[thing.color]
            rows = np.flatnonzero((middles >= top) & (middles <= bottom))
            columns = np.flatnonzero((middles >= left) & (middles <= right))
            if rows.size and columns.size:
                grid[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, NUM_SLOTS : NUM_SLOTS + 2] = (shape, color)
            row, down = divmod((thing.anchor_y * scale_y + shift_y) / patch_px, 1)
            row = int(row)
            column = int((thing.anchor_x * scale_x + shift_x) // patch_px)
            if 0 <= row < side and 0 <= column < side:
                grid[row, column, NUM_SLOTS : NUM_SLOTS + 2] = (shape, color)
                grid[row, column, NUM_SLOTS + 3] = 1 + int(down * ANCHOR_LEVELS)
        if not names:
            continue
        columns_n = np.floor((marks[:, 0] * scale_x + shift_x) / patch_px).astype(int)
        rows_n = np.floor((marks[:, 1] * scale_y + shift_y) / patch_px).astype(int)
        legible = marks[:, 2] * scale_y >= MIN_CAPITAL_PX
        inside = (columns_n >= 0) & (columns_n < side) & (rows_n >= 0) & (rows_n < side) & legible
        # Characters were marked in reading order, so the slots of a patch fill from left to right.
        for i in np.flatnonzero(inside):
            cell = grid[rows_n[i], columns_n[i]]
            for slot in range(NUM_SLOTS):
                if not cell[slot]:
                    cell[slot] = names[i]
                    break
            cell[NUM_SLOTS + 2] = inks[i]
    return labels
