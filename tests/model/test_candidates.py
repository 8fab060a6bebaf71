"""Which of several files is read as a checkpoint's weights: Transformers' order, and a word about it."""

from __future__ import annotations

import re
import shutil
import zipfile
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from llava.cli import main
from llava.errors import CheckpointError
from llava.model.checkpoint import load_model
from llava.model.weights import find_candidates, read_bin
from tests.tiny_checkpoints import write_bin_shards, write_llava_1_5, write_llava_1_6
from tests.tiny_configs import write_json

FORMS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def write_form(folder: Path, form: str, tensors: dict[str, torch.Tensor]) -> None:
    """The tensors in one of the four forms; shards of .bin and of .safetensors lie under names of their own."""
    if form == "model.safetensors":
        save_file(tensors, folder / form, {"format": "pt"})
    elif form == "pytorch_model.bin":
        torch.save(tensors, folder / form)
    elif form == "pytorch_model.bin.index.json":
        write_bin_shards(folder, tensors)
    else:
        save_file(tensors, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
        places = dict.fromkeys(tensors, "model-00001-of-00001.safetensors")
        write_json(folder / form, {"metadata": {}, "weight_map": places})


@pytest.mark.parametrize("forms", [pair for number in (1, 2, 4) for pair in combinations(FORMS, number)])
def test_what_is_read_is_what_transformers_reads(tmp_path: Path, forms: tuple[str, ...]) -> None:
    config = LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = LlamaForCausalLM(config)
    config.save_pretrained(tmp_path)
    for number, form in enumerate(forms, start=1):
        write_form(tmp_path, form, {name: torch.full_like(one, number) for name, one in model.state_dict().items()})
    theirs = LlamaForCausalLM.from_pretrained(tmp_path).model.norm.weight[0].item()
    assert find_candidates(tmp_path) == list(forms)
    assert forms.index(find_candidates(tmp_path)[0]) + 1 == theirs


def test_an_index_older_than_the_weights_does_no_harm_and_is_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    write_llava_1_6(tmp_path)
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"model.norm.weight": "gone.safetensors"}})
    load_model(tmp_path, device="cpu")
    remark = "model.safetensors is read, as Transformers does, and model.safetensors.index.json is not"
    assert caplog.text.count(remark) == 1
    assert main(["info", str(tmp_path)]) == 0
    assert remark in " ".join(capsys.readouterr().out.split())


def test_a_foreign_file_beside_complete_shards_wins_and_is_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = write_llava_1_6(tmp_path)
    write_bin_shards(tmp_path, {name: tensor + 1 for name, tensor in tensors.items()})
    model = load_model(tmp_path, device="cpu", dtype="float16").model
    assert torch.equal(model.model.norm.weight, tensors["model.norm.weight"])
    assert "model.safetensors is read, as Transformers does, and pytorch_model.bin.index.json is not" in caplog.text


def test_one_set_of_weights_is_not_remarked(next_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_model(next_folder, device="cpu")
    assert caplog.text == ""


def test_a_variant_is_read_where_nothing_else_is_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = write_llava_1_6(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.fp16.safetensors")
    model = load_model(tmp_path, device="cpu", dtype="float16").model
    assert torch.equal(model.model.norm.weight, tensors["model.norm.weight"])
    assert "only as a variant: model.fp16.safetensors is read" in caplog.text
    shutil.copyfile(tmp_path / "model.fp16.safetensors", tmp_path / "model.ema.safetensors")
    assert find_candidates(tmp_path) == []
    save_file(load_file(tmp_path / "model.ema.safetensors"), tmp_path / "model.safetensors")
    assert find_candidates(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_empty_weights_are_blamed_on_what_leaves_them(tmp_path: Path, suffix: str) -> None:
    tensors = write_llava_1_6(tmp_path)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.empty(0)
    (tmp_path / "model.safetensors").unlink()
    form = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[suffix]
    write_form(tmp_path, form, tensors)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path, device="cpu")
    for words in ("model.layers.0.mlp.up_proj.weight", form, "[0]", "DeepSpeed ZeRO-3 or FSDP", "zero_to_fp32.py"):
        assert words in str(caught.value)


def test_an_archive_that_is_larger_unpacked_is_refused_before_it_is_read(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(100_000)}, tmp_path / "plain.bin")
    with (
        zipfile.ZipFile(tmp_path / "plain.bin") as plain,
        zipfile.ZipFile(tmp_path / "x.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "x.bin").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="a compressed archive, which torch never writes"):
        read_bin(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.ones(1).expand(10**12), "but the file has fewer elements for it"),
        (torch.empty(4, device="meta"), "not a dense tensor"),
        (torch.eye(3).to_sparse(), "not a dense tensor"),
    ],
)
def test_a_tensor_that_is_not_all_in_the_file_is_refused(tmp_path: Path, tensor: torch.Tensor, says: str) -> None:
    torch.save({"x": tensor}, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match=says) as caught:
        read_bin(tmp_path / "x.bin")
    assert "x in " in str(caught.value)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    torch.save({7: torch.ones(1)}, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="a tensor whose name is 7"):
        read_bin(tmp_path / "x.bin")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_fsdp_wrapped_module.", "base_model.model."])
def test_a_model_that_was_saved_inside_a_wrapper_is_told_by_its_names(prefix: str, tmp_path: Path) -> None:
    tensors = write_llava_1_6(tmp_path)
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"inside its wrapper of .* Save the unwrapped model"):
        load_model(tmp_path)


def test_weights_that_are_links_to_nowhere_or_several_variants_are_told_with_the_next_step(tmp_path: Path) -> None:
    write_llava_1_6(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / "model.fp16.safetensors")
    shutil.copy(tmp_path / "model.fp16.safetensors", tmp_path / "model.bf16.safetensors")
    with pytest.raises(CheckpointError, match=r"several variants \(model\.bf16.*, model\.fp16.*that name"):
        load_model(tmp_path)
    weights.symlink_to("../../blobs/0123")
    for variant in ("fp16", "bf16"):
        (tmp_path / f"model.{variant}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"link whose target is missing.*Download it again"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"])
def test_a_folder_in_the_place_of_a_file_of_weights_is_said_to_be_one(tmp_path: Path, name: str) -> None:
    write_llava_1_6(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=rf"{re.escape(str(tmp_path / name))} is a folder, where a file of"):
        load_model(tmp_path, device="cpu")


def test_a_shard_that_is_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    write_llava_1_5(tmp_path / "llava", tmp_path / "clip")
    shard = tmp_path / "llava/pytorch_model-00002-of-00002.bin"
    shard.unlink()
    shard.mkdir()
    with pytest.raises(CheckpointError, match=f"{re.escape(str(shard))} is a folder: .* says that it holds"):
        load_model(tmp_path / "llava", device="cpu")
