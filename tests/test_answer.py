"""How an answer is sampled, said piece by piece, and ended."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.backends.answerer import TrimmedText
from llava.errors import UsageError
from llava.sampling import Sampling


def speak(pieces: Sequence[str]) -> tuple[str, list[str]]:
    """The whole text, and the pieces it was said in."""
    said: list[str] = []
    said_text = TrimmedText(said.append)
    for piece in pieces:
        said_text.append(piece)
    return said_text.text, said


@given(st.lists(st.text(alphabet="ab \n", max_size=4)))
def test_what_was_said_is_the_answer_and_has_no_blank_ends(pieces: list[str]) -> None:
    text, said = speak(pieces)
    assert "".join(said) == text == "".join(pieces).strip()
    assert all(said)


def test_a_blank_is_said_with_the_word_that_follows_it() -> None:
    assert speak([" ", "Yes", ",", " ", "red", "\n", "\n"]) == ("Yes, red", ["Yes", ",", " red"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *itertools.product(["temperature"], [-0.1, float("nan"), float("inf")]),
        *itertools.product(["top_p"], [0, 1.5, -1]),
        *itertools.product(["num_beams", "max_new_tokens"], [0, -3]),
    ],
)
def test_a_number_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=str(value)):
        Sampling(**{field: value})


def test_a_greedy_call_carries_no_sampling_numbers() -> None:
    assert Sampling(top_p=0.5).for_generate() == {
        "num_beams": 1,
        "do_sample": False,
        "temperature": None,
        "top_p": None,
        "top_k": None,
        "min_p": None,
    }


def test_sampling_says_top_p_even_when_it_is_off() -> None:
    assert Sampling(temperature=0.2).for_generate() == {
        "num_beams": 1,
        "do_sample": True,
        "temperature": 0.2,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
    }
