"""Reads the EXIF orientation of an image file from the places where Pillow's ``ImageOps.exif_transpose`` finds it.

These are an EXIF block, ImageMagick's raw EXIF profile in a PNG's text, or XMP if EXIF has no such tag. Only this one
tag is read and nothing else is decompressed, so a block that claims a million entries costs nothing. A damaged block is
ignored.

Source: EXIF 3.0 section 4.6; TIFF 6.0 section 2; XMP specification part 2, tiff:Orientation; PIL/Image.py getexif.
"""

from __future__ import annotations

import re
import struct
from fractions import Fraction

from PIL import Image

ORIENTATION_TAG = 0x0112

# The struct format of each TIFF type that is one number. Pillow accepts all of them for the orientation.
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
_RATIONALS = {5: "II", 10: "ii"}
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# A raw profile is hexadecimal text, which takes more than twice the 64 KiB of the largest EXIF block.
_MOST_RAW_CHARACTERS = 2**20

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image turned upright, according to its EXIF orientation; orientation 1 returns it unchanged."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def read_orientation(exif: bytes | None = None, xmp: bytes | None = None, raw_profile: bytes | None = None) -> int:
    """The orientation, 1 to 8, from these metadata blocks of one file; 1 if they have none or an invalid one.

    EXIF with the tag takes precedence, even if its value is invalid; a raw profile counts only without an EXIF block.
    """
    if not exif and raw_profile:
        exif = _unpack_raw_profile(raw_profile)
    found = find_tag(exif) if exif else None
    if found is None and xmp:
        match = _XMP.search(xmp)
        found = int(match[1]) if match else None
    return int(found) if found in _TURNS else 1


def find_tag(exif: bytes, tag: int = ORIENTATION_TAG) -> float | Fraction | None:
    """The first number of ``tag`` in the first directory of an EXIF block; None if it is missing or unreadable."""
    tiff = exif
    while tiff.startswith(b"Exif\0\0"):
        tiff = tiff[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or tiff[2:4] not in (b"*\0", b"\0*"):
        return None
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (num_entries,) = struct.unpack_from(order + "H", tiff, start)
        for at in range(start + 2, min(start + 2 + 12 * num_entries, len(tiff)), 12):
            found, kind, count = struct.unpack_from(order + "HHI", tiff, at)
            if found == tag:
                return read_number(tiff, order, kind, count, at + 8, "I") if count else None
    except (struct.error, OverflowError, ValueError):
        pass
    return None


def read_number(data: bytes, order: str, kind: int, count: int, at: int, offset_letter: str) -> float | Fraction | None:
    """The first number of a TIFF entry whose value field is at ``at``; None for a non-numeric type."""
    letters = _NUMBERS.get(kind) or _RATIONALS.get(kind)
    if letters is None:
        return None
    if struct.calcsize("=" + letters) * count > struct.calcsize("=" + offset_letter):
        (at,) = struct.unpack_from(order + offset_letter, data, at)
    values = struct.unpack_from(order + letters, data, at)
    if len(values) == 1:
        number: float = values[0]
        return number
    return Fraction(values[0], values[1]) if values[1] else None


def _unpack_raw_profile(text: bytes) -> bytes | None:
    """The EXIF block in ImageMagick's text: an empty line, its name, its length, then hexadecimal lines."""
    lines = text[:_MOST_RAW_CHARACTERS].split(b"\n", 3)
    try:
        return bytes.fromhex(lines[3].decode("ascii")) if len(lines) == 4 else None
    except ValueError:
        return None
