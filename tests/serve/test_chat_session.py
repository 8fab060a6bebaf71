"""Web chat sessions without a page: transcripts, requests, errors, votes, saved images."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.backends.protocol import ChatRequest, SentImage, Usage
from llava.errors import BadImage, ContextTooLong, EngineFull, LlavaError, UsageError
from llava.image.geometry import RELEASED_PINPOINTS, Tiling
from llava.image.source import Limits as ImageLimits
from llava.image.source import LoadedImage, load_image
from llava.sampling import Sampling
from llava.serve import chat_session, chat_transcript, token_map_panel
from llava.serve.chat_session import ChatSessions, ChatSettings, RunningAnswer, make_request
from llava.serve.chat_transcript import Message, Turn
from llava.serve.limits import Limits, Settings
from llava.serve.uploaded_images import UploadedImages
from tests.serve.serving import PATIENCE_S, Puppet, Running, run_server, wait_until

SETTINGS = ChatSettings(temperature=0.0, top_p=0.7, max_new_tokens=50, detail="auto")


class Loader:
    """Decodes here."""

    image_limits = ImageLimits(max_bytes=100_000)

    async def load_files(self, files: Sequence[tuple[str, bytes]]) -> list[LoadedImage]:
        return [replace(load_image(data, self.image_limits), name=name) for name, data in files]


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    (tmp_path / "up").mkdir()
    for name, color in (("red.png", "red"), ("blue.png", "blue")):
        Image.new("RGB", (40, 30), color).save(tmp_path / "up" / name)
    return tmp_path / "up"


@pytest.fixture
def uploaded(uploads: Path) -> UploadedImages:
    return UploadedImages(Loader(), [uploads])  # type: ignore[arg-type]


def ask(
    uploaded: UploadedImages,
    messages: Sequence[Message],
    limits: Limits | None = None,
    settings: ChatSettings = SETTINGS,
) -> ChatRequest:
    return asyncio.run(make_request(messages, settings, uploaded, limits or Limits()))


def said(request: ChatRequest) -> list[Any]:
    """Roles and parts, images by their names."""
    return [
        (one.role, *(part if isinstance(part, str) else part.loaded.name for part in one.parts))
        for one in request.messages
    ]


def test_a_question_holds_what_was_typed_and_is_shown_as_it_was_typed() -> None:
    text = "Is 1 < 2 && <image>\n*so* &lt;?"
    images, words = chat_transcript.write_question(text, ["/x/a.png", "/x/b.jpg"])
    assert chat_transcript.read_message(words) == (text, [])
    assert chat_transcript.read_message(images) == ("", ["/x/a.png", "/x/b.jpg"])
    assert [part["file"]["mime_type"] for part in images["content"]] == ["image/png", "image/jpeg"]


def test_a_conversation_becomes_a_request(uploaded: UploadedImages, uploads: Path) -> None:
    red, blue = str(uploads / "red.png"), str(uploads / "blue.png")
    messages = [
        *chat_transcript.write_question("What?", [red]),
        chat_transcript.write_answer("Red & <b>."),
        chat_transcript.write_notice("The answer was cut."),
        *chat_transcript.write_question("And these?", [blue, red]),
    ]
    request = ask(uploaded, messages, settings=ChatSettings(0.5, 0.9, 77, "low"))
    assert said(request) == [
        ("user", "red.png", "What?"),
        ("assistant", "Red & <b>."),
        ("user", "blue.png", "red.png", "And these?"),
    ]
    sent = [part for one in request.messages for part in one.parts if isinstance(part, SentImage)]
    assert {one.detail for one in sent} == {"low"}
    assert sent[0].loaded.image.getpixel((0, 0)) == (255, 0, 0)
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.max_new_tokens) == (0.5, 0.9, 77)


def test_a_refused_question_is_shown_and_not_carried_along(uploaded: UploadedImages, uploads: Path) -> None:
    refused = [
        *chat_transcript.write_question("Bad", ["/gone/bad.png"]),
        chat_transcript.write_notice("No.", is_error=True),
    ]
    messages = [*refused, *chat_transcript.write_question("Good", [str(uploads / "red.png")])]
    assert said(ask(uploaded, messages)) == [("user", "red.png", "Good")]


def test_turns_are_found_by_any_of_their_messages() -> None:
    first = [*chat_transcript.write_question("One", ["/a.png"]), chat_transcript.write_answer("1")]
    second = [*chat_transcript.write_question("Two", []), chat_transcript.write_notice("No.", is_error=True)]
    messages = [*first, *second]
    assert chat_transcript.find_turns(messages) == [Turn("One", ("/a.png",), "1", 0, 3), Turn("Two", (), None, 3, 4)]
    assert [chat_transcript.find_turn(messages, index).question for index in range(5)] == ["One"] * 3 + ["Two"] * 2
    with pytest.raises(UsageError, match="no question"):
        chat_transcript.find_turn([chat_transcript.write_notice("No.", is_error=True)], 0)


def test_a_refusal_goes_when_its_question_went() -> None:
    question, refusal = chat_transcript.write_question("One", []), chat_transcript.write_notice("No.", is_error=True)
    cut = chat_transcript.write_notice("The answer was cut.")
    assert chat_transcript.tidy([refusal]) == []
    assert chat_transcript.tidy([*question, refusal]) == [*question, refusal]
    answered = [*question, chat_transcript.write_answer("1"), cut]
    assert chat_transcript.tidy([*answered, refusal]) == answered


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(messages=2), "3 messages in this chat; the limit messages is 2"),
        (Limits(characters=5), "11 characters of text in this chat; the limit characters is 5"),
        (Limits(images=1), "2 images in this chat; the limit images is 1"),
    ],
)
def test_a_chat_over_a_limit_is_refused_by_its_name(
    uploaded: UploadedImages, uploads: Path, limits: Limits, message: str
) -> None:
    red = str(uploads / "red.png")
    messages = [
        *chat_transcript.write_question("What?", [red]),
        chat_transcript.write_answer("Red"),
        *chat_transcript.write_question("So?", [red]),
    ]
    with pytest.raises(LlavaError, match=message):
        ask(uploaded, messages, limits)


def test_the_longest_answer_is_within_the_servers_limit(uploaded: UploadedImages) -> None:
    request = ask(uploaded, chat_transcript.write_question("What?", []), Limits(new_tokens=9))
    assert request.sampling.max_new_tokens == 9


@pytest.mark.parametrize(
    "messages", [[], [chat_transcript.write_answer("1")], chat_transcript.write_question(" ", ["/a.png"])]
)
def test_nothing_asked_is_refused(uploaded: UploadedImages, messages: list[Message]) -> None:
    with pytest.raises(UsageError, match="Type"):
        ask(uploaded, messages)


def test_only_what_was_uploaded_is_read(uploaded: UploadedImages, uploads: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(outside)
    (uploads / "link.png").symlink_to(outside)
    for path in (outside, uploads / ".." / "secret.png", uploads / "link.png", Path("/etc/passwd")):
        with pytest.raises(BadImage, match="was not uploaded here"):
            asyncio.run(uploaded.load([str(path)]))
    with pytest.raises(BadImage, match=r"gone\.png is no longer on this server"):
        asyncio.run(uploaded.load([str(uploads / "gone.png")]))


def test_a_kept_conversation_comes_back_without_what_is_not_here(
    uploaded: UploadedImages, uploads: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "elsewhere.png")
    red, gone, elsewhere = str(uploads / "red.png"), str(uploads / "gone.png"), str(tmp_path / "elsewhere.png")
    first, second = (
        chat_transcript.write_question("Is 1 < 2?", [red]),
        chat_transcript.write_question("And?", [gone, elsewhere]),
    )
    answer, notice = chat_transcript.write_answer("<b>1</b>"), chat_transcript.write_notice("It was cut.")
    kept = json.dumps([*first, answer, notice, *second])
    gone_notice = "2 images of this chat are no longer on the server. Attach them again to ask more about them."
    question = chat_transcript.write_question("And?", [])
    assert chat_transcript.read_kept(kept, uploaded) == [
        *first,
        answer,
        notice,
        *question,
        chat_transcript.write_notice(gone_notice),
    ]


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "null",
        "{",
        "5",
        "[5]",
        '[{"role": "user"}]',
        '[{"role": "user", "content": "Hi"}]',
        '[{"role": "user", "content": [{"type": "text", "text": 5}]}]',
        '[{"role": "user", "content": [{"type": "file", "file": {"path": 5}}]}]',
        '[{"role": "user", "content": [{"type": "file", "file": {"path": "a\\u0000"}}]}]',
        "[" * 100_000,
    ],
)
def test_nonsense_in_the_place_of_a_kept_conversation_is_none(uploaded: UploadedImages, kept: str) -> None:
    assert chat_transcript.read_kept(kept, uploaded) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"just text", r"bad\.png is not an image|The image is not an image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "damaged or cut off"),
        (bytes(100_001), r"bad\.png has more than 100,000 bytes"),
    ],
)
def test_a_bad_upload_is_refused_in_a_sentence(
    uploaded: UploadedImages, uploads: Path, data: bytes, message: str
) -> None:
    (uploads / "bad.png").write_bytes(data)
    with pytest.raises(BadImage, match=message):
        asyncio.run(uploaded.load([str(uploads / "bad.png")]))


def test_an_image_is_saved_once_by_its_digest(uploads: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    uploaded = UploadedImages(Loader(), [uploads], kept)  # type: ignore[arg-type]
    (uploads / "again.png").write_bytes((uploads / "red.png").read_bytes())
    paths = [str(uploads / name) for name in ("red.png", "again.png", "blue.png", "red.png")]
    first, again, blue, _ = asyncio.run(uploaded.load(paths))
    assert first.digest == again.digest != blue.digest
    assert [uploaded.find_digest(path) for path in paths[:3]] == [first.digest, first.digest, blue.digest]
    assert uploaded.find_digest("/elsewhere.png") is None
    assert sorted(path.name for path in kept.iterdir()) == sorted(f"{one.digest}.png" for one in (first, blue))
    with Image.open(kept / f"{blue.digest}.png") as image:
        assert load_image(image).digest == blue.digest


def test_a_full_disk_costs_the_log_and_not_the_answer(
    uploads: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "kept").write_text("a file where the folder would be")
    uploaded = UploadedImages(Loader(), [uploads], tmp_path / "kept")  # type: ignore[arg-type]
    for name in ("red.png", "blue.png"):
        (image,) = asyncio.run(uploaded.load([str(uploads / name)]))
        assert image.size == (40, 30)
    assert [record.message.partition(":")[0] for record in caplog.records] == [f"{tmp_path / 'kept'} cannot be written"]


def test_what_went_wrong_is_said_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    assert chat_session.explain(ContextTooLong(900, 512)) == f"{ContextTooLong(900, 512)} Or start a new chat."
    assert chat_session.explain(EngineFull("1,024 requests wait.")) == "1,024 requests wait."
    assert not caplog.records
    ours = chat_session.explain(RuntimeError("0x7f secret"))
    assert "0x7f" not in ours
    assert ours.startswith("The server failed on this request.")
    assert "0x7f secret" in caplog.text
    assert caplog.records[0].getMessage().split()[1] in ours  # the name that finds it in the log


EMPTY = "The model gave an empty answer. Rephrase the question, or try again with a higher temperature."


@pytest.mark.parametrize(
    ("running_answer", "sentence"),
    [
        (RunningAnswer(text="Yes.", reason="stop"), None),
        (RunningAnswer(text="Yes", reason="cancelled"), "You stopped the answer here."),
        (RunningAnswer(reason="cancelled"), "You stopped the answer before its first word."),
        (RunningAnswer(text=" \n", reason="stop"), EMPTY),
        (RunningAnswer(reason="stop"), EMPTY),
        (RunningAnswer(error="No."), "No."),
        (RunningAnswer(text="Ye", error="No."), "The answer was interrupted. No."),
    ],
)
def test_how_an_answer_ended_is_said_where_it_matters(running_answer: RunningAnswer, sentence: str | None) -> None:
    assert chat_session.describe_end(running_answer) == sentence


def test_a_cut_answer_says_what_cut_it() -> None:
    request = ChatRequest((), Sampling(max_new_tokens=1000))
    for usage, sentence in (
        (Usage(7, 1000), "was cut off after 1,000 tokens, the longest answer that the settings allow"),
        (Usage(7, 999), "was cut off: this chat fills the model's context"),
        (None, "was cut off: it reached the longest length that the settings or the model's context allow"),
    ):
        running_answer = RunningAnswer(text="Ye", reason="length", request=request, usage=usage)
        assert sentence in str(chat_session.describe_end(running_answer))


@pytest.fixture(scope="module")
def puppet() -> Puppet:
    return Puppet(num_tokens=5)


@pytest.fixture(scope="module")
def running(puppet: Puppet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("log") / "sessions.jsonl"
    limits = Limits(running=1, waiting=0, decode_s=PATIENCE_S)
    with run_server(puppet, Settings(limits=limits, log=log, decoders=1)) as server:
        yield server


@pytest.fixture(autouse=True)
def calm(puppet: Puppet) -> None:
    """Every test begins with a puppet that answers, whatever the one before it did to it."""
    puppet.error, puppet.error_after = None, 0
    puppet.gate.set()


@pytest.fixture
def sessions(running: Running, puppet: Puppet, uploaded: UploadedImages) -> Iterator[ChatSessions]:
    yield ChatSessions(running.service, uploaded)
    puppet.gate.set()
    wait_until(lambda: running.service.num_open == 0)


def lines(running: Running) -> list[dict[str, Any]]:
    log = running.service.settings.log
    assert log is not None
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def listen(
    running: Running, sessions: ChatSessions, then: Callable[[RunningAnswer], None] = lambda running_answer: None
) -> RunningAnswer:
    """Asks, and calls ``then`` on all news; the answer at its end."""

    async def run() -> RunningAnswer:
        last = None
        async for last in sessions.ask("page", chat_transcript.write_question("Hi", []), SETTINGS):
            then(last)
        assert last is not None
        return last

    running_answer = running.do(run)
    assert isinstance(running_answer, RunningAnswer)
    return running_answer


def test_an_answer_comes_in_pieces(running: Running, sessions: ChatSessions) -> None:
    seen: list[str] = []
    running_answer = listen(running, sessions, lambda running_answer: seen.append(running_answer.text))
    assert running_answer.text == seen[-1] == "word " * 5
    assert len(seen) > 1
    assert (running_answer.reason, running_answer.usage) == ("stop", Usage(7, 5))
    assert not sessions.is_busy("page")


def test_stopping_frees_the_work_and_keeps_the_text(running: Running, sessions: ChatSessions, puppet: Puppet) -> None:
    def stop(running_answer: RunningAnswer) -> None:
        if sessions.is_busy("page") and running_answer.text:
            puppet.gate.clear()
            sessions.stop("page")

    running_answer = listen(running, sessions, stop)
    assert running_answer.text.startswith("word ")
    assert running_answer.reason == "cancelled"
    assert (puppet.num_open, running.service.num_open) == (0, 0)
    assert chat_session.describe_end(running_answer) == "You stopped the answer here."


def test_closing_the_news_frees_the_work(running: Running, sessions: ChatSessions, puppet: Puppet) -> None:
    async def leave() -> None:
        news = sessions.ask("page", chat_transcript.write_question("Hi", []), SETTINGS)
        async for running_answer in news:
            if running_answer.text:
                puppet.gate.clear()
                break
        assert puppet.num_open == 1
        await news.aclose()
        while puppet.num_open:
            await asyncio.sleep(0.005)

    puppet.num_tokens = 10_000
    try:
        running.do(leave)
    finally:
        puppet.num_tokens = 5
    assert puppet.num_open == 0


def test_a_page_that_asks_anew_drops_its_old_answer(running: Running, sessions: ChatSessions, puppet: Puppet) -> None:
    async def run() -> tuple[list[RunningAnswer], list[RunningAnswer]]:
        puppet.gate.clear()

        async def collect() -> list[RunningAnswer]:
            return [one async for one in sessions.ask("page", chat_transcript.write_question("Hi", []), SETTINGS)]

        old = asyncio.create_task(collect())
        while not puppet.num_open:
            await asyncio.sleep(0.005)
        new = asyncio.create_task(collect())
        dropped = await old  # though it was not let go on
        puppet.gate.set()
        return dropped, await new

    old, new = running.do(run)
    assert old == []
    assert new[-1].text == "word " * 5


def test_a_refusal_and_a_break_are_sentences(running: Running, sessions: ChatSessions, puppet: Puppet) -> None:
    puppet.error = EngineFull("So many wait.")
    running_answer = listen(running, sessions)
    assert (running_answer.error, running_answer.text) == ("So many wait.", "")
    puppet.error, puppet.error_after = LlavaError("The engine broke."), 2
    running_answer = listen(running, sessions)
    assert (running_answer.error, running_answer.text) == ("The engine broke.", "word word ")


def test_an_overloaded_server_says_so(running: Running, sessions: ChatSessions, puppet: Puppet) -> None:
    async def run() -> list[RunningAnswer]:
        puppet.gate.clear()
        first = sessions.ask("first", chat_transcript.write_question("Hi", []), SETTINGS)
        begun = asyncio.create_task(anext(first))
        while not puppet.num_open:
            await asyncio.sleep(0.005)
        refused = [one async for one in sessions.ask("second", chat_transcript.write_question("Hi", []), SETTINGS)]
        begun.cancel()
        await asyncio.wait((begun,))
        await first.aclose()
        return refused

    (refused,) = running.do(run)
    assert "the limit waiting is 0" in str(refused.error)


def test_images_take_their_part_of_the_servers_room_and_give_it_back(
    running: Running, puppet: Puppet, uploads: Path
) -> None:
    loader = running.service.images
    sessions = ChatSessions(running.service, UploadedImages(loader, [uploads]))
    messages = chat_transcript.write_question("What?", [str(uploads / "red.png"), str(uploads / "blue.png")])
    held: list[int] = []

    async def run() -> list[str]:
        texts = []
        async for running_answer in sessions.ask("page", messages, SETTINGS):
            texts.append(running_answer.text)
            held.append(sum(loader._held.values()))
        return texts

    assert running.do(run)[-1] == "word " * 5
    assert max(held) == 2 * 40 * 30 * 3
    assert sum(loader._held.values()) == 0
    assert loader._budget._num_free == loader._budget.size


def test_an_answer_that_takes_too_long_is_ended(
    running: Running, sessions: ChatSessions, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.service, "limits", replace(running.service.limits, answer_s=0.1))
    puppet.gate.clear()
    running_answer = listen(running, sessions)
    assert "The answer took too long; the limit answer_s is 0.1." in str(running_answer.error)
    assert puppet.num_open == 0


def test_a_vote_is_logged_with_its_conversation(running: Running, sessions: ChatSessions, uploads: Path) -> None:
    red = str(uploads / "red.png")
    messages = [
        *chat_transcript.write_question("What <b>?", [red]),
        chat_transcript.write_answer("Red"),
        *chat_transcript.write_question("Bad", [red]),
        chat_transcript.write_notice("No.", is_error=True),
        *chat_transcript.write_question("Sure?", []),
        chat_transcript.write_answer("Yes"),
    ]
    before = len(lines(running))
    digest = asyncio.run(sessions.uploaded.load([red]))[0].digest
    for index, vote in ((7, "up"), (7, "up"), (5, "up"), (7, "Made up")):  # said twice; a notice; another opinion
        sessions.vote("page", messages, index, vote)
    written = lines(running)[before:]
    assert [line["vote"] for line in written] == ["up", "Made up"]
    assert written[0]["kind"] == "vote"
    assert written[0]["source"] == "web"
    assert written[0]["model"] == "puppet"
    assert written[0]["messages"] == [
        {"role": "user", "parts": [{"sha256": digest}, "What <b>?"]},
        {"role": "assistant", "parts": ["Red"]},
        {"role": "user", "parts": ["Sure?"]},
    ]
    assert written[0]["answer"] == "Yes"


def test_answers_are_logged_as_the_web_chats(running: Running, sessions: ChatSessions) -> None:
    listen(running, sessions)
    line = lines(running)[-1]
    assert (line["kind"], line["source"], line["answers"]) == ("answer", "web", ["word " * 5])


TILING = Tiling("anyres", "spatial_unpad", pinpoints=RELEASED_PINPOINTS)


def test_the_images_of_the_latest_message_with_any_are_drawn(uploaded: UploadedImages, uploads: Path) -> None:
    red, blue = str(uploads / "red.png"), str(uploads / "blue.png")
    messages = [
        *chat_transcript.write_question("What?", [red]),
        chat_transcript.write_answer("Red"),
        *chat_transcript.write_question("What?", [blue]),
        chat_transcript.write_answer("Blue"),
        *chat_transcript.write_question("Sure?", []),
    ]
    shown = token_map_panel.render_token_maps(ask(uploaded, messages), TILING)
    assert shown.count("<figure>") == 1
    assert shown.count("= 1026 positions") == 1
    for word in ("base tile", "tiles, in their order", "takes positions", "newline"):
        assert f"{word}" in re.sub(r"<[^>]*>", "\n", shown), word
    assert "blue.png" in shown
    assert "red.png" not in shown
    assert "1,026 tokens" in shown
    low = token_map_panel.render_token_maps(ask(uploaded, messages, settings=replace(SETTINGS, detail="low")), TILING)
    assert "577 tokens" in low
    assert token_map_panel.render_token_maps(ask(uploaded, messages[:1] + messages[4:]), None).count("<img") == 0
    assert (
        token_map_panel.render_token_maps(ask(uploaded, chat_transcript.write_question("Hi", [])), TILING)
        == token_map_panel.EMPTY
    )


def test_an_images_name_cannot_write_into_the_page(uploaded: UploadedImages, uploads: Path) -> None:
    evil = uploads / "<img src=x onerror=alert(1)>.png"
    evil.write_bytes((uploads / "red.png").read_bytes())
    shown = token_map_panel.render_token_maps(
        ask(uploaded, chat_transcript.write_question("What?", [str(evil)])), TILING
    )
    assert "<img src=x" not in shown
    assert "&lt;img src=x" in shown


def test_what_a_tower_wrote_down_is_shown_as_text(uploaded: UploadedImages, uploads: Path) -> None:
    asked = ask(uploaded, chat_transcript.write_question("What?", [str(uploads / "red.png")]))
    shown = token_map_panel.render_token_maps(asked, TILING, lambda image, plan: f"Text (1 line):\n1. <b>{image.name}")
    assert "<pre>Text (1 line):\n1. &lt;b&gt;red.png</pre>" in shown
    assert "<pre>" not in token_map_panel.render_token_maps(asked, TILING, lambda image, plan: "")
    assert "<pre>" not in token_map_panel.render_token_maps(asked, TILING)


def test_zeros_of_engines_that_do_not_tell_are_not_shown() -> None:
    assert "images" in token_map_panel.render_usage(Usage(300, 5, image_tokens=232), 0.5)
    assert "images" not in token_map_panel.render_usage(Usage(300, 5), 0.5)


def test_images_without_words_are_to_be_described() -> None:
    assert chat_transcript.fill_in(" ", ["/a.png"]) == "Describe the image."
    assert chat_transcript.fill_in("", ["/a.png", "/b.png"]) == "Describe the images."
    assert chat_transcript.fill_in("What?", ["/a.png"]) == "What?"
    assert chat_transcript.fill_in("", []) == ""


def test_an_answer_that_had_not_ended_comes_back_as_one_that_broke_off(uploaded: UploadedImages) -> None:
    messages = [*chat_transcript.write_question("Hi", []), chat_transcript.write_answer("Half an", is_open=True)]
    for shown in (chat_transcript.read_kept(json.dumps(messages), uploaded), chat_transcript.tidy(messages)):
        *_, answer, notice = shown
        assert answer == chat_transcript.write_answer("Half an")
        assert chat_transcript.is_notice(notice)
        assert "was interrupted" in chat_transcript.read_message(notice)[0]
        assert chat_transcript.find_turns(shown)[0].answer == "Half an"


@pytest.mark.parametrize("is_open", [False, True])
def test_of_a_chat_that_a_browser_brings_back_only_so_much_is_parsed(uploaded: UploadedImages, is_open: bool) -> None:
    text = "**b** " * 5000
    chat = [*chat_transcript.write_question("Hi", []), chat_transcript.write_answer(text, is_open=is_open)] * 20
    restored = chat_transcript.read_kept(json.dumps(chat), uploaded)
    again = chat_transcript.tidy(chat)
    for messages in (restored, again) if is_open else (restored,):
        answers = [one for one in messages if one["role"] == "assistant" and not chat_transcript.is_notice(one)]
        assert len(answers) == 20
        assert answers[0] == chat_transcript.write_answer(text)
        assert answers[-1] == chat_transcript.write_answer(text, is_plain=True)
        assert chat_transcript.read_message(answers[-1])[0] == text


def test_a_draft_comes_back_with_the_images_that_are_still_here(uploaded: UploadedImages, uploads: Path) -> None:
    red = str(uploads / "red.png")
    draft = json.dumps({"text": "Half a ques", "files": [red, "/etc/passwd"]})
    assert chat_transcript.read_draft(draft, uploaded) == ("Half a ques", [red])
    for nonsense in ("", "5", "{", '{"text": 5, "files": []}', '{"text": "a", "files": [5]}', "[" * 100_000):
        assert chat_transcript.read_draft(nonsense, uploaded) == ("", [])
    assert chat_transcript.read_draft(json.dumps({"text": "a", "files": [red] * 1000}), uploaded) == ("", [])
    assert chat_transcript.read_draft('{"text": "a\\ud800", "files": []}', uploaded) == ("a\ufffd", [])


def test_settings_come_back_if_they_are_settings() -> None:
    assert chat_transcript.read_settings('[1, 0.5, 16, "low"]') == ([1.0, 0.5, 16.0], "low")
    for nonsense in ("", "5", "[]", "[" * 100_000, f'[{"9" * 400}, "low"]', '[[1], "low"]', '{"a": 1}', "null"):
        assert chat_transcript.read_settings(nonsense) == ([], None)


def test_a_browser_brings_no_more_messages_back_than_a_page_comes_to(uploaded: UploadedImages) -> None:
    message = chat_transcript.write_answer("a")
    assert len(chat_transcript.read_kept(json.dumps([message] * 100), uploaded)) == 100
    assert chat_transcript.read_kept(json.dumps([message] * 20_000), uploaded) == []


def test_only_images_are_held(uploaded: UploadedImages, uploads: Path) -> None:
    (uploads / "lock").write_text("1")
    (uploads / "page.css").write_text("p {}")
    assert uploaded.holds(str(uploads / "red.png"))
    assert not any(uploaded.holds(str(uploads / name)) for name in ("lock", "page.css", "", "no.png"))
