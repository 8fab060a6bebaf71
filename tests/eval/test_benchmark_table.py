"""The table of benchmarks, the readers of question files, and the check of files before a model is loaded."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llava.cli import main
from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS, write_listing
from llava.eval.question_files import (
    read_lines,
    read_mmbench,
    read_qbench,
    read_science,
    read_without_ocr,
    take_chunk,
)
from llava.eval.task import File, check, resolve

LETTER = "Answer with the option's letter from the given choices directly."


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """POPE's folder with two questions about one image."""
    write_rows(
        tmp_path / "pope/llava_pope_test.jsonl",
        [{"question_id": i, "image": "a.png", "text": f"Is it {i}?", "category": "random"} for i in (1, 2)],
    )
    (tmp_path / "pope/coco").mkdir()
    for kind in ("random", "popular", "adversarial"):
        (tmp_path / f"pope/coco/coco_pope_{kind}.json").write_text("{}")
    (tmp_path / "pope/val2014").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "pope/val2014/a.png")
    return tmp_path


def test_every_benchmark_of_llava_1_5_and_next_has_a_row() -> None:
    names = "vqav2 gqa vizwiz scienceqa textvqa textvqa_no_ocr pope mme mmbench mmbench_cn seed llavabench mmvet qbench"
    assert {*names.split(), *"mmmu mathvista docvqa chartqa ai2d infovqa ocrbench".split()} <= TASKS.keys()
    assert TASKS["textvqa"].published["llava-v1.5-7b"] == "58.2"
    assert TASKS["mme"].published["llava-v1.6-34b"] == "1631+397"
    listing = write_listing()
    assert all(f"{task.name}: {task.title}; {task.split}, {task.count} questions" in listing for task in TASKS.values())


def test_all_missing_files_are_named_with_their_source_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "pope", "--data", str(tmp_path), "--model", "/no/such/model"]) == 2
    said = capsys.readouterr().err
    assert "coco_pope_random.json" in said
    assert "at e3e3926" in said
    assert "val2014" in said
    assert "/no/such/model" not in said


def test_another_number_of_questions_is_refused_and_partial_allows_it(data: Path) -> None:
    with pytest.raises(UsageError, match=r"has 2 questions, not the 8910 of random 2910.*: it is another split"):
        check(TASKS["pope"], data)
    questions, notes = check(TASKS["pope"], data, is_partial=True)
    assert [question.id for question in questions] == [1, 2]
    assert "not comparable" in notes[0]


def test_repeated_ids_missing_images_and_a_literal_image_word_are_named(data: Path) -> None:
    task = replace(TASKS["pope"], count=2)
    path = data / task.files[0].path
    rows: list[dict[str, object]] = [
        {"question_id": 7, "image": "a.png", "text": "What is <image>?"},
        {"question_id": 8, "image": "b.png", "text": "And this?"},
    ]
    write_rows(path, rows)
    with pytest.raises(UsageError, match=r"1 of 2 images are missing, the first of them '.*b.png'"):
        check(task, data)
    write_rows(path, [rows[0], {**rows[1], "image": "a.png"}])
    assert "1 questions have the text <image>, the first of them 7" in check(task, data)[1][0]
    write_rows(path, [rows[0], {**rows[0], "text": "Another?"}])
    with pytest.raises(UsageError, match=r"1 ids occur more than once in .* the first of them 7"):
        check(task, data)
    assert len(check(replace(task, ids_repeat=True), data)[0]) == 2


def test_a_task_without_a_reader_says_how_its_questions_can_be_asked(tmp_path: Path) -> None:
    task = replace(TASKS["mmmu"], files=(File("here", "nowhere"),), read=None)
    (tmp_path / "here").touch()
    with pytest.raises(UsageError, match="no reader of its files is written"):
        check(task, tmp_path)


def test_a_scorer_is_found_by_its_name_and_a_missing_one_is_an_error() -> None:
    from llava.eval.m4c_evaluator import TextVQAAccuracyEvaluator

    assert resolve("llava.eval.m4c_evaluator:TextVQAAccuracyEvaluator") is TextVQAAccuracyEvaluator
    for name in ("llava.eval.scoring.nowhere:score", "llava.eval.m4c_evaluator:score_nothing"):
        with pytest.raises(UsageError, match=r"is not part of this version\. The answers are not lost"):
            resolve(name)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question_id": 1, "image": "a.png", "te', "Line 2 of .* is not a JSON object: the file is half-written"),
        ("[1]", "Line 2 of .* is not a JSON object"),
        ("[" * 99_999, "Line 2 of .* is not a JSON object"),
        ('{"question_id": 1, "image": "a.png", "text": "caf\xe9"}', "Line 2 of .* is not a JSON object"),
        ('{"question_id": 1, "image": "a.png"}', "Line 2 of .* has no 'text'; it has question_id, image"),
        ('{"question_id": 1, "image": null, "text": "?"}', "Line 2 of .* has None as 'image'"),
        ('{"question_id": true, "image": "a", "text": "?"}', "Line 2 of .* has True as 'question_id'"),
    ],
)
def test_a_wrong_line_of_a_question_file_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b'{"question_id": "x", "image": "a.png", "text": "?"}\n' + line.encode("latin-1"))
    with pytest.raises(UsageError, match=said):
        read_lines(path, tmp_path)


