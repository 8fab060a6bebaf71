"""What a scorer says of one answer. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """An answer's score, and what the scorer read out of the answer; ``reading`` is None if nothing could be read."""

    score: float
    reading: str | None
    note: str = ""
