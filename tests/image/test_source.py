"""Images from every source: what is accepted, how it is decoded, and that the rest is refused in one sentence."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava.errors import BadImage, FetchError, UsageError
from llava.image.formats import COMMON, read_header
from llava.image.geometry import Size
from llava.image.orientation import read_orientation
from llava.image.source import Limits, load_image

FORMATS = list(COMMON)
STRANGERS = Limits(
    max_bytes=20 * 2**20, max_pixels=25_000_000, max_jpeg_pixels=25_000_000, max_side_px=16_384, formats=COMMON,
    draws_damaged=False, explains=False,
)  # fmt: skip
ORIENTATION = 0x0112


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _png(width: int, height: int, *, bits: int = 1, color: int = 0) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _pixels(source: object) -> np.ndarray:
    return np.asarray(load_image(source).image)


# Sources


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_read_from_every_source(format: str, tmp_path: Path, monkeypatch) -> None:
    data = _encode(_noise(50, 30), format)
    path = tmp_path / "image.bin"
    path.write_bytes(data)
    uri = f"data:image/{format.lower()};base64,{base64.b64encode(data).decode()}"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with Image.open(path) as opened, path.open("rb") as file:
        sources = [str(path), path, data, bytearray(data), memoryview(data), io.BytesIO(data), uri, "-", opened, file]
        digests = {load_image(source).digest for source in sources}
    assert len(digests) == 1
    loaded = load_image(path)
    assert (loaded.size, loaded.image.mode, loaded.name) == (Size(50, 30), "RGB", "image.bin")


@pytest.mark.parametrize("format", ["PNG", "BMP"])
def test_a_lossless_file_gives_back_its_pixels(format: str) -> None:
    image = _noise(33, 21)
    assert np.array_equal(_pixels(_encode(image, format)), np.asarray(image))


def test_equal_pixels_have_equal_digests_and_others_do_not() -> None:
    image = _noise(20, 30)
    digest = load_image(image).digest
    assert load_image(_encode(image, "PNG")).digest == load_image(_encode(image, "BMP")).digest == digest
    assert load_image(image.copy()).digest == digest
    # The same bytes in another shape are another image.
    assert load_image(Image.frombytes("RGB", (30, 20), image.tobytes())).digest != digest
    palette = Image.new("P", (4, 4))
    palette.putpalette([1, 2, 3])
    other = palette.copy()
    other.putpalette([3, 2, 1])
    assert load_image(palette).digest != load_image(other).digest


def test_a_pillow_image_is_not_changed_and_not_shared() -> None:
    image = _noise(8, 8)
    loaded = load_image(image)
    before = loaded.image.tobytes()
    image.paste((0, 0, 0), (0, 0, 8, 8))
    assert loaded.image.tobytes() == before
    transparent = Image.new("RGBA", (3, 3))
    load_image(transparent)
    assert transparent.mode == "RGBA"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at all.png", "There is no file nowhere/at all.png"),
        ("", "empty"),
        ("a\0b", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("file:///etc/passwd", "file: is not opened"),
        ("FILE:/etc/passwd", "FILE: is not opened"),
        ("ftp://example.com/a.png", "ftp: is not opened"),
        ("gopher://example.com", "gopher: is not opened"),
        ("javascript:alert(1)", "There is no file"),
        (b"", "is empty"),
        ("data:", "does not begin with"),
        ("data:image/png;base64", "does not begin with"),
        ("data:image/png,abc", "does not begin with"),
        ("data:image/png;base64,", "is empty"),
        ("data:image/png;base64,a*bc", "not base64"),
        ("data:image/png;base64,abcde", "not base64"),
        ("data:image/png;base64,äöü=", "not base64"),
    ],
)
def test_a_source_that_leads_nowhere_is_refused_in_one_sentence(source, message) -> None:
    with pytest.raises(BadImage, match=message) as caught:
        load_image(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_folder_is_not_an_image(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="is a folder"):
        load_image(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(BadImage, match="permission denied"):
        load_image(path)


@pytest.mark.parametrize("source", [None, 5, ["a.png"], np.zeros((3, 3, 3), np.uint8)])
def test_another_type_is_a_wrong_call(source) -> None:
    with pytest.raises(UsageError, match="is no image"):
        load_image(source)


def test_a_file_opened_for_text_is_a_wrong_call() -> None:
    with pytest.raises(UsageError, match="in binary"):
        load_image(io.StringIO("x"))


def test_a_data_uri_may_lie_about_its_type_and_hold_line_breaks() -> None:
    encoded = base64.encodebytes(_encode(_noise(9, 9), "JPEG")).decode()
    assert "\n" in encoded
    assert load_image("DATA:image/png;charset=x;BASE64," + encoded).size == (9, 9)


# Limits


@pytest.mark.parametrize("size", [(10_000, 10_000), (40_000, 40_000), (13_400, 13_400), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_before_it_is_unpacked(size, monkeypatch) -> None:
    monkeypatch.setattr("llava.image.source.decode", lambda *_: pytest.fail("it was decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(BadImage, match=rf"{size[0]}x{size[1]} px.*at most 25,000,000") as caught:
        load_image(_png(*size), STRANGERS)
    assert f"{size[0] * size[1]:,}" in str(caught.value)
    assert "--max-image-pixels" not in str(caught.value), "strangers have no flag"


def test_a_bomb_in_any_other_format_is_refused_by_its_header() -> None:
    gif = b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0, 0, 0) + b"\x21\xf9\x04\0\0\0\0\0"
    gif += b"\x2c" + struct.pack("<HHHHB", 1, 0, 60_000, 60_000, 0) + b"\x02\0\x3b"
    webp = b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + (16382).to_bytes(3, "little") * 2
    bmp = _encode(_noise(3, 3), "BMP")
    bmp = bmp[:18] + struct.pack("<ii", 50_000, -50_000) + bmp[26:]
    jpeg = bytearray(_encode(_noise(8, 8), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 65_500)
    for data, claimed in [(gif, "60001x60000"), (webp, "16383x16383"), (bmp, "50000x50000"), (jpeg, "65500x60000")]:
        with pytest.raises(BadImage, match=rf"{claimed} px.*at most 25,000,000"):
            load_image(bytes(data), STRANGERS)


def test_a_thin_image_is_accepted_up_to_the_longest_side() -> None:
    assert load_image(_encode(Image.new("RGB", (1, 5000)))).size == (1, 5000)
    assert load_image(_encode(Image.new("L", (16_384, 1)))).size == (16_384, 1)
    with pytest.raises(BadImage, match="16,384"):
        load_image(_encode(Image.new("L", (60_000, 1))), STRANGERS)


def test_limits_can_be_set(tmp_path: Path) -> None:
    data = _encode(_noise(50, 40), "BMP")
    path = tmp_path / "a.bmp"
    path.write_bytes(data)
    uri = "data:;base64," + base64.b64encode(data).decode()
    file = io.BytesIO(data)
    for source in (data, path, file, uri):
        assert load_image(source, Limits(max_bytes=len(data), max_pixels=2000)).size == (50, 40)
        for limits, message in [
            (Limits(max_bytes=len(data) - 1), f"{len(data) - 1:,} "),
            (Limits(max_pixels=1999), "at most 1,999 "),
            (Limits(max_side_px=49), "at most 49"),
        ]:
            file.seek(0)
            with pytest.raises(BadImage, match=message):
                load_image(source, limits)
    with pytest.raises(BadImage, match="1,999"):
        load_image(_noise(50, 40), Limits(max_pixels=1999))
    with pytest.raises(BadImage, match=r"\(PNG or JPEG\); it is BMP"):
        load_image(data, Limits(formats=("PNG", "JPEG")))


def test_an_image_without_pixels_is_refused() -> None:
    for source in (_png(0, 5), Image.new("RGB", (0, 5))):
        with pytest.raises(BadImage, match="nothing to see"):
            load_image(source)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"%PDF-1.7", "a PDF. Render the page"),
        (b"II*\0\x08\0\0\0", "TIFF. Convert it to PNG."),
        (b"8BPS\0\1", "a Photoshop file. Export it"),
        (b"  <svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing. Render it"),
        (b"%!PS-Adobe-3.0 EPSF", "PostScript. Render it"),
        (b"\0\0\0\x18ftypheic", "HEIC. Convert it to PNG."),
        (b"just words", ""),
        (b"\0", ""),
    ],
)
def test_other_formats_are_named_where_they_are_known(data, kind) -> None:
    with pytest.raises(BadImage) as caught:
        load_image(data, STRANGERS)
    allowed = "The image is not an image in a supported format (PNG, JPEG, WEBP, GIF or BMP)"
    assert str(caught.value).startswith(f"{allowed}; it is {kind}" if kind else f"{allowed}.")


# Damage


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(format: str, share: float) -> None:
    data = _encode(_noise(60, 40), format)
    with pytest.raises(BadImage, match="damaged or cut off"):
        load_image(data[: int(len(data) * share)], STRANGERS)


def test_a_pillow_image_of_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    data = _encode(_noise(60, 40), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "cut.jpg") as image, pytest.raises(BadImage, match=r"cut\.jpg cannot be decoded"):
        load_image(image)


def test_a_wrong_checksum_in_a_png_is_refused() -> None:
    data = bytearray(_encode(_noise(9, 9)))
    at = data.index(b"IEND") - 5  # the last byte of the pixel data's checksum
    data[at] ^= 1
    with pytest.raises(BadImage, match="checksum of its pixel data"):
        load_image(bytes(data), STRANGERS)


@pytest.mark.parametrize("format", FORMATS)
def test_trailing_garbage_does_no_harm(format: str) -> None:
    data = _encode(_noise(20, 20), format)
    assert load_image(data + b"garbage" * 9).digest == load_image(data).digest


@settings(max_examples=200)
@given(
    st.sampled_from(FORMATS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6)
)
def test_a_file_with_wrong_bytes_is_read_or_refused_but_never_crashes(format: str, changes) -> None:
    data = bytearray(_encode(_noise(12, 9), format))
    for at, byte in changes:
        data[at % len(data)] = byte
    with contextlib.suppress(BadImage):
        assert load_image(bytes(data)).image.mode == "RGB"


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_after_a_signature_are_refused(tail: bytes) -> None:
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBP", b"GIF89a", b"BM"):
        with pytest.raises(BadImage):
            load_image(start + tail)


# What it becomes


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_was_held(format: str, orientation: int, tmp_path: Path) -> None:
    stored = Image.new("RGB", (32, 16), "white")
    stored.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "a camera"
    data = _encode(stored, format, exif=exif.tobytes())
    (tmp_path / "a").write_bytes(data)
    upright = load_image(data)
    # Where the red corner, top left as stored, comes to lie for each orientation. Source: EXIF 3.0, section 4.6.5.
    corner = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}[orientation]
    assert upright.size == ((32, 16) if orientation <= 4 else (16, 32))
    red, green, _ = upright.image.getpixel(
        (corner[0] * (upright.size.width - 1), corner[1] * (upright.size.height - 1))
    )
    assert red > 200
    assert green < 60
    assert load_image(upright.image).digest == upright.digest, "it is turned once"
    with Image.open(tmp_path / "a") as opened:
        assert load_image(opened).digest == upright.digest


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0",
        b"II*\0\x08\0\0\0\1\0\x12\1\2\0\1\0\0\0\x06\0\0\0",
    ],
)
def test_an_exif_block_that_says_nothing_usable_leaves_the_image_alone(exif: bytes) -> None:
    assert read_orientation(exif) == 1
    assert load_image(_encode(Image.new("RGB", (9, 5)), "JPEG", exif=b"Exif\0\0" + exif)).size == (9, 5)


def test_transparency_is_laid_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 128)])
    expected = [[[255, 255, 255], [255, 0, 0], [127, 127, 127]]]
    for format in ("PNG", "WEBP"):
        options = {"lossless": True, "exact": True} if format == "WEBP" else {}
        assert abs(_pixels(_encode(image, format, **options)).astype(int) - expected).max() <= 1
    assert abs(_pixels(image).astype(int) - expected).max() <= 1
    grey = Image.new("LA", (1, 1), (0, 0))
    assert _pixels(_encode(grey)).tolist() == [[[255, 255, 255]]]


def test_a_transparent_colour_or_palette_entry_is_laid_over_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    expected = [[[255, 255, 255], [0, 0, 255]]]
    assert _pixels(_encode(palette, transparency=0)).tolist() == expected
    assert _pixels(_encode(palette, transparency=b"\0\xff")).tolist() == expected
    assert _pixels(_encode(palette, "GIF", transparency=0)).tolist() == expected
    colors = Image.new("RGB", (2, 1), (0, 0, 255))
    colors.putpixel((0, 0), (1, 2, 3))
    assert _pixels(_encode(colors, transparency=(1, 2, 3))).tolist() == expected
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 0)
    assert _pixels(_encode(grey, transparency=7)).tolist() == [[[255, 255, 255], [0, 0, 0]]]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV", "I", "I;16", "I;16B", "RGBX"])
def test_any_colour_mode_becomes_rgb(mode: str) -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(2, axis=0))
    if mode.startswith("I"):
        kind = {"I": np.int32, "I;16": "<u2", "I;16B": ">u2"}[mode]
        wide = np.asarray(grey).astype(np.uint32) * 257
        image = Image.frombytes(mode, grey.size, wide.astype(kind).tobytes())
    else:
        image = grey.convert("RGB").convert(mode)
    assert image.mode == mode
    expected = np.asarray(image.convert("RGB") if not mode.startswith("I") else grey.convert("RGB"))
    assert np.array_equal(_pixels(image), expected)


def test_sixteen_bit_files_lose_their_lower_half() -> None:
    grey = np.arange(256, dtype=np.uint16)[None].repeat(2, axis=0)
    file = _encode(Image.frombytes("I;16", (256, 2), (grey * 257).astype("<u2").tobytes()))
    assert read_header(file, "it", FORMATS).data[24] == 16  # bits per value, in IHDR
    assert np.array_equal(_pixels(file)[:, :, 1], grey)


def test_a_cmyk_jpeg_is_read() -> None:
    loaded = load_image(_encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = loaded.image.getpixel((4, 4))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (10, 10), color) for color in ("red", "blue", "lime")]
    data = _encode(frames[0], format, save_all=True, append_images=frames[1:])
    assert load_image(data).image.getpixel((5, 5))[2] < 60
    assert load_image(data).image.getpixel((5, 5))[0] > 200


def test_comments_profiles_and_previews_reach_no_decoder() -> None:
    image = _noise(16, 16)
    jpeg = _encode(
        image, "JPEG", icc_profile=b"profile" * 99, comment=b"comment" * 99, exif=b"Exif\0\0" + b"preview" * 99
    )
    header = read_header(jpeg, "it", FORMATS)
    for word in (b"profile", b"comment", b"preview"):
        assert word in jpeg
        assert word not in header.data
    assert np.array_equal(_pixels(jpeg), _pixels(_encode(image, "JPEG")))
    frames = _encode(image, "PNG", save_all=True, append_images=[_noise(16, 16).rotate(90)])
    assert b"acTL" in frames
    assert b"acTL" not in read_header(frames, "it", FORMATS).data


def test_a_url_is_fetched_within_the_limits(monkeypatch) -> None:
    asked = {}

    def fetch(url: str, **limits: object) -> bytes:
        asked.update(limits, url=url)
        return _encode(_noise(7, 5))

    monkeypatch.setattr("llava.image.source.fetch", fetch)
    loaded = load_image("HTTPS://example.com/a/b.png?size=5", Limits(timeout_s=3, max_bytes=5000))
    assert (loaded.name, loaded.size) == ("b.png", (7, 5))
    assert asked == {
        "url": "HTTPS://example.com/a/b.png?size=5",
        "max_bytes": 5000,
        "timeout_s": 3,
        "max_redirects": 3,
        "allow_private_addresses": False,
        "allow_private_start": False,
    }
    monkeypatch.undo()
    with pytest.raises(FetchError, match="not a public address"):
        load_image("http://127.0.0.1/a.png")
