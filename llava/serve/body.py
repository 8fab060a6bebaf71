"""Reads a request's body within the limits (HTTP 413, 408, 415) and parses it as strict JSON.

If an object has a key twice, the last value wins, as in other JSON parsers.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import math
import re
from typing import Any

from starlette.requests import Request

from llava.serve.api_errors import ApiError, limit_exceeded
from llava.serve.limits import Limits

# Parsing a smaller body takes less time than handing it to a thread.
_SMALL_BYTES = 256 * 1024
# More digits than any valid integer in a request has.
_MAX_DIGITS = 40


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object in the body.

    Raises ApiError: 415 for another content type or a compressed body, 413 over ``body_bytes``, 408 after ``body_s``,
    and 400 over ``values`` or for anything but a JSON object in UTF-8.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(
            415, f"The content type is '{kind[:80]}'. Send JSON as 'Content-Type: application/json'.", code="not_json"
        )
    if request.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise ApiError(
            415, "The body is compressed. Send it uncompressed, without Content-Encoding.", code="compressed"
        )
    try:
        body = await asyncio.wait_for(_read(request, limits), limits.body_s)
    except asyncio.TimeoutError as error:
        raise limit_exceeded(
            "body_s", limits.body_s, "The body did not arrive in time", "Send it faster.", status=408
        ) from error
    # Millions of values would take gigabytes, and parsing and validating them would block the server.
    num_values = body.count(b",") + 1
    if num_values > limits.values:
        raise limit_exceeded("values", limits.values, f"The body may contain {num_values:,} values", "Send fewer.")
    if len(body) < _SMALL_BYTES:
        return parse_object(body)
    return await asyncio.to_thread(parse_object, body)


async def _read(request: Request, limits: Limits) -> bytes:
    announced = request.headers.get("content-length", "")
    num_bytes = int(announced) if announced.isascii() and announced.isdigit() else 0
    body = bytearray()
    if num_bytes <= limits.body_bytes:
        async for chunk in request.stream():
            body += chunk
            num_bytes = len(body)
            if num_bytes > limits.body_bytes:
                break
    if num_bytes > limits.body_bytes:
        raise limit_exceeded(
            "body_bytes",
            limits.body_bytes,
            f"The body has {num_bytes:,} bytes or more",
            "Send fewer or smaller images, or send their URLs.",
            status=413,
        )
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in these bytes. Raises ApiError (400)."""
    if not body.removeprefix(codecs.BOM_UTF8).strip():
        raise ApiError(400, "The body is empty. Send a JSON object.", code="invalid_json")
    try:
        text = body.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"The body is not valid UTF-8: see byte {error.start:,}.", code="invalid_json") from error
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=_parse_int)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise ApiError(
            400,
            f"The body is not valid JSON: see line {error.lineno}, column {error.colno}.",
            code="invalid_json",
        ) from error
    except RecursionError as error:
        raise ApiError(400, "The JSON in the body is nested too deeply.", code="invalid_json") from error
    except UnicodeEncodeError as error:
        raise ApiError(400, "A string in the body contains half of a surrogate pair.", code="invalid_json") from error
    if not isinstance(parsed, dict):
        raise ApiError(400, "The body is JSON, but not an object.", code="invalid_json")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ApiError(400, f"The body contains {name}, which is not a number in JSON.", code="invalid_json")


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:  # int() takes quadratic time
        raise ApiError(400, "A number in the body is too long.", code="invalid_json")
    return int(digits)


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ApiError(400, f"The number {digits[:40]} in the body is too large.", code="invalid_json")
    return value
