"""Parquet of Hugging Face datasets and WebDataset's archives are rows with their images, and their faults are named."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llava.cli import main
from llava.data.check_run import check_files
from llava.data.image_files import find_image
from llava.data.readers import read_records, scan_rows
from llava.errors import BadImage, UsageError
from llava.image.source import load_image
from llava.train.dataset.samples import RecordSamples

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}]
TEXT_TURNS = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dog is it."}]
IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(number: int) -> bytes:
    """A PNG that is ``number + 1`` px wide."""
    data = io.BytesIO()
    Image.new("RGB", (number + 1, 2), "red").save(data, "PNG")
    return data.getvalue()


def write(path: Path, columns: dict[str, Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def widths(path: Any, folder: Path | str = "") -> list[list[int]]:
    """The widths of the images of each record, read through training's own source."""
    samples = RecordSamples(read_records(path), folder, allows_outside=False)
    return [[image.width for image in samples.sample(i).images] for i in range(len(samples))]


def images(*values: Any) -> Any:
    return pa.array(values, IMAGE)


def stored(number: int, path: str | None = "x.png") -> dict[str, Any]:
    return {"bytes": png(number), "path": path}


def test_stored_images_of_every_row_group_are_read_with_their_texts(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.parquet",
        {
            "id": [f"r{i}" for i in range(7)],
            "image": images(*(None if i == 3 else stored(i, f"{i}.png") for i in range(7))),
            "conversations": [TEXT_TURNS if i == 3 else TURNS for i in range(7)],
            "data_source": ["chartqa"] * 7,
            "embedding": [[0.5]] * 7,
        },
        row_group_size=2,
    )
    assert widths(path) == [[1], [2], [3], [], [5], [6], [7]]
    rows = read_records(path)
    record = rows.record(4)
    assert (record.id, record.source, record.turns[1][1]) == ("r4", "chartqa", "A cat.")
    assert record.images[0].name == "4.png"  # type: ignore[union-attr]
    assert rows.sizes().num_images.tolist() == [1, 1, 1, 0, 1, 1, 1]
    assert rows.sizes().num_words.tolist() == [4, 4, 4, 5, 4, 4, 4]


def test_images_and_rows_can_be_pickled_for_another_process(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"image": images(stored(4)), "conversations": [TURNS]})
    rows = read_records(path)
    rows.record(0)
    again = pickle.loads(pickle.dumps(rows)).record(0)
    assert pickle.loads(pickle.dumps(again.images[0])).read() == png(4)


def test_a_struct_of_lists_lists_of_images_and_paths_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(8))
    two = [{**TURNS[0], "value": "<image><image> Which?"}, TURNS[1]]
    as_lists = {"from": ["human", "gpt"], "value": ["<image><image> Which?", "A cat."]}
    lists = pa.array([[stored(1), stored(2)]], pa.list_(IMAGE))
    assert widths(write(tmp_path / "l.parquet", {"images": lists, "conversations": [as_lists]})) == [[2, 3]]
    assert widths(write(tmp_path / "p.parquet", {"image": ["a.png"], "conversations": [TURNS]}), tmp_path) == [[9]]
    raw = pa.array([png(3), None], pa.binary())
    assert widths(write(tmp_path / "b.parquet", {"image": raw, "conversations": [TURNS, TEXT_TURNS]})) == [[4], []]
    roles = [[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]]
    assert widths(write(tmp_path / "r.parquet", {"conversations": roles})) == [[]]
    mixed = pa.array([[stored(1), {"bytes": None, "path": "a.png"}], [], None], pa.list_(IMAGE))
    path = write(tmp_path / "m.parquet", {"images": mixed, "conversations": [two, TEXT_TURNS, TEXT_TURNS]})
    assert widths(path, tmp_path) == [[2, 9], [], []]
    only_paths = images({"bytes": None, "path": "a.png"}, None)
    path = write(tmp_path / "o.parquet", {"image": only_paths, "conversations": [TURNS, TEXT_TURNS]})
    assert widths(path, tmp_path) == [[9], []]


