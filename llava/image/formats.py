"""Parses an image file's header: its format, the size that it claims, and the bytes that a decoder needs.

Headers are parsed here, without a decoder, so that an image can be refused before any of it is decompressed. A decoder
then gets only what it needs for the first frame: comments, colour profiles, previews and animation chunks, which
decoders would decompress, warn about or fail on, are dropped, so decompression bombs in them cost nothing.
Faults that browsers ignore are ignored here too, with a note.

Source: W3C PNG (third edition) section 5; ITU-T T.81 annex B; GIF89a specification; RFC 9649 (WebP); EXIF 3.0.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from llava.errors import BadImage
from llava.image import misfits, tiff
from llava.image.geometry import Size
from llava.image.orientation import read_orientation
from llava.image.signatures import may_be_targa, sniff

# The formats of the web. Their headers are parsed here.
COMMON = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# Formats of phones, scanners and instruments. Pillow has a decoder for each, except HEIC's, which is in pillow-heif.
RARER = ("TIFF", "HEIC", "AVIF", "JPEG2000", "ICO", "TGA", "PPM", "PCX", "DDS", "QOI", "SGI")

# No legitimate file has more chunks, segments or blocks than this before the end of its first frame.
_MOST_PIECES = 200_000
_MOST_GIF_BLOCKS = 1_000_000  # of 255 bytes at most
_MOST_TEXT_BYTES = 2**20
_MOST_STRAY_BYTES = 2**20  # in a row, between a JPEG's segments
# How many of a file's first bytes identify it; fewer may not include all brands of a container.
_TELLING_BYTES = 4096


@dataclass(frozen=True)
class Header:
    """What an image file's header says, and the bytes that a decoder needs for its first frame."""

    format: str
    size: Size
    """The size that the decoder returns, before the image is turned upright; 0x0 if only the decoder knows it."""
    orientation: int
    """The EXIF orientation, 1 to 8; 1 is upright."""
    data: bytes
    notes: tuple[str, ...] = ()
    """Ignored faults of the file that change no pixel."""
    doubts: tuple[str, ...] = ()
    """Faults that make it likely that some pixels are wrong."""
    frames: str = ""
    """Which of several frames, pages or sizes this is; empty if there is only one."""
    declared: tuple[float, float] | None = None
    """The range of values that the file declares, if it is not the full range of its type."""
    inverted: bool = False
    """Whether the lowest value is white and the decoder ignores that."""
    samples: str = ""
    """NumPy's name of the values' type, "u4" or "i1", if the decoder assumes another type."""
    planes: tuple[bytes, ...] = ()
    """One file for each 16-bit channel, if the decoder would mix the channels up."""
    stored: Size | None = None
    """The size as stored, if the decoder itself turns the image."""
    kind: str = ""
    """The variant of the format, for messages."""


