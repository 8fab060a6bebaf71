"""What research on visual tokens replaces from outside takes effect in ``forward`` and in ``generate``."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

import llava.model.llava_arch as llava_arch
from llava.engine.runner import find_fallback_reason
from llava.errors import UsageError
from llava.mm_utils import get_anyres_image_grid_shape
from llava.model.checkpoint import load_model
from llava.model.llava_arch import LlavaMetaForCausalLM, unpad_image
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from tests.tiny import ANYRES, ROWS, SIDE, SIZES, SLOT, SQUARE, TILE_PX, TILES, make_model, make_pixels, pad
from tests.tiny_checkpoints import write_llava_1_6

IDS = torch.tensor([ROWS[0]])
SEEN: dict[str, Any] = {"images": make_pixels(5, 3), "image_sizes": SIZES[:2]}
GREEDY: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}


def merge_as_the_original(
    model: Any, unpad: Any = unpad_image, grid_shape: Any = get_anyres_image_grid_shape
) -> torch.Tensor:
    """The embeddings of IDS and SEEN in the original's steps, [1, L, C]."""
    core = model.get_model()
    blocks = []
    for tiles, size in zip(SEEN["images"], SEEN["image_sizes"], strict=True):
        features_TNC = model.encode_images(tiles)
        columns, rows = grid_shape(size, model.config.image_grid_pinpoints, TILE_PX)
        grid = features_TNC[1:].view(rows, columns, SIDE, SIDE, -1)
        page = torch.cat([torch.cat(list(row), dim=1) for row in grid]).permute(2, 0, 1)
        page = unpad(page, size)
        newline = core.image_newline[:, None, None].expand(-1, page.shape[1], 1)
        blocks += [features_TNC[0], torch.cat([page, newline], dim=2).flatten(1).T]
    images = iter([torch.cat(blocks[:2]), torch.cat(blocks[2:])])
    parts = [next(images) if token == SLOT else core.embed_tokens(torch.tensor([token])) for token in ROWS[0]]
    return torch.cat(parts)[None]


def thin_out(tensor: torch.Tensor, original_size: tuple[int, int]) -> torch.Tensor:
    """Every second column of what the original keeps."""
    return unpad_image(tensor, original_size)[:, :, ::2]


def answer_from(model: Any, embeds: torch.Tensor) -> list[int]:
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    return super(LlavaMetaForCausalLM, model).generate(inputs_embeds=embeds, attention_mask=mask, **GREEDY)[0].tolist()


def test_a_replaced_unpad_image_decides_what_is_kept() -> None:
    model = make_model()
    planned = model(input_ids=IDS, **SEEN).logits
    calls = []

    def noted(tensor: torch.Tensor, original_size: tuple[int, int]) -> torch.Tensor:
        calls.append((tuple(tensor.shape), original_size))
        return unpad_image(tensor, original_size)

    with mock.patch("llava.model.llava_arch.unpad_image", noted):
        torch.testing.assert_close(model(input_ids=IDS, **SEEN).logits, planned)
    # 50x40 px on a canvas of 2x2 tiles, 20x28 px on one of 1x2: channels, rows, columns.
    assert calls == [((48, 8, 8), (50, 40)), ((48, 8, 4), (20, 28))]

    with mock.patch.object(llava_arch, "unpad_image", thin_out):
        with torch.no_grad():
            embeds = merge_as_the_original(model, thin_out)
            expected = model(inputs_embeds=embeds).logits
        assert expected.shape[1] < planned.shape[1]
        torch.testing.assert_close(model(input_ids=IDS, **SEEN).logits, expected, atol=1e-5, rtol=1e-4)
        assert model.generate(IDS, **SEEN, **GREEDY)[0].tolist() == answer_from(model, embeds)

    torch.testing.assert_close(model(input_ids=IDS, **SEEN).logits, planned)
    assert len(calls) == 2, "what was put back is used again"


def test_a_replaced_grid_shape_decides_how_tiles_are_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    planned = model(input_ids=IDS, **SEEN).logits
    calls = []

    def in_one_row(image_size: Any, grid_pinpoints: Any, patch_size: int) -> tuple[int, int]:
        columns, rows = get_anyres_image_grid_shape(image_size, grid_pinpoints, patch_size)
        calls.append((tuple(image_size), patch_size))
        return columns * rows, 1

    with monkeypatch.context() as replaced:
        replaced.setattr(llava_arch, "get_anyres_image_grid_shape", in_one_row)
        assert find_fallback_reason(model) == "get_anyres_image_grid_shape was replaced"
        logits = model(input_ids=IDS, **SEEN).logits
        assert calls == [((50, 40), TILE_PX), ((20, 28), TILE_PX)]
        assert logits.shape != planned.shape
        embeds = merge_as_the_original(model, grid_shape=in_one_row).detach()
        torch.testing.assert_close(logits, model(inputs_embeds=embeds).logits, atol=1e-5, rtol=1e-4)
        assert model.generate(IDS, **SEEN, **GREEDY)[0].tolist() == answer_from(model, embeds)
    torch.testing.assert_close(model(input_ids=IDS, **SEEN).logits, planned)
    assert find_fallback_reason(model) is None


