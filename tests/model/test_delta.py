"""Deltas: what a fine-tune has over its base, made and put back, and checkpoints written anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.errors import CheckpointError, UsageError
from llava.model import apply_delta, consolidate, delta, make_delta
from llava.model.checkpoint import load_model
from llava.model.utils import KeywordsStoppingCriteria, auto_upgrade
from llava.model.weights import find_tensors, stream_tensors
from tests.tiny_checkpoints import Tensors, decoder_shapes, random_tensors, write_bin_shards, write_llava_1_6
from tests.tiny_configs import CONFIG

BASE_CONFIG = {key: value for key, value in CONFIG.items() if not key.startswith(("mm_", "image_"))}


def write_base(folder: Path, num_rows: int = 0, dtype: torch.dtype = torch.float16, **config: Any) -> Tensors:
    """A language model in two .bin files, with a buffer that is computed anyway."""
    folder.mkdir()
    values = {**BASE_CONFIG, "model_type": "llama", **config}
    shapes = decoder_shapes(values)
    if num_rows:
        width = values["hidden_size"]
        shapes |= {"model.embed_tokens.weight": (num_rows, width), "lm_head.weight": (num_rows, width)}
    tensors = random_tensors(shapes, seed=3, dtype=dtype)
    (folder / "config.json").write_text(json.dumps(values))
    write_bin_shards(folder, tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    return tensors


def write_target(folder: Path, base: Tensors) -> Tensors:
    """A LLaVA that was trained from the base: each of its values is at most twice and at least half of the base's."""
    folder.mkdir()
    tensors = write_llava_1_6(folder)
    generator = torch.Generator().manual_seed(5)
    for name, own in base.items():
        factor = 0.5 + 1.5 * torch.rand(own.shape, generator=generator)
        part = tuple(slice(0, size) for size in own.shape)
        tensors[name][part] = (own.float() * factor).to(torch.float16)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def read(folder: Path) -> Tensors:
    return {name: tensor.clone() for name, tensor, _ in stream_tensors(find_tensors(folder))}


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("num_rows", [0, 100], ids=["same rows", "rows that grew"])
def test_a_delta_put_onto_its_base_is_the_fine_tune_bit_by_bit(
    tmp_path: Path, num_rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_base(tmp_path / "base", num_rows)
    target = write_target(tmp_path / "target", base)
    made, again = tmp_path / "delta", tmp_path / "again"
    folders = ["--base-model-path", str(tmp_path / "base"), "--target-model-path"]
    assert make_delta.main([*folders, str(tmp_path / "target"), "--delta-path", str(made)]) == 0
    assert apply_delta.main([*folders, str(again), "--delta-path", str(made)]) == 0
    assert "rounded" not in capsys.readouterr().out
    assert_same(read(again), target)

    differences = load_file(made / "model.safetensors")
    name = "model.embed_tokens.weight"
    rows = base[name].shape[0]
    assert torch.equal(differences[name][:rows], target[name][:rows] - base[name])
    assert torch.equal(differences[name][rows:], target[name][rows:])  # rows that the base has not are whole
    for name in ("model.mm_projector.0.weight", "model.image_newline"):
        assert torch.equal(differences[name], target[name])
    loaded = load_model(again)
    assert loaded.model.config.vocab_size == target["lm_head.weight"].shape[0]
    assert loaded.tokenizer("What").input_ids == load_model(tmp_path / "target").tokenizer("What").input_ids


def test_the_arithmetic_is_the_deltas_own(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype=torch.float32)
    difference = random_tensors(decoder_shapes(BASE_CONFIG), seed=9)
    (tmp_path / "delta").mkdir()
    (tmp_path / "delta/config.json").write_text(json.dumps({**BASE_CONFIG, "dtype": "float32"}))
    write_bin_shards(tmp_path / "delta", difference, 3)
    apply_delta.apply_delta(str(tmp_path / "base"), str(tmp_path / "target"), str(tmp_path / "delta"))
    assert_same(read(tmp_path / "target"), {name: tensor + base[name].half() for name, tensor in difference.items()})
    config = json.loads((tmp_path / "target/config.json").read_text())
    assert (config["torch_dtype"], "dtype" in config) == ("float16", False)


def test_values_that_come_back_rounded_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = write_base(tmp_path / "base")
    (tmp_path / "target").mkdir()
    (tmp_path / "target/config.json").write_text(json.dumps(BASE_CONFIG))
    target = {name: tensor.clone() for name, tensor in base.items()}
    target["model.norm.weight"][:2] = base["model.norm.weight"][:2] * 1e-3
    save_file(target, tmp_path / "target/model.safetensors")
    make_delta.make_delta(str(tmp_path / "base"), str(tmp_path / "target"), str(tmp_path / "delta"), None)
    assert "2 values will be rounded" in capsys.readouterr().out


def test_a_base_whose_head_is_its_embeddings_has_them_for_both(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", tie_word_embeddings=True)
    del base["lm_head.weight"]
    write_bin_shards(tmp_path / "base", base)
    difference = random_tensors(decoder_shapes(BASE_CONFIG), seed=9)
    (tmp_path / "delta").mkdir()
    (tmp_path / "delta/config.json").write_text(json.dumps(BASE_CONFIG))
    write_bin_shards(tmp_path / "delta", difference)
    delta.add_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "target")
    head = read(tmp_path / "target")["lm_head.weight"]
    assert torch.equal(head, difference["lm_head.weight"] + base["model.embed_tokens.weight"])


def spoil(tensors: Tensors, how: str) -> None:
    if how == "more":
        tensors["model.layers.9.mlp.up_proj.weight"] = torch.ones(2)
    elif how == "less":
        del tensors["model.norm.weight"]
    elif how == "shape":
        tensors["model.norm.weight"] = torch.ones(3)
    elif how == "fewer rows":
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1].clone()
    elif how == "huge":
        tensors["model.norm.weight"].fill_(60_000)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("more", "tensors that .* lacks, such as model.layers.9.mlp.up_proj.weight"),
        ("less", "tensors that .* lacks, such as model.norm.weight"),
        ("shape", r"model.norm.weight is \[3\], but \[\d+\] in the base"),
        ("fewer rows", "lm_head.weight is .* only the embeddings and the head may have grown"),
        ("huge", "model.norm.weight does not fit float16: a value is too large"),
    ],
)
def test_a_delta_of_another_base_is_refused_and_nothing_is_written(tmp_path: Path, how: str, sentence: str) -> None:
    base = write_base(tmp_path / "base")
    base["model.norm.weight"].fill_(60_000)
    write_bin_shards(tmp_path / "base", base)
    difference = random_tensors(decoder_shapes(BASE_CONFIG), seed=9)
    spoil(difference, how)
    (tmp_path / "delta").mkdir()
    (tmp_path / "delta/config.json").write_text(json.dumps(BASE_CONFIG))
    save_file(difference, tmp_path / "delta/model.safetensors")
    with pytest.raises(CheckpointError, match=sentence):
        delta.add_delta(tmp_path / "base", tmp_path / "delta", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_mistake_on_the_command_line_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_base(tmp_path / "base")
    same = str(tmp_path / "base")
    assert consolidate.main(["--src", same, "--dst", same]) == UsageError.exit_code
    assert consolidate.main(["--src", str(tmp_path / "none"), "--dst", same]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("llava: error: ") for line in lines] == [True, True]


def test_a_consolidated_checkpoint_is_in_float16_and_safetensors(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype=torch.float32)
    assert consolidate.main(["--src", str(tmp_path / "base"), "--dst", str(tmp_path / "new")]) == 0
    assert_same(load_file(tmp_path / "new/model.safetensors"), {name: each.half() for name, each in base.items()})
    assert json.loads((tmp_path / "new/config.json").read_text())["torch_dtype"] == "float16"


def test_a_first_versions_config_is_changed_once_that_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "llava-v0"
    folder.mkdir()
    path = folder / "config.json"
    old = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "mm_vision_tower": "x"}
    path.write_text(json.dumps(old))
    monkeypatch.setattr("builtins.input", lambda prompt: "n")
    with pytest.raises(SystemExit):
        auto_upgrade(str(folder))
    assert json.loads(path.read_text()) == old
    monkeypatch.setattr("builtins.input", lambda prompt: "Y")
    auto_upgrade(str(folder))
    changed = {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}
    assert json.loads(path.read_text()) == {**old, **changed}
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("it was asked again"))
    auto_upgrade(str(folder))


def test_another_models_config_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "llava-gptj"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gptj"}')
    with pytest.raises(CheckpointError, match="model_type gptj"):
        auto_upgrade(str(folder))
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        auto_upgrade(str(tmp_path))
    assert KeywordsStoppingCriteria is not None
