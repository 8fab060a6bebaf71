"""Methods that research code overrides with the signatures of older versions of Transformers, called as they can be."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def takes(method: Callable[..., Any], name: str) -> bool:
    """Whether the method can be called with that keyword."""
    parameters = inspect.signature(method).parameters.values()
    return any(each.name == name or each.kind is each.VAR_KEYWORD for each in parameters)


def without(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The method, called without that keyword."""

    def call(*arguments: Any, **named: Any) -> Any:
        named.pop(name, None)
        return method(*arguments, **named)

    return call
