"""OpenAI's request and response formats. Requests are validated; unknown fields are ignored.

A known field that would change the answer but is not supported is an error, never ignored (``unsupported_fields``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from llava.backends.protocol import ChatMessage, Delta, TokenLogprob, Usage
from llava.sampling import MAX_LOGPROBS, Sampling
from llava.serve.api_errors import ApiError, limit_exceeded
from llava.serve.limits import Limits
from llava.serve.messages import Message, as_message
from llava.serve.unsupported_fields import check_supported_fields
from llava.text import find_flaw

# Lower temperatures are greedy: dividing logits by them would overflow.
_GREEDY_BELOW = 1e-4


def _as_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole = Annotated[int, BeforeValidator(_as_whole)]
_Int64 = Annotated[_Whole, Field(ge=-(2**63), le=2**63 - 1)]
_Tokens = Annotated[_Whole, Field(ge=1, lt=2**31)]


def _as_stops(value: Any) -> Any:
    """The stop texts as a list. The original's front end sends one string, or null for none; others send a list."""
    return [value] if isinstance(value, str) and value else value or []


class StreamOptions(BaseModel):
    """OpenAI's ``stream_options``."""

    include_usage: Annotated[bool | None, Field(strict=True)] = None


class JSONSchema(BaseModel):
    """OpenAI's ``response_format.json_schema``."""

    name: Annotated[str, Field(min_length=1, max_length=64)] = "answer"
    content: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """OpenAI's ``response_format``, or llama.cpp's, which has the schema next to the type."""

    type: str
    json_schema: JSONSchema | None = None

    @model_validator(mode="before")
    @classmethod
    def _wrap(cls, value: Any) -> Any:
        is_beside = isinstance(value, dict) and value.get("json_schema") is None and value.get("schema") is not None
        if is_beside and value.get("type") in ("json_object", "json_schema"):
            return {"type": "json_schema", "json_schema": {key: value[key] for key in value if key != "type"}}
        return value


