"""The original's command line: its images are those of ``llava ask``, and no answer is lost."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

from llava.backends.answerer import Answer
from llava.eval import run_llava

ANSWER = "日本 é"


@pytest.fixture
def flags(next_folder: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A whole command line, whose answer is ANSWER."""
    monkeypatch.setattr("llava.answer.answer", lambda *_, **__: Answer(ANSWER, 5, 0, (), 4, True, 0.1, 0.2))
    return ["--model-path", str(next_folder), "--image-file", str(photo), "--query", "What?"]


def test_an_image_of_too_many_px_names_the_flag_that_allows_it(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("1", (15_000, 8_000)).save(tmp_path / "map.png")
    flags += ["--image-file", str(tmp_path / "map.png")]
    assert run_llava.main(flags) == 1
    assert "at most 100,000,000 are allowed" in (said := capsys.readouterr().err)
    assert "--max-image-pixels 120M" in said
    assert run_llava.main([*flags, "--max-image-pixels", "120M"]) == 0
    assert capsys.readouterr() == (ANSWER + "\n", "")


def test_an_answer_that_cannot_be_written_goes_to_standard_error(
    flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for out, why in ((open("/dev/full", "w", encoding="utf-8"), "No space left on device"), (None, "it is closed")):  # noqa: SIM115
        err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert run_llava.main(flags) == 1
        err.flush()
        assert isinstance(err.buffer, io.BytesIO)
        answer, error = err.buffer.getvalue().decode().rsplit("llava: error: ", 1)
        assert answer.strip() == ANSWER
        assert error == f"Standard output cannot be written ({why}); the output is above.\n"
        sys.stdout.close()


def test_an_empty_separator_is_a_mistake_and_a_data_uri_is_whole_in_any_case(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_llava.main([*flags, "--sep", ""]) == 2
    assert "The separator of image names (sep) is empty" in capsys.readouterr().err
    uri = "DATA:image/png;base64,iVBORw0K"
    assert run_llava.main([*flags, "--image-file", uri]) == 1
    assert "error: The data URI is not an image in a supported format" in capsys.readouterr().err
