"""A llava-hf checkpoint, in any naming that Transformers ever wrote, is the same model as in Transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from llava.errors import CheckpointError
from llava.image.geometry import Size, plan_tiles
from llava.model.checkpoint import LoadedModel, load_model, save_checkpoint
from tests.tiny_checkpoints import Tensors
from tests.tiny_configs import TOWER, write_json
from tests.tiny_tokenizers import words_and_letters

IMAGE = 390
HUB = {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head.", "model.": ""}
HUB |= {"model.vision_tower.": "vision_tower.vision_model."}
FROM_4_52 = {"model.vision_tower.": "model.vision_tower.vision_model."}


def make(folder: Path, is_next: bool) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=448, max_position_embeddings=1024)
    shared = {"vision_config": CLIPVisionConfig(**TOWER), "text_config": text, "image_token_index": IMAGE}
    if is_next:
        pinpoints = [[28, 56], [56, 28], [56, 56]]
        model: Any = LlavaNextForConditionalGeneration(LlavaNextConfig(**shared, image_grid_pinpoints=pinpoints))
    else:
        model = LlavaForConditionalGeneration(LlavaConfig(**shared, image_seq_length=4))
    model.eval().save_pretrained(folder)
    words_and_letters("What is in the image").save_pretrained(folder)
    return model


def load(folder: Path) -> LoadedModel:
    return load_model(folder, device="cpu", dtype="float32")


def rename(tensors: Tensors, prefixes: dict[str, str]) -> Tensors:
    """The tensors in another naming: of the prefixes that a name has, the longest is replaced."""
    longest_first = sorted(prefixes, key=len, reverse=True)
    renamed = {}
    for name, tensor in tensors.items():
        old = next((prefix for prefix in longest_first if name.startswith(prefix)), "")
        renamed[prefixes.get(old, "") + name.removeprefix(old)] = tensor.clone()
    return renamed


@pytest.mark.parametrize(("width", "height"), [(20, 20), (30, 20), (20, 45), (100, 67)])
def test_a_next_model_gives_transformers_logits_for_an_image(tmp_path: Path, width: int, height: int) -> None:
    reference = make(tmp_path, is_next=True)
    loaded = load(tmp_path)
    plan = plan_tiles(Size(width, height), loaded.spec.tiling)
    pixels = torch.randn(plan.num_tiles, 3, 28, 28)
    with torch.no_grad():
        expected = reference(
            input_ids=torch.tensor([[1, 9, *[IMAGE] * plan.num_positions, 11, 12]]),
            pixel_values=pixels[None],
            image_sizes=torch.tensor([[height, width]]),
        ).logits
        found = loaded.model(
            input_ids=torch.tensor([[1, 9, -200, 11, 12]]), images=[pixels], image_sizes=[(width, height)]
        ).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_1_5_model_gives_transformers_logits_for_an_image(tmp_path: Path) -> None:
    reference = make(tmp_path, is_next=False)
    pixels = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        expected = reference(input_ids=torch.tensor([[1, 9, *[IMAGE] * 4, 11]]), pixel_values=pixels).logits
        found = load(tmp_path).model(input_ids=torch.tensor([[1, 9, -200, 11]]), images=pixels).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("prefixes", [{}, HUB, FROM_4_52], ids=["memory", "hub", "4.52"])
def test_every_naming_of_the_tensors_is_read(tmp_path: Path, prefixes: dict[str, str]) -> None:
    reference = make(tmp_path, is_next=True)
    expected = load(tmp_path).model.state_dict()
    tensors = dict(reference.state_dict())
    save_file(rename(tensors, prefixes or {"": ""}), tmp_path / "model.safetensors", {"format": "pt"})
    found = load(tmp_path).model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(found) == len(tensors)


def test_saved_in_the_originals_layout_it_is_the_same_model(tmp_path: Path) -> None:
    make(tmp_path / "hf", is_next=True)
    first = load(tmp_path / "hf")
    save_checkpoint(first.model, first.tokenizer, first.image_processor, tmp_path / "original")
    again = load(tmp_path / "original")
    assert again.spec.layout == "original"
    assert again.spec.tiling == first.spec.tiling
    assert again.spec.tiling.dialect == "hf"
    found, expected = again.model.state_dict(), first.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert set(load_file(tmp_path / "original/model.safetensors")) == set(expected)


def test_a_tensor_that_no_naming_has_is_left_over(tmp_path: Path) -> None:
    make(tmp_path, is_next=True)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "multi_modal_projector.linear_3.bias": torch.ones(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors are left over: multi_modal_projector\.linear_3\.bias"):
        load(tmp_path)


def test_a_tower_of_another_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path, is_next=True)
    values = json.loads((tmp_path / "config.json").read_text())
    values["vision_config"]["model_type"] = "pixtral"
    write_json(tmp_path / "config.json", values)
    with pytest.raises(CheckpointError, match="kind 'pixtral' is not supported; supported are CLIP's and SigLIP's"):
        load(tmp_path)


def test_how_images_are_prepared_is_also_read_where_transformers_5_writes_it(tmp_path: Path) -> None:
    make(tmp_path, is_next=True)
    images = {"image_mean": [0.1, 0.2, 0.3], "size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    write_json(tmp_path / "processor_config.json", {"image_processor": images, "patch_size": 14})
    assert load(tmp_path).image_processor.image_mean == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("file", "key", "value", "here"),
    [
        ("preprocessor_config.json", "image_grid_pinpoints", [[56, 56]], "[[28, 56], [56, 28], [56, 56]]"),
        ("processor_config.json", "patch_size", 7, "14"),
        ("processor_config.json", "vision_feature_select_strategy", "full", "'default'"),
    ],
)
def test_two_files_that_contradict_each_other_are_named_with_both_values(
    tmp_path: Path, file: str, key: str, value: Any, here: str
) -> None:
    make(tmp_path, is_next=True)
    write_json(tmp_path / file, {"size": 28, "crop_size": 28, key: value})
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    said = f"{tmp_path / file} says {key}: {value!r}, but {tmp_path / 'config.json'} says {here}: correct the one"
    assert said in str(caught.value)
