"""The middleware: API keys, disconnects, slow readers, slow and malformed requests."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava.backends.engine_backend import EngineBackend
from llava.serve.limits import Limits, Settings
from tests.serve.serving import PATIENCE_S, PATIENT, Puppet, Running, run_server, wait_until

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with run_server(Puppet(), Settings(keys=("first key", "second", "schlüssel"))) as running:
        yield running


def routes(running: Running) -> list[tuple[str, str]]:
    app = running.server.config.app
    found = [(method, route.path) for route in app.routes for method in route.methods]  # type: ignore[union-attr]
    return [(method, path.replace("{model_id:path}", "puppet")) for method, path in found]


def test_row_39_no_route_but_one_is_open_without_a_key(locked: Running) -> None:
    asked = routes(locked)
    assert len(asked) > 12
    for method, path in [*asked, ("GET", "/nothing"), ("GET", "/health/"), ("GET", "//health"), ("OPTIONS", CHAT)]:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "x"}):
            reply = locked.send(method, path, b"{}" if method == "POST" else None, headers)
            if path == "/health":
                assert reply.status == 200
                continue
            assert reply.status == 401, (method, path)
            if method != "HEAD":
                assert reply.error["code"] == "invalid_api_key"


@pytest.mark.parametrize("host", ["x/health?", "x/health#", "127.0.0.1/health", "health"])
def test_row_38_a_host_header_opens_nothing(locked: Running, host: str) -> None:
    assert locked.send("GET", "/v1/models", headers={"Host": host}).status == 401
    assert locked.send("GET", "/v1/models?/health").status == 401
    assert locked.send("GET", "/health/../v1/models").status == 401


@pytest.mark.parametrize("key", ["first key", "second", "schlüssel"])
def test_any_key_opens_everything(locked: Running, key: str) -> None:
    password = base64.b64encode(f"anybody:{key}".encode()).decode()
    for kind in (f"Bearer {key}", f"bearer {key}", f"Basic {password}"):
        assert locked.post(CHAT, HI, Authorization=kind.encode()).status == 200
    assert locked.send("GET", "/v1/models", headers={"Authorization": f"Bearer {key} ".encode()}).status == 200


def connect(running: Running, content: Any, path: str = CHAT) -> socket.socket:
    """A request on its way, nothing of its answer read."""
    body = json.dumps(content).encode()
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the other side ends it."""
    heard = bytearray()
    connection.settimeout(PATIENCE_S)
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(2**20):
            heard += piece
    return bytes(heard)


def num_cancelled(running: Running) -> float:
    """Answers that ended because nobody waited for them any more."""
    return running.counts().get('llava_answers_total{outcome="cancelled"}', 0)


def check_freed(running: Running, cancelled: float) -> None:
    """So many were cancelled since the server began, nobody is left, and every block can be had again."""
    backend = running.service.backend
    assert isinstance(backend, EngineBackend)
    engine = backend.engine
    wait_until(lambda: num_cancelled(running) == cancelled)
    wait_until(lambda: running.service.num_open == engine._num_open == 0)
    assert engine.stats().num_running + engine.stats().num_waiting == 0
    pool = engine._scheduler.pool
    engine._scheduler.audit()
    assert pool.num_available == pool.num_blocks


@pytest.fixture(scope="module")
def endless(next_folder: Path) -> Iterator[Running]:
    """A model that never ends an answer by itself."""
    with run_server(EngineBackend(next_folder)) as running:
        yield running


LONG = {"messages": HI["messages"], "max_tokens": 4000}


@pytest.mark.parametrize("stream", [False, True])
def test_row_40_a_client_that_leaves_frees_its_work(endless: Running, stream: bool) -> None:
    engine, before = endless.service.backend.engine, num_cancelled(endless)  # type: ignore[attr-defined]
    connection = connect(endless, {**LONG, "stream": stream, "n": 4})
    wait_until(lambda: engine.stats().num_running == 4)
    if stream:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert endless.service.num_open == 1
    connection.close()
    check_freed(endless, before + 1)


def test_row_40_two_hundred_clients_leave_at_once(endless: Running) -> None:
    limits, before = endless.service.limits, num_cancelled(endless)
    connections = [connect(endless, {**LONG, "stream": i % 2 == 0}) for i in range(200)]
    most = limits.running + limits.waiting
    wait_until(lambda: endless.service.num_open == most)
    for connection in connections:
        connection.close()
    check_freed(endless, before + most)
    assert endless.post(CHAT, HI).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_the_first_token_frees_its_place(stream: bool) -> None:
    puppet = Puppet()
    with run_server(puppet) as running:
        puppet.gate.clear()
        connection = connect(running, {**HI, "stream": stream})
        wait_until(lambda: puppet.num_open == 1)
        connection.close()
        wait_until(lambda: puppet.num_open == 0 and running.service.num_open == 0)
        puppet.gate.set()
        assert running.post(CHAT, HI).status == 200


