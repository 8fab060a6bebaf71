"""Drawn images, dense labels and conversations become training samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.image.geometry import Size, plan_tiles
from llava.scratch import attention
from llava.scratch.build import build_model, build_processor, build_tiling
from llava.scratch.drawn import (
    DrawnMix,
    DrawnSamples,
    LabelledCollator,
    LabelledData,
    LabelledTiles,
    OracleData,
)
from llava.scratch.stages import ModelShape, load_scratch_recipe
from llava.scratch.tokenizer import build_tokenizer, collect_words
from llava.train.dataset.batches import InstructionCollator
from llava.train.dataset.samples import InstructionData
from tests.scratch.tiny_recipe import KINDS, write_recipe

MIX = DrawnMix(tuple(KINDS.items()), ((96, 112, 96, 112),))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(collect_words(200))


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    return load_scratch_recipe(str(write_recipe(tmp_path_factory.mktemp("recipe")))).model


def test_drawn_text_is_spelled_letter_by_letter_and_comes_back_exactly(tokenizer: Any) -> None:
    for text in ("USER: What is written?", "Harbor 42", "$19.95 A7-K", "two\nlines & symbols!", "naïve 鏡"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
    assert len(tokenizer(" Zarbol", add_special_tokens=False).input_ids) == 7
    assert len(tokenizer(" image", add_special_tokens=False).input_ids) == 1


def test_the_loss_mask_keeps_only_answers_and_their_end_tokens(tokenizer: Any, shape: ModelShape) -> None:
    tiling, processor = build_tiling(shape, "anyres"), build_processor(shape)
    source = DrawnSamples(MIX, 8, 3, 0.5)
    data = InstructionData(source, tokenizer, tiling, processor, ("vicuna_v1",), 2048)
    for index in range(8):
        item, sample = data[index], source.sample(index)
        learnt = item["labels"][item["labels"] != IGNORE_INDEX]
        answers = [text for speaker, text in sample.turns if speaker == "gpt"]
        assert tokenizer.decode(learnt).split("</s>")[:-1] == [f" {answer}" for answer in answers]
        assert item["input_ids"].tolist().count(IMAGE_TOKEN_INDEX) == 1
        plan = plan_tiles(Size(*sample.images[0].size), tiling)
        assert len(item["images"][0]) == plan.num_tiles
    batch = InstructionCollator(0)([data[0], data[1]])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    assert len(batch["images"]) == len(batch["image_sizes"]) == 2


def test_labels_come_with_the_pixels_or_instead_of_them(tokenizer: Any, shape: ModelShape) -> None:
    tiling, processor = build_tiling(shape, "anyres"), build_processor(shape)
    source = DrawnSamples(MIX, 2, 3, 0.5, tiling)
    beside = LabelledData(source, tokenizer, tiling, processor, ("vicuna_v1",), 2048)
    instead = OracleData(source, tokenizer, tiling, processor, ("vicuna_v1",), 2048)
    batch = LabelledCollator(0)([beside[0], beside[1]])
    num_tiles = sum(len(pixels) for pixels in batch["images"])
    assert batch["tile_labels"].shape == (num_tiles, 16, 7)
    assert torch.cat([instead[i]["images"][0] for i in range(2)]).flatten(1, 2).equal(batch["tile_labels"])
    assert instead[0]["input_ids"].equal(beside[0]["input_ids"])


def test_tiles_and_their_labels_come_in_pairs(shape: ModelShape) -> None:
    mix = DrawnMix((("page", 1.0),), ((112, 112, 112, 112),))
    item = LabelledTiles(mix, build_tiling(shape, "anyres"), build_processor(shape), 3, tiles_per_image=2)[1]
    assert item["pixel_values"].shape == (2, 3, 56, 56)
    assert item["labels"].shape == (2, 16, 7)
    assert (item["labels"] > 0).any()


def test_the_fast_attention_equals_transformers_own_attention(shape: ModelShape, tokenizer: Any) -> None:
    model: Any = build_model(shape, len(tokenizer), 0).eval()
    ids = torch.randint(5, 90, (2, 12))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    expected = model(input_ids=ids, attention_mask=mask).logits
    model.config._attn_implementation = attention.register()
    assert torch.allclose(model(input_ids=ids, attention_mask=mask).logits[0], expected[0], atol=1e-5)
    assert torch.allclose(model(input_ids=ids, attention_mask=mask).logits[1, :8], expected[1, :8], atol=1e-5)
