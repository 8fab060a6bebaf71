"""The allowlist in front of Gradio: which routes are reachable, and which payloads are rejected."""

from __future__ import annotations

import base64
import errno
import json
import mimetypes
import os
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from llava.serve.limits import Limits, Settings
from tests.serve.serving import PATIENCE_S, Puppet, Reply, Running, run_server, wait_until, write_image

pytest.importorskip("gradio", reason="the web chat needs Gradio: pip install llava[web]")

JOIN, RUN, UPLOAD, NEWS = (f"/gradio_api/{name}" for name in ("queue/join", "run/predict", "upload", "queue/data"))
META = {"_type": "gradio.FileData"}
LIMITS = Limits(image_bytes=50_000, images=3, upload_bytes=200_000, characters=2000, values=5000, decode_s=PATIENCE_S)


@pytest.fixture(scope="module")
def puppet() -> Puppet:
    return Puppet()


@pytest.fixture(scope="module")
def web(puppet: Puppet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    from llava.serve.web import mount

    settings = Settings(limits=LIMITS, decoders=1, log=tmp_path_factory.mktemp("log") / "sessions.jsonl")
    with run_server(puppet, settings, mount=mount) as running:
        wait_until(lambda: running.send("GET", "/").status == 200)
        yield running


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Nothing is said anywhere meanwhile, by our loggers or past them."""
    yield
    assert caplog.records == []
    assert "".join(capfd.readouterr()) == ""


def read_config(running: Running) -> dict[str, Any]:
    _, _, rest = running.send("GET", "/").body.decode().partition("window.gradio_config = ")
    return json.JSONDecoder().raw_decode(rest)[0]


@pytest.fixture(scope="module")
def functions(web: Running) -> dict[str, int]:
    """The page's functions by what they are called for."""
    return {event: one["id"] for one in read_config(web)["dependencies"] for _, event in one["targets"]}


def form(*files: tuple[str, bytes], field: str = "files") -> tuple[bytes, dict[str, str]]:
    edge = uuid.uuid4().hex
    body = b""
    for name, data in files:
        head = f'--{edge}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        body += f"{head}Content-Type: image/png\r\n\r\n".encode() + data + b"\r\n"
    return body + f"--{edge}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={edge}"}


def upload(running: Running, *files: tuple[str, bytes], field: str = "files", **headers: str) -> Reply:
    body, own = form(*files, field=field)
    return running.send("POST", UPLOAD, body, {**own, **headers})


PNG = write_image(Image.new("RGB", (30, 20), "red"))


