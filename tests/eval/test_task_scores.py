"""A benchmark's score over a whole run is the published scorer's, in every reading; other files are refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llava.errors import UsageError
from llava.eval.benchmark_table import TASKS
from llava.eval.parquet_shards import find_shards
from llava.eval.scoring.ocr_bench import QUESTION_TYPES
from llava.eval.task import Question, check, resolve
from llava.eval.task_score import ScoringOptions, TaskScore
from tests.eval.parquet_split import draw, write_split

GOLD = Path(__file__).parents[1] / "gold/eval"
SHORT = json.loads((GOLD / "short_answers.json").read_text(encoding="utf-8"))
COMMANDS = json.loads((GOLD / "short_answer_commands.json").read_text(encoding="utf-8"))
RED = draw("red")


def cases_of(family: str, first: str) -> list[tuple[list[Any], dict[str, float]]]:
    """Gold cases that the published scorer of the headline takes, with the score of each reading."""
    readings = SHORT[family]["readings"]
    rows = [(case, dict(zip(readings, scores, strict=True))) for case, scores in SHORT[family]["cases"]]
    return [(case, scores) for case, scores in rows if not isinstance(scores[first], str)]


def mean(scores: Sequence[dict[str, float]], reading: str) -> float:
    return 100 * sum(row[reading] for row in scores) / len(scores)


def score(name: str, questions: Sequence[Question], texts: Sequence[str], data: Path, **options: bool) -> TaskScore:
    found: TaskScore = resolve(TASKS[name].score)(questions, texts, data, ScoringOptions(**options))
    return found


def ask(name: str, data: Path) -> list[Question]:
    return check(TASKS[name], data, is_partial=True, needs_images=False)[0]


def texts_of_people(people: list[Any]) -> list[str]:
    return [said["answer"] if isinstance(said, dict) else said for said in people]


def test_textvqa_is_scored_as_by_each_published_scorer(tmp_path: Path) -> None:
    cases = [(case, scores) for case, scores in cases_of("vqa", "m4c") if texts_of_people(case[1]) == case[1]]
    assert len(cases) >= 60
    (tmp_path / "textvqa").mkdir()
    rows = [{"image_id": f"{i}", "question": "What?", "answers": case[1]} for i, (case, _) in enumerate(cases)]
    (tmp_path / "textvqa/TextVQA_0.5.1_val.json").write_text(json.dumps({"data": rows}))
    prompt = "What?\nReference OCR token: a, b\nAnswer the question using a single word or phrase."
    questions = [Question(row["image_id"], (), prompt, prompt) for row in rows]
    found = score("textvqa", questions, [case[0] for case, _ in cases], tmp_path)
    scores = [row for _, row in cases]
    assert found.scores == {"accuracy": pytest.approx(mean(scores, "m4c"))}
    assert found.readings == {name: pytest.approx(mean(scores, name)) for name in SHORT["vqa"]["readings"]}
    assert [answer.score for answer in found.answers] == [row["m4c"] for row in scores]
    assert len(set(found.readings.values())) >= 4


def test_textvqa_prints_what_the_originals_command_prints(tmp_path: Path) -> None:
    gold = COMMANDS["commands"]["eval_textvqa"]
    files = {Path(path).name: COMMANDS["texts"][number] for path, number in gold["files"].items()}
    answers = next(text for name, text in files.items() if name.endswith(".jsonl"))
    (tmp_path / "textvqa").mkdir()
    annotations = next(text for name, text in files.items() if name.endswith(".json"))
    (tmp_path / "textvqa/TextVQA_0.5.1_val.json").write_text(annotations, encoding="utf-8")
    rows = [json.loads(line) for line in answers.splitlines()]
    questions = [Question(row["question_id"], (), row["prompt"], row["prompt"]) for row in rows]
    found = score("textvqa", questions, [row["text"] for row in rows], tmp_path)
    assert f"Accuracy: {found.scores['accuracy']:.2f}%" in gold["stdout"]


def test_gqa_is_scored_as_the_official_script_scores_it(tmp_path: Path) -> None:
    gold = COMMANDS["commands"]["eval_gqa"]
    files = {Path(path).stem: COMMANDS["texts"][number] for path, number in gold["files"].items()}
    (tmp_path / "gqa/data").mkdir(parents=True)
    annotations = files["testdev_balanced_questions"]
    (tmp_path / "gqa/data/testdev_balanced_questions.json").write_text(annotations, encoding="utf-8")
    given = {row["questionId"]: row["prediction"] for row in json.loads(files["testdev_balanced_predictions"])}
    known = json.loads(annotations)
    questions = [Question(key, (), "?", "?") for key in given if key in known]
    texts = [given[question.id] for question in questions]
    found = score("gqa", questions, texts, tmp_path)
    printed = gold["stdout"]
    for name in ("accuracy", "binary", "open"):
        assert f"\n{name.capitalize()}: {found.scores[name]:.2f}%" in printed
    assert f"Distribution: {found.scores['distribution']:.2f} (" in printed
    for name, (share, count) in found.categories.items():
        assert f"  {name.split(': ')[1]}: {share:.2f}% ({count} questions)" in printed
    assert len(found.answers) == sum(row["isBalanced"] for row in known.values())
    with pytest.raises(UsageError, match=r"1 of .* questions have no prediction"):
        score("gqa", questions[1:], texts[1:], tmp_path)
    balanced = [question for question in questions if known[question.id]["isBalanced"]]
    part = score("gqa", balanced[:5], [given[question.id] for question in balanced[:5]], tmp_path, is_partial=True)
    assert len(part.answers) == 5
    with pytest.raises(UsageError, match=r"1 questions are not in .* the first of them 'x': it is of another split"):
        score("gqa", [*questions, Question("x", (), "?", "?")], [*texts, "no"], tmp_path)


def test_gqas_readings_are_the_published_ones(tmp_path: Path) -> None:
    cases = cases_of("gqa", "official")
    row = {"isBalanced": True, "question": "a", "semantic": [], "groups": {"global": None}, "types": {}}
    row["types"] = {"structural": "query", "semantic": "attr", "detailed": "x"}
    rows = {str(i): {**row, "answer": case[1][0]} for i, (case, _) in enumerate(cases)}
    (tmp_path / "gqa/data").mkdir(parents=True)
    (tmp_path / "gqa/data/testdev_balanced_questions.json").write_text(json.dumps(rows))
    found = score("gqa", [Question(key, (), "?", "?") for key in rows], [case[0] for case, _ in cases], tmp_path)
    scores = [given for _, given in cases]
    assert found.readings == {name: pytest.approx(mean(scores, name)) for name in ("official", "lmms-eval")}
    assert found.scores["accuracy"] == pytest.approx(found.readings["official"])


def test_vqav2_val_is_read_from_the_teams_files_and_scored_as_submitted(tmp_path: Path) -> None:
    cases = cases_of("vqa", "vqa-submitted")
    kinds = ("yes/no", "number", "other")
    questions = [{"image_id": 7, "question": f"Is it {i}?", "question_id": i} for i in range(len(cases))]
    rows = [
        {
            "question_id": i,
            "answer_type": kinds[i % 3],
            "answers": [
                said if isinstance(said, dict) else {"answer": said, "answer_id": n}
                for n, said in enumerate(case[1], 1)
            ],
        }
        for i, (case, _) in enumerate(cases)
    ]
    (tmp_path / "vqav2").mkdir()
    (tmp_path / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": questions}))
    path = tmp_path / "vqav2/v2_mscoco_val2014_annotations.json"
    path.write_text(json.dumps({"annotations": rows[::-1]}))
    asked = ask("vqav2_val", tmp_path)
    assert asked[3].images == (tmp_path / "vqav2/val2014/COCO_val2014_000000000007.jpg",)
    assert asked[3].text == "Is it 3?\nAnswer the question using a single word or phrase."
    found = score("vqav2_val", asked, [case[0] for case, _ in cases], tmp_path)
    scores = [given for _, given in cases]
    assert found.scores == {"accuracy": pytest.approx(mean(scores, "vqa-submitted"))}
    assert found.readings["vqa-team"] == pytest.approx(mean(scores, "vqa-team"))
    assert list(found.categories) == list(kinds)
    # Not ten people: the reading that wants ten of them is left out, and that is said.
    assert "m4c" not in found.readings
    assert any("The reading m4c is left out" in note for note in found.notes)
    path.write_text(json.dumps({"annotations": rows[1:]}))
    with pytest.raises(UsageError, match=r"has no answers to 1 of the .* the first of them 0: it is of another split"):
        score("vqav2_val", asked, [case[0] for case, _ in cases], tmp_path)
    path.write_text(json.dumps({"annotations": [{"question_id": 0, "answer_type": "other", "answers": ["a"]}]}))
    with pytest.raises(UsageError, match=r"Question 0 in .* has no list of answers with 'answer'"):
        score("vqav2_val", asked[:1], ["a"], tmp_path)


def test_vizwiz_val_is_read_from_its_own_file_and_scored(tmp_path: Path) -> None:
    cases = cases_of("vqa", "lmms-eval-textvqa")
    rows = [
        {
            "image": f"VizWiz_val_{i:08d}.jpg",
            "question": "What is this?",
            "answers": [{"answer": text, "answer_confidence": "yes"} for text in texts_of_people(case[1])],
            "answer_type": "unanswerable" if i % 2 else "other",
            "answerable": 1,
        }
        for i, (case, _) in enumerate(cases)
    ]
    (tmp_path / "vizwiz").mkdir()
    (tmp_path / "vizwiz/val.json").write_text(json.dumps(rows))
    asked = ask("vizwiz_val", tmp_path)
    assert asked[1].id == "VizWiz_val_00000001.jpg"
    assert "respond with 'Unanswerable'.\nAnswer the question" in asked[1].text
    found = score("vizwiz_val", asked, [case[0] for case, _ in cases], tmp_path)
    assert found.scores == {"accuracy": pytest.approx(mean([given for _, given in cases], "lmms-eval-textvqa"))}
    assert sum(count for _, count in found.categories.values()) == len(cases)
    (tmp_path / "vizwiz/val.json").write_text(json.dumps({"rows": rows}))
    with pytest.raises(UsageError, match="holds no list of objects"):
        ask("vizwiz_val", tmp_path)


@pytest.mark.parametrize(("name", "folder"), [("docvqa", "docvqa/DocVQA"), ("infovqa", "infovqa/InfographicVQA")])
def test_documents_are_read_from_shards_and_scored_by_all_five_anls(tmp_path: Path, name: str, folder: str) -> None:
    cases = cases_of("anls", "lmms-eval")
    kinds = {"docvqa": ("question_types", ["form", "table/list"]), "infovqa": ("answer_type", "single span")}
    key, kind = kinds[name]
    rows = [
        {"questionId": str(100 + i), "question": f"What {i}?", "answers": case[1], "image": RED, key: kind}
        for i, (case, _) in enumerate(cases)
    ]
    write_split(tmp_path / folder, "validation", rows)
    asked = ask(name, tmp_path)
    assert [question.id for question in asked] == [row["questionId"] for row in rows]
    assert asked[40].text == "What 40?\nAnswer the question using a single word or phrase."
    found = score(name, asked, [case[0] for case, _ in cases], tmp_path)
    scores = [given for _, given in cases]
    assert found.scores == {"anls": pytest.approx(mean(scores, "lmms-eval"))}
    for reading in SHORT["anls"]["readings"]:
        # Where a published scorer divides by zero, two empty texts are equal here.
        known = [100.0 if isinstance(row[reading], str) else 100 * row[reading] for row in scores]
        assert found.readings[reading] == pytest.approx(sum(known) / len(known))
    assert set(found.categories) == ({"form", "table/list"} if name == "docvqa" else {"single span"})


def test_chartqa_is_scored_by_split(tmp_path: Path) -> None:
    cases = [(case, scores) for case, scores in cases_of("relaxed", "lmms-eval") if len(case[1]) == 1]
    assert len(cases) >= 60
    rows = [
        {
            "type": "augmented_test" if i % 3 else "human_test",
            "question": "How many?",
            "answer": case[1][0],
            "image": RED,
        }
        for i, (case, _) in enumerate(cases)
    ]
    write_split(tmp_path / "chartqa/data", "test", rows, num_shards=1)
    asked = ask("chartqa", tmp_path)
    assert asked[5].text == "How many?\nAnswer the question with a single word."
    assert [question.id for question in asked] == list(range(len(rows)))
    found = score("chartqa", asked, [case[0] for case, _ in cases], tmp_path)
    scores = [given for _, given in cases]
    assert found.scores["relaxed_overall"] == pytest.approx(mean(scores, "lmms-eval"))
    assert found.scores["relaxed_human_split"] == pytest.approx(mean(scores[::3], "lmms-eval"))
    assert found.readings["vlmevalkit"] == pytest.approx(mean(scores, "vlmevalkit"))
    assert any("not the same size" in note for note in found.notes)
    write_split(tmp_path / "chartqa/data", "test", [{**rows[0], "type": "val"}], num_shards=1)
    with pytest.raises(UsageError, match=r"Row 0 of .* has the type 'val'; there are: human_test, augmented_test"):
        score("chartqa", asked[:1], ["3"], tmp_path)


def test_ocrbench_adds_up_to_points(tmp_path: Path) -> None:
    cases = cases_of("ocrbench", "ocrbench-team")
    rows = [
        {
            "dataset": case[2] if len(case) == 3 else "IIIT5K",
            "question": " what is written? ",
            "question_type": QUESTION_TYPES[i % len(QUESTION_TYPES)],
            "answer": case[1],
            "image": RED,
        }
        for i, (case, _) in enumerate(cases)
    ]
    write_split(tmp_path / "ocrbench/data", "test", rows)
    asked = ask("ocrbench", tmp_path)
    found = score("ocrbench", asked, [case[0] for case, _ in cases], tmp_path)
    scores = [given for _, given in cases]
    assert found.scores["Final Score"] == sum(row["ocrbench-team"] for row in scores)
    assert found.readings["lmms-eval"] == pytest.approx(sum(row["lmms-eval"] for row in scores))
    assert list(found.categories) == list(QUESTION_TYPES)
    assert found.scores["Text Recognition"] == sum(found.scores[name] for name in QUESTION_TYPES[:6])


def test_a_split_of_shards_is_whole_or_refused(tmp_path: Path) -> None:
    row = {"questionId": "1", "question": "?", "answers": ["a"], "image": RED}
    folder = tmp_path / "docvqa/DocVQA"
    with pytest.raises(
        UsageError, match=r"validation-\*\.parquet' is missing: https://huggingface.co/datasets/lmms-lab"
    ):
        ask("docvqa", tmp_path)
    paths = write_split(folder, "validation", [{**row, "questionId": str(i)} for i in range(8)], num_shards=3)
    assert find_shards(folder / "validation-*.parquet") == paths
    paths[1].rename(tmp_path / "away")
    with pytest.raises(UsageError, match=r"1 of the 3 files .* are missing, the first of them number 00001"):
        ask("docvqa", tmp_path)
    (tmp_path / "away").rename(paths[1])
    (folder / "validation-00000-of-00002.parquet").write_bytes(paths[0].read_bytes())
    with pytest.raises(UsageError, match="not one set of numbered shards"):
        ask("docvqa", tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"question": None}, r"Row 3 of .* has 'None' as 'question'"),
        ({"questionId": None}, r"Row 3 of .* has 'None' as 'questionId'"),
        ({"questionId": "0"}, "1 ids occur more than once"),
        ({"image": None}, r"1 images cannot be read\. The image in row 3 of .* holds no bytes"),
    ],
)
def test_a_damaged_row_is_named_before_a_model_is_loaded(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    rows: list[dict[str, Any]] = [
        {"questionId": str(i), "question": "?", "answers": ["a"], "image": RED} for i in range(5)
    ]
    rows[3] |= change
    write_split(tmp_path / "docvqa/DocVQA", "validation", rows, num_shards=1)
    with pytest.raises(UsageError, match=said):
        check(TASKS["docvqa"], tmp_path, is_partial=True)


def test_a_shard_of_another_data_set_or_half_a_download_is_named(tmp_path: Path) -> None:
    (path,) = write_split(tmp_path / "docvqa/DocVQA", "validation", [{"id": 1, "image": RED}], num_shards=1)
    with pytest.raises(UsageError, match="has no column 'questionId'; it has: id, image"):
        ask("docvqa", tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UsageError, match="is damaged or cut off"):
        ask("docvqa", tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UsageError, match="is a Git LFS pointer"):
        ask("docvqa", tmp_path)


def test_equal_images_of_a_split_are_one_image(tmp_path: Path) -> None:
    colors = ["red", "blue", "red", "red", "blue"]
    rows = [
        {"questionId": str(i), "question": "?", "answers": ["a"], "image": draw(color)}
        for i, color in enumerate(colors)
    ]
    write_split(tmp_path / "docvqa/DocVQA", "validation", rows)
    questions, _ = check(TASKS["docvqa"], tmp_path, is_partial=True)
    assert len({question.images for question in questions}) == 2
    assert questions[0].images == questions[3].images
    assert questions[4].images[0].read() == draw("blue")


@pytest.mark.parametrize("value", ["[]", "{", '{"data": {}}', "[{}]", "3"])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("textvqa", "textvqa/TextVQA_0.5.1_val.json"),
        ("gqa", "gqa/data/testdev_balanced_questions.json"),
        ("vqav2_val", "vqav2/v2_mscoco_val2014_annotations.json"),
        ("vizwiz_val", "vizwiz/val.json"),
    ],
)
def test_an_annotation_file_of_another_form_is_refused(tmp_path: Path, name: str, path: str, value: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(value)
    prompt = "What?\nAnswer the question using a single word or phrase."
    with pytest.raises(UsageError, match=re.escape(Path(path).name)):
        score(name, [Question("1", (), prompt, prompt)], ["a"], tmp_path)
