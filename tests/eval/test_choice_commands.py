"""POPE, MME, ScienceQA and MM-Vet: what the originals read, print and write, and what they pass over, named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.eval import eval_pope, eval_science_qa
from llava.eval.scoring.science_qa import score_science_qa
from llava.eval.scoring.yes_no import MME, read_mme, read_mme_lmms_eval, score_pope

ROOT = Path(__file__).resolve().parents[2]
GOLD = json.loads((ROOT / "tests/gold/eval/choice_commands.json").read_text(encoding="utf-8"))
COMMANDS: dict[str, Any] = GOLD["commands"]


def write_files(folder: Path, name: str, **others: str) -> list[str]:
    """The command line, after its files are written; ``others`` replace files by the stem of their name."""
    for path, text in COMMANDS[name]["files"].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(others.get(Path(path).stem, text), encoding="utf-8")
    return COMMANDS[name]["argv"]


def written_by(folder: Path, name: str) -> dict[str, str]:
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {key: path.read_text(encoding="utf-8") for key, path in paths.items() if key not in COMMANDS[name]["files"]}


def by_category(printed: str) -> list[str]:
    return sorted(printed.split("====================================\n"))


def test_pope_prints_what_the_original_prints_category_by_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_files(tmp_path, "eval_pope")
    monkeypatch.chdir(tmp_path)
    assert eval_pope.main(argv) == 0
    printed = capsys.readouterr()
    assert by_category(printed.out) == by_category(COMMANDS["eval_pope"]["stdout"])  # the file system orders them
    assert "mean F1 of 2 categories" in printed.err


def test_pope_joins_answers_in_another_order_to_their_own_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = COMMANDS["eval_pope"]["files"]["a.jsonl"].splitlines(keepends=True)
    argv = write_files(tmp_path, "eval_pope", a="".join(reversed(rows)))
    monkeypatch.chdir(tmp_path)
    assert eval_pope.main(argv) == 0
    assert by_category(capsys.readouterr().out) == by_category(COMMANDS["eval_pope"]["stdout"])


@pytest.mark.parametrize(
    "change", ["fewer labels", "fewer answers", "an answer twice", "another's answer", "half a line"]
)
def test_pope_refuses_files_that_do_not_belong_together(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = COMMANDS["eval_pope"]["files"]
    labels = files["coco/coco_pope_random.json"].splitlines(keepends=True)
    answers = files["a.jsonl"].splitlines(keepends=True)
    others, said = {
        "fewer labels": ({"coco_pope_random": "".join(labels[1:])}, "AoiDragon/POPE@e3e3926"),
        "fewer answers": ({"a": "".join(answers[1:])}, "1 labels have no answer"),
        "an answer twice": ({"a": "".join(answers + answers[:1])}, "more than once"),
        "another's answer": ({"a": "".join([*answers, '{"question_id": "x", "text": "no"}\n'])}, "does not have"),
        "half a line": ({"a": "".join([*answers, '{"question_id": 1, "te'])}, "half-written"),
    }[change]
    argv = write_files(tmp_path, "eval_pope", **others)
    monkeypatch.chdir(tmp_path)
    assert eval_pope.main(argv) == 2
    assert said in capsys.readouterr().err


def test_science_qa_prints_and_writes_what_the_original_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_files(tmp_path, "eval_science_qa")
    monkeypatch.chdir(tmp_path)
    assert eval_science_qa.main(argv) == 0
    printed = capsys.readouterr()
    assert printed.out == COMMANDS["eval_science_qa"]["stdout"]
    assert written_by(tmp_path, "eval_science_qa") == COMMANDS["eval_science_qa"]["written"]
    assert "1 of the 71 questions have no answer" in printed.err


def test_science_qa_takes_other_letters_as_the_original_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_files(tmp_path, "eval_science_qa")
    monkeypatch.chdir(tmp_path)
    assert eval_science_qa.main([*argv, "--options", "abcde"]) == 0
    written = json.loads((tmp_path / argv[argv.index("--output-file") + 1]).read_text(encoding="utf-8"))
    read = {row["pred"]: row["parsed_ans"] for row in written["correct"] + written["incorrect"]}
    assert (read["a"], read["A"], read["The answer is A."]) == ("a", "FAILED", "A")
    assert {row["ground_truth"] for rows in written.values() for row in rows} <= set("abcde")


def test_science_qa_refuses_answers_to_another_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_files(tmp_path, "eval_science_qa", a='{"question_id": "none", "prompt": "", "text": "A"}\n')
    monkeypatch.chdir(tmp_path)
    assert eval_science_qa.main(argv) == 2
    assert "no answer to a question of the split" in capsys.readouterr().err


def test_mm_vet_answers_are_written_as_the_original_writes_them(tmp_path: Path) -> None:
    argv = write_files(tmp_path, "convert_mmvet_for_eval")
    script = ROOT / "scripts/convert_mmvet_for_eval.py"
    done = subprocess.run([sys.executable, str(script), *argv], cwd=tmp_path, capture_output=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"llava: 1 answers in 'a.jsonl' are empty.\n"
    assert written_by(tmp_path, "convert_mmvet_for_eval") == COMMANDS["convert_mmvet_for_eval"]["written"]


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        (
            '{"question_id": 1, "text": "x"}\n' * 2,
            0,
            "1 questions are answered more than once in a.jsonl, such as 1",
        ),
        ('{"question_id": 1, "text": null}\n', 2, "None, which is no text"),
        ('{"question_id": [1], "text": "x"}\n', 2, "has the question_id [1], which is neither text nor a whole number"),
    ],
)
def test_odd_answers_to_mm_vet_are_named(rows: str, code: int, said: str, tmp_path: Path) -> None:
    argv = write_files(tmp_path, "convert_mmvet_for_eval", a=rows)
    script = ROOT / "scripts/convert_mmvet_for_eval.py"
    done = subprocess.run(
        [sys.executable, str(script), *argv], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code
    assert said in done.stderr


@pytest.mark.parametrize(("answer", "official", "lmms_eval"), GOLD["mme"])
def test_mme_reads_yes_and_no_as_each_published_scorer(answer: str, official: str, lmms_eval: str) -> None:
    assert (read_mme(answer), read_mme_lmms_eval(answer)) == (official, lmms_eval)
    assert MME["calculation"](answer, "Yes").score == float(official == "yes")


def test_an_answer_that_says_nothing_has_no_reading() -> None:
    assert MME["calculation"]("maybe", "Yes").reading is None
    assert score_science_qa("B.", ["x", "y"], 1).reading is None
    assert score_science_qa("E", ["x", "y"], 1).note == "There are only 2 choices."
    assert score_pope("", "yes").reading == "yes"
