"""LoRA layers sit on the decoder's linear layers alone, and a result or an earlier adapter loads as it was trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from llava.errors import CheckpointError, UsageError
from llava.model.checkpoint import load_model
from llava.model.conversion import convert
from llava.train.lora import find_targets, list_adapter_parameters
from llava.train.parts import choose_trainable, list_parts
from llava.train.recipe import Lora
from llava.train.snapshots import read_snapshot, save_result
from llava.train.starting_model import build_start
from tests.tiny_checkpoints import write_llava_1_6
from tests.tiny_starts import ANYRES, make_lesson, make_stage, make_tower, train_a_little, write_language_model

LAYERS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
SMALL = {"rank": 4, "alpha": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of each family, a tower and a LLaVA-1.6; not to be changed."""
    folder = tmp_path_factory.mktemp("starts")
    make_tower(folder / "tower")
    for family in ("llama", "qwen2"):
        write_language_model(folder / family, family)
    write_language_model(folder / "tied", "qwen2", tie_word_embeddings=True)
    write_llava_1_6(folder / "llava-1.6", mm_vision_tower=str(folder / "tower"))
    return folder


def build(starts: Path, which: str, vision: dict[str, Any] | None = None, **lora: Any) -> Any:
    """The stage's model, with what it trains ready to be trained, and its tokenizer."""
    towered = {} if which.startswith("llava") else {"mm_vision_tower": str(starts / "tower"), **ANYRES}
    stage = make_stage({**towered, **(vision or {})}, lora=Lora(**{**SMALL, **lora}))
    loaded = build_start(starts / which, stage)
    choose_trainable(loaded.model, list_parts(loaded.model), stage.train, "Stage 'tune'")
    return loaded


def run(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**make_lesson(model, seed=9)).logits
    return logits


@pytest.mark.parametrize("start", ["llama", "qwen2", "llava-1.6"])
def test_adapters_are_on_every_linear_layer_of_the_decoder_and_nowhere_else(starts: Path, start: str) -> None:
    model = build(starts, start).model
    adapted = {name for name, module in model.named_modules() if hasattr(module, "lora_A")}
    layers = {f"base_model.model.model.layers.{i}." for i in range(2)}
    kinds = [f"self_attn.{name}" for name in LAYERS[:4]] + [f"mlp.{name}" for name in LAYERS[4:]]
    assert adapted == {layer + kind for layer in layers for kind in kinds}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    others = {name.removeprefix("base_model.model.model.") for name in trained if ".lora_" not in name}
    assert others == {f"mm_projector.{i}.{leaf}" for i in (0, 2) for leaf in ("weight", "bias")} | {"image_newline"}


def test_named_targets_are_found_by_their_ends_and_unknown_ones_are_refused(starts: Path) -> None:
    model = build_start(starts / "llava-1.6", make_stage()).model
    assert find_targets(model, ["q_proj"]) == [f"model.layers.{i}.self_attn.q_proj" for i in range(2)]
    assert find_targets(model, ["layers.1.mlp.up_proj"]) == ["model.layers.1.mlp.up_proj"]
    for name in ("mm_projector", "out_proj", "fc1", "lm_head", "qproj"):
        with pytest.raises(UsageError, match=f"'{name}', which is no linear layer of the decoder"):
            find_targets(model, ["q_proj", name])
    with pytest.raises(UsageError, match="Did you mean 'q_proj'"):
        find_targets(model, ["qproj"])


KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "a language model": ("llama", {}, {}),
    "1.6 with its newline": ("llava-1.6", {}, {}),
    "DoRA": ("llava-1.6", {}, {"dora": True}),
    "all biases": ("qwen2", {}, {"bias": "all"}),
    "the adapted layers' biases": ("qwen2", {}, {"bias": "lora_only", "targets": ("q_proj",)}),
    "start and end tokens": ("llama", {"mm_use_im_start_end": True, "mm_use_im_patch_token": True}, {}),
    "start and end tokens, DoRA": ("llava-1.6", {"mm_use_im_start_end": True}, {"dora": True}),
    "a tied head": ("tied", {"mm_use_im_start_end": True}, {}),
    "some layers": ("llava-1.6", {}, {"targets": ("v_proj", "down_proj")}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_merged_into_its_base_gives_the_logits_of_the_trained_model(
    starts: Path, tmp_path: Path, kind: str
) -> None:
    start, vision, lora = KINDS[kind]
    loaded = build(starts, start, vision, **lora)
    began = run(loaded.model)
    losses = train_a_little(loaded.model)
    trained = run(loaded.model)
    assert losses[-1] < losses[0] + 1
    assert (trained - began).abs().max() > 1e-3
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    merged = load_model(tmp_path / "result", device="cpu", dtype="float32")
    torch.testing.assert_close(run(merged.model), trained, rtol=0, atol=1e-5)
    assert merged.template == loaded.template
    assert len(merged.tokenizer) == len(loaded.tokenizer)
    apart = load_model(tmp_path / "result", device="cpu", dtype="float32", merge=False)
    torch.testing.assert_close(run(apart.model), trained, rtol=0, atol=1e-5)
    again = build(starts, start, vision, **lora)
    read_snapshot(again.model, tmp_path / "result")
    assert torch.equal(run(again.model), trained), "a resumed run goes on from the same weights"


def test_a_result_is_converted_to_the_layout_of_transformers(starts: Path, tmp_path: Path) -> None:
    loaded = build(starts, "llava-1.6", dora=True)
    train_a_little(loaded.model, steps=1)
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    convert(tmp_path / "result", tmp_path / "hf", "hf")
    converted = load_model(tmp_path / "hf", device="cpu", dtype="float32").model
    merged = load_model(tmp_path / "result", device="cpu", dtype="float16").model
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(converted.state_dict()[name][: len(tensor)], tensor.float(), rtol=0, atol=1e-3)


def test_the_files_name_a_base_that_is_found_from_any_folder(
    starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(starts)
    stage = make_stage(lora=Lora(**SMALL))
    loaded = build_start("llava-1.6", stage)
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    monkeypatch.chdir(tmp_path)
    settings = json.loads((tmp_path / "result/adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(starts / "llava-1.6")
    assert load_model("result", device="cpu", dtype="float32").template == loaded.template


def test_saving_asks_no_hub(starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    loaded = build(starts, "llava-1.6")
    loaded.model.peft_config["default"].base_model_name_or_path = "somebody/llava-v1.6"

    def refuse(*arguments: Any, **named: Any) -> Any:
        raise AssertionError(f"asked the hub: {arguments} {named}")

    monkeypatch.setattr(huggingface_hub, "file_exists", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr("peft.utils.save_and_load.check_file_exists_on_hf_hub", refuse)
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    assert (tmp_path / "result/adapter_model.safetensors").is_file()


@pytest.mark.parametrize("start", ["llama", "llava-1.6"])
@pytest.mark.parametrize("dora", [False, True])
def test_an_earlier_adapter_is_trained_on_with_its_projector(
    starts: Path, tmp_path: Path, start: str, dora: bool
) -> None:
    first = build(starts, start, dora=dora)
    train_a_little(first.model)
    trained = run(first.model)
    save_result(first.model, first.tokenizer, tmp_path / "first")
    # Rank, alpha and layers are the adapter's own, whatever the stage says.
    second = build(starts, start, start=str(tmp_path / "first"), rank=64, targets=("q_proj",))
    torch.testing.assert_close(run(second.model), trained, rtol=0, atol=1e-5)
    assert second.model.peft_config["default"].r == 4
    train_a_little(second.model)
    assert (run(second.model) - trained).abs().max() > 1e-3
    save_result(second.model, second.tokenizer, tmp_path / "second")
    merged = load_model(tmp_path / "second", device="cpu", dtype="float32").model
    torch.testing.assert_close(run(merged), run(second.model), rtol=0, atol=1e-5)


def test_new_adapters_on_a_result_are_refused_with_both_ways_on(starts: Path, tmp_path: Path) -> None:
    loaded = build(starts, "llava-1.6")
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    with pytest.raises(UsageError, match=r"consists of LoRA layers itself.*lora\.start.*llava convert"):
        build_start(tmp_path / "result", make_stage(lora=Lora(**SMALL)))
    whole = build_start(tmp_path / "result", make_stage())
    torch.testing.assert_close(run(whole.model), run(loaded.model), rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match=r"lora\.start is .*llava-1\.6, which contains no LoRA layers"):
        build_start(starts / "llava-1.6", make_stage(lora=Lora(start=str(starts / "llava-1.6"))))
    write_llava_1_6(tmp_path / "other", intermediate_size=64)
    with pytest.raises(CheckpointError, match="trained on another"):
        build_start(tmp_path / "other", make_stage(lora=Lora(start=str(tmp_path / "result"))))


def test_the_tower_may_be_trained_beside_the_adapters(starts: Path, tmp_path: Path) -> None:
    stage = make_stage({"mm_vision_tower": str(starts / "tower"), **ANYRES}, lora=Lora(**SMALL),
                       train=("vision_tower", "projector", "language_model"))  # fmt: skip
    loaded = build_start(starts / "llama", stage)
    choose_trainable(loaded.model, list_parts(loaded.model), stage.train, "Stage 'tune'")
    train_a_little(loaded.model)
    save_result(loaded.model, loaded.tokenizer, tmp_path / "result")
    merged = load_model(tmp_path / "result", device="cpu", dtype="float32").model
    torch.testing.assert_close(run(merged), run(loaded.model), rtol=0, atol=1e-5)


class _Quantized(nn.Linear):
    """Stands for bitsandbytes' layers, which are subclasses of nn.Linear as well."""


def test_a_quantized_decoder_is_prepared_as_peft_does_and_its_result_loads(
    starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes computes on CUDA alone, so this runs everything around it: what is quantized, frozen and saved."""
    from llava.train import lora, starting_model

    quantized: list[str] = []

    def quantize(model: Any, bits: int, device: Any, kind: str, is_double: bool) -> None:
        assert (bits, kind, is_double) == (4, "fp4", False)
        for name, module in model.named_modules():
            if name.startswith("model.layers.") and isinstance(module, nn.Linear):
                module.__class__ = _Quantized
                quantized.append(name)

    monkeypatch.setattr(starting_model, "quantize_model", quantize)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: object() if name == "bitsandbytes" else None)
    from llava.train.recipe import Quantization

    stage = make_stage(lora=Lora(**SMALL), quantization=Quantization(bits=4, kind="fp4", double=False))
    loaded = build_start(starts / "llava-1.6", stage, dtype="bfloat16", device=torch.device("cpu"))
    monkeypatch.undo()
    model = loaded.model
    assert len(quantized) == 14
    assert model.get_base_model().is_loaded_in_4bit
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert all(dtype == torch.float32 for name, dtype in dtypes.items() if "lora_" in name or ".layers.0.input" in name)
    assert dtypes["base_model.model.model.embed_tokens.weight"] == torch.bfloat16
    assert {parameter.requires_grad for parameter in list_adapter_parameters(model)} == {True}
    assert lora.has_lora(model)
    save_result(model, loaded.tokenizer, tmp_path / "result")
    stored = load_file(tmp_path / "result/adapter_model.safetensors")
    assert len(stored) == 28
    load_model(tmp_path / "result", device="cpu", dtype="float32")
