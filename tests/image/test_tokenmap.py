"""The drawing of an image's tiles: its numbers are the plan's, and any plan can be drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from llava.errors import BadImage, UsageError
from llava.image.geometry import (
    ANNOUNCED_GRIDS,
    RELEASED_PINPOINTS,
    Size,
    Tiling,
    parse_pinpoints,
    plan_tiles,
    plan_whole,
    scale_grids,
)
from llava.image.tokenmap import describe_plan, draw_sheet, draw_token_map

RELEASED = Tiling("anyres", "spatial_unpad", pinpoints=RELEASED_PINPOINTS)
ONE_VISION = Tiling("anyres_max_9", "spatial_unpad", tile_px=384, pinpoints=parse_pinpoints("(1x1),...,(6x6)", 384))
POOLED = Tiling("anyres", "spatial_maxpool2x2_nobase", pinpoints=scale_grids(ANNOUNCED_GRIDS, 336))
NEWLINE_BLUE = (47, 104, 214)
KEPT_GREEN = (38, 208, 160)


@pytest.mark.parametrize(
    ("size", "tiling", "caption"),
    [
        (
            (1000, 667),
            RELEASED,
            "1000x667 -> canvas 672x672, 4 tiles + base, 576 + 32 x (48 + 1) = 2144 positions",
        ),
        ((640, 480), Tiling("pad"), "640x480 -> padded to 336x336, 1 tile, 24 x 24 = 576 positions"),
        (
            (640, 480),
            Tiling("square", "spatial_unpad", extra_positions=1),
            "640x480 -> centre square of 336x336, 1 tile, 24 x 24 + 1 + 1 = 578 positions",
        ),
        (
            (640, 480),
            Tiling("anyres", "flat", pinpoints=RELEASED_PINPOINTS),
            "640x480 -> canvas 672x672, 4 tiles + base, 5 x 576 = 2880 positions",
        ),
        ((1344, 400), POOLED, "1344x400 -> canvas 1344x336, 4 tiles, 12 x 48 = 576 positions"),
        ((300, 300), ONE_VISION, "300x300 -> canvas 384x384, 1 tile + base, 729 + 27 x (27 + 1) = 1485 positions"),
    ],
)
def test_the_sums_in_the_caption_are_correct(size, tiling, caption) -> None:
    plan = plan_tiles(Size(*size), tiling)
    assert describe_plan(plan, tiling) == caption
    sides = caption.rsplit(", ", 1)[1].removesuffix(" positions").replace(" x ", " * ").split(" = ")
    assert eval(sides[0]) == int(sides[1]) == plan.num_positions


def _count(sheet: Image.Image, color: tuple[int, int, int]) -> int:
    return sum(number for number, found in sheet.getcolors(1 << 24) if found == color)


@pytest.mark.parametrize("tiling", [Tiling(), Tiling("pad", "spatial_unpad"), RELEASED, ONE_VISION, POOLED])
@pytest.mark.parametrize("size", [(640, 480), (1, 1), (2000, 10), (10, 2000), (1, 5000)])
def test_any_plan_can_be_drawn(size, tiling) -> None:
    plan = plan_tiles(Size(*size), tiling)
    sheet = draw_sheet(Image.new("RGB", size, "red"), plan, tiling)
    assert sheet.mode == "RGB"
    assert max(sheet.size) < 2000
    legend_newline = 160  # the swatch
    assert (_count(sheet, NEWLINE_BLUE) > legend_newline) == (plan.has_newlines and len(plan.kept_rows) > 0)
    assert _count(sheet, KEPT_GREEN) > 0


def test_there_is_one_newline_field_for_each_row() -> None:
    plan = plan_tiles(Size(1000, 667), RELEASED)
    sheet = draw_sheet(Image.new("RGB", (1000, 667), "red"), plan, RELEASED)
    column = [sheet.getpixel((sheet.width - 45, y)) == NEWLINE_BLUE for y in range(sheet.height)]
    assert sum(now and not before for before, now in zip([False, *column], column, strict=False)) == 32


def test_the_drawing_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "new" / "map.png"
    draw_token_map(Image.new("RGBA", (300, 200), "red"), RELEASED, path)
    with Image.open(path) as drawn:
        assert drawn.format == "PNG"
        assert drawn.width > 600


@pytest.mark.parametrize("name", ["map.what", "map", "a\0.png"])
def test_a_path_that_cannot_be_written_is_a_wrong_call(name, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.png"):
        draw_token_map(Image.new("RGB", (3, 3)), Tiling(), tmp_path / name)


def test_an_image_without_rgb_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="floating-point"):
        draw_token_map(Image.new("F", (3, 3), float("nan")), Tiling(), tmp_path / "map.png")


def test_an_image_shown_whole_is_said_to_be_stretched() -> None:
    plan = plan_whole(Size(265, 102), RELEASED)
    assert describe_plan(plan, RELEASED) == "265x102 -> stretched to 336x336, 1 tile, 24 x 24 + 1 = 577 positions"
    assert draw_sheet(Image.new("RGB", (265, 102)), plan, RELEASED).width > 336