def test_a_folder_of_shards_is_one_source_and_a_missing_shard_is_named(tmp_path: Path) -> None:
    for i in range(3):
        file = tmp_path / f"set/data/train-0000{i}-of-00003.parquet"
        write(file, {"image": images(stored(i)), "conversations": [TURNS]})
    assert widths(tmp_path / "set") == [[1], [2], [3]]
    assert widths(f"{tmp_path}/set/data/*-0000[12]*.parquet") == [[2], [3]]
    (tmp_path / "set/data/train-00001-of-00003.parquet").unlink()
    with pytest.raises(UsageError, match="lacks 1 of the 3 shards of 'train', first number 00001"):
        read_records(tmp_path / "set")
    write(tmp_path / "set/data/test-00000-of-00001.parquet", {"conversations": [TEXT_TURNS]})
    with pytest.raises(UsageError, match=r"holds the splits test, train. Name the files of one: .*train-\*.parquet"):
        read_records(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"holds no .parquet or .tar files"):
        read_records(tmp_path / "empty")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["x"]}, "has no column 'conversations'; it has text"),
        (
            {"conversations": [json.dumps(TURNS)]},
            "'conversations' .* is of type string; it has to be a list of structs",
        ),
        ({"conversations": [[{"from": 1, "value": "x"}]]}, "'conversations' .* is of type list"),
        ({"conversations": [TURNS], "image": [7]}, "'image' of .* is of type int64; it has to be an image"),
        ({"conversations": [TURNS], "image": [{"url": "x"}]}, "'image' of .* is of type struct"),
        ({"conversations": [TURNS], "image": ["a"], "images": ["a"]}, "the columns 'image' and 'images'"),
        ({"conversations": [TURNS[:1]]}, "Row 0 of .*x.parquet' has no answer"),
        ({"conversations": [TURNS, None]}, "Row 1 of .*x.parquet' needs a list 'conversations'"),
        (
            {"conversations": pa.array([], pa.list_(pa.struct({"from": pa.string(), "value": pa.string()})))},
            "non-empty",
        ),
    ],
)
def test_a_parquet_file_with_other_columns_says_which_and_what_they_must_be(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read_records(write(tmp_path / "x.parquet", columns))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or cut off"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in</html>" * 9, "web page"),
        (None, "damaged or cut off .*Fetch it again"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "tar"])
def test_a_file_that_is_not_what_its_name_says_is_named_with_the_remedy(
    tmp_path: Path, content: bytes | None, message: str, suffix: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    if content is None:
        write(path, {"conversations": [TEXT_TURNS] * 50})
        content = path.read_bytes()[:-20]
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_records(path)
    with pytest.raises(UsageError, match="does not exist"):
        read_records(tmp_path / f"none.{suffix}")


def test_an_image_without_bytes_or_path_is_a_bad_image(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"image": images({"bytes": None, "path": None}), "conversations": [TURNS]})
    with pytest.raises(BadImage, match=r"row 0 of .* holds no bytes"):
        widths(path)


