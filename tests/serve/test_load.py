"""Failures and overload: decoders, the engine, memory for images, the conversation log's disk."""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import termios
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.backends.engine_backend import RESTART_S, EngineBackend
from llava.errors import BadImage, EngineClosed
from llava.image.source import Limits as ImageLimits
from llava.serve.image_decoder import DecoderPool
from llava.serve.image_loader import _MemoryBudget
from llava.serve.limits import Limits, Settings
from tests.serve.conftest import Internet
from tests.serve.serving import (
    PATIENCE_S,
    Puppet,
    Running,
    data_uri,
    run_server,
    stop_process,
    wait_until,
    write_image,
)

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
PNG = write_image(Image.new("RGB", (30, 20), "red"))


def draw(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_text_behind_20_images_waits_no_longer_than_they_take(own: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, may_run = own.service.backend.engine._runner, threading.Event()  # type: ignore[attr-defined]
    run = runner.run
    monkeypatch.setattr(runner, "run", lambda step: may_run.wait(PATIENCE_S) and run(step))
    with ThreadPoolExecutor(21) as pool:
        # What they have to say beyond "Hi" is what the text may be late by.
        images = [pool.submit(own.chat, draw(100 + i, 200, 200), "What is it?", max_tokens=16) for i in range(20)]
        wait_until(lambda: own.service.num_open == 20)
        asking = pool.submit(own.post, CHAT, HI)
        wait_until(lambda: own.service.num_open == 21)
        may_run.set()
        text, seen = asking.result(), [one.result() for one in images]
    assert {one.status for one in [text, *seen]} == {200}
    # Their own times and not another run's: the machine may be faster or slower by then.
    assert text.seconds < max(one.seconds for one in seen)


def test_hosts_that_do_not_answer_hold_up_only_who_named_them(internet: Internet) -> None:
    over = threading.Event()
    internet.pages["/silent.png"] = lambda _: over.wait(PATIENCE_S)
    silent = [{"type": "image_url", "image_url": {"url": internet.url("/silent.png")}}] * 16
    by_url = {"type": "image_url", "image_url": {"url": internet.page("/red.png", PNG)}}
    with run_server(Puppet()) as running, ThreadPoolExecutor(8) as pool:
        held = [pool.submit(running.chat, *silent) for _ in range(8)]
        wait_until(lambda: len(internet.connected) == 8 * 4)
        assert [running.chat(part).status for part in (Image.new("RGB", (5, 5)), by_url)] == [200, 200]
        assert not any(reply.done() for reply in held)
        over.set()
        assert {reply.result().error["code"] for reply in held} == {"image_fetch_failed"}


def test_a_client_that_leaves_ends_the_fetching_of_its_images(internet: Internet) -> None:
    heard: list[bytes | None] = []

    def stay_silent(connection: socket.socket) -> None:
        heard.append(None)
        heard.append(connection.recv(1))

    internet.pages["/silent.png"] = stay_silent
    part = {"type": "image_url", "image_url": {"url": internet.url("/silent.png")}}
    body = json.dumps({"messages": [{"role": "user", "content": [part]}]})
    with run_server(Puppet()) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port)
        connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
        wait_until(lambda: heard)
        connection.close()
        wait_until(lambda: heard == [None, b""])


def test_what_is_fetched_for_a_request_is_bounded_together(internet: Internet) -> None:
    url = internet.page("/sign.png", PNG)
    part = {"type": "image_url", "image_url": {"url": url}}
    limits = Limits(fetched_bytes=2 * len(PNG), fetch_s=PATIENCE_S, decode_s=PATIENCE_S)
    with run_server(Puppet(), Settings(limits=limits, decoders=1)) as running:
        assert running.chat(part, part).status == 200
        refused = running.chat(part, part, part)
        assert (refused.status, refused.error["code"]) == (400, "fetched_bytes_limit_exceeded")
        assert running.chat(*[Image.new("RGB", (5, 5))] * 3).status == 200  # not fetched


def test_a_decoder_that_is_killed_comes_back(own: Running) -> None:
    assert own.chat(draw(1, 20, 20), "?", max_tokens=2).status == 200
    for pid in find_pids(own.service.images.decoders):
        os.kill(pid, signal.SIGKILL)
    assert [own.chat(draw(i, 20, 20), "?", max_tokens=2).status for i in range(4)] == [200] * 4


@pytest.fixture
def decoders() -> Any:
    made = DecoderPool(1, ImageLimits(), PATIENCE_S)
    yield made
    made.close()


def find_pids(decoders: DecoderPool) -> list[int]:
    """The ids of the processes that were started."""
    return [child.process.pid for child in decoders._children if child.process is not None]


def num_unread(decoders: DecoderPool) -> int:
    """Bytes on their way to the only process."""
    process = decoders._children[0].process
    if process is None or process.stdin is None:
        return 0
    try:
        return struct.unpack("i", fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4)))[0]
    except (OSError, ValueError):  # closed: the process is gone
        return 0


