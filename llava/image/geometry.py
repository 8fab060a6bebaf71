"""Where every tile of an image comes from and which of its features reach the prompt: sizes only, no pixels.

An image is fitted to a canvas, the canvas is cut into tiles, each tile becomes a square of features, the squares are
laid out as one map, and the rows and columns that show only padding are left out again:

      image           canvas, 2x2 tiles           map of features            positions
    +---------+       +........+........+         (nothing is kept here)      base tile
    |         |  -->  +========+========+  -->   rows and columns kept  -->   kept row 0, newline
    |         |       |   1    |   2    |                                     kept row 1, newline
    +---------+       +--------+--------+                                     ...
                      |   3    |   4    |
                      +========+========+
                      +........+........+        (nor here)

``TilePlan`` owns every count: no other code may work out how many tiles or positions an image takes. The rounding is
that of the original, down to the floating-point order of operations, because a model was trained on it.

Source: haotian-liu/LLaVA@c121f04 llava/mm_utils.py and llava/model/llava_arch.py; LLaVA-VL/LLaVA-NeXT@df17966, the
same files, for grid specs, ``anyres_max_N``, ``maxpool2x2`` and ``nobase``; transformers 5.23
models/llava_next/modeling_llava_next.py for the "hf" dialect.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

from llava.errors import BadImage, CheckpointError, UsageError


class Size(NamedTuple):
    """A width and a height. The unit is px for images and tiles, features for maps, tiles for grids."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


# What the released LLaVA-1.6 checkpoints say in image_grid_pinpoints. Small images fit several canvases equally well
# and take the first, so the order is part of the value.
RELEASED_PINPOINTS = (Size(336, 672), Size(672, 336), Size(672, 672), Size(1008, 336), Size(336, 1008))

# The grids that LLaVA-NeXT was announced with, in tiles: {2x2, 1x{2,3,4}, {2,3,4}x1}. No released checkpoint has the
# two of four tiles in a row. Source: "LLaVA-NeXT: Improved reasoning, OCR, and world knowledge", January 2024.
ANNOUNCED_GRIDS = (Size(2, 2), Size(1, 2), Size(1, 3), Size(1, 4), Size(2, 1), Size(3, 1), Size(4, 1))

# Tile sides that a grid spec such as "(1x1),...,(6x6)" may be read with.
GRID_SPEC_TILES_PX = (224, 336, 384, 448, 512)

DIALECTS = ("original", "hf")

# A map this many times larger (in side length) than anyres_max_N allows is scaled down to it.
_MAX_OVERSIZE = 1.1


def scale_grids(grids: Iterable[tuple[int, int]], tile_px: int) -> tuple[Size, ...]:
    """Grids of tiles as canvases in px, in the same order."""
    return tuple(Size(columns * tile_px, rows * tile_px) for columns, rows in grids)


