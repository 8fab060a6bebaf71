"""The original's commands: a controller, workers that register with it, a page that asks them, and small clients."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

from llava.backends.protocol import ChatMessage, ChatRequest, SentImage
from llava.backends.remote import Remote, Timeouts
from llava.backends.workers import Workers, read_address
from llava.commands.serve import add_serve
from llava.constants import CONTROLLER_HEART_BEAT_EXPIRATION
from llava.errors import EngineClosed, EngineFailed, UsageError
from llava.image.source import load_image
from llava.sampling import Sampling
from llava.serve import (
    cli,
    controller,
    gradio_web_server,
    model_worker,
    register_worker,
    sglang_worker,
    startup,
    test_message,
    worker_registration,
)
from llava.serve.app import create_app
from llava.serve.limits import Settings
from llava.serve.listener import listen
from llava.serve.worker_registration import register_with
from llava.serve.worker_registry import WorkerRegistry, WorkerStatus, create_controller
from tests.serve.serving import PATIENCE_S, Puppet, Running, run_server, wait_until

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples/demo.png"
PROMPT = "USER: <image>\nWhat is written on the sign? ASSISTANT:"
PATIENT = Timeouts(connect_s=PATIENCE_S, read_s=PATIENCE_S, check_s=PATIENCE_S)
# Nobody listens there: the port belongs to a service that no test machine has.
NOBODY = "http://127.0.0.1:9"


def reach(url: str) -> Running:
    """A server of another process, as a client sees it."""
    return Running(int(url.rpartition(":")[2]), None, None, None)  # type: ignore[arg-type]


@contextlib.contextmanager
def start(module: str, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``python -m llava.serve.MODULE`` on a port of its own, and the URL that it says it answers at."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"llava.serve.{module}", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "it ended"
            found = re.search(r"answers? at (http://\S+)$", line)
        yield found[1].replace("0.0.0.0", "127.0.0.1"), process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def ask_as_the_original(url: str, model: str, **more: Any) -> list[dict[str, Any]]:
    """The JSON objects, each followed by NUL, that the original's page reads from an address to which it sends JSON."""
    images = [base64.b64encode(DEMO.read_bytes()).decode()]
    asked = {"model": model, "prompt": PROMPT, "temperature": 0.0, "top_p": 0.7, "max_new_tokens": 20, "stop": "</s>"}
    reply = reach(url).post("/worker_generate_stream", {**asked, "images": images, **more}, **{"User-Agent": "LLaVA"})
    return [json.loads(piece) for piece in reply.body.split(b"\0") if piece]


def test_controller_page_and_worker_start_in_the_originals_order_and_answer() -> None:
    with (
        start("controller", "--host", "127.0.0.1") as (directory, controller_process),
        start("gradio_web_server", "--controller", directory, "--model-list-mode", "reload") as (page, page_process),
    ):
        assert reach(page).send("GET", "/ready").status == 503
        assert reach(directory).post("/list_models", {}).json == {"models": []}
        flags = ["--controller", directory, "--model-path", "embedded", "--model-name", "toy", "--host", "127.0.0.1"]
        with start("model_worker", *flags) as (worker, worker_process):
            wait_until(lambda: reach(page).send("GET", "/ready").status == 200, 3 * PATIENCE_S)
            reach(directory).post("/refresh_all_workers", {})
            assert reach(directory).post("/list_models", {}).json == {"models": ["toy"]}
            assert reach(directory).post("/get_worker_address", {"model": "toy"}).json == {"address": worker}
            for url in (worker, directory, page):
                said = ask_as_the_original(url, "toy")
                assert {piece["error_code"] for piece in said} == {0}
                assert said[-1]["text"].removeprefix(PROMPT).strip() == "MORTALS"
            image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encode(DEMO)}"}}
            assert reach(page).chat(image, "What is written on the sign?", temperature=0).text == "MORTALS"
            wait_until(lambda: b"gradio" in reach(page).send("GET", "/").body, 3 * PATIENCE_S)
            assert (
                test_message.main(["--controller-address", directory, "--message", "Hi", "--max-new-tokens", "2"]) == 0
            )
            assert test_message.main(["--worker-address", worker, "--message", "Hi", "--max-new-tokens", "2"]) == 0
    assert [one.returncode for one in (worker_process, page_process, controller_process)] == [0, 0, 0]


