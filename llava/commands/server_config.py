"""The file of ``llava serve --config``: every flag of the command by its name, and every limit under ``limits``."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from llava.commands.flags import RepeatedFlag
from llava.commands.quantities import read_bytes, read_pixels
from llava.errors import UsageError
from llava.serve.limits import Limits
from llava.text import fit_line

LIMITS = tuple(one.name for one in dataclasses.fields(Limits))


def apply_config(path: Path, parser: argparse.ArgumentParser) -> None:
    """Makes the file's settings, checked as the flags are, the defaults of ``parser``.

    Raises UsageError for an unknown key, with the nearest one, and for a value that its flag would not accept.
    """
    from llava.yaml_files import name_nearest, parse_mapping, shorten

    try:
        text = Path(os.path.expanduser(path)).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--config: {path} cannot be read: {reason}.") from error
    settings = parse_mapping(text, f"The configuration {path}", may_be_empty=True, numbers_as_text=True)
    flags = {action.dest: action for action in parser._actions if _is_setting(action)}
    for key, value in settings.items():
        if key == "limits":
            parser.set_defaults(**_read_limits(value, path))
        elif key in flags:
            # Not by set_defaults: the default of the positional MODEL would replace the value of --model.
            flags[key].default = _read_flag(flags[key], value, f"{path}: {key}")
        elif (name := _spell(key).removeprefix("max_")) in LIMITS:
            raise UsageError(f"{path}: '{key}' is the setting limits.{name}: write {name} under limits.")
        else:
            raise UsageError(
                f"{path}: there is no setting {shorten(str(key))}.{name_nearest(_spell(key), [*flags, 'limits'])}"
            )


def _spell(key: Any) -> str:
    """A key as settings are spelled: with _ where the flag has -."""
    return str(key).replace("-", "_")


def _is_setting(action: argparse.Action) -> bool:
    return action.dest not in ("help", "config", argparse.SUPPRESS, *LIMITS) and action.option_strings != []


def _read_limits(limits: Any, path: Path) -> dict[str, Any]:
    from llava.yaml_files import name_nearest, say_kind

    if limits is None:  # every line below it is commented out
        return {}
    if not isinstance(limits, Mapping):
        raise UsageError(f"{path}: limits must be a mapping of names to values, not {say_kind(limits)}.")
    for name in limits:
        if name not in LIMITS:
            nearest = name_nearest(_spell(name).removeprefix("max_"), LIMITS)
            raise UsageError(f"{path}: there is no setting limits.{fit_line(str(name), 80)}.{nearest}")
    return {name: _read_text(find_kind(name), value, f"{path}: limits.{name}") for name, value in limits.items()}


def _read_flag(action: argparse.Action, value: Any, where: str) -> Any:
    """The value that the flag would have. Raises UsageError, as the flag would for its argument."""
    from llava.yaml_files import say_value, shorten

    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is {say_value(value)}; it has to be true or false.")
        return value
    if isinstance(action, RepeatedFlag):
        return [_read_text(str, one, where) for one in (value if isinstance(value, list) else [value])]
    read = _read_text(action.type if callable(action.type) else str, value, where)
    if action.choices is not None and read not in action.choices:
        raise UsageError(f"{where} is {shorten(read)}; it has to be one of {', '.join(map(str, action.choices))}.")
    return read


def _read_text(kind: Callable[[str], Any], value: Any, where: str) -> Any:
    from llava.yaml_files import say_value, shorten

    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        hint = " Write it in quotes." if kind is str and isinstance(value, bool) else ""
        raise UsageError(f"{where} is {say_value(value)}; it has to be a text or a number.{hint}")
    try:
        return kind(str(value))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{where}: {error}.") from error
    except ValueError as error:
        raise UsageError(f"{where} is {shorten(value)}; it has to be {_KINDS.get(kind, 'a number')}.") from error


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}


def find_kind(limit: str) -> Callable[[str], Any]:
    """The function that reads a value of this limit from text."""
    if limit.endswith("_pixels"):
        return read_pixels
    return read_bytes if limit.endswith("_bytes") else float if limit.endswith("_s") else int


class MovedFlag(argparse.Action):
    """A former flag, refused with the name of the setting that replaced it; hidden from help."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, key: str, **_: Any) -> None:
        super().__init__(
            option_strings, argparse.SUPPRESS, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        self.key = key

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: Any = None
    ) -> NoReturn:
        parser.error(f"{option_string} is a setting of --config server.yaml: {self.key}")
