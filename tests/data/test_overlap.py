"""``llava data overlap``: a small TextCaps with the images of a small TextVQA, and everything that can be wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llava.cli import main
from llava.data.collection.journal import lock_folder
from llava.data.fingerprint_store import FingerprintStore, fingerprint_all, make_key
from llava.data.fingerprints import fingerprint
from llava.data.overlap import find_overlap, gather, normalise_question
from llava.errors import LlavaError, UsageError
from tests.data.drawn_images import alter, draw_chart, draw_page, draw_photo, encode

NUM_SHARED = 4


def ask(id: str, image: str, question: str, source: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "a sign"}]
    return {"id": id, "image": image, "data_source": source, "conversations": turns}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mix.json with images in train/ of two sources; val.jsonl, questions in LLaVA's format, with images in val/."""
    folder = tmp_path_factory.mktemp("overlap")
    rng = np.random.default_rng(1)
    (folder / "train").mkdir()
    (folder / "val").mkdir()
    rows, questions = [], []
    for i in range(8):
        image = draw_photo(rng, 320, 240)
        (folder / f"train/caps{i}.jpg").write_bytes(encode(image, quality=88))
        rows.append(ask(f"c{i}", f"caps{i}.jpg", "What does the sign say?", "textcaps"))
        shown = alter(rng, image) if i < NUM_SHARED else encode(draw_photo(rng, 320, 240))
        (folder / f"val/{i}.jpg").write_bytes(shown)
        text = "what does the sign say?" if i != 1 else "Which brand is it?"
        questions.append({"question_id": i, "image": f"{i}.jpg", "text": f"{text}\nAnswer with a single word."})
    for i in range(4):
        draw = draw_page if i < 2 else draw_chart
        (folder / f"train/doc{i}.png").write_bytes(encode(draw(rng, i), "PNG"))
        rows.append(ask(f"d{i}", f"doc{i}.png", "Which brand is it?", "docvqa"))
    (folder / "train/broken.jpg").write_text("<html><body>404 Not Found</body></html>")
    rows += [ask("b", "broken.jpg", "Why?", "textcaps"), ask("m", "missing.jpg", "Why?", "textcaps")]
    rows.append(ask("o", "../val/0.jpg", "Why?", "textcaps"))
    (folder / "mix.json").write_text(json.dumps(rows))
    (folder / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    return folder


def run(folder: Path, out: Path, *flags: str) -> int:
    where = ["--images", str(folder / "train"), "--with-images", str(folder / "val"), "--out", str(out)]
    return main(["data", "overlap", str(folder / "mix.json"), "--with", str(folder / "val.jsonl"), *where, *flags])


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_shared_images_and_questions_are_listed_by_source(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, tmp_path, "--workers", "1") == 0
    pairs = read(tmp_path / "pairs.jsonl")
    assert [(pair["train"], pair["eval"]) for pair in pairs] == [
        (f"caps{i}.jpg", f"{i}.jpg") for i in range(NUM_SHARED)
    ]
    assert {tuple(pair["train_sources"]) for pair in pairs} == {("textcaps",)}
    questions = {row["question"]: row["on_a_shared_image"] for row in read(tmp_path / "questions.jsonl")}
    assert questions == {"what does the sign say": True, "which brand is it": False}
    output = capsys.readouterr()
    rows = {line.split()[-8]: line.split()[-7:] for line in output.out.splitlines() if "%" in line}
    assert rows["textcaps"] == ["8", "4", "50.00%", "3", "2", "1", "1"]
    assert rows["docvqa"] == ["4", "0", "0.00%", "0", "1", "1", "0"]
    assert rows["val"] == ["8", "4", "50.00%", "0", "2", "2", "1"]
    unreadable = {row["image"]: row["reason"] for row in read(tmp_path / "unreadable.jsonl")}
    assert "web page" in unreadable["broken.jpg"]
    assert "There is no file" in unreadable["missing.jpg"]
    assert "outside the image folder" in unreadable["../val/0.jpg"]
    assert "3 of 15 images of the training data cannot be read" in output.err
    sheet = (tmp_path / "pairs.html").read_text()
    assert sheet.count("<figure>") == NUM_SHARED
    assert sheet.count("data:image/jpeg;base64,") == 2 * NUM_SHARED


@pytest.mark.parametrize(("limit", "code"), [("0.5", 0), ("0.49", 1), ("0", 1)])
def test_a_rate_above_the_limit_is_exit_code_1(folder: Path, tmp_path: Path, limit: str, code: int) -> None:
    assert run(folder, tmp_path, "--workers", "1", "--fail-above", limit) == code


@pytest.mark.parametrize("flags", [("--fail-above", "2"), ("--fail-above", "nan"), ("--workers", "0")])
def test_impossible_flags_are_exit_code_2(folder: Path, tmp_path: Path, flags: tuple[str, str]) -> None:
    assert run(folder, tmp_path, *flags) == 2


def test_folders_of_images_are_compared_with_several_processes(folder: Path, tmp_path: Path) -> None:
    loop = tmp_path / "images/loop"
    loop.parent.mkdir()
    loop.symlink_to(loop.parent)
    for name in ("train", "val"):
        for path in (folder / name).iterdir():
            (tmp_path / "images" / f"{name}-{path.name}").write_bytes(path.read_bytes())
    train, benchmark = gather([str(tmp_path / "images")], ""), gather([str(folder / "val")], "")
    with FingerprintStore(tmp_path / "prints") as store:
        images = list(train.images.values())
        assert sum(num for num, _ in fingerprint_all(images, store, 2)) == len(images) == 21
        found = find_overlap(train, benchmark, store, 2, lambda what, done, total: None)
    kinds = [(Path(pair.train).name, Path(pair.eval).name, pair.pair.kind) for pair in found.pairs]
    assert [kind for kind in kinds if kind[2] == "near"] == [
        (f"train-caps{i}.jpg", f"{i}.jpg", "near") for i in range(4)
    ]
    assert [kind for kind in kinds if kind[2] == "file"] == [(f"val-{i}.jpg", f"{i}.jpg", "file") for i in range(8)]
    assert found.share == 1


def test_a_second_run_hashes_nothing_and_a_cut_off_row_only_that_image(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(folder, tmp_path, "--workers", "1") == 0
    first, path = (tmp_path / "pairs.jsonl").read_bytes(), tmp_path / "fingerprints.bin"
    hashed: list[Any] = []

    def hash_counted(source: Any) -> Any:
        hashed.append(source)
        return fingerprint(source)

    monkeypatch.setattr("llava.data.fingerprint_store.fingerprint", hash_counted)
    assert run(folder, tmp_path, "--workers", "1") == 0
    assert {os.path.basename(source) for source in hashed} == {"broken.jpg", "missing.jpg"}
    hashed.clear()
    num_bytes = path.stat().st_size
    os.truncate(path, num_bytes - 100)  # as kill -9 or a full disk leaves it
    assert run(folder, tmp_path, "--workers", "1") == 0
    assert len(hashed) == 3
    assert path.stat().st_size == num_bytes
    assert (tmp_path / "pairs.jsonl").read_bytes() == first


def test_an_image_that_changed_is_hashed_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    image = tmp_path / "images/a.png"
    image.parent.mkdir()
    digests = []
    for _ in range(2):
        image.write_bytes(encode(draw_photo(rng, 100, 80), "PNG"))
        corpus = gather([str(image.parent)], "")
        with FingerprintStore(tmp_path / "prints") as store:
            found = find_overlap(corpus, corpus, store, 1, lambda what, done, total: None)
            digests.append(bytes(store.open()["digest"][store.row(corpus.images[str(image)][0])]))
        assert [pair.pair.kind for pair in found.pairs] == ["file"]
    assert digests[0] != digests[1]


def test_a_file_that_is_none_of_fingerprints_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "prints").write_text("my notes")
    with pytest.raises(UsageError, match="is not a file of fingerprints"):
        FingerprintStore(tmp_path / "prints")
    assert (tmp_path / "prints").read_text() == "my notes"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a device that is always full")
def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = fingerprint(encode(draw_photo(np.random.default_rng(3), 100, 80)))
    with FingerprintStore(tmp_path / "prints") as store, open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(store, "_file", full)
        with pytest.raises(LlavaError, match="No space left"):
            store.append([(make_key("a"), found)])
        monkeypatch.undo()


def test_a_line_that_is_no_question_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "val.jsonl"
    path.write_text('{"question_id": 1, "image": "1.jpg", "text": "Why?"}\n{"question_id": 2, "im')
    assert main(["data", "overlap", str(folder / "mix.json"), "--with", str(path), "--out", str(tmp_path / "out")]) == 2
    assert f"Line 2 of '{path}' is no question" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("<image>\nWhat's the  TIME?", "what s the time"),
        ("what's the time\nAnswer with a word.", "what s the time"),
        ("这是什么？", "这是什么"),
        ("Ｗｈａｔ？", "what"),
        ("<image>\n", ""),
    ],
)
def test_questions_are_compared_without_case_punctuation_and_what_follows(text: str, normalised: str) -> None:
    assert normalise_question(text) == normalised


