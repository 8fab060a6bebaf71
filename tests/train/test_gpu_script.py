"""benchmarks/gpu.sh runs every step although one fails, and its checks work, here on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from llava.errors import Notice
from tests.engine import gpu_checks as engine_checks
from tests.train import gpu_checks

ROOT = Path(__file__).parents[2]
# In place of Python: two checks fail, one prints nothing, and the summary is written by the real one.
STAND_IN = f"""#!/bin/sh
case "$*" in
    -\\ *) exec {sys.executable} "$@" ;;
    *"gpu_checks float32"*) echo '{{"difference": 0.5, "passed": false}}'; exit 1 ;;
    *"gpu_checks flash"*) echo 'noise'; echo '{{"skipped": "none here", "passed": null}}' ;;
    *"gpu_checks lora"*) echo 'Traceback'; exit 1 ;;
    *"gpu_checks "*) echo '{{"difference": 0.25, "passed": true}}' ;;
    *"--json"*train-1.json) echo '{{"1": {{"llava": {{"tokens_per_second": 5, "of_peak": 0.5, "of_original": 2}}}}}}' \\
        > "$OUT/train-1.json" ;;
    *gpu_engine.py*) echo '{{"32_tokens_per_s": 1' > "$OUT/engine.json"
        echo 'decode of 32, tokens/s      1900   goal >= 2000: MISSED'; exit 3 ;;
esac
"""


def test_each_step_is_run_and_told_although_others_fail(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "OUT": str(tmp_path)}
    command = ["bash", str(ROOT / "benchmarks/gpu.sh"), "--tiny"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    results = json.loads((tmp_path / "results.json").read_text())
    failed = {name for name, each in results.items() if each["result"] == "FAILED"}
    expected = {"check float32", "check lora", "engine lora", "engine 7B"}
    assert (done.returncode, failed) == (len(expected), expected), done.stdout + done.stderr
    assert results["check flash"]["result"] == "skipped"
    assert {f"check {name}" for name in gpu_checks.CHECKS} < set(results)
    assert results["check bfloat16"]["figures"]["difference"] == 0.25
    assert "llava 5 tokens/s, 50.0% of peak, 2.00x" in done.stdout
    assert {f"engine {name}" for name in engine_checks.CHECKS} < set(results)
    assert "goal >= 2000: MISSED" in done.stdout
    assert (tmp_path / "table.txt").read_text() in done.stdout


def test_an_unknown_argument_of_the_script_is_refused() -> None:
    done = subprocess.run(["bash", str(ROOT / "benchmarks/gpu.sh"), "--tinny"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "unknown argument: --tinny\n")


@pytest.mark.parametrize("name", ["peak", "float16", "packing", "graphs", "flash", "host_memory"])
def test_a_check_of_the_gpu_works_on_a_cpu(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(Notice, match="fp16 is left out") if name == "float16" else nullcontext():
        assert gpu_checks.main([name, "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["passed"] is not False


@pytest.mark.parametrize("name", engine_checks.CHECKS)
def test_a_check_of_the_engine_works_on_a_cpu(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert engine_checks.main([name, "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["passed"] is not False


def test_the_7b_benchmark_measures_every_part_in_small(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "benchmarks/gpu_engine.py",
        "--tiny",
        "--device",
        "cpu",
        "--json",
        str(tmp_path / "json"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "json").read_text())
    wanted = {"read_gb_s", "first_token_s", "again_s", "1_tokens_per_s", "2_tokens_per_s", "share"}
    assert all(figures[name] > 0 for name in wanted | {"transformers_first_token_s", "transformers_tokens_per_s"})
    assert figures["failures"] == {}
    assert "goal <= 0.07" in done.stdout
