"""``load_pretrained_model`` takes what callers of either original pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llava.answer import ask
from llava.errors import UsageError
from llava.model.builder import DEFAULT_MODEL, load_pretrained_model
from llava.model.checkpoint import load_model
from llava.sampling import Sampling
from tests.tiny_checkpoints import write_llava_1_6
from tests.tiny_configs import CONFIG, NEXT, TOWER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llava-tiny"
    write_llava_1_6(path)
    return path


def test_the_four_are_what_the_original_returns(folder: Path) -> None:
    tokenizer, model, image_processor, context_len = load_pretrained_model(folder, None, "llava-tiny", device="cpu")
    assert tokenizer("What").input_ids[0] == tokenizer.bos_token_id
    assert type(model).__name__ == "LlavaLlamaForCausalLM"
    assert image_processor.crop_size == {"height": 28, "width": 28}
    assert context_len == 2048


def test_the_context_is_max_sequence_length_or_the_originals_2048_or_what_there_is(folder: Path) -> None:
    for overwrite, expected in (
        ({"max_sequence_length": 3000}, 3000),
        ({"max_position_embeddings": 512}, 512),
        ({"max_position_embeddings": 32768}, 2048),
    ):
        assert load_pretrained_model(folder, device="cpu", overwrite_config=overwrite)[3] == expected


def test_only_the_originals_door_cuts_long_prompts_in_silence(folder: Path) -> None:
    assert load_pretrained_model(folder, device="cpu")[1].config.truncate_to_model_max_length is True
    assert not getattr(load_model(folder, device="cpu").model.config, "truncate_to_model_max_length", False)


def test_a_model_that_does_not_say_where_it_cuts_does_not_cut(tmp_path: Path) -> None:
    """As any in llava-hf's layout, and some fine-tunes."""
    write_llava_1_6(tmp_path, tokenizer_model_max_length=None)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["tokenizer_model_max_length"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    model = load_pretrained_model(tmp_path, device="cpu")[1]
    ids = torch.tensor([[1, -200, *[9] * 3000]])
    embeds = model.prepare_inputs_labels_for_multimodal(ids, None, None, None, None, torch.randn(1, 3, 28, 28))[4]
    assert embeds.shape[1] == 3001 + 4
    assert model.generate(ids[:, :4], images=torch.randn(1, 3, 28, 28), max_new_tokens=1).shape == (1, 1)
    loaded = load_model(tmp_path, device="cpu")
    loaded.model.config.truncate_to_model_max_length = True
    assert ask(loaded, "What is in it?", (), Sampling(max_new_tokens=1)).cut_tokens == 0


@pytest.mark.parametrize(
    "options",
    [
        # lmms-eval, llava
        {"device_map": "cpu", "multimodal": True, "attn_implementation": "sdpa"},
        {"device_map": "cpu", "multimodal": True, "attn_implementation": "eager", "customized_config": None},
        # VLMEvalKit
        {"device_map": "cpu"},
        # LLaVA's own
        {"load_8bit": False, "load_4bit": False, "device_map": "auto", "device": "cpu", "use_flash_attn": False},
        {"device_map": {"": "cpu"}, "low_cpu_mem_usage": True},
        # LLaVA-NeXT's own
        {"device_map": None, "device": "cpu", "torch_dtype": "float32", "attn_implementation": None},
        {"device_map": "cpu", "torch_dtype": torch.float32, "overwrite_config": {}},
        {"device_map": torch.device("cpu"), "torch_dtype": torch.float32, "dtype": "float32"},
    ],
)
def test_every_known_way_to_call_it_works(folder: Path, options: dict[str, Any]) -> None:
    model = load_pretrained_model(model_path=str(folder), model_base=None, model_name="llava-tiny", **options)[1]
    assert model.device.type == "cpu"
    assert model.dtype == torch.float32


def test_positional_arguments_may_follow_either_order(folder: Path) -> None:
    first = load_pretrained_model(folder, None, "n", False, False, "auto", "cpu", False)[1]
    second = load_pretrained_model(folder, None, "n", False, False, "cpu", "bfloat16", "eager")[1]
    third = load_pretrained_model(folder, None, "n", False, False, "cpu", torch.bfloat16, "sdpa", None, {"a_key": 7})[1]
    assert (third.dtype, third.config.a_key) == (torch.bfloat16, 7)
    assert (first.dtype, first.config._attn_implementation) == (torch.float32, "sdpa")
    assert (second.dtype, second.config._attn_implementation) == (torch.bfloat16, "eager")


def test_an_unknown_keyword_is_a_type_error_that_names_it(folder: Path) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'multimodel'"):
        load_pretrained_model(folder, None, "llava-tiny", multimodel=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"device_map": {"lm_head": "cpu", "model.layers": "cuda:0"}},
            "device_map does not cover the whole model",
        ),
        ({"device_map": "cuda:0", "device": "mps"}, "give one of them"),
        ({"load_8bit": True, "load_4bit": True}, "choose one"),
        ({"load_8bit": "False"}, "8 bits are asked for with the string 'False'; True or False is needed"),
        ({"device": "cpu", "torch_dtype": "float8"}, "'float8'"),
        (
            {"device": "cpu", "torch_dtype": "float16", "dtype": torch.bfloat16},
            "torch.bfloat16 and as float16: give one of",
        ),
        ({"device": "float16", "torch_dtype": "float32"}, "as float32 and as float16: give one of"),
        ({"device": "cpu", "overwrite_config": ["use_cache"]}, "overwrite_config is ['use_cache'], where a dict"),
        ({"device": "cpu", "customized_config": 5}, "customized_config is 5, where a config object"),
        ({"device": "cpu", "attn_implementation": "warp"}, "'warp'"),
        ({"device": "cpu", "use_flash_attn": True}, "flash_attention_2"),
    ],
)
def test_a_call_that_contradicts_itself_or_the_machine_is_refused(
    folder: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_pretrained_model(folder, **options)
    assert said in str(caught.value)


def test_a_config_may_be_overwritten_or_replaced(folder: Path, tmp_path: Path) -> None:
    overwritten = load_pretrained_model(
        folder, device="cpu", overwrite_config={"image_aspect_ratio": "pad", "mm_spatial_pool_stride": 2}
    )[1].config
    assert (overwritten.image_aspect_ratio, overwritten.mm_spatial_pool_stride) == ("pad", 2)
    values = {**CONFIG, **NEXT, "mm_vision_config": TOWER, "rms_norm_eps": 1e-3}
    (tmp_path / "other.json").write_text(json.dumps(values))
    for given in (values, str(tmp_path / "other.json"), overwritten.__class__(**values)):
        config = load_pretrained_model(folder, device="cpu", customized_config=given)[1].config
        assert (config.rms_norm_eps, config.image_aspect_ratio) == (1e-3, "anyres")


def test_harnesses_find_image_aspect_ratio_in_the_configs_dict_and_may_set_it(folder: Path) -> None:
    config = load_pretrained_model(folder, device="cpu")[1].config
    assert "image_aspect_ratio" in config.__dict__
    config.image_aspect_ratio = "pad"
    assert config.image_aspect_ratio == "pad"


def test_the_default_model_has_a_name() -> None:
    assert DEFAULT_MODEL == "default"


@pytest.mark.parametrize(
    "options",
    [
        {"low_cpu_mem_usage": True, "offload_folder": "offload", "max_memory": {0: "20GiB", "cpu": "64GiB"}},
        {"trust_remote_code": False, "use_safetensors": True, "offload_state_dict": False, "revision": "main"},
        {"cache_dir": "cache", "local_files_only": True, "token": None, "force_download": False},
        {"quantization_config": None, "load_in_8bit": False, "load_in_4bit": False, "use_auth_token": False},
        {"dtype": "auto", "use_flash_attention_2": False, "vision_tower": None, "resume_download": True},
        {"weights_only": True, "variant": None, "subfolder": "", "state_dict": None, "vision_tower": ""},
        {"proxies": None, "mirror": None, "ignore_mismatched_sizes": False, "use_cache": True},
    ],
)
def test_keywords_that_went_on_to_from_pretrained_are_taken(folder: Path, options: dict[str, Any]) -> None:
    assert load_pretrained_model(folder, device_map="cpu", **options)[1].device.type == "cpu"


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("form", ["keyword", "dict", "object"])
def test_every_way_to_ask_for_fewer_bits_gives_them(folder: Path, bits: int, form: str) -> None:
    from transformers import BitsAndBytesConfig

    flag = {f"load_in_{bits}bit": True}
    options: dict[str, dict[str, Any]] = {
        "keyword": flag,
        "dict": {"quantization_config": {"quant_method": "bitsandbytes", **flag}},
        "object": {"quantization_config": BitsAndBytesConfig(**flag)},
    }
    model = load_pretrained_model(folder, device_map="cpu", **options[form])[1]
    assert model.model.layers[0].mlp.up_proj.bits == bits


def test_two_ways_that_differ_and_another_library_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="8 bits and 4 bits"):
        load_pretrained_model(folder, load_8bit=True, quantization_config={"load_in_4bit": True})
    for config, named in (({"quant_method": "gptq", "bits": 4}, "gptq"), (7, "int")):
        with pytest.raises(UsageError, match=rf"quantization_config is for {named}; only bitsandbytes"):
            load_pretrained_model(folder, quantization_config=config)


def test_what_the_hub_is_asked_is_what_the_keywords_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def download(repo_id: str, **options: Any) -> str:
        asked.append({"repo_id": repo_id, **options})
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    hub = {"cache_dir": "elsewhere", "token": "hf_x", "local_files_only": True, "force_download": True}
    load_pretrained_model("org/llava-tiny", device="cpu", revision="v2", **hub)
    load_pretrained_model("https://huggingface.co/org/llava-tiny/tree/v3", device="cpu", use_auth_token="hf_y")
    assert [(one["repo_id"], one["revision"]) for one in asked] == [("org/llava-tiny", "v2"), ("org/llava-tiny", "v3")]
    assert hub.items() <= asked[0].items()
    assert asked[1]["token"] == "hf_y"
    with pytest.raises(UsageError, match=r"given as 'v1' and as 'v2'"):
        load_pretrained_model("org/llava-tiny@v1", revision="v2")


def test_proxies_that_the_hubs_client_does_not_take_are_said_to_have_no_effect(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_pretrained_model(folder, device="cpu", proxies={"https": "http://proxy:3128"})
    assert "set HTTPS_PROXY" in caplog.text
