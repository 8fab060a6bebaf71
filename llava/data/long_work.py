"""Progress of long work on stderr: a bar on a terminal, and elsewhere a line every half minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from llava.text import fit_line, is_terminal, write_line

_LINE_EVERY_S = 30.0
_BAR_AFTER_S = 1.0  # what is done before is not worth a bar


class LongWork:
    """Shows how far work is; a context manager.

    Args:
        name: of the work, such as "Reading data.json".
        total: how much there is to do; None if that is unknown.
        unit: what is counted: "B" for bytes, or a noun such as " rows".
        clock: seconds.
    """

    def __init__(self, name: str, total: int | None, unit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name, self.total, self.unit, self._clock = fit_line(name, 60), total, unit, clock
        self._done, self._said_at = 0, clock()
        self._bar: Any = None
        self._began_at = self._said_at

    def __enter__(self) -> LongWork:
        if is_terminal(sys.stderr):
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self.name, total=self.total, unit=self.unit, unit_scale=True, delay=_BAR_AFTER_S, leave=False
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def move_to(self, done: int) -> None:
        """Shows that ``done`` of the whole is done."""
        if self._bar is not None:
            self._bar.update(done - self._done)
        self._done = done
        if self._bar is None:
            now = self._clock()
            if now - self._said_at >= _LINE_EVERY_S:
                self._said_at = now
                write_line(f"llava: {self.name}: {self._describe(now)}")

    def _describe(self, now: float) -> str:
        took = f"after {now - self._began_at:.0f} s"
        if self.total:
            return f"{min(1.0, self._done / self.total):.0%} {took}"
        return f"{self._done:,}{self.unit} {took}"
