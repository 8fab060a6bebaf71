from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig
from transformers import CLIPVisionModel as TheirVisionModel

from llava.errors import UsageError
from llava.image.pixels import ImageProcessor
from llava.model.multimodal_encoder.builder import build_vision_tower
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower, CLIPVisionTowerS2
from tests.tiny import SQUARE, TILE_PX, TOWER, make_model, make_pixels


def make_args(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", **changes})


def make_tower(**changes: Any) -> CLIPVisionTower:
    torch.manual_seed(0)
    return CLIPVisionTower.from_config(TOWER, make_args(**changes)).eval()


def save_tower(folder: Path, kind: str) -> CLIPVisionTower:
    """A folder as the hub has it ("hub", "clip" with a text half) or as Transformers writes it today ("bare")."""
    tower = make_tower()
    state = tower.vision_tower.state_dict()
    if kind == "bare":
        theirs = TheirVisionModel(CLIPVisionConfig(**TOWER))
        theirs.load_state_dict({name.removeprefix("vision_model."): value for name, value in state.items()})
        theirs.save_pretrained(folder)
    elif kind == "hub":
        folder.mkdir()
        config = {"model_type": "clip_vision_model", "torch_dtype": "float32", **TOWER}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(state, folder / "pytorch_model.bin")
    else:
        text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        whole = CLIPModel(CLIPConfig(vision_config=TOWER, text_config=text, projection_dim=16))
        whole.vision_model.load_state_dict({k.removeprefix("vision_model."): v for k, v in state.items()})
        whole.save_pretrained(folder)
    ImageProcessor(size=TILE_PX, image_mean=(0.1, 0.2, 0.3)).save_pretrained(folder)
    return tower


@pytest.mark.parametrize("select_layer", [-1, -2, -4, 0, 2])
@pytest.mark.parametrize("select_feature", ["patch", "cls_patch"])
def test_features_are_the_hidden_states_that_transformers_gives(select_layer: int, select_feature: str) -> None:
    tower = make_tower(mm_vision_select_layer=select_layer, mm_vision_select_feature=select_feature)
    theirs = TheirVisionModel(CLIPVisionConfig(**TOWER)).eval()
    state = tower.vision_tower.state_dict()
    theirs.load_state_dict({name.removeprefix("vision_model."): value for name, value in state.items()})
    (pixels,) = make_pixels(3)
    expected = theirs(pixels, output_hidden_states=True).hidden_states[select_layer]
    expected = expected[:, 1:] if select_feature == "patch" else expected
    torch.testing.assert_close(tower(pixels), expected, atol=1e-6, rtol=1e-5)


def test_blocks_behind_the_chosen_layer_and_the_last_norm_do_not_run() -> None:
    tower = make_tower()
    body = tower.vision_tower.vision_model
    for unused in (body.encoder.layers[2], body.post_layernorm):
        for parameter in unused.parameters():
            parameter.data.fill_(float("nan"))
    assert tower.num_blocks_run == 2
    assert tower(make_pixels(1)[0]).isfinite().all()
    body.encoder.layers[1].mlp.fc2.weight.data.fill_(float("nan"))
    assert not tower(make_pixels(1)[0]).isfinite().any()


def test_the_hidden_states_of_the_whole_transformer_are_there_for_who_asks() -> None:
    tower = make_tower()
    (pixels,) = make_pixels(2)
    states = tower.vision_tower(pixels, output_hidden_states=True).hidden_states
    assert len(states) == TOWER["num_hidden_layers"] + 1
    torch.testing.assert_close(states[-2][:, 1:], tower(pixels))


def test_a_layer_that_the_tower_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="-5, but the tower has 3 blocks"):
        _ = make_tower(mm_vision_select_layer=-5).num_blocks_run


def test_only_two_selections_exist() -> None:
    with pytest.raises(UsageError, match="'cls'"):
        make_tower(mm_vision_select_feature="cls")


def test_unfolded_patches_give_what_the_convolution_gives() -> None:
    embeddings = make_tower().vision_tower.vision_model.embeddings
    (pixels,) = make_pixels(2)
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    expected = torch.cat([embeddings.class_embedding.expand(2, 1, -1), patches], dim=1)
    expected = expected + embeddings.position_embedding(embeddings.position_ids)
    torch.testing.assert_close(embeddings(pixels), expected, atol=1e-6, rtol=1e-5)


