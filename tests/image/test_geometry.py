"""Counts and places of tiles: the worked examples, agreement with Transformers, and invariants for any size."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.errors import BadImage, CheckpointError, UsageError
from llava.image.geometry import (
    ANNOUNCED_GRIDS,
    GRID_SPEC_TILES_PX,
    RELEASED_PINPOINTS,
    Size,
    TilePlan,
    Tiling,
    choose_canvas,
    parse_pinpoints,
    plan_tiles,
    plan_whole,
    scale_grids,
)

GOLD = Path(__file__).parents[1] / "gold" / "tile_plans.csv"
RELEASED = Tiling("anyres", "spatial_unpad", pinpoints=RELEASED_PINPOINTS)
# The same canvases as Transformers lists them: (height, width) read as (width, height) has the wide one first.
TRANSPOSED = tuple(Size(height, width) for width, height in RELEASED_PINPOINTS)
HF = Tiling("anyres", "spatial_unpad", pinpoints=TRANSPOSED, dialect="hf")
ONE_VISION = Tiling("anyres_max_9", "spatial_unpad", tile_px=384, pinpoints=parse_pinpoints("(1x1),...,(6x6)", 384))


def _positions(width: int, height: int, tiling: Tiling) -> int:
    return plan_tiles(Size(width, height), tiling).num_positions


def _gold() -> list[list[str]]:
    lines = GOLD.read_text().splitlines()
    return [line.split(",") for line in lines if not line.startswith("#")]


def _size(text: str) -> Size:
    width, height = text.split("x")
    return Size(int(width), int(height))


@pytest.mark.parametrize("row", _gold(), ids=lambda row: row[0])
def test_every_worked_example_is_correct(row: list[str]) -> None:
    image, canvas, num_tiles, content, offset, kept, num_positions = row
    plan = plan_tiles(_size(image), RELEASED)
    assert plan.canvas == _size(canvas)
    assert plan.num_tiles == int(num_tiles)
    assert plan.content == _size(content)
    assert plan.offset == tuple(map(int, offset.split("+")))
    assert (len(plan.kept_columns), len(plan.kept_rows)) == _size(kept)
    assert plan.num_positions == int(num_positions)


@pytest.mark.parametrize(
    ("size", "canvas", "map_size", "num_positions"),
    [
        ((336, 336), (384, 384), (27, 27), 1485),
        ((1000, 667), (1152, 768), (81, 54), 5157),
        ((640, 480), (768, 768), (54, 40), 2929),
        ((1920, 1080), (1920, 1152), (108, 60), 7269),
        ((2304, 2304), (2304, 2304), (81, 81), 7371),
    ],
)
def test_one_vision_takes_up_to_36_tiles_and_scales_large_maps_down(size, canvas, map_size, num_positions) -> None:
    plan = plan_tiles(Size(*size), ONE_VISION)
    assert (plan.canvas, plan.map_size, plan.num_positions) == (canvas, map_size, num_positions)
    kept = Size(len(plan.kept_columns), len(plan.kept_rows))
    assert plan.resampling == ("none" if kept == map_size else "bilinear")


@pytest.mark.parametrize(
    ("size", "original", "hf"), [((300, 200), 976, 1464), ((320, 240), 1026, 1368), ((200, 300), 1476, 984)]
)
def test_a_small_image_takes_the_first_pinpoint(size, original, hf) -> None:
    assert _positions(*size, RELEASED) == original
    assert _positions(*size, HF) == hf


@pytest.mark.parametrize(
    ("size", "original", "hf"), [((704, 396), 1850, 1948), ((396, 704), 1872, 1968), ((656, 205), 1262, 1360)]
)
def test_the_dialects_round_differently_where_padding_is_left_out(size, original, hf) -> None:
    assert _positions(*size, RELEASED) == original
    assert _positions(*size, HF) == hf


def test_one_pixel_more_than_a_tile_costs_a_whole_grid() -> None:
    assert (_positions(336, 336, RELEASED), _positions(337, 337, RELEASED)) == (1176, 2928)


def test_the_three_to_two_images_of_a_2x2_grid_take_2144_positions() -> None:
    assert {_positions(width, 1000, RELEASED) for width in (1455, 1500, 1548)} == {2144}


@pytest.mark.parametrize("aspect", ["square", "pad", "whatever"])
@pytest.mark.parametrize(("merge", "num_positions"), [("flat", 576), ("spatial", 576), ("spatial_unpad", 577)])
def test_an_image_of_one_tile_takes_its_features_and_at_most_one_newline(aspect, merge, num_positions) -> None:
    plan = plan_tiles(Size(640, 480), Tiling(aspect, merge))
    assert plan.num_tiles == 1
    assert plan.num_positions == num_positions


@pytest.mark.parametrize(
    ("merge", "num_positions"),
    [
        ("flat", 5 * 576),
        ("spatial", 576 + 48 * 48),
        ("spatial_unpad", 576 + 36 * 49),
        ("spatial_nobase", 48 * 48),
        ("spatial_unpad_nobase", 36 * 49),
        ("spatial_maxpool2x2", 576 + 24 * 24),
        ("spatial_maxpool2x2_nobase", 24 * 24),
        ("spatial_unpad_maxpool2x2", 576 + 24 * 24),
    ],
)
def test_each_merge_type_counts_its_own_way(merge, num_positions) -> None:
    plan = plan_tiles(Size(640, 480), Tiling("anyres", merge, pinpoints=RELEASED_PINPOINTS))
    assert plan.num_tiles == 5
    assert plan.num_positions == num_positions


def test_an_odd_map_loses_its_last_row_and_column_to_2x2_pooling() -> None:
    tiling = Tiling("anyres", "spatial_maxpool2x2", tile_px=384, pinpoints=(Size(384, 384),))
    assert plan_tiles(Size(10, 10), tiling).map_size == Size(13, 13)


def test_the_class_feature_counts_once_per_tile_and_only_where_it_has_a_place() -> None:
    assert plan_tiles(Size(640, 480), Tiling(extra_positions=1)).num_positions == 577
    flat = Tiling("anyres", "flat", pinpoints=RELEASED_PINPOINTS, extra_positions=1)
    assert plan_tiles(Size(640, 480), flat).num_positions == 5 * 577
    with pytest.raises(CheckpointError, match=r"'spatial_unpad'.*'cls_patch'"):
        Tiling("anyres", "spatial_unpad", pinpoints=RELEASED_PINPOINTS, extra_positions=1)


def test_the_announced_grids_reach_four_tiles_in_a_row() -> None:
    pinpoints = scale_grids(ANNOUNCED_GRIDS, 336)
    assert len(set(pinpoints)) == 7
    tiling = Tiling("anyres", "spatial_unpad", pinpoints=pinpoints)
    assert plan_tiles(Size(1344, 336), tiling).grid == Size(4, 1)
    assert plan_tiles(Size(336, 1344), tiling).num_positions == 576 + 96 * 25
    assert plan_tiles(Size(100, 100), tiling).canvas == Size(336, 672)


@pytest.mark.parametrize("tile_px", GRID_SPEC_TILES_PX)
def test_a_grid_spec_is_every_grid_from_its_first_to_its_last(tile_px) -> None:
    pinpoints = parse_pinpoints("(1x1),...,(6x6)", tile_px)
    assert len(pinpoints) == 36
    assert pinpoints[:2] == (Size(tile_px, tile_px), Size(tile_px, 2 * tile_px))
    assert pinpoints[-1] == Size(6 * tile_px, 6 * tile_px)
    assert parse_pinpoints("(1x2), (2x3)", tile_px) == scale_grids([(1, 2), (1, 3), (2, 2), (2, 3)], tile_px)


@pytest.mark.parametrize("value", [[[336, 672], [672, 336]], ((336, 672), (672, 336)), "[(336, 672), [672, 336]]"])
def test_pinpoints_may_be_a_list_or_its_text(value) -> None:
    assert parse_pinpoints(value, 336) == (Size(336, 672), Size(672, 336))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[336, 700]], "336x700.*336x336"),
        ([[336, 0]], r"\[336, 0\]"),
        ([[336]], r"\[336\]"),
        ([[336.0, 672]], "336.0"),
        ([], "at least one"),
        (None, "at least one"),
        ("[]", "at least one"),
        ("__import__('os')", "neither a list nor a spec"),
        ("a by b", "neither a list nor a spec"),
        ("x", "holds no grid"),
        ("(3x3),(2x2)", "does not lead"),
        ("(0x1),(2x2)", "does not lead"),
        ("(1x1),(9999x9999)", "does not lead"),
    ],
)
def test_pinpoints_that_make_no_sense_are_refused_with_the_value(value, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_pinpoints(value, 336)


def test_a_grid_spec_is_refused_for_a_tile_size_it_was_not_made_for() -> None:
    with pytest.raises(CheckpointError, match="100 px"):
        parse_pinpoints("(1x1),...,(6x6)", 100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"aspect": "anyres"}, "at least one"),
        ({"aspect": "anyres_max_x", "pinpoints": RELEASED_PINPOINTS}, "anyres_max_x"),
        ({"aspect": "highres"}, "'highres'.*not supported"),
        ({"merge": "spatial_unpadded"}, "Unexpected mm_patch_merge_type: spatial_unpadded"),
        ({"merge": "flat_unpad"}, "flat_unpad"),
        ({"dialect": "hub"}, "'hub'"),
        ({"tile_px": 7}, "7 px.*14 px"),
    ],
)
def test_a_tiling_without_a_meaning_cannot_be_made(fields, message) -> None:
    with pytest.raises(CheckpointError, match=message):
        Tiling(**fields)


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5.0, 5), (5,), (True, 5)])
def test_an_invalid_size_is_refused(size) -> None:
    with pytest.raises(UsageError, match="whole px above 0"):
        plan_tiles(size, Tiling())


def test_a_map_that_scaling_down_would_wipe_out_is_refused() -> None:
    tiling = Tiling("anyres_max_1", "spatial_unpad", pinpoints=(Size(336 * 60, 336),))
    with pytest.raises(BadImage, match=r"40000x30 px.*anyres_max_1"):
        plan_tiles(Size(40_000, 30), tiling)


def test_no_canvas_to_choose_from_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="empty"):
        choose_canvas(Size(1, 1), [])


def test_a_configuration_may_be_an_object_or_a_mapping() -> None:
    values = {
        "image_aspect_ratio": "anyres",
        "mm_patch_merge_type": "spatial_unpad",
        "image_grid_pinpoints": [list(pinpoint) for pinpoint in RELEASED_PINPOINTS],
    }
    assert Tiling.from_config(values, tile_px=336, patch_px=14) == RELEASED
    assert Tiling.from_config(SimpleNamespace(**values), tile_px=336, patch_px=14) == RELEASED
    assert hash(RELEASED) == hash(Tiling.from_config(values, tile_px=336, patch_px=14))


def test_an_empty_configuration_means_the_originals_defaults() -> None:
    assert Tiling.from_config({}, tile_px=336, patch_px=14) == Tiling()
    nothing = {"image_aspect_ratio": None, "mm_patch_merge_type": None, "image_grid_pinpoints": None}
    assert Tiling.from_config(nothing, tile_px=336, patch_px=14) == Tiling()


def test_pinpoints_count_only_where_images_are_tiled() -> None:
    config = {"image_aspect_ratio": "pad", "image_grid_pinpoints": [[1, 2]], "mm_vision_select_feature": "cls_patch"}
    assert Tiling.from_config(config, tile_px=336, patch_px=14) == Tiling("pad", extra_positions=1)
    with pytest.raises(CheckpointError, match=r"1x2.*336"):
        Tiling.from_config({**config, "image_aspect_ratio": "anyres"}, tile_px=336, patch_px=14)


@pytest.mark.parametrize(
    ("size", "aspect", "content", "offset"),
    [
        ((640, 480), "square", (448, 336), (-56, 0)),
        ((480, 640), "square", (336, 448), (0, -56)),
        ((640, 480), "pad", (336, 252), (0, 42)),
        ((3, 1), "pad", (336, 112), (0, 112)),
        ((1, 5000), "pad", (1, 336), (168, 0)),
    ],
)
def test_the_plan_of_one_tile_says_where_the_image_lies_on_it(size, aspect, content, offset) -> None:
    plan = plan_tiles(Size(*size), Tiling(aspect))
    assert (plan.canvas, plan.content, plan.offset) == ((336, 336), content, offset)


@pytest.mark.parametrize("merge", ["flat", "spatial", "spatial_unpad", "spatial_unpad_nobase"])
def test_a_whole_image_is_its_base_tile_alone(merge) -> None:
    tiling = Tiling("anyres", merge, pinpoints=RELEASED_PINPOINTS)
    plan = plan_whole(Size(1000, 300), tiling)
    assert (plan.num_tiles, plan.content, plan.offset, plan.grid) == (1, (336, 336), (0, 0), (1, 1))
    assert plan.num_positions == 24 * 24 + ("unpad" in merge)
    square = Tiling("pad")
    assert plan_whole(Size(1000, 300), square) == plan_tiles(Size(1000, 300), square)


# Against Transformers


def _sizes(num: int) -> list[Size]:
    rng = random.Random(0)
    return [Size(rng.randint(1, limit), rng.randint(1, limit)) for limit in (336, 1200, 4000) for _ in range(num)]


def _transformers_positions(size: Size) -> int:
    from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

    processor = LlavaNextProcessor.__new__(LlavaNextProcessor)
    processor.patch_size, processor.num_additional_image_tokens = 14, 1
    processor.image_processor = SimpleNamespace(
        image_grid_pinpoints=[list(pinpoint) for pinpoint in RELEASED_PINPOINTS]
    )
    return processor._get_number_of_features(size.height, size.width, 336, 336) - 1  # "default": without the class


def test_the_hf_dialect_counts_as_transformers_does_for_any_size() -> None:
    sizes = [*_sizes(500), Size(704, 396), Size(396, 704), Size(656, 205), Size(2000, 10), Size(10, 2000)]
    assert [_positions(*size, HF) for size in sizes] == [_transformers_positions(size) for size in sizes]


def test_images_are_resized_to_what_transformers_resizes_them_to() -> None:
    import numpy as np
    from transformers.image_processing_utils import get_patch_output_size

    for size in _sizes(300):
        plan = plan_tiles(size, HF)
        empty = np.broadcast_to(np.uint8(0), (3, size.height, size.width))
        assert get_patch_output_size(empty, (plan.canvas.height, plan.canvas.width), "channels_first") == (
            plan.content.height,
            plan.content.width,
        )


def _shown(size: Size, canvas: Size) -> int:
    """How much of an image a canvas shows; 0 for one that becomes thinner than a pixel, whatever the canvas."""
    scale = min(canvas.width / size.width, canvas.height / size.height)
    return min(int(size.width * scale) * int(size.height * scale), size.width * size.height)


def test_the_dialects_count_alike_but_for_ties_and_for_odd_wholes_hit_from_below() -> None:
    differing = 0
    for size in [*_sizes(1500), Size(704, 396), Size(396, 704), Size(656, 205)]:
        original, hf = plan_tiles(size, RELEASED), plan_tiles(size, HF)
        if original.canvas != hf.canvas:
            assert _shown(size, original.canvas) == _shown(size, hf.canvas), f"{size} is no tie"
        elif original.num_positions != hf.num_positions:
            differing += 1
            full = Size(original.grid.width * 24, original.grid.height * 24)
            exact = min(Fraction(size.height * full.width, size.width), Fraction(size.width * full.height, size.height))
            assert exact.denominator == 1, f"{size} is no whole number"
            assert exact.numerator % 2 == 1, f"{size} is even"
    assert differing >= 3


# What must hold for any size

SIDES = st.integers(1, 3000)
TILINGS = st.sampled_from(
    [
        Tiling(),
        Tiling("pad"),
        Tiling("pad", "spatial_unpad"),
        RELEASED,
        HF,
        ONE_VISION,
        Tiling("anyres", "flat", pinpoints=RELEASED_PINPOINTS),
        Tiling("anyres", "spatial_maxpool2x2_nobase", pinpoints=scale_grids(ANNOUNCED_GRIDS, 336)),
        Tiling("anyres_max_1", "spatial_unpad_nobase", tile_px=224, pinpoints=parse_pinpoints("(1x1),(4x4)", 224)),
    ]
)


def _count_by_hand(plan: TilePlan) -> int:
    """Positions counted one by one, as they are laid out."""
    if plan.num_tiles == 1 or plan.is_flat:
        return sum(plan.features_per_tile for _ in range(plan.num_tiles)) + (1 if plan.has_newlines else 0)
    rows = [[0] * plan.map_size.width + [1] * plan.has_newlines for _ in range(plan.map_size.height)]
    return sum(map(len, rows)) + plan.has_base * plan.features_per_tile


@settings(max_examples=300)
@given(SIDES, SIDES, TILINGS)
def test_any_plan_is_consistent(width: int, height: int, tiling: Tiling) -> None:
    plan = plan_tiles(Size(width, height), tiling)
    side, grid = plan.features_per_side, plan.grid
    assert plan.canvas == (grid.width * tiling.tile_px, grid.height * tiling.tile_px)
    assert plan.num_tiles == (grid.width * grid.height + 1 if tiling.is_anyres else 1)
    assert set(plan.kept_columns) <= set(range(grid.width * side))
    assert set(plan.kept_rows) <= set(range(grid.height * side))
    kept = Size(len(plan.kept_columns), len(plan.kept_rows))
    if plan.resampling == "none":
        assert plan.map_size == kept
    else:
        assert plan.map_size.width <= kept.width
        assert plan.map_size.height <= kept.height
    assert plan.num_positions == _count_by_hand(plan)
    assert min(plan.content) >= 1
    for offset, content, canvas in zip(plan.offset, plan.content, plan.canvas, strict=True):
        # Centred to the pixel (of the image itself, where it is padded before it is resized); larger than the
        # canvas only where its centre is cut out.
        pixel = 2 + tiling.tile_px / max(plan.image) if tiling.aspect == "pad" else 1
        assert abs(canvas - content - 2 * offset) <= pixel
        assert offset >= 0 or tiling.aspect == "square"


@settings(max_examples=200)
@given(SIDES, SIDES)
def test_the_kept_features_cover_the_image_to_within_one_feature(width: int, height: int) -> None:
    plan = plan_tiles(Size(width, height), RELEASED)
    for kept, offset, content in zip((plan.kept_columns, plan.kept_rows), plan.offset, plan.content, strict=True):
        assert kept.start * 14 <= offset + 14
        assert kept.stop * 14 >= offset + content - 14


@settings(max_examples=200)
@given(SIDES, SIDES)
def test_turning_an_image_turns_its_plan_unless_it_is_a_tie(width: int, height: int) -> None:
    plan, turned = plan_tiles(Size(width, height), RELEASED), plan_tiles(Size(height, width), RELEASED)
    mirrored = Size(plan.canvas.height, plan.canvas.width)
    if turned.canvas != mirrored:
        assert _shown(turned.image, turned.canvas) == _shown(turned.image, mirrored)
    else:
        assert (turned.kept_rows, turned.kept_columns) == (plan.kept_columns, plan.kept_rows)
