"""Dialects of front ends and agents: tool-call histories, no-op fields, image forms, numbers."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava.backends.protocol import ChatMessage, SentImage
from llava.backends.remote import Remote
from llava.backends.turns import write_conversation
from llava.conversation import conv_templates
from llava.errors import EngineFailed
from llava.serve.api_errors import ApiError, limit_exceeded, to_api_error
from llava.serve.app import create_app
from llava.serve.limits import Settings
from llava.serve.openai_routes import list_models
from llava.serve.schemas import ChatBody, ResponsesBody, check, read_format
from llava.serve.service import Service
from tests.serve.conftest import LIMITS
from tests.serve.serving import Puppet, Running, data_uri, run_server

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
DEMO = (Path(__file__).resolve().parents[2] / "examples/demo.png").read_bytes()
URI = data_uri(DEMO)
HI = {"role": "user", "content": "Hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "the sign"}'}}
CALLED = '<tool_call>\n{"name": "look", "arguments": {"at": "the sign"}}\n</tool_call>'


def answered(*parts: str) -> tuple[str, ...]:
    return ("<tool_response>", *parts, "</tool_response>")


@pytest.fixture(scope="module")
def puppet() -> Puppet:
    puppet = Puppet(num_tokens=1)
    puppet.constrains_answers = True
    return puppet


@pytest.fixture(scope="module")
def running(puppet: Puppet) -> Iterator[Running]:
    with run_server(puppet, Settings(limits=LIMITS)) as running:
        yield running


def heard(running: Running, puppet: Puppet, path: str, asked: dict[str, Any]) -> list[tuple[str, tuple[Any, ...]]]:
    """The messages that reach the engine."""
    reply = running.post(path, asked)
    assert reply.status == 200, reply.body
    return [(message.role, message.parts) for message in puppet.requests[-1].messages]


HISTORIES: dict[str, tuple[list[Any], list[tuple[str, tuple[str, ...]]]]] = {
    "open webui: a call, its result, and the answer": (
        [
            HI,
            {"role": "assistant", "content": "", "tool_calls": [{"index": 0, **CALL}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "MORTALS"},
            {"role": "assistant", "content": "It says MORTALS."},
            HI,
        ],
        [
            ("user", ("Hi",)),
            ("assistant", (CALLED,)),
            ("user", answered("MORTALS")),
            ("assistant", ("It says MORTALS.",)),
            ("user", ("Hi",)),
        ],
    ),
    "langchain: content null beside a call, and lists of parts": (
        [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "name": "look", "content": [{"type": "text", "text": "x"}]},
        ],
        [
            ("system", ("Be brief.",)),
            ("user", ("Hi",)),
            ("assistant", (CALLED,)),
            ("user", answered("x")),
        ],
    ),
    "openai's own client replays what it got": (
        [
            {"role": "developer", "content": "Be brief."},
            HI,
            {
                "content": "Hello.",
                "refusal": None,
                "role": "assistant",
                "annotations": [],
                "audio": None,
                "function_call": None,
                "tool_calls": None,
            },
            HI,
        ],
        [("system", ("Be brief.",)), ("user", ("Hi",)), ("assistant", ("Hello.",)), ("user", ("Hi",))],
    ),
    "the functions of old": (
        [
            HI,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}},
            {"role": "function", "name": "f", "content": None},
        ],
        [
            ("user", ("Hi",)),
            ("assistant", ('<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',)),
            ("user", answered()),
        ],
    ),
    "langchain's own names, and what a model thought before it answered": (
        [
            HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                    {"type": "reasoning", "text": "Hm.", "summary": []},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "Hello."},
                ],
                "tool_calls": [{"type": "tool_call", "id": "1", "name": "look", "args": {"at": "the sign"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "x"},
        ],
        [("user", ("Hi",)), ("assistant", ("Hello.", CALLED)), ("user", answered("x"))],
    ),
    "a refusal as a part and as a field, and words without a part": (
        [
            HI,
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            HI,
            {"role": "assistant", "content": None, "refusal": "Never."},
            {"role": "user", "content": ["Hi", {"type": "input_text", "text": "there"}]},
        ],
        [
            ("user", ("Hi",)),
            ("assistant", ("No.",)),
            ("user", ("Hi",)),
            ("assistant", ("Never.",)),
            ("user", ("Hi", "there")),
        ],
    ),
    "nothing said: missing, null, an empty list, and an empty turn at the end for the answer": (
        [
            HI,
            {"role": "assistant"},
            {"role": "user", "content": []},
            {"role": "assistant", "content": []},
            HI,
            {"role": "assistant", "content": ""},
        ],
        [("user", ("Hi",)), ("assistant", ()), ("user", ()), ("assistant", ()), ("user", ("Hi",)), ("assistant", ())],
    ),
    "a custom tool, and arguments that are an object or no JSON": (
        [
            HI,
            {
                "role": "assistant",
                "tool_calls": [
                    {"type": "custom", "custom": {"name": "sh", "input": "ls"}},
                    {"function": {"name": "f", "arguments": {"ä": 1}}},
                ],
            },
            {"role": "tool", "content": "a.png"},
        ],
        [
            ("user", ("Hi",)),
            (
                "assistant",
                (
                    '<tool_call>\n{"name": "sh", "arguments": "ls"}\n</tool_call>\n'
                    '<tool_call>\n{"name": "f", "arguments": {"ä": 1}}\n</tool_call>',
                ),
            ),
            ("user", answered("a.png")),
        ],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_is_read(running: Running, puppet: Puppet, name: str) -> None:
    messages, wanted = HISTORIES[name]
    assert heard(running, puppet, CHAT, {"messages": messages}) == wanted


def test_the_items_of_an_agent_are_read(running: Running, puppet: Puppet) -> None:
    items = [
        {"role": "user", "content": "Hi", "type": "message"},
        {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "look", "arguments": '{"at": "the sign"}'},
        {"type": "function_call_output", "call_id": "1", "output": "MORTALS"},
        {"type": "custom_tool_call", "call_id": "2", "name": "sh", "input": "ls"},
        {
            "type": "custom_tool_call_output",
            "call_id": "2",
            "output": [{"type": "input_text", "text": "a.png"}, {"type": "input_image", "image_url": URI}],
        },
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "It says MORTALS.", "annotations": [], "logprobs": []}],
        },
        {"role": "user", "content": [{"type": "input_text", "text": "Sure?"}]},
    ]
    said = heard(running, puppet, RESPONSES, {"input": items, "instructions": "Be brief.", "tools": []})
    assert [role for role, _ in said] == [
        *("system", "user", "assistant", "assistant", "user", "assistant", "user", "assistant", "user")
    ]
    assert said[3] == ("assistant", (CALLED,))
    assert said[4] == ("user", answered("MORTALS"))
    begin, text, shown, end = said[6][1]
    assert (begin, text, end) == ("<tool_response>", "a.png", "</tool_response>")
    assert isinstance(shown, SentImage)
    assert said[-1] == ("user", ("Sure?",))


@pytest.mark.parametrize(
    ("path", "asked", "says"),
    [
        (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, r"input\.0: this server stores nothing"),
        (RESPONSES, {"input": [{"type": "computer_call"}]}, r"input\.0: the type is 'computer_call'; it has to be"),
        (RESPONSES, {"input": "Hi", "top_logprobs": 2}, "returns no log-probabilities"),
        (RESPONSES, {"input": "Hi", "background": True}, "background is not supported"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": None}]},
            r"messages\.0\.content: this has to be a string or a",
        ),
        (CHAT, {"messages": [{"role": "assistant", "audio": {"id": "1"}}, HI]}, "earlier audio cannot be referenced"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
            "this server stores no files",
        ),
    ],
)
def test_what_refers_to_something_kept_is_refused(running: Running, path: str, asked: Any, says: str) -> None:
    reply = running.post(path, asked)
    assert reply.status == 400
    assert re.search(says, reply.error["message"])


# What may be last

ASSISTANT, SYSTEM = {"role": "assistant", "content": "It says"}, {"role": "system", "content": "In French."}


@pytest.mark.parametrize(
    ("messages", "is_answered"),
    [
        ([HI], True),
        ([HI, SYSTEM], True),
        ([HI, ASSISTANT, SYSTEM], True),
        ([HI, {"role": "assistant", "content": None}], True),
        ([HI, ASSISTANT], False),
        ([HI, {"role": "assistant", "tool_calls": [CALL]}], False),
        ([SYSTEM], False),
        ([ASSISTANT], False),
        ([{"role": "assistant", "content": ""}], False),
    ],
)
def test_what_may_be_last_is_the_same_on_every_route(running: Running, messages: Any, is_answered: bool) -> None:
    for path, name in ((CHAT, "messages"), (RESPONSES, "input")):
        for more in ({}, {"stream": True}):
            reply = running.post(path, {name: messages, **more})
            if is_answered:
                assert reply.status == 200
            else:
                assert (reply.status, reply.error["param"]) == (400, name)
                assert "End with a user's message" in reply.error["message"]
    for name, value in (("continue_final_message", True), ("add_generation_prompt", False)):
        reply = running.post(CHAT, {"messages": messages, name: value})
        assert (reply.status, reply.error["param"]) == (400, name)


# Fields that ask for nothing

TOOL = {"type": "function", "function": {"name": "look", "parameters": {}}}
NOTHING: list[dict[str, Any]] = [
    {"logprobs": False, "top_logprobs": 0},
    {"top_logprobs": 0},
    {"tools": [TOOL], "tool_choice": "none"},
    {"tools": [], "tool_choice": "none"},
    {"functions": [{"name": "f"}], "function_call": "none"},
    {"functions": [], "function_call": None},
    {"tool_choice": {"type": "none"}},
    {"parallel_tool_calls": False},
    {"logit_bias": {}},
    {"logit_bias": {"5": 0, "6": 0.0}},
    {"stop": []},
    {"response_format": {"type": "text"}},
    {"modalities": ["text"]},
    {"stream_options": None},
    {"service_tier": "default", "store": False, "reasoning_effort": "none", "verbosity": "low"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"add_generation_prompt": True, "continue_final_message": False},
    {"guided_regex": "", "grammar": "", "tool_choice": "", "structured_outputs": {"json": None, "regex": None}},
    {"include_stop_str_in_output": False, "truncate_prompt_tokens": None, "web_search_options": None},
    {"min_tokens": 0, "ignore_eos": False, "use_beam_search": False, "bad_words": [], "stop_token_ids": []},
    {"n": 1, "best_of": 1, "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1.0},
    {"prediction": None, "audio": None, "user": "", "metadata": {}, "seed": None},
]


@pytest.mark.parametrize("more", NOTHING, ids=lambda more: "-".join(more))
def test_what_asks_for_nothing_is_accepted(running: Running, more: dict[str, Any]) -> None:
    assert running.post(CHAT, {"messages": [HI], **more}).status == 200
    if "top_logprobs" not in more:
        assert running.post(TEXT, {"prompt": "Hi", **more}).status == 200
    if "logprobs" not in more:
        assert running.post(RESPONSES, {"input": "Hi", **more}).status == 200


SOMETHING: list[dict[str, Any]] = [
    {"top_logprobs": 2},
    {"tools": [TOOL]},
    {"tools": [TOOL], "tool_choice": "auto"},
    {"functions": [{"name": "f"}]},
    {"tool_choice": {"type": "function", "function": {"name": "look"}}},
    {"logit_bias": {"5": 1}},
    {"chat_template_kwargs": {"enable_thinking": True}},
    {"web_search_options": {}},
    {"prompt_logprobs": 0},
    {"truncate_prompt_tokens": 5},
    {"include_stop_str_in_output": True},
    {"structured_outputs": {"json": None, "regex": "a"}},
    {"regex": "a"},
    {"audio": {"voice": "x"}},
]


@pytest.mark.parametrize("more", SOMETHING, ids=lambda more: "-".join(more))
def test_what_asks_for_what_cannot_be_had_is_refused(running: Running, more: dict[str, Any]) -> None:
    reply = running.post(CHAT, {"messages": [HI], **more})
    assert (reply.status, reply.error["param"]) == (400, next(iter(more)))


def test_a_schema_beside_the_type_is_one() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    forms: list[dict[str, Any]] = [
        {"type": "json_object", "schema": schema},
        {"type": "json_schema", "schema": schema},
        {"type": "json_schema", "json_schema": {"schema": schema}},
    ]
    for form in forms:
        body = check(ChatBody, {"messages": [HI], "response_format": form})
        assert read_format(body.response_format, "response_format", can_constrain=True) == wanted
    flat = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    response = check(ResponsesBody, {"input": "Hi", "text": {"format": flat}})
    assert response.text is not None
    form = read_format(response.text.format, "text.format", can_constrain=True)
    assert form == {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    with pytest.raises(ApiError, match="this has to be an object"):
        check(ChatBody, {"messages": [HI], "response_format": {"type": "json_object", "schema": True}})


# Images


def percent(data: bytes) -> str:
    return urllib.parse.quote_from_bytes(data, safe="")


CODE = base64.b64encode(DEMO).decode()
URIS = {
    "without padding": "data:image/png;base64," + CODE.rstrip("="),
    "in the alphabet of URLs": "data:image/png;base64," + base64.urlsafe_b64encode(DEMO).decode(),
    "percent-encoded base64": "data:image/png;base64," + urllib.parse.quote(CODE, safe=""),
    "percent-encoded bytes": "data:image/png," + percent(DEMO),
    "with parameters": "data:image/png;charset=utf-8;name=a.png;base64," + CODE,
    "with line breaks": "data:image/png;base64,\r\n" + re.sub("(.{76})", r"\1\r\n", CODE) + "\n",
    "with blanks around it": f" \n{URI} ",
    "in capitals": "DATA:IMAGE/PNG;BASE64," + CODE,
    "with a blank before base64": "data:image/png; base64," + CODE,
    "without a type": "data:;base64," + CODE,
    "with a fragment": URI + "#sign",
}


@pytest.mark.parametrize("name", URIS)
def test_a_data_uri_that_browsers_take_is_taken(running: Running, puppet: Puppet, name: str) -> None:
    part = {"type": "image_url", "image_url": {"url": URIS[name]}}
    ((_, (shown,)),) = heard(running, puppet, CHAT, {"messages": [{"role": "user", "content": [part]}]})
    assert shown.loaded.size == (201, 107)


@pytest.mark.parametrize(("said", "meant"), [("original", "high"), ("Low", "low"), (None, "auto"), ("HIGH", "high")])
def test_details_are_known_by_all_their_names(running: Running, puppet: Puppet, said: Any, meant: str) -> None:
    for path, name, part in (
        (CHAT, "messages", {"type": "image_url", "image_url": {"url": URI, "detail": said}}),
        (RESPONSES, "input", {"type": "input_image", "image_url": URI, "detail": said}),
    ):
        ((_, (shown,)),) = heard(running, puppet, path, {name: [{"role": "user", "content": [part]}]})
        assert shown.detail == meant


def test_an_unknown_detail_is_named(running: Running) -> None:
    part = {"type": "image_url", "image_url": {"url": URI, "detail": "ultra"}}
    message = running.post(CHAT, {"messages": [{"role": "user", "content": [part]}]}).error["message"]
    assert "'auto', 'low' or 'high', but it is \"ultra\"" in message


def test_a_byte_order_mark_is_passed_over(running: Running) -> None:
    assert running.post(CHAT, b"\xef\xbb\xbf" + json.dumps({"messages": [HI]}).encode()).status == 200


# Numbers


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("seed", 2**63, "less than or equal to 9223372036854775807, but it is 9223372036854775808"),
        ("seed", -(2**63) - 1, "equal to -9223372036854775808, but it is -9223372036854775809"),
        ("seed", 2**53 + 1.5, None),
        ("max_tokens", 2**31, "less than 2147483648, but it is 2147483648"),
        ("max_tokens", 10**39, f"but it is {10**39}"),
        ("temperature", 2.0000000000000004, "less than or equal to 2, but it is 2.0000000000000004"),
        ("top_p", 1e-400, "greater than 0, but it is 0.0"),
        ("n", 1e30, "1e+30|choices is 8"),
        ("seed", 2.0**63, "but it is 9223372036854775808"),
        ("n", 2.5, "but it is 2.5"),
    ],
)
def test_numbers_in_errors_are_exact(running: Running, name: str, value: Any, says: str | None) -> None:
    reply = running.post(CHAT, {"messages": [HI], name: value})
    assert reply.status == (200 if says is None else 400)
    assert says is None or re.search(says.replace("+", r"\+"), reply.error["message"])


def test_a_limit_is_never_rounded() -> None:
    assert "answer_s is 1,234,567.25. Wait." in str(limit_exceeded("answer_s", 1_234_567.25, "It took long", "Wait."))
    assert "body_bytes is 9,007,199,254,740,991. Send" in str(
        limit_exceeded("body_bytes", 2**53 - 1, "It is long", "Send less.")
    )
    assert "answer_s is 600. Wait." in str(limit_exceeded("answer_s", 600.0, "It took long", "Wait."))


# The context


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "word " * 3000}]}),
        (TEXT, {"prompt": "word " * 3000}),
        (RESPONSES, {"input": "word " * 3000}),
        (CHAT, {"messages": [{"role": "user", "content": "x" * 300_000}]}),
    ],
)
def test_a_prompt_that_is_too_long_is_told_in_the_words_that_clients_know(own: Running, path: str, asked: Any) -> None:
    reply = own.post(path, asked)
    assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
    # LiteLLM looks for the first, LangChain, CrewAI and others for a part of it or for the code.
    assert reply.error["message"].startswith("This model's maximum context length is 2048 tokens. However, the")
    assert re.search(r"takes \d+ tokens|300,000 characters", reply.error["message"])


def test_an_engines_own_overflow_has_the_same_code() -> None:
    words = "The engine answered with status 400: This model's maximum context length is 10 tokens."
    assert to_api_error(EngineFailed(words, 400), "").code == "context_length_exceeded"
    assert to_api_error(EngineFailed("The engine answered with status 400: no", 400), "").code == "engine_refused"


def test_an_engine_that_finds_a_request_too_large_is_answered_413_but_400_if_the_context_is_exceeded() -> None:
    large = to_api_error(EngineFailed("The engine answered with status 413: Payload too large", 413), "")
    assert (large.status, large.code) == (413, "engine_refused")
    words = "The engine answered with status 413: This model's maximum context length is 10 tokens."
    long = to_api_error(EngineFailed(words, 413), "")
    assert (long.status, long.code) == (400, "context_length_exceeded")
    assert to_api_error(EngineFailed("The engine answered with status 404: no model", 404), "").status == 400


# The model's name while it is loaded


def test_a_model_that_is_loaded_has_no_length_and_no_private_address() -> None:
    def ask(backend: Any) -> Any:
        app = create_app(backend)
        service: Service = app.state.service
        return json.loads(asyncio.run(list_models(service, None)).body)["data"]  # type: ignore[arg-type]

    puppet = Puppet()
    puppet.context_tokens = 0
    assert [set(one) for one in ask(puppet)] == [{"id", "object", "created", "owned_by"}]
    assert ask(Remote("http://10.1.2.3:3000")) == []
    (named,) = ask(Remote("http://10.1.2.3:3000", model_id="ours"))
    assert (named["id"], "max_model_len" in named) == ("ours", False)


def test_a_message_of_nothing_is_no_turn() -> None:
    def write(*messages: tuple[Any, str]) -> str:
        said = [ChatMessage(role, (text,)) for role, text in messages]
        return write_conversation(said, conv_templates["v1"], "<image>")[0].get_prompt()

    assert write(("user", "A"), ("assistant", ""), ("user", "B")) == write(("user", "A"), ("user", "B"))
    assert write(("user", "A"), ("assistant", " ")) == write(("user", "A"))
