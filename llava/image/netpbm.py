"""Reads PGM and PPM files whose greatest value is not 255.

Pillow reads them value by value, which takes minutes for a photo, keeps only 8 bits of colours, and stretches grey over
16 bits by the greatest value. It reads bitmaps, 8-bit files and PFM well, so these are not handled here.

Source: https://netpbm.sourceforge.net/doc/pgm.html, ppm.html.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_HEAD = re.compile(rb"P([2356])" + rb"(?:\s|#[^\r\n]*[\r\n])+(\d{1,9})" * 3 + rb"(?:\s|(?=#))")
_COMMENT = re.compile(rb"#[^\r\n]*")
_NO_VALUE = re.compile(rb"[^0-9\s]|[0-9]{7}")


class Values(NamedTuple):
    """The values of a file, up to where it is cut off."""

    rows_HWC: npt.NDArray[np.uint16]
    """The complete rows."""
    height: int
    """The number of rows by the header."""
    greatest: int
    """The value that is white."""


def read_values(data: bytes) -> Values | None:
    """The values of a PGM or PPM; None for files that Pillow reads well. Raises ValueError without a complete row."""
    match = _HEAD.match(data)
    if match is None:
        return None
    is_text = match[1] in b"23"
    width, height, greatest = (int(match[i]) for i in (2, 3, 4))
    if not 0 < greatest < 2**16:
        raise ValueError("the greatest value has more than 16 bits")
    if greatest == 255 and not is_text:
        return None
    num_channels = 1 if match[1] in b"25" else 3
    count = width * height * num_channels
    if is_text:
        found = _read_text(data[match.end() :], count, greatest)
    else:
        kind = np.dtype(">u2" if greatest > 255 else "u1")
        num_found = min(count, (len(data) - match.end()) // kind.itemsize)
        found = np.frombuffer(data, dtype=kind, count=num_found, offset=match.end()).astype(np.uint16)
    num_rows = found.size // (width * num_channels)
    if num_rows < 1:
        raise ValueError("no row is whole")
    return Values(found[: num_rows * width * num_channels].reshape(num_rows, width, num_channels), height, greatest)


def _read_text(body: bytes, count: int, greatest: int) -> npt.NDArray[np.uint16]:
    body = _COMMENT.sub(b" ", body)
    other = _NO_VALUE.search(body)
    values = np.fromstring(body[: other.start()] if other else body, dtype=np.uint32, sep=" ")[:count]
    if other and values.size < count:
        raise ValueError("something that is no value")
    if values.size and values.max() > greatest:
        raise ValueError("a value above the greatest")
    return values.astype(np.uint16)
