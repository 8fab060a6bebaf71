"""Fetches an image over HTTP from an untrusted server, with protection against SSRF.

The host name is resolved once, all of its addresses are checked, and the connection goes to a checked address, so DNS
rebinding does not help an attacker; redirects are handled in the same way. The deadline covers everything, from name
resolution to the last byte. Proxy settings of the environment are ignored, only the request line and four fixed headers
are sent, and error messages repeat nothing of the response but its status.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urljoin, urlsplit

from llava.errors import FetchError

_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_CHUNK_BYTES = 64 * 1024
# How often a waiting fetch checks whether the image is still wanted.
_POLL_S = 0.25


def fetch(
    url: str,
    *,
    max_bytes: int,
    timeout_s: float,
    max_redirects: int,
    allow_private_addresses: bool = False,
    allow_private_start: bool = False,
    allowed_hosts: Collection[str] | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> bytes:
    """The body of the response to a GET request for an http or https URL.

    Args:
        timeout_s: the deadline for the whole fetch, redirects included.
        allow_private_addresses: whether loopback, private and other non-public addresses are allowed.
        allow_private_start: whether they are allowed for ``url`` itself, but not for redirects.
        allowed_hosts: the only hosts that may be contacted, redirects included; None allows all.
        is_wanted: once it returns False, the fetch ends as if the deadline had passed.

    Raises:
        FetchError: the address is not allowed, the fetch failed or took too long, the body is too large, or the status
            is not 200.
    """
    deadline = _Deadline(timeout_s, is_wanted)
    for num_redirects in range(max_redirects + 1):
        target = _parse_url(url)
        if allowed_hosts is not None and target.host not in allowed_hosts:
            raise FetchError(f"{target} is not fetched: {target.host} is not among the hosts that are allowed.")
        addresses = _resolve(target, deadline)
        if not allow_private_addresses and not (allow_private_start and num_redirects == 0):
            _refuse_private(target, addresses)
        try:
            answer = _get(target, addresses, deadline, max_bytes)
        except TimeoutError as error:
            raise deadline.missed(target) from error
        except ssl.SSLError as error:
            raise FetchError(f"{target} could not be fetched: no secure connection to {target.host}.") from error
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(f"{target} could not be fetched: the connection to {target.host} failed.") from error
        if isinstance(answer, bytes):
            return answer
        try:
            url = urljoin(url, answer.location)
        except ValueError as error:
            raise FetchError(f"{target} could not be fetched: it redirects to what is not a URL.") from error
    raise FetchError(f"{target} could not be fetched: more than {max_redirects} redirects.", "max_redirects")


class _Deadline:
    def __init__(self, timeout_s: float, is_wanted: Callable[[], bool]) -> None:
        self._timeout_s, self._is_wanted = timeout_s, is_wanted
        self._end = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """The seconds left, more than 0. Raises TimeoutError if there are none."""
        left_s = self._end - time.monotonic()
        if left_s <= 0 or not self._is_wanted():
            raise TimeoutError
        return left_s

    def missed(self, target: _Target) -> FetchError:
        return FetchError(f"{target} could not be fetched within {self._timeout_s:g} seconds.", "timeout_s")


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str
    port: int
    path: str
    """Path and query, quoted for a request line."""

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _default_port(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        shown = f"{self.scheme}://{self.authority}{self.path.partition('?')[0]}"
        return shown if len(shown) <= 120 else shown[:117] + "..."


@dataclass(frozen=True)
class _Redirect:
    location: str


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _parse_url(url: str) -> _Target:
    # Parsers disagree about backslashes, blanks and control characters, none of which is valid in a URL.
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise FetchError("The URL holds a blank, a backslash or a control character.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        name = (host or "").encode("idna").decode("ascii") if ":" not in (host or "") else host
    except (ValueError, UnicodeError) as error:
        raise FetchError(f"{url[:100]!r} is not a URL.") from error
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https"):
        raise FetchError(f"{scheme or 'This'}: is not fetched; only http: and https: are.")
    if "@" in parts.netloc:
        raise FetchError("The URL holds a user name; images are fetched without any.")
    if not name or port == 0:
        raise FetchError(f"{url[:100]!r} names no host and port.")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
    return _Target(scheme, name, port or _default_port(scheme), path + query)


def _resolve(target: _Target, deadline: _Deadline) -> list[str]:
    """The host's addresses. The system's resolver has no timeout, so it runs in a thread."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        thread.join(deadline.left_s())
    except TimeoutError as error:
        raise deadline.missed(target) from error
    if not found:
        raise deadline.missed(target)
    if isinstance(found[0], Exception):
        raise FetchError(f"{target} could not be fetched: there is no host named {target.host}.") from found[0]
    return list(dict.fromkeys(info[4][0] for info in found[0]))


