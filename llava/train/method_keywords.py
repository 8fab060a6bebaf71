"""Which keywords a method takes: subclasses override methods with the signatures of other versions of Transformers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def takes(method: Callable[..., Any], name: str) -> bool:
    """Whether a method can be called with that keyword."""
    parameters = inspect.signature(method).parameters.values()
    return any(each.name == name or each.kind is each.VAR_KEYWORD for each in parameters)


def without(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The method, called without that keyword, and without positional arguments for which it has no place."""
    parameters = inspect.signature(method).parameters.values()
    takes_all = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    places = sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)

    def call(*arguments: Any, **named: Any) -> Any:
        named.pop(name, None)
        return method(*(arguments if takes_all else arguments[:places]), **named)

    return call
