"""A photograph's line tells its main thing, where it is, its colors, the background's and the light."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llava.model.lexical.efficientnet_lite import NUM_CLASSES
from llava.model.lexical.nouns import with_article
from llava.model.lexical.photo_frame import cut, find_frame
from llava.model.lexical.photo_line import Guess, Photo, guess_main, name_guess, write_photo
from llava.model.lexical.photo_look import cut_map, is_photo, locate_thing, look_at_photo
from llava.model.lexical.thing_guesses import class_names
from tests.model.test_thing_guesses import logits

SIDE = 96
GOOSE = [name for name, _ in class_names()].index("goose")


def scene(ground: tuple[int, int, int], thing: tuple[int, int, int], middle: tuple[int, int]) -> torch.Tensor:
    """A disc of one color on another, with noise, RGB in 0..1 [3, SIDE, SIDE]. ``middle``: row and column."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    is_thing = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < 14**2
    pixels = np.where(is_thing[..., None], thing, ground) + np.random.default_rng(0).normal(0, 4, (SIDE, SIDE, 3))
    return torch.from_numpy(pixels.clip(0, 255) / 255).permute(2, 0, 1).float()


def map_at(middle: tuple[int, int]) -> np.ndarray:
    """Where the encoder would see the disc of ``scene``, a little wider than it is."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    far = ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) ** 0.5
    return (1 - far / 36).clip(0).astype(np.float32)


@pytest.mark.parametrize(
    ("chances", "guess"),
    [
        ({"coffee_mug": 0.55, "tea_cup": 0.13}, Guess(("cup",), "coffee mug", is_sure=True)),
        ({"coffee_mug": 0.3, "tea_cup": 0.35}, Guess(("cup",), "tea cup", is_sure=True)),
        ({"tabby_cat": 0.25, "tiger_cat": 0.2, "Egyptian_Mau": 0.2}, Guess(("cat",), "", is_sure=True)),
        ({"goose": 0.8}, Guess(("goose",), "", is_sure=True)),
        ({"goose": 0.3, "pizza": 0.2, "banana": 0.19}, Guess(("goose", "pizza"))),
        ({"goose": 0.3, "pizza": 0.08}, Guess(("goose",))),
        ({"goose": 0.08, "pizza": 0.08, "banana": 0.08, "backpack": 0.08, "volcano": 0.08}, Guess()),
    ],
)
def test_what_the_encoder_is_sure_of_is_one_kind_and_what_it_is_not_up_to_two(
    chances: dict[str, float], guess: Guess
) -> None:
    assert guess_main(logits(**chances)) == guess


@pytest.mark.parametrize(
    ("photo", "line"),
    [
        (
            Photo(Guess(("dog",), "Airedale Terrier", is_sure=True), 4, ("brown", "black"), ("green",), "bright"),
            "Photo of a dog, an Airedale Terrier, in the center. It is brown and black. The background is green. "
            "The photo is bright.",
        ),
        (
            Photo(Guess(("lake", "valley")), 1, ("blue",), ("green", "white"), "dark"),
            "Photo, perhaps of a lake or a valley, at the top. It is blue. The background is green and white. "
            "The photo is dark.",
        ),
        (
            Photo(Guess(), 5, ("gray",), (), "black and white"),
            "Photo of something on the right. It is gray. It is a black and white photo.",
        ),
    ],
)
def test_the_line_is_in_sentences(photo: Photo, line: str) -> None:
    assert write_photo(photo) == line


def test_names_have_the_article_that_is_spoken() -> None:
    said = ["an hourglass", "a unicycle", "some sunglasses", "an Irish Setter", "a European polecat"]
    assert [with_article(one.partition(" ")[2]) for one in said] == said
    assert name_guess(Guess()) == "something"


@pytest.mark.parametrize("where", [((20, 20), 0), ((48, 48), 4), ((48, 76), 5), ((78, 48), 7)])
def test_place_and_colors_are_those_of_the_thing_and_not_of_the_ground(where: tuple[tuple[int, int], int]) -> None:
    middle, cell = where
    photo = look_at_photo(scene((40, 130, 50), (230, 30, 30), middle), map_at(middle), logits(goose=0.9))
    assert (photo.cell, photo.colours, photo.ground, photo.light) == (cell, ("red",), ("green",), "bright")
    assert photo.guess.kinds == ("goose",)


def test_the_grounds_top_and_bottom_are_told_apart_where_they_differ() -> None:
    middle = (48, 48)
    for top, bottom, ground in (
        ((60, 120, 230), (40, 150, 60), "blue at the top and green at the bottom"),
        ((40, 150, 60), (40, 150, 60), "green"),
    ):
        pixels = scene(bottom, (220, 40, 40), middle)
        pixels[:, :48] = scene(top, (220, 40, 40), middle)[:, :48]
        photo = look_at_photo(pixels, map_at(middle), logits(goose=0.9))
        assert photo.colours == ("red",)
        assert f"The background is {ground}." in write_photo(photo)


def test_white_in_the_shade_is_white_and_a_photo_without_colors_is_black_and_white() -> None:
    at = (48, 48)
    shaded = look_at_photo(scene((20, 60, 25), (175, 172, 170), at), map_at(at), logits(goose=0.9))
    assert shaded.colours == ("white",)
    grey = look_at_photo(
        scene((60, 60, 60), (250, 250, 250), at).mean(0).expand(3, -1, -1), map_at(at), logits(goose=0.9)
    )
    assert (grey.colours, grey.light) == (("white",), "black and white")
    assert look_at_photo(scene((5, 5, 25), (90, 10, 10), at), map_at(at), logits(goose=0.9)).light == "dark"


def test_the_thing_is_where_the_map_speaks_for_its_class() -> None:
    places = torch.zeros(9, 9, NUM_CLASSES)
    places[2, 6, GOOSE], places[7, 1, GOOSE + 1] = 3.0, 9.0
    found = locate_thing(places, logits(goose=0.9))
    assert found.max() == pytest.approx(1)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert (row * 9 // SIDE, column * 9 // SIDE) == (2, 6)
    assert found[SIDE // 2 :, : SIDE // 2].max() == 0


def test_pages_and_clip_art_are_no_photographs() -> None:
    rng = np.random.default_rng(1)
    noise = torch.from_numpy(rng.integers(0, 255, (3, 192, 192), dtype=np.uint8))
    everywhere = np.ones((SIDE, SIDE), np.float32)
    assert is_photo(noise, everywhere, "")
    assert is_photo(noise, everywhere, "Text (1 line):\n1. STOP")
    assert not is_photo(noise, everywhere, "Text (6 lines):" + "\nline" * 6)
    flat = torch.full((3, 192, 192), 255, dtype=torch.uint8)
    flat[:, 60:130, 60:130] = 90
    assert not is_photo(flat, everywhere, "")
    shaded = flat.clone()
    shaded[:, 60:130, 60:130] = noise[:, :70, :70] // 8 + 90
    assert is_photo(shaded, (map_at((48, 48)) > 0.7).astype(np.float32), "")
    assert not is_photo(shaded, everywhere, "1 object: gray square (center).")


def framed(ground: tuple[int, int, int], colour: int, sides: tuple[int, int]) -> torch.Tensor:
    """A disc on a ground, uint8, within a frame. ``sides``: its width beside the photograph, and above and below it."""
    shown = (scene(ground, (230, 30, 30), (48, 48)) * 255).to(torch.uint8)
    return torch.nn.functional.pad(shown, (sides[0], sides[0], sides[1], sides[1]), value=colour)


@pytest.mark.parametrize(("colour", "sides"), [(255, (12, 12)), (0, (24, 24)), (0, (0, 20)), (255, (30, 0))])
def test_a_frame_is_no_part_of_the_photograph(colour: int, sides: tuple[int, int]) -> None:
    canvas = framed((40, 130, 50), colour, sides)
    frame = find_frame(canvas)
    assert cut(canvas, frame).shape == (3, SIDE, SIDE)
    photo = look_at_photo(cut(canvas, frame) / 255, cut_map(map_at((48, 48)), frame), logits(goose=0.9))
    assert (photo.ground, photo.is_split, photo.light) == (("green",), False, "bright")


def test_what_stands_before_an_even_ground_has_no_frame() -> None:
    canvas = torch.full((3, 100, 120), 255, dtype=torch.uint8)
    canvas[:, 30:70, 40:80] = framed((40, 130, 50), 0, (0, 0))[:, 30:70, 30:70]
    rows, columns = np.mgrid[:100, :120]
    canvas[:, torch.from_numpy((rows - 50) ** 2 + (columns - 60) ** 2 > 400)] = 255
    assert find_frame(canvas) == (0, 0, 1, 1)


def test_a_blank_image_is_no_photograph_and_a_gray_wall_is_not_white() -> None:
    everywhere = np.ones((SIDE, SIDE), np.float32)
    for size in ((3, 40, 4000), (3, 480, 640), (3, 1, 1)):
        assert not is_photo(torch.zeros(size, dtype=torch.uint8), everywhere, "")
    wall = look_at_photo(scene((128, 128, 128), (128, 128, 128), (48, 48)), 0 * everywhere, logits(goose=0.9))
    assert (wall.colours, wall.ground) == (("gray",), ("gray",))
