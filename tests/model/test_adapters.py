"""LoRA fine-tunes of every kind: what merging changes, what it leaves alone, and the errors for broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from llava.errors import CheckpointError, UsageError
from llava.model import adapters
from llava.model.checkpoint import LoadedModel, load_model
from tests.tiny_checkpoints import (
    Tensors,
    decoder_shapes,
    random_tensors,
    write_companions,
    write_llava_1_5,
    write_llava_1_6,
)
from tests.tiny_configs import CONFIG, write_json

RANK, ALPHA = 4, 8
ENDINGS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CLASSES = {
    "llava_llama": "LlavaLlamaForCausalLM",
    "llava_mistral": "LlavaMistralForCausalLM",
    "llava_qwen": "LlavaQwenForCausalLM",
}


def load(folder: Path, **options: Any) -> LoadedModel:
    return load_model(folder, device="cpu", dtype="float32", **options)


def lora_tensors(weights: Tensors, rank: int = RANK, prefix: str = "base_model.model.") -> Tensors:
    """An adapter for each of these matrices, by PEFT's names."""
    shapes = {}
    for name, weight in weights.items():
        layer = prefix + name.removesuffix(".weight")
        shapes[f"{layer}.lora_A.weight"] = (rank, weight.shape[1])
        shapes[f"{layer}.lora_B.weight"] = (weight.shape[0], rank)
    return random_tensors(shapes, seed=3)


def is_adapted(name: str) -> bool:
    return name.startswith("model.layers.") and name.removesuffix(".weight").endswith(ENDINGS)


def write_adapter(folder: Path, tensors: Tensors, **settings: Any) -> None:
    values = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": list(ENDINGS), **settings}
    write_json(folder / "adapter_config.json", {"task_type": "CAUSAL_LM", "lora_dropout": 0.05, **values})
    torch.save(tensors, folder / "adapter_model.bin")


