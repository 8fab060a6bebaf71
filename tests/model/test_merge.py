from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.image.geometry import RELEASED_PINPOINTS, Size, TilePlan, Tiling, plan_tiles
from llava.model.merge import merge_images, merge_tiles, move_padding_left, plan_images, splice, unpad_image

WIDTH = 3  # of the language model here
NEWLINE = torch.tensor([-1.0, -2.0, -3.0])


def make_tiling(merge: str = "spatial_unpad", aspect: str = "anyres", side: int = 4, **changes: Any) -> Tiling:
    """Tiles of ``side`` x ``side`` features; canvases as the released ones are."""
    pinpoints = tuple(Size(w // 336 * side * 14, h // 336 * side * 14) for w, h in RELEASED_PINPOINTS)
    settings = {"tile_px": side * 14, "patch_px": 14, "pinpoints": pinpoints}
    return Tiling(**{"aspect": aspect, "merge": merge, **settings, **changes})  # type: ignore[arg-type]


def make_features(num_tiles: int, num_features: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_tiles, num_features, WIDTH, generator=torch.Generator().manual_seed(seed))


def merge_slowly(features_TNC: torch.Tensor, plan: TilePlan) -> torch.Tensor:
    """One feature at a time, in the order in which a reader meets them."""
    if plan.is_flat or plan.num_tiles == 1:
        rows = [feature for tile in features_TNC for feature in tile]
        return torch.stack(rows + [NEWLINE] * plan.has_newlines)
    side = plan.features_per_side
    rows = list(features_TNC[0]) if plan.has_base else []
    page = []
    for y in plan.kept_rows:
        line = []
        for x in plan.kept_columns:
            tile = features_TNC[1 + (y // side) * plan.grid.width + x // side]
            line.append(tile[(y % side) * side + x % side])
        page.append(torch.stack(line) if line else torch.zeros(0, WIDTH))
    if page and plan.resampling != "none":
        map_CHW = torch.stack(page).permute(2, 0, 1)
        if plan.resampling == "maxpool2x2":
            map_CHW = map_CHW.unflatten(1, (-1, 2)).unflatten(3, (-1, 2)).amax(dim=(2, 4))
        else:
            size = [plan.map_size.height, plan.map_size.width]
            map_CHW = F.interpolate(map_CHW[None], size=size, mode="bilinear")[0]
        page = list(map_CHW.permute(1, 2, 0))
    for line in page:
        rows += list(line) + [NEWLINE] * plan.has_newlines
    return torch.stack(rows) if rows else torch.zeros(0, WIDTH)


MERGES = ["flat", "spatial", "spatial_unpad", "spatial_unpad_nobase", "spatial_maxpool2x2", "spatial_unpad_maxpool2x2"]
SIZES = [(1000, 667), (667, 1000), (300, 200), (336, 336), (2000, 100), (100, 2000), (800, 300), (1, 1), (704, 396)]


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("size", SIZES)
def test_an_images_tiles_are_read_like_a_page(merge: str, size: tuple[int, int]) -> None:
    plan = plan_tiles(Size(*size), make_tiling(merge))
    features = make_features(plan.num_tiles, 16)
    merged = merge_tiles(features, plan, NEWLINE)
    assert len(merged) == plan.num_positions
    torch.testing.assert_close(merged, merge_slowly(features, plan))


@pytest.mark.parametrize("aspect", ["anyres_max_1", "anyres_max_2", "anyres_max_9"])
@pytest.mark.parametrize("size", [(1000, 667), (667, 1000), (800, 300), (300, 800)])
def test_a_large_map_is_scaled_down_to_what_anyres_max_allows(aspect: str, size: tuple[int, int]) -> None:
    plan = plan_tiles(Size(*size), make_tiling(aspect=aspect, side=6))
    features = make_features(plan.num_tiles, 36)
    merged = merge_tiles(features, plan, NEWLINE)
    assert len(merged) == plan.num_positions
    torch.testing.assert_close(merged, merge_slowly(features, plan))
    assert (plan.resampling == "bilinear") == (aspect != "anyres_max_9")


# Source: the merge of haotian-liu/LLaVA@c121f04 with the released pinpoints, 336 px tiles.
@pytest.mark.parametrize(
    ("size", "num_positions"),
    [
        ((1000, 667), 2144),
        ((667, 1000), 2160),
        ((672, 672), 2928),
        ((336, 336), 1176),
        ((1344, 336), 1890),
        ((100, 2000), 936),
        ((2000, 10), 576),
        ((10, 2000), 648),
        ((300, 200), 976),
        ((704, 396), 1850),
    ],
)
def test_an_image_takes_as_many_positions_as_in_the_original(size: tuple[int, int], num_positions: int) -> None:
    plan = plan_tiles(Size(*size), make_tiling(side=24))
    assert len(merge_tiles(make_features(plan.num_tiles, 576), plan, NEWLINE)) == num_positions


@pytest.mark.parametrize(("merge", "num_positions"), [("flat", 16), ("spatial", 16), ("spatial_unpad", 17)])
def test_one_tile_is_followed_by_a_newline_where_rows_have_them(merge: str, num_positions: int) -> None:
    (plan,) = plan_images([1], None, make_tiling(merge))
    features = make_features(1, 16)
    merged = merge_tiles(features, plan, NEWLINE)
    assert torch.equal(merged[:16], features[0])
    assert len(merged) == num_positions
    assert num_positions == 16 or torch.equal(merged[16], NEWLINE)


def test_the_class_position_goes_along_where_tiles_are_not_laid_out() -> None:
    tiling = make_tiling("flat", extra_positions=1)
    plan = plan_tiles(Size(1000, 667), tiling)
    features = make_features(5, 17)
    assert torch.equal(merge_tiles(features, plan), features.flatten(0, 1))
    (plan,) = plan_images([1], None, make_tiling("spatial_unpad", aspect="pad", extra_positions=1))
    assert len(merge_tiles(features[:1], plan, NEWLINE)) == 18


@pytest.mark.parametrize("aspect", ["anyres", "anyres_max_2"])
def test_many_images_are_merged_as_each_is_alone(aspect: str) -> None:
    tiling = make_tiling(aspect=aspect)
    sizes = [Size(1000, 667), Size(50, 33), Size(800, 300), Size(5, 5)]
    tiles = [5, 3, 4, 1]
    plans = plan_images(tiles, sizes, tiling)
    features = make_features(sum(tiles), 16)
    together = merge_images(features, plans, NEWLINE)
    alone = [merge_tiles(part, plan, NEWLINE) for part, plan in zip(features.split(tiles), plans, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_every_kept_feature_and_the_newline_receive_their_gradient() -> None:
    plan = plan_tiles(Size(1000, 667), make_tiling())
    features = make_features(5, 16).requires_grad_()
    newline = NEWLINE.clone().requires_grad_()
    merge_tiles(features, plan, newline).sum().backward()
    num_kept = len(plan.kept_rows) * len(plan.kept_columns)
    assert features.grad is not None
    assert newline.grad is not None
    assert features.grad[0].eq(1).all()
    assert features.grad[1:].sum() == num_kept * WIDTH
    assert torch.equal(newline.grad, torch.full((WIDTH,), float(len(plan.kept_rows))))


def test_images_that_do_not_fit_their_sizes_are_refused_with_both_numbers() -> None:
    tiling = make_tiling()
    with pytest.raises(UsageError, match=r"1000x667 px came as 4 tiles, .* cuts it into 5"):
        plan_images([4], [Size(1000, 667)], tiling)
    with pytest.raises(UsageError, match="image_sizes"):
        plan_images([5], None, tiling)
    with pytest.raises(UsageError, match="2 images came with 1 image_sizes"):
        plan_images([5, 5], [Size(1000, 667)], tiling)


TABLE = torch.arange(50.0)[:, None] * torch.tensor([1.0, 10.0, 100.0])


def embed(ids: torch.Tensor) -> torch.Tensor:
    return F.embedding(ids, TABLE)


def splice_slowly(
    rows: list[list[int]], kept: list[list[bool]], blocks: list[torch.Tensor], limit: int | None, passes_over: bool
) -> tuple[list[torch.Tensor], list[list[int]]]:
    """One id at a time; labels are the ids themselves."""
    queue = list(blocks)
    embedded, labels = [], []
    for ids, keep in zip(rows, kept, strict=True):
        vectors: list[torch.Tensor] = []
        targets: list[int] = []
        real = [token for token, is_kept in zip(ids, keep, strict=True) if is_kept]
        if IMAGE_TOKEN_INDEX not in real and passes_over:
            queue.pop(0)
        for token in real:
            if token == IMAGE_TOKEN_INDEX:
                block = queue.pop(0)
                vectors += list(block)
                targets += [IGNORE_INDEX] * len(block)
            else:
                vectors.append(TABLE[token])
                targets.append(token)
        embedded.append(torch.stack(vectors)[:limit] if vectors else torch.zeros(0, WIDTH))
        labels.append(targets[:limit])
    assert not queue
    return embedded, labels


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], list[list[bool]], list[int], bool]:
    length = draw(st.integers(1, 7))
    token = st.one_of(st.integers(0, 49), st.just(IMAGE_TOKEN_INDEX))
    rows = draw(st.lists(st.lists(token, min_size=length, max_size=length), min_size=1, max_size=4))
    kept = [draw(st.lists(st.booleans(), min_size=length, max_size=length)) for _ in rows]
    for keep in kept:
        keep[draw(st.integers(0, length - 1))] = True
    slots = [
        sum(t == IMAGE_TOKEN_INDEX and k for t, k in zip(*pair, strict=True)) for pair in zip(rows, kept, strict=True)
    ]
    passes_over = draw(st.booleans())
    num_images = sum(slots) + (slots.count(0) if passes_over else 0)
    return rows, kept, [draw(st.integers(1, 5)) for _ in range(num_images)], passes_over


@settings(max_examples=80)
@given(batch=batches(), limit=st.one_of(st.none(), st.integers(1, 12)), pads_left=st.booleans())
def test_images_land_in_their_slots(
    batch: tuple[list[list[int]], list[list[bool]], list[int], bool], limit: int | None, pads_left: bool
) -> None:
    rows, kept, counts, passes_over = batch
    blocks = list(make_features(1, sum(counts) + 1)[0, : sum(counts)].split(counts)) if counts else []
    ids = torch.tensor(rows)
    features = torch.cat(blocks) if blocks else torch.zeros(0, WIDTH)
    merged = splice(ids, torch.tensor(kept), ids, features, counts, embed, limit, pads_left)
    embedded, labels = splice_slowly(rows, kept, blocks, limit, passes_over)
    width = max(map(len, labels))
    assert merged.labels_BL is not None
    assert merged.embeds_BLC.shape == (len(rows), width, WIDTH)
    for row, (vectors, targets) in enumerate(zip(embedded, labels, strict=True)):
        first = width - len(vectors) if pads_left else 0
        real = slice(first, first + len(vectors))
        expected_mask = torch.zeros(width, dtype=torch.bool)
        expected_mask[real] = True
        assert torch.equal(merged.mask_BL[row], expected_mask)
        assert torch.equal(merged.embeds_BLC[row][real], vectors)
        assert merged.labels_BL[row][real].tolist() == targets
        assert merged.position_ids_BL[row][real].tolist() == list(range(len(vectors)))
        assert not merged.embeds_BLC[row][~expected_mask].any()
        assert merged.labels_BL[row][~expected_mask].eq(IGNORE_INDEX).all()
        assert merged.position_ids_BL[row][~expected_mask].eq(0).all()


def test_without_a_mask_every_id_is_kept_and_without_labels_none_come_back() -> None:
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, 0]])
    merged = splice(ids, None, None, make_features(1, 4)[0], [4], embed)
    assert merged.mask_BL.shape == (1, 6)
    assert merged.mask_BL.all()
    assert merged.labels_BL is None


def test_features_take_the_embeddings_precision() -> None:
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX]])
    merged = splice(ids, None, None, make_features(1, 4)[0].to(torch.bfloat16), [4], embed)
    assert merged.embeds_BLC.dtype == torch.float32


