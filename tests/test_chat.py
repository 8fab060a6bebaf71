"""The terminal chat: turns, images, commands, and what interrupts them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from llava.answer import Answer, Sampling, answer, place_images, start_conversation
from llava.chat import HELP, Chat, run_chat
from llava.errors import ContextTooLong, UsageError
from llava.image.source import load_image
from llava.model.checkpoint import LoadedModel, load_model


@pytest.fixture(scope="module")
def loaded(next_folder: Path) -> LoadedModel:
    return load_model(next_folder, device="cpu", dtype="float32")


@pytest.fixture
def chat(loaded: LoadedModel) -> Chat:
    return Chat(loaded, Sampling(max_new_tokens=6))


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))


def test_the_model_sees_every_earlier_turn_and_image(chat: Chat, loaded: LoadedModel, photo: Path) -> None:
    chat.show(str(photo))
    assert chat.ask("What is it?", lambda piece: None) is not None
    chat.show(str(photo))
    second = chat.ask("And this <image>?", lambda piece: None)
    assert second is not None

    image = load_image(photo)
    conversation = start_conversation(loaded)
    conversation.append_message(conversation.roles[0], place_images(loaded, "What is it?", 1))
    conversation.append_message(conversation.roles[1], chat.turns[0].answer)
    conversation.append_message(conversation.roles[0], place_images(loaded, "And this <image>?", 1))
    conversation.append_message(conversation.roles[1], None)
    expected = answer(loaded, conversation, [image, image], Sampling(max_new_tokens=6))
    assert (second.text, second.prompt_tokens) == (expected.text, expected.prompt_tokens)
    assert second.image_positions == (14, 14)
    assert [len(turn.images) for turn in chat.turns] == [1, 1]


def test_an_answer_streams_in_pieces_that_join_to_it(chat: Chat, photo: Path) -> None:
    chat.show(str(photo))
    pieces: list[str] = []
    reply = chat.ask("What is it?", pieces.append)
    assert reply is not None
    assert "".join(pieces) == reply.text == chat.turns[0].answer
    assert len(pieces) > 1


def test_ctrl_c_keeps_what_was_said_and_the_chat_goes_on(chat: Chat, photo: Path) -> None:
    chat.show(str(photo))
    pieces: list[str] = []

    def stop_at_the_second_piece(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 2:
            raise KeyboardInterrupt

    assert chat.ask("What is it?", stop_at_the_second_piece) is None
    assert [turn.answer for turn in chat.turns] == ["".join(pieces)]
    assert chat.waiting == []
    assert chat.ask("Go on.", lambda piece: None) is not None
    assert len(chat.turns) == 2


def test_ctrl_c_before_the_first_word_leaves_no_turn(
    chat: Chat, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    chat.show(str(photo))
    monkeypatch.setattr("llava.chat.answer", interrupt)
    type_lines(monkeypatch, "What is it?")
    assert run_chat(chat, []) == 0
    assert capsys.readouterr().out == "\n(stopped)\n"
    assert chat.turns == []
    assert len(chat.waiting) == 1


def test_undo_takes_back_one_turn_and_its_images_wait_again(chat: Chat, photo: Path) -> None:
    chat.show(str(photo))
    chat.ask("What is it?", lambda piece: None)
    chat.ask("And?", lambda piece: None)
    assert chat.undo() == "And?"
    assert chat.waiting == []
    assert chat.undo() == "What is it?"
    assert len(chat.waiting) == 1
    with pytest.raises(UsageError, match="nothing to undo"):
        chat.undo()


def test_a_question_that_does_not_fit_leaves_the_chat_as_it_was(chat: Chat) -> None:
    chat.ask("What is it?", lambda piece: None)
    with pytest.raises(ContextTooLong):
        chat.ask("What? " * 3000, lambda piece: None)
    assert len(chat.turns) == 1


def test_a_scripted_chat_obeys_its_commands(
    chat: Chat,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = tmp_path / "two words.png"
    name.write_bytes(photo.read_bytes())
    lines = [f"/image {name}", "What is it?", f"/save {tmp_path / 'chat.txt'}", f"/save {tmp_path / 'chat.json'}"]
    type_lines(monkeypatch, "/help", "", *lines, "/undo", "/clear", "/quit", "never read")
    assert run_chat(chat, []) == 0
    out, err = capsys.readouterr()
    said = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))[0]["conversations"][1]["value"]
    assert out == "\n".join(
        [
            HELP,
            "two words.png: 100 x 67, 14 positions",
            said,
            "(cut after 6 tokens)",
            f"saved 1 turns to {tmp_path / 'chat.txt'}",
            f"saved 1 turns to {tmp_path / 'chat.json'}",
            "taken back: What is it?",
            "cleared",
            "",
        ]
    )
    assert err == ""
    assert (chat.turns, chat.waiting) == ([], [])


def test_a_saved_conversation_is_a_record_of_llavas_data_format(chat: Chat, photo: Path, tmp_path: Path) -> None:
    chat.show(str(photo))
    chat.ask("What is it?", lambda piece: None)
    chat.ask("Sure?", lambda piece: None)
    chat.save(tmp_path / "chat.json")
    (record,) = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert record["image"] == "photo.png"
    assert [message["from"] for message in record["conversations"]] == ["human", "gpt", "human", "gpt"]
    assert record["conversations"][0]["value"] == "<image>\nWhat is it?"
    assert record["conversations"][2]["value"] == "Sure?"
    chat.save(tmp_path / "chat.txt")
    text = (tmp_path / "chat.txt").read_text(encoding="utf-8")
    assert text.startswith("[photo.png]\n> What is it?\n")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("/image nowhere.png", "nowhere.png"),
        ("/image", "/image needs an image"),
        ("/image 'a", "cannot be told apart"),
        ("/save", "/save needs the name of a file"),
        ("/save /nowhere/chat.txt", "No such file or directory: /nowhere/chat.txt"),
        ("/undo", "There is nothing to undo"),
        ("/paint", "There is no command '/paint'"),
        ("/save ~nobody-here/chat.txt", "No such file or directory: ~nobody-here/chat.txt"),
        ("/image ~nobody-here/a.png", "a.png"),
        ("/image a\udcff\x1b.png", "There is no file a\\udcff\\x1b.png."),
        ("/save a\udcff", "What was typed is not valid UTF-8: at 7 it holds the byte 0xff."),
        ("/image -", "No image is read from standard input, where the questions come from: name a file."),
        ("What\0?", "What was typed holds the character U+0000"),
        ("What? " * 3000, "/undo takes the last question back"),
    ],
)
def test_an_error_is_one_sentence_and_the_chat_goes_on(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    type_lines(monkeypatch, line, "/clear")
    assert run_chat(chat, []) == 0
    out, err = capsys.readouterr()
    assert out == "cleared\n"
    assert err.startswith("llava: error: ")
    assert says in err


def test_the_images_of_the_command_line_wait_for_the_first_question(
    chat: Chat, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_lines(monkeypatch)
    assert run_chat(chat, [str(photo), str(photo)]) == 0
    assert len(chat.waiting) == 2
    assert capsys.readouterr().out.count("photo.png: 100 x 67, 14 positions") == 2


def test_ctrl_c_during_a_command_ends_only_that(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llava.chat.load_image", interrupt)
    type_lines(monkeypatch, "/image a.png", "/clear")
    assert run_chat(chat, []) == 0
    assert capsys.readouterr().out == "\n(stopped)\ncleared\n"


def test_a_chat_whose_reader_left_ends(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    type_lines(monkeypatch, "/help", "/clear")
    monkeypatch.setattr("llava.chat._say", leave)
    with pytest.raises(BrokenPipeError):
        run_chat(chat, [])


def test_an_answer_in_a_chat_is_explained_where_it_is_empty(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = Chat(loaded, Sampling(max_new_tokens=6))
    monkeypatch.setattr("llava.chat.answer", lambda *_, **__: Answer("", 5, 0, (), 1, True, 0.1, 0.2, "stop", None, 2))
    type_lines(monkeypatch, "What?")
    assert run_chat(chat, []) == 0
    assert "(The answer is empty: the model ended it at once, with token 2, '</s>'." in capsys.readouterr().out


def test_an_image_of_an_odd_name_is_saved_with_its_conversation(chat: Chat, photo: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a\udcff.png"
    odd.write_bytes(photo.read_bytes())
    chat.show(str(odd))
    chat.ask("What is it?", lambda piece: None)
    for name in ("chat.json", "chat.txt"):
        chat.save(tmp_path / name)
        assert r"a\udcff.png" in (tmp_path / name).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))[0]["image"] == "a\udcff.png"


def test_a_file_whose_name_is_no_text_is_shown_and_named_on_one_line(
    chat: Chat, photo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a\udcff.png", "~a.png"):
        try:
            Path(name).write_bytes(photo.read_bytes())
        except OSError:
            pytest.skip("this file system takes only text as names")
        type_lines(monkeypatch, f"/image {name}")
        assert run_chat(chat, []) == 0
    Path("b\nc.png").write_bytes(photo.read_bytes())
    assert chat.show("b\nc.png").startswith("b\\nc.png: 100 x 67")
    out, err = capsys.readouterr()
    assert err == ""
    assert [line.partition(":")[0] for line in out.splitlines()] == ["a\\udcff.png", "~a.png"]
    assert [image.name for image in chat.waiting] == ["a\udcff.png", "~a.png", "b\nc.png"]


def test_standard_input_is_not_taken_for_an_image_at_the_beginning_either(chat: Chat) -> None:
    with pytest.raises(UsageError, match="No image is read from standard input"):
        run_chat(chat, ["-"])
