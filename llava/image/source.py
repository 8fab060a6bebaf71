"""A picture from wherever it is: a path, a URL, a data URI, bytes, standard input, an open file, a Pillow image.

Whatever it was, it comes out upright and RGB, with transparency laid over white, of an animation the first frame; and
it was refused before decoding if it claims more pixels than allowed. Nothing here trusts the sender, except that a
string may name a local file: who passes on strings from strangers checks for a URL first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes, urlsplit

from PIL import Image

from llava.errors import BadImage, UsageError
from llava.image.fetch import fetch
from llava.image.formats import decode, read_header, read_orientation, to_rgb, turn_upright
from llava.image.geometry import Size


@dataclass(frozen=True)
class Limits:
    """What a picture may cost. Exceeding one is a BadImage whose message names it."""

    max_bytes: int = 20 * 1024 * 1024
    """Of the file, as it is stored or sent."""
    max_pixels: int = 25_000_000
    """Width times height, as the header says."""
    max_side_px: int = 16_384
    """Of the longer side: padding to a square costs its square, however thin the picture is."""
    timeout_s: float = 10.0
    """For fetching a URL, redirects and all."""
    max_redirects: int = 3
    allow_private_addresses: bool = False
    """Whether a URL may lead to loopback, private and other addresses that are not public."""
    allow_private_start: bool = False
    """Whether a URL itself may lead to one, but none that it redirects to: for who named it, on their own machine."""
    formats: tuple[str, ...] = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


# For what the person at this machine names: a server of theirs is as good as a file of theirs.
FOR_LOCAL_USER = Limits(allow_private_start=True)


@dataclass(frozen=True)
class Picture:
    """A picture ready for use: upright, RGB. Pictures of equal size and pixels have equal digests."""

    image: Image.Image
    digest: str
    """SHA-256 over mode, size and pixels, in hexadecimal."""
    name: str
    """What to call it in messages."""

    @property
    def size(self) -> Size:
        return Size(*self.image.size)


def load_picture(
    source: str | Path | bytes | bytearray | memoryview | BinaryIO | Image.Image, limits: Limits = Limits()
) -> Picture:
    """The picture that ``source`` names, holds or is.

    Args:
        source: a path; an http or https URL; a base64 data URI; "-" for standard input; a file's bytes; a file
            opened for reading in binary; or a Pillow image, which may be of any size and mode that ``limits`` and RGB
            allow and is not changed.

    Raises:
        BadImage: missing, unreadable, damaged, too large, or of an unsupported format.
        FetchError: (a BadImage) the URL could not be fetched or is not allowed.
        UsageError: ``source`` is of another type.
    """
    if isinstance(source, Image.Image):
        return _take_image(source, limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name, data = "The picture", bytes(source)
        _check_bytes(len(data), name, limits)
    elif isinstance(source, (str, Path)):
        name, data = _read_named(source, limits)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "The picture"))
        data = _read_stream(source, name, limits)
    else:
        raise UsageError(
            f"A {type(source).__name__} is no picture; pass a path, a URL, bytes, a file or a Pillow image."
        )
    header = read_header(data, name, limits.formats)
    _check_size(header.size, name, limits)
    return _finish(decode(header, name), name)


def read_size(data: bytes, name: str, limits: Limits) -> Size:
    """What a file's header says its picture measures, as it is stored, once ``limits`` allow it. Raises BadImage."""
    header = read_header(data, name, limits.formats)
    _check_size(header.size, name, limits)
    return header.size


def _finish(image: Image.Image, name: str) -> Picture:
    image = image.copy()  # nobody else's, and no longer tied to a file
    image.info.clear()  # nor does it say again which way it was turned
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height} ".encode())
    digest.update(image.tobytes())
    return Picture(image, digest.hexdigest(), name)


def _take_image(image: Image.Image, limits: Limits) -> Picture:
    name = Path(str(getattr(image, "filename", ""))).name or "The picture"
    _check_size(Size(*image.size), name, limits)
    try:
        image.load()
    except Exception as error:  # see formats.decode
        raise BadImage(f"{name} cannot be decoded: it is damaged or cut off.") from error
    exif = image.info.get("exif")
    return _finish(turn_upright(to_rgb(image, name), read_orientation(exif) if isinstance(exif, bytes) else 1), name)


def _check_bytes(num_bytes: int, name: str, limits: Limits) -> None:
    if num_bytes > limits.max_bytes:
        raise BadImage(f"{name} has {num_bytes:,} bytes; at most {limits.max_bytes:,} are allowed.", "max_bytes")


def _check_size(size: Size, name: str, limits: Limits) -> None:
    if min(size) < 1:
        raise BadImage(f"{name} has {size} px: there is nothing to see.")
    if size.width * size.height > limits.max_pixels:
        raise BadImage(
            f"{name} has {size} px, {size.width * size.height:,} in all; at most {limits.max_pixels:,} are allowed.",
            "max_pixels",
        )
    if max(size) > limits.max_side_px:
        raise BadImage(f"{name} has {size} px; a side may have at most {limits.max_side_px:,}.", "max_side_px")


def _read_named(source: str | Path, limits: Limits) -> tuple[str, bytes]:
    """A name for messages, and the bytes, of what a string or path leads to."""
    text = str(source)
    if isinstance(source, Path):
        return source.name, _read_file(source, limits)
    if text == "-":
        return "Standard input", _read_stream(sys.stdin.buffer, "Standard input", limits)
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
    if scheme:
        raise BadImage(f"{scheme[1]}: is not opened; pass a path, an http or https URL, or a data URI.")
    if not text:
        raise BadImage("The picture's name is empty.")
    return Path(text).name, _read_file(Path(text), limits)


def _read_file(path: Path, limits: Limits) -> bytes:
    shown = str(path) if len(str(path)) <= 200 else str(path)[:197] + "..."
    try:
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise BadImage(f"There is no file {shown}.") from error
    except IsADirectoryError as error:
        raise BadImage(f"{shown} is a folder, not a picture.") from error
    except PermissionError as error:
        kind = "a folder, not a picture" if path.is_dir() else "not readable: permission denied"
        raise BadImage(f"{shown} is {kind}.") from error
    except (OSError, ValueError) as error:
        raise BadImage(f"{shown!r} cannot be read.") from error
    return _check_read(data, shown, limits)


def _read_stream(file: BinaryIO, name: str, limits: Limits) -> bytes:
    try:
        data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise BadImage(f"{name} cannot be read.") from error
    if not isinstance(data, bytes):
        raise UsageError(f"{name} is open for reading text; open it for reading in binary.")
    return _check_read(data, name, limits)


def _check_read(data: bytes, name: str, limits: Limits) -> bytes:
    """No more than one byte too many was read: how many there are in all is not known."""
    if len(data) > limits.max_bytes:
        raise BadImage(f"{name} has more than {limits.max_bytes:,} bytes, which is the most allowed.", "max_bytes")
    return data


def read_data_uri(uri: str, limits: Limits) -> bytes:
    """The bytes of a data URI, read as browsers do. Raises BadImage.

    Base64 may be percent-encoded, broken by white space, without its padding, or in the alphabet for URLs. The media
    type is not looked at: the bytes say what they are.

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
