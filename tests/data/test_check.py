"""``llava data check`` names everything that is wrong with a data file, once, and goes on where it was interrupted."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.data import check_run, row_check
from llava.data.check_run import check_files
from llava.data.readers import read_records
from llava.errors import LlavaError

HUMAN, GPT = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}


def png(width: int = 4) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, 2), "red").save(data, "PNG")
    return data.getvalue()


def cut() -> bytes:
    """A PNG whose second half is missing."""
    data = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(data, "PNG")
    return data.getvalue()[: data.tell() // 2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """images/ with a good image, a cut one, a web page and a loop of links; the current folder."""
    monkeypatch.chdir(tmp_path)
    images = tmp_path / "images"
    images.mkdir()
    (images / "good.png").write_bytes(png())
    (images / "cut.png").write_bytes(cut())
    (images / "page.jpg").write_text("<!DOCTYPE html><html>404</html>")
    (images / "empty.jpg").write_bytes(b"")
    (images / "loop.png").symlink_to("loop.png")
    return tmp_path


def row(id: Any, image: Any = "good.png", turns: Any = None, **fields: Any) -> dict[str, Any]:
    return {"id": id, "image": image, "conversations": turns or [HUMAN, {**GPT, "value": f"Cat {id}."}], **fields}


CASES = [
    (row("missing", "none.png"), "missing image", "There is no image"),
    (row("cut", "cut.png"), "broken image", "cut.png"),
    (row("empty", "empty.jpg"), "broken image", "is empty"),
    (row("page", "page.jpg"), "image is HTML", "web page"),
    (row("out", "../secret.png"), "image not allowed", "outside the image folder"),
    (row("loop", "loop.png"), "image not allowed", "symbolic links|outside"),
    (row("size", width=5, height=2), "wrong size", r"has 4x2 px, but the row says 5x2|4 x 2|4×2"),
    (row("sizes", ["good.png"], width=[4], height=[3]), "wrong size", "the row says"),
    (row("slots", turns=[{**HUMAN, "value": "What?"}, GPT]), "slots and images", "0 <image> in its text, but 1"),
    (row("two", ["good.png"] * 2), "slots and images", "1 <image> in its text, but 2"),
    (row("order", turns=[HUMAN, HUMAN, GPT]), "role order", "human, human, gpt"),
    (row("who", turns=[HUMAN, {"from": "bot", "value": "x"}]), "unknown speaker", "'bot'"),
    (row("silent", turns=[HUMAN, {**GPT, "value": ""}]), "no answer", "no answer"),
    (row("turns", turns="text"), "turns", "needs a list"),
    (row("field", 7), "image field", "file's name"),
    (row("film", video="x.mp4"), "video", "videos are not supported"),
    ([1], "no row", "is a list"),
]


@pytest.mark.parametrize(("bad", "kind", "reason"), CASES, ids=[case[1] for case in CASES])
def test_each_fault_of_a_row_is_named(folder: Path, bad: Any, kind: str, reason: str) -> None:
    Path("x.json").write_text(json.dumps([row("a"), bad, row("b")]))
    first, found, last = check_files(["x.json"], Path("images"), Path("j"))
    assert not first.findings
    assert not last.findings
    assert [each for each, _ in found.findings] == [kind]
    assert found.is_bad
    with pytest.raises(LlavaError, match=reason):
        raise LlavaError(found.findings[0][1])


def test_a_good_row_with_a_turned_image_and_its_stored_size_has_no_fault(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 2)).save("images/turned.jpg", exif=exif)
    rows = [row("a", "turned.jpg", width=8, height=2), row("b", "turned.jpg", width=2, height=8), row("c", None)]
    rows[2]["conversations"] = [{"from": "human", "value": "Q"}, GPT]
    Path("x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    facts = check_files(["x.jsonl"], Path("images"), Path("j"))
    assert [each.findings for each in facts] == [[], [], []]
    assert [(each.num_words, each.num_images) for each in facts] == [(4, 1), (4, 1), (3, 0)]


def test_a_second_check_in_one_process_looks_at_the_files_again(folder: Path) -> None:
    Path("x.json").write_text(json.dumps([row("a", "new.png")]))
    assert [kind for kind, _ in check_files(["x.json"], Path("images"), Path("j"))[0].findings] == ["missing image"]
    Path("images/new.png").write_bytes(png())
    assert check_files(["x.json"], Path("images"), Path("k"))[0].findings == []


def test_duplicates_are_told_from_rows_that_only_share_an_id(folder: Path) -> None:
    Path("x.json").write_text(json.dumps([row("a"), row("b"), row("a"), row("b", turns=[HUMAN, GPT]), row("c")]))
    facts = check_files(["x.json", "x.json"], Path("images"), Path("j"))
    kinds = [[kind for kind, _ in each.findings] for each in facts]
    assert kinds == [[], [], ["duplicate row"], ["duplicate id"], [], *[["duplicate row"]] * 5]
    assert "row 1 of x.json has this id and other content" in facts[3].findings[0][1]


def test_the_command_prints_a_table_writes_the_findings_and_a_clean_copy(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("a"), row("a", turns=[HUMAN, GPT]), row("x", "none.png"), row("b", note="?"), row("b", note="?")]
    Path("x.json").write_text(json.dumps(rows))
    assert main(["data", "check", "x.json", "--images", "images", "--workers", "1", "--fix", "clean.jsonl"]) == 1
    said = capsys.readouterr().out
    for words in ("5 rows, 3 with faults", "missing image", "duplicate id", "duplicate row", "unknown field (note)"):
        assert words in said
    found = [json.loads(line) for line in Path("x.json.findings.jsonl").read_text().splitlines()]
    assert [(each["row"], each["id"], each["bad"]) for each in found] == [
        (1, "a", True),
        (2, "x", True),
        (3, "b", False),
        (4, "b", True),
    ]
    assert [json.loads(line) for line in Path("clean.jsonl").read_text().splitlines()] == [
        rows[0],
        {**rows[1], "id": "a-2"},
        rows[3],
    ]
    assert main(["data", "check", "clean.jsonl", "--images", "images", "--workers", "1"]) == 0
    assert main(["data", "check", "x.json", "--images", "images", "--workers", "1", "--fix", "clean.json"]) == 1
    assert len(read_records("clean.json")) == 3
    assert list(Path().glob("*.part")) == []


def test_rows_after_a_broken_line_and_before_a_cut_are_checked(folder: Path) -> None:
    Path("x.jsonl").write_text("\n".join([json.dumps(row("a")), '{"id": ', json.dumps(row("b"))]))
    facts = check_files(["x.jsonl"], Path("images"), Path("j"))
    assert [[kind for kind, _ in each.findings] for each in facts] == [[], ["unreadable"], []]
    Path("x.json").write_text(json.dumps([row("a"), row("b")])[:-30])
    facts = check_files(["x.json"], Path("images"), Path("k"))
    assert [[kind for kind, _ in each.findings] for each in facts] == [[], ["unreadable"]]
    assert "cut off at its end" in facts[1].findings[0][1]


def test_an_interrupted_check_goes_on_without_checking_a_row_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_run, "_BATCH_ROWS", 2)
    rows = [row(i, "none.png" if i == 1 else "good.png") for i in range(9)]
    Path("x.json").write_text(json.dumps(rows))
    expected = check_files(["x.json"], Path("images"), Path("whole"))
    checked: list[int] = []
    check = row_check.RowChecker.check

    def check_until(number: int) -> Any:
        def checking(self: Any, scanned: Any, file: str) -> Any:
            if scanned.number == number:
                raise KeyboardInterrupt
            checked.append(scanned.number)
            return check(self, scanned, file)

        return checking

    monkeypatch.setattr(row_check.RowChecker, "check", check_until(5))
    with pytest.raises(KeyboardInterrupt):
        check_files(["x.json"], Path("images"), Path("j"))
    with Path("j").open("a") as journal:
        journal.write('[[6, "x.json", "6"')  # a line that a kill cut off
    monkeypatch.setattr(row_check.RowChecker, "check", check_until(-1))
    assert check_files(["x.json"], Path("images"), Path("j")) == expected
    assert checked == [0, 1, 2, 3, 4, *range(4, 9)]
    Path("x.json").write_text(json.dumps(rows[:3]))  # another file: nothing of the journal counts
    assert len(check_files(["x.json"], Path("images"), Path("j"))) == 3


def test_two_processes_find_the_same_as_one(folder: Path) -> None:
    Path("x.json").write_text(json.dumps([row(0), *(case[0] for case in CASES), row(1)] * 4))
    one, two = (check_files(["x.json"], Path("images"), Path(f"j{n}"), workers=n) for n in (1, 2))
    assert one == two


def test_a_full_disk_is_named_and_what_was_checked_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_run, "_BATCH_ROWS", 1)
    Path("x.json").write_text(json.dumps([row(i) for i in range(4)]))
    write, written = check_run._Journal._write, []

    def fill(self: Any, line: str) -> None:
        written.append(line)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        write(self, line)

    monkeypatch.setattr(check_run._Journal, "_write", fill)
    with pytest.raises(LlavaError, match=r"cannot be written: No space left on device.*goes on where it was"):
        check_files(["x.json"], Path("images"), Path("j"))
    assert len(Path("j").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["none.json"], 2, "'none.json' does not exist"),
        (["x.csv"], 2, "does not exist|has to end with .json"),
        (["mix.yaml"], 2, "names data files: check each of them"),
        (["x.json", "--workers", "0"], 2, "--workers is 0; it has to be 1 or more"),
        (["x.json", "--fix", "x.json"], 2, "is the file that is checked"),
        (["x.json", "--fix", "x.txt"], 2, "has to end with .json or .jsonl"),
        (["x.parquet", "--fix", "y.json"], 2, "the clean copy of x.parquet has to end with .parquet"),
    ],
)
def test_a_wrong_call_says_what_to_do(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    Path("x.json").write_text(json.dumps([row("a")]))
    Path("mix.yaml").write_text("datasets: []")
    assert main(["data", "check", *words]) in (code, 1)
    with pytest.raises(LlavaError, match=message):
        raise LlavaError(capsys.readouterr().err)
    assert list(Path().glob("*.part")) == []


def test_stored_images_are_decoded_too(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    stored = [{"bytes": data, "path": None} for data in (png(), cut(), b"<html><body>404</body></html>")]
    pq.write_table(pa.table({"image": stored, "conversations": [[HUMAN, GPT]] * 3}), "x.parquet")
    facts = check_files(["x.parquet"], Path(), Path("j"))
    assert [[kind for kind, _ in each.findings] for each in facts] == [[], ["broken image"], ["image is HTML"]]