def test_a_decoder_that_dies_while_it_decodes_is_started_again_once(
    decoders: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoders.warm_up()
    (first,) = find_pids(decoders)
    stop_process(first)
    with ThreadPoolExecutor(1) as pool:
        decoding = pool.submit(decoders.decode, PNG, "sign.png")
        wait_until(lambda: num_unread(decoders) > 0)
        os.kill(first, signal.SIGKILL)
        assert decoding.result(PATIENCE_S).size == (30, 20)
        (second,) = find_pids(decoders)
        assert second != first
        start = subprocess.Popen

        def start_stopped(*arguments: Any, **keywords: Any) -> Any:
            """A process that has read nothing when somebody kills it."""
            process = start(*arguments, **keywords)
            stop_process(process.pid)
            return process

        monkeypatch.setattr("llava.serve.image_decoder.subprocess.Popen", start_stopped)
        stop_process(second)
        decoding = pool.submit(decoders.decode, PNG, "sign.png")
        wait_until(lambda: num_unread(decoders) > 0)
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: find_pids(decoders) not in ([], [second]) and num_unread(decoders) > 0)
        os.kill(find_pids(decoders)[0], signal.SIGKILL)
        with pytest.raises(EngineClosed, match=r"sign\.png was not decoded: the decoder process was killed"):
            decoding.result(PATIENCE_S)
        monkeypatch.undo()
    assert decoders.decode(PNG, "sign.png").size == (30, 20)


def test_an_image_that_takes_too_long_is_refused_and_its_decoder_ended(decoders: DecoderPool) -> None:
    decoders.timeout_s = 0.2
    decoders.warm_up()
    (pid,) = find_pids(decoders)
    stop_process(pid)  # as slow as can be
    with pytest.raises(BadImage, match=r"within 0.2 seconds \(limit decode_s\)"):
        decoders.decode(PNG, "sign.png")
    decoders.timeout_s = PATIENCE_S
    assert decoders.decode(PNG, "sign.png").size == (30, 20)


def test_an_image_that_takes_too_much_memory_is_refused(request: pytest.FixtureRequest) -> None:
    decoders = DecoderPool(1, ImageLimits(), PATIENCE_S, memory_bytes=400 * 2**20)
    request.addfinalizer(decoders.close)
    large = write_image(Image.new("L", (8000, 8000)), compress_level=1)
    small_limits = decoders.limits
    decoders.limits = ImageLimits(max_pixels=10**9)
    with pytest.raises(BadImage, match=r"too much memory|crashed|damaged"):
        decoders.decode(large, "sign.png")
    decoders.limits = small_limits
    assert decoders.decode(PNG, "sign.png").size == (30, 20)


