"""``llava data collect`` and ``llava data review`` as a user runs them, with a teacher in this process."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageFilter

from llava.cli import main
from llava.data.collection import journal
from llava.data.collection.journal import Journal, lock_folder
from llava.data.readers import read_records
from tests.data.user_logs import NOTICE, FakeTeacher, Log, complete, draw, run_teacher

ANSWER = "The image shows soft colours, and the light comes from above."
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "chat.jsonl")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def collect(log: Log, out: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command on the log; returns the exit code and all that was printed."""

    def run(*flags: Any, teacher: FakeTeacher | None = None) -> tuple[int, str]:
        asked = ["--teacher", teacher.url, "--teacher-model", "m", "--yes"] if teacher is not None else []
        capsys.readouterr()
        code = main(["data", "collect", str(log.path), "--out", str(out), *asked, *map(str, flags)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def answer(request: dict[str, Any]) -> Any:
    return complete(ANSWER)


def rows_of(out: Path, name: str = "data.json") -> list[dict[str, Any]]:
    return json.loads((out / name).read_text(encoding="utf-8"))


def questions_of(out: Path) -> list[str]:
    return [row["conversations"][0]["value"].removeprefix("<image>\n") for row in rows_of(out)]


def counts_of(said: str) -> dict[str, int]:
    """What the printed table says was left out."""
    return {name: int(number) for name, number in re.findall(r"^  - (.+?) +-(\d+)$", said, re.MULTILINE)}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_log_becomes_rows_with_images_provenance_and_reasons(log: Log, out: Path, collect: Run) -> None:
    shown = log.ask(1, "What is on the table?")
    log.ask(1, "what is on the table")
    log.ask(2, "Who is this man?")
    log.ask(3, "Write to bob@example.com about it")
    log.ask(4, "Without consent?", consent=None)
    log.add("Hello there, how are you?")
    (log.folder / f"{log.ask(5, 'Where did it go?')}.png").unlink()
    log.ask(6, "What do you refuse?")
    log.write(b'{"kind": "answer", "conse')

    def refuse(request: dict[str, Any]) -> Any:
        text = request["messages"][-1]["content"][-1]["text"]
        return complete("I'm sorry, but I can't help with that." if "refuse" in text else ANSWER)

    with run_teacher(refuse) as teacher:
        code, said = collect(teacher=teacher)
    assert code == 0
    assert counts_of(said) == {
        "no consent": 1,
        "not JSON (cut off or damaged)": 1,
        "no image": 1,
        "an image is missing": 1,
        "harm in the text": 1,
        "personal data in the text": 1,
        "a near duplicate: text and image": 1,
        "answer: a refusal": 1,
    }
    (row,) = rows_of(out)
    assert row == {
        "id": row["id"],
        "image": f"images/{shown}.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is on the table?"},
            {"from": "gpt", "value": ANSWER},
        ],
        "data_source": "user",
    }
    record = read_records(out / "data.json").record(0)
    assert (out / str(record.images[0])).read_bytes() == (log.folder / f"{shown}.png").read_bytes()
    (origin,) = lines_of(out / "provenance.jsonl")
    assert (origin["id"], origin["line"], origin["consent"], origin["model"]) == (row["id"], 1, NOTICE, "teacher-1")
    assert {"consent", "privacy", "near duplicates", "answer checks"} <= set(origin["filters"])
    assert origin["prompt"] == teacher.requests[0]["messages"][0]["content"]
    assert len(lines_of(out / "left-out.jsonl")) == 8
    assert "bob@example.com" not in (out / "left-out.jsonl").read_text(encoding="utf-8")


