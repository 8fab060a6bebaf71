"""Lines of text beside the keys of a legend, without what the reader took a key for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llava.model.lexical.object_finder import Box, Drawn

if TYPE_CHECKING:
    from llava.model.lexical.chart_reading import ReadLine

# What a key is read as where it touches a text.
_KEY_SIGNS = "m_-–—=•*[]|/~"


class _Text(NamedTuple):
    text: str
    box: Box


def _drop_key(line: ReadLine, end: float) -> str:
    """The text of a line without what a key was read as, which reaches to ``end``: a short word, or a sign or two."""
    text = line.text.strip()
    first, _, rest = text.partition(" ")
    if rest and (len(first) <= 2 or not any(map(str.isalnum, first))):
        return rest
    covered = (end - line.box[0]) / max(1e-6, line.box[2] - line.box[0]) * len(text)
    return text[1:] if covered >= 0.6 and len(text) > 3 and text[0] in _KEY_SIGNS else text


def free_of_keys(lines: Sequence[ReadLine], keys: Sequence[Drawn]) -> list[ReadLine]:
    """The lines, but where a key of a legend was read as letters or lies within one, it begins after the key."""
    freed: list[ReadLine] = []
    for line in lines:
        left, top, right, bottom = line.box
        for key in keys:
            is_level = top <= (key.box[1] + key.box[3]) / 2 <= bottom
            if is_level and key.box[0] - (bottom - top) <= left < key.box[2] < right - 0.3 * (bottom - top):
                line = _Text(_drop_key(line, key.box[2]), (key.box[2] + 1.0, top, right, bottom))
                break
        freed.append(line)
    return freed
