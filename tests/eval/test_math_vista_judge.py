"""MathVista with a judge: asked only where it is wanted, resumed without paying twice, failures counted apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import read_scores
from tests.data.user_logs import complete, run_teacher
from tests.eval.parquet_split import draw, write_split

CHOICE = {"question_type": "multi_choice", "answer_type": "text", "choices": ["red", "blue"], "precision": None}
NUMBER = {"question_type": "free_form", "answer_type": "float", "choices": None, "precision": 1.0}
TEXTS = ["B", "I would say it is the blue one", "About 0.6 dollars", "0.60", ""]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with five questions in ``data``, and their answers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TASKS, "mathvista", replace(TASKS["mathvista"], count=len(TEXTS)))
    kinds = [{**CHOICE, "answer": "blue"}, {**CHOICE, "answer": "blue"}, *[{**NUMBER, "answer": "0.6"}] * 3]
    rows: list[dict[str, Any]] = [
        {
            "pid": f"{i}",
            "question": f"q{i}?",
            "decoded_image": draw("red"),
            "unit": None,
            "query": f"Hint: h{i}",
            **kind,
        }
        for i, kind in enumerate(kinds)
    ]
    write_split(tmp_path / "data/mathvista/data", "testmini", rows, num_shards=1)
    answers = [{"question_id": f"{i}", "text": text, "model_id": "m"} for i, text in enumerate(TEXTS)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return tmp_path


def flags(url: str, *more: str) -> list[str]:
    named = ["--judge-url", url, "--judge-model", "j", "--judge-attempts", "1"]
    return ["eval", "score", "mathvista", "a.jsonl", "--data", "data", *named, *more]


def text_of(request: dict[str, Any]) -> str:
    return str(request["messages"][0]["content"])


def test_the_judge_is_asked_for_responses_that_are_more_than_an_answer(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_teacher(lambda request: complete("B" if "blue one" in text_of(request) else "0.6")) as judge:
        assert main(flags(judge.url)) == 0
        assert len(judge.requests) == 2
        assert main(flags(judge.url)) == 0
        assert len(judge.requests) == 2  # nothing is paid for twice
    asked = [text_of(request) for request in judge.requests]
    assert any(text.endswith("\n\nHint: h1\n\nI would say it is the blue one\n\nExtracted answer: ") for text in asked)
    printed = capsys.readouterr()
    assert "mathvista: accuracy 80.00 (5 answers, m)" in printed.out
    assert "MathVista by rules 40.00" in printed.out
    assert "2 of 5 responses are more than an answer, which MathVista has GPT-4 extract: the judge extracted 2." in (
        printed.out
    )
    assert "The judge is j." in printed.out
    assert "2 of 2 reviews" in printed.err
    run = read_scores(here / "a.scores.json")
    assert run.settings["judge"]["model"] == "j"
    assert [answer.reading for answer in run.answers] == ["blue", "blue", "0.6", "0.6", None]


def test_a_response_without_a_reply_is_left_out_and_asked_for_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_teacher(lambda request: (400, {}, b"{}") if "dollars" in text_of(request) else complete("B")) as judge:
        assert main(flags(judge.url)) == 1
        printed = capsys.readouterr()
        assert "accuracy 75.00 (4 answers" in printed.out
        assert "1 got no reply and are left out" in printed.out
        assert "error: 1 of 2 responses got no reply" in printed.err
        judge.answer = lambda request: complete("0.6")
        assert main(flags(judge.url)) == 0
    assert "accuracy 80.00 (5 answers" in capsys.readouterr().out


def test_the_cost_is_shown_and_nobody_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: complete("B")) as judge:
        assert main(flags(judge.url, "--judge-dry-run", "--judge-price-in", "1", "--judge-price-out", "1")) == 0
        assert judge.requests == []
    assert "2 of 2 reviews to ask j" in capsys.readouterr().err
    assert not (here / "a.extractions.replies").exists()


def test_without_a_judge_rules_score(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "score", "mathvista", "a.jsonl", "--data", "data"]) == 0
    assert "mathvista: accuracy 40.00 (5 answers, m)" in capsys.readouterr().out
