"""A client's messages as turns of a conversation template, with a slot for each image. No torch.

A template has a system text and alternating turns; clients send any sequence of roles. Text that a user typed is
escaped, so that nothing in it is an image slot or a special token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from llava.backends.protocol import ChatMessage, ChatRequest, SentImage
from llava.conversation import Conversation
from llava.errors import UsageError
from llava.prompt import escape_image_tokens
from llava.separators import SeparatorStyle


def write_conversation(
    messages: Sequence[ChatMessage], template: Conversation, image_slot: str, *, images_first: bool = False
) -> tuple[Conversation, list[SentImage]]:
    """The messages in the template, with an empty turn for the answer, and the images in the order of their slots.

    System messages at the beginning replace the template's own system text; a later one is merged into the user's turn
    that it is in or before. Consecutive messages of one role become one turn, joined by line breaks; empty assistant
    messages are dropped.

    Args:
        image_slot: the text of one image's slot.
        images_first: the images of a turn come before its text, wherever the client put them.

    Raises UsageError if the last message is the assistant's, or if all are the system's.
    """
    conversation = template.copy()
    messages = [one for one in messages if one.role != "assistant" or write_parts(one.parts, image_slot).strip()]
    check_last([message.role for message in messages])
    num_leading = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    leading, turns = messages[:num_leading], messages[num_leading:]
    if images_first:
        turns = _put_images_first(turns)
    system = _join(leading, image_slot)
    if leading and conversation.sep_style is not SeparatorStyle.GEMMA:
        begin = re.match(r"<\|[^\n]*\n", conversation.system)  # the template's own markup before its system text
        conversation.system = (begin[0] if begin else "") + system
        system = ""
    for is_answer, group in groupby(turns, key=lambda message: message.role == "assistant"):
        text = _join(list(group), image_slot)
        if system:  # Gemma's template has no system text
            text, system = f"{system}\n{text}", ""
        if is_answer and len(conversation.messages) == conversation.offset:
            conversation.append_message(conversation.roles[0], "")
        conversation.append_message(conversation.roles[is_answer], text)
    conversation.append_message(conversation.roles[1], None)
    return conversation, ChatRequest(tuple(messages)).all_images


def _put_images_first(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The messages, with the images of those that become one turn before the texts of the first of them."""
    ordered: list[ChatMessage] = []
    for _, group in groupby(messages, key=lambda message: message.role == "assistant"):
        run = list(group)
        shown = [part for message in run for part in message.parts if isinstance(part, SentImage)]
        for i, message in enumerate(run):
            texts = [part for part in message.parts if not isinstance(part, SentImage)]
            ordered.append(replace(message, parts=(*(shown if i == 0 else ()), *texts)))
    return ordered


def check_last(speakers: Sequence[str]) -> None:
    """Raises UsageError if there is nothing to answer. ``speakers``: the roles of the messages that are not empty."""
    if not speakers:
        last = "No message says anything"
    elif speakers[-1] == "assistant":
        last = "The last message is the assistant's"
    elif set(speakers) == {"system"}:
        last = "All messages are the system's"
    else:
        return
    raise UsageError(
        f"{last}, so there is nothing to answer. End with a user's message; an answer that was begun is not continued."
    )


def _join(messages: Sequence[ChatMessage], image_slot: str) -> str:
    return "\n".join(filter(None, (write_parts(message.parts, image_slot) for message in messages)))


def write_parts(parts: Sequence[str | SentImage], image_slot: str) -> str:
    """A message's parts as one text, every part on lines of its own.

    Each image before the first text is a line of its own, even without a text, as in the models' training data.
    """
    text, has_words = "", False
    for part in parts:
        written = image_slot if isinstance(part, SentImage) else escape_image_tokens(part)
        if text and written and not text.endswith("\n"):
            text += "\n"
        text += written
        has_words = has_words or not isinstance(part, SentImage)
        if not has_words:
            text += "\n"
    return text