def read_header(data: bytes, name: str, formats: Sequence[str] = COMMON + RARER) -> Header:
    """The header of a file. ``name`` is for messages; ``formats`` are the allowed ones of COMMON and RARER.

    Raises:
        BadImage: the format is not allowed or unknown, or the header is damaged.
    """
    if not data:
        raise BadImage(f"{name} is empty. Copy or download it again.")
    found = sniff(data, name)
    if found is None or found not in formats:
        raise _refuse_format(data, name, found, formats)
    try:
        header = _READERS[found](data) if found in _READERS else Header(found, Size(0, 0), 1, data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise BadImage(
            f"{name} is {with_article(found)} whose header is damaged or cut off. Copy or download it again."
        ) from error
    if found in _READERS and min(header.size) < 1:
        raise BadImage(f"{name} is {with_article(found)} of {header.size} px: there is nothing to see.")
    return header


def refuse_misfit(start: bytes, name: str, formats: Sequence[str]) -> None:
    """Raises BadImage if a file that begins with these bytes is certainly not a supported image, whatever follows."""
    is_known = len(start) < _TELLING_BYTES or may_be_targa(start) or sniff(start, name) is not None
    if not is_known and misfits.identify(start) is not None:
        raise _refuse_format(start, name, None, formats)


def _refuse_format(data: bytes, name: str, found: str | None, formats: Sequence[str]) -> BadImage:
    other = misfits.identify(data) if found in (None, "TIFF") else None
    if found is None and other is None:
        other = misfits.identify_wrapped(data)
    allowed = " or ".join([", ".join(formats[:-1]), formats[-1]] if len(formats) > 1 else formats)
    refusal = f"{name} is not an image in a supported format ({allowed})"
    if other is not None:
        return BadImage(f"{refusal}; it is {other.kind}. {other.remedy}")
    return BadImage(f"{refusal}{f'; it is {found}' if found else ''}. Convert it to {formats[0]}.")


def with_article(format: str) -> str:
    """The format's name with its indefinite article."""
    return f"{'an' if format in ('AVIF', 'ICO', 'SGI') else 'a'} {format}"


class _Pieces:
    """Counts the chunks of a file; raises ValueError when there are too many."""

    def __init__(self, most: int = _MOST_PIECES) -> None:
        self._num_left = most

    def count(self) -> None:
        self._num_left -= 1
        if self._num_left < 0:
            raise ValueError("too many pieces")


def _read_png(data: bytes) -> Header:
    """Walks the chunks up to IEND, checks every CRC, and keeps the chunks that affect pixels.

    Decoders do not check the CRC of pixel data, and need no IEND.
    """
    facts = _PngFacts(data)
    at, pieces = 8, _Pieces()
    while not facts.is_complete and at < len(data):
        pieces.count()
        kind = data[at + 4 : at + 8]
        if len(data) - at < 12 or not kind.isalpha():
            break
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            if kind == b"IDAT":
                facts.kept.append(_chunk(kind, data[at + 8 :]))
            break
        content = memoryview(data)[at + 8 : end - 4]
        is_sound = zlib.crc32(content, zlib.crc32(kind)) == int.from_bytes(data[end - 4 : end], "big")
        if (at == 8) != (kind == b"IHDR"):
            raise ValueError("IHDR")
        facts.take(kind, content, data[at:end], is_sound)
        at = end
    if not facts.has_pixels:
        raise ValueError("no IDAT")
    return facts.finish()


def _chunk(kind: bytes, content: bytes | memoryview) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


class _PngFacts:
    """Collects the facts of a PNG, chunk by chunk."""

    def __init__(self, data: bytes) -> None:
        self.kept = [data[:8]]
        self.is_complete = False
        self._size = Size(0, 0)
        self._bits = 0
        self._significant: int | None = None
        self._num_frames = 1
        self._blocks: dict[str, bytes] = {}
        self._text_left = _MOST_TEXT_BYTES
        self._notes: list[str] = []
        self._doubts: list[str] = []

    @property
    def has_pixels(self) -> bool:
        return any(piece[4:8] == b"IDAT" for piece in self.kept[1:])

    def take(self, kind: bytes, content: memoryview, whole: bytes, is_sound: bool) -> None:
        if not is_sound:
            if kind == b"IDAT":
                self._doubts.append("the checksum of its pixel data is wrong, so parts of it may be")
                whole = _chunk(kind, content)
            elif kind[0] & 0x20:
                self._notes.append(f"its {kind.decode()} chunk, whose checksum is wrong, was left out")
                return
            elif kind != b"IEND":
                raise ValueError("checksum")
        if kind == b"IHDR":
            self._size, self._bits = Size(*struct.unpack_from(">II", content)), content[8]
        elif kind == b"sBIT" and content:
            self._significant = max(content[:3])
        elif kind == b"acTL":
            (self._num_frames,) = struct.unpack_from(">I", content)
        elif kind == b"eXIf":
            self._blocks["exif"] = bytes(content)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            self._take_text(kind, bytes(content[:4096]) if len(content) > 2**26 else bytes(content))
        self.is_complete = kind == b"IEND"
        # Critical chunks have a capital first letter; of the ancillary ones only tRNS affects pixels.
        if not self.is_complete and (not kind[0] & 0x20 or kind == b"tRNS"):
            self.kept.append(whole)

    def _take_text(self, kind: bytes, content: bytes) -> None:
        keyword, _, rest = content.partition(b"\0")
        wanted = {b"XML:com.adobe.xmp": "xmp", b"Raw profile type exif": "raw_profile", b"exif": "exif"}.get(keyword)
        if wanted is None:
            return
        is_packed = kind == b"zTXt"
        rest = rest[1:] if is_packed else rest
        if kind == b"iTXt":
            is_packed = rest[:1] == b"\1"
            rest = (rest[2:].split(b"\0", 2) + [b"", b""])[2]
        if is_packed and self._text_left > 0:
            try:
                rest = zlib.decompressobj().decompress(rest, self._text_left)
            except zlib.error:
                return
            self._text_left -= len(rest)  # a budget for all such chunks together, of which a file may have 200,000
        elif is_packed:
            return
        self._blocks[wanted] = rest[:_MOST_TEXT_BYTES]

    def finish(self) -> Header:
        if not self.is_complete:
            self._notes.append("it has no IEND chunk at its end")
        self.kept.append(_chunk(b"IEND", b""))
        declared = None
        if self._bits == 16 and self._significant is not None and 8 < self._significant < 16:
            declared = 0.0, 2.0**self._significant - 1
        return Header(
            "PNG",
            self._size,
            read_orientation(**self._blocks),
            b"".join(self.kept),
            notes=tuple(dict.fromkeys(self._notes)),
            doubts=tuple(dict.fromkeys(self._doubts)),
            frames=f"frame 1 of {self._num_frames}" if self._num_frames > 1 else "",
            declared=declared,
            kind=f"{self._bits} bits",
        )


# The last fill byte and the marker: matching any number of fill bytes would take quadratic time.
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"


def _read_jpeg(data: bytes) -> Header:
    """Walks the segments up to the first scan; keeps the tables and the two APP segments that affect colours.

    Stray bytes between segments are skipped, as in decoders.
    """
    kept = [data[:2]]
    size, exif, xmp, kind = Size(0, 0), bytearray(), b"", ""
    at, num_stray, pieces = 2, 0, _Pieces()
    while True:
        pieces.count()
        found = _MARKER.search(data, at, at + _MOST_STRAY_BYTES)
        if found is None:
            raise ValueError("no marker")
        # A marker may follow any number of fill bytes.
        num_stray += len(data[at : found.start()].rstrip(b"\xff"))
        marker, at = data[found.end() - 1], found.end() - 2
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # a marker without a segment
            at += 2
            continue
        if marker in (0xD8, 0xD9):
            raise ValueError("an image within the image, or no scan")
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(data):
            raise ValueError("segment")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack_from(">BHH", data, at + 4)
            size, kind = Size(width, height), _name_jpeg(marker, bits)
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            exif += data[at + (10 if exif else 4) : end]  # a block longer than a segment continues in the next one
        elif marker == 0xE1 and data.startswith(_XMP_HEAD, at + 4):
            xmp = data[at + 4 + len(_XMP_HEAD) : end]
        if marker == 0xDA:  # start of scan: the rest is pixels
            body = b"".join([*kept, memoryview(data)[at:]])
            notes = (f"{num_stray:,} stray bytes between its segments were passed over",) if num_stray else ()
            return Header("JPEG", size, read_orientation(bytes(exif), xmp), body, notes=notes, kind=kind)
        # APP0 and APP14 give the colour space; the other APP segments and comments affect no pixel.
        if (not 0xE0 <= marker <= 0xEF and marker != 0xFE) or marker in (0xE0, 0xEE):
            kept.append(data[at:end])
        at = end


def _name_jpeg(marker: int, bits: int) -> str:
    """The variant of a JPEG that few decoders support; "" for an ordinary JPEG."""
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "lossless"
    return "" if bits == 8 else f"{bits} bits per value"


def _read_gif(data: bytes) -> Header:
    """The header, with the logical screen's size, or a larger one if the first frame does not fit it, as in decoders.

    The decoder gets the first frame and the one extension that gives its transparent colour.
    """
    screen = Size(*struct.unpack_from("<HH", data, 6))
    at, pieces = 13 + _palette_bytes(data[10]), _Pieces(_MOST_GIF_BLOCKS)
    kept = [data[:at]]
    control = b""
    while data[at] != 0x2C:
        if data[at] != 0x21:
            raise ValueError("no frame")
        pieces.count()
        end = _skip_blocks(data, at + 2, pieces)
        if data[at + 1] == 0xF9:
            control = data[at:end]
        at = end
    left, top, width, height = struct.unpack_from("<4H", data, at + 1)
    size = Size(max(screen.width, left + width), max(screen.height, top + height))
    try:
        end = _skip_blocks(data, at + 11 + _palette_bytes(data[at + 9]), pieces)
    except IndexError:  # truncated: the decoder draws the rows that are left
        end = len(data)
    num_frames = 1 + _count_gif_frames(data, end, pieces)
    frames = f"frame 1 of {num_frames}" if num_frames > 1 else ""
    return Header("GIF", size, 1, b"".join([*kept, control, data[at:end], b";"]), frames=frames)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_blocks(data: bytes, at: int, pieces: _Pieces) -> int:
    """The position after a chain of length-prefixed blocks; an empty block ends it."""
    while data[at]:
        pieces.count()
        at += 1 + data[at]
    return at + 1


def _count_gif_frames(data: bytes, at: int, pieces: _Pieces) -> int:
    """How many frames there are from ``at`` on, as far as the file is readable."""
    num_frames = 0
    try:
        while data[at] in (0x21, 0x2C):
            pieces.count()
            if data[at] == 0x21:
                at = _skip_blocks(data, at + 2, pieces)
            else:
                at = _skip_blocks(data, at + 11 + _palette_bytes(data[at + 9]), pieces)
                num_frames += 1
    except (IndexError, ValueError):
        pass
    return num_frames


def _read_webp(data: bytes) -> Header:
    size, num_frames, exif, xmp = Size(0, 0), 0, b"", b""
    for kind, at, end in _riff_chunks(data):
        if kind == b"EXIF":
            exif = data[at:end]
        elif kind == b"XMP ":
            xmp = data[at : min(end, at + _MOST_TEXT_BYTES)]
        num_frames += kind == b"ANMF"
        if size.width:
            continue  # VP8X gives the canvas; the frames of an animation follow it
        if kind == b"VP8X":
            size = Size(*(1 + int.from_bytes(data[at + i : at + i + 3], "little") for i in (4, 7)))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, at + 6)
            size = Size(width & 0x3FFF, height & 0x3FFF)
        elif kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, at + 1)
            size = Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    frames = f"frame 1 of {num_frames}" if num_frames > 1 else ""
    return Header("WEBP", size, read_orientation(exif, xmp), data, frames=frames)


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's name, and the start and end of its content."""
    at, pieces = 12, _Pieces()
    while at + 8 <= len(data):
        pieces.count()
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, at + 8 + length
        at += 8 + length + length % 2


