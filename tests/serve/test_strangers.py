"""Browser security: passwords, cross-origin pages, DNS rebinding, proxies with a prefix."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from llava.serve.limits import Limits, Settings
from tests.serve.serving import PATIENCE_S, Puppet, Running, run_server, wait_until
from tests.serve.tab import EXAMPLES, Tab, need_gradio, needs_browser, run_browser

need_gradio()
pytestmark = needs_browser
LIMITS = Limits(decode_s=PATIENCE_S)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """For which evil.test is this machine."""
    with run_browser("--host-resolver-rules=MAP evil.test 127.0.0.1") as browser:
        yield browser


@contextlib.contextmanager
def run_chat(puppet: Puppet, **settings: Any) -> Iterator[Running]:
    from llava.serve.web import mount

    with run_server(puppet, Settings(limits=LIMITS, decoders=1, **settings), mount=mount) as running:
        known = {"Authorization": " ".join(["Bearer", *running.service.settings.keys])}
        wait_until(lambda: running.send("GET", "/", headers=known).status == 200)
        yield running


class Proxied:
    """A server as it is seen through a proxy."""

    def __init__(self, url: str) -> None:
        self.url = url


@contextlib.contextmanager
def run_http(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def run_proxy(running: Running, prefix: str, *, strips: bool) -> Iterator[Proxied]:
    """Shows the server under the prefix. Like nginx by default, it asks by the server's own name."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            path = self.path.removeprefix(prefix) if strips else self.path
            upstream = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
            kept = [pair for pair in self.headers.items() if pair[0].lower() not in ("host", "connection")]
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with contextlib.closing(upstream), contextlib.suppress(OSError):
                upstream.request(self.command, path, body or None, dict(kept))
                answer = upstream.getresponse()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                while piece := answer.read1(65536):
                    self.wfile.write(piece)

        do_GET = do_POST = do_HEAD = forward

        def log_message(self, *arguments: Any) -> None:
            pass

    with run_http(Handler) as url:
        yield Proxied(f"{url}{prefix}/")


@pytest.mark.parametrize("strips", [True, False])
def test_behind_a_proxy_with_a_prefix_the_page_and_the_api_work(chromium: Any, strips: bool) -> None:
    puppet = Puppet()
    with (
        run_chat(puppet, root_path="/llava") as running,
        run_proxy(running, "/llava", strips=strips) as proxied,
        contextlib.closing(chromium.new_context()) as context,
    ):
        failed: list[str] = []
        context.on("response", lambda one: failed.append(f"{one.status} {one.url}") if one.status >= 400 else None)
        context.on("requestfailed", lambda one: failed.append(one.url) if "/assets/" in one.url else None)
        tab = Tab(context, proxied)  # type: ignore[arg-type]
        tab.choose(EXAMPLES / "receipt.png")
        tab.type("How much is the Total?")
        tab.wait_for_answer()
        assert tab.answers == ["word word word"]
        assert len(puppet.requests[-1].all_images) == 1
        image = tab.find("#chat .user.message img")
        assert image.evaluate("img => img.decode().then(() => img.naturalWidth)") == 265
        tab.find("#chat [aria-label=Retry]").click()
        tab.until(lambda: len(puppet.requests) == 2)
        tab.wait_for_answer()
        tab.find("#new").click()
        tab.until(lambda: tab.find("#chat .example img").count() == 4)
        shown = tab.find("#chat .example img").first
        assert shown.evaluate("img => img.decode().then(() => img.naturalWidth)") > 0
        models = tab.page.evaluate("fetch('v1/models').then((reply) => reply.json())")
        assert models["data"][0]["id"] == "puppet"
        assert failed == []


