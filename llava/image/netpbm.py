"""PGM and PPM whose greatest value is not 255: their values, read at once.

Pillow reads them value by value, which takes minutes for a photo, keeps 8 bits of colours, and spreads grey over 16
bits by the greatest value. Bitmaps, 8-bit files and PFM it reads well, so they are none of this file's business.

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
    """What a file holds, as far as it goes."""

    rows_HWC: npt.NDArray[np.uint16]
    """Its rows of which all values are there."""
    height: int
    """How many rows there should be."""
    greatest: int
    """The value that is white."""


def read_values(data: bytes) -> Values | None:
    """The values of a PGM or PPM; None for what Pillow reads well. Raises ValueError where there is no whole row."""
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
