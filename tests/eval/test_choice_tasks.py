"""Whole runs of MMBench, MMMU, AI2D, Q-Bench and MathVista: from a benchmark's files to its published score."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llava.cli import main
from llava.data.prompts import LETTER, ONE_DECIMAL
from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.task import Question, check, resolve
from llava.eval.task_score import ScoringOptions, TaskScore

GOLD = json.loads((Path(__file__).parents[1] / "gold/eval/choices.json").read_text(encoding="utf-8"))
PLAIN, DICE = ScoringOptions(), ScoringOptions(throws_dice=True)
IMAGE = {"bytes": b"first image", "path": None}
SECOND = {"bytes": b"second image", "path": None}


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = "index question hint A B C D answer category image source l2-category comment split".split()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, "", delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"image": "iVBORw0KGgo=", "split": "dev", **row} for row in rows)


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def run(name: str, data: Path, texts: list[str], options: ScoringOptions = PLAIN) -> TaskScore:
    questions, _ = check(TASKS[name], data, is_partial=True)
    return resolve(TASKS[name].score)(questions, texts, data, options)


def read_images(question: Question) -> list[bytes]:
    return [image.read() for image in question.images if not isinstance(image, bytes | Path)]


# MMBench


@pytest.fixture(scope="module")
def mmbench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("mmbench")
    write_table(data / "mmbench/mmbench_dev_20230712.tsv", GOLD["mmbench"]["rows"])
    return data


def test_circular_accuracy_is_vlmevalkits_without_a_judge(mmbench: Path) -> None:
    score = run("mmbench", mmbench, [row["prediction"] for row in GOLD["mmbench"]["rows"]])
    assert score.headline == "circular accuracy"
    assert score.scores["circular accuracy"] == pytest.approx(100 * GOLD["mmbench"]["VLMEvalKit"])
    assert score.scores["accuracy of rows"] > score.scores["circular accuracy"]
    assert score.readings["bare letter"] < score.scores["circular accuracy"]
    assert "could not be read and count as wrong" in score.notes[0]
    assert len(score.answers) == len(GOLD["mmbench"]["rows"])


def test_lmms_evals_circular_accuracy_is_thrown_with_its_dice(mmbench: Path) -> None:
    overall, by_category, _ = GOLD["mmbench"]["lmms-eval with dice"]
    texts = [row["prediction"] for row in GOLD["mmbench"]["rows"]]
    assert run("mmbench", mmbench, texts, DICE).readings["lmms-eval"] == pytest.approx(100 * overall)
    assert run("mmbench", mmbench, texts).readings["lmms-eval"] < 100 * overall
    assert len(by_category) == 3


def test_the_order_of_the_rows_does_not_change_the_score(mmbench: Path, tmp_path: Path) -> None:
    rows = list(reversed(GOLD["mmbench"]["rows"]))
    write_table(tmp_path / "mmbench/mmbench_dev_20230712.tsv", rows)
    texts = [row["prediction"] for row in rows]
    there = run("mmbench", mmbench, texts[::-1], DICE)
    here = run("mmbench", tmp_path, texts, DICE)
    assert (here.scores, here.readings, here.categories) == (there.scores, there.readings, there.categories)


def test_a_letter_shown_in_a_later_round_is_mapped_to_the_original_one(tmp_path: Path) -> None:
    from llava.eval.question_files import read_mmbench

    path = tmp_path / "mmbench/mmbench_dev_20230712.tsv"
    write_table(path, [{"index": 0, "question": "?", "A": "red", "B": "green", "C": "blue", "answer": "B"}])
    questions = read_mmbench(path, all_rounds=True)
    assert [question.after["option_char"] for question in questions] == [list("ABC"), list("BCA"), list("CAB")]
    score = resolve(TASKS["mmbench"].score)(questions, ["B", "A", "C"], tmp_path, ScoringOptions())
    assert [answer.reading for answer in score.answers] == ["B", "B", "B"]
    assert score.scores == {"circular accuracy": 100.0, "accuracy of rows": 100.0}
    by_text = resolve(TASKS["mmbench"].score)(questions, ["green", "green", "A. green"], tmp_path, ScoringOptions())
    assert [answer.score for answer in by_text.answers] == [1, 1, 0]


def test_an_option_called_none_is_no_option_and_said(tmp_path: Path) -> None:
    row = {"index": 5, "question": "?", "A": "red", "B": "None", "C": "nan", "D": "none"}
    write_table(
        tmp_path / "mmbench/mmbench_dev_20230712.tsv", [{**row, "answer": "B"}, {**row, "index": 6, "answer": "D"}]
    )
    score = run("mmbench", tmp_path, ["B", "D"])
    assert [(answer.reading, answer.score) for answer in score.answers] == [(None, 0.0), ("D", 1.0)]
    assert any(
        "right option of 1 rows is an empty cell, 'None' or 'nan', such as index 5" in note for note in score.notes
    )
    assert any("fewer rotations" in note for note in score.notes)


@pytest.mark.parametrize("answer", ["", "E", "?", "AB"])
def test_a_table_without_answers_is_refused(answer: str, tmp_path: Path) -> None:
    write_table(
        tmp_path / "mmbench/mmbench_dev_20230712.tsv",
        [{"index": 5, "question": "?", "A": "red", "B": "blue", "answer": answer}],
    )
    with pytest.raises(UsageError, match="only the dev split is published with its answers"):
        run("mmbench", tmp_path, ["A"])


def test_rows_whose_first_row_was_not_asked_are_left_out_and_said(mmbench: Path) -> None:
    questions, _ = check(TASKS["mmbench"], mmbench, is_partial=True)
    later = [question for question in questions if question.id == 1_000_000] + questions[:1]
    kept = [question for question in questions if question.id == 1_000_001]
    score = resolve(TASKS["mmbench"].score)([*later, *kept], ["A"] * 3, mmbench, ScoringOptions(is_partial=True))
    assert any("1 questions are left out, since their first row was not asked" in note for note in score.notes)
    assert len(score.answers) == 2
    with pytest.raises(UsageError, match="Of no question the first row was asked"):
        resolve(TASKS["mmbench"].score)(kept, ["A"], mmbench, ScoringOptions(is_partial=True))


def test_mmbench_questions_of_another_table_are_refused(mmbench: Path) -> None:
    question = Question(77_777, (b"",), "?", "?")
    with pytest.raises(UsageError, match="has no row with the index 77777: the questions are of another version"):
        resolve(TASKS["mmbench"].score)([question], ["A"], mmbench, ScoringOptions())


def test_mmbench_cn_reads_its_own_table(tmp_path: Path) -> None:
    rows = [{"index": 1, "question": "?", "A": "\u7ea2", "B": "\u84dd", "answer": "B", "L2-category": "x"}]
    write_table(tmp_path / "mmbench_cn/mmbench_dev_cn_20231003.tsv", rows)
    score = run("mmbench_cn", tmp_path, ["\u84dd"])
    assert score.scores["accuracy of rows"] == 100.0
    assert score.answers[0].references == ("B", "\u84dd")


def test_llava_eval_score_prints_circular_accuracy_and_writes_the_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"index": 3, "question": "?", "A": "red", "B": "blue", "answer": "A", "category": "color"},
        {"index": 1_000_003, "question": "?", "A": "blue", "B": "red", "answer": "B", "category": "color"},
    ]
    write_table(tmp_path / "mmbench/mmbench_dev_20230712.tsv", rows)
    monkeypatch.setitem(TASKS, "mmbench", replace(TASKS["mmbench"], count=2))
    answers = [{"question_id": row["index"], "round_id": 0, "text": row["answer"]} for row in rows]
    answers.append({"question_id": 3, "round_id": 1, "text": "B"})  # of --all-rounds
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in answers))
    assert main(["eval", "score", "mmbench", str(path), "--data", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "mmbench: circular accuracy 100.00 (2 answers" in printed.out
    assert "categories  color 100.00 of 1" in printed.out
    assert "1 answers in" in printed.out
    assert "1 answers in" in printed.err
    sheet = openpyxl.load_workbook(tmp_path / "answers.xlsx").active
    assert [sheet.cell(row, 7).value for row in (1, 2, 3)] == ["prediction", "A", "B"]


# MMMU


def write_mmmu(data: Path, rows: list[dict[str, Any]], shards: int = 1) -> None:
    empty = {f"image_{i}": None for i in range(1, 8)} | {"image_1": IMAGE, "image_2": SECOND}
    full = [{"question": "What is <image 1>?", **empty, **row} for row in rows]
    for row in full:
        row.pop("said", None)
    size = -(-len(full) // shards)
    for i in range(shards):
        part = full[i * size : (i + 1) * size]
        table = pa.Table.from_pylist(part)
        for name in (f"image_{j}" for j in range(3, 8)):  # null columns as `datasets` types them
            place = table.schema.get_field_index(name)
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            table = table.set_column(place, name, pa.nulls(len(part), kind))
        path = data / f"mmmu/data/validation-{i:05}-of-{shards:05}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)


def test_mmmu_is_scored_as_its_own_scorer_does_with_its_dice(tmp_path: Path) -> None:
    rows = GOLD["mmmu_run"]["rows"]
    write_mmmu(tmp_path, rows, shards=3)
    texts = [row["said"] for row in rows]
    thrown = run("mmmu", tmp_path, texts, DICE)
    assert thrown.scores["accuracy"] == pytest.approx(100 * GOLD["mmmu_run"]["overall"])
    for subject, accuracy in GOLD["mmmu_run"]["subjects"].items():
        assert thrown.categories[subject] == (pytest.approx(100 * accuracy), 20)
    assert list(thrown.categories)[:2] == ["Art and Design", "Art_Theory"]
    score = run("mmmu", tmp_path, texts)
    assert score.scores["accuracy"] < thrown.scores["accuracy"]
    unread = [answer for answer in score.answers if answer.reading is None]
    thrown_ones = [answer for answer in thrown.answers if answer.note == "thrown by dice"]
    assert 0 < len(thrown_ones) <= len(unread)
    assert f"{len(thrown_ones)} of {len(rows)} answers could not be read and count as wrong" in score.notes[0]


def test_mmmu_is_asked_as_lmms_eval_asks_it(tmp_path: Path) -> None:
    row = {"id": "validation_Art_1", "question_type": "multiple-choice", "options": "['<image 2>', 'a', 'b']"}
    rows = [
        {**row, "answer": "A", "question": "Which is like <image 1>?"},
        {**row, "id": "validation_Art_2", "question_type": "open", "options": "[]", "answer": "5", "question": "Why?"},
    ]
    write_mmmu(tmp_path, rows)
    choice, open_one = check(TASKS["mmmu"], tmp_path, is_partial=True)[0]
    assert choice.text == f"Which is like <image 1>?\nA. <image 2>\nB. a\nC. b\n\n{LETTER}"
    assert read_images(choice) == [b"first image", b"second image"]
    assert "1 questions have several images, each on its own line" in run("mmmu", tmp_path, ["A", "5"]).notes[-1]
    assert open_one.text == "Why?\n\nAnswer the question using a single word or phrase."
    assert open_one.images == ()


def test_mmmus_own_script_shows_the_first_image_and_brackets_the_letters(tmp_path: Path) -> None:
    row = {"id": "validation_Art_1", "question_type": "multiple-choice", "options": "['<image 2>', 'a']", "answer": "B"}
    write_mmmu(tmp_path, [row, {**row, "id": "validation_Art_2", "question_type": "open", "options": "[]"}])
    choice, open_one = check(TASKS["mmmu_own"], tmp_path, is_partial=True)[0]
    assert choice.text == f"What is <image 1>?\n\n(A) <image 2>\n(B) a\n\n\n{LETTER}"
    assert open_one.text == "What is <image 1>?\n\nAnswer the question using a single word or phrase."
    assert read_images(choice) == read_images(open_one) == [b"first image"]
    assert run("mmmu_own", tmp_path, ["(B)", "b"]).scores["accuracy"] == 100.0


def test_mmmu_without_published_answers_and_of_another_version_is_refused(tmp_path: Path) -> None:
    row = {"id": "validation_Art_1", "question_type": "multiple-choice", "options": "['x', 'y']", "answer": "?"}
    write_mmmu(tmp_path, [row])
    with pytest.raises(UsageError, match="answers of MMMU's test split are not published"):
        run("mmmu", tmp_path, ["A"])
    write_mmmu(tmp_path, [{**row, "answer": "A"}])
    stranger = Question("validation_Art_9", (), "?", "?")
    with pytest.raises(UsageError, match="has no question 'validation_Art_9'"):
        resolve(TASKS["mmmu"].score)([stranger], ["A"], tmp_path, ScoringOptions())
    write_mmmu(tmp_path, [{**row, "options": "no list"}])
    with pytest.raises(UsageError, match=r"Row 0 of .* has no list of options, but 'no list'"):
        check(TASKS["mmmu"], tmp_path, is_partial=True)


def test_a_missing_shard_and_an_image_that_is_not_there_are_named(tmp_path: Path) -> None:
    row = {"id": "validation_Art_1", "question_type": "multiple-choice", "options": "['x']", "answer": "A"}
    write_mmmu(tmp_path, [row, {**row, "id": "validation_Art_2", "question": "<image 3>?"}], shards=2)
    with pytest.raises(UsageError, match=r"1 images cannot be read\. The image in row 1 of .* holds no bytes"):
        check(TASKS["mmmu"], tmp_path, is_partial=True)
    (tmp_path / "mmmu/data/validation-00000-of-00002.parquet").unlink()
    with pytest.raises(UsageError, match=r"1 of the 2 files .* are missing, the first of them number 00000"):
        check(TASKS["mmmu"], tmp_path, is_partial=True)
    (tmp_path / "mmmu/data/validation-00001-of-00002.parquet").unlink()
    with pytest.raises(
        UsageError,
        match=r"mmmu: .*mmmu/data/validation-\*\.parquet' is missing: https://huggingface.co/datasets/lmms-lab/MMMU",
    ):
        check(TASKS["mmmu"], tmp_path, is_partial=True)


# AI2D


def test_ai2d_is_numbered_and_scored_over_its_shards(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{i}?", "options": ["a dog", "None", "nan"], "answer": str(i % 3), "image": IMAGE}
        for i in range(4)
    ]
    write_parquet(tmp_path / "ai2d/data/test-00000-of-00002.parquet", rows[:3])
    write_parquet(tmp_path / "ai2d/data/test-00001-of-00002.parquet", rows[3:])
    questions, _ = check(TASKS["ai2d"], tmp_path, is_partial=True)
    assert [question.id for question in questions] == [0, 1, 2, 3]
    assert questions[0].text == f"q0?\nA. a dog\nB. None\nC. nan\n{LETTER}"
    score = run("ai2d", tmp_path, ["(a)", "B) None", "C. nan", ""])
    assert [answer.score for answer in score.answers] == [1, 0, 1, 0]
    assert score.scores == {"accuracy": 50.0}
    assert score.readings == {"VLMEvalKit": 50.0, "bare letter": 0.0}
    assert "2 of 4 answers could not be read" in score.notes[0]
    with pytest.raises(UsageError, match="has another question at row 0: the questions are of another version"):
        resolve(TASKS["ai2d"].score)([replace(questions[0], prompt="else")], ["A"], tmp_path, ScoringOptions())


# Q-Bench


@pytest.mark.parametrize("name", ["qbench", "qbench_zh"])
def test_q_bench_is_scored_by_form_and_concern(name: str, tmp_path: Path) -> None:
    row = {"img_path": "a.png", "question": "?", "candidates": ["good", "bad"], "correct_ans": "bad"}
    rows = [{**row, "type": i % 3, "concern": i % 4} for i in range(4)]
    questions = [Question(f"{i}.png", (), "?", "?", row=one) for i, one in enumerate(rows)]
    score = resolve(TASKS[name].score)(questions, ["B. bad", "bad", "(A) or (B)", "B"], tmp_path, ScoringOptions())
    assert [answer.reading for answer in score.answers] == ["B", None, "B", "B"]
    assert score.scores == {"accuracy": 75.0}
    assert score.readings == {"first letter": 50.0, "VLMEvalKit": 75.0}
    assert score.categories["Yes/No"] == (100.0, 2)
    assert score.categories["Global Others"] == (0.0, 1)
    dice = resolve(TASKS[name].score)(questions, [""] * 4, tmp_path, DICE)
    assert [answer.score for answer in dice.answers] == [0.0] * 4
    assert "have no seed of their own" in dice.notes[-1]
    lacking = replace(questions[0], row={"candidates": ["good"]})
    with pytest.raises(UsageError, match="has no 'correct_ans': only the dev split"):
        resolve(TASKS[name].score)([lacking], ["A"], tmp_path, ScoringOptions())


# MathVista


def test_math_vista_is_asked_and_scored_by_what_it_says_of_a_question(tmp_path: Path) -> None:
    about = {"task": "figure question answering", "skills": ["numeric common sense", "arithmetic"], "split": "testmini"}
    row = {"question": "How much?", "unit": None, "decoded_image": IMAGE, "metadata": about, "choices": None}
    row |= {"question_type": "free_form", "answer_type": "float", "precision": 1.0, "answer": "0.6"}
    choice = {"question_type": "multi_choice", "answer_type": "text", "choices": ["yes", "None"], "precision": None}
    choice["answer"] = "None"
    rows = [{**row, "pid": "1", "unit": "$"}, {**row, **choice, "pid": "2"}, {**row, **choice, "pid": "3"}]
    write_parquet(tmp_path / "mathvista/data/testmini-00000-of-00001-725687bf7a18d64b.parquet", rows)
    questions, _ = check(TASKS["mathvista"], tmp_path, is_partial=True)
    assert questions[0].text == f"How much? (Unit: $)\n{ONE_DECIMAL}"
    assert questions[1].text == f"How much?\nA. yes\nB. None\n{LETTER}"
    texts = [".6", "B", "The answer would be none of these"]
    score = run("mathvista", tmp_path, texts)
    assert [answer.score for answer in score.answers] == [1, 1, 0]
    assert score.categories["skills: arithmetic"] == (pytest.approx(200 / 3), 3)
    assert score.categories["question_type: multi_choice"] == (50.0, 2)
    assert "1 of 3 responses are more than an answer, which MathVista has GPT-4 extract" in score.notes[0]
    assert run("mathvista", tmp_path, texts, DICE).answers[2].reading == "yes"  # the shorter choice is nearer to ""
    write_parquet(
        tmp_path / "mathvista/data/testmini-00000-of-00001-725687bf7a18d64b.parquet", [{**rows[0], "answer": ""}]
    )
    with pytest.raises(UsageError, match="answers of MathVista's test split are not published"):
        run("mathvista", tmp_path, ["1"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question_type": "free_form"}, "the question type 'free_form' with the answer type 'text'"),
        ({"answer_type": "integer"}, "the question type 'multi_choice' with the answer type 'integer'"),
        ({"question_type": "free_form", "answer_type": "float", "precision": 3.0}, "'float' with precision 3.0"),
        ({"choices": []}, r"has '\[\]' as 'choices'"),
        ({"choices": "A"}, "has 'A' as 'choices'"),
        ({"question": None}, "has 'None' as 'question'"),
        ({"unit": 5}, "has '5' as 'unit'"),
        ({"pid": 5}, "has '5' as 'pid'"),
    ],
)
def test_a_row_of_math_vista_with_a_wrong_value_is_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    row = {"pid": "1", "question": "?", "decoded_image": IMAGE, "choices": ["a", "b"], "unit": None, "precision": 1.0}
    row |= {"question_type": "multi_choice", "answer_type": "text", "answer": "a", "metadata": {"task": "x"}}
    write_parquet(tmp_path / "mathvista/data/testmini-00000-of-00001.parquet", [{**row, **change}])
    with pytest.raises(UsageError, match=rf"Row 0 of .*{said}"):
        check(TASKS["mathvista"], tmp_path, is_partial=True)


@pytest.mark.parametrize(
    "name", ["mmbench", "mmbench_cn", "mmmu", "mmmu_own", "ai2d", "qbench", "qbench_zh", "mathvista"]
)
def test_the_table_names_scorers_that_exist(name: str) -> None:
    assert callable(resolve(TASKS[name].scorer))
    assert callable(resolve(TASKS[name].score))
