"""Benchmarks behind a URL: our own server answers as the model does here, and a bad server costs no answer unnamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.errors import EngineClosed, EngineFailed, UsageError
from llava.eval.answer_run import answer_questions
from llava.eval.askers import MOST_ATTEMPTS, LocalAsker, UrlAsker
from llava.eval.task import Question
from llava.sampling import Sampling
from tests.eval.chat_server import DROP, ChatServer, events, run_chat_server
from tests.eval.test_benchmark_table import write_rows


def make_questions(*texts: str, images: tuple[Path, ...] = ()) -> list[Question]:
    return [Question(i, images, text, text) for i, text in enumerate(texts)]


def ask(server: ChatServer, path: Path, *texts: str, key: str | None = None, model: str | None = None) -> Any:
    asker = UrlAsker(server.url, model, key, Sampling(max_new_tokens=8), pause_s=0)
    try:
        return answer_questions(make_questions(*texts), asker, path)
    finally:
        asker.close()


def texts_in(path: Path) -> dict[int, str]:
    return {row["question_id"]: row["text"] for row in map(json.loads, path.read_text().splitlines())}


def test_our_own_server_answers_as_the_model_on_this_machine(tmp_path: Path) -> None:
    from llava.backends.engine_backend import EngineBackend
    from llava.model.checkpoint import load_model
    from tests.serve.serving import run_server

    exif = Image.Exif()
    exif[0x0112] = 6
    for number, color in enumerate(("red", "blue")):
        image = Image.new("RGB", (120, 80), "white")
        image.paste(color, (20 + 40 * number, 10, 60 + 40 * number, 50))
        image.save(tmp_path / f"{number}.jpg", exif=exif)  # which the original does not turn
    asked = ("What color is the square?", "Describe the image.", "Where is <image>?")
    pairs = [(tmp_path / f"{number}.jpg", text) for text in asked for number in (0, 1)]
    questions = [Question(place, (path,), text, text) for place, (path, text) in enumerate(pairs)]
    loaded = load_model("embedded")
    sampling = Sampling(max_new_tokens=12)
    wanted = list(LocalAsker(loaded, "embedded", sampling).ask(questions))
    with run_server(EngineBackend(loaded)) as running:
        asker = UrlAsker(running.url, None, None, sampling)
        try:
            assert list(asker.ask(questions)) == wanted
        finally:
            asker.close()
    assert len({outcome.text for outcome in wanted}) >= 4
    assert None not in {outcome.text for outcome in wanted}


def test_a_server_that_stumbles_is_asked_again(tmp_path: Path) -> None:
    faults = {"busy": (429, b'{"error": {"message": "full"}}'), "loading": (503, b"{}"), "dropped": DROP}
    faults["torn"] = events("half an ans", reason=None)
    with run_chat_server(
        ChatServer(lambda text, n: faults[text] if text in faults and n < 2 else events(text[::-1], "!"))
    ) as server:
        summary = ask(server, tmp_path / "a.jsonl", "one", *faults)
    assert not summary.failed
    assert texts_in(tmp_path / "a.jsonl") == {
        i: text[::-1] + "!" for i, text in enumerate(["one", "busy", "loading", "dropped", "torn"])
    }
    assert server.asked.count("busy") == 3


def test_what_a_server_refuses_or_garbles_fails_alone_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "long": (400, b'{"error": {"message": "too many tokens"}}'),
        "broken": (500, b"<html>oops</html>"),
        "garbled": b"data: {nonsense\n\ndata: [DONE]\n\n",
        "html": b"<html>hello</html>",
        "empty": events(""),
        "cut": events("so long", reason="length"),
        "refused": events("I'm sorry, but I can't."),
    }
    with run_chat_server(ChatServer(lambda text, n: said.get(text) or events("fine"))) as server:
        summary = ask(server, tmp_path / "a.jsonl", "one", *said)
        assert sorted(summary.failed) == [1, 2, 3, 4]
        assert "too many tokens" in summary.failed[1]
        assert (summary.empty, summary.cut, summary.refused) == ([5], [6], [7])
        assert texts_in(tmp_path / "a.jsonl") == {0: "fine", 5: "", 6: "so long", 7: "I'm sorry, but I can't."}
        assert "questions that failed: 4 (1, 2, 3, 4)" in capsys.readouterr().err
        said.clear()
        asked = len(server.asked)
        ask(server, tmp_path / "a.jsonl", "one", "long", "broken", "garbled", "html", "empty", "cut", "refused")
        assert sorted(server.asked[asked:]) == ["broken", "garbled", "html", "long"]  # the others are kept
    assert list(texts_in(tmp_path / "a.jsonl")) == list(range(8))


def test_a_server_that_goes_away_ends_the_run_and_what_it_said_is_kept(tmp_path: Path) -> None:
    def die(text: str, nth: int) -> Any:
        if text != "three":
            return events("yes")
        server.models = (503, b"")
        return DROP

    with run_chat_server(ChatServer(die)) as server:
        with pytest.raises(EngineClosed, match="closed the connection"):
            ask(server, tmp_path / "a.jsonl", "one", "two", "three", "four")
        assert server.asked.count("three") == MOST_ATTEMPTS
        assert texts_in(tmp_path / "a.jsonl") == {0: "yes", 1: "yes"}
        server.models = {"data": [{"id": "fake"}]}
        server.answer = lambda text, n: events("now")
        ask(server, tmp_path / "a.jsonl", "one", "two", "three", "four")
    assert texts_in(tmp_path / "a.jsonl") == {0: "yes", 1: "yes", 2: "now", 3: "now"}


@pytest.mark.parametrize(
    ("models", "error", "said"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}]}, UsageError, "serves 2 models (a, b): name one of them with --url-model"),
        ({"data": []}, UsageError, "lists no models: name one of them with --url-model"),
        ((401, b"no"), UsageError, "set the right one in OPENAI_API_KEY"),
        ((200, b"<html>"), EngineFailed, "is not OpenAI-compatible"),
        ((500, b"down"), EngineFailed, "status 500: down"),
    ],
)
def test_a_server_that_cannot_be_used_is_refused_before_anything_is_asked(
    tmp_path: Path, models: Any, error: type[Exception], said: str
) -> None:
    with run_chat_server(ChatServer(lambda text, n: events("no"), models)) as server, pytest.raises(error) as caught:
        ask(server, tmp_path / "a.jsonl", "one")
    assert said in str(caught.value)
    assert not server.asked


def test_a_key_that_is_rejected_ends_the_run_at_once(tmp_path: Path) -> None:
    with (
        run_chat_server(ChatServer(lambda text, n: (401, b"{}"))) as server,
        pytest.raises(UsageError, match="rejected the API key: set the right one in OPENAI_API_KEY"),
    ):
        ask(server, tmp_path / "a.jsonl", *map(str, range(200)), key="wrong")
    assert len(server.asked) < 100


def test_a_url_that_nobody_serves_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = tmp_path / "mm-vet"
    write_rows(bench / "llava-mm-vet.jsonl", [{"question_id": "v1", "image": "a.png", "text": "?"}])
    (bench / "images").mkdir()
    Image.new("RGB", (8, 8)).save(bench / "images/a.png")
    flags = ["eval", "mmvet", "--data", str(tmp_path), "--partial"]
    assert main([*flags, "--url", "http://127.0.0.1:9/v1"]) == 1
    assert "127.0.0.1:9/v1 cannot be reached" in capsys.readouterr().err
    assert main([*flags, "--url", "ftp://there"]) == 2
    assert "'ftp://there' is not the URL of an engine" in capsys.readouterr().err
