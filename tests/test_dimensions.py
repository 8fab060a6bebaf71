"""Every size, switch and name of config.json is judged before anything is built: named, with its value and the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPVisionConfig, LlamaConfig

from llava.config import read_spec
from llava.dimensions import explain_field
from llava.errors import CheckpointError
from tests.tiny_configs import CONFIG, NEXT, TOWER, write_json

ABSURD: list[Any] = ["", [], -1, 0, 1e30, "abc", {"a": {"b": 1}}, True, 1.5, 10**12]
SIZES = ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"]


def read(**changes: Any) -> Any:
    return read_spec(Path("there"), config={**CONFIG, **NEXT, "mm_vision_config": TOWER, **changes})


@pytest.mark.parametrize("value", ABSURD, ids=str)
def test_a_size_that_no_model_has_is_named_with_its_value(value: Any) -> None:
    for name in [*SIZES, "num_key_value_heads", "head_dim"]:
        with pytest.raises(CheckpointError) as caught:
            read(**{name: value})
        assert f"says {name}: {value!r}" in str(caught.value)
        assert str(Path("there/config.json")) in str(caught.value)
    for name in [name for name in TOWER if name != "projection_dim"]:
        with pytest.raises(CheckpointError, match=f"says {name}: "):
            read(mm_vision_config={**TOWER, name: value})


@pytest.mark.parametrize("value", ["", [], -1, "abc", {"a": 1}, 1.5, "false"], ids=str)
@pytest.mark.parametrize("name", ["mm_use_im_start_end", "unfreeze_mm_vision_tower", "tie_word_embeddings", "s2"])
def test_a_switch_is_true_or_false_and_no_text_that_counts_as_true(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"says {name}: .*true or false is needed"):
        read(**{name: value})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sliding_window": "4096", "model_type": "llava_mistral", "architectures": []}, "sliding_window: '4096'"),
        ({"sliding_window": 1.5, "use_sliding_window": True}, r"sliding_window: 1\.5"),
        ({"hidden_size": 34}, "hidden_size: 34 and num_attention_heads: 4, but the one is no multiple"),
        ({"num_key_value_heads": 3}, "num_attention_heads: 4 and num_key_value_heads: 3, but the one is no multiple"),
        ({"rms_norm_eps": 1.5}, r"rms_norm_eps: 1\.5, where a small number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps: nan"),
        ({"mm_vision_config": {**TOWER, "layer_norm_eps": 0}}, "layer_norm_eps: 0 of its vision tower"),
        ({"rope_theta": None}, "rope_theta: None"),
        ({"rope_scaling": "linear"}, "rope_scaling: 'linear', where a JSON object or null"),
        ({"rope_scaling": {"factor": 2.0}}, "of the rope_type None; known are default, linear"),
        ({"rope_scaling": {"type": [1]}}, r"of the rope_type \[1\]"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "factor: None in rope_scaling, where yarn needs a number"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -2}}, "factor: -2 in rope_scaling"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta: 0"),
        ({"image_aspect_ratio": "padded"}, "image_aspect_ratio: 'padded'; supported are square, pad, anyres"),
        ({"mm_vision_tower": {"a": 1}}, "mm_vision_tower: {'a': 1}, where a name"),
        ({"vocab_size": True}, "vocab_size: True"),
        ({"eos_token_id": {"a": 1}}, "eos_token_id: {'a': 1}, where the id of a token"),
        ({"eos_token_id": [2, "x"]}, r"eos_token_id: \[2, 'x'\]"),
        ({"bos_token_id": [1]}, r"bos_token_id: \[1\]"),
        ({"tokenizer_model_max_length": "2048"}, "tokenizer_model_max_length: '2048'"),
    ],
    ids=str,
)
def test_what_fits_no_model_is_named_with_its_value(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        read(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"sliding_window": "unused"},
        {"rope_scaling": {"type": "linear", "factor": 2}},
        {"rope_scaling": None, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
        {"mm_use_im_start_end": 1, "s2": None, "unfreeze_mm_vision_tower": 0},
        {"num_key_value_heads": None, "head_dim": None, "mm_patch_merge_type": None, "image_aspect_ratio": None},
        {"hidden_size": 34, "head_dim": 8},
        {"eos_token_id": [2, 5], "bos_token_id": None, "tokenizer_model_max_length": 10**30},
    ],
    ids=str,
)
def test_what_a_model_may_say_is_left_alone(changes: dict[str, Any]) -> None:
    assert read(**changes).family == "llama"


def test_what_a_library_refuses_is_said_with_the_value_and_what_is_needed() -> None:
    values = {"use_cache": "x", "hidden_act": "silu", "mm_vision_config": {"hidden_act": 7, "layer_norm_eps": "y"}}
    said = []
    for config, name, value in (
        (LlamaConfig, "use_cache", "x"),
        (CLIPVisionConfig, "hidden_act", 7),
        (CLIPVisionConfig, "layer_norm_eps", "y"),
    ):
        with pytest.raises(Exception, match=name) as caught:
            config(**{name: value})
        said.append(explain_field(caught.value, values))
    assert said == [
        "says use_cache: 'x', where true or false is needed",
        "says hidden_act: 7 of its vision tower, where a name is needed",
        "says layer_norm_eps: 'y' of its vision tower, where a number is needed",
    ]
    assert explain_field(KeyError("silu"), values) == "says hidden_act: 'silu', which is no known name"
    assert explain_field(ValueError("anything"), values) is None


def test_the_file_is_read_as_the_values_are(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {**CONFIG, "mm_vision_config": TOWER, "num_attention_heads": 0})
    assert json.loads((tmp_path / "config.json").read_text())["num_attention_heads"] == 0
    with pytest.raises(CheckpointError, match=r"config\.json says num_attention_heads: 0, where a number of at least"):
        read_spec(tmp_path)