def test_a_client_that_leaves_with_its_next_request_under_way_frees_its_work() -> None:
    puppet = Puppet()
    with run_server(puppet) as running:
        puppet.gate.clear()
        connection = connect(running, HI)
        wait_until(lambda: puppet.num_open == 1)
        connection.sendall(HEALTH)
        time.sleep(0.1)
        connection.close()
        wait_until(lambda: puppet.num_open == 0 and running.service.num_open == 0)
        puppet.gate.set()


def test_a_client_that_leaves_within_its_body_is_nobodys_fault(own: Running, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/get_worker_address", CHAT):
        connection = socket.create_connection(("127.0.0.1", own.port), timeout=PATIENCE_S)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
        )
        connection.sendall(head.encode())
        time.sleep(0.05)
        connection.close()
    assert own.send("GET", "/ready").status == 200
    assert caplog.records == []


def test_row_41_who_does_not_read_is_cut_off_and_holds_nobody_up() -> None:
    puppet = Puppet(num_tokens=50_000, word="x" * 2000)
    with run_server(puppet, Settings(limits=Limits(send_s=3 * PATIENCE_S))) as patient:
        slow = connect(patient, {**HI, "stream": True})
        wait_until(lambda: puppet.num_open == 1)
        puppet.num_tokens = 3
        for _ in range(5):
            assert patient.post(CHAT, HI).status == 200
        assert puppet.num_open == 1  # it is still there, and held nobody up
        slow.close()
        wait_until(lambda: puppet.num_open == 0)
    puppet.num_tokens = 50_000
    with run_server(puppet, Settings(limits=Limits(send_s=0.5))) as running:
        num_before = len(puppet.requests)
        slow = connect(running, {**HI, "stream": True})
        wait_until(lambda: len(puppet.requests) > num_before and puppet.num_open == 0)
        with slow:
            assert not read_all(slow).endswith(b"0\r\n\r\n"), "it looks like a whole answer"


HEALTH = b"GET /health HTTP/1.1\r\nHost: [::1]\r\n\r\n"


@pytest.fixture(scope="module")
def hurried() -> Iterator[Running]:
    with run_server(Puppet(), Settings(limits=Limits(header_s=1.0), decoders=1)) as running:
        yield running


@pytest.mark.parametrize("begin", [b"", b"POST /v1/chat", b"POST / HTTP/1.1\r\nX: y\r\n", HEALTH + b"GET /hea"])
def test_row_41_headers_that_do_not_come_end_the_connection(hurried: Running, begin: bytes) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", hurried.port), timeout=PATIENCE_S) as connection:
        connection.sendall(begin)
        assert read_all(connection).count(b"HTTP/1.1 200") == begin.count(HEALTH)
        assert time.monotonic() - began > 0.9 * hurried.service.limits.header_s


def test_a_body_that_was_refused_is_not_read_for_ever(hurried: Running) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", hurried.port), timeout=PATIENCE_S) as connection:
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 415")

        def is_closed() -> bool:
            try:
                connection.sendall(b"x" * 1000)
            except OSError:
                return True
            return False

        wait_until(is_closed)


def test_a_connection_serves_on_after_a_refusal(own: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", own.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        for content, status in ((b"{}", 400), (b"[", 400), (json.dumps(HI).encode(), 200)):
            connection.request("POST", CHAT, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()[:1]) == (status, b"{")


def test_row_41_a_body_that_does_not_come_is_refused() -> None:
    head = (
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    limits = Limits(body_s=0.5, header_s=PATIENCE_S)
    with (
        run_server(Puppet(), Settings(limits=limits, decoders=1)) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE_S) as connection,
    ):
        connection.sendall(head)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408
        assert b"body_s_limit_exceeded" in answer.read()


def test_an_answer_that_takes_too_long_is_ended() -> None:
    puppet = Puppet()
    with run_server(puppet, Settings(limits=Limits(answer_s=0.3))) as running:
        puppet.gate.clear()
        reply = running.post(CHAT, HI)
        assert (reply.status, reply.error["code"]) == (503, "answer_s_limit_exceeded")
        assert puppet.num_open == 0


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (CHAT, HI),
        ("/v1/completions", {"prompt": "Hi"}),
        ("/v1/responses", {"input": "Hi"}),
        ("/worker_generate_stream", {"prompt": "Hi"}),
    ],
)
def test_a_stream_that_takes_too_long_says_so_at_its_end(path: str, asked: dict[str, Any]) -> None:
    puppet = Puppet(num_tokens=10**6)
    with run_server(puppet, Settings(limits=Limits(answer_s=0.3))) as running:
        replies: list[Any] = []

        def has_begun() -> bool:  # before its time was over, which a busy machine may miss
            replies.append(running.post(path, {**asked, "stream": True}))
            return replies[-1].status == 200

        wait_until(has_begun)
        *_, last, end = re.split(rb"\n\n|\0", replies[-1].body)
        assert (b"the limit answer_s is 0.3" in last, end) == (True, b"")
        wait_until(lambda: puppet.num_open == 0)


