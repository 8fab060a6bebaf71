"""An answer that is cut inside a character ends before it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.prompt import TextStream
from tests import tiny_tokenizers


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("tokenizers")
    return {
        "bytes in sentencepiece": tiny_tokenizers.llama_like(
            folder, tiny_tokenizers.train_sentencepiece(), legacy=False
        ),
        "bytes in letters": tiny_tokenizers.byte_level([]),
        "words": tiny_tokenizers.words_and_letters("a cat"),
    }


def read(tokenizer: Any, ids: list[int], *, is_cut: bool) -> str:
    stream = TextStream(tokenizer)
    return stream.feed(ids) + stream.finish(is_cut=is_cut)


@given(text=st.text(alphabet="aAt .é猫🦙\ufffd", min_size=1, max_size=12), data=st.data())
def test_a_cut_answer_is_the_whole_characters_of_its_tokens(
    tokenizers: dict[str, Any], text: str, data: st.DataObject
) -> None:
    for tokenizer in tokenizers.values():
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
        cut = ids[: data.draw(st.integers(0, len(ids)))]
        whole, said = tokenizer.decode(ids, skip_special_tokens=True), read(tokenizer, cut, is_cut=True)
        assert whole.startswith(said)
        # What is missing is less than one character: without a cut only U+FFFD came behind it.
        assert read(tokenizer, cut, is_cut=False).removeprefix(said).strip("\ufffd") == ""
        assert len(tokenizer.decode(cut, skip_special_tokens=True).rstrip("\ufffd")) <= len(said)


def test_a_replacement_character_of_the_models_own_stays(tokenizers: dict[str, Any]) -> None:
    for tokenizer in tokenizers.values():
        for text in ("a\ufffd", "\ufffd", "\ufffd\ufffd"):
            ids = list(tokenizer(text, add_special_tokens=False).input_ids)
            assert read(tokenizer, ids, is_cut=True).strip() == text
        ids = list(tokenizer("\ufffd猫", add_special_tokens=False).input_ids)
        assert read(tokenizer, ids[:-1], is_cut=True).strip() == "\ufffd"
        assert read(tokenizer, ids[:-1], is_cut=False).strip().startswith("\ufffd\ufffd")


def test_bytes_that_begin_no_character_are_not_taken_for_one_that_was_cut(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["words"]
    lone = tokenizer.convert_tokens_to_ids(["a", "<0xAC>"])
    assert read(tokenizer, lone, is_cut=True) == "a\ufffd"
    cut = tokenizer.convert_tokens_to_ids(["a", "<0xAC>", "<0xE7>", "<0x8C>"])
    assert read(tokenizer, cut, is_cut=True) == "a\ufffd"


def test_a_stop_string_that_only_began_is_said_where_an_answer_is_cut(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["words"]
    stream = TextStream(tokenizer, stop=["cats"])
    ids = [*tokenizer("a cat", add_special_tokens=False).input_ids, *tokenizer.convert_tokens_to_ids(["<0xE7>"])]
    assert stream.feed(ids) + stream.finish(is_cut=True) == "a cat"
    stream = TextStream(tokenizer, stop=["zz", "cat"])
    assert stream.feed(ids) == "a "
    assert (stream.stopped, stream.stop_text) == (True, "cat")