def _refuse_private(target: _Target, addresses: list[str]) -> None:
    for address in addresses:
        if not is_public(address):
            # The message does not name the address, which would tell strangers about the network.
            verb = "is" if target.host == address else "leads to what is"
            raise FetchError(
                f"{target} is not fetched: {target.host} {verb} not a public address. "
                "Load the file itself, or allow private addresses."
            )


def is_public(address: str) -> bool:
    """Whether an IP address is public; an IPv6 address that contains an IPv4 address is judged by the latter."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            inner: ipaddress.IPv4Address | None = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        else:
            inner = ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if ip.teredo is not None or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _get(target: _Target, addresses: list[str], deadline: _Deadline, max_bytes: int) -> bytes | _Redirect:
    with _connect(target, addresses, deadline) as connection:
        connection.settimeout(deadline.left_s())
        connection.sendall(
            f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: llava\r\n"
            "Accept: image/*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        response = http.client.HTTPResponse(cast(socket.socket, _Wire(connection, deadline)), method="GET")
        response.begin()
        if response.status in _REDIRECTS and response.getheader("Location"):
            # http.client decodes headers as Latin-1; non-ASCII ones are UTF-8 in practice.
            return _Redirect(str(response.getheader("Location")).encode("latin-1").decode("utf-8", "replace"))
        if response.status != 200:
            raise FetchError(f"{target} could not be fetched: {target.host} answered with status {response.status}.")
        return _read_body(response, target, max_bytes)


def _read_body(response: http.client.HTTPResponse, target: _Target, max_bytes: int) -> bytes:
    announced = response.length  # None where the body is chunked or ends with the connection
    encoding = response.getheader("Content-Encoding", "identity").lower()
    if encoding not in ("identity", ""):
        raise FetchError(f"{target} could not be fetched: {target.host} sent it compressed, which was not asked for.")
    body = bytearray()
    while (announced or 0) <= max_bytes and len(body) <= max_bytes:
        chunk = response.read(_CHUNK_BYTES)
        if not chunk:
            break
        body += chunk
    if (announced or 0) > max_bytes or len(body) > max_bytes:
        raise FetchError(f"{target} is larger than {max_bytes:,} bytes.", "max_bytes")
    if announced is not None and len(body) < announced:
        raise FetchError(f"{target} broke off: {len(body):,} of {announced:,} bytes came.")
    return bytes(body)


def _connect(target: _Target, addresses: list[str], deadline: _Deadline) -> socket.socket:
    """A connection to the first of the addresses that accepts one."""
    for i, address in enumerate(addresses):
        try:
            # The time left is shared, so that one silent address does not use up all of it.
            wait_s = deadline.left_s() / (len(addresses) - i)
            connection = socket.create_connection((address, target.port), timeout=wait_s)
            break
        except OSError:
            if i == len(addresses) - 1:
                raise
    if target.scheme == "http":
        return connection
    try:
        connection.settimeout(deadline.left_s())
        return _tls_context().wrap_socket(connection, server_hostname=target.host)
    except BaseException:
        connection.close()
        raise


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    paths = ssl.get_default_verify_paths()
    if not any(path and os.path.exists(path) for path in (paths.cafile, paths.capath)):
        import certifi

        context.load_verify_locations(certifi.where())  # Python cannot find the system's certificates
    return context


class _Wire:
    """The socket interface that HTTPResponse needs; every read ends by the deadline."""

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_DeadlineReader(self._connection, self._deadline))


class _DeadlineReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            self._connection.settimeout(min(self._deadline.left_s(), _POLL_S))
            with contextlib.suppress(TimeoutError):
                return self._connection.recv_into(buffer)
