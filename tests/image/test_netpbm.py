"""PGM and PPM of any greatest value, binary and as text."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from llava.errors import BadImage
from llava.image.netpbm import read_values
from llava.image.source import Limits, load_image


def _values(greatest: int, num_channels: int, used: int | None = None) -> np.ndarray:
    values = np.random.default_rng(greatest).integers(0, (used or greatest) + 1, (7, 9, num_channels))
    values[0, 0], values[1, 1] = 0, used or greatest
    return values


def _binary(values: np.ndarray, greatest: int) -> bytes:
    kind = 5 if values.shape[-1] == 1 else 6
    return b"P%d\n9 7\n%d\n" % (kind, greatest) + values.astype(">u2" if greatest > 255 else "u1").tobytes()


def _text(values: np.ndarray, greatest: int) -> bytes:
    kind = 2 if values.shape[-1] == 1 else 3
    lines = b"\n".join(b" ".join(b"%d" % value for value in row.ravel()) + b" # row" for row in values)
    return b"P%d # made by hand\n9 7\n%d\n#7 7 7\n%s\n" % (kind, greatest, lines)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("greatest", [1023, 4095, 16383])
def test_10_to_14_bits_are_shown_by_the_range_that_the_head_declares(greatest: int, num_channels: int) -> None:
    for used in (greatest, greatest // 8):
        values = _values(greatest, num_channels, used)
        binary, text = load_image(_binary(values, greatest)), load_image(_text(values, greatest))
        assert binary.notes == text.notes == (f"its values 0 to {greatest} are shown as 0 to 255",)
        assert binary.digest == text.digest
        expected = np.broadcast_to(values * 256 // (greatest + 1), (7, 9, 3))
        assert np.array_equal(np.asarray(text.image), expected)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("greatest", [1, 3, 100, 254, 255])
def test_up_to_8_bits_are_what_pillow_makes_of_them(greatest: int, num_channels: int) -> None:
    values = _values(greatest, num_channels)
    for data in (_binary(values, greatest), _text(values, greatest)):
        image = load_image(data)
        with Image.open(io.BytesIO(data)) as opened:
            assert np.array_equal(np.asarray(image.image), np.asarray(opened.convert("RGB")))
        assert image.notes == ()


def test_16_bits_keep_their_upper_byte_in_text_as_in_binary() -> None:
    values = _values(65535, 3)
    binary, text = load_image(_binary(values, 65535)), load_image(_text(values, 65535))
    assert (binary.notes, text.notes) == ((), ())
    assert np.array_equal(np.asarray(text.image), values >> 8)
    assert binary.digest == text.digest


@pytest.mark.parametrize("write", [_binary, _text])
@pytest.mark.parametrize("greatest", [100, 4095])
def test_of_a_file_that_was_cut_off_whole_rows_are_shown(write: object, greatest: int) -> None:
    assert callable(write)
    values = _values(greatest, 3)
    data = write(values, greatest)
    cut = load_image(data[: len(data) * 6 // 10])
    assert any(note.startswith("the file is damaged or cut off: about 43 %") for note in cut.notes)
    shown, whole = np.asarray(cut.image), np.asarray(load_image(data).image)
    assert np.array_equal(shown[:4], whole[:4])
    assert (shown[4:] == 128).all()
    with pytest.raises(BadImage, match="is cut off"):
        load_image(data[: len(data) * 6 // 10], Limits(draws_damaged=False))


@pytest.mark.parametrize(
    "data",
    [
        b"P2 2 2 1023 1 2 3 1024",
        b"P2 2 2 1023 1 2 3 x",
        b"P2 2 2 1023 1 2 3 -4",
        b"P2 2 2 1023 1 2 3 99999999999999999999",
        b"P2 2 2 65536 1 2 3 4",
        b"P2 2 2 0 0 0 0 0",
        b"P2 2 2 9 1",
        b"P6 2 2 9 12345",
    ],
)
def test_invalid_values_are_refused(data: bytes) -> None:
    with pytest.raises(BadImage, match="that cannot be decoded"):
        load_image(data)


def test_bitmaps_8_bits_and_floats_are_left_to_pillow() -> None:
    for data in (b"P1 2 2 1 0 0 1", b"P4 8 1 \xff", b"P5 1 1 255 x", b"P6 1 1 255 xyz", b"Pf 1 1 -1.0\n\0\0\0\0"):
        assert read_values(data) is None


def test_a_second_image_in_a_text_file_is_ignored() -> None:
    assert load_image(b"P2 2 1 9 0 9 P2 2 1 9 0 9").image.getpixel((1, 0)) == (255, 255, 255)
