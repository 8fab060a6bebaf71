"""Fetching over HTTP: which hosts are contacted, and how responses of malicious servers are handled."""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from PIL import Image

from llava.errors import FetchError
from llava.image.fetch import _tls_context, fetch, is_public
from llava.image.source import FOR_LOCAL_USER, Limits, load_image

Reply = Callable[[socket.socket, str], None]


class Server:
    """A loopback server that hands each connection and its request to what is registered for the path."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.requests: list[str] = []
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                request = self.request.recv(65536).decode("latin-1")
                server.requests.append(request)
                path = request.split(" ")[1].partition("?")[0]
                with contextlib.suppress(OSError):  # the other side may have heard enough
                    server.replies[path](self.request, request)

        class Threads(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self.tcp = Threads(("127.0.0.1", 0), Handler)
        self.root = f"http://127.0.0.1:{self.tcp.server_address[1]}"
        threading.Thread(target=self.tcp.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(
        self, path: str, body: bytes = b"", status: str = "200 OK", *, length: int | None = None, **headers: str
    ) -> str:
        """Register an answer; returns its URL."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        message = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
        self.replies[path] = lambda connection, _: connection.sendall(message)
        return self.root + path


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.tcp.shutdown()
    server.tcp.server_close()


def _fetch(url: str, *, max_bytes: int = 100_000, timeout_s: float = 200, max_redirects: int = 3) -> bytes:
    return fetch(
        url, max_bytes=max_bytes, timeout_s=timeout_s, max_redirects=max_redirects, allow_private_addresses=True
    )


@pytest.fixture
def no_connection(monkeypatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was made"))


def test_an_image_comes_over_http(server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (12, 7), "red").save(file, "PNG")
    url = server.answer("/a/red.png", file.getvalue())
    image = load_image(url + "?x=1&y=a%20b", Limits(allow_private_addresses=True))
    assert (image.size, image.name) == ((12, 7), "red.png")
    first, *headers = server.requests[0].rstrip().split("\r\n")
    assert first == "GET /a/red.png?x=1&y=a%20b HTTP/1.1"
    assert sorted(header.split(":")[0] for header in headers) == [
        "Accept",
        "Accept-Encoding",
        "Connection",
        "Host",
        "User-Agent",
    ]


def test_proxies_of_the_environment_are_not_used(server, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert _fetch(server.answer("/a", b"body")) == b"body"


def test_a_chunked_answer_and_one_that_ends_with_the_connection_are_read(server) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    server.replies["/chunked"] = lambda connection, _: connection.sendall(chunked)
    server.replies["/old"] = lambda connection, _: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nabcde")
    assert _fetch(server.root + "/chunked") == b"abcde"
    assert _fetch(server.root + "/old") == b"abcde"


def test_redirects_are_followed_but_not_for_ever(server) -> None:
    goal = server.answer("/goal", b"there")
    server.answer("/one", status="302 Found", Location="two")
    server.answer("/two", status="308 Permanent Redirect", Location=goal)
    server.answer("/loop", status="301 Moved Permanently", Location="/loop")
    server.answer("/%C3%A4.png", b"beyond ASCII")
    server.answer("/raw", status="302 Found", Location="/ä.png".encode().decode("latin-1"))
    assert _fetch(server.root + "/one") == b"there"
    assert _fetch(server.root + "/raw") == b"beyond ASCII"
    server.requests.clear()
    with pytest.raises(FetchError, match="more than 3 redirects"):
        _fetch(server.root + "/loop")
    assert len(server.requests) == 4
    with pytest.raises(FetchError, match="more than 1 redirects"):
        _fetch(server.root + "/one", max_redirects=1)


@pytest.mark.parametrize("goal", ["file:///etc/passwd", "ftp://127.0.0.1/", "data:text/plain,x", "javascript:1"])
def test_a_redirect_to_something_else_is_not_followed(server, goal) -> None:
    server.answer("/away", status="302 Found", Location=goal)
    with pytest.raises(FetchError, match="only http: and https: are"):
        _fetch(server.root + "/away")


def test_a_redirect_to_an_invalid_url_is_refused(server) -> None:
    server.answer("/away", status="302 Found", Location="http://[::1/")
    with pytest.raises(FetchError, match="redirects to what is not a URL"):
        _fetch(server.root + "/away")


def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch) -> None:
    """The first address only passes for a public one; the second is judged as any."""
    secret = server.answer("/secret", b"secret")
    server.answer("/away", status="302 Found", Location=secret)
    judged = []

    def passes_once(address: str) -> bool:
        judged.append(address)
        return len(judged) == 1

    monkeypatch.setattr("llava.image.fetch.is_public", passes_once)
    with pytest.raises(FetchError, match="not a public address"):
        fetch(server.root + "/away", max_bytes=100, timeout_s=200, max_redirects=3)
    assert len(judged) == 2
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "204 No Content", "206 Partial Content", "302 Found"])
def test_any_other_status_is_an_error_that_names_it_and_repeats_nothing(server, status) -> None:
    url = server.answer("/a", b"" if status[:3] == "204" else b"the server's own words", status)
    with pytest.raises(FetchError, match=f"status {status[:3]}") as caught:
        _fetch(url)
    assert "words" not in str(caught.value)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_the_limit_is_given_up_early(server, announced) -> None:
    sent = []

    def pour(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 99999999\r\n\r\n" if announced else b"\r\n"))
        for _ in range(1000):
            connection.sendall(bytes(100_000))
            sent.append(100_000)

    server.replies["/endless"] = pour
    with pytest.raises(FetchError, match=r"larger than 300,000 bytes"):
        _fetch(server.root + "/endless", max_bytes=300_000)
    assert sum(sent) < 50_000_000


def test_a_body_that_breaks_off_is_an_error(server) -> None:
    with pytest.raises(FetchError, match="9 of 20 bytes"):
        _fetch(server.answer("/short", b"not so mu", length=20))
    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"
    server.replies["/chunk"] = lambda connection, _: connection.sendall(broken)
    with pytest.raises(FetchError, match="connection to 127"):
        _fetch(server.root + "/chunk")


@pytest.mark.parametrize("message", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 5000 + b"\r\n"])
def test_an_answer_that_is_not_http_is_an_error(server, message) -> None:
    server.replies["/a"] = lambda connection, _: connection.sendall(message)
    with pytest.raises(FetchError, match="could not be fetched"):
        _fetch(server.root + "/a")


