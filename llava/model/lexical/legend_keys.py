"""Lines of text beside the keys of a legend, without what the reader took a key for.

A key that is found on the image is taken out of its line, and what is left is read again; where only the line is known,
letters that lie where the key is are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from llava.model.lexical.flat_fills import Bools, Pixels
from llava.model.lexical.ink import find_ground
from llava.model.lexical.object_finder import Box, Drawn
from llava.model.lexical.turned_words import Read, TurnedWord, read_words

if TYPE_CHECKING:
    from llava.model.lexical.chart_reading import ReadLine

# What a key is read as where it touches a text.
_KEY_SIGNS = "m_-–—=•*[]|/~"

# Ink differs so much from its ground, and is coloured if its channels differ by this share of that.
_NOT_GROUND, _COLOURED = 50, 0.12
# A key is so broad at least and at most, as a part of the height of the line that it stands in.
_LEAST_KEY, _MOST_KEY = 0.35, 4.5
# More lines beside keys are no legend.
_MOST_ENTRIES = 24
_PAPER = np.full(3, 255.0)


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


def part_from_keys(canvas: Tensor, lines: Sequence[Any], keys: Sequence[Drawn], read: Read) -> list[Any]:
    """The lines of a chart, with those that begin with a key read again without it.

    Args:
        canvas: uint8 [3, H, W].
        keys: of the legend that were found as fills. Others differ from their texts by having a colour.
        read: the reader of lines.
    """
    planes = np.ascontiguousarray(canvas.cpu().numpy())
    parts: list[tuple[int, TurnedWord]] = []
    for i, line in enumerate(lines):
        parts += [(i, word) for word in _find_texts(planes, line.box, keys)]
    if not 0 < len(parts) <= _MOST_ENTRIES:
        return list(lines)
    size = float(np.median([lines[i].box[3] - lines[i].box[1] for i, _ in parts]))
    texts = read_words(canvas, _PAPER, [word for _, word in parts], size, read)
    again: dict[int, list[Any]] = {}
    for (i, word), text in zip(parts, texts, strict=True):
        if text:
            x0, _, x1, _ = word.find_box()
            box = (x0, lines[i].box[1], x1, lines[i].box[3])
            again.setdefault(i, []).append(lines[i]._replace(text=_keep_spaces(text, lines[i].text), box=box))
    return [each for i, line in enumerate(lines) for each in again.get(i, [line])]


def _keep_spaces(text: str, before: str) -> str:
    """The text as the last words of what was read before, where both are the same letters; else as it is."""
    letters = "".join(text.split()).lower()
    for start in range(len(before)):
        if (not start or before[start - 1] == " ") and "".join(before[start:].split()).lower() == letters:
            return before[start:].strip()
    return text


def _find_texts(planes: Pixels, box: Box, keys: Sequence[Drawn]) -> list[TurnedWord]:
    """The texts in a line's box without the keys beside them; none where there is no key, or nothing but keys."""
    height = box[3] - box[1]
    top, bottom = max(0, int(box[1])), min(planes.shape[1], int(box[3]) + 1)
    reach = min(int(box[0]), int(2 * height))
    left, right = int(box[0]) - reach, min(planes.shape[2], int(box[2]) + 1)
    part = planes[:, top:bottom, left:right].astype(np.int16)
    if part.shape[1] < 5 or part.shape[2] - reach < height:
        return []
    ground = find_ground(part[:, :, reach:])
    if ground.max() - ground.min() > _NOT_GROUND:  # a label on a fill has no key
        return []
    away = np.abs(part - ground[:, None, None]).max(0)
    is_ink = away > _NOT_GROUND
    is_text = is_ink & (part.max(0) - part.min(0) <= _COLOURED * away)
    for key in keys:
        x0, y0, x1, y1 = (int(edge) for edge in key.box)
        is_text[max(0, y0 - 1 - top) : max(0, y1 + 2 - top), max(0, x0 - 1 - left) : max(0, x1 + 2 - left)] = False
    is_key = is_ink.any(0) & ~is_text.any(0)
    words = []
    for start, end in _find_bounds(is_key, is_text.any(0), reach, height):
        rows, columns = np.nonzero(is_text[:, start:end])
        if len(rows):
            pixels = np.stack((columns + start + left, rows + top), 1).astype(np.float64)
            words.append(TurnedWord(pixels, 0.0, 1.0, ground))
    return words


def _find_bounds(is_key: Bools, is_text: Bools, reach: int, height: float) -> list[tuple[int, int]]:
    """From where to where the texts reach that stand right of keys; none where a text has no key, or a key no text."""
    changes = np.flatnonzero(np.diff(np.concatenate(([False], is_text, [False])).astype(np.int8)))
    spans = list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))
    bounds: list[tuple[int, int]] = []
    before = 0
    for start, end in spans:
        if end <= reach:  # it stands beside the line
            before = end
            continue
        covered = np.flatnonzero(is_key[before:start])
        breadth = int(covered[-1] - covered[0]) + 1 if len(covered) else 0
        if breadth >= _LEAST_KEY * height:
            if breadth > _MOST_KEY * height:
                return []
            bounds.append((start, end))
        elif bounds:
            bounds[-1] = (bounds[-1][0], end)
        else:
            return []
        before = end
    inside = is_key[reach : bounds[0][0]] if bounds else is_key[:0]
    return bounds if len(bounds) > 1 or inside.sum() >= _LEAST_KEY * height else []