def test_row_42_more_than_may_wait_are_refused_at_once_and_the_others_answered_in_order() -> None:
    puppet = Puppet()
    limits = Limits(running=2, waiting=3)
    with run_server(puppet, Settings(limits=limits)) as running, ThreadPoolExecutor(60) as pool:
        puppet.gate.clear()
        admitted = []
        for i in range(5):
            asked = {"messages": [{"role": "user", "content": str(i)}]}
            admitted.append(pool.submit(running.post, CHAT, asked))
            wait_until(lambda count=i + 1: running.service.num_open == count)
        refused = list(pool.map(lambda _: running.post(CHAT, HI), range(50)))
        assert {reply.status for reply in refused} == {429}
        assert {reply.headers["retry-after"] for reply in refused} == {"1"}
        assert {reply.error["code"] for reply in refused} == {"waiting_limit_exceeded"}
        assert puppet.num_open == 2  # nobody's end was waited for
        puppet.gate.set()
        assert [one.result().status for one in admitted] == [200] * 5
        assert [request.messages[0].parts[0] for request in puppet.requests] == list("01234")
        assert running.service.num_open == 0


def test_cors_is_off_unless_it_is_set(own: Running) -> None:
    headers = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in own.send("OPTIONS", CHAT, headers=headers).headers
    settings = Settings(origins=("https://page.example",), keys=("key",))
    with run_server(Puppet(), settings) as running:
        assert running.send("OPTIONS", CHAT, headers=headers).status == 200
        reply = running.send("GET", "/v1/models", headers={**headers, "Authorization": "Bearer key"})
        assert reply.headers["access-control-allow-origin"] == "https://page.example"
        other = running.send("OPTIONS", CHAT, headers={**headers, "Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_an_error_before_the_first_token_has_a_status_and_one_after_it_an_event() -> None:
    puppet = Puppet()
    puppet.error = RuntimeError("secret at 0x7f001234")
    with run_server(puppet) as running:
        reply = running.post(CHAT, {**HI, "stream": True})
        assert (reply.status, reply.error["type"], reply.error["code"]) == (500, "server_error", "internal")
        assert reply.headers["x-request-id"] in reply.error["message"]
        puppet.error_after = 2
        reply = running.post(CHAT, {**HI, "stream": True})
        *chunks, error, end = reply.body.decode().split("\n\n")
        assert (reply.status, len(chunks), end) == (200, 3, "")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "internal"
        assert "secret" not in reply.body.decode()
        assert running.service.num_open == puppet.num_open == 0


def test_draining_refuses_new_ones_and_waits_for_the_others() -> None:
    puppet = Puppet()
    limits = Limits(drain_s=3 * PATIENCE_S)
    with run_server(puppet, Settings(limits=limits)) as running, ThreadPoolExecutor(1) as pool:
        puppet.gate.clear()
        old = pool.submit(running.post, CHAT, HI)
        wait_until(lambda: puppet.num_open == 1)
        running.loop.call_soon_threadsafe(running.server.end)
        wait_until(lambda: running.service.is_draining)
        new = running.post(CHAT, HI)
        assert (new.status, new.error["code"], new.headers["retry-after"]) == (503, "draining", "1")
        assert running.send("GET", "/ready").status == 503
        assert running.send("GET", "/health").json == {"status": "draining"}
        puppet.gate.set()
        assert old.result().status == 200
        wait_until(lambda: puppet.num_stopped == 1)


def test_row_45_a_second_signal_does_not_wait() -> None:
    puppet = Puppet()
    began = time.monotonic()
    with run_server(puppet, Settings(limits=Limits(drain_s=3 * PATIENCE_S))) as running:
        puppet.gate.clear()
        connection = connect(running, HI)
        wait_until(lambda: puppet.num_open == 1)
        running.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: running.service.is_draining)
        assert not running.server.should_exit
        running.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: puppet.num_stopped == 1)
        assert puppet.num_open == 0
        assert read_all(connection).startswith(b"HTTP/1.1 503")
        connection.close()
    assert time.monotonic() - began < running.service.limits.drain_s