def test_an_engine_that_breaks_fails_its_requests_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now, raised = [1000.0], list[Any]()
    monkeypatch.setattr("llava.backends.engine_backend.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("threading.excepthook", raised.append)
    backend = EngineBackend()
    with run_server(backend) as running:
        assert running.post(CHAT, HI).status == 200
        broken = backend.engine
        monkeypatch.setattr(broken, "_step", lambda: 1 / 0)
        reply = running.post(CHAT, HI)
        assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
        assert running.post(CHAT, HI).status == 200
        assert backend.engine is not broken
        monkeypatch.setattr(backend.engine, "_step", lambda: 1 / 0)
        assert running.post(CHAT, HI).status == 503
        now[0] += RESTART_S - 0.01
        assert running.send("GET", "/health").status == 503  # not made anew again so soon
        now[0] += 0.02
        assert running.send("GET", "/health").status == 200
        assert running.post(CHAT, HI).status == 200
        assert running.counts()["llava_engine_restarts_total"] == 2
        wait_until(lambda: len(raised) == 2)  # the engines' threads, which say last what broke them


def test_a_request_that_fails_in_the_model_fails_alone(own: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = own.service.backend.engine._runner  # type: ignore[attr-defined]
    run = runner.run

    def fail(step: Any) -> Any:
        if any(chunk.request.max_new_tokens == 7 for chunk in step.chunks):
            raise RuntimeError("/secret/path at 0x7f0012345678")
        return run(step)

    monkeypatch.setattr(runner, "run", fail)
    with ThreadPoolExecutor(8) as pool:
        good = [pool.submit(own.post, CHAT, {**HI, "max_tokens": 30}) for _ in range(7)]
        bad = own.post(CHAT, {**HI, "max_tokens": 7})
        assert {one.result().status for one in good} == {200}
    assert (bad.status, bad.error["code"]) == (500, "internal")
    assert "secret" not in bad.body.decode()


def test_conversations_are_logged_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with run_server(Puppet(), Settings(limits=Limits(decode_s=PATIENCE_S), log=path)) as running:
        assert running.chat("Look", Image.new("RGB", (5, 5), "red"), n=1).status == 200
        assert running.chat("Ä?", stream=True).status == 200
        assert running.post(CHAT, {}).status == 400
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first["messages"][0]["parts"][0] == "Look"
    assert len(first["messages"][0]["parts"][1]["sha256"]) == 64
    assert (first["answers"], first["outcome"], first["source"], first["model"]) == (
        ["word word word "],
        "answered",
        "api",
        "puppet",
    )
    assert second["messages"][0]["parts"] == ["Ä?"]


def test_a_full_disk_costs_the_log_and_not_the_answers(caplog: pytest.LogCaptureFixture) -> None:
    with run_server(Puppet(), Settings(log=Path("/dev/full"))) as running:
        assert [running.post(CHAT, HI).status for _ in range(3)] == [200] * 3
    assert [record.levelname for record in caplog.records if "/dev/full" in record.getMessage()] == ["ERROR"]


def test_metrics_count_what_happened(own: Running) -> None:
    before = own.counts()
    assert own.chat(draw(5, 30, 30), "What is it?", max_tokens=3).status == 200
    assert own.chat("word " * 3000).status == 400
    wait_until(lambda: own.counts()["llava_engine_requests_running"] == 0)  # its thread says so last
    after = own.counts()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown['llava_answers_total{outcome="answered"}'] == 1
    assert grown['llava_answers_total{outcome="refused"}'] == 1
    assert grown["llava_generated_tokens_total"] == grown["llava_engine_generated_tokens_total"] == 3
    assert grown["llava_image_tokens_total"] == 8 * 8 + 8 * 9 or grown["llava_image_tokens_total"] > 60
    assert grown["llava_time_to_first_token_seconds_count"] == 1
    assert grown["llava_time_between_tokens_seconds_count"] == 2
    assert after["llava_requests_open"] == after["llava_requests_queued"] == after["llava_engine_requests_running"] == 0
    assert 0 <= after["llava_engine_kv_used_share"] <= 1


def test_a_request_takes_turns_with_those_before_it() -> None:
    puppet = Puppet()
    with run_server(puppet, Settings(limits=Limits(running=1))) as running, ThreadPoolExecutor(3) as pool:
        puppet.gate.clear()
        asked = [pool.submit(running.post, CHAT, HI) for _ in range(3)]
        wait_until(lambda: running.counts()["llava_requests_queued"] == 2 and puppet.num_open == 1)
        assert running.service.num_open == 3
        puppet.gate.set()
        assert [one.result().status for one in asked] == [200] * 3


def test_decoded_images_wait_for_room_and_give_it_back() -> None:
    puppet = Puppet()
    limits = Limits(images_bytes=100 * 100 * 3 * 3, decode_s=PATIENCE_S)
    image = draw(1, 100, 100)
    with run_server(puppet, Settings(limits=limits)) as running, ThreadPoolExecutor(4) as pool:
        refused = running.chat(*[image] * 4)
        assert (refused.status, refused.error["code"]) == (400, "images_bytes_limit_exceeded")
        puppet.gate.clear()
        asked = [pool.submit(running.chat, image, image) for _ in range(4)]
        room = running.service.images._budget
        wait_until(lambda: len(room._waiting) == 3 and puppet.num_open)
        assert puppet.num_open == 1  # two images of three that have room
        assert running.chat("Hi", max_tokens=2, stream=True, n=9).status == 400
        puppet.gate.set()
        assert [one.result().status for one in asked] == [200] * 4
        assert (room._num_free, list(room._waiting), running.service.images._held) == (room.size, [], {})
        bad = {"type": "image_url", "image_url": "data:image/png;base64,AAAA"}
        broken = {"type": "image_url", "image_url": data_uri(write_image(image)[:-200])}
        for part in (bad, broken):
            reply = running.chat(image, part)
            assert (reply.status, reply.error["param"]) == (400, "messages.0.content.1.image_url")
        assert room._num_free == room.size


def test_a_client_that_leaves_while_it_waits_for_room_leaves_it_to_others() -> None:
    async def main() -> None:
        room = _MemoryBudget(10)
        await room.acquire(8)
        first, second = asyncio.create_task(room.acquire(5)), asyncio.create_task(room.acquire(2))
        await asyncio.sleep(0)
        assert not second.done()  # nobody is overtaken
        first.cancel()
        await asyncio.wait({second}, timeout=PATIENCE_S)
        assert second.done()
        third = asyncio.create_task(room.acquire(9))
        await asyncio.sleep(0)
        room.release(10)
        third.cancel()  # though its turn has come
        await asyncio.wait({third})
        assert room._num_free == room.size

    asyncio.run(main())