def test_textvqa_without_ocr_drops_the_line_of_tokens(tmp_path: Path) -> None:
    text = "What brand?\nReference OCR token: a, b\nAnswer the question using a single word or phrase."
    path = write_rows(tmp_path / "q.jsonl", [{"question_id": "x", "image": "a.jpg", "text": text}])
    (question,) = read_without_ocr(path, tmp_path)
    assert question.text == question.prompt == "What brand?\nAnswer the question using a single word or phrase."


def test_science_questions_are_written_as_in_the_original(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "image": "1/i.png", "conversations": [{"from": "human", "value": "<image>\nWhy?\nA. x"}]},
        {"id": "2", "conversations": [{"from": "human", "value": "How?"}]},
    ]
    path = tmp_path / "q.json"
    path.write_text(json.dumps(rows))
    with_image, without = read_science(path, tmp_path)
    assert with_image.prompt == f"<image>\nWhy?\nA. x\n{LETTER}"
    assert with_image.text == f"Why?\nA. x\n{LETTER}"
    assert with_image.images == (tmp_path / "1/i.png",)
    assert (without.text, without.prompt, without.images) == (f"How?\n{LETTER}", f"How?\n{LETTER}", ())
    assert read_science(path, tmp_path, asks_letter=False)[1].text == "How?"


@pytest.mark.parametrize("content", [b'[{"id": "1", "te', b"[" * 99_999, b'["caf\xe9"]'])
def test_a_question_file_that_is_no_json_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"q\.json' is not a JSON file"):
        read_science(path, tmp_path)


def write_table(path: Path, *rows: tuple[str, str, str, str, str, str, str]) -> Path:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    lines = ["index\tquestion\thint\tA\tB\tC\tD\timage", *("\t".join((*row, image)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_mmbench_options_end_at_an_empty_cell_nan_or_none_as_in_the_original(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "t.tsv",
        ("7", "Which?", "Look.", "one", "two", "", ""),
        ("8", '"Say ""x""?"', "nan", "red", "None", "blue", ""),
        ("9", "Only?", "", "one", "", "", ""),
        ("10", "No options?", "", "nan", "b", "", ""),
    )
    first, second, only, nothing = read_mmbench(path)
    assert first.prompt == "Look.\nWhich?\nA. one\nB. two"
    assert first.text == first.prompt + "\n" + LETTER
    assert (first.id, first.before, first.after) == (
        7,
        {"round_id": 0},
        {"options": ["one", "two"], "option_char": ["A", "B"]},
    )
    assert second.prompt == 'Say "x"?\nA. red'
    assert only.after["options"] == ["one"]
    assert nothing.prompt == "No options?"
    assert read_mmbench(path, lang="cn")[0].text.endswith("\n请直接回答选项字母。")


@pytest.mark.parametrize("damage", ["\u00e9", "%"])
def test_an_image_of_mmbench_that_is_no_base64_is_named(damage: str, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.tsv", ("7", "Which?", "", "x", "y", "", ""))
    path.write_text(path.read_text().rstrip() + damage + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"Row 1 of .* has an image that is not valid base64"):
        read_mmbench(path)


def test_an_image_of_mmbench_may_be_base64_in_lines(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.tsv", ("7", "Which?", "", "x", "y", "", ""))
    *cells, image = path.read_text().rstrip().split("\t")
    (whole,) = read_mmbench(path)
    path.write_text("\t".join([*cells, f'"{image[:20]}\n{image[20:]}\n"']) + "\n")
    assert read_mmbench(path) == [whole]


def test_all_rounds_rotate_the_texts_and_keep_the_shown_letters(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.tsv", ("7", "Which?", "", "x", "y", "z", ""))
    rounds = read_mmbench(path, all_rounds=True, asks_letter=False)
    assert [one.before["round_id"] for one in rounds] == [0, 1, 2]
    assert rounds[1].text == "Which?\nA. y\nB. z\nC. x"
    assert rounds[1].after == {"options": ["y", "z", "x"], "option_char": ["B", "C", "A"]}


def test_q_bench_keeps_the_trailing_line_break_and_the_chinese_backslash(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    path.write_text(json.dumps([{"img_path": "a.png", "question": "Sharp?", "candidates": ["Yes", "No"]}]))
    (question,) = read_qbench(path, "folder/")
    assert question.text == "Sharp?\nChoose between one of the options as follows:\nA. Yes\nB. No\n"
    assert (question.images, question.view) == ((Path("folder/a.png"),), "center_crop")
    assert read_qbench(path, "x", lang="zh")[0].text == "Sharp?\\在下列选项中选择一个:\nA. Yes\nB. No\n"
    with pytest.raises(UsageError, match="the language is 'fr'"):
        read_qbench(path, "x", lang="fr")


def test_chunks_are_the_originals_slices_and_further_ones_are_empty() -> None:
    assert [take_chunk([1, 2, 3, 4, 5], 4, k) for k in range(4)] == [[1, 2], [3, 4], [5], []]
    with pytest.raises(UsageError, match="The chunk is 4 of 4"):
        take_chunk([1], 4, 4)