def test_a_browser_asks_for_the_key_as_a_password_and_gets_in(chromium: Any) -> None:
    puppet = Puppet()
    with run_chat(puppet, keys=("secret key",)) as running:
        known = {"username": "anybody", "password": "secret key"}
        with contextlib.closing(chromium.new_context(http_credentials=known)) as context:
            tab = Tab(context, running)
            tab.choose(EXAMPLES / "receipt.png")
            tab.type("How much is the Total?")
            tab.wait_for_answer()
            assert tab.answers == ["word word word"]
        wrong = {"username": "anybody", "password": "wrong"}
        with contextlib.closing(chromium.new_context(http_credentials=wrong)) as context:
            assert context.new_page().goto(running.url).status == 401


def test_a_name_that_leads_here_opens_nothing(chromium: Any) -> None:
    puppet = Puppet()
    with run_chat(puppet) as running, contextlib.closing(chromium.new_context()) as context:
        page = context.new_page()
        for path in ("/v1/models", "/", "/gradio_api/app_id"):
            assert page.goto(f"http://evil.test:{running.port}{path}").status == 421
        asked = page.evaluate(
            """() => fetch("/v1/chat/completions", {
                method: "POST", headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ messages: [{ role: "user", content: "Hi" }] }) })
                .then((reply) => reply.status)"""
        )
        assert asked == 421
        assert puppet.requests == []


ATTACK = """async (server) => {
    const form = new FormData();
    form.append("files", new Blob([Uint8Array.from(atob("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"), (c) => c.charCodeAt(0))], { type: "image/png" }), "a.png");
    const chat = JSON.stringify({ messages: [{ role: "user", content: "Hi" }] });
    const tried = [
        ["/v1/chat/completions", { body: chat }],
        ["/v1/chat/completions", { body: chat, mode: "no-cors" }],
        ["/v1/chat/completions", { body: chat, headers: { "Content-Type": "application/json" } }],
        ["/gradio_api/upload", { body: form }],
        ["/gradio_api/upload", { body: form, mode: "no-cors" }],
        ["/gradio_api/queue/join", { body: "{}" , mode: "no-cors" }],
        ["/gradio_api/app_id", { method: "GET", body: undefined }],
    ];
    const told = [];
    for (const [path, options] of tried)
        told.push(await fetch(server + path, { method: "POST", ...options }).then(async (reply) => reply.type + await reply.text(), () => "failed"));
    return told;
}"""  # noqa: E501


class Elsewhere(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<p>a page of somebody else's</p>")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.parametrize("keys", [(), ("key",)])
@pytest.mark.parametrize("is_local", [True, False])
def test_a_page_of_another_origin_reaches_and_learns_nothing(chromium: Any, keys: Any, is_local: bool) -> None:
    puppet = Puppet()
    known = {"username": "anybody", "password": "key"}
    with (
        run_chat(puppet, keys=keys, is_local=is_local) as running,
        run_http(Elsewhere) as elsewhere,
        contextlib.closing(chromium.new_context(http_credentials=known)) as context,
    ):
        page = context.new_page()
        assert page.goto(running.url).status == 200  # a password is remembered from here on
        page.goto(elsewhere)
        refused: list[int] = []
        context.on("response", lambda one: refused.append(one.status) if running.url in one.url else None)
        assert set(page.evaluate(ATTACK, running.url)) <= {"failed", "opaque"}
        assert refused
        assert [status for status in refused if status < 400] == []
        assert puppet.requests == []
        assert running.server.config.app.state.gradio_allowlist._uploads._kept == {}  # type: ignore[union-attr]


def test_a_page_whose_origin_was_given_may_ask_the_api(chromium: Any) -> None:
    puppet = Puppet()
    with (
        run_http(Elsewhere) as elsewhere,
        run_chat(puppet, origins=(elsewhere,)) as running,
        contextlib.closing(chromium.new_context()) as context,
    ):
        page = context.new_page()
        page.goto(elsewhere)
        text = page.evaluate(
            """(server) => fetch(server + "/v1/chat/completions", {
                method: "POST", headers: { "Content-Type": "application/json" },
                body: JSON.stringify({ messages: [{ role: "user", content: "Hi" }] }) })
                .then((reply) => reply.json()).then((json) => json.choices[0].message.content)""",
            running.url,
        )
        assert text.strip() == "word word word"
