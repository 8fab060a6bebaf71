"""The server's listening socket: connections leave a part of the process's file handles to its own work.

DecoderPool, fetches and logs need handles as connections do. A connection beyond its share is answered 503 at once, by
itself, and the others never notice. (An event loop other than asyncio's own takes connections without asking here.)
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
# Of the process's handles: what is in use when connections are refused, and when they are closed at once as well.
_SHARE, _SHARE_WITH_REFUSED = 3 / 4, 7 / 8
_LINGER_S = 1.0


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError."""
    if not host:  # which the system takes for every address of this machine
        raise UsageError("--host is empty. Name an address, such as 127.0.0.1, or 0.0.0.0 for all of this machine's.")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        if not 0 <= port < 2**16:
            raise OSError("ports are numbers from 0 to 65535")
        host.encode("idna")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        number = 0 if isinstance(error, UnicodeError) else error.errno  # of names that lead nowhere it is below 0
        is_host = isinstance(error, UnicodeError) or number == errno.EADDRNOTAVAIL or (number or 0) < 0
        remedy = "Name an address of this machine with --host" if is_host else "Choose another one with --port"
        raise UsageError(f"Port {port} on {host} cannot be had: {reason}. {remedy}.") from error
    return _Listener(made.family, made.type, made.proto, fileno=made.detach())


class _Listener(socket.socket):
    _is_crowded = False
    _is_out = False

    def accept(self) -> tuple[socket.socket, Any]:
        if self._is_out:  # asyncio waits a second after the first error, but only once it got as many as the backlog
            self._is_out = False
            raise BlockingIOError
        try:
            connection, address = super().accept()
        except OSError as error:
            self._is_out = error.errno in (errno.EMFILE, errno.ENFILE)
            raise
        # The system gives the lowest number that is free, so a connection's tells how many handles are in use.
        share = connection.fileno() / _count_handles()
        if share >= _SHARE and not self._is_crowded:
            LOG.warning("there are too many connections for the limit of open files (ulimit -n): some are refused")
        self._is_crowded = share >= _SHARE
        if self._is_crowded:
            _refuse(connection, 0.0 if share >= _SHARE_WITH_REFUSED else _LINGER_S)
            raise ConnectionAbortedError  # what asyncio passes over
        return connection, address


def _count_handles() -> float:
    """How many the process may have."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return float("inf")
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if limit == resource.RLIM_INFINITY else max(limit, 1)


def _refuse(connection: socket.socket, linger_s: float) -> None:
    """Answers without waiting for the question. Closed before that has come, it would break off, answer and all."""
    api_error = ApiError(503, "The server has too many open connections. Ask again later.", code="too_many_connections")
    body = json.dumps(api_error.body).encode()
    lines = ["HTTP/1.1 503 Service Unavailable", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in api_error.headers.items()] + ["Connection: close", "", ""]
    with contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.sendall("\r\n".join(lines).encode("ascii") + body)
        connection.shutdown(socket.SHUT_WR)
    asyncio.get_running_loop().call_later(linger_s, connection.close)
