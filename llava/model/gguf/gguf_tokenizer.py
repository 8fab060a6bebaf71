"""Writes the tokenizer's files that a GGUF's metadata describes, as ``load_tokenizer`` reads them from a folder.

    tokenizer.ggml.model "llama"    SentencePiece's pieces with scores        tokenizer.model
    tokenizer.ggml.model "gpt2"     a byte-level BPE and its pre-tokenizer    tokenizer.json

llama.cpp puts SentencePiece's dummy prefix before every stretch of text between special tokens, which Transformers 4
calls legacy. A tokenizer without that says so in ``llava.tokenizer.legacy``, which ``llava convert`` writes.

Tokens with the score -1000 were added to SentencePiece's: llama.cpp's converter gives them that score.

Source: ggml-org/llama.cpp as in llama-cpp-python 0.3.36: src/llama-vocab.cpp; conversion/base.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from llava.model.gguf.gguf_file import GgufFault, Header

LEGACY = "llava.tokenizer.legacy"
ADDED_SCORE = -1000.0
# The types of tokens, the same as SentencePiece's.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class PreTokenizer:
    """How a byte-level BPE splits a text first. Without ``pattern`` as GPT-2 does."""

    pattern: str | None = None
    splits_digits: bool = False
    ignores_merges: bool = False
    normalizes: bool = False  # to NFC

    def build(self) -> pre_tokenizers.PreTokenizer:
        """The ``tokenizers`` library's steps."""
        steps: list[pre_tokenizers.PreTokenizer]
        if self.pattern is None:
            steps = [pre_tokenizers.Digits(individual_digits=True)] if self.splits_digits else []
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
        else:
            split = pre_tokenizers.Split(Regex(self.pattern), behavior="isolated", invert=False)
            steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)]
        return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


_LLAMA_3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN_2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer(),
    "llama-bpe": PreTokenizer(_LLAMA_3, ignores_merges=True),
    "smaug-bpe": PreTokenizer(_LLAMA_3),
    "qwen2": PreTokenizer(_QWEN_2, normalizes=True),
    "smollm": PreTokenizer(splits_digits=True),
}
_ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "dbrx": "smaug-bpe", "deepseek-r1-qwen": "qwen2"}


def write_tokenizer(text: Header, folder: Path) -> None:
    """Writes the tokenizer that the metadata describes into ``folder``. Raises GgufFault."""
    tokens = text.get_array("tokenizer.ggml.tokens", str)
    if not tokens:
        raise GgufFault(
            f"{text.path} has no tokenizer (tokenizer.ggml.tokens).", "Convert the model again, with its vocabulary."
        )
    kind = text.need("tokenizer.ggml.model", str)
    kinds = text.get_array("tokenizer.ggml.token_type", int, size=len(tokens)) or [NORMAL] * len(tokens)
    if kind not in ("llama", "gpt2"):
        raise GgufFault(
            f"{text.path} has a tokenizer of the kind {kind!r:.60}; supported are llama (SentencePiece) and gpt2.",
            "llama.cpp itself runs such models.",
        )
    named = {text.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "unknown", "padding")}
    size = len(tokens)
    while size > 1 and kinds[size - 1] == UNUSED and size - 1 not in named:  # rows of the embeddings without a token
        size -= 1
    tokens = tokens[:size]
    settings = _read_settings(text, tokens)
    try:
        if kind == "llama":
            _write_pieces(text, tokens, kinds, settings, folder)
        else:
            _write_bpe(text, tokens, kinds, settings, folder)
    except GgufFault:
        raise
    except Exception as error:  # protobuf and the tokenizers library raise any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GgufFault(
            f"The tokenizer in {text.path} cannot be used ({reason:.200}).", "Copy or download the file again."
        ) from error


def _read_settings(text: Header, tokens: list[str]) -> dict[str, Any]:
    """The values of tokenizer_config.json that both kinds have."""
    settings: dict[str, Any] = {"clean_up_tokenization_spaces": False, "padding_side": "right"}
    for name, ours in (("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")):
        number = text.get(f"tokenizer.ggml.{name}_token_id", int)
        if number is None:
            continue
        if not 0 <= number < len(tokens):
            raise GgufFault(
                f"{text.path} says tokenizer.ggml.{name}_token_id: {number}, but has {len(tokens)} tokens.",
                "Copy or download the file again.",
            )
        settings[f"{ours}_token"] = tokens[number]
    return settings


def _find_added(text: Header, tokens: list[str], kinds: list[int], settings: dict[str, Any]) -> Iterator[int]:
    """The ids of the tokens of a SentencePiece model that are found in a text before it is cut into pieces."""
    scores = text.get_array("tokenizer.ggml.scores", float) or []
    named = set(settings.values()) | {None}
    for i, token in enumerate(tokens):
        is_added = i < len(scores) and scores[i] == ADDED_SCORE and kinds[i] in (CONTROL, USER_DEFINED)
        if is_added or (token in named and kinds[i] in (CONTROL, UNKNOWN)):
            yield i


