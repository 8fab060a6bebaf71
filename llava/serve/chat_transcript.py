"""The messages of the web chat: written for Gradio's Chatbot, read back, and grouped into turns. No Gradio here.

A message is what Chatbot shows: a role and a list of parts, which are texts (HTML written by ``message_html``) and
files. Besides the user's and the model's messages there are notices, which report problems; they are displayed but
never sent to the model. A question that got no answer, not even a partial one, stays visible, but later requests leave
it out.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llava.errors import UsageError
from llava.serve import message_html
from llava.serve.uploaded_images import UploadedImages

Message = Mapping[str, Any]

# The metadata ids of messages that are neither a question nor a complete answer.
_NOTICE, _ERROR, _OPEN = "notice", "notice refusal", "open"
# The default question for images sent without text.
_ABOUT_ONE, _ABOUT_SEVERAL = "Describe the image.", "Describe the images."
_INTERRUPTED = "The answer was interrupted here: the server stopped, or this page was closed or reloaded."
# In a restored chat, answers after this many characters are shown without Markdown, because rendering takes time.
_MARKDOWN_CHARACTERS = 250_000
# Larger saved state than any page produces is ignored.
_MAX_SAVED_MESSAGES, _MAX_SAVED_FILES = 2_000, 200
# What parsing a browser's saved state may raise.
_INVALID = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, OSError)


def write_question(text: str, paths: Sequence[str]) -> list[Message]:
    """The user's messages: one with the images, if there are any, and one with the text as it was typed.

    They are separate because Chatbot drops the files of a message whose text is edited.
    """
    files = [{"type": "file", "file": _describe_file(path), "alt_text": Path(path).name} for path in paths]
    texts = [{"type": "text", "text": message_html.render_question(text)}] if text else []
    return [{"role": "user", "content": parts} for parts in (files, texts) if parts]


def fill_in(text: str, paths: Sequence[str]) -> str:
    """The question: the typed text, or for images without text a request to describe them."""
    if text.strip() or not paths:
        return text
    return _ABOUT_ONE if len(paths) == 1 else _ABOUT_SEVERAL


def _describe_file(path: str) -> dict[str, Any]:
    return {"path": path, "mime_type": mimetypes.guess_type(path)[0], "orig_name": Path(path).name}


def write_answer(text: str, *, is_open: bool = False, is_plain: bool = False) -> Message:
    """The model's message. ``is_open``: more of it is to come; left open, it counts as interrupted."""
    message = _write(message_html.render_answer(text, is_open=is_open, is_plain=is_plain))
    return {**message, "metadata": {"id": _OPEN}} if is_open else message


def write_notice(sentence: str, *, is_error: bool = False) -> Message:
    """A message from the server rather than the model. ``is_error``: it takes the place of an answer."""
    message = _write(message_html.render_notice(sentence, is_error=is_error))
    return {**message, "metadata": {"id": _ERROR if is_error else _NOTICE}}


