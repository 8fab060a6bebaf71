"""The web chat in a browser: a real conversation about a picture, and what can go wrong in one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import threading
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.backends.own import Own
from llava.backends.protocol import ChatRequest, Delta
from llava.errors import EngineFull
from llava.serve.limits import Limits, Settings
from tests.serve.serving import PATIENCE_S, Puppet, Running, run_server, wait_until

pytest.importorskip("gradio", reason="the web chat needs Gradio: pip install llava[web]")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the browser is driven by playwright, which is not there"
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=f"there is no browser: none of {', '.join(BROWSERS)}")


class Talker(Puppet):
    """Says a word every 30 ms, for as long as somebody listens."""

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta]:
        async with contextlib.aclosing(super().chat(request)) as deltas:  # type: ignore[type-var]
            async for delta in deltas:
                await asyncio.sleep(0.03)
                yield delta


class Held(Own):
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


@contextlib.contextmanager
def run_web(backend: Any, settings: Settings) -> Iterator[Running]:
    from llava.serve.web import mount

    with run_server(backend, settings, mount=mount) as running:
        wait_until(lambda: running.send("GET", "/").status == 200)
        yield running


@pytest.fixture(scope="module")
def held() -> Held:
    return Held()


@pytest.fixture(scope="module")
def real(held: Held, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The embedded model, with a log."""
    log = tmp_path_factory.mktemp("log") / "talks.jsonl"
    with run_web(held, Settings(limits=Limits(decode_s=PATIENCE_S), log=log, decoders=1)) as running:
        yield running


@pytest.fixture(scope="module")
def talker() -> Talker:
    return Talker(num_tokens=10_000)


@pytest.fixture(scope="module")
def endless(talker: Talker) -> Iterator[Running]:
    """A model that talks without end, and no log."""
    limits = Limits(picture_bytes=50_000, decode_s=PATIENCE_S)
    with run_web(talker, Settings(limits=limits, decoders=1)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments, timeout=1000 * PATIENCE_S)
        yield browser
        browser.close()


