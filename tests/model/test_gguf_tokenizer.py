"""A tokenizer out of a GGUF's metadata gives the ids of the one that the metadata was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llava.errors import CheckpointError, UsageError
from llava.model.companions import load_tokenizer
from llava.model.gguf.gguf_file import Header
from llava.model.gguf.gguf_tokenizer import PRE_TOKENIZERS, write_tokenizer
from llava.model.gguf.gguf_vocabulary import describe_tokenizer
from tests import tiny_gguf, tiny_tokenizers

TEXTS = [
    "",
    " ",
    "What is in the image?",
    "  leading,   inner and trailing   ",
    "line\n\nline\r\n\ttab",
    "12345 a1b2 3.14",
    "It's YOU'LL don't",
    "naïve Ünïcödé e\u0301 ﬁ \u00a0\u200b",
    "日本語 русский العربية 🙂👍🏽",
    "▁ already ▁▁marked",
    "<0x41> <unk> [PAD460]",
    "def f(x):\n    return x",
    "\x00\x7f",
]


def read(values: dict[str, Any], folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    write_tokenizer(Header(Path("x.gguf"), {f"tokenizer.{key}": value for key, value in values.items()}), folder)
    return load_tokenizer(folder)


def test_sentencepieces_own_ids_come_out_of_tokens_and_scores(tmp_path: Path) -> None:
    model = tiny_tokenizers.train_sentencepiece()
    tokenizer = read(tiny_gguf.describe_pieces(model), tmp_path / "made")
    oracle = SentencePieceProcessor(model_proto=model)
    for text in TEXTS:
        if "<unk>" not in text:  # a special token here, six characters there
            assert tokenizer(text).input_ids == [1, *oracle.encode(text)], text
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == ("<s>", "</s>", "<unk>")


def test_tokens_beyond_the_pieces_are_found_in_texts_and_spare_rows_are_not(tmp_path: Path) -> None:
    model = tiny_tokenizers.train_sentencepiece()
    values = tiny_gguf.describe_pieces(model, {"<image>": 460, "<pad>": 461})
    for kind, filler in (("tokens", "[PAD462]"), ("scores", -10000.0), ("token_type", 5)):
        values[f"ggml.{kind}"].append(filler)
    tokenizer = read(values, tmp_path / "made")
    oracle = SentencePieceProcessor(model_proto=model)
    expected = [1, *oracle.encode("See"), 460, *oracle.encode(" it"), 461]
    assert tokenizer("See<image> it<pad>").input_ids == expected
    assert "[PAD462]" not in tokenizer.get_vocab()
    assert len(tokenizer) == 462
    tokenizer = read({**values, "ggml.padding_token_id": 462}, tmp_path / "padded")
    assert (tokenizer.pad_token, len(tokenizer)) == ("[PAD462]", 463)


def test_what_is_said_of_prefix_and_bos_is_done(tmp_path: Path) -> None:
    model = tiny_tokenizers.train_sentencepiece()
    changes = {"ggml.add_space_prefix": False, "ggml.add_bos_token": False}
    tokenizer = read(tiny_gguf.describe_pieces(model, **changes), tmp_path / "made")
    oracle = SentencePieceProcessor(model_proto=model)
    first = tokenizer("the image").input_ids[0]
    assert first not in (1, oracle.encode("the image")[0])
    assert tokenizer.decode(tokenizer("the image").input_ids) == "the image"


def make_bpe(pre: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the rules that the name stands for, spelled out as in the released tokenizer.json."""
    rest = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    digits = {"llama-bpe": r"\p{N}{1,3}", "smaug-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}.get(pre)
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=digits is None)
    if digits is not None:
        pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + rest
        steps = [pre_tokenizers.Split(Regex(pattern), behavior="isolated"), byte_level]
    elif pre == "smollm":
        steps = [pre_tokenizers.Digits(individual_digits=True), byte_level]
    else:
        steps = [byte_level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if pre == "qwen2":
        from tokenizers import normalizers

        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|end|>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*tiny_tokenizers.TEXT.splitlines(), "12345 678", "\n\n  x"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_each_pre_tokenizer_splits_as_its_tokenizer_json_does(tmp_path: Path, pre: str) -> None:
    source = make_bpe(pre)
    tokenizer = read(tiny_gguf.describe_bpe(source, pre, len(source) + 3), tmp_path / "made")
    for text in [*TEXTS, "a<|im_start|>b\n<|end|>"]:
        assert tokenizer(text).input_ids == source(text).input_ids, text
    assert tokenizer.decode(tokenizer(TEXTS[8]).input_ids) == TEXTS[8]
    assert len(tokenizer) == len(source)
    # And the same name is written for it.
    assert describe_tokenizer(source, len(source), {})["tokenizer.ggml.pre"] == pre


def test_the_bos_of_a_byte_level_tokenizer_is_put_first_where_it_is_said(tmp_path: Path) -> None:
    source = tiny_tokenizers.byte_level(tiny_tokenizers.LLAMA_3_MARKS, bos="<|begin_of_text|>")
    tokenizer = read(tiny_gguf.describe_bpe(source, "gpt-2", len(source)), tmp_path / "made")
    assert tokenizer("A cat.<|eot_id|>").input_ids == source("A cat.<|eot_id|>").input_ids
    assert tokenizer("A").input_ids[0] == tokenizer.bos_token_id


def test_scores_are_made_where_there_is_no_sentencepiece_file(tmp_path: Path) -> None:
    model = tiny_tokenizers.train_sentencepiece()
    tiny_tokenizers.llama_like(tmp_path / "source", model, legacy=False)
    source = load_tokenizer(tmp_path / "source")
    source.save_pretrained(tmp_path / "json")
    (tmp_path / "json/tokenizer.model").unlink(missing_ok=True)
    alone = load_tokenizer(tmp_path / "json")
    values = describe_tokenizer(alone, 470, {})
    assert values["llava.tokenizer.legacy"] is False
    (tmp_path / "made").mkdir()
    write_tokenizer(Header(Path("x.gguf"), values), tmp_path / "made")
    tokenizer = load_tokenizer(tmp_path / "made")
    for text in TEXTS:
        assert tokenizer(text).input_ids == source(text).input_ids, text


def test_a_tokenizer_that_differs_from_the_rules_of_its_name_is_not_written() -> None:
    source = make_bpe("qwen2")
    source.backend_tokenizer.normalizer = None
    with pytest.raises(UsageError, match="this one is neither"):
        describe_tokenizer(source, len(source), {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ggml.tokens": None}, r"has no tokenizer \(tokenizer.ggml.tokens\)"),
        ({"ggml.model": "bert"}, "a tokenizer of the kind 'bert'"),
        ({"ggml.model": None}, "lacks the metadata tokenizer.ggml.model"),
        ({"ggml.scores": None}, "no score for each of its tokens"),
        ({"ggml.scores": [0.0]}, "no score for each of its tokens"),
        ({"ggml.scores": ["a"]}, "elements of the wrong type"),
        ({"ggml.token_type": [1]}, "1 values of tokenizer.ggml.token_type, where 460 are needed"),
        ({"ggml.eos_token_id": 9999}, "eos_token_id: 9999, but has 460 tokens"),
        ({"ggml.bos_token_id": "<s>"}, "bos_token_id: '<s>', where an integer is needed"),
    ],
)
def test_damaged_metadata_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    values = {**tiny_gguf.describe_pieces(tiny_tokenizers.train_sentencepiece()), **changes}
    with pytest.raises(CheckpointError, match=words):
        read({key: value for key, value in values.items() if value is not None}, tmp_path / "made")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ggml.pre": None}, r"does not say how its tokenizer splits a text \(tokenizer.ggml.pre\)"),
        ({"ggml.pre": "tekken"}, "the pre-tokenizer 'tekken'; supported are gpt-2, llama-bpe"),
        ({"ggml.merges": None}, "has no tokenizer.ggml.merges"),
        ({"ggml.merges": ["a bcdefg"]}, "The tokenizer in x.gguf cannot be used"),
    ],
)
def test_damaged_metadata_of_a_byte_level_tokenizer_is_named(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    source = make_bpe("gpt-2")
    values = {**tiny_gguf.describe_bpe(source, "gpt-2", len(source)), **changes}
    with pytest.raises(CheckpointError, match=words):
        read({key: value for key, value in values.items() if value is not None}, tmp_path / "made")
