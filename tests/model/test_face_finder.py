"""Faces are found where they were drawn, and nowhere else; what is drawn is no photograph of anybody."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from llava.model.assembled.assembly import READERS
from llava.model.assembled.pretrained_parts import MissingParts, Parts
from llava.model.lexical import face_finder
from llava.model.lexical.face_finder import FaceFinder, _suppress
from llava.model.lexical.photo_line import Guess, Photo, write_photo
from llava.model.lexical.photo_look import look_at_photo
from tests.model.test_thing_guesses import logits

Box = tuple[float, float, float, float]


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    weights: dict[str, torch.Tensor] = {}
    try:
        for part in Parts.read(Path(str(resources.files("llava") / "talking_model"))).parts:
            if part.becomes == "face finder":
                weights.update(READERS[part.becomes](part.check()))
    except MissingParts as error:
        pytest.skip(str(error))
    found = FaceFinder()
    found.load_state_dict({name.removeprefix("model.vision_tower.faces."): each for name, each in weights.items()})
    return found.eval()


def draw_face(image: Image.Image, middle: tuple[float, float], size: float, shirt: str = "royalblue") -> Box:
    """Draws a head with shoulders; returns the ellipse around the face, in px. ``size``: its height."""
    draw, (x, y), half_w, half_h = ImageDraw.Draw(image), middle, 0.38 * size, 0.5 * size
    draw.rectangle((x - 1.6 * half_w, y + 1.25 * half_h, x + 1.6 * half_w, y + 5 * half_h), fill=shirt)
    draw.rectangle((x - 0.35 * half_w, y + 0.7 * half_h, x + 0.35 * half_w, y + 1.4 * half_h), fill=(205, 150, 120))
    draw.ellipse((x - 1.1 * half_w, y - 1.2 * half_h, x + 1.1 * half_w, y + 0.7 * half_h), fill=(60, 40, 25))
    face = (x - half_w, y - half_h, x + half_w, y + half_h)
    draw.ellipse(face, fill=(222, 172, 140))
    for side in (-1, 1):
        eye, brow = x + side * 0.42 * half_w, y - 0.37 * half_h
        draw.ellipse((eye - 0.22 * half_w, y - 0.22 * half_h, eye + 0.22 * half_w, y - 0.02 * half_h), fill="white")
        draw.ellipse((eye - 0.1 * half_w, y - 0.21 * half_h, eye + 0.1 * half_w, y - 0.03 * half_h), fill=(50, 30, 20))
        draw.line((eye - 0.28 * half_w, brow, eye + 0.28 * half_w, brow), (70, 45, 30), max(2, round(0.06 * size)))
    nose = [(x, y - 0.05 * half_h), (x - 0.16 * half_w, y + 0.3 * half_h), (x + 0.16 * half_w, y + 0.3 * half_h)]
    draw.polygon(nose, fill=(196, 140, 110))
    mouth = (x - 0.4 * half_w, y + 0.35 * half_h, x + 0.4 * half_w, y + 0.72 * half_h)
    draw.chord(mouth, 10, 170, fill=(170, 60, 60))
    return face


def to_tensor(image: Image.Image, blur_px: float = 1.5) -> torch.Tensor:
    pixels = np.array(image.filter(ImageFilter.GaussianBlur(blur_px)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def share(box: Box, other: Box) -> float:
    """Intersection over union."""
    width, height = (min(box[i + 2], other[i + 2]) - max(box[i], other[i]) for i in (0, 1))
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (box, other)]
    shared = max(0.0, width) * max(0.0, height)
    return shared / (sum(areas) - shared)


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.5])
def test_each_drawn_face_is_found_where_it_is(
    finder: FaceFinder, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(face_finder, "_CERTAIN", 0.7)  # the source's: not every drawing is as sure as a photograph
    size = (round(700 * scale), round(420 * scale))
    for middles in ((), ((350, 150),), ((150, 160), (520, 140)), ((110, 150), (340, 170), (580, 130))):
        image = Image.new("RGB", size, (200, 210, 220))
        drawn = [draw_face(image, (x * scale, y * scale), 120 * scale) for x, y in middles]
        found = finder.find(to_tensor(image, 1.5 * scale))
        assert len(found) == len(drawn)
        for face, box in zip(found, drawn, strict=True):
            whole = tuple(part / size[i % 2] for i, part in enumerate(box))
            assert share(face.box, whole) > 0.5  # type: ignore[arg-type]


def test_what_is_no_face_is_not_found(finder: FaceFinder) -> None:
    chance = np.random.default_rng(0)
    noise = torch.from_numpy(chance.integers(0, 256, (3, 300, 400), dtype=np.uint8))
    coins = Image.new("RGB", (500, 400), "seagreen")
    for i in range(12):
        ImageDraw.Draw(coins).ellipse(
            (i % 4 * 120 + 10, i // 4 * 130 + 10, i % 4 * 120 + 100, i // 4 * 130 + 100), "tan"
        )
    for image in (noise, to_tensor(coins), torch.zeros(3, 1, 1, dtype=torch.uint8), torch.zeros(3, 8, 900).byte()):
        assert finder.find(image) == []


def test_of_boxes_that_share_more_than_half_the_likeliest_stays() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [2, 2, 5, 5]]).float()
    chances = torch.tensor([0.8, 0.9, 0.5, 0.99])
    assert _suppress(boxes, chances, 0.5) == [3, 1, 2]
    assert _suppress(boxes, chances, 0.5, of_smaller=True) == [3, 2]
    assert _suppress(boxes[:0], chances[:0], 0.5) == []


def test_the_line_tells_of_a_person_by_the_face_and_of_the_clothes(finder: FaceFinder) -> None:
    side = 288
    image = Image.new("RGB", (side, side), "seagreen")
    draw_face(image, (70, 70), 70, shirt="royalblue")
    pixels = to_tensor(image)
    faces, nothing = finder.find(pixels), np.zeros((96, 96), np.float32)
    photo = look_at_photo(pixels / 255, nothing, logits(), faces)
    assert write_photo(photo) == (
        "Photo of a person on the left. The clothes are blue. The background is green. The photo is bright."
    )
    hat = look_at_photo(pixels / 255, nothing, logits(cowboy_hat=0.9), faces)
    assert hat.guess == photo.guess  # who wears it is the main thing
    bus = look_at_photo(pixels / 255, nothing, logits(minibus=0.9), faces)
    assert "Photo of a bus" in write_photo(bus)
    assert "There is a person on the left." in write_photo(bus)


def test_so_many_people_are_counted() -> None:
    photo = Photo(Guess(("person",), is_sure=True), 4, ("red",), (), "bright")
    said = [write_photo(replace(photo, people=(4,) * count)) for count in (0, 1, 2, 5, 6)]
    start, end = "Photo of a person in the center. The clothes are red.", "The photo is bright."
    assert said == [
        f"Photo of a person in the center. It is red. {end}",
        f"{start} {end}",
        f"{start} There are two people in the photo. {end}",
        f"{start} There are five people in the photo. {end}",
        f"{start} There are more than five people in the photo. {end}",
    ]