def test_a_compressed_body_is_refused(server) -> None:
    with pytest.raises(FetchError, match="compressed"):
        _fetch(server.answer("/a", b"\x1f\x8b", Content_Encoding="gzip"))
    assert _fetch(server.answer("/a", b"plain", Content_Encoding="Identity")) == b"plain"


def _drip(start: bytes, drop: bytes) -> Reply:
    def reply(connection: socket.socket, _: str) -> None:
        connection.sendall(start)
        while True:  # until the other side has had enough
            connection.sendall(drop)
            time.sleep(0.05)

    return reply


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(lambda connection, _: connection.recv(1), id="silence"),
        pytest.param(_drip(b"HTTP/1.1 200 OK\r\nA: ", b"a"), id="slow header"),
        pytest.param(_drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), id="always continue"),
        pytest.param(_drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"a"), id="slow body"),
        pytest.param(_drip(b"HTTP/1.1 200 OK\r\n\r\n", b"a"), id="slow body without end"),
    ],
)
def test_the_deadline_is_for_everything_together(server, reply) -> None:
    server.replies["/slow"] = reply  # which would go on for ever
    with pytest.raises(FetchError, match=r"within 0\.4 seconds"):
        _fetch(server.root + "/slow", timeout_s=0.4)


def test_a_name_server_that_does_not_answer_is_given_up_too(monkeypatch, no_connection) -> None:
    has_ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: has_ended.wait())
    with pytest.raises(FetchError, match=r"within 0\.1 seconds"):
        _fetch("http://example.com/", timeout_s=0.1)
    has_ended.set()


def test_a_refused_connection_and_an_unknown_host_are_named(monkeypatch) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, but not listening
        with pytest.raises(FetchError, match=r"the connection to 127\.0\.0\.1 failed"):
            _fetch(f"http://127.0.0.1:{held.getsockname()[1]}/")

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match=r"no host named nowhere\.example"):
        _fetch("http://nowhere.example/a.png")


def test_a_server_without_tls_is_an_error(server) -> None:
    server.answer("/a", b"x")
    with pytest.raises(FetchError, match="no secure connection to 127"):
        _fetch(server.root.replace("http:", "https:") + "/a")


def test_certificates_are_checked_and_against_the_name_in_the_url() -> None:
    context = _tls_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


