"""A client's messages as turns of a conversation template: who said what, and where the pictures stand. No torch.

Templates know a system text and turns that alternate; clients send what they like. Whatever a person typed is escaped,
so that nothing in it is an image slot or a special token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from llava.backends.protocol import ChatMessage, ChatRequest, SentPicture
from llava.conversation import Conversation
from llava.errors import UsageError
from llava.prompt import escape_image_tokens
from llava.separators import SeparatorStyle


def write_conversation(
    messages: Sequence[ChatMessage], template: Conversation, image_slot: str
) -> tuple[Conversation, list[SentPicture]]:
    """The messages in the template, with an empty turn for the answer, and the pictures in the order of their slots.

    System messages at the beginning take the place of the template's own system text; a later one belongs to the user's
    turn that it stands in or before. Messages of one role in a row are one turn, a line break between them; an empty
    message of the assistant's is none. ``image_slot``: what stands for a picture.

    Raises UsageError if the last message is the assistant's, if all are the system's, or where the template cannot say
    it.
    """
    conversation = template.copy()
    messages = [one for one in messages if one.role != "assistant" or write_parts(one.parts, image_slot).strip()]
    check_last([message.role for message in messages])
    num_leading = next((i for i, message in enumerate(messages) if message.role != "system"), len(messages))
    leading, turns = messages[:num_leading], messages[num_leading:]
    system = _join(leading, image_slot)
    if leading and conversation.sep_style is not SeparatorStyle.GEMMA:
        begin = re.match(r"<\|[^\n]*\n", conversation.system)  # where the template marks its system text
        conversation.system = (begin[0] if begin else "") + system
        system = ""
    for is_answer, group in groupby(turns, key=lambda message: message.role == "assistant"):
        text = _join(list(group), image_slot)
        if system:  # Gemma's has no place for it
            text, system = f"{system}\n{text}", ""
        if is_answer and len(conversation.messages) == conversation.offset:
            conversation.append_message(conversation.roles[0], "")
        conversation.append_message(conversation.roles[is_answer], text)
    conversation.append_message(conversation.roles[1], None)
    return conversation, ChatRequest(tuple(messages)).all_pictures


def check_last(speakers: Sequence[str]) -> None:
    """Raises UsageError where nothing is to be answered. ``speakers``: the roles of the messages that say something."""
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


def write_parts(parts: Sequence[str | SentPicture], image_slot: str) -> str:
    """A message's parts as one text, every part on lines of its own.

    Pictures before any text are a line each, text or not, as the models were trained.
    """
    text, has_words = "", False
    for part in parts:
        written = image_slot if isinstance(part, SentPicture) else escape_image_tokens(part)
        if text and written and not text.endswith("\n"):
            text += "\n"
        text += written
        has_words = has_words or not isinstance(part, SentPicture)
        if not has_words:
            text += "\n"
    return text
