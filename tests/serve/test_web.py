"""The web chat in a browser: real conversations about images, and their errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.backends.engine_backend import EngineBackend
from llava.backends.protocol import ChatRequest, Delta
from llava.errors import EngineFull
from llava.serve.limits import Limits, Settings
from tests.serve.serving import PATIENCE_S, Puppet, Running, run_server, wait_until
from tests.serve.tab import EXAMPLES, ROOT, Tab, need_gradio, needs_browser, run_browser, run_web

need_gradio()


class Talker(Puppet):
    """Says a word every 30 ms, for as long as somebody listens."""

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        async with contextlib.aclosing(super().chat(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                await asyncio.sleep(0.03)
                yield delta


class Held(EngineBackend):
    """Waits after the first letter of an answer where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        async with contextlib.aclosing(super().chat(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                yield delta
                while delta.text and not self.may_go_on.is_set():
                    await asyncio.sleep(0.01)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self.may_go_on.clear()
        try:
            yield
        finally:
            self.may_go_on.set()


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


@pytest.fixture(scope="module")
def real(held: Held, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The embedded model, with a log."""
    log = tmp_path_factory.mktemp("log") / "sessions.jsonl"
    with run_web(held, Settings(limits=Limits(decode_s=PATIENCE_S), log=log, decoders=1)) as running:
        yield running


@pytest.fixture(scope="module")
def talker() -> Talker:
    return Talker(num_tokens=10_000)


@pytest.fixture(scope="module")
def endless(talker: Talker) -> Iterator[Running]:
    """A model that talks without end, and no log."""
    limits = Limits(image_bytes=50_000, decode_s=PATIENCE_S)
    with run_web(talker, Settings(limits=limits, decoders=1)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with run_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def open_tab(browser: Any, real: Running, endless: Running) -> Iterator[Any]:
    """Opens tabs. Those that are opened alike share a browser's cache, and nothing that is tested.

    They are closed before the servers, which would wait for them.
    """
    contexts: dict[str, Any] = {}

    def open_it(running: Running, **options: Any) -> Tab:
        key = repr((running.port, options))
        if key not in contexts:
            contexts[key] = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        return Tab(contexts[key], running)

    yield open_it
    for context in contexts.values():
        context.close()


@pytest.fixture(scope="module")
def kept_tab(endless: Running, open_tab: Any) -> Tab:
    return open_tab(endless)


@pytest.fixture
def tab(kept_tab: Tab) -> Tab:
    """A tab of the endless talker with a new chat and nothing typed."""
    # Until the server has done it: it would end a question that is asked before.
    with kept_tab.page.expect_response(lambda response: response.request.method == "POST"):
        kept_tab.find("#new").click()
    for button in reversed(kept_tab.find("#box .delete-button").all()):
        button.click()
    kept_tab.find("#box textarea").fill("")
    kept_tab.until(lambda: kept_tab.find("#chat .message").count() == 0)
    kept_tab.until(lambda: kept_tab.find("#box .submit-button").count() == 1)
    return kept_tab


def lines(running: Running) -> list[dict[str, Any]]:
    log = running.service.settings.log
    assert log is not None
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@needs_browser
def test_a_conversation_about_an_image(real: Running, held: Held, open_tab: Any) -> None:
    tab = open_tab(real)
    tab.drop(EXAMPLES / "receipt.png")
    tab.watch()
    with held.hold():
        tab.type("How much is the Total?")
        tab.until(lambda: tab.answers == ["$"])
    tab.wait_for_answer()
    assert tab.answers == ["$34.73"]
    assert tab.seen[-1] == "$34.73"
    assert all("$34.73".startswith(text) for text in tab.seen), tab.seen
    tab.until(lambda: tab.find("#chat .user.message img").count() == 1)
    assert tab.typed == ""

    tab.find("#side-button").click()
    tab.until(lambda: "232 tokens" in tab.find("#token-maps").inner_text())
    assert tab.find("#token-maps figure > img").last.evaluate("img => img.decode().then(() => img.naturalWidth)") > 300
    tab.until(lambda: "time to first token" in tab.find("#usage").inner_text())

    with held.hold():
        tab.find("#chat [aria-label=Retry]").click()
        tab.until(lambda: tab.answers == ["$"])
    tab.wait_for_answer()
    assert [line["kind"] for line in lines(real)] == ["answer"] * 2
    assert tab.answers == ["$34.73"]

    tab.find("#chat [aria-label=Edit]").click()
    tab.find("#chat .edit-textarea").fill("What is the value of Slab?")
    tab.find("#chat [aria-label=Submit]").click()
    tab.until(lambda: tab.answers == ["$26.02"])
    assert tab.questions == ["What is the value of Slab?"]
    tab.until(lambda: tab.find("#chat .user.message img").count() == 1)
    tab.wait_for_answer()

    tab.type("How much is the Total?")
    tab.wait_for_answer(2)
    tab.find("#chat [aria-label=Like]").last.click()
    tab.until(lambda: lines(real)[-1]["kind"] == "vote")
    vote = lines(real)[-1]
    assert (vote["vote"], vote["answer"], len(vote["messages"])) == ("up", tab.answers[-1], 3)
    (saved,) = real.service.settings.log.with_name("sessions.jsonl-images").iterdir()  # type: ignore[union-attr]
    assert vote["messages"][0]["parts"][0] == {"sha256": saved.stem}
    with Image.open(saved) as image:
        assert image.size == (265, 102)

    tab.find("#chat [aria-label=Undo]").click()
    tab.until(lambda: len(tab.answers) == 1)
    tab.until(lambda: tab.typed == "How much is the Total?")

    tab.find("#new").click()
    tab.until(lambda: tab.find("#chat .message").count() == 0)
    tab.until(lambda: tab.typed == "How much is the Total?")
    assert tab.hosts == {f"127.0.0.1:{real.port}"}


@needs_browser
def test_an_example_two_images_and_an_upload_that_is_no_image(real: Running, open_tab: Any, tmp_path: Path) -> None:
    tab = open_tab(real)
    tab.find("#chat .example").first.click()
    tab.wait_for_answer()
    assert tab.answers == ["MORTALS"]

    tab.choose(EXAMPLES / "shapes.png", EXAMPLES / "chart.png")
    tab.type("What is the color of the star?")
    tab.wait_for_answer(2)
    tab.until(lambda: tab.find("#chat .user.message img").count() == 3)
    sent = lines(real)[-1]["messages"][-1]["parts"]
    assert [type(part) for part in sent] == [dict, dict, str]

    (tmp_path / "notes.png").write_text("This is no image.")
    tab.find("#box input[type=file]").set_input_files(str(tmp_path / "notes.png"))
    tab.until(lambda: any("notes.png is not an image in a supported format (PNG, JPEG" in one for one in tab.toasts))
    assert tab.find("#box .thumbnail-item").count() == 0
    tab.page.evaluate("document.querySelectorAll('.toast-close').forEach((button) => button.click())")
    tab.type("What does <b>it</b> say?")
    tab.wait_for_answer(3)
    assert tab.questions[-1] == "What does <b>it</b> say?"
    assert tab.notices == []


@needs_browser
@pytest.mark.parametrize("where", ["#box textarea", "#chat"])
def test_an_image_is_pasted_from_the_clipboard(real: Running, open_tab: Any, where: str) -> None:
    tab = open_tab(real)
    tab.paste(EXAMPLES / "demo.png", where)
    tab.type("What is written on the sign?")
    tab.wait_for_answer()
    assert tab.answers == ["MORTALS"]
    tab.until(lambda: tab.find("#chat .user.message img").count() == 1)
    tab.page.close()  # each open page holds one of the six connections that a browser makes to a host


@needs_browser
def test_a_tab_that_is_loaded_again_shows_its_conversation_and_no_other_tab_does(real: Running, open_tab: Any) -> None:
    def reload() -> None:
        tab.page.reload()
        tab.find("#box textarea").wait_for()

    tab = open_tab(real)
    tab.choose(EXAMPLES / "receipt.png")
    tab.type("How much is the <b>Total</b>?")
    tab.wait_for_answer()
    (answer,) = tab.answers
    tab.until(lambda: answer in tab.kept)
    reload()
    tab.until(lambda: tab.answers == [answer])
    assert tab.questions == ["How much is the <b>Total</b>?"]
    assert tab.find("#chat .user.message img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 265
    tab.type("What is the value of Slab?")
    tab.wait_for_answer(2)
    said = lines(real)[-1]["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert isinstance(said[0]["parts"][0], dict)
    tab.until(lambda: tab.answers[-1] in tab.kept)

    other = open_tab(real)
    other.page.wait_for_timeout(500)
    assert other.find("#chat .message").count() == 0
    reload()
    tab.until(lambda: len(tab.answers) == 2)
    tab.find("#new").click()
    tab.until(lambda: tab.find("#chat .message").count() == 0 and tab.kept == "[]")
    reload()
    tab.page.wait_for_timeout(500)
    assert tab.find("#chat .message").count() == 0
    for one in (tab, other):
        one.page.close()


@needs_browser
def test_a_question_without_an_answer_is_in_the_box_after_loading_again(endless: Running, open_tab: Any) -> None:
    tab = open_tab(endless)
    kept = [
        {"role": "user", "content": [{"type": "file", "file": {"path": str(EXAMPLES / "demo.png")}}]},  # no upload
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}]},
    ]
    # Before anything of the page runs: it may still be about to keep that it shows nothing.
    tab.page.add_init_script(f"sessionStorage.setItem('llava-chat', {json.dumps(json.dumps(kept))})")
    tab.page.reload()
    tab.until(lambda: tab.find("#box textarea").count() and tab.typed == "What is it?")
    assert tab.find("#box .thumbnail-item").count() == 0
    assert (tab.questions, tab.answers) == ([], [])
    assert tab.notices[0].startswith("The image demo.png is no longer on the server.")
    tab.page.close()


@needs_browser
def test_stop_keeps_what_was_said_and_frees_the_engine(talker: Talker, tab: Tab) -> None:
    tab.watch()
    tab.type("Talk.")
    tab.until(lambda: len(tab.seen) >= 4)
    seen = tab.seen
    assert all(longer.startswith(text) for text, longer in pairwise(seen))
    assert talker.num_open == 1
    tab.find("#box textarea").fill("typed meanwhile")
    tab.find("#box .stop-button").click()
    wait_until(lambda: talker.num_open == 0)
    tab.wait_for_answer()
    assert tab.answers[0].startswith("word word")
    tab.until(lambda: tab.typed == "typed meanwhile")
    assert tab.find("#chat [aria-label=Like]").count() == 0  # votes are not taken where they are not logged


@needs_browser
def test_a_closed_tab_frees_the_engine(endless: Running, talker: Talker, open_tab: Any) -> None:
    tab = open_tab(endless)
    tab.type("Talk.")
    tab.until(lambda: tab.answers)
    assert talker.num_open == 1
    tab.page.close()
    wait_until(lambda: talker.num_open == 0)


@needs_browser
def test_a_new_chat_ends_the_old_answer(talker: Talker, tab: Tab) -> None:
    tab.type("Talk.")
    tab.until(lambda: tab.answers)
    tab.find("#new").click()
    wait_until(lambda: talker.num_open == 0)
    tab.until(lambda: tab.find("#chat .message").count() == 0)
    tab.page.wait_for_timeout(300)
    assert tab.find("#chat .message").count() == 0


@needs_browser
def test_refusals_are_sentences_and_lose_nothing(talker: Talker, tab: Tab, tmp_path: Path) -> None:
    talker.error = EngineFull("1,024 requests wait, which is the most. Ask again soon.")
    try:
        tab.choose(EXAMPLES / "demo.png")
        tab.type("What is written on the sign?")
        tab.until(lambda: tab.notices and tab.typed)
    finally:
        talker.error = None
    tab.until(lambda: tab.notices == ["1,024 requests wait, which is the most. Ask again soon."])
    tab.until(lambda: tab.typed == "What is written on the sign?")
    tab.until(lambda: tab.find("#box .thumbnail-item").count() == 1)
    assert tab.questions == []

    huge = tmp_path / "huge.png"
    Image.effect_noise((400, 400), 90).save(huge)
    assert huge.stat().st_size > 50_000
    tab.find("#box input[type=file]").set_input_files(str(huge))
    tab.until(lambda: any("maximum" in text for text in tab.find(".toast-body").all_inner_texts()))
    # It lies over the bar, and goes by itself after a while.
    tab.page.evaluate("document.querySelectorAll('.toast-close').forEach((button) => button.click())")
    tab.until(lambda: tab.typed == "What is written on the sign?")


@needs_browser
def test_an_image_is_taken_with_the_camera(tab: Tab) -> None:
    assert not tab.find("#camera").is_visible()
    tab.find("#photo").click()
    tab.find("#snap").click()
    tab.find("#box .thumbnail-item").wait_for()
    tab.until(lambda: not tab.find("#camera").is_visible())


@needs_browser
def test_on_a_phone_everything_is_within_reach(endless: Running, open_tab: Any) -> None:
    tab = open_tab(endless, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("#new", "#side-button", "#photo", "#box .submit-button"):
        box = tab.find(selector).bounding_box()
        assert box["x"] >= 0, selector
        assert box["x"] + box["width"] <= 390, selector
        assert box["y"] + box["height"] <= 844, selector
    tab.find("#side-button").tap()
    tab.find("#side").wait_for()
    box = tab.find("#side").bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    tab.find("#side-button").tap()
    tab.until(lambda: not tab.find("#side").is_visible())


@needs_browser
def test_it_follows_the_system_until_somebody_chooses(endless: Running, tab: Tab, open_tab: Any) -> None:
    def is_dark(tab: Tab) -> bool:
        color = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, color.removeprefix("rgb(").removesuffix(")").split(","))) < 200

    tab.until(lambda: not is_dark(tab))
    dark = open_tab(endless, color_scheme="dark")
    dark.until(lambda: is_dark(dark))
    dark.find("#dark-button").click()
    dark.until(lambda: not is_dark(dark))
    dark.page.reload()
    dark.find("#box textarea").wait_for()
    dark.until(lambda: not is_dark(dark))


def test_the_api_answers_before_the_page_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradio takes seconds to import; until then there is a page that loads itself again."""
    from llava.serve import chat_page, web

    may_open = threading.Event()
    build = chat_page.build_page

    def build_late(*arguments: Any) -> Any:
        assert may_open.wait(PATIENCE_S)
        return build(*arguments)

    monkeypatch.setattr(chat_page, "build_page", build_late)
    with run_server(Puppet(), mount=web.mount) as running:
        assert running.chat("Hi").status == 200
        reply = running.send("GET", "/")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert b'http-equiv="refresh"' in reply.body
        assert running.send("GET", "/theme.css").error["message"] == "The web chat is starting."
        may_open.set()
        wait_until(lambda: running.send("GET", "/").status == 200)
        assert b"refresh" not in running.send("GET", "/").body


def test_a_page_that_cannot_be_opened_leaves_the_api(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llava.serve import chat_page, web

    def fail(*arguments: Any) -> Any:
        raise ImportError("no module named so")

    monkeypatch.setattr(chat_page, "build_page", fail)
    with run_server(Puppet(), mount=web.mount) as running:
        wait_until(lambda: "could not be started; the API works without it" in caplog.text)
        reply = running.send("GET", "/")
        assert (reply.status, reply.error["code"]) == (503, "no_web")
        assert reply.error["message"] == "The web chat could not be started: see the server's log."
        assert running.chat("Hi").status == 200


def test_the_page_is_held_to_this_server(endless: Running) -> None:
    reply = endless.send("GET", "/")
    policy = reply.headers["content-security-policy"]
    assert reply.status == 200
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "fonts.g" not in reply.body.decode()
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_the_api_stays_the_apis(endless: Running) -> None:
    assert endless.send("GET", "/v1/chat/completions").error["code"] == "method_not_allowed"
    assert endless.send("GET", "/v1/nothing").error["code"] == "not_found"
    assert endless.send("POST", "/health").status == 405
    assert endless.send("GET", "/health").json == {"status": "ok"}


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/file=/etc/passwd", "/gradio_api/file=../../etc/passwd", f"/gradio_api/file={ROOT}/pyproject.toml"],
)
def test_no_file_of_this_machine_is_served(endless: Running, path: str) -> None:
    reply = endless.send("GET", path)
    assert reply.status in (403, 404)
    assert b"root:" not in reply.body
    assert b"[project]" not in reply.body


def test_a_body_over_the_limit_is_refused(endless: Running) -> None:
    most = endless.service.limits.body_bytes
    reply = endless.send(
        "POST", "/gradio_api/queue/join", headers={"Content-Length": str(most + 1), "Content-Type": "application/json"}
    )
    assert reply.status == 413
    assert f"the limit body_bytes is {most:,}" in reply.error["message"]


def test_nothing_of_the_page_can_be_called_as_an_api(endless: Running) -> None:
    assert endless.send("GET", "/gradio_api/info").status == 404
    assert b'"named_endpoints":{}' in endless.send("GET", "/").body


def test_the_examples_are_those_of_the_folder_examples() -> None:
    inside = ROOT / "llava/serve/assets/examples"
    names = sorted(path.name for path in inside.iterdir())
    assert len(names) == 4
    assert all((inside / name).read_bytes() == (EXAMPLES / name).read_bytes() for name in names)
