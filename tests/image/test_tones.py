"""Wide values become 8 bits by the range that they use, and what is transparent is laid over white; both are said."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from llava.errors import BadImage
from llava.image.source import load_picture

RAMP = np.linspace(0, 4095, 64 * 64).round().astype(np.uint16).reshape(64, 64)


def _encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _png(values: np.ndarray, color: int, *, significant: int | None = None) -> bytes:
    """A PNG of 16 bits with as many channels as the colour type has; Pillow writes only grey ones."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    channels = 1 if values.ndim == 2 else values.shape[2]
    sbit = b"" if significant is None else chunk(b"sBIT", bytes([significant] * channels))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + sbit + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _grey(source: object) -> np.ndarray:
    return np.asarray(load_picture(source).image)[..., 0]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_values_of_a_few_bits_in_a_16_bit_file_fill_the_range(bits: int, format: str) -> None:
    values = (RAMP.astype(np.uint32) * (2**bits - 1) // 4095).astype(np.uint16)
    picture = load_picture(_encode(Image.fromarray(values), format))
    assert picture.notes == (f"its values 0 to {2**bits - 1} are shown as 0 to 255",)
    assert np.array_equal(np.asarray(picture.image)[..., 1], values >> (bits - 8))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_a_16_bit_image_that_uses_the_range_keeps_its_upper_bytes(order: str) -> None:
    values = RAMP * np.uint16(16)
    mode = {"<u2": "I;16", ">u2": "I;16B"}[order]
    image = Image.frombytes(mode, (64, 64), values.astype(order).tobytes())
    for source in (image, _encode(Image.fromarray(values), "PNG"), _encode(Image.fromarray(values), "TIFF")):
        assert np.array_equal(_grey(source), values >> 8)
        assert load_picture(source).notes == ()


@pytest.mark.parametrize("value", [0, 4095, 65535])
def test_a_blank_page_stays_blank_and_noise_on_white_stays_white(value: int) -> None:
    blank = np.full((9, 9), value, np.uint16)
    assert set(_grey(Image.fromarray(blank)).ravel()) == {value >> 8}
    noisy = np.full((9, 9), 65535, np.uint16)
    noisy[4, 4] = 65500
    assert _grey(Image.fromarray(noisy)).min() == 255


def test_a_narrow_band_of_a_thermal_camera_is_spread() -> None:
    band = 29_000 + RAMP // 2
    picture = load_picture(Image.fromarray(band))
    assert picture.notes == ("its values 29000 to 31047 are shown as 0 to 255",)
    assert (_grey(Image.fromarray(band)).min(), _grey(Image.fromarray(band)).max()) == (0, 255)


def test_colours_of_12_bits_in_16_keep_their_balance() -> None:
    colors = np.stack([RAMP, RAMP // 2, np.full_like(RAMP, 100)], -1)
    opaque = np.full_like(RAMP, 65535)
    note = "its values 0 to 4095 are shown as 0 to 255"
    for data in (
        _png(colors, 2),
        _png(np.dstack([colors, opaque]), 6),
        b"P6 64 64 65535\n" + colors.astype(">u2").tobytes(),
        b"P6\n# a comment\n64 64 4095\n" + colors.astype(">u2").tobytes(),
        _tiff(colors),
    ):
        picture = load_picture(data)
        assert picture.notes == (note,)
        assert np.array_equal(np.asarray(picture.image), colors >> 4)
    full = load_picture(_png(colors * np.uint16(16), 2))
    assert full.notes == ()
    assert np.array_equal(np.asarray(full.image), colors * np.uint16(16) >> 8)


def test_grey_of_12_bits_with_transparency_is_spread_too() -> None:
    alpha = np.full_like(RAMP, 65535)
    alpha[0, 0] = 0
    picture = load_picture(_png(np.dstack([RAMP, alpha]), 4))
    assert picture.notes == ("its values 0 to 4095 are shown as 0 to 255", "transparent parts are shown white")
    shown = np.asarray(picture.image)[..., 0]
    assert shown[0, 0] == 255
    assert np.array_equal(shown.ravel()[1:], RAMP.ravel()[1:] >> 4)


def _tiff(values: np.ndarray, **tags: int) -> bytes:
    """A plain TIFF of unsigned 16-bit values, one strip, with further tags by their numbers as ``tag_280=...``."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    pixels = values.astype("<u2").tobytes()
    fields = {256: width, 257: height, 258: 16, 259: 1, 262: 2 if channels == 3 else 1, 273: 8, 277: channels}
    fields |= {278: height, 279: len(pixels)} | {int(name[4:]): value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(fields)) + entries + bytes(4)


@pytest.mark.parametrize("tags", [{"tag_340": 0, "tag_341": 4095}, {"tag_280": 0, "tag_281": 4095}, {"tag_281": 4095}])
def test_a_tiff_is_shown_by_the_range_that_it_declares(tags: dict[str, int]) -> None:
    dark = RAMP // 4
    picture = load_picture(_tiff(dark, **tags))
    assert picture.notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert np.array_equal(np.asarray(picture.image)[..., 0], dark >> 4)


def test_a_declared_range_that_the_values_leave_or_that_says_nothing_is_passed_over() -> None:
    assert load_picture(_tiff(RAMP, tag_341=1000)).notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert load_picture(_tiff(RAMP, tag_341=65535)).notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert load_picture(_tiff(RAMP * np.uint16(16), tag_341=65535)).notes == ()


def test_a_png_is_shown_by_the_significant_bits_that_it_declares() -> None:
    dark = RAMP // 4
    picture = load_picture(_png(dark, 0, significant=12))
    assert picture.notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert np.array_equal(np.asarray(picture.image)[..., 0], dark >> 4)
    # By the standard the values of such a file are scaled to all 16 bits; then they stay as they are.
    assert load_picture(_png(RAMP * np.uint16(16), 0, significant=12)).notes == ()


def test_white_is_zero_in_a_wide_tiff_too() -> None:
    assert np.array_equal(_grey(_tiff(RAMP * np.uint16(16), tag_262=0)), 255 - (RAMP >> 4))


@pytest.mark.parametrize("low", [-1000, -32768, 70_000])
def test_signed_and_wide_integers_are_shown_by_the_range_that_they_use(low: int) -> None:
    image = Image.fromarray(RAMP.astype(np.int32) + low)
    for source in (image, _encode(image, "TIFF")):
        picture = load_picture(source)
        assert picture.notes == (f"its values {low} to {low + 4095} are shown as 0 to 255",)
        assert np.array_equal(np.asarray(picture.image)[..., 0], RAMP >> 4)


@pytest.mark.parametrize(
    ("scale", "first", "last"),
    [(1, "0", "1"), (200, "0", "255"), (0.01, "0", "0.01"), (-3, "-3", "0"), (5e4, "0", "65535")],
)
def test_floats_are_shown_by_a_usual_range_or_by_the_one_that_they_use(scale: float, first: str, last: str) -> None:
    values = (np.linspace(0, 1, 4096, dtype=np.float32) * np.float32(scale)).reshape(64, 64)
    for source in (Image.fromarray(values), _encode(Image.fromarray(values), "TIFF")):
        picture = load_picture(source)
        assert picture.notes == (f"its floating-point values {first} to {last} are shown as 0 to 255",)
        shown = np.asarray(picture.image)[..., 0].astype(float) / 255
        expected = (values - float(first)) / (float(last) - float(first))
        assert abs(shown - expected).max() < 0.003


def test_nan_and_infinite_values_are_shown_and_counted() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    picture = load_picture(Image.fromarray(values))
    assert "3 that are NaN or infinite" in picture.notes[0]
    assert np.asarray(picture.image)[0, :3, 0].tolist() == [0, 255, 0]
    with pytest.raises(BadImage, match="none is a finite number"):
        load_picture(Image.fromarray(np.full((3, 3), np.nan, np.float32)))


def test_lab_is_shown_as_its_colours() -> None:
    lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (136, 208, 195)])
    red, green, blue = load_picture(lab).image.getpixel((0, 0))
    assert red > 200
    assert max(green, blue) < 60


def test_transparency_is_said_where_there_is_any() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    assert load_picture(image).notes == ()
    image.putpixel((0, 0), (0, 0, 0, 0))
    for source in (image, _encode(image, "PNG"), _encode(image, "TIFF"), _encode(image, "AVIF")):
        picture = load_picture(source)
        assert picture.notes == ("transparent parts are shown white",)
        assert min(picture.image.getpixel((0, 0))) > 240


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "CMYK", "1", "P", "PA", "La", "RGBa", "RGBX"])
def test_every_other_mode_is_shown_without_a_word(mode: str) -> None:
    start = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    image = Image.new("RGB", (4, 4), (200, 30, 30)).convert(start)
    picture = load_picture(image.convert(mode))
    assert picture.notes == ()
    assert np.array_equal(np.asarray(picture.image), np.asarray(image.convert("RGB")))
