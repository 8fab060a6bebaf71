"""Damaged files of POPE, MME, SEED-Bench and ScienceQA are named, or counted, and never scored in silence."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava.eval import eval_pope, eval_science_qa
from tests.eval.test_choice_commands import COMMANDS as OLDER
from tests.eval.test_choice_runs import COMMANDS, GOLD, MODULES

Change = Callable[[str], str]


def edit_row(number: int, **values: object) -> Change:
    """Changes values of a line, or removes those that are ``...``."""

    def change(text: str) -> str:
        lines = text.splitlines(keepends=True)
        row = json.loads(lines[number]) | values
        lines[number] = json.dumps({key: value for key, value in row.items() if value is not ...}) + "\n"
        return "".join(lines)

    return change


def edit(*path: str | int, value: object = ...) -> Change:
    """Changes a value of a JSON file, or removes it."""

    def change(text: str) -> str:
        content = place = json.loads(text)
        for key in path[:-1]:
            place = place[key]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        return json.dumps(content)

    return change


def cut(text: str) -> str:
    return text[:-9]


def repeat(text: str) -> str:
    return text + text.splitlines(keepends=True)[0]


def drop(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[1:])


def answer_all_with_nothing(text: str) -> str:
    return "".join(json.dumps(json.loads(line) | {"text": "x"}) + "\n" for line in text.splitlines())


def add_other_truth(text: str) -> str:
    question, truth = text.splitlines()[0].split("\t")
    return f"{text}{question}\t{'No' if truth == 'Yes' else 'Yes'}\n"


def replace(text: str) -> Change:
    return lambda _: text


def files_of(name: str) -> tuple[Any, list[str], dict[str, str]]:
    """The command's module, its flags and its files."""
    if name in OLDER:
        return (
            {"eval_pope": eval_pope, "eval_science_qa": eval_science_qa}[name],
            OLDER[name]["argv"],
            OLDER[name]["files"],
        )
    files = {path: GOLD["texts"][number] for path, number in COMMANDS[name]["files"].items()}
    return MODULES[name.split()[0]], COMMANDS[name]["argv"], files


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())


