"""Reads YAML files that people write, recipes and the server's settings, and names the nearest of known words."""

from __future__ import annotations

import datetime
import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

import yaml

from llava.errors import UsageError

# The YAML types that ``numbers_as_text`` leaves as text.
_WRITTEN = ("int", "float", "timestamp")
# What an error message calls a value of a YAML type.
_KINDS = {"int": "whole number", "float": "number", "timestamp": "date", "bool": "boolean"}
_MAX_SHOWN_CHARACTERS = 80


def parse_mapping(text: str, what: str, *, may_be_empty: bool = False, numbers_as_text: bool = False) -> dict[Any, Any]:
    """The mapping that the YAML text holds; ``what`` names the file in errors.

    ``may_be_empty``: text without any value is an empty mapping. ``numbers_as_text``: numbers and dates stay as they
    are written, so that an API key 0123 is not read as the octal number 83. Raises UsageError for text that is not
    valid YAML, for a duplicate key, and for anything other than a mapping.
    """
    values = parse_value(text, what, numbers_as_text=numbers_as_text)
    if values is None and may_be_empty:
        return {}
    if not isinstance(values, dict):
        raise UsageError(f"{what} must be a mapping of keys to values, not {say_kind(values)}.")
    return values


def parse_value(text: str, what: str, *, numbers_as_text: bool = False) -> Any:
    """The value of any kind that the YAML text holds. Raises UsageError: see ``parse_mapping``."""
    try:
        return yaml.load(text, Loader=_TextLoader if numbers_as_text else _Loader)
    except RecursionError as error:
        raise UsageError(f"{what} is nested too deeply.") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        place = f" in line {where.line + 1}" if where is not None else ""
        raise UsageError(f"{what} is not valid YAML{place}: {problem}.") from error


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, and names the line of a value that its type does not have.

    PyYAML takes the last of two equal keys, and for 2026-02-30 or ``!!int x`` raises a ValueError without a place.
    """

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
            kind = _KINDS.get(node.tag.rpartition(":")[2], "value")
            problem = f"{shorten(node.value)} is not a valid {kind}; write it in quotes if it is a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.composer.ComposerError(None, None, f"the key '{key.value}' occurs twice", key.start_mark)
            seen.add(str(key.value))
        return node


class _TextLoader(_Loader):
    """Reads numbers and dates as text."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, Any]]]] = {  # type: ignore[misc]
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _WRITTEN]
        for first, resolvers in _Loader.yaml_implicit_resolvers.items()
    }


def say_value(value: Any) -> str:
    """A YAML value as an error message quotes it: a text or a number itself, of anything else what it is."""
    if value is None or isinstance(value, bool):
        return "empty" if value is None else str(value).lower()
    return shorten(value) if isinstance(value, (str, int, float)) else say_kind(value)


def shorten(value: Any) -> str:
    """A text or a number in the form of Python's literals, on one line and of at most 80 characters."""
    shown = hex(value) if isinstance(value, int) and value.bit_length() > 10_000 else repr(value)  # repr would fail
    return shown if len(shown) <= _MAX_SHOWN_CHARACTERS else f"{shown[: _MAX_SHOWN_CHARACTERS - 4]}...{shown[-1]}"


def say_kind(value: Any) -> str:
    """What a YAML value is, as an error message calls it."""
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing", bool: "true or false"}
    names |= {bytes: "binary data", set: "a set"}
    return "a date" if isinstance(value, datetime.date) else names.get(type(value), "a number")


def name_nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: the nearest known one, if there is one, and the list of all."""
    known = list(dict.fromkeys(known))
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    meant = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"{meant} There are: {', '.join(known)}."
