"""Draws an image's ``TilePlan``: its tiles, the features that reach the prompt, and those that do not.

The drawing shows where a number of positions comes from. Everything in it is read from the plan; nothing is computed
again.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from llava.errors import UsageError
from llava.image.geometry import Size, TilePlan, Tiling, plan_tiles
from llava.image.tones import to_rgb

Color = tuple[int, ...]
Box = tuple[float, float, float, float]

_PAPER = (252, 251, 248)
_INK = (32, 33, 38)
_FAINT = (122, 122, 130)
_TILE = (255, 183, 27)
_KEPT = (38, 208, 160)
_NEWLINE = (47, 104, 214)
_SHADE = (18, 18, 22, 170)
_BLACK = (0, 0, 0)
_CLEAR = (0, 0, 0, 0)
_MEAN = (122, 116, 104)  # CLIP's mean, the padding of squares
_GREY = (127, 127, 127)  # SigLIP's

_MARGIN_PX = 36
_GAP_PX = 44
_MAP_PX = 720  # the longer side of the map, at most
_BASE_PX = 264
_HATCH_PX = 9


def draw_token_map(image: Image.Image, tiling: Tiling, path: str | Path) -> None:
    """Writes a drawing of the image's tiles and positions to ``path``, in the format of the file's extension.

    The base tile, if there is one, is on the left, the canvas on the right. The kept part has a grid with one cell for
    each feature that takes a position; the dropped part is hatched; blue cells are newlines. Missing folders are made.

    Raises:
        UsageError: ``path`` cannot be written, or its extension names no format.
        BadImage, CheckpointError: see ``plan_tiles``.
    """
    image = to_rgb(image)
    sheet = draw_sheet(image, plan_tiles(Size(*image.size), tiling), tiling)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"The drawing cannot be written to {path}. A path that ends in .png can.") from error


def describe_plan(plan: TilePlan, tiling: Tiling) -> str:
    """One line with the arithmetic of an image's positions.

    For example ``1000x667 -> canvas 672x672, 4 tiles + base, 576 + 32 x (48 + 1) = 2144 positions``.
    """
    num_grid_tiles = plan.grid.width * plan.grid.height
    newline = " + 1" if plan.has_newlines else ""
    if plan.num_tiles == 1:
        squashed = "stretched to"
        fitted = {"base": squashed, "squash": squashed, "pad": "padded to", "crop": "centre square of"}[plan.fit]
        square = f"{plan.features_per_side} x {plan.features_per_side}" + (" + 1" if plan.extra_positions else "")
        counted = "" if plan.position_range else f"{square}{newline} = "
        return f"{plan.image} -> {fitted} {plan.canvas}, 1 tile, {counted}{plan.say_positions()}"
    tiles = f"{num_grid_tiles} tile{'s' if num_grid_tiles > 1 else ''}" + (" + base" if plan.has_base else "")
    columns, rows = plan.map_size
    if plan.position_range:
        return f"{plan.image} -> canvas {plan.canvas}, {tiles}, {plan.say_positions()}"
    if plan.is_flat:
        counted = f"{plan.num_tiles} x {plan.features_per_tile}"
    else:
        counted = f"{rows} x ({columns} + 1)" if plan.has_newlines else f"{rows} x {columns}"
        counted = f"{plan.features_per_tile} + {counted}" if plan.has_base else counted
    return f"{plan.image} -> canvas {plan.canvas}, {tiles}, {counted} = {plan.num_positions} positions"


def draw_sheet(image: Image.Image, plan: TilePlan, tiling: Tiling) -> Image.Image:
    """The drawing: caption, base tile, canvas and legend. ``image`` is RGB and has the plan's size."""
    panels = draw_panels(image, plan, tiling)
    caption, legend = describe_plan(plan, tiling), draw_legend(plan, tiling)
    legend_px = sum(30 + _font(15).getlength(text) + 26 for _, text in legend)
    panels_px = sum(panel.width for _, panel in panels) + _GAP_PX * (len(panels) - 1)
    width = 2 * _MARGIN_PX + int(max(panels_px, legend_px, _font(22).getlength(caption)))
    top = _MARGIN_PX + 74
    bottom = top + max(panel.height for _, panel in panels)
    sheet = Image.new("RGB", (width, bottom + 36 + 20 + _MARGIN_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN_PX, _MARGIN_PX - 4), caption, _INK, _font(22))
    left = _MARGIN_PX
    for heading, panel in panels:
        draw.text((left, top - 28), heading, _FAINT, _font(15))
        sheet.paste(panel, (left, top), panel)
        left += panel.width + _GAP_PX
    at = float(_MARGIN_PX)
    for swatch, text in legend:
        sheet.paste(swatch, (round(at), bottom + 36), swatch)
        draw.text((at + 30, bottom + 36 + 10), text, _INK, _font(15), anchor="lm")
        at += 30 + _font(15).getlength(text) + 26
    return sheet


