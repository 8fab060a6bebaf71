"""Rows of unequal length become batches: padded on either side, masked by length, with a blank image where asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.train.dataset.batches import InstructionCollator, OriginalCollator
from tests.tiny import TILE_PX, make_model


def item(*ids: int, name: str = "s", num_tiles: int = 1) -> dict[str, Any]:
    """A row whose second half is learned, with an image of one value per slot."""
    num_images = ids.count(IMAGE_TOKEN_INDEX)
    return {
        "input_ids": torch.tensor(ids),
        "labels": torch.tensor([IGNORE_INDEX] * (len(ids) // 2) + list(ids[len(ids) // 2 :])),
        "images": [torch.full((num_tiles, 3, TILE_PX, TILE_PX), 0.1)] * num_images,
        "image_sizes": [(TILE_PX, TILE_PX)] * num_images,
        "id": name,
        "source": "f.json",
    }


@pytest.mark.parametrize(
    ("side", "ids", "mask"),
    [
        ("right", [[7, 8, 9], [5, 0, 0]], [[1, 1, 1], [1, 0, 0]]),
        ("left", [[7, 8, 9], [0, 0, 5]], [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_rows_are_padded_on_the_side_of_the_tokenizer(side: str, ids: list[Any], mask: list[Any]) -> None:
    batch = InstructionCollator(0, side)([item(7, 8, 9), item(5)])
    assert batch["input_ids"].tolist() == ids
    assert batch["attention_mask"].int().tolist() == mask
    assert batch["attention_mask"].dtype == torch.bool
    assert (batch["labels"] == IGNORE_INDEX)[~batch["attention_mask"]].all()
    assert set(batch) == {"input_ids", "labels", "attention_mask"}


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(UsageError, match="'both'; it can be right or left"):
        InstructionCollator(0, "both")


def test_an_id_equal_to_the_padding_stays_in_the_mask() -> None:
    batch = InstructionCollator(0)([item(7, 0, 9), item(5)])
    assert batch["attention_mask"].sum().item() == 4


def test_images_of_all_rows_are_one_list_and_names_come_when_asked() -> None:
    rows = [item(IMAGE_TOKEN_INDEX, 3, name="a", num_tiles=3), item(4, name="b"), item(IMAGE_TOKEN_INDEX, 3, name="c")]
    batch = InstructionCollator(0, has_names=True)(rows)
    assert [len(image) for image in batch["images"]] == [3, 1]
    assert batch["image_sizes"] == [(TILE_PX, TILE_PX)] * 2
    assert batch["modalities"] == ["image", "image"]
    blanks = InstructionCollator(0, dummy_tile_px=14)(rows)
    assert [tuple(image.shape[1:]) for image in blanks["images"]] == [
        (3, TILE_PX, TILE_PX),
        (3, 14, 14),
        (3, TILE_PX, TILE_PX),
    ]
    assert blanks["modalities"] == ["image", "text", "image"]
    assert (batch["ids"], batch["sources"]) == (["a", "b", "c"], ["f.json"] * 3)


@pytest.mark.parametrize("rows", [(0,), (0, 1), (1, 0), (0, 2, 0, 1)])
def test_a_blank_image_passes_the_tower_and_changes_no_loss(rows: tuple[int, ...]) -> None:
    kinds = [item(5, 6, 7, 8), item(5, IMAGE_TOKEN_INDEX, 7, 8), item(IMAGE_TOKEN_INDEX, 3, IMAGE_TOKEN_INDEX, 9)]
    model = make_model(image_aspect_ratio="pad")
    tower = model.get_vision_tower()
    seen: list[int] = []
    tower.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    items = [kinds[i] for i in rows]
    losses = []
    for dummy_tile_px in (None, TILE_PX):
        batch = InstructionCollator(0, dummy_tile_px=dummy_tile_px)(items)
        losses.append(model(**batch).loss.item())
    assert seen[-1] == sum(max(1, i) for i in rows)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def tokenizer(pad_token_id: int | None = 0, side: str = "right", longest: int = 4) -> Any:
    return SimpleNamespace(pad_token_id=pad_token_id, padding_side=side, model_max_length=longest)


def instance(count: int, image: Any = None, dtype: torch.dtype = torch.int64) -> dict[str, Any]:
    ids = torch.arange(1, count + 1, dtype=dtype)
    return {"input_ids": ids, "labels": ids.clone()} | ({} if image is None else {"image": image})


def test_the_batches_of_1_5_are_cut_and_stack_images_of_one_shape() -> None:
    square, tiles = torch.zeros(3, 2, 2), torch.zeros(5, 3, 2, 2)
    collate = OriginalCollator(tokenizer(side="left"))  # the original pads on the right all the same
    batch = collate([instance(6, square), instance(2, square)])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [1, 2, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3, 4], [1, 2, IGNORE_INDEX, IGNORE_INDEX]]
    assert batch["images"].shape == (2, 3, 2, 2)
    assert isinstance(collate([instance(1, square), instance(1, tiles)])["images"], list)
    assert "images" not in collate([instance(1), instance(1, square)])
    with pytest.raises(UsageError, match="Item 1 of a batch has no image"):
        collate([instance(1, square), instance(1)])
    with pytest.raises(UsageError, match="no pad token"):
        OriginalCollator(tokenizer(None))([instance(1)])


def test_the_batches_of_next_list_images_sizes_and_modalities() -> None:
    image, blank = (torch.zeros(5, 3, 2, 2), (90, 40), "image"), (torch.zeros(1, 3, 2, 2), (2, 2), "text")
    batch = OriginalCollator(tokenizer(None, "left"), "next")(
        [instance(2, [image, image], torch.int32), instance(6, [blank], torch.int32)]
    )
    assert batch["input_ids"].tolist() == [[0, 0, 1, 2], [1, 2, 3, 4]]
    assert batch["labels"].dtype == torch.int64
    assert [len(each) for each in batch["images"]] == [5, 5, 1]
    assert batch["image_sizes"] == [(90, 40), (90, 40), (2, 2)]
    assert batch["modalities"] == ["image", "image", "text"]


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no batch layout '1\.6'; there are: 1\.5, next"):
        OriginalCollator(tokenizer(), "1.6")
