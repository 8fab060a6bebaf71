"""Judged benchmarks by ``llava eval score``: the front doors' numbers, a cost shown before, and failures kept apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.eval import mm_vet_evaluator, summarize_gpt_review
from llava.eval.benchmark_table import TASKS
from llava.eval.score_file import read_scores
from tests.data.user_logs import FakeTeacher, complete, run_teacher
from tests.eval.test_benchmark_table import write_rows

SAID = {"Q0?": "8 6\nGood.", "Q1?": "9, 7\nA comma.", "Q2?": "10 5\nSo so."}
GRADES = {"Q0?": "0.8", "Q1?": "no idea", "Q2?": "1.0"}
Rows = list[dict[str, Any]]


def reply(table: dict[str, Any], request: dict[str, Any]) -> Any:
    text = request["messages"][-1]["content"]
    found = next(said for key, said in table.items() if key in text)
    return found if isinstance(found, tuple) else complete(found)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: both benchmarks with three questions in ``data``, and answers to them in ``a.jsonl``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    for name in ("llavabench", "mmvet"):
        monkeypatch.setitem(TASKS, name, replace(TASKS[name], count=3))
    questions: Rows = [
        {"question_id": i, "image": f"{i}.jpg", "text": f"Q{i}?", "category": ["conv", "detail", "conv"][i]}
        for i in range(3)
    ]
    bench = tmp_path / "data/llava-bench-in-the-wild"
    write_rows(bench / "questions.jsonl", questions)
    write_rows(bench / "context.jsonl", [{"image": f"{i}.jpg", "caption": "A dog."} for i in range(3)])
    write_rows(bench / "answers_gpt4.jsonl", [{"question_id": i, "text": f"G{i}", "answer_id": i} for i in range(3)])
    write_rows(
        tmp_path / "data/mm-vet/llava-mm-vet.jsonl", [{**row, "question_id": f"{i}"} for i, row in enumerate(questions)]
    )
    known = {
        f"v1_{i}": {"question": f"Q{i}?", "answer": f"A{i}", "capability": [["ocr"], ["ocr", "rec"], ["rec"]][i]}
        for i in range(3)
    }
    (tmp_path / "data/mm-vet/mm-vet.json").write_text(json.dumps(known))
    answers: Rows = [
        {"question_id": i, "prompt": f"Q{i}?", "text": f"I say {i}.", "answer_id": f"a{i}", "model_id": "llava-v1.5-7b"}
        for i in range(3)
    ]
    write_rows(tmp_path / "a.jsonl", answers)
    write_rows(tmp_path / "m.jsonl", [{**row, "question_id": f"{i}"} for i, row in enumerate(answers)])
    return tmp_path


@pytest.fixture
def judge() -> Iterator[FakeTeacher]:
    with run_teacher(lambda request: reply(SAID, request)) as teacher:
        yield teacher


def score(task: str, answers: str, *more: str) -> int:
    return main(["eval", "score", task, answers, "--data", "data", *more])


def test_llava_bench_has_the_score_of_the_front_door(
    here: Path, judge: FakeTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--judge-url", judge.url, "--judge-model", "other-judge")
    assert score("llavabench", "a.jsonl", *flags) == 0
    out, said = capsys.readouterr()
    assert "3 of 3 reviews to ask other-judge at" in said
    run = read_scores("a.scores.json")
    assert summarize_gpt_review.main(["-f", "a.reviews.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert f"\nall {run.scores['relative']} {run.scores['reference']} {run.scores['model']}\n" in printed
    assert run.scores == {"relative": 61.1, "reference": 90.0, "model": 55.0}
    assert run.categories == {"conv": (61.1, 2)}
    assert run.readings["published"] == 58.8  # with the failed review as -1
    assert [(answer.id, answer.score) for answer in run.answers] == [(0, 0.6), (2, 0.5)]
    assert run.answers[0].references == ("G0",)
    assert run.settings["judge"]["model"] == "other-judge"
    notes = " ".join(run.notes)
    assert "The judge is other-judge." in notes
    assert "1 of 3 reviews hold no scores and are left out" in notes
    assert "this one is by other-judge: do not compare them" in notes
    assert "llavabench: relative 61.10 (2 answers, llava-v1.5-7b)" in out
    assert "65.4 for llava-v1.5-7b, -4.30 here" in out
    num_asked = len(judge.requests)
    assert score("llavabench", "a.jsonl", *flags) == 0  # what is reviewed is not asked again
    assert len(judge.requests) == num_asked


def test_mm_vet_has_the_score_of_the_front_door(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: reply(GRADES, request)) as judge:
        assert score("mmvet", "m.jsonl", "--judge-url", judge.url) == 0
        out = capsys.readouterr().out
        flags = ["--mmvet_path", "data/mm-vet", "--result_path", ".", "--model", "m", "--judge", judge.url]
        assert mm_vet_evaluator.main(flags) == 0
    assert capsys.readouterr().out in out
    run = read_scores("m.scores.json")
    assert run.scores["total"] == 90.0
    assert run.categories == {"ocr": (80.0, 1), "rec": (100.0, 1)}
    assert run.readings == {"published": 60.0}
    assert [answer.score for answer in run.answers] == [0.8, 1.0]
    assert run.answers[0].references == ("A0",)
    assert any("1 of 3 grades could not be read and are left out" in note for note in run.notes)
    assert run.settings["judge"]["model"] == "gpt-4-0613"


@pytest.mark.parametrize(("task", "answers"), [("llavabench", "a.jsonl"), ("mmvet", "m.jsonl")])
def test_the_cost_is_told_and_nobody_is_asked(
    here: Path, judge: FakeTeacher, capsys: pytest.CaptureFixture[str], task: str, answers: str
) -> None:
    assert score(task, answers) == 0
    assert "a judge scores it. Name one with --judge-url" in capsys.readouterr().err
    assert score(task, answers, "--judge-url", judge.url, "--judge-dry-run", "--judge-price-in", "10") == 0
    assert "3 of 3 reviews to ask" in capsys.readouterr().err
    assert not judge.requests
    assert not list(here.glob("*.scores.json"))


def test_reviews_that_get_no_reply_are_asked_for_by_the_next_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table: dict[str, Any] = {**SAID, "Q1?": (400, {}, b'{"error": {"message": "filtered"}}')}
    with run_teacher(lambda request: reply(table, request)) as judge:
        assert score("llavabench", "a.jsonl", "--judge-url", judge.url) == 1
        assert "1 of 3 reviews got no reply" in capsys.readouterr().err
        assert not (here / "a.scores.json").exists()
        table["Q1?"] = "7 7"
        assert score("llavabench", "a.jsonl", "--judge-url", judge.url) == 0
    assert len(read_scores("a.scores.json").answers) == 3


def test_answers_of_a_part_are_refused_and_a_missing_file_is_named(
    here: Path, judge: FakeTeacher, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (here / "a.jsonl").read_text().splitlines(keepends=True)
    (here / "a.jsonl").write_text("".join(lines[:2]))
    assert score("llavabench", "a.jsonl", "--judge-url", judge.url) == 2
    assert "1 of the 3 questions have no answer" in capsys.readouterr().err
    assert score("llavabench", "a.jsonl", "--judge-url", judge.url, "--partial") == 2
    assert "has 3 questions, but 'a.jsonl' has 2 answers" in capsys.readouterr().err
    (here / "data/mm-vet/mm-vet.json").unlink()
    assert score("mmvet", "m.jsonl", "--judge-url", judge.url) == 2
    assert "mm-vet.json' is missing, which the judge needs" in capsys.readouterr().err
    assert not judge.requests
