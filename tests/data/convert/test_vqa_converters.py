"""Converters of questions about photographs and of text in them, on small files in the datasets' own schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.errors import LlavaError, UsageError
from tests.data.convert.converting import run, turns, write_json

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def people(*answers: str) -> list[dict[str, Any]]:
    return [
        {"answer": answer, "raw_answer": f"{answer}s", "answer_confidence": "yes", "answer_id": i + 1}
        for i, answer in enumerate(answers)
    ]


def write_vqa(folder: Path, questions: list[Any], annotations: list[Any], prefix: str = "v2_") -> None:
    head = {"info": {"version": "2.0", "year": 2017}, "license": {"name": "CC BY 4.0"}, "data_subtype": "train2014"}
    write_json(
        folder, f"{prefix}OpenEnded_mscoco_train2014_questions.json", {**head, "questions": questions, "task_type": ""}
    )
    write_json(folder, f"{prefix}mscoco_train2014_annotations.json", {"annotations": annotations, **head})


def question(number: int, image: int, text: str) -> dict[str, Any]:
    return {"image_id": image, "question": text, "question_id": number}


def annotation(number: int, image: int, answers: list[Any], majority: str | None = None) -> dict[str, Any]:
    given = {} if majority is None else {"multiple_choice_answer": majority}
    return {"question_type": "what is this", "answers": answers, "image_id": image, "answer_type": "other",
            "question_id": number, **given}  # fmt: skip


def test_the_questions_of_vqav2_about_an_image_are_one_conversation(tmp_path: Path) -> None:
    write_vqa(
        tmp_path,
        [
            question(458752000, 458752, "What is this photo taken looking through?"),
            question(262146000, 262146, "Qu'est-ce que c'est ? ☕"),
            question(458752001, 458752, " What position is this man playing? "),
        ],
        [
            annotation(458752000, 458752, people("net", "netting", "net"), "net"),
            annotation(458752001, 458752, people("pitcher", "catcher"), "pitcher"),
            annotation(262146000, 262146, people("café"), "café"),
        ],
    )
    rows, left_out = run("vqav2", tmp_path)
    assert left_out == {}
    assert rows[0] == {
        "id": "vqav2-000000458752",
        "image": "coco/train2017/000000458752.jpg",
        "conversations": [
            {"from": "human", "value": f"<image>\nWhat is this photo taken looking through?\n{SHORT}"},
            {"from": "gpt", "value": "Net"},
            {"from": "human", "value": "What position is this man playing?"},
            {"from": "gpt", "value": "Pitcher"},
        ],
        "data_source": "vqav2",
    }
    assert turns(rows[1]) == [(f"<image>\nQu'est-ce que c'est ? ☕\n{SHORT}", "Café")]


def test_a_question_of_vqav2_without_annotation_or_answer_is_counted(tmp_path: Path) -> None:
    write_vqa(
        tmp_path,
        [question(1, 10, "Kept?"), question(2, 10, "Not annotated?"), question(3, 11, "Not answered?")],
        [annotation(1, 10, people("yes"), "yes"), annotation(3, 11, [], ""), annotation(4, 12, people("no"), "no")],
    )
    rows, left_out = run("vqav2", tmp_path)
    assert [turns(row) for row in rows] == [[(f"<image>\nKept?\n{SHORT}", "Yes")]]
    assert left_out == {
        "has no annotation": 1,
        "has no answer": 1,
        "is an annotation without a question": 1,
    }


def test_a_second_question_or_annotation_of_a_number_is_counted(tmp_path: Path) -> None:
    write_vqa(
        tmp_path,
        [question(1, 10, "First?"), question(1, 11, "Second?")],
        [annotation(1, 10, people("yes"), "yes"), annotation(1, 10, people("no"), "no")],
    )
    (row,), left_out = run("vqav2", tmp_path)
    assert turns(row) == [(f"<image>\nFirst?\n{SHORT}", "Yes")]
    assert left_out == {
        "is a second annotation of a question": 1,
        "is a second question of the same number": 1,
    }


def test_okvqa_takes_the_most_frequent_scored_or_raw_answer(tmp_path: Path) -> None:
    questions = [question(516065, 51606, "What is the hairstyle of the blond called?")]
    annotations = [annotation(516065, 51606, people("bun", "pony tail", "pony tail", "hair", "Pony tail"))]
    write_vqa(tmp_path, questions, annotations, prefix="")
    (row,), _ = run("okvqa", tmp_path)
    assert turns(row)[0][1] == "Pony tail"
    assert row["image"] == "coco/train2017/000000051606.jpg"
    (row,), _ = run("okvqa", tmp_path, format="raw")
    assert turns(row)[0][1] == "Pony tails"


def test_a_prompt_replaces_the_answer_format_sentence(tmp_path: Path) -> None:
    write_vqa(tmp_path, [question(1, 10, "Red?")], [annotation(1, 10, people("yes"), "yes")])
    (row,), _ = run("vqav2", tmp_path, prompt="Be brief.")
    assert turns(row)[0][0] == "<image>\nRed?\nBe brief."
    (row,), _ = run("vqav2", tmp_path, prompt="")
    assert turns(row)[0][0] == "<image>\nRed?"


AWAITING = {
    "split": "train",
    "image_id": 299207,
    "question_id": "22MexNkBPpdZGX6sxbxVBH",
    "question": "What is the man by the bags awaiting?",
    "choices": ["skateboarder", "train", "delivery", "cab"],
    "correct_choice_idx": 3,
    "direct_answers": ["ride", "ride", "bus", "taxi"],
    "difficult_direct_answer": False,
    "rationales": ["A train would not be on the street."],
}


def test_each_letter_of_aokvqa_is_right_once(tmp_path: Path) -> None:
    second = {**AWAITING, "question_id": "b", "question": "Where is he?", "choices": ["street", "sea", "sky", "bed "]}
    untold = {key: value for key, value in AWAITING.items() if key != "correct_choice_idx"}
    write_json(tmp_path, "aokvqa_v1p0_train.json", [AWAITING, {**second, "correct_choice_idx": 0}, untold])
    rows, left_out = run("aokvqa", tmp_path)
    assert left_out == {"has no right option": 1}
    assert [row["id"] for row in rows] == [f"aokvqa-000000299207-{k}" for k in range(4)]
    assert {row["image"] for row in rows} == {"coco/train2017/000000299207.jpg"}
    assert turns(rows[1]) == [
        (
            "<image>\nWhat is the man by the bags awaiting?\nA. train\nB. delivery\nC. cab\nD. skateboarder\n" + LETTER,
            "C",
        ),
        ("Where is he?\nA. sea\nB. sky\nC. bed\nD. street", "D"),
    ]
    assert [turns(row)[0][1] for row in rows] == ["D", "C", "B", "A"]
    assert [turns(row)[1][1] for row in rows] == ["A", "D", "C", "B"]
    (row,), _ = run("aokvqa", tmp_path, format="once")
    assert row["id"] == "aokvqa-000000299207"
    assert turns(row)[0][1] == "D"


def test_gqa_is_grouped_by_image_and_asks_for_a_full_sentence_without_a_format(tmp_path: Path) -> None:
    def entry(image: Any, question: str, **more: Any) -> dict[str, Any]:
        return {"imageId": image, "question": question, "isBalanced": True, "types": {}, "groups": {}, **more}

    questions = {
        "02930152": entry("2354786", "Is the sky dark?", answer="yes", fullAnswer="Yes, the sky is dark."),
        "07333408": entry("2375429", "What is on the wall?", answer="pipe", fullAnswer="The pipe is on the wall."),
        "07333405": entry("2354786", "What is it?", answer="ÉLAN", fullAnswer=""),
        "1": entry("9", "Nobody knows?"),
    }
    write_json(tmp_path, "questions1.2/train_balanced_questions.json", questions)
    rows, left_out = run("gqa", tmp_path)
    assert left_out == {"has no answer": 1}
    assert [row["image"] for row in rows] == ["gqa/images/2354786.jpg", "gqa/images/2375429.jpg"]
    assert turns(rows[0]) == [(f"<image>\nIs the sky dark?\n{SHORT}", "Yes"), ("What is it?", "ÉLAN")]
    rows, left_out = run("gqa", tmp_path / "questions1.2", format="full")
    assert turns(rows[0]) == [("<image>\nIs the sky dark?", "Yes, the sky is dark.")]
    assert left_out == {"has no answer": 2}


def write_textvqa(folder: Path) -> None:
    def entry(number: int, image: str, question: str, answers: list[str]) -> dict[str, Any]:
        facts = {"image_classes": ["Sign"], "image_width": 9, "image_height": 9, "question_tokens": []}
        return {"question": question, "image_id": image, "answers": answers, "question_id": number, **facts}

    no_reading = "answering does not require reading text in the image"
    data = [
        entry(0, "0054c91397f2fe05", "what is the brand of phone?", ["nokia"] * 7 + ["toshiba"] * 2 + ["NOKIA "]),
        entry(1, "a4ea7ba21199b2aa", "what color?", [no_reading] * 6 + ["red"] * 4),
        entry(2, "0054c91397f2fe05", "what time?", ["10:45", "1045", "10:45"]),
        entry(3, "a4ea7ba21199b2aa", "empty?", ["", " "]),
        entry(4, "ffff", "which word?", ["straße"]),
    ]
    write_json(folder, "TextVQA_0.5.1_train.json", {"dataset_type": "train", "dataset_version": "0.5.1", "data": data})


def write_ocr(folder: Path) -> None:
    data = [
        {"image_id": "0054c91397f2fe05", "ocr_tokens": ["MIA", "NOKIA", "10:45"], "ocr_info": []},
        {"image_id": "a4ea7ba21199b2aa", "ocr_tokens": [], "ocr_info": []},
    ]
    write_json(folder, "TextVQA_Rosetta_OCR_v0.2_train.json", {"dataset_name": "textvqa", "data": data})


def test_textvqa_has_its_ocr_tokens_after_the_first_question_when_asked(tmp_path: Path) -> None:
    write_textvqa(tmp_path)
    rows, left_out = run("textvqa", tmp_path)
    assert left_out == {"needs no reading, say its annotators": 1, "has no answer": 1}
    assert rows[0]["image"] == "textvqa/train_images/0054c91397f2fe05.jpg"
    assert turns(rows[0]) == [(f"<image>\nwhat is the brand of phone?\n{SHORT}", "nokia"), ("what time?", "10:45")]
    assert turns(rows[1])[0][1] == "straße"
    with pytest.raises(UsageError, match=r"OCR_v0\.2_train\.json., which this format needs"):
        run("textvqa", tmp_path, format="ocr")
    write_ocr(tmp_path)
    (row,), left_out = run("textvqa", tmp_path, format="ocr")
    assert left_out["is about an image that the OCR file lacks"] == 1
    assert turns(row) == [
        (f"<image>\nwhat is the brand of phone?\nReference OCR token: MIA, NOKIA, 10:45\n{SHORT}", "nokia"),
        ("what time?", "10:45"),
    ]


def test_st_vqa_is_grouped_by_the_path_of_its_image(tmp_path: Path) -> None:
    def entry(number: int, path: str, question: str, answers: list[str]) -> dict[str, Any]:
        return {"dataset": path.split("/")[0], "file_name": path.split("/")[1], "file_path": path, "set_name": "train",
                "question": question, "question_id": number, "answers": answers}  # fmt: skip

    data = [
        entry(1, "coco-text/COCO_train2014_000000209138.jpg", "What is written?", ["STOP", "stop", "Halt"]),
        entry(2, "IIIT-text/img_1.jpg", "Which shop?", ["Ο Φούρνος"]),
        entry(3, "coco-text/COCO_train2014_000000209138.jpg", "Where?", ["street"]),
        entry(4, "coco-text/x.jpg", "Nothing?", []),
    ]
    write_json(tmp_path, "train_task_3.json", {"task_name": "train - task 3", "data": data})
    rows, left_out = run("st_vqa", tmp_path / "train_task_3.json")
    assert left_out == {"has no answer": 1}
    assert rows[0]["image"] == "st_vqa/coco-text/COCO_train2014_000000209138.jpg"
    assert turns(rows[0]) == [(f"<image>\nWhat is written?\n{SHORT}", "STOP"), ("Where?", "street")]
    assert turns(rows[1])[0][1] == "Ο Φούρνος"


def write_ocr_vqa(folder: Path, **more: Any) -> None:
    book = {
        "imageURL": "http://ecx.images-amazon.com/images/I/61Y5cOdHJbL.gif",
        "questions": ["Who wrote this book?", "What is the title of this book?", "What year?"],
        "answers": ["Sandra Boynton", "Mom's Family Wall Calendar 2016", ""],
        "title": "Mom's Family Wall Calendar 2016",
        "authorName": "Sandra Boynton",
        "genre": "Calendars",
        "split": 1,
    }
    odd = {**book, "answers": ["Only one"]}
    write_json(folder, "dataset.json", {"761183272": book, "140031996X": {**book, "split": 2}, "3": odd, **more})


def test_ocr_vqa_is_split_by_number_and_its_covers_are_jpg(tmp_path: Path) -> None:
    write_ocr_vqa(tmp_path)
    (row,), left_out = run("ocr_vqa", tmp_path)
    assert row["image"] == "ocr_vqa/images/761183272.jpg"
    assert turns(row) == [
        (f"<image>\nWho wrote this book?\n{SHORT}", "Sandra Boynton"),
        ("What is the title of this book?", "Mom's Family Wall Calendar 2016"),
    ]
    assert left_out == {"has no answer": 1, "has more questions than answers, or fewer": 1}
    (row,), _ = run("ocr_vqa", tmp_path, split="val")
    assert row["id"] == "ocr_vqa-140031996X"
    with pytest.raises(LlavaError, match="Nothing of OCR-VQA was converted"):
        run("ocr_vqa", tmp_path, split="test")


@pytest.mark.parametrize(
    ("book", "message"),
    [
        ({"questions": []}, "Book 9 of '.*dataset.json' needs an integer 'split', which is missing"),
        ({"split": True}, "'split', which is true or false"),
        ({"split": 1, "questions": "Who?", "answers": []}, "needs a list 'questions', which is a text"),
        ({"split": 1, "questions": [1], "answers": ["a"]}, "item 0 of 'questions' is an integer, not a text"),
        ([], "Book 9 of '.*dataset.json' is a list, not an object"),
    ],
)
def test_a_file_of_another_schema_is_an_error_that_names_the_entry(tmp_path: Path, book: Any, message: str) -> None:
    write_ocr_vqa(tmp_path, **{"9": book})
    with pytest.raises(UsageError, match=message):
        run("ocr_vqa", tmp_path)
    assert not list(tmp_path.glob("*converted*"))


def test_a_question_with_the_word_for_an_image_is_left_out(tmp_path: Path) -> None:
    write_vqa(
        tmp_path,
        [question(1, 10, "What does <image> mean?"), question(2, 11, "Kept?")],
        [annotation(1, 10, people("yes"), "yes"), annotation(2, 11, people("yes"), "yes")],
    )
    rows, left_out = run("vqav2", tmp_path)
    assert len(rows) == 1
    assert left_out == {"has <image> 2 times for 1 image": 1}


def test_rows_with_an_absent_image_are_left_out_when_there_is_an_image_folder(tmp_path: Path) -> None:
    write_vqa(
        tmp_path,
        [question(1, 10, "Here?"), question(2, 11, "Absent?")],
        [annotation(1, 10, people("yes"), "yes"), annotation(2, 11, people("no"), "no")],
    )
    here = tmp_path / "images/coco/train2017/000000000010.jpg"
    here.parent.mkdir(parents=True)
    here.touch()
    rows, left_out = run("vqav2", tmp_path, images=tmp_path / "images")
    assert [row["id"] for row in rows] == ["vqav2-000000000010"]
    assert left_out == {"has an image that is absent": 1}