@pytest.mark.parametrize("side", ["--images", "--with-images"])
def test_a_side_of_which_no_image_can_be_read_is_no_result(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], side: str
) -> None:
    assert run(folder, tmp_path / "out", "--workers", "1", side, str(tmp_path / "nowhere"), "--fail-above", "0") == 1
    assert f"so no image was compared: check {side}." in " ".join(capsys.readouterr().err.split())


def test_a_limit_for_a_benchmark_without_images_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question_id": 1, "text": "Why?"}\n')
    command = ["data", "overlap", str(folder / "mix.json"), "--with", str(tmp_path / "q.jsonl")]
    assert main([*command, "--out", str(tmp_path / "out"), "--fail-above", "0"]) == 2


def test_two_runs_never_write_to_one_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_folder(tmp_path):
        assert run(folder, tmp_path, "--workers", "1") == 2
    assert "Another command is writing" in capsys.readouterr().err


def test_a_question_about_several_images_has_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question_id": 1, "image": ["a.png", "b.png"], "text": "Why?"}\n')
    assert list(gather([str(path)], str(tmp_path)).images) == ["a.png", "b.png"]
    path.write_text('{"question_id": 1, "text": "Why?"}\n{"question_id": 2, "image": 7, "text": "Why?"}\n')
    with pytest.raises(UsageError, match=r"Line 2 .* is not the name of a file"):
        gather([str(path)], str(tmp_path))
    path.write_bytes(b'{"question_id": 1, "text": "Why?"}\n{"question_id": 2, "text": "Why \xff?"}\n')
    with pytest.raises(UsageError, match=r"Line 2 .* is no question"):
        gather([str(path)], str(tmp_path))


def test_images_with_rarer_names_are_found_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.jfif", "b.TGA", "c.heif", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [Path(name).name for name in gather([str(tmp_path)], "").images] == ["a.jfif", "b.TGA", "c.heif"]
