"""A tokenizer with ``<image>`` in it gives the ids of a prompt cut at its images, and can be taken back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llava.model.vocabulary import (
    add_image_tokens,
    count_original_rows,
    count_rows,
    count_tokens,
    drop_image_tokens,
    resize_rows,
)
from llava.prompt import tokenizer_image_token
from tests import tiny_tokenizers

KINDS = ("llama", "llama legacy", "llama without BOS", "llama-3", "qwen", "words")
PIECES = ["<image>", "\n", " ", "  ", "What", "cat", "USER:", "</s>", "<s>", "<|im_end|>", "é", ".", "▁"]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, model = tmp_path_factory.mktemp("tokenizers"), tiny_tokenizers.train_sentencepiece()
    made = {
        "llama": tiny_tokenizers.llama_like(folder / "a", model, legacy=False),
        "llama legacy": tiny_tokenizers.llama_like(folder / "b", model, legacy=True),
        "llama without BOS": tiny_tokenizers.llama_like(folder / "c", model, legacy=False, add_bos=False),
        "llama-3": tiny_tokenizers.byte_level(tiny_tokenizers.LLAMA_3_MARKS, bos="<|begin_of_text|>"),
        "qwen": tiny_tokenizers.byte_level(tiny_tokenizers.MARKS),
        "words": tiny_tokenizers.words_and_letters("What is in the image"),
    }
    added = {kind: add_image_tokens(tokenizer) for kind, tokenizer in made.items()}
    return {kind: (made[kind], added[kind]) for kind in made}


@pytest.mark.parametrize("kind", KINDS)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=8))
def test_any_text_gets_the_ids_of_the_cut_prompt(tokenizers: dict[str, Any], kind: str, pieces: list[str]) -> None:
    plain, with_images = tokenizers[kind]
    image_id = with_images.convert_tokens_to_ids("<image>")
    text = "".join(["A", *pieces])  # a blank at the very beginning, which no prompt has, is swallowed
    # After a token of its own, Transformers' legacy tokenizer swallows a blank that sentencepiece, and so ours, keeps.
    assume(kind != "llama legacy" or not re.search("</?s>[ ▁]", text))
    assert with_images(text).input_ids == tokenizer_image_token(text, plain, image_id)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_may_take_many_places(tokenizers: dict[str, Any], kind: str) -> None:
    plain, with_images = tokenizers[kind]
    image_id = with_images.convert_tokens_to_ids("<image>")
    text = "USER: <image>\nWhat? ASSISTANT:"
    once = tokenizer_image_token(text, plain, image_id)
    place = once.index(image_id)
    expected = [*once[:place], *[image_id] * 576, *once[place + 1 :]]
    assert with_images(text.replace("<image>", "<image>" * 576)).input_ids == expected


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_again_the_tokenizer_is_what_it_was(tmp_path: Path, tokenizers: dict[str, Any], kind: str) -> None:
    plain, with_images = tokenizers[kind]
    with_images.save_pretrained(tmp_path)
    read = AutoTokenizer.from_pretrained(tmp_path)
    again = drop_image_tokens(read)
    assert json.loads(again.backend_tokenizer.to_str()) == json.loads(plain.backend_tokenizer.to_str())
    assert (again.bos_token_id, again.eos_token_id) == (plain.bos_token_id, plain.eos_token_id)
    assert read.padding_side == "left"
    assert read.decode(read("<image>cat<pad>").input_ids, skip_special_tokens=True).strip() == "cat"


def test_a_pad_token_of_its_own_is_kept_and_one_with_a_meaning_is_not() -> None:
    tokenizer = tiny_tokenizers.byte_level(tiny_tokenizers.MARKS)
    tokenizer.pad_token = "<|end|>"  # also the end of an answer
    added = add_image_tokens(tokenizer)
    assert (added.pad_token, count_tokens(added)) == ("<pad>", count_tokens(tokenizer) + 2)
    tokenizer.pad_token = "<|im_start|>"
    added = add_image_tokens(tokenizer)
    assert (added.pad_token, count_tokens(added)) == ("<|im_start|>", count_tokens(tokenizer) + 1)


@pytest.mark.parametrize(
    ("num_tokens", "num_rows", "expected"),
    [(32002, 32000, 32064), (64, 10, 64), (65, 64, 128), (151647, 152064, 152064)],
)
def test_rows_grow_to_multiples_of_64_and_only_if_they_have_to(num_tokens: int, num_rows: int, expected: int) -> None:
    assert count_rows(num_tokens, num_rows) == expected


@pytest.mark.parametrize(
    ("more_rows", "remembered", "expected"),
    [(2, None, 0), (None, None, 0), (500, None, 500), (500, 100, 100), (500, -20, 0), (500, 9999, 500)],
)
def test_the_rows_of_the_original_are_found(more_rows: int | None, remembered: int | None, expected: int) -> None:
    tokenizer = tiny_tokenizers.words_and_letters("What")
    num_tokens = count_tokens(tokenizer)
    num_rows = count_rows(num_tokens + 2, 0) if more_rows is None else num_tokens + more_rows
    known = None if remembered is None else num_tokens + remembered
    assert count_original_rows(tokenizer, num_rows, known) == num_tokens + expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_added_token_is_never_the_likeliest(dtype: torch.dtype) -> None:
    head_VC = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    grown_VC = resize_rows(head_VC, 5056)
    assert torch.equal(grown_VC[:5000], head_VC)
    assert grown_VC.dtype == dtype
    hidden_BC = torch.randn(200, 16, generator=torch.Generator().manual_seed(1))
    assert (hidden_BC @ grown_VC.float().T).argmax(-1).max() < 5000
    assert torch.equal(resize_rows(grown_VC, 5000), head_VC)