def test_while_a_model_loads_the_server_is_up_and_not_ready() -> None:
    puppet, begin = Puppet(), threading.Event()

    async def start() -> None:
        import asyncio

        await asyncio.to_thread(begin.wait)

    puppet.start = start  # type: ignore[method-assign]
    running = None
    pool = ThreadPoolExecutor(1)

    def look() -> list[Any]:
        wait_until(lambda: ports and _answers(ports[0]))
        found = [Running(ports[0], None, None, None).send("GET", path) for path in ("/health", "/ready")]  # type: ignore[arg-type]
        found.append(Running(ports[0], None, None, None).post(CHAT, HI))  # type: ignore[arg-type]
        begin.set()
        return found

    ports: list[int] = []
    from tests.serve import serving

    listener = serving.listen("127.0.0.1", 0)
    ports.append(listener.getsockname()[1])
    looked = pool.submit(look)
    monkey = pytest.MonkeyPatch()
    monkey.setattr(serving, "listen", lambda *_: listener)
    try:
        with run_server(puppet) as running:
            health, ready, asked = looked.result()
            assert (health.status, health.json) == (200, {"status": "loading"})
            assert (ready.status, asked.status, asked.error["code"]) == (503, 503, "loading")
            assert running.send("GET", "/ready").status == 200
    finally:
        begin.set()
        monkey.undo()
        pool.shutdown()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except OSError:
        return False
    return True


def say_raw(running: Running, data: bytes) -> bytes:
    """What a connection of its own answers to these bytes."""
    with socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as answer:
            return answer.read()


def test_a_target_in_absolute_form_is_the_path_with_its_own_host() -> None:
    with run_server(Puppet(), replace(PATIENT, is_local=True)) as running:
        rest = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        found = say_raw(running, b"GET http://LOCALHOST:80/v1/models" + rest)
        assert found.startswith(b"HTTP/1.1 200 ")
        assert b'"puppet"' in found
        assert say_raw(running, b"GET http://localhost" + rest).startswith(b"HTTP/1.1 404 ")
        assert b'"unknown_host"' in say_raw(running, b"GET http://evil.test/v1/models" + rest)
        assert b'"unknown_host"' in say_raw(running, b"GET http://localhost@evil.test/v1/models" + rest)


def test_a_body_that_will_be_refused_is_not_asked_for() -> None:
    """Curl asks before it sends more than a mebibyte."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: application/json\r\n"
    with run_server(Puppet()) as running:
        large = say_raw(running, head + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n")
        assert large.startswith(b"HTTP/1.1 413 ")
        body = json.dumps(HI).encode()
        expecting = head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        assert b"HTTP/1.1 200 OK" in say_raw(running, expecting + body)
        with socket.create_connection(("127.0.0.1", running.port), PATIENCE_S) as connection:
            connection.sendall(expecting)
            answer = connection.makefile("rb")
            assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
            connection.sendall(body)
            assert b"HTTP/1.1 200 OK\r\n" in answer.readlines()
            answer.close()


def test_what_is_wrong_with_a_request_line_or_a_header_is_said() -> None:
    with run_server(Puppet()) as running:
        missing = say_raw(running, b"GET /v1/models HTTP/1.1\r\n\r\n")
        assert missing.startswith(b"HTTP/1.1 400 ")
        assert b"not valid HTTP/1.1: Missing mandatory Host" in missing
        twice = say_raw(running, b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
        assert b"conflicting Content-Length" in twice


def test_a_client_that_speaks_tls_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(200)
    with run_server(Puppet()) as running:
        assert say_raw(running, hello).startswith(b"HTTP/1.1 400 ")
    assert "a client attempted a TLS handshake: this server speaks http://" in caplog.text


def test_clients_are_told_how_long_a_connection_is_kept() -> None:
    with run_server(Puppet(), replace(PATIENT, limits=replace(PATIENT.limits, keep_alive_s=12.5))) as running:
        assert running.send("GET", "/health").headers["keep-alive"] == "timeout=12"
    with run_server(Puppet(), replace(PATIENT, limits=replace(PATIENT.limits, keep_alive_s=0.5))) as running:
        assert "keep-alive" not in running.send("GET", "/health").headers


def test_a_healthy_server_says_what_of_its_engine_runs_slower_than_it_could() -> None:
    puppet = Puppet()
    puppet.fallbacks = ("The vision tower runs through PyTorch, which is slower: it has a hook.",)  # type: ignore[attr-defined]
    with run_server(puppet) as running:
        assert running.send("GET", "/health").json == {"status": "ok", "fallbacks": list(puppet.fallbacks)}  # type: ignore[attr-defined]


def test_a_broken_engine_is_not_healthy() -> None:
    puppet = Puppet()
    with run_server(puppet) as running:
        assert running.send("GET", "/health").json == {"status": "ok"}
        puppet.is_well = False
        assert running.send("GET", "/health").status == running.send("GET", "/ready").status == 503
