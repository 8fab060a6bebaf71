"""Names the damaged file of a tokenizer and the fault in it, which Transformers' and tokenizers' errors do not.

``refuse_unusable`` checks, before the files are read, for faults that these libraries ignore in silence;
``find_damage`` finds the fault after one of them has raised.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from llava.errors import CheckpointError
from llava.model.folder import Folder
from llava.model.spm import Pieces
from llava.model.weights import refuse_pointer

_JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
_FILES = (*_JSON_FILES, "tokenizer.model", "merges.txt", "chat_template.jinja")
_TOKENS = tuple(f"{kind}_token" for kind in ("bos", "eos", "unk", "pad", "sep", "cls", "mask"))
_REMEDY = "Copy it again, or take it from the language model that the checkpoint was made from."


def refuse_unusable(described: Folder) -> None:
    """Raises CheckpointError for a tokenizer file that is a device or a Git LFS pointer, and for truncated merges."""
    folder = described.path
    for path in (folder / name for name in _FILES):
        if os.path.exists(path) and not os.path.isfile(path):
            raise CheckpointError(f"{path} is not a regular file, where a tokenizer's file is needed. {_REMEDY}")
        refuse_pointer(path)
    vocabulary = folder / "vocab.json"
    if os.path.isfile(vocabulary) and not any(map(os.path.isfile, (folder / _FILES[0], folder / "tokenizer.model"))):
        _check_merges(described.read_json("vocab.json"), folder / "merges.txt")


def _check_merges(vocabulary: Mapping[str, Any], path: Path) -> None:
    """Raises CheckpointError if many tokens have no merge, so that texts would be split into other tokens."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if os.path.isfile(path) else []
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    merged = {line.replace(" ", "", 1) for line in lines}
    absent = sum(1 for token in vocabulary if len(token) > 1 and token not in merged)
    if absent > max(64, len(vocabulary) // 20):
        raise CheckpointError(
            f"{path} {'is cut short' if lines else 'is missing or empty'}: {absent} of the {len(vocabulary)} tokens in "
            f"vocab.json come from none of its {len(lines)} merges. {_REMEDY}"
        )


def find_damage(described: Folder, error: Exception) -> str:
    """Sentences that name the damaged file about which a library raised ``error``, and the remedy."""
    folder = described.path
    for path in (folder / name for name in _JSON_FILES):
        if not os.path.isfile(path):
            continue
        try:
            values = described.read_json(path.name)
        except CheckpointError as damage:
            return f"{damage} {_REMEDY}"
        if path.read_bytes().startswith(b"\xef\xbb\xbf"):
            return f"{path} begins with a byte order mark, which Transformers rejects: save it as UTF-8 without one."
        if (fault := next(_find_faults(path.name, values), None)) is not None:
            return f"{path} {fault}. {_REMEDY}"
    if os.path.isfile(folder / "tokenizer.model") and not os.path.isfile(folder / "tokenizer.json"):
        try:
            Pieces(folder / "tokenizer.model")
        except ValueError as damage:
            return f"{folder / damage.args[0]}. {_REMEDY}"
    reason = (str(error).strip() or type(error).__name__).split("\n")[0]
    return f"The tokenizer in {folder} cannot be read ({reason:.300}). Copy its files again."


def _find_faults(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """The faults of one of the JSON files, as predicates of sentences."""
    if name == "tokenizer.json":
        yield from _find_pipeline_faults(values)
    elif name in ("added_tokens.json", "vocab.json"):
        for token, number in values.items():
            if type(number) is not int or number < 0:
                yield f"says {token}: {number!r:.80}, where the id of a token is needed"
    else:
        for token in _TOKENS:
            yield from _find_token_faults(token, values.get(token))
        if not isinstance(values.get("tokenizer_class", ""), (str, type(None))):
            yield f"says tokenizer_class: {values['tokenizer_class']!r:.80}, where a name is needed"
        template = values.get("chat_template") or ""
        if not isinstance(template, (str, dict)) and not (
            isinstance(template, list) and all(isinstance(each, dict) for each in template)
        ):
            yield f"says chat_template: {template!r:.80}, where a string is needed"


def _find_token_faults(name: str, token: Any) -> Iterator[str]:
    if isinstance(token, dict) and isinstance(token.get("content"), str):
        for key in ("lstrip", "rstrip", "normalized", "single_word", "special"):
            if not isinstance(token.get(key, False), bool):
                yield f"says {key}: {token[key]!r:.80} of {name}, where true or false is needed"
    elif token is not None and not isinstance(token, str):
        yield f"says {name}: {token!r:.80}, where a token's string is needed"


def _find_pipeline_faults(values: Mapping[str, Any]) -> Iterator[str]:
    tokens = values.get("added_tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        yield f"says added_tokens: {tokens!r:.80}, where a list of tokens is needed"
        return
    for token in tokens:
        yield from _find_token_faults("an added token", token)
        if type(token.get("id")) is not int:
            yield f"says id: {token.get('id')!r:.80} of the added token {token.get('content')!r:.80}"
    try:
        Tokenizer.from_str(json.dumps(values))
    except Exception as error:  # the tokenizers library raises bare Exception
        yield f"cannot be read as a tokenizer ({str(error).splitlines()[0]:.200})"
