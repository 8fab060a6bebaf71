"""How an answer is sampled, said piece by piece, and ended."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llava.answer import ask, start_conversation
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


@pytest.mark.parametrize(
    "images", ["photo.jpg", b"data", Path("photo.jpg"), io.BytesIO(), Image.new("RGB", (2, 2)), None]
)
def test_a_single_image_in_place_of_a_list_is_refused(images: Any) -> None:
    with pytest.raises(UsageError, match=f"images is a single {type(images).__name__}; pass a list"):
        ask(None, "What is this?", images)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["embedded", Path("models/llava")])
def test_a_name_in_place_of_a_model_is_refused_with_the_call_that_loads_it(name: Any) -> None:
    for call in (lambda: ask(name, "What is this?"), lambda: start_conversation(name)):
        with pytest.raises(UsageError, match=re.escape(f"pass llava.load_model({str(name)!r}).")):
            call()


def test_what_is_no_loaded_model_is_named_by_its_type() -> None:
    with pytest.raises(UsageError, match=r"The model is a tuple; pass a result of llava\.load_model"):
        ask(("tokenizer", "model"), "What is this?")  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("asked", "least", "prompt_tokens", "context_tokens", "fits"),
    [
        (10, None, 5, 100, (10, None)),  # the request is the shorter
        (10, None, 95, 100, (5, None)),  # the context is
        (10, 8, 95, 100, (5, 5)),  # and then a minimum follows
        (10, 8, 100, 100, (1, 1)),  # a prompt that fills the context still gets a token
        (10, 2, 500, 100, (1, 1)),  # so does one that is cut
    ],
)
def test_an_answer_is_as_long_as_the_request_and_the_context_allow(
    asked: int, least: int | None, prompt_tokens: int, context_tokens: int, fits: tuple[int, int | None]
) -> None:
    fitted = Sampling(max_new_tokens=asked, min_new_tokens=least, seed=3).fit(prompt_tokens, context_tokens)
    assert (fitted.max_new_tokens, fitted.min_new_tokens, fitted.seed) == (*fits, 3)


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
