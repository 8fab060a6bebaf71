"""Puts tiles together into images, and images among the words.

First the tiles of one image become its positions: the whole-image tile, then the grid of tiles read like a
page, without padding, a newline vector behind each row. Then every image slot of a prompt is replaced by its
image's positions. Both steps move rows and change none (but for the two pooled merges), so each is a list of
source rows. How many positions an image takes is known from its ``TilePlan`` alone, and is what comes out.

    slots       [ a  b  #1  c ]  [ d  #2 ]        ids, -200 shown as #
    positions   [ a  b  p p p p  c ]              p: positions of image 1
                [ d  q q  .  .  .  . ]            q: of image 2, dots: padding

Shape letters: B rows of the batch, L ids or positions of the longest row, S slots, K images, T tiles, N features of
one tile, P positions of all images, R rows to look up, X ids that are text, C width of the language model.

Source: haotian-liu/LLaVA@c121f04 llava/model/llava_arch.py; LLaVA-VL/LLaVA-NeXT@df17966 for ``anyres_max_N``,
``maxpool2x2``, ``nobase`` and videos.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.image.geometry import Size, TilePlan, Tiling, plan_tiles, shrink_map, unpad
from llava.image.pixels import get_anyres_image_grid_shape


def merge_tiles(features_TNC: torch.Tensor, plan: TilePlan, newline_C: torch.Tensor | None = None) -> torch.Tensor:
    """The positions of one image, [plan.num_positions, C], from the features of its tiles, base tile first."""
    return merge_images(features_TNC, [plan], newline_C)


def merge_images(
    features_TNC: torch.Tensor, plans: Sequence[TilePlan], newline_C: torch.Tensor | None = None
) -> torch.Tensor:
    """The positions of many images, one after another, [sum of plan.num_positions, C].

    ``features_TNC`` are the tiles of all images in order; ``newline_C`` is needed where a plan has newlines.
    """
    num_tiles = sum(plan.num_tiles for plan in plans)
    assert len(features_TNC) == num_tiles, f"{len(features_TNC)} tiles for plans of {num_tiles}"
    assert newline_C is not None or not any(plan.has_newlines for plan in plans), "rows end with a newline vector"
    first_C = features_TNC.new_zeros(features_TNC.shape[2]) if newline_C is None else newline_C.to(features_TNC)
    table_RC = torch.cat([first_C[None], features_TNC.flatten(0, 1)])
    sources, num_before = [], 0
    for plan in plans:
        rows = source_rows(plan)
        sources.append(torch.where(rows > 0, rows + num_before, 0))
        num_before += plan.num_tiles * features_TNC.shape[1]
    # A lookup rather than an index: its backward pass is several times faster on a CPU.
    merged_PC = nn.functional.embedding(torch.cat(sources).to(table_RC.device), table_RC)
    if all(plan.resampling == "none" for plan in plans):
        return merged_PC
    images = merged_PC.split([len(rows) for rows in sources])
    return torch.cat([_resample(rows_PC, plan, first_C) for rows_PC, plan in zip(images, plans, strict=True)])


def merge_and_count(
    features_TNC: torch.Tensor, plans: Sequence[TilePlan], newline_C: torch.Tensor | None, tiling: Tiling
) -> tuple[torch.Tensor, list[int]]:
    """``merge_images``, and how many positions each image takes, where outsiders may have changed these.

    Research on token pruning replaces ``encode_images`` by one that gives fewer features of a tile, which is taken for
    an image of one tile, and ``unpad_image`` by one that keeps something else of a map, which is then called with
    each map [C, height, width] and its image's (width, height), as in the original.

    Raises:
        UsageError: several tiles cannot be laid out in one map because they have more or fewer features than planned.
    """
    plans = [_fit_to_features(plan, features_TNC.shape[1]) for plan in plans]
    unpadded = [plan.has_newlines and plan.num_tiles > 1 for plan in plans]
    if unpad_image is _PLANNED_UNPAD or not any(unpadded):
        return merge_images(features_TNC, plans, newline_C), [plan.num_positions for plan in plans]
    assert newline_C is not None, "rows end with a newline vector"
    tiles = features_TNC.split([plan.num_tiles for plan in plans])
    images = [
        _merge_step_by_step(part_TNC, plan, newline_C, tiling)
        if is_unpadded
        else merge_tiles(part_TNC, plan, newline_C)
        for part_TNC, plan, is_unpadded in zip(tiles, plans, unpadded, strict=True)
    ]
    return torch.cat(images), [len(image) for image in images]


def _fit_to_features(plan: TilePlan, num_features: int) -> TilePlan:
    if num_features == plan.features_per_tile:
        return plan
    if plan.num_tiles > 1:
        raise UsageError(
            f"A tile has {num_features} features, but the map of {plan.grid} tiles is laid out from "
            f"{plan.features_per_tile} of each. Fewer features fit where mm_patch_merge_type is flat."
        )
    return replace(plan, extra_positions=num_features - plan.features_per_side**2)


def _merge_step_by_step(
    features_TNC: torch.Tensor, plan: TilePlan, newline_C: torch.Tensor, tiling: Tiling
) -> torch.Tensor:
    """The positions of one image, its map cut by ``unpad_image`` as it stands now."""
    side, grid = plan.features_per_side, plan.grid
    tiles = features_TNC[1:].unflatten(1, (side, side)).unflatten(0, (grid.height, grid.width))
    whole_CHW = tiles.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)
    map_CHW = unpad_image(whole_CHW, (plan.image.width, plan.image.height))
    kept = Size(map_CHW.shape[2], map_CHW.shape[1])
    shrunk = shrink_map(kept, side, tiling.max_tiles)
    if shrunk != kept:
        size = (shrunk.height, shrunk.width)
        map_CHW = nn.functional.interpolate(map_CHW[None], size, mode="bilinear", align_corners=False)[0]
    map_HWC = map_CHW.permute(1, 2, 0)
    newlines_H1C = newline_C.to(map_HWC).expand(len(map_HWC), 1, -1)
    rows_PC = torch.cat([map_HWC, newlines_H1C], dim=1).flatten(0, 1)
    return torch.cat([features_TNC[0], rows_PC]) if plan.has_base else rows_PC


def merge_frames(
    features_TNC: torch.Tensor, pooling: str | None, newlines: str, newline_C: torch.Tensor | None = None
) -> torch.Tensor:
    """The positions of a video, [P, C], from the features of its frames: maps of half the side, one after another.

    Args:
        pooling: ``mm_spatial_pool_mode``: "average" and "max" leave out the last row and column of an odd side,
            "bilinear" rounds half of it up.
        newlines: ``mm_newline_position``: behind each row of a frame ("grid"), behind each frame ("frame"), behind the
            last ("one_token"), or nowhere ("no_token").

    Raises:
        UsageError: either is something else, a newline is needed and there is none, or a frame is no square.
    """
    side = math.isqrt(features_TNC.shape[1])
    if side**2 != features_TNC.shape[1]:
        raise UsageError(f"A frame has {features_TNC.shape[1]} features, which make no square map.")
    if newlines not in ("grid", "frame", "one_token", "no_token"):
        raise UsageError(f"mm_newline_position is {newlines!r}; it can be grid, frame, one_token or no_token.")
    maps_TCHW = features_TNC.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if pooling == "average":
        maps_TCHW = nn.functional.avg_pool2d(maps_TCHW, 2)
    elif pooling == "max":
        maps_TCHW = nn.functional.max_pool2d(maps_TCHW, 2)
    elif pooling == "bilinear":
        half = math.ceil(side / 2)
        maps_TCHW = nn.functional.interpolate(maps_TCHW, (half, half), mode="bilinear", align_corners=False)
    else:
        raise UsageError(f"mm_spatial_pool_mode is {pooling!r}; a video needs average, max or bilinear.")
    maps_THWC = maps_TCHW.permute(0, 2, 3, 1)
    if newlines == "no_token":
        return maps_THWC.flatten(0, 2)
    if newline_C is None:
        raise UsageError(f"mm_newline_position is {newlines!r}, but the model has no image_newline.")
    newline_C = newline_C.to(maps_THWC)
    num_frames, height, _, width = maps_THWC.shape
    if newlines == "grid":
        return torch.cat([maps_THWC, newline_C.expand(num_frames, height, 1, width)], dim=2).flatten(0, 2)
    if newlines == "frame":
        return torch.cat([maps_THWC.flatten(1, 2), newline_C.expand(num_frames, 1, width)], dim=1).flatten(0, 1)
    return torch.cat([maps_THWC.flatten(0, 2), newline_C[None]])


@lru_cache(maxsize=1024)
def source_rows(plan: TilePlan) -> torch.Tensor:
    """For each position of an image, the feature it shows: 1 + its index among all tiles' features; 0 is a newline.

    A map that is resampled is listed as it is before that, without newlines. On the CPU, int64.
    """
    num_features = plan.features_per_tile
    if plan.is_flat or plan.num_tiles == 1:
        rows = [
            torch.arange(1, plan.num_tiles * num_features + 1),
            torch.zeros(int(plan.has_newlines), dtype=torch.long),
        ]
        return torch.cat(rows)
    side = plan.features_per_side
    y = torch.arange(plan.kept_rows.start, plan.kept_rows.stop)[:, None]
    x = torch.arange(plan.kept_columns.start, plan.kept_columns.stop)[None, :]
    tile = 1 + (y // side) * plan.grid.width + x // side
    page = 1 + tile * num_features + (y % side) * side + x % side
    if plan.has_newlines and plan.resampling == "none":
        page = nn.functional.pad(page, (0, 1))
    base = torch.arange(1, num_features + 1) if plan.has_base else page.new_zeros(0)
    return torch.cat([base, page.flatten()])


def _resample(rows_PC: torch.Tensor, plan: TilePlan, newline_C: torch.Tensor) -> torch.Tensor:
    """The same image with its map scaled to ``plan.map_size``, and the newlines that ``source_rows`` left out."""
    if plan.resampling == "none":
        return rows_PC
    num_base = plan.features_per_tile if plan.has_base else 0
    map_CHW = rows_PC[num_base:].unflatten(0, (len(plan.kept_rows), len(plan.kept_columns))).permute(2, 0, 1)
    if plan.resampling == "maxpool2x2":
        map_CHW = nn.functional.max_pool2d(map_CHW, 2)
    else:
        size = (plan.map_size.height, plan.map_size.width)
        map_CHW = nn.functional.interpolate(map_CHW[None], size, mode="bilinear", align_corners=False)[0]
    map_HWC = map_CHW.permute(1, 2, 0)
    if plan.has_newlines:
        map_HWC = torch.cat([map_HWC, newline_C.expand(len(map_HWC), 1, -1)], dim=1)
    return torch.cat([rows_PC[:num_base], map_HWC.flatten(0, 1)])


def plan_images(tiles_per_image: Sequence[int], sizes: Sequence[Size] | None, tiling: Tiling) -> list[TilePlan]:
    """A plan for each image that arrived as tiles; its size, before any resizing, is needed if they are several.

    Raises:
        UsageError: a size is missing, or stands for another number of tiles than arrived.
    """
    if sizes is not None and len(sizes) != len(tiles_per_image):
        raise UsageError(f"{len(tiles_per_image)} images came with {len(sizes)} image_sizes.")
    # One tile has no grid to put together, whatever the size: also the blank stand-in of a text-only row.
    plan_of_one_tile = plan_tiles(Size(1, 1), replace(tiling, aspect="square"))
    plans = []
    for image, num_tiles in enumerate(tiles_per_image):
        if num_tiles == 1:
            plans.append(plan_of_one_tile)
            continue
        if sizes is None:
            raise UsageError(
                f"An image came as {num_tiles} tiles without its size: pass image_sizes=[(width, height), ...]."
            )
        plan = plan_tiles(sizes[image], _tiling_for(sizes[image], tiling))
        if plan.num_tiles != num_tiles:
            raise UsageError(
                f"An image of {plan.image} px came as {num_tiles} tiles, but the configuration cuts it into "
                f"{plan.num_tiles}. image_sizes are (width, height), before any resizing."
            )
        plans.append(plan)
    return plans


def _tiling_for(size: Size, tiling: Tiling) -> Tiling:
    """The tiling with the one canvas that a replaced ``get_anyres_image_grid_shape`` chooses, else as it is."""
    if get_anyres_image_grid_shape is _PLANNED_GRID or not tiling.is_anyres:
        return tiling
    pinpoints = [(width, height) for width, height in tiling.pinpoints]
    columns, rows = get_anyres_image_grid_shape((size.width, size.height), pinpoints, tiling.tile_px)
    return replace(tiling, pinpoints=(Size(columns * tiling.tile_px, rows * tiling.tile_px),))


def unpad_image(tensor: torch.Tensor, original_size: tuple[int, int]) -> torch.Tensor:
    """A map [C, height, width] without what shows only padding of an image of this (width, height)."""
    columns, rows = unpad(Size(*original_size), Size(tensor.shape[2], tensor.shape[1]), "original")
    return tensor[:, rows.start : rows.stop, columns.start : columns.stop]


# What plans count with. Both may be other functions by the time a model runs.
_PLANNED_UNPAD = unpad_image
_PLANNED_GRID = get_anyres_image_grid_shape


class Merged(NamedTuple):
    """A batch ready for the decoder: what each position is, which are real, and what each should predict."""

    embeds_BLC: torch.Tensor
    mask_BL: torch.Tensor  # bool, True where a position is real
    position_ids_BL: torch.Tensor  # 0.. along the real positions, 0 on padding
    labels_BL: torch.Tensor | None


def splice(
    ids_BL: torch.Tensor,
    mask_BL: torch.Tensor | None,
    labels_BL: torch.Tensor | None,
    features_PC: torch.Tensor,
    num_positions: Sequence[int],
    embed: Callable[[torch.Tensor], torch.Tensor],
    limit_positions: int | None = None,
    pads_left: bool = False,
) -> Merged:
    """Replaces each image slot of ``ids_BL`` by its image's rows of ``features_PC`` and pads the rows anew.

    Args:
        mask_BL: what of ``ids_BL`` to keep (non-zero); None keeps everything. It need not be contiguous.
        features_PC, num_positions: all images' positions in order, and how many belong to each.
        embed: turns the ids that are text, [n], into [n, C].
        limit_positions: cuts longer rows on the right.

    Raises:
        UsageError: the number of images fits neither the slots nor the slots and text-only rows together.
    """
    is_kept = torch.ones_like(ids_BL, dtype=torch.bool) if mask_BL is None else mask_BL.bool()
    is_slot = is_kept & (ids_BL == IMAGE_TOKEN_INDEX)
    is_text = is_kept & ~is_slot
    device = ids_BL.device
    shown_S = torch.tensor(_shown_images(is_slot.sum(1).tolist(), len(num_positions)), device=device, dtype=torch.long)
    counts = torch.tensor(num_positions, device=device, dtype=torch.long)

    # How many positions each id takes, and where its first one goes.
    span_BL = is_kept.long()
    span_BL[is_slot] = counts[shown_S]
    start_BL = span_BL.cumsum(1) - span_BL
    length_B = span_BL.sum(1)
    if limit_positions is not None:
        length_B = length_B.clamp(max=limit_positions)
    width = int(length_B.max())
    first_B = width - length_B if pads_left else torch.zeros_like(length_B)
    row_start_B = torch.arange(len(ids_BL), device=device) * width + first_B

    # Every row is copied once, to its place in the flattened batch; one without a place goes behind the end.
    nowhere = len(ids_BL) * width
    text_to = (row_start_B[:, None] + start_BL)[is_text]
    slot_row = is_slot.nonzero()[:, 0]
    features_to = _place_features(
        counts, shown_S, start_BL[is_slot], row_start_B[slot_row], length_B[slot_row], nowhere
    )
    if limit_positions is not None:
        text_to = torch.where(start_BL[is_text] < limit_positions, text_to, nowhere)

    text_XC = embed(ids_BL[is_text])
    flat = text_XC.new_zeros(nowhere + 1, text_XC.shape[1])
    flat.index_copy_(0, text_to, text_XC)
    flat.index_copy_(0, features_to, features_PC.to(text_XC))
    step_L = torch.arange(width, device=device)
    is_real = (step_L >= first_B[:, None]) & (step_L < (first_B + length_B)[:, None])
    merged_labels = None
    if labels_BL is not None:
        merged_labels = labels_BL.new_full((nowhere + 1,), IGNORE_INDEX)
        merged_labels = merged_labels.index_copy(0, text_to, labels_BL[is_text])[:-1].view(-1, width)
    return Merged(
        embeds_BLC=flat[:-1].view(len(ids_BL), width, -1),
        mask_BL=is_real,
        position_ids_BL=(step_L - first_B[:, None]) * is_real,
        labels_BL=merged_labels,
    )


def _place_features(
    counts_K: torch.Tensor,
    shown_S: torch.Tensor,
    start_S: torch.Tensor,
    row_start_S: torch.Tensor,
    row_length_S: torch.Tensor,
    nowhere: int,
) -> torch.Tensor:
    """Where each position of each image goes in the flattened batch: behind the start of the slot that shows it.

    ``nowhere`` is for images that no slot shows and for what a row has no room for.
    """

    def of_its_slot(value_S: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(counts_K).index_copy(0, shown_S, value_S)[image_P]

    device = counts_K.device
    image_P = torch.repeat_interleave(torch.arange(len(counts_K), device=device), counts_K)
    first_P = (counts_K.cumsum(0) - counts_K)[image_P]
    place_P = of_its_slot(start_S) + torch.arange(len(image_P), device=device) - first_P
    return torch.where(place_P < of_its_slot(row_length_S), of_its_slot(row_start_S) + place_P, nowhere)


def move_padding_left(embeds_BLC: torch.Tensor, mask_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same rows with their padding in front, in the same order otherwise."""
    is_real = mask_BL.bool()
    if bool((is_real[:, 1:] >= is_real[:, :-1]).all()):
        return embeds_BLC, mask_BL
    order_BL = is_real.long().argsort(dim=1, stable=True)
    moved_BLC = embeds_BLC.gather(1, order_BL[:, :, None].expand_as(embeds_BLC))
    return moved_BLC, mask_BL.gather(1, order_BL)


def _shown_images(slots_per_row: Sequence[int], num_images: int) -> list[int]:
    """Which image each slot shows, in batch order."""
    num_slots, num_text_rows = sum(slots_per_row), slots_per_row.count(0)
    if num_images == num_slots:
        return list(range(num_slots))
    if num_images != num_slots + num_text_rows:
        raise UsageError(
            f"The prompts have {num_slots} image slots, but {num_images} images were given."
            + (f" {num_slots + num_text_rows} would also do: one for each row without a slot." if num_text_rows else "")
        )
    shown: list[int] = []
    image = 0
    for slots in slots_per_row:
        shown += range(image, image + slots)
        image += max(slots, 1)
    return shown
