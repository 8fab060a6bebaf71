"""The same weights and pixels through Transformers' own LLaVA classes give the same logits and the same answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
)
from transformers import LlamaConfig as TheirLlamaConfig
from transformers import LlavaConfig as TheirLlavaConfig

from llava.image.geometry import Size, plan_tiles
from tests.tiny import ANYRES, DECODER, FAMILIES, SLOT, SQUARE, TOWER, make_model, make_pixels, pad

THEIR_IMAGE_TOKEN = 119  # no text here uses it
TEXT_CONFIGS = {"llama": TheirLlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
GREEDY = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}


def rename(name: str) -> str:
    """A parameter of ours as Transformers 5.23 calls it in memory."""
    for ours, theirs in (
        ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
        ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
        ("model.image_newline", "model.image_newline"),
        ("lm_head.", "lm_head."),
        ("model.", "model.language_model."),
    ):
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    raise AssertionError(name)


def make_theirs(ours: Any, family: str, pinpoints: list[list[int]] | None = None) -> Any:
    """Transformers' model with our weights: LLaVA-1.5's class, or with pinpoints, (height, width), LLaVA-1.6's."""
    arguments = {
        "vision_config": CLIPVisionConfig(**TOWER),
        "text_config": TEXT_CONFIGS[family](**DECODER),
        "image_token_index": THEIR_IMAGE_TOKEN,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "image_seq_length": 16,
    }
    if pinpoints is None:
        theirs = LlavaForConditionalGeneration(TheirLlavaConfig(**arguments))
    else:
        theirs = LlavaNextForConditionalGeneration(LlavaNextConfig(**arguments, image_grid_pinpoints=pinpoints))
    theirs.load_state_dict({rename(name): value for name, value in ours.state_dict().items()})
    return theirs.eval()


def flip(pairs: list[list[int]]) -> list[list[int]]:
    return [[second, first] for first, second in pairs]


def expand(rows: list[list[int]], counts: list[int], side: str) -> dict[str, torch.Tensor]:
    """Their prompts: every slot spelled out as that many image tokens, padded on a side."""
    remaining = iter(counts)
    long = [
        [t for token in row for t in ([THEIR_IMAGE_TOKEN] * next(remaining) if token == SLOT else [token])]
        for row in rows
    ]
    width = max(map(len, long))
    gaps = [[0] * (width - len(row)) for row in long]
    ids = [row + gap if side == "right" else gap + row for row, gap in zip(long, gaps, strict=True)]
    mask = [[1] * len(row) for row in long]
    mask = [row + gap if side == "right" else gap + row for row, gap in zip(mask, gaps, strict=True)]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def stack(pixels: list[torch.Tensor]) -> torch.Tensor:
    """Their pixels: every image filled up to the most tiles with zeros, which are not looked at."""
    most = max(map(len, pixels))
    return torch.stack([F.pad(image, (0, 0, 0, 0, 0, 0, 0, most - len(image))) for image in pixels])


