"""Loads an image from a path, a URL, a data URI, bytes, standard input, an open file or a Pillow image.

The result is upright and RGB, with transparency laid over white; of an animation it is the first frame. An image that
claims more pixels than allowed is refused before decoding. The content is never trusted, but a string may name a local
file, so callers that pass on strings from untrusted clients have to check that they are URLs.

The default limits are for one's own machine: formats of phones, scanners and instruments are read, and the readable
part of a damaged file is shown. docs/images.md describes what is read and how it is changed.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from PIL import Image, ImageFile

from llava.errors import BadImage, UsageError
from llava.image.decoding import TURNED, decode, find_orientation, measure
from llava.image.fetch import fetch
from llava.image.formats import COMMON, RARER, read_header, refuse_misfit
from llava.image.geometry import Size
from llava.image.orientation import turn_upright
from llava.image.tones import show
from llava.text import fit_line, write_line

# A larger JPEG is decoded at a fraction of its size, the smallest that still has these sides. No checkpoint has a
# larger canvas, so the model loses nothing.
_FULL_JPEG_PX = 100_000_000
_DRAFT_LONG_PX, _DRAFT_SHORT_PX = 3072, 1024

_BAND_PX = 4_000_000  # hashed at a time
_START_BYTES = 8192  # checked before the rest of a file is read


@dataclass(frozen=True)
class Limits:
    """Limits for images. An image that exceeds one is refused with a BadImage that names it."""

    max_bytes: int = 512 * 1024 * 1024
    """The size of the file."""
    max_pixels: int = 100_000_000
    """Width times height by the header. Decoding takes up to 24 bytes per pixel."""
    max_jpeg_pixels: int = 300_000_000
    """The same for a JPEG, which can be decoded at a fraction of its size."""
    max_side_px: int = 65_535
    """The longer side: padding to a square costs this many rows, however thin the image is."""
    timeout_s: float = 10.0
    """The deadline for fetching a URL, redirects included."""
    max_redirects: int = 3
    allow_private_addresses: bool = False
    """Whether a URL may lead to loopback, private and other non-public addresses."""
    allow_private_start: bool = False
    """Whether the URL itself may lead to one, but no redirect: for URLs that the local user typed."""
    formats: tuple[str, ...] = COMMON + RARER
    draws_damaged: bool = True
    """Whether the readable part of a damaged file is shown, with a note, instead of refusing the file."""
    explains: bool = True
    """Whether an error says how to raise the limit, which clients of a server cannot do."""

    def with_pixels(self, max_pixels: int | None) -> Limits:
        """These limits with ``max_pixels`` replaced, and raised for JPEG if it was lower; None changes nothing."""
        if max_pixels is None:
            return self
        return replace(self, max_pixels=max_pixels, max_jpeg_pixels=max(max_pixels, self.max_jpeg_pixels))


# For images that the local user names: their own servers may be on private addresses.
FOR_LOCAL_USER = Limits(allow_private_start=True)


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image, upright and RGB. Images with equal size and pixels have equal digests."""

    image: Image.Image
    digest: str
    """SHA-256 of mode, size and pixels, hexadecimal."""
    name: str
    """The image's name in messages."""
    notes: tuple[str, ...] = ()
    """What was changed, such as "turned upright"; empty for an ordinary image."""
    stored: Size | None = None
    """The size in the file, before it was turned or decoded at a fraction of its size; None if unknown."""
    features: Any = field(default=None, compare=False, repr=False)
    """What the tower read in it, float32 [positions, D], where the number of positions follows from that; else None."""

    @property
    def size(self) -> Size:
        """Width and height, px."""
        return Size(*self.image.size)

    def describe(self) -> dict[str, Any]:
        """Name, sizes and notes, as JSON values."""
        stored = self.stored or self.size
        return {
            "name": self.name,
            "stored": {"width": stored.width, "height": stored.height},
            "seen": {"width": self.size.width, "height": self.size.height},
            "notes": list(self.notes),
        }


