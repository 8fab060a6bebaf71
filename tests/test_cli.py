"""The llava command: what it prints, and how a mistake ends."""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import build_parser, main
from llava.commands.quantities import read_bytes
from tests.tiny_checkpoints import CONFIG, NEXT, write_json

SHORT = ["--max-new-tokens", "6"]
RELEASED = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command."""
    try:
        code = main([str(word) for word in words])
    except SystemExit as left:
        code = int(left.code or 0)
    return code, *capsys.readouterr()


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code, out, err = run(capsys, "ask", *words, *SHORT, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_ask_prints_the_answer_and_nothing_else(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    reply = run_json(capsys, photo, "What is in the image?", "--model", next_folder)
    code, out, err = run(capsys, "ask", photo, "What is in the image?", "--model", next_folder, *SHORT)
    assert (code, out) == (0, reply["answer"] + "\n")
    assert err == ("" if reply["finished"] else "llava: the answer was cut after 6 tokens.\n")


def test_the_json_object_counts_tokens_and_times(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    reply = run_json(capsys, photo, "What is in the image?", "--model", next_folder)
    assert (reply["model"], reply["error"]) == (str(next_folder), None)
    # 100 x 67 px on the canvas of 56 x 56: the base tile's 4 and 2 rows of 4 with their newlines.
    assert reply["image_positions"] == [14]
    assert reply["prompt_tokens"] > 14
    assert 1 <= reply["new_tokens"] <= 6
    assert (reply["finish_reason"], reply["note"]) == ("length", "The answer was cut after 6 tokens.")
    assert 0 < reply["seconds"]["first_token"] <= reply["seconds"]["answer"]
    assert reply["seconds"]["load"] > 0


def test_what_was_done_to_an_image_is_said_in_one_line_and_in_the_json_object(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (100, 60), "red").save(tmp_path / "x.jpg", exif=exif)
    line = "llava: x.jpg: turned upright.\n"
    code, out, err = run(capsys, "ask", photo, "~/x.jpg", "-q", "What?", "--model", next_folder, *SHORT, "--json")
    assert (code, err) == (0, line)
    ordinary, turned = json.loads(out)["images"]
    assert ordinary["notes"] == []
    assert turned == {
        "name": "x.jpg",
        "stored": {"width": 100, "height": 60},
        "seen": {"width": 60, "height": 100},
        "notes": ["turned upright"],
    }
    code, out, err = run(capsys, "info", "--image", "~/x.jpg")
    assert (code, err) == (0, line)
    assert "x.jpg, 60x100 px" in out


def test_an_error_is_in_the_json_object_too_with_the_images_that_were_read(
    capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    code, out, err = run(capsys, "ask", photo, "nowhere.png", "-q", "What?", "--json")
    report = json.loads(out)
    assert code == 1
    assert err == f"llava: error: {report['error']}\n"
    assert (report["answer"], report["error"]) == (None, "There is no file nowhere.png.")
    assert [image["name"] for image in report["images"]] == [photo.name]
    code, out, err = run(capsys, "ask", photo, "-q", " ", "--json")
    assert (code, json.loads(out)["error"]) == (2, "The question is empty.")


def test_the_name_of_an_image_is_not_answered_as_a_question(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("nowhere.png", "my/PHOTO.JPG", "x.heic"):
        code, _, err = run(capsys, "ask", name)
        assert code == 2
        assert f"The last word has to be the question, but '{name}' is an image" in err


def test_a_folder_is_not_answered_as_a_question(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "ask", tmp_path)
    assert (code, err) == (2, f"llava: error: The last word has to be the question, but '{tmp_path}' is a folder.\n")


@pytest.mark.parametrize("command", [["ask", "-q", "What?"], ["info", "--image"]])
def test_an_image_of_too_many_px_names_the_flag_that_allows_it(
    capsys: pytest.CaptureFixture[str], command: list[str], tmp_path: Path
) -> None:
    Image.new("1", (15_000, 8_000)).save(tmp_path / "map.png")
    code, _, err = run(capsys, *command, tmp_path / "map.png")
    assert code == 1
    assert "120,000,000 in all; at most 100,000,000 are allowed" in err
    assert "--max-image-pixels 120M" in err
    if command[0] == "info":
        code, out, err = run(capsys, *command, tmp_path / "map.png", "--max-image-pixels", "120M")
        assert (code, err) == (0, "")
        assert "15000x8000 px" in out


def test_a_number_of_px_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("0", "-5M", "many", "1e30", "nan"):
        code, _, err = run(capsys, "info", "--image", "x.png", f"--max-image-pixels={number}")
        assert code == 2
        assert f"'{number}' is not a number of pixels" in err


def test_several_images_a_data_uri_and_standard_input_are_the_same_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, next_folder: Path, photo: Path
) -> None:
    uri = "data:image/png;base64," + base64.b64encode(photo.read_bytes()).decode()
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(photo.read_bytes())))
    mixed = run_json(capsys, uri, photo, "-", "What?", "--model", next_folder)
    plain = run_json(capsys, photo, photo, photo, "What?", "--model", next_folder)
    assert mixed["image_positions"] == [14, 14, 14]
    assert mixed["answer"] == plain["answer"]
    assert mixed["prompt_tokens"] == plain["prompt_tokens"]


def test_flags_may_stand_between_the_images(capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path) -> None:
    reply = run_json(capsys, photo, "--model", next_folder, photo, "--conv-mode", "plain", "What?")
    assert reply["image_positions"] == [14, 14]
    assert run_json(capsys, "--model", next_folder, photo, "-q", "What?")["image_positions"] == [14]


def test_a_question_without_an_image_is_answered(capsys: pytest.CaptureFixture[str], next_folder: Path) -> None:
    assert run_json(capsys, "What is in an image?", "--model", next_folder)["image_positions"] == []


def test_an_image_token_that_the_user_typed_is_text(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    reply = run_json(capsys, photo, "What is <image> in <image>?", "--model", next_folder)
    assert reply["image_positions"] == [14]


def test_the_embedded_model_is_the_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, next_folder: Path
) -> None:
    monkeypatch.setattr("llava.model.sources.find_embedded", lambda: next_folder)
    assert run_json(capsys, "What?")["model"] == "embedded"
    assert str(next_folder) in run(capsys, "info")[1]


def test_the_same_seed_gives_the_same_answer(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path
) -> None:
    def ask(*flags: str) -> str:
        command = ["ask", str(photo), "What is it?", "--model", str(next_folder), "--max-new-tokens", "12", *flags]
        assert main(command) == 0
        return capsys.readouterr().out

    hot = ["--temperature", "2", "--top-k", "50", "--min-p", "0.001", "--seed"]
    assert ask(*hot, "3") == ask(*hot, "3", "--memory", "20M") != ask(*hot, "4")
    plain = ask()
    middle = plain[4:7]
    assert ask("--stop", middle).strip() == plain[: plain.index(middle)].strip()


@pytest.mark.parametrize("size", ["much", "0", "-2G", "", "nan"])
def test_a_size_that_is_none_is_named(capsys: pytest.CaptureFixture[str], size: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["ask", "What?", f"--memory={size}"])
    assert left.value.code == 2
    assert f"'{size}' is not a size" in capsys.readouterr().err


def test_a_size_is_written_with_a_unit_or_without_one() -> None:
    sizes = {"12": 12, "1K": 2**10, "1.5g": 3 * 2**29, "2GiB": 2**31, "3mib": 3 * 2**20, "1T": 2**40, "1 GiB": 2**30}
    assert {text: read_bytes(text) for text in sizes} == sizes
    for text in ("1GB", "1iB", "GiB", "1GiBiB", "1e400G"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not a size"):
            read_bytes(text)


def test_words_and_tokens_can_be_barred(capsys: pytest.CaptureFixture[str], next_folder: Path) -> None:
    def ask(*flags: str) -> str:
        code, out, _ = run(capsys, "ask", "What is it?", "--model", next_folder, "--max-new-tokens", "30", *flags)
        assert code == 0
        return out

    plain = ask()
    letter = plain[0]
    assert letter not in ask("--bad-words", letter)
    assert ask("--no-repeat-ngram-size", "1", "--min-new-tokens", "3") != plain
    suppressed = ",".join(map(str, range(259, 300)))
    assert ask("--suppress-tokens", suppressed) not in ("\n", plain)
    assert ask("--num-beams", "2", "--no-repeat-ngram-size", "1") != ask("--num-beams", "2")


def with_settings(folder: Path, copy: Path, **settings: Any) -> Path:
    shutil.copytree(folder, copy)
    write_json(copy / "generation_config.json", {"eos_token_id": 2, "pad_token_id": 0, **settings})
    return copy


def test_an_empty_answer_is_explained(capsys: pytest.CaptureFixture[str], next_folder: Path, tmp_path: Path) -> None:
    folder = with_settings(next_folder, tmp_path / "mute", sequence_bias=[[[2], 100.0]])
    code, out, err = run(capsys, "ask", "What?", "--model", folder)
    assert (code, out) == (0, "\n")
    assert err.startswith("llava: the answer is empty: the model ended it at once, with token 2, '</s>'. ")
    reply = run_json(capsys, "What?", "--model", folder)
    assert (reply["answer"], reply["finish_reason"], reply["new_tokens"]) == ("", "stop", 1)
    assert reply["note"].startswith("The answer is empty")


def test_settings_that_are_not_followed_are_one_line_and_wrong_ones_an_error(
    capsys: pytest.CaptureFixture[str], next_folder: Path, tmp_path: Path
) -> None:
    folder = with_settings(next_folder, tmp_path / "led", guidance_scale=1.5, no_repeat_ngram_size=2)
    code, _, err = run(capsys, "ask", "What?", "--model", folder, *SHORT)
    notice, _ = err.splitlines()
    assert code == 0
    assert notice == "llava: Of the checkpoint's generation settings guidance_scale=1.5 is not followed."
    folder = with_settings(next_folder, tmp_path / "wrong", no_repeat_ngram_size="two")
    code, out, err = run(capsys, "ask", "What?", "--model", folder)
    assert (code, out) == (1, "")
    says = "no_repeat_ngram_size is 'two'; it has to be a whole number of at least 0."
    assert err == f"llava: error: {folder / 'generation_config.json'}: {says}\n"


def test_beams_and_sampling_answer(capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path) -> None:
    flags = ["--model", next_folder, *SHORT]
    assert run(capsys, "ask", photo, "What?", "--num-beams", "2", *flags)[0] == 0
    assert run(capsys, "ask", photo, "What?", "--temperature", "0.7", "--top-p", "0.9", *flags)[0] == 0


MISTAKES: list[tuple[list[str], int, str]] = [
    ([], 2, "required: COMMAND"),
    (["paint"], 2, "invalid choice: 'paint'"),
    (["ask"], 2, "There is no question"),
    (["ask", "PHOTO"], 2, "is an image"),
    (["ask", "What is this?", "PHOTO"], 2, "The last word has to be the question"),
    (["ask", "PHOTO", " "], 2, "The question is empty"),
    (["ask", "PHOTO", "What?", "--colour"], 2, "unrecognized arguments: --colour"),
    (["ask", "PHOTO", "What?", "--temperature", "-1"], 2, "temperature is -1.0"),
    (["ask", "PHOTO", "What?", "--temperature", "warm"], 2, "invalid float value: 'warm'"),
    (["ask", "PHOTO", "What?", "--top-p", "1.5"], 2, "top-p is 1.5"),
    (["ask", "PHOTO", "What?", "--num-beams", "0"], 2, "beams is 0"),
    (["ask", "PHOTO", "What?", "--suppress-tokens", "1,x"], 2, "'1,x' is not a list of token ids"),
    (["ask", "PHOTO", "What?", "--suppress-tokens", "-1"], 2, "suppress_tokens holds -1"),
    (["ask", "PHOTO", "What?", "--bad-words", ""], 2, "A bad word is empty"),
    (["ask", "PHOTO", "What?", "--no-repeat-ngram-size", "-2"], 2, "no_repeat_ngram_size is -2"),
    (["ask", "PHOTO", "What?", "--min-new-tokens", "900"], 2, "at least 900 new tokens, but at most 512"),
    (["ask", "PHOTO", "What?", "--max-new-tokens", "0"], 2, "new tokens is 0"),
    (["ask", "PHOTO", "What?", "--conv-mode", "klingon", "--model", "MODEL"], 2, "no conversation template 'klingon'"),
    (["ask", "PHOTO", "What?", "--dtype", "int3", "--model", "MODEL"], 2, "int3"),
    (["ask", "PHOTO", "What?", "--device", "abacus", "--model", "MODEL"], 2, "abacus"),
    (["ask", "nowhere.png", "What?"], 1, "nowhere.png"),
    (["ask", "MODEL/config.json", "What?"], 1, "config.json"),
    (["ask", "PHOTO", "What?", "--model", "no-such-model"], 1, "no-such-model"),
    (["ask", "PHOTO", "What?" * 5000, "--model", "MODEL"], 1, "context holds 4096"),
    (["chat", "nowhere.png", "--model", "MODEL"], 1, "nowhere.png"),
    (["chat", "--conv-mode", "klingon", "--model", "MODEL"], 2, "no conversation template 'klingon'"),
    (["info", "no-such-model"], 1, "no-such-model"),
    (["info", "MODEL", "extra"], 2, "unrecognized arguments: extra"),
    (["info", "MODEL", "--plot", "out.png"], 2, "name the image with --image"),
    (["info", "MODEL", "--image", "nowhere.png"], 1, "nowhere.png"),
    (["info", "MODEL", "--image", "PHOTO", "--plot", "MODEL/config.json/out.png"], 1, "config.json"),
    (["train", "no-such-recipe", "--output", "MODEL/run"], 2, "no-such-recipe"),
    (["train", "default"], 2, "required: --output"),
    (["synth", "MODEL/images", "--count", "0"], 2, "number of images is 0"),
    (["synth", "MODEL/images", "--kind", "opera"], 2, "no kind of image 'opera'"),
    (["eval", "synth", "--model", "MODEL", "--task", "opera"], 2, "No task begins with 'opera'"),
    (["eval", "synth", "--model", "no-such-model"], 1, "no-such-model"),
    (["eval"], 2, "required: SUITE"),
]


@pytest.mark.parametrize(("words", "code", "says"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_ends_in_one_sentence_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], next_folder: Path, photo: Path, words: list[str], code: int, says: str
) -> None:
    given = [word.replace("PHOTO", str(photo)).replace("MODEL", str(next_folder)) for word in words]
    found, out, err = run(capsys, *given)
    last = err.splitlines()[-1]
    assert (found, out) == (code, "")
    assert last.startswith("llava: error: ")
    assert says in last
    assert "Traceback" not in err


def test_ctrl_c_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, photo: Path) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("llava.model.checkpoint.load_model", interrupt)
    code, out, err = run(capsys, "ask", photo, "What?")
    assert (code, out, err) == (130, "", "\n")


def test_a_reader_who_leaves_is_no_error(next_folder: Path) -> None:
    command = [sys.executable, "-m", "llava", "info", str(next_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=600) == 141


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ask"], ["chat"], ["info"], ["train"], ["synth"], ["eval"], ["eval", "synth"]):
        code, out, _ = run(capsys, *words, "--help")
        assert code == 0
        assert out.startswith(f"usage: llava {' '.join(words)}")


def test_no_flag_is_without_a_word_about_it() -> None:
    text = build_parser().format_help()
    assert "ask" in text
    assert "--version" in text


def released_folder(folder: Path, config: dict[str, Any]) -> Path:
    """A folder with nothing but the config.json of a released 7B checkpoint."""
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "vocab_size": 32000, "mm_hidden_size": 1024}
    write_json(folder / "config.json", {**CONFIG, **sizes, **config})
    return folder


def test_synth_writes_data_and_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "synth", tmp_path / "data", "--count", "3", "--seed", "5", "--turns", "2")
    assert (code, out, err) == (0, f"{tmp_path / 'data' / 'data.json'}\n", "")
    rows = json.loads((tmp_path / "data" / "data.json").read_text(encoding="utf-8"))
    assert len(rows) == 3
    assert all((tmp_path / "data" / "images" / row["image"]).is_file() for row in rows)


def test_eval_synth_writes_scores(capsys: pytest.CaptureFixture[str], next_folder: Path, tmp_path: Path) -> None:
    words = ["eval", "synth", "--model", next_folder, "--count", "2", "--task", "color", "--save", tmp_path / "s.json"]
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert "Held-out suite" in out
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["scores"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, ["336x336 px", "1 x 576 = 576"]),
        (
            {**NEXT, "image_grid_pinpoints": RELEASED},
            ["672x672 px, the image as 672x449 px at (0, 111)", "5: 2x2 of 336 px", "48x32 of 48x48", "= 2144"],
        ),
    ],
    ids=["1.5", "1.6"],
)
def test_info_says_how_a_released_checkpoint_cuts_view_jpg(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, config: dict[str, Any], says: list[str]
) -> None:
    Image.new("RGB", (1000, 667), "teal").save(tmp_path / "view.jpg")
    folder, plot = released_folder(tmp_path / "checkpoint", config), tmp_path / "plots" / "tokens.png"
    code, out, err = run(capsys, "info", folder, "--image", tmp_path / "view.jpg", "--plot", plot)
    assert (code, err) == (0, "")
    assert [words for words in says if words not in out] == []
    with Image.open(plot) as drawing:
        assert drawing.width > 300


def test_info_counts_the_parts_of_a_checkpoint(capsys: pytest.CaptureFixture[str], next_folder: Path) -> None:
    code, out, err = run(capsys, "info", next_folder)
    assert (code, err) == (0, "")
    rows = {cells[0]: cells[1:] for cells in (re.split(r"\s{2,}", line) for line in out.splitlines())}
    assert rows["projector"] == ["4", "1,600", "0.00 MB", "float16"]
    assert rows["embeddings"] == ["1", "12,800", "0.03 MB", "float16"]
    assert rows["head"] == ["1", "12,800", "0.03 MB", "float16"]
    assert rows["image newline"][:2] == ["1", "32"]
    assert rows["context"] == ["4096 tokens, vocabulary 400"]
    assert rows["template"] == ["llava_v1"]
    from llava import load_model

    counted = sum(weight.numel() for weight in load_model(next_folder).model.parameters())
    assert rows["total"][1] == f"{counted:,}"


def test_info_on_a_folder_without_weights_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "info", released_folder(tmp_path, {}))
    assert code == 0
    assert "This folder has no weights of a whole model." in out
