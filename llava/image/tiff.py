"""Parses the first page of a TIFF, and rewrites the file so that a decoder can read that page safely.

A TIFF is a chain of directories of tags, and every tag may claim any number of values anywhere in the file; decoders
read them all. Here the directory is parsed first, and a new directory is appended that holds only the tags that affect
pixels. Scans are often BigTIFF, have several pages, or contain a JPEG; instruments write signed and floating-point
values and declare their range.

Source: TIFF 6.0; BigTIFF design (libtiff); DNG 1.7; TIFF Technical Note 2.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from llava.image.geometry import Size
from llava.image.orientation import ORIENTATION_TAG, read_number, read_orientation

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 277, 278, 279
_TILE_WIDTH, _TILE_LENGTH, _SUB_DIRECTORIES, _SAMPLE_FORMAT = 322, 323, 330, 339
_LEAST, _GREATEST, _SIGNED_LEAST, _SIGNED_GREATEST = 280, 281, 340, 341
_XMP, _SUBFILE, _DNG_VERSION = 700, 254, 50706
_PLANES, _EXTRA_SAMPLES = 284, 338

# The tags of a single 16-bit channel, and the tags that list values per strip of each channel in planar files.
_PER_CHANNEL = {_BITS: 16, _SAMPLES: 1, _PLANES: 1, _EXTRA_SAMPLES: 0, _SAMPLE_FORMAT: 1}
_PER_PIECE = (_STRIP_OFFSETS, _STRIP_BYTES, 324, 325)

_NEEDED = frozenset(
    (_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES)
    + (266, 284, 292, 293, 317, 320)  # fill order, planes, fax options, predictor, palette
    + (_TILE_WIDTH, _TILE_LENGTH, 324, 325, 332, 338, _SAMPLE_FORMAT)  # tiles, inks, extra samples
    + (347, 512, 513, 514, 519, 520, 521, 529, 530, 532, 50674)  # JPEG's tables, YCbCr, LERC
)
# Bytes of a value of each type.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_MOST_ENTRIES = 65_535
_MOST_PAGES = 10_000
_MOST_PIECES = 2**22  # strips or tiles
_MOST_XMP_BYTES = 2**20
_RAW_PHOTOMETRICS = (32803, 34892)  # a colour filter array; linear raw
_RAW_COMPRESSIONS = (32767, 32769, 32770, 34713, 65000, 65535)  # Sony, Epson, Samsung, Nikon, Kodak, Pentax


@dataclass(frozen=True)
class Page:
    """The first page of a TIFF."""

    size: Size
    orientation: int
    num_pages: int
    declared: tuple[float, float] | None
    """The range of values that the file declares, if it is not the full range of its type."""
    inverted: bool
    """Whether the lowest value is white. The decoder is told the opposite, because it inverts only 8-bit values."""
    is_raw: bool
    """Whether it is a camera's raw file, whose first page is a thumbnail or sensor data."""
    samples: str
    """NumPy's name of the values' type, "u4" or "i1", if the decoder assumes another type; else ""."""
    planes: tuple[bytes, ...]
    """Each channel as a file of its own, if the file is planar with 16 bits per channel."""
    kind: str
    """The variant of TIFF, for error messages."""
    data: bytes


@dataclass(frozen=True)
class _Layout:
    """How numbers are stored in this file: classic TIFF or BigTIFF, and the byte order."""

    order: str
    is_big: bool

    @property
    def offset(self) -> str:
        """The struct format of an offset."""
        return "Q" if self.is_big else "I"

    @property
    def count(self) -> str:
        """The struct format of the number of a directory's entries."""
        return "Q" if self.is_big else "H"

    @property
    def entry_bytes(self) -> int:
        """The length of a directory entry."""
        return 20 if self.is_big else 12

    @property
    def value_at(self) -> int:
        """The position of the value field in an entry."""
        return 12 if self.is_big else 8

    def write_number(self, tag: int, value: int) -> bytes:
        """An entry with one 16-bit number."""
        return struct.pack(self.order + "HH" + self.offset + "H", tag, 3, 1, value).ljust(self.entry_bytes, b"\0")

    def write_entry(self, tag: int, kind: int, count: int, data: bytes, at: int, num_bytes: int) -> bytes:
        """An entry with the values that are in the file at ``at``."""
        head = struct.pack(self.order + "HH" + self.offset, tag, kind, count)
        if num_bytes <= struct.calcsize("=" + self.offset):
            return (head + data[at : at + num_bytes]).ljust(self.entry_bytes, b"\0")
        return head + struct.pack(self.order + self.offset, at)


