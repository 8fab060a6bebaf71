"""``llava serve`` as a process: startup, answers, flags, shutdown."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from llava.cli import main
from tests.serve.serving import PATIENCE_S, Running, as_part, wait_until

ROOT = Path(__file__).resolve().parents[2]
CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


LONG = {**HI, "max_tokens": 300}
# The command, but long answers stay open, whatever is ready of them, until the file is there that comes first.
HELD = """
import asyncio, contextlib, pathlib, sys
from llava.backends.engine_backend import EngineBackend
from llava.cli import main

chat, gate = EngineBackend.chat, pathlib.Path(sys.argv.pop(1))

async def hold(self, request):
    async with contextlib.aclosing(chat(self, request)) as deltas:
        async for delta in deltas:
            while request.sampling.max_new_tokens == 300 and not gate.exists():
                await asyncio.sleep(0.02)
            yield delta

EngineBackend.chat = hold
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def start(
    *flags: str, model: Path | None = None, gate: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    """A server process that is ready. Answers to ``LONG`` end once ``gate`` is a file."""
    command = [sys.executable, *(["-m", "llava"] if gate is None else ["-c", HELD, str(gate)])]
    command += ["serve", "--port", "0", "--no-web", *flags]
    command += ["--model", str(model)] if model else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)$", line)
        assert found, line
        running = Running(int(found[1]), None, None, None)  # type: ignore[arg-type]
        wait_until(lambda: running.send("GET", "/ready").status == 200, 3 * PATIENCE_S)  # it imports torch
        yield process, running
    finally:
        process.kill()
        process.communicate()


def test_a_signal_lets_answers_finish_and_ends_the_process(next_folder: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with start("--max-drain-s", "600", model=next_folder, gate=gate) as (process, running):
        assert running.send("GET", "/v1/models").json["data"][0]["id"] == next_folder.name
        assert process.stderr is not None
        assert process.stderr.readline().startswith("The model runs through PyTorch, which is slower: ")
        assert re.fullmatch(rf"llava: {next_folder.name} is ready after \d+\.\d s\n", process.stderr.readline())
        assert running.post(CHAT, HI).status == 200
        heard: list[Any] = []
        asking = threading.Thread(target=lambda: heard.append(running.post(CHAT, LONG)))
        asking.start()
        wait_until(lambda: running.counts()["llava_requests_open"] == 1)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: running.post(CHAT, HI).status == 503)
        gate.touch()
        asking.join()
        assert heard[0].status == 200
        assert heard[0].json["usage"]["completion_tokens"] == 300
        assert process.wait(PATIENCE_S) == 0


@contextlib.contextmanager
def limit_handles(process: subprocess.Popen[str], number: int) -> Iterator[None]:
    """While it lasts, the process may have so many files open; it keeps those that it has."""
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


def test_a_crowd_of_connections_is_turned_away_and_costs_nobody_an_answer(next_folder: Path, tmp_path: Path) -> None:
    gate, config = tmp_path / "gate", tmp_path / "server.yaml"
    flags = ["--config", str(config)]
    config.write_text("limits: {header_s: 600, decode_s: 600}")
    with start(*flags, model=next_folder, gate=gate) as (process, running), contextlib.ExitStack() as crowd:
        early = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
        crowd.callback(early.close)
        early.connect()
        heard: list[Any] = []
        asking = threading.Thread(target=lambda: heard.append(running.post(CHAT, LONG)))
        asking.start()
        wait_until(lambda: running.counts()["llava_requests_open"] == 1)
        with limit_handles(process, 200):
            for _ in range(250):
                crowd.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            refused: list[Any] = []

            def is_refused() -> bool:
                # One of so many at once may be cut off while it asks, and one may find a place that was given back.
                with contextlib.suppress(OSError):
                    reply = running.post(CHAT, HI)
                    refused.extend([reply] if reply.status == 503 else [])
                return len(refused) == 3

            wait_until(is_refused)
            assert refused[0].error["code"] == "too_many_connections"
            assert refused[0].headers["retry-after"] == "1"
            # Who was there before is served in full, with a decoder that has to be started anew.
            for child in psutil.Process(process.pid).children():
                child.kill()
            image = as_part(Image.new("RGB", (30, 20)))
            body = json.dumps({**HI, "messages": [{"role": "user", "content": [image]}]})
            early.request("POST", CHAT, body, {"Content-Type": "application/json"})
            answer = early.getresponse()
            assert (answer.status, "choices" in json.load(answer)) == (200, True)
            gate.touch()
            asking.join()
            assert heard[0].status == 200
            assert heard[0].json["usage"]["completion_tokens"] == 300
            crowd.close()

            def is_served() -> bool:
                with contextlib.suppress(OSError):  # those who left are noticed one after the other
                    return running.post(CHAT, HI).status == 200
                return False

            wait_until(is_served)


