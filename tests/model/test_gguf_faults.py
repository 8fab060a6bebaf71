"""A GGUF file that is damaged, cut, of another kind or incomplete is refused with the reason and the next step."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from llava.cli import main
from llava.errors import CheckpointError
from llava.model.checkpoint_reader import open_checkpoint
from llava.model.gguf.block_formats import BLOCK_FORMATS
from llava.model.gguf.gguf_file import GgufFile
from llava.model.gguf.gguf_folder import find_model
from tests import tiny_gguf, tiny_tokenizers
from tests.tiny_checkpoints import Tensors, decoder_shapes, projector_shapes, random_tensors, tower_shapes
from tests.tiny_configs import CONFIG, NEXT

SETTINGS: dict[str, Any] = {**CONFIG, **NEXT, "vocab_size": 460}
PIECES = tiny_gguf.describe_pieces(tiny_tokenizers.train_sentencepiece())


def make_tensors() -> Tensors:
    inside = tower_shapes("model.vision_tower.vision_tower.vision_model.")
    return random_tensors(decoder_shapes(SETTINGS) | projector_shapes(SETTINGS) | inside)


def write_pair(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    tensors = make_tensors()
    tiny_gguf.write_model(folder / "llava.gguf", tensors, SETTINGS, PIECES)
    tiny_gguf.write_mmproj(folder / "mmproj.gguf", tensors, is_next=changes.pop("is_next", True), **changes)
    return folder / "llava.gguf"


def read_all(model: Path) -> None:
    opened = open_checkpoint(model)
    opened.load_tokenizer()
    opened.load_processor()
    for _ in opened.stream():
        pass


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"without": "model.image_newline"}, "lacks the tensor model.image_newline"),
        ({"without": "clip.vision.image_grid_pinpoints"}, "lacks the metadata clip.vision.image_grid_pinpoints"),
        ({"without": "clip.vision.mm_patch_merge_type"}, "lacks the metadata clip.vision.mm_patch_merge_type"),
        ({"without": "clip.vision.image_mean"}, "lacks the metadata clip.vision.image_mean"),
        ({"without": "clip.vision.block_count"}, "lacks the metadata clip.vision.block_count"),
        ({"without": "v.class_embd"}, "lacks the tensor v.class_embd"),
        ({"without": "v.pre_ln.bias"}, "1 tensors are missing: .*pre_layrnorm.bias"),
        ({"without": "v.blk.1.ln2.weight"}, "1 tensors are missing: .*layers.1.layer_norm2.weight"),
        ({"without": "mm.2.weight"}, "'mlp' with the layers 0; LLaVA-1.5's and 1.6's is 'mlp' with mm.0 and mm.2"),
        ({"projector_type": "ldp"}, "a projector of the type 'ldp'"),
        ({"image_grid_pinpoints": [28, 56, 56]}, "an odd number of clip.vision.image_grid_pinpoints"),
        ({"image_mean": [0.5]}, "1 values of clip.vision.image_mean, where 3 are needed"),
        ({"block_count": 4}, "tensors are missing"),
        ({"embedding_length": 24}, "the shape"),
        ({"patch_size": 0}, "patch_size"),
        ({"image_size": "x"}, "image_size: 'x', where an integer is needed"),
        ({"attention.head_count": True}, ""),
    ],
)
def test_what_the_mmproj_lacks_or_says_wrongly_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    model = write_pair(tmp_path / "pair", **changes)
    if words:
        with pytest.raises(CheckpointError, match=words):
            read_all(model)
    else:
        read_all(model)


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None], arch: str = "") -> None:
    """Writes a file again after ``change`` was made to its metadata and tensors, which are float32 then."""
    file = GgufFile(path)
    metadata = dict(file.metadata)
    tensors = {name: file.read(name).float().numpy().copy() for name in file.tensors}
    change(metadata, tensors)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), arch or metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture":
            tiny_gguf.add_value(writer, key, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    tiny_gguf.finish(writer)
    path.with_suffix(".new").replace(path)


def rename_q(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.attn_query.weight"] = tensors.pop("blk.0.attn_q.weight")


def turn_down(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.1.ffn_down.weight"] = np.ascontiguousarray(tensors["blk.1.ffn_down.weight"].T)


def cut_k(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.attn_k.weight"] = tensors["blk.0.attn_k.weight"][:6].copy()


def add_frequencies(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["rope_freqs.weight"] = np.ones(4, np.float32)


def empty_norm(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["output_norm.weight"] = np.zeros(0, np.float32)


def spoil(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
    tensors["blk.0.ffn_up.weight"][0, 0] = np.nan


def say(key: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    def change(metadata: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        metadata[key] = value
        if value is None:
            del metadata[key]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            rename_q,
            "1 tensors are missing: model.layers.0.self_attn.q_proj.weight; 1 tensors are unexpected: blk.0.attn_q",
        ),
        (turn_down, r"blk.1.ffn_down.weight in .*llava.gguf has the shape \[48, 32\], but .*describes \[32, 48\]"),
        (cut_k, "blk.0.attn_k.weight in .* has 6 rows, which 2 heads cannot share"),
        (add_frequencies, "scales its rotary embeddings by a tensor, rope_freqs.weight"),
        (say("llama.block_count", None), "lacks the metadata llama.block_count"),
        (say("llama.block_count", 3), "tensors are missing"),
        (say("llama.embedding_length", "wide"), "llama.embedding_length: 'wide', where an integer is needed"),
        (say("llama.attention.head_count", 0), "num_attention_heads"),
        (say("llama.attention.sliding_window", 64), "sliding_window: 64, which no LLaVA has"),
        (say("llama.rope.dimension_count", 4), "turns only 4 of the 8 values of a head"),
        (empty_norm, r"output_norm.weight in .* is empty: its shape is \[0\]"),
        (say("llama.rope.scaling.type", "yarn"), "rope.scaling.type: 'yarn'; supported are none and linear"),
        (say("split.count", 3), "is one of 3 parts of a model, but is not called NAME-00001-of-00003.gguf"),
        (say("llava.config", "{"), "has damaged metadata llava.config"),
        (say("general.alignment", 7), ""),
    ],
)
def test_what_the_language_model_lacks_or_says_wrongly_is_named(
    tmp_path: Path, change: Callable[..., None], words: str
) -> None:
    model = write_pair(tmp_path / "pair")
    rewrite(model, change)
    if words:
        with pytest.raises(CheckpointError, match=words):
            read_all(model)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    from llava.model.checkpoint import load_model

    model = write_pair(tmp_path / "pair")
    rewrite(model, spoil)
    with pytest.raises(CheckpointError, match=r"blk.0.ffn_up.weight in .* holds NaN or infinite weights"):
        load_model(model, device="cpu")


def test_another_architecture_is_refused_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_pair(tmp_path / "pair")
    rewrite(model, lambda metadata, tensors: None, arch="gemma3")
    with pytest.raises(
        CheckpointError, match="a language model of the architecture 'gemma3'; supported are llama, qwen2"
    ):
        open_checkpoint(model)
    assert main(["info", str(model)]) == 0
    assert "architecture 'gemma3'" in capsys.readouterr().out


def header(version: int = 3, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(f"{order}IQQ", version, 0, 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header(4), "is GGUF version 4; versions 2 and 3 can be read. Update this package"),
        (header(1), "is GGUF version 1; .* Convert the model again"),
        (header(3, ">"), "is written for big-endian machines"),
        (b"GGUF", "is cut short or damaged: its header does not end within its 4 bytes"),
        (header()[:-1], "is cut short or damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "is cut short or damaged"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "is cut short or damaged"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "is cut short or damaged"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "k is of the unknown type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "an array of the type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 1 << 59), "is cut short or damaged"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 0, 1, b"t", 9), "t has 9 dimensions"),
        (b"GGUF" + struct.pack("<IQQQ1s", 3, 0, 1, 1, b"\xff"), "is not UTF-8"),
    ],
)
def test_a_header_that_cannot_be_read_is_described(
    tmp_path: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(path)
    assert main(["info", str(path)]) == 0
    assert "kind GGUF" in " ".join(capsys.readouterr().out.split())


def test_a_model_in_parts_is_the_model_in_one_file(tmp_path: Path) -> None:
    model = write_pair(tmp_path / "whole")
    folder, tensors = tmp_path / "parts", make_tensors()
    folder.mkdir()
    tiny_gguf.write_model(folder / "llava.gguf", tensors, SETTINGS, PIECES, part_tensors=9)
    tiny_gguf.write_mmproj(folder / "mmproj-llava.gguf", tensors, is_next=True)
    tiny_gguf.write_mmproj(folder / "mmproj-other.gguf", tensors, is_next=True)
    parts = sorted(folder.glob("llava-*"))
    assert parts[-1].name == f"llava-{len(parts):05}-of-{len(parts):05}.gguf"
    assert len(parts) > 2
    assert find_model(folder) == parts[0]
    whole = dict(open_checkpoint(model).stream())
    for part in parts[:2]:
        found = dict(open_checkpoint(part).stream())
        assert found.keys() == whole.keys()
        assert all(torch.equal(value, whole[name]) for name, value in found.items())

    parts[0].rename(folder / "first")
    with pytest.raises(CheckpointError, match=rf"{parts[0].name} is missing"):
        open_checkpoint(folder)
    (folder / "first").rename(parts[0])
    parts[1].rename(folder / "away")
    with pytest.raises(CheckpointError, match=rf"{parts[1].name} is missing: {parts[0].name} is one of"):
        open_checkpoint(parts[0])
    parts[1].write_bytes(parts[2].read_bytes())
    with pytest.raises(CheckpointError, match=rf"{parts[1].name} says that it is another part"):
        open_checkpoint(parts[0])
    content = (folder / "away").read_bytes()
    parts[1].write_bytes(content[: len(content) - 40])
    with pytest.raises(CheckpointError, match=rf"{parts[1].name} is cut short"):
        open_checkpoint(parts[0])


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    model = write_pair(tmp_path / "pair")
    whole = {path: path.read_bytes() for path in (model, model.with_name("mmproj.gguf"))}
    draw = random.Random(5)
    for path, content in whole.items():
        for size in [1, 8, len(content) - 1, *(draw.randrange(24, len(content)) for _ in range(12))]:
            path.write_bytes(content[:size])
            with pytest.raises(CheckpointError, match=r"cut short|damaged|file|GGUF|mmproj"):
                open_checkpoint(model)
        path.write_bytes(content)
    read_all(model)


def test_any_changed_byte_of_a_header_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    model = write_pair(tmp_path / "pair")
    path = model.with_name("mmproj.gguf")
    whole = path.read_bytes()
    end = min(info.offset for info in GgufFile(path).tensors.values())
    draw = random.Random(11)
    num_refused = 0
    for _ in range(120):
        content = bytearray(whole)
        at = draw.randrange(4, end)
        content[at] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        with contextlib.suppress(CheckpointError):
            open_checkpoint(model)
            num_refused -= 1
        num_refused += 1
    assert num_refused > 60


def test_a_folder_with_several_models_or_several_mmprojs_asks_which(tmp_path: Path) -> None:
    model = write_pair(tmp_path / "pair")
    assert find_model(tmp_path / "pair") == model
    model.with_name("mmproj-other.gguf").write_bytes(model.with_name("mmproj.gguf").read_bytes())
    with pytest.raises(CheckpointError, match=r"several mmproj files beside .*--mmproj"):
        open_checkpoint(model)
    own = model.with_name("llava-Q4_0.gguf")
    model.rename(own)
    model.with_name("mmproj.gguf").rename(model.with_name("mmproj-llava-f16.gguf"))
    assert open_checkpoint(own).spec.tiling.is_anyres  # the name says which
    own.with_name("second.gguf").write_bytes(own.read_bytes())
    with pytest.raises(CheckpointError, match=r"several GGUF files \(llava-Q4_0.gguf, second.gguf\)"):
        open_checkpoint(tmp_path / "pair")


def test_the_mmproj_alone_is_told_from_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_pair(tmp_path / "pair")
    eyes = model.with_name("mmproj.gguf")
    with pytest.raises(CheckpointError, match=r"is the vision half \(mmproj\) of a model"):
        open_checkpoint(eyes)
    assert main(["info", str(eyes)]) == 0
    assert "Name the language model's file" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="is not an mmproj: its architecture is 'llama'"):
        open_checkpoint(model, vision_tower=model)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = write_pair(tmp_path / "pair")
    monkeypatch.delitem(BLOCK_FORMATS, 1)  # float16
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"pip install 'llava\[gguf\]'"):
        open_checkpoint(model)
