"""Checkpoints are read whole or refused, and what is written is read back bit by bit."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llava.answer import ask
from llava.errors import CheckpointError, LlavaError, UsageError
from llava.image.geometry import plan_tiles
from llava.image.pixels import make_pixels
from llava.image.source import FOR_LOCAL_USER, load_image
from llava.model.checkpoint import LoadedModel, load_model, save_checkpoint
from llava.model.conversion import convert
from llava.sampling import Sampling
from tests.tiny_checkpoints import (
    Tensors,
    decoder_shapes,
    projector_shapes,
    random_tensors,
    tower_shapes,
    write_bin_shards,
    write_companions,
    write_llava_1_5,
    write_llava_1_6,
    write_tower,
)
from tests.tiny_configs import CONFIG, NEXT, TOWER, VOCAB, write_json
from tests.tiny_tokenizers import train_sentencepiece

INSIDE = "model.vision_tower.vision_tower.vision_model."


def load(folder: Path, **options: Any) -> LoadedModel:
    return load_model(folder, **{"device": "cpu", "dtype": "float32", **options})


def weights_of(model: Any) -> Tensors:
    return dict(model.state_dict())


def assert_holds(model: Any, tensors: Tensors, dtype: torch.dtype = torch.float32) -> None:
    found = weights_of(model)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.to(dtype)), name


def rewrite_weights(folder: Path, change: Callable[[Tensors], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    changed = change(tensors)
    save_file(changed if isinstance(changed, dict) else tensors, folder / "model.safetensors", {"format": "pt"})


def rewrite_config(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    write_json(folder / "config.json", {key: value for key, value in values.items() if value is not ...})


def test_a_1_5_in_bin_shards_takes_its_tower_from_a_complete_clip(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    loaded = load(tmp_path / "llava")
    assert_holds(loaded.model, tensors)
    assert type(loaded.model).__name__ == "LlavaLlamaForCausalLM"
    assert not loaded.model.training
    assert loaded.image_processor.crop_size == {"height": 28, "width": 28}
    assert loaded.model.get_vision_tower().image_processor is loaded.image_processor
    assert (loaded.context_tokens, loaded.template) == (4096, "llava_v1")


def test_a_tower_may_be_named_from_here_or_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llava_1_5(tmp_path / "a", tmp_path / "towers/clip", tower_name="towers/clip")
    monkeypatch.chdir(tmp_path)
    from_here = weights_of(load(tmp_path / "a").model)
    shutil.move(tmp_path / "towers", tmp_path / "a/towers")
    from_checkpoint = weights_of(load(tmp_path / "a").model)
    assert all(torch.equal(from_here[name], from_checkpoint[name]) for name in from_here)


def test_a_tower_folder_may_hold_only_a_tower_in_either_naming(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    (tmp_path / "clip/pytorch_model.bin").unlink()
    write_json(tmp_path / "clip/config.json", {**TOWER, "model_type": "clip_vision_model"})
    for prefix in ("vision_model.", ""):
        tower = random_tensors(tower_shapes(prefix), seed=7, dtype=torch.float32)
        save_file(tower, tmp_path / "clip/model.safetensors")
        assert_holds(load(tmp_path / "llava").model, tensors)


def test_a_1_6_is_whole_without_any_tower_folder(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path)
    loaded = load(tmp_path)
    assert_holds(loaded.model, tensors)
    assert loaded.model.model.image_newline.shape == (32,)
    assert loaded.spec.tiling.aspect == "anyres"


def test_a_tower_inside_wins_over_its_folder(tmp_path: Path) -> None:
    other = write_tower(tmp_path / "clip")
    tensors = write_llava_1_6(tmp_path / "llava", mm_vision_config=None, mm_vision_tower=str(tmp_path / "clip"))
    loaded = load(tmp_path / "llava")
    assert_holds(loaded.model, tensors)
    assert not torch.equal(tensors[INSIDE + "pre_layrnorm.weight"].float(), other[INSIDE + "pre_layrnorm.weight"])


def test_the_well_known_tower_inside_needs_no_folder_and_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = write_llava_1_6(tmp_path, mm_vision_config=None, mm_vision_tower="openai/known")
    monkeypatch.setattr("llava.config.KNOWN_TOWERS", {"openai/known": TOWER})
    monkeypatch.setattr("llava.model.spec_reader.KNOWN_TOWERS", {"openai/known": TOWER})
    assert_holds(load(tmp_path).model, tensors)


@pytest.mark.parametrize(
    ("kind", "name"), [("llava_mistral", "LlavaMistralForCausalLM"), ("llava_qwen", "LlavaQwenForCausalLM")]
)
def test_the_other_families_load_too(tmp_path: Path, kind: str, name: str) -> None:
    tensors = write_llava_1_6(tmp_path, model_type=kind, architectures=[name])
    loaded = load(tmp_path)
    assert type(loaded.model).__name__ == name
    assert_holds(loaded.model, tensors)


def test_the_folder_name_decides_nothing_but_the_template(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "mpt-lora-qwen")
    assert type(load(tmp_path / "mpt-lora-qwen").model).__name__ == "LlavaLlamaForCausalLM"


def test_the_template_in_the_file_wins_over_the_name_and_stays_when_saved(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "llava-v1", conversation_template="chatml_direct")
    loaded = load(tmp_path / "llava-v1")
    assert loaded.template == "chatml_direct"
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "v1")
    assert load(tmp_path / "v1").template == "chatml_direct"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_saved_is_read_back_bit_by_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    write_llava_1_6(tmp_path / "a")
    first = load(tmp_path / "a", dtype=dtype)
    save_checkpoint(first.model, first.tokenizer, first.image_processor, tmp_path / "b")
    assert_holds(load(tmp_path / "b", dtype=dtype).model, weights_of(first.model), dtype)
    stored = load_file(tmp_path / "b/model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    assert json.loads((tmp_path / "b/config.json").read_text())["torch_dtype"] == str(dtype).removeprefix("torch.")


def test_shards_with_an_index_are_read_back_bit_by_bit(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a")
    first = load(tmp_path / "a", dtype="float16")
    save_checkpoint(first.model, first.tokenizer, first.image_processor, tmp_path / "b", max_shard_bytes=20_000)
    index = json.loads((tmp_path / "b/model.safetensors.index.json").read_text())
    files = set(index["weight_map"].values())
    assert len(files) > 3
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert all((tmp_path / "b" / file).stat().st_size < 40_000 for file in files)
    assert_holds(load(tmp_path / "b").model, tensors)


def test_a_1_5_is_saved_without_its_tower_and_finds_it_again(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "a", tmp_path / "clip")
    first = load(tmp_path / "a", dtype="float16")
    save_checkpoint(first.model, first.tokenizer, first.image_processor, tmp_path / "b", include_tower=False)
    stored = load_file(tmp_path / "b/model.safetensors")
    assert not [name for name in stored if "vision_tower" in name]
    assert json.loads((tmp_path / "b/config.json").read_text())["unfreeze_mm_vision_tower"] is False
    assert_holds(load(tmp_path / "b").model, tensors)


def test_a_saved_config_says_what_the_original_looks_for_and_nothing_of_this_machine(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a", rope_theta=1e6, rope_scaling={"type": "linear", "factor": 2.0})
    first = load(tmp_path / "a")
    first.model.config.truncate_to_model_max_length = True
    save_checkpoint(first.model, first.tokenizer, first.image_processor, tmp_path / "b")
    values = json.loads((tmp_path / "b/config.json").read_text())
    # Unfrozen is where the original looks for a tower's weights inside the checkpoint.
    assert values["unfreeze_mm_vision_tower"] is True
    assert (values["model_type"], values["architectures"]) == ("llava_llama", ["LlavaLlamaForCausalLM"])
    assert values["mm_vision_config"].items() >= TOWER.items()
    assert (values["rope_theta"], values["rope_scaling"]["factor"]) == (1e6, 2.0)
    for key, value in (CONFIG | NEXT).items():
        if key not in (
            "_name_or_path",
            "max_length",
            "model_type",
            "torch_dtype",
            "transformers_version",
            "rope_scaling",
        ):
            assert values[key] == value, key
    assert not {"_name_or_path", "id2label", "truncate_to_model_max_length", "dtype", "max_length"} & values.keys()
    assert str(tmp_path) not in json.dumps(values)
    again = load(tmp_path / "b").model
    assert torch.equal(again.model.rotary_emb.inv_freq, first.model.model.rotary_emb.inv_freq)
    assert again.config.rope_parameters == first.model.config.rope_parameters


def test_saving_over_a_checkpoint_replaces_it_and_keeps_other_files(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a")
    loaded = load(tmp_path / "a")
    parts = (loaded.model, loaded.tokenizer, loaded.image_processor)
    save_checkpoint(*parts, tmp_path / "b", max_shard_bytes=20_000)
    (tmp_path / "b/README.md").write_text("a card")
    save_checkpoint(*parts, tmp_path / "b")
    assert (tmp_path / "b/README.md").read_text() == "a card"
    assert [path.name for path in (tmp_path / "b").glob("*.safetensors*")] == ["model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert_holds(load(tmp_path / "b").model, weights_of(loaded.model))


def test_a_save_that_fails_leaves_the_older_checkpoint_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = write_llava_1_6(tmp_path / "a")
    loaded = load(tmp_path / "a")

    def fail(*arguments: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(loaded.image_processor.__class__, "save_pretrained", fail)
    with pytest.raises(LlavaError, match=f"{tmp_path / 'a'} cannot be written: no space left on device"):
        save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert_holds(load(tmp_path / "a").model, tensors)


def test_a_checkpoint_is_not_written_over_a_file(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a")
    loaded = load(tmp_path / "a")
    (tmp_path / "b").write_text("mine")
    os.mkfifo(tmp_path / "pipe")  # nor over a device or a pipe
    for name in ("b", "pipe"):
        with pytest.raises(UsageError, match="is not a folder"):
            save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / name)
    assert (tmp_path / "b").read_text() == "mine"
    loaded.model.config.mm_vision_tower = ""
    with pytest.raises(UsageError, match="mm_vision_tower"):
        save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "c", include_tower=False)


def test_a_model_that_does_not_fit_the_device_is_said_to_be_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llava_1_6(tmp_path)

    def fail(*arguments: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("llava.model.checkpoint._check_finite", fail)
    with pytest.raises(LlavaError, match=r"cpu has no room for .* takes 0\.0 GB in torch\.float32"):
        load(tmp_path)


def test_every_file_that_is_saved_may_be_read_by_whoever_may_read_its_neighbours(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a")
    loaded = load(tmp_path / "a")
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "b")
    modes = {path.stat().st_mode for path in (tmp_path / "b").iterdir()}
    assert modes == {(tmp_path / "a/config.json").stat().st_mode}


def test_an_unknown_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'gguf'"):
        save_checkpoint(None, None, None, tmp_path / "b", layout="gguf")  # type: ignore[arg-type]


def test_sampling_values_without_do_sample_neither_warn_nor_crash(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_llava_1_6(tmp_path / "a")
    monitored = logging.getLogger("transformers")
    monitored.addHandler(caplog.handler)
    try:
        loaded = load(tmp_path / "a")
        save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "b")
        new_ids = loaded.model.generate(torch.tensor([[1, 5, 6]]), max_new_tokens=2, do_sample=False)
    finally:
        monitored.removeHandler(caplog.handler)
    assert new_ids.shape[1] <= 2
    assert caplog.records == []
    assert loaded.model.generation_config.temperature in (None, 1.0)
    assert (loaded.model.generation_config.eos_token_id, loaded.model.generation_config.pad_token_id) == (2, 0)
    assert "temperature" not in json.loads((tmp_path / "b/generation_config.json").read_text())


def test_sampling_values_with_do_sample_are_kept(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    write_json(tmp_path / "generation_config.json", {"do_sample": True, "temperature": 0.7, "eos_token_id": [2, 7]})
    config = load(tmp_path).model.generation_config
    assert (config.do_sample, config.temperature, config.eos_token_id) == (True, 0.7, [2, 7])


def test_without_generation_config_the_config_says_where_answers_end(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path, eos_token_id=[2, 9])
    (tmp_path / "generation_config.json").unlink()
    assert load(tmp_path).model.generation_config.eos_token_id == [2, 9]


def test_buffers_are_right_after_loading_and_stay_in_float32(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path, rope_theta=5e5)
    model = load(tmp_path, dtype="bfloat16").model
    exact = 1.0 / (5e5 ** (torch.arange(0, 8, 2).float() / 8))
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(model.model.rotary_emb.inv_freq, exact)
    positions = model.get_vision_tower().vision_tower.vision_model.embeddings.position_ids
    assert positions.tolist() == [[0, 1, 2, 3, 4]]
    assert {tensor.dtype for tensor in weights_of(model).values()} == {torch.bfloat16}


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_what_becomes_of_a_model_never_reaches_its_files(tmp_path: Path, suffix: str) -> None:
    tensors = write_llava_1_6(tmp_path)
    if suffix == "bin":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    for dtype in ("float16", "float32"):
        model = load(tmp_path, dtype=dtype).model
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    assert_holds(load(tmp_path, dtype="float16").model, tensors, torch.float16)


def test_a_file_may_be_replaced_or_removed_while_its_model_is_in_use(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "a")
    loaded = load(tmp_path / "a", dtype="float16")
    save_checkpoint(load(tmp_path / "a").model, loaded.tokenizer, loaded.image_processor, tmp_path / "a")
    assert_holds(loaded.model, tensors, torch.float16)
    shutil.rmtree(tmp_path / "a")
    assert_holds(loaded.model, tensors, torch.float16)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_loading_takes_little_more_memory_than_the_model(tmp_path: Path) -> None:
    config = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8}
    config = {**CONFIG, **config, "num_key_value_heads": 8}
    write_companions(tmp_path, {**config, "mm_vision_tower": "clip"})
    write_tower(tmp_path / "clip")
    tensors = random_tensors(decoder_shapes(config) | projector_shapes(config))
    write_bin_shards(tmp_path, tensors, num_shards=8)
    model_bytes = 4 * sum(tensor.numel() for tensor in tensors.values())
    assert model_bytes > 100_000_000
    del tensors

    def read_status(key: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
        return int(line.split()[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here
    before = read_status("VmRSS")
    loaded = load(tmp_path)
    assert read_status("VmHWM") - before < 1.4 * model_bytes
    assert loaded.model.device.type == "cpu"


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)

    def change(tensors: Tensors) -> None:
        del tensors["model.norm.weight"], tensors["model.mm_projector.2.bias"]
        tensors["model.layers.9.mlp.up_proj.weight"] = torch.ones(2)

    rewrite_weights(tmp_path, change)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    assert "2 tensors are missing: model.mm_projector.2.bias, model.norm.weight" in str(caught.value)
    assert "1 tensors are unexpected: model.layers.9.mlp.up_proj.weight" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    rewrite_weights(tmp_path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(31)}))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight .*\[31\].*\[32\]"):
        load(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_found(tmp_path: Path, value: float) -> None:
    write_llava_1_6(tmp_path)

    def change(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = value

    rewrite_weights(tmp_path, change)
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight in .*safetensors.*NaN"):
        load(tmp_path)


def test_a_sum_that_overflows_is_no_fault_but_a_value_that_does_is(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    rewrite_weights(tmp_path, lambda tensors: tensors["model.norm.weight"].fill_(60000.0))
    assert load(tmp_path, dtype="float16").model.model.norm.weight[0] == 60000.0
    rewrite_weights(tmp_path, lambda tensors: {n: t.float() * 2 for n, t in tensors.items()})
    with pytest.raises(CheckpointError, match=r"120000.*too large for torch\.float16"):
        load(tmp_path, dtype="float16")


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    rewrite_weights(tmp_path, lambda tensors: tensors.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}))
    with pytest.raises(CheckpointError, match=r"torch\.int8"):
        load(tmp_path)


@pytest.mark.parametrize("rest", [0, 7, 1000, -1])
def test_a_safetensors_file_that_is_cut_short_is_named(tmp_path: Path, rest: int) -> None:
    write_llava_1_6(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:rest])
    with pytest.raises(CheckpointError, match="cut short or damaged") as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("rest", [0, 30, 5000, -20])
def test_a_bin_file_that_is_cut_short_is_named(tmp_path: Path, rest: int) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    path = tmp_path / "llava/pytorch_model-00002-of-00002.bin"
    path.write_bytes(path.read_bytes()[:rest])
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "llava")
    assert str(path) in str(caught.value)


class Payload:
    """What a poisoned pickle does when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, is_zip: bool) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    path = tmp_path / "llava/pytorch_model-00002-of-00002.bin"
    values = {"model.norm.weight": torch.ones(32), "evil": Payload(tmp_path / "was-run")}
    torch.save(values, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match="code") as caught:
        load(tmp_path / "llava")
    assert str(path) in str(caught.value)
    assert "mkdir" in str(caught.value)
    assert not (tmp_path / "was-run").exists()


