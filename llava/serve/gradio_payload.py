"""Validates the payload of a call to the web page's functions before Gradio sees any of it.

Gradio downloads URLs that a file object names, creates components that a message names, and prints payloads that it
fails on. So it only gets values of the types that the page's own components hold, and files that were uploaded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import gradio as gr
from gradio.block_function import BlockFunction
from pydantic import ValidationError

from llava.serve.api_errors import ApiError, limit_exceeded
from llava.serve.limits import Limits
from llava.serve.upload_store import UploadStore

Json = Any

_KEYS = {"data", "event_data", "fn_index", "trigger_id", "session_hash"}
# An object with any of these keys may be taken for a file, by Gradio or by the page.
_FILE_MARKS = {"path", "url", "_type", "meta", "is_stream", "orig_name", "mime_type"}
_FILE_KEYS = {"path", "url", "size", "orig_name", "mime_type", "is_stream", "meta"}
_FILE_META = {"_type": "gradio.FileData"}
_FILE_ROUTE = "/gradio_api/file="
_MAX_DEPTH = 24
# Multiples of the limit ``characters`` that a chat may contain: it has each text twice (source and HTML), and one
# somewhat over the limit has to arrive for the user to be told.
_CHARACTERS_RATIO = 12
# JSON values per message: five times what the largest allowed chat has, with an image in each message.
_VALUES_PER_MESSAGE = 128
_PARTS = {"text": {"text", "type"}, "file": {"file", "alt_text", "type"}}
_ROLES = ("user", "assistant")


def check_call(
    call: Json, blocks: gr.Blocks, uploads: UploadStore, limits: Limits, hosts: frozenset[str], *, is_queued: bool
) -> dict[str, Json]:
    """The validated call for Gradio. ``hosts``: the names by which the page may address this server.

    Raises ApiError (400) for anything that the page itself would not send.
    """
    if any(value is not None for key, value in call.items() if key not in _KEYS):
        raise _invalid_call("it has unknown fields")
    function = _find_function(call.get("fn_index"), blocks, is_queued)
    data, trigger = call.get("data"), call.get("trigger_id")
    if not isinstance(data, list) or len(data) != len(function.inputs):
        raise _invalid_call(f"the function takes {len(function.inputs)} values", "data")
    triggers = {part for one in blocks.fns.values() for part, _ in one.targets}
    if trigger is not None and (type(trigger) is not int or trigger not in triggers):
        raise _invalid_call("it names no component of the page", "trigger_id")
    _Checker(uploads, hosts, limits).check([data, call.get("event_data")])
    for index, (component, value) in enumerate(zip(function.inputs, data, strict=True)):
        _check_value(component, value, f"data.{index}")
    if function.collects_event_data:
        _check_event(function, data, call.get("event_data"))
    return {key: call.get(key) for key in _KEYS}


def _invalid_call(why: str, param: str | None = None) -> ApiError:
    return ApiError(
        400, f"The web page does not send such a call: {why}. Reload the page.", param=param, code="bad_call"
    )


def _find_function(index: Json, blocks: gr.Blocks, is_queued: bool) -> BlockFunction:
    function = blocks.fns.get(index) if type(index) is int else None
    if function is None or function.fn is None:
        raise _invalid_call("there is no such function", "fn_index")
    if any(event == "unload" for _, event in function.targets):
        raise _invalid_call("the function cannot be called", "fn_index")
    if (function.queue is not False) != is_queued:
        raise _invalid_call("the function is called by another route", "fn_index")
    return function


class _Checker:
    """Checks all values of a call recursively."""

    def __init__(self, uploads: UploadStore, hosts: frozenset[str], limits: Limits) -> None:
        self._uploads, self._hosts = uploads, hosts
        self._limits, self._num_characters, self._num_values = limits, 0, 0

    def check(self, value: Json, depth: int = 0) -> None:
        self._num_values += 1
        if self._num_values > _VALUES_PER_MESSAGE * self._limits.messages:
            value = "The chat has too many messages"
            raise limit_exceeded("messages", self._limits.messages, value, "Start a new chat.")
        if depth > _MAX_DEPTH:
            raise _invalid_call("it is nested too deeply")
        if isinstance(value, str):
            self._count(value)
        elif isinstance(value, list):
            for one in value:
                self.check(one, depth + 1)
        elif isinstance(value, dict):
            for key in value:
                self._count(key)
            if "component" in value or "constructor_args" in value or any(key.startswith("__") for key in value):
                raise _invalid_call("it defines components")
            if any(key.lower() in _FILE_MARKS for key in value) and value != _FILE_META:
                self._check_file(value)
            for one in value.values():
                self.check(one, depth + 1)

    def _count(self, text: str) -> None:
        self._num_characters += len(text)
        if self._num_characters > _CHARACTERS_RATIO * self._limits.characters:
            value = f"The chat has {self._num_characters:,} characters or more"
            raise limit_exceeded("characters", self._limits.characters, value, "Start a new chat.")

    def _check_file(self, file: Mapping[str, Json]) -> None:
        path, url = file.get("path"), file.get("url")
        if file.keys() - _FILE_KEYS or file.get("meta") != _FILE_META or file.get("is_stream") not in (None, False):
            raise _invalid_call("a file object has unknown fields")
        size, texts = file.get("size"), (file.get("orig_name"), file.get("mime_type"))
        if type(size) not in (int, type(None)) or not all(isinstance(text, (str, type(None))) for text in texts):
            raise _invalid_call("a file's size, name or type has the wrong type")
        if not isinstance(path, str) or not self._uploads.holds(path):
            raise ApiError(400, "An image in this chat was not uploaded here. Upload it again.", code="unknown_file")
        if url is not None and not self._is_address(url, path):
            raise _invalid_call("a file's URL is not on this server")

    def _is_address(self, url: Json, path: str) -> bool:
        if not isinstance(url, str):
            return False
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        is_whole = bool(parts.netloc or parts.scheme)
        if is_whole and (parts.scheme not in ("http", "https") or parts.netloc.lower() not in self._hosts):
            return False
        before, route, named = parts.path.partition(_FILE_ROUTE)
        return route == _FILE_ROUTE and "//" not in before and unquote(named) == path and not parts.query


def _check_value(component: Any, value: Json, param: str) -> None:
    """Raises ApiError if the component cannot hold this value."""
    if isinstance(component, gr.Chatbot):
        _check_messages(value, param)
        _check_model(component, value, param)
    elif isinstance(component, gr.Slider):
        if type(value) not in (int, float) or not component.minimum <= value <= component.maximum:
            raise _invalid_call(f"the value is not between {component.minimum} and {component.maximum}", param)
    elif isinstance(component, (gr.Radio, gr.Dropdown)):
        if not isinstance(value, (str, int, float)) or value not in [choice for _, choice in component.choices]:
            raise _invalid_call("the value is not one of the choices", param)
    elif isinstance(component, gr.MultimodalTextbox):
        if value is not None:
            _check_model(component, value, param)
    elif isinstance(component, (gr.Textbox, gr.HTML)):
        if value is not None and not isinstance(value, str):
            raise _invalid_call("the value is not a string", param)
    elif isinstance(component, gr.Checkbox):
        if not isinstance(value, bool):
            raise _invalid_call("the value is not a boolean", param)
    elif getattr(component, "data_model", None):
        _check_model(component, value, param)
    elif isinstance(value, (list, dict)):
        raise _invalid_call("the value has the wrong type", param)


def _check_model(component: Any, value: Json, param: str) -> None:
    try:
        component.data_model.model_validate(value, context={"validate_meta": True})
    except ValidationError as error:
        raise _invalid_call("the value has the wrong type", param) from error


def _check_messages(messages: Json, param: str) -> None:
    if not isinstance(messages, list):
        raise _invalid_call("the chat is not a list of messages", param)
    for index, message in enumerate(messages):
        place = f"{param}.{index}"
        if not isinstance(message, dict) or message.keys() - {"role", "content", "metadata", "options"}:
            raise _invalid_call("this is not a message", place)
        content = message.get("content")
        if message.get("role") not in _ROLES or not isinstance(content, list):
            raise _invalid_call("this is not a message", place)
        for part in content:
            _check_part(part, place)
        _check_metadata(message.get("metadata"), place)
        if message.get("options"):
            raise _invalid_call("a message has options", place)


def _check_part(part: Json, place: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _PARTS or part.keys() - _PARTS[kind]:
        raise _invalid_call("a part of a message is neither text nor a file", place)
    if kind == "text" and not isinstance(part.get("text"), str):
        raise _invalid_call("a text part has no text", place)
    if kind == "file" and not (isinstance(part.get("file"), dict) and "path" in part["file"]):
        raise _invalid_call("a file part has no file", place)
    if not isinstance(part.get("alt_text"), (str, type(None))):
        raise _invalid_call("a file's alt text is not a string", place)


def _check_metadata(metadata: Json, place: str) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or any(isinstance(value, (list, dict)) for value in metadata.values()):
        raise _invalid_call("a message's metadata has the wrong type", place)


def _check_event(function: BlockFunction, data: Sequence[Json], event: Json) -> None:
    """Raises ApiError if the event data do not fit: which message was acted on, and how."""
    if not isinstance(event, dict) or "value" not in event:
        raise _invalid_call("it has no event data", "event_data")
    events = {name for _, name in function.targets}
    value, index = event.get("value"), event.get("index")
    if type(index) is list and index and type(index[0]) is int:
        index = index[0]
    if type(index) is not int or index < 0:
        raise _invalid_call("it does not say which message the event is about", "event_data.index")
    if "example_select" in events:
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise _invalid_call("the example is invalid", "event_data.value")
        files = value.get("files", [])
        if not isinstance(files, list) or not all(isinstance(file, dict) and "path" in file for file in files):
            raise _invalid_call("the example is invalid", "event_data.value")
        return
    for component, messages in zip(function.inputs, data, strict=True):
        if isinstance(component, gr.Chatbot):
            if not any(message["role"] == "user" for message in messages[: index + 1]) or index >= len(messages):
                raise _invalid_call("there is no such message", "event_data.index")
            if "like" in events:
                _check_vote(event.get("liked"), component.feedback_options)
    if "edit" in events and not (isinstance(value, str) and isinstance(event.get("previous_value"), str)):
        raise _invalid_call("the edited text is not a string", "event_data.value")


def _check_vote(liked: Json, options: Sequence[str] | None) -> None:
    if not (liked is None or isinstance(liked, bool) or (isinstance(liked, str) and liked in ("", *(options or ())))):
        raise _invalid_call("there is no such vote", "event_data.liked")
