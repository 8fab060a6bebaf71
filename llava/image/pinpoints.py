"""The canvases that a checkpoint's images may be fitted to: ``image_grid_pinpoints`` of config.json, and ``Size``.

Source: haotian-liu/LLaVA@c121f04 llava/mm_utils.py; LLaVA-VL/LLaVA-NeXT@df17966, the same file, for grid specs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

from llava.errors import CheckpointError


class Size(NamedTuple):
    """A width and a height. The unit is px for images and tiles, features for maps, tiles for grids."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


# image_grid_pinpoints of the released LLaVA-1.6 checkpoints. Several canvases can suit a small image equally well; the
# first of them is chosen, so the order is part of the value.
RELEASED_PINPOINTS = (Size(336, 672), Size(672, 336), Size(672, 672), Size(1008, 336), Size(336, 1008))

# The grids that LLaVA-NeXT was announced with, in tiles: {2x2, 1x{2,3,4}, {2,3,4}x1}. No released checkpoint has the
# two of four tiles in a row. Source: "LLaVA-NeXT: Improved reasoning, OCR, and world knowledge", January 2024.
ANNOUNCED_GRIDS = (Size(2, 2), Size(1, 2), Size(1, 3), Size(1, 4), Size(2, 1), Size(3, 1), Size(4, 1))

# Tile sides that a grid spec such as "(1x1),...,(6x6)" may be read with.
GRID_SPEC_TILES_PX = (224, 336, 384, 448, 512)


def scale_grids(grids: Iterable[tuple[int, int]], tile_px: int) -> tuple[Size, ...]:
    """Grids of tiles as canvases in px, in the same order."""
    return tuple(Size(columns * tile_px, rows * tile_px) for columns, rows in grids)


def parse_pinpoints(value: Any, tile_px: int) -> tuple[Size, ...]:
    """The canvases of ``image_grid_pinpoints``, (width, height) in px, in its order.

    ``value``: a sequence of pairs in px; the same as a Python literal; or a grid spec such as ``"(1x1),...,(6x6)"``,
    which stands for every grid between its first and its last pair (columns x rows, columns in the outer loop).

    Raises:
        CheckpointError: the list is empty, an item is not a pair of positive integers, or a canvas is not a whole
            number of tiles of ``tile_px``.
    """
    pairs = value
    if isinstance(value, str):
        if "x" in value:
            return _expand_grid_spec(value, tile_px)
        try:
            pairs = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise CheckpointError(
                f"image_grid_pinpoints is {value[:80]!r}, which is neither a list nor a spec such as '(1x1),...,(6x6)'."
            ) from error
    if isinstance(pairs, str) or not isinstance(pairs, Sequence) or not pairs:
        raise CheckpointError(f"image_grid_pinpoints is {value!r}; it has to list at least one (width, height) in px.")
    for pair in pairs:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(is_count, pair)):
            raise CheckpointError(f"image_grid_pinpoints holds {pair!r}, which is no (width, height) in px.")
        if pair[0] % tile_px or pair[1] % tile_px:
            raise CheckpointError(
                f"image_grid_pinpoints holds {Size(*pair)}, which tiles of {tile_px}x{tile_px} px do not fill: "
                f"both sides have to be multiples of {tile_px}."
            )
    return tuple(Size(int(width), int(height)) for width, height in pairs)


def _expand_grid_spec(spec: str, tile_px: int) -> tuple[Size, ...]:
    pairs = [(int(columns), int(rows)) for columns, rows in re.findall(r"\((\d{1,4})x(\d{1,4})\)", spec)]
    if not pairs:
        raise CheckpointError(f"image_grid_pinpoints is {spec[:80]!r}, which holds no grid such as (2x3).")
    if tile_px not in GRID_SPEC_TILES_PX:
        raise CheckpointError(
            f"image_grid_pinpoints is the grid spec {spec[:80]!r}, which can be read for tiles of "
            f"{', '.join(map(str, GRID_SPEC_TILES_PX))} px, but the vision tower's are {tile_px} px."
        )
    (first_column, first_row), (last_column, last_row) = pairs[0], pairs[-1]
    columns, rows = range(first_column, last_column + 1), range(first_row, last_row + 1)
    if not columns or not rows or 0 in columns or 0 in rows or len(columns) * len(rows) > 10_000:
        raise CheckpointError(
            f"image_grid_pinpoints is {spec[:80]!r}, which does not lead from a grid to a larger one."
        )
    return scale_grids(((i, j) for i in columns for j in rows), tile_px)


def is_count(value: Any) -> bool:
    """Whether a value is a positive integer."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0
