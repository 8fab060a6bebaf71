"""A space that is likely, and where no ink is, is read although nothing is likelier there; no other one."""

from __future__ import annotations

import numpy as np
import pytest

from llava.model.lexical.characters import BLANK, NUM_CLASSES, encode
from llava.model.lexical.faint_spaces import add_faint_spaces

STEPS_A_CHARACTER = 6


def make_crop(text: str, at: int, likely: float, clear_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Log probabilities and a crop of a text: before its ``at``-th character a space is ``likely``, and so many columns
    beside each other have no ink.
    """
    chances = np.full((STEPS_A_CHARACTER * len(text), NUM_CLASSES), 1e-6, dtype=np.float32)
    chances[:, BLANK] = 1.0
    for i, label in enumerate(encode(text)):
        chances[STEPS_A_CHARACTER * i + 2, [label, BLANK]] = 0.98, 0.01
    between = STEPS_A_CHARACTER * at - 1
    chances[between, [encode(" ")[0], BLANK]] = likely, 1 - likely
    crop = np.full((3, 24, 2 * len(chances)), 255, dtype=np.float32)
    crop[:, 6:18, ::2] = 0
    crop[:, 6:18, 2 * between - clear_px // 2 : 2 * between + (clear_px + 1) // 2] = 255
    return np.log(chances), crop


@pytest.mark.parametrize(
    ("text", "at", "likely", "clear_px", "read"),
    [
        ("ofit", 2, 0.2, 6, "of it"),
        ("ofit", 2, 0.04, 5, "ofit"),  # hardly likely
        ("ofit", 2, 0.2, 1, "ofit"),  # the letters nearly touch
        ("of50", 2, 0.04, 6, "of 50"),  # beside figures such a gap is enough
        ("of50", 2, 0.2, 2, "of50"),
        ("anna@home.it", 5, 0.2, 5, "anna@home.it"),
        ("home.it", 5, 0.2, 5, "home.it"),
        ("No.5", 3, 0.2, 6, "No. 5"),
        ("side(a)", 4, 0.2, 6, "side(a)"),
        ("$12", 1, 0.2, 5, "$12"),
        ("a:b", 1, 0.2, 5, "a:b"),
    ],
)
def test_a_likely_space_is_read_where_no_ink_is(text: str, at: int, likely: float, clear_px: int, read: str) -> None:
    assert add_faint_spaces(text, *make_crop(text, at, likely, clear_px)) == read


def test_a_letter_spaced_title_is_one_word() -> None:
    scores, crop = make_crop("MENU", 3, 0.2, 5)
    for at in (1, 2):
        crop[:, :, 2 * (STEPS_A_CHARACTER * at - 1) - 3 : 2 * (STEPS_A_CHARACTER * at - 1) + 3] = 255
    assert add_faint_spaces("MENU", scores, crop) == "MENU"


def test_a_text_that_is_not_that_of_the_steps_stays_as_it_is() -> None:
    assert add_faint_spaces("of5", *make_crop("of50", 2, 0.2, 5)) == "of5"
    assert add_faint_spaces("", *make_crop("of50", 2, 0.2, 5)) == ""
