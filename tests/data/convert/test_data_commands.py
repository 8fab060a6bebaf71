"""``llava data list`` and ``llava data convert`` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llava.cli import main
from llava.data.convert.table import CONVERTERS
from llava.data.readers import read_records
from tests.data.convert.converting import write_json

BOOKS = {
    "761183272": {"questions": ["Who wrote this book?"], "answers": ["Sandra Boynton"], "split": 1},
    "140031996X": {"questions": ["Who wrote this book?"], "answers": [""], "split": 1},
}


def test_the_list_has_a_row_for_each_dataset_with_licence_source_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in CONVERTERS.values():
        (first,) = [line for line in lines if line.split()[:1] == [row.name]]
        assert row.num_published is None or f"{row.num_published:,}" in first
        assert " ".join(row.licence.split()[:2]) in first
        assert row.url.split(" and ")[0].removeprefix("https://") in first
        for entry in next(iter(row.files.values())):
            assert any(line.endswith(entry.split(" | ")[0]) for line in lines)


@pytest.mark.parametrize("row", CONVERTERS.values(), ids=lambda row: row.name)
def test_every_dataset_states_its_facts(row: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(row, type(next(iter(CONVERTERS.values()))))
    assert row.licence
    assert row.url.startswith("https://")
    assert row.facts
    assert row.files
    assert all(files for files in row.files.values())
    assert (row.num_published is None) == (row.counted == "")
    assert main(["data", "list", row.name]) == 0
    assert row.licence in capsys.readouterr().out


def test_the_list_as_json_holds_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "textcaps", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["published"], list(row["formats"])) == ("textcaps", 21953, ["ocr", "plain", "all"])
    assert row["files"]["train"][0] == "TextCaps_0.1_train.json"


def test_a_dataset_is_converted_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path, "dataset.json", BOOKS)
    target, left_out = tmp_path / "ocr_vqa.jsonl", tmp_path / "left-out.jsonl"
    command = ["data", "convert", "ocr_vqa", str(tmp_path), str(target), "--left-out", str(left_out), "--seed", "3"]
    assert main([*command, "--prompt", "Be brief.", "--limit", "5"]) == 0
    assert capsys.readouterr().out == (
        f"{target}: 1 row about 1 image, with 1 answer\n"
        "  left out, since it has no answer: 1 ('Who wrote this book?' about book 140031996X)\n"
    )
    assert read_records(target).record(0).turns[0][1] == "<image>\nWho wrote this book?\nBe brief."
    assert json.loads(left_out.read_text())["reason"] == "has no answer"


def test_the_rows_of_a_mixture_are_counted_by_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(id: str, image: str | None) -> dict[str, object]:
        question = "Hello?" if image is None else "<image>\nWhat is it?"
        said = [{"from": "human", "value": question}, {"from": "gpt", "value": "A cat."}]
        return {"id": id, "conversations": said} | ({} if image is None else {"image": image})

    rows = [row("1", "gqa/images/1.jpg"), row("2", None), row("3", "gqa/images/3.jpg")]
    path = write_json(tmp_path, "llava_v1_5_mix665k.json", rows)
    assert main(["data", "convert", "mix665k", str(path), str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["          2  gqa", "          1  sharegpt"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["vqa2", "SRC", "out.json"], 2, "There is no converter 'vqa2'. Did you mean 'vqav2'?"),
        (["ocr_vqa", "SRC/absent", "out.json"], 2, "does not exist. It has to be the folder with 'dataset.json'"),
        (["vqav2", "SRC", "out.json"], 2, "They come from https://visualqa.org/download.html."),
        (["ocr_vqa", "SRC", "out.json", "--split", "tset"], 2, "has no split 'tset'. Did you mean 'test'?"),
        (["ocr_vqa", "SRC", "out.json", "--format", "x"], 2, "It has one only: leave the flag out."),
        (["ocr_vqa", "SRC", "out.json", "--limit", "0"], 2, "--limit is 0; it has to be at least 1."),
        (["ocr_vqa", "SRC", "out.json", "--images", "nowhere"], 2, "The image folder 'nowhere' does not exist."),
        (["ocr_vqa", "SRC", "out.txt"], 2, "has to end with .json (a list) or .jsonl"),
        (["ocr_vqa", "SRC", "SRC/dataset.json"], 2, "exists already. Remove it, or name another file."),
        (["ocr_vqa", "SRC", "out.json", "--split", "val"], 1, "Nothing of OCR-VQA was converted"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path, "src/dataset.json", BOOKS)
    try:
        returned = main(["data", "convert", *(word.replace("SRC", "src") for word in arguments)])
    except SystemExit as stop:
        returned = int(stop.code or 0)
    said = capsys.readouterr()
    assert (returned, said.out) == (code, "")
    assert message in said.err
    assert "Traceback" not in said.err
    assert not Path("out.json").exists()
