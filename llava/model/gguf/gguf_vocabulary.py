"""A tokenizer as the metadata of a GGUF file, from which it gives the same ids when it is read back.

Llama's become SentencePiece's pieces with scores, byte-level ones tokens with merges and the name of a pre-tokenizer.
What is written is read back and compared on texts, because a name stands for rules that a tokenizer may differ from.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llava.errors import CheckpointError, UsageError
from llava.model.companions import load_tokenizer
from llava.model.gguf.gguf_file import Header
from llava.model.gguf.gguf_tokenizer import (
    ADDED_SCORE,
    BYTE,
    CONTROL,
    LEGACY,
    NORMAL,
    PRE_TOKENIZERS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    write_tokenizer,
)
from llava.model.spm import BLANK, Pieces

_UNUSED_SCORE = -10000.0
_PROBES = (
    "",
    " ",
    "What is in the image?",
    "  two  spaces,   three\n\nlines\r\n\ttab ",
    "USER: It's 12345.67 — don't YOU'LL see\u00a0it? ASSISTANT: naïve café, Ünïcödé",
    "日本語とEnglish、русский 🙂👍🏽 ﬁ e\u0301 \u200b",
    "</s>USER: a<s>b <unk> [INST] x [/INST]<|im_end|>\n<|im_start|>user",
    "def f(x):\n    return {'a': x[0] ** 2}  # 100%",
)


def describe_tokenizer(tokenizer: Any, num_rows: int, base: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata ``tokenizer.*`` of a tokenizer whose model has ``num_rows`` embeddings.

    ``base``: other metadata of the file. Raises UsageError if GGUF cannot express the tokenizer.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    values = _describe_pieces(tokenizer, state) or _describe_bpe(tokenizer, state)
    if values is None:
        raise UsageError(
            "The tokenizer cannot be written as GGUF: llama.cpp has only SentencePiece's (Llama) and byte-level ones "
            "(GPT-2, Llama 3, Qwen2), and this one is neither."
        )
    tokens, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    for i in range(len(tokens), num_rows):
        tokens.append(f"[PAD{i}]")
        kinds.append(UNUSED)
        if "tokenizer.ggml.scores" in values:
            values["tokenizer.ggml.scores"].append(_UNUSED_SCORE)
    for name, token_id in (
        ("bos", tokenizer.bos_token_id),
        ("eos", tokenizer.eos_token_id),
        ("unknown", tokenizer.unk_token_id),
        ("padding", tokenizer.pad_token_id),
    ):
        if token_id is not None:
            values[f"tokenizer.ggml.{name}_token_id"] = token_id
    values["tokenizer.ggml.add_bos_token"] = bool(tokenizer("x").input_ids[:1] == [tokenizer.bos_token_id])
    values["tokenizer.ggml.add_eos_token"] = False
    _check_same(tokenizer, {**base, **values})
    return values


def _check_same(tokenizer: Any, values: Mapping[str, Any]) -> None:
    """Raises UsageError if the tokenizer that is read from ``values`` gives other ids."""
    with tempfile.TemporaryDirectory(prefix="llava-gguf-") as folder:
        try:
            write_tokenizer(Header(Path("the new file"), values), Path(folder))
            other = load_tokenizer(Path(folder))
        except CheckpointError as error:
            raise UsageError(f"The tokenizer cannot be written as GGUF: {error}") from error
        for probe in _PROBES:
            if tokenizer(probe).input_ids != other(probe).input_ids:
                raise UsageError(
                    f"The tokenizer cannot be written as GGUF: llama.cpp's rules would cut {probe[:40]!r} into other "
                    "tokens than it does."
                )


def _start(tokens: list[str], kinds: list[int], kind: str) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
    }


def _describe_pieces(tokenizer: Any, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metadata of a SentencePiece BPE; None for any other tokenizer."""
    if state["model"].get("type") != "BPE" or "ByteLevel" in json.dumps(state.get("pre_tokenizer")):
        return None
    vocabulary = state["model"]["vocab"]
    path = Path(getattr(tokenizer, "vocab_file", None) or "")
    rows = None
    if path.name == "tokenizer.model" and path.is_file():
        pieces = Pieces(path)
        if not pieces.keeps_spaces:
            raise UsageError("The tokenizer cannot be written as GGUF: llama.cpp does not normalize texts, as it does.")
        rows = pieces.rows if pieces.vocabulary == vocabulary else None
    if rows is None:
        rows = _score_merges(vocabulary, state["model"])
    if rows is None:
        return None
    tokens, scores, kinds = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    for token in state["added_tokens"]:
        number = token["id"]
        if number == len(tokens):
            tokens.append("")
            scores.append(ADDED_SCORE)
            kinds.append(CONTROL)
        if number >= len(tokens):
            return None
        kind = CONTROL if token["special"] else USER_DEFINED
        tokens[number], scores[number] = token["content"], ADDED_SCORE
        kinds[number] = UNKNOWN if kinds[number] == UNKNOWN else kind
    values = _start(tokens, kinds, "llama")
    values["tokenizer.ggml.pre"] = "default"
    values["tokenizer.ggml.scores"] = [float(score) for score in scores]
    schemes = json.dumps([state.get("normalizer"), state.get("pre_tokenizer")])
    has_prefix = '"Prepend"' in schemes or '"prepend_scheme": "always"' in schemes
    is_first = '"prepend_scheme": "first"' in schemes
    values["tokenizer.ggml.add_space_prefix"] = has_prefix or is_first
    values["tokenizer.ggml.remove_extra_whitespaces"] = False
    values[LEGACY] = not is_first
    return values


