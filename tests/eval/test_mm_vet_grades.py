"""MM-Vet's grading: the published grade file and tables; replies that cannot be read, budgets, resumed runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.eval.mm_vet_evaluator import main
from tests.data.user_logs import FakeTeacher, complete, run_teacher
from tests.gold.eval import judged_inputs as given

GOLD = json.loads((Path(__file__).parents[1] / "gold/eval/judged.json").read_text("utf-8"))
NAME = "m_gpt-4-0613"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with MM-Vet and answers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mm-vet.json").write_text(json.dumps(given.MM_VET))
    (tmp_path / "bard_set.json").write_text(json.dumps(["v1_0", "v1_3"]))
    (tmp_path / "m.json").write_text(json.dumps({key: f"answer {key}" for key in given.MM_VET}))
    return tmp_path


def evaluate(judge: FakeTeacher, *more: str) -> int:
    flags = ["--mmvet_path", ".", "--result_path", ".", "--model", "m", "--judge", judge.url]
    return main([*flags, "--judge-concurrency", "1", *more])


def question_of(request: dict[str, Any]) -> str:
    return request["messages"][-1]["content"].rsplit(" | ", 2)[-2].removeprefix("answer ")


def by_run(request: dict[str, Any], judge: FakeTeacher) -> str:
    key = question_of(request)
    asked = sum(question_of(one) == key for one in judge.requests) - 1
    return given.RUNS[asked][list(given.MM_VET).index(key)]


def test_grades_and_tables_are_the_published_ones(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: {**complete(by_run(request, judge)), "model": "judge-1"}) as judge:
        assert evaluate(judge, "--num_run", "3") == 0
        assert (here / f"{NAME}-grade-3runs.json").read_text() == GOLD["mm_vet"]["written"]
        assert evaluate(judge, "--num_run", "3") == 0
        assert len(judge.requests) == 21
    table = (here / f"{NAME}-cap-score-3runs.csv").read_text()
    assert table.splitlines()[0] == ",rec,know,ocr,math,spat,gen,total,std,runs"
    assert table.splitlines()[1] == 'm,53.3,53.3,35.0,35.0,33.3,46.7,47.1,7.3,"[54.3, 37.1, 50.0]"'
    out, said = capsys.readouterr()
    assert table in out
    assert "27.9 instead of 31.1" in said
    assert all(request["temperature"] == 0.0 and request["max_tokens"] == 3 for request in judge.requests)


def test_a_reply_that_cannot_be_read_is_asked_for_again_as_published(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_teacher(lambda request: complete("The score" if question_of(request) == "v1_0" else "0.5")) as judge:
        assert evaluate(judge, "--use_sub_set") == 0
        assert len(judge.requests) == 6
        asked = [request for request in judge.requests if question_of(request) == "v1_0"]
        assert [request["temperature"] for request in asked] == [temperature for temperature, _, _ in GOLD["asked"]][:5]
        assert evaluate(judge, "--use_sub_set") == 0
        assert len(judge.requests) == 6
        judge.answer = lambda request: complete("1.0")
        capsys.readouterr()
        assert evaluate(judge, "--use_sub_set", "--judge-retry-failed") == 0
        assert len(judge.requests) == 7
    assert capsys.readouterr().out.startswith(",rec,total,std,runs\nm,75.0,75.0,0.0,[75.0]\n")


def test_a_failed_grade_is_null_and_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: complete("nan" if question_of(request) == "v1_0" else "0.5")) as judge:
        assert evaluate(judge, "--use_sub_set") == 0
    grades = json.loads((here / f"{NAME}-grade-1runs.json").read_text())
    assert [row["score"] for row in grades.values()] == [[None], [0.5]]
    out, said = capsys.readouterr()
    assert ",total,std,runs\nm,50.0,50.0,0.0,[50.0]" in out
    assert "1 of 2 grades failed and are left out: 0 without a reply, 1 whose replies could not be read" in said
    assert "as 0 the total is 25.0" in said
    assert "are grades to the published grader." in said


def test_a_grade_without_a_reply_is_asked_for_by_the_next_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: (400, {}, b"{}") if question_of(request) == "v1_0" else complete("0.5")) as judge:
        assert evaluate(judge, "--use_sub_set") == 1
        assert "1 grades got no reply: refused by the endpoint" in capsys.readouterr().err
        judge.answer = lambda request: complete("1.0")
        assert evaluate(judge, "--use_sub_set") == 0
        assert len(judge.requests) == 3


def test_a_grade_stays_with_its_run_where_an_earlier_run_got_no_reply(here: Path) -> None:
    with run_teacher(lambda request: (400, {}, b"{}") if len(judge.requests) == 1 else complete("0.5")) as judge:
        assert evaluate(judge, "--use_sub_set", "--num_run", "2") == 1
        path = here / f"{NAME}-grade-2runs.json"
        assert json.loads(path.read_text())["v1_0"]["score"] == [None, 0.5]
        judge.answer = lambda request: complete("1.0")
        assert evaluate(judge, "--use_sub_set", "--num_run", "2") == 0
        assert len(judge.requests) == 5
    assert [row["score"] for row in json.loads(path.read_text()).values()] == [[1.0, 0.5], [0.5, 0.5]]


def test_a_broken_endpoint_ends_the_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: (422, {}, b"{}")) as judge:
        assert evaluate(judge, "--num_run", "2") == 1
        assert len(judge.requests) == 10
    assert "The last 10 reviews got no reply" in capsys.readouterr().err


def test_grades_of_another_tool_stay_and_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / f"{NAME}-grade-1runs.json"
    path.write_text(json.dumps({"v1_0": {"model": ["x"], "content": ["0.3"], "score": [0.3]}}))
    with run_teacher(lambda request: complete("0.5")) as judge:
        assert evaluate(judge, "--use_sub_set") == 0
        assert [question_of(request) for request in judge.requests] == ["v1_3"]
        assert "1 grades are taken from" in capsys.readouterr().err
        assert json.loads(path.read_text())["v1_0"] == {"model": ["x"], "content": ["0.3"], "score": [0.3]}
        path.write_text('{"v1_0": {"mo')
        assert evaluate(judge) == 2
        path.write_text('{"v1_0": {"model": []}}')
        assert evaluate(judge) == 2
    assert "is not a grade file of MM-Vet" in capsys.readouterr().err


def test_changed_answers_are_graded_again(here: Path) -> None:
    with run_teacher(lambda request: complete("0.5")) as judge:
        assert evaluate(judge) == 0
        (here / "m.json").write_text((here / "m.json").read_text().replace("answer v1_2", "another"))
        assert evaluate(judge) == 0
        assert len(judge.requests) == 8


def test_a_judge_that_reasons_first_can_be_used(here: Path) -> None:
    said = complete("<think>\nHm, 0.1?\n</think>\n\n0.5")
    with run_teacher(lambda request: said) as judge:
        more = ["--use_sub_set", "--judge-max-tokens", "900", "--judge-temperature", "none", "--gpt_model", "a/b"]
        assert evaluate(judge, *more) == 0
    assert [request.get("temperature") for request in judge.requests] == [None, None]
    assert [request["max_tokens"] for request in judge.requests] == [900, 900]
    assert json.loads((here / "m_a_b-grade-1runs.json").read_text())["v1_0"]["content"] == ["0.5"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.json", "{}", "has no answer to 7 of the 7 questions, the first of them v1_0"),
        ("m.json", "[]", "have to be objects by id"),
        ("m.json", '{"v1_0', "'m.json' is not a JSON file"),
        ("mm-vet.json", '{"v1_0": {"question": "?"}}', "has no 'answer'"),
        ("mm-vet.json", "{}", "have to be objects by id"),
        ("mm-vet.json", '{"v1_0": {"question": "?", "answer": 5, "capability": []}}', "'5' as 'answer'"),
        ("mm-vet.json", '{"v1_0": {"question": null, "answer": "5", "capability": []}}', "'None' as 'question'"),
        ("mm-vet.json", '{"v1_0": {"question": "?", "answer": "5", "capability": "ocr"}}', "no list of texts"),
        ("bard_set.json", "[[]]", "has to be a list of ids"),
        ("bard_set.json", '["another"]', "has to be a list of ids"),
    ],
)
def test_files_that_do_not_fit_are_refused_before_anybody_is_asked(
    name: str, text: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / name).write_text(text)
    with run_teacher(lambda request: complete("1")) as judge:
        assert evaluate(judge, *(["--use_sub_set"] if name == "bard_set.json" else [])) == 2
        assert judge.requests == []
    assert said in capsys.readouterr().err