def read_page(data: bytes) -> Page:
    """The first page. Raises ValueError or struct.error if its directory is damaged."""
    layout = _Layout("<" if data[:1] == b"I" else ">", 43 in data[2:4])
    (start,) = struct.unpack_from(layout.order + layout.offset, data, 8 if layout.is_big else 4)
    entries = _read_directory(data, layout, start)

    def get(tag: int) -> float | None:
        if tag not in entries:
            return None
        at = entries[tag]
        kind, count = struct.unpack_from(layout.order + "H" + layout.offset, data, at + 2)
        value = read_number(data, layout.order, kind, count, at + layout.value_at, layout.offset) if count else None
        return None if value is None else float(value)

    def count_of(tag: int, default: float) -> int:
        value = get(tag)
        return int(default if value is None else value)

    size = Size(count_of(_WIDTH, 0), count_of(_LENGTH, 0))
    if count_of(_TILE_WIDTH, 1) * count_of(_TILE_LENGTH, 1) > 4 * max(size.width * size.height, 2**20):
        raise ValueError("a tile is larger than the image")
    bits, form = count_of(_BITS, 1), count_of(_SAMPLE_FORMAT, 1)
    photometric, compression = count_of(_PHOTOMETRIC, 0), count_of(_COMPRESSION, 1)
    orientation = entries.get(ORIENTATION_TAG)
    num_samples = count_of(_SAMPLES, 1)
    are_planes = count_of(_PLANES, 1) == 2 and bits > 8 and num_samples > 1
    if are_planes and (bits, form, photometric) != (16, 1, 2) and compression == 1:
        raise ValueError("planes that the decoder would mix up")
    return Page(
        size=size,
        orientation=(_as_orientation(get(ORIENTATION_TAG)) if orientation else _read_xmp(data, layout, entries)),
        num_pages=_count_pages(data, layout, start),
        declared=_declare(get, bits, form),
        samples={(1, 32): "u4", (2, 8): "i1"}.get((form, bits), ""),
        planes=tuple(
            _rewrite(data, layout, entries, plane=i, num_planes=num_samples) for i in range(min(num_samples, 4))
        )
        if are_planes and (bits, form, photometric) == (16, 1, 2)
        else (),
        inverted=(inverted := photometric == 0 and bits > 8),
        is_raw=_DNG_VERSION in entries
        or photometric in _RAW_PHOTOMETRICS
        or compression in _RAW_COMPRESSIONS
        or (_SUB_DIRECTORIES in entries and count_of(_SUBFILE, 0) & 1 == 1),
        kind=f"{bits} bits, {num_samples} channels, sample format {form}, photometric {photometric}, "
        f"compression {compression}",
        data=_rewrite(data, layout, entries, inverted=inverted),
    )


def _read_directory(data: bytes, layout: _Layout, start: int) -> dict[int, int]:
    """The position of each tag's entry."""
    (num_entries,) = struct.unpack_from(layout.order + layout.count, data, start)
    if not 0 < num_entries <= _MOST_ENTRIES:
        raise ValueError("directory")
    first = start + struct.calcsize("=" + layout.count)
    entries: dict[int, int] = {}
    for i in range(num_entries):
        at = first + i * layout.entry_bytes
        (tag,) = struct.unpack_from(layout.order + "H", data, at)
        entries.setdefault(tag, at)
    return entries


