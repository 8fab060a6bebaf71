"""Answering: the answers file survives a kill, failures are named, and answers equal those asked one by one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.errors import UsageError
from llava.eval import model_vqa_loader, model_vqa_mmbench, model_vqa_qbench, model_vqa_science
from llava.eval.answer_run import answer_questions, order_by_image
from llava.eval.answers_file import make_answer_id, merge
from llava.eval.askers import ImageReader, LocalAsker, Outcome, crop_center
from llava.eval.task import Question
from llava.sampling import Sampling
from tests.eval.test_benchmark_table import write_rows, write_table

ROOT = Path(__file__).resolve().parents[2]


class Scripted:
    """Answers with the question's text backwards; fails where it says so, and dies after ``lives`` answers."""

    model_id = "scripted"

    def __init__(self, lives: int = 1000, settings: Mapping[str, Any] | None = None) -> None:
        self.lives, self.asked = lives, list[int | str]()
        self.settings: Mapping[str, Any] = settings or {}

    def ask(self, questions: Iterable[Question]) -> Iterator[Outcome]:
        for question in questions:
            self.asked.append(question.id)
            if len(self.asked) > self.lives:
                raise KeyboardInterrupt
            yield Outcome(None, "It is broken.") if "fail" in question.text else Outcome(question.text[::-1])


def make_questions(*texts: str) -> list[Question]:
    return [Question(i, (Path(f"{i % 2}.png"),), text, text) for i, text in enumerate(texts)]


def test_a_line_has_the_originals_keys_in_their_order_and_an_id_of_the_question_and_model(tmp_path: Path) -> None:
    questions = make_questions("abc", "äöü")
    answer_questions(questions, Scripted(), tmp_path / "new" / "a.jsonl")
    first, second = (tmp_path / "new/a.jsonl").read_text().splitlines()
    assert list(json.loads(first)) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert first == (
        '{"question_id": 0, "prompt": "abc", "text": "cba", "answer_id": "'
        + make_answer_id(questions[0], "scripted")
        + '", "model_id": "scripted", "metadata": {}}'
    )
    assert r"\u00fc\u00f6\u00e4" in second
    ids = {make_answer_id(question, model) for question in questions for model in ("a", "b")}
    assert len(ids) == 4
    assert {len(one) for one in ids} == {22}


@pytest.mark.parametrize("torn", [b"", b'{"question_id": 3, "prompt": "thr'])
def test_a_run_that_died_goes_on_to_the_identical_file(tmp_path: Path, torn: bytes) -> None:
    questions = make_questions(*"one two three four five six".split())
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    answer_questions(questions, Scripted(), whole)
    with pytest.raises(KeyboardInterrupt):
        answer_questions(questions, Scripted(lives=3), killed)
    written = killed.read_bytes()
    assert whole.read_bytes().startswith(written)
    with killed.open("ab") as file:
        file.write(torn)
    again = Scripted()
    answer_questions(questions, again, killed)
    assert killed.read_bytes() == whole.read_bytes()
    assert len(again.asked) == len(questions) - written.count(b"\n")


def test_another_run_does_not_take_over_answers_but_moves_them_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, path = make_questions("one", "two"), tmp_path / "a.jsonl"
    answer_questions(questions, Scripted(settings={"checkpoint": "old"}), path)
    again = Scripted(settings={"checkpoint": "new"})
    answer_questions(questions, again, path)
    assert again.asked == [0, 1]
    assert "is of another run; it is moved to 'a.jsonl.old'" in capsys.readouterr().err
    assert (tmp_path / "a.jsonl.old").read_bytes() == path.read_bytes()
    answer_questions(make_questions("other"), again, path)
    assert len(path.read_text().splitlines()) == 1


def test_a_failed_question_has_no_line_is_named_and_is_asked_again_in_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.jsonl"
    summary = answer_questions(make_questions("one", "fail", "", "yrrosm'I ton"), Scripted(), path)
    assert summary.failed == {1: "It is broken."}
    assert summary.empty == [2]
    said = capsys.readouterr().err
    assert "questions that failed: 1 (1)" in said
    assert "empty answers: 1 (2)" in said
    assert [json.loads(line)["question_id"] for line in path.read_text().splitlines()] == [0, 2, 3]
    assert json.loads((tmp_path / "a.jsonl.failures").read_text()) == {"question_id": 1, "error": "It is broken."}

    class Healed(Scripted):
        def ask(self, questions: Iterable[Question]) -> Iterator[Outcome]:
            return (Outcome(f"healed {question.id}") for question in questions)

    answer_questions(make_questions("one", "fail", "", "yrrosm'I ton"), Healed(), path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["question_id"], row["text"]) for row in rows][:2] == [(0, "eno"), (1, "healed 1")]
    assert not (tmp_path / "a.jsonl.failures").exists()


def test_a_refusal_and_a_cut_answer_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Refusing(Scripted):
        def ask(self, questions: Iterable[Question]) -> Iterator[Outcome]:
            return (Outcome("I'm sorry, but I can't help.", is_cut=question.id == 1) for question in questions)

    summary = answer_questions(make_questions("a", "b"), Refusing(), tmp_path / "a.jsonl")
    assert (summary.refused, summary.cut) == ([0, 1], [1])
    assert "answers that read like a refusal: 2 (0, 1)" in capsys.readouterr().err