def _write_pieces(text: Header, tokens: list[str], kinds: list[int], settings: dict[str, Any], folder: Path) -> None:
    from sentencepiece import sentencepiece_model_pb2

    scores = text.get_array("tokenizer.ggml.scores", float)
    if scores is None or len(scores) < len(tokens):
        raise GgufFault(
            f"{text.path} has no score for each of its tokens (tokenizer.ggml.scores), which decide how a text is "
            "cut into pieces.",
            "Convert the model again.",
        )
    added = set(_find_added(text, tokens, kinds, settings))
    unknown = text.get("tokenizer.ggml.unknown_token_id", int, kinds.index(UNKNOWN) if UNKNOWN in kinds else 0)
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for i, token in enumerate(tokens):
        kind = UNKNOWN if i == unknown else CONTROL if i in added or kinds[i] == UNKNOWN else kinds[i]
        if not token or kind not in range(NORMAL, BYTE + 1):
            raise GgufFault(f"{text.path} has a token {i} that is {token!r:.40} of the type {kind}.", "Copy it again.")
        proto.pieces.add(piece=token, score=scores[i], type=kind)
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    proto.trainer_spec.vocab_size = len(tokens)
    proto.trainer_spec.byte_fallback = BYTE in kinds
    proto.trainer_spec.unk_id = unknown
    proto.trainer_spec.bos_id = text.get("tokenizer.ggml.bos_token_id", int, -1)
    proto.trainer_spec.eos_id = text.get("tokenizer.ggml.eos_token_id", int, -1)
    proto.trainer_spec.pad_id = text.get("tokenizer.ggml.padding_token_id", int, -1)
    adds_prefix = text.get("tokenizer.ggml.add_space_prefix", bool, True)
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = adds_prefix
    proto.normalizer_spec.remove_extra_whitespaces = text.get("tokenizer.ggml.remove_extra_whitespaces", bool, False)
    proto.normalizer_spec.escape_whitespaces = True
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    _write_settings(
        folder,
        {
            **settings,
            "tokenizer_class": "LlamaTokenizer",
            "legacy": text.get(LEGACY, bool, True),
            "add_bos_token": text.get("tokenizer.ggml.add_bos_token", bool, True),
            "add_eos_token": text.get("tokenizer.ggml.add_eos_token", bool, False),
            "added_tokens_decoder": {
                str(i): _describe_added(tokens[i], kinds[i] != USER_DEFINED) for i in sorted(added)
            },
        },
    )


def _describe_added(token: str, is_special: bool) -> dict[str, Any]:
    whole = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    return {"content": token, **whole, "special": is_special}


def _find_pre_tokenizer(text: Header) -> PreTokenizer:
    said = text.get("tokenizer.ggml.pre", str)
    if said is None:
        raise GgufFault(
            f"{text.path} does not say how its tokenizer splits a text (tokenizer.ggml.pre): it was made before May "
            "2024, and llama.cpp gives poor answers with it as well.",
            "Convert the model again, or use a newer file.",
        )
    found = PRE_TOKENIZERS.get(_ALIASES.get(said, said))
    if found is None:
        raise GgufFault(
            f"{text.path} has the pre-tokenizer {said!r:.60}; supported are {', '.join([*PRE_TOKENIZERS, *_ALIASES])}.",
            "llama.cpp itself runs such models.",
        )
    return found


def _write_bpe(text: Header, tokens: list[str], kinds: list[int], settings: dict[str, Any], folder: Path) -> None:
    pre = _find_pre_tokenizer(text)
    merges = text.get_array("tokenizer.ggml.merges", str)
    if merges is None:
        raise GgufFault(f"{text.path} has no tokenizer.ggml.merges.", "Convert the model again.")
    added = [i for i in range(len(tokens)) if kinds[i] in (CONTROL, USER_DEFINED)]
    # Added tokens at the end stay out of the model's vocabulary, as their tokenizer.json has them.
    is_tail = added == list(range(len(tokens) - len(added), len(tokens)))
    own = tokens[: len(tokens) - len(added)] if is_tail else tokens
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        pairs.append((left, right))
    model = models.BPE(
        vocab={token: i for i, token in enumerate(own)},
        merges=pairs,
        ignore_merges=pre.ignores_merges,
        byte_fallback=False,
    )
    tokenizer = Tokenizer(model)
    if pre.normalizes:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.build()
    tokenizer.decoder = decoders.ByteLevel()
    for i in added:
        token = AddedToken(tokens[i], normalized=False, special=kinds[i] == CONTROL)
        (tokenizer.add_special_tokens if kinds[i] == CONTROL else tokenizer.add_tokens)([token])
    wrong = next((i for i, token in enumerate(tokens) if tokenizer.token_to_id(token) != i), None)
    if wrong is not None:
        raise GgufFault(f"{text.path} has the token {tokens[wrong]!r:.40} twice.", "Copy or download it again.")
    steps: list[Any] = [processors.ByteLevel(trim_offsets=False)]
    bos = settings.get("bos_token")
    if bos is not None and text.get("tokenizer.ggml.add_bos_token", bool, pre.ignores_merges):
        ids = [(bos, tokenizer.token_to_id(bos))]
        steps.append(processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=ids))
    tokenizer.post_processor = processors.Sequence(steps)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    _write_settings(folder, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})


def _write_settings(folder: Path, settings: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
