"""From a chat with consent to a row: the server logs, and ``llava data collect`` asks the same server as teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.cli import main
from llava.image.source import load_image
from llava.serve import chat_transcript
from llava.serve.chat_session import ChatSessions, ChatSettings
from llava.serve.limits import Settings
from llava.serve.uploaded_images import UploadedImages
from tests.data.user_logs import draw
from tests.serve.serving import PATIENT, Puppet, Running, run_server
from tests.serve.tab import Tab, need_gradio, needs_browser, run_browser, run_web

NOTICE = "Chats and images may be used to train models. <b>Send no personal data.</b>"
CHAT = ChatSettings(temperature=0.0, top_p=0.7, max_new_tokens=50, detail="auto")


def log_into(path: Path, consent: str = NOTICE) -> Settings:
    return Settings(limits=PATIENT.limits, log=path, consent=consent)


def chat_on_page(running: Running, question: str, image: Path, log: Path) -> ChatSessions:
    """Asks as the web chat does, and then votes for the answer."""
    uploaded = UploadedImages(running.service.images, [image.parent], log.with_name(f"{log.name}-images"))
    sessions = ChatSessions(running.service, uploaded)
    messages = chat_transcript.write_question(question, [str(image)])

    async def ask() -> str:
        text = ""
        async for answer in sessions.ask("page", messages, CHAT):
            text = answer.text
        return text

    answered = [*messages, chat_transcript.write_answer(running.do(ask))]
    sessions.vote("page", answered, len(answered) - 1, "Like")
    return sessions


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    path = tmp_path / "uploads" / "photo.png"
    draw(1).save(path)
    return path


def test_records_of_the_web_chat_hold_the_notice_and_those_of_the_api_do_not(tmp_path: Path, image: Path) -> None:
    log = tmp_path / "log.jsonl"
    with run_server(Puppet(), log_into(log)) as running:
        chat_on_page(running, "What is it?", image, log)
        assert running.chat("Hello").status == 200
    answer, vote, by_api = read_log(log)
    assert (answer["kind"], answer["consent"]) == ("answer", NOTICE)
    assert (vote["kind"], vote["consent"]) == ("vote", NOTICE)
    assert (by_api["source"], "consent" in by_api) == ("api", False)


def test_without_a_notice_no_record_holds_consent(tmp_path: Path, image: Path) -> None:
    log = tmp_path / "log.jsonl"
    with run_server(Puppet(), log_into(log, "")) as running:
        chat_on_page(running, "What is it?", image, log)
    assert ["consent" in record for record in read_log(log)] == [False, False]


def test_a_chat_becomes_a_row_that_the_server_itself_answers_as_teacher(tmp_path: Path, image: Path) -> None:
    log, out = tmp_path / "log.jsonl", tmp_path / "out"
    backend = Puppet(word="soft colours ")
    with run_server(backend, log_into(log)) as running:
        chat_on_page(running, "What is in the image?", image, log)
        assert running.chat("A request of the API").status == 200
        command = ["data", "collect", str(log), "--out", str(out)]
        assert main([*command, "--teacher", running.url, "--teacher-model", "puppet", "--yes"]) == 0
        assert json.loads((out / "data.json").read_text(encoding="utf-8")) == []  # a loop of the same words
        backend.num_tokens, backend.word = 1, "It shows soft colours."
        flags = ["--teacher", running.url, "--teacher-model", "puppet", "--yes", "--retry-invalid"]
        assert main([*command, *flags]) == 0
    asked = backend.requests[-1].messages
    assert [message.role for message in asked] == ["system", "user"]
    assert asked[1].parts[0].loaded.digest == load_image(image).digest
    (row,) = json.loads((out / "data.json").read_text(encoding="utf-8"))
    values = [turn["value"] for turn in row["conversations"]]
    assert values == ["<image>\nWhat is in the image?", "It shows soft colours."]
    assert load_image(out / row["image"]).digest == load_image(image).digest


@needs_browser
def test_the_page_shows_the_notice_as_text(tmp_path: Path) -> None:
    need_gradio()
    with run_web(Puppet(), log_into(tmp_path / "log.jsonl")) as running, run_browser() as context:
        tab = Tab(context, running)
        assert tab.find("#consent").inner_text() == NOTICE