def test_positions_can_be_stretched_to_larger_tiles() -> None:
    tower = make_tower()
    larger = torch.randn(1, 3, 2 * TILE_PX, 2 * TILE_PX)
    theirs = TheirVisionModel(CLIPVisionConfig(**TOWER)).eval()
    state = tower.vision_tower.state_dict()
    theirs.load_state_dict({name.removeprefix("vision_model."): value for name, value in state.items()})
    expected = theirs(larger, interpolate_pos_encoding=True).last_hidden_state
    given = tower.vision_tower(larger, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_tiles_of_another_size_are_refused_with_both_sizes() -> None:
    with pytest.raises(UsageError, match=r"28x28 px, but got 30x28 px"):
        make_tower()(torch.zeros(1, 3, 28, 30))


def test_a_list_of_images_gives_a_list_of_features() -> None:
    tower = make_tower()
    one, three = make_pixels(1, 3)
    features = tower([one[0], three])
    assert [tuple(feature.shape) for feature in features] == [(1, 16, 32), (3, 16, 32)]
    torch.testing.assert_close(features[0], tower(one))
    torch.testing.assert_close(features[1], tower(three))


def test_pixels_are_cast_to_the_tower_and_features_back_to_the_pixels() -> None:
    tower = make_tower()
    (pixels,) = make_pixels(1)
    features = tower(pixels.to(torch.bfloat16))
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(features, tower(pixels.to(torch.bfloat16).float()).to(torch.bfloat16))
    assert tower.to(torch.bfloat16)(pixels).dtype == torch.float32


def test_a_tower_starts_frozen_and_learns_when_it_is_told_to() -> None:
    tower = make_tower()
    (pixels,) = make_pixels(1)
    assert not tower(pixels).requires_grad
    tower.requires_grad_(True)
    tower(pixels).sum().backward()
    learning = {name for name, parameter in tower.named_parameters() if parameter.grad is not None}
    silent = {name for name, _ in tower.named_parameters()} - learning
    assert silent
    assert all("layers.2." in name or "post_layernorm" in name for name in silent)


def test_a_tower_says_what_it_is() -> None:
    tower = make_tower()
    assert (tower.is_loaded, tower.select_layer, tower.select_feature) == (True, -2, "patch")
    assert (tower.hidden_size, tower.num_patches_per_side, tower.num_patches, tower.image_size) == (32, 4, 16, 28)
    assert (tower.dtype, tower.device) == (torch.float32, torch.device("cpu"))
    assert tower.config.num_hidden_layers == 3
    assert torch.equal(tower.dummy_feature, torch.zeros(1, 32))
    assert tower.image_processor.crop_size == {"height": 28, "width": 28}


def test_a_tower_can_be_described_without_any_memory() -> None:
    with torch.device("meta"):
        tower = CLIPVisionTower.from_config(TOWER, make_args())
    assert tower.device == torch.device("meta")
    assert "vision_tower.vision_model.pre_layrnorm.weight" in tower.state_dict()


def test_the_released_tower_is_known_without_a_network() -> None:
    tower = build_vision_tower(make_args(mm_vision_tower="openai/clip-vit-large-patch14-336"), delay_load=True)
    assert not tower.is_loaded
    assert not list(tower.parameters())
    assert (tower.image_size, tower.num_patches, tower.hidden_size) == (336, 576, 1024)
    assert tower.num_blocks_run == 23
    with torch.device("meta"):
        args = make_args(vision_tower="openai/clip-vit-large-patch14-336", unfreeze_mm_vision_tower=True)
        tower = build_vision_tower(args, delay_load=True)
    assert sum(parameter.numel() for parameter in tower.parameters()) == 303_507_456


@pytest.mark.parametrize("kind", ["hub", "bare", "clip"])
def test_a_folder_is_read_whichever_way_it_names_the_weights(kind: str, tmp_path: Path) -> None:
    saved = save_tower(tmp_path / "tower", kind)
    tower = build_vision_tower(make_args(mm_vision_tower=str(tmp_path / "tower")), delay_load=True)
    assert not tower.is_loaded
    assert tower.hidden_size == 32
    tower.load_model()
    assert tower.is_loaded
    for name, value in saved.state_dict().items():
        assert torch.equal(tower.state_dict()[name], value), name
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert tower.image_processor.image_mean == [0.1, 0.2, 0.3]
    body = tower.vision_tower
    tower.load_model()
    assert tower.vision_tower is body, "a second load changes nothing"


def test_a_tower_is_loaded_at_once_unless_it_is_told_to_wait(tmp_path: Path) -> None:
    save_tower(tmp_path / "tower", "hub")
    assert CLIPVisionTower(str(tmp_path / "tower"), make_args()).is_loaded


def test_a_relative_name_is_also_looked_for_in_the_checkpoints_folder(tmp_path: Path) -> None:
    save_tower(tmp_path / "tower", "hub")
    assert build_vision_tower(make_args(mm_vision_tower="tower", _name_or_path=str(tmp_path))).is_loaded


def test_a_tower_of_a_folder_that_has_its_weights_elsewhere_is_built_empty(tmp_path: Path) -> None:
    save_tower(tmp_path / "tower", "hub")
    args = make_args(mm_vision_tower=str(tmp_path / "tower"), unfreeze_mm_vision_tower=True)
    with torch.device("meta"):
        tower = build_vision_tower(args, delay_load=True)
    assert tower.is_loaded
    assert tower.device == torch.device("meta")


def test_a_configuration_may_come_with_its_kind() -> None:
    described = CLIPVisionConfig(**TOWER).to_dict()
    tower = CLIPVisionTower.from_config(described, make_args())
    assert tower.hidden_size == 32


def test_an_unknown_tower_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"Unknown vision tower: 'somebody/tower'. Supported are CLIP's and SigLIP's"):
        build_vision_tower(make_args(mm_vision_tower="somebody/tower"))


