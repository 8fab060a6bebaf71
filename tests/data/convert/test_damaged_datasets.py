"""Damaged files: whatever a field holds, and wherever a file ends, a converter counts or explains it."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava.data.convert.converter import LeftOut, Options
from llava.data.convert.row_writer import convert
from llava.data.convert.table import find_converter
from llava.data.readers import read_records
from llava.errors import LlavaError

WORDS = {"data": [{"image_id": "ab", "ocr_tokens": ["A"], "ocr_info": []}]}
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
INSTANCES = {
    "images": [{"id": 7, "width": 100, "height": 90}],
    "annotations": [{"id": 1, "bbox": [1, 2.5, 30, 40], "image_id": 7}],
}
REFS = [{"ann_id": 1, "ref_id": 2, "image_id": 7, "split": "train", "sentences": [{"sent": "red", "raw": "red"}]}]

# By converter, a small valid file for each that it reads.
VALID: dict[str, dict[str, Any]] = {
    "vqav2": {
        "v2_OpenEnded_mscoco_train2014_questions.json": {
            "questions": [{"image_id": 1, "question": "What?", "question_id": 10}]
        },
        "v2_mscoco_train2014_annotations.json": {
            "annotations": [{"question_id": 10, "multiple_choice_answer": "a", "answers": [{"answer": "a"}]}]
        },
    },
    "aokvqa": {
        "aokvqa_v1p0_train.json": [
            {"image_id": 1, "question_id": "q", "question": "What?", "choices": ["a", "b"], "correct_choice_idx": 1}
        ]
    },
    "gqa": {"train_balanced_questions.json": {"1": {"imageId": "5", "question": "What?", "answer": "a"}}},
    "textvqa": {
        "TextVQA_0.5.1_train.json": {
            "data": [{"question_id": 1, "image_id": "ab", "question": "What?", "answers": ["a", "b"]}]
        },
    },
    "st_vqa": {
        "train_task_3.json": {
            "data": [{"question_id": 1, "file_path": "a/b.jpg", "question": "What?", "answers": ["a"]}]
        }
    },
    "ocr_vqa": {"dataset.json": {"1": {"split": 1, "questions": ["Who?"], "answers": ["He"]}}},
    "textcaps": {
        "TextCaps_0.1_train.json": {"data": [{"image_id": "ab", "caption_id": 3, "caption_str": "A sign."}]},
        "TextVQA_Rosetta_OCR_v0.2_train.json": WORDS,
    },
    "coco_captions": {
        "captions_train2017.json": {
            "images": [{"id": 9, "file_name": "000000000009.jpg"}],
            "annotations": [{"id": 1, "image_id": 9, "caption": "A meal."}],
        }
    },
    "refcoco": {"refs(unc).p": REFS, "instances.json": INSTANCES},
    "vg": {
        "region_descriptions.json": [
            {"id": 1, "regions": [{"region_id": 1, "x": 1, "y": 2, "width": 30, "height": 40, "phrase": "red"}]}
        ],
        "image_data.json": [{"image_id": 1, "width": 100, "height": 90, "url": "https://x/VG_100K/1.jpg"}],
    },
    "docvqa": {
        "train_v1.0.json": {
            "data": [{"questionId": 1, "image": "documents/a.png", "question": "What?", "answers": ["a"], "docId": 1}]
        }
    },
    "chartqa": {
        "train/train_human.json": [{"imgname": "1.png", "query": "How many?", "label": "3"}],
        "train/train_augmented.json": [{"imgname": "2.png", "query": "How many?", "label": "4"}],
    },
    "dvqa": {
        "qa/train_qa.json": [
            {"image": "bar_1.png", "question": "How many?", "answer": "two", "question_id": 1, "answer_bbox": []}
        ]
    },
    "scienceqa": {
        "problems.json": {
            "1": {
                "question": "Which?",
                "choices": ["a", "b"],
                "answer": 1,
                "hint": "",
                "image": "image.png",
                "lecture": "L",
                "solution": "S",
                "split": "train",
            }
        },
        "pid_splits.json": {"train": ["1"]},
    },
    "sharegpt": {
        "sg_90k_part1.json": [
            {"id": "1", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "<b>Hi</b>"}]}
        ]
    },
    "sharegpt4v": {
        "sharegpt4v_instruct_gpt4-vision_cap100k.json": [{"id": "1", "image": "coco/1.jpg", "conversations": TURNS}]
    },
    "allava": {"ALLaVA-Instruct-VFLAN-4V.json": [{"id": "1", "image": "allava/1.png", "conversations": TURNS}]},
    "llava_instruct": {"llava_instruct_150k.json": [{"id": "1", "image": "1.jpg", "conversations": TURNS}]},
    "mix665k": {"llava_v1_5_mix665k.json": [{"id": "1", "image": "vg/1.jpg", "conversations": TURNS}]},
}
ODD: tuple[Any, ...] = (None, True, -3, 1e300, float("nan"), "", "<image>", "\ud800", "../x", [], [None], {}, {"a": 1})


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        data = pickle.dumps(value, protocol=2) if name.endswith(".p") else json.dumps(value).encode()
        (folder / name).write_bytes(data)


def attempt(name: str, folder: Path) -> bool:
    """Whether the files are converted; whatever is written can be read, and a refusal is an error of ours."""
    converter = find_converter(name)
    dst = folder / "out.jsonl"
    dst.unlink(missing_ok=True)
    options = Options(left_out=LeftOut(), format=converter.check_format(None))
    try:
        written = convert(converter, folder, dst, options)
    except LlavaError:
        assert not dst.exists()
        return False
    assert len(read_records(dst)) == written.num_rows
    return True


def mutants(value: Any) -> Iterator[Any]:
    """Copies of the value in each of which one part, at any depth, is replaced or, in an object, removed."""
    yield from ODD
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    for key in keys:
        for part in mutants(value[key]):
            copied = copy.copy(value)
            copied[key] = part
            yield copied
        copied = copy.copy(value)
        del copied[key]
        yield copied


@pytest.mark.parametrize("name", VALID)
def test_any_value_in_any_field_is_converted_counted_or_explained(name: str, tmp_path: Path) -> None:
    write(tmp_path, VALID[name])
    assert attempt(name, tmp_path)
    num_refused = 0
    for file, value in VALID[name].items():
        for mutant in mutants(value):
            with contextlib.suppress(UnicodeEncodeError):  # a lone surrogate cannot be pickled
                write(tmp_path, {file: mutant})
            num_refused += not attempt(name, tmp_path)
        write(tmp_path, {file: value})
    assert num_refused > 20


@pytest.mark.parametrize("name", VALID)
def test_a_file_that_is_cut_off_anywhere_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path, VALID[name])
    for file in VALID[name]:
        whole = (tmp_path / file).read_bytes()
        for end in range(0, len(whole) - 1, 7):
            (tmp_path / file).write_bytes(whole[:end])
            assert not attempt(name, tmp_path), (file, end)
        (tmp_path / file).write_bytes(whole)