def test_a_replaced_unpad_image_is_scaled_down_where_anyres_max_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(**{**ANYRES, "image_aspect_ratio": "anyres_max_1"})
    planned = model(input_ids=IDS, **SEEN).logits
    monkeypatch.setattr(llava_arch, "unpad_image", lambda tensor, size: unpad_image(tensor, size))
    torch.testing.assert_close(model(input_ids=IDS, **SEEN).logits, planned)


def test_images_of_one_tile_and_rows_of_a_batch_are_merged_beside_unpadded_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model()
    given = {**pad(ROWS), "images": [*make_pixels(*TILES[:2]), make_pixels(1)[0]], "image_sizes": SIZES}
    planned = model(**given).logits
    monkeypatch.setattr(llava_arch, "unpad_image", lambda tensor, size: unpad_image(tensor, size))
    torch.testing.assert_close(model(**given).logits, planned)


@pytest.mark.parametrize("merge", ["flat", "spatial_unpad"])
def test_a_replaced_encode_images_may_give_fewer_features_of_a_tile(
    merge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(**SQUARE, mm_patch_merge_type=merge)
    ids = torch.tensor([[1, SLOT, 6]])
    (pixels,) = make_pixels(1)
    whole = model.generate(ids, images=[pixels], **GREEDY)
    original = LlavaMetaForCausalLM.encode_images
    monkeypatch.setattr(LlavaMetaForCausalLM, "encode_images", lambda self, images: original(self, images)[:, ::4])
    kept = model.encode_images(pixels)[0]
    assert len(kept) == 4
    newline = [model.model.image_newline[None]] if merge == "spatial_unpad" else []
    embed = model.get_input_embeddings()
    embeds = torch.cat([embed(ids[0, :1]), kept, *newline, embed(ids[0, 2:])])[None].detach()
    torch.testing.assert_close(
        model(input_ids=ids, images=[pixels]).logits, model(inputs_embeds=embeds).logits, atol=1e-5, rtol=1e-4
    )
    answer = model.generate(ids, images=[pixels], **GREEDY)
    assert answer[0].tolist() == answer_from(model, embeds)
    assert not torch.equal(answer, whole)


def test_fewer_features_of_several_tiles_fit_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    original = LlavaMetaForCausalLM.encode_images
    monkeypatch.setattr(LlavaMetaForCausalLM, "encode_images", lambda self, images: original(self, images)[:, ::4])
    with pytest.raises(UsageError, match="A tile has 4 features, but the map of 2x2 tiles is laid out from 16"):
        model(input_ids=IDS, **SEEN)
    model.config.mm_patch_merge_type = "flat"
    assert model(input_ids=IDS, **SEEN).logits.shape[1] == len(ROWS[0]) - 2 + 8 * 4


def prune(
    self: Any,
    input_ids: torch.Tensor,
    position_ids: Any,
    attention_mask: Any,
    past_key_values: Any,
    labels: Any,
    images: Any,
    image_sizes: Any = None,
) -> tuple[Any, ...]:
    """A merge in the style of token pruning: of one tile, the features that the class position looks at most."""
    tower, core = self.get_vision_tower(), self.get_model()
    if tower is None or images is None or input_ids.shape[1] == 1:
        return input_ids, position_ids, attention_mask, past_key_values, None, labels
    outs = tower.vision_tower(
        images.to(device=tower.device, dtype=tower.dtype), output_hidden_states=True, output_attentions=True
    )
    looked_at = outs.attentions[tower.select_layer][:, :, 0, 1:].sum(1)[0]
    best = looked_at.topk(tower.num_patches // 4).indices.sort().values
    features = core.mm_projector(tower.feature_select(outs).to(images.dtype)[:, best])[0]
    at = (input_ids[0] == SLOT).nonzero()[0, 0]
    before, after = core.embed_tokens(input_ids[0, :at]), core.embed_tokens(input_ids[0, at + 1 :])
    embeds = torch.cat([before, features, after])[None]
    mask = torch.ones(embeds.shape[:2], dtype=torch.bool, device=self.device)
    return None, None, mask, past_key_values, embeds, None


def test_a_replaced_merge_with_the_originals_arguments_is_called_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(**SQUARE)
    model.get_vision_tower().vision_tower.set_attn_implementation("eager")  # the one that shows its attention
    ids = torch.tensor([[1, 5, SLOT, 6]])
    (pixels,) = make_pixels(1)
    embeds = prune(model, ids, None, None, None, None, pixels)[4].detach()
    assert embeds.shape[1] == 3 + 4
    expected = answer_from(model, embeds)
    logits = model(inputs_embeds=embeds).logits
    assert model.generate(ids, images=pixels, **GREEDY)[0].tolist() != expected
    monkeypatch.setattr(LlavaMetaForCausalLM, "prepare_inputs_labels_for_multimodal", prune)
    torch.testing.assert_close(model(input_ids=ids, images=pixels, modalities=["image"]).logits, logits)
    assert model.generate(ids, images=pixels, modalities=["image"], **GREEDY)[0].tolist() == expected


def test_a_replaced_towers_forward_is_what_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(**SQUARE)
    original = CLIPVisionTower.forward
    (pixels,) = make_pixels(1)
    ids = torch.tensor([[1, SLOT, 6]])
    monkeypatch.setattr(CLIPVisionTower, "forward", lambda self, images: original(self, images)[:, :3])
    assert model(input_ids=ids, images=pixels).logits.shape[1] == 2 + 3
    assert model.generate(ids, images=pixels, **GREEDY).shape == (1, 5)


@pytest.mark.parametrize("name", ["build_vision_tower", "build_vision_projector"])
def test_a_replaced_builder_builds_the_parts_of_new_models(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    build, built = getattr(llava_arch, name), []

    def noted(*arguments: Any, **keywords: Any) -> Any:
        built.append(build(*arguments, **keywords))
        return built[-1]

    with monkeypatch.context() as replaced:
        replaced.setattr(llava_arch, name, noted)
        core = make_model().get_model()
    assert built == [core.get_vision_tower() if name == "build_vision_tower" else core.mm_projector]
    make_model()
    assert len(built) == 1, "what was put back is used again"


def test_a_resampler_hands_features_on_and_no_other_is_there() -> None:
    features = torch.ones(2, 3)
    resampler = llava_arch.build_vision_resampler(SimpleNamespace(), vision_tower=None)
    assert resampler(features, images=None) is features
    assert resampler.config == {"mm_resampler_type": None}
    with pytest.raises(UsageError, match="mm_resampler_type is 'qformer'"):
        llava_arch.build_vision_resampler(SimpleNamespace(mm_resampler_type="qformer"))


def test_a_replaced_build_vision_tower_is_the_one_that_builds(tmp_path: Path) -> None:
    built: list[Any] = []
    usual = llava_arch.build_vision_tower

    class OwnTower(CLIPVisionTower):
        def forward(self, images: Any) -> Any:
            return torch.ones(len(images), 16, self.hidden_size, dtype=images.dtype)

    def build(config: Any, **keywords: Any) -> Any:
        built.append(config)
        return OwnTower("", config, **keywords)

    with mock.patch("llava.model.llava_arch.build_vision_tower", build):
        model = make_model(**SQUARE)
        assert isinstance(model.get_vision_tower(), OwnTower)
        assert model(input_ids=torch.tensor([[1, SLOT, 6]]), images=make_pixels(1)[0]).logits.shape[1] == 18
        write_llava_1_6(tmp_path)
        assert isinstance(load_model(tmp_path, device="cpu").model.get_vision_tower(), OwnTower)
    assert len(built) == 2
    assert llava_arch.build_vision_tower is usual
    assert type(make_model(**SQUARE).get_vision_tower()) is CLIPVisionTower


def test_a_replaced_build_vision_projector_is_the_one_that_builds() -> None:
    with mock.patch.object(llava_arch, "build_vision_projector", return_value=torch.nn.Linear(32, 48)):
        assert type(make_model().get_model().mm_projector) is torch.nn.Linear
    assert type(make_model().get_model().mm_projector).__name__ == "Sequential"


class OutsidersTower(torch.nn.Module):
    """No subclass of ours, with what the original reads of a tower."""

    hidden_size, num_patches_per_side, image_size, is_loaded = 32, 4, 28, True

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(3, 32, 7, 7)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.patches(images).flatten(2).transpose(1, 2)
        return features


@pytest.mark.parametrize("has_tiles", [False, True])
def test_a_tower_that_is_no_subclass_of_ours_is_asked_as_the_original_asks_it(has_tiles: bool) -> None:
    ids = torch.tensor([[1, SLOT, 6]])
    model = make_model(**({} if has_tiles else SQUARE))
    given = {"images": make_pixels(5), "image_sizes": [(50, 40)]} if has_tiles else {"images": make_pixels(1)[0]}
    expected = model(input_ids=ids, **given).logits.shape
    model.get_model().vision_tower = OutsidersTower()
    assert model(input_ids=ids, **given).logits.shape == expected
    assert model.generate(ids, **given, max_new_tokens=2, eos_token_id=None).shape == (1, 2)
