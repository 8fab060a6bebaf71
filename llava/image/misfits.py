"""Identifies files that are not supported images, and what their owner can do about it.

Pillow would open some of them, but only by starting a program (PostScript), or without the actual image (the thumbnail
of a camera's raw file, the preview of a Photoshop file).
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Foreign(NamedTuple):
    """What a file is, with an article, and what to do about it."""

    kind: str
    remedy: str


_EXPORT = "Export it as PNG or JPEG."
RAW = Foreign("a camera's raw file", "Develop it, or export it as JPEG or TIFF.")
VIDEO = Foreign("a video", "Take a frame out of it: ffmpeg -i VIDEO -frames:v 1 frame.png")

_STARTS: tuple[tuple[bytes, Foreign], ...] = (
    (b"%PDF", Foreign("a PDF", "Render the page as PNG: pdftoppm -png -r 150 FILE page")),
    (b"8BPS", Foreign("a Photoshop file", _EXPORT)),
    (b"8BPB", Foreign("a Photoshop file", _EXPORT)),
    (b"%!PS", Foreign("PostScript", "Render it as PNG.")),
    (b"\xc5\xd0\xd3\xc6", Foreign("PostScript", "Render it as PNG.")),
    (b"\xff\x0a", Foreign("a JPEG XL", "Convert it to PNG: djxl FILE image.png")),
    (b"\0\0\0\x0cJXL \r\n\x87\n", Foreign("a JPEG XL", "Convert it to PNG: djxl FILE image.png")),
    (b"II*\0\x10\0\0\0CR", RAW),
    (b"FUJIFILMCCD-RAW", RAW),
    (b"IIU\0", RAW),
    (b"IIRO", RAW),
    (b"IIRS", RAW),
    (b"MMOR", RAW),
    (b"FOVb", RAW),
    (b"\0MRM", RAW),
    (b"v/1\x01", Foreign("an OpenEXR", _EXPORT)),
    (b"#?RADIANCE", Foreign("a Radiance HDR", _EXPORT)),
    (b"#?RGBE", Foreign("a Radiance HDR", _EXPORT)),
    (b"SIMPLE  =", Foreign("a FITS file", "Export its image as PNG or 16-bit TIFF.")),
    (b"\x89HDF", Foreign("an HDF5 file", "Export its image as PNG or 16-bit TIFF.")),
    (b"gimp xcf", Foreign("a GIMP file", _EXPORT)),
    (b"II\xbc\x01", Foreign("a JPEG XR", _EXPORT)),
    (b"\x1aE\xdf\xa3", VIDEO),
    (b"\0\0\1\xba", VIDEO),
    (b"\0\0\1\xb3", VIDEO),
    (b"FLV\1", VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", VIDEO),
    (b"PK\3\4", Foreign("a ZIP archive or an office document", "Unpack it and pass the image inside.")),
    (b"\x1f\x8b", Foreign("a gzip file", "Unpack it: gunzip FILE")),
    (b"version https://git-lfs", Foreign("a Git LFS pointer, not the file itself", "Run: git lfs pull")),
    (b"\xd7\xcd\xc6\x9a", Foreign("a Windows metafile", _EXPORT)),
    (b"\x01\0\0\0\x6c\0\0\0", Foreign("a Windows metafile", _EXPORT)),
)


def identify(data: bytes) -> Foreign | None:
    """What the file is, by its first bytes; None if they are unknown."""
    # White space and a UTF-8 byte order mark are ignored.
    start = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, foreign in _STARTS:
        if data.startswith(signature) or start.startswith(signature):
            return foreign
    if data[128:132] == b"DICM":
        return Foreign("a DICOM file", "Export the slice as PNG or 16-bit TIFF.")
    if data[4:8] == b"ftyp":
        return RAW if data[8:12] == b"crx " else VIDEO
    if data[4:8] in (b"moov", b"mdat", b"wide") or (data[:4] == b"RIFF" and data[8:12] == b"AVI "):
        return VIDEO
    if start.startswith(b"<"):
        return _identify_markup(start.lower())
    if start[:1] in (b"{", b"["):
        return Foreign("JSON", "Pass the image itself.")
    return None


def identify_wrapped(data: bytes) -> Foreign | None:
    """How an image was damaged in transfer: written as text, or prefixed with other bytes. None if it was not."""
    data = data[:4096]
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:11].lower() == b"data:image/":
        return Foreign("the text of a data URI", "Pass the text itself instead of a file that holds it.")
    if start.startswith(_BASE64_STARTS) and re.fullmatch(rb"[A-Za-z0-9+/=_\s-]+", start):
        return Foreign("an image as base64 text", "Decode it: base64 -d FILE > image")
    if data.startswith((b"\x89PNG\n", b"\xc2\x89PNG", b"\xef\xbf\xbdPNG", b"\tPNG", b"\xef\xbf\xbd\xef\xbf\xbd")):
        return Foreign("an image that was copied as if it were text", "Copy or download it again, in binary mode.")
    if data.startswith(b"HTTP/"):
        return Foreign("an HTTP response with its headers", "Save its body alone: curl -o image URL")
    found = _IMAGE_WITHIN.search(data)
    if found is not None and found.start() > 0:
        return Foreign(
            f"perhaps an image after {found.start():,} bytes that are not part of it",
            f"If so, remove them: tail -c +{found.start() + 1} FILE > image",
        )
    return None


_BASE64_STARTS = (b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR", b"SUkqA", b"TU0AK", b"Qk0")
_IMAGE_WITHIN = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff[\xdb\xe0\xe1\xe2\xee]|GIF8[79]a|RIFF....WEBP", re.DOTALL)


def _identify_markup(start: bytes) -> Foreign:
    if b"<svg" in start:
        return Foreign("an SVG drawing", "Render it as PNG: rsvg-convert FILE -o image.png")
    if b"<html" in start or b"<!doctype html" in start or b"<body" in start:
        return Foreign("a web page (HTML)", "Pass the address of the image itself.")
    return Foreign("XML, perhaps an SVG drawing", "Render a drawing as PNG.")