def read_slowly(tower: CLIPVisionTower, pixels_TCHW: torch.Tensor, sides: list[int]) -> torch.Tensor:
    """An image at a time, a size at a time, a square at a time; each feature a mean over those that it stands for."""
    rows = []
    for image in pixels_TCHW:
        columns = []
        for side in sides:
            scaled = F.interpolate(image[None], size=(side, side), mode="bicubic")[0]
            num = side // TILE_PX
            page = torch.zeros(4 * num, 4 * num, 32)
            for row in range(num):
                for column in range(num):
                    square = scaled[:, row * TILE_PX : (row + 1) * TILE_PX, column * TILE_PX : (column + 1) * TILE_PX]
                    for i, feature in enumerate(tower(square[None])[0]):
                        page[row * 4 + i // 4, column * 4 + i % 4] = feature
            means = [
                page[y * num : (y + 1) * num, x * num : (x + 1) * num].mean((0, 1)) for y in range(4) for x in range(4)
            ]
            columns.append(torch.stack(means))
        rows.append(torch.cat(columns, dim=1))
    return torch.stack(rows)


def make_s2_tower(scales: str = "84,28,56", **changes: Any) -> CLIPVisionTowerS2:
    torch.manual_seed(0)
    args = make_args(mm_vision_config=TOWER, s2=True, s2_scales=scales, **changes)
    tower = build_vision_tower(args, delay_load=True)
    assert isinstance(tower, CLIPVisionTowerS2)
    return tower.eval()


@pytest.mark.parametrize(("scales", "sides"), [("84,28,56", [28, 56, 84]), ("28,56", [28, 56]), ("28", [28])])
def test_a_multi_scale_tower_joins_what_it_sees_in_every_size(scales: str, sides: list[int]) -> None:
    tower = make_s2_tower(scales)
    pixels = torch.randn(2, 3, sides[-1], sides[-1], generator=torch.Generator().manual_seed(2))
    features = tower(pixels)
    assert features.shape == (2, 16, 32 * len(sides)) == (2, tower.num_patches, tower.hidden_size)
    torch.testing.assert_close(features, read_slowly(make_tower(), pixels, sides), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(tower([pixels[0], pixels[1:]])[1], features[1:], atol=1e-5, rtol=1e-4)


def test_a_multi_scale_tower_wants_images_of_its_largest_size(tmp_path: Path) -> None:
    tower = make_s2_tower()
    assert (tower.s2_scales, tower.s2_split_size, tower.s2_image_size) == ([28, 56, 84], 28, 84)
    assert tower.image_processor.crop_size == {"height": 84, "width": 84}
    assert tower.image_processor.size == {"shortest_edge": 84}
    assert tower(torch.zeros(1, 3, 84, 84, dtype=torch.bfloat16)).dtype == torch.bfloat16
    save_tower(tmp_path / "tower", "hub")
    loaded = CLIPVisionTowerS2(str(tmp_path / "tower"), make_args(s2_scales="28,56"))
    assert loaded.image_processor.crop_size == {"height": 56, "width": 56}
    assert loaded.image_processor.image_mean == [0.1, 0.2, 0.3]
    known = build_vision_tower(make_args(mm_vision_tower="openai/clip-vit-large-patch14-336", s2=True), delay_load=True)
    assert isinstance(known, CLIPVisionTowerS2)
    assert (known.s2_scales, known.hidden_size, known.num_patches) == ([336, 672, 1008], 3072, 576)


def test_a_model_sees_with_a_multi_scale_tower() -> None:
    model = make_model(**SQUARE, s2=True, s2_scales="28,56", mm_hidden_size=None)
    assert model.model.mm_projector[0].in_features == 64
    pixels = torch.randn(1, 3, 56, 56)
    ids = torch.tensor([[1, -200, 6]])
    assert model(input_ids=ids, images=pixels).logits.shape[1] == 2 + 16
    assert model.generate(ids, images=[pixels], max_new_tokens=2, do_sample=False).shape[1] == 2


def test_scales_that_do_not_fit_and_the_class_position_are_refused() -> None:
    with pytest.raises(UsageError, match="60 px, which is not a multiple of 28 px"):
        make_s2_tower("28,60")
    with pytest.raises(UsageError, match="'cls_patch'; a multi-scale tower needs 'patch'"):
        make_s2_tower(mm_vision_select_feature="cls_patch")


def test_who_runs_the_layers_themselves_selects_the_same_features() -> None:
    for feature in ("patch", "cls_patch"):
        torch.manual_seed(0)
        tower = CLIPVisionTower.from_config(TOWER, make_args(mm_vision_select_feature=feature)).eval()
        (pixels,) = make_pixels(2)
        outputs = tower.vision_tower(pixels, output_hidden_states=True)
        torch.testing.assert_close(tower.feature_select(outputs), tower(pixels))