def encode(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@contextlib.contextmanager
def run_controller(registry: WorkerRegistry) -> Iterator[str]:
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_controller(registry), log_level="warning", ws="none"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_worker_that_is_silent_is_forgotten_and_one_that_need_not_say_anything_is_not() -> None:
    clock = Clock()
    registry = WorkerRegistry(clock=clock)
    registry.add("http://a", WorkerStatus(model_names=["x"]), has_heart_beat=True)
    registry.add("http://b", WorkerStatus(model_names=["y"]), has_heart_beat=False)
    clock.now_s = CONTROLLER_HEART_BEAT_EXPIRATION - 1
    assert registry.record_heartbeat("http://a", 3) is True
    clock.now_s += CONTROLLER_HEART_BEAT_EXPIRATION
    assert registry.list_models() == ["x", "y"]
    clock.now_s += 1
    assert (registry.list_models(), registry.record_heartbeat("http://a", 0), registry.choose("x")) == (
        ["y"],
        False,
        "",
    )


def test_the_shortest_queue_is_the_one_that_goes_soonest_and_grows_with_every_question() -> None:
    registry = WorkerRegistry()
    registry.add("http://slow", WorkerStatus(model_names=["x"], speed=1, queue_length=1), has_heart_beat=True)
    registry.add("http://fast", WorkerStatus(model_names=["x"], speed=4, queue_length=2), has_heart_beat=True)
    registry.add("http://other", WorkerStatus(model_names=["y"]), has_heart_beat=True)
    assert [registry.choose("x") for _ in range(4)] == ["http://fast", "http://fast", "http://slow", "http://fast"]
    assert registry.choose("z") == registry.choose(None) == ""


def test_a_worker_that_cannot_be_reached_is_missed_until_it_registers_again() -> None:
    registry = WorkerRegistry()
    registry.add("http://dead", WorkerStatus(model_names=["x"]), has_heart_beat=True)
    registry.add("http://by-hand", WorkerStatus(model_names=["x"], queue_length=9), has_heart_beat=False)
    assert registry.choose("x") == "http://dead"
    for name in ("http://dead", "http://by-hand", "http://unknown"):
        registry.mark_unreachable(name)
    assert list(registry.workers) == ["http://by-hand"]
    assert registry.choose("x", without={"http://by-hand"}) == ""


@pytest.mark.parametrize(
    "status", [{"speed": -1}, {"speed": 1e400}, {"queue_length": -1}, {"queue_length": 2**70}, {"model_names": "x"}]
)
def test_a_status_that_no_worker_has_is_refused(status: dict[str, Any]) -> None:
    registry = WorkerRegistry("lottery")
    with run_controller(registry) as url:
        content = {"worker_name": "http://a", "worker_status": {"model_names": ["x"], **status}}
        assert reach(url).post("/register_worker", content).status == 400
    assert registry.workers == {}


def test_the_lottery_draws_by_speed() -> None:
    registry = WorkerRegistry("lottery")
    registry.add("http://stopped", WorkerStatus(model_names=["x"], speed=0), has_heart_beat=True)
    registry.add("http://fast", WorkerStatus(model_names=["x"], speed=4), has_heart_beat=True)
    assert {registry.choose("x") for _ in range(50)} == {"http://fast"}


def test_a_worker_registers_tells_what_is_new_and_registers_again_where_it_was_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_registration, "_UPDATE_S", 0.01)
    monkeypatch.setattr(worker_registration, "WORKER_HEART_BEAT_INTERVAL", 0)
    registry, puppet = WorkerRegistry(), Puppet()
    with run_controller(registry) as url:
        with run_server(puppet, Settings(address="http://worker:1"), register_with(url, None)) as running:
            wait_until(lambda: registry.list_models() == ["puppet"])
            puppet.gate.clear()
            asking = threading.Thread(target=running.chat, args=("Hi",))
            asking.start()
            wait_until(lambda: registry.workers["http://worker:1"].status.queue_length == 1)
            registry.remove("http://worker:1")
            wait_until(lambda: registry.list_models() == ["puppet"])
            puppet.gate.set()
            asking.join(PATIENCE_S)
        assert running.service.failure is None


