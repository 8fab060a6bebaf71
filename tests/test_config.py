"""What a config.json is taken to mean, in either dialect, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.config import find_tower_folder, read_config_dict, read_spec
from llava.errors import CheckpointError
from llava.image.geometry import Size
from llava.towers import KNOWN_TOWERS
from tests.tiny_configs import CONFIG, NEXT, PINPOINTS, TOWER, write_json

HF_NEXT: dict[str, Any] = {
    "architectures": ["LlavaNextForConditionalGeneration"],
    "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]],
    "image_token_index": 400,
    "model_type": "llava_next",
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "vocab_size": 448,
    },
    "torch_dtype": "float16",
    "vision_config": {**TOWER, "model_type": "clip_vision_model"},
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}


def make(folder: Path, values: dict[str, Any], **changes: Any) -> Path:
    merged = {**values, **changes}
    write_json(folder / "config.json", {key: value for key, value in merged.items() if value is not ...})
    return folder


def test_a_released_1_5_is_a_llama_that_pads_images_to_one_tile(tmp_path: Path) -> None:
    spec = read_spec(make(tmp_path, CONFIG))
    assert (spec.family, spec.layout, spec.dtype) == ("llama", "original", "float16")
    assert (spec.tower, spec.select_layer, spec.select_feature) == ("openai/clip-vit-large-patch14-336", -2, "patch")
    assert (spec.hidden_size, spec.vocab_size, spec.tower_hidden_size) == (32, 400, 16)
    assert (spec.tiling.aspect, spec.tiling.merge) == ("pad", "flat")
    assert (spec.tiling.tile_px, spec.tiling.patch_px) == (336, 14)
    assert spec.tower_config == KNOWN_TOWERS["openai/clip-vit-large-patch14-336"]
    assert spec.projector_type == "mlp2x_gelu"


def test_a_1_6_cuts_images_for_the_canvases_it_lists(tmp_path: Path) -> None:
    spec = read_spec(make(tmp_path, CONFIG | NEXT, mm_vision_config=TOWER))
    assert (spec.tiling.aspect, spec.tiling.merge, spec.tiling.dialect) == ("anyres", "spatial_unpad", "original")
    assert spec.tiling.pinpoints == tuple(Size(*pair) for pair in PINPOINTS)
    assert (spec.tiling.tile_px, spec.tower_config["num_hidden_layers"]) == (28, 3)


@pytest.mark.parametrize(
    ("kind", "classes", "family"),
    [
        ("llava", ["LlavaLlamaForCausalLM"], "llama"),
        ("llava", ["LlavaMistralForCausalLM"], "mistral"),
        ("llava", None, "llama"),
        ("llava_llama", ["LlavaLlamaForCausalLM"], "llama"),
        ("llava_mistral", ["LlavaMistralForCausalLM"], "mistral"),
        ("llava_mistral", None, "mistral"),
        ("llava_qwen", ["LlavaQwenForCausalLM"], "qwen2"),
    ],
)
def test_the_class_and_the_type_in_the_file_name_the_family(
    tmp_path: Path, kind: str, classes: list[str] | None, family: str
) -> None:
    folder = make(tmp_path / "not-a-mistral-nor-a-qwen", CONFIG, model_type=kind, architectures=classes)
    assert read_spec(folder).family == family


def test_an_hf_config_is_told_in_the_originals_names(tmp_path: Path) -> None:
    spec = read_spec(make(tmp_path, HF_NEXT))
    assert (spec.family, spec.layout, spec.dtype, spec.tower) == ("llama", "hf", "float16", "")
    assert (spec.tiling.aspect, spec.tiling.merge, spec.tiling.dialect) == ("anyres", "spatial_unpad", "hf")
    assert (spec.select_layer, spec.select_feature, spec.projector_type) == (-2, "patch", "mlp2x_gelu")
    assert (spec.context_tokens, spec.vocab_size, spec.tiling.tile_px) == (4096, 448, 28)


def test_hf_pinpoints_are_height_first_and_ours_width_first(tmp_path: Path) -> None:
    spec = read_spec(make(tmp_path, HF_NEXT))
    assert spec.tiling.pinpoints == (Size(56, 28), Size(28, 56), Size(56, 56))
    assert spec.config["image_grid_pinpoints"] == [[56, 28], [28, 56], [56, 56]]


def test_an_hf_1_5_takes_the_centre_square_as_its_processor_does(tmp_path: Path) -> None:
    changes = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "image_grid_pinpoints": ...}
    spec = read_spec(make(tmp_path, HF_NEXT, **changes))
    assert (spec.tiling.aspect, spec.tiling.merge) == ("square", "flat")


def test_hf_full_features_keep_the_class_position(tmp_path: Path) -> None:
    changes = {"model_type": "llava", "image_grid_pinpoints": ..., "vision_feature_select_strategy": "full"}
    assert read_spec(make(tmp_path, HF_NEXT, **changes)).select_feature == "cls_patch"


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_feature_layer": [-2, -5]},
        {"projector_hidden_act": "relu"},
        {"vision_feature_select_strategy": "average"},
        {"multimodal_projector_bias": False},
        {"image_grid_pinpoints": [336, 672]},
        {"model_type": "llava_next_video", "architectures": ["LlavaNextVideoForConditionalGeneration"]},
        {"text_config": {"model_type": "gemma"}},
    ],
)
def test_an_hf_config_that_means_another_model_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_spec(make(tmp_path, HF_NEXT, **changes))


@pytest.mark.parametrize(
    ("changes", "context_tokens"),
    [
        ({}, 4096),
        ({"max_sequence_length": 1234}, 1234),
        ({"max_position_embeddings": 32768}, 32768),
        ({"max_position_embeddings": ...}, 2048),
    ],
)
def test_the_context_is_what_the_decoder_can_address(
    tmp_path: Path, changes: dict[str, Any], context_tokens: int
) -> None:
    assert read_spec(make(tmp_path, CONFIG, **changes)).context_tokens == context_tokens


def test_keys_that_name_code_are_dropped_at_any_depth(tmp_path: Path) -> None:
    code = {"auto_map": {"AutoModel": "evil.Model"}, "_attn_implementation_internal": "evil/kernel"}
    code |= {"attn_implementation": "evil/kernel", "_attn_implementation": "evil/kernel"}
    folder = make(tmp_path, CONFIG | code, mm_vision_config={**TOWER, **code})
    spec = read_spec(folder)
    for values in (read_config_dict(folder), spec.raw, spec.config, spec.tower_config):
        assert "evil" not in str(values)
    assert spec.raw["_name_or_path"] == CONFIG["_name_or_path"]


def test_the_template_that_the_file_names_is_kept(tmp_path: Path) -> None:
    assert read_spec(make(tmp_path / "a", CONFIG)).template is None
    assert read_spec(make(tmp_path / "b", CONFIG, conversation_template="plain")).template == "plain"


def test_a_tower_is_found_from_here_and_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = make(tmp_path / "checkpoint", CONFIG, mm_vision_tower="towers/small")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="towers/small"):
        read_spec(checkpoint)
    beside = checkpoint / "towers/small"
    write_json(beside / "config.json", {**TOWER, "model_type": "clip_vision_model"})
    assert find_tower_folder("towers/small", checkpoint) == beside
    assert read_spec(checkpoint).tiling.tile_px == 28
    write_json(tmp_path / "towers/small/config.json", {**TOWER, "image_size": 56, "model_type": "clip_vision_model"})
    assert find_tower_folder("towers/small", checkpoint) == Path("towers/small")
    assert find_tower_folder("~nobody-of-this-name/tower", checkpoint) is None
    assert read_spec(checkpoint).tiling.tile_px == 56


def test_of_a_complete_clip_the_vision_half_is_read(tmp_path: Path) -> None:
    write_json(
        tmp_path / "clip/config.json",
        {"model_type": "clip", "hidden_size": 999, "text_config": {"hidden_size": 8}, "vision_config": TOWER},
    )
    spec = read_spec(make(tmp_path, CONFIG, mm_vision_tower="clip"))
    assert (spec.tower_config["hidden_size"], spec.tiling.tile_px) == (16, 28)


def test_a_tower_of_another_kind_is_refused_by_its_kind(tmp_path: Path) -> None:
    write_json(tmp_path / "tower/config.json", {"model_type": "dinov2"})
    with pytest.raises(CheckpointError, match="dinov2"):
        read_spec(make(tmp_path, CONFIG, mm_vision_tower="tower"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mm_vision_tower": ...}, "mm_vision_tower is missing"),
        ({"mm_vision_select_layer": ...}, "mm_vision_select_layer"),
        ({"mm_vision_select_layer": "-2"}, "mm_vision_select_layer: '-2'"),
        ({"mm_vision_select_layer": -26}, "the vision tower has 24 layers"),
        ({"max_position_embeddings": 0}, "max_position_embeddings: 0"),
        ({"architectures": 5}, "architectures: 5"),
        ({"conversation_template": ["plain"]}, "conversation_template: ['plain']"),
        ({"mm_vision_tower": 5}, "mm_vision_tower: 5, where a name is needed"),
        ({"image_aspect_ratio": True}, "image_aspect_ratio: True, where a name is needed"),
        ({"torch_dtype": {"a": 1}}, "torch_dtype: {'a': 1}, where a name is needed"),
        ({"mm_vision_select_feature": ["patch"]}, "mm_vision_select_feature: ['patch']"),
        ({"mm_vision_select_feature": "slicefour_patch"}, "slicefour_patch"),
        ({"mm_projector_type": "pooler"}, "pooler"),
        ({"mm_resampler_type": "perceiver"}, "perceiver"),
        (
            {"s2": True, "s2_scales": "336,500"},
            "s2_scales: '336,500'; it has to list multiples of the vision tower's 336",
        ),
        ({"s2": True, "s2_scales": "672,1344"}, "beginning with 336"),
        ({"s2": True, "s2_scales": [336]}, "s2_scales: [336]"),
        ({"s2": True, "image_aspect_ratio": "anyres"}, "takes images of one tile"),
        ({"model_type": "llava_qwen"}, "'llava_qwen', which is a qwen2, but architectures: ['LlavaLlamaForCausalLM']"),
        ({"model_type": "llava_mpt", "architectures": ["LlavaMptForCausalLM"]}, "LlavaMptForCausalLM"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        (
            {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]},
            "describe a supported LLaVA",
        ),
        ({"hidden_size": "4096"}, "hidden_size: '4096'"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"image_aspect_ratio": "anyres"}, "image_grid_pinpoints"),
        ({"mm_vision_config": 5}, "mm_vision_config"),
    ],
)
def test_a_config_that_cannot_be_used_says_which_value_is_wrong(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_spec(make(tmp_path, CONFIG, **changes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ("\x80", "not valid JSON"),
        ("[" * 99999, "not valid JSON"),
        ("[]", "a JSON object is needed"),
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=said) as caught:
        read_config_dict(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_mark_that_an_editor_put_before_the_text_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 32}), encoding="utf-8-sig")
    assert read_config_dict(tmp_path) == {"hidden_size": 32}


def test_a_folder_without_a_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        read_config_dict(tmp_path)
