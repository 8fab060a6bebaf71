"""MME, SEED-Bench and ScienceQA: what the originals print and write, and lmms-eval's readings of the same answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from llava.errors import UsageError
from llava.eval import (
    calculate_mme,
    convert_answer_to_mme,
    eval_science_qa_gpt4,
    eval_science_qa_gpt4_requery,
    seed_submission,
)
from llava.eval.scoring.pope_counts import count_pope
from llava.eval.scoring.science_qa import SCIENCE_QA
from llava.eval.scoring.seed_bench import SEED
from llava.eval.scoring.yes_no import MME, POPE, read_pope_lmms_eval, read_vlmevalkit

ROOT = Path(__file__).resolve().parents[2]
GOLD = json.loads((ROOT / "tests/gold/eval/choice_runs.json").read_text(encoding="utf-8"))
COMMANDS: dict[str, Any] = GOLD["commands"]
MODULES = {
    "convert_answer_to_mme": convert_answer_to_mme,
    "calculation": calculate_mme,
    "convert_seed_for_submission": seed_submission,
    "eval_science_qa_gpt4": eval_science_qa_gpt4,
    "eval_science_qa_gpt4_requery": eval_science_qa_gpt4_requery,
}


def write_files(folder: Path, name: str, **others: str) -> list[str]:
    """The command line, after its files are written; ``others`` replace files by the stem of their name."""
    for path, number in COMMANDS[name]["files"].items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(others.get(Path(path).stem, GOLD["texts"][number]).encode())
    return COMMANDS[name]["argv"]


def written_by(folder: Path, name: str) -> dict[str, str]:
    paths = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {key: path.read_bytes().decode() for key, path in paths.items() if key not in COMMANDS[name]["files"]}


def wanted_of(name: str) -> dict[str, str]:
    return {path: GOLD["texts"][number] for path, number in COMMANDS[name]["written"].items()}


def text_of(name: str, path: str) -> str:
    return GOLD["texts"][COMMANDS[name]["files"][path]]


@pytest.mark.parametrize("name", [key for key in COMMANDS if key.split()[0] in MODULES and key.split()[-1] != "half"])
def test_a_command_prints_and_writes_what_the_original_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_files(tmp_path, name) + (["--dice", "7"] if name.endswith(" dice") else [])
    monkeypatch.chdir(tmp_path)
    assert MODULES[name.split()[0]].main(argv) == 0
    assert capsys.readouterr().out == COMMANDS[name]["stdout"]
    if name.endswith(" images"):  # the original stops at the first video
        lines = written_by(tmp_path, name)["up.jsonl"].splitlines()
        assert len(lines) == len(text_of(name, "a.jsonl").splitlines()) == 35
        assert json.loads(lines[0]).keys() == {"question_id", "prediction"}
    else:
        assert written_by(tmp_path, name) == wanted_of(name)


def test_seed_prints_the_scores_and_writes_no_file_if_answers_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "convert_seed_for_submission half"
    argv = write_files(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    assert seed_submission.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == COMMANDS[name]["stdout"]
    assert "12 of the 52 questions have no answer in 'a.jsonl'" in printed.err
    assert written_by(tmp_path, name) == {}


def test_an_image_only_run_of_seed_gets_its_accuracy_and_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = write_files(tmp_path, "convert_seed_for_submission images")
    monkeypatch.chdir(tmp_path)
    assert seed_submission.main(argv) == 0
    assert "none of the 17 questions about videos is answered" in capsys.readouterr().err


def test_seed_finds_ids_that_are_written_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "convert_seed_for_submission"
    rows = [json.loads(line) for line in text_of(name, "a.jsonl").splitlines()]
    changed = "".join(json.dumps({**row, "question_id": str(row["question_id"])}) + "\n" for row in rows)
    argv = write_files(tmp_path, name, a=changed)
    monkeypatch.chdir(tmp_path)
    assert seed_submission.main(argv) == 0
    printed = capsys.readouterr()
    assert printed.out == COMMANDS[name]["stdout"]
    assert "35 ids in 'a.jsonl' are numbers as text" in printed.err


def test_the_script_of_seed_scores_each_answer_as_the_original() -> None:
    name = "convert_seed_for_submission by case"
    content = json.loads(text_of(name, "SEED-Bench.json"))
    rows = {str(row["question_id"]): row["text"] for row in map(json.loads, text_of(name, "a.jsonl").splitlines())}
    printed = [float(line.split(": ")[1][:-1]) for line in COMMANDS[name]["stdout"].splitlines()]
    cases = content["questions"][::2]  # every second one is answered rightly
    assert len(cases) > 60
    for question, share in zip(cases, printed, strict=False):
        verdict = SEED["convert_seed_for_submission"](rows[question["question_id"]], question["answer"])
        assert verdict.score == share / 50 - 1


@pytest.mark.parametrize(("answer", "truth", "score"), GOLD["lmms-eval"]["seed"])
def test_seed_is_read_as_lmms_eval_reads_it(answer: str, truth: str, score: float) -> None:
    assert SEED["lmms-eval"](answer, truth).score == score


@pytest.mark.parametrize(("answer", "label", "reading", "score"), GOLD["lmms-eval"]["pope"])
def test_pope_is_read_as_lmms_eval_reads_it(answer: str, label: str, reading: str, score: float) -> None:
    assert POPE["lmms-eval"](answer, label).score == score
    assert read_pope_lmms_eval(answer) == (reading if reading in ("yes", "no") else "other")


def test_pope_has_lmms_evals_f1() -> None:
    pairs = [(answer, label) for answer, label, _, _ in GOLD["lmms-eval"]["pope"]]
    assert count_pope(pairs, read_pope_lmms_eval).f1 == GOLD["lmms-eval"]["pope_f1"]


@pytest.mark.parametrize(("answer", "reading"), GOLD["VLMEvalKit"])
def test_yes_and_no_are_read_as_vlmevalkit_reads_them(answer: str, reading: str) -> None:
    assert read_vlmevalkit(answer) == {"Unknown": "other"}.get(reading, reading.lower())
    assert POPE["VLMEvalKit"](answer, "yes").score == MME["VLMEvalKit"](answer, "Yes").score == (reading == "Yes")


@pytest.mark.parametrize(("answer", "num", "truth", "score"), GOLD["lmms-eval"]["scienceqa"])
def test_science_qa_is_read_as_lmms_eval_reads_it(answer: str, num: int, truth: int, score: float) -> None:
    assert SCIENCE_QA["lmms-eval"](answer, ["x"] * num, truth).score == score


def run_script(path: str, argv: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / path), *argv]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", [key for key in COMMANDS if key.startswith("convert_sqa_to_llava")])
def test_science_qa_is_converted_for_training_as_the_original_does(name: str, tmp_path: Path) -> None:
    done = run_script("scripts/convert_sqa_to_llava.py", write_files(tmp_path, name), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, COMMANDS[name]["stdout"], "")
    assert written_by(tmp_path, name) == wanted_of(name)


def test_the_scripts_of_eval_zip_run_where_the_original_has_them(tmp_path: Path) -> None:
    folder, place = tmp_path / "m", "playground/data/eval/MME"
    done = run_script(f"{place}/convert_answer_to_mme.py", write_files(folder, "convert_answer_to_mme"), folder)
    assert (done.returncode, done.stdout) == (0, "")
    tool = folder / "eval_tool"
    done = run_script(f"{place}/eval_tool/calculation.py", ["--results_dir", "answers/m-7b"], tool)
    assert (done.returncode, done.stdout) == (0, COMMANDS["calculation"]["stdout"])


@pytest.mark.parametrize("name", [key for key in COMMANDS if key in MODULES and not key.startswith("convert_seed")])
def test_a_front_door_runs_by_its_path_from_another_folder_without_torch(name: str, tmp_path: Path) -> None:
    argv = write_files(tmp_path, name)
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n", encoding="utf-8")
    path = ROOT / "llava/eval" / Path(MODULES[name].__file__ or "").name
    environment = {"PYTHONPATH": str(stub), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, str(path), *argv], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, COMMANDS[name]["stdout"]), done.stderr


def test_seeds_script_runs_from_another_folder(tmp_path: Path) -> None:
    name = "convert_seed_for_submission"
    done = run_script("scripts/convert_seed_for_submission.py", write_files(tmp_path, name), tmp_path)
    assert (done.returncode, done.stdout) == (0, COMMANDS[name]["stdout"])
    assert written_by(tmp_path, name) == wanted_of(name)


def test_odd_problems_of_science_qa_are_left_out_and_named_and_other_formats_refused(tmp_path: Path) -> None:
    name, script = "convert_sqa_to_llava", "scripts/convert_sqa_to_llava.py"
    problems = json.loads(text_of(name, "sqa/problems.json"))
    problems["4"]["answer"] = 9
    argv = write_files(tmp_path, name, problems=json.dumps(problems))
    done = run_script(script, argv, tmp_path)
    assert (done.returncode, done.stdout) == (0, "Number of samples: 19\n")
    assert "1 problems are left out, since each has an answer that is none of its options: problem 4" in done.stderr
    done = run_script(
        script, ["convert_to_llava", "--base-dir", "sqa", "--split", "train", "--prompt-format", "QCM"], tmp_path
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no format 'QCM'" in done.stderr
    done = run_script(script, ["convert_to_llava", "--base-dir", "sqa", "--split", "trian"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no list 'trian'. Did you mean 'train'?" in done.stderr


@pytest.fixture(scope="module")
def base_prompt() -> ModuleType:
    path = ROOT / "scripts/convert_sqa_to_llava_base_prompt.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("function", "args", "more", "wanted"), GOLD["prompts"])
def test_the_base_prompts_functions_return_what_the_originals_do(
    function: str, args: list[Any], more: dict[str, Any], wanted: Any, base_prompt: ModuleType
) -> None:
    problems = json.loads(text_of("convert_sqa_to_llava", "sqa/problems.json"))
    if function == "build_prompt_chatbot":
        found = {key: list(pair) for key, pair in base_prompt.build_prompt_chatbot(problems, *args, **more).items()}
    else:
        found = getattr(base_prompt, function)(problems, *args, SimpleNamespace(**more))
    assert found == wanted


def test_the_base_prompts_functions_refuse_other_formats(base_prompt: ModuleType) -> None:
    for name in ("QCM", "XYZ-A", "QCM-LEPA", "QCM-X"):
        with pytest.raises(UsageError, match="There is no format"):
            base_prompt.create_one_example(name, "q", "c", "(A) x", "A", "l", "e", test_example=False)
    assert base_prompt.create_one_example("QCM-X", "q", "c", "(A) x", "A", "l", "e").endswith("Answer:")
