"""Reads from a HEIC's container how its decoder turns the image.

The decoder applies the rotation and mirroring properties of the primary item silently, so they are read here.

Source: ISO/IEC 23008-12 (HEIF) 6.5.10 irot, 6.5.12 imir; ISO/IEC 14496-12 pitm, iprp, ipco, ipma.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_MOST_BOXES = 65_536


class Turn(NamedTuple):
    """Quarter turns, and whether the image is mirrored as well."""

    quarters: int = 0
    is_mirrored: bool = False


def find_turn(data: bytes) -> Turn:
    """How the decoder turns the primary image: not at all if the container is damaged or has no such property."""
    try:
        return _read_turn(data)
    except (struct.error, IndexError):
        return Turn()


def _read_turn(data: bytes) -> Turn:
    meta = _find(data, 0, len(data), b"meta")
    if meta is None:
        return Turn()
    inside = meta[0] + 4, meta[1]
    primary, properties = _find(data, *inside, b"pitm"), _find(data, *inside, b"iprp")
    if primary is None or properties is None:
        return Turn()
    (item,) = struct.unpack_from(">I" if data[primary[0]] else ">H", data, primary[0] + 4)
    contents, owners = _find(data, *properties, b"ipco"), _find(data, *properties, b"ipma")
    if contents is None or owners is None:
        return Turn()
    all_of_them = list(_boxes(data, *contents))
    turn = Turn()
    for index in _read_indices(data, owners[0], item):
        if not 0 < index <= len(all_of_them):
            continue
        kind, start, _ = all_of_them[index - 1]
        if kind == b"irot":
            turn = turn._replace(quarters=data[start] & 3)
        elif kind == b"imir":
            turn = turn._replace(is_mirrored=True)
    return turn


def _read_indices(data: bytes, at: int, item: int) -> list[int]:
    """The properties of an item, as 1-based indices into the list of all properties."""
    version, flags = data[at], data[at + 3]
    name, index = (">I" if version else ">H"), (">H" if flags & 1 else ">B")
    (num_items,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    for _ in range(min(num_items, _MOST_BOXES)):
        (owner,) = struct.unpack_from(name, data, at)
        at += struct.calcsize(name)
        count = data[at]
        at += 1
        if owner == item:
            return [
                struct.unpack_from(index, data, at + i * struct.calcsize(index))[0] & (0x7FFF if flags & 1 else 0x7F)
                for i in range(count)
            ]
        at += count * struct.calcsize(index)
    return []


def _find(data: bytes, at: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    """The start and end of the content of the first box of that kind; None if there is none."""
    return next(((start, stop) for kind, start, stop in _boxes(data, at, end) if kind == wanted), None)


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Each box from ``at`` on: its kind, and the start and end of its content."""
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if size == 0 else at + size
        if not start <= stop <= end:
            return
        yield kind, start, stop
        at = stop