def test_a_worker_without_a_controller_ends_with_a_reason_before_it_loads_a_model() -> None:
    puppet, loading = Puppet(), asyncio.Event()
    puppet.start = loading.wait  # type: ignore[assignment]
    app = create_app(puppet, Settings(address="http://worker:1"), mount=register_with(NOBODY, None))

    async def serve() -> None:
        failed = asyncio.Event()
        app.state.service.on_failure = failed.set
        async with app.router.lifespan_context(app):
            await asyncio.wait_for(failed.wait(), PATIENCE_S)

    asyncio.run(serve())
    assert f"The controller at {NOBODY} cannot be reached" in str(app.state.service.failure)


class OldWorker(BaseHTTPRequestHandler):
    """The original's worker: no OpenAI interface, and the stop text is taken off in the last piece."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/worker_get_status":
            return self._say(json.dumps({"model_names": ["llava-v1.5-7b"], "speed": 1, "queue_length": 0}).encode())
        self.server.asked.append(content)  # type: ignore[attr-defined]
        pieces = [dict(piece) for piece in self.server.pieces]  # type: ignore[attr-defined]
        said = [
            {**piece, "text": content["prompt"] + piece["text"]} if not piece["error_code"] else piece
            for piece in pieces
        ]
        return self._say(b"".join(json.dumps(piece).encode() + b"\0" for piece in said))

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


def run_old_worker(*pieces: tuple[str, int]) -> contextlib.AbstractContextManager[tuple[str, list[Any]]]:
    return run_http(OldWorker, *pieces)


@contextlib.contextmanager
def run_http(handler: Any, *pieces: tuple[str, int]) -> Iterator[tuple[str, list[Any]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.asked = []  # type: ignore[attr-defined]
    server.pieces = [{"text": text, "error_code": code} for text, code in pieces]  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE_S)


def ask_workers(url: str, *parts: Any, api_key: str | None = None, **sampling: Any) -> str:
    async def ask() -> str:
        workers = Workers(url, api_key=api_key, timeouts=PATIENT)
        try:
            await workers.start()
            request = ChatRequest((ChatMessage("user", parts),), Sampling(**sampling))
            return "".join([delta.text async for delta in workers.chat(request)])
        finally:
            await workers.stop()

    return asyncio.run(ask())


def test_a_worker_of_the_original_is_asked_in_its_own_protocol() -> None:
    with (
        run_controller(WorkerRegistry()) as url,
        run_old_worker((" a", 0), (" a cat</s>", 0), (" a cat", 0)) as (address, asked),
    ):
        assert register_worker.main(["--controller-address", url, "--worker-name", address]) == 0
        said = ask_workers(url, SentImage(load_image(str(DEMO))), "What? <image>", temperature=0.5)
        assert said == " a cat</s>"
    assert asked[0]["model"] == "llava-v1.5-7b"
    assert asked[0]["prompt"].endswith(" ASSISTANT:")
    assert asked[0]["prompt"].count("<image>") == len(asked[0]["images"]) == 1
    assert (asked[0]["temperature"], asked[0]["stop"]) == (0.5, "</s>")


def test_a_worker_with_a_key_is_asked_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAVA_ENGINE_KEY", "secret")
    registry, puppet = WorkerRegistry(), Puppet()
    with run_controller(registry) as url, run_server(puppet, Settings(keys=("secret",))) as worker:
        reach(url).post("/register_worker", {"worker_name": worker.url})
        reach(url).post("/refresh_all_workers", {})
        assert registry.list_models() == ["puppet"]
        assert ask_workers(url, "Hi", api_key="secret") == "word word word "
        (*_, last) = ask_as_the_original(url, "puppet", images=[], prompt="Hi")
        assert last["text"] == "Hiword word word "
        with pytest.raises(EngineFailed, match="LLAVA_ENGINE_KEY"):
            ask_workers(url, "Hi")


def test_questions_for_a_worker_that_died_go_to_another_one() -> None:
    """A worker that was killed stays registered until it has been silent for long enough."""
    registry, puppet = WorkerRegistry(), Puppet()
    with run_controller(registry) as url, run_server(puppet) as worker:
        for ask in (
            lambda: ask_workers(url, "Hi"),
            lambda: ask_as_the_original(url, "puppet", images=[], prompt="")[-1]["text"],
        ):
            registry.add(NOBODY, WorkerStatus(model_names=["puppet"]), has_heart_beat=True)
            registry.add(worker.url, WorkerStatus(model_names=["puppet"], queue_length=5), has_heart_beat=True)
            assert ask() == "word word word "
        assert list(registry.workers) == [worker.url]  # the controller itself met the other one
        registry.remove(worker.url)
        registry.add(NOBODY, WorkerStatus(model_names=["puppet"]), has_heart_beat=True)
        reply = reach(url).post("/worker_generate_stream", {"model": "puppet", "prompt": "Hi"})
        assert (reply.status, reply.json["error_code"]) == (503, 3)


def test_workers_do_without_a_controller_that_is_away() -> None:
    async def ask_twice(url: str, stop: contextlib.ExitStack) -> list[str]:
        workers = Workers(url, timeouts=PATIENT)
        try:
            await workers.start()
            said = []
            for _ in range(2):
                request = ChatRequest((ChatMessage("user", ("Hi",)),), Sampling())
                said.append("".join([delta.text async for delta in workers.chat(request)]))
                await asyncio.to_thread(stop.close)
            assert not await workers.is_ready()
            return said
        finally:
            await workers.stop()

    registry = WorkerRegistry()
    with run_server(Puppet()) as worker, contextlib.ExitStack() as stop:
        url = stop.enter_context(run_controller(registry))
        registry.add(worker.url, WorkerStatus(model_names=["puppet"]), has_heart_beat=False)
        assert asyncio.run(ask_twice(url, stop)) == ["word word word "] * 2


def test_small_clients_say_what_the_controller_says_is_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    registry = WorkerRegistry()
    registry.add(NOBODY, WorkerStatus(model_names=["other"]), has_heart_beat=False)
    with run_controller(registry) as url:
        assert register_worker.main(["--controller-address", url, "--worker-name", NOBODY]) == 1
        assert f"answered 503 to register_worker: The worker at {NOBODY} cannot be reached" in capfd.readouterr().err
        assert test_message.main(["--controller-address", url, "--model-name", "wanted"]) == 1
        assert "does not have a worker for 'wanted'; it has other." in capfd.readouterr().err


def test_an_answer_that_has_begun_is_not_begun_again_by_another_worker() -> None:
    registry = WorkerRegistry()
    broken, whole = Puppet(), Puppet()
    broken.error, broken.error_after = EngineClosed("The engine broke."), 1
    with run_controller(registry) as url, run_server(broken) as first, run_server(whole) as second:
        registry.add(first.url, WorkerStatus(model_names=["puppet"]), has_heart_beat=False)
        registry.add(second.url, WorkerStatus(model_names=["puppet"], queue_length=5), has_heart_beat=False)
        with pytest.raises(EngineFailed, match="The engine broke"):
            ask_workers(url, "Hi")
        assert whole.requests == []
        broken.error_after = 0
        assert ask_workers(url, "Hi") == "word word word "


@pytest.mark.parametrize(
    ("flags", "status"),
    [(["--host", "127.0.0.1"], 421), (["--allow-host", "llava.lan"], 200), (["--host", "0.0.0.0"], 200)],
)
def test_no_website_points_its_name_at_a_controller_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], status: int
) -> None:
    def ask(server: uvicorn.Server, sockets: list[Any]) -> None:
        with TestClient(server.config.app, base_url="http://llava.lan") as client:  # type: ignore[arg-type]
            found.append(client.post("/list_models").status_code)

    found: list[int] = []
    monkeypatch.setattr("llava.serve.worker_registry._Server.run", ask)
    assert controller.main(["--port", "0", *flags]) == 0
    assert found == [status]


def test_a_controller_looks_at_all_its_workers_at_once() -> None:
    """Each of two waits until the other is asked, too."""
    registry, met = WorkerRegistry(), threading.Barrier(2)

    class Meeting(OldWorker):
        def do_POST(self) -> None:
            met.wait(PATIENCE_S)
            super().do_POST()

    with run_controller(registry) as url, run_http(Meeting) as (one, _), run_http(Meeting) as (other, _):
        for address in (one, other):
            registry.add(address, WorkerStatus(model_names=["old"]), has_heart_beat=False)
        assert reach(url).post("/refresh_all_workers", {}).status == 200
        assert registry.list_models() == ["llava-v1.5-7b"]


@pytest.mark.parametrize(("controller", "is_warned"), [("http://127.0.0.1:9", False), ("http://10.0.0.1:9", True)])
def test_a_worker_whose_address_leads_only_to_itself_warns_of_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], controller: str, is_warned: bool
) -> None:
    async def refuse(*_: Any) -> None:
        raise EngineClosed("nobody is there")

    monkeypatch.setattr(worker_registration, "post_json", refuse)
    service = create_app(Puppet(), Settings(address="http://localhost:1")).state.service
    asyncio.run(worker_registration._keep_registered(controller, service))
    assert ("registers as http://localhost:1, which other machines cannot reach" in capfd.readouterr().err) is is_warned


def test_the_page_waits_for_the_model_that_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.backends.workers._LOOK_S", 0.01)
    registry, told = WorkerRegistry(), list[str]()

    async def wait(url: str) -> None:
        workers = Workers(url, model_id="wanted", timeouts=PATIENT, on_progress=told.append)
        starting = asyncio.create_task(workers.start())
        while len(told) < 1:
            await asyncio.sleep(0.005)
        assert not await workers.is_ready()
        registry.add("http://127.0.0.1:9", WorkerStatus(model_names=["other"]), has_heart_beat=False)
        while len(told) < 2:
            await asyncio.sleep(0.005)
        registry.add("http://127.0.0.1:9", WorkerStatus(model_names=["wanted", "other"]), has_heart_beat=False)
        await starting
        assert await workers.is_ready()
        await workers.stop()

    with run_controller(registry) as url:
        asyncio.run(wait(url))
    assert told[0] == f"waiting until a worker for 'wanted' registers with the controller at {url}"
    assert told[1].endswith("; it has other")
    assert "using wanted" in told[2]


def test_what_goes_wrong_with_a_worker_is_said() -> None:
    registry = WorkerRegistry()
    with run_controller(registry) as url:
        with run_old_worker((" a", 0), ("out of memory", 1)) as (address, _):
            registry.add(address, WorkerStatus(model_names=["llava-v1.5-7b"]), has_heart_beat=False)
            with pytest.raises(EngineFailed, match="The worker failed: out of memory"):
                ask_workers(url, "Hi")
            with pytest.raises(UsageError, match="one stop text"):
                ask_workers(url, "Hi", stop=("a", "b"))
        with pytest.raises(EngineClosed, match="cannot be reached"):
            ask_workers(url, "Hi")
        (piece,) = ask_as_the_original(url, "llava-v1.5-7b")
        assert piece["error_code"] == 3
        (piece,) = ask_as_the_original(url, "llava-v9")
        assert (piece["error_code"], "The models are: llava-v1.5-7b" in piece["text"]) == (2, True)
        reach(url).post("/refresh_all_workers", {})
        assert reach(url).post("/list_models", {}).json == {"models": []}
        assert reach(url).post("/register_worker", {"worker_name": NOBODY, "check_heart_beat": True}).status == 503
        assert reach(url).post("/register_worker", {"worker_name": "ftp://x"}).status == 400
        assert reach(url).post("/receive_heart_beat", {"worker_name": "http://x"}).status == 400
        assert reach(url).post("/receive_heart_beat", {"worker_name": "http://x", "queue_length": 1}).json == {
            "exist": False
        }


def test_who_asks_no_controller_is_told_so() -> None:
    with pytest.raises(EngineClosed, match=f"The controller at {NOBODY} cannot be reached"):
        ask_workers(NOBODY, "Hi")
    with run_old_worker() as (address, _), pytest.raises(EngineFailed, match="not a LLaVA controller"):
        ask_workers(address, "Hi")


@pytest.mark.parametrize(
    "text",
    [
        "ftp://localhost",
        "http://",
        "http://[",
        "http://a:x",
        "http://a:70000",
        "http://a:0",
        "http://\udcff",
        "a\x1b[2J",
    ],
)
def test_what_is_no_servers_url_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="not the URL of a server"):
        read_address(text)


COMMANDS = {
    model_worker: (
        "--host 0.0.0.0 --controller http://c:10000 --port 40000 --worker http://w:40000 "
        "--model-path liuhaotian/llava-v1.5-13b/ --load-4bit --device cuda:1",
        {
            "host": "0.0.0.0",
            "port": 40000,
            "controller": "http://c:10000",
            "address": "http://w:40000",
            "model": "liuhaotian/llava-v1.5-13b/",
            "name": "llava-v1.5-13b",
            "quant": "int4",
            "device": "cuda:1",
            "running": 5,
            "web": False,
        },
    ),
    sglang_worker: (
        "--host 0.0.0.0 --controller http://c:10000 --port 40000 --worker http://w:40000 --sgl-endpoint http://s:30000 "
        "--limit-model-concurrency 9",
        {"engine": "sglang", "engine_url": "http://s:30000", "controller": "http://c:10000", "running": 9},
    ),
    gradio_web_server: (
        "--controller http://c:10000 --model-list-mode reload --share --concurrency-count 3",
        {"workers_of": "http://c:10000", "host": "0.0.0.0", "port": 7860, "web": True, "running": 3, "model": None},
    ),
}


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__)
def test_a_command_of_the_original_is_one_of_llava_serve(module: Any) -> None:
    line, wanted = COMMANDS[module]
    parser = argparse.ArgumentParser()
    add_serve(parser.add_subparsers())
    arguments = parser.parse_args(["serve", *module.write_words(module.build_parser().parse_args(line.split()))])
    assert {name: getattr(arguments, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("liuhaotian/llava-v1.5-7b", "llava-v1.5-7b"),
        ("runs/mine/checkpoint-500/", "mine_checkpoint-500"),
        ("checkpoint-500", "checkpoint-500"),
    ],
)
def test_a_worker_calls_its_model_as_the_original_does(path: str, name: str) -> None:
    words = model_worker.write_words(model_worker.build_parser().parse_args(["--model-path", path, "--no-register"]))
    assert f"--name={name}" in words
    assert not any(word.startswith("--controller") for word in words)


def test_flags_without_a_meaning_here_are_told_in_a_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradio_web_server, "serve", lambda words: 0)
    monkeypatch.setattr(model_worker, "serve", lambda words: 0)
    assert gradio_web_server.main(["--share", "--moderate", "--embed"]) == 0
    assert model_worker.main(["--multi-modal", "--stream-interval", "2", "--use-flash-attn"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" has no effect here")[0] for line in lines] == [
        f"llava: --{flag}"
        for flag in ("share", "moderate", "embed", "multi-modal", "stream-interval", "use-flash-attn")
    ]
    assert gradio_web_server.main([]) == model_worker.main([]) == 0
    assert capsys.readouterr().err == ""


def test_a_port_that_is_taken_is_a_mistake_with_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert controller.main(["--host", "127.0.0.1", "--port", port]) == 2
    assert f"Cannot listen on port {port} of 127.0.0.1" in capsys.readouterr().err
    assert controller.main(["--host", "127.0.0.1", "--port", "99999"]) == 2
    assert "Cannot listen on port 99999 of 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (controller, "--dispatch-method round_robin"),
        (model_worker, "--load-8bit --load-4bit"),
        (model_worker, "--port eight"),
        (sglang_worker, ""),
        (gradio_web_server, "--model-list-mode never"),
        (register_worker, "--controller-address http://c:1"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_bad_flag_ends_with_2(module: Any, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        module.main(line.split())
    assert ended.value.code == 2
    assert "--" in capsys.readouterr().err


def test_a_small_client_without_a_controller_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert test_message.main(["--controller-address", NOBODY]) == 1
    assert register_worker.main(["--controller-address", NOBODY, "--worker-name", "http://w:1"]) == 1
    assert capsys.readouterr().err.count(f"The controller at {NOBODY} cannot be reached") == 2


def test_the_chat_of_the_original_answers_and_ends_at_an_empty_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is written on the sign?\n\nnever read\n"))
    assert cli._run(["--image-file", str(DEMO), "--temperature", "0", "--debug"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("USER: ASSISTANT: MORTALS\n")
    assert "'outputs': 'MORTALS'" in said.out
    assert said.out.endswith("USER: exit...\n")


def test_an_error_costs_a_question_and_the_end_of_the_input_ends_the_chat_of_the_original(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("word " * 2000 + "\nWhat is written on the sign?\n"))
    assert cli._run(["--image-file", str(DEMO), "--temperature", "0", "--conv-mode", "llava_v1"]) == 0
    said = capsys.readouterr()
    assert "using llava_v1" in said.err
    assert "llava: error: The prompt takes" in said.err
    assert said.out.count("ASSISTANT: ") == 2
    assert said.out.endswith("\nUSER: exit...\n")


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def open_ascii(kind: type[io.TextIOWrapper] = io.TextIOWrapper) -> io.TextIOWrapper:
    return kind(io.BytesIO(), encoding="ascii")


def read_back(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode("ascii")


@pytest.mark.parametrize(("kind", "shown"), [(io.TextIOWrapper, "\x1b[2J\\u65e5"), (_Terminal, "\\x1b[2J\\u65e5")])
def test_the_chat_of_the_original_writes_any_answer_and_reads_any_question(
    kind: type[io.TextIOWrapper], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(chat: Any, question: str, on_text: Any) -> Any:
        if question == "empty":
            return SimpleNamespace(text="", explain=lambda _: "The answer is empty.")
        on_text("\x1b[2J日")
        return SimpleNamespace(text="\x1b[2J日", prompt_tokens=1)

    monkeypatch.setattr("llava.terminal_chat.Chat.ask", ask)
    out, err = open_ascii(kind), open_ascii()
    monkeypatch.setattr("sys.stdin", io.StringIO("\udcff\nHi\nempty\n"))
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    assert cli._run(["--image-file", str(DEMO)]) == 0
    assert read_back(out).endswith(f"ASSISTANT: {shown}\nUSER: ASSISTANT: \nUSER: exit...\n")
    assert read_back(err) == (
        "llava: error: The question is not valid UTF-8: at 0 it holds the byte 0xff.\n[WARNING] The answer is empty.\n"
    )


def test_a_small_client_shows_any_answer_and_asks_nothing_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = open_ascii(_Terminal), open_ascii()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    with run_old_worker(("\x1b[2J日", 0)) as (url, _):
        assert test_message.main(["--worker-address", url, "--model-name", "m", "--message", "Hi"]) == 0
    assert read_back(out).endswith("\\x1b[2J\\u65e5\n")
    assert test_message.main(["--message", "\udcff"]) == 2
    assert "The message is not valid UTF-8" in read_back(err)


@pytest.mark.parametrize("status", [{"model_names": []}, {}, [], None])
def test_a_worker_without_a_model_is_named(status: Any) -> None:
    with pytest.raises(EngineFailed, match="The worker at http://w has no model yet"):
        test_message._read_name(status, "http://w")


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--load-8bit", "--load-4bit"], 2, "are both given: leave one out"),
        (["--conv-mode", "nonsense"], 2, "There is no conversation template 'nonsense'"),
        (["--model-path", "there/is/none"], 1, "There is no folder 'there/is/none'"),
        (["--image-file", "none.png"], 1, "none.png"),
    ],
)
def test_a_mistake_in_the_chat_of_the_original_is_one_sentence(
    flags: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._run(["--image-file", str(DEMO), *flags]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "WARNING" not in line]
    assert line.startswith("llava: error: ")
    assert sentence in line


def test_what_was_done_to_an_image_is_said_in_the_chat_of_the_original_and_its_px_may_be_allowed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 60)).save(tmp_path / "x.jpg", exif=exif)
    assert cli._run(["--image-file", str(tmp_path / "x.jpg")]) == 0
    assert capsys.readouterr().err == "llava: x.jpg: turned upright.\n"
    assert cli._run(["--image-file", str(DEMO), "--max-image-pixels", "20K"]) == 1
    assert "at most 20,000 are allowed" in capsys.readouterr().err
    assert cli._run(["--image-file", "-"]) == 2
    assert "No image is read from standard input" in capsys.readouterr().err


def test_the_image_loader_of_the_original_gives_an_upright_rgb_image() -> None:
    image = cli.load_image(str(DEMO))
    assert (image.mode, image.size) == ("RGB", (201, 107))


class SGLangServer(BaseHTTPRequestHandler):
    """As much of SGLang as answers a prompt."""

    def do_GET(self) -> None:
        self._say(json.dumps({"data": [{"id": "/models/llava-v1.6-vicuna-7b/", "max_model_len": 4096}]}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((self.path, asked))  # type: ignore[attr-defined]
        about = {"finish_reason": {"type": "stop"}, "prompt_tokens": 7, "completion_tokens": 2}
        events = [{"text": "a ", "meta_info": {**about, "finish_reason": None}}, {"text": "cat", "meta_info": about}]
        self._say("".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n")

    _say, log_message = OldWorker._say, OldWorker.log_message


def test_an_sglang_server_that_runs_gets_a_workers_prompt_with_its_images() -> None:
    async def ask(url: str) -> tuple[str, str, int]:
        parser = argparse.ArgumentParser()
        add_serve(parser.add_subparsers())
        words = sglang_worker.write_words(sglang_worker.build_parser().parse_args(["--sgl-endpoint", url]))
        engine = startup.choose_backend(parser.parse_args(["serve", *words]), Settings())
        try:
            await engine.start()
            request = ChatRequest(prompt=PROMPT, images=(SentImage(load_image(str(DEMO))),))
            return engine.model_id, "".join([delta.text async for delta in engine.chat(request)]), engine.context_tokens
        finally:
            await engine.stop()

    with run_http(SGLangServer) as (url, asked):
        assert asyncio.run(ask(url)) == ("llava-v1.6-vicuna-7b", "a cat", 4096)
    ((path, body),) = asked
    assert (path, body["text"], len(body["image_data"])) == ("/generate", PROMPT, 1)


def test_an_engine_that_takes_images_in_messages_only_says_so() -> None:
    async def ask() -> None:
        request = ChatRequest(prompt=PROMPT, images=(SentImage(load_image(str(DEMO))),))
        remote = Remote(NOBODY)
        try:
            await anext(remote.chat(request))
        finally:
            await remote.stop()

    with pytest.raises(UsageError, match="images only in messages"):
        asyncio.run(ask())