class Tab:
    """A page that is open, and what a person sees and does there."""

    def __init__(self, context: Any, running: Running) -> None:
        self.hosts: set[str] = set()
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.page.on("request", lambda request: self.hosts.add(urllib.parse.urlsplit(request.url).netloc))
        self.page.goto(running.url)
        self.page.wait_for_selector("#box textarea")

    def find(self, selector: str) -> Any:
        return self.page.locator(selector)

    def type(self, text: str) -> None:
        self.find("#box textarea").fill(text)
        self.find("#box textarea").press("Enter")

    def choose(self, *paths: Path) -> None:
        thumbnails = self.find("#box .thumbnail-item")
        num_before = thumbnails.count()
        self.find("#box input[type=file]").set_input_files([str(path) for path in paths])
        self.until(lambda: thumbnails.count() == num_before + len(paths))

    def drop(self, path: Path) -> None:
        """Drags a picture to the middle of the page and lets go of it there."""
        data = base64.b64encode(path.read_bytes()).decode()
        self.page.evaluate(
            """async ([data, name]) => {
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                const dragged = new DataTransfer();
                dragged.items.add(new File([bytes], name, { type: "image/png" }));
                for (const kind of ["dragover", "drop"])
                    document.querySelector("#chat").dispatchEvent(
                        new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: dragged }));
            }""",
            [data, path.name],
        )
        self.find("#box .thumbnail-item").wait_for()

    def paste(self, path: Path, where: str) -> None:
        """A picture from the clipboard, where the caret is."""
        thumbnails = self.find("#box .thumbnail-item")
        num_before = thumbnails.count()
        self.page.evaluate(
            """([data, name, where]) => {
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                const clipboardData = new DataTransfer();
                clipboardData.items.add(new File([bytes], name, { type: "image/png" }));
                document.querySelector(where).dispatchEvent(
                    new ClipboardEvent("paste", { bubbles: true, cancelable: true, clipboardData }));
            }""",
            [base64.b64encode(path.read_bytes()).decode(), path.name, where],
        )
        self.until(lambda: thumbnails.count() == num_before + 1)

    def watch(self) -> None:
        """From now on every state of the latest answer is remembered."""
        self.page.evaluate(
            """() => {
                window.seen = [];
                new MutationObserver(() => {
                    const text = [...document.querySelectorAll("#chat .bot.message .prose")].at(-1)?.innerText;
                    if (text && text !== window.seen.at(-1)) window.seen.push(text);
                }).observe(document.querySelector("#chat"), { subtree: true, childList: true, characterData: true });
            }"""
        )

    @property
    def seen(self) -> list[str]:
        return [text.strip() for text in self.page.evaluate("() => window.seen")]

    @property
    def answers(self) -> list[str]:
        return [text.strip() for text in self.find("#chat .bot.message:not(:has(.notice))").all_inner_texts()]

    @property
    def questions(self) -> list[str]:
        return [text.strip() for text in self.find("#chat .user.message:not(:has(img))").all_inner_texts()]

    @property
    def notices(self) -> list[str]:
        return [text.strip() for text in self.find("#chat .notice").all_inner_texts()]

    @property
    def typed(self) -> str:
        return str(self.find("#box textarea").input_value())

    @property
    def kept(self) -> str:
        """The conversation that comes back when the tab is loaded again."""
        return str(self.page.evaluate("() => sessionStorage.getItem('llava-chat')"))

    def until(self, is_true: Any) -> None:
        for _ in range(int(PATIENCE_S / 0.05)):
            if is_true():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"it never came true; the chat shows: {self.find('#chat').inner_text()}")

    def wait_for_answer(self, number: int = 1) -> None:
        """Until there are so many, and the last is complete."""
        self.until(lambda: len(self.answers) == number and self.find("#box .submit-button").count() == 1)


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
def test_a_conversation_about_a_picture(real: Running, held: Held, open_tab: Any) -> None:
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
    assert tab.find("#chat .user.message img").count() == 1
    assert tab.typed == ""

    tab.find("#side-button").click()
    tab.until(lambda: "232 tokens" in tab.find("#sees").inner_text())
    assert tab.find("#sees img").evaluate("img => img.decode().then(() => img.naturalWidth)") > 400
    tab.until(lambda: "first word" in tab.find("#usage").inner_text())

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
    assert tab.find("#chat .user.message img").count() == 1
    tab.wait_for_answer()

    tab.type("How much is the Total?")
    tab.wait_for_answer(2)
    tab.find("#chat [aria-label=Like]").last.click()
    tab.until(lambda: lines(real)[-1]["kind"] == "vote")
    vote = lines(real)[-1]
    assert (vote["vote"], vote["answer"], len(vote["messages"])) == ("up", tab.answers[-1], 3)
    (saved,) = real.service.settings.log.with_name("talks.jsonl-pictures").iterdir()  # type: ignore[union-attr]
    assert vote["messages"][0]["parts"][0] == {"sha256": saved.stem}
    with Image.open(saved) as image:
        assert image.size == (265, 102)

    tab.find("#chat [aria-label=Undo]").click()
    tab.until(lambda: len(tab.answers) == 1)
    assert tab.typed == "How much is the Total?"

    tab.find("#new").click()
    tab.until(lambda: tab.find("#chat .message").count() == 0)
    assert tab.typed == "How much is the Total?"
    assert tab.hosts == {f"127.0.0.1:{real.port}"}


@needs_browser
def test_an_example_two_pictures_and_an_upload_that_is_no_picture(real: Running, open_tab: Any, tmp_path: Path) -> None:
    tab = open_tab(real)
    tab.find("#chat .example").first.click()
    tab.wait_for_answer()
    assert tab.answers == ["MORTALS"]

    tab.choose(EXAMPLES / "shapes.png", EXAMPLES / "chart.png")
    tab.type("What is the color of the star?")
    tab.wait_for_answer(2)
    assert tab.find("#chat .user.message img").count() == 3
    sent = lines(real)[-1]["messages"][-1]["parts"]
    assert [type(part) for part in sent] == [dict, dict, str]

    (tmp_path / "notes.png").write_text("This is no picture.")
    tab.choose(tmp_path / "notes.png")
    tab.type("What does <b>it</b> say?")
    tab.until(lambda: tab.notices and tab.typed)
    assert tab.notices[0].startswith("notes.png is not an image in a supported format (PNG, JPEG")
    assert tab.typed == "What does <b>it</b> say?"
    tab.until(lambda: tab.find("#box .thumbnail-item").count() == 1)
    assert len(tab.questions) == len(tab.answers) == 2

    tab.find("#box .delete-button").click()
    tab.find("#box textarea").press("Enter")
    tab.wait_for_answer(3)
    assert tab.questions[-1] == "What does <b>it</b> say?"
    assert tab.notices == []


