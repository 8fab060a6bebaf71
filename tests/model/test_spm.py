"""A bare ``tokenizer.model`` gives the ids of the sentencepiece library, however it is loaded and rewritten."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import conv_templates
from llava.errors import CheckpointError
from llava.model.checkpoint import load_model
from llava.model.companions import load_tokenizer, save_tokenizer
from llava.model.conversion import convert
from llava.prompt import render, tokenizer_image_token
from tests import tiny_tokenizers
from tests.tiny_checkpoints import write_llava_1_6
from tests.tiny_configs import write_json

CODE = [
    "def f(x):\n    if x:\n        return [i for i in x]\n\telse:\n            return 0",
    "USER:  <image> what  is   written    here? ASSISTANT:",
    "| a   | b      |\n|-----|--------|\n| 1.5 | 123456 |",
    "banana ananas ababababa aaaaaaaaaaa bbbb abba",
    "naïve café, 日本語のテキスト, Привет, 😀 👩‍👩‍👧 e\u0301 \u200b\u00a0 x",
]
ATOMS = [
    *"ab 1.,\n\t\rée日😀\u0301\u200b\u00a0\u2581\x00<>[]",
    *(" " * n for n in (2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33)),
    *("def", "return", "banana", "abab", "<0x41>", "<unk>", "USER:", "ASSISTANT:", "<image>", "日本", "\r\n", "▁▁"),
]


@dataclass(frozen=True)
class Kind:
    """How a model is trained, and what its folder says about it."""

    trained: dict[str, Any]
    legacy: bool
    has_loose_blanks: bool = True
    """Whether pieces made of blanks have the score -1e9, as in Llama's and Mistral's."""
    add_prefix_space: bool | None = None


KINDS = {
    "vicuna": Kind({}, legacy=False),
    "mistral": Kind({}, legacy=True),
    "yi": Kind({"add_dummy_prefix": False}, legacy=True),
    "no prefix by settings": Kind({}, legacy=False, add_prefix_space=False),
    "scores of blanks as trained": Kind({}, legacy=True, has_loose_blanks=False),
    "pairs of blanks alone": Kind({"max_sentencepiece_length": 2}, legacy=True),
    "no pieces of blanks": Kind({"allow_whitespace_only_pieces": False}, legacy=True),
    "no bytes": Kind({"byte_fallback": False, "vocab_size": 160, "character_coverage": 0.98}, legacy=True),
    "symbols": Kind(
        {"user_defined_symbols": ["abab", "<sep>", "▁▁▁", "<|im_start|>"], "control_symbols": ["<ctl>"]}, legacy=True
    ),
    "symbols without prefix": Kind(
        {"user_defined_symbols": ["abab", "<sep>"], "control_symbols": ["<ctl>"], "add_dummy_prefix": False},
        legacy=True,
    ),
    "blanks removed": Kind({"remove_extra_whitespaces": True}, legacy=True),
    "ids in another order": Kind({"unk_id": 3, "bos_id": 1, "eos_id": 0, "pad_id": 2}, legacy=True),
}
SPECIAL = re.compile("(<s>|</s>|<unk>)")


def train(**changes: Any) -> bytes:
    model = io.BytesIO()
    settings = {
        "vocab_size": 470,
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        "character_coverage": 1.0,
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": -1,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    lines = [*(line for text in CODE for line in text.split("\n")), *(" " * n + "x" for n in range(1, 40))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 10), model_writer=model, **{**settings, **changes}
    )
    return model.getvalue()


def loosen_blanks(model: bytes) -> bytes:
    """What Llama's vocabulary has: pieces of blanks alone merge last, and all are equal."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    for piece in proto.pieces:
        if len(piece.piece) > 1 and set(piece.piece) == {"▁"} and piece.type == piece.NORMAL:
            piece.score = -1e9
    return proto.SerializeToString()


def make_original(model: bytes, kind: Kind) -> Callable[[str], list[int]]:
    """What the original's tokenizer makes of a text: sentencepiece's ids of each stretch between special tokens.

    Source: huggingface/transformers@v4.37.2 models/llama/tokenization_llama.py, LlamaTokenizer with use_fast=False.
    """
    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    if not kind.legacy:
        proto.normalizer_spec.add_dummy_prefix = False
    reader = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())

    def encode(text: str) -> list[int]:
        has_prefix = not kind.legacy and bool(text) and kind.add_prefix_space is not False
        if has_prefix:
            text = "▁" + text.replace("▁", " ")
        parts = [part for part in SPECIAL.split(text) if part]
        if has_prefix and len(parts) > 1 and parts[0] == "▁" and SPECIAL.fullmatch(parts[1]):
            del parts[0]
        ids = [1]
        for part in parts:
            ids += [reader.piece_to_id(part)] if SPECIAL.fullmatch(part) else reader.encode(part)
        return ids

    return encode