POPE, SQA, GPT4, REQUERY = "eval_pope", "eval_science_qa", "eval_science_qa_gpt4", "eval_science_qa_gpt4_requery"
CONVERT, CALCULATION, SEED = "convert_answer_to_mme", "calculation", "convert_seed_for_submission"
OCR, PLACE = "MME_Benchmark_release_version/OCR/OCR0000.txt", "eval_tool/answers/m-7b"
TESTS = [
    (POPE, "q.jsonl", edit_row(3, category=...), 2, "A row of 'q.jsonl' has no 'category'"),
    (POPE, "q.jsonl", edit_row(3, question_id=[]), 2, "has the question_id [], which is neither text nor"),
    (POPE, "q.jsonl", edit_row(3, question_id=2), 2, "1 questions occur more than once in 'q.jsonl': 2"),
    (POPE, "q.jsonl", edit_row(3, image=None), 2, "has 'None' as 'image', which is not a text"),
    (POPE, "a.jsonl", edit_row(3, text=1), 2, "A row of 'a.jsonl' has '1' as 'text'"),
    (POPE, "a.jsonl", edit_row(3, text=""), 0, "answers in 'a.jsonl' are empty"),
    (POPE, "a.jsonl", cut, 2, "the file is half-written"),
    (POPE, "coco/coco_pope_random.json", edit_row(0, label=...), 2, "has no 'label'"),
    (POPE, "coco/coco_pope_random.json", edit_row(0, label="Yes"), 2, "the label 'Yes', which is neither yes nor no"),
    (POPE, "coco/coco_pope_random.json", replace(""), 2, "has 0 labels, and there are"),
    (POPE, "coco/coco_pope_random.json", drop, 2, "0 labels have no answer and 1 answers no label"),
    (POPE, "coco/notes.txt", replace("x"), 2, "holds 'notes.txt'; it may hold only files coco_pope_CATEGORY.json"),
    (SQA, "a.jsonl", edit_row(3, prompt=...), 2, "A row of 'a.jsonl' has no 'prompt'"),
    (SQA, "a.jsonl", edit_row(3, question_id=3), 2, "answers the question '3'; ScienceQA's ids are texts"),
    (SQA, "a.jsonl", edit_row(3, question_id="x"), 0, "1 answers in 'a.jsonl' are to questions outside of the split"),
    (SQA, "a.jsonl", repeat, 0, "1 questions are answered more than once in 'a.jsonl', such as '0'; the last"),
    (SQA, "sqa/pid_splits.json", edit("test"), 2, "has no 'test'; it has: minitest"),
    (SQA, "sqa/pid_splits.json", edit("test", 2, value=7), 2, "has to be a list of ids, which are texts"),
    (SQA, "sqa/pid_splits.json", replace("[" * 9999), 2, "is not a JSON file"),
    (SQA, "sqa/problems.json", edit("3"), 2, "1 of the 71 ids of the split 'test' are not in"),
    (SQA, "sqa/problems.json", edit("3", "answer", value=9), 2, "Problem 3 of 'sqa/problems.json' has"),
    (SQA, "sqa/problems.json", edit("3", "choices"), 2, "has None as 'choices'"),
    (GPT4, "gpt4.json", edit("outputs"), 2, "'gpt4.json' has no 'outputs'"),
    (GPT4, "gpt4.json", edit("outputs", "7", value=None), 2, "has to be an object of texts by the ids"),
    (GPT4, "gpt4.json", edit("outputs", "7"), 0, "1 of the 130 questions lack an answer and are left out"),
    (GPT4, "gpt4.json", edit("outputs", value={}), 2, "No question of the split 'test' is answered both in"),
    (REQUERY, "gpt4.json", edit("outputs", "7"), 2, "'gpt4.json' has no answer to 1 of the 130 questions"),
    (REQUERY, "again.jsonl", drop, 0, "questions are not in 'again.jsonl'; the model's answer counts"),
    (CONVERT, "answers/m-7b.jsonl", edit_row(3, question_id=3), 2, "has '3' as 'question_id', which is not a text"),
    (CONVERT, "answers/m-7b.jsonl", edit_row(3, prompt="Is it?"), 2, "does not have, the first of them 'Is it?' about"),
    (CONVERT, "answers/m-7b.jsonl", edit_row(3, text=...), 2, "A row of 'answers/m-7b.jsonl' has no 'text'"),
    (CONVERT, "answers/m-7b.jsonl", edit_row(3, text="no\tor\nyes"), 0, "1 answers hold a tab or a line break"),
    (CONVERT, "answers/m-7b.jsonl", repeat, 2, "1 questions are answered more than once"),
    (CONVERT, "answers/m-7b.jsonl", drop, 0, "questions have no answer, the first of them"),
    (CONVERT, "answers/m-7b.jsonl", replace(""), 2, "has no answers"),
    (CONVERT, OCR, cut, 2, f"Line 2 of '{OCR}' is not a question, a tab, and Yes or No"),
    (CONVERT, OCR, replace(""), 2, "2 answers in 'answers/m-7b.jsonl' are to questions that MME's folder does not"),
    (CONVERT, OCR, add_other_truth, 0, "has a question with both truths (1 such"),
    (CALCULATION, f"{PLACE}/OCR.txt", cut, 2, "is not an image, a question, Yes or No, and an answer"),
    (CALCULATION, f"{PLACE}/OCR.txt", drop, 2, "has 1 lines about 'OCR0000.txt' (1 such images)"),
    (CALCULATION, f"{PLACE}/OCR.txt", repeat, 2, "has 3 lines about 'OCR0000.txt'"),
    (CALCULATION, f"{PLACE}/OCR.txt", replace(""), 2, "OCR.txt' is empty"),
    (CALCULATION, f"{PLACE}/OCR.txt", lambda text: text[:-1], 0, "has no line break: the file may be cut off"),
    (SEED, "SEED-Bench.json", edit("question_type", value=[]), 2, "is not SEED-Bench.json"),
    (SEED, "SEED-Bench.json", edit("questions", 3, "answer", value="E"), 2, "with the answer 'E'"),
    (SEED, "SEED-Bench.json", edit("questions", 3, "data_type"), 2, "has no 'data_type'"),
    (SEED, "SEED-Bench.json", edit("questions", 3, "question_type_id", value=99), 2, "a question of the type '99'"),
    (SEED, "SEED-Bench.json", edit("questions", 3, "question_id", value="100"), 2, "1 ids occur more than once in"),
    (SEED, "SEED-Bench.json", edit("questions", 3), 2, "1 of the 52 answers in 'a.jsonl' are to questions that the"),
    (SEED, "a.jsonl", edit_row(3, text=None), 2, "A row of 'a.jsonl' has 'None' as 'text'"),
    (SEED, "a.jsonl", repeat, 0, "1 questions are answered more than once in 'a.jsonl'"),
    (SEED, "a.jsonl", cut, 2, "the file is half-written"),
    (SEED, "a.jsonl", answer_all_with_nothing, 0, "no answer is right in the type Scene Understanding; the original"),
]