BATCHES = {
    "one image": [[1, 5, SLOT, 7, 8]],
    "two images in one prompt": [[1, SLOT, 5, SLOT, 6]],
    "a batch of unequal prompts": [[1, 5, SLOT, 7, SLOT, 9, 10], [1, SLOT, 6]],
    "a batch with text alone": [[1, SLOT, 6, 7, 8], [1, 9, 10, 11, 12, 13]],
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
@torch.no_grad()
def test_a_1_5_model_agrees_with_transformers(rows: list[list[int]], family: str) -> None:
    ours = make_model(family, **SQUARE)
    theirs = make_theirs(ours, family)
    num_images = sum(row.count(SLOT) for row in rows)
    pixels = torch.cat(make_pixels(*[1] * num_images))
    prompts = expand(rows, [16] * num_images, "right")
    expected = theirs(**prompts, pixel_values=pixels).logits
    is_real = prompts["attention_mask"].bool()
    torch.testing.assert_close(ours(**pad(rows), images=pixels).logits[is_real], expected[is_real], **CLOSE)

    prompts = expand(rows, [16] * num_images, "left")
    answers = theirs.generate(**prompts, pixel_values=pixels, **GREEDY)[:, prompts["input_ids"].shape[1] :]
    generated = ours.generate(
        pad(rows)["input_ids"], attention_mask=pad(rows)["attention_mask"], images=pixels, **GREEDY
    )
    assert torch.equal(generated, answers)


# Sizes (width, height) where both take the same canvas and round alike.
SIZES = [(50, 40), (80, 20), (56, 56), (40, 300), (200, 66)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", BATCHES.values(), ids=BATCHES.keys())
@pytest.mark.parametrize("first_size", range(0, len(SIZES), 2))
@torch.no_grad()
def test_a_1_6_model_agrees_with_transformers(rows: list[list[int]], first_size: int, family: str) -> None:
    ours = make_model(family)
    theirs = make_theirs(ours, family, ANYRES["image_grid_pinpoints"])
    num_images = sum(row.count(SLOT) for row in rows)
    sizes = [SIZES[(first_size + index) % len(SIZES)] for index in range(num_images)]
    plans = [plan_tiles(Size(*size), ours.tiling()) for size in sizes]
    pixels = make_pixels(*[plan.num_tiles for plan in plans])
    their_images = {"pixel_values": stack(pixels), "image_sizes": torch.tensor(flip([list(size) for size in sizes]))}
    counts = [plan.num_positions for plan in plans]

    prompts = expand(rows, counts, "right")
    is_real = prompts["attention_mask"].bool()
    expected = theirs(**prompts, **their_images).logits
    given = ours(**pad(rows), images=pixels, image_sizes=sizes).logits
    torch.testing.assert_close(given[is_real], expected[is_real], **CLOSE)

    prompts = expand(rows, counts, "left")
    answers = theirs.generate(**prompts, **their_images, **GREEDY)[:, prompts["input_ids"].shape[1] :]
    batch = pad(rows)
    generated = ours.generate(
        batch["input_ids"], attention_mask=batch["attention_mask"], images=pixels, image_sizes=sizes, **GREEDY
    )
    assert torch.equal(generated, answers)


def test_the_loss_is_that_of_transformers() -> None:
    rows = BATCHES["a batch of unequal prompts"]
    ours = make_model()
    theirs = make_theirs(ours, "llama", ANYRES["image_grid_pinpoints"])
    sizes = SIZES[:3]
    plans = [plan_tiles(Size(*size), ours.tiling()) for size in sizes]
    pixels = make_pixels(*[plan.num_tiles for plan in plans])
    prompts = expand(rows, [plan.num_positions for plan in plans], "right")
    ids = prompts["input_ids"]
    labels = torch.where((ids == THEIR_IMAGE_TOKEN) | (prompts["attention_mask"] == 0), -100, ids)
    flipped = torch.tensor(flip([list(size) for size in sizes]))
    expected = theirs(**prompts, labels=labels, pixel_values=stack(pixels), image_sizes=flipped).loss
    batch = pad(rows)
    our_labels = torch.where((batch["input_ids"] == SLOT) | (batch["attention_mask"] == 0), -100, batch["input_ids"])
    given = ours(**batch, labels=our_labels, images=pixels, image_sizes=sizes).loss
    torch.testing.assert_close(given, expected, **CLOSE)


def count_theirs(theirs: Any, size: tuple[int, int], num_tiles: int) -> int:
    pixels = stack(make_pixels(num_tiles))
    features = theirs.model.get_image_features(pixels, torch.tensor([[size[1], size[0]]])).pooler_output
    return len(features[0])


# (width, height): an image that several canvases hold unshrunk, and one whose kept extent is a whole odd number.
TIES = [(20, 15), (10, 28), (28, 5)]
ROUNDINGS = [(47, 188), (343, 392)]


@pytest.mark.parametrize("size", [*TIES, *ROUNDINGS])
@torch.no_grad()
def test_where_the_dialects_differ_theirs_is_one_setting_away(size: tuple[int, int]) -> None:
    pinpoints = ANYRES["image_grid_pinpoints"]
    original = make_model()
    # Their list reads (height, width): the same numbers are other canvases first.
    theirs = make_theirs(original, "llama", pinpoints)
    ours = make_model(mm_tiling_dialect="hf", image_grid_pinpoints=flip(pinpoints))
    plan = plan_tiles(Size(*size), original.tiling())
    their_plan = plan_tiles(Size(*size), ours.tiling())
    (pixels,) = make_pixels(their_plan.num_tiles)
    assert count_theirs(theirs, size, len(pixels)) == their_plan.num_positions
    assert plan.num_positions != their_plan.num_positions, "they differ here"

    ids = [[1, 5, SLOT, 7]]
    sizes = torch.tensor([[size[1], size[0]]])
    prompts = expand(ids, [their_plan.num_positions], "right")
    expected = theirs(**prompts, pixel_values=pixels[None], image_sizes=sizes).logits
    torch.testing.assert_close(ours(torch.tensor(ids), images=[pixels], image_sizes=[size]).logits, expected, **CLOSE)
    if plan.num_tiles == len(pixels):
        given = original(torch.tensor(ids), images=[pixels], image_sizes=[size]).logits
        assert given.shape != expected.shape
