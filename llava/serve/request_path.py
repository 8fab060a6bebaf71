"""Normalizes a request's path: strips a proxy's prefix and adds the ``/v1`` that some clients omit."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from llava.errors import UsageError
from llava.serve.api_errors import ApiError

# What clients request whose base URL lacks /v1.
_WITHOUT_VERSION = re.compile(r"/(?:chat/completions|completions|responses|models(?:/.+)?)/*")
_ABSOLUTE = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE)
_ROUTES = "/v1/chat/completions, /v1/completions, /v1/responses and /v1/models"


def read_root_path(value: str) -> str:
    """The prefix for ``Settings.root_path``: empty, or with a leading slash and no trailing one. Raises UsageError."""
    path = value.strip().rstrip("/")
    if path and not re.fullmatch(r"(?:/[\w.~-]+)+", path, re.ASCII):
        raise UsageError(f"--root-path takes a path such as /llava, and not '{value}'.")
    if any(part in (".", "..") for part in path.split("/")):
        raise UsageError(f"--root-path takes a path such as /llava, and not '{value}'.")
    return path


def apply_absolute_form(scope: MutableMapping[str, Any]) -> None:
    """Rewrites ``GET http://host/path`` to ``GET /path`` with that ``Host``; leaves other requests unchanged.

    Source: RFC 9112, section 3.2.2: a server has to accept this form, and its host overrides the header.
    """
    found = _ABSOLUTE.fullmatch(scope.get("raw_path", b""))
    if found is not None:
        scope["raw_path"] = found[2] or b"/"
        scope["path"] = unquote(scope["raw_path"].decode("ascii"))
        scope["headers"] = [(b"host", found[1]), *(pair for pair in scope["headers"] if pair[0] != b"host")]


def normalize_path(path: str, root_path: str) -> str:
    """The route for a requested path, whether or not a proxy has already stripped ``root_path``."""
    if root_path and (path == root_path or path.startswith(f"{root_path}/")):
        path = path[len(root_path) :] or "/"
    if _WITHOUT_VERSION.fullmatch(path):
        path = f"/v1{path}"
    return path.rstrip("/") if path.startswith("/v1/") else path


def encode_path(path: str) -> bytes:
    """The path percent-encoded, as in a request line."""
    return quote(path, safe="/:@!$&'()*+,;=~-._").encode("ascii")


def unknown_path(path: str, root_path: str = "") -> ApiError:
    """The error (404) for a path without a route; it names the routes."""
    shown = path[:200]
    if path == "/v1" or path.startswith("/v1/"):
        hint = f"The API's routes are {_ROUTES}."
    else:
        hint = f"The API is at {root_path}/v1, such as {root_path}/v1/chat/completions."
    return ApiError(404, f"There is no route {shown}. {hint}", code="not_found")


def method_not_allowed(method: str, path: str, allowed: str) -> ApiError:
    """The error (405) for a method that a path does not accept."""
    return ApiError(
        405,
        f"{path[:200]} does not accept {method[:20]}. Use {allowed}.",
        code="method_not_allowed",
        headers={"Allow": allowed},
    )
