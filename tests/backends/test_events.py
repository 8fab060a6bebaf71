"""An external engine's event streams and error bodies, in chunks of any size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from llava.backends.events import StreamReader, read_error, read_error_body, read_events
from llava.errors import EngineClosed, EngineFailed, EngineFull, LlavaError

BODY = ': hello\n\nevent: x\r\ndata: {"n": 1}\r\n\r\ndata:{"n": "é"}\n\ndata: [DONE]\n\ndata: {"n": 3}\n\n'.encode()


async def send(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def read(*chunks: bytes) -> list[dict[str, Any]]:
    async def everything() -> list[dict[str, Any]]:
        return [event async for event in read_events(send(chunks))]

    return asyncio.run(everything())


@pytest.mark.parametrize("size", [1, 2, 7, 20, len(BODY)])
def test_events_are_the_same_in_whatever_pieces_they_come_and_end_with_done(size: int) -> None:
    chunks = [BODY[i : i + size] for i in range(0, len(BODY), size)]
    assert read(*chunks) == [{"n": 1}, {"n": "é"}]


@pytest.mark.parametrize(
    ("chunks", "kind", "says"),
    [
        ([], EngineClosed, "closed the connection before the answer ended"),
        ([b'data: {"n": 1}\n\n', b'data: {"n": '], EngineClosed, "closed the connection before the answer ended"),
        ([b"data: {nonsense\n\n"], EngineFailed, "not JSON"),
        ([b"data: [1]\n\n"], EngineFailed, "not a JSON object"),
        ([b"data: " + b"x" * 2**20] * 5, EngineFailed, r"more than 4,194,304 bytes"),
    ],
)
def test_a_body_that_is_no_answer_is_an_error(chunks: list[bytes], kind: type[LlavaError], says: str) -> None:
    with pytest.raises(kind, match=says):
        read(*chunks)


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (5, "cannot be parsed"),
        ({"index": "x"}, "cannot be parsed"),
        ({"delta": 5}, "cannot be parsed"),
        ({"delta": {"content": "a"}, "logprobs": {"content": [{}]}}, "cannot be parsed"),
        ({"index": 1, "delta": {"content": "a"}}, "choice 1, which does not exist"),
        ({"index": -1, "delta": {"content": "a"}}, "choice -1, which does not exist"),
    ],
)
def test_a_choice_that_cannot_be_is_an_error(choice: Any, says: str) -> None:
    with pytest.raises(EngineFailed, match=says):
        StreamReader(num_choices=1).read({"choices": [choice]})


def test_nothing_comes_after_the_end_of_a_choice() -> None:
    reading = StreamReader(num_choices=2)
    assert reading.read({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}) == []
    with pytest.raises(EngineClosed, match="closed the connection before the answer ended"):
        reading.finish()
    with pytest.raises(EngineFailed, match="choice 0, which does not exist"):
        reading.read({"choices": [{"delta": {"content": "b"}}]})


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, b'{"error": {"message": "odd"}}', EngineFailed, "The engine answered with status 400: odd"),
        (422, b'{"detail": [{"msg": "odd"}]}', EngineFailed, 'The engine answered with status 422: [{"msg": "odd"}]'),
        (
            400,
            b'{"message": "at 0x7f12 of /usr/lib/x.py"}',
            EngineFailed,
            "The engine answered with status 400: at … of …",
        ),
        (500, b"<html>Oh</html>", EngineFailed, "The engine answered with status 500 and no message."),
        (502, b"\xff", EngineFailed, "The engine answered with status 502: \ufffd"),
        (429, b"", EngineFull, "The engine is too busy. Try again in 7 s."),
        (503, b"loading", EngineClosed, "The engine is too busy: loading Try again in 7 s."),
        (403, b"your key", EngineFailed, "The engine rejected the API key: set the right one in LLAVA_ENGINE_KEY."),
    ],
)
def test_a_refusal_becomes_a_sentence(status: int, body: bytes, kind: type[Exception], words: str) -> None:
    error = read_error(status, body, {"retry-after": "7"})
    assert (type(error), str(error)) == (kind, words)
    assert getattr(error, "status", status) == status


def test_of_a_long_refusal_only_the_beginning_is_read() -> None:
    began = asyncio.run(read_error_body(send([b"x" * 50_000] * 100)))
    assert len(began) == 100_000
    assert len(str(read_error(400, began, {}))) < 400
