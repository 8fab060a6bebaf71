"""Additions to a vocabulary: new tokens with rows of embeddings, and llava-hf's tokens ``<image>`` and ``<pad>``.

The original splits a prompt at its images and tokenizes each stretch separately; Transformers tokenizes the whole
prompt, with ``<image>`` as a token. llava-hf's tokenizers made here give the original's ids nevertheless.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import CheckpointError
from llava.prompt import tokenizer_image_token

PAD_TOKEN = "<pad>"
_ROW_MULTIPLE = 64  # llava-hf rounds the number of rows up to a multiple of this
_CHUNK_ROWS = 4096

# Adds the space after an image that a separate stretch of text would begin with; not before another image or the end,
# where no stretch begins. The normalizer sees the image because the token is matched in normalized text only.
_SPACE_AFTER_IMAGE = {
    "type": "Replace",
    "pattern": {"Regex": DEFAULT_IMAGE_TOKEN + r"(?!" + DEFAULT_IMAGE_TOKEN + r"|\z)"},
    "content": DEFAULT_IMAGE_TOKEN + "▁",
}
_PROBES = (
    "USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: And that? ASSISTANT:",
    "<image>\n<image>\nWhat\n\nis it?",
    "<image>What <image><image>is it?",
    "What is <image> it,  and <image>  that <image>",
    "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n",
    "[INST] <image>\nWhat? [/INST] A cat </s><s>[INST] And? [/INST]",
)


def count_tokens(tokenizer: Any) -> int:
    """The number of rows of embeddings that the tokenizer needs: its highest id plus 1."""
    return max(tokenizer.get_vocab().values()) + 1


@torch.no_grad()
def add_tokens(model: Any, tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Adds special tokens to the tokenizer and rows for them to the model; returns the ids of those that are new.

    Their rows, of the embeddings and of the head, are the mean of all older tokens' rows. A model that has rows to
    spare keeps its size.
    """
    num_new = tokenizer.add_tokens(list(tokens), special_tokens=True)
    new = list(range(len(tokenizer) - num_new, len(tokenizer)))
    if new and len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for table in (model.get_input_embeddings(), model.get_output_embeddings()):
        if new:
            table.weight[new] = table.weight[: new[0]].mean(dim=0, keepdim=True)
    return new


