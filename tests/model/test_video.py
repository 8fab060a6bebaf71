"""Videos, as LLaVA-NeXT's adapters send them: one slot, a list of frames, ``modalities`` saying so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llava.errors import UsageError
from llava.model.merge import merge_frames
from tests.tiny import SIZES, SLOT, SQUARE, make_model, make_pixels

IDS = torch.tensor([[1, SLOT, 6]])
FRAMES = make_pixels(3)
GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}


def pool_slowly(features_NC: torch.Tensor, side: int, pooling: str) -> list[list[torch.Tensor]]:
    """A frame's map at half its side, as rows of features, each worked out by itself."""
    at = [[features_NC[y * side + x] for x in range(side)] for y in range(side)]
    if pooling != "bilinear":
        whole = range(0, side - 1, 2)
        four = [[torch.stack([at[y][x], at[y][x + 1], at[y + 1][x], at[y + 1][x + 1]]) for x in whole] for y in whole]
        return [[group.mean(0) if pooling == "average" else group.amax(0) for group in row] for row in four]
    half = (side + 1) // 2
    places = [max(0.0, (i + 0.5) * side / half - 0.5) for i in range(half)]

    def between(y: float, x: float) -> torch.Tensor:
        top, left = int(y), int(x)
        bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
        upper = at[top][left] * (1 - (x - left)) + at[top][right] * (x - left)
        lower = at[bottom][left] * (1 - (x - left)) + at[bottom][right] * (x - left)
        return upper * (1 - (y - top)) + lower * (y - top)

    return [[between(y, x) for x in places] for y in places]


def merge_slowly(features_TNC: torch.Tensor, side: int, pooling: str, newlines: str, newline_C: Any) -> torch.Tensor:
    positions: list[torch.Tensor] = []
    for features_NC in features_TNC:
        for row in pool_slowly(features_NC, side, pooling):
            positions += row + [newline_C] * (newlines == "grid")
        positions += [newline_C] * (newlines == "frame")
    return torch.stack(positions + [newline_C] * (newlines == "one_token"))


@pytest.mark.parametrize("side", [4, 5])
@pytest.mark.parametrize("pooling", ["average", "max", "bilinear"])
@pytest.mark.parametrize("newlines", ["grid", "frame", "one_token", "no_token"])
def test_frames_are_pooled_and_read_one_after_another(side: int, pooling: str, newlines: str) -> None:
    features = torch.randn(3, side**2, 2, generator=torch.Generator().manual_seed(1))
    newline = torch.tensor([7.0, -7.0])
    merged = merge_frames(features, pooling, newlines, newline)
    torch.testing.assert_close(merged, merge_slowly(features, side, pooling, newlines, newline))


# Source: LLaVA-NeXT's get_2dPool on 336 px tiles (24 x 24) and 384 px tiles (27 x 27).
@pytest.mark.parametrize(
    ("side", "pooling", "newlines", "num"),
    [(24, "average", "no_token", 144), (24, "bilinear", "grid", 156), (27, "bilinear", "grid", 210),
     (27, "average", "frame", 170)],
)  # fmt: skip
def test_a_frame_takes_as_many_positions_as_in_the_original(side: int, pooling: str, newlines: str, num: int) -> None:
    assert merge_frames(torch.zeros(2, side**2, 1), pooling, newlines, torch.zeros(1)).shape == (2 * num, 1)


@pytest.mark.parametrize(
    ("settings", "num_positions"),
    [
        ({}, 3 * 4 + 1),
        ({"mm_newline_position": "grid"}, 3 * 2 * 3),
        ({"mm_patch_merge_type": "spatial"}, 3 * 4),
        ({"mm_patch_merge_type": "flat", "mm_newline_position": "grid"}, 3 * 4),
        ({**SQUARE, "mm_newline_position": "frame"}, 3 * 4),
    ],
)
def test_a_video_takes_the_place_of_one_slot(settings: dict[str, Any], num_positions: int) -> None:
    model = make_model(mm_spatial_pool_mode="average", **settings)
    seen = model(input_ids=IDS, images=FRAMES, modalities=["video"])
    assert seen.logits.shape[1] == 2 + num_positions
    # VLMEvalKit says "video" once for each frame, and what it calls sizes are none.
    answer = model.generate(IDS, images=FRAMES, image_sizes=[6000] * 3, modalities=["video"] * 3, **GREEDY)
    assert answer.tolist() == model.generate(IDS, images=FRAMES, modalities="video", **GREEDY).tolist()
    assert int(seen.logits[0, -1].argmax()) == answer[0, 0]


def test_images_beside_a_video_are_merged_as_alone() -> None:
    model = make_model(mm_spatial_pool_mode="max")
    image, video = make_pixels(5)[0], FRAMES[0]
    ids = torch.tensor([[1, SLOT, 5, SLOT, 6]])
    kinds = ["video", "image"]
    embeds = model.prepare_inputs_labels_for_multimodal(
        ids, None, None, None, None, [video, image], [(1, 1), SIZES[0]], modalities=kinds
    )[4]
    first, _ = model.encode_and_merge([video], modalities=["video"])
    second, _ = model.encode_and_merge([image], SIZES[:1])
    torch.testing.assert_close(embeds[0, 1 : 1 + len(first)], first)
    torch.testing.assert_close(embeds[0, 2 + len(first) : -1], second)


def test_saying_that_images_are_images_changes_nothing() -> None:
    model = make_model()
    asked = {"images": make_pixels(5), "image_sizes": SIZES[:1]}
    plain = model(input_ids=IDS, **asked).logits
    answer = model.generate(IDS, **asked, **GREEDY)
    for kinds in (["image"], ["text"], "image", [], ["image"] * 4):
        torch.testing.assert_close(model(input_ids=IDS, modalities=kinds, **asked).logits, plain)
        assert torch.equal(model.generate(IDS, modalities=kinds, **asked, **GREEDY), answer)


def test_an_unknown_modality_is_refused_by_name() -> None:
    model = make_model()
    for ask in (model, model.generate):
        with pytest.raises(UsageError, match="modalities holds 'audio'"):
            ask(IDS, images=FRAMES, modalities=["image", "audio"])


def test_a_video_that_cannot_be_merged_is_refused() -> None:
    model = make_model()
    with pytest.raises(UsageError, match="mm_spatial_pool_mode is None; a video needs"):
        model(input_ids=IDS, images=FRAMES, modalities=["video"])
    with pytest.raises(UsageError, match="A video comes in a list"):
        model(input_ids=IDS, images=FRAMES[0], modalities=["video"])
    model.config.mm_spatial_pool_mode = "average"
    model.config.add_faster_video = True
    with pytest.raises(UsageError, match="add_faster_video"):
        model(input_ids=IDS, images=FRAMES, modalities=["video"])
    features = torch.zeros(1, 16, 2)
    with pytest.raises(UsageError, match="mm_newline_position is 'row'"):
        merge_frames(features, "average", "row", torch.zeros(2))
    with pytest.raises(UsageError, match="has no image_newline"):
        merge_frames(features, "average", "grid")
    with pytest.raises(UsageError, match="17 features, which make no square"):
        merge_frames(torch.zeros(1, 17, 2), "average", "no_token")
