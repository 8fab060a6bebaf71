"""AI2D: options are lettered, and labels that questions name by letters are drawn into the diagrams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.data.convert.row_writer import make_image_saver
from llava.errors import UsageError
from tests.data.convert.converting import run, turns, write_json

LETTER = "\nAnswer with the option's letter from the given choices directly."


def details(id: str, texts: list[str], correct: int, abc: bool = False) -> dict[str, Any]:
    return {"abcLabel": abc, "answerTexts": texts, "correctAnswer": correct, "questionId": id}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Diagrams 0, 5 and 12; 12 is of the test split."""
    questions = {
        "What is A in the diagram?": details("0.png-0", ["ears", "nose", "mouth", "face"], 3, abc=True),
        "What do larvae become?": details("0.png-1", ["pupa", "{}", "egg", "egg", " adult "], 4),
        "Which is none?": details("0.png-2", ["a", "b"], 2),
        "Which is null?": details("0.png-3", ["a", "{}"], 1),
        "Only one?": details("0.png-4", ["a", "a"], 0),
    }
    for number, asked in ((0, questions), (5, {"Wie viele?": details("5.png-0", ["1", "2"], 0)}), (12, {})):
        write_json(tmp_path, f"questions/{number}.png.json", {"imageName": f"{number}.png", "questions": asked})
    write_json(
        tmp_path,
        "questions/13.png.json",
        {"imageName": "13.png", "questions": {"Test?": details("13.png-0", ["1", "2"], 1)}},
    )
    labels = {
        "T0": {"id": "T0", "rectangle": [[10, 20], [60, 40]], "replacementText": "A", "value": "face"},
        "T1": {"id": "T1", "rectangle": [[150, 90], [210, 130]], "replacementText": "B", "value": "at the border"},
        "T2": {"id": "T2", "rectangle": [[5, 50], [9, 50]], "replacementText": "C", "value": "flat"},
    }
    write_json(tmp_path, "annotations/0.png.json", {"imageName": "0.png", "text": labels, "arrows": {}, "blobs": {}})
    (tmp_path / "ai2d_test_ids.csv").write_text("13\n12\n", encoding="utf-8")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 120), (200, 0, 0)).save(tmp_path / "images/0.png")
    return tmp_path


def test_each_version_of_a_diagram_has_a_conversation(folder: Path) -> None:
    stored = folder / "stored"
    rows, left_out = run("ai2d", folder, save_image=make_image_saver(stored))
    assert [(row["id"], row["image"]) for row in rows] == [
        ("ai2d-0", "ai2d/images/0.png"),
        ("ai2d-0-abc", "ai2d/abc_images/0.png"),
        ("ai2d-5", "ai2d/images/5.png"),
    ]
    assert turns(rows[0]) == [("<image>\nWhat do larvae become?\nA. pupa\nB. egg\nC. adult" + LETTER, "C")]
    assert turns(rows[1]) == [("<image>\nWhat is A in the diagram?\nA. ears\nB. nose\nC. mouth\nD. face" + LETTER, "D")]
    assert left_out == {"has an answer that is none of its options": 2, "has fewer than two options": 1}


def test_the_other_split_has_the_other_diagrams(folder: Path) -> None:
    rows, _ = run("ai2d", folder, split="test", format="plain")
    assert [row["id"] for row in rows] == ["ai2d-13"]


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_opaque_letters_hide_the_labels_and_nothing_else(folder: Path) -> None:
    stored = folder / "stored"
    run("ai2d", folder, save_image=make_image_saver(stored))
    drawn = read(stored / "ai2d/abc_images/0.png")
    assert drawn.shape == (120, 200, 3)
    assert tuple(drawn[22, 12]) == (255, 255, 255)  # the box of A
    box = drawn[20:41, 10:61]
    assert box.min() < 80  # its letter
    assert np.abs(np.argwhere(box.min(axis=2) < 80).mean(axis=0) - (10, 25)).max() < 4  # in the middle
    outside = drawn.copy()
    outside[20:41, 10:61] = outside[90:, 150:] = (200, 0, 0)
    assert (outside == (200, 0, 0)).all()


def test_translucent_boxes_leave_the_labels_readable(folder: Path) -> None:
    stored = folder / "stored"
    rows, _ = run("ai2d", folder, format="no-mask", save_image=make_image_saver(stored))
    assert rows[1]["image"] == "ai2d/abc_beside_images/0.png"
    drawn = read(stored / "ai2d/abc_beside_images/0.png")
    assert tuple(drawn[38, 58]) not in ((255, 255, 255), (200, 0, 0))  # tinted
    assert abs(drawn[38, 58][0] - (25 + 200) / 2) < 3


def test_diagrams_that_are_there_already_are_not_drawn(folder: Path) -> None:
    images = folder / "all"
    (images / "ai2d/abc_images").mkdir(parents=True)
    (images / "ai2d/images").mkdir()
    for name in ("abc_images/0", "images/0", "images/5"):
        Image.new("RGB", (2, 2)).save(images / f"ai2d/{name}.png")
    rows, _ = run("ai2d", folder, images=images)
    assert [row["id"] for row in rows] == ["ai2d-0", "ai2d-0-abc", "ai2d-5"]


def test_where_diagrams_are_stored_has_to_be_said(folder: Path) -> None:
    with pytest.raises(UsageError, match="--save-images DIR"):
        run("ai2d", folder)


def test_questions_about_letters_can_be_left_out(folder: Path) -> None:
    (folder / "annotations/0.png.json").unlink()
    (folder / "annotations").rmdir()
    rows, left_out = run("ai2d", folder, format="plain")
    assert [row["id"] for row in rows] == ["ai2d-0", "ai2d-5"]
    assert left_out["names labels by letters"] == 1


@pytest.mark.parametrize(("damage", "reason"), [
    (lambda folder: (folder / "images/0.png").unlink(), "and its diagram cannot be found"),
    (lambda folder: (folder / "images/0.png").write_text("<html>"), "and its diagram cannot be decoded"),
    (lambda folder: (folder / "annotations/0.png.json").unlink(), "and its labels cannot be found"),
])  # fmt: skip
def test_letters_that_cannot_be_drawn_are_counted(folder: Path, damage: Any, reason: str) -> None:
    damage(folder)
    rows, left_out = run("ai2d", folder, save_image=make_image_saver(folder / "stored"))
    assert [row["id"] for row in rows] == ["ai2d-0", "ai2d-5"]
    assert left_out[f"names labels by letters, {reason}"] == 1


def test_a_box_that_is_none_is_named(folder: Path) -> None:
    path = folder / "annotations/0.png.json"
    value = json.loads(path.read_text())
    value["text"]["T0"]["rectangle"] = [[1, 2]]
    path.write_text(json.dumps(value))
    with pytest.raises(UsageError, match=r"Text T0 of .*: its rectangle is \[\[1, 2\]\], not two corners"):
        run("ai2d", folder, save_image=make_image_saver(folder / "stored"))