def describe(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": META, **more}


def ask(data: list[Any], functions: dict[str, int], event: str = "submit", **more: Any) -> dict[str, Any]:
    return {"data": data, "fn_index": functions[event], "session_hash": uuid.uuid4().hex[:11], **more}


def question(*files: Any, text: Any = "Hi", before: Any = (), settings: Any = ("auto", 0.2, 0.7, 16)) -> list[Any]:
    return [list(before), {"text": text, "files": list(files)}, *settings]


def say(role: str, *content: Any) -> dict[str, Any]:
    return {"role": role, "content": list(content), "metadata": None, "options": None}


def write_text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def listen_to(running: Running, page: str) -> str:
    return running.send("GET", f"{NEWS}?session_hash={page}").body.decode()


def test_a_question_with_an_uploaded_image_is_answered(web: Running, puppet: Puppet, functions: Any) -> None:
    (path,) = upload(web, ("sign.png", PNG)).json
    call = ask(question(describe(path)), functions)
    origin = {"Origin": "http://[::1", "Sec-Fetch-Site": "same-origin"}  # no address, and none that is needed
    assert web.post(JOIN, call, **origin).status == 200
    news = listen_to(web, call["session_hash"])
    assert "word word word" in news
    assert '"close_stream"' in news
    assert len(puppet.requests[-1].all_images) == 1
    shown = web.send("GET", f"/gradio_api/file={path}")
    assert (shown.status, shown.headers["content-type"], shown.body) == (200, "image/png", PNG)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("GET", f"/gradio_api/{name}") for name in (
            "info", "openapi.json", "deep_link", "dev/reload", "runs", "user", "token", "login_check", "startup-events",
            "upload_progress?upload_id=x", "custom_component/a/client/b/c", "proxy=http://127.0.0.1/", "vibe-code",
            "stream/a/b/c/playlist.m3u8", "call/predict/abc", "file/etc/passwd", "mcp/", "heartbeat/", "heartbeat/a",
        )],
        *[("POST", f"/gradio_api/{name}") for name in (
            "process_recording", "component_server", "call/submit", "call/v2/submit", "api/predict", "run/submit",
            "run/predict/", "reset", "cancel", "vibe-edit", "stream/abc", "queue/join/", "login",
        )],
        ("GET", "/config"), ("GET", "/config/"), ("GET", "/monitoring"), ("GET", "/monitoring/summary"),
        ("GET", "/manifest.json"), ("GET", "/pwa_icon"), ("GET", "/svelte/x"), ("GET", "/login"), ("GET", "/logout"),
        ("POST", "/login"), ("GET", "/robots.txt"), ("GET", "/assets/../config"), ("GET", "/assets/.hidden"),
        ("GET", "/static/../../x"), ("GET", "/api/tags"), ("POST", "/api/chat"), ("GET", "//"), ("GET", "/docs"),
    ],
)  # fmt: skip
def test_what_the_page_does_not_use_is_not_there(web: Running, method: str, path: str, quiet: None) -> None:
    reply = web.send(method, path, b"{}" if method == "POST" else None)
    assert (reply.status, reply.error["code"]) == (404, "not_found")
    assert "The API is at /v1" in reply.error["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/"), ("GET", JOIN), ("PUT", UPLOAD), ("DELETE", "/theme.css"), ("OPTIONS", JOIN), ("POST", NEWS)],
)
def test_a_wrong_method_is_told_the_right_one(web: Running, method: str, path: str, quiet: None) -> None:
    reply = web.send(method, path)
    assert (reply.status, reply.error["code"]) == (405, "method_not_allowed")
    assert reply.headers["allow"] in ("GET", "POST", "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/theme.css", "/gradio_api/app_id"])
def test_gradio_lets_no_origin_in_and_learns_of_no_host(web: Running, path: str) -> None:
    headers = {"X-Forwarded-Host": "evil.test", "Origin": "http://evil.test", "Cookie": "a=b"}
    reply = web.send("GET", path, headers=headers)
    if path.startswith("/gradio_api"):
        assert reply.status == 403
    else:
        assert reply.status == 200
        assert b"evil.test" not in reply.body
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert "set-cookie" not in reply.headers
    settings = Settings(decoders=1, limits=LIMITS, origins=("https://page.example",), is_local=False)
    from llava.serve.web import mount

    if path == "/":
        with run_server(Puppet(), settings, mount=mount) as running:
            wait_until(lambda: running.send("GET", "/").status == 200)
            for origin, told in (("https://page.example", "https://page.example"), ("http://evil.test", None)):
                reply = running.send("GET", "/", headers={"Host": "llava.lan", "Origin": origin})
                assert reply.headers.get("access-control-allow-origin") == told


@pytest.fixture(scope="module")
def trap() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a server that nobody may ask, and what it was asked."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                heard.append(connection.recv(1000))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}", heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE_S)


