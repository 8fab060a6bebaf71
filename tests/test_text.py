"""Text from outside is checked, and no stream loses what is written to it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llava.cli import main
from llava.text import Printer, find_flaw, fit_line, for_stream, is_unicode, make_visible


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def stream(encoding: str, kind: type[io.TextIOWrapper] = io.TextIOWrapper) -> io.TextIOWrapper:
    return kind(io.BytesIO(), encoding=encoding, write_through=True)


def written(to: io.TextIOWrapper) -> bytes:
    to.flush()
    assert isinstance(to.buffer, io.BytesIO)
    return to.buffer.getvalue()


@pytest.mark.parametrize("text", ["", "What?", "日本語 \u202e \x1b \n", "\U0001f431", "\ufffd"])
def test_text_has_no_flaw(text: str) -> None:
    assert find_flaw(text) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\udcffb", "is not valid UTF-8: at 1 it holds the byte 0xff"),
        ("\ud83d?", "holds half of a surrogate pair, U+D83D, at 0, which is no character"),
        ("ab\0", "holds the character U+0000, at 2, which no text has"),
    ],
)
def test_what_is_no_text_is_explained(text: str, says: str) -> None:
    assert find_flaw(text) == says


def test_a_terminal_shows_controls_and_obeys_none() -> None:
    text = "a\x1b]0;title\x07\x9b2J\u202eb\r\n\tc\x7f"
    shown = r"a\x1b]0;title\x07\x9b2J\u202eb\x0d" + "\n\tc" + r"\x7f"
    assert make_visible(text) == shown == for_stream(text, stream("utf-8", Terminal))
    assert for_stream(text, stream("utf-8")) == text


def test_a_name_fits_a_line_of_a_message() -> None:
    assert fit_line("a\nb\tc\r\x1b[2J\u2028日\udcff.png") == r"a\nb\tc\x0d\x1b[2J\u2028日\udcff.png"
    assert fit_line("x" * 200) == "x" * 200
    assert fit_line("x" * 201) == "x" * 197 + "..."


def test_what_an_encoding_has_not_is_escaped() -> None:
    assert for_stream("é日\udcff", stream("cp1252")) == r"é\u65e5\udcff"
    assert for_stream("é日\udcff", stream("ascii")) == r"\xe9\u65e5\udcff"
    assert for_stream("é日\udcff", stream("utf-8")) == r"é日\udcff"
    assert [is_unicode(stream(name)) for name in ("UTF-8", "utf8", "utf_16", "latin-1", "ascii")] == [True] * 3 + [
        False
    ] * 2


ANSWER = "日本 é \x1b[2J\u202e ende"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ask`` answers ANSWER, without a model."""
    from llava.backends.answerer import Answer

    def ask(*_: Any, on_text: Any = None, **__: Any) -> Answer:
        for piece in ANSWER if on_text else ():
            on_text(piece)
        return Answer(ANSWER, 5, 0, (), 4, True, 0.1, 0.2)

    monkeypatch.setattr("llava.answer.ask", ask)
    monkeypatch.setattr("llava.commands.ask.load", lambda _: SimpleNamespace(tokenizer=None))


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8", "utf-16", "shift_jis"])
def test_an_answer_is_written_in_any_encoding(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["ask", "What?"]) == 0
    said = b"".join(piece.encode(encoding, "backslashreplace") for piece in ANSWER + "\n")
    if encoding != "utf-16":  # which begins each text with a mark
        assert written(out) == said
    out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["ask", "What?", "--json", "--model", "m\udcff"]) == 0
    report = json.loads(written(out).decode(encoding))
    assert (report["answer"], report["finish_reason"], report["note"]) == (ANSWER, "stop", None)


@pytest.mark.usefixtures("answers")
def test_a_terminal_gets_an_answer_and_json_without_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    out = stream("utf-8", Terminal)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["ask", "What?"]) == 0
    assert written(out).decode() == "日本 é " + r"\x1b[2J\u202e" + " ende\n"
    out = stream("utf-8", Terminal)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["ask", "What?", "--json"]) == 0
    assert written(out).isascii()
    assert json.loads(written(out))["answer"] == ANSWER


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_answer_that_cannot_be_written_goes_to_standard_error(
    monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    for out, why in ((open("/dev/full", "w", encoding="utf-8"), "No space left on device"), (None, "it is closed")):  # noqa: SIM115
        err = stream("utf-8")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert main(["ask", "What?", *flags]) == 1
        answer, error = written(err).decode().rsplit("llava: error: ", 1)
        assert error == f"Standard output cannot be written ({why}); the output is above.\n"
        assert (json.loads(answer)["answer"] if flags else answer.strip()) == ANSWER
        sys.stdout.close()


@pytest.mark.usefixtures("answers")
def test_an_answer_is_given_though_standard_error_is_full_or_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llava.backends.answerer.Answer.explain", lambda *_: "It was cut.")
    for err in (open("/dev/full", "w", encoding="utf-8"), None):  # noqa: SIM115
        out = stream("utf-8")
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        assert main(["ask", "What?"]) == 0
        assert written(out).decode() == ANSWER + "\n"
        sys.stderr.close()


def test_a_reader_who_left_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w", encoding="utf-8", closefd=True) as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(BrokenPipeError):
            Printer().say("a")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)


@pytest.mark.parametrize(
    "words",
    [
        ["ask", "What \udcff is it?"],
        ["ask", "-q", "\ud800"],
        ["ask", "What?\0"],
        ["ask", "What?", "--stop", "\udcff"],
        ["chat", "--bad-words", "a\0b"],
    ],
)
def test_what_is_no_text_is_refused_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr("llava.commands.ask.load", None)
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("llava: error: The ")


def run(words: list[str | bytes], redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, through a shell that redirects."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "llava", *words],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        cwd=Path(__file__).parents[1],
    )


C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "20"}


@pytest.mark.parametrize(
    ("words", "redirect", "code"),
    [
        (["--version"], ">/dev/full", 1),
        (["--help"], ">&-", 0),
        (["--version"], "2>&-", 0),
        (["serve", "--help"], "", 0),
        (["paint\x1b[2J"], "2>/dev/full", 2),
        ([b"paint\xff"], "", 2),
        (["info"], ">&-", 1),
        (["info", "--image", "examples/demo.png"], ">/dev/full", 1),
        (["info", b"nowhere-\xff\x1b"], "", 1),
        (["ask", b"what\xff"], "", 2),
        (["serve", "--name", b"a\xff"], "", 2),
        (["serve", "--host", b"a\xff"], "", 2),
        (["serve", "--cors-origin", b"http://a\xff"], "", 2),
        (["serve", "--controller", "http://["], "", 2),
    ],
)
def test_a_command_ends_as_it_should_in_a_plain_locale(words: list[str | bytes], redirect: str, code: int) -> None:
    done = run(words, redirect, **C)
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr
    assert code == 0 or "2>" in redirect or b"llava: error: " in done.stderr
