"""Llama's tokenizer, giving the same ids as the sentencepiece library.

Published Vicunas, Mistrals and Yis have a bare ``tokenizer.model``, which the original reads with the sentencepiece
library. Transformers 5 converts it by rules that differ in four points: merges are ordered by piece id, not by score; a
leading space is dropped; a model without a dummy prefix gets one; user-defined symbols become added tokens. Here the
pieces become a BPE model of the ``tokenizers`` library with SentencePiece's merge order, after a pipeline that treats
spaces as SentencePiece does. Models that normalize (``nmt_nfkc``; no published LLaVA does) may give other ids for
sequences of combining marks.

Source: google/sentencepiece@v0.2.0 src/bpe_model.cc (Encode), src/normalizer.cc (Normalize), src/model_interface.cc
(InitializePieces); huggingface/transformers@v4.37.2 models/llama/tokenization_llama.py (tokenize, ``legacy``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

BLANK = "▁"
"""How SentencePiece writes a space inside its pieces: U+2581."""
# Where SentencePiece's dummy prefix, a space, goes: before every stretch of text between added tokens (Transformers 4
# calls this legacy), only before a stretch at the beginning of the text, or nowhere.
Prefix = Literal["always", "first", "never"]


class LlamaTokenizer(transformers.LlamaTokenizer):
    """Transformers' class, except that ``load_llama_tokenizer`` reads the ``tokenizer.model``."""

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """The constructor's arguments for the files of a folder. ``from_pretrained`` calls it."""
        if kwargs.get("tokenizer_file") is None and kwargs.get("vocab_file"):
            vocabulary = kwargs.get("vocab") or Pieces(Path(kwargs["vocab_file"])).vocabulary
            return {**kwargs, "vocab": vocabulary, "merges": []}
        return dict(super().convert_to_native_format(trust_remote_code=trust_remote_code, **kwargs))


def read_tokenizer_json(folder: Path) -> dict[str, Any] | None:
    """The values of the folder's tokenizer.json; None if there is none. Raises what ``json`` raises."""
    path = folder / "tokenizer.json"
    return json.loads(path.read_bytes()) if path.is_file() else None


def is_sentencepiece(folder: Path, written: Mapping[str, Any] | None) -> bool:
    """Whether a tokenizer whose class is Llama's, or not named, is a SentencePiece BPE.

    Some folders of Llama 3, whose BPE is byte-level, name Llama's class as well. ``written`` is the tokenizer.json.
    """
    if written is None:
        return (folder / "tokenizer.model").is_file()
    return written["model"].get("type") == "BPE" and "ByteLevel" not in json.dumps(written.get("pre_tokenizer"))


def load_llama_tokenizer(
    folder: Path, settings: Mapping[str, Any], written: Mapping[str, Any] | None
) -> LlamaTokenizer:
    """The tokenizer of a folder that ``is_sentencepiece``.

    If ``tokenizer.model`` and ``tokenizer.json`` have the same vocabulary, the former defines merges and spaces; if
    they differ, or there is only a ``tokenizer.json``, the latter does. Raises what the libraries raise.

    Args:
        settings: the values of tokenizer_config.json.
        written: the values of tokenizer.json, if there is one.
    """
    model_file, json_file = folder / "tokenizer.model", folder / "tokenizer.json"
    pieces = _read_pieces(model_file, is_needed=written is None)
    # The defaults of the time when such folders were written. Transformers 5 has the opposite ones.
    unsaid: dict[str, Any] = {"add_bos_token": True, "legacy": True}
    if written is not None:
        unsaid = {"legacy": _read_prefix(written) != "first"}
    given = {name: value for name, value in unsaid.items() if name not in settings}
    if written is None and pieces is not None:
        given["vocab"] = pieces.vocabulary
    tokenizer = LlamaTokenizer.from_pretrained(folder, **given)
    tokenizer.init_kwargs["legacy"] = tokenizer.legacy  # else it is not saved
    backend = tokenizer.backend_tokenizer
    if pieces is not None and pieces.vocabulary == backend.get_vocab(with_added_tokens=False):
        if tokenizer.legacy:
            prefix: Prefix = "always" if pieces.adds_prefix else "never"
        else:
            prefix = "never" if settings.get("add_prefix_space") is False else "first"
        backend.model = pieces.build_model()
        backend.normalizer = pieces.build_normalizer()
        backend.pre_tokenizer = pieces.build_pre_tokenizer(prefix)
    elif written is not None and _is_ours(written):
        prefix = _read_prefix(written)
        file = Tokenizer.from_file(str(json_file))
        backend.model, backend.normalizer, backend.pre_tokenizer = file.model, file.normalizer, file.pre_tokenizer
    else:
        assert written is not None, "without tokenizer.json the vocabulary is tokenizer.model's own"
        prefix = _read_prefix(written)
        backend.normalizer = normalizers.Sequence([normalizers.Replace(" ", BLANK)])
        backend.pre_tokenizer = pre_tokenizers.Sequence(_build_prefix_steps(prefix))
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([] if prefix == "never" else [decoders.Strip(" ", left=1)])])
    return tokenizer


