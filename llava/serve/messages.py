"""Parses clients' messages, in the dialects of various front ends and agents, into texts and images.

LLaVA calls no tools, but a history may contain tool calls and their results. They become text in the format of Hermes
and Qwen models: ``<tool_call>`` around a JSON object with name and arguments in the assistant's turn, and
``<tool_response>`` around a result in the user's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator


def _as_part(value: Any) -> Any:
    return {"type": "text", "text": value} if isinstance(value, str) else value


class TextPart(BaseModel):
    """A text part of a message."""

    type: Literal["text", "input_text", "output_text"]
    text: str


class RefusalPart(BaseModel):
    """An assistant's refusal in OpenAI's format. It is treated as text."""

    type: Literal["refusal"]
    text: Annotated[str, Field(alias="refusal")]


class ReasoningPart(BaseModel):
    """A model's reasoning. It is dropped: it is not part of the conversation."""

    type: Literal["thinking", "redacted_thinking", "reasoning"]
    text: str = ""

    @model_validator(mode="before")
    @classmethod
    def _drop(cls, value: Any) -> Any:
        return {"type": value.get("type")} if isinstance(value, dict) else value


def _as_object(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _as_detail(value: Any) -> Any:
    """Maps ``original``, the unscaled image, to ``high``: the checkpoint's own tiling comes closest to it."""
    if isinstance(value, str):
        value = value.lower()
        return "high" if value == "original" else value
    return value


Detail = Annotated[Literal["auto", "low", "high"], BeforeValidator(_as_detail)]


class ImageURL(BaseModel):
    """An image's URL and how closely to look at it."""

    url: Annotated[str, Field(min_length=1)]
    detail: Annotated[Detail, BeforeValidator(lambda said: "auto" if said is None else said)] = "auto"


class ImagePart(BaseModel):
    """An image part of a message."""

    type: Literal["image_url", "input_image"]
    image_url: Annotated[ImageURL, BeforeValidator(_as_object)]
    detail: Detail | None = None  # /v1/responses has it here

    @model_validator(mode="before")
    @classmethod
    def _refuse_files(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("file_id") and not value.get("image_url"):
            raise ValueError("this server stores no files, so it cannot resolve a file_id: send the image as image_url")
        return value


Part = Annotated[
    TextPart | RefusalPart | ReasoningPart | ImagePart, Field(discriminator="type"), BeforeValidator(_as_part)
]


def _as_parts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Call(BaseModel):
    """A tool call: its name, and its arguments as the client wrote them."""

    name: str
    arguments: Any = None

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        said = next((value[key] for key in ("function", "custom") if isinstance(value.get(key), dict)), value)
        written = next((said[key] for key in ("arguments", "input", "args") if said.get(key) is not None), None)
        return {"name": said.get("name"), "arguments": written}

    @property
    def text(self) -> str:
        """The call as text for the prompt."""
        said = self.arguments
        is_json = isinstance(said, str) and said.lstrip()[:1] in ("{", "[")
        arguments = said if is_json else json.dumps({} if said in (None, "") else said, ensure_ascii=False)
        name = json.dumps(self.name, ensure_ascii=False)
        return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def _as_list(value: Any) -> Any:
    return [] if value is None else value


def _refuse_audio(value: Any) -> None:
    if value:
        raise ValueError("this server stores nothing, so earlier audio cannot be referenced: send its text as content")


_ANSWERING, _RESULTS = ("assistant",), ("tool", "function")


class Message(BaseModel):
    """One message. Only an assistant's and a tool's content may be null or missing."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[list[Part], Field(fail_fast=True), BeforeValidator(_as_parts)]
    tool_calls: Annotated[list[Call], Field(fail_fast=True), BeforeValidator(_as_list)] = []
    function_call: Call | None = None
    refusal: str | None = None
    audio: Annotated[None, BeforeValidator(_refuse_audio)] = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        may_be_silent = isinstance(value, dict) and value.get("role") in (*_ANSWERING, *_RESULTS)
        return {**value, "content": []} if may_be_silent and value.get("content") is None else value

    @property
    def prefix(self) -> str:
        """The text before the content."""
        return "<tool_response>" if self.role in _RESULTS else ""

    @property
    def suffix(self) -> str:
        """The text after the content: the tool calls, or the end tag of a result."""
        if self.role in _RESULTS:
            return "</tool_response>"
        calls = [*self.tool_calls, *([self.function_call] if self.function_call else ())]
        refusal = [self.refusal] if self.refusal and not self.content else []
        return "\n".join([*refusal, *(call.text for call in calls)])

    @property
    def speaker(self) -> Literal["system", "user", "assistant"]:
        """The role of the turn that the message belongs to."""
        if self.role in ("system", "developer"):
            return "system"
        return "assistant" if self.role == "assistant" else "user"

    @property
    def num_characters(self) -> int:
        """The length of all its text."""
        texts = sum(len(part.text) for part in self.content if not isinstance(part, ImagePart))
        return texts + len(self.prefix) + len(self.suffix)

    @property
    def has_content(self) -> bool:
        """False for an assistant's message without text or images, which is dropped."""
        return self.speaker != "assistant" or bool(
            self.suffix or any(isinstance(part, ImagePart) or part.text.strip() for part in self.content)
        )


def as_message(item: Any) -> Any:
    """An item of /v1/responses as a message. Reasoning becomes an empty message, which is dropped."""
    if not isinstance(item, dict):
        return item
    kind = item.get("type", "message")
    if kind in ("function_call", "custom_tool_call"):
        return {"role": "assistant", "tool_calls": [item]}
    if kind in ("function_call_output", "custom_tool_call_output"):
        return {"role": "tool", "content": item.get("output")}
    if kind == "reasoning":
        return {"role": "assistant"}
    if kind == "item_reference":
        raise ValueError("this server stores nothing, so an item cannot be referenced: send the item itself")
    if kind != "message":
        raise ValueError(
            f"the type is '{str(kind)[:80]}'; it has to be message, function_call, function_call_output, "
            "custom_tool_call, custom_tool_call_output or reasoning"
        )
    return item


def turn_roles(messages: Sequence[Message]) -> list[str]:
    """The roles of the messages that have content, in order."""
    return [message.speaker for message in messages if message.has_content]