def write_original(folder: Path, family: str = "llava_llama", **settings: Any) -> Tensors:
    """``folder/base``, ``folder/lora`` as the original's train.py leaves them; the tensors that merging has to give."""
    config = {**CONFIG, "model_type": family, "architectures": [CLASSES[family]]}
    whole = write_llava_1_5(folder / "whole", folder / "clip", **config)
    plain = random_tensors(decoder_shapes(config), seed=11)
    write_companions(folder / "base", {**config, "model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    save_file(plain, folder / "base/model.safetensors", {"format": "pt"})
    write_json(folder / "lora/config.json", {**config, "mm_vision_tower": str(folder / "clip")})
    adapter = lora_tensors({name: tensor for name, tensor in plain.items() if is_adapted(name)})
    write_adapter(folder / "lora", adapter, **{"base_model_name_or_path": str(folder / "base"), **settings})
    projector = {name: tensor for name, tensor in whole.items() if "mm_projector" in name}
    torch.save({f"base_model.model.{k}": v for k, v in projector.items()}, folder / "lora/non_lora_trainables.bin")
    tower = {name: tensor for name, tensor in whole.items() if "vision_tower" in name}
    return merged(plain, adapter, ALPHA / RANK) | projector | tower


def merged(base: Tensors, adapter: Tensors, scale: float, prefix: str = "base_model.model.") -> Tensors:
    result = {name: tensor.float() for name, tensor in base.items()}
    for name in result:
        layer = prefix + name.removesuffix(".weight")
        if f"{layer}.lora_A.weight" in adapter:
            a, b = adapter[f"{layer}.lora_A.weight"].float(), adapter[f"{layer}.lora_B.weight"].float()
            result[name] = result[name] + scale * b @ a
    return result


def assert_holds(model: Any, tensors: Tensors) -> None:
    state = model.state_dict()
    assert set(tensors) == set(state)
    for name, tensor in tensors.items():
        torch.testing.assert_close(state[name], tensor.float(), rtol=1e-5, atol=1e-6, msg=name)


def answer_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        pixels = torch.linspace(-1, 1, 3 * 28 * 28).view(1, 3, 28, 28)
        return model(input_ids=torch.tensor([[1, 5, -200, 7, 9]]), images=pixels).logits


@pytest.mark.parametrize("family", list(CLASSES))
def test_an_original_fine_tune_is_merged_into_the_base_that_it_names(tmp_path: Path, family: str) -> None:
    expected = write_original(tmp_path, family)
    loaded = load(tmp_path / "lora")
    assert type(loaded.model).__name__ == CLASSES[family]
    assert_holds(loaded.model, expected)
    assert not any(parameter.requires_grad is None for parameter in loaded.model.parameters())
    assert loaded.tokenizer.tokenize("What")


def test_another_base_can_be_named(tmp_path: Path) -> None:
    expected = write_original(tmp_path)
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match="base"):
        load(tmp_path / "lora")
    assert_holds(load(tmp_path / "lora", base=tmp_path / "moved").model, expected)


def test_kept_apart_it_answers_the_same_and_can_be_switched_off(tmp_path: Path) -> None:
    write_original(tmp_path)
    whole, apart = load(tmp_path / "lora").model, load(tmp_path / "lora", merge=False).model
    torch.testing.assert_close(answer_logits(apart), answer_logits(whole), rtol=1e-4, atol=1e-5)
    assert any("lora_A" in name for name, _ in apart.named_parameters())
    assert not any("lora_A" in name for name, _ in whole.named_parameters())
    apart.disable_adapters()
    assert not torch.allclose(answer_logits(apart), answer_logits(whole), atol=1e-3)
    apart.enable_adapters()
    torch.testing.assert_close(answer_logits(apart), answer_logits(whole), rtol=1e-4, atol=1e-5)


def test_layers_that_are_kept_apart_are_not_saved_as_a_checkpoint(tmp_path: Path) -> None:
    from llava.model.checkpoint import save_checkpoint

    write_original(tmp_path)
    loaded = load(tmp_path / "lora", merge=False)
    with pytest.raises(UsageError, match="not merged cannot be saved"):
        save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("layer", ["lm_head", "model.embed_tokens"])
def test_a_change_of_one_of_two_tied_matrices_leaves_the_other_as_it_is(tmp_path: Path, layer: str) -> None:
    from llava.model.checkpoint import save_checkpoint

    tensors = write_llava_1_6(tmp_path / "base", tie_word_embeddings=True)
    embeddings = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": embeddings.clone()}, tmp_path / "base/model.safetensors", {"format": "pt"})
    halves = random_tensors({"A": (RANK, 32), "B": (len(embeddings), RANK)}, seed=5)
    if layer == "lm_head":
        adapter = {f"base_model.model.lm_head.lora_{half}.weight": tensor for half, tensor in halves.items()}
        change = halves["B"].float() @ halves["A"].float()
    else:
        halves = {"A": halves["B"].T.contiguous(), "B": halves["A"].T.contiguous()}  # as a lookup has them
        adapter = {f"base_model.model.{layer}.lora_embedding_{half}": tensor for half, tensor in halves.items()}
        change = (halves["B"].float() @ halves["A"].float()).T
    write_adapter(tmp_path / "lora", adapter, base_model_name_or_path=str(tmp_path / "base"))
    loaded = load(tmp_path / "lora")
    expected = tensors | {"lm_head.weight": embeddings}
    changed = f"{layer}.weight"
    assert_holds(loaded.model, expected | {changed: embeddings.float() + ALPHA / RANK * change})
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "saved")
    torch.testing.assert_close(answer_logits(load(tmp_path / "saved").model), answer_logits(loaded.model))
    apart = answer_logits(load(tmp_path / "lora", merge=False).model)
    torch.testing.assert_close(answer_logits(loaded.model), apart, rtol=1e-4, atol=1e-5)


def test_a_merged_model_is_saved_and_read_as_any_other(tmp_path: Path) -> None:
    from llava.model.checkpoint import save_checkpoint

    expected = write_original(tmp_path)
    loaded = load(tmp_path / "lora")
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "merged")
    assert_holds(load(tmp_path / "merged").model, expected)


