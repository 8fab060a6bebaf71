"""Reads the lines of text in an image. (A stand-in: the reader of branch t-reader takes its place.)"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Line(NamedTuple):
    """A line of text: its box is left, top, right and bottom in px; ink and ground are names of colours."""

    text: str
    box: tuple[float, float, float, float]
    ink: str
    ground: str
    score: float


class LineReader(nn.Module):
    """Finds nothing."""

    def read(self, image: Tensor) -> list[Line]:
        """The lines of an image, uint8 [3, H, W], in reading order."""
        return []