def _write(shown: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": shown}]}


def _kind(message: Message) -> str:
    return str((message.get("metadata") or {}).get("id", ""))


def is_notice(message: Message) -> bool:
    """Whether a message is from the server rather than the model or the user."""
    return _kind(message) in (_NOTICE, _ERROR)


def read_message(message: Message) -> tuple[str, list[str]]:
    """A message's source text, and the paths of its files."""
    parts = message["content"]
    text = "\n".join(message_html.extract_text(part["text"]) for part in parts if part["type"] == "text")
    return text, [part["file"]["path"] for part in parts if part["type"] == "file"]


@dataclass(frozen=True)
class Turn:
    """A question with its images, and its answer; None if it failed or is still to be answered."""

    question: str
    paths: tuple[str, ...]
    answer: str | None
    begin: int  # index of its first message
    end: int  # index after its last one


def find_turns(messages: Sequence[Message]) -> list[Turn]:
    """The turns in order. Images belong to the text that follows them; a notice ends an open turn."""
    turns: list[Turn] = []
    open_turn: Turn | None = None
    for index, message in enumerate(messages):
        text, paths = read_message(message)
        if message["role"] == "user":
            if open_turn is not None and open_turn.question:
                turns.append(open_turn)
                open_turn = None
            if open_turn is None:
                open_turn = Turn("", (), None, index, index)
            open_turn = replace(open_turn, question=text, paths=(*open_turn.paths, *paths), end=index + 1)
        elif open_turn is not None:
            turns.append(open_turn if is_notice(message) else replace(open_turn, answer=text, end=index + 1))
            open_turn = None
    return [*turns, open_turn] if open_turn is not None else turns


def find_turn(messages: Sequence[Message], index: int) -> Turn:
    """The turn of the message at ``index``, or the last one before it. Raises UsageError if there is none."""
    found = [turn for turn in find_turns(messages) if turn.begin <= index]
    if not found:
        raise UsageError("There is no question to go back to.")
    return found[-1]


def read_kept(kept: str, uploaded: UploadedImages) -> list[Message]:
    """The messages of a conversation that a browser saved as JSON; none if the JSON is invalid.

    Errors are dropped, and so are images that are no longer stored, which a notice reports. An answer that had not
    ended is marked as interrupted.
    """
    written: list[Message] = []
    gone: list[str] = []
    num_characters = 0
    try:
        for message in _read_list(json.loads(kept), _MAX_SAVED_MESSAGES):
            text, paths = read_message(message)
            num_characters += len(text)
            if message["role"] == "user":
                gone += [Path(path).name for path in paths if not uploaded.holds(path)]
                written += write_question(text, [path for path in paths if uploaded.holds(path)])
            elif _kind(message) == _NOTICE:
                written.append(write_notice(text))
            elif _kind(message) != _ERROR:
                is_plain = num_characters > _MARKDOWN_CHARACTERS
                written.append(write_answer(text, is_plain=is_plain))
                written += [write_notice(_INTERRUPTED)] if _kind(message) == _OPEN else []
    except _INVALID:
        return []
    written = tidy(written)
    if gone:
        what, it = (f"{len(gone)} images of this chat are", "them") if gone[1:] else (f"The image {gone[0]} is", "it")
        written.append(write_notice(f"{what} no longer on the server. Attach {it} again to ask more about {it}."))
    return written


def read_draft(kept: str, uploaded: UploadedImages) -> tuple[str, list[str]]:
    """The unsent text and its images, as a browser saved them."""
    try:
        draft = json.loads(kept)
        paths = [path for path in _read_list(draft["files"], _MAX_SAVED_FILES) if uploaded.holds(path)]
        return message_html.sanitize(draft["text"]), paths
    except _INVALID:
        return "", []


def read_settings(kept: str) -> tuple[list[float], Any]:
    """The settings that a browser saved: numbers, and after them a choice; none if they are invalid."""
    try:
        *numbers, choice = _read_list(json.loads(kept), _MAX_SAVED_FILES)
        return [float(number) for number in numbers], choice
    except _INVALID:
        return [], None


def _read_list(value: Any, most: int) -> list[Any]:
    """The list. Raises ValueError if it is not one, or has more than ``most`` items."""
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("not a list that a page saved")
    return value


def tidy(messages: Sequence[Message]) -> list[Message]:
    """The messages without errors whose question is gone, and with open answers marked as interrupted."""
    tidied: list[Message] = []
    num_characters = 0
    for index, message in enumerate(messages):
        if _kind(message) == _OPEN:
            text = read_message(message)[0]
            num_characters += len(text)
            tidied.append(write_answer(text, is_plain=num_characters > _MARKDOWN_CHARACTERS))
            tidied.append(write_notice(_INTERRUPTED))
        elif _kind(message) != _ERROR or (index > 0 and messages[index - 1]["role"] == "user"):
            tidied.append(message)
    return tidied
