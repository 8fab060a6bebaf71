"""The original's functions that turn conversations into ids and labels, on top of this package's own rendering.

Arguments, return types and ids are the original's; labels too where those are right. Where the original masks a sample
by mistake, it is labelled as ``dataset.samples`` does. ``llava.train.train`` has these functions under the names
that research code imports and replaces.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py.
"""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence
from typing import Any, TypeAlias

import torch

from llava import conversation as templates
from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX
from llava.conversation import Conversation
from llava.data.records import parse_turns
from llava.errors import UsageError
from llava.prompt import escape_image_tokens, render_sample
from llava.separators import SeparatorStyle
from llava.train.dataset.batches import pad_rows
from llava.train.dataset.image_slots import place_image, write_sample

# A conversation of LLaVA's data files: ``{"from": "human", "value": …}`` for each turn.
Source: TypeAlias = list[dict[str, Any]]
Sources: TypeAlias = Sequence[Source]

# The letters of ``<image>`` in the text of a conversation without images.
_NO_SLOT = escape_image_tokens(DEFAULT_IMAGE_TOKEN)
_BEGIN_SIGNAL, _END_SIGNAL = "### ", "\n"


def place_images(sources: Sources, data_args: Any) -> Sources:
    """The sources, changed in place: each image slot is where the repository of ``data_args`` puts it."""
    if not data_args.is_multimodal:
        return sources
    marks = {
        "is_tagged": "mmtag" in templates.default_conversation.version,
        "has_start_end": bool(getattr(data_args, "mm_use_im_start_end", False)),
    }
    for source in sources:
        for turn in source:
            turn["value"] = place_image(turn["value"], choose_rule(data_args), **marks)
    return sources


def choose_rule(data_args: Any) -> str:
    """Whose rule places images, "1.5" or "next": that of the command line, else LLaVA-NeXT's for AnyRes alone."""
    repository = getattr(data_args, "compatible_with", None)
    if repository is None:
        return "next" if "anyres" in data_args.image_aspect_ratio else "1.5"
    return "next" if repository == "llava-next" else "1.5"


def encode_rows(
    sources: Sources, tokenizer: Any, template: Conversation, *, has_image: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and labels [L] of each source in that template; text without images is cut at the tokenizer's length.

    Raises:
        UsageError: a turn is by an unknown speaker, or the template cannot express the turns.
    """
    rows = []
    for number, source in enumerate(sources):
        turns = parse_turns(source, f"Conversation {number}")
        if not has_image:
            turns = tuple((speaker, text.replace(DEFAULT_IMAGE_TOKEN, _NO_SLOT)) for speaker, text in turns)
        num_slots = sum(text.count(DEFAULT_IMAGE_TOKEN) for _, text in turns)
        conversation = write_sample(turns, num_slots, template, "kept")
        prompt = render_sample(conversation, tokenizer, [1] * num_slots, limit_tokens=None)
        assert prompt.labels is not None
        end = None if has_image else int(min(tokenizer.model_max_length, len(prompt.input_ids)))
        rows.append((torch.tensor(prompt.input_ids[:end]), torch.tensor(prompt.labels[:end])))
    return rows


def encode_tensors(
    sources: Sources, tokenizer: Any, template: Conversation, *, has_image: bool, style: SeparatorStyle
) -> dict[str, Any]:
    """``input_ids`` and ``labels`` [B, L] of the sources, padded on the right where they differ in length.

    Raises:
        UsageError: the template is not of that style, or as ``encode_rows``.
    """
    if template.sep_style is not style:
        raise UsageError(
            f"This function writes templates of the style {style.name}, but the default template is of the style "
            f"{template.sep_style.name}. Set llava.conversation.default_conversation."
        )
    rows = encode_rows(sources, tokenizer, template, has_image=has_image)
    pad_id = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    batch = pad_rows([{"input_ids": ids, "labels": labels} for ids, labels in rows], pad_id)
    return {"input_ids": batch["input_ids"], "labels": batch["labels"]}


def encode_lists(sources: Sources, tokenizer: Any, template: Conversation, *, has_image: bool) -> dict[str, Any]:
    """``input_ids`` and ``labels`` of the sources as lists of tensors [L]."""
    rows = encode_rows(sources, tokenizer, template, has_image=has_image)
    return {"input_ids": [ids for ids, _ in rows], "labels": [labels for _, labels in rows]}


def tokenize_strings(strings: Sequence[str], tokenizer: Any) -> dict[str, Any]:
    """Ids of each string [L], cut at the tokenizer's length, and their numbers without padding."""
    rows = [
        tokenizer(text, return_tensors="pt", max_length=tokenizer.model_max_length, truncation=True).input_ids[0]
        for text in strings
    ]
    lengths = [int(row.ne(tokenizer.pad_token_id).sum()) for row in rows]
    return {"input_ids": rows, "labels": rows, "input_ids_lens": lengths, "labels_lens": list(lengths)}


def mask_questions(target: torch.Tensor, tokenized_lens: Sequence[int], speakers: Sequence[str]) -> None:
    """Masks a ``###`` conversation with IGNORE_INDEX: its header, and its human turns from their third id on."""
    begin, *lengths = tokenized_lens
    target[:begin] = IGNORE_INDEX
    for length, speaker in zip(lengths, speakers, strict=False):
        if speaker == "human":
            target[begin + 2 : begin + length] = IGNORE_INDEX
        begin += length


def add_speakers(header: str, source: MutableSequence[dict[str, Any]], get_conversation: bool = True) -> str:
    """The whole text of a ``###`` conversation; each turn's ``value`` becomes ``### Role: value`` in place."""
    roles = dict(zip(("human", "gpt"), templates.default_conversation.roles, strict=False))
    for turn in source:
        role = roles.get(turn["from"].lower(), "unknown")
        turn["value"] = f"{_BEGIN_SIGNAL}{role}: {turn['value']}{_END_SIGNAL}"
    turns = "".join(turn["value"] for turn in source) if get_conversation else ""
    return f"{header}{turns}{_BEGIN_SIGNAL}"
