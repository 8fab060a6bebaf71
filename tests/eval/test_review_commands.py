"""The original's command lines with a judge: same files in, same printout, same requests, same files out."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava.eval.pair_reviews import PairRow
from llava.eval.reviews_file import ReviewsFile
from llava.eval.scoring.judged import parse_score
from tests.data.user_logs import FakeTeacher, complete, run_teacher
from tests.gold.eval import judged_inputs as given

ROOT = Path(__file__).parents[2]
GOLD = json.loads((ROOT / "tests/gold/eval/judged.json").read_text("utf-8"))
BENCH = given.SCRIPTS["eval_gpt_review_bench"]


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in {**files, "rule.json": (ROOT / "llava/eval/table/rule.json").read_text("utf-8")}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")


def reply(request: dict[str, Any]) -> Any:
    text = request["messages"][-1]["content"]
    return complete(next(said for part, said in given.REPLIES.items() if part in text))


def run(name: str, *argv: str) -> int:
    return importlib.import_module(f"llava.eval.{name}").main(list(argv))


def bench(judge: FakeTeacher, *more: str) -> int:
    return run("eval_gpt_review_bench", *BENCH["argv"], "--judge", judge.url, "--judge-concurrency", "1", *more)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files of LLaVA-Bench."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    write(tmp_path, BENCH["files"])
    return tmp_path


def start_bench(judge: FakeTeacher) -> subprocess.Popen[bytes]:
    """The command in another process, for a caller that holds the judge's lock: no answer comes before it lets go."""
    argv = [*BENCH["argv"], "--judge", judge.url, "--judge-concurrency", "1"]
    command = [sys.executable, "-m", "llava.eval.eval_gpt_review_bench", *argv]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)


