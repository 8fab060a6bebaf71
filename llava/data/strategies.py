"""Which rows of a source are taken: all, the first, the last, or random ones; a number of them, or a percentage.

Source: LLaVA-VL/LLaVA-NeXT@df17966 llava/train/train.py (``sampling_strategy``; a percentage is rounded up).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from llava.errors import UsageError
from llava.yaml_files import name_nearest

_NAMES = ("all", "first", "end", "random")
_AMOUNT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")


class Strategy(NamedTuple):
    """A strategy's name, and its amount as it is written, "" for ``all``."""

    name: str
    amount: str

    def choose(self, num_rows: int, rng: random.Random) -> Sequence[int]:
        """The numbers of the rows taken, in order; all of them if more are asked for than there are."""
        if self.name == "all":
            return range(num_rows)
        share = Fraction(self.amount.rstrip("%"))
        num = -int(-share * num_rows // 100) if "%" in self.amount else int(self.amount)
        indices: Sequence[int] = range(num_rows)
        if self.name == "random":
            indices = rng.sample(indices, num_rows)
        return indices[-num:] if self.name == "end" else indices[:num]


def parse_strategy(value: Any, key: str, where: str) -> Strategy:
    """The strategy that a file's ``key`` asks for. Raises UsageError; ``where`` begins its message."""
    name, _, amount = str(value).partition(":")
    if name not in _NAMES:
        raise UsageError(f"{where}: there is no {key} '{name}'.{name_nearest(name, _NAMES)}")
    if (name == "all") != (amount == "") or (amount and not _AMOUNT.fullmatch(amount)):
        raise UsageError(
            f"{where}: {key} is '{value}'. It has to be all, or first, end or random with a number or a percentage, "
            "such as first:1000 or random:10%."
        )
    if amount and not float(amount.rstrip("%")):
        raise UsageError(f"{where}: {key} is '{value}', which takes no sample. Remove the dataset.")
    if amount.endswith("%") and Fraction(amount[:-1]) > 100:
        raise UsageError(f"{where}: {key} is '{value}', but there is no more than 100% to take. A weight repeats rows.")
    return Strategy(name, amount)
