"""What phones, scanners and instruments store, files with faults, and files that are no images: read, drawn or named.

Every file is made here. What a decoder cannot be asked to write is put together byte by byte.
"""

from __future__ import annotations

import base64
import io
import random
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from llava.errors import BadImage
from llava.image import source
from llava.image.formats import COMMON, RARER
from llava.image.source import FOR_LOCAL_USER, Limits, load_image, read_size
from llava.image.tiff import read_page

STRICT = Limits(draws_damaged=False)


def _noise(width: int = 60, height: int = 40) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(1, 255, (height, width, 3), dtype=np.uint8))


def _encode(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def _heic(image: Image.Image) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(load_image(data).image)


# Formats

LOSSLESS = ["TIFF", "JPEG2000", "TGA", "PPM", "PCX", "DDS", "QOI", "SGI"]


@pytest.mark.parametrize("format", LOSSLESS)
def test_a_rarer_format_gives_back_its_pixels_from_a_path_and_from_bytes(format: str, tmp_path: Path) -> None:
    image = _noise()
    data = _encode(image, format)
    (tmp_path / "scan.tga").write_bytes(data)
    for place in (data, tmp_path / "scan.tga"):
        loaded = load_image(place)
        assert np.array_equal(np.asarray(loaded.image), np.asarray(image))
        assert (loaded.notes, loaded.stored) == ((), (60, 40))
        assert type(loaded.image) is Image.Image, "it holds on to no file"
    with pytest.raises(BadImage, match=rf"it is {format}\. Convert it to PNG"):
        load_image(data, Limits(formats=COMMON))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"])
@pytest.mark.parametrize("big", [False, True])
def test_a_tiff_is_read_whatever_holds_its_strips(compression: str | None, big: bool) -> None:
    image = _noise().resize((64, 64))
    loaded = load_image(_encode(image, "TIFF", compression=compression, big_tiff=big))
    expected = np.asarray(Image.open(io.BytesIO(_encode(image, "TIFF", compression=compression))).convert("RGB"))
    assert np.array_equal(np.asarray(loaded.image), expected)


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_a_fax_is_read(compression: str) -> None:
    page = _noise().convert("1")
    assert np.array_equal(_pixels(_encode(page, "TIFF", compression=compression)), np.asarray(page.convert("RGB")))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_tiff_of_luma_and_chroma_keeps_its_colours(compression: str | None) -> None:
    image = Image.new("RGB", (32, 32), (200, 40, 90))
    shown = _pixels(_encode(image.convert("YCbCr"), "TIFF", compression=compression))
    assert abs(shown.astype(int) - (200, 40, 90)).max() <= 4


def test_the_first_page_frame_and_size_counts_and_is_said() -> None:
    pages = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "lime")]
    several = {"save_all": True, "append_images": pages[1:]}
    cases = {
        "page 1 of 3": [_encode(pages[0], "TIFF", **several), _encode(pages[0], "TIFF", big_tiff=True, **several)],
        "frame 1 of 3": [_encode(pages[0], format, **several) for format in ("GIF", "PNG", "WEBP")],
        "image 1 of 3": [_encode(pages[0], "AVIF", **several)],
    }
    for note, files in cases.items():
        for data in files:
            loaded = load_image(data)
            assert loaded.notes == (note,)
            red, green, blue = loaded.image.getpixel((16, 16))
            assert red > 200
            assert max(green, blue) < 60


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_of_an_icon_the_largest_size_counts(bitmap_format: str) -> None:
    icon = _encode(_noise(64, 64), "ICO", sizes=[(16, 16), (32, 32), (64, 64)], bitmap_format=bitmap_format)
    loaded = load_image(icon)
    assert (loaded.size, loaded.notes) == ((64, 64), ("the largest of 3 sizes",))
    cursor = bytearray(icon)
    cursor[2] = 2
    assert load_image(bytes(cursor)).digest == loaded.digest


def test_heic_is_read_and_without_its_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (64, 48), (200, 30, 90))
    data = _heic(image)
    loaded = load_image(data)
    assert (loaded.size, loaded.notes) == ((64, 48), ())
    assert abs(np.asarray(loaded.image).astype(int) - np.asarray(image)).max() <= 6
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImage, match=r'HEIC, which needs the heif extra: pip install "llava\[heif\]"'):
        load_image(data)


