"""What goes wrong, and what the server answers.

The table first: an input in each row, and the answer that it gets. Whatever the row, an error has OpenAI's shape, tells
nothing of this machine, takes less than two seconds of the processor, and a good request right after it succeeds. Below
the table are the faults that need a part to be played. Where something is chosen that could be otherwise, the row says
so.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.backends.engine_backend import EngineBackend
from llava.backends.protocol import ChatMessage, ChatRequest, SentImage
from llava.constants import IMAGE_TOKEN_INDEX
from llava.image.geometry import Size, plan_tiles
from llava.image.source import load_image
from llava.prompt import escape_image_tokens
from llava.sampling import Sampling
from llava.serve.limits import Limits, Settings
from llava.serve.schemas import ChatBody, read_sampling
from tests.serve.conftest import LIMITS, Internet
from tests.serve.serving import Puppet, Running, data_uri, run_server, write_image

ROOT = Path(__file__).resolve().parents[2]
DEMO = (ROOT / "examples/demo.png").read_bytes()
CHAT = "/v1/chat/completions"


def say(*parts: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    """A request with one message; a text is a text part, bytes are an image's file, everything else a part."""

    def part(one: Any) -> Any:
        if isinstance(one, bytes):
            return {"type": "image_url", "image_url": {"url": data_uri(one)}}
        return {"type": "text", "text": one} if isinstance(one, str) else one

    return {"messages": [{"role": role, "content": list(map(part, parts))}], "max_tokens": 2, **more}


