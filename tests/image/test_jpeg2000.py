"""JPEG 2000 of fewer than 8 bits: black is 0 and white is 255, as in every other format."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, features

from llava.image.jpeg2000 import read_bits, spread
from llava.image.source import load_image

pytestmark = pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow was built without OpenJPEG")


def _narrow(mode: str, bits: int) -> tuple[bytes, np.ndarray]:
    """A file whose values have so many bits, and its values.

    Pillow writes 8. Without loss the coded numbers are the distance from the middle of the range, so a file of 8 bits
    becomes one of fewer by saying so.
    """
    values = np.tile(np.arange(2**bits), 64)[:64].repeat(8).reshape(64, 8).T
    coded = Image.fromarray((values - 2 ** (bits - 1) + 128).astype(np.uint8))
    bands = Image.new(mode, (1, 1)).getbands()
    file = io.BytesIO()
    image = coded if len(bands) == 1 else Image.merge(mode, [coded] * len(bands))
    image.save(file, "JPEG2000", irreversible=False, mct=0)
    data = bytearray(file.getvalue())
    at = data.find(b"\xff\x4f\xff\x51") + 42
    for i in range(len(bands)):
        data[at + 3 * i] = bits - 1
    data[data.find(b"ihdr") + 14] = bits - 1
    return bytes(data), values


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("bits", [1, 2, 4, 5, 6])
def test_the_highest_value_is_white(mode: str, bits: int) -> None:
    data, values = _narrow(mode, bits)
    assert read_bits(data) == (bits,) * len(mode)
    shown = np.asarray(load_image(data).image)
    assert np.array_equal(shown[..., 0], values * 255 // (2**bits - 1))
    assert shown.max() == 255


def test_a_transparency_of_few_bits_is_whole_at_its_highest() -> None:
    image = load_image(_narrow("LA", 1)[0])
    # Black is transparent here and white is not, so there is white alone, which is shown on black.
    assert image.image.getextrema() == ((0, 255),) * 3
    assert image.notes == ("transparent parts are shown black",)


def test_numbers_of_colours_stay_numbers() -> None:
    image = Image.new("P", (3, 1))
    image.putdata([0, 1 << 4, 15 << 4])
    assert list(spread(image, (4,)).tobytes()) == [0, 1, 15]


def test_8_bits_and_a_codestream_that_says_nothing_are_left_alone() -> None:
    image = Image.new("RGB", (2, 2))
    assert spread(image, (8, 8, 8)) is image
    assert spread(image, ()) is image
    assert read_bits(b"") == read_bits(b"\xff\x4f\xff\x51" + bytes(38)) == ()
