"""Resized pixels are those of the released models' Pillow, whichever Pillow is installed.

The digests below were made by ``Image.resize`` of Pillow 10.4.0 and are the same with 12.3.0. Pillow 13.0.0's own
``resize`` gives others for the portrait images, because it resizes their columns first; asked for one pass at a time,
as ``llava.image.pixels.resize`` asks, it gives these too.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from llava.image import pixels
from llava.image.geometry import Size, Tiling, plan_tiles
from llava.image.pixels import resize

GOLD = {
    (300, 1000): "a0f8c9eb56e7",
    (1000, 300): "98316718e1ca",
    (667, 1000): "e651f1f0c5a8",
    (1000, 667): "857daecae4a7",
    (1500, 2000): "0e708a17e2e2",
    (2000, 1500): "03e54fc7d5c5",
    (333, 4000): "434da26943eb",
    (4000, 333): "4612e48115d7",
    (720, 1280): "82d3180e62e0",
    (50, 900): "e049be9bf6aa",
}


def _image(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    channels = [(x * 7 + y * 13 + x * y) % 256, (x * x + 3 * y) % 256, (x * 5 + y * y * 11) % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))


@pytest.mark.parametrize("size", GOLD)
def test_resized_pixels_are_those_of_pillow_10_to_12(size: tuple[int, int]) -> None:
    resized = resize(_image(*size), (336, 336), Image.Resampling.BICUBIC)
    assert hashlib.sha256(resized.tobytes()).hexdigest()[:12] == GOLD[size]


@pytest.mark.parametrize("size", GOLD)
def test_every_resize_of_a_tile_goes_one_pass_at_a_time(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no Pillow is left to choose the order."""
    processor = pixels.ImageProcessor()
    real = Image.Image.resize

    def watched(self: Image.Image, new: tuple[int, int], *args: object, **options: object) -> Image.Image:
        assert self.width == new[0] or self.height == new[1], f"{self.size} to {tuple(new)} at once"
        return real(self, new, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    pinpoints = pixels.parse_pinpoints([[336, 672], [672, 336], [672, 672]], 336)
    for tiling in (
        Tiling(),
        Tiling("pad"),
        Tiling("anyres", "spatial_unpad", pinpoints=pinpoints),
    ):
        pixels.make_pixels(_image(*size), plan_tiles(Size(*size), tiling), processor)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "CMYK"])
def test_other_modes_are_left_to_pillow(mode: str) -> None:
    image = _image(30, 40).convert(mode)
    expected = image.resize((20, 20), Image.Resampling.BICUBIC)
    assert resize(image, (20, 20), Image.Resampling.BICUBIC).tobytes() == expected.tobytes()
