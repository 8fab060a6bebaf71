"""Llama's tokenizer with the ids that the sentencepiece library gives.

A published Vicuna, Mistral or Yi brings a bare ``tokenizer.model``, which the original read with the sentencepiece
library. Transformers 5 reads it by rules of its own that differ in four places: merges are ordered by piece id and not
by score, a blank at the beginning of a text is swallowed, a model without a dummy prefix is given one, and symbols of
the model become added tokens that nobody declared. Here the pieces become a BPE model of the ``tokenizers`` library
with SentencePiece's order of merges, behind a pipeline that treats blanks as SentencePiece does. Models that normalize
(``nmt_nfkc``; no published LLaVA does) may differ where combining marks meet.

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
"""How SentencePiece writes a blank inside its pieces: U+2581."""
# Where SentencePiece's dummy prefix, a blank, is put: before every stretch of text between added tokens (what
# Transformers 4 calls legacy), only before a stretch at the very beginning, or nowhere.
Prefix = Literal["always", "first", "never"]


class LlamaTokenizer(transformers.LlamaTokenizer):
    """Transformers' class, which leaves a ``tokenizer.model`` to ``load_llama_tokenizer``."""

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """What the constructor gets for the files of a folder. Called by ``from_pretrained``."""
        if kwargs.get("tokenizer_file") is None and kwargs.get("vocab_file"):
            vocabulary = kwargs.get("vocab") or Pieces(Path(kwargs["vocab_file"])).vocabulary
            return {**kwargs, "vocab": vocabulary, "merges": []}
        return dict(super().convert_to_native_format(trust_remote_code=trust_remote_code, **kwargs))


def is_sentencepiece(folder: Path) -> bool:
    """Whether the tokenizer in a folder whose class is Llama's or not said is SentencePiece's kind of BPE.

    Some folders of Llama 3, whose BPE works on bytes, name Llama's class all the same.
    """
    if not (folder / "tokenizer.json").is_file():
        return (folder / "tokenizer.model").is_file()
    values = json.loads((folder / "tokenizer.json").read_bytes())
    return values["model"].get("type") == "BPE" and "ByteLevel" not in json.dumps(values.get("pre_tokenizer"))


def load_llama_tokenizer(folder: Path, settings: Mapping[str, Any]) -> LlamaTokenizer:
    """The tokenizer of a folder that ``is_sentencepiece``; ``settings`` are its tokenizer_config.json.

    Where a ``tokenizer.model`` and a ``tokenizer.json`` have the same vocabulary, the former decides about merges and
    blanks; where they differ, and where there is only the latter, the latter does. Raises whatever the readers raise.
    """
    model_file, json_file = folder / "tokenizer.model", folder / "tokenizer.json"
    written = json.loads(json_file.read_bytes()) if json_file.is_file() else None
    pieces = _read_pieces(model_file, is_needed=written is None)
    # What went without saying when such folders were written. Transformers 5 takes the opposite for granted.
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
        assert written is not None, "a bare tokenizer.model has the vocabulary that it gave"
        prefix = _read_prefix(written)
        backend.normalizer = normalizers.Sequence([normalizers.Replace(" ", BLANK)])
        backend.pre_tokenizer = pre_tokenizers.Sequence(_build_prefix_steps(prefix))
    steps = [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([] if prefix == "never" else [decoders.Strip(" ", left=1)])])
    return tokenizer


def _read_pieces(path: Path, *, is_needed: bool) -> Pieces | None:
    """The pieces of a ``tokenizer.model``, if there is one. A damaged one counts only where it ``is_needed``."""
    try:
        return Pieces(path) if path.is_file() else None
    except ValueError:
        if is_needed:
            raise
        return None


def _is_ours(tokenizer_json: Mapping[str, Any]) -> bool:
    """Whether the pipeline was built here: Transformers' class would build another one from its vocabulary."""
    first, *_ = (tokenizer_json.get("pre_tokenizer") or {}).get("pretokenizers") or [{}]
    return first.get("type") == "Metaspace" and first.get("replacement") == " "


def _read_prefix(tokenizer_json: Mapping[str, Any]) -> Prefix:
    """What the pipeline in a tokenizer.json does about the prefix, in any of the ways it has been written."""
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
    """A SentencePiece model file of the BPE kind, parsed. Raises ValueError where it is damaged or of another kind."""

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
                f"{path.name} was trained with treat_whitespace_as_suffix, which puts blanks behind words; Llama's "
                "tokenizers have them before words. A tokenizer.json beside it would be read instead"
            )
        self._proto = proto

    @property
    def vocabulary(self) -> dict[str, int]:
        """Each piece's id."""
        return {piece.piece: i for i, piece in enumerate(self._proto.pieces)}

    @property
    def adds_prefix(self) -> bool:
        """Whether the model puts a blank before a text."""
        return bool(self._proto.normalizer_spec.add_dummy_prefix)

    def build_model(self) -> models.BPE:
        """The BPE model with SentencePiece's own order of merges."""
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
        """What happens to a text before it is cut into symbols; blanks come out as BLANK."""
        spec = self._proto.normalizer_spec
        steps: list[normalizers.Normalizer] = []
        if spec.precompiled_charsmap:
            if "nmt" in spec.name:  # both become blanks, but Precompiled takes the two as one character
                steps.append(normalizers.Replace("\r\n", "  "))
            # Precompiled takes a character and its combining marks as one and drops marks; composed, few are left.
            steps += [normalizers.NFKC()] if "nfkc" in spec.name else []
            steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
        if spec.remove_extra_whitespaces:
            steps += [normalizers.Replace(Regex(rf"\A +|[ {BLANK}]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
        return normalizers.Sequence([*steps, normalizers.Replace(" ", BLANK)])

    def build_pre_tokenizer(self, prefix: Prefix) -> pre_tokenizers.PreTokenizer:
        """Puts the prefix before a text, and sets the symbols apart that SentencePiece never cuts nor merges."""
        steps = _build_prefix_steps(prefix)
        if symbols := self._list_user_symbols():
            longest_first = sorted(symbols, key=len, reverse=True)
            pattern = "|".join(re.escape(symbol) for symbol in longest_first)
            steps.append(pre_tokenizers.Split(Regex(pattern), behavior="isolated"))
            cuts = [f"{re.escape(head)}(?={re.escape(tail)}\\z)" for head, tail in self._cut_unreachable()]
            steps.append(pre_tokenizers.Split(Regex(r"\A(?:" + "|".join(cuts) + ")"), behavior="isolated"))
        return pre_tokenizers.Sequence(steps)

    def _cut_unreachable(self) -> Iterator[tuple[str, str]]:
        """Pieces that SentencePiece never gives for their own text, such as ``<s>``, cut where it cuts them.

        ``ignore_merges`` looks a whole text up before it merges anything, and would find them.
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
        """Every way to put a piece together from two, the most urgent first.

        SentencePiece merges the pair whose union has the highest score, and of equal scores the leftmost pair. Here
        each pair has a rank of its own, so a tie is decided by the rank and not by the place. Runs of one character,
        such as the blanks that all have the score -1e9, grow from left to right, so the pair with the longer left part
        is the leftmost.
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
    """Metaspace puts its mark only before a text that does not begin with it already, and SentencePiece always.

    So the first step works with a plain blank, which no text begins with once the normalizer has replaced them all,
    and the second turns that blank into BLANK.
    """
    return [
        pre_tokenizers.Metaspace(replacement=" ", prepend_scheme=prefix, split=False),
        pre_tokenizers.Metaspace(replacement=BLANK, prepend_scheme="never", split=False),
    ]