def test_questions_about_one_image_are_asked_together_and_repeated_ids_keep_their_lines(tmp_path: Path) -> None:
    questions = make_questions("a", "b", "c", "d")
    assert list(order_by_image(questions, [0, 1, 2, 3])) == [0, 2, 1, 3]
    twice = [questions[0], questions[1], questions[0]]
    answer_questions(twice, Scripted(), tmp_path / "a.jsonl")
    again = Scripted()
    answer_questions(twice, again, tmp_path / "a.jsonl")
    assert (len((tmp_path / "a.jsonl").read_text().splitlines()), again.asked) == (3, [])


def test_shards_are_merged_in_order_and_a_half_written_or_repeated_one_is_refused(tmp_path: Path) -> None:
    questions = make_questions("a", "b", "c")
    answer_questions(questions, Scripted(), tmp_path / "whole.jsonl")
    parts = [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    answer_questions(questions[:2], Scripted(), parts[0])
    answer_questions(questions[2:], Scripted(), parts[1])
    assert merge(parts, tmp_path / "m.jsonl") == 3
    assert (tmp_path / "m.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(UsageError, match="answers the same question as a line of"):
        merge([parts[0], tmp_path / "whole.jsonl"], tmp_path / "n.jsonl")
    parts[1].write_bytes(parts[1].read_bytes()[:-5])
    with pytest.raises(UsageError, match="is half-written: finish this shard"):
        merge(parts, tmp_path / "n.jsonl")
    assert not (tmp_path / "n.jsonl").exists()


def test_an_image_is_not_rotated_by_its_exif_and_the_crop_is_clips(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    question = Question(1, (tmp_path / "a.jpg",), "?", "?")
    assert ImageReader(28).read(question)[0].image.size == (40, 20)
    cropped = crop_center(Image.open(tmp_path / "a.jpg"), 28)
    assert cropped.size == (28, 28)


@pytest.fixture
def folder(tmp_path: Path, photo: Path) -> Path:
    """A folder with two images and seven questions about them, one of an image that is none."""
    shutil.copy(photo, tmp_path / "a.png")
    Image.linear_gradient("L").resize((60, 90)).save(tmp_path / "b.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = ["a.png", "b.png", "a.png", "broken.png", "b.png", "a.png", "a.png"]
    rows: list[dict[str, object]] = [
        {"question_id": i, "image": name, "text": f"What is it {i}?" + " <image>" * (i == 5)}
        for i, name in enumerate(names)
    ]
    write_rows(tmp_path / "q.jsonl", rows)
    return tmp_path


def test_the_loaders_command_answers_as_one_by_one_generate_does(
    folder: Path, next_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    flags = ["--model-path", str(next_folder), "--question-file", "q.jsonl", "--image-folder", ".", "--conv-mode"]
    flags += ["vicuna_v1", "--temperature", "0", "--max_new_tokens", "6"]
    assert model_vqa_loader.main([*flags, "--answers-file", "x.jsonl"]) == 1
    said = capsys.readouterr().err
    assert "questions that failed: 1 (3)" in said
    assert "answers are greedy" in said
    assert "1 questions have the text <image>, the first of them 5" in said
    rows = [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [0, 1, 2, 4, 5, 6]

    from llava.answer import write_chat
    from llava.backends.answerer import Answerer
    from llava.model.checkpoint import load_model

    loaded = load_model(str(next_folder))
    answerer = Answerer.of(loaded)
    for row in rows:
        question = Question(1, (Path("b.png" if row["question_id"] in (1, 4) else "a.png"),), "", "")
        images = ImageReader(28).read(question)
        chat = write_chat(loaded, [(row["prompt"], 1, None)], "vicuna_v1")
        prepared = answerer.prepare(chat, images, Sampling(max_new_tokens=6))
        assert answerer._generate(prepared, 0.0, None).text.strip() == row["text"]

    chunk = [*flags, "--num-chunks", "4", "--chunk-idx"]
    assert model_vqa_loader.main([*chunk, "0", "--answers-file", "4_0.jsonl"]) == 0
    assert Path("4_0.jsonl").read_text().splitlines() == Path("x.jsonl").read_text().splitlines()[:2]
    assert model_vqa_loader.main([*flags, "--num-chunks", "9", "--chunk-idx", "8", "--answers-file", "9_8.jsonl"]) == 0
    assert Path("9_8.jsonl").read_bytes() == b""


def test_the_other_commands_write_the_originals_records(
    folder: Path, next_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    # Short answers, since these commands have no flag for their length.
    monkeypatch.setattr("llava.eval.original_runner.DEFAULT_NEW_TOKENS", 4)
    model = ["--model-path", str(next_folder), "--conv-mode", "vicuna_v1"]
    science: list[dict[str, object]] = [
        {"id": "1", "image": "a.png", "conversations": [{"value": "<image>\nWhy?"}]},
        {"id": "2", "conversations": [{"value": "How?"}]},
    ]
    Path("s.json").write_text(json.dumps(science))
    flags = [*model, "--question-file", "s.json", "--image-folder", ".", "--temperature", "0", "--single-pred-prompt"]
    assert model_vqa_science.main([*flags, "--answers-file", "s.jsonl"]) == 0
    rows = [json.loads(line) for line in Path("s.jsonl").read_text().splitlines()]
    assert [row["prompt"].startswith("<image>\n") for row in rows] == [True, False]

    write_table(folder / "t.tsv", ("7", "Which?", "Look.", "x", "y", "", ""))
    flags = [*model, "--question-file", "t.tsv", "--temperature", "0", "--all-rounds", "--answers-file", "t.jsonl"]
    assert model_vqa_mmbench.main(flags) == 0
    rows = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    keys = "question_id round_id prompt text options option_char answer_id model_id metadata"
    assert [list(row) for row in rows] == [keys.split()] * 2

    Path("z.json").write_text(json.dumps([{"img_path": "a.png", "question": "Sharp?", "candidates": ["Yes", "No"]}]))
    flags = [*model, "--questions-file", "z.json", "--image-folder", "./", "--answers-file", "z.jsonl"]
    assert model_vqa_qbench.main(flags) == 0
    (row,) = (json.loads(line) for line in Path("z.jsonl").read_text().splitlines())
    assert list(row) == ["img_path", "question", "candidates", "response"]


def test_a_prompt_that_is_too_long_fails_alone(folder: Path, next_folder: Path) -> None:
    from llava.model.checkpoint import load_model

    asker = LocalAsker(load_model(str(next_folder)), "tiny", Sampling(max_new_tokens=3))
    texts = ["What?", "word " * 9000, "Where?"]
    questions = [Question(i, (folder / "a.png",), text, text) for i, text in enumerate(texts)]
    outcomes = list(asker.ask(questions))
    assert [outcome.text is None for outcome in outcomes] == [False, True, False]
    assert "context" in outcomes[1].error


def test_eval_answers_a_benchmark_and_checks_shards_and_merges(
    folder: Path, next_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = folder / "mm-vet"
    (bench / "images").mkdir(parents=True)
    shutil.copy(folder / "a.png", bench / "images/a.png")
    write_rows(
        bench / "llava-mm-vet.jsonl", [{"question_id": f"v{i}", "image": "a.png", "text": f"{i}?"} for i in (1, 2)]
    )
    flags = ["eval", "mmvet", "--data", str(folder), "--model", str(next_folder)]
    assert main(flags) == 2
    assert "has 2 questions, not the 218 of all" in capsys.readouterr().err
    assert main([*flags, "--partial", "--check"]) == 0
    assert not (folder / "mmvet").exists()
    answers = str(folder / "0.jsonl")
    shard = [*flags, "--partial", "--conv-mode", "vicuna_v1", "--shard", "1/2", "--answers", answers]
    assert main(shard) == 0
    assert "answers are greedy" in capsys.readouterr().err
    assert [json.loads(line)["question_id"] for line in Path(answers).read_text().splitlines()] == ["v2"]
    assert main(["eval", "merge", answers, "--out", str(folder / "m.jsonl")]) == 0
    assert main(["eval", "mmvet", "nothing"]) == 2
    assert "There is no benchmark 'nothing'" in capsys.readouterr().err


def test_a_script_runs_as_it_is_with_one_process_a_device(folder: Path, next_folder: Path) -> None:
    """seed.sh's answering, with a stand-in for python that records its command line and writes an answer."""
    home = folder / "home"
    (home / "bin").mkdir(parents=True)
    stand_in = home / "bin/python"
    stand_in.write_text(
        '#!/bin/bash\necho "$CUDA_VISIBLE_DEVICES $*" >> calls\n'
        "while [ $# -gt 0 ]; do\n"
        '[ "$1" = --answers-file ] && { mkdir -p "$(dirname "$2")"; echo "$2" > "$2"; }\n'
        "shift\ndone\n"
    )
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "3,5"}
    script = ROOT / "scripts/v1_5/eval/seed.sh"
    done = subprocess.run(["bash", script], cwd=home, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    calls = sorted((home / "calls").read_text().splitlines())
    assert sorted(call.split()[0] for call in calls) == ["3", "3,5", "5"]  # the last command converts
    assert sum("--num-chunks 2" in call for call in calls) == 2
    merged = (home / "playground/data/eval/seed_bench/answers/llava-v1.5-13b/merge.jsonl").read_text().splitlines()
    assert [line.rsplit("/", 1)[1] for line in merged] == ["2_0.jsonl", "2_1.jsonl"]


@pytest.mark.parametrize("script", sorted((ROOT / "scripts/v1_5/eval").glob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_valid_bash(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True, timeout=300).returncode == 0


def test_a_command_runs_by_its_path_from_any_folder(tmp_path: Path) -> None:
    path = ROOT / "llava/eval/model_vqa_loader.py"
    done = subprocess.run([sys.executable, path, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "--num-chunks" in done.stdout
