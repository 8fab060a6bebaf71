"""``llava serve`` as a process: up, answering, and gone when it is told to."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.serve.limits import Limits, describe_limits
from tests.serve.serving import Running, wait_until

ROOT = Path(__file__).resolve().parents[2]
CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@contextlib.contextmanager
def start(*flags: str, model: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    """A server process that is ready."""
    command = [sys.executable, "-m", "llava", "serve", "--port", "0", "--no-web", *flags]
    command += ["--model", str(model)] if model else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)$", line)
        assert found, line
        running = Running(int(found[1]), None, None, None)  # type: ignore[arg-type]
        wait_until(lambda: running.send("GET", "/ready").status == 200, 30)
        yield process, running
    finally:
        process.kill()
        process.communicate()


def test_a_signal_lets_answers_finish_and_ends_the_process(next_folder: Path) -> None:
    with start(model=next_folder) as (process, running):
        assert running.send("GET", "/v1/models").json["data"][0]["id"] == next_folder.name
        assert running.post(CHAT, HI).status == 200
        heard: list[Any] = []
        long = {**HI, "max_tokens": 300}
        asking = threading.Thread(target=lambda: heard.append(running.post(CHAT, long)))
        asking.start()
        metrics = "llava_requests_open 1.0"
        wait_until(lambda: metrics in running.send("GET", "/metrics").body.decode())
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: running.post(CHAT, HI).status == 503, 10)
        asking.join(60)
        assert heard[0].status == 200
        assert heard[0].json["usage"]["completion_tokens"] == 300
        assert process.wait(30) == 0


def test_a_port_that_is_taken_is_said_to_be_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--no-web", "--port", str(port)]) == 2
    assert f"Port {port} on 127.0.0.1 cannot be had: Address already in use" in capsys.readouterr().err


def test_a_model_that_is_not_there_ends_the_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--no-web", "--port", "0", "--model", str(tmp_path)]) == 1
    said = capfd.readouterr().err
    assert f"llava: error: {tmp_path} has no config.json" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--engine", "nonsense"], "There is no engine 'nonsense'"),
        (["--max-running", "0"], "The limit running is 0; it has to be at least 1."),
        (["--conv-mode", "nonsense"], "There is no conversation template 'nonsense'"),
    ],
)
def test_a_wrong_flag_is_one_sentence(capsys: pytest.CaptureFixture[str], flags: list[str], says: str) -> None:
    assert main(["serve", "--no-web", *flags]) == 2
    assert says in capsys.readouterr().err


def test_the_manual_lists_every_limit_as_it_is() -> None:
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    rows = [f"| `{name}` | {default} | {text} |" for name, default, text in describe_limits()]
    assert [row for row in rows if row not in page] == []
    assert len(rows) == len(vars(Limits()))
