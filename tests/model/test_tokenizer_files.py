"""A damaged tokenizer is refused by the name of the file that is damaged, the value and what to do."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava.errors import CheckpointError
from llava.model.checkpoint_reader import open_checkpoint
from llava.model.companions import load_tokenizer
from tests.tiny_checkpoints import write_llava_1_6
from tests.tiny_configs import write_json
from tests.tiny_tokenizers import MARKS, byte_level, train_sentencepiece, words_and_letters

JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def write_words(folder: Path) -> None:
    words_and_letters("What").save_pretrained(folder)


def write_pieces(folder: Path) -> None:
    """As Vicuna's folders, with every companion that such a tokenizer may have."""
    (folder / "tokenizer.model").write_bytes(train_sentencepiece())
    tokens = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    write_json(folder / "special_tokens_map.json", tokens)
    write_json(folder / "added_tokens.json", {"<extra>": 470})


def write_vocabulary(folder: Path) -> None:
    """As older folders of Qwen, with vocab.json and merges.txt."""
    byte_level(MARKS).save_pretrained(folder)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    write_json(folder / "vocab.json", model["vocab"])
    lines = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>"})


WRITERS: list[Callable[[Path], None]] = [write_words, write_pieces, write_vocabulary]


def say(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(folder)
    said = str(caught.value)
    assert not any(word in said for word in ("Error:", "Exception", "NoneType", "object has no")), said
    return said


@pytest.mark.parametrize("write", WRITERS)
def test_each_is_read_while_it_is_sound(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    assert load_tokenizer(tmp_path)("What").input_ids


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"[]", b"7", b"null", b"\0" * 20, b"[" * 100_000, b"\xef\xbb\xbf{}"]
)
def test_a_file_that_is_no_json_object_is_named_once(tmp_path: Path, content: bytes) -> None:
    write_pieces(tmp_path)
    for name in JSON_FILES:
        path = tmp_path / name
        sound = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        if name == "tokenizer_config.json" and content.startswith(b"\xef"):
            pass  # of it alone, nothing is wrong with a mark before the text
        else:
            said = say(tmp_path)
            assert said.startswith(str(path))
            assert said.count(str(path)) == 1
        path.unlink() if sound is None else path.write_bytes(sound)


@pytest.mark.parametrize(
    ("write", "name", "changes", "says"),
    [
        (write_pieces, "special_tokens_map.json", {"bos_token": -1}, "says bos_token: -1"),
        (
            write_pieces,
            "special_tokens_map.json",
            {"bos_token": {"content": "<s>", "lstrip": 1}},
            "says lstrip: 1",
        ),
        (write_pieces, "added_tokens.json", {"<extra>": ["x"]}, r"says <extra>: \['x'\], where the id of a token"),
        (write_words, "tokenizer_config.json", {"eos_token": 7}, "says eos_token: 7"),
        (write_words, "tokenizer_config.json", {"tokenizer_class": 7}, "says tokenizer_class: 7, where a name"),
        (write_vocabulary, "tokenizer_config.json", {"chat_template": ["x"]}, r"says chat_template: \['x'\]"),
        (write_words, "tokenizer.json", {"added_tokens": None}, "says added_tokens: None, where a list"),
        (
            write_words,
            "tokenizer.json",
            {"added_tokens": [{"id": [1], "content": "a"}]},
            r"says id: \[1\] of the added",
        ),
        (write_words, "tokenizer.json", {"model": None}, "cannot be read as a tokenizer"),
        (write_words, "tokenizer.json", {"post_processor": {"a": 1}}, "cannot be read as a tokenizer"),
        (write_vocabulary, "vocab.json", {"a": "x"}, "says a: 'x', where the id of a token"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(
    tmp_path: Path, write: Callable[[Path], None], name: str, changes: dict[str, Any], says: str
) -> None:
    write(tmp_path)
    values = json.loads((tmp_path / name).read_text()) if (tmp_path / name).exists() else {}
    write_json(tmp_path / name, {**values, **changes})
    with pytest.raises(CheckpointError, match=f"{name} {says}.* Copy it again, or take it from"):
        load_tokenizer(tmp_path)
    say(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 99], ids=["empty", "json", "zeros"])
def test_a_sentencepiece_model_that_is_none_is_named_with_its_folder(tmp_path: Path, content: bytes) -> None:
    write_pieces(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(content)
    assert f"{tmp_path / 'tokenizer.model'} is not a SentencePiece model" in say(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.5, None])
def test_merges_that_are_cut_short_or_missing_do_not_cut_texts_into_other_tokens(
    tmp_path: Path, kept: float | None
) -> None:
    write_vocabulary(tmp_path)
    path = tmp_path / "merges.txt"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    if kept is not None:
        path.write_text(text[: int(len(text) * kept)], encoding="utf-8")
    assert f"{path} is {'cut short' if kept else 'missing or empty'}: " in say(tmp_path)


def test_a_folder_in_the_place_of_any_of_its_files_is_not_passed_over(tmp_path: Path) -> None:
    write_pieces(tmp_path)
    for name in ("tokenizer.json", "special_tokens_map.json", "tokenizer.model"):
        path = tmp_path / name
        sound = path.read_bytes() if path.exists() else None
        path.unlink(missing_ok=True)
        path.mkdir()
        assert f"{path} is not a regular file" in say(tmp_path)
        path.rmdir()
        if sound is not None:
            path.write_bytes(sound)


def test_a_first_token_that_config_json_does_not_name_is_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_llava_1_6(tmp_path)
    values = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path / "tokenizer_config.json", {**values, "bos_token": "</s>"})
    with caplog.at_level(logging.WARNING, "llava.model"):
        open_checkpoint(tmp_path).load_tokenizer()
    assert "begins every prompt with '</s>' (2), but" in caplog.text
    assert "says bos_token_id: 1" in caplog.text
