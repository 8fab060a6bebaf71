"""Identifies an image format by a file's signature; TGA, which has none, by its footer, name or size."""

from __future__ import annotations

import re
import struct

from llava.image import misfits


def sniff(data: bytes, name: str = "") -> str | None:
    """The format of a file by its signature; None if it is unknown. ``name`` is used for TGA only."""
    if _is_targa(data, name):
        return "TGA"
    for start, format in _SIGNATURES:
        if data.startswith(start):
            return None if format == "TIFF" and misfits.identify(data) is not None else format
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:4] in (b"\0\0\1\0", b"\0\0\2\0") and data[4:6] != b"\0\0":
        return "ICO"
    if data[4:8] == b"ftyp":
        return _sniff_brands(data)
    if re.match(rb"P(?:[1-6]|[Ff])[\s#]", data):
        return "PPM"
    if data[:1] == b"\x0a" and data[1:4] in _PCX_STARTS:
        return "PCX"
    return None


def _is_targa(data: bytes, name: str) -> bool:
    """Whether a possible TGA is one: by its footer, its name, or a size that fits its header."""
    if not may_be_targa(data):
        return False
    if data[-18:-2] == b"TRUEVISION-XFILE" or name.lower().endswith((".tga", ".vda", ".icb", ".vst")):
        return True
    width, height = struct.unpack_from("<HH", data, 12)
    pixel_bytes = width * height * ((data[16] + 7) // 8)
    return data[:8] in (b"\0\0\2\0\0\0\0\0", b"\0\0\3\0\0\0\0\0") and 0 < pixel_bytes <= len(data) - 18


def may_be_targa(data: bytes) -> bool:
    """Whether a file may be a TGA by its first bytes; files of other formats may pass too."""
    is_known = len(data) > 18 and data[2] in (1, 2, 3, 9, 10, 11) and data[16] in (8, 15, 16, 24, 32)
    return is_known and data[1] <= 1


_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"\x01\xda", "SGI"),
)
# Version, encoding and bits per pixel of each kind of PCX.
_PCX_STARTS = {bytes((version, 1, bits)) for version in (0, 2, 3, 4, 5) for bits in (1, 2, 4, 8)}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}


def _sniff_brands(data: bytes) -> str | None:
    """HEIC or AVIF, by the brands of an ISO container; None for videos and raw files in such a container."""
    end = min(int.from_bytes(data[:4], "big"), 4096)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    if {b"avif", b"avis"} & set(brands):
        return "AVIF"
    return "HEIC" if _HEIC_BRANDS & set(brands) else None