def _score_merges(vocabulary: Mapping[str, int], model: Mapping[str, Any]) -> list[tuple[str, float, int]] | None:
    """The pieces of a tokenizer.json, with scores in the order of its merges; None if it has no bytes or no merges."""
    if not model.get("byte_fallback") or not model.get("merges") or BLANK not in vocabulary:
        return None
    rank: dict[str, int] = {}
    for i, merge in enumerate(model["merges"]):
        left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
        rank.setdefault(left + right, i)
    rows = []
    for number, (piece, i) in enumerate(sorted(vocabulary.items(), key=lambda item: item[1])):
        if i != number:
            return None
        kind = UNKNOWN if piece == model.get("unk_token") else BYTE if _is_byte(piece) else NORMAL
        score = 0.0 if kind != NORMAL else -float(rank.get(piece, len(rank) + number))
        rows.append((piece, score, kind))
    return rows


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _describe_bpe(tokenizer: Any, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The metadata of a byte-level BPE; None for any other tokenizer, or one that splits texts by unknown rules."""
    model = state["model"]
    if model.get("type") != "BPE" or "ByteLevel" not in json.dumps(state.get("pre_tokenizer")):
        return None
    pre = next((name for name, known in PRE_TOKENIZERS.items() if _is_like(state, known)), None)
    if pre is None:
        return None
    tokens: dict[int, str] = {i: token for token, i in model["vocab"].items()}
    kinds = dict.fromkeys(tokens, NORMAL)
    for token in state["added_tokens"]:
        tokens[token["id"]] = token["content"]
        kinds[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    if sorted(tokens) != list(range(len(tokens))):
        return None
    values = _start([tokens[i] for i in range(len(tokens))], [kinds[i] for i in range(len(tokens))], "gpt2")
    values["tokenizer.ggml.pre"] = pre
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    values["tokenizer.ggml.merges"] = merges
    return values


def _is_like(state: Mapping[str, Any], known: Any) -> bool:
    """Whether a tokenizer splits a text as the known pre-tokenizer does, by its patterns and switches."""
    written = json.dumps(state["pre_tokenizer"], ensure_ascii=False)
    if bool(state["model"].get("ignore_merges")) != known.ignores_merges:
        return False
    if ("NFC" in json.dumps(state.get("normalizer"))) != known.normalizes:
        return False
    if known.pattern is not None:
        return json.dumps(known.pattern, ensure_ascii=False) in written and '"use_regex": true' not in written
    return (
        '"Split"' not in written and ('"Digits"' in written) == known.splits_digits and '"use_regex": true' in written
    )
