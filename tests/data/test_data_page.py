"""The commands about data in README.md, as they are written there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main

ROOT = Path(__file__).resolve().parents[2]


def read_commands() -> list[str]:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Data\n")[1].split("\n## ")[0]
    return re.findall(r"^\$ (.*)$", section, re.MULTILINE)


def write_vqa(folder: Path) -> None:
    """One question about one image, as the VQA team's files have it."""
    question = {"image_id": 9, "question": "What is it?", "question_id": 9000}
    answer = {"image_id": 9, "question_id": 9000, "multiple_choice_answer": "net", "question_type": "what"}
    answer |= {"answers": [{"answer": "net", "answer_confidence": "yes", "answer_id": 1}], "answer_type": "other"}
    folder.mkdir()
    for name, key, entry in (
        ("v2_OpenEnded_mscoco_train2014_questions.json", "questions", question),
        ("v2_mscoco_train2014_annotations.json", "annotations", answer),
    ):
        (folder / name).write_text(json.dumps({key: [entry]}), encoding="utf-8")


def test_every_command_of_the_readme_runs(tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_vqa(tmp_path / "VQA")
    subprocess.run([sys.executable, str(ROOT / "examples/training/make_flags.py"), "flags"], check=True)
    (tmp_path / "mix.yaml").write_text("sources: {flags: {data: flags/data.json}}", encoding="utf-8")
    commands = read_commands()
    assert [shlex.split(command)[2] for command in commands] == ["list", "convert", "check", "mix", "overlap"]
    said = []
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, command
        said.append(capsys.readouterr().out)
    assert "vqav2" in said[0]
    assert json.loads((tmp_path / "vqav2.json").read_text())[0]["conversations"][1]["value"] == "Net"
    assert "40 rows" in said[2]
    assert "100.0%" in said[3]
    assert "shared" in said[4]
