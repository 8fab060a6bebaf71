"""The original's command lines print and write what the original does, byte for byte, and say what it passes over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava.eval import eval_gqa, eval_textvqa

ROOT = Path(__file__).resolve().parents[2]
GOLD = json.loads((ROOT / "tests/gold/eval/short_answer_commands.json").read_text(encoding="utf-8"))
COMMANDS: dict[str, Any] = GOLD["commands"]
MODULES: dict[str, Callable[[list[str]], int]] = {"eval_gqa": eval_gqa.main, "eval_textvqa": eval_textvqa.main}
SENTENCE = "Answer the question using a single word or phrase."


def write_files(folder: Path, name: str, **others: str) -> list[str]:
    """The command line, after its files are written; ``others`` replace files by the stem of their name."""
    for path, number in COMMANDS[name]["files"].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        text = others.get(Path(path).stem, GOLD["texts"][number])
        (folder / path).write_bytes(text.encode())
    return COMMANDS[name]["argv"]


def text_of(name: str, stem: str) -> str:
    """A text of the gold file by the stem of its file's name."""
    return next(GOLD["texts"][number] for path, number in COMMANDS[name]["files"].items() if Path(path).stem == stem)


def written_by(folder: Path, name: str) -> dict[str, str]:
    given = COMMANDS[name]["files"]
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes().decode() for name, path in paths.items() if name not in given}


def run_script(name: str, argv: list[str], folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / f"scripts/{name}.py"), *argv],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def expect(name: str, folder: Path, stdout: str) -> None:
    assert stdout == COMMANDS[name]["stdout"]
    wanted = {path: GOLD["texts"][number] for path, number in COMMANDS[name]["written"].items()}
    assert written_by(folder, name) == wanted


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("eval_")])
def test_an_evaluation_prints_what_the_original_prints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_files(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    assert MODULES[name.split()[0]](argv) == 0
    expect(name, tmp_path, capsys.readouterr().out)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("convert_")])
def test_a_conversion_writes_what_the_original_writes(name: str, tmp_path: Path) -> None:
    done = run_script(name, write_files(tmp_path, name), tmp_path)
    assert done.returncode == 0, done.stderr
    expect(name, tmp_path, done.stdout)


def test_a_conversion_says_what_the_original_passes_over(tmp_path: Path) -> None:
    name = "convert_vqav2_for_submission"
    done = run_script(name, write_files(tmp_path, name), tmp_path)
    assert "5 of the 60 questions have no answer, and '' is submitted for them" in done.stderr
    assert "3 lines of" in done.stderr
    assert "the first is line 8" in done.stderr
    assert "1 questions are answered more than once" in done.stderr
    assert "1 answers in" in done.stderr
    assert "answers in 'd/answers/llava_vqav2_mscoco_test-dev2015/llava-v1.5-7b/merge.jsonl' are empty" in done.stderr


@pytest.mark.parametrize("how", [["-m", "llava.eval.eval_textvqa"], [str(ROOT / "llava/eval/eval_textvqa.py")]])
def test_it_runs_as_a_module_and_by_its_path_without_torch(how: list[str], tmp_path: Path) -> None:
    argv = write_files(tmp_path, "eval_textvqa")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, *how, *argv], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == COMMANDS["eval_textvqa"]["stdout"]


def test_a_submission_needs_no_folder_and_a_file_in_use_stays_whole(tmp_path: Path) -> None:
    name = "convert_vizwiz_for_submission"
    argv = write_files(tmp_path, name)
    flags = [*argv[:-1], "upload.json"]
    assert run_script(name, flags, tmp_path).returncode == 0
    whole = (tmp_path / "upload.json").read_bytes()
    assert whole.decode() == GOLD["texts"][COMMANDS[name]["written"]["up/load.json"]]
    (tmp_path / "a.jsonl").write_text('{"question_id": 1, "text": "x"}\n', encoding="utf-8")
    done = run_script(name, flags, tmp_path)
    assert done.returncode == 2
    assert (
        "39 of the 40 questions of 'llava_test.jsonl' have no answer in 'a.jsonl', the first of them 0" in done.stderr
    )
    assert (tmp_path / "upload.json").read_bytes() == whole


def test_a_submission_can_be_printed(tmp_path: Path) -> None:
    name = "convert_gqa_for_eval"
    argv = write_files(tmp_path, name)
    done = run_script(name, [*argv[:-1], "/dev/stdout"], tmp_path)
    assert done.stdout == GOLD["texts"][COMMANDS[name]["written"]["b.json"]]


