"""Converts an image of any mode to 8-bit RGB: lays transparency over white and stretches wide values to 0..255.

White writing on nothing would vanish on white, so what is drawn in light colours alone is laid over black.

A 16-bit file that uses at least half of its range keeps the upper 8 bits of each value. A file that uses less (12-bit
values of a scanner or a camera, depth in mm, signed CT values, floats) would be nearly black that way, so the range
that the file declares, or else the range that it uses, is stretched to 0..255, and a note says so. Colour profiles are
not applied, as in the original.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from llava.errors import BadImage

Range = tuple[float, float]
"""The least and the greatest value that a file declares."""

_WHITE = 255
_HALF_OF_16_BITS = 2**15
_BAND_PX = 4_000_000  # mapped at a time, to bound the memory


def to_rgb(image: Image.Image, name: str = "The image") -> Image.Image:
    """The image in mode RGB; an RGB image is returned as is. Raises BadImage as ``show`` does."""
    return show(image, name)[0]


def show(
    image: Image.Image, name: str, declared: Range | None = None, *, inverted: bool = False, samples: str = ""
) -> tuple[Image.Image, tuple[str, ...]]:
    """The image in mode RGB, and notes on what was changed.

    ``declared``: the range of values that the file declares. ``inverted``: whether the lowest value is white.
    ``samples``: NumPy's name of the values' type, if the image's mode implies another.

    Raises:
        BadImage: the mode cannot be converted, or all values are NaN or infinite.
    """
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and transparent is None:
        return image, ()
    is_signed_byte = samples == "i1" and image.mode == "L"
    if image.mode.startswith("I") or image.mode == "F" or is_signed_byte:
        values = np.asarray(image)
        if is_signed_byte:
            values, declared = values.view(np.int8), (-128.0, 127.0)
        elif samples == "u4" and values.dtype == np.int32:
            values = values.view(np.uint32)
        grey, note = map_values(values, name, declared, inverted=inverted)
        notes: tuple[str, ...] = (note,) if note else ()
        if isinstance(transparent, int) and (hidden := values == transparent).any():
            grey[hidden] = _WHITE
            notes += (_TRANSPARENT,)
        return Image.fromarray(grey).convert("RGB"), notes
    try:
        if image.mode in ("La", "RGBa"):
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        if transparent is not None or image.mode in ("LA", "PA", "RGBA"):
            return _lay_over_paper(image if image.mode == "RGBA" else image.convert("RGBA"))
        if image.mode == "LAB":
            return _convert_lab(image), ()
        return image.convert("RGB"), ()
    except (ValueError, OSError) as error:
        raise BadImage(
            f"{name} has the colour mode {image.mode}, which cannot be shown as RGB. Convert it to RGB first."
        ) from error


_TRANSPARENT, _TRANSPARENT_BLACK = "transparent parts are shown white", "transparent parts are shown black"
# Light is what hardly differs from white; at its borders to what is transparent, a drawing that white would hide has
# this share of light pixels at least, and this share of dark ones at most. It covers this share of the image at most.
_LIGHT, _DARK, _LEAST_LIGHT, _MOST_DARK, _MOST_SHOWN = 200, 96, 0.25, 0.02, 0.6


def _lay_over_paper(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The image over white, or over black where white would hide what is drawn, and a note."""
    alpha = image.getchannel("A")
    lowest: Any = alpha.getextrema()[0]
    if lowest == _WHITE:
        return image.convert("RGB"), ()
    is_hidden = _vanishes_on_white(image)
    paper = Image.new("RGB", image.size, (0 if is_hidden else _WHITE,) * 3)
    paper.paste(image, mask=alpha)
    return paper, (_TRANSPARENT_BLACK if is_hidden else _TRANSPARENT,)


def _vanishes_on_white(image: Image.Image) -> bool:
    """Whether little is shown, and what borders on transparent parts is light or nearly so, as white letters are."""
    width, height = image.size
    rows = max(1, _BAND_PX // width)
    shown, borders = 0, np.zeros(_WHITE + 1, np.int64)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(height, top + rows)))
        is_shown = np.asarray(band.getchannel("A")) > _WHITE // 2
        is_inner = is_shown.copy()
        for one, other in ((is_inner, is_shown), (is_inner.T, is_shown.T)):
            one[1:] &= other[:-1]
            one[:-1] &= other[1:]
        lights = np.asarray(band.convert("RGB").convert("L"))[is_shown & ~is_inner]
        borders += np.bincount(lights, minlength=_WHITE + 1)
        shown += int(is_shown.sum())
    if not borders.any() or shown > _MOST_SHOWN * width * height:
        return False
    return bool(
        borders[_LIGHT:].sum() >= _LEAST_LIGHT * borders.sum() and borders[:_DARK].sum() <= _MOST_DARK * borders.sum()
    )


