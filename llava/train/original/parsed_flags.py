"""The flags of the original's training command, parsed by its own dataclasses.

Source: haotian-liu/LLaVA@c121f04 and LLaVA-VL/LLaVA-NeXT@df17966, both llava/train/train.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from transformers import HfArgumentParser

from llava.errors import UsageError
from llava.train.original.argument_classes import (
    NEXT_DEFAULTS,
    NEXT_FLAGS,
    DataArguments,
    ModelArguments,
    TrainingArguments,
)

_KINDS = (ModelArguments, DataArguments, TrainingArguments)
_NOT_GIVEN = object()


@dataclass(frozen=True)
class Flags:
    """A command line of either repository.

    Attributes:
        values: the value of every flag by its name, the repository's default where it is not given.
        defaults: every flag's default.
        given: the names of the flags on the command line.
        names: the flags of each dataclass, in the order of the dataclasses.
        repository: "llava-next" if a flag is given that only LLaVA-NeXT has, else "llava-1.5".
    """

    values: dict[str, Any]
    defaults: dict[str, Any]
    given: frozenset[str]
    names: tuple[frozenset[str], ...]
    repository: str

    def make(self, kind: Any, position: int) -> Any:
        """An instance of the dataclass at that position of ``names``."""
        return kind(**{name: self.values[name] for name in self.names[position]})


def read_flags(words: Sequence[str], kinds: Sequence[Any] = _KINDS) -> Flags:
    """The flags among the words of a command line.

    Args:
        kinds: the dataclasses for the model, the data and the training, or subclasses with further fields.

    Raises:
        UsageError: a flag is unknown, which names the nearest known one, or its value has the wrong type.
    """
    parser = _build_parser(tuple(kinds))
    fields = [[each for each in dataclasses.fields(kind) if each.init] for kind in kinds]
    defaults = {each.name: _read_default(each) for group in fields for each in group}
    namespace, rest = parser.parse_known_args(words, argparse.Namespace(**dict.fromkeys(defaults, _NOT_GIVEN)))
    for word in rest:
        if not word.startswith("--"):
            raise UsageError(f"'{word}' belongs to no flag. A value with blanks needs quotation marks.")
        flag = word.partition("=")[0]
        near = difflib.get_close_matches(flag.strip("-").replace("-", "_"), defaults, n=1, cutoff=0.5)
        raise UsageError(f"There is no flag {flag}.{f' Did you mean --{near[0]}?' if near else ''}")
    given = {name: value for name, value in vars(namespace).items() if value is not _NOT_GIVEN}
    repository = "llava-1.5"
    if given.keys() & NEXT_FLAGS:
        repository = "llava-next"
        defaults |= NEXT_DEFAULTS
    names = tuple(frozenset(each.name for each in group) for group in fields)
    return Flags({**defaults, **given}, defaults, frozenset(given), names, repository)


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        sentence = re.sub(r"^argument (--\w+)/\S+:", r"\1:", message).removesuffix(".")
        raise UsageError(f"{sentence[:1].upper()}{sentence[1:]}.")


@functools.lru_cache(maxsize=1)
def _build_parser(kinds: tuple[Any, ...]) -> _Parser:
    return _Parser(kinds, prog="python -m llava.train.train")


def _read_default(each: dataclasses.Field[Any]) -> Any:
    if each.default_factory is not dataclasses.MISSING:
        return each.default_factory()
    return None if each.default is dataclasses.MISSING else each.default
