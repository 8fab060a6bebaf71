"""Writing converted rows: all or nothing, unique ids, and everything that is left out is counted and named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava.data.convert import row_writer
from llava.data.convert.converter import Converter, LeftOut, Options, Row, Source, make_row
from llava.data.convert.row_writer import convert, list_left_out, make_image_saver, write_whole
from llava.data.readers import read_records
from llava.errors import LlavaError, UsageError


def make_converter(rows: Iterator[Row] | list[Row], **more: Any) -> Converter:
    def give(source: Source, options: Options) -> Iterator[Row]:
        yield from rows

    fields: dict[str, Any] = {"files": {"train": ("a.json | b.json",)}, "licence": "-", "url": "https://example.org",
                              "images": "", "num_published": None, "counted": "", **more}  # fmt: skip
    return Converter("drawn", "Drawn", give, **fields)


def row(id: Any, answer: str = "Yes", image: Any = "a.png", question: str = "Is it?") -> Row:
    return make_row(id, image, [(question, answer)], "drawn")


def write(folder: Path, rows: Any, name: str = "out.json", limit: int | None = None, **options: Any) -> Any:
    (folder / "b.json").write_text("[]")
    return convert(make_converter(rows), folder, folder / name, Options(**options), limit=limit)


@pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
def test_what_is_written_is_what_training_reads(name: str, tmp_path: Path) -> None:
    rows = [
        row("1"),
        row("2", "Ja, „Grüß Gott“ 🚌\nund mehr"),
        row("3", image=None),
        row("4", image=["a.png", "b.png"]),
    ]
    written = write(tmp_path, rows, name)
    records = read_records(tmp_path / name)
    assert len(records) == written.num_rows == 4
    assert records.record(1).turns == (("human", "<image>\nIs it?"), ("gpt", "Ja, „Grüß Gott“ 🚌\nund mehr"))
    assert records.record(2).images == ()
    assert records.record(3).images == ("a.png", "b.png")
    assert records.record(3).turns[0][1] == "<image>\n<image>\nIs it?"
    assert (written.num_answers, written.num_images, written.num_renamed) == (4, 2, 0)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [f".{name}.llava-index", "b.json", name]


def test_ids_are_made_unique_and_a_repeated_row_is_left_out(tmp_path: Path) -> None:
    rows = [row("1", "a"), row("1", "b"), row("1-2", "c"), row("1", "b"), row("1", "d"), row(7, "e")]
    written = write(tmp_path, rows, "out.jsonl")
    ids = [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert ids == ["1", "1-2", "1-2-2", "1-3", "7"]
    assert written.num_renamed == 3
    assert written.left_out.counts == {"is the same row again": 1}
    assert "a number was added to the id of 3 rows" in written.describe()


def test_many_rows_of_one_id_are_numbered_without_a_search(tmp_path: Path) -> None:
    written = write(tmp_path, (row("0", f"{i}") for i in range(2_000)), "out.jsonl")
    assert written.num_rows == 2_000
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[-1])["id"] == "0-2000"


def test_rows_that_cannot_be_trained_on_are_counted_named_and_listed(tmp_path: Path) -> None:
    rows = [row("1"), row("2", ""), row("3", "\ud800"), row("4", image="../x.png"), row("5", image="/etc/x.png"),
            row("6", question="<image>"), {"id": "7"}, row("8\udc80"), row("9", image="\udc80.png")]  # fmt: skip
    with list_left_out(tmp_path / "left-out.jsonl") as left_out:
        written = write(tmp_path, rows, left_out=left_out)
    assert written.num_rows == 1
    assert left_out.counts == {
        "is a row that cannot be trained on": 3,
        "has an image outside the image folder": 2,
        "has <image> 2 times for 1 image": 1,
        "holds text that is not valid Unicode": 2,
    }
    listed = [json.loads(line) for line in (tmp_path / "left-out.jsonl").read_text().splitlines()]
    assert len(listed) == 8
    assert listed[2] == {"reason": "has an image outside the image folder", "what": "4 (../x.png)"}
    said = written.describe()
    assert "out.json: 1 row about 1 image, with 1 answer" in said
    assert "left out, since it has an image outside the image folder: 2 (4 (../x.png), 5 (/etc/x.png))" in said


def test_the_list_of_what_was_left_out_is_kept_when_nothing_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "left-out.jsonl"
    with pytest.raises(LlavaError, match="Nothing of Drawn"), list_left_out(path) as left_out:
        write(tmp_path, [row("1", "")], left_out=left_out)
    assert json.loads(path.read_text())["reason"] == "is a row that cannot be trained on"
    with pytest.raises(UsageError, match="exists already"), list_left_out(path):
        pass


def test_examples_of_what_was_left_out_are_few_and_fit_a_line() -> None:
    left_out = LeftOut()
    for i in range(10):
        left_out.add("is long", f"thing {i}\n" + "x" * 500)
    assert left_out.counts == {"is long": 10}
    assert len(left_out.examples["is long"]) == 3
    assert all(len(example) <= 80 and "\n" not in example for example in left_out.examples["is long"])


def test_a_limit_ends_the_conversation_early_and_the_file_is_complete(tmp_path: Path) -> None:
    asked = []

    def rows() -> Iterator[Row]:
        for i in range(100):
            asked.append(i)
            yield row(str(i))

    assert write(tmp_path, rows(), limit=3).num_rows == 3
    assert len(json.loads((tmp_path / "out.json").read_text())) == 3
    assert len(asked) == 3


def interrupt() -> Iterator[Row]:
    yield row("1")
    raise KeyboardInterrupt


def fail() -> Iterator[Row]:
    yield row("1")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("rows", "error"), [(interrupt, KeyboardInterrupt), (fail, LlavaError), (list, LlavaError)])
def test_nothing_is_left_behind_by_a_conversion_that_fails(rows: Any, error: Any, tmp_path: Path) -> None:
    with pytest.raises(error):
        write(tmp_path, rows())
    assert [entry.name for entry in tmp_path.iterdir()] == ["b.json"]


def test_a_killed_conversion_starts_over(tmp_path: Path) -> None:
    (tmp_path / ".out.json.partial").write_text('[\n{"id": "1", "conv')
    write(tmp_path, [row("1"), row("2")])
    assert len(read_records(tmp_path / "out.json")) == 2
    assert not (tmp_path / ".out.json.partial").exists()


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(LlavaError, match=r"out\.json' cannot be written: No space left on device\. Nothing was kept"):
        write(tmp_path, fail())


@pytest.mark.parametrize(
    ("name", "message"),
    [("out.parquet", "has to end with .json"), ("b.json", "exists already"), ("absent/out.json", "does not exist")],
)
def test_a_target_that_is_none_is_refused_before_anything_is_read(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        write(tmp_path, iter(()), name)


def test_missing_files_are_all_named_with_their_alternatives_and_where_they_come_from(tmp_path: Path) -> None:
    converter = make_converter([], files={"train": ("x/a.json | b.json", "part-*.parquet", "notes/"), "val": ()})
    message = "lacks 'x/a.json' or 'b.json', 'part-*.parquet', 'notes/'"
    with pytest.raises(UsageError) as caught:
        converter.find_source(tmp_path, "train")
    assert message in str(caught.value)
    assert "https://example.org" in str(caught.value)
    for name in ("a.json", "part-1.parquet", "part-0.parquet", "notes/1.json", "party.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    source = converter.find_source(tmp_path, "train")
    assert source.file(0) == tmp_path / "a.json"
    assert source.files(1) == (tmp_path / "part-0.parquet", tmp_path / "part-1.parquet")
    assert source.file(2) == tmp_path / "notes"
    with pytest.raises(UsageError, match=r"has no split 'vall'\. Did you mean 'val'"):
        converter.find_source(tmp_path, "vall")
    with pytest.raises(UsageError, match="is one file"):
        converter.find_source(tmp_path / "a.json", "train")
    with pytest.raises(UsageError, match="does not exist"):
        converter.find_source(tmp_path / "absent", "train")


def test_an_image_is_stored_below_its_folder_and_never_replaced(tmp_path: Path) -> None:
    save = make_image_saver(tmp_path / "images")
    save("a/b.png", b"one")
    save("a/b.png", b"one")
    assert (tmp_path / "images/a/b.png").read_bytes() == b"one"
    with pytest.raises(UsageError, match="exists already, and is another image"):
        save("a/b.png", b"two")
    for name in ("../x.png", "/x.png", "a/../../x.png", "", "a\\b.png"):
        with pytest.raises(UsageError, match="leaves the folder"):
            save(name, b"one")
    (tmp_path / "images/file").touch()
    with pytest.raises(LlavaError, match="cannot be written"):
        save("file/x.png", b"one")
    assert sorted(path.name for path in (tmp_path / "images").rglob("*")) == ["a", "b.png", "file"]


def test_progress_is_said_every_few_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "b.json").write_text("[]")
    now = iter(range(0, 1000, 2))
    converter = make_converter([row(str(i)) for i in range(10)])
    convert(converter, tmp_path, tmp_path / "out.json", Options(), clock=lambda: float(next(now)))
    assert capsys.readouterr().err.splitlines()[:2] == ["llava: 3 rows", "llava: 6 rows"]


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    dst = tmp_path / "a.txt"
    with write_whole(dst) as write_text:
        write_text("half")
        assert not dst.exists()
    assert dst.read_text() == "half"
    assert row_writer.leaves_folder("a/b.png") is False
