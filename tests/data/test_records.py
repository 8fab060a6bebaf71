"""A row of LLaVA's data format becomes a record, and a row that is none is named with its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from llava.data.records import Record, find_first_question, parse_record
from llava.errors import UsageError

ASK, SAY = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}


def row(*turns: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "a", "conversations": list(turns), **fields}


@pytest.mark.parametrize(
    ("image", "images"),
    [
        ({}, ()),
        ({"image": None}, ()),
        ({"image": "a.png"}, ("a.png",)),
        ({"image": ["a.png", "b.png"]}, ("a.png", "b.png")),
    ],
)
def test_a_record_has_the_images_in_the_order_of_the_file(image: dict[str, Any], images: tuple[str, ...]) -> None:
    record = parse_record(row(ASK, SAY, **image), 3, "data.json")
    assert record == Record("a", images, (("human", "<image>\nWhat?"), ("gpt", "A cat.")), "data.json")


def test_user_and_assistant_are_other_names_of_human_and_gpt() -> None:
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"from": "assistant", "value": "A"}]
    record = parse_record(row(*turns, data_source="web"), 0, "f.json")
    assert record.turns == (("system", "S"), ("human", "Q"), ("gpt", "A"))
    assert record.source == "web"


def test_a_row_without_an_id_is_called_by_its_number() -> None:
    assert parse_record({"conversations": [ASK, SAY]}, 7, "f.json").id == "7"
    assert parse_record({"id": 12, "conversations": [ASK, SAY]}, 7, "f.json").id == "12"


def test_words_are_those_between_white_space() -> None:
    assert parse_record(row({"from": "human", "value": " a  b\nc"}, SAY), 0, "f").num_words == 5


def test_a_question_without_an_answer_may_end_a_conversation() -> None:
    assert len(parse_record(row(ASK, SAY, ASK), 0, "f.json").turns) == 3


@pytest.mark.parametrize(
    ("turns", "first"),
    [([ASK, SAY], 0), ([SAY, ASK, SAY], 1), ([{"from": "system", "value": "S"}, SAY, ASK, SAY], 2)],
)
def test_the_first_question_comes_after_a_system_turn_and_a_leading_answer(turns: list[Any], first: int) -> None:
    assert find_first_question(parse_record(row(*turns), 0, "f.json").turns) == first


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (["x"], r"Row 3 of 'd.json' is a list, not an object"),
        ({"id": "b"}, r"Row 3 of 'd.json' \(id b\) needs a list 'conversations', but has id\."),
        ({"id": None, "messages": []}, r"Row 3 of 'd.json' needs a list 'conversations', but has id, messages\."),
        (row(conversations=None), r"needs a list 'conversations', which is null"),
        (row("hello"), r"turn 1 is text, not an object"),
        (row({"from": "GPT", "value": "A"}), r"turn 1 is by 'GPT'; it has to be by human, user, gpt"),
        (row({"value": "A"}), r"turn 1 is by None"),
        (row(ASK, {"from": "gpt", "value": None}), r"turn 2 needs a text 'value', which is null"),
        (row(ASK, {"from": "gpt"}), r"turn 2 needs a text 'value', which is missing"),
        (row(ASK, {"from": "gpt", "value": "\ud83d"}), r"holds half of a surrogate pair"),
        (row(ASK, ASK, SAY), r"take turns.* They are: human, human, gpt"),
        (row(ASK, SAY, {"from": "system", "value": "S"}), r"at most one system turn before them"),
        (row(ASK), r"has no answer: nothing can be learned"),
        (row(ASK, {"from": "gpt", "value": ""}), r"has no answer"),
        (row(SAY), r"has no answer"),
        (row(), r"has no answer"),
        (row(ASK, SAY, image=3), r"'image' is 3; it has to be a file's name or a list"),
        (row(ASK, SAY, image=["a.png", None]), r"'image' is \['a.png', None\]"),
        (row(ASK, SAY, images=["a.png"]), r"has 'images': one image's name, or a list of them, is called 'image'"),
        (row(ASK, SAY, Image="a.png"), r"has 'Image': one image's name"),
        (row(ASK, SAY, video="a.mp4"), r"about a video, and videos are not supported"),
    ],
)
def test_a_row_that_cannot_be_a_record_is_named_with_file_number_and_remedy(broken: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse_record(broken, 3, "d.json")
    assert "Row 3 of 'd.json'" in str(caught.value)
    assert "remove it" in str(caught.value)