def test_bin_files_of_the_old_format_are_read(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    for path in (tmp_path / "llava").glob("*.bin"):
        torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert_holds(load(tmp_path / "llava").model, tensors)


def test_a_bin_file_of_something_else_is_refused(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    torch.save([torch.ones(3)], tmp_path / "llava/pytorch_model-00001-of-00002.bin")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        load(tmp_path / "llava")


@pytest.mark.parametrize("place", ["../other.bin", "/etc/passwd", "a/../../b.bin", "C:\\x.bin", "..\\x.bin", ""])
def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path: Path, place: str) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    index = tmp_path / "llava/pytorch_model.bin.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["model.norm.weight"] = place
    write_json(index, values)
    with pytest.raises(CheckpointError, match="outside the checkpoint's folder") as caught:
        load(tmp_path / "llava")
    assert f"'{place}'" in str(caught.value)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    path = tmp_path / "llava/pytorch_model-00002-of-00002.bin"
    path.unlink()
    with pytest.raises(CheckpointError, match=r"is missing: pytorch_model\.bin\.index\.json says") as caught:
        load(tmp_path / "llava")
    assert str(path) in str(caught.value)


def test_an_index_without_a_weight_map_is_refused(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    write_json(tmp_path / "llava/pytorch_model.bin.index.json", {"weight_map": {"model.norm.weight": 5}})
    with pytest.raises(CheckpointError, match="weight_map"):
        load(tmp_path / "llava")


def test_an_index_that_names_tensors_a_file_lacks_is_refused(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    path = tmp_path / "llava/pytorch_model-00001-of-00002.bin"
    tensors = torch.load(path, weights_only=True)
    del tensors["model.embed_tokens.weight"]
    torch.save(tensors, path)
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors.*model\.embed_tokens\.weight"):
        load(tmp_path / "llava")


def test_a_tensor_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    path = tmp_path / "llava/pytorch_model-00002-of-00002.bin"
    tensors = torch.load(path, weights_only=True)
    torch.save(tensors | {"model.embed_tokens.weight": torch.zeros(VOCAB, 32)}, path)
    with pytest.raises(CheckpointError, match="appears twice"):
        load(tmp_path / "llava")


def test_a_folder_without_weights_or_without_their_index_says_so(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    path = tmp_path / "model.safetensors"
    path.rename(tmp_path / "model-00001-of-00001.safetensors")
    with pytest.raises(CheckpointError, match="no index that lists them"):
        load(tmp_path)
    (tmp_path / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        load(tmp_path)


def test_tied_heads_share_memory_and_are_stored_once(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a", tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs"):
        load(tmp_path / "a")
    rewrite_weights(tmp_path / "a", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    both = load(tmp_path / "a").model
    rewrite_weights(tmp_path / "a", lambda t: {n: v for n, v in t.items() if n != "lm_head.weight"})
    loaded = load(tmp_path / "a")
    for model in (both, loaded.model):
        assert model.lm_head.weight is model.model.embed_tokens.weight
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "b")
    assert "lm_head.weight" not in load_file(tmp_path / "b/model.safetensors")
    assert_holds(load(tmp_path / "b").model, weights_of(loaded.model))


def test_an_untied_head_has_to_be_there_and_stays_untied(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    model = load(tmp_path).model
    model.tie_weights()
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    rewrite_weights(tmp_path, lambda t: {n: v for n, v in t.items() if n != "lm_head.weight"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing: lm_head\.weight"):
        load(tmp_path)


def test_the_unused_end_of_a_tower_may_be_absent_and_stays_absent(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a")
    unused = (INSIDE + "encoder.layers.2.", INSIDE + "post_layernorm.")
    pixels = torch.randn(1, 3, 28, 28)
    whole = load(tmp_path / "a").model
    rewrite_weights(tmp_path / "a", lambda t: {n: v for n, v in t.items() if not n.startswith(unused)})
    loaded = load(tmp_path / "a")
    assert torch.equal(loaded.model.encode_images(pixels), whole.encode_images(pixels))
    assert not [name for name in weights_of(loaded.model) if name.startswith(unused)]
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "b")
    assert_holds(load(tmp_path / "b").model, weights_of(loaded.model))


def test_a_block_that_the_tower_runs_may_not_be_absent(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    used = (INSIDE + "encoder.layers.1.", INSIDE + "encoder.layers.2.", INSIDE + "post_layernorm.")
    rewrite_weights(tmp_path, lambda t: {n: v for n, v in t.items() if not n.startswith(used)})
    with pytest.raises(CheckpointError, match=r"16 tensors are missing: .*encoder\.layers\.1\."):
        load(tmp_path)


def test_a_newline_of_a_model_that_merges_without_is_passed_over(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path, mm_patch_merge_type="flat")
    rewrite_weights(tmp_path, lambda tensors: tensors.update({"model.image_newline": torch.ones(32)}))
    assert "model.image_newline" not in weights_of(load(tmp_path).model)


def test_a_projector_is_loaded_onto_its_base(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "whole", tmp_path / "clip")
    is_projector = {name: ".mm_projector." in name for name in tensors}
    base = {name: tensor for name, tensor in tensors.items() if not is_projector[name] and "vision_tower" not in name}
    write_companions(tmp_path / "base", {**CONFIG, "model_type": "llama", "architectures": ["LlamaForCausalLM"]})
    save_file(base, tmp_path / "base/model.safetensors", {"format": "pt"})
    folder = tmp_path / "projector"
    write_json(folder / "config.json", {**CONFIG, "mm_vision_tower": str(tmp_path / "clip")})
    for prefix in ("", "model."):
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if is_projector[name]}
        torch.save(own, folder / "mm_projector.bin")
        assert_holds(load(folder, base=tmp_path / "base").model, tensors)
    with pytest.raises(CheckpointError, match="only a projector"):
        load(folder)
    with pytest.raises(UsageError, match="contains a whole model"):
        load(tmp_path / "whole", base=tmp_path / "base")


@pytest.mark.parametrize(("says", "found"), [("linear", "0, 2"), ("mlp3x_gelu", "0, 2")])
def test_a_projector_of_another_depth_is_named_with_both_depths(tmp_path: Path, says: str, found: str) -> None:
    write_llava_1_6(tmp_path)
    rewrite_config(tmp_path, mm_projector_type=says)
    with pytest.raises(CheckpointError, match=f"says mm_projector_type: {says}.*the files' projector has {found}"):
        load(tmp_path)


def test_a_processor_for_other_tiles_is_refused_with_both_sizes(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    write_json(tmp_path / "preprocessor_config.json", {"size": {"shortest_edge": 56}, "crop_size": 56})
    with pytest.raises(CheckpointError, match="makes images of 56 px, but the vision tower takes 28 px"):
        load(tmp_path)


def test_a_llama_tokenizer_without_bos_is_refused(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    tokenizer = load(tmp_path).tokenizer
    tokenizer.bos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no BOS token, but every prompt of a llama begins with one"):
        load(tmp_path)


def test_spare_embedding_rows_are_fine_and_missing_ones_are_not(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path / "a")
    loaded = load(tmp_path / "a")
    assert loaded.model.get_input_embeddings().num_embeddings == VOCAB > len(loaded.tokenizer)
    loaded.tokenizer.add_tokens([f"<extra{i}>" for i in range(VOCAB)])
    loaded.tokenizer.save_pretrained(tmp_path / "a")
    with pytest.raises(CheckpointError, match=rf"has {len(loaded.tokenizer)} tokens.* only {VOCAB} rows"):
        load(tmp_path / "a")


def test_a_checkpoint_with_marks_around_images_has_them_in_its_tokenizer(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path, mm_use_im_start_end=True)
    tokenizer = load(tmp_path).tokenizer
    assert {"<im_start>", "<im_end>"} <= tokenizer.get_vocab().keys()


@pytest.mark.parametrize("settings", [None, {"tokenizer_class": "LlamaTokenizer", "legacy": False}])
def test_a_bare_sentencepiece_model_is_enough(tmp_path: Path, settings: dict[str, Any] | None) -> None:
    write_llava_1_6(tmp_path / "a", vocab_size=512)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a/tokenizer.model").write_bytes(train_sentencepiece())
    if settings is not None:
        write_json(tmp_path / "a/tokenizer_config.json", settings)
    loaded = load(tmp_path / "a")
    ids = loaded.tokenizer("What is in the image?").input_ids
    assert ids[0] == loaded.tokenizer.bos_token_id == 1
    assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == "What is in the image?"
    assert (loaded.tokenizer.pad_token_id, loaded.tokenizer.legacy) == (0, settings is None)
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "b")
    assert load(tmp_path / "b").tokenizer("What is in the image?").input_ids == ids


def test_a_tokenizer_that_is_missing_or_damaged_is_said_to_be(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=rf"{tmp_path}/tokenizer\.json says added_tokens: None, where a list of"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        load(tmp_path)


def test_nothing_that_a_config_names_is_run(tmp_path: Path) -> None:
    evil = {"auto_map": {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Slow", "evil.Fast"]}}
    evil |= {"_attn_implementation_internal": "somebody/kernel", "attn_implementation": "somebody/kernel"}
    write_llava_1_6(tmp_path, **evil)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path / "tokenizer_config.json", settings | {"auto_map": evil["auto_map"]})
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'was-run')!r})")
    loaded = load(tmp_path)
    assert not (tmp_path / "was-run").exists()
    assert loaded.model.config._attn_implementation == "sdpa"
    assert "somebody" not in str(loaded.model.config.to_dict())


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 30}, {"num_attention_heads": 0}, {"rms_norm_eps": "small"}, {"hidden_act": "tangent"}]
)
def test_a_config_that_builds_no_model_is_a_fault_of_the_checkpoint(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_llava_1_6(tmp_path)
    rewrite_config(tmp_path, **changes)
    with pytest.raises(CheckpointError):
        load(tmp_path)


def test_a_small_model_is_float32_on_a_cpu_and_strings_choose_otherwise(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    assert load(tmp_path, dtype=None).model.dtype == torch.float32
    assert load(tmp_path, dtype="bf16").model.dtype == torch.bfloat16
    assert load(tmp_path, dtype=torch.float16).model.config.dtype == torch.float16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "tpu"}, "'tpu'"),
        ({"device": "meta"}, "'meta'"),
        ({"dtype": "int8"}, "'int8'"),
        ({"dtype": "float99"}, "'float99'"),
        ({"attention": "magic"}, "'magic'"),
        ({"bits": 8, "merge": False}, "merge it"),
        ({"bits": 3}, "not in 3"),
    ],
)
def test_a_wrong_option_is_found_before_anything_is_read(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "nowhere", **options)
    assert said in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sees 0 CUDA devices"):
        load(tmp_path, device="cuda")


def test_eager_attention_gives_the_same_logits(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    ids = torch.tensor([[1, 5, 6, 7]])
    eager = load(tmp_path, attention="eager").model
    assert eager.config._attn_implementation == "eager"
    assert torch.allclose(eager(input_ids=ids).logits, load(tmp_path).model(input_ids=ids).logits, atol=1e-5)


def write_s2(folder: Path) -> Tensors:
    """A LLaVA-1.5 whose tower looks at images of 56 px in two sizes: features of twice the width."""
    write_llava_1_5(folder, folder.with_name("clip"), s2=True, s2_scales="56,28", mm_hidden_size=32)
    config = json.loads((folder / "config.json").read_text())
    own = random_tensors(decoder_shapes(config) | projector_shapes(config))
    own["model.mm_projector.0.weight"] = torch.ones(32, 32, dtype=torch.float16) / 64
    write_bin_shards(folder, own)
    return own | write_tower(folder.with_name("clip"))


def test_a_multi_scale_tower_is_loaded_saved_and_sees_larger_images(tmp_path: Path, photo: Path) -> None:
    tensors = write_s2(tmp_path / "llava")
    loaded = load(tmp_path / "llava")
    assert_holds(loaded.model, tensors)
    assert type(loaded.model.get_vision_tower()).__name__ == "CLIPVisionTowerS2"
    assert loaded.image_processor.crop_size == {"height": 56, "width": 56}
    image = load_image(str(photo), FOR_LOCAL_USER)
    pixels = make_pixels(image.image, plan_tiles(image.size, loaded.spec.tiling), loaded.image_processor)
    assert pixels.shape == (1, 3, 56, 56)
    features, counts = loaded.model.encode_and_merge([pixels])
    assert counts == [plan_tiles(image.size, loaded.spec.tiling).num_positions] == [4]
    assert torch.equal(features, loaded.model.get_model().mm_projector(loaded.model.get_vision_tower()(pixels))[0])
    assert ask(loaded, "What is in it?", [image], Sampling(max_new_tokens=2)).image_positions == (4,)
    save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert_holds(again.model, tensors)
    assert again.image_processor.crop_size == {"height": 56, "width": 56}


def test_a_multi_scale_tower_is_converted_to_the_original_only(tmp_path: Path) -> None:
    tensors = write_s2(tmp_path / "llava")
    convert(tmp_path / "llava", tmp_path / "whole", "original")
    assert_holds(load(tmp_path / "whole").model, tensors)
    with pytest.raises(UsageError, match="s2: true, but Transformers"):
        convert(tmp_path / "llava", tmp_path / "hf", "hf")


def test_a_tower_of_another_width_than_the_projector_is_refused_with_both_widths(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path, mm_hidden_size=24)
    rewrite_weights(tmp_path, lambda t: t.update({"model.mm_projector.0.weight": torch.ones(32, 24)}))
    with pytest.raises(
        CheckpointError, match=r"says mm_hidden_size: 24, but its vision tower .* features of 16 values"
    ):
        load(tmp_path)


def test_a_tower_that_is_described_otherwise_than_its_folder_says_is_refused(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip", mm_vision_config={**TOWER, "num_attention_heads": 4})
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "llava")
    assert f"{tmp_path / 'llava/config.json'} says num_attention_heads: 4" in str(caught.value)
    assert f"{tmp_path / 'clip/config.json'} says 2" in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tokenizer.json"])
def test_a_pointer_that_git_left_in_place_of_a_file_is_said_to_be_one(tmp_path: Path, name: str) -> None:
    write_llava_1_6(tmp_path)
    if name == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9976576152\n")
    with pytest.raises(CheckpointError, match=f"{tmp_path / name} is a Git LFS pointer.*git lfs pull"):
        load(tmp_path)


def test_a_projector_knows_its_base_and_takes_another_if_it_is_named(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "whole", tmp_path / "clip")
    own = {name: tensor + 1 for name, tensor in tensors.items() if ".mm_projector." in name}
    config = {**CONFIG, "mm_vision_tower": str(tmp_path / "clip")}
    write_json(tmp_path / "part/config.json", {**config, "_name_or_path": "../whole"})  # from the folder itself
    torch.save({f"module.{name}": tensor for name, tensor in own.items()}, tmp_path / "part/mm_projector.bin")
    assert_holds(load(tmp_path / "part").model, tensors | own)
    write_json(tmp_path / "part/config.json", {**config, "_name_or_path": "gone/vicuna"})
    with pytest.raises(CheckpointError, match=r"only a projector, trained on 'gone/vicuna' as its config\.json says"):
        load(tmp_path / "part")
    assert_holds(load(tmp_path / "part", base=tmp_path / "whole").model, tensors | own)
    (tmp_path / "part/config.json").unlink()  # its base's says all that is needed
    assert_holds(load(tmp_path / "part", base=tmp_path / "whole").model, tensors | own)


def test_a_projector_is_put_onto_a_base_in_llava_hfs_layout(tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path / "whole")
    convert(tmp_path / "whole", tmp_path / "hf", "hf")
    own = {name: tensor + 1 for name, tensor in tensors.items() if ".mm_projector." in name}
    (tmp_path / "part").mkdir()
    torch.save(own, tmp_path / "part/mm_projector.bin")
    found = weights_of(load(tmp_path / "part", base=tmp_path / "hf").model)
    for name, tensor in (tensors | own).items():
        assert torch.equal(found[name][: len(tensor)], tensor.float()), name


def test_a_projector_that_lacks_a_layer_is_not_completed_from_its_base(tmp_path: Path) -> None:
    tensors = write_llava_1_5(tmp_path / "whole", tmp_path / "clip")
    write_json(tmp_path / "part/config.json", {**CONFIG, "mm_vision_tower": str(tmp_path / "clip")})
    own = {name: tensor for name, tensor in tensors.items() if ".mm_projector.0." in name}
    torch.save(own, tmp_path / "part/mm_projector.bin")
    with pytest.raises(CheckpointError, match="whose layers are 0, 2, but the files' projector has 0:"):
        load(tmp_path / "part", base=tmp_path / "whole")


@pytest.mark.parametrize("places", [{}, {"model.norm.weight": "."}])
def test_an_index_that_names_no_files_is_refused(tmp_path: Path, places: dict[str, str]) -> None:
    write_llava_1_6(tmp_path)
    (tmp_path / "model.safetensors").unlink()  # it would come first
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": places})
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json (has no weight_map|names '\.')"):
        load(tmp_path)


def test_a_mistake_beside_the_weights_is_found_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_llava_1_6(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    monkeypatch.setattr(
        "llava.model.checkpoint_reader.OpenCheckpoint.read", lambda opened: pytest.fail("the weights were read")
    )
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        load(tmp_path)


def test_a_trained_tower_that_is_absent_is_not_replaced_by_the_one_it_began_as(tmp_path: Path) -> None:
    write_tower(tmp_path / "clip")
    write_llava_1_6(tmp_path / "llava", mm_vision_tower=str(tmp_path / "clip"))
    loaded = load(tmp_path / "llava")
    with pytest.raises(UsageError, match="unfreeze_mm_vision_tower"):
        save_checkpoint(loaded.model, loaded.tokenizer, loaded.image_processor, tmp_path / "b", include_tower=False)
    rewrite_weights(tmp_path / "llava", lambda t: {n: v for n, v in t.items() if not n.startswith(INSIDE)})
    with pytest.raises(CheckpointError, match=r"config\.json says unfreeze_mm_vision_tower: true.* but none are there"):
        load(tmp_path / "llava")
    rewrite_config(tmp_path / "llava", unfreeze_mm_vision_tower=False)
    tower = write_tower(tmp_path / "clip")
    found = weights_of(load(tmp_path / "llava").model)
    assert all(torch.equal(found[name], tensor) for name, tensor in tower.items())


def test_a_padding_token_without_a_row_is_named_with_both_numbers(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path, pad_token_id=32000)
    with pytest.raises(CheckpointError, match=f"says pad_token_id: 32000, but vocab_size: {VOCAB}"):
        load(tmp_path)
