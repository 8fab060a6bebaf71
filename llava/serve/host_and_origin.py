"""The checks of ``Host`` (DNS rebinding) and ``Origin`` (cross-site requests), for ``ServerMiddleware``.

Any website can make a browser send requests to this machine, and can point its own domain here. Browsers report this
in ``Host``, ``Origin`` and ``Sec-Fetch-Site``. Other programs do not send the last two and are not affected.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from llava.errors import UsageError
from llava.serve.api_errors import ApiError
from llava.serve.limits import Settings

Headers = list[tuple[bytes, bytes]]

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@?#\[\]\\]+)(?::(\d{0,5}))?", re.IGNORECASE)
_PORTS = {"http": "80", "https": "443"}
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# These reveal nothing but the server's state, and probes call them by IP address.
_PROBE_PATHS = ("/health", "/ready")
# The web page's own calls: pages of other origins may not even read these.
_PAGE_CALLS = "/gradio_api/"


def check_host(headers: Headers, path: str, settings: Settings) -> None:
    """Raises ApiError (421) if ``Host`` names another server."""
    is_exposed = settings.is_local and not settings.keys
    if not (settings.hosts or is_exposed) or "*" in settings.hosts or path in _PROBE_PATHS:
        return
    for value in _header_values(headers, b"host"):  # HTTP/1.0 may omit it, but no browser speaks that
        name = _split_host(value)[0]
        if not (_is_loopback(name) or name in settings.hosts):
            raise ApiError(
                421,
                f"This server does not accept the host name '{value[:100]}'. Call it localhost or 127.0.0.1, or start "
                "it with --allow-host NAME for each additional name.",
                code="unknown_host",
            )


def check_origin(method: str, path: str, headers: Headers, settings: Settings) -> None:
    """Raises ApiError (403) for a cross-origin request that pages may not make."""
    if method in _SAFE_METHODS and not path.startswith(_PAGE_CALLS):
        return
    origins, sites = _header_values(headers, b"origin"), _header_values(headers, b"sec-fetch-site")
    site = sites[0] if sites else ""
    if not origins and site in ("", "none", "same-origin"):
        return
    if (
        any(value.lower().startswith("bearer ") for value in _header_values(headers, b"authorization"))
        and settings.keys
    ):
        return  # the page itself knows a key; a browser never adds a bearer token by itself
    if len(origins) == 1 and ("*" in settings.origins or origins[0] in settings.origins):
        return
    if site == "same-origin" and len(origins) < 2:
        return  # a page cannot forge this header; Host may differ because a proxy rewrote it
    if not site and len(origins) == 1 and _is_own_origin(origins[0], headers, settings):
        return
    shown = origins[0][:100] if origins else "another site"
    raise ApiError(
        403,
        f"Pages of {shown} may not call this server. Start it with --cors-origin URL to allow an origin.",
        code="foreign_origin",
    )


def read_origin(value: str) -> str:
    """The origin in the value of --cors-origin, as browsers write it, or ``*``. Raises UsageError."""
    origin = value.strip().rstrip("/").lower()
    try:
        parts = urlsplit(origin)
        is_origin = bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError:  # an invalid port or IPv6 address
        is_origin = False
    if origin in ("*", "null") or (is_origin and origin == f"{parts.scheme}://{parts.netloc}"):
        return origin
    raise UsageError(f"--cors-origin takes an origin such as https://example.org:8443, not '{value}'.")


def read_host_name(value: str, flag: str = "--allow-host") -> str:
    """The host name in the value of ``flag``. Raises UsageError."""
    name = value.strip()
    if name == "*":
        return name
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"  # an IPv6 address without brackets
    found = _split_host(name)[0]
    if not found:
        raise UsageError(f"{flag} takes a host name, such as llava.example.org, not '{value}'.")
    return found


def is_loopback_address(address: str) -> bool:
    """Whether an address is a loopback address, which only this machine reaches."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _header_values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key == name]


def _split_host(value: str) -> tuple[str, str]:
    """The lower-case name and the port in a Host header; both empty if it is invalid."""
    found = _HOST.fullmatch(value)
    if found is None:
        return "", ""
    return found[1].lower().removesuffix(".").strip("[]"), found[2] or ""


def _is_loopback(name: str) -> bool:
    return name == "localhost" or is_loopback_address(name)


def _is_own_origin(origin: str, headers: Headers, settings: Settings) -> bool:
    """Whether the origin is the host that was called, for browsers without ``Sec-Fetch-Site``."""
    try:
        parts = urlsplit(origin)
    except ValueError:  # an invalid IPv6 address
        return False
    if parts.scheme not in _PORTS or parts.path or parts.query or parts.fragment:
        return False
    name, port = _split_host(parts.netloc)
    if not name:
        return False
    # A name from --allow-host is ours on any port, because a proxy may use another one.
    return name in settings.hosts or (name, port or _PORTS[parts.scheme]) in [
        (called, given or _PORTS[parts.scheme]) for called, given in map(_split_host, _header_values(headers, b"host"))
    ]
