"""A checkpoint that is put together from installed packages is an ordinary folder, written once and whole."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import llava
from llava.errors import CheckpointError, LlavaError
from llava.model.assembled import assembly
from llava.model.assembled.assembly import assemble
from llava.model.assembled.pretrained_parts import MissingParts, Parts, pin_own
from llava.model.checkpoint import load_model
from llava.model.checkpoint_reader import open_checkpoint
from tests import tiny_tokenizers
from tests.tiny_checkpoints import Tensors
from tests.tiny_parts import OWN, use, write_talking_model

Setting = tuple[Path, Path, Tensors]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    root = tmp_path_factory.mktemp("talking")
    return root / "talking_model", root / "site", write_talking_model(root / "talking_model", root / "site")


@pytest.fixture
def setting(written: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    """A copy of what ships, and of the installed package."""
    folder, site, tensors = written
    shutil.copytree(folder, tmp_path / "talking_model")
    shutil.copytree(site, tmp_path / "site")
    use(tmp_path / "talking_model", tmp_path / "site", tmp_path / "cache", monkeypatch)
    return tmp_path / "talking_model", tmp_path / "site", tensors


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    built: list[Path] = []
    build = assembly._build

    def counted(parts: Parts, place: Path) -> None:
        built.append(place)
        build(parts, place)

    monkeypatch.setattr(assembly, "_build", counted)
    return built


def test_every_tensor_is_the_parts_dequantized_and_in_the_originals_order_or_our_own_bit_by_bit(
    setting: Setting,
) -> None:
    folder, _, tensors = setting
    place = assemble(Parts.read(folder))
    found = dict(open_checkpoint(place).stream())
    assert found.keys() == tensors.keys()
    chosen = gguf.GGMLQuantizationType.Q4_1
    for name, tensor in tensors.items():
        if name.startswith(OWN):
            assert torch.equal(found[name], tensor), name
            continue
        expected = tensor.float()
        if tensor.ndim == 2:
            raw = gguf.quants.quantize(expected.numpy(), chosen)
            expected = torch.from_numpy(gguf.quants.dequantize(raw, chosen))
        assert torch.equal(found[name], expected.to(torch.bfloat16)), name


def test_the_folder_is_an_ordinary_checkpoint_that_answers(setting: Setting, photo: Path) -> None:
    folder, _, _ = setting
    place = assemble(Parts.read(folder))
    loaded = load_model(place, device="cpu")
    assert loaded.template == "smollm2"
    own = tiny_tokenizers.byte_level(["<|im_start|>", "<|im_end|>", "<|endoftext|>"], bos="<|im_start|>")
    for text in ("What is in it?", "<|im_start|>user\nnaïve 12345 🙂<|im_end|>\n"):
        assert loaded.tokenizer(text).input_ids == own(text).input_ids
    reply = llava.ask(loaded, "What is in it?", [photo], llava.Sampling(max_new_tokens=4))
    assert reply.new_tokens > 0
    assert not (place / "parts.json").exists()
    assert {path.stat().st_mode & 0o077 for path in place.iterdir()} == {0o666 & ~_umask() & 0o077}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_folder_is_written_once_and_needs_no_package_afterwards(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, site, _ = setting
    built = count_builds(monkeypatch)
    place = assemble(Parts.read(folder))
    assert capsys.readouterr().err == (f"llava: preparing the model once: Words become a checkpoint in {place} ...\n")
    shutil.rmtree(site)
    assert assemble(Parts.read(folder)) == place
    assert built == [place]
    assert capsys.readouterr().err == ""
    assert sorted(path.name for path in place.parent.iterdir()) == [".lock", place.name]


def test_a_missing_another_and_a_damaged_package_are_told_apart(setting: Setting) -> None:
    folder, site, _ = setting
    parts = Parts.read(folder)
    file = site / "tiny_words/words.gguf"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(MissingParts, match=r"words\.gguf of tiny-words 1\.0 is missing or damaged"):
        assemble(parts)
    file.unlink()
    assert parts.missing == list(parts.parts)
    with pytest.raises(MissingParts, match="install the package again"):
        assemble(parts)
    shutil.rmtree(site / "tiny_words-1.0.dist-info")
    with pytest.raises(MissingParts, match="tiny-words is not installed"):
        assemble(parts)
    about = site / "tiny_words-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-words\nVersion: 2.0\n")
    with pytest.raises(MissingParts, match=r"tiny-words 2\.0 is installed, whose Words is another file than 1\.0's"):
        assemble(parts)
    file.write_bytes(content)  # another version with the same file is as good
    assert assemble(parts).is_dir()


def test_tensors_that_were_trained_anew_make_another_folder_once_they_are_pinned(setting: Setting) -> None:
    folder, _, _ = setting
    first = assemble(Parts.read(folder))
    own = folder / "own.safetensors"
    tensors = {name: tensor + 1 for name, tensor in load_file(own).items()}
    changed = "model.mm_projector.0.bias"
    save_file(tensors, own)
    os.utime(own, (2e9, 2e9))
    with pytest.raises(CheckpointError, match=r"own\.safetensors is missing, or not the file .* pin it: python -m"):
        assemble(Parts.read(folder))
    pin_own(folder)
    second = assemble(Parts.read(folder))
    assert second != first
    assert torch.equal(dict(open_checkpoint(second).stream())[changed], tensors[changed])
    os.utime(own, (2e9 + 1, 2e9 + 1))  # touched, not changed
    assert assemble(Parts.read(folder)) == second


def test_another_config_makes_another_folder(setting: Setting) -> None:
    folder, _, _ = setting
    first = assemble(Parts.read(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_aspect_ratio": "pad"}))
    assert assemble(Parts.read(folder)) != first


def test_a_folder_that_was_cut_short_is_made_again_and_what_a_broken_off_process_left_is_removed(
    setting: Setting,
) -> None:
    folder, _, _ = setting
    place = assemble(Parts.read(folder))
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[:-100])
    left = place.with_name(f".{place.name}.99.partial")
    left.mkdir()
    assert assemble(Parts.read(folder)) == place
    assert (place / "model.safetensors").read_bytes() == whole
    assert not left.exists()
    (place / "assembled.json").write_text("[]")
    assert assemble(Parts.read(folder)) == place
    assert (place / "model.safetensors").read_bytes() == whole


def test_a_folder_of_another_version_is_deleted_after_a_month_without_use(setting: Setting) -> None:
    folder, _, _ = setting
    cache = folder.with_name("cache") / "assembled"
    for name, age in (("old", 1e9), ("new", None)):
        (cache / name).mkdir(parents=True)
        (cache / name / "assembled.json").write_text("{}")
        if age is not None:
            os.utime(cache / name / "assembled.json", (age, age))
    (cache / "other").mkdir()
    assemble(Parts.read(folder))
    assert not (cache / "old").exists()
    assert (cache / "new").exists()
    assert (cache / "other").exists()


def test_several_processes_write_it_once(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads take the lock on the file as processes do."""
    folder, _, _ = setting
    built = count_builds(monkeypatch)
    barrier = threading.Barrier(3)
    found: list[Path] = []

    def work() -> None:
        barrier.wait()
        found.append(assemble(Parts.read(folder)))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len({*found}) == len(built) == 1