SOURCES = [
    "http://{host}/x.png",
    "HTTP://{host}/x.png",
    " http://{host}/x.png",
    "\thttp://{host}/x.png",
    "https://{host}/x.png",
    "//{host}/x.png",
    "http:/{host}/x.png",
    "http:\\\\{host}\\x.png",
    "ftp://{host}/x.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "etc/passwd",
    "../../../etc/passwd",
    "data:image/png;base64,AAAA",
    "http://{host}/gradio_api/file=/etc/passwd",
    "/gradio_api/file=http://{host}/x.png",
    "{folder}/../../etc/passwd",
    "{folder}",
    "{folder}x/a.png",
    "",
    "a\0b",
    "x" * 5000,
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_file_that_was_not_uploaded_is_refused_wherever_it_stands(
    web: Running, functions: Any, trap: tuple[str, list[bytes]], source: str, quiet: None
) -> None:
    folder = os.environ["GRADIO_TEMP_DIR"]
    path = source.replace("{host}", trap[0]).replace("{folder}", folder)
    file = describe(path)
    (own,) = upload(web, ("sign.png", PNG)).json
    shown = {"type": "file", "file": file}
    calls = [
        ask(question(file), functions),
        ask(question(before=[say("user", shown)]), functions),
        ask(question(before=[say("user", {**shown, "alt_text": None}), say("assistant", write_text("a"))]), functions),
        ask(question(describe(own), file), functions),
        ask(question(describe(own, orig_name=file)), functions),
        ask(question(text=file), functions),
        ask(question(settings=(file, 0.2, 0.7, 16)), functions),
        ask([[], "auto", 0.2, 0.7, 16], functions, "example_select", event_data={
            "index": 0, "value": {"text": "Hi", "files": [file]}}),
        ask(question(), functions, event_data={"index": 0, "value": [{"a": [file]}]}),
        ask(question({"path": path}), functions),
        ask(question({"PATH": path, "meta": META}), functions),
        ask(question({"url": path, "meta": META}), functions),
        ask(question(file, text=""), functions),
    ]  # fmt: skip
    if "{host}" in source or source.startswith(("file", "data")):
        calls.append(ask(question(describe(own, url=path)), functions))
    for call in calls:
        reply = web.post(JOIN, call)
        assert 400 <= reply.status < 500, call
        assert reply.error["code"] in ("unknown_file", "bad_call", "characters_limit_exceeded")
        assert reply.json["detail"] == reply.error["message"]
    assert trap[1] == []


def test_the_address_of_an_uploaded_file_is_this_servers(web: Running, functions: Any, quiet: None) -> None:
    (path,) = upload(web, ("sign.png", PNG)).json
    headers = {"Host": "localhost:1", "Origin": "https://llava.example", "Sec-Fetch-Site": "same-origin"}
    for url, status in {
        f"/gradio_api/file={path}": 200,
        f"/./gradio_api/file={path}": 200,
        f"http://localhost:1/gradio_api/file={path}": 200,
        f"https://llava.example/llava/gradio_api/file={path}": 200,
        f"http://evil.test/gradio_api/file={path}": 400,
        f"//evil.test/gradio_api/file={path}": 400,
        f"/gradio_api/file={path}?x": 400,
        "/gradio_api/file=/etc/passwd": 400,
    }.items():
        assert web.post(JOIN, ask(question(describe(path, url=url)), functions), **headers).status == status, url


Spoil = Callable[[dict[str, Any]], Any]
BAD: list[Spoil] = [
    lambda call: call.update(fn_index=None),
    lambda call: call.update(fn_index=-1),
    lambda call: call.update(fn_index=10**6),
    lambda call: call.update(fn_index="0"),
    lambda call: call.update(fn_index=True),
    lambda call: call.update(fn_index=[0]),
    lambda call: call.pop("data"),
    lambda call: call.update(data={}),
    lambda call: call.update(data=[]),
    lambda call: call.update(data=[*call["data"], 1]),
    lambda call: call.update(session_hash=None),
    lambda call: call.update(session_hash=""),
    lambda call: call.update(session_hash="a/b"),
    lambda call: call.update(session_hash="x" * 65),
    lambda call: call.update(session_hash=7),
    lambda call: call.update(trigger_id=10**6),
    lambda call: call.update(trigger_id="9"),
    lambda call: call.update(simple_format=True),
    lambda call: call.update(batched=True),
    lambda call: call.update(event_id="a"),
    lambda call: call.update(oauth_token="a"),
    lambda call: call.update(api_name="/submit"),
    lambda call: call["data"].__setitem__(0, "text"),
    lambda call: call["data"].__setitem__(0, {"a": 1}),
    lambda call: call["data"].__setitem__(0, [None]),
    lambda call: call["data"].__setitem__(0, [["a", "b"]]),
    lambda call: call["data"].__setitem__(0, [say("system", write_text("a"))]),
    lambda call: call["data"].__setitem__(0, [{"role": "user", "content": "a"}]),
    lambda call: call["data"].__setitem__(0, [say("user", "a")]),
    lambda call: call["data"].__setitem__(0, [say("user", {"type": "text"})]),
    lambda call: call["data"].__setitem__(0, [say("user", {"type": "text", "text": 1})]),
    lambda call: call["data"].__setitem__(0, [say("user", {"type": "file", "file": "/etc/passwd"})]),
    lambda call: call["data"].__setitem__(0, [say("user", {"type": ["text"], "text": "a"})]),
    lambda call: call["data"].__setitem__(0, [say("user", {
        "type": "component", "component": "image", "value": "http://x/",
        "constructor_args": {}, "props": {}})]),
    lambda call: call["data"].__setitem__(0, [{**say("user"), "metadata": {"title": {"a": 1}}}]),
    lambda call: call["data"].__setitem__(0, [{**say("user"), "metadata": {"id": [1]}}]),
    lambda call: call["data"].__setitem__(0, [{**say("user"), "metadata": 1}]),
    lambda call: call["data"].__setitem__(0, [{**say("user"), "more": 1}]),
    lambda call: call["data"].__setitem__(0, [{**say("user"), "options": [{"value": "a"}]}]),
    lambda call: call["data"].__setitem__(1, "text"),
    lambda call: call["data"].__setitem__(1, {"text": 1, "files": []}),
    lambda call: call["data"].__setitem__(1, {"text": "a", "files": ["/etc/passwd"]}),
    lambda call: call["data"].__setitem__(1, {"text": "a", "files": {}}),
    lambda call: call["data"].__setitem__(1, {"__type__": "update", "value": "a"}),
    lambda call: call["data"].__setitem__(2, "nonsense"),
    lambda call: call["data"].__setitem__(2, ["auto"]),
    lambda call: call["data"].__setitem__(2, None),
    lambda call: call["data"].__setitem__(3, "0.2"),
    lambda call: call["data"].__setitem__(3, -1),
    lambda call: call["data"].__setitem__(3, True),
    lambda call: call["data"].__setitem__(3, None),
    lambda call: call["data"].__setitem__(5, 10**9),
    lambda call: call["data"].__setitem__(5, {"value": 1}),
    lambda call: call["data"].__setitem__(0, [[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]),
]  # fmt: skip


@pytest.mark.parametrize("spoil", BAD, ids=range(len(BAD)))
def test_what_the_page_would_not_send_is_refused_without_a_word_in_the_log(
    web: Running, functions: Any, spoil: Spoil, quiet: None
) -> None:
    for path in (JOIN, RUN):
        call = ask(question(text="a secret of the client's"), functions)
        spoil(call)
        reply = web.post(path, call)
        assert reply.status == 400, reply.body
        assert reply.error["code"] == "bad_call"
        assert reply.json["detail"] == reply.error["message"]


@pytest.mark.parametrize("path", [JOIN, RUN])
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"\xff", 400), (b'{"data": NaN}', 400), (b'{"data": 1e999}', 400),
        (b'{"a": "\\ud800"}', 400), (b"[" * 5000, 400), (b'{"data": [' + b"0," * 6000 + b"0]}", 400),
        (b'{"fn_index": ' + b"9" * 5000 + b"}", 400), (b" " * (32 * 2**20 + 1), 413),
    ],
    ids=range(11),
)  # fmt: skip
def test_the_limits_of_a_body_hold_for_the_page_as_for_the_api(
    web: Running, path: str, body: bytes, status: int, quiet: None
) -> None:
    if len(body) > web.service.limits.body_bytes:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        assert web.send("POST", path, b"", headers).status == status
        return
    reply = web.post(path, body)
    assert (reply.status, "message" in reply.error) == (status, True)
    assert web.send("POST", path, b"{}", {"Content-Type": "text/plain"}).status == 415