def test_an_adapter_lands_on_the_tower_only_if_it_has_layers_for_it(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "base")
    of_decoder = lora_tensors({name: tensor for name, tensor in tensors.items() if is_adapted(name)})
    write_adapter(tmp_path / "lora", of_decoder, base_model_name_or_path=str(tmp_path / "base"))
    assert_holds(load(tmp_path / "lora").model, merged(tensors, of_decoder, ALPHA / RANK))
    apart = load(tmp_path / "lora", merge=False).model
    assert not any("lora" in name for name, _ in apart.get_vision_tower().named_parameters())

    names = [name for name in tensors if "vision_tower" in name and name.endswith("q_proj.weight")]
    both = of_decoder | lora_tensors({name: tensors[name] for name in names})
    write_adapter(tmp_path / "lora", both, base_model_name_or_path=str(tmp_path / "base"))
    assert_holds(load(tmp_path / "lora").model, merged(tensors, both, ALPHA / RANK))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_what_peft_itself_saves_is_read(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    write_llava_1_6(tmp_path / "base")
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        target_modules=r"model\.layers\.\d+\.self_attn\.[qv]_proj",
        rank_pattern={"q_proj": 2},
        alpha_pattern={"model.layers.1.self_attn.v_proj": 3},
        modules_to_save=["mm_projector"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    trained = get_peft_model(load(tmp_path / "base").model, config)
    with torch.no_grad():
        trained.base_model.model.model.mm_projector.modules_to_save["default"][0].bias += 1.0
    trained.save_pretrained(tmp_path / "lora")
    expected = answer_logits(trained.eval())
    loaded = load(tmp_path / "lora", base=tmp_path / "base").model
    torch.testing.assert_close(answer_logits(loaded), expected, rtol=1e-4, atol=1e-5)
    apart = load(tmp_path / "lora", base=tmp_path / "base", merge=False).model
    torch.testing.assert_close(answer_logits(apart), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "prefix", ["base_model.model.language_model.", "base_model.model.model.language_model."], ids=["hub", "4.52"]
)
def test_adapters_with_llava_hf_names_fit_too(tmp_path: Path, prefix: str) -> None:
    tensors = write_llava_1_6(tmp_path / "base")
    own = {name: tensor for name, tensor in tensors.items() if is_adapted(name)}
    adapter = lora_tensors(own)
    named = {name.replace("base_model.model.", prefix, 1): tensor for name, tensor in adapter.items()}
    if ".model.language_model." in prefix.removeprefix("base_model.model"):
        named = {name.replace("language_model.model.", "language_model.", 1): tensor for name, tensor in named.items()}
    write_adapter(tmp_path / "lora", named, base_model_name_or_path=str(tmp_path / "base"))
    assert_holds(load(tmp_path / "lora").model, merged(tensors, adapter, ALPHA / RANK))


def test_a_fine_tune_may_bring_its_newline_and_its_embeddings(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "base")
    adapter = lora_tensors({name: tensor for name, tensor in tensors.items() if is_adapted(name)})
    write_adapter(tmp_path / "lora", adapter, base_model_name_or_path=str(tmp_path / "base"))
    names = ("model.image_newline", "model.embed_tokens.weight", "lm_head.weight")
    own = {name: tensors[name] + 1 for name in names}
    torch.save({f"base_model.model.{k}": v for k, v in own.items()}, tmp_path / "lora/non_lora_trainables.bin")
    assert_holds(load(tmp_path / "lora").model, merged(tensors | own, adapter, ALPHA / RANK))


def spoil(folder: Path, kind: str) -> None:
    file = folder / "lora/adapter_model.bin"
    tensors = torch.load(file, weights_only=True)
    first = next(name for name in tensors if "lora_A" in name)
    if kind == "another width":
        tensors[first] = torch.zeros(RANK, tensors[first].shape[1] + 8)
    elif kind == "more layers":
        tensors |= {name.replace("layers.0", "layers.7"): tensor for name, tensor in tensors.items()}
    elif kind == "half missing":
        del tensors[first]
    elif kind == "two ranks":
        tensors[first] = torch.zeros(RANK + 1, tensors[first].shape[1])
    elif kind == "nothing":
        tensors = {"base_model.model.model.mm_projector.0.bias": torch.zeros(4)}
    torch.save(tensors, file)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("another width", r"lora_A\.weight in .* takes 40 values, but model\.layers\.0.* takes 32"),
        ("more layers", r"model\.layers\.7\..*which the base model does not have"),
        ("half missing", r"no lora_A\.weight for model\.layers\.0"),
        ("two ranks", r"has rank 5, but .* has rank 4"),
        ("nothing", r"contains no LoRA layers"),
    ],
)
def test_an_adapter_for_something_else_is_refused(tmp_path: Path, kind: str, said: str) -> None:
    write_original(tmp_path)
    spoil(tmp_path, kind)
    with pytest.raises(CheckpointError, match=said):
        load(tmp_path / "lora")