@pytest.mark.parametrize(("num_images", "fits"), [(1, False), (2, True), (3, True), (4, False)])
def test_a_wrong_number_of_images_is_refused_with_both_numbers(num_images: int, fits: bool) -> None:
    ids = torch.tensor([[1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX], [1, 2, 3]])
    arguments = (ids, None, None, make_features(1, num_images)[0], [1] * num_images, embed)
    if fits:
        assert splice(*arguments).embeds_BLC.shape == (2, 3, WIDTH)
    else:
        with pytest.raises(UsageError, match=f"2 image slots, but {num_images} images"):
            splice(*arguments)


def test_the_image_of_a_text_only_row_stays_in_the_graph_and_learns_nothing() -> None:
    ids = torch.tensor([[1, 2, 3]])
    features = make_features(1, 4)[0].requires_grad_()
    splice(ids, None, None, features, [4], embed).embeds_BLC.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize("rows", [["xx..", "x...", "xxxx"], ["..xx", "...x", "xxxx"], ["x.x.", ".x.x", "xx.x"]])
def test_padding_moves_to_the_left_and_nothing_else_moves(rows: list[str]) -> None:
    mask = torch.tensor([[letter == "x" for letter in row] for row in rows])
    embeds = torch.randn(3, 4, WIDTH)
    moved, moved_mask = move_padding_left(embeds, mask.long())
    assert moved_mask.dtype == torch.long
    for row in range(3):
        num_real = int(mask[row].sum())
        assert moved_mask[row].tolist() == [0] * (4 - num_real) + [1] * num_real
        assert torch.equal(moved[row, 4 - num_real :], embeds[row][mask[row]])


@pytest.mark.parametrize("size", [(1000, 667), (667, 1000), (672, 672), (2000, 10), (10, 2000), (704, 396)])
def test_a_map_alone_is_unpadded_as_it_is_in_a_plan(size: tuple[int, int]) -> None:
    tiling = Tiling(aspect="anyres", merge="spatial_unpad", pinpoints=RELEASED_PINPOINTS)
    plan = plan_tiles(Size(*size), tiling)
    side = plan.features_per_side
    full_CHW = torch.arange(2 * side**2 * plan.grid.width * plan.grid.height).view(
        2, plan.grid.height * side, plan.grid.width * side
    )
    kept_CHW = unpad_image(full_CHW, size)
    rows, columns = plan.kept_rows, plan.kept_columns
    assert torch.equal(kept_CHW, full_CHW[:, rows.start : rows.stop, columns.start : columns.stop])
    assert kept_CHW.shape[1:] == (plan.map_size.height, plan.map_size.width)
