"""The photo encoder's guesses are written down where it is sure, by kind and by name."""

from __future__ import annotations

import math

import pytest
import torch

from llava.model.lexical.efficientnet_lite import NUM_CLASSES
from llava.model.lexical.thing_guesses import class_names, guess_things

NAMES = [name for name, _ in class_names()]


def logits(**chances: float) -> torch.Tensor:
    """Logits whose softmax has these probabilities at the classes of those names, and the rest spread evenly."""
    values = torch.full((NUM_CLASSES,), (1 - sum(chances.values())) / (NUM_CLASSES - len(chances)))
    for name, chance in chances.items():
        values[NAMES.index(name.replace("_", " "))] = chance
    return values.log()


def test_each_class_has_a_name_and_a_kind() -> None:
    assert len(NAMES) == NUM_CLASSES
    assert all(name and kind for name, kind in class_names())


@pytest.mark.parametrize(
    ("chances", "said"),
    [
        ({"coffee_mug": 0.55, "tea_cup": 0.13, "bucket": 0.2}, "cup 68% (coffee mug 55%, tea cup 13%); bucket 20%"),
        ({"goose": 0.8}, "goose 80%"),
        ({"goldfish": 0.1}, ""),
        ({"pizza": 0.5, "banana": 0.3, "backpack": 0.19}, "pizza 50%; fruit 30% (banana 30%)"),
    ],
)
def test_what_is_likely_is_said_and_the_rest_is_not(chances: dict[str, float], said: str) -> None:
    wanted = f"Looks like: {said}." if said else ""
    assert guess_things(logits(**chances)) == wanted


def test_many_unsure_names_of_one_kind_make_a_sure_kind() -> None:
    dogs = [i for i, (_, kind) in enumerate(class_names()) if kind == "dog"]
    values = torch.full((NUM_CLASSES,), math.log(0.1 / (NUM_CLASSES - len(dogs))))
    values[dogs] = math.log(0.9 / len(dogs))
    assert guess_things(values) == "Looks like: dog 90%."
