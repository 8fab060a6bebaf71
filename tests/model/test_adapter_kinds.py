"""Every kind of adapter that PEFT knows: it gives what PEFT's own merging gives, or is refused by its name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, TrainableTokensConfig, get_peft_model
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError
from llava.model.checkpoint import load_model
from tests.tiny_checkpoints import write_llava_1_6
from tests.tiny_configs import write_json

LAYERS = r"model\.layers\..*\.(q_proj|v_proj)"
EQUAL: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "gaussian": {"init_lora_weights": "gaussian"},
    "mica": {"init_lora_weights": "mica"},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "head": {"target_modules": ["lm_head"]},
    "convolution": {"target_modules": ["patch_embedding"]},
    "all biases": {"bias": "all"},
    "biases of the projector": {"lora_bias": True, "target_modules": ["mm_projector.0", "mm_projector.2"]},
    "transposed": {"fan_in_fan_out": True},
    "all linear layers": {"target_modules": "all-linear", "task_type": "CAUSAL_LM"},
    "a pattern as a regular expression": {"rank_pattern": {r".*\.1\..*v_proj": 7}, "alpha_pattern": {".*[qv]_proj": 3}},
    "embeddings and more ranks": {"target_modules": ["embed_tokens", "q_proj"], "rank_pattern": {"embed_tokens": 2}},
    "head trained whole": {"modules_to_save": ["lm_head"]},
    "tokens": {"trainable_token_indices": {"embed_tokens": [5, 9]}},
    "tokens as a list": {"trainable_token_indices": [9, 5]},
    "tokens and head": {"trainable_token_indices": {"embed_tokens": [5, 9], "lm_head": [1, 2]}},
}
REFUSED: dict[str, dict[str, Any]] = {
    "pissa": {"init_lora_weights": "pissa"},
    "pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "olora": {"init_lora_weights": "olora"},
    "alora_invocation_tokens": {"alora_invocation_tokens": [5, 9], "task_type": "CAUSAL_LM"},
    "use_qalora": {"use_qalora": True, "qalora_group_size": 16},
    "target_parameters": {"target_modules": [], "target_parameters": ["model.layers.0.mlp.up_proj.weight"]},
    "layer_replication": {"layer_replication": [(0, 2), (1, 2)]},
}


def load(folder: Path, **options: Any) -> Any:
    return load_model(folder, device="cpu", dtype="float32", **options).model


def train(base: Path, folder: Path, config: PeftConfig) -> None:
    """An adapter of that kind as PEFT saves it, with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's, about each other
        model = get_peft_model(load(base), config)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        model.save_pretrained(folder)


def merge_with_peft(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(load(base), folder).merge_and_unload().state_dict()


def assert_equal(base: Path, folder: Path) -> None:
    merged, untouched = load(folder, base=base).state_dict(), load(base).state_dict()
    expected = merge_with_peft(base, folder)
    assert merged.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    assert any(not torch.equal(tensor, untouched[name]) for name, tensor in merged.items())


@pytest.mark.parametrize("kind", list(EQUAL))
def test_it_is_merged_as_peft_merges_it(next_folder: Path, tmp_path: Path, kind: str) -> None:
    train(next_folder, tmp_path, LoraConfig(**{"target_modules": LAYERS, "r": 4, **EQUAL[kind]}))
    assert_equal(next_folder, tmp_path)


@pytest.mark.parametrize("names", [["embed_tokens"], {"embed_tokens": [3]}])
def test_tokens_trained_on_tied_embeddings_change_the_head_too(tmp_path: Path, names: Any) -> None:
    tensors = write_llava_1_6(tmp_path / "base", tie_word_embeddings=True)
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "base/model.safetensors", {"format": "pt"})
    indices = names if isinstance(names, dict) else [3, 5]
    train(tmp_path / "base", tmp_path / "lora", LoraConfig(target_modules=LAYERS, trainable_token_indices=indices))
    assert_equal(tmp_path / "base", tmp_path / "lora")
    model = load(tmp_path / "lora", base=tmp_path / "base")
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("whole", ["lm_head", "embed_tokens"])
def test_one_of_two_tied_matrices_that_was_trained_whole_leaves_the_other_as_it_is(tmp_path: Path, whole: str) -> None:
    tensors = write_llava_1_6(tmp_path / "base", tie_word_embeddings=True)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "base/model.safetensors", {"format": "pt"})
    train(tmp_path / "base", tmp_path / "lora", LoraConfig(target_modules=LAYERS, modules_to_save=[whole]))
    assert_equal(tmp_path / "base", tmp_path / "lora")
    model = load(tmp_path / "lora", base=tmp_path / "base")
    assert not torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)

    if whole == "embed_tokens":
        del tensors["lm_head.weight"]
        save_file(tensors, tmp_path / "base/model.safetensors", {"format": "pt"})
        with pytest.raises(CheckpointError, match=r"embed_tokens\.weight trained separately .*stores one matrix"):
            load(tmp_path / "lora", base=tmp_path / "base")