def _read_pieces(path: Path, *, is_needed: bool) -> Pieces | None:
    """The pieces of a ``tokenizer.model``; None if there is none, or if it is damaged and not ``is_needed``."""
    try:
        return Pieces(path) if path.is_file() else None
    except ValueError:
        if is_needed:
            raise
        return None


def _is_ours(tokenizer_json: Mapping[str, Any]) -> bool:
    """Whether this module built the pipeline, which Transformers' class would replace by its own."""
    first, *_ = (tokenizer_json.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    return first.get("type") == "Metaspace" and first.get("replacement") == " "


def _read_prefix(tokenizer_json: Mapping[str, Any]) -> Prefix:
    """Where the pipeline in a tokenizer.json puts the dummy prefix, in any form in which it has been written."""
    for place, steps_name in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        step = tokenizer_json.get(place) or {}
        for part in step.get(steps_name, [step]):
            if part.get("type") == "Prepend":
                return "always"
            if part.get("type") == "Metaspace":
                scheme = part.get("prepend_scheme", "always" if part.get("add_prefix_space", True) else "never")
                return scheme if scheme in ("always", "first") else "never"
    return "never"


class Pieces:
    """A parsed SentencePiece BPE model. Raises ValueError if the file is damaged or another kind of model."""

    def __init__(self, path: Path) -> None:
        from google.protobuf.message import DecodeError
        from sentencepiece import sentencepiece_model_pb2

        proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
        try:
            proto.ParseFromString(path.read_bytes())
        except DecodeError as error:
            raise ValueError(f"{path.name} is not a SentencePiece model: {error}") from error
        if not proto.pieces:
            raise ValueError(f"{path.name} is not a SentencePiece model: it holds no pieces")
        if proto.trainer_spec.model_type != proto.trainer_spec.BPE:
            kind = proto.trainer_spec.ModelType.Name(proto.trainer_spec.model_type).lower()
            raise ValueError(f"{path.name} is a SentencePiece model of the kind {kind}; Llama's tokenizers are BPE")
        if proto.trainer_spec.treat_whitespace_as_suffix:
            raise ValueError(
                f"{path.name} was trained with treat_whitespace_as_suffix, which puts spaces after words; Llama's "
                "tokenizers have them before words. A tokenizer.json beside it would be read instead"
            )
        self._proto = proto

    @property
    def vocabulary(self) -> dict[str, int]:
        """Each piece's id."""
        return {piece.piece: i for i, piece in enumerate(self._proto.pieces)}

    @property
    def rows(self) -> list[tuple[str, float, int]]:
        """Each piece with its score and its type, by id."""
        return [(piece.piece, piece.score, piece.type) for piece in self._proto.pieces]

    @property
    def keeps_spaces(self) -> bool:
        """Whether a text is taken as it is: without normalization, and with all of its spaces."""
        spec = self._proto.normalizer_spec
        return not spec.precompiled_charsmap and not spec.remove_extra_whitespaces

    @property
    def adds_prefix(self) -> bool:
        """Whether the model puts a space before a text."""
        return bool(self._proto.normalizer_spec.add_dummy_prefix)

    def build_model(self) -> models.BPE:
        """The BPE model, with SentencePiece's merge order."""
        proto = self._proto
        kind = proto.SentencePiece
        unknown = next((piece.piece for piece in proto.pieces if piece.type == kind.UNKNOWN), None)
        return models.BPE(
            vocab=self.vocabulary,
            merges=self._order_merges(),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=any(piece.type == kind.BYTE for piece in proto.pieces),
            ignore_merges=bool(self._list_user_symbols()),
        )

    def build_normalizer(self) -> normalizers.Normalizer:
        """The normalizer; spaces become BLANK."""
        spec = self._proto.normalizer_spec
        steps: list[normalizers.Normalizer] = []
        if spec.precompiled_charsmap:
            if "nmt" in spec.name:  # both become spaces, but Precompiled takes the two as one character
                steps.append(normalizers.Replace("\r\n", "  "))
            # Precompiled takes a character and its combining marks as one and drops marks; NFKC composes most of them.
            steps += [normalizers.NFKC()] if "nfkc" in spec.name else []
            steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
        if spec.remove_extra_whitespaces:
            steps += [normalizers.Replace(Regex(rf"\A +|[ {BLANK}]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
        return normalizers.Sequence([*steps, normalizers.Replace(" ", BLANK)])

    def build_pre_tokenizer(self, prefix: Prefix) -> pre_tokenizers.PreTokenizer:
        """Adds the prefix, and isolates the symbols that SentencePiece never splits or merges."""
        steps = _build_prefix_steps(prefix)
        if symbols := self._list_user_symbols():
            longest_first = sorted(symbols, key=len, reverse=True)
            pattern = "|".join(re.escape(symbol) for symbol in longest_first)
            steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
            cuts = [f"{re.escape(head)}(?={re.escape(tail)}\\z)" for head, tail in self._cut_unreachable()]
            steps.append(pre_tokenizers.Split(Regex(r"\A(?:" + "|".join(cuts) + ")"), behavior="isolated"))
        return pre_tokenizers.Sequence(steps)

    def _cut_unreachable(self) -> Iterator[tuple[str, str]]:
        """Pieces that SentencePiece never returns for their own text, such as ``<s>``, split where it splits them.

        ``ignore_merges`` looks up the whole text before it merges anything, and would find them.
        """
        from sentencepiece import SentencePieceProcessor

        bare = type(self._proto)()
        bare.CopyFrom(self._proto)
        bare.normalizer_spec.add_dummy_prefix = bare.normalizer_spec.remove_extra_whitespaces = False
        bare.normalizer_spec.precompiled_charsmap = b""
        reader = SentencePieceProcessor(model_proto=bare.SerializeToString())
        for i, piece in enumerate(self._proto.pieces):
            text = piece.piece
            ids = reader.encode(text)
            if ids != [i]:
                parts = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
                exact = (part for part in parts if reader.encode(part[0]) + reader.encode(part[1]) == ids)
                yield next(exact, (text[:1], text[1:]))

    def _list_user_symbols(self) -> list[str]:
        return [p.piece for p in self._proto.pieces if p.type == self._proto.SentencePiece.USER_DEFINED]

    def _order_merges(self) -> list[tuple[str, str]]:
        """All merges of two pieces into one, highest priority first.

        SentencePiece merges the pair whose union has the highest score, and the leftmost of equal scores. Here each
        pair has its own rank, so the rank breaks ties, not the position. Runs of one character, such as the spaces that
        all have the score -1e9, grow from left to right, so the pair with the longer left part is the leftmost.
        """
        kind = self._proto.SentencePiece
        normal = {p.piece: p.score for p in self._proto.pieces if p.type == kind.NORMAL}
        ranked: list[tuple[float, int, str, str]] = []
        for piece, score in normal.items():
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in normal and right in normal:
                    ranked.append((-score, -cut, left, right))
        ranked.sort(key=lambda merge: merge[:2])
        return [(left, right) for _, _, left, right in ranked]


def _build_prefix_steps(prefix: Prefix) -> list[pre_tokenizers.PreTokenizer]:
    """The pre-tokenizers that add the dummy prefix.

    Metaspace adds its mark only to a text that does not begin with it already, but SentencePiece always does. So the
    first step adds a plain space, with which no text begins after the normalizer has replaced them all, and the second
    turns that space into BLANK.
    """
    return [
        pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=prefix, split=False),
        pre_tokenizers.Metaspace(replacement=BLANK, prepend_scheme="never", split=False),
    ]