def make_texts(seed: int, num_texts: int) -> list[str]:
    draw = random.Random(seed)
    texts = ["", " ", "  ", "\n", " Hello", "  with", "</s>USER: a", "a</s> b</s>  c", "<s>a", " <s>a", *CODE]
    for _ in range(num_texts):
        atoms = ATOMS if draw.random() < 0.7 else [*"ab ", "<sep>", "<ctl>", "</s>", "▁"]
        text = "".join(draw.choice(atoms) for _ in range(draw.randrange(1, 30)))
        foreign = chr(draw.choice([draw.randrange(1, 0xD800), draw.randrange(0xE000, 0x110000)]))
        texts.append(text if draw.random() < 0.7 else text.replace("1", foreign))
    return texts


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Kind]:
    kind = KINDS[request.param]
    model = train(**kind.trained)
    if kind.has_loose_blanks:
        model = loosen_blanks(model)
    folder = tmp_path_factory.mktemp("bare")
    (folder / "tokenizer.model").write_bytes(model)
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": kind.legacy, "add_bos_token": True}
    if kind.add_prefix_space is not None:
        settings["add_prefix_space"] = kind.add_prefix_space
    write_json(folder / "tokenizer_config.json", settings)
    return folder, model, kind


def test_the_tokenizer_itself_gives_the_ids_of_sentencepiece(made: tuple[Path, bytes, Kind]) -> None:
    folder, model, kind = made
    tokenizer, original = load_tokenizer(folder), make_original(model, kind)
    for text in make_texts(0, 1500):
        assert tokenizer(text).input_ids == original(text), repr(text)
    assert tokenizer.is_fast
    assert tokenizer.legacy == kind.legacy


