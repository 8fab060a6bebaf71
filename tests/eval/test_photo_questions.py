"""The questions about photographs (talking_photo_questions*.txt): what they ask, and how answers are judged."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import talking_suites
from benchmarks.talking_photo_questions import FILES, GROUPS, read_questions
from llava.eval.photo_truths import read_folder
from llava.eval.scoring.sentence_answers import judge
from llava.synth.truth import Truth

EDITIONS = [(FILES[0], "i"), (FILES[1], "bcd")]
ASKED = read_questions()
ROWS = [row for rows in ASKED.values() for row in rows]


def rows_of(file: str) -> list[dict[str, Any]]:
    return [row for rows in read_questions([file]).values() for row in rows]


def truth_of(row: dict[str, Any]) -> Truth:
    return Truth(tuple(row["answers"]), row["form"], tuple(row.get("others", ())), tolerance=row.get("tolerance", 0.0))


def find(question: str) -> dict[str, Any]:
    (row,) = (row for row in ROWS if row["question"] == question)
    return row


@pytest.mark.parametrize(("file", "editions"), EDITIONS)
def test_the_questions_are_asked_of_photographs_of_their_editions(file: str, editions: str) -> None:
    known = {path for letter in editions for path, _ in talking_suites.read_truths(f"photos_{letter}")}
    assert set(read_questions([file])) - known == set()


def test_every_photograph_of_editions_b_to_d_is_asked_two_to_four_questions() -> None:
    asked = read_questions(FILES[1:])
    for letter in "bcd":
        assert all(2 <= len(asked.get(path, ())) <= 4 for path, _ in talking_suites.read_truths(f"photos_{letter}"))


def test_no_question_is_asked_twice_of_a_photograph() -> None:
    pairs = [(path, row["question"]) for path, rows in ASKED.items() for row in rows]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(("file", "groups"), [(FILES[0], GROUPS - {"what"}), (FILES[1], GROUPS)])
def test_every_group_has_enough_questions(file: str, groups: frozenset[str]) -> None:
    counts = Counter(row["group"] for row in rows_of(file))
    assert set(counts) == groups
    assert min(counts.values()) >= 20
    assert all((row["form"] == "cannot tell") == (row["group"] == "cannot tell") for row in ROWS)


@pytest.mark.parametrize("file", FILES)
def test_yes_is_as_often_right_as_no_and_one_is_not_the_usual_count(file: str) -> None:
    rows = rows_of(file)
    said = Counter(row["answers"][0] for row in rows if row["form"] == "yes/no")
    assert said["yes"] == said["no"]
    counted = Counter(row["answers"][0] for row in rows if row["form"] == "number")
    assert counted["1"] < sum(counted.values()) / 2


def test_every_accepted_answer_is_judged_right_and_every_rival_wrong() -> None:
    faults = []
    for row in ROWS:
        truth = truth_of(row)
        for answer in truth.answers:
            wordings = (answer,) if truth.form == "yes/no" else (answer, f"It is {answer}.")
            faults += [(row["question"], said) for said in wordings if not judge(said, truth, row["question"]).is_right]
        faults += [(row["question"], rival) for rival in truth.others if judge(rival, truth, row["question"]).is_right]
    assert faults == []


def test_a_colour_that_is_there_too_does_no_harm_and_one_that_is_not_does() -> None:
    row = find("What color is the car?")
    assert judge("A white car with black windows.", truth_of(row), row["question"]).is_right
    assert not judge("A white and purple car.", truth_of(row), row["question"]).is_right
    assert not judge("It is black.", truth_of(row), row["question"]).is_right


def test_a_place_may_be_inexact_and_not_opposite() -> None:
    row = find("Where is the sunflower in the frame?")
    for said, is_right in (("in the centre", True), ("In the center, a little left.", True), ("at the bottom", False)):
        assert judge(said, truth_of(row), row["question"]).is_right == is_right


def test_an_image_is_cut_out_of_a_puzzle_without_its_border(tmp_path: Path) -> None:
    texture = Image.new("RGB", (64, 64), "black")
    texture.paste((200, 40, 40), (1, 1, 33, 25))
    held = io.BytesIO()
    texture.save(held, "JPEG", quality=100, subsampling=0)
    path = tmp_path / "red-2x2.pzl"
    path.write_bytes(b"PzlF\n\xff\xd8\xff no image\ncrop000 0 0\nimage 0 0 34 26 1 1\n" + held.getvalue())
    image = talking_suites._open_photo(path)
    assert image.size == (32, 24)
    red, green, _ = np.asarray(image)[12, 16]
    assert red > 150 > 100 > green


@pytest.mark.parametrize(("file", "editions"), EDITIONS)
def test_the_folders_ask_what_is_written(
    file: str, editions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(suite: str, folder: Path, packages: Path) -> talking_suites.Truths:
        pairs = talking_suites.read_truths(suite)
        return [
            talking_suites.keep(Image.new("RGB", (8, 8)), folder, f"{number:03d}", told, "photos")
            for number, (_, told) in enumerate(pairs, 1)
        ]

    monkeypatch.setattr(talking_suites, "build_photos", build)
    groups: Counter[str] = Counter()
    for letter in editions:
        folder = tmp_path / letter
        folder.mkdir()
        truths = talking_suites.SUITES[f"photos_{letter}_chat"](folder, tmp_path / "packages")
        talking_suites.write_truths(folder, truths)
        questions = read_folder(folder)
        assert [one.question for one in questions] == [row["question"] for row in truths]
        groups.update(one.group for one in questions)
    assert groups == Counter(row["group"] for row in rows_of(file))
