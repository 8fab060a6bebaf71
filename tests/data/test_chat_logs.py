"""Which requests of a log may be used: consent, damaged lines, rotated and foreign logs, continued conversations."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from llava.data.collection import chat_logs
from llava.data.collection.chat_logs import Removed, find_image, keep_longest, read_logs
from llava.errors import UsageError
from tests.data.user_logs import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "chat.jsonl")


def read(log: Log, *more: Path, max_turns: int = 9) -> tuple[list[str], dict[str, int]]:
    """The first questions of the requests, and the counts of what was left out."""
    removed = Removed()
    requests = keep_longest(list(read_logs([log.path, *more], removed, max_turns=max_turns)), removed)
    return [request.turns[0].text for request in requests], dict(removed.counts)


@pytest.mark.parametrize("consent", [None, "", "  ", False, True, 1, ["yes"], {"notice": "x"}])
def test_a_record_without_a_notice_that_was_consented_to_is_never_used(log: Log, consent: object) -> None:
    log.ask(1, "With consent?")
    log.add("Without?", consent=consent)
    assert read(log) == (["With consent?"], {"no consent": 1})


def test_the_original_s_log_has_no_consent(log: Log) -> None:
    chat = {"tstamp": 1.0, "type": "chat", "model": "llava", "state": {"messages": [["USER", "hi"]]}, "ip": "1.2.3.4"}
    log.write(json.dumps(chat).encode() + b"\n")
    assert read(log) == ([], {"no consent": 1})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"kind": "answer", "consent": "y', "not JSON (cut off or damaged)"),
        (b"\xff\xfe\x00garbage", "not JSON (cut off or damaged)"),
        (b"[" * 100_000, "not JSON (cut off or damaged)"),
        (b"[1, 2]", "not a record of a conversation"),
        (b"null", "not a record of a conversation"),
        (b'{"consent": "y", "kind": "vote"}', "a vote"),
        (b'{"consent": "y", "kind": "answer2"}', "a record of an unknown kind"),
        (b'{"consent": "y", "kind": "answer", "outcome": "failed"}', "the request was not answered"),
        (b'{"consent": "y", "kind": "answer", "outcome": "answered", "source": "web"}', "no messages"),
    ],
)
def test_a_line_that_cannot_be_used_is_counted_and_the_next_one_is_read(log: Log, line: bytes, reason: str) -> None:
    log.write(line + b"\n\n\0\0\0\n")
    log.ask(1, "And then?")
    assert read(log) == (["And then?"], {reason: 1})


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "the speakers do not take turns"),
        ([{"role": "assistant", "parts": ["hi"]}], "the speakers do not take turns"),
        ([{"role": "user", "parts": ["a"]}, {"role": "user", "parts": ["b"]}], "the speakers do not take turns"),
        ([{"role": "tool", "parts": ["a"]}], "the speakers do not take turns"),
        ([{"role": "user"}], "a message without parts"),
        ([{"role": "user", "parts": [3]}], "a message with an unknown part"),
        ([{"role": "user", "parts": [{"sha256": "../../etc/passwd"}, "what?"]}], "an image without a digest"),
        ([{"role": "user", "parts": [{"sha256": None}, "what?"]}], "an image without a digest"),
        ([{"role": "user", "parts": ["  "]}], "an empty question"),
        ([{"role": "user", "parts": ["see <image>"]}], "the text holds the markup <image>"),
        ([{"role": "user", "parts": ["a\0b"]}], "invalid text"),
        (["user"], "no messages"),
    ],
)
def test_messages_of_another_form_are_counted(log: Log, messages: object, reason: str) -> None:
    log.add(messages=messages)
    assert read(log) == ([], {reason: 1})


def test_a_line_that_is_too_long_is_skipped_without_being_held(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_logs, "_MOST_LINE_BYTES", 2**20)
    log.write(b'{"consent": "' + b"x" * 5 * 2**20 + b'"}\n')
    log.ask(1, "And then?")
    assert read(log) == (["And then?"], {"longer than 1 MiB": 1})


def test_a_rotated_log_and_its_copy_count_once_and_find_their_images(log: Log) -> None:
    digest = log.ask(1, "One?")
    rotated = log.path.with_name("chat.jsonl-20260131.gz")
    rotated.write_bytes(gzip.compress(log.path.read_bytes()))
    other = log.path.with_name("chat.jsonl.2")
    log.path.rename(other)
    log.ask(2, "Two?")
    removed = Removed()
    requests = list(read_logs([log.path, other, rotated], removed))
    assert [request.turns[0].text for request in requests] == ["Two?", "One?"]
    assert removed.counts == {"the same line of a log again": 1}
    assert find_image(requests[1], digest) == log.folder / f"{digest}.png"


def test_a_compressed_log_that_is_cut_off_gives_what_it_holds(log: Log, tmp_path: Path) -> None:
    for i in range(300):
        log.add(f"Question {i * 7919}?", time=float(i))
    data = gzip.compress(log.path.read_bytes())
    (tmp_path / "cut.gz").write_bytes(data[: len(data) // 2])
    (tmp_path / "wrong.gz").write_bytes(b"no gzip at all")
    removed = Removed()
    assert 10 < len(list(read_logs([tmp_path / "cut.gz"], removed))) < 300
    assert removed.counts["the compressed log is cut off or damaged here"] == 1
    assert list(read_logs([tmp_path / "wrong.gz"], removed)) == []
    assert removed.counts["the compressed log is cut off or damaged here"] == 2


def test_a_missing_log_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            list(read_logs([path], Removed()))


def test_of_a_conversation_only_its_longest_form_is_used(log: Log) -> None:
    log.add("What is it?")
    log.add("What is it?", "A cat.", "Which colour?")
    log.add("What is it?", "A cat.", "Which colour?", "Red.", "Sure?")
    log.add("What is it?", "A dog.", "Which colour?")
    log.add("Something else?")
    assert read(log) == (["What is it?", "Something else?"], {"continued in a longer conversation": 3})


def test_with_one_turn_all_forms_of_a_conversation_are_the_same_request(log: Log) -> None:
    log.add("What is it?")
    log.add("What is it?", "A cat.", "Which colour?")
    assert read(log, max_turns=1) == (["What is it?"], {"the same request again": 1})


def test_the_id_follows_from_what_was_asked_alone(log: Log, tmp_path: Path) -> None:
    other = Log(tmp_path / "other.jsonl")
    log.ask(1, "Same?", time=1.0, model="a")
    other.ask(1, "Same?", time=2.0, model="b")
    other.ask(2, "Same?")
    first, second, third = read_logs([log.path, other.path], Removed())
    assert first.id == second.id != third.id


@pytest.mark.parametrize("source", ["api", None, 1])
def test_consent_that_no_page_asked_for_is_not_believed(log: Log, source: object) -> None:
    log.ask(1, "What is this?", source=source)
    removed = Removed()
    assert list(read_logs([log.path], removed)) == []
    assert removed.counts == {"consent in a record that is not of the web chat": 1}


@pytest.mark.parametrize("time", [10**400, float("inf"), float("nan"), -1, "now"])
def test_a_time_that_is_none_is_zero(log: Log, time: object) -> None:
    log.ask(1, "What is this?", time=time)
    assert [request.time for request in read_logs([log.path], Removed())] == [0.0]
