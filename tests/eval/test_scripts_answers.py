"""Every script of scripts/v1_5/eval runs as it is on small files in the official formats, on a CPU: with the answers of
``llava eval``, and with the printouts and files of the published scorers.

In place of python, which would load torch for every command, a stand-in hands each command line to the test's process.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava.eval import original_runner
from llava.eval.answers_file import make_answer_id
from llava.eval.benchmark_table import TASKS
from llava.eval.task import check
from tests.eval.benchmark_files import write_benchmarks
from tests.eval.steered_checkpoint import MAX_NEW_TOKENS, find_words, write_steered

ROOT = Path(__file__).resolve().parents[2]
GOLD: dict[str, Any] = json.loads((ROOT / "tests/gold/eval/benchmark_runs.json").read_text(encoding="utf-8"))
MODEL = "llava-v1.5-13b"
STAND_IN = """#!/bin/bash
call=$(mktemp -d "$CALLS/XXXXXX")
printf '%s\\0' "$PWD" "$@" > "$call/words"
mkfifo "$call/code"
echo "$call" > "$CALLS/requests"
read -r code < "$call/code"
cat "$call/out"
cat "$call/errors" >&2
exit "$code"
"""
SCRIPTS: dict[str, tuple[str, str]] = {
    "gqa": ("gqa", "gqa/answers/llava_gqa_testdev_balanced/{model}/merge.jsonl"),
    "llavabench": ("llavabench", "llava-bench-in-the-wild/answers/{model}.jsonl"),
    "mmbench": ("mmbench", "mmbench/answers/mmbench_dev_20230712/{model}.jsonl"),
    "mmbench_cn": ("mmbench_cn", "mmbench_cn/answers/mmbench_dev_cn_20231003/{model}.jsonl"),
    "mme": ("mme", "MME/answers/{model}.jsonl"),
    "mmvet": ("mmvet", "mm-vet/answers/{model}.jsonl"),
    "pope": ("pope", "pope/answers/{model}.jsonl"),
    "qbench": ("qbench", "qbench/llvisionqa_dev_answers.jsonl"),
    "qbench_zh": ("qbench_zh", "qbench/llvisionqa_zh_dev_answers.jsonl"),
    "seed": ("seed", "seed_bench/answers/{model}/merge.jsonl"),
    "sqa": ("scienceqa", "scienceqa/answers/{model}.jsonl"),
    "textvqa": ("textvqa", "textvqa/answers/{model}.jsonl"),
    "vizwiz": ("vizwiz", "vizwiz/answers/{model}.jsonl"),
    "vqav2": ("vqav2", "vqav2/answers/llava_vqav2_mscoco_test-dev2015/{model}/merge.jsonl"),
}
"""The task of each script, and its answers file."""

CHUNKED = ("gqa", "seed", "vqav2")
SUBMISSIONS = {
    "vqav2": f"vqav2/answers_upload/llava_vqav2_mscoco_test-dev2015/{MODEL}.json",
    "vizwiz": f"vizwiz/answers_upload/{MODEL}.json",
    "mmvet": f"mm-vet/results/{MODEL}.json",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a clone of the original, with the benchmarks' files and the checkpoint."""
    home = tmp_path_factory.mktemp("home")
    data, model = home / "playground/data/eval", home / "liuhaotian" / MODEL
    write_benchmarks(data)
    model.mkdir(parents=True)
    texts = (one.text for task in TASKS.values() for one in check(task, data, is_partial=True)[0])
    write_steered(model, find_words(texts), GOLD["head"])
    for name in ("llava", "scripts"):
        (home / name).symlink_to(ROOT / name)
    for name in ("convert_answer_to_mme.py", "eval_tool/calculation.py"):
        (data / "MME" / name).parent.mkdir(exist_ok=True)
        (data / "MME" / name).symlink_to(ROOT / "playground/data/eval/MME" / name)
    # The scripts of Q-Bench look for its images in another folder than for its questions.
    (home / "playground/data/qbench").symlink_to(data / "qbench")
    # GQA's own script comes with its data; ours has its flags.
    (data / "gqa/data/eval").mkdir()
    (data / "gqa/data/eval/eval.py").symlink_to(ROOT / "llava/eval/eval_gqa.py")
    write_reviews(data)
    (home / "bin").mkdir()
    (home / "bin/python").write_text(STAND_IN)
    (home / "bin/python").chmod(0o755)
    return home