def pack(path: Path, members: dict[str, bytes | str | dict[str, Any]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            data = (
                content if isinstance(content, bytes) else content if isinstance(content, str) else json.dumps(content)
            )
            data = data if isinstance(data, bytes) else data.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_the_samples_of_an_archive_are_rows_with_their_images(tmp_path: Path) -> None:
    path = pack(
        tmp_path / "x.tar",
        {
            "__meta__": "ignored",
            "a/0.png": png(0),
            "a/0.json": {"conversations": TURNS, "data_source": "s"},
            "a/1.JPG": png(1),
            "a/1.txt": "Eine Katze — ü.\n",
            "2.10.png": png(10),
            "2.9.png": png(9),
            "2.json": {"id": "two", "conversations": TURNS},
            "3.json": {"conversations": TEXT_TURNS},
            "4.png": png(4),
            "4.txt": "a",
            "4.json": {"url": "https://x", "caption": "a"},
        },
    )
    rows = read_records(path)
    assert [rows.record(i).id for i in range(5)] == ["a/0", "a/1", "two", "3", "4"]
    assert widths(path) == [[1], [2], [10, 11], [], [5]]
    assert rows.record(1).turns == (("human", "<image>"), ("gpt", "Eine Katze — ü."))
    assert (rows.record(0).source, rows.record(1).source) == ("s", str(path))
    assert rows.record(2).images[1].name == "2.10.png"  # type: ignore[union-attr]
    again = pickle.loads(pickle.dumps(rows))
    assert pickle.loads(pickle.dumps(again.record(4).images[0])).read() == png(4)
    assert load_image(again.record(0).images[0].read()).size.width == 1
    assert rows.sizes().num_images.tolist() == [1, 1, 2, 0, 1]


def test_shards_are_counted_through_braces(tmp_path: Path) -> None:
    for i in range(9, 12):
        pack(tmp_path / f"{i:06d}.tar", {"x.png": png(i), "x.txt": "a"})
    assert widths(f"{tmp_path}/{{000009..000011}}.tar") == [[10], [11], [12]]
    with pytest.raises(UsageError, match=r"000012.tar' does not exist"):
        read_records(f"{tmp_path}/{{000009..000012}}.tar")
    with pytest.raises(UsageError, match="it has to go up"):
        read_records(f"{tmp_path}/{{12..9}}.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.png": b"x"}, "The sample '0' of .* has neither .json nor .txt, only png"),
        ({"0.json": "{"}, "has a .json that is not valid JSON"),
        ({"0.json": "[]"}, "has a .json that is not an object"),
        ({"0.txt": b"\xff\xfe"}, "has a .txt that is not UTF-8"),
        ({"0.txt": "a", "1.txt": "b", "0.png": b"x"}, "'0' of .* comes twice, or its members are apart"),
        ({"0.txt": " "}, "has no answer"),
        ({"../../0": "x"}, "non-empty"),
    ],
)
def test_a_bad_sample_of_an_archive_is_named(tmp_path: Path, members: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_records(pack(tmp_path / "x.tar", members))


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("0.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UsageError, match=r"'0.json' of .* is a link or a device, not a file"):
        read_records(tmp_path / "x.tar")


def test_an_archive_that_is_cut_anywhere_is_an_error_after_its_whole_samples(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.tar", {f"{i}.txt": "answer" for i in range(4)})
    whole = path.read_bytes()
    assert len(list(scan_rows(str(path)))) == 4
    for length, num_whole in ((512, None), (1024, 1), (1500, 1), (2048, 2), (4096, 4), (4300, 4)):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match="damaged or cut off"):
            read_records(path)
        if num_whole is not None:
            *good, last = scan_rows(str(path))
            assert len(good) == num_whole
            assert all(not each.fault for each in good)
            assert "cut off" in last.fault


def test_a_compressed_archive_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"compressed archive.*Unpack the archive once, to a \.tar file"):
        read_records(tmp_path / "x.tar.gz")


def test_a_remote_file_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    pack(tmp_path / "x.tar", {"0.png": png(5), "0.txt": "a"})
    system.pipe("/set/0.tar", (tmp_path / "x.tar").read_bytes())
    assert widths("memory://set/*.tar") == widths("memory://set") == [[6]]
    opened = []
    monkeypatch.setattr(type(system), "_open", lambda *words, **_: opened.append(words))
    assert widths("memory://set/0.tar") == [[6]]
    assert opened == []
    with pytest.raises(UsageError, match=r"memory://none.json cannot be fetched: there is no such file"):
        read_records("memory://none.json")
    with pytest.raises(UsageError, match="cannot be read: Protocol not known: nowhere"):
        read_records("nowhere://x.json")


def test_a_file_of_the_hub_is_fetched_through_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    hub = pytest.importorskip("huggingface_hub")
    system = hub.HfFileSystem
    pack(tmp_path / "x.tar", {"0.png": png(5), "0.txt": "a"})
    asked = []

    def download(repo: str, name: str, **options: Any) -> str:
        asked.append((repo, name, options))
        return str(tmp_path / "x.tar")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(system, "_repo_and_revision_exist", lambda *_: (True, None))
    assert widths("hf://datasets/own/set@v1/data/x.tar") == [[6]]
    assert asked == [("own/set", "data/x.tar", {"repo_type": "dataset", "revision": "v1"})]


def test_a_fetch_that_ends_too_early_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = pytest.importorskip("fsspec").filesystem("memory")
    system.pipe("/short.jsonl", b"x" * 100)
    monkeypatch.setattr(type(system), "info", lambda *_, **__: {"name": "short.jsonl", "size": 200, "type": "file"})
    with pytest.raises(UsageError, match="only 100 of 200 bytes arrived"):
        read_records("memory://short.jsonl")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_names_that_leave_the_folder_and_loops_of_links_are_bad_images_and_other_links_are_not(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(png(1))
    (tmp_path / "images/loop.png").symlink_to("loop.png")
    (tmp_path / "images/out.png").symlink_to(tmp_path / "secret.png")
    for name, message in (
        ("../secret.png", "outside the image folder"),
        (str(tmp_path / "secret.png"), "outside the image folder"),
        ("loop.png", "cannot be opened: Too many levels of symbolic links|outside"),
        ("a\0b.png", "cannot be opened|outside"),
        ("none.png", "There is no image"),
        ("", "There is no image"),
    ):
        with pytest.raises(BadImage, match=message):
            find_image(tmp_path / "images", name)
    assert (
        find_image(tmp_path / "images", "out.png").name == "out.png"
    )  # a link inside the folder is the user's own choice
    assert find_image(tmp_path / "images", "../secret.png", allows_outside=True).is_file()


def check(files: str, fix: Path) -> int:
    return main(["data", "check", files, "--workers", "1", "--fix", str(fix), "--bad", str(fix) + ".findings"])


def test_a_clean_copy_of_parquet_keeps_columns_and_metadata(tmp_path: Path) -> None:
    columns = {
        "id": [1, 2, 2, 3, 4],
        "image": images(stored(0), stored(1), stored(2), {"bytes": b"<html>", "path": "x.png"}, None),
        "conversations": [TURNS, TURNS, TURNS, TURNS, TEXT_TURNS],
        "score": [0.5, 0.25, None, 1.0, 2.0],
    }
    table = pa.table(columns).replace_schema_metadata({"huggingface": "{}"})
    for number, rows in enumerate((table.slice(0, 3), table.slice(3, 2))):
        (tmp_path / "x").mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / f"x/train-{number:05}-of-00002.parquet", row_group_size=2)
    assert check(str(tmp_path / "x"), tmp_path / "clean.parquet") == 1
    clean = pq.read_table(tmp_path / "clean.parquet")
    assert clean.schema.metadata == {b"huggingface": b"{}"}
    assert clean.column("id").to_pylist() == ["1", "2", "2-2", "4"]
    assert clean.drop_columns(["id"]).equals(table.drop_columns(["id"]).take([0, 1, 2, 4]))
    assert widths(str(tmp_path / "clean.parquet")) == [[1], [2], [3], []]
    assert check(str(tmp_path / "clean.parquet"), tmp_path / "again.parquet") == 0
    assert pq.read_table(tmp_path / "again.parquet").equals(clean)


def test_a_clean_copy_of_shards_with_different_columns_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "x/train-00000-of-00002.parquet", {"conversations": [TEXT_TURNS], "score": [1]})
    write(tmp_path / "x/train-00001-of-00002.parquet", {"conversations": [TEXT_TURNS[:1] * 2, TEXT_TURNS * 2]})
    assert check(str(tmp_path / "x"), tmp_path / "clean.parquet") == 2
    assert "has other columns than the files before it" in capsys.readouterr().err
    assert not (tmp_path / "clean.parquet").exists()
    assert not (tmp_path / ".clean.parquet.partial").exists()