def test_what_is_saved_gives_them_too(made: tuple[Path, bytes, Kind], tmp_path: Path) -> None:
    folder, model, kind = made
    save_tokenizer(load_tokenizer(folder), tmp_path)
    original = make_original(model, kind)
    again, bare = load_tokenizer(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer.model").write_bytes(model)
    both = load_tokenizer(tmp_path)
    copied = pickle.loads(pickle.dumps(again))
    for text in make_texts(1, 200):
        ids = original(text)
        assert bare.encode(text).ids == ids, repr(text)
        for tokenizer in (again, both, copied):
            assert tokenizer(text).input_ids == ids, repr(text)
    assert again.legacy == both.legacy == kind.legacy


def test_prompts_with_images_are_the_ids_of_their_stretches(made: tuple[Path, bytes, Kind]) -> None:
    folder, model, kind = made
    tokenizer, original = load_tokenizer(folder), make_original(model, kind)
    for first, second in zip(make_texts(2, 200), make_texts(3, 200), strict=True):
        text = first.replace("<image>", "") + "<image>" + second.replace("<image>", "")
        before, after = (original(stretch) for stretch in text.split("<image>"))
        expected = [*before, IMAGE_TOKEN_INDEX, *after[1:]]
        assert tokenizer_image_token(text, tokenizer) == expected, repr(text)


def test_render_gives_them_with_and_without_labels(made: tuple[Path, bytes, Kind]) -> None:
    folder, model, kind = made
    if kind.trained.get("remove_extra_whitespaces"):
        pytest.skip("an answer of blanks leaves no token to learn")
    tokenizer, original = load_tokenizer(folder), make_original(model, kind)
    for typed in make_texts(4, 100):
        typed = typed.replace("<image>", "").replace("\x00", "")
        conversation = conv_templates["vicuna_v1"].copy()
        conversation.append_message(conversation.roles[0], "<image>" + typed)
        conversation.append_message(conversation.roles[1], "a" + typed)
        before, after = (original(stretch) for stretch in conversation.get_prompt().split("<image>"))
        expected = (*before, IMAGE_TOKEN_INDEX, *after[1:])
        for supervise in (False, True):
            prompt = render(conversation, tokenizer, [4], limit_tokens=None, supervise=supervise)
            assert prompt.input_ids == expected, repr(typed)


def test_decoding_gives_the_text_back(made: tuple[Path, bytes, Kind]) -> None:
    folder, _, kind = made
    if kind.trained.get("remove_extra_whitespaces") or not kind.trained.get("byte_fallback", True):
        pytest.skip("sentencepiece itself loses blanks or characters")
    tokenizer = load_tokenizer(folder)
    for text in make_texts(5, 300):
        if SPECIAL.search(text) or "▁" in text:
            continue
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("layout", ["hf", "original"])
def test_convert_writes_them_into_tokenizer_json(tmp_path: Path, legacy: bool, layout: str) -> None:
    kind = Kind({}, legacy=legacy)
    model = loosen_blanks(train())
    write_llava_1_6(tmp_path / "a", vocab_size=480)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "a" / name).unlink()
    (tmp_path / "a/tokenizer.model").write_bytes(model)
    write_json(tmp_path / "a/tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": legacy})
    convert(tmp_path / "a", tmp_path / "b", layout)
    original = make_original(model, kind)
    bare = Tokenizer.from_file(str(tmp_path / "b/tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(tmp_path / "b")
    ours = load_model(tmp_path / "b", device="cpu").tokenizer
    merges = [tuple(merge) for merge in json.loads((tmp_path / "b/tokenizer.json").read_text())["model"]["merges"]]
    assert ("▁", "▁") in merges[-60:]  # blanks merge last
    image = ours.convert_tokens_to_ids("<image>")
    for first, second in zip(make_texts(7, 100), make_texts(8, 100), strict=True):
        if layout == "hf":
            before, after = (text.replace("<image>", "") for text in (first, second))
            ids = [*original(before), image, *original(after)[1:]]
            assert auto(before + "<image>" + after).input_ids == ids, repr((before, after))
    for text in make_texts(6, 200):
        text = text.replace("<image>", "")
        ids = original(text)
        assert ours(text).input_ids == ids, repr(text)
        assert bare.encode(text).ids == ids, repr(text)
        if layout == "hf" or not re.search("(^|</?s>|<unk>)[ ▁]", text):
            # Transformers' own class swallows a blank at a beginning, and the original's layout has to name that class.
            assert auto(text).input_ids == ids, repr(text)


@pytest.mark.parametrize(("model", "said"), [(b"no model", "not a SentencePiece"), (b"", "holds no pieces")])
def test_a_damaged_model_is_refused_unless_there_is_a_tokenizer_json(tmp_path: Path, model: bytes, said: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model)
    with pytest.raises(CheckpointError, match=said):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(train())
    save_tokenizer(load_tokenizer(tmp_path), tmp_path)
    expected = load_tokenizer(tmp_path)("  a").input_ids
    (tmp_path / "tokenizer.model").write_bytes(model)
    assert load_tokenizer(tmp_path)("  a").input_ids == expected


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train(model_type="unigram", vocab_size=400))
    with pytest.raises(CheckpointError, match="kind unigram"):
        load_tokenizer(tmp_path)


def test_a_model_that_has_blanks_behind_words_is_refused_and_not_read_wrong(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train(treat_whitespace_as_suffix=True))
    with pytest.raises(CheckpointError, match="treat_whitespace_as_suffix"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["a\r\nb", "USER:\r\n\r\n  return", "\r\n", "a \r\n"])
def test_line_ends_of_windows_are_two_blanks_where_a_model_normalizes_them(tmp_path: Path, text: str) -> None:
    model = train(normalization_rule_name="nmt_nfkc")
    (tmp_path / "tokenizer.model").write_bytes(model)
    assert load_tokenizer(tmp_path)(text).input_ids == make_original(model, Kind({}, legacy=True))(text)


def test_a_folder_of_llama_3_that_names_llamas_class_keeps_its_own_kind(tmp_path: Path) -> None:
    tiny_tokenizers.byte_level(tiny_tokenizers.LLAMA_3_MARKS, bos="<|begin_of_text|>").save_pretrained(tmp_path)
    expected = load_tokenizer(tmp_path)("  a cat").input_ids
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    write_json(tmp_path / "tokenizer_config.json", {**settings, "tokenizer_class": "LlamaTokenizer"})
    assert load_tokenizer(tmp_path)("  a cat").input_ids == expected


def test_tokens_that_are_added_later_part_a_text_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train())
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.add_tokens(["<new>"])
    new = tokenizer.convert_tokens_to_ids("<new>")
    assert tokenizer("a<new> b").input_ids == [*tokenizer("a").input_ids, new, *tokenizer(" b").input_ids[1:]]
