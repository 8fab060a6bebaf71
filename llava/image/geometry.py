"""The tile plan of an image: where each tile comes from and which features reach the prompt. Sizes only, no pixels.

An image is fitted to a canvas, the canvas is cut into tiles, each tile becomes a square of features, the squares are
laid out as one map, and the rows and columns that show only padding are dropped (unpadding):

      image           canvas, 2x2 tiles           map of features            positions
    +---------+       +........+........+         (nothing is kept here)      base tile
    |         |  -->  +========+========+  -->   rows and columns kept  -->   kept row 0, newline
    |         |       |   1    |   2    |                                     kept row 1, newline
    +---------+       +--------+--------+                                     ...
                      |   3    |   4    |
                      +========+========+
                      +........+........+        (nor here)

``plan_tiles`` is called once per image, and its ``TilePlan`` travels with the image: ``make_pixels(image, plan, ...)``
cuts the tiles that it lists, and ``merge(features, plan)`` lays out their features. It owns every count: no other code
computes how many tiles or positions an image takes (``TilePlan.num_positions``: 1948 for 1000x600 px in LLaVA-1.6). The
rounding is the original's, down to the order of floating-point operations, because the models were trained with it.

Source: haotian-liu/LLaVA@c121f04 llava/mm_utils.py and llava/model/llava_arch.py; LLaVA-VL/LLaVA-NeXT@df17966, the
same files, for grid specs, ``anyres_max_N``, ``maxpool2x2`` and ``nobase``; transformers 5.23
models/llava_next/modeling_llava_next.py for the "hf" dialect.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llava.errors import BadImage, CheckpointError, UsageError
from llava.image.pinpoints import ANNOUNCED_GRIDS as ANNOUNCED_GRIDS
from llava.image.pinpoints import GRID_SPEC_TILES_PX as GRID_SPEC_TILES_PX
from llava.image.pinpoints import RELEASED_PINPOINTS as RELEASED_PINPOINTS
from llava.image.pinpoints import Size as Size
from llava.image.pinpoints import is_count, parse_pinpoints
from llava.image.pinpoints import scale_grids as scale_grids

DIALECTS = ("original", "hf")

# How the whole image becomes tile 0. "base": squashed, as the base tile of AnyRes; "pad": padded to a square; "squash"
# and "crop": the image processor squashes it (SigLIP's) or crops its centre square (CLIP's).
Fit = Literal["base", "pad", "squash", "crop"]

# A map whose side is more than this many times the side that anyres_max_N allows is scaled down to that side.
_MAX_OVERSIZE = 1.1


@dataclass(frozen=True)
class Tiling:
    """How a checkpoint cuts images into tiles and merges the tiles' features.

    Raises:
        CheckpointError: on construction, for a combination of values that has no meaning.
    """

    aspect: str = "square"
    """``image_aspect_ratio``: "pad" (to a square), "anyres", "anyres_max_N" (several tiles), else the centre square."""
    merge: str = "flat"
    """``mm_patch_merge_type``: how an image's features become its positions.

    "flat" lists them tile by tile. "spatial" lays the grid's tiles out as one map and reads it row by row, after the
    base tile; it may be followed by "_unpad" (drop the padding, end each row with the newline vector), "_maxpool2x2"
    (halve the map, keep its padding, no newlines in it) and "_nobase" (drop the base tile). With "_unpad", a
    single-tile image ends with one newline vector, even if "_maxpool2x2" is also given.
    """
    tile_px: int = 336
    patch_px: int = 14
    pinpoints: tuple[Size, ...] = ()
    """The canvases to choose from, (width, height) in px in both dialects. The first of equally good ones is chosen."""
    extra_positions: int = 0
    """Features per tile that belong to no patch: 1 (CLS) for ``mm_vision_select_feature`` "cls_patch", else 0."""
    dialect: str = "original"
    """Rounding when unpadding: "original" truncates, "hf" (Transformers) rounds to 7 decimal places before that."""
    squashes: bool = False
    """Whether the image processor squashes an image to its single tile (SigLIP) instead of cropping its centre."""
    position_range: tuple[int, int] | None = None
    """The fewest and the most positions of an image, for a tower whose features follow from what it reads in it."""

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
                    "CLS belongs to no patch, so it has no place in a map of several tiles."
                )

    @classmethod
    def from_config(
        cls,
        config: Any,
        *,
        tile_px: int,
        patch_px: int,
        squashes: bool = False,
        position_range: tuple[int, int] | None = None,
    ) -> Tiling:
        """The tiling of a configuration, an object or a mapping with the original's attribute names.

        All other arguments are the vision tower's. A missing value, or None, is the original's default.

        Raises:
            CheckpointError: a value is unknown, or values contradict each other.
        """

        def get(name: str, default: Any) -> Any:
            value = config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
            return default if value is None else value

        aspect = str(get("image_aspect_ratio", "square"))
        pinpoints: tuple[Size, ...] = ()
        if aspect.startswith("anyres"):  # other aspect ratios ignore the list, valid or not
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
            position_range=position_range,
        )

    @property
    def is_anyres(self) -> bool:
        """Whether an image becomes a base tile and a grid of tiles instead of a single tile."""
        return self.aspect.startswith("anyres")

    @property
    def single_tile_fit(self) -> Fit:
        """How an image that gets a single tile is fitted to it."""
        # LLaVA-OneVision, the only user of anyres_max_N, pads each of several images to one tile.
        if self.aspect == "pad" or self.max_tiles is not None:
            return "pad"
        if self.is_anyres:
            return "base"
        return "squash" if self.squashes else "crop"

    @property
    def is_flat(self) -> bool:
        """Whether features are listed tile by tile instead of being laid out as one map."""
        return self.merge == "flat"

    @property
    def max_tiles(self) -> int | None:
        """N of anyres_max_N: a map with more features than about N tiles have is scaled down. None: no limit."""
        return int(self.aspect.rsplit("_", 1)[1]) if self.aspect.startswith("anyres_max_") else None


@dataclass(frozen=True)
class TilePlan:
    """Where each tile of one image comes from, and where its features go.

    Tile 0 of several is the base tile, the whole image squashed to a square; the grid's tiles follow row by row. An
    image with a single tile has a grid of 1x1, and its canvas is that tile.
    """

    image: Size
    """The image's own size, px."""
    fit: Fit
    """How the whole image becomes tile 0."""
    canvas: Size
    """The size that the image is fitted to, px: a whole number of tiles."""
    content: Size
    """The size that the image is resized to, px. Larger than the canvas where its centre square is cropped."""
    offset: tuple[int, int]
    """Where the content's top left corner lies on the canvas, px (x, y); negative where the canvas crops it."""
    grid: Size
    """The canvas in tiles, columns x rows."""
    num_tiles: int
    """Tiles that the vision tower encodes, the base tile included."""
    features_per_side: int
    """Patches of a tile along one side."""
    extra_positions: int
    """Features of each tile that belong to no patch: 1 where CLS is kept."""
    kept_columns: range
    """Columns of the map (grid x features_per_side) that show more than padding; may be empty."""
    kept_rows: range
    """Rows of the map that show more than padding; may be empty."""
    map_size: Size
    """Features of the map that reach the prompt, columns x rows: the kept ones after ``resampling``."""
    resampling: str
    """How the kept features become ``map_size``: "none", "maxpool2x2", or "bilinear" (not aligned to corners)."""
    max_tiles: int | None
    """``Tiling.max_tiles``, by which ``map_size`` was limited."""
    is_flat: bool
    """Whether features are listed tile by tile instead of being laid out as one map."""
    has_base: bool
    """Whether the base tile's features reach the prompt, before the map's."""
    has_newlines: bool
    """Whether a newline vector ends each row of the map; an image with a single tile ends with one newline vector."""
    position_range: tuple[int, int] | None = None
    """``Tiling.position_range``."""
    counted: int | None = None
    """How many positions the tower's features of this image take, where only the tower can tell; see ``looking``."""

    @property
    def tile_px(self) -> int:
        """The side of a tile, px."""
        return self.canvas.width // self.grid.width

    @property
    def features_per_tile(self) -> int:
        """Features of one tile: its patches, and CLS where that is kept."""
        return self.features_per_side**2 + self.extra_positions

    @property
    def num_positions(self) -> int:
        """How many positions of the prompt the image takes; at most, as long as only the tower could tell."""
        if self.counted is not None:
            return self.counted
        if self.position_range is not None:
            return self.position_range[1]
        if self.is_flat or self.num_tiles == 1:
            return self.num_tiles * self.features_per_tile + self.has_newlines
        base = self.features_per_tile if self.has_base else 0
        return base + self.map_size.height * (self.map_size.width + self.has_newlines)

    def say_positions(self) -> str:
        """The number of positions in words, such as "1948 positions"."""
        if self.counted is None and self.position_range is not None:
            return f"{self.position_range[0]} positions and those of what it reads"
        return f"{self.num_positions} positions"