def write_reviews(data: Path) -> None:
    """What a judge said about LLaVA-Bench's answers before, so that nobody is asked."""
    path = data / f"llava-bench-in-the-wild/reviews/{MODEL}.jsonl"
    path.parent.mkdir()
    rows = []
    for place, question in enumerate(check(TASKS["llavabench"], data, is_partial=True)[0]):
        ids = {"answer1_id": f"gpt4-{place}", "answer2_id": make_answer_id(question, MODEL)}
        category = "llava_bench_" + ("conv", "detail", "complex")[place % 3]
        rows.append({"id": place + 1, "question_id": question.id, **ids, "category": category, "content": "8 6"})
        rows[-1]["tuple"] = [8, 6]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_python(words: list[str]) -> int:
    """What ``python WORDS`` does, in this process."""
    path = Path(words[0]).resolve()
    if words[0] == "-m" or path.parent == ROOT / "llava/eval":
        module = words[1] if words[0] == "-m" else f"llava.eval.{path.stem}"
        main: Callable[[list[str]], int] = importlib.import_module(module).main
        return main(words[2:] if words[0] == "-m" else words[1:])
    sys.argv = [str(path), *words[1:]]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def serve(calls: Path) -> None:
    """Runs what stand-ins ask for, until the word "end" comes."""
    requests = os.fdopen(os.open(calls / "requests", os.O_RDWR), buffering=1, closefd=True)
    with requests:
        while (line := requests.readline().strip()) != "end":
            call, (folder, *words) = Path(line), (Path(line) / "words").read_text().split("\0")[:-1]
            os.chdir(folder)
            with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
                try:
                    code = run_python(words)
                except SystemExit as end:  # of a parser
                    code = end.code if isinstance(end.code, int) else 1
            (call / "out").write_text(out.getvalue())
            (call / "errors").write_text(errors.getvalue())
            (call / "code").write_text(f"{code}\n")


def run_script(home: Path, script: str, devices: str) -> tuple[int, str, str]:
    """The exit code of a script and what it prints."""
    calls = home / f"calls-{script}-{len(devices)}"
    calls.mkdir()
    os.mkfifo(calls / "requests")
    environment = {**os.environ, "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "CALLS": str(calls)}
    environment |= {"CUDA_VISIBLE_DEVICES": devices}
    command = ["bash", str(ROOT / f"scripts/v1_5/eval/{script}.sh"), "dev"]
    process = subprocess.Popen(
        command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    printed: list[str] = []

    def wait() -> None:
        printed.extend(process.communicate())
        with (calls / "requests").open("w") as requests:
            requests.write("end\n")

    waiting = threading.Thread(target=wait)
    waiting.start()
    serve(calls)
    waiting.join()
    return process.returncode, printed[0], printed[1]


@pytest.mark.parametrize(
    ("script", "devices"),
    [*((script, "") for script in SCRIPTS), *((script, "0,1") for script in CHUNKED)],
    ids=lambda value: value or "one",
)
def test_a_script_runs_as_it_is_to_its_score_or_submission(
    script: str, devices: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv("OPENAI_API_KEY", "nobody is asked")
    answer = original_runner.answer_into_file

    def answer_shortly(questions: Any, args: Any, settings: Any, *others: Any) -> int:
        return answer(questions, args, replace(settings, max_new_tokens=MAX_NEW_TOKENS), *others)

    monkeypatch.setattr(original_runner, "answer_into_file", answer_shortly)
    code, out, errors = run_script(home, script, devices)
    assert code == 0, errors
    task, place = SCRIPTS[script]
    data = home / "playground/data/eval"
    path = data / place.format(model=MODEL)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["response"] if "response" in row else row["text"] for row in rows] == GOLD["answers"][task]
    for value in GOLD["scores"].get(task, {}).values():
        assert not isinstance(value, str) or value in out or task == "textvqa_no_ocr"
    if task == "mme":
        assert f"total score: {GOLD['scores'][task]['perception']}" in out
    if task == "llavabench":
        assert "all 75.0 80.0 60.0" in out
    if task == "pope":
        assert f"{GOLD['scores'][task]['random F1'] / 100:.3f}, " in out
    if task in SUBMISSIONS:
        written = json.loads((data / SUBMISSIONS[task]).read_text(encoding="utf-8"))
        assert written == GOLD["submissions"][task]
    if devices:
        assert sorted(part.name for part in path.parent.glob("2_*.jsonl")) == ["2_0.jsonl", "2_1.jsonl"]


def test_every_script_is_run_here() -> None:
    there = {path.stem for path in (ROOT / "scripts/v1_5/eval").glob("*.sh")}
    assert there == {*SCRIPTS, "answer_chunks"}
