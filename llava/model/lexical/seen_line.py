"""What a description needs of a line of text: its words, where they stand and their colours."""

from __future__ import annotations

from typing import Protocol

Box = tuple[float, float, float, float]


class SeenLine(Protocol):
    """A line of text: ``box`` is (left, top, right, bottom) in px; ``ink`` and ``ground`` are names of colours."""

    @property
    def text(self) -> str:
        """What was read."""
        ...

    @property
    def box(self) -> Box:
        """Where it stands."""
        ...

    @property
    def ink(self) -> str:
        """The colour of its letters."""
        ...

    @property
    def ground(self) -> str:
        """The colour behind them."""
        ...
