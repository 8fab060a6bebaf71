"""One rule scores answers in a word and answers in sentences: what has to be right, and what has to be wrong."""

from __future__ import annotations

import pytest

from llava.eval.answer_health import ends_in_repetition, measure_health
from llava.eval.scoring.sentence_answers import (
    judge,
    parse_number,
    says_it_cannot_tell,
    says_it_is_absent,
    split_sentences,
)
from llava.synth.truth import Truth

COLORS = ("red", "blue", "green", "yellow", "black", "white")
RED = Truth(("red",), others=tuple(color for color in COLORS if color != "red"))
STOP = Truth(("STOP",), "text")
CAT = Truth(("cat", "kitten"), kinds=("animal", "feline"))
THREE = Truth(("3",), "number")
UNKNOWN = Truth(form="cannot tell")
TOP_LEFT = Truth(("top left",), others=("top", "left", "bottom right", "center"))

RIGHT = [
    ("red", RED, ""),
    ("The star is red.", RED, "What color is the star?"),
    ("It is a red star.", RED, ""),
    ("It is red. The circle is blue.", RED, ""),
    ("Not blue, but red.", RED, ""),
    ("I see a drawing. The star in it is red.", RED, ""),
    ("It is in the top left corner.", TOP_LEFT, ""),
    ("STOP", STOP, ""),
    ("**STOP**", STOP, ""),
    ("The sign says STOP.", STOP, "What does the sign say?"),
    ("It says “Stop”.", STOP, ""),
    ("The word on the sign is STOP, which tells drivers to halt.", STOP, ""),
    ("The text reads: STOP", STOP, ""),
    ("The total is $12.50.", Truth(("$12.50",), "text"), "What is the total?"),
    ("12.5", Truth(("$12.50",), "text"), ""),
    ("The code is QX-07.", Truth(("QX-07",), "text", keeps_case=True), "What is the code?"),
    ("The first line says Fresh Bread.", Truth(("Fresh Bread",), "text"), ""),
    ("This is a cat.", CAT, ""),
    ("A cat sitting on a wall, looking at the camera.", CAT, ""),
    ("I see two kittens.", CAT, ""),
    ("This cat is a feline, a cat, a cat, a cat", CAT, ""),
    ("It's an animal, a cat.", CAT, ""),
    ("This is a cat, a tabby.", CAT, ""),
    ("A small, brown cat.", CAT, ""),
    ("A black and white cat with a ball.", CAT, ""),
    ("In the image, there is a cat on a table, near a lamp.", CAT, ""),
    ("The cat sleeps.", CAT, ""),
    ("A cat and a dog.", CAT, ""),
    ("The total is 12.50 euros.", Truth(("12.50",), "text"), "What is the total?"),
    ("It is in Room 217 on the left.", Truth(("217",), "text"), ""),
    ("The Ice cream costs the least, 3.90.", Truth(("Ice cream",), "text"), "What is the cheapest dessert?"),
    ("It lasts 3h20 min.", Truth(("3 h 20 min",), "text"), ""),
    ("The time is 9am.", Truth(("9 am",), "text"), ""),
    ("Mia gets puzzle.", Truth(("a puzzle", "puzzle"), "text"), "What will Mia get?"),
    ("Amir sent it.", Truth(("Amir",), "text"), "Who placed this order?"),
    ("Red oval", Truth(("oval", "the red oval"), "text"), "Which is higher?"),
    ("It has 200g of flour.", Truth(("200",), "number"), "And how much flour, in grams?"),
    ("There are 3 bars.", THREE, "How many bars are there?"),
    ("There is a single bar.", Truth(("1",), "number"), ""),
    ("three", THREE, ""),
    ("3.0", THREE, ""),
    ("There are three stars: one red and two blue.", THREE, ""),
    ("There are 3 stars. One is red and two are blue.", THREE, ""),
    ("The value of 2019 is 3.", THREE, "What is the value of 2019?"),
    ("The value is 1,250.", Truth(("1250",), "number"), ""),
    ("Its value is about 41", Truth(("40",), "number", tolerance=2), ""),
    ("There are no stars.", Truth(("0",), "number"), ""),
    ("Yes, it is larger.", Truth(("yes",), "yes/no"), ""),
    ("No.", Truth(("no",), "yes/no"), ""),
    ("The largest bar is A.", Truth(("A",), others=("B", "C")), ""),
    ("I cannot tell from this picture.", UNKNOWN, ""),
    ("There is no telephone number in the image.", UNKNOWN, ""),
    ("The image does not show a name.", UNKNOWN, ""),
    ("No phone number is shown.", UNKNOWN, ""),
    ("I can’t see a person, so I don’t know.", UNKNOWN, ""),
    ("The name isn't given.", UNKNOWN, ""),
]
WRONG = [
    ("", RED, ""),
    ("The star is blue.", RED, ""),
    ("red, blue, green, yellow, black, white", RED, ""),
    ("Red or blue.", RED, ""),
    ("It is not red.", RED, ""),
    ("reddish", RED, ""),
    ("The star is blue. It is red.", RED, ""),
    ("I cannot tell.", RED, ""),
    ("I am not sure, but it may be red.", RED, ""),
    ("top", TOP_LEFT, ""),
    ("left", TOP_LEFT, ""),
    ("top, left, top left, center", TOP_LEFT, ""),
    ("GO", STOP, ""),
    ("STOPS", STOP, ""),
    ("The sign says STOP NOW.", STOP, ""),
    ("The sign says DON'T STOP", STOP, ""),
    ('It says "STOP HERE".', STOP, ""),
    ("stop", Truth(("STOP",), "text", keeps_case=True), ""),
    ("7", Truth(("007",), "text"), ""),
    ("Bread, Milk, Tea", Truth(("Milk",), "text", others=("Bread", "Tea")), ""),
    ("This is a dog.", CAT, ""),
    ("This is a dog, a cat.", CAT, ""),
    ("dog or cat", CAT, ""),
    ("A cat, a dog, a bird, a horse", CAT, ""),
    ("a cat, dog, bird, horse", CAT, ""),
    ("cat and dog and bird and horse and car", CAT, ""),
    ("This is a numbat, a cat.", CAT, ""),
    ("A cat-like thing.", CAT, ""),
    ("This is a cat food tin.", CAT, ""),
    ("The code is 12 50.", Truth(("12",), "text"), ""),
    ("The Ice cream cake costs the least.", Truth(("Ice cream",), "text"), ""),
    ("The time is 9am30.", Truth(("9 am",), "text"), ""),
    ("Amir Khan sent it.", Truth(("Amir",), "text"), "Who placed this order?"),
    ("It is flat 5C.", Truth(("5",), "number"), ""),
    ("This is not a cat.", CAT, ""),
    ("There is no cat here.", CAT, ""),
    ("category", CAT, ""),
    ("There are 4.", THREE, ""),
    ("13", THREE, ""),
    ("1, 2, 3, 4", THREE, ""),
    ("1\n2\n3", THREE, ""),
    ("3 or 4", THREE, ""),
    ("many", THREE, ""),
    ("43", Truth(("40",), "number", tolerance=2), ""),
    ("no", Truth(("yes",), "yes/no"), ""),
    ("Yes or no.", Truth(("yes",), "yes/no"), ""),
    ("Maybe yes", Truth(("yes",), "yes/no"), ""),
    ("A bar is B", Truth(("C",), others=("B", "A")), ""),
    ("", UNKNOWN, ""),
    ("Yes.", UNKNOWN, ""),
    ("The name is Bob.", UNKNOWN, ""),
    ("The telephone number is 555-1234.", UNKNOWN, ""),
]