# Who is not asked


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fc00::1]",
        "[ff02::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:808:808::1]",
    ],
)
def test_an_address_that_is_not_public_is_refused_without_a_connection(host, no_connection) -> None:
    for port in ("", ":8080"):
        with pytest.raises(FetchError, match="not a public address"):
            fetch(f"http://{host}{port}/latest", max_bytes=10, timeout_s=200, max_redirects=3)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public_however_they_are_written(address) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://allowed.example\\@127.0.0.1/", "backslash"),
        ("http://127.0.0.1 .example/", "blank"),
        ("http://example.com/\r\nHost: other", "control character"),
        ("http://user:password@example.com/", "user name"),
        ("http://@example.com/", "user name"),
        ("http:///a.png", "names no host"),
        ("http://example.com:0/", "names no host and port"),
        ("http://example.com:99999/", "not a URL"),
        ("http://[::1/", "not a URL"),
        ("http://a..b/", "not a URL"),
        ("//example.com/a.png", "only http: and https: are"),
        ("file:///etc/passwd", "only http: and https: are"),
    ],
)
def test_a_url_that_two_parsers_could_read_differently_is_refused(url, message, no_connection, monkeypatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    with pytest.raises(FetchError, match=message) as caught:
        fetch(url, max_bytes=10, timeout_s=200, max_redirects=3)
    assert "password" not in str(caught.value)


def _answers(*addresses: str) -> list[tuple[object, ...]]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]


def _name_server(monkeypatch, *addresses: str) -> list[str]:
    """Every name gets these addresses; returns the list that names looked up are added to."""
    names, look_up = [], socket.getaddrinfo

    def answer(host: str, *arguments: object, **options: object) -> list[tuple[object, ...]]:
        if host[0].isdigit():
            return look_up(host, *arguments, **options)
        names.append(host)
        return _answers(*addresses)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return names


def test_a_host_name_is_resolved_once_and_pinned(monkeypatch) -> None:
    replies = [_answers("93.184.216.34"), _answers("127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: replies.pop(0))
    connected = []

    def refuse(address: tuple[str, int], **_: object) -> None:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(FetchError, match="failed"):
        fetch("http://rebinding.example:81/", max_bytes=10, timeout_s=200, max_redirects=3)
    assert connected == [("93.184.216.34", 81)]
    assert len(replies) == 1


def test_one_private_address_among_a_names_addresses_is_enough_to_refuse(monkeypatch, no_connection) -> None:
    _name_server(monkeypatch, "93.184.216.34", "10.0.0.1")
    with pytest.raises(FetchError, match=r"mixed\.example leads to what is not a public address") as caught:
        fetch("http://mixed.example/", max_bytes=10, timeout_s=200, max_redirects=3)
    assert "10.0.0.1" not in str(caught.value)


def test_the_next_address_is_tried_when_one_does_not_answer(server, monkeypatch) -> None:
    url = server.answer("/a", b"body")
    port = int(url.split(":")[2].split("/")[0])
    _name_server(monkeypatch, "127.0.0.2", "127.0.0.1")
    connect, tried = socket.create_connection, []

    def first_refuses(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(address[0])
        if address[0] == "127.0.0.2":
            raise ConnectionRefusedError
        return connect(address, timeout)

    monkeypatch.setattr(socket, "create_connection", first_refuses)
    assert _fetch(f"http://two.example:{port}/a") == b"body"
    assert tried == ["127.0.0.2", "127.0.0.1"]
    assert f"Host: two.example:{port}\r\n" in server.requests[0]


def test_names_and_paths_beyond_ascii_are_written_as_the_protocol_wants_them(server, monkeypatch) -> None:
    url = server.answer("/%C3%A4.png", b"body")
    asked = _name_server(monkeypatch, "127.0.0.1")
    port = url.split(":")[2].split("/")[0]
    assert _fetch(f"http://bücher.example:{port}/ä.png") == b"body"
    assert asked == ["xn--bcher-kva.example"]


def test_a_user_may_name_their_own_server_but_no_redirect_leads_to_one(server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (12, 7), "red").save(file, "PNG")
    url = server.answer("/red.png", file.getvalue())
    server.answer("/away", status="302 Found", Location=url)
    assert load_image(url, FOR_LOCAL_USER).size == (12, 7)
    server.requests.clear()
    with pytest.raises(FetchError, match="not a public address"):
        load_image(server.root + "/away", FOR_LOCAL_USER)
    assert len(server.requests) == 1


def test_only_allowed_hosts_are_contacted_redirects_included(server) -> None:
    url = server.answer("/a.png", b"image")
    away = server.answer("/away", status="302 Found", Location=url.replace("127.0.0.1", "localhost"))

    def ask(url: str, *hosts: str) -> bytes:
        limits = {"max_bytes": 1000, "timeout_s": 200, "max_redirects": 3, "allow_private_addresses": True}
        return fetch(url, **limits, allowed_hosts=hosts)

    assert ask(url, "127.0.0.1") == b"image"
    for refused, hosts in ((url, ("images.example",)), (away, ("127.0.0.1",))):
        with pytest.raises(FetchError, match="is not among the hosts that are allowed"):
            ask(refused, *hosts)