def _convert_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms  # Pillow may be built without it

    to_srgb = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    shown = ImageCms.applyTransform(image, to_srgb)
    assert shown is not None
    return shown


def show_deep(
    values_HWC: npt.NDArray[np.uint16], alpha: Image.Image | None, name: str, declared: Range | None
) -> tuple[Image.Image, tuple[str, ...]]:
    """16-bit channels as RGB, and notes. All channels share one range, so the colour balance stays."""
    shown, note = map_values(values_HWC, name, declared)
    notes: tuple[str, ...] = (note,) if note else ()
    image = Image.fromarray(shown) if shown.shape[-1] == 3 else Image.fromarray(shown[..., 0]).convert("RGB")
    del shown
    if alpha is None:
        return image, notes
    image.putalpha(alpha)
    image, more = _lay_over_paper(image)
    return image, notes + more


def map_values(
    values: npt.NDArray[Any], name: str, declared: Range | None = None, *, inverted: bool = False
) -> tuple[npt.NDArray[np.uint8], str | None]:
    """Wide values as 8-bit values, and a note unless they are the upper 8 of 16 bits. Raises as ``show`` does."""
    if values.dtype.kind == "f":
        shown, note = _map_floats(values, name, declared)
    else:
        shown, note = _map_integers(values, declared)
    if inverted:
        np.subtract(_WHITE, shown, out=shown)
    return shown, note


def _map_integers(values: npt.NDArray[Any], declared: Range | None) -> tuple[npt.NDArray[np.uint8], str | None]:
    low, high = int(values.min()), int(values.max())
    if declared is not None and declared[0] <= low and high <= declared[1] < 2**31:
        first, last = math.floor(declared[0]), math.ceil(declared[1])
    elif _fills_16_bits(low, high):
        first, last = 0, 2**16 - 1
    else:
        first, last = low, high
    if (first, last) == (0, 2**16 - 1):
        note = None
    else:
        note = f"its values {first} to {last} are shown as 0 to 255"

    def spread(band: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # For 0 to 65535 this is exactly the upper 8 bits.
        return (band.astype(np.int64) - first) * 256 // (last - first + 1)

    return _by_bands(values, spread), note


def _fills_16_bits(low: int, high: int) -> bool:
    """Whether the upper 8 of 16 bits show these values well: they span half the range, or are bright and near equal."""
    if low < 0 or high >= 2**16:
        return False
    span = high - low
    return span >= _HALF_OF_16_BITS or span == 0 or (span < 256 and high >= _HALF_OF_16_BITS)


def _map_floats(
    values: npt.NDArray[Any], name: str, declared: Range | None
) -> tuple[npt.NDArray[np.uint8], str | None]:
    finite = np.isfinite(values)
    num_other = values.size - int(np.count_nonzero(finite))
    if num_other == values.size:
        raise BadImage(f"{name} holds only floating-point values that are NaN or infinite: there is nothing to see.")
    low = float(values.min(where=finite, initial=np.inf))
    high = float(values.max(where=finite, initial=-np.inf))
    first, last = _choose_float_range(low, high, declared)
    del finite
    scale = 255 / (last - first) if last > first else 0.0

    def spread(band: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # NaN and -inf are shown as the lowest value, +inf as the highest.
        with np.errstate(invalid="ignore"):  # signalling NaN
            known = np.nan_to_num(band.astype(np.float64), nan=first, posinf=last, neginf=first)
        return np.rint((np.clip(known, first, last) - first) * scale)

    note = f"its floating-point values {first:.6g} to {last:.6g} are shown as 0 to 255"
    if num_other:
        note += f", {num_other:,} that are NaN or infinite as the ends of that range"
    return _by_bands(values, spread), note


def _choose_float_range(low: float, high: float, declared: Range | None) -> Range:
    """The declared range, else 0..1, 0..255 or 0..65535 if at least half of it is used, else the range in use."""
    if declared is not None and declared[0] <= low and high <= declared[1] and all(map(math.isfinite, declared)):
        return declared
    for last in (1.0, 255.0, 65535.0):
        if low >= 0 and last / 2 <= high <= last:
            return 0.0, last
    return low + 0.0, high + 0.0  # turns -0.0 into 0.0


def _by_bands(
    values: npt.NDArray[Any], spread: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
) -> npt.NDArray[np.uint8]:
    shown = np.empty(values.shape, dtype=np.uint8)
    if values.dtype == np.uint16:
        # A table of all 16-bit values.
        table = np.clip(spread(np.arange(2**16)), 0, 255).astype(np.uint8)

        def put(band: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return table[band]

    else:

        def put(band: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.clip(spread(band), 0, 255)

    num_rows = max(1, _BAND_PX // max(1, values[0].size))
    for first in range(0, len(values), num_rows):
        shown[first : first + num_rows] = put(values[first : first + num_rows])
    return shown
