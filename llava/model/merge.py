"""Lays out the features of an image's tiles as the positions that the image takes in a prompt, by its ``TilePlan``.

The base tile's features come first, then the map of the grid's tiles, read row by row like a page, without padding and
with a newline vector at the end of each row. No feature is changed, except by the two merges that resample the map, so
a merge is a list of source rows. Exactly ``plan.num_positions`` positions result.

Shape letters: T tiles, N features of one tile, P positions of all images, R rows to look up, C width of the language
model, H and W rows and columns of a map.

Source: haotian-liu/LLaVA@c121f04 llava/model/llava_arch.py; LLaVA-VL/LLaVA-NeXT@df17966 for ``anyres_max_N``,
``maxpool2x2``, ``nobase`` and videos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from llava.errors import UsageError
from llava.image.geometry import TilePlan
from llava.model.newline import NEWLINE_ROW, end_rows, prepend_newline


def merge(features_TNC: torch.Tensor, plan: TilePlan, newline_C: torch.Tensor | None = None) -> torch.Tensor:
    """The positions of one image, [plan.num_positions, C], from the features of its tiles, base tile first.

    ``newline_C`` is needed if the plan has newlines.
    """
    return merge_images(features_TNC, [plan], newline_C)


def merge_images(
    features_TNC: torch.Tensor, plans: Sequence[TilePlan], newline_C: torch.Tensor | None = None
) -> torch.Tensor:
    """The positions of several images, one image after another, [sum of plan.num_positions, C].

    ``features_TNC``: the tiles of all images, in order. ``newline_C`` is needed if a plan has newlines.
    """
    num_tiles = sum(plan.num_tiles for plan in plans)
    assert len(features_TNC) == num_tiles, f"{len(features_TNC)} tiles for plans of {num_tiles}"
    assert newline_C is not None or not any(plan.has_newlines for plan in plans), "rows end with a newline vector"
    table_RC = prepend_newline(features_TNC.flatten(0, 1), newline_C)
    sources, num_before = [], 0
    for plan in plans:
        rows = source_rows(plan)
        sources.append(torch.where(rows == NEWLINE_ROW, NEWLINE_ROW, rows + num_before))
        num_before += plan.num_tiles * features_TNC.shape[1]
    # An embedding lookup instead of indexing: its backward pass is several times faster on a CPU.
    merged_PC = nn.functional.embedding(torch.cat(sources).to(table_RC.device), table_RC)
    if all(plan.resampling == "none" for plan in plans):
        return merged_PC
    images = merged_PC.split([len(rows) for rows in sources])
    return torch.cat([_resample(rows_PC, plan, newline_C) for rows_PC, plan in zip(images, plans, strict=True)])


@lru_cache(maxsize=1024)
def source_rows(plan: TilePlan) -> torch.Tensor:
    """For each position of an image, its row of ``prepend_newline``'s result, int64 on the CPU.

    The row is NEWLINE_ROW, or 1 + the index of a feature among the features of all tiles. A map that is resampled is
    listed before resampling, without newlines.
    """
    num_features = plan.features_per_tile
    if plan.is_flat or plan.num_tiles == 1:
        rows = [
            torch.arange(1, plan.num_tiles * num_features + 1),
            torch.full((int(plan.has_newlines),), NEWLINE_ROW),
        ]
        return torch.cat(rows)
    side = plan.features_per_side
    y = torch.arange(plan.kept_rows.start, plan.kept_rows.stop)[:, None]
    x = torch.arange(plan.kept_columns.start, plan.kept_columns.stop)[None, :]
    tile = 1 + (y // side) * plan.grid.width + x // side
    page = 1 + tile * num_features + (y % side) * side + x % side
    if plan.has_newlines and plan.resampling == "none":
        page = nn.functional.pad(page, (0, 1), value=NEWLINE_ROW)
    base = torch.arange(1, num_features + 1) if plan.has_base else page.new_zeros(0)
    return torch.cat([base, page.flatten()])


def _resample(rows_PC: torch.Tensor, plan: TilePlan, newline_C: torch.Tensor | None) -> torch.Tensor:
    """The positions of an image with its map resampled to ``plan.map_size``, and the map's newlines if it has any."""
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
    if plan.has_newlines and newline_C is not None:
        map_HWC = end_rows(map_HWC, newline_C)
    return torch.cat([rows_PC[:num_base], map_HWC.flatten(0, 1)])


def merge_frames(
    features_TNC: torch.Tensor, pooling: str | None, newlines: str, newline_C: torch.Tensor | None = None
) -> torch.Tensor:
    """The positions [P, C] of a video, from its frames' features: maps pooled to half the side, one after another.

    Args:
        pooling: ``mm_spatial_pool_mode``: "average" and "max" drop the last row and column of an odd side,
            "bilinear" rounds half of an odd side up.
        newlines: ``mm_newline_position``: a newline vector after each row of a frame ("grid"), after each frame
            ("frame"), after the last frame ("one_token"), or none ("no_token").

    Raises:
        UsageError: either has another value, a needed newline vector is missing, or a frame's features make no square.
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
    if newlines == "grid":
        return end_rows(maps_THWC, newline_C).flatten(0, 2)
    if newlines == "frame":
        return end_rows(maps_THWC.flatten(1, 2), newline_C).flatten(0, 1)
    return end_rows(maps_THWC.flatten(0, 2), newline_C)
