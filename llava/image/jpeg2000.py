"""Corrects what Pillow's JPEG 2000 decoder does to values that do not have 8 bits, where that is possible.

Values with fewer bits are shifted up and the low bits left 0, so white is 128 to 254. Colour values with more bits are
rounded up when bits are dropped, and those that overflow a byte become 0.

Source: ITU-T T.800 annex A.5.1 (SIZ); PIL 12.3 src/libImaging/Jpeg2KDecode.c.
"""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image

from llava.errors import BadImage

_SIZ = b"\xff\x4f\xff\x51"
_MOST_COMPONENTS = 16_384


def read_bits(data: bytes) -> tuple[int, ...]:
    """The bits per value of each component; empty if the codestream does not say."""
    at = data.find(_SIZ)
    if at < 0 or len(data) < at + 42:
        return ()
    (count,) = struct.unpack_from(">H", data, at + 40)
    if not 0 < count <= _MOST_COMPONENTS:
        return ()
    return tuple((size & 0x7F) + 1 for size in data[at + 42 : at + 42 + 3 * count : 3])


def spread(image: Image.Image, bits: tuple[int, ...]) -> Image.Image:
    """The decoded image with components of fewer than 8 bits stretched to 0..255."""
    num_bands = len(image.getbands())
    if len(bits) < num_bands or all(each >= 8 for each in bits[:num_bands]) or image.mode not in _BYTES:
        return image
    table: list[int] = []
    for each in bits[:num_bands]:
        if each >= 8:
            table += range(256)
        elif image.mode == "P":  # palette indices, not brightness
            table += [value >> (8 - each) for value in range(256)]
        else:
            white = (2**each - 1) << (8 - each)
            table += [min(255, value * 255 // white) for value in range(256)]
    return image.point(table)


_BYTES = ("L", "LA", "P", "RGB", "RGBA", "YCbCr", "CMYK")


def refuse_overflow(image: Image.Image, bits: tuple[int, ...], name: str) -> None:
    """Raises BadImage if the brightest values may have become 0, which cannot be told from black."""
    if all(each <= 8 for each in bits) or len(image.getbands()) == 1:
        return
    extrema: Any = image.getextrema()
    if any(least == 0 and each > 8 for (least, _), each in zip(extrema, bits, strict=False)):
        raise BadImage(
            f"{name} is a JPEG2000 in colours of {max(bits)} bits, of which the decoder mistakes white for black. "
            "Convert it to 8-bit PNG or to 16-bit TIFF."
        )
