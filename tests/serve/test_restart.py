"""An open web chat across a server restart."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.serving import Running, wait_until
from tests.serve.tab import EXAMPLES, ROOT, Tab, need_gradio, needs_browser, run_browser

need_gradio()

# The command, with a model that says what it was asked, and says "word" without end where it is told to talk. Each byte
# that comes in starts it in a process of its own; what takes long to import is imported once, before the first of them.
SAYING = """
import asyncio, os, sys
from llava.backends.engine_backend import EngineBackend
from llava.backends.protocol import Delta, Usage
from llava.cli import main
from llava.entry_point import quick_imports
from llava.serve.gradio_sessions import disable_gradio_analytics

async def chat(self, request):
    said = [part if isinstance(part, str) else part.loaded.name for one in request.messages for part in one.parts]
    while said[-1] == "Talk.":
        yield Delta(text="word ")
        await asyncio.sleep(0.02)
    yield Delta(text=" / ".join(said))
    yield Delta(finish_reason="stop", usage=Usage(7, 5))

EngineBackend.chat = chat
disable_gradio_analytics()
with quick_imports():
    import llava.engine.engine, llava.model.checkpoint, llava.serve.chat_page, llava.serve.server_process
while os.read(0, 1):
    if (child := os.fork()) == 0:
        sys.exit(main(sys.argv[1:]))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""


class Restarted:
    """A server process at one port, and others after it."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.running = Running(probe.getsockname()[1], None, None, None)  # type: ignore[arg-type]
        command = [sys.executable, "-c", SAYING, "serve", "--port", str(self.running.port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("GRADIO_TEMP_DIR", None)
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._starter = subprocess.Popen(command, text=True, env=environment, cwd=ROOT, **pipes)

    def start(self) -> None:
        print(end=".", file=self._starter.stdin, flush=True)
        self._pid = int(self._starter.stdout.readline())
        wait_until(self._is_up)

    def _is_up(self) -> bool:
        with contextlib.suppress(OSError):
            return self.running.send("GET", "/").status == 200
        return False

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        assert self._starter.stdout.readline() == "ended\n"

    def end(self) -> None:
        self.kill()
        self._starter.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Restarted]:
    """For all tests, because it takes long to start: each leaves a server that runs."""
    server = Restarted()
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with run_browser() as browser:
        yield browser


@pytest.fixture
def tab(server: Restarted, browser: Any) -> Iterator[Tab]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    tab = Tab(context, server.running)
    tab.wait_until_begun()
    yield tab
    context.close()


def wait_for_return(tab: Tab, started: Any) -> None:
    """Until the page was loaded again, by itself."""
    tab.page.wait_for_function("(before) => window.llava?.hasBegun && performance.timeOrigin !== before", arg=started)


@needs_browser
def test_a_server_that_is_killed_in_mid_stream_costs_the_rest_of_one_answer(server: Restarted, tab: Tab) -> None:
    tab.choose(EXAMPLES / "receipt.png")
    tab.type("How <much>?")
    tab.wait_for_answer()
    tab.type("Talk.")
    tab.until(lambda: len(tab.answers) == 2 and tab.answers[1].startswith("word word word"))
    tab.choose(EXAMPLES / "shapes.png")
    tab.find("#box textarea").fill("And *this")
    tab.until(lambda: "shapes.png" in tab.page.evaluate("() => sessionStorage.getItem('llava-draft')"))
    tab.page.wait_for_function("async () => (await images.do('readonly', (store) => store.count())) >= 2")
    started = tab.page.evaluate("() => performance.timeOrigin")
    server.kill()

    away = tab.find("#away")
    tab.until(lambda: "cannot be reached. The answer was interrupted." in away.inner_text())
    assert tab.find("#box .stop-button").is_hidden()
    tab.find("#box textarea").press("Enter")  # is held back
    assert tab.typed == "And *this"
    assert len(tab.answers) == 2

    # The first requests of the page that returns are lost.
    def lose(route: Any) -> None:
        name = route.request.url.rsplit("/", 1)[1]
        if is_back and name in faults and faults[name]:
            return route.abort() if (status := faults[name].pop()) is None else route.fulfill(status=status)
        return route.continue_()

    is_back: list[Any] = []
    faults: dict[str, list[int | None]] = {"app_id": [None, 503, None, None], "upload": [503, None]}
    tab.page.on("framenavigated", lambda frame: is_back.append(frame))
    tab.page.route("**/gradio_api/*", lose)
    server.start()
    wait_for_return(tab, started)
    assert faults == {"app_id": [], "upload": []}
    tab.until(lambda: tab.notices)
    assert away.inner_text().strip() == ""
    assert tab.questions == ["How <much>?", "Talk."]
    assert tab.answers[0] == "receipt.png / How <much>?"
    assert tab.answers[1].startswith("word word word")
    assert tab.notices[0].startswith("The answer was interrupted here")
    assert tab.typed == "And *this"
    tab.until(lambda: tab.find("#box .thumbnail-item").count() == 1)
    assert tab.find("#chat .user.message img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 265

    tab.find("#box textarea").press("Enter")
    tab.wait_for_answer(3)
    assert tab.answers[2].startswith("receipt.png / How <much>? / receipt.png / How <much>? / Talk. / word word")
    assert tab.answers[2].endswith("/ shapes.png / And *this")


@needs_browser
def test_a_page_that_nobody_touches_notices_that_its_server_was_started_anew(server: Restarted, tab: Tab) -> None:
    tab.type("One <b>")
    tab.wait_for_answer()
    tab.find("#box textarea").fill("Two")
    tab.until(lambda: "Two" in tab.page.evaluate("() => sessionStorage.getItem('llava-draft')"))
    tab.until(lambda: "One <b>" in tab.kept)
    started = tab.page.evaluate("() => performance.timeOrigin")
    server.kill()
    tab.until(lambda: tab.find("#away").inner_text().startswith("The server cannot be reached. Your chat"))
    server.start()
    wait_for_return(tab, started)
    assert (tab.questions, tab.answers, tab.typed) == (["One <b>"], ["One <b>"], "Two")
    assert tab.notices == []
