"""Decodes the first frame of an image file to upright RGB, with notes on what was changed.

Each format's decoder is called directly, because Pillow's ``Image.open`` would try all of them, apply its own size
limit, and start Ghostscript for PostScript. The part of a damaged file that a decoder draws before it fails is kept, as
in browsers, if the caller wants it; a note says how much is missing.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFile

from llava.errors import BadImage
from llava.image.formats import COMMON, Header, with_article
from llava.image.geometry import Size
from llava.image.heif import find_turn
from llava.image.jpeg2000 import read_bits, refuse_overflow, spread
from llava.image.netpbm import Values, read_values
from llava.image.orientation import read_orientation, turn_upright
from llava.image.tones import show, show_deep

_DECODERS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "ICO": ("PIL.IcoImagePlugin", "IcoImageFile"),
    "TGA": ("PIL.TgaImagePlugin", "TgaImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "PCX": ("PIL.PcxImagePlugin", "PcxImageFile"),
    "DDS": ("PIL.DdsImagePlugin", "DdsImageFile"),
    "QOI": ("PIL.QoiImagePlugin", "QoiImageFile"),
    "SGI": ("PIL.SgiImagePlugin", "SgiImageFile"),
}
_MISSING = {
    "HEIC": 'needs the heif extra: pip install "llava[heif]". Or convert it to JPEG',
    "AVIF": "needs a Pillow that was built with AVIF: pip install -U pillow. Or convert it to PNG",
}
_FETCH_AGAIN = ". Copy or download it again, or export it as 8-bit PNG."
TURNED = "turned upright"
# The colour of missing parts of a damaged image, the same as JPEG decoders use.
_MISSING_COLOR = (128, 128, 128)
_BLOCK_PX = 8  # the side of a JPEG's blocks
_BAND_PX = 1_000_000  # processed at a time, to bound the memory


@dataclass(frozen=True)
class Drawn:
    """An upright RGB image, and notes on what was changed."""

    image: Image.Image
    notes: tuple[str, ...]


def measure(header: Header, name: str) -> Header:
    """The header, completed with what only the decoder knows: size, orientation and frames. No pixel is decoded.

    Raises:
        BadImage: the decoder is not installed, or cannot read the file.
    """
    if header.size != (0, 0):
        return header
    with _complaints(header, name), contextlib.closing(_open(header)) as image:
        num_frames = getattr(image, "n_frames", 1)
        size, frames = Size(*image.size), f"image 1 of {num_frames}" if num_frames > 1 else ""
        if header.format != "HEIC":
            return replace(header, size=size, orientation=find_orientation(image), frames=frames)
        # HEIC's decoder turns the image itself, as the container says, and EXIF is ignored.
        turn = find_turn(header.data)
        return replace(
            header,
            size=size,
            stored=Size(size.height, size.width) if turn.quarters % 2 else size,
            frames=frames,
            notes=(TURNED,) if turn.quarters or turn.is_mirrored else (),
        )


def find_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, in the metadata of an image that Pillow opened."""

    def get(key: str) -> bytes | None:
        value = image.info.get(key)
        if isinstance(value, str):
            return value.encode("utf-8", "replace")
        return value if isinstance(value, bytes) else None

    return read_orientation(get("exif"), get("XML:com.adobe.xmp") or get("xmp"), get("Raw profile type exif"))