def test_biases_without_a_place_in_the_base_are_kept_apart_or_refused(next_folder: Path, tmp_path: Path) -> None:
    train(next_folder, tmp_path, LoraConfig(target_modules=LAYERS, lora_bias=True))
    with pytest.raises(CheckpointError, match=r"lora_bias: true, but model\.layers\.0.* has no bias .*merge=False"):
        load(tmp_path, base=next_folder)
    assert load(tmp_path, base=next_folder, merge=False).peft_config["default"].lora_bias


@pytest.mark.parametrize(("settings", "says"), [({"r": 8}, "r: 8"), ({"rank_pattern": {"v_proj": 2}}, "'v_proj': 2")])
def test_a_rank_that_the_configuration_does_not_say_is_refused(
    next_folder: Path, tmp_path: Path, settings: dict[str, Any], says: str
) -> None:
    train(next_folder, tmp_path, LoraConfig(target_modules=LAYERS, r=4))
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    write_json(tmp_path / "adapter_config.json", {**values, **settings})
    with pytest.raises(CheckpointError, match=f"matrices of rank 4 for .* says .*{says}"):
        load(tmp_path, base=next_folder)


def test_the_revision_of_the_base_that_the_adapter_names_is_the_one_that_is_asked_for(tmp_path: Path) -> None:
    values = {"peft_type": "LORA", "base_model_name_or_path": "org/name", "revision": "v2", "r": 4, "lora_alpha": 4}
    write_json(tmp_path / "adapter_config.json", values)
    save_file({"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 32)},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(CheckpointError, match="org/name@v2"):
        load(tmp_path)


def test_tokens_without_lora_are_merged_too_and_stay_where_lora_is_kept_apart(
    next_folder: Path, tmp_path: Path
) -> None:
    train(next_folder, tmp_path / "rows", TrainableTokensConfig(target_modules=["embed_tokens"], token_indices=[3, 5]))
    assert_equal(next_folder, tmp_path / "rows")
    settings = {"target_modules": LAYERS, "trainable_token_indices": [3, 5]}
    train(next_folder, tmp_path / "lora", LoraConfig(**settings))
    apart = load(tmp_path / "lora", base=next_folder, merge=False)
    rows = apart.get_input_embeddings().weight[[3, 5]]
    assert torch.equal(rows, load(tmp_path / "lora", base=next_folder).get_input_embeddings().weight[[3, 5]])


@pytest.mark.parametrize(
    ("indices", "shape", "says"),
    [
        ({"embed_tokens": [5, 400]}, (2, 32), "ids of tokens below 400"),
        ({"embed_tokens": [-1, 5]}, (2, 32), "ids of tokens below 400"),
        ({"embed_tokens": "all"}, (2, 32), "ids of tokens below 400"),
        ({"lm_head": [1, 2]}, (2, 32), "ids of tokens below 400"),
        ({"embed_tokens": [5, 9]}, (3, 32), r"has the shape \[3, 32\], but adapter_config.json lists 2 tokens"),
        ({"embed_tokens": [5, 9]}, (2, 16), r"has the shape \[2, 16\]"),
        ({"embed_tokens": [5, 9]}, (0,), "ZeRO-3"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(
    next_folder: Path, tmp_path: Path, indices: Any, shape: tuple[int, ...], says: str
) -> None:
    train(next_folder, tmp_path, LoraConfig(target_modules=LAYERS, trainable_token_indices=[5, 9]))
    values = json.loads((tmp_path / "adapter_config.json").read_text())
    write_json(tmp_path / "adapter_config.json", {**values, "trainable_token_indices": indices})
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = next(name for name in tensors if "trainable_tokens" in name)
    save_file({**tensors, name: torch.ones(shape)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=says):
        load(tmp_path, base=next_folder)


@pytest.mark.parametrize("kind", list(REFUSED))
def test_a_variant_that_would_be_merged_wrongly_is_refused_by_its_name(
    next_folder: Path, tmp_path: Path, kind: str
) -> None:
    train(next_folder, tmp_path, LoraConfig(**{"target_modules": LAYERS, "r": 4, **REFUSED[kind]}))
    with pytest.raises(CheckpointError, match=rf"adapter_config\.json says .*{kind}.*merge_and_unload"):
        load(tmp_path, base=next_folder)


@pytest.mark.parametrize("kind", [kind.value for kind in PeftType if kind.value not in ("LORA", "TRAINABLE_TOKENS")])
def test_another_kind_of_adapter_is_refused_by_its_name(next_folder: Path, tmp_path: Path, kind: str) -> None:
    write_json(tmp_path / "adapter_config.json", {"peft_type": kind})
    save_file({"base_model.model.x": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=rf"an adapter of the kind '{kind}'.*(merge_and_unload|virtual tokens)"):
        load(tmp_path, base=next_folder)


def write_empty(folder: Path, file: str, base: Path) -> str:
    """A LoRA fine-tune with one tensor of ``file`` emptied as ZeRO-3 leaves it; returns that tensor's name."""
    train(base, folder, LoraConfig(target_modules=LAYERS, r=4))
    projector = {f"base_model.model.{name}": tensor for name, tensor in load_file(base / "model.safetensors").items()
                 if "mm_projector" in name}  # fmt: skip
    torch.save(projector, folder / "non_lora_trainables.bin")
    path = folder / file
    tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    name = sorted(tensors)[0]
    tensors[name] = torch.empty(0)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return name


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "non_lora_trainables.bin"])
def test_empty_tensors_are_blamed_on_what_leaves_them(next_folder: Path, tmp_path: Path, file: str) -> None:
    name = write_empty(tmp_path, file, next_folder)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, base=next_folder)
    for words in (name, str(tmp_path / file), "[0]", "ZeRO-3", "FSDP", "zero_to_fp32.py"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("half", "change", "says"),
    [
        ("A", lambda one: one[None], r"has the shape \[1, 4, 32\], where a matrix is needed"),
        ("B", lambda one: one.flatten(), r"has the shape \[128\], where a matrix is needed"),
        ("A", lambda one: one.to(torch.int8), "only floating-point"),
        ("B", lambda one: torch.full_like(one, float("nan")), "NaN"),
        ("A", lambda one: torch.tensor(1.0), "where a matrix is needed"),
    ],
)
def test_halves_that_are_no_matrices_of_numbers_are_refused(
    next_folder: Path, tmp_path: Path, half: str, change: Any, says: str
) -> None:
    train(next_folder, tmp_path, LoraConfig(target_modules=LAYERS, r=4))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = next(name for name in tensors if f"lora_{half}" in name and "q_proj" in name)
    tensors[name] = change(tensors[name])
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=says) as caught:
        load(tmp_path, base=next_folder)
    assert name in str(caught.value)
    assert "adapter_model.safetensors" in str(caught.value)
