"""Typed values from YAML: fills a dataclass from a mapping, and refuses unknown keys with the nearest known one."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from llava.errors import UsageError
from llava.yaml_files import name_nearest, parse_value, say_kind, say_value, shorten

T = TypeVar("T")


def build(kind: type[T], values: Any, where: str) -> T:
    """An instance of that dataclass, filled from a mapping, converted and checked by its type hints.

    Args:
        where: what messages begin with, such as "Stage 'next'".

    Raises:
        UsageError: a key is unknown or missing, or a value has the wrong type; the key is named.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{where} must be a mapping of keys to values, not {say_kind(values)}.")
    types_of_all = typing.get_type_hints(kind)
    hints = {each.name: types_of_all[each.name] for each in dataclasses.fields(typing.cast(Any, kind))}
    for name in values:
        if name not in hints:
            raise UsageError(f"{where} has the unknown key {shorten(str(name))}.{name_nearest(str(name), hints)}")
    missing = [name for name in _required_keys(kind) if name not in values]
    if missing:
        raise UsageError(f"{where} lacks the key '{missing[0]}'.")
    return kind(**{name: _convert(value, hints[name], f"{where}: {name}") for name, value in values.items()})


def list_keys(kind: type) -> list[str]:
    """The keys of that dataclass's mapping."""
    return [each.name for each in dataclasses.fields(typing.cast(Any, kind))]


def _required_keys(kind: Any) -> list[str]:
    return [
        each.name
        for each in dataclasses.fields(kind)
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    ]


def _convert(value: Any, hint: Any, where: str) -> Any:
    """A YAML value, converted to the type of a field. Raises UsageError."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if type(None) in inner:
            rest = [kind for kind in inner if kind is not type(None)]
            return None if value is None else _convert(value, typing.Union[tuple(rest)], where)  # noqa: UP007
        if str in inner:  # text, or a list of texts
            return value if isinstance(value, str) else _convert(value, next(k for k in inner if k is not str), where)
        return _convert_union(value, inner, where)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type, hint)):  # built before
            return value
        return build(typing.cast(type, hint), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(
                f"{where} must be a list, not {say_kind(value)}."
                + (f" Write [{value}]." if isinstance(value, str) else "")
            )
        wanted = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(value) != len(wanted):
            raise UsageError(f"{where} must have {len(wanted)} items, not {len(value)}.")
        return tuple(
            _convert(item, each, f"{where}[{i}]") for i, (item, each) in enumerate(zip(value, wanted, strict=True))
        )
    if origin is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be a mapping of names to values, not {say_kind(value)}.")
        return {str(key): _convert(item, inner[1], f"{where}.{key}") for key, item in value.items()}
    return _convert_plain(value, hint, where)


def _convert_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    """An instance of the first dataclass whose required keys are all present. Raises UsageError."""
    for kind in kinds:
        if isinstance(value, dict) and set(_required_keys(kind)) <= set(value):
            return build(kind, value, where)
    raise UsageError(f"{where} needs the keys {', or '.join(' and '.join(_required_keys(kind)) for kind in kinds)}.")


def _convert_plain(value: Any, hint: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):  # PyYAML reads 1e-3, without a point, as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            value = float(value)
    fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    if not fits or (hint is float and not math.isfinite(value)):
        names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
        raise UsageError(f"{where} is {say_value(value)} and must be {names[hint]}.")
    return value


def check_word(word: str, known: Iterable[str], fault: str) -> None:
    """Raises UsageError, with the nearest known word, if ``word`` is not one of ``known``."""
    known = list(known)
    if word not in known:
        raise UsageError(f"{fault} '{word}'.{name_nearest(word, known)}")


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The values of a YAML file with ``key=value`` replaced; ``lora.rank=8`` is a key of a mapping inside it.

    The value is read as YAML, so that ``epochs=2``, ``train=[projector]`` and ``lora=null`` mean what they would mean
    in the file. Whether a key exists is checked afterwards, by ``build``.

    Raises:
        UsageError: an override is not of the form ``key=value``, is not valid YAML, or names a key inside a value.
    """
    result = dict(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not all(path.split(".")):
            raise UsageError(f"'{override}' is not a setting of the recipe; write key=value, such as lr=1e-5.")
        value = parse_value(text, f"The value of {path}")
        *outer, last = path.split(".")
        place = result
        for depth, key in enumerate(outer):
            inner = place.get(key)
            if inner is not None and not isinstance(inner, dict):
                raise UsageError(f"'{override}': {'.'.join(outer[: depth + 1])} is {inner!r}, which has no keys.")
            place[key] = dict(inner or {})
            place = place[key]
        place[last] = value
    return result