class SamplingBody(BaseModel, strict=True):
    """The fields that all kinds of request share. Strict: a quoted number or a boolean is not a number."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[_Whole, Field(ge=-1)] | None = None  # -1 and 0 turn it off, as in vLLM and SGLang
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: _Int64 | None = None
    stop: (
        Annotated[
            list[str],
            Field(fail_fast=True),
            BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
        ]
        | None
    ) = None
    n: Annotated[_Whole, Field(ge=1)] | None = None
    max_tokens: _Tokens | None = None
    # vLLM's names; the last one is Transformers'.
    min_tokens: Annotated[_Whole, Field(ge=0, lt=2**31)] | None = None
    bad_words: Annotated[list[str], Field(fail_fast=True)] | None = None
    no_repeat_ngram_size: Annotated[_Whole, Field(ge=0, lt=2**31)] | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatBody(SamplingBody):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: _Tokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[_Whole, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None


class TextFormat(BaseModel):
    """The field ``text`` of /v1/responses."""

    format: ResponseFormat | None = None


def _as_messages(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class ResponsesBody(SamplingBody):
    """The body of /v1/responses."""

    input: Annotated[
        list[Annotated[Message, BeforeValidator(as_message)]],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(_as_messages),
    ]
    instructions: str | None = None
    max_output_tokens: _Tokens | None = None
    text: TextFormat | None = None


class CompletionBody(SamplingBody):
    """The body of /v1/completions."""

    prompt: Annotated[
        list[str],
        Field(min_length=1, fail_fast=True),
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ]
    logprobs: Annotated[
        Annotated[_Whole, Field(ge=0, le=MAX_LOGPROBS)] | None,
        BeforeValidator(lambda value: None if value is False else value),
    ] = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: _Whole | None = None
    response_format: ResponseFormat | None = None


class WorkerBody(BaseModel):
    """The original worker's request: a rendered prompt with ``<image>`` for each of ``images`` (base64)."""

    model: str | None = None
    prompt: str
    images: Annotated[list[str], Field(fail_fast=True)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0  # 0, the start of the front end's slider, is greedy
    max_new_tokens: Annotated[_Whole, Field(lt=2**31)] = 256
    stop: Annotated[list[str], Field(fail_fast=True), BeforeValidator(_as_stops)] = []


Body = TypeVar("Body", bound=BaseModel)


def check(kind: type[Body], raw: dict[str, Any]) -> Body:
    """``raw`` validated as a body of this kind. Raises ApiError (400), which names the field."""
    check_supported_fields(raw)
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        param, value = _find(raw, first["loc"])
        code = "unsupported_content" if first["type"] == "union_tag_invalid" else "invalid_value"
        raise ApiError(
            400, f"{param or 'The body'}: {_explain(first, value)}", param=param or None, code=code
        ) from error


# Fields that may be a string or a list.
_MAY_BE_TEXT = ("content", "input", "prompt", "stop")


# Pydantic's own messages round large numbers.
_BOUNDS = {
    "greater_than": ("greater than", "gt"),
    "greater_than_equal": ("greater than or equal to", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("less than or equal to", "le"),
}


# Values with a meaning on other servers, and how to ask for the same here.
_AS_MANY = " Leave it out to allow as many tokens as fit."
_REMEDIES: dict[tuple[Any, Any], str] = {
    ("max_tokens", -1): _AS_MANY,
    ("max_completion_tokens", -1): _AS_MANY,
    ("max_output_tokens", -1): _AS_MANY,
    ("top_p", 0): ' For greedy decoding send "temperature": 0.',
}


def _explain(error: Any, value: Any) -> str:
    """A sentence on what is wrong with ``value``."""
    kind = error["type"]
    if kind == "missing":
        return "this field is missing."
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return "a part's type has to be text or image_url."
    if kind == "list_type":
        return f"this has to be a {'string or a ' if error['loc'][-1] in _MAY_BE_TEXT else ''}list."
    if kind == "too_short":
        return "this list is empty; it has to hold at least 1 item."
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "this has to be an object."
    if kind == "value_error":
        return f"{error['msg'].partition(', ')[2]}."
    said = error["msg"]
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        bound = error["ctx"][name]
        said = f"input should be {words} {int(bound) if bound == int(bound) else bound}"
    shown = f", but it is {_show_value(value)}" if isinstance(value, (str, int, float)) else ""
    remedy = _REMEDIES.get((error["loc"][-1], value), "") if isinstance(value, (int, float)) else ""
    return f"{said[:1].lower()}{said[1:]}{shown}.{remedy}"


def _show_value(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and 2**53 < abs(value) < 1e22:
        value = int(value)  # so that all its digits are shown
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _find(raw: Any, place: Sequence[int | str]) -> tuple[str, Any]:
    """The path of a field as the client wrote it, and its value.

    Pydantic's location also contains the names of union members; they are left out.
    """
    path = []
    for i, step in enumerate(place):
        is_last = i == len(place) - 1
        if isinstance(raw, dict) and (step in raw or is_last):
            path.append(str(step))
            raw = raw.get(step)
        elif isinstance(raw, list) and isinstance(step, int):
            path.append(str(step))
            raw = raw[step] if step < len(raw) else None
    return ".".join(path), raw


def read_sampling(body: SamplingBody | WorkerBody, limits: Limits, new_tokens: int | None = None) -> Sampling:
    """The request's sampling parameters. ``new_tokens``: the default for the length of the answer.

    Raises ApiError for a value over a limit.
    """
    stop = tuple(body.stop or ())
    bad_words = () if isinstance(body, WorkerBody) else tuple(body.bad_words or ())
    for param, texts in (("stop", stop), ("bad_words", bad_words)):
        _check_texts(param, texts, limits)
    temperature = 0.0 if body.top_p == 0 else body.temperature or 0.0
    if isinstance(body, WorkerBody):
        asked, rest = body.max_new_tokens, dict[str, Any]()
    else:
        names = ("max_completion_tokens", "max_output_tokens", "max_tokens")
        said = [value for name in names if (value := getattr(body, name, None)) is not None]
        asked = said[0] if said else new_tokens or limits.new_tokens
        _check_min_tokens(body.min_tokens, min(asked, limits.new_tokens))
        rest = {
            "top_k": body.top_k if body.top_k and body.top_k > 0 else None,
            "min_p": body.min_p or 0.0,
            "repetition_penalty": body.repetition_penalty,
            "presence_penalty": body.presence_penalty or 0.0,
            "frequency_penalty": body.frequency_penalty or 0.0,
            "seed": body.seed,
            "min_new_tokens": body.min_tokens,
            "bad_words": bad_words,
            "no_repeat_ngram_size": body.no_repeat_ngram_size,
        }
    return Sampling(
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        top_p=body.top_p or None,
        max_new_tokens=min(asked, limits.new_tokens),
        stop=stop,
        **rest,
    )


def _check_min_tokens(least: int | None, most: int) -> None:
    """Raises ApiError if the minimum length exceeds the maximum."""
    if least is not None and least > most:
        why = f"min_tokens is {least:,}, but the answer may have at most {most:,} tokens. Lower min_tokens."
        raise ApiError(400, why, param="min_tokens", code="invalid_value")


def _check_texts(param: str, texts: Sequence[str], limits: Limits) -> None:
    """Raises ApiError for too many, too long or empty stop texts or bad words."""
    what = "stop text" if param == "stop" else "bad word"
    if len(texts) > limits.stop_texts:
        count = f"There are {len(texts):,} {what}s"
        raise limit_exceeded("stop_texts", limits.stop_texts, count, "Leave some out.", param=param)
    longest = max(map(len, texts), default=0)
    if longest > limits.stop_characters:
        length = f"A {what} has {longest:,} characters"
        raise limit_exceeded("stop_characters", limits.stop_characters, length, "Shorten it.", param=param)
    for text in texts:
        if (flaw := find_flaw(text)) is not None:
            raise ApiError(400, f"The {what} {_show_value(text)} {flaw}.", param=param, code="invalid_value")
    if not all(texts):
        why = f"A {what} is empty; it would end every answer at once."
        raise ApiError(400, why, param=param, code="invalid_value")


def read_format(asked: ResponseFormat | None, param: str, *, can_constrain: bool) -> dict[str, Any] | None:
    """The response format as in chat completions; None is plain text.

    ``param``: the request's field for it. Raises ApiError for an unknown format, and if the engine cannot constrain its
    answers.
    """
    if asked is None or asked.type == "text":
        return None
    shown = f"{param} is '{asked.type[:80]}'"
    if asked.type not in ("json_object", "json_schema"):
        raise ApiError(
            400, f"{shown}; it has to be text, json_object or json_schema.", param=param, code="invalid_value"
        )
    if not can_constrain:
        raise ApiError(
            400,
            f"{shown}, but this engine cannot constrain its answers. Leave it out and ask for JSON in the message.",
            param=param,
            code="unsupported_parameter",
        )
    if asked.type == "json_object":
        return {"type": "json_object"}
    if asked.json_schema is None:
        raise ApiError(400, f"{shown}, but there is no schema.", param=param, code="invalid_value")
    return asked.model_dump(by_alias=True, exclude_none=True)


def system_message(text: str | None) -> tuple[ChatMessage, ...]:
    """A system message with that text; empty if there is none."""
    return (ChatMessage("system", (text,)),) if text else ()


def read_choices(body: SamplingBody, limits: Limits) -> int:
    """The number of answers, ``n``. Raises ApiError over the limit ``choices``."""
    num_choices = body.n or 1
    if num_choices > limits.choices:
        raise limit_exceeded("choices", limits.choices, f"n is {num_choices:,}", "Ask for fewer.", param="n")
    return num_choices


@dataclass(frozen=True)
class ResponseEnvelope:
    """The fields that a response and all of its chunks share."""

    id: str
    created: int
    model: str
    fingerprint: str

    def chat(self, choices: list[dict[str, Any]], *, chunk: bool, **more: Any) -> dict[str, Any]:
        """A chat completion, or a chunk of one."""
        return self._make("chat.completion.chunk" if chunk else "chat.completion", choices, more)

    def completion(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        """A text completion, or a chunk of one."""
        return self._make("text_completion", choices, more)

    def _make(self, kind: str, choices: list[dict[str, Any]], more: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            **more,
        }


@dataclass
class Choice:
    """One choice, accumulated from its deltas."""

    index: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    stop_reason: str | None = None


def write_end(end: Delta | Choice | None) -> dict[str, str | None]:
    """Why an answer ended: OpenAI's ``finish_reason``, and vLLM's ``stop_reason``, which is more specific."""
    if end is None:
        return {"finish_reason": None, "stop_reason": None}
    return {"finish_reason": end.finish_reason, "stop_reason": end.stop_reason}


def collect_choices(deltas: Iterable[Delta], num_choices: int) -> list[Choice]:
    """The choices in order, accumulated from their deltas."""
    choices = [Choice(index) for index in range(num_choices)]
    for delta in deltas:
        choice = choices[delta.index]
        choice.text += delta.text
        choice.logprobs += delta.logprobs
        choice.finish_reason = delta.finish_reason or choice.finish_reason
        choice.stop_reason = delta.stop_reason or choice.stop_reason
    return choices


def write_usage(usage: Usage | None) -> dict[str, Any] | None:
    """OpenAI's ``usage``."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "image_tokens": usage.image_tokens},
    }


def write_chat_logprobs(logprobs: Sequence[TokenLogprob], num_top: int | None) -> dict[str, Any] | None:
    """The log-probabilities in the format of chat completions; None if they were not requested."""
    if num_top is None:
        return None

    def write(token: str, logprob: float) -> dict[str, Any]:
        return {"token": _show(token), "logprob": logprob, "bytes": list(_encode(token))}

    content = [{**write(one.token, one.logprob), "top_logprobs": [write(*top) for top in one.top]} for one in logprobs]
    return {"content": content, "refusal": None}


def write_completion_logprobs(
    logprobs: Sequence[TokenLogprob], num_top: int | None, start: int = 0
) -> dict[str, Any] | None:
    """The log-probabilities in the format of /v1/completions. The sampled token is always in ``top_logprobs``.

    ``start``: the text offset of the first token.
    """
    if num_top is None:
        return None
    offsets = []
    for one in logprobs:
        offsets.append(start)
        start += count_characters(one)
    return {
        "tokens": [_show(one.token) for one in logprobs],
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": [
            {_show(token): logprob for token, logprob in (*one.top, (one.token, one.logprob))} for one in logprobs
        ],
        "text_offset": offsets,
    }


def count_characters(one: TokenLogprob) -> int:
    """How many characters begin in the token."""
    return sum(byte & 0xC0 != 0x80 for byte in _encode(one.token))


def _encode(token: str) -> bytes:
    return token.encode("utf-8", "surrogateescape")


def _show(token: str) -> str:
    """The token as OpenAI writes it: bytes of an incomplete character as ``\\xf0``."""
    return _encode(token).decode("utf-8", "backslashreplace")
