"""``llava eval``: answered, scored and reported in one go; killed, sharded and merged to the identical file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import read_scores
from tests.eval.parquet_split import draw, write_split
from tests.eval.test_benchmark_table import write_rows

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 5
COUNT = 7


@pytest.fixture
def here(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with a small TextVQA in ``data``; its answers are short."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "textvqa", replace(TASKS["textvqa"], max_new_tokens=TOKENS))
    folder = tmp_path / "data/textvqa"
    (folder / "train_images").mkdir(parents=True)
    for name in ("a", "b"):
        Image.open(photo).rotate(90 * (name == "b")).save(folder / f"train_images/{name}.png")
    rows: list[dict[str, Any]] = [
        {
            "question_id": "ab"[i % 2],
            "image": f"{'ab'[i % 2]}.png",
            "text": f"What {i}?\nReference OCR token: x{i}\nAnswer the question using a single word or phrase.",
        }
        for i in range(COUNT)
    ]
    write_rows(folder / "llava_textvqa_val_v051_ocr.jsonl", rows)
    people = [
        {"image_id": row["question_id"], "question": row["text"].split("\n")[0].upper(), "answers": ["yes"] * 10}
        for row in rows
    ]
    (folder / "TextVQA_0.5.1_val.json").write_text(json.dumps({"data": people}))
    return tmp_path


def flags(model: Path, answers: str) -> list[str]:
    return ["eval", "textvqa", "--data", "data", "--partial", "--model", str(model), "--answers", answers]


def test_a_run_prints_its_score_and_keeps_everything_about_it(
    here: Path, next_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(next_folder, "x.jsonl")) == 0
    out, said = capsys.readouterr()
    assert f"textvqa: accuracy 0.00 ({COUNT} answers, tiny-v1.6)" in out
    assert "llava-v1.5-7b 58.2" in out
    assert "none for tiny-v1.6" in out
    assert "readings    m4c 0.00; vqa-team 0.00" in out
    assert f"val, {COUNT} of 5000 questions; greedy; template" in out
    assert f"image anyres; at most {TOKENS} new tokens" in out
    assert "torch" in out
    assert "llava: answers are greedy." in said
    run = read_scores(here / "x.scores.json")
    assert (run.task, run.model, run.headline) == ("textvqa", "tiny-v1.6", "accuracy")
    assert len(run.answers) == COUNT
    assert run.answers[2].references == ("yes",) * 10
    assert run.answers[2].images == (str(here / "data/textvqa/train_images/a.png"),)
    assert any(f"{COUNT} of the 5000 questions of val are scored" in note for note in run.notes)
    assert {"split", "count", "temperature", "template", "dtype", "quant", "max_new_tokens"} <= run.settings.keys()
    assert run.settings["temperature"] == 0.0
    # Scored again from its file, it is the same.
    before = (here / "x.scores.json").read_bytes()
    assert main(["eval", "score", "textvqa", "x.jsonl", "--data", "data", "--partial"]) == 0
    assert (here / "x.scores.json").read_bytes() == before


def test_a_run_that_is_killed_goes_on_to_the_identical_files(
    here: Path, next_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(next_folder, "whole.jsonl")) == 0
    code = f"""
import os, signal, sys
from dataclasses import replace
from llava.cli import main
from llava.eval.answers_file import AnswersFile
from llava.eval.benchmark_table import TASKS
TASKS["textvqa"] = replace(TASKS["textvqa"], max_new_tokens={TOKENS})
write = AnswersFile.write
def write_and_die(file, place, text):
    if len(file.lines) == 3:
        os.write(file._file.fileno(), b'{{"question_id": "b", "prompt": "Wha')
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, place, text)
AnswersFile.write = write_and_die
main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, *flags(next_folder, "killed.jsonl")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    torn = (here / "killed.jsonl").read_bytes()
    whole = (here / "whole.jsonl").read_bytes()
    assert torn.count(b"\n") == 3
    assert not torn.endswith(b"\n")
    assert not (here / "killed.scores.json").exists()
    assert main(["eval", "score", "textvqa", "killed.jsonl", "--data", "data", "--partial"]) == 2
    assert "Line 4 of 'killed.jsonl' is half-written" in capsys.readouterr().err
    assert main(flags(next_folder, "killed.jsonl")) == 0
    assert "'killed.jsonl' has 3 of 7 answers already" in capsys.readouterr().err
    assert (here / "killed.jsonl").read_bytes() == whole
    assert (here / "killed.scores.json").read_bytes() == (here / "whole.scores.json").read_bytes()