def test_a_checkpoint_from_the_middle_of_a_training_says_that_its_projector_is_missing(tmp_path: Path) -> None:
    expected = write_original(tmp_path)
    (tmp_path / "lora/non_lora_trainables.bin").rename(tmp_path / "kept.bin")
    with pytest.raises(CheckpointError, match=r"mm_projector.*non_lora_trainables\.bin"):
        load(tmp_path / "lora")
    projector = {name: tensor for name, tensor in expected.items() if "mm_projector" in name}
    torch.save(projector, tmp_path / "lora/mm_projector.bin")
    assert_holds(load(tmp_path / "lora").model, expected)


def test_an_adapter_that_names_no_base_asks_for_one(tmp_path: Path) -> None:
    write_original(tmp_path, base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match=r"--model-base"):
        load(tmp_path / "lora")


def test_an_adapter_without_its_weights_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_original(tmp_path)
    (tmp_path / "lora/adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"none of adapter_model\.safetensors, adapter_model\.bin"):
        load(tmp_path / "lora")
    write_json(tmp_path / "lora/adapter_config.json", {"peft_type": "IA3"})
    with pytest.raises(CheckpointError, match="IA3"):
        load(tmp_path / "lora")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"r": "four"}, "says r: 'four', where a number above 0"),
        ({"r": 0}, "says r: 0"),
        ({"lora_alpha": None}, "says lora_alpha: None"),
        ({"alpha_pattern": [1]}, r"says alpha_pattern: \[1\], where a number for each"),
        ({"bias": "some"}, "cannot be used"),
    ],
)
def test_settings_that_mean_nothing_are_named(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    write_original(tmp_path, **settings)
    with pytest.raises(CheckpointError, match=f"adapter_config.json {said}"):
        load(tmp_path / "lora")


def test_weights_that_are_no_numbers_are_found(tmp_path: Path) -> None:
    write_original(tmp_path)
    file = tmp_path / "lora/adapter_model.bin"
    tensors = torch.load(file, weights_only=True)
    tensors[next(iter(tensors))][0, 0] = float("nan")
    torch.save(tensors, file)
    with pytest.raises(CheckpointError, match=r"lora_A.* holds NaN"):
        load(tmp_path / "lora")


def test_a_base_that_is_an_adapter_itself_is_refused(tmp_path: Path) -> None:
    write_original(tmp_path)
    with pytest.raises(CheckpointError, match="contains LoRA layers itself"):
        load(tmp_path / "lora", base=tmp_path / "lora")


def test_a_whole_model_beside_a_left_over_adapter_is_a_whole_model(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a")
    write_json(tmp_path / "a/adapter_config.json", {"r": RANK})
    assert_holds(load(tmp_path / "a").model, tensors)


def test_info_says_what_an_adapter_is_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from llava.inspection import describe_checkpoint

    write_original(tmp_path)
    describe_checkpoint(str(tmp_path / "lora"))
    shown = " ".join(capsys.readouterr().out.split())
    assert f"LoRA of rank {RANK}, alpha {ALPHA} on 14 layers of {tmp_path / 'base'}"[:60] in shown
    (tmp_path / "lora/config.json").unlink()
    write_llava_1_6(tmp_path / "base")
    describe_checkpoint(str(tmp_path / "lora"))
    assert "anyres" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_it_is_merged_into_a_checkpoint_of_its_own(tmp_path: Path, layout: str) -> None:
    from llava.model.conversion import convert

    expected = write_original(tmp_path)
    convert(tmp_path / "lora", tmp_path / "merged", layout)
    state = load(tmp_path / "merged").model.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name][: len(tensor)], tensor.half().float(), rtol=2e-3, atol=1e-4, msg=name)


def test_a_base_may_be_named_from_the_fine_tunes_own_folder_or_in_its_config(tmp_path: Path) -> None:
    expected = write_original(tmp_path, base_model_name_or_path="../base")
    assert_holds(load(tmp_path / "lora").model, expected)
    settings = json.loads((tmp_path / "lora/adapter_config.json").read_text())
    write_json(tmp_path / "lora/adapter_config.json", {**settings, "base_model_name_or_path": None})
    config = json.loads((tmp_path / "lora/config.json").read_text())
    write_json(tmp_path / "lora/config.json", {**config, "_name_or_path": str(tmp_path / "base")})
    assert_holds(load(tmp_path / "lora").model, expected)


