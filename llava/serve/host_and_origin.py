"""Whom the server takes a browser's request from: the name it was called by, and the page that made it.

A page of any website can send requests to this machine, and can have its own name lead here (DNS rebinding). Browsers
say in ``Host``, ``Origin`` and ``Sec-Fetch-Site`` what they do; programs need not send the last two and are not asked.
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
_READING = ("GET", "HEAD", "OPTIONS")
# What says nothing but how the server is; probes name it by address.
_PROBED = ("/health", "/ready")
# Where the page's own calls go: no other page has business there, not even reading.
_PAGE_CALLS = "/gradio_api/"


def check_host(headers: Headers, path: str, settings: Settings) -> None:
    """Raises ApiError (421) if the request is for a server of another name."""
    is_exposed = settings.is_local and not settings.keys
    if not (settings.hosts or is_exposed) or "*" in settings.hosts or path in _PROBED:
        return
    for value in _find(headers, b"host"):  # HTTP/1.0 has none, and no browser speaks it
        name = _split_host(value)[0]
        if not (_is_loopback(name) or name in settings.hosts):
            raise ApiError(
                421,
                f"This server does not answer to the host '{value[:100]}'. Call it localhost or 127.0.0.1, or start it "
                "with --allow-host NAME for each further name.",
                code="unknown_host",
            )


def check_origin(method: str, path: str, headers: Headers, settings: Settings) -> None:
    """Raises ApiError (403) if a page of another origin makes the request, and it is one that pages may not make."""
    if method in _READING and not path.startswith(_PAGE_CALLS):
        return
    origins, sites = _find(headers, b"origin"), _find(headers, b"sec-fetch-site")
    site = sites[0] if sites else ""
    if not origins and site in ("", "none", "same-origin"):
        return
    if any(value.lower().startswith("bearer ") for value in _find(headers, b"authorization")) and settings.keys:
        return  # a page that knows a key, not a browser that was made to send its own
    if len(origins) == 1 and ("*" in settings.origins or origins[0] in settings.origins):
        return
    if site == "same-origin" and len(origins) < 2:
        return  # no page can claim this; Host may be another name, put there by a proxy
    if not site and len(origins) == 1 and _is_ours(origins[0], headers, settings):
        return
    shown = origins[0][:100] if origins else "another site"
    raise ApiError(
        403,
        f"Pages of {shown} may not ask this server. Start it with --cors-origin URL to let pages of an origin do so.",
        code="foreign_origin",
    )


def read_origin(value: str) -> str:
    """An origin as browsers write it, or ``*``, from what --cors-origin was given. Raises UsageError."""
    origin = value.strip().rstrip("/").lower()
    try:
        parts = urlsplit(origin)
        is_origin = bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError:  # no port, or brackets that hold no address
        is_origin = False
    if origin in ("*", "null") or (is_origin and origin == f"{parts.scheme}://{parts.netloc}"):
        return origin
    raise UsageError(f"--cors-origin takes an origin such as https://example.org:8443, and not '{value}'.")


def read_host_name(value: str, flag: str = "--allow-host") -> str:
    """The name of a host from what ``flag`` was given. Raises UsageError."""
    name = value.strip()
    if name == "*":
        return name
    if name.count(":") > 1 and not name.startswith("["):
        name = f"[{name}]"  # an IPv6 address as it is written without a port
    found = _split_host(name)[0]
    if not found:
        raise UsageError(f"{flag} takes a host's name, such as llava.example.org, and not '{value}'.")
    return found


def is_loopback_address(address: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _find(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for key, value in headers if key == name]


def _split_host(value: str) -> tuple[str, str]:
    """The name, in lower case, and the port, of what stands in Host; empty where it is nothing of the kind."""
    found = _HOST.fullmatch(value)
    if found is None:
        return "", ""
    return found[1].lower().removesuffix(".").strip("[]"), found[2] or ""


def _is_loopback(name: str) -> bool:
    return name == "localhost" or is_loopback_address(name)


def _is_ours(origin: str, headers: Headers, settings: Settings) -> bool:
    """Whether the origin is the host that was called, for browsers that do not say it themselves."""
    try:
        parts = urlsplit(origin)
    except ValueError:  # brackets that hold no address
        return False
    if parts.scheme not in _PORTS or parts.path or parts.query or parts.fragment:
        return False
    name, port = _split_host(parts.netloc)
    if not name:
        return False
    # A name that was given with a flag is ours, whichever port a proxy shows it at.
    return name in settings.hosts or (name, port or _PORTS[parts.scheme]) in [
        (called, given or _PORTS[parts.scheme]) for called, given in map(_split_host, _find(headers, b"host"))
    ]
