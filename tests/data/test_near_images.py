"""Near duplicates: altered copies are found, and images that only look alike are not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from llava.data.crop_search import CropSearch
from llava.data.fingerprints import fingerprint
from llava.data.image_comparison import compare
from llava.data.near_images import WHOLE, as_thumbnails, find_duplicates
from llava.errors import BadImage
from tests.data.drawn_images import alter, crop, draw_chart, draw_form, draw_page, draw_photo, draw_small, encode

Draw = Callable[[np.random.Generator], Image.Image]
ALIKE: dict[str, Draw] = {
    "pages": lambda rng: draw_page(rng, 7),
    "forms": lambda rng: draw_form(rng, 9),
    "charts": lambda rng: draw_chart(rng, 5),
    "photos": draw_photo,
}


def found(images: list[bytes]) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in find_duplicates(images)}


@pytest.mark.parametrize("kind", ALIKE)
def test_images_of_one_layout_do_not_pair_and_their_altered_copies_do(kind: str) -> None:
    rng = np.random.default_rng(1)
    images = [ALIKE[kind](rng) for _ in range(3)]
    files = [encode(image, quality=90) for image in images] + [alter(rng, image) for image in images]
    assert found(files) == {(i, i + 3) for i in range(3)}


@pytest.mark.parametrize("quality", [30, 95])
@pytest.mark.parametrize("scale", [0.3, 1, 2])
def test_a_resized_jpeg_is_found(quality: int, scale: float) -> None:
    image = draw_page(np.random.default_rng(2), 3)
    copy = image.resize((round(image.width * scale), round(image.height * scale)))
    assert found([encode(image, "PNG"), encode(copy, quality=quality)]) == {(0, 1)}


@pytest.mark.parametrize(
    "sides", [(0.1, 0.1, 0.1, 0.1), (0.1, 0, 0, 0), (0, 0, 0, 0.1), (0.025, 0.075, 0.025, 0.075), (0.07, 0, 0.02, 0.1)]
)
def test_a_crop_is_found_whichever_image_is_the_crop(sides: tuple[float, float, float, float]) -> None:
    image = draw_photo(np.random.default_rng(3))
    files = [encode(image), encode(crop(image, *sides), quality=60)]
    (pair,) = find_duplicates(files)
    left, top, right, bottom = sides
    assert pair.first_box == pytest.approx((left, top, 1 - right, 1 - bottom), abs=0.01)
    assert pair.second_box == pytest.approx(WHOLE, abs=0.01)
    (turned,) = find_duplicates(files[::-1])
    assert turned.second_box == pytest.approx(pair.first_box, abs=0.005)


def test_kinds_tell_equal_files_equal_pixels_and_near_duplicates_apart() -> None:
    image = draw_photo(np.random.default_rng(4))
    png = encode(image, "PNG")
    pairs = find_duplicates([png, png, encode(image, "PNG", compress_level=1), encode(image, quality=80)])
    assert {(pair.first, pair.second): pair.kind for pair in pairs} == {
        (0, 1): "file",
        (0, 2): "pixels",
        (0, 3): "near",
        (2, 3): "near",
    }


def test_an_image_that_is_turned_by_its_metadata_is_found_upright() -> None:
    image = draw_photo(np.random.default_rng(5))
    exif = Image.Exif()
    exif[274] = 6
    turned = encode(image.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert found([encode(image), turned]) == {(0, 1)}
    assert fingerprint(turned).size == fingerprint(encode(image)).size


def test_blank_pages_pair_only_as_equal_files() -> None:
    blank = encode(Image.new("RGB", (300, 400), "white"))
    pairs = find_duplicates([blank, encode(Image.new("RGB", (300, 400), (254, 254, 254))), blank])
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [(0, 2, "file")]


def test_one_changed_bar_or_word_makes_another_image() -> None:
    image = draw_chart(np.random.default_rng(6), 8).convert("L")
    other = image.copy()
    other.paste(255, (60, 60, 85, 150))
    assert compare(image, image, WHOLE).is_same
    assert not compare(image, other, WHOLE).is_same


def test_a_damaged_image_is_a_bad_image() -> None:
    whole = encode(draw_photo(np.random.default_rng(7)))
    with pytest.raises(BadImage, match="damaged or cut off"):
        fingerprint(whole[: len(whole) // 2])
    with pytest.raises(BadImage, match="web page"):
        fingerprint(b"<html><body>404</body></html>" * 200)


def test_tiny_and_thin_images_do_not_fail() -> None:
    rng = np.random.default_rng(8)
    thin = Image.fromarray(rng.integers(0, 255, (3, 700, 3), np.uint8))
    tiny = Image.fromarray(rng.integers(0, 255, (5, 4, 3), np.uint8))
    assert found([encode(thin, "PNG"), encode(tiny, "PNG"), encode(Image.new("L", (1, 1)), "PNG")]) == set()


def test_copies_are_found_among_five_thousand_others_and_nothing_else_is() -> None:
    rng = np.random.default_rng(9)
    others = [encode(draw_small(rng), "BMP") for _ in range(5000)]
    drawn = [draw_photo(rng) for _ in range(6)]
    drawn += [draw_page(rng, layout) for layout in range(4)] + [draw_chart(rng, layout) for layout in range(4)]
    files = [encode(image, quality=85) for image in drawn] + others
    copies = [alter(rng, image) for image in drawn]
    thumbnails = [as_thumbnails([fingerprint(file).thumbnail for file in part]) for part in (files, copies)]
    search = CropSearch(thumbnails[1])
    candidates = list(search.find(thumbnails[0]))
    assert {(i, i) for i in range(len(drawn))} <= {(found.first, found.second) for found in candidates}
    same = set()
    for candidate in candidates:
        one, two = (
            Image.open(io.BytesIO(file)).convert("L") for file in (files[candidate.first], copies[candidate.second])
        )
        pair = (one, two) if candidate.first_is_crop else (two, one)
        if compare(*pair, candidate.box).is_same:
            same.add((candidate.first, candidate.second))
    assert same == {(i, i) for i in range(len(drawn))}