@pytest.mark.parametrize(("answer", "truth", "question"), RIGHT)
def test_an_answer_that_a_person_would_accept_is_right(answer: str, truth: Truth, question: str) -> None:
    reading = judge(answer, truth, question)
    assert reading.is_right, reading.why
    assert not reading.why


@pytest.mark.parametrize(("answer", "truth", "question"), WRONG)
def test_an_answer_that_is_wrong_hedged_or_everything_at_once_is_wrong(
    answer: str, truth: Truth, question: str
) -> None:
    reading = judge(answer, truth, question)
    assert not reading.is_right
    assert reading.why


def test_a_kind_is_no_accepted_name_but_is_told_apart_from_a_wrong_one() -> None:
    pelican = Truth(("pelican",), kinds=("bird", "animal"))
    assert judge("This is a bird, an albatross.", pelican) == (False, True, "it names only the kind")
    assert judge("A bird.", pelican).is_kind
    assert not judge("This is a fish.", pelican).is_kind
    assert not judge("a bird, a fish, a car, a tree", pelican).is_kind
    assert judge("A pelican, a bird.", pelican) == (True, False, "")


def test_saying_that_it_cannot_tell_is_not_saying_that_something_is_absent() -> None:
    assert says_it_cannot_tell("I'm not able to read the text.")
    assert says_it_cannot_tell("It is unclear what the sign says.")
    assert not says_it_cannot_tell("There is no red star.")
    assert not says_it_cannot_tell("The sign says CANNOT STOP.")
    assert says_it_is_absent("There is no red star.")
    assert not says_it_is_absent("The star is red. There is no other one.")


def test_sentences_end_at_points_that_are_not_inside_numbers() -> None:
    assert split_sentences("It costs 3.50 today. Is it cheap? Yes.") == ["It costs 3.50 today.", "Is it cheap?", "Yes."]
    assert split_sentences("1. 2. 3.") == ["1. 2. 3."]


def test_numbers_are_read_by_value() -> None:
    found = [parse_number(token) for token in ("3,", "$1,250.50", "twelve", "45%", "-7", "007", "B52", "1,25")]
    assert found == [3.0, 1250.5, 12.0, 45.0, -7.0, None, None, 1.25]
    assert [parse_number(token) for token in ("200g", "4.5km", "90km/h", "18°C", "3D", "5C")] == [
        200,
        4.5,
        90,
        18,
        None,
        None,
    ]
    assert [parse_number(token) for token in ("7,80", "€7,8.", "1,250", "-0,5", "1,2503")] == [
        7.8,
        7.8,
        1250,
        -0.5,
        None,
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a cat, a cat, a cat, a cat",
        "a tray, a tray, a tray, a",
        "no no no",
        "It is the top of the top of the top of the",
        "...............",
        "hahahahahahaha",
    ],
)
def test_an_answer_that_is_caught_in_a_loop_is_seen(text: str) -> None:
    assert ends_in_repetition(text)


@pytest.mark.parametrize("text", ["", "This is a cat.", "a tray, a tray", "the red and the blue", "0 0 0"])
def test_an_answer_that_repeats_a_word_or_two_is_none_that_is_caught(text: str) -> None:
    assert not ends_in_repetition(text)


def test_health_counts_refusals_only_where_the_image_holds_the_answer() -> None:
    texts = ["", "I cannot tell.", "I cannot tell.", "a cat, a cat, a cat"]
    health = measure_health(texts, [True, True, False, True], cut=[False, False, False, True])
    assert (health.empty, health.repeating, health.cut) == (0.25, 0.25, 0.25)
    assert health.unsure == pytest.approx(1 / 3)
    assert health.mean_words == pytest.approx(3.0)
