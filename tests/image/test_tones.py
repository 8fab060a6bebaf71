"""Wide values become 8 bits by the range that they use, transparency is composited over white, and both are noted."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from llava.errors import BadImage
from llava.image.source import load_image

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
    return np.asarray(load_image(source).image)[..., 0]


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_values_of_a_few_bits_in_a_16_bit_file_fill_the_range(bits: int, format: str) -> None:
    values = (RAMP.astype(np.uint32) * (2**bits - 1) // 4095).astype(np.uint16)
    loaded = load_image(_encode(Image.fromarray(values), format))
    assert loaded.notes == (f"its values 0 to {2**bits - 1} are shown as 0 to 255",)
    assert np.array_equal(np.asarray(loaded.image)[..., 1], values >> (bits - 8))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_a_16_bit_image_that_uses_the_range_keeps_its_upper_bytes(order: str) -> None:
    values = RAMP * np.uint16(16)
    mode = {"<u2": "I;16", ">u2": "I;16B"}[order]
    image = Image.frombytes(mode, (64, 64), values.astype(order).tobytes())
    for source in (image, _encode(Image.fromarray(values), "PNG"), _encode(Image.fromarray(values), "TIFF")):
        assert np.array_equal(_grey(source), values >> 8)
        assert load_image(source).notes == ()


@pytest.mark.parametrize("value", [0, 4095, 65535])
def test_a_blank_page_stays_blank_and_noise_on_white_stays_white(value: int) -> None:
    blank = np.full((9, 9), value, np.uint16)
    assert set(_grey(Image.fromarray(blank)).ravel()) == {value >> 8}
    noisy = np.full((9, 9), 65535, np.uint16)
    noisy[4, 4] = 65500
    assert _grey(Image.fromarray(noisy)).min() == 255


def test_a_narrow_band_of_a_thermal_camera_is_spread() -> None:
    band = 29_000 + RAMP // 2
    loaded = load_image(Image.fromarray(band))
    assert loaded.notes == ("its values 29000 to 31047 are shown as 0 to 255",)
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
        loaded = load_image(data)
        assert loaded.notes == (note,)
        assert np.array_equal(np.asarray(loaded.image), colors >> 4)
    full = load_image(_png(colors * np.uint16(16), 2))
    assert full.notes == ()
    assert np.array_equal(np.asarray(full.image), colors * np.uint16(16) >> 8)


def test_grey_of_12_bits_with_transparency_is_spread_too() -> None:
    alpha = np.full_like(RAMP, 65535)
    alpha[0, 0] = 0
    loaded = load_image(_png(np.dstack([RAMP, alpha]), 4))
    assert loaded.notes == ("its values 0 to 4095 are shown as 0 to 255", "transparent parts are shown white")
    shown = np.asarray(loaded.image)[..., 0]
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
    loaded = load_image(_tiff(dark, **tags))
    assert loaded.notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert np.array_equal(np.asarray(loaded.image)[..., 0], dark >> 4)


def test_a_declared_range_that_the_values_leave_or_that_says_nothing_is_passed_over() -> None:
    assert load_image(_tiff(RAMP, tag_341=1000)).notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert load_image(_tiff(RAMP, tag_341=65535)).notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert load_image(_tiff(RAMP * np.uint16(16), tag_341=65535)).notes == ()


def test_a_png_is_shown_by_the_significant_bits_that_it_declares() -> None:
    dark = RAMP // 4
    loaded = load_image(_png(dark, 0, significant=12))
    assert loaded.notes == ("its values 0 to 4095 are shown as 0 to 255",)
    assert np.array_equal(np.asarray(loaded.image)[..., 0], dark >> 4)
    # By the standard the values of such a file are scaled to all 16 bits; then they stay as they are.
    assert load_image(_png(RAMP * np.uint16(16), 0, significant=12)).notes == ()


def test_white_is_zero_in_a_wide_tiff_too() -> None:
    assert np.array_equal(_grey(_tiff(RAMP * np.uint16(16), tag_262=0)), 255 - (RAMP >> 4))


@pytest.mark.parametrize("low", [-1000, -32768, 70_000])
def test_signed_and_wide_integers_are_shown_by_the_range_that_they_use(low: int) -> None:
    image = Image.fromarray(RAMP.astype(np.int32) + low)
    for source in (image, _encode(image, "TIFF")):
        loaded = load_image(source)
        assert loaded.notes == (f"its values {low} to {low + 4095} are shown as 0 to 255",)
        assert np.array_equal(np.asarray(loaded.image)[..., 0], RAMP >> 4)


@pytest.mark.parametrize(
    ("scale", "first", "last"),
    [(1, "0", "1"), (200, "0", "255"), (0.01, "0", "0.01"), (-3, "-3", "0"), (5e4, "0", "65535")],
)
def test_floats_are_shown_by_a_usual_range_or_by_the_one_that_they_use(scale: float, first: str, last: str) -> None:
    values = (np.linspace(0, 1, 4096, dtype=np.float32) * np.float32(scale)).reshape(64, 64)
    for source in (Image.fromarray(values), _encode(Image.fromarray(values), "TIFF")):
        loaded = load_image(source)
        assert loaded.notes == (f"its floating-point values {first} to {last} are shown as 0 to 255",)
        shown = np.asarray(loaded.image)[..., 0].astype(float) / 255
        expected = (values - float(first)) / (float(last) - float(first))
        assert abs(shown - expected).max() < 0.003


def test_nan_and_infinite_values_are_shown_and_counted() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    loaded = load_image(Image.fromarray(values))
    assert "3 that are NaN or infinite" in loaded.notes[0]
    assert np.asarray(loaded.image)[0, :3, 0].tolist() == [0, 255, 0]
    with pytest.raises(BadImage, match="holds only floating-point values that are NaN or infinite"):
        load_image(Image.fromarray(np.full((3, 3), np.nan, np.float32)))


def test_lab_is_shown_as_its_colours() -> None:
    lab = Image.merge("LAB", [Image.new("L", (2, 2), value) for value in (136, 208, 195)])
    red, green, blue = load_image(lab).image.getpixel((0, 0))
    assert red > 200
    assert max(green, blue) < 60


def test_transparency_is_said_where_there_is_any() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 255))
    assert load_image(image).notes == ()
    image.putpixel((0, 0), (0, 0, 0, 0))
    for source in (image, _encode(image, "PNG"), _encode(image, "TIFF"), _encode(image, "AVIF")):
        loaded = load_image(source)
        assert loaded.notes == ("transparent parts are shown white",)
        assert min(loaded.image.getpixel((0, 0))) > 240


@pytest.mark.parametrize("ink", ["white", "#fff0a0", "#d0d0d0"])
def test_light_writing_on_nothing_is_laid_over_black(ink: str) -> None:
    for size in ((300, 80), (2500, 1700)):
        image = Image.new("RGBA", size)
        ImageDraw.Draw(image).text((20, 20), "Open", font=ImageFont.load_default(40), fill=ink)
        loaded = load_image(image)
        assert loaded.notes == ("transparent parts are shown black",)
        assert loaded.image.getpixel((0, 0)) == (0, 0, 0)
        assert np.asarray(loaded.image).max() > 150


@pytest.mark.parametrize("ink", ["black", "#1060b0", "#c02020", "#808080"])
def test_dark_writing_and_light_writing_on_a_plate_are_laid_over_white(ink: str) -> None:
    image = Image.new("RGBA", (300, 120))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(40)
    pen.text((20, 10), "Open", font=font, fill=ink)
    assert load_image(image).notes == ("transparent parts are shown white",)
    pen.rounded_rectangle((5, 5, 295, 115), 12, fill=ink)
    pen.text((20, 20), "Open", font=font, fill="white")
    assert load_image(image).notes == ("transparent parts are shown white",)


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "CMYK", "1", "P", "PA", "La", "RGBa", "RGBX"])
def test_every_other_mode_is_shown_without_a_note(mode: str) -> None:
    start = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    image = Image.new("RGB", (4, 4), (200, 30, 30)).convert(start)
    loaded = load_image(image.convert(mode))
    assert loaded.notes == ()
    assert np.array_equal(np.asarray(loaded.image), np.asarray(image.convert("RGB")))


def _planar_tiff(planes: list[np.ndarray], compression: int = 1, *, order: str = "<") -> bytes:
    """A TIFF whose channels of 16 bits lie one behind the other, each in two strips."""
    height, width = planes[0].shape
    halves = [half for plane in planes for half in np.array_split(plane.astype(f"{order}u2"), 2)]
    strips = [half.tobytes() if compression == 1 else zlib.compress(half.tobytes()) for half in halves]
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    num = len(planes)
    tags: list[tuple[int, int, list[int]]] = [(256, 4, [width]), (257, 4, [height]), (258, 3, [16] * num)]
    tags += [(259, 3, [compression]), (262, 3, [2]), (273, 4, offsets), (277, 3, [num]), (278, 4, [len(halves[0])])]
    tags += [(279, 4, [len(strip) for strip in strips]), (284, 3, [2])]
    tags += [(338, 3, [2])] if num == 4 else []
    start = 8 + sum(map(len, strips))
    at, entries, values = start + 2 + 12 * len(tags) + 4, b"", b""
    for tag, kind, numbers in tags:
        packed = struct.pack(f"{order}{len(numbers)}{'HI'[kind == 4]}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        entries += packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack(f"{order}I", at + len(values))
        values += packed if len(packed) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    return head + b"".join(strips) + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + values


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_16_bits_in_planes_are_not_mixed_up(compression: int, order: str, bits: int) -> None:
    planes = [RAMP << (bits - 12), RAMP.T << (bits - 12), np.flipud(RAMP) << (bits - 12)]
    loaded = load_image(_planar_tiff(planes, compression, order=order))
    assert np.array_equal(np.asarray(loaded.image), np.stack(planes, -1) >> (bits - 8))
    assert loaded.notes == (() if bits == 16 else ("its values 0 to 4095 are shown as 0 to 255",))


def test_transparency_in_a_plane_of_16_bits_is_laid_over_white() -> None:
    opacity = np.full_like(RAMP, 65535)
    opacity[0] = 0
    loaded = load_image(_planar_tiff([RAMP * 16, RAMP * 16, RAMP * 16, opacity]))
    assert loaded.notes == ("transparent parts are shown white",)
    assert (np.asarray(loaded.image)[0] == 255).all()
    assert np.array_equal(np.asarray(loaded.image)[1:, :, 0], (RAMP >> 4)[1:])


def test_a_truncated_plane_does_not_become_an_image_of_other_colours() -> None:
    for planes, mode in (([RAMP * 16] * 3, "planar"), ([], "SGI")):
        data = _planar_tiff(planes) if planes else _encode(Image.new("RGB", (40, 40), "white"), "SGI")
        with pytest.raises(BadImage, match="damaged or cut off"):
            load_image(data[: len(data) // 2] if mode == "SGI" else data[:-200])


def test_unsigned_integers_of_32_bits_and_signed_ones_of_8_are_taken_for_what_they_are() -> None:
    wide = np.linspace(0, 2**32 - 1, 256).astype(np.uint32).reshape(16, 16)
    data = _encode(Image.fromarray(wide.view(np.int32)), "TIFF")
    unsigned = data.replace(struct.pack("<HHIH", 339, 3, 1, 2), struct.pack("<HHIH", 339, 3, 1, 1))
    assert unsigned != data
    assert np.array_equal(_grey(unsigned), wide >> 24)
    signed = np.arange(-128, 128).astype(np.int8).reshape(16, 16)
    file = io.BytesIO()
    Image.fromarray(signed.view(np.uint8)).save(file, "TIFF", tiffinfo={339: 2})
    assert np.array_equal(_grey(file.getvalue()), signed.astype(int) + 128)
    assert load_image(file.getvalue()).notes == ("its values -128 to 127 are shown as 0 to 255",)


# 4 x 4 px of colours of 10 bits, by ImageMagick: white, and near rgb(200, 210, 220).
_WHITE_OF_10_BITS = (
    "/0//UQAvAAAAAAAEAAAABAAAAAAAAAAAAAAABAAAAAQAAAAAAAAAAAADCQEBCQEBCQEB/1IADAAAAAEBAgQEAAH/XAAKQFBYWGBY"
    "WGD/kAAKAAAAAAAaAAH/k8/MBACAgICAgICAgP/Z"
)
_GREY_OF_10_BITS = (
    "/0//UQAvAAAAAAAEAAAABAAAAAAAAAAAAAAABAAAAAQAAAAAAAAAAAADCQEBCQEBCQEB/1IADAAAAAEBAgQEAAH/XAAKQFBYWGBY"
    "WGD/kAAKAAAAAAAlAAH/k8/MCAK3wfUBAAQfwfUBAAVvgICAgICA/9k="
)


def test_a_jpeg_2000_whose_white_would_be_black_is_refused() -> None:
    with pytest.raises(BadImage, match=r"10 bits.*white for black.*Convert it"):
        load_image(base64.b64decode(_WHITE_OF_10_BITS))
    loaded = load_image(base64.b64decode(_GREY_OF_10_BITS))
    assert (loaded.image.getpixel((1, 1)), loaded.notes) == ((200, 211, 220), ())  # rounded up
