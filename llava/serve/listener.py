"""The listening socket. It rejects connections before they exhaust the process's file descriptors.

Decoders, fetches and logs need descriptors too. Connections beyond their share of the limit are answered 503 at once;
open ones are not affected. (Event loops other than asyncio's own accept connections without calling ``accept`` here.)
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
from typing import Any

from llava.errors import UsageError
from llava.serve.api_errors import LOG, ApiError

_BACKLOG = 2048
# Shares of the process's descriptors in use: from the first on, connections are answered 503; from the second on, they
# are also closed without lingering.
_REJECT_SHARE, _CLOSE_SHARE = 3 / 4, 7 / 8
_LINGER_S = 1.0


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError."""
    if not host:  # the system would bind every address of this machine
        raise UsageError("--host is empty. Give an address, such as 127.0.0.1, or 0.0.0.0 for all of this machine's.")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        if not 0 <= port < 2**16:
            raise OSError("a port is a number from 0 to 65535")
        host.encode("idna")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        number = 0 if isinstance(error, UnicodeError) else error.errno  # negative for names that do not resolve
        is_host = isinstance(error, UnicodeError) or number == errno.EADDRNOTAVAIL or (number or 0) < 0
        remedy = "Give an address of this machine with --host" if is_host else "Choose another port with --port"
        raise UsageError(f"Cannot listen on port {port} of {host}: {reason}. {remedy}.") from error
    return _Listener(made.family, made.type, made.proto, fileno=made.detach())


class _Listener(socket.socket):
    _is_crowded = False
    _is_out = False

    def accept(self) -> tuple[socket.socket, Any]:
        # After EMFILE asyncio pauses accepting for a second, but first it retries as often as the backlog is long;
        # BlockingIOError ends that loop.
        if self._is_out:
            self._is_out = False
            raise BlockingIOError
        try:
            connection, address = super().accept()
        except OSError as error:
            self._is_out = error.errno in (errno.EMFILE, errno.ENFILE)
            raise
        # The system hands out the lowest free descriptor, so its number tells how many are in use.
        share = connection.fileno() / _max_descriptors()
        if share >= _REJECT_SHARE and not self._is_crowded:
            LOG.warning("there are too many connections for the limit of open files (ulimit -n): rejecting some")
        self._is_crowded = share >= _REJECT_SHARE
        if self._is_crowded:
            _reject(connection, 0.0 if share >= _CLOSE_SHARE else _LINGER_S)
            raise ConnectionAbortedError  # asyncio ignores it and accepts the next connection
        return connection, address


def _max_descriptors() -> float:
    """How many file descriptors the process may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return float("inf")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if limit == resource.RLIM_INFINITY else max(limit, 1)


def _reject(connection: socket.socket, linger_s: float) -> None:
    """Sends 503 without reading the request.

    It lingers: if the socket were closed before the request arrived, the reset would discard the response.
    """
    api_error = ApiError(503, "The server has too many open connections. Try again later.", code="too_many_connections")
    body = json.dumps(api_error.body).encode()
    lines = ["HTTP/1.1 503 Service Unavailable", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in api_error.headers.items()] + ["Connection: close", "", ""]
    with contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.sendall("\r\n".join(lines).encode("ascii") + body)
        connection.shutdown(socket.SHUT_WR)
    asyncio.get_running_loop().call_later(linger_s, connection.close)