def say_notes(images: Iterable[LoadedImage]) -> None:
    """Writes one line to standard error for each image that has notes."""
    for image in images:
        if image.notes:
            write_line(f"llava: {fit_line(image.name)}: {'; '.join(image.notes)}.")


def load_image(
    source: str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image, limits: Limits = Limits()
) -> LoadedImage:
    """The image that ``source`` names or holds.

    Args:
        source: a path, in which ~ is the home folder; an http or https URL; a base64 data URI; "-" for standard input;
            a file's bytes; a file opened for reading in binary; or a Pillow image, which is not changed. An image from
            ``Image.open`` is turned upright as its file says, unless that was done before; any other Pillow image, such
            as the result of ``convert`` or ``rotate``, is assumed to be upright.

    Raises:
        BadImage: the image is missing, unreadable, damaged, too large, or of an unsupported format.
        FetchError: (a BadImage) the URL could not be fetched, or is not allowed.
        UsageError: ``source`` has another type.
    """
    if isinstance(source, Image.Image):
        return _take_image(source, limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "The image", bytes(source)
        _check_bytes(len(data), name, limits)
    elif isinstance(source, (str, Path)):
        name, data = _read_named(source, limits)
    elif isinstance(source, os.PathLike):
        name, data = _read_named(Path(os.fsdecode(source)), limits)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "The image"))
        data = _read_stream(source, name, limits)
    else:
        raise UsageError(f"A {type(source).__name__} is no image; pass a path, a URL, bytes, a file or a Pillow image.")
    shown = fit_line(name)
    header = read_header(data, shown, limits.formats)
    if header.size == (0, 0):
        header = measure(header, shown)
    is_jpeg = header.format == "JPEG"
    _check_size(header.size, shown, limits, limits.max_jpeg_pixels if is_jpeg else limits.max_pixels)
    scale = _choose_scale(header.size) if is_jpeg else 1
    drawn = decode(header, shown, scale=scale, draws_damaged=limits.draws_damaged)
    return _finish(drawn.image, name, drawn.notes, header.stored or header.size)


def read_size(data: bytes, name: str, limits: Limits) -> Size:
    """The size of a file's image as stored, by its header. Raises BadImage if ``limits`` do not allow it."""
    header = measure(read_header(data, name, limits.formats), name)
    _check_size(header.size, name, limits, limits.max_jpeg_pixels if header.format == "JPEG" else limits.max_pixels)
    return header.size


