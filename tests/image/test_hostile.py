"""Headers that are built to cost time: each is parsed once, whatever it contains."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from llava.errors import BadImage
from llava.image import formats
from llava.image.formats import read_header
from llava.image.source import load_image


def _encode(format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, format, **options)
    return file.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("end", [b"", b"\0"])
def test_a_jpeg_of_fill_bytes_is_refused_without_matching_them_again_and_again(end: bytes) -> None:
    with pytest.raises(BadImage, match="header is damaged"):
        read_header(b"\xff\xd8\xff" + b"\xff" * 500_000 + end, "x.jpg")


def _behind_first_segment(stray: bytes) -> bytes:
    data = _encode("JPEG")
    return data[:20] + stray + data[20:]


def test_fill_bytes_before_a_marker_are_no_stray_bytes() -> None:
    filled = load_image(_behind_first_segment(b"\xff" * 1000))
    assert (filled.notes, filled.digest) == ((), load_image(_encode("JPEG")).digest)
    stray = load_image(_behind_first_segment(b"ab" + b"\xff" * 1000))
    assert stray.notes == ("2 stray bytes between its segments were passed over",)


def test_stray_bytes_are_passed_over_for_a_mebibyte_and_no_longer() -> None:
    assert load_image(_behind_first_segment(bytes(1_000_000))).notes[0].startswith("1,000,000 stray bytes")
    with pytest.raises(BadImage, match="header is damaged"):
        load_image(_behind_first_segment(bytes(2**20)))


def test_exif_that_is_cut_into_very_many_segments_is_put_together() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes()
    segments = b"".join(
        b"\xff\xe1" + struct.pack(">H", 2 + 6 + 1) + b"Exif\0\0" + block[i : i + 1] for i in range(6, len(block))
    )
    data = _encode("JPEG")
    # The first one keeps the six bytes by which each is known.
    assert load_image(data[:2] + segments + data[2:]).size == (40, 60)


def test_all_texts_of_a_png_together_inflate_to_a_mebibyte(monkeypatch: pytest.MonkeyPatch) -> None:
    num_bytes = 0
    real = zlib.decompressobj

    class Counting:
        def __init__(self) -> None:
            self._real = real()

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal num_bytes
            assert most > 0, "0 is no limit"
            found = self._real.decompress(data, most)
            num_bytes += len(found)
            return found

    monkeypatch.setattr(formats.zlib, "decompressobj", Counting)
    text = _chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(700_000)))
    data = _encode("PNG")
    header = read_header(data[:33] + text * 20 + data[33:], "x.png")
    assert (header.size, header.orientation) == ((60, 40), 1)
    assert 700_000 < num_bytes <= 2**20


@pytest.mark.parametrize("piece", [b"\x21\xfe\0", b"\x21\xfe\1x\0"])
def test_extensions_of_a_gif_are_counted_though_they_are_empty(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(formats, "_MOST_GIF_BLOCKS", 100)
    data = _encode("GIF")
    assert data[10] & 0x80
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)
    assert read_header(data[:at] + piece * 20 + data[at:], "x.gif").size == (60, 40)
    with pytest.raises(BadImage, match="header is damaged"):
        read_header(data[:at] + piece * 150 + data[at:], "x.gif")


def test_frames_of_a_gif_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_MOST_GIF_BLOCKS", 100)
    frame = b"\x2c" + struct.pack("<4H", 0, 0, 1, 1) + b"\0\2\0"
    header = read_header(_encode("GIF")[:-1] + frame * 500 + b";", "x.gif")
    assert 50 < int(header.frames.removeprefix("frame 1 of ")) <= 101


def test_of_an_icons_images_only_the_largest_is_taken_out_of_the_file() -> None:
    class Counted(bytes):
        num_bytes = 0

        def __getitem__(self, at: Any) -> Any:
            found = super().__getitem__(at)
            if isinstance(at, slice):
                Counted.num_bytes += len(found)
            return found

    content = _encode("PNG")
    entries = b"".join(
        struct.pack("<BBBBHHII", 32, 32, 0, 0, 1, 32, len(content) - 40 + i, 6 + 16 * 41) for i in range(41)
    )
    data = Counted(struct.pack("<HHH", 0, 1, 41) + entries + content)
    assert formats._read_icon(data).size == (60, 40)
    assert Counted.num_bytes < 1500