def test_a_process_without_a_handle_left_waits_quietly_and_loses_nobody(next_folder: Path) -> None:
    with start(model=next_folder) as (process, running), ThreadPoolExecutor(20) as pool:
        began = time.monotonic()
        with limit_handles(process, 3):
            replies = [pool.submit(running.post, CHAT, HI) for _ in range(20)]
            time.sleep(0.5)
            used = psutil.Process(process.pid).cpu_times().user
            time.sleep(1.5)  # of the processor's time it takes next to nothing, however busy the machine is
            assert psutil.Process(process.pid).cpu_times().user - used < 0.3
            assert process.poll() is None
            assert not any(reply.done() for reply in replies)
        assert [reply.result().status for reply in replies] == [200] * 20
        took_s = time.monotonic() - began
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE_S)[1]
        assert said.count("Traceback") < 4 + 2 * took_s  # once a second
        assert process.returncode == 0


def test_a_port_that_is_taken_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--no-web", "--port", str(port)]) == 2
    assert f"Cannot listen on port {port} of 127.0.0.1: Address already in use" in capsys.readouterr().err


def test_a_model_that_is_not_there_ends_the_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--no-web", "--port", "0", "--model", str(tmp_path)]) == 1
    said = capfd.readouterr().err
    assert f"llava: error: {tmp_path} is an empty folder" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--engine", "nonsense"], "There is no engine 'nonsense'"),
        (["--api-key", "right", "--api-key", " "], "An API key in --api-key is empty"),
        (["--api-key", "two\nlines"], "An API key in --api-key holds a control character"),
        (["--allow-host", "http://llava.lan"], "--allow-host takes a host name"),
        (["--root-path", "llava"], "--root-path takes a path"),
        (["--max-running", "0"], "The limit running is 0; it has to be at least 1."),
        (["--max-answer-s", "1e15"], "The limit answer_s is 1000000000000000.0; it has to be at most 1000000."),
        (["--max-drain-s", "nan"], "The limit drain_s is nan"),
        (["--conv-mode", "nonsense"], "There is no conversation template 'nonsense'"),
        (["--host", ""], "--host is empty."),
        (["--host", "http://localhost"], "Give an address of this machine with --host."),
        (["--port", "65536"], "Choose another port with --port."),
        (["--cors-origin", "llava.lan"], "--cors-origin takes an origin such as"),
        (["--cors-origin", "http://llava.lan/page"], "--cors-origin takes an origin such as"),
        (["--fetch-host", "http://llava.lan"], "--fetch-host takes a host name"),
        (["--fetch-host", ""], "--fetch-host takes a host name"),
        (["--address", "http://:80"], "'http://:80' is not the URL of a server"),
        (["--log-conversations", "/dev/null/log"], "/dev/null/log cannot be written"),
        (["--tp", "2"], "--tp has no effect on the engine that was chosen"),
        (["--engine", "sglang", "--engine-url", "http://127.0.0.1:9", "--tp", "2"], "--tp has no effect on the engine"),
        (["--context", "5"], "--context has no effect on the engine that was chosen"),
        (["--engine-url", "http://127.0.0.1:9", "--engine-arg=--x"], "--engine-arg has no effect on the engine"),
        (
            ["--engine-url", "http://127.0.0.1:9", "--quant", "int8"],
            "--quant has no effect on the engine that was chosen",
        ),
        (["--engine-url", "http://127.0.0.1:9", "--memory", "1G"], "--memory has no effect on the engine"),
        (["--engine", "sglang", "--engine-url", "http://127.0.0.1:9", "--no-merge"], "--no-merge has no effect on"),
        (["--workers-of", "http://127.0.0.1:9", "--conv-mode", "v1"], "--conv-mode has no effect on the engine"),
        (["--workers-of", "http://127.0.0.1:9", "--arithmetic", "int8"], "--arithmetic has no effect on the engine"),
        (["--engine-start-s", "5"], "--engine-start-s has no effect on the engine that was chosen"),
    ],
)
def test_a_wrong_flag_is_one_sentence(capsys: pytest.CaptureFixture[str], flags: list[str], says: str) -> None:
    assert main(["serve", "--no-web", *flags]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("keys", ["", " ", "\t\n"])
def test_keys_that_are_empty_are_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keys: str
) -> None:
    monkeypatch.setenv("LLAVA_API_KEYS", keys)
    assert main(["serve", "--no-web", "--host", "0.0.0.0"]) == 2
    assert "An API key in LLAVA_API_KEYS is empty and would admit every client" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "is_warned"),
    [(["--host", "0.0.0.0"], True), (["--host", "0.0.0.0", "--api-key", "x"], False), (["--host", "127.0.0.2"], False)],
)
def test_a_server_that_everybody_reaches_and_uses_warns_of_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str], is_warned: bool
) -> None:
    assert main(["serve", "--no-web", "--port", "0", "--model", str(tmp_path), *flags]) == 1  # no model is there
    warned = [line for line in capfd.readouterr().err.splitlines() if line.startswith("llava: warning: ")]
    assert len(warned) == is_warned
    assert all("it has no API key" in line for line in warned)
