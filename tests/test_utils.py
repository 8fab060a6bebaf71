"""The original's ``llava.utils`` names do what they say, without its side effects."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

import llava.utils as front


def test_a_logger_is_made_once_and_writes_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "LOGDIR", str(tmp_path))
    logger = front.build_logger("test-logger", "words.log")
    try:
        assert front.build_logger("test-logger", "words.log") is logger
        logger.info("one line")
        lines = (tmp_path / "words.log").read_text(encoding="utf-8").splitlines()
        assert len(lines) == 1
        assert lines[0].endswith("| INFO | test-logger | one line")
    finally:
        for handler in list(logger.handlers):
            handler.close()
            logger.removeHandler(handler)


def test_a_semaphore_prints_its_free_places() -> None:
    assert front.pretty_print_semaphore(None) == "None"
    assert front.pretty_print_semaphore(asyncio.Semaphore(3)) == "Semaphore(value=3, locked=False)"


def test_layers_built_after_disable_torch_init_are_initialised() -> None:
    import torch

    front.disable_torch_init()
    torch.manual_seed(0)
    assert torch.nn.Linear(64, 64).weight.std() > 0.01


def test_moderation_that_cannot_be_asked_flags_nothing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise TimeoutError("no route")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with caplog.at_level(logging.WARNING):
        assert front.violates_moderation("hello") is False
    assert "no route" in caplog.text


def test_outside_a_distributed_group_both_printers_print(capsys: pytest.CaptureFixture[str]) -> None:
    front.rank0_print("first")
    front.rank_print("second")
    assert capsys.readouterr().out == "first\nsecond\n"


def test_a_stream_that_logs_says_whole_lines(caplog: pytest.LogCaptureFixture) -> None:
    stream = front.StreamToLogger(logging.getLogger("stream"), logging.WARNING)
    print("one", "two\nthr", sep="-", end="", file=stream)
    assert caplog.messages == ["one-two"]
    stream.flush()
    stream.flush()
    assert caplog.messages == ["one-two", "thr"]
    assert stream.encoding == stream.terminal.encoding
