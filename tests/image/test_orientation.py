"""Orientation: wherever Pillow's ``exif_transpose`` finds one, each image is rotated upright exactly once."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from llava.image.orientation import find_tag, read_orientation
from llava.image.source import load_image

ORIENTATION = 0x0112
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
XMP_ELEMENT = b"<rdf:RDF><tiff:Orientation>8</tiff:Orientation></rdf:RDF>"


def _photo() -> Image.Image:
    """80x60 px, smooth, and different from itself in each of the eight orientations."""
    y, x = np.mgrid[0:60, 0:80]
    return Image.fromarray(np.stack([x * 3, y * 4, x + y], -1).astype(np.uint8))


def _encode(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    _photo().save(file, format, **options)
    return file.getvalue()


def _exif(kind: int, value: int, order: str = "<") -> bytes:
    """An EXIF block with the orientation as a number of one of TIFF's types."""
    letters = {1: "B", 2: "2s", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}[kind]
    values = {2: (str(value).encode(),), 5: (value, 1)}.get(kind, (value,))
    content = struct.pack(order + letters, *values)
    head = b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    entry = struct.pack(order + "HHI", ORIENTATION, kind, 1)
    if len(content) <= 4:
        return head + entry + content.ljust(4, b"\0") + bytes(4)
    return head + entry + struct.pack(order + "I", 26) + bytes(4) + content


def _png_text(keyword: str, text: str, *, packed: bool = False, international: bool = False) -> bytes:
    info = PngInfo()
    (info.add_itxt if international else info.add_text)(keyword, text, zip=packed)
    return _encode("PNG", pnginfo=info)


def _raw_profile(exif: bytes) -> str:
    return f"\nexif\n{len(exif):8}\n{exif.hex()}\n"


def _rotated(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


FILES = {
    **{f"{kind}{order}": _encode("JPEG", exif=_exif(kind, 6, order)) for kind in (3, 4, 5, 6, 8, 9) for order in "<>"},
    "float": _encode("JPEG", exif=_exif(11, 6)),
    "text is no number": _encode("JPEG", exif=_exif(2, 6)),
    "xmp in jpeg": _encode("JPEG", xmp=XMP),
    "xmp element in jpeg": _encode("JPEG", xmp=XMP_ELEMENT),
    "exif before xmp": _encode("JPEG", exif=_exif(3, 1), xmp=XMP),
    "unusable exif before xmp": _encode("JPEG", exif=_exif(3, 9), xmp=XMP),
    "xmp in webp": _encode("WEBP", xmp=XMP),
    "xmp in png": _png_text("XML:com.adobe.xmp", XMP.decode(), international=True),
    "packed xmp in png": _png_text("XML:com.adobe.xmp", XMP.decode(), international=True, packed=True),
    "xmp in tiff": _encode("TIFF", tiffinfo={700: XMP}),
    "xmp in avif": _encode("AVIF", xmp=XMP),
    "raw profile": _png_text("Raw profile type exif", _raw_profile(_exif(3, 6))),
    "packed raw profile": _png_text("Raw profile type exif", _raw_profile(_exif(4, 6)), packed=True),
    **{
        f"{format} {n}": _encode(format, exif=_rotated(n)) for format in ("PNG", "WEBP", "TIFF", "AVIF") for n in (2, 6)
    },
}


def _as_pillow_turns(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        return ImageOps.exif_transpose(opened)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_turned_once_as_exif_transpose_turns_it(name: str) -> None:
    data = FILES[name]
    expected = _as_pillow_turns(data).convert("RGB")
    image = load_image(data)
    assert image.image.size == expected.size
    assert image.stored == (80, 60)
    assert np.array_equal(np.asarray(image.image), np.asarray(expected))
    is_left = name in ("text is no number", "exif before xmp", "unusable exif before xmp")
    assert image.notes == (() if is_left else ("turned upright",))


def test_an_orientation_in_a_byte_counts_though_pillow_overlooks_it() -> None:
    assert load_image(_encode("JPEG", exif=_exif(1, 6))).size == (60, 80)
    assert find_tag(_exif(1, 6)) == 6


@pytest.mark.parametrize("name", FILES)
def test_an_opened_file_is_turned_and_turned_pixels_are_left_alone(name: str) -> None:
    data = FILES[name]
    digest = load_image(data).digest
    with Image.open(io.BytesIO(data)) as opened:
        assert load_image(opened).digest == digest
    assert load_image(_as_pillow_turns(data)).digest == digest
    with Image.open(io.BytesIO(data)) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        assert load_image(opened).digest == digest
    assert load_image(load_image(data).image).digest == digest


def test_pixels_that_were_made_from_an_opened_file_are_taken_for_upright() -> None:
    with Image.open(io.BytesIO(_encode("JPEG", exif=_exif(3, 6)))) as opened:
        by_hand = opened.rotate(-90, expand=True)
        assert by_hand.getexif()[ORIENTATION] == 6, "its metadata still asks to be turned"
        assert load_image(by_hand).size == (60, 80)
        assert load_image(opened.convert("L")).size == (80, 60)
        assert load_image(opened.copy()).size == (80, 60)
        opened.thumbnail((40, 30))  # changes the opened file's pixels in place, and turns none
        assert load_image(opened).size == (30, 40)


def test_heic_is_turned_by_its_container_and_not_again_by_exif() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(_photo()).save(file, quality=90, exif=_exif(3, 6))
    upright = load_image(file.getvalue())
    with Image.open(io.BytesIO(_encode("JPEG", exif=_exif(3, 6)))) as opened:
        expected = ImageOps.exif_transpose(opened)
    assert upright.size == expected.size == (60, 80)
    difference = np.asarray(upright.image).astype(int) - np.asarray(expected)
    assert abs(difference).mean() < 8


@pytest.mark.parametrize(
    "block",
    [
        b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 1, 7, 2**31, 0) * 5000,
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", ORIENTATION, 5, 1, 2**32 - 1),
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIII", ORIENTATION, 5, 1, 26, 0) + struct.pack("<II", 6, 0),
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", ORIENTATION, 12, 1, 22) + struct.pack("<d", float("nan")),
    ],
)
def test_a_hostile_exif_block_says_nothing(block: bytes) -> None:
    assert read_orientation(block) == 1


def test_an_invalid_raw_profile_is_ignored() -> None:
    for text in (b"", b"\nexif\n", b"\nexif\n 4\nzz", b"\nexif\n 4\n" + b"\xff" * 9):
        assert read_orientation(raw_profile=text) == 1
