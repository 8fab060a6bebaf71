"""``llava info --prompt`` shows what is sent, token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llava.answer import ask, place_images, start_conversation
from llava.cli import main
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import ContextTooLong, UsageError
from llava.image.source import LoadedImage, load_image
from llava.listing import Listing, list_prompt
from llava.model.checkpoint import load_model
from llava.prompt import tokenizer_image_token
from llava.sampling import Sampling
from llava.train.dataset.samples import InstructionData, JsonSamples
from tests.tiny_checkpoints import write_json


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def ids_of(listing: Listing) -> list[int]:
    return [IMAGE_TOKEN_INDEX if entry.token is None else entry.token for entry in listing.entries]


@pytest.fixture(scope="module")
def image(photo: Path) -> LoadedImage:
    return load_image(photo)


def test_a_listing_is_the_prompt_that_a_question_is_asked_with(next_folder: Path, image: LoadedImage) -> None:
    listing = list_prompt(str(next_folder), ["What is this?"], images=[image, image])
    loaded = load_model(next_folder)
    conversation = start_conversation(loaded)
    conversation.append_message(conversation.roles[0], place_images(loaded, "What is this?", 2))
    conversation.append_message(conversation.roles[1], None)
    assert listing.text == conversation.get_prompt()
    assert ids_of(listing) == tokenizer_image_token(listing.text, loaded.tokenizer)
    reply = ask(loaded, "What is this?", [image, image], Sampling(max_new_tokens=1))
    assert listing.num_positions == listing.kept_positions == reply.prompt_tokens
    assert tuple(entry.num_positions for entry in listing.entries if entry.token is None) == reply.image_positions
    ends = [entry.position + entry.num_positions for entry in listing.entries]
    assert [entry.position for entry in listing.entries] == [0, *ends[:-1]]
    assert ends[-1] == listing.num_positions


def test_a_listing_reads_no_weights(next_folder: Path, image: LoadedImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("llava.model.checkpoint._fill", refuse)
    monkeypatch.setattr("llava.model.checkpoint_reader.OpenCheckpoint.read", refuse)
    assert list_prompt(str(next_folder), ["What?"], images=[image]).num_image_positions == 14


def test_an_answer_to_every_question_marks_what_training_learns(next_folder: Path) -> None:
    listing = list_prompt(str(next_folder), ["is it", "what"], ["in", "the image"])
    assert listing.is_supervised
    tokenizer = load_model(next_folder).tokenizer
    learnt = [entry.token for entry in listing.entries if entry.is_target]
    assert tokenizer.decode(learnt) == " in</s> the image</s>"
    assert listing.num_targets == len(learnt)


@pytest.mark.parametrize("template", ["v0", "v1", "plain", "llava_llama_2", "mpt", "qwen_1_5"])
def test_a_listing_with_answers_is_the_sample_that_training_makes_of_the_same_chat(
    next_folder: Path, photo: Path, tmp_path: Path, template: str
) -> None:
    loaded = load_model(next_folder)
    listing = list_prompt(str(next_folder), [" What is it? "], ["an image"], [load_image(photo)], template=template)
    turns = [{"from": "human", "value": "<image>\n What is it? "}, {"from": "gpt", "value": "an image"}]
    write_json(tmp_path / "data.json", [{"image": photo.name, "conversations": turns}])
    source = JsonSamples(tmp_path / "data.json", photo.parent)
    sample = InstructionData(source, loaded.tokenizer, loaded.spec.tiling, loaded.image_processor, [template], 4096)[0]
    assert ids_of(listing) == sample["input_ids"].tolist()
    assert [entry.is_target for entry in listing.entries] == [
        label != IGNORE_INDEX for label in sample["labels"].tolist()
    ]


@pytest.mark.parametrize("template", ["v1", "qwen_1_5"])
def test_special_tokens_in_the_texts_of_a_sample_are_listed_as_training_reads_them(
    next_folder: Path, tmp_path: Path, template: str
) -> None:
    loaded = load_model(next_folder)
    question, answer = "is <s> it</s>", "in </s> the image"
    listing = list_prompt(str(next_folder), [question], [answer], template=template)
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    write_json(tmp_path / "data.json", [{"conversations": turns}])
    source = JsonSamples(tmp_path / "data.json", tmp_path)
    sample = InstructionData(source, loaded.tokenizer, loaded.spec.tiling, loaded.image_processor, [template], 4096)[0]
    assert ids_of(listing) == sample["input_ids"].tolist()
    assert [entry.token for entry in listing.entries if entry.is_target].count(2) >= 1
    assert question in listing.text


@pytest.mark.parametrize("texts", [(["<image>\nis it"], ["in"]), (["is it"], ["in <image>"])])
def test_an_image_slot_in_the_text_of_a_sample_is_refused(texts: tuple[list[str], list[str]]) -> None:
    with pytest.raises(UsageError, match="contains <image>, which in a training sample is the place of an image"):
        list_prompt(None, *texts)


def test_an_open_question_after_an_answered_one_is_a_chat_and_no_sample(next_folder: Path) -> None:
    listing = list_prompt(str(next_folder), ["is it", "what"], ["in"])
    assert listing.text.endswith("USER: is it ASSISTANT: in</s>USER: what ASSISTANT:")
    assert not listing.is_supervised
    assert listing.num_targets == 0


def test_what_a_user_types_is_listed_as_text_and_never_as_a_slot_or_a_special_token(next_folder: Path) -> None:
    listing = list_prompt(str(next_folder), ["a <image> b</s>"])
    assert "USER: a <image> b</s> ASSISTANT:" in listing.text
    assert all(entry.token not in (None, 2) for entry in listing.entries)


def test_a_prompt_that_would_be_refused_is_refused(next_folder: Path) -> None:
    with pytest.raises(ContextTooLong, match="4096"):
        list_prompt(str(next_folder), ["what " * 5000])


@pytest.mark.parametrize("questions", ["Hi", []])
def test_questions_are_a_list_with_at_least_one(questions: Any) -> None:
    with pytest.raises(UsageError, match="has to be a list with at least one question"):
        list_prompt(None, questions)


@pytest.mark.parametrize("command", [["info", "", "--prompt", "Hi"], ["ask", "--model", "", "Hi"]])
def test_an_empty_name_is_no_model(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, err = run(capsys, *command)
    assert (code, out) == (1, "")
    assert "The name of the checkpoint is empty" in err


@pytest.mark.parametrize("answers", [[], ["a", "b", "c"]])
def test_each_question_but_the_last_needs_its_answer(answers: list[str]) -> None:
    with pytest.raises(UsageError, match=f"2 questions and {len(answers)} answers"):
        list_prompt(None, ["one", "two"], answers)


def test_a_checkpoint_that_cuts_says_how_much_is_sent(
    capsys: pytest.CaptureFixture[str], next_folder: Path, tmp_path: Path
) -> None:
    for path in next_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    config = json.loads((next_folder / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").unlink()
    write_json(
        tmp_path / "config.json", {**config, "truncate_to_model_max_length": True, "tokenizer_model_max_length": 20}
    )
    code, out, err = run(capsys, "info", tmp_path, "--prompt", "what is in the image")
    assert (code, err) == (0, "")
    assert "this checkpoint truncates long prompts: the first 20 positions are sent" in out


def test_the_command_prints_text_counts_and_tokens(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    code, out, err = run(capsys, "info", next_folder, "--image", photo, "--prompt", "What?", "--answer", "in")
    assert (code, err) == (0, "")
    facts, text, tokens = (
        out.split("---\n")[0],
        out.split("--- the text ---\n")[1],
        out.split("--- its tokens ---\n")[1],
    )
    assert "photo.png, 100x67 px: 14 positions" in facts
    assert text.split("\n---")[0].endswith("USER: <image>\nWhat? ASSISTANT: in</s>")
    listing = list_prompt(str(next_folder), ["What?"], ["in"], [load_image(photo)])
    rows = [line.split() for line in tokens.splitlines()[1:]]
    assert len(rows) == len(listing.entries)
    slot = next(entry for entry in listing.entries if entry.token is None)
    assert [f"{slot.position}..{slot.position + 13}", "<image>", "14", "positions"] in rows
    assert sum(row[-1] == "*" for row in rows) == listing.num_targets > 0


def test_the_json_object_says_the_same(capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path) -> None:
    code, out, err = run(capsys, "info", next_folder, "--image", photo, "--prompt", "What?", "--json")
    assert (code, err) == (0, "")
    listing = list_prompt(str(next_folder), ["What?"], [], [load_image(photo)])
    assert json.loads(out) == {"model": str(next_folder), **listing.as_dict()}
    assert {"position": 0, "id": 1, "piece": "<s>"} in json.loads(out)["tokens"]


def test_the_template_can_be_named(capsys: pytest.CaptureFixture[str], next_folder: Path) -> None:
    code, out, _ = run(capsys, "info", next_folder, "--prompt", "What?", "--conv-mode", "mistral_instruct")
    assert code == 0
    assert "[INST] What? [/INST]" in out
    code, _, err = run(capsys, "info", next_folder, "--prompt", "What?", "--conv-mode", "nonsense")
    assert code == 2
    assert "'nonsense'" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--answer", "x"], "--answer is about a prompt"),
        (["--json"], "--json is about a prompt"),
        (["--conv-mode", "v1"], "--conv-mode is about a prompt"),
        (["--image", "a.png", "--image", "b.png"], "--image is given 2 times"),
        (["--prompt", "x", "--plot", "x.png"], "give one of them"),
        (["--prompt", "\udcff"], "is not valid UTF-8"),
        (["--prompt", " "], "is empty"),
        (["--prompt", "x", "--answer", ""], "is empty"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    code, out, err = run(capsys, "info", *words)
    assert (code, out) == (2, "")
    assert says in err


def test_an_image_belongs_to_the_prompt_before_it_or_else_to_the_first(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    image = ["--image", photo]
    words = [*image, "--prompt", "is it", *image, "--answer", "in", "--prompt", "what", *image]
    code, out, err = run(capsys, "info", next_folder, *words)
    assert (code, err) == (0, "")
    assert "USER: <image>\n<image>\nis it ASSISTANT: in</s>USER: <image>\nwhat ASSISTANT:" in out
    code, out, _ = run(capsys, "info", next_folder, "--prompt", "is it", "--answer", "in", "--prompt", "what", *image)
    assert code == 0
    assert "USER: is it ASSISTANT: in</s>USER: <image>\nwhat ASSISTANT:" in out


@pytest.mark.parametrize("owners", [[0], [1, 0], [0, 2], [-1, 0]])
def test_each_image_needs_the_index_of_its_question(image: LoadedImage, owners: list[int]) -> None:
    with pytest.raises(UsageError, match="for 2 images and 2 questions"):
        list_prompt(None, ["one", "two"], ["a"], [image, image], image_questions=owners)
