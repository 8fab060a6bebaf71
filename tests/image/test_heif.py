"""The rotation that a HEIC's decoder applied is read from its container."""

from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from llava.image.heif import Turn, find_turn
from llava.image.source import load_image


def _heic(orientation: int) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.linear_gradient("L").convert("RGB").resize((60, 40))).save(file, exif=exif.tobytes())
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_that_its_decoder_turned_says_so_and_what_size_it_has(orientation: int) -> None:
    image = load_image(_heic(orientation))
    assert image.notes == (() if orientation == 1 else ("turned upright",))
    assert image.stored == (60, 40)
    assert image.size == ((40, 60) if orientation >= 5 else (60, 40))


def test_a_container_that_says_nothing_or_is_damaged_turns_nothing() -> None:
    data = _heic(6)
    assert find_turn(data) == Turn(3, False)
    assert find_turn(_heic(1)) == find_turn(b"") == find_turn(b"\0\0\0\x18ftypheic") == Turn()
    dice = random.Random(4)
    for _ in range(300):
        broken = bytearray(data[: dice.randrange(40, 700)])
        for _ in range(4):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        assert isinstance(find_turn(bytes(broken)), Turn)
    assert find_turn(data.replace(b"pitm", b"xxxx")) == Turn()
    assert find_turn(data.replace(b"ipma", b"xxxx")) == Turn()
