"""Converters of regions and their descriptions, on small files in the datasets' own schemas."""

from __future__ import annotations

import ast
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from llava.data.convert.regions import read_plain_pickle, write_box
from llava.errors import UsageError
from tests.data.convert.converting import run, turns, write_json

FIND = re.compile(
    r"(?:<image>\n)?Please provide the bounding box coordinate of the region this sentence describes: (.*)\."
)
DESCRIBE = re.compile(r"(?:<image>\n)?Please provide a short description for this region: (\[.*\])\.")


@pytest.mark.parametrize(
    ("box", "size", "written"),
    [
        ((0, 0, 640, 480), (640, 480), "[0.0, 0.12, 1.0, 0.88]"),  # 80 px of padding above and below
        ((0, 0, 480, 640), (480, 640), "[0.12, 0.0, 0.88, 1.0]"),
        ((103.93, 299.99, 134.22, 177.42), (427, 640), "[0.33, 0.47, 0.54, 0.75]"),
        ((10, 20, 30, 40), (100, 100), "[0.1, 0.2, 0.4, 0.6]"),
        ((-5, -5, 20, 20), (100, 100), "[0.0, 0.0, 0.15, 0.15]"),  # outside: cut off at the border
        ((90, 90, 20, 20.5), (100, 100), "[0.9, 0.9, 1.0, 1.0]"),
        ((0, 0, 3, 1), (3, 2), "[0.0, 0.0, 1.0, 0.33]"),  # the margin is rounded down
        ((10, 10, 0, 5), (100, 100), None),
        ((100, 10, 5, 5), (100, 100), None),
        ((-9, 10, 9, 5), (100, 100), None),
        ((10, 10, -3, 5), (100, 100), None),
    ],
)
def test_a_box_is_in_shares_of_the_padded_square(box: Any, size: Any, written: str | None) -> None:
    assert write_box(box, *size) == written


def ref(number: int, image: int, sentences: list[str], split: str = "train", ann: int | None = None) -> dict[str, Any]:
    return {
        "sent_ids": list(range(len(sentences))),
        "file_name": f"COCO_train2014_{image:012}_16.jpg",
        "ann_id": number if ann is None else ann,
        "ref_id": number,
        "image_id": image,
        "split": split,
        "category_id": 1,
        "sentences": [
            {"tokens": text.split(), "raw": f"{text}!", "sent_id": i, "sent": text} for i, text in enumerate(sentences)
        ],
    }


def write_refcoco(folder: Path, refs: Any, file: str = "refcoco/refs(unc).p", protocol: int = 0) -> None:
    instances = {
        "info": {},
        "images": [
            {"id": 581857, "width": 427, "height": 640, "file_name": "COCO_train2014_000000581857.jpg"},
            {"id": 7, "width": 100, "height": 100, "file_name": "COCO_train2014_000000000007.jpg"},
        ],
        "annotations": [
            {"id": 1, "bbox": [103.93, 299.99, 134.22, 177.42], "image_id": 581857, "segmentation": [[1, 2, 3, 4]]},
            {"id": 2, "bbox": [0, 0, 427, 640], "image_id": 581857, "segmentation": []},
            {"id": 3, "bbox": [90.5, 0, 20, 50], "image_id": 7, "segmentation": []},
            {"id": 4, "bbox": [5, 5, 0, 0], "image_id": 7, "segmentation": []},
        ],
    }
    path = folder / file
    write_json(folder, str(Path(file).with_name("instances.json")), instances)
    path.write_bytes(pickle.dumps(refs, protocol=protocol))


def test_refcoco_asks_in_both_directions_with_the_same_box(tmp_path: Path) -> None:
    refs = [
        ref(1, 581857, ["the lady with the blue shirt", "lady with back to us"]),
        ref(2, 581857, ["whole image"], split="val"),
        ref(3, 7, ["vélo à droite", ""]),
        ref(4, 7, ["nothing to see"]),
        ref(9, 7, ["no box"], ann=99),
    ]
    write_refcoco(tmp_path, refs)
    rows, left_out = run("refcoco", tmp_path, format="find")
    assert left_out == {
        "is an empty description": 1,
        "has a box without area": 1,
        "has no box in the instances file": 1,
    }
    assert [row["id"] for row in rows] == ["refcoco-000000581857-0", "refcoco-000000000007-0"]
    assert rows[0]["image"] == "coco/train2017/000000581857.jpg"
    found = {FIND.fullmatch(question)[1]: box for row in rows for question, box in turns(row)}  # type: ignore[index]
    assert found == {
        "the lady with the blue shirt": "[0.33, 0.47, 0.54, 0.75]",
        "lady with back to us": "[0.33, 0.47, 0.54, 0.75]",
        "vélo à droite": "[0.91, 0.0, 1.0, 0.5]",
    }
    rows, _ = run("refcoco", tmp_path, format="describe")
    assert [turns(row) for row in rows][1] == [
        ("<image>\nPlease provide a short description for this region: [0.91, 0.0, 1.0, 0.5].", "Vélo à droite.")
    ]
    (row,), _ = run("refcoco", tmp_path, split="val", format="find")
    assert turns(row)[0][1] == "[0.17, 0.0, 0.83, 1.0]"


