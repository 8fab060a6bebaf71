"""Where ``<image>`` stands in the turns of a training sample: the rules of both originals.

    "1.5"   "Look at <image> here"  ->  "<image>\\nLook at  here"     every turn; several in a turn become one
    "next"  "Look at <image> here"  ->  "<image>\\nLook at  here"     only a turn with exactly one, not at its start

A sample of several images exists only in LLaVA-NeXT, so "next" decides about it in either case. "kept" leaves every
``<image>`` where it is. "next" also removes a marker that the answers of VideoInstruct-100k end with.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py, preprocess_multimodal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import Conversation
from llava.data.records import find_first_question
from llava.errors import BadSample, UsageError
from llava.prompt import write_image_slot
from llava.separators import SeparatorStyle

RULES = ("1.5", "next", "kept")

# Styles that express a conversation that begins with an answer; the others drop it, as both originals do.
_OPEN_TO_ANSWERS = (SeparatorStyle.SINGLE,)
# Styles without a system text: those whose template says nothing before the first question.
_WITHOUT_SYSTEM = (SeparatorStyle.GEMMA, SeparatorStyle.PLAIN)
_NOISE = "QA_GT_caption_based_noisy"


def place_image(text: str, rule: str, *, is_tagged: bool = False, has_start_end: bool = False) -> str:
    """The text of one turn of a sample with images, with ``<image>`` where the rule puts it.

    Args:
        rule: one of ``RULES``.
        is_tagged: whether an image that the rule places is wrapped as ``<Image><image></Image>``.
        has_start_end: ``mm_use_im_start_end``; wraps every image.
    """
    slot = DEFAULT_IMAGE_TOKEN
    is_placed = slot in text if rule == "1.5" else text.count(slot) == 1 and not text.startswith(slot)
    is_placed = is_placed and rule != "kept"
    if is_placed:
        text = f"{slot}\n{text.replace(slot, '').strip()}".strip()
        if is_tagged:
            text = text.replace(slot, f"<Image>{slot}</Image>")
    text = text.replace(slot, write_image_slot(has_start_end))
    return text.replace(_NOISE, "") if rule == "next" else text


def write_sample(
    turns: Sequence[tuple[str, str]],
    num_images: int,
    template: Conversation,
    rule: str = "1.5",
    *,
    has_start_end: bool = False,
) -> Conversation:
    """The turns of a record in a template, with a slot for each image.

    A system turn replaces the template's system text. A leading answer is dropped where the template has no place for
    it, and its images move to the question after it. Without images, no text is changed.

    Args:
        turns: as ``Record.turns``.
        rule: one of ``RULES``.

    Raises:
        BadSample: slots and images differ in number, the template has no place for a system turn, or, in stage 1
            (``plain``), the sample is not one question with an image and its caption.
        UsageError: the rule is unknown.
    """
    if rule not in RULES:
        raise UsageError(f"There is no rule '{rule}' for placing images; there are: {', '.join(RULES)}.")
    conversation = template.copy()
    conversation.messages, conversation.offset = [], 0
    if turns and turns[0][0] == "system":
        _set_system(conversation, turns[0][1])
        turns = turns[1:]
    if conversation.sep_style not in _OPEN_TO_ANSWERS:
        turns = _drop_leading_answer(turns)
    if num_images:
        rule = "next" if rule == "1.5" and num_images > 1 else rule
        is_plain = conversation.sep_style is SeparatorStyle.PLAIN
        marks = {"is_tagged": "mmtag" in conversation.version, "has_start_end": has_start_end and not is_plain}
        turns = [(speaker, place_image(text, rule, **marks)) for speaker, text in turns]
    num_slots = sum(text.count(DEFAULT_IMAGE_TOKEN) for _, text in turns)
    if num_slots != num_images:
        raise BadSample(
            f"it has {num_slots} {DEFAULT_IMAGE_TOKEN} and {num_images} images. Each image needs one "
            f"{DEFAULT_IMAGE_TOKEN} in its text."
        )
    for speaker, text in turns:
        conversation.append_message(conversation.roles[speaker == "gpt"], text)
    if conversation.sep_style is SeparatorStyle.PLAIN:
        _check_caption(turns, num_images)
    return conversation


def _drop_leading_answer(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The turns from the first question on, which gets the slots of an answer before it."""
    kept = list(turns[find_first_question(turns) :])
    num_lost = turns[0][1].count(DEFAULT_IMAGE_TOKEN) if turns and len(kept) < len(turns) else 0
    if num_lost and kept:
        kept[0] = (kept[0][0], f"{DEFAULT_IMAGE_TOKEN}\n" * num_lost + kept[0][1])
    return kept


def _set_system(conversation: Conversation, text: str) -> None:
    style = conversation.sep_style
    if style in _WITHOUT_SYSTEM or (style is SeparatorStyle.LLAMA_2 and not conversation.system):
        raise BadSample("its first turn is a system prompt, for which this template has no place. Remove the turn.")
    begin = re.match(r"<\|[^\n]*\n", conversation.system)  # the template's own markup before its system text
    conversation.system = (begin[0] if begin else "") + text


def _check_caption(turns: Sequence[tuple[str, str]], num_images: int) -> None:
    if len(turns) != 2 or not num_images or DEFAULT_IMAGE_TOKEN not in turns[0][1]:
        raise BadSample(
            "this template takes one question with an image and its caption, but the sample has "
            f"{len(turns)} turns and {num_images} images. Remove it from this stage's data."
        )