def test_a_base_that_cannot_be_found_is_named_with_the_file_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_original(tmp_path, base_model_name_or_path="lmsys/vicuna-none")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "lora")
    said = "trained on 'lmsys/vicuna-none' as its adapter_config.json says, which cannot be found"
    assert f"{tmp_path / 'lora'} contains only LoRA layers, {said}" in str(caught.value)
    assert str(caught.value).endswith("as the base (--model-base).")


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 48), ("num_hidden_layers", 3), ("num_attention_heads", 8)])
def test_a_base_of_other_sizes_is_refused_with_both_files_and_values(tmp_path: Path, key: str, value: int) -> None:
    write_original(tmp_path)
    config = json.loads((tmp_path / "base/config.json").read_text())
    write_json(tmp_path / "base/config.json", {**config, key: value})
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "lora")
    assert f"{tmp_path / 'lora/config.json'} says {key}: {CONFIG[key]}, but" in str(caught.value)
    assert f"{tmp_path / 'base/config.json'}, its base's, says {value}: it was trained on another" in str(caught.value)


def test_a_checkpoint_inside_a_training_is_described_by_the_trainings_config(tmp_path: Path) -> None:
    expected = write_original(tmp_path)
    step = tmp_path / "lora/checkpoint-10"
    step.mkdir()
    for name in ("adapter_config.json", "adapter_model.bin", "non_lora_trainables.bin"):
        (tmp_path / "lora" / name).rename(step / name)
    assert_holds(load(step).model, expected)
    (tmp_path / "lora/config.json").unlink()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 32}
    write_json(tmp_path / "base/config.json", config)
    with pytest.raises(CheckpointError, match=rf"{step} has no config\.json, so that of {tmp_path / 'base'} is used"):
        load(step)


def test_a_fine_tunes_own_tokenizer_and_answers_ends_come_before_its_bases(tmp_path: Path) -> None:
    write_original(tmp_path)
    write_json(tmp_path / "base/generation_config.json", {"eos_token_id": [2, 9]})
    assert load(tmp_path / "lora").model.generation_config.eos_token_id == [2, 9]
    tokenizer = load(tmp_path / "lora").tokenizer
    tokenizer.add_tokens(["<box>"])
    tokenizer.save_pretrained(tmp_path / "lora")
    write_json(tmp_path / "lora/generation_config.json", {"eos_token_id": 2})
    loaded = load(tmp_path / "lora")
    assert "<box>" in loaded.tokenizer.get_vocab()
    assert loaded.model.generation_config.eos_token_id == 2


def test_converting_never_writes_over_what_is_merged(tmp_path: Path) -> None:
    from llava.model.conversion import convert

    expected = write_original(tmp_path)
    for name in ("lora", "base", "clip", "."):
        with pytest.raises(UsageError, match="being read"):
            convert(tmp_path / "lora", tmp_path / name, "original")
    assert_holds(load(tmp_path / "lora").model, expected)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_peft_trained_are_read(tmp_path: Path, bias: str) -> None:
    from peft import LoraConfig, get_peft_model

    own = {"model_type": "llava_qwen", "architectures": ["LlavaQwenForCausalLM"]}
    write_llava_1_6(tmp_path / "base", **own)
    config = LoraConfig(
        r=4,
        bias=bias,
        target_modules=r"model\.layers\.\d+\.self_attn\.[qv]_proj",
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    trained = get_peft_model(load(tmp_path / "base").model, config)
    with torch.no_grad():
        trained.base_model.model.model.layers[0].self_attn.q_proj.base_layer.bias += 1.0
    trained.save_pretrained(tmp_path / "lora")
    expected = answer_logits(trained.eval())
    for merge in (True, False):
        found = answer_logits(load(tmp_path / "lora", base=tmp_path / "base", merge=merge).model)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_that_breaks_weights_on_a_gpu_is_named_with_the_layer() -> None:
    adapter: Any = SimpleNamespace(file="adapter_model.safetensors")
    sound, broken = torch.tensor(True), torch.tensor(False)
    adapters._check_merged({}, adapter)
    adapters._check_merged({"lm_head": sound}, adapter)
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors makes the weights of layers.1.q NaN"):
        adapters._check_merged({"layers.0.q": sound, "layers.1.q": broken}, adapter)