def ids(here: Path) -> list[int]:
    return [json.loads(line)["id"] for line in (here / "reviews.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [name for name in given.SCRIPTS if name.startswith("eval_")])
def test_reviews_are_those_of_the_original(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case, gold = given.SCRIPTS[name], GOLD["scripts"][name]
    write(here, case["files"])
    with run_teacher(reply) as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        assert run(name, *case["argv"]) == 0
    out, said = capsys.readouterr()
    assert (here / case["output"]).read_text("utf-8") == gold["output"]
    if name == "eval_gpt_review":  # it parses when all have answered
        assert sorted(out.splitlines()) == sorted(gold["stdout"].splitlines())
    else:
        assert out == gold["stdout"]
    assert by_content(judge.requests) == by_content(gold["requests"])
    assert set(judge.keys) == {"Bearer secret"}
    assert "llava: 6 of 6 reviews to ask" in said
    assert "3 of 6 reviews hold no scores" in said
    assert "replies by teacher-1 (6)" in said


def by_content(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(requests, key=lambda request: request["messages"][-1]["content"])


def test_the_baseline_s_answers_are_those_of_the_original(here: Path) -> None:
    case, gold = given.SCRIPTS["qa_baseline_gpt35"], GOLD["scripts"]["qa_baseline_gpt35"]
    write(here, case["files"])
    with run_teacher(reply) as judge:
        assert run("qa_baseline_gpt35", *case["argv"], "--judge", judge.url) == 0
        text = (here / "answers.jsonl").read_text("utf-8")
        assert run("qa_baseline_gpt35", *case["argv"], "--judge", judge.url) == 0
        assert len(judge.requests) == 6  # none is asked twice
    assert (here / "answers.jsonl").read_text("utf-8") == text
    rows = [json.loads(line) for line in text.split("\n")]
    assert len({row["answer_id"] for row in rows}) == 6
    assert {len(row["answer_id"]) for row in rows} == {22}
    for row in rows:
        text = text.replace(row["answer_id"], "ID")
    assert text == gold["output"]
    assert by_content(judge.requests) == by_content(gold["requests"])


def test_a_question_that_no_answer_came_to_has_no_row(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = given.SCRIPTS["qa_baseline_gpt35"]
    write(here, case["files"])

    def fail(request: dict[str, Any]) -> Any:
        return (400, {}, b"{}") if "Why" in request["messages"][-1]["content"] else reply(request)

    with run_teacher(fail) as judge:
        assert run("qa_baseline_gpt35", *case["argv"], "--judge", judge.url, "--judge-model", "other") == 1
    assert "1 of 6 questions got no answer" in capsys.readouterr().err
    rows = [json.loads(line) for line in (here / "answers.jsonl").read_text("utf-8").split("\n")]
    assert [(row["question_id"], row["model_id"]) for row in rows] == [(i, "other") for i in range(1, 6)]


def test_the_page_s_data_are_those_of_the_original(here: Path) -> None:
    name = "generate_webpage_data_from_table"
    write(here, given.SCRIPTS[name]["files"])
    assert run(name) == 0
    assert (here / "webpage/data.json").read_text("utf-8") == GOLD["scripts"][name]["output"]


def test_the_page_names_the_files_that_are_missing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate_webpage_data_from_table") == 2
    assert "has no table/question.jsonl, table/answer/answer_vicuna-13b.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("number", range(len(given.SUMMARIES)))
def test_summaries_are_those_of_the_original(number: int, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, given.SUMMARIES[number]["files"])
    assert run("summarize_gpt_review", *given.SUMMARIES[number]["argv"]) == 0
    assert capsys.readouterr() == (GOLD["summaries"][number]["stdout"], "")


@pytest.mark.parametrize("name", [*given.SCRIPTS, "summarize_gpt_review"])
def test_a_script_runs_by_its_path(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / f"llava/eval/{name}.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: python -m llava.eval.{name}" in done.stdout


def test_failed_reviews_are_left_out_of_the_means_and_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[8, 6], [-1, -1], [float("nan"), 3], [4, 6], None]
    text = given.lines([{"question_id": i, "category": "a" if i else "b", "tuple": row} for i, row in enumerate(rows)])
    write(here, {"r.jsonl": text + '{"question_id": 7, "tup'})
    assert run("summarize_gpt_review", "-f", "r.jsonl") == 0
    out, said = capsys.readouterr()
    assert out.splitlines()[1:4] == ["a 150.0 40.0 60.0", "all 100.0 60.0 60.0", "b 75.0 80.0 60.0"]
    assert "1 lines of 'r.jsonl' are half-written or broken" in said
    assert "3 of the 5 reviews in 'r.jsonl' hold no scores and are left out" in said
    write(here, {"r.jsonl": given.lines([{"question_id": 1, "tuple": [-1, -1]}])})
    assert run("summarize_gpt_review", "-f", "r.jsonl") == 2
    assert "has no review with scores (1 reviews)" in capsys.readouterr().err


def test_what_the_original_would_print_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        here, {"r.jsonl": given.lines([{"question_id": i, "tuple": row} for i, row in enumerate([[8, 6], [-1, -1]])])}
    )
    assert run("summarize_gpt_review", "-f", "r.jsonl") == 0
    assert "prints: all 71.4 35.0 25.0." in capsys.readouterr().err


def test_scores_off_the_scale_are_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        here, {"r.jsonl": given.lines([{"question_id": i, "tuple": row} for i, row in enumerate([[8, 6], [85, 90]])])}
    )
    assert run("summarize_gpt_review", "-f", "r.jsonl") == 0
    out, said = capsys.readouterr()
    assert "all 103.2 465.0 480.0" in out
    assert "1 of the reviews in 'r.jsonl' are off the judge's scale of 1 to 10" in said
    assert "without them: all 75.0 80.0 60.0." in said


Fault = Callable[[dict[str, Any]], Any]


def failing_for(part: str, fault: Any = (400, {}, b'{"error": {"message": "no"}}')) -> Fault:
    return lambda request: fault if part in request["messages"][-1]["content"] else reply(request)


def test_a_review_without_a_reply_is_not_in_the_file_and_the_next_run_makes_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_teacher(failing_for("Décris")) as judge:
        assert bench(judge) == 1
        assert ids(here) == [1, 3, 4, 5, 6]
        said = capsys.readouterr().err
        assert (
            "1 of 6 reviews got no reply and are not in 'reviews.jsonl': refused by the endpoint: HTTP 400: no (1)"
            in said
        )
        judge.answer = reply
        assert bench(judge) == 0
        assert len(judge.requests) == 7
    assert (here / "reviews.jsonl").read_text("utf-8") == GOLD["scripts"]["eval_gpt_review_bench"]["output"]
    assert capsys.readouterr().out.startswith("Skipping 0 as we already have it.\n1\n2\nSkipping 2 as")


@pytest.mark.parametrize("num_bytes", [0, 1, 200, 900, GOLD["scripts"]["eval_gpt_review_bench"]["output"].index("\n")])
def test_a_half_written_reviews_file_is_completed_to_the_same(num_bytes: int, here: Path) -> None:
    whole = GOLD["scripts"]["eval_gpt_review_bench"]["output"]
    (here / "reviews.jsonl").write_text(whole[:num_bytes])
    with run_teacher(reply) as judge:
        assert bench(judge) == 0
    assert (here / "reviews.jsonl").read_text("utf-8") == whole
    num_whole = whole[: num_bytes + 1].count("\n")  # a row without its line break is a row
    assert len(judge.requests) == 6 - num_whole


def test_a_killed_run_goes_on_without_asking_twice(here: Path) -> None:
    with run_teacher(reply) as judge:

        def kill(request: dict[str, Any]) -> Any:
            if len(judge.requests) == 5:
                victim.kill()
                victim.wait()
            return reply(request)

        judge.answer = kill
        with judge.lock:
            victim = start_bench(judge)
        victim.communicate()
        num_before, judge.answer = len(judge.requests), reply
        assert num_before == 5
        assert bench(judge) == 0
        num_after = len(judge.requests) - num_before
    assert (here / "reviews.jsonl").read_text("utf-8") == GOLD["scripts"]["eval_gpt_review_bench"]["output"]
    assert num_after == 2  # the one in flight, and the one never sent


def test_an_interrupted_run_keeps_what_is_paid(here: Path) -> None:
    with run_teacher(reply) as judge:

        def interrupt(request: dict[str, Any]) -> Any:
            if len(judge.requests) == 3:
                victim.send_signal(signal.SIGINT)
            return reply(request)

        judge.answer = interrupt
        with judge.lock:
            victim = start_bench(judge)
        said = victim.communicate()[1].decode()
    assert victim.returncode == 130
    assert "stopping; waiting for 1 running requests" in said
    assert "Traceback" not in said
    assert ids(here) == [1, 2, 3]


def test_half_an_emoji_in_an_answer_reaches_the_judge(here: Path) -> None:
    write(here, {"second.jsonl": "".join(SECOND).replace("Answer 3", "\\ud83d 3")})
    with run_teacher(reply) as judge:
        assert bench(judge) == 0
    assert sum("\ud83d 3" in request["messages"][-1]["content"] for request in judge.requests) == 1


def test_the_temperature_can_be_left_to_the_endpoint(here: Path) -> None:
    with run_teacher(reply) as judge:
        assert bench(judge, "--judge-temperature", "none") == 0
        assert {request.get("temperature") for request in judge.requests} == {None}


def test_replies_in_any_order_are_written_in_the_questions_order(here: Path) -> None:
    rows = [PairRow({"id": i + 1, "question_id": i}, "", "") for i in range(4)]
    said: list[int] = []
    path = here / "reviews.jsonl"

    def open_file() -> ReviewsFile:
        file = ReviewsFile(path, rows, parse_score, said.append, said.append)
        file.open()
        return file

    file = open_file()
    for place, written in ((2, []), (0, [1]), (1, [1, 2, 3])):
        file.add(place, "8 7")
        assert ids(here) == written  # after each reply: that is what a kill leaves
    file.close()
    assert said == [0, 1, 2]
    file = open_file()
    file.add(3, "8 7")
    file.close()
    assert ids(here) == [1, 2, 3, 4]
    assert said == [0, 1, 2, 0, 1, 2, 3]


def test_reviews_of_other_answers_are_not_mixed_in(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOLD["scripts"]["eval_gpt_review_bench"]["output"]
    (here / "reviews.jsonl").write_text(text.replace('"m-3"', '"another"'))
    with run_teacher(reply) as judge:
        assert bench(judge) == 2
        assert judge.requests == []
    assert "has a review of other answers (id 4, question 3)" in capsys.readouterr().err


def test_reviews_of_two_judges_are_not_averaged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(reply) as judge:
        assert bench(judge, "--judge-model", "judge-1") == 0
        reviews = (here / "reviews.jsonl").read_bytes()
        num_asked = len(judge.requests)
        assert bench(judge, "--judge-model", "judge-2") == 2
        assert "are by 'judge-1', and 'judge-2' is asked now" in capsys.readouterr().err
        assert (here / "reviews.jsonl").read_bytes() == reviews
        assert bench(judge, "--judge-model", "judge-1") == 0
        assert len(judge.requests) == num_asked
        (here / "reviews.jsonl").unlink()
        assert bench(judge, "--judge-model", "judge-2") == 0


def test_a_review_that_is_there_twice_counts_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = GOLD["scripts"]["eval_gpt_review_bench"]["output"]
    first = whole.split("\n")[0]
    (here / "reviews.jsonl").write_text(f"{first}\n{first}\n")
    with run_teacher(reply) as judge:
        assert bench(judge) == 0
    assert "more than one review with id 1" in capsys.readouterr().err
    assert (here / "reviews.jsonl").read_text("utf-8") == whole


def test_removed_reviews_are_made_again(here: Path) -> None:
    with run_teacher(reply) as judge:
        assert bench(judge) == 0
        assert bench(judge) == 0
        assert len(judge.requests) == 6
        (here / "reviews.jsonl").unlink()
        assert bench(judge) == 0
        assert len(judge.requests) == 12


def test_failed_reviews_are_asked_for_again_where_that_is_wanted(here: Path) -> None:
    with run_teacher(reply) as judge:
        assert bench(judge) == 0
        judge.answer = lambda request: complete("5 6\nFine.")
        assert bench(judge, "--judge-retry-failed") == 0
        assert len(judge.requests) == 9
    rows = [json.loads(line) for line in (here / "reviews.jsonl").read_text().splitlines()]
    assert [row["tuple"] for row in rows] == [[7, 9], [8.5, 6], [5, 6], [5, 6], [8, 7], [5, 6]]


def test_nonsense_from_the_endpoint_ends_and_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: b"<html>") as judge:
        assert bench(judge, "--judge-attempts", "1") == 1
    assert "6 of 6 reviews got no reply" in (said := capsys.readouterr().err)
    assert "not a chat completion: <html> (after 1 attempts) (6)" in said
    assert ids(here) == []


def test_a_judge_that_is_too_slow_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = threading.Event()
    with run_teacher(lambda request: end.wait() and reply(request)) as judge:
        flags = ["--judge-timeout", "0.3", "--judge-attempts", "1", "--judge-concurrency", "6"]
        assert bench(judge, *flags) == 1
        end.set()
    assert "6 of 6 reviews got no reply" in (said := capsys.readouterr().err)
    assert "no answer within 0.3 s (after 1 attempts) (6)" in said


def test_a_wrong_key_ends_the_work(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: (401, {}, b"{}")) as judge:
        assert bench(judge) == 2
        assert len(judge.requests) == 1
    assert "The judge answers HTTP 401" in (said := capsys.readouterr().err)
    assert "--judge-key-env" in said


def test_a_judge_that_waits_too_long_is_given_up(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(lambda request: (429, {"Retry-After": "7200"}, b"{}")) as judge:
        assert bench(judge) == 1
    assert "The judge asks to wait for 7,200 s" in capsys.readouterr().err


def test_the_cost_is_shown_before_and_a_dry_run_asks_nobody(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(reply) as judge:
        assert bench(judge, "--judge-dry-run", "--judge-price-in", "30", "--judge-price-out", "60") == 0
        assert judge.requests == []
    assert "at most 6,144 out; cost about 0." in capsys.readouterr().err
    assert not (here / "reviews.jsonl").exists()
    assert not (here / "reviews.jsonl.replies").exists()


def test_a_budget_ends_the_work_and_holds_over_all_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with run_teacher(reply) as judge:
        for _ in range(2):
            assert bench(judge, "--judge-max-requests", "2") == 1
            assert "the budget --judge-max-requests 2 is spent" in capsys.readouterr().err
            assert ids(here) == [1, 2]
        assert len(judge.requests) == 2
        assert bench(judge) == 0


def test_answers_in_another_order_are_matched_by_question(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = BENCH["files"]["second.jsonl"].splitlines(keepends=True)
    write(here, {"second.jsonl": "".join(reversed(lines))})
    with run_teacher(reply) as judge:
        assert bench(judge) == 0
    assert "another order than the questions" in capsys.readouterr().err
    assert (here / "reviews.jsonl").read_text("utf-8") == GOLD["scripts"]["eval_gpt_review_bench"]["output"]


SECOND = BENCH["files"]["second.jsonl"].splitlines(keepends=True)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"second.jsonl": "".join(SECOND[:5])}, "has 6 questions, but 'second.jsonl' has 5 answers"),
        ({"second.jsonl": "".join(SECOND[:5] + SECOND[4:5])}, "1 questions occur more than once in 'second.jsonl'"),
        ({"second.jsonl": "".join(SECOND[:5]) + SECOND[5].replace(": 5", ": 50")}, "have no answer in 'second.jsonl'"),
        ({"second.jsonl": "".join(SECOND)[:-20]}, "Line 6 of 'second.jsonl' is not a JSON object"),
        ({"second.jsonl": "".join(SECOND).replace('"answer_id": "m-2"', '"x": 1')}, "has no 'answer_id'"),
        ({"questions.jsonl": ""}, "'questions.jsonl' has no questions"),
        (
            {"questions.jsonl": given.QUESTIONS.replace('"detail"', '"other"')},
            "no rule for the category 'llava_bench_other'",
        ),
        ({"context.jsonl": given.CONTEXT.replace("002", "003")}, "'context.jsonl' describes no image '002.jpg'"),
        ({"reviews.jsonl": '{"id": 1, "question_id": 99}\n'}, "has a review of other answers"),
    ],
)
def test_files_that_do_not_fit_are_refused_before_anybody_is_asked(
    files: dict[str, str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, files)
    with run_teacher(reply) as judge:
        assert bench(judge) == 2
        assert judge.requests == []
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "Give --question and --rule and --output and --context FILE"),
        (BENCH["argv"][:6], "Give --rule and --output FILE"),
        ([*BENCH["argv"], "--answer-list", "first.jsonl"], "it needs two"),
        ([*BENCH["argv"], "--judge-concurrency", "0"], "--judge-concurrency is 0"),
        ([*BENCH["argv"], "--max-tokens", "0"], "--max-tokens is 0"),
        ([*BENCH["argv"], "--judge-max-cost", "1"], "needs the prices"),
        ([*BENCH["argv"], "--judge", "nonsense"], "is no URL"),
        (BENCH["argv"], "No judge: set the key in OPENAI_API_KEY"),
    ],
)
def test_flags_that_cannot_be_used_are_named(
    argv: list[str], said: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(name, raising=False)
    assert run("eval_gpt_review_bench", *argv) == 2
    assert said in capsys.readouterr().err
