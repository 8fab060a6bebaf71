"""A request's body: read within its limits, and parsed as strictly as JSON is defined.

Of a key that stands twice in an object the last value counts, as JSON parsers have it.
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

# Smaller bodies are parsed faster than a thread is asked.
_SMALL_BYTES = 256 * 1024
# More than any integer of a request's has.
_MAX_DIGITS = 40


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object in the body.

    Raises ApiError: 415 for another content type or a compressed body, 413 over ``body_bytes``, 408 after ``body_s``,
    400 over ``values`` and for anything but a JSON object in UTF-8.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise ApiError(
            415, f"The content type is '{kind[:80]}'. Send JSON as 'Content-Type: application/json'.", code="not_json"
        )
    if request.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise ApiError(415, "The body is compressed. Send it as it is, without Content-Encoding.", code="compressed")
    try:
        body = await asyncio.wait_for(_read(request, limits), limits.body_s)
    except asyncio.TimeoutError as error:
        raise limit_exceeded(
            "body_s", limits.body_s, "The body did not come in time", "Send it faster.", status=408
        ) from error
    # While millions of values are parsed and checked nothing else runs, and they take gigabytes.
    num_values = body.count(b",") + 1
    if num_values > limits.values:
        raise limit_exceeded("values", limits.values, f"The body may hold {num_values:,} values", "Send fewer.")
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
            "Send fewer or smaller images, or name them by URL.",
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
        raise ApiError(400, f"The body is not UTF-8: see byte {error.start:,}.", code="invalid_json") from error
    try:
        parsed = json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float, parse_int=_parse_int)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(parsed, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise ApiError(
            400,
            f"The body is not JSON: see line {error.lineno}, column {error.colno}.",
            code="invalid_json",
        ) from error
    except RecursionError as error:
        raise ApiError(400, "The body's JSON is nested too deeply.", code="invalid_json") from error
    except UnicodeEncodeError as error:
        raise ApiError(400, "A text in the body holds half of a surrogate pair.", code="invalid_json") from error
    if not isinstance(parsed, dict):
        raise ApiError(400, "The body is JSON, but not an object.", code="invalid_json")
    return parsed


def _refuse_constant(name: str) -> None:
    raise ApiError(400, f"The body holds {name}, which is no number in JSON.", code="invalid_json")


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:  # the time that it takes grows with their square
        raise ApiError(400, "A number in the body is too long.", code="invalid_json")
    return int(digits)


def _parse_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ApiError(400, f"The number {digits[:40]} in the body is too large.", code="invalid_json")
    return value