def test_stored_images_with_one_name_make_rows_that_are_no_duplicates(tmp_path: Path) -> None:
    names = {"image": images(stored(0, None), stored(1, None), stored(1, "a.png")), "conversations": [TURNS] * 3}
    write(tmp_path / "x.parquet", names)
    facts = check_files([str(tmp_path / "x.parquet")], tmp_path, tmp_path / "journal")
    assert [[kind for kind, _ in each.findings] for each in facts] == [[], [], ["duplicate row"]]


def test_a_clean_copy_of_archives_has_the_members_of_good_samples(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    same = {"0.jpg": png(0), "0.txt": b"A cat."}
    pack(tmp_path / "x/train-00000-of-00002.tar", {**same, "1.png": b"<html>", "1.txt": b"A page."})
    named = json.dumps({"id": "n", "conversations": TURNS, "more": 1}).encode()
    other = json.dumps({"id": "n", "conversations": [TURNS[0], TURNS[1] | {"value": "No."}]}).encode()
    members = {"0.jpg": png(1), "0.txt": b"A dog.", "2.png": png(2), "2.json": named, "3.png": png(3), "3.json": other}
    pack(tmp_path / "x/train-00001-of-00002.tar", {**members, "3.cls": b"7"})
    assert check(str(tmp_path / "x"), tmp_path / "clean.tar") == 1
    with tarfile.open(tmp_path / "clean.tar") as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert list(found) == ["0.jpg", "0.txt", "0-2.jpg", "0-2.txt", "2.png", "2.json", "3.png", "3.json", "3.cls"]
    assert (found["0-2.jpg"], found["0-2.txt"], found["2.json"], found["3.cls"]) == (png(1), b"A dog.", named, b"7")
    assert json.loads(found["3.json"])["id"] == "n-2"
    rows = read_records(str(tmp_path / "clean.tar"))
    assert [rows.record(i).id for i in range(len(rows))] == ["0", "0-2", "n", "n-2"]
    assert check(str(tmp_path / "clean.tar"), tmp_path / "again.tar") == 0