def parse_pinpoints(value: Any, tile_px: int) -> tuple[Size, ...]:
    """The canvases that ``image_grid_pinpoints`` lists, (width, height) in px, in its order.

    ``value``: a sequence of pairs in px; the same written as a Python literal; or a grid spec such as
    ``"(1x1),...,(6x6)"``, which stands for every grid between its first and its last pair (columns x rows, columns in
    the outer loop).

    Raises:
        CheckpointError: nothing listed, not pairs of positive integers, or a canvas that tiles of ``tile_px`` do not
            fill.
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
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2 or not all(map(_is_count, pair)):
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


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) > 0


@dataclass(frozen=True)
class Tiling:
    """How a checkpoint cuts images into tiles and puts the tiles' features together again.

    Raises CheckpointError for a combination that has no meaning, when it is made.
    """

    aspect: str = "square"
    """``image_aspect_ratio``: "pad" (to a square), "anyres" and "anyres_max_N" (tiles), else the centre square."""
    merge: str = "flat"
    """``mm_patch_merge_type``: "flat", or "spatial" followed by any of "_unpad", "_maxpool2x2", "_nobase"."""
    tile_px: int = 336
    patch_px: int = 14
    pinpoints: tuple[Size, ...] = ()
    """The canvases to choose from, (width, height) in px in either dialect; of equally good ones the first is taken."""
    extra_positions: int = 0
    """Features per tile that are no patch: 1 for ``mm_vision_select_feature`` "cls_patch"."""
    dialect: str = "original"
    """Rounding where padding is left out: "original" cuts, "hf" (Transformers) first rounds to 7 decimal places."""
    squashes: bool = False
    """An image of one tile that is not padded is squashed to it, as SigLIP's processor does; else its centre is cut."""

    def __post_init__(self) -> None:
        if self.tile_px < self.patch_px or self.patch_px < 1:
            raise CheckpointError(f"Tiles of {self.tile_px} px cannot be cut into patches of {self.patch_px} px.")
        if self.dialect not in DIALECTS:
            raise CheckpointError(f"The tiling dialect is {self.dialect!r}; it has to be one of {', '.join(DIALECTS)}.")
        head, *options = self.merge.split("_")
        known = head == "flat" and not options
        if not known and (head != "spatial" or not {"unpad", "maxpool2x2", "nobase"}.issuperset(options)):
            raise CheckpointError(
                f"Unexpected mm_patch_merge_type: {self.merge}. "
                "Supported are flat, and spatial with any of _unpad, _maxpool2x2, _nobase."
            )
        if self.aspect in ("highres", "crop_split"):
            raise CheckpointError(f"image_aspect_ratio is {self.aspect!r}, which is not supported.")
        if self.aspect.startswith("anyres"):
            if not re.fullmatch(r"anyres(_max_[1-9]\d*)?", self.aspect):
                raise CheckpointError(
                    f"image_aspect_ratio is {self.aspect!r}; anyres is followed by nothing or _max_N."
                )
            parse_pinpoints(self.pinpoints, self.tile_px)
            if self.extra_positions and not self.is_flat:
                raise CheckpointError(
                    f"mm_patch_merge_type is {self.merge!r}, but mm_vision_select_feature is 'cls_patch': "
                    "a feature that is no patch has no place in a map of several tiles."
                )

    @classmethod
    def from_config(cls, config: Any, *, tile_px: int, patch_px: int, squashes: bool = False) -> Tiling:
        """The tiling that a configuration asks for: an object or a mapping with the original's attribute names.

        ``tile_px`` and ``patch_px`` are the vision tower's. Missing values, and None, are the original's defaults.
        Raises CheckpointError.
        """

        def get(name: str, default: Any) -> Any:
            value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
            return default if value is None else value

        aspect = str(get("image_aspect_ratio", "square"))
        pinpoints: tuple[Size, ...] = ()
        if aspect.startswith("anyres"):  # the others do not look at the list, whatever it holds
            pinpoints = parse_pinpoints(get("image_grid_pinpoints", ()), tile_px)
        return cls(
            aspect=aspect,
            merge=str(get("mm_patch_merge_type", "flat")),
            tile_px=tile_px,
            patch_px=patch_px,
            pinpoints=pinpoints,
            extra_positions=1 if get("mm_vision_select_feature", "patch") == "cls_patch" else 0,
            dialect=str(get("mm_tiling_dialect", "original")),
            squashes=squashes,
        )

    @property
    def is_anyres(self) -> bool:
        """True where an image becomes a base tile and a grid of tiles, False where it becomes one tile."""
        return self.aspect.startswith("anyres")

    @property
    def shows_whole_as(self) -> str:
        """How an image is fitted to a tile of its own: "pad", "squash" or "crop"."""
        # LLaVA-OneVision, and it alone has anyres_max_N, pads where it shows several images in one tile each.
        if self.aspect == "pad" or self.max_tiles is not None:
            return "pad"
        return "squash" if self.is_anyres or self.squashes else "crop"

    @property
    def is_flat(self) -> bool:
        return self.merge == "flat"

    @property
    def max_tiles(self) -> int | None:
        """N of anyres_max_N: a map of more than about N tiles' features is scaled down; None where it is not."""
        return int(self.aspect.rsplit("_", 1)[1]) if self.aspect.startswith("anyres_max_") else None