def test_the_teacher_gets_the_image_and_the_question_and_not_the_old_answer(log: Log, collect: Run) -> None:
    log.ask(1, "What is it?", answers=["an old answer"])
    with run_teacher(answer) as teacher:
        assert collect(teacher=teacher)[0] == 0
    ((_, asked),) = (request["messages"] for request in teacher.requests)
    image, text = asked["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "What is it?"}


def test_a_dry_run_asks_nobody_and_writes_nothing(log: Log, out: Path, collect: Run) -> None:
    log.ask(1, "What is it?")
    log.ask(2, "Call me at 415-555-2671")
    with run_teacher(answer) as teacher:
        code, said = collect("--dry-run", "--price-in", 2, "--price-out", 10, "--ocr", "os:getcwd", teacher=teacher)
        assert teacher.requests == []
    assert code == 0
    assert counts_of(said) == {"personal data in the text": 1}
    assert "Questions to ask: 1;" in said
    assert re.search(r"Cost: about 0\.00\d\d, at most 0\.0\d\d\d ", said)
    assert "The text on 1 images was not checked in a dry run." in said
    assert not out.exists()


def test_nobody_is_asked_without_a_yes(log: Log, collect: Run) -> None:
    log.ask(1, "What is it?")
    with run_teacher(answer) as teacher:
        code, said = collect("--teacher", teacher.url, "--teacher-model", "m")
        assert teacher.requests == []
    assert code == 2
    assert "give --yes" in said
    assert "Questions to ask: 1;" in said


def test_what_was_answered_is_not_asked_again_after_a_kill(log: Log, out: Path, collect: Run) -> None:
    questions = [f"Question {i * 7919} about this image?" for i in range(5)]
    for i, question in enumerate(questions):
        log.ask(i, question)
    process: list[subprocess.Popen[bytes]] = []

    def kill_third(request: dict[str, Any]) -> Any:
        if len(teacher.requests) == 3:
            process[0].kill()
            process[0].wait()
        return complete(ANSWER)

    with run_teacher(kill_third) as teacher:
        words = ["data", "collect", str(log.path), "--out", str(out), "--teacher", teacher.url, "--teacher-model", "m"]
        command = [sys.executable, "-m", "llava", *words, "--yes", "--concurrency", "1"]
        process.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        process[0].wait(200)
        assert not (out / "data.json").exists()
        with (out / "answers.jsonl").open("ab") as file:
            file.write(b'{"key": "cut o')  # as a kill in the middle of a write leaves it
        code, said = collect("--concurrency", 1, teacher=teacher)
    assert code == 0
    assert teacher.questions == [*questions[:3], *questions[2:]]
    assert questions_of(out) == questions
    assert "1 incomplete or damaged lines are ignored" in said
    assert len(lines_of(out / "answers.jsonl")) == 5


def test_a_second_run_asks_nothing_and_a_changed_prompt_asks_again(
    log: Log, out: Path, collect: Run, tmp_path: Path
) -> None:
    log.ask(1, "What is it?")
    (tmp_path / "prompt.txt").write_text("Be brief.\n", encoding="utf-8")
    with run_teacher(answer) as teacher:
        assert collect(teacher=teacher)[0] == 0
        before = (out / "data.json").read_bytes()
        assert collect(teacher=teacher)[0] == 0
        assert (out / "data.json").read_bytes() == before
        assert len(teacher.requests) == 1
        assert collect("--teacher-prompt", tmp_path / "prompt.txt", teacher=teacher)[0] == 0
        assert teacher.requests[1]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_question_without_an_answer_is_an_exit_code_and_asked_in_the_next_run(
    log: Log, out: Path, collect: Run
) -> None:
    log.ask(1, "What is it?")
    log.ask(2, "Which colour is it?")
    broken = [True]

    def fail(request: dict[str, Any]) -> Any:
        is_second = "colour" in request["messages"][-1]["content"][-1]["text"]
        return (413, {}, {"error": "too large"}) if broken[0] and is_second else complete(ANSWER)

    with run_teacher(fail) as teacher:
        code, said = collect(teacher=teacher)
        assert code == 1
        assert counts_of(said) == {"not answered yet": 1}
        assert "No answer to 1: refused by the endpoint: HTTP 413: too large" in said
        broken[0] = False
        assert collect(teacher=teacher)[0] == 0
    assert sorted(teacher.questions) == ["What is it?", "Which colour is it?", "Which colour is it?"]
    assert len(rows_of(out)) == 2


def test_the_budget_holds_over_all_runs(log: Log, out: Path, collect: Run) -> None:
    for i in range(5):
        log.ask(i, f"Question {i * 7919} about this image?")
    with run_teacher(answer) as teacher:
        code, said = collect("--max-requests", 2, teacher=teacher)
        assert (code, len(teacher.requests)) == (0, 2)
        assert "The budget ended the run: --max-requests 2." in said
        assert collect("--max-requests", 2, teacher=teacher)[0] == 0
        assert len(teacher.requests) == 2
        # Four at once are kept apart by what each may cost at most, about 1,400 tokens; they use 110.
        code, said = collect("--max-tokens", 1750, "--concurrency", 4, teacher=teacher)
        assert code == 0
        assert "The budget ended the run: --max-tokens 1,750." in said
        assert 2 < len(teacher.requests) < 5
        assert len(rows_of(out)) == len(teacher.requests)
        assert collect(teacher=teacher)[0] == 0
    assert len(teacher.requests) == len(rows_of(out)) == 5


def test_a_teacher_that_answers_nonsense_is_stopped(log: Log, out: Path, collect: Run) -> None:
    for i in range(30):
        log.ask(i, f"Question {i * 7919} about this image?")
    with run_teacher(lambda request: complete("word word word word word word")) as teacher:
        code, said = collect("--concurrency", 1, teacher=teacher)
        assert len(teacher.requests) == 20
    assert code == 1
    assert (
        "The last 20 answers of the teacher could not be used, the last one because: a loop of the same words" in said
    )
    assert counts_of(said) == {"answer: a loop of the same words": 20, "not answered yet": 10}
    assert rows_of(out) == []


def test_an_unusable_answer_is_asked_again_only_on_request(log: Log, out: Path, collect: Run) -> None:
    log.ask(1, "What is it?")
    with run_teacher(lambda request: complete("" if len(teacher.requests) == 1 else ANSWER)) as teacher:
        assert collect(teacher=teacher)[0] == 0
        assert collect(teacher=teacher)[0] == 0
        assert len(teacher.requests) == 1
        assert collect("--retry-invalid", teacher=teacher)[0] == 0
        assert len(teacher.requests) == 2
    assert questions_of(out) == ["What is it?"]


def test_several_questions_of_a_chat_are_answered_one_after_another(log: Log, out: Path, collect: Run) -> None:
    digest = log.save(draw(1))
    log.add([digest, "What is it?"], "old", "Which colour?", "old", "Is that so?")
    with run_teacher(lambda request: complete(f"Answer {len(teacher.requests)}.")) as teacher:
        assert collect("--turns", 2, teacher=teacher)[0] == 0
    assert [message["role"] for message in teacher.requests[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert teacher.requests[1]["messages"][2]["content"] == "Answer 1."
    (row,) = rows_of(out)
    values = [turn["value"] for turn in row["conversations"]]
    assert values == ["<image>\nWhat is it?", "Answer 1.", "Which colour?", "Answer 2."]


def test_an_image_that_is_broken_or_another_one_is_named(log: Log, collect: Run) -> None:
    swapped, cut = log.ask(1, "What is swapped?"), log.ask(2, "What is cut?")
    draw(3).save(log.folder / f"{swapped}.png")
    path = log.folder / f"{cut}.png"
    path.write_bytes(path.read_bytes()[:500])
    log.ask(4, "What is good?")
    _, said = collect()
    assert counts_of(said) == {"an image is not the one that was logged": 1, "an image is broken": 1}


def test_requests_without_an_image_are_taken_where_that_is_asked_for(log: Log, out: Path, collect: Run) -> None:
    log.add("How are you today?")
    with run_teacher(lambda request: complete("I am well, thank you.")) as teacher:
        assert collect("--text-only", teacher=teacher)[0] == 0
    (row,) = rows_of(out)
    assert "image" not in row


def test_the_same_question_about_a_re_encoded_image_is_a_near_duplicate(log: Log, collect: Run) -> None:
    image = draw(1, (320, 240)).filter(ImageFilter.GaussianBlur(2))
    file = io.BytesIO()
    image.resize((200, 150)).save(file, "JPEG", quality=60)
    log.add([log.save(image), "What is in the image?"])
    log.add([log.save(Image.open(file).convert("RGB")), "what is in the image"])
    log.add([log.save(draw(2, (320, 240))), "What is in the image?"])
    assert counts_of(collect()[1]) == {"a near duplicate: text and image": 1}


def test_no_text_and_no_image_fills_the_data(log: Log, collect: Run) -> None:
    for i in range(4):
        log.ask(i, "Describe this image in detail.")
    for question in ("What is on the left?", "How many are there?", "Which season could it be?"):
        log.ask(9, question)
    _, said = collect("--same-text", 3, "--same-image", 2)
    assert counts_of(said) == {"its text, more than 3 times": 1, "its image, more than 2 times": 1}


def test_text_on_images_is_read_judged_and_not_kept(
    log: Log, out: Path, collect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_reader.py").write_text(
        "num = 0\n"
        "def read(image):\n"
        "    global num\n"
        "    num += 1\n"
        "    if image.width == 60: return 'CALL 415-555-2671'\n"
        "    if image.width == 70: raise RuntimeError('no model')\n"
        "    return 'MENU'\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    for seed, width in ((1, 50), (2, 60), (3, 70)):
        log.add([log.save(draw(seed, (width, 40))), f"What is {width}?"])
    for _ in range(2):
        _, said = collect("--ocr", "my_reader:read")
        assert counts_of(said) == {"personal data on an image": 1, "the text on an image could not be read": 1}
    assert sys.modules["my_reader"].num == 4  # only the one that failed is read again
    assert "415" not in (out / "image-text.jsonl").read_text(encoding="utf-8")
    assert "415" not in (out / "left-out.jsonl").read_text(encoding="utf-8")


def test_other_rules_judge_the_text_on_images_again(
    log: Log, collect: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "menu_reader.py").write_text("def read(image):\n    return 'MENU'\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - name: food\n    patterns: ['menu']\n", encoding="utf-8")
    log.ask(1, "What is it?")
    assert counts_of(collect("--ocr", "menu_reader:read")[1]) == {}
    _, said = collect("--ocr", "menu_reader:read", "--harm-rules", rules)
    assert counts_of(said) == {"harm on an image": 1}


def test_an_endpoint_can_read_the_text_on_images(log: Log, collect: Run) -> None:
    log.ask(1, "What is it?")
    log.ask(2, "What does it say?")

    def read(request: dict[str, Any]) -> Any:
        return complete("NONE" if len(reader.requests) == 1 else "card 4111 1111 1111 1111")

    with run_teacher(read) as reader:
        _, said = collect("--ocr", reader.url, "--ocr-model", "r")
    assert counts_of(said) == {"personal data on an image": 1}


def test_a_classifier_judges_what_the_rules_let_pass(log: Log, collect: Run, tmp_path: Path, monkeypatch: Any) -> None:
    code = "class Judge:\n    def __call__(self, text, images):\n        return 'spam' if 'buy' in text else ''\n"
    (tmp_path / "my_classifier.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    log.ask(1, "Where can I buy it?")
    log.ask(2, "What is it?")
    assert counts_of(collect("--classifier", "my_classifier:Judge")[1]) == {"harm by the classifier": 1}


def save_decisions(path: Path, sheet: Path, decide: Callable[[dict[str, Any]], str]) -> None:
    """What the button of a review sheet saves."""
    text = sheet.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    rows = {row["id"]: {"decision": decide(row), "seen": row["seen"]} for row in data["rows"] if decide(row)}
    path.write_text(json.dumps({"llava_review": 1, "sheet": data["sheet"], "rows": rows}), encoding="utf-8")


def test_a_review_decides_what_is_asked_and_what_is_kept(
    log: Log, out: Path, collect: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = ["What is it?", "Which colour has it?", "How many are there?", "</script><b>Where?"]
    for i, question in enumerate(questions):
        log.ask(i, question)
    decisions = tmp_path / "review.json"
    collect()
    by_question = {"Which": "drop", "How": ""}
    save_decisions(
        decisions, out / "review.html", lambda row: by_question.get(row["turns"][0]["value"].split()[0], "accept")
    )
    with run_teacher(answer) as teacher:
        _, said = collect("--review", decisions, teacher=teacher)
        assert counts_of(said) == {"dropped in the review": 1, "undecided in the review": 1}
        assert sorted(teacher.questions) == ["</script><b>Where?", "What is it?"]
        collect("--review", decisions, "--keep-undecided", teacher=teacher)
        assert len(teacher.questions) == 3
    # The person saw the questions and not the answers, which have to be reviewed, too.
    assert main(["data", "review", str(decisions), "--data", str(out)]) == 0
    assert rows_of(out, "accepted.json") == []
    assert "changed since the review       2" in capsys.readouterr().out
    save_decisions(decisions, out / "review.html", lambda row: "accept" if len(row["turns"]) == 2 else "")
    assert main(["data", "review", str(decisions), "--data", str(out), "--out", str(tmp_path / "good.json")]) == 0
    assert rows_of(tmp_path, "good.json") == rows_of(out)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not valid JSON"),
        ("[]", "is not a file of decisions"),
        ('{"llava_review": 1, "rows": {"a": {"decision": "maybe"}}}', "has to be accept or drop"),
        ('{"llava_review": 1, "rows": {"a": {"decision": "accept"}}}', "None of the 1 rows"),
    ],
)
def test_a_file_that_holds_no_decisions_is_refused(
    log: Log, out: Path, collect: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    log.ask(1, "What is it?")
    with run_teacher(answer) as teacher:
        collect(teacher=teacher)
    (tmp_path / "d.json").write_text(content, encoding="utf-8")
    assert main(["data", "review", str(tmp_path / "d.json"), "--data", str(out)]) == 2
    assert message in capsys.readouterr().err


def test_the_review_of_another_collection_empties_no_data(log: Log, out: Path, collect: Run, tmp_path: Path) -> None:
    log.ask(1, "What is it?")
    decisions = tmp_path / "d.json"
    decisions.write_text('{"llava_review": 1, "rows": {"user-0": {"decision": "accept"}}}', encoding="utf-8")
    with run_teacher(answer) as teacher:
        collect(teacher=teacher)
        before = rows_of(out)
        code, said = collect("--review", decisions, teacher=teacher)
    assert (code, rows_of(out)) == (2, before)
    assert "the review of another collection?" in said


@pytest.mark.parametrize("row", ['{"id": "a"}', '{"id": "a", "conversations": [{"from": "human", "value": 1}]}'])
def test_data_that_was_damaged_is_named_by_the_review(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: str
) -> None:
    (tmp_path / "data.json").write_text(f"[{row}]", encoding="utf-8")
    decisions = tmp_path / "d.json"
    decisions.write_text('{"llava_review": 1, "rows": {"a": {"decision": "accept"}}}', encoding="utf-8")
    assert main(["data", "review", str(decisions), "--data", str(tmp_path)]) == 2
    assert "is damaged: run llava data collect again" in capsys.readouterr().err


def test_a_full_disk_stops_before_more_is_paid_and_nothing_is_lost(
    log: Log, out: Path, collect: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        log.ask(i, f"Question {i * 7919} about this image?")
    sync, num = os.fsync, [0]

    def fail_second(file: int) -> None:
        num[0] += 1
        if num[0] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    with run_teacher(answer) as teacher:
        monkeypatch.setattr(journal.os, "fsync", fail_second)
        code, said = collect("--concurrency", 1, teacher=teacher)
        assert (code, len(teacher.requests)) == (1, 2)
        assert "answers.jsonl' cannot be written: No space left on device" in said
        assert len(lines_of(out / "answers.jsonl")) == 1
        assert collect(teacher=teacher)[0] == 0
        assert len(teacher.requests) == 2 + 3
    assert len(rows_of(out)) == 4


def test_ctrl_c_keeps_what_the_running_requests_answer(log: Log, out: Path, collect: Run) -> None:
    for i in range(4):
        log.ask(i, f"Question {i * 7919} about this image?")

    def interrupt(request: dict[str, Any]) -> Any:
        if len(teacher.requests) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return complete(ANSWER)

    with run_teacher(interrupt) as teacher:
        code, said = collect("--concurrency", 1, teacher=teacher)
        assert code == 130
        assert "stopping; waiting for 1 running requests" in said
        assert len(rows_of(out)) == len(teacher.requests) == 2
        assert collect(teacher=teacher)[0] == 0
        assert len(teacher.requests) == 4


def test_two_commands_never_write_to_one_folder(log: Log, out: Path, collect: Run) -> None:
    log.ask(1, "What is it?")
    with lock_folder(out):
        code, said = collect()
    assert code == 2
    assert "Another command is writing to" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher", "http://h/v1"], "--teacher-model NAME"),
        (["--teacher", "host", "--teacher-model", "m"], "is no URL"),
        (["--teacher-model", "m"], "give its URL with --teacher"),
        (["--max-cost", "1"], "--price-in"),
        (["--concurrency", "0"], "--concurrency is 0"),
        (["--price-in", "-1"], "--price-in is -1"),
        (["--similarity", "0"], "--similarity is 0"),
        (["--timeout", "nan"], "--timeout is nan"),
        (["--ocr", "reader"], "module:name"),
        (["--ocr", "no_such_module:read"], "cannot be loaded: ModuleNotFoundError"),
        (["--ocr", "os:sep"], "cannot be called"),
        (["--ocr", "http://h/v1"], "--ocr-model"),
        (["--harm-rules", "/nowhere.yaml"], "cannot be read"),
        (["--review", "/nowhere.json"], "cannot be read"),
        (["--teacher-prompt", "/nowhere", "--teacher", "http://h", "--teacher-model", "m"], "cannot be read"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(log: Log, collect: Run, flags: list[str], message: str) -> None:
    log.ask(1, "What is it?")
    code, said = collect(*flags)
    assert code == 2
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("rules: 3", "needs a list 'rules'"),
        ("rules: [{name: x}]", "has no patterns"),
        ("rules: [{name: x, patterns: ['(']}]", "is not a regular expression"),
        ("rules: [{name: x, pattern: a}]", "unknown key 'pattern'"),
        ("rules: [3]", "has to be a mapping"),
    ],
)
def test_rules_that_cannot_be_read_are_named(log: Log, collect: Run, tmp_path: Path, rules: str, message: str) -> None:
    log.ask(1, "What is it?")
    (tmp_path / "rules.yaml").write_text(rules, encoding="utf-8")
    code, said = collect("--harm-rules", tmp_path / "rules.yaml")
    assert code == 2
    assert message in said


def test_a_journal_keeps_the_last_entry_of_each_key_and_skips_damage(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"key": "a", "n": 1}\n{"key": 3}\nnull\n\xff\n{"key": "a", "n": 2}\n{"key": "b"')
    kept = Journal(path)
    assert (kept.entries["a"]["n"], len(kept.history), kept.num_damaged) == (2, 2, 4)
    kept.open()
    kept.write({"key": "b", "n": 3})
    kept.close()
    assert Journal(path).entries["b"] == {"key": "b", "n": 3}


def test_a_large_image_is_sent_smaller(log: Log, collect: Run) -> None:
    log.add([log.save(Image.new("RGB", (4000, 60), "red")), "What is it?"])
    with run_teacher(answer) as teacher:
        assert collect(teacher=teacher)[0] == 0
    url = teacher.requests[0]["messages"][-1]["content"][0]["image_url"]["url"]
    assert len(url) < 4000
