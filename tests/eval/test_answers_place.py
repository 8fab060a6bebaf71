"""Where answers are written: nothing that is there is lost, and what cannot be is refused before a model loads."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from llava.cli import main
from llava.data.collection.journal import is_stream, write_whole
from llava.errors import LlavaError, UsageError
from llava.eval.answer_kinds import is_refusal
from llava.eval.answer_run import answer_questions
from llava.eval.answers_file import AnswersFile, check_answers_path, merge, name_settings_file
from llava.eval.askers import UrlAsker
from llava.eval.question_files import read_lines, read_science
from llava.eval.score_run import read_run_settings, write_summary
from llava.eval.task import Question
from llava.sampling import Sampling
from llava.text import name_safely
from tests.eval.chat_server import ChatServer, events, run_chat_server
from tests.eval.scored_runs import make_answer, make_run
from tests.eval.test_answer_run import Scripted, make_questions
from tests.eval.test_benchmark_table import write_rows

TEXTS = tuple("one two three four five".split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with five questions of MM-Vet in ``data``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/mm-vet/images").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "data/mm-vet/images/a.png")
    rows: list[dict[str, object]] = [{"question_id": f"v{text}", "image": "a.png", "text": text} for text in TEXTS]
    write_rows(tmp_path / "data/mm-vet/llava-mm-vet.jsonl", rows)
    return tmp_path


def run_eval(*flags: str) -> int:
    return main(["eval", "mmvet", "--data", "data", "--partial", *flags])


def test_a_run_with_a_limit_takes_and_keeps_the_answers_that_are_there(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_chat_server(ChatServer(lambda text, n: events(text[::-1]))) as server:
        flags = ("--url", server.url, "--answers", "a.jsonl")
        assert run_eval(*flags, "--limit", "2") == 0
        assert run_eval(*flags) == 0
        whole = (here / "a.jsonl").read_bytes()
        assert run_eval(*flags, "--limit", "3") == 0
        assert "'a.jsonl' has 3 of 3 answers already; none is left to ask" in capsys.readouterr().err
        assert run_eval(*flags, "--shard", "1/2") == 0
    assert sorted(server.asked) == sorted(TEXTS)
    assert (here / "a.jsonl").read_bytes() == whole
    assert not list(here.glob("a.jsonl.old*"))
    assert not list(here.glob(".a.jsonl.lock"))


def test_a_part_that_is_asked_later_ends_in_the_questions_order(tmp_path: Path) -> None:
    questions = make_questions(*TEXTS)
    answer_questions(questions, Scripted(), tmp_path / "whole.jsonl")
    for wanted in ([3, 4], [1], range(5)):
        answer_questions(questions, Scripted(), tmp_path / "parts.jsonl", wanted=wanted)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_an_interrupted_run_says_what_it_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        answer_questions(make_questions(*TEXTS), Scripted(lives=2), tmp_path / "a.jsonl")
    kept = (tmp_path / "a.jsonl").read_bytes().count(b"\n")
    assert f"keeps its {kept} answers: the same command asks the others" in capsys.readouterr().err


def test_the_answers_of_all_other_runs_are_kept_with_their_settings(tmp_path: Path) -> None:
    questions, path = make_questions("one", "two"), tmp_path / "a.jsonl"
    for number in range(4):
        answer_questions(questions, Scripted(settings={"seed": number}), path)
    names = ["a.jsonl.old", "a.jsonl.old.2", "a.jsonl.old.3", "a.jsonl"]
    assert [read_run_settings(tmp_path / name)["seed"] for name in names] == [0, 1, 2, 3]
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1


def spoil_folder(path: Path) -> None:
    path.mkdir()


def spoil_parent(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


def spoil_questions(path: Path) -> None:
    write_rows(path, [{"question_id": 1, "image": "a.png", "text": "Why?"}])


def spoil_annotations(path: Path) -> None:
    path.write_text('{"data": []}')


@pytest.mark.parametrize("spoil", [spoil_folder, spoil_parent, spoil_questions, spoil_annotations])
def test_an_answers_file_that_cannot_be_is_refused_before_a_model_loads_and_touched_by_nothing(
    here: Path, spoil: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "new/a.jsonl"
    path.parent.mkdir()
    spoil(path)
    before = sorted((each.name, each.read_bytes() if each.is_file() else b"") for each in here.rglob("*"))
    monkeypatch.setattr("llava.commands.eval_tasks.load", lambda _: pytest.fail("a model is loaded"))
    assert run_eval("--answers", str(path)) == 2
    assert str(path) in capsys.readouterr().err
    with pytest.raises(UsageError), AnswersFile(path, make_questions("Why?"), "m"):
        pass
    assert before == sorted((each.name, each.read_bytes() if each.is_file() else b"") for each in here.rglob("*"))


def test_two_runs_cannot_write_to_one_file(tmp_path: Path) -> None:
    questions, path = make_questions("one", "two"), tmp_path / "a.jsonl"
    with AnswersFile(path, questions, "scripted") as first:
        first.write(0, "1")
        with pytest.raises(UsageError, match=r"Another command is writing to '.*a\.jsonl'"):
            answer_questions(questions, Scripted(), path)
        first.write(1, "2")
    answer_questions(questions, again := Scripted(), path)
    assert again.asked == []


def test_a_stream_is_written_to_and_never_replaced_or_moved(tmp_path: Path) -> None:
    """/dev/stdout is a regular file where a shell redirects it to one, and /dev/full is a node that others need."""
    questions, target = make_questions("one", "two"), tmp_path / "redirected"
    answer_questions(questions, Scripted(), part := tmp_path / "part.jsonl")
    answers = part.read_bytes()
    with target.open("wb") as file:
        stream = Path(f"/dev/fd/{file.fileno()}")
        write_whole(stream, b"before\n")
        answer_questions(questions, Scripted(), stream)
        assert merge([part], stream) == 2
        check_answers_path(stream)
        assert is_stream(stream)
        assert os.fstat(file.fileno()).st_ino == target.stat().st_ino
    assert target.read_bytes() == b"before\n" + 2 * answers
    assert sorted(each.name for each in tmp_path.iterdir()) == [".part.jsonl.run", "part.jsonl", "redirected"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    merge([part], pipe)
    assert os.read(reader, 10_000) == answers
    os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_a_run_over_a_url_with_one_sentence(
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    questions = [Question(number, (), text, text) for number, text in enumerate(TEXTS)]
    is_over = threading.Event()

    def answer(text: str, _: int) -> bytes:
        if text != TEXTS[0]:
            is_over.wait(60)
        return events("x")

    with caplog.at_level(logging.ERROR), run_chat_server(ChatServer(answer)) as server:
        asker = UrlAsker(server.url, None, None, Sampling(max_new_tokens=8))
        try:
            with pytest.raises(LlavaError, match="No space left on device"):
                answer_questions(questions, asker, Path("/dev/full"))
        finally:
            asker.close()
            is_over.set()
    assert not caplog.records
    assert not recwarn.list
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    "rank", [{"WORLD_SIZE": "many"}, {"WORLD_SIZE": "2", "RANK": "x"}, {"WORLD_SIZE": "2", "RANK": "2"}]
)
def test_a_broken_environment_of_torchrun_is_named(
    here: Path, rank: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in rank.items():
        monkeypatch.setenv(name, value)
    assert run_eval("--check") == 2
    assert f"WORLD_SIZE is '{rank['WORLD_SIZE']}' and RANK is" in capsys.readouterr().err


def test_a_shard_is_merged_once_and_with_settings_only_of_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, parts = make_questions(*TEXTS), [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]
    for number, part in enumerate(parts):
        wanted = [range(2), range(2, 5)][number]
        answer_questions(questions, Scripted(settings={"seed": number}), part, wanted=wanted)
    with pytest.raises(UsageError, match=r"0\.jsonl' is named twice"):
        merge([*parts, tmp_path / "." / "0.jsonl"], tmp_path / "m.jsonl")
    name_settings_file(tmp_path / "m.jsonl").write_text('{"seed": "of what was there before"}')
    assert merge(parts, tmp_path / "m.jsonl") == 5
    assert "are not of one run's settings" in capsys.readouterr().err
    assert read_run_settings(tmp_path / "m.jsonl") == {}


@pytest.mark.parametrize("content", ["é".encode("latin-1"), b"\xff\xfe{\x00}\x00", b"[" * 100_000, b'{"a": '])
def test_a_question_file_that_is_no_json_or_not_utf_8_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "q").write_bytes(content)
    for read in (read_lines, read_science):
        with pytest.raises(UsageError, match="not a JSON"):
            read(tmp_path / "q", tmp_path)


def test_a_question_file_without_questions_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "data/mm-vet/llava-mm-vet.jsonl").write_text("\n\n")
    assert run_eval("--check") == 2
    assert "has no questions" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["../../x", "..", "a\nb\u202e", "x" * 300, "Org/Model:tag?", "a\\b"])
def test_a_servers_name_of_a_model_is_a_files_name_in_the_answers_folder(here: Path, model: str) -> None:
    with run_chat_server(ChatServer(lambda *_: events("x"), models={"data": [{"id": model}]})) as server:
        assert run_eval("--url", server.url, "--limit", "1") == 0
    (path,) = (here / "data/mmvet/answers").glob("[!.]*.jsonl")
    assert not set(path.name) & set("/\\:?\n\u202e")
    assert json.loads(path.read_text())["model_id"] == model


def test_models_whose_names_look_alike_have_files_of_their_own() -> None:
    assert name_safely("liuhaotian/llava-v1.5-7b") == "liuhaotian--llava-v1.5-7b"
    names = {name_safely(name) for name in ("a:b", "a?b", "a-b", "x" * 300, "x" * 301)}
    assert len(names) == 5


def test_a_damaged_image_fails_and_an_unusual_one_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "data/mm-vet/images"
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue", "lime")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.effect_noise((64, 48), 50).save(folder / "whole.png")
    (folder / "torn.png").write_bytes((folder / "whole.png").read_bytes()[:900])
    Image.new("RGB", (300, 200)).save(folder / "large.png")
    names = ("moving.gif", "torn.png", "large.png")
    rows: list[dict[str, object]] = [{"question_id": name, "image": name, "text": name} for name in names]
    write_rows(here / "data/mm-vet/llava-mm-vet.jsonl", rows)
    with run_chat_server(ChatServer(lambda *_: events("x"))) as server:
        flags = ("--url", server.url, "--answers", "a.jsonl")
        assert run_eval(*flags, "--max-image-pixels", "50k") == 1
        failures = (here / "a.jsonl.failures").read_text()
        assert server.asked == ["moving.gif"]
        said = capsys.readouterr().err
        assert "score the others: llava eval score mmvet a.jsonl --data data --partial" in said
        assert "llava: moving.gif: " in said
        assert "torn.png" in failures
        assert "--max-image-pixels" in failures
        assert run_eval(*flags, "--max-image-pixels", "100k") == 1
        assert server.asked == ["moving.gif", "large.png"]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but no.",
        "I\u2019m sorry",
        "I can\u2019t see it.",
        " I am unable to",
        "I apologize, but",
        "Sorry. No.",
    ],
)
def test_a_refusal_is_recognized_in_either_apostrophe(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ["sorry", "Sorry we're closed", "I candidly", "icecream", "AI", ""])
def test_an_answer_about_a_word_is_no_refusal(text: str) -> None:
    assert not is_refusal(text)


@pytest.mark.parametrize("model", ["llava-v1.5-7b", "liuhaotian--llava-v1.5-7b", "llava-hf/llava-1.5-7b-hf"])
def test_a_score_stands_beside_the_published_one_whatever_the_checkpoint_is_called(model: str) -> None:
    run = make_run([make_answer(place, float(place < 3)) for place in range(4)], model=model)
    assert "62.0 for llava-v1.5-7b, +13.00 here" in write_summary(run, Path("a.scores.json"))