def decode(header: Header, name: str, *, scale: int = 1, draws_damaged: bool = True) -> Drawn:
    """The first frame, upright, RGB.

    Args:
        scale: 1, or for a JPEG 2, 4 or 8: decodes at that fraction of the size, which is proportionally cheaper.
        draws_damaged: whether to return what can be decoded of a damaged file.

    Raises:
        BadImage: the file is damaged or cut off, or the decoder does not support this variant of the format.
    """
    if header.doubts and not draws_damaged:
        raise BadImage(f"{name} is {with_article(header.format)} that is damaged: {'; '.join(header.doubts)}.")
    if header.planes:
        return _decode_planes(header, name)
    if header.format == "PPM":
        with _complaints(header, name):
            values = read_values(header.data)
        if values is not None:
            return _show_values(values, header, name, draws_damaged)
    notes = [header.frames, *header.doubts]
    header_notes = header.notes
    with _complaints(header, name):
        image = _open(header)
        if scale > 1:
            image.draft(None, (header.size.width // scale, header.size.height // scale))
            notes.append(f"decoded at 1/{scale} of its {header.size} px")
        elif image.size != tuple(header.size):
            raise ValueError(f"the decoder finds {image.size}, the header {header.size}")
        rows: tuple[int, int] | None = None
        try:
            _load(image)
        except Exception as error:
            if not draws_damaged:
                raise
            image, rows, note = _salvage(header, image, scale, error)
            notes.append(note)
            header_notes = ()  # the note on the damage says it all
        else:
            notes.append(_say_grey(image))
        deep = None if rows or scale > 1 else _read_deep(header, image)
        bits = read_bits(header.data) if header.format == "JPEG2000" else ()
        refuse_overflow(image, bits, name)
    if deep is None:
        shown, more = show(spread(image, bits), name, header.declared, inverted=header.inverted, samples=header.samples)
        del image  # frees it, unless it is the image shown
    else:
        del image  # its pixels are in the values
        shown, more = show_deep(*deep, name, header.declared)
        del deep
    if isinstance(shown, ImageFile.ImageFile):
        shown = shown._new(shown.im)  # the same pixels, without the file
    if rows is not None:
        shown = _fill_missing(shown, rows)
    if header.orientation != 1:
        more += (TURNED,)
    return Drawn(turn_upright(shown, header.orientation), (*filter(None, notes), *header_notes, *more))


@contextlib.contextmanager
def _complaints(header: Header, name: str) -> Iterator[None]:
    """Turns every error inside into a BadImage. Decoders raise SyntaxError, EOFError, struct.error, KeyError, ..."""
    try:
        if header.format in COMMON:
            yield
            return
        # Pillow's warnings (inconsistent sizes, its own limit) are covered by our notes and limits.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadImage:
        raise
    except ImportError as error:
        needed = _MISSING.get(header.format, "cannot be read by this Pillow. Convert it to PNG")
        raise BadImage(f"{name} is {header.format}, which {needed}.") from error
    except MemoryError as error:
        raise BadImage(f"{name} takes too much memory to decode. Make it smaller.") from error
    except Exception as error:
        if header.kind == "raw":
            raise BadImage(f"{name} is a camera's raw file. Develop it, or export it as JPEG or TIFF.") from error
        kind = f" ({header.kind})" if header.kind else ""
        raise BadImage(
            f"{name} is {with_article(header.format)}{kind} that cannot be decoded: it is damaged or cut off"
            + (", or of a kind that the decoder does not know. Convert it to 8-bit PNG." if kind else _FETCH_AGAIN)
        ) from error


def _open(header: Header) -> ImageFile.ImageFile:
    """The decoder with the file's bytes; no pixel is decoded yet, except of ICO."""
    if header.kind == "raw":
        raise ValueError("raw")
    module, name = _DECODERS[header.format]
    opened: ImageFile.ImageFile = getattr(importlib.import_module(module), name)(io.BytesIO(header.data))
    return opened


def _load(image: Any) -> None:
    if image.format == "TIFF" and image.tile and _is_plain_ycbcr(image):
        # Pillow reads these values as RGB; libtiff, which it uses only for compressed files, converts them.
        args = ("RGBX", "raw", False, image.tag_v2.offset)
        image.tile = [type(image.tile[0])("libtiff", (0, 0, *image._tile_size), 0, args)]
        image.use_load_libtiff = True
    if hasattr(image, "_tile_size") and image._im is None:
        # Allocating here skips the TIFF decoder's check of Pillow's own limit; ours has been checked.
        image.im = Image.new(image.mode, image._tile_size).im
    image.load()


def _is_plain_ycbcr(image: Any) -> bool:
    return image.tag_v2.get(262) == 6 and image.tag_v2.get(277) == 3 and not image.use_load_libtiff


def _salvage(
    header: Header, image: ImageFile.ImageFile, scale: int, error: Exception
) -> tuple[ImageFile.ImageFile, tuple[int, int] | None, str]:
    """What the decoder drew before it failed, the rows that it covers, and a note. Raises if it drew nothing.

    A JPEG is decoded once more with an end marker appended: its decoder then draws all that it has, the rest grey.
    """
    drawn = _drawn_rows(image)
    if header.format == "JPEG":
        whole = _open(replace(header, data=header.data + b"\xff\xd9"))
        if scale > 1:
            whole.draft(None, (header.size.width // scale, header.size.height // scale))
        with contextlib.suppress(Exception):
            whole.load()
            # A progressive JPEG is drawn only at its end; all of it is there, but coarse.
            rows = _drawn_rows(whole)
            if rows is not None:
                return whole, None, _say_missing(drawn or rows, whole.height)
    if drawn is None or (len(image.getbands()) > 1 and _lies_by_channel(image)):
        raise ValueError("nothing was drawn, or not in all channels") from error
    image.tile = []
    return image, drawn, _say_missing(drawn, image.height)


def _lies_by_channel(image: Any) -> bool:
    """Whether a file that was cut off lacks whole channels, so that the rest has wrong colours."""
    return image.format == "SGI" or (image.format == "TIFF" and image.tag_v2.get(284) == 2)


def _drawn_rows(image: ImageFile.ImageFile) -> tuple[int, int] | None:
    """The first row with decoded pixels, and the row after the last; None if there are none."""
    core = getattr(image, "_im", None)
    box = core.getbbox() if core is not None else None
    if box is None:
        return None
    if image.format == "GIF":  # its pixels are initialized with the background colour
        image.tile = []
        pixels = np.asarray(image)
        differs = (pixels != pixels[-1, -1]).reshape(image.height, -1).any(axis=1)
        return 0, int(image.height - np.argmax(differs[::-1])) if differs.any() else 0
    return box[1], box[3]


def _say_missing(rows: tuple[int, int], height: int) -> str:
    percent = round(100 - 100 * (rows[1] - rows[0]) / height)
    if percent < 1:
        return "the file is damaged or cut off: parts or details of it are missing"
    return f"the file is damaged or cut off: about {percent} % of its rows are missing, shown grey"


def _say_grey(image: Image.Image) -> str:
    """A note on a JPEG that ends in grey, which its decoder draws silently if the data ends too early; "" otherwise."""
    if image.format != "JPEG" or image.mode not in ("L", "RGB") or image.height <= _BLOCK_PX:
        return ""
    grey = Image.new(image.mode, (image.width, _BLOCK_PX), _MISSING_COLOR[: len(image.getbands())])
    height = image.height
    while height > 0:
        top = max(0, height - _BLOCK_PX)
        box = ImageChops.difference(image.crop((0, top, image.width, top + _BLOCK_PX)), grey).getbbox()
        if box is not None:
            height = top + box[3]
            break
        height = top
    if not 0 < height <= image.height - _BLOCK_PX:
        return ""
    percent = min(99, max(1, round(100 - 100 * height / image.height)))
    return f"the last {percent} % of its rows are plain grey, as decoders draw what is missing"


def _fill_missing(image: Image.Image, rows: tuple[int, int]) -> Image.Image:
    image = image.copy()
    if rows[0] > 0 and rows[1] == image.height:  # stored bottom-up
        image.paste(_MISSING_COLOR, (0, 0, image.width, rows[0]))
    else:
        image.paste(_MISSING_COLOR, (0, rows[1], image.width, image.height))
    return image


_DEEP = re.compile(r"(RGB|RGBX|RGBA|LA);16([LBN])")


def _read_deep(header: Header, image: ImageFile.ImageFile) -> tuple[Any, Image.Image | None] | None:
    """The 16-bit colour values [height, width, channels] and the alpha of a file that uses little of their range.

    Pillow keeps only the upper byte of each value. Decoded with the opposite byte order, the same data yields the lower
    byte, so such a file is decoded twice. None for all other images.
    """
    if header.format not in ("PNG", "TIFF"):
        return None
    again = _open(header)
    rawmode = _rawmode(again)
    match = _DEEP.fullmatch(rawmode)
    if match is None:
        return None
    num_colors = 1 if match[1] == "LA" else 3
    extrema: Any = [image.getchannel(i).getextrema() for i in range(num_colors)]
    low, high = min(least for least, _ in extrema), max(most for _, most in extrema)
    if high - low >= 128 or low == high > 127:
        return None
    if match[1] == "LA":
        again._mode, swapped = "RGBA", "RGBA"
    else:
        is_little = match[2] == "L" or (match[2] == "N" and sys.byteorder == "little")
        swapped = f"{match[1]};16{'B' if is_little else 'L'}"
    again.tile = [_with_rawmode(tile, swapped) for tile in again.tile]
    _load(again)
    values = np.empty((image.height, image.width, num_colors), np.uint16)
    num_rows = max(1, _BAND_PX // image.width)
    for top in range(0, image.height, num_rows):
        band = (0, top, image.width, min(top + num_rows, image.height))
        upper, lower = np.asarray(image.crop(band)), np.asarray(again.crop(band))
        lower = lower[..., 1:2] if num_colors == 1 else lower[..., :3]
        values[top : band[3]] = upper[..., :num_colors].astype(np.uint16) << 8 | lower
    return values, image.getchannel("A") if image.mode in ("LA", "RGBA") else None


def _decode_planes(header: Header, name: str) -> Drawn:
    """The image of a planar file with 16 bits per channel, decoded channel by channel as greyscale."""
    planes = []
    with _complaints(header, name):
        for data in header.planes:
            plane = _open(replace(header, data=data))
            if plane.size != tuple(header.size):
                raise ValueError("a channel of another size")
            _load(plane)
            planes.append(np.asarray(plane).astype(np.uint16))
        while len(planes) < 3:
            planes.append(planes[-1])
        alpha = _open(header).mode == "RGBA" and len(planes) == 4
    opacity = Image.fromarray((planes[3] >> 8).astype(np.uint8)) if alpha else None
    shown, more = show_deep(np.stack(planes[:3], -1), opacity, name, header.declared)
    if header.orientation != 1:
        more += (TURNED,)
    return Drawn(turn_upright(shown, header.orientation), (*filter(None, [header.frames]), *more))


def _show_values(values: Values, header: Header, name: str, draws_damaged: bool) -> Drawn:
    """The image of a PGM or PPM, whose greatest value is white."""
    rows, height, greatest = values
    notes: tuple[str, ...] = ()
    if len(rows) < height:
        if not draws_damaged:
            raise BadImage(f"{name} is {with_article(header.format)} that is cut off{_FETCH_AGAIN}")
        notes = (_say_missing((0, len(rows)), height),)
    if greatest > 255:
        shown, more = show_deep(rows, None, name, (0.0, greatest) if greatest < 2**16 - 1 else None)
    else:
        table = np.rint(np.arange(256) / greatest * 255).clip(0, 255).astype(np.uint8)
        bytes_HWC = table[rows]
        shown, more = Image.fromarray(bytes_HWC if bytes_HWC.shape[-1] == 3 else bytes_HWC[..., 0]).convert("RGB"), ()
    if notes:
        whole = Image.new("RGB", (shown.width, height), _MISSING_COLOR)
        whole.paste(shown)
        shown = whole
    return Drawn(shown, notes + more)


def _rawmode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0][3] if image.tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    args = (rawmode, *tile[3][1:]) if isinstance(tile[3], tuple) else rawmode
    return type(tile)(*tile[:3], args)
