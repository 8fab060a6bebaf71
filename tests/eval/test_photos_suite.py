"""``llava eval photos``: a folder of images, what is true of them, and a model's answers scored, kept and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from llava.cli import main
from llava.errors import UsageError
from llava.eval.everyday_kinds import find_kinds
from llava.eval.photo_suite import read_scores, score_answers, write_scores
from llava.eval.photo_truths import WORDINGS, name_by_file, read_folder
from llava.eval.report.photos_page import write_photos_page


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two small images whose names say what they show."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, color in (("red_panda-02.png", "brown"), ("cat.jpg", "gray")):
        Image.new("RGB", (40, 30), color).save(folder / name)
    return folder


def write_list(folder: Path, rows: object) -> Path:
    path = folder / "truth.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_a_name_says_what_an_image_shows_and_a_camera_s_name_says_nothing() -> None:
    names = {name: name_by_file(Path(name)) for name in ("red_panda-02.png", "Cat 3.JPG", "IMG_2034.jpg", "0017.png")}
    assert list(names.values()) == ["red panda", "cat", "", ""]


def test_the_kinds_of_everyday_things_are_known() -> None:
    assert find_kinds("pelican") == ("bird", "animal")
    assert find_kinds("office chair") == ("chair", "furniture")
    assert find_kinds("zyzzyva") == ()


def test_without_a_list_every_image_is_asked_by_its_name_in_every_wording(photos: Path) -> None:
    asked = read_folder(photos)
    assert [(one.path.name, one.question) for one in asked] == [
        (name, wording) for name in ("cat.jpg", "red_panda-02.png") for wording in WORDINGS
    ]
    assert asked[-1].truth.answers == ("red panda",)
    assert "animal" in asked[-1].truth.kinds


def test_a_list_gives_names_kinds_and_questions_of_its_own(photos: Path) -> None:
    rows = [
        {"file": "cat.jpg", "names": ["cat", "tabby"], "kinds": ["pet"], "group": "animals"},
        {"file": "red_panda-02.png", "question": "How many?", "answers": ["1"], "form": "number", "group": "counts"},
        {"file": "red_panda-02.png", "question": "What is its name?", "form": "cannot tell"},
    ]
    write_list(photos, rows)
    asked = read_folder(photos)
    assert len(asked) == len(WORDINGS) + 2
    assert asked[0].truth.kinds == ("pet",)
    assert (asked[-2].group, asked[-2].truth.form) == ("counts", "number")
    assert (asked[-1].group, asked[-1].truth.form) == ("questions", "cannot tell")
    by_csv = photos / "truth.csv"
    by_csv.write_text(
        "file,names,kinds,question,answers,form,group\n"
        "cat.jpg,cat; tabby,pet,,,,animals\n"
        "red_panda-02.png,,,How many?,1,number,counts\n"
        "red_panda-02.png,,,What is its name?,,cannot tell,\n",
        encoding="utf-8",
    )
    assert read_folder(photos, by_csv) == asked


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "is empty"),
        ({"file": "cat.jpg"}, "is not a list of objects"),
        ([{"names": ["cat"]}], "Entry 1 of .* it has no 'file'"),
        ([{"file": "dog.jpg", "names": ["dog"]}], "the image .*dog.jpg' is missing"),
        ([{"file": "cat.jpg", "name": ["cat"]}], "'name' is none of its keys; there are: answers, file, .*names"),
        ([{"file": "cat.jpg", "names": [1]}], "'names' is .*; it has to be a list of texts"),
        ([{"file": "cat.jpg", "question": "What?"}], "a question without 'answers'"),
        (
            [{"file": "cat.jpg", "question": "?", "answers": ["x"], "form": "guess"}],
            "'form' is 'guess'; there are: name",
        ),
        ([{"file": "cat.jpg", "question": "?", "answers": ["1"], "tolerance": -1}], "'tolerance' is -1"),
        ([{"file": "cat.jpg", "question": "?", "answers": ["1"], "keeps_case": "no"}], "'keeps_case' is 'no'"),
    ],
)
def test_a_list_with_a_mistake_is_refused_by_its_entry(photos: Path, rows: object, said: str) -> None:
    write_list(photos, rows)
    with pytest.raises(UsageError, match=said):
        read_folder(photos)


def test_a_damaged_csv_file_is_refused(photos: Path) -> None:
    path = photos / "truth.csv"
    path.write_text('file,names\n"cat.jpg,cat\n', encoding="utf-8")
    with pytest.raises(UsageError, match="is not a CSV file: unexpected end of data"):
        read_folder(photos)
    path.write_text("file,names\ncat.jpg,cat,pet\n", encoding="utf-8")
    with pytest.raises(UsageError, match="has more cells than the first line has columns"):
        read_folder(photos)


def test_images_in_subfolders_are_told_apart_and_found(photos: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (photos / name).mkdir()
        Image.new("RGB", (40, 30), "brown").save(photos / name / "a.png")
    write_list(photos, [{"file": f"{name}/a.png", "names": ["cat"]} for name in ("one", "two")])
    asked = read_folder(photos)
    scores = score_answers(asked, ["A cat."] * 3 + ["A dog."] * 3, "a model", photos)
    assert [(group.images, group.share) for group in scores.groups] == [(2, 0.5)]
    page = tmp_path / "x.html"
    write_photos_page(page, [scores], photos)
    assert page.read_text(encoding="utf-8").count("data:image/jpeg;base64,") == 2


def test_a_folder_that_cannot_be_asked_about_is_refused_before_a_model_is_loaded(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("llava.commands.eval_photos.load", lambda _: pytest.fail("a model is loaded"))

    def said(folder: Path) -> str:
        assert main(["eval", "photos", str(folder)]) == 2
        return capsys.readouterr().err

    assert "is no folder" in said(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "has no images" in said(tmp_path / "empty")
    (photos / "damaged cat.png").write_bytes((photos / "red_panda-02.png").read_bytes()[:60])
    assert "1 of 3 images cannot be read: 'damaged cat.png'" in said(photos)
    (photos / "damaged cat.png").rename(photos / "IMG_1.png")
    assert "The names of 1 of 3 images" in said(photos)


def test_an_image_counts_once_by_the_mean_of_its_wordings(photos: Path, tmp_path: Path) -> None:
    asked = read_folder(photos)
    texts = ["A cat.", "This is an animal.", "A chair.", "This is a red panda.", "", "A red panda on a tree."]
    scores = score_answers(asked, texts, "a model", photos)
    (group,) = scores.groups
    assert (group.images, group.questions) == (2, 6)
    assert group.share == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert group.kind_share == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert group.low < group.share < group.high
    assert scores.health.empty == pytest.approx(1 / 6)
    assert [answer.why for answer in scores.answers if not answer.score] == [
        "it names only the kind",
        "it names something else",
        "empty",
    ]
    path = tmp_path / "x.scores.json"
    write_scores(path, scores)
    assert read_scores(path) == scores
    page = tmp_path / "x.html"
    write_photos_page(page, [scores, scores], photos)
    html = page.read_text(encoding="utf-8")
    assert "This is a red panda." in html
    assert html.count("data:image/jpeg;base64,") == 2


def test_a_run_writes_answers_scores_and_page_and_goes_on_where_it_broke_off(
    photos: Path, next_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava.eval.photo_suite.MAX_NEW_TOKENS", 5)
    command = ["eval", "photos", str(photos), "--model", str(next_folder), "--answers", str(photos / "x.jsonl")]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "6 answers of" in out
    assert "what it" in out
    whole = (photos / "x.jsonl").read_bytes()
    scores = read_scores(photos / "x.scores.json")
    assert len(scores.answers) == 6
    assert (photos / "x.html").is_file()
    (photos / "x.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    assert main(command) == 0
    assert "has 4 of 6 answers already" in capsys.readouterr().err
    assert (photos / "x.jsonl").read_bytes() == whole
    assert read_scores(photos / "x.scores.json") == scores
    assert main([*command, "--limit", "2"]) == 0
    assert (photos / "x.jsonl").read_bytes() == whole
    assert len(read_scores(photos / "x.scores.json").answers) == 2


def test_another_run_s_scores_are_shown_beside_and_any_other_file_is_refused(photos: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd.json"
    odd.write_text("[1]")
    with pytest.raises(UsageError, match="is not a scores file of llava eval photos"):
        read_scores(odd)