@needs_browser
@pytest.mark.parametrize("where", ["#box textarea", "#chat"])
def test_a_picture_is_pasted_from_the_clipboard(real: Running, open_tab: Any, where: str) -> None:
    tab = open_tab(real)
    tab.paste(EXAMPLES / "demo.png", where)
    tab.type("What is written on the sign?")
    tab.wait_for_answer()
    assert tab.answers == ["MORTALS"]
    assert tab.find("#chat .user.message img").count() == 1
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
    assert tab.find("#chat .message").count() == 0
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
    assert tab.typed == "typed meanwhile"
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
    assert tab.notices == ["1,024 requests wait, which is the most. Ask again soon."]
    assert tab.typed == "What is written on the sign?"
    tab.until(lambda: tab.find("#box .thumbnail-item").count() == 1)
    assert tab.questions == []

    huge = tmp_path / "huge.png"
    Image.effect_noise((400, 400), 90).save(huge)
    assert huge.stat().st_size > 50_000
    tab.find("#box input[type=file]").set_input_files(str(huge))
    tab.until(lambda: any("maximum" in text for text in tab.find(".toast-body").all_inner_texts()))
    # It lies over the bar, and goes by itself after a while.
    tab.page.evaluate("document.querySelectorAll('.toast-close').forEach((button) => button.click())")
    assert tab.typed == "What is written on the sign?"


@needs_browser
def test_a_picture_is_taken_with_the_camera(tab: Tab) -> None:
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
    from llava.serve import page, web

    may_open = threading.Event()
    build = page.build_page

    def build_late(*arguments: Any) -> Any:
        assert may_open.wait(PATIENCE_S)
        return build(*arguments)

    monkeypatch.setattr(page, "build_page", build_late)
    with run_server(Puppet(), mount=web.mount) as running:
        assert running.chat("Hi").status == 200
        reply = running.send("GET", "/")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert b'http-equiv="refresh"' in reply.body
        assert running.send("GET", "/gradio_api/info").error["message"] == "The web chat is being opened."
        may_open.set()
        wait_until(lambda: running.send("GET", "/").status == 200)
        assert b"refresh" not in running.send("GET", "/").body


def test_a_page_that_cannot_be_opened_leaves_the_api(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from llava.serve import page, web

    def fail(*arguments: Any) -> Any:
        raise ImportError("no module named so")

    monkeypatch.setattr(page, "build_page", fail)
    with run_server(Puppet(), mount=web.mount) as running:
        wait_until(lambda: "could not be opened; the API answers without it" in caplog.text)
        reply = running.send("GET", "/")
        assert (reply.status, reply.error["code"]) == (503, "no_web")
        assert reply.error["message"] == "The web chat could not be opened: the server's log says why."
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
    reply = endless.send("POST", "/gradio_api/queue/join", headers={"Content-Length": str(most + 1)})
    assert reply.status == 413
    assert f"the limit body_bytes is {most:,}" in reply.error["message"]


def test_nothing_of_the_page_can_be_called_as_an_api(endless: Running) -> None:
    described = endless.send("GET", "/gradio_api/info")
    assert described.json["named_endpoints"] == {}


def test_the_examples_are_those_of_the_folder_examples() -> None:
    inside = ROOT / "llava/serve/assets/examples"
    names = sorted(path.name for path in inside.iterdir())
    assert len(names) == 4
    assert all((inside / name).read_bytes() == (EXAMPLES / name).read_bytes() for name in names)