@dataclass(frozen=True)
class TilePlan:
    """Where every tile of one image comes from, and where its features go.

    Tile 0 of several is the base tile, the whole image squashed to a square; the others follow row by row. An
    image of one tile has a grid of 1x1, and its canvas is that tile.
    """

    image: Size
    """What was sent, px."""
    canvas: Size
    """What it is fitted to, px: a whole number of tiles."""
    content: Size
    """What it is resized to, px. Larger than the canvas where a centre square is cut out of it."""
    offset: tuple[int, int]
    """Where its left top corner comes to lie on the canvas, px (x, y): negative where the canvas cuts it."""
    grid: Size
    """Tiles of the canvas, columns x rows."""
    num_tiles: int
    """Tiles that the vision tower sees, the base tile included."""
    features_per_side: int
    """Patches of a tile along one side."""
    extra_positions: int
    """Features of each tile that are no patch."""
    kept_columns: range
    kept_rows: range
    """What of the map, grid x features_per_side, shows image and not only padding; either may be empty."""
    map_size: Size
    """Features that go to the prompt in columns x rows: what is kept, after ``resampling``."""
    resampling: str
    """How what is kept becomes ``map_size``: "none", "maxpool2x2", or "bilinear" (not aligned to corners)."""
    is_flat: bool
    """The features go tile by tile, not laid out as one map."""
    has_base: bool
    """The base tile's features go to the prompt, before the map's."""
    has_newlines: bool
    """A newline vector follows each row of the map; after an image of one tile there is one in all."""

    @property
    def features_per_tile(self) -> int:
        return self.features_per_side**2 + self.extra_positions

    @property
    def num_positions(self) -> int:
        """Positions of the prompt that the image takes."""
        if self.is_flat or self.num_tiles == 1:
            return self.num_tiles * self.features_per_tile + self.has_newlines
        base = self.features_per_tile if self.has_base else 0
        return base + self.map_size.height * (self.map_size.width + self.has_newlines)