def draw_panels(image: Image.Image, plan: TilePlan, tiling: Tiling) -> list[tuple[str, Image.Image]]:
    """The panels of the drawing, each a heading and an RGBA image: the base tile of several tiles, and the canvas."""
    panels = [(_map_heading(plan), _draw_map(image, plan, tiling).convert("RGBA"))]
    if plan.num_tiles > 1:
        panels.insert(0, (_base_heading(plan), _draw_base(image, plan).convert("RGBA")))
    return panels


def draw_legend(plan: TilePlan, tiling: Tiling) -> list[tuple[Image.Image, str]]:
    """The entries of the legend, each an RGBA swatch of 20x20 px and a short text."""
    return [(swatch.convert("RGBA"), text) for swatch, text in _legend(plan, tiling)]


def _padding(tiling: Tiling) -> Color:
    if tiling.aspect != "pad":
        return _BLACK
    return _GREY if tiling.squashes else _MEAN


def _base_heading(plan: TilePlan) -> str:
    side = plan.features_per_side
    if plan.position_range:
        return "base tile, for the things in it"
    return f"base tile, {side} x {side} features" if plan.has_base else "base tile, not used"


def _map_heading(plan: TilePlan) -> str:
    side = plan.features_per_side
    if plan.position_range:
        tiles = f"canvas, {plan.grid.width} x {plan.grid.height} tiles" if plan.num_tiles > 1 else "the tile"
        return f"{tiles}, for what is written and drawn"
    if plan.num_tiles == 1:
        return f"the tile, {side} x {side} features"
    full = f"{plan.grid.width * side} x {plan.grid.height * side}"
    heading = f"canvas, {plan.grid.width} x {plan.grid.height} tiles, {full} features"
    kept = f"{len(plan.kept_columns)} x {len(plan.kept_rows)}"
    if kept != full:
        heading += f", kept {kept}"
    if plan.resampling != "none":
        heading += (
            f", {'pooled' if plan.resampling == 'maxpool2x2' else 'scaled'} to {' x '.join(map(str, plan.map_size))}"
        )
    return heading