def plan_tiles(image: Size, tiling: Tiling) -> TilePlan:
    """The plan of an image of this size, px.

    Raises:
        UsageError: a side is not a positive integer.
        BadImage: the image is so thin that scaling its map down leaves no feature.
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
        fit="base",
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
        max_tiles=tiling.max_tiles,
        is_flat=tiling.is_flat,
        has_base="nobase" not in tiling.merge,
        has_newlines="unpad" in tiling.merge and "maxpool2x2" not in tiling.merge,
        position_range=tiling.position_range,
    )


def plan_images(images: Sequence[Size], tiling: Tiling, details: Sequence[str] = ()) -> list[TilePlan]:
    """The plans of all images of a prompt, in order. An image whose detail is "low" gets a single tile.

    So does each of several images where the checkpoint has ``anyres_max_N``, because LLaVA-OneVision was trained so.

    Raises:
        UsageError, BadImage: as ``plan_tiles`` does.

    Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py (a sample with several images is padded, not tiled).
    """
    has_single_tiles = len(images) > 1 and tiling.max_tiles is not None
    details = [*details, *[""] * (len(images) - len(details))]
    return [
        (plan_whole if has_single_tiles or detail == "low" else plan_tiles)(image, tiling)
        for image, detail in zip(images, details, strict=True)
    ]


def plan_whole(image: Size, tiling: Tiling) -> TilePlan:
    """The plan of an image that gets a single tile, the whole image: without AnyRes the same as ``plan_tiles``.

    Raises:
        UsageError: a side is not a positive integer.
    """
    image = _check_size(image)
    tile = Size(tiling.tile_px, tiling.tile_px)
    side = tiling.tile_px // tiling.patch_px
    fit = tiling.single_tile_fit
    if fit in ("base", "squash"):
        content, offset = tile, (0, 0)
    else:
        content, offset = (pad_to_square if fit == "pad" else crop_to_square)(image, tiling.tile_px)
    return TilePlan(
        image=image,
        fit=fit,
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
        max_tiles=tiling.max_tiles,
        is_flat=tiling.is_flat,
        has_base=True,
        has_newlines="unpad" in tiling.merge,
        position_range=tiling.position_range,
    )


def _check_size(image: Size) -> Size:
    if len(image) != 2 or not all(map(is_count, image)):
        raise UsageError(f"The image's size is {tuple(image)}; it has to be (width, height) in whole px above 0.")
    return Size(*image)


def _lay_out(image: Size, full: Size, side: int, tiling: Tiling) -> tuple[range, range, Size, str]:
    """The columns and rows of the full map that are kept, the size they are resampled to, and how."""
    if "maxpool2x2" in tiling.merge:  # the original pools instead of unpadding
        return range(full.width), range(full.height), Size(full.width // 2, full.height // 2), "maxpool2x2"
    if "unpad" not in tiling.merge and tiling.position_range is None:
        return range(full.width), range(full.height), full, "none"
    columns, rows = unpad(image, full, tiling.dialect)
    kept = Size(len(columns), len(rows))
    shrunk = shrink_map(kept, side, tiling.max_tiles)
    if shrunk == kept:
        return columns, rows, kept, "none"
    if 0 in shrunk:
        raise BadImage(
            f"An image of {image} px is too thin: {tiling.aspect} scales its {kept} features down to none. Crop it."
        )
    return columns, rows, shrunk, "bilinear"


def shrink_map(kept: Size, side: int, max_tiles: int | None) -> Size:
    """The size that a map of ``kept`` features is scaled down to: about as many as ``max_tiles`` tiles have.

    ``side``: features of a tile along one side. A map whose side is at most a tenth too long is returned unchanged, and
    so is every map where ``max_tiles`` is None.
    """
    if max_tiles is None:
        return kept
    oversize = math.sqrt(kept.height * kept.width / (max_tiles * side**2))
    if oversize <= _MAX_OVERSIZE:
        return kept
    return Size(int(kept.width // oversize), int(kept.height // oversize))


def choose_canvas(image: Size, pinpoints: Iterable[tuple[int, int]]) -> Size:
    """The canvas (px) that keeps most of the image's px; among equals the smallest, then the first.

    The px kept are the image's area after fitting, at most its own: all canvases that hold a small image without
    shrinking it are equally good.

    Raises:
        CheckpointError: there are no pinpoints.
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
    """The image's size scaled to fit the canvas, rounded up, and the corner (x, y) at which it is centred."""
    scale_x, scale_y = canvas.width / image.width, canvas.height / image.height
    if scale_x < scale_y:
        content = Size(canvas.width, min(math.ceil(image.height * scale_x), canvas.height))
    else:
        content = Size(min(math.ceil(image.width * scale_y), canvas.width), canvas.height)
    return content, ((canvas.width - content.width) // 2, (canvas.height - content.height) // 2)


def pad_to_square(image: Size, tile_px: int) -> tuple[Size, tuple[int, int]]:
    """Size and corner (x, y) of an image padded to a square and resized to ``tile_px``, to the nearest px.

    They are approximate because the padding is added in the image's own px, before the square is resized.
    """
    side = max(image)
    left, top = (side - image.width) // 2, (side - image.height) // 2

    def to_tile(length: int) -> int:
        return (2 * length * tile_px + side) // (2 * side)

    return Size(max(1, to_tile(image.width)), max(1, to_tile(image.height))), (to_tile(left), to_tile(top))


def crop_to_square(image: Size, tile_px: int) -> tuple[Size, tuple[int, int]]:
    """Size and corner (x, y) of an image whose shorter side fills the tile; its longer side is cropped at both ends."""
    short = min(image)
    content = Size(int(tile_px * image.width / short), int(tile_px * image.height / short))
    return content, (-((content.width - tile_px) // 2), -((content.height - tile_px) // 2))


def unpad(image: Size, full: Size, dialect: str) -> tuple[range, range]:
    """The columns and rows of a map of ``full`` features that the image covers; the others show only padding.

    The same number is dropped at both ends, so the kept number is even where the full number is. An image too thin to
    cover a feature may keep none: 2000x10 px on a canvas of 1008x336 px keeps 72 columns and no row.
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
