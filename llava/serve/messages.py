"""A client's messages in the dialects that front ends and agents write them in, read as texts and images.

LLaVA calls no tools, but a history may hold calls and their results. They become text, in the form that Hermes and Qwen
models know: ``<tool_call>`` around a JSON object with the name and the arguments, in the assistant's turn, and
``<tool_response>`` around a result, in the user's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator


def _as_part(value: Any) -> Any:
    return {"type": "text", "text": value} if isinstance(value, str) else value


class TextPart(BaseModel):
    type: Literal["text", "input_text", "output_text"]
    text: str


class RefusalPart(BaseModel):
    """What an assistant said when it refused to answer; it is text like any other."""

    type: Literal["refusal"]
    text: Annotated[str, Field(alias="refusal")]


class ReasoningPart(BaseModel):
    """What a model thought before it answered: no part of the conversation."""

    type: Literal["thinking", "redacted_thinking", "reasoning"]
    text: str = ""

    @model_validator(mode="before")
    @classmethod
    def _drop(cls, value: Any) -> Any:
        return {"type": value.get("type")} if isinstance(value, dict) else value


def _as_object(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


def _as_detail(value: Any) -> Any:
    """``original`` asks for the image as it is, which is what the checkpoint's own tiling comes closest to."""
    if isinstance(value, str):
        value = value.lower()
        return "high" if value == "original" else value
    return value


Detail = Annotated[Literal["auto", "low", "high"], BeforeValidator(_as_detail)]


class ImageURL(BaseModel):
    url: Annotated[str, Field(min_length=1)]
    detail: Annotated[Detail, BeforeValidator(lambda said: "auto" if said is None else said)] = "auto"


class ImagePart(BaseModel):
    type: Literal["image_url", "input_image"]
    image_url: Annotated[ImageURL, BeforeValidator(_as_object)]
    detail: Detail | None = None  # where /v1/responses has it

    @model_validator(mode="before")
    @classmethod
    def _refuse_files(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("file_id") and not value.get("image_url"):
            raise ValueError("no files are kept here, so file_id names none: send the image as image_url")
        return value


Part = Annotated[
    TextPart | RefusalPart | ReasoningPart | ImagePart, Field(discriminator="type"), BeforeValidator(_as_part)
]


def _as_parts(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Call(BaseModel):
    """A call of a tool, by its name and its arguments as they were written."""

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
        said = self.arguments
        is_json = isinstance(said, str) and said.lstrip()[:1] in ("{", "[")
        arguments = said if is_json else json.dumps({} if said in (None, "") else said, ensure_ascii=False)
        name = json.dumps(self.name, ensure_ascii=False)
        return f'<tool_call>\n{{"name": {name}, "arguments": {arguments}}}\n</tool_call>'


def _as_list(value: Any) -> Any:
    return [] if value is None else value


def _refuse_audio(value: Any) -> None:
    if value:
        raise ValueError("nothing is kept here, so earlier audio cannot be referred to: send what was said as content")


_ANSWERING, _RESULTS = ("assistant",), ("tool", "function")


class Message(BaseModel):
    """One message. Only an assistant and a tool may have said nothing: their content may be null or missing."""

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
    def before(self) -> str:
        """The text in front of the content."""
        return "<tool_response>" if self.role in _RESULTS else ""

    @property
    def after(self) -> str:
        """The text behind the content: the calls, and what closes a result."""
        if self.role in _RESULTS:
            return "</tool_response>"
        calls = [*self.tool_calls, *([self.function_call] if self.function_call else ())]
        refusal = [self.refusal] if self.refusal and not self.content else []
        return "\n".join([*refusal, *(call.text for call in calls)])

    @property
    def speaker(self) -> Literal["system", "user", "assistant"]:
        """Whose turn of a conversation it belongs to."""
        if self.role in ("system", "developer"):
            return "system"
        return "assistant" if self.role == "assistant" else "user"

    @property
    def num_characters(self) -> int:
        texts = sum(len(part.text) for part in self.content if not isinstance(part, ImagePart))
        return texts + len(self.before) + len(self.after)

    @property
    def has_content(self) -> bool:
        """False for an assistant's message without any text or image, which stands for no turn."""
        return self.speaker != "assistant" or bool(
            self.after or any(isinstance(part, ImagePart) or part.text.strip() for part in self.content)
        )


def as_message(item: Any) -> Any:
    """An item of /v1/responses as a message. Reasoning is no part of a conversation: it becomes an empty message."""
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
        raise ValueError("nothing is kept here, so an item cannot be referred to: send the item itself")
    if kind != "message":
        raise ValueError(
            f"the type is '{str(kind)[:80]}'; it has to be message, function_call, function_call_output, "
            "custom_tool_call, custom_tool_call_output or reasoning"
        )
    return item


def turn_roles(messages: Sequence[Message]) -> list[str]:
    """Who says something, in order."""
    return [message.speaker for message in messages if message.has_content]