def plan_tiles(image: Size, tiling: Tiling) -> TilePlan:
    """The plan for an image of this size.

    Raises:
        UsageError: a side is not a positive integer.
        BadImage: the image is so thin that scaling its map down leaves nothing.
    """
    if not tiling.is_anyres:
        return plan_whole(image, tiling)
    image = _check_size(image)
    side = tiling.tile_px // tiling.patch_px
    canvas = choose_canvas(image, tiling.pinpoints)
    content, offset = fit_inside(image, canvas)
    grid = Size(canvas.width // tiling.tile_px, canvas.height // tiling.tile_px)
    columns, rows, map_size, resampling = _lay_out(image, Size(grid.width * side, grid.height * side), side, tiling)
    return TilePlan(
        image=image,
        canvas=canvas,
        content=content,
        offset=offset,
        grid=grid,
        num_tiles=1 + grid.width * grid.height,
        features_per_side=side,
        extra_positions=tiling.extra_positions,
        kept_columns=columns,
        kept_rows=rows,
        map_size=map_size,
        resampling=resampling,
        is_flat=tiling.is_flat,
        has_base="nobase" not in tiling.merge,
        has_newlines="unpad" in tiling.merge and "maxpool2x2" not in tiling.merge,
    )


def plan_images(images: Sequence[Size], tiling: Tiling, details: Sequence[str] = ()) -> list[TilePlan]:
    """The plans for all images of a prompt. An image whose detail is "low" gets one tile.

    So does each of several images where the checkpoint says ``anyres_max_N``, as LLaVA-OneVision was trained.
    Raises as ``plan_tiles`` does.

    Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py (a sample of several images is padded, not tiled).
    """
    is_crowd = len(images) > 1 and tiling.max_tiles is not None
    details = [*details, *[""] * (len(images) - len(details))]
    return [
        (plan_whole if is_crowd or detail == "low" else plan_tiles)(image, tiling)
        for image, detail in zip(images, details, strict=True)
    ]


def plan_whole(image: Size, tiling: Tiling) -> TilePlan:
    """The plan for an image that is shown in one tile: of AnyRes that tile alone, else what ``plan_tiles`` says.

    Raises UsageError as ``plan_tiles`` does.
    """
    image = _check_size(image)
    tile = Size(tiling.tile_px, tiling.tile_px)
    side = tiling.tile_px // tiling.patch_px
    if tiling.shows_whole_as == "squash":
        content, offset = tile, (0, 0)
    else:
        content, offset = (pad_to_square if tiling.shows_whole_as == "pad" else crop_to_square)(image, tiling.tile_px)
    return TilePlan(
        image=image,
        canvas=tile,
        content=content,
        offset=offset,
        grid=Size(1, 1),
        num_tiles=1,
        features_per_side=side,
        extra_positions=tiling.extra_positions,
        kept_columns=range(side),
        kept_rows=range(side),
        map_size=Size(side, side),
        resampling="none",
        is_flat=tiling.is_flat,
        has_base=True,
        has_newlines="unpad" in tiling.merge,
    )


def _check_size(image: Size) -> Size:
    if len(image) != 2 or not all(map(_is_count, image)):
        raise UsageError(f"The image's size is {tuple(image)}; it has to be (width, height) in whole px above 0.")
    return Size(*image)


def _lay_out(image: Size, full: Size, side: int, tiling: Tiling) -> tuple[range, range, Size, str]:
    """Which columns and rows of the full map are kept, what they are resampled to, and how."""
    if "maxpool2x2" in tiling.merge:  # comes before unpad in the original: nothing is left out
        return range(full.width), range(full.height), Size(full.width // 2, full.height // 2), "maxpool2x2"
    if "unpad" not in tiling.merge:
        return range(full.width), range(full.height), full, "none"
    columns, rows = unpad(image, full, tiling.dialect)
    kept = Size(len(columns), len(rows))
    shrunk = shrink_map(kept, side, tiling.max_tiles)
    if shrunk == kept:
        return columns, rows, kept, "none"
    if 0 in shrunk:
        raise BadImage(
            f"An image of {image} px is too thin: at {tiling.aspect} nothing of its {kept} features is left."
        )
    return columns, rows, shrunk, "bilinear"


def shrink_map(kept: Size, side: int, max_tiles: int | None) -> Size:
    """What a map of ``kept`` features is scaled down to: about as many as ``max_tiles`` tiles of ``side`` have.

    A map that is no more than a tenth too large, in side length, stays as it is, and so does every map for None.
    """
    if max_tiles is None:
        return kept
    oversize = math.sqrt(kept.height * kept.width / (max_tiles * side**2))
    if oversize <= _MAX_OVERSIZE:
        return kept
    return Size(int(kept.width // oversize), int(kept.height // oversize))


def choose_canvas(image: Size, pinpoints: Iterable[tuple[int, int]]) -> Size:
    """The canvas that shows most of the image, and of equal ones the smallest, and of those the first.

    How much it shows is the image's area after fitting, but no more than it has: every canvas that holds a small
    image unshrunk is equally good.
    """
    width, height = image
    best: tuple[int, int] | None = None
    best_rank = (-1, 0)
    for canvas_width, canvas_height in pinpoints:
        scale = min(canvas_width / width, canvas_height / height)
        shown = min(int(width * scale) * int(height * scale), width * height)
        rank = (shown, shown - canvas_width * canvas_height)
        if rank > best_rank:
            best, best_rank = (canvas_width, canvas_height), rank
    if best is None:
        raise CheckpointError("There are no canvases to choose from: image_grid_pinpoints is empty.")
    return Size(*best)


def fit_inside(image: Size, canvas: Size) -> tuple[Size, tuple[int, int]]:
    """The size that fills the canvas with the image's aspect, rounded up, and the corner that centres it there."""
    scale_x, scale_y = canvas.width / image.width, canvas.height / image.height
    if scale_x < scale_y:
        content = Size(canvas.width, min(math.ceil(image.height * scale_x), canvas.height))
    else:
        content = Size(min(math.ceil(image.width * scale_y), canvas.width), canvas.height)
    return content, ((canvas.width - content.width) // 2, (canvas.height - content.height) // 2)


def pad_to_square(image: Size, tile_px: int) -> tuple[Size, tuple[int, int]]:
    """Size and corner of an image in the middle of a square of ``tile_px``, to the nearest px.

    The nearest, because the padding is added first, in the image's own px, and the square is resized then.
    """
    side = max(image)
    left, top = (side - image.width) // 2, (side - image.height) // 2

    def to_tile(length: int) -> int:
        return (2 * length * tile_px + side) // (2 * side)

    return Size(max(1, to_tile(image.width)), max(1, to_tile(image.height))), (to_tile(left), to_tile(top))


def crop_to_square(image: Size, tile_px: int) -> tuple[Size, tuple[int, int]]:
    """Size and corner of an image whose shorter side fills the tile and whose longer side hangs over at both ends."""
    short = min(image)
    content = Size(int(tile_px * image.width / short), int(tile_px * image.height / short))
    return content, (-((content.width - tile_px) // 2), -((content.height - tile_px) // 2))


def unpad(image: Size, full: Size, dialect: str) -> tuple[range, range]:
    """Columns and rows of a map of ``full`` features in which the image lies.

    As many are left out before as after, so the kept number is even where the full one is. Of an image too thin to
    cover a feature nothing may be kept: 2000x10 px on a canvas of 1008x336 px keeps 72 columns and no row.
    """
    columns, rows = range(full.width), range(full.height)
    if image.width / image.height > full.width / full.height:
        padding = (full.height - _cut(image.height * (full.width / image.width), dialect)) // 2
        rows = range(padding, full.height - padding)
    else:
        padding = (full.width - _cut(image.width * (full.height / image.height), dialect)) // 2
        columns = range(padding, full.width - padding)
    return columns, rows


def _cut(value: float, dialect: str) -> int:
    return int(round(value, 7)) if dialect == "hf" else int(value)
