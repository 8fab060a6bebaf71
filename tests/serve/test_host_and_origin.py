"""Host and Origin checks: DNS rebinding, cross-site requests, CORS, root paths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llava.errors import UsageError
from llava.serve.host_and_origin import is_loopback_address, read_host_name
from llava.serve.limits import Settings
from llava.serve.request_path import normalize_path, read_root_path
from tests.serve.serving import Puppet, Running, run_server

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def open_server() -> Iterator[Running]:
    with run_server(Puppet(), Settings(decoders=1)) as running:
        yield running


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with run_server(Puppet(), Settings(decoders=1, keys=("key",))) as running:
        yield running


@pytest.fixture(scope="module")
def named() -> Iterator[Running]:
    settings = Settings(decoders=1, hosts=("llava.lan", "10.0.0.7"), origins=("https://page.example",), is_local=False)
    with run_server(Puppet(), settings) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "localhost:",
        "127.0.0.1",
        "127.0.0.1:9",
        "127.0.0.2",
        "[::1]",
        "[::1]:8000",
    ],
)
def test_a_local_server_answers_to_this_machines_names(open_server: Running, host: str) -> None:
    assert open_server.post(CHAT, HI, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "evil.test:8000",
        "127.0.0.1.evil.test",
        "localhost.evil.test",
        "evil.localhost",
        "localhost@evil.test",
        "evil.test#localhost",
        "10.0.0.7",
        "0.0.0.0",
        "[fe80::1]",
        "",
        "localhost evil.test",
    ],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", CHAT), ("GET", "/"), ("GET", "/metrics")])
def test_a_name_that_leads_here_from_a_website_is_refused(
    open_server: Running, method: str, path: str, host: str
) -> None:
    reply = open_server.send(method, path, b"{}" if method == "POST" else None, {"Host": host})
    assert (reply.status, reply.error["code"]) == (421, "unknown_host")
    assert "--allow-host" in reply.error["message"]


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_probes_name_the_server_as_they_like(open_server: Running, named: Running, path: str) -> None:
    assert open_server.send("GET", path, headers={"Host": "10.1.2.3:8000"}).status == 200
    assert named.send("GET", path, headers={"Host": "10.1.2.3:8000"}).status == 200


def test_names_are_free_where_a_key_is_asked_for_or_other_machines_come(locked: Running) -> None:
    headers = {"Host": "any.name", "Authorization": "Bearer key"}
    assert locked.send("GET", "/v1/models", headers=headers).status == 200
    with run_server(Puppet(), Settings(decoders=1, is_local=False)) as running:
        assert running.send("GET", "/v1/models", headers={"Host": "any.name"}).status == 200


def test_names_that_were_given_are_the_only_ones(named: Running) -> None:
    for host, status in {"llava.lan:80": 200, "10.0.0.7": 200, "localhost": 200, "other.lan": 421}.items():
        assert named.send("GET", "/v1/models", headers={"Host": host}).status == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "http://[evil.test"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Origin": "http://localhost:8000/path"},
        {"Origin": "file://"},
        {"Origin": "http://127.0.0.1:8000@evil.test"},
        {"Origin": "http://[::1"},
        {"Origin": "http://[x]:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8000"},
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/worker_generate_stream", "/nothing"])
def test_a_page_of_another_origin_may_not_ask(open_server: Running, path: str, headers: dict[str, str]) -> None:
    reply = open_server.post(path, HI, Host="localhost:8000", **headers)
    assert (reply.status, reply.error["code"]) == (403, "foreign_origin")
    assert "--cors-origin" in reply.error["message"]
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:8000"},
        {"Origin": "http://localhost:8000", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://llava.example", "Sec-Fetch-Site": "same-origin"},  # a proxy put another name into Host
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_programs_and_pages_of_the_server_may_ask(open_server: Running, headers: dict[str, str]) -> None:
    assert open_server.post(CHAT, HI, Host="localhost:8000", **headers).status == 200


def test_origins_that_were_given_may_ask_and_a_key_speaks_for_itself(named: Running, locked: Running) -> None:
    origin = {"Origin": "https://page.example", "Sec-Fetch-Site": "cross-site"}
    assert named.post(CHAT, HI, Host="llava.lan", **origin).status == 200
    assert named.post(CHAT, HI, Host="llava.lan", Origin="https://other.example").status == 403
    assert locked.post(CHAT, HI, **origin, Authorization="Bearer key").status == 200
    # Browsers add the password that they remember by themselves, whichever page asks.
    assert locked.post(CHAT, HI, **origin, Authorization="Basic YTprZXk=").status == 403


@pytest.mark.parametrize("value", ["llava.lan", "LLAVA.lan:8000", " llava.lan. "])
def test_a_hosts_name_is_read_however_it_is_written(value: str) -> None:
    assert read_host_name(value) == "llava.lan"
    assert (read_host_name("::1"), read_host_name("[fe80::1]:80"), read_host_name("*")) == ("::1", "fe80::1", "*")


@pytest.mark.parametrize("value", ["", "http://llava.lan", "a b", "user@host", "llava.lan/path"])
def test_what_is_no_hosts_name_is_a_usage_error(value: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        read_host_name(value)


def test_only_addresses_of_this_machine_are_local() -> None:
    assert all(map(is_loopback_address, ("127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback_address, ("0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0", "", "localhost")))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models", 200),
        ("/models/puppet", 200),
        ("/v1/models/", 200),
        ("/llava/v1/models", 200),
        ("/llava/health", 200),
        ("/llava", 307),
        ("/llavax/v1/models", 404),
        ("/llava/llava/v1/models", 404),
    ],
)
def test_paths_are_understood_without_the_version_and_with_a_prefix(path: str, status: int) -> None:
    with run_server(Puppet(), Settings(decoders=1, root_path="/llava")) as running:
        reply = running.send("GET", path)
        assert reply.status == status
        assert status != 404 or "/llava/v1" in reply.error["message"]
        assert status != 307 or reply.headers["location"] == "/llava/"


@pytest.mark.parametrize("path", ["/chat/completions", "/completions", "/responses"])
def test_clients_that_leave_the_version_out_are_answered(open_server: Running, path: str) -> None:
    asked = {"/chat/completions": HI, "/completions": {"prompt": "Hi"}, "/responses": {"input": "Hi"}}[path]
    assert open_server.post(path, asked).status == 200
    assert open_server.post(f"{path}/", asked).status == 200
    assert open_server.send("GET", path).error["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "path",
    [
        "/api/tags",
        "/api/chat",
        "/api/generate",
        "/generate",
        "/engines",
        "/v1/engines",
        "/v1/v1/models",
        "/docs",
        "/v1",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paths_of_other_servers_are_told_where_the_api_is(open_server: Running, method: str, path: str) -> None:
    reply = open_server.send(method, path, b"{}" if method == "POST" else None)
    assert (reply.status, reply.error["code"]) == (404, "not_found")
    assert "/v1/chat/completions" in reply.error["message"]


def test_every_challenge_has_a_line_of_its_own(locked: Running) -> None:
    """Browsers read no further than the first one of a line."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", locked.port)
    connection.request("GET", "/")
    found = connection.getresponse().headers.get_all("WWW-Authenticate")
    connection.close()
    assert found == ["Bearer", 'Basic realm="llava"']


@pytest.mark.parametrize("value", ["llava", "/a//b", "/a b", "http://host/a", "/../a", "/a?b"])
def test_what_is_no_prefix_is_a_usage_error(value: str) -> None:
    with pytest.raises(UsageError, match="--root-path"):
        read_root_path(value)


def test_a_prefix_is_read_with_and_without_slashes() -> None:
    assert [read_root_path(value) for value in ("", "/", "/llava", "/llava/", "/a/b-c")] == ["", "", "/llava"] + [
        "/llava",
        "/a/b-c",
    ]
    assert normalize_path("/llava/v1/models", "/llava") == normalize_path("/v1/models", "/llava") == "/v1/models"