def count_rows(num_tokens: int, num_rows: int) -> int:
    """The number of rows for ``num_tokens`` tokens: ``num_rows`` if that is enough, else rounded as llava-hf does."""
    return num_rows if num_tokens <= num_rows else -(-num_tokens // _ROW_MULTIPLE) * _ROW_MULTIPLE


def count_original_rows(tokenizer: Any, num_rows: int, remembered: int | None) -> int:
    """How many rows a llava-hf matrix of ``num_rows`` had before rows were added for its tokens.

    ``tokenizer``: without the added tokens. ``remembered``: the number that the checkpoint itself gives; without it,
    rows were added if the matrix has exactly as many as adding them would give.
    """
    num_tokens = count_tokens(tokenizer)
    if remembered is not None:
        return min(num_rows, max(remembered, num_tokens))
    grown = {size for more in (1, 2, 3) for size in (num_tokens + more, count_rows(num_tokens + more, 0))}
    return num_tokens if num_rows in grown else num_rows


def resize_rows(matrix_VC: torch.Tensor, num_rows: int) -> torch.Tensor:
    """The first ``num_rows`` of a matrix, or the matrix extended to ``num_rows`` by the mean of its rows.

    The mean of a head's rows gives the mean of all logits, which is never the largest: an added token is never
    generated. The sum is computed in float64, so the same matrix gives the same bits on every machine.
    """
    if num_rows <= len(matrix_VC):
        return matrix_VC[:num_rows]
    sum_C = torch.zeros(matrix_VC.shape[1], dtype=torch.float64)
    for chunk_VC in matrix_VC.split(_CHUNK_ROWS):
        sum_C += chunk_VC.double().sum(0)
    mean_C = (sum_C / len(matrix_VC)).to(matrix_VC.dtype)
    return torch.cat([matrix_VC, mean_C.expand(num_rows - len(matrix_VC), -1)])


def add_image_tokens(tokenizer: Any) -> PreTrainedTokenizerFast:
    """The tokenizer with ``<image>`` and with a token that is used for padding only; it pads on the left.

    Its ids for a text with images are those of ``tokenizer_image_token``, with its ``<image>`` in each slot. A
    tokenizer that drops a space at the beginning of a text, or a ``legacy`` one after another special token, as
    Transformers' own Llama tokenizers do, still drops it.

    Raises:
        CheckpointError: no such tokenizer can be made from this one.
    """
    backend = _read_backend(tokenizer)
    pad_token = tokenizer.pad_token
    if pad_token is None or pad_token in (tokenizer.unk_token, tokenizer.bos_token, tokenizer.eos_token):
        pad_token = PAD_TOKEN
    normalizer = backend.get("normalizer")
    mended = {"type": "Sequence", "normalizers": [_SPACE_AFTER_IMAGE, *([normalizer] if normalizer else ())]}
    for steps, is_normalized in ((normalizer, False), (mended, True)):
        made = Tokenizer.from_str(json.dumps({**backend, "normalizer": steps}))
        made.add_special_tokens(
            [
                AddedToken(DEFAULT_IMAGE_TOKEN, special=True, normalized=is_normalized),
                AddedToken(pad_token, special=True, normalized=False),
            ]
        )
        added = _wrap(made, tokenizer, pad_token=pad_token, padding_side="left")
        image_id = added.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)
        expected = [tokenizer_image_token(probe, tokenizer, image_id) for probe in _PROBES]
        if [added(probe).input_ids for probe in _PROBES] == expected:
            return added
    raise CheckpointError(
        f"The tokenizer gives a text after {DEFAULT_IMAGE_TOKEN} other ids than the same text alone, which cannot be "
        "changed: prompts in Transformers would differ from those that the model was trained with."
    )


def drop_image_tokens(tokenizer: Any) -> Any:
    """The tokenizer as it was before ``add_image_tokens``, or before llava-hf's own conversion.

    Raises:
        CheckpointError: it is not a fast tokenizer.
    """
    backend = _read_backend(tokenizer)
    inside = backend["model"].get("vocab", ())
    dropped = {
        token["content"]
        for token in backend["added_tokens"]
        if token["content"] in (DEFAULT_IMAGE_TOKEN, PAD_TOKEN) and token["content"] not in inside
    }
    if not dropped:
        return tokenizer
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["content"] not in dropped]
    first, *rest = (backend.get("normalizer") or {}).get("normalizers") or [None]
    if first == _SPACE_AFTER_IMAGE:
        backend["normalizer"] = rest[0] if rest else None
    pad_token = tokenizer.pad_token
    if pad_token in dropped:
        pad_token = tokenizer.unk_token or tokenizer.eos_token
    made = Tokenizer.from_str(json.dumps(backend))
    return _wrap(made, tokenizer, dropped, pad_token=pad_token, padding_side="right")


def _read_backend(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"The tokenizer is a {type(tokenizer).__name__}, which has no tokenizer.json: "
            "tokens can be added to and removed from fast tokenizers only."
        )
    values: dict[str, Any] = json.loads(backend.to_str())
    return values


def _wrap(made: Tokenizer, like: Any, dropped: Iterable[str] = (), **changes: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of Transformers' generic class, which uses tokenizer.json unchanged, set up as ``like``."""
    named = {name: getattr(like, name) for name in ("bos_token", "eos_token", "unk_token", "sep_token", "mask_token")}
    settings = {name: token for name, token in named.items() if token is not None}
    extra = [token for token in getattr(like, "extra_special_tokens", None) or () if str(token) not in dropped]
    if extra:
        settings["extra_special_tokens"] = extra
    made.no_padding()
    made.no_truncation()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=like.model_max_length,
        clean_up_tokenization_spaces=False,
        **settings,
        **changes,
    )
