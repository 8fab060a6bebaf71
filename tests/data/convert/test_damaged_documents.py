"""Damaged files of documents, charts, science and conversations: whatever a field holds is counted or explained."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.data.convert.converter import LeftOut, Options
from llava.data.convert.row_writer import convert, make_image_saver
from llava.data.convert.table import find_converter
from llava.data.readers import read_records
from llava.errors import LlavaError
from tests.data.convert.test_damaged_datasets import TURNS, mutants

PROBLEM = {
    "question": "What?", "choices": ["a", "b"], "answer": 1, "hint": "h", "image": "image.png", "lecture": "l",
    "solution": "s",
}  # fmt: skip
ASKED = {"abcLabel": True, "answerTexts": ["a", "b"], "correctAnswer": 1, "questionId": "0.png-0"}
TALK = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "<p>That.</p>"}]

# By converter, split and format, a small valid file for each that it reads.
VALID: dict[tuple[str, str, str | None], dict[str, Any]] = {
    ("docvqa", "train", None): {
        "train_v1.0.json": {
            "data": [{"questionId": 1, "question": "What?", "image": "documents/a.png", "answers": ["a", "b"]}]
        }
    },
    ("infovqa", "train", None): {
        "infographicsVQA_train_v1.0.json": {
            "data": [{"questionId": 1, "question": "What?", "image_local_name": "1.jpeg", "answers": ["a"]}]
        }
    },
    ("chartqa", "train", "human"): {"train_human.json": [{"imgname": "1.png", "query": "What?", "label": ["a", "b"]}]},
    ("dvqa", "train", "questions"): {"train_qa.json": [{"image": "b.png", "question": "What?", "answer": "a"}]},
    ("dvqa", "train", "labels"): {
        "train_metadata.json": [{"image": "b.png", "texts": [{"text": "a", "bbox": [1, 2, 3, 4]}]}]
    },
    ("ai2d", "train", "mask"): {
        "questions/0.png.json": {"imageName": "0.png", "questions": {"What?": ASKED}},
        "annotations/0.png.json": {"text": {"T0": {"rectangle": [[1, 2], [9, 12]], "replacementText": "A"}}},
    },
    ("scienceqa", "train", "QCM-LEA"): {"problems.json": {"1": PROBLEM}, "pid_splits.json": {"train": ["1"]}},
    ("sharegpt4v", "mix665k", None): {
        "sharegpt4v_mix665k_cap23k_coco-ap9k_lcs3k_sam9k_div2k.json": [
            {"id": "1", "image": "vg/1.jpg", "conversations": TURNS}
        ]
    },
    ("llavar", "finetune", None): {
        "llava_instruct_150k_llavar_20k.json": [{"id": "1", "image": "1.jpg", "conversations": TURNS}]
    },
    ("sharegpt", "train", "english"): {
        "ShareGPT_V3_unfiltered_cleaned_split.json": [{"id": "a_0", "conversations": TALK}]
    },
}


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ai2d_test_ids.csv").write_text("7\n", encoding="utf-8")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "images/0.png")
    return tmp_path


def attempt(which: tuple[str, str, str | None], folder: Path) -> bool:
    """Whether the files are converted; whatever is written can be read, and a refusal is an error of ours."""
    name, split, format = which
    converter = find_converter(name)
    dst = folder / "out.jsonl"
    dst.unlink(missing_ok=True)
    stored = folder / "stored"
    for path in stored.rglob("*.png"):
        path.unlink()
    options = Options(split, converter.check_format(format), left_out=LeftOut(), save_image=make_image_saver(stored))
    try:
        written = convert(converter, folder, dst, options)
    except LlavaError:
        assert not dst.exists()
        return False
    assert len(read_records(dst)) == written.num_rows
    return True


@pytest.mark.parametrize("which", VALID, ids=lambda which: "-".join(filter(None, which)))
def test_any_value_in_any_field_is_converted_counted_or_explained(which: tuple[str, str, str], folder: Path) -> None:
    write(folder, VALID[which])
    assert attempt(which, folder)
    num_refused = 0
    for file, value in VALID[which].items():
        for mutant in mutants(value):
            with contextlib.suppress(UnicodeEncodeError):
                write(folder, {file: mutant})
            num_refused += not attempt(which, folder)
        write(folder, {file: value})
    assert num_refused > 20


@pytest.mark.parametrize("which", VALID, ids=lambda which: "-".join(filter(None, which)))
def test_a_file_that_is_cut_off_anywhere_is_refused(which: tuple[str, str, str], folder: Path) -> None:
    write(folder, VALID[which])
    for file, value in VALID[which].items():
        whole = json.dumps(value)
        for end in range(0, len(whole) - 1, 7):
            (folder / file).write_text(whole[:end], encoding="utf-8")
            assert not attempt(which, folder), (file, end)
        (folder / file).write_text(whole, encoding="utf-8")