def test_a_pillow_without_avif_is_told_from_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encode(_noise(), "AVIF")
    monkeypatch.setitem(sys.modules, "PIL.AvifImagePlugin", None)
    with pytest.raises(BadImage, match="AVIF, which needs a Pillow that was built with AVIF"):
        load_image(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7\n", "a PDF. Render the page as PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript. Render it as PNG"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "PostScript"),
        (b"8BPS\0\1", "a Photoshop file. Export it"),
        (b'<?xml version="1.0"?><svg/>', "an SVG drawing. Render it as PNG"),
        (b"\xef\xbb\xbf <svg/>", "an SVG drawing"),
        (b"<!DOCTYPE html><html>", "a web page (HTML). Pass the address of the image itself"),
        (b"\xff\x0a\0\0", "a JPEG XL. Convert it to PNG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"),
        (b"II*\0\x10\0\0\0CR\2\0", "a camera's raw file. Develop it"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw file"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file"),
        (bytes(128) + b"DICM", "a DICOM file. Export the slice"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "a video. Take a frame out of it: ffmpeg"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video"),
        (b"\x1aE\xdf\xa3" + bytes(9), "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"SIMPLE  =                    T", "a FITS file"),
        (b"v/1\x01" + bytes(9), "an OpenEXR"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself. Run: git lfs pull"),
        (b"PK\3\4", "a ZIP archive or an office document"),
        (b'{"error": "not found"}', "JSON"),
    ],
)
def test_a_file_that_is_not_an_image_is_named_with_the_remedy(data: bytes, words: str) -> None:
    with pytest.raises(BadImage) as caught:
        load_image(data)
    assert f"; it is {words}" in str(caught.value)
    assert "HEIC" in str(caught.value), "it says what is read"


@pytest.mark.parametrize("kind", ["dng", "thumbnail with the sensor's data below", "sensor"])
def test_a_raw_file_that_begins_as_a_tiff_is_told_from_one(kind: str) -> None:
    tags = {256: 60, 257: 40, 258: 8, 259: 1, 262: 2, 273: 8, 277: 3, 278: 40, 279: 7200}
    tags |= {"dng": {50706: 0x401}, "sensor": {262: 32803}}.get(kind, {254: 1, 330: 8})
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    data = b"II*\0" + struct.pack("<I", 7208) + bytes(7200) + struct.pack("<H", len(tags)) + entries + bytes(4)
    with pytest.raises(BadImage, match=r"is a camera's raw file\. Develop it"):
        load_image(data)


def test_a_kind_of_tiff_that_cannot_be_read_is_described() -> None:
    double = bytearray(_encode(Image.new("F", (8, 8)), "TIFF"))
    at = double.index(struct.pack("<HHIH", 258, 3, 1, 32))
    double[at + 8] = 64
    with pytest.raises(BadImage, match=r"a TIFF \(64 bits, 1 channels, sample format 3.*Convert it to 8-bit PNG"):
        load_image(bytes(double))


# Faults that cost no pixel: drawn for everybody


def test_a_fault_that_costs_no_pixel_is_passed_over_with_a_note() -> None:
    image = _noise()
    text = PngInfo()
    text.add_text("Comment", "hello")
    png, jpeg = _encode(image, "PNG", pnginfo=text), _encode(image, "JPEG")
    wrong = png.replace(b"hello", b"jello")
    at = jpeg.index(b"\xff\xdb")
    cases = [
        (png[:-12], png, "it has no IEND chunk at its end"),
        (png[:-6], png, "it has no IEND chunk at its end"),
        (wrong, png, "its tEXt chunk, whose checksum is wrong, was left out"),
        (jpeg[:at] + b"\0stray\xff\0" + jpeg[at:], jpeg, "8 stray bytes between its segments were passed over"),
        (jpeg[:at] + b"\xff\xff" + jpeg[at:], jpeg, None),
    ]
    for data, whole, note in cases:
        loaded = load_image(data, STRICT)
        assert loaded.notes == ((note,) if note else ())
        assert loaded.digest == load_image(whole).digest


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF"])
def test_trailing_bytes_and_a_wrong_file_name_give_no_note(format: str, tmp_path: Path) -> None:
    data = _encode(_noise(), format)
    (tmp_path / "photo.heic").write_bytes(data + b"\0more" * 50)
    loaded = load_image(tmp_path / "photo.heic")
    assert (loaded.digest, loaded.notes) == (load_image(data).digest, ())


def test_a_broken_exif_block_spoils_no_image() -> None:
    for exif in (b"Exif\0\0junk", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        assert load_image(_encode(_noise(), "JPEG", exif=exif)).notes == ()


# Faults that cost pixels: drawn for a person, refused for who cannot read a note


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "PPM", "PCX"])
def test_the_decodable_part_of_a_truncated_file_is_used_with_a_note(format: str) -> None:
    image = _noise(400, 300)
    # Pillow writes a TIFF's directory at the end.
    data = _tiff_directory_first(image) if format == "TIFF" else _encode(image, format)
    loaded = load_image(data[: len(data) // 2])
    (note,) = loaded.notes
    assert note.startswith("the file is damaged or cut off: about ")
    assert 40 <= int(note.split("about ")[1].split()[0]) <= 70
    pixels, expected = np.asarray(loaded.image).astype(int), np.asarray(load_image(data).image)
    top, bottom = (slice(200, None), slice(0, 90)) if format == "BMP" else (slice(0, 100), slice(230, None))
    assert np.array_equal(pixels[top], expected[top])
    assert abs(pixels[bottom] - 128).max() <= 1
    with pytest.raises(BadImage, match="damaged or cut off"):
        load_image(data[: len(data) // 2], STRICT)


def _tiff_directory_first(image: Image.Image) -> bytes:
    pixels = image.tobytes()
    tags = {256: image.width, 257: image.height, 258: 8, 259: 1, 262: 2, 273: 134, 277: 3, 278: 300, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(134, b"\0") + pixels


def test_of_a_progressive_jpeg_that_was_cut_off_the_whole_is_drawn_coarsely() -> None:
    smooth = _noise(8, 6).resize((400, 300), Image.Resampling.BICUBIC)
    data = _encode(smooth, "JPEG", progressive=True)
    loaded = load_image(data[: len(data) * 2 // 3])
    assert loaded.notes == ("the file is damaged or cut off: parts or details of it are missing",)
    assert abs(np.asarray(loaded.image).astype(int) - np.asarray(smooth)).mean() < 8


def test_a_gif_that_was_cut_off_is_drawn_as_far_as_it_goes() -> None:
    data = _encode(_noise(200, 200), "GIF")
    assert "damaged or cut off" in load_image(data[: len(data) // 2]).notes[0]


def test_pixel_data_with_a_wrong_checksum_is_drawn_with_a_note() -> None:
    image = _noise()
    data = bytearray(_encode(image, "PNG"))
    data[data.index(b"IEND") - 5] ^= 1
    loaded = load_image(bytes(data))
    assert loaded.notes == ("the checksum of its pixel data is wrong, so parts of it may be",)
    assert np.array_equal(np.asarray(loaded.image), np.asarray(image))


@pytest.mark.parametrize("keep", [0, 10, 30])
def test_a_file_of_which_no_pixel_is_left_is_refused(keep: int) -> None:
    for format in ("PNG", "JPEG", "GIF", "TIFF", "AVIF", "WEBP"):
        with pytest.raises(BadImage, match=r"is empty|damaged or cut off|not an image"):
            load_image(_encode(_noise(), format)[:keep])


def test_a_jpeg_that_decoders_are_not_built_for_is_described() -> None:
    data = bytearray(_encode(_noise(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(BadImage, match=r"a JPEG \(12 bits per value\) that cannot be decoded.*Convert it to 8-bit PNG"):
        load_image(bytes(data))


@pytest.mark.parametrize("format", [*COMMON, *RARER])
def test_no_change_of_bytes_brings_more_than_a_refusal(format: str) -> None:
    chance = random.Random(format)
    image = _noise(24, 16)
    good = _heic(image) if format == "HEIC" else _encode(image, format)
    for _ in range(60):
        data = bytearray(good)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.randint(1, 5) if data else 0):
            data[chance.randrange(min(len(data), chance.choice([64, len(data)])))] = chance.choice([0, 255, 7, 128])
        refusals = []
        try:
            assert load_image(bytes(data)).image.mode == "RGB"
        except BadImage as error:
            refusals.append(str(error))
        assert all(len(refusal) < 400 and "\n" not in refusal for refusal in refusals)


# Limits


def test_a_refusal_on_the_users_own_machine_names_the_remedy() -> None:
    wide = _encode(Image.new("L", (70_000, 1)), "PNG")
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(bytes(99))) + _chunk(b"IEND", b"")
    )
    with pytest.raises(BadImage, match=r"400,000,000 in all.*--max-image-pixels 400M, or limits=Limits\(max_pixels="):
        load_image(bomb, FOR_LOCAL_USER)
    with pytest.raises(BadImage, match=r"at most 65,535\..*Limits\(max_side_px=70000\)"):
        load_image(wide)
    with pytest.raises(BadImage, match=r"at most 9 are allowed\..*Limits\(max_bytes="):
        load_image(wide, Limits(max_bytes=9))
    allowed = FOR_LOCAL_USER.with_pixels(500_000_000)
    assert read_size(bomb, "it", allowed) == (20_000, 20_000)
    assert FOR_LOCAL_USER.with_pixels(None) == FOR_LOCAL_USER
    assert FOR_LOCAL_USER.with_pixels(5).max_jpeg_pixels == FOR_LOCAL_USER.max_jpeg_pixels


def test_a_screenshot_of_a_long_page_and_a_phones_photo_are_within_the_limits() -> None:
    assert load_image(_encode(Image.new("1", (1080, 20_000)), "PNG")).size == (1080, 20_000)
    assert load_image(_encode(Image.new("L", (8064, 6048), 7), "JPEG")).notes == ()


def test_a_jpeg_of_very_many_px_is_decoded_at_a_part_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_FULL_JPEG_PX", 500_000)
    monkeypatch.setattr(source, "_DRAFT_LONG_PX", 200)
    monkeypatch.setattr(source, "_DRAFT_SHORT_PX", 100)
    image = _noise(16, 12).resize((1000, 750), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _encode(image, "JPEG", exif=exif)
    loaded = load_image(data)
    assert loaded.notes == ("decoded at 1/4 of its 1000x750 px", "turned upright")
    assert (loaded.stored, loaded.size) == ((1000, 750), (188, 250))
    expected = np.asarray(image.reduce(4).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert abs(np.asarray(loaded.image) - expected).mean() < 3
    cut = load_image(data[: len(data) // 2])
    assert cut.notes[0] == "decoded at 1/4 of its 1000x750 px"
    assert "damaged or cut off" in cut.notes[1]
    # No px more than that: whole, as ever.
    small = _encode(image.resize((800, 600)), "JPEG")
    assert np.array_equal(_pixels(small), np.asarray(Image.open(io.BytesIO(small))))
    # A strip too thin for any part keeps its size; a PNG has no parts.
    assert load_image(_encode(_noise(5000, 150), "JPEG")).size == (5000, 150)
    assert load_image(_encode(_noise(1000, 750), "PNG")).size == (1000, 750)


def test_only_a_jpeg_may_have_more_px_than_are_decoded() -> None:
    limits = Limits(max_pixels=1000, max_jpeg_pixels=2400)
    assert load_image(_encode(_noise(), "JPEG"), limits).size == (60, 40)
    with pytest.raises(BadImage, match="at most 1,000 are allowed"):
        load_image(_encode(_noise(), "PNG"), limits)
    with pytest.raises(BadImage, match="at most 1,000 are allowed"):
        load_image(_encode(_noise(), "TIFF"), limits)


# What would cost much beside the pixels costs nothing


def _inflating(size: int = 2**28) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(2**20)) for _ in range(size // 2**20)]) + packer.flush()


def test_chunks_that_inflate_to_much_are_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    inflated = []
    real = zlib.decompressobj

    class Watched:
        def __init__(self) -> None:
            self._real = real()

        def decompress(self, data: bytes, most: int) -> bytes:
            text = self._real.decompress(data, most)
            inflated.append(len(text))
            return text

    monkeypatch.setattr("llava.image.formats.zlib.decompressobj", Watched)
    monkeypatch.setattr("PIL.PngImagePlugin._safe_zlib_decompress", lambda *_: pytest.fail("Pillow inflates it"))
    data, bomb = _encode(_noise(), "PNG"), _inflating()
    for chunk in (
        _chunk(b"iCCP", b"icc\0\0" + bomb),
        _chunk(b"zTXt", b"Comment\0\0" + bomb),
        _chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb),
        _chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
    ):
        assert load_image(data[:33] + chunk + data[33:], STRICT).notes == ()
    assert inflated == [2**20, 2**20], "the two that may hold an orientation, as far as one may stand"


def test_too_many_blocks_are_refused_before_they_are_parsed() -> None:
    png, gif, jpeg, webp = (_encode(_noise(), format) for format in ("PNG", "GIF", "JPEG", "WEBP"))
    palette_end = 13 + (3 << ((gif[10] & 7) + 1))
    for data in (
        png[:33] + _chunk(b"tEXt", b"") * 300_000 + png[33:],
        gif[:palette_end] + b"\x21\xfe" + b"\1a" * 1_200_000 + b"\0" + gif[palette_end:],
        jpeg[:2] + b"\xff\xfe\0\2" * 300_000 + jpeg[2:],
        webp + b"abcd\0\0\0\0" * 300_000,
    ):
        with pytest.raises(BadImage, match="header is damaged"):
            load_image(data)


def test_a_gif_comment_in_many_pieces_reaches_no_decoder() -> None:
    gif = _encode(_noise(), "GIF")
    at = 13 + (3 << ((gif[10] & 7) + 1))
    loaded = load_image(gif[:at] + b"\x21\xfe" + b"\1a" * 100_000 + b"\0" + gif[at:])
    assert loaded.digest == load_image(gif).digest


def test_a_tiffs_tags_that_decide_about_no_pixel_reach_no_decoder() -> None:
    image = _noise()
    pixels = image.tobytes()
    tags = {256: 60, 257: 40, 258: 8, 259: 1, 262: 2, 273: 8, 277: 3, 278: 40, 279: len(pixels)}
    needed = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    # Each claims the whole file as its value.
    huge = [struct.pack("<HHII", tag, 7, len(pixels), 8) for tag in range(30_000, 50_000)]
    entries = needed + huge
    start = 8 + len(pixels)
    data = b"II*\0" + struct.pack("<I", start) + pixels + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    assert len(read_page(data).data) < len(data) + 300
    assert np.array_equal(_pixels(data), np.asarray(image))
    endless = data[:-4] + struct.pack("<I", start)  # the next page is the first one
    assert load_image(endless).notes == ()


# Names


def test_home_is_expanded_in_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    _noise().save(tmp_path / "x.png")
    assert load_image("~/x.png").size == (60, 40)
    with pytest.raises(BadImage, match=r"There is no file ~nobody-of-this-name/x\.png"):
        load_image("~nobody-of-this-name/x.png")
    _noise(5, 5).save(tmp_path / "~y.png")
    assert load_image("~y.png").size == (5, 5), "a file that is really called so"


def test_an_image_that_was_converted_is_reported_with_the_remedy() -> None:
    png, jpeg = _encode(_noise(), "PNG"), _encode(_noise(), "JPEG")
    for data, words in [
        (base64.b64encode(png), "base64 -d"),
        (b"data:image/png;base64," + base64.b64encode(png), "Pass the text itself"),
        (png.replace(b"\r\n", b"\n"), "binary mode"),
        (png.decode("latin-1").encode(), "binary mode"),
        (jpeg.decode("utf-8", "replace").encode(), "binary mode"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg, "curl"),
        (b"\r\n" + jpeg, r"tail -c \+3 "),
        (b"\xef\xbb\xbf" + png, r"tail -c \+4 "),
        (b"something else altogether", "Convert it to PNG"),
        (png[:30], "again"),
        (_encode(_noise(), "WEBP")[:200], "again"),
    ]:
        with pytest.raises(BadImage, match=words):
            load_image(data)


def test_of_an_icon_that_is_cut_off_the_largest_whole_size_is_taken_and_that_is_said() -> None:
    file = io.BytesIO()
    _noise(64, 64).save(file, "ICO", sizes=[(16, 16), (64, 64)])
    loaded = load_image(file.getvalue()[:-10])
    assert loaded.size == (16, 16)
    assert loaded.notes == ("the largest of 2 sizes, without those that are cut off",)
