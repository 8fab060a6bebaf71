"""A browser's tab with the web chat in it, and what a person sees and does there."""

from __future__ import annotations

import base64
import contextlib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava.serve.limits import Settings
from tests.install_browser import NO_BROWSER, REMEDY, find_browser, is_ci, is_missed
from tests.serve.serving import PATIENCE_S, Running, run_server, wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
needs_browser = pytest.mark.skipif(is_missed(), reason=NO_BROWSER)


def need_gradio() -> None:
    """Skips a module of tests where Gradio or playwright is not installed, except in CI, where they have to be."""
    if not is_ci():
        pytest.importorskip("gradio", reason="the web chat needs Gradio: pip install llava[web]")
        pytest.importorskip("playwright", reason="the browser is driven by playwright, which is not there")


@contextlib.contextmanager
def run_browser(*arguments: str) -> Iterator[Any]:
    """Chromium with further ``arguments``, driven by playwright."""
    from playwright.sync_api import sync_playwright

    path = find_browser()
    assert path is not None, f"{NO_BROWSER}: {REMEDY}"
    words = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", *arguments]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=words, timeout=1000 * PATIENCE_S)
        yield browser
        browser.close()


@contextlib.contextmanager
def run_web(backend: Any, settings: Settings) -> Iterator[Running]:
    from llava.serve.web import mount

    with run_server(backend, settings, mount=mount) as running:
        wait_until(lambda: running.send("GET", "/").status == 200)
        yield running


class Tab:
    """A page that is open, and what a person sees and does there."""

    def __init__(self, context: Any, running: Running) -> None:
        self.hosts: set[str] = set()
        self.page = context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE_S)
        self.page.on("request", lambda request: self.hosts.add(urllib.parse.urlsplit(request.url).netloc))
        self.page.goto(running.url)
        self.page.wait_for_selector("#box textarea")

    def wait_until_begun(self) -> None:
        """Until the page shows what it showed before, and keeps what comes."""
        self.page.wait_for_function("() => window.llava?.hasBegun")

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
        """Drags an image to the middle of the page and lets go of it there."""
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
        """An image from the clipboard, where the caret is."""
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
    def toasts(self) -> list[str]:
        return [text.strip() for text in self.find(".toast-body").all_inner_texts()]

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