def test_a_conversation_of_refcoco_has_fewer_than_ten_turns(tmp_path: Path) -> None:
    write_refcoco(tmp_path, [ref(1, 581857, [f"person {i}" for i in range(20)])], protocol=2)
    rows, _ = run("refcoco", tmp_path)
    assert [len(turns(row)) for row in rows] == [9, 9, 2]
    assert [row["id"][-2:] for row in rows] == ["-0", "-1", "-2"]
    asked = [question for row in rows for question, _ in turns(row)]
    directions = [FIND.fullmatch(question) is not None for question in asked]
    assert 4 < sum(directions) < 16
    assert all(FIND.fullmatch(question) or DESCRIBE.fullmatch(question) for question in asked)
    again, _ = run("refcoco", tmp_path)
    other, _ = run("refcoco", tmp_path, seed=1)
    assert again == rows
    assert other != rows


def test_the_three_sets_are_told_apart_by_their_files(tmp_path: Path) -> None:
    write_refcoco(tmp_path, [ref(1, 7, ["a"], ann=3)], "refcoco+/refs(unc).p")
    write_refcoco(tmp_path, [ref(1, 7, ["b"], ann=3)], "refcocog/refs(umd).p")
    assert run("refcoco+", tmp_path)[0][0]["data_source"] == "refcoco+"
    assert run("refcocog", tmp_path, split="train")[0][0]["id"] == "refcocog-000000000007-0"
    with pytest.raises(UsageError, match="lacks 'refcoco/refs"):
        run("refcoco", tmp_path)
    with pytest.raises(UsageError, match=r"RefCOCOg has no split 'testA'.*test"):
        run("refcocog", tmp_path, split="testA")


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize(
    "data",
    [pickle.dumps(Runs()), pickle.dumps(Path("x")), b"", b"not a pickle", pickle.dumps([1, 2])[:-3], b"]" * 9],
)
def test_a_pickle_that_is_more_than_plain_data_is_refused_and_runs_nothing(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "refs(unc).p"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="damaged, or more than plain data"):
        read_plain_pickle(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_pickle_of_python_2_is_read_as_text_and_integers(tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'caf\xc3\xa9'\np3\nsS'ref_id'\np4\nL12L\nsS'x'\nVna\\u00efve\nsa.")
    assert read_plain_pickle(path) == [{"sent": "café", "ref_id": 12, "x": "naïve"}]


def write_vg(folder: Path, regions: list[dict[str, Any]]) -> None:
    images = [
        {"image_id": 1, "url": "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg", "width": 800, "height": 600},
        {"image_id": 4, "url": "https://cs.stanford.edu/people/rak248/VG_100K/4.jpg", "width": 100, "height": 100},
    ]
    write_json(folder, "image_data.json", [{**image, "coco_id": None, "flickr_id": None} for image in images])
    write_json(folder, "region_descriptions.json", [{"id": 1, "regions": regions}, {"id": 4, "regions": []},
                                                    {"id": 5, "regions": regions}])  # fmt: skip


def region(number: int, x: float, y: float, width: float, height: float, phrase: str) -> dict[str, Any]:
    return {"region_id": number, "width": width, "height": height, "image_id": 1, "phrase": phrase, "y": y, "x": x}


def test_ten_regions_of_an_image_of_visual_genome_are_drawn(tmp_path: Path) -> None:
    write_vg(tmp_path, [region(i, i * 10, 0, 200, 300, f"the clock is\ngreen {i}.") for i in range(14)])
    (row,), left_out = run("vg", tmp_path)
    assert left_out == {"is an image that image_data.json lacks": 1}
    assert (row["id"], row["image"]) == ("vg-1", "vg/VG_100K_2/1.jpg")
    assert len(turns(row)) == 10
    for question, answer in turns(row):
        finds, describes = FIND.fullmatch(question), DESCRIBE.fullmatch(question)
        box, text = (answer, finds[1]) if finds else (describes[1], answer)  # type: ignore[index]
        number = int(re.findall(r"\d+", text)[0])
        assert text.rstrip(".") == f"{'the' if finds else 'The'} clock is green {number}"
        assert ast.literal_eval(box) == [round(number * 10 / 800, 2), 0.12, round((number * 10 + 200) / 800, 2), 0.5]
    assert run("vg", tmp_path, seed=1)[0] != [row]


def test_regions_outside_the_image_or_without_text_are_counted(tmp_path: Path) -> None:
    regions = [
        region(1, -10, -10, 20, 20, "Corner"),
        region(2, 800, 0, 20, 20, "Outside"),
        region(3, 10, 10, 20, 20, " . "),
        region(4, 10, 10, 20, 0, "Flat"),
    ]
    write_vg(tmp_path, regions)
    (row,), left_out = run("vg", tmp_path, format="find", prompt="Where is {}?")
    assert turns(row) == [("<image>\nWhere is Corner?", "[0.0, 0.12, 0.01, 0.14]")]
    assert left_out["has a box without area"] == 2
    assert left_out["is an empty description"] == 1
    with pytest.raises(UsageError, match=r"The prompt 'Where\?' needs a \{\}"):
        run("vg", tmp_path, format="find", prompt="Where?")
    with pytest.raises(UsageError, match="choose it by --format find or --format describe"):
        run("vg", tmp_path, prompt="Where is {}?")