def _draw_base(image: Image.Image, plan: TilePlan) -> Image.Image:
    side = plan.features_per_side
    edge = side * max(3, _BASE_PX // side)
    panel = image.resize((edge, edge), Image.Resampling.BICUBIC)
    if plan.has_base:
        _draw_grid(panel, (0, 0, edge, edge), Size(side, side))
    else:
        _leave_out(panel, (0, 0, 0, 0))
    _frame(panel, (0, 0, edge, edge), _TILE)
    _draw_number(panel, (0, 0, edge, edge), 0)
    return panel


def _draw_map(image: Image.Image, plan: TilePlan, tiling: Tiling) -> Image.Image:
    """The canvas with its kept and its dropped parts, the tiles and the newlines."""
    side, (columns, rows) = plan.features_per_side, plan.grid
    field_px = max(3, min(20, _MAP_PX // (max(columns, rows) * side)))
    scale = field_px * side / tiling.tile_px
    # An image that is cropped extends beyond the canvas; as much of it is shown as fits on the sheet.
    over_x = min(-round(min(plan.offset[0], 0) * scale), _MAP_PX // 2)
    over_y = min(-round(min(plan.offset[1], 0) * scale), _MAP_PX // 2)
    canvas_px = Size(columns * side * field_px, rows * side * field_px)
    panel = _hatch(Size(canvas_px.width + 2 * over_x, canvas_px.height + 2 * over_y), _padding(tiling))
    _paste_content(panel, image, plan, scale, (over_x, over_y))

    kept = (
        over_x + plan.kept_columns.start * field_px,
        over_y + plan.kept_rows.start * field_px,
        over_x + plan.kept_columns.stop * field_px,
        over_y + plan.kept_rows.stop * field_px,
    )
    _leave_out(panel, kept)
    _draw_grid(panel, kept, plan.map_size)
    boxes = []
    tile_px = side * field_px
    for number in range(columns * rows):
        row, column = divmod(number, columns)
        left, top = over_x + column * tile_px, over_y + row * tile_px
        boxes.append((left, top, left + tile_px, top + tile_px))
        _frame(panel, boxes[-1], _TILE)
    _frame(panel, kept, _KEPT)
    if plan.num_tiles > 1:
        for number, box in enumerate(boxes, start=1):
            _draw_number(panel, box, number)
    return _add_newlines(panel, kept, plan, field_px) if plan.has_newlines else panel


def _paste_content(
    panel: Image.Image, image: Image.Image, plan: TilePlan, scale: float, shift: tuple[int, int]
) -> None:
    """Pastes the image at its place on the canvas; only the visible part is resized."""
    left, top = shift[0] + plan.offset[0] * scale, shift[1] + plan.offset[1] * scale
    shown = (
        max(0, round(left)),
        max(0, round(top)),
        min(panel.width, round(left + plan.content.width * scale)),
        min(panel.height, round(top + plan.content.height * scale)),
    )
    size = (max(1, shown[2] - shown[0]), max(1, shown[3] - shown[1]))
    x_step, y_step = image.width / (plan.content.width * scale), image.height / (plan.content.height * scale)
    box = (
        max(0.0, (shown[0] - left) * x_step),
        max(0.0, (shown[1] - top) * y_step),
        min(float(image.width), (shown[2] - left) * x_step),
        min(float(image.height), (shown[3] - top) * y_step),
    )
    panel.paste(image.resize(size, Image.Resampling.BICUBIC, box=box), shown[:2])


def _add_newlines(panel: Image.Image, kept: tuple[int, int, int, int], plan: TilePlan, field_px: int) -> Image.Image:
    """The panel with a column of newline cells on its right, one beside each row."""
    wide = Image.new("RGBA", (panel.width + 14 + max(field_px, 9) + 2, panel.height), _CLEAR)
    wide.paste(panel, (0, 0))
    draw = ImageDraw.Draw(wide)
    left, right = panel.width + 14, panel.width + 14 + max(field_px, 9)
    # An image with a single tile has one newline in all.
    num_fields = 1 if plan.num_tiles == 1 else plan.map_size.height
    height = field_px if plan.num_tiles == 1 else kept[3] - kept[1]
    top = kept[3] - height
    for field in range(num_fields):
        upper, lower = top + height * field / num_fields, top + height * (field + 1) / num_fields
        draw.rectangle((left, round(upper), right, max(round(upper), round(lower) - 2)), _NEWLINE)
    return wide


def _legend(plan: TilePlan, tiling: Tiling) -> list[tuple[Image.Image, str]]:
    kept = Image.new("RGB", (20, 20), (150, 160, 165))
    _draw_grid(kept, (0, 0, 20, 20), Size(2, 2))
    _frame(kept, (0, 0, 20, 20), _KEPT)
    tile = Image.new("RGBA", (20, 20), _CLEAR)
    _frame(tile, (0, 0, 20, 20), _TILE)
    items = [(tile, "tiles, in their order")] if plan.num_tiles > 1 else []
    items.append((kept, "is read" if plan.position_range else "takes positions"))
    full = Size(plan.grid.width * plan.features_per_side, plan.grid.height * plan.features_per_side)
    is_cropped = min(plan.offset) < 0
    if (len(plan.kept_columns), len(plan.kept_rows)) != full:
        items.append(
            (_hatch(Size(20, 20), _BLACK), "padding, not read" if plan.position_range else "padding, left out")
        )
    elif plan.content != plan.canvas and not is_cropped:
        items.append((_hatch(Size(20, 20), _padding(tiling)), "padding, takes positions too"))
    if is_cropped or not plan.has_base:
        left_out = Image.new("RGB", (20, 20), (150, 160, 165))
        _leave_out(left_out, (0, 0, 0, 0))
        items.append((left_out, "left out"))
    if plan.has_newlines:
        newline = Image.new("RGBA", (20, 20), _CLEAR)
        ImageDraw.Draw(newline).rectangle((5, 2, 14, 17), _NEWLINE)
        items.append((newline, "newline"))
    return items


def _draw_grid(panel: Image.Image, box: tuple[int, int, int, int], fields: Size) -> None:
    """Draws thin lines around the cells: slightly darker on bright pixels, slightly brighter on dark ones."""
    if 0 in fields:
        return
    mask = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
    draw = ImageDraw.Draw(mask)
    for column in range(fields.width):
        x = round(mask.width * column / fields.width)
        draw.line((x, 0, x, mask.height), 255)
    for row in range(fields.height):
        y = round(mask.height * row / fields.height)
        draw.line((0, y, mask.width, y), 255)
    shifted = panel.crop(box).point([value + 52 if value < 128 else round(value * 0.84) for value in range(256)] * 3)
    panel.paste(shifted, box[:2], mask)


def _leave_out(panel: Image.Image, kept: tuple[int, int, int, int]) -> None:
    """Darkens and hatches everything except ``kept``."""
    mask = Image.new("L", panel.size, _SHADE[3])
    hatch = _hatch(Size(*panel.size), _SHADE[:3])
    if kept[0] < kept[2] and kept[1] < kept[3]:
        mask.paste(0, kept)
    panel.paste(hatch, (0, 0), mask)


def _hatch(size: Size, color: Color) -> Image.Image:
    """An area of ``color`` with slightly lighter diagonal lines."""
    lighter = tuple(min(255, value + 58) for value in color)
    zoom = 3
    period = _HATCH_PX * zoom
    cell = Image.new("RGB", (period, period), color)
    pixels = cell.load()
    assert pixels is not None
    for y in range(period):
        for x in range(period):
            if (x + y) % period < 4:
                pixels[x, y] = lighter
    cell = cell.resize((_HATCH_PX, _HATCH_PX), Image.Resampling.BOX)
    hatched = Image.new("RGB", size)
    for y in range(0, size.height, _HATCH_PX):
        for x in range(0, size.width, _HATCH_PX):
            hatched.paste(cell, (x, y))
    return hatched


def _draw_number(panel: Image.Image, box: Box, number: int) -> None:
    draw = ImageDraw.Draw(panel)
    font = _font(16)
    width = max(24.0, font.getlength(str(number)) + 12)
    badge = (box[0] + 6, box[1] + 6, box[0] + 6 + width, box[1] + 30)
    draw.rounded_rectangle(badge, 5, _TILE)
    draw.text(((badge[0] + badge[2]) / 2, (badge[1] + badge[3]) / 2), str(number), _INK, font, anchor="mm")


def _frame(panel: Image.Image, box: Box, color: Color) -> None:
    if box[0] < box[2] and box[1] < box[3]:
        ImageDraw.Draw(panel).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=color, width=2)


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