@pytest.mark.parametrize(("name", "path", "change", "code", "said"), TESTS)
def test_damage_is_named(
    name: str,
    path: str,
    change: Change,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, argv, files = files_of(name)
    write(tmp_path, files | {path: change(files.get(path, ""))})
    monkeypatch.chdir(tmp_path)
    assert module.main(argv) == code
    printed = capsys.readouterr()
    assert said in printed.err
    assert code == 0 or printed.out == ""


def test_a_lone_surrogate_in_an_answer_to_mme_is_written_as_an_escape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, argv, files = files_of(CONVERT)
    write(tmp_path, files)
    answers = tmp_path / "answers/m-7b.jsonl"
    answers.write_text(edit_row(0, text="no \ud800")(answers.read_text(encoding="utf-8")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert module.main(argv) == 0
    assert "\tno \\ud800\n" in (tmp_path / PLACE / "existence.txt").read_text(encoding="utf-8")


def test_mme_pairs_an_images_lines_that_are_apart_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, argv, files = files_of(CALCULATION)
    for key, text in files.items():
        lines = text.split("\n")[:-1]
        random.Random(3).shuffle(lines)
        files[key] = "".join(f"{line}\n" for line in lines)
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    assert module.main(argv) == 0
    printed = capsys.readouterr()
    assert printed.out == COMMANDS[CALCULATION]["stdout"]
    assert "they are scored by the image's name, and MME's own script pairs lines" in printed.err


def test_files_of_an_earlier_conversion_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, argv, files = files_of(CONVERT)
    (tmp_path / PLACE).mkdir(parents=True)
    (tmp_path / PLACE / "old.txt").touch()
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    assert module.main(argv) == 0
    assert f"'{PLACE}' holds files of another conversion: old.txt." in capsys.readouterr().err


def test_pope_finds_labels_with_and_without_the_misspelling_of_its_first_version() -> None:
    from llava.eval.scoring.pope_counts import join_pope

    # Rows of haotian-liu/LLaVA@32cebc3 llava_pope_test.jsonl, and of POPE's label files before and after @7ef3026.
    image = "COCO_val2014_000000332625.jpg"
    asked = {"image": image, "text": "Is there an airplane in the imange?\nAnswer the question using a single word."}
    for text in ("Is there an airplane in the imange?", "Is there an airplane in the image?"):
        labels = [{"image": image, "text": text, "label": "no"}]
        assert join_pope([(asked, "x")], labels, "labels") == [("x", "no")]


def test_pope_gives_the_nth_answer_about_a_question_its_nth_label() -> None:
    from llava.eval.scoring.pope_counts import join_pope

    labels = [{"image": "a", "text": "Is it?", "label": label} for label in ("yes", "no")]
    asked = {"image": "a", "text": "Is it?\nAnswer."}
    assert join_pope([(asked, "x"), (asked, "y")], labels, "l") == [("x", "yes"), ("y", "no")]