def test_where_the_cache_cannot_be_written_the_folder_is_made_for_this_process(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, _ = setting
    cache = folder.with_name("file")
    cache.write_text("")
    monkeypatch.setenv("LLAVA_CACHE", str(cache))
    built = count_builds(monkeypatch)
    place = assemble(Parts.read(folder))
    assert "cannot be written (Not a directory), so the model is put together for this process alone" in (
        capsys.readouterr().err
    )
    assert open_checkpoint(place).template == "smollm2"
    assert assemble(Parts.read(folder)) == place
    assert len(built) == 1
    shutil.rmtree(place.parent)
    assembly._temporary.clear()


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left")])
def test_a_full_disk_is_said_and_leaves_nothing(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    folder, _, _ = setting
    monkeypatch.setenv("TMPDIR", str(folder.parent))
    monkeypatch.setattr("tempfile.tempdir", None)

    def fail(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(assembly, "save_file", fail)
    with pytest.raises(LlavaError, match=r"neither in .*cache/assembled nor in .*: No space left.* about 400 MB"):
        assemble(Parts.read(folder))
    left = [path for path in folder.parent.rglob("*") if "partial" in path.name or path.parent.name == "assembled"]
    assert [path.name for path in left] == [".lock"]


def test_parts_json_that_is_damaged_is_named(setting: Setting) -> None:
    folder, _, _ = setting
    for text in ("", "[]", '{"parts": [{"name": 1}], "own": []}'):
        (folder / "parts.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"parts\.json cannot be read"):
            Parts.read(folder)