def test_an_event_says_what_was_done_to_a_message_that_is_there(web: Running, functions: Any, quiet: None) -> None:
    chat = [say("user", write_text("a")), say("assistant", write_text("b"))]
    rest = ["auto", 0.2, 0.7, 16]
    for event in ("retry", "edit", "undo", "like", "example_select"):
        is_now = event == "undo"
        data = {"undo": [chat, {"text": "", "files": []}], "like": [chat]}.get(event, [chat, *rest])
        for happened in (
            None, 1, [], {}, {"index": None}, {"index": "0"}, {"index": -1}, {"index": 2}, {"index": [[0]]},
            {"index": 0, "value": 7, "previous_value": "a", "liked": {}}, {"index": True}, {"index": 0},
            {"index": 0, "value": "a", "liked": "no such flag"} if event == "like" else None,
        ):  # fmt: skip
            if isinstance(happened, dict) and event in ("retry", "undo") and "value" in happened:
                continue  # no more is asked of these
            reply = web.post(RUN if is_now else JOIN, ask(data, functions, event, event_data=happened))
            assert reply.status == 400, (event, happened)


def test_a_function_is_called_by_its_own_route_only(web: Running, functions: Any, quiet: None) -> None:
    assert web.post(RUN, ask(question(), functions)).status == 400
    assert web.post(JOIN, ask(["[]", "", ""], functions, "load")).status == 400
    assert web.post(RUN, ask(["[]", "", ""], functions, "load")).status == 200


