"""Queued streams, keep-alive comments, half-closed connections."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from llava.backends.engine_backend import EngineBackend
from llava.errors import ContextTooLong
from llava.serve.admission_queue import AdmissionQueue, Ticket
from llava.serve.limits import Limits, Settings
from llava.serve.streaming import write_event_comment
from tests.serve.serving import PATIENCE_S, Puppet, Running, run_server, wait_until

CHAT, TEXT, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
KINDS = [
    (CHAT, HI),
    (TEXT, {"prompt": "Hi"}),
    (RESPONSES, {"input": "Hi"}),
    ("/worker_generate_stream", {"prompt": "Hi"}),
]
# A comment often, and nothing else of the clock's.
OFTEN = Limits(running=1, silence_s=0.02, status_s=PATIENCE_S)


def connect(running: Running, path: str, content: Any, version: str = "1.1") -> socket.socket:
    body = json.dumps(content).encode()
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S)
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def read_until(connection: socket.socket, word: bytes) -> bytes:
    heard = b""
    while word not in heard:
        piece = connection.recv(2**16)
        assert piece, heard
        heard += piece
    return heard


@contextlib.contextmanager
def crowded(puppet: Puppet, limits: Limits = OFTEN, num: int = 1) -> Iterator[Running]:
    """A server whose only turn is taken, and others wait for it."""
    puppet.gate.clear()
    with run_server(puppet, Settings(limits=limits)) as running, ThreadPoolExecutor(num) as pool:
        for i in range(num):
            pool.submit(running.post, CHAT, HI)
            wait_until(lambda count=i + 1: running.service.num_open == count)
        try:
            yield running
        finally:
            puppet.gate.set()


@pytest.mark.parametrize(("path", "asked"), KINDS)
def test_a_stream_that_waits_has_its_headers_and_comments(path: str, asked: dict[str, Any]) -> None:
    puppet = Puppet()
    with crowded(puppet, num=3) as running, connect(running, path, {**asked, "stream": True}) as connection:
        heard = read_until(connection, b"\r\n\r\n")
        assert heard.startswith(b"HTTP/1.1 200")
        if path.startswith("/v1"):
            heard += read_until(connection, b": queued 3\n\n\r\n")
            heard += read_until(connection, b": queued 3\n\n\r\n")
        else:
            heard += read_until(connection, b"1\r\n\0\r\n1\r\n\0\r\n")
        assert b"word" not in heard
        puppet.gate.set()
        assert b"word" in read_until(connection, b"0\r\n\r\n")


def test_a_stream_whose_turn_it_is_has_comments_before_and_between_its_tokens() -> None:
    puppet = Puppet(num_tokens=10**9)
    puppet.gate.clear()
    limits = Limits(silence_s=0.02, status_s=0.02)
    with (
        run_server(puppet, Settings(limits=limits)) as running,
        connect(running, CHAT, {**HI, "stream": True}) as connection,
    ):
        read_until(connection, b": keep-alive\n\n")
        puppet.gate.set()
        read_until(connection, b"word")
        puppet.gate.clear()
        read_until(connection, b": keep-alive\n\n")


def test_clients_pass_comments_over() -> None:
    puppet = Puppet()
    with crowded(puppet) as running, openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        chat = client.chat.completions.create(model="puppet", messages=HI["messages"], stream=True)  # type: ignore[call-overload]
        answer = client.responses.create(model="puppet", input="Hi", stream=True)
        wait_until(lambda: running.service.num_open == 3)
        puppet.gate.set()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chat) == "word word word "
        assert [event.type for event in answer][-1] == "response.completed"


@pytest.mark.parametrize(("path", "asked"), KINDS)
def test_what_is_wrong_with_a_stream_that_waited_is_its_last_event(path: str, asked: dict[str, Any]) -> None:
    puppet = Puppet()
    with crowded(puppet) as running, connect(running, path, {**asked, "stream": True}) as connection:
        read_until(connection, b"\r\n\r\n")
        puppet.error = ContextTooLong(3000, 2048)
        puppet.gate.set()
        *_, last = read_until(connection, b"0\r\n\r\n").split(b"data: ")
        assert b"maximum context length is 2048" in last
        assert b'"context_length_exceeded"' in last or path.startswith("/worker")
        assert b"[DONE]" not in last


def test_what_is_wrong_before_a_stream_waits_keeps_its_status() -> None:
    limits = Limits(running=1, waiting=1, status_s=PATIENCE_S)
    puppet = Puppet()
    with crowded(puppet, limits, num=2) as running:
        for asked, status in ((HI, 429), ({**HI, "temperature": 9}, 400), ({**HI, "model": "x"}, 404)):
            assert running.post(CHAT, {**asked, "stream": True}).status == status


def test_the_place_in_the_queue_falls() -> None:
    async def main() -> None:
        queue, tickets = AdmissionQueue(1), [Ticket() for _ in range(5)]
        tasks = [asyncio.create_task(queue.acquire(ticket)) for ticket in tickets]
        await asyncio.sleep(0)
        assert [ticket.position for ticket in tickets] == [0, 1, 2, 3, 4]
        assert [ticket.is_queued.is_set() for ticket in tickets] == [False, True, True, True, True]
        tasks[2].cancel()
        queue.release()  # before the cancelled one has heard of it
        await asyncio.sleep(0)
        assert [ticket.position for ticket in tickets] == [0, 0, 0, 1, 2]
        queue.release()
        tasks[4].cancel()  # though its turn has come
        await asyncio.wait(tasks)
        queue.release()
        assert queue._num_free == 1
        assert not queue.tickets

    asyncio.run(main())


def test_a_comment_tells_the_place_or_that_somebody_is_there() -> None:
    assert write_event_comment(7) == b": queued 7\n\n"
    assert write_event_comment(0) == b": keep-alive\n\n"


# Clients that send no more


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_sends_no_more_gets_its_answer(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.serve.half_close._GRACE_S", 0.0)
    puppet = Puppet()
    puppet.gate.clear()
    with run_server(puppet) as running, connect(running, CHAT, {**HI, "stream": stream}) as connection:
        wait_until(lambda: puppet.num_open == 1)
        connection.shutdown(socket.SHUT_WR)
        heard = read_until(connection, b": keep-alive" if stream else b"HTTP/1.1 100 ")  # it was asked and is there
        assert puppet.num_open == 1
        puppet.gate.set()
        while piece := connection.recv(2**16):  # to the end, which comes at once
            heard += piece
        assert b"HTTP/1.1 200" in heard
        assert b"word" in heard
        assert heard.endswith(b"0\r\n\r\n" if stream else b"}")


def test_a_client_reads_over_the_question_whether_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.serve.half_close._GRACE_S", 0.0)
    puppet = Puppet()
    puppet.gate.clear()
    with run_server(puppet) as running, connect(running, CHAT, HI) as connection:
        wait_until(lambda: puppet.num_open == 1)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(8, socket.MSG_PEEK) == b"HTTP/1.1"
        puppet.gate.set()
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["choices"][0]["message"]["content"]) == (
            200,
            "word word word ",
        )


def test_whatever_is_asked_is_answered_to_a_client_that_sends_no_more() -> None:
    with run_server(Puppet()) as running:
        for path, status in (("/health", 200), ("/v1/models", 200), ("/nothing", 404)):
            with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                connection.shutdown(socket.SHUT_WR)
                assert read_until(connection, b"}").startswith(f"HTTP/1.1 {status}".encode())
                assert connection.recv(1) == b""


def test_further_requests_of_a_client_that_sends_no_more_are_answered() -> None:
    puppet = Puppet()
    with run_server(puppet) as running:
        puppet.gate.clear()
        with connect(running, CHAT, HI) as connection:
            wait_until(lambda: puppet.num_open == 1)
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            puppet.gate.set()
            heard = b""
            while piece := connection.recv(2**16):
                heard += piece
            assert heard.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize(("stream", "version"), [(False, "1.1"), (True, "1.1"), (False, "1.0"), (True, "1.0")])
def test_a_client_that_left_is_noticed(stream: bool, version: str) -> None:
    puppet = Puppet()
    with run_server(puppet) as running:
        puppet.gate.clear()
        connection = connect(running, CHAT, {**HI, "stream": stream}, version)
        wait_until(lambda: puppet.num_open == 1)
        connection.close()
        wait_until(lambda: puppet.num_open == 0 and running.service.num_open == 0)
        puppet.gate.set()


def test_an_idle_connection_is_kept_as_long_as_that_is_set() -> None:
    with run_server(Puppet(), Settings(limits=Limits(keep_alive_s=0.2))) as running:
        assert running.server.config.timeout_keep_alive == 0.2
        with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            read_until(connection, b"}")
            assert connection.recv(1) == b""
    assert Limits().keep_alive_s == 75


# Why an answer ended


def test_an_answer_tells_what_ended_it(own: Running) -> None:
    def ask(**more: Any) -> tuple[str, str | None]:
        question = {"messages": [{"role": "user", "content": "Hi"}], **more}
        reply = own.post(CHAT, question)
        streamed = own.post(CHAT, {**question, "stream": True}).events[-1]["choices"][0]
        choice = reply.json["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == (streamed["finish_reason"], streamed["stop_reason"])
        return choice["finish_reason"], choice["stop_reason"]

    assert ask() == ("stop", None)
    assert ask(max_tokens=1) == ("length", "max_tokens")
    first = own.post(CHAT, {**HI, "max_tokens": 20}).text[:1]
    assert ask(stop=["zzz", first]) == ("stop", first)


def test_an_answer_that_the_context_cut_says_so(next_folder: Any) -> None:
    with run_server(EngineBackend(next_folder), Settings(limits=Limits(new_tokens=10**6))) as running:
        long = {"messages": [{"role": "user", "content": "0" * 3900}]}  # so that little is left of the context
        reply = running.post(CHAT, {**long, "max_tokens": 10**6}).json
        (choice,) = reply["choices"]
        assert reply["usage"]["total_tokens"] == 4096
        assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "context_length")
