"""An image's fingerprint: the digest of its file, and a thumbnail of 32x32 px, which near duplicates share.

The thumbnail is what a perceptual hash is computed from (pHash takes one of 32x32 too). It is kept whole, because the
search for cropped copies needs the hash of many crops of it. A JPEG is decoded at a fraction of its size: 1 to 2 ms for
640x480 px, nearly all of it entropy decoding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from llava.data.records import StoredImage
from llava.errors import BadImage
from llava.image.decoding import decode, measure
from llava.image.formats import read_header
from llava.image.geometry import Size
from llava.image.source import Limits, read_size
from llava.text import fit_line

THUMBNAIL_PX = 32
DIGEST_BYTES = 16
_LIMITS = Limits()
# A thumbnail is made from an image with at least twice its sides.
_LEAST_PX = 2 * THUMBNAIL_PX

# An image's file, or its bytes.
ImageSource = Path | bytes | StoredImage


@dataclass(frozen=True)
class Fingerprint:
    """What identifies an image.

    Attributes:
        digest: BLAKE2b of the file's bytes, 16 bytes.
        size: of the upright image.
        thumbnail: luma, 32 rows of 32 bytes.
    """

    digest: bytes
    size: Size
    thumbnail: bytes


def fingerprint(source: ImageSource) -> Fingerprint:
    """The fingerprint of an image. Raises BadImage for one that is missing, broken or too large."""
    data, name = read_bytes(source)
    image, size = _draw(data, name, _LEAST_PX)
    small = image.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR)
    return Fingerprint(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(), size, small.tobytes())


def read_bytes(source: ImageSource) -> tuple[bytes, str]:
    """An image's file, and its name for messages. Raises BadImage."""
    if isinstance(source, bytes):
        return source, "The image"
    if not isinstance(source, Path):
        return source.read(), fit_line(source.name)
    name = fit_line(str(source))
    try:
        if source.stat().st_size > _LIMITS.max_bytes:
            raise BadImage(f"{name} has more than {_LIMITS.max_bytes:,} bytes, which is the most allowed.", "max_bytes")
        return source.read_bytes(), name
    except FileNotFoundError as error:
        raise BadImage(f"There is no file {name}.") from error
    except (OSError, ValueError) as error:  # a name with U+0000 is a ValueError
        raise BadImage(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def draw_luma(source: ImageSource, least_px: int) -> Image.Image:
    """An image in grey, upright; a JPEG at a fraction of its size whose shorter side still has ``least_px``.

    Raises:
        BadImage: the image is missing, broken or too large.
    """
    return _draw(*read_bytes(source), least_px)[0]


def draw_pixels(source: ImageSource) -> npt.NDArray[np.uint8]:
    """All pixels, upright, RGB, [height, width, 3]. Raises BadImage."""
    data, name = read_bytes(source)
    read_size(data, name, _LIMITS)
    return np.asarray(decode(measure(read_header(data, name), name), name, draws_damaged=False).image)


def _draw(data: bytes, name: str, least_px: int) -> tuple[Image.Image, Size]:
    size = read_size(data, name, _LIMITS)
    header = measure(read_header(data, name), name)
    scale = 1
    if header.format == "JPEG":
        scale = next((scale for scale in (8, 4, 2) if min(size) >= scale * least_px), 1)
    image = decode(header, name, scale=scale, draws_damaged=False).image
    is_turned = header.orientation >= 5
    return image.convert("L"), Size(size.height, size.width) if is_turned else size