def measure_image(source: Path | bytes, limits: Limits = Limits()) -> Size:
    """The size, px, that ``load_image`` would give the image of a file, by its header: nothing is decoded.

    Raises:
        BadImage: the image is missing or unreadable, or its header says that ``limits`` do not allow it.
    """
    name = fit_line(source.name) if isinstance(source, Path) else "The image"
    data = _read_file(source, limits) if isinstance(source, Path) else source
    header = measure(read_header(data, name, limits.formats), name)
    is_jpeg = header.format == "JPEG"
    _check_size(header.size, name, limits, limits.max_jpeg_pixels if is_jpeg else limits.max_pixels)
    scale = _choose_scale(header.size) if is_jpeg else 1
    width, height = (-(-side // scale) for side in header.size)
    return Size(height, width) if header.orientation >= 5 else Size(width, height)


def _choose_scale(size: Size) -> int:
    """The divisor at which a JPEG is decoded: 1, or for a very large one the greatest of 2, 4 and 8 that is enough."""
    if size.width * size.height <= _FULL_JPEG_PX:
        return 1
    parts = (8, 4, 2)
    return next((n for n in parts if max(size) >= n * _DRAFT_LONG_PX and min(size) >= n * _DRAFT_SHORT_PX), 1)


def _finish(image: Image.Image, name: str, notes: tuple[str, ...], stored: Size) -> LoadedImage:
    image.info.clear()  # so that no later reader turns it again
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height} ".encode())
    num_rows = max(1, _BAND_PX // image.width)
    for top in range(0, image.height, num_rows):
        digest.update(image.crop((0, top, image.width, min(top + num_rows, image.height))).tobytes())
    return LoadedImage(image, digest.hexdigest(), name, notes, stored)


def _take_image(image: Image.Image, limits: Limits) -> LoadedImage:
    name = Path(str(getattr(image, "filename", ""))).name or "The image"
    _check_size(Size(*image.size), name, limits, limits.max_pixels)
    stored = Size(*image.size)
    try:
        image.load()
    except Exception as error:  # see decoding
        raise BadImage(f"{name} cannot be decoded: it is damaged or cut off.") from error
    # An image derived from an opened file keeps the file's metadata, but may have been turned already. So only the
    # opened file itself is turned.
    orientation = find_orientation(image) if isinstance(image, ImageFile.ImageFile) else 1
    shown, notes = show(image, name)
    turned = turn_upright(shown, orientation)
    if turned is image:
        turned = image.copy()  # the caller's image must not be shared
    return _finish(turned, name, (*notes, TURNED) if orientation != 1 else notes, stored)


def _check_bytes(num_bytes: int, name: str, limits: Limits) -> None:
    if num_bytes > limits.max_bytes:
        raise BadImage(
            f"{name} has {num_bytes:,} bytes; at most {limits.max_bytes:,} are allowed."
            + _say_way_out(limits, f"limits=Limits(max_bytes={num_bytes}) in Python"),
            "max_bytes",
        )


def _check_size(size: Size, name: str, limits: Limits, max_pixels: int) -> None:
    num_px = size.width * size.height
    if min(size) < 1:
        raise BadImage(f"{name} has {size} px: there is nothing to see.")
    if num_px > max_pixels:
        millions = f"{-(-num_px // 10**6)}M"
        raise BadImage(
            f"{name} has {size} px, {num_px:,} in all; at most {max_pixels:,} are allowed."
            + _say_way_out(limits, f"--max-image-pixels {millions}, or limits=Limits(max_pixels={num_px}) in Python"),
            "max_pixels",
        )
    if max(size) > limits.max_side_px:
        raise BadImage(
            f"{name} has {size} px; a side may have at most {limits.max_side_px:,}."
            + _say_way_out(limits, f"limits=Limits(max_side_px={max(size)}) in Python"),
            "max_side_px",
        )


def _say_way_out(limits: Limits, way_out: str) -> str:
    return f" Make it smaller, or allow more: {way_out}." if limits.explains else ""


def _read_named(source: str | Path, limits: Limits) -> tuple[str, bytes]:
    """The name for messages and the bytes of the image that a string or path names."""
    text = str(source)
    if isinstance(source, Path):
        return source.name, _read_file(source, limits)
    if text == "-":
        data = _read_stream(sys.stdin.buffer, "Standard input", limits)
        if not data:
            raise BadImage("Standard input holds nothing, or nothing more: pipe one image into it and name - once.")
        return "Standard input", data
    if text[:5].lower() == "data:":
        return "The data URI", read_data_uri(text, limits)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", text)
    if scheme and scheme[1].lower() in ("http", "https"):
        data = fetch(
            text,
            max_bytes=limits.max_bytes,
            timeout_s=limits.timeout_s,
            max_redirects=limits.max_redirects,
            allow_private_addresses=limits.allow_private_addresses,
            allow_private_start=limits.allow_private_start,
        )
        return Path(urlsplit(text).path).name or text[:100], data
    if scheme and not os.path.exists(text):
        such = f", such as {fit_line(unquote(urlsplit(text).path))}" if scheme[1].lower() == "file" else ""
        raise BadImage(f"{scheme[1]}: is not opened; pass a path{such}, an http or https URL, or a data URI.")
    if not text:
        raise BadImage("The image's name is empty.")
    path = expand_home(text)
    return path.name, _read_file(path, limits)


def expand_home(text: str) -> Path:
    """A path with ~ and ~user expanded as in a shell, unless a file of that name exists."""
    return Path(text) if not text.startswith("~") or os.path.exists(text) else Path(os.path.expanduser(text))


def _read_file(path: Path, limits: Limits) -> bytes:
    shown = fit_line(str(path))
    try:
        with path.open("rb") as file:
            return _read_stream(file, shown, limits)
    except FileNotFoundError as error:
        raise BadImage(f"There is no file {shown}.{_say_decoded(path)}") from error
    except IsADirectoryError as error:
        raise BadImage(f"{shown} is a folder, not an image.") from error
    except PermissionError as error:
        kind = "a folder, not an image" if path.is_dir() else "not readable: permission denied"
        raise BadImage(f"{shown} is {kind}.") from error
    except BadImage:
        raise
    except (OSError, ValueError) as error:  # a name with U+0000 is a ValueError
        raise BadImage(f"{shown} cannot be read: {_say_reason(path, error)}.") from error


def _say_decoded(path: Path) -> str:
    """A hint for a missing path that is percent-encoded; "" if the decoded path does not exist either."""
    decoded = unquote(str(path))
    return f" There is a {fit_line(decoded)}: pass that." if decoded != str(path) and os.path.isfile(decoded) else ""


def _say_reason(path: Path, error: Exception) -> str:
    if os.name == "posix" and isinstance(error, OSError) and error.errno == errno.ENXIO:
        return "it is a socket" if path.is_socket() else "this device does not exist"
    reason = (error.strerror if isinstance(error, OSError) else str(error)) or "the system does not say why"
    return (reason[0].lower() + reason[1:]).rstrip(".")


def _read_stream(file: BinaryIO, name: str, limits: Limits) -> bytes:
    """All bytes of a file. One that does not begin like an image, such as a large video, is refused before that."""
    if getattr(file, "closed", False):
        raise UsageError(f"{name} is a file that was closed; open it again.")
    try:
        if hasattr(file, "peek") and isinstance(start := file.peek(_START_BYTES), bytes):
            refuse_misfit(start, name, limits.formats)
        data = file.read(limits.max_bytes + 1)
    except (BadImage, IsADirectoryError):
        raise
    except (OSError, ValueError, EOFError) as error:  # a truncated compressed file is an EOFError
        raise BadImage(f"{name} cannot be read: {_say_reason(Path(), error)}.") from error
    if not isinstance(data, bytes):
        raise UsageError(f"{name} is open for reading text; open it for reading in binary.")
    return _check_read(data, name, limits)


def _check_read(data: bytes, name: str, limits: Limits) -> bytes:
    """Raises BadImage for too many bytes. At most one too many was read, so the total is unknown."""
    if len(data) > limits.max_bytes:
        raise BadImage(
            f"{name} has more than {limits.max_bytes:,} bytes, which is the most allowed."
            + _say_way_out(limits, "limits=Limits(max_bytes=...) in Python"),
            "max_bytes",
        )
    return data


def read_data_uri(uri: str, limits: Limits) -> bytes:
    """The bytes of a data URI, decoded as in browsers. Raises BadImage.

    Base64 may be percent-encoded, contain white space, lack its padding, or use the URL-safe alphabet. The media type
    is ignored, because the bytes show what they are.

    Source: https://fetch.spec.whatwg.org/#data-url-processor.
    """
    head, comma, body = uri.strip().partition(",")
    is_base64 = re.search(r"; *base64\s*$", head, re.IGNORECASE) is not None
    if not comma or not (is_base64 or "%" in body):
        raise BadImage("The data URI does not begin with 'data:image/...;base64,'.")
    body = body.partition("#")[0]
    data = unquote_to_bytes(body) if "%" in body or not body.isascii() else body.encode("ascii")
    if is_base64:
        data = b"".join(data.split()).rstrip(b"=")
        _check_bytes(len(data) * 3 // 4, "The data URI", limits)
        try:
            data = base64.b64decode(data.translate(_URL_ALPHABET) + b"=" * (-len(data) % 4), validate=True)
        except binascii.Error as error:
            raise BadImage("The data URI holds something that is not base64, or was cut off.") from error
    _check_bytes(len(data), "The data URI", limits)
    return data


_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")