def _read_bmp(data: bytes) -> Header:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return Header("BMP", Size(width, abs(height)), 1, data)


def _read_tiff(data: bytes) -> Header:
    page = tiff.read_page(data)
    return Header(
        "TIFF",
        page.size,
        page.orientation,
        page.data,
        frames=f"page 1 of {page.num_pages}" if page.num_pages > 1 else "",
        declared=page.declared,
        inverted=page.inverted,
        samples=page.samples,
        planes=page.planes,
        kind="raw" if page.is_raw else page.kind,
    )


def _read_icon(data: bytes) -> Header:
    """The header of the largest image of an icon or a cursor: a PNG, or else an icon with this image only."""
    (num_images,) = struct.unpack_from("<H", data, 4)
    best: tuple[int, int, int] | None = None
    largest = (0, 0, 0)
    for at in range(6, 6 + 16 * num_images, 16):
        width, height, _, _, _, bits, num_bytes, offset = struct.unpack_from("<BBBBHHII", data, at)
        # A cursor has its hot spot where an icon has its bit depth.
        rank = ((width or 256) * (height or 256), bits if data[2] == 1 else 0, num_bytes)
        largest = max(largest, rank)
        if offset + num_bytes <= len(data) and (best is None or rank > best):
            best, entry, start = rank, data[at : at + 16], offset
    if best is None:
        raise ValueError("no image")
    content = data[start : start + best[2]]
    frames = f"the largest of {num_images} sizes" if num_images > 1 else ""
    if best < largest:
        frames += ", without those that are cut off"
    if content.startswith(b"\x89PNG"):
        return replace(_read_png(content), frames=frames)
    width, height = struct.unpack_from("<ii", content, 4)
    entry = entry[:4] + (entry[4:8] if data[2] == 1 else struct.pack("<HH", 1, *struct.unpack_from("<H", content, 14)))
    single = struct.pack("<HHH", 0, 1, 1) + entry + struct.pack("<II", len(content), 22) + content
    return Header("ICO", Size(width, abs(height) // 2), 1, single, frames=frames)


_READERS: dict[str, Callable[[bytes], Header]] = {
    "PNG": _read_png,
    "JPEG": _read_jpeg,
    "WEBP": _read_webp,
    "GIF": _read_gif,
    "BMP": _read_bmp,
    "TIFF": _read_tiff,
    "ICO": _read_icon,
}