def _count_pages(data: bytes, layout: _Layout, start: int) -> int:
    """How many directories of the chain are not marked as thumbnails; at least 1."""
    seen: set[int] = set()
    num_pages = 0
    at = start
    try:
        while at and at not in seen and len(seen) < _MOST_PAGES:
            seen.add(at)
            (num_entries,) = struct.unpack_from(layout.order + layout.count, data, at)
            first = at + struct.calcsize("=" + layout.count)
            # Tags are in ascending order, so only the first can be the subfile type.
            tag, kind, value = struct.unpack_from(layout.order + "HH" + "x" * (layout.value_at - 4) + "I", data, first)
            num_pages += not (tag == _SUBFILE and kind == 4 and value & 1)
            (at,) = struct.unpack_from(layout.order + layout.offset, data, first + num_entries * layout.entry_bytes)
    except (struct.error, OverflowError):
        pass  # the chain is broken after the pages counted so far
    return max(1, num_pages)


def _as_orientation(value: float | None) -> int:
    return int(value) if value is not None and value in range(1, 9) else 1


def _read_xmp(data: bytes, layout: _Layout, entries: dict[int, int]) -> int:
    if _XMP not in entries:
        return 1
    at = entries[_XMP]
    count, offset = struct.unpack_from(layout.order + 2 * layout.offset, data, at + 4)
    return read_orientation(xmp=data[offset : offset + min(count, _MOST_XMP_BYTES)])


def _declare(get: object, bits: int, form: int) -> tuple[float, float] | None:
    """The range that the file declares; None if it declares none or the full range of its type."""
    assert callable(get)
    if form == 1 and 8 < bits < 16:
        return 0.0, 2.0**bits - 1
    low, high = get(_SIGNED_LEAST), get(_SIGNED_GREATEST)
    if high is None:
        low, high = get(_LEAST), get(_GREATEST)
    if bits <= 8 or high is None:
        return None
    low = 0.0 if low is None else low
    whole = {1: (0, 2**bits - 1), 2: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)}.get(form)
    return (low, high) if low < high and (low, high) != whole else None


def _rewrite(
    data: bytes,
    layout: _Layout,
    entries: dict[int, int],
    *,
    inverted: bool = False,
    plane: int | None = None,
    num_planes: int = 1,
) -> bytes:
    """The file with a new directory at its end, which has only the first page and the tags that affect pixels.

    ``plane``: the index of the one channel of a planar file to keep, as greyscale.
    """
    kept = []
    for tag, at in sorted(entries.items()):
        if tag not in _NEEDED:
            continue
        kind, count = struct.unpack_from(layout.order + "H" + layout.offset, data, at + 2)
        num_bytes = _TYPE_BYTES.get(kind, 1) * count
        if num_bytes > struct.calcsize("=" + layout.offset):
            (offset,) = struct.unpack_from(layout.order + layout.offset, data, at + layout.value_at)
            if offset + num_bytes > len(data) or count > _MOST_PIECES:
                raise ValueError(f"tag {tag} lies outside the file")
        else:
            offset = at + layout.value_at
        entry = data[at : at + layout.entry_bytes]
        if tag == _PHOTOMETRIC and (inverted or plane is not None):
            entry = layout.write_number(tag, 1)
        elif plane is not None and tag in _PER_CHANNEL:
            if tag == _EXTRA_SAMPLES:
                continue
            entry = layout.write_number(tag, _PER_CHANNEL[tag])
        elif plane is not None and tag in _PER_PIECE:
            own, of_one = count // num_planes, _TYPE_BYTES.get(kind, 1)
            entry = layout.write_entry(tag, kind, own, data, offset + plane * own * of_one, own * of_one)
        kept.append(entry)
    start = len(data) + len(data) % 2
    if not layout.is_big and start >= 2**32:
        raise ValueError("too long")
    head_bytes = 16 if layout.is_big else 8
    version = 43 if layout.is_big else 42
    head = data[:2] + struct.pack(layout.order + "H", version) + data[4 : head_bytes // 2]
    head += struct.pack(layout.order + layout.offset, start)
    directory = struct.pack(layout.order + layout.count, len(kept)) + b"".join(kept)
    end = struct.pack(layout.order + layout.offset, 0)
    return b"".join([head, memoryview(data)[head_bytes:], b"\0" * (len(data) % 2), directory, end])
