"""A small assembled model: a language model inside an installed package, and a tower and projector of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import save_file

from llava.model.assembled.pretrained_parts import PARTS, digest, pin_own
from tests import tiny_gguf, tiny_tokenizers
from tests.tiny_checkpoints import Tensors, write_llava_1_6

PACKAGE, VERSION = "tiny-words", "1.0"
OWN = ("model.vision_tower.", "model.mm_projector.", "model.image_newline")


def install_words(site: Path, source: Path, tensors: Tensors, version: str = VERSION) -> Path:
    """Installs a package with the language model of a checkpoint, as pip would; returns its GGUF file."""
    tokenizer = tiny_tokenizers.byte_level(["<|im_start|>", "<|im_end|>", "<|endoftext|>"], bos="<|im_start|>")
    config = json.loads((source / "config.json").read_text())
    file = site / "tiny_words/words.gguf"
    file.parent.mkdir(parents=True, exist_ok=True)
    (file.parent / "__init__.py").write_text("raise AssertionError('it is never imported')\n")
    vocabulary = tiny_gguf.describe_bpe(tokenizer, "gpt-2", config["vocab_size"])
    tiny_gguf.write_model(file, tensors, config, vocabulary, kind="Q4_1")
    about = site / f"tiny_words-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")
    return file


def write_talking_model(folder: Path, site: Path) -> Tensors:
    """Writes what ships in the package, and installs the part; returns all tensors before quantization."""
    source = folder.with_name("source")
    changes = {"vocab_size": 512, "intermediate_size": 64, "bos_token_id": 0, "eos_token_id": 1}
    tensors = write_llava_1_6(source, **changes, conversation_template="smollm2", torch_dtype="bfloat16")
    file = install_words(site, source, tensors)
    folder.mkdir()
    for name in ("config.json", "generation_config.json"):
        (folder / name).write_bytes((source / name).read_bytes())
    save_file({name: each for name, each in tensors.items() if name.startswith(OWN[:2])}, folder / "own.safetensors")
    save_file({"image_newline": tensors["model.image_newline"]}, folder / "rest.safetensors")
    part = {
        "name": "Words",
        "becomes": "language model",
        "package": PACKAGE,
        "version": VERSION,
        "licence": "Apache-2.0",
        "file": "tiny_words/words.gguf",
        "num_bytes": file.stat().st_size,
        "sha256": digest(file),
        "wheel_bytes": 12_000_000,
        "wheel_sha256": "0" * 64,
    }
    (folder / PARTS).write_text(
        json.dumps({"parts": [part], "own": [{"file": "rest.safetensors", "prefix": "model."}]})
    )
    pin_own(folder)
    return tensors


def use(folder: Path, site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``folder`` the package's talking model, and installs nothing but what is in ``site``."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("LLAVA_CACHE", str(cache))
    monkeypatch.delenv("LLAVA_DEFAULT_MODEL")
    places = {"talking_model": folder}
    monkeypatch.setattr("llava.model.default_choice._find_folder", lambda name: places.get(name, folder / name))
