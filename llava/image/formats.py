"""The bytes of a picture file: what they are, how large a picture they claim, and that picture as upright RGB.

The header is read here, without a decoder, so that a picture can be refused before anything of it is unpacked. A
decoder then gets only what it needs to draw the first frame: comments, colour profiles, previews and animation
chunks, which decoders allocate, warn or stumble over, are left out. Colour profiles are not applied.

Source: W3C PNG (third edition) section 5; ITU-T T.81 annex B; GIF89a specification; RFC 9649 (WebP); EXIF 3.0.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from llava.errors import BadImage
from llava.image.geometry import Size

# What is said to those who send something else, by how the file begins.
_OTHERS = (
    (b"%PDF", "a PDF"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"8BPS", "a Photoshop file"),
    (b"%!PS", "PostScript"),
    (b"\0\0\1\0", "an icon"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"<", "HTML or SVG"),
)


@dataclass(frozen=True)
class Header:
    """What a picture file says about itself, and the bytes that a decoder needs to draw its first frame."""

    format: str
    size: Size
    """As stored: before the picture is turned upright."""
    orientation: int
    """The EXIF orientation, 1 to 8; 1 is upright."""
    data: bytes


def read_header(data: bytes, name: str, formats: Sequence[str]) -> Header:
    """The header of a file. ``name`` is for messages; ``formats`` are those allowed, of PNG JPEG WEBP GIF BMP.

    Raises BadImage for anything else and for a header that is broken.
    """
    if not data:
        raise BadImage(f"{name} is empty.")
    found = _sniff(data)
    if found is None or found not in formats:
        kind = found or next((kind for start, kind in _OTHERS if data.lstrip().startswith(start)), None)
        if kind is None and data[4:8] == b"ftyp":
            kind = "a HEIC, AVIF or video file"
        allowed = " or ".join([", ".join(formats[:-1]), formats[-1]] if len(formats) > 1 else formats)
        raise BadImage(
            f"{name} is not a picture in a supported format ({allowed})" + (f"; it is {kind}." if kind else ".")
        )
    try:
        header = _READERS[found](data)
    except (struct.error, IndexError, ValueError) as error:
        raise BadImage(f"{name} is a {found} whose header is damaged or cut off.") from error
    if min(header.size) < 1:
        raise BadImage(f"{name} is a {found} of {header.size} px: there is nothing to see.")
    return header


def decode(header: Header, name: str) -> Image.Image:
    """The first frame, upright, RGB. Raises BadImage where the file is damaged or cut off."""
    try:
        image = _DECODERS[header.format](io.BytesIO(header.data))
        if image.size != tuple(header.size):
            raise ValueError(f"the decoder finds {image.size}, the header {header.size}")
        image.load()
    # Decoders meet broken files with whatever exception is at hand: SyntaxError, EOFError, struct.error, ...
    except Exception as error:
        raise BadImage(f"{name} is a {header.format} that cannot be decoded: it is damaged or cut off.") from error
    return turn_upright(to_rgb(image, name), header.orientation)


def to_rgb(image: Image.Image, name: str = "The picture") -> Image.Image:
    """The picture in mode RGB; transparency is laid over white; of 16-bit values the upper 8 bits count.

    A picture that is RGB already is returned as it is. Raises BadImage for modes without an agreed range (F).
    """
    transparent = "transparency" in image.info
    if image.mode == "RGB" and not transparent:
        return image
    if image.mode.startswith("I"):
        upper = np.clip(np.asarray(image), 0, 65535).astype(np.uint16) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert("RGB")
    try:
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        if transparent or image.mode in ("LA", "PA", "RGBA"):
            image = image.convert("RGBA")
            white = Image.new("RGB", image.size, (255, 255, 255))
            white.paste(image, mask=image.getchannel("A"))
            return white
        if image.mode != "F":
            return image.convert("RGB")
    except ValueError as error:
        raise BadImage(f"{name} has the colour mode {image.mode}, which cannot be shown as RGB.") from error
    raise BadImage(f"{name} holds floating-point values, whose range is unknown. Convert it to 8 bits first.")


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
    """The picture as its camera was held; orientation 1 returns it as it is."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def read_orientation(exif: bytes) -> int:
    """The orientation (1 to 8) in an EXIF block; 1 where it says nothing or cannot be read."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (num_entries,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(num_entries):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value) if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        pass  # a damaged EXIF block spoils no picture
    return 1


def _sniff(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return "BMP" if data[:2] == b"BM" else None


def _read_png(data: bytes) -> Header:
    """Walks the chunks to IEND, checks every checksum, and keeps those that decide about pixels.

    A decoder would not look at the checksum of pixel data.
    """
    kept = [data[:8]]
    size, orientation, at = Size(0, 0), 1, 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != checksum:
            raise ValueError("checksum")
        if at == 8:
            if kind != b"IHDR":
                raise ValueError("no IHDR")
            size = Size(*struct.unpack_from(">II", data, at + 8))
        elif kind == b"eXIf":
            orientation = read_orientation(data[at + 8 : end - 4])
        if not kind[0] & 0x20 or kind == b"tRNS":  # a capital first letter: needed for drawing
            kept.append(data[at:end])
        if kind == b"IEND":
            return Header("PNG", size, orientation, b"".join(kept))
        at = end


def _read_jpeg(data: bytes) -> Header:
    """Walks the segments to the first scan; keeps the tables and the two APP segments that decide about colours."""
    kept = [data[:2]]
    size, orientation, at = Size(0, 0), 1, 2
    while True:
        if data[at] != 0xFF:
            raise ValueError("no marker")
        marker = data[at + 1]
        if marker == 0xFF:  # any number of fill bytes may stand before a marker
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise ValueError("segment")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = Size(width, height)
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = read_orientation(data[at + 4 : end])
        if marker == 0xDA:  # start of scan: the rest is pixels
            return Header("JPEG", size, orientation, b"".join([*kept, data[at:]]))
        # APP0 and APP14 say which colour space it is; the other APPs and comments say nothing about pixels.
        if (not 0xE0 <= marker <= 0xEF and marker != 0xFE) or marker in (0xE0, 0xEE):
            kept.append(data[at:end])
        at = end


def _read_gif(data: bytes) -> Header:
    """The logical screen, or more where the first frame is larger: decoders then enlarge the screen."""
    screen = Size(*struct.unpack_from("<HH", data, 6))
    at = 13 + _palette_bytes(data[10])
    while data[at] == 0x21:  # extensions: a label, then blocks that begin with their length and end with an empty one
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] != 0x2C:
        raise ValueError("no frame")
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    return Header("GIF", Size(max(screen.width, left + width), max(screen.height, top + height)), 1, data)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _read_webp(data: bytes) -> Header:
    size, orientation = Size(0, 0), 1
    for kind, at, end in _riff_chunks(data):
        if kind == b"EXIF":
            orientation = read_orientation(data[at:end])
        if size.width:
            continue  # the canvas of VP8X comes first; the frames of an animation follow
        if kind == b"VP8X":
            size = Size(*(1 + int.from_bytes(data[at + i : at + i + 3], "little") for i in (4, 7)))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, at + 6)
            size = Size(width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, at + 1)
            size = Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    return Header("WEBP", size, orientation, data)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk's content."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, at + 8 + length
        at += 8 + length + length % 2


def _read_bmp(data: bytes) -> Header:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return Header("BMP", Size(width, abs(height)), 1, data)


_READERS: dict[str, Callable[[bytes], Header]] = {
    "PNG": _read_png,
    "JPEG": _read_jpeg,
    "WEBP": _read_webp,
    "GIF": _read_gif,
    "BMP": _read_bmp,
}
# The decoders themselves, because Image.open would ask all of them, and judge the size by a limit of its own.
_DECODERS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
