"""HTTP errors in OpenAI's format, and which exception becomes which status (``to_api_error``).

Clients see only messages written in this package: never the text of another library's exception, a memory address or
a path on this machine.
"""

from __future__ import annotations

import logging
from typing import Any

from llava.errors import (
    BadImage,
    BadSchema,
    ContextTooLong,
    EngineClosed,
    EngineFailed,
    EngineFull,
    FetchError,
    LlavaError,
    RequestTooLarge,
    UsageError,
)

LOG = logging.getLogger("llava.serve")
RETRY_S = 1

# The server's names of the limits of a single image, by their names in ``llava.image.source``.
_IMAGE_LIMITS = {
    "max_bytes": "image_bytes",
    "max_pixels": "image_pixels",
    "max_side_px": "image_side_px",
    "timeout_s": "fetch_s",
    "max_redirects": "fetch_redirects",
}
_TYPES = {401: "authentication_error", 429: "rate_limit_error", 503: "service_unavailable_error"}


class ApiError(LlavaError):
    """An error response: its status, message and headers.

    ``param`` names the field at fault, such as ``messages.0.content.1``; ``code`` is for programs. ``preface`` is
    prepended to the message for clients that recognize an error by its wording.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        preface: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self._preface = status, param, code, preface
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("Retry-After", str(RETRY_S))

    @property
    def message(self) -> str:
        """The message in the response, with its preface."""
        said = str(self)
        return f"{self._preface}{said[:1].lower()}{said[1:]}" if self._preface else said

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body of the response."""
        kind = _TYPES.get(self.status) or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def limit_exceeded(
    name: str, limit: float, value: str, remedy: str, *, param: str | None = None, status: int = 400
) -> ApiError:
    """The error for a value over the limit ``name``. ``value``: a full sentence without its full stop."""
    return ApiError(
        status, f"{value}; the limit {name} is {_show(limit)}. {remedy}", param=param, code=f"{name}_limit_exceeded"
    )


def _show(number: float) -> str:
    """The number with all its digits, and without a decimal point if it is whole."""
    return f"{int(number) if number == int(number) else number:,}"


def context_length_exceeded(limit_tokens: int, said: str, param: str | None) -> ApiError:
    """The error (400) for a prompt that exceeds the context length. ``limit_tokens``: 0 if unknown.

    The message starts with OpenAI's wording, by which LiteLLM, LangChain and others recognize this error.
    """
    preface = f"This model's maximum context length is {limit_tokens} tokens. However, " if limit_tokens else ""
    return ApiError(400, said, param=param, code="context_length_exceeded", preface=preface)


def model_loading() -> ApiError:
    """The error (503) while the model is still loading."""
    return ApiError(503, "The model is still loading. Try again shortly.", code="loading")


def to_api_error(error: BaseException, request_id: str, param: str | None = None) -> ApiError:
    """The HTTP error for an exception. Server faults are also logged, with the request id."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ContextTooLong):
        return context_length_exceeded(error.limit_tokens, str(error), param)
    if isinstance(error, RequestTooLarge):
        return ApiError(400, str(error), param=param, code="request_too_large")
    if isinstance(error, BadImage):
        code = "image_fetch_failed" if isinstance(error, FetchError) else "invalid_image"
        limit = f" The limit is {_IMAGE_LIMITS[error.limit]}." if error.limit is not None else ""
        return ApiError(400, f"{error}{limit}", param=param, code=code)
    if isinstance(error, BadSchema):
        return ApiError(400, str(error), param="response_format", code="invalid_value")
    if isinstance(error, UsageError):
        return ApiError(400, str(error), param=param, code="invalid_value")
    if isinstance(error, EngineFull):
        return ApiError(429, str(error), code="overloaded")
    if isinstance(error, EngineClosed):
        return ApiError(503, str(error), code="engine_unavailable")
    if isinstance(error, EngineFailed) and error.status in (400, 404, 413, 422):
        is_overflow = "maximum context length" in str(error) or "exceeds the available context size" in str(error)
        code = "context_length_exceeded" if is_overflow else "engine_refused"
        status = 413 if error.status == 413 and not is_overflow else 400
        return ApiError(status, str(error), param=param, code=code)
    LOG.error("request %s failed", request_id, exc_info=error)
    if isinstance(error, EngineFailed):
        return ApiError(502, str(error), code="engine_failed")
    if isinstance(error, LlavaError):
        return ApiError(500, str(error), code="engine_failed")
    return ApiError(500, f"The server failed on this request. See its log for {request_id}.", code="internal")