@pytest.mark.parametrize(
    ("name", "file", "text", "fault"),
    [
        ("convert_vqav2_for_submission", "merge", '{"question_id": "1", "text": "x"}\n', "None of the 1 answers in"),
        ("convert_vqav2_for_submission", "merge", '{"question_id": 1}\n', "has no 'text'; it has: question_id"),
        ("convert_vqav2_for_submission", "merge", '{"text": "x"}\n', "has no 'question_id'"),
        ("convert_vqav2_for_submission", "merge", '{"question_id": 1, "text": null}\n', "is None, which is no text"),
        (
            "convert_vqav2_for_submission",
            "merge",
            '{"question_id": [1], "text": "x"}\n',
            "the question_id [1], wh",
        ),
        ("convert_vqav2_for_submission", "llava_vqav2_mscoco_test2015", "[]\n", "Line 1 of"),
        (
            "convert_gqa_for_eval",
            "a",
            '{"question_id": "1", "text": "x"}\n{"quest',
            "Line 2 of 'a.jsonl' is not",
        ),
        ("convert_gqa_for_eval", "a", "\xff\n", "Line 1 of 'a.jsonl' is not a JSON"),
    ],
)
def test_a_file_that_no_server_could_score_is_refused(
    name: str, file: str, text: str, fault: str, tmp_path: Path
) -> None:
    done = run_script(name, write_files(tmp_path, name, **{file: text}), tmp_path)
    assert done.returncode == 2
    assert fault in done.stderr
    assert "Traceback" not in done.stderr
    assert written_by(tmp_path, name) == {}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = run_script("convert_gqa_for_eval", ["--src", "none.jsonl", "--dst", "x.json"], tmp_path)
    assert done.returncode == 2
    assert done.stderr == "llava: error: 'none.jsonl' cannot be read: No such file or directory.\n"


def evaluate(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> int:
    argv = write_files(folder, name, **files)
    monkeypatch.chdir(folder)
    return MODULES[name](argv)


@pytest.mark.parametrize(
    ("name", "file", "text", "fault"),
    [
        ("eval_textvqa", "TextVQA_0.5.1_val", "[]", "is not TextVQA's annotation file"),
        ("eval_textvqa", "TextVQA_0.5.1_val", "{}", "has no 'data'"),
        ("eval_textvqa", "TextVQA_0.5.1_val", '{"data": [{"image_id": "1"}]}', "The annotations are not TextVQA's"),
        ("eval_textvqa", "TextVQA_0.5.1_val", '{"data": 1}', "The annotations are not TextVQA's"),
        ("eval_textvqa", "TextVQA_0.5.1_val", '{"data": [', "is not a JSON file"),
        ("eval_textvqa", "llava-v1.5-7b", "", "has no answers"),
        ("eval_textvqa", "llava-v1.5-7b", '{"question_id": "1", "pro', "is not a JSON object"),
        (
            "eval_textvqa",
            "llava-v1.5-7b",
            json.dumps({"question_id": "0" * 16, "prompt": f"Who?\n{SENTENCE}", "text": "x"}),
            "no question 'who?'",
        ),
        ("eval_gqa", "testdev_balanced_predictions", "{}", "is no list of objects"),
        ("eval_gqa", "testdev_balanced_predictions", "[]", "84 of 84 questions have no prediction"),
        ("eval_gqa", "testdev_balanced_predictions", '[{"questionId": "1"}]', "has no 'prediction'"),
        ("eval_gqa", "testdev_balanced_predictions", '[{"questionId": "1", "prediction": 2}]', "1 predictions in"),
        (
            "eval_gqa",
            "testdev_balanced_questions",
            '{"1": {}}',
            "not a questions file of GQA: KeyError('isBalanced')",
        ),
        ("eval_gqa", "testdev_balanced_questions", "[1]", "is not a questions file of GQA"),
        ("eval_gqa", "testdev_balanced_questions", "{}", "None of the 0 questions is balanced"),
    ],
)
def test_an_evaluation_refuses_files_of_another_kind(
    name: str,
    file: str,
    text: str,
    fault: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(name, tmp_path, monkeypatch, **{file: text}) == 2
    said = capsys.readouterr()
    assert fault in said.err
    assert "Accuracy" not in said.out


def test_questions_answered_twice_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = text_of("eval_textvqa", "llava-v1.5-7b")
    first = answers.split("\n", 1)[0] + "\n"
    assert evaluate("eval_textvqa", tmp_path, monkeypatch, **{"llava-v1.5-7b": answers + first}) == 0
    said = capsys.readouterr()
    assert "Samples: 37" in said.out
    assert "1 questions more than once" in said.err or "1 questions are answered more than once" in said.err
    predictions = json.loads(text_of("eval_gqa", "testdev_balanced_predictions"))
    predictions += [predictions[0], {"questionId": "stranger", "prediction": "x"}]
    files = {"testdev_balanced_predictions": json.dumps(predictions)}
    assert evaluate("eval_gqa", tmp_path, monkeypatch, **files) == 0
    said = capsys.readouterr()
    assert said.out == COMMANDS["eval_gqa"]["stdout"]
    assert "1 questions are answered more than once" in said.err
    assert "1 answers in 'testdev_balanced_predictions.json' are to other questions, such as 'stranger'" in said.err


@pytest.mark.parametrize("argv", [[], ["--annotation-file", "x"], ["--result-file", "x"]])
def test_an_evaluation_says_which_flag_is_missing(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_textvqa.main(argv) == 2
    assert "--annotation-file" in capsys.readouterr().err