def test_news_are_for_pages_that_have_asked(web: Running, quiet: None) -> None:
    for page, status in {"unknown": 404, "": 400, "a/b": 400, "x" * 65: 400, "%00": 400}.items():
        assert web.send("GET", f"{NEWS}?session_hash={page}").status == status
    assert web.send("GET", NEWS).status == 400


def test_a_page_that_does_not_fetch_its_news_is_forgotten_with_all_it_asked() -> None:
    from llava.serve.web import mount

    puppet = Puppet()
    limits = Limits(send_s=0.2, running=2, waiting=2, decode_s=PATIENCE_S)
    with run_server(puppet, Settings(limits=limits, decoders=1), mount=mount) as running:
        wait_until(lambda: running.send("GET", "/").status == 200)
        functions = {event: one["id"] for one in read_config(running)["dependencies"] for _, event in one["targets"]}
        puppet.gate.clear()
        replies = [running.post(JOIN, ask(question(), functions)) for _ in range(20)]
        refused = [reply for reply in replies if reply.status == 429]
        assert {reply.status for reply in replies} <= {200, 429}
        assert all(reply.error["code"] == "waiting_limit_exceeded" for reply in refused)
        sessions = running.server.config.app.state.gradio_allowlist._sessions  # type: ignore[union-attr]
        queue = sessions._queue
        wait_until(lambda: not queue.pending_messages_per_session and not queue.pending_event_ids_session)
        wait_until(lambda: running.service.num_open == 0 and puppet.num_open == 0)
        puppet.gate.set()
        call = ask(question(), functions)
        wait_until(lambda: running.post(JOIN, call).status == 200)
        assert "word word word" in listen_to(running, call["session_hash"])
        assert len(sessions._app.state_holder.session_data) <= 4


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"text", "not an image in a supported format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF"),
        (PNG[:20], "damaged or cut off"),
        (b"x" * 50_001, "image_bytes"),
    ],
    ids=range(6),
)
def test_what_is_no_image_is_not_kept(web: Running, data: bytes, says: str, quiet: None) -> None:
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    before = sorted(folder.rglob("*.*"))
    reply = upload(web, ("good.png", PNG), ("bad.png", data))
    assert 400 <= reply.status < 500
    assert says in reply.error["message"]
    # A browser shows the person all of it.
    shown = upload(web, ("bad.png", data), **{"Origin": "http://x", "Sec-Fetch-Site": "same-origin"})
    assert shown.body.decode().startswith("bad.png ")
    assert sorted(folder.rglob("*.*")) == before


def test_an_upload_keeps_to_its_form_and_its_limits(web: Running, quiet: None) -> None:
    assert upload(web, *[("a.png", PNG)] * 4).error["code"] == "images_limit_exceeded"
    assert upload(web).error["code"] == "invalid_form"
    assert upload(web, ("a.png", PNG), field="other").error["code"] == "invalid_form"
    assert web.send("POST", UPLOAD, b"{}", {"Content-Type": "application/json"}).status == 415
    assert web.send("POST", UPLOAD, b"", {"Content-Type": "multipart/form-data"}).status == 400
    assert web.send("POST", UPLOAD, b"--x\r\nsecret", {"Content-Type": "multipart/form-data; boundary=y"}).status == 400
    huge = {"Content-Type": "multipart/form-data; boundary=y", "Content-Length": str(10**12)}
    assert web.send("POST", UPLOAD, b"", huge).status == 413
    foreign = upload(web, ("a.png", PNG), Origin="http://evil.test")
    assert (foreign.status, foreign.error["code"]) == (403, "foreign_origin")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../a.png", "a.png"), ("C:\\\\x\\\\a.png", "a.png"), ("page.html", "page.html.png"), ("", "image.png"),
        ("a.svg", "a.svg.png"), ("...", "image.png"), ("x" * 300 + ".png", "x" * 100 + ".png"),
        ("a;b<c>.PNG", "abc.PNG"), ("写" * 90 + ".png", "写" * 33 + ".png"), ("हिन्दी.png", "हिन्दी.png"),
        ("e\u0301.png", "é.png"), ("." + "x" * 300, "x" * 100 + ".png"), ("写" * 300, "写" * 33 + ".png"),
    ],
)  # fmt: skip
def test_an_uploads_name_is_harmless_and_fits_its_content(web: Running, name: str, kept: str) -> None:
    (path,) = upload(web, (name or " ", PNG)).json
    assert Path(path).name == kept
    assert web.send("GET", f"/gradio_api/file={quote(path)}").headers["content-type"] == "image/png"