def held_to(schema: dict[str, Any]) -> dict[str, Any]:
    return say("Hi", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def shown(url: Any, **more: Any) -> dict[str, Any]:
    """A request with an image of that URL."""
    return say({"type": "image_url", "image_url": {"url": url, **more}}, "What is it?")


def header_of(width: int, height: int, bits: int = 8) -> bytes:
    """A PNG that claims to be so large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


JPEG = write_image(Image.new("RGB", (40, 30), "red"), "JPEG")
BROKEN_PNG = DEMO[:60] + bytes([DEMO[60] ^ 1]) + DEMO[61:]
HI = say("Hi")
FIRST, FORM = "messages.0.content.0", "response_format"
TOO_LARGE = "25,000,000 are allowed. The limit is image_pixels"
TEXT, RESPONSES = "/v1/completions", "/v1/responses"
REFUSED, VALUES = "unsupported_parameter", "values_limit_exceeded"
ONE_TURN = HI["messages"][0]
# It takes minutes to read.
SLOW = {"allOf": [{"type": "string", "pattern": f"(a|b)*{i}.*"} for i in range(30)]}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}
# What clients send that asks for nothing, and null for everything that has a default.
NOTHING: dict[str, Any] = {
    **dict.fromkeys(
        ("temperature", "top_p", "n", "seed", "stop", "stream", "stream_options", "logprobs", "logit_bias")
    ),
    **dict.fromkeys(
        ("top_logprobs", "max_completion_tokens", "presence_penalty", "frequency_penalty", "response_format")
    ),
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "ignore_eos": False,
    "metadata": {"run": "1"},
    "user": "somebody",
    "store": True,
    "service_tier": "auto",
}
DEEP = b'{"messages":' + b"[" * 20_000 + b"]" * 20_000 + b"}"


@dataclass(frozen=True)
class Row:
    """``sent``: a body, or for a GET None. ``says``: a pattern in the answer; ``code``, ``param``: of its error."""

    number: int
    what: str
    sent: Any
    status: int
    says: str = ""
    code: str | None = None
    param: str | None = None
    path: str = CHAT
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"


ROWS = [
    # JSON
    Row(1, "broken JSON", b'{"messages": [', 400, "line 1, column 15", "invalid_json"),
    Row(1, "an empty body", b"", 400, "empty", "invalid_json"),
    Row(1, "a list", b"[]", 400, "not an object", "invalid_json"),
    Row(1, "a number", b"5", 400, "not an object", "invalid_json"),
    Row(2, "invalid UTF-8", b'{"messages": "\xff"}', 400, "byte 14", "invalid_json"),
    Row(2, "UTF-16", json.dumps(HI).encode("utf-16"), 400, "UTF-8", "invalid_json"),
    Row(2, "a lone surrogate", json.dumps(say("\ud800")).encode(), 400, "surrogate", "invalid_json"),
    Row(2, "NaN", json.dumps(say("Hi", temperature=float("nan"))).encode(), 400, "NaN", "invalid_json"),
    Row(2, "Infinity", json.dumps(say("Hi", top_p=float("inf"))).encode(), 400, "Infinity", "invalid_json"),
    Row(2, "1e999", json.dumps(HI)[:-1].encode() + b', "temperature": 1e999}', 400, "1e999", "invalid_json"),
    Row(2, "50 digits", json.dumps(HI)[:-1].encode() + b', "x": ' + b"1" * 50 + b"}", 400, "long", "invalid_json"),
    Row(2, "5,000 digits", json.dumps(HI)[:-1].encode() + b', "n": ' + b"1" * 5000 + b"}", 400, "long", "invalid_json"),
    Row(3, "20,000 lists in each other", DEEP, 400, "deep", "invalid_json"),
    Row(3, "a key twice: the last wins", json.dumps(HI)[:-1].encode() + b', "max_tokens": 0}', 400, param="max_tokens"),
    Row(4, "no content type", HI, 415, "Content-Type: application/json", "not_json", headers=(("Content-Type", ""),)),
    Row(4, "a form", HI, 415, "form", "not_json", headers=(("Content-Type", "application/x-www-form-urlencoded"),)),
    Row(4, "a body over its limit", b" " * (33 * 2**20), 413, "body_bytes is 33,554,432", "body_bytes_limit_exceeded"),
    Row(
        4,
        "a gzip bomb: refused unopened",
        gzip.compress(b" " * 10**7),
        415,
        "compressed",
        "compressed",
        headers=(("Content-Encoding", "gzip"),),
    ),
    # Messages
    Row(5, "no messages", {}, 400, "missing", "invalid_value", "messages"),
    Row(5, "empty messages", {"messages": []}, 400, "at least 1", "invalid_value", "messages"),
    Row(5, "messages null", {"messages": None}, 400, "list", "invalid_value", "messages"),
    Row(5, "content 5", {"messages": [{"role": "user", "content": 5}]}, 400, "list", param="messages.0.content"),
    Row(5, "content null", {"messages": [{"role": "user", "content": None}]}, 400, "list", param="messages.0.content"),
    Row(5, "no content", {"messages": [{"role": "user"}]}, 400, "missing", param="messages.0.content"),
    Row(5, "an unknown role", say("Hi", role="critic"), 400, "assistant", param="messages.0.role"),
    Row(5, "an unknown part", say({"type": "smell"}), 400, "text or image_url", "unsupported_content"),
    Row(5, "a part without type", say({"text": "Hi"}), 400, "text or image_url", param=FIRST),
    Row(5, "a message that is a text", {"messages": ["Hi"]}, 400, "has to be an object", param="messages.0"),
    Row(5, "a call in the conversation", {"messages": [CALL, ONE_TURN], "max_tokens": 2}, 200),
    Row(5, "a call without a name", {"messages": [{**CALL, "tool_calls": [{}]}, ONE_TURN]}, 400, "string"),
    Row(5, "nothing to answer", say("Hi", role="assistant"), 400, "user's message", param="messages"),
    Row(5, "21 messages", {"messages": [ONE_TURN] * 21}, 400, "messages is 20", "messages_limit_exceeded", "messages"),
    Row(5, "2,000 parts", say(*["x"] * 2000), 400, "parts is 1,024", "parts_limit_exceeded", "messages"),
    Row(5, "2,000 parts of an input", {"input": say(*["x"] * 2000)["messages"]}, 400, "parts is", path=RESPONSES),
    Row(5, "a million messages", b'{"messages":[' + b"5," * 10**6 + b"5]}", 400, "values is 300,000", VALUES),
    Row(5, "a million stop texts", json.dumps({**HI, "stop": [5] * 10**6}).encode(), 400, "values is", VALUES),
    Row(5, "100,000 wrong stop texts", {**HI, "stop": [5] * 100_000}, 400, "string", param="stop.0"),
    Row(5, "20,000 messages", {"messages": [ONE_TURN] * 20_000}, 400, "messages is 20", param="messages"),
    Row(6, "an unknown model", say("Hi", model="gpt-4"), 404, "embedded", "model_not_found", "model"),
    Row(6, "no model: the one that is served", HI, 200),
    Row(7, "audio", say({"type": "input_audio", "input_audio": {"data": ""}}), 400, "text or", "unsupported_content"),
    Row(7, "video", say({"type": "video_url", "video_url": {"url": "x"}}), 400, "text or", "unsupported_content"),
    Row(
        8,
        "images in a system and an assistant turn",
        {
            "messages": [
                say("See", DEMO, role="system")["messages"][0],
                say(DEMO, "Look.")["messages"][0],
                say("I see", DEMO, role="assistant")["messages"][0],
                ONE_TURN,
            ],
            "max_tokens": 2,
        },
        200,
        '"image_tokens":600',
    ),
    # Images' URLs
    Row(11, "no image_url", say({"type": "image_url"}), 400, "missing", param=f"{FIRST}.image_url"),
    Row(11, "image_url null", say({"type": "image_url", "image_url": None}), 400, "dictionary|object"),
    Row(11, "image_url 5", say({"type": "image_url", "image_url": 5}), 400, "dictionary|object"),
    Row(11, "an empty URL", shown(""), 400, "at least 1", param=f"{FIRST}.image_url.url"),
    Row(11, "a plain text", say({"type": "image_url", "image_url": data_uri(DEMO)}, "?"), 200, '"image_tokens":200'),
    Row(
        12,
        "detail bogus",
        shown(data_uri(DEMO), detail="bogus"),
        400,
        "low",
        param=f"{FIRST}.image_url.detail",
    ),
    Row(14, "ftp", shown("ftp://images.example/x.png"), 400, "neither", "invalid_image"),
    Row(14, "javascript", shown("javascript:alert(1)"), 400, "neither", "invalid_image"),
    Row(14, "gopher", shown("gopher://127.0.0.1:25/x"), 400, "neither", "invalid_image"),
    Row(14, "bare base64", shown(base64.b64encode(DEMO).decode()), 400, "data URI", "invalid_image"),
    Row(12, "detail null: auto", shown(data_uri(DEMO), detail=None), 200, '"image_tokens":200'),
    # Images
    Row(21, "a data URI without a comma", shown("data:image/png;base64"), 400, "base64,", "invalid_image"),
    Row(21, "bad base64", shown("data:image/png;base64,%%%%"), 400, "not base64", "invalid_image"),
    Row(21, "not base64", shown("data:image/png,abc"), 400, "base64,", "invalid_image"),
    Row(21, "an empty data URI", shown("data:image/png;base64,"), 400, "empty", "invalid_image"),
    Row(21, "a data URI of 3 MB", shown(data_uri(b"\0" * 3 * 2**20)), 400, "limit is image_bytes", "invalid_image"),
    Row(21, "a wrong type, but a JPEG", shown(data_uri(JPEG, "text/html")), 200, '"image_tokens"'),
    Row(21, "a data URI in capitals", shown(data_uri(JPEG).replace("data:image", "DATA:IMAGE")), 200, '"image_tokens"'),
    Row(22, "text", say(b"hello, image", "?"), 400, "not an image", "invalid_image"),
    Row(22, "SVG", say(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "?"), 400, "an SVG drawing", "invalid_image"),
    Row(22, "PDF", say(b"%PDF-1.7 x", "?"), 400, "a PDF", "invalid_image"),
    Row(22, "EPS", say(b"%!PS-Adobe-3.0 EPSF-3.0", "?"), 400, "PostScript", "invalid_image"),
    Row(22, "Photoshop", say(b"8BPS\0\1", "?"), 400, "Photoshop", "invalid_image"),
    Row(22, "TIFF", say(write_image(Image.new("L", (9, 9)), "TIFF"), "?"), 400, "it is TIFF", "invalid_image"),
    Row(23, "a PNG cut off", say(DEMO[:-200], "?"), 400, "cut off", "invalid_image"),
    Row(23, "a JPEG cut off", say(JPEG[:-200], "?"), 400, "cut off", "invalid_image"),
    Row(23, "a wrong checksum", say(BROKEN_PNG, "?"), 400, "damaged", "invalid_image"),
    Row(23, "something after the end", say(DEMO + b"tail" * 99, "?"), 200, '"image_tokens":200'),
    Row(24, "40,000 x 40,000", say(header_of(40_000, 40_000), "?"), 400, TOO_LARGE, "invalid_image"),
    Row(24, "13,400 x 13,400", say(header_of(13_400, 13_400), "?"), 400, TOO_LARGE, "invalid_image"),
    Row(24, "9,000 x 9,000 of 1 bit", say(header_of(9000, 9000, 1), "?"), 400, TOO_LARGE, "invalid_image"),
    Row(24, "2^31 px", say(header_of(2**31 - 1, 2**31 - 1), "?"), 400, TOO_LARGE, "invalid_image"),
    Row(25, "1 x 60,000", say(write_image(Image.new("L", (1, 60_000))), "?"), 400, "image_side_px", "invalid_image"),
    Row(27, "5 images", say(*[JPEG] * 5, "?"), 400, "images is 4", "images_limit_exceeded", "messages"),
    Row(27, "100 images", say(*[JPEG] * 100, "?"), 400, "100 images", "images_limit_exceeded", "messages"),
    # Lengths
    Row(29, "a prompt over the context", say("word " * 3000), 400, "holds 2048", "context_length_exceeded", "messages"),
    Row(29, "a text over it", {"prompt": "word " * 3000}, 400, "2048", "context_length_exceeded", "prompt", TEXT),
    Row(29, "an input over it", {"input": "w " * 3000}, 400, "2048", "context_length_exceeded", "input", RESPONSES),
    Row(29, "an image over the context", say("word " * 460, DEMO), 400, "holds 2048", "context_length_exceeded"),
    Row(29, "20 MB of text", say("x" * 20_000_000), 400, "20,000,000 characters", "context_length_exceeded"),
    Row(30, "max_tokens 0", say("Hi", max_tokens=0), 400, "greater than or equal to 1", param="max_tokens"),
    Row(30, "max_tokens -1", say("Hi", max_tokens=-1), 400, "greater than or equal to 1", param="max_tokens"),
    Row(30, "max_tokens 1e9: what the context holds", say("Hi", max_tokens=10**9, stop=" "), 200),
    Row(30, "max_tokens 2^70", say("Hi", max_tokens=2**70), 400, "less than", param="max_tokens"),
    Row(30, "max_tokens 2.0: 2", say("Hi", max_tokens=2.0), 200, '"completion_tokens":2'),
    Row(30, "max_tokens in quotes", say("Hi", max_tokens="2"), 400, "integer", param="max_tokens"),
    Row(30, "max_tokens true", say("Hi", max_tokens=True), 400, "integer", param="max_tokens"),
    Row(30, "max_tokens abc", say("Hi", max_tokens="abc"), 400, "integer", param="max_tokens"),
    # Sampling
    Row(31, "temperature -1", say("Hi", temperature=-1), 400, "greater", param="temperature"),
    Row(31, "temperature 1e308", say("Hi", temperature=1e308), 400, "less", param="temperature"),
    Row(31, "temperature 1e-300: greedy", say("Hi", temperature=1e-300), 200),
    Row(31, "temperature in quotes", say("Hi", temperature="0.5"), 400, "number", param="temperature"),
    Row(31, "temperature true", say("Hi", temperature=True), 400, "number", param="temperature"),
    Row(31, "stream in words", say("Hi", stream="yes"), 400, "boolean", param="stream"),
    Row(31, "what asks for nothing", say("Hi", **NOTHING), 200),
    Row(31, "top_p 0", say("Hi", top_p=0), 400, "greater", param="top_p"),
    Row(31, "top_p 1.5", say("Hi", top_p=1.5), 400, "less", param="top_p"),
    Row(31, "top_k -5", say("Hi", top_k=-5), 400, "greater", param="top_k"),
    Row(32, "n 0", say("Hi", n=0), 400, "greater", param="n"),
    Row(32, "n 100,000", say("Hi", n=100_000), 400, "choices is 8", "choices_limit_exceeded", "n"),
    Row(33, "top_logprobs 1000", say("Hi", logprobs=True, top_logprobs=1000), 400, "20", param="top_logprobs"),
    Row(33, "top_logprobs alone", say("Hi", top_logprobs=2), 400, "logprobs", param="top_logprobs"),
    Row(33, "logprobs 100,000", {"prompt": "Hi", "logprobs": 10**5}, 400, "20", param="logprobs", path=TEXT),
    Row(34, "an empty stop text", say("Hi", stop=""), 400, "empty", param="stop"),
    Row(
        34,
        "5,000 stop texts",
        say("Hi", stop=["x"] * 5000),
        400,
        "stop_texts is 4",
        "stop_texts_limit_exceeded",
        "stop",
    ),
    Row(34, "a stop text of 1 MB", say("Hi", stop="x" * 10**6), 400, "stop_characters is 256", param="stop"),
    Row(35, "seed 2^64", say("Hi", seed=2**64), 400, "less", param="seed"),
    Row(
        35,
        "logit_bias out of vocabulary",
        say("Hi", logit_bias={"9999999": 1}),
        400,
        "cannot be biased",
        param="logit_bias",
    ),
    Row(35, "logit_bias abc", say("Hi", logit_bias="abc"), 400, "cannot be biased", param="logit_bias"),
    Row(35, "token id 10^9", {"prompt": [10**9, -1]}, 400, "a string or a list of strings", param="prompt", path=TEXT),
    Row(35, "token id -1", {"prompt": [[-1]]}, 400, "a string or a list of strings", param="prompt", path=TEXT),
    Row(36, "chat_template", say("Hi", chat_template="{{ 1 }}"), 400, "checkpoint's", REFUSED),
    Row(36, "a tool that has to be called", say("Hi", tool_choice="required"), 400, "no tools", REFUSED, "tool_choice"),
    Row(36, "speech", say("Hi", modalities=["text", "audio"]), 400, "are text", REFUSED, "modalities"),
    Row(36, "ignore_eos", say("Hi", ignore_eos=True), 400, "ends at the model's end token", REFUSED, "ignore_eos"),
    Row(36, "mm_processor_kwargs", say("Hi", mm_processor_kwargs={"a": 1}), 400, "checkpoint", REFUSED),
    Row(
        36,
        "prompt_embeds",
        {"prompt_embeds": "gASV"},
        400,
        "does not accept embeddings",
        REFUSED,
        path=TEXT,
    ),
    Row(37, "a schema within itself", held_to({"$ref": "#"}), 400, "no document that fits it ends", param=FORM),
    Row(37, "a schema of no type", held_to({"type": "x"}), 400, "Invalid type: x", param=FORM),
    Row(37, "an exploding schema", held_to(SLOW), 400, "more than 0.5 s", param=FORM),
    Row(37, "an open pattern", held_to({"type": "string", "pattern": "("}), 400, "unclosed", param=FORM),
    Row(
        37, "a form of no name", say("Hi", response_format={"type": "x"}), 400, "it has to be", param="response_format"
    ),
    Row(37, "plain text", say("Hi", response_format={"type": "text"}), 200),
    Row(37, "a regex", say("Hi", guided_regex="(a+)+$"), 400, "constrained", REFUSED),
    # HTTP
    Row(38, "a wrong method", None, 405, "Use POST", "method_not_allowed", method="GET"),
    Row(38, "an unknown path", HI, 404, "/v1/nothing", "not_found", path="/v1/nothing"),
    Row(38, "dots", None, 404, "no model", "model_not_found", path="/v1/models/../..", method="GET"),
    Row(38, "a double slash", HI, 404, "//v1", "not_found", path="//v1/chat/completions"),
    Row(38, "a trailing slash and more", HI, 404, "completions/x", "not_found", path="/v1/chat/completions/x"),
    Row(38, "70 kB of headers", HI, 431, "header_bytes is 65,536", headers=(("X-Long", "x" * 70_000),)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number} {row.what}")
def test_a_row_of_the_table(own: Running, row: Row) -> None:
    body = row.sent if isinstance(row.sent, (bytes, type(None))) else json.dumps(row.sent).encode()
    began_s = time.process_time()
    reply = own.send(row.method, row.path, body, {"Content-Type": "application/json", **dict(row.headers)})
    took_s = time.process_time() - began_s
    assert reply.status == row.status, reply.body[:500]
    assert re.search(row.says, reply.body.decode().replace(": ", ":") if row.status == 200 else reply.error["message"])
    if row.status != 200:
        check_shape(reply.error)
        assert row.code is None or reply.error["code"] == row.code
        assert row.param is None or reply.error["param"] == row.param
    # Of the processor, so that what else the machine does counts little; server and client are in this process.
    assert row.status == 200 or took_s < 2
    check_health(own)


def check_shape(error: dict[str, Any]) -> None:
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] in {"invalid_request_error", "authentication_error", "rate_limit_error"}
    assert len(error["message"]) < 600
    assert not re.search(r"0x[0-9a-f]{6}|\.py\b|/usr/|/home/|Traceback|site-packages", error["message"])


def check_health(running: Running) -> None:
    """A good request is answered."""
    reply = running.post(CHAT, HI)
    assert reply.status == 200, reply.body
    assert reply.json["usage"]["completion_tokens"] == 2


ELSEWHERE = {
    43: "test_load.py::test_a_text_behind_20_images_waits_no_longer_than_they_take",
    44: "test_load.py::test_a_decoder_that_is_killed_comes_back",
    45: "test_process.py::test_a_signal_lets_answers_finish_and_ends_the_process",
    47: "test_process.py::test_a_crowd_of_connections_is_turned_away_and_costs_nobody_an_answer",
    48: "../model/test_checkpoint.py::test_a_pickle_with_code_in_it_is_refused_and_not_run",
    50: "test_soak.py::test_nothing_is_lost_and_nothing_leaks",
}
# Of processes that are not here: a router with several workers, which tests/engines/check_router.py starts.
NOT_HERE = {46}


def test_every_row_of_the_table_of_faults_is_somewhere() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    text += (Path(__file__).parent / "test_middleware.py").read_text(encoding="utf-8")
    tests = re.findall(r"^def test_row_(\d+)_(?:(\d+)_)?", text, re.MULTILINE)
    here = {row.number for row in ROWS} | {int(number) for pair in tests for number in pair if number}
    assert here | set(ELSEWHERE) | NOT_HERE == set(range(1, 51))
    for place in ELSEWHERE.values():
        file, name = place.split("::")
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("apart", [False, True])
def test_row_49_what_one_key_asked_makes_no_other_keys_answer_come_sooner(apart: bool, own: Running) -> None:
    loaded = own.service.backend._ready().loaded  # type: ignore[attr-defined]
    settings = Settings(limits=LIMITS, keys=("one", "two"), keeps_keys_apart=apart)
    question = {**say("What is written on the sign?", DEMO), "max_tokens": 2}
    with run_server(EngineBackend(loaded), settings) as running:

        def ask(key: str) -> tuple[int, str]:
            reply = running.post(CHAT, question, Authorization=f"Bearer {key}")
            assert reply.status == 200, reply.body
            return reply.json["usage"]["prompt_tokens_details"]["cached_tokens"], reply.text

        first, again, other = ask("one"), ask("one"), ask("two")
    assert first[0] == 0
    assert again[0] > 100
    assert (other[0] == 0) is apart
    assert first[1] == again[1] == other[1]


# Special tokens


def prompt_ids(running: Running, *messages: ChatMessage) -> tuple[int, ...]:
    backend = running.service.backend
    assert isinstance(backend, EngineBackend)
    return backend._prepare(backend._ready(), ChatRequest(messages)).prompt.input_ids


@pytest.mark.parametrize("text", ["<image>", "</s>", "a <s> b", "<|im_end|>", "[INST] x [/INST]", "<image></s><image>"])
def test_row_9_what_looks_like_a_token_is_only_text(own: Running, text: str) -> None:
    ids = prompt_ids(own, ChatMessage("user", (text,)))
    assert ids == prompt_ids(own, ChatMessage("user", (escape_image_tokens(text),)))
    tokenizer = own.service.backend._ready().loaded.tokenizer  # type: ignore[attr-defined]
    special = {IMAGE_TOKEN_INDEX, tokenizer.eos_token_id, tokenizer.bos_token_id}
    assert special.isdisjoint(ids[1:])
    assert text in tokenizer.decode([token for token in ids if token >= 0], skip_special_tokens=True)
    assert own.chat(text, max_tokens=2).status == 200


def test_row_10_an_image_stays_where_it_was_put(own: Running) -> None:
    image = Image.new("RGB", (30, 30), "red")
    reply = own.chat("Is <image> here", image, "or <image> there?", max_tokens=2)
    assert reply.json["usage"]["prompt_tokens_details"]["image_tokens"] > 0
    sent = SentImage(load_image(image))
    ids = prompt_ids(own, ChatMessage("user", ("Is <image> here", sent, "or <image> there?")))
    tokenizer = own.service.backend._ready().loaded.tokenizer  # type: ignore[attr-defined]
    place = ids.index(IMAGE_TOKEN_INDEX)
    assert ids.count(IMAGE_TOKEN_INDEX) == 1
    assert tokenizer.decode(ids[:place]).endswith("Is <image> here\n")
    assert tokenizer.decode(ids[place + 1 :]).startswith("\nor <image> there?")


# Files and addresses


class Trap:
    """What the process opens and connects to, once it is set."""

    def __init__(self) -> None:
        self.is_set = False
        self.seen: list[str] = []

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.is_set and event == "open":
            self.seen.append(str(arguments[0]))
        if self.is_set and event == "socket.connect":
            self.seen.append(str(arguments[1]))


TRAP = Trap()


@pytest.fixture(scope="module")
def _trap() -> None:
    sys.addaudithook(TRAP.hear)  # cannot be taken away again


@pytest.fixture
def trap(_trap: None) -> Iterator[list[str]]:
    TRAP.seen.clear()
    TRAP.is_set = True
    yield TRAP.seen
    TRAP.is_set = False


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "file:" + str(ROOT / "examples/demo.png"),
        "file://" + str(ROOT / "examples/demo.png"),
        str(ROOT / "examples/demo.png"),
        "examples/demo.png",
        "C:\\windows\\win.ini",
        "-",
        "~/x.png",
    ],
)
def test_row_13_no_file_is_opened(own: Running, trap: list[str], url: str) -> None:
    reply = own.post(CHAT, shown(url))
    assert reply.status == 400
    check_shape(reply.error)
    assert reply.error["code"] == "invalid_image"
    assert [place for place in trap if "passwd" in place or "demo.png" in place or "win.ini" in place] == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "user:pass@127.0.0.1",
        "localhost.",
        "①②⑦.⓪.⓪.①",
    ],
)
def test_row_15_16_no_private_address_is_asked(own: Running, trap: list[str], host: str) -> None:
    reply = own.post(CHAT, shown(f"http://{host}/x.png"))
    assert reply.status == 400
    check_shape({**reply.error, "message": reply.error["message"].replace(host, "")})
    assert reply.error["code"] == "image_fetch_failed"
    assert [place for place in trap if f"{own.port}" not in place and "(" in place] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example\\@127.0.0.1/x.png",
        "http://images.example @127.0.0.1/",
        "http://127.0.0.1\t/",
        "http://user:pass@images.example/x.png",
    ],
)
def test_row_16_no_two_readings_of_a_url(own: Running, internet: Internet, url: str) -> None:
    internet.page("/x.png", DEMO)
    reply = own.post(CHAT, shown(url))
    assert (reply.status, reply.error["code"]) == (400, "image_fetch_failed")
    assert internet.connected == []


def test_row_17_a_name_that_changes_its_mind_gains_nothing(own: Running, internet: Internet) -> None:
    url = internet.page("/x.png", DEMO)
    internet.names["images.example"] = [internet.address, "127.0.0.1"]
    assert own.post(CHAT, shown(url)).status == 200
    assert internet.connected == [internet.address]
    internet.names["images.example"] = ["127.0.0.1"]
    reply = own.post(CHAT, shown(url))
    assert (reply.status, internet.connected) == (400, [internet.address])
    assert "not a public address" in reply.error["message"]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "http://127.0.0.1/x.png", "http://images.example/loop", "http://[::1/"]
)
def test_row_18_redirects_are_judged_as_urls_are(own: Running, internet: Internet, target: str) -> None:
    url = internet.page("/loop", status="302 Found", Location=target)
    reply = own.post(CHAT, shown(url))
    assert (reply.status, reply.error["code"]) == (400, "image_fetch_failed")
    assert set(internet.connected) == {internet.address}
    is_loop = target.endswith("loop")
    assert len(internet.connected) == (4 if is_loop else 1)
    assert ("The limit is fetch_redirects." in reply.error["message"]) is is_loop


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content"])
def test_row_19_what_a_host_says_is_not_repeated(own: Running, internet: Internet, status: str) -> None:
    url = internet.page("/x.png", b"SECRET of the upstream", status)
    reply = own.post(CHAT, shown(url))
    assert (reply.status, reply.error["code"]) == (400, "image_fetch_failed")
    assert "SECRET" not in reply.body.decode()


def test_row_19_a_host_that_is_not_there(own: Running, internet: Internet) -> None:
    gone = own.post(CHAT, shown("http://nobody.example/x.png"))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but not listening: nobody else gets the port
        internet.tcp.server_address = held.getsockname()
        refused = own.post(CHAT, shown(internet.url("/x.png")))
    for reply, says in ((gone, "no host named"), (refused, "connection to images.example failed")):
        assert (reply.status, reply.error["code"]) == (400, "image_fetch_failed")
        assert says in reply.error["message"]


def drip(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    for _ in range(4999):  # until the other side has had enough
        connection.sendall(b"x")
        time.sleep(0.1)


def flood(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 2**16)


def lie(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n" + DEMO)


def stop_short(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DEMO) + DEMO[:500])


def send_html(connection: Any) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n<!doctype html><p>hello")


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (flood, "larger than 2,097,152 bytes. The limit is image_bytes."),
        (lie, "larger than 2,097,152 bytes. The limit is image_bytes."),
        (stop_short, "broke off"),
        (send_html, "HTML"),
    ],
)
def test_row_20_a_host_that_means_harm(
    own: Running, internet: Internet, page: Callable[[Any], None], says: str
) -> None:
    internet.pages["/x.png"] = page
    reply = own.post(CHAT, shown(internet.url("/x.png")))
    assert reply.status == 400
    assert says in reply.error["message"]
    check_health(own)


def test_row_20_a_host_that_takes_its_time(internet: Internet) -> None:
    internet.pages["/x.png"] = drip
    with run_server(Puppet(), Settings(limits=Limits(fetch_s=1.0), decoders=1)) as running:
        reply = running.post(CHAT, shown(internet.url("/x.png")))
        assert reply.status == 400
        assert "within 1 seconds" in reply.error["message"]
        assert running.post(CHAT, HI).status == 200


# Images that come out right


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 3), (50, 40), (1000, 334)])
def test_row_25_odd_sizes_take_the_planned_positions(own: Running, size: tuple[int, int]) -> None:
    reply = own.chat(Image.new("RGB", size, "green"), "What is it?", max_tokens=2)
    tiling = own.service.backend._ready().loaded.spec.tiling  # type: ignore[attr-defined]
    assert reply.status == 200
    assert reply.json["usage"]["prompt_tokens_details"]["image_tokens"] == plan_tiles(Size(*size), tiling).num_positions


def load(running: Running, data: bytes) -> Any:
    return running.do(lambda: running.service.images.decode(data, "The image"))


def as_modes() -> Iterator[tuple[str, bytes, bytes]]:
    """Files of many modes, each with the RGB image that they have to be equal to."""
    noise = np.random.default_rng(0)
    rgb = Image.fromarray(noise.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    grey, alpha = rgb.convert("L"), Image.fromarray(noise.integers(0, 256, (20, 30), dtype=np.uint8))
    over_white = Image.new("RGB", rgb.size, "white")
    over_white.paste(rgb, mask=alpha)
    grey_over_white = Image.new("RGB", rgb.size, "white")
    grey_over_white.paste(grey.convert("RGB"), mask=alpha)
    yield "L", write_image(grey), write_image(grey.convert("RGB"))
    yield "RGBA", write_image(Image.merge("RGBA", (*rgb.split(), alpha))), write_image(over_white)
    yield "LA", write_image(Image.merge("LA", (grey, alpha))), write_image(grey_over_white)
    yield "1", write_image(grey.convert("1")), write_image(grey.convert("1").convert("RGB"))
    indexed = rgb.quantize(8)
    yield "P", write_image(indexed), write_image(indexed.convert("RGB"))
    clear = indexed.convert("RGB")
    clear.paste((255, 255, 255), mask=Image.fromarray((np.asarray(indexed) == 3).astype(np.uint8) * 255))
    yield "P + transparency", write_image(indexed, transparency=3), write_image(clear)
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16) << 8) + 77)
    yield "I;16", write_image(deep), write_image(grey.convert("RGB"))
    cmyk = write_image(rgb.convert("CMYK"), "JPEG", quality=100)
    yield "CMYK", cmyk, write_image(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    frames = [Image.new("RGB", (20, 20), name) for name in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        more: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
        moving = write_image(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **more)
        yield f"animated {kind}", moving, write_image(frames[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    lying = rgb.transpose(Image.Transpose.ROTATE_90)
    yield "EXIF orientation 6", write_image(lying, exif=turned), write_image(rgb)


@pytest.mark.parametrize(("sent", "meant"), [mode[1:] for mode in as_modes()], ids=[mode[0] for mode in as_modes()])
def test_row_26_every_mode_is_the_rgb_it_stands_for(own: Running, sent: bytes, meant: bytes) -> None:
    assert load(own, sent).digest == load(own, meant).digest
    first, second = (own.post(CHAT, say(data, "What is it?", max_tokens=12)) for data in (sent, meant))
    assert first.status == 200
    assert (first.text, first.json["usage"]["prompt_tokens"]) == (second.text, second.json["usage"]["prompt_tokens"])


def test_row_28_images_that_only_look_alike_are_not_mixed(own: Running) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, 20 * 30 * 3, dtype=np.uint8)
    wide, high = (Image.fromarray(pixels.reshape(shape)) for shape in ((20, 30, 3), (30, 20, 3)))
    assert wide.tobytes() == high.tobytes()
    assert load(own, write_image(wide)).digest != load(own, write_image(high)).digest
    one = Image.new("P", (30, 30), 1)
    digests = set()
    answers = []
    for color in ("red", "blue"):
        one.putpalette([0, 0, 0, *Image.new("RGB", (1, 1), color).tobytes()])
        digests.add(load(own, write_image(one)).digest)
        answers.append(own.chat(one.copy(), "What colour is the image?", max_tokens=12, logprobs=True).json)
    assert len(digests) == 2
    first, second = ([t["logprob"] for t in a["choices"][0]["logprobs"]["content"]] for a in answers)
    assert first != second


# Answers that are cut right


@pytest.mark.parametrize("stop", ["RTA", "O", "MORTALS", "S"])
def test_row_34_an_answer_is_cut_exactly(own: Running, stop: str) -> None:
    reply = own.post(CHAT, say(DEMO, "What is written on the sign?", max_tokens=20, stop=[stop]))
    assert reply.text == "MORTALS".partition(stop)[0]


def test_row_32_two_greedy_choices_are_equal(own: Running) -> None:
    reply = own.post(CHAT, say(DEMO, "What is written on the sign?", max_tokens=20, n=2))
    assert [choice["message"]["content"] for choice in reply.json["choices"]] == ["MORTALS", "MORTALS"]


def test_sampling_that_is_almost_greedy_is_greedy(own: Running) -> None:
    body = ChatBody.model_validate(say("Hi", temperature=1e-300, top_k=-1))
    assert read_sampling(body, own.service.limits) == Sampling(max_new_tokens=2)
