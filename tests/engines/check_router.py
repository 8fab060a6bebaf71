"""SGLang's gateway ``smg``, with retries off, in front of several servers. Run by ``make test-engines``.

The command line here is the one that docs/serving-beyond.md gives.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from PIL import Image

from llava.backends.process import find_free_port
from llava.backends.protocol import ChatMessage, ChatRequest
from llava.backends.remote import Remote, Timeouts
from llava.errors import LlavaError

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests/backends/fake_engine.py"
KEY = "a-key"
BEARER = {"Authorization": f"Bearer {KEY}"}


def written_command() -> list[str]:
    """The words for ``smg`` in the manual."""
    page = (ROOT / "docs/serving-beyond.md").read_text(encoding="utf-8")
    found = re.search(r"^smg launch (?:.*\\\n)*.*$", page, re.MULTILINE)
    assert found, "docs/serving-beyond.md has no command that begins with 'smg launch'"
    return shlex.split(found[0].replace("\\\n", " "))


def wait_for(url: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, headers=BEARER, timeout=2).status_code == 200:
                return
        assert time.monotonic() < end, f"{url} is not there"
        time.sleep(0.1)


@contextlib.contextmanager
def running(*command: str, health: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=environment)
        try:
            wait_for(health)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def router(python: str, workers: list[str], log: Path, key: str = KEY) -> Iterator[str]:
    """The gateway before these workers; its URL."""
    port, metrics = find_free_port(), find_free_port()
    words = written_command()
    at = words.index("--worker-urls")
    end = next(i for i in range(at + 1, len(words)) if words[i].startswith("--"))
    words[at + 1 : end] = workers
    here = {"--port": port, "--host": "127.0.0.1", "--prometheus-port": metrics, "--prometheus-host": "127.0.0.1"}
    for flag, value in {**here, "--api-key": key}.items():
        words[words.index(flag) + 1] = str(value)
    words[0] = str(Path(python).with_name("smg"))
    with running(*words, health=f"http://127.0.0.1:{port}/health", log=log):
        end_at = time.monotonic() + 60
        while True:  # workers are taken in one by one, after their first healthy answer
            listed = httpx.get(f"http://127.0.0.1:{port}/workers", headers=BEARER, timeout=5).json()
            if sum(bool(one.get("is_healthy")) for one in listed.get("workers", ())) == len(workers):
                break
            assert time.monotonic() < end_at, listed
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def python(request: pytest.FixtureRequest) -> str:
    found: str | None = request.config.getoption("--smg-python")
    if found is None:
        pytest.skip("--smg-python was not given")
    return found


@contextlib.contextmanager
def fakes(number: int, folder: Path) -> Iterator[list[str]]:
    with contextlib.ExitStack() as stack:
        urls = []
        for i in range(number):
            port = find_free_port()
            url = f"http://127.0.0.1:{port}"
            command = (sys.executable, str(FAKE), "--port", str(port), "--api-key", KEY)
            stack.enter_context(running(*command, health=f"{url}/health", log=folder / f"worker{i}.log"))
            urls.append(url)
        yield urls


def ask(url: str, text: str, api_key: str = KEY) -> str:
    """One answer through our own client of such servers."""

    async def task() -> str:
        client = Remote(url, model="fake", api_key=api_key, timeouts=Timeouts(silent_s=20))
        try:
            request = ChatRequest((ChatMessage("user", (text,)),))
            return "".join([delta.text async for delta in client.chat(request)])
        finally:
            await client.stop()

    return asyncio.run(task())


def begun(urls: list[str]) -> list[int]:
    """How many requests each worker that lives was asked."""
    counts = []
    for url in urls:
        with contextlib.suppress(httpx.HTTPError):
            counts.append(int(httpx.get(f"{url}/seen", timeout=5).json()["begun"]))
    return counts


def test_requests_are_spread_streamed_and_each_asked_once(python: str, tmp_path: Path) -> None:
    with fakes(2, tmp_path) as workers, router(python, workers, tmp_path / "smg.log") as url:
        for i in range(20):
            assert ask(url, f"say answer {i}") == f"answer {i} "
        counts = begun(workers)
        assert sum(counts) == 20
        # A refusal of a worker's comes through as it is, and is not asked for again elsewhere.
        with pytest.raises(LlavaError, match="odd"):
            ask(url, "status 400 odd")
        with pytest.raises(LlavaError):
            ask(url, "status 500 broken")
        assert sum(begun(workers)) == 22


def test_a_request_that_kills_a_worker_meets_one_of_them_only(python: str, tmp_path: Path) -> None:
    with fakes(3, tmp_path) as workers, router(python, workers, tmp_path / "smg.log") as url:
        with pytest.raises(LlavaError):
            ask(url, "die")
        time.sleep(1)
        assert len(begun(workers)) == 2
        answers = 0
        for i in range(12):  # the gateway may ask the dead one until it has noticed
            with contextlib.suppress(LlavaError):
                answers += ask(url, f"say {i}") == f"{i} "
        assert answers >= 8
        assert len(begun(workers)) == 2


def test_nobody_is_let_in_without_the_key(python: str, tmp_path: Path) -> None:
    with fakes(1, tmp_path) as workers, router(python, workers, tmp_path / "smg.log") as url:
        assert ask(url, "say welcome") == "welcome "
        with pytest.raises(LlavaError, match="refuses our key"):
            ask(url, "say welcome", api_key="another-key")
        assert begun(workers) == [1]


def test_who_leaves_is_noticed_by_the_worker(python: str, tmp_path: Path) -> None:
    with fakes(1, tmp_path) as workers, router(python, workers, tmp_path / "smg.log") as url:

        async def leave() -> None:
            client = Remote(url, model="fake", api_key=KEY, timeouts=Timeouts(silent_s=30))
            deltas = client.chat(ChatRequest((ChatMessage("user", ("wait",)),)))
            assert (await anext(deltas)).text == "one "
            await deltas.aclose()  # type: ignore[attr-defined]
            await client.stop()

        asyncio.run(leave())
        end = time.monotonic() + 10
        while not httpx.get(f"{workers[0]}/seen", timeout=5).json()["left"]:
            assert time.monotonic() < end, "the worker still answers nobody"
            time.sleep(0.1)


def test_two_servers_of_ours_behind_it_answer_about_an_image_and_one_may_die(python: str, tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (120, 80), "red").save(image, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(image.getvalue()).decode()
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "What colour is it?"}]
    with contextlib.ExitStack() as stack:
        workers, processes = [], []
        for i in range(2):
            port = find_free_port()
            url = f"http://127.0.0.1:{port}"
            command = (
                sys.executable,
                "-m",
                "llava",
                "serve",
                "--port",
                str(port),
                "--no-web",
                "--name",
                "tiny",
                "--api-key",
                KEY,
            )
            running_ = running(*command, health=f"{url}/ready", log=tmp_path / f"serve{i}.log")
            processes.append(stack.enter_context(running_))
            workers.append(url)
        url = stack.enter_context(router(python, workers, tmp_path / "smg.log"))

        def question() -> tuple[int, Any]:
            body = {"model": "tiny", "messages": [{"role": "user", "content": parts}], "max_tokens": 20}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=BEARER, timeout=60)
            return answer.status_code, answer.json()

        answers = [question() for _ in range(4)]
        assert [status for status, _ in answers] == [200] * 4
        texts = {told["choices"][0]["message"]["content"] for _, told in answers}
        assert len(texts) == 1
        assert texts.pop()
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        statuses = []
        for _ in range(12):
            statuses.append(question()[0])
            time.sleep(0.5)
        assert statuses[-4:] == [200] * 4
        assert statuses.count(200) >= 8