def test_shards_of_more_processes_than_questions_need_merge_to_the_file_of_one(
    here: Path, next_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags(next_folder, "whole.jsonl")) == 0
    monkeypatch.setenv("WORLD_SIZE", "5")
    sizes = []
    for rank in range(5):
        monkeypatch.setenv("RANK", str(rank))
        assert main(flags(next_folder, "part.jsonl")) == 0
        sizes.append((here / f"part.5_{rank}.jsonl").read_bytes().count(b"\n"))
    assert sizes == [2, 2, 2, 1, 0]
    monkeypatch.delenv("WORLD_SIZE")
    parts = [f"part.5_{rank}.jsonl" for rank in range(5)]
    assert "join the shards with llava eval merge" in capsys.readouterr().err
    assert main(["eval", "merge", *parts, "--out", "merged.jsonl"]) == 0
    assert (here / "merged.jsonl").read_bytes() == (here / "whole.jsonl").read_bytes()
    assert main(["eval", "score", "textvqa", "merged.jsonl", "--data", "data", "--partial"]) == 0
    assert (here / "merged.scores.json").read_bytes() == (here / "whole.scores.json").read_bytes()


def test_a_damaged_annotation_costs_no_answer_and_does_not_stop_the_next_benchmark(
    here: Path, next_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TASKS, "chartqa", replace(TASKS["chartqa"], max_new_tokens=TOKENS))
    row = {"type": "human_test", "question": "How many?", "answer": "5", "image": draw("red")}
    write_split(here / "data/chartqa/data", "test", [row, {**row, "type": "augmented_test"}])
    (here / "data/textvqa/TextVQA_0.5.1_val.json").write_text('{"data": [{}]}')
    command = ["eval", "textvqa", "chartqa", "--data", "data", "--partial", "--model", str(next_folder)]
    assert main([*command, "--limit", "2"]) == 2
    out, said = capsys.readouterr()
    assert "llava: error: textvqa: The annotations are not TextVQA's" in said
    assert "score them with llava eval score textvqa" in said
    assert "chartqa: relaxed_overall 0.00 (2 answers, tiny-v1.6)" in out
    assert (here / "data/textvqa/answers/tiny-v1.6.jsonl").read_bytes().count(b"\n") == 2
    assert read_scores(here / "data/chartqa/answers/tiny-v1.6.scores.json").answers[0].images == (None,)


def test_another_quantization_is_another_run(here: Path, next_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags(next_folder, "x.jsonl"), "--limit", "1"]) == 0
    assert main([*flags(next_folder, "x.jsonl"), "--limit", "1", "--no-merge"]) == 0
    assert "is of another run; it is moved to 'x.jsonl.old'" in capsys.readouterr().err


def test_a_submission_is_written_where_a_server_scores(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "data/vizwiz"
    rows: list[dict[str, Any]] = [
        {"question_id": i, "image": f"{i}.jpg", "text": f"What {i}?", "category": "default"} for i in range(3)
    ]
    write_rows(folder / "llava_test.jsonl", rows)
    answers = [{"question_id": i, "prompt": f"What {i}?", "text": f"The Dog {i}.", "model_id": "m"} for i in (2, 0, 1)]
    write_rows(here / "a.jsonl", answers)
    command = ["eval", "score", "vizwiz", "a.jsonl", "--data", "data"]
    assert main(command) == 2
    assert "has 3 questions, not the 8000 of test" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "vizwiz", replace(TASKS["vizwiz"], count=3))
        assert main(command) == 0
        written = json.loads((here / "a.submission.json").read_text())
        assert written == [{"image": f"{i}.jpg", "answer": f"dog {i}"} for i in range(3)]
        write_rows(here / "a.jsonl", answers[1:])
        (here / "a.submission.json").unlink()
        assert main(command) == 2
        assert "1 of the 3 questions of" in capsys.readouterr().err
        assert not (here / "a.submission.json").exists()


@pytest.mark.parametrize("command", [["score", "nothing", "a.jsonl"], ["nothing"]])
def test_an_unknown_benchmark_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) if command == ["nothing"] else pytest.MonkeyPatch.context():
        assert main(["eval", *command]) == 2
    assert "nothing" in capsys.readouterr().err