@pytest.mark.parametrize("name", ["tempfile.SpooledTemporaryFile.write", "pathlib.Path.write_bytes"])
def test_a_full_disk_is_said_and_costs_only_the_upload(
    web: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(name, fail)
        reply = upload(web, ("sign.png", PNG))
    assert (reply.status, reply.error["code"]) == (507, "disk_full")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "No space left on device" in caplog.text
    assert "Traceback" not in caplog.text
    assert upload(web, ("sign.png", PNG)).status == 200


def test_every_kind_of_image_can_be_asked_about_where_the_system_knows_no_types(
    web: Running, functions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llava.serve.web import _patch_gradio

    monkeypatch.setattr(mimetypes, "_db", mimetypes.MimeTypes())  # without those of /etc/mime.types
    _patch_gradio()
    for name, kind in (("a.webp", "WEBP"), ("a.jfif", "JPEG"), ("a.JPE", "JPEG"), ("a.gif", "GIF"), ("a.bmp", "BMP")):
        (path,) = upload(web, (name, write_image(Image.new("RGB", (30, 20), "red"), kind))).json
        call = ask(question(describe(path)), functions)
        assert web.post(JOIN, call).status == 200
        assert '"success":false' not in listen_to(web, call["session_hash"]), name


def test_uploads_have_a_quota_and_old_ones_make_room(web: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava.serve import upload_store

    with monkeypatch.context() as late:
        late.setattr(upload_store, "STAY_S", -1)
        web.do(sweep(web))
    noise = write_image(Image.effect_noise((190, 190), 90))
    assert 30_000 < len(noise) < 50_000
    replies = [upload(web, (f"{i}.png", noise)) for i in range(8)]
    assert replies[-1].error["code"] == "upload_bytes_limit_exceeded"
    assert replies[-1].status == 413
    monkeypatch.setattr(upload_store, "_FRESH_S", -1)
    assert upload(web, ("new.png", noise)).status == 200
    monkeypatch.setattr(upload_store, "STAY_S", -1)
    web.do(sweep(web))
    assert web.send("GET", f"/gradio_api/file={replies[0].json[0]}").error["code"] == "not_found"


def sweep(running: Running) -> Callable[[], Any]:
    async def run() -> None:
        running.server.config.app.state.gradio_allowlist._uploads.sweep()  # type: ignore[union-attr]

    return run


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "etc/passwd", "../../etc/passwd", "http://127.0.0.1:9/x", "HTTP://127.0.0.1:9/x", "//etc/passwd",
        "{folder}/lock", "{folder}", "{folder}/../x.png", "file:///etc/passwd", "%00", "data:image/png;base64,AAAA", "",
        "{folder}/%2e%2e/%2e%2e/etc/passwd",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_other_file_is_shown(web: Running, trap: Any, path: str, method: str, quiet: None) -> None:
    reply = web.send(method, "/gradio_api/file=" + path.replace("{folder}", os.environ["GRADIO_TEMP_DIR"]))
    assert reply.status == 404
    assert b"root:" not in reply.body
    assert method == "HEAD" or reply.error["code"] == "not_found"


def test_a_file_is_named_by_the_path_that_was_given_out_and_no_other(web: Running, functions: Any, quiet: None) -> None:
    (path,) = upload(web, ("sign.png", PNG)).json
    place, folder = Path(path), os.environ["GRADIO_TEMP_DIR"]
    (place.parent / "inside.png").mkdir()
    (place.parent / "link.png").symlink_to("/etc/passwd")
    (place.parent / "self.png").symlink_to(place)
    spellings = [
        place.parent, place.parent.parent, f"{folder}/lock", f"{folder}//{path[len(folder) + 1 :]}", f"{path}/",
        f"{folder}/x/..{path[len(folder) :]}", f"/proc/self/root{path}", f"{path}/.", f"{path}\n", f"{path}\u200b",
        f"{folder}/\u202ea.png", f"{folder}/{'a' * 300}.png", f"{folder}/x", f"{path}.svg", f"{path}\0",
        place.parent / "inside.png", place.parent / "link.png", place.parent / "self.png", f"{folder}/\ud83da.png",
    ]  # fmt: skip
    for spelling in map(str, spellings):
        reply = web.post(JOIN, ask(question(describe(spelling)), functions))
        assert reply.status == 400, spelling
        assert reply.error["code"] in ("unknown_file", "invalid_json"), spelling
    assert web.post(JOIN, ask(question(describe(path)), functions)).status == 200


def test_the_files_of_the_page_are_there(web: Running) -> None:
    body = web.send("GET", "/").body.decode()
    scripts = re.findall(r'(?:src|href)="\.(/assets/[^"]+)"', body)
    assert scripts
    for path in [*scripts, "/theme.css", "/favicon.ico", "/gradio_api/app_id"]:
        reply = web.send("GET", path)
        assert reply.status == 200, path
        assert "default-src 'self'" in reply.headers["content-security-policy"]
        assert web.send("HEAD", path).status == 200


def test_a_fault_of_ours_is_logged_without_what_was_sent(
    web: Running, functions: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    from llava.serve.chat_session import ChatSessions

    def fail(*arguments: Any) -> Any:
        raise ValueError(f"the client sent {arguments}")

    monkeypatch.setattr(ChatSessions, "vote", fail)
    chat = [say("user", write_text("a secret")), say("assistant", write_text("b"))]
    call = ask([chat], functions, "like", event_data={"index": 1, "value": "b", "liked": True})
    assert web.post(JOIN, call).status == 200
    assert '"success":false' in listen_to(web, call["session_hash"])
    assert "the web chat failed: ValueError" in caplog.text
    assert "vote" in caplog.text  # where it was
    assert "secret" not in caplog.text + "".join(capfd.readouterr())


def test_a_server_that_is_shut_down_ends_the_streams_that_carry_no_answer() -> None:
    from llava.serve.web import mount

    puppet = Puppet()
    limits = Limits(drain_s=3 * PATIENCE_S, decode_s=PATIENCE_S)
    with run_server(puppet, Settings(limits=limits, decoders=1), mount=mount) as running:
        wait_until(lambda: running.send("GET", "/").status == 200)
        functions = {event: one["id"] for one in read_config(running)["dependencies"] for _, event in one["targets"]}
        running.server.config.timeout_graceful_shutdown = None  # nothing else ends them
        puppet.gate.clear()
        call = ask(question(), functions)
        page = call["session_hash"]
        heard: dict[str, bytes] = {}

        def hear(path: str) -> threading.Thread:
            def run() -> None:
                heard[path] = running.send("GET", path).body

            thread = threading.Thread(target=run)
            thread.start()
            return thread

        assert running.post(JOIN, call).status == 200
        news = hear(f"{NEWS}?session_hash={page}")
        wait_until(lambda: puppet.num_open == 1)
        running.loop.call_soon_threadsafe(running.server.end)
        wait_until(lambda: running.service.is_draining)
        assert news.is_alive()  # closed now, it would take the answer with it
        puppet.gate.set()
        news.join(PATIENCE_S)
        assert not news.is_alive()
        assert b"word word word" in heard[f"{NEWS}?session_hash={page}"]
        wait_until(lambda: puppet.num_stopped == 1)


def test_a_reader_who_asks_with_a_password_gets_in() -> None:
    from llava.serve.web import mount

    with run_server(Puppet(), Settings(decoders=1, keys=("key",)), mount=mount) as running:
        password = base64.b64encode(b"anybody:key").decode()
        headers = {"Authorization": f"Basic {password}"}
        wait_until(lambda: running.send("GET", "/", headers=headers).status == 200)
        assert running.send("GET", "/").status == 401
        assert running.send("POST", UPLOAD, b"{}").status == 401
